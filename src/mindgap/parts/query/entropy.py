"""Entropy of the prediction; it favours samples short of a modality, whose predictions are flatter."""

from torch import Tensor

from mindgap.base.view import PoolView
from mindgap.parts.query.contract import check_finite
from mindgap.parts.query.kernels import top_k


def entropy(view: PoolView, n: int) -> Tensor:
    """The n samples with the largest entropy of the predicted class probabilities."""
    return top_k(entropy_of(view.log_probs_NC), n, view.rng)


def entropy_of(log_probs_NC: Tensor) -> Tensor:
    """Entropy in nats, 0 to log C.

    From log-probabilities: p log p of a probability that rounds to 0 is 0, where log(softmax) makes it NaN
    and drops the sample unseen. The input is checked for NaN because minus infinity would do the same.
    """
    check_finite(log_probs_NC=log_probs_NC)
    log_probs_NC = log_probs_NC.double()
    return -(log_probs_NC.exp() * log_probs_NC).sum(1)
