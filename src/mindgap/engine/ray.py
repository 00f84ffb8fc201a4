"""Runs as tasks of a Ray cluster. A task streams its records back, and this process alone stores them.

So the nodes need no common folder. They need the same installation, which each proves before it runs
anything. Ray places tasks and never repeats one: `engine/sweep.py` starts a lost run again from its records.
"""

import contextlib
import functools
import os
import pickle
import secrets
import socket
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mindgap.base.errors import MindGapError
from mindgap.base.plugins import outside_parts
from mindgap.core.digest import SOURCE, code_digest, versions
from mindgap.data import CREDENTIALED
from mindgap.data.dataset import Dataset, Split, load_dataset
from mindgap.data.workers import usable_cores
from mindgap.engine.jobs import LAST, Job, Message, Rota, StoredModel, Task, set_up
from mindgap.engine.machine import Machine

# Tasks beyond those that can run now: a node that joins finds work, and a cluster that grows by what is
# waiting sees that something is.
AHEAD = 8
ANSWER_SECONDS = 10.0
# Set to 1, lets a credentialed dataset into a Ray.
ALLOWED = "MINDGAP_RAY_CREDENTIALED"
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Else Ray warns of it in each driver: a CPU run here asks for no GPU whatever it can see.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Else it prints the last twenty lines of the log of each node that dies, whatever `log_to_driver` says.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
}


class ClusterError(MindGapError):
    """The cluster cannot do what is asked of it."""


def _ray():
    try:
        import ray
    except ImportError as error:
        raise ClusterError(
            "runs are to execute with Ray, which is not installed: `make setup` or, in the "
            "checkout, uv pip install -e '.[ray]'; or unset MINDGAP_EXECUTOR and RAY_ADDRESS to run them in "
            "processes of this machine"
        ) from error
    return ray


@contextlib.contextmanager
def cluster(machine: Machine) -> Iterator["Cluster"]:
    """The cluster that RAY_ADDRESS names, which outlives this; without one a Ray of our own."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    ray = _ray()
    address, joined = os.environ.get("RAY_ADDRESS"), ray.is_initialized()
    if not joined:
        _join(ray, address) if address else _begin(ray, machine)
    try:
        runs = Cluster(ray, machine)
        try:
            yield runs
        finally:
            runs.close()
    finally:
        if not joined:
            ray.shutdown()


def _join(ray, address: str) -> None:
    try:
        _knock(address)
        ray.init(address, log_to_driver=False, logging_level="error")
    except Exception as error:  # Ray raises a dozen kinds for as many reasons
        raise ClusterError(
            f"no Ray cluster answers at RAY_ADDRESS={address} ({str(error).strip().splitlines()[0]}): begin "
            f"one with `ray start --head`, name another address, or unset RAY_ADDRESS. A cluster that was "
            f"begun with a token wants the same RAY_AUTH_MODE and RAY_AUTH_TOKEN here"
        ) from error


def _knock(address: str) -> None:
    """An OSError where nothing listens: Ray itself would try for two minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()


def _begin(ray, machine: Machine) -> None:
    # A token for this Ray alone: by default Ray leaves one in the user's home.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    on_cpu = bool(machine.devices) and _kind_of(machine.devices) == "cpu"
    ray.init(
        "local",
        num_cpus=machine.workers or usable_cores(),
        num_gpus=0 if on_cpu else None,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
    )


def _kind_of(devices: tuple[str, ...]) -> str:
    """The one kind of device that MINDGAP_DEVICES asks a cluster for."""
    if len(devices) != 1 or devices[0] not in ("cpu", "cuda"):
        raise ClusterError(
            f"MINDGAP_DEVICES is {','.join(devices)!r}, but Ray chooses the device of a run: make it cuda or "
            f"cpu (CUDA_VISIBLE_DEVICES, set where a node is started, says which GPUs it lends)"
        )
    return devices[0]


@dataclass
class Placed:
    """A run that was handed to Ray, and where it is once it began."""

    job: Job
    where: str = "a worker that began nothing"


