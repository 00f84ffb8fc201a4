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
    where: str
    job: Job | None = None


class Processes:
    """Worker processes, one a slot, the slots on the devices in turn; each is begun when it is needed."""

    def __init__(self, machine: Machine):
        self._slots = [machine.devices[slot % len(machine.devices)] for slot in range(machine.workers)]
        self._context = fork_server()
        self._workers: dict[int, Worker] = {}

    @property
    def free(self) -> bool:
        return len(self._busy()) < len(self._slots)

    def alone(self) -> None:
        """From now on one run a device, in a new process: an idle one still holds a part of its GPU."""
        self.close()
        self._slots = list(dict.fromkeys(self._slots))

    def start(self, task: Task) -> None:
        busy = [slot for slot, worker in self._workers.items() if worker.job]
        slot = next(slot for slot in range(len(self._slots)) if slot not in busy)
        if slot not in self._workers or not self._workers[slot].process.is_alive():
            self._workers[slot] = self._begun(slot)
        try:
            self._workers[slot].pipe.send(task)
        except OSError:  # killed while it was idle: no run is lost
            self._workers[slot] = self._begun(slot)
            self._workers[slot].pipe.send(task)
        self._workers[slot].job = task.job

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
        for worker in self._workers.values():
            worker.process.terminate()
            worker.process.join()
            worker.pipe.close()
        self._workers = {}

    def _busy(self) -> dict[int, Worker]:
        return {slot: worker for slot, worker in self._workers.items() if worker.job}

    def _begun(self, slot: int) -> Worker:
        device = self._slots[slot]
        where = f"worker {slot + 1}" + ("" if device == "cpu" else f" on {device}")
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, device, where), daemon=True)
        process.start()
        theirs.close()  # or its end would not close with the worker
        return Worker(process, ours, where)


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
