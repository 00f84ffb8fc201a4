"""What an evaluator is given, and the rows that it gives.

Axes: N samples of the split, M modalities, D width of a token, C classes, K samples that have a modality of a
subset, L labelled samples, V validation samples.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from mindgap.base.errors import MindGapError

# The evaluators that learning curves are made of: every run has them.
OF_CURVES = ("balanced_accuracy", "accuracy", "ece")
NAME = r"[A-Za-z][A-Za-z0-9_.:+-]*"
Row = tuple[str, str | None, float]
"""Name, subset of modalities or None, value."""


class EvaluatorError(MindGapError):
    """What an evaluator gave is no row of the table."""


class WholeSplit(Protocol):
    """A whole split as it is stored: rows of `x` where `present_NM` is false are placeholders."""

    x: Mapping[str, Tensor]
    present_NM: Tensor
    y_N: Tensor


@dataclass(frozen=True)
class Predictions:
    """What a model answers had only a subset of modalities been there."""

    rows_N: Tensor
    """bool: which samples of the split have a modality of the subset."""
    probs_KC: Tensor
    """float32: their class probabilities."""
    y_K: Tensor
    """int64: their classes."""


@dataclass(frozen=True)
class Context:
    """What is known of a model after a round's training. All evaluators share its tensors: change none."""

    modalities: tuple[str, ...]
    """Names of the modalities, in the order of axis M."""
    tokens_NMD: Tensor
    """float32: tokens of the split that is evaluated, from the only encoder pass."""
    subsets: Mapping[str, Predictions]
    """Predictions by the name of the subset, such as "left" and "left+right"."""
    predict: Callable[[Tensor, Tensor], Tensor]
    """Tokens N x M x D and presence N x M to class probabilities N x C: a fusion pass, no encoder pass."""
    train: WholeSplit
    """The training split: pool, labelled and validation samples, with all their labels."""
    labelled_L: Tensor
    """int64: ids in `train` of the labelled samples, in the order in which they were labelled."""
    start: int
    """How many of these are the start set; methods picked the rest."""
    validation_V: Tensor
    """int64: ids in `train` of the validation samples."""
    fit: Mapping[str, Any]
    """How the training went: `best_epoch`, `best_validation`, `losses` by epoch, `steps`."""
    round: int
    """0 is the round of the initial model."""
    rng: torch.Generator = field(default_factory=torch.Generator)
    """The only source of randomness, on the host: another one for each evaluator and round."""

    def of_subsets(self, name: str, score: Callable[[Tensor, Tensor], float | Tensor]) -> Iterator[Row]:
        """A row for each subset: `score` of its predictions K x C and classes K."""
        for subset, seen in self.subsets.items():
            yield name, subset, float(score(seen.probs_KC, seen.y_K))


Evaluator = Callable[..., Iterable[Row]]
"""(model, split, context, **settings) -> rows, of a split that the model has not learnt from."""


def check_rows(evaluator: str, rows: Iterable[Row], context: Context, where: str) -> list[dict[str, Any]]:
    """The rows as records have them; an EvaluatorError for one that the table cannot have."""
    made: dict[tuple[str | None, str], dict[str, Any]] = {}
    if not isinstance(rows, Iterable):
        raise EvaluatorError(
            f"{where}: evaluator {evaluator!r} gave {type(rows).__name__}: yield rows, or return a list"
        )
    for row in rows:
        told = f"{where}: evaluator {evaluator!r} gave {row!r}"
        if not isinstance(row, tuple) or len(row) != 3:
            raise EvaluatorError(f"{told}: a row is a tuple of a name, a subset or None, and a number")
        name, subset, value = row
        if not isinstance(name, str) or not re.fullmatch(NAME, name):
            raise EvaluatorError(f"{told}: a name is made of letters, digits and _ . : + -, a letter first")
        if subset is not None and subset not in list(context.subsets):
            known = ", ".join(context.subsets)
            raise EvaluatorError(f"{told}: there is no such subset; name one of {known}, or give None")
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError, RuntimeError):
            raise EvaluatorError(f"{told}: the value is no single number") from None
        if not math.isfinite(number):
            raise EvaluatorError(f"{told}: the value is not finite; leave out a row that has none")
        if (subset, name) in made:
            raise EvaluatorError(f"{told}: it gave {name!r} of that subset before")
        made[subset, name] = {"evaluator": evaluator, "subset": subset, "name": name, "value": number}
    return list(made.values())
