"""keep: the records behind a report, copied where the next run does not replace them, to be committed.

A kept folder has the curves, flows, provenance and searches of a selection and the selection itself:
`mindgap report FOLDER` makes its tables, figures and page from them, on any machine and at any later time.
"""

import shutil
from itertools import product
from pathlib import Path

import yaml

from mindgap.errors import MindGapError
from mindgap.params import Params, Selected, load_kept
from mindgap.records import write_atomically
from mindgap.report.curves import read_curves
from mindgap.report.provenance import read_origins
from mindgap.stages.paths import REPORTS, SELECTION
from mindgap.stages.report import selection_of


def keep_stage(params: Params, folder: Path, about: str) -> None:
    """Copy what the report of params.yaml is made of to `folder`, once it is complete and of one kind."""
    if not about.strip():
        raise MindGapError(
            "--about is empty: say in a sentence or two what the runs are, for the report's page"
        )
    if Path(folder).resolve() == REPORTS.resolve():
        raise MindGapError(
            f"{folder} is where every run writes: name another folder, such as reports/reference"
        )
    selection = selection_of(params, REPORTS)
    read_origins(REPORTS / "provenance", read_curves(REPORTS / "curves", selection), selection)
    names = [f"{d}-{r}" for d, r in product(selection.datasets, selection.regimes)]
    files = [f"flow/{dataset}.csv" for dataset in selection.datasets]
    files += [f"curves/{name}.csv" for name in names] + [f"provenance/{name}.json" for name in names]
    files += [f"search/{name}.csv" for name in names if (REPORTS / f"search/{name}.csv").exists()]
    for part in ("flow", "curves", "provenance", "search"):
        shutil.rmtree(folder / part, ignore_errors=True)
    for file in files:
        write_atomically(folder / file, (REPORTS / file).read_bytes())
    kept = {name: getattr(params, name) for name in Selected.model_fields}
    kept |= {"dataset": [d for d in selection.datasets if d in params.dataset], "about": about.strip()}
    write_atomically(folder / SELECTION, yaml.safe_dump(kept, sort_keys=False, width=100).encode())
    load_kept(folder / SELECTION)
    print(f"{folder}: {len(files) + 1} files kept; `mindgap report {folder}` makes its page")
