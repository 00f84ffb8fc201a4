"""Image encoders. An encoder is a module made from the shape of one stored sample and its own settings, with
`prepare` (a batch as stored -> its input), `forward` and `out_features`.

torchvision is imported only when EfficientNet is asked for: its import costs five seconds, which every worker
of a sweep would pay.
"""

import torch
from torch import Tensor, nn

from mindgap.base.settings import Widths


class ImageEncoder(nn.Module):
    """What image encoders share: how stored pixels become input."""

    @staticmethod
    def prepare(x_BHWC: Tensor) -> Tensor:
        """Pixels (uint8, as stored) in [-2, 2], B x C x H x W in channels-last memory."""
        return x_BHWC.permute(0, 3, 1, 2).to(torch.float32, copy=True).sub_(127.5).div_(63.75)


class TinyEncoder(ImageEncoder):
    """Four strided 3 x 3 convolutions: 32 px in 2 ms a batch on one core, enough receptive field for a shape.

    Three stages stay near chance on shapes whatever the number of steps: they never see a whole one.
    """

    def __init__(self, shape: tuple[int, ...], widths: Widths = (16, 32, 64, 96)):
        super().__init__()
        self.out_features = widths[-1]
        layers, width_in = [], shape[-1]
        for width in widths:
            conv = nn.Conv2d(width_in, width, 3, stride=2, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            width_in = width
        self.stages = nn.Sequential(*layers)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.stages(x_BCHW).mean(dim=(2, 3))


class EfficientNetB0(ImageEncoder):
    """torchvision's EfficientNet-B0 from random weights, its stem adapted to the channels (paper, A.2)."""

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        from torchvision.models import efficientnet_b0

        in_channels = shape[-1]
        backbone = efficientnet_b0(weights=None)
        self.out_features = backbone.classifier[1].in_features
        backbone.classifier = nn.Identity()
        if in_channels != 3:
            stem = backbone.features[0][0]
            backbone.features[0][0] = nn.Conv2d(
                in_channels, stem.out_channels, stem.kernel_size, stem.stride, stem.padding, bias=False
            )
        self.backbone = backbone

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.backbone(x_BCHW)
