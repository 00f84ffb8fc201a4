"""Finishes the runs of a command: starts those that are missing, stores what they give, repeats lost ones.

A stage decides which runs there are. Here it is decided where they execute: in this process (`Here`), in
worker processes (`engine/local.py`) or on a Ray cluster (`engine/ray.py`). A run's numbers depend neither on
the place nor on the runs beside it.
"""

import contextlib
import functools
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, Protocol

from mindgap.base.errors import MindGapError
from mindgap.base.progress import Progress
from mindgap.engine.jobs import OUTPUTS, Job, Message, StoredModel, Task, error_text, loader, messages, set_up
from mindgap.engine.leases import Lease, Leases
from mindgap.engine.machine import Machine
from mindgap.engine.status import Board

POLL_SECONDS = 1.0
MOST_LOSSES = 3
# By attempt: how many times smaller a run's passes are. A run whose GPU has too little memory is tried again:
# the second time alone on a GPU, then with smaller passes, until only its training can be too large.
DIVISORS = (1, 1, 4, 16)


class SweepError(MindGapError):
    """Some runs failed; the others are finished and kept."""


class Executor(Protocol):
    """Where runs execute."""

    @property
    def free(self) -> bool:
        """Whether one more may be started."""

    def start(self, task: Task) -> None: ...

    def messages(self, seconds: float) -> Iterator[tuple[Job, Message]]:
        """The messages of runs within so many seconds, each with its job."""

    def alone(self) -> None:
        """From now on one run a device."""

    def close(self) -> None: ...


def execute(jobs: Sequence[Job], machine: Machine, title: str) -> None:
    """Finish every job that is not; failures are raised together when the rest is done."""
    finished = {job.run.digest: job.finished_rounds for job in jobs}
    missing = [job for job in jobs if finished[job.run.digest] < job.rounds]
    begun = sum(finished[job.run.digest] > 0 for job in missing)
    print(f"{title}: {len(jobs)} runs, {len(jobs) - len(missing)} finished before, {begun} begun", flush=True)
    if not missing:
        return
    if machine.executor == "ray":
        from mindgap.engine.ray import refuse_credentialed

        for job in missing:
            refuse_credentialed(job.run.cell.dataset)
    done = sum(finished[job.run.digest] for job in missing)
    progress = Progress(title, total=sum(job.rounds for job in missing), done=done, unit="rounds")
    with (
        executor_of(machine, len(missing)) as executor,
        progress,
        Board(missing[0].store, progress).shown() as board,
    ):
        failures = Sweep(executor, Leases(machine, title), board, finished).finish(missing)
    if failures:
        raise SweepError(
            f"{len(failures)} of {len(jobs)} runs failed; the others are finished and kept, and a repeated "
            f"command does only what is missing.\n" + "\n".join(f"{job}: {text}" for job, text in failures)
        )


@contextlib.contextmanager
def executor_of(machine: Machine, runs: int) -> Iterator[Executor]:
    """The executor for so many runs."""
    if machine.executor == "ray":
        from mindgap.engine.ray import cluster

        with cluster(machine) as executor:
            yield executor
        return
    if min(machine.workers, runs) == 1:
        executor = Here()
    else:
        from mindgap.engine.local import Processes

        executor = Processes(machine)
    with contextlib.closing(executor):
        yield executor


class Here:
    """One run at a time, in this process."""

    def __init__(self):
        self._task: Task | None = None
        self._loader = functools.lru_cache(maxsize=1)(loader)

    @property
    def free(self) -> bool:
        return self._task is None

    def start(self, task: Task) -> None:
        self._task = task

    def messages(self, seconds: float) -> Iterator[tuple[Job, Message]]:
        """All that the run says, to its end."""
        task, self._task = self._task, None
        if task is not None:
            set_up(task.device)
            load = functools.partial(self._loader(task.device), task.job.data)
            for message in messages(task, f"this process on {task.device}", load, StoredModel.read):
                yield task.job, message

    def alone(self) -> None:
        """There is never more than one run here."""

    def close(self) -> None:
        """Nothing to end."""


