"""Policies: query methods that learn over the rounds of a run, from rewards on the validation set."""

from collections.abc import Callable, Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from mindgap.base.view import PoolView, Reward
from mindgap.parts.query.contract import Policy, QueryError


def take_turn(
    name: str,
    make: Callable[[torch.Generator], Policy],
    view: PoolView,
    n: int,
    seed: int,
    state: bytes | None,
    reward: Reward | None,
) -> tuple[Tensor, bytes]:
    """A policy's round: what it picks (nothing where n is 0), and its arrays as safetensors.

    `seed` is the run's, `state` what the round before left, `reward` what its pick came to.
    """
    device = view.device

    def made(state: bytes | None) -> Policy:
        rng = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed + 1)
        policy = make(rng)
        if state is not None:
            policy.load(load(state))
        rng.manual_seed(seed + 2 * view.round + 2)
        torch.manual_seed(seed + 2 * view.round + 3)
        return policy

    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        policy = made(state)
        if reward is not None:
            policy.learn(reward, view)
        picks = policy.pick(view, n) if n else torch.zeros(0, dtype=torch.int64)
        arrays = checked_state(name, policy.state(), view.round)
        stored = _stored(name, arrays)
        check_same(name, arrays, checked_state(name, made(stored).state(), view.round))
    return picks, stored


def checked_state(name: str, state: Mapping[str, Tensor], round: int) -> dict[str, Tensor]:
    """Copies of a policy's arrays on the host; a QueryError for what is none, or not finite."""
    if not isinstance(state, Mapping):
        raise QueryError(
            f"query method {name!r}: state() gave {type(state).__name__}; return a dict of names and tensors"
        )
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor) or value.layout != torch.strided:
            raise QueryError(
                f"query method {name!r}: {key!r} of its state is {type(value).__name__}; return names and "
                f"dense tensors: torch.tensor(...) makes one of a number or a list"
            )
        if bad := int((~value.isfinite()).sum()):
            raise QueryError(
                f"query method {name!r}: {key!r} of its state is not finite in {bad} of {value.numel()} "
                f"values in round {round}; let it learn in smaller steps. Finished rounds are kept"
            )
    return {key: value.detach().to("cpu", copy=True).contiguous() for key, value in state.items()}


def _stored(name: str, arrays: Mapping[str, Tensor]) -> bytes:
    try:
        return save(dict(arrays))
    except (SafetensorError, KeyError, ValueError) as error:
        raise QueryError(
            f"query method {name!r}: its state cannot be stored ({error}); use plain numbers and other names"
        ) from error


def check_same(name: str, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
    """Raise where a policy that was made anew and loaded is not the one that it was."""
    for key in {**before, **after}:
        was, now = before.get(key), after.get(key)
        if was is None or now is None or was.shape != now.shape or was.dtype != now.dtype:
            fault = f"is {_told(now)} after load(state), and was {_told(was)}"
        elif not torch.equal(was, now):
            fault = "has other values after load(state)"
        else:
            continue
        raise QueryError(
            f"query method {name!r}: {key!r} of its state {fault}; let load put back all that state gives, "
            f"else no interrupted run could go on"
        )


def _told(value: Tensor | None) -> str:
    return "missing" if value is None else f"{value.dtype} of shape {tuple(value.shape)}"
