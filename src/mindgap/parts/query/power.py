"""Power sampling of any score (Kirsch et al., TMLR 2023): draws in proportion to a power of the score, not
the top.

Formula: the n largest of log s_i + Gumbel(0, 1) / beta, which is n draws without replacement with probability
proportional to s_i^beta. Samples alike have scores alike, so the top n of a score repeats itself; draws do
not.
"""

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field
from torch import Generator, Tensor

from mindgap.base.view import PoolView
from mindgap.parts.query.contract import check_finite
from mindgap.parts.query.disagreement import disagreement_of
from mindgap.parts.query.entropy import entropy_of
from mindgap.parts.query.kernels import sample_proportional
from mindgap.parts.query.max_modality_entropy import max_modality_entropy_of
from mindgap.parts.query.weak_entropy import weak_entropy_of

Beta = Annotated[float, Field(ge=0, le=100)]


def power(
    view: PoolView,
    n: int,
    score: Literal[
        "entropy", "margin", "least_confidence", "weak_entropy", "max_modality_entropy", "disagreement"
    ] = "entropy",
    beta: Beta = 1.0,
) -> Tensor:
    """n draws in proportion to score^beta; of score 0 only once nothing else is left, then uniformly."""
    return draw_by_power(SCORES[score](view), n, beta, view.rng)


def draw_by_power(score_N: Tensor, n: int, beta: float, rng: Generator) -> Tensor:
    """n distinct positions with probability ~ score^beta; a score below 0 (none) counts as 0."""
    check_finite(score_N=score_N)
    score_N = score_N.double().clamp(min=0)
    # over the largest, so that no power overflows
    return sample_proportional((score_N / score_N.amax().clamp(min=1e-300)) ** beta, n, rng)


def margin_of(view: PoolView) -> Tensor:
    """1 - (p of the likeliest class - p of the second), 0 to 1."""
    best_N2 = view.probs_NC.double().topk(min(2, view.num_classes), dim=1).values
    return 1 - (best_N2[:, 0] - best_N2[:, -1])


def least_confidence_of(view: PoolView) -> Tensor:
    """1 - the probability of the likeliest class."""
    return 1 - view.probs_NC.double().amax(1)


SCORES: dict[str, Callable[[PoolView], Tensor]] = {
    "entropy": lambda view: entropy_of(view.log_probs_NC),
    "margin": margin_of,
    "least_confidence": least_confidence_of,
    "weak_entropy": weak_entropy_of,
    "max_modality_entropy": max_modality_entropy_of,
    "disagreement": disagreement_of,
}
