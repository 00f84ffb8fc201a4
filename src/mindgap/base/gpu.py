"""What a GPU wants and a CPU does not need: equal shapes, transfers that nobody waits for, recorded kernels.

A new shape costs cuDNN seconds, and small kernels are bound by their launches (about 1,900 for a step of two
EfficientNet-B0); a CUDA graph launches a recorded sequence at once. The kernels are the same ones, and so are
the numbers. Without a GPU everything here is the plain call.
"""

import contextlib
import os
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from types import CodeType
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
WARM_UP = 3  # calls before a recording: libraries choose their kernels and workspaces in the first
RECORD_AT = 2  # calls of a pass: one that comes but once would cost more than it saves
# Rows of a large pass on a GPU: fewer are over before all their kernels are launched, more gain nothing.
PASS = 2048

_on = True


@contextlib.contextmanager
def graphs(enabled: bool) -> Iterator[None]:
    """With or without recordings on a GPU; without, every kernel is launched by itself."""
    global _on
    before, _on = _on, enabled
    try:
        yield
    finally:
        _on = before


@dataclass
class Engine:
    """How one run at a time is computed on a device, and what is kept for the next: no number depends on it.

    `pad`: an encoder gets the same number of rows in every step, and one of two in every pass. `record`:
    steps and passes are replayed from CUDA graphs. `divisor`: a pass has so many times fewer rows.
    """

    device: torch.device
    pad: bool
    record: bool
    divisor: int = 1
    kept: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    stream: "torch.cuda.Stream | None" = None

    @classmethod
    def of(cls, device: torch.device | str, divisor: int = 1) -> "Engine":
        """As suits a device."""
        device = torch.device(device)
        on_gpu = device.type == "cuda"
        return cls(device, pad=on_gpu, record=on_gpu and _on, divisor=divisor)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Engine":
        """A copy of a model is on the same engine."""
        return self

    def keep(self, name: str, key: Any, make: Callable[[], Any]) -> Any:
        """What was made for this key, or made now in place of what was kept under the name."""
        if name not in self.kept or self.kept[name][0] != key:
            self.kept.pop(name, None)
            self.kept[name] = key, make()
        return self.kept[name][1]

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """While this run has its turn: on a GPU its kernels go to a stream of its own."""
        if self.device.type != "cuda":
            yield
            return
        if self.stream is None:
            torch.cuda.synchronize(self.device)  # what the stream reads is there
            self.stream = torch.cuda.Stream(self.device)
        with torch.cuda.device(self.device), torch.cuda.stream(self.stream):
            yield


def reproducible() -> None:
    """Only kernels that give the same bits twice, in this process."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def send(x: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on `device`, without waiting for what the device still has to do."""
    if device.type != "cuda" or x.device.type == "cuda":
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)


def fetched(x: Tensor) -> Generator[None, None, list[Any]]:
    """The numbers of a tensor; while a GPU works on them, control is handed back."""
    if x.device.type != "cuda":
        return x.tolist()
    here, there = torch.empty(x.shape, dtype=x.dtype, pin_memory=True), torch.cuda.Event()
    here.copy_(x, non_blocking=True)
    there.record()
    while not there.query():
        yield
    return here.tolist()


def repeat(step: Callable[[], None], times: int, device: torch.device) -> None:
    """Call `step` so many times; on a GPU it is recorded once and replayed.

    `step` works in place on tensors that exist already, all on `device`, and looks at no value of theirs:
    counters are tensors too, and no shape depends on what a tensor holds.
    """
    if device.type != "cuda" or not _on or times <= WARM_UP:
        for _ in range(times):
            step()
        return
    with _beside(device):
        for _ in range(WARM_UP):
            step()
    graph, _ = captured(step)
    for _ in range(times - WARM_UP):
        graph.replay()


@contextlib.contextmanager
def _beside(device: torch.device) -> Iterator[None]:
    """A stream beside the current one, on which a recording wants its warm-up; joined at the end."""
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream(device).wait_stream(stream)


def captured(function: Callable[[], T]) -> tuple["torch.cuda.CUDAGraph", T]:
    """The function as a graph, and the tensors that a replay fills; nothing of it is computed now."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        out = function()
    return graph, out


class Passes:
    """Calls of functions of tensors without gradients, replayed from recordings where `record` says so.

    They read the weights where these lie now: change weights in place only.
    """

    def __init__(self) -> None:
        self._calls: Counter[tuple[Any, ...]] = Counter()
        self._recorded: dict[tuple[Any, ...], Callable[..., Tensor]] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> "Passes":
        """None are recorded of a copy of a model: it has weights of its own."""
        return Passes()

    def __call__(self, record: bool, name: str, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """function(*inputs), which looks at no value of theirs."""
        if not record or torch.is_grad_enabled():
            return function(*inputs)
        shapes = tuple((tuple(x.shape), x.dtype) for x in inputs)
        key = (name, torch.is_autocast_enabled("cuda"), shapes)
        if key not in self._recorded:
            self._calls[key] += 1
            if self._calls[key] < RECORD_AT:
                return function(*inputs)
            self._recorded[key] = _recorded_pass(function, inputs)
        return self._recorded[key](*inputs)


def _recorded_pass(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Callable[..., Tensor]:
    held = [x.clone() for x in inputs]
    with _beside(inputs[0].device):
        for _ in range(WARM_UP):
            function(*held)
    graph, out = captured(lambda: function(*held))

    def replay(*inputs: Tensor) -> Tensor:
        for into, x in zip(held, inputs, strict=True):
            into.copy_(x)
        graph.replay()
        return out.clone()

    return replay


def recorded_step(step: Callable[[], None], state: Sequence[Tensor]) -> Callable[[], None]:
    """The step as a recording; `state` is all that it changes, which is left as it was.

    Raises what a step raises that looks at a value.
    """
    before = [x.clone() for x in state]
    device = state[0].device
    try:
        with _beside(device), nobody_waits():
            for _ in range(WARM_UP):
                step()
        graph, _ = captured(step)
    finally:
        with torch.no_grad():
            torch._foreach_copy_(list(state), before)
    return graph.replay


@contextlib.contextmanager
def nobody_waits() -> Iterator[None]:
    """Whatever would wait for the GPU raises an error, at its place in the code."""
    try:
        with warnings.catch_warnings():  # torch says once that this is a prototype
            warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _codes(error: BaseException) -> list[CodeType]:
    """Of the functions that an error passed through."""
    return [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]


def culprit(error: BaseException, kinds: Sequence[type]) -> str:
    """The method of one of these classes in which an error arose, as "Class.method", the innermost; or what
    the error says.
    """
    return culprit_of(error, kinds)[1] or str(error).splitlines()[0]


def culprit_of(error: BaseException, kinds: Sequence[type]) -> tuple[object, str]:
    """The same with whose method it is; None and "" where there is none. Torch's own modules are not to blame
    but for what calls them.
    """
    found: tuple[object, str] = None, ""
    if error.__context__ is not None and captured.__code__ in _codes(error.__context__):
        error = error.__context__  # to end a recording that failed is an error of its own
    for frame, _ in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        if isinstance(owner, tuple(kinds)) and not type(owner).__module__.startswith("torch."):
            found = owner, f"{type(owner).__name__}.{frame.f_code.co_name}"
    return found
