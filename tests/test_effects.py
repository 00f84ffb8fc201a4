"""What mitigations and methods do to each modality, and the registered test: exact small truths."""

import hashlib
import math
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student
from scipy.stats import ttest_1samp

from mindgap.results.curves import COLUMNS, Selection
from mindgap.results.effects import effects
from mindgap.results.preregistered import (
    ALPHA,
    FAILED,
    FEW,
    PASSED,
    TUNED,
    UNKNOWN,
    UNRANKED,
    preregistered,
    still_open,
)
from mindgap.results.provenance import Origin
from mindgap.results.site.build import all_figures, build_report, output_names
from mindgap.results.site.content import Inputs, content_of
from mindgap.results.site.page import render_index
from mindgap.results.statistics import holm

PAPER = Path(__file__).parents[1] / "data" / "paper"

MODALITIES = {
    "missing": ("rare", "frequent"),
    "unique": ("partial", "full"),
    "trio": ("twin_a", "twin_b", "solo"),
}
WEAK = {"missing": "rare", "unique": "partial"}
SELECTION = Selection("small", list(MODALITIES), ["mid"], [], [], [], weak=WEAK)


def seeds_of(runs: dict, dataset: str = "unique") -> pd.DataFrame:
    """Rows as of `per_seed`: `runs` has levels by mitigation, query and subset, a number a seed.

    Chance is 0.1 and the ceiling 0.5 of 4 intervals, so a level of 0.5 is an area of 1.2.
    """
    rows = []
    for (mitigation, query, subset), levels in runs.items():
        for seed, level in enumerate(levels):
            area = 4 * (0.1 + 0.4 * level)
            rows.append(("small", dataset, mitigation, "mid", query, subset, seed, 5, area, 0.4, 2.0))
    names = ["scale", "dataset", "mitigation", "regime", "query", "subset", "seed", "rounds", "aulc"]
    return pd.DataFrame(rows, columns=[*names, "chance_aulc", "ceiling_aulc"])


def runs_of(mitigation: str, query: str, weak, joint, strong=None) -> dict:
    strong = joint if strong is None else strong
    subsets = {"partial": weak, "full": strong, "partial+full": joint}
    return {(mitigation, query, subset): values for subset, values in subsets.items()}


def test_differences_are_paired_by_seed_and_the_interval_is_students():
    seeds = seeds_of(
        {
            **runs_of("none", "random", [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]),
            **runs_of("ogm_ge", "random", [0.2, 0.4, 0.3], [0.5, 0.5, 0.5]),
            **runs_of("ogm_ge", "teach", [0.3, 0.6], [0.6, 0.6]),
        }
    )
    table = effects(seeds, WEAK).set_index(["mitigation", "query", "role"])
    assert len(table) == 3 * 3
    plain = table.loc[("none", "random", "weak")]
    assert plain["level"] == pytest.approx(0.2, abs=1e-12)
    assert plain["std"] == pytest.approx(0.1, abs=1e-12)
    assert plain[["n_to_none", "n_to_random"]].tolist() == [0, 0]
    assert math.isnan(plain["difference_to_none"])
    one = table.loc[("ogm_ge", "random", "weak")]
    assert (one["subset"], one["n_seeds"], one["n_to_none"]) == ("partial", 3, 3)
    # 0.1, 0.2 and 0.0: their mean and Student's interval.
    assert one["difference_to_none"] == pytest.approx(0.1, abs=1e-12)
    half = student.ppf(0.975, 2) * 0.1 / math.sqrt(3)
    assert one["low_to_none"] == pytest.approx(0.1 - half, abs=1e-12)
    assert one["high_to_none"] == pytest.approx(0.1 + half, abs=1e-12)
    assert table.loc[("ogm_ge", "random", "joint"), "difference_to_none"] == pytest.approx(-0.1, abs=1e-12)
    teach = table.loc[("ogm_ge", "teach", "weak")]
    # Two common seeds: a difference without an interval; no run of Teach without mitigation.
    assert (teach["n_to_random"], teach["n_to_none"]) == (2, 0)
    assert teach["difference_to_random"] == pytest.approx(0.15, abs=1e-12)
    assert math.isnan(teach["low_to_random"])
    assert math.isnan(teach["difference_to_none"])


def test_a_dataset_without_a_weak_modality_has_single_ones():
    subsets = ["twin_a", "twin_b", "solo", "twin_a+twin_b", "twin_a+twin_b+solo"]
    table = effects(seeds_of({("none", "random", s): [0.5] for s in subsets}, "trio"), WEAK)
    assert dict(zip(table["subset"], table["role"], strict=True)) == {
        **dict.fromkeys(subsets[:3], "single"),
        "twin_a+twin_b+solo": "joint",
    }


# The registered test

