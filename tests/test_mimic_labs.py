"""Fifty blood labs from labevents: pinned items, their first values in a window, and what is left out."""

import gzip
import re
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

import mimic_reference
from mimic_raw import TIME, WINDOW, read_rows, write_rows
from mindgap.data import mimic
from mindgap.data.errors import DataError
from mindgap.data.flow import Flow
from mindgap.data.mimic import labs, raw
from mindgap.data.mimic.labs import LABS
from shared_data import shared

COLUMNS = (
    "labevent_id",
    "subject_id",
    "hadm_id",
    "specimen_id",
    "itemid",
    "order_provider_id",
    "charttime",
    "storetime",
    "value",
    "valuenum",
    "valueuom",
    "ref_range_lower",
    "ref_range_upper",
    "flag",
    "priority",
    "comments",
)
NOON = datetime(2150, 6, 1, 12)
SODIUM, PH, INR = 50983, 50820, 51237
PLACE = {lab.itemid: i for i, lab in enumerate(LABS)}


def admissions_of(*pairs) -> pl.DataFrame:
    """Admissions of (subject, time)."""
    kinds = {"subject_id": pl.Int32, "admittime": pl.Datetime("us")}
    return pl.DataFrame(list(pairs), schema=kinds, orient="row")


def extract(path, admissions, scratch, hours=24, **settings):
    flow, checks = Flow(), raw.Checks()
    choice = {"release": None, "flow": flow, "checks": checks, **settings}
    x_NI = labs.lab_values(path, admissions, hours, scratch, **choice)
    return x_NI, {row["reason"]: row["excluded"] for row in flow.rows if row["reason"]}


@pytest.fixture
def from_rows(tmp_path):
    """Values and exclusions of a table of (subject, item, time, value, unit); one admission at noon."""

    def run(*rows, admissions=((1, NOON),)):
        path = tmp_path / "labevents.csv.gz"
        table = []
        for i, (subject, item, when, value, unit) in enumerate(rows):
            row = dict.fromkeys(COLUMNS, "")
            row |= {
                "labevent_id": i,
                "subject_id": subject,
                "itemid": item,
                "valuenum": value,
                "valueuom": unit,
            }
            row["charttime"] = when.strftime(TIME) if isinstance(when, datetime) else when
            table.append(row)
        write_rows(path, table, COLUMNS)
        return extract(path, admissions_of(*admissions), tmp_path)

    return run


@pytest.fixture(scope="module")
def demo():
    hosp = shared("mimic-iv-demo") / "hosp"
    patients = raw.read_patients(hosp / "patients.csv.gz", "demo")
    admissions = raw.read_admissions(hosp / "admissions.csv.gz", "demo", patients).sort("hadm_id")
    return hosp / "labevents.csv.gz", admissions


def plainly(path, admissions) -> np.ndarray:
    """First values of every lab and admission, row by row."""
    drawn = {}
    for row in read_rows(path):
        if int(row["itemid"]) in PLACE and row["valuenum"]:
            when = datetime.strptime(row["charttime"], TIME)
            found = (when, int(row["labevent_id"]), int(row["itemid"]), float(row["valuenum"]))
            drawn.setdefault(int(row["subject_id"]), []).append(found)
    x_NI = np.full((len(admissions), len(LABS)), np.nan)
    for i, (subject, admitted) in enumerate(admissions.select("subject_id", "admittime").iter_rows()):
        for when, _, item, value in sorted(drawn.get(subject, []), reverse=True):
            if abs(when - admitted) <= WINDOW:
                x_NI[i, PLACE[item]] = value
    return x_NI


def test_the_fifty_are_those_of_the_paper_by_item():
    assert len(LABS) == len({lab.itemid for lab in LABS}) == len({lab.label for lab in LABS}) == 50
    assert [lab.label for lab in LABS[:3]] == ["Hematocrit", "Platelet Count", "Creatinine"]
    assert (LABS[33].label, LABS[49].label) == ("Asparate Aminotransferase (AST)", "Immature Granulocytes")


def test_the_demos_first_values_are_those_found_row_by_row(demo, tmp_path):
    path, admissions = demo
    x_NI, left_out = extract(path, admissions, tmp_path)
    assert np.array_equal(x_NI, plainly(path, admissions), equal_nan=True)
    present = np.isfinite(x_NI)
    assert present.any(axis=1).sum() == 268
    assert round(1 - present[present.any(axis=1)].mean(), 2) == 0.31
    assert (left_out["another item"], left_out["no number"], left_out["another unit"]) == (23596, 208, 0)
    assert left_out["repeated in the window"] == 18_817 - present.sum()


