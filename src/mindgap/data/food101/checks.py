"""What the suites of UPMC Food-101 check, computed from the prepared folder alone."""

import csv
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mindgap.data.food101.images import EXCLUDED, SMALLEST, TRUNCATED
from mindgap.data.food101.index import FILE, NO_IMAGE_FILE, NO_TEXT, NO_TEXT_FILE, OTHER_NAME
from mindgap.data.food101.settings import CLASSES
from mindgap.data.food101.texts import NO_INGREDIENTS
from mindgap.data.storage import SPLITS, read_array, read_meta

VOCABULARY = 30522
# Rows of a class (measured on test_titles.csv: 197 to 238) hold for a whole copy; the tests' drawn ones have
# at most this many in training.
DRAWN = 100
Columns = dict[str, list]
SplitArrays = Mapping[str, Mapping[str, np.ndarray]]  # by split and by name


def tables(folder: Path | str) -> dict[str, Columns]:
    """`images` (every image that was looked at), `tokens` (every text), `classes`, and `checks` of all."""
    folder = Path(folder)
    meta, images = read_meta(folder), _read_images(Path(folder) / "images.csv")
    arrays = {
        split: {name: _array(folder, split, name, meta) for name in ("text", "label")} for split in SPLITS
    }
    return {
        "images": _with_derived(images),
        "tokens": _token_table(arrays),
        "classes": _class_table(arrays),
        "checks": _check_table(images, arrays, meta),
    }


def parameters(meta: dict) -> dict:
    """What replaces "$name" in the suites; rows per class are asked of whole copies with whole texts."""
    settings, sizes = meta["settings"], meta["sizes"]
    whole = settings["recipe_part"] == "all" and sizes["train"] > DRAWN * len(CLASSES)
    return {
        "classes": list(CLASSES),
        "from_titles": settings["text_source"] == "titles",
        "excluded": ["", *EXCLUDED, NO_IMAGE_FILE, OTHER_NAME, NO_TEXT_FILE, NO_TEXT, NO_INGREDIENTS],
        "smallest": SMALLEST,
        "max_length": settings["max_length"],
        "last_token": VOCABULARY - 1,
        "whole_train": whole and settings["train_size"] == 0,
        "whole_test": whole and settings["test_size"] == 0,
    }


def _array(folder: Path, split: str, name: str, meta: dict) -> np.ndarray:
    return read_array(folder, f"{split}.{name}.npy", meta, verify=False, mmap=True)


