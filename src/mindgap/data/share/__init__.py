"""Share (paper, section 5): an image of CIFAR-10 and a digit of MNIST, whose classes always go together."""

from mindgap.data.share.checks import parameters, tables
from mindgap.data.share.pairs import Settings, prepare

__all__ = ["Settings", "parameters", "prepare", "tables"]
