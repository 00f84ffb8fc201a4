"""The plan of a selection: its counts against the paper's tables and against what real stages do."""

import json
import math
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from mindgap.base.errors import MindGapError, ParamsError
from mindgap.core import batches, evaluation, loop, training
from mindgap.core.loop import Cell
from mindgap.core.params import Params, load_params
from mindgap.core.recipe import Recipe
from mindgap.core.training import to_the_end
from mindgap.engine.calibration import Calibration, Line, Speed
from mindgap.engine.layout import LayoutError, check_sizes, expected_layout
from mindgap.engine.plan import Counting, Work, counted, imagined, total
from mindgap.parts.query import METHODS
from mindgap.parts.starts import STARTS, Start
from mindgap.stages import cli
from mindgap.stages.overrides import overridden
from mindgap.stages.paths import places
from mindgap.stages.plan import Jobs, Part, Plan, Planned, Taken, make_plan, makespan, plan_stage
from mindgap.stages.plan_table import (
    as_json,
    bytes_text,
    cost_rows,
    count_text,
    disk_of,
    numbers,
    remarks,
    runs_that_fit,
    time_text,
)
from mindgap.stages.prepare import prepare_stage
from mindgap.stages.runs import acquire_stage, cell_jobs, run_of, train_stage
from share_raw import share_raw
from small_project import RAW, ROOT, params_in, small

REGIMES = ["low", "mid", "high"]


def paper(**changes) -> Params:
    return load_params(ROOT / "params.yaml").model_copy(update={"scale": "paper", **changes})


def data_of(params: Params, dataset: str, regime: str):
    needed = params.setting(dataset, regime).budget.needed
    return imagined(dataset, expected_layout(params, dataset), needed)


def jobs_of(params: Params, dataset: str, regime: str) -> Jobs:
    return Jobs(params, data_of(params, dataset, regime), dataset, regime, there=False)


def work_of_one(params: Params, dataset: str, regime: str) -> Work:
    """A single run, with the initial model that it starts from."""
    data, cell = data_of(params, dataset, regime), Cell(dataset, regime, "none", 0, "random")
    runs = [run_of(params, one, data) for one in (replace(cell, query=None), cell)]
    return total(work for run in runs for work, _ in counted(run, data))


# -- counts


def test_missing_low_by_hand():
    """Table 6: 50, 100 .. 500 labels; Table 5: 60 epochs of batches of 128."""
    work = work_of_one(paper(), "missing", "low")
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
    work = work_of_one(paper(), dataset, regime)
    assert (work.steps, work.drawn, work.validated) == (steps, 1000 * drawn, 1000 * validated)


def test_the_papers_grid_is_630_runs():
    lists = {"missing": ["none", "moddrop"], "mimic": ["none"]}
    counts = []
    for name, mitigation in lists.items():
        params = paper(mitigation=mitigation, seeds=[0, 1, 2])
        counts.append(len(cell_jobs(params, data_of(params, name, "low"), name, "low", None, lambda _: None)))
    assert counts == [42, 21]
    assert 4 * len(REGIMES) * 42 + 2 * len(REGIMES) * 21 == 630


@pytest.mark.parametrize("dataset", ["missing", "mimic"])
def test_a_start_set_has_two_models(dataset):
    """With dropout for BALD, without for the others."""
    params = paper(query=["random", "bald"], mitigation=["none"], seeds=[0, 1])
    jobs = jobs_of(params, dataset, "low")
    assert [len(jobs.runs), len(jobs.initial), len(jobs.search)] == [4, 4, 0]
    work, rounds = total(total(job.rounds) for job in (*jobs.runs, *jobs.initial)), len(jobs.runs[0].rounds)
    assert work.trainings == 4 * (rounds - 1) + 4
    assert 0 < work.steps < work.drawn
    assert total(job.left for job in (*jobs.runs, *jobs.initial)) == work


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
    run = Recipe.of(recipe, shared)
    rng, y_L = torch.Generator().manual_seed(0), torch.arange(labelled) % 2
    drawn = [rows_B for _ in range(7) for rows_B in batches.epoch_batches(y_L, run, rng)]
    count, validation = Counting(), setting.budget.validation
    assert to_the_end(count.fit(None, None, y_L, range(validation), run)).steps == len(drawn)
    work = count.taken()
    assert (work.trainings, work.steps, work.drawn) == (1, len(drawn), sum(map(len, drawn)))
    assert work.validated == 5 * validation  # epochs 3 .. 7 of 7: from 2.1 on


