"""Reading the curves that a report is made of, and refusing all that would make its numbers wrong."""

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
from mindgap.results.flow import Flow, mend_for
from mindgap.results.names import dataset_name, mitigation_name
from mindgap.results.reading import ReportError, read_table

KEYS = ["mitigation", "query", "seed"]
POINTS = ["balanced_accuracy", "accuracy", "ece"]  # the evaluators that curves are made of
NUMBERS = [*POINTS, "chance", "ceiling"]
SETTING = ["dataset", "regime", "mitigation"]
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
    flows: Mapping[str, Flow] = field(default_factory=dict)
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
    return pd.concat(
        [_read_file(curves_dir, *file, selection) for file in selection.pairs], ignore_index=True
    )


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
    _check_numbers(path, frame)
    rows = [
        frame[name].isin(values)
        for name, values in zip(
            KEYS, (selection.mitigations, selection.queries, selection.seeds), strict=True
        )
    ]
    frame = frame.loc[rows[0] & rows[1] & rows[2]]
    _check_identity(path, frame, dataset, regime, selection)
    runs = dict(iter(frame.groupby(KEYS, sort=False)))
    parts = []
    for key in product(selection.mitigations, selection.queries, selection.seeds):
        if key in runs:
            parts.append(_checked_run(path, key, runs[key]))
        elif not selection.there:
            raise ReportError(f"{path}: run {_name(key)} is missing; {_mend(path)}")
    if not parts:
        raise ReportError(f"{path}: no run of the selection is there; {_mend(path)}")
    frame = pd.concat(parts, ignore_index=True)
    _check_together(path, frame)
    return frame


def _name(key: tuple[Any, ...]) -> str:
    mitigation, query, seed = key
    return f"{query}, {mitigation}, seed {seed}"


def _check_identity(path: Path, frame: pd.DataFrame, dataset: str, regime: str, selection: Selection) -> None:
    for name, wanted in (("scale", selection.scale), ("dataset", dataset), ("regime", regime)):
        strange = frame[frame[name] != wanted]
        if len(strange):
            row = strange.iloc[0]
            raise ReportError(
                f"{path}: run {row['run']} ({_name(tuple(row[KEYS]))}) is of {name} {row[name]!r}, "
                f"not {wanted!r}; {_mend(path)}"
            )


def _check_numbers(path: Path, frame: pd.DataFrame) -> None:
    for name in NUMBERS + COUNTS:
        whole = frame[name] % 1 == 0 if name in COUNTS else True
        bad = frame[~(np.isfinite(frame[name]) & whole)]
        if len(bad):
            row = bad.iloc[0]
            kind = "whole number" if name in COUNTS else "number"
            raise ReportError(
                f"{path}, line {row.name + 2}: run {row['run']} ({_name(tuple(row[KEYS]))}), "
                f"round {row['round']}, subset {row['subset']}: {name} is {row[name]}, not a {kind}; "
                f"{_mend(path)}"
            )


def _checked_run(path: Path, key: tuple[Any, ...], frame: pd.DataFrame) -> pd.DataFrame:
    """The run in order of round and subset: one digest, every round of every subset once."""
    digests = sorted(set(frame["run"]))
    if frame.duplicated(["round", "subset"]).any():
        raise ReportError(f"{path}: run {_name(key)} is there twice ({', '.join(digests)}); {_mend(path)}")
    if len(digests) > 1:
        raise ReportError(
            f"{path}: run {_name(key)} mixes the digests {', '.join(digests)}: rounds made with "
            f"different parameters, data or code; {_mend(path)}"
        )
    where = f"{path}: run {digests[0]} ({_name(key)})"
    if frame["rounds"].nunique() > 1 or frame["rounds"].iloc[0] < 2:
        raise ReportError(
            f"{where} says it has {_list(set(frame['rounds']))} rounds: one number from 2 on; {_mend(path)}"
        )
    for subset, part in frame.groupby("subset", sort=False):
        wanted = set(range(int(frame["rounds"].iloc[0])))
        if wanted != set(part["round"]):
            faults = (
                [f"lacks rounds {_list(wanted - set(part['round']))}"] if wanted - set(part["round"]) else []
            )
            faults += (
                [f"has rounds {_list(set(part['round']) - wanted)}"] if set(part["round"]) - wanted else []
            )
            raise ReportError(
                f"{where}, subset {subset}, {' and '.join(faults)} of {len(wanted)}; {_mend(path)}"
            )
    labelled = frame.groupby("round")["labelled"].agg(["min", "max"]).sort_index()
    if (labelled["min"] != labelled["max"]).any() or (labelled["min"].diff().dropna() <= 0).any():
        raise ReportError(f"{where}: the number of labels does not grow with the rounds; {_mend(path)}")
    return frame.sort_values(["round", "subset"], kind="stable")


def _check_together(path: Path, frame: pd.DataFrame) -> None:
    """Runs of a file are compared: they have the same rounds, labels and subsets, each its own digest."""
    for name in ("rounds", "subset"):
        kinds: pd.Series = frame.groupby(KEYS, sort=False)[name].agg(_kinds)
        if kinds.nunique() > 1:
            key = kinds.index[int((kinds != kinds.iloc[0]).argmax())]
            raise ReportError(
                f"{path}: run {_name(key)} has the {name} {_list(kinds[key])}, the first run "
                f"{_list(kinds.iloc[0])}; {_mend(path)}"
            )
    for name, of in (("labelled", "round"), ("chance", "subset"), ("ceiling", "subset")):
        counts = frame.groupby(of)[name].nunique()
        if (counts > 1).any():
            raise ReportError(f"{path}: runs disagree on {name} of {of} {counts.idxmax()}; {_mend(path)}")
    cells = frame.drop_duplicates([*KEYS, "run"])
    shared = cells[cells.duplicated("run", keep=False)]
    if len(shared):
        names = "; ".join(_name(tuple(row)) for row in shared[KEYS].itertuples(index=False))
        raise ReportError(
            f"{path}: run {shared['run'].iloc[0]} is given for several cells ({names}); {_mend(path)}"
        )


def _kinds(values: pd.Series) -> Any:
    return tuple(sorted(set(values)))


def _list(values: Iterable[Any]) -> str:
    return ", ".join(map(str, sorted(values)))