class Sweep:
    """Takes the runs of a command through an executor, and stores all that they give.

    While a run executes, this holds the run's lock, so that two commands never do the same, and a lease of
    the core or GPU that it uses. Runs are known by their digests, as the trials of a search share one name.
    """

    def __init__(self, executor: Executor, leases: Leases, board: Board, done: Mapping[str, int]):
        self._executor, self._leases, self._board = executor, leases, board
        self._locks: dict[str, tuple[IO, Lease]] = {}
        self._done = dict(done)  # rounds of a run that the board counts
        self._losses: Counter[str] = Counter()
        self._told: set[str] = set()
        self._failures: list[tuple[Job, str]] = []
        self._waiting: deque[Job] = deque()
        self._too_large: list[Job] = []

    def finish(self, jobs: Sequence[Job]) -> list[tuple[Job, str]]:
        """The jobs that failed, and why."""
        self._waiting = deque(jobs)
        try:
            for attempt in range(len(DIVISORS)):
                self._work_off(attempt)
                if not self._too_large:
                    break
                self._executor.alone()
                self._leases.alone()
                self._waiting, self._too_large = deque(self._too_large), []
        finally:
            for held in self._locks.values():
                _close(held)
        return self._failures

    def _work_off(self, attempt: int) -> None:
        while self._waiting or self._locks:
            self._start(DIVISORS[attempt])
            if not self._locks and self._waiting:
                time.sleep(POLL_SECONDS)  # others have all that is left, or all there is to run it on
            for job, (kind, value) in self._executor.messages(POLL_SECONDS):
                self._hear(job, kind, value, attempt)

    def _start(self, divisor: int) -> None:
        """Start what may be started of what is waiting."""
        for _ in range(len(self._waiting)):
            if not self._executor.free:
                return
            lease = self._leases.take()
            if lease is None:
                if not self._locks:
                    self._board.wait(f"waiting for a core or GPU of this machine: {self._leases.holders()}")
                return
            job = self._waiting.popleft()
            lock = job.record_store.hold()
            if lock is None:
                lease.close()
                self._waiting.append(job)
                self._tell_once(job, "another process works on it; waiting")
                continue
            self._locks[job.run.digest] = lock, lease
            try:
                self._start_one(job, divisor, lease.device)
            except Exception as error:
                self._fail(job, error_text(error))

    def _start_one(self, job: Job, divisor: int, device: str) -> None:
        records, fault = job.sound()
        if fault:
            # Out of the way, where it can be looked at; a round less is finished.
            fault[0].replace(fault[0].with_name(f"{fault[0].name}.{time.time_ns()}.damaged"))
            self._board.say(f"{job}: {fault[1]}; it is computed again")
        done = job.rounds_of(records, fault)
        self._board.found(done - self._done[job.run.digest])
        self._done[job.run.digest] = done
        if done < job.rounds:
            self._executor.start(Task(job, job.resumed(records), divisor, device))
        else:
            self._end(job)

    def _hear(self, job: Job, kind: str, value: Any, attempt: int) -> None:
        key = job.run.digest
        if kind == "began":
            self._board.begin(key, str(job), value, self._done[key], job.rounds)
        elif kind in OUTPUTS:
            job.keep(kind, value)
            self._done[key] += 1
            self._board.advance(key)
        elif kind == "said":
            self._board.say(value)
        elif kind == "done":
            self._end(job)
        elif kind == "failed":
            self._fail(job, value)
        elif kind == "memory":
            self._set_aside(job, value, attempt)
        else:
            self._lose(job, value)

    def _lose(self, job: Job, how: str) -> None:
        """Start a lost run again, but not for ever: it may be what kills the workers."""
        key = job.run.digest
        self._losses[key] += 1
        if self._losses[key] == MOST_LOSSES:
            return self._fail(
                job,
                f"lost {MOST_LOSSES} times, last: {how}. Out of memory? Let fewer runs execute at once: "
                f"MINDGAP_WORKERS",
            )
        self._board.say(f"{job}: {how}; it goes on at round {self._done[key]}")
        self._end(job)
        self._waiting.append(job)

    def _set_aside(self, job: Job, reason: str, attempt: int) -> None:
        if attempt == len(DIVISORS) - 1:
            return self._fail(
                job,
                f"the memory of its GPU did not do, even alone and with passes {DIVISORS[attempt]} times "
                f"smaller ({reason}). End other programs on that GPU, take one with more memory, or let "
                f"fewer runs share it: MINDGAP_WORKERS, MINDGAP_RUNS_PER_GPU",
            )
        smaller = DIVISORS[attempt + 1]
        passes = f" and with passes {smaller} times smaller" if smaller > 1 else ""
        self._board.say(
            f"{job}: GPU memory exhausted at round {self._done[job.run.digest]} ({reason}); when the others "
            f"are done it goes on there, alone on a GPU{passes}"
        )
        self._end(job)
        self._too_large.append(job)

    def _fail(self, job: Job, text: str) -> None:
        self._failures.append((job, text))
        self._end(job)

    def _end(self, job: Job) -> None:
        self._board.end(job.run.digest)
        _close(self._locks.pop(job.run.digest))

    def _tell_once(self, job: Job, text: str) -> None:
        if job.run.digest not in self._told:
            self._told.add(job.run.digest)
            self._board.say(f"{job}: {text}")


def _close(held: tuple[IO, Lease]) -> None:
    for one in held:
        one.close()