class Cluster:
    """Runs as Ray tasks: one core each; on GPUs a task has one of them and MINDGAP_RUNS_PER_GPU runs."""

    def __init__(self, ray, machine: Machine):
        self._ray, self._machine = ray, machine
        self._kind, self._each = self._device(machine), machine.runs_per_gpu
        # A process that ran on one GPU cannot be given another, nor does it let go of all memory: on GPUs
        # each task has a process of its own, as is Ray's default.
        calls = 1 if self._kind == "cuda" else 0
        self._serve = ray.remote(num_returns="streaming", max_retries=0, max_calls=calls)(serve)
        self._waiting: list[Task] = []  # for a task that they may share
        self._running: dict[Any, dict[str, Placed]] = {}  # by stream and digest
        self._shared = functools.cache(lambda load, path: ray.put(pack(load(path))))

    def _device(self, machine: Machine) -> str:
        gpus = int(self._ray.cluster_resources().get("GPU", 0))
        asked = machine.devices and machine.devices[0].partition(":")[0]
        if asked == "cuda" and not gpus:
            raise ClusterError(
                f"MINDGAP_DEVICES is {','.join(machine.devices)!r}, but no node of the Ray cluster has a "
                f"GPU: add one that has (`ray start` counts the GPUs it sees), or set MINDGAP_DEVICES=cpu"
            )
        return _kind_of(machine.devices) if machine.devices else "cuda" if gpus else "cpu"

    @property
    def free(self) -> bool:
        runs = len(self._waiting) + sum(map(len, self._running.values()))
        if self._machine.workers is not None:
            return runs < self._machine.workers
        have = self._ray.cluster_resources()
        slots = have.get("GPU", 0) * self._each if self._kind == "cuda" else have.get("CPU", 0)
        return runs < slots + AHEAD

    def alone(self) -> None:
        """From now on one run a GPU."""
        self._each = 1

    def start(self, task: Task) -> None:
        self._waiting.append(task)

    @property
    def _together(self) -> int:
        """How many runs a task has."""
        return self._each if self._kind == "cuda" else 1

    def _submit(self) -> None:
        """Hand to Ray what waits, runs of one dataset together."""
        while self._waiting:
            path = self._waiting[0].job.data
            tasks = [task for task in self._waiting if task.job.data == path][: self._together]
            self._waiting = [task for task in self._waiting if task not in tasks]
            starts = dict.fromkeys(task.job.initial for task in tasks if task.job.initial)
            name, gpus = ", ".join(str(task.job) for task in tasks), int(self._kind == "cuda")
            serve = self._serve.options(name=name, num_cpus=1, num_gpus=gpus)
            data = self._shared(mapped, path)
            initial = [self._shared(StoredModel.read, one) for one in starts]
            stream = serve.remote(node_identity(), self._kind, pack((tasks, list(starts))), data, *initial)
            self._running[stream] = {task.job.run.digest: Placed(task.job) for task in tasks}

    def messages(self, seconds: float) -> Iterator[tuple[Job, Message]]:
        """What runs say within so many seconds; `lost` for those that can say nothing any more."""
        self._submit()
        if not self._running:
            return
        for stream in self._ray.wait(list(self._running), timeout=seconds)[0]:
            digest, (kind, value) = self._next(stream)
            if kind == "lost":
                for placed in self._running.pop(stream).values():
                    yield placed.job, ("lost", f"{placed.where} was lost ({value})")
                continue
            placed = self._running[stream][digest]
            if kind == "began":
                placed.where = value
            elif kind in LAST:
                del self._running[stream][digest]
                if not self._running[stream]:
                    del self._running[stream]
            yield placed.job, (kind, value)

    def _next(self, stream) -> tuple[str, Message]:
        errors = self._ray.exceptions
        try:
            digest, (kind, value) = self._ray.get(next(stream))
        except StopIteration:
            return "", ("lost", "it ended without a word")
        except (errors.RayTaskError, errors.RuntimeEnvSetupError, errors.TaskUnschedulableError) as error:
            # A run's own errors are messages: this is the node's.
            raise ClusterError(
                f"a node cannot execute runs; is MindGap installed there as it is here? {error}"
            ) from error
        except errors.RayError as error:
            # Its first sentence says whether the worker died, its node, or the memory of the node did not do.
            return "", ("lost", str(error).strip().partition(". ")[0].rstrip("."))
        if kind == "refused":
            raise ClusterError(value)
        return digest, (kind, value)

    def close(self) -> None:
        for stream in self._running:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.cancel(stream, force=True)
        self._running = {}


