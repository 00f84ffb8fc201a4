"""Reading the tables of MIMIC-IV and the record list of MIMIC-IV-ECG: their files, releases, ids and times.

Every table is read whole or refused: a truncated or altered .gz, another number of rows than the release has,
a column that is missing, an id twice. Messages name lines of the unpacked file, never a patient's cell.
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from mindgap.data.errors import DataError, SourceMissing
from mindgap.data.mimic.files import (
    ORIGINAL,
    damage_named,
    fault_of_form,
    fault_of_rows,
    form_of,
    is_file_there,
    open_table,
    unreadable,
)

# Rows of each table. 2.2 and 3.1 are the counts of mimic-code's validation queries, of which "3.0" is known
# only to be named: its labevents were replaced by 3.1's. The demo's were counted.
RELEASES = {
    "2.2": {
        "patients": 299_712,
        "admissions": 431_231,
        "labevents": 118_171_367,
        "d_labitems": 1_622,
        "record_list": 800_035,
    },
    "3.1": {
        "patients": 364_627,
        "admissions": 546_028,
        "labevents": 158_374_764,
        "d_labitems": 1_650,
        "record_list": 800_035,
    },
    "demo": {"patients": 100, "admissions": 275, "labevents": 107_727, "d_labitems": 1_622},
}
REFUSED = {"3.0": {"labevents": 158_478_383}}

TABLES = {
    "patients": "hosp",
    "admissions": "hosp",
    "labevents": "hosp",
    "d_labitems": "hosp",
    "record_list": "ecg",
}
TIME = "%Y-%m-%d %H:%M:%S"
DATE = "%Y-%m-%d"


@dataclass
class Checks:
    """What was found in the raw tables, and how much of it may be: raw_checks.csv, whose suite compares."""

    rows: list[dict] = field(default_factory=list)

    def add(self, table: str, check: str, found: float, allowed: float) -> None:
        self.rows.append({"table": table, "check": check, "found": float(found), "allowed": float(allowed)})

    def share(self, table: str, check: str, wrong: int, count: int, allowed: float) -> None:
        self.add(table, f"{check} (share)", wrong / max(count, 1), allowed)


def find_files(raw: Path) -> dict[str, Path]:
    """The file of every table, packed or not; each can be opened."""
    files, absent = {}, []
    for table, folder in TABLES.items():
        places = [raw / folder / f"{table}.csv.gz", raw / folder / f"{table}.csv"]
        found = [path for path in places if is_file_there(path)]
        if found:
            files[table] = found[0]
        else:
            absent.append(f"{folder}/{table}.csv.gz")
    recordings = raw / "ecg" / "files"
    try:
        next(recordings.iterdir(), None)
    except OSError as error:
        if recordings.is_symlink() or not isinstance(error, FileNotFoundError):
            raise unreadable(recordings, error) from None
        absent.append("ecg/files/")
    if absent:
        raise SourceMissing(
            f"{raw} lacks {', '.join(absent)}: put or link MIMIC-IV's hosp folder to {raw / 'hosp'} and "
            f"MIMIC-IV-ECG 1.0 to {raw / 'ecg'}, both from physionet.org; MIMIC-IV 2.2 or 3.1 asks for "
            "credentialed access (training and a signed data use agreement), MIMIC-IV-ECG and the MIMIC-IV "
            "demo are open (ODbL)."
        )
    return files


def read_header(path: Path) -> list[str]:
    """The column names of a table."""
    with damage_named(path), open_table(path) as file:
        line = file.readline().decode("utf-8-sig")
        names = next(csv.reader([line]), [])
    if not names:
        raise DataError(f"{path} is empty: download it again")
    return names


def check_columns(path: Path, found: Sequence[str], needed: Iterable[str]) -> None:
    """Whether each column is there, once. The first line is not told: it may be a patient's row."""
    needed = list(needed)
    missing = [name for name in needed if name not in found]
    if len(missing) == len(needed):
        no_names = f"has no line of column names, such as {', '.join(needed[:3])}: {ORIGINAL}"
        raise DataError(f"{path} {fault_of_form(path) or no_names}")
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(missing)} among its {len(found)} columns: {ORIGINAL}"
        )
    repeated = {name for name, count in Counter(found).items() if count > 1}
    if repeated:
        names = ", ".join(name for name in needed if name in repeated) or "one that is not used"
        raise DataError(f"{path} has a column more than once ({names}): {ORIGINAL}")


