"""Which query methods differ, as far as few seeds can tell; what they cannot is refused, with the reason.

Friedman's test, Wilcoxon's with Holm's correction and the diagram's groups follow Demšar (JMLR 2006), the win
matrix Ash et al. (ICLR 2020). A block is a seed in a setting (dataset and regime): there all methods share
split, start set and initial weights. Settings are fixed: nothing here speaks of datasets that were not run.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import f as f_distribution
from scipy.stats import norm, rankdata, studentized_range
from scipy.stats import t as student

from mindgap.results.aulc import DIGITS, MIN_SEEDS, levels, on_targets, per_seed
from mindgap.results.names import CONTROLS, METHOD_NAMES, dataset_name, method_name
from mindgap.results.reading import ReportError, parts_of, rows_of

TARGETS = {"weak": "weak modality", "all": "all modalities"}
PAIR = ["dataset", "regime"]
BLOCK = [*PAIR, "seed"]
BASELINE = "random"
ALPHA = 0.05
SEED = 2603
ARRANGEMENTS = 100_000  # of ranks within blocks: all of them up to here, else so many drawn at random
RESAMPLES = 10_000

# What each test asks and how, for the page.
EXPLANATIONS = {
    "level": (
        "Level: the mean accuracy along the curve as a share of the way from chance (0) to the subset's "
        "ceiling (1), so that a modality that cannot know the whole label counts as much as any other."
    ),
    "friedman": (
        "Friedman's test asks whether the methods differ at all. In every block (a seed in a dataset and "
        "regime) methods are ranked by their level; equal ones share their mean rank. With "
        "more than 10 blocks and 5 methods p is Iman and Davenport's; with fewer it is the share of all "
        "arrangements of ranks within blocks that are at least as uneven."
    ),
    "pairwise": (
        "Wilcoxon's signed-rank test of each pair over the blocks, exact also with ties, corrected for the "
        "number of pairs by Holm's procedure. Bars of the diagram join neighbours in mean rank of whom no "
        "two are told apart."
    ),
    "bootstrap": (
        "Mean difference in level to Random over blocks, with its interval (95 % at α = 0.05). Settings are "
        "kept and seeds resampled within them, n − 1 out of n, with percentiles widened to Student's: so an "
        "interval is for new seeds in the same settings, and for its method alone."
    ),
    "wins": (
        "Row beats column: the points of all settings' curves (without the shared first one) where a paired "
        "two-sided t-test over seeds finds the row better, counted. The tests are not corrected for their "
        "number, and points of one curve go together: a count says how often, not that a method is better."
    ),
}


@dataclass(frozen=True)
class Refusal:
    """A test that the data cannot support, and why."""

    test: str
    reason: str


@dataclass(frozen=True)
class Friedman:
    """Chi-square (corrected for ties), Iman and Davenport's F, and the p-value with how it came about."""

    chi2: float
    f: float
    p: float
    how: str


@dataclass(frozen=True, eq=False)
class Wins:
    """`matrix`: at how many of `points` row beats column; `by_chance`: what equal methods would have."""

    matrix: pd.DataFrame
    settings: int
    points: int
    by_chance: float
    note: str

    @property
    def beaten(self) -> pd.Series:
        """How often each method is beaten by the others, of `against` comparisons."""
        return self.matrix.sum()

    @property
    def against(self) -> int:
        return self.points * (len(self.matrix) - 1)


@dataclass(frozen=True, eq=False)
class Statistics:
    """All that is said of one mitigation and target; `note` tells which blocks it rests on.

    `mean_ranks` and `mean_levels` are per method, `groups` the bars of the critical-difference diagram
    and `nemenyi` its length of comparison (no groups, NaN: no diagram).
    """

    scale: str
    mitigation: str
    target: str
    alpha: float
    n_blocks: int
    note: str
    mean_ranks: pd.Series
    mean_levels: pd.Series
    friedman: Friedman | Refusal
    pairwise: pd.DataFrame | Refusal
    groups: tuple[tuple[str, ...], ...]
    nemenyi: float
    bootstrap: pd.DataFrame | Refusal
    wins: Wins | Refusal

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        tests = (self.friedman, self.pairwise, self.bootstrap, self.wins)
        return tuple(test for test in tests if isinstance(test, Refusal))


