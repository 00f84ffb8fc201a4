"""Sensitivity: the variants that are shipped, tables on curves made here, and variants that run."""

import json
import math
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from scipy.stats import kendalltau
from scipy.stats import t as student

from mindgap.base.errors import MindGapError, ParamsError
from mindgap.core.params import load_params
from mindgap.core.records import CURVE_COLUMNS
from mindgap.data.storage import read_meta
from mindgap.parts import fusions
from mindgap.results.reading import ReportError
from mindgap.results.sensitivity import (
    Variants,
    bald_against_random,
    collected_json,
    over_methods,
    read_collected,
    read_sensitivity,
    read_variants,
    sensitivity_table,
    sentences,
    wide_table,
)
from mindgap.results.site.content import content_of
from mindgap.results.site.page import render_index
from mindgap.stages.overrides import overridden
from mindgap.stages.paths import PAPER, REPORTS
from mindgap.stages.report import read_inputs, selection_of, variant_folders
from mindgap.stages.sensitivity import check_variants, collect_stage, run_stage
from small_project import working_copy
from test_cli import run as command

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "reports" / "sensitivity" / "variants.yaml"
FUSIONS = ROOT / "reports" / "fusions" / "variants.yaml"
START = ROOT / "reports" / "start" / "variants.yaml"
WEAK = {"missing": "rare"}
RAW = {
    "base": ["seeds=[0,1]", "query=[random,bald]"],
    "questions": {"image size": "32 px", "absent modality": "skip"},
    "variants": {
        "image-24": {"question": "image size", "value": "24 px", "set": ["scales.tiny.render.image_size=24"]},
        "image-48": {"question": "image size", "value": "48 px", "set": ["scales.tiny.render.image_size=48"]},
        "zeros": {"question": "absent modality", "value": "zeros", "set": ["scales.tiny.model.absent=zeros"]},
    },
}
VARIANTS = Variants.model_validate(RAW)
# Mean accuracies along the curve: variant, query, subset, then seeds 0 and 1.
ACCURACIES = {
    ("default", "random", "rare"): (0.30, 0.34),
    ("default", "bald", "rare"): (0.40, 0.42),
    ("default", "random", "rare+frequent"): (0.60, 0.62),
    ("default", "bald", "rare+frequent"): (0.50, 0.52),
    ("image-24", "random", "rare"): (0.20, 0.26),
    ("image-24", "bald", "rare"): (0.10, 0.16),
    ("image-24", "random", "rare+frequent"): (0.61, 0.62),
    ("image-24", "bald", "rare+frequent"): (0.51, 0.52),
}
FRAME_COLUMNS = [*CURVE_COLUMNS, "variant"]


def write_variants(folder: Path, **changes) -> Path:
    path = folder / "variants.yaml"
    path.write_text(yaml.safe_dump(RAW | changes, sort_keys=False))
    return path


def curves(accuracies=ACCURACIES, dataset: str = "missing") -> pd.DataFrame:
    """Curves of three points, whose mean along the curve is as given: x - 0.1, x, x + 0.1."""
    rows = []
    for (variant, query, subset), values in accuracies.items():
        for seed, value in enumerate(values):
            for i in range(3):
                cell = (
                    "tiny",
                    dataset,
                    "low",
                    "moddrop",
                    query,
                    seed,
                    f"{variant}{query}{seed}",
                    3,
                    i,
                    10 + i,
                )
                rows.append((*cell, subset, value - 0.1 + 0.1 * i, 0.5, 0.1, 0.1, 1.0, variant))
    return pd.DataFrame(rows, columns=FRAME_COLUMNS)


@pytest.fixture(scope="module")
def shipped() -> Variants:
    return read_variants(SHIPPED)


@pytest.mark.parametrize(
    ("path", "number"), [(SHIPPED, 9), (FUSIONS, 8), (START, 3)], ids=["sensitivity", "fusions", "start"]
)
def test_every_shipped_variant_can_be_run_and_all_differ(path, number, monkeypatch):
    monkeypatch.chdir(ROOT)
    variants = read_variants(path)
    check_variants(variants, path.parent)
    assert len(variants.keys) == number


@pytest.mark.parametrize(
    "path", sorted((ROOT / "reports").glob("*/variants.yaml")), ids=lambda p: p.parent.name
)
def test_every_shipped_folder_of_variants_can_be_run_and_the_page_follows_it(path, monkeypatch):
    """DVC makes the page again only where it knows the folder."""
    monkeypatch.chdir(ROOT)
    check_variants(read_variants(path), path.parent)
    report = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["report"]
    assert f"reports/{path.parent.name}" in report["deps"]