N = 10
NOISE = np.array([0.01, -0.01] * (N // 2))


def against_rivals(weak: float, joint: float = 0.6, noise: float = 1.0, query: str = "teach", **more) -> dict:
    """Rivals at weak levels 0.30 (K-center) and 0.32 (BADGE), joint 0.6; a method `weak` above BADGE."""
    flat = np.full(N, 0.6)
    mitigation = more.get("mitigation", "moddrop")
    return {
        **runs_of(mitigation, "kcenter_greedy", np.full(N, 0.30), flat),
        **runs_of(mitigation, "badge", np.full(N, 0.32), flat),
        **runs_of(mitigation, query, 0.32 + weak + noise * NOISE, joint + NOISE),
    }


def only(table: pd.DataFrame) -> pd.Series:
    (row,) = table.to_dict("records")
    return row


def test_a_method_above_the_better_rival_passes_and_the_numbers_are_the_t_tests():
    row = only(preregistered(seeds_of(against_rivals(0.05)), SELECTION))
    assert (row["method"], row["rival"], row["rival_mitigation"]) == ("teach", "badge", "moddrop")
    assert (row["weak"], row["n_seeds"], row["verdict"], row["why"]) == ("partial", 10, PASSED, "")
    deviation = np.std(NOISE, ddof=1)
    half = student.ppf(0.975, N - 1) * deviation / math.sqrt(N)
    assert row["weak_difference"] == pytest.approx(0.05, abs=1e-12)
    assert (row["weak_low"], row["weak_high"]) == pytest.approx((0.05 - half, 0.05 + half), abs=1e-12)
    assert row["p"] == row["p_holm"] == pytest.approx(ttest_1samp(0.05 + NOISE, 0).pvalue, rel=1e-6)
    assert row["joint_low"] == pytest.approx(-half, abs=1e-12)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"weak": 0.0}, "weak is not told to be above BADGE"),
        ({"weak": -0.05}, "weak is not told to be above BADGE"),
        ({"weak": 0.005, "noise": 3.0}, "weak is not told to be above BADGE"),
        ({"weak": 0.05, "joint": 0.59}, "all together may lose more than 0.01"),
        (
            {"weak": -0.05, "joint": 0.5},
            "weak is not told to be above BADGE; all together may lose more than",
        ),
    ],
)
def test_what_fails_says_of_what(changes, why):
    row = only(preregistered(seeds_of(against_rivals(**changes)), SELECTION))
    assert row["verdict"] == FAILED
    assert row["why"].startswith(why)


def test_above_k_center_alone_is_not_enough():
    row = only(
        preregistered(seeds_of(against_rivals(-0.01, noise=0.1)), SELECTION)
    )  # 0.31: above 0.30, below 0.32
    assert (row["rival"], row["verdict"]) == ("badge", FAILED)


def test_holms_interval_leaves_out_0_exactly_where_the_adjusted_p_does():
    for p in ([0.001, 0.02, 0.04], [0.03, 0.032, 0.04], [0.01, 0.6], [0.04], [0.02, 0.02, 0.9, 0.0001]):
        p = np.array(p)
        assert (p <= ALPHA / still_open(p)).tolist() == (holm(p) <= ALPHA).tolist()
    assert still_open(np.array([0.04, 0.001, 0.02])).tolist() == [1, 3, 2]
    assert still_open(np.array([0.03, 0.032, 0.04])).tolist() == [3, 3, 3]


def test_settings_are_corrected_together():
    """A difference that one test alone would find is lost beside a second one that finds nothing."""
    weak = 0.0112  # with a noise of 0.0142 a p between 0.025 and 0.05
    alone = against_rivals(weak, noise=1.42, mitigation="none")
    assert only(preregistered(seeds_of(alone), SELECTION))["verdict"] == PASSED
    table = preregistered(seeds_of(alone | against_rivals(0.0)), SELECTION).set_index("mitigation")
    p, adjusted = table.loc["none", ["p", "p_holm"]]
    assert ALPHA / 2 < p < ALPHA < adjusted == pytest.approx(2 * p)
    assert table.loc["none", "verdict"] == FAILED
    assert table.loc["none", "weak_low"] < 0


def test_only_held_out_datasets_with_enough_seeds_and_an_open_gate_are_judged():
    few = {key: values[:9] for key, values in against_rivals(0.05).items()}
    row = only(preregistered(seeds_of(few), SELECTION))
    assert (row["verdict"], row["why"]) == (FEW, "9 paired seeds, 10 are needed")
    assert math.isnan(row["p_holm"])
    closed = replace(SELECTION, unranked={("unique", "mid", "moddrop"): "curves rise"})
    row = only(preregistered(seeds_of(against_rivals(0.05)), closed))
    assert (row["verdict"], row["why"]) == (UNRANKED, "the gate failed: curves rise")
    named = {"partial": "rare", "full": "frequent", "partial+full": "rare+frequent"}
    missing = {(m, q, named[s]): values for (m, q, s), values in against_rivals(0.05).items()}
    row = only(preregistered(seeds_of(missing, "missing"), SELECTION))
    assert (row["verdict"], row["why"]) == (TUNED, "it was tuned on this dataset")
    assert row["weak_difference"] == pytest.approx(0.05, abs=1e-12)


