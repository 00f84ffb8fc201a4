"""The library: loops on arrays in memory, curves of a folder, the notebook."""

import json
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import mindgap
from mindgap.base.errors import DivergenceError
from mindgap.core.records import CURVE_COLUMNS
from mindgap.parts.mitigations import Mitigation
from mindgap.parts.query import METHODS
from mindgap.results.reading import ReportError
from mindgap.stages.keep import keep_stage
from mindgap.stages.library import InputError
from mindgap.stages.report import kept_report_stage
from small_project import ROOT

Y = np.arange(120) % 3
RNG = np.random.default_rng(0)
X = {
    "told": (np.eye(3)[Y] + RNG.normal(0, 0.3, (120, 3))).astype(np.float32),
    "noise": RNG.normal(size=(120, 4)).astype(np.float32),
}
SHORT = {"labels": Y, "rounds": 2, "epochs": 4}


def test_import_takes_no_torch_along():
    code = "import sys, mindgap; assert 'run' in dir(mindgap); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_run_on_arrays_gives_the_rows_of_curves_and_the_same_ones_of_tensors():
    curves = mindgap.run(X, "random", **SHORT, seeds=[0, 1])
    assert list(curves.columns) == list(CURVE_COLUMNS)
    assert len(curves) == 2 * 2 * 3
    assert set(curves["subset"]) == {"told", "noise", "told+noise"}
    last = curves[curves["round"] == 1].groupby("subset")["balanced_accuracy"].mean()
    assert last["told"] > last["noise"] + 0.15
    tensors = {name: torch.from_numpy(x) for name, x in X.items()}
    again = mindgap.run(tensors, "random", **SHORT | {"labels": torch.from_numpy(Y)}, seeds=[0, 1])
    pd.testing.assert_frame_equal(again, curves)
    areas = mindgap.aulc(curves).set_index("subset")
    assert areas.loc["told", "chance_aulc"] == pytest.approx(1 / 3)
    assert areas.loc["told", "level"] > areas.loc["noise", "level"]


def test_a_method_of_the_user_s_own_sees_the_pool_and_leaves_no_trace():
    seen = []

    def badge(view, n):
        seen.append(view.present_NM.shape)
        return torch.arange(n)

    present = np.ones((120, 2), dtype=bool)
    present[::2, 1] = False
    held = {name: x[:30] for name, x in X.items()}
    curves = mindgap.run(X, badge, **SHORT, present=present, test=(held, Y[:30]), mitigation="moddrop")
    assert set(curves["query"]) == {"own"}
    assert seen[0][1] == 2
    assert "own" not in METHODS


class Sum(nn.Module):
    out_features = 8

    def forward(self, tokens_NMD, present_NM):
        return torch.relu((tokens_NMD * present_NM.unsqueeze(-1)).sum(dim=1))


def perceptron(modalities):
    encode = nn.ModuleDict({name: nn.Linear(one.shape[0], 8) for name, one in modalities.items()})
    return SimpleNamespace(encode=encode, fuse=Sum())


def test_a_model_of_the_user_s_own_takes_the_place_of_ours():
    curves = mindgap.run(X, "bmmal", **SHORT, model=perceptron)
    last = curves[(curves["round"] == 1) & (curves["subset"] == "told")]
    assert last["balanced_accuracy"].item() > 0.6
    with pytest.raises(InputError, match="lacks a module for 'noise'"):
        mindgap.run(X, **SHORT, model=lambda _: SimpleNamespace(encode={"told": nn.Linear(3, 8)}, fuse=Sum()))


def test_a_test_set_may_name_the_modalities_in_another_order():
    present = np.ones((30, 2), dtype=bool)
    present[:12, 0] = present[20:, 1] = False
    held = {name: x[:30] for name, x in X.items()}
    turned = {name: held[name] for name in reversed(held)}
    one = mindgap.run(X, "random", **SHORT, test=(held, Y[:30], present))
    other = mindgap.run(X, "random", **SHORT, test=(turned, Y[:30], present[:, ::-1]))
    pd.testing.assert_frame_equal(one, other)


def test_a_model_whose_weights_outlive_a_training_is_refused_and_a_frozen_one_is_not():
    kept = perceptron({name: SimpleNamespace(shape=x.shape[1:]) for name, x in X.items()})
    with pytest.raises(InputError, match=r"encode\['told'\] has the same weights in each call"):
        mindgap.run(X, **SHORT, model=lambda _: kept)
    kept.encode.requires_grad_(False)
    mindgap.run(X, "random", **SHORT, model=lambda _: kept)