def statistics(
    curves: pd.DataFrame, weak: Mapping[str, str], mitigation: str, target: str, alpha: float = ALPHA
) -> Statistics:
    """The statistics of one mitigation on each dataset's weak modality or on all modalities together."""
    rows = _target_rows(curves, weak, mitigation, target)
    every_block = _blocks(rows)
    blocks = balanced(every_block)
    ranks = blocks.rank(axis=1, ascending=False).mean()
    overall, pairs = friedman(blocks, alpha), pairwise(blocks, alpha)
    bars: tuple[tuple[str, ...], ...] = ()
    length = math.nan
    if isinstance(overall, Friedman) and isinstance(pairs, pd.DataFrame):
        bars, length = groups(ranks, pairs), nemenyi(*blocks.shape, alpha)
    return Statistics(
        scale=curves["scale"].iloc[0],
        mitigation=mitigation,
        target=target,
        alpha=alpha,
        n_blocks=len(blocks),
        note=_note(every_block, blocks),
        mean_ranks=ranks,
        mean_levels=blocks.mean(),
        friedman=overall,
        pairwise=pairs,
        groups=bars,
        nemenyi=length,
        bootstrap=bootstrap(blocks, alpha),
        wins=wins(rows[rows.set_index(BLOCK).index.isin(blocks.index)], blocks.columns.tolist(), alpha),
    )


def _target_rows(curves: pd.DataFrame, weak: Mapping[str, str], mitigation: str, target: str) -> pd.DataFrame:
    if target not in TARGETS:
        raise ReportError(f"there are no statistics on {target!r}; known: {', '.join(TARGETS)}")
    scales = sorted(set(curves["scale"]))
    if len(scales) != 1:
        raise ReportError(
            f"statistics compare runs of one scale, these are of {', '.join(scales) or 'none'}: "
            "select the rows of one"
        )
    shown = on_targets(curves, weak)
    of_target = (shown["target"] == target) & (shown["mitigation"] == mitigation)
    return shown[of_target & ~shown["query"].isin(CONTROLS)]


def _blocks(rows: pd.DataFrame) -> pd.DataFrame:
    """Levels (`aulc.levels`), blocks x query methods in a fixed order; NaN where a run is missing."""
    areas = per_seed(rows).reindex(columns=[*BLOCK, "query", "aulc", "chance_aulc", "ceiling_aulc"])
    blocks = areas.assign(level=levels(areas)).pivot(index=BLOCK, columns="query", values="level")
    queries: list[str] = sorted(blocks.columns.tolist(), key=_place)
    return blocks[queries]


def _place(query: str) -> tuple[int, str]:
    known = list(METHOD_NAMES)
    return (known.index(query) if query in known else len(known)), query


def balanced(blocks: pd.DataFrame) -> pd.DataFrame:
    """The part of blocks x methods without a hole that has the most runs, of two methods or more.

    Methods and blocks are left out for it; of parts with as many runs the one with more methods is taken.
    """
    patterns = {frozenset(itertools.compress(blocks.columns, row)) for row in blocks.notna().to_numpy()}
    shared: set[frozenset[str]] = set()
    for pattern in patterns:
        shared |= {pattern, *(pattern & other for other in shared)}

    def worth(methods: frozenset[str]) -> tuple[object, ...]:
        whole = blocks[list(methods)].notna().all(axis=1).sum()
        return len(methods) > 1, len(methods) * whole, len(methods), sorted(methods)

    kept = max(shared, key=worth, default=frozenset())
    return blocks[[query for query in blocks if query in kept]].dropna()


def _note(every_block: pd.DataFrame, blocks: pd.DataFrame) -> str:
    """How many blocks there are of which settings, and which blocks and methods were left out."""
    if every_block.empty:
        return "There are no runs of query methods."
    text = _extent(blocks.groupby(level=PAIR).size())
    if gone := [method_name(query) for query in every_block.columns.tolist() if query not in blocks]:
        text += f" Left out, as runs of them are missing: {', '.join(gone)}."
    lacking: dict[str, dict[str, list[str]]] = {}
    key: Any
    for key, row in every_block.loc[~every_block.index.isin(blocks.index), list(blocks)].iterrows():
        names = ", ".join(method_name(query) for query in row.index[row.isna()])
        lacking.setdefault(names, {}).setdefault(_setting(key), []).append(str(key[2]))
    if not lacking:
        return text
    left_out = []
    for names, settings in lacking.items():
        told = (f"{one} seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}" for one, seeds in settings.items())
        left_out.append(f"{', '.join(told)} ({names})")
    more = f" and {len(left_out) - 5} more" if len(left_out) > 5 else ""
    named, count = "; ".join(left_out[:5]) + more, len(every_block) - len(blocks)
    return f"{text} {count} of {len(every_block)} blocks left out, as methods are missing: {named}."


