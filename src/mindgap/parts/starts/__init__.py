"""Start sets by name: functions `fn(candidates, n, rng)` of n distinct positions in the candidates."""

import inspect
from typing import Any

from mindgap.base.plugins import Registry, check_call
from mindgap.parts.starts.contract import Candidates, Start
from mindgap.parts.starts.draws import random, stratified
from mindgap.parts.starts.typical import typical

__all__ = ["STARTS", "Candidates", "Start"]

GIVEN = 3  # candidates, n, rng: a start has no settings


def _of_package(thing: Any, group: str) -> Start:
    """What an entry point of another package names, as an entry of the table."""
    start = thing if isinstance(thing, Start) else Start(thing)
    check_call(start.fn, GIVEN, "candidates, n and rng")
    inspect.signature(start.fn).bind(*range(GIVEN))  # nor may it ask for more
    return start


STARTS = Registry(
    {
        "stratified": Start(stratified, oracle=True),
        "random": Start(random),
        "typical": Start(typical),
    },
    "mindgap.start",
    _of_package,
)
