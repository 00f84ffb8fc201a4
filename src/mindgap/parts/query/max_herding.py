"""MaxHerding (Bae et al., ECCV 2024): greedily cover the pool by a kernel, whatever the predictions say.

Formula: argmax_j mean_i (k(i, j) - max_{l in L} k(i, l))_+, L the labelled and picked samples, k(i, j) =
exp(-|x_i - x_j|^2 / bandwidth^2) on features of length 1. The authors use self-supervised features; here they
are the fused ones of the round's model. i runs over a random draw of the pool (`references`; the authors'
over 35,000 at most).
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

from mindgap.base.view import PoolView
from mindgap.parts.query.cover import Space, greedy_cover


def max_herding(
    view: PoolView,
    n: int,
    bandwidth: Annotated[float, Field(gt=0, le=100)] = 1.0,
    references: Annotated[int, Field(ge=1, le=8_192)] = 1_024,
) -> Tensor:
    """n samples that cover most of the pool in the fused representation."""
    everyone_N = view.present_NM.any(1)
    x_ND, labelled_LD = normalize(view.fused_NH), normalize(view.labelled_fused_LH)
    return greedy_cover([Space(x_ND, everyone_N, labelled_LD, bandwidth, 1.0)], n, view.rng, references)
