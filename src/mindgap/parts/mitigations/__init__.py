"""Training-side mitigations by name. A new one is a class with the hooks of `base.py` and a line here."""

from collections.abc import Mapping
from typing import Any

from mindgap.base.plugins import Registry
from mindgap.base.settings import checked
from mindgap.parts.mitigations.agm import Agm
from mindgap.parts.mitigations.base import (
    Lesson,
    Mitigation,
    Step,
    check_dropped,
    check_gradients,
    check_lesson,
    check_losses,
)
from mindgap.parts.mitigations.coteach import Coteach
from mindgap.parts.mitigations.mmpareto import MMPareto
from mindgap.parts.mitigations.moddrop import ModDrop
from mindgap.parts.mitigations.multi_loss import MultiLoss
from mindgap.parts.mitigations.ogm_ge import OgmGe
from mindgap.parts.mitigations.opm import Opm
from mindgap.parts.mitigations.pmr import Pmr
from mindgap.parts.mitigations.shortcut_aware import ShortcutAware
from mindgap.parts.mitigations.unimodal_ensemble import UnimodalEnsemble
from mindgap.parts.mitigations.unimodal_loss import UnimodalLoss

__all__ = [
    "MITIGATIONS",
    "Lesson",
    "Mitigation",
    "Step",
    "check_dropped",
    "check_gradients",
    "check_lesson",
    "check_losses",
]


def _of_package(thing: Any, group: str) -> type[Mitigation]:
    """What an entry point of another package names, as an entry of the table."""
    if not (isinstance(thing, type) and issubclass(thing, Mitigation)):
        raise TypeError("it is no subclass of mindgap.parts.mitigations.Mitigation")
    return thing


MITIGATIONS = Registry(
    {
        "none": Mitigation,
        "moddrop": ModDrop,
        "multi_loss": MultiLoss,
        "ogm_ge": OgmGe,
        "agm": Agm,
        "mmpareto": MMPareto,
        "opm": Opm,
        "pmr": Pmr,
        "shortcut_aware": ShortcutAware,
        "unimodal_ensemble": UnimodalEnsemble,
        "unimodal_loss": UnimodalLoss,
        "coteach": Coteach,
    },
    "mindgap.mitigation",
    _of_package,
)


def make_mitigation(name: str, settings: Mapping[str, Any]) -> Mitigation:
    """The mitigation with its settings, checked by their annotations."""
    return MITIGATIONS[name](**checked(f"mitigation_settings.{name}", MITIGATIONS[name], 0, settings))
