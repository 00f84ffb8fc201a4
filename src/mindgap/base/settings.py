"""What a plug-in can be told: its keyword arguments, checked by their annotations before any compute.

The same for query methods, mitigations, encoders and datasets from files. An annotation may hold bounds
(`Annotated[int, Field(ge=1)]`, pydantic's); where there is none, the default's type counts. Values are those
of YAML: a list is a tuple where the annotation wants one.
"""

import functools
import inspect
import json
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, Optional

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from mindgap.base.errors import ParamsError

Parameters = dict[str, inspect.Parameter]
Rate = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
# Of layers; wider or more of them exhaust any memory.
Width = Annotated[int, Field(ge=1, le=4_096)]
Widths = Annotated[Sequence[Width], Field(min_length=1, max_length=16)]
# Errors have a mend for what the type alone does not say.
MENDS = {
    "bool_type": "write true or false",
    "dict_type": "write names with values under it",
    "finite_number": "infinity and .nan are no settings",
    "float_type": "write a decimal number without quotes",
    "list_type": "write a list, also of one: [a]",
    "model_type": "write names with values under it",
    "tuple_type": "write a list: [a, b]",
    "int_type": "write a decimal whole number without quotes",
    "string_pattern_mismatch": "letters, digits and _ only, 64 at most, as it becomes part of file names",
    "string_type": "put quotes around it if it is meant",
}


class SettingsError(ParamsError, ValueError):
    """A plug-in does not have that setting, needs one that is not given, or cannot take its value."""


@functools.cache
def parameters(plug_in: Callable[..., Any], given: int) -> Parameters:
    """The settings of a plug-in: its parameters behind the first `given`, which its caller fills in."""
    named = list(_signature(plug_in).parameters.values())[given:]
    own = {p.name: p for p in named if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    for field in fields(plug_in) if is_dataclass(plug_in) else ():
        if field.default_factory is not MISSING:
            own[field.name] = own[field.name].replace(default=field.default_factory())
    return own


def defaults(plug_in: Callable[..., Any], given: int) -> dict[str, Any]:
    """The settings that need not be given, with the values they then have."""
    return {n: p.default for n, p in parameters(plug_in, given).items() if p.default is not p.empty}


def checked(
    where: str, plug_in: Callable[..., Any], given: int, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings as the plug-in's annotations want them; a SettingsError has a line for each fault.

    `where` is the key that they stand under. Defaults are checked too: a run is keyed by them.
    """
    _check_given(where, plug_in, given)
    known, faults, values = parameters(plug_in, given), [], {}
    for name, value in settings.items():
        if name not in known:
            listed = ", ".join(known) or "none, it has no settings"
            faults.append(f"{where}.{name} is unknown; known: {listed}")
            continue
        try:
            values[name] = _valid(plug_in, given, name, value)
        except ValidationError as error:
            faults += explain(error, (where, name))
        except (TypeError, ValueError) as error:  # no value that YAML can give
            faults.append(f"{where}.{name}: {error}")
    for name, parameter in known.items():
        if name in settings:
            continue
        if parameter.default is parameter.empty:
            faults.append(f"{where}.{name}: missing; it has no default, so give it a value")
            continue
        try:
            _valid(plug_in, given, name, parameter.default)
        except (TypeError, ValueError):
            shown = reprlib.repr(parameter.default)
            faults.append(
                f"{where}.{name}: its default, {shown}, is nothing that params.yaml could give it; "
                f"change the default or the annotation in the code"
            )
    if faults:
        raise SettingsError("\n".join(faults))
    return values


def explain(error: ValidationError, where: Iterable[str] = ()) -> list[str]:
    """One line a fault: the key under `where`, what is wrong, what was given, and the mend."""
    lines = []
    for fault in error.errors():
        parts = (*where, *(part for part in fault["loc"] if part != "[key]"))
        key = ".".join(str(part) for part in parts) or "the file"
        if fault["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown parameter; take it out, or mend its spelling")
        elif fault["type"] == "missing":
            lines.append(f"{key}: missing; every parameter has to be given")
        elif fault["type"] == "json_invalid":
            lines.append(f"{key}: nested too deeply, or it holds text that is no Unicode: make it simple")
        else:
            mend = f"; {MENDS[fault['type']]}" if fault["type"] in MENDS else ""
            lines.append(f"{key}: {fault['msg']} (given: {reprlib.repr(fault['input'])}){mend}")
    return lines


def _valid(plug_in: Callable[..., Any], given: int, name: str, value: Any) -> Any:
    """The value as the annotation wants it; by way of JSON, in which records are written too."""
    return _adapter(plug_in, given, name).validate_json(json.dumps(value), strict=True)


def _check_given(where: str, plug_in: Callable[..., Any], given: int) -> None:
    try:
        _signature(plug_in).bind_partial(*range(given))
    except TypeError as error:
        raise SettingsError(
            f"{where}: the code takes fewer than the {given} arguments that stand before its settings"
        ) from error


def _signature(plug_in: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(plug_in, eval_str=True)
    except NameError:  # an annotation that only type checkers can resolve
        return inspect.signature(plug_in)


@functools.cache
def _adapter(plug_in: Callable[..., Any], given: int, name: str) -> TypeAdapter[Any]:
    parameter = parameters(plug_in, given)[name]
    wanted = parameter.annotation
    if wanted is parameter.empty or isinstance(wanted, str):
        plain = parameter.default is None or parameter.default is parameter.empty
        wanted = Any if plain else type(parameter.default)
    if parameter.default is None:  # as often written: `k: int = None`
        wanted = Optional[wanted]  # noqa: UP045 - an annotation need not know "|"
    config = ConfigDict(allow_inf_nan=False, arbitrary_types_allowed=True)
    try:
        return TypeAdapter(wanted, config=config)
    except PydanticUserError:  # a type with a configuration of its own
        return TypeAdapter(wanted)
