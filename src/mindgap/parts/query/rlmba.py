"""rlmba: RL-MBA (arXiv 2603.25107, CVPR 2026), a policy that picks among the best by `rlmba_score`; a
reconstruction.

From a published note: a small network's logits over the kappa n candidates with the largest q, n draws
without replacement; its state is [Top1, NLL, ECE | Delta | mean u~ | mean d~ | slope of the loss, gradient
norm]; REINFORCE with an advantage against a moving mean. Ours: an MLP of `hidden` units on [q, u~, d~, w] of
a candidate beside the state, Adam, the moving mean's 0.9; slope is the change of the validation NLL since the
last round, gradient norm log(1 + |mean gradient of the linear layer over the labelled samples|).

Rewards. `self`: Top1_t - Top1_{t-1} on the validation set. `curves`, the published one: Top1_t less the mean
of other methods' curves at as many labels, from a file that has to be there before (`rival_accuracy`): no
method that obeys a budget has it, so say so beside its numbers. A run of ten rounds has nine rewards, far too
few to learn from scratch.
"""

import csv
import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from mindgap.base.settings import Share, Width
from mindgap.base.view import PoolView, Reward
from mindgap.parts.query.badge import residuals
from mindgap.parts.query.contract import QueryError
from mindgap.parts.query.kernels import top_k
from mindgap.parts.query.rlmba_score import (
    Difficulty,
    Kappa,
    Score,
    Sharpness,
    Tau,
    Towards,
    contributions,
    score,
)

# Columns of a file of curves; `mindgap report` writes them, and others beside them, to reports/curves/.
REWARD_COLUMNS = ("dataset", "regime", "mitigation", "query", "labelled", "subset", "accuracy")
SHA_DIGITS = 16  # of a file's SHA-256


class RLMBA:
    """Draws from a network's softmax over candidates; what was drawn is rewarded after the next training."""

    def __init__(
        self,
        rng: Generator,
        reward: Literal["self", "curves"] = "self",
        curves: str | None = None,
        sha256: str | None = None,
        rivals: Annotated[Sequence[str], Field(min_length=1)] = ("badge", "bmmal"),
        tau: Tau = 0.1,
        floor: Share = 0.05,
        beta: Sharpness = 1.0,
        towards: Towards = "strong",
        difficulty: Difficulty = "modalities",
        kappa: Kappa = 5,
        hidden: Width = 32,
        learning_rate: Annotated[float, Field(ge=0, le=1)] = 1e-2,
        ema: Share = 0.9,
    ):
        self.policy = PolicyNet(rng, hidden, learning_rate, ema)
        self.scoring = (tau, floor, beta, towards, difficulty)
        self.kappa, self.rivals = kappa, tuple(rivals)
        self.curves = read_reward_curves(curves, sha256) if reward == "curves" else None

    def pick(self, view: PoolView, n: int) -> Tensor:
        found = score(view, n, *self.scoring)
        best = top_k(found.q_N, min(view.size, self.kappa * n), view.rng)
        features_KF = torch.cat(
            [candidate_features(found, best), state_features(view, found).expand(len(best), -1)], 1
        )
        return best[self.policy.draw(features_KF.float().cpu(), n, view.rng).to(best.device)]

    def learn(self, reward: Reward, view: PoolView) -> None:
        every = "+".join(view.modalities)
        was, now = reward.before[every].accuracy, reward.after[every].accuracy
        if self.curves is not None:
            was = rival_accuracy(self.curves, reward, every, self.rivals)
        self.policy.learn(now - was)

    def state(self) -> dict[str, Tensor]:
        return self.policy.state()

    def load(self, state: Mapping[str, Tensor]) -> None:
        self.policy.load(state)


