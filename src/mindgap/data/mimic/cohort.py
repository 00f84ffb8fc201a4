"""Which admissions are samples, what their label is, and which subjects are the test set."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from mindgap.data.draws import stable_hash
from mindgap.data.errors import DataError
from mindgap.data.flow import Flow
from mindgap.data.mimic.raw import Checks

# Shares of admissions that may contradict themselves; release 3.1 has 180 of the first kind in 546,028.
CONTRADICTIONS = 0.01
OTHER_DEATH_DATES = 0.05


def usable_admissions(
    admissions: pl.DataFrame, horizon_days: int, flow: Flow, checks: Checks
) -> pl.DataFrame:
    """hadm_id, subject_id, admittime and y of admissions that do not contradict themselves, by hadm_id.

    y: death at most `horizon_days` after the day of admission, by dates, because dod has no time. dod is
    removed from MIMIC-IV when a patient lived a year after the last discharge, which is never before the end
    of a horizon of a year: an empty dod is a survivor.
    """
    admitted = pl.col("admittime").dt.date()
    days = (pl.col("dod") - admitted).dt.total_days()
    died_here = pl.col("hospital_expire_flag") == 1
    reasons = {
        "discharged at or before admission": pl.col("dischtime") <= pl.col("admittime"),
        "died before admission": (days < 0).fill_null(False),
        "died in hospital without a date of death": died_here & pl.col("dod").is_null(),
    }
    check_contradictions(admissions, reasons, checks)
    flow.start("admissions", "admissions", len(admissions))
    kept = admissions.with_columns(y=days.is_between(0, horizon_days).fill_null(False).cast(pl.Int64))
    for reason, found in reasons.items():
        before, kept = len(kept), kept.filter(~found)
        flow.step("admissions", "consistent", {reason: before - len(kept)})
    return kept.select("hadm_id", "subject_id", "admittime", "y").sort("hadm_id")


def check_contradictions(admissions: pl.DataFrame, reasons: dict[str, pl.Expr], checks: Checks) -> None:
    died_here, death = pl.col("hospital_expire_flag") == 1, pl.col("deathtime")
    flag = died_here != death.is_not_null()
    for check, found in {**reasons, "flag of death without its time, or time without flag": flag}.items():
        checks.share("admissions", check, len(admissions.filter(found)), len(admissions), CONTRADICTIONS)
    deaths = admissions.filter(death.is_not_null() & pl.col("dod").is_not_null())
    other = deaths.filter(death.dt.date() != pl.col("dod"))
    checks.share(
        "admissions", "deathtime on another day than dod", len(other), len(deaths), OTHER_DEATH_DATES
    )


def groups_of(subject_N: Sequence[int], seed: int) -> np.ndarray:
    """A number from 0 for each row's subject: its place in a random order, which says nothing of its id."""
    subjects, inverse_N = np.unique(np.asarray(subject_N), return_inverse=True)
    places = np.random.default_rng([seed, stable_hash("mimic test subjects")]).permutation(len(subjects))
    return places[inverse_N].astype(np.int64)


def count_test_subjects(group_N: np.ndarray, number: int, fraction: float) -> int:
    """How many subjects, the first by group, are the test set."""
    subjects = int(group_N.max(initial=-1)) + 1
    chosen = number or max(1, round(fraction * subjects))
    if chosen >= subjects:
        raise DataError(
            f"the cohort has {subjects:,} subjects, mimic's settings ask for {chosen:,} to test on: lower "
            "test_subjects, or give test_fraction"
        )
    return chosen