def _extent(seeds: pd.Series) -> str:
    low, high = int(seeds.min()), int(seeds.max())
    each = _count(low, "seed") if low == high else f"{low} to {high} seeds"
    return f"{_count(int(seeds.sum()), 'block')}: {_count(len(seeds), 'setting')} with {each} each."


def _setting(key: Sequence[str]) -> str:
    return f"{dataset_name(key[0])} {key[1]}"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _there(n: int, noun: str) -> str:
    return f"{'is' if n == 1 else 'are'} {_count(n, noun)}"


def friedman(blocks: pd.DataFrame, alpha: float) -> Friedman | Refusal:
    """Whether the methods (columns) differ at all; refused where not even perfect agreement would say so."""
    n, k = blocks.shape
    if k < 3:
        return Refusal("friedman", f"it compares three methods or more, here {_there(k, 'method')}")
    smallest = min(1.0, math.factorial(k) ** (1 - n))
    if smallest > alpha:
        wanted = next(m for m in itertools.count(2) if math.factorial(k) ** (1 - m) <= alpha)
        return Refusal(
            "friedman",
            f"with {_count(n, 'block')} of {k} methods no p-value below {smallest:.2g} can come out, and "
            f"{alpha:g} is asked for: {wanted} blocks are needed",
        )
    ranks = blocks.rank(axis=1, ascending=False).to_numpy()
    within = ((ranks - (k + 1) / 2) ** 2).sum()
    if within == 0:
        return Friedman(0.0, 0.0, 1.0, "all methods are equal in all blocks")
    between = float(_unevenness(ranks.sum(axis=0), n))
    chi2 = (k - 1) * between / within
    rest = n * (k - 1) - chi2
    f = (n - 1) * chi2 / rest if rest > 0 else math.inf
    if n > 10 and k > 5:  # Demšar's bounds for the approximation
        p = float(f_distribution.sf(f, k - 1, (k - 1) * (n - 1)))
        return Friedman(float(chi2), float(f), max(p, smallest), "F distribution of Iman and Davenport")
    return Friedman(float(chi2), float(f), *_arranged(ranks, between))


def _unevenness(sums: np.ndarray, n: int) -> np.ndarray:
    """Squared distance of the rank sums of n blocks (last axis) from their mean: exact, as all are halves."""
    return np.asarray(((sums - n * (sums.shape[-1] + 1) / 2) ** 2).sum(axis=-1))


def _arranged(ranks: np.ndarray, between: float) -> tuple[float, str]:
    """The share of arrangements of ranks within blocks as uneven as this one, and how they were had.

    All methods may be renamed at once, so the first block stays as it is.
    """
    n, k = ranks.shape
    if math.factorial(k) ** (n - 1) <= ARRANGEMENTS:
        sums = ranks[:1]
        for block in ranks[1:]:
            orders = np.array(list(itertools.permutations(block)))
            sums = (sums[:, None] + orders).reshape(-1, k)
        return float((_unevenness(sums, n) >= between).mean()), f"all {len(sums):,} arrangements"
    rng = np.random.default_rng(SEED)
    sums = np.tile(ranks[0], (ARRANGEMENTS, 1))
    for block in ranks[1:]:
        sums += block[rng.random(sums.shape, dtype=np.float32).argsort(axis=1)]
    as_uneven = int((_unevenness(sums, n) >= between).sum())
    return (as_uneven + 1) / (ARRANGEMENTS + 1), f"{ARRANGEMENTS:,} random arrangements"


