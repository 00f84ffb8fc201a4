"""Encoders of signals, channels x time: EfficientNet-B0 in one dimension (paper, A.2), and a small one.

Signals pass through two-dimensional convolutions as images of height 1 in channels-last memory, which torch's
one-dimensional ones lack: on a CPU 294 ms instead of 436 for a step of EfficientNet on 16 x 12 x 1000 values.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from mindgap.base.hosted import StochasticDepth
from mindgap.base.settings import Widths

# Axes: B batch, C channels, T time; 1 is the height.


class SignalEncoder(nn.Module):
    """What encoders of signals share: how stored values become input, and the layout they compute in."""

    @staticmethod
    def prepare(x_BCT: Tensor) -> Tensor:
        return x_BCT.float()

    def forward(self, x_BCT: Tensor) -> Tensor:
        x_BC1T = x_BCT.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        return self.stages(x_BC1T).mean(dim=(2, 3))


class TinySignal(SignalEncoder):
    """Strided convolutions: by default each output sees 681 samples, of an ECG several heart beats or one.

    That is 6.8 s at 100 Hz and 1.4 s at 500 Hz. A step on 32 x 12 x 1000 values takes 11 ms on one core.
    """

    KERNEL, STRIDE = 9, 4

    def __init__(self, shape: tuple[int, ...], widths: Widths = (32, 64, 96, 128)):
        super().__init__()
        if not widths or not all(isinstance(width, int) and width >= 1 for width in widths):
            raise ValueError(f"widths is {widths!r}: one whole number of at least 1 for each layer")
        self.out_features = widths[-1]
        layers = [
            convolution(width_in, width, self.KERNEL, self.STRIDE, activation=nn.ReLU)
            for width_in, width in pairwise([shape[0], *widths])
        ]
        self.stages = nn.Sequential(*layers).to(memory_format=torch.channels_last)


# EfficientNet-B0 (Tan and Le 2019, table 1). A stage: expansion, kernel, stride, channels, blocks.
STEM, HEAD = 32, 1280
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
STOCHASTIC_DEPTH = 0.2


class EfficientNet1dB0(SignalEncoder):
    """EfficientNet-B0 with kernels of one dimension; all else, initial weights included, is torchvision's."""

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.out_features = HEAD
        layers: list[nn.Module] = [convolution(shape[0], STEM, 3, 2)]
        total, width, index = sum(stage[-1] for stage in STAGES), STEM, 0
        for expand, kernel, stride, width_out, blocks in STAGES:
            for block in range(blocks):
                drop = STOCHASTIC_DEPTH * index / total
                layers.append(MBConv(width, width_out, expand, kernel, 1 if block else stride, drop))
                width, index = width_out, index + 1
        self.stages = nn.Sequential(*layers, convolution(width, HEAD)).to(memory_format=torch.channels_last)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


class MBConv(nn.Module):
    """Inverted residual: expand, filter each channel, weigh the channels, project; added to its input.

    Added only where the shape stays; there, in training, a row goes without it at the rate `drop`.
    """

    def __init__(self, width_in: int, width_out: int, expand: int, kernel: int, stride: int, drop: float):
        super().__init__()
        wide = width_in * expand
        layers = [convolution(width_in, wide)] if expand > 1 else []
        self.block = nn.Sequential(
            *layers,
            convolution(wide, wide, kernel, stride, groups=wide),
            SqueezeExcitation(wide, width_in // 4),
            convolution(wide, width_out, activation=nn.Identity),
        )
        self.residual = stride == 1 and width_in == width_out
        self.stochastic_depth = StochasticDepth(drop)

    def forward(self, x_BC1T: Tensor) -> Tensor:
        out_BC1T = self.block(x_BC1T)
        return x_BC1T + self.stochastic_depth(out_BC1T) if self.residual else out_BC1T


class SqueezeExcitation(nn.Module):
    """Every channel times a weight between 0 and 1, worked out from all channels' means."""

    def __init__(self, width: int, squeezed: int):
        super().__init__()
        self.weigh = nn.Sequential(
            nn.Conv2d(width, squeezed, 1), nn.SiLU(), nn.Conv2d(squeezed, width, 1), nn.Sigmoid()
        )

    def forward(self, x_BC1T: Tensor) -> Tensor:
        return x_BC1T * self.weigh(x_BC1T.mean(dim=(2, 3), keepdim=True))


def convolution(
    width_in: int,
    width_out: int,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    activation: type[nn.Module] = nn.SiLU,
) -> nn.Sequential:
    """Convolution along time, batch normalisation, activation."""
    sizes = {"kernel_size": (1, kernel), "stride": (1, stride), "padding": (0, kernel // 2)}
    conv = nn.Conv2d(width_in, width_out, **sizes, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width_out), activation())
