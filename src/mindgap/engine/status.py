"""Shows what a command is doing: in its own terminal, and to `mindgap watch` by a small file in the store.

Any machine that shares the store's folder can watch.
"""

import contextlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from mindgap.base.progress import Progress, Running
from mindgap.core.records import text_digest

BEAT_SECONDS = 1.0
# A machine since it was started, and the numbers of processes that a container of it has for itself.
BOOT, PROCESSES = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
SILENT_SECONDS = 30.0  # clocks of two machines may differ by some seconds


@dataclass(frozen=True)
class Status:
    """What a command did at the time (epoch seconds) when it was `written`."""

    title: str
    host: str
    pid: int
    written: float
    done: int
    total: int
    running: tuple[Running, ...]
    waits: str = ""  # for what, while nothing of it runs
    machine: str = ""  # `this_machine`; hosts may have one name

    @property
    def died(self) -> bool:
        """Whether the command ended without a word: killed, or with its machine."""
        if self.machine == this_machine() and not _alive(self.pid):
            return True
        return time.time() - self.written > SILENT_SECONDS


def this_machine() -> str:
    """What tells the processes of this machine, or container, from those of others, whatever their names."""
    try:
        boot, processes = BOOT.read_text().strip(), PROCESSES.readlink()
    except OSError:  # not Linux
        return socket.gethostname()
    return f"{socket.gethostname()} {boot} {processes}"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def status_folder(store: Path) -> Path:
    return store / "status"


def statuses(store: Path, tell: Callable[[str], None] = lambda line: None) -> dict[Path, Status]:
    """The commands at work in a store, and those that died at it, in order of their titles.

    `tell` gets a line for each file that is no status; it is passed over.
    """
    found = {}
    for path in sorted(status_folder(store).glob("*.json")):
        try:
            found[path] = _STATUS.validate_json(path.read_bytes())
        except FileNotFoundError:
            continue  # its command ended at this moment
        except (OSError, ValueError):
            tell(f"{path} is not the status of a command and is passed over: delete it")
    return found


_STATUS = TypeAdapter(Status)


class Board:
    """What runs where, kept up to date by a thread: this process may be busy with a run itself."""

    def __init__(self, store: Path, progress: Progress):
        self._progress, self._lock, self._over = progress, threading.Lock(), threading.Event()
        self._running: dict[str, Running] = {}
        self._waits = ""
        self._done, self._store = progress.done, store
        who = f"{socket.gethostname()}-{os.getpid()}-{text_digest(this_machine())[:8]}"
        name = re.sub(r"\W+", "-", f"{progress.title}-{who}")
        self._path = status_folder(store) / f"{name}.json"

    @contextlib.contextmanager
    def shown(self) -> Iterator["Board"]:
        for path, status in statuses(self._store, self.say).items():
            if status.title == self._progress.title and status.died:
                with contextlib.suppress(OSError):
                    path.unlink()  # what it left is what this command goes on with
                    path.with_suffix(".partial").unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
        beat = threading.Thread(target=self._beat, daemon=True)
        beat.start()
        try:
            yield self
        finally:
            self._over.set()
            beat.join()
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    def begin(self, key: str, name: str, where: str, done: int, total: int) -> None:
        with self._lock:
            self._running[key], self._waits = Running(name, where, done, total, time.time()), ""

    def advance(self, key: str) -> None:
        """A round of a run is finished."""
        with self._lock:
            one = self._running[key]
            self._running[key] = replace(one, done=one.done + 1, since=time.time())
            self._done += 1
        self._show()

    def end(self, key: str) -> None:
        with self._lock:
            self._running.pop(key, None)
        self._show()

    def found(self, rounds: int) -> None:
        """So many rounds were done by another process."""
        with self._lock:
            self._done += rounds

    def wait(self, line: str) -> None:
        """Nothing can run; what for. Said when it begins, and shown until a run begins."""
        if not self._waits:
            self.say(f"{self._progress.title}: {line}")
        with self._lock:
            self._waits = line

    def say(self, line: str) -> None:
        self._progress.say(line)

    def _beat(self) -> None:
        while True:
            self._write()
            if self._over.wait(BEAT_SECONDS):
                return
            self._show()

    def _show(self) -> None:
        with self._lock:
            self._progress.reach(self._done, tuple(self._running.values()))

    def _write(self) -> None:
        progress = self._progress
        with self._lock:
            running = tuple(self._running.values())
            done, waits = self._done, self._waits
        host, pid, now = socket.gethostname(), os.getpid(), time.time()
        status = Status(progress.title, host, pid, now, done, progress.total, running, waits, this_machine())
        # Not `write_atomically`: a file that is old in a second need not reach the disk.
        partial = self._path.with_suffix(".partial")
        with contextlib.suppress(OSError):  # a full disk, or a store deleted meanwhile, is no reason to stop
            partial.write_text(json.dumps(asdict(status)))
            partial.replace(self._path)
