"""The search for a recipe: what is tried, what wins, and that its winner is what the runs are made with."""

import csv
import json
import math
from pathlib import Path

import pytest
import yaml

from mindgap.base.errors import MindGapError, ParamsError
from mindgap.core.check import check_params
from mindgap.core.params import Setting, load_params
from mindgap.core.search import DIVERGED, Search, candidates, choose_recipe, rungs
from mindgap.stages.paths import CURVES, places
from mindgap.stages.runs import acquire_stage, train_stage
from small_project import RAW, small

SEARCH = Search(**RAW["search"])
MODELS = places("missing").models / "missing-low"
TABLE = places("missing").search / "missing-low.csv"


def searching(folder: Path, method: str, **changes):
    """Small parameters with a search in them."""
    raw = small(query=["random"])
    raw["search"] |= {"method": method, "learning_rate": [0.1, 0.001], "augmentation": ["none", "basic"]}
    raw["search"] |= {"weight_decay": [5e-4], **changes}
    (folder / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    return load_params(folder / "params.yaml")


def of(search: Search, **changes) -> Search:
    return search.model_copy(update=changes)


def setting():
    return load_params(Path(__file__).parents[1] / "params.yaml").setting("missing", "low")


def trials() -> list[dict]:
    return list(csv.DictReader(TABLE.read_text().splitlines()))


def test_the_papers_grid_has_twelve_recipes_and_six_where_nothing_is_an_image():
    recipes = candidates(SEARCH, setting().recipe, has_images=True)
    assert len({(r.learning_rate, r.weight_decay, r.augmentation) for r in recipes}) == 12
    assert {r.epochs for r in recipes} == {12}
    assert len(candidates(SEARCH, setting().recipe, has_images=False)) == 6


def tried(search: Search) -> list[Setting]:
    """The settings of all trainings of a search."""
    found = []
    choose_recipe(search, setting(), True, lambda one, _: found.append(one) or Tried(0.5), lambda jobs: None)
    return found


def test_halving_spends_half_of_the_grid():
    grid, halving = of(SEARCH, method="grid"), of(SEARCH, method="halving")
    assert rungs(grid, 12) == [(12, 1.0)]
    assert rungs(halving, 12) == [(12, 1 / 4), (3, 1.0)]
    assert rungs(of(halving, factor=3), 12) == [(12, 1 / 9), (4, 1 / 3), (1, 1.0)]
    assert rungs(halving, 2) == [(2, 1.0)]
    assert rungs(of(halving, factor=2), 8) == [(8, 1 / 8), (4, 1 / 4), (2, 1 / 2), (1, 1.0)]
    epochs = [sum(one.recipe.epochs for one in tried(s)) for s in (grid, halving)]
    assert epochs == [12 * 12, 12 * 3 + 3 * 12]


def test_a_short_trial_passes_through_the_whole_schedule():
    short = tried(of(SEARCH, method="halving", factor=3))[12]
    assert (short.recipe.epochs, short.training.warmup_epochs) == (4, 2 / 3)


class Tried:
    """A finished job whose validation score is given; None diverged."""

    def __init__(self, score: float | None):
        fit = {"best_validation": score, "steps": 5}
        self.result = lambda: [] if score is None else [{"fit": fit}]


def chosen(search, score_of) -> tuple:
    executed = []
    recipe, made = choose_recipe(
        search, setting(), True, lambda s, seed: Tried(score_of(s, seed)), executed.extend
    )
    return recipe, made, executed


def test_the_best_mean_over_seeds_wins_and_of_equals_the_first():
    def score(one, seed):
        return {0.1: 0.5, 0.01: 0.3 + 0.4 * seed, 0.001: 0.2}[one.recipe.learning_rate]

    grid = of(SEARCH, method="grid", seeds=[0, 1])
    recipe, made, executed = chosen(grid, score)
    assert len(executed) == 24
    assert recipe == candidates(grid, setting().recipe, True)[0]
    assert [t.validation for t in made[::4]] == [0.5, 0.5, 0.2]
    better = chosen(grid, lambda one, seed: score(one, seed) + 0.01 * (one.recipe.learning_rate == 0.01))
    assert better[0].learning_rate == 0.01


def test_halving_keeps_the_best_third_and_decides_by_the_last_rung():
    order = [r.model_dump() for r in candidates(SEARCH, setting().recipe, True)]

    def score(one, seed):
        place = order.index({**one.recipe.model_dump(), "epochs": 12})
        # The fourth best of the short trials is the best of the longer ones.
        return 0.95 if place == 8 and one.recipe.epochs > 1 else place / 12

    recipe, made, executed = chosen(of(SEARCH, method="halving", factor=3), score)
    assert [len([t for t in made if t.rung == rung]) for rung in range(3)] == [12, 4, 1]
    assert len(executed) == 17
    assert recipe.model_dump() == order[8]
    assert made[-1].epochs == 12


def test_what_diverges_is_out_and_when_all_do_the_search_says_so():
    recipe, made, _ = chosen(
        of(SEARCH, method="grid"), lambda one, seed: None if one.recipe.learning_rate == 0.1 else 0.4
    )
    assert recipe.learning_rate == 0.01
    assert [t.validation for t in made].count(DIVERGED) == 4
    with pytest.raises(
        MindGapError, match=r"all 12 trials diverged; add lower values to search\.learning_rate"
    ):
        chosen(of(SEARCH, method="halving"), lambda one, seed: None)


@pytest.mark.parametrize("method", ["grid", "halving"])
def test_the_runs_are_made_with_the_recipe_that_the_search_chose(project, method, capsys):
    params = searching(project, method, mitigation="moddrop")
    train_stage(params, "missing", "low")
    rows = trials()
    (best,) = [row for row in rows if row["chosen"] == "True"]
    last = [float(row["validation"]) for row in rows if row["rung"] == rows[-1]["rung"]]
    assert float(best["validation"]) == max(last)
    recipe = json.loads((MODELS / "recipe.json").read_text())["recipe"]
    assert recipe["learning_rate"] == float(best["learning_rate"])
    acquire_stage(params, "missing", "low")
    text = (places("missing").runs / "missing-low" / "records.jsonl").read_text()
    records = [json.loads(line) for line in text.splitlines()]
    assert {json.dumps(r["provenance"]["settings"]["setting"]["recipe"]) for r in records} == {
        json.dumps(recipe)
    }
    assert len(records) == 2 * 3
    # The winner, trained with the mitigation and seed of a run, is that run's initial model.
    assert "train missing-low: 2 runs, 1 finished before" in capsys.readouterr().out
    train_stage(params, "missing", "low")
    assert f"search missing-low: {len(rows) - (len(rows) > 4)} runs" in capsys.readouterr().out
    assert trials() == rows


@pytest.mark.parametrize(("dropout_for", "rate"), [("all", 0.25), ("bald_only", 0.0)])
def test_the_recipe_is_chosen_for_the_models_of_most_methods(project, dropout_for, rate):
    params = searching(project, "grid")
    model = params.at_scale.model.model_copy(update={"head_dropout_for": dropout_for})
    scale = params.at_scale.model_copy(update={"model": model})
    params = params.model_copy(update={"scales": {"tiny": scale}, "mitigation": ["none"]})
    assert params.search_setting("missing", "low").model.head_dropout == rate
    assert params.setting("missing", "low").model.head_dropout == 0.25
    train_stage(params, "missing", "low")
    records = [json.loads(path.read_text()) for path in MODELS.glob("none-0*.json")]
    best = max(float(row["validation"]) for row in trials())
    models = {r["provenance"]["settings"]["setting"]["model"]["head_dropout"]: r["fit"] for r in records}
    assert models[rate]["best_validation"] == best


def test_without_a_search_there_is_an_empty_table_and_no_recipe(project):
    params = searching(project, "none")
    train_stage(params, "missing", "low")
    assert trials() == []
    assert not (MODELS / "recipe.json").exists()
    with pytest.raises(MindGapError, match=r"recipe\.json is missing: .*repro -f -s train@missing-low`"):
        acquire_stage(searching(project, "grid"), "missing", "low")


def test_a_diverged_trial_is_written_down_and_not_tried_again(project, capsys):
    params = searching(project, "grid", learning_rate=[100.0, 0.001])
    train_stage(params, "missing", "low")
    rows = trials()
    assert [row["validation"] == "" for row in rows] == [float(row["learning_rate"]) == 100.0 for row in rows]
    capsys.readouterr()
    train_stage(params, "missing", "low")
    assert "search missing-low: 4 runs, 4 finished before, 0 begun" in capsys.readouterr().out


def bald_lines() -> list[str]:
    return [line for line in (CURVES / "missing-low.csv").read_text().splitlines() if ",bald," in line]


def test_dropout_may_be_of_bald_alone(project):
    raw = small(query=["random", "bald"], seeds=[0])
    raw["scales"]["tiny"]["model"]["head_dropout_for"] = "bald_only"
    (project / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    params = load_params(project / "params.yaml")
    train_stage(params, "missing", "low")
    acquire_stage(params, "missing", "low")
    text = (places("missing").runs / "missing-low" / "records.jsonl").read_text()
    records = [json.loads(line) for line in text.splitlines()]
    rates = {
        r["cell"]["query"]: r["provenance"]["settings"]["setting"]["model"]["head_dropout"] for r in records
    }
    assert rates == {"random": 0.0, "bald": 0.25}
    assert {p.stem for p in MODELS.glob("*.json")} == {"moddrop-0", "moddrop-0-no_dropout"}
    first = {r["cell"]["query"]: r for r in records if r["round"] == 0}
    assert first["random"]["start_ids"] == first["bald"]["start_ids"]
    assert first["random"]["fit"]["losses"] != first["bald"]["fit"]["losses"]
    # BALD's run is the one it would be beside methods that all have dropout.
    alone = bald_lines()
    raw["scales"]["tiny"]["model"]["head_dropout_for"] = "all"
    (project / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    train_stage(load_params(project / "params.yaml"), "missing", "low")
    acquire_stage(load_params(project / "params.yaml"), "missing", "low")
    assert bald_lines() == alone


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": [0.1, 0.1]}, r"search\.learning_rate: 0\.1 is listed twice"),
        ({"augmentation": ["basik"]}, r"search\.augmentation: unknown 'basik'; known in .*: .*basic"),
        ({"mitigation": "modrop"}, r"search\.mitigation: unknown 'modrop'"),
        ({"factor": 1}, r"search\.factor: .*greater than or equal to 2"),
        ({"learning_rate": [-0.1]}, r"search\.learning_rate\.0: .*greater than or equal to 0"),
        ({"seeds": []}, r"search\.seeds: .*at least 1"),
    ],
)
def test_a_search_that_cannot_be_made_is_refused(tmp_path, changes, message):
    with pytest.raises(ParamsError, match=message):
        check_params(searching(tmp_path, "grid", **changes))


def test_scores_are_finite_where_nothing_diverged(project):
    train_stage(searching(project, "halving"), "missing", "low")
    assert all(math.isfinite(float(row["validation"])) for row in trials())
