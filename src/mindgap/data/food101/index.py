"""The rows of UPMC Food-101 as either distribution lists them, before an image or a recipe is opened.

Both have images/{train,test}/<class>/<class>_<number>.jpg. With titles the rows are those of two CSV files,
with recipes they are the images that have a file texts_txt/<class>/<class>_<number>.txt.
"""

import csv
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mindgap.data.errors import DataError, SourceMissing
from mindgap.data.files import is_there, read_bytes, readable
from mindgap.data.flow import Flow
from mindgap.data.food101.settings import CLASSES, Settings
from mindgap.data.storage import SPLITS

FILE = re.compile(r"(?P<label>[a-z_]+)_\d+(?:-\d+)?\.jpg")
# A line as its makers meant it, whatever its quotes say.
LINE = re.compile(r"(?P<file>[^,]+),(?P<title>.*),(?P<label>[a-z_]+)")
NO_IMAGE_FILE = "no image file"
STRAY_QUOTES, NAMED_TXT = "stray quotes", "named .txt"
OTHER_NAME, NO_TEXT_FILE = "not <class>_<number>.jpg", "no text file"
NO_TEXT = "text cannot be read"
LARGEST = 2**28  # bytes of a titles file; the public ones have 2 and 6 million
UTF16 = (b"\xff\xfe", b"\xfe\xff")  # as spreadsheets save "Unicode text"
FORM = (
    "a row is image,title,class, with commas, and there is no header and no index; mend it, or where all "
    "rows are like this, save the file in that form or take the original"
)
MISSING = (
    "{raw} lacks {lacks}: put UPMC Food-101 there, either the original archive (visiir.lip6.fr; images/ and "
    "texts_txt/, for text_source recipes) or the Kaggle copy gianmarco96/upmcfood101 (images/ and "
    "texts/*_titles.csv, for text_source titles); its images and texts were crawled from the web: for "
    "research only, not to be passed on"
)


@dataclass(frozen=True, slots=True)
class IndexRow:
    """One image and its text; `title` is None where the text is a file of its own."""

    file: str
    label: str
    title: str | None = None


@dataclass
class Listing:
    """The rows of a split in the order of class and file, and what was left out as (file, label, reason)."""

    rows: list[IndexRow]
    left_out: list[tuple[str, str, str]] = field(default_factory=list)
    unused_images: int = 0


def list_rows(raw: Path, settings: Settings, flow: Flow) -> dict[str, Listing]:
    """The rows of both splits whose image, and with recipes whose text, is there."""
    with readable(raw, "put it back"):
        _check_parts(raw, settings)
        listed = _list_titles if settings.text_source == "titles" else _list_recipes
        listings = {split: listed(raw, split, flow) for split in SPLITS}
    _check_disjoint(listings)
    for split, listing in listings.items():
        absent = sorted(set(CLASSES) - {row.label for row in listing.rows})
        if absent:
            raise DataError(
                f"{raw}: {split} has no image with a text of {', '.join(absent)}: the copy is not complete; "
                "put back what is absent (train_size and test_size take fewer rows of all 101 classes)"
            )
    return listings


def titles_path(raw: Path, split: str) -> Path:
    """<split>_titles.csv in texts/, or at the top."""
    inner = raw / "texts" / f"{split}_titles.csv"
    return inner if is_there(inner) else raw / inner.name


def _check_parts(raw: Path, settings: Settings) -> None:
    is_there(raw)
    parts = {f"images/{split}": is_there(raw / "images" / split) for split in SPLITS}
    titles = {f"texts/{split}_titles.csv": is_there(titles_path(raw, split)) for split in SPLITS}
    recipes = {"texts_txt": is_there(raw / "texts_txt")}
    wanted, other = (titles, recipes) if settings.text_source == "titles" else (recipes, titles)
    lacks = [name for name, there in {**parts, **wanted}.items() if not there]
    if lacks and all(parts.values()) and all(other.values()):
        source = "recipes" if settings.text_source == "titles" else "titles"
        raise DataError(
            f"{raw} has no {', '.join(lacks)}, but {', '.join(other)}: set text_source to {source}"
        )
    if lacks:
        raise SourceMissing(MISSING.format(raw=raw, lacks=", ".join(lacks)))


def _list_titles(raw: Path, split: str, flow: Flow) -> Listing:
    path = titles_path(raw, split)
    rows, repaired = read_titles(path)
    rows.sort(key=lambda row: (row.label, row.file))
    there = {label: _names(raw / "images" / split / label) for label in CLASSES}
    found = [row for row in rows if row.file in there[row.label]]
    left_out = [(row.file, row.label, NO_IMAGE_FILE) for row in rows if row.file not in there[row.label]]
    flow.start(split, f"rows of {path.name}", len(rows))
    flow.step(split, "read", repaired=repaired)
    flow.step(split, "image files", excluded={NO_IMAGE_FILE: len(left_out)})
    return Listing(found, left_out, sum(map(len, there.values())) - len(found))


