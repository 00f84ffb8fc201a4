"""Shortcut-aware reweighting (Li et al., ICML 2025, arXiv 2503.03122): samples that a shortcut solves count
less.

A proxy sees a single modality. With L_i the loss of the fused model on sample i and L^s_i that of the proxy,

    w_i = stop_gradient((L^s_i + e / 2) / (L^s_i + L_i + e))
    loss = mean_i(w_i L_i) + the proxies' own losses

The source has a reward model, a proxy of text with a backbone of its own that is thrown away after the
training, e = 1e-7, and e / 2 outside the fraction. Ours: cross-entropy; e = 1e-3, so that two losses that
vanish give 1/2; a proxy for each modality, of which the largest weight counts, so that what no single
modality solves counts most; cross-fitted proxies, as those that know a sample have no loss on it: a sample's
fold follows from its id, and its L^s is that of the proxy that never trained on this fold (its batch norms do
count it), and a proxy that would have no training sample of a class is refused. Weights are divided by their
mean over the batch and clipped to [0.1, 10]; a sample that has no proxy's modality weighs 1. A proxy is a
copy of the untrained encoder with a linear layer; no gradient of its loss reaches the model.
"""

import copy
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mindgap.base.errors import MindGapError
from mindgap.base.hosted import counting, mixed, norms, settle
from mindgap.base.settings import Share
from mindgap.parts.mitigations.alone import losses, mean_where
from mindgap.parts.mitigations.base import Mitigation, Network, Step

# Axes: B samples, K proxies (of S modalities), F folds, C classes.
EPSILON = 1e-3
CLIP = (0.1, 10.0)


def lacked(labels_L: Tensor, some_L: Tensor) -> list[int]:
    """The labels of which some samples (bool) have none."""
    return sorted({*labels_L.tolist()} - {*labels_L[some_L].tolist()})


class Proxy(nn.Module):
    """A classifier of one modality: a copy of the model's encoder for it, as that is now."""

    def __init__(self, model: Network, name: str):
        super().__init__()
        self.encoder = copy.deepcopy(model.encoders[name])
        self.head = nn.Linear(self.encoder.out_features, model.head.out_features)

    def forward(self, x_B: Tensor) -> Tensor:
        return self.head(self.encoder(x_B))