def pairwise(blocks: pd.DataFrame, alpha: float) -> pd.DataFrame | Refusal:
    """A row per pair of methods: a, b, n, n_equal, median_difference (a - b), a_above, p, p_holm, different.

    `a_above` is the direction that the test finds; the median may be 0 where many blocks are equal.
    """
    n, k = blocks.shape
    if k < 2:
        return Refusal("pairwise", f"it compares two methods or more, here {_there(k, 'method')}")
    pairs = list(itertools.combinations(blocks, 2))
    smallest = min(1.0, 2.0 ** (1 - n))
    if smallest * len(pairs) > alpha:
        wanted = blocks_needed(k, alpha)
        return Refusal(
            "pairwise",
            f"with {_count(n, 'block')} no p-value below {smallest:.2g} can come out of a signed-rank test, "
            f"and with {_count(len(pairs), 'pair')} the smallest must be at most "
            f"{alpha / len(pairs):.2g} (Holm at {alpha:g}): {wanted} blocks are needed",
        )
    rows = []
    for a, b in pairs:
        differences = (blocks[a] - blocks[b]).round(DIGITS).to_numpy()
        equal, median = int((differences == 0).sum()), float(np.median(differences))
        a_above = bool((np.sign(differences) * rankdata(np.abs(differences))).sum() > 0)
        rows.append((a, b, n, equal, median, a_above, signed_rank_p(differences)))
    frame = pd.DataFrame(rows, columns=["a", "b", "n", "n_equal", "median_difference", "a_above", "p"])
    frame["p_holm"] = holm(frame["p"].to_numpy())
    return frame.assign(different=frame["p_holm"] <= alpha)


def blocks_needed(methods: int, alpha: float = ALPHA) -> int:
    """The fewest blocks with which `pairwise` can tell two of so many methods apart."""
    pairs = math.comb(methods, 2)
    return next(n for n in itertools.count(1) if 2.0 ** (1 - n) * pairs <= alpha)


def unbeaten(blocks: pd.DataFrame, alpha: float = ALPHA) -> tuple[Any, ...] | Refusal:
    """The methods that `pairwise` places no other above, ties all of them; none where it tells no two apart.

    This is what "best" means on all pages and in all tables.
    """
    pairs = pairwise(blocks, alpha)
    if isinstance(pairs, Refusal):
        return pairs
    apart = pairs[pairs["different"]]
    beaten = {one.b if one.a_above else one.a for one in rows_of(apart)}
    return tuple(method for method in blocks if method not in beaten) if len(apart) else ()


def signed_rank_p(differences: np.ndarray) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test, exact whatever the ties; zeros are dropped.

    The sum of the ranks' random signs is built up rank by rank, in halves: shared ranks are no special case,
    and the normal approximation, poor for few blocks, is not needed.
    """
    nonzero = differences[differences != 0]
    halves = (2 * rankdata(np.abs(nonzero))).astype(int)
    positive = halves[nonzero > 0].sum()
    chances = np.zeros(min(positive, halves.sum() - positive) + 1)  # of each sum up to the smaller one
    chances[0] = 1.0
    for rank in halves:
        chances[rank:] += chances[:-rank]
        chances /= 2
    return min(1.0, 2 * math.fsum(chances))


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down adjustment: the smallest of m times m, the next times m - 1, ..., never decreasing."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1.0)
    return adjusted


def groups(mean_ranks: pd.Series, pairs: pd.DataFrame) -> tuple[tuple[str, ...], ...]:
    """The longest runs of neighbours in rank in which no pair differs: the bars of the diagram."""
    names = list(mean_ranks.sort_values(kind="stable").index)
    apart = {frozenset(pair) for pair in pairs.loc[pairs["different"], ["a", "b"]].itertuples(index=False)}
    found, reached = [], 0
    for start in range(len(names)):
        end = start + 1
        while end < len(names) and not any(frozenset((n, names[end])) in apart for n in names[start:end]):
            end += 1
        if end - start > 1 and end > reached:
            found.append(tuple(names[start:end]))
            reached = end
    return tuple(found)


def nemenyi(n: int, k: int, alpha: float) -> float:
    """Nemenyi's critical difference of mean ranks of k methods over n blocks (Demšar, table 5)."""
    quantile = float(studentized_range.ppf(1 - alpha, k, math.inf)) / math.sqrt(2)
    return quantile * math.sqrt(k * (k + 1) / (6 * n))


