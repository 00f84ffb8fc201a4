"""Augmentation of batches of images on their device."""
