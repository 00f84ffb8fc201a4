"""Find a query method by name, check its settings before any compute, call it and check what it picks."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from mindgap.base.at_work import at_work
from mindgap.base.settings import checked, defaults
from mindgap.base.view import PoolView, Reward
from mindgap.parts.query import METHODS
from mindgap.parts.query.contract import Method, QueryError, check_picks, clamp
from mindgap.parts.query.policy import take_turn


def lookup(name: str) -> Method:
    """The method of that name; an unknown one is an error that lists the known ones."""
    if name not in METHODS:
        raise QueryError(f"unknown query method {name!r}; known: {', '.join(METHODS)}")
    return METHODS[name]


def hyperparameters(name: str) -> dict[str, Any]:
    """A method's hyper-parameters with their defaults; one without a default has to be given."""
    method = lookup(name)
    return defaults(method.fn, method.given)


def check_settings(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as the method's annotations want them; a SettingsError names each that it cannot take."""
    method = lookup(name)
    return checked(f"query_settings.{name}", method.fn, method.given, settings)


def select(name: str, view: PoolView, n: int, settings: Mapping[str, Any] | None = None) -> Tensor:
    """n distinct positions in the view, picked by the method; whatever it returns is checked.

    A pool smaller than n is taken whole, with a warning. A policy picks as in its first round.
    """
    return choose(name, view, n, settings or {})[0]


def choose(
    name: str,
    view: PoolView,
    n: int,
    settings: Mapping[str, Any],
    seed: int = 0,
    state: bytes | None = None,
    reward: Reward | None = None,
) -> tuple[Tensor, bytes | None]:
    """As `select`; and what a policy leaves for the next round, None of a function.

    What stands behind `settings` is for a policy: see `policy.take_turn`.
    """
    method = lookup(name)
    values = check_settings(name, settings)
    if method.oracle and view.oracle_y_N is None:
        raise QueryError(f"query method {name!r} needs the pool's labels; build its view with oracle_y_N")
    n, left = clamp(n, view.size), None
    with at_work(f"query method {name!r}", method.fn, rng="view.rng"):
        if method.learns:
            picks, left = take_turn(name, partial(method.fn, **values), view, n, seed, state, reward)
        else:
            picks = method.fn(view, n, **values)
    return check_picks(name, picks, n, view.size).to(view.device), left
