"""What few seeds allow: exact small truths, brute force, and each refusal just before data suffice."""

import itertools
import math
import re
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mindgap.core.records import CURVE_COLUMNS
from mindgap.results.curves import ReportError
from mindgap.results.statistics import (
    BLOCK,
    LONG_COLUMNS,
    Friedman,
    Refusal,
    Wins,
    _resampling_weights,
    as_tables,
    balanced,
    bootstrap,
    friedman,
    groups,
    holm,
    nemenyi,
    pairwise,
    signed_rank_p,
    statistics,
    taken_together,
    unbeaten,
    wins,
)
from mindgap.results.statistics_figures import draw

# AUC of C4.5 and three variants of it on 14 data sets, after Demšar 2006, table 6. Of the last but one, equal
# to three digits in the last two columns, the mean ranks he prints need the third value above the fourth.
DEMSAR = [
    [0.763, 0.768, 0.771, 0.798],
    [0.599, 0.591, 0.590, 0.569],
    [0.954, 0.971, 0.968, 0.967],
    [0.628, 0.661, 0.654, 0.657],
    [0.882, 0.888, 0.886, 0.898],
    [0.936, 0.931, 0.916, 0.931],
    [0.661, 0.668, 0.609, 0.685],
    [0.583, 0.583, 0.563, 0.625],
    [0.775, 0.838, 0.866, 0.875],
    [1.000, 1.000, 1.000, 1.000],
    [0.940, 0.962, 0.965, 0.962],
    [0.619, 0.666, 0.614, 0.669],
    [0.972, 0.981, 0.9751, 0.975],
    [0.957, 0.978, 0.946, 0.970],
]
STEPS = {"random": 0, "entropy": 0, "bald": 1, "kcenter_greedy": 2, "badge": 2, "bmmal": 2, "grace_r": 5}
METHODS = tuple(STEPS)


def make_blocks(values, seeds: int = 1) -> pd.DataFrame:
    """A block per row of `values`, of so many seeds a setting; the first method is Random."""
    values = np.asarray(values, dtype=float)
    keys = [("missing", f"regime {i // seeds}", i % seeds) for i in range(len(values))]
    names = [*METHODS, "other"][: values.shape[1]]
    return pd.DataFrame(values, index=pd.MultiIndex.from_tuples(keys, names=BLOCK), columns=names)


def perfect(n: int, k: int, seeds: int = 1) -> pd.DataFrame:
    """All blocks agree on the order of methods, without ties of differences."""
    return make_blocks([[j * (1 + i / 100) for j in range(k)] for i in range(n)], seeds)


