"""The permutation diagnostic on its controls: what it must see, and what it must not."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import kstest

from mindgap.results import permutation
from mindgap.results.permutation import (
    RULES,
    DiagnosticError,
    Gap,
    certainty,
    confidence,
    permutation_gap,
    pooled,
    visible_share,
)

N, M, C = 360, 2, 4
USING = sorted(set(RULES) - {"mean"})


def experts(rng, n: int = N, right: float = 0.6, modalities: int = M) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of experts who are right at a rate, independently and not surer for it; labels."""
    y = rng.permutation(np.arange(n) % C)
    said = np.where(rng.random((n, modalities)) < right, y[:, None], rng.integers(C, size=(n, modalities)))
    logits = rng.normal(size=(n, modalities, C)) * 0.3
    np.put_along_axis(logits, said[..., None], 1.5 + rng.random((n, modalities, 1)), axis=2)
    probs = np.exp(logits)
    return probs / probs.sum(axis=2, keepdims=True), y


def being_right(probs, y) -> np.ndarray:
    return (probs.argmax(axis=2) == y[:, None]).astype(float)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("how", ["independent", "joint", "within_predicted"])
def test_a_constant_reliability_has_no_gap_exactly(rule, how):
    probs, y = experts(np.random.default_rng(0))
    found = permutation_gap(probs, np.full((N, M), 0.7), y, rule=rule, how=how, draws=50)
    assert (found.gap, found.p, found.flips, found.interval) == (0.0, 1.0, 0.0, (0.0, 0.0))
    assert found.verdict == "ignored"
    assert (found.broken_K == found.clean).all()
    assert np.isnan(found.alignment)


def test_of_a_random_reliability_p_is_uniform():
    """Over 200 simulations. Few values of balanced accuracy are possible, so ties make p a little larger."""
    found = []
    for simulation in range(200):
        rng = np.random.default_rng(simulation)
        probs, y = experts(rng)
        found.append(permutation_gap(probs, rng.random((N, M)), y, draws=49, seed=simulation).p)
    assert kstest(found, "uniform").pvalue > 0.01
    assert np.mean(np.array(found) <= 0.1) < 0.17


@pytest.mark.parametrize("rule", USING)
def test_the_gap_rises_with_how_often_the_reliability_is_right(rule):
    rng = np.random.default_rng(1)
    probs, y = experts(rng)
    truth, gaps = being_right(probs, y), []
    drawn = rng.random((N, M))
    for dose in (0.5, 0.625, 0.75, 0.875, 1.0):
        told = np.where(drawn < dose, truth, 1 - truth)
        gaps.append(permutation_gap(probs, told, y, rule=rule, draws=20).gap)
    assert all(later > earlier for earlier, later in pairwise(gaps))
    assert abs(gaps[0]) < 0.04 < 0.1 < gaps[-1]


@pytest.mark.parametrize("rule", USING)
@pytest.mark.parametrize("how", ["independent", "joint"])
def test_a_corrupted_modality_that_is_named_is_seen(rule, how):
    """The first modality of half of the items says a wrong class, and the reliability knows which."""
    rng = np.random.default_rng(2)
    probs, y = experts(rng, right=0.9)
    corrupt = rng.permutation(N) < N // 2
    probs[corrupt, 0] = np.where(np.arange(C) == (y[corrupt, None] + 1) % C, 0.97, 0.01)
    told = np.column_stack([~corrupt, np.ones(N)]).astype(float)
    found = permutation_gap(probs, told, y, rule=rule, how=how)
    assert found.p == pytest.approx(1 / 201)
    assert found.interval[0] > 0.05
    assert found.verdict == "used"
    assert found.flips > 0.1
    assert found.alignment > 0.5
    assert found.oracle > found.clean > 0.8


def test_the_mean_of_the_experts_ignores_any_reliability():
    probs, y = experts(np.random.default_rng(3))
    found = permutation_gap(probs, being_right(probs, y), y, rule="mean")
    assert (found.gap, found.p, found.verdict) == (0.0, 1.0, "ignored")


def test_ignored_needs_items_enough_to_show_it():
    """Of n items without a change one in a hundred may change: 0.99^n is below 0.05 from 299 items on."""
    probs, y = experts(np.random.default_rng(4))
    for n, verdict in ((298, "undecided"), (299, "ignored")):
        found = permutation_gap(probs[:n], np.ones((n, M)), y[:n], draws=5)
        assert found.verdict == verdict
    weak = np.random.default_rng(40).random((N, M))
    assert permutation_gap(probs, weak, y).verdict == "undecided"


