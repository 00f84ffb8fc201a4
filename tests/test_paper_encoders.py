"""The paper's encoders through whole runs, two rounds each, on small sets of real data."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from mindgap.core.loop import Cell
from mindgap.core.params import Params, load_params
from mindgap.core.records import curve_points, seal
from mindgap.data.dataset import load_dataset
from mindgap.engine.machine import Machine
from mindgap.engine.sweep import Job, execute
from mindgap.stages.runs import run_of
from small_project import small
from test_sources import RAW, prepare

# Labels of the two rounds, and the kinds of encoder that the dataset's modalities take at paper scale.
CASES = {
    "share": (20, {"efficientnet_b0"}),
    "food101": (40, {"efficientnet_b0", "minilm"}),
    "mimic": (20, {"efficientnet1d_b0", "mlp"}),
}


def paper_encoders(path: Path) -> Params:
    """Small budgets and images, the encoders and recipes of paper scale, one epoch."""
    raw = small()
    tiny, paper = raw["scales"]["tiny"], raw["scales"]["paper"]
    tiny["model"] |= {"encoder": paper["model"]["encoder"], "min_present": 8}
    tiny["training"] |= {"min_samples_per_epoch": 0}
    for name, (labels, _) in CASES.items():
        recipe = next(iter(paper["recipe"][name].values()))
        tiny["recipe"][name] = {"all": recipe | {"epochs": 1, "batch_size": 16}}
        tiny["budget"][name]["low"] = {"initial": labels, "validation": 16, "acquisition": 10, "rounds": 2}
    path.write_text(yaml.safe_dump(raw))
    return load_params(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_run_with_the_papers_encoders(name, tmp_path):
    data = prepare(name, RAW[name](tmp_path / "raw"), tmp_path / name)
    params, dataset = paper_encoders(tmp_path / "params.yaml"), load_dataset(data)
    encoder = params.setting(name, "low").model.encoder
    assert {encoder[m.kind]["name"] for m in dataset.modalities.values()} == CASES[name][1]
    machine, store = Machine(1, ("cpu",)), tmp_path / "store"
    first = Job(run_of(params, Cell(name, "low", "moddrop", 0), dataset), data, store)
    execute([first], machine, "train")
    initial = tmp_path / "initial"
    initial.with_suffix(".json").write_text(json.dumps(seal(first.record_store.read()[0])))
    initial.with_suffix(".safetensors").write_bytes(first.weights.read_bytes())
    cell = Cell(name, "low", "moddrop", 0, "badge")
    job = Job(run_of(params, cell, dataset, "initial"), data, store, initial)
    execute([job], machine, "acquire")
    begin, end = job.record_store.read()
    assert end["labelled"] == begin["labelled"] + 10 == CASES[name][0] + 10
    for record in (begin, end):
        points = curve_points(record)
        assert len(points) == 3
        assert all(0 <= point["balanced_accuracy"] <= 1 for point in points.values())
    assert all(torch.isfinite(w.float()).all() for w in load_file(first.weights).values())
