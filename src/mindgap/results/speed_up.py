"""The speed-up factor: how many labels Random needs for one label of a method, to the same accuracy.

The definition is ours, as no source that we have gives one. Take each accuracy above the start that both
curves reach (the points of either curve), and divide the fewest labels with which Random reaches it by the
fewest with which the method does; curves are straight between their points. The factor is the geometric mean
of these ratios, so that exchanging the two curves inverts it. Curves are means over the seeds that both have.
"""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import pandas as pd

from mindgap.results.curves import SETTING
from mindgap.results.names import CONTROLS
from mindgap.results.reading import parts_of
from mindgap.results.statistics import BASELINE

PLACE = [*SETTING, "subset"]
SPEED_UP_COLUMNS = [
    *("dataset", "regime", "mitigation", "query", "subset", "n_seeds", "speed_up"),
    *("seed_min", "seed_max", "seeds_without", "random_best", "best", "remark"),
]


def speed_ups(curves: pd.DataFrame) -> pd.DataFrame:
    """One row per setting, method and subset, without controls: SPEED_UP_COLUMNS.

    `speed_up` is NaN where there is none, and `remark` says why, or what of the curves it is not over.
    `seed_min` and `seed_max` are those of single seeds, without those that have none (`seeds_without`).
    `random_best` and `best` are the highest balanced accuracies of the mean curves.
    """
    rows = []
    for place, part in parts_of(curves[~curves["query"].isin(CONTROLS)], PLACE):
        points: Any = part.pivot(index="labelled", columns=["query", "seed"], values="balanced_accuracy")
        queries = part["query"].unique()
        for query in queries if BASELINE in queries else ():
            if query != BASELINE:
                row = _row(points[BASELINE], points[query])
                rows.append(dict(zip(PLACE, place, strict=True)) | {"query": query} | row)
    return pd.DataFrame(rows, columns=SPEED_UP_COLUMNS)


def _row(random: pd.DataFrame, method: pd.DataFrame) -> dict[str, Any]:
    """Of points by labels, a column a seed."""
    seeds = [seed for seed in method if seed in random]
    labels = method.index.tolist()
    found: dict[str, Any] = {"n_seeds": len(seeds)}
    found |= dict.fromkeys(("speed_up", "seed_min", "seed_max"), math.nan)
    if not seeds:
        return found | {"seeds_without": 0, "remark": "no seed of Random's"}
    of_seeds = [speed_up(labels, random[seed].tolist(), method[seed].tolist()) for seed in seeds]
    known = [factor for factor in of_seeds if not math.isnan(factor)]
    means = [[fmean(row) for row in one[seeds].to_numpy().tolist()] for one in (random, method)]
    return found | {
        "speed_up": speed_up(labels, *means),
        "seed_min": min(known, default=math.nan),
        "seed_max": max(known, default=math.nan),
        "seeds_without": len(seeds) - len(known),
        "random_best": max(means[0]),
        "best": max(means[1]),
        "remark": _remark(*means),
    }


def speed_up(labels: Sequence[float], random: Sequence[float], method: Sequence[float]) -> float:
    """The factor of a method's accuracies at these numbers of labels; NaN without an accuracy to compare."""
    start, top = max(random[0], method[0]), min(max(random), max(method))
    shared = [value for value in {*random, *method} if start < value <= top]
    ratios = [labels_needed(labels, random, a) / labels_needed(labels, method, a) for a in shared]
    return math.exp(fmean(map(math.log, ratios))) if ratios else math.nan


def labels_needed(labels: Sequence[float], accuracy: Sequence[float], wanted: float) -> float:
    """The fewest labels at which a curve reaches an accuracy that is one of its own or between two."""
    after = next(place for place, value in enumerate(accuracy) if value >= wanted)
    if after == 0:
        return float(labels[0])
    span = accuracy[after] - accuracy[after - 1]
    share = (wanted - accuracy[after - 1]) / span
    return float(labels[after - 1] + share * (labels[after] - labels[after - 1]))


def _remark(random: Sequence[float], method: Sequence[float]) -> str:
    start, best_of_random, best = max(random[0], method[0]), max(random), max(method)
    flat = [name for name, top in (("Random", best_of_random), ("the method", best)) if top <= start]
    if flat:
        return f"{' and '.join(flat)} never above the start ({start:.3f})"
    if best < best_of_random:
        return f"the method never reaches Random's best: compared up to {best:.3f} of {best_of_random:.3f}"
    if best_of_random < best:
        return f"Random never reaches the method's best: compared up to {best_of_random:.3f} of {best:.3f}"
    return ""
