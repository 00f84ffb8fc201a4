"""Runs in worker processes of this machine, each with a pipe of its own.

A pipe each says who died with which run: a shared queue loses its lock with a killed worker, and the standard
library's pool ends with any of its workers.
"""

import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from mindgap.jobs import LAST, Job, Message, Start, Task, loader, messages, set_up
from mindgap.machine import Machine, fork_server


@dataclass
class Worker:
    """A process, what it runs, and the pipe to it."""

    process: BaseProcess
    pipe: Connection
    device: str
    where: str
    job: Job | None = None


class Processes:
    """Worker processes, one a slot; each is begun when it is needed, on the device of its run."""

    def __init__(self, machine: Machine):
        self._slots = range(machine.workers)
        self._context = fork_server()
        self._workers: dict[int, Worker] = {}

    @property
    def free(self) -> bool:
        return len(self._busy()) < len(self._slots)

    def alone(self) -> None:
        """From now on in new processes: an idle one still holds a part of its GPU."""
        self.close()

    def start(self, task: Task) -> None:
        slot, worker = self._idle(task.device)
        if worker is None or worker.device != task.device or not worker.process.is_alive():
            worker = self._begun(slot, task.device)
        try:
            worker.pipe.send(task)
        except OSError:  # killed while it was idle: no run is lost
            worker = self._begun(slot, task.device)
            worker.pipe.send(task)
        worker.job = task.job

    def _idle(self, device: str) -> tuple[int, Worker | None]:
        """A slot without a run: with a worker on that device, else with none, else with one on another."""
        idle = [(slot, self._workers.get(slot)) for slot in self._slots if slot not in self._busy()]
        return min(idle, key=lambda one: (0 if one[1].device == device else 2) if one[1] else 1)

    def messages(self, seconds: float) -> Iterator[tuple[Job, Message]]:
        """What workers say within so many seconds; `lost` for those that can say nothing any more."""
        busy = {worker.pipe: (slot, worker) for slot, worker in self._busy().items()}
        for pipe in wait(busy, seconds):
            slot, worker = busy[pipe]
            job = worker.job
            try:
                message = pipe.recv()
            except (EOFError, OSError):
                del self._workers[slot]
                yield job, ("lost", f"{worker.where} died ({_end_of(worker.process)})")
                continue
            if message[0] in LAST:
                worker.job = None
            yield job, message

    def close(self) -> None:
        for slot in list(self._workers):
            self._end(slot)

    def _end(self, slot: int) -> None:
        worker = self._workers.pop(slot)
        worker.process.terminate()
        worker.process.join()
        worker.pipe.close()

    def _busy(self) -> dict[int, Worker]:
        return {slot: worker for slot, worker in self._workers.items() if worker.job}

    def _begun(self, slot: int, device: str) -> Worker:
        """A new worker in a slot, in the place of the one there."""
        if slot in self._workers:
            self._end(slot)
        where = f"worker {slot + 1}" + ("" if device == "cpu" else f" on {device}")
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, device, where), daemon=True)
        process.start()
        theirs.close()  # or its end would not close with the worker
        self._workers[slot] = Worker(process, ours, device, where)
        return self._workers[slot]


def _end_of(process: BaseProcess) -> str:
    process.join()
    code = process.exitcode
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


def _work(pipe: Connection, device: str, where: str) -> None:
    """The life of a worker: one task after the other."""
    # Ctrl-C reaches the whole group of processes; the driver ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    set_up(device)
    load = loader(device)
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return  # the driver is gone
        for message in messages(task, where, functools.partial(load, task.job.data), Start.read):
            pipe.send(message)


def _die_with_parent() -> None:
    """A killed command takes its workers with it: an orphan would go on for nobody."""
    multiprocessing.parent_process().join()
    os._exit(1)
