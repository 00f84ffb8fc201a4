"""A small UPMC Food-101 in both public forms: drawn dishes of all 101 classes under real page titles."""

import csv
import io
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

from mindgap.data.food101 import CLASSES
from shared_data import shared

# The first training image of the k-th class is the k-th of these.
QUIRKS = ("cmyk", "palette", "grey", "deep", "transparent", "turned", "truncated")


def food101_raw(
    folder: Path,
    per_class_train: int = 4,
    per_class_test: int = 2,
    size: int = 48,
    *,
    recipes: bool = False,
    quirks: bool = False,
) -> Path:
    """Draw the images (size x 4/3 size) and write the titles files, with `recipes` texts_txt/ instead."""
    titles = real_titles(per_class_train + per_class_test)
    rows = {"train": [], "test": []}
    for label in CLASSES:
        rows["train"] += titles[label][:per_class_train]
        rows["test"] += titles[label][per_class_train:]
    for split, listed in rows.items():
        for file, _, label in listed:
            path = folder / "images" / split / label / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg(draw_dish(label, file, size)))
    if recipes:
        write_recipes(folder, rows["train"] + rows["test"])
    else:
        write_titles(folder, rows)
    if quirks:
        add_quirks(folder, rows["train"])
    return folder


def real_titles(per_class: int) -> dict[str, list[list[str]]]:
    """The first rows (file, title, class) of each class in the real test_titles.csv, of 197 at least."""
    by_class = defaultdict(list)
    with shared("upmc-food101/test_titles.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.reader(file, strict=True):
            by_class[row[2]].append(row)
    return {label: by_class[label][:per_class] for label in CLASSES}


def write_titles(folder: Path, rows: dict[str, list[list[str]]]) -> None:
    (folder / "texts").mkdir()
    for split, listed in rows.items():
        with (folder / "texts" / f"{split}_titles.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(listed)


def write_recipes(folder: Path, rows: list[list[str]]) -> None:
    """Pages around the real titles."""
    for file, title, label in rows:
        path = folder / "texts_txt" / label / f"{Path(file).stem}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        dish = label.replace("_", " ")
        path.write_text(f"{title}\n\nServes 4.\nIngredients\n 1 cup of {dish}\nMethod\n Serve the {dish}.\n")


def draw_dish(label: str, name: str, size: int) -> Image.Image:
    """Two hues, above and below, that say the class, under noise that says the file."""
    rng = np.random.default_rng(list(name.encode()))
    above, below = divmod(CLASSES.index(label), 11)
    width = size * 4 // 3
    hsv = np.empty((size, width, 3))
    hsv[: size // 2], hsv[size // 2 :] = (above * 25, 170, 170), (below * 23, 170, 170)
    hsv += rng.normal(0, 4, (size, width, 3)) + rng.normal(0, (4, 30, 30))
    return Image.fromarray(hsv.clip(0, 255).astype(np.uint8), "HSV").convert("RGB")


def jpeg(image: Image.Image, **options) -> bytes:
    return encoded(image, "JPEG", **{"quality": 90, **options})


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def add_quirks(folder: Path, rows: list[list[str]]) -> None:
    first = {label: file for file, _, label in reversed(rows)}
    for quirk, label in zip(QUIRKS, CLASSES, strict=False):
        path = folder / "images" / "train" / label / first[label]
        path.write_bytes(spoilt(quirk, Image.open(io.BytesIO(path.read_bytes()))))


def spoilt(quirk: str, image: Image.Image) -> bytes:
    """A .jpg as a crawler brings it home."""
    if quirk == "cmyk":
        return jpeg(image.convert("CMYK"))
    if quirk == "palette":
        return encoded(image.convert("P"), "PNG")
    if quirk == "grey":
        return jpeg(image.convert("L"))
    if quirk == "deep":
        return encoded(Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257), "PNG")
    if quirk == "transparent":
        image.putalpha(image.convert("L"))
        return encoded(image, "PNG")
    if quirk == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        return jpeg(image, exif=exif)
    whole = jpeg(image)
    return whole[: len(whole) * 5 // 6]
