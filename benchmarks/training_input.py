"""Images a second that reach an encoder: batches of a training beside a data loader with Pillow transforms.

Ours is what `training.fit` iterates over: `batches.Batches`, the image gathered from a uint8 tensor and
augmented, then the encoder's `prepare`. The opponent is how repositories of the field train: a Dataset of the
same images, torchvision's transforms on each (array to Pillow, the recipe, ToTensor, Normalize), a DataLoader
with batches of 128, shuffled, its workers kept. There two workers have the two cores, here two threads with
batches of their own, as two runs have them. Nobody trains.

    python benchmarks/training_input.py            # five minutes; writes results/training_input.json
    python benchmarks/training_input.py --quick    # few images, nothing written
"""

import json
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from augmentation import BATCH, recipes_in_pillow, smooth_images
from machine import machine
from measure import arguments, in_turns, medians, target, write
from mindgap.base.modality import Modality
from mindgap.core.batches import Batches, Recipe
from mindgap.core.network import ModelSpec, build_model
from mindgap.data.dataset import Split
from mindgap.engine.jobs import set_up
from mindgap.parts.mitigations import Mitigation

SIZES = (32, 64)
RECIPES = ("basic", "randaugmc")
OURS, THEIRS = "mindgap, 2 threads", "loader, 2 workers"
FULL = {"images": 8192, "repeats": 7}
QUICK = {"images": 256, "repeats": 1}
AT_LEAST = 10


class Images(Dataset):
    def __init__(self, x_NHWC: Tensor, y_N: Tensor, transform: Callable):
        self.images, self.labels, self.transform = x_NHWC.numpy(), y_N.tolist(), transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[row])), self.labels[row]


def make_loader(x_NHWC: Tensor, y_N: Tensor, recipe: str, workers: int) -> DataLoader:
    normalised = [transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)]
    transform = transforms.Compose([recipes_in_pillow(x_NHWC.shape[1])[recipe], *normalised])
    images = Images(x_NHWC, y_N, transform)
    return DataLoader(images, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0)


def loader_rate(loader: DataLoader) -> float:
    begin = time.perf_counter()
    return sum(len(y_B) for _, y_B in loader) / (time.perf_counter() - begin)


def make_batches(x_NHWC: Tensor, y_N: Tensor, augmentation: str) -> Batches:
    """As `training.fit` makes them; of the recipe only the batch size and the augmentation matter here."""
    recipe = Recipe(
        epochs=1,
        batch_size=BATCH,
        learning_rate=0.1,
        weight_decay=0.0,
        augmentation=augmentation,
        class_balanced=False,
        momentum=0.9,
        warmup_epochs=0,
        min_samples_per_epoch=0,
        validate_from=0.0,
    )
    modalities = {"image": Modality("image", tuple(x_NHWC.shape[1:]))}
    train = Split({"image": x_NHWC}, torch.ones((len(x_NHWC), 1), dtype=torch.bool), y_N)
    model = build_model(modalities, 10, ModelSpec(), seed=0)
    return Batches(train, torch.arange(len(x_NHWC)), recipe, Mitigation(), model, ("benchmark",))


def seen(batches: Batches) -> int:
    """How many images an epoch of batches has, each made ready for the encoder."""
    prepare = batches.model.encoders["image"].prepare
    return sum(len(prepare(batch.x["image"])) for batch in batches.epoch())


def batches_rate(batches: Sequence[Batches]) -> float:
    """A thread for each; torch's own threads share operations of a millisecond, and mostly wait."""
    begin = time.perf_counter()
    with ThreadPoolExecutor(len(batches)) as threads:
        images = sum(threads.map(seen, batches))
    return images / (time.perf_counter() - begin)


def measure(recipe: str, size: int, images: int, repeats: int) -> dict:
    """One row: images a second of each side, and how many times the loader's with two workers ours are."""
    x_NHWC = smooth_images(images, size)
    y_N = torch.randint(10, (images,), generator=torch.Generator().manual_seed(1))
    ours = [make_batches(x_NHWC, y_N, recipe) for _ in range(2)]
    sides = {
        # First: the workers are forked before this process has threads.
        THEIRS: partial(loader_rate, make_loader(x_NHWC, y_N, recipe, workers=2)),
        "loader, no workers": partial(loader_rate, make_loader(x_NHWC, y_N, recipe, workers=0)),
        "mindgap, 1 thread": partial(batches_rate, ours[:1]),
        OURS: partial(batches_rate, ours),
    }
    runs = in_turns(sides, repeats)
    rates = medians(runs)
    return {
        "recipe": recipe,
        "image_size": size,
        "images_per_second": rates,
        "runs": runs,
        "times_two_workers": {side: rates[side] / rates[THEIRS] for side in sides if side != THEIRS},
    }


def main() -> None:
    quick = arguments(__doc__).quick
    set_up("cpu")  # as a worker begins; the loader's workers are forked from it
    torch.manual_seed(0)
    random.seed(0)
    amount = QUICK if quick else FULL
    facts = machine("torch", "torchvision", "pillow")
    rows = [measure(recipe, size, **amount) for size in SIZES for recipe in RECIPES]
    print(json.dumps(rows, indent=1))
    if quick:
        return
    targets = [
        target(
            f"images a second, {row['recipe']} at {row['image_size']} px: times a loader with two workers",
            row["times_two_workers"][OURS],
            at_least=AT_LEAST,
        )
        for row in rows
    ]
    command = "python benchmarks/training_input.py"
    write(
        "training_input", {"command": command, "machine": facts, "targets": targets, **amount, "rows": rows}
    )


if __name__ == "__main__":
    main()
