"""What a model can be made of, by name. Encoders stand under the kind of modality that they read."""

from mindgap.models.fusion import TransformerFusion
from mindgap.models.image import EfficientNetB0, TinyEncoder
from mindgap.models.signal import EfficientNet1dB0, TinySignal
from mindgap.models.table import TableMLP
from mindgap.models.text import BagOfTokens, MiniLM

ENCODERS = {
    "image": {"tiny": TinyEncoder, "efficientnet_b0": EfficientNetB0},
    "tokens": {"bag": BagOfTokens, "minilm": MiniLM},
    "table": {"mlp": TableMLP},
    "signal": {"tiny": TinySignal, "efficientnet1d_b0": EfficientNet1dB0},
}

FUSIONS = {
    "transformer": TransformerFusion,
}
