"""Find a query method by name, check its settings before any compute, call it and check what it picks."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mindgap.base.settings import checked, defaults
from mindgap.parts.query import METHODS
from mindgap.parts.query.contract import GIVEN, Method, QueryError, check_picks, clamp


def lookup(name: str) -> Method:
    """The method of that name; an unknown one is an error that lists the known ones."""
    if name not in METHODS:
        raise QueryError(f"unknown query method {name!r}; known: {', '.join(METHODS)}")
    return METHODS[name]


def hyperparameters(name: str) -> dict[str, Any]:
    """A method's hyper-parameters with their defaults; one without a default has to be given."""
    return defaults(lookup(name).fn, GIVEN)


def check_settings(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as the method's annotations want them; a SettingsError names each that it cannot take."""
    return checked(f"query_settings.{name}", lookup(name).fn, GIVEN, settings)


def select(name: str, view, n: int, settings: Mapping[str, Any] | None = None) -> Tensor:
    """n distinct positions in the view, picked by the method; whatever it returns is checked.

    A pool smaller than n is taken whole, with a warning.
    """
    method = lookup(name)
    values = check_settings(name, settings or {})
    if method.oracle and view.oracle_y_N is None:
        raise QueryError(f"query method {name!r} needs the pool's labels; build its view with oracle_y_N")
    n = clamp(n, view.size)
    return check_picks(name, method.fn(view, n, **values), n, view.size).to(view.device)
