"""Runs as records: one JSON file a round, written atomically, in a store that is always safe to delete.

The store lies outside DVC's outputs (which DVC deletes before a stage runs) and is keyed by a digest of
everything a run's numbers depend on. So a killed run goes on at its last finished round, and a finished one
is reused by `dvc repro`, by experiments in temporary folders and by a longer list of methods.
"""

import contextlib
import csv
import errno
import fcntl
import glob
import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mindgap.base.errors import MindGapError
from mindgap.base.forms import first_fault
from mindgap.base.settings import Share

FORMAT = 3
PARTIAL = ".partial"
FORGOTTEN_SECONDS = 3600.0
# Keys of an initial model's record that tell how it was made; its runs depend on all the others.
OF_ITS_MAKING = ("format", "run", "rounds", "seconds", "peak_memory", "provenance", "sha256")
# What rounds measured on the test set: the columns are described in docs/extending.md, "An evaluator".
MEASURED_COLUMNS = ("run", "round", "labelled", "evaluator", "subset", "name", "value")
# The learning curves as a table that follows from it, one row a run, round and subset: acquire writes it,
# reports read it.
CURVE_COLUMNS = (
    "scale", "dataset", "regime", "mitigation", "query", "seed", "run", "rounds", "round", "labelled",
    "subset", "balanced_accuracy", "accuracy", "ece", "chance", "ceiling",
)  # fmt: skip


# The table of trials of a search, which train writes; `validation` is empty for a trial that diverged.
SEARCH_COLUMNS = (
    "scale", "dataset", "regime", "method", "rung", "epochs", "learning_rate", "weight_decay", "augmentation",
    "seeds", "validation", "steps", "chosen",
)  # fmt: skip
# Of a record's provenance what has to be one and the same over a table, and what is only told.
MUST_AGREE = ("data", "numerics")
DETAILS = ("commit", "device", "versions")


class RecordError(MindGapError):
    """A record cannot be read, or is not what it should be."""


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON-able value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as CSV with a header, which stands alone where there are none; the same bytes everywhere."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def measured_csv(records: Iterable[Mapping[str, Any]]) -> str:
    """The long table of records: a row for each number that an evaluator gave; no subset is an empty text."""
    rows = (
        {"run": record["run"][:16], "round": record["round"], "labelled": record["labelled"], **row}
        for record in records
        for row in record["metrics"]
    )
    return csv_text(MEASURED_COLUMNS, rows)


