"""The classifier of the paper's A.2: encoder per modality, projection, fusion of tokens, linear layer.

Absence is a mask from end to end. With `absent="skip"` an absent modality never enters its encoder: with 90 %
zero-filled rows a batch norm's running mean describes the zeros, not the images. `absent="zeros"` feeds zeros
and masks nothing, as many implementations do; the paper does not say which it did.

Rows may be padded: those that are absent or only fill a batch are zeros that count nowhere.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from mindgap.base.at_work import PartError
from mindgap.base.gpu import Engine, Passes, reproducible
from mindgap.base.hosted import Rows, counting, draw, dropping, hosted, norms, settle
from mindgap.base.modality import DTYPES, Modality
from mindgap.parts.encoders import ENCODERS, Encoder, make_encoder
from mindgap.parts.fusions import make_fusion, make_head

STORED = {kind: torch.from_numpy(np.empty(0, dtype)).dtype for kind, dtype in DTYPES.items()}
DEFAULT_ENCODERS = {kind: {"name": next(iter(table.ours))} for kind, table in ENCODERS.items()}
REST = ""  # the part of a model beside its encoders with their projections: fusion and classifier


@dataclass(frozen=True)
class ModelSpec:
    """Everything that shapes the network besides the data it is for.

    `encoder` has for each kind of modality the name of its encoder and the encoder's settings, `fusion` the
    name of the fusion and its settings.
    """

    encoder: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: DEFAULT_ENCODERS)
    fusion: Mapping[str, Any] = field(default_factory=lambda: {"name": "transformer"})
    width: int = 64
    projection_dropout: float = 0.0
    head_dropout: float = 0.5
    absent: Literal["skip", "zeros"] = "skip"
    min_present: int = 2


class Own(Protocol):
    """Encoders and fusion of somebody else in place of ours. Axes: K rows, N samples, M modalities.

    `encode[name](x_K)` makes tokens K x D of what is stored of a modality; `fuse(tokens_NMD, present_NM)`
    makes N x H of them, H its `out_features`, and ignores tokens of absent modalities, which are 0.
    """

    encode: Mapping[str, nn.Module]
    fuse: nn.Module


class AsStored(nn.Module):
    """An encoder that prepares what is stored by itself; numbers come as float32, images as uint8."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    @staticmethod
    def prepare(x_K: Tensor) -> Tensor:
        return x_K

    def forward(self, x_K: Tensor) -> Tensor:
        tokens_KD: Tensor = self.encoder(x_K)
        return tokens_KD


