"""Every suite passes on good tables and fails on a seeded fault, naming table, column, expectation, rows."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mindgap.base.errors import MindGapError
from mindgap.data.errors import DataError
from mindgap.data.quintfeatures.checks import tables as rendered_tables
from mindgap.data.quintfeatures.images import Style
from mindgap.data.quintfeatures.render import render_dataset
from mindgap.results.aulc import tidy
from mindgap.results.expectations import (
    ExpectationFailed,
    load_suite,
    validate,
    validate_aulc,
    validate_curves,
    validate_dataset,
)
from spoilt import spoil_array
from test_report import SELECTION, make_curves, order_of

SUITES = Path(__file__).parents[1] / "reports" / "expectations"
PREPARED = SUITES / "prepared"


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("prepared")
    style = Style(image_size=32, supersample=1, texture_period=0.2)
    sizes = {"train_size": 300, "test_size": 100}
    for name in ("missing", "trio"):
        render_dataset(name, folder / name, root_seed=0, **sizes, style=style, progress=False, workers=1)
    return {name: folder / name for name in ("missing", "trio")}


@pytest.fixture
def missing(rendered, tmp_path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(rendered["missing"], tmp_path / "missing"))


def spoil_attributes(folder: Path, change) -> None:
    frame = pd.read_csv(folder / "attributes.csv")
    change(frame).to_csv(folder / "attributes.csv", index=False)


def failure_of(check, *args, html: Path) -> str:
    with pytest.raises(ExpectationFailed) as error:
        check(*args, PREPARED if check is validate_dataset else SUITES, html)
    return str(error.value)


def test_importing_it_is_cheap():
    source = (Path(__file__).parents[1] / "src/mindgap/results/expectations.py").read_text()
    assert not re.search(r"^(?:import|from) great_expectations", source, re.MULTILINE)


@pytest.mark.parametrize("name", ["missing", "trio"])
def test_good_renders_pass(rendered, name, tmp_path):
    validate_dataset(rendered[name], PREPARED, tmp_path)
    pages = sorted(path.name for path in tmp_path.iterdir())
    parts = ("attributes", "checks", "images", "sample")
    assert pages == [f"flow-{name}.html", *(f"rendered_{part}-{name}.html" for part in parts)]
    text = (tmp_path / f"rendered_checks-{name}.html").read_text()
    assert "passed" in text
    assert "http" not in text.split("</style>")[1]  # opens without a network


def test_rendered_tables_tell_what_is_tied(rendered):
    checks = rendered_tables(rendered["trio"])["checks"]
    names = set(checks.index)
    assert "train: twin_b fg_shape differs from the label" in names
    assert "train: p of twin_a fg_shape and twin_b fg_shape" not in names  # tied by the label
    assert "train: p of twin_a fg_shape and solo fg_shape" in names
    assert "train: p of twin_a fg_color and the distance to bg_color" in names
    assert not checks.isna().any(axis=None)


OWN = {"full": {"erase": [0.0, 0.05]}, "partial": {"erase": [0.5, 0.6], "max_rotation": 180.0}}


def test_a_modality_is_held_to_its_own_style_and_labels_to_their_values(tmp_path):
    folder = tmp_path / "unique"
    sizes = {"train_size": 120, "test_size": 60, "workers": 1, "progress": False}
    style = Style(image_size=16, texture_period=0.25)
    meta = render_dataset("unique", folder, root_seed=3, style=style, label_values=5, own_style=OWN, **sizes)
    assert (meta["num_classes"], meta["ceilings"]["partial"]) == (25, 0.2)
    validate_dataset(folder, PREPARED, tmp_path)
    # Inside the bounds of the other modality alone, then a value that no label has.
    spoil_attributes(
        folder, lambda f: f.assign(erased_fraction=f["erased_fraction"].mask(f.index == 0, 0.55))
    )
    text = failure_of(validate_dataset, folder, html=tmp_path / "html")
    assert "row full: most that is erased: upper 0.05, value 0.55" in text
    spoil_attributes(folder, lambda f: f.assign(label=25))
    assert "label: expect_column_values_to_be_between (min_value=0, max_value=24)" in failure_of(
        validate_dataset, folder, html=tmp_path / "html"
    )


def test_the_tolerance_above_a_ceiling_follows_from_the_ceiling(curves, tmp_path):
    """Half a share that is known by guessing wanders more than a tenth; of a whole one none may be passed."""
    frame = pd.read_csv(curves, dtype={"run": str})
    fifth = frame["subset"] == "partial"
    for accuracy, passes in ((0.24, True), (0.26, False)):
        frame.assign(
            ceiling=frame["ceiling"].mask(fifth, 0.2),
            balanced_accuracy=frame["balanced_accuracy"].mask(fifth, accuracy),
        ).to_csv(curves, index=False)
        if passes:
            validate_curves(curves, SUITES, tmp_path / "html")
        else:
            assert "balanced_accuracy_limit 0.25" in failure_of(
                validate_curves, curves, html=tmp_path / "html"
            )


RENDER_FAULTS = {
    "id out of range": (
        lambda f: f.assign(fg_shape=f["fg_shape"].mask(f.index == 3, 12)),
        "fg_shape: expect_column_values_to_be_in_set .*1 row fails: row 3: 12",
    ),
    "same colours": (
        lambda f: f.assign(bg_color=f["bg_color"].mask(f.index == 5, f["fg_color"])),
        r"fg_color, bg_color: expect_select_column_values_to_be_uniq.*row 5: fg_color (\d), bg_color \1",
    ),
    "erased too much": (
        lambda f: f.assign(erased_fraction=f["erased_fraction"].mask(f.index < 8, 0.7)),
        r"erased_fraction: expect_column_values_to_be_between .*: 8 rows fail: row 0: 0.7",
    ),
    "no column": (
        lambda f: f.drop(columns="bg_texture"),
        "expect_table_columns_to_match_set .*missing bg_texture",
    ),
    "row twice": (
        lambda f: pd.concat([f, f[:1]]),
        "split, index, modality: expect_compound_columns_to_be_unique",
    ),
    "other label": (
        lambda f: f.assign(label=f["label"].mask(f.index == 0, (f["label"] + 1) % 10)),
        "row train: labels of the table that differ from the array: upper 0.0, value 1.0",
    ),
    "rows swapped": (
        lambda f: f.assign(fg_texture=(f["fg_texture"] + 1) % 10),
        "same: expect_column_values_to_be_in",
    ),
    "tied features": (
        lambda f: f.assign(bg_texture=f["fg_texture"]),
        "row train: p of rare fg_texture and rare bg_texture",
    ),
}


@pytest.mark.parametrize("fault", RENDER_FAULTS)
def test_spoilt_attributes_fail(missing, tmp_path, fault):
    change, message = RENDER_FAULTS[fault]
    spoil_attributes(missing, change)
    text = failure_of(validate_dataset, missing, html=tmp_path / "html")
    assert re.search(message, text), text
    assert "table missing: " in text
    named = re.findall(r"see (\S+\.html)", text)
    assert named
    assert all("failed" in Path(page).read_text() for page in named)


def test_equal_images_fail(missing, tmp_path):
    def change(images):
        images[1] = images[0]

    spoil_array(missing, "test.rare.npy", change)
    text = failure_of(validate_dataset, missing, html=tmp_path / "html")
    assert "sha256: expect_column_values_to_be_unique" in text
    assert "2 rows fail" in text


def test_presence_and_class_counts_are_checked(missing, tmp_path):
    def all_there(present_NM):
        present_NM[:200] = [False, True]
        present_NM[0] = False

    spoil_array(missing, "train.present.npy", all_there)
    spoil_array(missing, "train.label.npy", lambda label_N: label_N.fill(3))
    text = failure_of(validate_dataset, missing, html=tmp_path / "html")
    assert "train: least modalities of a sample" in text
    assert "train: class counts, range" in text


def test_altered_files_are_refused(missing, tmp_path):
    images = np.load(missing / "train.rare.npy", mmap_mode="r+")
    images[0, 0, 0, 0] ^= 1
    images.flush()
    with pytest.raises(DataError, match=r"train\.rare\.npy was altered"):
        validate_dataset(missing, PREPARED, tmp_path)


# Curves and AULC


@pytest.fixture
def curves(tmp_path) -> Path:
    path = tmp_path / "unique-low.csv"
    make_curves("unique", SELECTION).to_csv(path, index=False)
    return path


def test_good_curves_pass_and_the_page_is_the_same_each_time(curves, tmp_path):
    pages = []
    for name in ("a", "b"):
        validate_curves(curves, SUITES, tmp_path / name)
        pages.append((tmp_path / name / "curves-unique-low.html").read_bytes())
    assert pages[0] == pages[1]


CURVE_FAULTS = {
    "above the ceiling": (
        lambda f: f.assign(balanced_accuracy=f["balanced_accuracy"].mask(f.index == 1, 0.2)),
        r"balanced_accuracy_limit, balanced_accuracy: expect_column_pair\w+ .*1 row fails: row 1: "
        r"balanced_accuracy_limit 0.1379\d+, balanced_accuracy 0.2 \(.*query \w+.*seed \d, .*round \d",
    ),
    "not a share": (
        lambda f: f.assign(ece=1.5),
        r"ece: expect_column_values_to_be_between .*144 rows fail: (row \d: 1.5 .*; ){5}\.\.\.",
    ),
    "NaN": (
        lambda f: f.assign(accuracy=f["accuracy"].mask(f.index == 2)),
        "accuracy: expect_column_values_to_not_be_null",
    ),
    "labels shrink": (
        lambda f: f.assign(labelled=f["labelled"].mask(f["round"] == 2, 60)),
        "labelled_step: expect_column_values_to_be_between",
    ),
    "round lost": (lambda f: f[f.index != 4], "rounds_found, rounds: expect_column_pair_values_to_be_equal"),
    "mixed runs": (
        lambda f: f.assign(run=f["run"].mask(f.index == 4, "0" * 16)),
        "digests_found: expect_column_values_to_be_in_set",
    ),
    "row twice": (lambda f: pd.concat([f, f[:1]]), "expect_compound_columns_to_be_unique"),
    "no digest": (lambda f: f.assign(run="abc"), "run: expect_column_values_to_match_regex"),
    "other scale": (lambda f: f.assign(scale="huge"), "scale: expect_column_values_to_be_in_set"),
    "other dataset": (lambda f: f.assign(dataset="missing"), "dataset: expect_column_values_to_be_in_set"),
    "empty": (lambda f: f[:0], "expect_table_row_count_to_be_between"),
    "no column": (lambda f: f.drop(columns="ceiling"), "expect_table_columns_to_match_set .*missing ceiling"),
}


@pytest.mark.parametrize("fault", CURVE_FAULTS)
def test_spoilt_curves_fail(curves, tmp_path, fault):
    change, message = CURVE_FAULTS[fault]
    change(pd.read_csv(curves, dtype={"run": str})).to_csv(curves, index=False)
    text = failure_of(validate_curves, curves, html=tmp_path / "html")
    assert re.search(message, text), text
    assert text.startswith("table curves of unique-low: ")
    assert (tmp_path / "html" / "curves-unique-low.html").exists()


@pytest.fixture
def aulc(tmp_path) -> Path:
    frame = make_curves("unique", SELECTION)
    tidy(frame, order_of(frame)).to_csv(tmp_path / "aulc.csv", index=False)
    return tmp_path / "aulc.csv"


def test_good_aulc_tables_pass(aulc, tmp_path):
    validate_aulc(aulc, SUITES, tmp_path)
    one = make_curves("unique", SELECTION)
    one = one[one["seed"] == 0]
    tidy(one, order_of(one)).to_csv(aulc, index=False)
    validate_aulc(aulc, SUITES, tmp_path)


def test_cells_have_as_many_seeds_unless_runs_may_be_missing(aulc, tmp_path):
    curves = make_curves("unique", SELECTION)
    fewer = curves[(curves["seed"] == 0) | (curves["query"] == "random")]
    tidy(fewer, order_of(fewer)).to_csv(aulc, index=False)
    assert "n_seeds: expect_column_unique_value_count" in failure_of(validate_aulc, aulc, html=tmp_path)
    validate_aulc(aulc, SUITES, tmp_path, holes=True)


AULC_FAULTS = {
    "above the ceiling": (
        lambda f: f.assign(aulc_mean=f["aulc_mean"].mask(f["subset"] == "partial", 0.5)),
        "aulc_limit, aulc_mean: expect_column_pair_values_a_to_be_greater_than_b",
    ),
    "paper's numbers beside other settings": (
        lambda f: f.assign(scale="paper", paper_mean=0.5, changed="recipe.missing.epochs 60 → 3"),
        "paper_at_other_scale",
    ),
    "paper's numbers at tiny scale": (
        lambda f: f.assign(paper_mean=4.5),
        "paper_at_other_scale: expect_column_values_to_be_in_set",
    ),
    "not the mean": (
        lambda f: f.assign(mean_accuracy=0.5),
        "mean_accuracy_error: expect_column_values_to_be_between",
    ),
    "a spread of one": (
        lambda f: f.assign(n_seeds=1),
        "has_std, has_seeds: expect_column_pair_values_to_be_equal",
    ),
    "two scales": (
        lambda f: f.assign(scale=["paper"] + ["tiny"] * (len(f) - 1)),
        r"scale: expect_column_unique_value_count_to_be_between \(min_value=1, max_value=1\): found 2",
    ),
    "row twice": (lambda f: pd.concat([f, f[:1]]), "expect_compound_columns_to_be_unique"),
    "no column": (
        lambda f: f.drop(columns="paper_std"),
        "expect_table_columns_to_match_set .*missing paper_std",
    ),
}


@pytest.mark.parametrize("fault", AULC_FAULTS)
def test_spoilt_aulc_tables_fail(aulc, tmp_path, fault):
    change, message = AULC_FAULTS[fault]
    change(pd.read_csv(aulc)).to_csv(aulc, index=False)
    text = failure_of(validate_aulc, aulc, html=tmp_path / "html")
    assert re.search(message, text), text
    assert "see " in text


# Suites


@pytest.mark.parametrize("path", sorted(SUITES.rglob("*.json")), ids=lambda path: path.stem)
def test_suites_say_why(path):
    suite = json.loads(path.read_text())
    assert suite["name"] == path.stem
    for expectation in suite["expectations"]:
        assert expectation.keys() <= {"type", "kwargs", "meta", "when"}
        assert expectation["meta"]["notes"]


def test_parameters_and_conditions(tmp_path):
    path = tmp_path / "suite.json"
    column = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "a", "max_value": "$top"}}
    path.write_text(json.dumps({"name": "s", "expectations": [column, {**column, "when": "$strict"}]}))
    suite = load_suite(path, {"top": 4, "strict": False})
    assert [e["kwargs"]["max_value"] for e in suite["expectations"]] == [4]
    with pytest.raises(MindGapError, match=r"asks for the parameter \$strict; given: top"):
        load_suite(path, {"top": 4})
    frame = pd.DataFrame({"a": [1, 9]}, index=["low", "high"])
    with pytest.raises(ExpectationFailed, match=r"table t: 1 of 1 .*\n  a: .*1 row fails: row high: 9"):
        validate("t", frame, path, tmp_path / "t.html", {"top": 4, "strict": False})


def test_missing_and_broken_suites_are_named(tmp_path):
    with pytest.raises(MindGapError, match=r"none\.json is not there; it is in git"):
        load_suite(tmp_path / "none.json", {})
    (tmp_path / "half.json").write_text("{")
    with pytest.raises(MindGapError, match=r"half\.json is half written or not JSON"):
        load_suite(tmp_path / "half.json", {})


def test_a_failure_names_suite_row_meaning_and_mend_and_no_value_of_a_private_table(tmp_path):
    path = tmp_path / "suite.json"
    pair = {"column_A": "upper", "column_B": "value", "or_equal": True}
    kind = "expect_column_pair_values_a_to_be_greater_than_b"
    expectations = [
        {"type": kind, "kwargs": pair, "meta": {"notes": "None above its bound."}},
        {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "value", "max_value": 0}},
    ]
    path.write_text(json.dumps({"name": "suite", "expectations": expectations}))
    frame = pd.DataFrame({"check": ["leak"], "value": [0.0109], "upper": [0.01], "sha256": ["0" * 64]})
    with pytest.raises(ExpectationFailed) as failure:
        validate("t", frame, path, tmp_path / "t.html", mend="do this")
    assert str(failure.value).splitlines() == [
        f"table t: 2 of 2 expectations fail ({path})",
        f"  upper, value: {kind} (or_equal=true): 1 row fails: row 0: upper 0.01, value 0.0109 (check leak). "
        "None above its bound.",
        "  value: expect_column_mean_to_be_between (max_value=0): found 0.0109",
        f"  see {tmp_path / 't.html'}; do this",
    ]
    with pytest.raises(ExpectationFailed) as failure:
        validate("t", frame, path, tmp_path / "t.html", private=True)
    message = str(failure.value)
    assert "1 row fails: row 0. None above" in message
    assert "0.01" not in message
    assert "leak" not in message
    assert "0.0109" in (tmp_path / "t.html").read_text()
