"""report: what the runs say, of the cells that params.yaml names and no others, all of them checked."""

from pathlib import Path

import pandas as pd

from mindgap.data import DATASETS
from mindgap.errors import MindGapError
from mindgap.expectations import validate_aulc, validate_curves
from mindgap.params import Params, Selected, load_kept
from mindgap.report.build import build_report
from mindgap.report.content import Inputs
from mindgap.report.curves import Selection, read_curves
from mindgap.report.flow import read_flow, skipped_line
from mindgap.report.provenance import read_origins
from mindgap.report.searches import read_searches
from mindgap.report.sensitivity import VARIANTS, Variants, read_sensitivity, read_variants
from mindgap.stages.paths import EXPECTATIONS, PAPER, REPORTS, SELECTION, SENSITIVITY


def report_stage(params: Params) -> None:
    """The report of params.yaml under reports/."""
    selection = selection_of(params, REPORTS)
    for name, line in selection.skipped.items():
        print(f"{name} is skipped: {line}", flush=True)
    _report(selection, REPORTS, "", SENSITIVITY)


def kept_report_stage(folder: Path) -> None:
    """The report of kept records (`mindgap keep`), beside them."""
    kept = load_kept(folder / SELECTION)
    _report(selection_of(kept, folder), folder, kept.about)


def _report(selection: Selection, folder: Path, about: str, sensitivity: Path | None = None) -> None:
    # Read first: what is wrong with a run is said with its name; the suites speak of rows.
    curves = read_curves(folder / "curves", selection)
    for dataset in selection.datasets:
        for regime in selection.regimes:
            path = folder / "curves" / f"{dataset}-{regime}.csv"
            validate_curves(path, EXPECTATIONS, folder / "validation")
    inputs = Inputs(
        curves,
        read_origins(folder / "provenance", curves, selection),
        read_searches(folder / "search", selection),
        *_sensitivity(sensitivity),
        about,
    )
    build_report(inputs, folder, PAPER, selection)
    validate_aulc(folder / "tables" / "aulc.csv", EXPECTATIONS, folder / "validation")


def _sensitivity(folder: Path | None) -> tuple[pd.DataFrame | None, Variants | None]:
    """What was collected of the sensitivity experiments, and what they asked."""
    found = read_sensitivity(folder) if folder and folder.exists() else None
    return found, None if found is None else read_variants(folder / VARIANTS)


def selection_of(selected: Selected, folder: Path) -> Selection:
    """What a report is about; datasets that were skipped for want of their files are set aside."""
    flows = {
        name: read_flow(folder / "flow" / f"{name}.csv") for name in [*selected.dataset, *selected.published]
    }
    skipped = {name: line for name, flow in flows.items() if (line := skipped_line(flow))}
    datasets = [name for name in flows if name not in skipped]
    if not datasets:
        raise MindGapError(f"nothing to report: {', '.join(skipped)} were skipped for want of their files")
    return Selection(
        scale=selected.scale,
        datasets=datasets,
        regimes=selected.regime,
        queries=selected.query,
        mitigations=selected.mitigation,
        seeds=selected.seeds,
        weak={name: DATASETS[name].weak for name in datasets if DATASETS[name].weak},
        flows={name: flows[name] for name in datasets},
        skipped=skipped,
    )
