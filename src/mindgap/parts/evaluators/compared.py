from torch import Tensor

from mindgap.parts.evaluators.contract import Context, Predictions, WholeSplit


def compared(split: WholeSplit, context: Context, m: int, subset: str) -> tuple[Predictions, Predictions]:
    """With all modalities and with a subset, of the same samples: those that have modality m and another."""
    rows_N = split.present_NM[:, m] & (split.present_NM.sum(dim=1) > 1)
    every = context.subsets["+".join(context.modalities)]
    return _within(every, rows_N), _within(context.subsets[subset], rows_N)


def _within(seen: Predictions, rows_N: Tensor) -> Predictions:
    kept_K = rows_N[seen.rows_N]
    return Predictions(rows_N, seen.probs_KC[kept_K], seen.y_K[kept_K])
