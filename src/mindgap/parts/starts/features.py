"""A few numbers for each stored sample, without a label and without a model.

Images, signals and tables: principal components of what is stored, by at most 2,000 samples; columns of a
table are standardised before, and a table of up to 50 columns is left at that. Tokens: latent semantic
analysis, the SVD of tf-idf counts.
"""

import numpy as np
from scipy.sparse import csr_array
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from mindgap.parts.starts.contract import Candidates

COMPONENTS = 50
FITTED = 2_000  # samples by which components are found
BLOCK = 1_024  # samples at a time


def features(candidates: Candidates, modality: str, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Numbers (rows x at most 50, float64) for the samples at `rows`, which have the modality."""
    seed = int(rng.integers(2**31))
    # What all samples share has no variance, of which scikit-learn takes shares.
    with np.errstate(invalid="ignore", divide="ignore"):
        if candidates.modalities[modality].kind == "tokens":
            return _semantic(candidates.stored(modality, rows), seed)
        fitted = np.sort(rng.choice(rows, min(FITTED, len(rows)), replace=False))
        return _principal(candidates, modality, rows, fitted, seed)


def _principal(
    candidates: Candidates, modality: str, rows: np.ndarray, fitted: np.ndarray, seed: int
) -> np.ndarray:
    table = candidates.modalities[modality].kind == "table"

    def flat(some: np.ndarray) -> np.ndarray:
        x = candidates.stored(modality, some).reshape(len(some), -1)
        return x.astype(np.float64 if table else np.float32)

    x_FD = flat(fitted)
    scaler = (StandardScaler() if table else FunctionTransformer()).fit(x_FD)
    reduce = FunctionTransformer()
    if x_FD.shape[1] > COMPONENTS:
        reduce = PCA(min(COMPONENTS, len(fitted)), svd_solver="randomized", random_state=seed)
    reduce.fit(scaler.transform(x_FD))
    blocks = np.array_split(rows, -(-len(rows) // BLOCK))
    return np.concatenate([reduce.transform(scaler.transform(flat(some))) for some in blocks]).astype(float)


def _semantic(ids_NT: np.ndarray, seed: int) -> np.ndarray:
    """Of token ids, of which 0 is padding."""
    row, column = np.nonzero(ids_NT)
    words, word = np.unique(ids_NT[row, column], return_inverse=True)
    counts = csr_array((np.ones(len(row)), (row, word)), shape=(len(ids_NT), max(1, len(words))))
    weights = TfidfTransformer().fit_transform(counts)
    if weights.shape[1] <= COMPONENTS:
        return weights.toarray()
    return TruncatedSVD(COMPONENTS, random_state=seed).fit_transform(weights)
