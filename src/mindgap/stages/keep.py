"""keep: the records behind a report, copied where the next run does not replace them, to be committed.

A kept folder has the curves, flows, provenance and searches of a selection and the selection itself:
`mindgap report FOLDER` makes its tables, figures and page from them, on any machine and at any later time.
It is made beside its place and put there whole, so that whatever stops it leaves the old or the new records.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import yaml

from mindgap.base.errors import MindGapError
from mindgap.core.params import Kept, Params, Selected, load_kept
from mindgap.core.records import text_digest
from mindgap.data.prepared import swapped
from mindgap.results.flow import SELECTION
from mindgap.results.reading import read_text
from mindgap.results.site.build import FOLDERS
from mindgap.stages.paths import REPORTS
from mindgap.stages.report import (
    IGNORE_FILES,
    RECORDS,
    kept_selection,
    read_inputs,
    record_files,
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


def keep_stage(params: Params, folder: Path, about: str) -> None:
    """Copy what the report of params.yaml is made of to `folder`, once it is complete and of one kind.

    `folder` is new, empty, or a kept one, which is replaced as a whole; anything else is an error that leaves
    it as it is.
    """
    if not about.strip():
        raise MindGapError(
            "--about is empty: say in a sentence or two what the runs are, for the report's page"
        )
    try:
        place = _place(Path(folder))
        selection = selection_of(params, REPORTS)
        read_inputs(selection, REPORTS)
        asked = {name: getattr(params, name) for name in Selected.model_fields}
        made = {key: [d for d in selection.datasets if d in asked[key]] for key in ("dataset", "published")}
        kept = Kept(**asked | made, about=about.strip())
        files = {name: REPORTS / name for name in record_files(kept) if (REPORTS / name).exists()}
        digests = {
            name: text_digest(read_text(files[name], "")) for name in vouched_for(kept) if name in files
        }
        kept = kept.model_copy(update={"records": digests})
        _put(place, files, kept)
    except OSError as error:
        raise MindGapError(
            f"{folder} cannot be written ({error}); nothing is lost, what was kept before is as it was: make "
            f"room or name another folder, then keep again"
        ) from error
    print(f"{folder}: {len(files) + 1} files kept; `mindgap report {folder}` makes its page")


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


def _put(place: Path, files: Mapping[str, Path], kept: Kept) -> None:
    """Write the records beside their place, then let them take it: the older ones go last."""
    new, old = set_aside(place)
    with swapped(place, new, old):
        for name, source in files.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_bytes(source.read_bytes())
        for name in IGNORE_FILES:
            if (place / name).exists():
                (new / name).write_bytes((place / name).read_bytes())
        text = yaml.safe_dump(kept.model_dump(), sort_keys=False, width=100)
        (new / SELECTION).write_text(text)
        load_kept(new / SELECTION)
