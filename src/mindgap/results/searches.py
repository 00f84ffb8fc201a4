"""Reads the searches for a recipe behind the runs of a report (reports/search), and checks each of them."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mindgap.core.records import SEARCH_COLUMNS
from mindgap.results.curves import Selection, number
from mindgap.results.flow import mend_for
from mindgap.results.provenance import Origin
from mindgap.results.reading import Fault, checking, read_table, records_of, whole_number

RECIPE = ("learning_rate", "weight_decay", "augmentation")


def read_searches(folder: Path, selection: Selection, origins: Sequence[Origin] = ()) -> pd.DataFrame:
    """The trials of all datasets and regimes, SEARCH_COLUMNS as text; empty when nothing was searched.

    Raises a ReportError where a search is damaged, or chose another recipe than the runs of `origins` have.
    A credentialed dataset keeps its searches in its own project.
    """
    recipes = {
        (one.dataset, one.regime): made["setting"]["recipe"]
        for one in origins
        for made in one.settings.values()  # one recipe for all
    }
    frames = [_read(folder, key, selection.scale, recipes.get(key)) for key in selection.pairs]
    return pd.concat(frames, ignore_index=True)


def _read(folder: Path, key: tuple[str, str], scale: str, recipe: Mapping[str, Any] | None) -> pd.DataFrame:
    path = Path(folder) / f"{'-'.join(key)}.csv"
    if not path.exists() and not path.is_symlink():
        return pd.DataFrame(columns=list(SEARCH_COLUMNS))
    mend = mend_for(path, "train")
    table = read_table(path, SEARCH_COLUMNS, mend)
    where = dict(zip(("scale", "dataset", "regime"), (scale, *key), strict=True))
    with checking(path, mend):
        if tuple(table.columns) != SEARCH_COLUMNS:
            raise Fault(f" needs the columns {', '.join(SEARCH_COLUMNS)} alone")
        for line, row in zip(table.index, records_of(table), strict=True):
            if fault := _fault(row, where):
                raise Fault(f", line {line}: {fault}")
        if len(table) and (fault := _wrong_choice(table, recipe)):
            raise Fault(fault)
    return table


def _fault(row: Mapping[str, str], where: Mapping[str, str]) -> str:
    """What is wrong with a trial."""
    for name, wanted in where.items():
        if row[name] != wanted:
            return f"{name} is {row[name]!r}, not {wanted!r}"
    for name in ("rung", "epochs", "seeds", "steps"):
        if whole_number(row[name]) is None:
            return f"{name} is {row[name]!r}, not a whole number from 0 on"
    for name, most in (("learning_rate", math.inf), ("weight_decay", math.inf), ("validation", 1.0)):
        diverged = name == "validation" and row[name] == ""
        if not diverged and not 0 <= number(row[name]) <= most:
            return f"{name} is {row[name]!r}, not a number from 0 {'on' if most > 1 else 'to 1'}"
    known = {"method": ("grid", "halving"), "chosen": ("True", "False")}
    for name, values in known.items():
        if row[name] not in values:
            return f"{name} is {row[name]!r}, not one of {', '.join(values)}"
    return "" if row["augmentation"] else "augmentation is empty"


def _wrong_choice(table: pd.DataFrame, recipe: Mapping[str, Any] | None) -> str:
    """What is wrong with the trials together: one twice, or marked though it did not win or did not run."""
    again = table.index[table.duplicated(["rung", *RECIPE])]
    if len(again):
        return f", line {again[0]}: the trial is there twice"
    chosen = table.index[table["chosen"] == "True"].tolist()
    if len(chosen) != 1:
        return f": {len(chosen)} trials are chosen (lines {', '.join(map(str, chosen)) or 'none'}), not one"
    row = table.loc[chosen[0]]
    last = table[table["rung"].map(int) == table["rung"].map(int).max()]
    best = last["validation"].map(number).max()
    if chosen[0] not in last.index or number(row["validation"]) != best:
        return f", line {chosen[0]}: chosen, but not the best validation of the last rung, {best:g}"
    values = {name: row[name] if name == "augmentation" else number(row[name]) for name in RECIPE}
    for name, value in values.items():
        if recipe is not None and value != recipe[name]:
            return f", line {chosen[0]}: chosen with {name} {row[name]}, but its runs have {recipe[name]}"
    return ""
