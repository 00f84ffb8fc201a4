"""Every query method through one contract, and each method's own truths."""

import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from mindgap.base.modality import Modality
from mindgap.base.settings import SettingsError
from mindgap.base.view import LabelledSamples, PoolView, ValidationSamples
from mindgap.core.loop import measured
from mindgap.core.network import ModelSpec, build_model
from mindgap.parts import query
from mindgap.parts.query import METHODS, Method
from mindgap.parts.query.badge import residuals
from mindgap.parts.query.bald import mutual_information
from mindgap.parts.query.bmmal import scaled_tokens, scales, shapley_values, shares
from mindgap.parts.query.contract import QueryError
from mindgap.parts.query.entropy import entropy_of
from mindgap.parts.query.grace_r import easiness, rank01
from mindgap.parts.query.kernels import k_means_pp
from mindgap.parts.query.resident import ResidentDraws, ResidentProducts
from mindgap.parts.query.select import check_settings, hyperparameters, lookup, select

CLASSES = 4


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def make_view(
    size=60,
    labelled=12,
    modalities=2,
    seed=0,
    classes=CLASSES,
    missing=0.5,
    duplicates=1,
    sharpness=3.0,
    classes_seen=CLASSES,
    dropout=0.5,
    round=1,
):
    """A view of random tokens through a real network; `duplicates` copies of each sample."""
    g = rng(7)
    images = {f"m{i}": Modality("image", (32, 32, 3)) for i in range(modalities)}
    model = build_model(images, classes, spec(dropout), seed=1)
    with torch.no_grad():
        model.head.weight.mul_(10 * sharpness)
    total = size + labelled
    tokens = torch.randn(total, modalities, 16, generator=g)
    present = torch.rand(total, modalities, generator=g) >= missing
    present[torch.arange(total), torch.randint(modalities, (total,), generator=g)] = True
    same = torch.cat([torch.arange(size) // duplicates, torch.arange(size, total)])
    tokens, present = tokens[same], present[same]
    y = torch.randint(classes_seen, (total,), generator=g)
    of_labelled = model, lambda: tokens[size:], present[size:], y[size:]
    return PoolView(
        model,
        lambda: tokens[:size],
        present[:size],
        ids=torch.arange(size),
        labelled=LabelledSamples(*of_labelled),
        validation=ValidationSamples(*of_labelled, partial(measured, model, "here")),
        history={},
        modalities=tuple(images),
        rng=rng(seed),
        round=round,
        rounds=4,
        oracle_y_N=y[:size],
    )


def spec(dropout):
    fusion = {"name": "transformer", "heads": 2, "feedforward": 16}
    return ModelSpec(fusion=fusion, width=16, head_dropout=dropout)


@pytest.fixture(params=METHODS)
def name(request):
    return request.param


# Every method ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modalities", [1, 2, 3])
@pytest.mark.parametrize("n", [0, 1, 20, 60])
def test_a_method_returns_n_distinct_positions(name, modalities, n):
    picks = select(name, make_view(modalities=modalities), n)
    assert picks.dtype == torch.int64
    assert len(picks.unique()) == n


@pytest.mark.parametrize(
    "case",
    [
        {"labelled": 0},
        {"labelled": 0, "round": 0},
        {"classes_seen": 1},
        {"missing": 0.0},
        {"missing": 1.0},
        {"sharpness": 1e4},
        {"sharpness": 0.0},
        {"size": 1, "labelled": 0},
        {"duplicates": 10},
    ],
    ids=str,
)
def test_a_method_runs_where_scores_or_labels_give_out(name, case):
    view = make_view(**case)
    n = max(1, view.size // 2)
    assert len(select(name, view, n).unique()) == n


def test_one_seed_picks_the_same_and_ties_go_by_the_seed(name):
    picks = [select(name, make_view(duplicates=60, seed=s), 20).tolist() for s in (0, 0, 1)]
    assert picks[0] == picks[1]
    assert picks[0] != picks[2]


def test_a_method_takes_a_pool_that_is_too_small_whole(name):
    with pytest.warns(UserWarning, match="asked for 70 of 60 samples"):
        assert select(name, make_view(), 70).sort().values.tolist() == list(range(60))


def test_a_query_method_does_not_see_the_labels(name):
    view = make_view()
    view.oracle_y_N = None
    if METHODS[name].oracle:
        with pytest.raises(QueryError, match=f"'{name}' needs the pool's labels"):
            select(name, view, 5)
    else:
        assert len(select(name, view, 5)) == 5


@pytest.mark.parametrize("name", ["entropy", "margin", "bald", "badge", "bmmal", "grace_r"])
def test_predictions_that_are_not_finite_are_an_error(name):
    view = make_view()
    with torch.no_grad():
        view._model.head.bias.fill_(math.nan)
    with pytest.raises(QueryError, match="is not finite in 60 of 60 rows"):
        select(name, view, 5)


# Names, settings and the check of picks -------------------------------------------------------------------


def test_an_unknown_method_lists_the_known_ones():
    with pytest.raises(QueryError, match="unknown query method 'bagde'; known: random, entropy, margin"):
        lookup("bagde")


def test_settings_are_the_keyword_arguments():
    assert hyperparameters("bald") == {"passes": 50}
    assert hyperparameters("random") == {}
    check_settings("bald", {"passes": 10})
    assert check_settings("grace_r", {"gamma": 1}) == {"gamma": 1.0}


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("bald", {"pases": 3}, r"query_settings.bald.pases is unknown; known: passes"),
        ("random", {"k": 3}, r"query_settings.random.k is unknown; known: none"),
        (
            "bald",
            {"passes": "3"},
            r"bald.passes: Input should be a valid integer \(given: '3'\); write a decimal",
        ),
        ("bald", {"passes": True}, r"query_settings.bald.passes: .*integer \(given: True\)"),
        ("grace_r", {"gamma": None}, r"query_settings.grace_r.gamma: .*given: None"),
        ("bald", {"passes": 0}, r"passes: Input should be greater than or equal to 2 \(given: 0\)"),
        ("grace_r", {"gamma": float("nan")}, r"gamma: Input should be .*given: nan"),
    ],
)
def test_wrong_settings_are_named(name, settings, message):
    with pytest.raises(SettingsError, match=message):
        check_settings(name, settings)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (torch.tensor([1, 4, 4]), r"'plugin' returned 1 positions more than once: \[4\]; set the score"),
        (torch.tensor([1, 2]), r"'plugin' returned 2 positions, 3 were asked for"),
        (torch.tensor([1, 2, 60]), r"'plugin' returned positions outside 0..59: \[60\]"),
        (torch.tensor([-1, 2, 3]), r"outside 0..59: \[-1\]"),
        (torch.tensor([1.0, 2.0, 3.0]), r"'plugin' returned torch.float32 of shape \(3,\)"),
        (torch.tensor([[1, 2, 3]]), r"of shape \(1, 3\)"),
        ([1, 2, 3], r"'plugin' returned list; return a 1-d integer tensor"),
    ],
)
def test_a_plug_in_that_breaks_the_contract_is_named_with_its_fault(monkeypatch, returned, message):
    monkeypatch.setitem(query.METHODS, "plugin", Method(lambda view, n: returned))
    with pytest.raises(QueryError, match=message):
        select("plugin", make_view(), 3)


