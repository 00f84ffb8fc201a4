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
from mindgap.results.claims import NOTE as CLAIMS_NOTE
from mindgap.results.claims import UNKNOWN, WIDE
from mindgap.results.comparison import NOTES as COMPARISON_NOTES
from mindgap.results.comparison import STATUSES
from mindgap.results.curves import SETTING, Selection
from mindgap.results.diagnosis import POOLED
from mindgap.results.effects import FEWEST_SEEDS, HELD_OUT, MOST_LOST, PLAIN
from mindgap.results.effects import PASSED as REGISTERED
from mindgap.results.figures import FIGURES, FIGURES_NOTE
from mindgap.results.flow import flow_parts
from mindgap.results.gate import FEW, MIN_SEEDS, NOT_SO, SO
from mindgap.results.names import (
    CONTROLS,
    NOT_RECORDED,
    OUR_MITIGATIONS,
    dataset_name,
    method_name,
    mitigation_name,
    modalities_of,
    subset_name,
)
from mindgap.results.paper import REGIMES, SHOWN_WITH, SUBSETS, WEAK, not_in_paper, printed_factor
from mindgap.results.permutation import HOWS, MARGIN, OWN
from mindgap.results.power import ALPHA, POWER
from mindgap.results.provenance import Origin
from mindgap.results.rank_comparison import RANK_NOTES
from mindgap.results.reading import parts_of, records_of, rows_of
from mindgap.results.scales import prepare_of
from mindgap.results.site.content import Content
from mindgap.results.statistics import (
    BASELINE,
    EXPLANATIONS,
    TARGETS,
    Friedman,
    Statistics,
    Wins,
    taken_together,
)
from mindgap.results.tables import BEST_RULE, HOLE

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
    "gradient of the linear layer lowers the validation loss most: an upper bound.",
    "presence_balanced": "Presence-balanced looks at no prediction and takes samples of the pattern of "
    "present modalities with the fewest labels; where nothing is missing it is Random.",
}
# What the suites of a rendered dataset check (`mindgap.results.expectations`).
RENDERED_CHECKS = ("attributes", "images", "sample", "checks")


def render_index(content: Content, drawn: Mapping[tuple[str, str], Sequence[str]]) -> str:
    """index.html; `drawn` names the figures of each mitigation and target of the statistics."""
    selection, curves = replace(content.selection, scale=content.scale), content.inputs.curves
    named = {one.name: one for one in content.tables}
    runs = run_list(curves)
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            selection=selection,
            base=content.selection.scale,
            changes=content.changes,
            heading=_heading(content),
            best_rule=BEST_RULE,
            about=content.inputs.about,
            facts=_facts(selection, len(runs)),
            controls=[ABOUT_CONTROLS.get(name, "") for name in CONTROLS if name in selection.queries],
            gate=_gate(content),
            not_ranked=selection.unranked_note(selection.unranked),
            overview=[one for one in content.tables if one.name.startswith(("weak-", "rank_sums-"))],
            datasets=[
                _dataset(
                    name,
                    curves,
                    content.table,
                    named,
                    content.order[name],
                    selection,
                    _own(name, content.inputs.origins),
                    set(zip(content.bought["dataset"], content.bought["mitigation"], strict=True)),
                )
                for name in selection.datasets
            ],
            beyond=not_in_paper(selection.queries, selection.mitigations),
            effects=_effects(content),
            preregistered=_preregistered(content),
            passed=_passed(content.preregistered),
            margin=MOST_LOST,
            fewest=FEWEST_SEEDS,
            held_out=HELD_OUT,
            judged=bool((content.claims["verdict"] != UNKNOWN).any()),
            claims=content.claims.to_dict("records"),
            tally=_tally(content.claims),
            wide=WIDE,
            claims_note=CLAIMS_NOTE,
            power=content.power,
            figures_note=FIGURES_NOTE,
            statistics=[_statistics(r, drawn.get((r.mitigation, r.target), ())) for r in content.statistics],
            explanations=EXPLANATIONS,
            detectable=_detectable(content),
            compared=_compared(content.comparison),
            sensitivity=content.sensitivity,
            searches=content.inputs.searches,
            diagnosis=_diagnosis(content.inputs.diagnosis),
            flows=[(dataset_name(name), flow_parts(flow)) for name, flow in selection.flows.items()],
            rounded=[dataset_name(name) for name in CREDENTIALED],
            skipped=[(dataset_name(name), line) for name, line in selection.skipped.items()],
            origins=content.inputs.origins,
            runs=runs,
            checks=_checks(selection, bool(content.inputs.about)),
        )
    )