def bootstrap(blocks: pd.DataFrame, alpha: float) -> pd.DataFrame | Refusal:
    """A row per method: query, n, difference (mean over blocks of method - Random), and its low and high end.

    Resampling n of n seeds understates the spread of few: simulated 95 % intervals of 15 settings with
    three seeds held the truth 87 times of 100, of 10 settings with two 78. With n - 1 of n the variance is
    right (Rao and Wu 1988), with Student's percentiles (Hesterberg 2015) they held it 95 and 92 times.
    """
    if BASELINE not in blocks or blocks.shape[1] < 2:
        return Refusal("bootstrap", "it compares methods with Random: both are needed")
    seeds = blocks.groupby(level=PAIR).size()
    freedom = len(blocks) - len(seeds)
    alone = [_setting(key) for key in seeds.index[seeds == 1]]
    if alone:
        return Refusal(
            "bootstrap", f"{', '.join(alone)}: one seed, which has no spread to resample; two are needed"
        )
    if freedom < 10:
        return Refusal(
            "bootstrap",
            f"the spread is that of seeds within settings, and {_count(len(blocks), 'block')} of "
            f"{_count(len(seeds), 'setting')} leave {freedom} degrees of freedom: 10 are needed "
            "(10 settings with 2 seeds, 5 with 3, or 1 with 11)",
        )
    differences = blocks.drop(columns=BASELINE).sub(blocks[BASELINE], axis=0)
    means = _resampling_weights(seeds.tolist()) @ differences.to_numpy()
    tail = norm.cdf(student.ppf(alpha / 2, freedom))
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    ends = {"n": len(blocks), "difference": differences.mean().to_numpy(), "low": low, "high": high}
    return pd.DataFrame({"query": list(differences), **ends})


def _resampling_weights(seeds: Sequence[int]) -> np.ndarray:
    """Resamples x blocks: a block's weight in the mean when each setting draws n - 1 of its n seeds."""
    rng = np.random.default_rng(SEED)
    drawn = [rng.multinomial(n - 1, [1 / n] * n, size=RESAMPLES) * (n / (n - 1)) for n in seeds]
    return np.hstack(drawn) / sum(seeds)


def wins(rows: pd.DataFrame, queries: Sequence[str], alpha: float) -> Wins | Refusal:
    """How often each method of `queries` beats each on the curves in `rows`, in settings of MIN_SEEDS seeds.

    With two, a t-test finds a difference where two numbers happen to be nearly equal, whatever their size.
    """
    if len(queries) < 2:
        return Refusal("wins", f"it compares two methods or more, here {_there(len(queries), 'method')}")
    settings = dict(parts_of(rows, PAIR, sort=True))
    enough = {key: part for key, part in settings.items() if part["seed"].nunique() >= MIN_SEEDS}
    if not enough:
        return Refusal("wins", _too_few_seeds(settings, alpha))
    matrix = sum(_beaten_points(part, queries, alpha) for part in enough.values())
    left_out = [_setting(key) for key in settings if key not in enough]
    note = f"Left out for want of {MIN_SEEDS} seeds: {', '.join(left_out)}." if left_out else ""
    frame = pd.DataFrame(matrix, index=list(queries), columns=list(queries))
    points = sum(part["round"].nunique() - (0 in set(part["round"])) for part in enough.values())
    return Wins(frame, len(enough), points, points * alpha / 2, note)


def _too_few_seeds(settings: Mapping[Any, pd.DataFrame], alpha: float) -> str:
    most = max((part["seed"].nunique() for part in settings.values()), default=0)
    if most < 2:
        needed = f"{MIN_SEEDS} are needed"
        return f"t-tests need the spread over seeds, and no setting has more than {most}: {needed}"
    critical = student.ppf(1 - alpha / 2, 1)
    return (
        f"no setting has more than 2 seeds, of which a t-test at {alpha:g} asks for |t| > {critical:.1f}: "
        f"two differences reach it whenever they are within {2 / (critical + 1):.0%} of each other, however "
        f"small they are; {MIN_SEEDS} seeds are needed"
    )


def _beaten_points(part: pd.DataFrame, queries: Sequence[str], alpha: float) -> np.ndarray:
    """Methods x methods: at how many of one setting's points, from round 1 on, row beats column."""
    points = sorted(set(part["round"]) - {0})
    columns = pd.MultiIndex.from_product([queries, points])
    wide = part.pivot(index="seed", columns=["query", "round"], values="balanced_accuracy")[columns]
    accuracy = wide.to_numpy().reshape(len(wide), len(queries), len(points))
    differences = (accuracy[:, :, None] - accuracy[:, None]).round(DIGITS)
    critical = student.ppf(1 - alpha / 2, len(wide) - 1)
    # Multiplied out, as all seeds may differ by the same amount: then the spread is zero and any mean counts.
    margin = critical * differences.std(axis=0, ddof=1)
    return np.asarray((math.sqrt(len(wide)) * differences.mean(axis=0) > margin).sum(axis=-1))


