"""Start sets: drawn, or chosen without labels and without a model."""

import dataclasses

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

import mindgap
from mindgap.base.errors import ParamsError
from mindgap.base.modality import Modality
from mindgap.core.check import check_params
from mindgap.core.loop import initial_record, rounds, start_and_validation_ids, start_ids_of, warnings_of
from mindgap.parts.starts import STARTS
from mindgap.parts.starts.contract import Candidates, Start, StartError, check_start
from mindgap.parts.starts.typical import clusters_of, typical
from mindgap.stages.library import InputError
from mindgap.stages.runs import acquire_stage, train_stage
from small_project import params_in
from test_loop import run_of

# On a line: 0 is the most typical of these, by the mean distance to its four nearest.
AROUND = np.array([-8.0, -4, -2, -1, 0, 1, 2, 4, 8])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def candidates(x: dict, present_NM=None, kind: str = "table") -> Candidates:
    modalities = {name: Modality(kind, one.shape[1:]) for name, one in x.items()}
    there = np.ones((len(next(iter(x.values()))), len(x)), dtype=bool) if present_NM is None else present_NM
    return Candidates(modalities, there, lambda name, rows: x[name][rows])


def of_two(seed: int, size: int = 60) -> Candidates:
    """Tables of 2 and 3 columns in a few lumps; one in three samples lacks a modality, some the other."""
    draw = rng(seed)
    x = {
        name: (draw.integers(0, 3, (size, 1)) * 4 + draw.normal(size=(size, wide))).astype(np.float32)
        for name, wide in (("a", 2), ("b", 3))
    }
    present_NM = np.ones((size, 2), dtype=bool)
    present_NM[::3, 1] = False
    present_NM[1::7, 0] = False
    present_NM[~present_NM.any(axis=1), 0] = True
    return candidates(x, present_NM)


def test_the_most_typical_sample_of_each_cluster_of_each_modality():
    line = np.concatenate([AROUND - 1000, AROUND + 1000] * 2)[:, None].astype(np.float32)
    only_NM = np.repeat([[True, False], [False, True]], 18, axis=0)
    found = typical(candidates({"a": line, "b": line}, only_NM), 4, rng())
    assert sorted(found) == [4, 13, 22, 31]


