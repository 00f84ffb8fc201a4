"""The memory of a run: exact where it can be, computed in proportion elsewhere, measured on a GPU."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from mindgap.base.gpu import Engine
from mindgap.core import evaluation
from mindgap.core.batches import Batches, Recipe
from mindgap.core.params import load_params
from mindgap.core.training import Steps
from mindgap.data.dataset import load_dataset
from mindgap.engine.calibration import (
    Calibration,
    _Bench,
    _Live,
    _Stopwatch,
    as_a_worker,
    present_shares,
    rows_a_pass,
)
from mindgap.engine.layout import expected_layout
from mindgap.engine.plan import CONTEXT, INTERPRETER, Memory
from mindgap.parts.mitigations import MITIGATIONS, Mitigation, Step
from mindgap.stages.paths import places
from mindgap.stages.plan import make_plan
from mindgap.stages.plan_table import as_json, cost_rows, remarks
from small_project import ROOT, params_in

PARAMS = load_params(ROOT / "params.yaml")
COMPLETE = (1.0, 1.0)


def bench(dataset: str) -> _Bench:
    return _Bench(expected_layout(PARAMS, dataset), PARAMS.setting(dataset, "low"), "cpu", {})


def test_live_bytes_are_those_of_tensors_that_are_held():
    with _Live() as live:
        x = torch.zeros(1000)
        y = x + 1
        y += 1
        view = y[:10]
        assert (live.held, max(live.history)) == (8000, 8000)
        del x, y
        assert live.held == 4000
        del view
        (torch.zeros(500) + 1).sum()
    assert (live.held, max(live.history)) == (0, 8000)


def test_live_bytes_include_what_a_backward_pass_waits_for():
    weight = torch.ones(250, requires_grad=True)
    with _Live() as live:
        loss = (weight.exp() * 2).exp().sum()
        assert live.held == 1000 + 1000 + 4  # exp saves its result, a product with a number saves nothing
        loss.backward()
        del loss
        assert live.held == 1000  # the gradient


def test_the_dataset_is_every_byte_that_lies_on_a_device(project):
    plan = make_plan(params_in(project), measure=False)
    dataset = load_dataset(places("missing").prepared)
    splits = (dataset.train, dataset.test)
    there = [x for split in splits for x in (*split.x.values(), split.present_NM, split.y_N)]
    assert plan.layouts["missing"].bytes == sum(x.nbytes for x in there)
    assert plan.estimates[0].memory["cuda"].dataset == plan.layouts["missing"].bytes


def test_a_training_keeps_weights_gradients_momentum_and_the_best_weights():
    layout, setting = expected_layout(PARAMS, "missing"), PARAMS.setting("missing", "low")
    memory = Calibration("cpu", 0.0).memory(layout, setting, "none", {}, "cpu")
    one = bench("missing")
    recipe = Recipe(
        **setting.recipe.model_dump(exclude={"projection_dropout"}), **setting.training.model_dump()
    )
    steps = Steps.of(one.model.train(), recipe, Mitigation())
    draws = Batches(
        one._split(COMPLETE, 4), torch.arange(4), replace(recipe, batch_size=4), Mitigation(), one.model, (0,)
    )
    steps.take(next(draws.epoch()), "here")
    kept = [*one.model.state_dict().values(), *one.model.parameters(), *steps.optimiser.velocity]
    kept += [x.clone() for x in one.model.state_dict().values()]
    assert memory.state == sum(x.nbytes for x in kept)
    assert memory.process == memory.state + max(memory.step, memory.forward) + INTERPRETER


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
@pytest.mark.parametrize("dataset", ["missing", "share", "food101", "mimic", "trio"])
def test_activations_of_many_rows_follow_from_few(dataset, kind):
    one = bench(dataset)
    for training in (True, False):
        assert one._computed(kind, training, 24, 1.0) == pytest.approx(
            max(one._history(kind, training, 24)), rel=1e-6
        )
    half, whole = (one._computed("cpu", True, 1000, share) for share in (0.5, 1.0))
    assert half == pytest.approx(whole / 2, rel=1e-3)


def test_half_precision_halves_activations_on_a_gpu_and_absence_saves_its_share():
    layout, setting = expected_layout(PARAMS, "unique"), PARAMS.setting("unique", "low")
    calibration = Calibration("cpu", 0.0)
    whole, half = (calibration.memory(layout, setting, "none", {}, kind) for kind in ("cpu", "cuda"))
    assert 0.4 < half.step / whole.step < 0.7
    assert half.process == CONTEXT + half.dataset + half.state + half.recordings + max(
        half.step, half.forward
    )
    absent = expected_layout(PARAMS, "missing")
    shares = present_shares(absent)
    one = bench("missing")
    step, _ = one.holds(Mitigation(), "cpu")
    assert step == one._computed("cpu", True, 32, sum(shares) / 2) < one._computed("cpu", True, 32, 1.0)


def test_a_recorded_step_and_recorded_passes_hold_their_memory_side_by_side():
    layout, setting = expected_layout(PARAMS, "unique"), PARAMS.setting("unique", "low")
    calibration = Calibration("cpu", 0.0)
    there, here = (calibration.memory(layout, setting, "none", {}, kind) for kind in ("cuda", "cpu"))
    assert there.process == CONTEXT + there.dataset + there.state + there.step + there.forward
    assert here.recordings == 0


@pytest.mark.parametrize("dataset", ["missing", "share", "food101", "mimic"])
def test_rows_of_a_pass_are_those_of_the_evaluation(dataset):
    layout = expected_layout(PARAMS.model_copy(update={"scale": "paper"}), dataset)
    x = {name: torch.empty((1, *m.shape), dtype=torch.uint8) for name, m in layout.modalities.items()}

    class Samples(SimpleNamespace):
        def __len__(self) -> int:
            return 1

    for kind in ("cpu", "cuda"):
        assert rows_a_pass(layout, kind) == evaluation.rows_a_pass(Samples(x=x), Engine.of(kind))


def test_how_many_runs_fit():
    run = Memory("cuda", dataset=1000, state=200, step=50, forward=70, recordings=30)
    assert run.process == CONTEXT + 1000 + 200 + 70 + 30
    assert run.own == 200 + 70 + 30  # context and dataset are there once
    assert [run.fits(run.shared + n * run.own - less) for n, less in ((3, 0), (3, 1), (1, 1))] == [3, 2, 0]
    assert run.fits(0) == 0
    here = replace(run, device="cpu", recordings=0)
    assert here.process == INTERPRETER + 200 + 70  # the dataset is mapped


def test_a_plan_warns_when_more_runs_are_asked_for_than_fit(project):
    plan = make_plan(params_in(project), measure=False)
    assert not any("WARNING" in one for one in remarks(plan))
    need = plan.estimates[0].memory["cpu"].process
    crowded = replace(plan, workers=5, capacity=3 * need)
    assert "In this machine's memory (" in " ".join(remarks(crowded))
    assert any(" fit 3 runs of missing-low, the largest." in one for one in remarks(crowded))
    (warning,) = [one for one in remarks(crowded) if "WARNING" in one]
    assert warning == "WARNING: 5 runs at once are more than fit: set MINDGAP_WORKERS to 3 or less."
    memory = plan.estimates[0].memory["cuda"]
    need = memory.process
    gpus = replace(plan, workers=6, devices=("cuda:0", "cuda:1"), capacity=need + memory.own)
    (warning,) = [one for one in remarks(gpus) if "WARNING" in one]
    assert warning == "WARNING: 6 runs at once are more than fit: set MINDGAP_WORKERS to 4 or less."
    tight = remarks(replace(gpus, capacity=need - 1))
    assert any(one.endswith("to 2 or less; even one is too large: lower its batch size.") for one in tight)


def test_memory_is_in_table_and_json(project):
    plan = make_plan(params_in(project), measure=False)
    memory = plan.estimates[0].memory
    assert cost_rows(plan)[0] == ("", "disk", "on a GPU", "on a CPU")
    (part,) = as_json(plan)["parts"]
    assert part["memory"]["cuda"]["process"] == memory["cuda"].process
    assert not part["memory"]["cuda"]["measured"]
    assert part["runs_that_fit"] == memory["cpu"].fits(as_json(plan)["machine"]["memory"])
    assert any("computed from small passes, without augmentation" in one for one in remarks(plan))


# -- the stopwatch


def test_steps_are_marked_by_their_losses_however_early_presence_is_asked_for():
    present_BM, y_B, one = torch.ones((4, 2), dtype=torch.bool), torch.zeros(4).long(), torch.ones(4)
    step = Step(y_B, {}, present_BM, torch.zeros(4, 2, 8), torch.zeros((4, 3)), y_B, one[0], None, one)
    watch = _Stopwatch(MITIGATIONS["moddrop"](0.5), present_BM, limit=1e9)
    rng = torch.Generator().manual_seed(0)
    for _ in range(5):
        assert watch.drop(torch.zeros((4, 2), dtype=torch.bool), rng) is present_BM
    assert watch.marks == []
    losses = [watch.loss(step) for _ in range(5)]
    assert len(watch.marks) == 5
    assert watch.marks == sorted(watch.marks)
    assert losses[0] == pytest.approx(1.0986, abs=1e-4)


def test_whole_fits_and_marks_agree_on_a_step():
    """A GPU is timed by whole fits, a CPU by marks: here both ways see the same steps."""
    with as_a_worker("cpu"):
        one = bench("unique")
        one.first_step(Mitigation())
        marks = one._by_marks(Mitigation(), COMPLETE, 64, 0.5)
        fits = one._by_whole_fits(Mitigation(), COMPLETE, 64, 0.5)
    assert marks / 2 < fits < 2 * marks


@pytest.mark.gpu
@pytest.mark.parametrize("dataset", ["unique", "share"])
def test_what_is_measured_is_near_what_is_computed(dataset):
    params = PARAMS.model_copy(update={"scale": "paper"})
    layout, setting = expected_layout(params, dataset), params.setting(dataset, "low")
    with as_a_worker("cuda"):
        measured = Calibration("cuda", 0.1).memory(layout, setting, "none", {}, "cuda")
    computed = Calibration("cpu", 0.1).memory(layout, setting, "none", {}, "cuda")
    assert (measured.measured, computed.measured) == (True, False)
    assert (measured.state, measured.dataset) == (computed.state, computed.dataset)
    assert computed.step / 2 < measured.step < 4 * computed.step
