"""The plan of a selection: its counts against the paper's tables and against what real stages do."""

import itertools
import json
import math
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from mindgap.core import batches, evaluation, loop, training
from mindgap.core.params import Params, ParamsError, load_params
from mindgap.engine.calibration import Calibration, as_a_worker, line, present_shares
from mindgap.engine.layout import LayoutError, expected_layout
from mindgap.engine.plan import (
    Finished,
    Line,
    Looks,
    Name,
    PlanError,
    Speed,
    Taken,
    Work,
    actual,
    bytes_text,
    count_text,
    makespan,
    part_seconds,
    plan_part,
    time_text,
    training_work,
)
from mindgap.parts.mitigations import MITIGATIONS, Mitigation
from mindgap.parts.query import METHODS
from mindgap.stages import cli
from mindgap.stages.overrides import overridden
from mindgap.stages.paths import places
from mindgap.stages.plan import make_plan, plan_stage
from mindgap.stages.plan_table import as_json, cost_rows, remarks
from mindgap.stages.prepare import prepare_stage
from mindgap.stages.runs import acquire_stage, train_stage
from share_raw import share_raw
from small_project import RAW, ROOT, params_in, small

NO_LOOKS = dict.fromkeys(itertools.product(MITIGATIONS, METHODS), Looks(pool=False, labelled=False))
REGIMES = ["low", "mid", "high"]


def paper(**changes) -> Params:
    return load_params(ROOT / "params.yaml").model_copy(update={"scale": "paper", **changes})


def part_of(params: Params, dataset: str, regime: str):
    return plan_part(params, dataset, regime, expected_layout(params, dataset), NO_LOOKS)


def work_of_one(params: Params, dataset: str, regime: str) -> Work:
    """A single run, with the one of the two initial models that it starts from."""
    part = part_of(params, dataset, regime)
    (run,), initial = part.runs, {job.name: job for job in part.initial}
    assert {name.dropout for name in initial} == {True, False}
    return run.work + initial[replace(run.name, query=None)].work


# -- counts


def test_missing_low_by_hand():
    """Table 6: 50, 100 .. 500 labels; Table 5: 60 epochs of batches of 128."""
    work = work_of_one(paper(query=["random"], seeds=[0], mitigation=["none"]), "missing", "low")
    batches = [1, 1, 2, 2, 2, 3, 3, 4, 4, 4]
    assert work.trainings == 10
    assert work.steps == 60 * sum(batches) == 1560
    assert work.drawn == 60 * sum(range(50, 501, 50)) == 165_000
    assert work.validated == 60 * 10 * 250
    assert work.tested == 10 * 10_000


# Of one run, from Tables 5 and 6 with epochs of ceil(n/B) steps; samples in thousands.
@pytest.mark.parametrize(
    ("dataset", "regime", "steps", "drawn", "validated"),
    [
        ("missing", "mid", 6_600, 825, 750),
        ("missing", "high", 26_100, 3_300, 3_000),
        ("share", "low", 2_000, 550, 500),
        ("share", "mid", 3_600, 2_750, 2_500),
        ("share", "high", 11_000, 11_000, 10_000),
        ("unique", "low", 13_200, 1_650, 1_500),
        ("unique", "mid", 26_100, 3_300, 3_000),
        ("unique", "high", 129_300, 16_500, 3_000),
        ("synergy", "high", 129_300, 16_500, 3_000),
    ],
)
def test_a_run_of_the_papers_tables(dataset, regime, steps, drawn, validated):
    work = work_of_one(paper(query=["random"], seeds=[0], mitigation=["none"]), dataset, regime)
    assert (work.steps, work.drawn, work.validated) == (steps, 1000 * drawn, 1000 * validated)


