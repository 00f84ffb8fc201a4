"""Tables in the paper's layout, as CSV, Markdown and LaTeX: methods down, regimes and subsets across.

Subsets that can reach only a share of the labels (a ceiling under 1) are scaled to fill the same range, as
the paper multiplies its 10 % modalities by ten. A cell without a run is a visible hole; only rows without any
run of what is not in the paper are left out, and named.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, groupby, product
from typing import Any, NamedTuple

import pandas as pd

from mindgap.results.aulc import half_width, levels, rank_sums
from mindgap.results.curves import Selection
from mindgap.results.names import (
    CONTROLS,
    dataset_name,
    method_name,
    mitigation_name,
    scale_name,
    subset_title,
)
from mindgap.results.paper import not_in_paper
from mindgap.results.reading import rows_of
from mindgap.results.statistics import ALPHA, Refusal, balanced, blocks_needed, unbeaten

HOLE = "·"
CHANCE = "chance"  # stands for a query method in the keys of cells that show the chance level
CONTROLS_NOTE = "Controls stand apart and are no query methods: they are never the best."
ONE_SEED = "“–” after ± : one seed, so the spread is unknown."


@dataclass(frozen=True)
class Column:
    """A column: its group (the regime), its title, whether it is a weak modality, and its scaling factor."""

    group: str
    title: str
    weak: bool = False
    factor: float = 1.0


@dataclass(frozen=True)
class TableCell:
    """A number, its spread (NaN: unknown; None: it has none), and whether it is `Best` of its rivals.

    `ci` is half the 95 % interval of the mean, None where there can be none. A hole has the mean NaN.
    """

    mean: float
    std: float | None
    best: bool = False
    digits: int = 2
    ci: float | None = None

    @property
    def text(self) -> str:
        if math.isnan(self.mean):
            return HOLE
        mean = f"{self.mean:.{self.digits}f}"
        if self.std is None:
            return mean.removesuffix(".0")
        return f"{mean} ± {'–' if math.isnan(self.std) else f'{self.std:.{self.digits}f}'}"

    @property
    def tip(self) -> str:
        """The interval in words, for a tooltip; empty without one."""
        if self.ci is None or math.isnan(self.ci):
            return ""
        return f"95 % interval of the mean: {self.mean:.{self.digits}f} ± {self.ci:.{self.digits}f}"


@dataclass(frozen=True)
class TableRow:
    """A row; `kind` is method, control, level (of chance) or paper (the published numbers of the row above).

    `rule`: a line is drawn above it.
    """

    title: str
    kind: str
    cells: tuple[TableCell, ...]
    weak: bool = False
    rule: bool = False


@dataclass(frozen=True)
class Table:
    """What all renderings of a table share; `corner` heads the column of row titles.

    `beyond`: its runs have a mitigation that is not in the paper.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...] = field(default=())
    corner: str = "Method"
    beyond: bool = field(default=False, kw_only=True)

    @property
    def groups(self) -> list[tuple[str, int]]:
        """The column groups with their widths; "" groups nothing."""
        return [(name, len(list(part))) for name, part in groupby(column.group for column in self.columns)]

    @property
    def empty(self) -> bool:
        """Whether no run stands behind any cell."""
        runs = [row for row in self.rows if row.kind in ("method", "control")]
        return all(math.isnan(cell.mean) for row in runs for cell in row.cells)


class Key(NamedTuple):
    """What a cell shows."""

    dataset: str
    mitigation: str
    regime: str
    query: str
    subset: str

    @property
    def rivals(self) -> tuple[str, str, str]:
        """Cells of a table with this in common are compared: methods, or the same one with ModDrop or not."""
        return self.dataset, self.regime, self.subset


class TableLine(NamedTuple):
    """A row to be filled; `published` is the title of the paper's numbers below it."""

    title: str
    kind: str
    keys: Sequence[Key]
    published: str
    weak: bool = False
    rule: bool = False


# What "best" means, for the page. Two numbers of seeds: for the paper's seven methods, and for a pair.
BEST_RULE = (
    "A method is bold where no other of its column (or row) is told to be above it, by Wilcoxon's "
    f"signed-rank test over seeds, corrected by Holm's procedure within the column at {ALPHA:g}; so ties are "
    f"all bold. Where seeds are too few for the test (seven methods need {blocks_needed(7)}, two need "
    f"{blocks_needed(2)}), or it tells no two apart, nothing is bold: the largest mean is no winner then. "
    "Rank sums go by the same test over the seeds of all datasets that they add up."
)


