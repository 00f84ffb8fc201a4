"""The searches for a recipe (reports/search) behind the runs of a report: which were tried, and which won."""

from itertools import product
from pathlib import Path

import pandas as pd

from mindgap.records import SEARCH_COLUMNS
from mindgap.report.curves import Selection
from mindgap.report.flow import ReportError, mend_of


def read_searches(folder: Path, selection: Selection) -> pd.DataFrame:
    """The trials of all datasets and regimes, SEARCH_COLUMNS as text; empty when nothing was searched.

    A credentialed dataset keeps its searches in its own project.
    """
    frames = [_read(folder, *key) for key in product(selection.datasets, selection.regimes)]
    return pd.concat(frames, ignore_index=True)


def _read(folder: Path, dataset: str, regime: str) -> pd.DataFrame:
    path = Path(folder) / f"{dataset}-{regime}.csv"
    if not path.exists():
        return pd.DataFrame(columns=list(SEARCH_COLUMNS))
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    if tuple(frame.columns) != SEARCH_COLUMNS:
        raise ReportError(
            f"{path} needs the columns {', '.join(SEARCH_COLUMNS)}; {mend_of(dataset, f'train@{path.stem}')}"
        )
    return frame
