"""One run to execute, and what a worker makes of it: a stream of messages that its driver stores.

A worker writes nothing, so it may be a thread of control here, a process beside this one or a task on a node
that shares no folder with it.
"""

import contextlib
import functools
import gc
import hashlib
import json
import resource
import sys
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor

from mindgap.base.at_work import out_of_memory
from mindgap.base.errors import DivergenceError, MindGapError
from mindgap.base.gpu import Engine, reproducible
from mindgap.core.loop import Run, Turn, initial_in_turns, packed, rounds_in_turns
from mindgap.core.records import (
    RecordError,
    RunStore,
    check_form,
    curve_points,
    seal,
    unreadable_record,
    unseal,
    write_atomically,
)
from mindgap.data.dataset import Dataset, load_dataset
from mindgap.data.storage import file_sha256

# What a worker says of a run, a kind and a value: first `began` with the place where it runs, then outputs
# (a `record` for each round, or that an initial model `diverged`) and what was `said` on the way,
# last `done`, or `failed` or `memory` (of the GPU) with the reason. A worker that dies says nothing: its
# executor says `lost` for it.
Message = tuple[str, Any]
OUTPUTS = ("record", "diverged")
LAST = ("done", "failed", "memory", "lost")


@dataclass(frozen=True)
class Job:
    """One run to execute: an initial model, or a cell that starts from one.

    A trial is an initial model of which it is a result, too, that its training diverges. With `keep_model`
    the weights of the last round belong to what a cell gives: its digest does not depend on that.
    """

    run: Run
    data: Path
    store: Path
    initial: Path | None = None
    trial: bool = False
    keep_model: bool = False

    def __str__(self) -> str:
        return str(self.run.cell)

    @property
    def rounds(self) -> int:
        return self.run.setting.budget.rounds if self.initial else 1

    @property
    def record_store(self) -> RunStore:
        return RunStore(self.run.digest, self.rounds, self.store, self._check)

    @property
    def weights(self) -> Path:
        """Where the weights of an initial model, or of a cell's last round, lie in the store."""
        return self.record_store.folder / "weights.safetensors"

    @property
    def diverged(self) -> Path:
        """Where it is written down that a trial diverged, and how."""
        return self.record_store.folder / "diverged.txt"

    @property
    def has_diverged(self) -> bool:
        """Whether that is what this trial came to; raises a RecordError if it was not written like that."""
        if not self.trial or not self.diverged.exists():
            return False
        if unseal(self.diverged).get("run") != self.run.digest:
            raise RecordError(f"{self.diverged} is of another run")
        return True

    def sound(self) -> tuple[list[dict], tuple[Path, str] | None]:
        """The records that this job goes on from, and what is damaged in the store, if something is."""
        try:
            if self.has_diverged:
                return [], None
            return self._with_weights(*self._without_repeats(*self.record_store.sound()))
        except RecordError as error:
            return [], (self.diverged, str(error))

    def _without_repeats(
        self, records: list[dict], fault: tuple[Path, str] | None
    ) -> tuple[list[dict], tuple[Path, str] | None]:
        """The records before the first that acquires what was labelled before it."""
        labelled: set[int] = set(records[0].get("start_ids", [])) if records else set()
        for round, record in enumerate(records):
            path, ids = self.record_store.folder / f"round_{round:03d}.json", record.get("acquired_ids", [])
            if not labelled.isdisjoint(ids):
                return records[:round], (path, f"{path} acquires ids that were labelled before")
            labelled.update(ids)
        return records, fault

    def _with_weights(
        self, records: list[dict], fault: tuple[Path, str] | None
    ) -> tuple[list[dict], tuple[Path, str] | None]:
        """The records but the last, if its weights are asked for and not there: it is trained again."""
        if not self.keep_model or len(records) < self.rounds:
            return records, fault
        found = _hash_of(self.weights)
        if found == records[-1].get("weights", ""):
            return records, fault
        damaged = found is not None and "weights" in records[-1]
        return records[:-1], (self.weights, f"{self.weights} is not what was written") if damaged else fault

    @property
    def finished_rounds(self) -> int:
        return self.rounds_of(*self.sound())

    def rounds_of(self, records: Sequence[Mapping[str, Any]], fault: tuple[Path, str] | None) -> int:
        """How many rounds are finished, by what `sound` told."""
        return self.rounds if not fault and self.has_diverged else len(records)

    def result(self) -> list[dict]:
        """All records, none of a trial that diverged; a RecordError where the store lost some meanwhile."""
        records, fault = self.sound()
        if self.rounds_of(records, fault) < self.rounds:
            why = fault[1] if fault else f"{self.record_store.folder} has not more"
            raise RecordError(
                f"{self}: the store lost {self.rounds - len(records)} of {self.rounds} rounds while the "
                f"stage went on ({why}). Nothing was written; repeat the command: it computes them again"
            )
        return records

    def model(self) -> "StoredModel":
        """The initial model that this job made, or the kept one of its last round, verified."""
        return StoredModel.of(self.result()[-1], self.weights)

    def _check(self, record: Mapping[str, Any]) -> None:
        """A ValueError for a record that this run cannot have given."""
        check_form(record)
        if record["cell"] != asdict(self.run.cell):
            raise ValueError(f"its cell is {record['cell']}")
        points = curve_points(record)
        if self.run.subsets and set(points) != set(self.run.subsets):
            raise ValueError(f"its metrics are of {', '.join(points)}, not of {', '.join(self.run.subsets)}")
        if self.initial is None and _hash_of(self.weights) != record.get("weights"):
            raise ValueError(f"{self.weights.name} is not what was written with it")
        if self.initial is not None:
            picks, last = record.get("acquired_ids", [-1]), record["round"] == self.rounds - 1
            count = 0 if last else self.run.setting.budget.acquisition
            if len(set(picks)) != len(picks) or len(picks) != count or min(picks, default=0) < 0:
                raise ValueError(f"acquired_ids are not {count} ids")
            if self.run.learns and not {"state", "validation"} <= record.keys():
                raise ValueError("it has not what its policy goes on with, state and validation")
            if self.run.teaches and not last and "lesson" not in record:
                raise ValueError("it has not what its next training goes on with, lesson")
        if "state" in record and _hash_of(path := self.state(record["round"])) != record["state"]:
            raise ValueError(f"{path.name} is not what was written with it")

    def state(self, round: int) -> Path:
        """Where the arrays lie that a policy left in a round."""
        return self.record_store.folder / f"round_{round:03d}.safetensors"

    def resumed(self, records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The records as a run goes on from them: the last with a policy's arrays instead of their hash."""
        if not records or "state" not in records[-1]:
            return list(records)
        return [*records[:-1], {**records[-1], "state": self.state(records[-1]["round"]).read_bytes()}]

    def keep(self, kind: str, value: Any) -> None:
        """Store an output. A record comes last: once it is there, the round is finished."""
        if kind == "record":
            for name, path in {"state": self.state(value["round"]), "weights": self.weights}.items():
                if name in value:
                    write_atomically(path, value[name])
                    # The record vouches for them, and its own checksum for both.
                    value = {**value, name: hashlib.sha256(value[name]).hexdigest()}
            self.record_store.append(value)
        else:
            write_atomically(self.diverged, value)


@dataclass(frozen=True)
class Task:
    """A job as a worker gets it: with its finished records, its passes so many times smaller, on a device."""

    job: Job
    finished: Sequence[Mapping[str, Any]]
    divisor: int
    device: str


@dataclass(frozen=True)
class StoredModel:
    """A model with its record: the initial one that a cell starts from, or the kept one of a last round.

    `weights` are the bytes of their file.
    """

    record: dict[str, Any]
    weights: bytes

    @classmethod
    def read(cls, initial: Path) -> "StoredModel":
        """The model in two files, both verified; a RecordError if they are not what was written."""
        return cls.of(unseal(initial.with_suffix(".json")), initial.with_suffix(".safetensors"))

    @classmethod
    def of(cls, record: dict[str, Any], path: Path) -> "StoredModel":
        """A record with the weights that it vouches for."""
        try:
            weights = path.read_bytes()
        except OSError as error:
            raise unreadable_record(path, error) from error
        if hashlib.sha256(weights).hexdigest() != record.get("weights"):
            raise RecordError(f"{path} is not what was written with its record")
        return cls(record, weights)

    def parsed(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return self.record, load(self.weights)


def messages(
    task: Task, where: str, dataset: Callable[[], Dataset], start: Callable[[Path], StoredModel]
) -> Iterator[Message]:
    """`messages_in_turns` of a run that is alone in its process."""
    turns = messages_in_turns(task, where, dataset, start, Engine.of(task.device, task.divisor))
    return (weighed(message, task.device, 1) for message in turns if message is not None)


def weighed(message: Message, device: str, runs: int) -> Message:
    """A record with the bytes that this process has held at most, for each of so many runs at once."""
    if message[0] == "record":
        message[1]["peak_memory"] = peak_memory(device) // runs
    return message


def peak_memory(device: str) -> int:
    """The most bytes that this process has held: of a GPU's memory, or of the machine's."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_reserved(device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def messages_in_turns(
    task: Task,
    where: str,
    dataset: Callable[[], Dataset],
    start: Callable[[Path], StoredModel],
    engine: Engine,
) -> Iterator[Message | None]:
    """Execute a task; errors are messages too. `where` names this worker to people.

    None where a run beside this one may have its turn.
    """
    yield "began", where
    try:
        yield from outputs(task, dataset(), start, engine)
    except Exception as error:
        last = (
            ("memory", str(error).splitlines()[0]) if out_of_memory(error) else ("failed", error_text(error))
        )
    else:
        last = ("done", None)
    # After the error is gone: its traceback keeps the model and its activations.
    if last[0] == "memory":
        engine.kept.clear()
    free_memory()
    yield last


class Rota:
    """The runs of a process, a step of each in turn: none depends on who runs beside it, or fails with it."""

    def __init__(
        self, device: str, where: str, load: Callable[[Path], Dataset], start: Callable[[Path], StoredModel]
    ):
        self._device, self._where, self._load, self._start = device, where, load, start
        self._idle: list[Engine] = []
        self._running: dict[str, tuple[Engine, Iterator[Message | None]]] = {}

    @property
    def busy(self) -> bool:
        return bool(self._running)

    def add(self, task: Task) -> None:
        engine = self._idle.pop() if self._idle else Engine.of(self._device)
        engine.divisor = task.divisor
        load = functools.partial(self._load, task.job.data)
        turns = messages_in_turns(task, self._where, load, self._start, engine)
        self._running[task.job.run.digest] = engine, turns

    def turn(self) -> Iterator[tuple[str, Message]]:
        """What the runs say in a round of turns, by their digests."""
        for digest, (engine, turns) in list(self._running.items()):
            with engine.turn():
                message = next(turns)
            if message is not None:
                most = len(self._running) + len(self._idle)  # each has had an engine of its own
                message = weighed(message, self._device, most)
                if message[0] in LAST:
                    del self._running[digest]
                    self._idle.append(engine)
                yield digest, message


def outputs(
    task: Task, dataset: Dataset, start: Callable[[Path], StoredModel], engine: Engine
) -> Iterator[Message | None]:
    """What a job gives, going on where its finished records end."""
    job = task.job
    if job.initial is not None:
        yield from _told(
            rounds_in_turns(
                job.run, dataset, *start(job.initial).parsed(), task.finished, engine, job.keep_model
            )
        )
    elif not task.finished:
        yield from _initial(job, dataset, engine)


def _told(turns: Generator[Turn, None, Any]) -> Generator[Message | None, None, Any]:
    """A run's turns as messages; returns what they return."""
    while True:
        try:
            turn = next(turns)
        except StopIteration as end:
            return end.value
        yield None if turn is None else ("said" if isinstance(turn, str) else "record", turn)


def _initial(job: Job, dataset: Dataset, engine: Engine) -> Iterator[Message | None]:
    try:
        record, weights = yield from _told(initial_in_turns(job.run, dataset, engine))
    except DivergenceError as error:
        if not job.trial:
            raise
        yield "diverged", json.dumps(seal({"run": job.run.digest, "diverged": str(error)})).encode()
        return
    yield "record", {**record, "weights": packed(weights)}


def _hash_of(path: Path) -> str | None:
    """SHA-256 of a file, None where it cannot be read."""
    try:
        return file_sha256(path)
    except OSError:
        return None


def loader(device: str) -> Callable[[Path], Dataset]:
    """Prepared datasets on a device: the last one is kept, for one copy is enough.

    Their checksums the command has verified.
    """

    @functools.lru_cache(maxsize=1)
    def load(path: Path) -> Dataset:
        dataset = load_dataset(path, verify=False, device=device)
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)  # runs read it from streams of their own
        return dataset

    return load


def set_up(device: str) -> None:
    """One thread and deterministic kernels in this process."""
    # One thread a run: two one-thread processes do 1.7 times the steps of one with two threads, and sums do
    # not depend on how many threads shared them.
    torch.set_num_threads(1)
    # The largest block that was freed decides what glibc keeps for later instead of mapping it anew for each
    # temporary tensor: a step of 128 images takes 15 to 20 % less.
    torch.empty(31 << 20, dtype=torch.uint8)
    if device.startswith("cuda"):
        reproducible()


def free_memory() -> None:
    """Give what no tensor holds back to the GPU, for the runs beside this one."""
    if torch.cuda.is_initialized():
        gc.collect()
        with contextlib.suppress(RuntimeError):  # a GPU that failed: the run's own error is the one to tell
            torch.cuda.empty_cache()


def error_text(error: BaseException) -> str:
    return str(error) if isinstance(error, MindGapError) else "".join(traceback.format_exception(error))
