"""A package that is installed beside MindGap: files and a .dist-info in a folder of the search path."""

from pathlib import Path

PARTS = '''"""Least confidence, with a scale of its own."""

from beside_mindgap.scale import SCALE
from mindgap.parts.query.kernels import top_k


def least(view, n, power: float = 1.0):
    return top_k(-SCALE * view.probs_NC.max(dim=1).values ** power, n, view.rng)


def short(view):
    return None


def first(candidates, n, rng):
    return list(range(n))


def asking(candidates, n, rng, more):
    return list(range(more))
'''

MODEL = '''"""Parts of a model, and a dataset."""

from torch import nn

from mindgap.data.quintfeatures.pairing import Factor, Pairing
from mindgap.parts.mitigations import Mitigation


class Half(Mitigation):
    """Half of the loss."""

    def loss(self, step):
        return 0.5 * super().loss(step)


class Colour(nn.Module):
    """The mean colour."""

    def __init__(self, shape):
        super().__init__()
        self.out_features = shape[-1]

    @staticmethod
    def prepare(x_BHWC):
        return x_BHWC.float() / 255

    def forward(self, x_BHWC):
        return x_BHWC.mean(dim=(1, 2))


class Mean(nn.Module):
    """The mean of the tokens that are there."""

    def __init__(self, modalities, width):
        super().__init__()
        self.out_features = width

    def forward(self, tokens_NMD, present_NM):
        weight_NM1 = present_NM.unsqueeze(-1).to(tokens_NMD.dtype)
        return (tokens_NMD * weight_NM1).sum(dim=1) / weight_NM1.sum(dim=1).clamp(min=1)


PATTERNED = Pairing(
    modalities=("first", "second"),
    weak="second",
    label=(Factor("fg_texture", ("first", "second")),),
    absence={"second": 0.5},
)
'''

ENTRIES = """
[mindgap.query]
least = beside_mindgap.parts:least
[mindgap.control]
ruler = beside_mindgap.parts:least
[mindgap.mitigation]
half = beside_mindgap.model:Half
[mindgap.encoder]
image.colour = beside_mindgap.model:Colour
[mindgap.fusion]
mean = beside_mindgap.model:Mean
[mindgap.start]
first = beside_mindgap.parts:first
[mindgap.dataset]
patterned = beside_mindgap.model:PATTERNED
"""


def install(folder: Path, entries: str = ENTRIES, name: str = "beside_mindgap") -> Path:
    """Put the package, or another name for it, with these entry points into a folder of the search path."""
    package, told = folder / "beside_mindgap", folder / f"{name}-1.5.dist-info"
    for made in (package, told):
        made.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text("")
    (package / "parts.py").write_text(PARTS)
    (package / "model.py").write_text(MODEL)
    (package / "scale.py").write_text("SCALE = 1.0\n")
    (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
    (told / "entry_points.txt").write_text(entries)
    return package
