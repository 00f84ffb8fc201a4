"""The empirical claims of "Mind the Gap" (arXiv 2603.29677, section 6) as tests over AULC, ours or its own.

`claims.yaml` has each claim's sentence and what is asked; the tests that it names are here. They look at the
paper's datasets, mitigations and methods only; weak is the modality that its tables set in italics.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from mindgap.results.aulc import ACCURACY_COLUMNS, CELL, DIGITS, MIN_SEEDS
from mindgap.results.curves import SETTING, Selection
from mindgap.results.names import dataset_name, method_name, subset_title
from mindgap.results.paper import (
    ITALIC,
    PAPER_DATASETS,
    PAPER_METHODS,
    PAPER_MITIGATIONS,
    REGIMES,
    SHOWN_WITH,
)
from mindgap.results.reading import ReportError, parts_of, rows_of

FILE = Path(__file__).with_name("claims.yaml")
# Of ten classes an accuracy of 0.19, of two 0.55: a modality that the model uses is better than that.
NEAR_CHANCE = 0.1
CLOSE = 0.05  # of the ceiling
MIN_RANKED = 4  # methods: of three, any two are the best two by luck once in three
MULTIMODAL = ("bmmal", "grace_r")
# Three seeds settle no single pair: over all methods and regimes a quarter of the cells may fail.
CONSISTENTLY = 0.75
OFTEN: Mapping[str, Callable[[float], bool]] = {
    "always": lambda share: share == 1,
    "mostly": lambda share: share >= CONSISTENTLY,
    "in more than half": lambda share: share > 0.5,
    "sometimes": lambda share: share > 0,
    "not always": lambda share: share < 1,
    "at most half": lambda share: share <= 0.5,
    "rarely": lambda share: share <= 1 - CONSISTENTLY,
    "never": lambda share: share == 0,
}
# How two cells can lie to one another, in words and of a frame of pairs.
HOW: Mapping[str, tuple[str, Callable[[pd.DataFrame], pd.Series]]] = {
    "above": ("{left} above {right} beyond the spread", lambda pairs: pairs["lead"] > pairs["spread"]),
    "below": ("{left} below {right} beyond the spread", lambda pairs: -pairs["lead"] > pairs["spread"]),
    "within": ("{left} and {right} within the spread", lambda pairs: pairs["lead"].abs() <= pairs["spread"]),
    "at least": ("{left} at least at {right}", lambda pairs: pairs["lead"] >= 0),
    "close": (f"{{left}} within {CLOSE:g} of {{right}}", lambda pairs: pairs["lead"].abs() <= CLOSE),
    "nearer": ("{left} nearer to {right}", lambda pairs: pairs["lead"].abs() < pairs["far"].abs()),
}

WRITTEN, WIDE, TABLES = "as written", "over all methods and regimes", "read from the tables"
# What section 6.1 speaks of; the paper asks the rest of its text of all methods.
SECTION_6_1 = {"query": "random", "regime": "high"}
HOLDS, FAILS, FEW, UNKNOWN = "holds", "does not hold", "not enough seeds", "not enough data"
UNRANKED = "not ranked"
CLAIM_COLUMNS = [
    *("key", "number", "where", "asked", "sentence", "measure", "remark", "contradicted"),
    *("verdict", "effect", "effect_name", "detail", "needs"),
]
ROLE_COLUMNS = ["role", "table2"]

NOTE = (
    "Level: the mean accuracy along the learning curve as a share of the way from chance (0) to the subset's "
    "ceiling (1), on which tasks of few and of many classes compare. Spread: the root of the sum of the "
    "variances over seeds of the two levels compared. Weak is the modality that is declared so, whichever is "
    "lower. Only the paper's datasets, mitigations and methods are judged, "
    f"and only with {MIN_SEEDS} seeds, as in the statistics above; what fewer show is no verdict. Claims on "
    "the best method go by the order of means, as the paper's do: no test stands behind them. What compares "
    "methods leaves out the settings whose gate failed. Section 6.1 speaks of Random in the high regime; it "
    "is asked once more over all methods and regimes, where "
    f"{CONSISTENTLY:.0%} of the pairs are to agree."
)


@dataclass(frozen=True)
class Finding:
    """What a test saw: its verdict, how large the effect is and of what kind, and the numbers."""

    holds: bool
    effect: float
    effect_name: str
    detail: str


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper and the parts that test it, each a mapping as in claims.yaml."""

    key: str
    where: str
    sentence: str
    measure: str
    parts: Sequence[Mapping[str, Any]]
    asked: str
    number: str = ""
    remark: str = ""
    contradicted: str = ""


