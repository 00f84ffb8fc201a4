"""Shares the cores and GPUs of this machine among all commands of a user: a run needs a lease of a place.

A place is a core, or a share of a GPU. A lease is a locked file, so the kernel takes back what a killed
command had. It is held for one run and taken without waiting: nobody waits while holding a lease.
"""

import contextlib
import fcntl
import os
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mindgap.data.workers import usable_cores
from mindgap.engine.machine import Machine


@dataclass(frozen=True)
class Lease:
    """A place for one run on a device, until it is closed."""

    device: str
    _files: tuple[IO, ...]

    def close(self) -> None:
        for file in self._files:
            file.close()


class Leases:
    """The places for the runs of one command."""

    def __init__(self, machine: Machine, title: str):
        self._title, self._folder = title, _folder()
        self._places = [((name,), device) for name, device in _places(machine)]

    def alone(self) -> None:
        """From now on a lease is of all places of a device."""
        all_of: dict[str, tuple[str, ...]] = {}
        for names, device in self._places:
            all_of[device] = (*all_of.get(device, ()), *names)
        self._places = [(names, device) for device, names in all_of.items()]

    def take(self) -> Lease | None:
        """A place that nobody has; None where there is none. Without places all is free: Ray has its own."""
        if not self._places:
            return Lease("", ())
        for names, device in self._places:
            files: list[IO] = []
            for name in names:
                if (file := self._locked(name)) is None:
                    break
                files.append(file)
            lease = Lease(device, tuple(files))
            if len(files) == len(names):
                return lease
            lease.close()
        return None

    def holders(self) -> str:
        """The commands that hold the places, as far as the files tell."""
        told = (self._folder / name for names, _ in self._places for name in names)
        return ", ".join(sorted({text for path in told if (text := _text(path))}))

    def _locked(self, name: str) -> IO | None:
        # Not emptied before it is locked: it says who has it.
        file = (self._folder / name).open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        with contextlib.suppress(OSError):  # a full disk: the lock is what counts
            file.truncate(0)
            file.write(f"{self._title} (process {os.getpid()})")
            file.flush()
        return file


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""


def _folder() -> Path:
    """A folder of this user and machine; one of this command alone where there can be none."""
    named = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(named, "mindgap") if named else Path(tempfile.gettempdir(), f"mindgap-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid != os.getuid() or not os.access(folder, os.W_OK):
            raise PermissionError
    except OSError:
        return Path(tempfile.mkdtemp(prefix="mindgap-"))
    return folder


def _places(machine: Machine) -> list[tuple[str, str]]:
    """Name and device of each place: the cores, MINDGAP_RUNS_PER_GPU a GPU, more if MINDGAP_WORKERS asks."""
    if machine.executor != "local":
        return []
    # By their numbers: two jobs of a node may have different ones.
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(usable_cores())
    cores = cores[: usable_cores()]
    fit = sum(len(cores) if device == "cpu" else machine.runs_per_gpu for device in machine.devices)
    places, before = [], Counter[str]()
    for slot in range(max(machine.workers, fit)):
        device = machine.devices[slot % len(machine.devices)]
        number = before[device]
        if device == "cpu":
            number = cores[number] if number < len(cores) else f"more-{number}"
        before[device] += 1
        places.append((f"{_identity(device)}-{number}", device))
    return places


def _identity(device: str) -> str:
    """One name for a device whatever CUDA_VISIBLE_DEVICES makes of its number."""
    if device == "cpu":
        return "core"
    import torch

    return f"gpu-{torch.cuda.get_device_properties(device).uuid}"
