"""Mixture of experts: the logits of each modality, weighed by a small gate that sees all of them."""

from torch import Tensor, nn

from mindgap.base.settings import Width
from mindgap.parts.fusions.weighing import Weighing, blocks

# Axes: N samples, M modalities, D width.


class MoeFusion(Weighing):
    """Logits of each present modality, weighed by a gate of two layers that sees all tokens and who is there.

    The experts are linear layers, and logits are mixed, not probabilities, as the diagnostic's router
    does (arXiv 2606.26473). The gate's weights are the reliabilities.
    """

    def __init__(self, modalities: int, width: int, hidden: Width = 32):
        super().__init__()
        self.out_features = modalities * (width + 1)
        self.gate = nn.Sequential(
            nn.Linear(self.out_features, hidden), nn.GELU(), nn.Linear(hidden, modalities)
        )

    def scores(self, tokens_NMD: Tensor, part_NME: Tensor, present_NM: Tensor) -> Tensor:
        return self.gate(blocks(tokens_NMD, present_NM.to(tokens_NMD.dtype)))

    def combine(self, part_NME: Tensor, weight_NM: Tensor) -> Tensor:
        return blocks(part_NME, weight_NM)
