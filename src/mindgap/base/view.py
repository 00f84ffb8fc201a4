"""What a query method may see: samples as one model sees them, and what the validation set says of the model.

A `PoolView` has no pool labels and no way to the test split. Every quantity is computed on first use, in eval
mode, with test-time inputs, modality dropout off and each sample's own presence mask. Axes: N samples (those
of the object that has the tensor), M modalities, D width of a token, H width of a fused feature, C classes,
L labelled samples, K Monte-Carlo passes. Tensors lie on `PoolView.device`; floats are float32.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn

from mindgap.base.errors import MindGapError


class ViewError(MindGapError, ValueError):
    """A view was asked for what its model has not."""


class Classifier(Protocol):
    """What a view asks of a model: the fusion of tokens, and the linear layer behind it."""

    head: nn.Linear
    dropout: nn.Dropout

    def eval(self) -> object: ...

    def fuse(self, tokens_NMD: Tensor, present_NM: Tensor) -> Tensor: ...

    def classify(self, fused_NH: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Metrics:
    """How well a model does on the `n` validation samples that have a modality of a subset.

    Accuracies and `ece` (expected calibration error) lie in 0..1; `nll` is the mean negative log-likelihood
    of the true class in nats, where a probability of 0 counts as the smallest normal float32 (87.3 nats).
    """

    balanced_accuracy: float
    accuracy: float
    ece: float
    nll: float
    n: int


# By the name of the subset of modalities: "left", "right", "left+right". A subset is left out where no
# validation sample has a modality of it; that of all modalities is always there.
Measured = Mapping[str, Metrics]


def weak_modality(measured: Measured, modalities: Sequence[str]) -> int:
    """Which modality has the lowest balanced accuracy alone; the first of equal ones.

    One that no validation sample has is not known to be weak.
    """
    known = [measured[m].balanced_accuracy if m in measured else math.inf for m in modalities]
    return known.index(min(known))


@dataclass(frozen=True)
class Reward:
    """What a policy's pick came to, on the validation set: never on the test set.

    `before` are the metrics of the model that picked, in `round`; `after` those of the model trained from
    scratch since, on `labelled` samples, the picked ones among them. `cell` names the run (dataset, regime,
    mitigation, query, seed), for a policy that compares it with known curves.
    """

    before: Measured
    after: Measured
    round: int
    labelled: int
    cell: Mapping[str, str | int]


class Samples:
    """Samples as one model sees them. The encoders run once, when a quantity first needs them."""

    present_NM: Tensor
    """bool: which modalities each sample has."""

    def __init__(self, model: Classifier, encode: Callable[[], Tensor], present_NM: Tensor):
        self._model, self._encode, self.present_NM = model, encode, present_NM

    def __len__(self) -> int:
        return len(self.present_NM)

    @cached_property
    def _raw_NMD(self) -> Tensor:
        return self._encode()

    @cached_property
    def tokens_NMD(self) -> Tensor:
        """Projected unimodal latents, exactly 0 where a modality is absent."""
        return self._raw_NMD * self.present_NM.unsqueeze(-1)

    @cached_property
    def fused_NH(self) -> Tensor:
        """Fused features, the input of the linear layer."""
        return self._fuse(self.present_NM)

    @cached_property
    def logits_NC(self) -> Tensor:
        """Class logits."""
        return self._classify(self.fused_NH)

    @cached_property
    def log_probs_NC(self) -> Tensor:
        """Logarithms of the class probabilities."""
        return self.logits_NC.log_softmax(dim=1)

    @cached_property
    def probs_NC(self) -> Tensor:
        """Class probabilities."""
        return self.log_probs_NC.exp()

    def probs_with(self, keep_M: Tensor) -> Tensor:
        """Predictions N x C had only the modalities `keep_M` (bool) been there and present: a fusion pass."""
        present_NM = self.present_NM & keep_M.to(self.present_NM.device)
        return self._classify(self._fuse(present_NM)).softmax(dim=1)

    @torch.no_grad()
    def _fuse(self, present_NM: Tensor) -> Tensor:
        self._model.eval()
        return self._model.fuse(self._raw_NMD, present_NM).float()

    @torch.no_grad()
    def _classify(self, fused_NH: Tensor) -> Tensor:
        self._model.eval()
        return self._model.classify(fused_NH).float()


class LabelledSamples(Samples):
    """Samples with their labels."""

    y_N: Tensor
    """int64: class of each sample."""

    def __init__(self, model: Classifier, encode: Callable[[], Tensor], present_NM: Tensor, y_N: Tensor):
        super().__init__(model, encode, present_NM)
        self.y_N = y_N


class ValidationSamples(LabelledSamples):
    """The validation set, which is never labelled nor picked from."""

    def __init__(
        self,
        model: Classifier,
        encode: Callable[[], Tensor],
        present_NM: Tensor,
        y_N: Tensor,
        measure: Callable[[Tensor, Tensor, Tensor], Measured],
    ):
        super().__init__(model, encode, present_NM, y_N)
        self._measure = measure

    @cached_property
    def metrics(self) -> Measured:
        """Metrics of each subset of modalities. What is looked at here is in `history` in later rounds."""
        return self._measure(self._raw_NMD, self.present_NM, self.y_N)

    @property
    def was_measured(self) -> bool:
        """Whether `metrics` were looked at."""
        return "metrics" in vars(self)


class PoolView(Samples):
    """The unlabelled pool as the model of this round sees it: all that a query method is given.

    Methods return positions in it: samples are in ascending order of their ids. The labelled samples are in
    the order in which they were labelled, the last pick at the end.
    """

    ids: Tensor
    """int64 N: ids of the samples in the training split, the same in all rounds, methods and mitigations."""
    validation: ValidationSamples
    """The validation set, with its labels."""
    history: Mapping[int, Measured]
    """`validation.metrics` of the earlier rounds in which the method looked at them; of a policy, of all."""
    modalities: tuple[str, ...]
    """Names of the modalities, in the order of axis M; "+".join of some is the name of their subset."""
    rng: torch.Generator
    """The only source of randomness; it lies on the host, and is another one in each round."""
    round: int
    """0 is the round of the initial model."""
    rounds: int
    """How many rounds end in a pick: the last of them is `rounds` - 1."""
    oracle_y_N: Tensor | None
    """int64: labels of the pool for controls that are declared oracles, None for all others."""

    def __init__(
        self,
        model: Classifier,
        encode: Callable[[], Tensor],
        present_NM: Tensor,
        *,
        ids: Tensor,
        labelled: LabelledSamples,
        validation: ValidationSamples,
        history: Mapping[int, Measured],
        modalities: Sequence[str],
        rng: torch.Generator,
        round: int,
        rounds: int,
        oracle_y_N: Tensor | None = None,
    ):
        super().__init__(model, encode, present_NM)
        self.ids, self._labelled, self.validation, self.history = ids, labelled, validation, history
        self.modalities, self.rng, self.round, self.rounds = tuple(modalities), rng, round, rounds
        self.oracle_y_N = oracle_y_N
        self._masks: dict[int, Tensor] = {}

    @property
    def size(self) -> int:
        """How many samples are in the pool."""
        return len(self)

    @property
    def device(self) -> torch.device:
        """Where the tensors lie."""
        return self.present_NM.device

    @property
    def num_classes(self) -> int:
        """How many classes the model tells apart."""
        return self._model.head.out_features

    @property
    def head_weight_CH(self) -> Tensor:
        """Weights of the linear layer."""
        return self._model.head.weight.detach().clone()

    @property
    def head_bias_C(self) -> Tensor:
        """Biases of the linear layer."""
        return self._model.head.bias.detach().clone()

    @property
    def head_dropout(self) -> float:
        """Probability of dropout before the linear layer."""
        return self._model.dropout.p

    @property
    def labelled_present_LM(self) -> Tensor:
        """bool: which modalities each labelled sample has."""
        return self._labelled.present_NM

    @property
    def labelled_y_L(self) -> Tensor:
        """int64: class of each labelled sample."""
        return self._labelled.y_N

    @property
    def labelled_tokens_LMD(self) -> Tensor:
        """Tokens of the labelled samples."""
        return self._labelled.tokens_NMD

    @property
    def labelled_fused_LH(self) -> Tensor:
        """Fused features of the labelled samples."""
        return self._labelled.fused_NH

    @cached_property
    def labelled_probs_LC(self) -> Tensor:
        """Class probabilities of the labelled samples."""
        return self._labelled.logits_NC.softmax(dim=1)

    def labelled_probs_with(self, keep_M: Tensor) -> Tensor:
        """Predictions L x C for the labelled samples had only the modalities `keep_M` been there."""
        return self._labelled.probs_with(keep_M)

    def mc_log_probs_NKC(self, k: int, rows: slice = slice(None)) -> Tensor:
        """Log-probabilities of `rows` under k dropout masks that all samples share: one product a chunk.

        The K masked copies of the linear layer are stacked to (K C) x H, so no pass is repeated. Raises a
        ViewError where the model has no dropout.
        """
        if self.head_dropout <= 0:
            raise ViewError(
                "Monte-Carlo dropout needs a model with dropout before its linear layer: "
                "set model.head_dropout above 0 for this scale"
            )
        masks_KH = self._masks_KH(k)
        weight_KCH = self.head_weight_CH * masks_KH.unsqueeze(1)
        logits = self.fused_NH[rows] @ weight_KCH.flatten(0, 1).T
        logits_NKC: Tensor = logits.unflatten(1, (k, self.num_classes)) + self.head_bias_C
        return logits_NKC.log_softmax(dim=2)

    def _masks_KH(self, k: int) -> Tensor:
        if k not in self._masks:
            keep = 1 - self.head_dropout
            draws = torch.rand((k, self._model.head.in_features), generator=self.rng)
            self._masks[k] = ((draws < keep).float() / keep).to(self.device)
        return self._masks[k]
