"""Runs that are slow, fail or want too much memory, in whatever process they execute: their settings register
the query methods below where they are unpickled.
"""

import threading
import time
from dataclasses import replace
from pathlib import Path

import torch

from mindgap.core.loop import Cell
from mindgap.core.params import Params
from mindgap.core.records import numbers_digest
from mindgap.data.dataset import load_dataset
from mindgap.engine.jobs import Job, StoredModel
from mindgap.parts.query import METHODS
from mindgap.parts.query.contract import Method
from mindgap.stages.paths import places
from mindgap.stages.runs import run_of


def slow(view, n: int, seconds: float = 1.0) -> torch.Tensor:
    """The first n, after a while."""
    time.sleep(seconds)
    return torch.arange(n)


def failing(view, n: int) -> torch.Tensor:
    raise ZeroDivisionError("as it must")


def hungry(view, n: int, most: int = 64) -> torch.Tensor:
    """The first n where no pass encodes more than `most` rows, else the error of a GPU without memory."""

    def check(module, inputs):
        if len(inputs[0]) > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nMore of it.")

    for module in view._model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_pre_hook(check)
    view.probs_NC  # noqa: B018
    return torch.arange(n)


FAULTY = {"slow": Method(slow), "slower": Method(slow), "failing": Method(failing), "hungry": Method(hungry)}


class Settings(dict):
    """Query settings with the methods they are for."""

    def __reduce__(self):
        return _registered, (dict(self),)


def _registered(settings: dict) -> Settings:
    METHODS.update(FAULTY)
    return Settings(settings)


def job_of(
    params: Params,
    query: str,
    seed: int = 0,
    store: Path | None = None,
    mitigation: str = "moddrop",
    **settings,
) -> Job:
    """A run of the project in the working folder whose initial models are trained."""
    where, cell = places("missing"), Cell("missing", "low", mitigation, seed, query)
    initial = where.models / "missing-low" / f"{mitigation}-{seed}"
    digest = numbers_digest(StoredModel.read(initial).record)
    METHODS.update(FAULTY)
    try:
        run = run_of(params, cell, load_dataset(where.prepared, verify=False), digest)
    finally:
        for name in FAULTY:
            del METHODS[name]
    if query in FAULTY:
        run = replace(run, query_settings=Settings(settings))
    return Job(run, where.prepared, store or where.store, initial)


def when(condition, act, seconds=60.0) -> threading.Thread:
    """A thread that acts as soon as a condition gives something."""

    def watch():
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := condition():
                return act(found)
            time.sleep(0.05)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread
