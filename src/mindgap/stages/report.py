"""report: what the runs say, of the cells that params.yaml names and no others, all of them checked."""

from mindgap.data import DATASETS
from mindgap.errors import MindGapError
from mindgap.expectations import validate_aulc, validate_curves
from mindgap.params import Params
from mindgap.report.build import build_report
from mindgap.report.curves import Selection
from mindgap.report.flow import read_flow, skipped_line
from mindgap.stages.paths import CURVES, EXPECTATIONS, FLOW, PAPER, REPORTS, VALIDATION


def report_stage(params: Params) -> None:
    """Check the curves, write tables, figures, metrics and page, check the table of AULCs."""
    flows = {name: read_flow(FLOW / f"{name}.csv") for name in [*params.dataset, *params.published]}
    skipped = {name: line for name, flow in flows.items() if (line := skipped_line(flow))}
    datasets = [name for name in flows if name not in skipped]
    for name, line in skipped.items():
        print(f"{name} is skipped: {line}", flush=True)
    if not datasets:
        raise MindGapError(f"nothing to report: {', '.join(skipped)} were skipped for want of their files")
    for dataset in datasets:
        for regime in params.regime:
            validate_curves(CURVES / f"{dataset}-{regime}.csv", EXPECTATIONS, VALIDATION)
    selection = Selection(
        scale=params.scale,
        datasets=datasets,
        regimes=params.regime,
        queries=params.query,
        mitigations=params.mitigation,
        seeds=params.seeds,
        weak={name: DATASETS[name].weak for name in datasets if DATASETS[name].weak},
        flows={name: flows[name] for name in datasets},
        skipped=skipped,
    )
    build_report(CURVES, REPORTS, PAPER, selection)
    validate_aulc(REPORTS / "tables" / "aulc.csv", EXPECTATIONS, VALIDATION)
