"""Parts and datasets by name: our own, and those of packages that are installed beside MindGap.

A package names what it brings as an entry point, for example of the group `mindgap.query`. It is imported
when it is asked for, in each process by itself, so a broken one stops only what uses it.
"""

import contextlib
import functools
import inspect
import re
import sys
from collections.abc import Callable, Collection, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

from mindgap.base.errors import MindGapError

T = TypeVar("T")
# The groups of what a model is made of or picked with: `encoder` has names such as image.resnet.
PARTS = tuple(
    f"mindgap.{kind}"
    for kind in ("query", "control", "mitigation", "encoder", "fusion", "evaluator", "start")
)
NAME = re.compile(r"[A-Za-z0-9_]{1,64}")  # becomes part of file names


class PluginError(MindGapError):
    """A plug-in of another package cannot be used; the message names package, entry point and mend."""


@dataclass(frozen=True)
class Outside:
    """A plug-in of another package, as `package` (name and version) declares it."""

    package: str
    entry: EntryPoint

    def __str__(self) -> str:
        return f"{self.package}, entry point {self.entry.group}: {self.entry.name} = {self.entry.value}"

    def fault(self, reason: str) -> PluginError:
        return PluginError(f"{self}: {reason}. Mend the package, or uninstall it")

    def load(self) -> Any:
        """What it names; a PluginError where that cannot be imported."""
        try:
            return self.entry.load()
        except (Exception, SystemExit) as error:  # whatever a stranger's code raises
            told = " ".join(str(error).split())
            raise self.fault(f"it cannot be imported ({type(error).__name__}: {told})") from error

    @property
    def files(self) -> set[Path]:
        """The sources of its module and of the packages around it, once it is loaded."""
        parts = self.entry.module.split(".")
        modules = [sys.modules.get(".".join(parts[:n])) for n in range(1, len(parts) + 1)]
        paths = (Path(file).resolve() for one in modules if (file := getattr(one, "__file__", None)))
        return {path for path in paths if path.suffix == ".py"}


class Registry(MutableMapping[str, T], Generic[T]):
    """A table of plug-ins by name: `ours` first, then those that other packages declare in `groups`.

    `made(thing, group)` makes an entry of the table from what an entry point names. It returns None if the
    thing belongs to another table, and raises TypeError or ValueError if it breaks the contract. Names of
    entry points begin with `prefix`. `taken`: names of ours in another table of the same groups.
    """

    def __init__(
        self,
        ours: dict[str, T],
        groups: str | Sequence[str],
        made: Callable[[Any, str], T | None],
        prefix: str = "",
    ):
        self.ours, self.made, self.prefix = ours, made, prefix
        self.groups = [groups] if isinstance(groups, str) else list(groups)
        self.taken: Collection[str] = ()
        self._loaded: dict[Outside, T | None] = {}

    @property
    def names(self) -> list[str]:
        """All names; nothing is imported, so one may be broken or belong to another table."""
        return list(dict.fromkeys([*self.ours, *self._declared()]))

    def outside(self, name: str) -> list[Outside]:
        """Who else declares that name."""
        return self._declared().get(name, [])

    def files(self, name: str) -> set[Path]:
        """The source files of an entry of another package; none for ours."""
        return set().union(*(one.files for one in self.outside(name)))

    def __getitem__(self, name: str) -> T:
        declared = self.outside(name)
        if not declared:
            return self.ours[name]
        entry = self._load(name, declared)
        if entry is None:
            raise KeyError(name)
        return entry

    def __setitem__(self, name: str, entry: T) -> None:
        self.ours[name] = entry

    def __delitem__(self, name: str) -> None:
        del self.ours[name]

    def __iter__(self) -> Iterator[str]:
        return (name for name in self.names if self._belongs(name))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def faults(self) -> list[str]:
        """What is wrong with plug-ins of other packages, a line each."""
        lines = []
        for name in self._declared():
            try:
                self.get(name)
            except PluginError as error:
                lines.append(str(error))
        return lines

    def _belongs(self, name: str) -> bool:
        """Whether a name is of this table; of a broken plug-in that is assumed."""
        try:
            return name in self
        except PluginError:
            return True

    def _declared(self) -> dict[str, list[Outside]]:
        found: dict[str, list[Outside]] = {}
        for group in self.groups:
            for one in declared(group):
                if one.entry.name.startswith(self.prefix):
                    found.setdefault(one.entry.name.removeprefix(self.prefix), []).append(one)
        return found

    def _load(self, name: str, declared: Sequence[Outside]) -> T | None:
        one, is_ours = declared[0], name in self.ours or name in self.taken
        if one in self._loaded and len(declared) == 1 and not is_ours:
            return self._loaded[one]
        if is_ours:
            raise one.fault(f"MindGap has a {name!r} of its own, so it is open which is meant: rename it")
        if len(declared) > 1:
            raise one.fault(f"{name!r} is also that of {declared[1]}: rename one")
        if not NAME.fullmatch(name):
            raise one.fault(f"{name!r} is no name: letters, digits and _ only, 64 at most")
        try:
            thing = one.load()
            self._loaded[one] = self.made(thing, one.entry.group)
        except (TypeError, ValueError) as error:
            raise one.fault(f"it breaks the contract: {error}") from error
        return self._loaded[one]


def declared(group: str) -> tuple[Outside, ...]:
    """The plug-ins that other packages declare in a group, in the order of their names; none is imported."""
    return _declared(group, tuple(sys.path))


@functools.cache
def _declared(group: str, path: tuple[str, ...]) -> tuple[Outside, ...]:
    found = (Outside(_package(entry), entry) for entry in entry_points(group=group))
    return tuple(sorted(found, key=lambda one: (one.entry.name, str(one))))


def _package(entry: EntryPoint) -> str:
    """Name and version of the package that declares an entry point, as far as it says them."""
    with contextlib.suppress(AttributeError, TypeError, KeyError):  # a package without metadata
        if entry.dist is not None:
            return f"{entry.dist.metadata['Name']} {entry.dist.version}"
    return entry.value.partition(":")[0].partition(".")[0]


def outside_parts() -> dict[str, set[Path]]:
    """The sources of all parts that other packages declare; none of one that cannot be imported."""
    found = {}
    for one in (one for group in PARTS for one in declared(group)):
        with contextlib.suppress(PluginError):
            one.load()
        found[str(one)] = one.files
    return found


def check_call(thing: Any, given: int, names: str) -> None:
    """A TypeError unless `thing` takes so many positional arguments, its settings behind them."""
    if not callable(thing):
        raise TypeError("it is no function or class")
    try:
        inspect.signature(thing).bind_partial(*range(given))
        inspect.getfile(inspect.unwrap(getattr(thing, "func", thing)))
    except (TypeError, ValueError) as error:
        raise TypeError(f"it has to be written in Python and take {names} first ({error})") from error
