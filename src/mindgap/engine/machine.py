"""What this machine offers to runs: how many at once, and on which devices.

MINDGAP_WORKERS, MINDGAP_DEVICES, MINDGAP_RUNS_PER_GPU and MINDGAP_EXECUTOR set it; they change no result.
"""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext
from typing import Literal

from mindgap.base.errors import MindGapError
from mindgap.data.workers import usable_cores

EXECUTORS = ("local", "ray")
# What the process that workers are forked from loads for all of them.
PRELOADED = ["mindgap.engine.local"]
# A run is one thread. These say so to libraries that count the cores when they are loaded: with a worker a
# core each of them would start as many threads as there are cores, in every worker.
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")


def workers(default: int) -> int:
    """How many processes work at once: MINDGAP_WORKERS, else `default`."""
    return _count("MINDGAP_WORKERS", default)


def _count(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdigit() or int(text) < 1:
        raise MindGapError(f"{name} is {text!r}: make it a whole number from 1 up, or unset it")
    return int(text)


def executor() -> Literal["local", "ray"]:
    """Where runs execute: MINDGAP_EXECUTOR, else a Ray cluster where RAY_ADDRESS names one, else here."""
    named = os.environ.get("MINDGAP_EXECUTOR") or ("ray" if os.environ.get("RAY_ADDRESS") else "local")
    if named not in EXECUTORS:
        raise MindGapError(f"MINDGAP_EXECUTOR is {named!r}: make it {' or '.join(EXECUTORS)}, or unset it")
    return named


def start_fork_server() -> None:
    """Begin to load torch in the process that workers are forked from, while this one loads it for itself.

    One after the other would cost every train and acquire stage five seconds more.
    """
    if executor() == "local" and workers(default=usable_cores()) > 1:
        fork_server()


def fork_server() -> BaseContext:
    """The context of worker processes, its server running; libraries in them have one thread each."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    # Ctrl-C is this process's to hear: the server would end with a traceback while it loads.
    resource_tracker.ensure_running()  # here, as it lets SIGINT through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with _environment(dict.fromkeys(ONE_THREAD, "1")):
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@dataclass(frozen=True)
class Machine:
    """How many runs execute at once, and on which devices in turn.

    With Ray the cluster decides both within what is asked for: `devices` are the kinds that were named, if
    any, and `workers` is the most runs at once, None for as many as fit.
    """

    workers: int | None
    devices: tuple[str, ...]
    executor: Literal["local", "ray"] = "local"
    runs_per_gpu: int = 1

    @classmethod
    def from_environment(cls) -> "Machine":
        """This machine or a Ray cluster, as the environment says."""
        if executor() == "local":
            return cls.local()
        most = workers(default=1) if os.environ.get("MINDGAP_WORKERS") else None
        return cls(most, _named_devices(), "ray", _count("MINDGAP_RUNS_PER_GPU", 1))

    @classmethod
    def local(cls) -> "Machine":
        """All GPUs with MINDGAP_RUNS_PER_GPU runs each, or without one all cores; MINDGAP_DEVICES names
        "cuda:0,cuda:1" or "cpu".
        """
        import torch  # here: rendering asks this module for workers and needs no torch

        gpus, each = torch.cuda.device_count(), _count("MINDGAP_RUNS_PER_GPU", 1)
        devices = _named_devices() or tuple(f"cuda:{i}" for i in range(gpus)) or ("cpu",)
        for device in devices:
            _check_device(device, gpus)
        default = usable_cores() if set(devices) == {"cpu"} else each * len(devices)
        return cls(workers(default), devices, runs_per_gpu=each)


def _named_devices() -> tuple[str, ...]:
    named = [device.strip() for device in os.environ.get("MINDGAP_DEVICES", "").split(",")]
    return tuple(device for device in named if device)


def _check_device(device: str, gpus: int) -> None:
    kind, _, index = device.partition(":")
    known = device == "cpu" or (kind == "cuda" and (index or "0").isdigit() and int(index or 0) < gpus)
    if not known:
        have = ", ".join(["cpu", *(f"cuda:{i}" for i in range(gpus))])
        raise MindGapError(f"MINDGAP_DEVICES names {device!r}; this machine has {have}")
