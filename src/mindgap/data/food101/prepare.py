"""UPMC Food-101 -> a prepared dataset: rows, then images, then the texts of the rows whose image is good."""

import csv
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from mindgap.base.minilm import SHA256
from mindgap.base.modality import Modality
from mindgap.base.progress import Progress
from mindgap.data.draws import stable_hash
from mindgap.data.errors import DataError
from mindgap.data.files import OF_MACHINE
from mindgap.data.flow import Flow
from mindgap.data.food101.checks import overlaps
from mindgap.data.food101.images import (
    EXCLUDED,
    REPAIRED,
    TRUNCATED,
    Found,
    ImageChunk,
    decode_chunk,
    keep_rows,
)
from mindgap.data.food101.index import NO_IMAGE_FILE, NO_TEXT, IndexRow, Listing, list_rows
from mindgap.data.food101.settings import CLASSES, Settings
from mindgap.data.food101.texts import (
    NO_INGREDIENTS,
    TOKENIZER,
    read_recipe,
    recipe_path,
    text_reader,
    write_tokens,
)
from mindgap.data.prepared import new_array, write_meta, written_at_once
from mindgap.data.presence import subset_name, subsets
from mindgap.data.workers import map_processes

MODALITIES = ("image", "text")
CHUNK = 64  # images a task: a tenth of a second to one, by their size
NAMED = 5
IMAGE_COLUMNS = ("split", "file", "class", "width", "height", "mode", "repaired", "excluded", "row", "sha256")


