"""Augmented images a second on one thread: batches beside one image at a time, at 32, 64 and 224 px.

"pillow" is what a dataset's transform does for each image: array to Pillow, the recipe, and back; flip and
crop are torchvision's, at 224 px a random resized crop. "torchvision_v2" is its own RandAugment with flip and
crop on one tensor after the other: a like amount of work, not the same recipe. Sides take turns; figures are
medians. What a data loader adds around the transform is left out, in the opponents' favour.

    python benchmarks/augmentation.py            # writes results/augmentation.json
    python benchmarks/augmentation.py --quick    # few images; asserts no times, writes nothing
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import v2

from machine import machine
from mindgap.base.modality import Modality
from mindgap.parts.augment.images import LARGE, apply_augmentation, draw_augmentation

RESULT = Path(__file__).parent / "results" / "augmentation.json"
SIZES = (32, 64, 224)
BATCH = 128
FULL = {"images": 2048, "repeats": 7}
QUICK = {"images": 128, "repeats": 1}
AT_LEAST = {("basic", 32): 20, ("randaugmc", 32): 4}  # times Pillow; below it a full run fails


def pillow_operation(image: Image.Image, name: str, level: int, sign: int) -> Image.Image:
    """One operation of RandAugmentMC on one image."""
    shift = level * 0.3 / 10 * sign
    match name:
        case "AutoContrast":
            return ImageOps.autocontrast(image)
        case "Equalize":
            return ImageOps.equalize(image)
        case "Posterize":
            return ImageOps.posterize(image, 4 + level * 4 // 10)
        case "Solarize":
            return ImageOps.solarize(image, 256 - level * 256 // 10)
        case "Brightness" | "Color" | "Contrast" | "Sharpness":
            return getattr(ImageEnhance, name)(image).enhance(0.05 + level * 0.9 / 10)
        case "Rotate":
            return image.rotate(3 * level * sign)
        case "Identity":
            return image
    affine = {
        "ShearX": (1, shift, 0, 0, 1, 0),
        "ShearY": (1, 0, 0, shift, 1, 0),
        "TranslateX": (1, 0, int(shift * image.width), 0, 1, 0),
        "TranslateY": (1, 0, 0, 0, 1, int(shift * image.height)),
    }[name]
    return image.transform(image.size, Image.Transform.AFFINE, affine)


NAMES = ["AutoContrast", "Brightness", "Color", "Contrast", "Equalize", "Identity", "Posterize", "Rotate"]
NAMES += ["Sharpness", "ShearX", "ShearY", "Solarize", "TranslateX", "TranslateY"]


def pillow_randaugmentmc(image: Image.Image) -> Image.Image:
    """Two operations and a grey patch."""
    for name in random.choices(NAMES, k=2):
        image = pillow_operation(image, name, random.randrange(1, 10), random.choice((-1, 1)))
    if image.width >= LARGE:
        return image
    image, side = image.copy(), image.width // 2
    left, top = (max(0, random.uniform(0, length) - side / 2) for length in image.size)
    patch = (int(left), int(top), min(image.width, int(left) + side), min(image.height, int(top) + side))
    ImageDraw.Draw(image).rectangle(patch, (127, 127, 127))
    return image


def flip_and_crop(size: int, **padding) -> list:
    if size >= LARGE:
        return [transforms.RandomHorizontalFlip(), transforms.RandomResizedCrop(size)]
    return [transforms.RandomHorizontalFlip(), transforms.RandomCrop(size, padding=size // 8, **padding)]


def each_in_pillow(transform: Callable) -> Callable[[Tensor], Tensor]:
    """Array to Pillow, transform, and back, one image after the other."""

    def run(x_BHWC: Tensor) -> Tensor:
        images = (transform(Image.fromarray(x)) for x in x_BHWC.numpy())
        return torch.from_numpy(np.stack([np.asarray(image) for image in images]))

    return run


def each_tensor(transform: Callable) -> Callable[[Tensor], Tensor]:
    return lambda x_BHWC: torch.stack([transform(x) for x in x_BHWC.permute(0, 3, 1, 2)])


def ours(name: str, size: int) -> Callable[[Tensor], Tensor]:
    """Drawing and applying."""
    rng, modality = torch.Generator().manual_seed(0), Modality("image", (size, size, 3))

    def run(x_BHWC: Tensor) -> Tensor:
        return apply_augmentation(name, x_BHWC, draw_augmentation(name, modality, len(x_BHWC), rng))

    return run


def recipes_in_pillow(size: int) -> dict[str, Callable[[Image.Image], Image.Image]]:
    return {
        "basic": transforms.Compose(flip_and_crop(size)),
        "randaugmc": transforms.Compose([*flip_and_crop(size, padding_mode="reflect"), pillow_randaugmentmc]),
    }


def contestants(size: int) -> dict[str, dict[str, Callable[[Tensor], Tensor]]]:
    """Per recipe, each side as a function of a batch: ours first."""
    in_pillow = recipes_in_pillow(size)
    torchvision_randaugment = v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomResizedCrop(size)
            if size >= LARGE
            else v2.RandomCrop(size, size // 8, padding_mode="reflect"),
            v2.RandAugment(2, 9),
        ]
    )
    return {
        "basic": {
            "mindgap": ours("basic", size),
            "pillow": each_in_pillow(in_pillow["basic"]),
        },
        "randaugmc": {
            "mindgap": ours("randaugmc", size),
            "pillow": each_in_pillow(in_pillow["randaugmc"]),
            "torchvision_v2": each_tensor(torchvision_randaugment),
        },
    }


def smooth_images(count: int, size: int) -> Tensor:
    """x_NHWC, enlarged noise."""
    noise = torch.randint(256, (count, 3, size // 8, size // 8), generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(noise.float(), size=size, mode="bilinear")
    return smooth.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def images_per_second(augment: Callable[[Tensor], Tensor], x_NHWC: Tensor) -> float:
    begin = time.perf_counter()
    for x_BHWC in x_NHWC.split(BATCH):
        augment(x_BHWC)
    return len(x_NHWC) / (time.perf_counter() - begin)


def measure(size: int, images: int, repeats: int) -> list[dict]:
    """A row for each recipe: images a second of each side, and how many times faster ours is."""
    x_NHWC = smooth_images(images // 8 if size >= LARGE else images, size)
    rows = []
    for recipe, sides in contestants(size).items():
        rates = {side: [] for side in sides}
        for augment in sides.values():
            augment(x_NHWC[:BATCH])  # what is built on first use
        for _ in range(repeats):
            for side, augment in sides.items():
                rates[side].append(images_per_second(augment, x_NHWC))
        median = {side: statistics.median(values) for side, values in rates.items()}
        row = {"recipe": recipe, "image_size": size}
        for side, values in rates.items():
            row[side] = {
                "median": round(median[side]),
                "slowest": round(min(values)),
                "fastest": round(max(values)),
            }
        row |= {f"times_{side}": round(median["mindgap"] / median[side], 1) for side in list(sides)[1:]}
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few images; asserts no times, writes nothing")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    random.seed(0)
    torch.manual_seed(0)
    amount = QUICK if quick else FULL
    result = {
        "command": "python benchmarks/augmentation.py",
        "machine": machine("torch", "torchvision", "pillow", "numpy", threads=1),
        "batch": BATCH,
        **amount,
    }
    result["images_per_second"] = [row for size in SIZES for row in measure(size, **amount)]
    print(json.dumps(result["images_per_second"], indent=1))
    if quick:
        return
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    for row in result["images_per_second"]:
        wanted = AT_LEAST.get((row["recipe"], row["image_size"]), 0)
        assert row["times_pillow"] >= wanted, f"{row['recipe']} at {row['image_size']} px: below {wanted}x"


if __name__ == "__main__":
    main()
