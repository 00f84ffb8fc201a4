"""The pairs of Share, and how they are drawn and written.

Class c of one is class c of the other. No image is used twice, and train is never paired with test, so digits
of MNIST's train split are left over, and images of CIFAR-10's test split.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mindgap.base.modality import Modality
from mindgap.data import SOURCES
from mindgap.data.contact_sheet import contact_sheet
from mindgap.data.draws import balanced_labels, stable_hash
from mindgap.data.errors import DataError, SourceMissing
from mindgap.data.fetch import FetchFailed, fetch
from mindgap.data.files import readable
from mindgap.data.flow import Flow
from mindgap.data.prepared import write_meta, written_at_once
from mindgap.data.presence import subset_name, subsets
from mindgap.data.share import cifar10, mnist
from mindgap.data.share.checks import CLASSES, MODALITIES, PAIR_COLUMNS, image_digest
from mindgap.data.share.labelled import LabelledImages
from mindgap.data.storage import SPLITS

READERS = {"cifar10": cifar10.read_cifar10, "mnist": mnist.read_mnist}
FINDERS = {"cifar10": cifar10.find_cifar10, "mnist": mnist.find_mnist}
TO_GET = {
    "cifar10": (
        f"CIFAR-10 as {{raw}}/{cifar10.BATCHES} or {{raw}}/{cifar10.ARCHIVE} from {cifar10.URL} (its authors "
        "state no licence; for research, cite Krizhevsky 2009)"
    ),
    "mnist": (
        f"the four files of MNIST in {{raw}}/{mnist.FOLDERS[0]} from {mnist.MIRRORS[0]}*-ubyte.gz "
        "(CC BY-SA 3.0)"
    ),
}
DIGIT_SIZES = (28, 32)
SHOWN = 12  # pairs on the contact sheet


@dataclass(frozen=True)
class Settings:
    """What may be set under `prepare.share`.

    `train_size`, `test_size`: pairs with equal class counts; 0 takes all there are. `canonical`: the raw
    files must be the original ones, bit by bit. `mirror_digits`: whether augmentation may mirror digits,
    which turns some into no digit. `digit_size`: 28, as they are, or 32, with a black margin.
    """

    seed: int
    train_size: int = 0
    test_size: int = 0
    canonical: bool = True
    mirror_digits: bool = False
    digit_size: int = 32
    fetch: bool = True

    def __post_init__(self):
        for name in ("seed", "train_size", "test_size"):
            value = getattr(self, name)
            if type(value) is not int or not 0 <= value < 2**32:
                raise ValueError(f"{name} is {value!r}: make it a whole number in 0..{2**32 - 1}")
        for name in ("train_size", "test_size"):
            if 0 < (size := getattr(self, name)) < len(CLASSES):
                raise ValueError(
                    f"{name} is {size}: make it 0 (all), or at least {len(CLASSES)}, one a class"
                )
        for name in ("canonical", "mirror_digits", "fetch"):
            if type(getattr(self, name)) is not bool:
                raise ValueError(f"{name} is {getattr(self, name)!r}: make it true or false")
        if self.digit_size not in DIGIT_SIZES:
            raise ValueError(f"digit_size is {self.digit_size!r}: make it one of {DIGIT_SIZES}")

    def size(self, split: str) -> int:
        return {"train": self.train_size, "test": self.test_size}[split]


def prepare(
    raw: Path | str, out_dir: Path | str, settings: Settings, *, workers: int = 1, progress: bool = True
) -> dict:
    """Pair the two datasets into `out_dir`; its meta. `workers` go unused: it takes seconds.

    pairs.csv names each pair's rows of the raw splits with their raw labels and digests of their raw images.
    """
    raw, flow = Path(raw), Flow()
    with readable(raw, "put it back"):
        complete(raw, fetching=settings.fetch, progress=progress)
        raws = {
            name: {split: read(raw, split, canonical=settings.canonical) for split in SPLITS}
            for name, read in READERS.items()
        }
    with written_at_once(out_dir) as folder:
        pairs = {split: _pair(raws, split, settings, flow) for split in SPLITS}
        for split, rows_PM in pairs.items():
            _write_arrays(folder, split, rows_PM, raws, settings)
        repeated = _write_pairs(folder, pairs, raws)
        _write_contact_sheet(folder)
        details = {"settings": asdict(settings), **_origin(raw, raws), "repeated_images": repeated}
        return _write_meta(folder, pairs, settings, flow, details)


def complete(raw: Path, *, fetching: bool, progress: bool) -> None:
    """Fetch what is absent; SourceMissing where nothing of a dataset is there or to be had.

    Where some of a dataset's files are there, its reader names those that are not.
    """
    absent = [*cifar10.absent_cifar10(raw), *mnist.absent_mnist(raw)]
    try:
        if absent and not fetching:
            raise FetchFailed("the setting fetch is false")
        if absent:
            fetch(absent, progress=progress)
    except FetchFailed as failure:
        lacking = [TO_GET[name].format(raw=raw) for name, find in FINDERS.items() if find(raw) is None]
        if lacking:
            raise SourceMissing(f"put {' and '.join(lacking)}; {failure}.") from None


def pair_by_class(labels: Sequence[np.ndarray], classes: int, size: int, seed: Sequence[int]) -> np.ndarray:
    """Rows that go together (P x M), in random order: those of a class are shuffled and matched one to one.

    All pairs that there are, or with `size` so many, whose class counts differ by at most one. They are among
    all pairs of the seed. ValueError where a class has too few.
    """
    possible_C = possible_pairs(labels, classes)
    order = np.random.default_rng([*seed, stable_hash("order")])
    wanted_C = np.bincount(balanced_labels(size, classes, order), minlength=classes) if size else possible_C
    short = np.flatnonzero(wanted_C > possible_C)
    if len(short):
        c = short[0]
        raise ValueError(f"{size} pairs need {wanted_C[c]} of class {c}, which has {possible_C[c]}")
    pairs = []
    for c, count in enumerate(wanted_C):
        shuffled = [
            np.random.default_rng([*seed, c, m]).permutation(np.flatnonzero(y_N == c))
            for m, y_N in enumerate(labels)
        ]
        pairs.append(np.stack([rows[:count] for rows in shuffled], axis=1))
    return order.permutation(np.concatenate(pairs))


def possible_pairs(labels: Sequence[np.ndarray], classes: int) -> np.ndarray:
    """How many pairs each class allows (C): as many as the dataset that has fewer."""
    return np.min([np.bincount(y_N, minlength=classes) for y_N in labels], axis=0)


def _pair(
    raws: Mapping[str, Mapping[str, LabelledImages]], split: str, settings: Settings, flow: Flow
) -> np.ndarray:
    """The rows of one split's pairs (P x M), and its flow."""
    labels, size = [raws[name][split].y_N for name in MODALITIES], settings.size(split)
    seed = [settings.seed, stable_hash("share"), SPLITS.index(split)]
    possible_C = possible_pairs(labels, len(CLASSES))
    if not possible_C.all():
        none = CLASSES[np.flatnonzero(possible_C == 0)[0]]
        raise DataError(f"share: the raw files have no {split} pair of class {none}: replace them")
    try:
        rows_PM = pair_by_class(labels, len(CLASSES), size, seed)
    except ValueError as error:
        most = len(CLASSES) * int(possible_C.min())
        raise DataError(
            f"share: {split}_size is {size}: {error}: make it at most {most}, or 0 for all pairs"
        ) from None
    total = int(possible_C.sum())
    for name in MODALITIES:
        part, images = f"{name} {split}", raws[name][split]
        flow.start(part, "raw files", images.seen)
        flow.step(part, "read", images.excluded, images.repaired)
        flow.step(part, "pair", {"no partner of its class is left": len(images.y_N) - total})
    flow.start(split, "pair", total)
    flow.step(split, f"{split}_size", {"more than asked for": total - len(rows_PM)})
    return rows_PM