def drawing(view, n):
    return torch.randperm(view.size)[:n]


def failing(view, n):
    return view.labels


def float_start(candidates, n, rng):
    return torch.arange(n).float().requires_grad_()


def failing_start(candidates, n, rng):
    return candidates.labels


def drawing_start(candidates, n, rng):
    return np.random.permutation(len(candidates))[:n]


def hook(name, code):
    return type("Mine", (Mitigation,), {name: code})


HERE = r"\(.*test_library\.py, line \d+, in "
SPOILT = {
    "a failing query": ({"query": failing}, f"query method 'failing' .*no attribute 'labels' {HERE}failing"),
    "a drawing query": ({"query": drawing}, "'drawing' draws from torch's own .*: draw from view.rng"),
    "a failing start": ({"start": failing_start}, f"start .*no attribute 'labels' {HERE}failing_start"),
    "a start of floats": ({"start": float_start}, r"start .* returned float32 of shape .*: mend its code"),
    "a drawing start": ({"start": drawing_start}, r"start .* draws from numpy's own .*: draw from rng"),
    "a failing loss": (
        {"mitigation": hook("loss", lambda self, step: step.labls)},
        f"Mine.<lambda> failed .*{HERE}",
    ),
    "another loss": ({"mitigation": hook("loss", lambda self, logits, y: y)}, "a step .*TypeError.*argument"),
    "a loss for each": (
        {"mitigation": hook("loss", lambda self, step: step.logits)},
        r"Tensor of shape \(32, 3\)",
    ),
    "no loss": ({"mitigation": hook("loss", lambda self, step: {})}, r"Mine.loss: there is none"),
    "few gradients": (
        {"mitigation": hook("gradients", lambda self, step, of: of[""][:3])},
        r"Mine\.gradients gave no tensors of the shapes of the \d+ parameters",
    ),
    "nothing left": (
        {"mitigation": hook("drop", lambda self, x, rng: x & False)},
        "of which nothing is left",
    ),
    "what is not there": ({"mitigation": hook("drop", lambda self, x, rng: ~x | x)}, "that a sample lacks"),
    "numbers": (
        {"mitigation": hook("drop", lambda self, x, rng: x.float())},
        r"torch.float32 \(32, 2\), not",
    ),
    "a drawing drop": (
        {"mitigation": hook("drop", lambda self, x, rng: x & (torch.rand(1) < 2))},
        "Mine.drop draws from torch's own generator",
    ),
    "labels": (
        {"mitigation": hook("meet", lambda self, model, ids, labels, present: labels.zero_())},
        "Mine.meet changes labels in place",
    ),
    "a failing lesson": (
        {"mitigation": hook("teach", lambda self, view, free: view.x)},
        f"Mine.teach .*{HERE}",
    ),
}


@pytest.mark.parametrize(("asked", "message"), SPOILT.values(), ids=SPOILT)
def test_a_part_of_the_user_s_own_that_fails_or_would_spoil_numbers_is_refused_by_name(asked, message):
    present = np.ones((120, 2), dtype=bool)
    present[::2, 1] = False
    with pytest.raises(mindgap.base.errors.MindGapError, match=message) as told:
        mindgap.run(X, **{"query": "random", "present": present, **SHORT, "epochs": 1} | asked)
    assert "lower validation" not in str(told.value)


def test_what_a_method_does_to_its_view_reaches_no_lesson():
    def first(view, n):
        return torch.arange(n)

    def spoiling(view, n):
        for one in (view.probs_NC, view.tokens_NMD, view.present_NM, view.ids, view.head_weight_CH):
            one.zero_()
        return torch.arange(n)

    one, other = (mindgap.run(X, query, **SHORT, mitigation="coteach") for query in (first, spoiling))
    pd.testing.assert_frame_equal(one.drop(columns=["run", "query"]), other.drop(columns=["run", "query"]))


def test_a_fusion_that_does_not_look_at_presence_sees_no_absent_modality():
    class Blind(Sum):
        def forward(self, tokens_NMD, present_NM):
            return torch.relu(tokens_NMD.sum(dim=1))

    def blind(modalities):
        return SimpleNamespace(encode=perceptron(modalities).encode, fuse=Blind())

    one, other = (mindgap.run(X, "random", **SHORT, model=model) for model in (perceptron, blind))
    pd.testing.assert_frame_equal(one.drop(columns="run"), other.drop(columns="run"))


