"""The contract of a mitigation: hooks into training; this one does nothing in each.

On a GPU a step is recorded once and replayed, so `loss`, `gradients` and `after_step` work on tensors alone:
no value of theirs is looked at, none of them is drawn, and what they keep is changed in place.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mindgap.base.errors import MindGapError
from mindgap.base.hosted import Rows
from mindgap.base.modality import Modality
from mindgap.base.view import PoolView


class Spec(Protocol):
    """What shapes a model: how absence is fed, and the width of a token."""

    @property
    def absent(self) -> Literal["skip", "zeros"]: ...

    @property
    def width(self) -> int: ...


class Network(Protocol):
    """What hooks may use of the model, a module. `parts`: of each modality its encoder and projection."""

    modalities: dict[str, Modality]
    encoders: nn.ModuleDict
    head: nn.Linear
    parts: dict[str, list[nn.Module]]

    @property
    def spec(self) -> Spec: ...

    def logits(self, tokens_NMD: Tensor, present_NM: Tensor) -> Tensor: ...

    def rows_of(self, weight_N: Tensor) -> Rows: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...


@dataclass(frozen=True)
class Step:
    """A training step. Axes: B samples, M modalities, D width, C classes.

    `ids` of the samples (B) in the training split; `x`, of each modality what its encoder got, as stored and
    augmented; `present` (B x M) after modality dropout; `tokens` (B x M x D), 0 where a modality skipped its
    encoder; `logits` (B x C) and `labels` (B). `weight` (B): 1, 0 in rows that only fill the batch: they
    have nothing present and the label 0. `epoch` is a number in a tensor. `reliability` (B x M) is the
    fusion's, if it has one. On a CPU `x` has only the rows that have the modality.
    """

    ids: Tensor
    x: Mapping[str, Tensor]
    present: Tensor
    tokens: Tensor
    logits: Tensor
    labels: Tensor
    epoch: Tensor
    model: Network
    weight: Tensor
    reliability: Tensor | None = None

    def logits_of(self, keep_M: Tensor) -> Tensor:
        """B x C: the logits had only the modalities `keep_M` been there. A fusion pass, with gradients.

        Raises a MindGapError where absence is fed as zeros: what is left out would have to be encoded anew.
        """
        if self.model.spec.absent == "zeros":
            raise MindGapError(
                "the logits of a subset of modalities are known in training only where those that are absent "
                "skip their encoders: set model.absent of the scale to skip in params.yaml, or leave this "
                "mitigation out"
            )
        return self.model.logits(self.tokens, self.present & keep_M)

    def mean(self, values_B: Tensor, weight_B: Tensor | float = 1.0) -> Tensor:
        """The mean over the samples, those of a larger weight counting more."""
        weight_B = self.weight * weight_B
        return (values_B * weight_B).sum() / weight_B.sum()


@dataclass(frozen=True)
class Lesson:
    """Rows that a training gets beside the labelled samples: T samples of the pool, none of them twice.

    `ids` in the training split and `labels` that they are given (T, int64); `present` (T x M, bool), the
    modalities that are shown: of each sample at least one that it has.
    """

    ids: Tensor
    labels: Tensor
    present: Tensor


class Mitigation:
    """Plain training. Subclasses replace the hooks they need; their arguments are their settings."""

    def teach(self, view: PoolView, free_N: Tensor) -> Lesson | None:
        """After a round's pick: rows for the next training, which takes as many steps as without them.

        The view is the query's, without labels of the pool and with a generator of this hook's own; `free_N`
        says who was not picked. The object is made anew for it: nothing else passes from round to round.
        """

    def meet(self, model: Network, ids_L: Tensor, labels_L: Tensor, present_LM: Tensor) -> None:
        """Before a training, on the host: what it trains on. A MindGapError where that will not do."""

    def start(self, model: Network, epochs: int) -> nn.Module | None:
        """Before a training; torch's own draws may be used here. A module that is returned is trained along;
        in it as in an encoder `mindgap.base.hosted` replaces dropout and batch norms.
        """

    def start_epoch(self, model: Network, epoch: int) -> None:
        """Before an epoch, between steps: here values may be read."""

    def drop(self, present_NM: Tensor, rng: torch.Generator) -> Tensor:
        """What a training batch may use: of each sample at least one of its present modalities. On the host,
        from a stream of its own.
        """
        return present_NM

    def loss(self, step: Step) -> Tensor | dict[str, Tensor]:
        """The scalar to minimise, or several with names, each of which gets gradients of its own."""
        return step.mean(cross_entropy(step.logits, step.labels, reduction="none"))

    def gradients(self, step: Step, gradients: Mapping[str, Sequence[Tensor]]) -> Sequence[Tensor]:
        """What the optimiser gets, from the gradients of each loss (of a single one under ""): one tensor for
        each of the model's parameters, in their order, then those of what `start` returned.
        """
        first, *others = gradients.values()
        for other in others:
            first = torch._foreach_add(list(first), list(other))
        return first

    def after_step(self, step: Step) -> None:
        """After the optimiser's step."""


