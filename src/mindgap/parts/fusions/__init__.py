"""Fusions of the tokens of a sample's modalities, by name."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

import torch
from torch import nn

from mindgap.base.at_work import at_work
from mindgap.base.plugins import Registry, check_call
from mindgap.base.settings import SettingsError, checked, parameters
from mindgap.parts.fusions.concat import ConcatFusion
from mindgap.parts.fusions.cross_attention import CrossAttentionFusion
from mindgap.parts.fusions.evidential import EvidentialFusion
from mindgap.parts.fusions.gated import GatedFusion
from mindgap.parts.fusions.moe import MoeFusion
from mindgap.parts.fusions.quality import QualityFusion
from mindgap.parts.fusions.sum_logits import SumLogitsFusion
from mindgap.parts.fusions.transformer import TransformerFusion


class Fusion(Protocol):
    """What a fusion has beside what every module has: it makes features N x `out_features`."""

    out_features: int


def _of_package(thing: Any, group: str) -> Any:
    """What an entry point of another package names, as an entry of the table."""
    check_call(thing, 2, "the number of modalities and the width")
    return thing


FUSIONS: Registry[Callable[..., nn.Module]] = Registry(
    {
        "transformer": TransformerFusion,
        "concat": ConcatFusion,
        "sum_logits": SumLogitsFusion,
        "gated": GatedFusion,
        "quality": QualityFusion,
        "moe": MoeFusion,
        "evidential": EvidentialFusion,
        "cross_attention": CrossAttentionFusion,
    },
    "mindgap.fusion",
    _of_package,
)


def make_fusion(settings: Mapping[str, Any], modalities: int, width: int) -> nn.Module:
    """The fusion that `settings` name, with its own settings checked."""
    return FUSIONS[settings["name"]](modalities, width, **fusion_settings("model.fusion", settings, width))


def make_head(fusion: nn.Module, classes: int) -> nn.Linear:
    """The linear layer behind a fusion; one that has to know the classes makes it in its `head`."""
    own: Callable[[int], nn.Linear] | None = getattr(fusion, "head", None)
    return nn.Linear(cast(Fusion, fusion).out_features, classes) if own is None else own(classes)


def gives_reliabilities(settings: Mapping[str, Any], width: int) -> bool:
    """Whether a fusion says how reliable each modality of a sample is: tried on one sample."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        fusion = make_fusion(settings, 2, width)
        make_head(fusion, 2)
        return isinstance(fusion(torch.zeros(1, 2, width), torch.ones(1, 2, dtype=torch.bool)), tuple)


def giving_reliabilities() -> list[str]:
    """The fusions of ours that do."""
    return [name for name in FUSIONS.ours if gives_reliabilities({"name": name}, 64)]


def own_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Without the sizes of a scale's transformer where another fusion is named that has no such setting."""
    known, sizes = parameters(FUSIONS[settings["name"]], 2), parameters(TransformerFusion, 2)
    return {key: value for key, value in settings.items() if key in known or key not in sizes}


def fusion_settings(where: str, settings: Mapping[str, Any], width: int) -> dict[str, Any]:
    """A fusion's own settings, those beside its name, as `encoder_settings`; the width has to suit them."""
    fusion = FUSIONS[settings["name"]]
    own = {key: value for key, value in own_settings(settings).items() if key != "name"}
    own = checked(where, fusion, 2, own)
    try:
        with torch.device("meta"), at_work(f"fusion {settings['name']!r}", fusion, expected=ValueError):
            fusion(1, width, **own)
    except ValueError as error:
        raise SettingsError(f"{where}: {error}") from error
    return own