def test_a_rival_that_was_not_run_is_named():
    runs = {key: values for key, values in against_rivals(0.05).items() if key[1] != "badge"}
    row = only(preregistered(seeds_of(runs), SELECTION))
    assert (row["verdict"], row["why"], row["n_seeds"]) == (UNKNOWN, "no runs of BADGE with ModDrop", 0)
    assert preregistered(seeds_of(runs_of("none", "random", [0.1], [0.2])), SELECTION).empty


def test_a_mitigation_of_our_own_is_compared_with_rivals_without_it():
    rivals = {key: v for key, v in against_rivals(0, mitigation="none").items() if key[1] != "teach"}
    own = {("coteach", "random", key[2]): v for key, v in against_rivals(0.05).items() if key[1] == "teach"}
    row = only(preregistered(seeds_of(rivals | own), SELECTION))
    assert (row["method"], row["mitigation"], row["query"]) == ("coteach", "coteach", "random")
    assert (row["rival"], row["rival_mitigation"], row["verdict"]) == ("badge", "none", PASSED)


def test_without_a_weak_modality_it_is_where_the_rivals_are_lowest():
    runs = {}
    for query, lift in (("kcenter_greedy", 0.0), ("badge", 0.01), ("mcover", 0.05)):
        levels = {"twin_a": 0.3, "twin_b": 0.2, "solo": 0.4, "twin_a+twin_b+solo": 0.6}
        if query == "mcover":
            levels["solo"] = 0.1  # its own runs choose nothing
        for subset, level in levels.items():
            noise = NOISE if query == "mcover" else 0.0
            runs["none", query, subset] = np.full(N, level + lift) + noise
    row = only(preregistered(seeds_of(runs, "trio"), SELECTION))
    assert (row["weak"], row["rival"], row["verdict"]) == ("twin_b", "badge", PASSED)
    assert row["weak_difference"] == pytest.approx(0.04, abs=1e-12)


# On the page


def curves_of(runs: dict, dataset: str) -> pd.DataFrame:
    """Curves of two points whose areas are those of `seeds_of`: levels rise from 0.1 below to 0.1 above."""
    rows = []
    for (mitigation, query, subset), levels in runs.items():
        for seed, level in enumerate(levels):
            run = hashlib.sha256(f"{dataset} {mitigation} {query} {seed}".encode()).hexdigest()[:16]
            for i, shift in enumerate((-0.1, 0.1)):
                value = 0.1 + 0.4 * (level + shift)
                cell = ("small", dataset, "mid", mitigation, query, seed, run, 2, i, 50 * (i + 1))
                rows.append((*cell, subset, value, value, 0.1, 0.1, 0.5))
    return pd.DataFrame(rows, columns=COLUMNS)


@pytest.fixture(scope="module")
def beyond(tmp_path_factory) -> Path:
    """A report of what is not in the paper, with holes; Trio has three modalities."""
    unique = {
        **against_rivals(0.05),
        **against_rivals(-0.05, query="mcover"),
        **runs_of("moddrop", "random", [0.2] * N, [0.6] * N),
        **runs_of("ogm_ge", "random", [0.25] * N, [0.55] * N),
    }
    singles = ["twin_a", "twin_b", "solo"]
    trio = {
        ("ogm_ge", "random", "+".join(subset)): [0.3 + 0.1 * len(subset)] * N
        for size in (1, 2, 3)
        for subset in combinations(singles, size)
    }
    curves = pd.concat([curves_of(unique, "unique"), curves_of(trio, "trio")], ignore_index=True)
    selection = replace(
        SELECTION,
        datasets=["unique", "trio"],
        regimes=["mid"],
        queries=["random", "kcenter_greedy", "badge", "teach", "mcover"],
        mitigations=["moddrop", "ogm_ge"],
        seeds=list(range(N)),
        there=[("unique", "mid"), ("trio", "mid")],
    )
    folder = tmp_path_factory.mktemp("beyond")
    origins = []
    for dataset, part in curves.groupby("dataset"):
        made = {cell: {"setting": {}} for cell in zip(part["mitigation"], part["query"], strict=True)}
        told = {"commits": ["c"], "devices": ["cpu"], "versions": ["torch 2"]}
        origins.append(Origin(dataset, "mid", len(made), "d" * 64, "n" * 64, **told, settings=made))
    build_report(Inputs(curves, origins), folder, PAPER, selection)
    return folder


