"""A cold start of ours: TypiClust's rule (Hacohen et al., ICML 2022) in each modality's own stored data.

The source's: clusters of k-means; those of up to five samples are left out; the clusters with the fewest
picks first, then the largest; of one the sample with the largest typicality, 1 / (mean distance to its
min(20, size / 2) nearest in the cluster that are not picked).

Ours: features are a few components of what is stored (`features`), where the source learns them without
labels. M modalities have n / M clusters each (500 at most), of the samples that have the modality, and take
turns in an order drawn by lot. A pick counts in the clusters of all modalities that it has, so a sample
without a modality covers nothing there. Random samples once the clusters are used up.

It is no MMCSAL (Shen et al., 2412.09126): that learns encoders on the pool without labels, brings modalities
together by prototypes of each, and selects by distribution, diversity and alignment of pairs.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from mindgap.base.typicality import mean_distance
from mindgap.parts.starts.contract import Candidates

MOST_CLUSTERS, MIN_SIZE, PASSES = 500, 5, 20


@dataclass(frozen=True)
class Clusters:
    """Of the R samples, at these positions, that have a modality: features, and each one's cluster."""

    rows_R: np.ndarray
    x_RD: np.ndarray
    cluster_R: np.ndarray


def typical(candidates: Candidates, n: int, rng: np.random.Generator) -> np.ndarray:
    """The most typical samples of clusters in each modality's own data, without labels or a model (ours)."""
    picked_N = np.zeros(len(candidates), dtype=bool)
    with threadpool_limits(1):  # sums depend on how many threads share them
        found = clusters_of(candidates, n, rng)
        turns = [found[turn] for turn in rng.permutation(len(found))]
        while turns and picked_N.sum() < n:
            for one in list(turns)[: n - picked_N.sum()]:
                position = next_of(one, picked_N)
                if position is None:
                    turns.remove(one)
                else:
                    picked_N[position] = True
    left = rng.permutation(np.flatnonzero(~picked_N))
    return np.concatenate([np.flatnonzero(picked_N), left[: n - picked_N.sum()]])


def clusters_of(candidates: Candidates, n: int, rng: np.random.Generator) -> list[Clusters]:
    """Of each modality that has enough samples, in the order of their names."""
    # Here, as every command loads the table of start sets, and few need this: scikit-learn costs a second.
    from sklearn.cluster import KMeans

    from mindgap.parts.starts.features import features

    rows = {
        name: np.flatnonzero(present_N)
        for name, present_N in zip(candidates.modalities, candidates.present_NM.T, strict=True)
    }
    names = sorted(name for name in rows if len(rows[name]) > MIN_SIZE)
    found = []
    for name in names:
        x_RD = features(candidates, name, rows[name], rng)
        k = min(ceil(n / len(names)), MOST_CLUSTERS, len(np.unique(x_RD, axis=0)))
        k_means = KMeans(k, n_init=1, max_iter=PASSES, random_state=int(rng.integers(2**31)))
        found.append(Clusters(rows[name], x_RD, k_means.fit_predict(x_RD)))
    return found


def next_of(one: Clusters, picked_N: np.ndarray) -> int | None:
    """The position that a modality picks next; None where its clusters are used up."""
    taken_R = picked_N[one.rows_R]
    size_K = np.bincount(one.cluster_R)
    taken_K = np.bincount(one.cluster_R[taken_R], minlength=len(size_K))
    left = np.flatnonzero((size_K > MIN_SIZE) & (taken_K < size_K))
    if not len(left):
        return None
    best = min(left, key=lambda c: (taken_K[c], -size_K[c]))
    members = np.flatnonzero((one.cluster_R == best) & ~taken_R)
    return int(one.rows_R[members[int(mean_distance(torch.from_numpy(one.x_RD[members])).argmin())]])
