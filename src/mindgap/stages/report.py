"""report: the pages, tables and figures of the runs that params.yaml names, once all records are checked."""

import os
import re
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path

import pandas as pd

from mindgap.base.errors import MindGapError, ParamsError
from mindgap.core.params import Kept, Params, Selected, load_kept, pick
from mindgap.core.records import text_digest, write_atomically
from mindgap.data import CREDENTIALED, DATASETS
from mindgap.data.prepared import put_back
from mindgap.results.balance import read_measured
from mindgap.results.curves import Selection, read_curves
from mindgap.results.diagnosis import read_diagnosis
from mindgap.results.expectations import validate_aulc, validate_curves, validate_measured
from mindgap.results.flow import SELECTION, FlowRows, mend_for, read_flow, skipped_reason
from mindgap.results.paper import verify_paper
from mindgap.results.provenance import read_origins
from mindgap.results.reading import ReportError, read_text
from mindgap.results.searches import read_searches
from mindgap.results.sensitivity import VARIANTS, read_collected
from mindgap.results.site.build import FOLDERS, build_report, output_names
from mindgap.results.site.content import Inputs
from mindgap.stages.paths import DIAGNOSIS, EXPECTATIONS, PAPER, REPORTS, SENSITIVITY, places

# The folders of the records that a report is made of, with the endings of their files; some may be without.
RECORDS = {
    **{"curves": ("csv",), "flow": ("csv",), "provenance": ("json",), "search": ("csv",)},
    **{"measured": ("csv",), "diagnosis": ("csv", "json")},
}
OPTIONAL = ("measured", "diagnosis")
# Git keeps no empty folder, and DVC wants to see all that a stage depends on.
MARKERS = tuple(f"{folder}/.gitkeep" for folder in OPTIONAL)
IGNORE_FILES = (".gitignore", ".dvcignore")


def report_stage(params: Params) -> None:
    """The report of params.yaml under reports/."""
    selection = selection_of(params, REPORTS)
    for name, line in selection.skipped.items():
        print(f"{name} is skipped: {line}", flush=True)
    inputs = read_inputs(selection, REPORTS, "", variant_folders(), params.diagnose)
    _report(selection, REPORTS, inputs)
    if paths := left_over(params):
        removal = " ".join(map(str, paths))
        print(f"on no page, as params.yaml names them no more; to remove them: rm {removal}", flush=True)


def left_over(params: Params) -> list[Path]:
    """Files of results of datasets and regimes that params.yaml does not name (any more)."""
    named = {name: [*params.dataset, *params.published] for name in RECORDS}
    named["diagnosis"] = params.diagnose
    return sorted(
        path
        for folder, endings in RECORDS.items()
        for path in (REPORTS / folder).glob("*.*")
        if path.suffix[1:] in endings
        and path.stem not in _stems(folder, named[folder], product(named[folder], params.regime))
    )


def _stems(folder: str, datasets: Sequence[str], pairs: Iterable[tuple[str, str]]) -> list[str]:
    """The names of the files of a folder of records, without their endings."""
    return list(datasets) if folder == "flow" else ["-".join(pair) for pair in pairs]


def kept_report_stage(folder: Path) -> None:
    """The report of kept records (`mindgap keep`), beside them."""
    folder = Path(folder)
    restore_kept(folder)
    kept = kept_selection(folder)
    # The folders of the page are emptied before they are written.
    foreign = [path for path in strangers(folder, kept) if path.relative_to(folder).parts[0] in FOLDERS]
    if foreign:
        raise MindGapError(
            f"{foreign[0]} would be lost: no report writes it, and {foreign[0].relative_to(folder).parts[0]} "
            f"is written anew; move it away"
        )
    for name in MARKERS:  # which folders from before they were kept lack
        if not (folder / name).parent.exists():
            write_atomically(folder / name, b"")
    selection = selection_of(kept, folder)
    inputs = read_inputs(selection, folder, kept.about)
    check_kept(folder, kept)
    _report(selection, folder, inputs)


