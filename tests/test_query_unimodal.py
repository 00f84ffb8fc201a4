"""Methods that ask what one modality alone says, against plain formulas in float64."""

import math
from dataclasses import replace

import pytest
import torch

from brute_force import brute_k_means_pp, brute_k_means_pp_on, confident, outer, rng
from mindgap.base.view import Metrics
from mindgap.parts.query import blocks, cover
from mindgap.parts.query.alfa_mix import anchors, count_within, least_cap
from mindgap.parts.query.badge import residuals
from mindgap.parts.query.blocks import k_means_pp_blocks
from mindgap.parts.query.contract import QueryError
from mindgap.parts.query.cover import Cover, Space, greedy_cover
from mindgap.parts.query.disagreement import disagreement_of
from mindgap.parts.query.kernels import k_means_pp
from mindgap.parts.query.max_modality_entropy import max_modality_entropy_of
from mindgap.parts.query.mcover import falls, median_norm
from mindgap.parts.query.select import select
from mindgap.parts.query.teach import pupil_weights
from mindgap.parts.query.unimodal import floored_shares, logits_alone, probs_alone, weakest
from test_query import make_view

SOME = Metrics(balanced_accuracy=0.5, accuracy=0.5, ece=0.1, nll=1.0, n=9)


def measured(view, values=(), **of_all):
    """A view whose modalities do as told, one dict each (None: no validation sample has it)."""
    found = {"+".join(view.modalities): replace(SOME, **of_all)}
    for name, value in zip(view.modalities, values, strict=False):
        if value is not None:
            found[name] = replace(SOME, **value)
    vars(view.validation)["metrics"] = found
    return view


def entropy(p):
    return -sum(x * math.log(x) for x in p if x > 0)


def alone(view, m):
    """Predictions with modality m alone, N lists of C numbers."""
    keep = torch.zeros(len(view.modalities), dtype=torch.bool)
    keep[m] = True
    return view.probs_with(keep).double().tolist()


# What one modality says -----------------------------------------------------------------------------------


def test_weak_is_the_lowest_balanced_accuracy_alone_that_is_known():
    view = make_view(modalities=3)
    accuracies = [{"balanced_accuracy": a} for a in (0.4, 0.3, 0.3)]
    assert weakest(measured(view, accuracies), None) == 1  # the first of equal ones
    assert weakest(measured(view, [accuracies[0], None, {"balanced_accuracy": 0.35}]), None) == 2
    assert weakest(measured(view, [None, None, None]), None) == 0
    assert weakest(view, "m2") == 2


@pytest.mark.parametrize("name", ["weak_entropy", "weak_badge", "typiclust", "presence_quota"])
def test_a_modality_of_another_dataset_is_refused_by_name(name):
    with pytest.raises(QueryError, match="modality 'rare' is not of this dataset; its modalities are m0, m1"):
        select(name, make_view(), 5, {"modality": "rare"})
    assert len(select(name, make_view(), 5, {"modality": "m1"})) == 5


def test_logits_alone_are_those_behind_the_predictions():
    view = make_view(modalities=3)
    torch.testing.assert_close(logits_alone(view).softmax(-1).double(), probs_alone(view))


@pytest.mark.parametrize("modalities", [1, 2, 3])
def test_scores_are_their_formulas(modalities):
    view = make_view(modalities=modalities, missing=0.4, sharpness=1.0)
    most, apart = max_modality_entropy_of(view), disagreement_of(view)
    each = [alone(view, m) for m in range(modalities)]
    for i, present in enumerate(view.present_NM.tolist()):
        members = [each[m][i] for m in range(modalities) if present[m]]
        assert most[i].item() == pytest.approx(max(map(entropy, members)), abs=1e-9)
        if len(members) == 1:
            assert apart[i] == -1
            continue
        mean = [sum(column) / len(members) for column in zip(*members, strict=True)]
        divergence = entropy(mean) - sum(map(entropy, members)) / len(members)
        assert apart[i].item() == pytest.approx(divergence / math.log(min(len(members), 4)), abs=1e-9)


