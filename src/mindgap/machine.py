"""What the machine offers to runs: from MINDGAP_WORKERS and MINDGAP_DEVICES, which change no result."""

import multiprocessing
import os
from dataclasses import dataclass
from multiprocessing import forkserver

from mindgap.data.render import usable_cores
from mindgap.errors import MindGapError


def workers(default: int) -> int:
    """How many processes work at once: MINDGAP_WORKERS, else `default`."""
    text = os.environ.get("MINDGAP_WORKERS") or str(default)
    if not text.isdigit() or int(text) < 1:
        raise MindGapError(f"MINDGAP_WORKERS is {text!r}: make it a whole number from 1 up, or unset it")
    return int(text)


def start_fork_server() -> None:
    """Begin to load torch in the process that workers are forked from, while this one loads it for itself.

    One after the other would cost every train and acquire stage five seconds more.
    """
    if workers(default=usable_cores()) > 1:
        multiprocessing.get_context("forkserver").set_forkserver_preload(["mindgap.sweep"])
        forkserver.ensure_running()


@dataclass(frozen=True)
class Machine:
    """How many runs execute at once, and on which devices in turn."""

    workers: int
    devices: tuple[str, ...]

    @classmethod
    def from_environment(cls) -> "Machine":
        """All GPUs with a run each, or without one all cores; MINDGAP_DEVICES="cuda:0,cuda:1" or "cpu"."""
        import torch  # here: rendering asks this module for workers and needs no torch

        named = [device.strip() for device in os.environ.get("MINDGAP_DEVICES", "").split(",")]
        devices = (
            [d for d in named if d] or [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"]
        )
        for device in devices:
            _check_device(device, torch.cuda.device_count())
        default = usable_cores() if devices == ["cpu"] else len(devices)
        return cls(workers(default), tuple(devices))


def _check_device(device: str, gpus: int) -> None:
    kind, _, index = device.partition(":")
    known = device == "cpu" or (kind == "cuda" and (index or "0").isdigit() and int(index or 0) < gpus)
    if not known:
        have = ", ".join(["cpu", *(f"cuda:{i}" for i in range(gpus))])
        raise MindGapError(f"MINDGAP_DEVICES names {device!r}; this machine has {have}")