@cache
def claims() -> tuple[Claim, ...]:
    """Those of claims.yaml; each of section 6.1 is followed by the same over all methods and regimes."""
    made = []
    for entry in yaml.safe_load(FILE.read_text(encoding="utf-8")):
        number, section, wide = entry.get("number"), str(entry["section"]), entry.get("wide", {})
        texts = {name: entry.get(name, "") for name in ("measure", "remark", "contradicted")}
        words = {"key": entry["key"], "sentence": entry["quote"].strip("()"), **texts}
        words |= {"where": f"Section {section}" if number else section, "number": str(number or "")}
        parts = [dict(part) for part in entry["parts"]]
        if not section.startswith("6.1"):
            made.append(Claim(**words, parts=parts, asked=WRITTEN if number else TABLES))
            continue
        made.append(Claim(**words, parts=[part | SECTION_6_1 for part in parts], asked=WRITTEN))
        wider = [{"often": "mostly"} | part | wide for part in parts]
        words |= {"key": f"{entry['key']}-everywhere", "remark": "", "contradicted": ""}
        words["measure"] += f" Asked of all methods and regimes; {CONSISTENTLY:.0%} of the pairs will do."
        made.append(Claim(**words, parts=wider, asked=WIDE))
    return tuple(made)


def judge(
    accuracies: pd.DataFrame,
    asked: Sequence[Claim] | None = None,
    selection: Selection | None = None,
) -> pd.DataFrame:
    """One row per claim, of all or of those `asked`: CLAIM_COLUMNS. `accuracies` is as of `mean_accuracies`.

    Cells of fewer than MIN_SEEDS seeds are left out; a claim that could be judged with them only is FEW. What
    compares methods leaves out the settings that `selection` does not rank; a claim that could be judged with
    them only is UNRANKED. Raises a ReportError where a column lacks or a cell is there twice.
    """
    cells = comparable(accuracies)
    enough = cells[(cells["n_seeds"] >= MIN_SEEDS) & cells["spread"].notna()].reset_index(drop=True)
    every = cells.fillna({"spread": 0.0})  # only to see whether more seeds would do
    rows = [_row(claim, _ranked_only(claim, enough, selection), every) for claim in asked or claims()]
    return pd.DataFrame(rows, columns=CLAIM_COLUMNS)


def _ranked_only(claim: Claim, cells: pd.DataFrame, selection: Selection | None) -> Finding | str | None:
    """The finding in the settings where methods are ranked; the note of the gate, if it alone hinders one."""
    found = _found(claim, cells)
    asked = [_part_cells(part, cells)[SETTING] for part in claim.parts if _ranks(part)]
    settings = (setting for part in asked for setting in part.itertuples(index=False, name=None))
    if found is None or selection is None or not (note := selection.unranked_note(settings)):
        return found
    ranked = _found(claim, cells, selection.ranked(cells))
    return replace(ranked, detail=f"{ranked.detail} {note}") if ranked else note


def _ranks(part: Mapping[str, Any]) -> bool:
    """Whether a part compares methods with one another."""
    return part["test"] in ("order", "gains", "converge", "multimodal") or "query" in part.get("left", {})


def _found(claim: Claim, cells: pd.DataFrame, ranked: pd.DataFrame | None = None) -> Finding | None:
    """All parts together, with the effect of the first. `ranked`: cells for parts that compare methods."""
    findings = []
    for part in claim.parts:
        one = _part_found(part, cells if ranked is None or not _ranks(part) else ranked)
        if one is None:
            return None
        findings.append(one)
    first, detail = findings[0], " ".join(one.detail for one in findings)
    return Finding(all(one.holds for one in findings), first.effect, first.effect_name, detail)


def _part_found(part: Mapping[str, Any], cells: pd.DataFrame) -> Finding | None:
    """None where the cells lack anything that the part names."""
    options = {name: value for name, value in part.items() if name not in [*CELL, *ROLE_COLUMNS, "test"]}
    cells = _part_cells(part, cells)
    named = _named(part)
    if cells.empty or not all(set(values) <= set(cells[name]) for name, values in named.items()):
        return None
    if "each" in part:
        named = part.get(part["each"], "any")
        options["groups"] = _values(named) if named != "any" else []
    return TESTS[part["test"]](cells, **options)


