"""Tables and figures' data of what extra evaluators measured, those that learning curves do not need."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from mindgap.core.records import MEASURED_COLUMNS
from mindgap.results.aulc import summary
from mindgap.results.curves import POINTS, Selection, number
from mindgap.results.flow import mend_for
from mindgap.results.names import dataset_name, method_name, mitigation_name, subset_title
from mindgap.results.reading import parts_of, read_table
from mindgap.results.tables import ONE_SEED, Column, Table, TableCell, TableRow

OF_A_RUN = ["run", "scale", "dataset", "regime", "mitigation", "query", "seed"]
WHAT = ["evaluator", "name", "subset"]
BEYOND_COLUMNS = [*OF_A_RUN, *WHAT, "round", "labelled", "value"]

NOTE = (
    "Measured on the model of the last round; docs/extending.md says what each number is. Mean ± standard "
    "deviation over seeds; “·”: no such number. None of these ranks a method."
)


def read_measured(folder: Path, curves: pd.DataFrame) -> pd.DataFrame:
    """The rows of the long tables in a folder that no curve has, of the runs of the curves: BEYOND_COLUMNS.

    A table may be missing: kept and published records are without. Raises ReportError.
    """
    runs, frames = curves[OF_A_RUN].drop_duplicates(), [pd.DataFrame(columns=BEYOND_COLUMNS)]
    for dataset, regime in curves[["dataset", "regime"]].drop_duplicates().itertuples(index=False):
        path = Path(folder) / f"{dataset}-{regime}.csv"
        if path.exists():
            table = beyond_curves(path)
            numbers = {n: [number(text) for text in table[n]] for n in ("round", "labelled", "value")}
            frames.append(table[["run", *WHAT]].assign(**numbers).merge(runs, on="run")[BEYOND_COLUMNS])
    return pd.concat([one for one in frames if len(one)] or frames, ignore_index=True)


def beyond_curves(path: Path) -> pd.DataFrame:
    """The rows of a long table that no curve has, as text: MEASURED_COLUMNS. Raises ReportError."""
    table = read_table(path, MEASURED_COLUMNS, mend_for(path, "acquire"))[list(MEASURED_COLUMNS)]
    return table[~table["evaluator"].isin(POINTS)]


def measured_tables(
    measured: pd.DataFrame, order: Mapping[str, Sequence[str]], selection: Selection
) -> list[Table]:
    """A table for each dataset and mitigation: what the last round measured down, methods across.

    A dataset of which several mitigations were run with one method has one table, mitigations across.
    """
    made = []
    for dataset, whole in parts_of(measured, "dataset"):
        last = whole[whole["round"] == whole.groupby("run")["round"].transform("max")]
        one_method = last["query"].nunique() == 1 and last["mitigation"].nunique() > 1
        if one_method:
            across, titles = "mitigation", {name: mitigation_name(name) for name in selection.mitigations}
            tables = [("", method_name(last["query"].iloc[0]), last)]
        else:
            across, titles = "query", {name: method_name(name) for name in selection.queries}
            parts = parts_of(last, "mitigation")
            tables = [(f"-{mitigation}", mitigation_name(mitigation), part) for mitigation, part in parts]
        for suffix, told, part in tables:
            there = [name for name in titles if name in set(part[across])]
            rows = _rows(part, across, there, order[dataset], selection)
            notes = [NOTE] + [ONE_SEED] * (part["seed"].nunique() == 1)
            title = f"{dataset_name(dataset)}, {told}: what else was measured"
            columns = tuple(Column("", titles[name]) for name in there)
            made.append(
                Table(f"measured-{dataset}{suffix}", title, columns, tuple(rows), tuple(notes), "Measured")
            )
    return made


def _rows(
    last: pd.DataFrame, across: str, there: Sequence[str], subsets: Sequence[str], selection: Selection
) -> list[TableRow]:
    """A row per regime and number; a cell for each value of the column `across` that is `there`."""
    rows: list[TableRow] = []
    for regime in (regime for regime in selection.regimes if regime in set(last["regime"])):
        here = last[last["regime"] == regime]
        for place, ((evaluator, name, subset), of_one) in enumerate(parts_of(here, WHAT)):
            cells = tuple(_cell(of_one.loc[of_one[across] == one, "value"]) for one in there)
            title = f"{regime}: {evaluator}" + f" {name}" * (name != evaluator)
            title += f", {subset_title(subset, subsets)}" if subset else ""
            rows.append(TableRow(title, "method", cells, rule=place == 0 and bool(rows)))
    return rows


def _cell(values: pd.Series) -> TableCell:
    if values.empty:
        return TableCell(math.nan, math.nan, digits=3)
    mean, std, half = summary(values)
    return TableCell(mean, std, digits=3, ci=half)


def bought(measured: pd.DataFrame, order: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Presence and class mix of what was labelled; `panel` is its title. Without what all samples have."""
    names = ("presence", "class_entropy")
    found = measured[(measured["evaluator"] == "acquired") & measured["name"].isin(names)]
    panels = [
        f"share that has {subset_title(subset, order[dataset])}" if subset else "evenness of classes"
        for dataset, subset in zip(found["dataset"], found["subset"], strict=True)
    ]
    found = found.assign(panel=panels)
    lowest = found.groupby(["dataset", "mitigation", "panel"])["value"].transform("min")
    return found[(lowest < 1) | (found["name"] != "presence")]
