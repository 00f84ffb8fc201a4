"""Learning curves and AULC bars as SVG and PNG, byte for byte the same on every call.

A figure shows a dataset with or without a mitigation in all regimes, as the paper's Figures 2 to 11 do.
Figures are objects of their own (no pyplot): no global state, nothing left open. A method has one colour,
marker and line wherever it appears; the colours are told apart by colour-blind readers (Okabe and Ito, Tol).
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.transforms import offset_copy

from mindgap.results.names import (
    CONTROLS,
    dataset_name,
    method_name,
    mitigation_name,
    subset_title,
)
from mindgap.results.paper_tables import DETAIL

# Colour, marker, line of each method.
STYLES = {
    "random": ("#000000", "o", "-"),
    "entropy": ("#E69F00", "s", "-"),
    "margin": ("#882255", "P", "-"),
    "bald": ("#56B4E9", "^", "-"),
    "kcenter_greedy": ("#009E73", "D", "-"),
    "badge": ("#0072B2", "v", "-"),
    "bmmal": ("#D55E00", "X", "-"),
    "grace_r": ("#CC79A7", "p", "-"),
    "class_balanced_oracle": ("#777777", "1", "--"),
    "greedy_oracle": ("#777777", "3", ":"),
    "presence_balanced": ("#777777", "2", "-."),
}
# The same of each mitigation, where lines are mitigations.
MITIGATION_STYLES = {
    "none": ("#000000", "o", "-"),
    "moddrop": ("#E69F00", "s", "-"),
    "multi_loss": ("#56B4E9", "^", "-"),
    "ogm_ge": ("#882255", "P", "-"),
    "agm": ("#CC79A7", "p", "-"),
    "mmpareto": ("#0072B2", "v", "-"),
    "opm": ("#D55E00", "X", "-"),
    "pmr": ("#009E73", "D", "-"),
    "shortcut_aware": ("#332288", "1", "-"),
    "unimodal_ensemble": ("#777777", "2", "-."),
    "unimodal_loss": ("#999933", "*", "-"),
    "coteach": ("#44AA99", "3", "-"),
}
# For methods and mitigations of plug-ins, by their names' checksums: fixed whatever else is shown.
SPARE = ("#332288", "#44AA99", "#999933", "#AA4499", "#661100", "#117733")
RC: dict[Any, Any] = {
    "svg.hashsalt": "mindgap",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.titlesize": 10,
    "axes.titley": 1.0,  # or matplotlib searches for a free place
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
    "hatch.linewidth": 0.6,
}
GREY = "#666666"
# The paper's figure of each dataset and mitigation.
FIGURES = {cell: table - 5 for cell, table in DETAIL.items()}
FIGURES_NOTE = (
    "Bars stand as in the paper: by method, in it by subset, in that a bar per regime from left to right."
)
# Of a dataset's subsets in bars; regimes are shades of them.
SUBSET_COLORS = ("#0072B2", "#777777", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#882255")


def style_of(name: str) -> tuple[str, str, str]:
    """Colour, marker and line of a query method or a mitigation."""
    return (
        STYLES.get(name)
        or MITIGATION_STYLES.get(name)
        or (SPARE[zlib.crc32(name.encode()) % len(SPARE)], "*", "-")
    )


def save(figure: Figure, stem: Path) -> None:
    """`stem`.svg and `stem`.png, without dates or versions in them."""
    FigureCanvasSVG(figure).print_svg(stem.with_suffix(".svg"), metadata={"Date": None, "Creator": None})
    FigureCanvasAgg(figure)
    figure.savefig(stem.with_suffix(".png"), dpi=130, metadata={"Software": None})


def title(figure: Figure, text: str, left: float) -> None:
    """The text above all, from `left` inches on: smaller than 11 points where it would not fit."""
    width, height = figure.get_size_inches()
    room = 72 * (width - left - 0.1) / len(text)  # points; a bold letter is two thirds of its size wide
    place = {"x": left / width, "y": 1 - 0.1 / height, "ha": "left", "va": "top"}
    figure.suptitle(text, **place, fontsize=min(11, room / 0.68), weight="bold")


def learning_curves(
    curves: pd.DataFrame, subsets: Sequence[str], weak: str | None, stem: Path, lines: str = "query"
) -> None:
    """Regimes down, a panel per subset, a line per method, a band of one standard deviation over seeds.

    `curves` are the rows of one dataset and mitigation; with "mitigation" for `lines`, of one dataset and
    method, and lines are mitigations.
    """
    regimes = curves["regime"].unique().tolist()
    rows, cols = _grid(len(subsets))
    with matplotlib.rc_context(RC):
        panel = 2.45 if len(regimes) == 1 else 2.1
        figure = Figure(figsize=(2.9 * cols + 0.5, panel * rows * len(regimes) + 0.4))
        axes = figure.subplots(rows * len(regimes), cols, squeeze=False)
        for i, regime in enumerate(regimes):
            block = axes[i * rows : (i + 1) * rows]
            _curve_block(block, curves[curves["regime"] == regime], subsets, lines)
            for ax, subset in zip(block.flat, subsets, strict=False):
                if i == 0 or rows > 1:
                    _panel_title(ax, subset, subsets, weak)
            for ax in block[:, 0]:
                _left_label(figure, ax, "balanced accuracy", regime if len(regimes) > 1 else "")
        for ax in block.flat[max(0, len(subsets) - cols) : len(subsets)]:
            ax.set_xlabel("labelled samples")
        _finish(figure, curves, above=0.62, below=0.55, left=0.66 if len(regimes) == 1 else 0.88, lines=lines)
        save(figure, stem)


def _grid(panels: int) -> tuple[int, int]:
    cols = panels if panels <= 4 else 4
    return math.ceil(panels / cols), cols


def _curve_block(axes: np.ndarray, curves: pd.DataFrame, subsets: Sequence[str], lines: str) -> None:
    """The panels of one regime; numbers of labels stand below the lowest of each column."""
    points = curves.groupby(["subset", lines, "labelled"], sort=False)["balanced_accuracy"]
    stats = points.agg(["mean", "std"])
    tops, cols = _tops(curves, stats), axes.shape[1]
    for i, (ax, subset) in enumerate(zip(axes.flat, subsets, strict=False)):
        _curve_panel(
            ax,
            stats.loc[[subset]].droplevel("subset"),
            curves[curves["subset"] == subset].iloc[0],
            tops[subset],
        )
        ax.tick_params(labelbottom=i + cols >= len(subsets))
    for ax in axes.flat[len(subsets) :]:
        ax.set_visible(False)


def _tops(curves: pd.DataFrame, stats: pd.DataFrame) -> dict[str, float]:
    """The upper end of each panel: the ceiling, or nearer where no curve comes half way; one per ceiling."""
    highest = (stats["mean"] + stats["std"].fillna(0)).groupby("subset").max()
    ceilings = curves.groupby("subset")["ceiling"].first()
    tops = dict[str, float]()
    for subset, ceiling in ceilings.items():
        peers = highest[ceilings[ceilings == ceiling].index].max()
        tops[str(subset)] = max(ceiling, peers) * 1.05 if peers > 0.5 * ceiling else peers * 1.3
    return tops


def _curve_panel(ax: Axes, stats: pd.DataFrame, row: pd.Series, top: float) -> None:
    _lines(ax, stats)
    ax.set_ylim(0, top)
    _level(ax, row["chance"], "chance", top, "right")
    _level(ax, row["ceiling"], "ceiling", top, "left")


def _lines(ax: Axes, stats: pd.DataFrame) -> None:
    """A line and a band per name over numbers of labels; `stats` has mean and std by name and labelled."""
    named = mitigation_name if stats.index.names[0] == "mitigation" else method_name
    for name in stats.index.get_level_values(0).unique():
        color, marker, line = style_of(name)
        part = stats.loc[name].sort_index()
        x, mean, std = part.index.to_numpy(), part["mean"].to_numpy(), part["std"].fillna(0).to_numpy()
        ax.plot(x, mean, line, color=color, marker=marker, markeredgewidth=0.8, label=named(name))
        # One patch: half the time of fill_between.
        ax.fill([*x, *x[::-1]], [*(mean + std), *(mean - std)[::-1]], color=color, alpha=0.10, linewidth=0)
    ax.grid(axis="y", color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.set_xticks(x[:: math.ceil(len(x) / 6)])


def bought(mix: pd.DataFrame, stem: Path) -> None:
    """Regimes down, across the share of the labelled samples that has a modality, and how even classes are.

    `mix` are the rows of `balance.bought` of one dataset and mitigation.
    """
    regimes, panels = mix["regime"].unique().tolist(), mix["panel"].unique().tolist()
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(2.9 * max(2, len(panels)) + 0.5, 2.3 * len(regimes) + 0.4))
        axes = figure.subplots(len(regimes), len(panels), squeeze=False)
        for (i, regime), (j, panel) in product(enumerate(regimes), enumerate(panels)):
            ax, part = axes[i, j], mix[(mix["regime"] == regime) & (mix["panel"] == panel)]
            ax.set_title(panel if i == 0 else "")
            if len(part):
                _lines(ax, part.groupby(["query", "labelled"], sort=False)["value"].agg(["mean", "std"]))
            if j == 0:
                _left_label(figure, ax, "", regime if len(regimes) > 1 else "")
            if i == len(regimes) - 1:
                ax.set_xlabel("labelled samples")
        _finish(figure, mix, above=0.62, below=0.55, left=0.66 if len(regimes) == 1 else 0.88)
        save(figure, stem)


def _level(ax: Axes, value: float, name: str, top: float, side: str) -> None:
    """A dotted line at the level, named at one end, or a word where it lies above the axis."""
    text: dict[str, Any] = {"color": GREY, "fontsize": 7, "ha": side}
    x = 1.0 if side == "right" else 0.01
    if value <= top:
        ax.axhline(value, color=GREY, linestyle=":", linewidth=1.1)
        place, va = (value, "bottom") if value < 0.93 * top else (value - 0.012 * top, "top")
        ax.text(x, place, name, va=va, transform=ax.get_yaxis_transform(), **text)
    else:
        ax.text(x, 1.0, f"{name} {value:g} ↑", va="top", transform=ax.transAxes, **text)


def _panel_title(ax: Axes, subset: str, subsets: Sequence[str], weak: str | None) -> None:
    name = subset_title(subset, subsets)
    ax.set_title(f"{name} (weak)" if subset == weak else name, style="italic" if subset == weak else "normal")


def _left_label(figure: Figure, ax: Axes, label: str, regime: str) -> None:
    """What the axis measures, and before it in bold the regime, if it is to be told from others."""
    ax.set_ylabel(label)
    if regime:
        place = offset_copy(ax.transAxes, figure, x=-0.68)
        ax.text(0, 0.5, regime, weight="bold", size=10, rotation=90, ha="right", va="center", transform=place)


def _finish(
    figure: Figure,
    frame: pd.DataFrame,
    above: float,
    below: float,
    left: float = 0.66,
    gap: float = 0.55,
    lines: str = "query",
) -> None:
    """Title above, legend below, all places in inches: a layout engine would take most of the time.

    The figure comes without its lower margin and the legend's lines; `gap` is between rows of panels, `lines`
    is what the legend names.
    """
    row, regimes = frame.iloc[0], frame["regime"].unique()
    width, height = figure.get_size_inches()
    labels = [ax.get_legend_handles_labels() for ax in figure.axes]
    handles = {name: handle for handles, names in labels for handle, name in zip(handles, names, strict=True)}
    columns = min(len(handles), 5 if width > 7 else 4)
    below += 0.2 * math.ceil(len(handles) / columns)
    height += below
    figure.set_size_inches(width, height)
    grid = figure.axes[0].get_gridspec()
    rows = grid.nrows if grid else 1
    panel = (height - above - below - gap * (rows - 1)) / rows
    figure.subplots_adjust(
        left=left / width,
        right=1 - 0.12 / width,
        top=1 - above / height,
        bottom=below / height,
        wspace=0.24,
        hspace=gap / panel,
    )
    for ax in figure.axes:
        ax.xaxis.set_label_coords(0.5, 0, transform=offset_copy(ax.transAxes, figure, y=-0.26))
        ax.yaxis.set_label_coords(0, 0.5, transform=offset_copy(ax.transAxes, figure, x=-0.4))
    figure.legend(
        handles.values(),
        handles,
        loc="lower center",
        ncols=columns,
        frameon=False,
        fontsize=8,
        bbox_to_anchor=(0.5, 0.0),
        handlelength=2.4,
        columnspacing=1.4,
    )
    other = mitigation_name(row["mitigation"]) if lines == "query" else method_name(row["query"])
    names = [dataset_name(row["dataset"]), other]
    names[1:1] = regimes if len(regimes) == 1 else []
    names += [f"scale {row['scale']}"] * (row["scale"] != "paper")
    title(figure, " · ".join(names), left)


def aulc_bars(tidy: pd.DataFrame, subsets: Sequence[str], weak: str | None, stem: Path) -> None:
    """Bars of AULC with the spread over seeds: groups of methods, in each its subsets, in those the regimes.

    `tidy` are the rows of one dataset and mitigation. Subsets of a low ceiling are scaled; diamonds are the
    published values.
    """
    regimes, queries = tidy["regime"].unique().tolist(), tidy["query"].unique().tolist()
    heights = [_heights(tidy[tidy["regime"] == regime], queries, subsets) for regime in regimes]
    places_RSQ, bar = _places(len(regimes), len(subsets), len(queries))
    with matplotlib.rc_context(RC):
        width = 0.8 + len(queries) * (0.3 + 0.1 * len(subsets) * len(regimes))
        figure = Figure(figsize=(min(12.1, max(6.2, width)), 2.8))
        ax = figure.subplots()
        for place, (one, places_SQ) in enumerate(zip(heights, places_RSQ, strict=True)):
            shade = 1 - 0.55 * (len(regimes) - 1 - place) / max(1, len(regimes) - 1)
            _draw_bars(ax, one, places_SQ, bar, _subset_names(one, subsets, weak), shade)
        for one, places_SQ in zip(heights, places_RSQ, strict=True):
            shown = np.isfinite(one.published_QS.T)
            if shown.any():
                marks = places_SQ[shown], one.published_QS.T[shown]
                ax.plot(*marks, "D", color="white", mec="black", ms=3, mew=0.8, label="published")
        _bar_axes(ax, heights, regimes)
        _finish(figure, tidy, above=0.56, below=0.5)
        save(figure, stem)


def _places(regimes: int, subsets: int, methods: int) -> tuple[np.ndarray, float]:
    """Centres of the bars (regimes x subsets x methods) and their width: a group is 0.86 wide."""
    each = regimes + 0.5  # half a bar between subsets
    bar = 0.86 / (each * subsets - 0.5)
    in_group = np.arange(subsets) * each + np.arange(regimes)[:, None] + 0.5
    return in_group[..., None] * bar - 0.43 + np.arange(methods), bar


def _subset_names(heights: "_Heights", subsets: Sequence[str], weak: str | None) -> list[str]:
    """Names for the legend: "Partial ×10 (weak)"."""
    factors = np.round(heights.factors_S, 6)
    names = [subset_title(subset, subsets) for subset in subsets]
    names = [f"{name} ×{f:g}" if f != 1 else name for name, f in zip(names, factors, strict=True)]
    return [f"{name} (weak)" if s == weak else name for name, s in zip(names, subsets, strict=True)]


@dataclass(frozen=True)
class _Heights:
    """What the bars of one regime show, scaled (Q methods x S subsets); NaN where there is no run."""

    queries: Sequence[str]
    intervals: int
    factors_S: np.ndarray
    means_QS: np.ndarray
    spreads_QS: np.ndarray
    published_QS: np.ndarray
    chances_S: np.ndarray

    @property
    def highest(self) -> float:
        bars = self.means_QS + np.nan_to_num(self.spreads_QS)
        parts = (bars, self.published_QS, self.chances_S)
        return max(float(np.nanmax(part, initial=0.0)) for part in parts)


def _heights(tidy: pd.DataFrame, queries: Sequence[str], subsets: Sequence[str]) -> _Heights:
    levels = tidy.groupby("subset")[["rounds", "chance_aulc", "ceiling_aulc"]].first().loc[list(subsets)]
    intervals = int(levels["rounds"].iloc[0]) - 1
    factors_S = intervals / levels["ceiling_aulc"].to_numpy()
    cells = tidy.set_index(["query", "subset"])
    means_QS, spreads_QS, published_QS = (
        cells[name].unstack().reindex(index=list(queries), columns=list(subsets)).to_numpy() * factors_S
        for name in ("aulc_mean", "aulc_std", "paper_mean")
    )
    chances_S = levels["chance_aulc"].to_numpy() * factors_S
    return _Heights(queries, intervals, factors_S, means_QS, spreads_QS, published_QS, chances_S)


def _draw_bars(
    ax: Axes, heights: _Heights, places_SQ: np.ndarray, bar: float, names: Sequence[str], shade: float
) -> None:
    """The bars of one regime, each with the chance level; those of controls are hatched."""
    controls = [query in CONTROLS for query in heights.queries]
    for place, (x, name) in enumerate(zip(places_SQ, names, strict=True)):
        color = 1 - shade * (1 - np.array(to_rgb(SUBSET_COLORS[place % len(SUBSET_COLORS)])))
        mean, spread = heights.means_QS[:, place], heights.spreads_QS[:, place]
        label = name if shade == 1 else None  # the darkest one stands in the legend
        bars = ax.bar(x, mean, 0.92 * bar, color=color, edgecolor="#444444", linewidth=0.4, label=label)
        for patch, control in zip(bars, controls, strict=True):
            patch.set_hatch("////" if control else None)
        known = np.isfinite(spread)
        ax.errorbar(
            x[known], mean[known], spread[known], fmt="none", ecolor="#333333", elinewidth=0.8, capsize=1.2
        )
        chance = heights.chances_S[place]
        ax.hlines(np.full(len(x), chance), x - bar / 2, x + bar / 2, color="#000000", ls=":", lw=1.0)


def _bar_axes(ax: Axes, heights: Sequence[_Heights], regimes: Sequence[str]) -> None:
    intervals, highest = max(one.intervals for one in heights), max(one.highest for one in heights)
    top = max(intervals, highest) * 1.05 if highest > 0.5 * intervals else highest * 1.25
    fewer = [
        f"{one.intervals} in {r}"
        for one, r in zip(heights, regimes, strict=True)
        if one.intervals < intervals
    ]
    ax.set_ylabel(f"AULC (0 to {'; '.join([str(intervals), *fewer])})")
    names = [method_name(query).replace(" ", "\n") for query in heights[0].queries]
    ax.set_xticks(range(len(names)), names)
    ax.tick_params(axis="x", length=0)
    ax.set_xlim(-0.55, len(names) - 0.45)
    ax.set_ylim(0, top)
    ax.grid(axis="y", color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    told = f"Bars from left to right: {', '.join(regimes)}; " if len(regimes) > 1 else ""
    ax.set_title(f"{told}dotted: chance", loc="left", fontsize=8, color=GREY)
    _level(ax, intervals, "ceiling", top, "right")
