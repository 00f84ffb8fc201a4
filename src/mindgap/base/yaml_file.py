"""YAML files of plain values, as DVC reads them: plain words are what YAML 1.2 makes of them.

PyYAML alone reads YAML 1.1, in which "no" is false and "1:30" is ninety.
"""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from mindgap.base.errors import ParamsError

MOST_VALUES = 100_000  # of a file of parameters; a few aliases of aliases stand for billions


class _Loader(yaml.SafeLoader):
    """Plain values only: no tags, keys are text and given once, words are those of YAML 1.2's core."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's name; those of YAML 1.1 are not taken over

    def __init__(self, stream: str):
        super().__init__(stream)
        self.values = 0
        self.values_of: dict[int, int] = {}  # with what aliases stand for

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event, before = self.peek_event(), self.values  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None):
            raise yaml.YAMLError(f"{event.tag} is a tag: write a plain value without it{event.start_mark}")
        alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if alias and id(node) not in self.values_of:
            raise yaml.YAMLError(f"*{event.anchor} stands for what it is in: write it out{event.start_mark}")
        self.values += self.values_of[id(node)] if alias else 1
        self.values_of.setdefault(id(node), self.values - before)
        if self.values > MOST_VALUES:
            raise yaml.YAMLError(f"there are more than {MOST_VALUES} values up to here{event.start_mark}")
        return node


for _tag, _words, _first in (
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", "true|True|TRUE|false|False|FALSE", list("tTfF")),
    # More digits than any parameter takes stay text, which Python would not even print.
    ("int", "[-+]?(0|[1-9][0-9]{0,17})", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?[0-9]+[eE][-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^({_words})$"), _first)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for (key_node, _), key in zip(node.value, keys, strict=True):
        if not isinstance(key, str):
            raise yaml.YAMLError(f"key {key!r} is no text: put quotes around a name{key_node.start_mark}")
    for key, count in Counter(keys).items():
        if count > 1:
            raise yaml.YAMLError(f"key {key!r} is given twice{node.start_mark}")
    return {
        key: loader.construct_object(value, deep=True)
        for key, (_, value) in zip(keys, node.value, strict=True)
    }


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_mapping(path: Path, mend: str | None = None) -> dict[str, Any]:
    """The mapping in a YAML file. Plain words are numbers, true, false and null as in YAML 1.2, which DVC
    reads, and else text: "1:30" is no number here and "no" is a name. `mend` ends the error of a file
    without parameters; by default git has it.
    """
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError as error:
        raise ParamsError(f"{path} is not here: run the command in the project's top folder") from error
    except OSError as error:
        raise ParamsError(f"{path} cannot be read: {error.strerror}; put a text file there") from error
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path}: byte {error.start} is not UTF-8: save the file as UTF-8 text") from error
    try:
        raw = yaml.load(text, Loader=_Loader)
    # The last three: what PyYAML raises for an explicit tag (`!!int x`) whose value does not fit.
    except (yaml.YAMLError, RecursionError, ValueError, TypeError, LookupError) as error:
        raise ParamsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        what = "is empty" if raw is None else f"holds a {type(raw).__name__}"
        mend = f": `git checkout {path}` brings them back" if mend is None else mend
        raise ParamsError(f"{path} {what} instead of parameters{mend}")
    return raw
