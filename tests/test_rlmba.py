"""RL-MBA, score and policy: controls of its parts, plain formulas, what it learns, what is refused."""

import hashlib
import math

import pytest
import torch
from safetensors.torch import load

from brute_force import rng
from mindgap.base.settings import SettingsError
from mindgap.base.view import Reward
from mindgap.core.params import Budget
from mindgap.parts.query.contract import QueryError
from mindgap.parts.query.kernels import k_means_pp
from mindgap.parts.query.policy import take_turn
from mindgap.parts.query.rlmba import RLMBA, PolicyNet, log_probability, read_reward_curves, rival_accuracy
from mindgap.parts.query.rlmba_score import (
    contribution_weights,
    evidence,
    fused_evidence,
    present_weights,
    score,
    uncertainty,
    unit_range,
)
from mindgap.parts.query.select import check_settings, select
from mindgap.parts.query.unimodal import logits_alone
from test_loop import comparable
from test_policy import a_reward, records_of, run_of
from test_query import make_view
from test_query_unimodal import measured

BUDGET = Budget(initial=8, validation=16, acquisition=6, rounds=4)
DEFAULTS = (0.1, 0.05, 1.0, "strong", "modalities")


def accuracies(*values):
    return [None if value is None else {"accuracy": value} for value in values]


# The score ------------------------------------------------------------------------------------------------


def test_a_weight_on_one_modality_alone_gives_its_own_evidence():
    alpha = evidence(torch.randn(9, 3, 5, generator=rng()), torch.ones(9, 3, dtype=torch.bool))
    for k, own in enumerate(torch.eye(3, dtype=torch.float64)):
        torch.testing.assert_close(fused_evidence(alpha, own.expand(9, 3)), alpha[:, k])


def test_weights_are_uniform_as_tau_grows_and_favour_the_strong_or_the_weak():
    view = measured(make_view(modalities=3), accuracies(0.7, 0.3, 0.5), accuracy=0.8)

    def weights(tau, floor=0.0, towards="strong"):
        return contribution_weights(view.validation.metrics, view, tau, floor, towards).tolist()

    assert weights(1e6) == pytest.approx([1 / 3] * 3, abs=1e-6)
    powers = [math.exp((a - 0.8) / 0.1) for a in (0.7, 0.3, 0.5)]
    assert weights(0.1) == pytest.approx([x / sum(powers) for x in powers])
    powers = [math.exp(-(a - 0.8) / 0.1) for a in (0.7, 0.3, 0.5)]
    assert weights(0.1, towards="weak") == pytest.approx([x / sum(powers) for x in powers])
    assert min(weights(0.01, floor=0.05)) >= 0.05
    assert sum(weights(0.01, floor=0.05)) == pytest.approx(1)


def test_an_absent_modality_has_alpha_1_and_no_weight():
    view = make_view(modalities=3)
    absent = ~view.present_NM
    assert absent.any()
    alpha = evidence(logits_alone(view), view.present_NM)
    assert (alpha[absent] == 1).all()
    assert (alpha[view.present_NM].amax(1) > 1).all()
    for w in ([0.2, 0.3, 0.5], [1.0, 0.0, 0.0]):
        weight = present_weights(torch.tensor(w, dtype=torch.float64), view.present_NM)
        assert (weight[absent] == 0).all()
        torch.testing.assert_close(weight.sum(1), torch.ones(60, dtype=torch.float64))
    assert (score(view, 5, *DEFAULTS).u_NM[absent] == 0).all()


def test_uncertainty_is_the_mean_variance_of_a_dirichlet():
    alpha = 1 + torch.rand(6, 4, generator=rng(), dtype=torch.float64)
    for row, got in zip(alpha.tolist(), uncertainty(alpha).tolist(), strict=True):
        total = sum(row)
        assert got == pytest.approx(sum(a * (total - a) for a in row) / 4 / (total**2 * (total + 1)))
    variance = torch.distributions.Dirichlet(alpha).variance.mean(1)
    torch.testing.assert_close(uncertainty(alpha), variance)
    assert uncertainty(torch.ones(1, 4)).item() == pytest.approx(3 / (16 * 5))  # no evidence