class Best:
    """The cells in bold: those whose rivals are `unbeaten` over blocks, and what a note says of them.

    So "best" is what the statistics of the page carry, no largest mean: ties are all bold, and where blocks
    are too few for a test, or it tells no two apart, nothing is.
    """

    def __init__(self, block: str = "seed", what: str = ""):
        self.block, self.what = block, what
        self.cells: set[Any] = set()
        self.refused: dict[int, int] = {}
        self.tested = False

    def add(self, blocks: pd.DataFrame) -> None:
        """Rivals in the columns, by the names of their cells; their accuracies in shared blocks down."""
        if blocks.shape[1] < 2:  # alone, nobody is the best
            return
        numbered = blocks.dropna().set_axis(range(blocks.shape[1]), axis=1)
        found = unbeaten(numbered)
        if isinstance(found, Refusal):
            self.refused[numbered.shape[1]] = max(len(numbered), self.refused.get(numbered.shape[1], 0))
        else:
            self.tested = True
            self.cells |= {blocks.columns[place] for place in found}

    def note(self, place: str) -> str:
        """What bold means in a table, or why nothing is; `place` is what rivals stand in: column or row."""
        how = f"Wilcoxon's signed-rank test over {self.block}s{self.what}, Holm's correction at {ALPHA:g}"
        if self.cells:
            apart = f"in a {place} without bold no two are told apart"
            return f"Bold: no other of its {place} is above it ({how}); {apart}."
        if self.tested:
            return f"Nothing is bold: no two of a {place} are told apart ({how})."
        few = [
            f"{n} {self.block}{'s' * (n != 1)}{self.what} cannot tell {k} apart, {blocks_needed(k)} could"
            for k, n in sorted(self.refused.items())
        ]
        return f"Nothing is bold, for want of a test: {'; '.join(few)}." if few else ""