@dataclass(frozen=True)
class Preparation:
    """What every step needs to know."""

    raw: Path
    folder: Path
    settings: Settings
    flow: Flow
    workers: int
    progress: bool

    @contextmanager
    def shown(self, title: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """A function that is told of finished units."""
        if not self.progress:
            yield lambda units: None
            return
        with Progress(title, total, unit=unit) as bar:
            yield bar.advance


def prepare(
    raw: Path | str, out_dir: Path | str, settings: Settings, *, workers: int, progress: bool
) -> dict:
    """Write the dataset; its meta. images.csv has a line for every image that was looked at.

    SourceMissing where `raw` has neither distribution; DataError where its files are not what they should be,
    or too many of a split's images are absent, unreadable or cut off.
    """
    raw, flow = Path(raw), Flow()
    listings = list_rows(raw, settings, flow)
    drawn = {split: choose_rows(raw, split, listing, settings, flow) for split, listing in listings.items()}
    for split, listing in listings.items():
        check_lost(split, listing, [], settings)  # before all the decoding
    with written_at_once(out_dir) as folder:
        job = Preparation(raw, folder, settings, flow, workers, progress)
        lines, sha256, arrays = [], {}, {}
        for split, listing in listings.items():
            looked = write_images(job, split, drawn[split])
            check_lost(split, listing, looked, settings)
            kept = [one for one in looked if not one.found.excluded]
            lines += image_lines(split, listing, looked)
            arrays[split] = write_texts(job, split, [one.row for one in kept])
            sha256[split] = [one.found.sha256 for one in kept]
        write_lines(folder / "images.csv", lines)
        unused = {split: listing.unused_images for split, listing in listings.items()}
        sizes = {split: len(hashes) for split, hashes in sha256.items()}
        details = {"images_without_row": unused, "overlap": overlaps(sha256, arrays)}
        return describe(job, sizes, details)


@dataclass(frozen=True)
class Drawn:
    """Rows to prepare, in the order of class and file; by class, those that step in for unreadable ones."""

    rows: list[IndexRow]
    reserve: dict[str, list[IndexRow]]


@dataclass(frozen=True, slots=True)
class Looked:
    """A row whose image was opened; `place` is its row in the arrays, -1 where it was left out."""

    row: IndexRow
    found: Found
    place: int


def choose_rows(raw: Path, split: str, listing: Listing, settings: Settings, flow: Flow) -> Drawn:
    """The rows of a split to prepare: with the part of the recipe that is wanted, and drawn if so asked."""
    rows = listing.rows
    if settings.text_source == "recipes":
        reasons = {row: _no_recipe(recipe_path(raw, row), settings.recipe_part) for row in rows}
        listing.left_out += [(row.file, row.label, reason) for row, reason in reasons.items() if reason]
        counts = Counter(reasons.values())
        asked = (NO_TEXT,) if settings.recipe_part == "all" else (NO_TEXT, NO_INGREDIENTS)
        flow.step(split, "recipes", excluded={reason: counts[reason] for reason in asked})
        rows = listing.rows = [row for row in rows if not reasons[row]]
    size = settings.size(split)
    if size > len(rows):
        raise DataError(f"{split}_size is {size}, but {raw} has {len(rows)} rows: make it 0 to take all")
    if not size:
        return Drawn(rows, {})
    return draw_rows(rows, size, np.random.default_rng([settings.seed, stable_hash(f"food101 {split}")]))


def _no_recipe(path: Path, part: str) -> str:
    """Why a row has no text, "" where it has one; asked before the images are decoded, which takes long."""
    try:
        return "" if read_recipe(path, part) is not None else NO_INGREDIENTS
    except OSError as error:
        if error.errno in OF_MACHINE:
            raise
        return NO_TEXT


def draw_rows(rows: Sequence[IndexRow], size: int, rng: np.random.Generator) -> Drawn:
    """So many of the rows; class counts differ by at most one while every class has rows."""
    order = rng.permutation(len(rows))
    label_N = np.array([CLASSES.index(row.label) for row in rows])[order]
    turn_N = np.zeros(len(rows), dtype=np.int64)  # rank of a row within its class: lowest ranks go first
    for c in np.unique(label_N):
        turn_N[label_N == c] = np.arange((label_N == c).sum())
    order = order[np.lexsort((rng.random(len(rows)), turn_N))]
    reserve = defaultdict(list)
    for i in order[size:].tolist():
        reserve[rows[i].label].append(rows[i])
    return Drawn([rows[i] for i in np.sort(order[:size])], reserve)


def write_images(job: Preparation, split: str, drawn: Drawn) -> list[Looked]:
    """Decode the images of the rows into their array; every row that was looked at.

    In a draw another row of the class takes the place of one whose image is no good. Places that stay empty
    are closed up.
    """
    array, size = job.folder / f"{split}.image.npy", job.settings.image_size
    shape = (len(drawn.rows), size, size, 3)
    new_array(array, np.uint8, shape).flush()
    looked, todo = [], list(enumerate(drawn.rows))
    with job.shown(f"food101: {split} images", len(todo), "images") as advance:
        while todo:
            tried = [
                Looked(row, found, place)
                for (place, row), found in zip(todo, decode(job, split, array, todo, advance), strict=True)
            ]
            looked += tried
            bad = [one for one in tried if one.found.excluded and drawn.reserve.get(one.row.label)]
            todo = [(one.place, drawn.reserve[one.row.label].pop(0)) for one in bad]
    if job.settings.size(split):
        left = job.flow.left(split)
        job.flow.step(split, "draw", excluded={"not drawn": left - len(looked)})
    record_images(job.flow, split, looked)
    return close_up(array, looked)


def decode(
    job: Preparation,
    split: str,
    array: Path,
    todo: Sequence[tuple[int, IndexRow]],
    advance: Callable[[int], None],
) -> Iterator[Found]:
    """What the images of these rows are; the good ones are then in their places."""
    folder, chunks = job.raw / "images" / split, []
    for start in range(0, len(todo), CHUNK):
        places, rows = zip(*todo[start : start + CHUNK], strict=True)
        chunks.append(ImageChunk(array, places, tuple(folder / row.label / row.file for row in rows)))
    for found in map_processes(decode_chunk, chunks, job.workers):
        yield from found
        advance(len(found))


def record_images(flow: Flow, split: str, looked: Sequence[Looked]) -> None:
    excluded = Counter(one.found.excluded for one in looked)
    repaired = Counter(reason for one in looked for reason in one.found.repaired)
    flow.step(
        split,
        "images decoded",
        excluded={reason: excluded[reason] for reason in EXCLUDED},
        repaired={reason: repaired[reason] for reason in REPAIRED},
    )


def close_up(array: Path, looked: Sequence[Looked]) -> list[Looked]:
    """Remove the places that stayed empty; the rows with their final places, in that order."""
    kept = np.sort([one.place for one in looked if not one.found.excluded])
    keep_rows(array, kept)
    final = {place: i for i, place in enumerate(kept.tolist())}
    moved = [replace(one, place=-1 if one.found.excluded else final[one.place]) for one in looked]
    return sorted(moved, key=lambda one: one.place)


def check_lost(split: str, listing: Listing, looked: Sequence[Looked], settings: Settings) -> None:
    """DataError where too many images or texts are absent or unreadable, or too many images are cut off.

    Shares are of all that are listed, and of those that were opened.
    """
    absent = [(file, reason) for file, _, reason in listing.left_out if reason in (NO_IMAGE_FILE, NO_TEXT)]
    bad = [(one.row.file, one.found.excluded) for one in looked if one.found.excluded]
    lost = len(absent) / max(1, len(listing.rows) + len(absent)) + len(bad) / max(1, len(looked))
    _check_share(split, "lost", absent + bad, lost, "max_missing", settings)
    cut = [(one.row.file, TRUNCATED) for one in looked if TRUNCATED in one.found.repaired]
    _check_share(split, "cut off", cut, len(cut) / max(1, len(looked)), "max_truncated", settings)


def _check_share(
    split: str, what: str, files: Sequence[tuple[str, str]], share: float, limit: str, settings: Settings
) -> None:
    if share <= getattr(settings, limit):
        return
    named = ", ".join(f"{file} ({reason})" for file, reason in files[:NAMED])
    raise DataError(
        f"{split}: {len(files)} images are {what}, {share:.2%} and more than {limit}, "
        f"{getattr(settings, limit):.2%}: {named}{', ...' if len(files) > NAMED else ''}; complete the "
        f"copy, or raise {limit} (under prepare.food101 in params.yaml)"
    )


def image_lines(split: str, listing: Listing, looked: Sequence[Looked]) -> list[tuple]:
    """Lines of images.csv in the order of class and file, those left out before included."""
    lines = [
        (split, file, label, None, None, "", "", reason, -1, "") for file, label, reason in listing.left_out
    ]
    for one in looked:
        found, repaired = one.found, "; ".join(one.found.repaired)
        size = (found.width, found.height, found.mode)
        lines.append(
            (split, one.row.file, one.row.label, *size, repaired, found.excluded, one.place, found.sha256)
        )
    return sorted(lines, key=lambda line: (line[2], line[1]))


def write_lines(path: Path, lines: Sequence[tuple]) -> None:
    # A name need not be UTF-8; what is not is written as \\udcff.
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(IMAGE_COLUMNS)
        writer.writerows(lines)


def write_texts(job: Preparation, split: str, rows: Sequence[IndexRow]) -> dict[str, np.ndarray]:
    """Write token ids of the rows, their labels, and that they have both modalities; the first two."""
    settings, path = job.settings, job.folder / f"{split}.text.npy"
    with job.shown(f"food101: {split} texts", len(rows), "texts") as advance:
        repaired = write_tokens(path, rows, text_reader(job.raw, settings), settings.max_length, advance)
    job.flow.step(split, "texts cleaned and tokenised", repaired=repaired)
    label_N = np.array([CLASSES.index(row.label) for row in rows], dtype=np.int64)
    np.save(job.folder / f"{split}.label.npy", label_N)
    np.save(job.folder / f"{split}.present.npy", np.ones((len(rows), len(MODALITIES)), dtype=bool))
    return {"text": np.load(path, mmap_mode="r"), "label": label_N}


def describe(job: Preparation, sizes: Mapping[str, int], details: Mapping) -> dict:
    """Write meta.json and flow.csv; the meta."""
    size, length = job.settings.image_size, job.settings.max_length
    shapes = {"image": Modality("image", (size, size, 3)), "text": Modality("tokens", (length,))}
    return write_meta(
        job.folder,
        dataset="food101",
        modalities=shapes,
        weak=None,
        num_classes=len(CLASSES),
        class_names=CLASSES,
        ceilings={subset_name(subset, MODALITIES): 1.0 for subset in subsets(MODALITIES)},
        sizes=sizes,
        flow=job.flow,
        details={
            "settings": asdict(job.settings),
            "tokenizer": {TOKENIZER: SHA256[TOKENIZER]},
            **details,
        },
    )
