"""Runs as records: one JSON file a round, written atomically, in a store that is always safe to delete.

The store lies outside DVC's outputs (which DVC deletes before a stage runs) and is keyed by a digest of
everything a run's numbers depend on. So a killed run goes on at its last finished round, and a finished one
is reused by `dvc repro`, by experiments in temporary folders and by a longer list of methods.
"""

import csv
import fcntl
import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from mindgap.errors import MindGapError

FORMAT = 1
# The learning curves of runs as a table, one row a run, round and subset: acquire writes it, reports read it.
CURVE_COLUMNS = (
    "scale", "dataset", "regime", "mitigation", "query", "seed", "run", "rounds", "round", "labelled",
    "subset", "balanced_accuracy", "accuracy", "ece", "chance", "ceiling",
)  # fmt: skip


# The trials of a search for a recipe: train writes it; an empty `validation` is one that diverged.
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


def provenance_json(records: Iterable[Mapping[str, Any]]) -> str:
    """Where the runs of a dataset and regime come from, by the digests of the curves.

    Settings stand once, under their digest. Rounds of a run may have been made at several commits and on
    several devices; their data, code and settings are one, as the run's digest is of them.
    """
    runs: dict[str, dict] = {}
    settings = {}
    for record in records:
        made = record["provenance"]
        run = runs.setdefault(
            record["run"][:16],
            {
                "settings": digest_of(made["settings"])[:16],
                "code": made["code"],
                **{name: made[name] for name in MUST_AGREE},
                **{name: [] for name in DETAILS},
                "seconds": 0.0,
            },
        )
        settings[run["settings"]] = made["settings"]
        for name in DETAILS:
            if made[name] not in run[name]:
                run[name].append(made[name])
        run["seconds"] = round(run["seconds"] + sum(record["seconds"].values()), 4)
    return json.dumps({"runs": runs, "settings": settings}, indent=1, sort_keys=True) + "\n"


def store_root() -> Path:
    """MINDGAP_STORE, else `.mindgap/store` of the checkout; DVC's temporary workspaces share that one too."""
    default = Path(os.environ.get("DVC_ROOT", ".")) / ".mindgap" / "store"
    return Path(os.environ.get("MINDGAP_STORE", default))


def write_atomically(path: Path, data: bytes) -> None:
    """All of it or nothing, also when the machine stops in between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


class RunStore:
    """The finished rounds of one run, in order."""

    def __init__(self, run: str, rounds: int, root: Path | None = None):
        self.run, self.rounds = run, rounds
        self.folder = (root or store_root()) / run[:16]

    def hold(self) -> IO | None:
        """The run's lock, until what comes back is closed; None while another process has it.

        So nothing is done twice. The kernel frees the lock of a killed process.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        file = (self.folder / "lock").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        return file

    def read(self) -> list[dict]:
        """Records of rounds 0, 1, ...: all that are finished."""
        records = []
        while (path := self._path(len(records))).exists():
            records.append(self._read_one(path, len(records)))
        return records

    def append(self, record: Mapping[str, Any]) -> None:
        record = {"format": FORMAT, "run": self.run, "rounds": self.rounds, **record}
        record["sha256"] = digest_of(record)
        text = json.dumps(record, separators=(",", ":"), allow_nan=False)
        write_atomically(self._path(record["round"]), text.encode())

    @property
    def finished_rounds(self) -> int:
        return next(r for r in range(self.rounds + 1) if r == self.rounds or not self._path(r).exists())

    def _path(self, round: int) -> Path:
        return self.folder / f"round_{round:03d}.json"

    def _read_one(self, path: Path, round: int) -> dict:
        mend = "delete it and run again: the rounds before it are kept"
        try:
            record = json.loads(path.read_text())
        except ValueError as error:
            raise RecordError(f"{path} is half written or not JSON ({error}); {mend}") from error
        body = {key: value for key, value in record.items() if key != "sha256"}
        if digest_of(body) != record.get("sha256"):
            raise RecordError(f"{path} was changed after it was written (its checksum does not fit); {mend}")
        if (record["run"], record["round"]) != (self.run, round):
            raise RecordError(
                f"{path} belongs to round {record['round']} of run {record['run'][:16]}; {mend}"
            )
        return record
