import dataclasses
import gc
from dataclasses import replace
from itertools import islice
from types import FunctionType, ModuleType

import numpy as np
import pytest
import torch

from mindgap.base.errors import MindGapError
from mindgap.base.gpu import Engine
from mindgap.base.view import PoolView
from mindgap.core.loop import (
    Cell,
    Run,
    initial_record,
    rounds,
    rounds_in_turns,
    start_and_validation_ids,
    warnings_of,
)
from mindgap.core.params import Budget, DatasetRecipe, Model, Setting, Training
from mindgap.data.dataset import Dataset
from mindgap.parts.query import METHODS
from mindgap.parts.query.contract import Method, QueryError
from mindgap.parts.starts.draws import by_class

SETTING = Setting(
    scale="tiny",
    dataset="blobs",
    regime="low",
    start="stratified",
    budget=Budget(initial=8, validation=16, acquisition=6, rounds=3),
    recipe=DatasetRecipe(
        epochs=2,
        batch_size=8,
        learning_rate=0.1,
        weight_decay=5e-4,
        augmentation="basic",
        class_balanced=False,
    ),
    training=Training(momentum=0.9, warmup_epochs=0.5, min_samples_per_epoch=16, validate_from=0.5),
    model=Model(
        encoder={"image": {"name": "tiny"}},
        fusion={"name": "transformer", "heads": 2, "feedforward": 16},
        width=16,
        head_dropout=0.25,
        absent="skip",
        min_present=2,
    ),
)


def run_of(query="random", mitigation="moddrop", seed=0, **changes) -> Run:
    cell = Cell("blobs", "low", mitigation, seed, query)
    return Run(
        cell, dataclasses.replace(SETTING, **changes), {}, {}, f"{query}-{mitigation}-{seed}", {"code": "x"}
    )


def initial_of(dataset, **cell):
    return initial_record(run_of(None, **cell), dataset)


def comparable(records) -> list[dict]:
    return [{k: v for k, v in r.items() if k not in ("seconds", "peak_memory", "sha256")} for r in records]


@pytest.mark.parametrize("n", [1, 7, 30])
def test_a_stratified_draw_takes_the_classes_in_turn(n):
    y = np.array([0] * 5 + [1] * 40 + [2] * 40)
    drawn = by_class(y, n, np.random.default_rng(0))
    counts = np.bincount(y[drawn], minlength=3)
    assert len(set(drawn.tolist())) == n == counts.sum()
    # A class that runs out (five samples of class 0) is made up for by the others.
    others = counts[1:]
    assert others.max() - others.min() <= 1
    assert counts[0] == 5 or abs(counts[0] - counts.max()) <= 1


def test_no_group_lies_on_both_sides_of_pool_and_validation(make_dataset):
    dataset = make_dataset(train=160)
    group_N = torch.arange(160) // 2  # pairs of admissions
    dataset = replace(dataset, train=replace(dataset.train, group_N=group_N))
    start, validation, set_aside = start_and_validation_ids(run_of(), dataset)
    assert set(validation) <= set(set_aside)
    mates = np.flatnonzero(np.isin(group_N, group_N[validation]))
    assert set_aside.tolist() == mates.tolist()
    assert len(set_aside) > len(validation)
    assert not set(start) & set(set_aside)
    assert len(validation) == 16
    lonely = replace(dataset, train=replace(dataset.train, group_N=torch.zeros(160, dtype=torch.int64)))
    with pytest.raises(MindGapError, match="of 160 training samples 0 are left beside the validation set"):
        start_and_validation_ids(run_of(), lonely)


def imbalanced(make_dataset, positives: int):
    """Two classes, so many positives among the 160 training samples, as many of each in the test set."""
    dataset = make_dataset(classes=2)
    return replace(dataset, train=replace(dataset.train, y_N=(torch.arange(160) < positives).long()))