def test_the_papers_grid_is_630_runs_and_every_part_has_a_plan():
    synthetic = paper(mitigation=["none", "moddrop"], seeds=[0, 1, 2])
    real = synthetic.model_copy(update={"mitigation": ["none"]})
    parts = [part_of(synthetic, d, r) for d in ("missing", "share", "unique", "synergy") for r in REGIMES]
    parts += [part_of(real, d, r) for d in ("food101", "mimic") for r in REGIMES]
    assert [len(part.runs) for part in parts] == [42] * 12 + [21] * 6
    assert sum(len(part.runs) for part in parts) == 630
    for part in parts:
        rounds = part.setting.budget.rounds
        # A start set has two models: with dropout for BALD, without for the others.
        assert part.work.trainings == len(part.runs) * (rounds - 1) + 2 * len(part.runs) // 7
        assert 0 < part.work.steps < part.work.drawn
        assert part.left == part.work


@pytest.mark.parametrize("labelled", [1, 15, 16, 17, 33])
@pytest.mark.parametrize("least", [0, 16, 40])
@pytest.mark.parametrize(("balanced", "drop_last"), [(False, False), (True, False), (False, True)])
def test_steps_and_draws_are_those_of_epoch_batches(labelled, least, balanced, drop_last):
    params = load_params(ROOT / "params.yaml")
    setting = params.setting("missing", "low")
    shared = setting.training.model_copy(
        update={"min_samples_per_epoch": least, "validate_from": 0.3, "drop_last": drop_last}
    )
    recipe = setting.recipe.model_copy(update={"epochs": 7, "batch_size": 16, "class_balanced": balanced})
    run = batches.Recipe(**recipe.model_dump(exclude={"projection_dropout"}), **shared.model_dump())
    rng, y_L = torch.Generator().manual_seed(0), torch.arange(labelled) % 2
    drawn = [rows_B for _ in range(7) for rows_B in batches.epoch_batches(y_L, run, rng)]
    work = training_work(replace(setting, recipe=recipe, training=shared), labelled)
    assert (work.steps, work.drawn) == (len(drawn), sum(map(len, drawn)))
    assert work.validated == 5 * setting.budget.validation  # epochs 3 .. 7 of 7: from 2.1 on


def test_the_summary_loads_no_torch():
    code = (
        "import sys; from mindgap.core.params import load_params; "
        "from mindgap.engine.plan import summary_line; "
        "print(summary_line(load_params())); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(
        "42 runs at scale tiny: 174 trainings, 20,640 steps, 1.0 M training samples"
    )


def test_too_few_samples_for_the_budget_are_named():
    raw = small()
    raw["scales"]["tiny"]["prepare"]["share"]["train_size"] = 50
    with pytest.raises(PlanError, match=r"share has 50 training samples, but share-low .* needs 60: lower"):
        part_of(Params.model_validate(tuples(raw)), "share", "low")


def tuples(raw: dict) -> dict:
    for scale in raw["scales"].values():
        scale["render"] |= {key: tuple(scale["render"][key]) for key in ("erase", "half_width")}
    return raw


def test_a_dataset_of_unknown_shape_has_to_be_prepared(monkeypatch):
    monkeypatch.delitem(sys.modules["mindgap.engine.layout"].EXPECTED, "share")
    with pytest.raises(
        LayoutError, match="share: its shapes are known once it is prepared: `mindgap prepare"
    ):
        expected_layout(paper(), "share")


# -- what real stages do


class Counted:
    """Rows that pass through the real functions of a sweep in this process."""

    def __init__(self, monkeypatch):
        self.drawn = self.validated = self.tested = self.queried = self.passes = 0
        epoch, encode = batches.epoch_batches, evaluation.encode

        def epoch_batches(*args):
            for rows in epoch(*args):
                self.drawn += len(rows)
                yield rows

        def counting(name):
            def counted(model, split, ids=None):
                self.passes += 1
                setattr(self, name, getattr(self, name) + (len(split) if ids is None else len(ids)))
                return encode(model, split, ids)

            return counted

        monkeypatch.setattr(batches, "epoch_batches", epoch_batches)
        monkeypatch.setattr(training, "encode", counting("validated"))
        monkeypatch.setattr(evaluation, "encode", counting("tested"))
        monkeypatch.setattr(loop, "encode", counting("queried"))

    def work(self, store: Path) -> Work:
        """With trainings and steps from the records: a run's first round is its initial model's."""
        records = [json.loads(path.read_text()) for path in store.glob("*/round_*.json")]
        own = [r["fit"]["steps"] for r in records if r["round"] or r["cell"]["query"] is None]
        counts = (self.drawn, self.passes, self.validated, self.tested, self.queried)
        return Work(len(own), sum(own), *counts)


