"""Training-side mitigations by name. A new one is a class with the hooks of `base.py` and a line here."""

from mindgap.mitigations.base import Mitigation
from mindgap.mitigations.moddrop import ModDrop

MITIGATIONS = {
    "none": Mitigation,
    "moddrop": ModDrop,
}
