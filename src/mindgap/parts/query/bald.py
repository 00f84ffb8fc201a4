"""BALD (Houlsby et al. 2011; Gal et al. 2017): what a label would tell about the last layer's dropout mask.

All samples share the same K masks, as in realistic-al, which the paper builds on; only the top-k of the
scores is taken.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from mindgap.base.view import PoolView
from mindgap.parts.query.kernels import top_k

# Entries of the log-probabilities of a chunk: 32 MiB in float64 each for them and their exponentials.
CHUNK = 2**22


def bald(view: PoolView, n: int, passes: Annotated[int, Field(ge=2, le=10_000)] = 50) -> Tensor:
    """The n samples with the largest mutual information; raises ValueError when the model has no dropout.

    One pass has no disagreement in it.
    """
    return top_k(scores(view, passes), n, view.rng)


def scores(view: PoolView, passes: int) -> Tensor:
    """N: the mutual information of every sample of the pool, a chunk at a time."""
    step = max(1, CHUNK // (passes * view.num_classes))
    starts = range(0, view.size, step)
    chunks = (view.mc_log_probs_NKC(passes, rows=slice(start, start + step)) for start in starts)
    return torch.cat([mutual_information(chunk_NKC) for chunk_NKC in chunks])


def mutual_information(log_probs_NKC: Tensor) -> Tensor:
    """Entropy of the mean prediction minus mean entropy of the predictions, 0 to log min(K, C).

    Float64, so that passes that agree give 0 and not the rounding of a float32 entropy, which would rank
    them. What is not finite comes out as NaN: a check of every chunk would have a GPU wait at each.
    """
    log_probs_NKC = log_probs_NKC.double()
    probs_NKC = log_probs_NKC.exp()
    mean_NC = probs_NKC.mean(1)
    expected_N = -(probs_NKC.mul_(log_probs_NKC)).sum((1, 2)) / log_probs_NKC.shape[1]
    return (-torch.xlogy(mean_NC, mean_NC).sum(1) - expected_N).clamp(min=0)
