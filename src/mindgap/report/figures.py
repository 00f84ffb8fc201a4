"""Learning curves and AULC bars as SVG and PNG, byte for byte the same on every call.

Figures are objects of their own (no pyplot): no global state, nothing left open. A method has one colour,
marker and line wherever it appears; the colours are told apart by colour-blind readers (Okabe and Ito, Tol).
"""

import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from mindgap.report.names import CONTROLS, dataset_name, method_name, mitigation_name, subset_name

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
    "presence_balanced": ("#777777", "2", "-."),
}
# For methods of plug-ins, by their names' checksums: fixed whatever else is shown.
SPARE = ("#332288", "#44AA99", "#999933", "#AA4499", "#661100", "#117733")
RC = {
    "svg.hashsalt": "mindgap",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.titlesize": 10,
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
    "hatch.linewidth": 0.6,
}
GREY = "#666666"


def method_style(query: str) -> tuple[str, str, str]:
    """Colour, marker and line of a method."""
    return STYLES.get(query) or (SPARE[zlib.crc32(query.encode()) % len(SPARE)], "*", "-")


def save(figure: Figure, stem: Path) -> None:
    """`stem`.svg and `stem`.png, without dates or versions in them."""
    FigureCanvasSVG(figure).print_svg(stem.with_suffix(".svg"), metadata={"Date": None, "Creator": None})
    FigureCanvasAgg(figure)
    figure.savefig(stem.with_suffix(".png"), dpi=130, metadata={"Software": None})


def learning_curves(curves: pd.DataFrame, subsets: Sequence[str], weak: str | None, stem: Path) -> None:
    """A panel per subset, a line per method, a band of one standard deviation over seeds.

    `curves` are the rows of one dataset, regime and mitigation.
    """
    rows, cols = _grid(len(subsets))
    stats = curves.groupby(["subset", "query", "labelled"], sort=False)["balanced_accuracy"].agg(
        ["mean", "std"]
    )
    tops = _tops(curves, stats)
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(2.9 * cols + 0.5, 2.45 * rows + 1.15))
        axes = figure.subplots(rows, cols, squeeze=False, sharex=True).flatten()
        for ax, subset in zip(axes, subsets, strict=False):
            _curve_panel(ax, stats.loc[subset], curves[curves["subset"] == subset].iloc[0], tops[subset])
            _panel_title(ax, subset, subsets, weak)
        for ax in axes[len(subsets) :]:
            ax.set_visible(False)
        for i in range(len(subsets)):
            axes[i].tick_params(labelbottom=i + cols >= len(subsets))
            if i + cols >= len(subsets):
                axes[i].set_xlabel("labelled samples")
        for ax in axes[::cols]:
            ax.set_ylabel("balanced accuracy")
        _finish(figure, axes[0], curves.iloc[0], above=0.62, below=0.55)
        save(figure, stem)


def _grid(panels: int) -> tuple[int, int]:
    cols = panels if panels <= 4 else 4
    return math.ceil(panels / cols), cols


def _tops(curves: pd.DataFrame, stats: pd.DataFrame) -> dict[str, float]:
    """The upper end of each panel: the ceiling, or nearer where no curve comes half way; one per ceiling."""
    highest = (stats["mean"] + stats["std"].fillna(0)).groupby("subset").max()
    ceilings = curves.groupby("subset")["ceiling"].first()
    tops = {}
    for subset, ceiling in ceilings.items():
        peers = highest[ceilings[ceilings == ceiling].index].max()
        tops[subset] = max(ceiling, peers) * 1.05 if peers > 0.5 * ceiling else peers * 1.3
    return tops


