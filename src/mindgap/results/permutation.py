"""Does a reliability decide anything? Permuted between items, it should cost accuracy (arXiv 2606.26473).

Frozen experts, one a modality, give probabilities; a rule fuses them by reliabilities Q; then Q is permuted
between the items and everything else stays. What differs from the source: Q is permuted within the items
that are evaluated, gates are fitted out of fold, an interval is for new items, and "ignored" is said only
where a test finds the gap within a margin. Plain functions on arrays. Axes: N items, M modalities, C classes,
K draws, P parameters of a gate.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from scipy.optimize import minimize
from scipy.special import softmax
from scipy.stats import t as student

from mindgap.base.errors import MindGapError
from mindgap.data.quintfeatures.checks import read_attributes
from mindgap.results.statistics import ALPHA

DRAWS, RESAMPLES, FOLDS = 200, 2_000, 5
MARGIN = 0.01
TEMPERATURE = 0.1  # of the softmax rule, the source's
PENALTY = 1e-4  # on a gate's squared parameters, the source's
EQUAL_WITHIN = 1e-12  # by which equal balanced accuracies may differ
# Of which a pooled gap has the mean over its seeds.
MEANS = ("broken_K", "resampled_B", "clean", "gap", "flips", "oracle", "competitiveness", "alignment")
SMALLEST = 1e-12  # what a probability counts as at least, in a logarithm

# From reliabilities (N x M) to scores of the classes (N x C), of which the largest is the decision.
Decide = Callable[[np.ndarray], np.ndarray]
# From the experts, the clean reliabilities and the labels.
Rule = Callable[[np.ndarray, np.ndarray, np.ndarray, np.random.Generator], Decide]
How = Literal["independent", "joint", "within_predicted"]
HOWS: tuple[How, ...] = get_args(How)
OWN = "own"  # the name of a rule that is a function of one's own


class DiagnosticError(MindGapError):
    """What the diagnostic was given cannot be diagnosed; the message says what to give it."""


@dataclass(frozen=True, eq=False)
class Gap:
    """What permuting the reliabilities cost, on `n` items that have all modalities, in balanced accuracy.

    `gap` is `clean` minus the mean of `broken_K`; `p` is one-sided. `interval` (95 %) is for new items.
    `p_equivalent` tests that the gap lies outside of ± `margin`. `flips`: share of decisions that change.
    `oracle` is right where any expert is; `competitiveness` the median distance of the two largest
    probabilities of the true class; `alignment` the mean correlation of Q with being right (NaN if constant).
    `resampled_B`: the gap of new items, in a bootstrap that draws the same of all models of one test set.
    """

    rule: str
    how: How
    n: int
    clean: float
    broken_K: np.ndarray
    resampled_B: np.ndarray
    gap: float
    p: float
    interval: tuple[float, float]
    p_equivalent: float
    margin: float
    flips: float
    oracle: float
    competitiveness: float
    alignment: float

    @property
    def verdict(self) -> Literal["ignored", "used", "undecided"]:
        """Ignored: shown to be within the margin. A gap that is merely not significant is undecided."""
        if self.p_equivalent < ALPHA:
            return "ignored"
        return "used" if self.p < ALPHA else "undecided"


def permutation_gap(
    probs_NMC: np.ndarray,
    reliability_NM: np.ndarray,
    y_N: np.ndarray,
    present_NM: np.ndarray | None = None,
    rule: str | Decide = "weighted",
    how: How = "independent",
    draws: int = DRAWS,
    seed: int = 0,
    margin: float = MARGIN,
) -> Gap:
    """The gap of a rule, of `RULES` by name, or any function from reliabilities N x M to scores N x C.

    `reliability_NM` lies in 0..1; items that lack a modality (`present_NM`, bool) are left out, and a
    function is called with the others alone, in their order. `how` permutes each modality by itself, whole
    items, or each modality within the items of which the plain mean of the experts predicts the same class.
    Raises a DiagnosticError for what cannot be diagnosed.
    """
    probs_NMC, reliability_NM, y_N = _complete(probs_NMC, reliability_NM, y_N, present_NM)
    if draws < 1:
        raise DiagnosticError(f"draws is {draws}: it takes at least one permutation, 200 are usual")
    if how not in HOWS:
        raise DiagnosticError(f"how: unknown {how!r}; known: {', '.join(HOWS)}")
    rng = np.random.default_rng(seed)
    if callable(rule):
        name, decide = getattr(rule, "__name__", OWN), rule
    elif rule in RULES:
        name, decide = rule, RULES[rule](probs_NMC, reliability_NM, y_N, rng)
    else:
        raise DiagnosticError(f"rule: unknown {rule!r}; known: {', '.join(RULES)}, or a function")
    strata_N = probs_NMC.mean(axis=1).argmax(axis=1) if how == "within_predicted" else np.zeros(len(y_N), int)
    weight_N = 1 / np.bincount(y_N)[y_N] / len(np.unique(y_N))  # sums right answers to balanced accuracy
    decided_N = decide(reliability_NM).argmax(axis=1)
    right_N = (decided_N == y_N).astype(float)
    lost_K, lost_N, flips = np.empty(draws), np.zeros(len(y_N)), 0.0
    for k in range(draws):
        others_N = decide(permuted(reliability_NM, strata_N, rng, how == "joint")).argmax(axis=1)
        change_N = right_N - (others_N == y_N)
        lost_K[k] = change_N @ weight_N  # exactly 0 where no answer changed
        lost_N += change_N / draws
        flips += (others_N != decided_N).mean() / draws
    clean, right_NM = float(right_N @ weight_N), (probs_NMC.argmax(axis=2) == y_N[:, None]).astype(float)
    true_NM = np.sort(np.take_along_axis(probs_NMC, y_N[:, None, None], axis=2)[..., 0], axis=1)
    resampled_B = _resampled(lost_N, y_N, np.random.default_rng([seed, 1]))
    # Of n items without a change, one in 1 / margin may still change with probability (1 - margin)^n.
    outside = [(resampled_B <= -margin).mean(), (resampled_B >= margin).mean(), (1 - margin) ** len(y_N)]
    return Gap(
        rule=name,
        how=how,
        n=len(y_N),
        clean=clean,
        broken_K=clean - lost_K,
        resampled_B=resampled_B,
        gap=float(lost_K.mean()),
        p=float((1 + (lost_K <= EQUAL_WITHIN).sum()) / (draws + 1)),
        interval=tuple(np.quantile(resampled_B, [0.025, 0.975]).tolist()),
        p_equivalent=float(max(outside)),
        margin=margin,
        flips=float(flips),
        oracle=float(right_NM.max(axis=1) @ weight_N),
        competitiveness=float(np.median(true_NM[:, -1] - true_NM[:, -2])),
        alignment=_alignment(reliability_NM, right_NM),
    )


def pooled(gaps: Sequence[Gap]) -> Gap:
    """One test of the models of several seeds on the same items: means over them, and not a median of p.

    The models have to share the permutations too (`seed` of `permutation_gap`), or the mean would vary less
    than chance has it where their reliabilities agree. The interval is for new items and new models:
    Student's over seeds, with the variances of both added. Raises a DiagnosticError for gaps of different
    rules, items or numbers of draws.
    """
    if len({(one.rule, one.how, one.n, one.margin, len(one.broken_K)) for one in gaps}) != 1:
        raise DiagnosticError("gaps to pool need the same rule, items and number of draws, and one at least")
    means = {name: np.mean([getattr(one, name) for one in gaps], axis=0) for name in MEANS}
    least = np.count_nonzero(means["broken_K"] >= means["clean"] - EQUAL_WITHIN)
    one = replace(gaps[0], **means, p=float((1 + least) / (len(gaps[0].broken_K) + 1)))
    if len(gaps) == 1:
        return one
    of_models = np.var([each.gap for each in gaps], ddof=1) / len(gaps)
    error, freedom = float(np.sqrt(of_models + one.resampled_B.var())), len(gaps) - 1
    half, beyond = error * student.ppf(0.975, freedom), abs(one.gap) - one.margin
    outside = student.sf(-beyond / error, freedom) if error else float(beyond >= 0)
    p_equivalent = float(max(outside, (1 - one.margin) ** one.n))
    return replace(one, interval=(one.gap - half, one.gap + half), p_equivalent=p_equivalent)


def permuted(
    reliability_NM: np.ndarray, strata_N: np.ndarray, rng: np.random.Generator, joint: bool
) -> np.ndarray:
    """Reliabilities of other items of the same stratum, the same items for all modalities if `joint`."""
    out_NM = reliability_NM.copy()
    for stratum in np.unique(strata_N):
        rows = np.flatnonzero(strata_N == stratum)
        orders = (
            [rng.permutation(rows)] * out_NM.shape[1]
            if joint
            else map(rng.permutation, [rows] * out_NM.shape[1])
        )
        for m, order in enumerate(orders):
            out_NM[rows, m] = reliability_NM[order, m]
    return out_NM


def confidence(probs_NMC: np.ndarray) -> np.ndarray:
    """The largest probability of each expert, N x M."""
    return np.asarray(probs_NMC.max(axis=2))


def certainty(probs_NMC: np.ndarray) -> np.ndarray:
    """1 - entropy / log C of each expert, N x M: negative entropy in 0..1."""
    probs_NMC = np.clip(probs_NMC, SMALLEST, None)
    entropy_NM = -(probs_NMC * np.log(probs_NMC)).sum(axis=2)
    return np.asarray(np.clip(1 - entropy_NM / np.log(probs_NMC.shape[2]), 0, 1))


def visible_share(folder: Path, split: str, modalities: Sequence[str]) -> np.ndarray:
    """What Perlin noise left of each object of a prepared rendered dataset, N x M: its true quality.

    NaN where a modality is absent. Raises a DiagnosticError where the dataset is not rendered.
    """
    if not (folder / "attributes.csv").is_file():
        raise DiagnosticError(
            f"{folder} has no attributes.csv: the visible share of the object is known for rendered datasets "
            f"(missing, unique, synergy, trio) alone; take another reliability, such as confidence"
        )
    columns = read_attributes(folder)
    of_split = columns["split"] == split
    if not of_split.any():
        raise DiagnosticError(f"{folder}/attributes.csv has no images of split {split!r}: train or test")
    out_NM = np.full((columns["index"][of_split].max() + 1, len(modalities)), np.nan)
    for m, name in enumerate(modalities):
        rows = of_split & (columns["modality"] == name)
        out_NM[columns["index"][rows], m] = 1 - columns["erased_fraction"][rows]
    return out_NM


def _complete(
    probs_NMC: np.ndarray, reliability_NM: np.ndarray | None, y_N: np.ndarray, present_NM: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The items that have all modalities, in float64; a DiagnosticError names what does not fit."""
    if reliability_NM is None:
        raise DiagnosticError(
            "there are no reliabilities: take a fusion that has them (gated, quality, moe, evidential, "
            "cross_attention), or the confidence of each modality alone"
        )
    probs_NMC, reliability_NM = np.asarray(probs_NMC, float), np.asarray(reliability_NM, float)
    y_N = np.asarray(y_N)
    if probs_NMC.ndim != 3 or probs_NMC.shape[1] < 2 or probs_NMC.shape[2] < 2:
        raise DiagnosticError(
            f"probabilities have the shape {probs_NMC.shape}: give items x modalities x classes, with at "
            f"least two modalities, as one alone cannot be weighed, and two classes"
        )
    if reliability_NM.shape != probs_NMC.shape[:2] or y_N.shape != probs_NMC.shape[:1]:
        raise DiagnosticError(
            f"reliabilities of shape {reliability_NM.shape} and labels of shape {y_N.shape} do not fit "
            f"probabilities of shape {probs_NMC.shape}: give items x modalities, and one label an item"
        )
    present_NM = np.ones(reliability_NM.shape, bool) if present_NM is None else np.asarray(present_NM)
    if present_NM.dtype != bool or present_NM.shape != reliability_NM.shape:
        raise DiagnosticError("presence has to be items x modalities of true or false")
    rows = np.asarray(present_NM.all(axis=1))
    if rows.sum() < 2:
        raise DiagnosticError(
            f"{rows.sum()} of {len(rows)} items have all modalities: take items of which at least two do"
        )
    probs_NMC, reliability_NM, y_N = probs_NMC[rows], reliability_NM[rows], y_N[rows]
    if y_N.dtype.kind not in "iu" or y_N.min() < 0 or y_N.max() >= probs_NMC.shape[2]:
        raise DiagnosticError(f"labels have to be whole numbers from 0 to {probs_NMC.shape[2] - 1}")
    if not (np.isfinite(probs_NMC).all() and (probs_NMC >= 0).all()):
        raise DiagnosticError("probabilities have to be finite and not negative: give softmax of the logits")
    if np.abs(probs_NMC.sum(axis=2) - 1).max() > 1e-3:
        raise DiagnosticError("the probabilities of an expert do not add to 1: give softmax of the logits")
    if not ((reliability_NM >= 0) & (reliability_NM <= 1 + 1e-6)).all():  # a softmax may round up
        raise DiagnosticError("reliabilities have to lie in 0..1: divide them by their largest, or rank them")
    return probs_NMC, reliability_NM, y_N


