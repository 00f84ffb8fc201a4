"""Writing a prepared dataset: a folder that appears whole or not at all, and the meta that describes it."""

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from mindgap.base.modality import Modality
from mindgap.data.errors import DataError
from mindgap.data.flow import Flow
from mindgap.data.storage import ASIDE, FORMAT, SKIPPED, file_sha256, read_meta, seal_of


@contextmanager
def swapped_in(out_dir: Path | str) -> Iterator[Path]:
    """A place beside `out_dir`, of the same name, for a folder that replaces it when all went well.

    A process that is killed at any moment leaves the old folder or the new one; the next call puts back an
    old one that was caught in between. Where `out_dir` is a link, what it leads to is replaced.
    """
    name, out_dir = Path(out_dir).name, _target(Path(out_dir))
    aside = out_dir.parent / ASIDE.format(out_dir.name)
    old, new = aside / "old" / name, aside / name
    put_back(old, out_dir)
    if _holds_something_else(out_dir):
        raise DataError(f"{out_dir} holds something else than a dataset: empty it or choose another folder")
    shutil.rmtree(aside, ignore_errors=True)  # left behind by a process that was killed
    old.parent.mkdir(parents=True)
    try:
        with swapped(out_dir, new, old):
            yield new
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def swapped(place: Path, new: Path, old: Path) -> Iterator[None]:
    """`new`, made meanwhile, takes the place of a folder when all went well; the older one waits in `old`.

    A process that is killed at any moment leaves one of them whole; `put_back` mends what it left.
    """
    put_back(old, place)
    for folder in (new, old):
        shutil.rmtree(folder, ignore_errors=True)
    try:
        yield
        if place.exists():
            place.rename(old)
        new.rename(place)
    finally:
        put_back(old, place)
        for folder in (new, old):
            shutil.rmtree(folder, ignore_errors=True)


def put_back(old: Path, place: Path) -> None:
    """An older folder to its place, if a replacement was stopped before the new one was there."""
    if old.is_dir() and not place.exists():
        old.rename(place)


@contextmanager
def written_at_once(out_dir: Path | str) -> Iterator[Path]:
    """A folder beside `out_dir` that takes its place when all went well."""
    with swapped_in(out_dir) as folder:
        folder.mkdir()
        yield folder


def new_array(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> np.memmap:
    """An .npy file of zeros, mapped to be written; a DataError where the disk has no room for all of it.

    The room is taken at once: a page that finds none later kills the process without a word.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        if hasattr(os, "posix_fallocate"):
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error.strerror or error}): make room for {math.prod(shape):,} "
            f"values of {np.dtype(dtype)} there, and repeat the command"
        ) from error
    return array


def _target(path: Path) -> Path:
    """Where a link leads to, such as a folder on another disk; a path that is none as it is."""
    if not path.is_symlink():
        return path
    try:
        target = path.resolve()
    except (OSError, RuntimeError):  # RuntimeError is Python 3.11's and 3.12's word for a loop
        target = None
    if target is None or not target.is_dir():
        raise DataError(f"{path} is a link to no folder: make the folder it leads to, or remove the link")
    return target


def _holds_something_else(folder: Path) -> bool:
    try:
        names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    except NotADirectoryError:
        return True
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror}): give yourself access to it") from None
    return bool(names) and not names & {"meta.json", SKIPPED}


def write_meta(
    folder: Path,
    *,
    dataset: str,
    modalities: Mapping[str, Modality],
    weak: str | None,
    num_classes: int,
    class_names: Sequence[str],
    ceilings: Mapping[str, float],
    sizes: Mapping[str, int],
    flow: Flow,
    details: Mapping[str, Any],
    grouped: bool = False,
) -> dict:
    """Write flow.csv and meta.json beside the arrays, which are hashed; the meta as it will be read.

    Arrays are `<split>.<modality>.npy`, `<split>.present.npy` (N x M) and `<split>.label.npy` of both splits;
    with `grouped` also `<split>.group.npy`: samples of one group (a patient) are never divided between
    labelled pool and validation. `details` are the dataset's own entries.
    """
    flow.write(folder / "flow.csv")
    meta = {
        "format": FORMAT,
        "dataset": dataset,
        "modalities": {name: modality.to_meta() for name, modality in modalities.items()},
        "weak": weak,
        "num_classes": num_classes,
        "class_names": list(class_names),
        "ceilings": dict(ceilings),
        "sizes": dict(sizes),
        "grouped": grouped,
        **details,
        "sha256": {path.name: file_sha256(path) for path in sorted(folder.glob("*.npy"))},
        "tables_sha256": {path.name: file_sha256(path) for path in _tables(folder)},
    }
    return _write(folder, meta)


def _tables(folder: Path) -> list[Path]:
    """All files but arrays and the picture for people."""
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix not in (".npy", ".png"))


def add_to_meta(folder: Path, **entries: Any) -> dict:
    """Write further entries into a folder's meta.json; the meta as it will be read."""
    return _write(folder, {**read_meta(folder), **entries})


def _write(folder: Path, meta: Mapping[str, Any]) -> dict:
    meta = json.loads(json.dumps(meta))
    meta["meta_sha256"] = seal_of(meta)
    (folder / "meta.json").write_text(json.dumps(meta, indent=1) + "\n")
    return meta
