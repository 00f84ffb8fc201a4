"""Fixtures that several files use."""

import contextlib
import gc
import os
import shutil
import tempfile
from collections.abc import Callable
from fcntl import LOCK_EX, flock
from pathlib import Path

import numpy as np
import pytest
import torch

from clone import Clone
from mindgap.base.modality import Modality
from mindgap.core.params import Params, load_params
from mindgap.data.dataset import Dataset, Split, subset_name, subsets
from mindgap.stages.prepare import prepare_stage
from mindgap.stages.runs import acquire_stage, train_stage
from small_project import ROOT, params_in, working_copy

# Neither DVC nor Great Expectations may report to its makers, also when pytest is called by hand.
os.environ["GX_ANALYTICS_ENABLED"] = "false"
os.environ["DVC_NO_ANALYTICS"] = "true"
# Nor do tests wait for the cores that other commands of this user have.
os.environ["XDG_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="mindgap-tests-")
# A tenth of the tests' time went into looking for cycles among a million objects of loaded libraries.
gc.set_threshold(20_000, 20, 20)


def pytest_collection_modifyitems(config, items):
    """Among workers of pytest-xdist, files with slow tests begin first: no worker waits for a late one."""
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish():
    """What is loaded by now stays, and is not looked at again by the collector."""
    gc.freeze()


def pytest_unconfigure():
    """Else libraries find their objects alive at exit, and print them as leaks."""
    gc.unfreeze()


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


@pytest.fixture(scope="session")
def once(request, tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Fill a folder once a session, whichever worker asks first: (name, fill) -> the folder, to copy."""
    base = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        base = base.parent

    def made(name: str, fill: Callable[[Path], object]) -> Path:
        folder, part = base / name, base / f"{name}.part"
        with (base / f"{name}.lock").open("w") as lock:
            flock(lock, LOCK_EX)
            if not folder.exists():
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir()
                fill(part)
                part.rename(folder)
        return folder

    return made


@pytest.fixture(scope="session")
def prepared(once) -> Path:
    """A project folder with the rendered dataset in it."""

    def fill(folder: Path) -> None:
        shutil.copytree(ROOT / "reports" / "expectations", folder / "reports" / "expectations")
        shutil.copytree(ROOT / "data" / "paper", folder / "data" / "paper")
        with contextlib.chdir(folder):
            prepare_stage(params_in(folder), "missing")

    return once("prepared", fill)


@pytest.fixture(scope="session")
def finished(prepared, once) -> Path:
    """The prepared project with initial models and four runs, and the store of their rounds."""

    def fill(folder: Path) -> None:
        shutil.copytree(prepared, folder / "project")
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder / "project")
            patch.setenv("MINDGAP_STORE", str(folder / "store"))
            patch.setenv("MINDGAP_WORKERS", "1")
            params = params_in(folder / "project")
            train_stage(params, "missing", "low")
            acquire_stage(params, "missing", "low")

    return once("finished", fill)


@pytest.fixture
def trained(finished, tmp_path, monkeypatch) -> Params:
    """A copy of it as the working folder, with initial models and no run begun: its parameters."""
    folder = working_copy(finished / "project", tmp_path, monkeypatch)
    for name in ("data/runs", "reports/curves", "reports/measured", "reports/provenance"):
        shutil.rmtree(folder / name)
    return load_params(folder / "params.yaml")


@pytest.fixture(scope="session")
def reproduced(once) -> Clone:
    """A clone in which `dvc repro` has run, each command a process from its start: committed; tests copy."""

    def fill(folder: Path) -> None:
        clone = Clone(folder)
        (folder / ".git" / "repro.log").write_text(clone.run("dvc", "repro", workers=None, warm=False))
        clone.commit("Results")

    return Clone.at(once("reproduced", fill))


@pytest.fixture
def project(prepared, tmp_path, monkeypatch) -> Path:
    """A copy of the prepared project as the working folder, one worker, a store of its own."""
    return working_copy(prepared, tmp_path, monkeypatch)
