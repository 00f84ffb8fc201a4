"""What a training step works on: which samples, how augmented, what is left of their modalities.

Everything random is drawn on the host and in one order, whatever the device; only then pixels move. Many
batches are augmented at once, because each operation works on its own samples alone, nine of 128.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from mindgap.augment import apply_augmentation, draw_augmentation
from mindgap.data.dataset import Split
from mindgap.gpu import send
from mindgap.mitigations import Mitigation
from mindgap.models.network import MultimodalNet

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


@dataclass(frozen=True)
class Batch:
    """B samples on their device. `x` has, of each modality, only the `rows` that go through its encoder."""

    x: dict[str, Tensor]
    rows: dict[str, Tensor]
    present_BM: Tensor
    y_B: Tensor


@dataclass(frozen=True)
class Draw:
    """A batch before its pixels are touched: all of it on the host."""

    ids_B: Tensor
    present_BM: Tensor
    augmentation: dict[str, dict[str, Tensor]]


class Batches:
    """The batches of a training, epoch after epoch, from the labelled samples of a split."""

    def __init__(
        self,
        train: Split,
        labelled_ids: Tensor,
        recipe: Recipe,
        mitigation: Mitigation,
        model: MultimodalNet,
        rng: torch.Generator,
    ):
        self.train, self.recipe, self.mitigation, self.model, self.rng = train, recipe, mitigation, model, rng
        self.device = train.y_N.device
        # The host's own copy of what it decides by.
        self.labelled_ids = labelled_ids.cpu()
        rows = labelled_ids.to(self.device)
        self.y_L, self.present_LM = train.y_N[rows].cpu(), train.present_NM[rows].cpu()
        largest = max(x[0].numel() for x in train.x.values())
        self.at_once = max(1, NUMBERS_AT_ONCE[self.device.type] // (largest * recipe.batch_size))

    def epoch(self) -> Iterator[Batch]:
        """The batches of the next epoch."""
        draws = (self._draw(rows) for rows in epoch_batches(self.y_L, self.recipe, self.rng))
        while block := list(islice(draws, self.at_once)):
            yield from self._batches(block)

    def _draw(self, rows_B: Tensor) -> Draw:
        augmentation = {
            name: draw_augmentation(self.recipe.augmentation, modality, len(rows_B), self.rng)
            for name, modality in self.model.modalities.items()
        }
        present_BM = self.mitigation.drop(self.present_LM[rows_B], self.rng)
        return Draw(self.labelled_ids[rows_B], self.model.usable(present_BM), augmentation)

    def _batches(self, block: Sequence[Draw]) -> Iterator[Batch]:
        rows = [self.model.rows_to_encode(draw.present_BM) for draw in block]
        x, rows_on_device = {}, {}
        for name in self.model.modalities:
            rows_of = [r[name] for r in rows]
            counts = [len(r) for r in rows_of]
            x[name] = self._inputs(name, block, rows_of).split(counts)
            rows_on_device[name] = send(torch.cat(rows_of), self.device).split(counts)
        sizes = [len(draw.ids_B) for draw in block]
        present = send(torch.cat([draw.present_BM for draw in block]), self.device).split(sizes)
        y = self.train.y_N[send(torch.cat([draw.ids_B for draw in block]), self.device)].split(sizes)
        for k in range(len(block)):
            yield Batch(
                {name: x[name][k] for name in x},
                {name: rows_on_device[name][k] for name in x},
                present[k],
                y[k],
            )

    def _inputs(self, name: str, block: Sequence[Draw], rows_of: Sequence[Tensor]) -> Tensor:
        """The rows of all batches, augmented."""
        ids = torch.cat([draw.ids_B[rows] for draw, rows in zip(block, rows_of, strict=True)])
        drawn = [draw.augmentation[name] for draw in block]
        values = {
            key: torch.cat([d[key][rows] for d, rows in zip(drawn, rows_of, strict=True)]) for key in drawn[0]
        }
        # Not by indexing, which takes ten times as long: this copies rows whole.
        x = self.train.x[name].index_select(0, send(ids, self.device))
        return apply_augmentation(self.recipe.augmentation, x, values)


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