def render_comparison(content: Content) -> str:
    """comparison.html: each published table and value beside ours."""
    return (
        _environment()
        .get_template("comparison.html.j2")
        .render(
            selection=replace(content.selection, scale=content.scale),
            base=content.selection.scale,
            changes=content.changes,
            heading=_heading(content),
            compared=_compared(content.comparison),
            summary=content.summary,
            notes=COMPARISON_NOTES,
            ranks=content.ranks,
            rank_notes=[*RANK_NOTES, *filter(None, [_left_out_of_table_3(content.selection)])],
            misprints=_misprints(content.misprints),
            paper_tables=content.paper_tables,
            values=_values(content.comparison),
            speed_ups=_speed_ups(content),
            not_ranked=content.selection.unranked_note(content.selection.unranked),
        )
    )


def _heading(content: Content) -> str:
    """The scale, and the first of the settings that differ from its own."""
    changed = [text for text in content.changes if not text.startswith(NOT_RECORDED)]
    named = "; ".join(changed[:3]) + "; …" * (len(changed) > 3)
    return f"{content.scale}: {named}" if changed else content.scale


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mindgap", "results/site"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {"number": number, "signed": signed, "method": method_name, "p": p_value}
    environment.filters |= {"dataset": dataset_name, "mitigation": mitigation_name}
    return environment


def number(value: float, digits: int = 2) -> str:
    """The number with so many digits; empty where there is none."""
    return "" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def signed(value: float, digits: int = 2) -> str:
    """With its sign, a real minus."""
    return "" if math.isnan(value) else f"{value:+.{digits}f}".replace("-", "−")


def p_value(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}".replace("e-0", "e-")


def _compared(comparison: pd.DataFrame) -> list[tuple[str, int]]:
    """How many published values have which status; those not yet run by their reason."""
    counts = [(status, int((comparison["status"] == status).sum())) for status in STATUSES[:2]]
    why = comparison.loc[comparison["status"] == STATUSES[2], "why"].value_counts(sort=False)
    return [*counts, *((f"{STATUSES[2]}: {reason}", int(n)) for reason, n in why.items())]


def _tally(claims: pd.DataFrame) -> list[str]:
    """How many of the numbered claims have which verdict, by the paper's numbers and by ours."""
    told = []
    for asked, part in claims[claims["number"] != ""].groupby("asked", sort=False):
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
    title = f"{TARGETS[result.target]}, {mitigation_name(result.mitigation)}"
    return {
        "title": title[0].upper() + title[1:],
        "note": result.note,
        "columns": list(methods),
        "rows": methods.sort_values("rank", kind="stable").reset_index(names="query").to_dict("records"),
        "friedman": result.friedman if isinstance(result.friedman, Friedman) else None,
        "pairs": None if differing is None else len(differing),
        "differing": [] if differing is None else differing[differing["different"]].to_dict("records"),
        "wins": wins,
        "together": taken_together(result),
        "refusals": result.refusals,
        "figures": drawn,
        "alpha": result.alpha,
    }


def _gate(content: Content) -> dict[str, Any]:
    """What the runs of Random show before methods are ranked, and of all runs which modality is weak."""
    gate, selection = content.gate, content.selection
    verdicts: dict[str, list[str]] = {}
    for setting, (verdict, names) in gate.verdicts.items():
        told = f" ({'too few runs' if verdict == FEW else 'not so'}: {names})" if names else ""
        verdicts.setdefault(verdict, []).append(_setting(*setting) + told)
    closed = gate.closed
    if not gate.verdicts and not closed:
        closed = "no dataset of this page declares a modality weak"
    elif not closed and set(verdicts) == {FEW}:
        seeds = int(gate.rows["n_seeds"].max())
        here = f"{'is' if seeds == 1 else 'are'} {seeds}, with "
        here += " and ".join(map(mitigation_name, selection.mitigations))
        if BASELINE not in selection.queries:
            here = "is no run of Random"
        closed = f"it takes {MIN_SEEDS} seeds of Random, with ModDrop and without; here {here}"
    rows = gate.rows.assign(where=[_setting(*key) for key in gate.rows[SETTING].to_numpy()])
    return {
        "closed": closed,
        "verdicts": verdicts,
        "rows": records_of(rows),
        "stated": rows[rows["verdict"].isin([SO, NOT_SO])].to_dict("records"),
        "min_seeds": MIN_SEEDS,
        "weak": [
            _weak_levels(content, name, part) for name, part in parts_of(content.weak_levels, "dataset")
        ],
    }