# Entropy, margin, BALD ------------------------------------------------------------------------------------


def test_entropy_of_saturated_uniform_and_ordinary_predictions():
    logits = torch.tensor([[1e4, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 2.0, 3.0]])
    got = entropy_of(logits.log_softmax(1))
    assert got[0] == 0  # p log p as written is NaN here
    assert got[1].item() == pytest.approx(math.log(3))
    p = logits[2].double().softmax(0)
    assert got[2].item() == pytest.approx(-(p * p.log()).sum().item(), rel=1e-6)


def test_entropy_and_margin_pick_the_undecided():
    view = make_view(size=200)
    for name, score in [
        ("entropy", entropy_of(view.log_probs_NC)),
        ("margin", -view.probs_NC.double().topk(2).values.diff().abs()[:, 0]),
    ]:
        picks = select(name, view, 30)
        rest = torch.ones(200, dtype=torch.bool)
        rest[picks] = False
        assert score[picks].min() >= score[rest].max() - 1e-6


def test_bald_is_zero_where_passes_agree():
    once = torch.randn(50, 1, 10, generator=rng()).mul(5).log_softmax(2)
    assert mutual_information(once.expand(-1, 20, -1)).max() < 1e-12


def test_bald_vanishes_with_the_dropout():
    scores = [
        mutual_information(make_view(dropout=p).mc_log_probs_NKC(20)).mean().item() for p in (0.5, 0.05, 1e-9)
    ]
    assert scores[0] > scores[1] > scores[2]
    assert scores[2] < 1e-12


def test_bald_is_between_0_and_log_classes():
    disagree = torch.full((1, CLASSES, CLASSES), -1e4)
    disagree[0].fill_diagonal_(0.0)
    assert mutual_information(disagree.log_softmax(2)).item() == pytest.approx(math.log(CLASSES))
    scores = mutual_information(make_view(sharpness=100.0).mc_log_probs_NKC(20))
    assert scores.min() >= 0
    assert scores.max() <= math.log(CLASSES) + 1e-9


