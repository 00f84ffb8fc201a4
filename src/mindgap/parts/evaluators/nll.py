from collections.abc import Iterator

import torch
from torch import Tensor

from mindgap.parts.evaluators.contract import Context, Row


def nll(model, split, context: Context) -> Iterator[Row]:
    """Mean negative log-likelihood of the true class in nats, on each subset of modalities."""
    return context.of_subsets("nll", negative_log_likelihood)


def negative_log_likelihood(probs_KC: Tensor, y_K: Tensor) -> Tensor:
    """Mean over samples; a probability of 0 counts as the smallest normal float32. NaN without samples."""
    of_true_K = probs_KC.gather(1, y_K.unsqueeze(1)).double()
    return -of_true_K.clamp(min=torch.finfo(torch.float32).tiny).log().mean()
