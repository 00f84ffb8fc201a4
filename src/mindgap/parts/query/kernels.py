"""Selection kernels: k-center greedy, k-means++ on outer products r (x) h, top-k, weighted sampling.

k-center greedy follows Sener & Savarese 2018; k-means++ is BADGE's (Ash et al. 2020) in the factorised form
of Zhang et al. 2023. A pick costs two matrix-vector products; n x n, n x m and n x (C d) are never built.
Float32 products only decide which distances can change, with a bound on their rounding; those few are then
computed from differences in float64: picks are a float64 brute force's, duplicates are at distance 0 exactly.
On a GPU the loop over picks is that of `resident`.
"""

from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from mindgap.base.gpu import send
from mindgap.parts.query import resident
from mindgap.parts.query.contract import QueryError, check_finite, clamp

# Entries of a temporary matrix: 1 MiB in float64, so that the few alive at once stay in a core's cache. The
# first pass over 5,000 labelled and 10,000 x 512 took 1.2 s so, and 2.5 s with 8 MiB.
BLOCK = 2**17
# Candidates k-center greedy looks at between two passes over the pool.
CANDIDATES = 256


def top_k(scores_N: Tensor, n: int, rng: Generator) -> Tensor:
    """Positions of the n largest scores, best first; rng decides between equal ones."""
    check_finite(scores_N=scores_N)
    n = clamp(n, len(scores_N))
    order = send(torch.randperm(len(scores_N), generator=rng), scores_N.device)
    return order[scores_N[order].argsort(descending=True, stable=True)[:n]]


def fill(chosen: Tensor, size: int, n: int, rng: Generator) -> Tensor:
    """The chosen positions, and random others of `size` up to n in all."""
    free_N = torch.ones(size, dtype=torch.bool, device=chosen.device)
    free_N[chosen] = False
    others = free_N.nonzero()[:, 0]
    drawn = torch.randperm(len(others), generator=rng)[: n - len(chosen)].to(others.device)
    return torch.cat([chosen, others[drawn]])


class WeightedDraws:
    """Up to n draws without replacement from `size` samples, each with weights of its own."""

    def __init__(self, size: int, n: int, rng: Generator, device: torch.device):
        # all random numbers first: what a later caller of rng sees does not depend on the weights
        self.rank_N = torch.randperm(size, generator=rng).to(device)
        self.uniform_K = torch.rand(n, generator=rng, dtype=torch.float64).to(device)
        self.free_N = torch.ones(size, dtype=torch.bool, device=device)
        self.picks: list[Tensor] = []

    def take(self, pick: Tensor) -> Tensor:
        """Mark a position as drawn."""
        self.free_N[pick] = False
        self.picks.append(pick)
        return pick

    def largest(self, weights_N: Tensor) -> Tensor:
        """Take the largest weight among the free; equal ones in random order."""
        weights_N = torch.where(self.free_N, weights_N, -torch.inf)
        return self.take(torch.where(weights_N == weights_N.max(), self.rank_N, len(weights_N)).argmin())

    def draw(self, weights_N: Tensor) -> Tensor:
        """Take one of the free with probability proportional to its weight; uniformly when all are 0."""
        cumulative_N = torch.where(self.free_N, weights_N, 0).double().cumsum(0)
        total = cumulative_N[-1]
        if total == 0:
            return self.largest(torch.zeros_like(weights_N))
        # u * total may round up to total, and then no entry would be beyond it
        target = torch.minimum(
            self.uniform_K[len(self.picks)] * total, total.nextafter(torch.zeros_like(total))
        )
        return self.take(torch.searchsorted(cumulative_N, target, right=True))

    def result(self) -> Tensor:
        """All that was taken, in order."""
        return torch.stack(self.picks) if self.picks else self.rank_N[:0]


def sample_proportional(weights_N: Tensor, n: int, rng: Generator) -> Tensor:
    """n distinct positions, drawn one after the other with probability proportional to weights_N >= 0."""
    check_finite(weights_N=weights_N)
    if (weights_N < 0).any():
        raise QueryError(
            f"weights_N is negative in row {(weights_N < 0).nonzero()[0, 0]}; weights are 0 or more"
        )
    n = clamp(n, len(weights_N))
    if weights_N.is_cuda:
        return resident.sample_proportional(weights_N, n, rng)
    draws = WeightedDraws(len(weights_N), n, rng, weights_N.device)
    for _ in range(n):
        draws.draw(weights_N)
    return draws.result()


