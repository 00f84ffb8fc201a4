"""Code of a part at work: what it raises is told in a line; what would spoil numbers unseen is refused."""

import contextlib
import inspect
import random
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mindgap.base.errors import MindGapError


class PartError(MindGapError):
    """A part's code failed, or did what no part may do."""


def _on_gpu() -> bytes:
    return torch.cuda.get_rng_state().numpy().tobytes() if torch.cuda.is_initialized() else b""


def _of_numpy() -> tuple[bytes, Any]:
    state: dict[str, Any] = np.random.get_state(legacy=False)
    return state["state"].pop("key").tobytes(), state


# What nobody seeds for a run, and so no part may draw from.
GENERATORS: Mapping[str, Callable[[], Any]] = {
    "torch's own generator": lambda: torch.get_rng_state().numpy().tobytes(),
    "torch's own generator on the GPU": _on_gpu,
    "numpy's own generator (np.random)": _of_numpy,
    "Python's own generator (random)": random.getstate,
}


@contextlib.contextmanager
def at_work(
    part: str,
    code: object,
    rng: str = "",
    shared: Mapping[str, Tensor] | None = None,
    expected: type[Exception] = MindGapError,
) -> Iterator[None]:
    """`code` at work as a part, which messages name.

    A PartError for what it raises, but for what is `expected` or of memory; for a draw from anything but
    `rng`, where one is named; and for a change in place of tensors that are `shared` with others, by name.
    """
    states = {name: state() for name, state in GENERATORS.items()} if rng else {}
    versions = [(name, tensor, tensor._version) for name, tensor in (shared or {}).items()]
    try:
        yield
    except Exception as error:  # whatever a stranger's code raises
        if isinstance(error, MindGapError | expected) or out_of_memory(error):
            raise
        raise failed(part, error, file_of(code)) from error
    for name, before in states.items():
        if GENERATORS[name]() != before:
            raise PartError(f"{part} draws from {name}, so no run could be repeated: draw from {rng}")
    for name, tensor, version in versions:
        if tensor._version != version:
            raise PartError(f"{part} changes {name} in place, which others read too: work on its .clone()")


def failed(part: str, error: Exception, file: str = "") -> PartError:
    """What a part raised, and where: its last line in that file, else the last of all."""
    frames = traceback.extract_tb(error.__traceback__)
    last = [one for one in frames if one.filename == file][-1:] or frames[-1:]
    where = "".join(f" ({one.filename}, line {one.lineno}, in {one.name})" for one in last)
    told = " ".join(str(error).split())
    return PartError(f"{part} failed with {type(error).__name__}: {told}{where}: mend it, or take another")


def out_of_memory(error: Exception) -> bool:
    """Whether a GPU's memory did not do; its libraries say so in words of their own."""
    words = ("CUDA error: out of memory", "STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)


def file_of(code: Any) -> str:
    """Where a function or class is written, as far as that is known."""
    try:
        return inspect.getfile(inspect.unwrap(getattr(code, "func", code)))
    except TypeError:  # of a notebook
        return ""
