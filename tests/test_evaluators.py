"""Every evaluator by one contract: rows of the long table, in records, in its file and in digests."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
import torch
from pydantic import Field
from torch import nn

from mindgap.base.at_work import PartError
from mindgap.base.errors import ParamsError
from mindgap.base.settings import SettingsError
from mindgap.core.check import check_params
from mindgap.core.digest import SOURCE, files_of
from mindgap.core.loop import Cell, Run, rounds
from mindgap.core.params import load_params
from mindgap.core.records import MEASURED_COLUMNS, curve_points, text_digest
from mindgap.core.run_code import digest_here
from mindgap.data.dataset import load_dataset
from mindgap.parts import evaluators
from mindgap.parts.evaluators import EVALUATORS, make_evaluator
from mindgap.parts.evaluators.contract import OF_CURVES, EvaluatorError
from mindgap.results.curves import POINTS
from mindgap.results.expectations import ExpectationFailed, validate_measured
from mindgap.results.reading import ReportError
from mindgap.stages.catalogue import catalogue
from mindgap.stages.paths import EXPECTATIONS, places
from mindgap.stages.report import report_stage
from mindgap.stages.runs import acquire_stage, run_of, train_stage
from small_project import params_in, small
from test_loop import initial_of
from test_loop import run_of as run_in_memory

MISSING = places("missing")
SUBSETS = ("left", "right", "left+right")
SEEN_ON_SUBSETS = (*OF_CURVES, "nll")
NOTHING: dict = {}


def all_of_them(**settings) -> Run:
    asked = {name: settings.get(name, {}) for name in EVALUATORS}
    return replace(run_in_memory("entropy"), evaluators=asked)


def run_records(run: Run, dataset) -> list[dict]:
    return list(rounds(run, dataset, *initial_of(dataset)))


def deep(model, split, context, k: Annotated[int, Field(ge=1)] = 2):
    """An evaluator with a setting."""
    yield "k", None, k


def measured_by(function, dataset, monkeypatch) -> list[dict]:
    """The rows of an evaluator in the last round of a run."""
    monkeypatch.setitem(evaluators.EVALUATORS, "one", function)
    run = replace(run_in_memory("random"), evaluators={"one": {}})
    return run_records(run, dataset)[-1]["metrics"]


def test_an_evaluator_gives_a_finite_number_for_each_subset_and_is_listed(make_dataset):
    records = run_records(all_of_them(), make_dataset())
    (lines,) = (lines for key, lines in catalogue().items() if key.startswith("evaluate "))
    for name in EVALUATORS:
        for record in records[1:]:
            rows = [row for row in record["metrics"] if row["evaluator"] == name]
            of_subsets = SUBSETS if name in SEEN_ON_SUBSETS else SUBSETS[:2]
            assert tuple(row["subset"] for row in rows if row["subset"]) == of_subsets
        assert name in [line[0] for line in lines]


def test_an_evaluator_has_all_that_a_round_knows_and_draws_for_itself(make_dataset, monkeypatch):
    dataset, seen = make_dataset(), []

    def curious(model, split, context):
        seen.append(context)
        everything = context.predict(context.tokens_NMD, split.present_NM)
        assert torch.allclose(everything, context.subsets["left+right"].probs_KC)
        acquired = context.labelled_L[context.start :]
        yield "acquired", None, len(acquired)
        yield "share_left", "left", context.train.present_NM[acquired, 0].double().mean()
        yield "draw", None, torch.rand(1, generator=context.rng)

    rows = measured_by(curious, dataset, monkeypatch)
    first, last = seen[0], seen[-1]
    assert (first.round, last.round, last.start) == (1, 2, 8)
    assert rows[0] == {"evaluator": "one", "subset": None, "name": "acquired", "value": 12.0}
    assert rows[1]["value"] == dataset.train.present_NM[last.labelled_L[8:], 0].double().mean().item()
    assert last.modalities == ("left", "right")
    assert set(last.fit) == {"best_epoch", "best_validation", "losses", "steps"}
    assert len(last.validation_V) == 16
    assert not set(last.validation_V.tolist()) & set(last.labelled_L.tolist())
    # The draws are others in each round, the same beside other evaluators.
    monkeypatch.setitem(evaluators.EVALUATORS, "zero", lambda *given: [("x", None, 0.0)])
    run = replace(run_in_memory("random"), evaluators={"zero": {}, "one": {}})
    beside = run_records(run, dataset)
    assert beside[-1]["metrics"][1:] == rows
    assert beside[1]["metrics"][-1]["value"] != rows[-1]["value"]


def test_evaluators_change_no_other_number_of_a_run(make_dataset, monkeypatch):
    few = run_records(run_in_memory("entropy"), make_dataset())

    def drawing(model, split, context):
        model.train()
        yield "x", None, 1.0

    monkeypatch.setitem(evaluators.EVALUATORS, "drawing", drawing)
    with_all = replace(all_of_them(), evaluators={"drawing": {}, **all_of_them().evaluators})
    many = run_records(with_all, make_dataset())
    for one, other in zip(few, many, strict=True):
        assert one["acquired_ids"] == other["acquired_ids"]
        assert curve_points(one) == curve_points(other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model, split, context: context.tokens_NMD.zero_(), "changes context.tokens_NMD in place"),
        (lambda model, split, context: context.train.y_N.zero_(), "changes context.train.y_N in place"),
        (lambda model, split, context: split.x["left"].zero_(), "changes split.x.left in place"),
        (lambda model, split, context: nn.init.zeros_(model.head.bias), "changes model.head.bias in place"),
        (lambda model, split, context: torch.rand(3), "draws from torch's own generator.*context.rng"),
        (lambda model, split, context: np.random.rand(), "draws from numpy's own generator.*context.rng"),
        (lambda model, split, context: context.subsets["rare"], r"KeyError: 'rare' \(.*test_evaluators.py"),
    ],
)
def test_an_evaluator_that_spoils_the_run_or_fails_stops_it_by_name(
    change, message, make_dataset, monkeypatch
):
    def spoiling(model, split, context):
        change(model, split, context)
        yield "x", None, 1.0

    with pytest.raises(PartError, match=f"evaluator 'one' .*{message}"):
        measured_by(spoiling, make_dataset(), monkeypatch)


WRONG = {
    "no tuple": (0.5, "a row is a tuple of a name, a subset or None, and a number"),
    "two values": (("x", 0.5), "a row is a tuple"),
    "no name": ((None, "left", 0.5), "a name is made of letters"),
    "a name with a comma": (("a,b", "left", 0.5), "a name is made of letters"),
    "another subset": (("x", "middle", 0.5), r"no such subset; name one of left, right, left\+right"),
    "a word": (("x", "left", "high"), "the value is no single number"),
    "many numbers": (("x", "left", torch.ones(2)), "the value is no single number"),
    "a list of subsets": (("x", ["left"], 0.5), "there is no such subset"),
    "too large": (("x", None, 10**400), "the value is no single number"),
    "not finite": (("x", None, float("nan")), "the value is not finite"),
}


@pytest.mark.parametrize(("row", "message"), WRONG.values(), ids=WRONG)
def test_a_row_that_the_table_cannot_have_is_refused_by_name(row, message, make_dataset, monkeypatch):
    place = "blobs-low-random-moddrop-0, round 1: evaluator 'one' gave"
    with pytest.raises(EvaluatorError, match=f"^{place} .*{message}"):
        measured_by(lambda *given: [row], make_dataset(), monkeypatch)


def test_an_evaluator_without_rows_is_refused_by_name(make_dataset, monkeypatch):
    with pytest.raises(EvaluatorError, match="evaluator 'one' gave NoneType: yield rows, or return a list"):
        measured_by(lambda *given: None, make_dataset(), monkeypatch)


def test_reports_which_load_no_torch_know_the_evaluators_of_curves():
    assert tuple(POINTS) == OF_CURVES


def test_a_number_that_is_given_twice_is_refused(make_dataset, monkeypatch):
    with pytest.raises(EvaluatorError, match="it gave 'x' of that subset before"):
        measured_by(lambda *given: [("x", None, 1), ("x", None, 2)], make_dataset(), monkeypatch)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluate": [*OF_CURVES, "nil"]}, r"evaluate: unknown 'nil'; known in .*EVALUATORS: .*nll"),
        ({"evaluate": ["accuracy", "nll"]}, r"evaluate: learning curves .* balanced_accuracy, ece too: name"),
        ({"evaluate": [*OF_CURVES, "nll", "nll"]}, r"evaluate: nll is listed twice"),
        ({"evaluate_settings": {"deep": {"k": 0}}}, r"evaluate_settings\.deep\.k: .*greater than"),
        ({"evaluate_settings": {"nll": {"bins": 5}}}, r"evaluate_settings\.nll\.bins is unknown"),
        ({"keep_models": "all"}, r"keep_models: .*'none' or 'last'"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_any_compute(tmp_path, monkeypatch, changes, message):
    monkeypatch.setitem(evaluators.EVALUATORS, "deep", deep)
    with pytest.raises(ParamsError, match=message):
        check_params(params_in(tmp_path, **changes))


def test_settings_of_an_evaluator_are_those_of_the_parameters(make_dataset, monkeypatch):
    monkeypatch.setitem(evaluators.EVALUATORS, "deep", deep)
    run = replace(run_in_memory("random"), evaluators={"deep": {"k": 3}})
    assert [row["value"] for row in run_records(run, make_dataset())[-1]["metrics"]] == [3.0]
    with pytest.raises(SettingsError, match=r"evaluate_settings\.deep\.k"):
        make_evaluator("deep", {"k": "3"})


def test_a_run_depends_on_its_own_evaluators_and_on_their_code(project, monkeypatch):
    dataset, cell = load_dataset(MISSING.prepared), Cell("missing", "low", "moddrop", 0, "random")

    def run(**changes) -> Run:
        return run_of(params_in(project, **changes), cell, dataset, "initial")

    monkeypatch.setitem(evaluators.EVALUATORS, "deep", deep)
    plain, more = run(), run(evaluate=[*OF_CURVES, "deep"])
    assert plain.digest != more.digest
    assert more.digest != run(evaluate=[*OF_CURVES, "deep"], evaluate_settings={"deep": {"k": 3}}).digest
    assert more.evaluators == {**dict.fromkeys(OF_CURVES, NOTHING), "deep": {"k": 2}}
    assert files_of(EVALUATORS["nll"]) == {SOURCE / "parts/evaluators/nll.py"}
    # An evaluator that is listed and not asked for changes nothing; the code of one that is asked for counts.
    path = project / "surprise.py"
    path.write_text("def surprise(model, split, context):\n    yield 'x', None, 1.0\n")
    names: dict = {}
    exec(compile(path.read_text(), str(path), "exec"), names)
    monkeypatch.setitem(evaluators.EVALUATORS, "surprise", names["surprise"])
    assert run().digest == plain.digest
    asked = run(evaluate=[*OF_CURVES, "surprise"])
    path.write_text("def surprise(model, split, context):\n    yield 'x', None, 2.0\n")
    digest_here.cache_clear()  # a process reads its code once
    assert run(evaluate=[*OF_CURVES, "surprise"]).provenance["code"] != asked.provenance["code"]


def read(path: Path) -> list[dict]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_the_long_table_has_every_number_and_curves_follow_from_it(finished, project):
    params = params_in(project, seeds=[0], query=["random"], evaluate=[*OF_CURVES, "nll"])
    train_stage(params, "missing", "low")
    acquire_stage(params, "missing", "low")
    path, curves = MISSING.measured / "missing-low.csv", MISSING.curves / "missing-low.csv"
    assert tuple(path.read_text().splitlines()[0].split(",")) == MEASURED_COLUMNS
    rows, points = read(path), read(curves)
    assert len(rows) == 3 * 3 * 4
    found = {(r["run"], r["round"], r["subset"], r["name"]): r["value"] for r in rows}
    for point in points:
        for name in OF_CURVES:
            assert found[point["run"], point["round"], point["subset"], name] == point[name]
    without = [p for p in read(finished / "project" / curves) if (p["query"], p["seed"]) == ("random", "0")]
    assert [p | {"run": ""} for p in points] == [p | {"run": ""} for p in without]
    told = json.loads((MISSING.provenance / "missing-low.json").read_text())
    assert told["measured"] == text_digest(path.read_text())
    assert all("nll" in one["evaluators"] for one in told["settings"].values())
    report_stage(params)
    assert Path("reports/validation/measured-missing-low.html").exists()
    (shown,) = Path("reports/tables").glob("measured-missing-*.csv")
    assert "low: nll, Rare,method," in shown.read_text().replace('"', "")
    whole = path.read_text()
    damages = {
        whole.replace(f",{rows[0]['value']}\n", ",0.123\n", 1): "expect_column_pair_values_to_be_equal",
        whole.replace(",accuracy,rare,accuracy,", ",accuracy,rare,right,", 1): "points_missing",
        whole + whole.splitlines()[-1] + "\n": "expect_compound_columns_to_be_unique",
    }
    for damage, message in damages.items():
        path.write_text(damage)
        with pytest.raises(ExpectationFailed, match=message):
            validate_measured(path, curves, EXPECTATIONS, Path("pages"))
    with pytest.raises(ReportError, match=r"measured/missing-low\.csv is not what was written.*acquire@"):
        report_stage(params)


def test_the_shipped_parameters_measure_what_curves_are_made_of():
    params = load_params(Path(__file__).parents[1] / "params.yaml")
    assert tuple(params.evaluate) == OF_CURVES
    assert params.keep_models == "none"
    assert small()["evaluate"] == list(OF_CURVES)
