"""The tables of MIMIC-IV and the record list of MIMIC-IV-ECG: read whole, or refused with file and line."""

import gzip
import re
import shutil

import polars as pl
import pytest

from mimic_raw import mimic_raw, read_rows, write_rows
from mindgap.data import mimic
from mindgap.data.errors import DataError, SourceMissing
from mindgap.data.mimic import raw
from mindgap.data.mimic.labs import LABS

DEMO = mimic.Settings(release="demo", test_subjects=0, test_fraction=0.3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return mimic_raw(tmp_path_factory.mktemp("mimic"), records=40)


@pytest.fixture
def folder(whole, tmp_path):
    """A raw folder whose tables may be changed; the recordings are linked."""
    shutil.copytree(whole / "hosp", tmp_path / "raw" / "hosp")
    (tmp_path / "raw" / "ecg").mkdir()
    (tmp_path / "raw" / "ecg" / "files").symlink_to(whole / "ecg" / "files")
    shutil.copyfile(whole / "ecg" / "record_list.csv", tmp_path / "raw" / "ecg" / "record_list.csv")
    return tmp_path / "raw"


def file_of(folder, table):
    return raw.find_files(folder)[table]


def change(folder, table, line, **values):
    """Overwrite values of a line (2: the first below the header)."""
    path = file_of(folder, table)
    rows = read_rows(path)
    rows[line - 2] |= values
    write_rows(path, rows)
    return path


def refused(folder, message, settings=DEMO):
    """The extraction stops with this message and leaves nothing."""
    out = folder.parent / "out" / "mimic"
    with pytest.raises(DataError, match=message):
        mimic.prepare(folder, out, settings, workers=1, progress=False)
    assert not list(out.parent.iterdir())


def test_the_demo_is_read(whole):
    files = raw.find_files(whole)
    patients = raw.read_patients(files["patients"], "demo")
    assert (len(patients), patients["dod"].count()) == (100, 31)
    assert len(raw.read_admissions(files["admissions"], "demo", patients)) == 275
    assert len(raw.read_records(files["record_list"], "demo")) == 40
    raw.check_items(files["d_labitems"], "demo", LABS)


def test_unpacked_tables_do_too(folder):
    packed = raw.read_patients(file_of(folder, "patients"), "demo")
    for path in (folder / "hosp").iterdir():
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert file_of(folder, "patients").name == "patients.csv"
    assert raw.read_patients(file_of(folder, "patients"), "demo").equals(packed)


def test_what_is_absent_is_said_in_one_line(tmp_path):
    with pytest.raises(SourceMissing) as missing:
        mimic.prepare(tmp_path / "raw", tmp_path / "out", DEMO, workers=1, progress=False)
    line = str(missing.value)
    assert "\n" not in line
    for part in ("hosp/labevents.csv.gz", "ecg/record_list.csv.gz", "ecg/files/", "physionet.org", "ODbL"):
        assert part in line
    assert "training and a signed data use agreement" in line
    assert not list(tmp_path.iterdir())


def test_one_absent_table_is_named(folder):
    file_of(folder, "admissions").unlink()
    with pytest.raises(SourceMissing, match=r"raw lacks hosp/admissions.csv.gz: put or link"):
        raw.find_files(folder)


@pytest.mark.parametrize(
    ("release", "message"),
    [
        ("2.2", r"patients.csv.gz has 100 rows, in release 2.2 it has 299,712: it is of release demo: set"),
        (
            "3.1",
            r"d_labitems.csv.gz has 1,622 rows, in release 3.1 it has 1,650: it is of release 2.2 or demo",
        ),
    ],
)
def test_another_release_than_said_is_refused(folder, release, message):
    refused(folder, message, mimic.Settings(release=release))


def test_release_3_0_is_refused_by_its_rows(tmp_path):
    with pytest.raises(DataError, match=r"it is of release 3.0, which 3.1 replaced: download 3.1"):
        raw.check_rows(tmp_path / "labevents.csv.gz", "labevents", 158_478_383, "3.1")


@pytest.mark.parametrize("table", ["admissions", "labevents", "d_labitems", "patients"])
def test_a_row_less_is_another_release(folder, table):
    path = file_of(folder, table)
    write_rows(path, read_rows(path)[:-1])
    refused(folder, rf"{table}.csv.gz has [\d,]+ rows, in release demo it has [\d,]+: it is incomplete")


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("patients", "dod"),
        ("admissions", "deathtime"),
        ("labevents", "valueuom"),
        ("d_labitems", "fluid"),
        ("record_list", "ecg_time"),
    ],
)
def test_a_missing_column_is_named(folder, table, column):
    path = file_of(folder, table)
    rows = [{name: value for name, value in row.items() if name != column} for row in read_rows(path)]
    write_rows(path, rows)
    refused(folder, rf"{table}.csv(.gz)? has no column {column}; it has ")