class Numbers:
    """The tidy table by keys, as cells; what has no run is a hole.

    `factors` by dataset and subset are for those without any run. `seeds` (`per_seed`) has what the means are
    made of: without it no cell is the best.
    """

    def __init__(
        self,
        tidy: pd.DataFrame,
        selection: Selection,
        seeds: pd.DataFrame | None = None,
        factors: Mapping[tuple[str, str], float] | None = None,
    ):
        self.rows: dict[Key, Any] = {}
        self.selection, self.factors = selection, dict(factors or {})
        self.seeds: dict[Key, pd.Series] = {}
        if seeds is not None:
            parts: Any = seeds.set_index("seed").groupby(list(Key._fields), sort=False)["aulc"]
            self.seeds = {Key(*key): areas for key, areas in parts}
        for row in rows_of(tidy):
            key = Key(row.dataset, row.mitigation, row.regime, row.query, row.subset)
            self.rows[key] = row
            # 1 / ceiling: what fills the range 0..N-1.
            self.factors[row.dataset, row.subset] = float(round((row.rounds - 1) / row.ceiling_aulc, 6))

    def factor(self, dataset: str, subset: str) -> float:
        return self.factors.get((dataset, subset), 1.0)

    def marked(self, title: str, dataset: str, subset: str) -> str:
        """The title with the factor behind it: "Partial ×10"."""
        factor = self.factor(dataset, subset)
        return f"{title} ×{factor:g}" if factor != 1 else title

    def best(self, lines: Sequence[TableLine]) -> Best:
        """The best of the rivals among the keys of these lines, controls aside."""
        rivals, best = defaultdict(list), Best()
        for key in (key for line in lines for key in line.keys):
            if key in self.seeds and key.query not in CONTROLS:
                rivals[key.rivals].append(key)
        for group in rivals.values():
            areas = pd.concat([self.seeds[key] for key in group], axis=1)
            best.add(areas.set_axis(pd.Index(group, tupleize_cols=False), axis=1))
        return best

    def ours(self, key: Key, best: Best) -> TableCell:
        factor = self.factor(key.dataset, key.subset)
        if key not in self.rows:
            return TableCell(math.nan, math.nan, ci=math.nan)
        row = self.rows[key]
        bold = key in best.cells
        return TableCell(row.aulc_mean * factor, row.aulc_std * factor, bold, ci=row.aulc_ci95 * factor)

    def published(self, key: Key) -> TableCell:
        factor, row = self.factor(key.dataset, key.subset), self.rows.get(key)
        mean, std = (row.paper_mean, row.paper_std) if row else (math.nan, math.nan)
        return TableCell(mean * factor, std * factor)

    def fill(self, lines: Sequence[TableLine], best: Best) -> list[TableRow]:
        """The lines' rows, each with the published numbers below where there are any."""
        rows = []
        levels = self._levels(lines)
        for line in lines:
            cells = tuple(levels.get(key) or self.ours(key, best) for key in line.keys)
            rows.append(TableRow(line.title, line.kind, cells, line.weak, line.rule))
            theirs = tuple(levels.get(key) or self.published(key) for key in line.keys)
            if any(cell.std is not None and not math.isnan(cell.mean) for cell in theirs):
                rows.append(TableRow(line.published, "paper", theirs, line.weak))
        return rows

    def _levels(self, lines: Sequence[TableLine]) -> dict[Key, TableCell]:
        """The cells of the chance level: where nothing has been run, the number of points is not known."""
        areas = {(row.dataset, row.regime, row.subset): row.chance_aulc for row in self.shown(lines)}
        keys = (key for line in lines for key in line.keys if key.query == CHANCE)
        return {
            key: TableCell(areas.get(key.rivals, math.nan) * self.factor(key.dataset, key.subset), None)
            for key in keys
        }

    def shown(self, lines: Sequence[TableLine]) -> list[Any]:
        """The rows of the tidy table behind these lines."""
        return [self.rows[key] for line in lines for key in line.keys if key in self.rows]

    def lacking(self, lines: Sequence[TableLine]) -> list[str]:
        """Why cells have no run, in few and general statements: "no runs of Share", "no runs in high".

        A statement is about all runs of the report; narrower ones ("no runs of Share in high") come after.
        """
        keys = (key for line in lines for key in line.keys)
        left = [key for key in keys if key not in self.rows and key.query != CHANCE]
        reasons = []
        axes = range(4)  # dataset, mitigation, regime, query: a run has all its subsets
        for chosen in (chosen for size in range(1, 5) for chosen in combinations(axes, size)):
            there = {tuple(key[axis] for axis in chosen) for key in self.rows}
            places = dict.fromkeys(tuple(key[axis] for axis in chosen) for key in left)
            gone = [place for place in places if place not in there]
            left = [key for key in left if tuple(key[axis] for axis in chosen) in there]
            for values in _together(gone):
                reasons.append(_reason(dict(zip(chosen, values, strict=True)), self.selection))
        return reasons


def _together(places: Iterable[tuple[str, ...]]) -> list[tuple[tuple[str, ...], ...]]:
    """Places as few products of values: those alike but for the last, then those alike but for the first."""
    lasts: dict[tuple[str, ...], dict[str, None]] = {}
    for place in places:
        lasts.setdefault(place[:-1], {})[place[-1]] = None
    firsts: dict[tuple[tuple[str, ...], ...], list[str]] = {}
    for prefix, values in lasts.items():
        rest = (*((value,) for value in prefix[1:]), tuple(values))
        firsts.setdefault(rest, []).extend(prefix[:1])
    return [(*([tuple(first)] if first else []), *rest) for rest, first in firsts.items()]


def _reason(values: Mapping[int, Sequence[str]], selection: Selection) -> str:
    """The statement; `values` are the names that a run lacks on each axis."""
    datasets, mitigations, regimes, queries = (values.get(axis, ()) for axis in range(4))
    text = "no runs"
    if queries:
        text += f" of {', '.join(map(method_name, queries))}"
    if datasets:
        names = (
            dataset_name(d) + " (skipped for want of its files)" * (d in selection.skipped) for d in datasets
        )
        text += f" {'on' if queries else 'of'} {', '.join(names)}"
    withs = ("without mitigation" if one == "none" else f"with {mitigation_name(one)}" for one in mitigations)
    text += f" {' or '.join(withs)}" if mitigations else ""
    return text + (f" in {', '.join(regimes)}" if regimes else "")


