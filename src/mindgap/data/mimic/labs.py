"""The fifty blood labs: which rows of labevents they are, and the first of each in an admission's window.

The list is the paper's A.1, which is Symile-MIMIC's (Saporta et al. 2024), spelling included. Items are
chosen by itemid: dozens of others share a label (urine pH, blood-gas glucose, differentials of ascites).
labevents (118 or 158 million rows, in no order) is streamed once: rows in a window go to a Parquet file, rows
left out are counted by reason. A row belongs to an admission by subject and time, not by hadm_id: a third of
the rows in a window have none, for the emergency department draws blood before the admission.

A unit says nothing of a number that was not converted with it. So the values that are used are compared with
the usual ones of the item, reference.csv: what the open demo of MIMIC-IV 2.2 has and the laboratory's normal
ranges (tests/mimic_reference.py makes it).
"""

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mindgap.data.errors import DataError
from mindgap.data.flow import Flow
from mindgap.data.mimic.files import ORIGINAL, damage_named
from mindgap.data.mimic.raw import TIME, Checks, check_columns, check_row_count, read_header, setting_line

HEMATOLOGY, CHEMISTRY, GAS = "Hematology", "Chemistry", "Blood Gas"


@dataclass(frozen=True)
class Lab:
    """One item of d_labitems, its unit strings ("" is no unit), and the values that a patient can have.

    `factors`: what a number in a unit is multiplied by, where that is not 1. `listed`: the label in
    d_labitems, where that is spelt in another way.
    """

    itemid: int
    label: str
    category: str
    units: tuple[str, ...]
    low: float = 0.0
    high: float = inf
    fluid: str = "Blood"
    listed: str | None = None
    factors: Mapping[str, float] = field(default_factory=dict)

    @property
    def listed_as(self) -> str:
        return self.label if self.listed is None else self.listed

    @property
    def unit(self) -> str:
        """The one that its values are in."""
        return next((unit for unit in self.units if unit), "")


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
IMPOSSIBLE = 0.01  # of all rows
IMPOSSIBLE_OF_LAB = 0.05
TIMELESS = 0.01
# The values of an item that may lie below, and as many above, its usual ones, where a twentieth does in all;
# half of them are below their median. Beyond that by more than four standard errors is no chance, with fifty
# items looked at.
UNUSUAL = 0.1
STANDARD_ERRORS = 4
FEW = 20  # rows or values that say nothing of a share
ASKED = 10  # a unit string of fewer rows may be anything, a patient's cell too: it is counted and not told
BATCH = 1_000_000  # rows sorted at a time: 0.3 GiB


def adapted(
    units: Mapping[str, Mapping[str, float]], items: Mapping[str, Mapping[str, Any]]
) -> tuple[Lab, ...]:
    """The labs with a release's other units, by label (factor to the pinned unit), and other items."""
    labs = []
    for lab in LABS:
        item, factors = dict(items.get(lab.label, {})), dict(units.get(lab.label, {}))
        item["listed"] = item.pop("label", None)
        labs.append(replace(lab, **item, units=tuple(dict.fromkeys([*lab.units, *factors])), factors=factors))
    return tuple(labs)


def lab_values(
    path: Path,
    admissions: pl.DataFrame,
    hours: int,
    scratch: Path,
    *,
    release: str | None,
    flow: Flow,
    checks: Checks,
    labs: Sequence[Lab] = LABS,
    unusual: Collection[str] = (),
    rows_of: Mapping[str, int] | None = None,
) -> np.ndarray:
    """First value in each admission's window (N x 50, NaN where there is none); ties by labevent_id.

    `admissions` has subject_id and admittime, and its rows are the N. Without `release` rows are not counted;
    `rows_of` has the rows of a table where they are not the release's. The labels in `unusual` are not
    compared with their usual values.
    """
    windows = admissions.select("subject_id", "admittime").with_row_index("admission")
    found = scratch / "window.parquet"
    counts = stream_windows(path, windows, hours, found, labs)
    total, by_reason = counts["rows"].sum(), dict(counts.group_by("reason").agg(pl.sum("rows")).iter_rows())
    if release:
        check_row_count(path, "labevents", total, release, rows_of)
    check_units(path, counts, labs)
    check_times(path, counts)
    x_NI, rows, pairs = first_values(found, windows)
    for lab, x_N in zip(labs, x_NI.T, strict=True):
        if lab.label not in unusual:
            check_each_unit(path, lab, labs.index(lab), found)
            check_usual(path, lab, x_N[np.isfinite(x_N)], unit_of_most(counts, lab, KEPT))
    fill_flow(flow, total, by_reason, rows, pairs, int(np.isfinite(x_NI).sum()), hours)
    asked = total - by_reason.get(0, 0) - by_reason.get(1, 0)
    checks.share("labevents", REASONS[3], by_reason.get(3, 0), asked, OTHER_UNITS)
    checks.share("labevents", REASONS[4], by_reason.get(4, 0), asked, IMPOSSIBLE)
    checks.share("labevents", "charttime missing or unreadable", by_reason.get(5, 0), asked, TIMELESS)
    return x_NI


