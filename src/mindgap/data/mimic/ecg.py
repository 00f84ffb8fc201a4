"""The ECG of each admission: the earliest usable record in its window, leads in one order, scaled to [-1, 1].

A record is read by its header: leads are taken by name, for MIMIC-IV-ECG stores aVF before aVL. What has the
release's form is read with numpy, many times faster than by wfdb, which reads the rest. The samples must be
those that the header was written for: of each lead it has the first value and a checksum of all. A record
that is not usable is counted by reason and listed in ecg_unusable.csv; the next in the window is tried.
"""

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl

from mindgap.base.progress import Progress
from mindgap.data.errors import DataError
from mindgap.data.flow import Flow
from mindgap.data.mimic.files import OF_MACHINE, open_regular
from mindgap.data.mimic.raw import Checks
from mindgap.data.prepared import new_array
from mindgap.data.workers import map_processes

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
RATE = 500  # per second
SAMPLES = 5000
INVALID = -32768  # format 16's mark of a sample that was not measured; wfdb gives NaN
FORMATS = {"16", "24", "32", "61", "80", "160", "212", "310", "311", "508", "516", "524"}  # that wfdb reads
SCALINGS = ("joint", "lead")

MISSING, NOT_READ = "file missing", "file cannot be read"
SHORT, ALTERED = "data of another length than its header says", "data other than its header's checksums"
UNREADABLE, OTHER_SUBJECT = "header unreadable", "header of another subject or record"
UNVERIFIED = "header without first value or checksum"
OTHER_FORM = "several segments, unequal leads or an unknown format"
OTHER_LEADS, OTHER_LENGTH = "other leads", "other rate or length"
NOT_MEASURED, CONSTANT = "samples not measured", "constant"
AS_THEY_ARE = "put the files of MIMIC-IV-ECG 1.0 there as they are"
# What to do about the files where too many records have such a reason; the rest is found in sound files too.
MENDS = {
    MISSING: "finish the download",
    NOT_READ: "give yourself the right to read them, or look at the disk or share they lie on",
    SHORT: "download them again",
    ALTERED: "download them again",
    **dict.fromkeys(
        (UNREADABLE, OTHER_SUBJECT, UNVERIFIED, OTHER_FORM, OTHER_LEADS, OTHER_LENGTH),
        AS_THEY_ARE,
    ),
}
REASONS = (*MENDS, NOT_MEASURED, CONSTANT)
FAULTY = 0.05  # more records than this with a reason in MENDS: the download is not whole
UNUSABLE = 0.05
CHUNK = 64  # admissions a task: 0.1 s
NAMED = 5  # lines of record_list in a message

_FIRST = re.compile(r"\S+ 12 500(?:\.0+)? 5000(?: .*)?")
_SIGNAL = re.compile(r"([^\s/]+\.dat) 16 200(?:\.0+)?(?:\(0\))?/mV 16 0 (-?\d{1,5}) (-?\d{1,5}) 0 (\S+)")
_SUBJECT = re.compile(r"subject_id>?:\s*(\d+)")


class Unusable(Exception):  # noqa: N818 - of a record, no error of the program
    """A record is left out; its message is one of REASONS."""


@dataclass(frozen=True)
class HeaderForm:
    """A header in the release's form: its data file, and of each lead name, first value and checksum."""

    file: str
    names: list[str]
    first_L: list[int]
    checksum_L: list[int]


def read_ecg(stem: Path, subject_id: int | None = None) -> np.ndarray:
    """A record in millivolts (12 x 5000, float32), leads in the order of LEADS; Unusable says why not."""
    try:
        header = _read(stem.with_name(f"{stem.name}.hea")).decode()
    except UnicodeDecodeError:
        raise Unusable(UNREADABLE) from None
    named = _SUBJECT.search(header)
    if named and subject_id is not None and int(named[1]) != subject_id:
        raise Unusable(OTHER_SUBJECT)
    form = released_form(header)
    names, x_TL = _read_released(stem, form) if form else read_by_wfdb(stem)
    if sorted(names) != sorted(LEADS):
        raise Unusable(OTHER_LEADS)
    if not np.isfinite(x_TL).all():
        raise Unusable(NOT_MEASURED)
    return np.ascontiguousarray(x_TL[:, [names.index(lead) for lead in LEADS]].T, dtype=np.float32)


def _read(path: Path, size: int | None = None) -> bytes:
    """A whole file, of `size` bytes; Unusable where it is not there, unreadable or of another size."""
    with _unusable_files(), open_regular(path) as file:
        if size is not None and os.fstat(file.fileno()).st_size != size:
            raise Unusable(SHORT)
        content = file.read()
    if size is not None and len(content) != size:
        raise Unusable(SHORT)
    return content


