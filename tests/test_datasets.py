import csv
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from mindgap.data import RENDERED
from mindgap.data.draws import balanced_labels
from mindgap.data.errors import DataError
from mindgap.data.presence import absence_rates, draw_presence, subset_name, subsets
from mindgap.data.quintfeatures import render
from mindgap.data.quintfeatures.checks import (
    image_summary,
    independence_p,
    read_attributes,
    rendered_sample,
)
from mindgap.data.quintfeatures.images import COLORS, FEATURES, TEXTURES, Style, image_seed, render_image
from mindgap.data.quintfeatures.pairing import Factor, Pairing, factor_values
from mindgap.data.quintfeatures.render import draw_split, find_dataset, render_dataset
from mindgap.data.workers import map_processes

TINY = Style(image_size=16, texture_period=0.25)


def render_tiny(name, out_dir, **changes):
    settings = {
        "root_seed": 5,
        "style": TINY,
        "train_size": 90,
        "test_size": 30,
        "workers": 1,
        "progress": False,
    }
    return render_dataset(name, out_dir, **{**settings, **changes})


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def missing_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "missing"
    render_tiny("missing", path)
    return path


def test_the_table_states_the_papers_datasets():
    assert {name: (p.modalities, p.weak, p.num_classes, p.ceilings) for name, p in RENDERED.items()} == {
        "missing": (("rare", "frequent"), "rare", 10, {"rare": 1.0, "frequent": 1.0, "rare+frequent": 1.0}),
        "unique": (("full", "partial"), "partial", 100, {"full": 1.0, "partial": 0.1, "full+partial": 1.0}),
        "synergy": (
            ("partial_a", "partial_b"),
            "partial_b",
            100,
            {"partial_a": 0.1, "partial_b": 0.1, "partial_a+partial_b": 1.0},
        ),
        "trio": (
            ("twin_a", "twin_b", "solo"),
            None,
            100,
            {
                "twin_a": 0.1,
                "twin_b": 0.1,
                "solo": 0.1,
                "twin_a+twin_b": 0.1,
                "twin_a+solo": 1.0,
                "twin_b+solo": 1.0,
                "twin_a+twin_b+solo": 1.0,
            },
        ),
    }


def test_an_unknown_dataset_lists_the_known():
    with pytest.raises(
        DataError, match="unknown dataset 'share'; the rendered ones are missing, unique, synergy"
    ):
        find_dataset("share")


@pytest.mark.parametrize("name", RENDERED)
def test_labels_are_balanced_and_tied_to_the_features_they_name(name):
    pairing, drawn = RENDERED[name], draw_split(name, "train", 1234, root_seed=1)
    counts = np.bincount(drawn.label_N, minlength=pairing.num_classes)
    assert len(counts) == pairing.num_classes
    assert counts.max() - counts.min() <= 1
    for factor, values_N in zip(
        pairing.label, factor_values(drawn.label_N, len(pairing.label)).T, strict=True
    ):
        for carrier in factor.carriers:
            shown_N = drawn.features_NMF[:, pairing.modalities.index(carrier), FEATURES.index(factor.feature)]
            assert np.array_equal(shown_N, values_N)
    assert drawn.features_NMF.min() == 0
    assert drawn.features_NMF.max() == 9
    assert (drawn.features_NMF[..., 1] != drawn.features_NMF[..., 3]).all()


@pytest.mark.parametrize("name", RENDERED)
def test_everything_that_is_not_tied_is_independent(name):
    pairing, drawn = RENDERED[name], draw_split(name, "train", 60_000, root_seed=2)
    columns = {
        (m, feature): drawn.features_NMF[:, i, f]
        for i, m in enumerate(pairing.modalities)
        for f, feature in enumerate(FEATURES)
    }
    tied = [{(carrier, factor.feature) for carrier in factor.carriers} for factor in pairing.label]
    tied += [{(m, "fg_color"), (m, "bg_color")} for m in pairing.modalities]
    names = list(columns)
    for a, first in enumerate(names):
        for second in names[a + 1 :]:
            if any({first, second} <= group for group in tied):
                continue
            counts = np.bincount(columns[first] * 10 + columns[second].astype(int), minlength=100)
            assert independence_p(counts.reshape(10, 10)) > 1e-4, (first, second)


