"""The fifty blood labs: which rows of labevents they are, and the first of each in an admission's window.

The list is the paper's A.1, which is Symile-MIMIC's (Saporta et al. 2024), spelling included. Items are
chosen by itemid: dozens of others share a label (urine pH, blood-gas glucose, differentials of ascites).
labevents (118 or 158 million rows, in no order) is streamed once: rows in a window go to a Parquet file, rows
left out are counted by reason. A row belongs to an admission by subject and time, not by hadm_id: a third of
the rows in a window have none, for the emergency department draws blood before the admission.
"""

from dataclasses import dataclass
from math import inf
from pathlib import Path

import numpy as np
import polars as pl

from mindgap.data.errors import DataError
from mindgap.data.flow import Flow
from mindgap.data.mimic.raw import TIME, Checks, check_columns, check_rows, damage_named, read_header

HEMATOLOGY, CHEMISTRY, GAS = "Hematology", "Chemistry", "Blood Gas"


@dataclass(frozen=True)
class Lab:
    """One item of d_labitems, its unit strings ("" is no unit), and the values that a patient can have."""

    itemid: int
    label: str
    category: str
    units: tuple[str, ...]
    low: float = 0.0
    high: float = inf


LABS = (
    Lab(51221, "Hematocrit", HEMATOLOGY, ("%",), high=100),
    Lab(51265, "Platelet Count", HEMATOLOGY, ("K/uL",)),
    Lab(50912, "Creatinine", CHEMISTRY, ("mg/dL",)),
    Lab(50971, "Potassium", CHEMISTRY, ("mEq/L",), 1, 15),
    Lab(51222, "Hemoglobin", HEMATOLOGY, ("g/dL",)),
    Lab(51301, "White Blood Cells", HEMATOLOGY, ("K/uL",)),
    Lab(51249, "MCHC", HEMATOLOGY, ("g/dL", "%"), high=100),  # two strings, one scale
    Lab(51279, "Red Blood Cells", HEMATOLOGY, ("m/uL",)),
    Lab(51250, "MCV", HEMATOLOGY, ("fL",)),
    Lab(51248, "MCH", HEMATOLOGY, ("pg",)),
    Lab(51277, "RDW", HEMATOLOGY, ("%",), high=100),
    Lab(51006, "Urea Nitrogen", CHEMISTRY, ("mg/dL",)),
    Lab(50983, "Sodium", CHEMISTRY, ("mEq/L",), 80, 200),
    Lab(50902, "Chloride", CHEMISTRY, ("mEq/L",)),
    Lab(50882, "Bicarbonate", CHEMISTRY, ("mEq/L",)),
    Lab(50868, "Anion Gap", CHEMISTRY, ("mEq/L",), low=-20),
    Lab(50931, "Glucose", CHEMISTRY, ("mg/dL",)),
    Lab(50960, "Magnesium", CHEMISTRY, ("mg/dL",)),
    Lab(50893, "Calcium, Total", CHEMISTRY, ("mg/dL",)),
    Lab(50970, "Phosphate", CHEMISTRY, ("mg/dL",)),
    Lab(51237, "INR(PT)", HEMATOLOGY, ("",)),
    Lab(51274, "PT", HEMATOLOGY, ("sec",)),
    Lab(51275, "PTT", HEMATOLOGY, ("sec",)),
    Lab(51146, "Basophils", HEMATOLOGY, ("%",), high=100),
    Lab(51256, "Neutrophils", HEMATOLOGY, ("%",), high=100),
    Lab(51254, "Monocytes", HEMATOLOGY, ("%",), high=100),
    Lab(51200, "Eosinophils", HEMATOLOGY, ("%",), high=100),
    Lab(51244, "Lymphocytes", HEMATOLOGY, ("%",), high=100),
    Lab(52172, "RDW-SD", HEMATOLOGY, ("fL",)),
    # Indices of haemolysis, lipaemia and icterus; of 1,300 rows each in the demo, two state the unit.
    Lab(50934, "H", CHEMISTRY, ("", "U")),
    Lab(51678, "L", CHEMISTRY, ("", "U")),
    Lab(50947, "I", CHEMISTRY, ("", "U")),
    Lab(50861, "Alanine Aminotransferase (ALT)", CHEMISTRY, ("IU/L",)),
    Lab(50878, "Asparate Aminotransferase (AST)", CHEMISTRY, ("IU/L",)),
    Lab(50813, "Lactate", GAS, ("mmol/L",)),
    Lab(50863, "Alkaline Phosphatase", CHEMISTRY, ("IU/L",)),
    Lab(50885, "Bilirubin, Total", CHEMISTRY, ("mg/dL",)),
    Lab(50820, "pH", GAS, ("units",), 6, 8.5),
    Lab(50862, "Albumin", CHEMISTRY, ("g/dL",)),
    Lab(50802, "Base Excess", GAS, ("mEq/L",), -50, 50),
    Lab(50821, "pO2", GAS, ("mm Hg",)),
    Lab(50804, "Calculated Total CO2", GAS, ("mEq/L",)),
    Lab(50818, "pCO2", GAS, ("mm Hg",)),
    Lab(52075, "Absolute Neutrophil Count", HEMATOLOGY, ("K/uL",)),
    Lab(52073, "Absolute Eosinophil Count", HEMATOLOGY, ("K/uL",)),
    Lab(52074, "Absolute Monocyte Count", HEMATOLOGY, ("K/uL",)),
    Lab(52069, "Absolute Basophil Count", HEMATOLOGY, ("K/uL",)),
    Lab(51133, "Absolute Lymphocyte Count", HEMATOLOGY, ("K/uL",)),
    Lab(50910, "Creatine Kinase (CK)", CHEMISTRY, ("IU/L",)),
    Lab(52135, "Immature Granulocytes", HEMATOLOGY, ("%",), high=100),
)

