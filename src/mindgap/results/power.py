"""What so few seeds can tell of query methods.

Of the paper's runs means and standard deviations are known, which F tests compare; of ours each seed is, and
so the smallest difference of two methods that their paired seeds can find.
"""

import math
from dataclasses import dataclass

import pandas as pd
from scipy.optimize import brentq
from scipy.stats import f as f_distribution
from scipy.stats import ncf
from scipy.stats import t as student

from mindgap.results.aulc import levels
from mindgap.results.claims import comparable
from mindgap.results.curves import SETTING
from mindgap.results.names import CONTROLS
from mindgap.results.statistics import ALPHA, balanced

POWER = 0.8
DETECTABLE_COLUMNS = [
    *("dataset", "regime", "mitigation", "subset", "n_seeds", "methods", "residual", "level", "aulc"),
]


@dataclass(frozen=True)
class Power:
    """In how many of `settings` methods are told apart, on the weak modality and on both; where, in words."""

    settings: int
    by_chance: float
    weak: int
    joint: int
    weak_of: tuple[str, ...]
    joint_of: tuple[str, ...]


def f_tests(accuracies: pd.DataFrame) -> pd.DataFrame:
    """A row per setting and role (weak, joint): methods, f, p, of a one-way F test of equal means.

    With n seeds a cell the mean square between k methods is n times the variance of their means, that within
    the mean of their variances: k - 1 and k (n - 1) degrees of freedom. Methods share their seeds, of which
    means and deviations say nothing: a test that pairs them would find more.
    """
    cells = comparable(accuracies)
    rows = []
    for (*setting, role), part in cells[cells["role"] != "strong"].groupby([*SETTING, "role"], sort=False):
        k, n = len(part), int(part["n_seeds"].iloc[0])
        f = n * part["level"].var() / (part["spread"] ** 2).mean()
        rows.append((*setting, role, k, f, float(f_distribution.sf(f, k - 1, k * (n - 1)))))
    return pd.DataFrame(rows, columns=[*SETTING, "role", "methods", "f", "p"])


def power(accuracies: pd.DataFrame) -> Power:
    """How often `f_tests` find a difference at ALPHA, and on which datasets."""
    tests = f_tests(accuracies)
    found = {role: part[part["p"] <= ALPHA] for role, part in tests.groupby("role")}
    settings = len(tests) // 2
    datasets = {role: tuple(part["dataset"].unique()) for role, part in found.items()}
    counts = {role: len(part) for role, part in found.items()}
    return Power(
        settings, ALPHA * settings, counts["weak"], counts["joint"], datasets["weak"], datasets["joint"]
    )


def detectable(seeds: pd.DataFrame) -> pd.DataFrame:
    """The smallest difference of two query methods that the seeds can find: DETECTABLE_COLUMNS.

    A row per setting and subset whose `balanced` part has two methods and two seeds or more. `level` is that
    difference in units of level, `aulc` in those of the tables, whose columns are scaled to a ceiling of 1.
    `residual` is the standard deviation of what is left of the levels, methods x seeds, without the mean of
    each method and of each seed (randomized blocks; Montgomery, Design and Analysis of Experiments); the
    paired difference of two methods has twice its square for variance. `seeds` is as of `per_seed`; controls
    are left out.
    """
    seeds = seeds[~seeds["query"].isin(CONTROLS)]
    seeds = seeds.assign(level=levels(seeds))
    rows = []
    for key, part in seeds.groupby(DETECTABLE_COLUMNS[:4], sort=False):
        levels_SM = balanced(part.pivot(index="seed", columns="query", values="level")).to_numpy()
        n, k = levels_SM.shape
        if min(n, k) < 2:
            continue
        left_SM = levels_SM - levels_SM.mean(axis=0)
        left_SM -= left_SM.mean(axis=1, keepdims=True)
        residual = math.sqrt((left_SM**2).sum() / ((n - 1) * (k - 1)))
        difference = smallest_difference(math.sqrt(2) * residual, n)
        one = part.iloc[0]
        room = (one["rounds"] - 1) * (1 - one["chance_aulc"] / one["ceiling_aulc"])
        rows.append((*key, n, k, residual, difference, difference * room))
    return pd.DataFrame(rows, columns=DETECTABLE_COLUMNS)


def smallest_difference(std: float, n: int, alpha: float = ALPHA, power: float = POWER) -> float:
    """The mean of n paired differences with this standard deviation that a two-sided t-test finds so often.

    t squared has a noncentral F distribution with 1 and n - 1 degrees of freedom and n (mean / std)² for its
    noncentrality (Cohen, Statistical Power Analysis, 1988, chapter 2): solved for the mean.
    """
    critical = student.ppf(1 - alpha / 2, n - 1)
    shift = brentq(lambda d: ncf.sf(critical**2, 1, n - 1, d**2) - power, 0, 2 * critical + 10)
    return float(shift * std / math.sqrt(n))