def test_scaling_is_over_those_that_have_it():
    has = torch.tensor([True, True, False, True])
    assert unit_range(torch.tensor([2.0, 4.0, 99.0, 3.0]), has).tolist() == [0.0, 1.0, 0.0, 0.5]
    assert unit_range(torch.tensor([2.0, 2.0, 1.0, 2.0]), has).tolist() == [0.0] * 4


def lloyd(x, seeds, passes):
    """Distances to the nearest centre after some passes, by loops in float64."""
    x = x.double()
    centres = x[seeds]
    for _ in range(passes):
        nearest = (x[:, None] - centres).square().sum(-1).argmin(1)
        centres = torch.stack([x[nearest == c].mean(0) for c in range(len(centres))])
    return (x[:, None] - centres).square().sum(-1).amin(1).sqrt()


@pytest.mark.parametrize("modalities", [1, 2, 3])
@pytest.mark.parametrize("towards", ["strong", "weak"])
@pytest.mark.parametrize("difficulty", ["modalities", "fused"])
def test_q_is_its_formula(modalities, towards, difficulty):
    values = (0.7, 0.4, 0.5)[:modalities]
    view = measured(make_view(modalities=modalities, seed=2), accuracies(*values), accuracy=0.75)
    d = lloyd(view.fused_NH, k_means_pp(torch.ones(60, 1), view.fused_NH, 6, rng(2)), 5).tolist()
    sign = 1 if towards == "strong" else -1
    powers = [math.exp(sign * (a - 0.75) / 0.2) for a in values]
    w = [0.1 + (1 - 0.1 * modalities) * x / sum(powers) for x in powers]
    logits, present = logits_alone(view).double().tolist(), view.present_NM.tolist()

    def u(alpha):
        total = sum(alpha)
        return sum(a * (total - a) for a in alpha) / len(alpha) / (total**2 * (total + 1))

    def minmax(values, has):
        kept = [v for v, own in zip(values, has, strict=True) if own]
        return [
            (v - min(kept)) / (max(kept) - min(kept)) if own else 0.0
            for v, own in zip(values, has, strict=True)
        ]

    alphas = [
        [[1 + math.log1p(math.exp(x)) for x in logits[i][m]] for m in range(modalities)] for i in range(60)
    ]
    own = [
        minmax([u(alphas[i][m]) for i in range(60)], [row[m] for row in present]) for m in range(modalities)
    ]
    share = [
        [w[m] * p[m] / sum(a * b for a, b in zip(w, p, strict=True)) for m in range(modalities)]
        for p in present
    ]
    if difficulty == "fused":
        mixed = [
            [1 + sum(share[i][m] * (alphas[i][m][c] - 1) for m in range(modalities)) for c in range(4)]
            for i in range(60)
        ]
        hard = minmax([u(alpha) for alpha in mixed], [True] * 60)
    else:
        hard = [sum(share[i][m] * own[m][i] for m in range(modalities)) for i in range(60)]
    q = [a + 0.7 * b for a, b in zip(hard, minmax(d, [True] * 60), strict=True)]
    found = score(view, 6, 0.2, 0.1, 0.7, towards, difficulty)
    assert found.q_N.tolist() == pytest.approx(q, abs=1e-5)
    again = measured(make_view(modalities=modalities, seed=2), accuracies(*values), accuracy=0.75)
    settings = {"tau": 0.2, "floor": 0.1, "beta": 0.7, "towards": towards, "difficulty": difficulty}
    assert (
        select("rlmba_score", again, 6, settings).tolist() == found.q_N.argsort(descending=True)[:6].tolist()
    )


def test_draws_in_proportion_to_q_are_among_the_best():
    view = make_view(size=200, seed=1)
    best = score(make_view(size=200, seed=1), 10, *DEFAULTS).q_N.topk(30).indices.tolist()
    picks = select("rlmba_score", view, 10, {"draw": "sample", "kappa": 3}).tolist()
    assert set(picks) <= set(best)
    assert set(picks) != set(best[:10])


