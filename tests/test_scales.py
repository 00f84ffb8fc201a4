"""Whether runs are of their scale: the definitions, what differs from them, and what a report says of it."""

import json
from dataclasses import replace

import pandas as pd
import pytest

from mindgap.core.params import Params, load_params
from mindgap.data.quintfeatures.render import render_dataset
from mindgap.data.storage import settings_of
from mindgap.results.curves import Selection, read_curves
from mindgap.results.names import scale_name
from mindgap.results.scales import changes_of, definitions, summary_of, table_of
from mindgap.results.site.build import build_report
from mindgap.results.site.content import Inputs, content_of
from small_project import ROOT
from test_report import PAPER, origins_of, write_curves

SELECTION = Selection(
    scale="paper",
    datasets=("missing", "unique"),
    regimes=("low",),
    queries=("random", "bald", "badge"),
    mitigations=("none", "moddrop"),
    seeds=(0, 1, 2),
    weak={"missing": "rare", "unique": "partial"},
)


@pytest.fixture(scope="module")
def shipped() -> Params:
    return load_params(ROOT / "params.yaml")


def test_the_definitions_are_params_yaml_as_shipped(shipped):
    """Datasets, methods and scales of one's own may stand in params.yaml beside those that are defined."""
    defined, table = definitions(), table_of(shipped)
    for scale, blocks in defined["scales"].items():
        for name in ("prepare", "recipe", "budget"):
            made = table["scales"][scale][name]
            table["scales"][scale][name] = {key: made[key] for key in blocks[name]}
    for name in ("mitigation_settings", "query_settings"):
        table[name] = {key: table[name][key] for key in defined[name]}
    table["scales"] = {scale: table["scales"][scale] for scale in defined["scales"]}
    assert defined == table, "if a default was changed on purpose: python -m mindgap.results.scales"


def changed(edit, selection: Selection = SELECTION) -> list[str]:
    """The summary for runs whose records were edited: edit(settings, dataset, mitigation, query)."""
    origins = origins_of(selection)
    for one in origins:
        for (mitigation, query), settings in one.settings.items():
            edit(settings, one.dataset, mitigation, query)
    return summary_of(changes_of(origins, selection))


def at(*path, value, only=lambda dataset, mitigation, query: True):
    def edit(settings, *cell):
        if only(*cell):
            for key in path[:-1]:
                settings = settings[key]
            if value is None:
                settings.pop(path[-1], None)
            elif path[-1] in settings:
                settings[path[-1]] = value

    return edit


def of(dataset):
    return lambda one, mitigation, query: one == dataset


def test_settings_of_files_from_outside_count():
    share = replace(SELECTION, datasets=("share",), weak={"share": "cifar10"})
    edit = at("data", "prepare", "canonical", value=False)
    assert changed(edit, share) == ["prepare.share.canonical true → false"]
    assert changed(at("data", "prepare", "fetch", value=False), share) == []  # changes no byte
    assert changed(at("data", value=None), share) == ["not recorded: prepare.share"]
    assert settings_of({"settings": {"seed": 7}, "sizes": {"train": 3}}) == {"prepare": {"seed": 7}}


def flatten_fusion(settings) -> None:
    model = settings["setting"]["model"]
    fusion = model.pop("fusion")
    model |= {"fusion": fusion["name"]} | {f"fusion_{k}": v for k, v in fusion.items() if k != "name"}


