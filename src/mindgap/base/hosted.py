"""What makes a training step a function of its inputs: dropout without draws, statistics of chosen rows only.

A step draws nothing on its device. The host draws a key for each sample; from it and a position arithmetic of
whole numbers makes the same mask on every device, whatever else is in the batch. And rows that only fill a
batch, or lack a modality, count nowhere. `hosted` brings both to any module made of torch's own parts.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from mindgap.base.at_work import PartError

# Axes: B rows, L layers that drop, C channels.
KEYS = 2**32  # keys, and what is made of them, are below
ODD = 0x45D9F3B  # times a number below KEYS it stays below 2^63


def mixed(x: Tensor) -> Tensor:
    """Whole numbers below KEYS, each bit of them dependent on every bit of x (a hash by T. Mueller)."""
    for _ in range(2):
        x = ((x ^ (x >> 16)) * ODD) & (KEYS - 1)
    return x ^ (x >> 16)


class Dropping(nn.Module):
    """What drops at the rate `p` in training; `draw` gives it a number for each row, `seed_B`, for a step."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p
        self.seed_B: Tensor | None = None

    def kept(self, draws: Tensor, dtype: torch.dtype) -> Tensor:
        """1 / (1 - p) where a draw below KEYS says so, else 0."""
        return (draws >= int(self.p * KEYS)).to(dtype).mul_(1 / (1 - self.p))

    @property
    def seed_of_step(self) -> Tensor | None:
        """`seed_B` where something is dropped: in training, at a rate above 0."""
        if not self.training or self.p <= 0:
            return None
        if self.seed_B is None:
            raise PartError("a layer that drops has no draws for this step: call mindgap.base.hosted.draw")
        return self.seed_B

    def extra_repr(self) -> str:
        return f"p={self.p}"


@lru_cache(maxsize=64)
def positions(shape: torch.Size, device: torch.device) -> Tensor:
    """A number for each place of a row, axis by axis: where one is cut short the others stay as they are."""
    place = torch.zeros((), dtype=torch.int64, device=device)
    for size in shape:
        place = mixed(place.unsqueeze(-1) + torch.arange(1, size + 1, device=device) * ODD % KEYS)
    return place


class Dropout(Dropping):
    """Each number of a row is dropped by itself: the twin of nn.Dropout."""

    def forward(self, x_B: Tensor) -> Tensor:
        if (seed_B := self.seed_of_step) is None:
            return x_B
        # What is kept for later must not be made in a recording: on a GPU it is made anew.
        place = (positions if x_B.device.type == "cpu" else positions.__wrapped__)(x_B.shape[1:], x_B.device)
        seed_B = seed_B.view(-1, *[1] * (x_B.dim() - 1))
        exact = torch.promote_types(x_B.dtype, torch.float32)  # of bf16 the factor would be 0.2 % off
        return (x_B * self.kept(mixed(seed_B ^ place), exact)).to(x_B.dtype)


class StochasticDepth(Dropping):
    """Whole rows are dropped: the twin of torchvision's, mode "row"."""

    def forward(self, x_B: Tensor) -> Tensor:
        if (seed_B := self.seed_of_step) is None:
            return x_B
        return x_B * self.kept(seed_B, x_B.dtype).view(-1, *[1] * (x_B.dim() - 1))


def draw(layers: Sequence[Dropping], key_B: Tensor) -> None:
    """Give each layer its numbers for a step, from one key a row below KEYS."""
    if layers:
        layer_L1 = torch.arange(1, len(layers) + 1, device=key_B.device).unsqueeze(1)
        for layer, seed_B in zip(layers, mixed(mixed(layer_L1) ^ key_B), strict=True):
            layer.seed_B = seed_B


def dropping(*modules: nn.Module) -> list[Dropping]:
    """The layers of modules that drop anything, in their order."""
    return [
        layer for one in modules for layer in one.modules() if isinstance(layer, Dropping) and layer.p > 0
    ]


def norms(*modules: nn.Module) -> list["RowNorm"]:
    return [layer for one in modules for layer in one.modules() if isinstance(layer, RowNorm)]