KINDS = {
    "labevent_id": pl.Int64,
    "subject_id": pl.Int32,
    "itemid": pl.Int32,
    "charttime": pl.String,
    "valuenum": pl.Float64,
    "valueuom": pl.String,
}
# In the order in which a row is asked; the last, outside every window, is what is left over.
REASONS = (
    "another item",
    "subject without a candidate admission",
    "no number",
    "another unit",
    "impossible value",
    "no time",
)
KEPT = len(REASONS)
OTHER_UNITS = 0.05  # more of an item: the release has changed its unit, and excluding would empty the column
IMPOSSIBLE = 0.01
BATCH = 1_000_000  # rows sorted at a time: 0.3 GiB


def lab_values(
    path: Path,
    admissions: pl.DataFrame,
    hours: int,
    scratch: Path,
    *,
    release: str | None,
    flow: Flow,
    checks: Checks,
) -> np.ndarray:
    """First value in each admission's window (N x 50, NaN where there is none); ties by labevent_id.

    `admissions` has subject_id and admittime, and its rows are the N. Without `release` rows are not counted.
    """
    windows = admissions.select("subject_id", "admittime").with_row_index("admission")
    found = scratch / "window.parquet"
    counts = stream_windows(path, windows, hours, found)
    total, by_reason = counts["rows"].sum(), dict(counts.group_by("reason").agg(pl.sum("rows")).iter_rows())
    if release:
        check_rows(path, "labevents", total, release)
    check_units(path, counts)
    x_NI, rows, pairs = first_values(found, windows)
    fill_flow(flow, total, by_reason, rows, pairs, int(np.isfinite(x_NI).sum()), hours)
    asked = total - by_reason.get(0, 0) - by_reason.get(1, 0)
    checks.share("labevents", REASONS[3], by_reason.get(3, 0), asked, OTHER_UNITS)
    checks.share("labevents", REASONS[4], by_reason.get(4, 0), asked, IMPOSSIBLE)
    checks.add("labevents", "charttime missing or unreadable", by_reason.get(5, 0), 0)
    return x_NI


def stream_windows(path: Path, windows: pl.DataFrame, hours: int, target: Path) -> pl.DataFrame:
    """Write (admission, lab, labevent_id, charttime, value) of rows in a window; counts by unit, reason.

    One pass: rows to keep and counts are two sinks of one scan. 108 million rows take 0.4 GiB, as long
    as every expression streams (`replace_strict` does not, and took the whole file into memory; polars 2.1).
    """
    rows = _labelled(_scan(path), windows["subject_id"].unique())
    counts = rows.group_by("itemid", "unit", "reason").agg(pl.len().cast(pl.Int64).alias("rows"))
    kept = rows.filter(pl.col("reason") == KEPT).join(windows.lazy(), on="subject_id")
    kept = kept.filter((pl.col("charttime") - pl.col("admittime")).abs() <= pl.duration(hours=hours))
    columns = ("admission", "lab", "labevent_id", "charttime", "valuenum")
    sink = kept.select(columns).sink_parquet(target, lazy=True)
    with damage_named(path):
        return pl.collect_all([sink, counts], engine="streaming")[1]


def _scan(path: Path) -> pl.LazyFrame:
    """The columns of labevents that are used; types are stated, for inference fails on late rows."""
    header = read_header(path)
    check_columns(path, header, KINDS)
    return pl.scan_csv(path, schema={name: KINDS.get(name, pl.String) for name in header}).select(*KINDS)