def test_too_few_samples_for_the_budget_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw = small()
    raw["scales"]["tiny"]["prepare"]["share"]["train_size"] = 50
    params = Params.model_validate(tuples(raw | {"dataset": ["share"]}))
    with pytest.raises(LayoutError, match=r"share has 50 training samples, but share-low .* needs 60: lower"):
        check_sizes(params)
    with pytest.raises(LayoutError, match=r"raise train_size in scales\.tiny\.prepare\.share, and run"):
        make_plan(params, measure=False)


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


def test_a_plan_chooses_no_start_set_which_may_take_long(tmp_path, monkeypatch):
    def chosen(*_):
        raise AssertionError("it was asked")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(STARTS.ours, "slow", Start(chosen))
    starts = ("stratified", "slow")
    plans = [make_plan(params_in(tmp_path, loop={"start": start}), measure=False) for start in starts]
    assert len({part.work for plan in plans for part in plan.parts}) == 1


# -- what real stages do


class Real:
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
    (before,) = make_plan(params, measure=False).parts
    real = Real(monkeypatch)
    run_stages(params)
    assert before.work == before.left == real.work(tmp_path / "store")
    after = make_plan(params, measure=False)
    assert after.parts[0].work == before.work
    assert (after.parts[0].left, finished_runs(after)) == (Work(), len(query))


def finished_runs(plan: Plan) -> int:
    return numbers(plan.parts, 1)["finished_runs"]


def test_what_the_loop_looks_at_besides_is_counted(project, tmp_path, monkeypatch):
    """Whatever is added to the loop: here a hook that encodes labelled samples before a pick."""
    asked = loop.acquire

    def acquire(run, pool, view, records):
        assert len(view.labelled_tokens_LMD) == len(pool.labelled_ids)
        return asked(run, pool, view, records)

    params = params_in(project, query=["random"], seeds=[0])
    (before,) = make_plan(params, measure=False).parts
    monkeypatch.setattr(loop, "acquire", acquire)
    (part,) = make_plan(params, measure=False).parts
    assert (before.work.queried, part.work.queried) == (0, 20 + 30)
    real = Real(monkeypatch)
    run_stages(params)
    assert part.work == real.work(tmp_path / "store")


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
    (before,) = make_plan(params, measure=False).parts
    assert len(before.search) == 3
    real = Real(monkeypatch)
    run_stages(params)
    assert before.work == real.work(tmp_path / "store")
    plan = make_plan(params, measure=False)
    (after,) = plan.parts
    assert (after.work, after.left, finished_runs(plan)) == (before.work, Work(), 2)
    assert numbers([after], 1)["actual"]["seconds"] == math.fsum(own_seconds(tmp_path / "store"))
    assert any(line.startswith("A search is counted whole") for line in remarks(plan))
    # One recipe more, and the search may choose it.
    more = params.search.model_copy(update={"weight_decay": [5e-4, 5e-3], "method": "grid"})
    plan = make_plan(params.model_copy(update={"search": more}), measure=False)
    assert any(trial.finished for trial in plan.parts[0].search)
    assert finished_runs(plan) == 0


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

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "fit_in_turns", timed_turns(loop.fit_in_turns))
        patch.setattr(loop, "evaluate", timed(loop.evaluate))
        patch.setenv("MINDGAP_STORE", str(folder / "store"))
        patch.setenv("MINDGAP_WORKERS", "1")
        patch.chdir(folder / "project")
        run_stages(params_in(folder / "project"))
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
    def plan(**changes) -> tuple[int, Work]:
        made = make_plan(params_in(done, **changes), measure=False)
        return finished_runs(made), made.parts[0].left

    assert plan() == (4, Work())
    runs, left = plan(query=["random", "badge", "entropy"])
    assert (runs, left.trainings) == (4, 2 * 2)
    sorted((done.parent / "store").glob("*/round_002.json"))[0].unlink()
    runs, left = plan()
    assert (runs, left.trainings, left.queried) == (3, 1, 0)
    shutil.rmtree(done.parent / "store")
    made = make_plan(params_in(done), measure=False)
    assert (finished_runs(made), made.parts[0].left) == (0, made.parts[0].work)