def kept_selection(folder: Path) -> Kept:
    """What a kept folder is about; a damaged selection is an error of one line, with the mend."""
    path = folder / SELECTION
    if not os.path.lexists(path):
        raise MindGapError(
            f"{folder} holds no kept records, as {path} is not there: name a folder that `mindgap keep` "
            f"made; where it lies in git: git checkout -- {path}"
        )
    try:
        return load_kept(path)
    except ParamsError as error:
        faults = "; ".join(str(error).splitlines())
        raise ParamsError(f"{faults}; where it lies in git: git checkout -- {path}") from error


def record_files(selected: Selected) -> list[str]:
    """The records that a report of a selection is made of, below its folder; searches may be missing.

    Which tables of extra evaluators there are, a kept selection says.
    """
    datasets = [*selected.dataset, *selected.published]
    listed = [
        f"{folder}/{stem}.{ending}"
        for folder, endings in RECORDS.items()
        for stem in _stems(folder, datasets, selected.pairs)
        for ending in endings
        if folder not in OPTIONAL
    ]
    known = selected.records if isinstance(selected, Kept) else ()
    return listed + [name for name in known if name.startswith("measured/")]


def diagnosed(folder: Path) -> list[Path]:
    """The tables of `mindgap diagnose --keep` in a kept folder; the provenance of each lies beside it, or the
    table beside the provenance, where half of it is gone.
    """
    files = (folder / "diagnosis").glob("*.*")
    return sorted({path.with_suffix(".csv") for path in files if path.suffix in (".csv", ".json")})


def strangers(folder: Path, selected: Selected) -> list[Path]:
    """What lies in a kept folder that neither `mindgap keep` nor `mindgap report` writes; links are not."""
    names = [re.escape(name) for name in (*record_files(selected), SELECTION, *MARKERS, *IGNORE_FILES)]
    datasets, regimes = [*selected.dataset, *selected.published], selected.regime
    names += [rf"diagnosis/{re.escape(path.stem)}\.(csv|json)" for path in diagnosed(folder)]
    ours = re.compile("|".join([*names, *output_names(datasets, regimes, selected.mitigation)]))
    folders = {*RECORDS, *FOLDERS, "validation"}

    def known(path: Path) -> bool:
        name = path.relative_to(folder).as_posix()
        return not path.is_symlink() and bool(name in folders if path.is_dir() else ours.fullmatch(name))

    return [path for path in sorted(folder.rglob("*")) if not known(path)]


def set_aside(folder: Path) -> tuple[Path, Path]:
    """Where `mindgap keep` makes new records, and where the older ones wait until these are in place."""
    place = Path(os.path.realpath(folder))  # which a loop of links does not stop
    return place.parent / f".{place.name}.keep-new", place.parent / f".{place.name}.keep-old"


def restore_kept(folder: Path) -> None:
    """Put older records back whose replacement was stopped before the new ones were in place."""
    put_back(set_aside(folder)[1], Path(os.path.realpath(folder)))


def vouched_for(selected: Selected) -> list[str]:
    """The records whose digests a kept selection has. Provenance has its own and that of the curves; where
    runs may be missing, the selection says which provenance it is, so that none goes unnoticed.
    """
    with_holes = isinstance(selected, Kept) and selected.there
    folders = ("flow/", "search/", "measured/", *["provenance/"] * bool(with_holes))
    return [name for name in record_files(selected) if name.startswith(folders)]


def check_kept(folder: Path, kept: Kept) -> None:
    """Whether records are those that were kept, where the selection says what they were."""
    for name in vouched_for(kept) if kept.records else ():
        path, mend = folder / name, mend_for(folder / name, "")
        known = kept.records.get(name)
        if (known or os.path.lexists(path)) and text_digest(read_text(path, mend)) != known:
            raise ReportError(f"{path} is not what was kept (its digest is not that in {SELECTION}); {mend}")