def test_neither_the_order_of_rows_nor_the_batches_matter(demo, tmp_path, monkeypatch):
    path, admissions = demo
    x_NI, left_out = extract(path, admissions, tmp_path)
    rows = read_rows(path)
    np.random.default_rng(0).shuffle(rows)
    write_rows(tmp_path / "labevents.csv.gz", rows)
    monkeypatch.setattr(labs, "BATCH", 1000)
    shuffled_NI, shuffled_out = extract(tmp_path / "labevents.csv.gz", admissions, tmp_path)
    assert np.array_equal(x_NI, shuffled_NI, equal_nan=True)
    assert left_out == shuffled_out


def test_the_window_includes_its_ends(from_rows):
    for delta, found in ((-24, True), (24, True), (0, True)):
        x_NI, _ = from_rows((1, SODIUM, NOON + timedelta(hours=delta), 140, "mEq/L"))
        assert (x_NI[0, PLACE[SODIUM]] == 140) == found
    for seconds in (-24 * 3600 - 1, 24 * 3600 + 1):
        x_NI, left_out = from_rows((1, SODIUM, NOON + timedelta(seconds=seconds), 140, "mEq/L"))
        assert np.isnan(x_NI).all()
        assert left_out["not within 24 h of an admission"] == 1


def test_the_earliest_counts_and_of_equals_the_lower_id(from_rows):
    hour = timedelta(hours=1)
    rows = [(1, SODIUM, NOON + k * hour, 140 + k, "mEq/L") for k in (2, -3, -3, 1)]
    rows[2] = (*rows[2][:3], 150, "mEq/L")
    x_NI, left_out = from_rows(*rows)
    assert x_NI[0, PLACE[SODIUM]] == 137
    assert left_out["repeated in the window"] == 3
    assert np.isfinite(x_NI).sum() == 1


def test_a_row_serves_every_admission_near_it_and_no_other_subject(from_rows):
    admissions = ((1, NOON), (1, NOON + timedelta(hours=30)), (2, NOON), (1, NOON + timedelta(days=9)))
    row = (1, SODIUM, NOON + timedelta(hours=20), 140, "mEq/L")
    x_NI, left_out = from_rows(row, (*row[:1], PH, *row[2:3], 7.4, "units"), admissions=admissions)
    assert np.isfinite(x_NI).sum(axis=1).tolist() == [2, 2, 0, 0]
    assert left_out["not within 24 h of an admission"] == 0


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ((1, 51491, NOON, 7, "units"), "another item"),  # pH of urine, by the same label
        ((2, SODIUM, NOON, 140, "mEq/L"), "subject without a candidate admission"),
        ((1, SODIUM, NOON, "", "mEq/L"), "no number"),
        ((1, SODIUM, NOON, "NaN", "mEq/L"), "no number"),
        ((1, SODIUM, NOON, "inf", "mEq/L"), "no number"),
        ((1, SODIUM, NOON, 14, "mEq/L"), "impossible value"),
        ((1, PH, NOON, 8.6, "units"), "impossible value"),
        ((1, INR, NOON, -1, ""), "impossible value"),
        ((1, SODIUM, "", 140, "mEq/L"), "no time"),
        ((1, SODIUM, "yesterday", 140, "mEq/L"), "no time"),
    ],
)
def test_what_is_left_out_is_counted_by_reason(from_rows, row, reason):
    x_NI, left_out = from_rows(row)
    assert np.isnan(x_NI).all()
    assert {name: count for name, count in left_out.items() if count} == {reason: 1}


def test_bounds_are_possible_and_units_may_have_spaces(from_rows):
    rows = [(1, SODIUM, NOON, 80, " mEq/L "), (1, PH, NOON, 8.5, "units"), (1, INR, NOON, 0, " ")]
    x_NI, _ = from_rows(*rows)
    assert x_NI[0, [PLACE[SODIUM], PLACE[PH], PLACE[INR]]].tolist() == [80, 8.5, 0]


