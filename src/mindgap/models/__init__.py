"""What a model can be made of, by name."""

from mindgap.models.encoders import EfficientNetB0, TinyEncoder
from mindgap.models.fusion import TransformerFusion

ENCODERS = {
    "tiny": TinyEncoder,
    "efficientnet_b0": EfficientNetB0,
}

FUSIONS = {
    "transformer": TransformerFusion,
}
