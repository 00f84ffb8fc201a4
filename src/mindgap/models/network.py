"""The classifier of the paper's A.2: encoder per modality, projection, fusion of tokens, linear layer.

Absence is a mask from end to end. With `absent="skip"` an absent modality never enters its encoder: with 90 %
zero-filled rows a batch norm's running mean describes the zeros, not the images. `absent="zeros"` feeds zeros
and masks nothing, as many implementations do; the paper does not say which it did.
"""

import gc
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from mindgap.data.modality import DTYPES, Modality
from mindgap.gpu import Recordings
from mindgap.models import ENCODERS, FUSIONS, make_encoder

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
        self.recordings = Recordings()

    def encode(self, x: Mapping[str, Tensor], present_NM: Tensor) -> Tensor:
        """Projected tokens N x M x D of whole samples: reads `present_NM`, for which a GPU is waited for."""
        rows = self.rows_to_encode(present_NM)
        return self.tokens({name: x[name][rows[name]] for name in rows}, rows, present_NM)

    def rows_to_encode(self, present_NM: Tensor) -> dict[str, Tensor]:
        """Which rows go through each modality's encoder: those that have it, or all if absence is zeros."""
        if self.spec.absent == "zeros":
            present_NM = torch.ones_like(present_NM)
        return {name: present_NM[:, m].nonzero().squeeze(1) for m, name in enumerate(self.modalities)}

    def tokens(self, x: Mapping[str, Tensor], rows: Mapping[str, Tensor], present_NM: Tensor) -> Tensor:
        """Projected tokens N x M x D from the `rows` of each modality; 0 in all other rows.

        `x` has those rows only. Shapes follow from shapes, so that nobody waits for a value.
        """
        columns = [
            self._column(name, x[name], rows[name], present_NM[:, m])
            for m, name in enumerate(self.modalities)
        ]
        return torch.stack(columns, dim=1)

    def _column(self, name: str, x_K: Tensor, rows_K: Tensor, present_N: Tensor) -> Tensor:
        if not len(x_K):
            return torch.zeros((len(present_N), self.spec.width), device=x_K.device)
        keep = (present_N,) if self.spec.absent == "zeros" else ()
        modules = (self.encoders[name], self.projections[name])
        tokens_KD = self.recordings(name, partial(self._encode, name), modules, x_K, *keep)
        if len(x_K) == len(present_N):
            return tokens_KD
        column_ND = torch.zeros((len(present_N), self.spec.width), device=x_K.device)
        return column_ND.index_put((rows_K,), tokens_KD)

    def _encode(self, name: str, x_K: Tensor, keep_K: Tensor | None = None) -> Tensor:
        """Tokens K x D (float32) of stored rows; those that `keep_K` leaves out are fed as zeros."""
        x = self.encoders[name].prepare(x_K)
        if keep_K is not None:
            x = x * keep_K.view(-1, *[1] * (x.dim() - 1))
        return self._project(name, x).float()

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

    def logits(self, tokens_NMD: Tensor, present_NM: Tensor) -> Tensor:
        """Class logits N x C as if only `present_NM` had been there."""
        modules = (self.fusion, self.dropout, self.head)
        return self.recordings("logits", self._logits, modules, tokens_NMD, present_NM)

    def _logits(self, tokens_NMD: Tensor, present_NM: Tensor) -> Tensor:
        return self.classify(self.fuse(tokens_NMD, present_NM))

    def usable(self, present_BM: Tensor) -> Tensor:
        """What a training step can use of a batch.

        Statistics of a few rows are none, and running ones made from such batches end in NaN on the way
        through EfficientNet's fifty normalisations. A modality with too few rows sits the step out.
        """
        if self.spec.absent == "zeros":
            return present_BM
        return present_BM & (present_BM.sum(dim=0) >= self.spec.min_present)

    def forward(self, x: Mapping[str, Tensor], present_NM: Tensor) -> Tensor:
        if self.training:
            present_NM = self.usable(present_NM)
        return self.logits(self.encode(x, present_NM), present_NM)


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
    return make_encoder(modality.kind, modality.shape, encoder[modality.kind])


def build_model(
    modalities: Mapping[str, Modality], num_classes: int, spec: ModelSpec, seed: int
) -> MultimodalNet:
    """A freshly initialised network on the CPU; the same seed gives the same weights whatever the device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MultimodalNet(modalities, num_classes, spec)


_resident: dict[str, tuple[tuple, MultimodalNet]] = {}


def place(model: MultimodalNet, device: torch.device) -> MultimodalNet:
    """The model on its device.

    On a GPU its weights move into the model of the same kind that was placed there before, which is replaced:
    all trainings of a process share one set of recordings. Convolutions are stored channels last there.
    """
    if device.type != "cuda":
        return model.to(device)
    kind = (repr(model.modalities), repr(model.spec), model.head.out_features)
    if _resident.get(str(device), (None,))[0] != kind:
        _resident.pop(str(device), None)
        gc.collect()  # recordings and their model refer to each other, and must not be freed during another
        _resident[str(device)] = kind, model.to(device, memory_format=torch.channels_last)
    else:
        _resident[str(device)][1].load_state_dict(model.state_dict())
    return _resident[str(device)][1]