def _part_cells(part: Mapping[str, Any], cells: pd.DataFrame) -> pd.DataFrame:
    """The scope of a part."""
    names = [name for name in part if name in [*CELL, *ROLE_COLUMNS] and part[name] != "any"]
    return _select(cells, **{name: part[name] for name in names})


def _named(part: Mapping[str, Any]) -> dict[str, list[str]]:
    """What a part names: values by column."""
    named: dict[str, list[str]] = {}
    for selection in (part, *(part.get(side, {}) for side in ("left", "right", "far"))):
        for name, value in selection.items():
            if name in [*CELL, "role"] and value != "any" and not str(value).startswith("not "):
                named.setdefault(name, []).extend(_values(value))
    places = (query for one in part.get("places", {}).values() for query in one)
    queries = [*places, *part.get("leads", ()), *part.get("queries", ())]
    if queries:
        named.setdefault("query", []).extend(queries)
    return named


def _values(value: str | bool | Sequence[str]) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def _row(claim: Claim, finding: Finding | str | None, every: pd.DataFrame) -> dict[str, object]:
    """`finding`: a text says why methods are not ranked; `every`: all cells, also those of few seeds."""
    row = {name: getattr(claim, name) for name in CLAIM_COLUMNS[: CLAIM_COLUMNS.index("verdict")]}
    unknown = {"effect": math.nan, "effect_name": "", "detail": "", "needs": ""}
    if isinstance(finding, str):
        return row | unknown | {"verdict": UNRANKED, "detail": finding}
    if finding is not None:
        return row | {"verdict": HOLDS if finding.holds else FAILS} | vars(finding) | {"needs": ""}
    few = _found(claim, every) is not None
    needs = _needs(claim) + (f"; {MIN_SEEDS} seeds or more each" if few else "")
    return row | unknown | {"verdict": FEW if few else UNKNOWN, "needs": needs}


def _needs(claim: Claim) -> str:
    """The runs that all parts name together: "Missing; low and mid; with ModDrop; KCG; 4 methods or more"."""
    named: dict[str, list[str]] = {name: [] for name in CELL[:-1]}
    for part in claim.parts:
        for name, values in _named(part).items():
            if name in named:
                named[name] = list(dict.fromkeys([*named[name], *values]))
    words = {
        name: _list([_word(name, value) for value in values]) for name, values in named.items() if values
    }
    datasets = named["dataset"]
    if any("table2" in part for part in claim.parts) and datasets:
        several = "synergy" in datasets and len(datasets) > 1
        one = _word("mitigation", SHOWN_WITH[datasets[0]])
        words["mitigation"] = "with ModDrop, Synergy without it" if several else one
    elif len(named["mitigation"]) > 1:
        words["mitigation"] = "with and without ModDrop"
    tests = {part["test"] for part in claim.parts}
    if tests & {"order", "gains", "converge"}:
        words["more"] = f"{MIN_RANKED} methods or more"
    elif "multimodal" in tests:
        words["more"] = "all methods"
    elif any("not random" in str(part.get("left")) for part in claim.parts):
        words["more"] = "other methods"
    return "; ".join(words.values() if datasets else ["runs of two settings", *words.values()])


def comparable(accuracies: pd.DataFrame) -> pd.DataFrame:
    """The paper's cells in its order, with what claims look at.

    `level` is 0 at chance and 1 at the ceiling, `spread` its deviation; `share` is the accuracy as a share of
    the ceiling; `role` is weak, strong or joint; `table2` whether Tables 2 and 4 show the mitigation.
    """
    lacking = [name for name in ACCURACY_COLUMNS if name not in accuracies]
    if lacking:
        raise ReportError(f"accuracies lack the columns {', '.join(lacking)}; make them with mean_accuracies")
    known = {"dataset": PAPER_DATASETS, "mitigation": PAPER_MITIGATIONS, "query": PAPER_METHODS}
    order = {name: list(names.values()) for name, names in known.items()} | {"regime": list(REGIMES)}
    cells = accuracies[accuracies[list(order)].isin(order).all(axis=1)]
    twice = cells[cells.duplicated(CELL)]
    if len(twice):
        raise ReportError(
            f"the cell {', '.join(twice[CELL].iloc[0])} is there twice; judge the runs of one scale at a time"
        )
    cells = cells.sort_values(
        CELL, key=lambda part: part.map(order[part.name].index) if part.name in order else part
    )
    room = (cells["ceiling"] - cells["chance"]).astype(float)
    role = (cells["subset"] == cells["dataset"].map(ITALIC)).map({True: "weak", False: "strong"})
    cells = cells.assign(
        level=(cells["mean"] - cells["chance"]) / room,
        spread=cells["std"] / room,
        share=cells["mean"] / cells["ceiling"],
        role=role.mask(cells["subset"].str.contains("+", regex=False), "joint"),
        table2=cells["mitigation"] == cells["dataset"].map(SHOWN_WITH),
    )
    return cells[[*CELL, *ROLE_COLUMNS, "n_seeds", "level", "spread", "share"]].reset_index(drop=True)


