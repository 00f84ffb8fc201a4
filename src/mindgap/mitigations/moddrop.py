"""Modality dropout (ModDrop): each present modality is dropped at random in training, never all of them.

The paper states neither rate nor granularity; here it is per sample, step and modality with probability
`rate` (Neverova et al. 2015 drop per modality too). What is dropped is absent by the mechanism of natural
absence: it skips its encoder and its token is masked.
"""

import torch
from torch import Tensor

from mindgap.mitigations.base import Mitigation
from mindgap.settings import Share


class ModDrop(Mitigation):
    """Drops with probability `rate`; where nothing would be left, one present modality at random is kept.

    A rate of 1 leaves each sample one modality.
    """

    def __init__(self, rate: Share = 0.5):
        if not 0 <= rate <= 1:
            raise ValueError(f"mitigation_settings.moddrop.rate must be in [0, 1], not {rate}")
        self.rate = rate

    def drop(self, present_NM: Tensor, rng: torch.Generator) -> Tensor:
        draws_NM = torch.rand((2, *present_NM.shape), generator=rng, device=rng.device).to(present_NM.device)
        kept_NM = present_NM & (draws_NM[0] >= self.rate)
        # The repair: among the present modalities, the one with the largest of fresh uniform draws.
        rescue_N = (draws_NM[1] + 1).masked_fill(~present_NM, 0).argmax(dim=1, keepdim=True)
        rescued_NM = torch.zeros_like(present_NM).scatter_(1, rescue_N, True) & present_NM
        return torch.where(kept_NM.any(dim=1, keepdim=True), kept_NM, rescued_NM)
