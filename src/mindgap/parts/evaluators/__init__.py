"""Evaluators by name: functions `evaluator(model, split, context, **settings)` of rows of the long table."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from mindgap.base.plugins import Registry, check_call
from mindgap.base.settings import checked
from mindgap.parts.evaluators.accuracy import accuracy
from mindgap.parts.evaluators.acquired import acquired
from mindgap.parts.evaluators.balanced_accuracy import balanced_accuracy
from mindgap.parts.evaluators.contract import Context, Evaluator, Row
from mindgap.parts.evaluators.ece import ece
from mindgap.parts.evaluators.gradient_share import gradient_share
from mindgap.parts.evaluators.nll import nll
from mindgap.parts.evaluators.shapley import shapley
from mindgap.parts.evaluators.shortcut_failure import shortcut_failure
from mindgap.parts.evaluators.utilisation import utilisation

__all__ = ["EVALUATORS", "Context", "Row"]

GIVEN = 3  # model, split, context: what is behind them is a setting


def _of_package(thing: Any, group: str) -> Evaluator:
    """What an entry point of another package names, as an entry of the table."""
    check_call(thing, GIVEN, "model, split and context")
    evaluator: Evaluator = thing
    return evaluator


EVALUATORS: Registry[Evaluator] = Registry(
    {
        "balanced_accuracy": balanced_accuracy,
        "accuracy": accuracy,
        "ece": ece,
        "nll": nll,
        "shapley": shapley,
        "utilisation": utilisation,
        "gradient_share": gradient_share,
        "acquired": acquired,
        "shortcut_failure": shortcut_failure,
    },
    "mindgap.evaluator",
    _of_package,
)


def make_evaluator(name: str, settings: Mapping[str, Any]) -> Evaluator:
    """The evaluator with its settings, checked by their annotations."""
    fn = EVALUATORS[name]
    return partial(fn, **checked(f"evaluate_settings.{name}", fn, GIVEN, settings))
