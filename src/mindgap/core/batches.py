"""What a training step works on: which samples, how augmented, what is left of their modalities, what drops.

Everything random is drawn on the host and in one order, whatever the device, for each purpose from a stream
of its own: mitigations that draw more or less see the same samples, augmented alike. Only then pixels move.
Many batches are augmented at once, because each operation works on its own samples alone, nine of 128.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from mindgap.base.at_work import at_work
from mindgap.base.gpu import send
from mindgap.base.hosted import KEYS
from mindgap.core.network import REST, MultimodalNet
from mindgap.core.recipe import Recipe
from mindgap.core.rng import torch_rng
from mindgap.data.dataset import Split
from mindgap.parts.augment.images import apply_augmentation, draw_augmentation
from mindgap.parts.mitigations import Lesson, Mitigation, check_dropped

# Numbers of the largest modality that are augmented at once. On a GPU 5,461 images of 64 px, 445 of 224; on a
# CPU an eighth, beyond which nothing is gained: RandAugMC then takes half the time of 128 images at once.
NUMBERS_AT_ONCE = {"cuda": 2**26, "cpu": 2**23}


@dataclass(frozen=True)
class Batch:
    """B samples on their device.

    `x` has, of each modality, the `rows` that go through its encoder; without rows all B, of which those
    that lack the modality are zeros. `keys` says what drops, one for each row of `x` and, under REST, each
    sample. Samples of weight 0 fill a batch up. `still_M` is 1 for a modality that sits the step out.
    """

    x: dict[str, Tensor]
    rows: dict[str, Tensor]
    keys: dict[str, Tensor]
    ids_B: Tensor
    present_BM: Tensor
    y_B: Tensor
    weight_B: Tensor
    still_M: Tensor
    rate: Tensor
    epoch: Tensor

    @property
    def tensors(self) -> list[Tensor]:
        """All of them, in one order."""
        held = [getattr(self, field.name) for field in fields(self)]
        return [x for one in held for x in (one.values() if isinstance(one, dict) else [one])]

    def copy(self) -> "Batch":
        """With memory of its own."""
        held = (getattr(self, field.name) for field in fields(self))
        copies: list[Any] = [
            {k: x.clone() for k, x in v.items()} if isinstance(v, dict) else v.clone() for v in held
        ]
        return Batch(*copies)


@dataclass(frozen=True)
class Draw:
    """A batch before its pixels are touched: all of it on the host. `key_PB`: of each part of the model."""

    ids_B: Tensor
    y_B: Tensor
    present_BM: Tensor
    key_PB: Tensor
    augmentation: dict[str, dict[str, Tensor]]
    rate: float
    epoch: int


class Batches:
    """The batches of a training, epoch after epoch, from the labelled samples of a split.

    `key` is that of the training's random streams. The rows of a `lesson` are drawn as the labelled samples
    are, and an epoch is as long as without them.
    """

    def __init__(
        self,
        train: Split,
        labelled_ids: Tensor,
        recipe: Recipe,
        mitigation: Mitigation,
        model: MultimodalNet,
        key: Sequence[object],
        lesson: Lesson | None = None,
    ):
        self.train, self.recipe, self.mitigation, self.model = train, recipe, mitigation, model
        self.device, self.pad = train.y_N.device, model.engine.pad
        # The host's own copy of what it decides by: the labelled samples, behind them those of the lesson.
        self.ids_L = labelled_ids.cpu()
        rows = labelled_ids.to(self.device)
        self.y_L, self.present_LM = train.y_N[rows].cpu(), train.present_NM[rows].cpu()
        if lesson is not None:
            self.ids_L, self.y_L, self.present_LM = (
                torch.cat([own, taught.cpu()])
                for own, taught in (
                    (self.ids_L, lesson.ids),
                    (self.y_L, lesson.labels),
                    (self.present_LM, lesson.present),
                )
            )
        largest = max(x[0].numel() for x in train.x.values())
        self.at_once = max(1, NUMBERS_AT_ONCE[self.device.type] // (largest * recipe.batch_size))
        self.order, self.augmenting, self.absence, self.dropout = (
            torch_rng(*key, purpose) for purpose in ("order", "augmentation", "modality dropout", "dropout")
        )
        self.draws, self.epochs = recipe.draws_per_epoch(len(labelled_ids)), 0
        self.per_epoch = recipe.batches_per_epoch(len(labelled_ids))

    def epoch(self) -> Iterator[Batch]:
        """The batches of the next epoch."""
        epoch, self.epochs = self.epochs, self.epochs + 1
        order = epoch_batches(self.y_L, self.recipe, self.order, self.draws)
        draws = (self._draw(rows, epoch, epoch + (k + 0.5) / self.per_epoch) for k, rows in enumerate(order))
        while block := list(islice(draws, self.at_once)):
            yield from self._batches(block)

    def _draw(self, rows_B: Tensor, epoch: int, passed: float) -> Draw:
        augmentation = {
            name: draw_augmentation(self.recipe.augmentation, modality, len(rows_B), self.augmenting)
            for name, modality in self.model.modalities.items()
        }
        there_BM, hook = self.present_LM[rows_B], f"{type(self.mitigation).__name__}.drop"
        with at_work(hook, type(self.mitigation), "its rng" if not epoch else ""):
            present_BM = check_dropped(hook, self.mitigation.drop(there_BM.clone(), self.absence), there_BM)
        shape = (len(self.model.modalities) + 1, len(rows_B))
        key_PB = torch.randint(KEYS, shape, generator=self.dropout)
        usable_BM, rate = self.model.usable(present_BM), self.recipe.rate(passed)
        return Draw(self.ids_L[rows_B], self.y_L[rows_B], usable_BM, key_PB, augmentation, rate, epoch)

    def _batches(self, block: Sequence[Draw]) -> Iterator[Batch]:
        """The batches of a block, which are drawn one by one, and made and sent together."""
        ids_N, y_N, present_NM = (
            torch.cat([getattr(draw, name) for draw in block]) for name in ("ids_B", "y_B", "present_BM")
        )
        key_PN = torch.cat([draw.key_PB for draw in block], dim=1)
        sizes = torch.tensor([len(draw.ids_B) for draw in block])
        batch_N = torch.arange(len(block)).repeat_interleave(sizes)
        row_N = torch.arange(len(batch_N)) - (sizes.cumsum(0) - sizes)[batch_N]  # within its batch
        place_N, counts = batch_N * self.recipe.batch_size + row_N, sizes.tolist()
        rows, x, keys = {}, {}, {REST: self._sent(key_PN[-1], place_N, counts)}
        for part, (name, of_N) in enumerate(self.model.rows_to_encode(present_NM).items()):
            encoded = torch.bincount(batch_N[of_N], minlength=len(block)).tolist()
            drawn = [draw.augmentation[name] for draw in block]
            values = {key: torch.cat([one[key] for one in drawn])[of_N] for key in drawn[0]}
            # Not by indexing, which takes ten times as long: this copies rows whole.
            x_K = self.train.x[name].index_select(0, send(ids_N[of_N], self.device))
            x_K = apply_augmentation(self.recipe.augmentation, x_K, values)
            x[name] = self._sent(x_K, place_N[of_N], encoded)
            if self.pad:
                keys[name] = self._sent(key_PN[part], place_N, counts)
            else:
                keys[name] = self._sent(key_PN[part][of_N], place_N, encoded)
                rows[name] = self._sent(row_N[of_N], place_N, encoded)
        still_M = [
            ~one.any(dim=0) & (self.model.spec.absent == "skip") for one in torch.split(present_NM, counts)
        ]
        each: tuple[Sequence[Tensor] | Tensor, ...] = (
            *(self._sent(one, place_N, counts) for one in (ids_N, present_NM, y_N, torch.ones(len(ids_N)))),
            send(torch.stack(still_M).float(), self.device),
            send(torch.tensor([draw.rate for draw in block]), self.device),
            send(torch.tensor([float(draw.epoch) for draw in block]), self.device),
        )
        for k in range(len(block)):
            x_k, rows_k, keys_k = ({name: of[k] for name, of in one.items()} for one in (x, rows, keys))
            yield Batch(x_k, rows_k, keys_k, *(of[k] for of in each))

    def _sent(self, x_K: Tensor, place_K: Tensor, counts: list[int]) -> Sequence[Tensor]:
        """What each batch has, on the device; if batches are padded, in its place among rows of zeros."""
        x_K = send(x_K, self.device)
        if not self.pad:
            return torch.split(x_K, counts)
        size = self.recipe.batch_size
        padded = x_K.new_zeros((len(counts) * size, *x_K.shape[1:]))
        return torch.split(padded.index_copy_(0, send(place_K, self.device), x_K), size)


def epoch_batches(
    y_L: Tensor, recipe: Recipe, rng: torch.Generator, draws: int | None = None
) -> Iterator[Tensor]:
    """Batches of positions in the labelled set: a permutation, cycled to `min_samples_per_epoch` draws.

    `draws`: how many there are instead, where some of the samples are not labelled.

    Without the minimum, 50 labels at batch 128 and 60 epochs would get 60 steps in all. With `class_balanced`
    the draws are with replacement, each class equally likely.
    """
    draws = recipe.draws_per_epoch(len(y_L)) if draws is None else draws
    if recipe.class_balanced:
        weight_L = 1.0 / torch.bincount(y_L)[y_L]
        order = torch.multinomial(weight_L, draws, replacement=True, generator=rng)
    else:
        cycles = math.ceil(draws / len(y_L))
        order = torch.cat([torch.randperm(len(y_L), generator=rng) for _ in range(cycles)])[:draws]
    yield from torch.split(order, recipe.batch_size)
