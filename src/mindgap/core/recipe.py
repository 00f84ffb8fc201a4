"""How a model is trained, and what follows from that alone: draws, steps, validations, learning rates."""

import math
from dataclasses import dataclass

from pydantic import BaseModel


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. Epochs are counted in draws: see `min_samples_per_epoch`.

    With `drop_last` an epoch leaves out a last batch that is smaller than the others.
    """

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
    drop_last: bool = False

    @classmethod
    def of(cls, *blocks: BaseModel) -> "Recipe":
        """From blocks of the parameters: a dataset's recipe, and what all trainings share."""
        values = {key: value for block in blocks for key, value in block.model_dump().items()}
        return cls(**{name: values[name] for name in cls.__dataclass_fields__})

    def draws_per_epoch(self, labelled: int) -> int:
        draws = max(labelled, self.min_samples_per_epoch)
        left = draws % self.batch_size if self.drop_last and draws > self.batch_size else 0
        return draws - left

    def batches_per_epoch(self, labelled: int) -> int:
        return math.ceil(self.draws_per_epoch(labelled) / self.batch_size)

    def validates(self, epoch: int) -> bool:
        """Whether an epoch, from 0 on, ends with a look at the validation set."""
        return epoch + 1 >= self.validate_from * self.epochs

    def rate(self, epoch: float) -> float:
        """The learning rate: linear warm-up to the base rate, then a cosine to 0 at the last epoch."""
        if epoch < self.warmup_epochs:
            return self.learning_rate * epoch / self.warmup_epochs
        progress = (epoch - self.warmup_epochs) / max(self.epochs - self.warmup_epochs, 1e-8)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