def _select(cells: pd.DataFrame, **wanted: Any) -> pd.DataFrame:
    """The cells with these values; "not x" takes all but x."""
    for name, value in wanted.items():
        if str(value).startswith("not "):
            cells = cells[cells[name] != value.removeprefix("not ")]
        else:
            cells = cells[cells[name].isin(_values(value))]
    return cells


# Tests: the cells of one scope, and the options of the part; None where they lack what is asked


def compare(
    cells: pd.DataFrame,
    left: Mapping[str, str],
    right: Mapping[str, str],
    how: str,
    often: str = "always",
    each: str | None = None,
    groups: Sequence[str] = (),
    far: Mapping[str, str] | None = None,
) -> Finding | None:
    """How often the cells of `left` are in the relation `how` to those of `right` with the same other keys.

    With `each` every group is judged by itself, and all `groups` must be there. The spread takes both sides
    as independent; runs of one seed share their split, so it is rather too wide.
    """
    unit = "share" if how == "close" else "level"
    differ = {{"role": "subset"}.get(name, name) for name in left}
    same = [name for name in CELL if name not in differ]
    sides = [_select(cells, **side) for side in (left, right)]
    pairs = sides[0].merge(sides[1], on=same, suffixes=("", "_right"))
    pairs["lead"] = (pairs[unit] - pairs[f"{unit}_right"]).round(DIGITS)
    pairs["spread"] = (pairs["spread"] ** 2 + pairs["spread_right"] ** 2).pow(0.5).round(DIGITS)
    if far is not None:
        pairs = pairs.merge(_select(cells, **far)[[*same, unit]], on=same, suffixes=("", "_far"))
        pairs["far"] = (pairs[unit] - pairs[f"{unit}_far"]).round(DIGITS)
    if pairs.empty or (each and not set(groups) <= set(pairs[each])):
        return None
    words, test = HOW[how]
    pairs["seen"] = test(pairs)
    parts: list[tuple[Any, pd.Series]] = [(None, pairs["seen"])]
    if each:
        parts = list(pairs.groupby(each, sort=False)["seen"])
    holds = all(OFTEN[often](seen.mean()) for _, seen in parts)
    name = "median difference, as a share of the ceiling" if how == "close" else "median difference in level"
    shown = [*same, *(name for name in differ if name == "query")]
    detail = _on(pairs, same) + words.format(left=_side(left), right=_side(right))
    detail += f" in {_count(pairs, pairs['seen'], shown)}"
    if each and pairs[each].nunique() > 1:
        told = [part for part in parts if each != "query" or part[1].any()]
        counts = [f"{_word(each, one)} {seen.sum()} of {len(seen)}" for one, seen in told]
        detail += f": {_list(counts)}" if counts else ""
    low, high = _signed(pairs["lead"].min()), _signed(pairs["lead"].max())
    detail += f"; by {low}." if low == high else f"; by {low} to {high}."
    return Finding(holds, float(pairs["lead"].median()), name, detail[0].upper() + detail[1:])


def near_chance(cells: pd.DataFrame, often: str = "mostly") -> Finding:
    """How often the level is at most NEAR_CHANCE."""
    seen, best = cells["level"] <= NEAR_CHANCE, cells["level"].max()
    detail = f"Near chance in {_count(cells, seen, CELL)}; the highest level is {best:.2f}."
    return Finding(OFTEN[often](seen.mean()), float(cells["level"].median()), "median level", detail)