def test_the_shipped_fusions_are_all_there_are():
    variants = read_variants(FUSIONS)
    asked = {override.split("=")[1] for one in variants.variants.values() for override in one.set}
    assert asked | {variants.questions["fusion"]} == set(fusions.FUSIONS)
    assert read_collected(FUSIONS.parent) is None or (FUSIONS.parent / "default.csv").exists()


def test_the_shipped_values_are_those_of_the_overrides_and_of_params(shipped):
    """Each variant changes one parameter; value and default are in the texts that people read."""
    words = {"all": "all", "bald_only": "BALD's only", "skip": "skip", "zeros": "zeros", "0": "the labels"}
    words |= {"True": "left out", "false": "kept"}

    def shown(value: str, text: str) -> bool:
        return words.get(value, value) == text or value in re.findall(r"[\d.]+", text)

    default = overridden(shipped.overrides("default"), ROOT / "params.yaml")
    for key, variant in shipped.variants.items():
        (override,) = variant.set
        name, value = override.split("=")
        assert shown(value, variant.value), key
        at = default.model_dump()
        for part in name.split("."):
            at = at[part]
        assert shown(str(at), shipped.questions[variant.question]), key


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"variants": {"default": RAW["variants"]["zeros"]}},
            "variants.default: the default is `base` alone",
        ),
        ({"variants": {"a/b": RAW["variants"]["zeros"]}}, "variants.a/b: this names files"),
        ({"questions": {"image size": "32 px"}}, "variants.zeros: unknown question 'absent modality'; known"),
        (
            {"questions": RAW["questions"] | {"ModDrop rate": "0.5"}},
            "'ModDrop rate' has the values 0.5: give",
        ),
        (
            {"questions": RAW["questions"] | {"image size": "24 px"}},
            "has the values 24 px, 24 px, 48 px: give",
        ),
        ({"variants": {"zeros": {"question": "absent modality", "value": "zeros"}}}, "zeros.set: missing"),
        ({"reason": "none"}, "reason: unknown parameter"),
    ],
)
def test_a_file_of_variants_that_cannot_be_meant_is_refused(tmp_path, changes, message):
    path = write_variants(tmp_path, **changes)
    with pytest.raises((ReportError, ParamsError), match=re.escape(message)) as error:
        read_variants(path)
    assert str(path) in str(error.value)


