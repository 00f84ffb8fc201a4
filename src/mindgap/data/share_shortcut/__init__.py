"""Share with a planted shortcut: digits tell the class in most training samples, and by chance in test."""

from mindgap.data.share_shortcut.checks import parameters, tables
from mindgap.data.share_shortcut.pairs import Settings, prepare

__all__ = ["Settings", "parameters", "prepare", "tables"]
