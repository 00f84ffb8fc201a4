"""Entropy of the weak modality's own prediction, of whichever modality does worst alone on the validation
set.

A control that the paper lacks: it asks for what only the weak modality is unsure of, which the fused
prediction hides once a strong modality decides it. Formula: H(p(. | weak)), largest first.
"""

from torch import Tensor

from mindgap.base.view import PoolView
from mindgap.parts.query.kernels import top_k
from mindgap.parts.query.unimodal import entropies_alone, weakest


def weak_entropy(view: PoolView, n: int, modality: str | None = None) -> Tensor:
    """The n samples with the largest entropy of the weak modality's prediction; those without it come last.

    Weak is the lowest balanced accuracy alone on the validation set of this round, or `modality` by name.
    """
    return top_k(weak_entropy_of(view, modality), n, view.rng)


def weak_entropy_of(view: PoolView, modality: str | None = None) -> Tensor:
    """Entropy N in nats, -1 where the weak modality is absent."""
    return entropies_alone(view)[:, weakest(view, modality)]