def run_stages(params: Params) -> None:
    for regime in params.regime:
        train_stage(params, "missing", regime)
        acquire_stage(params, "missing", regime)


@pytest.mark.parametrize(
    ("dropout_for", "query", "mitigation"),
    [
        ("all", list(METHODS), ["moddrop"]),
        ("bald_only", ["bald", "random"], ["moddrop"]),
        ("all", ["random"], ["coteach"]),
    ],
)
def test_the_plan_counts_what_every_method_does(
    project, tmp_path, monkeypatch, dropout_for, query, mitigation
):
    scales = small()["scales"]
    scales["tiny"]["model"]["head_dropout_for"] = dropout_for
    params = params_in(project, query=query, mitigation=mitigation, seeds=[0], scales=scales)
    planned = make_plan(params, measure=False)
    counted = Counted(monkeypatch)
    run_stages(params)
    (estimate,) = planned.estimates
    assert estimate.part.work == estimate.part.left == counted.work(tmp_path / "store")
    (after,) = make_plan(params, measure=False).estimates
    assert after.part.work == estimate.part.work
    assert (after.part.left, after.part.finished_runs) == (Work(), len(query))


@pytest.mark.parametrize(
    ("mitigation", "dropout_for"), [("none", "all"), ("moddrop", "all"), ("moddrop", "bald_only")]
)
def test_the_plan_counts_a_search_whose_winner_may_be_an_initial_model(
    project, tmp_path, monkeypatch, mitigation, dropout_for
):
    scales = small()["scales"]
    scales["tiny"]["model"]["head_dropout_for"] = dropout_for
    search = {"method": "halving", "learning_rate": [0.05, 0.01], "weight_decay": [5e-4], "factor": 2}
    search = {**RAW["search"], **search, "augmentation": ["basic"], "mitigation": mitigation}
    params = params_in(project, query=["random"], search=search, scales=scales)
    (before,) = make_plan(params, measure=False).estimates
    assert len(before.part.search) == 3
    counted = Counted(monkeypatch)
    run_stages(params)
    assert before.part.work == counted.work(tmp_path / "store")
    (after,) = make_plan(params, measure=False).estimates
    assert (after.part.work, after.part.left, after.part.finished_runs) == (before.part.work, Work(), 2)
    assert after.actual.seconds == math.fsum(own_seconds(tmp_path / "store"))
    assert any(
        line.startswith("A search is counted whole") for line in remarks(make_plan(params, measure=False))
    )


@pytest.fixture(scope="module")
def swept(prepared, tmp_path_factory) -> dict:
    """A project whose runs are finished, with its store and the processor's seconds of its trainings."""
    folder = tmp_path_factory.mktemp("swept")
    shutil.copytree(prepared, folder / "project")
    spent = []

    def timed(function):
        def call(*args, **kwargs):
            begin = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent.append(time.process_time() - begin)

        return call

    def timed_turns(function):
        def call(*args):
            take = timed(function(*args).send)
            while True:
                try:
                    turn = take(None)
                except StopIteration as end:
                    return end.value
                yield turn

        return call

    before = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "fit_in_turns", timed_turns(loop.fit_in_turns))
        patch.setattr(loop, "evaluate", timed(loop.evaluate))
        patch.setenv("MINDGAP_STORE", str(folder / "store"))
        patch.setenv("MINDGAP_WORKERS", "1")
        os.chdir(folder / "project")
        run_stages(params_in(folder / "project"))
        os.chdir(before)
    return {"folder": folder, "seconds": sum(spent)}


