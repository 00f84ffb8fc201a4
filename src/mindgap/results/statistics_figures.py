"""The critical-difference diagram (Demšar 2006) and the matrix of wins (Ash et al. 2020), as SVG and PNG.

Drawn only of tests that were not refused. Nemenyi's distance is there to compare: the bars are Wilcoxon's.
"""

import math
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from mindgap.results.figures import GREY, RC, save, style_of, title
from mindgap.results.names import method_name, mitigation_name
from mindgap.results.statistics import TARGETS, Friedman, Statistics, Wins

SQUARE = 0.52  # inches of a square of the matrix
LINE = 0.24  # inches from one name of the diagram to the next
WINS = LinearSegmentedColormap.from_list("wins", ["#ffffff", "#08519c"])


def draw(result: Statistics, folder: Path) -> list[str]:
    """Draw what the tests allow; the figures' names without ending: ranks-... and wins-..."""
    name, drawn = f"{result.mitigation}-{result.target}", []
    if not math.isnan(result.nemenyi):
        drawn.append(f"ranks-{name}")
        critical_difference(result, folder / drawn[-1])
    if isinstance(result.wins, Wins):
        drawn.append(f"wins-{name}")
        win_matrix(result, result.wins, folder / drawn[-1])
    return drawn


def critical_difference(result: Statistics, stem: Path) -> None:
    """Mean ranks on an axis, the best on the left; a bar joins methods that the tests do not tell apart."""
    ranks = result.mean_ranks.sort_values(kind="stable")
    first_name = 0.7 + 0.5 * len(result.groups)  # lines below the axis
    lines = first_name + math.ceil(len(ranks) / 2)
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(7.2, 1.15 + LINE * (lines + 1)))
        ax = figure.add_axes((0.2, 0.1, 0.6, 0.9 - 0.62 / figure.get_figheight()))
        ax.set_axis_off()
        ax.set_xlim(1, len(ranks))
        ax.set_ylim(-lines - 1.0, 1.6)
        _axis(ax, len(ranks))
        _distance(ax, result)
        for place, group in enumerate(result.groups):
            ends = [ranks[group[0]] - 0.04, ranks[group[-1]] + 0.04]
            ax.plot(ends, [-0.55 - 0.5 * place] * 2, color="#333333", linewidth=3.2, clip_on=False)
        _names(ax, ranks, first_name)
        told = "Bars: not told apart by Wilcoxon's tests with Holm's correction"
        ax.text(
            0.5,
            0.0,
            f"{told} at {result.alpha:g}, {result.n_blocks} blocks",
            color=GREY,
            fontsize=8,
            ha="center",
            transform=ax.transAxes,
        )
        _title(figure, "Mean ranks", result)
        save(figure, stem)


def _axis(ax: Axes, methods: int) -> None:
    ax.plot([1, methods], [0, 0], color="black", linewidth=0.9, clip_on=False)
    for rank in range(1, methods + 1):
        ax.plot([rank, rank], [0, 0.2], color="black", linewidth=0.9, clip_on=False)
        ax.text(rank, 0.3, str(rank), fontsize=8, ha="center", va="bottom")


def _distance(ax: Axes, result: Statistics) -> None:
    """Nemenyi's distance, a test after Friedman's: where that finds nothing, no distance says anything."""
    overall = result.friedman
    if isinstance(overall, Friedman) and overall.p > result.alpha:
        told = f"Friedman's test finds no difference (p = {overall.p:.2g})"
        ax.text(1, 1.35, told, color=GREY, fontsize=8, va="center")
        return
    length = result.nemenyi
    ax.plot([1, 1 + length], [1.35, 1.35], "|-", color=GREY, linewidth=1.1, markersize=6, clip_on=False)
    ax.text(
        1 + length, 1.35, f"  Nemenyi's critical difference {length:.2f}", color=GREY, fontsize=8, va="center"
    )


def _names(ax: Axes, ranks: pd.Series, first: float) -> None:
    """Names left and right of the axis, the outermost ranks nearest to it: no line crosses another's turn."""
    half = math.ceil(len(ranks) / 2)
    for place, (query, rank) in enumerate(ranks.items()):
        color, marker, line = style_of(str(query))
        left = place < half
        y = -first - (place if left else len(ranks) - 1 - place)
        edge = 1 - 0.02 * len(ranks) if left else len(ranks) * 1.02
        ax.plot([rank, rank, edge], [0, y, y], linestyle=line, color=color, linewidth=1.2, clip_on=False)
        ax.plot(rank, 0, marker, color=color, markersize=5, clip_on=False, zorder=3)
        name = f"{method_name(str(query))}  {rank:.2f}"
        gap = -0.02 * len(ranks) if left else 0.02 * len(ranks)
        ax.text(edge + gap, y, name, ha="right" if left else "left", va="center", clip_on=False)


def win_matrix(result: Statistics, wins: Wins, stem: Path) -> None:
    """How often row beats column, and under it how often each column is beaten by all others together."""
    names = [method_name(query) for query in wins.matrix.columns.tolist()]
    n = len(names)
    values = wins.matrix.to_numpy(float, copy=True)
    np.fill_diagonal(values, np.nan)
    with matplotlib.rc_context(RC):
        across, down = SQUARE * n, SQUARE * (n + 1.25)
        figure = Figure(figsize=(max(across + 1.9, 5.2), down + 1.75))
        width, height = figure.get_size_inches()
        ax = figure.add_axes((1.5 / width, 1.25 / height, across / width, down / height))
        _cells(ax, values, np.arange(n + 1), wins.points)
        _cells(ax, wins.beaten.to_numpy()[None], np.array([n + 0.25, n + 1.25]), wins.against)
        ax.set_ylim(n + 1.25, 0)
        ax.set_xticks(np.arange(n) + 0.5, names, rotation=40, ha="right", rotation_mode="anchor")
        ax.set_yticks([*(np.arange(n) + 0.5), n + 0.75], [*names, f"beaten, of {wins.against}"])
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        _title(figure, "Wins", result)
        text = (
            f"Row beats column: at how many of {wins.points} points of the curves of {wins.settings} "
            f"settings; equal methods: {wins.by_chance:.2g}"
        )
        figure.text(0.12 / width, 0.1 / height, text, color=GREY, fontsize=8)
        save(figure, stem)


def _cells(ax: Axes, values: np.ndarray, rows: np.ndarray, most: int) -> None:
    """Coloured squares with their numbers; a square without a number stays grey."""
    columns = np.arange(values.shape[1] + 1)
    ax.set_facecolor("white")
    ax.pcolormesh(
        columns,
        rows,
        np.ma.masked_invalid(values),
        cmap=WINS.with_extremes(bad="#dddddd"),
        vmin=0,
        vmax=most,
        edgecolors="white",
        linewidth=0.8,
    )
    for (row, column), value in np.ndenumerate(values):
        if math.isfinite(value):
            color = "white" if value > most / 2 else "black"
            ax.text(
                column + 0.5,
                float(rows[row]) + 0.5,
                f"{value:.0f}",
                fontsize=8,
                ha="center",
                va="center",
                color=color,
            )


def _title(figure: Figure, what: str, result: Statistics) -> None:
    scale = "" if result.scale == "paper" else f" · scale {result.scale}"
    names = f"{what} · {TARGETS[result.target]} · {mitigation_name(result.mitigation)}"
    title(figure, f"{names}{scale}", left=0.12)