class RowNorm(_BatchNorm):
    """A batch norm that can leave rows out: those that do not count in `rows`, if it has them.

    Outputs, gradients and running statistics are those of the other rows alone. In training with rows
    nothing is moved until `settle`.
    """

    momentum: float
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, like: _BatchNorm):
        super().__init__(like.num_features, like.eps, like.momentum, like.affine)
        self._parameters, self._buffers = like._parameters, like._buffers
        self.rows: Rows | None = None
        self.seen: list[tuple[Tensor, Tensor, RowCount]] = []  # of each call since `counting`

    def _check_input_dim(self, x: Tensor) -> None:
        """Any number of axes."""

    def forward(self, x_BC: Tensor) -> Tensor:
        one = x_BC.numel() == x_BC.shape[1]  # value a channel, whose statistics torch refuses: they are none
        if not self.training or (self.rows is None and not one):
            return super().forward(x_BC)
        rows = self.rows or Rows(x_BC.new_ones(1), x_BC.dtype)
        places = x_BC[0, 0].numel()
        norm = _fused if x_BC.device.type == "cuda" else _plain
        out_BC, mean_C, var_C = norm(x_BC, rows, places, self.weight, self.bias, self.eps)
        if self.rows:
            self.seen.append((mean_C.detach(), var_C.detach(), rows.count(places)))
        return out_BC


class Rows:
    """Which rows of a batch count, and how many values a channel that makes: the same for many layers."""

    def __init__(self, weight_B: Tensor, dtype: torch.dtype = torch.float32):
        self.weight_B, self.sum = weight_B, weight_B.sum().to(dtype)
        self._counts: dict[int, RowCount] = {}

    def count(self, places: int) -> "RowCount":
        """Of so many values a row."""
        if places not in self._counts:
            count = (self.sum * places).clamp(min=1)
            in_all = len(self.weight_B) * places
            self._counts[places] = RowCount(
                count, in_all / count, count / (count - 1).clamp(min=1), count.to(torch.int32).view(1)
            )
        return self._counts[places]


class RowCount(NamedTuple):
    """Values a channel that count; how many times more there are in all; what makes a variance unbiased."""

    values: Tensor
    ratio: Tensor
    unbiased: Tensor
    as_int: Tensor


def counting(layers: Sequence[RowNorm], rows: Rows | None) -> None:
    """Which rows count in the next pass: all without `rows`."""
    for layer in layers:
        layer.rows, layer.seen = rows, []


@torch.no_grad()
def settle(layers: Sequence[RowNorm]) -> None:
    """Move running statistics by what a step has seen; not at all where fewer than two values counted."""
    while layers := [layer for layer in layers if layer.seen]:
        seen = {layer: layer.seen.pop(0) for layer in layers}
        for kind in dict.fromkeys((layer.momentum, id(seen[layer][2])) for layer in layers):
            alike = [layer for layer in layers if (layer.momentum, id(seen[layer][2])) == kind]
            means, variances, (count, *_) = zip(*(seen[layer] for layer in alike), strict=True)
            some = count.values > 1
            variances = torch._foreach_mul(variances, count.unbiased)
            held = [layer.running_mean for layer in alike] + [layer.running_var for layer in alike]
            step = torch._foreach_sub([*means, *variances], held)
            torch._foreach_mul_(step, some.to(step[0].dtype) * kind[0])
            torch._foreach_add_(held, step)
            passed = [layer.num_batches_tracked for layer in alike]
            torch._foreach_add_(passed, [some.to(torch.int64)] * len(passed))


Affine = Tensor | None
Normed = tuple[Tensor, Tensor, Tensor]  # output, and mean and biased variance of each channel


def _plain(x_BC: Tensor, rows: Rows, places: int, gamma_C: Affine, beta_C: Affine, eps: float) -> Normed:
    """In plain operations, exact: the mean is taken off before anything is squared."""
    axes, shape = [0, *range(2, x_BC.dim())], [1, -1, *[1] * (x_BC.dim() - 2)]
    weight, count = _as_weight(rows, x_BC), rows.count(places).values
    mean = (x_BC * weight).sum(axes, keepdim=True) / count
    centred = (x_BC - mean) * weight
    var = centred.square().sum(axes, keepdim=True) / count
    out = centred * (var + eps).rsqrt()
    if gamma_C is not None and beta_C is not None:
        out = out * gamma_C.view(shape) + beta_C.view(shape)
    return out, mean.flatten(), var.flatten()