@pytest.fixture
def done(swept, tmp_path, monkeypatch) -> Path:
    """A copy of the finished project as the working folder, with a store of its own."""
    shutil.copytree(swept["folder"], tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy" / "project")
    monkeypatch.setenv("MINDGAP_STORE", str(tmp_path / "copy" / "store"))
    monkeypatch.setenv("MINDGAP_WORKERS", "1")
    return Path.cwd()


def test_only_what_the_store_lacks_is_left(done):
    (part,) = [e.part for e in make_plan(params_in(done), measure=False).estimates]
    assert (part.finished_runs, part.left) == (4, Work())
    longer = params_in(done, query=["random", "badge", "entropy"])
    (part,) = [e.part for e in make_plan(longer, measure=False).estimates]
    assert (part.finished_runs, part.left.trainings) == (4, 2 * 2)
    sorted((done.parent / "store").glob("*/round_002.json"))[0].unlink()
    (part,) = [e.part for e in make_plan(params_in(done), measure=False).estimates]
    assert (part.finished_runs, part.left.trainings, part.left.queried) == (3, 1, 0)
    shutil.rmtree(done.parent / "store")
    (part,) = [e.part for e in make_plan(params_in(done), measure=False).estimates]
    assert (part.finished_runs, part.left) == (0, part.work)


def own_seconds(store: Path) -> list[float]:
    """Of the records in a store: a run's first round repeats those of its initial model."""
    records = [json.loads(path.read_text()) for path in store.glob("*/round_*.json")]
    return [
        seconds
        for record in records
        for what, seconds in record["seconds"].items()
        if what == "query" or record["round"] or record["cell"]["query"] is None
    ]


def test_what_finished_rounds_took_is_what_their_records_say(done):
    plan = make_plan(params_in(done), measure=False)
    (estimate,) = plan.estimates
    spent = own_seconds(done.parent / "store")
    assert len(spent) == 2 * 2 + 4 * (2 * 2 + 2)
    assert estimate.actual.seconds == math.fsum(spent)
    assert estimate.actual.rounds == {"cpu": 2 + 4 * 3}
    assert (estimate.actual.planned, estimate.actual.ratio) == (None, None)
    written = as_json(plan)["parts"][0]["actual"]
    assert written["seconds"] == as_json(plan)["total"]["actual"]["seconds"] == math.fsum(spent)
    assert sorted(written["seconds_by_part"]) == ["evaluate", "fit", "query"]
    assert math.fsum(written["seconds_by_part"].values()) == pytest.approx(math.fsum(spent))
    assert cost_rows(plan)[0][-1] == "took"
    assert cost_rows(plan)[1][-1] == time_text(math.fsum(spent))


def test_the_plan_of_finished_rounds_is_beside_what_they_took(done, monkeypatch, capsys):
    monkeypatch.setenv("MINDGAP_DEVICES", "cpu")
    plan = make_plan(params_in(done))
    (estimate,) = plan.estimates
    whole = estimate.actual.planned
    assert as_json(plan)["parts"][0]["actual"]["ratio"] == whole / math.fsum(
        own_seconds(done.parent / "store")
    )
    assert cost_rows(plan)[0][-3:] == ("planned", "took", "ratio")
    assert cost_rows(plan)[1][-1] == f"{estimate.actual.ratio:.2f}"
    assert sum("finished rounds, added up over all runs" in one for one in remarks(plan)) == 1
    assert not any("other devices" in one for one in remarks(plan))
    elsewhere = remarks(replace(plan, device_name="NVIDIA H200"))
    assert any("other devices made 14 on cpu; speeds are those of NVIDIA H200" in one for one in elsewhere)
    monkeypatch.setenv("MINDGAP_EXECUTOR", "ray")
    assert any("as if all ran on this machine" in one for one in remarks(plan))
    monkeypatch.delenv("MINDGAP_EXECUTOR")
    # Half of a run: what it lacks is in neither.
    sorted((done.parent / "store").glob("*/round_002.json"))[0].unlink()
    (after,) = make_plan(params_in(done), measure=False).estimates
    assert after.actual.seconds == math.fsum(own_seconds(done.parent / "store")) < estimate.actual.seconds


def test_nothing_finished_is_no_column(project):
    plan = make_plan(params_in(project), measure=False)
    assert as_json(plan)["parts"][0]["actual"] is None
    assert not {"planned", "took", "ratio"} & set(cost_rows(plan)[0])
    assert not any("finished rounds" in one for one in remarks(plan))


def test_a_part_without_anything_finished_has_dashes(done):
    plan = make_plan(params_in(done), ["missing", "mimic"], measure=False)
    assert [row[-1] for row in cost_rows(plan)] == [
        "took",
        *[cost_rows(plan)[1][-1], "-"],
        cost_rows(plan)[1][-1],
    ]


def test_planned_is_the_sum_of_finished_rounds_by_their_mitigation():
    params = paper(query=["random"], seeds=[0], mitigation=["none", "moddrop"])
    search = params.search.model_copy(update={"method": "grid", "learning_rate": [0.1, 0.01]})
    params = params.model_copy(update={"search": search})
    took = Taken({"fit": 3.0, "evaluate": 1.0}, "cpu")
    finished = Finished(
        [(took,), ()],  # the second trial diverged
        {
            Name("moddrop", 0, True): (took,),
            Name("none", 0, False): (took,),
            Name("none", 0, False, "random"): (took, took),
        },
    )
    layout = expected_layout(params, "missing")
    part = plan_part(params, "missing", "low", layout, NO_LOOKS, finished)
    speeds = {
        name: Speed(0.0, Line(s, 0.0), Line(0.0, 0.0), Line(0.0, 0.0))
        for name, s in (("none", 1.0), ("moddrop", 10.0))
    }
    done = actual(part, speeds)
    # A trial and the initial model with ModDrop, 60 steps each; the plain one is the search's. A run's second
    # round has 60 steps, its first none.
    assert done.planned == 60 + 600 + 60
    assert (done.seconds, done.rounds) == (4 * 4.0, {"cpu": 4})
    assert [job.finished for job in part.search[:3]] == [1, 1, 0]
    assert (done + done).ratio == done.ratio == 720 / 16
    assert (done + actual(part, None)).ratio is None


def test_a_dataset_of_other_parameters_has_nothing_finished(done):
    raw = small()
    raw["scales"]["tiny"]["render"]["root_seed"] = 1
    (done / "params.yaml").write_text(yaml.safe_dump(raw))
    plan = make_plan(load_params(), measure=False)
    assert plan.absent == {"missing": "prepared with other parameters"}
    assert plan.estimates[0].part.finished_runs == 0
    assert "missing: prepared with other parameters, so all of it is counted as to do." in remarks(plan)


def test_disk_is_within_a_factor_of_two(done):
    plan, where = make_plan(params_in(done), measure=False), places("missing")
    assert plan.disk.cache == plan.disk.prepared + plan.disk.models + plan.disk.records
    for size, folder in (
        (plan.disk.prepared, where.prepared),
        (plan.disk.models, where.models),
        (plan.disk.records, where.runs),
        (plan.disk.store, done.parent / "store"),
    ):
        there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        assert there / 2 < size < there * 2, folder


def test_a_dataset_from_outside_is_known_by_its_settings(project, tmp_path, monkeypatch):
    monkeypatch.setenv("MINDGAP_RAW_SHARE", str(share_raw(tmp_path / "raw", per_class=40)))
    params = params_in(project, dataset=["share"], query=["random"], seeds=[0])
    expected = make_plan(params, measure=False)
    assert expected.absent == {"share": "not prepared yet"}
    prepare_stage(params, "share")
    plan = make_plan(params, measure=False)
    assert plan.absent == {}
    assert plan.layouts["share"].modalities["cifar10"] == expected.layouts["share"].modalities["cifar10"]
    assert {name: m.shape for name, m in plan.layouts["share"].modalities.items()} == {
        name: m.shape for name, m in expected.layouts["share"].modalities.items()
    }
    assert plan.estimates[0].part.work == expected.estimates[0].part.work


def test_a_skipped_dataset_says_so(project, monkeypatch):
    monkeypatch.setenv("MINDGAP_OFFLINE", "1")
    params = params_in(project, dataset=["share"])
    prepare_stage(params, "share")
    assert make_plan(params, measure=False).absent == {"share": "skipped for want of its files"}


# -- seconds


def test_a_line_goes_through_two_sizes():
    asked = []

    def measure(rows: int) -> float:
        asked.append(rows)
        return 0.25 + 0.5 * rows

    assert line(measure, 2, 64) == Line(0.25, 0.5)
    assert sorted(asked) == [2, 64]
    assert line(measure, 8, 8) == Line(0.0, 4.25 / 8)
    assert line(lambda rows: 1 / rows, 2, 64) == Line(0.0, 1 / 64**2)  # more rows in less time: noise


@pytest.mark.parametrize(
    ("durations", "workers", "end"), [([3, 2, 2], 2, 4), ([1] * 7, 3, 3), ([5], 8, 5), ([4, 1, 1, 1], 2, 4)]
)
def test_jobs_go_to_whichever_worker_is_free(durations, workers, end):
    assert makespan(durations, workers) == end


def test_seconds_of_a_part():
    part = part_of(paper(query=["random", "badge"], seeds=[0, 1], mitigation=["none"]), "missing", "low")
    speed = Speed(7.0, step=Line(1.0, 0.0), forward=Line(0.0, 0.0), test=Line(0.0, 0.0))
    later = (1560 - 60) * 2  # two runs; a seed has two initial models, with dropout and without
    assert part_seconds(part, {"none": speed}, 1) == (14 + 4 * 60 + 2 * later,) * 2
    assert part_seconds(part, {"none": speed}, 2) == (14 + 2 * 60 + later,) * 2
    assert part_seconds(part, {"none": speed}, 99) == (14 + 60 + later / 2,) * 2
    parts = Speed(0.0, Line(0.0, 1.0), Line(1.0, 0.0), Line(0.0, 2.0))
    assert parts.seconds(Work(drawn=3, passes=5, tested=7, validated=11)) == 3 + 5 + 14


def test_presence_is_that_of_the_dataset_and_of_the_mitigation():
    layout = expected_layout(load_params(ROOT / "params.yaml"), "missing")
    assert present_shares(layout) == pytest.approx((0.145, 0.945), abs=0.015)
    assert present_shares(layout, Mitigation()) == present_shares(layout)
    # Both are there in 9 %, of which a modality is left in five of eight; else the only one stays.
    left = present_shares(layout, MITIGATIONS["moddrop"](0.5))
    assert left == pytest.approx((0.09 * 0.625 + 0.055, 0.09 * 0.625 + 0.855), abs=0.015)


devices = pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
            ],
        ),
    ],
)