def check_dropped(hook: str, kept_BM: object, present_BM: Tensor) -> Tensor:
    """What a mitigation's `drop` left of a batch, once it is as the contract says."""
    if not isinstance(kept_BM, Tensor) or kept_BM.dtype != torch.bool or kept_BM.shape != present_BM.shape:
        shape = f" {kept_BM.dtype} {tuple(kept_BM.shape)}" if isinstance(kept_BM, Tensor) else ""
        fault = f"{type(kept_BM).__name__}{shape}, not truth values of shape {tuple(present_BM.shape)}"
    elif (kept_BM & ~present_BM).any():
        fault = "a modality that a sample lacks: combine with present_NM by &"
    elif (present_BM.any(dim=1) & ~kept_BM.any(dim=1)).any():
        fault = "a sample of which nothing is left: let each keep one of its modalities"
    else:
        return kept_BM
    raise MindGapError(f"{hook} gave {fault}")


def check_losses(hook: str, losses: object) -> dict[str, Tensor]:
    """What a mitigation's `loss` gave, by name: a single one under ""."""
    found: dict[str, Tensor] = {}
    fault = "there is none"
    for name, loss in (losses if isinstance(losses, dict) else {"": losses}).items():
        if not isinstance(loss, Tensor) or loss.dim() or not loss.requires_grad:
            shape = f" of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else ""
            fault = f"{name or 'the loss'} is {type(loss).__name__}{shape}"
            break
        found[name] = loss
    else:
        if found:
            return found
    raise MindGapError(f"{hook}: {fault}; return a scalar made of the step's tensors, or a dict of such")


def check_gradients(hook: str, gradients: object, parameters: Sequence[Tensor]) -> Sequence[Tensor]:
    """What a mitigation's `gradients` gave, once it is one for each parameter."""
    made = list(gradients) if isinstance(gradients, Sequence) else []
    if [getattr(one, "shape", None) for one in made] != [one.shape for one in parameters]:
        raise MindGapError(
            f"{hook} gave no tensors of the shapes of the {len(parameters)} parameters, in their order: "
            f"return one for each, as each loss of `gradients` has them"
        )
    return made


def check_lesson(name: str, lesson: object, view: PoolView, free_N: Tensor) -> Lesson:
    """What a mitigation's `teach` returned, once it is a lesson as the contract says."""
    if not isinstance(lesson, Lesson):
        raise MindGapError(
            f"mitigation {name!r}: teach() gave {type(lesson).__name__}; return a Lesson, of no rows where "
            f"there is nothing to teach"
        )
    ids, labels, present = (x.to(view.device) for x in (lesson.ids, lesson.labels, lesson.present))
    if ids.shape != labels.shape or present.shape != (*ids.shape, len(view.modalities)):
        fault = "ids, labels and rows of presence that are not as many as each other"
    elif not torch.isin(ids, view.ids[free_N]).all() or len(ids.unique()) != len(ids):
        fault = "ids that are not in the pool, were just picked, or come twice"
    elif len(ids) and not (labels.min() >= 0 and labels.max() < view.num_classes):
        fault = f"labels outside 0..{view.num_classes - 1}"
    elif (present & ~view.present_NM[torch.searchsorted(view.ids, ids)]).any() or not present.any(1).all():
        fault = "rows without a modality, or with one that their sample lacks"
    else:
        return Lesson(ids, labels, present)
    raise MindGapError(f"mitigation {name!r}: teach() gave {fault}; see mindgap.parts.mitigations.Lesson")
