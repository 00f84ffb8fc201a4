"""What the suites share_*.json ask of a prepared Share: tables of its pairs, its images and its statistics.

pairs.csv was written from the raw files and the arrays apart from it: they must tell the same.
"""

import csv
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

import numpy as np

from mindgap.data.share import cifar10, mnist
from mindgap.data.storage import SPLITS, read_array, read_meta

MODALITIES = ("cifar10", "mnist")
CLASSES = tuple(f"{name}/{digit}" for digit, name in enumerate(cifar10.CLASSES))
PAIR_COLUMNS = (
    *("split", "index", "label"),
    *(f"{name}_{what}" for what in ("index", "label", "digest") for name in MODALITIES),
)
# Measured means over the pixels of an image and over the steps between its horizontal neighbours: the average
# image, what a copy may differ by, and the standard deviation between images. A faulty reading is far off:
# inverted digits have a mean of 222, planes of CIFAR-10 that are taken for pixels a step of 29.
USUAL = {
    "cifar10": {"brightness": (120.7, 5.0, 31.9), "step between neighbours": (14.4, 3.0, 4.9)},
    "mnist": {"brightness": (33.3, 2.0, 11.0), "step between neighbours": (17.2, 1.0, 3.2)},
}
SIGMAS = 5  # of a mean over the images: one in 200,000 datasets strays further by chance


def image_digest(image: np.ndarray) -> str:
    """96 bits that tell images apart: of 120,000, two that differ share them with a chance of 1e-19."""
    return blake2b(np.ascontiguousarray(image), digest_size=12).hexdigest()


def parameters(meta: dict) -> dict:
    """What the suites share_*.json ask for by name."""
    return {
        "pairs": sum(meta["sizes"].values()),
        "last_index": max(meta["sizes"].values()) - 1,
        "last_class": meta["num_classes"] - 1,
        **{
            f"last_{name}": max(sum(meta["raw_counts"][f"{name} {split}"]) for split in SPLITS) - 1
            for name in MODALITIES
        },
    }


def tables(folder: Path | str) -> dict[str, dict[str, list | np.ndarray]]:
    """`pairs`: a row per pair; `images`: a row per image; `checks`: value, lower and upper of statistics.

    The last two are left out where pairs.csv is so wrong that only its own suite can say how.
    """
    folder = Path(folder)
    meta, pairs = read_meta(folder), _read_pairs(folder)
    if not _is_usable(pairs, meta):
        return {"pairs": pairs}
    return {"pairs": pairs, "images": _image_table(folder, pairs, meta), "checks": _checks(folder, meta)}


def _read_pairs(folder: Path) -> dict[str, list]:
    """pairs.csv by column; the digests are text."""
    with (folder / "pairs.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))
    return {
        name: list(column) if name == "split" or name.endswith("digest") else [int(one) for one in column]
        for name, column in columns.items()
    }


def _is_usable(pairs: Mapping[str, list], meta: dict) -> bool:
    """Whether there is a row for every pair, in the order of the arrays."""
    expected = [(split, i) for split in SPLITS for i in range(meta["sizes"][split])]
    if not set(PAIR_COLUMNS) <= pairs.keys():
        return False
    return list(zip(pairs["split"], pairs["index"], strict=True)) == expected


def _image_table(folder: Path, pairs: Mapping[str, list], meta: dict) -> dict[str, list]:
    """Each image beside what it is made from: label and digest, stored and raw; whether it is marked as
    present; whether it occurs in train, for a test image; its contrast, and the brightest of its margin.
    """
    blocks = []
    for m, name in enumerate(MODALITIES):
        train: set[str] = set()
        for split in SPLITS:
            x_NHWC = read_array(folder, f"{split}.{name}.npy", meta, verify=False, mmap=True)
            inner, margin_N = _without_margin(x_NHWC, name)
            digests = [image_digest(image) for image in inner]
            first = 0 if split == SPLITS[0] else meta["sizes"][SPLITS[0]]
            rows = slice(first, first + len(digests))
            blocks.append(
                {
                    "split": [split] * len(digests),
                    "index": range(len(digests)),
                    "modality": [name] * len(digests),
                    "label": read_array(folder, f"{split}.label.npy", meta, verify=False),
                    "raw_label": pairs[f"{name}_label"][rows],
                    "present": read_array(folder, f"{split}.present.npy", meta, verify=False)[:, m],
                    "digest": digests,
                    "raw_digest": pairs[f"{name}_digest"][rows],
                    "in_train": [split == "test" and digest in train for digest in digests],
                    "contrast": inner.max(axis=(1, 2, 3)) - inner.min(axis=(1, 2, 3)),
                    "margin": margin_N,
                }
            )
            train |= set(digests)
    return {column: [one for block in blocks for one in block[column]] for column in blocks[0]}


def _without_margin(x_NHWC: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images as they were raw, and the brightest value around each (N)."""
    edge = (x_NHWC.shape[1] - {"cifar10": cifar10.SIDE, "mnist": mnist.SIDE}[name]) // 2
    if not edge:
        return x_NHWC, np.zeros(len(x_NHWC), dtype=np.uint8)
    inner = x_NHWC[:, edge:-edge, edge:-edge]
    outer = np.array(x_NHWC)
    outer[:, edge:-edge, edge:-edge] = 0
    return inner, outer.max(axis=(1, 2, 3))


def _checks(folder: Path, meta: dict) -> dict[str, list]:
    """One row per statistic: class counts beside what the raw files allow, brightness, smoothness."""
    rows = []
    for split in SPLITS:
        label_N = read_array(folder, f"{split}.label.npy", meta, verify=False)
        rows += _count_rows(split, np.array([(label_N == c).sum() for c in range(len(CLASSES))]), meta)
        for name in MODALITIES:
            x_NHWC = read_array(folder, f"{split}.{name}.npy", meta, verify=False, mmap=True)
            inner, _ = _without_margin(x_NHWC, name)
            right, left = inner[:, :, 1:], inner[:, :, :-1]
            steps = np.maximum(right, left) - np.minimum(right, left)
            for (what, usual), found in zip(USUAL[name].items(), (inner, steps), strict=True):
                mean, slack, deviation = usual
                slack += SIGMAS * deviation / len(inner) ** 0.5
                rows.append((f"{split}: {what} of {name}", float(found.mean()), mean - slack, mean + slack))
    names = ("check", "value", "lower", "upper")
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def _count_rows(split: str, count_C: np.ndarray, meta: dict) -> list[tuple[str, float, float, float]]:
    """Each class as often as asked for, or as the raw files allow."""
    size = meta["settings"][f"{split}_size"]
    possible_C = np.min([meta["raw_counts"][f"{name} {split}"] for name in MODALITIES], axis=0)
    lower_C = np.full(len(CLASSES), size // len(CLASSES)) if size else possible_C
    upper_C = np.full(len(CLASSES), -(-size // len(CLASSES))) if size else possible_C
    bounds = zip(CLASSES, count_C, lower_C, upper_C, strict=True)
    return [(f"{split}: pairs of {name}", *map(float, numbers)) for name, *numbers in bounds]
