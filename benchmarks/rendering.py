"""Images a second of `render_dataset` beside one image at a time in Pillow, and its memory at 140,000 images.

Process start and hashing are included on our side. "pillow" draws in memory only: a two-tone ground, a turned
star, and per-pixel `pnoise2` that erases a quarter of it, which is less than one of our images has on it.
Sides take turns, medians; the two counts are rendered once each, by two workers watched from outside. What
grows with the count is the table of what each image shows, beside 12,288 bytes of pixels that do not stay.

    python benchmarks/rendering.py            # four minutes, 1.8 GB of disk; writes results/rendering.json
    python benchmarks/rendering.py --quick    # few images, nothing written
"""

import argparse
import json
import math
import random
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from noise import pnoise2
from PIL import Image, ImageDraw

from machine import machine
from measure import in_turns, medians, target, watched, write
from mindgap.data.quintfeatures.images import Style
from mindgap.data.quintfeatures.render import render_dataset

FULL = {"samples": 5000, "pillow_images": 400, "repeats": 3, "counts": (14_000, 140_000)}
QUICK = {"samples": 50, "pillow_images": 4, "repeats": 1, "counts": (100, 200)}
SIZES, WORKERS = (64, 32), (1, 2)
AT_MOST = 1.25  # times the memory for ten times the images


def render(folder: Path, size: int, workers: int, images: int) -> None:
    """A dataset of Unique, which has two images a sample and none absent."""
    render_dataset(
        "unique",
        folder,
        root_seed=0,
        style=Style(image_size=size),
        train_size=images // 2 - images // 14,
        test_size=images // 14,
        contact_sheet_size=0,
        workers=workers,
        progress=False,
    )


def ours_a_second(size: int, workers: int, images: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        render(Path(folder) / "unique", size, workers, images)
        return images / (time.perf_counter() - begin)


def in_pillow(rng: random.Random, size: int) -> np.ndarray:
    """One image by the plain means: two samples a pixel and side for the edges, noise pixel by pixel."""
    side, reach = 2 * size, 0.6 * size
    bright, dark, front, shade = (tuple(rng.randrange(256) for _ in range(3)) for _ in range(4))
    ground, object_ = Image.new("RGB", (side, side), dark), Image.new("RGB", (side, side), shade)
    for image, color in ((ground, bright), (object_, front)):
        draw = ImageDraw.Draw(image)
        for y in range(0, side, side // 8):
            draw.rectangle((0, y, side, y + side // 16), color)
    mask = Image.new("L", (side, side))
    turns = [(-math.pi / 2 + k * math.pi / 5, reach if k % 2 == 0 else 0.4 * reach) for k in range(10)]
    ImageDraw.Draw(mask).polygon([(size + r * math.cos(a), size + r * math.sin(a)) for a, r in turns], 255)
    angle, (x, y) = rng.uniform(-45, 45), (rng.uniform(0, 120), rng.uniform(0, 120))
    axis = [4 * i / size for i in range(size)]
    noise = np.array([[pnoise2(x + u, y + v, 2) for u in axis] for v in axis])
    kept = Image.fromarray((noise < np.quantile(noise, 0.75)).astype(np.uint8) * 255).resize((side, side))
    mask = Image.fromarray(np.minimum(np.asarray(mask.rotate(angle)), np.asarray(kept)))
    return np.asarray(Image.composite(object_, ground, mask).resize((size, size), Image.Resampling.BOX))


def pillow_a_second(size: int, images: int) -> float:
    rng, array = random.Random(0), np.empty((images, size, size, 3), dtype=np.uint8)
    begin = time.perf_counter()
    for i in range(images):
        array[i] = in_pillow(rng, size)
    return images / (time.perf_counter() - begin)


def rates(samples: int, pillow_images: int, repeats: int) -> list[dict]:
    """Images a second of every variant, one row for each."""
    sides = {
        (size, workers): partial(ours_a_second, size, workers, 2 * samples)
        for size in SIZES
        for workers in WORKERS
    }
    sides |= {(size, "pillow"): partial(pillow_a_second, size, pillow_images) for size in SIZES}
    runs = in_turns(sides, repeats)
    median = medians(runs)
    rows = []
    for (size, workers), values in runs.items():
        row = {"image_size": size, "workers": workers, "images_per_second": round(median[size, workers])}
        row |= {"slowest": round(min(values)), "fastest": round(max(values))}
        if workers in WORKERS:
            row["times_pillow"] = round(median[size, workers] / median[size, "pillow"], 2)
        rows.append(row)
    return rows


def counted(images: int) -> dict:
    """Seconds, bytes on disk and peak memory of a whole dataset at 64 px, rendered by two workers."""
    with tempfile.TemporaryDirectory() as folder:
        shown, memory = watched([sys.executable, __file__, "--count", str(images), "--folder", folder])
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    seconds = json.loads(shown)
    rate = images / seconds
    return {"images": images, "seconds": seconds, "images_per_second": rate, "bytes": size, **memory}


def count_here(images: int, folder: Path) -> None:
    begin = time.perf_counter()
    render(folder / "unique", 64, 2, images)
    print(time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few images, nothing written")
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.count:
        count_here(options.count, options.folder)
        return
    facts, amount = machine("numpy", "noise", "pillow"), dict(QUICK if options.quick else FULL)
    counts = [counted(images) for images in amount.pop("counts")]
    rows = rates(**amount)
    print(json.dumps({"counts": counts, "rows": rows}, indent=1))
    if options.quick:
        return
    few, many = counts
    growth = many["peaks_gib"] / few["peaks_gib"]
    per_image = (many["peaks_gib"] - few["peaks_gib"]) * 2**30 / (many["images"] - few["images"])
    what = f"peak memory of rendering {many['images']:,} images over {few['images']:,}"
    result = {
        "command": "python benchmarks/rendering.py",
        "machine": facts,
        "targets": [target(what, growth, at_most=AT_MOST)],
        **amount,
        "counts": counts,
        "bytes_of_memory_an_image_more": per_image,
        "rows": rows,
    }
    write("rendering", result)


if __name__ == "__main__":
    main()