def test_the_tables_of_a_report_have_what_was_run_and_say_what_is_not_in_the_paper(beyond):
    table = pd.read_csv(beyond / "tables/mitigations.csv").set_index(
        ["dataset", "mitigation", "query", "role"]
    )
    assert table.loc[("unique", "moddrop", "teach", "weak"), "difference_to_random"] == pytest.approx(0.17)
    assert sorted(table.loc[("trio", "ogm_ge", "random", "single"), "subset"]) == ["solo", "twin_a", "twin_b"]
    tests = pd.read_csv(beyond / "tables/preregistered.csv").set_index("query")
    assert tests["verdict"].to_dict() == {"teach": PASSED, "mcover": FAILED}
    text = (beyond / "tables/unique-ogm_ge.md").read_text()
    # Of a mitigation that the paper does not have, no row is a hole.
    assert [line.split(" ")[1] for line in text.splitlines() if line.startswith("| ")][2:] == ["Random"]
    assert "Without a run here, and not in the paper's grid: KCG, BADGE, Teach, MCover." in text
    assert "Not in the paper: OGM-GE." in text
    assert "Not in the paper: Teach, MCover." in (beyond / "tables/unique-moddrop.md").read_text()
    assert (beyond / "tables/trio-ogm_ge.md").exists()


def test_the_page_reads_well_beyond_the_paper(beyond):
    page = (beyond / "index.html").read_text()
    assert "<dd>Teach, MCover, OGM-GE</dd>" in page
    assert 'id="mitigations"' in page
    assert "<summary>OGM-GE (not in the paper)</summary>" in page
    assert "Teach: passed in 1 of 1 settings." in page
    assert "MCover: passed in 0 of 1 settings." in page
    assert "+0.170 ± 0.008" in page  # Teach to Random, on the weak modality
    for link in re.findall(r'(?:src|href)="((?:tables|figures)/[^"#:]+)"', page):
        assert (beyond / link).exists(), link
    assert set(re.findall(r'href="#([a-z]+)"', page)) <= set(re.findall(r'id="([a-z]+)"', page))
    names = [str(path.relative_to(beyond)) for path in beyond.rglob("*") if path.is_file()]
    known = re.compile("|".join(output_names(["unique", "trio"], ["mid"], ["moddrop", "ogm_ge"])))
    assert [name for name in names if not known.fullmatch(name)] == []


def test_mitigations_of_random_are_lines_of_one_figure(tmp_path):
    """From three on; a line that stands there has no figure of its own, unless the paper has it."""
    named = ["none", "moddrop", "agm", "pmr"]
    runs = {}
    for i, name in enumerate(named):
        runs |= runs_of(name, "random", [0.2 + 0.1 * i] * 5, [0.6] * 5)
    runs |= runs_of("pmr", "badge", [0.3] * 5, [0.6] * 5)
    selection = replace(
        SELECTION,
        datasets=["unique"],
        queries=["random", "badge"],
        mitigations=named,
        seeds=list(range(5)),
    )
    content = content_of(Inputs(curves_of(runs, "unique")), PAPER, selection)
    assert [content.has_figures("unique", name) for name in named] == [True, True, False, True]
    all_figures(content, tmp_path)
    words = re.findall(r"<!-- (.*?) -->", (tmp_path / "mitigations-unique.svg").read_text())
    assert {"no mitigation", "ModDrop", "AGM", "PMR"} <= set(words)
    assert any(text.startswith("Unique · mid · Random · scale small") for text in words)
    assert "BADGE" not in words
    assert not (tmp_path / "curves-unique-agm.svg").exists()
    page = render_index(content, {})
    assert "Unique mid, whatever the mitigation" in page
    assert "mid, whatever the mitigation: 0.20 to 0.40 against 0.60 to 0.60, below in 25 of 25 runs" in page
    assert {f"figures/{stem}.svg" for stem in ("mitigations-unique", "curves-unique-pmr")} <= set(
        re.findall(r'src="([^"]+)"', page)
    )
    assert 'src="figures/bars-unique-agm.svg"' not in page


def test_claims_are_listed_where_one_of_them_can_be_asked(beyond):
    assert 'id="claim-' in (beyond / "index.html").read_text()  # of ModDrop's runs of Unique
    trio = {("ogm_ge", "teach", subset): [0.5] * 2 for subset in ("twin_a", "twin_b", "solo")}
    trio["ogm_ge", "teach", "twin_a+twin_b+solo"] = [0.5] * 2
    selection = replace(
        SELECTION,
        datasets=["trio"],
        queries=["teach"],
        mitigations=["ogm_ge"],
        regimes=["mid"],
        seeds=[0, 1],
    )
    page = render_index(content_of(Inputs(curves_of(trio, "trio")), PAPER, selection), {})
    assert "None of them can be asked of these runs" in page
    assert 'id="claim-' not in page
