"""The kernels against brute force in float64 on written-out vectors, with the same random numbers."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from brute_force import brute_k_center, brute_k_means_pp, clusters, confident, rng
from mindgap.parts.query import kernels
from mindgap.parts.query.badge import residuals
from mindgap.parts.query.contract import QueryError
from mindgap.parts.query.kernels import (
    OuterProducts,
    k_center_greedy,
    k_means_pp,
    pick_balanced,
    sample_proportional,
    top_k,
)


@pytest.mark.parametrize(("n", "classes", "width"), [(900, 5, 16), (400, 100, 8), (300, 2, 64)])
@pytest.mark.parametrize("duplicates", [0.0, 0.9])
def test_factorised_k_means_pp_picks_what_written_out_vectors_pick(n, classes, width, duplicates):
    generator = rng(n)
    r = residuals(confident(n, classes, generator))
    h = torch.randn(n, width, generator=generator).relu()
    first = torch.arange(n) % round(n * (1 - duplicates))
    r, h = r[first], h[first]
    assert k_means_pp(r, h, n // 3, rng(1)).tolist() == brute_k_means_pp(r, h, n // 3, rng(1))


def test_k_means_pp_sees_residuals_whose_products_underflow_in_float32():
    r = residuals(confident(200, 5, rng(2))) * 1e-25
    h = torch.randn(200, 6, generator=rng(3))
    assert k_means_pp(r, h, 150, rng(1)).tolist() == brute_k_means_pp(r, h, 150, rng(1))


@pytest.mark.parametrize("exponent", [-42, -30, -22, 19, 25, 37])
@pytest.mark.parametrize("mixed", [False, True])
def test_picks_are_brute_force_where_products_of_features_leave_float32(exponent, mixed):
    """Below 1e-21 they underflow, above 1e18 they overflow; `mixed` has usual rows between such rows."""
    r = residuals(confident(200, 5, rng(2)))
    h = torch.randn(200, 6, generator=rng(3), dtype=torch.float64)
    h *= torch.where(torch.arange(200) % 2 == 0, 1.0 if mixed else 10.0**exponent, 10.0**exponent)[:, None]
    h = h.float()
    assert k_means_pp(r, h, 100, rng(1)).tolist() == brute_k_means_pp(r, h, 100, rng(1))
    picks = k_center_greedy(h[:180], h[180:], 100, rng(1)).tolist()
    assert picks == brute_k_center(h[:180], h[180:], 100, rng(1))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 3), st.integers(1, 3), st.integers(0, 999), st.integers(0, 3))
@example(n=11, classes=2, width=2, seed=1, spread=1)  # two samples of one product: r, h and -r, -h
def test_k_means_pp_on_small_integers(n, classes, width, seed, spread):
    generator = rng(seed)
    r = torch.randint(-spread, spread + 1, (n, classes), generator=generator).float()
    h = torch.randint(-spread, spread + 1, (n, width), generator=generator).float()
    assert k_means_pp(r, h, n, rng(seed)).tolist() == brute_k_means_pp(r, h, n, rng(seed))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(0, 4), st.integers(1, 3), st.integers(0, 999), st.integers(0, 3))
def test_k_center_on_small_integers(n, labelled, width, seed, spread):
    generator = rng(seed)
    x = torch.randint(-spread, spread + 1, (n + labelled, width), generator=generator).float()
    picks = k_center_greedy(x[:n], x[n:], n, rng(seed))
    assert picks.tolist() == brute_k_center(x[:n], x[n:], n, rng(seed))


@pytest.mark.parametrize("labelled", [0, 1, 700])
@pytest.mark.parametrize("kind", ["gaussian", "clusters", "duplicates"])
def test_k_center_is_brute_force(kind, labelled):
    generator = rng(labelled)
    x = torch.randn(800 + labelled, 12, generator=generator)
    if kind == "clusters":
        x = clusters(len(x), 12, generator)
    if kind == "duplicates":
        x = x[torch.arange(len(x)) % 80]
    pool, centres = x[:800], x[800:]
    assert k_center_greedy(pool, centres, 300, rng(5)).tolist() == brute_k_center(pool, centres, 300, rng(5))


def test_distance_of_near_duplicates_does_not_cancel():
    r, h = torch.randn(1, 10, generator=rng(0)), 100 * torch.randn(1, 64, generator=rng(1))
    near = h + 1e-4 * torch.randn(1, 64, generator=rng(2))
    zero = torch.zeros(1, dtype=torch.int64)
    got = OuterProducts(r, h).distance2(zero, OuterProducts(r, near), zero)
    want = (r.double().square().sum() * (h.double() - near.double()).square().sum()).item()
    assert got.item() == pytest.approx(want, rel=1e-12)
    assert OuterProducts(r, h).distance2(zero, OuterProducts(r, h), zero).item() == 0


@pytest.mark.parametrize(
    ("kernel", "case"),
    [
        ("k_means_pp", "all equal"),
        ("k_means_pp", "zero residuals"),
        ("k_means_pp", "90 % duplicates"),
        ("k_center", "all equal"),
        ("k_center", "90 % duplicates"),
    ],
)
def test_picks_are_distinct_when_most_distances_are_zero(kernel, case):
    r = residuals(confident(100, 4, rng(0)))
    h = torch.randn(100, 6, generator=rng(1))
    if case == "all equal":
        r, h = r[:1].expand(100, -1), h[:1].expand(100, -1)
    if case == "zero residuals":
        r = torch.zeros_like(r)
    if case == "90 % duplicates":
        r, h = r[torch.arange(100) % 10], h[torch.arange(100) % 10]
    picks = [
        k_means_pp(r, h, 60, rng(s)) if kernel == "k_means_pp" else k_center_greedy(h, h[:3], 60, rng(s))
        for s in (0, 0, 1)
    ]
    assert len(picks[0].unique()) == 60
    assert torch.equal(picks[0], picks[1])
    assert not torch.equal(picks[0], picks[2])


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def picks_and_distances():
    # more samples than PyTorch leaves to one thread (32,768)
    n, generator = 34_000, rng(0)
    r, h = residuals(confident(n, 3, generator)), clusters(n, 6, generator)
    points, nearest = OuterProducts(r, h), torch.full((n,), torch.inf, dtype=torch.float64)
    points.lower(nearest, points[torch.arange(0, n, 2000)])
    return [
        nearest,
        k_means_pp(r, h, 8, rng(1)),
        k_center_greedy(h, h[:20] + 1, 8, rng(2)),
        sample_proportional(h[:, 0].abs(), 8, rng(3)),
        top_k(h[:, 0].round(decimals=1), 1000, rng(4)),
    ]


def test_picks_do_not_depend_on_threads_or_on_the_size_of_blocks(threads, monkeypatch):
    threads(1)
    want = picks_and_distances()
    for count, block in ((2, kernels.BLOCK), (1, 2**15)):
        threads(count)
        monkeypatch.setattr(kernels, "BLOCK", block)
        assert all(torch.equal(a, b) for a, b in zip(picks_and_distances(), want, strict=True))


@pytest.mark.parametrize("block", [1, 300, 2**12, 2**20])
def test_squares_and_distances_are_the_same_bits_in_blocks_of_any_size(block, monkeypatch):
    r, h = residuals(confident(700, 11, rng(0))), clusters(700, 37, rng(1))
    i, j = torch.arange(700), torch.arange(700).flip(0)

    def numbers():
        points = OuterProducts(r, h)
        return points.square_N, points.unit_r_NC, points.distance2(i, points, j)

    want = numbers()
    monkeypatch.setattr(kernels, "BLOCK", block)
    assert all(torch.equal(a, b) for a, b in zip(numbers(), want, strict=True))


def test_fill_after_all_distances_are_zero_is_uniform():
    x = torch.zeros(10, 2)
    counts = torch.stack([k_center_greedy(x, x[:1], 1, rng(s)) for s in range(2000)]).flatten().bincount()
    assert counts.min() > 140
    assert counts.max() < 260


def test_top_k_breaks_ties_at_random_and_only_ties():
    scores = torch.tensor([0.0, 2.0, 1.0, 1.0, 1.0, 3.0])
    picks = [top_k(scores, 3, rng(seed)).tolist() for seed in range(60)]
    assert all(p[:2] == [5, 1] for p in picks)
    assert {p[2] for p in picks} == {2, 3, 4}


def test_sampling_follows_the_weights_and_never_repeats():
    weights = torch.tensor([0.0, 1.0, 3.0, 0.0])
    first = torch.stack([sample_proportional(weights, 4, rng(s)) for s in range(2000)])
    assert (first.sort(dim=1).values == torch.arange(4)).all()
    assert ((first[:, 0] == 2).double().mean() - 0.75).abs() < 0.04
    assert {1, 2} == set(first[:, :2].flatten().tolist())


def test_balanced_picks_fill_up_the_smallest_groups():
    group = torch.tensor([0] * 50 + [1] * 50 + [2] * 3)
    picks = pick_balanced(group, torch.tensor([10, 0, 4]), 21, rng(0))
    assert group[picks].bincount(minlength=3).tolist() == [4, 14, 3]
    assert len(picks.unique()) == 21


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_input_that_is_not_finite_is_named_with_its_row(bad):
    good, x = torch.ones(5, 2), torch.ones(5, 2)
    x[3, 1] = bad
    with pytest.raises(QueryError, match=r"h_ND is not finite in 1 of 5 rows, the first is row 3"):
        k_means_pp(good, x, 2, rng())
    with pytest.raises(QueryError, match=r"centres_LD is not finite .* row 3"):
        k_center_greedy(good, x, 2, rng())
    with pytest.raises(QueryError, match=r"scores_N is not finite .* row 3"):
        top_k(x[:, 1], 2, rng())


def test_weights_below_zero_are_named():
    with pytest.raises(QueryError, match="weights_N is negative in row 1"):
        sample_proportional(torch.tensor([1.0, -1.0]), 1, rng())


@pytest.mark.parametrize(
    "pick",
    [
        lambda x, n: top_k(x[:, 0], n, rng()),
        lambda x, n: sample_proportional(x[:, 0].abs(), n, rng()),
        lambda x, n: k_means_pp(x, x, n, rng()),
        lambda x, n: k_center_greedy(x, x[:0], n, rng()),
        lambda x, n: pick_balanced(torch.arange(len(x)) % 2, torch.tensor([0, 0]), n, rng()),
    ],
)
def test_the_whole_pool_none_of_it_and_more_than_it(pick):
    x = torch.randn(9, 3, generator=rng(4))
    assert pick(x, 9).sort().values.tolist() == list(range(9))
    assert pick(x, 0).tolist() == []
    with pytest.warns(UserWarning, match="asked for 12 of 9 samples"):
        assert len(pick(x, 12)) == 9
    with pytest.raises(QueryError, match="cannot pick -1 samples"):
        pick(x, -1)
