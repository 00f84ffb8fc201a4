"""The command line: the steps of the pipeline, which DVC calls and people can. Thin on purpose."""

import math
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from mindgap import __version__
from mindgap.base.errors import MindGapError
from mindgap.core.check import check_names, check_params, check_runs
from mindgap.core.params import Params, load_params
from mindgap.engine.machine import start_fork_server

STOPPED = 130  # the exit status of a command that Ctrl-C ended

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

DatasetName = Annotated[str, typer.Argument(help="a dataset of params.yaml, such as missing")]
Regime = Annotated[str, typer.Argument(help="low, mid or high")]


def _version(asked: bool) -> None:
    if asked:
        print(f"mindgap {__version__}")
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print it and end")
    ] = False,
) -> None:
    """The steps of the MindGap pipeline. `dvc repro` runs them in order; every one also works by hand."""


@app.command("list")
def list_plug_ins() -> None:
    """List datasets, query methods, mitigations, encoders and fusions, with settings and their defaults."""
    from mindgap.stages.catalogue import list_stage

    list_stage()


def _params_for(dataset: str, *regimes: str) -> Params:
    """params.yaml, checked for what a stage by hand would run; the dataset need not be in its lists."""
    params = load_params()
    check_runs(params, [dataset], regimes or params.regime)
    return params


def _named_params() -> Params:
    """params.yaml, of which a report needs no more than known names."""
    params = load_params()
    check_names(params)
    return params


@app.command("check-params")
def check() -> None:
    """Check params.yaml and write data/blueprints: a typo stops here, before any compute."""
    from mindgap.engine.layout import check_sizes
    from mindgap.stages.blueprint import write_blueprints

    params = load_params()
    check_params(params)
    check_sizes(params)
    lists = (params.dataset, params.regime, params.query, params.mitigation, params.seeds)
    runs = math.prod(map(len, lists))
    print(
        f"{runs:,} runs at scale {params.scale}: `mindgap plan` says what they compute and how long",
        flush=True,
    )
    write_blueprints(params)


@app.command()
def blueprint(dataset: DatasetName) -> None:
    """Write what makes a dataset what it is; its DVC stage runs again when that changes."""
    from mindgap.stages.blueprint import write_blueprint

    write_blueprint(load_params(), dataset)


@app.command()
def plan(
    datasets: Annotated[
        list[str] | None, typer.Argument(help="instead of those of params.yaml; mimic too")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set-param", "-S", help="key=value, as `dvc exp run -S` takes it")
    ] = None,
    measure: Annotated[bool, typer.Option(help="time a step and a pass of each model, some seconds")] = True,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the exact numbers here")] = None,
) -> None:
    """Count what would be computed, estimate time, disk and memory; finished rounds beside their estimate."""
    from mindgap.stages.overrides import overridden
    from mindgap.stages.plan import plan_stage

    plan_stage(overridden(changes or []), datasets or [], measure=measure, json_file=json_file)


@app.command()
def prepare(dataset: DatasetName) -> None:
    """Render a dataset, or make it from its files in data/raw, and check it against its expectations."""
    from mindgap.stages.prepare import prepare_stage
    from mindgap.stages.private import kept_private

    with kept_private(dataset):
        prepare_stage(_params_for(dataset), dataset)


@app.command()
def train(dataset: DatasetName, regime: Regime) -> None:
    """Train the models on the initial sets, which all query methods share."""
    start_fork_server()
    from mindgap.stages.private import kept_private
    from mindgap.stages.runs import train_stage

    with kept_private(dataset):
        train_stage(_params_for(dataset, regime), dataset, regime)


@app.command()
def acquire(dataset: DatasetName, regime: Regime) -> None:
    """Run the active-learning loop of every query method, mitigation and seed."""
    start_fork_server()
    from mindgap.stages.private import kept_private
    from mindgap.stages.runs import acquire_stage

    with kept_private(dataset):
        acquire_stage(_params_for(dataset, regime), dataset, regime)