def test_a_class_that_validation_and_start_use_up_is_told_by_the_numbers(make_dataset):
    # Validation takes 8 of each class: of 8 positives none is left, of 10 the start set takes the last two.
    message = (
        r"blobs-low-random-moddrop-0: no model can learn class 1 \(8 training samples: 8 set aside for "
        r"validation, 0 in the start set, 0 left to label\)\. Lower validation of "
        r"scales\.tiny\.budget\.blobs\.low"
    )
    with pytest.raises(MindGapError, match=message):
        start_and_validation_ids(run_of(), imbalanced(make_dataset, 8))
    with pytest.raises(MindGapError, match=r"class 1 \(0 training samples"):
        start_and_validation_ids(run_of(), imbalanced(make_dataset, 0))
    assert warnings_of(run_of(), imbalanced(make_dataset, 10)) == [
        "blobs-low, seed 0: no query can pick class 1 (10 training samples: 8 set aside for validation, 2 in "
        "the start set, 0 left to label)"
    ]
    assert warnings_of(run_of(), imbalanced(make_dataset, 16)) == [
        "blobs-low, seed 0: most samples are not for queries to pick in class 1 (16 training samples: 8 set "
        "aside for validation, 4 in the start set, 4 left to label)"
    ]
    assert warnings_of(run_of(), imbalanced(make_dataset, 60)) == []


def test_a_start_or_validation_set_too_small_for_all_classes_is_told(make_dataset):
    budget = Budget(initial=3, validation=2, acquisition=6, rounds=3)
    assert warnings_of(run_of(budget=budget), make_dataset()) == [
        "blobs-low, seed 0: initial: 3 samples show 3 of 4 classes",
        "blobs-low, seed 0: validation: 2 samples show 2 of 4 classes",
    ]


def test_a_random_start_that_misses_a_class_is_told(make_dataset):
    lines = warnings_of(run_of(start="random"), imbalanced(make_dataset, 18))
    assert lines == ["blobs-low, seed 0: initial: 8 samples show 1 of 2 classes"]


def test_a_test_set_without_a_class_stops_the_run(make_dataset):
    dataset = make_dataset()
    without = replace(dataset, test=dataset.test.select((dataset.test.y_N != 2).nonzero().squeeze(1)))
    with pytest.raises(MindGapError, match=r"the test set has no sample of class 2: balanced accuracy"):
        initial_record(run_of(None), without)


def test_methods_and_mitigations_of_one_seed_share_start_and_validation_sets(make_dataset):
    dataset = make_dataset()
    start, validation, set_aside = start_and_validation_ids(run_of(), dataset)
    assert set_aside.tolist() == validation.tolist()
    y = dataset.train.y_N.numpy()
    assert np.bincount(y[start]).tolist() == [2, 2, 2, 2]
    assert np.bincount(y[validation]).tolist() == [4, 4, 4, 4]
    assert not set(start) & set(validation)
    for other in (run_of("badge"), run_of(mitigation="none")):
        assert [a.tolist() for a in start_and_validation_ids(other, dataset)[:2]] == [
            start.tolist(),
            validation.tolist(),
        ]
    assert start_and_validation_ids(run_of(seed=1), dataset)[0].tolist() != start.tolist()
    random_start, same_validation, _ = start_and_validation_ids(run_of(start="random"), dataset)
    assert same_validation.tolist() == validation.tolist()
    assert len(random_start) == 8


@pytest.mark.parametrize("query", METHODS)
@pytest.mark.parametrize("modalities", [("a", "b"), ("a", "b", "c")])
def test_every_method_runs_the_whole_loop(make_dataset, query, modalities):
    dataset, run = make_dataset(modalities), run_of(query)
    initial, weights = initial_of(dataset)
    records = list(rounds(run, dataset, initial, weights))
    assert [r["round"] for r in records] == [0, 1, 2]
    assert [r["labelled"] for r in records] == [8, 14, 20]
    assert [len(r["acquired_ids"]) for r in records] == [6, 6, 0]
    assert records[0]["metrics"] == initial["metrics"]
    assert set(records[1]["seconds"]) == {"fit", "evaluate", "query"}
    labelled = records[0]["start_ids"] + [i for r in records for i in r["acquired_ids"]]
    assert len(set(labelled)) == 20
    assert not set(labelled) & set(start_and_validation_ids(run, dataset)[1].tolist())


@pytest.mark.parametrize("finished", [1, 2, 3])
def test_a_run_that_was_stopped_ends_as_an_uninterrupted_one(make_dataset, finished):
    dataset, run = make_dataset(), run_of("badge")
    initial, weights = initial_of(dataset)
    whole = list(rounds(run, dataset, initial, weights))
    stopped = list(islice(rounds(run, dataset, initial, weights), finished))
    torch.rand(3)
    rest = list(rounds(run, dataset, initial, weights, stopped))
    assert len(rest) == 3 - finished
    assert comparable(stopped + rest) == comparable(whole)