@pytest.mark.parametrize("weak", [0, 1, 2])
def test_weak_entropy_takes_the_weak_modalitys_most_unsure_and_those_without_it_last(weak):
    accuracies = [{"balanced_accuracy": 0.2 if m == weak else 0.6} for m in range(3)]
    view = measured(make_view(modalities=3, sharpness=1.0), accuracies)
    score = [entropy(p) for p in alone(view, weak)]
    has = view.present_NM[:, weak].nonzero()[:, 0].tolist()
    want = sorted(has, key=lambda i: -score[i])
    assert select("weak_entropy", view, len(has)).tolist() == want
    assert select("weak_entropy", view, 60)[: len(has)].tolist() == want


@pytest.mark.parametrize("weak", [0, 1])
def test_weak_badge_is_brute_force_on_the_weak_modalitys_gradients(weak):
    accuracies = [{"balanced_accuracy": 0.2 if m == weak else 0.6} for m in range(2)]
    view = measured(make_view(seed=3, sharpness=1.0), accuracies)
    has = view.present_NM[:, weak].nonzero()[:, 0]
    p = torch.tensor(alone(view, weak))[has]
    r = p - torch.nn.functional.one_hot(p.argmax(1), 4)
    picks = select("weak_badge", view, 60)
    want = brute_k_means_pp(r, view.tokens_NMD[has, weak], len(has), rng(3))
    assert picks[: len(has)].tolist() == has[want].tolist()
    assert not view.present_NM[picks[len(has) :], weak].any()


@pytest.mark.parametrize(("share", "n"), [(0.0, 10), (0.5, 9), (1.0, 10), (1.0, 55)])
def test_presence_quota_keeps_its_share_for_the_scarcest_modality(share, n):
    view = make_view(sharpness=1.0)
    counts = view.labelled_present_LM.sum(0).tolist()
    scarce = counts.index(min(counts))
    score, has = [entropy(p) for p in view.probs_NC.double().tolist()], view.present_NM[:, scarce].tolist()
    ranked = sorted(range(60), key=lambda i: -score[i])
    first = [i for i in ranked if has[i]][: math.ceil(share * n)]
    want = (first + [i for i in ranked if i not in first])[:n]
    assert select("presence_quota", view, n, {"share": share}).tolist() == want


# teach ----------------------------------------------------------------------------------------------------


def made_blocks(n, classes, widths, seed=0, duplicates=0.0, scale=1.0):
    generator, first = rng(seed), torch.arange(n) % round(n * (1 - duplicates))
    label = torch.randint(classes, (n,), generator=generator)
    return [
        (scale**m * residuals(confident(n, classes, generator), label)[first], z[first])
        for m, width in enumerate(widths)
        for z in [torch.randn(n, width, generator=generator).relu()]
    ]


