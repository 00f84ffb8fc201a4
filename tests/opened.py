"""What a stage reads and writes, beside what dvc.yaml lists of it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from small_project import ROOT

# Parameters are listed one by one; a blueprint has the digests of suites; reports/flow has the same flow.
BY_OTHER_WAYS = ("params.yaml", "reports/expectations/prepared", "data/prepared/missing/flow.csv")
WRITTEN = "validation"  # pages of checks, which git ignores
_read: list[set[Path]] = []  # one while a stage is watched: a hook cannot be taken away again


def _hook(event: str, arguments: tuple) -> None:
    named = event == "open" and isinstance(arguments[0], str | bytes)
    if _read and named and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
        _read[-1].add(Path(os.fsdecode(arguments[0])).absolute())


sys.addaudithook(_hook)


@contextmanager
def unlisted(stage: str, **item: str) -> Iterator[list[Path]]:
    """What the code within reads in the working folder though this stage does not depend on it, and what it
    leaves there though the stage does not list it; known once it has ended. `item`: that of the matrix.
    """

    def states() -> dict[Path, tuple[int, int]]:
        files = (path for path in folder.rglob("*") if path.is_file())
        return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}

    folder, found = Path.cwd(), list[Path]()
    before = states()
    _read.append(set())
    try:
        yield found
    finally:
        read = _read.pop()
    deps, outs = _listed(folder, stage, item)
    written = {path for path, state in states().items() if before.get(path) != state}
    deps |= outs | {folder / name for name in BY_OTHER_WAYS}
    strange = {path for path in read & set(before) if not _in(path, deps)}
    strange |= {path for path in written if not _in(path, outs)}
    found += [path.relative_to(folder) for path in sorted(strange)]


def _in(path: Path, places: set[Path]) -> bool:
    return bool(places & {path, *path.parents}) or WRITTEN in path.parts


def _listed(folder: Path, stage: str, item: dict[str, str]) -> tuple[set[Path], set[Path]]:
    """What a stage depends on and what it makes."""
    declared = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]

    def paths(entries: list) -> set[Path]:
        names = [name if isinstance(name, str) else next(iter(name)) for name in entries]
        for key, value in item.items():
            names = [name.replace(f"${{item.{key}}}", value) for name in names]
        return {folder / name for name in names}

    return paths(declared["deps"]), paths([*declared["outs"], *declared.get("metrics", [])])