def hole_note(reasons: Sequence[str]) -> list[str]:
    """Why cells are empty, as a note; none where none are."""
    return [f"“{HOLE}”: not run: {'; '.join(reasons)}."] if reasons else []


def published_name(query: str) -> str:
    """Whose published numbers stand beside a method's."""
    return "GRACE, paper" if query == "grace_r" else f"{method_name(query)}, paper"


def method_lines(queries: Sequence[str], settings: Sequence[Key]) -> list[TableLine]:
    """A line per method over the settings (keys of any query), controls last and below a rule."""
    controls = [query for query in queries if query in CONTROLS]
    lines: list[TableLine] = []
    for query in [*(q for q in queries if q not in controls), *controls]:
        keys = [setting._replace(query=query) for setting in settings]
        kind = "control" if query in controls else "method"
        rule = query in controls[:1] and bool(lines)
        lines.append(TableLine(method_name(query), kind, keys, published_name(query), rule=rule))
    return lines


def setting_columns(settings: Sequence[Key], weak: Mapping[str, str], numbers: Numbers) -> list[Column]:
    """A column per setting in groups of regimes; `settings` are of one dataset."""
    subsets = [setting.subset for setting in settings]
    return [
        Column(
            setting.regime,
            subset_title(setting.subset, subsets),
            setting.subset == weak.get(setting.dataset),
            numbers.factor(setting.dataset, setting.subset),
        )
        for setting in settings
    ]


# Of the tables below: `seeds` is as of `per_seed`; nothing is marked as the best where it has no rows.


def dataset_table(
    tidy: pd.DataFrame,
    dataset: str,
    mitigation: str,
    selection: Selection,
    seeds: pd.DataFrame | None = None,
) -> Table:
    """A dataset with or without a mitigation, in the regimes of the selection."""
    subsets = tidy.loc[tidy["dataset"] == dataset, "subset"].unique().tolist()
    settings = [Key(dataset, mitigation, r, "", s) for r in selection.regimes for s in subsets]
    numbers = Numbers(tidy, selection, seeds)
    columns = setting_columns(settings, selection.weak, numbers)
    title = f"{dataset_name(dataset)}, {mitigation_name(mitigation)}: AULC on every subset of modalities"
    return _aulc_table(f"{dataset}-{mitigation}", title, numbers, settings, columns)


def weak_table(
    tidy: pd.DataFrame, mitigation: str, selection: Selection, seeds: pd.DataFrame | None = None
) -> Table | None:
    """The weak modality of every dataset that has one (of the paper's Table 2); None without any."""
    frame = weak_rows(tidy, mitigation, selection)
    numbers, settings, columns = Numbers(tidy, selection, seeds), [], []
    for regime in selection.regimes:
        for dataset in frame["dataset"].unique():
            subset = selection.weak[dataset]
            settings.append(Key(dataset, mitigation, regime, "", subset))
            title = f"{dataset_name(dataset)}: {subset_title(subset)}"
            columns.append(Column(regime, title, True, numbers.factor(dataset, subset)))
    if not settings:
        return None
    title = f"The weak modality of each dataset, {mitigation_name(mitigation)}: AULC"
    return _aulc_table(f"weak-{mitigation}", title, numbers, settings, columns)


