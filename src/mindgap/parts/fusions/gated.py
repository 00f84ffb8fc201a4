"""Gated fusion: each modality's own token says how much of it counts."""

from torch import Tensor

from mindgap.parts.fusions.weighing import PerModality, Weighing

# Axes: N samples, M modalities, D width.


class GatedFusion(Weighing):
    """Sum of tanh(U_m token_m), weighed by a softmax of gates g_m token_m over the present modalities.

    The gated multimodal unit (Arevalo et al. 2017), with a gate that reads its own token alone and shares of
    any number of modalities: the gate is the modality's reliability.
    """

    def __init__(self, modalities: int, width: int):
        super().__init__()
        self.out_features = width
        self.value, self.gate = PerModality(modalities, width, width), PerModality(modalities, width, 1)

    def parts(self, tokens_NMD: Tensor, present_NM: Tensor) -> Tensor:
        return self.value(tokens_NMD).tanh()

    def scores(self, tokens_NMD: Tensor, part_NME: Tensor, present_NM: Tensor) -> Tensor:
        return self.gate(tokens_NMD).squeeze(-1)