@devices
@pytest.mark.parametrize("dataset", ["missing", "share", "food101", "mimic", "trio"])
def test_every_kind_of_dataset_is_timed(device, dataset):
    params = Params.model_validate(tuples(small(dataset=[dataset])))
    torch.set_num_threads(2)
    state = torch.random.get_rng_state()
    with as_a_worker(device):
        assert torch.get_num_threads() == 1
        calibration = Calibration(device)
        layout, setting = expected_layout(params, dataset), params.setting(dataset, "low")
        speed = calibration.speed(layout, setting, "moddrop", {"rate": 0.5})
        assert calibration.speed(layout, setting, "moddrop", {"rate": 0.5}) == speed
    assert torch.get_num_threads() == 2
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.backends.cudnn.deterministic
    assert speed.start >= 0
    for one in (speed.step, speed.forward, speed.test):
        assert 0 < one.seconds(1, 16) < 10
    assert speed.step.seconds(1, 16) > speed.forward.seconds(1, 16)
    if not any(layout.absent):  # one measurement serves both, and a test predicts with each subset
        assert speed.test.seconds(1, 16) > speed.forward.seconds(1, 16)


def test_an_estimate_is_of_the_order_of_what_a_sweep_takes(done, swept, monkeypatch):
    monkeypatch.setenv("MINDGAP_DEVICES", "cpu")
    params = params_in(done)
    assert [e.seconds[1] for e in make_plan(params).estimates] == [0.0]
    shutil.rmtree(done.parent / "store")
    ((whole, left),) = [e.seconds for e in make_plan(params).estimates]
    assert whole == left
    assert swept["seconds"] / 4 < whole < swept["seconds"] * 4