def _setting(dataset: str, regime: str, mitigation: str) -> str:
    with_what = f", {mitigation_name(mitigation)}" if mitigation else ""
    return f"{dataset_name(dataset)} {regime}{with_what}"


def _weak_levels(content: Content, dataset: str, levels: pd.DataFrame) -> dict[str, Any]:
    """Where the modality of a dataset that is declared weak is the lower one."""
    lower = levels["weak"] < levels["strong"]
    weak = subset_name(content.selection.weak[dataset], modalities_of(list(content.order[dataset])))
    settings = [
        f"{row.regime}, {mitigation_name(row.mitigation)}: {row.weak:.2f} against {row.strong:.2f}, below "
        f"in {row.lower} of {row.runs} runs"
        for row in rows_of(levels)
    ]
    is_so = "is the weak one" if lower.all() else f"is the weak one in {lower.sum()} of {len(lower)} settings"
    return {
        "dataset": dataset_name(dataset),
        "modality": weak,
        "so": bool(lower.all()),
        "told": is_so if lower.any() else "is not the weak one",
        "settings": settings,
    }


def _detectable(content: Content) -> dict[str, Any]:
    """The smallest differences that the seeds can find, in a line and by setting."""
    frame, weak = content.detectable, content.selection.weak
    of_target = {
        TARGETS["weak"]: frame["subset"] == frame["dataset"].map(dict(weak)),
        TARGETS["all"]: frame["subset"]
        == frame["dataset"].map(lambda name: "+".join(modalities_of(list(content.order[name])))),
    }
    ranges = [
        f"{target} {part.min():.3f} to {part.max():.3f} (median {part.median():.3f})"
        for target, rows in of_target.items()
        if len(part := frame.loc[rows, "level"])
    ]
    shown = [
        {
            "where": _setting(row.dataset, row.regime, row.mitigation),
            "subset": subset_name(row.subset, modalities_of(list(content.order[row.dataset]))),
            "n_seeds": row.n_seeds,
            "methods": row.methods,
            "level": row.level,
            "aulc": row.aulc,
        }
        for row in rows_of(frame)
    ]
    return {"ranges": "; ".join(ranges), "rows": shown, "alpha": ALPHA, "power": POWER}


def _speed_ups(content: Content) -> list[dict[str, Any]]:
    """Labels that Random needs for one of a method, as rows of text."""
    return [
        {
            "where": _setting(row.dataset, row.regime, row.mitigation),
            "query": row.query,
            "subset": subset_name(row.subset, modalities_of(list(content.order[row.dataset]))),
            "weak": row.subset == content.selection.weak.get(row.dataset),
            "factor": number(row.speed_up) or "none",
            "seeds": f"{row.seed_min:.2f} to {row.seed_max:.2f}" if row.seeds_without < row.n_seeds else "",
            "known": f"{row.n_seeds - row.seeds_without} of {row.n_seeds}",
            "remark": row.remark,
        }
        for row in rows_of(content.speed_ups)
    ]


def _diagnosis(found: pd.DataFrame) -> dict[str, Any]:
    """Gaps pooled over seeds, permuted in the plain way; how many have which verdict, and their files."""
    if found.empty:
        return {}
    shown = found[(found["seed"] == POOLED) & ((found["how"] == HOWS[0]) | (found["rule"] == OWN))]
    where = [_setting(*key) for key in shown[SETTING].to_numpy()]
    tally = [f"{verdict} in {count}" for verdict, count in shown["verdict"].value_counts().items()]
    seeds = found.loc[found["seed"] != POOLED, "seed"].nunique()
    return {
        "rows": shown.assign(where=where).to_dict("records"),
        "tally": f"Of {len(shown)} gaps: {', '.join(tally)}.",
        "files": found["file"].unique(),
        "seeds": f"{seeds} seed{'s' * (seeds != 1)}",
        "margin": MARGIN,
    }