def test_bald_in_one_product_is_bald_pass_by_pass(monkeypatch):
    view = make_view()
    log_probs = view.mc_log_probs_NKC(6)
    loop = torch.stack(
        [
            (view.fused_NH * mask_H @ view.head_weight_CH.T + view.head_bias_C).log_softmax(1)
            for mask_H in view._masks_KH(6)
        ],
        dim=1,
    )
    torch.testing.assert_close(log_probs, loop, rtol=1e-4, atol=1e-4)
    whole = select("bald", make_view(), 10)
    monkeypatch.setitem(METHODS["bald"].fn.__globals__, "CHUNK", 50 * CLASSES * 7)
    assert torch.equal(select("bald", make_view(), 10), whole)


def test_bald_names_a_row_of_the_pool_and_not_of_the_chunk(monkeypatch):
    view = make_view()
    view.fused_NH[40] = math.nan
    monkeypatch.setitem(METHODS["bald"].fn.__globals__, "CHUNK", 50 * CLASSES * 7)
    with pytest.raises(QueryError, match=r"not finite in 1 of 60 rows, the first is row 40"):
        select("bald", view, 10)


def test_bald_without_dropout_says_what_to_set():
    with pytest.raises(ValueError, match=r"head_dropout"):
        select("bald", make_view(dropout=0.0), 3)


# BADGE and BMMAL ------------------------------------------------------------------------------------------


def test_residual_is_p_minus_onehot_and_keeps_what_1_minus_p_loses():
    p = torch.tensor([[0.7, 0.2, 0.1], [1.0, 1e-12, 0.0]])
    torch.testing.assert_close(residuals(p)[0], torch.tensor([-0.3, 0.2, 0.1]))
    assert residuals(p)[1].tolist() == [-p[1, 1], p[1, 1], 0.0]
    torch.testing.assert_close(residuals(p, torch.tensor([1, 0]))[0], torch.tensor([0.7, -0.8, 0.1]))


def test_badge_is_k_means_pp_on_the_gradient_of_the_last_layer():
    view = make_view(size=8, sharpness=1.0)
    weight = view.head_weight_CH.clone().requires_grad_()
    r = residuals(view.probs_NC)
    for i, h in enumerate(view.fused_NH):
        logits = weight @ h + view.head_bias_C
        loss = torch.nn.functional.cross_entropy(logits, logits.argmax())
        (gradient,) = torch.autograd.grad(loss, weight)
        torch.testing.assert_close(gradient, r[i][:, None] * h)


def test_bmmal_with_equal_shares_is_badge_on_the_concatenation():
    view = make_view(modalities=3)
    equal = scales(torch.full((60, 3), 1 / 3))
    r, tokens = residuals(view.probs_NC), view.tokens_NMD
    got = k_means_pp(r, scaled_tokens(tokens, equal), 30, rng(3))
    assert torch.equal(got, k_means_pp(r, tokens.flatten(1), 30, rng(3)))


def test_scale_of_an_absent_modality_is_irrelevant():
    view = make_view(modalities=3)
    absent = ~view.present_NM
    assert (shares(view)[absent] == 0).all()
    scale = scales(shares(view))
    other = torch.where(absent, 17.0, scale)
    assert torch.equal(scaled_tokens(view.tokens_NMD, scale), scaled_tokens(view.tokens_NMD, other))


def test_the_only_modality_of_a_sample_keeps_its_block():
    view = make_view(missing=1.0)
    assert (view.present_NM.sum(1) == 1).all()
    assert (scales(shares(view))[view.present_NM] == 1).all()


def test_shares_are_equal_where_nothing_contributes():
    same = torch.full((5, CLASSES), 1 / CLASSES)
    view = SimpleNamespace(
        probs_NC=same, present_NM=torch.ones(5, 3, dtype=torch.bool), probs_with=lambda keep: same
    )
    torch.testing.assert_close(shares(view), torch.full((5, 3), 1 / 3, dtype=torch.float64))
    assert (scales(shares(view)) == 1).all()


def test_the_weak_of_two_modalities_is_scaled_by_twice_its_share():
    share = torch.tensor([[0.8, 0.2], [0.5, 0.5]])
    torch.testing.assert_close(scales(share), torch.tensor([[1.0, 0.4], [1.0, 1.0]]))


