"""Which of the paper's tables is right where they contradict each other: the one that gives Table 3.

Tables 1, 2 and 4 repeat 402 cells of Tables 7 to 16, and Table 3 ranks cells of Table 2: the tables check
each other. Values are compared as printed. data/paper/errata.yaml says what comes out.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, permutations, product
from pathlib import Path
from typing import TypeVar

import pandas as pd

from mindgap.results.errata import MISPRINT_COLUMNS, PAPER_CELL, repeated
from mindgap.results.paper import load_paper, published_rank_sums, weak_of_table2

T = TypeVar("T")
# The values taken and the methods from the highest on: one way to read a column of Table 2.
Ranking = tuple[dict[str, float], tuple[str, ...]]


@dataclass(frozen=True)
class Table3:
    """How Table 3 follows from Table 2.

    A reading chooses among disputed values and orders tied ones. `orders`: for (regime, dataset) the methods
    from the highest value on; `ties`: those of them that are printed with one value, where there are any;
    `values`: the right value of each disputed cell, NaN where it stays open. All hold what every reading that
    gives Table 3 says. `tried` and `found` count the readings of each regime, and those that give Table 3.
    """

    orders: Mapping[tuple[str, str], tuple[str, ...]]
    ties: Mapping[tuple[str, str], tuple[tuple[str, ...], ...]]
    values: Mapping[tuple[str, ...], float]
    tried: Mapping[str, int]
    found: Mapping[str, int]

    @property
    def unique(self) -> bool:
        """Whether exactly one reading of Table 2 gives Table 3."""
        return set(self.found.values()) == {1}


def read_table3(weak: pd.DataFrame, sums: pd.DataFrame) -> Table3:
    """The readings of Table 2 that give Table 3, found by trying all.

    `weak`: Table 2's weak cells with `options`, the values that tables print for each; `sums`: regime, query,
    rank_sum as printed.
    """
    orders, ties, values, tried, found = {}, {}, {}, {}, {}
    for regime, cells in weak.groupby("regime", sort=False):
        columns = {
            name: dict(zip(column["query"], column["options"], strict=True))
            for name, column in cells.groupby("dataset", sort=False)
        }
        wanted = sums[sums["regime"] == regime].set_index("query")["rank_sum"].to_dict()
        tried[regime], readings = _readings(columns, wanted)
        found[regime] = len(readings)
        for name in columns:
            if order := _agreed(reading[name][1] for reading in readings):
                orders[regime, name] = order
                if tied := _tied(order, readings[0][name][0]):
                    ties[regime, name] = tied
        for row in cells[cells["options"].map(len) > 1].itertuples():
            value = _agreed(reading[row.dataset][0][row.query] for reading in readings)
            values[tuple(getattr(row, name) for name in PAPER_CELL)] = math.nan if value is None else value
    return Table3(orders, ties, values, tried, found)


def _readings(
    columns: Mapping[str, Mapping[str, Sequence[float]]], wanted: Mapping[str, float]
) -> tuple[int, list[dict[str, Ranking]]]:
    """How many readings a regime has, and those of them that give its wanted rank sums."""
    rankings = {name: _rankings(options) for name, options in columns.items()}
    tried = math.prod(map(len, rankings.values()))
    readings = (reading for reading in product(*rankings.values()) if _rank_sums(reading) == wanted)
    return tried, [dict(zip(rankings, reading, strict=True)) for reading in readings]


def _rankings(options: Mapping[str, Sequence[float]]) -> list[Ranking]:
    """All that a column can mean: every choice of values, and every order of those that are equal then."""
    rankings = []
    for chosen in product(*options.values()):
        values = dict(zip(options, chosen, strict=True))
        tied = groupby(sorted(values, key=values.__getitem__, reverse=True), key=values.__getitem__)
        parts = product(*[list(permutations(group)) for _, group in tied])
        rankings += [(values, tuple(chain.from_iterable(part))) for part in parts]
    return rankings


def _rank_sums(reading: Sequence[Ranking]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for _, order in reading:
        for rank, query in enumerate(order, 1):
            sums[query] = sums.get(query, 0) + rank
    return sums


def _agreed(answers: Iterable[T]) -> T | None:
    """The one answer that all give, else None."""
    kinds = set(answers)
    return kinds.pop() if len(kinds) == 1 else None


def _tied(order: Sequence[str], values: Mapping[str, float]) -> tuple[tuple[str, ...], ...]:
    groups = (tuple(group) for _, group in groupby(order, key=values.__getitem__))
    return tuple(group for group in groups if len(group) > 1)


def table3(paper_dir: Path) -> Table3:
    """The order of ties and the disputed values with which Table 3 follows from Table 2."""
    frame = load_paper(paper_dir)
    printed = frame.groupby(PAPER_CELL)["paper_mean"].agg(lambda values: tuple(sorted(set(values))))
    weak = weak_of_table2(frame).join(printed.rename("options"), on=PAPER_CELL)
    return read_table3(weak, published_rank_sums(paper_dir))


def found_misprints(paper_dir: Path) -> pd.DataFrame:
    """Where tables print different means for one cell, and which is right: MISPRINT_COLUMNS, as printed."""
    return disagreements(load_paper(paper_dir), table3(paper_dir))


def disagreements(frame: pd.DataFrame, table3: Table3) -> pd.DataFrame:
    """The cells of Tables 1, 2 and 4 with another mean in Tables 7 to 16: MISPRINT_COLUMNS, as printed.

    `wrong`: the table with the misprint ("" where that stays open), `taken`: the value to go on with, which
    of an open pair is the detail table's, whose standard deviation is known.
    """
    pairs = repeated(frame)
    rows = [_judged(row, table3) for row in pairs[pairs["printed"] != pairs["detail_printed"]].itertuples()]
    return pd.DataFrame(rows, columns=MISPRINT_COLUMNS)


def _judged(row, table3: Table3) -> tuple:
    cell = tuple(getattr(row, name) for name in PAPER_CELL)
    right, wrong = table3.values.get(cell, math.nan), ""
    if not math.isnan(right):
        printed = ((row.table, row.printed), (row.detail_table, row.detail_printed))
        wrong = " and ".join(str(table) for table, value in printed if value != right)
        verdict = f"Table {wrong} is wrong: Table 3 follows from {right:.2f} only"
    elif cell not in table3.values:
        verdict = "open: Table 3 does not rank this cell"
    else:
        verdict = f"open: Table 3 follows from {'either' if table3.found[row.regime] else 'neither'} value"
    taken = row.detail_printed if math.isnan(right) else right
    return (row.table, *cell, row.printed, row.detail_table, row.detail_printed, wrong, taken, verdict)