OWN = {
    "no function": (SimpleNamespace(), "give a function that makes it"),
    "no module": (
        lambda _: SimpleNamespace(encode={"told": len}, fuse=Sum()),
        "is builtin_function_or_method",
    ),
    "a pair for tokens": (
        lambda _: SimpleNamespace(encode={"told": nn.LSTM(3, 8)}, fuse=Sum()),
        "encode['told'] makes tuple, not a tensor",
    ),
    "another input": (
        lambda _: SimpleNamespace(encode={"told": nn.Linear(5, 8)}, fuse=Sum()),
        "encode['told'] fails on input of shape (2, 3)",
    ),
}


@pytest.mark.parametrize(("model", "message"), OWN.values(), ids=OWN)
def test_a_model_that_does_not_fit_is_refused_by_its_part(model, message):
    with pytest.raises(InputError, match=re.escape(message)):
        mindgap.run(X, **SHORT, model=model)


def test_seeds_may_be_numpy_s():
    curves = mindgap.run(X, "random", **SHORT, seeds=np.arange(1, 2))
    pd.testing.assert_frame_equal(curves, mindgap.run(X, "random", **SHORT, seeds=np.int64(1)))
    assert curves["seed"].tolist() == [1] * 6


@pytest.mark.parametrize(
    ("x", "kind"),
    [
        (np.zeros((9, 4), np.float64), "table"),
        (np.zeros(9, np.float32), "table"),
        (np.zeros((9, 4), np.int64), "tokens"),
        (np.zeros((9, 2, 30), np.float32), "signal"),
        (np.zeros((9, 16, 16), np.uint8), "image"),
        (np.zeros((9, 16, 16, 3), np.uint8), "image"),
    ],
)
def test_kinds_follow_from_type_and_shape(x, kind):
    from mindgap.stages.library import _samples

    split, modalities = _samples("dataset", {"one": x}, np.arange(9), None, {})
    assert modalities["one"].kind == kind
    assert split.x["one"].shape[1:] == modalities["one"].shape


HOLE = X["told"].copy()
HOLE[7, 1] = np.nan
BAD = {
    "lengths": (({"told": X["told"][:100]},), {}, "told: shape (100, 3), but there are 120 labels"),
    "NaN": (({"told": HOLE},), {}, "told: row 7 is not finite"),
    "a gap": ((X,), {"labels": Y * 2}, "class 1 has 0 training samples"),
    "floats": ((X,), {"labels": Y / 2}, "labels: float64"),
    "too few": ((X,), {"labels": np.where(np.arange(120) == 5, 3, Y)}, "class 3 has 0 training samples"),
    "no method": ((X, "bagde"), {}, "unknown 'bagde'; known in"),
    "no setting": ((X, "badge"), {"query_settings": {"k": 1}}, "query_settings.k is unknown"),
    "no kind": ((X,), {"kinds": {"told": "sound"}}, "unknown kind 'sound'"),
    "float images": (({"a": np.zeros((120, 8, 8, 3))},), {}, "is no kind of modality as it is"),
    "nothing there": ((X,), {"present": np.zeros((120, 2), bool)}, "row 0 has no modality at all"),
    "too many": ((X,), {"rounds": 50}, "training samples are needed"),
    "all tested": ((X,), {"test": 1.0}, "test is 1.0"),
    "epochs": ((X,), {"epochs": 0}, "epochs: Input should be greater"),
    "one seed twice": ((X,), {"seeds": [0, 0]}, "seeds: [0, 0] has one twice"),
    "no seed": ((X,), {"seeds": []}, "seeds: List should have at least 1 item"),
    "a seed below 0": ((X,), {"seeds": -1}, "seeds.0: Input should be greater than or equal to 0"),
    "a truth value": ((X,), {"seeds": True}, "seeds.0: Input should be a valid integer"),
    "a word": ((X,), {"seeds": "01"}, "seeds.0: Input should be a valid integer"),
    "a name": ((X,), {"name": "a-b,c"}, "name: String should match pattern"),
    "no query": ((X, None), {}, "query: None: it is no function or class"),
    "no mitigation": ((X,), {"mitigation": 3}, "mitigation: 3: it is no subclass"),
    "no settings": ((X, "badge"), {"query_settings": [1]}, "query_settings: list is no mapping"),
    "no kinds": ((X,), {"kinds": ["table"]}, "kinds: list is no mapping"),
    "no device": ((X,), {"device": "foo"}, "device 'foo' takes no data"),
    "a name of torch's": (({"type": X["told"]},), {}, "modality 'type': torch's modules have a 'type'"),
    "ragged": (({"told": [[1, 2], [3]] * 60},), {}, "dataset, told: setting an array element"),
    "a large label": ((X,), {"labels": np.where(Y == 2, 10**12, Y)}, "labels: 1000000000000 is there"),
    "nothing left": ((X,), {"test": 0.99}, "class 0 has 0 training samples"),
    "one never there": (
        (X,),
        {"present": np.tile([True, False], (120, 1))},
        "present: no training sample has noise",
    ),
    "wide tokens": (({"words": np.full((120, 3), 2**33 + 1)},), {}, "whole numbers from 0 to 2,147,483,647"),
    "unknown tokens": (
        ({"words": np.full((120, 3), 40_000)},),
        {},
        "the largest token is 40000, and our",
    ),
    "no mapping": ((X["told"],), {}, "is no mapping of modalities to arrays"),
}


