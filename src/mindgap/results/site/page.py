"""The pages to look at: HTML files that open from the file system, need no network and name no time."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import jinja2
import pandas as pd

from mindgap.data import CREDENTIALED, RENDERED, SOURCES
from mindgap.data.quintfeatures.images import ALL
from mindgap.data.storage import OLDER
from mindgap.results import (
    claims,
    comparison,
    figures,
    gate,
    permutation,
    power,
    preregistered,
    rank_comparison,
    statistics,
    tables,
)
from mindgap.results.curves import Selection
from mindgap.results.diagnosis import POOLED
from mindgap.results.flow import flow_parts
from mindgap.results.names import (
    CONTROLS,
    NOT_RECORDED,
    OUR_MITIGATIONS,
    dataset_name,
    joint_of,
    method_name,
    mitigation_name,
    subset_title,
)
from mindgap.results.paper import REGIMES, SHOWN_WITH, SUBSETS, WEAK, not_in_paper, printed_factor
from mindgap.results.provenance import Origin
from mindgap.results.reading import parts_of, records_of, rows_of
from mindgap.results.scales import prepare_of
from mindgap.results.site import environment
from mindgap.results.site.content import Content
from mindgap.results.statistics import Friedman, Statistics, Wins

# What a dataset isolates, for readers; one without a text here gets none. `most`: its lowest ceiling, in %.
ISOLATES = {
    "missing": "A modality is missing (P1). Two images show the same shape, and the shape is the label. In "
    "training one image is nearly always absent (rare), the other nearly never (frequent); the test set is "
    "complete.",
    "share": "A modality is easier (P2). A CIFAR-10 image and an MNIST digit always tell the same class, and "
    "the digit is far easier to read.",
    "share_shortcut": "A shortcut is planted (not in the paper). The label is the class of a CIFAR-10 "
    "image; an MNIST digit tells it in most training samples, and in the test set by chance.",
    "unique": "Information is unique to one modality (P3.2). Two images show the same shape; the label also "
    "asks for the texture, which only the full one shows, so the partial one alone reaches {most:.3g} % at "
    "most.",
    "synergy": "Information is complementary (P3.3). The label is the texture of one image and the shape of "
    "the other; each alone reaches {most:.3g} % at most.",
    "trio": "Redundancy inside a synergy, with three modalities (not in the paper). Two twins show the same "
    "shape, a third image the texture, the label is both: one twin is worthless once the other is there.",
    "food101": "Real data with mostly shared information: an image of a dish and the text of its recipe.",
    "mimic": "Real, imbalanced data: twelve-lead ECG and laboratory values; death within one year.",
}
ABOUT_CONTROLS = {
    "class_balanced_oracle": "The class-balanced oracle reads the pool's labels, which no query method may, "
    "and takes samples of the class with the fewest labels.",
    "greedy_oracle": "The greedy oracle reads the pool's labels too, and takes the sample whose true "
    "gradient of the linear layer lowers the validation loss most, on this round's features: no bound for "
    "the training that follows.",
    "presence_balanced": "Presence-balanced looks at no prediction and takes samples of the pattern of "
    "present modalities with the fewest labels; where nothing is missing it is Random.",
}
# What the suites of a rendered dataset check (`mindgap.data.quintfeatures.checks.tables`).
RENDERED_CHECKS = ("attributes", "images", "sample", "checks")


Place = tuple[str, str, str]  # dataset, regime, mitigation
MANY = 3  # settings that differ in the mitigation alone are told one by one up to so many


def render_index(content: Content, drawn: Mapping[tuple[str, str], Sequence[str]]) -> str:
    """index.html; `drawn` names the figures of each mitigation and target of the statistics."""
    selection, curves = content.selection, content.inputs.curves
    runs = run_list(curves)
    told = _shared(content) | {
        "best_rule": tables.BEST_RULE,
        "about": content.inputs.about,
        "facts": _facts(selection, len(runs)),
        "controls": [ABOUT_CONTROLS.get(name, "") for name in CONTROLS if name in selection.queries],
        "gate": _gate(content),
        "overview": [one for one in content.tables if one.name.startswith(("weak-", "rank_sums-"))],
        "datasets": [_dataset(name, content) for name in selection.datasets],
        "figures_of": figures.FIGURES,
        "beyond": not_in_paper(selection.queries, selection.mitigations),
        "effects": _effects(content),
        "by_mitigation": list(content.by_mitigation),
        "baseline": statistics.BASELINE,
        "preregistered": list(rows_of(content.preregistered)),
        "passed": _passed(content.preregistered),
        "margin": preregistered.MOST_LOST,
        "fewest": preregistered.FEWEST_SEEDS,
        "held_out": preregistered.HELD_OUT,
        "judged": bool((content.claims["verdict"] != claims.UNKNOWN).any()),
        "claims": records_of(content.claims),
        "tally": _tally(content.claims),
        "wide": claims.WIDE,
        "claims_note": claims.NOTE,
        "figures_note": figures.FIGURES_NOTE,
        "statistics": [_statistics(r, drawn.get((r.mitigation, r.target), ())) for r in content.statistics],
        "explanations": statistics.EXPLANATIONS,
        "ranges": _detectable_ranges(content),
        "alpha": statistics.ALPHA,
        "share_found": power.POWER,
        "searches": content.inputs.searches,
        "diagnosis": _diagnosis(content.inputs.diagnosis),
        "flows": [(dataset_name(name), flow_parts(flow)) for name, flow in selection.flows.items()],
        "rounded": [dataset_name(name) for name in CREDENTIALED],
        "skipped": [(dataset_name(name), line) for name, line in selection.skipped.items()],
        "origins": content.inputs.origins,
        "runs": runs,
        "checks": _checks(selection, bool(content.inputs.about)),
    }
    return _template("page.html.j2", content).render(told)


def render_comparison(content: Content) -> str:
    """comparison.html: each published table and value beside ours."""
    selection = content.selection
    ranked_there = [(name, regime, SHOWN_WITH[name]) for name, regime in product(WEAK, REGIMES)]
    left_out = selection.unranked_note(ranked_there)
    values = content.comparison.assign(factor=printed_factor(content.comparison))
    told = _shared(content) | {
        "notes": comparison.NOTES,
        "rank_notes": [*rank_comparison.RANK_NOTES, *filter(None, [left_out])],
        "values": [(int(table), list(rows_of(part))) for table, part in parts_of(values, "table", sort=True)],
    }
    return _template("comparison.html.j2", content).render(told)


def _shared(content: Content) -> dict[str, Any]:
    """What both pages draw: all fields of the content by their names, and the scale with a word on it."""
    selection = replace(content.selection, scale=content.scale)
    return vars(content) | {
        "selection": selection,
        "base": content.selection.scale,
        "heading": _heading(content),
        "compared": _compared(content.comparison),
        "not_ranked": selection.unranked_note(selection.unranked),
    }


def _heading(content: Content) -> str:
    """The scale, and the first of the settings that differ from its own."""
    changed = [text for text in content.changes if not text.startswith(NOT_RECORDED)]
    named = "; ".join(changed[:3]) + "; …" * (len(changed) > 3)
    return f"{content.scale}: {named}" if changed else content.scale


def _template(name: str, content: Content) -> jinja2.Template:
    """A template with its filters: how names and numbers are told."""
    made = environment()
    made.filters |= {"number": number, "signed": signed, "spread": spread, "p": p_value}
    made.filters |= {"dataset": dataset_name, "mitigation": mitigation_name, "method": method_name}
    made.filters |= {"own": _own_name, "paper_cell": _paper_cell}
    made.filters["setting"] = lambda row: _setting(row.dataset, row.regime, row.mitigation)
    made.filters["subset"] = lambda subset, dataset: subset_title(subset, content.order[dataset])
    return made.get_template(name)


def number(value: float, digits: int = 2) -> str:
    """The number with so many digits; empty where there is none."""
    return "" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def signed(value: float, digits: int = 2) -> str:
    """With its sign, a real minus."""
    return "" if math.isnan(value) else f"{value:+.{digits}f}".replace("-", "−")


def spread(value: float) -> str:
    """A standard deviation behind its mean; empty where it is unknown."""
    return "" if math.isnan(value) else f" ± {value:.2f}"


def p_value(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}".replace("e-0", "e-")


def _compared(values: pd.DataFrame) -> list[tuple[str, int]]:
    """How many published values have which status; those not yet run by their reason."""
    *judged, not_run = comparison.STATUSES
    counts = [(status, int((values["status"] == status).sum())) for status in judged]
    why = values.loc[values["status"] == not_run, "why"].value_counts(sort=False)
    return [*counts, *((f"{not_run}: {reason}", int(n)) for reason, n in why.items())]


def _tally(judged: pd.DataFrame) -> list[str]:
    """How many of the numbered claims have which verdict, by the paper's numbers and by ours."""
    told = []
    for asked, part in judged[judged["number"] != ""].groupby("asked", sort=False):
        for whose, column in (("the paper's own numbers", "paper_verdict"), ("these runs", "verdict")):
            counts = part[column].value_counts()
            verdicts = ", ".join(f"{name} {n}" for name, n in counts.items())
            told.append(f"{len(part)} claims {asked}, on {whose}: {verdicts}")
    return told


