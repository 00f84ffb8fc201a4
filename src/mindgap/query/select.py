"""Find a query method by name, check its settings before any compute, call it and check what it picks."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mindgap.query import METHODS
from mindgap.query.contract import Method, QueryError, check_picks, clamp


def lookup(name: str) -> Method:
    """The method of that name; an unknown one is an error that lists the known ones."""
    if name not in METHODS:
        raise QueryError(f"unknown query method {name!r}; known: {', '.join(METHODS)}")
    return METHODS[name]


def hyperparameters(name: str) -> dict[str, Any]:
    """A method's hyper-parameters with their defaults: the keyword arguments of its function."""
    parameters = inspect.signature(lookup(name).fn).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def check_settings(name: str, settings: Mapping[str, Any]) -> None:
    """Raise for a setting the method does not have, or one of another type than its default's."""
    known = hyperparameters(name)
    for key, value in settings.items():
        if key not in known:
            listed = ", ".join(known) or "none, it has no settings"
            raise QueryError(f"query_settings.{name}.{key} is unknown; known: {listed}")
        wanted = type(known[key])
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            raise QueryError(
                f"query_settings.{name}.{key} is {value!r}, a {type(value).__name__}; "
                f"give a {wanted.__name__} like the default {known[key]!r}"
            )


def select(name: str, view, n: int, settings: Mapping[str, Any] | None = None) -> Tensor:
    """n distinct positions in the view, picked by the method; whatever it returns is checked.

    A pool smaller than n is taken whole, with a warning.
    """
    method = lookup(name)
    check_settings(name, settings or {})
    if method.oracle and view.oracle_y_N is None:
        raise QueryError(f"query method {name!r} needs the pool's labels; build its view with oracle_y_N")
    n = clamp(n, view.size)
    return check_picks(name, method.fn(view, n, **(settings or {})), n, view.size).to(view.device)
