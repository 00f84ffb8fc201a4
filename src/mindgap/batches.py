"""What a training step works on: which samples, how augmented, what is left of their modalities, what drops.

Everything random is drawn on the host and in one order, whatever the device, for each purpose from a stream
of its own: mitigations that draw more or less see the same samples, augmented alike. Only then pixels move.
Many batches are augmented at once, because each operation works on its own samples alone, nine of 128.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice

import torch
from torch import Tensor

from mindgap.augment import apply_augmentation, draw_augmentation
from mindgap.data.dataset import Split
from mindgap.gpu import send
from mindgap.mitigations import Mitigation
from mindgap.models.hosted import KEYS
from mindgap.models.network import REST, MultimodalNet
from mindgap.rng import torch_rng

# Numbers of the largest modality that are augmented at once. On a GPU 5,461 images of 64 px, 445 of 224; on a
# CPU an eighth, beyond which nothing is gained: RandAugMC then takes half the time of 128 images at once.
NUMBERS_AT_ONCE = {"cuda": 2**26, "cpu": 2**23}


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. Epochs are counted in draws: see `min_samples_per_epoch`."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    augmentation: str
    class_balanced: bool
    momentum: float
    warmup_epochs: float
    min_samples_per_epoch: int
    validate_from: float

    def batches_per_epoch(self, labelled: int) -> int:
        return math.ceil(max(labelled, self.min_samples_per_epoch) / self.batch_size)

    def rate(self, epoch: float) -> float:
        """The learning rate: linear warm-up to the base rate, then a cosine to 0 at the last epoch."""
        if epoch < self.warmup_epochs:
            return self.learning_rate * epoch / self.warmup_epochs
        progress = (epoch - self.warmup_epochs) / max(self.epochs - self.warmup_epochs, 1e-8)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


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
        return Batch(
            *({k: x.clone() for k, x in v.items()} if isinstance(v, dict) else v.clone() for v in held)
        )


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

    `key` is that of the training's random streams.
    """

    def __init__(
        self,
        train: Split,
        labelled_ids: Tensor,
        recipe: Recipe,
        mitigation: Mitigation,
        model: MultimodalNet,
        key: Sequence,
    ):
        self.train, self.recipe, self.mitigation, self.model = train, recipe, mitigation, model
        self.device, self.pad = train.y_N.device, model.engine.pad
        # The host's own copy of what it decides by.
        self.labelled_ids = labelled_ids.cpu()
        rows = labelled_ids.to(self.device)
        self.y_L, self.present_LM = train.y_N[rows].cpu(), train.present_NM[rows].cpu()
        largest = max(x[0].numel() for x in train.x.values())
        self.at_once = max(1, NUMBERS_AT_ONCE[self.device.type] // (largest * recipe.batch_size))
        self.order, self.augmenting, self.absence, self.dropout = (
            torch_rng(*key, purpose) for purpose in ("order", "augmentation", "modality dropout", "dropout")
        )
        self.per_epoch, self.epochs = recipe.batches_per_epoch(len(labelled_ids)), 0

    def epoch(self) -> Iterator[Batch]:
        """The batches of the next epoch."""
        epoch, self.epochs = self.epochs, self.epochs + 1
        order = epoch_batches(self.y_L, self.recipe, self.order)
        draws = (self._draw(rows, epoch, epoch + (k + 0.5) / self.per_epoch) for k, rows in enumerate(order))
        while block := list(islice(draws, self.at_once)):
            yield from self._batches(block)

    def _draw(self, rows_B: Tensor, epoch: int, passed: float) -> Draw:
        augmentation = {
            name: draw_augmentation(self.recipe.augmentation, modality, len(rows_B), self.augmenting)
            for name, modality in self.model.modalities.items()
        }
        present_BM = self.mitigation.drop(self.present_LM[rows_B], self.absence)
        shape = (len(self.model.modalities) + 1, len(rows_B))
        key_PB = torch.randint(KEYS, shape, generator=self.dropout)
        usable_BM, rate = self.model.usable(present_BM), self.recipe.rate(passed)
        return Draw(self.labelled_ids[rows_B], self.y_L[rows_B], usable_BM, key_PB, augmentation, rate, epoch)

    def _batches(self, block: Sequence[Draw]) -> Iterator[Batch]:
        """The batches of a block, sent to the device together."""
        names = list(self.model.modalities)
        encoded = [self.model.rows_to_encode(draw.present_BM) for draw in block]
        rows_of = {name: [rows[name] for rows in encoded] for name in names}
        x = {name: self._inputs(name, block, rows_of[name]) for name in names}
        keys = {REST: self._sent([draw.key_PB[-1] for draw in block])}
        for part, name in enumerate(names):
            of_all = [draw.key_PB[part] for draw in block]
            of_rows = [key_B[rows] for key_B, rows in zip(of_all, rows_of[name], strict=True)]
            keys[name] = self._sent(of_all if self.pad else of_rows)
        rows = {} if self.pad else {name: self._sent(rows_of[name]) for name in names}
        still_M = [~draw.present_BM.any(dim=0) & (self.model.spec.absent == "skip") for draw in block]
        each = (
            self._sent([draw.ids_B for draw in block]),
            self._sent([draw.present_BM for draw in block]),
            self._sent([draw.y_B for draw in block]),
            self._sent([torch.ones(len(draw.ids_B)) for draw in block]),
            send(torch.stack(still_M).float(), self.device),
            send(torch.tensor([draw.rate for draw in block]), self.device),
            send(torch.tensor([float(draw.epoch) for draw in block]), self.device),
        )
        for k in range(len(block)):
            named = ({name: parts[k] for name, parts in one.items()} for one in (x, rows, keys))
            yield Batch(*named, *(parts[k] for parts in each))

    def _sent(self, parts: Sequence[Tensor]) -> Sequence[Tensor]:
        """What each batch has, on the device; padded with zeros if batches are."""
        size = self.recipe.batch_size
        if self.pad:
            parts = [torch.cat([part, part.new_zeros(size - len(part), *part.shape[1:])]) for part in parts]
        return send(torch.cat(list(parts)), self.device).split([len(part) for part in parts])

    def _inputs(self, name: str, block: Sequence[Draw], rows_of: Sequence[Tensor]) -> Sequence[Tensor]:
        """The rows of all batches, augmented; padded, each in its sample's place."""
        ids = torch.cat([draw.ids_B[rows] for draw, rows in zip(block, rows_of, strict=True)])
        drawn = [draw.augmentation[name] for draw in block]
        values = {
            key: torch.cat([d[key][rows] for d, rows in zip(drawn, rows_of, strict=True)]) for key in drawn[0]
        }
        # Not by indexing, which takes ten times as long: this copies rows whole.
        x = self.train.x[name].index_select(0, send(ids, self.device))
        x = apply_augmentation(self.recipe.augmentation, x, values)
        if not self.pad:
            return x.split([len(rows) for rows in rows_of])
        size = self.recipe.batch_size
        places = torch.cat([rows + k * size for k, rows in enumerate(rows_of)])
        padded = torch.zeros((len(block) * size, *x.shape[1:]), dtype=x.dtype, device=self.device)
        return padded.index_copy_(0, send(places, self.device), x).split(size)


def epoch_batches(y_L: Tensor, recipe: Recipe, rng: torch.Generator) -> Iterator[Tensor]:
    """Batches of positions in the labelled set: a permutation, cycled to `min_samples_per_epoch` draws.

    Without the minimum, 50 labels at batch 128 and 60 epochs would get 60 steps in all. With `class_balanced`
    the draws are with replacement, each class equally likely.
    """
    draws = max(len(y_L), recipe.min_samples_per_epoch)
    if recipe.class_balanced:
        weight_L = 1.0 / torch.bincount(y_L)[y_L]
        order = torch.multinomial(weight_L, draws, replacement=True, generator=rng)
    else:
        cycles = math.ceil(draws / len(y_L))
        order = torch.cat([torch.randperm(len(y_L), generator=rng) for _ in range(cycles)])[:draws]
    yield from order.split(recipe.batch_size)
