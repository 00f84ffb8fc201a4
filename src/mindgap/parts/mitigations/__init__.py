"""Training-side mitigations by name. A new one is a class with the hooks of `base.py` and a line here."""

from collections.abc import Mapping
from typing import Any

from mindgap.base.settings import checked
from mindgap.parts.mitigations.base import Mitigation, Step
from mindgap.parts.mitigations.moddrop import ModDrop

__all__ = ["MITIGATIONS", "Mitigation", "Step"]

MITIGATIONS = {
    "none": Mitigation,
    "moddrop": ModDrop,
}


def make_mitigation(name: str, settings: Mapping[str, Any]) -> Mitigation:
    """The mitigation with its settings, checked by their annotations."""
    return MITIGATIONS[name](**checked(f"mitigation_settings.{name}", MITIGATIONS[name], 0, settings))
