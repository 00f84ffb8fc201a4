"""What goes wrong with data; the message names the file, what is wrong with it, and the mend."""

from mindgap.errors import MindGapError


class DataError(MindGapError):
    """A dataset is unknown, or a file of it is missing, truncated, altered or of the wrong form."""