# -- the command


def test_overrides_are_dvcs_own(project):
    params_in(project)
    params = overridden(["scale=paper", "params.yaml:dataset=[unique]", "scales.paper.training.momentum=0.5"])
    assert (params.scale, params.dataset) == ("paper", ["unique"])
    assert params.at_scale.training.momentum == 0.5
    assert params.query == ["random", "badge"]
    assert overridden([]) == load_params()
    assert load_params().scale == "tiny"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("foo=1", r"-S foo=1: Could not override 'foo'"),
        ("+foo=1", r"^params\.yaml with -S: foo: unknown parameter"),
        ("seeds=0,1", r"-S seeds=0,1: several values are several experiments"),
        ("query=[badge", r"-S query=\[badge: no viable alternative"),
        ("scale", r"-S scale: .*missing EQUAL"),
        ("loop.start=7", r"^params\.yaml with -S: loop\.start: "),
        ("dvc.yaml:a=1", r"parameters are in params\.yaml alone: leave dvc\.yaml: out"),
        ("../params.yaml:seeds=[3]", r"parameters are in params\.yaml alone: leave \.\./params\.yaml: out"),
        ("query=[bagde]", r"query: unknown 'bagde'; known"),
        ("dataset=[mimic]", r"'mimic' is credentialed"),
    ],
)
def test_a_wrong_override_says_what_is_wrong(project, change, message):
    params_in(project)
    with pytest.raises(ParamsError, match=message):
        plan_stage(overridden([change]), measure=False)