CHANGES = {
    "epochs": (
        at("setting", "recipe", "epochs", value=3, only=of("missing")),
        ["recipe.missing.epochs 60 → 3"],
    ),
    "learning rate": (
        at("setting", "recipe", "learning_rate", value=0.05),
        ["recipe.missing.learning_rate 0.1 → 0.05", "recipe.unique.learning_rate 0.1 → 0.05"],
    ),
    "image size": (at("data", "render", "image_size", value=32), ["render.image_size 64 → 32"]),
    "train size": (
        at("data", "render", "train_size", value=6000, only=of("unique")),
        ["render.train_size 60000 → 6000 (Unique)"],
    ),
    "absence": (
        at("data", "prepare", "absence", value={"rare": 0.5, "frequent": 0.1}, only=of("missing")),
        ['prepare.missing.absence {"rare": 0.9, "frequent": 0.1} → {"rare": 0.5, "frequent": 0.1}'],
    ),
    "label values": (
        at("data", "prepare", "label_values", value=5, only=of("unique")),
        ["prepare.unique.label_values 10 → 5"],
    ),
    "style of a modality": (
        at("data", "prepare", "style", value={"rare": {"erase": [0.1, 0.4]}}, only=of("missing")),
        ['prepare.missing.style {} → {"rare": {"erase": [0.1, 0.4]}}'],
    ),
    "nuisance": (
        at("data", "render", "nuisance", value={"bg_texture": ["solid"]}),
        ['render.nuisance {} → {"bg_texture": ["solid"]}'],
    ),
    "start": (at("setting", "start", value="random"), ["loop.start stratified → random"]),
    "dropout for all": (
        at("setting", "model", "head_dropout", value=0.5),
        ["model.head_dropout 0.0 → 0.5, as by model.head_dropout_for: all (Random, BADGE)"],
    ),
    "rate of the dropout": (
        at("setting", "model", "head_dropout", value=0.25, only=lambda d, m, query: query == "bald"),
        ["model.head_dropout 0.5 → 0.25 (BALD)"],
    ),
    "encoder": (
        at("setting", "model", "encoder", "image", value={"name": "tiny"}),
        ['model.encoder.image {"name": "efficientnet_b0"} → {"name": "tiny"}'],
    ),
    "rate": (at("mitigation_settings", "rate", value=0.25), ["mitigation_settings.moddrop.rate 0.3 → 0.25"]),
    "form": (
        at("mitigation_settings", "form", value="exactly_one"),
        ["mitigation_settings.moddrop.form independent → exactly_one"],
    ),
    "records from before ModDrop had forms": (at("mitigation_settings", "form", value=None), []),
    "passes": (at("query_settings", "passes", value=10), ["query_settings.bald.passes 50 → 10"]),
    "budget": (
        at("setting", "budget", "validation", value=100, only=of("missing")),
        ["budget.missing.low.validation 250 → 100"],
    ),
    "the fusion as older records have it": (lambda settings, *cell: flatten_fusion(settings), []),
    "old records": (at("data", value=None), ["not recorded: render, prepare.missing, prepare.unique"]),
    "a lost key": (at("setting", "training", "momentum", value=None), ["not recorded: training.momentum"]),
    "nothing": (lambda *any: None, []),
}


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_differs_is_named(what):
    edit, lines = CHANGES[what]
    assert changed(edit) == lines


def test_runs_without_dropout_are_named_where_the_scale_has_it_for_all():
    tiny = replace(SELECTION, scale="tiny")
    edit = at("setting", "model", "head_dropout", value=0.0, only=lambda d, m, query: query != "bald")
    line = "model.head_dropout 0.25 → 0.0, as by model.head_dropout_for: bald_only (Random, BADGE)"
    assert changed(edit, tiny) == [line]


def test_runs_without_any_record_and_datasets_of_ones_own_are_not_the_scales():
    assert summary_of(changes_of([], SELECTION)) == ["not recorded: all settings"]
    own = replace(SELECTION, datasets=("missing", "tinted"))
    origins = origins_of(SELECTION)
    origins = [origins[0], replace(origins[0], dataset="tinted")]
    assert summary_of(changes_of(origins, own)) == ["tinted low is not among what scale paper defines"]


def test_records_from_before_had_ten_values_one_style_and_no_training_of_their_own():
    def older(settings, *cell):
        for key in ("label_values", "style"):
            settings["data"]["prepare"].pop(key, None)

    assert changed(older) == []


def test_what_a_recipe_has_otherwise_than_training_belongs_to_the_scale(shipped, monkeypatch):
    raw = shipped.model_dump(exclude_none=True)
    raw["scales"]["paper"]["recipe"]["missing"]["low"] = {
        **raw["scales"]["paper"]["recipe"]["missing"]["all"],
        "min_samples_per_epoch": 64,
    }
    table = table_of(Params.model_validate_json(json.dumps(raw)))
    monkeypatch.setattr("mindgap.results.scales.definitions", lambda: table)
    lines = ["training.min_samples_per_epoch 64 → 0 (Missing)"]
    assert changed(lambda *cell: None) == lines  # runs by `training` alone
    edit = at("setting", "training", "min_samples_per_epoch", value=64, only=of("missing"))
    assert changed(edit) == []


