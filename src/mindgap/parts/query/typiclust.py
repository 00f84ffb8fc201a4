"""TypiClust (Hacohen et al., ICML 2022): from each cluster without a label its most typical sample.

As in the authors' code: min(L + n, 500) clusters of labelled and pool samples together; those of up to five
samples are left out; clusters in the order of fewest labelled, then largest, in turns; of each the pool
sample with the largest typicality, 1 / (mean distance to its min(20, size / 2) nearest in the cluster). Ours:
features are those of the round's model, not self-supervised; Lloyd passes on all samples where the authors
take mini-batches; Euclidean distances as in the paper, where the code has squared ones; random samples once
the clusters are used up.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from mindgap.base.typicality import mean_distance
from mindgap.base.view import PoolView
from mindgap.parts.query.clustering import k_means
from mindgap.parts.query.contract import check_finite
from mindgap.parts.query.kernels import fill, top_k
from mindgap.parts.query.unimodal import first_those, position


def typiclust(
    view: PoolView,
    n: int,
    modality: str | None = None,
    max_clusters: Annotated[int, Field(ge=1, le=5_000)] = 500,
    min_size: Annotated[int, Field(ge=0, le=1_000)] = 5,
    passes: Annotated[int, Field(ge=1, le=300)] = 20,
) -> Tensor:
    """n typical samples of the fused representation, or of a modality's own; samples without it come last."""
    if modality is None:
        has_N, x_ND, labelled_LD = view.present_NM.any(1), view.fused_NH, view.labelled_fused_LH
    else:
        m = position(view, modality)
        has_N, x_ND = view.present_NM[:, m], view.tokens_NMD[:, m]
        labelled_LD = view.labelled_tokens_LMD[view.labelled_present_LM[:, m], m]
    check_finite(x_ND=x_ND, labelled_LD=labelled_LD)

    def typical(rows: Tensor, k: int) -> Tensor:
        both = torch.cat([labelled_LD, x_ND[rows]])
        label, _ = k_means(both, min(len(labelled_LD) + k, max_clusters), passes, view.rng)
        return in_turns(
            x_ND[rows], label[len(labelled_LD) :], label[: len(labelled_LD)], k, min_size, view.rng
        )

    return first_those(has_N, n, view.rng, typical)


def in_turns(
    x_ND: Tensor, cluster_N: Tensor, labelled_L: Tensor, n: int, min_size: int, rng: torch.Generator
) -> Tensor:
    """n positions (at most N), the clusters of pool and labelled samples given."""
    count = int(max(x.max() for x in (cluster_N, labelled_L) if len(x))) + 1
    known_K = torch.bincount(labelled_L, minlength=count)
    size_K = torch.bincount(cluster_N, minlength=count) + known_K
    order = sorted(range(count), key=lambda c: (int(known_K[c]), -int(size_K[c])))
    left = {c: (cluster_N == c).nonzero()[:, 0] for c in order if size_K[c] > min_size}
    picks: list[Tensor] = []
    while len(picks) < n and any(len(rows) for rows in left.values()):
        for c, rows in left.items():
            if len(rows) and len(picks) < n:
                best = top_k(-mean_distance(x_ND[rows]), 1, rng)
                picks.append(rows[best])
                left[c] = torch.cat([rows[:best], rows[best + 1 :]])
    return fill(torch.cat(picks) if picks else cluster_N[:0], len(x_ND), n, rng)
