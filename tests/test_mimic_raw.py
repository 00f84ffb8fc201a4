"""The tables of MIMIC-IV and the record list of MIMIC-IV-ECG: read whole, or refused with file and line."""

import dataclasses
import gzip
import json
import os
import re
import shutil

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
    with pytest.raises(DataError, match=message) as refusal:
        mimic.prepare(folder, out, settings, workers=1, progress=False)
    assert not re.search(r"\b[12]\d{7}\b|p1\d{3}/", str(refusal.value))  # an id of a patient, or a path
    assert not list(out.parent.glob("*"))


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
        raw.check_row_count(tmp_path / "labevents.csv.gz", "labevents", 158_478_383, "3.1")


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
    refused(folder, rf"{table}.csv(.gz)? has no column {column} among its \d+ columns: put the release's own")


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
    refused(folder, rf"{table}.csv(.gz)?, line 9: {column} is '#+', not one of its own: a row before")


@pytest.mark.parametrize(
    ("table", "values", "message"),
    [
        (
            "patients",
            {"gender": "X"},
            r"line 7: gender is 'a', not F or M \(1 in all\): mend the rows, or put",
        ),
        ("patients", {"anchor_age": "17"}, r"line 7: anchor_age is '##', not 18 to 91"),
        ("patients", {"anchor_age": "young"}, r"line 7: anchor_age is 'aaaaa', not a whole number"),
        ("patients", {"dod": "31.12.2150"}, r"line 7: dod is '##.##.####', not YYYY-MM-DD"),
        (
            "admissions",
            {"subject_id": "19999999"},
            r"line 7: subject_id is '########', not one of the table patients",
        ),
        ("admissions", {"admittime": ""}, r"line 7: admittime is empty, not YYYY-MM-DD HH:MM:SS"),
        (
            "admissions",
            {"dischtime": "2150-01-01"},
            r"line 7: dischtime is '####-##-##', not YYYY-MM-DD HH:MM:SS",
        ),
        (
            "admissions",
            {"admittime": "2150-01-01T10:00:00"},
            r"line 7: admittime is '####-##-##a##:##:##', not .+: it is in ISO 8601, the release has a space",
        ),
        ("record_list", {"ecg_time": "noon"}, r"line 7: ecg_time is 'aaaa'"),
        (
            "record_list",
            {"subject_id": "10000032"},
            r"line 7: path is 'aaaaa/a####/a########/a#...', not the one",
        ),
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
    pinned = {"label": "Sodium", "fluid": "Blood", "category": "Chemistry"}[column]
    message = f"d_labitems.csv.gz, line {line}: {column} of item 50983 is {value or None!r}, not {pinned!r}: "
    refused(folder, re.escape(message))
    items = {"Sodium": {column: value}}
    refused(folder, re.escape(f"write `lab_items: {json.dumps(items)}` under scales.<scale>.prepare.mimic"))
    raw.check_items(file_of(folder, "d_labitems"), "demo", dataclasses.replace(DEMO, lab_items=items).labs)


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
    refused(folder, r"patients.csv.gz has 7 fields where the header has 6 in line 6: it was cut or changed")


def test_a_row_that_was_cut_is_refused(folder):
    """Without the end of its row a patient has no date of death."""
    path = file_of(folder, "patients")
    lines = gzip.decompress(path.read_bytes()).splitlines()
    lines[5] = lines[5].rsplit(b",", 1)[0]
    path.write_bytes(gzip.compress(b"\n".join(lines)))
    refused(folder, r"patients.csv.gz has 5 fields where the header has 6 in line 6: it was cut or changed")


def as_link(target):
    return lambda path: (path.unlink(), path.symlink_to(target))


def as_folder(path):
    path.unlink()
    path.mkdir()


def as_pipe(path):
    path.unlink()
    os.mkfifo(path)


# /proc/self/mem is a regular file that gives EIO when it is read.
NO_FILES = {
    "a folder": (as_folder, "is a folder: put the file itself there"),
    "a link to nothing": (as_link("/nowhere/else"), "is a link to nothing: link it anew"),
    "a link to itself": (lambda path: as_link(path)(path), "is a link that leads back to itself"),
    "a pipe": (as_pipe, "is no regular file: put the file itself there"),
    "a disk that fails": (
        as_link("/proc/self/mem"),
        r"cannot be read \(Input/output error\): look at its disk",
    ),
}


@pytest.mark.parametrize("table", list(raw.TABLES))
@pytest.mark.parametrize("fault", NO_FILES)
def test_what_is_no_file_to_read_is_said_at_once(folder, table, fault):
    path = file_of(folder, table)
    spoil, message = NO_FILES[fault]
    spoil(path)
    refused(folder, f"{path.name} {message}")


def test_a_file_that_one_may_not_read(folder, monkeypatch):
    """Root may read everything: the system's answer is set here."""
    path = file_of(folder, "patients")
    opened = os.open

    def denied(name, *args, **kwargs):
        if str(name) == str(path):
            raise PermissionError(13, "Permission denied", name)
        return opened(name, *args, **kwargs)

    monkeypatch.setattr(os, "open", denied)
    refused(folder, r"patients.csv.gz is not yours to read: `chmod u\+r`")


def test_a_folder_of_the_release_that_is_a_link_to_nothing(folder):
    shutil.rmtree(folder / "hosp")
    (folder / "hosp").symlink_to("/nowhere/else")
    refused(folder, "raw/hosp is a link to nothing: link it anew, or mount what it leads to")
    shutil.rmtree(folder)
    folder.symlink_to("/nowhere/else")
    refused(folder, "raw is a link to nothing: link it anew, or mount what it leads to")


def test_the_folder_of_recordings_is_a_file(folder):
    (folder / "ecg" / "files").unlink()
    (folder / "ecg" / "files").write_text("")
    refused(folder, "ecg/files is a file, or lies below one, where a folder belongs: put the folder there")


def rewritten(folder, table, change):
    """The unpacked bytes of a table, changed and packed again."""
    path = file_of(folder, table)
    path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes())), 1))


