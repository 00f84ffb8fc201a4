"""Datasets that are made from files which come from outside: what they are, and where their files lie."""

import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from mindgap.data.errors import NotInstalled


@dataclass(frozen=True)
class Source:
    """A dataset from outside. `module` has what it takes, imported when asked for:

    `Settings(**settings)`, a frozen dataclass that raises ValueError for what cannot be;
    `prepare(raw, out_dir, settings, *, workers, progress)`, which writes a prepared dataset, or raises
    SourceMissing when `raw` lacks its files and DataError when they are not what they should be;
    `tables(folder)`, the tables by part that suites `<dataset>_<part>.json` check, each a dict of columns;
    `parameters(meta)`, what replaces "$name" in those suites.
    """

    name: str
    modalities: tuple[str, ...]
    weak: str | None
    checks: tuple[str, ...]  # the parts that `tables` gives, for links to their pages
    made_from: str | None = None  # another dataset, whose files are those of this one
    # Under a data use agreement: in a DVC project of its own, which shares nothing (docs/data.md).
    credentialed: bool = False
    # Of its checks those that count over all patients: what a row of them holds may be told.
    totals: tuple[str, ...] = ()
    # Of another package's dataset: the name of its module, and the folder of its suites.
    code: str = ""
    suites: Path | None = None

    @property
    def module(self) -> ModuleType:
        try:
            return importlib.import_module(self.code or f"mindgap.data.{self.name}")
        except ModuleNotFoundError as error:
            raise NotInstalled(
                f"{self.name} is read with {error.name}, which is not installed here: "
                f"{'install it' if self.code else '`make setup` installs it'}"
            ) from error

    @property
    def raw(self) -> Path:
        """The folder of its files: MINDGAP_RAW_<NAME>, else data/raw/<name> or data/<name>/raw. The name is
        that of the dataset it is made from, where there is one.

        A temporary workspace of DVC has no such folder: there it is that of the checkout (DVC_ROOT).
        """
        name = self.made_from or self.name
        if named := os.environ.get(f"MINDGAP_RAW_{name.upper()}"):
            return Path(named)
        home = Path("data", name) if self.credentialed else Path()
        inside = Path("raw") if self.credentialed else Path("data/raw", name)
        of_checkout = Path(os.environ.get("DVC_ROOT", home)) / inside
        return of_checkout if of_checkout.exists() and not (home / inside).exists() else home / inside
