"""The one class of errors a user can mend; the command line prints them without a traceback."""


class MindGapError(Exception):
    """Something given from outside is wrong; the message names it and says how to mend it."""


class ParamsError(MindGapError):
    """Something in params.yaml cannot be run."""


class DivergenceError(MindGapError):
    """A training left numbers that are not finite; the message names dataset, round and epoch."""