def own_seconds(store: Path) -> list[float]:
    """Of the records in a store: a run's first round repeats those of its initial model."""
    records = [json.loads(path.read_text()) for path in store.glob("*/round_*.json")]
    return [
        seconds
        for record in records
        for what, seconds in record["seconds"].items()
        if what == "query" or record["round"] or record["cell"]["query"] is None
    ]


def test_a_plan_that_cannot_be_written_says_what_else_to_name(done):
    with pytest.raises(MindGapError, match=r"Is a directory\): move that folder away, or name another file"):
        plan_stage(params_in(done), measure=False, json_file=done)


def test_what_finished_rounds_took_is_what_their_records_say(done):
    plan = make_plan(params_in(done), measure=False)
    spent = own_seconds(done.parent / "store")
    assert len(spent) == 2 * 2 + 4 * (2 * 2 + 2)
    actual = as_json(plan)["parts"][0]["actual"]
    assert actual == as_json(plan)["total"]["actual"]
    assert actual["seconds"] == math.fsum(spent)
    assert actual["rounds"] == {"cpu": 2 + 4 * 3}
    assert (actual["planned"], actual["ratio"]) == (None, None)
    assert sorted(actual["seconds_by_part"]) == ["evaluate", "fit", "query"]
    assert math.fsum(actual["seconds_by_part"].values()) == pytest.approx(math.fsum(spent))
    assert cost_rows(plan)[0][-1] == "took"
    assert cost_rows(plan)[1][-1] == time_text(math.fsum(spent))


def test_the_plan_of_finished_rounds_is_beside_what_they_took(done, monkeypatch, capsys):
    monkeypatch.setenv("MINDGAP_DEVICES", "cpu")
    plan = make_plan(params_in(done))
    actual = as_json(plan)["parts"][0]["actual"]
    assert actual["ratio"] == actual["planned"] / math.fsum(own_seconds(done.parent / "store"))
    assert cost_rows(plan)[0][-3:] == ("planned", "took", "ratio")
    assert cost_rows(plan)[1][-1] == f"{actual['ratio']:.2f}"
    assert sum("finished rounds, added up over all runs" in one for one in remarks(plan)) == 1
    assert not any("other devices" in one for one in remarks(plan))
    elsewhere = remarks(replace(plan, device_name="NVIDIA H200"))
    assert any("other devices made 14 on cpu; speeds are those of NVIDIA H200" in one for one in elsewhere)
    monkeypatch.setenv("MINDGAP_EXECUTOR", "ray")
    assert any("as if all ran on this machine" in one for one in remarks(plan))
    monkeypatch.delenv("MINDGAP_EXECUTOR")
    # Half of a run: what it lacks is in neither.
    sorted((done.parent / "store").glob("*/round_002.json"))[0].unlink()
    after = as_json(make_plan(params_in(done), measure=False))["total"]["actual"]
    assert after["seconds"] == math.fsum(own_seconds(done.parent / "store")) < actual["seconds"]


def test_nothing_finished_is_no_column(project):
    torch.set_num_threads(2)
    plan = make_plan(params_in(project), measure=False)
    assert torch.get_num_threads() == 1  # what is counted is too small for more
    assert as_json(plan)["parts"][0]["actual"] is None
    assert not {"planned", "took", "ratio"} & set(cost_rows(plan)[0])
    assert not any("finished rounds, added up" in one for one in remarks(plan))


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
    jobs = jobs_of(params.model_copy(update={"search": search}), "missing", "low")
    took = Taken({"fit": 3.0, "evaluate": 1.0}, "cpu")

    def done(job: Planned, taken: int) -> Planned:
        return replace(job, finished=max(1, taken), taken=(took,) * taken)

    # The second trial diverged; of the initial models only those with dropout are not the search's.
    search = (done(jobs.search[0], 1), done(jobs.search[1], 0), *jobs.search[2:])
    plain, _, with_dropout, _ = (total(job.rounds) for job in jobs.initial)
    assert (plain.steps, with_dropout.steps) == (60, 60)
    assert [total(job.rounds).trainings for job in jobs.initial] == [1, 0, 1, 1]
    initial = (*jobs.initial[:2], done(jobs.initial[2], 1), jobs.initial[3])
    runs = (done(jobs.runs[0], 2), *jobs.runs[1:])
    speeds = {
        name: Speed(0.0, Line(s, 0.0), Line(0.0, 0.0), Line(0.0, 0.0))
        for name, s in (("none", 1.0), ("moddrop", 10.0))
    }
    part = Part("missing", "low", params.setting("missing", "low"), search, initial, runs, speeds=speeds)
    actual = numbers([part], 1)["actual"]
    # A trial and the initial model with ModDrop, 60 steps each. A run's second round has 60 steps, its first
    # none.
    assert actual["planned"] == 60 + 600 + 60
    assert (actual["seconds"], actual["rounds"]) == (4 * 4.0, {"cpu": 4})
    assert numbers([part, part], 1)["actual"]["ratio"] == actual["ratio"] == 720 / 16
    assert numbers([part, replace(part, speeds={})], 1)["actual"]["ratio"] is None


