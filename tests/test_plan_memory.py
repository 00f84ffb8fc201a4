"""The memory of a run: exact where it can be, computed in proportion elsewhere, measured on a GPU."""

from dataclasses import replace

import pytest
import torch

from mindgap.core.batches import Batches, Recipe
from mindgap.core.params import load_params
from mindgap.core.training import Steps
from mindgap.data.dataset import load_dataset
from mindgap.engine.calibration import (
    Bench,
    Calibration,
    as_a_worker,
    present_shares,
)
from mindgap.engine.layout import expected_layout
from mindgap.engine.plan import CONTEXT, INTERPRETER, Memory
from mindgap.parts.mitigations import Mitigation
from mindgap.stages.paths import places
from mindgap.stages.plan import make_plan
from mindgap.stages.plan_table import as_json, cost_rows, remarks
from small_project import ROOT, params_in

PARAMS = load_params(ROOT / "params.yaml")
COMPLETE = (1.0, 1.0)


def bench(dataset: str) -> Bench:
    return Bench(expected_layout(PARAMS, dataset), PARAMS.setting(dataset, "low"), "cpu", {})


class Known(torch.nn.Module):
    """A model whose activations are known: N rows of 25 numbers after each of its two operations."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(25))

    def draw(self, keys) -> None:
        pass

    def forward(self, x, present_NM):
        return (self.weight * torch.ones(len(present_NM), 25)).exp()


def test_activations_are_what_the_backward_pass_waits_for():
    one = bench("unique")
    one.model = Known()
    # What the weight is multiplied by, the exponential, the softmax; labels, and the weight of the loss.
    assert one.held("cpu", True, 5) == [5 * (3 * 25 * 4 + 8) + 4]
    (passed,) = one.held("cpu", False, 5)
    assert passed == 5 * (
        2 * 3 * 32 * 32 + 2 + 25 * 4
    )  # two images and their presence are given, logits made


def test_the_dataset_is_every_byte_that_lies_on_a_device(project):
    plan = make_plan(params_in(project), measure=False)
    dataset = load_dataset(places("missing").prepared)
    splits = (dataset.train, dataset.test)
    there = [x for split in splits for x in (*split.x.values(), split.present_NM, split.y_N)]
    assert plan.layouts["missing"].bytes == sum(x.nbytes for x in there)
    assert plan.estimates[0].memory["cuda"].dataset == plan.layouts["missing"].bytes


def test_a_training_keeps_weights_gradients_momentum_and_the_best_weights():
    layout, setting = expected_layout(PARAMS, "missing"), PARAMS.setting("missing", "low")
    memory = Calibration("cpu").memory(layout, setting, "none", {}, "cpu")
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
        assert one.computed(kind, training, 24) == pytest.approx(max(one.held(kind, training, 24)), rel=1e-6)
    half, whole = (one.computed("cpu", True, rows) for rows in (500, 1000))
    assert half == pytest.approx(whole / 2, rel=1e-3)


def test_half_precision_halves_activations_on_a_gpu_and_absence_saves_its_share():
    layout, setting = expected_layout(PARAMS, "unique"), PARAMS.setting("unique", "low")
    calibration = Calibration("cpu")
    whole, half = (calibration.memory(layout, setting, "none", {}, kind) for kind in ("cpu", "cuda"))
    assert 0.4 < half.step / whole.step < 0.7
    assert half.process == CONTEXT + half.dataset + half.state + half.recordings + max(
        half.step, half.forward
    )
    absent = expected_layout(PARAMS, "missing")
    shares = present_shares(absent)
    one = bench("missing")
    step, _ = one.holds(Mitigation(), "cpu")
    assert step == one.computed("cpu", True, 32 * sum(shares) / 2) < one.computed("cpu", True, 32)


def test_a_recorded_step_and_recorded_passes_hold_their_memory_side_by_side():
    layout, setting = expected_layout(PARAMS, "unique"), PARAMS.setting("unique", "low")
    calibration = Calibration("cpu")
    there, here = (calibration.memory(layout, setting, "none", {}, kind) for kind in ("cuda", "cpu"))
    assert there.process == CONTEXT + there.dataset + there.state + there.step + there.forward
    assert here.recordings == 0


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


@pytest.mark.gpu
@pytest.mark.parametrize("dataset", ["unique", "share"])
def test_what_is_measured_is_near_what_is_computed(dataset):
    params = PARAMS.model_copy(update={"scale": "paper"})
    layout, setting = expected_layout(params, dataset), params.setting(dataset, "low")
    with as_a_worker("cuda"):
        measured = Calibration("cuda").memory(layout, setting, "none", {}, "cuda")
    computed = Calibration("cpu").memory(layout, setting, "none", {}, "cuda")
    assert (measured.measured, computed.measured) == (True, False)
    assert (measured.state, measured.dataset) == (computed.state, computed.dataset)
    assert computed.step / 2 < measured.step < 4 * computed.step