def stream_windows(
    path: Path, windows: pl.DataFrame, hours: int, target: Path, labs: Sequence[Lab] = LABS
) -> pl.DataFrame:
    """Write (admission, lab, labevent_id, charttime, value, place of its unit) of rows in a window; counts by
    unit, reason.

    One pass: rows to keep and counts are two sinks of one scan. 108 million rows take 0.4 GiB, as long
    as every expression streams (`replace_strict` does not, and took the whole file into memory; polars 2.1).
    """
    rows = _labelled(_scan(path), windows["subject_id"].unique(), labs)
    counts = rows.group_by("itemid", "unit", "reason").agg(pl.len().cast(pl.Int64).alias("rows"))
    kept = rows.filter(pl.col("reason") == KEPT).join(windows.lazy(), on="subject_id")
    kept = kept.filter((pl.col("charttime") - pl.col("admittime")).abs() <= pl.duration(hours=hours))
    columns = ("admission", "lab", "labevent_id", "charttime", "valuenum", "place")
    sink = kept.select(columns).sink_parquet(target, lazy=True)
    with damage_named(path, KINDS):
        return pl.collect_all([sink, counts], engine="streaming")[1]


def _scan(path: Path) -> pl.LazyFrame:
    """The columns of labevents that are used; types are stated, for inference fails on late rows."""
    header = read_header(path)
    check_columns(path, header, KINDS)
    return pl.scan_csv(path, schema={name: KINDS.get(name, pl.String) for name in header}).select(*KINDS)


def _labelled(rows: pl.LazyFrame, subjects: pl.Series, labs: Sequence[Lab]) -> pl.LazyFrame:
    """Each row with its reason, a place in REASONS or KEPT; itemid is null where it is none of the labs."""
    pinned = pl.LazyFrame(
        [
            (i, lab.itemid, unit, place, float(lab.factors.get(unit, 1)), lab.low, lab.high)
            for i, lab in enumerate(labs)
            for place, unit in enumerate(lab.units)
        ],
        schema={
            "lab": pl.UInt8,
            "itemid": pl.Int32,
            "unit": pl.String,
            "place": pl.UInt8,
            "factor": pl.Float64,
            "low": pl.Float64,
            "high": pl.Float64,
        },
        orient="row",
    )
    known = pl.LazyFrame({"subject_id": subjects, "known": True})
    rows = rows.with_columns(
        itemid=pl.when(pl.col("itemid").is_in([lab.itemid for lab in labs])).then("itemid"),
        unit=pl.col("valueuom").fill_null("").str.strip_chars(),
        charttime=pl.col("charttime").str.strptime(pl.Datetime("us"), TIME, strict=False),
    )
    rows = rows.join(known, on="subject_id", how="left").join(pinned, on=["itemid", "unit"], how="left")
    rows = rows.with_columns(valuenum=pl.col("valuenum") * pl.col("factor").fill_null(1))
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


def check_units(path: Path, counts: pl.DataFrame, labs: Sequence[Lab] = LABS) -> None:
    """Stop where an item has come in another unit than the pinned ones, or with values that cannot be in
    them, not in a stray row."""
    for lab in labs:
        asked = counts.filter((pl.col("itemid") == lab.itemid) & (pl.col("reason") > 2))
        total, other = asked["rows"].sum(), asked.filter(pl.col("reason") == 3)
        if other["rows"].sum() > OTHER_UNITS * total:
            raise DataError(f"{path}: {lab.label} (item {lab.itemid}) {_units_of(lab, other, total)}")
        wrong = asked.filter(pl.col("reason") == 4)["rows"].sum()
        if total >= FEW and wrong > IMPOSSIBLE_OF_LAB * total:
            raise DataError(
                f"{path}: {wrong:,} of {total:,} values of {lab.label} (item {lab.itemid}) lie outside "
                f"{lab.low:g} to {lab.high:g} {lab.unit}, which no patient has: "
                f"{_conversion(lab, unit_of_most(counts, lab, 4))}, or {ORIGINAL}"
            )


def unit_of_most(counts: pl.DataFrame, lab: Lab, reason: int) -> str:
    """The unit that most rows of a lab with a reason are in."""
    rows = counts.filter((pl.col("itemid") == lab.itemid) & (pl.col("reason") == reason)).sort("rows", "unit")
    return rows["unit"][-1] if len(rows) else lab.unit


def _units_of(lab: Lab, other: pl.DataFrame, total: int) -> str:
    told = other.filter(pl.col("rows") >= ASKED).sort("rows", "unit", descending=[True, False])
    units = ", ".join(f"{unit!r} {n:,}" for unit, n in told.select("unit", "rows").iter_rows())
    rare = other["rows"].sum() - told["rows"].sum()
    units = ", ".join([units] * bool(units) + [f"{rare:,} in units of fewer than {ASKED} rows"] * bool(rare))
    aliases = setting_line(lab_units={lab.label: dict.fromkeys(told["unit"], 1) or {"THE UNIT": 1}})
    pinned = " or ".join(repr(unit) for unit in lab.units)
    return (
        f"has rows in another unit: {units} of {total:,}, expected is {pinned}. If its scale is the same, "
        f"write {aliases}; if not, the factor that makes {lab.unit or 'the expected unit'} of it instead of 1"
    )