class PolicyNet:
    """An MLP from a candidate's features to a logit; draws by softmax, none twice; REINFORCE with Adam.

    What it last drew from (`seen`, K x F), and in which order, is kept until the reward is there.
    """

    def __init__(self, rng: Generator, hidden: int = 32, learning_rate: float = 1e-2, ema: float = 0.9):
        self.rng, self.hidden, self.learning_rate, self.ema = rng, hidden, learning_rate, ema
        self.net: nn.Module | None = None
        self.seen_KF, self.drawn_B = torch.zeros(0, 0), torch.zeros(0, dtype=torch.int64)
        self.mean, self.rewards = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.int64)

    def draw(self, features_KF: Tensor, n: int, rng: Generator) -> Tensor:
        """n positions among the candidates, in the order of the draws."""
        width = features_KF.shape[1]
        if self.net is None:
            self._build(width)
        elif (made_for := self.net[0].in_features) != width:
            raise QueryError(
                f"rlmba: its network was made for {made_for} features of a candidate, here are {width}; a "
                f"policy belongs to one dataset: start it without the state of one with other modalities"
            )
        with torch.no_grad():
            logits_K = self.net(features_KF)[:, 0].double()
        # the n largest of logit + Gumbel noise are n draws by softmax, one after the other
        uniform_K = torch.rand(len(logits_K), generator=rng, dtype=torch.float64).clamp(min=1e-300)
        self.seen_KF, self.drawn_B = features_KF, (logits_K - (-uniform_K.log()).log()).topk(n).indices
        return self.drawn_B

    def learn(self, reward: float) -> None:
        """One step up the gradient of (reward - moving mean) log p(draws); the first reward sets the mean."""
        advantage = reward - float(self.mean) if self.rewards else 0.0
        self.mean = self.ema * self.mean + (1 - self.ema) * reward if self.rewards else self.mean + reward
        self.rewards = self.rewards + 1
        if self.net is None or not advantage:
            return
        self.adam.zero_grad()
        (-advantage * log_probability(self.net(self.seen_KF)[:, 0], self.drawn_B)).backward()
        self.adam.step()

    def state(self) -> dict[str, Tensor]:
        kept = {"mean": self.mean, "rewards": self.rewards}
        if self.net is None:
            return kept
        kept |= {"seen": self.seen_KF, "drawn": self.drawn_B}
        kept |= {f"net.{name}": value for name, value in self.net.state_dict().items()}
        for i, moments in self.adam.state_dict()["state"].items():
            kept |= {f"adam.{i}.{name}": value for name, value in moments.items()}
        return kept

    def load(self, state: Mapping[str, Tensor]) -> None:
        self.mean, self.rewards = state["mean"], state["rewards"]
        if "seen" not in state:
            return
        self.seen_KF, self.drawn_B = state["seen"], state["drawn"]
        self._build(self.seen_KF.shape[1])
        self.net.load_state_dict({key[4:]: value for key, value in state.items() if key.startswith("net.")})
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in state.items():
            if key.startswith("adam."):
                _, i, name = key.split(".")
                moments.setdefault(int(i), {})[name] = value
        self.adam.load_state_dict({**self.adam.state_dict(), "state": moments})

    def _build(self, width: int) -> None:
        self.net = nn.Sequential(nn.Linear(width, self.hidden), nn.ReLU(), nn.Linear(self.hidden, 1))
        for parameter in self.net.parameters():
            # torch's own range, from this run's generator
            bound = (
                width if parameter.shape[-1] == width or len(parameter) == self.hidden else self.hidden
            ) ** -0.5
            nn.init.uniform_(parameter, -bound, bound, generator=self.rng)
        self.adam = torch.optim.Adam(self.net.parameters(), lr=self.learning_rate)


def log_probability(logits_K: Tensor, drawn_B: Tensor) -> Tensor:
    """Of draws by softmax without replacement, in this order: the sum of the steps' log-probabilities."""
    logits_K = logits_K.double()
    rest_K = logits_K.clone()
    rest_K[drawn_B] = -torch.inf
    # what is left at a step: the rest, and all that is drawn at that step or later
    tail_B = torch.cat([logits_K[drawn_B], rest_K.logsumexp(0)[None]]).flip(0).logcumsumexp(0).flip(0)[:-1]
    return (logits_K[drawn_B] - tail_B).sum()


