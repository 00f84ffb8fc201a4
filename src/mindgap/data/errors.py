"""What goes wrong with data; the message names the file, what is wrong with it, and the mend."""

from mindgap.base.errors import MindGapError


class DataError(MindGapError):
    """A dataset is unknown, or a file of it is missing, truncated, altered or of the wrong form."""


class SourceMissing(MindGapError):  # noqa: N818 - no fault of anyone's: the stage skips the dataset
    """The files that a dataset is made from are not here: a line says what to put where, and the licence."""


class NotInstalled(MindGapError):  # noqa: N818 - a bare host can do without
    """A package that a dataset from outside is read with is not here."""
