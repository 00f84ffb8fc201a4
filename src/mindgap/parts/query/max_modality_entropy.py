"""The largest entropy among the predictions of the modalities alone: unsure in any of them is enough.

Formula: max over the modalities m that a sample has of H(p(. | m)), largest first. Ours, as a control for
methods that look at the weak modality.
"""

from torch import Tensor

from mindgap.base.view import PoolView
from mindgap.parts.query.kernels import top_k
from mindgap.parts.query.unimodal import entropies_alone


def max_modality_entropy(view: PoolView, n: int) -> Tensor:
    """The n samples with the largest entropy of a present modality's own prediction."""
    return top_k(max_modality_entropy_of(view), n, view.rng)


def max_modality_entropy_of(view: PoolView) -> Tensor:
    """Entropy N in nats, 0 to log C."""
    return entropies_alone(view).amax(1)