def candidate_features(found: Score, rows: Tensor) -> Tensor:
    """[q, u~_1..M, d~, w_1..M], one row a candidate."""
    w_KM = found.w_M.expand(len(rows), -1)
    return torch.cat([found.q_N[rows, None], found.u_NM[rows], found.d_N[rows, None], w_KM], dim=1)


def state_features(view: PoolView, found: Score) -> Tensor:
    """[Top1, NLL, ECE | Delta_1..M | mean u~_1..M | mean d~ | slope of the loss, gradient norm] (float64)."""
    every, measured = "+".join(view.modalities), view.validation.metrics
    before, now = view.history.get(view.round - 1), measured.get(every)
    level = [now.accuracy, now.nll, now.ece] if now else [0.0, 0.0, 0.0]
    slope = now.nll - before[every].nll if now and before else 0.0
    return torch.cat(
        [
            torch.tensor(level, dtype=torch.float64),
            contributions(measured, view),
            found.u_NM.mean(0).cpu(),
            found.d_N.mean()[None].cpu(),
            torch.tensor([slope, gradient_norm(view)], dtype=torch.float64),
        ]
    ).to(view.device)


def gradient_norm(view: PoolView) -> float:
    """log(1 + length of the linear layer's mean gradient over the labelled samples); 0 without any."""
    count = len(view.labelled_y_L)
    if not count:
        return 0.0
    r_LC = residuals(view.labelled_probs_LC, view.labelled_y_L).double()
    return (r_LC.T @ view.labelled_fused_LH.double() / count).norm().log1p().item()


def read_reward_curves(path: str | None, sha256: str | None) -> list[dict[str, str]]:
    """The rows of a file of curves, once it is the one that the settings declare."""
    if path is None:
        raise QueryError("rlmba: reward `curves` needs a file; name it in query_settings.rlmba.curves")
    try:
        content = Path(path).read_bytes()
        rows = list(csv.DictReader(content.decode().splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise QueryError(
            f"rlmba: cannot read the curves in {path} ({error}); name a CSV file in "
            f"query_settings.rlmba.curves"
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if sha256 is None or len(sha256) < SHA_DIGITS or not found.startswith(sha256):
        raise QueryError(
            f"rlmba: {path} has the SHA-256 {found[:SHA_DIGITS]}..., declared is {sha256}; runs are keyed by "
            f"what is declared, so write query_settings.rlmba.sha256: '{found[:SHA_DIGITS]}'"
        )
    if lacking := [name for name in REWARD_COLUMNS if name not in (rows[0] if rows else {})]:
        raise QueryError(
            f"rlmba: {path} has no column {', '.join(lacking)}, or no rows; take it from reports/curves/"
        )
    return rows


def rival_accuracy(
    rows: Sequence[Mapping[str, str]], reward: Reward, subset: str, rivals: Sequence[str]
) -> float:
    """The mean over the rivals of their mean accuracy over seeds, in this run's cell at as many labels."""
    cell, means = reward.cell, []
    of_cell = [
        r for r in rows if all(r[key] == str(cell[key]) for key in ("dataset", "regime", "mitigation"))
    ]
    for rival in rivals:
        own = [r for r in of_cell if r["query"] == rival and r["subset"] == subset]
        try:
            values = [float(r["accuracy"]) for r in own if int(r["labelled"]) == reward.labelled]
            if not all(map(math.isfinite, values)):
                raise ValueError("an accuracy is not finite")
        except ValueError as error:
            raise QueryError(
                f"rlmba: the curves of {rival} hold something that is no number ({error})"
            ) from error
        if not values:
            where = "-".join(str(cell[key]) for key in ("dataset", "regime", "mitigation"))
            points = ", ".join(sorted({r["labelled"] for r in own}, key=int)) or "none"
            raise QueryError(
                f"rlmba: the declared curves have no {rival} of {where}, {subset}, at {reward.labelled} "
                f"labels (they have: {points}); a file belongs to one dataset and budget: declare that of "
                f"this run"
            )
        means.append(sum(values) / len(values))
    return sum(means) / len(means)
