"""k-means++ seeding on gradients of several blocks, [r^1 (x) z^1; ...; r^M (x) z^M], none of them written
out.

As `kernels.k_means_pp`, which has one block: picks are those of a float64 brute force. The distance is the
sum of the blocks' distances; a row is read only while the bounds on them leave it a chance to come closer.
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from mindgap.base.gpu import repeat
from mindgap.parts.query.contract import check_finite, clamp
from mindgap.parts.query.kernels import OuterProducts, WeightedDraws
from mindgap.parts.query.resident import ResidentDraws, ResidentProducts

OuterBlock = tuple[Tensor, Tensor]  # r N x C and z N x D


def k_means_pp_blocks(blocks: Sequence[OuterBlock], n: int, rng: Generator) -> Tensor:
    """n positions by k-means++: the longest vector first, then in proportion to the squared distance to the
    nearest pick, uniformly once all distances are 0.
    """
    for r_NC, z_ND in blocks:
        check_finite(r_NC=r_NC, z_ND=z_ND)
    size, device = len(blocks[0][0]), blocks[0][0].device
    n = clamp(n, size)
    if device.type == "cuda":
        return _resident(blocks, n, rng)
    points, draws = OuterBlocks(blocks), WeightedDraws(size, n, rng, device)
    nearest_N = torch.full((size,), torch.inf, dtype=torch.float64, device=device)
    for k in range(n):
        pick = draws.draw(nearest_N) if k else draws.largest(points.square_N.sqrt())
        if k + 1 < n:
            points.lower(nearest_N, pick)
    return draws.result()


class OuterBlocks:
    """N vectors of M blocks, and squared distances from one of them in float64."""

    def __init__(self, blocks: Sequence[OuterBlock]):
        self.parts = [OuterProducts(r_NC, z_ND) for r_NC, z_ND in blocks]
        self.square_N = sum(part.square_N for part in self.parts)
        self.rounding = max(part.rounding for part in self.parts)
        self.r_NM = torch.stack([part.r_square_N.sqrt() for part in self.parts], 1)
        self.z_NM = torch.stack([part.h_square_N.sqrt() for part in self.parts], 1)

    def lower(self, nearest_N: Tensor, pick: Tensor) -> None:
        """Lower nearest_N, squared distances to the nearest pick so far, by one more pick; in place."""
        # a^2 + b^2 of all blocks, less what rounding can do: every bound below errs to the safe side
        bound_N = (1 - self.rounding) * (self.square_N + self.square_N[pick])
        cross_NM, most_NM = torch.empty_like(self.r_NM), torch.empty_like(self.r_NM)
        for m, part in enumerate(self.parts):
            bound_N -= part.underflow_N + part.underflow_N[pick]
            dot_N = (part.unit_r_NC @ part.unit_r_NC[pick]).double()
            cross_NM[:, m] = dot_N.mul_(2 * self.r_NM[:, m]).mul_(self.r_NM[pick, m])
            most_NM[:, m] = cross_NM[:, m].abs().mul_(self.z_NM[:, m]).mul_(self.z_NM[pick, m])
        # Cauchy-Schwarz on every z first; then block after block its product takes the place of that, the
        # block that is least known first: few rows are left for the others
        bound_N -= most_NM.sum(1)
        rows = (~(bound_N >= nearest_N)).nonzero()[:, 0]
        bound_n = bound_N[rows]
        for m in most_NM[rows].sum(0).argsort(descending=True).tolist():
            part = self.parts[m]
            dot_n = _products(part.h_ND, rows, part.h_ND[pick]).double()
            bound_n += most_NM[rows, m] - cross_NM[rows, m] * dot_n
            left = ~(bound_n >= nearest_N[rows])
            rows, bound_n = rows[left], bound_n[left]
        to = pick.expand(len(rows))
        exact_n = sum(part.distance2(rows, part, to) for part in self.parts) if len(rows) else bound_n
        nearest_N[rows] = torch.minimum(nearest_N[rows], exact_n)


def _products(x_ND: Tensor, rows: Tensor, y_D: Tensor) -> Tensor:
    # rows that are many are not copied; those that are few are, a few MiB at a time
    if len(rows) >= len(x_ND) // 4:
        return (x_ND @ y_D)[rows]
    step = max(1, 2**19 // x_ND.shape[1])
    parts = [x_ND[some] @ y_D for some in rows.split(step)]
    return torch.cat(parts) if parts else x_ND.new_zeros(0)


def _resident(blocks: Sequence[OuterBlock], n: int, rng: Generator) -> Tensor:
    """The loop over picks on a GPU, as `resident.k_means_pp`; n is at most N."""
    parts = [ResidentProducts(r_NC, z_ND) for r_NC, z_ND in blocks]
    square_N, slack_N = (sum(getattr(part, of) for part in parts) for of in ("square_N", "slack_N"))
    draws = ResidentDraws(len(square_N), n, rng, square_N.device)
    nearest_N = torch.full_like(square_N, torch.inf)

    def lower(pick_1: Tensor) -> None:
        distance2_N = sum(part.distance2(part[pick_1])[:, 0] for part in parts)
        torch.minimum(nearest_N, distance2_N, out=nearest_N)

    if n:
        lower(draws.largest(square_N, slack_N))
    repeat(lambda: lower(draws.draw(nearest_N)), n - 1, square_N.device)
    return draws.result()