def test_shapley_values_of_three_are_efficient_symmetric_and_null():
    g = rng(5)
    keeps = [(a, b, c) for a in (False, True) for b in (False, True) for c in (False, True)]
    value = {keep: torch.rand(20, generator=g, dtype=torch.float64) for keep in keeps}
    phi = shapley_values(value)
    torch.testing.assert_close(phi.sum(1), value[True, True, True] - value[False, False, False])
    additive = {keep: torch.tensor([2.0 * keep[0] + 5.0 * keep[1]]) for keep in keeps}
    torch.testing.assert_close(shapley_values(additive), torch.tensor([[2.0, 5.0, 0.0]]))


def test_shapley_values_of_two_are_the_authors_formula():
    g = rng(6)
    v = {(a, b): torch.rand(9, generator=g) for a in (False, True) for b in (False, True)}
    first = (v[True, True] - v[False, True] + v[True, False] - v[False, False]) / 2
    torch.testing.assert_close(shapley_values(v)[:, 0], first)


# grace_r --------------------------------------------------------------------------------------------------


def test_ranks_go_from_0_to_1_with_ties_in_the_middle():
    assert rank01(torch.tensor([3.0, 1.0, 2.0])).tolist() == [1.0, 0.0, 0.5]
    assert rank01(torch.tensor([torch.inf, torch.inf])).tolist() == [0.5, 0.5]


def test_easiness_is_1_for_agreement_and_0_for_certain_disagreement():
    a, b = torch.eye(2)[0].expand(4, 2), torch.eye(2)[[0, 1, 1, 0]]
    view = SimpleNamespace(
        present_NM=torch.tensor([[True, True], [True, True], [True, True], [True, False]]),
        num_classes=2,
        probs_with=lambda keep: a if keep[0] else b,
    )
    # the last has one modality and gets the median of 1, 0 and 0
    torch.testing.assert_close(easiness(view), torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64))


def test_grace_r_goes_from_easy_to_valuable():
    def mean_easiness(round):
        view = make_view(size=300, round=round, missing=0.0)
        return easiness(view)[select("grace_r", view, 60)].mean()

    assert mean_easiness(0) > mean_easiness(3) + 0.02


@pytest.mark.parametrize("round", [0, 2, 3])
@pytest.mark.parametrize("labelled", [0, 12])
def test_grace_r_with_the_kernels_of_a_gpu_picks_the_same(round, labelled, monkeypatch):
    want = select("grace_r", make_view(round=round, labelled=labelled), 60)
    own = METHODS["grace_r"].fn.__globals__
    monkeypatch.setitem(own, "OuterProducts", ResidentProducts)
    monkeypatch.setitem(own, "Draws", ResidentDraws)
    assert torch.equal(select("grace_r", make_view(round=round, labelled=labelled), 60), want)


# Controls -------------------------------------------------------------------------------------------------


def test_the_oracle_control_evens_out_the_classes():
    view = make_view(size=400, labelled=30, classes_seen=3, classes=3)
    picks = select("class_balanced_oracle", view, 60)
    after = (view.labelled_y_L.bincount() + view.oracle_y_N[picks].bincount()).tolist()
    assert after == [30, 30, 30]


@pytest.mark.parametrize("step", [0.3, 1.0])
def test_the_greedy_oracle_lowers_the_validation_loss_most_pick_after_pick(step):
    """Beside plain steps of the whole layer in float64, gradients written out; samples lack modalities."""
    view = make_view(size=40, labelled=15, missing=0.4, sharpness=0.2)
    h_ND, h_VD = view.fused_NH.double(), view.validation.fused_NH.double()
    weight, bias = view.head_weight_CH.double(), view.head_bias_C.double()
    eta, expected = step / h_ND.square().sum(1).mean(), []
    for _ in range(12):

        def gradient(h_D, y, weight=weight):
            r_C = (weight @ h_D + bias).softmax(0) - torch.eye(CLASSES, dtype=torch.float64)[y]
            return torch.outer(r_C, h_D)

        of_validation = sum(gradient(h, y) for h, y in zip(h_VD, view.validation.y_N, strict=True))
        gain = {
            i: (gradient(h_ND[i], view.oracle_y_N[i]) * of_validation).sum().item()
            for i in range(40)
            if i not in expected
        }
        expected.append(max(gain, key=gain.get))
        weight = weight - eta * gradient(h_ND[expected[-1]], view.oracle_y_N[expected[-1]])
    assert select("greedy_oracle", view, 12, {"step": step}).tolist() == expected


def test_the_presence_control_evens_out_the_patterns():
    view = make_view(size=400, labelled=30, missing=0.7)
    picks = select("presence_balanced", view, 60)
    rows = torch.cat([view.labelled_present_LM, view.present_NM[picks]])
    assert rows.unique(dim=0, return_counts=True)[1].tolist() == [30, 30, 30]
