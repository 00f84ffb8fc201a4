"""k-means for query methods: seeds by k-means++, Lloyd's passes by scikit-learn, in one thread.

In one thread because centres are summed up in an order that depends on who is first, and so would their last
bits.
"""

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Generator, Tensor

from mindgap.parts.query.kernels import k_means_pp


def k_means(x_ND: Tensor, k: int, passes: int, rng: Generator) -> tuple[Tensor, Tensor]:
    """The cluster of each sample (N), and its distance to that cluster's centre (N, float64).

    k clusters at most: duplicates among the seeds make fewer. The first seed is the longest vector, the next
    are drawn in proportion to the squared distance to the nearest seed.
    """
    # Here, as every command loads the table of query methods, and few need this: it costs a second.
    from sklearn.cluster import KMeans

    seeds = k_means_pp(torch.ones_like(x_ND[:, :1]), x_ND, min(k, len(x_ND)), rng)
    if not len(seeds):
        return seeds, torch.zeros(0, dtype=torch.float64, device=x_ND.device)
    start_KD, x = x_ND[seeds].unique(dim=0).cpu().numpy(), x_ND.cpu().numpy()
    with threadpool_limits(1):
        found = KMeans(len(start_KD), init=start_KD, n_init=1, max_iter=passes, tol=0).fit(x)
    away = np.concatenate(
        [
            np.linalg.norm(x[rows].astype(np.float64) - found.cluster_centers_[found.labels_[rows]], axis=1)
            for rows in np.array_split(np.arange(len(x)), 1 + len(x) // 4_096)
        ]
    )
    label_N = torch.from_numpy(found.labels_.astype(np.int64))
    return label_N.to(x_ND.device), torch.from_numpy(away).to(x_ND.device)
