"""Computes all that a report says, before the first file is written: `content_of` makes a `Content`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path

import pandas as pd

from mindgap.results import tables
from mindgap.results.aulc import mean_accuracies, per_seed, tidy
from mindgap.results.balance import BEYOND_COLUMNS, bought, measured_tables
from mindgap.results.claims import FAILS, HOLDS, judge
from mindgap.results.comparison import compare, summary
from mindgap.results.curves import Selection
from mindgap.results.effects import effects
from mindgap.results.gate import Gate, gate_of, weak_levels
from mindgap.results.names import CONTROLS, scale_name, subset_order
from mindgap.results.paper import WEAK as PAPER_WEAK
from mindgap.results.paper import (
    misprints,
    not_in_paper,
    paper_accuracies,
    published_rank_sums,
    with_paper,
)
from mindgap.results.paper_tables import PaperTable, paper_tables
from mindgap.results.power import Power, detectable, power
from mindgap.results.preregistered import preregistered
from mindgap.results.provenance import Origin
from mindgap.results.rank_comparison import rank_sum_comparison
from mindgap.results.reading import parts_of
from mindgap.results.scales import changes_of, summary_of
from mindgap.results.sensitivity import (
    Collected,
    bald_against_random,
    over_methods,
    sensitivity_table,
    sentences,
    wide_table,
)
from mindgap.results.speed_up import speed_ups
from mindgap.results.statistics import BASELINE, TARGETS, Statistics, statistics

FEWEST_LINES = 3  # mitigations that a figure of their own compares


@dataclass(frozen=True)
class Inputs:
    """What a report is made of, read and checked: `about` is a kept report's paragraph about itself."""

    curves: pd.DataFrame
    origins: Sequence[Origin] = ()
    searches: pd.DataFrame = field(default_factory=pd.DataFrame)
    variants: Sequence[Collected] = ()
    about: str = ""
    diagnosis: pd.DataFrame = field(default_factory=pd.DataFrame)
    measured: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=BEYOND_COLUMNS))


@dataclass(frozen=True)
class Sensitivity:
    """What the variants of a folder come to, in files (by its `name`) and in a table for the page.

    `asked`: the overrides that make the default.
    """

    name: str
    title: str
    about: str
    methods: pd.DataFrame
    queries: pd.DataFrame
    lead: pd.DataFrame
    shown: pd.DataFrame
    sentences: Sequence[str]
    asked: str


@dataclass(frozen=True)
class Content:
    """`table` is the tidy AULC table, `order` the subsets of each dataset as they are shown, `claims` has our
    verdicts and, in columns of the same names behind `paper_`, those of the paper's own numbers; `power` is
    what its three seeds can tell. `changes` lists how settings differ from the scale's; `scale` is the
    scale's name with a word on it. `weak_levels`, `detectable` and `effects` have every setting, whatever its
    gate, `speed_ups` those that are ranked; `bought` is what methods had labelled, where that was measured.
    """

    selection: Selection
    inputs: Inputs
    table: pd.DataFrame
    order: Mapping[str, Sequence[str]]
    tables: Sequence[tables.Table]
    paper_tables: Sequence[PaperTable]
    comparison: pd.DataFrame
    ranks: pd.DataFrame
    summary: pd.DataFrame
    misprints: pd.DataFrame
    claims: pd.DataFrame
    power: Power
    statistics: Sequence[Statistics]
    sensitivity: Sequence[Sensitivity]
    changes: Sequence[str]
    gate: Gate
    weak_levels: pd.DataFrame
    detectable: pd.DataFrame
    speed_ups: pd.DataFrame
    bought: pd.DataFrame
    effects: pd.DataFrame
    preregistered: pd.DataFrame

    @cached_property
    def by_mitigation(self) -> dict[str, pd.DataFrame]:
        """Random's curves of each dataset that has them with three mitigations or more, "none" being one."""
        of_random = self.inputs.curves[self.inputs.curves["query"] == BASELINE]
        parts = parts_of(of_random, "dataset")
        return {dataset: part for dataset, part in parts if part["mitigation"].nunique() >= FEWEST_LINES}

    def has_figures(self, dataset: str, mitigation: str) -> bool:
        """Whether a mitigation has figures of its own: not where one line of `by_mitigation` says it all."""
        rows = (self.table["dataset"] == dataset) & (self.table["mitigation"] == mitigation)
        alone = set(self.table.loc[rows, "query"]) == {BASELINE}
        in_paper = not not_in_paper([], [mitigation])
        return in_paper or not alone or dataset not in self.by_mitigation

    @property
    def scale(self) -> str:
        return _scale(self.table, self.selection)

    def scale_of(self, dataset: str, mitigation: str) -> str:
        """As `scale`, of the runs of a dataset and mitigation."""
        rows = (self.table["dataset"] == dataset) & (self.table["mitigation"] == mitigation)
        return _scale(self.table[rows], self.selection)


def _scale(table: pd.DataFrame, selection: Selection) -> str:
    return scale_name(selection.scale, *table["changed"].unique())


