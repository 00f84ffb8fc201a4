"""Tables checked against the suites of reports/expectations by Great Expectations: a failure stops the stage.

The page of a validation is our own: the library's loads its styles from the network and names the time. The
library costs seconds to import, so that happens inside functions only.
"""

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ValidationError

from mindgap.base.errors import MindGapError
from mindgap.base.forms import first_fault
from mindgap.core.records import MEASURED_COLUMNS
from mindgap.data import CREDENTIALED, SOURCES
from mindgap.data.quintfeatures import checks as rendered
from mindgap.data.storage import expected_arrays, read_array, read_meta
from mindgap.results.curves import POINTS, number, read_curve_file
from mindgap.results.flow import mend_for, mend_of
from mindgap.results.reading import read_json, read_table
from mindgap.results.site import environment

ROWS_NAMED = 5
# What names a row in a message, besides its texts, of which digests are too long.
KEYS = ("index", "seed", "round")
LONGEST_TEXT = 60
# How far a measured accuracy may pass its ceiling, in standard errors of the ceiling on 1,000 test samples:
# of a small test set hundreds of accuracies are read. A mean over rounds and seeds wanders less.
ACCURACY_ERRORS = 4
MEAN_ERRORS = 2


class ExpectationFailed(MindGapError):  # noqa: N818 - it is one, of the stage's own checks
    """A table is not what its suite asks for; the message names table, column, expectation and rows."""


@dataclass(frozen=True)
class Outcome:
    """One expectation, and what it found."""

    success: bool
    type: str
    column: str
    arguments: str
    notes: str
    finding: str
    rows: str  # the finding without any value of the table

    @property
    def words(self) -> str:
        return self.type.removeprefix("expect_").replace("_", " ")


def validate(
    table_name: str,
    frame: pd.DataFrame,
    suite_path: Path,
    html_path: Path,
    parameters: Mapping[str, Any] | None = None,
    mend: str = "",
    private: bool = False,
) -> None:
    """Check a table; its page is written either way, then a failing one raises ExpectationFailed.

    `parameters` replace "$name" in the suite's arguments. An expectation whose `when` is false is left out.
    `mend`: what can be done about a failure. Values of a `private` table stay on its page.
    """
    suite_path, html_path = Path(suite_path), Path(html_path)
    suite = load_suite(suite_path, parameters or {})
    try:
        outcomes = _run_suite(frame, suite)
    except Exception as error:  # the library has no class of its own for what a suite cannot ask
        what = (str(error).strip() or repr(error)).splitlines()[0]
        raise MindGapError(
            f"{suite_path} asks for what cannot be checked ({what}); "
            f"it is in git: git checkout -- {suite_path}"
        ) from error
    page = environment().get_template("validation.html.j2")
    text = page.render(table_name=table_name, rows=len(frame), suite=suite_path.name, outcomes=outcomes)
    html_path.parent.mkdir(parents=True, exist_ok=True)
    html_path.write_text(text, encoding="utf-8", newline="\n")
    failed = [outcome for outcome in outcomes if not outcome.success]
    if failed:
        head = f"table {table_name}: {len(failed)} of {len(outcomes)} expectations fail ({suite_path})"
        lines = [f"  {_line(outcome, private)}" for outcome in failed]
        raise ExpectationFailed("\n".join([head, *lines, f"  see {html_path}{'; ' * bool(mend)}{mend}"]))


def _line(outcome: Outcome, private: bool) -> str:
    """A failure in a line: what was expected of which column, what was found, and what it means."""
    found = outcome.rows if private else outcome.finding
    means = f". {outcome.notes}" if outcome.notes else ""
    return f"{outcome.column}: {outcome.type} ({outcome.arguments}): {found}{means}"


