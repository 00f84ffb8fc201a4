"""Every query method, mitigation and fusion with each of the others: as parameters and as runs."""

from dataclasses import replace
from itertools import product

import pytest

from mindgap.base.errors import MindGapError, ParamsError
from mindgap.core.check import check_params
from mindgap.core.loop import Cell, Run, initial_record, rounds
from mindgap.core.params import Budget
from mindgap.parts.fusions import FUSIONS
from mindgap.parts.mitigations import MITIGATIONS
from mindgap.parts.query import METHODS
from mindgap.stages.overrides import overridden
from small_project import ROOT
from test_loop import SETTING

ALL = "query=[{}]".format(",".join(METHODS.ours)), "mitigation=[{}]".format(",".join(MITIGATIONS.ours))
TRIO = ("twin_a", "twin_b", "solo")
# A batch and a budget of a few samples; the real loop.
TINY = replace(
    SETTING,
    budget=Budget(initial=8, validation=8, acquisition=3, rounds=2),
    recipe=SETTING.recipe.model_copy(update={"epochs": 1}),
    training=SETTING.training.model_copy(update={"min_samples_per_epoch": 8}),
)


def allowed(*changes: str):
    """The shipped parameters with every method and mitigation, on rendered datasets."""
    data = "dataset=[missing,unique,synergy,trio]"
    return overridden([data, *ALL, *changes], ROOT / "params.yaml")


@pytest.mark.parametrize("fusion", FUSIONS.ours)
def test_all_that_is_allowed_passes(fusion):
    """The lists are products: each combination with this fusion is among them."""
    check_params(allowed(f"scales.tiny.model.fusion.name={fusion}"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("scales.tiny.model.fusion.name=gates", r"fusion\.name: unknown 'gates'; known in .*gated"),
        ("+scales.tiny.model.fusion.temperature=2.0", r"fusion\.temperature"),
        ("mitigation=[none,modropp]", r"mitigation: unknown 'modropp'; known in .*moddrop"),
        ("query=[random,teech]", r"query: unknown 'teech'; known in .*teach"),
        ("scales.tiny.model.head_dropout=0.0", "query: 'bald' needs dropout .* or leave bald out"),
        ("+mitigation_settings.coteach.most=0.0", r"mitigation_settings\.coteach"),
        ("+query_settings.teach.strength=1.0", r"query_settings\.teach"),
    ],
)
def test_what_is_not_is_refused_by_its_name(change, message):
    with pytest.raises(ParamsError, match=message):
        check_params(allowed(change))


def run_of(query: str | None, mitigation: str, fusion: str, **changes) -> Run:
    settings = {"fusion": {"name": fusion}, "width": 8, **changes}
    setting = replace(TINY, model=SETTING.model.model_copy(update=settings))
    cell = Cell("trio", "low", mitigation, 0, query)
    # Of eight labelled samples no fifth can be left out with every class in the rest.
    told = {"folds": 1} if mitigation == "shortcut_aware" else {}
    return Run(cell, setting, told, {}, f"{query}-{mitigation}-{fusion}", {"code": "x"})


@pytest.fixture
def trio(make_dataset):
    return replace(make_dataset(TRIO, classes=3, train=48, test=12), weak=None)


def pairs_with(mitigation: str) -> list[tuple[str, str]]:
    """Each query method once, with a fusion: over all mitigations each two of the three parts meet."""
    shift, names = list(MITIGATIONS.ours).index(mitigation), list(FUSIONS.ours)
    return [(query, names[(place + shift) % len(names)]) for place, query in enumerate(METHODS.ours)]


def test_the_runs_below_bring_each_two_parts_together():
    assert len(MITIGATIONS.ours) >= len(FUSIONS.ours)
    met = {(query, fusion) for mitigation in MITIGATIONS.ours for query, fusion in pairs_with(mitigation)}
    assert met == set(product(METHODS.ours, FUSIONS.ours))
    for mitigation in MITIGATIONS.ours:
        queries, fusions = zip(*pairs_with(mitigation), strict=True)
        assert (set(queries), set(fusions)) == (set(METHODS.ours), set(FUSIONS.ours))


@pytest.mark.parametrize("mitigation", MITIGATIONS.ours)
def test_a_round_runs_with_every_query_method_and_fusion(trio, mitigation):
    first = {fusion: initial_record(run_of(None, mitigation, fusion), trio) for fusion in FUSIONS.ours}
    for query, fusion in pairs_with(mitigation):
        record = next(iter(rounds(run_of(query, mitigation, fusion), trio, *first[fusion])))
        assert len(set(record["acquired_ids"])) == 3, (query, fusion)
        assert len(record["metrics"]) == 3 * 7
    # What a round leaves to the next one's training, such as a lesson.
    *_, last = rounds(run_of("random", mitigation, "gated"), trio, *first["gated"])
    assert (last["round"], last["labelled"]) == (1, 11)


@pytest.mark.parametrize("mitigation", ["ogm_ge", "agm", "opm", "unimodal_ensemble"])
def test_absence_as_zeros_is_refused_where_modalities_are_masked_in_training(trio, mitigation):
    with pytest.raises(
        MindGapError, match=r"set model\.absent of the scale to skip .* or leave this mitigation"
    ):
        initial_record(run_of(None, mitigation, "gated", absent="zeros"), trio)
