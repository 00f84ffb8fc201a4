"""Our values against the paper's in one picture, SVG and PNG: each point links to its row on the page."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mindgap.results.errata import DETAIL
from mindgap.results.figures import GREY, RC, save
from mindgap.results.names import dataset_name
from mindgap.results.paper import PAPER_DATASETS, WEAK

# Told apart by colour-blind readers (Okabe and Ito).
COLOURS = dict(
    zip(
        PAPER_DATASETS.values(),
        ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#0072B2", "#D55E00"),
        strict=True,
    )
)
AXIS = "mean accuracy along the curve, share of the ceiling"


def scatter(comparison: pd.DataFrame, stem: Path, page: str = "comparison.html") -> None:
    """`stem`.svg and .png of the cells of Tables 7 to 16 that we have runs of: paper across, ours upwards.

    Points of the SVG link to `page`#anchor, with the anchors of `compare`.
    """
    shown = comparison[(comparison["table"] >= DETAIL) & (comparison["n_seeds"] > 0)]
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(7.6, 6.0))
        ax = figure.add_axes((0.08, 0.09, 0.72, 0.84))
        ax.plot([0, 1], [0, 1], color=GREY, linewidth=0.9, linestyle=":", zorder=1)
        for dataset in (name for name in COLOURS if name in set(shown["dataset"])):
            part = shown[shown["dataset"] == dataset]
            is_weak = part["subset"] == WEAK.get(dataset)
            _bars(ax, part, COLOURS[dataset])
            _points(ax, part[~is_weak], "white", COLOURS[dataset], page, f"points-{dataset}")
            _points(ax, part[is_weak], COLOURS[dataset], COLOURS[dataset], page, f"points-{dataset}-weak")
        _labels(ax, shown)
        save(figure, stem)


def _bars(ax: Axes, part: pd.DataFrame, colour: str) -> None:
    """One standard deviation each way; none where one seed leaves it unknown."""
    x, y = part["paper_mean_accuracy"].to_numpy(), part["ours_mean_accuracy"].to_numpy()
    dx = part["paper_mean_accuracy_std"].to_numpy()
    dy = part["ours_mean_accuracy_std"].fillna(0).to_numpy()
    across = np.stack([np.stack([x - dx, y], -1), np.stack([x + dx, y], -1)], 1)
    upwards = np.stack([np.stack([x, y - dy], -1), np.stack([x, y + dy], -1)], 1)
    lines = [*across, *upwards]
    ax.add_collection(LineCollection(lines, colors=colour, linewidths=0.7, alpha=0.45, zorder=2))


def _points(ax: Axes, part: pd.DataFrame, face: str, edge: str, page: str, gid: str) -> None:
    x, y = part["paper_mean_accuracy"], part["ours_mean_accuracy"]
    points = ax.scatter(x, y, s=20, facecolors=face, edgecolors=edge, linewidths=0.9, zorder=3)
    points.set_urls([f"{page}#{anchor}" for anchor in part["anchor"]])
    points.set_gid(gid)


def _labels(ax: Axes, shown: pd.DataFrame) -> None:
    # An accuracy measured on a test set can exceed a ceiling that is an expectation.
    top = max([1.0, *shown["ours_mean_accuracy"]]) * 1.02
    ax.set_xlim(0, top)
    ax.set_ylim(0, top)
    ax.set_aspect("equal")
    ax.set_xlabel(f"{AXIS}: paper")
    ax.set_ylabel(f"{AXIS}: ours")
    ax.grid(color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    scales = sorted(shown["scale"].unique())
    ax.set_title(_title(scales, len(shown)), loc="left", fontsize=10, weight="bold", pad=10)
    if shown.empty:
        return
    keys = [
        _key(dataset_name(name), COLOURS[name], COLOURS[name])
        for name in COLOURS
        if name in set(shown["dataset"])
    ]
    keys += [_key("weak modality", GREY, GREY), _key("other subsets", "white", GREY)]
    # Beside the axes: points may lie anywhere in them.
    ax.legend(
        handles=keys,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        fontsize=8,
        handletextpad=0.2,
    )


def _title(scales: list[str], count: int) -> str:
    if not scales:
        return "None of the paper's values has a run yet"
    if scales == ["paper"]:
        return f"Ours against the paper, scale paper: {count} of 630 values"
    return f"Counterparts at scale {' and '.join(scales)}: compare patterns, not values"


def _key(label: str, face: str, edge: str) -> Line2D:
    return Line2D([], [], linestyle="", marker="o", markerfacecolor=face, markeredgecolor=edge, label=label)
