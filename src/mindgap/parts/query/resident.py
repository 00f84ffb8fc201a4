"""Seeding on a GPU: samples, distances and picks stay there, and the host reads nothing until the last pick.

Distances are a^2 + b^2 - 2 (r.r')(h.h') on float64 copies. What their rounding cannot tell from 0 is 0, what
it cannot tell from the largest is as large: up to such ties, picks are those of `OuterProducts` and
`WeightedDraws`.
"""

import copy

import torch
from torch import Generator, Tensor

from mindgap.base.gpu import repeat, send

# Entries of a temporary matrix, distances to many centres at once: 64 MiB, and four are alive together.
BLOCK = 2**23
# Weights are summed up within rows of so many, then over rows. One long sum in parallel is added up in an
# order that differs from call to call, and so would its last bits.
ROW = 256


class ResidentProducts:
    """N vectors r_i (x) h_i that are never written out, as `OuterProducts`, with none ruled out by a bound.

    A pick is 26 launches: 11 to lower by one centre, which reads 8 N (C + D) bytes, and 15 over N numbers to
    draw. N = 60,000, C = 101, D = 512: 294 MB are 77 us at 80 % of the 4.8 TB/s of an H200, and 24 small
    launches at 3 us in a recording are 72 us. So 5,050 picks are estimated at 0.75 s; nothing is measured.
    """

    def __init__(self, r_NC: Tensor, h_ND: Tensor):
        self.r_NC, self.h_ND = r_NC.double(), h_ND.double()
        self.square_N = (_norm(self.r_NC) * _norm(self.h_ND)).square()
        # |rounding of a dot product of length d| <= d eps/2 |x||y|; doubled, and some for the rest
        self.rounding = (r_NC.shape[1] + h_ND.shape[1] + 16) * torch.finfo(torch.float64).eps

    def __len__(self) -> int:
        return len(self.h_ND)

    def __getitem__(self, rows: Tensor | slice) -> "ResidentProducts":
        part = copy.copy(self)
        part.r_NC, part.h_ND, part.square_N = self.r_NC[rows], self.h_ND[rows], self.square_N[rows]
        return part

    @property
    def norm_N(self) -> Tensor:
        return self.square_N.sqrt()

    @property
    def slack_N(self) -> Tensor:
        """How far apart squares, and squared distances, of equal samples may come out."""
        return self.square_N * self.rounding

    def lower(self, nearest_N: Tensor, centres: "ResidentProducts") -> None:
        """Lower nearest_N, squared distances to the nearest centre so far, by some more centres; in place."""
        step = max(1, BLOCK // max(1, len(self)))
        for start in range(0, len(centres), step):
            distance2_NB = self.distance2(centres[start : start + step])
            # a minimum over one column would copy it
            closest_N = distance2_NB.amin(1) if distance2_NB.shape[1] > 1 else distance2_NB[:, 0]
            torch.minimum(nearest_N, closest_N, out=nearest_N)

    def distance2(self, centres: "ResidentProducts") -> Tensor:
        """|g_i - g_j|^2, N x B; exactly 0 where it is below its rounding, as between duplicates."""
        both_NB = self.square_N[:, None] + centres.square_N
        dot_r_NB, dot_h_NB = _dots(self.r_NC, centres.r_NC), _dots(self.h_ND, centres.h_ND)
        distance2_NB = both_NB.addcmul(dot_r_NB, dot_h_NB, value=-2)
        return distance2_NB.masked_fill_(distance2_NB <= both_NB.mul_(self.rounding), 0)


class ResidentDraws:
    """Up to n draws without replacement, as `WeightedDraws`, of the same numbers; the state is tensors.

    A draw has the same launches whatever the weights are, so that it can be recorded once and replayed.
    """

    def __init__(self, size: int, n: int, rng: Generator, device: torch.device):
        rank_N = torch.randperm(size, generator=rng)
        self.uniform_K = send(torch.rand(n, generator=rng, dtype=torch.float64), device)
        # three bands of scores, so that one argmax finds the pick: 1..N for the free by rank, 0 once taken;
        # N+1..2N the later the higher; 3N+1..4N the earlier the higher
        self.spare_N = send(size - rank_N, device)
        self.later_N = torch.arange(size + 1, 2 * size + 1, device=device)
        self.earlier_N = torch.arange(4 * size, 3 * size, -1, device=device)
        self.picks_K = torch.zeros(n, dtype=torch.int64, device=device)
        self.count_1 = torch.zeros(1, dtype=torch.int64, device=device)
        rows = -(-size // ROW)
        self.weight_RW = torch.zeros(rows, ROW, dtype=torch.float64, device=device)
        self.before_RR = torch.ones(rows, rows, dtype=torch.float64, device=device).tril_(-1)

    def largest(self, values_N: Tensor, slack_N: Tensor) -> Tensor:
        """Take the largest value, where none taken is above the free; those within slack in random order."""
        return self._take((values_N + slack_N >= values_N.amax()) * self.spare_N)

    def draw(self, weights_N: Tensor) -> Tensor:
        """Take one of the free with probability proportional to its weight; uniformly when all are 0."""
        weight_N = self.weight_RW.view(-1)[: len(weights_N)]
        torch.mul(weights_N, self.spare_N > 0, out=weight_N)
        within_RW = self.weight_RW.cumsum(1)
        cumulative_RW = within_RW + (self.before_RR @ within_RW[:, -1])[:, None]
        cumulative_N = cumulative_RW.view(-1)[: len(weights_N)]
        target_1 = self.uniform_K[self.count_1] * cumulative_N[-1]
        # the first beyond the target. The sums are rounded each in its own order: one of weight 0 may seem
        # beyond, and if none is, it is the last of a weight; without weights the lowest rank
        score_N = torch.where(cumulative_N > target_1, self.earlier_N, self.later_N)
        return self._take(torch.where(weight_N > 0, score_N, self.spare_N))

    def result(self) -> Tensor:
        """All that was taken, in order."""
        return self.picks_K

    def _take(self, score_N: Tensor) -> Tensor:
        pick_1 = score_N.argmax(0, keepdim=True)
        self.picks_K.index_copy_(0, self.count_1, pick_1)
        self.spare_N.index_fill_(0, pick_1, 0)
        self.count_1.add_(1)
        return pick_1


def k_means_pp(r_NC: Tensor, h_ND: Tensor, n: int, rng: Generator) -> Tensor:
    """n positions by k-means++ seeding on r_i (x) h_i, as `kernels.k_means_pp`; n is at most N."""
    points, draws = ResidentProducts(r_NC, h_ND), ResidentDraws(len(h_ND), n, rng, h_ND.device)
    nearest_N = torch.full_like(points.square_N, torch.inf)
    if n:
        points.lower(nearest_N, points[draws.largest(points.square_N, points.slack_N)])
    repeat(lambda: points.lower(nearest_N, points[draws.draw(nearest_N)]), n - 1, h_ND.device)
    return draws.result()


def k_center_greedy(x_ND: Tensor, centres_LD: Tensor, n: int, rng: Generator) -> Tensor:
    """n positions, each the furthest from all before, as `kernels.k_center_greedy`; n is at most N."""
    points, centres = (ResidentProducts(torch.ones_like(x[:, :1]), x) for x in (x_ND, centres_LD))
    draws, slack_N = ResidentDraws(len(x_ND), n, rng, x_ND.device), points.slack_N
    nearest_N = torch.full_like(points.square_N, torch.inf)
    points.lower(nearest_N, centres)
    repeat(lambda: points.lower(nearest_N, points[draws.largest(nearest_N, slack_N)]), n, x_ND.device)
    return draws.result()


def sample_proportional(weights_N: Tensor, n: int, rng: Generator) -> Tensor:
    """n distinct positions, as `kernels.sample_proportional`; n is at most N."""
    draws = ResidentDraws(len(weights_N), n, rng, weights_N.device)
    repeat(lambda: draws.draw(weights_N), n, weights_N.device)
    return draws.result()


def _norm(x_ND: Tensor) -> Tensor:
    # not the root of a sum of squares, which are a second copy of the matrix
    return torch.linalg.vector_norm(x_ND, dim=1)


def _dots(x_ND: Tensor, y_BD: Tensor) -> Tensor:
    # a product with one vector has kernels of its own, which read the matrix at the memory's rate
    return (x_ND @ y_BD[0])[:, None] if len(y_BD) == 1 else x_ND @ y_BD.T
