"""Margin (best versus second best; Scheffer et al. 2001): the two likeliest classes are closest."""

from torch import Tensor

from mindgap.base.view import PoolView
from mindgap.parts.query.contract import check_finite
from mindgap.parts.query.kernels import top_k


def margin(view: PoolView, n: int) -> Tensor:
    """The n samples with the smallest difference between the two largest class probabilities."""
    check_finite(log_probs_NC=view.log_probs_NC)
    best_N2 = view.log_probs_NC.double().topk(min(2, view.num_classes), dim=1).values.exp()
    return top_k(best_N2[:, -1] - best_N2[:, 0], n, view.rng)