def with_cell(name, value, where=b"51277"):
    """Put a value into the first row of item 51277."""

    def change(content):
        lines = content.split(b"\n")
        place = lines[0].split(b",").index(name)
        row = next(i for i, line in enumerate(lines) if where in line.split(b","))
        cells = lines[row].split(b",")
        cells[place] = value
        lines[row] = b",".join(cells)
        return b"\n".join(lines)

    return change


SPOILT = {
    "latin-1": (
        with_cell(b"valueuom", "\xb5g".encode("latin-1")),
        r"has a byte that is no UTF-8 in line \d+: put the release's own file there, or .*iconv -f latin1",
    ),
    "a bound": (
        with_cell(b"valuenum", b">500"),
        r"has '>###' for valuenum in line \d+, .* leave valuenum empty",
    ),
    "no number": (
        with_cell(b"valuenum", b"1_000"),
        r"has '#_###' for valuenum in line \d+, where a number or",
    ),
    "too large": (
        with_cell(b"subject_id", b"9" * 12),
        r"has '#{12}' for subject_id in line \d+, where a whole number below 2\^31 belongs",
    ),
    "pandas": (
        with_cell(b"subject_id", b"10014729.0"),
        r"has '########.#' for subject_id in line \d+, .* made whole numbers fractions",
    ),
    "a column twice": (
        lambda content: content.replace(b",flag,", b",valuenum,", 1),
        r"has a column more than once \(valuenum\): put",
    ),
    "no header": (
        lambda content: content.split(b"\n", 1)[1],
        "has no line of column names, such as labevent_id",
    ),
    "nothing": (lambda content: b"", "is empty: download it again"),
    "text without an end": (
        with_cell(b"valueuom", b'"mg'),
        r"has (a field without an end|\d+ fields where the header has 16)",
    ),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_each_fault_of_labevents_has_its_own_mend(folder, fault):
    change, message = SPOILT[fault]
    rewritten(folder, "labevents", change)
    with pytest.raises(DataError, match=rf"labevents.csv.gz {message}") as refusal:
        mimic.prepare(folder, folder.parent / "out" / "mimic", DEMO, workers=1, progress=False)
    told = str(refusal.value)
    assert "truncated or damaged" not in told
    assert not re.search(r"1\d{7}|>500", told)  # no id, no cell


def test_a_file_that_is_not_what_its_name_says(folder):
    path = file_of(folder, "labevents")
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(content)
    refused(folder, r"labevents.csv.gz is not packed, whatever its name says: name it labevents.csv$")
    path.write_bytes(b"<!DOCTYPE html><html>Log in</html>")
    refused(folder, r"labevents.csv.gz is a web page, .+: download it again, logged in")
    path.rename(path.with_suffix(""))
    refused(folder, r"labevents.csv is a web page, .+: download it again, logged in")
    path.with_suffix("").write_bytes(gzip.compress(content, 1))
    refused(folder, r"labevents.csv is packed, whatever its name says: name it labevents.csv.gz$")
    path.with_suffix("").write_bytes(b"")
    refused(folder, "labevents.csv is empty: download it again")


def test_times_in_iso_8601_stop_and_are_told_from_damage(folder):
    when = re.compile(rb"(,\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d,)")
    rewritten(folder, "labevents", lambda content: when.sub(rb"\1T\2", content))
    refused(folder, r"[\d,]+ of [\d,]+ rows of the labs have no charttime written as .*ISO 8601")


def test_a_filtered_table_may_be_said_to_be_one(folder):
    path = file_of(folder, "labevents")
    write_rows(path, read_rows(path)[:100_000])
    refused(folder, r"if you filtered it, .+ say so: `rows: \{\"labevents\": 100000\}` under scales.<scale>")
    out = folder.parent / "out" / "mimic"
    filtered = dataclasses.replace(DEMO, rows={"labevents": 100000})
    assert mimic.prepare(folder, out, filtered, workers=1, progress=False)["settings"]["rows"]
    refused_rows = dataclasses.replace(DEMO, rows={"labevents": 99999})
    with pytest.raises(
        DataError, match="100,000 rows, by the setting `rows` it has 99,999: mend the file, or"
    ):
        mimic.prepare(folder, out, refused_rows, workers=1, progress=False)