def content_of(inputs: Inputs, paper_dir: Path, selection: Selection) -> Content:
    """Everything that follows from the inputs and the paper's numbers. Raises ReportError."""
    curves = inputs.curves
    order: dict[str, list[str]] = {
        dataset: subset_order(list(part["subset"].unique())) for dataset, part in parts_of(curves, "dataset")
    }
    changes = changes_of(inputs.origins, selection)
    table = tidy(curves, order)
    cells = table[["dataset", "regime", "mitigation", "query"]].itertuples(index=False, name=None)
    table = with_paper(table.assign(changed=["; ".join(changes[cell]) for cell in cells]), paper_dir)
    seeds = per_seed(curves)
    gate = gate_of(curves, selection)
    selection = replace(selection, unranked=gate.failed)
    comparison = compare(table, paper_dir)
    ranks = rank_sum_comparison(comparison, paper_dir, selection.unranked)
    ranked = selection.ranked(seeds)
    return Content(
        selection=selection,
        inputs=inputs,
        table=table,
        order=order,
        tables=[*all_tables(table, selection, ranked), *measured_tables(inputs.measured, order, selection)],
        paper_tables=paper_tables(table, selection, published_rank_sums(paper_dir), ranked),
        comparison=comparison,
        ranks=ranks,
        summary=summary(comparison, ranks, selection.unranked),
        misprints=misprints(paper_dir),
        claims=all_claims(table, paper_dir, selection),
        power=power(paper_accuracies(paper_dir)),
        statistics=all_statistics(curves, selection),
        sensitivity=[sensitivity_of(one) for one in inputs.variants],
        changes=summary_of(changes),
        gate=gate,
        weak_levels=weak_levels(seeds, selection.weak),
        detectable=detectable(seeds),
        speed_ups=speed_ups(selection.ranked(curves)),
        bought=bought(inputs.measured, order),
        effects=effects(seeds, selection.weak),
        preregistered=preregistered(seeds, selection),
    )


def all_tables(table: pd.DataFrame, selection: Selection, seeds: pd.DataFrame) -> list[tables.Table]:
    """Weak modality and ranks first, then each dataset with each mitigation; `seeds` is as of `per_seed`."""
    made = []
    for mitigation in selection.mitigations:
        made += [
            tables.weak_table(table, mitigation, selection, seeds),
            tables.rank_table(table, mitigation, selection, seeds),
        ]
    there = set(table[["dataset", "mitigation"]].itertuples(index=False, name=None))
    for dataset, mitigation in product(selection.datasets, selection.mitigations):
        if (dataset, mitigation) in there:
            made.append(tables.dataset_table(table, dataset, mitigation, selection, seeds))
    return [one for one in made if one is not None]


def all_claims(table: pd.DataFrame, paper_dir: Path, selection: Selection) -> pd.DataFrame:
    """Each claim judged by our numbers and by the paper's own.

    A verdict that rests on runs of other settings than the scale's names them: "holds (paper, changed)".
    """
    ours = judge(mean_accuracies(table), selection=selection)
    own = judge(mean_accuracies(table[table["changed"] == ""]), selection=selection)
    judged = ours["verdict"].isin([HOLDS, FAILS])
    others = judged & (ours[["verdict", "detail"]] != own[["verdict", "detail"]]).any(axis=1)
    told = ours["verdict"] + f" ({_scale(table, selection)})"
    ours = ours.assign(verdict=ours["verdict"].mask(others, told))
    theirs = judge(paper_accuracies(paper_dir))
    beside = theirs[["verdict", "effect", "effect_name", "detail"]].add_prefix("paper_")
    return pd.concat([ours, beside], axis=1)


def all_statistics(curves: pd.DataFrame, selection: Selection) -> list[Statistics]:
    """Of each mitigation on the weak modalities, where there are any, and on all modalities together.

    Settings that are not ranked are left out, and a mitigation or target without any that is.
    """
    compared = [query for query in selection.queries if query not in CONTROLS]
    if len(compared) < 2:
        return []
    ranked, made = selection.ranked(curves), []
    for mitigation, target in product(selection.mitigations, TARGETS):
        datasets = selection.datasets if target == "all" else list(selection.weak)
        here = ranked[(ranked["mitigation"] == mitigation) & ranked["dataset"].isin(datasets)]
        if len(here):
            one = statistics(here, selection.weak, mitigation, target)
            left_out = selection.unranked_note(product(datasets, selection.regimes, [mitigation]))
            made.append(replace(one, note=f"{one.note} {left_out}".strip()))
    return made


def sensitivity_of(collected: Collected) -> Sensitivity:
    """What was collected of a folder of variants; they have datasets of their own."""
    variants, asked = collected.variants, (collected.curves, collected.variants, PAPER_WEAK)
    methods = over_methods(*asked)
    return Sensitivity(
        collected.name,
        variants.title,
        variants.about,
        methods,
        sensitivity_table(*asked),
        bald_against_random(*asked),
        wide_table(methods),
        sentences(methods),
        " ".join(variants.base),
    )