def load_suite(path: Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A suite with its parameters filled in: {"name", "expectations": [{"type", "kwargs", "meta"}]}."""
    mend = f"it is in git: git checkout -- {path}"
    suite = read_json(Path(path), mend)
    try:
        _Suite.model_validate(suite)
    except ValidationError as error:
        raise MindGapError(f"{path} is no suite: {first_fault(error)}; {mend}") from error
    expectations = [_fill(expectation, parameters, path) for expectation in suite["expectations"]]
    return {**suite, "expectations": [e for e in expectations if e.get("when", True)]}


class _Expectation(BaseModel):
    type: str
    kwargs: dict[str, Any]
    meta: dict[str, Any] = {}


class _Suite(BaseModel):
    name: str
    expectations: list[_Expectation]


def _fill(value: Any, parameters: Mapping[str, Any], path: Path) -> Any:
    if isinstance(value, dict):
        return {key: _fill(one, parameters, path) for key, one in value.items()}
    if isinstance(value, list):
        return [_fill(one, parameters, path) for one in value]
    # "$" alone ends many a regular expression; a parameter is the whole text.
    if isinstance(value, str) and value.startswith("$") and value[1:].isidentifier():
        if value[1:] not in parameters:
            known = ", ".join(parameters) or "none"
            raise MindGapError(f"suite {path} asks for the parameter {value}; given: {known}")
        return parameters[value[1:]]
    return value


def _run_suite(frame: pd.DataFrame, suite: dict[str, Any]) -> list[Outcome]:
    """The outcomes in the order of the suite."""
    gx, ExpectationConfiguration = _library()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    # Results come back in another order: each expectation carries its place.
    configurations = [
        ExpectationConfiguration(
            type=e["type"], kwargs=e["kwargs"], meta={**e.get("meta", {}), "place": place}
        )
        for place, e in enumerate(suite["expectations"])
    ]
    # Made one by one: the library leaves out of a suite, with a line in its log, what it does not know.
    expectations = [configuration.to_domain_obj() for configuration in configurations]
    made = context.suites.add(gx.ExpectationSuite(name=suite["name"], expectations=expectations))
    asset = context.data_sources.add_pandas("tables").add_dataframe_asset(suite["name"])
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
    results = batch.validate(made, result_format={"result_format": "COMPLETE"}).results
    results = sorted(results, key=lambda r: r.expectation_config.meta["place"])
    return [_outcome(result, suite, frame) for result in results]


def _library() -> tuple[Any, type]:
    """Great Expectations, which sends nothing home; it uses modules that Python has deprecated."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import great_expectations as gx
        from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
    return gx, ExpectationConfiguration


def _outcome(result: Any, suite: dict[str, Any], frame: pd.DataFrame) -> Outcome:
    asked = suite["expectations"][result.expectation_config.meta["place"]]
    kwargs = dict(asked["kwargs"])
    columns = [kwargs.pop(key) for key in ("column", "column_A", "column_B") if key in kwargs]
    columns += kwargs.pop("column_list", [])
    arguments = ", ".join(f"{key}={json.dumps(value)}" for key, value in kwargs.items())
    finding, rows = ("", "") if result.success else _finding(result, columns, frame)
    notes = asked.get("meta", {}).get("notes", "")
    column = ", ".join(columns) or "(table)"
    return Outcome(bool(result.success), asked["type"], column, arguments, notes, finding, rows)


def _finding(result: Any, columns: list[str], frame: pd.DataFrame) -> tuple[str, str]:
    """What was found instead: an error, failing rows, or the table's value; the same without values."""
    info = result.exception_info or {}
    errors = [info] if "exception_message" in info else list(info.values())
    messages = [e["exception_message"] for e in errors if e.get("raised_exception")]
    if messages:
        return messages[0].strip().splitlines()[-1], "it could not be computed"
    found = result.result
    if found.get("unexpected_index_list"):
        indices = found["unexpected_index_list"]
        named = list(zip(indices, found["unexpected_list"], strict=False))[:ROWS_NAMED]
        rows = [
            f"row {index}: {_named(value, columns)}{_rest(frame, index, columns)}" for index, value in named
        ]
        count = len(indices)
        head = f"{count} row{'s' * (count > 1)} fail{'s' * (count == 1)}: "
        more = "; ..." * (count > ROWS_NAMED)
        return head + "; ".join(rows) + more, head + "; ".join(f"row {index}" for index, _ in named) + more
    details = found.get("details", {}).get("mismatched", found.get("observed_value"))
    return f"found {_plain(details)}", "the table as a whole"


def _named(value: Any, columns: list[str]) -> str:
    """A failing value; those of several columns with their names."""
    if isinstance(value, tuple | list) and len(value) == len(columns):
        value = dict(zip(columns, value, strict=True))
    return _plain(value)


def _rest(frame: pd.DataFrame, index: Any, columns: list[str]) -> str:
    """What else tells a row from others, in brackets: its short texts, and its numbers of sample or run."""
    if frame.index.has_duplicates or index not in frame.index:
        return ""
    known = {}
    for name, value in frame.loc[index].items():
        text = isinstance(value, str) and 0 < len(value) <= LONGEST_TEXT
        if name not in columns and (text or name in KEYS):
            known[name] = value
    return f" ({_plain(known)})" if known else ""


def _plain(value: Any) -> str:
    """Without the names of numpy's types."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(one)}" for key, one in value.items())
    if isinstance(value, tuple | list | set):
        return ", ".join(map(_plain, value))
    return str(value)


def validate_dataset(dataset_dir: Path, suites_dir: Path, html_dir: Path) -> None:
    """Check a prepared dataset: its flow, and each of its tables, against the suites named like them.

    Every array is compared with its shape, dtype and SHA-256 in meta.json first. All pages,
    <suite>-<dataset>, are written before a failing one raises; a broken file raises DataError.
    """
    meta = read_meta(dataset_dir)
    for array in expected_arrays(meta):
        read_array(dataset_dir, array, meta, mmap=True)
    name, failures = meta["dataset"], []
    module, prefix = (SOURCES[name].module, name) if name in SOURCES else (rendered, "rendered")
    parameters = module.parameters(meta)
    tables = {f"{prefix}_{part}": table for part, table in module.tables(Path(dataset_dir)).items()}
    for suite, table in {"flow": _flow_table(dataset_dir), **tables}.items():
        title = f"{name}: {suite.split('_', 1)[-1]}"
        page = Path(html_dir) / f"{suite}-{name}.html"
        try:
            folders = [*own_suites(name), Path(suites_dir)]
            paths = [path for folder in folders if (path := folder / f"{suite}.json").exists()]
            suite_path = paths[0] if paths else folders[-1] / f"{suite}.json"
            frame, private = pd.DataFrame(table), _is_private(name, suite)
            validate(title, frame, suite_path, page, parameters, private=private)
        except ExpectationFailed as failure:
            failures.append(str(failure))
    if failures:
        raise ExpectationFailed("\n".join(failures))


def own_suites(dataset: str) -> list[Path]:
    """The folder of the suites that another package brings for its dataset, if it does."""
    return [Path(folder)] if dataset in SOURCES and (folder := SOURCES[dataset].suites) else []


def _is_private(name: str, suite: str) -> bool:
    """Whether rows of a table are of single patients."""
    return name in CREDENTIALED and suite.removeprefix(f"{name}_") not in SOURCES[name].totals


def _flow_table(dataset_dir: Path) -> pd.DataFrame:
    """flow.csv with what its suite asks for: whether each line begins where the one before it ended."""
    flow = pd.read_csv(Path(dataset_dir) / "flow.csv", keep_default_na=False)
    before = flow.groupby("part")["rows_out"].shift()
    return flow.assign(minus_rows_in=-flow["rows_in"], chained=before.isna() | (before == flow["rows_in"]))


def _standard_error(accuracy: pd.Series) -> pd.Series:
    """Of an accuracy that is measured on 1,000 test samples."""
    share = accuracy.astype(float).clip(0, 1)
    return pd.Series(np.sqrt(share * (1 - share) / 1000))


def validate_curves(curves_path: Path, suites_dir: Path, html_dir: Path) -> None:
    """Check a file of run records, <dataset>-<regime>.csv."""
    curves_path = Path(curves_path)
    dataset, regime = curves_path.stem.rsplit("-", 1)
    frame = read_curve_file(curves_path)
    cell = ["dataset", "regime", "mitigation", "query", "seed"]
    if {*cell, "run", "round", "labelled", "subset", "balanced_accuracy", "ceiling"} <= set(frame.columns):
        frame = frame.sort_values("round", kind="stable")
        of_subset = frame.groupby([*cell, "subset"])
        frame = frame.assign(
            labelled_step=of_subset["labelled"].diff(),
            rounds_found=of_subset["round"].transform("nunique"),
            digests_found=frame.groupby(cell)["run"].transform("nunique"),
            balanced_accuracy_limit=frame["ceiling"] + ACCURACY_ERRORS * _standard_error(frame["ceiling"]),
        ).sort_index()
    page = Path(html_dir) / f"curves-{curves_path.stem}.html"
    parameters = {"dataset": dataset, "regime": regime}
    name, suite = f"curves of {curves_path.stem}", Path(suites_dir) / "curves.json"
    mend = _mend_of_results(curves_path, mend_of(dataset, f"-f -s acquire@{curves_path.stem}"))
    validate(name, frame, suite, page, parameters, mend)


def validate_measured(
    measured_path: Path, curves_path: Path, suites_dir: Path, html_dir: Path, whole: bool = True
) -> None:
    """Check the long table of what rounds measured, <dataset>-<regime>.csv, also against their curves.

    One that is not `whole` has no points of curves: a kept folder's, of extra evaluators alone.
    """
    measured_path = Path(measured_path)
    mend = mend_for(measured_path, "acquire")
    frame = read_table(measured_path, MEASURED_COLUMNS, mend).reset_index(drop=True)
    counts = ["round", "labelled"]
    frame = frame.assign(**{name: [number(text) for text in frame[name]] for name in ("value", *counts)})
    curves, key = read_curve_file(curves_path), ["run", *counts, "subset"]
    points = (curves if whole else curves[:0]).melt(key, POINTS, "name", "curve_value")
    points = points.astype(dict.fromkeys(counts, "float64"))
    is_point = frame["evaluator"] == frame["name"]  # another evaluator may use these names
    frame = frame.merge(points.assign(evaluator=points["name"]), "left", [*key, "evaluator", "name"])
    known = is_point & frame["curve_value"].notna()
    frame = frame.assign(curve_value=frame["curve_value"].where(known, frame["value"]))
    frame["points_missing"] = len(points) - int(known.sum())
    page = Path(html_dir) / f"measured-{measured_path.stem}.html"
    name, suite = f"measured of {measured_path.stem}", Path(suites_dir) / "measured.json"
    validate(name, frame, suite, page, mend=_mend_of_results(measured_path, mend))


def validate_aulc(aulc_path: Path, suites_dir: Path, html_dir: Path, holes: bool = False) -> None:
    """Check the tidy table of a report, tables/aulc.csv; with holes its cells may differ in their seeds."""
    frame = pd.read_csv(aulc_path, keep_default_na=False, na_values=[""])
    used = {"scale", "n_seeds", "rounds", "aulc_mean", "aulc_std", "mean_accuracy", "ceiling_aulc"}
    if used | {"paper_mean", "changed"} <= set(frame.columns):
        intervals = frame["rounds"] - 1
        frame = frame.assign(
            aulc_limit=frame["ceiling_aulc"]
            + MEAN_ERRORS * intervals * _standard_error(frame["ceiling_aulc"] / intervals),
            mean_accuracy_error=frame["mean_accuracy"] - frame["aulc_mean"] / intervals,
            has_std=frame["aulc_std"].notna(),
            has_seeds=frame["n_seeds"] > 1,
            paper_at_other_scale=((frame["scale"] != "paper") | frame["changed"].notna())
            & frame["paper_mean"].notna(),
        )
    page = Path(html_dir) / "aulc.html"
    mend = _mend_of_results(aulc_path, "write it anew: dvc repro -f -s report")
    validate("AULC", frame, Path(suites_dir) / "aulc.json", page, {"whole": not holes}, mend)


def _mend_of_results(path: Path, again: str) -> str:
    """What to do about a table of results that fails."""
    return (
        f"the table is {path}: {again} (one that was kept: git checkout -- {path}); where it fails again, "
        "undo what led to it, or, where what was found is right, change that expectation"
    )