def _effects(content: Content) -> list[dict[str, Any]]:
    """`mitigations.csv` for each dataset and regime, where it says more than the tables of one mitigation."""
    selection = content.selection
    if len(selection.mitigations) < 2 and not not_in_paper(selection.queries):
        return []
    parts = []
    for (dataset, regime), part in parts_of(content.effects, ["dataset", "regime"]):
        names = modalities_of(list(content.order[dataset]))
        subsets = [subset for subset in content.order[dataset] if subset in set(part["subset"])]
        cells = {
            (*key, one["subset"]): {
                "level": one["level"],
                "differences": [
                    (one[f"difference_to_{other}"], one[f"high_to_{other}"] - one[f"difference_to_{other}"])
                    for other in (PLAIN, BASELINE)
                ],
            }
            for key, rows in parts_of(part, ["mitigation", "query"])
            for one in rows.to_dict("records")
        }
        shown = [
            {"mitigation": m, "query": q, "cells": [cells[m, q, subset] for subset in subsets]}
            for m, q in dict.fromkeys(key[:2] for key in cells)
        ]
        weak = selection.weak.get(dataset)
        told = [(subset_name(subset, names), subset == weak) for subset in subsets]
        parts.append({"where": f"{dataset_name(dataset)} {regime}", "subsets": told, "rows": shown})
    return parts


def _preregistered(content: Content) -> list[dict[str, Any]]:
    """The rows of the registered test, with what is compared in words."""
    rows = []
    for row in records_of(content.preregistered):
        setting = _setting(row["dataset"], row["regime"], row["mitigation"])
        words = {
            "method": _own_name(row["method"]),
            "where": f"{setting}, {method_name(row['query'])}",
            "against": f"{method_name(row['rival'])}, {mitigation_name(row['rival_mitigation'])}",
        }
        rows.append(row | words)
    return rows


def _own_name(method: str) -> str:
    return mitigation_name(method) if method in OUR_MITIGATIONS else method_name(method)


def _passed(tests: pd.DataFrame) -> list[str]:
    """In how many of the judged settings each method passed."""
    told = []
    for method, part in parts_of(tests[tests["p_holm"].notna()], "method"):
        passed = int((part["verdict"] == REGISTERED).sum())
        told.append(f"{_own_name(method)}: passed in {passed} of {len(part)} settings")
    return told


def _left_out_of_table_3(selection: Selection) -> str:
    return selection.unranked_note(
        (name, regime, SHOWN_WITH[name]) for name, regime in product(WEAK, REGIMES)
    )


def _misprints(found: pd.DataFrame) -> list[str]:
    return [
        f"Table {row.table}, {_cell_name(row)}: {row.printed:.2f}, where Table {row.detail_table} has "
        f"{row.detail_printed:.2f}. {row.verdict}."
        for row in rows_of(found)
    ]


def _cell_name(row: Any) -> str:
    subset = subset_name(row.subset, modalities_of(list(SUBSETS[row.dataset].values())))
    parts = (dataset_name(row.dataset), mitigation_name(row.mitigation), row.regime, _paper_method(row.query))
    return f"{', '.join(parts)}, {subset}"


def _paper_method(query: str) -> str:
    return "GRACE" if query == "grace_r" else method_name(query)


def _values(comparison: pd.DataFrame) -> list[tuple[int, list[dict[str, Any]]]]:
    """The published values by table, as rows of text: ours scaled like the printed ones."""
    shown = comparison.assign(factor=printed_factor(comparison))
    return [
        (int(table), [_value(row) for row in rows_of(part)])
        for table, part in parts_of(shown, "table", sort=True)
    ]


def _value(row: Any) -> dict[str, Any]:
    ours = "" if math.isnan(row.difference) else f"{row.ours_mean * row.factor:.2f}"
    spread = "" if math.isnan(row.ours_std) else f" ± {row.ours_std * row.factor:.2f}"
    std = "" if math.isnan(row.printed_std) else f" ± {row.printed_std:.2f}"
    return {
        "anchor": row.anchor,
        "cell": _cell_name(row),
        "paper": f"{row.printed:.2f}{std}",
        "ours": f"{ours}{spread}" if ours else "",
        "seeds": row.n_seeds or "",
        "difference": signed(row.difference * row.factor),
        "deviations": signed(row.deviations, 1),
        "paper_share": number(row.paper_mean_accuracy, 3),
        "ours_share": number(row.ours_mean_accuracy, 3),
        "status": row.status,
        "why": "; ".join(text for text in (row.why, row.remark) if text),
    }


def run_list(curves: pd.DataFrame) -> list[dict[str, Any]]:
    """One entry per run with its first and last number of labels."""
    keys = ["dataset", "regime", "mitigation", "query", "seed", "run", "rounds"]
    runs = curves.groupby(keys, sort=False, as_index=False)
    return records_of(runs.agg(first=("labelled", "min"), last=("labelled", "max")))