def _alignment(reliability_NM: np.ndarray, right_NM: np.ndarray) -> float:
    found = [
        np.corrcoef(q_N, right_N)[0, 1]
        for q_N, right_N in zip(reliability_NM.T, right_NM.T, strict=True)
        if np.ptp(q_N) > 0 and np.ptp(right_N) > 0
    ]
    return float(np.mean(found)) if found else float("nan")


def _resampled(lost_N: np.ndarray, y_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The gap of new items, class by class, so that every class stays: a bootstrap."""
    classes = np.unique(y_N)
    of_class = (lost_N[y_N == c] for c in classes)
    means = (x[rng.integers(len(x), size=(RESAMPLES, len(x)))].mean(axis=1) for x in of_class)
    return np.asarray(sum(means) / len(classes))


# ---- Rules: from the experts, the clean reliabilities and the labels to a function of reliabilities


def _by_weights(weights: Callable[[np.ndarray], np.ndarray]) -> Rule:
    """A rule that takes a mean of the probabilities, weighed by what reliabilities come to."""

    def rule(
        probs_NMC: np.ndarray, reliability_NM: np.ndarray, y_N: np.ndarray, rng: np.random.Generator
    ) -> Decide:
        return lambda q_NM: np.einsum("nm,nmc->nc", weights(q_NM), probs_NMC)

    return rule


def _shares(q_NM: np.ndarray) -> np.ndarray:
    """Of each item's sum; equal ones where that is 0."""
    q_NM = np.where(q_NM.sum(axis=1, keepdims=True) > 0, q_NM, 1.0)
    return np.asarray(q_NM / q_NM.sum(axis=1, keepdims=True))


def _largest(q_NM: np.ndarray) -> np.ndarray:
    """All weight to the largest; equal ones share it."""
    return _shares((q_NM == q_NM.max(axis=1, keepdims=True)).astype(float))


def _by_gate(features: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Rule:
    """A mixture by a gate: softmax over modalities of features N x M x P times P parameters.

    Mixed are log-probabilities, as in the source. The gate of an item was fitted on other folds, by the
    likelihood of their labels, with their clean reliabilities.
    """

    def rule(
        probs_NMC: np.ndarray, reliability_NM: np.ndarray, y_N: np.ndarray, rng: np.random.Generator
    ) -> Decide:
        log_NMC = np.log(np.clip(probs_NMC, SMALLEST, None))
        fold_N = _folds(y_N, rng)
        clean_NMP = features(reliability_NM, probs_NMC)
        gates = {
            f: _fitted(clean_NMP[fold_N != f], log_NMC[fold_N != f], y_N[fold_N != f]) for f in set(fold_N)
        }
        gate_NP = np.stack([gates[f] for f in fold_N])

        def decide(q_NM: np.ndarray) -> np.ndarray:
            weight_NM = softmax(np.einsum("nmp,np->nm", features(q_NM, probs_NMC), gate_NP), axis=1)
            return np.asarray(np.einsum("nm,nmc->nc", weight_NM, log_NMC))

        return decide

    return rule


def _folds(y_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The fold of each item, those of a class spread evenly."""
    order = np.lexsort((rng.random(len(y_N)), y_N))
    fold_N = np.empty(len(y_N), int)
    fold_N[order] = np.arange(len(y_N)) % min(FOLDS, len(y_N))
    return fold_N


def _fitted(features_NMP: np.ndarray, log_NMC: np.ndarray, y_N: np.ndarray) -> np.ndarray:
    rows = np.arange(len(y_N))

    def loss(gate_P: np.ndarray) -> tuple[float, np.ndarray]:
        weight_NM = softmax(features_NMP @ gate_P, axis=1)
        probs_NC = softmax(mixed_NC := np.einsum("nm,nmc->nc", weight_NM, log_NMC), axis=1)
        top_N = mixed_NC.max(axis=1)
        total_N = top_N + np.log(np.exp(mixed_NC - top_N[:, None]).sum(axis=1))
        probs_NC[rows, y_N] -= 1
        slope_NM = np.einsum("nc,nmc->nm", probs_NC, log_NMC) / len(y_N)
        slope_NM = weight_NM * (slope_NM - (weight_NM * slope_NM).sum(axis=1, keepdims=True))
        slope_P = np.einsum("nm,nmp->p", slope_NM, features_NMP) + 2 * PENALTY * gate_P
        return (total_N - mixed_NC[rows, y_N]).mean() + PENALTY * gate_P @ gate_P, slope_P

    return np.asarray(minimize(loss, np.zeros(features_NMP.shape[2]), jac=True, method="L-BFGS-B").x)


def _all_reliabilities(q_NM: np.ndarray, probs_NMC: np.ndarray) -> np.ndarray:
    """For the score of each modality the reliabilities of all and a 1, with parameters of its own."""
    seen_NP = np.column_stack([q_NM, np.ones(len(q_NM))])
    return np.asarray(np.einsum("mk,np->nmkp", np.eye(q_NM.shape[1]), seen_NP).reshape(*q_NM.shape, -1))


def _its_own(q_NM: np.ndarray, probs_NMC: np.ndarray) -> np.ndarray:
    """For the score of each modality its reliability, and how sure it is; all share the parameters."""
    return np.stack([q_NM, confidence(probs_NMC), certainty(probs_NMC)], axis=2)


RULES: Mapping[str, Rule] = {
    "mean": _by_weights(lambda q_NM: np.full(q_NM.shape, 1 / q_NM.shape[1])),  # without Q: no gap
    "weighted": _by_weights(_shares),
    "softmax": _by_weights(lambda q_NM: softmax(q_NM / TEMPERATURE, axis=1)),
    "hard": _by_weights(_largest),
    "moe": _by_gate(_all_reliabilities),
    "attention": _by_gate(_its_own),
}
