"""Encoders by name, under the kind of modality that they read."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from mindgap.base.plugins import Registry, check_call
from mindgap.base.settings import checked
from mindgap.parts.encoders.image import EfficientNetB0, TinyEncoder
from mindgap.parts.encoders.signal import EfficientNet1dB0, TinySignal
from mindgap.parts.encoders.table import TableMLP
from mindgap.parts.encoders.text import BagOfTokens, MiniLM

OURS: dict[str, dict[str, Callable[..., nn.Module]]] = {
    "image": {"tiny": TinyEncoder, "efficientnet_b0": EfficientNetB0},
    "tokens": {"bag": BagOfTokens, "minilm": MiniLM},
    "table": {"mlp": TableMLP},
    "signal": {"tiny": TinySignal, "efficientnet1d_b0": EfficientNet1dB0},
}


class Encoder(Protocol):
    """What an encoder has beside what every module has: it makes tokens K x `out_features` of K samples."""

    out_features: int

    def prepare(self, x_K: Tensor) -> Tensor:
        """Stored samples as input."""
        ...


def _of_package(thing: Any, group: str) -> Any:
    """What an entry point of another package names, such as `image.resnet`, as an entry of a table."""
    check_call(thing, 1, "the shape of a stored sample")
    if not callable(getattr(thing, "prepare", None)):
        raise TypeError("it has no `prepare`, which turns stored samples into input")
    return thing


ENCODERS = {
    kind: Registry(ours, "mindgap.encoder", _of_package, prefix=f"{kind}.") for kind, ours in OURS.items()
}


def make_encoder(kind: str, shape: tuple[int, ...], settings: Mapping[str, Any]) -> nn.Module:
    """The encoder that `settings` name, for stored samples of that shape, with its own settings checked."""
    own = encoder_settings(f"model.encoder.{kind}", kind, settings)
    return ENCODERS[kind][settings["name"]](shape, **own)


def encoder_settings(where: str, kind: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """An encoder's own settings, those beside its name; a SettingsError names each that it cannot take."""
    own = {key: value for key, value in settings.items() if key != "name"}
    return checked(where, ENCODERS[kind][settings["name"]], 1, own)