# The policy -----------------------------------------------------------------------------------------------


def test_the_probability_of_draws_is_that_of_softmax_without_replacement_step_by_step():
    logits = torch.randn(8, generator=rng(), dtype=torch.float64)
    left, want = list(range(8)), 0.0
    drawn = [5, 0, 7, 2]
    for pick in drawn:
        want += (logits[pick] - logits[left].logsumexp(0)).item()
        left.remove(pick)
    assert log_probability(logits, torch.tensor(drawn)).item() == pytest.approx(want)
    all_of_them = torch.randperm(8, generator=rng())
    assert log_probability(logits, all_of_them).isfinite()


def test_draws_follow_the_networks_softmax():
    policy, counts = PolicyNet(rng()), torch.zeros(4)
    features = torch.randn(4, 3, generator=rng(5)) * 3
    for seed in range(1500):
        counts[policy.draw(features, 1, rng(seed))] += 1
    p = policy.net(features)[:, 0].softmax(0)
    assert (counts / 1500 - p).abs().max() < 0.05


def bandit(seed, learns, episodes=500):
    """Mean reward over the last hundred episodes: the mean of one feature in three of twenty candidates."""
    policy, generator = PolicyNet(rng(seed)), rng(seed + 1)
    rewards = []
    for _ in range(episodes):
        features = torch.rand(20, 4, generator=generator)
        rewards.append(features[policy.draw(features, 3, generator), 2].mean().item())
        if learns:
            policy.learn(rewards[-1])
    return sum(rewards[-100:]) / 100


@pytest.mark.parametrize("seed", range(3))
def test_on_a_bandit_it_learns_which_feature_is_rewarded(seed):
    assert bandit(seed, learns=True) > 0.65
    assert abs(bandit(seed, learns=False, episodes=200) - 0.5) < 0.1


def test_without_a_rate_it_stays_untrained():
    policy = PolicyNet(rng(), learning_rate=0.0)
    policy.draw(torch.rand(9, 4), 2, rng())
    before = policy.net[0].weight.clone()
    for reward in (0.0, 1.0, 0.0):
        policy.learn(reward)
    assert torch.equal(policy.net[0].weight, before)


def test_the_advantage_is_against_the_moving_mean():
    policy = PolicyNet(rng(), ema=0.9)
    policy.draw(torch.rand(9, 4), 2, rng())
    before = policy.net[0].weight.clone()
    policy.learn(0.5)  # the first reward is the mean, and teaches nothing
    assert torch.equal(policy.net[0].weight, before)
    policy.learn(1.0)
    assert not torch.equal(policy.net[0].weight, before)
    assert policy.mean.item() == pytest.approx(0.55)


def test_a_run_that_stops_after_each_round_is_the_uninterrupted_one(make_dataset):
    dataset, made = make_dataset(), run_of("rlmba", budget=BUDGET)
    whole, records = records_of(dataset, made), []
    for _ in whole:
        torch.rand(3)
        records += records_of(dataset, made, records, upto=1)
    assert comparable(records) == comparable(whole)
    states = [load(record["state"]) for record in whole]
    assert [int(state["rewards"]) for state in states] == [0, 1, 2, 3]
    gains = [record["validation"]["left+right"]["accuracy"] for record in whole]
    assert states[1]["mean"].item() == pytest.approx(gains[1] - gains[0])
    # state: 3 levels, 2 contributions, 2 uncertainties, diversity, slope, gradient; candidate: q, 2 u, d, 2 w
    assert states[0]["seen"].shape == (30, 16)
    assert not torch.equal(states[1]["net.0.weight"], states[2]["net.0.weight"])


def test_a_policy_of_another_dataset_is_refused():
    _, state = take_turn("rlmba", RLMBA, make_view(round=0), 5, 7, None, None)
    with pytest.raises(
        QueryError, match="made for 16 features of a candidate, here are 20; a policy belongs to one"
    ):
        take_turn("rlmba", RLMBA, make_view(modalities=3), 5, 7, state, None)


# The reward of other methods' curves ----------------------------------------------------------------------