def order(
    cells: pd.DataFrame,
    by: str | Sequence[str] = "regime",
    places: Mapping[str, Mapping[str, str]] | None = None,
    leads: Sequence[str] = (),
    throughout: bool = True,
) -> Finding | None:
    """Places by the sum of ranks over the settings (dataset and regime) of each group.

    `places`: the place that a method is to have in a group ("every": in all); `leads`: methods that are each
    first in one group or more; `throughout` false: none is first in all.
    """
    places = places or {}
    asked = list(dict.fromkeys([*(query for one in places.values() for query in one), *leads]))
    sums = _rank_sums(cells, by)
    if sums is None or not set(asked) <= set(sums) or not set(places) - {"every"} <= set(sums.index):
        return None
    taken, n = sums.rank(axis=1, method="min"), sums.shape[1]
    found = [
        _place_is(taken[query][group], place, n)
        for where, one in places.items()
        for group in (taken.index if where == "every" else [where])
        for query, place in one.items()
    ]
    found += [bool((taken[query] == 1).any()) for query in leads]
    if not throughout:
        if len(taken) < 2:
            return None
        found.append(not (taken == 1).all().any())
    detail = f"Of {n} methods, {_placed(sums, taken, asked)}."
    share = sum(found) / len(found)
    return Finding(all(found), share, "share of what is said of places that is so", detail)


def _rank_sums(cells: pd.DataFrame, by: str | Sequence[str]) -> pd.DataFrame | None:
    """Groups x methods; None where too few methods have a run of every setting."""
    setting = ["dataset", "regime"]
    levels = cells.pivot(index=setting, columns="query", values="level").dropna(axis=1)
    settings = levels.reset_index()[setting]
    datasets = settings.groupby("regime")["dataset"].agg(frozenset)
    uneven = by == "regime" and datasets.nunique() > 1  # sums over other datasets in one regime
    if uneven or levels.shape[1] < MIN_RANKED:
        return None
    ranks = levels.rank(axis=1, ascending=False)
    sums = ranks.groupby(level=by, sort=False).sum()
    known = [regime for regime in REGIMES if regime in sums.index]
    return sums.loc[known] if by == "regime" else sums


def _place_is(place: float, wanted: str, n: int) -> bool:
    last = {"first": (1, 1), "second": (2, 2), "last": (n, n), "upper half": (1, (n + 1) / 2)}
    low, high = last[wanted]
    return bool(low <= place <= high)


def _placed(sums: pd.DataFrame, places: pd.DataFrame, asked: Sequence[str]) -> str:
    """ "low: KCG first (11), BALD 7th (22)": who is first or asked for; of many groups, how often first."""
    if len(places) > len(REGIMES):
        often = (places == 1).sum().sort_values(ascending=False, kind="stable")
        counts = [
            f"{method_name(str(query))} is first in {n} of {len(places)}" for query, n in often.items() if n
        ]
        return _list(counts)
    ordinals, words = {1: "first", 2: "second", 3: "third"}, []
    for group in places.index:
        one = places.loc[group]
        shown = [*one.index[one == 1], *(query for query in asked if one[query] > 1)]
        told = []
        for query in shown:
            total = f" ({sums[query][group]:g})" if sums[query][group] != one[query] else ""
            told.append(f"{method_name(query)} {ordinals.get(one[query], f'{one[query]:.0f}th')}{total}")
        names = [group] if isinstance(group, str) else group
        where = " ".join(_word("dataset", name) for name in names)
        words.append(f"{where}: {', '.join(told)}")
    return "; ".join(words)


def gains(cells: pd.DataFrame, queries: Sequence[str]) -> Finding | None:
    """Whether each of `queries` leads the best of the other methods beyond the spread in some regime."""
    others = cells[~cells["query"].isin(queries)]
    if others["query"].nunique() + len(queries) < MIN_RANKED:
        return None
    best = others.loc[others.groupby("regime", sort=False)["level"].idxmax()]
    pairs = _select(cells, query=list(queries)).merge(best, on="regime", suffixes=("", "_best"))
    pairs["lead"] = (pairs["level"] - pairs["level_best"]).round(DIGITS)
    pairs["spread"] = (pairs["spread"] ** 2 + pairs["spread_best"] ** 2).pow(0.5).round(DIGITS)
    told = pairs.loc[(pairs["lead"] - pairs["spread"]).groupby(pairs["query"], sort=False).idxmax()]
    beyond = told["lead"] > told["spread"]
    words = [
        f"{method_name(one.query)} in {one.regime} by {_signed(one.lead)} (spread {one.spread:.2f})"
        for one in rows_of(told)
    ]
    name, detail = "share of the methods named that do so", f"The clearest lead of each: {_list(words)}."
    return Finding(bool(beyond.all()), float(beyond.mean()), name, detail)


