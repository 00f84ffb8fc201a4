"""What a GPU wants and a CPU does not need: transfers that nobody waits for, and recorded kernels.

A step of small kernels is bound by their launches (about 1,850 for two EfficientNet-B0); a CUDA graph
launches a recorded sequence at once. The kernels are the same ones, and so are the numbers. Without a GPU
everything here is the plain call.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

WARM_UP = 3  # calls before a recording: libraries choose their kernels and workspaces in the first
# A shape is recorded when it comes for the third time: one that comes twice would cost more than it saves.
RECORD_AT = 3
# Recordings of a function; each holds gradients of its own (20 MB for EfficientNet-B0).
MOST_RECORDINGS = 64

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


def send(x: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on `device`, without waiting for what the device still has to do."""
    if device.type != "cuda" or x.device.type == "cuda":
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)


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
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        step()
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


class Part(nn.Module):
    """A function of tensors together with the modules whose weights it uses."""

    def __init__(self, function: Callable[..., Tensor], modules: Sequence[nn.Module]):
        super().__init__()
        self.function, self.used = function, nn.ModuleList(modules)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


class Recordings:
    """Calls of a model's functions, on a GPU replayed from recordings, one for each shape of the inputs.

    They read the weights where these lie now: change weights in place only. An output holds until the same
    function is called again with the same shapes in training; outside training it is a copy.
    """

    def __init__(self) -> None:
        self._calls: Counter[tuple] = Counter()
        self._recorded: dict[tuple, Callable[..., Tensor]] = {}
        self._pools: dict[tuple, tuple] = {}

    def __call__(
        self, name: str, function: Callable[..., Tensor], modules: Sequence[nn.Module], *inputs: Tensor
    ) -> Tensor:
        """function(*inputs), a function of tensors that looks at none of their values."""
        training = modules[0].training
        if not _on or inputs[0].device.type != "cuda" or training != torch.is_grad_enabled():
            return function(*inputs)
        shapes = tuple((tuple(x.shape), x.dtype, x.requires_grad) for x in inputs)
        key = (name, training, torch.is_autocast_enabled("cuda"), shapes)
        if key not in self._recorded:
            self._calls[key] += 1
            if self._calls[key] < RECORD_AT or self._full(name, training):
                return function(*inputs)
            record = record_training if training else record_inference
            # Shapes share memory: only one recording of a function is in use at a time.
            pool = self._pools.setdefault((name, training), torch.cuda.graph_pool_handle())
            self._recorded[key] = record(function, modules, inputs, pool)
        return self._recorded[key](*inputs)

    def _full(self, name: str, training: bool) -> bool:
        return sum(key[:2] == (name, training) for key in self._recorded) >= MOST_RECORDINGS


def record_training(
    function: Callable[..., Tensor], modules: Sequence[nn.Module], inputs: Sequence[Tensor], pool: tuple
) -> Callable[..., Tensor]:
    """The function and its backward pass as two recordings, which autograd calls like any other function.

    What recording does to batch statistics and to the random state is undone.
    """
    part = Part(function, modules).train()
    buffers = {name: buffer.clone() for name, buffer in part.named_buffers()}
    device = inputs[0].device
    random_state = torch.cuda.get_rng_state(device)
    samples = tuple(x.detach().clone().requires_grad_(x.requires_grad) for x in inputs)
    recorded = torch.cuda.make_graphed_callables(part, samples, allow_unused_input=True, pool=pool)
    torch.cuda.set_rng_state(random_state, device)
    with torch.no_grad():
        for name, buffer in part.named_buffers():
            buffer.copy_(buffers[name])
    return recorded


def record_inference(
    function: Callable[..., Tensor], modules: Sequence[nn.Module], inputs: Sequence[Tensor], pool: tuple
) -> Callable[..., Tensor]:
    """The function as one recording."""
    held = [x.clone() for x in inputs]
    with _beside(inputs[0].device):
        for _ in range(WARM_UP):
            function(*held)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        out = function(*held)

    def replay(*inputs: Tensor) -> Tensor:
        for into, x in zip(held, inputs, strict=True):
            into.copy_(x)
        graph.replay()
        return out.clone()

    return replay