def _curve_panel(ax, stats: pd.DataFrame, row: pd.Series, top: float) -> None:
    for query in stats.index.get_level_values("query").unique():
        color, marker, line = method_style(query)
        part = stats.loc[query].sort_index()
        x, mean, std = part.index.to_numpy(), part["mean"].to_numpy(), part["std"].fillna(0).to_numpy()
        ax.plot(x, mean, line, color=color, marker=marker, markeredgewidth=0.8, label=method_name(query))
        ax.fill_between(x, mean - std, mean + std, color=color, alpha=0.10, linewidth=0)
    ax.set_ylim(0, top)
    ax.grid(axis="y", color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.set_xticks(x[:: math.ceil(len(x) / 6)])
    _level(ax, row["chance"], "chance", top)
    _level(ax, row["ceiling"], "ceiling", top)


def _level(ax, value: float, name: str, top: float) -> None:
    """A dotted line at the level, or a word where it lies above the axis."""
    if value <= top:
        ax.axhline(value, color=GREY, linestyle=":", linewidth=1.1)
        place, va = (value, "bottom") if value < 0.93 * top else (value - 0.012 * top, "top")
        ax.text(
            1.0, place, name, color=GREY, fontsize=7, ha="right", va=va, transform=ax.get_yaxis_transform()
        )
    else:
        text = f"{name} {value:g} ↑"
        ax.text(1.0, 1.0, text, color=GREY, fontsize=7, ha="right", va="top", transform=ax.transAxes)


def _panel_title(ax, subset: str, subsets: Sequence[str], weak: str | None) -> None:
    name = subset_name(subset, _modalities(subsets))
    ax.set_title(f"{name} (weak)" if subset == weak else name, style="italic" if subset == weak else "normal")


def _modalities(subsets: Sequence[str]) -> tuple[str, ...]:
    return tuple(max(subsets, key=lambda subset: subset.count("+")).split("+"))


def _finish(figure: Figure, ax, row: pd.Series, above: float, below: float) -> None:
    """Title above, legend below, margins in inches: a layout engine would take most of the time."""
    width, height = figure.get_size_inches()
    handles, labels = ax.get_legend_handles_labels()
    columns = min(len(labels), 5 if width > 7 else 4)
    lines = math.ceil(len(labels) / columns)
    below += 0.2 * lines
    height += below - 0.75
    figure.set_size_inches(width, height)
    figure.subplots_adjust(
        left=0.66 / width,
        right=1 - 0.12 / width,
        top=1 - above / height,
        bottom=below / height,
        wspace=0.24,
        hspace=0.3,
    )
    figure.legend(
        handles,
        labels,
        loc="lower center",
        ncols=columns,
        frameon=False,
        fontsize=8,
        bbox_to_anchor=(0.5, 0.0),
        handlelength=2.4,
        columnspacing=1.4,
    )
    scale = "" if row["scale"] == "paper" else f" · {row['scale']} scale"
    title = f"{dataset_name(row['dataset'])} · {row['regime']} · {mitigation_name(row['mitigation'])}{scale}"
    figure.suptitle(
        title, x=0.66 / width, y=1 - 0.1 / height, ha="left", va="top", fontsize=11, weight="bold"
    )


def aulc_bars(tidy: pd.DataFrame, subsets: Sequence[str], weak: str | None, stem: Path) -> None:
    """Bars of AULC in groups of subsets, with the spread over seeds; subsets of a low ceiling are scaled.

    `tidy` are the rows of one dataset, regime and mitigation. Published values are diamonds.
    """
    queries = tidy["query"].unique().tolist()
    cells = tidy.set_index(["query", "subset"])
    intervals = int(tidy["rounds"].iloc[0]) - 1
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(max(6.2, min(12.1, 0.8 + len(subsets) * (0.17 * len(queries) + 0.35))), 3.4))
        ax = figure.subplots()
        factors = np.array([intervals / cells.at[(queries[0], s), "ceiling_aulc"] for s in subsets])
        means, spreads = (
            _bar_heights(cells, queries, subsets, factors, n) for n in ("aulc_mean", "aulc_std")
        )
        _draw_bars(ax, queries, means, spreads)
        theirs = _bar_heights(cells, queries, subsets, factors, "paper_mean")
        if np.isfinite(theirs).any():
            ax.plot(*_marks(theirs), "D", color="white", mec="black", ms=3.5, mew=0.9, label="published")
        chances = factors * [cells.at[(queries[0], s), "chance_aulc"] for s in subsets]
        highest = np.nanmax(
            [(means + np.nan_to_num(spreads)).max(), np.nan_to_num(theirs).max(), chances.max()]
        )
        _bar_axes(ax, subsets, weak, factors, chances, intervals, highest)
        _finish(figure, ax, tidy.iloc[0], above=0.42, below=0.5 if len(subsets) > 3 else 0.35)
        save(figure, stem)


def _bar_heights(cells: pd.DataFrame, queries, subsets, factors: np.ndarray, name: str) -> np.ndarray:
    """Methods x subsets, scaled."""
    return np.array([[cells.at[(q, s), name] for s in subsets] for q in queries]) * factors


def _places(methods: int, groups: int) -> np.ndarray:
    """Centres of the bars (methods x groups): a group is 0.86 wide."""
    return np.arange(groups) + ((np.arange(methods) + 0.5) / methods - 0.5)[:, None] * 0.86


def _marks(heights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    shown = np.isfinite(heights)
    return _places(*heights.shape)[shown], heights[shown]


def _draw_bars(ax, queries: Sequence[str], means: np.ndarray, spreads: np.ndarray) -> None:
    places = _places(*means.shape)
    for query, x, mean, spread in zip(queries, places, means, spreads, strict=True):
        control = query in CONTROLS
        ax.bar(
            x,
            mean,
            width=0.86 / len(queries) * 0.9,
            color="white" if control else method_style(query)[0],
            edgecolor=method_style(query)[0],
            hatch={"--": "////", "-.": "\\\\\\\\"}.get(method_style(query)[2]) if control else None,
            linewidth=0.8,
            label=method_name(query),
        )
        known = np.isfinite(spread)
        ax.errorbar(
            x[known], mean[known], spread[known], fmt="none", ecolor="#333333", elinewidth=0.9, capsize=1.5
        )


def _bar_axes(ax, subsets, weak, factors, chances, intervals: int, highest: float) -> None:
    top = max(intervals, highest) * 1.05 if highest > 0.5 * intervals else highest * 1.25
    modalities = _modalities(subsets)
    names = [subset_name(subset, modalities).replace(" + ", "\n+ ") for subset in subsets]
    names = [
        f"{n} ×{f:g}" if round(f, 6) != 1 else n for n, f in zip(names, np.round(factors, 6), strict=True)
    ]
    ax.set_xticks(range(len(subsets)), names)
    for label, subset in zip(ax.get_xticklabels(), subsets, strict=True):
        label.set_style("italic" if subset == weak else "normal")
    ax.tick_params(axis="x", length=0)
    ax.set_xlim(-0.55, len(subsets) - 0.2)
    ax.set_ylim(0, top)
    ax.set_ylabel(f"AULC (0 to {intervals})")
    ax.grid(axis="y", color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    for place, chance in enumerate(chances):
        ax.plot([place - 0.47, place + 0.47], [chance, chance], ":", color=GREY, linewidth=1.2)
    ax.text(len(subsets) - 0.5, chances[-1], "chance", color=GREY, fontsize=7, ha="left", va="center")
    _level(ax, intervals, "ceiling", top)