@pytest.mark.parametrize("table", ["patients", "admissions", "labevents", "d_labitems"])
@pytest.mark.parametrize("kept", [0.5, 0.999, 0.0])
def test_a_truncated_gz_is_refused_with_its_name(folder, table, kept):
    path = file_of(folder, table)
    content = path.read_bytes()
    path.write_bytes(content[: max(20, int(kept * len(content)))])
    refused(folder, rf"{table}.csv.gz is truncated or damaged \(.+\): download it again")


@pytest.mark.parametrize("table", ["admissions", "labevents"])
def test_an_altered_gz_is_refused(folder, table):
    path = file_of(folder, table)
    content = bytearray(path.read_bytes())
    content[-6] ^= 255  # of the checksum
    path.write_bytes(content)
    refused(folder, rf"{table}.csv.gz is truncated or damaged")


def test_an_unpacked_table_that_ends_early_is_refused(folder):
    path = file_of(folder, "labevents")
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    path.unlink()
    path.with_suffix("").write_bytes(b"".join(lines[:60_000]))
    refused(folder, r"labevents.csv has 59,999 rows, in release demo it has 107,727: it is incomplete")


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("patients", "subject_id"),
        ("admissions", "hadm_id"),
        ("record_list", "study_id"),
        ("d_labitems", "itemid"),
    ],
)
def test_an_id_twice_is_refused_with_its_line(folder, table, column):
    first = read_rows(file_of(folder, table))[4][column]
    change(folder, table, 9, **{column: first})
    refused(folder, rf"{table}.csv(.gz)?, line 9: not the first row whose {column} is {first} \(1 in all\)")


@pytest.mark.parametrize(
    ("table", "values", "message"),
    [
        ("patients", {"gender": "X"}, r"line 7: gender, F or M, is 'X'"),
        ("patients", {"anchor_age": "17"}, r"line 7: anchor_age, 18 to 91, is 17"),
        ("patients", {"anchor_age": "young"}, r"line 7: anchor_age is 'young'"),
        ("patients", {"dod": "31.12.2150"}, r"line 7: dod is '31.12.2150'"),
        ("admissions", {"subject_id": "19999999"}, r"line 7: subject_id, one of patients, is 19999999"),
        ("admissions", {"admittime": ""}, r"line 7: admittime is None"),
        ("admissions", {"dischtime": "2150-01-01"}, r"line 7: dischtime is '2150-01-01'"),
        ("record_list", {"ecg_time": "noon"}, r"line 7: ecg_time is 'noon'"),
        ("record_list", {"subject_id": "10000032"}, r"line 7: path, which subject_id and study_id give, is "),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_its_line(folder, table, values, message):
    path = change(folder, table, 7, **values)
    refused(folder, re.escape(path.name) + ", " + message)


@pytest.mark.parametrize(
    ("column", "value"),
    [("label", "Sodium, Urine"), ("fluid", "Urine"), ("category", "Blood Gas"), ("label", "")],
)
def test_a_lab_that_is_another_measurement_is_refused(folder, column, value):
    rows = read_rows(file_of(folder, "d_labitems"))
    line = 2 + next(i for i, row in enumerate(rows) if row["itemid"] == "50983")
    change(folder, "d_labitems", line, **{column: value})
    refused(
        folder, rf"d_labitems.csv.gz, line {line}: {column} of item 50983 is {value or None!r}, labs.py pins"
    )


def test_a_lab_that_is_unknown_is_refused(folder):
    rows = read_rows(file_of(folder, "d_labitems"))
    line = 2 + next(i for i, row in enumerate(rows) if row["itemid"] == "50983")
    change(folder, "d_labitems", line, itemid="59999")
    refused(folder, r"d_labitems.csv.gz has no item 50983 \(Sodium\)")


def test_a_row_with_too_many_fields_is_refused(folder):
    path = file_of(folder, "patients")
    lines = gzip.decompress(path.read_bytes()).splitlines()
    lines[5] += b",1"
    path.write_bytes(gzip.compress(b"\n".join(lines)))
    refused(folder, r"patients.csv.gz is truncated or damaged \(found more fields")


def test_no_permission_is_not_called_damage(tmp_path):
    with pytest.raises(IsADirectoryError):
        raw.read_table(tmp_path, {"a": pl.Int32})
