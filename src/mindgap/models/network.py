"""The classifier of the paper's A.2: encoder per modality, projection, fusion of tokens, linear layer.

Absence is a mask from end to end. With `absent="skip"` an absent modality never enters its encoder: with 90 %
zero-filled rows a batch norm's running mean describes the zeros, not the images. `absent="zeros"` feeds zeros
and masks nothing, as many implementations do; the paper does not say which it did.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from mindgap.data.modality import DTYPES, Modality
from mindgap.models import ENCODERS, FUSIONS

STORED = {kind: torch.from_numpy(np.empty(0, dtype)).dtype for kind, dtype in DTYPES.items()}
DEFAULT_ENCODERS = {kind: {"name": next(iter(table))} for kind, table in ENCODERS.items()}


@dataclass(frozen=True)
class ModelSpec:
    """Everything that shapes the network besides the data it is for.

    `encoder` has for each kind of modality the name of its encoder and the encoder's settings.
    """

    encoder: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: DEFAULT_ENCODERS)
    fusion: str = "transformer"
    width: int = 64
    fusion_layers: int = 1
    fusion_heads: int = 4
    fusion_feedforward: int = 128
    fusion_dropout: float = 0.0
    projection_dropout: float = 0.0
    head_dropout: float = 0.5
    absent: Literal["skip", "zeros"] = "skip"
    min_present: int = 2


class MultimodalNet(nn.Module):
    """Class logits from any number of modalities, of which each sample has at least one.

    `encode` is the expensive part and does not depend on which modalities are kept afterwards, so every
    subset, coalition value and dropout pass is one more cheap `fuse` of the same tokens.
    """

    def __init__(self, modalities: Mapping[str, Modality], num_classes: int, spec: ModelSpec):
        super().__init__()
        self.modalities, self.spec = dict(modalities), spec
        self.encoders = nn.ModuleDict(
            {name: build_encoder(modality, spec.encoder) for name, modality in modalities.items()}
        )
        self.projections = nn.ModuleDict(
            {name: projection(enc.out_features, spec) for name, enc in self.encoders.items()}
        )
        self.fusion = FUSIONS[spec.fusion](
            len(modalities),
            spec.width,
            spec.fusion_layers,
            spec.fusion_heads,
            spec.fusion_feedforward,
            spec.fusion_dropout,
        )
        self.dropout = nn.Dropout(spec.head_dropout)
        self.head = nn.Linear(self.fusion.out_features, num_classes)

    def encode(self, x: Mapping[str, Tensor], present_NM: Tensor) -> Tensor:
        """Projected tokens N x M x D; 0 where a modality is absent, unless absence is fed as zeros."""
        columns = [self._tokens_of(name, x[name], present_NM[:, m]) for m, name in enumerate(self.modalities)]
        return torch.stack(columns, dim=1)

    def _tokens_of(self, name: str, x: Tensor, present_N: Tensor) -> Tensor:
        prepare = self.encoders[name].prepare
        if self.spec.absent == "zeros":
            x = prepare(x)
            return self._project(name, x * present_N.view(-1, *[1] * (x.dim() - 1)))
        if present_N.all():
            return self._project(name, prepare(x))
        rows = present_N.nonzero().squeeze(1)
        tokens = torch.zeros((len(x), self.spec.width), device=x.device)
        if len(rows):
            tokens = tokens.index_put((rows,), self._project(name, prepare(x[rows])).float())
        return tokens

    def _project(self, name: str, x: Tensor) -> Tensor:
        return self.projections[name](self.encoders[name](x))

    def fuse(self, tokens_NMD: Tensor, present_NM: Tensor) -> Tensor:
        """Fused features N x H, the input of the linear layer, as if only `present_NM` had been there."""
        if self.spec.absent == "zeros":
            if not self.training:
                tokens_NMD = torch.where(present_NM.unsqueeze(-1), tokens_NMD, self._zero_input_tokens())
            present_NM = torch.ones_like(present_NM)
        return self.fusion(tokens_NMD, present_NM)

    def _zero_input_tokens(self) -> Tensor:
        """What each encoder makes of an absent (zero) input, M x D."""
        blank = {
            name: torch.zeros(
                (1, *modality.shape), dtype=STORED[modality.kind], device=self.head.weight.device
            )
            for name, modality in self.modalities.items()
        }
        return torch.cat([self._project(n, self.encoders[n].prepare(x) * 0) for n, x in blank.items()])

    def classify(self, fused_NH: Tensor) -> Tensor:
        """Class logits N x C; dropout before the linear layer in training only."""
        return self.head(self.dropout(fused_NH))

    def forward(self, x: Mapping[str, Tensor], present_NM: Tensor) -> Tensor:
        if self.training and self.spec.absent == "skip":
            # Statistics of a few rows are none, and running ones made from such batches end in NaN on the way
            # through EfficientNet's fifty normalisations. A modality with too few rows sits the step out.
            present_NM = present_NM & (present_NM.sum(dim=0) >= self.spec.min_present)
        return self.classify(self.fuse(self.encode(x, present_NM), present_NM))


def projection(in_features: int, spec: ModelSpec) -> nn.Module:
    """Non-linear map of an encoder's features to the common width (A.2; dropout there for MIMIC only)."""
    return nn.Sequential(
        nn.Linear(in_features, spec.width),
        nn.GELU(),
        nn.Dropout(spec.projection_dropout),
        nn.Linear(spec.width, spec.width),
    )


def build_encoder(modality: Modality, encoder: Mapping[str, Mapping[str, Any]]) -> nn.Module:
    """The encoder of a modality's kind, with its settings."""
    settings = dict(encoder[modality.kind])
    return ENCODERS[modality.kind][settings.pop("name")](modality.shape, **settings)


def build_model(
    modalities: Mapping[str, Modality], num_classes: int, spec: ModelSpec, seed: int
) -> MultimodalNet:
    """A freshly initialised network on the CPU; the same seed gives the same weights whatever the device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MultimodalNet(modalities, num_classes, spec)
