"""keep: the records behind a report, added to where the next run does not replace them, to be committed.

A kept folder has the curves, flows, provenance and searches of a selection, what evaluators beyond those of
the curves measured (where there are any), and the selection itself. Kept again, it has the union of both
selections, which need be no product of lists (holes): `mindgap report FOLDER` makes its tables, figures and
page from them, on any machine and at any later time. It is made beside its place and put there whole, so that
whatever stops it leaves the old or the new records.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from mindgap.base.errors import MindGapError
from mindgap.core.params import Kept, Params, Selected, load_kept
from mindgap.core.records import CURVE_COLUMNS, MEASURED_COLUMNS, csv_text, seal, text_digest
from mindgap.data.prepared import swapped
from mindgap.results.balance import beyond_curves
from mindgap.results.curves import POINTS
from mindgap.results.flow import SELECTION
from mindgap.results.names import DATASET_NAMES, METHOD_NAMES, MITIGATION_NAMES
from mindgap.results.paper import REGIMES
from mindgap.results.provenance import RUN_NAME, cell_name, check_one_kind, read_runs
from mindgap.results.reading import ReportError, read_table, read_text
from mindgap.results.site.build import FOLDERS
from mindgap.stages.paths import REPORTS
from mindgap.stages.report import (
    IGNORE_FILES,
    MARKERS,
    RECORDS,
    check_kept,
    diagnosed,
    kept_selection,
    read_inputs,
    restore_kept,
    selection_of,
    set_aside,
    strangers,
    vouched_for,
)

# Where the pipeline reads, writes or deletes: records that are kept there would not last.
TAKEN = [
    *(REPORTS / name for name in (*RECORDS, *FOLDERS, "expectations", "sensitivity", "validation")),
    *map(Path, ("data", "src", ".git", ".dvc", ".mindgap")),
]

RunKey = tuple[str, str, str, str, int]
# What two records of one run have to share, and what is said where they do not.
COMPARED = {
    "own": "other settings",
    "data": "other data",
    "numerics": "other code",
    "code": "other code",
    "rows": "other numbers",
    "measured": "other numbers",
    "run": "another digest",
}
ORDERS = {
    "dataset": DATASET_NAMES,
    "published": DATASET_NAMES,
    "regime": REGIMES,
    "query": METHOD_NAMES,
    "mitigation": MITIGATION_NAMES,
}


@dataclass(frozen=True)
class Records:
    """What a folder has of a selection, read and checked.

    `texts`: flows and searches by their names in the folder. `runs`: by dataset, regime, mitigation, query
    and seed what `read_runs` tells of each, with the rows of its curve as text (`rows`), what it was `made`
    with, what extra evaluators `measured`, and whether its file vouches for the rows (`verified`).
    """

    lists: Selected
    texts: Mapping[str, str]
    runs: Mapping[RunKey, Mapping[str, Any]]


def keep_stage(
    params: Params | None,
    folder: Path,
    about: str | None = None,
    replace: bool = False,
    source: Path = REPORTS,
) -> None:
    """Add what the report of params.yaml is made of to `folder`, once it is complete and of one kind.

    `folder` is new, empty, or a kept one: it then has the union, by cell and seed, of its runs and of these.
    Without `about` the text that is there stays. `replace` forgets what is there. `source` may be another
    kept folder, whose runs are added (`params` is None then). What is refused leaves `folder` as it is: a run
    that is there with other numbers, settings, data or code, and a folder that holds anything else.
    """
    try:
        place = _place(Path(folder))
        older = kept_selection(place) if (place / SELECTION).is_file() and not replace else None
        if params is None:
            restore_kept(source)
        selected = params or kept_selection(source)
        text = _about(about, older, selected)
        added = _records(selected, source)
        records = _union(_records(older, place), added, folder, source) if older else added
        files, kept = _files(records, text)
        _put(place, files, kept)
    except OSError as error:
        raise MindGapError(
            f"{folder} cannot be written ({error}); nothing is lost, what was kept before is as it was: make "
            f"room or name another folder, then keep again"
        ) from error
    holes = "; not every combination of its lists is there, which its page shows as holes" * bool(kept.there)
    count = f"{len(records.runs)} run{'s' * (len(records.runs) != 1)}"
    print(f"{folder}: {count} kept{holes}; `mindgap report {folder}` makes its page")


def _about(about: str | None, older: Kept | None, selected: Selected) -> str:
    known = older or (selected if isinstance(selected, Kept) else None)
    text = (known.about if known else "") if about is None else about.strip()
    if not text:
        what = "is empty" if about is not None else "is missing"
        raise MindGapError(
            f"--about {what}: say in a sentence or two what the runs are, for the report's page"
        )
    return text


def _records(selected: Selected, folder: Path) -> Records:
    """The records of a selection; a folder that is not complete, or not as it was kept, is refused."""
    selection = selection_of(selected, folder)
    curves = read_inputs(selection, folder).curves
    asked = {name: getattr(selected, name) for name in Selected.model_fields}
    made = {key: [d for d in selection.datasets if d in asked[key]] for key in ("dataset", "published")}
    lists = Selected(**asked | made)
    names = [f"flow/{name}.csv" for name in selection.datasets]
    names += [f"search/{'-'.join(pair)}.csv" for pair in selection.pairs]
    if isinstance(selected, Kept):
        check_kept(folder, selected)
        names += [f"diagnosis/{path.stem}{end}" for path in diagnosed(folder) for end in (".csv", ".json")]
    texts = {name: read_text(folder / name, "") for name in names if (folder / name).exists()}
    runs: dict[RunKey, Mapping[str, Any]] = {}
    for pair in selection.pairs:
        settings, told, verified = read_runs(folder / "provenance", *pair, curves)
        table = read_table(folder / "curves" / f"{'-'.join(pair)}.csv", CURVE_COLUMNS, "")
        rows = dict(iter(table[list(CURVE_COLUMNS)].groupby("run", sort=False)))
        measured = _measured(selected, folder, pair, [settings[run["settings"]] for run in told.values()])
        for digest, run in told.items():
            more = {"rows": rows[digest].to_dict("records"), "measured": measured.get(digest, [])}
            more["verified"] = verified
            cell = tuple(run[name] for name in RUN_NAME)
            runs[cell] = {**run, **more, "made": settings[run["settings"]]}
    return Records(lists, texts, runs)


def _measured(
    selected: Selected, folder: Path, pair: tuple[str, str], settings: Sequence[Mapping[str, Any]]
) -> dict[str, list[dict[str, str]]]:
    """By run the rows of the long table that its curve does not have: those of extra evaluators.

    A kept selection names its tables; else the settings of the runs say whether there is one. That of a
    credentialed dataset is not published.
    """
    path = folder / "measured" / f"{'-'.join(pair)}.csv"
    if isinstance(selected, Kept):
        there = f"measured/{path.name}" in selected.records
    else:
        extra = {name for made in settings for name in made.get("evaluators", ())} - set(POINTS)
        there = bool(extra) and pair[0] not in selected.published
    if not there:
        return {}
    rows = beyond_curves(path).groupby("run", sort=False)
    return {run: of_run.to_dict("records") for run, of_run in rows}


def _union(older: Records, added: Records, folder: Path, source: Path) -> Records:
    """Both together; what is in both has to be the same."""
    options = "--replace --about ..." if source == REPORTS else f"--from {source} --replace"
    mend = f"keep them in another folder, or forget what is there: mindgap keep {folder} {options}"
    scales = [one.lists.scale for one in (older, added)]
    if len(set(scales)) > 1:
        raise ReportError(f"{folder} has runs of scale {scales[0]}, {source} of scale {scales[1]}; {mend}")
    # A folder from before tables of extra evaluators were kept lacks them.
    ours, theirs = _completed(older.runs, added.runs), _completed(added.runs, older.runs)
    for there, new in ((run, theirs[cell]) for cell, run in ours.items() if cell in theirs):
        differs = [what for key, what in COMPARED.items() if there[key] != new[key]]
        if differs:
            raise ReportError(
                f"{folder} has the run {cell_name(new['cell'])} with {differs[0]} ({there['run']} there, "
                f"{new['run']} in {source}); {mend}"
            )
    for name, text in older.texts.items():
        if name in added.texts and text_digest(text) != text_digest(added.texts[name]):
            raise ReportError(f"{folder / name} is not what {source / name} says; {mend}")
    check_one_kind(folder, [*ours.values(), *theirs.values()], f", or {mend}")
    lists, more = older.lists.model_dump(exclude={"scale"}), added.lists.model_dump()
    together = {name: _in_order(name, values, more[name]) for name, values in lists.items()}
    selected = Selected(**together, scale=scales[0])
    return Records(selected, {**added.texts, **older.texts}, {**theirs, **ours})


def _completed(runs: Mapping[RunKey, Mapping], others: Mapping[RunKey, Mapping]) -> dict[RunKey, Mapping]:
    """The runs, each with what was `measured` of it in whichever folder has it."""
    return {
        cell: {**run, "measured": run["measured"] or others.get(cell, run)["measured"]}
        for cell, run in runs.items()
    }


def _in_order(axis: str, older: Sequence, added: Sequence) -> list:
    """The values of both: seeds by number, names as reports know them, then others by name."""
    known = list(ORDERS.get(axis, ()))
    place = {name: number for number, name in enumerate(known)}
    return sorted({*older, *added}, key=lambda value: (place.get(value, len(known)), value))


def _files(records: Records, about: str) -> tuple[dict[str, str], Kept]:
    """The texts of a folder's files by their names, and its selection."""
    lists, runs, files = records.lists, records.runs, dict(records.texts)
    cells = product(lists.mitigation, lists.seeds, lists.query)  # as acquire writes them
    cells = [
        (*pair, mitigation, query, seed) for pair, (mitigation, seed, query) in product(lists.pairs, cells)
    ]
    there: dict[str, list[str]] = {}
    for dataset, regime in lists.pairs:
        of_pair = [runs[cell] for cell in cells if cell[:2] == (dataset, regime) and cell in runs]
        if of_pair:
            there.setdefault(dataset, []).append(regime)
            curves = csv_text(CURVE_COLUMNS, [row for run in of_pair for row in run["rows"]])
            told = {run["run"]: run["told"] for run in of_pair}
            body = {"runs": told, "settings": {run["settings"]: run["made"] for run in of_pair}}
            body |= {"curves": text_digest(curves)} if all(run["verified"] for run in of_pair) else {}
            files[f"curves/{dataset}-{regime}.csv"] = curves
            if measured := [row for run in of_pair for row in run["measured"]]:
                files[f"measured/{dataset}-{regime}.csv"] = csv_text(MEASURED_COLUMNS, measured)
            sealed = json.dumps(seal(body), indent=1, sort_keys=True) + "\n"
            files[f"provenance/{dataset}-{regime}.json"] = sealed
    holes = {} if len(runs) == len(cells) else there
    kept = Kept(**lists.model_dump(), about=about, there=holes)
    vouched = [*vouched_for(kept), *(name for name in files if name.startswith("measured/"))]
    digests = {name: text_digest(files[name]) for name in vouched if name in files}
    return files | dict.fromkeys(MARKERS, ""), kept.model_copy(update={"records": digests})


