"""The test that was registered for methods of our own before they were run.

Numbers are levels (`aulc.level`), the mean along the curve, paired by seed.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import ttest_1samp

from mindgap.results.aulc import DIGITS, half_width, spread
from mindgap.results.claims import FEW, UNKNOWN, UNRANKED
from mindgap.results.curves import OVER_SEEDS, Selection
from mindgap.results.effects import PLAIN, leveled
from mindgap.results.gate import FAILED, PASSED
from mindgap.results.names import OUR_METHODS, OUR_MITIGATIONS, method_name, mitigation_name
from mindgap.results.reading import parts_of
from mindgap.results.statistics import ALPHA, holm

RIVALS = ("kcenter_greedy", "badge")
TUNED_ON, HELD_OUT = ("missing", "share"), ("unique", "synergy", "trio")
FEWEST_SEEDS = 10
MOST_LOST = 0.01  # that all modalities together may lose
TUNED = "no verdict"
NUMBERS = (
    *("weak_difference", "weak_low", "weak_high", "p", "p_holm"),
    *("joint_difference", "joint_low", "joint_high"),
)
TEST_COLUMNS = [
    *("method", *OVER_SEEDS, "rival", "rival_mitigation", "weak", "n_seeds"),
    *(*NUMBERS, "verdict", "why"),
]
# Levels, seeds x subsets, by mitigation and query.
Cells = dict[tuple[str, str], pd.DataFrame]


def preregistered(seeds: pd.DataFrame, selection: Selection) -> pd.DataFrame:
    """The registered test of each method of our own in each setting that has it: TEST_COLUMNS.

    A method passes where its weak level is above that of the better of K-center and BADGE under the same
    mitigation, by the interval of the paired t-test with Holm's correction over all settings that are judged
    here, and the lower end of the 95 % interval of its joint level, likewise against that rival, is above
    -MOST_LOST. The rivals of a mitigation of our own are without any. Judged are HELD_OUT datasets whose gate
    has not failed, with FEWEST_SEEDS. Where a dataset declares no modality weak, it is the one in which the
    rivals' runs are lowest.
    """
    runs: dict[tuple[str, str], Cells] = {}
    for (dataset, regime, *cell), part in parts_of(leveled(seeds, selection.weak), OVER_SEEDS):
        wide = part.pivot(index="seed", columns="subset", values="level")
        runs.setdefault((dataset, regime), {})[cell[0], cell[1]] = wide
    rows = [row for place, cells in runs.items() for row in _rows(place, cells, selection)]
    judged = [row for row in rows if not row["verdict"]]
    p = np.array([row["p"] for row in judged], dtype=float)
    for row, adjusted, m in zip(judged, holm(p), still_open(p), strict=True):
        row.update(p_holm=adjusted, tests=m)
    for row in rows:
        half = half_width(row["deviation"], row["n_seeds"], 1 - ALPHA / row["tests"])
        row.update(weak_low=row["weak_difference"] - half, weak_high=row["weak_difference"] + half)
        if not row["verdict"]:
            row["verdict"], row["why"] = _verdict(row)
    return pd.DataFrame(rows, columns=TEST_COLUMNS)


def still_open(p: np.ndarray) -> np.ndarray:
    """By how many tests Holm's procedure divides alpha for each p: m for the smallest, m - 1 for the next ...

    From the first that it does not reject on it stays at that one's. So an interval with this correction
    leaves out 0 exactly where the adjusted p is at most alpha.
    """
    order, m = np.argsort(p, kind="stable"), len(p)
    rejected = np.cumprod(p[order] * np.arange(m, 0, -1) <= ALPHA, dtype=int)
    divisors = np.empty(m, dtype=int)
    divisors[order] = np.maximum(np.arange(m, 0, -1), m - rejected.sum())
    return divisors


def _rows(place: tuple[str, str], cells: Cells, selection: Selection) -> Iterator[dict[str, Any]]:
    """TEST_COLUMNS before the correction, of a dataset and regime; an empty verdict is to be found.

    With them the `deviation` of the weak difference, and by how many `tests` its alpha is divided.
    """
    for mitigation, query in cells:
        if query in OUR_METHODS:
            yield _row(place, cells, selection, query, (mitigation, query), mitigation)
        if mitigation in OUR_MITIGATIONS:
            yield _row(place, cells, selection, mitigation, (mitigation, query), PLAIN)


def _row(
    place: tuple[str, str],
    cells: Cells,
    selection: Selection,
    method: str,
    own: tuple[str, str],
    theirs: str,
) -> dict[str, Any]:
    """The row of a method, the cell `own`, against the rivals under the mitigation `theirs`."""
    row: dict[str, Any] = dict(zip(["method", *OVER_SEEDS], (method, *place, *own), strict=True))
    row |= {"rival": "", "rival_mitigation": theirs, "weak": "", "n_seeds": 0, "tests": 1}
    row |= dict.fromkeys((*NUMBERS, "deviation"), np.nan)
    if lacking := [method_name(rival) for rival in RIVALS if (theirs, rival) not in cells]:
        why = f"no runs of {' and '.join(lacking)} with {mitigation_name(theirs)}"
        return row | {"verdict": UNKNOWN, "why": why}
    frames = {name: cells[theirs, name] for name in RIVALS} | {method: cells[own]}
    seeds = sorted(set.intersection(*(set(frame.index) for frame in frames.values())))
    levels = {name: frame.loc[seeds] for name, frame in frames.items()}
    subsets = [str(name) for name in cells[own]]
    joint = max(subsets, key=lambda subset: subset.count("+"))
    weak = selection.weak.get(place[0]) or min(
        (subset for subset in subsets if subset != joint),
        key=lambda subset: sum(levels[rival][subset].mean() for rival in RIVALS),
    )
    rival = max(RIVALS, key=lambda name: float(levels[name][weak].mean()))
    weak_S, joint_S = ((levels[method][s] - levels[rival][s]).round(DIGITS) for s in (weak, joint))
    joint_difference, half = joint_S.mean(), half_width(spread(joint_S.tolist()), len(seeds))
    verdict, why = _not_judged(place, [own[0], theirs], len(seeds), selection)
    return row | {
        "rival": rival,
        "weak": weak,
        "n_seeds": len(seeds),
        "weak_difference": weak_S.mean(),
        "deviation": spread(weak_S.tolist()),
        "p": _t_test(weak_S),
        "joint_difference": joint_difference,
        "joint_low": joint_difference - half,
        "joint_high": joint_difference + half,
        "verdict": verdict,
        "why": why,
    }


def _t_test(differences: pd.Series) -> float:
    """The two-sided p of a paired t-test; where all are equal it is 1 if they are 0, else 0."""
    if len(differences) < 2:
        return np.nan
    if differences.nunique() == 1:
        return float(differences.iloc[0] == 0)
    return float(ttest_1samp(differences, 0).pvalue)


def _not_judged(
    place: tuple[str, str], mitigations: Sequence[str], n: int, selection: Selection
) -> tuple[str, str]:
    """Why a setting has no verdict; two empty texts where it has."""
    if place[0] not in HELD_OUT:
        tuned = (
            "it was tuned on this dataset" if place[0] in TUNED_ON else "this dataset is none of the test's"
        )
        return TUNED, tuned
    if closed := [
        selection.unranked[(*place, one)] for one in mitigations if (*place, one) in selection.unranked
    ]:
        return UNRANKED, f"the gate failed: {closed[0]}"
    if n < FEWEST_SEEDS:
        return FEW, f"{n} paired seeds, {FEWEST_SEEDS} are needed"
    return "", ""


def _verdict(row: Mapping[str, Any]) -> tuple[str, str]:
    faults = []
    if not (row["p_holm"] <= ALPHA and row["weak_difference"] > 0):
        faults.append(f"weak is not told to be above {method_name(row['rival'])}")
    if not row["joint_low"] > -MOST_LOST:
        faults.append(f"all together may lose more than {MOST_LOST:g}")
    return (FAILED, "; ".join(faults)) if faults else (PASSED, "")