def test_the_numbers_are_those_of_the_definitions():
    rng = np.random.default_rng(5)
    probs, y = experts(rng, n=41, modalities=3)
    told = rng.random((41, 3))
    present = rng.random((41, 3)) < 0.9
    found = permutation_gap(probs, told, y, present, draws=7, seed=3)
    rows = [n for n in range(41) if present[n].all()]
    classes = sorted(set(y[rows].tolist()))

    def balanced(right) -> float:
        recalls = [np.mean([right(n) for n in rows if y[n] == c]) for c in classes]
        return float(np.mean(recalls))

    def decision(n) -> int:
        return int(np.argmax(sum(told[n, m] / told[n].sum() * probs[n, m] for m in range(3))))

    assert found.n == len(rows) < 41
    assert found.clean == pytest.approx(balanced(lambda n: decision(n) == y[n]))
    assert found.gap == pytest.approx(found.clean - found.broken_K.mean())
    assert found.p == pytest.approx((1 + (found.broken_K >= found.clean - 1e-12).sum()) / 8)
    assert found.oracle == pytest.approx(
        balanced(lambda n: any(probs[n, m].argmax() == y[n] for m in range(3)))
    )
    of_true = [sorted(probs[n, m, y[n]] for m in range(3)) for n in rows]
    assert found.competitiveness == pytest.approx(np.median([one[2] - one[1] for one in of_true]))
    right = being_right(probs, y)[rows]
    expected = np.mean([np.corrcoef(told[rows, m], right[:, m])[0, 1] for m in range(3)])
    assert found.alignment == pytest.approx(expected)


def test_a_permutation_stays_among_its_items_and_keeps_items_whole_if_asked():
    rng = np.random.default_rng(6)
    told, strata = rng.random((60, 3)), np.arange(60) % 3
    for joint in (False, True):
        moved = permutation.permuted(told, strata, rng, joint)
        for stratum in range(3):
            rows = strata == stratum
            assert (np.sort(moved[rows], axis=0) == np.sort(told[rows], axis=0)).all()
        whole = {tuple(row) for row in told} == {tuple(row) for row in moved}
        assert whole == joint
        assert not np.array_equal(moved, told)


@pytest.mark.parametrize("rule", ["moe", "attention"])
def test_a_gate_is_fitted_by_likelihood_on_other_items(rule, monkeypatch):
    rng = np.random.default_rng(7)
    probs, y = experts(rng, n=100)
    features = permutation._all_reliabilities if rule == "moe" else permutation._its_own
    told, log_probs = rng.random((100, M)), np.log(probs)
    seen = features(told, probs)
    best = permutation._fitted(seen, log_probs, y)

    def loss(gate) -> float:
        total = permutation.PENALTY * gate @ gate
        for n in range(100):
            scores = np.exp([seen[n, m] @ gate for m in range(M)])
            mixed = sum(scores[m] / scores.sum() * log_probs[n, m] for m in range(M))
            total -= (mixed[y[n]] - np.log(np.exp(mixed).sum())) / 100
        return float(total)

    for _ in range(20):
        assert loss(best) <= loss(best + rng.normal(size=best.shape) * 0.3) + 1e-9
    fitted, sizes = permutation._fitted, []
    monkeypatch.setattr(permutation, "_fitted", lambda *a: sizes.append(len(a[2])) or fitted(*a))
    decide = RULES[rule](probs, told, y, np.random.default_rng(0))
    assert sizes == [80] * 5
    # What an item's own label says changes nothing in its own decision.
    other = y.copy()
    other[0] = (y[0] + 1) % C
    monkeypatch.setattr(permutation, "_folds", lambda y_N, rng: np.arange(len(y_N)) % 5)
    scores = [RULES[rule](probs, told, labels, None)(told) for labels in (y, other)]
    assert np.array_equal(scores[0][0::5], scores[1][0::5])
    assert not np.array_equal(scores[0], scores[1])
    assert decide(told).shape == (100, C)


def test_a_rule_may_be_a_function_of_ones_own():
    rng = np.random.default_rng(8)
    probs, y = experts(rng)
    told = being_right(probs, y)

    def product(q_NM):
        return (q_NM[..., None] * np.log(probs)).sum(axis=1)

    found = permutation_gap(probs, told, y, rule=product)
    assert (found.rule, found.verdict) == ("product", "used")


def test_seeds_are_pooled_into_one_test():
    gaps = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        probs, y = experts(rng, n=120)
        truth = being_right(probs, y)
        gaps.append(
            permutation_gap(probs, np.where(rng.random(truth.shape) < 0.6, truth, 1 - truth), y, seed=seed)
        )
    one, each = pooled(gaps), np.array([gap.gap for gap in gaps])
    assert one.gap == pytest.approx(each.mean())
    assert one.oracle == pytest.approx(np.mean([gap.oracle for gap in gaps]))
    assert one.p == 1 / 201 <= np.median([gap.p for gap in gaps])
    together = np.mean([gap.resampled_B for gap in gaps], axis=0)
    error = np.sqrt(each.var(ddof=1) / 5 + together.var())
    assert one.interval == pytest.approx((one.gap - 2.776445 * error, one.gap + 2.776445 * error))
    assert pooled([dataclasses.replace(gaps[0], broken_K=np.full(9, gaps[0].clean))]).p == 1.0
    for others in ({"draws": 3}, {"how": "joint"}, {"rule": "hard"}):
        with pytest.raises(DiagnosticError, match="same rule, items and number of draws"):
            pooled([permutation_gap(*_small()), permutation_gap(*_small(), **others)])
    with pytest.raises(DiagnosticError, match="one at least"):
        pooled([])