def test_a_dataset_of_other_parameters_has_nothing_finished(done):
    raw = small()
    raw["scales"]["tiny"]["render"]["root_seed"] = 1
    (done / "params.yaml").write_text(yaml.safe_dump(raw))
    plan = make_plan(load_params(), measure=False)
    assert plan.absent == {"missing": "prepared with other parameters"}
    assert finished_runs(plan) == 0
    assert "missing: prepared with other parameters, so all of it is counted as to do." in remarks(plan)


def test_disk_is_within_a_factor_of_two(done):
    plan, where = make_plan(params_in(done), measure=False), places("missing")
    disk = disk_of(plan)
    assert disk.cache == disk.prepared + disk.models + disk.records
    for size, folder in (
        (disk.prepared, where.prepared),
        (disk.models, where.models),
        (disk.records, where.runs),
        (disk.store, done.parent / "store"),
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
    assert plan.parts[0].work == expected.parts[0].work


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

    assert Line.through(measure, 2, 64) == Line(0.25, 0.5)
    assert sorted(asked) == [2, 64]
    assert Line.through(measure, 8, 8) == Line(0.0, 4.25 / 8)
    assert Line.through(lambda rows: 1 / rows, 2, 64) == Line(0.0, 1 / 64**2)  # more rows in less time: noise


@pytest.mark.parametrize(
    ("durations", "workers", "end"), [([3, 2, 2], 2, 4), ([1] * 7, 3, 3), ([5], 8, 5), ([4, 1, 1, 1], 2, 4)]
)
def test_jobs_go_to_whichever_worker_is_free(durations, workers, end):
    assert makespan(durations, workers) == end


def test_seconds_of_a_part():
    params = paper(query=["random", "badge"], seeds=[0, 1], mitigation=["none"])
    jobs = jobs_of(params, "missing", "low")
    speed = Speed(7.0, step=Line(1.0, 0.0), forward=Line(0.0, 0.0), test=Line(0.0, 0.0))
    groups = map(tuple, (jobs.search, jobs.initial, jobs.runs))
    part = Part("missing", "low", params.setting("missing", "low"), *groups, speeds={"none": speed})
    later = (1560 - 60) * 2  # two runs; a seed has two initial models, with dropout and without
    for workers, seconds in (
        (1, 14 + 4 * 60 + 2 * later),
        (2, 14 + 2 * 60 + later),
        (99, 14 + 60 + later / 2),
    ):
        assert [part.seconds(workers, left) for left in (False, True)] == [seconds] * 2
    parts = Speed(0.0, Line(0.0, 1.0), Line(1.0, 0.0), Line(0.0, 2.0))
    assert parts.seconds(Work(drawn=3, passes=5, tested=7, validated=11)) == 3 + 5 + 14


def test_presence_of_what_is_timed_is_that_of_the_dataset():
    data = imagined("missing", expected_layout(paper(), "missing"))
    assert data.train.present_NM.double().mean(dim=0).tolist() == pytest.approx((0.145, 0.945), abs=0.015)
    assert data.test.present_NM.all()


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
    state = torch.random.get_rng_state()
    calibration = Calibration(device)
    layout, setting = expected_layout(params, dataset), params.setting(dataset, "low")
    speeds, memory = calibration.speeds(layout, setting, {"moddrop": {"rate": 0.5}})
    assert calibration.speeds(layout, setting, {"moddrop": {"rate": 0.5}}) == (speeds, memory)
    speed = speeds["moddrop"]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert 2**20 < memory < 2**36
    assert speed.start >= 0
    for one in (speed.step, speed.forward, speed.test):
        assert 0 < one.seconds(1, 16) < 10
    assert speed.step.seconds(1, 16) > speed.forward.seconds(1, 16)
    if not any(layout.absent):  # one measurement serves both, and a test predicts with each subset
        assert speed.test.seconds(1, 16) > speed.forward.seconds(1, 16)


def test_an_estimate_is_of_the_order_of_what_a_sweep_takes(done, swept, monkeypatch):
    monkeypatch.setenv("MINDGAP_DEVICES", "cpu")
    params = params_in(done)
    assert numbers(make_plan(params).parts, 1)["seconds_left"] == 0.0
    shutil.rmtree(done.parent / "store")
    found = numbers(make_plan(params).parts, 1)
    whole, left = found["seconds"], found["seconds_left"]
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
    assert run(monkeypatch, "plan", "missing", "missing", "--no-measure") == 1
    assert "dataset: missing is listed twice" in capsys.readouterr().err


def test_a_plan_warns_when_more_runs_are_asked_for_than_fit(project):
    plan = make_plan(params_in(project), measure=False)
    assert cost_rows(plan)[0] == ("", "disk")
    assert (as_json(plan)["parts"][0]["memory"], as_json(plan)["parts"][0]["runs_that_fit"]) == (None, None)
    assert "Memory: not known, as nothing is measured; records of finished rounds will tell." in remarks(plan)
    small, large = (replace(plan.parts[0], memory=need) for need in (500, 1000))
    crowded = replace(plan, parts=[small, large], workers=5, capacity=3999, devices=("cpu",))
    assert [part["runs_that_fit"] for part in as_json(crowded)["parts"]] == [7, 3]
    assert [row[2] for row in cost_rows(crowded)[1:]] == ["0 KiB", "1 KiB", "1 KiB"]
    told = " ".join(remarks(crowded))
    assert "Memory: what this process held, with few samples, so at least that; records of" in told
    half = " ".join(remarks(replace(crowded, parts=[small, replace(large, recorded=True, regime="mid")])))
    assert "by the records of finished rounds. Memory of missing-low: what this process held" in half
    assert "In this machine's memory (4 KiB) fit 3 runs of missing-low, the largest." in told
    assert warning(crowded) == "5 runs at once are more than fit: set MINDGAP_WORKERS to 3 or less."
    assert warning(replace(crowded, workers=3)) == ""
    gpus = replace(crowded, workers=6, devices=("cuda:0", "cuda:1"), capacity=2000)
    assert warning(gpus) == "6 runs at once are more than fit: set MINDGAP_WORKERS to 4 or less."
    tight = warning(replace(gpus, capacity=999))
    assert tight.endswith("to 2 or less; even one is too large: lower its batch size.")


def warning(plan: Plan) -> str:
    return "".join(line.removeprefix("WARNING: ") for line in remarks(plan) if line.startswith("WARNING"))


def test_memory_is_what_finished_rounds_held(done):
    store = done.parent / "store"
    held = [json.loads(path.read_text())["peak_memory"] for path in store.glob("*/round_*.json")]
    assert all(2**26 < bytes < 2**36 for bytes in held)  # torch alone takes more than 64 MiB
    plan = make_plan(params_in(done), measure=False)
    assert (plan.parts[0].memory, plan.parts[0].recorded) == (max(held), True)
    assert not any("what this process held" in line for line in remarks(plan))
    assert runs_that_fit(plan, plan.parts) == plan.capacity // max(held)
    assert cost_rows(plan)[1][2] == bytes_text(max(held))


def test_figures_are_readable():
    assert [count_text(n) for n in (0, 9_999, 10_000, 999_999, 1_234_567, 16_500_000, 2_600_000_000)] == [
        *("0", "9,999", "10.0 k", "1,000 k", "1.2 M", "16.5 M", "2.6 G")
    ]
    assert [time_text(s) for s in (0, 99, 600, 7_500, 200_000, 1e6)] == [
        *("0 s", "99 s", "10 min", "2 h 05 min", "2.3 days", "11.6 days")
    ]
    assert [bytes_text(b) for b in (2048, 5 * 2**20, 3 * 2**30 // 2)] == ["2 KiB", "5.0 MiB", "1.5 GiB"]
