"""What as few seeds as the paper's can tell of query methods, from means and standard deviations alone."""

from dataclasses import dataclass

import pandas as pd
from scipy.stats import f as f_distribution

from mindgap.results.claims import comparable

ALPHA = 0.05
SETTING = ["dataset", "mitigation", "regime"]


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