def test_models_that_agree_are_no_more_evidence_than_one():
    """Their test items are the same ones: permutations of their own would make p smaller."""
    probs, y = experts(np.random.default_rng(10), n=120)
    told = np.random.default_rng(11).random((120, M))
    for rule in USING:
        gap = permutation_gap(probs, told, y, rule=rule, draws=50, seed=4)
        one = pooled([gap] * 5)
        assert (one.gap, one.p) == (pytest.approx(gap.gap), gap.p)
        assert one.interval[0] <= gap.interval[0] < gap.interval[1] <= one.interval[1]


def test_pooled_ignored_needs_models_that_agree_and_items_enough():
    probs, y = experts(np.random.default_rng(12))
    none = permutation_gap(probs, np.ones((N, M)), y, draws=5)

    def verdict(*gaps: float, n: int = N) -> str:
        return pooled([dataclasses.replace(none, gap=gap, n=n) for gap in gaps]).verdict

    assert verdict(0.0, 0.0, 0.0) == verdict(0.001, -0.001, 0.002, 0.0, -0.002) == "ignored"
    assert verdict(0.03, -0.03, 0.01, -0.01, 0.0) == verdict(0.004, -0.004) == "undecided"
    assert verdict(0.0, 0.0, 0.0, n=298) == "undecided"
    assert verdict(0.02, 0.02, 0.02) != "ignored"


def _small() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    probs, y = experts(np.random.default_rng(9), n=40)
    return probs, confidence(probs), y


def test_reliabilities_of_an_experts_own_probabilities_lie_in_0_to_1():
    probs = np.array([[[1.0, 0, 0, 0], [0.25] * 4]])
    assert confidence(probs).tolist() == [[1.0, 0.25]]
    assert certainty(probs)[0] == pytest.approx([1.0, 0.0], abs=1e-9)


def changed(**changes):
    probs, told, y = _small()
    return {"probs_NMC": probs, "reliability_NM": told, "y_N": y} | changes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reliability_NM": None}, r"no reliabilities: take a fusion that has them \(gated, quality, moe"),
        ({"reliability_NM": np.ones((40, 3))}, r"reliabilities of shape \(40, 3\)"),
        ({"reliability_NM": np.full((40, 2), 1.5)}, r"reliabilities have to lie in 0\.\.1"),
        ({"reliability_NM": np.full((40, 2), np.nan)}, r"reliabilities have to lie in 0\.\.1"),
        ({"probs_NMC": np.ones((40, 1, 4))}, r"at least two modalities"),
        ({"probs_NMC": np.ones((40, 2, 4))}, r"do not add to 1: give softmax"),
        ({"probs_NMC": np.full((40, 2, 4), np.nan)}, r"finite and not negative"),
        ({"y_N": np.full(40, 4)}, r"whole numbers from 0 to 3"),
        ({"y_N": np.zeros(40)}, r"whole numbers from 0 to 3"),
        ({"present_NM": np.zeros((40, 2), bool)}, r"0 of 40 items have all modalities"),
        ({"present_NM": np.ones((40, 2))}, r"presence has to be"),
        ({"rule": "best"}, r"rule: unknown 'best'; known: mean, weighted"),
        ({"how": "anyhow"}, r"how: unknown 'anyhow'"),
        ({"draws": 0}, r"draws is 0"),
    ],
)
def test_what_cannot_be_diagnosed_is_refused_by_name(change, message):
    with pytest.raises(DiagnosticError, match=message):
        permutation_gap(**changed(**change))


def test_the_visible_share_is_what_the_noise_left(tmp_path):
    lines = ["split,index,modality,fg_shape,fg_color,fg_texture,bg_color,bg_texture,erased_fraction,label"]
    lines += [
        "train,0,rare,1,4,3,6,0,0.5,1",
        "test,0,rare,1,4,3,6,0,0.18,1",
        "test,0,frequent,1,4,3,6,0,0.25,1",
    ]
    lines += ["test,1,frequent,1,5,4,6,0,0.4,1"]
    (tmp_path / "attributes.csv").write_text("\n".join(lines) + "\n")
    found = visible_share(tmp_path, "test", ("rare", "frequent"))
    assert found == pytest.approx(np.array([[0.82, 0.75], [np.nan, 0.6]]), nan_ok=True)
    with pytest.raises(DiagnosticError, match=r"no images of split 'validation'"):
        visible_share(tmp_path, "validation", ("rare",))
    with pytest.raises(DiagnosticError, match=r"rendered datasets"):
        visible_share(tmp_path / "share", "test", ("cifar10",))


def test_a_verdict_says_ignored_only_by_the_test_for_it():
    found = permutation_gap(*_small(), draws=5)
    assert isinstance(found, Gap)
    assert dataclasses.replace(found, p=0.001, p_equivalent=0.01).verdict == "ignored"
    assert dataclasses.replace(found, p=0.001, p_equivalent=0.5).verdict == "used"
    assert dataclasses.replace(found, p=0.9, p_equivalent=0.5).verdict == "undecided"
