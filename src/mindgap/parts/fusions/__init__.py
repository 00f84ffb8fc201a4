"""Fusions of the tokens of a sample's modalities, by name."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mindgap.base.plugins import Registry, check_call
from mindgap.base.settings import SettingsError, checked
from mindgap.parts.fusions.transformer import TransformerFusion


def _of_package(thing: Any, group: str) -> Any:
    """What an entry point of another package names, as an entry of the table."""
    check_call(thing, 2, "the number of modalities and the width")
    return thing


FUSIONS = Registry(
    {
        "transformer": TransformerFusion,
    },
    "mindgap.fusion",
    _of_package,
)


def make_fusion(settings: Mapping[str, Any], modalities: int, width: int) -> nn.Module:
    """The fusion that `settings` name, with its own settings checked."""
    return FUSIONS[settings["name"]](modalities, width, **fusion_settings("model.fusion", settings, width))


def fusion_settings(where: str, settings: Mapping[str, Any], width: int) -> dict[str, Any]:
    """A fusion's own settings, those beside its name, as `encoder_settings`; the width has to suit them."""
    fusion, own = FUSIONS[settings["name"]], {key: value for key, value in settings.items() if key != "name"}
    own = checked(where, fusion, 2, own)
    try:
        with torch.device("meta"):
            fusion(1, width, **own)
    except ValueError as error:
        raise SettingsError(f"{where}: {error}") from error
    return own
