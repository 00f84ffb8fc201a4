"""Lessons of a mitigation between rounds, and coteach's own."""

import dataclasses
import json
import math

import pytest
import torch

from faulty import job_of
from mindgap.base.errors import MindGapError
from mindgap.base.view import weak_modality
from mindgap.core.batches import Batches
from mindgap.core.loop import lesson_of, rounds, start_and_validation_ids, taught, view_of
from mindgap.core.network import ModelSpec, build_model
from mindgap.core.pool import Pool
from mindgap.core.recipe import Recipe
from mindgap.core.records import unseal
from mindgap.engine.machine import Machine
from mindgap.engine.sweep import execute
from mindgap.parts.mitigations import MITIGATIONS, Lesson, Mitigation
from mindgap.parts.mitigations.coteach import Coteach
from mindgap.stages.runs import train_stage
from small_project import params_in
from test_loop import comparable, initial_of, run_of
from test_policy import resealed
from test_query import make_view


def coteaching(query="random", **settings):
    return dataclasses.replace(run_of(query, "coteach"), mitigation_settings=settings)


def records_of(run, dataset, finished=()):
    initial, weights = initial_of(dataset, mitigation=run.cell.mitigation)
    return list(rounds(run, dataset, initial, weights, finished))


# What is taught -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modalities", [1, 2, 3])
@pytest.mark.parametrize("settings", [{}, {"k": 2}, {"most": 0.4}, {"k": 1, "most": 50}])
def test_the_surest_of_each_predicted_class_that_are_whole_and_free_teach_the_weak_modality(
    modalities, settings
):
    view = make_view(size=90, modalities=modalities, missing=0.3, sharpness=0.3)
    free_N = torch.ones(90, dtype=torch.bool)
    free_N[::7] = False
    lesson = Coteach(**settings).teach(view, free_N)
    labelled = 12 + int((~free_N).sum())
    k = min(settings.get("k", 30), math.ceil(settings.get("most", 3.0) * labelled / view.num_classes))
    expected = {}
    for c in range(view.num_classes):
        probs = {i: p for i, p in enumerate(view.probs_NC.double().tolist()) if max(p) == p[c]}
        whole = [i for i in probs if free_N[i] and view.present_NM[i].all()]
        expected |= dict.fromkeys(sorted(whole, key=lambda i: -max(probs[i]))[:k], c)
    assert dict(zip(lesson.ids.tolist(), lesson.labels.tolist(), strict=True)) == expected
    accuracies = [view.validation.metrics[name].balanced_accuracy for name in view.modalities]
    weak = accuracies.index(min(accuracies))
    assert weak == weak_modality(view.validation.metrics, view.modalities)
    assert lesson.present.nonzero()[:, 1].tolist() == [weak] * len(expected)


def test_equally_sure_samples_are_taken_at_random():
    def ids(seed):
        view = make_view(duplicates=60, missing=0.0, seed=seed)
        return Coteach(k=5).teach(view, torch.ones(60, dtype=torch.bool)).ids.tolist()

    assert ids(0) == ids(0) != ids(1)


@pytest.mark.parametrize("case", ["nobody is free", "nobody is whole", "k is 0"])
def test_where_there_is_nobody_to_teach_the_lesson_is_empty(case):
    view = make_view(modalities=2, missing=0.5)
    free_N = torch.full((60,), case != "nobody is free")
    if case == "nobody is whole":
        free_N &= ~view.present_NM.all(dim=1)
    assert len(Coteach(0 if case == "k is 0" else 30).teach(view, free_N).ids) == 0


def test_no_label_of_the_pool_or_the_test_set_changes_a_lesson(make_dataset):
    dataset, run = make_dataset(absent=0.2), coteaching("class_balanced_oracle")
    start, validation, set_aside = start_and_validation_ids(run, dataset)
    pool = Pool(len(dataset.train), start, set_aside)
    model = build_model(dataset.modalities, dataset.num_classes, ModelSpec(width=16), seed=0)

    def lesson(dataset):
        view = view_of(run, dataset.train, pool, validation, model, [])
        return taught(run, view, pool.ids[:6].tolist())

    y_N, unlabelled = dataset.train.y_N.clone(), torch.from_numpy(pool.ids)
    y_N[unlabelled] = (y_N[unlabelled] + 1) % dataset.num_classes
    others = dataclasses.replace(
        dataset,
        train=dataclasses.replace(dataset.train, y_N=y_N),
        test=dataclasses.replace(dataset.test, y_N=dataset.test.y_N.flip(0)),
    )
    assert lesson(dataset) == lesson(others)
    assert lesson(dataset)["ids"]


def test_a_mitigation_is_given_no_label_of_the_pool_though_the_query_is(make_dataset, monkeypatch):
    class Looking(Coteach):
        def teach(self, view, free_N):
            seen.append((view.oracle_y_N, int((~free_N).sum())))
            return super().teach(view, free_N)

    seen = []
    monkeypatch.setitem(MITIGATIONS, "coteach", Looking)
    records_of(coteaching("class_balanced_oracle"), make_dataset())
    assert seen == [(None, 6), (None, 6)]