def spying(monkeypatch, look=lambda view: None, **kind) -> list[PoolView]:
    """The views that a method "spy" is given; it looks at something, and picks the first n."""
    views = []

    def spy(view, n):
        views.append(view)
        look(view)
        return torch.arange(n)

    monkeypatch.setitem(METHODS, "spy", Method(spy, **kind))
    return views


def test_ids_are_those_of_the_training_split_in_all_rounds(make_dataset, monkeypatch):
    dataset, views = make_dataset(), spying(monkeypatch)
    records = list(rounds(run_of("spy"), dataset, *initial_of(dataset)))
    assert len(views) == 2
    for view, record in zip(views, records, strict=False):
        assert record["acquired_ids"] == view.ids[:6].tolist()
        assert torch.equal(view.present_NM, dataset.train.present_NM[view.ids])
    assert views[1].ids.tolist() == views[0].ids[6:].tolist()


def test_the_validation_set_is_there_and_costs_nothing_where_nobody_looks(make_dataset, monkeypatch):
    dataset, views = make_dataset(), spying(monkeypatch)
    records = list(rounds(run_of("spy"), dataset, *initial_of(dataset)))
    assert not any("validation" in record or "state" in record for record in records)
    assert "query" not in records[-1]["seconds"]
    _, validation_ids, _ = start_and_validation_ids(run_of("spy"), dataset)
    for view in views:
        assert view.modalities == ("left", "right")
        assert not {"_raw_NMD", "metrics"} & set(vars(view.validation)), "it was encoded unasked"
        assert torch.equal(view.validation.y_N, dataset.train.y_N[validation_ids])
        assert torch.equal(view.validation.present_NM, dataset.train.present_NM[validation_ids])
    rows = dataset.train.select(torch.from_numpy(validation_ids))
    with torch.no_grad():
        logits = views[-1]._model.eval()(rows.x, rows.present_NM)
    assert torch.allclose(views[-1].validation.logits_NC, logits, atol=1e-5)


def test_metrics_on_the_validation_set_are_the_models_and_stay_in_the_history(make_dataset, monkeypatch):
    dataset = make_dataset()
    views = spying(monkeypatch, lambda view: view.round == 1 or view.validation.metrics)
    run = run_of("spy", budget=Budget(initial=8, validation=16, acquisition=6, rounds=5))
    initial = initial_of(dataset)
    first = list(islice(rounds(run, dataset, *initial), 2))
    records = [*first, *rounds(run, dataset, *initial, first)]
    assert [round for round, record in enumerate(records) if "validation" in record] == [0, 2, 3]
    assert [list(view.history) for view in views] == [[], [0], [0], [0, 2]]
    assert views[3].history[2] == views[2].validation.metrics
    seen = views[3].validation
    for m, name in enumerate(("left", "right")):
        found, rows_N = seen.metrics[name], seen.present_NM[:, m]
        probs_NC = seen.probs_with(torch.arange(2) == m)[rows_N].double()
        y_N = seen.y_N[rows_N]
        assert found.n == rows_N.sum()
        assert found.accuracy == pytest.approx((probs_NC.argmax(1) == y_N).double().mean().item())
        assert found.nll == pytest.approx(torch.nn.functional.nll_loss(probs_NC.log(), y_N).item(), rel=1e-5)
    # By it the training chose its weights: each sample with the modalities that it has.
    assert seen.metrics["left+right"].balanced_accuracy == pytest.approx(records[3]["fit"]["best_validation"])


def test_a_subset_that_no_validation_sample_has_is_left_out(make_dataset, monkeypatch):
    dataset = make_dataset()
    _, validation_ids, _ = start_and_validation_ids(run_of("spy"), dataset)
    present_NM = dataset.train.present_NM.clone()
    present_NM[validation_ids] = torch.tensor([False, True])
    dataset = replace(dataset, train=replace(dataset.train, present_NM=present_NM))
    views = spying(monkeypatch, lambda view: view.validation.metrics)
    records = list(rounds(run_of("spy"), dataset, *initial_of(dataset)))
    assert list(views[1].history[0]) == list(records[0]["validation"]) == ["right", "left+right"]


