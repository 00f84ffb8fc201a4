"""The ECG of each admission: the earliest usable record in its window, leads in one order, scaled to [-1, 1].

A record is read by its header: leads are taken by name, for MIMIC-IV-ECG stores aVF before aVL. What has the
release's form is read with numpy, many times faster than by wfdb, which reads the rest. A record that is not
usable is counted by reason and listed in ecg_unusable.csv, and the next one in the window is tried.
"""

import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl

from mindgap.data.errors import DataError
from mindgap.data.flow import Flow
from mindgap.data.mimic.raw import Checks
from mindgap.data.render import map_processes
from mindgap.progress import Progress

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
RATE = 500  # per second
SAMPLES = 5000
INVALID = -32768  # format 16's mark of a sample that was not measured; wfdb gives NaN
SCALINGS = ("joint", "lead")

MISSING, SHORT = "file missing", "data of another length than its header says"
UNREADABLE, OTHER_SUBJECT = "header unreadable", "header of another subject"
OTHER_LEADS, OTHER_LENGTH = "other leads", "other rate or length"
NOT_MEASURED, CONSTANT = "samples not measured", "constant"
REASONS = (
    MISSING,
    SHORT,
    UNREADABLE,
    OTHER_SUBJECT,
    OTHER_LEADS,
    OTHER_LENGTH,
    NOT_MEASURED,
    CONSTANT,
)
# More records without their data than this: the download was not finished.
ABSENT = 0.05
UNUSABLE = 0.05
CHUNK = 64  # admissions a task: 0.1 s

_FIRST = re.compile(r"\S+ 12 500(?:\.0+)? 5000(?: .*)?")
_SIGNAL = re.compile(r"([^\s/]+\.dat) 16 200(?:\.0+)?(?:\(0\))?/mV 16 0 -?\d+ -?\d+ 0 (\S+)")
_SUBJECT = re.compile(r"subject_id>?:\s*(\d+)")


class Unusable(Exception):  # noqa: N818 - of a record, no error of the program
    """A record is left out; its message is one of REASONS."""


def read_ecg(stem: Path, subject_id: int | None = None) -> np.ndarray:
    """A record in millivolts (12 x 5000, float32), leads in the order of LEADS; Unusable says why not."""
    try:
        header = stem.with_name(f"{stem.name}.hea").read_text(encoding="utf-8")
    except FileNotFoundError:
        raise Unusable(MISSING) from None
    except UnicodeDecodeError:
        raise Unusable(UNREADABLE) from None
    named = _SUBJECT.search(header)
    if named and subject_id is not None and int(named[1]) != subject_id:
        raise Unusable(OTHER_SUBJECT)
    form = released_form(header)
    names, x_TL = _read_released(stem, *form) if form else read_by_wfdb(stem)
    if sorted(names) != sorted(LEADS):
        raise Unusable(OTHER_LEADS)
    if not np.isfinite(x_TL).all():
        raise Unusable(NOT_MEASURED)
    return np.ascontiguousarray(x_TL[:, [names.index(lead) for lead in LEADS]].T, dtype=np.float32)


def released_form(header: str) -> tuple[str, list[str]] | None:
    """Data file and lead names of a header in the release's form: 12 leads, 500 Hz, 5000 samples, int16,
    200 per mV, one file; None for any other."""
    lines = [line.rstrip() for line in header.splitlines() if line and not line.startswith("#")]
    signals = [_SIGNAL.fullmatch(line) for line in lines[1:]]
    if len(signals) != len(LEADS) or not all(signals) or not _FIRST.fullmatch(lines[0]):
        return None
    files = {signal[1] for signal in signals}
    return (files.pop(), [signal[2] for signal in signals]) if len(files) == 1 else None


