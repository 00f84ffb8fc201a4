"""The command line: the steps of the pipeline, which DVC calls and people can. Thin on purpose."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from mindgap.errors import MindGapError
from mindgap.machine import start_fork_server
from mindgap.params import check_params, load_params

app = typer.Typer(
    help="The steps of the MindGap pipeline. `dvc repro` runs them in order; every one also works by hand.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Dataset = Annotated[str, typer.Argument(help="a dataset of params.yaml, such as missing")]
Regime = Annotated[str, typer.Argument(help="low, mid or high")]


@app.command("check-params")
def check() -> None:
    """Check params.yaml and write data/params.ok: a typo stops here, before any compute."""
    check_params(load_params())
    Path("data/params.ok").write_text("ok\n")


@app.command()
def prepare(dataset: Dataset) -> None:
    """Render a dataset, or make it from its files in data/raw, and check it against its expectations."""
    from mindgap.stages.prepare import prepare_stage

    prepare_stage(load_params(), dataset)


@app.command()
def train(dataset: Dataset, regime: Regime) -> None:
    """Train the models on the initial sets, which all query methods share."""
    start_fork_server()
    from mindgap.stages.runs import train_stage

    train_stage(load_params(), dataset, regime)


@app.command()
def acquire(dataset: Dataset, regime: Regime) -> None:
    """Run the active-learning loop of every query method, mitigation and seed."""
    start_fork_server()
    from mindgap.stages.runs import acquire_stage

    acquire_stage(load_params(), dataset, regime)


@app.command()
def report() -> None:
    """Check the runs against their expectations; write tables, figures, metrics and reports/index.html."""
    from mindgap.stages.report import report_stage

    report_stage(load_params())


@app.command()
def publish(dataset: Dataset) -> None:
    """Copy the aggregated curves of a credentialed dataset to reports/, where they are shared."""
    from mindgap.stages.publish import publish_stage

    publish_stage(load_params(), dataset)


def main() -> None:
    """What the `mindgap` command calls: mendable errors are one message and exit status 1."""
    try:
        app()
    except MindGapError as error:
        print(f"mindgap: {error}", file=sys.stderr)
        raise SystemExit(1) from None
