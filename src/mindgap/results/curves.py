"""Reads the learning curves that a report is made of; whatever would make a number wrong is refused."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mindgap.core.records import CURVE_COLUMNS
from mindgap.results.flow import FlowRows, mend_for
from mindgap.results.names import dataset_name, mitigation_name
from mindgap.results.reading import Fault, ReportError, checking, read_table

KEYS = ["mitigation", "query", "seed"]
POINTS = ["balanced_accuracy", "accuracy", "ece"]  # the evaluators that curves are made of
NUMBERS = [*POINTS, "chance", "ceiling"]
SETTING = ["dataset", "regime", "mitigation"]
OVER_SEEDS = [*SETTING, "query"]  # what runs have in common that differ in their seeds alone
COUNTS = ["seed", "rounds", "round", "labelled"]
COLUMNS = list(CURVE_COLUMNS)


@dataclass(frozen=True)
class Selection:
    """What a report is about: all combinations of these, or of some combinations only (`there`).

    `weak`: each dataset's weak modality, if any; `flows`: what its data stage dropped; `skipped`: datasets
    that could not be made for want of their files, and the line that says which; `unranked`: by dataset,
    regime and mitigation why no method is ranked there (`gate.Gate.failed`); `there`: the datasets and
    regimes that have runs, where runs may be missing (holes); empty where every combination has one.
    """

    scale: str
    datasets: Sequence[str]
    regimes: Sequence[str]
    queries: Sequence[str]
    mitigations: Sequence[str]
    seeds: Sequence[int]
    weak: Mapping[str, str] = field(default_factory=dict)
    flows: Mapping[str, FlowRows] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    unranked: Mapping[tuple[str, str, str], str] = field(default_factory=dict)
    there: Sequence[tuple[str, str]] = ()

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The datasets and regimes that have runs."""
        return list(self.there or product(self.datasets, self.regimes))

    def ranked(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows of the settings in which methods are ranked."""
        settings = zip(frame["dataset"], frame["regime"], frame["mitigation"], strict=True)
        return frame[np.array([setting not in self.unranked for setting in settings], dtype=bool)]

    def unranked_note(self, settings: Iterable[tuple[str, str, str]]) -> str:
        """Which of these settings are not ranked, and why; empty where all are."""
        wanted, regimes = set(settings), dict[tuple[str, str], list[str]]()
        for (dataset, regime, mitigation), why in self.unranked.items():
            if (dataset, regime, mitigation) in wanted:
                place = f"{dataset_name(dataset)}, {mitigation_name(mitigation)}"
                regimes.setdefault((place, why), []).append(regime)
        told = "; ".join(
            f"{place}, {' and '.join(names)} (not so: {why})" for (place, why), names in regimes.items()
        )
        return f"Not ranked, as the gate failed: {told}." if told else ""


def read_curves(curves_dir: Path, selection: Selection) -> pd.DataFrame:
    """The rows of the selected runs, checked, in the order of the selection."""
    for name in ("datasets", "regimes", "queries", "mitigations", "seeds"):
        values = list(getattr(selection, name))
        if not values:
            raise ReportError(f"nothing to report: the selection has no {name}")
        if len(set(values)) < len(values):
            raise ReportError(
                f"the selection has {name} twice: {', '.join(map(str, values))}; name each once"
            )
    files = [_read_file(curves_dir, *pair, selection) for pair in selection.pairs]
    return pd.concat(files, ignore_index=True)


def read_curve_file(path: Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    """One file as it is. Digests stay text ("0012345678901234" is no number).

    Floats keep every bit: pandas' own parser may be off by the last. What is no number becomes NaN.
    """
    frame = read_table(path, columns, _mend(path)).reset_index(drop=True)
    numbers = [name for name in NUMBERS + COUNTS if name in frame]
    frame = frame.assign(**{name: [number(text) for text in frame[name]] for name in numbers})
    whole = [name for name in COUNTS if name in frame and (frame[name] % 1 == 0).all()]
    return frame.astype(dict.fromkeys(whole, "int64"))


def number(text: str) -> float:
    """A number as Python and DVC write them; NaN for any other text."""
    return float(text) if re.fullmatch(r"-?\d+(\.\d+)?(e[-+]?\d+)?", text, re.ASCII) else math.nan


def _mend(path: Path) -> str:
    return mend_for(path, "acquire")


def _read_file(curves_dir: Path, dataset: str, regime: str, selection: Selection) -> pd.DataFrame:
    path = Path(curves_dir) / f"{dataset}-{regime}.csv"
    frame = read_curve_file(path, CURVE_COLUMNS)[COLUMNS]
    chosen = (selection.mitigations, selection.queries, selection.seeds)
    with checking(path, _mend(path)):
        _check_numbers(frame)
        for name, values in zip(KEYS, chosen, strict=True):
            frame = frame[frame[name].isin(values)]
        _check_identity(frame, {"scale": selection.scale, "dataset": dataset, "regime": regime})
        runs = dict(iter(frame.groupby(KEYS, sort=False)))
        parts = []
        for key in product(*chosen):
            if key in runs:
                parts.append(_checked_run(key, runs[key]))
            elif not selection.there:
                raise Fault(f": run {_name(key)} is missing")
        if not parts:
            raise Fault(": no run of the selection is there")
        frame = pd.concat(parts, ignore_index=True)
        _check_together(frame)
    return frame


def _name(key: Iterable[Any]) -> str:
    mitigation, query, seed = key
    return f"{query}, {mitigation}, seed {seed}"


def _check_identity(frame: pd.DataFrame, identity: Mapping[str, str]) -> None:
    for name, wanted in identity.items():
        for _, row in frame[frame[name] != wanted].iterrows():
            raise Fault(f": run {row['run']} ({_name(row[KEYS])}) is of {name} {row[name]!r}, not {wanted!r}")


def _check_numbers(frame: pd.DataFrame) -> None:
    for name in NUMBERS + COUNTS:
        whole = frame[name] % 1 == 0 if name in COUNTS else True
        for place, row in frame[~(np.isfinite(frame[name]) & whole)].iterrows():
            run = f"run {row['run']} ({_name(row[KEYS])}), round {row['round']}, subset {row['subset']}"
            kind = "whole number" if name in COUNTS else "number"
            raise Fault(f", line {place + 2}: {run}: {name} is {row[name]}, not a {kind}")


def _checked_run(key: tuple[Any, ...], frame: pd.DataFrame) -> pd.DataFrame:
    """The run in order of round and subset: one digest, every round of every subset once."""
    digests = sorted(set(frame["run"]))
    told = ", ".join(digests)
    if frame.duplicated(["round", "subset"]).any():
        raise Fault(f": run {_name(key)} is there twice ({told})")
    if len(digests) > 1:
        why = "rounds made with different parameters, data or code"
        raise Fault(f": run {_name(key)} mixes the digests {told}: {why}")
    where = f": run {told} ({_name(key)})"
    if frame["rounds"].nunique() > 1 or frame["rounds"].iloc[0] < 2:
        raise Fault(f"{where} says it has {_list(set(frame['rounds']))} rounds: one number from 2 on")
    wanted = set(range(int(frame["rounds"].iloc[0])))
    for subset, part in frame.groupby("subset", sort=False):
        there = set(part["round"])
        if wanted != there:
            faults = {"lacks": wanted - there, "has": there - wanted}
            named = " and ".join(f"{what} rounds {_list(some)}" for what, some in faults.items() if some)
            raise Fault(f"{where}, subset {subset}, {named} of {len(wanted)}")
    labelled = frame.groupby("round")["labelled"].agg(["min", "max"]).sort_index()
    if (labelled["min"] != labelled["max"]).any() or (labelled["min"].diff().dropna() <= 0).any():
        raise Fault(f"{where}: the number of labels does not grow with the rounds")
    return frame.sort_values(["round", "subset"], kind="stable")


def _check_together(frame: pd.DataFrame) -> None:
    """Runs of a file are compared: they have the same rounds, labels and subsets, each its own digest."""
    for name in ("rounds", "subset"):
        kinds: pd.Series = frame.groupby(KEYS, sort=False)[name].agg(_kinds)
        for key, kind in zip(kinds.index, kinds, strict=True):
            if kind != kinds.iloc[0]:
                told = f"{_list(kind)}, the first run {_list(kinds.iloc[0])}"
                raise Fault(f": run {_name(key)} has the {name} {told}")
    for name, of in (("labelled", "round"), ("chance", "subset"), ("ceiling", "subset")):
        counts = frame.groupby(of)[name].nunique()
        if (counts > 1).any():
            raise Fault(f": runs disagree on {name} of {of} {counts.idxmax()}")
    cells = frame.drop_duplicates([*KEYS, "run"])
    shared = cells[cells.duplicated("run", keep=False)]
    if len(shared):
        names = "; ".join(_name(row) for row in shared[KEYS].itertuples(index=False))
        raise Fault(f": run {shared['run'].iloc[0]} is given for several cells ({names})")


def _kinds(values: pd.Series) -> Any:
    return tuple(sorted(set(values)))


def _list(values: Iterable[Any]) -> str:
    return ", ".join(map(str, sorted(values)))
