"""Random: n of the pool without replacement; no score, no pass over the pool."""

import torch
from torch import Tensor

from mindgap.base.view import PoolView
from mindgap.parts.query.contract import clamp


def random(view: PoolView, n: int) -> Tensor:
    """Positions drawn uniformly; acquired modalities follow the pool's."""
    return torch.randperm(view.size, generator=view.rng)[: clamp(n, view.size)].to(view.device)