@pytest.mark.parametrize("duplicates", [0.0, 0.9])
@pytest.mark.parametrize(
    ("n", "classes", "widths", "scale"),
    [(500, 5, (16, 8), 7.0), (300, 40, (8,), 1.0), (400, 3, (4, 4, 9), 1e-3)],
)
def test_k_means_pp_on_blocks_picks_what_written_out_vectors_pick(n, classes, widths, scale, duplicates):
    made = made_blocks(n, classes, widths, duplicates=duplicates, scale=scale)
    want = brute_k_means_pp_on(torch.cat([outer(*block) for block in made], 1), n // 2, rng(1))
    assert k_means_pp_blocks(made, n // 2, rng(1)).tolist() == want
    assert blocks._resident(made, n // 2, rng(1)).tolist() == want  # the loop of a GPU


@pytest.mark.parametrize("exponent", [-42, -30, 19, 25, 37])
def test_blocks_of_features_that_leave_float32_are_brute_force(exponent):
    made = made_blocks(120, 4, (5, 6))
    made[0] = made[0][0], (made[0][1].double() * 10.0**exponent).float()
    want = brute_k_means_pp_on(torch.cat([outer(*block) for block in made], 1), 60, rng(1))
    assert k_means_pp_blocks(made, 60, rng(1)).tolist() == want


def test_blocks_of_one_residual_are_badge_on_the_concatenation():
    (r, one), (_, two) = made_blocks(200, 5, (6, 7))
    want = k_means_pp(r, torch.cat([one, two], 1), 90, rng(2)).tolist()
    assert k_means_pp_blocks([(r, one), (r, two)], 90, rng(2)).tolist() == want


@pytest.mark.parametrize("modalities", [1, 2, 3])
@pytest.mark.parametrize("power", [0.5, 0.0, 2.0])
def test_teach_is_its_formula(modalities, power):
    nll = (0.2, 1.8, 0.9)[:modalities]
    view = measured(make_view(modalities=modalities, sharpness=1.0, seed=4), [{"nll": x} for x in nll])
    taught = torch.nn.functional.one_hot(view.probs_NC.argmax(1), 4)
    g = []
    for m in range(modalities):
        pull = (nll[m] / min(nll)) ** power
        g.append(pull * outer(torch.tensor(alone(view, m)) - taught, view.tokens_NMD[:, m]))
    want = brute_k_means_pp_on(torch.cat(g, 1), 30, rng(4))
    assert select("teach", view, 30, {"power": power}).tolist() == want


def test_lambda_is_the_root_of_the_ratio_and_1_where_nothing_is_known():
    view = make_view(modalities=3)
    weights = pupil_weights(measured(view, [{"nll": 1.6}, {"nll": 0.1}, None]), 0.5)
    torch.testing.assert_close(weights, torch.tensor([4.0, 1.0, 1.0], dtype=torch.float64))
    assert pupil_weights(measured(view, [None] * 3), 0.5).tolist() == [1, 1, 1]
    # a modality without any loss left gives no infinite weight
    assert pupil_weights(measured(view, [{"nll": 0.0}, {"nll": 1e-6}, {"nll": 1.0}]), 0.5).tolist() == [
        1,
        1,
        1e3,
    ]


def test_a_fitted_strong_modality_leaves_badge_nothing_and_teach_the_weak_ones_gradients():
    """The fused prediction is sure of all samples; the weak modality alone is unsure of twenty."""
    view = measured(make_view(missing=0.0), [{"nll": 1.0}, {"nll": 1.0}])
    sure = torch.nn.functional.one_hot(torch.arange(60) % 4, 4) * 60.0
    unsure = sure.clone()
    unsure[20:40] = 0.0
    vars(view)["probs_NC"] = sure.float().softmax(1)
    view.probs_with = lambda keep: (unsure if keep[0] else sure).float().softmax(1)
    assert residuals(view.probs_NC).abs().max() < 1e-20
    picks = select("teach", view, 20)
    # all other gradients are 0, which is a place too: one of them is drawn, as in BADGE
    assert ((picks >= 20) & (picks < 40)).sum() >= 19


# mcover ---------------------------------------------------------------------------------------------------


def is_greedy(spaces, picks):
    """Whether each pick has the largest F, as written; `spaces`: (x, has, labelled, width, weight).

    Two samples that are each other's nearest gain the same: either may be picked.
    """
    size = len(spaces[0][0])
    for k, pick in enumerate(picks):
        value = {j: brute_f(spaces, [*picks[:k], j]) for j in range(size) if j not in picks[:k]}
        if value[pick] < max(value.values()) - 1e-9:
            return False
    return len({*picks}) == len(picks)


def brute_f(spaces, picks):
    total = 0.0
    for x, has, labelled, width, weight in spaces:
        members = [j for j in picks if has[j]]
        centres = torch.cat([labelled, x[members]]).double()
        rows = x[has].double()
        if len(rows) and len(centres):
            k = (-(rows[:, None] - centres[None]).square().sum(-1) / width**2).exp()
            total += weight / len(rows) * k.amax(1).sum().item()
    return total


@pytest.mark.parametrize("modalities", [1, 2, 3])
@pytest.mark.parametrize("labelled", [0, 5])
def test_mcover_is_greedy_on_its_formula(modalities, labelled):
    view = make_view(size=30, labelled=labelled, modalities=modalities, seed=5)
    measured(view, [{"nll": 0.5 + m} for m in range(modalities)])
    view.history = {0: {name: replace(SOME, nll=3.0) for name in view.modalities}}
    fell = [max(0.0, 3.0 - 0.5 - m) for m in range(modalities)]
    weights = [0.2 + (1 - modalities * 0.2) * v / sum(fell) for v in fell]
    spaces = []
    for m, weight in enumerate(weights):
        z, has = view.tokens_NMD[:, m], view.present_NM[:, m]
        norms = sorted(z[has].double().norm(dim=1).tolist())
        labelled_z = view.labelled_tokens_LMD[view.labelled_present_LM[:, m], m]
        spaces.append((z, has, labelled_z, 1.5 * norms[(len(norms) - 1) // 2], weight))
    picks = select("mcover", view, 12, {"bandwidth": 1.5}).tolist()
    assert len(picks) == 12
    assert is_greedy(spaces, picks)
    assert not is_greedy(spaces, picks[::-1])


@pytest.mark.parametrize("at_once", [1, 3, 64])
def test_gains_computed_late_are_those_computed_always(at_once, monkeypatch):
    monkeypatch.setattr(cover, "AT_ONCE", at_once)
    x = torch.randn(40, 3, generator=rng(1))
    has = torch.arange(40) % 3 > 0
    spaces = [(x, has, x[:0], 0.9, 0.7), (x[:, :2], ~has, x[1:2, :2], 0.5, 0.3)]
    assert is_greedy(spaces, greedy_cover([Space(*space) for space in spaces], 25, rng(2), 100).tolist())


def test_max_herding_is_greedy_on_features_of_length_1():
    view = make_view(size=40, labelled=4, seed=6, missing=0.3)
    h, old = view.fused_NH.double(), view.labelled_fused_LH.double()
    everyone = torch.ones(40, dtype=torch.bool)
    space = (h / h.norm(dim=1, keepdim=True), everyone, old / old.norm(dim=1, keepdim=True), 0.7, 1.0)
    assert is_greedy([space], select("max_herding", view, 15, {"bandwidth": 0.7}).tolist())


def test_a_sample_without_a_modality_does_not_cover_it_and_so_the_quota_follows():
    """Nine in ten lack the rare modality, and nothing labelled has it: all samples that do are worth most."""
    x = torch.randn(100, 4, generator=rng(3))
    has, everyone = torch.arange(100) < 10, torch.ones(100, dtype=torch.bool)
    rare = Cover(Space(x, has, x[:0], 1.0, 0.5), rng(), 100)
    assert (rare.gains(torch.arange(10, 100)) == 0).all()
    rare.add(torch.tensor(50))
    assert (rare.covered_S == 0).all()
    spaces = [Space(x, has, x[:0], 1.0, 0.5), Space(x, everyone, x[10:40], 1.0, 0.5)]
    assert has[greedy_cover(spaces, 8, rng(), 100)].all()


def test_references_are_a_random_draw_of_those_that_have_the_modality():
    x = torch.arange(50.0)[:, None]
    drawn = Cover(Space(x, torch.arange(50) % 2 == 0, x[:0], 1.0, 1.0), rng(), 10).reference_SD[:, 0]
    assert len(drawn.unique()) == 10
    assert (drawn % 2 == 0).all()
    assert len(select("mcover", make_view(), 20, {"references": 7}).unique()) == 20


def test_weights_follow_the_fall_of_the_likelihood_and_none_is_below_the_floor():
    third = 1 / 3
    assert floored_shares(torch.tensor([3.0, 1.0]), 0.2).tolist() == pytest.approx(
        [0.2 + 0.6 * 0.75, 0.2 + 0.6 * 0.25]
    )
    assert floored_shares(torch.zeros(3), 0.2).tolist() == pytest.approx([third] * 3)
    assert floored_shares(torch.tensor([1.0, 0.0, 0.0]), 0.9).tolist() == pytest.approx(
        [third] * 3
    )  # a floor that is too high
    assert floored_shares(torch.tensor([1.0, 0.0]), 0.0).tolist() == [1.0, 0.0]


def test_falls_are_per_round_over_the_window_and_0_where_nothing_is_known():
    view = measured(make_view(modalities=3, round=3), [{"nll": 1.0}, {"nll": 2.0}, None])
    past = {r: {n: replace(SOME, nll=4.0 - r) for n in view.modalities} for r in range(3)}
    view.history = past
    assert falls(view, 3).tolist() == [1.0, pytest.approx(2 / 3), 0.0]
    assert falls(view, 1).tolist() == [1.0, 0.0, 0.0]  # from 2.0 to 1.0, and to 2.0
    view.history = {}
    assert falls(view, 3).tolist() == [0.0, 0.0, 0.0]


def test_the_median_norm_of_nothing_is_1():
    assert median_norm(torch.zeros(0, 3)) == median_norm(torch.zeros(4, 3)) == 1.0
    assert median_norm(torch.tensor([[3.0, 4.0], [0.0, 1.0], [0.0, 9.0]])) == 5.0


@pytest.mark.parametrize("name", ["weak_badge", "teach", "mcover", "max_herding", "disagreement", "power"])
def test_predictions_that_are_not_finite_are_an_error(name):
    view = make_view()
    view._raw_NMD[:] = math.nan
    with pytest.raises(QueryError, match="not finite"):
        select(name, measured(view, [{}, {}]), 5)


# ALFA-Mix -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes_seen", [2, 4])
@pytest.mark.parametrize(("cap", "n"), [(0.03125, 12), (0.25, 5), (0.6, 30)])
def test_alfa_mix_takes_those_whose_prediction_flips_by_the_closed_form(classes_seen, cap, n):
    """Each class, each cap and each sample by itself, mixed dimension by dimension in float64."""
    view = make_view(size=80, labelled=14, missing=0.4, sharpness=0.1, classes_seen=classes_seen)
    weight, bias = view.head_weight_CH.double(), view.head_bias_C.double()
    h_LD, y_L, width = view.labelled_fused_LH.double(), view.labelled_y_L, view.head_weight_CH.shape[1]
    found, step, last = set(), 0, math.ceil(1 / cap - 1e-9)
    while step < last and len(found) <= n:
        step += 1
        for i, h_D in enumerate(view.fused_NH.double()):
            p_C = (weight @ h_D + bias).softmax(0)
            label = int(p_C.argmax())
            g_D = weight.T @ (p_C - torch.eye(view.num_classes, dtype=torch.float64)[label])
            for c in range(view.num_classes):
                own = h_LD[y_L == c] if (y_L == c).any() else h_LD
                away_D = own.mean(0) - h_D
                alpha_D = step * cap / math.sqrt(width) * away_D.norm() / g_D.norm() * g_D / away_D
                mixed_D = (1 - alpha_D) * h_D + alpha_D * (h_D + away_D)
                if int((weight @ mixed_D + bias).argmax()) != label:
                    found.add(i)
    least_N = least_cap(view, anchors(view))
    ranked = least_N.argsort()
    assert set(ranked[: count_within(least_N[ranked], n, cap)].tolist()) == found
    picks = select("alfa_mix", view, n, {"cap": cap, "most": 80})
    of_candidates = [i for i in picks.tolist() if i in found]
    assert len(of_candidates) >= min(n, len(found)) * 0.6  # clusters may merge
    assert picks[: len(of_candidates)].tolist() == of_candidates, "random ones come last"


def test_alfa_mix_takes_of_each_cluster_the_one_nearest_to_its_centre():
    view = make_view(size=80, labelled=14, missing=0.4, sharpness=0.1)
    picks = select("alfa_mix", view, 6, {"cap": 1.0, "most": 80})
    unit_ND = torch.nn.functional.normalize(view.fused_NH, dim=1).double()
    least_N = least_cap(view, anchors(view))
    ranked = least_N.argsort()[: count_within(least_N.sort().values, 6, 1.0)]
    label_K = torch.cdist(unit_ND[ranked], unit_ND[picks]).argmin(1)  # each is nearest to its own pick
    assert set(picks.tolist()) <= set(ranked.tolist())
    assert len(label_K.unique()) == 6
    few = select("alfa_mix", view, 6, {"cap": 1.0, "most": 1})
    assert set(few.tolist()) == set(ranked[:6].tolist())


def test_alfa_mix_picks_at_random_where_nothing_is_labelled_or_flips():
    for case in ({"labelled": 0}, {"sharpness": 1e4}):
        picks = [select("alfa_mix", make_view(seed=seed, **case), 20).tolist() for seed in (0, 0, 1)]
        assert picks[0] == picks[1] != picks[2]