@pytest.mark.parametrize("name", RENDERED)
def test_images_of_one_sample_share_what_the_label_ties_and_nothing_else(name):
    pairing, drawn = RENDERED[name], draw_split(name, "test", 2000, root_seed=3)
    for f, feature in enumerate(FEATURES):
        for a in range(len(pairing.modalities)):
            for b in range(a + 1, len(pairing.modalities)):
                pair = {pairing.modalities[a], pairing.modalities[b]}
                tied = any(k.feature == feature and pair <= set(k.carriers) for k in pairing.label)
                same = (drawn.features_NMF[:, a, f] == drawn.features_NMF[:, b, f]).mean()
                assert same == 1 if tied else 0.06 < same < 0.14


@pytest.mark.parametrize("name", RENDERED)
@pytest.mark.parametrize("values", [2, 5])
def test_label_features_take_fewer_values_and_all_else_follows(name, values):
    declared, pairing = RENDERED[name], find_dataset(name, label_values=values)
    assert pairing.num_classes == len(pairing.class_names) == values ** len(declared.label)
    for subset, ceiling in declared.ceilings.items():
        assert pairing.ceilings[subset] == (1.0 if ceiling == 1 else pytest.approx(1 / values))
    drawn = draw_split(name, "train", 1000, root_seed=1, label_values=values)
    counts = np.bincount(drawn.label_N, minlength=pairing.num_classes)
    assert counts.max() - counts.min() <= 1
    tied = {(carrier, factor.feature) for factor in pairing.label for carrier in factor.carriers}
    for m, modality in enumerate(pairing.modalities):
        for f, feature in enumerate(FEATURES):
            seen = set(drawn.features_NMF[:, m, f].tolist())
            assert seen == set(range(values if (modality, feature) in tied else 10)), (modality, feature)
    values_NF = factor_values(drawn.label_N, len(pairing.label), values)
    for factor, value_N in zip(pairing.label, values_NF.T, strict=True):
        for carrier in factor.carriers:
            m, f = pairing.modalities.index(carrier), FEATURES.index(factor.feature)
            assert np.array_equal(drawn.features_NMF[:, m, f], value_N)


def test_a_modality_is_rendered_in_its_own_style_and_the_others_as_before(missing_dir, tmp_path):
    hard = {"erase": [0.5, 0.6], "max_rotation": 180.0}
    render_tiny("missing", tmp_path / "own", own_style={"rare": hard})
    render_tiny("missing", tmp_path / "hard", style=replace(TINY, **hard))
    render_tiny("missing", tmp_path / "all", own_style={"all": hard})
    render_tiny("missing", tmp_path / "both", own_style={"all": hard, "frequent": {"erase": [0.0, 0.0]}})
    own, hard, every, both = (files_of(tmp_path / name) for name in ("own", "hard", "all", "both"))
    before = files_of(missing_dir)
    for split in ("train", "test"):
        rare, frequent = f"{split}.rare.npy", f"{split}.frequent.npy"
        assert own[rare] == hard[rare] == every[rare] == both[rare] != before[rare]
        assert own[frequent] == before[frequent] != hard[frequent] == every[frequent] != both[frequent]
    assert rendered_sample(tmp_path / "own", 40)["same"].all()


def test_what_carries_no_label_may_draw_from_values_of_its_modality():
    own = {"partial": {"nuisance": {"bg_texture": ["solid"]}}}
    drawn = draw_split("unique", "train", 300, root_seed=1, own_style=own)
    assert set(drawn.features_NMF[:, 1, FEATURES.index("bg_texture")].tolist()) == {0}
    assert set(drawn.features_NMF[:, 0, FEATURES.index("bg_texture")].tolist()) == set(range(10))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_values": 1}, r"label_values is 1: make it a whole number in 2\.\.10"),
        ({"label_values": 11}, "label_values is 11"),
        ({"own_style": {"scarce": {}}}, "style names 'scarce'; known: all, rare, frequent"),
        ({"own_style": {"rare": {"image_size": 32}}}, "image_size of rare is 32, but 16 of the dataset"),
        ({"own_style": {"rare": {"erase": [0.4, 0.1]}}}, "erase is .*make it two shares"),
    ],
)
def test_what_cannot_be_rendered_is_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        render_tiny("missing", tmp_path / "missing", **changes)
    assert not (tmp_path / "missing").exists()


