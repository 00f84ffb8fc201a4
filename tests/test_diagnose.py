"""The permutation diagnostic on models: experts, reliabilities and decisions are the model's own."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mindgap.base.errors import MindGapError, ParamsError
from mindgap.core.check import check_params
from mindgap.core.evaluation import encode, predict
from mindgap.core.network import ModelSpec, build_model
from mindgap.core.params import Params, load_params
from mindgap.data.dataset import load_dataset
from mindgap.engine.kept import load_model
from mindgap.parts.evaluators.balanced_accuracy import mean_recall
from mindgap.parts.fusions import FUSIONS
from mindgap.parts.fusions.weighing import Weighing
from mindgap.results.diagnosis import DIAGNOSIS_COLUMNS
from mindgap.results.permutation import HOWS, RULES, DiagnosticError, pooled
from mindgap.results.reading import ReportError
from mindgap.stages import cli
from mindgap.stages import diagnose as stage
from mindgap.stages.blueprint import write_blueprints
from mindgap.stages.diagnose import acquisition_weights, diagnose, diagnose_stage
from mindgap.stages.keep import keep_stage
from mindgap.stages.paths import DIAGNOSIS, places
from mindgap.stages.prepare import prepare_stage
from mindgap.stages.report import kept_report_stage, left_over, report_stage
from mindgap.stages.runs import acquire_stage, train_stage
from opened import unlisted
from small_project import params_in, small, working_copy

GIVING = ("gated", "quality", "moe", "evidential", "cross_attention")
MODELS = places("missing").runs / "missing-low" / "models"
SOURCES = ["fusion", "acquisition", "truth"]


def asking(folder: Path, fusion: str = "gated", **changes) -> Params:
    """Parameters of two runs of Random with a fusion, to be diagnosed."""
    scales = small()["scales"]
    scales["tiny"]["model"]["fusion"]["name"] = fusion
    asked = {"query": ["random"], "keep_models": "last", "diagnose": ["missing"], "diagnose_sources": SOURCES}
    return params_in(folder, scales=scales, **asked | changes)


@pytest.fixture(scope="session")
def twins(prepared, once) -> Path:
    """A project with the kept models of two runs with a gated fusion."""

    def fill(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            params = asking(working_copy(prepared, folder, patch))
            train_stage(params, "missing", "low")
            acquire_stage(params, "missing", "low")

    return once("twins", fill)


@pytest.fixture
def project(twins, tmp_path, monkeypatch) -> Path:
    return working_copy(twins / "project", tmp_path, monkeypatch)


def model_of(dataset, fusion: str):
    own = {"temperature": 0.02} if fusion == "quality" else {}
    spec = ModelSpec(fusion={"name": fusion, **own}, width=16)
    return build_model(dataset.modalities, dataset.num_classes, spec, seed=1).eval()


@pytest.mark.parametrize("fusion", GIVING)
def test_a_models_own_decisions_are_those_that_it_is_evaluated_by(make_dataset, fusion):
    dataset = make_dataset()
    model, split = model_of(dataset, fusion), dataset.test
    found = {gap.rule: gap for gap in diagnose(model, split)}
    weighs = isinstance(model.fusion, Weighing)
    assert set(found) == {*RULES, *(["own"] if weighs else [])} - {"mean"}
    assert all(gap.n == len(split) and len(gap.broken_K) == 200 for gap in found.values())
    if weighs:
        probs = predict(model, encode(model, split), split.present_NM)
        assert found["own"].clean == pytest.approx(mean_recall(probs, split.y_N).item())


@pytest.mark.parametrize("fusion", sorted(set(FUSIONS) - set(GIVING)))
def test_a_fusion_without_reliabilities_is_refused_by_name_and_may_be_given_others(make_dataset, fusion):
    dataset = make_dataset()
    model = model_of(dataset, fusion)
    with pytest.raises(DiagnosticError, match=rf"model\.fusion: '{fusion}' gives no reliabilities.*gated"):
        diagnose(model, dataset.test)
    truth = np.random.default_rng(0).random(dataset.test.present_NM.shape)
    assert {gap.rule for gap in diagnose(model, dataset.test, truth)} == set(RULES) - {"mean"}


def test_a_gate_that_decides_is_seen(make_dataset):
    """Each expert says its own class whatever it sees; which of the two is right, the gate alone tells."""
    dataset = make_dataset(classes=2)
    model, split = model_of(dataset, "moe"), dataset.test

    right_N = torch.nn.functional.one_hot(split.y_N, 2).float()
    with torch.no_grad():
        model.head.weight.zero_(), model.head.bias.zero_()
        block = model.head.in_features // 2
        for m in range(2):
            model.head.weight[m, (m + 1) * block - 1] = 5.0
    model.fusion.weigh = lambda tokens, present: (tokens * 0, right_N)
    own = diagnose(model, split)[-1]
    assert (own.rule, own.clean, own.verdict, own.oracle) == ("own", 1.0, "used", 1.0)
    assert own.gap == pytest.approx(0.5, abs=0.15)


def test_a_user_trains_keeps_diagnoses_and_reads_it_on_the_page(project, monkeypatch, capsys):
    params, kept = load_params(), Path("reports/kept")
    keep_stage(params, kept, "Two runs.")
    monkeypatch.setattr(sys, "argv", ["mindgap", "diagnose", "missing", "low", "--keep", "reports/kept"])
    with unlisted("diagnose", dataset="missing", regime="low") as found, pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0, capsys.readouterr().err
    of_keep = ("diagnosis/missing-low-gated.csv", "diagnosis/missing-low-gated.json", "selection.yaml")
    assert found == [kept / name for name in of_keep]  # which --keep alone reads and writes
    table = pd.read_csv(DIAGNOSIS / "missing-low.csv", keep_default_na=False)
    assert tuple(table.columns) == DIAGNOSIS_COLUMNS
    rules = [rule for rule in RULES if rule != "mean"]
    assert table["seed"].value_counts().to_dict() == dict.fromkeys("01", 46) | {"pooled": 46}
    dataset = load_dataset(places("missing").prepared)
    gaps = [diagnose(load_model(MODELS / f"random-moddrop-{seed}", dataset), dataset.test) for seed in (0, 1)]
    for where, found in zip(
        ("0", "1", "pooled"), [*gaps, list(map(pooled, zip(*gaps, strict=True)))], strict=True
    ):
        of_one = table[(table["seed"] == where) & (table["source"] == "fusion")].set_index(["rule", "how"])
        assert set(of_one.index) == {(rule, how) for rule in rules for how in HOWS} | {("own", "joint")}
        for gap in found:
            row = of_one.loc[(gap.rule, gap.how)]
            assert [row[name] for name in ("n", "gap", "p", "low", "high", "oracle")] == pytest.approx(
                [gap.n, gap.gap, gap.p, *gap.interval, gap.oracle]
            )
            assert row["verdict"] == gap.verdict
    assert set(table.loc[table["source"] == "truth", "alignment"].map(float).between(-1, 1)) == {True}
    keep_stage(params, kept)  # which loses nothing
    with unlisted("report_kept", folder="kept") as of_kept:
        kept_report_stage(kept)
    with unlisted("report") as of_runs:
        report_stage(params)
    assert (of_kept, of_runs) == ([], [])
    for folder, name in {"reports/kept": "missing-low-gated", "reports": "missing-low"}.items():
        page = Path(folder, "index.html").read_text()
        assert 'id="diagnosis"' in page
        assert f'href="diagnosis/{name}.csv"' in page
        assert page.count("<td>truth</td>") == len(rules)
    damaged = (DIAGNOSIS / "missing-low.csv").read_text().replace("undecided", "used", 1)
    (DIAGNOSIS / "missing-low.csv").write_text(damaged)
    with pytest.raises(
        ReportError, match=r"missing-low\.csv is not what was .*dvc repro -f -s diagnose@missing"
    ):
        report_stage(params)
    assert [path.name for path in left_over(params)] == []
    assert [path.name for path in left_over(params.model_copy(update={"diagnose": []}))] == [
        "missing-low.csv",
        "missing-low.json",
    ]


def test_dvc_sees_all_that_makes_runs(twins, project, monkeypatch):
    """What no stage depends on could change, and none would start."""
    shutil.copytree(twins / "store", "../finished")
    monkeypatch.setenv("MINDGAP_STORE", str(project.parent / "finished"))
    params, one = load_params(), {"dataset": "missing", "regime": "low"}
    with unlisted("check_params") as of_blueprints:
        write_blueprints(params)
    with unlisted("prepare", dataset="missing") as of_data:
        prepare_stage(params, "missing")
    with unlisted("train", **one) as of_models:
        train_stage(params, "missing", "low")
    with unlisted("acquire", **one) as of_runs:
        acquire_stage(params, "missing", "low")
    assert (of_blueprints, of_data, of_models, of_runs) == ([], [], [], [])


def test_weights_of_acquisition_are_those_of_bmmal(make_dataset):
    dataset = make_dataset()
    model, test = model_of(dataset, "transformer"), dataset.test
    tokens = encode(model, test)
    both, left, right = (
        predict(model, tokens, test.present_NM & torch.tensor(keep))
        for keep in ([True, True], [True, False], [False, True])
    )
    nothing = predict(model, tokens, test.present_NM & False)
    for n, weight_M in enumerate(acquisition_weights(model, test, tokens)[:9]):
        c = both[n].argmax()
        value = [float(one[n, c]) for one in (nothing, left, right, both)]
        size = np.abs(
            [(value[1] - value[0] + value[3] - value[2]) / 2, (value[2] - value[0] + value[3] - value[1]) / 2]
        )
        assert weight_M == pytest.approx(1 - (size.max() - size) / size.sum(), abs=1e-5)


def without_whole_items(dataset):
    alone_NM = torch.zeros_like(dataset.test.present_NM)
    alone_NM[:, 0] = True
    return replace(dataset, test=replace(dataset.test, present_NM=alone_NM))


REFUSED = {
    "not kept": ({}, lambda: shutil.rmtree(MODELS), r"0 was not kept: run `dvc exp run -S keep_models=last`"),
    "one not kept": ({"seeds": [0, 1, 2]}, None, r"random-moddrop-2 was not kept: run `dvc exp run -S"),
    "other settings": (
        {"fusion": "moe"},
        None,
        r"0\.safetensors is of other settings .*\.fusion\.name is gated and moe.*-S keep_models=last",
    ),
    "another rate": (
        {"mitigation_settings": {"moddrop": {"rate": 0.5, "form": "independent"}}},
        None,
        r"other settings .*mitigation_settings\.rate is 0\.3 and 0\.5",
    ),
}


@pytest.mark.parametrize(("changes", "damage", "message"), REFUSED.values(), ids=REFUSED)
def test_models_that_are_not_those_asked_for_are_refused_by_name(project, changes, damage, message):
    params = asking(project, **changes)
    if damage:
        damage()
    with pytest.raises(MindGapError, match=message):
        diagnose_stage(params, "missing", "low")
    assert not DIAGNOSIS.exists()


def test_a_test_set_without_a_whole_item_is_refused_by_name(project, monkeypatch):
    loaded = stage.load_prepared
    monkeypatch.setattr(stage, "load_prepared", lambda *asked: without_whole_items(loaded(*asked)))
    with pytest.raises(DiagnosticError, match=r"test set of missing: 0 of 60 items have all modalities"):
        diagnose_stage(load_params(), "missing", "low")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"fusion": "concat"},
            r"'concat' gives no reliabilities: set scales\.tiny\.model\.fusion\.name to gated, q",
        ),
        ({"diagnose": ["unique"]}, r"diagnose: 'unique' is not run: name it in `dataset` too"),
        ({"diagnose": ["missing", "missing"]}, r"diagnose: missing is listed twice"),
        ({"keep_models": "none"}, r"diagnose: .*\(-S keep_models=last\)"),
        ({"diagnose_sources": ["gate"]}, r"diagnose_sources.*'fusion', 'acquisition' or 'truth'"),
        ({"dataset": ["share"], "diagnose": ["share"]}, r"rendered datasets \(missing, .*not of share"),
    ],
)
def test_what_could_not_be_diagnosed_is_refused_before_any_training(tmp_path, changes, message):
    with pytest.raises(ParamsError, match=message):
        check_params(asking(tmp_path, **changes))
    check_params(asking(tmp_path, "concat", diagnose_sources=["truth", "acquisition"]))
