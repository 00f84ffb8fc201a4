"""The page to look at: one HTML file that opens from the file system, needs no network and names no time."""

from collections.abc import Mapping, Sequence

import jinja2
import pandas as pd

from mindgap.data import CREDENTIALED, SOURCES
from mindgap.report.curves import Selection
from mindgap.report.flow import flow_parts
from mindgap.report.names import (
    CONTROLS,
    dataset_name,
    method_name,
    mitigation_name,
    modalities_of,
    subset_name,
)
from mindgap.report.tables import Table

# What a dataset isolates, for readers; one without a text here gets none.
ISOLATES = {
    "missing": "A modality is missing (P1). Two images show the same shape, and the shape is the label. In "
    "training one image is nearly always absent (rare), the other nearly never (frequent); the test set is "
    "complete.",
    "share": "A modality is easier (P2). A CIFAR-10 image and an MNIST digit always tell the same class, and "
    "the digit is far easier to read.",
    "unique": "Information is unique to one modality (P3.2). Two images show the same shape; the label also "
    "asks for the texture, which only the full one shows, so the partial one alone reaches 10 % at most.",
    "synergy": "Information is complementary (P3.3). The label is the texture of one image and the shape of "
    "the other; each alone reaches 10 % at most.",
    "trio": "Redundancy inside a synergy, with three modalities (not in the paper). Two twins show the same "
    "shape, a third image the texture, the label is both: one twin is worthless once the other is there.",
    "food101": "Real data with mostly shared information: an image of a dish and the text of its recipe.",
    "mimic": "Real, imbalanced data: twelve-lead ECG and laboratory values; death within one year.",
}
ABOUT_CONTROLS = {
    "class_balanced_oracle": "The class-balanced oracle reads the pool's labels, which no query method may, "
    "and takes samples of the class with the fewest labels.",
    "presence_balanced": "Presence-balanced looks at no prediction and takes samples of the pattern of "
    "present modalities with the fewest labels; where nothing is missing it is Random.",
}
# The pages that the checks of a rendered dataset leave (`mindgap.expectations`).
RENDERED_CHECKS = ("attributes", "images", "sample", "checks")


def render_page(
    curves: pd.DataFrame,
    table: pd.DataFrame,
    tables: Sequence[Table],
    order: Mapping[str, Sequence[str]],
    selection: Selection,
) -> str:
    """index.html. `table` is the tidy AULC table, `order` the subsets of each dataset as they are shown."""
    loader = jinja2.PackageLoader("mindgap", "report")
    page = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    named = {one.name: one for one in tables}
    runs = run_list(curves)
    return page.get_template("page.html.j2").render(
        selection=selection,
        facts=_facts(selection, len(runs)),
        controls=[ABOUT_CONTROLS.get(name, "") for name in CONTROLS if name in selection.queries],
        overview=[one for one in tables if one.name.startswith(("weak-", "rank_sums-"))],
        datasets=[
            _dataset(name, curves, table, named, order[name], selection) for name in selection.datasets
        ],
        flows=[(dataset_name(name), flow_parts(flow)) for name, flow in selection.flows.items()],
        rounded=[dataset_name(name) for name in CREDENTIALED],
        skipped=[(dataset_name(name), line) for name, line in selection.skipped.items()],
        runs=runs,
        checks=_checks(selection),
    )


def run_list(curves: pd.DataFrame) -> list[dict]:
    """One entry per run with its first and last number of labels."""
    keys = ["dataset", "regime", "mitigation", "query", "seed", "run", "rounds"]
    labels = curves.groupby(keys, sort=False, as_index=False)["labelled"].agg(first="min", last="max")
    return labels.to_dict("records")


def _facts(selection: Selection, runs: int) -> list[tuple[str, str]]:
    return [
        ("Datasets", ", ".join(map(dataset_name, selection.datasets))),
        ("Regimes", ", ".join(selection.regimes)),
        ("Methods", ", ".join(method_name(q) for q in selection.queries if q not in CONTROLS)),
        *[("Controls", ", ".join(map(method_name, c))) for c in [_controls(selection)] if c],
        ("Mitigations", ", ".join(map(mitigation_name, selection.mitigations))),
        ("Seeds", ", ".join(map(str, selection.seeds))),
        ("Runs", str(runs)),
    ]


def _controls(selection: Selection) -> list[str]:
    return [name for name in selection.queries if name in CONTROLS]


def _dataset(name, curves, table, named, subsets, selection) -> dict:
    frame = curves[curves["dataset"] == name]
    modalities = modalities_of(list(subsets))
    weak = selection.weak.get(name)
    chance = float(frame["chance"].iloc[0])
    areas = table.loc[table["dataset"] == name, "chance_aulc"].unique()
    parts = []
    for mitigation in selection.mitigations:
        figures = [
            f for regime in selection.regimes for f in _figures(name, regime, mitigation, selection.scale)
        ]
        title = mitigation_name(mitigation)
        parts.append(
            {
                "title": title[0].upper() + title[1:],
                "table": named[f"{name}-{mitigation}"],
                "figures": figures,
            }
        )
    return {
        "key": name,
        "name": dataset_name(name),
        "isolates": ISOLATES.get(name, ""),
        "modalities": [subset_name(modality, modalities) for modality in modalities],
        "weak": subset_name(weak, modalities) if weak else "",
        "chance": chance,
        "levels": ", ".join(f"{area:.3g}" for area in areas),
        "parts": parts,
    }


def _figures(dataset: str, regime: str, mitigation: str, scale: str) -> list[dict]:
    what = f"{dataset_name(dataset)}, {regime} regime, {mitigation_name(mitigation)}, {scale} scale"
    stem = f"{dataset}-{regime}-{mitigation}"
    return [
        {
            "stem": f"curves-{stem}",
            "alt": f"Learning curves of every method on every subset of modalities: {what}",
            "caption": f"Learning curves: {what}.",
        },
        {
            "stem": f"bars-{stem}",
            "alt": f"Bars of AULC of every method, grouped by subset of modalities: {what}",
            "caption": f"AULC: {what}.",
        },
    ]


def _checks(selection: Selection) -> list[tuple[str, list[tuple[str, str]]]]:
    """What was checked, and the pages (title, name) that say so."""
    lines = []
    for dataset in selection.datasets:
        pages = []
        if dataset not in CREDENTIALED:  # whose pages stay in its own project
            kind, parts = ("rendered", RENDERED_CHECKS)
            if dataset in SOURCES:
                kind, parts = dataset, SOURCES[dataset].checks
            pages = [("flow", f"flow-{dataset}"), *((part, f"{kind}_{part}-{dataset}") for part in parts)]
        pages += [(f"curves {regime}", f"curves-{dataset}-{regime}") for regime in selection.regimes]
        lines.append((dataset_name(dataset), pages))
    return [*lines, ("AULC", [("table", "aulc")])]
