"""report: what the runs say, of the cells that params.yaml names and no others, all of them checked."""

from mindgap.data import DATASETS
from mindgap.expectations import validate_aulc, validate_curves
from mindgap.params import Params
from mindgap.report.build import build_report
from mindgap.report.curves import Selection
from mindgap.stages.paths import CURVES, EXPECTATIONS, PAPER, REPORTS, VALIDATION


def report_stage(params: Params) -> None:
    """Check the curves, write tables, figures, metrics and page, check the table of AULCs."""
    for dataset in params.dataset:
        for regime in params.regime:
            validate_curves(CURVES / f"{dataset}-{regime}.csv", EXPECTATIONS, VALIDATION)
    selection = Selection(
        scale=params.scale,
        datasets=params.dataset,
        regimes=params.regime,
        queries=params.query,
        mitigations=params.mitigation,
        seeds=params.seeds,
        weak={name: DATASETS[name].weak for name in params.dataset if DATASETS[name].weak},
    )
    build_report(CURVES, REPORTS, PAPER, selection)
    validate_aulc(REPORTS / "tables" / "aulc.csv", EXPECTATIONS, VALIDATION)