def rank_table(
    tidy: pd.DataFrame, mitigation: str, selection: Selection, seeds: pd.DataFrame | None = None
) -> Table | None:
    """As the paper's Table 3, over our datasets and methods: rank sums on the weak modality, low is good."""
    frame = weak_rows(tidy, mitigation, selection)
    frame = selection.ranked(frame[~frame["query"].isin(CONTROLS)])
    every, frame = frame, ranked_part(frame)
    if frame.empty:
        return None
    datasets, queries = frame["dataset"].unique().tolist(), every["query"].unique().tolist()
    sums = complete_rank_sums(frame)
    best = best_ranks(seeds, frame, sums)
    left_out = selection.unranked_note(product(selection.weak, selection.regimes, [mitigation]))
    rows = rank_rows(sums, queries, selection.regimes, best)
    names = ", ".join(f"{dataset_name(d)}/{selection.weak[d]}" for d in datasets)
    columns = tuple(Column("rank sum", regime) for regime in selection.regimes)
    notes = (
        f"Ranks by the unrounded mean AULC on the weak modality (rank 1 = highest), added over {names}: the "
        "lower the better. Exactly equal means share their mean rank; controls are not ranked. "
        f"{_unranked_note(every, frame)}{best.note('column')} {left_out}".strip(),
        "These sums are not those of the counterpart of Table 3 (comparison.html): that ranks the paper's "
        "seven methods only, on the paper's four datasets, Synergy without ModDrop and the others with it; "
        f"these rank {len(queries)} methods on {len(datasets)} dataset{'s' * (len(datasets) != 1)}, all "
        f"{'without mitigation' if mitigation == 'none' else f'with {mitigation_name(mitigation)}'}.",
    )
    title = f"Rank sums on the weak modality, {mitigation_name(mitigation)}"
    beyond = bool(not_in_paper([], [mitigation]))
    return Table(f"rank_sums-{mitigation}", title, columns, tuple(rows), notes, beyond=beyond)


def _unranked_note(every: pd.DataFrame, ranked: pd.DataFrame) -> str:
    """What `ranked_part` left out of rank sums, by regime, and whether their means are of as many seeds."""
    told = []
    for axis, name in (("dataset", dataset_name), ("query", method_name)):
        kept = set(ranked[["regime", axis]].itertuples(index=False, name=None))
        pairs = dict.fromkeys(every[["regime", axis]].itertuples(index=False, name=None))
        told += [f"{name(value)} in {regime}" for regime, value in pairs if (regime, value) not in kept]
    text = f"Left out of the sums, as runs are missing: {', '.join(told)}. " if told else ""
    if ranked["n_seeds"].nunique() > 1:
        text += f"Means are over {_seeds(list(rows_of(ranked)))}. "
    return text


def complete_rank_sums(weak: pd.DataFrame, datasets: Sequence[str] = ()) -> dict[tuple[str, str], float]:
    """Rank sums by regime and query, of the `ranked_part` of the runs.

    The other methods are not ranked at all: a sum over fewer datasets would look better than it is.
    """
    sums = rank_sums(ranked_part(weak, datasets))
    return {(row.regime, row.query): row.rank_sum for row in rows_of(sums)}


def ranked_part(weak: pd.DataFrame, datasets: Sequence[str] = ()) -> pd.DataFrame:
    """The rows of what is ranked in each regime: the methods with a run of each of `datasets`; without these
    the `balanced` part of datasets and methods. One method alone is not ranked.
    """
    parts = [weak.iloc[:0]]
    for _, part in weak.groupby("regime", sort=False):
        cells = part.pivot(index="dataset", columns="query", values="aulc_mean")
        whole = cells.reindex(list(datasets)).dropna(axis=1) if datasets else balanced(cells)
        if whole.shape[1] > 1:
            parts.append(part[part["dataset"].isin(whole.index) & part["query"].isin(whole.columns)])
    return pd.concat(parts)


def best_ranks(seeds: pd.DataFrame | None, weak: pd.DataFrame, sums: Collection[tuple[str, str]]) -> Best:
    """The best of each regime's ranked methods, by regime and query as `sums` are."""
    best = Best("block", " (a seed of a dataset)")
    if seeds is not None:
        keys = list(Key._fields)
        rows = seeds.merge(weak[keys], on=keys).assign(level=levels)
        for regime, part in rows.groupby("regime", sort=False):
            blocks = part.pivot(index=["dataset", "seed"], columns="query", values="level")
            ranked = [query for query in blocks if (regime, query) in sums]
            names = pd.Index([(regime, query) for query in ranked], tupleize_cols=False)
            best.add(blocks[ranked].set_axis(names, axis=1))
    return best


def rank_rows(
    sums: Mapping[tuple[str, str], float], queries: Sequence[str], regimes: Sequence[str], best: Best
) -> list[TableRow]:
    """A row of rank sums per method."""
    rows = []
    for query in queries:
        keys = [(regime, query) for regime in regimes]
        cells = (TableCell(sums.get(key, math.nan), None, key in best.cells, digits=1) for key in keys)
        rows.append(TableRow(method_name(query), "method", tuple(cells)))
    return rows


