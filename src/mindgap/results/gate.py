"""The gate before any ranking: it asks whether runs of Random show what the dataset is made to show.

`gate.yaml` has the criteria. In a setting that fails one no method is ranked: a method cannot mend an
imbalance that is not there, and curves that do not rise have no order. With too few runs the gate is not
evaluated, and the page says so.

Numbers are levels (`aulc.level`). The residual deviation is the spread of seeds around their own mean curve:
the root of the mean over rounds of the variance over seeds (seeds - 1 in its denominator).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from mindgap.results.aulc import DIGITS, aulc, half_width, level, levels, spread, with_roles
from mindgap.results.claims import CLOSE, NEAR_CHANCE, UNKNOWN
from mindgap.results.curves import SETTING, Selection
from mindgap.results.names import CONTROLS
from mindgap.results.paper import SHOWN_WITH
from mindgap.results.statistics import BASELINE

FILE = Path(__file__).with_name("gate.yaml")
GATE_SEEDS = 5
RISE = 2  # residual deviations
PASSED, FAILED = "passed", "failed"
SO, NOT_SO = "stated: so", "stated: not so"
GATE_COLUMNS = [
    *("criterion", *SETTING, "n_seeds", "effect", "low", "high", "bound", "n_so", "verdict", "sentence"),
]
SettingName = tuple[str, str, str]
# Of a value, or one for each seed, and the bound.
TESTS: Mapping[str, Callable[[Any, float], Any]] = {
    "above": lambda value, bound: value > bound,
    "within": lambda value, bound: abs(value) <= bound,
    "near chance": lambda value, bound: value <= bound,
    "rises": lambda value, bound: value >= bound,
}
NO_RUNS = pd.DataFrame(columns=[0, 1], index=pd.Index([], name="seed"), dtype=float)
BOUNDS = {"above": 0.0, "within": CLOSE, "near chance": NEAR_CHANCE}


@dataclass(frozen=True)
class Criterion:
    """One entry of gate.yaml."""

    name: str
    sentence: str
    test: str
    left: Mapping[str, str]
    right: Mapping[str, str] | None = None
    dataset: Sequence[str] = ()
    regime: Sequence[str] = ()
    shown: bool = False
    statement: bool = False

    def asked_of(self, dataset: str, regime: str) -> bool:
        return dataset in (self.dataset or [dataset]) and regime in (self.regime or [regime])

    def asked_with(self, dataset: str, mitigations: Sequence[str]) -> list[str]:
        """The mitigations of which it is asked, one by one; "" where it compares two."""
        if "mitigation" in self.left:
            return [""]
        shown = SHOWN_WITH.get(dataset) if self.shown else None
        return [name for name in mitigations if name == (shown or name)]


@dataclass(frozen=True, eq=False)
class Gate:
    """`rows`: each criterion in each setting (GATE_COLUMNS; the mitigation is empty where two are compared).

    `verdicts`: PASSED, FAILED or UNKNOWN by dataset, regime and mitigation, with the names of the criteria
    that are not passed. `closed` says why nothing was asked; empty where it was.
    """

    rows: pd.DataFrame
    verdicts: Mapping[SettingName, tuple[str, str]]
    closed: str = ""

    @property
    def failed(self) -> dict[SettingName, str]:
        """The settings in which nothing is ranked, with the criteria that failed."""
        return {setting: names for setting, (verdict, names) in self.verdicts.items() if verdict == FAILED}


@cache
def criteria() -> tuple[Criterion, ...]:
    return tuple(Criterion(**entry) for entry in yaml.safe_load(FILE.read_text(encoding="utf-8")))


def gate_of(curves: pd.DataFrame, selection: Selection) -> Gate:
    """The gate of the runs of Random among these curves.

    Nothing is asked at scale paper, nor of a dataset that declares no modality weak.
    """
    if selection.scale == "paper":
        why = "at scale paper the runs are the paper's own experiments, and its claims are asked of them"
        return Gate(pd.DataFrame(columns=GATE_COLUMNS), {}, why)
    points = _of_roles(curves[curves["query"] == BASELINE], selection.weak)
    points = points.assign(level=level(points["balanced_accuracy"], points["chance"], points["ceiling"]))
    runs = {
        key: part.pivot_table("level", "seed", "round", "min")
        for key, part in points.dropna(subset=["level"]).groupby([*SETTING, "role"])
    }
    there = set(curves[SETTING].itertuples(index=False, name=None))
    asked = product([pair for pair in selection.pairs if pair[0] in selection.weak], selection.mitigations)
    settings = [setting for pair, mitigation in asked if (setting := (*pair, mitigation)) in there]
    rows = pd.DataFrame(list(_rows(runs, settings)), columns=GATE_COLUMNS)
    return Gate(rows, {setting: _verdict(rows, *setting) for setting in settings})


def _of_roles(frame: pd.DataFrame, weak: Mapping[str, str]) -> pd.DataFrame:
    """The rows of datasets with a weak modality, with their roles."""
    return with_roles(frame[frame["dataset"].isin(list(weak))], weak)


def _rows(runs: Mapping[Any, pd.DataFrame], settings: Sequence[SettingName]) -> Iterator[tuple[Any, ...]]:
    """GATE_COLUMNS of each criterion in each setting that it is asked of.

    `runs`: levels, seeds x rounds, by setting and role.
    """
    mitigations: dict[tuple[str, str], list[str]] = {}
    for dataset, regime, mitigation in settings:
        mitigations.setdefault((dataset, regime), []).append(mitigation)
    for (dataset, regime), criterion in product(mitigations, criteria()):
        if not criterion.asked_of(dataset, regime):
            continue
        for mitigation in criterion.asked_with(dataset, mitigations[dataset, regime]):
            sides = [
                runs.get((dataset, regime, side.get("mitigation", mitigation), side["role"]), NO_RUNS)
                for side in (criterion.left, criterion.right)
                if side
            ]
            told = _judged(criterion, *_values(criterion.test, *sides))
            yield criterion.name, dataset, regime, mitigation, *told, criterion.sentence


def _values(test: str, left: pd.DataFrame, right: pd.DataFrame | None = None) -> tuple[pd.Series, float]:
    """By seed what a test looks at, and its bound; the sides are seeds x rounds."""
    if test == "rises":
        values, bound = left.iloc[:, -1] - left.iloc[:, 0], RISE * residual_deviation(left)
    else:
        values, bound = _along(left), BOUNDS[test]
    if right is not None:
        values = (values - _along(right)).dropna()
    return values.round(DIGITS), bound


def _along(curves: pd.DataFrame) -> pd.Series:
    """The mean level along each seed's curve."""
    means = [aulc(run) / (len(run) - 1) for run in curves.to_numpy().tolist()]
    return pd.Series(means, curves.index, dtype=float)