class MultimodalNet(nn.Module):
    """Class logits from any number of modalities, of which each sample has at least one.

    `encode` is the expensive part and does not depend on which modalities are kept afterwards, so every
    subset, coalition value and dropout pass is one more cheap `fuse` of the same tokens.
    """

    blank_MD: Tensor

    def __init__(
        self, modalities: Mapping[str, Modality], num_classes: int, spec: ModelSpec, own: "Own | None" = None
    ):
        super().__init__()
        self.modalities, self.spec = dict(modalities), spec
        if own is None:
            self.encoders = nn.ModuleDict(
                {name: build_encoder(modality, spec.encoder) for name, modality in modalities.items()}
            )
            self.projections = nn.ModuleDict(
                {name: projection(self.encoder(name).out_features, spec) for name in modalities}
            )
            self.fusion = make_fusion(spec.fusion, len(modalities), spec.width)
        else:
            self.encoders = nn.ModuleDict({name: AsStored(own.encode[name]) for name in modalities})
            self.projections = nn.ModuleDict({name: nn.Identity() for name in modalities})
            self.fusion = own.fuse
        self.dropout = nn.Dropout(spec.head_dropout)
        self.head = make_head(self.fusion, num_classes)
        hosted(self)
        parts = {name: (self.encoders[name], self.projections[name]) for name in modalities}
        parts[REST] = (self.fusion, self.dropout)
        self.parts = {name: list(modules) for name, modules in parts.items()}
        self.dropping = {name: dropping(*modules) for name, modules in parts.items()}
        self.norms = {name: norms(*modules) for name, modules in parts.items()}
        self.engine, self.batch_size = Engine.of("cpu"), 0
        self.passes = Passes()
        # In place, as recordings read it; not stored, as it follows from the weights.
        self.register_buffer("blank_MD", torch.zeros(len(modalities), spec.width), persistent=False)
        self._knows_blank = False

    def train(self, mode: bool = True) -> "MultimodalNet":
        self._knows_blank = self._knows_blank and not mode
        return super().train(mode)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        self._knows_blank = False
        return super().load_state_dict(*args, **kwargs)

    def encoder(self, name: str) -> Encoder:
        """The encoder of a modality."""
        return cast(Encoder, self.encoders[name])

    def draw(self, keys: Mapping[str, Tensor]) -> None:
        """What is dropped in the next pass in training: of each part of the model one key a row it gets."""
        for name, key_B in keys.items():
            draw(self.dropping[name], key_B)

    def encode(self, x: Mapping[str, Tensor], present_NM: Tensor) -> Tensor:
        """Projected tokens N x M x D of whole samples: reads `present_NM`, for which a GPU is waited for."""
        rows = self.rows_to_encode(present_NM)
        return self.tokens({name: x[name][rows[name]] for name in rows}, rows, present_NM)

    def rows_to_encode(self, present_NM: Tensor) -> dict[str, Tensor]:
        """Which rows go through each modality's encoder: those that have it, or all if absence is zeros."""
        if self.spec.absent == "zeros":
            present_NM = torch.ones_like(present_NM)
        return {name: present_NM[:, m].nonzero().squeeze(1) for m, name in enumerate(self.modalities)}

    def tokens(
        self,
        x: Mapping[str, Tensor],
        rows: Mapping[str, Tensor],
        present_NM: Tensor,
        weight_N: Tensor | None = None,
    ) -> Tensor:
        """Projected tokens N x M x D from the `rows` of each modality; 0 in all other rows.

        `x` has those rows only. Without rows it has all N, and of those only samples that have the modality
        count (of `weight_N` 1, where absence is zeros). Shapes follow from shapes: nobody waits for a value.
        """
        columns = [
            self._column(name, x[name], rows[name], present_NM[:, m])
            if weight_N is None
            else self._padded_column(name, x[name], present_NM[:, m], weight_N)
            for m, name in enumerate(self.modalities)
        ]
        return torch.stack(columns, dim=1)

    def _column(self, name: str, x_K: Tensor, rows_K: Tensor, present_N: Tensor) -> Tensor:
        shape = (len(present_N), self.spec.width)
        if not len(x_K):
            return torch.zeros(shape, device=x_K.device, dtype=self.head.weight.dtype)
        counting(self.norms[name], None)
        keep = (present_N,) if self.spec.absent == "zeros" else ()
        tokens_KD = self.tokens_of(name, x_K, *keep)
        if len(x_K) == len(present_N):
            return tokens_KD
        return torch.zeros(shape, device=x_K.device, dtype=tokens_KD.dtype).index_put((rows_K,), tokens_KD)

    def _padded_column(self, name: str, x_N: Tensor, present_N: Tensor, weight_N: Tensor) -> Tensor:
        counts_N = weight_N if self.spec.absent == "zeros" else present_N.to(weight_N.dtype)
        counting(self.norms[name], self.rows_of(counts_N) if self.norms[name] else None)
        tokens_ND = self.tokens_of(name, x_N, present_N)
        settle(self.norms[name])
        return tokens_ND * counts_N.unsqueeze(1)

    def rows_of(self, weight_N: Tensor) -> Rows:
        return Rows(weight_N, self.head.weight.dtype)

    def tokens_of(self, name: str, x_K: Tensor, keep_K: Tensor | None = None) -> Tensor:
        """Tokens K x D of stored rows; those that `keep_K` leaves out are fed as zeros."""
        x = self.encoder(name).prepare(x_K)
        if x.is_floating_point():
            x = x.to(self.head.weight.dtype)
        if keep_K is not None:
            x = x * keep_K.view(-1, *[1] * (x.dim() - 1))
        return self._project(name, x).to(self.head.weight.dtype)

    def _project(self, name: str, x: Tensor) -> Tensor:
        encoded, projection = self.encoders[name](x), self.projections[name]
        if isinstance(projection, nn.Sequential) and isinstance(projection[0], nn.Linear):
            self._check_width("encoder", self.encoders[name], encoded, projection[0].in_features)
        tokens_KD: Tensor = projection(encoded)
        return tokens_KD

    def fuse(self, tokens_NMD: Tensor, present_NM: Tensor) -> Tensor:
        """Fused features N x H, the input of the linear layer, as if only `present_NM` had been there."""
        return self.fuse_and_weigh(tokens_NMD, present_NM)[0]

    def fuse_and_weigh(self, tokens_NMD: Tensor, present_NM: Tensor) -> tuple[Tensor, Tensor | None]:
        """Fused features, and how reliable the fusion holds each modality to be (N x M) if it says so."""
        if self.spec.absent == "zeros":
            if not self.training:
                self.know_blank()
                tokens_NMD = torch.where(present_NM.unsqueeze(-1), tokens_NMD, self.blank_MD)
            present_NM = torch.ones_like(present_NM)
        elif not self.training:  # as in training: what a subset leaves out is out of a fusion's reach
            tokens_NMD = torch.where(present_NM.unsqueeze(-1), tokens_NMD, 0.0)
        made = self.fusion(tokens_NMD, present_NM)
        fused_NH, reliability_NM = made if isinstance(made, tuple) else (made, None)
        self._check_width("fusion", self.fusion, fused_NH, self.head.in_features)
        return fused_NH, reliability_NM

    @staticmethod
    def _check_width(what: str, part: nn.Module, made: Tensor, width: int) -> None:
        if made.dim() != 2 or made.shape[1] != width:
            raise PartError(
                f"{what} {type(part).__name__} makes shape {tuple(made.shape)}, not rows of {width}, its "
                f"out_features: mend it, or take another"
            )

    def know_blank(self) -> None:
        """Work out, once for the weights there are, what each encoder makes of an absent (zero) input."""
        if self.spec.absent != "zeros" or self._knows_blank:
            return
        rows, device = self.batch_size if self.engine.pad else 1, self.head.weight.device
        nothing = torch.zeros(rows, dtype=torch.bool, device=device)
        for m, (name, modality) in enumerate(self.modalities.items()):
            x = torch.zeros((rows, *modality.shape), dtype=STORED[modality.kind], device=device)
            self.blank_MD[m] = self.tokens_of(name, x, nothing)[0].detach()
        self._knows_blank = True

    def classify(self, fused_NH: Tensor) -> Tensor:
        """Class logits N x C; dropout before the linear layer in training only."""
        logits_NC: Tensor = self.head(self.dropout(fused_NH))
        return logits_NC

    def logits(self, tokens_NMD: Tensor, present_NM: Tensor) -> Tensor:
        """Class logits N x C as if only `present_NM` had been there."""
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
    modalities: Mapping[str, Modality],
    num_classes: int,
    spec: ModelSpec,
    seed: int,
    own: Callable[[Mapping[str, Modality]], Own] | None = None,
) -> MultimodalNet:
    """A freshly initialised network on the CPU; the same seed gives the same weights whatever the device.

    `own` makes the encoders and the fusion that take the place of ours.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MultimodalNet(modalities, num_classes, spec, None if own is None else own(modalities))


def place(model: MultimodalNet, engine: Engine, batch_size: int) -> MultimodalNet:
    """The model on the engine's device, for training with batches of so many samples.

    On a GPU its weights move into the model of the same kind that the engine had before: all trainings share
    one set of recordings. Convolutions are stored channels last there.
    """
    if engine.device.type == "cuda":
        reproducible()
        kind = (repr(model.modalities), repr(model.spec), model.head.out_features)
        last = torch.channels_last
        kept = engine.keep("model", kind, lambda: model.to(engine.device, memory_format=last))  # type: ignore[call-overload]
        kept.load_state_dict(model.state_dict())
        model = kept
    else:
        model = model.to(engine.device)
    model.engine, model.batch_size = engine, batch_size
    return model