def _facts(selection: Selection, runs: int) -> list[tuple[str, str]]:
    return [
        ("Datasets", ", ".join(map(dataset_name, selection.datasets))),
        ("Regimes", ", ".join(selection.regimes)),
        ("Methods", ", ".join(method_name(q) for q in selection.queries if q not in CONTROLS)),
        *[("Controls", ", ".join(map(method_name, c))) for c in [_controls(selection)] if c],
        ("Mitigations", ", ".join(map(mitigation_name, selection.mitigations))),
        *[
            ("Not in the paper", ", ".join(b))
            for b in [not_in_paper(selection.queries, selection.mitigations)]
            if b
        ],
        ("Seeds", ", ".join(map(str, selection.seeds))),
        ("Runs", f"{runs}{_of_all(selection, runs)}"),
    ]


def _of_all(selection: Selection, runs: int) -> str:
    """How many runs are holes, where not every combination was run."""
    axes = (selection.datasets, selection.regimes, selection.queries, selection.mitigations, selection.seeds)
    lacking = math.prod(map(len, axes)) - runs
    return f" of {runs + lacking} combinations; the other {lacking} are holes (“{HOLE}”)" if lacking else ""


def _controls(selection: Selection) -> list[str]:
    return [name for name in selection.queries if name in CONTROLS]


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
        whose = "All images" if modality == ALL else f"Images of {subset_name(modality, (modality,))}"
        listed = ", ".join(f"{key} {json.dumps(value)}" for key, value in changes.items())
        told.append(f"{whose} have a style of their own: {listed}.")
    if set(style) - {ALL}:
        told.append("So modalities also differ in how hard their images are, a pitfall of its own (P2).")
    return told


def _dataset(
    name: str,
    curves: pd.DataFrame,
    table: pd.DataFrame,
    named: Mapping[str, Any],
    subsets: Sequence[str],
    selection: Selection,
    own: Sequence[str],
    bought: set[tuple[str, str]],
) -> dict[str, Any]:
    frame = curves[curves["dataset"] == name]
    modalities = modalities_of(list(subsets))
    weak = selection.weak.get(name)
    chance = float(frame["chance"].iloc[0])
    areas = table.loc[table["dataset"] == name, "chance_aulc"].unique()
    parts = []
    for mitigation in selection.mitigations:
        title = mitigation_name(mitigation)
        if f"{name}-{mitigation}" not in named:
            continue
        parts.append(
            {
                "title": title[0].upper() + title[1:],
                "table": named[f"{name}-{mitigation}"],
                "measured": named.get(f"measured-{name}-{mitigation}"),
                "figures": _figures(
                    name,
                    mitigation,
                    frame.loc[frame["mitigation"] == mitigation, "regime"],
                    selection.scale,
                    (name, mitigation) in bought,
                ),
            }
        )
    return {
        "key": name,
        "name": dataset_name(name),
        "isolates": ISOLATES.get(name, "").format(most=100 * frame["ceiling"].min()),
        "own": own,
        "modalities": [subset_name(modality, modalities) for modality in modalities],
        "weak": subset_name(weak, modalities) if weak else "",
        "chance": chance,
        "levels": ", ".join(f"{area:.3g}" for area in areas),
        "parts": parts,
        "files": [f"{name}-{regime}" for dataset, regime in selection.pairs if dataset == name],
    }


def _figures(
    dataset: str, mitigation: str, regimes: pd.Series, scale: str, bought: bool
) -> list[dict[str, Any]]:
    names = [dataset_name(dataset), mitigation_name(mitigation), *regimes.unique(), f"scale {scale}"]
    what = ", ".join(names)
    stem = f"{dataset}-{mitigation}"
    theirs = FIGURES.get((dataset, mitigation))
    results = f"Results for {dataset_name(dataset)} {'without' if mitigation == 'none' else 'with'} ModDrop"
    upper, lower = (
        f" Counterpart of the {half} half of the paper's Figure {theirs}, “{results}”." if theirs else ""
        for half in ("upper", "lower")
    )
    return [
        {
            "stem": f"curves-{stem}",
            "alt": f"Learning curves of every method on every subset of modalities: {what}",
            "caption": f"Learning curves: {what}.{upper}",
        },
        {
            "stem": f"bars-{stem}",
            "alt": f"Bars of AULC of every method on every subset of modalities: {what}",
            "caption": f"AULC: {what}.{lower}",
        },
        *[
            {
                "stem": f"bought-{stem}",
                "alt": f"Which modalities and how even classes the labelled samples have: {what}",
                "caption": f"What did each method buy? {what}. Of all labelled samples: the share that has a "
                "modality (none is shown that all samples have), and the entropy of the classes (1: as many "
                "of each).",
            }
        ]
        * bought,
    ]


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