def _statistics(result: Statistics, drawn: Sequence[str]) -> dict[str, Any]:
    """One mitigation and target as the template draws it: `rows` has all that is said of each method."""
    methods = pd.DataFrame({"rank": result.mean_ranks, "level": result.mean_levels})
    if isinstance(result.bootstrap, pd.DataFrame):
        methods = methods.join(result.bootstrap.set_index("query")[["difference", "low", "high"]])
    wins = result.wins if isinstance(result.wins, Wins) else None
    if wins is not None:
        methods["beaten"] = wins.beaten
    differing = result.pairwise if isinstance(result.pairwise, pd.DataFrame) else None
    title = f"{statistics.TARGETS[result.target]}, {mitigation_name(result.mitigation)}"
    return {
        "title": title[0].upper() + title[1:],
        "note": result.note,
        "columns": list(methods),
        "rows": methods.sort_values("rank", kind="stable").reset_index(names="query").to_dict("records"),
        "friedman": result.friedman if isinstance(result.friedman, Friedman) else None,
        "pairs": None if differing is None else len(differing),
        "differing": [] if differing is None else differing[differing["different"]].to_dict("records"),
        "wins": wins,
        "together": statistics.taken_together(result),
        "refusals": result.refusals,
        "figures": drawn,
        "alpha": result.alpha,
    }


