"""Runs in worker processes of this machine.

Each worker has a pipe of its own, so the driver knows which runs a worker died with. (A queue that all share
would lose its lock with a killed worker, and the standard library's pool ends when one of its workers dies.)
On a CPU a worker has one run at a time. On a GPU it has all the runs that share the GPU: they take turns, and
share data, kernels and CUDA's own memory.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from mindgap.engine.jobs import LAST, Job, Message, Rota, StoredModel, Task, loader, set_up
from mindgap.engine.machine import Machine, fork_server


@dataclass
class Worker:
    """A process, what it runs by digest, and the pipe to it."""

    process: BaseProcess
    pipe: Connection
    device: str
    where: str
    jobs: dict[str, Job] = field(default_factory=dict)


class Processes:
    """Worker processes, each begun when it is needed, on the device of its runs."""

    def __init__(self, machine: Machine):
        self._most, self._runs_per_gpu = machine.workers, machine.runs_per_gpu
        self._context = fork_server()
        self._workers: dict[int, Worker] = {}

    @property
    def free(self) -> bool:
        return sum(len(worker.jobs) for worker in self._workers.values()) < self._most

    def alone(self) -> None:
        """From now on in new processes: an idle one still holds a part of its GPU."""
        self.close()

    def start(self, task: Task) -> None:
        worker = self._with_room(task.device) or self._begun(task.device)
        try:
            worker.pipe.send(task)
        except OSError:  # killed: it is heard of where it had runs
            worker = self._begun(task.device)
            worker.pipe.send(task)
        worker.jobs[task.job.run.digest] = task.job

    def _with_room(self, device: str) -> Worker | None:
        for worker in self._workers.values():
            room = worker.device == device and len(worker.jobs) < self._together(device)
            if room and worker.process.is_alive():
                return worker
        return None

    def _together(self, device: str) -> int:
        """How many runs a process has at a time."""
        return 1 if device == "cpu" else self._runs_per_gpu

    def messages(self, seconds: float) -> Iterator[tuple[Job, Message]]:
        """What workers say within so many seconds; `lost` for each run of a worker that died."""
        busy = {worker.pipe: (slot, worker) for slot, worker in self._workers.items() if worker.jobs}
        for pipe in wait(busy, seconds):
            slot, worker = busy[pipe]
            try:
                digest, message = pipe.recv()
            except (EOFError, OSError):
                del self._workers[slot]
                how = f"{worker.where} died ({_end_of(worker.process)})"
                yield from [(job, ("lost", how)) for job in worker.jobs.values()]
                continue
            job = worker.jobs[digest]
            if message[0] in LAST:
                del worker.jobs[digest]
            yield job, message

    def close(self) -> None:
        for slot in list(self._workers):
            self._end(slot)

    def _end(self, slot: int) -> None:
        worker = self._workers.pop(slot)
        worker.process.terminate()
        worker.process.join()
        worker.pipe.close()

    def _begun(self, device: str) -> Worker:
        """A new worker, in the first slot that has none or an idle one, which ends."""
        busy = {slot for slot, worker in self._workers.items() if worker.jobs}
        slot = min(set(range(self._most)) - busy, key=lambda slot: (slot in self._workers, slot))
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
    """The main function of a worker: it takes the runs that it is given, a step of each in turn."""
    # Ctrl-C reaches the whole group of processes; the driver ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    set_up(device)
    rota = Rota(device, where, loader(device), StoredModel.read)
    while True:
        try:
            while not rota.busy or pipe.poll():
                rota.add(pipe.recv())
        except EOFError:
            return  # the driver is gone
        for digest, message in rota.turn():
            pipe.send((digest, message))


def _die_with_parent() -> None:
    """A killed command takes its workers with it: an orphan would go on for nobody."""
    multiprocessing.parent_process().join()
    os._exit(1)
