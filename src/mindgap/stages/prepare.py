"""prepare@<dataset>, extract_mimic: a prepared dataset, checked against its expectations, and its flow."""

import shutil
from pathlib import Path

from mindgap.data import RENDERED, SOURCES
from mindgap.data.errors import SourceMissing
from mindgap.data.flow import Flow
from mindgap.data.quintfeatures import Style
from mindgap.data.render import render_dataset, usable_cores
from mindgap.data.storage import SKIPPED
from mindgap.expectations import validate_rendered, validate_source
from mindgap.machine import workers
from mindgap.params import Params, source_settings
from mindgap.stages.paths import EXPECTATIONS, Places, places


def prepare_stage(params: Params, dataset: str) -> None:
    """Make and check a dataset; one that fails leaves its page in validation/ and fails the stage.

    A dataset whose files are not here is skipped with one line, which train, acquire and report pass on.
    """
    where = places(dataset)
    if dataset in RENDERED:
        _render(params, dataset, where)
    else:
        try:
            _from_source(params, dataset, where)
        except SourceMissing as missing:
            _skip(dataset, where, str(missing))
            return
    where.flow.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(where.prepared / "flow.csv", where.flow / f"{dataset}.csv")


def _render(params: Params, dataset: str, where: Places) -> None:
    render = params.at_scale.render
    render_dataset(
        dataset,
        where.prepared,
        root_seed=render.root_seed,
        train_size=render.train_size,
        test_size=render.test_size,
        style=Style(**render.style),
        absence=params.at_scale.prepare[dataset].get("absence"),
        workers=workers(default=usable_cores()),
    )
    validate_rendered(where.prepared, EXPECTATIONS / "prepared", where.validation)


def _from_source(params: Params, dataset: str, where: Places) -> None:
    source = SOURCES[dataset]
    settings = source_settings(params, dataset)
    source.module.prepare(
        source.raw, where.prepared, settings, workers=workers(default=usable_cores()), progress=True
    )
    validate_source(where.prepared, EXPECTATIONS / "prepared", where.validation)


def _skip(dataset: str, where: Places, missing: str) -> None:
    line = missing.rstrip(".")
    if (where.prepared / "meta.json").exists():
        raise SourceMissing(f"{line}. The dataset that was prepared before is left as it is")
    # DVC does not notice by itself that raw files came.
    line = f"{line}. Then run `dvc repro -f {where.stage}`, and `dvc repro` for the rest"
    print(f"{dataset} is skipped: {line}", flush=True)
    write_skipped(where.prepared, line)
    flow = Flow()
    flow.start("skipped", line, 0)
    flow.write(where.flow / f"{dataset}.csv")


def write_skipped(folder: Path, line: str) -> None:
    """The folder of a stage that had nothing to work on, with the line that says why."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SKIPPED).write_text(line + "\n")
