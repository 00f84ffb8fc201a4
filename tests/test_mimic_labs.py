"""Fifty blood labs from labevents: pinned items, their first values in a window, and what is left out."""

import gzip
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from mimic_raw import TIME, WINDOW, read_rows, write_rows
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


def extract(path, admissions, scratch, hours=24):
    flow, checks = Flow(), raw.Checks()
    x_NI = labs.lab_values(path, admissions, hours, scratch, release=None, flow=flow, checks=checks)
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
        DataError, match=r"labevents.csv.gz is truncated or damaged \(could not parse `5l277`"
    ):
        extract(tmp_path / "labevents.csv.gz", demo[1], tmp_path)


def test_a_window_of_another_width(demo, tmp_path):
    narrow, wide = (np.isfinite(extract(*demo, tmp_path, hours=hours)[0]) for hours in (6, 24))
    assert (narrow <= wide).all()
    assert narrow.sum() < wide.sum()