def weak_rows(tidy: pd.DataFrame, mitigation: str, selection: Selection) -> pd.DataFrame:
    """The rows of `tidy` on each dataset's weak modality."""
    return tidy[
        (tidy["mitigation"] == mitigation) & (tidy["subset"] == tidy["dataset"].map(dict(selection.weak)))
    ]


def _aulc_table(
    name: str, title: str, numbers: Numbers, settings: Sequence[Key], columns: Sequence[Column]
) -> Table:
    every = method_lines(numbers.selection.queries, settings)
    lines = [line for line in every if _shown(line, numbers)]
    best = numbers.best(lines)
    rows = numbers.fill(lines, best)
    notes = notes_of(numbers, lines, columns, rows, best.note("column"))
    notes += hole_note(numbers.lacking(lines))
    if gone := [line.title for line in every if line not in lines]:
        notes.append(f"Without a run here, and not in the paper's grid: {', '.join(gone)}.")
    beyond = bool(not_in_paper([], {key.mitigation for key in settings}))
    return Table(name, title, tuple(columns), tuple(rows), tuple(notes), beyond=beyond)


def _shown(line: TableLine, numbers: Numbers) -> bool:
    """Whether a table has a row: holes are those of the paper's methods and mitigations, and of controls."""
    first = line.keys[0]
    beyond = not_in_paper([first.query], [first.mitigation])
    return not beyond or any(key in numbers.rows for key in line.keys)


def notes_of(
    numbers: Numbers,
    lines: Sequence[TableLine],
    columns: Sequence[Column],
    rows: Sequence[TableRow],
    best: str,
) -> list[str]:
    """What a reader needs to read a table of AULCs; `rows` are the filled `lines`."""
    shown = numbers.shown(lines)
    scales = sorted({scale_name(row.scale, row.changed) for row in shown})
    levels = sorted({int(row.rounds) for row in shown})
    top = ", ".join(str(n - 1) for n in levels)
    notes = [
        f"Mean ± standard deviation over {_seeds(shown)}; "
        f"the curves have N = {', '.join(map(str, levels))} points, so AULC lies in 0..{top}. "
        f"Scale: {'; '.join(scales)}. {best}".rstrip()
    ]
    settings = ((row.dataset, row.regime, row.mitigation) for row in shown)
    notes += filter(None, [numbers.selection.unranked_note(settings)])
    counts = sorted({int(row.n_seeds) for row in shown})
    if 1 in counts:
        notes.append(ONE_SEED)
    notes += _interval_note([n for n in counts if n > 1])
    if any(column.weak for column in columns) or any(row.weak for row in rows):
        notes.append("Weak modality in italics.")
    if any(column.factor != 1 for column in columns):
        factors = ", ".join(f"×{f:g}" for f in sorted({c.factor for c in columns if c.factor != 1}))
        notes.append(
            f"Columns marked {factors} cannot reach more than a part of the labels and are scaled by it."
        )
    if any(row.query in CONTROLS for row in shown):
        notes.append(CONTROLS_NOTE)
    mitigations, queries = (
        dict.fromkeys(getattr(r, name) for r in shown) for name in ("mitigation", "query")
    )
    if beyond := not_in_paper(queries, mitigations):
        notes.append(f"Not in the paper: {', '.join(beyond)}.")
    if any(row.kind == "paper" for row in rows):
        notes.append(
            "Rows “paper” repeat the published numbers; GRACE-R is a reconstruction beside its GRACE."
        )
    return notes


def _seeds(shown: Sequence[Any]) -> str:
    """ "3 seeds", or where there are how many: "2 seeds (Share low: BADGE), 3 seeds (Missing low)".

    Methods are named where those of a dataset and regime differ.
    """
    places: dict[str, dict[int, dict[str, None]]] = defaultdict(lambda: defaultdict(dict))
    for row in shown:
        places[f"{dataset_name(row.dataset)} {row.regime}"][int(row.n_seeds)][row.query] = None
    where: dict[int, list[str]] = defaultdict(list)
    for place, counts in places.items():
        for count, queries in counts.items():
            names = ", ".join(map(method_name, queries))
            where[count].append(f"{place}: {names}" if len(counts) > 1 else place)
    told = {count: f"{count} seed{'s' * (count != 1)}" for count in sorted(where)}
    if len(where) == 1:
        return next(iter(told.values()))
    return ", ".join(f"{text} ({'; '.join(where[count])})" for count, text in told.items())