def setting_line(**value: Any) -> str:
    """Where to write a setting, and what: JSON is YAML too."""
    (name, content), *_ = value.items()
    return f"`{name}: {json.dumps(content)}` under scales.<scale>.prepare.mimic in params.yaml"


def check_row_count(
    path: Path, table: str, rows: int, release: str, counts: Mapping[str, int] | None = None
) -> None:
    """Whether a table has the rows of its release, or of `counts`; `demo` has no ECG list of its own."""
    expected = (counts or {}).get(table, RELEASES[release].get(table, rows))
    if rows == expected:
        return
    known = {**RELEASES, **REFUSED}
    others = [name for name, of_release in known.items() if of_release.get(table) == rows]
    if table in (counts or {}):
        hint = f"mend the file, or {setting_line(rows={table: rows})}"
    elif not others:
        hint = (
            "it is incomplete (download it again) or of another release; if you filtered it, or the release "
            f"is newer, say so: {setting_line(rows={table: rows})}"
        )
    elif others[0] in REFUSED:
        hint = f"it is of release {others[0]}, which 3.1 replaced: download 3.1"
    else:
        hint = f"it is of release {' or '.join(others)}: set mimic's release, or exchange the files"
    asked = "by the setting `rows`" if table in (counts or {}) else f"in release {release}"
    raise DataError(f"{path} has {rows:,} rows, {asked} it has {expected:,}: {hint}")


def read_raw(path: Path, kinds: Mapping[str, Any], optional: Sequence[str] = ()) -> pl.DataFrame:
    """These columns of a small table, and `line`. A kind is a dtype or, for times, their format.

    What cannot be read, or is empty without being `optional`, raises DataError with its line.
    """
    check_columns(path, read_header(path), kinds)
    with damage_named(path, kinds), open_table(path) as file:
        text = pl.read_csv(file.read(), infer_schema=False).select(list(kinds))
        if short := fault_of_rows(path, {}):  # which polars fills up with nulls
            raise DataError(f"{path} {short}")
    frame = text.select(_parsed(name, kind) for name, kind in kinds.items())
    lined = frame.with_row_index("line", 2)
    for name, kind in kinds.items():
        wrong = frame[name].is_null() & (True if name not in optional else text[name].is_not_null())
        refuse_first(path, lined.filter(wrong), text[name].filter(wrong), name, kind)
    return lined


def _parsed(name: str, kind: Any) -> pl.Expr:
    if isinstance(kind, str):
        to = pl.Date if kind == DATE else pl.Datetime("us")
        return pl.col(name).str.strptime(to, kind, strict=False)
    return pl.col(name).cast(kind, strict=False)


WRITTEN = {TIME: "YYYY-MM-DD HH:MM:SS", DATE: "YYYY-MM-DD", pl.Int32: "a whole number", pl.String: "text"}


def refuse_first(path: Path, wrong: pl.DataFrame, values: pl.Series, name: str, kind: Any) -> None:
    """Stop at the first of these rows, if there is one; `kind` is what its value should be."""
    if not len(wrong):
        return
    cell, wanted = values[0], WRITTEN.get(kind, kind)
    mend = f"mend the rows, or {ORIGINAL}"
    if kind in (TIME, DATE) and re.match(r"\d{4}-\d\d-\d\dT", cell or ""):
        mend = f"it is in ISO 8601, the release has a space for the T: write the column so, or {ORIGINAL}"
    found = form_of(None if cell is None else str(cell))
    line, count = wrong["line"][0], f"{len(wrong):,} in all"
    raise DataError(f"{path}, line {line}: {name} is {found}, not {wanted} ({count}): {mend}")


def refuse_repeated(path: Path, frame: pl.DataFrame, name: str) -> None:
    repeated = frame.filter(pl.col(name).is_first_distinct().not_())
    refuse_first(path, repeated, repeated[name], name, "one of its own: a row before has the same")