class OuterProducts:
    """N vectors r_i (x) h_i that are never written out, and squared distances between them in float64."""

    def __init__(self, r_NC: Tensor, h_ND: Tensor):
        self.r_NC, self.h_ND = r_NC, h_ND
        # squares, not norms: the square of a root is off by rounding, and r (x) h is (-r) (x) (-h) exactly
        self.r_square_N = _row_squares(r_NC)
        self.h_square_N = _row_squares(h_ND)
        self.square_N = self.r_square_N * self.h_square_N
        # residuals of a confident model go down to 1e-30, whose products underflow in float32: unit vectors
        self.unit_r_NC = _unit_rows(r_NC, self.r_square_N)
        # |rounding of a dot product of length d| <= d eps/2 |x||y|; doubled, and some for the sums around it
        exact = torch.get_float32_matmul_precision() == "highest"  # else TF32 or bfloat16 inside
        eps = torch.finfo(h_ND.dtype).eps if exact else 2.0**-7
        self.rounding = (r_NC.shape[1] + h_ND.shape[1] + 16) * eps
        if len(self) and self.h_square_N.max() > torch.finfo(h_ND.dtype).max / 4:
            self.rounding = torch.inf  # a product may overflow: every row counts as reachable
        # each term of a dot product of h that underflows is off by `tiny` at most: 2 |r||r'| times that
        self.underflow_N = self.r_square_N * (h_ND.shape[1] * torch.finfo(h_ND.dtype).tiny)

    @property
    def norm_N(self) -> Tensor:
        return self.square_N.sqrt()

    def __len__(self) -> int:
        return len(self.h_ND)

    def __getitem__(self, rows: Tensor) -> "OuterProducts":
        return OuterProducts(self.r_NC[rows], self.h_ND[rows])

    def distance2(self, i_P: Tensor, other: "OuterProducts", j_P: Tensor) -> Tensor:
        """|g_i - g_j|^2 for pairs of positions here and in another set.

        As g_i - g_j = (r_i - r_j) (x) h_i + r_j (x) (h_i - h_j): no cancellation between near duplicates.
        """
        out_P = torch.empty(len(i_P), dtype=torch.float64, device=self.h_ND.device)
        for pairs in _slices(len(i_P), BLOCK // 2 // (self.r_NC.shape[1] + self.h_ND.shape[1])):
            i, j = i_P[pairs], j_P[pairs]
            # in place, and half a block: three are alive at once, the most of what a pick allocates
            h_i, r_j = self.h_ND[i].double(), other.r_NC[j].double()
            dr, dh = self.r_NC[i].double().sub_(r_j), other.h_ND[j].double()
            torch.sub(h_i, dh, out=dh)
            dr_r_j, h_i_dh = r_j.mul_(dr).sum(1), h_i.mul_(dh).sum(1)
            squares = dr.square_().sum(1) * self.h_square_N[i] + other.r_square_N[j] * dh.square_().sum(1)
            out_P[pairs] = squares + 2 * dr_r_j * h_i_dh
        return out_P.clamp_(min=0)

    def lower(self, nearest_N: Tensor, centres: "OuterProducts") -> None:
        """Lower nearest_N, squared distances to the nearest centre so far, by some more centres; in place."""
        for columns in _slices(len(centres), 512):
            block = centres[columns] if len(centres) > 512 else centres
            for rows in _slices(len(self), BLOCK // len(block)):
                self._settle(nearest_N, *self._bounds(nearest_N[rows], rows, block), block)

    def _bounds(self, nearest_n: Tensor, rows: slice, centres: "OuterProducts") -> tuple[Tensor, Tensor]:
        """Positions that the centres may come closer to, and lower bounds of their squared distances."""
        # a^2 + b^2, less what rounding can do to the whole: every bound below errs to the safe side
        keep = 1 - max(self.rounding, centres.rounding)
        floor_n = keep * self.square_N[rows] - self.underflow_N[rows]
        floor_nB = floor_n[:, None] + (keep * centres.square_N - centres.underflow_N)
        dot_r_nB = (self.unit_r_NC[rows] @ centres.unit_r_NC.T).double()
        dot_r_nB.mul_(2 * self.r_square_N[rows].sqrt()[:, None]).mul_(centres.r_square_N.sqrt())
        h_nD, i_n = self.h_ND[rows], None
        if self.r_NC.shape[1] > 1:
            # Cauchy-Schwarz on h: rows that no value of h_i . h_j could bring closer are never read
            most_nB = dot_r_nB.abs().mul_(self.h_square_N[rows].sqrt()[:, None])
            most_nB = torch.sub(floor_nB, most_nB.mul_(centres.h_square_N.sqrt()), out=most_nB)
            i_n = _reachable(most_nB, nearest_n)
        if i_n is None or len(i_n) >= len(h_nD) // 4:
            i_n = torch.arange(rows.start, rows.stop, device=h_nD.device)
            dot_h_nB = h_nD @ centres.h_ND.T
        else:
            floor_nB, dot_r_nB = floor_nB[i_n], dot_r_nB[i_n]
            dot_h_nB = _dots_of(h_nD, i_n, centres.h_ND)
            i_n += rows.start
        return i_n, floor_nB.sub_(dot_r_nB.mul_(dot_h_nB))

    def _settle(
        self, nearest_N: Tensor, i_n: Tensor, lower_bound_nB: Tensor, centres: "OuterProducts"
    ) -> None:
        # the likely nearest first: it rules out nearly all others
        bound_n, j_n = lower_bound_nB.min(1)
        hit = (~(bound_n >= nearest_N[i_n])).nonzero()[:, 0]
        i_P, j_P = i_n[hit], j_n[hit]
        nearest_N[i_P] = torch.minimum(nearest_N[i_P], self.distance2(i_P, centres, j_P))
        if len(centres) == 1:
            return
        open_PB = ~(lower_bound_nB[hit] >= nearest_N[i_P][:, None])
        open_PB.scatter_(1, j_P[:, None], False)
        p, j = open_PB.nonzero(as_tuple=True)
        nearest_N.scatter_reduce_(0, i_P[p], self.distance2(i_P[p], centres, j), "amin")


def k_means_pp(r_NC: Tensor, h_ND: Tensor, n: int, rng: Generator) -> Tensor:
    """n positions by k-means++ seeding on r_i (x) h_i, without writing the products out.

    First the longest vector, as every public BADGE does, then with probability proportional to the squared
    distance to the nearest pick; uniformly once all distances are 0. Per pick O(N (C + D)) at most.
    """
    check_finite(r_NC=r_NC, h_ND=h_ND)
    n = clamp(n, len(h_ND))
    if h_ND.is_cuda:
        return resident.k_means_pp(r_NC, h_ND, n, rng)
    points = OuterProducts(r_NC, h_ND)
    draws = WeightedDraws(len(points), n, rng, h_ND.device)
    nearest_N = torch.full_like(points.norm_N, torch.inf)
    for k in range(n):
        pick = draws.draw(nearest_N) if k else draws.largest(points.norm_N)
        if k + 1 < n:
            points.lower(nearest_N, points[pick[None]])
    return draws.result()


def k_center_greedy(x_ND: Tensor, centres_LD: Tensor, n: int, rng: Generator) -> Tensor:
    """n positions, each the furthest (Euclidean) from all centres and earlier picks; ties are random.

    Distances only fall, so those of the last pass are upper bounds: while the best of the furthest
    CANDIDATES, kept exact, is above all other bounds it is the furthest of all, and the pool waits. Without
    centres the first is random.
    """
    check_finite(x_ND=x_ND, centres_LD=centres_LD)
    n = clamp(n, len(x_ND))
    if x_ND.is_cuda:
        return resident.k_center_greedy(x_ND, centres_LD, n, rng)
    points = _plain(x_ND)
    draws = WeightedDraws(len(points), n, rng, x_ND.device)
    nearest_N = torch.full_like(points.norm_N, torch.inf)
    points.lower(nearest_N, _plain(centres_LD))
    while len(draws.picks) < n:
        seen = len(draws.picks)
        draws.largest(nearest_N)
        _pick_among_candidates(points, nearest_N, draws, n)
        if len(draws.picks) < n:
            points.lower(nearest_N, points[torch.stack(draws.picks[seen:])])
    return draws.result()


def _pick_among_candidates(points: OuterProducts, nearest_N: Tensor, draws: WeightedDraws, n: int) -> None:
    bounds, rows = nearest_N.topk(min(CANDIDATES, len(points)))
    if torch.isinf(bounds[-1]):
        return  # no centre yet: nothing is known about the pool before its first pass
    x_nD, best_n = points.h_ND[rows].double(), bounds.clone()
    rank_n = draws.rank_N[rows]
    while True:
        pick = draws.picks[-1]
        best_n = torch.minimum(best_n, (x_nD - points.h_ND[pick]).square().sum(1))
        best_n[rows == pick] = -torch.inf
        top = best_n.max()
        if len(draws.picks) == n or not top > bounds[-1]:
            return
        draws.take(rows[torch.where(best_n == top, rank_n, len(points)).argmin()])


def pick_balanced(group_N: Tensor, labelled_count_G: Tensor, n: int, rng: Generator) -> Tensor:
    """n positions that leave the groups as equal in size, labelled ones included, as the pool allows.

    Each pick goes to a group with the fewest labels so far that has samples left; random among such groups
    and in them.
    """
    n = clamp(n, len(group_N))
    group, count = group_N.tolist(), labelled_count_G.tolist()
    tie_break = torch.rand(n, generator=rng).tolist()
    waiting: list[list[int]] = [[] for _ in count]
    for position in torch.randperm(len(group_N), generator=rng).tolist():
        waiting[group[position]].append(position)
    picks = []
    for u in tie_break:
        least = min(count[g] for g in range(len(count)) if waiting[g])
        smallest = [g for g in range(len(count)) if waiting[g] and count[g] == least]
        g = smallest[int(u * len(smallest))]
        picks.append(waiting[g].pop())
        count[g] += 1
    return torch.tensor(picks, dtype=torch.int64, device=group_N.device)


def _row_squares(x_ND: Tensor) -> Tensor:
    # in blocks: asking a reduction for float64 makes it copy the whole matrix first
    squares = [x_ND[rows].double().square().sum(1) for rows in _slices(len(x_ND), BLOCK // x_ND.shape[1])]
    return torch.cat(squares) if squares else x_ND.new_zeros(0, dtype=torch.float64)


def _unit_rows(x_ND: Tensor, square_N: Tensor) -> Tensor:
    unit_ND = torch.empty_like(x_ND)
    for rows in _slices(len(x_ND), BLOCK // x_ND.shape[1]):
        # the division by a float64 is one in float64
        unit_ND[rows] = x_ND[rows] / square_N[rows].sqrt().clamp(min=1e-300)[:, None]
    return unit_ND


def _dots_of(x_ND: Tensor, rows: Tensor, y_BD: Tensor) -> Tensor:
    # a few MiB at a time: at N = 50,000, D = 512 all rows that a pick reads are up to 25 MiB
    out_nB = x_ND.new_empty(len(rows), len(y_BD))
    for some in _slices(len(rows), 4 * BLOCK // x_ND.shape[1]):
        torch.mm(x_ND[rows[some]], y_BD.T, out=out_nB[some])
    return out_nB


def _plain(x_ND: Tensor) -> OuterProducts:
    return OuterProducts(torch.ones_like(x_ND[:, :1]), x_ND)


def _reachable(bound_nB: Tensor, nearest_n: Tensor) -> Tensor:
    # "not at least", so that a bound that overflowed to NaN counts as reachable
    return (~(bound_nB >= nearest_n[:, None])).any(1).nonzero()[:, 0]


def _slices(length: int, step: int) -> Iterator[slice]:
    for start in range(0, length, max(1, step)):
        yield slice(start, min(length, start + max(1, step)))