def test_a_stray_unit_is_counted(from_rows):
    rows = [(1, SODIUM, NOON, 140, "mEq/L")] * 30 + [(1, SODIUM, NOON - timedelta(hours=1), 3.2, "g/L")]
    x_NI, left_out = from_rows(*rows)
    assert x_NI[0, PLACE[SODIUM]] == 140
    assert left_out["another unit"] == 1


@pytest.mark.parametrize("unit", ["mmol/L", ""])
def test_a_lab_in_another_unit_stops_and_is_named(demo, tmp_path, unit):
    rows = read_rows(demo[0])
    creatinine = [row for row in rows if row["itemid"] == "50912" and row["valuenum"]]
    for row in creatinine[::10]:
        row["valueuom"] = unit
    write_rows(tmp_path / "labevents.csv.gz", rows)
    message = rf"labevents.csv.gz: Creatinine \(item 50912\) has rows in another unit: '{unit}' 301 of 3,003"
    with pytest.raises(DataError, match=message):
        extract(tmp_path / "labevents.csv.gz", demo[1], tmp_path)


def test_a_number_that_is_none_names_the_file(demo, tmp_path):
    text = gzip.decompress(demo[0].read_bytes())
    (tmp_path / "labevents.csv.gz").write_bytes(gzip.compress(text.replace(b",51277,", b",5l277,", 1)))
    with pytest.raises(
        DataError, match=r"labevents.csv.gz has '#a###' for itemid in line \d+, where a whole"
    ):
        extract(tmp_path / "labevents.csv.gz", demo[1], tmp_path)


def test_a_window_of_another_width(demo, tmp_path):
    narrow, wide = (np.isfinite(extract(*demo, tmp_path, hours=hours)[0]) for hours in (6, 24))
    assert (narrow <= wide).all()
    assert narrow.sum() < wide.sum()


# ---- units that the unit column does not tell ----


def test_the_usual_values_are_those_of_the_demo():
    usual = pl.read_csv(Path(labs.__file__).with_name("reference.csv"))
    assert usual.equals(mimic_reference.of_demo())
    assert usual["itemid"].to_list() == [lab.itemid for lab in LABS]


@pytest.fixture(scope="module")
def first_values(demo, tmp_path_factory):
    return extract(*demo, tmp_path_factory.mktemp("scratch"))[0]


def refusal(lab, x_N) -> str:
    """What is said of a lab's first values; empty where they pass."""
    try:
        possible_N = x_N[np.isfinite(x_N) & (x_N >= lab.low) & (x_N <= lab.high)]
        labs.check_usual(Path("labevents.csv.gz"), lab, possible_N, lab.unit)
    except DataError as error:
        return str(error)
    return ""


def is_impossible(lab, x_N) -> bool:
    """Whether check_units sees it already."""
    x_N = x_N[np.isfinite(x_N)]
    return ((x_N < lab.low) | (x_N > lab.high)).mean() > labs.IMPOSSIBLE_OF_LAB


# Grades without a unit, in which a tenth of 1 is as common as 1.
NO_UNIT = {"I"}
FACTORS = (18.0, 1 / 18, 10.0, 0.1, 88.4, 1 / 88.4, 1000.0, 0.001)


@pytest.mark.parametrize("factor", FACTORS)
def test_every_lab_in_another_unit_is_seen(first_values, factor):
    passed = {
        lab.label
        for lab, x_N in zip(LABS, first_values.T, strict=True)
        if not is_impossible(lab, factor * x_N) and not refusal(lab, factor * x_N)
    }
    assert passed <= NO_UNIT


