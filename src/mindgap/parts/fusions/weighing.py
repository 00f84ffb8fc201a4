"""What fusions share: layers per modality, and weights over the modalities that are there."""

import torch
from torch import Tensor, nn

# Axes: N samples, M modalities, D width of a token, E of what a modality brings, H of the fused feature.


class PerModality(nn.ModuleList):
    """A linear layer for each modality: N x M x D to N x M x E."""

    def __init__(self, modalities: int, width: int, out: int):
        super().__init__(nn.Linear(width, out) for _ in range(modalities))

    def forward(self, tokens_NMD: Tensor) -> Tensor:
        return torch.stack([layer(tokens_NMD[:, m]) for m, layer in enumerate(self)], dim=1)


class Weighing(nn.Module):
    """A fusion that weighs: each modality brings a part, and a softmax over the present ones weighs them.

    The weights are its reliabilities. `combine` takes any others, which a diagnostic asks for.
    """

    def forward(self, tokens_NMD: Tensor, present_NM: Tensor) -> tuple[Tensor, Tensor]:
        part_NME, weight_NM = self.weigh(tokens_NMD, present_NM)
        return self.combine(part_NME, weight_NM), weight_NM

    def weigh(self, tokens_NMD: Tensor, present_NM: Tensor) -> tuple[Tensor, Tensor]:
        """What each modality brings (N x M x E), and its weight: 0 where it is absent, in all 1."""
        tokens_NMD = there(tokens_NMD, present_NM)
        part_NME = self.parts(tokens_NMD, present_NM)
        return part_NME, masked_softmax(self.scores(tokens_NMD, part_NME, present_NM), present_NM)

    def parts(self, tokens_NMD: Tensor, present_NM: Tensor) -> Tensor:
        """What each modality brings, N x M x E; what stands in absent places is not used."""
        return tokens_NMD

    def scores(self, tokens_NMD: Tensor, part_NME: Tensor, present_NM: Tensor) -> Tensor:
        """Before the softmax, N x M."""
        raise NotImplementedError

    def combine(self, part_NME: Tensor, weight_NM: Tensor) -> Tensor:
        """Fused features N x H: the weighted sum."""
        return (part_NME * weight_NM.unsqueeze(-1)).sum(dim=1)


def there(tokens_NMD: Tensor, present_NM: Tensor) -> Tensor:
    """Tokens with zeros in absent places: times 0, a NaN or an infinity would stay."""
    return tokens_NMD.masked_fill(~present_NM.unsqueeze(-1), 0.0)


def masked_softmax(score_NM: Tensor, present_NM: Tensor) -> Tensor:
    """Softmax over the present modalities; zeros where nothing is present."""
    lowest = torch.finfo(score_NM.dtype).min
    return score_NM.masked_fill(~present_NM, lowest).softmax(dim=1) * present_NM


def blocks(tokens_NMD: Tensor, weight_NM: Tensor) -> Tensor:
    """N x (M (D + 1)): the tokens and a 1 for each modality, times its weight, side by side.

    A linear layer behind them, of weights w_m and c_m for the block of modality m and the bias b, answers
    sum_m weight_m (w_m token_m + c_m) + b: a weighted sum of logits of one modality each.
    """
    with_one = torch.cat([tokens_NMD, torch.ones_like(tokens_NMD[..., :1])], dim=-1)
    return (with_one * weight_NM.unsqueeze(-1)).flatten(1)