@contextmanager
def _unusable_files() -> Iterator[None]:
    """The system's word about a file makes its record unusable; what the machine lacks is no file's fault."""
    try:
        yield
    except FileNotFoundError:
        raise Unusable(MISSING) from None
    except OSError as error:
        if error.errno in OF_MACHINE:
            raise
        raise Unusable(NOT_READ) from None


def released_form(header: str) -> HeaderForm | None:
    """Form of a header in the release's form: 12 leads, 500 Hz, 5000 samples, int16, 200 per mV, one file,
    first values and checksums; None for any other."""
    lines = [line.rstrip() for line in header.splitlines() if line and not line.startswith("#")]
    signals = [_SIGNAL.fullmatch(line) for line in lines[1:]]
    if len(signals) != len(LEADS) or not all(signals) or not _FIRST.fullmatch(lines[0]):
        return None
    files, first_L, checksum_L, names = zip(*(signal.groups() for signal in signals), strict=True)
    if len(set(files)) > 1:
        return None
    return HeaderForm(files[0], list(names), list(map(int, first_L)), list(map(int, checksum_L)))


def _read_released(stem: Path, form: HeaderForm) -> tuple[list[str], np.ndarray]:
    data = stem.with_name(form.file)
    if data.stem != stem.name and not os.path.lexists(data):
        raise Unusable(OTHER_SUBJECT)
    content = _read(data, size=2 * SAMPLES * len(LEADS))
    x_TL = np.frombuffer(content, "<i2").reshape(SAMPLES, len(LEADS))
    verify(x_TL, form.first_L, form.checksum_L)
    if (x_TL == INVALID).any():
        raise Unusable(NOT_MEASURED)
    return form.names, x_TL / 200.0


def verify(x_TL: np.ndarray, first_L: Sequence[int | None], checksum_L: Sequence[int | None]) -> None:
    """Whether these are the samples that a header was written for: a lead's checksum is the sum of its
    samples in 16 bits, signed or not (WFDB, header(5)). It may be left out; a record without is not used."""
    if None in first_L or None in checksum_L:
        raise Unusable(UNVERIFIED)
    off_L = (x_TL.sum(axis=0, dtype=np.int64) - np.array(checksum_L)) % 2**16
    if off_L.any() or (x_TL[0] != np.array(first_L)).any():
        raise Unusable(ALTERED)


def read_by_wfdb(stem: Path) -> tuple[list[str], np.ndarray]:
    """Lead names and samples in millivolts (T x L, float64, NaN where not measured) of any record of 10 s."""
    with quiet_wfdb() as wfdb, _unusable_files():
        try:
            header = wfdb.rdheader(str(stem))
        except OSError:
            raise
        except Exception:  # its parser raises a dozen kinds for nonsense
            raise Unusable(UNREADABLE) from None
        _check_header(header, is_record=isinstance(header, wfdb.Record))
        for name in set(header.file_name):
            open_regular(stem.with_name(name)).close()
        try:
            record = wfdb.rdrecord(str(stem), physical=False)
            x_TL = record.dac()
        except OSError:
            raise
        except Exception:  # fewer bytes than a reshape needs
            raise Unusable(SHORT) from None
        verify(record.d_signal, header.init_value, header.checksum)
        return header.sig_name, x_TL


def _check_header(header: Any, is_record: bool) -> None:
    """Unusable unless it is a header of twelve leads of 10 s in one segment, beside its data."""
    if header.fs != RATE or header.sig_len != SAMPLES:
        raise Unusable(OTHER_LENGTH)
    if not is_record or any(header.skew or ()) or {*(header.samps_per_frame or ())} != {1}:
        raise Unusable(OTHER_FORM)
    scales = set(zip(header.adc_gain, header.baseline, strict=True))
    if not FORMATS.issuperset(header.fmt) or len(scales) > 1:
        raise Unusable(OTHER_FORM)
    units = {str(unit).lower() for unit in header.units}
    if sorted(map(str, header.sig_name)) != sorted(LEADS) or units != {"mv"}:
        raise Unusable(OTHER_LEADS)
    if any(Path(name).name != name for name in header.file_name):
        raise Unusable(UNREADABLE)


