"""publish: the aggregated curves of a credentialed dataset, copied out of its private project.

Only what no person can be found in leaves: accuracies over a whole test set, and counts rounded to tens.
"""

import re
from pathlib import Path

from mindgap.base.errors import MindGapError
from mindgap.core.params import Params, pick
from mindgap.core.records import CURVE_COLUMNS, csv_text, write_atomically
from mindgap.data import SOURCES
from mindgap.data.flow import FLOW_COLUMNS
from mindgap.data.storage import read_meta
from mindgap.results.curves import read_curve_file
from mindgap.results.flow import COUNTS, FlowRows, read_flow
from mindgap.stages.paths import CURVES, FLOW, PROVENANCE, places

# An accuracy over fewer samples would say something about single ones.
FEWEST_TEST_SAMPLES = 50


def publish_stage(params: Params, dataset: str) -> None:
    """Copy curves and flow of the regimes in params.yaml to reports/, to be looked at and committed."""
    if not pick(SOURCES, dataset, "dataset", "mindgap.data.SOURCES").credentialed:
        raise MindGapError(f"{dataset} is open: its results are in reports/ already")
    where = places(dataset)
    samples = read_meta(where.prepared)["sizes"]["test"]
    if samples < FEWEST_TEST_SAMPLES:
        raise MindGapError(
            f"{where.prepared} has {samples} test samples: accuracies over fewer than {FEWEST_TEST_SAMPLES} "
            f"are not published, they would say something about single patients"
        )
    flow_path = where.flow / f"{dataset}.csv"
    flow = read_flow(flow_path)
    _check_texts(flow_path, flow)
    texts = {FLOW / f"{dataset}.csv": _rounded(flow)}
    for regime in params.regime:
        name = f"{dataset}-{regime}"
        _check_columns(where.curves / f"{name}.csv")
        texts[CURVES / f"{name}.csv"] = (where.curves / f"{name}.csv").read_text()
        # Parameters, digests, versions and devices: nothing of a patient is in it.
        texts[PROVENANCE / f"{name}.json"] = (where.provenance / f"{name}.json").read_text()
    for path, text in texts.items():
        write_atomically(path, text.encode())
        print(f"{path}: look at it, then commit it")


def _check_columns(path: Path) -> None:
    strange = set(read_curve_file(path).columns) ^ set(CURVE_COLUMNS)
    if strange:
        raise MindGapError(f"{path} has other columns than published curves may have: {', '.join(strange)}")


def _check_texts(path: Path, flow: FlowRows) -> None:
    """Subjects, admissions and recordings have eight digits; no text that leaves may hold such a number."""
    for row in flow:
        if re.search(r"\d{8}", " ".join(row[name] for name in ("part", "step", "reason"))):
            raise MindGapError(
                f"{path}: the line {row['step']!r} names a patient's number: mend the data stage"
            )


def _rounded(flow: FlowRows) -> str:
    """The flow with every count rounded to tens: no small group can be counted, nor by differences."""
    rows = ({**row, **{name: round(int(row[name]), -1) for name in COUNTS}} for row in flow)
    return csv_text(FLOW_COLUMNS, rows)
