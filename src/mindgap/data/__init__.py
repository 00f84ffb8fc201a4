"""The datasets by name: those rendered from a declaration, and those made from files from outside."""

from mindgap.data.quintfeatures.missing import MISSING
from mindgap.data.quintfeatures.synergy import SYNERGY
from mindgap.data.quintfeatures.trio import TRIO
from mindgap.data.quintfeatures.unique import UNIQUE
from mindgap.data.source import Source

RENDERED = {
    "missing": MISSING,
    "unique": UNIQUE,
    "synergy": SYNERGY,
    "trio": TRIO,
}

SOURCES = {
    "share": Source("share", ("cifar10", "mnist"), weak="cifar10", checks=("pairs", "images", "checks")),
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
}

CREDENTIALED = {name for name, source in SOURCES.items() if source.credentialed}

DATASETS = {**RENDERED, **SOURCES}