def taken_together(result: Statistics) -> str:
    """One reading of the three tests, which need not agree: a difference is what the corrected pairs say."""
    overall, pairs, bounds = result.friedman, result.pairwise, result.bootstrap
    tested = isinstance(pairs, pd.DataFrame)
    apart = (
        pairs[pairs["different"]][["a", "b"]].to_numpy().tolist() if isinstance(pairs, pd.DataFrame) else []
    )
    parts = []
    if isinstance(overall, Friedman):
        parts.append(_beside_friedman(overall.p <= result.alpha, tested, bool(apart)))
    if isinstance(bounds, pd.DataFrame):
        clear = bounds.loc[(bounds["low"] > 0) | (bounds["high"] < 0), "query"]
        alone = [method_name(query) for query in clear if sorted([query, BASELINE]) not in map(sorted, apart)]
        if alone:
            parts.append(
                "With intervals that leave out 0, but not told from Random by the corrected pairs: "
                f"{', '.join(alone)}. An interval is of one method's mean, which few settings can carry, and "
                f"one in {1 / result.alpha:.0f} leaves out 0 by chance; a pair has to differ one way in most "
                "blocks. Only what the pairs say is called a difference."
            )
    return " ".join(filter(None, parts))


def _beside_friedman(differs: bool, tested: bool, apart: bool) -> str:
    """What Friedman's test and that of pairs say together; empty where both find a difference."""
    if apart and not differs:
        return (
            "Friedman's test, which sees ranks only, finds no difference; the test of pairs, which sees "
            "sizes too, does: weak evidence."
        )
    if apart:
        return ""
    pairs = "the test of pairs tells no two apart" if tested else "the test of pairs is refused"
    if differs:
        return f"Friedman's test says that methods differ, but not which, and {pairs}: none is called better."
    return f"Friedman's test finds no difference, and {pairs}: none is called better than another."


LONG_COLUMNS = {
    "ranks": ["query", "mean_rank", "mean_level", "n"],
    "friedman": ["n", "n_methods", "chi2", "f", "p", "how"],
    "pairwise": ["a", "b", "n", "n_equal", "median_difference", "a_above", "p", "p_holm", "different"],
    "bootstrap": ["query", "n", "difference", "low", "high"],
    "wins": ["winner", "loser", "wins", "points", "settings"],
    "refusals": ["test", "reason"],
}


def as_tables(results: Sequence[Statistics]) -> dict[str, pd.DataFrame]:
    """Long tables to be written as CSV, numbers to six digits: ranks, friedman, pairwise, bootstrap, wins,
    refusals. Each begins with mitigation and target; a test that was refused everywhere has no rows.
    """
    parts = {name: [pd.DataFrame(columns=columns)] for name, columns in LONG_COLUMNS.items()}
    for result in results:
        for name, frame in _frames(result).items():
            parts[name].append(frame.assign(mitigation=result.mitigation, target=result.target))
    tables = {}
    for name, columns in LONG_COLUMNS.items():
        filled = pd.concat([part for part in parts[name] if len(part)] or parts[name], ignore_index=True)
        tables[name] = six_digits(filled.reindex(columns=["mitigation", "target", *columns]))
    return tables


def _frames(result: Statistics) -> dict[str, pd.DataFrame]:
    """The rows of one result in each long table; none in that of a test that was refused."""
    ranks = pd.DataFrame({"mean_rank": result.mean_ranks, "mean_level": result.mean_levels})
    frames: dict[str, Any] = {
        "ranks": ranks.rename_axis("query").reset_index().assign(n=result.n_blocks),
        "pairwise": result.pairwise,
        "bootstrap": result.bootstrap,
        "refusals": pd.DataFrame(result.refusals),
    }
    if isinstance(result.friedman, Friedman):
        sizes = {"n": result.n_blocks, "n_methods": len(result.mean_ranks)}
        frames["friedman"] = pd.DataFrame([sizes | vars(result.friedman)])
    if isinstance(result.wins, Wins):
        methods, wins = result.wins.matrix, result.wins
        pairs = itertools.permutations(methods.columns.tolist(), 2)
        rows = [(a, b, int(methods[b][a]), wins.points, wins.settings) for a, b in pairs]
        frames["wins"] = pd.DataFrame(rows, columns=LONG_COLUMNS["wins"])
    return {name: frame for name, frame in frames.items() if isinstance(frame, pd.DataFrame)}


def six_digits(frame: pd.DataFrame) -> pd.DataFrame:
    """Floats as they are written to a table."""
    numbers = frame.select_dtypes("float").columns
    return frame.assign(**{name: [float(f"{value:.6g}") for value in frame[name]] for name in numbers})