def read_patients(path: Path, release: str, rows: Mapping[str, int] | None = None) -> pl.DataFrame:
    """subject_id and dod (null: alive a year after the last discharge, as far as hospital and state know)."""
    kinds = {"subject_id": pl.Int32, "gender": pl.String, "anchor_age": pl.Int32, "dod": DATE}
    patients = read_raw(path, kinds, optional=("dod",))
    check_row_count(path, "patients", len(patients), release, rows)
    refuse_repeated(path, patients, "subject_id")
    strange = patients.filter(~pl.col("gender").is_in(["F", "M"]))
    refuse_first(path, strange, strange["gender"], "gender", "F or M")
    strange = patients.filter(~pl.col("anchor_age").is_between(18, 91))
    refuse_first(path, strange, strange["anchor_age"], "anchor_age", "18 to 91")
    return patients.select("subject_id", "dod")


def read_admissions(
    path: Path, release: str, patients: pl.DataFrame, rows: Mapping[str, int] | None = None
) -> pl.DataFrame:
    """Every admission with its patient's dod; each hadm_id once, each subject_id known."""
    kinds = {"subject_id": pl.Int32, "hadm_id": pl.Int32, "admittime": TIME, "dischtime": TIME}
    kinds |= {"deathtime": TIME, "hospital_expire_flag": pl.Int32}
    admissions = read_raw(path, kinds, optional=("deathtime",))
    check_row_count(path, "admissions", len(admissions), release, rows)
    refuse_repeated(path, admissions, "hadm_id")
    unknown = admissions.join(patients, on="subject_id", how="anti").sort("line")
    refuse_first(path, unknown, unknown["subject_id"], "subject_id", "one of the table patients")
    return admissions.join(patients, on="subject_id", how="left", maintain_order="left")


def read_records(path: Path, release: str, rows: Mapping[str, int] | None = None) -> pl.DataFrame:
    """line, subject_id, study_id, ecg_time, path of every ECG; the path is the one that the ids demand."""
    kinds = {"subject_id": pl.Int32, "study_id": pl.Int32, "ecg_time": TIME, "path": pl.String}
    records = read_raw(path, kinds)
    check_row_count(path, "record_list", len(records), release, rows)
    refuse_repeated(path, records, "study_id")
    subject, study = pl.col("subject_id").cast(pl.String), pl.col("study_id").cast(pl.String)
    demanded = pl.format("files/p{}/p{}/s{}/{}", subject.str.slice(0, 4), subject, study, study)
    other = records.filter(pl.col("path") != demanded)
    refuse_first(path, other, other["path"], "path", "the one that subject_id and study_id give")
    return records


def check_items(path: Path, release: str, labs: Sequence, rows: Mapping[str, int] | None = None) -> None:
    """Whether each of the labs has its label, fluid and category in d_labitems; no patient is there."""
    kinds = {"itemid": pl.Int32, "label": pl.String, "fluid": pl.String, "category": pl.String}
    items = read_raw(path, kinds, optional=("label", "fluid", "category"))
    check_row_count(path, "d_labitems", len(items), release, rows)
    refuse_repeated(path, items, "itemid")
    for lab in labs:
        found = items.filter(pl.col("itemid") == lab.itemid)
        if not len(found):
            other = setting_line(lab_items={lab.label: {"itemid": "THE OTHER ITEM"}})
            raise DataError(
                f"{path} has no item {lab.itemid} ({lab.label}): {ORIGINAL}, or if this release has another "
                f"item for it, write its number in {other}"
            )
        described = {name: found[name][0] for name in ("label", "fluid", "category")}
        pinned = {"label": lab.listed_as, "fluid": lab.fluid, "category": lab.category}
        other = {name: described[name] or "" for name in pinned if (described[name] or "") != pinned[name]}
        if other:
            name, line = next(iter(other)), found["line"][0]
            raise DataError(
                f"{path}, line {line}: {name} of item {lab.itemid} is {described[name]!r}, not "
                f"{pinned[name]!r}: in this release the item may be another measurement; if it is the same "
                f"in other words, write {setting_line(lab_items={lab.label: other})}"
            )
