"""Which runs are missing, and where they run: this process, or one worker process a core or GPU.

DVC decides what, this module decides where. A run's numbers do not depend on how many run beside it.
"""

import concurrent.futures as futures
import functools
import json
import multiprocessing
import os
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialise

from mindgap.data.dataset import Dataset, load_dataset
from mindgap.errors import DivergenceError, MindGapError
from mindgap.loop import Run, initial_record, run_cell
from mindgap.machine import Machine
from mindgap.progress import Progress
from mindgap.records import RunStore, write_atomically

POLL_SECONDS = 1.0
MOST_LOSSES = 3


class SweepError(MindGapError):
    """Some runs failed; the others are finished and kept."""


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


def execute(jobs: Sequence[Job], machine: Machine, title: str) -> None:
    """Finish every job that is not; failures are raised together when the rest is done."""
    missing = [job for job in jobs if job.finished_rounds < job.rounds]
    begun = sum(job.finished_rounds > 0 for job in missing)
    print(f"{title}: {len(jobs)} runs, {len(jobs) - len(missing)} finished before, {begun} begun", flush=True)
    done = sum(job.finished_rounds for job in missing)
    with Progress(title, total=sum(job.rounds for job in missing), done=done, unit="rounds") as progress:
        workers = min(machine.workers, len(missing))
        if workers <= 1:
            failures = _run_here(missing, machine, progress)
        else:
            failures = _run_in_pool(missing, machine, workers, progress)
    if failures:
        raise SweepError(
            f"{len(failures)} of {len(jobs)} runs failed; the others are finished and kept, and a repeated "
            f"command does only what is missing.\n" + "\n".join(f"{job}: {text}" for job, text in failures)
        )


def _run_here(jobs: Iterable[Job], machine: Machine, progress: Progress) -> list[tuple[Job, str]]:
    failures = []
    set_up(machine.devices[0])
    for job in jobs:
        try:
            run_job(job, machine.devices[0], on_round=progress.advance)
        except Exception as error:
            failures.append((job, _explain(error)))
    return failures


def _run_in_pool(
    jobs: Iterable[Job], machine: Machine, workers: int, progress: Progress
) -> list[tuple[Job, str]]:
    """Like `_run_here` over worker processes; a pool that loses a worker is rebuilt for what is left."""
    context = multiprocessing.get_context("forkserver")
    failures, waiting, losses = [], list(jobs), Counter()
    while waiting:
        slots = context.SimpleQueue()
        for slot in range(workers):
            slots.put(machine.devices[slot % len(machine.devices)])
        lost: list[Job] = []
        with futures.ProcessPoolExecutor(workers, context, _start_worker, (slots,)) as pool:
            running = {pool.submit(run_job_here, job): job for job in waiting}
            while running:
                done, _ = futures.wait(running, POLL_SECONDS, futures.FIRST_COMPLETED)
                for future in done:
                    job, error = running.pop(future), future.exception()
                    if isinstance(error, BrokenProcessPool):
                        lost.append(job)
                    elif error is not None:
                        failures.append((job, _explain(error)))
                # Records say how far runs are: a queue's lock would be lost with a killed worker.
                progress.reach(sum(job.finished_rounds for job in jobs))
        # All unfinished jobs are lost with the pool; one that is lost each time may be the killer.
        waiting = []
        for job in lost:
            losses[str(job)] += 1
            if losses[str(job)] < MOST_LOSSES:
                waiting.append(job)
            else:
                mend = "its worker died each time (out of memory?): set MINDGAP_WORKERS lower"
                failures.append((job, mend))
    return failures


_worker: dict = {}


def _start_worker(slots) -> None:
    _worker["device"] = slots.get()
    set_up(_worker["device"])
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """A killed command takes its workers with it: an orphan would keep its runs locked."""
    multiprocessing.parent_process().join()
    os._exit(1)


def set_up(device: str) -> None:
    # One thread a run: two one-thread processes do 1.7 times the steps of one with two threads, and sums do
    # not depend on how many threads shared them.
    torch.set_num_threads(1)
    if device.startswith("cuda"):
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False


def run_job_here(job: Job) -> None:
    """Execute one job on this worker's device."""
    run_job(job, _worker["device"])


def run_job(job: Job, device: str, on_round: Callable[[], None] = lambda: None) -> None:
    """Execute one job on a device, going on where its records end."""
    dataset = _dataset(job.data, device)
    store = job.record_store
    with store.locked(waiting=lambda: print(f"{job}: another process works on it; waiting", flush=True)):
        if job.initial is not None:
            initial = json.loads(job.initial.with_suffix(".json").read_text())
            weights = load_file(job.initial.with_suffix(".safetensors"))
            run_cell(job.run, dataset, initial, weights, store, lambda round: on_round())
        elif job.finished_rounds == 0:
            try:
                record, model = initial_record(job.run, dataset)
            except DivergenceError as error:
                if not job.trial:
                    raise
                return write_atomically(job.diverged, f"{error}\n".encode())
            weights = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
            write_atomically(job.weights, serialise(weights))
            store.append(record)
            on_round()


@functools.lru_cache(maxsize=1)
def _dataset(path: Path, device: str) -> Dataset:
    # The command verified the files' checksums; once a worker is enough.
    return load_dataset(path, verify=False, device=device)


def _explain(error: BaseException) -> str:
    return str(error) if isinstance(error, MindGapError) else "".join(traceback.format_exception(error))