def _judged(criterion: Criterion, values: pd.Series, bound: float) -> tuple[Any, ...]:
    """GATE_COLUMNS from n_seeds to verdict; `values` has one a seed."""
    is_so = TESTS[criterion.test]
    n, mean = len(values), values.mean()
    half = half_width(spread(values.tolist()), n)
    n_so = int(is_so(values, bound).sum())
    holds = is_so(mean - half if criterion.test == "above" else mean, bound) or n_so == n
    verdicts = (SO, NOT_SO) if criterion.statement else (PASSED, FAILED)
    verdict = verdicts[not holds] if n >= GATE_SEEDS else UNKNOWN
    return n, mean, mean - half, mean + half, bound, n_so, verdict


def residual_deviation(curves: pd.DataFrame) -> float:
    """Seeds x rounds: the root of the mean over rounds of the variance over seeds; NaN for one seed."""
    return math.sqrt(curves.var(ddof=1).mean())


def _verdict(rows: pd.DataFrame, dataset: str, regime: str, mitigation: str) -> tuple[str, str]:
    """FAILED where a criterion is, else UNKNOWN where one lacks runs, and the names of these; else PASSED."""
    gating = ~rows["criterion"].isin([one.name for one in criteria() if one.statement])
    here = (rows["dataset"] == dataset) & (rows["regime"] == regime)
    of_setting = rows[gating & here & rows["mitigation"].isin([mitigation, ""])]
    for verdict in (FAILED, UNKNOWN):
        names = of_setting.loc[of_setting["verdict"] == verdict, "criterion"]
        if len(names):
            return verdict, ", ".join(names)
    return PASSED, ""


def weak_levels(seeds: pd.DataFrame, weak: Mapping[str, str]) -> pd.DataFrame:
    """Whether the modality that is declared weak is the weak one, whatever runs there are.

    A row per setting: mean levels of the `weak` and the `strong` one over the runs of all query methods, the
    number of `runs`, and in how many of them the weak one is `lower`.
    """
    areas = _of_roles(seeds[~seeds["query"].isin(CONTROLS)], weak)
    keys = [*SETTING, "query", "seed", "role"]
    pairs = areas.assign(level=levels(areas)).groupby(keys, sort=False)["level"].min().unstack()
    pairs = pairs.reindex(columns=["weak", "strong"]).dropna()
    pairs = pairs.assign(lower=pairs["weak"] < pairs["strong"], runs=1)
    told = {"weak": "mean", "strong": "mean", "lower": "sum", "runs": "sum"}
    return pairs.groupby(SETTING, sort=False).agg(told).reset_index()