def _gate(content: Content) -> dict[str, Any]:
    """What the runs of Random show before methods are ranked, and of all runs which modality is weak."""
    found, selection = content.gate, content.selection
    verdicts: dict[str, list[str]] = {}
    for (verdict, names, dataset, regime), settings in _grouped(found.verdicts).items():
        told = f" ({'too few runs' if verdict == claims.UNKNOWN else 'not so'}: {names})" if names else ""
        shown = [_setting(*setting) for setting in settings]
        if len(settings) > MANY and len(settings) == sum(
            key[:2] == (dataset, regime) for key in found.verdicts
        ):
            shown = [f"{_setting(dataset, regime, '')}, whatever the mitigation"]
        verdicts.setdefault(verdict, []).extend(one + told for one in shown)
    closed = found.closed
    if not found.verdicts and not closed:
        closed = "no dataset of this page declares a modality weak"
    elif not closed and set(verdicts) == {claims.UNKNOWN}:
        seeds = int(found.rows["n_seeds"].max())
        here = f"{'is' if seeds == 1 else 'are'} {seeds}, with "
        here += " and ".join(map(mitigation_name, selection.mitigations))
        if statistics.BASELINE not in selection.queries:
            here = "is no run of Random"
        closed = f"it takes {gate.GATE_SEEDS} seeds of Random, with ModDrop and without; here {here}"
    return {
        "closed": closed,
        "verdicts": verdicts,
        "rows": list(rows_of(found.rows)),
        "stated": list(rows_of(found.rows[found.rows["verdict"].isin([gate.SO, gate.NOT_SO])])),
        "min_seeds": gate.GATE_SEEDS,
        "weak": [_weak_levels(name, part) for name, part in parts_of(content.weak_levels, "dataset")],
    }


def _grouped(
    verdicts: Mapping[Place, tuple[str, str]],
) -> dict[tuple[str, str, str, str], list[Place]]:
    """Settings by verdict, criteria, dataset and regime: those that differ in the mitigation alone."""
    groups: dict[tuple[str, str, str, str], list[Place]] = {}
    for setting, told in verdicts.items():
        groups.setdefault((*told, *setting[:2]), []).append(setting)
    return groups


def _setting(dataset: str, regime: str, mitigation: str) -> str:
    with_what = f", {mitigation_name(mitigation)}" if mitigation else ""
    return f"{dataset_name(dataset)} {regime}{with_what}"


