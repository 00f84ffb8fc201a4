"""Methods against redundancy in a batch, against plain formulas in float64: power sampling and TypiClust."""

import math

import pytest
import torch

from brute_force import rng
from mindgap.base.typicality import mean_distance
from mindgap.parts.query.bald import mutual_information
from mindgap.parts.query.clustering import k_means
from mindgap.parts.query.kernels import k_means_pp
from mindgap.parts.query.power import SCORES, draw_by_power
from mindgap.parts.query.select import select
from mindgap.parts.query.typiclust import in_turns
from test_query import make_view

# Power sampling -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.0, 1.0, 3.0])
def test_draws_are_in_proportion_to_the_power_of_the_score_as_gumbel_noise_has_it(beta):
    score, draws = torch.tensor([0.5, 1.0, 2.0, 1.5]), 4000
    ours, gumbels = torch.zeros(4, 4), torch.zeros(4, 4)
    noise = rng(1)
    for seed in range(draws):
        ours[tuple(draw_by_power(score, 2, beta, rng(seed)).tolist())] += 1 / draws
        gumbel = -(-torch.rand(4, generator=noise).log()).log()
        gumbels[tuple((beta * score.log() + gumbel).topk(2).indices.tolist())] += 1 / draws
    p = (score**beta / (score**beta).sum()).double().tolist()
    want = [[0 if i == j else p[i] * p[j] / (1 - p[i]) for j in range(4)] for i in range(4)]
    assert (ours - torch.tensor(want)).abs().max() < 0.025
    assert (gumbels - torch.tensor(want)).abs().max() < 0.025


def test_a_large_power_takes_the_top_and_none_the_zeros_before_the_rest():
    score = torch.tensor([0.0, 1e-30, 5.0, 60.0, -1.0, 1e30])
    assert draw_by_power(score, 6, 100.0, rng()).tolist()[0] == 5
    assert set(draw_by_power(score, 4, 0.1, rng()).tolist()) == {1, 2, 3, 5}
    assert len(draw_by_power(torch.zeros(6), 6, 1.0, rng()).unique()) == 6


@pytest.mark.parametrize("score", SCORES)
def test_every_score_can_be_drawn_from(score):
    values = SCORES[score](make_view())
    picks = select("power", make_view(), 5, {"score": score, "beta": 100.0})
    assert values[picks[0]] > values.max() * 0.8
    assert values.shape == (60,)


def test_margin_and_least_confidence_are_their_formulas():
    view = make_view(sharpness=1.0)
    for p, gap, unsure in zip(
        view.probs_NC.double().tolist(),
        SCORES["margin"](view).tolist(),
        SCORES["least_confidence"](view).tolist(),
        strict=True,
    ):
        first, second = sorted(p)[:-3:-1]
        assert gap == pytest.approx(1 - (first - second))
        assert unsure == pytest.approx(1 - first)


def test_power_bald_draws_by_balds_score():
    view = make_view(size=200, sharpness=1.0)
    want = draw_by_power(mutual_information(view.mc_log_probs_NKC(20)), 30, 2.0, view.rng)
    picks = select("power_bald", make_view(size=200, sharpness=1.0), 30, {"passes": 20, "beta": 2.0})
    assert torch.equal(picks, want)
    with pytest.raises(ValueError, match="head_dropout"):
        select("power_bald", make_view(dropout=0.0), 3)


# TypiClust ------------------------------------------------------------------------------------------------


def test_k_means_is_lloyds_from_the_seeds():
    x = torch.randn(70, 3, generator=rng(4))
    centres, points = x[k_means_pp(torch.ones(70, 1), x, 6, rng(1))].double(), x.double()
    for _ in range(4):
        nearest = (points[:, None] - centres).square().sum(-1).argmin(1)
        centres = torch.stack([points[nearest == c].mean(0) for c in range(6)])
    distance = (points[:, None] - centres).square().sum(-1)
    label, away = k_means(x, 6, 4, rng(1))
    torch.testing.assert_close(away, distance.amin(1).sqrt(), rtol=1e-5, atol=1e-5)
    same = distance.argmin(1)
    assert torch.equal(label[:, None] == label, same[:, None] == same)


def test_fewer_different_samples_than_clusters_make_fewer_clusters(recwarn):
    label, away = k_means(torch.randn(3, 2, generator=rng())[torch.arange(30) % 3], 9, 5, rng())
    assert len(label.unique()) == 3
    assert away.max() < 1e-6
    assert not recwarn.list


def test_typicality_is_the_mean_distance_to_the_nearest_half_or_twenty():
    for size in (1, 2, 3, 9, 60):
        x = torch.randn(size, 4, generator=rng(size))
        near = min(20, size // 2)
        got = mean_distance(x).tolist()
        for i in range(size):
            away = sorted(math.dist(x[i].tolist(), x[j].tolist()) for j in range(size) if j != i)
            assert got[i] == pytest.approx(sum(away[:near]) / near if near else 0.0, abs=1e-6)


def test_clusters_with_fewest_labels_then_largest_first_small_ones_last():
    """Sizes 12, 9, 8, 3; the first has two labels, the second one."""
    cluster = torch.tensor([0] * 10 + [1] * 8 + [2] * 8 + [3] * 3)
    x = torch.randn(29, 2, generator=rng())
    picks = in_turns(x, cluster, torch.tensor([0, 0, 1]), 29, 5, rng())
    assert cluster[picks[:4]].tolist() == [2, 1, 0, 2]
    assert (cluster[picks[-3:]] == 3).all()
    assert len(picks.unique()) == 29
    first = (cluster == 2).nonzero()[:, 0]
    assert picks[0] == first[mean_distance(x[first]).argmin()]


def test_typiclust_goes_where_nothing_is_labelled():
    """Three far groups; those of the labelled samples are two: the third comes first."""
    view = make_view(size=60, labelled=6)
    centres = torch.eye(3, 16) * 50
    h, noise = view.fused_NH, torch.randn(66, view.fused_NH.shape[1], generator=rng())
    group, old = torch.arange(60) % 3, torch.tensor([0, 0, 0, 1, 1, 1])
    assert h.shape[1] == 16
    vars(view)["fused_NH"] = centres[group] + noise[:60]
    vars(view._labelled)["fused_NH"] = centres[old] + noise[60:]
    picks = select("typiclust", view, 3, {"max_clusters": 3})
    assert group[picks].tolist()[0] == 2
    assert sorted(group[picks].tolist()) == [0, 1, 2]


def test_typiclust_on_a_modality_takes_samples_without_it_last():
    view = make_view()
    has = view.present_NM[:, 1]
    picks = select("typiclust", view, 60, {"modality": "m1"})
    assert has[picks[: int(has.sum())]].all()