def run(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["mindgap", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return stop.value.code


def test_the_command_prints_a_table_and_writes_exact_numbers(project, monkeypatch, capsys):
    params = params_in(project)
    given = ["plan", "missing", "mimic", "--no-measure", "-S", "seeds=[0]", "--json", "plan.json"]
    assert run(monkeypatch, *given) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "scale tiny"
    assert shown[1].split()[:3] == ["runs", "finished", "trainings"]
    assert shown[2].split()[:6] == ["missing-low", "2", "0", "5", "5", "24"]
    assert [line.split()[0] for line in shown[3:5]] == ["mimic-low", "total"]
    assert len({len(line) for line in shown[1:5]}) == 1
    assert all(len(line) <= 110 for line in shown)
    assert any(line.startswith("mimic: not prepared yet") for line in shown)
    written = json.loads(Path("plan.json").read_text())
    one = params.model_copy(update={"seeds": [0]})
    assert written == json.loads(json.dumps(as_json(make_plan(one, ["missing", "mimic"], measure=False))))
    assert written["total"]["work"]["steps"] == sum(part["work"]["steps"] for part in written["parts"])
    assert written["total"]["seconds"] is None
    assert written["total"]["disk"]["total"] == sum(
        value for name, value in written["total"]["disk"].items() if name != "total"
    )
    assert run(monkeypatch, "plan", "missin") == 1
    assert "dataset: unknown 'missin'; known in mindgap.data.DATASETS: missing" in capsys.readouterr().err


def test_figures_are_readable():
    assert [count_text(n) for n in (0, 9_999, 10_000, 999_999, 1_234_567, 16_500_000, 2_600_000_000)] == [
        *("0", "9,999", "10.0 k", "1,000 k", "1.2 M", "16.5 M", "2.6 G")
    ]
    assert [time_text(s) for s in (0, 99, 600, 7_500, 200_000, 1e6)] == [
        *("0 s", "99 s", "10 min", "2 h 05 min", "2.3 days", "11.6 days")
    ]
    assert [bytes_text(b) for b in (2048, 5 * 2**20, 3 * 2**30 // 2)] == ["2 KiB", "5.0 MiB", "1.5 GiB"]