def within(thing, seen: dict) -> dict:
    """All that can be reached from an object: attributes, parts, what a function closes over."""
    if id(thing) not in seen and not isinstance(thing, type | ModuleType):
        seen[id(thing)] = thing
        of_function = isinstance(thing, FunctionType)
        left = [thing.__closure__, thing.__defaults__] if of_function else gc.get_referents(thing)
        for one in left:
            within(one, seen)
    return seen


def test_no_way_leads_from_a_view_to_the_test_set(make_dataset, monkeypatch):
    dataset, views = make_dataset(), spying(monkeypatch, lambda view: view.validation.metrics, oracle=True)
    records = list(rounds(run_of("spy"), dataset, *initial_of(dataset)))
    found = within(views[1], {})
    test, train = (
        {x.data_ptr() for x in (s.y_N, s.present_NM, *s.x.values())} for s in (dataset.test, dataset.train)
    )
    reached = {one.data_ptr() for one in found.values() if isinstance(one, torch.Tensor)}
    assert train <= reached, "what a view encodes is found in this way"
    assert not test & reached
    assert not any(isinstance(one, Dataset) for one in found.values())
    assert not any(value == records[1]["metrics"] for value in found.values())


def test_only_an_oracle_sees_the_labels_of_the_pool(make_dataset, monkeypatch):
    seen = {}

    def spy(view, n):
        seen[view.oracle_y_N is None] = True
        return torch.arange(n)

    dataset = make_dataset()
    initial, weights = initial_of(dataset)
    for name, oracle in (("blind", False), ("seeing", True)):
        monkeypatch.setitem(METHODS, name, Method(spy, oracle=oracle))
        seen.clear()
        list(rounds(run_of(name), dataset, initial, weights))
        assert seen == {not oracle: True}


def test_a_plug_in_that_returns_duplicates_stops_and_loses_nothing(make_dataset, monkeypatch):
    def stuttering(view, n):
        return torch.zeros(n, dtype=torch.long) if view.round == 1 else torch.arange(n)

    monkeypatch.setitem(METHODS, "stuttering", Method(stuttering))
    dataset = make_dataset()
    initial, weights = initial_of(dataset)
    records = []
    with pytest.raises(QueryError, match=r"'stuttering' returned 1 positions more than once: \[0\]"):
        records.extend(rounds(run_of("stuttering"), dataset, initial, weights))
    assert [r["round"] for r in records] == [0]
    monkeypatch.setitem(METHODS, "stuttering", Method(lambda view, n: torch.arange(n)))
    assert len(list(rounds(run_of("stuttering"), dataset, initial, weights, records))) == 2


def test_runs_give_the_same_bits_in_turns_and_alone(make_dataset):
    """Several runs in one thread, a step of each in turn: none depends on who runs beside it."""
    dataset, queries = make_dataset(), ("badge", "bald", "random")
    initial, weights = initial_of(dataset)
    alone = {query: list(rounds(run_of(query), dataset, initial, weights)) for query in queries}
    together = {query: [] for query in queries}
    waiting = {
        query: rounds_in_turns(run_of(query), dataset, initial, weights, (), Engine.of("cpu"))
        for query in queries
    }
    order = []
    while waiting:
        for query, turns in list(waiting.items()):
            turn = next(turns, "over")
            order.append(query)
            if turn == "over":
                del waiting[query]
            elif turn is not None:
                together[query].append(turn)
    assert len(order) > 3 * len(queries) * 4
    assert {query: comparable(records) for query, records in together.items()} == {
        query: comparable(records) for query, records in alone.items()
    }


def test_mitigations_are_paired_in_all_but_what_they_do(make_dataset):
    dataset = make_dataset()
    none, _ = initial_of(dataset, mitigation="none")
    moddrop, _ = initial_of(dataset, mitigation="moddrop")
    assert none["start_ids"] == moddrop["start_ids"]
    assert none["metrics"] != moddrop["metrics"]


@pytest.mark.gpu
def test_a_run_on_a_gpu_is_repeated_bit_for_bit(make_dataset):
    dataset, run = make_dataset().to("cuda"), run_of("badge")
    initial, weights = initial_of(dataset)
    one, two = (list(rounds(run, dataset, initial, weights)) for _ in range(2))
    assert comparable(one) == comparable(two)
