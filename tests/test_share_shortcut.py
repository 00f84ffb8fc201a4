"""Share with a planted shortcut: how often a digit goes with a class, counted from the raw files."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from mindgap.data.share.mnist import read_mnist
from mindgap.data.share_shortcut import Settings, prepare
from mindgap.data.share_shortcut.pairs import hand_round
from mindgap.data.storage import read_meta
from mindgap.results.expectations import ExpectationFailed, validate_dataset
from share_raw import share_raw
from spoilt import spoil_array

SUITES = Path(__file__).parents[1] / "reports" / "expectations" / "prepared"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Path]:
    """The raw files, and the dataset: 20 pairs of each class in either split."""
    folder = tmp_path_factory.mktemp("share_shortcut")
    raw = share_raw(folder / "raw", 20)
    prepare(raw, folder / "share_shortcut", Settings(seed=7, canonical=False, fetch=False), progress=False)
    return raw, folder / "share_shortcut"


@pytest.mark.parametrize(("split", "agreeing"), [("train", 18), ("test", 2)])
def test_digits_agree_with_the_label_as_often_as_asked_and_else_with_every_other_class(made, split, agreeing):
    """By the images themselves: each stored digit is looked up in the raw files of MNIST."""
    raw, folder = made
    digits = read_mnist(raw, split, canonical=False)
    label_of = {image.tobytes(): y for image, y in zip(digits.x_NHWC, digits.y_N, strict=True)}
    stored = np.load(folder / f"{split}.mnist.npy")[:, 2:-2, 2:-2]
    shown_P = np.array([label_of[np.ascontiguousarray(image).tobytes()] for image in stored])
    label_P = np.load(folder / f"{split}.label.npy")
    table_CC = np.zeros((10, 10), dtype=int)
    np.add.at(table_CC, (label_P, shown_P), 1)
    assert (table_CC.diagonal() == agreeing).all()
    apart = table_CC[~np.eye(10, dtype=bool)]
    assert apart.sum() == 10 * (20 - agreeing)
    assert apart.max() - apart.min() <= 1
    assert (table_CC.sum(axis=0) == 20).all()
    assert len({image.tobytes() for image in stored}) == len(stored)


def test_pairs_are_those_of_share_but_for_the_digits(made):
    _, folder = made
    with (folder / "pairs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["index"] for row in rows if row["split"] == "test"] == [str(i) for i in range(200)]
    assert all(row["label"] == row["cifar10_label"] for row in rows)
    agreeing = {
        split: [r["label"] == r["mnist_label"] for r in rows if r["split"] == split]
        for split in ("train", "test")
    }
    assert {split: sum(of) / len(of) for split, of in agreeing.items()} == {"train": 0.9, "test": 0.1}
    assert read_meta(folder)["ceilings"] == {"cifar10": 1.0, "mnist": 0.1, "cifar10+mnist": 1.0}


def test_classes_of_other_counts_are_cut_to_the_rarest():
    label_N = np.repeat(np.arange(10), np.arange(30, 40))
    for agreement in (0.0, 0.37, 1.0):
        rows_P, digits_P = hand_round(label_N, agreement, np.random.default_rng(0))
        assert (np.bincount(label_N[rows_P]) == 30).all()
        assert sorted(digits_P) == rows_P.tolist()
        same_P = label_N[rows_P] == label_N[digits_P]
        assert same_P.sum() == 10 * round(agreement * 30)
        assert (rows_P[same_P] == digits_P[same_P]).all()


def test_a_digit_that_was_exchanged_is_found(made, tmp_path):
    _, folder = made
    copy = Path(shutil.copytree(folder, tmp_path / "share_shortcut"))
    spoil_array(copy, "test.mnist.npy", lambda x: x[::-1])
    with pytest.raises(ExpectationFailed, match="share_shortcut_checks"):
        validate_dataset(copy, SUITES, tmp_path / "pages")


@pytest.mark.parametrize("value", [-0.1, 1.5, "0.9", True])
def test_an_agreement_that_is_no_share_is_refused(value):
    with pytest.raises(ValueError, match=r"train_agreement is .*: make it a number from 0 to 1"):
        Settings(seed=0, train_agreement=value)