def _interval_note(counts: Sequence[int]) -> list[str]:
    if not counts:
        return []
    widths = ", ".join(f"± {half_width(1.0, n):.2f} standard deviations with {n} seeds" for n in counts)
    return [
        f"95 % confidence interval of a mean (Student's t, for normal values): {widths}; half its width is "
        "ci95 in the CSV file."
    ]


def to_csv(table: Table) -> str:
    """Numbers to six digits, scaled as the header says; a mean is followed by its std and ci95, if any."""
    rows = table.rows
    written = {table.corner.lower(): [row.title for row in rows], "kind": [row.kind for row in rows]}
    for place, column in enumerate(table.columns):
        cells = [row.cells[place] for row in rows]
        parts = {name: [getattr(cell, name) for cell in cells] for name in ("mean", "std", "ci")}
        told = {name: values for name, values in parts.items() if any(value is not None for value in values)}
        for name, values in told.items():
            header = f"{_header(column)} {'ci95' if name == 'ci' else name}"
            written[header if len(told) > 1 else _header(column)] = [_number(value) for value in values]
    return pd.DataFrame(written).to_csv(index=False, lineterminator="\n")


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.6f}".rstrip("0").rstrip(".")


def _times(column: Column) -> str:
    return f"×{column.factor:g}" if column.factor != 1 else ""


def _header(column: Column) -> str:
    return " ".join(filter(None, [column.group, column.title, _times(column)]))


def to_markdown(table: Table) -> str:
    """A pipe table with the notes below it."""
    header = [""]
    for column in table.columns:
        title = f"*{column.title}*" if column.weak else column.title
        header.append(" ".join(filter(None, [column.group and f"{column.group}:", title, _times(column)])))
    lines = [f"**{table.title}**", "", _pipe(header), _pipe(["---", *["---:"] * len(table.columns)])]
    for row in table.rows:
        if row.kind == "control" and row.rule:  # the first one
            lines.append(_pipe(["*controls*", *[""] * len(table.columns)]))
        title = f"*{row.title}*" if row.weak or row.kind == "paper" else row.title
        lines.append(_pipe([title, *(f"**{cell.text}**" if cell.best else cell.text for cell in row.cells)]))
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes)]) + "\n"


def _pipe(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def to_latex(table: Table) -> str:
    """A table environment; needs \\usepackage{booktabs}."""
    spans, rules, first = [], [], 2
    for group, width in table.groups:
        spans.append(rf"\multicolumn{{{width}}}{{c}}{{{_tex(group)}}}")
        rules += [rf"\cmidrule(lr){{{first}-{first + width - 1}}}"] * bool(group)
        first += width
    lines = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table}",
        r"\centering\footnotesize",
        rf"\caption{{{_tex(table.title)}. {_tex(' '.join(table.notes))}}}",
        rf"\label{{tab:{table.name.replace('_', '-')}}}",
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        *([_amp(["", *spans]), " ".join(rules)] if rules else []),
        _amp(["", *map(_tex_title, table.columns)]),
        r"\midrule",
    ]
    for row in table.rows:
        lines += [r"\midrule"] * row.rule
        lines.append(_tex_row(row))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def _tex_title(column: Column) -> str:
    title = rf"\textit{{{_tex(column.title)}}}" if column.weak else _tex(column.title)
    return rf"{title} {_tex(_times(column))}".rstrip()


def _tex_row(row: TableRow) -> str:
    title = rf"\textit{{{_tex(row.title)}}}" if row.weak or row.kind == "paper" else _tex(row.title)
    cells = (rf"\textbf{{{_tex(cell.text)}}}" if cell.best else _tex(cell.text) for cell in row.cells)
    return _amp([r"\quad" * (row.kind == "paper") + title, *cells])


def _amp(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


TEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"±": r"$\pm$", "−": "$-$", "×": r"$\times$", HOLE: r"$\cdot$", "–": "--", "“": "``", "”": "''"},
}


def _tex(text: str) -> str:
    return "".join(TEX.get(letter, letter) for letter in text)


RENDERERS = {"csv": to_csv, "md": to_markdown, "tex": to_latex}
