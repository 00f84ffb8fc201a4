"""RandomResizedCrop of a batch on its device, every sample with its own crop: for images larger than CIFAR's.

Drawn as torchvision draws it. Applied in Pillow's own whole numbers, so that a crop has the very bytes of
`image.crop(box).resize(size, BILINEAR)` on every device, where torchvision's tensors differ in 1 % of bytes.
One core makes 1,600 images of 224 px a second, Pillow 2,000 and torchvision's tensors, one by one, 3,300.
"""

import math

import torch
from torch import Tensor

from mindgap.base.gpu import send

# Axes: B batch, H height, W width, C channels, T tries; S the side that is resized, K its two neighbours.
AREA = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)  # width over height
TRIES = 10
BITS = 22  # of a weight's fraction, in Pillow


def draw_resized_crop(shape: torch.Size, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """top_B, left_B, height_B and width_B: area and logarithm of the ratio uniform, then a uniform place.

    The first of ten tries that fits into the image, else the largest crop of an allowed ratio at its centre.
    """
    count, height, width, _ = shape
    area_BT, ratio_BT, down_BT, right_BT = torch.rand(
        (4, count, TRIES), generator=rng, device=rng.device, dtype=torch.float64
    )
    area_BT = height * width * (AREA[0] + (AREA[1] - AREA[0]) * area_BT)
    low, high = map(math.log, RATIO)
    ratio_BT = torch.exp(low + (high - low) * ratio_BT)
    width_BT = (area_BT * ratio_BT).sqrt().round()
    height_BT = (area_BT / ratio_BT).sqrt().round()
    fits_BT = (width_BT > 0) & (width_BT <= width) & (height_BT > 0) & (height_BT <= height)
    tries_4BT = torch.stack(
        [
            (down_BT * (height - height_BT + 1)).floor(),
            (right_BT * (width - width_BT + 1)).floor(),
            height_BT,
            width_BT,
        ]
    )
    first_B1 = fits_BT.byte().argmax(dim=1, keepdim=True)  # of equal ones argmax gives the first
    crop_4B = tries_4BT.long().gather(2, first_B1.expand(4, -1, -1)).squeeze(2)
    fallback_41 = torch.tensor(central_crop(height, width), device=rng.device)[:, None]
    top_B, left_B, height_B, width_B = torch.where(fits_BT.any(dim=1), crop_4B, fallback_41)
    return top_B, left_B, height_B, width_B


def central_crop(height: int, width: int) -> tuple[int, int, int, int]:
    """Top, left, height and width of the largest crop of an allowed ratio, at the centre."""
    crop_height = min(height, round(width / RATIO[0]))
    crop_width = min(width, round(height * RATIO[1]))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def resized_crop(x_BHWC: Tensor, top_B: Tensor, left_B: Tensor, height_B: Tensor, width_B: Tensor) -> Tensor:
    """Crops of the uint8 images, bilinear at the size of the images; columns first, as Pillow does.

    A crop is never larger than its image, so each output lies between two pixels and nothing is averaged.
    Columns are resized as the rows of the turned images: whole rows are copied fast.
    """
    turned_BWHC = resized_rows(x_BHWC.transpose(1, 2), left_B, width_B)
    return resized_rows(turned_BWHC.transpose(1, 2), top_B, height_B)


def resized_rows(x_BSXC: Tensor, start_B: Tensor, length_B: Tensor) -> Tensor:
    """The rows from start to start + length stretched to S rows, rounded half up to bytes."""
    count, size = x_BSXC.shape[:2]
    row_KBS, weight_KBS = neighbours(start_B, length_B, size)
    row_KBS = row_KBS + size * torch.arange(count, device=row_KBS.device)[:, None]
    rows_RY = x_BSXC.flatten(2).flatten(0, 1)
    one, two = (rows_RY.index_select(0, row_R).int() for row_R in send(row_KBS.flatten(1), rows_RY.device))
    weight_one, weight_two = send(weight_KBS.flatten(1).unsqueeze(-1), rows_RY.device)
    blended_RY = one.mul_(weight_one).addcmul_(two, weight_two).add_(1 << BITS - 1)
    return blended_RY.bitwise_right_shift_(BITS).to(torch.uint8).view(x_BSXC.shape)


def neighbours(start_B: Tensor, length_B: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The two rows around the centre of each output row, and their weights in units of 2 to the -22nd."""
    output_S = torch.arange(size, dtype=torch.float64, device=start_B.device) + 0.5
    position_BS = output_S * (length_B.double()[:, None] / size) - 0.5
    low_BS = position_BS.floor()
    fraction_BS = position_BS - low_BS
    row_KBS = torch.stack([low_BS, low_BS + 1]).long().clamp(min=0).minimum(length_B[:, None] - 1)
    weight_KBS = torch.stack([1 - fraction_BS, fraction_BS]) * (1 << BITS)
    return row_KBS + start_B[:, None], (weight_KBS + 0.5).int()