def _labelled(rows: pl.LazyFrame, subjects: pl.Series) -> pl.LazyFrame:
    """Each row with its reason, a place in REASONS or KEPT; itemid is null where it is none of the labs."""
    pinned = pl.LazyFrame(
        [(i, lab.itemid, unit, lab.low, lab.high) for i, lab in enumerate(LABS) for unit in lab.units],
        schema={
            "lab": pl.UInt8,
            "itemid": pl.Int32,
            "unit": pl.String,
            "low": pl.Float64,
            "high": pl.Float64,
        },
        orient="row",
    )
    known = pl.LazyFrame({"subject_id": subjects, "known": True})
    rows = rows.with_columns(
        itemid=pl.when(pl.col("itemid").is_in([lab.itemid for lab in LABS])).then("itemid"),
        unit=pl.col("valueuom").fill_null("").str.strip_chars(),
        charttime=pl.col("charttime").str.strptime(pl.Datetime("us"), TIME, strict=False),
    )
    rows = rows.join(known, on="subject_id", how="left").join(pinned, on=["itemid", "unit"], how="left")
    value = pl.col("valuenum")
    faults = (
        pl.col("itemid").is_null(),
        pl.col("known").is_null(),
        ~value.is_finite().fill_null(False),
        pl.col("lab").is_null(),
        ~value.is_between("low", "high"),
        pl.col("charttime").is_null(),
    )
    reason = pl.lit(KEPT)
    for place in reversed(range(KEPT)):
        reason = pl.when(faults[place]).then(place).otherwise(reason)
    return rows.with_columns(reason=reason.cast(pl.UInt8))


def check_units(path: Path, counts: pl.DataFrame) -> None:
    """Stop where an item has come in another unit than the pinned ones, not in a stray row."""
    for lab in LABS:
        asked = counts.filter((pl.col("itemid") == lab.itemid) & (pl.col("reason") > 2))
        other = asked.filter(pl.col("reason") == 3)
        if other["rows"].sum() > OTHER_UNITS * asked["rows"].sum():
            units = ", ".join(f"{unit!r} {n:,}" for unit, n in other.select("unit", "rows").iter_rows())
            raise DataError(
                f"{path}: {lab.label} (item {lab.itemid}) has rows in another unit: {units} of "
                f"{asked['rows'].sum():,}; labs.py pins {' or '.join(map(repr, lab.units))}: add a unit "
                "there if its scale is the same"
            )


def first_values(path: Path, windows: pl.DataFrame) -> tuple[np.ndarray, int, int]:
    """First values (N x 50), how many rows lie in a window, and in how many windows they lie together.

    Batches end between two subjects, so that a row in two windows is counted once.
    """
    found = pl.scan_parquet(path)
    pairs = found.select(pl.len()).collect().item()
    subjects = windows["subject_id"].unique().sort()
    x_NI, rows = np.full((len(windows), len(LABS)), np.nan), 0
    for part in np.array_split(subjects.to_numpy(), max(1, -(-pairs // BATCH))):
        chosen = windows.filter(pl.col("subject_id").is_in(part.tolist())).select("admission")
        batch = found.join(chosen.lazy(), on="admission", how="semi").collect(engine="streaming")
        rows += batch["labevent_id"].n_unique()
        first = batch.sort("charttime", "labevent_id").unique(("admission", "lab"), keep="first")
        x_NI[first["admission"], first["lab"]] = first["valuenum"]
    return x_NI, rows, pairs


def summary(x_NI: np.ndarray) -> pl.DataFrame:
    """Each lab's values before scaling beside what they may be; null: no bound, or no value."""
    seen = [x_N[np.isfinite(x_N)] for x_N in x_NI.T]
    return pl.DataFrame(
        {
            "itemid": [lab.itemid for lab in LABS],
            "label": [lab.label for lab in LABS],
            "unit": [" or ".join(unit for unit in lab.units if unit) for lab in LABS],
            "values": [len(x_N) for x_N in seen],
            "low": [lab.low for lab in LABS],
            "minimum": [x_N.min() if len(x_N) else None for x_N in seen],
            "median": [np.median(x_N) if len(x_N) else None for x_N in seen],
            "maximum": [x_N.max() if len(x_N) else None for x_N in seen],
            "high": [None if lab.high == inf else lab.high for lab in LABS],
        },
        strict=False,
    )


def fill_flow(
    flow: Flow, total: int, by_reason: dict, rows: int, pairs: int, values: int, hours: int
) -> None:
    """Rows of the file, then values: a row may lie in the windows of two admissions."""
    flow.start("lab rows", "labevents", total)
    flow.step("lab rows", "fifty labs", {REASONS[0]: by_reason.get(0, 0)})
    flow.step("lab rows", "cohort", {REASONS[1]: by_reason.get(1, 0)})
    flow.step("lab rows", "value", {reason: by_reason.get(2 + i, 0) for i, reason in enumerate(REASONS[2:])})
    flow.step("lab rows", "window", {f"not within {hours} h of an admission": by_reason.get(KEPT, 0) - rows})
    flow.start("lab values", "rows by admission", pairs)
    flow.step("lab values", "first of each lab", {"repeated in the window": pairs - values})