@contextmanager
def quiet_wfdb() -> Iterator[ModuleType]:
    """wfdb, which takes a second to import and uses what pandas 3 deprecates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import wfdb

        yield wfdb


def scaled_ecg(x_LT: np.ndarray, samples: int, scaling: str) -> np.ndarray:
    """Blocks averaged to `samples`, then [-1, 1] over the whole recording (joint) or over each lead."""
    x_LT = x_LT.reshape(len(x_LT), samples, -1).mean(axis=2)
    axis = None if scaling == "joint" else 1
    low, high = x_LT.min(axis=axis, keepdims=True), x_LT.max(axis=axis, keepdims=True)
    if (low == high).any():
        raise Unusable(CONSTANT)
    return (2 * (x_LT - low) / (high - low) - 1).astype(np.float16)


def find_candidates(records: pl.DataFrame, admissions: pl.DataFrame, hours: int) -> pl.DataFrame:
    """Records in the window of an admission, by admission and time: admission, subject_id, study_id, path."""
    windows = admissions.select("subject_id", "admittime").with_row_index("admission")
    found = windows.join(records, on="subject_id").filter(
        (pl.col("ecg_time") - pl.col("admittime")).abs() <= pl.duration(hours=hours)
    )
    found = found.sort("admission", "ecg_time", "study_id")
    return found.select("admission", "subject_id", "study_id", "path")


@dataclass(frozen=True)
class EcgChunk:
    """A worker's task: these rows of the array, and for each the records to try as (subject, study, path)."""

    target: Path
    rows: list[int]
    records: list[list[tuple[int, int, str]]]
    folder: Path
    samples: int
    scaling: str


def read_chunk(chunk: EcgChunk) -> tuple[list[int], list[tuple[int, str, str]]]:
    """Write the first usable record of each row; their study ids (-1: none), and (study, path, reason) of the
    unusable."""
    array = np.load(chunk.target, mmap_mode="r+")
    taken, unusable = [], []
    for row, records in zip(chunk.rows, chunk.records, strict=True):
        taken.append(-1)
        for subject_id, study_id, path in records:
            try:
                array[row] = scaled_ecg(
                    read_ecg(chunk.folder / path, subject_id), chunk.samples, chunk.scaling
                )
            except Unusable as reason:
                unusable.append((study_id, path, str(reason)))
            else:
                taken[-1] = study_id
                break
    return taken, unusable


def write_ecgs(
    candidates: pl.DataFrame,
    count: int,
    folder: Path,
    target: Path,
    *,
    samples: int,
    scaling: str,
    workers: int,
    progress: bool,
) -> tuple[np.ndarray, pl.DataFrame]:
    """Write a `count` x 12 x `samples` array of first usable records; their study ids (-1: none; zeros), and
    the records that were tried and not usable."""
    shape = (count, len(LEADS), samples)
    new_array(target, np.float16, shape).flush()
    taken, unusable = [], set()
    with Progress("mimic: ECG", count, unit="admissions") if progress else nullcontext() as bar:
        tasks = _chunks(candidates, count, target, folder, samples, scaling)
        for studies, faults in map_processes(read_chunk, tasks, workers):
            taken += studies
            unusable |= set(faults)
            if bar:
                bar.advance(len(studies))
    columns = {"study_id": pl.Int32, "path": pl.String, "reason": pl.String}
    return np.array(taken), pl.DataFrame(sorted(unusable), columns, orient="row")


def _chunks(candidates, count: int, target: Path, folder: Path, samples: int, scaling: str) -> list[EcgChunk]:
    records = [[] for _ in range(count)]
    for admission, *record in candidates.iter_rows():
        records[admission].append(tuple(record))
    spans = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    return [
        EcgChunk(target, list(span), [records[i] for i in span], folder, samples, scaling) for span in spans
    ]


def check_faulty(
    unusable: pl.DataFrame, records: pl.DataFrame, tried: int, path: Path, checks: Checks
) -> None:
    """Stop where more than stray records have files that are not the release's, or none can be used; what
    else can be the matter with sound ones is for the suite to judge. `path` is of record_list, whose lines
    are named."""
    counts = Counter(unusable["reason"].to_list())
    none_left = len(unusable) == tried
    faulty = {reason: count for reason, count in counts.most_common() if none_left or reason in MENDS}
    total = sum(faulty.values())
    if total > FAULTY * tried:
        most = next(iter(faulty))
        studies = unusable.filter(pl.col("reason") == most)["study_id"].implode()
        lines = records.filter(pl.col("study_id").is_in(studies))["line"].sort()[:NAMED].to_list()
        raise DataError(
            f"{path}: {total:,} of {tried:,} records that were tried cannot be used "
            f"({', '.join(f'{reason} {count:,}' for reason, count in faulty.items())}), such as {most} in "
            f"line{'s' * (len(lines) > 1)} {', '.join(map(str, lines))}: {MENDS.get(most, AS_THEY_ARE)}"
        )
    checks.share("ecg records", "unusable", len(unusable), tried, UNUSABLE)


def fill_flow(flow: Flow, unusable: pl.DataFrame, unneeded: int) -> None:
    """What became of the records in the windows of admissions that have labs."""
    reasons = Counter(unusable["reason"].to_list())
    flow.step("ecg records", "read", {reason: reasons[reason] for reason in REASONS})
    flow.step("ecg records", "one for each admission", {"a usable record came earlier": unneeded})
