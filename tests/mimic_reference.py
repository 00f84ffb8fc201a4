"""What reference.csv of the fifty labs is made from: the open demo of MIMIC-IV, and how.

PYTHONPATH=src python tests/mimic_reference.py    # prints the file
"""

import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from mindgap.data.flow import Flow
from mindgap.data.mimic import labs, raw
from shared_data import shared


def reference(x_NI: np.ndarray, rows: pl.DataFrame) -> pl.DataFrame:
    """The usual values of each lab, from first values by admission (N x 50) and all rows of labevents.

    low, high: the middle 95 % of first values and the lab's own normal range, whichever is wider; where that
    begins at 0, half the lowest 2.5 %; where there is none, the middle 95 % of all rows too. median_low,
    median_high: from the least to the greatest of the medians of first values, of all rows and of the
    normal range's middle, and beyond them by a factor of 1.5, or of 2 where the middle half of the values
    spans more than a factor of 2. All medians are of sizes, without signs.
    """
    table = []
    for lab, x_N in zip(labs.LABS, x_NI.T, strict=True):
        mine = rows.filter(pl.col("itemid") == lab.itemid)
        first, every = x_N[np.isfinite(x_N)], mine["valuenum"].drop_nulls().to_numpy()
        normal = [mine[name].drop_nulls().median() for name in ("ref_range_lower", "ref_range_upper")]
        medians = [np.median(abs(first)), np.median(abs(every))]
        low, high = np.quantile(first, [0.025, 0.975])
        if normal[0] is None:
            low, high = min(low, np.quantile(every, 0.025)), max(high, np.quantile(every, 0.975))
        else:
            low, high = (min(low, normal[0]) if normal[0] else low / 2), max(high, normal[1])
            medians.append(sum(normal) / 2)
        quarter, three = np.quantile(abs(first), [0.25, 0.75])
        factor = 2 if three > 2 * quarter else 1.5
        # H, L, I are grades in small whole numbers: half of a healthy cohort may have none.
        least = 0.0 if lab.label in ("H", "L", "I") else min(medians) / factor
        numbers = (low, least, max(medians) * factor, high)
        table.append((lab.itemid, lab.label, *(float(f"{number:.3g}") for number in numbers), len(first)))
    columns = ("itemid", "label", "low", "median_low", "median_high", "high", "values")
    return pl.DataFrame(table, schema=columns, orient="row")


def of_demo() -> pl.DataFrame:
    hosp = shared("mimic-iv-demo") / "hosp"
    patients = raw.read_patients(hosp / "patients.csv.gz", "demo")
    admissions = raw.read_admissions(hosp / "admissions.csv.gz", "demo", patients)
    with tempfile.TemporaryDirectory() as scratch:
        choice = {"release": None, "flow": Flow(), "checks": raw.Checks()}
        x_NI = labs.lab_values(hosp / "labevents.csv.gz", admissions, 24, Path(scratch), **choice)
    numbers = ("valuenum", "ref_range_lower", "ref_range_upper")
    rows = pl.read_csv(hosp / "labevents.csv.gz", infer_schema=False)
    kinds = {"itemid": pl.Int64} | dict.fromkeys(numbers, pl.Float64)
    return reference(x_NI, rows.select(pl.col(name).cast(kind) for name, kind in kinds.items()))


if __name__ == "__main__":
    print(of_demo().write_csv(), end="")