def read_titles(path: Path) -> tuple[list[IndexRow], dict[str, int]]:
    """The rows of a titles file, in its order, and how many were mended by what was wrong with them.

    Every line is read by itself: the public train_titles.csv has a quote that is never closed, in the line of
    breakfast_burrito_730.jpg, and a reader of the whole file loses the rows that follow; those are named
    .txt (artelab/Image-and-Text-fusion-for-UPMC-Food-101-using-BERT-and-CNNs, issue 2).
    """
    rows, seen, repaired = [], {}, {STRAY_QUOTES: 0, NAMED_TXT: 0}
    for number, line in _lines(path):
        cells, stray = _cells(line, f"{path}, row {number}")
        row = _row(*cells, where=f"{path}, row {number}", first=number == 1)
        if row.file in seen:
            raise DataError(
                f"{path}, row {number}: {row.file} is there twice, also in row {seen[row.file]}: remove one"
            )
        seen[row.file] = number
        rows.append(row)
        repaired[STRAY_QUOTES] += stray
        repaired[NAMED_TXT] += cells[0].endswith(".txt")
    return rows, repaired


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not empty, with their numbers from 1.

    They end with a line feed, or in a file that has none with a carriage return.
    """
    content = read_bytes(path, "put it back", LARGEST)
    text = content.decode("utf-16" if content[:2] in UTF16 else "utf-8-sig", "replace")
    for number, line in enumerate(text.split("\n" if "\n" in text else "\r"), 1):
        if line.strip():
            yield number, line.rstrip("\r")


def _cells(line: str, where: str) -> tuple[list[str], bool]:
    """File, title and class of a line, and whether quotes had to be removed by hand."""
    try:
        cells = next(csv.reader([line], strict=True))
    except csv.Error as error:
        meant = LINE.fullmatch(line)
        if not meant:
            raise DataError(f"{where} has a stray quote ({error}) in {line[:60]!r}: mend the line") from None
        return [meant["file"], _unquoted(meant["title"]), meant["label"]], True
    if len(cells) != 3:
        columns = "1 column" if len(cells) == 1 else f"{len(cells)} columns"
        raise DataError(f"{where} has {columns} instead of image, title and class in {line[:60]!r}: {FORM}")
    stray = '"' in line and ",".join(cells) == line
    return ([cells[0], _unquoted(cells[1]), cells[2]] if stray else cells), stray


def _unquoted(title: str) -> str:
    """Without the quotes around it, and with one where there are several."""
    return re.sub('"+', '"', title).strip('"')


def _row(name: str, title: str, label: str, *, where: str, first: bool) -> IndexRow:
    file = re.sub(r"\.txt$", ".jpg", name)
    named = FILE.fullmatch(file)
    if named["label"] == title != label if named else FILE.fullmatch(title) or FILE.fullmatch(label):
        raise DataError(f"{where} has its columns in another order: {FORM}")
    if not named and first and label not in CLASSES:
        raise DataError(
            f"{where}: {name!r} is no image file such as apple_pie_0.jpg: the file has a header, which the "
            "public one has not; take the original, since pandas loses its first row when it saves it anew"
        )
    if not named:
        raise DataError(f"{where}: {name!r} is no image file such as apple_pie_0.jpg: mend the line")
    if named["label"] != label:
        raise DataError(f"{where}: {name} is of class {label!r}, but named after {named['label']!r}: mend it")
    if label not in CLASSES:
        raise DataError(f"{where}: {label!r} is none of the 101 classes: mend the line")
    return IndexRow(file, label, title)


def _list_recipes(raw: Path, split: str, flow: Flow) -> Listing:
    folder, rows, left_out = raw / "images" / split, [], []
    for label in _known_folders(folder):
        texts = _names(raw / "texts_txt" / label)
        for file in sorted(_names(folder / label)):
            named = FILE.fullmatch(file)
            if not named:
                left_out.append((file, label, OTHER_NAME))
            elif named["label"] != label:
                raise DataError(f"{folder / label / file} is named after another class: move it to its own")
            elif f"{Path(file).stem}.txt" not in texts:
                left_out.append((file, label, NO_TEXT_FILE))
            else:
                rows.append(IndexRow(file, label))
    reasons = Counter(reason for *_, reason in left_out)
    flow.start(split, "image files", len(rows) + len(left_out))
    flow.step(
        split, "text files", excluded={reason: reasons[reason] for reason in (OTHER_NAME, NO_TEXT_FILE)}
    )
    return Listing(rows, left_out)


def _known_folders(folder: Path) -> list[str]:
    found = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != ".")
    unknown = [name for name in found if name not in CLASSES]
    if unknown:
        raise DataError(f"{folder} has {', '.join(unknown)}, none of the 101 classes: move it elsewhere")
    return found


def _names(folder: Path) -> set[str]:
    return {entry.name for entry in os.scandir(folder)} if is_there(folder) else set()


def _check_disjoint(listings: dict[str, Listing]) -> None:
    train, test = (
        {row.file for row in listings[split].rows} | {file for file, *_ in listings[split].left_out}
        for split in SPLITS
    )
    shared = sorted(name for name in train & test if FILE.fullmatch(name))
    if shared:
        named = ", ".join(shared[:5]) + (", ..." if len(shared) > 5 else "")
        raise DataError(
            f"{len(shared)} image names are in train and in test: {named}; a name belongs to one split, so "
            "remove them from the other"
        )
