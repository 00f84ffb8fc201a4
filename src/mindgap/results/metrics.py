"""What DVC shows of the runs: a few numbers in `dvc exp show`, all of them on request, and learning curves.

The numbers are those of the page's AULC tables. Each belongs to one dataset, regime, mitigation and query
method, and does not depend on what else is in the report.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mindgap.results.aulc import on_targets, paired, per_seed
from mindgap.results.curves import OVER_SEEDS, Selection
from mindgap.results.names import CONTROLS
from mindgap.results.reading import parts_of
from mindgap.results.statistics import BASELINE
from mindgap.results.tables import Numbers

SHOWN_DIGITS = 4


def all_metrics(table: pd.DataFrame, curves: pd.DataFrame, selection: Selection) -> dict[str, Any]:
    """By dataset, regime, mitigation and method: n_seeds, and of each target ("weak", "all") the numbers.

    `aulc` is the page's: a column whose ceiling is below 1 is scaled as there. `difference` is to Random,
    paired by seed, from `low` to `high` with 95 % (Student's); None where there is none, or too few seeds.
    `table` is the tidy AULC table.
    """
    numbers, areas = Numbers(table, selection), dict[tuple[str, ...], pd.Series]()
    made: dict[str, Any] = {}
    for target, rows in parts_of(on_targets(curves, selection.weak), "target"):
        for (*cell, subset), run in parts_of(per_seed(rows), [*OVER_SEEDS, "subset"]):
            area = run.set_index("seed")["aulc"].sort_index()
            areas[*cell, target] = area * numbers.factor(cell[0], subset)
    for (*setting, query, target), area in areas.items():
        random = areas.get((*setting, BASELINE, target)) if query != BASELINE else None
        one = _nested(made, (*setting, query))
        one["n_seeds"] = len(area)
        one[target] = {"aulc": _rounded(area.mean())} | _difference(area, random)
    return made


def few_metrics(full: Mapping[str, Any], selection: Selection) -> dict[str, Any]:
    """The AULC of each query method on the weak modality; with all of them in datasets that have none."""
    made: dict[str, Any] = {}
    for dataset, regimes in full.items():
        target = "weak" if dataset in selection.weak else "all"
        for regime, mitigations in regimes.items():
            for mitigation, queries in mitigations.items():
                methods = {
                    query: one[target]["aulc"] for query, one in queries.items() if query not in CONTROLS
                }
                _nested(made, (target, dataset, regime))[mitigation] = methods
    return made


def plot_points(curves: pd.DataFrame, selection: Selection) -> pd.DataFrame:
    """What `dvc plots` draws: mean accuracy over seeds with all modalities, and on the weak one."""
    shown = on_targets(curves, selection.weak).drop(columns="subset").rename(columns={"target": "subset"})
    keys = ["dataset", "regime", "mitigation", "subset", "query", "labelled"]
    return shown.groupby(keys, sort=False, as_index=False)[["balanced_accuracy"]].mean()


def _difference(area: pd.Series, random: pd.Series | None) -> dict[str, float | None]:
    """The mean over seeds of area - random, and its interval; runs are paired by their seeds, the index."""
    _, *numbers = paired(area, random)
    return dict(zip(("difference", "low", "high"), map(_rounded, numbers), strict=True))


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), SHOWN_DIGITS)


def _nested(tree: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """The branch under these keys, made where it is not there."""
    for key in keys:
        tree = tree.setdefault(key, {})
    return tree