def _conversion(lab: Lab, unit: str) -> str:
    """What to do about numbers on another scale than their unit says."""
    factor = setting_line(lab_units={lab.label: {unit: "FACTOR"}})
    return (
        f"if all rows in {unit!r} are on another scale, write {factor}, with the factor that makes "
        f"{lab.unit or 'the usual numbers'} of them; if some are, convert those in the file"
    )


def check_times(path: Path, counts: pl.DataFrame) -> None:
    """Stop where more than stray rows of the labs have no time that can be read."""
    asked = counts.filter(pl.col("reason") > 2)["rows"].sum()
    wrong = counts.filter(pl.col("reason") == REASONS.index("no time"))["rows"].sum()
    if asked >= FEW and wrong > TIMELESS * asked:
        raise DataError(
            f"{path}: {wrong:,} of {asked:,} rows of the labs have no charttime written as YYYY-MM-DD "
            f"HH:MM:SS (ISO 8601 has a T for the space): write the column so, or {ORIGINAL}"
        )


@functools.cache
def usual_values() -> dict[int, dict[str, float]]:
    """By the pinned itemid: low and high, the usual values; median_low and median_high, of their sizes."""
    rows = pl.read_csv(Path(__file__).with_name("reference.csv")).iter_rows(named=True)
    return {row["itemid"]: row for row in rows}


def check_each_unit(path: Path, lab: Lab, number: int, found: Path) -> None:
    """The same of all rows in a window in each unit, for a lab that comes in several: one may be rare."""
    for place, unit in enumerate(lab.units if len(lab.units) > 1 else ()):
        mine = (pl.col("lab") == number) & (pl.col("place") == place)
        x_N = pl.scan_parquet(found).filter(mine).select("valuenum").collect(engine="streaming")
        check_usual(path, lab, x_N["valuenum"].to_numpy(), unit, alone=True)


def check_usual(path: Path, lab: Lab, x_N: np.ndarray, of_unit: str, alone: bool = False) -> None:
    """Stop where the values of a lab, or more than a tenth of them, are on another scale than usual.

    They are first values of admissions, most of them in a unit, or `alone` those of all rows in it.
    """
    pinned = next(one.itemid for one in LABS if one.label == lab.label)
    usual, size_N, unit = usual_values()[pinned], np.abs(x_N), f" {lab.unit}".rstrip()
    name, counted = f"{lab.label} (item {lab.itemid})", "values" if alone else "admissions"
    name += f" of the rows in {of_unit!r}" * alone
    mend = f"{_conversion(lab, of_unit)}; if they are right, write {setting_line(unusual_labs=[lab.label])}"
    low, high = usual["median_low"], usual["median_high"]
    if exceeds(size_N < low, 0.5) or exceeds(size_N > high, 0.5):
        size = "median size" if usual["low"] < 0 else "median"
        raise DataError(
            f"{path}: the {size} of {name} is {np.median(size_N):.3g}{unit} in {len(x_N):,} "
            f"{counted}, usual is {low:g} to {high:g}: {mend}"
        )
    low, high = usual["low"], usual["high"]
    for wrong_N, beyond in ((x_N < low, f"below {low:g}"), (x_N > high, f"above {high:g}")):
        if exceeds(wrong_N, UNUSUAL):
            raise DataError(
                f"{path}: {wrong_N.mean():.0%} of {len(x_N):,} values of {name} are {beyond}{unit}, usual is "
                f"3%: {mend}"
            )


def exceeds(wrong_N: np.ndarray, share: float) -> bool:
    """Whether more than a share is wrong, by more than chance."""
    n = len(wrong_N)
    return n >= FEW and wrong_N.mean() > share + STANDARD_ERRORS * sqrt(share * (1 - share) / n)


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


def summary(x_NI: np.ndarray, labs: Sequence[Lab] = LABS) -> pl.DataFrame:
    """Each lab's values before scaling beside what they may be; null: no bound, or no value."""
    seen = [x_N[np.isfinite(x_N)] for x_N in x_NI.T]
    return pl.DataFrame(
        {
            "itemid": [lab.itemid for lab in labs],
            "label": [lab.label for lab in labs],
            "unit": [" or ".join(unit for unit in lab.units if unit) for lab in labs],
            "values": [len(x_N) for x_N in seen],
            "low": [lab.low for lab in labs],
            "minimum": [x_N.min() if len(x_N) else None for x_N in seen],
            "median": [np.median(x_N) if len(x_N) else None for x_N in seen],
            "maximum": [x_N.max() if len(x_N) else None for x_N in seen],
            "high": [None if lab.high == inf else lab.high for lab in labs],
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
