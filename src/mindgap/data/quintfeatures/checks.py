"""What the data expectations ask of a rendered dataset: duplicates, images that belie their table, leaks.

Each function returns a table as a dict of equally long columns, or counts; none imports torch.
"""

import csv
import hashlib
import math
from pathlib import Path

import numpy as np

from mindgap.data.quintfeatures.colors import nearest_color
from mindgap.data.quintfeatures.images import (
    FEATURES,
    LEVELS,
    Style,
    bright_pixels,
    image_seed,
    render_image,
    render_layers,
    styles_of,
)
from mindgap.data.storage import SPLITS, read_array, read_meta


def meta_styles(meta: dict) -> dict[str, Style]:
    """The style of each modality's images in a rendered dataset."""
    return styles_of(Style(**meta["style"]), meta["own_style"], list(meta["modalities"]))


def read_attributes(path: Path | str) -> dict[str, np.ndarray]:
    """attributes.csv as columns: text for split and modality, float for erased_fraction, else integers."""
    with (Path(path) / "attributes.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))
    types = {"split": str, "modality": str, "erased_fraction": float}
    return {name: np.array(column, dtype=types.get(name, np.int64)) for name, column in columns.items()}


def image_summary(path: Path | str) -> dict[str, np.ndarray]:
    """One row for each image that is present: split, index, modality, sha256 of its pixels."""
    meta = read_meta(path)
    rows = []
    for split in SPLITS:
        present_NM = read_array(path, f"{split}.present.npy", meta, verify=False)
        for m, modality in enumerate(meta["modalities"]):
            images = read_array(path, f"{split}.{modality}.npy", meta, verify=False, mmap=True)
            for i in np.flatnonzero(present_NM[:, m]).tolist():
                rows.append((split, i, modality, hashlib.sha256(np.ascontiguousarray(images[i])).hexdigest()))
    names = ("split", "index", "modality", "sha256")
    return {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def rendered_sample(path: Path | str, size: int = 64) -> dict[str, np.ndarray]:
    """Stored images beside their re-rendering, spread evenly over attributes.csv.

    Columns: split, index, modality, same (stored image == one rendered from its row and seed), fg_color, and
    decoded_color: the anchor nearest to the median pixel that shows only the object's bright shade, -1 where
    no pixel does.
    """
    meta, table = read_meta(path), read_attributes(path)
    styles, modalities = meta_styles(meta), list(meta["modalities"])
    chosen = np.unique(np.linspace(0, len(table["index"]) - 1, size).astype(int))
    same, decoded = [], []
    for row in chosen:
        split, modality, i = str(table["split"][row]), str(table["modality"][row]), int(table["index"][row])
        style = styles[modality]
        seed = image_seed(
            meta["root_seed"], meta["dataset"], SPLITS.index(split), i, modalities.index(modality)
        )
        features = [int(table[feature][row]) for feature in FEATURES]
        image = np.array(read_array(path, f"{split}.{modality}.npy", meta, verify=False, mmap=True)[i])
        same.append(np.array_equal(image, render_image(features, seed, style)[0]))
        bright = image[bright_pixels(render_layers(features, seed, style)[0], style.supersample)]
        decoded.append(int(nearest_color(np.median(bright, axis=0).round())) if len(bright) else -1)
    names = ("split", "index", "modality", "fg_color")
    return {name: table[name][chosen] for name in names} | {
        "decoded_color": np.array(decoded),
        "same": np.array(same),
    }


def attribute_counts(
    table: dict[str, np.ndarray], split: str, first: tuple[str, str], second: tuple[str, str]
) -> np.ndarray:
    """How often two (modality, feature) go together (10 x 10), over the samples of a split that show each of
    them.

    The leak check of Unique: `("full", "fg_texture")` against each feature of `partial` must look
    independent.
    """
    columns = []
    for modality, feature in (first, second):
        rows = np.flatnonzero((table["split"] == split) & (table["modality"] == modality))
        columns.append(dict(zip(table["index"][rows].tolist(), table[feature][rows].tolist(), strict=True)))
    counts = np.zeros((LEVELS, LEVELS), dtype=np.int64)
    for i in columns[0].keys() & columns[1].keys():
        counts[columns[0][i], columns[1][i]] += 1
    return counts


def mutual_bits(counts: np.ndarray) -> float:
    """Mutual information in bits of a table of counts: 0 when independent, log2(10) when tied."""
    share = counts / counts.sum()
    independent = share.sum(axis=1, keepdims=True) * share.sum(axis=0, keepdims=True)
    seen = share > 0
    return float((share[seen] * np.log2(share[seen] / independent[seen])).sum())


def independence_p(counts: np.ndarray) -> float:
    """p-value of the chi-square test of independence, by Wilson and Hilferty's cube root."""
    counts = counts[counts.any(axis=1)][:, counts.any(axis=0)]
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0, keepdims=True) / counts.sum()
    freedom = (counts.shape[0] - 1) * (counts.shape[1] - 1)
    if freedom == 0:
        return 1.0
    statistic = float(((counts - expected) ** 2 / expected).sum())
    spread = 2 / (9 * freedom)
    z = ((statistic / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)
    return math.erfc(z / math.sqrt(2)) / 2