def _fused(x_BC: Tensor, rows: Rows, places: int, gamma_C: Affine, beta_C: Affine, eps: float) -> Normed:
    """By the kernels of PyTorch's synchronised batch norm: a GPU's native speed."""
    count = rows.count(places)
    weight = _as_weight(rows, x_BC)
    normed: Normed = _Fused.apply(x_BC, weight, count.ratio, count.as_int, gamma_C, beta_C, eps)
    return normed


def _as_weight(rows: Rows, x_BC: Tensor) -> Tensor:
    return rows.weight_B.to(x_BC.dtype).view(-1, *[1] * (x_BC.dim() - 1))


class _Fused(torch.autograd.Function):
    """Of N values a channel n count and the others are made 0, so that with r = N / n all sums are known.

    mean = r mean0 and var = r (var0 + mean0^2) - mean^2, where the kernel gives mean0 and var0 of all N.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x_BC: Tensor,
        weight: Tensor,
        ratio: Tensor,
        count: Tensor,
        gamma_C: Affine,
        beta_C: Affine,
        eps: float,
    ) -> Normed:
        x_BC = _dense(x_BC * weight)
        mean0_C, invstd0_C = torch.batch_norm_stats(x_BC, eps)
        mean_C = mean0_C * ratio
        square_C = torch.addcmul(invstd0_C.pow(-2) - eps, mean0_C, mean0_C) * ratio
        var_C = torch.addcmul(square_C, mean_C, mean_C, value=-1).clamp_(min=0)
        invstd_C = (var_C + eps).rsqrt_()
        ctx.save_for_backward(x_BC, weight, count, gamma_C, mean_C, invstd_C)
        ctx.mark_non_differentiable(mean_C, var_C)
        return torch.batch_norm_elemt(x_BC, gamma_C, beta_C, mean_C, invstd_C, eps), mean_C, var_C

    @staticmethod
    def backward(ctx: Any, grad_BC: Tensor, *_: Tensor) -> tuple[Affine, ...]:
        x_BC, weight, count, gamma_C, mean_C, invstd_C = ctx.saved_tensors
        grad_BC = _dense(grad_BC)  # 0 in rows of weight 0: nothing that is made of them reaches a loss
        affine = gamma_C is not None
        sum_C, sum_centred_C, gamma_grad_C, beta_grad_C = torch.batch_norm_backward_reduce(
            grad_BC, x_BC, mean_C, invstd_C, gamma_C, True, affine, affine
        )
        x_grad_BC = torch.batch_norm_backward_elemt(
            grad_BC, x_BC, mean_C, invstd_C, gamma_C, sum_C, sum_centred_C, count
        )
        return x_grad_BC * weight, None, None, None, gamma_grad_C, beta_grad_C, None


def _dense(x: Tensor) -> Tensor:
    return x if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) else x.contiguous()


# By name: torchvision is slow to import.
TWINS: dict[str, Callable[[Any], Dropping]] = {"Dropout": Dropout, "StochasticDepth": StochasticDepth}


def hosted(module: nn.Module) -> nn.Module:
    """The module with twins in place of what draws and of batch norms; what has none is refused, by name."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            twin = _twin(child)
            if twin is not child:
                setattr(parent, name, twin.train(child.training))
    return _twin(module)


def _twin(module: nn.Module) -> nn.Module:
    kind = type(module).__name__
    if isinstance(module, Dropping | RowNorm):
        return module
    if kind in TWINS and (kind == "Dropout" or module.mode == "row"):
        return TWINS[kind](module.p)
    if isinstance(module, _BatchNorm) and kind != "SyncBatchNorm" and _settled(module):
        return RowNorm(module)
    hidden = isinstance(module, nn.MultiheadAttention | nn.TransformerEncoderLayer | nn.RNNBase)
    if isinstance(module, _DropoutNd | _BatchNorm | nn.RReLU) or (
        hidden and module.training and _rate(module)
    ):
        raise PartError(
            f"{kind} cannot be part of a training step: it draws on its device, or takes statistics of rows "
            f"that only fill a batch. Use nn.Dropout, nn.BatchNorm1d to 3d with running statistics, or "
            f"modules of mindgap.base.hosted, which count and draw by row"
        )
    return module


def _settled(norm: _BatchNorm) -> bool:
    return norm.momentum is not None and norm.track_running_stats


def _rate(module: nn.Module) -> float:
    dropout: Any = module.dropout
    return float(dropout.p if isinstance(dropout, _DropoutNd | Dropping) else dropout)