class ShortcutAware(Mitigation):
    """Samples that a single modality solves count less; `strength` 0 is plain training, 1 is the source's.

    Off in the first `warmup` epochs, half of them at most, in which only the proxies learn. `folds`: 1 is the
    source's way. `modalities`: those with a proxy, all where none is named.
    """

    def __init__(
        self,
        strength: Share = 1.0,
        warmup: Annotated[int, Field(ge=0)] = 10,
        folds: Annotated[int, Field(ge=1, le=10)] = 5,
        modalities: Annotated[Sequence[str], Field(min_length=1)] | None = None,
    ):
        self.strength, self.warmup, self.folds, self.modalities = strength, warmup, folds, modalities

    def meet(self, model: Network, ids_L: Tensor, labels_L: Tensor, present_LM: Tensor) -> None:
        """Refuse what leaves a proxy without a class: its loss on it would say nothing."""
        if not self.strength:
            return
        lacking, sound, whole = {}, [], []
        for name, m in self._places(list(model.modalities)).items():
            has_L, fold_L = present_LM[:, m], self._fold(ids_L)
            lacking[name] = [
                (fold, classes)
                for fold in range(self.folds)
                if (classes := lacked(labels_L, has_L & ((fold_L != fold) | (self.folds == 1))))
            ]
            sound += [name] * (not lacking[name])
            whole += [name] * (not lacked(labels_L, has_L))
        if len(sound) == len(lacking):
            return
        name, ((fold, classes), *_) = next((name, found) for name, found in lacking.items() if found)
        place = f" outside the fold that it leaves out ({fold + 1} of {self.folds})" * (self.folds > 1)
        key, mends = "mitigation_settings.shortcut_aware", []
        if self.folds > 1 and len(whole) > len(sound):
            only = "" if len(whole) == len(lacking) else f" and {key}.modalities to [{', '.join(whole)}]"
            mends.append(f"set {key}.folds to 1{only}")
        if sound:
            mends.append(f"set {key}.modalities to [{', '.join(sound)}]")
        mends.append("raise initial of the dataset's budget")
        raise MindGapError(
            f"shortcut_aware: the proxy of {name} has no training sample of class "
            f"{', '.join(map(str, classes[:5]))}{place}, of the {len(labels_L)} labelled ones: "
            f"{', or '.join(mends)} (params.yaml)"
        )

    def start(self, model: Network, epochs: int) -> nn.Module | None:
        if not self.strength:
            return None
        self.first = min(self.warmup, epochs // 2)
        self.places = self._places(list(model.modalities))
        self.proxies = nn.ModuleDict(
            {name: nn.ModuleList(Proxy(model, name) for _ in range(self.folds)) for name in self.places}
        )
        return self.proxies.to(model.head.weight)

    def loss(self, step: Step) -> Tensor:
        if not self.strength:
            return super().loss(step)
        losses_B = cross_entropy(step.logits, step.labels, reduction="none")
        proxy_BS, training = self.proxy_losses(step)
        weight_B = self.weights(step, losses_B.detach(), proxy_BS)
        return step.mean(losses_B * weight_B) + training

    def proxy_losses(self, step: Step) -> tuple[Tensor, Tensor]:
        """B x S: of each modality's proxy that does not know the sample; and what proxies minimise."""
        fold_B1 = self._fold(step.ids).unsqueeze(1)
        fold_F = torch.arange(self.folds, device=fold_B1.device)
        held_BF = fold_B1 == fold_F
        known_BF = ~held_BF if self.folds > 1 else held_BF
        apart, training = [], []
        for name, m in self.places.items():
            has_B1 = step.present[:, m].unsqueeze(1)
            losses_BF = losses(self._logits(step, name, m), step.labels)
            apart.append((losses_BF.detach() * held_BF).sum(dim=1))
            training.append(mean_where(losses_BF, known_BF & has_B1).sum())
        return torch.stack(apart, dim=1), torch.stack(training).sum()

    def weights(self, step: Step, losses_B: Tensor, proxy_BS: Tensor) -> Tensor:
        """B: what each sample counts, from the losses of model and proxies; its mean is 1 before the clip."""
        has_BS = step.present[:, list(self.places.values())]
        losses_B1 = losses_B.unsqueeze(1)
        each_BS = (proxy_BS + EPSILON / 2) / (proxy_BS + losses_B1 + EPSILON)
        weight_B = (each_BS * has_BS).amax(dim=1)
        some_B = has_BS.any(dim=1)
        weight_B = weight_B / mean_where(weight_B, some_B).clamp(min=EPSILON)
        weight_B = torch.where(some_B, weight_B, torch.ones_like(weight_B)).clamp(*CLIP)
        on = (step.epoch >= self.first).to(weight_B.dtype) * self.strength
        return 1 + on * (weight_B - 1)

    def _fold(self, ids_N: Tensor) -> Tensor:
        return mixed(ids_N + 1) % self.folds

    def _places(self, names: list[str]) -> dict[str, int]:
        chosen = list(self.modalities or names)
        if unknown := sorted({*chosen} - {*names}):
            raise MindGapError(
                f"mitigation_settings.shortcut_aware.modalities names {', '.join(unknown)}, which the data "
                f"lack: name some of {', '.join(names)}, or leave the key out for all of them"
            )
        return {name: names.index(name) for name in dict.fromkeys(chosen)}

    def _logits(self, step: Step, name: str, m: int) -> Tensor:
        """B x F x C, of all rows; only those that have the modality count in batch norms."""
        has_B, x = step.present[:, m], step.x[name]
        if len(x) != len(has_B):  # on a CPU, where one may look
            rows = has_B.nonzero().squeeze(1)
            x = x.new_zeros((len(has_B), *x.shape[1:])).index_copy(0, rows, x)
        x = step.model.encoders[name].prepare(x)
        x = x.to(step.model.head.weight.dtype) if x.is_floating_point() else x
        x = x * has_B.view(-1, *[1] * (x.dim() - 1))
        own = norms(self.proxies[name])
        counting(own, step.model.rows_of(has_B.to(step.model.head.weight.dtype)) if own else None)
        logits_BFC = torch.stack([proxy(x) for proxy in self.proxies[name]], dim=1)
        settle(own)
        return logits_BFC
