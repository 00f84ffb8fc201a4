"""A raw folder of MIMIC-IV for tests: the real demo's tables, and ECGs that are a fixture of ours.

The demo has no ECGs that its admissions could be joined to by time. So 50 real twelve-lead recordings of
other sources (PhysioNet/CinC 2021: Georgia, PTB-XL, Chapman/Ningbo) are written anew in the form of
MIMIC-IV-ECG and dealt out, in turns, to the demo's admissions, at made-up times in their windows. Which
recording goes with which patient, and so with which outcome, means nothing.
"""

import atexit
import csv
import gzip
import shutil
from datetime import date, datetime, time, timedelta
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

from mindgap.data.mimic.ecg import quiet_wfdb
from mindgap.data.mimic.labs import LABS
from shared_data import shared

FILE_LEADS = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")
TIME = "%Y-%m-%d %H:%M:%S"
WINDOW = timedelta(hours=24)
FIRST_STUDY = 40_000_000
RECORD_COLUMNS = ("subject_id", "study_id", "file_name", "ecg_time", "path")
NO_TIME = (time(0, 0), date(2100, 1, 1))  # of a recording before it is dealt out


def mimic_raw(folder: Path, records: int | None = None) -> Path:
    """Write hosp/ and ecg/ of a raw folder; `records` ends the list of ECGs early.

    Every admission with one of the 50 labs in its window gets a record in its window; every tenth also one
    half a year later, which is in no window.
    """
    shutil.copytree(shared("mimic-iv-demo") / "hosp", folder / "hosp", copy_function=shutil.copyfile)
    rows = [
        write_record(
            folder / "ecg", FIRST_STUDY + 137 * k, subject, when, recordings()[k % len(recordings())]
        )
        for k, (subject, when) in enumerate(_times(folder / "hosp")[:records])
    ]
    write_rows(
        folder / "ecg" / "record_list.csv", [dict(zip(RECORD_COLUMNS, row, strict=True)) for row in rows]
    )
    return folder


def _times(hosp: Path) -> list[tuple[int, datetime]]:
    """Subject and time of every record."""
    times = []
    for k, (subject, admitted) in enumerate(admissions_with_labs(hosp)):
        minutes = k * 577 % 2881 - 1440  # over the whole window, ends included
        times.append((subject, admitted + timedelta(minutes=minutes)))
        if k % 10 == 0:
            times.append((subject, admitted + timedelta(days=180)))
    return times


def admissions_with_labs(hosp: Path) -> list[tuple[int, datetime]]:
    """Subject and time of admissions that have a lab in their window, found the slow and plain way."""
    items = {str(lab.itemid) for lab in LABS}
    drawn: dict[str, list[datetime]] = {}
    for row in read_rows(hosp / "labevents.csv.gz"):
        if row["itemid"] in items and row["valuenum"]:
            drawn.setdefault(row["subject_id"], []).append(datetime.strptime(row["charttime"], TIME))
    found = []
    for row in sorted(read_rows(hosp / "admissions.csv.gz"), key=lambda row: row["hadm_id"]):
        admitted = datetime.strptime(row["admittime"], TIME)
        if any(abs(when - admitted) <= WINDOW for when in drawn.get(row["subject_id"], [])):
            found.append((int(row["subject_id"]), admitted))
    return found


@cache
def recordings() -> tuple[Path, ...]:
    """The 50 recordings in MIMIC-IV-ECG's form: int16, 200 per mV, aVF before aVL. Paths without suffix."""
    folder = Path(mkdtemp(prefix="mimic-ecg-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    stems = sorted(path.with_suffix("") for path in shared("ecg-wfdb").glob("*.hea"))
    return tuple(_rewrite(stem, folder) for stem in stems)


def _rewrite(stem: Path, folder: Path) -> Path:
    with quiet_wfdb() as wfdb:
        source = wfdb.rdrecord(str(stem))
    columns = [source.sig_name.index(lead) for lead in FILE_LEADS]
    write_ecg(folder / stem.name, np.round(source.p_signal[:, columns] * 200).astype(np.int16))
    return folder / stem.name


def write_ecg(stem: Path, x_TL: np.ndarray, leads=FILE_LEADS, rate: int = 500, gain: float = 200.0) -> None:
    """A WFDB record of int16 samples, as MIMIC-IV-ECG's are written."""
    n = len(leads)
    fields = {"fs": rate, "units": ["mV"] * n, "sig_name": list(leads), "fmt": ["16"] * n}
    fields |= {"adc_gain": [gain] * n, "baseline": [0] * n, "comments": ["<subject_id>: 0"]}
    fields |= {"base_time": NO_TIME[0], "base_date": NO_TIME[1], "write_dir": str(stem.parent)}
    with quiet_wfdb() as wfdb:
        wfdb.wrsamp(stem.name, d_signal=x_TL, **fields)


def write_record(ecg: Path, study: int, subject: int, when: datetime, recording: Path) -> tuple:
    """Put a copy of a recording where the release has it; its row of record_list.csv."""
    path = f"files/p{str(subject)[:4]}/p{subject}/s{study}/{study}"
    stem = ecg / path
    stem.parent.mkdir(parents=True)
    shutil.copyfile(recording.with_suffix(".dat"), stem.with_suffix(".dat"))
    header = recording.with_suffix(".hea").read_text().replace(recording.name, str(study))
    header = header.replace(_stamp(datetime.combine(*reversed(NO_TIME))), _stamp(when))
    stem.with_suffix(".hea").write_text(header.replace("<subject_id>: 0", f"<subject_id>: {subject}"))
    return subject, study, study, when.strftime(TIME), path


def _stamp(when: datetime) -> str:
    return when.strftime("%H:%M:%S %d/%m/%Y")


def read_rows(path: Path) -> list[dict]:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: list[dict], columns=None) -> None:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns or list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
