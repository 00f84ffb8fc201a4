"""Whether reliabilities decide anything: the table that `mindgap diagnose` writes to reports/diagnosis."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mindgap.core.records import text_digest
from mindgap.results.curves import number
from mindgap.results.flow import mend_for
from mindgap.results.permutation import Gap, pooled
from mindgap.results.provenance import fault_of
from mindgap.results.reading import Fault, checking, read_json, read_table, read_text

POOLED = "pooled"  # in place of a seed
OF_MODELS = ("scale", "dataset", "regime", "mitigation", "query", "fusion")
OF_A_GAP = ("rule", "how", "n", "clean", "gap")
NUMBERS = ("p", "p_equivalent", "flips", "competitiveness", "alignment", "oracle")
# The columns are described in reports/diagnosis/README.md.
DIAGNOSIS_COLUMNS = (
    *OF_MODELS, "seed", "run", "source", *OF_A_GAP, "low", "high", *NUMBERS, "verdict",
)  # fmt: skip


def diagnosis_rows(
    run: Mapping[str, Any], of_seeds: Mapping[int, tuple[str, Sequence[tuple[str, Gap]]]]
) -> list[dict[str, Any]]:
    """The rows of the runs that differ in their seeds alone, then the same pooled over seeds.

    `run`: OF_MODELS. `of_seeds`: by seed the run's digest, and its gaps, each with the source of the
    reliabilities, in one order.
    """
    rows, together = [], []
    for seed, (digest, gaps) in of_seeds.items():
        rows += [_row(run, seed, digest, source, gap) for source, gap in gaps]
        together.append(gaps)
    for of_one in zip(*together, strict=True):
        rows.append(_row(run, POOLED, "", of_one[0][0], pooled([gap for _, gap in of_one])))
    return rows


def _row(run: Mapping[str, Any], seed: int | str, digest: str, source: str, gap: Gap) -> dict[str, Any]:
    low, high = gap.interval
    told = {name: getattr(gap, name) for name in (*OF_A_GAP, *NUMBERS, "verdict")}
    told = {name: "" if value != value else value for name, value in told.items()}  # NaN
    return {**run, "seed": seed, "run": digest, "source": source, "low": low, "high": high, **told}


def read_diagnosis(paths: Iterable[Path], runs: Mapping[str, set[str]]) -> pd.DataFrame:
    """The tables at some paths, each as it was written with the provenance beside it, and the `file` of rows.

    `runs`: by a table's name the digests of the runs that it has to be about, where these are known. Raises
    a ReportError with the mend.
    """
    frames = [_read(path, runs.get(path.stem)) for path in paths]
    return pd.concat([pd.DataFrame(columns=list(DIAGNOSIS_COLUMNS)), *frames], ignore_index=True)


def _read(path: Path, runs: set[str] | None) -> pd.DataFrame:
    origin = path.with_suffix(".json")
    mend = mend_for(path, "diagnose").replace(str(path), f"{path} {origin}")  # from git come both
    made = read_json(origin, mend)
    with checking(origin, mend):
        if fault := fault_of(made):
            raise Fault(f" is no record of provenance: {fault}")
    with checking(path, mend):
        if text_digest(read_text(path, mend)) != made.get("diagnosis"):
            raise Fault(f" is not what was written with {origin}: one was changed")
        table = read_table(path, DIAGNOSIS_COLUMNS, mend)
        if runs is not None and set(table["run"]) - {""} != runs:
            raise Fault(" is of other runs than the curves are")
    for name in ("n", "clean", "gap", "low", "high", *NUMBERS):
        table[name] = [math.nan if text == "" else number(text) for text in table[name]]
    return table.assign(file=path.stem)
