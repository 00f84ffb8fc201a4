from collections.abc import Iterator

import torch
from torch import Tensor

from mindgap.parts.evaluators.contract import Context, Row

# No setting: tables would compare values of different numbers of bins.
BINS = 15


def ece(model, split, context: Context) -> Iterator[Row]:
    """Expected calibration error (Guo et al. 2017), on each subset of modalities."""
    return context.of_subsets("ece", calibration_error)


def calibration_error(probs_KC: Tensor, y_K: Tensor, bins: int = BINS) -> float:
    """Mean |accuracy - confidence| over equal-width bins, by size; NaN where there are no samples."""
    if not len(y_K):
        return float("nan")
    confidence_K, predicted_K = probs_KC.double().max(dim=1)
    bin_K1 = ((confidence_K * bins).ceil().long().clamp(1, bins) - 1).unsqueeze(1)
    gap_K1 = ((predicted_K == y_K).double() - confidence_K).unsqueeze(1)
    # Summed bin by bin: what adds at an index on a GPU does not do so in the same order twice.
    gap_B = (gap_K1 * (bin_K1 == torch.arange(bins, device=y_K.device))).sum(dim=0)
    return (gap_B.abs().sum() / len(y_K)).item()
