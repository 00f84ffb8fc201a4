"""What query methods share that ask what one modality alone says: its predictions, how well it does, who has
it.

Axes as in a `PoolView`: N samples of the pool, M modalities, C classes.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mindgap.base.view import Measured, Metrics, PoolView, Samples, weak_modality
from mindgap.parts.query.contract import QueryError, check_finite, clamp


def only(samples: Samples, m: int) -> Tensor:
    """bool M: modality m and no other."""
    return torch.arange(samples.present_NM.shape[1], device=samples.present_NM.device) == m


def probs_alone(samples: Samples) -> Tensor:
    """Predictions N x M x C (float64) with each modality alone; of no meaning where it is absent."""
    modalities = samples.present_NM.shape[1]
    probs_NMC = torch.stack([samples.probs_with(only(samples, m)) for m in range(modalities)], dim=1)
    check_finite(probs_alone_NMC=probs_NMC)
    return probs_NMC.double()


def logits_alone(samples: Samples) -> Tensor:
    """Logits N x M x C (float32) with each modality alone; of no meaning where it is absent.

    Views offer probabilities, in which the level of the logits is lost; as evidence it counts.
    """
    modalities = samples.present_NM.shape[1]
    present_MNM = [samples.present_NM & only(samples, m) for m in range(modalities)]
    logits_NMC = torch.stack([samples._classify(samples._fuse(present)) for present in present_MNM], dim=1)
    check_finite(logits_alone_NMC=logits_NMC)
    return logits_NMC


def entropies_alone(view: PoolView) -> Tensor:
    """Entropy N x M of each modality's own prediction in nats; -1 where it is absent, below any entropy."""
    probs_NMC = probs_alone(view)
    return torch.where(view.present_NM, -torch.xlogy(probs_NMC, probs_NMC).sum(-1), -1.0)


def alone(measured: Measured, view: PoolView, value: Callable[[Metrics], float]) -> list[float | None]:
    """A metric of each modality alone; None where no validation sample has the modality."""
    return [value(measured[name]) if name in measured else None for name in view.modalities]


def weakest(view: PoolView, modality: str | None) -> int:
    """The named modality; without a name, the weak one by the validation set."""
    if modality is not None:
        return position(view, modality)
    return weak_modality(view.validation.metrics, view.modalities)


def position(view: PoolView, modality: str) -> int:
    """Where a modality stands in axis M; an unknown one is an error that lists those of the dataset."""
    if modality not in view.modalities:
        raise QueryError(
            f"modality {modality!r} is not of this dataset; its modalities are {', '.join(view.modalities)}: "
            f"name one of them in query_settings, or take the setting out"
        )
    return view.modalities.index(modality)


def floored_shares(value_M: Tensor, floor: float) -> Tensor:
    """Weights of sum 1 in proportion to values >= 0 (equal ones where all are 0), each at least `floor`.

    w_m = f + (1 - M f) v_m / sum v with f the smaller of `floor` and 1/M. (float64)
    """
    modalities, value_M = len(value_M), value_M.double()
    least, total = min(floor, 1 / modalities), value_M.sum()
    share_M = value_M / total if total > 0 else torch.full_like(value_M, 1 / modalities)
    return least + (1 - modalities * least) * share_M


def first_those(has_N: Tensor, n: int, rng: torch.Generator, pick: Callable[[Tensor, int], Tensor]) -> Tensor:
    """n positions: `pick(rows, k)` of the rows that have something, then random ones of those that do not.

    `pick` gives k positions in `rows`.
    """
    n, rows = clamp(n, len(has_N)), has_N.nonzero()[:, 0]
    k = min(n, len(rows))
    chosen = rows[pick(rows, k)] if k else rows[:0]
    if k == n:
        return chosen
    others = (~has_N).nonzero()[:, 0]
    drawn = torch.randperm(len(others), generator=rng)[: n - k].to(others.device)
    return torch.cat([chosen, others[drawn]])