def _place(folder: Path) -> Path:
    """The folder, resolved, if records can be kept there without anything being lost."""
    elsewhere = "name another folder, such as reports/reference"
    place = Path(os.path.realpath(folder))
    if place == REPORTS.resolve():
        raise MindGapError(f"{folder} is where every run writes: {elsewhere}")
    if folder.is_symlink():
        raise MindGapError(f"{folder} is a link: name the folder that it leads to, or another one")
    for taken in TAKEN:
        if place.is_relative_to(taken.resolve()):
            raise MindGapError(f"{folder} is in {taken}, where the pipeline reads and writes: {elsewhere}")
    for above in place.parents:
        if (above / SELECTION).exists():
            raise MindGapError(f"{folder} is inside a kept folder ({above}): {elsewhere}")
    restore_kept(place)
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return place
    if not (place / SELECTION).is_file():
        raise MindGapError(f"{folder} is neither empty nor a folder of kept records: {elsewhere}")
    foreign = strangers(place, kept_selection(place))
    if foreign:
        raise MindGapError(
            f"{folder} holds {foreign[0].relative_to(place)}, which neither keep nor report writes and which "
            f"would be lost: move it away, or {elsewhere}"
        )
    return place


def _put(place: Path, files: Mapping[str, str], kept: Kept) -> None:
    """Write the records beside their place, then let them take it: the older ones go last."""
    new, old = set_aside(place)
    with swapped(place, new, old):
        for name, text in files.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_bytes(text.encode())
        for name in IGNORE_FILES:
            if (place / name).exists():
                (new / name).write_bytes((place / name).read_bytes())
        text = yaml.safe_dump(kept.model_dump(), sort_keys=False, width=100)
        (new / SELECTION).write_text(text)
        read_inputs(selection_of(load_kept(new / SELECTION), new), new)