def noise(n: int, k: int, levels: int | None = None, seed: int = 0) -> np.ndarray:
    """Random numbers; of few levels they have ties."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, levels, (n, k)) / levels if levels else rng.random((n, k))


def make_curves(value, datasets=("missing", "unique"), regimes=("low",), queries=METHODS, seeds=(0, 1, 2)):
    """Curves of three points; value(dataset, regime, query, seed, subset, round) is an accuracy."""
    subsets = {"missing": ("rare", "frequent"), "unique": ("full", "partial"), "trio": ("a", "b", "c")}
    rows = []
    for dataset, regime, query, seed in itertools.product(datasets, regimes, queries, seeds):
        names = [*subsets[dataset], "+".join(subsets[dataset])]
        for subset, i in itertools.product(names, range(3)):
            accuracy = value(dataset, regime, query, seed, subset, i)
            cell = ("tiny", dataset, regime, "none", query, seed, f"{query}{seed}", 3, i, 50 * (i + 1))
            rows.append((*cell, subset, accuracy, accuracy, 0.1, 0.1, 1.0))
    return pd.DataFrame(rows, columns=list(CURVE_COLUMNS))


def scattered(dataset, regime, query, seed, subset, i):
    """Methods a step apart, or none, with noise that depends on all keys; all alike at round 0."""
    rng = np.random.default_rng([len(dataset), *regime.encode(), METHODS.index(query) * (i > 0), seed, i])
    return 0.3 + 0.1 * i + 0.01 * STEPS[query] * (i > 0) + 0.02 * rng.random()


# Friedman


def test_demsars_example_of_friedman():
    blocks = make_blocks(DEMSAR)
    assert blocks.rank(axis=1, ascending=False).mean().round(3).tolist() == [3.143, 2.0, 2.893, 1.964]
    test = friedman(blocks, 0.05)
    # His 9.28 leaves ties uncorrected: three pairs and one four take 3 * 6 + 60 of 14 * 60.
    uncorrected = test.chi2 * (1 - 78 / 840)
    assert uncorrected == pytest.approx(9.28, abs=0.005)
    assert 13 * uncorrected / (14 * 3 - uncorrected) == pytest.approx(3.69, abs=0.005)
    assert test.f == pytest.approx(13 * test.chi2 / (14 * 3 - test.chi2))


@pytest.mark.parametrize("levels", [None, 3])
def test_chi_square_is_scipys(levels):
    values = noise(12, 6, levels)
    test = friedman(make_blocks(values), 0.05)
    expected = stats.friedmanchisquare(*values.T)
    assert test.chi2 == pytest.approx(expected.statistic)
    assert test.how == "F distribution of Iman and Davenport"
    assert test.p == pytest.approx(stats.f.sf(test.f, 5, 55))


def arranged(values: np.ndarray) -> float:
    """The exact p-value, by counting how many arrangements of every block give each vector of rank sums."""
    ranks = stats.rankdata(-values, axis=1)
    sums = Counter({(0.0,) * values.shape[1]: 1})
    for block in ranks:
        grown = Counter()
        for (total, count), order in itertools.product(sums.items(), itertools.permutations(block)):
            grown[tuple(a + b for a, b in zip(total, order, strict=True))] += count
        sums = grown
    spread = {total: np.var(total) for total in sums}
    reached = np.var(ranks.sum(axis=0)) - 1e-9
    return sum(n for total, n in sums.items() if spread[total] >= reached) / sum(sums.values())


@pytest.mark.parametrize(("n", "k", "levels"), [(3, 3, None), (5, 3, 3), (4, 4, 3), (3, 5, 3)])
def test_few_blocks_are_arranged_in_all_ways(n, k, levels):
    for seed in range(3):
        values = noise(n, k, levels, seed)
        test = friedman(make_blocks(values), 0.05)
        assert test.p == pytest.approx(arranged(values))
        assert test.how == f"all {math.factorial(k) ** (n - 1):,} arrangements"


@pytest.mark.parametrize("levels", [None, 2])
def test_more_blocks_are_arranged_at_random(levels):
    values = noise(8, 3, levels, seed=1) + np.array([0, 0.1, 0.2])
    test = friedman(make_blocks(values), 0.05)
    expected = arranged(values)
    assert 0.01 < expected < 0.9
    assert abs(test.p - expected) < 4 * math.sqrt(expected * (1 - expected) / 100_000)
    assert test.how == "100,000 random arrangements"
    assert friedman(make_blocks(values), 0.05) == test


@pytest.mark.parametrize(("n", "k", "how"), [(10, 6, "random"), (11, 5, "random"), (11, 6, "F distribution")])
def test_the_approximation_is_used_within_demsars_bounds(n, k, how):
    assert how in friedman(make_blocks(noise(n, k)), 0.05).how


def test_perfect_agreement_has_the_smallest_p_that_there_is():
    assert friedman(perfect(3, 3), 0.05).p == 1 / 36
    test = friedman(perfect(11, 6), 0.05)
    assert (test.chi2, test.f, test.p) == (55, math.inf, 720.0**-10)
    assert friedman(perfect(1000, 6), 0.05).p == 0.0  # under the smallest number a float can hold


@pytest.mark.parametrize(
    ("n", "k", "alpha", "reason"),
    [
        (9, 2, 0.05, "it compares three methods or more, here are 2 methods"),
        (0, 3, 0.05, "with 0 blocks of 3 methods no p-value below 1 can come out, and 0.05 is asked for: 3"),
        (1, 4, 0.05, "with 1 block of 4 methods no p-value below 1 can come out, and 0.05 is asked for: 2"),
        (
            2,
            3,
            0.05,
            "with 2 blocks of 3 methods no p-value below 0.17 can come out, and 0.05 is asked for: 3",
        ),
        (2, 4, 0.01, "with 2 blocks of 4 methods no p-value below 0.042 can come out, and 0.01 is asked for"),
    ],
)
def test_friedman_is_refused_where_perfect_agreement_would_not_do(n, k, alpha, reason):
    refusal = friedman(make_blocks(np.zeros((n, k))), alpha)
    assert isinstance(refusal, Refusal)
    assert refusal.test == "friedman"
    assert refusal.reason.startswith(reason)


@pytest.mark.parametrize(("n", "k", "alpha"), [(3, 3, 0.05), (2, 4, 0.05), (3, 4, 0.01)])
def test_one_block_more_suffices(n, k, alpha):
    assert friedman(perfect(n, k), alpha).p <= alpha


# Pairs


@pytest.mark.parametrize(
    ("differences", "p"),
    [([1, 2, 3, -4], 14 / 16), ([1, 2, 3, 4], 2 / 16), ([-1, -2, -3], 2 / 8), ([1, -1], 1), ([0, 0], 1)],
)
def test_signed_ranks_by_hand(differences, p):
    assert signed_rank_p(np.array(differences, dtype=float)) == p


@pytest.mark.parametrize("n", [1, 5, 10, 25, 40])
def test_signed_ranks_without_ties_are_scipys(n):
    differences = np.random.default_rng(n).normal(0.3, 1, n)
    expected = stats.wilcoxon(differences, method="exact").pvalue
    assert signed_rank_p(differences) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_signed_ranks_with_ties_are_all_their_signs(seed):
    differences = np.random.default_rng(seed).integers(-2, 4, 10).astype(float)
    nonzero = differences[differences != 0]
    ranks = stats.rankdata(abs(nonzero))
    sums = np.array([np.dot(signs, ranks) for signs in itertools.product((-1, 1), repeat=len(ranks))])
    expected = (abs(sums) >= abs(np.dot(np.sign(nonzero), ranks))).mean()
    assert signed_rank_p(differences) == pytest.approx(expected)


def test_many_blocks_have_tiny_p_and_no_overflow():
    assert signed_rank_p(np.arange(1.0, 301)) == 2.0**-299


def test_holm_by_hand():
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.7])).tolist() == [1, 1]
    assert holm(np.array([0.02])).tolist() == [0.02]


@pytest.mark.parametrize("seed", range(5))
def test_holm_closes_bonferroni(seed):
    """A hypothesis falls when Bonferroni rejects every set of hypotheses that it is in."""
    p = np.random.default_rng(seed).random(6).round(1) / 4
    sets = [s for size in range(1, 7) for s in itertools.combinations(range(6), size)]
    closed = [max(min(1, len(s) * min(p[list(s)])) for s in sets if i in s) for i in range(6)]
    assert holm(p) == pytest.approx(closed)


@pytest.mark.parametrize(
    ("n", "k", "alpha", "reason"),
    [
        (9, 7, 0.05, "with 9 blocks no p-value below 0.0039 can come out of a signed-rank test, and with 21 "
                     "pairs the smallest must be at most 0.0024 (Holm at 0.05): 10 blocks are needed"),
        (5, 2, 0.05, "with 5 blocks no p-value below 0.062 can come out of a signed-rank test, and with 1 "
                     "pair the smallest must be at most 0.05 (Holm at 0.05): 6 blocks are needed"),
        (10, 7, 0.01, "with 10 blocks no p-value below 0.002 can come out of a signed-rank test, and with 21 "
                      "pairs the smallest must be at most 0.00048 (Holm at 0.01): 13 blocks are needed"),
        (0, 2, 0.05, "with 0 blocks no p-value below 1 can come out of a signed-rank test, and with 1 "
                     "pair the smallest must be at most 0.05 (Holm at 0.05): 6 blocks are needed"),
        (12, 1, 0.05, "it compares two methods or more, here is 1 method"),
    ],
)  # fmt: skip
def test_pairs_are_refused_where_none_could_differ(n, k, alpha, reason):
    assert pairwise(make_blocks(np.zeros((n, k))), alpha) == Refusal("pairwise", reason)


@pytest.mark.parametrize(("n", "k", "alpha"), [(10, 7, 0.05), (6, 2, 0.05), (13, 7, 0.01)])
def test_with_the_needed_blocks_pairs_can_differ(n, k, alpha):
    pairs = pairwise(perfect(n, k), alpha)
    assert len(pairs) == k * (k - 1) / 2
    assert (pairs["p"] == 2.0 ** (1 - n)).all()
    assert (pairs["p_holm"] == pairs["p"] * len(pairs)).all()
    assert pairs["different"].all()


def test_a_pair_says_what_it_compares():
    values = np.array([[0.4, 0.4], [0.5, 0.6], [0.2, 0.1], [0.1, 0.3], [0.1, 0.4], [0.1, 0.5], [0.9, 0.4]])
    row = pairwise(make_blocks(values), 0.05).iloc[0]
    assert (row["a"], row["b"], row["n"], row["n_equal"]) == ("random", "entropy", 7, 1)
    assert row["median_difference"] == pytest.approx(-0.1)
    # 0.6 - 0.5 and 0.2 - 0.1 differ in their last bits: they share the ranks 1 and 2 all the same.
    assert row["p"] == row["p_holm"] == signed_rank_p(np.array([-1, 1, -2, -3, -4, 5.0])) == 38 / 64
    assert not row["different"]


def test_pairs_differ_by_the_corrected_p():
    pairs = pairwise(make_blocks(noise(12, 3, seed=2) + np.array([0, 0.15, 0.45])), 0.05)
    assert (pairs["p"] <= 0.05).all()
    assert pairs["p_holm"].round(3).tolist() == [0.054, 0.015, 0.054]
    assert pairs["different"].tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("apart", "expected"),
    [
        ([], ["ABCD"]),
        (["AD"], ["ABC", "BCD"]),
        (["AC", "AD", "BD"], ["AB", "BC", "CD"]),
        (["AB"], ["BCD"]),  # A is not told from C and D, which no bar over B can say
        (["BC"], ["AB", "CD"]),
        (["AB", "BC", "CD"], []),
    ],
)
def test_bars_of_the_diagram(apart, expected):
    ranks = pd.Series({"D": 3.5, "B": 2.0, "A": 1.5, "C": 3.0})
    pairs = [(b, a, a + b in apart) for a, b in itertools.combinations("ABCD", 2)]
    frame = pd.DataFrame(pairs, columns=["a", "b", "different"])
    assert groups(ranks, frame) == tuple(map(tuple, expected))


@pytest.mark.parametrize(("k", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (7, 2.949), (10, 3.164)])
def test_nemenyi_has_demsars_critical_values(k, q):
    assert nemenyi(14, k, 0.05) == pytest.approx(q * math.sqrt(k * (k + 1) / (6 * 14)), rel=4e-4)
    assert nemenyi(14, 4, 0.05) == pytest.approx(1.25, abs=0.005)


# Bootstrap


def test_resampling_has_the_variance_of_the_mean():
    weights, rng = _resampling_weights([2, 3, 6]), np.random.default_rng(0)
    assert weights.sum(axis=1) == pytest.approx(1)
    assert weights.mean(axis=0) == pytest.approx([1 / 11] * 11, rel=0.05)
    values = rng.normal(size=11)
    parts = [values[:2], values[2:5], values[5:]]
    expected = sum((len(p) / 11) ** 2 * p.var(ddof=1) / len(p) for p in parts)
    assert (weights @ values).var() == pytest.approx(expected, rel=0.05)


def test_an_interval_is_near_students_where_there_are_many_seeds():
    values = np.random.default_rng(3).normal(0.5, 0.1, (60, 2))
    frame = bootstrap(make_blocks(values, seeds=30), 0.05)
    difference = values[:, 1] - values[:, 0]
    se = math.sqrt(sum(half.var(ddof=1) / 30 for half in (difference[:30], difference[30:]))) / 2
    row = frame.iloc[0]
    assert (row["query"], row["n"]) == ("entropy", 60)
    assert row["difference"] == pytest.approx(difference.mean())
    assert row["low"] == pytest.approx(difference.mean() - stats.t.ppf(0.975, 58) * se, abs=0.1 * se)
    assert row["high"] == pytest.approx(difference.mean() + stats.t.ppf(0.975, 58) * se, abs=0.1 * se)
    wider = bootstrap(make_blocks(values, seeds=30), 0.01).iloc[0]
    assert wider["low"] < row["low"] < row["high"] < wider["high"]


def test_differences_between_settings_do_not_widen_an_interval():
    values = np.array([[0.1, 0.1 + 0.1 * setting] for setting in range(5) for _ in range(3)])
    row = bootstrap(make_blocks(values, seeds=3), 0.05).iloc[0]
    assert [row["low"], row["difference"], row["high"]] == pytest.approx([0.2] * 3)


@pytest.mark.parametrize(("blocks", "seeds"), [(15, 3), (20, 2), (11, 11)])
def test_ten_degrees_of_freedom_suffice(blocks, seeds):
    assert isinstance(bootstrap(perfect(blocks, 3, seeds), 0.05), pd.DataFrame)


@pytest.mark.parametrize(("blocks", "seeds", "settings"), [(12, 3, 4), (18, 2, 9), (10, 10, 1)])
def test_fewer_are_refused(blocks, seeds, settings):
    refusal = bootstrap(perfect(blocks, 3, seeds), 0.05)
    assert refusal.test == "bootstrap"
    assert refusal.reason == (
        f"the spread is that of seeds within settings, and {blocks} blocks of {settings} "
        f"setting{'s' if settings > 1 else ''} leave {blocks - settings} degrees of freedom: 10 are needed "
        "(10 settings with 2 seeds, 5 with 3, or 1 with 11)"
    )


def test_a_setting_with_one_seed_has_no_spread_to_resample():
    refusal = bootstrap(perfect(22, 2, seeds=3), 0.05)
    assert refusal == Refusal(
        "bootstrap", "Missing regime 7: one seed, which has no spread to resample; two are needed"
    )


def test_differences_are_to_random():
    without = perfect(20, 3, seeds=2).drop(columns="random")
    assert bootstrap(without, 0.05).reason == "it compares methods with Random: both are needed"


# Wins


def curve_rows(differences: dict, regime: str = "low") -> pd.DataFrame:
    """Random at 0.4 and Entropy above it by differences[round], a list over seeds."""
    rows = [
        ("missing", regime, seed, query, i, 0.4 + (difference if query == "entropy" else 0))
        for i, over_seeds in differences.items()
        for seed, difference in enumerate(over_seeds)
        for query in ("random", "entropy")
    ]
    return pd.DataFrame(rows, columns=[*BLOCK, "query", "round", "balanced_accuracy"])


PAIR = ["random", "entropy"]


def test_wins_by_hand():
    # t: round 1 19.1, round 2 0, round 3 -19.1, round 4 19.1; critical 4.30. Round 0 is shared: left out.
    clear = [0.10, 0.11, 0.12]
    low = curve_rows({0: clear, 1: clear, 2: [0.1, 0, -0.1], 3: [-d for d in clear], 4: clear})
    high = curve_rows({0: [0, 0, 0], 1: clear}, "high")
    result = wins(pd.concat([low, high]), PAIR, 0.05)
    assert result.matrix.to_dict("list") == {"random": [0, 2 + 1], "entropy": [1, 0]}  # whole wins
    assert (result.settings, result.points, result.by_chance, result.note) == (2, 5, 0.125, "")
    assert (result.beaten.to_dict(), result.against) == ({"random": 3, "entropy": 1}, 5)


@pytest.mark.parametrize("seeds", [3, 5])
def test_wins_are_paired_t_tests(seeds):
    rng = np.random.default_rng(seeds)
    keys = itertools.product(("low", "high"), range(seeds), METHODS[:4], range(5))
    rows = pd.DataFrame(
        [
            ("missing", regime, s, q, i, 0.02 * METHODS.index(q) + rng.normal(0, 0.02))
            for regime, s, q, i in keys
        ],
        columns=[*BLOCK, "query", "round", "balanced_accuracy"],
    )
    expected = dict.fromkeys(itertools.permutations(METHODS[:4], 2), 0)
    for _, point in rows[rows["round"] > 0].groupby(["regime", "round"]):
        runs = {query: part["balanced_accuracy"].tolist() for query, part in point.groupby("query")}
        for a, b in expected:
            test = stats.ttest_rel(runs[a], runs[b])
            expected[a, b] += test.pvalue < 0.05 and test.statistic > 0
    result = wins(rows.sample(frac=1, random_state=0), METHODS[:4], 0.05)
    assert {pair: result.matrix.at[pair] for pair in expected} == expected
    assert 0 < max(expected.values()) <= result.points == 8


def test_equal_differences_have_no_spread_and_win():
    rows = curve_rows({0: [0] * 3, 1: [0.05] * 3, 2: [0] * 3, 3: [0] * 3, 4: [0] * 3})
    rows["balanced_accuracy"] += 0.1 * rows["seed"]  # so that differences are equal but for their last bits
    last_bit = (rows["query"] == "entropy") & (rows["round"] == 4)
    rows.loc[last_bit, "balanced_accuracy"] = np.nextafter(rows.loc[last_bit, "balanced_accuracy"], 1)
    assert wins(rows, PAIR, 0.05).matrix.to_dict("list") == {"random": [0, 1], "entropy": [0, 0]}


@pytest.mark.parametrize(
    ("seeds", "reason"),
    [
        (0, "t-tests need the spread over seeds, and no setting has more than 0: 3 are needed"),
        (1, "t-tests need the spread over seeds, and no setting has more than 1: 3 are needed"),
        (2, "no setting has more than 2 seeds, of which a t-test at 0.05 asks for |t| > 12.7: two "
            "differences reach it whenever they are within 15% of each other, however small they are; 3 "
            "seeds are needed"),
    ],
)  # fmt: skip
def test_wins_are_refused_below_three_seeds(seeds, reason):
    assert wins(curve_rows({0: [0] * seeds, 1: [0.1] * seeds}), PAIR, 0.05) == Refusal("wins", reason)


def test_two_seeds_win_when_nearly_equal_as_the_refusal_says():
    ratio = 1 - 2 / (stats.t.ppf(0.975, 1) + 1)
    assert stats.ttest_1samp([1e-6, 1e-6 * (ratio + 0.001)], 0).pvalue < 0.05
    assert stats.ttest_1samp([1, ratio - 0.001], 0).pvalue > 0.05
    assert f"{1 - ratio:.0%}" == "15%"


def test_settings_of_two_seeds_are_left_out_of_wins():
    rows = pd.concat(
        [curve_rows({1: [0.1, 0.11, 0.12]}, "low"), curve_rows({1: [0.1, 0.11]}, "high")], ignore_index=True
    )
    result = wins(rows, PAIR, 0.05)
    assert result.settings == result.matrix.at["entropy", "random"] == 1
    assert result.note == "Left out for want of 3 seeds: Missing high."


# Best, and what the tests say together


def test_unbeaten_are_the_best_and_all_that_are_not_told_from_it():
    blocks = make_blocks(np.arange(10)[:, None] * 0.01 + [[0.0, 0.5, 0.5, 0.3]])
    assert unbeaten(blocks) == ("entropy", "bald")
    assert unbeaten(make_blocks(np.ones((10, 4)))) == ()  # no two are told apart
    assert isinstance(unbeaten(blocks.head(5)), Refusal)


def test_the_largest_mean_is_not_the_best_where_the_test_places_another_above_it():
    # BALD has the highest mean by one block alone, and is below Entropy in all others.
    values = np.array([[0.0, 0.5 + 0.001 * i, 0.49 + 0.0005 * i] for i in range(12)])
    values[0] = [0.0, 0.5, 0.9]
    blocks = make_blocks(values)
    assert blocks.mean().idxmax() == "bald"
    assert unbeaten(blocks) == ("entropy",)


def test_a_direction_does_not_need_a_median():
    # Equal in sixteen blocks of thirty, above in all others: the median difference is 0.
    values = np.zeros((30, 2))
    values[:14, 1] = 0.01 * np.arange(1, 15)
    (pair,) = pairwise(make_blocks(values), 0.05).itertuples()
    assert (pair.different, pair.median_difference, pair.a_above) == (True, 0, False)
    assert unbeaten(make_blocks(values)) == ("entropy",)


def result_of(blocks: pd.DataFrame) -> SimpleNamespace:
    tests = {"friedman": friedman, "pairwise": pairwise, "bootstrap": bootstrap}
    return SimpleNamespace(alpha=0.05, **{name: test(blocks, 0.05) for name, test in tests.items()})


def test_tests_that_do_not_agree_are_read_together():
    # In five of fifteen settings Entropy is far above Random, in the others as often below it as above.
    lead = np.repeat([0.3] * 5 + [0.01, -0.01] * 5, 2) + np.tile([0.001, -0.001], 15)
    values = noise(30, 3) * 0.001
    values[:, 1] += np.where(np.arange(30) < 10, lead, lead - 0.004)
    result = result_of(make_blocks(values, seeds=2))
    assert result.friedman.p > 0.05
    assert not result.pairwise["different"].any()
    assert (result.bootstrap["low"] > 0).tolist() == [True, False]
    text = taken_together(result)
    assert text.startswith("Friedman's test finds no difference, and the test of pairs tells no two apart")
    assert "not told from Random by the corrected pairs: Entropy. An interval is of one method's" in text


def test_tests_that_agree_need_no_word():
    assert taken_together(result_of(perfect(30, 3, seeds=2))) == ""
    assert "the test of pairs is refused: none is called better" in taken_together(result_of(perfect(5, 4)))
    assert taken_together(result_of(perfect(1, 2))) == ""


# All of it


def test_statistics_of_both_targets():
    def value(dataset, regime, query, seed, subset, i):
        best = METHODS.index(query) if "+" in subset else -METHODS.index(query)
        return 0.5 + 0.01 * best + 0.001 * seed + 0.1 * i

    curves = make_curves(value, ("missing", "unique", "trio"))
    weak = {"missing": "rare", "unique": "partial"}  # trio has none
    on_all, on_weak = (statistics(curves, weak, "none", target) for target in ("all", "weak"))
    assert on_all.note == "9 blocks: 3 settings with 3 seeds each."
    assert on_weak.note == "6 blocks: 2 settings with 3 seeds each."
    assert on_all.mean_ranks.to_dict() == {q: 7 - i for i, q in enumerate(METHODS)}
    assert on_weak.mean_ranks.to_dict() == {q: 1 + i for i, q in enumerate(METHODS)}
    assert on_all.mean_levels["random"] == pytest.approx((0.601 - 0.1) / 0.9)
    assert (on_all.scale, on_all.target, on_all.n_blocks) == ("tiny", "all", 9)
    assert [refusal.test for refusal in on_all.refusals] == ["pairwise", "bootstrap"]
    assert (on_all.groups, math.isnan(on_all.nemenyi)) == ((), True)
    assert (on_all.wins.matrix.at["grace_r", "random"], on_all.wins.points) == (6, 6)


def test_a_difference_counts_as_much_where_the_ceiling_is_a_tenth():
    """Each method is a tenth of the way from chance to the ceiling above the one before, on both datasets."""

    def value(dataset, regime, query, seed, subset, i):
        low = (dataset, subset) == ("unique", "partial")
        return (0.01, 0.1)[not low] + 0.1 * METHODS.index(query) * (0.09, 0.9)[not low]

    curves = make_curves(value, regimes=("low", "mid"), seeds=(0, 1, 2, 3))
    partial = curves["subset"] == "partial"
    curves = curves.assign(
        chance=curves["chance"].mask(partial, 0.01), ceiling=curves["ceiling"].mask(partial, 0.1)
    )
    result = statistics(curves, {"missing": "rare", "unique": "partial"}, "none", "weak")
    assert result.mean_levels.to_list() == pytest.approx([0.1 * i for i in range(len(METHODS))])
    assert result.bootstrap.set_index("query").loc["entropy", "difference"] == pytest.approx(0.1)
    assert result.pairwise.set_index(["a", "b"]).loc[
        ("random", "bald"), "median_difference"
    ] == pytest.approx(-0.2)


def test_controls_are_no_methods():
    queries = (*METHODS[:3], "class_balanced_oracle", "presence_balanced")
    result = statistics(make_curves(lambda *key: 0.5, queries=queries), {}, "none", "all")
    assert list(result.mean_ranks.index) == list(METHODS[:3])


def test_methods_of_plug_ins_come_last():
    queries = ("zeal", "mine", "badge", "random")
    result = statistics(make_curves(lambda *key: 0.5, queries=queries), {}, "none", "all")
    assert list(result.mean_ranks.index) == ["random", "badge", "mine", "zeal"]


def test_curves_that_are_equal_as_fractions_share_ranks():
    curve = {"random": (0.0, 0.3, 0.0), "entropy": (0.0, 0.1, 0.4), "bald": (0.0, 0.2, 0.0)}
    assert sum([0.1, 0.4 / 2]) != 0.3
    curves = make_curves(lambda d, r, query, s, subset, i: curve[query][i], queries=tuple(curve))
    assert statistics(curves, {}, "none", "all").mean_ranks.tolist() == [1.5, 1.5, 3]


def test_all_equal_methods_give_p_1_and_no_differences():
    curves = make_curves(lambda *key: 0.5, regimes=("low", "mid", "high"))
    result = statistics(curves, {}, "none", "all")
    assert result.refusals == ()
    assert result.friedman == Friedman(0.0, 0.0, 1.0, "all methods are equal in all blocks")
    assert (result.mean_ranks == 4).all()
    assert (result.pairwise["p_holm"] == 1).all()
    assert not result.pairwise["different"].any()
    assert result.groups == (METHODS,)
    assert (result.bootstrap[["difference", "low", "high"]] == 0).all(axis=None)
    assert (result.wins.matrix == 0).all(axis=None)


def test_blocks_with_a_method_missing_are_left_out_and_named():
    curves = make_curves(scattered, regimes=("low", "mid"), seeds=range(4))
    gone = (curves["dataset"] == "unique") & (curves["regime"] == "low") & (curves["seed"] == 2)
    result = statistics(curves[~(gone & curves["query"].isin(["badge", "bald"]))], {}, "none", "all")
    assert result.note == (
        "15 blocks: 4 settings with 3 to 4 seeds each. 1 of 16 blocks left out, as methods are missing: "
        "Unique low seed 2 (BALD, BADGE)."
    )
    assert result.n_blocks == 15 == result.pairwise["n"].iloc[0]
    without = statistics(curves[~gone], {}, "none", "all")
    for name, table in as_tables([result]).items():
        pd.testing.assert_frame_equal(table, as_tables([without])[name], check_exact=True)


def test_the_largest_part_without_a_hole_is_compared_and_the_rest_is_named():
    """BADGE has 7 of 14 blocks: 6 methods in 14 blocks are more runs than 7 methods in 7."""
    curves = make_curves(scattered, seeds=range(7))
    curves = curves[(curves["query"] != "badge") | (curves["dataset"] == "unique")]
    result = statistics(curves, {}, "none", "all")
    assert result.note == (
        "14 blocks: 2 settings with 7 seeds each. Left out, as runs of them are missing: BADGE."
    )
    assert list(result.mean_ranks.index) == [query for query in METHODS if query != "badge"]
    # Random alone has more seeds, and a setting for itself: common seeds and settings count.
    alone = (curves["dataset"] == "missing") | (curves["seed"] > 3)
    result = statistics(curves[~alone | (curves["query"] == "random")], {}, "none", "all")
    others = ", ".join(["Entropy", "BALD", "KCG", "BADGE", "BMMAL", "GRACE-R"])
    assert result.note == (
        "4 blocks: 1 setting with 4 seeds each. 10 of 14 blocks left out, as methods are missing: "
        f"Missing low seeds 0, 1, 2, 3, 4, 5, 6, Unique low seeds 4, 5, 6 ({others})."
    )
    assert (result.n_blocks, len(result.mean_ranks)) == (4, 7)


def test_balanced_by_hand():
    hole = math.nan
    blocks = pd.DataFrame(
        {"a": [1, 1, 1, 1], "b": [1, 1, hole, hole], "c": [1, 1, hole, hole], "d": [hole, 1, 1, 1]}
    )
    # a, b, c in two blocks: 6 runs; a, d in three as well: more methods; all four in one: 4.
    assert balanced(blocks).columns.tolist() == ["a", "b", "c"]
    assert balanced(blocks).index.tolist() == [0, 1]
    # One method compares nothing, however many blocks it has.
    assert balanced(blocks[["a", "b"]]).shape == (2, 2)
    assert balanced(blocks[["a"]]).shape == (4, 1)
    assert balanced(blocks.iloc[:, :0]).empty


def test_methods_that_share_no_block_and_no_runs_are_said():
    curves = make_curves(scattered)
    halves = curves[(curves["query"] == "badge") == (curves["dataset"] == "unique")]
    result = statistics(halves, {}, "none", "all")
    assert "Left out, as runs of them are missing: BADGE." in result.note
    assert "BADGE" not in result.mean_ranks
    for mitigation, target in (("none", "weak"), ("moddrop", "all")):
        result = statistics(curves, {}, mitigation, target)
        assert (result.n_blocks, result.note) == (0, "There are no runs of query methods.")
        assert len(result.refusals) == 4


def test_strange_requests_are_errors():
    curves = make_curves(scattered)
    with pytest.raises(ReportError, match="no statistics on 'strong'; known: weak, all"):
        statistics(curves, {}, "none", "strong")
    with pytest.raises(ReportError, match="runs of one scale, these are of paper, tiny: select"):
        statistics(pd.concat([curves, curves.assign(scale="paper")]), {}, "none", "all")


@pytest.fixture(scope="module")
def grid() -> SimpleNamespace:
    """All tests are supported, and some methods are told apart."""
    curves = make_curves(scattered, regimes=("low", "mid", "high"), seeds=range(3))
    return SimpleNamespace(curves=curves, result=statistics(curves, {"unique": "partial"}, "none", "all"))


def test_order_of_rows_changes_no_bit(grid):
    shuffled = statistics(grid.curves.sample(frac=1, random_state=1), {"unique": "partial"}, "none", "all")
    assert shuffled.groups == grid.result.groups
    assert shuffled.friedman == grid.result.friedman
    for name in ("mean_ranks", "mean_levels"):
        pd.testing.assert_series_equal(getattr(shuffled, name), getattr(grid.result, name), check_exact=True)
    for name in ("pairwise", "bootstrap"):
        pd.testing.assert_frame_equal(getattr(shuffled, name), getattr(grid.result, name), check_exact=True)
    pd.testing.assert_frame_equal(shuffled.wins.matrix, grid.result.wins.matrix, check_exact=True)


def test_long_tables(grid):
    weak = statistics(grid.curves, {"unique": "partial"}, "none", "weak")
    made = as_tables([grid.result, weak])
    assert {name: list(table)[2:] for name, table in made.items()} == LONG_COLUMNS
    assert {name: len(table) for name, table in made.items()} == {
        "ranks": 14, "friedman": 2, "pairwise": 21, "bootstrap": 6, "wins": 84, "refusals": 2,
    }  # fmt: skip
    assert made["refusals"]["test"].tolist() == ["pairwise", "bootstrap"]
    assert set(made["wins"]["target"]) == {"all", "weak"}
    row = made["ranks"].iloc[0]
    assert row["mean_rank"] == float(f"{grid.result.mean_ranks['random']:.6g}")
    assert not made["wins"].duplicated(["mitigation", "target", "winner", "loser"]).any()


def test_figures_are_the_same_on_every_call_and_show_the_groups(grid, tmp_path):
    names = {"ranks-none-all", "wins-none-all"}
    for folder in ("one", "two", "other"):
        (tmp_path / folder).mkdir()
    assert set(draw(grid.result, tmp_path / "one")) == names == set(draw(grid.result, tmp_path / "two"))
    draw(replace(grid.result, groups=()), tmp_path / "other")
    files = {f"{name}.{ending}" for name in names for ending in ("svg", "png")}
    assert {path.name for path in (tmp_path / "one").iterdir()} == files
    for name in sorted(files):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
        same = (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
        assert same == name.startswith("wins"), name


def test_nemenyis_distance_is_drawn_only_where_friedmans_test_finds_a_difference(grid, tmp_path):
    said = {}
    for p in (0.04, 0.06):
        result = replace(grid.result, friedman=replace(grid.result.friedman, p=p))
        draw(result, tmp_path)
        said[p] = (tmp_path / "ranks-none-all.svg").read_text()
    assert "Nemenyi's critical difference" in said[0.04]
    assert "Nemenyi" not in said[0.06]
    assert "Friedman's test finds no difference (p = 0.06)" in said[0.06]


def test_wins_are_drawn_whole(grid, tmp_path):
    draw(grid.result, tmp_path)
    words = re.findall(r"<!-- (.*?) -->", (tmp_path / "wins-none-all.svg").read_text())
    numbers = [word for word in words if re.fullmatch(r"[\d.]+", word)]
    assert len(numbers) == 7 * 6 + 7
    assert all(number.isdigit() for number in numbers)
    assert f"beaten, of {12 * 6}" in words


def test_what_was_refused_is_not_drawn(grid, tmp_path):
    two_seeds = statistics(grid.curves[grid.curves["seed"] < 2], {"unique": "partial"}, "none", "weak")
    assert isinstance(two_seeds.wins, Refusal)
    assert draw(two_seeds, tmp_path) == []
    few_blocks = statistics(grid.curves, {"unique": "partial"}, "none", "weak")
    assert isinstance(few_blocks.wins, Wins)
    assert draw(few_blocks, tmp_path) == ["wins-none-weak"]
    two_methods = grid.curves[grid.curves["query"].isin(["random", "grace_r"])]
    assert draw(statistics(two_methods, {}, "none", "all"), tmp_path) == ["wins-none-all"]