def _read_images(path: Path) -> Columns:
    """images.csv; sizes are None where the image was not opened."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    columns = dict(zip(header, map(list, zip(*lines, strict=True)), strict=True))
    for name in ("width", "height", "row"):
        columns[name] = [int(cell) if cell else None for cell in columns[name]]
    return columns


def _with_derived(images: Columns) -> Columns:
    """And: the class that a name begins with; whether an image is kept; its place and shorter side if so."""
    kept = [not reason for reason in images["excluded"]]
    named = [FILE.fullmatch(file) for file in images["file"]]
    sides = zip(images["width"], images["height"], kept, strict=True)
    places = zip(images["split"], images["row"], strict=True)
    return images | {
        "prefix": [
            match["label"] if match else label for match, label in zip(named, images["class"], strict=True)
        ],
        "kept": kept,
        "in_array": [row >= 0 for row in images["row"]],
        "place": [f"{split} {row}" if row >= 0 else None for split, row in places],
        "shorter_side": [min(width, height) if good else None for width, height, good in sides],
    }


def _token_table(arrays: SplitArrays) -> Columns:
    """A row per text: its length, first, last, least and greatest id, and whether only padding follows."""
    columns = {
        name: [] for name in ("split", "row", "length", "first", "last", "least", "greatest", "padded")
    }
    for split, array in arrays.items():
        tokens_NL = np.asarray(array["text"])
        rows = np.arange(len(tokens_NL))
        length_N = (tokens_NL != 0).sum(axis=1)
        found = {
            "split": [split] * len(rows),
            "row": rows,
            "length": length_N,
            "first": tokens_NL[:, 0],
            "last": tokens_NL[rows, np.maximum(length_N, 1) - 1],
            "least": tokens_NL.min(axis=1),
            "greatest": tokens_NL.max(axis=1),
            "padded": ((tokens_NL != 0) == (np.arange(tokens_NL.shape[1]) < length_N[:, None])).all(axis=1),
        }
        for name, values in found.items():
            columns[name] += list(values)
    return columns


def _class_table(arrays: SplitArrays) -> Columns:
    counts = {
        split: np.bincount(array["label"], minlength=len(CLASSES)).tolist() for split, array in arrays.items()
    }
    return {"class": list(CLASSES), **counts}


def _check_table(images: Columns, arrays: SplitArrays, meta: dict) -> Columns:
    """Statistics with their bounds. What may be anything up to the number of samples is only reported."""
    rows: dict[str, tuple[float, float, float]] = {}
    for split in SPLITS:
        rows |= {f"{split}: {name}": row for name, row in _split_checks(split, images, arrays, meta).items()}
    pairs = list(zip(images["split"], images["sha256"], strict=True))
    sha256 = {split: [one for its, one in pairs if its == split and one] for split in SPLITS}
    samples = sum(meta["sizes"].values())
    rows |= {name: (value, 0, samples) for name, value in overlaps(sha256, arrays).items()}
    value, lower, upper = map(list, zip(*rows.values(), strict=True))
    return {"check": list(rows), "value": value, "lower": lower, "upper": upper}


def _split_checks(split: str, images: Columns, arrays: SplitArrays, meta: dict) -> dict:
    columns = (images[name] for name in ("split", "row", "class", "excluded", "repaired"))
    mine = [values for one, *values in zip(*columns, strict=True) if one == split]
    listed = {row: label for row, label, *_ in mine if row >= 0}
    label_N, size = arrays[split]["label"], meta["sizes"][split]
    other = sum(listed.get(i) != CLASSES[c] for i, c in enumerate(label_N.tolist()))
    bad = sum(reason in EXCLUDED for *_, reason, _ in mine)
    cut = sum(TRUNCATED in repaired for *_, repaired in mine)
    counts = np.bincount(label_N, minlength=len(CLASSES))
    return {
        "rows of images.csv that the arrays lack": (len(listed) - size, 0, 0),
        "labels that images.csv contradicts": (other, 0, 0),
        "classes without a sample": (int((counts == 0).sum()), 0, 0),
        "rows of the largest class less those of the smallest": (int(np.ptp(counts)), 0, size),
        "share of opened images that are no good": (bad / (bad + size), 0, meta["settings"]["max_missing"]),
        "share of opened images that are cut off": (cut / (bad + size), 0, meta["settings"]["max_truncated"]),
    }


def overlaps(sha256: Mapping[str, Sequence[str]], arrays: SplitArrays) -> dict[str, float]:
    """What train and test share, and what repeats: a property of the public data, to be known and not judged.

    Images are compared as they are stored, by the hashes of their pixels; texts by their ids, so that case
    and spaces do not count, nor what was cut.
    """
    images = {split: Counter(hashes) for split, hashes in sha256.items()}
    train, test = ([ids_L.tobytes() for ids_L in np.asarray(arrays[split]["text"])] for split in SPLITS)
    labels = defaultdict(set)
    for text, label in zip(train, arrays["train"]["label"].tolist(), strict=True):
        labels[text].add(label)
    pairs = list(zip(test, arrays["test"]["label"].tolist(), strict=True))
    return {
        "test images whose pixels are in train": sum(
            images["test"][one] for one in images["test"] & images["train"]
        ),
        "images that repeat another of their split": sum(
            count.total() - len(count) for count in images.values()
        ),
        "share of test texts that are in train": sum(text in labels for text in test) / len(test),
        "share of test texts that are in train with their label": (
            sum(label in labels.get(text, ()) for text, label in pairs) / len(test)
        ),
    }
