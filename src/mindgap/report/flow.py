"""What the data stages dropped, as the page shows it: reports/flow/<dataset>.csv."""

import csv
from pathlib import Path

from mindgap.data import CREDENTIALED
from mindgap.data.flow import COLUMNS
from mindgap.errors import MindGapError


class ReportError(MindGapError):
    """What a report is made of is not complete or not consistent; the message names file, run and mend."""


Flow = list[dict[str, str]]
COUNTS = ("rows_in", "excluded", "repaired", "rows_out")


def mend_of(dataset: str, stage: str) -> str:
    """What to do about a missing file of results; those of a credentialed dataset are published by hand."""
    if dataset in CREDENTIALED:
        return f"run `dvc repro` in data/{dataset}, then `mindgap publish {dataset}`"
    return f"write it anew: dvc repro {stage}"


def read_flow(path: Path) -> Flow:
    """The lines of a flow; a file that is missing or of another form raises a ReportError with the mend."""
    mend = mend_of(path.stem, f"-f prepare@{path.stem}")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except FileNotFoundError as error:
        raise ReportError(f"{path} is not there; {mend}") from error
    if tuple(reader.fieldnames or ()) != COLUMNS or not rows:
        raise ReportError(f"{path} is no flow: it needs the columns {', '.join(COLUMNS)}, and rows; {mend}")
    return rows


def skipped_line(flow: Flow) -> str:
    """Why a dataset was skipped; empty for one that was not."""
    return flow[0]["step"] if flow[0]["part"] == "skipped" else ""


def flow_parts(flow: Flow) -> list[dict]:
    """The chains of a flow in order: name, rows at first and at last, and the lines between."""
    parts: dict[str, list[dict[str, str]]] = {}
    for row in flow:
        parts.setdefault(row["part"], []).append(row)
    return [
        {"name": name, "rows": rows, "first": rows[0]["rows_in"], "last": rows[-1]["rows_out"]}
        for name, rows in parts.items()
    ]
