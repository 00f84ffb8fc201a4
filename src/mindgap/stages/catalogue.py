"""list: what params.yaml can name, one line each, from the docstrings and signatures of the plug-ins."""

import importlib
import inspect
from collections.abc import Iterator
from typing import Any

from mindgap.base.settings import parameters
from mindgap.data import CREDENTIALED, RENDERED, SOURCES
from mindgap.parts.encoders import ENCODERS
from mindgap.parts.fusions import FUSIONS
from mindgap.parts.mitigations import MITIGATIONS
from mindgap.parts.query import METHODS

Line = tuple[str, str, str]  # name, what it is, its settings


def list_stage() -> None:
    """Print the plug-ins under the key of params.yaml that names them."""
    for title, lines in catalogue().items():
        print(title)
        width = max(len(name) for name, _, _ in lines)
        for name, about, settings in lines:
            print(f"  {name:{width}}  {about}{settings and f' [{settings}]'}")
        print()


def catalogue() -> dict[str, list[Line]]:
    """The plug-ins by the key that names them."""
    encoders = {
        f"scales.*.model.encoder.{kind} (name, and the settings beside it)": [
            (name, _first(cls.__doc__), _settings(cls, 1)) for name, cls in table.items()
        ]
        for kind, table in ENCODERS.items()
    }
    return {
        "dataset (settings: scales.*.prepare.<name>)": list(_datasets()),
        "query (settings: query_settings.<name>)": list(_methods()),
        "mitigation (settings: mitigation_settings.<name>)": [
            (name, _first(cls.__doc__), _settings(cls, 0)) for name, cls in MITIGATIONS.items()
        ],
        **encoders,
        "scales.*.model.fusion (name, and the settings beside it)": [
            (name, _first(cls.__doc__), _settings(cls, 2)) for name, cls in FUSIONS.items()
        ],
    }


def _datasets() -> Iterator[Line]:
    for name, pairing in RENDERED.items():
        module = importlib.import_module(f"mindgap.data.quintfeatures.{name}")
        own = (f"{key}={getattr(pairing, key)!r}" for key in ("absence", "label_values", "style"))
        yield name, _first(module.__doc__), ", ".join(own)
    for name, source in SOURCES.items():
        mark = "credentialed, a project of its own: " if name in CREDENTIALED else ""
        yield name, mark + _first(source.module.__doc__), _settings(source.module.Settings, 0)


def _methods() -> Iterator[Line]:
    for name, method in METHODS.items():
        mark = "" if method.kind == "query" else f"({method.kind}) "
        about = _first(inspect.getmodule(method.fn).__doc__ or method.fn.__doc__)
        yield name, mark + about, _settings(method.fn, method.given)


def _settings(plug_in: Any, given: int) -> str:
    """The settings with their defaults; one without a default has to be given."""
    settings = parameters(plug_in, given).values()
    return ", ".join(p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in settings)


def _first(doc: str | None) -> str:
    """The first paragraph of a docstring on one line."""
    return " ".join((doc or "no description").strip().split("\n\n")[0].split())