def refuse_credentialed(dataset: str) -> None:
    """Ray writes what its memory cannot hold to files of its temporary folder, and where its spilling is
    switched off it maps files there instead: so such a dataset stays out, and weights and records too."""
    if dataset in CREDENTIALED and os.environ.get(ALLOWED) != "1":
        raise ClusterError(
            f"{dataset} is credentialed, and Ray may write it to its temporary folder, on each node: set "
            f"MINDGAP_EXECUTOR=local to run it in processes of this machine; or, where that folder of every "
            f"node (`ray start --temp-dir`) may hold it and is deleted afterwards, set {ALLOWED}=1"
        )


def serve(
    expected: dict[str, str], kind: str, work: Any, data: Any, *initial: Any
) -> Iterator[tuple[str, Message]]:
    """A task on a node: what its runs say, or `refused` where they could not be compared with others.

    Everything but `expected` is packed, so that nothing of another version is unpickled.
    """
    node = socket.gethostname()
    if differing := difference(expected, node_identity()):
        text = (
            f"node {node} has {differing}: install the same there (see docs/cluster.md), or take it from the "
            f"cluster; finished rounds are kept"
        )
        yield "", ("refused", text)
        return
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES") if kind == "cuda" else None
    set_up(device := "cuda:0" if kind == "cuda" else "cpu")
    where = f"{node}, process {os.getpid()}" + (f", GPU {gpus}" if gpus else "")
    tasks, paths = unpack(work)
    starts = dict(zip(paths, initial, strict=True))
    load = functools.cache(lambda _: tensors(unpack(data)).to(device))
    rota = Rota(device, where, load, lambda path: unpack(starts[path]))
    for task in tasks:
        rota.add(task)
    while rota.busy:
        yield from rota.turn()


@functools.cache
def node_identity() -> dict[str, str]:
    """What has to be the same on all nodes for their numbers to belong together."""
    files = set((SOURCE / "parts").rglob("*.py")).union(*outside_parts().values())
    return {"code": code_digest(files)[:16], **versions()}


def difference(expected: dict[str, str], found: dict[str, str]) -> str:
    """ "torch 2.6.0, not 2.5.1 as the driver" for each that differs; empty where nothing does."""
    return ", ".join(
        f"{name} {found.get(name, 'missing')}, not {value} as the driver"
        for name, value in expected.items()
        if found.get(name) != value
    )


def pack(value: Any) -> tuple[bytes, list[np.ndarray]]:
    """A pickle with its large arrays beside it: from Ray's store they are mapped, once a node, not copied."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return data, [np.frombuffer(buffer, np.uint8) for buffer in buffers]


def unpack(packed: tuple[bytes, list[np.ndarray]]) -> Any:
    data, buffers = packed
    return pickle.loads(data, buffers=buffers)


def mapped(path: Path) -> Dataset:
    """A prepared dataset, its tensors as arrays."""
    return _converted(load_dataset(path, verify=False), lambda tensor: tensor.numpy())


def tensors(dataset: Dataset) -> Dataset:
    """The dataset that `mapped` came from; nothing writes to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return _converted(dataset, torch.from_numpy)


def _converted(dataset: Dataset, convert: Callable) -> Dataset:
    def split(one: Split) -> Split:
        group_N = None if one.group_N is None else convert(one.group_N)
        x = {name: convert(values) for name, values in one.x.items()}
        return replace(one, x=x, present_NM=convert(one.present_NM), y_N=convert(one.y_N), group_N=group_N)

    return replace(dataset, train=split(dataset.train), test=split(dataset.test))