def _weak_levels(dataset: str, levels: pd.DataFrame) -> dict[str, Any]:
    """Where the modality of a dataset that is declared weak is the lower one."""
    lower = levels["weak"] < levels["strong"]
    settings = []
    for regime, part in parts_of(levels, "regime"):
        if len(part) > MANY:
            weak, strong = (
                f"{part[side].min():.2f} to {part[side].max():.2f}" for side in ("weak", "strong")
            )
            told = f"whatever the mitigation: {weak} against {strong}, below in {part['lower'].sum()}"
            settings.append(f"{regime}, {told} of {part['runs'].sum()} runs")
            continue
        settings += [
            f"{row.regime}, {mitigation_name(row.mitigation)}: {row.weak:.2f} against {row.strong:.2f}, "
            f"below in {row.lower} of {row.runs} runs"
            for row in rows_of(part)
        ]
    is_so = "is the weak one" if lower.all() else f"is the weak one in {lower.sum()} of {len(lower)} settings"
    return {
        "dataset": dataset,
        "so": bool(lower.all()),
        "told": is_so if lower.any() else "is not the weak one",
        "settings": settings,
    }


def _detectable_ranges(content: Content) -> str:
    """The smallest differences that the seeds can find, in a line."""
    frame = content.detectable
    joint = {dataset: joint_of(subsets) for dataset, subsets in content.order.items()}
    of_target = {"weak": dict(content.selection.weak), "all": joint}
    ranges = []
    for target, subsets in of_target.items():
        part = frame.loc[frame["subset"] == frame["dataset"].map(subsets), "level"]
        if len(part):
            told = f"{part.min():.3f} to {part.max():.3f} (median {part.median():.3f})"
            ranges.append(f"{statistics.TARGETS[target]} {told}")
    return "; ".join(ranges)


def _diagnosis(found: pd.DataFrame) -> dict[str, Any]:
    """Gaps pooled over seeds, permuted in the plain way; how many have which verdict, and their files."""
    if found.empty:
        return {}
    plain = (found["how"] == permutation.HOWS[0]) | (found["rule"] == permutation.OWN)
    shown = found[(found["seed"] == POOLED) & plain]
    tally = [f"{verdict} in {count}" for verdict, count in shown["verdict"].value_counts().items()]
    seeds = found.loc[found["seed"] != POOLED, "seed"].nunique()
    return {
        "rows": list(rows_of(shown)),
        "tally": f"Of {len(shown)} gaps: {', '.join(tally)}.",
        "files": found["file"].unique(),
        "seeds": f"{seeds} seed{'s' * (seeds != 1)}",
        "margin": permutation.MARGIN,
    }


def _effects(content: Content) -> list[dict[str, Any]]:
    """`mitigations.csv` for each dataset and regime, where it says more than the tables of one mitigation."""
    selection = content.selection
    if len(selection.mitigations) < 2 and not not_in_paper(selection.queries):
        return []
    parts = []
    for (dataset, regime), part in parts_of(content.effects, ["dataset", "regime"]):
        subsets = [subset for subset in content.order[dataset] if subset in set(part["subset"])]
        rows = []
        for (mitigation, query), cells in parts_of(part, ["mitigation", "query"]):
            of_subset = {cell["subset"]: cell for cell in records_of(cells)}
            shown = [of_subset[subset] for subset in subsets]
            rows.append({"mitigation": mitigation, "query": query, "cells": shown})
        parts.append({"dataset": dataset, "regime": regime, "subsets": subsets, "rows": rows})
    return parts


def _own_name(method: str) -> str:
    """The name of a query method or a mitigation of our own."""
    return mitigation_name(method) if method in OUR_MITIGATIONS else method_name(method)


def _passed(tests: pd.DataFrame) -> list[str]:
    """In how many of the judged settings each method passed."""
    told = []
    for method, part in parts_of(tests[tests["p_holm"].notna()], "method"):
        passed = int((part["verdict"] == gate.PASSED).sum())
        told.append(f"{_own_name(method)}: passed in {passed} of {len(part)} settings")
    return told


def _paper_cell(row: Any) -> str:
    """A published value by its cell, in the paper's words."""
    names = (dataset_name(row.dataset), mitigation_name(row.mitigation), row.regime, _paper_method(row.query))
    return f"{', '.join(names)}, {subset_title(row.subset, SUBSETS[row.dataset].values())}"


def _paper_method(query: str) -> str:
    return "GRACE" if query == "grace_r" else method_name(query)