def _read_released(stem: Path, file: str, names: list[str]) -> tuple[list[str], np.ndarray]:
    try:
        x_TL = np.fromfile(stem.with_name(file), "<i2")
    except FileNotFoundError:
        raise Unusable(MISSING) from None
    if x_TL.size != SAMPLES * len(LEADS):
        raise Unusable(SHORT)
    if (x_TL == INVALID).any():
        raise Unusable(NOT_MEASURED)
    return names, x_TL.reshape(SAMPLES, len(LEADS)) / 200.0


def read_by_wfdb(stem: Path) -> tuple[list[str], np.ndarray]:
    """Lead names and samples in millivolts (T x L, float64, NaN where not measured) of any record of 10 s."""
    with quiet_wfdb() as wfdb:
        try:
            header = wfdb.rdheader(str(stem))
        except (ValueError, IndexError, KeyError, TypeError):  # what its parser raises for nonsense
            raise Unusable(UNREADABLE) from None
        if header.fs != RATE or header.sig_len != SAMPLES:
            raise Unusable(OTHER_LENGTH)
        if sorted(header.sig_name or ()) != sorted(LEADS) or {unit.lower() for unit in header.units} != {
            "mv"
        }:
            raise Unusable(OTHER_LEADS)
        try:
            return header.sig_name, wfdb.rdrecord(str(stem)).p_signal
        except FileNotFoundError:
            raise Unusable(MISSING) from None
        except (ValueError, IndexError):  # fewer bytes than a reshape needs
            raise Unusable(SHORT) from None


@contextmanager
def quiet_wfdb() -> Iterator[ModuleType]:
    """wfdb, which takes a second to import and uses what pandas 3 deprecates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import wfdb

        yield wfdb


def scaled(x_LT: np.ndarray, samples: int, scaling: str) -> np.ndarray:
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
class Chunk:
    """A worker's task: these rows of the array, and for each the records to try as (subject, study, path)."""

    target: Path
    rows: list[int]
    records: list[list[tuple[int, int, str]]]
    folder: Path
    samples: int
    scaling: str


def read_chunk(chunk: Chunk) -> tuple[list[int], list[tuple[int, str, str]]]:
    """Write the first usable record of each row; their study ids (-1: none), and (study, path, reason) of the
    unusable."""
    array = np.load(chunk.target, mmap_mode="r+")
    taken, unusable = [], []
    for row, records in zip(chunk.rows, chunk.records, strict=True):
        taken.append(-1)
        for subject_id, study_id, path in records:
            try:
                array[row] = scaled(read_ecg(chunk.folder / path, subject_id), chunk.samples, chunk.scaling)
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
    np.lib.format.open_memmap(target, "w+", np.float16, shape).flush()
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


def _chunks(candidates, count: int, target: Path, folder: Path, samples: int, scaling: str) -> list[Chunk]:
    records = [[] for _ in range(count)]
    for admission, *record in candidates.iter_rows():
        records[admission].append(tuple(record))
    spans = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    return [Chunk(target, list(span), [records[i] for i in span], folder, samples, scaling) for span in spans]


def check_absent(unusable: pl.DataFrame, tried: int, folder: Path, checks: Checks) -> None:
    """Stop where more than a stray record lacks its data; other unusable ones are for the suite to judge."""
    absent = unusable.filter(pl.col("reason").is_in([MISSING, SHORT]))
    if len(absent) > ABSENT * tried:
        path, reason = absent.select("path", "reason").row(0)
        raise DataError(
            f"{folder}: {len(absent):,} of {tried:,} records lack data, such as {path} ({reason}): "
            "finish the download"
        )
    checks.share("ecg records", "unusable", len(unusable), tried, UNUSABLE)


def fill_flow(flow: Flow, unusable: pl.DataFrame, unneeded: int) -> None:
    """What became of the records in the windows of admissions that have labs."""
    reasons = Counter(unusable["reason"].to_list())
    flow.step("ecg records", "read", {reason: reasons[reason] for reason in REASONS})
    flow.step("ecg records", "one for each admission", {"a usable record came earlier": unneeded})
