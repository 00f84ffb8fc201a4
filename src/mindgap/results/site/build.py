"""The whole report from the curves: everything is computed and checked before the first file is written."""

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from mindgap.results import comparison_figures, figures, statistics_figures, tables
from mindgap.results.curves import Selection
from mindgap.results.metrics import all_metrics, few_metrics, plot_points
from mindgap.results.reading import parts_of
from mindgap.results.site.content import Content, Inputs, content_of
from mindgap.results.site.page import render_comparison, render_index
from mindgap.results.statistics import TARGETS, as_tables, six_digits

FOLDERS = ("tables", "figures", "plots")


def output_names(datasets: Sequence[str], regimes: Sequence[str], mitigations: Sequence[str]) -> list[str]:
    """What the files of a report of these are called, below its folder: regular expressions."""
    names = (map(re.escape, some) for some in (datasets, regimes, mitigations, TARGETS))
    dataset, regime, mitigation, target = map("|".join, names)
    return [
        r"(index|comparison)\.html|metrics(_full)?\.json|plots/curves\.csv",
        rf"tables/(((measured-)?({dataset})|weak|rank_sums)-({mitigation})|measured-({dataset})|paper-table-\d+)\.({'|'.join(tables.RENDERERS)})",
        r"tables/(aulc|claims|detectable|gate|mitigations|preregistered|search|speed_up|(comparison|sensitivity|statistics)(_[a-z_]+)?)\.csv",
        rf"figures/((curves|bars|bought)-({dataset})-({mitigation})|mitigations-({dataset})|comparison)\.(svg|png)",
        rf"figures/(ranks|wins)-({mitigation})-({target})\.(svg|png)",
        rf"validation/((curves|measured)-({dataset})-({regime})|aulc)\.html",
    ]


def build_report(inputs: Inputs, out_dir: Path, paper_dir: Path, selection: Selection) -> None:
    """Write tables/, figures/, plots/, two files of metrics, index.html and comparison.html under `out_dir`.

    The three folders are emptied first, so that nothing of an older selection is left. Raises ReportError.
    """
    content = content_of(inputs, paper_dir, selection)
    out_dir = Path(out_dir)
    for name in FOLDERS:
        shutil.rmtree(out_dir / name, ignore_errors=True)
        (out_dir / name).mkdir(parents=True)
    for name, text in table_files(content):
        _write(out_dir / "tables" / name, text)
    _write(out_dir / "plots" / "curves.csv", _csv(plot_points(inputs.curves, selection)))
    metrics = all_metrics(content.table, inputs.curves, selection)
    _write(out_dir / "metrics.json", _json(few_metrics(metrics, selection)))
    _write(out_dir / "metrics_full.json", _json(metrics))
    drawn = all_figures(content, out_dir / "figures")
    _write(out_dir / "index.html", render_index(content, drawn))
    _write(out_dir / "comparison.html", render_comparison(content))


def table_files(content: Content) -> Iterator[tuple[str, str]]:
    """Names and texts of all files in tables/."""
    for one, (ending, render) in product([*content.tables, *content.paper_tables], tables.RENDERERS.items()):
        yield f"{one.name}.{ending}", render(one)
    yield "aulc.csv", _csv(content.table)
    yield "comparison.csv", _csv(content.comparison)
    yield "comparison_summary.csv", _csv(content.summary)
    yield "comparison_ranks.csv", _csv(content.ranks)
    yield "claims.csv", _csv(content.claims)
    yield "gate.csv", _csv(six_digits(content.gate.rows))
    yield "detectable.csv", _csv(six_digits(content.detectable))
    yield "speed_up.csv", _csv(six_digits(content.speed_ups))
    for name, frame in as_tables(content.statistics).items():
        yield f"statistics_{name}.csv", _csv(frame)
    yield "mitigations.csv", _csv(six_digits(content.effects))
    if len(content.preregistered):
        yield "preregistered.csv", _csv(six_digits(content.preregistered))
    if len(content.inputs.searches):
        yield "search.csv", _csv(content.inputs.searches)
    for asked in content.sensitivity:
        yield f"{asked.name}.csv", _csv(asked.queries)
        yield f"{asked.name}_over_methods.csv", _csv(asked.methods)
        yield f"{asked.name}_bald.csv", _csv(asked.lead)


def all_figures(content: Content, folder: Path) -> Mapping[tuple[str, str], list[str]]:
    """Draw everything; the names of the statistics' figures by mitigation and target."""
    keys, selection = ["dataset", "mitigation"], content.selection
    areas = dict(iter(content.table.groupby(keys, sort=False)))
    for key, part in parts_of(content.inputs.curves, keys):
        if not content.has_figures(*key):
            continue
        subsets, weak, scale = content.order[key[0]], selection.weak.get(key[0]), content.scale_of(*key)
        figures.learning_curves(part.assign(scale=scale), subsets, weak, folder / f"curves-{'-'.join(key)}")
        figures.aulc_bars(areas[key].assign(scale=scale), subsets, weak, folder / f"bars-{'-'.join(key)}")
    for dataset, part in content.by_mitigation.items():
        subsets, weak = content.order[dataset], selection.weak.get(dataset)
        shown = part.assign(scale=content.scale)
        figures.learning_curves(shown, subsets, weak, folder / f"mitigations-{dataset}", lines="mitigation")
    for key, part in parts_of(content.bought, keys):
        figures.bought(part.assign(scale=content.scale_of(*key)), folder / f"bought-{'-'.join(key)}")
    comparison_figures.scatter(content.comparison, folder / "comparison", page="../comparison.html")
    results = [replace(r, scale=content.scale) for r in content.statistics]
    return {(r.mitigation, r.target): statistics_figures.draw(r, folder) for r in results}


def _csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, lineterminator="\n")


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
