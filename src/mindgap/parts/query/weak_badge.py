"""BADGE on the weak modality: gradients of its own prediction, whichever modality does worst alone on
validation.

Formula: k-means++ (Ash et al. 2020) on r (x) z with r = p(. | weak) - onehot(its argmax) and z the weak
modality's token. Ours, as a control: no fused prediction, and no strong modality, has a say in it.
"""

from torch import Tensor

from mindgap.base.view import PoolView
from mindgap.parts.query.badge import residuals
from mindgap.parts.query.kernels import k_means_pp
from mindgap.parts.query.unimodal import first_those, only, weakest


def weak_badge(view: PoolView, n: int, modality: str | None = None) -> Tensor:
    """n samples by k-means++ on the weak modality's gradients; then random ones of those without it.

    Weak is the lowest balanced accuracy alone on the validation set of this round, or `modality` by name.
    """
    m = weakest(view, modality)
    r_NC, z_ND = residuals(view.probs_with(only(view, m))), view.tokens_NMD[:, m]

    def seeds(rows: Tensor, k: int) -> Tensor:
        return k_means_pp(r_NC[rows], z_ND[rows], k, view.rng)

    return first_those(view.present_NM[:, m], n, view.rng, seeds)
