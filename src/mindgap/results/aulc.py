"""The area under a learning curve, by the trapezoid over its N measured points, and ranks of methods by it.

The formula as printed in the paper telescopes; only this reading gives 0.90 at the chance level of ten
classes and N = 10, as the paper's tables do. Sums are exact (`fmean`, `fsum`): the order of rows changes no
bit.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from mindgap.results.names import joint_of

# Two differences pass a t-test whenever they happen to lie close together, however small they are
# (`statistics.wins`). The paper has three seeds: fewer carry no wins, no claim and no comparison of values.
MIN_SEEDS = 3
# Accuracies that are equal as fractions may differ in their last bit; no test set tells 1e-12 apart.
DIGITS = 12
ROLES = ("weak", "strong", "single", "joint")
CELL = ["dataset", "mitigation", "regime", "query", "subset"]
AULC_KEYS = ["scale", *CELL]
AULC_COLUMNS = [
    *(*AULC_KEYS, "n_seeds", "rounds", "aulc_mean", "aulc_std", "mean_accuracy", "mean_accuracy_std"),
    *("aulc_ci95", "chance_aulc", "ceiling_aulc", "paper_mean", "paper_std", "changed"),
]
# What claims, comparisons and statistics look at, of our runs and of the paper's alike: accuracies in [0, 1].
ACCURACY_COLUMNS = [*CELL, "n_seeds", "mean", "std", "chance", "ceiling"]


def aulc(accuracy: Sequence[float]) -> float:
    """Sum of (ACC_i + ACC_{i+1}) / 2 over the N - 1 intervals: in 0..N-1."""
    if len(accuracy) < 2:
        raise ValueError(f"a learning curve needs two points, this one has {len(accuracy)}")
    return math.fsum([*accuracy[1:-1], accuracy[0] / 2, accuracy[-1] / 2])


def per_seed(curves: pd.DataFrame) -> pd.DataFrame:
    """One row per cell and seed: its AULC, and the AULC of the chance level and of the ceiling."""
    rows = []
    for key, run in curves.sort_values("round", kind="stable").groupby([*AULC_KEYS, "seed"], sort=False):
        intervals = len(run) - 1
        levels = {f"{name}_aulc": run[name].iloc[0] * intervals for name in ("chance", "ceiling")}
        area = aulc(run["balanced_accuracy"].tolist())
        rows.append(
            dict(zip([*AULC_KEYS, "seed"], key, strict=True)) | {"rounds": len(run), "aulc": area} | levels
        )
    return pd.DataFrame(rows)


def level(value: pd.Series, chance: pd.Series, ceiling: pd.Series) -> pd.Series:
    """Values as levels: 0 at chance, 1 at the subset's ceiling.

    In these units a difference on a subset that cannot know the whole label counts as much as any other. NaN
    of a subset that knows nothing of the label: its ceiling is chance.
    """
    room = (ceiling - chance).astype(float)
    return ((value - chance) / room.where(room > 0)).astype(float).round(DIGITS)


def levels(seeds: pd.DataFrame) -> pd.Series:
    """The AULC of each row of `per_seed` as a `level`."""
    return level(seeds["aulc"], seeds["chance_aulc"], seeds["ceiling_aulc"])


def on_targets(curves: pd.DataFrame, weak: Mapping[str, str]) -> pd.DataFrame:
    """The rows on the weak modality, then those on all modalities together; `target` says "weak" or "all"."""
    every = curves.groupby("dataset")["subset"].agg(joint_of)
    subsets: dict[str, Any] = {"weak": dict(weak), "all": every}
    parts = [
        curves[curves["subset"] == curves["dataset"].map(of_dataset)].assign(target=target)
        for target, of_dataset in subsets.items()
    ]
    return pd.concat(parts)


def with_roles(frame: pd.DataFrame, weak: Mapping[str, str]) -> pd.DataFrame:
    """The rows on one modality and on all together, with their `role`, one of ROLES; others are left out.

    The modality that a dataset declares weak is weak, each other one strong, and single where none is (Trio).
    """
    sizes, declared = frame["subset"].str.count(r"\+"), frame["dataset"].map(dict(weak))
    joint = sizes == sizes.groupby(frame["dataset"]).transform("max")
    role = declared.isna().map({True: "single", False: "strong"})
    role = role.mask(frame["subset"] == declared, "weak").mask(joint, "joint")
    return frame.assign(role=role)[joint | (sizes == 0)]


def paired(
    values: pd.Series, others: pd.Series | None, fewest: int = MIN_SEEDS
) -> tuple[int, float, float, float]:
    """How many seeds (the index) both have, the mean of values - others, and its 95 % interval (Student's).

    NaN where there is none; below the `fewest` seeds there is no interval.
    """
    differences = [] if others is None else (values - others).dropna().tolist()
    n = len(differences)
    mean = fmean(differences) if n else math.nan
    half = half_width(spread(differences), n) if n >= fewest else math.nan
    return n, mean, mean - half, mean + half


def over_seeds(seeds: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation (n - 1 in the denominator; NaN for one seed) of each cell's AULC.

    `changed` says how the settings of its runs differ from the scale's, of which nothing is known here.
    """
    rows = []
    for key, cell in seeds.groupby(AULC_KEYS, sort=False):
        rounds, (mean, std, half) = int(cell["rounds"].iloc[0]), summary(cell["aulc"])
        numbers = {"n_seeds": len(cell), "rounds": rounds, "aulc_mean": mean, "aulc_std": std}
        numbers |= {"mean_accuracy": mean / (rounds - 1), "mean_accuracy_std": std / (rounds - 1)}
        numbers["aulc_ci95"] = half
        numbers |= {name: cell[name].iloc[0] for name in ("chance_aulc", "ceiling_aulc")}
        rows.append(dict(zip(AULC_KEYS, key, strict=True)) | numbers)
    frame = pd.DataFrame(rows).reindex(columns=AULC_COLUMNS).assign(changed="")
    return frame.astype({"paper_mean": float, "paper_std": float})


def summary(values: Sequence[float] | pd.Series) -> tuple[float, float, float]:
    """The mean, the `spread`, and half of Student's 95 % interval of the mean."""
    std = spread(values)
    return fmean(values), std, half_width(std, len(values))


def spread(values: Sequence[float] | pd.Series) -> float:
    """The sample standard deviation; NaN for one value, whose spread is unknown."""
    return float(np.std(np.sort(values), ddof=1)) if len(values) > 1 else math.nan


def half_width(std: float, n: int, confidence: float = 0.95) -> float:
    """Half of Student's confidence interval of a mean of n values, which assumes them normal; NaN for one.

    With three seeds it is 2.5 standard deviations: wide, and that is what three seeds allow.
    """
    return math.nan if n < 2 else float(student.ppf((1 + confidence) / 2, n - 1)) * std / math.sqrt(n)


def mean_accuracies(table: pd.DataFrame) -> pd.DataFrame:
    """The tidy table as mean accuracies along the curve, AULC / (N - 1): comparable whatever N."""
    intervals = table["rounds"] - 1
    return table.assign(
        mean=table["mean_accuracy"],
        std=table["mean_accuracy_std"],
        chance=table["chance_aulc"] / intervals,
        ceiling=table["ceiling_aulc"] / intervals,
    )[ACCURACY_COLUMNS]


def tidy(curves: pd.DataFrame, order: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """The AULC table, one row per cell and subset, in the order of the selection and of the paper's columns.

    `order` gives for each dataset the order of its subsets.
    """
    frame = over_seeds(per_seed(curves))
    rank = {name: {value: i for i, value in enumerate(curves[name].unique())} for name in AULC_KEYS[:-1]}
    keys: list[Any] = [frame[name].map(rank[name]) for name in AULC_KEYS[:-1]]
    subsets = [order[d].index(s) for d, s in zip(frame["dataset"], frame["subset"], strict=True)]
    return frame.iloc[np.lexsort([subsets, *reversed(keys)])].reset_index(drop=True)


def rank_sums(weak: pd.DataFrame) -> pd.DataFrame:
    """Table 3: per regime the sum over datasets of the methods' ranks by `aulc_mean` (rank 1 = highest).

    `weak` has one row per regime, dataset and query. Exactly equal means share their mean rank.
    """
    ranks = weak.groupby(["regime", "dataset"])["aulc_mean"].rank(ascending=False, method="average")
    sums = weak.assign(rank_sum=ranks).groupby(["regime", "query"], sort=False, as_index=False)
    return sums[["rank_sum"]].sum()