@pytest.mark.parametrize(("arguments", "changes", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_by_a_line_that_names_it(arguments, changes, message):
    with pytest.raises(mindgap.base.errors.MindGapError, match=re.escape(message)):
        mindgap.run(*arguments, **SHORT | changes)


def test_frames_of_other_rows_are_refused_and_of_the_same_ones_are_arrays():
    frames = {name: pd.DataFrame(x, index=np.arange(120) + 7) for name, x in X.items()}
    y = pd.Series(Y, index=np.arange(120) + 7)
    of_frames = mindgap.run(frames, "random", **SHORT | {"labels": y})
    pd.testing.assert_frame_equal(of_frames, mindgap.run(X, "random", **SHORT))
    with pytest.raises(InputError, match="told and labels have other indices"):
        mindgap.run(frames, "random", **SHORT | {"labels": y.sample(frac=1, random_state=0)})


def test_a_training_that_diverges_is_told_in_the_words_of_a_call():
    with pytest.raises(DivergenceError, match="Lower the learning rate") as told:
        mindgap.run({"told": X["told"] * 1e30}, "random", **SHORT)
    assert "params.yaml" not in str(told.value)


def test_a_kept_folder_gives_its_curves_and_areas(tmp_path):
    loaded = mindgap.load(ROOT / "reports/reference")
    assert set(loaded.aulc.columns) >= {"aulc_mean", "chance_aulc", "ceiling_aulc", "level"}
    assert set(loaded.aulc["dataset"]) == set(loaded.curves["dataset"])
    with pytest.raises(InputError, match="has no learning curves"):
        mindgap.load(tmp_path)
    with pytest.raises(InputError, match="None is no folder"):
        mindgap.load(None)
    (tmp_path / "curves").mkdir()
    (tmp_path / "curves/missing-low.csv").touch()  # a copy that was stopped
    (tmp_path / "curves/missing-mid.csv").write_text(loaded.curves.iloc[:0].to_csv(index=False))
    with pytest.raises(ReportError, match=r"missing-low\.csv"):
        mindgap.load(tmp_path)


@pytest.mark.parametrize("half", [".csv", ".json"])
def test_half_a_kept_diagnosis_is_refused_by_all_who_read_it_and_the_mend_brings_both_files(tmp_path, half):
    kept, other = tmp_path / "kept", tmp_path / "other"
    aside = shutil.ignore_patterns("figures", "tables", "plots")
    shutil.copytree(ROOT / "reports/mitigations", kept, ignore=aside)
    (kept / f"diagnosis/missing-mid-gated{half}").unlink()
    readers = (
        lambda: mindgap.load(kept),
        lambda: kept_report_stage(kept),
        lambda: keep_stage(None, other, source=kept),
    )
    for read in readers:
        with pytest.raises(ReportError, match=r"git checkout -- \S+-gated\.csv \S+-gated\.json, or"):
            read()
    assert not other.exists()


def test_the_notebook_runs():
    pytest.importorskip("sklearn")
    cells = json.loads((ROOT / "docs/quickstart.ipynb").read_text())["cells"]
    codes = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in cells)
    names: dict = {}
    for code in codes:
        exec(compile(code, "quickstart.ipynb", "exec"), names)
    assert set(names["curves"]["query"]) == {"random", "badge"}
    assert set(names["own"]["query"]) == {"least_confidence"}
