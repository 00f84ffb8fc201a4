"""k-center greedy, "core-set" (Sener & Savarese 2018), on the fused representation, un-normalised."""

from torch import Tensor

from mindgap.base.view import PoolView
from mindgap.parts.query.kernels import k_center_greedy


def kcenter_greedy(view: PoolView, n: int) -> Tensor:
    """n samples, each the furthest from all labelled and already picked ones."""
    return k_center_greedy(view.fused_NH, view.labelled_fused_LH, n, view.rng)
