"""Reads what the data stages dropped (reports/flow/<dataset>.csv), and says how to mend results' files."""

from pathlib import Path
from typing import Any

from mindgap.data import CREDENTIALED
from mindgap.data.flow import FLOW_COLUMNS
from mindgap.results.reading import Fault, checking, read_table, records_of, whole_number

FlowRows = list[dict[str, str]]
COUNTS = ("rows_in", "excluded", "repaired", "rows_out")
SKIPPED = "skipped"
SELECTION = "selection.yaml"  # of a kept report, in its folder
# Published counts are rounded to tens, each by itself: a difference of two may be ten off the third.
ROUNDED = 10


def mend_of(dataset: str, stage: str) -> str:
    """What to do about a missing file of results; those of a credentialed dataset are published by hand."""
    if dataset in CREDENTIALED:
        return f"run `dvc repro` in data/{dataset}, then `mindgap publish {dataset}`"
    return f"write it anew: dvc repro {stage}"


def mend_for(path: Path, stage: str) -> str:
    """What to do about a missing or damaged file of results, <folder>/<kind>/<name>, which a stage made.

    The records of a kept report lie in git.
    """
    if (path.parent.parent / SELECTION).exists():
        return f"it is in git: git checkout -- {path}, or keep the records anew (mindgap keep --replace)"
    dataset = path.stem if stage == "prepare" else path.stem.rsplit("-", 1)[0]
    return mend_of(dataset, f"-f -s {stage}@{path.stem}")


def read_flow(path: Path, mend: str = "") -> FlowRows:
    """The lines of a flow, whose counts add up; anything else is a ReportError with the mend."""
    mend = mend or mend_for(path, "prepare")
    table = read_table(path, FLOW_COLUMNS, mend)
    left: dict[str, int] = {}
    with checking(path, mend):
        if tuple(table.columns) != FLOW_COLUMNS or table.empty:
            raise Fault(f" is no flow: it needs the columns {', '.join(FLOW_COLUMNS)}, and rows")
        for line, row in zip(table.index, records_of(table), strict=True):
            if fault := _fault(row, left, ROUNDED if path.stem in CREDENTIALED else 0):
                raise Fault(f", line {line}: {fault}")
            left[row["part"]] = int(row["rows_out"])
        if SKIPPED in left and len(table) > 1:
            raise Fault(" says that the dataset was skipped, and more")
    return records_of(table)


def _fault(row: dict[str, str], left: dict[str, int], slack: int) -> str:
    """What is wrong with a line; `left`: the rows out of the last line of each part."""
    counts = {}
    for name in COUNTS:
        count = whole_number(row[name])
        if count is None:
            return f"{name} is {row[name]!r}, not a whole number from 0 on"
        counts[name] = count
    rows_in, excluded, repaired, rows_out = counts.values()
    part = row["part"]
    if not part or not row["step"]:
        return f"{'step' if part else 'part'} is empty"
    if abs(rows_in - excluded - rows_out) > slack:
        return (
            f"rows_out is {rows_out}, but {rows_in} rows_in less {excluded} excluded is {rows_in - excluded}"
        )
    if repaired > rows_in:
        return f"repaired is {repaired} of {rows_in} rows_in"
    if part in left and rows_in != left[part]:
        return f"rows_in is {rows_in}, but the line before left {left[part]} of {part!r}"
    if part not in left and (row["reason"] or excluded or repaired):
        return f"reason is {row['reason']!r} in the first line of {part!r}, which is a bare count"
    return ""


def skipped_reason(flow: FlowRows) -> str:
    """Why a dataset was skipped; empty for one that was not."""
    return flow[0]["step"] if flow[0]["part"] == SKIPPED else ""


def flow_parts(flow: FlowRows) -> list[dict[str, Any]]:
    """The chains of a flow in order: name, rows at first and at last, and the lines between."""
    parts: dict[str, list[dict[str, str]]] = {}
    for row in flow:
        parts.setdefault(row["part"], []).append(row)
    return [
        {"name": name, "rows": rows, "first": rows[0]["rows_in"], "last": rows[-1]["rows_out"]}
        for name, rows in parts.items()
    ]
