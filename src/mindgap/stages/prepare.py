"""prepare@<dataset>, extract_mimic: a prepared dataset, checked against its expectations, and its flow."""

import os
from collections.abc import Mapping
from pathlib import Path

from mindgap.core.asked import pairing_asked, source_settings
from mindgap.core.params import Params, pick
from mindgap.core.records import write_atomically
from mindgap.data import DATASETS, RENDERED, SOURCES
from mindgap.data.errors import DataError, SourceMissing
from mindgap.data.flow import Flow
from mindgap.data.prepared import add_to_meta, swapped_in
from mindgap.data.quintfeatures.images import Style
from mindgap.data.quintfeatures.render import render_dataset
from mindgap.data.storage import SKIPPED, read_data_text, read_meta, verify_tables
from mindgap.data.workers import usable_cores
from mindgap.engine.machine import workers
from mindgap.results.expectations import ExpectationFailed, validate_dataset
from mindgap.stages.blueprint import code_of, differences
from mindgap.stages.paths import EXPECTATIONS, Places, places


def prepare_stage(params: Params, dataset: str) -> None:
    """Make a dataset beside the one that is there, check it, and only then put it in its place.

    One that fails leaves its pages in validation/ and fails the stage. A dataset whose files are not here is
    skipped with one line, which train, acquire and report pass on; one that was prepared before stays.
    """
    pick(DATASETS, dataset, "dataset", "mindgap.data.DATASETS")
    where, code = places(dataset), code_of(dataset)
    try:
        with swapped_in(where.prepared) as new:
            (_render if dataset in RENDERED else _from_source)(params, dataset, new)
            add_to_meta(new, code=code)
            _validate(dataset, new, where)
    except SourceMissing as missing:
        line = str(missing).rstrip(".")
        if not _holds_data(where.prepared):
            return _skip(dataset, where, line)
        _keep(params, dataset, where, line, code)
    write_atomically(where.flow / f"{dataset}.csv", read_data_text(where.prepared / "flow.csv").encode())


def _render(params: Params, dataset: str, folder: Path) -> None:
    pick(params.at_scale.prepare, dataset, "dataset", f"scales.{params.scale}.prepare")
    render, pairing = params.at_scale.render, pairing_asked(params, dataset)
    render_dataset(
        dataset,
        folder,
        root_seed=render.root_seed,
        train_size=render.train_size,
        test_size=render.test_size,
        style=Style(**render.style),
        absence=pairing.absence,
        label_values=pairing.label_values,
        own_style=pairing.style,
        workers=workers(default=usable_cores()),
    )


def _from_source(params: Params, dataset: str, folder: Path) -> None:
    source = SOURCES[dataset]
    settings = source_settings(params, dataset)
    source.module.prepare(
        source.raw, folder, settings, workers=workers(default=usable_cores()), progress=True
    )


def _validate(dataset: str, folder: Path, where: Places) -> None:
    """Check a dataset in a folder; a failure also says what is meant by it and what can be done."""
    suites = EXPECTATIONS / "prepared"
    try:
        validate_dataset(folder, suites, where.validation)
    except ExpectationFailed as failure:
        if dataset in RENDERED:
            cause = "The renderer did not keep what its suite promises"
            change = "undo the change of scales.*.render, scales.*.prepare or src/mindgap/data that led to it"
        else:
            cause = f"The files in {SOURCES[dataset].raw} are not what the suite expects of this dataset"
            change = "replace the files, or change scales.*.prepare in params.yaml"
        stays = " The dataset that was prepared before stays as it is." if _holds_data(where.prepared) else ""
        raise ExpectationFailed(
            f"{failure}\n{cause}.{stays} Either {change}; or, where what was found is right, change that "
            f"expectation in {suites}. Then run `dvc repro {where.stage}`{where.inside}."
        ) from None


def _holds_data(folder: Path) -> bool:
    """Whether there is more in a folder than the line of a dataset that was skipped."""
    return folder.is_dir() and any(path.name != SKIPPED for path in folder.iterdir())


def _keep(params: Params, dataset: str, where: Places, line: str, code: Mapping[str, str]) -> None:
    """Check what was prepared before its files went, and keep it if it is what is asked for."""
    try:
        meta = read_meta(where.prepared)
        verify_tables(where.prepared, meta)
    except DataError as error:
        raise DataError(f"{error}, once its files are there: {line}") from None
    reasons = differences(params, dataset, meta)
    if reasons:
        mend = "put the files there, or set the parameter back"
    elif meta.get("code") != dict(code):
        changed = sorted({k for k, _ in code.items() ^ meta.get("code", {}).items()})
        reasons = [f"the code that makes it has changed ({', '.join(changed)})"]
        mend = (
            "put the files there; or, where the change leaves the data the same, accept the dataset with "
            f"`dvc commit -f {where.stage}`{where.inside}"
        )
    if reasons:
        raise SourceMissing(
            f"{line}. The dataset that was prepared before is left as it is, but {reasons[0]}: {mend}"
        )
    _validate(dataset, where.prepared, where)
    print(f"{dataset}: its files are not here; what was prepared from them is what is asked for, and kept")


def _skip(dataset: str, where: Places, line: str) -> None:
    flow_file = where.flow / f"{dataset}.csv"
    if os.path.lexists(flow_file) and not _is_of_skipped(flow_file):
        raise SourceMissing(
            f"{line}. Or bring back what was prepared before, of which {flow_file} tells: `dvc checkout -f "
            f"{where.stage}` or `dvc pull {where.stage}`{where.inside}. To go without it, delete {flow_file}"
        )
    # DVC does not notice by itself that raw files came.
    line = f"{line}. Then run `dvc repro -f {where.stage}`, and `dvc repro` for the rest"
    print(f"{dataset} is skipped: {line}", flush=True)
    write_skipped(where.prepared, line)
    flow = Flow()
    flow.start("skipped", line, 0)
    flow.write(flow_file)


def _is_of_skipped(flow_file: Path) -> bool:
    """Whether a flow table is the one that `_skip` writes."""
    return read_data_text(flow_file).partition("\n")[2].startswith("skipped,")


def write_skipped(folder: Path, line: str) -> None:
    """The folder of a stage that had nothing to work on, with the line that says why."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SKIPPED).write_text(line + "\n")