def run_list(curves: pd.DataFrame) -> list[dict[str, Any]]:
    """One entry per run with its first and last number of labels."""
    keys = ["dataset", "regime", "mitigation", "query", "seed", "run", "rounds"]
    runs = curves.groupby(keys, sort=False, as_index=False)
    return records_of(runs.agg(first=("labelled", "min"), last=("labelled", "max")))


def _facts(selection: Selection, runs: int) -> list[tuple[str, str]]:
    methods = [method_name(query) for query in selection.queries if query not in CONTROLS]
    controls = [method_name(query) for query in selection.queries if query in CONTROLS]
    facts = {
        "Datasets": map(dataset_name, selection.datasets),
        "Regimes": selection.regimes,
        "Methods": methods,
        "Controls": controls,
        "Mitigations": map(mitigation_name, selection.mitigations),
        "Not in the paper": not_in_paper(selection.queries, selection.mitigations),
        "Seeds": map(str, selection.seeds),
        "Runs": [f"{runs}{_of_all(selection, runs)}"],
    }
    return [(name, text) for name, values in facts.items() if (text := ", ".join(values))]


def _of_all(selection: Selection, runs: int) -> str:
    """How many runs are holes, where not every combination was run."""
    axes = (selection.datasets, selection.regimes, selection.queries, selection.mitigations, selection.seeds)
    lacking = math.prod(map(len, axes)) - runs
    told = f" of {runs + lacking} combinations; the other {lacking} are holes (“{tables.HOLE}”)"
    return told if lacking else ""


def _own(name: str, origins: Sequence[Origin]) -> list[str]:
    """What a rendered dataset has of its own, by the records of its runs: label values, styles."""
    if name not in RENDERED:
        return []
    made = (settings for one in origins if one.dataset == name for settings in one.settings.values())
    own = prepare_of(name, next(made, {}).get("data", {})) or OLDER
    told, values, style = [], own["label_values"], own["style"]
    if values != OLDER["label_values"]:
        told.append(f"A feature of the label takes {values} of its ten values; other features keep theirs.")
    for modality, changes in style.items():
        whose = "All images" if modality == ALL else f"Images of {subset_title(modality)}"
        listed = ", ".join(f"{key} {json.dumps(value)}" for key, value in changes.items())
        told.append(f"{whose} have a style of their own: {listed}.")
    if set(style) - {ALL}:
        told.append("So modalities also differ in how hard their images are, a pitfall of its own (P2).")
    return told


def _dataset(name: str, content: Content) -> dict[str, Any]:
    """The section of a dataset, with a part for each mitigation that it has a table of."""
    selection, named = content.selection, {one.name: one for one in content.tables}
    frame = content.inputs.curves[content.inputs.curves["dataset"] == name]
    areas = content.table.loc[content.table["dataset"] == name, "chance_aulc"].unique()
    bought = set(zip(content.bought["dataset"], content.bought["mitigation"], strict=True))
    parts = [
        {
            "mitigation": mitigation,
            "table": named[f"{name}-{mitigation}"],
            "measured": named.get(f"measured-{name}-{mitigation}"),
            "regimes": frame.loc[frame["mitigation"] == mitigation, "regime"].unique().tolist(),
            "drawn": content.has_figures(name, mitigation),
            "bought": (name, mitigation) in bought,
        }
        for mitigation in selection.mitigations
        if f"{name}-{mitigation}" in named
    ]
    return {
        "key": name,
        "isolates": ISOLATES.get(name, "").format(most=100 * frame["ceiling"].min()),
        "own": _own(name, content.inputs.origins),
        "modalities": joint_of(content.order[name]).split("+"),
        "weak": selection.weak.get(name),
        "chance": float(frame["chance"].iloc[0]),
        "levels": ", ".join(f"{area:.3g}" for area in areas),
        "parts": parts,
        "measured": named.get(f"measured-{name}"),
        "files": [f"{name}-{regime}" for dataset, regime in selection.pairs if dataset == name],
    }


def _checks(selection: Selection, kept: bool) -> list[tuple[str, list[str]]]:
    """What was checked of each dataset; the data of kept records was, elsewhere."""
    lines = []
    for dataset in selection.datasets:
        titles = []
        if dataset not in CREDENTIALED and not kept:  # whose pages stay in its own project
            titles = ["flow", *(SOURCES[dataset].checks if dataset in SOURCES else RENDERED_CHECKS)]
        curves = [f"curves {regime}" for name, regime in selection.pairs if name == dataset]
        lines.append((dataset_name(dataset), titles + curves))
    return [*lines, ("AULC", ["table"])]