def test_the_same_color_is_drawn_only_when_allowed():
    allowed = draw_split(
        "unique", "train", 5000, root_seed=1, style=Style(allow_same_color=True)
    ).features_NMF
    assert (allowed[..., 1] == allowed[..., 3]).mean() == pytest.approx(0.1, abs=0.02)


def test_a_label_on_the_background_moves_the_foreground_color():
    pairing = Pairing(("a",), "a", (Factor("bg_color", ("a",)),))
    features, label = render.draw_latents(pairing, 1000, np.random.default_rng(0))
    assert np.array_equal(features[:, 0, 3], label)
    assert (features[:, 0, 1] != label).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((("a",), "b", (Factor("fg_shape", ("a",)),)), "unknown modality 'b'; they are a"),
        ((("a",), "a", (Factor("shape", ("a",)),)), "unknown feature 'shape'"),
        ((("a",), "a", (Factor("fg_shape", ("a",)), Factor("fg_shape", ("a",)))), "may serve two"),
        ((("a",), "a", ()), "needs factors"),
        ((("a",), "a", (Factor("fg_color", ("a",)), Factor("bg_color", ("a",)))), "they must differ"),
        (
            (("a", "b"), "a", (Factor("fg_color", ("a", "b")),)),
            "cannot be a fg_color that a and b share: .* take fg_shape",
        ),
        ((("a", "b"), None, (Factor("bg_color", ("b", "a")),)), "cannot be a bg_color that b and a share"),
    ],
)
def test_an_impossible_pairing_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Pairing(*arguments)


def test_which_classes_get_one_more_is_random():
    more = {
        tuple(np.flatnonzero(np.bincount(balanced_labels(13, 10, np.random.default_rng(s))) > 1))
        for s in range(9)
    }
    assert len(more) > 5


def test_missing_has_the_papers_presence_rates():
    size = 60_000
    present_NM = draw_split("missing", "train", size, root_seed=4).present_NM
    assert present_NM.any(axis=1).all()
    rates = {(1, 1): 0.09, (1, 0): 0.01 + 0.045, (0, 1): 0.81 + 0.045}
    for pattern, rate in rates.items():
        share = (present_NM == pattern).all(axis=1).mean()
        assert abs(share - rate) < 3 * np.sqrt(rate * (1 - rate) / size)
    for m, rate in enumerate((0.145, 0.945)):
        assert abs(present_NM[:, m].mean() - rate) < 3 * np.sqrt(rate * (1 - rate) / size)


@pytest.mark.parametrize("name", RENDERED)
def test_the_test_split_is_complete(name):
    absence = dict.fromkeys(RENDERED[name].modalities, 0.5)
    assert draw_split(name, "test", 500, root_seed=4, absence=absence).present_NM.all()
    assert not draw_split(name, "train", 500, root_seed=4, absence=absence).present_NM.all()


def test_presence_keeps_one_modality_whatever_their_number():
    present_NM = draw_presence(30_000, np.ones(3), np.random.default_rng(0))
    assert (present_NM.sum(axis=1) == 1).all()
    assert present_NM.mean(axis=0) == pytest.approx(1 / 3, abs=0.01)
    with pytest.raises(ValueError, match="absence names 'text'; the modalities are a, b"):
        absence_rates(("a", "b"), {"text": 0.1})
    with pytest.raises(ValueError, match=r"absence of a is 1.1: make it a probability in 0..1"):
        absence_rates(("a", "b"), {"a": 1.1})


def test_subsets_come_singles_first_in_the_datasets_order():
    assert subsets(("b", "a", "c")) == [
        ("b",),
        ("a",),
        ("c",),
        ("b", "a"),
        ("b", "c"),
        ("a", "c"),
        ("b", "a", "c"),
    ]
    assert subset_name(("c", "b"), ("b", "a", "c")) == "b+c"
    with pytest.raises(ValueError, match="no subset of a, b"):
        subset_name(("a", "x"), ("a", "b"))


def test_no_two_images_share_a_seed():
    seeds = [
        tuple(image_seed(root, name, split, i, m).generate_state(4))
        for root in (0, 1)
        for name in RENDERED
        for split in (0, 1)
        for i in range(50)
        for m in range(3)
    ]
    assert len(set(seeds)) == len(seeds)


def test_splits_and_root_seeds_have_their_own_draws():
    draws = [
        draw_split("unique", s, 300, root_seed=r).features_NMF for s in ("train", "test") for r in (0, 1)
    ]
    assert not any(np.array_equal(draws[i], draws[k]) for i in range(4) for k in range(i))