# What is done with it -------------------------------------------------------------------------------------


def test_without_k_a_run_is_the_plain_one_bit_for_bit(make_dataset):
    dataset = make_dataset()
    none, coteach = (
        records_of(run_of("badge", "none"), dataset),
        records_of(coteaching("badge", k=0), dataset),
    )
    for one, other in zip(none, coteach, strict=True):
        assert {key: one[key] for key in ("metrics", "fit", "acquired_ids")} == {
            key: other[key] for key in ("metrics", "fit", "acquired_ids")
        }
    taught = records_of(coteaching("badge"), dataset)
    assert [r["fit"]["steps"] for r in taught] == [r["fit"]["steps"] for r in none]
    assert taught[0]["metrics"] == none[0]["metrics"]
    assert taught[1]["fit"]["losses"] != none[1]["fit"]["losses"]
    assert [len(r.get("lesson", {}).get("ids", ())) > 0 for r in taught] == [True, True, False]
    for record in taught[:-1]:
        assert not set(record["lesson"]["ids"]) & {*record["acquired_ids"], *taught[0]["start_ids"]}


@pytest.mark.parametrize("finished", [1, 2])
def test_a_run_that_teaches_goes_on_bit_for_bit(make_dataset, finished):
    dataset, run = make_dataset(), coteaching("mcover")
    whole = records_of(run, dataset)
    stopped = json.loads(json.dumps(whole[:finished]))
    torch.rand(3)
    assert comparable(stopped + records_of(run, dataset, stopped)) == comparable(whole)


@pytest.mark.parametrize("class_balanced", [False, True])
def test_rows_of_a_lesson_are_drawn_with_their_labels_and_modalities_in_as_many_steps(
    make_dataset, class_balanced
):
    dataset = make_dataset(absent=0.0)
    model = build_model(dataset.modalities, dataset.num_classes, ModelSpec(width=16, min_present=1), seed=0)
    recipe = Recipe(1, 16, 0.1, 0.0, "basic", class_balanced, 0.9, 0.0, 96, 0.0)
    ids_T = torch.arange(100, 140)
    lesson = Lesson(ids_T, (dataset.train.y_N[ids_T] + 1) % 4, torch.tensor([[True, False]]).expand(40, 2))
    batches = list(
        Batches(dataset.train, torch.arange(20), recipe, Mitigation(), model, (0,), lesson).epoch()
    )
    assert len(batches) == 96 / 16
    ids, y, present = (torch.cat([getattr(b, k) for b in batches]) for k in ("ids_B", "y_B", "present_BM"))
    of_lesson = ids >= 100
    assert 0 < of_lesson.sum() < 96
    assert torch.equal(y, (dataset.train.y_N[ids] + of_lesson) % 4)
    assert torch.equal(present[:, 1], ~of_lesson)
    assert present[:, 0].all()
    assert sum(len(b.x["right"]) for b in batches) == (~of_lesson).sum()


BAD = {
    "ids that are not in the pool, were just picked, or come twice": lambda one: {"ids": one.ids[[0, 0]]},
    r"labels outside 0\.\.3": lambda one: {"labels": one.labels + 4},
    "rows without a modality, or with one that their sample lacks": lambda one: {"present": ~one.present},
    "rows of presence that are not as many": lambda one: {"labels": one.labels[:1]},
}


@pytest.mark.parametrize("said", BAD)
def test_a_lesson_that_breaks_the_contract_is_refused_by_name(make_dataset, monkeypatch, said):
    class Bad(Coteach):
        def teach(self, view, free_N):
            rows = (free_N & view.present_NM[:, 0] & ~view.present_NM[:, 1]).nonzero()[:2, 0]
            good = Lesson(view.ids[rows], view.ids[rows] % 4, view.present_NM[rows])
            return dataclasses.replace(good, **BAD[said](good))

    monkeypatch.setitem(MITIGATIONS, "coteach", Bad)
    with pytest.raises(MindGapError, match=rf"mitigation 'coteach': teach\(\) gave .*{said}"):
        records_of(coteaching(), make_dataset())
    monkeypatch.setattr(Bad, "teach", lambda self, view, free_N: None)
    with pytest.raises(
        MindGapError, match=r"'coteach': teach\(\) gave NoneType; return a Lesson, of no rows"
    ):
        records_of(coteaching(), make_dataset())


def test_a_record_without_its_lesson_is_computed_again(project, capsys):
    params = params_in(project, seeds=[0], mitigation=["coteach"])
    train_stage(params, "missing", "low")
    job = job_of(params, "random", mitigation="coteach")
    execute([job], Machine(1, ("cpu",)), "acquire")
    whole = comparable(job.result())
    path = job.record_store.folder / "round_001.json"
    assert lesson_of(unseal(path)) is not None
    for damage in ({"lesson": None}, {"lesson": {"ids": [1], "labels": [0]}}):
        resealed(path, **damage)
        execute([job], Machine(1, ("cpu",)), "acquire")
        assert "round_001.json is no record of this run: " in capsys.readouterr().out
        assert comparable(job.result()) == whole
