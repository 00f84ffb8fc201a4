"""Drawing that all datasets share: whole numbers of texts, for seeds, and labels in equal numbers."""

import zlib

import numpy as np


def stable_hash(text: str) -> int:
    """32 bits of a text, the same in every process (unlike `hash`)."""
    return zlib.crc32(text.encode())


def balanced_labels(size: int, classes: int, rng: np.random.Generator) -> np.ndarray:
    """Class ids (N) in random order whose counts differ by at most one; who gets more is random."""
    whole, rest = divmod(size, classes)
    label_N = np.concatenate([np.tile(np.arange(classes), whole), rng.permutation(classes)[:rest]])
    return rng.permutation(label_N)
