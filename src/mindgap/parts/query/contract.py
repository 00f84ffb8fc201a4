"""What a query method is, what it must return, and the errors that say which rule was broken."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from mindgap.base.errors import MindGapError
from mindgap.base.view import PoolView, Reward

# What a policy has.
OF_A_POLICY = ("pick", "learn", "state", "load")


class QueryError(MindGapError, ValueError):
    """A query method, its settings or its input broke the contract."""


class Policy(Protocol):
    """A query method as an object: `METHODS` has its class where it would have a function.

    Each round makes the object anew, as `cls(rng, **settings)`, and hands `load` what `state` gave in the
    round before; then come `learn`, `pick` and `state`. So nothing passes from round to round but these
    arrays, and a run that was interrupted after any round goes on bit for bit. `rng` and torch's own
    generators, which may be used here, are seeded by the run while the object is made, then by the round too.
    """

    def pick(self, view: PoolView, n: int) -> Tensor:
        """n distinct positions in the view (int64); n is at least 1."""

    def learn(self, reward: Reward, view: PoolView) -> None:
        """Learn from what the pick of the round before came to. Called after the training that followed it:
        not in round 0, and in the last round too. `view` is of the new model; the next pick gets it too.
        """

    def state(self) -> Mapping[str, Tensor]:
        """All that the next round needs: arrays by name, of any shape and dtype, finite, on any device."""

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave; the arrays are copies on the host."""


@dataclass(frozen=True)
class Method:
    """A query method and how it is to be reported.

    `fn` is a function `fn(view, n, **hyperparameters)` or the class of a policy, from which one is made by
    `fn(rng, **hyperparameters)` (`Policy`).

    A control is a measuring rod, not a competitor; a reconstruction is ours, of a method without public code;
    an oracle sees the labels of the pool; `dropout`: it asks for Monte-Carlo passes, so its model has to have
    dropout before the linear layer.
    """

    fn: Callable[..., Tensor] | type[Policy]
    kind: Literal["query", "control", "reconstruction"] = "query"
    oracle: bool = False
    dropout: bool = False

    def __post_init__(self) -> None:
        lacking = [name for name in OF_A_POLICY if not callable(getattr(self.fn, name, None))]
        if self.learns and lacking:
            raise QueryError(
                f"{self.fn.__name__} is a class without {', '.join(lacking)}: a policy has "
                f"{', '.join(OF_A_POLICY)} (mindgap.parts.query.contract.Policy); a method that learns "
                f"nothing is a function"
            )

    @property
    def learns(self) -> bool:
        """Whether it is a policy."""
        return isinstance(self.fn, type)

    @property
    def given(self) -> int:
        """How many arguments stand before its hyper-parameters: view and n, or a policy's rng."""
        return 1 if self.learns else 2


def clamp(n: int, size: int) -> int:
    """n, or the size of the pool where n asks for more than there is."""
    if n < 0:
        raise QueryError(f"cannot pick {n} samples; ask for 0 or more")
    if n > size:
        warnings.warn(f"asked for {n} of {size} samples; taking all {size}", stacklevel=3)
    return min(n, size)


def check_finite(**tensors: Tensor) -> None:
    """Raise for the first tensor that holds NaN or infinity, naming it and its first such row."""
    for name, tensor in tensors.items():
        # the sum first: it needs no temporary of the tensor's size
        if tensor.sum().isfinite() or not (bad := ~tensor.isfinite()).any():
            continue
        rows = bad.reshape(len(bad), -1).any(1).nonzero()[:, 0]
        raise QueryError(
            f"{name} is not finite in {len(rows)} of {len(bad)} rows, the first is row {rows[0]}; "
            f"a model that diverged cannot rank the pool: lower its learning rate or look at its inputs"
        )


def check_picks(name: str, picks: Tensor, n: int, size: int) -> Tensor:
    """The picks as int64, once they are n distinct positions below size."""
    if (
        not isinstance(picks, Tensor)
        or picks.dim() != 1
        or picks.dtype == torch.bool
        or picks.is_floating_point()
    ):
        got = (
            f"{picks.dtype} of shape {tuple(picks.shape)}"
            if isinstance(picks, Tensor)
            else type(picks).__name__
        )
        raise QueryError(
            f"query method {name!r} returned {got}; return a 1-d integer tensor of positions in the view"
        )
    if len(picks) != n:
        raise QueryError(f"query method {name!r} returned {len(picks)} positions, {n} were asked for")
    if len(outside := picks[(picks < 0) | (picks >= size)]):
        raise QueryError(
            f"query method {name!r} returned positions outside 0..{size - 1}: {outside[:5].tolist()}; "
            f"return positions in the view, not ids of the dataset"
        )
    values, counts = picks.unique(return_counts=True)
    if len(twice := values[counts > 1]):
        raise QueryError(
            f"query method {name!r} returned {len(twice)} positions more than once: {twice[:5].tolist()}; "
            f"set the score of a chosen sample to the lowest before the next pick"
        )
    return picks.long()
