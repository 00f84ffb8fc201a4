"""What the suites share_shortcut_*.json ask of a prepared dataset: how often a digit goes with a class."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mindgap.data.share import checks as share
from mindgap.data.share.checks import CLASSES, MODALITIES, image_digest
from mindgap.data.storage import SPLITS, read_array, read_meta

parameters = share.parameters


def tables(folder: Path | str) -> dict[str, dict[str, list]]:
    """`pairs`: a row per pair; `checks`: value, lower and upper of statistics, left out where pairs.csv is so
    wrong that only its own suite can say how.
    """
    folder = Path(folder)
    meta, pairs = read_meta(folder), share._read_pairs(folder)
    if not share._is_usable(pairs, meta):
        return {"pairs": pairs}
    rows = [row for split in SPLITS for row in _of_split(folder, split, pairs, meta)]
    names = ("check", "value", "lower", "upper")
    return {"pairs": pairs, "checks": dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))}


def _of_split(folder: Path, split: str, pairs: Mapping[str, list], meta: dict) -> list[tuple]:
    """Rows of checks: how often each digit goes with each class, and the arrays beside pairs.csv."""
    here = np.array(pairs["split"]) == split
    label_P, digit_P = (np.array(pairs[name])[here] for name in ("label", "mnist_label"))
    size, classes = len(label_P) // len(CLASSES), range(len(CLASSES))
    agreement = round(meta["settings"][f"{split}_agreement"] * size)
    others = (size - agreement) / (len(CLASSES) - 1)
    stored_P = read_array(folder, f"{split}.label.npy", meta, verify=False)
    present_PM = read_array(folder, f"{split}.present.npy", meta, verify=False)
    rows = [
        (f"{split}: labels beside pairs.csv", float((stored_P != label_P).sum()), 0.0, 0.0),
        (f"{split}: absent images", float((~present_PM).sum()), 0.0, 0.0),
    ]
    for name in MODALITIES:
        x_PHWC = read_array(folder, f"{split}.{name}.npy", meta, verify=False, mmap=True)
        inner, _ = share._without_margin(x_PHWC, name)
        digests = np.array(pairs[f"{name}_digest"])[here]
        wrong = sum(image_digest(image) != digest for image, digest in zip(inner, digests, strict=True))
        rows.append((f"{split}: images of {name} beside pairs.csv", float(wrong), 0.0, 0.0))
    for c in classes:
        count_C = np.bincount(digit_P[label_P == c], minlength=len(CLASSES))
        apart, about = np.delete(count_C, c), f"{split}: pairs of class {c}"
        rows += [
            (about, float(count_C.sum()), float(size), float(size)),
            (f"{about} with its digit", float(count_C[c]), float(agreement), float(agreement)),
            (f"{about} with the rarest other digit", float(apart.min()), others - 1, others),
            (f"{about} with the commonest other digit", float(apart.max()), others, others + 1),
        ]
    return rows
