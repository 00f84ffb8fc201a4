"""Modality dropout (ModDrop): present modalities are dropped at random in training, never all of them.

The paper "randomly drops out single modalities" and states neither rate nor form; here it is per sample and
step (Neverova et al. 2015 drop per modality too). What is dropped is absent by the mechanism of natural
absence: it skips its encoder and its token is masked.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from mindgap.base.settings import Share
from mindgap.parts.mitigations.base import Mitigation

Form = Literal["independent", "exactly_one"]


class ModDrop(Mitigation):
    """`form` says what the `rate` is the probability of; a sample with one modality keeps it in both.

    "independent": that a present modality is dropped, each by itself; where nothing would be left, one of
    them at random is kept. "exactly_one": that exactly one of the sample's present modalities is kept, each
    as likely; else all are. So of two modalities a single one is dropped, of three two are. A rate of 1
    leaves each sample one modality in both forms.
    """

    def __init__(self, rate: Share = 0.3, form: Form = "independent"):
        if not 0 <= rate <= 1:
            raise ValueError(f"mitigation_settings.moddrop.rate must be in [0, 1], not {rate}")
        if form not in get_args(Form):
            known = ", ".join(get_args(Form))
            raise ValueError(f"mitigation_settings.moddrop.form must be one of {known}, not {form!r}")
        self.rate, self.form = rate, form

    def drop(self, present_NM: Tensor, rng: torch.Generator) -> Tensor:
        draws_NM = torch.rand((2, *present_NM.shape), generator=rng, device=rng.device).to(present_NM.device)
        # Among the present modalities, the one with the largest of fresh uniform draws.
        one_N = (draws_NM[1] + 1).masked_fill(~present_NM, 0).argmax(dim=1, keepdim=True)
        single_NM = torch.zeros_like(present_NM).scatter_(1, one_N, True) & present_NM
        if self.form == "exactly_one":
            return torch.where(draws_NM[0, :, :1] < self.rate, single_NM, present_NM)
        kept_NM = present_NM & (draws_NM[0] >= self.rate)
        return torch.where(kept_NM.any(dim=1, keepdim=True), kept_NM, single_NM)