def _write_arrays(
    folder: Path,
    split: str,
    rows_PM: np.ndarray,
    raws: Mapping[str, Mapping[str, LabelledImages]],
    settings: Settings,
) -> None:
    for name, rows_P in zip(MODALITIES, rows_PM.T, strict=True):
        images = raws[name][split].x_NHWC[rows_P]
        np.save(folder / f"{split}.{name}.npy", _padded(images, settings) if name == "mnist" else images)
    np.save(folder / f"{split}.present.npy", np.ones(rows_PM.shape, dtype=bool))
    np.save(folder / f"{split}.label.npy", raws[MODALITIES[0]][split].y_N[rows_PM[:, 0]])


def _padded(x_NHWC: np.ndarray, settings: Settings) -> np.ndarray:
    margin = (settings.digit_size - mnist.SIDE) // 2
    return np.pad(x_NHWC, ((0, 0), (margin, margin), (margin, margin), (0, 0)))


def _write_pairs(
    folder: Path,
    pairs: Mapping[str, np.ndarray],
    raws: Mapping[str, Mapping[str, LabelledImages]],
) -> dict[str, int]:
    """pairs.csv: what each pair was made from, told by the raw files, not by the arrays that were written.

    How many images of a split repeat another of it comes back.
    """
    seen = {f"{name} {split}": set() for name in MODALITIES for split in pairs}
    with (folder / "pairs.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(PAIR_COLUMNS)
        for split, rows_PM in pairs.items():
            images = [raws[name][split] for name in MODALITIES]
            for i, rows_M in enumerate(rows_PM.tolist()):
                labels = [one.y_N[row] for one, row in zip(images, rows_M, strict=True)]
                digests = [image_digest(one.x_NHWC[row]) for one, row in zip(images, rows_M, strict=True)]
                writer.writerow([split, i, labels[0], *rows_M, *labels, *digests])
                for name, digest in zip(MODALITIES, digests, strict=True):
                    seen[f"{name} {split}"].add(digest)
    return {part: len(pairs[part.split()[1]]) - len(digests) for part, digests in seen.items()}


def _write_contact_sheet(folder: Path) -> None:
    """The first training pairs, with the class that the label says."""
    arrays = [np.load(folder / f"train.{name}.npy", mmap_mode="r") for name in MODALITIES]
    label_N = np.load(folder / "train.label.npy")
    images, captions = [], []
    for i in range(min(SHOWN, len(label_N))):
        for array, shown in zip(arrays, CLASSES[label_N[i]].split("/"), strict=True):
            images.append(np.array(array[i]).squeeze())  # one channel is grey without an axis for it
            captions.append(shown)
    contact_sheet(folder / "contact_sheet.png", images, captions, columns=6)


def _origin(raw: Path, raws: Mapping[str, Mapping[str, LabelledImages]]) -> dict:
    """What the dataset was made from."""
    each = [(f"{name} {split}", raws[name][split]) for name in MODALITIES for split in SPLITS]
    md5 = {name: {**raws[name]["train"].md5, **raws[name]["test"].md5} for name in MODALITIES}
    originals = {"cifar10": {**cifar10.MD5["train"], **cifar10.MD5["test"]}, "mnist": mnist.MD5}
    return {
        "raw_is_original": {name: md5[name] == originals[name] for name in MODALITIES},
        "raw_layout": {name: find(raw).relative_to(raw).as_posix() for name, find in FINDERS.items()},
        "raw_md5": md5,
        "raw_counts": {
            part: np.bincount(images.y_N, minlength=len(CLASSES)).tolist() for part, images in each
        },
    }


def _write_meta(
    folder: Path, pairs: Mapping[str, np.ndarray], settings: Settings, flow: Flow, details: Mapping
) -> dict:
    shapes = {name: np.load(folder / f"test.{name}.npy", mmap_mode="r").shape[1:] for name in MODALITIES}
    return write_meta(
        folder,
        dataset="share",
        modalities={
            "cifar10": Modality("image", shapes["cifar10"]),
            "mnist": Modality("image", shapes["mnist"], mirrors=settings.mirror_digits),
        },
        weak=SOURCES["share"].weak,
        num_classes=len(CLASSES),
        class_names=CLASSES,
        # Each of the two says the class alone.
        ceilings={subset_name(subset, MODALITIES): 1.0 for subset in subsets(MODALITIES)},
        sizes={split: len(rows_PM) for split, rows_PM in pairs.items()},
        flow=flow,
        details=details,
    )
