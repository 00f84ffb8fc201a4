"""What the parameters ask of a dataset's data stage, checked by the dataset's own declaration.

The tables of datasets are imported when they are asked: reading a file of parameters does not need them.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

from pydantic import Field

from mindgap.base.errors import ParamsError
from mindgap.base.settings import Rate, checked
from mindgap.core.params import Params, Render, as_block, pick

if TYPE_CHECKING:
    from mindgap.data.quintfeatures.pairing import Pairing

P = ParamSpec("P")
T = TypeVar("T")
# What a modality cannot have otherwise than the rest of `render`.
SHARED = {"root_seed", "train_size", "test_size", "image_size"}
NO_ABSENCE: Mapping[str, Rate] = {}
NO_STYLE: Mapping[str, Mapping[str, Any]] = {}


def source_settings(params: Params, dataset: str) -> Any:
    """The settings of a dataset from outside, as its module wants them."""
    from mindgap.data import SOURCES

    where = f"scales.{params.scale}.prepare"
    settings = pick(params.at_scale.prepare, dataset, "dataset", where)
    made = SOURCES[dataset].module.Settings
    settings = checked(f"{where}.{dataset}", made, 0, settings)
    return as_params_error(f"{where}.{dataset}", made, **settings)


def pairing_asked(params: Params, dataset: str) -> "Pairing":
    """A rendered dataset as it is declared, but for what its `prepare` says otherwise."""
    from mindgap.data import RENDERED
    from mindgap.data.quintfeatures.images import Style

    where, render = f"scales.{params.scale}.prepare.{dataset}", params.at_scale.render
    settings = checked(where, _rendered_settings, 0, params.at_scale.prepare.get(dataset, {}))
    for name, own in settings.get("style", {}).items():
        for key in sorted(SHARED & set(own)):
            raise ParamsError(
                f"{where}.style.{name}.{key}: all images of a scale share it: take it out, and set "
                f"scales.{params.scale}.render.{key}"
            )
        as_block({**render.model_dump(), **own}, Render, f"{where}.style.{name}")
    pairing = as_params_error(where, replace, RENDERED[dataset], **settings)
    for modality in pairing.modalities:
        if own := {**pairing.style.get("all", {}), **pairing.style.get(modality, {})}:
            at = f"{where}.style.{modality if modality in pairing.style else 'all'}"
            as_params_error(at, Style, **{**render.style, **own})
    return pairing


def _rendered_settings(
    absence: Mapping[str, Rate] = NO_ABSENCE,
    label_values: Annotated[int, Field(ge=2, le=10)] = 10,
    style: Mapping[str, Mapping[str, Any]] = NO_STYLE,
) -> None:
    """What may stand under `prepare` for a rendered dataset; its declaration has what does not."""


def as_params_error(where: str, check: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What a check returns; a ValueError or TypeError of its own becomes a ParamsError with the key."""
    try:
        return check(*args, **kwargs)
    except ParamsError:
        raise
    except (ValueError, TypeError) as error:
        raise ParamsError(f"{where}: {error}") from error
