"""Which code a run's numbers depend on: that of the loop and of the parts that its cell and settings name."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from mindgap.base.plugins import Registry
from mindgap.core.digest import SOURCE, code_digest, files_of
from mindgap.core.loop import Cell
from mindgap.parts.augment.images import AUGMENTATIONS
from mindgap.parts.encoders import ENCODERS
from mindgap.parts.evaluators import EVALUATORS
from mindgap.parts.fusions import FUSIONS
from mindgap.parts.mitigations import MITIGATIONS
from mindgap.parts.query import METHODS
from mindgap.parts.query.contract import Method
from mindgap.parts.starts import STARTS, Start


def run_code(cell: Cell, settings: Mapping[str, Any]) -> str:
    """Digest of the code behind a run, by its settings as its provenance has them.

    Raises a LookupError for a part that is not there (any more).
    """
    model, recipe = settings["setting"]["model"], settings["setting"]["recipe"]
    parts: list[tuple[Registry[Any], str]] = [
        (STARTS, settings["setting"]["start"]),
        (MITIGATIONS, cell.mitigation),
        (FUSIONS, model["fusion"]["name"]),
    ]
    parts += [(ENCODERS[kind], encoder["name"]) for kind, encoder in model["encoder"].items()]
    parts += [(EVALUATORS, name) for name in settings["evaluators"]]
    files = set().union(*map(files_of, AUGMENTATIONS[recipe["augmentation"]]))
    if cell.query is not None:
        parts.append((METHODS, cell.query))
        files.add(SOURCE / "parts/query/select.py")
    return digest_here(frozenset(files.union(*(part_files(*part) for part in parts))))


@cache
def digest_here(files: frozenset[Path]) -> str:
    """`code_digest`, once in a process for all runs that stand on the same files."""
    return code_digest(files)


def part_files(table: Registry[Any], name: str) -> set[Path]:
    """The files that a part is written in; of another package's part also those that its package needs."""
    part = table[name]
    return files_of(part.fn if isinstance(part, Method | Start) else part) | table.files(name)