def converge(cells: pd.DataFrame) -> Finding | None:
    """Whether the levels of the methods range less than their mean spread, in each regime."""
    if cells["query"].nunique() < MIN_RANKED:
        return None
    parts = cells.groupby("regime", sort=False)
    ranges, spreads = parts["level"].max() - parts["level"].min(), parts["spread"].mean()
    words = [f"{ranges[r]:.2f} in {r} (mean spread {spreads[r]:.2f})" for r in ranges.index]
    name = "largest range as a share of the mean spread"
    most, detail = float((ranges / spreads).max()), f"Highest less lowest level: {_list(words)}."
    return Finding(bool((ranges < spreads).all()), most, name, detail)


def multimodal(cells: pd.DataFrame) -> Finding | None:
    """Whether no multimodal method consistently has the higher mean against each unimodal one."""
    rivals = cells[~cells["query"].isin(MULTIMODAL)]
    ours = _select(cells, query=list(MULTIMODAL))
    pairs = ours.merge(rivals, on=["dataset", "mitigation", "regime", "subset"], suffixes=("", "_rival"))
    if set(pairs["query_rival"]) != set(PAPER_METHODS.values()) - set(MULTIMODAL):
        return None
    pairs["won"] = pairs["level"] > pairs["level_rival"]
    most, words = 0.0, []
    for query, part in parts_of(pairs, "query"):
        wins = part.groupby("query_rival", sort=False)["won"].agg(["mean", "sum", "size"])
        rival = str(wins["mean"].idxmin())
        most = max(most, float(wins["mean"].min()))
        words.append(
            f"{method_name(query)} is above {method_name(rival)} in "
            f"{wins['sum'][rival]} of {wins['size'][rival]}"
        )
    name = "share of the pairs that the better multimodal method wins against its hardest unimodal rival"
    detail = f"Against its hardest rival {_list(words)} pairs ({_scope(pairs[['dataset', 'regime']])})."
    return Finding(most < CONSISTENTLY, most, name, detail)


TESTS: Mapping[str, Callable[..., Finding | None]] = {
    test.__name__: test for test in (compare, near_chance, order, gains, converge, multimodal)
}


# Words


def _signed(number: float) -> str:
    return f"{round(number, 2) + 0.0:+.2f}".replace("-", "−")  # + 0.0 makes minus zero plus


def _list(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _on(pairs: pd.DataFrame, same: Sequence[str]) -> str:
    """ "CIFAR-10: ", where all pairs are of one subset."""
    subsets = pairs["subset"].unique().tolist() if "subset" in same else []
    return f"{_word('subset', subsets[0])}: " if len(subsets) == 1 else ""


def _side(side: Mapping[str, str]) -> str:
    """ "frequent", "both", "with ModDrop", "any method": what one side of a comparison has."""
    ((name, value),) = side.items()
    return "any method" if value.startswith("not ") else _word(name, value)


def _word(name: str, value: str) -> str:
    if name == "dataset":
        return dataset_name(value)
    if name == "query":
        return method_name(value)
    if name == "mitigation":
        return "with ModDrop" if value == "moddrop" else "without ModDrop"
    if name == "role":
        return "both" if value == "joint" else f"the {value} modality"
    return subset_title(value, [value]) if name == "subset" else value


def _scope(rows: pd.DataFrame) -> str:
    """What was judged: "low and mid; with ModDrop; 7 methods", with the datasets or subsets if several."""
    words = {name: [_word(name, value) for value in rows[name].unique()] for name in CELL if name in rows}
    parts = [_list(words[name]) for name in ("dataset", "subset") if len(words.get(name, ())) > 1]
    parts.append(_list([regime for regime in REGIMES if regime in words["regime"]]))
    if "mitigation" in words:
        both = len(words["mitigation"]) > 1
        parts.append("with and without ModDrop" if both else words["mitigation"][0])
    if "query" in words:
        several = len(words["query"]) > 2
        parts.append(f"{len(words['query'])} methods" if several else _list(words["query"]))
    return "; ".join(parts)


def _count(rows: pd.DataFrame, seen: pd.Series, names: Sequence[str]) -> str:
    """How often something is seen, and in what: "4 of 7 (low; with ModDrop; 7 methods)"."""
    return f"{seen.sum()} of {len(rows)} ({_scope(rows[list(dict.fromkeys(names))])})"
