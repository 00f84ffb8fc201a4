"""UPMC Food-101: the image of a dish and the text of its page, 101 classes (Wang et al., ICMEW 2015)."""

from mindgap.data.food101.checks import parameters, tables
from mindgap.data.food101.prepare import prepare
from mindgap.data.food101.settings import CLASSES, Settings

__all__ = ["CLASSES", "Settings", "parameters", "prepare", "tables"]
