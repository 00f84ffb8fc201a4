"""MindGap: a benchmark of multimodal active learning.

As a library: `mindgap.run` makes learning curves of arrays in memory, `mindgap.load` reads those of a folder,
`mindgap.aulc` gives the areas under them.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

LIBRARY = ("aulc", "load", "run")


def __getattr__(name: str) -> Any:
    """A function of the library, imported when it is asked for: it takes torch along."""
    if name in LIBRARY:
        return getattr(importlib.import_module(f"{__name__}.stages.library"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *LIBRARY])