@app.command()
def diagnose(
    dataset: DatasetName,
    regime: Regime,
    keep: Annotated[
        Path | None, typer.Option(help="a folder of `mindgap keep`, whose page is to show it too")
    ] = None,
) -> None:
    """Say whether reliabilities of kept models (keep_models: last) decide anything, by permuting them."""
    from mindgap.stages.diagnose import diagnose_stage
    from mindgap.stages.private import kept_private

    with kept_private(dataset):
        diagnose_stage(_params_for(dataset, regime), dataset, regime, keep)


@app.command()
def report(
    folder: Annotated[Path | None, typer.Argument(help="kept records, such as reports/reference")] = None,
) -> None:
    """Check the runs against their expectations; write tables, figures, metrics and reports/index.html."""
    from mindgap.stages.report import kept_report_stage, report_stage

    if folder is None:
        report_stage(_named_params())
    else:
        kept_report_stage(folder)


@app.command()
def keep(
    folder: Annotated[Path, typer.Argument(help="where to, such as reports/reference")],
    about: Annotated[
        str | None, typer.Option(help="what the runs are, in a sentence or two, for the page")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="forget what FOLDER has")] = False,
    source: Annotated[
        Path | None, typer.Option("--from", help="another kept folder to add, in place of reports/")
    ] = None,
) -> None:
    """Add the records behind the report of params.yaml to a folder, to be committed.

    `report FOLDER` reads them. Runs that FOLDER has stay: selections that are no product of lists add up.
    """
    from mindgap.stages.keep import REPORTS, keep_stage

    keep_stage(None if source else _named_params(), folder, about, replace, source or REPORTS)


@app.command()
def publish(dataset: DatasetName) -> None:
    """Copy the aggregated curves of a credentialed dataset to reports/, where they are shared."""
    from mindgap.stages.publish import publish_stage

    publish_stage(load_params(), dataset)


@app.command()
def watch(once: Annotated[bool, typer.Option("--once", help="print it once and end")] = False) -> None:
    """Show the runs under way, from another terminal or a machine that shares the folder."""
    from mindgap.stages.watch import watch_stage

    watch_stage(once)


sensitivity = typer.Typer(
    help="Variants of one default: what the paper leaves open, or another folder's.", no_args_is_help=True
)
OfVariants = Annotated[Path, typer.Option("--folder", help="of reports/, with the variants.yaml")]
app.add_typer(sensitivity, name="sensitivity")


@sensitivity.command("run")
def run_sensitivity(
    variants: Annotated[
        list[str] | None, typer.Argument(help="keys of variants.yaml; all by default")
    ] = None,
    folder: OfVariants = Path("reports/sensitivity"),
) -> None:
    """Run the variants of a folder of reports/, and collect what they find: the report shows it."""
    from mindgap.stages.sensitivity import run_stage

    run_stage(variants or [], folder)


@sensitivity.command("collect")
def collect_sensitivity(
    variant: Annotated[str, typer.Argument(help="a key of variants.yaml")],
    made: Annotated[Path, typer.Argument(help="where its params.yaml lies and `mindgap acquire` ran")],
    folder: OfVariants = Path("reports/sensitivity"),
) -> None:
    """Copy what runs found to the folder of their variants, where the report reads it."""
    from mindgap.stages.sensitivity import collect_stage

    collect_stage(variant, made, folder)


def main() -> None:
    """What the `mindgap` command calls: mendable errors are one message and exit status 1."""
    try:
        app()
    except MindGapError as error:
        print(f"mindgap: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"mindgap: {where}{error.strerror or error}; finished rounds are kept", file=sys.stderr)
        raise SystemExit(1) from None
    except SystemExit as end:
        if end.code == STOPPED:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C while workers end
            print(
                "mindgap: stopped; finished rounds are kept, the same command goes on there", file=sys.stderr
            )
        raise
