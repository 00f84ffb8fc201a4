"""Scaling of labs to [0, 1] by quantiles, and imputation: both learnt from the training samples alone."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

QUANTILES = 1000
NOTHING = 0.5  # of a lab that no training sample has: its column carries nothing


@dataclass(frozen=True)
class Scaler:
    """Quantiles of each lab (NaN where never seen), medians of the scaled values, and who was fitted."""

    quantiles_QI: np.ndarray
    median_I: np.ndarray
    seen_I: np.ndarray
    n_fit: int
    fit_sha256: str

    def transform(self, x_NI: np.ndarray) -> np.ndarray:
        """Values scaled and imputed, float32: no NaN, in [0, 1]."""
        scaled_NI = _scale(x_NI, self.quantiles_QI)
        return np.where(np.isnan(scaled_NI), self.median_I, scaled_NI).astype(np.float32)

    def save(self, path: Path) -> None:
        np.savez(path, **vars(self))


def fit_scaler(x_NI: np.ndarray, ids: Iterable[int]) -> Scaler:
    """Learn from training samples; `ids` are kept as a hash, which proves later on whom it was."""
    seen_I = np.isfinite(x_NI).sum(axis=0)
    share_Q = np.linspace(0, 1, QUANTILES)
    quantiles_QI = np.full((QUANTILES, x_NI.shape[1]), np.nan)
    quantiles_QI[:, seen_I > 0] = np.nanquantile(x_NI[:, seen_I > 0], share_Q, axis=0)
    # np.quantile interpolates, and rounding may make the next of two equal quantiles the smaller one
    quantiles_QI = np.maximum.accumulate(quantiles_QI, axis=0)
    median_I = np.full(x_NI.shape[1], NOTHING)
    median_I[seen_I > 0] = np.nanmedian(_scale(x_NI, quantiles_QI)[:, seen_I > 0], axis=0)
    return Scaler(quantiles_QI, median_I, seen_I, len(x_NI), hash_of(ids))


def _scale(x_NI: np.ndarray, quantiles_QI: np.ndarray) -> np.ndarray:
    """The share of training values below, as scikit-learn's QuantileTransformer has it; NaN stays.

    Of equal values it is the middle of their shares, but the lowest value gets 0 and the highest 1.
    """
    share_Q = np.linspace(0, 1, len(quantiles_QI))
    scaled_NI = np.full(x_NI.shape, np.nan)
    for i, quantiles_Q in enumerate(quantiles_QI.T):
        rows = np.isfinite(x_NI[:, i]) & np.isfinite(quantiles_Q[0])
        x_N = x_NI[rows, i]
        from_below = np.interp(x_N, quantiles_Q, share_Q)
        from_above = -np.interp(-x_N, -quantiles_Q[::-1], -share_Q[::-1])
        middle = (from_below + from_above) / 2
        scaled_NI[rows, i] = np.select([x_N <= quantiles_Q[0], x_N >= quantiles_Q[-1]], [0, 1], middle)
    return scaled_NI


def hash_of(ids: Iterable[int]) -> str:
    """SHA-256 of a set of ids, in any order."""
    return hashlib.sha256(",".join(map(str, sorted(int(i) for i in ids))).encode()).hexdigest()
