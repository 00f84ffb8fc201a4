from collections.abc import Iterator
from typing import Any

from mindgap.parts.evaluators.balanced_accuracy import mean_recall
from mindgap.parts.evaluators.compared import compared
from mindgap.parts.evaluators.contract import Context, Row, WholeSplit


def utilisation(model: Any, split: WholeSplit, context: Context) -> Iterator[Row]:
    """Conditional utilisation rate of each modality given the others (Wu et al., ICML 2022).

    u(m | others) = (A(all) - A(all without m)) / A(all). Ours: A is balanced accuracy, for any number of
    modalities, over the samples that have m and another. No row where that is undefined.
    """
    for m, name in enumerate(context.modalities if len(context.modalities) > 1 else ()):
        rest = "+".join(other for other in context.modalities if other != name)
        every, without = (
            float(mean_recall(seen.probs_KC, seen.y_K)) for seen in compared(split, context, m, rest)
        )
        if every > 0:
            yield "utilisation", name, (every - without) / every
