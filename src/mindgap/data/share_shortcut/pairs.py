"""How Share's pairs are torn apart, so that a digit is a shortcut that fails in the test set. Ours.

The label is the class of the CIFAR-10 image. Share is prepared as ever, cut to equal class counts, and of
each class a share of the pairs keeps its digit. The others hand theirs round: the digits that a class gets
are as many of each other class as of any, but for one, so that a wrong digit tells nothing.
"""

import csv
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from mindgap.base.modality import Modality
from mindgap.data import SOURCES
from mindgap.data.draws import stable_hash
from mindgap.data.flow import Flow
from mindgap.data.prepared import write_meta, written_at_once
from mindgap.data.share import pairs as share
from mindgap.data.share.checks import CLASSES, PAIR_COLUMNS
from mindgap.data.storage import SPLITS

OF_THE_DIGIT = tuple(name for name in PAIR_COLUMNS if name.startswith("mnist_"))
FROM_SHARE = ("raw_is_original", "raw_layout", "raw_md5", "raw_counts")
# Axes: N pairs of Share, P those that stay, C classes.


@dataclass(frozen=True)
class Settings(share.Settings):
    """Those of Share, and in which share of the pairs of a split the digit tells the class."""

    train_agreement: float = 0.9
    test_agreement: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        for name in ("train_agreement", "test_agreement"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ValueError(f"{name} is {value!r}: make it a number from 0 to 1")

    def agreement(self, split: str) -> float:
        return {"train": self.train_agreement, "test": self.test_agreement}[split]

    def of_share(self) -> share.Settings:
        return share.Settings(**{one.name: getattr(self, one.name) for one in fields(share.Settings)})


def prepare(
    raw: Path | str, out_dir: Path | str, settings: Settings, *, workers: int = 1, progress: bool = True
) -> dict:
    """Prepare Share and write it anew, its digits handed round; the meta. Errors are those of Share."""
    flow = Flow()
    with written_at_once(out_dir) as folder:
        before = folder / "share"
        meta = share.prepare(raw, before, settings.of_share(), workers=workers, progress=progress)
        pairs = {split: _handed_round(before, split, settings, flow) for split in SPLITS}
        for split, rows in pairs.items():
            _write_arrays(before, folder, split, *rows)
        _write_pairs(before / "pairs.csv", folder / "pairs.csv", pairs)
        shutil.rmtree(before)
        modalities = {name: Modality.from_meta(one) for name, one in meta["modalities"].items()}
        return write_meta(
            folder,
            dataset="share_shortcut",
            modalities=modalities,
            weak=SOURCES["share_shortcut"].weak,
            num_classes=len(CLASSES),
            class_names=[name.split("/")[0] for name in CLASSES],
            # A digit names its own class, or any other one.
            ceilings={
                "cifar10": 1.0,
                "mnist": max(settings.test_agreement, (1 - settings.test_agreement) / (len(CLASSES) - 1)),
                "cifar10+mnist": 1.0,
            },
            sizes={split: len(rows_P) for split, (rows_P, _) in pairs.items()},
            flow=flow,
            details={"settings": asdict(settings), **{name: meta[name] for name in FROM_SHARE}},
        )


def hand_round(
    label_N: np.ndarray, agreement: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the pairs that stay, all classes alike, in their order; and whose digit each gets (P, P).

    Of n pairs of a class round(agreement * n) keep theirs, and n_k others get those of class c + k; these n_k
    differ by one at most.
    """
    classes = len(CLASSES)
    count = np.bincount(label_N, minlength=classes).min()
    of_C = [rng.permutation(np.flatnonzero(label_N == c))[:count] for c in range(classes)]
    torn_C = [rows[round(agreement * count) :] for rows in of_C]
    partner_N = np.arange(len(label_N))
    for shift, places in zip(
        rng.permutation(np.arange(1, classes)),
        np.array_split(np.arange(len(torn_C[0])), classes - 1),
        strict=True,
    ):
        for c, rows in enumerate(torn_C):
            partner_N[rows[places]] = torn_C[(c + shift) % classes][places]
    rows_P = np.sort(np.concatenate(of_C))
    return rows_P, partner_N[rows_P]


def _handed_round(before: Path, split: str, settings: Settings, flow: Flow) -> tuple[np.ndarray, np.ndarray]:
    """The rows of one split's pairs and of their digits in Share's arrays, and its flow."""
    label_N = np.load(before / f"{split}.label.npy")
    rng = np.random.default_rng([settings.seed, stable_hash("share_shortcut"), SPLITS.index(split)])
    rows_P, digits_P = hand_round(label_N, settings.agreement(split), rng)
    flow.start(split, "pairs of Share", len(label_N))
    flow.step(split, "equal class counts", {"more than the rarest class has": len(label_N) - len(rows_P)})
    flow.step(split, "hand digits round", repaired={"digit of another class": (rows_P != digits_P).sum()})
    return rows_P, digits_P


def _write_arrays(before: Path, folder: Path, split: str, rows_P: np.ndarray, digits_P: np.ndarray) -> None:
    for name in ("cifar10", "mnist", "label", "present"):
        array = np.load(before / f"{split}.{name}.npy", mmap_mode="r")
        np.save(folder / f"{split}.{name}.npy", array[digits_P if name == "mnist" else rows_P])


def _write_pairs(before: Path, path: Path, pairs: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Share's pairs.csv with the digits' columns of the pairs that they were handed to."""
    with before.open(newline="") as file:
        lines = {split: [] for split in pairs}
        for line in csv.DictReader(file):
            lines[line["split"]].append(line)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, PAIR_COLUMNS, lineterminator="\n")
        writer.writeheader()
        for split, (rows_P, digits_P) in pairs.items():
            for i, (row, digit) in enumerate(zip(rows_P, digits_P, strict=True)):
                handed = {name: lines[split][digit][name] for name in OF_THE_DIGIT}
                writer.writerow({**lines[split][row], "index": i, **handed})