def test_a_pick_counts_in_all_modalities_that_it_has():
    line = np.concatenate([AROUND - 1000, AROUND + 1000])[:, None].astype(np.float32)
    found = typical(candidates({"a": line, "b": line}), 4, rng())
    # Both modalities have the same two clusters: after two picks both are covered, then each gets a second.
    assert np.bincount(found // 9).tolist() == [2, 2]
    assert {4, 13} < set(found)


def plainly(given: Candidates, n: int, rng: np.random.Generator) -> set[int]:
    """The rule in plain loops, the clusters given."""
    clusters = []
    for one in clusters_of(given, n, rng):
        where = {int(row): r for r, row in enumerate(one.rows_R)}
        sets = [{row for row, r in where.items() if one.cluster_R[r] == c} for c in set(one.cluster_R)]
        clusters.append(([s for s in sets if len(s) > 5], {row: one.x_RD[r] for row, r in where.items()}))
    picked: set[int] = set()
    turns = [clusters[t] for t in rng.permutation(len(clusters))]
    while len(picked) < n:
        for sets, x in turns:
            left = [s for s in sets if s - picked]
            if len(picked) == n or not left:
                continue
            best = sorted(left, key=lambda s: (len(s & picked), -len(s)))[0] - picked
            mean = {}
            for row in sorted(best):
                away = sorted(np.sqrt(((x[row] - x[o]) ** 2).sum()) for o in best if o != row)
                near = min(20, len(best) // 2)
                mean[row] = sum(away[:near]) / near if near else 0.0
            picked.add(min(mean, key=mean.__getitem__))
    return picked


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n", [1, 5, 12])
def test_it_is_the_rule_in_plain_loops(seed, n):
    assert set(typical(of_two(seed), n, rng(seed))) == plainly(of_two(seed), n, rng(seed))


def test_ten_seeds_have_ten_start_sets_and_each_the_same_when_repeated(make_dataset):
    runs = [run_of(start="typical", seed=seed) for seed in range(10)]
    found = [tuple(start_and_validation_ids(run, make_dataset())[0]) for run in runs]
    assert len(set(found)) == 10
    with threadpool_limits(2):
        assert found == [tuple(start_and_validation_ids(run, make_dataset())[0]) for run in runs]


def test_neither_the_order_of_modalities_nor_what_stands_for_an_absent_one_matters():
    given = of_two(0)
    found = set(typical(given, 9, rng()))
    turned = dict(reversed(given.modalities.items()))
    assert set(typical(Candidates(turned, given.present_NM[:, ::-1], given.stored), 9, rng())) == found
    column = list(given.modalities)

    def spoilt(name: str, rows: np.ndarray) -> np.ndarray:
        absent_R = ~given.present_NM[rows, column.index(name)]
        return np.where(absent_R[:, None], 1e6, given.stored(name, rows))

    assert set(typical(dataclasses.replace(given, stored=spoilt), 9, rng())) == found


def test_a_sample_without_a_modality_covers_nothing_there():
    """One in ten has b; of a drawn set so many would, of this one half has it to cover b's clusters."""
    present_NM = np.ones((400, 2), dtype=bool)
    present_NM[np.arange(400) % 10 > 0, 1] = False
    x = {name: rng(m).normal(size=(400, 2)).astype(np.float32) for m, name in enumerate("ab")}
    found = typical(candidates(x, present_NM), 12, rng())
    assert present_NM[found, 1].sum() >= 6


def test_too_few_samples_for_clusters_are_drawn():
    given = of_two(0)
    rare = given.present_NM.copy()
    rare[5:, 1], rare[:, 0] = False, True  # five have b: too few for a cluster
    assert len(set(typical(dataclasses.replace(given, present_NM=rare), 60, rng()))) == 60
    few = candidates({"a": np.zeros((5, 2), dtype=np.float32)})
    assert len(set(typical(few, 3, rng()))) == 3


def lumps(kind: str) -> np.ndarray:
    """Samples of a kind: of three sorts, sample i of sort i % 3."""
    sort, draw = np.arange(60) % 3, rng(1)
    if kind == "tokens":  # most of the words are of the sort, and the text is padded
        word = draw.integers(0, 20, (60, 30)) + np.where(draw.random((60, 30)) < 0.2, 1, 900 * sort[:, None])
        return (word + 100).astype(np.int32) * (np.arange(30) < 24)
    shape = {"image": (8, 8, 3), "signal": (2, 40), "table": (70,)}[kind]
    level = sort.reshape(-1, *[1] * len(shape)) * 60 + 50 + draw.normal(0, 9, (60, *shape))
    dtypes = {"image": np.uint8, "signal": np.float16, "table": np.float32}
    return level.clip(0, 255).astype(dtypes[kind])


@pytest.mark.parametrize("kind", ["image", "tokens", "table", "signal"])
def test_each_kind_of_modality_is_told_apart_as_it_is_stored(kind):
    for seed in range(3):
        found = typical(candidates({"x": lumps(kind)}, kind=kind), 3, rng(seed))
        assert sorted(found % 3) == [0, 1, 2]


@pytest.mark.parametrize("kind", ["image", "tokens", "table", "signal"])
def test_samples_that_are_all_the_same_are_one_cluster(kind):
    same = np.repeat(lumps(kind)[:1], 20, axis=0)
    assert len(set(typical(candidates({"x": same}, kind=kind), 4, rng()))) == 4


def test_a_column_s_unit_does_not_matter():
    given = of_two(0)

    def smaller(name: str, rows: np.ndarray) -> np.ndarray:
        return given.stored(name, rows) * np.array([0.125, 1, 1])[: given.modalities[name].shape[0]]

    other = dataclasses.replace(given, stored=smaller)
    assert set(typical(other, 6, rng())) == set(typical(given, 6, rng()))


def test_only_the_stratified_start_is_told_labels(make_dataset):
    dataset, ids = make_dataset(), np.arange(20, 150)
    other = dataclasses.replace(
        dataset, train=dataclasses.replace(dataset.train, y_N=dataset.train.y_N.flip(0))
    )
    for start in STARTS:
        one, two = (start_ids_of(run_of(start=start), each, ids).tolist() for each in (dataset, other))
        assert (one == two) == (start != "stratified"), start
        assert len(set(one)) == 8
        assert set(one) <= set(ids)


# What these seeds have had since there are runs.
DRAWN = {
    ("stratified", 0): [16, 55, 62, 65, 68, 83, 96, 136],
    ("stratified", 1): [13, 20, 51, 58, 74, 89, 114, 139],
    ("random", 0): [23, 41, 55, 62, 68, 82, 83, 96],
    ("random", 1): [6, 13, 31, 51, 58, 74, 114, 139],
}


@pytest.mark.parametrize(("start", "seed"), DRAWN)
def test_drawn_start_sets_stay_what_they_were(make_dataset, start, seed):
    found, _, _ = start_and_validation_ids(run_of(start=start, seed=seed), make_dataset())
    assert found.tolist() == DRAWN[start, seed]


def test_all_methods_of_a_seed_start_from_what_was_chosen_once(make_dataset, monkeypatch):
    asked = []

    def chosen(given, n, rng):
        asked.append(given.oracle_y_N)
        return np.flatnonzero(given.present_NM.all(axis=1))[:n]

    monkeypatch.setitem(STARTS.ours, "whole", Start(chosen))
    dataset = make_dataset()
    initial, weights = initial_record(run_of(None, start="whole"), dataset)
    for query in ("random", "badge"):
        records = list(rounds(run_of(query, start="whole"), dataset, initial, weights))
        assert records[0]["start_ids"] == initial["start_ids"]
        assert dataset.train.present_NM[records[0]["start_ids"]].all()
        assert [r["labelled"] for r in records] == [8, 14, 20]
    assert asked == [None]


@pytest.mark.parametrize("start", STARTS)
def test_a_class_that_no_start_sample_shows_stops_no_run(make_dataset, start):
    dataset, setting = make_dataset(), run_of().setting
    budget = setting.budget.model_copy(update={"initial": 2, "rounds": 2})
    recipe = setting.recipe.model_copy(update={"class_balanced": True})
    run = run_of(start=start, budget=budget, recipe=recipe)
    assert any("initial: 2 samples show" in line for line in warnings_of(run, dataset))
    initial, weights = initial_record(
        dataclasses.replace(run, cell=dataclasses.replace(run.cell, query=None)), dataset
    )
    first, last = rounds(run, dataset, initial, weights)
    assert len(first["start_ids"]) == 2
    assert last["labelled"] == 8


WRONG = {
    "too few": ([0, 1], r"returned 2 positions, 3 were asked for"),
    "twice": ([0, 1, 1], "returned a position more than once"),
    "outside": ([0, 1, 9], r"returned positions outside 0\.\.8: \[9\]"),
    "ragged": ([0, [1, 2]], r"returned object of shape \(\), not a 1-d array of whole numbers"),
    "no numbers": ([0.0, 1.0, 2.0], r"returned float64 of shape \(3,\), not a 1-d array of whole numbers"),
}


@pytest.mark.parametrize(("rows", "reason"), WRONG.values(), ids=WRONG)
def test_what_a_start_returns_is_checked(rows, reason):
    with pytest.raises(StartError, match=f"start 'mine' {reason}: mend its code, or take another start"):
        check_start("mine", rows, 3, 9)
    assert check_start("mine", torch.tensor([4, 0, 2]), 3, 9).tolist() == [0, 2, 4]


def test_a_start_that_there_is_not_is_refused_with_those_that_there_are(tmp_path):
    with pytest.raises(
        ParamsError,
        match=r"loop\.start: unknown 'typcal'; known in .*\.STARTS: stratified, random, typical$",
    ):
        check_params(params_in(tmp_path, loop={"start": "typcal"}))


Y = np.arange(120) % 3
X = {"told": (np.eye(3)[Y] + rng().normal(0, 0.3, (120, 3))).astype(np.float32)}


def test_the_library_takes_a_start_by_name_or_as_a_function():
    seen = []

    def first_ones(given, n, rng):
        seen.append((len(given), given.oracle_y_N))
        return np.arange(n)

    short = {"labels": Y, "rounds": 2, "epochs": 2, "seeds": [0]}
    curves = {start: mindgap.run(X, "random", start=start, **short) for start in ("typical", first_ones)}
    assert len(curves["typical"]) == len(curves[first_ones]) == 2
    assert curves["typical"]["run"].unique().tolist() != curves[first_ones]["run"].unique().tolist()
    assert seen[0][1] is None
    assert "first_ones" not in STARTS
    with pytest.raises(ParamsError, match="start: unknown 'typcal'; known in mindgap"):
        mindgap.run(X, "random", start="typcal", **short)
    with pytest.raises(InputError, match=r"start: .*candidates, n and rng"):
        mindgap.run(X, "random", start=lambda given: given, **short)
    with pytest.raises(StartError, match=r"of whole numbers: mend its code, or take another start$"):
        mindgap.run(X, "random", start=lambda given, n, rng: np.arange(n) / 2, **short)


def test_a_project_runs_from_a_chosen_start(project):
    params = params_in(project, loop={"start": "typical"}, query=["random"], seeds=[0])
    train_stage(params, "missing", "low")
    acquire_stage(params, "missing", "low")
    assert (project / "reports/curves/missing-low.csv").exists()