def test_settings_of_plug_ins_are_no_change():
    own = replace(SELECTION, queries=("random", "mine"))
    origins = origins_of(replace(own, queries=("random", "bald")))
    for one in origins:
        for mitigation in own.mitigations:
            settings = one.settings.pop((mitigation, "bald"))
            one.settings[mitigation, "mine"] = settings | {"query_settings": {"alpha": 0.3}}
    assert summary_of(changes_of(origins, own)) == []
    # Whether a method of one's own needs dropout, its records say; the rate is the scale's.
    for rate, lines in ((0.0, []), (0.3, ["model.head_dropout 0.5 → 0.3 (mine)"])):
        for one in origins:
            for mitigation in own.mitigations:
                one.settings[mitigation, "mine"]["setting"]["model"]["head_dropout"] = rate
        assert summary_of(changes_of(origins, own)) == lines


def test_scales_have_a_word_on_them():
    assert scale_name("tiny") == scale_name("tiny", "", "") == "tiny"
    assert scale_name("tiny", "", "not recorded: render") == "tiny, not all recorded"
    assert scale_name("tiny", "not recorded: render", "loop.start a → b") == "tiny, changed"


def test_a_rendered_dataset_tells_what_it_was_made_with(tmp_path, shipped):
    absence = {"rare": 0.5, "frequent": 0.1}
    asked = {"root_seed": 7, "train_size": 30, "test_size": 20}
    meta = render_dataset(
        "missing", tmp_path / "missing", **asked, absence=absence, workers=1, progress=False
    )
    made = settings_of(meta)
    assert made["prepare"] == {"absence": absence, "label_values": 10, "style": {}}
    assert asked.items() <= made["render"].items()
    assert set(made["render"]) == set(shipped.at_scale.render.model_dump())


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Inputs:
    """Runs that are the paper's in all but their accuracies, those of Missing with other epochs."""
    curves = read_curves(write_curves(tmp_path_factory.mktemp("curves"), SELECTION, rounds=10), SELECTION)
    origins = origins_of(SELECTION)
    for settings in origins[0].settings.values():
        settings["setting"]["recipe"]["epochs"] = 3
    return Inputs(curves, origins)


def test_a_changed_run_is_never_judged_against_the_paper(inputs):
    content = content_of(inputs, PAPER, SELECTION)
    run = content.comparison[content.comparison["n_seeds"] > 0].groupby("dataset")
    assert set(run.get_group("unique")["status"]) <= {"reproduced", "not reproduced"}
    assert set(run.get_group("missing")["why"]) == {"counterpart at scale paper, changed"}
    table = content.table.set_index("dataset")
    assert set(table.loc["missing", "changed"]) == {"recipe.missing.epochs 60 → 3"}
    assert set(table.loc["unique", "changed"]) == {""}
    assert table.loc["missing", "paper_mean"].isna().all()
    assert table.loc["unique", "paper_mean"].notna().all()
    verdicts = content.claims.set_index("key")["verdict"]
    assert verdicts["missing-low-unlearnt"] == "does not hold (paper, changed)"
    assert verdicts["partial-near-chance"] == "does not hold"
    assert verdicts["imbalanced-everywhere"].endswith(" (paper, changed)")
    assert content.scale == "paper, changed"
    assert content.scale_of("unique", "none") == "paper"


def test_the_pages_tables_and_figures_name_what_differs(inputs, tmp_path):
    build_report(inputs, tmp_path, PAPER, SELECTION)
    for name in ("index.html", "comparison.html"):
        text = (tmp_path / name).read_text()
        assert "Scale: paper, changed: recipe.missing.epochs 60 → 3 – " in text, name
        assert "<li>recipe.missing.epochs 60 → 3</li>" in text
    index = (tmp_path / "index.html").read_text()
    assert '<span class="soft">does not hold (paper, changed)</span>' in index
    for name, word in (("missing", True), ("unique", False)):
        for kind in ("curves", "bars"):
            assert ("paper, changed" in (tmp_path / f"figures/{kind}-{name}-none.svg").read_text()) == word
        text = (tmp_path / f"tables/{name}-none.tex").read_text()
        assert ("Scale: paper, changed." in text) == word
        assert ("BADGE, paper" in text) != word
    frame = pd.read_csv(tmp_path / "tables" / "comparison.csv", keep_default_na=False)
    assert set(frame["scale"]) == {"", "paper", "paper, changed"}