def test_any_number_of_workers_gives_the_same_bytes(missing_dir, tmp_path):
    render_tiny("missing", tmp_path / "missing", workers=2)
    assert files_of(tmp_path / "missing") == files_of(missing_dir)


def test_a_batch_holds_what_each_image_is_alone(missing_dir):
    table, rare = read_attributes(missing_dir), np.load(missing_dir / "train.rare.npy")
    present_NM = np.load(missing_dir / "train.present.npy")
    rows = np.flatnonzero((table["split"] == "train") & (table["modality"] == "rare"))
    assert table["index"][rows].tolist() == np.flatnonzero(present_NM[:, 0]).tolist()
    for row in rows:
        i = int(table["index"][row])
        image, erased = render_image(
            [table[f][row] for f in FEATURES], image_seed(5, "missing", 0, i, 0), TINY
        )
        assert np.array_equal(rare[i], image)
        assert table["erased_fraction"][row] == pytest.approx(erased, abs=1e-6)
    assert not rare[~present_NM[:, 0]].any()


def test_the_folder_holds_what_its_readers_expect(missing_dir):
    meta = json.loads((missing_dir / "meta.json").read_text())
    assert list(meta["modalities"].items()) == [
        ("rare", {"kind": "image", "shape": [16, 16, 3], "mirrors": True}),
        ("frequent", {"kind": "image", "shape": [16, 16, 3], "mirrors": True}),
    ]
    assert meta["class_names"][:2] == ["triangle", "square"]
    assert meta["label_features"] == [{"feature": "fg_shape", "modalities": ["rare", "frequent"]}]
    assert Style(**meta["style"]) == TINY
    assert set(meta["sha256"]) == {path.name for path in missing_dir.glob("*.npy")}
    with (missing_dir / "attributes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["split", "index", "modality", *FEATURES, "erased_fraction", "label"]
    assert len(rows) == sum(np.load(missing_dir / f"{s}.present.npy").sum() for s in ("train", "test"))
    assert (missing_dir / "contact_sheet.png").read_bytes().startswith(b"\x89PNG")


def test_class_names_follow_the_label():
    assert RENDERED["unique"].class_names[12] == "square/grid"
    assert factor_values(np.array([12]), 2).tolist() == [[1, 2]]


def test_the_checks_pass_on_a_render_and_see_an_exchanged_image(missing_dir, tmp_path):
    summary = image_summary(missing_dir)
    assert len(set(summary["sha256"])) == len(summary["sha256"]) == len(read_attributes(missing_dir)["index"])
    sample = rendered_sample(missing_dir, 40)
    assert sample["same"].all()
    readable = sample["decoded_color"] >= 0
    assert readable.mean() > 0.5
    assert np.array_equal(sample["decoded_color"][readable], sample["fg_color"][readable])
    render_tiny("missing", tmp_path / "missing")
    images = np.load(tmp_path / "missing" / "test.rare.npy", mmap_mode="r+")
    images[0] = images[1]
    images.flush()
    broken = image_summary(tmp_path / "missing")
    assert len(set(broken["sha256"])) == len(broken["sha256"]) - 1
    assert not rendered_sample(tmp_path / "missing", 1000)["same"].all()


def test_the_leak_check_tells_tied_from_independent(tmp_path):
    render_tiny("unique", tmp_path / "unique", train_size=900, test_size=1)
    table = read_attributes(tmp_path / "unique")

    def counts(first: tuple[str, str], second: tuple[str, str]) -> np.ndarray:
        """How often two features of modalities go together, over all training samples."""
        shown = [
            table[feature][(table["split"] == "train") & (table["modality"] == modality)]
            for modality, feature in (first, second)
        ]
        return np.bincount(10 * shown[0] + shown[1], minlength=100).reshape(10, 10)

    tied = counts(("full", "fg_shape"), ("partial", "fg_shape"))
    assert np.trace(tied) == tied.sum() == 900
    assert independence_p(tied) < 1e-12
    for feature in FEATURES:
        assert independence_p(counts(("full", "fg_texture"), ("partial", feature))) > 1e-4


def test_a_failed_render_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no space left")

    monkeypatch.setattr(render, "_write_tables", fail)
    with pytest.raises(RuntimeError, match="no space left"):
        render_tiny("missing", tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_render_leaves_no_dataset_and_the_next_one_cleans_up(tmp_path):
    script = tmp_path / "kill.py"
    script.write_text(
        "import os, sys\n"
        "from mindgap.data.quintfeatures import render\n"
        "from mindgap.data.quintfeatures.images import Style\n"
        "render._write_meta = lambda *_: os._exit(9)\n"
        "style = Style(image_size=16, texture_period=0.25)\n"
        "sizes = {'train_size': 5, 'test_size': 5, 'workers': 1}\n"
        "render.render_dataset('missing', sys.argv[1], root_seed=0, style=style, **sizes)\n"
    )
    out = tmp_path / "out" / "missing"
    assert subprocess.run([sys.executable, script, out], check=False).returncode == 9
    assert not out.exists()
    assert [path.name for path in out.parent.iterdir()] == [".missing.partial"]
    render_tiny("missing", out)
    assert [path.name for path in out.parent.iterdir()] == ["missing"]


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(
        DataError, match="holds something else than a dataset: empty it or choose another folder"
    ):
        render_tiny("missing", tmp_path)
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_size": 0}, "train_size is 0: make it at least 1"),
        ({"root_seed": -1}, "root_seed is -1"),
        ({"absence": {"text": 0.5}}, "absence names 'text'; the modalities are rare, frequent"),
    ],
)
def test_wrong_arguments_are_named(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        render_tiny("missing", tmp_path / "missing", **change)
    assert not (tmp_path / "missing").exists()


def test_workers_import_neither_torch_nor_the_program_they_serve(tmp_path):
    """The program has no main guard and imports torch, here a stub that leaves a trace."""
    (tmp_path / "torch.py").write_text("import os, pathlib\npathlib.Path(f'trace-{os.getpid()}').touch()\n")
    (tmp_path / "program.py").write_text(
        "import torch, sys\n"
        "from mindgap.data.workers import map_processes\n"
        "results = list(map_processes(eval, [\"'torch' in __import__('sys').modules\"] * 4, 2))\n"
        "from mindgap.data.quintfeatures.render import render_chunk\n"
        "loaded = list(map_processes(eval, ["
        "\"(__import__('mindgap.data.quintfeatures.render'),"
        " 'torch' in __import__('sys').modules)[1]\"] * 4, 2))\n"
        "print(results + loaded, __file__ is not None, __name__)\n"
    )
    run = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.stdout == f"{[False] * 8} True __main__\n", run.stderr
    assert len(list(tmp_path.glob("trace-*"))) == 1


def test_an_error_in_a_worker_reaches_the_caller():
    with pytest.raises(ZeroDivisionError):
        list(map_processes(eval, ["1", "1 / 0"], 2))


def test_a_silent_render_says_nothing(tmp_path, capfd):
    render_tiny("missing", tmp_path / "missing", train_size=5, test_size=5)
    assert capfd.readouterr() == ("", "")


def test_nuisance_features_draw_from_what_the_style_names_and_labels_from_all():
    nuisance = {"bg_texture": ["solid"], "fg_texture": ["grid"], "bg_color": ["blue", "purple"]}
    drawn = draw_split("unique", "train", 2000, root_seed=1, style=Style(nuisance=nuisance)).features_NMF
    full, partial = drawn[:, 0], drawn[:, 1]
    texture = FEATURES.index("fg_texture")
    assert len(np.unique(full[:, texture])) == 10
    assert np.unique(partial[:, texture]).tolist() == [TEXTURES.index("grid")]
    assert (drawn[..., FEATURES.index("bg_texture")] == 0).all()
    colors = drawn[..., [FEATURES.index("fg_color"), FEATURES.index("bg_color")]]
    assert {list(COLORS)[c] for c in np.unique(colors[..., 1])} == {"blue", "purple"}
    assert (colors[..., 0] != colors[..., 1]).all()


@pytest.mark.parametrize(
    ("nuisance", "message"),
    [
        ({"bg_textur": ["solid"]}, "unknown feature 'bg_textur'"),
        ({"bg_texture": []}, "at least one name for bg_texture"),
        ({"bg_texture": ["plaid"]}, "unknown bg_texture 'plaid'"),
        ({"fg_color": ["red"], "bg_color": ["red"]}, "foreground and background can differ"),
    ],
)
def test_a_nuisance_that_cannot_be_drawn_is_refused(nuisance, message):
    with pytest.raises(ValueError, match=message):
        Style(nuisance=nuisance)
