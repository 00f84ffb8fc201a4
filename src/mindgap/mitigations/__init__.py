"""Training-side mitigations by name. A new one is a class with the hooks of `base.py` and a line here."""

from collections.abc import Mapping
from typing import Any

from mindgap.mitigations.base import Mitigation, Step
from mindgap.mitigations.moddrop import ModDrop
from mindgap.settings import checked

__all__ = ["MITIGATIONS", "Mitigation", "Step"]

MITIGATIONS = {
    "none": Mitigation,
    "moddrop": ModDrop,
}


def make_mitigation(name: str, settings: Mapping[str, Any]) -> Mitigation:
    """The mitigation with its settings, checked by their annotations."""
    return MITIGATIONS[name](**checked(f"mitigation_settings.{name}", MITIGATIONS[name], 0, settings))
