"""list: what params.yaml can name, one line each, from the docstrings and signatures of the plug-ins."""

import contextlib
import importlib
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from mindgap.base.plugins import PluginError, Registry, declared
from mindgap.base.settings import parameters
from mindgap.data import CREDENTIALED, RENDERED, SOURCES
from mindgap.parts.encoders import ENCODERS
from mindgap.parts.evaluators import EVALUATORS, GIVEN
from mindgap.parts.fusions import FUSIONS
from mindgap.parts.mitigations import MITIGATIONS
from mindgap.parts.query import METHODS
from mindgap.parts.starts import GIVEN as GIVEN_STARTS
from mindgap.parts.starts import STARTS
from mindgap.results.names import OUR_METHODS

Entry = tuple[str, str, str]  # name, what it is, its settings


def list_stage() -> None:
    """Print the plug-ins under the key of params.yaml that names them; last those that cannot be used."""
    for title, lines in catalogue().items():
        print(title)
        width = max(len(name) for name, _, _ in lines)
        for name, about, settings in lines:
            print(f"  {name:{width}}  {about}{settings and f' [{settings}]'}")
        print()
    if lines := faults():
        print("installed, and of no use", *lines, sep="\n  ")


def catalogue() -> dict[str, list[Entry]]:
    """The plug-ins by the key that names them."""
    encoders = {
        f"scales.*.model.encoder.{kind} (name, and the settings beside it)": _parts(table, 1)
        for kind, table in ENCODERS.items()
    }
    return {
        "dataset (settings: scales.*.prepare.<name>)": list(_datasets()),
        "query (settings: query_settings.<name>)": list(_methods()),
        "mitigation (settings: mitigation_settings.<name>)": _parts(MITIGATIONS, 0),
        "loop.start": _parts(STARTS, GIVEN_STARTS),
        "evaluate (settings: evaluate_settings.<name>)": _parts(EVALUATORS, GIVEN),
        **encoders,
        "scales.*.model.fusion (name, and the settings beside it)": _parts(FUSIONS, 2),
    }


def faults() -> list[str]:
    """What is wrong with plug-ins of other packages, a line each."""
    tables = [RENDERED, SOURCES, METHODS, MITIGATIONS, FUSIONS, EVALUATORS, STARTS, *ENCODERS.values()]
    kinds = ", ".join(f"{kind}." for kind in ENCODERS)
    unknown = [
        str(one.fault(f"its name has to begin with one of {kinds}"))
        for one in declared("mindgap.encoder")
        if one.entry.name.partition(".")[0] not in ENCODERS
    ]
    return list(dict.fromkeys([*(line for table in tables for line in table.faults()), *unknown]))


def _sound(table: Registry) -> Iterator[tuple[str, Any, str]]:
    """Name, entry, and which other package it is from."""
    for name in table:
        with contextlib.suppress(PluginError):
            yield name, table[name], "".join(f" (from {one.package})" for one in table.outside(name))


def _parts(table: Registry, given: int) -> list[Entry]:
    parts = [(name, getattr(one, "fn", one), origin) for name, one, origin in _sound(table)]
    return [(name, _first(part.__doc__) + origin, _settings(part, given)) for name, part, origin in parts]


def _datasets() -> Iterator[Entry]:
    for name, pairing, origin in _sound(RENDERED):
        own = (f"{key}={getattr(pairing, key)!r}" for key in ("absence", "label_values", "style"))
        about = "a dataset that is rendered" if origin else _first(_module(name).__doc__)
        yield name, about + origin, ", ".join(own)
    for name, source, origin in _sound(SOURCES):
        mark = "credentialed, a project of its own: " if name in CREDENTIALED else ""
        yield name, mark + _first(source.module.__doc__) + origin, _settings(source.module.Settings, 0)


def _module(rendered: str) -> ModuleType:
    return importlib.import_module(f"mindgap.data.quintfeatures.{rendered}")


def _methods() -> Iterator[Entry]:
    for name, method, origin in _sound(METHODS):
        kind = "ours" if name in OUR_METHODS else method.kind
        mark = "" if kind == "query" else f"({kind}) "
        about = _first(inspect.getmodule(method.fn).__doc__ or method.fn.__doc__)
        yield name, mark + about + origin, _settings(method.fn, method.given)


def _settings(plug_in: Any, given: int) -> str:
    """The settings with their defaults; one without a default has to be given."""
    settings = parameters(plug_in, given).values()
    return ", ".join(p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in settings)


def _first(doc: str | None) -> str:
    """The first paragraph of a docstring on one line."""
    return " ".join((doc or "no description").strip().split("\n\n")[0].split())
