"""Fixtures that several files use."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from mindgap.base.modality import Modality
from mindgap.data.dataset import Dataset, Split, subset_name, subsets
from mindgap.stages.prepare import prepare_stage
from small_project import ROOT, params_in, working_copy

# Neither DVC nor Great Expectations may report to its makers, also when pytest is called by hand.
os.environ["GX_ANALYTICS_ENABLED"] = "false"
os.environ["DVC_NO_ANALYTICS"] = "true"
# Nor do tests wait for the cores that other commands of this user have.
os.environ["XDG_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="mindgap-tests-")


def pytest_runtest_setup(item):
    """What is marked `gpu` is skipped, and says so, where there is none."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def blob_split(size: int, modalities: tuple[str, ...], classes: int, absent: float, seed: int) -> Split:
    """Images 16 x 16 whose brightness in each colour channel says the class: learnt in a few steps."""
    rng = np.random.default_rng(seed)
    y_N = rng.permutation(np.arange(size) % classes)
    colour_CK = np.random.default_rng(5).integers(40, 216, (classes, 3))
    x = {}
    for name in modalities:
        noise = rng.normal(0, 12, (size, 16, 16, 3))
        x[name] = torch.from_numpy(np.clip(colour_CK[y_N][:, None, None] + noise, 0, 255).astype(np.uint8))
    present_NM = rng.random((size, len(modalities))) >= absent
    present_NM[~present_NM.any(axis=1), 0] = True
    return Split(x, torch.from_numpy(present_NM), torch.from_numpy(y_N))


@pytest.fixture
def make_dataset():
    """A small dataset of any number of modalities in memory: (modalities, classes, absent) -> Dataset."""

    def make(modalities=("left", "right"), classes=4, absent=0.3, train=160, test=64) -> Dataset:
        return Dataset(
            name="blobs",
            modalities=dict.fromkeys(modalities, Modality("image", (16, 16, 3))),
            weak=modalities[0],
            num_classes=classes,
            ceilings={subset_name(s, modalities): 1.0 for s in subsets(modalities)},
            train=blob_split(train, modalities, classes, absent, seed=1),
            test=blob_split(test, modalities, classes, 0.0, seed=2),
            digest="0" * 64,
        )

    return make


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A project folder with the rendered dataset in it."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "reports" / "expectations", folder / "reports" / "expectations")
    shutil.copytree(ROOT / "data" / "paper", folder / "data" / "paper")
    with contextlib.chdir(folder):
        prepare_stage(params_in(folder), "missing")
    return folder


@pytest.fixture
def project(prepared, tmp_path, monkeypatch) -> Path:
    """A copy of the prepared project as the working folder, one worker, a store of its own."""
    return working_copy(prepared, tmp_path, monkeypatch)
