from collections.abc import Iterator

from torch import Tensor

from mindgap.parts.evaluators.contract import Context, Row


def accuracy(model, split, context: Context) -> Iterator[Row]:
    """Share of right answers, on each subset of modalities."""
    return context.of_subsets("accuracy", share_right)


def share_right(probs_KC: Tensor, y_K: Tensor) -> Tensor:
    """Of samples; NaN where there are none."""
    return (probs_KC.argmax(dim=1) == y_K).double().mean()
