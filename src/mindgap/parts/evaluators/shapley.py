import math
from collections.abc import Iterator, Mapping
from typing import Any

from mindgap.parts.evaluators.balanced_accuracy import mean_recall
from mindgap.parts.evaluators.contract import Context, Row


def shapley(model: Any, split: Any, context: Context) -> Iterator[Row]:
    """Shapley value of each modality in balanced accuracy; they add to that of all modalities less 1 / C.

    The value of a coalition is the `balanced_accuracy` of its subset, that of none is chance. Exact, from
    predictions that are there anyway. No rows where no sample of the split has a modality of some subset.
    """
    value = {
        frozenset(subset.split("+")): float(mean_recall(seen.probs_KC, seen.y_K))
        for subset, seen in context.subsets.items()
    }
    value[frozenset()] = 1 / next(iter(context.subsets.values())).probs_KC.shape[1]
    if not any(map(math.isnan, value.values())):
        for name in context.modalities:
            yield "shapley", name, contribution(value, name, len(context.modalities))


def contribution(value: Mapping[frozenset[str], float], name: str, players: int) -> float:
    """The Shapley value of one of so many players, from the value of each coalition."""
    others = [coalition for coalition in value if name not in coalition]
    gains = ((len(one), value[one | {name}] - value[one]) for one in others)
    return math.fsum(gain / (players * math.comb(players - 1, size)) for size, gain in gains)
