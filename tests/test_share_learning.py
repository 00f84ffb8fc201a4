"""On real images the tiny model shows the pitfall of Share: digits are read, photographs are not."""

import pytest

from mindgap.core.loop import Cell, initial_record
from mindgap.core.params import load_params
from mindgap.core.records import curve_points
from mindgap.data.dataset import Dataset, load_dataset
from mindgap.data.share import pairs as share
from mindgap.stages.runs import run_of
from share_raw import share_raw
from small_project import ROOT


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    folder = tmp_path_factory.mktemp("share")
    settings = share.Settings(seed=0, train_size=2500, test_size=1000, canonical=False)
    raw = share_raw(folder / "raw", per_class=250)
    share.prepare(raw, folder / "share", settings, workers=1, progress=False)
    return load_dataset(folder / "share")


@pytest.mark.slow
@pytest.mark.parametrize("mitigation", ["none", "moddrop"])
def test_digits_are_far_easier_than_photographs_and_both_is_as_good_as_digits(dataset, mitigation):
    run = run_of(load_params(ROOT / "params.yaml"), Cell("share", "high", mitigation, 0), dataset)
    record, _ = initial_record(run, dataset)
    assert record["labelled"] == 400
    accuracy = {name: point["balanced_accuracy"] for name, point in curve_points(record).items()}
    assert accuracy["mnist"] > accuracy["cifar10"] + 0.3
    assert accuracy["cifar10+mnist"] > accuracy["mnist"] - 0.1
    assert 0.1 < accuracy["cifar10"] < 0.45
