"""The datasets by name: those rendered from a declaration, and those made from files from outside."""

from collections import ChainMap
from functools import partial
from typing import Any

from mindgap.base.plugins import Registry
from mindgap.data.quintfeatures.missing import MISSING
from mindgap.data.quintfeatures.pairing import Pairing
from mindgap.data.quintfeatures.synergy import SYNERGY
from mindgap.data.quintfeatures.trio import TRIO
from mindgap.data.quintfeatures.unique import UNIQUE
from mindgap.data.source import Source


def _of_package(wanted: type, thing: Any, group: str) -> Any:
    """What an entry point of another package names, if it is of the wanted class."""
    if not isinstance(thing, Pairing | Source):
        raise TypeError("it is neither a mindgap.data.Pairing nor a mindgap.data.Source")
    if isinstance(thing, Source) and thing.credentialed:
        raise ValueError("it is credentialed, which takes a DVC project of its own (docs/data.md)")
    return thing if isinstance(thing, wanted) else None


RENDERED = Registry(
    {
        "missing": MISSING,
        "unique": UNIQUE,
        "synergy": SYNERGY,
        "trio": TRIO,
    },
    "mindgap.dataset",
    partial(_of_package, Pairing),
)

SOURCES = Registry(
    {
        "share": Source("share", ("cifar10", "mnist"), weak="cifar10", checks=("pairs", "images", "checks")),
        "share_shortcut": Source(
            "share_shortcut",
            ("cifar10", "mnist"),
            weak="cifar10",
            checks=("pairs", "checks"),
            made_from="share",
        ),
        "food101": Source(
            "food101", ("image", "text"), weak=None, checks=("images", "tokens", "classes", "checks")
        ),
        "mimic": Source(
            "mimic",
            ("ecg", "bloodlabs"),
            weak=None,
            checks=("cohort", "splits", "labs", "values", "scaler", "ecg", "leads", "raw"),
            credentialed=True,
            totals=("raw",),
        ),
    },
    "mindgap.dataset",
    partial(_of_package, Source),
)

# A name is one dataset's, in whichever of the two tables it is.
RENDERED.taken, SOURCES.taken = SOURCES.ours, RENDERED.ours

CREDENTIALED = {name for name, source in SOURCES.ours.items() if source.credentialed}

DATASETS = ChainMap(SOURCES, RENDERED)  # which lists the rendered ones first
