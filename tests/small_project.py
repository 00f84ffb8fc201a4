"""The shipped parameters cut down to seconds, for tests that run the real stages."""

import copy
import shutil
from pathlib import Path

import yaml

from mindgap.core.params import Params, load_params

ROOT = Path(__file__).parents[1]
RAW = yaml.safe_load((ROOT / "params.yaml").read_text())

# The datasets from outside as the tests' small raw folders have them.
SMALL_SOURCES = {
    "share": {"train_size": 200, "test_size": 60, "canonical": False},
    "share_shortcut": {"train_size": 200, "test_size": 60, "canonical": False},
    "food101": {"train_size": 202, "test_size": 101, "image_size": 16},
    "mimic": {"release": "demo", "test_subjects": 0, "test_fraction": 0.3, "ecg_samples": 500},
}


def small(**changes) -> dict:
    """The shipped parameters, cut down to seconds."""
    raw = copy.deepcopy(RAW)
    tiny = raw["scales"]["tiny"]
    tiny["render"] |= {"train_size": 200, "test_size": 60, "image_size": 16, "texture_period": 0.25}
    tiny["model"] |= {"width": 16, "fusion": tiny["model"]["fusion"] | {"feedforward": 16}}
    for name, settings in SMALL_SOURCES.items():
        tiny["prepare"][name] |= settings
    for name in ("missing", *SMALL_SOURCES):
        tiny["recipe"][name]["all"] |= {"epochs": 2, "batch_size": 16}
        tiny["budget"][name]["low"] = {"initial": 20, "validation": 20, "acquisition": 10, "rounds": 3}
    tiny["training"] |= {"min_samples_per_epoch": 32, "warmup_epochs": 0.5}
    return raw | {"dataset": ["missing"], "query": ["random", "badge"], "seeds": [0, 1]} | changes


def params_in(folder: Path, **changes) -> Params:
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(small(**changes), sort_keys=False))
    return load_params(path)


def working_copy(project: Path, tmp_path: Path, monkeypatch) -> Path:
    """A copy of a prepared project as the working folder, one worker, a store of its own."""
    folder = tmp_path / "project"
    shutil.copytree(project, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MINDGAP_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("MINDGAP_WORKERS", "1")
    return folder