CELL = {"dataset": "share", "regime": "low", "mitigation": "moddrop", "query": "rlmba", "seed": 0}
HEAD = "dataset,regime,mitigation,query,seed,labelled,subset,accuracy\n"
LINES = [
    f"share,low,moddrop,{query},{seed},{labelled},{subset},{accuracy}"
    for query, seed, labelled, subset, accuracy in [
        ("badge", 0, 14, "m0+m1", 0.4),
        ("badge", 1, 14, "m0+m1", 0.6),
        ("badge", 0, 14, "m0", 0.1),
        ("badge", 0, 20, "m0+m1", 0.9),
        ("bmmal", 0, 14, "m0+m1", 0.3),
    ]
]


CURVES = HEAD + "\n".join(LINES) + "\n"


def curves_in(folder, text=CURVES):
    path = folder / "curves.csv"
    path.write_text(text)
    return {"curves": str(path), "sha256": hashlib.sha256(text.encode()).hexdigest()[:16]}


def reward_at(labelled=14, **changes):
    given = a_reward(0.7)
    return Reward(given.before, given.after, 0, labelled, CELL | changes)


def test_the_reward_of_curves_is_against_the_mean_of_the_rivals(tmp_path):
    declared = curves_in(tmp_path)
    rows = read_reward_curves(declared["curves"], declared["sha256"])
    assert rival_accuracy(rows, reward_at(), "m0+m1", ("badge", "bmmal")) == pytest.approx(0.4)
    policy = RLMBA(rng(), reward="curves", **declared)
    policy.pick(make_view(), 5)
    policy.learn(reward_at(), make_view())
    assert policy.policy.mean.item() == pytest.approx(0.7 - 0.4)


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        ({"labelled": 99}, r"no badge of share-low-moddrop, m0\+m1, at 99 labels \(they have: 14, 20\)"),
        (
            {"dataset": "unique"},
            r"no badge of unique-low-moddrop.*\(they have: none\).*declare that of this run",
        ),
    ],
)
def test_curves_of_another_dataset_or_budget_are_refused(tmp_path, reward, message):
    policy = RLMBA(rng(), reward="curves", **curves_in(tmp_path))
    with pytest.raises(QueryError, match=message):
        policy.learn(reward_at(**reward), make_view())


def test_curves_that_are_not_what_is_declared_are_refused(tmp_path):
    declared = curves_in(tmp_path)
    with pytest.raises(QueryError, match=r"name it in query_settings.rlmba.curves"):
        RLMBA(rng(), reward="curves")
    with pytest.raises(QueryError, match=r"cannot read the curves in .*none.csv .*name a CSV file"):
        RLMBA(rng(), reward="curves", curves=str(tmp_path / "none.csv"), sha256="0" * 16)
    for wrong in (None, "0" * 16, "", declared["sha256"][:3]):
        with pytest.raises(QueryError, match=f"write query_settings.rlmba.sha256: '{declared['sha256']}'"):
            RLMBA(rng(), reward="curves", curves=declared["curves"], sha256=wrong)
    without = HEAD.replace("accuracy", "ece") + LINES[0]
    with pytest.raises(QueryError, match="has no column accuracy, or no rows; take it from reports/curves/"):
        RLMBA(rng(), reward="curves", **curves_in(tmp_path, without))
    for odd in ("much", "nan"):
        policy = RLMBA(rng(), reward="curves", **curves_in(tmp_path, HEAD + LINES[0].replace("0.4", odd)))
        with pytest.raises(QueryError, match="curves of badge hold something that is no number"):
            policy.learn(reward_at(), make_view())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tau": 0}, r"rlmba.tau: Input should be greater than 0"),
        ({"reward": "others"}, r"rlmba.reward: Input should be 'self' or 'curves'"),
        ({"towards": "best"}, r"rlmba.towards: Input should be 'strong' or 'weak'"),
        ({"rivals": []}, r"rlmba.rivals: .*at least 1"),
        ({"sha256": 1234567890123456}, r"rlmba.sha256: .*put quotes around it"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(SettingsError, match=message):
        check_settings("rlmba", settings)
