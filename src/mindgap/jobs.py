"""One run to execute, and what a worker makes of it: a stream of messages that its driver stores.

A worker writes nothing, so it may be a thread of control here, a process beside this one or a task on a node
that shares no folder with it.
"""

import contextlib
import functools
import gc
import json
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from mindgap.data.dataset import Dataset, load_dataset
from mindgap.errors import DivergenceError, MindGapError
from mindgap.evaluation import smaller_chunks
from mindgap.loop import Run, initial_record, rounds
from mindgap.records import RunStore, write_atomically

# What a worker says, a kind and a value: first `began` with the place where it runs, then outputs (`weights`
# and `diverged` of an initial model, a `record` for each round), last `done`, or `failed` or `memory` (of the
# GPU) with the reason. A worker that dies says nothing: its executor says `lost` for it.
Message = tuple[str, Any]
OUTPUTS = ("record", "weights", "diverged")
LAST = ("done", "failed", "memory", "lost")


@dataclass(frozen=True)
class Job:
    """One run to execute: an initial model, or a cell that starts from one.

    A trial is an initial model of which it is a result, too, that its training diverges.
    """

    run: Run
    data: Path
    store: Path
    initial: Path | None = None
    trial: bool = False

    def __str__(self) -> str:
        return str(self.run.cell)

    @property
    def rounds(self) -> int:
        return self.run.setting.budget.rounds if self.initial else 1

    @property
    def record_store(self) -> RunStore:
        return RunStore(self.run.digest, self.rounds, self.store)

    @property
    def weights(self) -> Path:
        """Where an initial model's weights lie in the store."""
        return self.record_store.folder / "weights.safetensors"

    @property
    def diverged(self) -> Path:
        """Where it is written down that a trial diverged, and how."""
        return self.record_store.folder / "diverged.txt"

    @property
    def finished_rounds(self) -> int:
        return self.rounds if self.trial and self.diverged.exists() else self.record_store.finished_rounds

    def keep(self, kind: str, value: Any) -> None:
        """Store an output. A record comes last: once it is there, the round is finished."""
        if kind == "record":
            self.record_store.append(value)
        else:
            path = self.weights if kind == "weights" else self.diverged
            write_atomically(path, value)


@dataclass(frozen=True)
class Task:
    """A job as a worker gets it: with its finished records, its passes so many times smaller."""

    job: Job
    finished: Sequence[Mapping[str, Any]]
    divisor: int = 1


@dataclass(frozen=True)
class Start:
    """The files of the initial model that a cell starts from, as bytes."""

    record: bytes
    weights: bytes

    @classmethod
    def read(cls, initial: Path) -> "Start":
        return cls(
            initial.with_suffix(".json").read_bytes(), initial.with_suffix(".safetensors").read_bytes()
        )

    def parsed(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return json.loads(self.record), load(self.weights)


def messages(
    task: Task, where: str, dataset: Callable[[], Dataset], start: Callable[[Path], Start]
) -> Iterator[Message]:
    """Execute a task; errors are messages too. `where` names this worker to people."""
    yield "began", where
    try:
        with smaller_chunks(task.divisor):
            yield from outputs(task, dataset(), start)
    except Exception as error:
        last = ("memory", str(error).splitlines()[0]) if _of_memory(error) else ("failed", explain(error))
    else:
        last = ("done", None)
    # After the error is gone: its traceback keeps the model and its activations.
    free_memory()
    yield last


def outputs(task: Task, dataset: Dataset, start: Callable[[Path], Start]) -> Iterator[Message]:
    """What a job gives, going on where its finished records end."""
    job = task.job
    if job.initial is not None:
        for record in rounds(job.run, dataset, *start(job.initial).parsed(), task.finished):
            yield "record", record
    elif not task.finished:
        yield from _initial(job, dataset)


def _initial(job: Job, dataset: Dataset) -> Iterator[Message]:
    try:
        record, model = initial_record(job.run, dataset)
    except DivergenceError as error:
        if not job.trial:
            raise
        yield "diverged", f"{error}\n".encode()
        return
    yield "weights", save({name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()})
    yield "record", record


def loader(device: str) -> Callable[[Path], Dataset]:
    """Prepared datasets on a device: the last one is kept, for one copy is enough.

    Their checksums the command has verified.
    """
    return functools.lru_cache(maxsize=1)(functools.partial(load_dataset, verify=False, device=device))


def set_up(device: str) -> None:
    """One thread and deterministic kernels in this process."""
    # One thread a run: two one-thread processes do 1.7 times the steps of one with two threads, and sums do
    # not depend on how many threads shared them.
    torch.set_num_threads(1)
    # The largest block that was freed decides what glibc keeps for later instead of mapping it anew for each
    # temporary tensor: a step of 128 images takes 15 to 20 % less.
    torch.empty(31 << 20, dtype=torch.uint8)
    if device.startswith("cuda"):
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False


def free_memory() -> None:
    """Give what no tensor holds back to the GPU, for the runs beside this one."""
    if torch.cuda.is_initialized():
        gc.collect()
        with contextlib.suppress(RuntimeError):  # a GPU that failed: the run's own error is the one to tell
            torch.cuda.empty_cache()


def _of_memory(error: Exception) -> bool:
    """Whether a GPU's memory did not do; its libraries say so in words of their own."""
    words = ("CUDA error: out of memory", "STATUS_ALLOC_FAILED")
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(word in str(error) for word in words)


def explain(error: BaseException) -> str:
    return str(error) if isinstance(error, MindGapError) else "".join(traceback.format_exception(error))