def test_a_variant_given_twice_is_refused(tmp_path):
    path = write_variants(tmp_path)
    path.write_text(path.read_text() + "  zeros: {question: image size, value: 1 px, set: [seeds=3]}\n")
    with pytest.raises(ParamsError, match="key 'zeros' is given twice"):
        read_variants(path)


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A folder with the shipped parameters and the variants of this file; no git, no DVC."""
    (tmp_path / "reports" / "sensitivity").mkdir(parents=True)
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    write_variants(tmp_path / "reports" / "sensitivity")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "reports" / "sensitivity"


def changed(key: str, override: str) -> dict:
    return {"variants": RAW["variants"] | {key: RAW["variants"][key] | {"set": [override]}}}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "scales.tiny.render.image_sise=24",
            "image-24: .*Could not override 'scales.tiny.render.image_sise'",
        ),
        ("scales.tiny.render.image_size=small", "image-24: .*image_size: Input should be a valid integer"),
        ("scales.tiny.render.image_size=20", "image-24: scales.tiny.render: texture_period is 0.1875"),
        ("scales.tiny.render.image_size=16,24", "image-24: .*several values"),
        ("scales.tiny.render.image_size=48", "image-24 and image-48 ask for the same: take one out"),
        ("scales.tiny.render.image_size=32", "default and image-24 ask for the same: take one out"),
        ("scales.tiny.recipe.trio.all.epochs=3", "default and image-24 ask for the same: take one out"),
    ],
)
def test_what_params_refuse_is_refused_before_anything_runs(project, override, message):
    write_variants(project, **changed("image-24", override))
    with pytest.raises(MindGapError, match=message):
        run_stage()


def test_an_unknown_variant_is_refused(project):
    with pytest.raises(
        MindGapError, match="unknown variant image-25; known: default, image-24, image-48, zeros"
    ):
        run_stage(["image-25"])


def test_the_table_is_exact_and_paired_by_seed():
    table = sensitivity_table(curves(), VARIANTS, WEAK)
    # Nothing was collected on absence: the question is left out.
    assert set(table["question"]) == {"image size"}
    assert list(table["value"].unique()) == ["32 px", "24 px"]
    assert list(table["subset"].unique()) == ["rare", "rare+frequent"]
    assert len(table) == 8
    row = table.set_index(["value", "part", "query"])
    new = row.loc[("24 px", "weak", "bald")]
    assert new["mean"] == pytest.approx(0.13, abs=1e-12)
    assert new["difference"] == pytest.approx(-0.28, abs=1e-12)
    # Per seed -0.30 and -0.26: their spread, not that of the means.
    assert new["difference_std"] == pytest.approx(0.04 / math.sqrt(2), abs=1e-12)
    assert new["difference_ci95"] == pytest.approx(student.ppf(0.975, 1) * 0.02, abs=1e-12)
    assert new[["n_seeds", "subset", "mitigation", "regime"]].tolist() == [2, "rare", "moddrop", "low"]
    reference = row.loc[("32 px", "weak", "bald")]
    assert reference["is_default"]
    assert reference["std"] == pytest.approx(0.02 / math.sqrt(2), abs=1e-12)
    assert math.isnan(reference["difference"])


def test_the_mean_over_methods_is_taken_within_seeds_and_orders_are_compared():
    methods = over_methods(curves(), VARIANTS, WEAK).set_index(["value", "part"])
    new = methods.loc[("24 px", "weak")]
    assert new["mean"] == pytest.approx(0.18, abs=1e-12)
    # Seed 0: 0.35 to 0.15; seed 1: 0.38 to 0.21.
    assert new["difference"] == pytest.approx(-0.185, abs=1e-12)
    assert new["difference_std"] == pytest.approx(0.03 / math.sqrt(2), abs=1e-12)
    assert new[["n_queries", "order", "tau", "same_order"]].tolist() == [2, "Random > BALD", -1.0, False]
    assert methods.loc[("32 px", "weak"), "order"] == "BALD > Random"
    assert methods.loc[("24 px", "all"), ["tau", "same_order"]].tolist() == [1.0, True]
    assert methods.loc["32 px", "same_order"].all()


def test_tau_is_kendalls_with_ties():
    means = {"default": (0.1, 0.2, 0.3, 0.4), "image-24": (0.2, 0.2, 0.4, 0.3)}
    names = ("random", "entropy", "bald", "badge")
    frame = curves(
        {
            (variant, query, "rare+frequent"): (value,)
            for variant, values in means.items()
            for query, value in zip(names, values, strict=True)
        }
    )
    row = over_methods(frame, VARIANTS, {}).iloc[1]
    assert row["tau"] == pytest.approx(kendalltau(*means.values()).statistic, abs=1e-12)
    assert row["tau"] == pytest.approx(
        3 / math.sqrt(30), abs=1e-12
    )  # 4 of 6 pairs as before, 1 turned, 1 tied
    assert not row["same_order"]
    assert row["order"] == "BALD > BADGE > Random > Entropy"
    assert math.isnan(row["difference_std"])  # one seed


def test_a_control_and_the_order_of_rows_change_nothing():
    frame = curves()
    expected = over_methods(frame, VARIANTS, WEAK)
    control = frame[frame["query"] == "bald"].assign(query="presence_balanced", balanced_accuracy=0.9)
    with_control = over_methods(pd.concat([frame, control]), VARIANTS, WEAK)
    pd.testing.assert_frame_equal(with_control, expected, check_exact=True)
    keys = ["value", "part"]
    backwards = over_methods(frame.iloc[::-1], VARIANTS, WEAK).set_index(keys)
    pd.testing.assert_frame_equal(
        backwards.loc[expected.set_index(keys).index], expected.set_index(keys), check_exact=True
    )


def test_the_page_has_a_row_a_value_and_a_column_a_dataset_and_part():
    unique = {
        (v, q, s.replace("rare", "full").replace("frequent", "partial")): x
        for (v, q, s), x in ACCURACIES.items()
    }
    frame = pd.concat([curves(), curves(unique, "unique")])
    wide = wide_table(over_methods(frame, VARIANTS, WEAK | {"unique": "full"}))
    columns = ["Missing: Rare", "Missing: Both", "Unique: Full", "Unique: Both"]
    assert wide.columns.tolist() == ["question", "value", *columns]
    assert wide.to_numpy().tolist() == [
        ["image size", "32 px", *["0.365 ± 0.021", "0.560 ± 0.014"] * 2],
        ["image size", "24 px", *["0.180 ± 0.042 (-0.185)", "0.565 ± 0.007 (+0.005)"] * 2],
    ]


def test_one_seed_and_no_difference_are_shown_as_such():
    values = {key: value[:1] for key, value in ACCURACIES.items() if key[0] == "default"}
    same = {("zeros", *key[1:]): (value[0] - 1e-5,) for key, value in values.items()}
    wide = wide_table(over_methods(curves(values | same), VARIANTS, WEAK))
    assert wide["Missing: Rare"].tolist() == ["0.350", "0.350 (+0.000)"]


def test_balds_lead_over_random_is_paired_by_seed():
    lead = bald_against_random(curves(), VARIANTS, WEAK).set_index(["value", "part"])
    new = lead.loc[("24 px", "weak")]
    assert new["lead"] == pytest.approx(-0.10, abs=1e-12)
    assert new["lead_std"] == pytest.approx(0.0, abs=1e-12)
    # The default leads by 0.10 and 0.08.
    assert lead.loc[("32 px", "weak"), "lead"] == pytest.approx(0.09, abs=1e-12)
    assert new["change"] == pytest.approx(-0.19, abs=1e-12)
    assert new["change_std"] == pytest.approx(0.02 / math.sqrt(2), abs=1e-12)
    assert math.isnan(lead.loc[("32 px", "all"), "change"])
    without = {key: value for key, value in ACCURACIES.items() if key[1] != "random"}
    assert bald_against_random(curves(without), VARIANTS, WEAK).empty


def test_a_question_is_a_sentence():
    assert sentences(over_methods(curves(), VARIANTS, WEAK)) == [
        "Image size: the mean over methods changes most by -0.185 (24 px; Missing, Rare), beyond the 95 % "
        "interval over seeds in 0 of 2 cells; the order of methods differs in 1 of 2."
    ]


def test_a_run_that_the_default_lacks_is_named():
    lacking = {key: value for key, value in ACCURACIES.items() if key[:2] != ("default", "bald")}
    message = "image-24 has a run that default lacks (missing, moddrop, low, rare, bald, seed 0)"
    with pytest.raises(ReportError, match=re.escape(message)):
        sensitivity_table(curves(lacking), VARIANTS, WEAK)


def write_collected(
    folder: Path, key: str, numerics: str = "n" * 64, fusion: str = "transformer", loop: str = "l" * 64
) -> Path:
    frame = curves().query("variant == @key").drop(columns="variant")
    data = frame.to_csv(index=False, lineterminator="\n").encode()
    path = folder / f"{key}.csv"
    path.write_bytes(data)
    runs = {run: {"numerics": numerics, "settings": "s"} for run in frame["run"].unique()}
    settings = {"s": {"setting": {"model": {"fusion": {"name": fusion}}}}}
    text = collected_json(VARIANTS.overrides(key), data, [{"runs": runs, "settings": settings}], loop)
    path.with_suffix(".json").write_text(text)
    return path


@pytest.fixture
def collected(tmp_path) -> Path:
    write_variants(tmp_path)
    for key in ("default", "image-24"):
        write_collected(tmp_path, key)
    return tmp_path


def test_what_was_collected_is_read_as_it_was_written(collected, tmp_path):
    frame = read_sensitivity(collected)
    pd.testing.assert_frame_equal(frame[FRAME_COLUMNS], curves(), check_exact=True, check_dtype=False)
    assert len(sensitivity_table(frame, VARIANTS, WEAK)) == 8
    assert read_sensitivity(tmp_path / "nowhere") is None
    for path in collected.glob("*.csv"):
        path.unlink()
    assert read_sensitivity(collected) is None


def damage_csv(folder: Path) -> None:
    path = folder / "image-24.csv"
    path.write_text(path.read_text().replace("0.5", "0.6"))


def damage_overrides(folder: Path) -> None:
    write_variants(folder, **changed("image-24", "scales.tiny.render.image_size=28"))


def damage_json(folder: Path) -> None:
    path = folder / "image-24.json"
    path.write_text(json.dumps({"set": [], "curves": ""}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            damage_csv,
            "image-24.csv was changed after it was collected; run `mindgap sensitivity run image-24`",
        ),
        (damage_overrides, "image_size=24`, but variants.yaml asks for `.*image_size=28`; run `mindgap sens"),
        (damage_json, r"image-24.json is no record of provenance \(KeyError\('runs'\)\); run `mindgap"),
        (lambda folder: (folder / "image-24.json").unlink(), "image-24.json is not there; run `mindgap"),
        (lambda folder: (folder / "default.csv").unlink(), "default.csv is not there, the reference of all"),
        (lambda folder: (folder / "variants.yaml").unlink(), "variants.yaml is not here"),
        (
            lambda folder: write_collected(folder, "default").rename(folder / "old.csv"),
            "old.csv is of no variant",
        ),
        (
            lambda folder: write_collected(folder, "image-24", numerics="m" * 64),
            r"run image-24bald0 was made by other code \(m{12}\) than default \(n{12}\)",
        ),
    ],
)
def test_what_is_not_as_it_was_collected_is_refused(collected, damage, message):
    damage(collected)
    with pytest.raises(MindGapError, match=message):
        read_sensitivity(collected)


def test_runs_of_two_fusions_share_all_code_but_the_fusions(collected):
    write_collected(collected, "image-24", "m" * 64, "gated")
    assert len(read_sensitivity(collected)) == len(curves())
    for loop, told in (("k" * 64, "k{12}"), ("", "not known")):
        write_collected(collected, "image-24", "m" * 64, "gated", loop)
        message = rf"run image-24bald0 was made by other code \({told}\) than default \(l{{12}}\)"
        with pytest.raises(ReportError, match=message):
            read_sensitivity(collected)
    # Of one fusion all code is the same, whatever is said of the rest.
    write_collected(collected, "image-24", "m" * 64)
    with pytest.raises(ReportError, match=r"by other code \(m{12}\) than default \(n{12}\)"):
        read_sensitivity(collected)


def test_every_modality_is_a_part():
    strong = {(v, q, "frequent"): x for (v, q, s), x in ACCURACIES.items() if s == "rare"}
    frame = curves(ACCURACIES | strong)
    table = sensitivity_table(frame, VARIANTS, WEAK)
    assert list(table[["part", "subset"]].drop_duplicates().itertuples(index=False, name=None)) == [
        ("weak", "rare"),
        ("strong", "frequent"),
        ("all", "rare+frequent"),
    ]
    wide = wide_table(over_methods(frame, VARIANTS, WEAK))
    assert list(wide.columns[2:]) == ["Missing: Rare", "Missing: Frequent", "Missing: Both"]
    assert wide["Missing: Frequent"].tolist() == wide["Missing: Rare"].tolist()
    assert set(sensitivity_table(frame, VARIANTS, {})["part"]) == {"single", "all"}


@pytest.mark.parametrize("folder", ["elsewhere", "reports", "reports/sensitivity/deeper"])
def test_variants_are_where_the_report_looks_for_them(project, folder):
    for stage in (lambda: run_stage([], Path(folder)), lambda: collect_stage("zeros", Path(), Path(folder))):
        with pytest.raises(MindGapError, match=f"^{folder} is no folder of reports, where the report looks"):
            stage()


def test_a_folder_of_variants_is_named_in_what_mends_it(project, monkeypatch, capsys):
    folder = Path("reports/fusions")
    shutil.copytree(project, folder)
    write_collected(folder, "image-24")
    with pytest.raises(ReportError, match="run `mindgap sensitivity run --folder reports/fusions default`"):
        read_sensitivity(folder)
    path = write_collected(folder, "default")
    path.write_text(path.read_text().replace("0.5", "0.6"))
    with pytest.raises(ReportError, match="run `mindgap sensitivity run --folder reports/fusions default`"):
        read_collected(folder)
    # The command reads that folder, also with an end as shells complete it.
    assert command(monkeypatch, "sensitivity", "run", "--folder", "reports/fusions/", "mo") == 1
    assert "unknown variant mo; known: default, image-24" in capsys.readouterr().err
    assert variant_folders() == [folder, Path("reports/sensitivity")]


# Two variants of a small project, run as by hand.


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "reports" / "sensitivity").glob("*.*")}


def content_of_reports(project: Path):
    params = load_params(project / "params.yaml")
    selection = selection_of(params, REPORTS)
    inputs = read_inputs(selection, REPORTS, "", variant_folders())
    return content_of(inputs, PAPER, selection)


@pytest.fixture
def small_project(finished, tmp_path, monkeypatch) -> Path:
    """A project with finished runs as the working folder, whose store has those of the default too."""
    folder = working_copy(finished / "project", tmp_path, monkeypatch)
    shutil.copytree(finished / "store", tmp_path / "store")
    (folder / "reports" / "sensitivity").mkdir()
    variants = {"image-24": RAW["variants"]["image-24"]}
    base = ["seeds=[0]", "query=[random]"]
    write_variants(
        folder / "reports" / "sensitivity", base=base, variants=variants, questions={"image size": "16 px"}
    )
    return folder


@pytest.mark.slow
def test_variants_are_run_and_collected_with_the_store_of_the_project(small_project, tmp_path):
    before = {path.parent.name for path in (tmp_path / "store").glob("*/round_*.json")}
    run_stage()
    frame = read_sensitivity(small_project / "reports" / "sensitivity")
    assert frame.groupby("variant")["run"].nunique().to_dict() == {"default": 1, "image-24": 1}
    made = small_project / ".mindgap" / "sensitivity"
    assert (made / "default/data/prepared/missing").resolve() == small_project / "data/prepared/missing"
    assert read_meta(made / "image-24/data/prepared/missing")["style"]["image_size"] == 24
    assert (
        files_of(small_project)["image-24.csv"]
        == (made / "image-24/reports/curves/missing-low.csv").read_bytes()
    )
    # Of the default nothing was computed again: the new runs are an initial model, or two, and one run.
    (run,) = frame.loc[frame["variant"] == "default", "run"].unique()
    assert run in before
    after = {path.parent.name for path in (tmp_path / "store").glob("*/round_*.json")}
    assert len(after - before) == 2
    # Another folder has another question: a fusion, whose code is its own.
    folder = small_project / "reports" / "fusions"
    folder.mkdir()
    gated = {"question": "fusion", "value": "gated", "set": ["scales.tiny.model.fusion.name=gated"]}
    base, asked = ["seeds=[0]", "query=[random]"], {"fusion": "transformer"}
    write_variants(folder, base=base, variants={"gated": gated}, questions=asked, title="Fusions")
    run_stage(folder=Path("reports/fusions"))
    assert (small_project / ".mindgap/fusions/gated/reports/curves/missing-low.csv").exists()
    page = render_index(content_of_reports(small_project), {})
    assert '<section id="fusions">\n<h2>Fusions</h2>' in page
    assert '<section id="sensitivity">' in page
    assert re.search(r"<td>fusion</td><td>gated</td>(<td>0\.\d{3} \([-+]0\.\d{3}\)</td>){3}", page)
    # Damage is mended as the message says.
    path = small_project / "reports/sensitivity/default.csv"
    path.write_text(path.read_text().replace("0.", "0.1", 1))
    with pytest.raises(
        ReportError, match="was changed after it was collected; run `mindgap sensitivity run de"
    ):
        read_sensitivity(path.parent)
    run_stage(["default"])
    pd.testing.assert_frame_equal(read_sensitivity(path.parent), frame)


def test_plain_runs_are_collected_if_they_are_the_variants(small_project, tmp_path, capsys):
    made, dvc = tmp_path / "made", small_project / "dvc.yaml"
    shutil.copytree(small_project, made)
    with pytest.raises(MindGapError, match=r"default: .* was made with other parameters: .*seeds was"):
        collect_stage("default", made)
    asked = ["seeds=[0,1]", "query=[random,badge]"]
    write_variants(small_project / "reports" / "sensitivity", base=asked)
    # Whether the page follows is said.
    for deps, told in (("fusions", True), ("sensitivity", False)):
        dvc.write_text(f"stages:\n  report:\n    deps:\n    - reports/{deps}\n")
        collect_stage("default", made)
        assert ("dvc.yaml: add reports/sensitivity to `deps`" in capsys.readouterr().out) is told
    assert files_of(small_project)["default.csv"] == (made / "reports/curves/missing-low.csv").read_bytes()
    assert set(json.loads(files_of(small_project)["default.json"])["runs"]) == set(
        read_sensitivity(small_project / "reports" / "sensitivity")["run"]
    )
    before = files_of(small_project)
    with pytest.raises(
        MindGapError, match=r"zeros: .*scales\.tiny.model\.absent was skip, zeros is asked for"
    ):
        collect_stage("zeros", made)
    (made / "reports/curves/missing-low.csv").unlink()
    with pytest.raises(MindGapError, match=r"missing-low\.csv"):
        collect_stage("default", made)
    with pytest.raises(MindGapError, match=r"params\.yaml"):
        collect_stage("default", tmp_path / "nowhere")
    assert files_of(small_project) == before
