"""The whole extraction on the real demo: cohort, labels, split, arrays, flow, and suites that see faults."""

import csv
import json
import re
import shutil
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mimic_raw import TIME, WINDOW, admissions_with_labs, mimic_raw, read_rows, write_rows
from mindgap.data import SOURCES, mimic
from mindgap.data.errors import DataError
from mindgap.data.mimic import cohort, ecg
from mindgap.data.mimic.labs import LABS
from mindgap.results.expectations import ExpectationFailed, validate, validate_dataset

SUITES = Path(__file__).parents[1] / "reports" / "expectations" / "prepared"
DEMO = {"release": "demo", "test_subjects": 0, "test_fraction": 0.3, "ecg_samples": 500}


def prepare(raw, out, workers=1, **settings):
    choice = mimic.Settings(**{**DEMO, **settings})
    return mimic.prepare(raw, out, choice, workers=workers, progress=False)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return mimic_raw(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def prepared(raw, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "mimic"
    prepare(raw, out)
    return out


@pytest.fixture
def folder(raw, tmp_path):
    """A raw folder that may be changed."""
    shutil.copytree(raw / "hosp", tmp_path / "raw" / "hosp")
    shutil.copytree(raw / "ecg", tmp_path / "raw" / "ecg")
    return tmp_path / "raw"


def meta_of(folder):
    return json.loads((folder / "meta.json").read_text())


def cohort_of(folder):
    with (folder / "cohort.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def excluded(folder):
    """Counts by part and reason, where there are any."""
    with (folder / "flow.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {(r["part"], r["reason"]): int(r["excluded"]) for r in rows if int(r["excluded"])}


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_cohort_is_every_admission_of_the_demo_with_labs(raw, prepared):
    rows = cohort_of(prepared)
    expected = [subject for subject, _ in admissions_with_labs(raw / "hosp")]
    assert len(rows) == 268
    assert sorted(int(row["subject_id"]) for row in rows) == sorted(expected)
    hadm = [int(row["hadm_id"]) for row in rows]
    assert hadm == sorted(set(hadm))


def test_labels_are_deaths_within_a_year_by_dates(raw, prepared):
    died = {row["subject_id"]: row["dod"] for row in read_rows(raw / "hosp" / "patients.csv.gz")}
    admitted = {row["hadm_id"]: row["admittime"] for row in read_rows(raw / "hosp" / "admissions.csv.gz")}

    def dead(row):
        if not died[row["subject_id"]]:
            return 0
        days = date.fromisoformat(died[row["subject_id"]]) - date.fromisoformat(admitted[row["hadm_id"]][:10])
        return int(0 <= days.days <= 365)

    rows = cohort_of(prepared)
    assert [int(row["y"]) for row in rows] == [dead(row) for row in rows]
    for split in ("train", "test"):
        stored = np.load(prepared / f"{split}.label.npy").tolist()
        assert stored == [dead(row) for row in rows if row["split"] == split]
    assert sum(map(dead, rows)) == 66  # 67 of the 275 admissions; one of them has no lab


def test_every_sample_has_its_own_first_recording(raw, prepared):
    records = read_rows(raw / "ecg" / "record_list.csv")
    admitted = {row["hadm_id"]: row["admittime"] for row in read_rows(raw / "hosp" / "admissions.csv.gz")}
    stored = {split: np.load(prepared / f"{split}.ecg.npy") for split in ("train", "test")}
    for row in cohort_of(prepared):
        day = datetime.strptime(admitted[row["hadm_id"]], TIME)
        near = [r for r in records if r["subject_id"] == row["subject_id"]]
        near = [r for r in near if abs(datetime.strptime(r["ecg_time"], TIME) - day) <= WINDOW]
        first = min(near, key=lambda r: (r["ecg_time"], r["study_id"]))
        assert row["study_id"] == first["study_id"]
        expected = ecg.scaled_ecg(ecg.read_ecg(raw / "ecg" / first["path"]), 500, "joint")
        assert np.array_equal(stored[row["split"]][int(row["index"])], expected)


def test_the_arrays_are_complete_and_scaled(prepared):
    meta = meta_of(prepared)
    assert meta["modalities"]["ecg"] == {"kind": "signal", "shape": [12, 500], "mirrors": True}
    assert meta["modalities"]["bloodlabs"] == {"kind": "table", "shape": [50], "mirrors": True}
    assert (meta["class_names"], meta["grouped"], meta["weak"]) == (["alive", "dead"], True, None)
    assert meta["ceilings"] == {"ecg": 1.0, "bloodlabs": 1.0, "ecg+bloodlabs": 1.0}
    for split, size in meta["sizes"].items():
        x_NI, x_NLT = (np.load(prepared / f"{split}.{name}.npy") for name in ("bloodlabs", "ecg"))
        assert (x_NI.shape, x_NI.dtype) == ((size, 50), np.float32)
        assert (x_NLT.shape, x_NLT.dtype) == ((size, 12, 500), np.float16)
        assert ((x_NI >= 0) & (x_NI <= 1)).all()
        assert (x_NLT.min(axis=(1, 2)) == -1).all()
        assert (x_NLT.max(axis=(1, 2)) == 1).all()
        assert np.load(prepared / f"{split}.present.npy").all()
    assert not (prepared / "scratch").exists()


def test_no_subject_is_in_both_splits_and_groups_are_subjects(prepared):
    rows = cohort_of(prepared)
    splits = {split: {r["subject_id"] for r in rows if r["split"] == split} for split in ("train", "test")}
    assert not splits["train"] & splits["test"]
    assert len(splits["test"]) == meta_of(prepared)["test_subjects"] == 30
    groups = {row["subject_id"]: row["group"] for row in rows}
    assert len(set(groups.values())) == len(groups) == 100
    assert all(groups[row["subject_id"]] == row["group"] for row in rows)
    for split in splits:
        stored = np.load(prepared / f"{split}.group.npy").tolist()
        assert stored == [int(row["group"]) for row in rows if row["split"] == split]


def test_nothing_of_a_single_patient_is_in_the_meta(prepared):
    meta = {key: value for key, value in meta_of(prepared).items() if key != "sha256"}
    assert not {row["hadm_id"] for row in cohort_of(prepared)} & set(
        json.dumps(meta).replace(",", " ").split()
    )
    assert max(len(value) for value in meta.values() if isinstance(value, list)) <= 50


def test_the_flow_accounts_for_every_row(prepared):
    assert excluded(prepared) == {
        ("admissions", "no ECG record within 24 h"): 6,
        ("admissions", "too few labs within 24 h"): 1,
        ("lab rows", "another item"): 23_596,
        ("lab rows", "no number"): 208,
        ("lab rows", "not within 24 h of an admission"): 65_140,
        ("lab values", "repeated in the window"): 9_636,
        ("ecg records", "not within 24 h of an admission"): 27,
        ("ecg records", "a usable record came earlier"): 1,
    }


def test_any_number_of_workers_gives_the_same_bytes(raw, prepared, tmp_path):
    prepare(raw, tmp_path / "mimic", workers=2)
    assert files_of(tmp_path / "mimic") == files_of(prepared)


def test_the_test_subjects_are_the_split_seeds_and_nothing_elses(raw, prepared, tmp_path):
    def test_set(**settings):
        out = tmp_path / "-".join(map(str, settings.values()))
        prepare(raw, out, **settings)
        return {row["hadm_id"] for row in cohort_of(out) if row["split"] == "test"}

    same = {row["hadm_id"] for row in cohort_of(prepared) if row["split"] == "test"}
    assert test_set(ecg_samples=50, missing_flags=True) == same
    assert test_set(test_subjects=30, test_fraction=0.0) == same
    assert test_set(split_seed=1) != same


def test_flags_tell_what_was_imputed(raw, prepared, tmp_path):
    meta = prepare(raw, tmp_path / "mimic", missing_flags=True)
    assert meta["modalities"]["bloodlabs"]["shape"] == [100]
    assert meta["lab_columns"][50] == "Hematocrit, imputed"
    x_NI = np.load(tmp_path / "mimic" / "train.bloodlabs.npy")
    assert np.array_equal(x_NI[:, :50], np.load(prepared / "train.bloodlabs.npy"))
    rows = [row for row in cohort_of(prepared) if row["split"] == "train"]
    assert (50 - x_NI[:, 50:].sum(axis=1)).tolist() == [int(row["n_labs"]) for row in rows]
    validate_dataset(tmp_path / "mimic", SUITES, tmp_path / "html")


def test_imputed_values_are_the_median_of_the_training_values(raw, prepared, tmp_path):
    prepare(raw, tmp_path / "mimic", missing_flags=True)
    train_NI, test_NI = (np.load(tmp_path / "mimic" / f"{s}.bloodlabs.npy") for s in ("train", "test"))
    for i in range(50):
        seen = train_NI[:, 50 + i] == 0
        median = np.median(train_NI[seen, i])
        for x_NI in (train_NI, test_NI):
            assert np.allclose(x_NI[x_NI[:, 50 + i] == 1, i], median, atol=1e-6)


def test_more_labs_may_be_asked_for(raw, tmp_path):
    prepare(raw, tmp_path / "mimic", min_labs=30)
    counts = [int(row["n_labs"]) for row in cohort_of(tmp_path / "mimic")]
    assert min(counts) == 30
    assert excluded(tmp_path / "mimic")["admissions", "too few labs within 24 h"] == 269 - len(counts)


def change(path, key, value, **values):
    """Overwrite values in rows whose `key` is `value`."""
    rows = read_rows(path)
    for row in rows:
        if row[key] == value:
            row |= values
    write_rows(path, rows)


def test_admissions_that_contradict_themselves_are_left_out_and_counted(folder, prepared, tmp_path):
    deaths = [row for row in cohort_of(prepared) if row["y"] == "1"]
    one, two, *_ = {row["subject_id"]: row["hadm_id"] for row in deaths}.items()
    admissions = folder / "hosp" / "admissions.csv.gz"
    by_id = {row["hadm_id"]: row for row in read_rows(admissions)}
    alive = next(r for r in cohort_of(prepared) if r["subject_id"] not in {d["subject_id"] for d in deaths})
    change(admissions, "hadm_id", one[1], dischtime=by_id[one[1]]["admittime"])
    admitted = datetime.strptime(by_id[two[1]]["admittime"], TIME)
    change(
        folder / "hosp" / "patients.csv.gz", "subject_id", two[0], dod=str((admitted - timedelta(1)).date())
    )
    change(
        admissions, "hadm_id", alive["hadm_id"], hospital_expire_flag="1", deathtime=admitted.strftime(TIME)
    )
    change(folder / "hosp" / "patients.csv.gz", "subject_id", alive["subject_id"], dod="")
    prepare(folder, tmp_path / "mimic")
    counts = excluded(tmp_path / "mimic")
    assert counts["admissions", "discharged at or before admission"] == 1
    assert counts["admissions", "died before admission"] >= 1
    assert counts["admissions", "died in hospital without a date of death"] == 1
    left = {row["hadm_id"] for row in cohort_of(tmp_path / "mimic")}
    assert not left & {one[1], two[1], alive["hadm_id"]}


@pytest.mark.parametrize(("days", "y"), [(0, "1"), (365, "1"), (366, "0")])
def test_the_year_ends_after_365_days(folder, prepared, tmp_path, days, y):
    row = next(row for row in cohort_of(prepared) if row["y"] == "0")
    admissions = read_rows(folder / "hosp" / "admissions.csv.gz")
    admitted = next(r["admittime"] for r in admissions if r["hadm_id"] == row["hadm_id"])
    dod = datetime.strptime(admitted, TIME).date() + timedelta(days)
    change(folder / "hosp" / "patients.csv.gz", "subject_id", row["subject_id"], dod=str(dod))
    prepare(folder, tmp_path / "mimic")
    found = [r["y"] for r in cohort_of(tmp_path / "mimic") if r["hadm_id"] == row["hadm_id"]]
    assert found == [y]


def test_a_short_recording_is_left_out_counted_and_listed(folder, prepared, tmp_path):
    only = cohort_of(prepared)[0]
    record = next(
        r for r in read_rows(folder / "ecg" / "record_list.csv") if r["study_id"] == only["study_id"]
    )
    data = folder / "ecg" / f"{record['path']}.dat"
    data.write_bytes(data.read_bytes()[:-1])
    prepare(folder, tmp_path / "mimic")
    assert only["hadm_id"] not in {row["hadm_id"] for row in cohort_of(tmp_path / "mimic")}
    assert excluded(tmp_path / "mimic")["ecg records", ecg.SHORT] == 1
    assert excluded(tmp_path / "mimic")["admissions", "no usable ECG within 24 h"] == 1
    listed = (tmp_path / "mimic" / "ecg_unusable.csv").read_text()
    assert listed == f"study_id,path,reason\n{record['study_id']},{record['path']},{ecg.SHORT}\n"
    validate_dataset(tmp_path / "mimic", SUITES, tmp_path / "html")


def test_leads_may_lie_in_another_order(folder, prepared, tmp_path):
    for header in folder.glob("ecg/files/*/*/*/*.hea"):
        text = header.read_text()
        header.write_text(text.replace(" V1\n", " v\n").replace(" V6\n", " V1\n").replace(" v\n", " V6\n"))
    prepare(folder, tmp_path / "mimic")
    x_NLT, swapped_NLT = (np.load(out / "train.ecg.npy") for out in (prepared, tmp_path / "mimic"))
    order = [ecg.LEADS.index(lead) for lead in (*ecg.LEADS[:6], "V6", "V2", "V3", "V4", "V5", "V1")]
    assert np.array_equal(swapped_NLT, x_NLT[:, order])


def test_an_unfinished_download_stops(folder, tmp_path):
    for data in sorted(folder.glob("ecg/files/*/*/*/*.dat"))[::8]:
        data.unlink()
    message = (
        r"record_list.csv: 34 of 267 records that were tried cannot be used \(file missing 34\), such as "
    )
    with pytest.raises(
        DataError, match=message + r"file missing in lines 8, .*: finish the download$"
    ) as told:
        prepare(folder, tmp_path / "mimic")
    assert "files/p" not in str(told.value)
    assert not (tmp_path / "mimic").exists()


def zero_second_halves(folder, every):
    for data in sorted(folder.glob("ecg/files/*/*/*/*.dat"))[::every]:
        data.write_bytes(data.read_bytes()[:60_000] + bytes(60_000))


def test_recordings_of_which_half_is_lost_are_left_out_and_counted(folder, prepared, tmp_path):
    zero_second_halves(folder, every=40)
    prepare(folder, tmp_path / "mimic")
    lost = excluded(tmp_path / "mimic")["ecg records", ecg.ALTERED]
    assert 5 <= lost <= 8
    assert len(cohort_of(tmp_path / "mimic")) == len(cohort_of(prepared)) - lost
    validate_dataset(tmp_path / "mimic", SUITES, tmp_path / "html")


def test_recordings_of_which_half_is_lost_stop_where_they_are_many(folder, tmp_path):
    zero_second_halves(folder, every=1)
    message = (
        rf"268 of 268 records that were tried cannot be used \({ecg.ALTERED} 268\), .*: download them again"
    )
    with pytest.raises(DataError, match=message):
        prepare(folder, tmp_path / "mimic")


def test_another_spelling_and_item_go_through_to_the_suites(folder, tmp_path):
    items = {"Sodium": {"itemid": 59999, "label": "Na", "category": "chem"}}
    change(
        folder / "hosp" / "d_labitems.csv.gz", "itemid", "50983", itemid="59999", label="Na", category="chem"
    )
    change(folder / "hosp" / "labevents.csv.gz", "itemid", "50983", itemid="59999", valueuom="mmol")
    settings = {"lab_items": items, "lab_units": {"Sodium": {"mmol": 1}}}
    assert 59999 in prepare(folder, tmp_path / "mimic", **settings)["lab_items"]
    validate_dataset(tmp_path / "mimic", SUITES, tmp_path / "html")


def test_a_cohort_of_nobody_stops(folder, tmp_path):
    records = read_rows(folder / "ecg" / "record_list.csv")
    write_rows(
        folder / "ecg" / "record_list.csv", [row | {"ecg_time": "2300-01-01 00:00:00"} for row in records]
    )
    with pytest.raises(DataError, match=r"record_list.csv: no record lies within 24 h of an admission"):
        prepare(folder, tmp_path / "mimic")


def test_labs_that_nobody_has_stop(folder, tmp_path):
    rows = read_rows(folder / "hosp" / "labevents.csv.gz")
    write_rows(folder / "hosp" / "labevents.csv.gz", [row | {"valuenum": ""} for row in rows])
    with pytest.raises(DataError, match=r"none of 269 admissions with an ECG record has 1 of the labs"):
        prepare(folder, tmp_path / "mimic")


def test_more_test_subjects_than_there_are(raw, tmp_path):
    with pytest.raises(DataError, match="cohort has 100 subjects, mimic's settings ask for 100 to test on"):
        prepare(raw, tmp_path / "mimic", test_subjects=100, test_fraction=0.0)


def test_groups_are_drawn_and_say_nothing_of_ids():
    subjects = np.arange(10_000_000, 10_001_000).repeat(2)
    group_N = cohort.groups_of(subjects, 1)
    assert np.array_equal(group_N[::2], group_N[1::2])
    assert sorted(group_N[::2]) == list(range(1000))
    assert abs(np.corrcoef(subjects, group_N)[0, 1]) < 0.1
    assert not np.array_equal(group_N, cohort.groups_of(subjects, 2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"release": "3.0"}, r"release is '3.0'; known: 2.2, 3.1, demo"),
        ({"ecg_scaling": "none"}, r"ecg_scaling is 'none'; known: joint, lead"),
        ({"ecg_samples": 999}, "ecg_samples is 999: make it a divisor of 5000"),
        ({"ecg_samples": 0}, r"ecg_samples is 0: make it a number in 1..5000"),
        ({"window_hours": "24"}, "window_hours is '24': make it of type int"),
        ({"missing_flags": 1}, "missing_flags is 1: make it of type bool"),
        ({"min_labs": 51}, r"min_labs is 51: make it a number in 1..50"),
        ({"test_subjects": 5}, "give either test_subjects or test_fraction"),
        ({"test_fraction": 0.0}, "give either test_subjects or test_fraction"),
        ({"test_fraction": 1.0}, "test_fraction is a share below 1"),
        ({"lab_units": {"Glukose": {"mg/dL": 1}}}, "lab_units has 'Glukose'; the labs are 'Hematocrit', "),
        ({"lab_units": {"Glucose": "mg/dl"}}, "lab_units of 'Glucose' has 'mg/dl': None; give a unit"),
        (
            {"lab_units": {"Glucose": {"mg/dl": 0}}},
            "'mg/dl': 0; give a unit, as text, and the factor above 0",
        ),
        ({"lab_units": {"Glucose": {"mg/dl": True}}}, "'mg/dl': True; give a unit"),
        ({"lab_units": {"Glucose": {"mg/dl": float("inf")}}}, "'mg/dl': inf; give a unit"),
        ({"lab_units": []}, r"lab_units is \[\]: make it of type dict"),
        (
            {"lab_items": {"Glucose": {"unit": "g"}}},
            "lab_items of 'Glucose' has 'unit': 'g'; it may have itemid",
        ),
        (
            {"lab_items": {"Glucose": {"itemid": "1"}}},
            "lab_items of 'Glucose' has 'itemid': '1'; it may have",
        ),
        ({"lab_items": {"Glucose": 50809}}, "lab_items of 'Glucose' has '50809': None; it may have"),
        ({"lab_items": {"Glucose": {"itemid": 50983}}}, "lab_items gives two labs the itemid 50983"),
        ({"unusual_labs": ["glucose"]}, "unusual_labs has 'glucose'; the labs are"),
        ({"rows": {"labs": 3}}, "rows has 'labs': 3; give a number of rows of patients, admissions"),
        ({"rows": {"labevents": "many"}}, "rows has 'labevents': 'many'"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        mimic.Settings(**{**DEMO, **settings})


def test_the_paper_tests_on_30000_subjects_of_3_1():
    assert (mimic.Settings().test_subjects, mimic.Settings().release) == (30_000, "3.1")


# ---- the suites ----


@pytest.fixture(scope="module")
def frames(prepared):
    return {part: pd.DataFrame(columns) for part, columns in mimic.tables(prepared).items()}


def run_suite(part, frame, prepared, tmp_path):
    parameters = mimic.parameters(meta_of(prepared))
    validate(f"mimic: {part}", frame, SUITES / f"mimic_{part}.json", tmp_path / "page.html", parameters)


def test_the_demo_passes_every_suite(prepared, tmp_path):
    validate_dataset(prepared, SUITES, tmp_path)
    suites = {path.stem.removeprefix("mimic_") for path in SUITES.glob("mimic_*.json")}
    assert suites == set(mimic.tables(prepared))
    assert set(SOURCES["mimic"].checks) <= {"flow", *suites}


def put(column, value, row=3):
    def spoil(frame):
        frame = frame.astype({column: object})
        frame.loc[row, column] = value
        return frame.infer_objects()

    return spoil


def copied(column, source=3, target=200):
    return lambda frame: put(column, frame[column][source], target)(frame)


def in_both_splits(frame):
    """A sample of a test subject that has several is taken for a training sample."""
    several = frame[frame.duplicated("subject_id", keep=False) & (frame["split"] == "test")]
    return put("split", "train", several.index[0])(frame)


FAULTS = [
    ("cohort", copied("hadm_id"), "hadm_id: expect_column_values_to_be_unique"),
    ("cohort", put("hadm_id", 123), "hadm_id: expect_column_values_to_be_between"),
    ("cohort", put("subject_id", 123), "subject_id: expect_column_values_to_be_between"),
    ("cohort", put("study_id", 123), "study_id: expect_column_values_to_be_between"),
    ("cohort", put("y", 2), "y: expect_column_values_to_be_in_set"),
    ("cohort", lambda f: f.assign(y=0, stored_label=0), "y: expect_column_mean_to_be_between"),
    ("cohort", lambda f: f.assign(y=1, stored_label=1), "y: expect_column_mean_to_be_between"),
    ("cohort", put("stored_label", 2), "y, stored_label: expect_column_pair_values_to_be_equal"),
    ("cohort", put("stored_group", -1), "group, stored_group: expect_column_pair_values_to_be_equal"),
    ("cohort", put("split", "val"), "split: expect_column_values_to_be_in_set"),
    ("cohort", put("index", 99_999), "index: expect_column_values_to_be_between"),
    ("cohort", put("n_labs", 0), "n_labs: expect_column_values_to_be_between"),
    ("cohort", lambda f: f[1:], "(table): expect_table_row_count_to_equal"),
    ("cohort", lambda f: f.drop(columns="y"), "(table): expect_table_columns_to_match_set"),
    ("splits", put("subjects", 29, 1), "subjects, wanted_subjects: expect_column_pair_values_to_be_equal"),
    ("splits", put("stored", 1, 0), "samples, stored: expect_column_pair_values_to_be_equal"),
    ("splits", put("deaths", 0.0, 1), "deaths: expect_column_values_to_be_between"),
    ("labs", put("name", "Urine pH"), "name, pinned: expect_column_pair_values_to_be_equal"),
    ("labs", put("itemid", 51491), "itemid, pinned_itemid: expect_column_pair_values_to_be_equal"),
    ("labs", put("invalid", 1), "invalid: expect_column_values_to_be_in_set"),
    ("labs", put("low", -0.1), "low: expect_column_values_to_be_between"),
    ("labs", put("high", 1.1), "high: expect_column_values_to_be_between"),
    ("labs", lambda f: f[1:], "(table): expect_table_row_count_to_equal"),
    ("values", put("minimum", 0.5), "minimum, low: expect_column_pair_values_a_to_be_greater_than_b"),
    ("values", put("maximum", 15.5), "high, maximum: expect_column_pair_values_a_to_be_greater_than_b"),
    ("values", put("values", 0), "values: expect_column_values_to_be_between"),
    ("scaler", put("fit_sha256", "0" * 64, 0), "fit_sha256, train_sha256: expect_column_pair"),
    ("scaler", put("n_fit", 268, 0), "n_fit, n_train: expect_column_pair_values_to_be_equal"),
    ("scaler", put("falling", 1, 0), "falling: expect_column_values_to_be_in_set"),
    ("ecg", put("low", -0.5), "low: expect_column_values_to_be_between"),
    ("ecg", put("high", 0.5), "high: expect_column_values_to_be_between"),
    ("ecg", put("invalid", 7), "invalid: expect_column_values_to_be_in_set"),
    ("leads", put("lead", "aVF", 4), "lead, pinned: expect_column_pair_values_to_be_equal"),
    ("raw", put("found", 0.5), "allowed, found: expect_column_pair_values_a_to_be_greater_than_b"),
    ("raw", put("found", None), "found: expect_column_values_to_not_be_null"),
]


@pytest.mark.parametrize(("part", "spoil", "failing"), FAULTS, ids=lambda x: x if isinstance(x, str) else "")
def test_a_suite_sees_its_fault(frames, prepared, tmp_path, part, spoil, failing):
    with pytest.raises(ExpectationFailed) as failure:
        run_suite(part, spoil(frames[part].copy()), prepared, tmp_path)
    assert failing in str(failure.value)


@pytest.fixture
def altered(prepared, tmp_path):
    """A prepared dataset that may be changed."""
    return Path(shutil.copytree(prepared, tmp_path / "mimic"))


def failure_of(altered, part):
    with pytest.raises(ExpectationFailed) as failure:
        run_suite(part, pd.DataFrame(mimic.tables(altered)[part]), altered, altered.parent)
    return str(failure.value)


def test_a_subject_in_both_splits_is_seen(altered):
    frame = in_both_splits(pd.read_csv(altered / "cohort.csv"))
    frame.to_csv(altered / "cohort.csv", index=False)
    message = failure_of(altered, "cohort")
    assert "splits_of_subject: expect_column_values_to_be_in_set (value_set=[1])" in message
    assert "fit_sha256, train_sha256" in failure_of(altered, "scaler")


def test_a_recording_in_both_splits_is_seen(altered):
    frame = pd.read_csv(altered / "cohort.csv")
    train, test = (frame.index[frame["split"] == split][0] for split in ("train", "test"))
    frame.loc[test, "study_id"] = frame.loc[train, "study_id"]
    frame.to_csv(altered / "cohort.csv", index=False)
    assert "splits_of_study: expect_column_values_to_be_in_set" in failure_of(altered, "cohort")


def test_leads_in_another_order_than_said_are_seen_in_the_data(altered):
    x_NLT = np.load(altered / "train.ecg.npy")
    np.save(altered / "train.ecg.npy", x_NLT[:, [0, 1, 2, 3, 5, 4, *range(6, 12)]])
    message = failure_of(altered, "leads")
    assert "follows: expect_column_values_to_be_between" in message
    assert "2 rows fail: row 4" in message


def test_labels_of_other_samples_are_seen(altered):
    np.save(altered / "test.label.npy", np.roll(np.load(altered / "test.label.npy"), 1))
    assert "y, stored_label: expect_column_pair_values_to_be_equal" in failure_of(altered, "cohort")


def test_a_share_that_is_too_large_is_told_and_a_patients_row_is_not(altered, tmp_path):
    checks, cohort = altered / "raw_checks.csv", altered / "cohort.csv"
    checks.write_text(re.sub(r"(impossible value .share.,)[0-9.]+", r"\g<1>0.5", checks.read_text()))
    cohort.write_text(re.sub(r"(?m)^(train,0,)\d{8}", r"\g<1>19999999", cohort.read_text()))
    with pytest.raises(ExpectationFailed) as failure:
        validate_dataset(altered, SUITES, tmp_path / "html")
    assert re.search(r"allowed 0.01, found 0.5 .*impossible value \(share\)", str(failure.value))
    assert "hadm_id: expect_column_values_to_be_between" in str(failure.value)
    assert not re.search(r"\b1\d{7}\b", str(failure.value))


def test_a_missing_table_is_named(altered):
    (altered / "cohort.csv").unlink()
    with pytest.raises(DataError, match=r"cohort.csv is missing or damaged"):
        mimic.tables(altered)


def test_scaling_by_lead_leaves_the_comparison_of_leads_out(raw, tmp_path):
    prepare(raw, tmp_path / "mimic", ecg_scaling="lead")
    assert excluded(tmp_path / "mimic")["ecg records", ecg.CONSTANT] > 0  # two recordings have a flat lead
    x_NLT = np.load(tmp_path / "mimic" / "train.ecg.npy")
    assert (x_NLT.min(axis=2) == -1).all()
    frame = pd.DataFrame(mimic.tables(tmp_path / "mimic")["leads"]).assign(follows=0.0)
    run_suite("leads", frame, tmp_path / "mimic", tmp_path)


def test_every_lab_was_seen_in_the_demo(frames):
    assert frames["values"]["itemid"].tolist() == [lab.itemid for lab in LABS]
    assert frames["values"]["values"].sum() == 9181
