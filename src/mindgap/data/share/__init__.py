"""Share: CIFAR-10 images and MNIST digits, paired by class, each image used at most once."""
