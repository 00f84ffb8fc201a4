"""Every example of the documentation runs as it is written."""

import re
import sys
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
import torch

from mindgap import data
from mindgap.core.loop import rounds, start_and_validation_ids
from mindgap.core.network import ModelSpec, build_model
from mindgap.core.training import fit
from mindgap.data.quintfeatures.images import FEATURES
from mindgap.data.quintfeatures.pairing import Factor, Pairing
from mindgap.parts import query
from mindgap.parts.evaluators import EVALUATORS
from mindgap.parts.mitigations import Mitigation
from mindgap.parts.query import Method
from mindgap.parts.query.select import select
from mindgap.parts.starts import STARTS, Start
from mindgap.stages.blueprint import load_prepared
from mindgap.stages.prepare import prepare_stage
from small_project import ROOT, params_in, small
from test_loop import initial_of, run_of
from test_query import make_view
from test_training import RECIPE

FILES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def examples(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL) if path.exists() else []


def takes(value, example: dict, *arguments: str) -> bool:
    """Whether it is a function of the example itself, and its arguments begin with these."""
    if getattr(value, "__globals__", None) is not example:
        return False
    return value.__code__.co_varnames[: value.__code__.co_argcount][: len(arguments)] == arguments


def a_dataset(pairing: Pairing, monkeypatch, project: Path) -> None:
    """It is rendered, passes its suites and loads."""
    monkeypatch.setitem(data.RENDERED, "example", pairing)
    raw = small(dataset=["example"])
    for block in ("prepare", "budget", "recipe"):
        raw["scales"]["tiny"][block]["example"] = deepcopy(raw["scales"]["tiny"][block]["unique"])
    raw["scales"]["tiny"]["prepare"]["example"]["style"] = {}  # unique's are for its own modalities
    raw["scales"]["tiny"]["render"]["train_size"] = 600
    params = params_in(project, **raw)
    prepare_stage(params, "example")
    assert len(load_prepared(params, "example").train) == 600


def a_method(function, monkeypatch) -> None:
    """It picks as many positions as it is asked for."""
    monkeypatch.setitem(query.METHODS, function.__name__, Method(function))
    for n in (0, 20, 60):
        assert len(select(function.__name__, make_view(), n).unique()) == n


def a_policy(kind: type, dataset, monkeypatch) -> None:
    """It picks in a whole run, and it learns something in each round."""
    monkeypatch.setitem(query.METHODS, kind.__name__, Method(kind))
    records = list(rounds(run_of(kind.__name__), dataset, *initial_of(dataset)))
    assert [len(record["acquired_ids"]) for record in records] == [6, 6, 0]
    assert all(one["state"] != two["state"] for one, two in pairwise(records))


def a_mitigation(kind: type[Mitigation], dataset) -> None:
    """A model is trained with it and learns."""
    ids, spec = torch.arange(len(dataset.train)), ModelSpec(width=16)
    model = build_model(dataset.modalities, dataset.num_classes, spec, seed=0)
    result = fit(model, dataset.train, ids[:96], ids[96:], RECIPE, kind(), (0,), "here")
    assert result.losses[-1] < result.losses[0]


def a_start(function, dataset, monkeypatch) -> None:
    """It chooses the start set of a run."""
    monkeypatch.setitem(STARTS, "example", Start(function))
    start, _, _ = start_and_validation_ids(run_of(start="example"), dataset)
    assert dataset.train.present_NM[start].all()


def an_evaluator(function, dataset, monkeypatch) -> None:
    """It measures something in a run, of which the records have it."""
    monkeypatch.setitem(EVALUATORS, "example", function)
    run = replace(run_of("random"), evaluators={"example": {}})
    last = list(rounds(run, dataset, *initial_of(dataset)))[-1]["metrics"]
    assert [(row["evaluator"], row["subset"]) for row in last] == [("example", "left"), ("example", "right")]
    assert all(0 < row["value"] <= 1 for row in last)


def a_line_of_methods(code: str, function, monkeypatch) -> None:
    """Import and entry, as they are to stand in parts/query/__init__.py."""
    importing, entry = code.strip().splitlines()
    module = ModuleType(f"mindgap.parts.query.{function.__name__}")
    setattr(module, function.__name__, function)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    names = {"Method": Method}
    exec(importing, names)
    assert eval("{" + entry + "}", names) == {function.__name__: Method(function)}


def test_every_example_runs_as_written(project, monkeypatch, make_dataset):
    ran, function = [], None
    for path in FILES:
        for code in examples(path):
            names = {}
            if "Method(" in code:
                a_line_of_methods(code, function, monkeypatch)
                ran.append("line")
                continue
            exec(code, names)
            pairings = [value for value in names.values() if isinstance(value, Pairing)]
            functions = [one for one in names.values() if takes(one, names, "view", "n")]
            for pairing in pairings:
                a_dataset(pairing, monkeypatch, project)
                ran.append("dataset")
            for function in functions:
                a_method(function, monkeypatch)
                ran.append("method")
            measuring = [one for one in names.values() if takes(one, names, "model", "split", "context")]
            for evaluator in measuring:
                an_evaluator(evaluator, make_dataset(), monkeypatch)
                ran.append("evaluator")
            starts = [one for one in names.values() if takes(one, names, "candidates", "n", "rng")]
            for start in starts:
                a_start(start, make_dataset(), monkeypatch)
                ran.append("start")
            kinds = [v for v in names.values() if isinstance(v, type) and issubclass(v, Mitigation)]
            for kind in [kind for kind in kinds if kind is not Mitigation]:
                a_mitigation(kind, make_dataset())
                ran.append("mitigation")
            policies = [v for v in names.values() if isinstance(v, type) and hasattr(v, "pick")]
            for kind in policies:
                a_policy(kind, make_dataset(), monkeypatch)
                ran.append("policy")
            told = f"{path}: an example that no test runs:\n{code}"
            assert pairings or functions or kinds or policies or measuring or starts, told
    assert sorted(ran) == ["dataset", "evaluator", "line", "method", "mitigation", "policy", "start"]


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("carriers", [("first",), ("first", "second")])
def test_a_label_in_any_feature_passes_its_suites_or_is_refused(project, monkeypatch, feature, carriers):
    label = (Factor(feature, carriers),)
    if "color" in feature and len(carriers) > 1:
        with pytest.raises(ValueError, match=feature):
            Pairing(("first", "second"), None, label)
        return
    a_dataset(Pairing(("first", "second"), None, label), monkeypatch, project)