def curve_points(record: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The point of each learning curve that a record has, by subset: accuracies and calibration error."""
    points: dict[str, dict[str, float]] = {}
    for row in record["metrics"]:
        if row["subset"] is not None and row["evaluator"] == row["name"] in _Metrics.model_fields:
            points.setdefault(row["subset"], {})[row["name"]] = row["value"]
    return points


def provenance_json(
    records: Iterable[Mapping[str, Any]], data: Mapping[str, Any] | None = None, **tables: str
) -> str:
    """Where the runs of a dataset and regime come from, by the digests of the curves.

    Settings stand once, under their digest. Rounds of a run may have been made at several commits and on
    several devices; their data, code and settings are one, as the run's digest is of them. `data` is what the
    dataset was made with, for rounds that were stored before records said so. `tables`, texts
    by their names (`curves`, `measured`), are vouched for by checksums, and the whole by its own.
    """
    runs: dict[str, dict[str, Any]] = {}
    settings = {}
    for record in records:
        made = record["provenance"]
        asked = made["settings"] if data is None else {"data": data, **made["settings"]}
        run = runs.setdefault(
            record["run"][:16],
            {
                "settings": digest_of(asked)[:16],
                "code": made["code"],
                **{name: made[name] for name in MUST_AGREE},
                **{name: [] for name in DETAILS},
                "seconds": 0.0,
            },
        )
        settings[run["settings"]] = asked
        for name in DETAILS:
            if made[name] not in run[name]:
                run[name].append(made[name])
        run["seconds"] = round(run["seconds"] + sum(record["seconds"].values()), 4)
    told = {"runs": runs, "settings": settings} | {k: text_digest(text) for k, text in tables.items()}
    return json.dumps(seal(told), indent=1, sort_keys=True) + "\n"


def text_digest(text: str) -> str:
    """SHA-256 of a text, whatever ends its lines: git may change that."""
    return hashlib.sha256(text.replace("\r\n", "\n").encode()).hexdigest()


def store_root() -> Path:
    """MINDGAP_STORE, else `.mindgap/store` of the checkout; DVC's temporary workspaces share that one too."""
    return named_store("MINDGAP_STORE", Path(os.environ.get("DVC_ROOT", ".")) / ".mindgap" / "store")


def named_store(variable: str, default: Path) -> Path:
    """The folder that an environment variable names, `default` where it is unset or empty."""
    named = os.environ.get(variable)
    try:
        store = Path(named).expanduser() if named else default
        taken = store.exists() and not store.is_dir()
    except (OSError, RuntimeError, ValueError) as error:
        raise MindGapError(f"{variable} is {named!r}: {error}; name a folder, or unset it") from None
    if taken:
        raise MindGapError(f"{store} is no folder: name one that is in {variable}, or move the file away")
    return store


STORE = "another folder for the store in MINDGAP_STORE"


def write_atomically(path: Path, data: bytes, other: str = STORE) -> None:
    """All of it or nothing, also when the machine stops in between.

    What a killed process leaves beside it ends in `.partial`, which DVC and git are told to ignore. `other`
    is what may be named instead, for the error of a file that cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    with told(path, other):
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{glob.escape(path.name)}.*{PARTIAL}"):
            if time.time() - left.stat().st_mtime > FORGOTTEN_SECONDS:
                left.unlink(missing_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def told(path: Path, other: str = STORE) -> Iterator[None]:
    """Turn errors of the file system at a path into ones that say what to do."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        mend = "free some space there" if full else "make its folder one that can be written"
        mend = "move that folder away" if error.errno == errno.EISDIR else mend
        raise MindGapError(
            f"{path} cannot be written ({error.strerror}): {mend}, or name {other}, and repeat the command. "
            f"Finished rounds are kept"
        ) from error


def seal(value: Mapping[str, Any]) -> dict[str, Any]:
    """The value with a checksum of it; `unseal` verifies it."""
    return {**value, "sha256": digest_of(value)}


def unseal(path: Path) -> dict[str, Any]:
    """What was sealed and written to a file; a RecordError if it is not, or not any more."""
    try:
        sealed = json.loads(path.read_bytes())
        body = {key: value for key, value in sealed.items() if key != "sha256"}
        whole = digest_of(body) == sealed.get("sha256")
    except OSError as error:
        raise unreadable_record(path, error) from error
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise RecordError(f"{path} is half written or not JSON ({error})") from error
    if not whole:
        raise RecordError(f"{path} was changed after it was written (its checksum does not fit)")
    return body


def unreadable_record(path: Path, error: OSError) -> RecordError:
    """The error of a file that cannot be read."""
    missing = isinstance(error, FileNotFoundError)
    return RecordError(f"{path} is missing" if missing else f"{path} cannot be read ({error.strerror})")


def numbers_digest(record: Mapping[str, Any]) -> str:
    """Digest of an initial model's record, the hash of its weights too, without what tells of its making."""
    return digest_of({key: value for key, value in record.items() if key not in OF_ITS_MAKING})


class RunStore:
    """The finished rounds of one run, in order; `check` raises a ValueError for a record of another form."""

    def __init__(
        self,
        run: str,
        rounds: int,
        root: Path | None = None,
        check: Callable[[Mapping[str, Any]], None] | None = None,
    ):
        self.run, self.rounds, self._check = run, rounds, check
        self.folder = (root or store_root()) / run[:16]

    def hold(self) -> IO[str] | None:
        """Take the run's lock, which closing the returned file frees; None while another process has it.

        So nothing is done twice. The kernel frees the lock of a killed process, whose half-written files are
        removed here.
        """
        with told(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / "lock").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        for left in self.folder.glob(f".*{PARTIAL}"):
            left.unlink(missing_ok=True)
        return file

    def read(self) -> list[dict[str, Any]]:
        """Records of rounds 0, 1, ...: all that are finished. A RecordError if one was not so written."""
        records, fault = self.sound()
        if fault:
            raise RecordError(f"{fault[1]}; delete it and run again: the rounds before it are kept")
        return records

    def sound(self) -> tuple[list[dict[str, Any]], tuple[Path, str] | None]:
        """The records before the first round that is missing or damaged; which file is, and how."""
        records: list[dict[str, Any]] = []
        while len(records) < self.rounds and (path := self._path(len(records))).exists():
            try:
                records.append(self._read_one(path, len(records)))
            except RecordError as error:
                return records, (path, str(error))
        return records, None

    @property
    def finished_rounds(self) -> int:
        return len(self.sound()[0])

    def append(self, record: Mapping[str, Any]) -> None:
        record = seal({"format": FORMAT, "run": self.run, "rounds": self.rounds, **record})
        text = json.dumps(record, separators=(",", ":"), allow_nan=False)
        write_atomically(self._path(record["round"]), text.encode())

    def _path(self, round: int) -> Path:
        return self.folder / f"round_{round:03d}.json"

    def _read_one(self, path: Path, round: int) -> dict[str, Any]:
        record = unseal(path)
        found = [record.get(name) for name in ("format", "run", "rounds", "round")]
        if found != [FORMAT, self.run, self.rounds, round]:
            wanted = f"round {round} of {self.rounds} of run {self.run[:16]} in format {FORMAT}"
            raise RecordError(f"{path} is not of {wanted} (it says format, run, rounds and round {found})")
        if self._check:
            try:
                self._check(record)
            except ValueError as error:
                raise RecordError(f"{path} is no record of this run: {error}") from None
        return record


class _Form(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class _Metrics(_Form):
    balanced_accuracy: Share
    accuracy: Share
    ece: Share


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    evaluator: str
    subset: str | None
    name: str
    value: float


class _Measured(_Metrics):
    model_config = ConfigDict(extra="forbid")

    nll: Annotated[float, Field(ge=0)]
    n: Annotated[int, Field(ge=1)]


class _Fit(_Form):
    best_epoch: int
    best_validation: Share
    losses: list[float]
    steps: int


class _Provenance(_Form):
    commit: str
    code: str
    numerics: str
    data: str
    device: str
    versions: dict[str, str]
    settings: dict[str, Any]


class _Lesson(_Form):
    ids: list[Annotated[int, Field(ge=0)]]
    labels: list[Annotated[int, Field(ge=0)]]
    present: list[list[bool]]


class _Record(_Form):
    scale: str
    cell: dict[str, str | int | None]
    labelled: Annotated[int, Field(ge=0)]
    metrics: list[_Row]
    fit: _Fit
    seconds: dict[str, float]
    peak_memory: Annotated[int, Field(gt=0)] | None = None
    provenance: _Provenance
    start_ids: list[int] = []
    acquired_ids: list[int] = []
    validation: dict[str, _Measured] = {}
    state: str = ""
    lesson: _Lesson | None = None


def check_form(record: Mapping[str, Any]) -> None:
    """A ValueError that names what a record lacks, or has of another type or range."""
    try:
        _Record.model_validate(record)
        for point in curve_points(record).values():
            _Metrics.model_validate(point)
    except ValidationError as error:
        raise ValueError(first_fault(error)) from None