def test_real_values_pass_in_any_half_of_the_cohort(first_values):
    rng = np.random.default_rng(0)
    for _ in range(50):
        half = rng.permutation(len(first_values))[: len(first_values) // 2]
        assert not any(refusal(lab, x_N) for lab, x_N in zip(LABS, first_values[half].T, strict=True))


# A conversion that labs of this hospital are known to need elsewhere, of all rows and of three in ten.
CONVERSIONS = {
    "Glucose": (1 / 18.016, True),
    "Creatinine": (88.4, True),
    "Urea Nitrogen": (0.357, False),
    "Calcium, Total": (0.2495, True),
    "Magnesium": (0.4114, True),
    "Phosphate": (0.3229, True),
    "Bilirubin, Total": (17.1, True),
    "Hemoglobin": (10.0, True),
    "Albumin": (10.0, True),
    "Lactate": (9.01, True),
    "Hematocrit": (0.01, True),
    "Platelet Count": (1000.0, True),
    "pO2": (0.1333, True),
    "pCO2": (0.1333, True),
    "Alanine Aminotransferase (ALT)": (1 / 60, True),
    "Creatine Kinase (CK)": (1 / 60, False),  # 55 values
}


@pytest.mark.parametrize("label", CONVERSIONS)
def test_a_usual_conversion_is_seen_in_all_rows_and_in_some(first_values, label):
    lab, (factor, in_some) = next(lab for lab in LABS if lab.label == label), CONVERSIONS[label]
    x_N = first_values[:, LABS.index(lab)]
    x_N = x_N[np.isfinite(x_N)]
    assert refusal(lab, factor * x_N)
    some_N = np.where(np.random.default_rng(0).random(len(x_N)) < 0.3, factor * x_N, x_N)
    assert bool(refusal(lab, some_N)) == in_some


def test_a_few_values_say_nothing(first_values):
    lab = next(lab for lab in LABS if lab.label == "Glucose")
    x_N = first_values[:, LABS.index(lab)]
    assert not refusal(lab, x_N[np.isfinite(x_N)][:19] / 18)
    assert refusal(lab, x_N[np.isfinite(x_N)][:20] / 18)


def converted(demo, folder, item, change):
    """labevents.csv with other cells in rows of an item; `change` gets a row's place among them and value."""
    rows = pl.read_csv(demo[0], infer_schema=False)
    places = np.flatnonzero(rows["itemid"].eq(str(item)) & rows["valuenum"].is_not_null()).tolist()
    for k, (place, value) in enumerate(zip(places, rows["valuenum"][places].to_list(), strict=True)):
        for name, cell in change(k, float(value)).items():
            rows[place, name] = str(cell)
    rows.write_csv(folder / "labevents.csv")
    return folder / "labevents.csv"


def setting_in(message: str) -> dict:
    """The last setting that a message says to write."""
    return yaml.safe_load(re.findall(r"write `([^`]+)` under scales\.<scale>\.prepare\.mimic", message)[-1])


def extract_with(path, demo, tmp_path, **settings):
    chosen = mimic.Settings(**settings)
    return extract(path, demo[1], tmp_path, labs=chosen.labs, unusual=chosen.unusual_labs)[0]


def test_glucose_in_another_unit_is_named_and_each_mend_works(demo, first_values, tmp_path):
    path = converted(demo, tmp_path, 50931, lambda place, value: {"valuenum": value / 18.016})
    message = (
        r"labevents.csv: the median of Glucose \(item 50931\) is 6.77 mg/dL in 260 admissions, usual is 56.7"
    )
    with pytest.raises(DataError, match=message) as refused:
        extract(path, demo[1], tmp_path)
    assert 'write `lab_units: {"Glucose": {"mg/dL": "FACTOR"}}`' in str(refused.value)
    with pytest.raises(ValueError, match="'mg/dL': 'FACTOR'; give a unit"):
        mimic.Settings(lab_units={"Glucose": {"mg/dL": "FACTOR"}})
    x_NI = extract_with(path, demo, tmp_path, lab_units={"Glucose": {"mg/dL": 18.016}})
    assert np.allclose(x_NI, first_values, equal_nan=True)
    x_NI = extract_with(path, demo, tmp_path, **setting_in(str(refused.value)))
    assert np.nanmedian(x_NI[:, PLACE[50931]]) == pytest.approx(6.77, abs=0.01)


def test_a_part_in_another_unit_is_named(demo, tmp_path):
    path = converted(
        demo, tmp_path, 50931, lambda k, value: {"valuenum": value / 18 if k % 10 < 3 else value}
    )
    message = (
        r"\d\d% of 260 values of Glucose \(item 50931\) are below 70 mg/dL, usual is 3%: if all rows in "
        r"'mg/dL' are on another scale, .+; if some are, convert those in the file"
    )
    with pytest.raises(DataError, match=message):
        extract(path, demo[1], tmp_path)


@pytest.mark.parametrize(
    ("item", "unit", "factor"),
    [(51249, "%", 10), (51249, "%", 0.01), (50934, "", 10), (50912, "mg/dl", 88.4), (50971, "mmol", 39)],
)
def test_the_unit_that_a_factor_is_written_for_is_the_one_that_the_rows_have(
    demo, first_values, tmp_path, item, unit, factor
):
    lab, alias = LABS[PLACE[item]], {}
    if unit not in lab.units:
        alias = {"lab_units": {lab.label: {unit: 1}}}
    path = converted(demo, tmp_path, item, lambda k, value: {"valuenum": value * factor, "valueuom": unit})
    with pytest.raises(DataError, match="that makes") as refused:
        extract_with(path, demo, tmp_path, **alias)
    assert f'write `lab_units: {{"{lab.label}": {{"{unit}": "FACTOR"}}}}`' in str(refused.value)
    x_NI = extract_with(path, demo, tmp_path, lab_units={lab.label: {unit: 1 / factor}})
    assert np.allclose(x_NI, first_values, equal_nan=True)


def test_values_that_no_patient_has_stop_where_they_are_many_of_a_lab(demo, tmp_path):
    path = converted(demo, tmp_path, PH, lambda place, value: {"valuenum": 10 ** (9 - value)})
    with pytest.raises(
        DataError, match=r"[\d,]+ of 966 values of pH \(item 50820\) lie outside 6 to 8.5 units"
    ):
        extract(path, demo[1], tmp_path)


# ---- what differs between releases ----


def test_a_unit_in_other_letters_is_mended_as_the_message_says(demo, first_values, tmp_path):
    path = converted(demo, tmp_path, 50912, lambda place, value: {} if place % 10 else {"valueuom": "mg/dl"})
    with pytest.raises(
        DataError, match=r"Creatinine .* has rows in another unit: 'mg/dl' 301 of 3,003"
    ) as refused:
        extract(path, demo[1], tmp_path)
    assert setting_in(str(refused.value)) == {"lab_units": {"Creatinine": {"mg/dl": 1}}}
    x_NI = extract_with(path, demo, tmp_path, **setting_in(str(refused.value)))
    assert np.array_equal(x_NI, first_values, equal_nan=True)


def test_a_unit_on_another_scale_is_converted(demo, first_values, tmp_path):
    def change(place, value):
        return {"valueuom": "umol/L", "valuenum": value * 88.4} if place % 2 else {}

    path = converted(demo, tmp_path, 50912, change)
    x_NI = extract_with(path, demo, tmp_path, lab_units={"Creatinine": {"umol/L": 1 / 88.4}})
    assert np.allclose(x_NI, first_values, equal_nan=True)
    with pytest.raises(
        DataError, match=r"median of Creatinine \(item 50912\) of the rows in 'umol/L'"
    ):  # not its scale
        extract_with(path, demo, tmp_path, lab_units={"Creatinine": {"umol/L": 1}})


def test_a_rare_unit_on_another_scale_is_seen(demo, tmp_path):
    def change(place, value):
        return {"valueuom": "umol/L", "valuenum": value * 88.4} if place % 25 == 0 else {}

    path = converted(demo, tmp_path, 50912, change)
    message = (
        r"the median of Creatinine \(item 50912\) of the rows in 'umol/L' is \d+ mg/dL in \d+ values, usual"
    )
    with pytest.raises(DataError, match=message) as refused:
        extract_with(path, demo, tmp_path, lab_units={"Creatinine": {"umol/L": 1}})
    assert 'write `lab_units: {"Creatinine": {"umol/L": "FACTOR"}}`' in str(refused.value)
    extract_with(path, demo, tmp_path, lab_units={"Creatinine": {"umol/L": 1 / 88.4}})


def test_units_of_few_rows_are_counted_and_not_told(demo, tmp_path):
    path = converted(demo, tmp_path, 50912, lambda place, value: {"valueuom": f"Dr. Who {place // 9}"})
    with pytest.raises(
        DataError, match=r"another unit: 3,003 in units of fewer than 10 rows of 3,003"
    ) as refused:
        extract(path, demo[1], tmp_path)
    assert "Who" not in str(refused.value)


def test_a_lab_may_have_another_item(demo, first_values, tmp_path):
    path = converted(demo, tmp_path, 50931, lambda place, value: {"itemid": 59999})
    x_NI = extract_with(path, demo, tmp_path, lab_items={"Glucose": {"itemid": 59999}})
    assert np.array_equal(x_NI, first_values, equal_nan=True)