def _report(selection: Selection, folder: Path, inputs: Inputs) -> None:
    # The inputs come first: what is wrong with a run is said with its name; the suites speak of rows.
    verify_paper(PAPER)
    for dataset, regime in selection.pairs:
        path = folder / "curves" / f"{dataset}-{regime}.csv"
        validate_curves(path, EXPECTATIONS, folder / "validation")
        measured = folder / "measured" / path.name
        if measured.exists():  # published records are without, kept ones where no evaluator is extra
            validate_measured(measured, path, EXPECTATIONS, folder / "validation", not inputs.about)
    build_report(inputs, folder, PAPER, selection)
    holes = bool(selection.there)
    validate_aulc(folder / "tables" / "aulc.csv", EXPECTATIONS, folder / "validation", holes)


def variant_folders() -> list[Path]:
    """Where variants are collected: folders of reports/ that say which, and that of the sensitivity."""
    asked = {path.parent for path in REPORTS.glob(f"*/{VARIANTS}")}
    return sorted(asked | ({SENSITIVITY} if SENSITIVITY.exists() else set()))


def read_inputs(
    selection: Selection,
    folder: Path,
    about: str = "",
    variants: Sequence[Path] = (),
    diagnose: Sequence[str] = (),
) -> Inputs:
    """All records that a report is made of, each checked, and that they belong together.

    `diagnose`: datasets whose models' diagnosis lies in reports/; a kept folder's is all that lies there.
    """
    curves = read_curves(folder / "curves", selection)
    origins = read_origins(folder / "provenance", curves, selection)
    searches = read_searches(folder / "search", selection, origins)
    measured = read_measured(folder / "measured", curves)
    collected = [one for one in map(read_collected, variants) if one]
    diagnosis = _diagnosis(folder, selection, curves, diagnose)
    return Inputs(curves, origins, searches, collected, about, measured=measured, diagnosis=diagnosis)


def _diagnosis(
    folder: Path, selection: Selection, curves: pd.DataFrame, datasets: Sequence[str]
) -> pd.DataFrame:
    """What models came to: those of a kept folder, or of `datasets`, of the same runs as the curves."""
    if folder != REPORTS:
        return read_diagnosis(diagnosed(folder), {})
    pairs = [pair for pair in selection.pairs if pair[0] in datasets]
    runs = {"-".join(pair): set() for pair in pairs}
    for (*pair, run), _ in curves.groupby(["dataset", "regime", "run"]):
        runs.get("-".join(pair), set()).add(run)
    return read_diagnosis([DIAGNOSIS / f"{name}.csv" for name in runs], runs)


def _flow(folder: Path, dataset: str) -> FlowRows:
    """The flow of a dataset, that of the prepared dataset where it is at hand."""
    path, original = folder / "flow" / f"{dataset}.csv", places(dataset).prepared / "flow.csv"
    if folder != REPORTS or dataset in CREDENTIALED or not original.exists():
        return read_flow(path)
    prepared = read_flow(original, f"make the dataset anew: dvc repro -f -s prepare@{dataset}")
    mend = f"take the prepared dataset's: rm -rf {path} && cp {original} {path}"
    flow = read_flow(path, mend)
    if flow != prepared:
        raise ReportError(f"{path} is not what {original} says; {mend}")
    return flow


def selection_of(selected: Selected, folder: Path) -> Selection:
    """What a report is about; datasets that were skipped for want of their files are set aside."""
    named = [*selected.dataset, *selected.published]
    for name in named:
        pick(DATASETS, name, "dataset", "mindgap.data.DATASETS")
    flows = {name: _flow(folder, name) for name in named}
    skipped = {name: line for name, flow in flows.items() if (line := skipped_reason(flow))}
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
        there=selected.pairs if isinstance(selected, Kept) and selected.there else (),
    )
