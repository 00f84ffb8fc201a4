"""Reads where the runs of a report come from (reports/provenance); checks that one table may hold them.

A table compares runs on one dataset by one code: two versions of the data, of the numerics or of a setting
in it are an error that names a run of each. Commits, devices and versions may differ; the page tells them.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mindgap.base.forms import first_fault
from mindgap.core.records import DETAILS, digest_of, text_digest
from mindgap.results.curves import Selection
from mindgap.results.flow import mend_for
from mindgap.results.reading import Fault, ReportError, checking, read_json, read_text, records_of


class _Form(BaseModel):
    model_config = ConfigDict(strict=True)


class _Setting(_Form):
    model: dict[str, Any]
    recipe: dict[str, Any]


class _Settings(_Form):
    setting: _Setting


class _Run(_Form):
    settings: str
    code: str
    data: str
    numerics: str
    commit: list[str] = Field(min_length=1)
    device: list[str] = Field(min_length=1)
    versions: list[dict[str, str]] = Field(min_length=1)


class _Provenance(_Form):
    """What a report needs of the file; it may hold more."""

    runs: dict[str, _Run]
    settings: dict[str, _Settings]
    curves: str = ""  # checksum of their table; records from before it was written lack it
    measured: str = ""  # likewise of the long one
    sha256: str = ""  # of all the rest


RUN_NAME = ["dataset", "regime", "mitigation", "query", "seed"]


@dataclass(frozen=True)
class Origin:
    """One dataset and regime: what all its runs share, and what is told of them.

    `settings`: those of each mitigation and query method, as recorded; under `data` those of the dataset.
    `verified`: their curves are what was written with them, by a checksum that older records lack.
    """

    dataset: str
    regime: str
    runs: int
    data: str
    numerics: str
    commits: Sequence[str]
    devices: Sequence[str]
    versions: Sequence[str]
    settings: Mapping[tuple[str, str], Mapping[str, Any]]
    verified: bool = False


def read_origins(folder: Path, curves: pd.DataFrame, selection: Selection) -> list[Origin]:
    """The origins of all datasets and regimes, checked to be of one kind. Raises ReportError."""
    files = {key: read_runs(folder, *key, curves) for key in selection.pairs}
    check_one_kind(folder, [run for _, of_file, _ in files.values() for run in of_file.values()])
    return [_origin(*key, settings, runs, verified) for key, (settings, runs, verified) in files.items()]


def check_one_kind(folder: Path, runs: Sequence[Mapping[str, Any]], mend: str = "") -> None:
    """Whether runs (of `read_runs`) belong into one table of a folder. `mend`: what else can be done."""
    kinds = [
        ("numerics", [], "the code of the numerics"),
        ("data", ["dataset"], "the data"),
        ("code", ["dataset", "mitigation", "query"], "the code"),
        ("own", ["dataset", "regime", "mitigation", "query"], "the settings"),
        ("shared", ["dataset", "regime"], "the setting"),
    ]
    for name, within, what in kinds:
        _check_one(folder, runs, name, within, what, mend)


def read_runs(
    folder: Path, dataset: str, regime: str, curves: pd.DataFrame
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]], bool]:
    """Settings and runs of a file, those of `curves` only, each with its cell and under `told` all that is
    recorded of it; whether the file vouches for the curves.
    """
    named = curves.drop_duplicates("run").set_index("run")[RUN_NAME]
    path = Path(folder) / f"{dataset}-{regime}.json"
    mend = mend_for(path, "acquire")
    made = read_json(path, mend)
    wanted = named[(named["dataset"] == dataset) & (named["regime"] == regime)]
    with checking(path, mend):
        if fault := fault_of(made):
            raise Fault(f" is no record of provenance: {fault}")
        _check_tables(path, made, mend)
        settings, runs, kept = made["settings"], made["runs"], {}
        for digest, cell in zip(wanted.index, records_of(wanted), strict=True):
            if digest not in runs:
                raise Fault(f" does not tell where run {digest} ({cell_name(cell)}) comes from")
            run = runs[digest]
            if run["settings"] not in settings:
                raise Fault(f": run {digest} ({cell_name(cell)}) lacks the settings {run['settings']}")
            own = settings[run["settings"]]
            # Those of the dataset follow from its digest; records from before they were kept lack them.
            texts = {
                "own": json.dumps({key: own[key] for key in own if key != "data"}, sort_keys=True),
                "shared": _shared(own["setting"]),
            }
            kept[digest] = {**run, **cell, **texts, "cell": cell, "run": digest, "told": run}
    return settings, kept, bool(made.get("curves"))


def _check_tables(path: Path, made: Mapping[str, Any], mend: str) -> None:
    """Whether the tables beside a file are those that were written with it, where it says so."""
    for kind in ("curves", "measured"):
        table = path.parent.parent / kind / f"{path.stem}.csv"
        if kind == "measured" and not table.exists():  # published records are without
            continue
        if made.get(kind) and text_digest(read_text(table, mend)) != made[kind]:
            both = mend.replace(str(path), f"{table} {path}")
            raise ReportError(f"{table} is not what was written with {path}: one was changed; {both}")


def fault_of(made: Mapping[str, Any]) -> str:
    """What is wrong with the form of a file, or with settings that are not those of their digest."""
    try:
        _Provenance.model_validate(made)
    except ValidationError as error:
        return first_fault(error)
    for digest, settings in made["settings"].items():
        if digest_of(settings)[: len(digest)] != digest:
            return f"settings.{digest} were changed after they were written"
    body = {key: value for key, value in made.items() if key != "sha256"}
    if made.get("sha256", digest_of(body)) != digest_of(body):
        return "it was changed after it was written"
    return ""


def _shared(setting: Mapping[str, Any]) -> str:
    """What all runs of a dataset and regime share: dropout may be of some methods only."""
    model = {key: value for key, value in setting["model"].items() if key != "head_dropout"}
    return json.dumps({**setting, "model": model}, sort_keys=True)


def _check_one(
    folder: Path, runs: Iterable[Mapping[str, Any]], name: str, within: Sequence[str], what: str, mend: str
) -> None:
    """One value of `name` within each group."""
    first: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for run in runs:
        other = first.setdefault(tuple(run[key] for key in within), run)
        if run[name] != other[name]:
            raise ReportError(
                f"{folder}: {what} of run {run['run']} ({cell_name(run['cell'])}) is not that of run "
                f"{other['run']} ({cell_name(other['cell'])}): {differ(run[name], other[name])}. Numbers of "
                f"both do not belong into one table: make them anew with one checkout (dvc repro){mend}"
            )


def differ(one: str, other: str) -> str:
    """The first difference of two digests or settings, in few words."""
    if not one.startswith("{"):
        return f"{one[:12]} and {other[:12]}"
    ours, theirs = (flat(json.loads(text)) for text in (one, other))
    key = min(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key))
    return f"{key} is {ours.get(key)} and {theirs.get(key)}"


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """The values of nested dictionaries by their keys, joined by dots."""
    if not isinstance(value, dict):
        return {path: value}
    parts = [flat(part, f"{path}.{key}" if path else str(key)) for key, part in value.items()]
    return {key: one for part in parts for key, one in part.items()}


def cell_name(cell: Mapping[str, Any]) -> str:
    """A run by its cell and seed, for messages."""
    return ", ".join([cell["dataset"], cell["regime"], cell["query"], cell["mitigation"]]) + (
        f", seed {cell['seed']}"
    )


def _origin(
    dataset: str,
    regime: str,
    settings: Mapping[str, Mapping[str, Any]],
    runs: Mapping[str, Mapping[str, Any]],
    verified: bool,
) -> Origin:
    one = next(iter(runs.values()))
    made = {(run["mitigation"], run["query"]): settings[run["settings"]] for run in runs.values()}
    data: Mapping[str, Any] = next((one_made["data"] for one_made in made.values() if "data" in one_made), {})
    told = {name: {_text(value) for run in runs.values() for value in run[name]} for name in DETAILS}
    return Origin(
        dataset=dataset,
        regime=regime,
        runs=len(runs),
        data=one["data"],
        numerics=one["numerics"],
        commits=sorted(told["commit"]),
        devices=sorted(told["device"]),
        versions=sorted(told["versions"]),
        settings={cell: {"data": data, **own} for cell, own in made.items()},
        verified=verified,
    )


def _text(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in sorted(value.items())) if isinstance(value, dict) else str(value)
