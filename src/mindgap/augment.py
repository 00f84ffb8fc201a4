"""Augmentation of a batch on its device, every sample with its own draw: "Basic" and RandAugmentMC.

RandAugmentMC is FixMatch's RandAugment with every operation applied (n=2, m=10, probability 1), then cutout.
Each operation gives the very bytes that Pillow gives, on which the recipes were tuned: it works in integers,
float32 or float64 where Pillow does. Drawing and applying are separate: what is drawn from a CPU generator
gives the same images on every device.
"""

import math
from collections.abc import Callable
from functools import lru_cache, partial

import torch
from torch import Tensor
from torch.nn import functional

from mindgap.data.modality import Modality
from mindgap.errors import MindGapError
from mindgap.resized_crop import draw_resized_crop, resized_crop

# Axes: B batch, H height, W width, C channels (1 or 3), P = H·W pixels, R = B·C planes, V = 256 values,
# K operations in a row.
STRONGEST = 9  # levels are 1..9: m=10 is excluded by the original's randint(1, m)
OPERATIONS_IN_A_ROW = 2
GREY = 127
LARGE = 128  # px


class AugmentationError(MindGapError):
    """No augmentation has that name."""


def augmentation(name: str) -> Callable[..., Tensor]:
    """The augmentation of that name; an unknown one is an error that lists the known ones."""
    if name not in AUGMENTATIONS:
        raise AugmentationError(f"unknown augmentation {name!r}; known: {', '.join(AUGMENTATIONS)}")
    return AUGMENTATIONS[name]


def augment_sample(name: str, x_B: Tensor, modality: Modality, rng: torch.Generator) -> Tensor:
    """A batch of one modality after the augmentation of that name, which changes images only (paper, A.3)."""
    if modality.kind != "image":
        return x_B
    return augmentation(name)(x_B, rng, mirrors=modality.mirrors)


def none(x_BHWC: Tensor, rng: torch.Generator, mirrors: bool = True) -> Tensor:
    return x_BHWC


def basic(x_BHWC: Tensor, rng: torch.Generator, mirrors: bool = True) -> Tensor:
    """Flipped or not, shifted by up to an eighth of the size over black; large images cropped and resized."""
    if is_large(x_BHWC.shape):
        return flip_resized_crop(x_BHWC, rng, mirrors)
    return flip_crop(x_BHWC, *draw_flip_crop(x_BHWC.shape, rng, mirrors), pad=pad_black)


def randaugmc(x_BHWC: Tensor, rng: torch.Generator, mirrors: bool = True) -> Tensor:
    """Flipped or not, shifted over reflected borders, two operations, and a grey patch.

    Large images are cropped and resized instead of shifted, and have no patch.
    """
    if is_large(x_BHWC.shape):
        return operate(flip_resized_crop(x_BHWC, rng, mirrors), rng)
    x_BHWC = flip_crop(x_BHWC, *draw_flip_crop(x_BHWC.shape, rng, mirrors), pad=pad_reflected)
    return cutout(operate(x_BHWC, rng), *draw_cutout(x_BHWC.shape, rng))


def operate(x_BHWC: Tensor, rng: torch.Generator) -> Tensor:
    """Two operations in a row, each sample its own."""
    for op_B, level_B in zip(*draw_operations(len(x_BHWC), rng), strict=True):
        x_BHWC = apply_operations(x_BHWC, op_B, level_B)
    return x_BHWC


def is_large(shape: torch.Size) -> bool:
    """Whether realistic-al's recipes for ImageNet's images apply, not those for CIFAR's."""
    return min(shape[1:3]) >= LARGE


def flip_resized_crop(x_BHWC: Tensor, rng: torch.Generator, mirrors: bool) -> Tensor:
    """Mirrored or not, and a random part of the image at its full size."""
    flip_B = torch.randint(2, (len(x_BHWC),), generator=rng, device=rng.device) * mirrors
    flipped = flip_B.bool()[:, None, None, None].to(x_BHWC.device)
    x_BHWC = torch.where(flipped, x_BHWC.flip(2), x_BHWC)
    return resized_crop(x_BHWC, *draw_resized_crop(x_BHWC.shape, rng))


# -- flip and crop


def padding(size: int) -> int:
    return size // 8


def draw_flip_crop(
    shape: torch.Size, rng: torch.Generator, mirrors: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """flip_B (0 or 1; only 0 without `mirrors`), top_B and left_B: where the crop begins in the padded image.

    A flip is drawn either way, so that what follows does not depend on whether it is used.
    """
    count, height, width, _ = shape
    draw = partial(torch.randint, size=(count,), generator=rng, device=rng.device)
    return draw(2) * mirrors, draw(2 * padding(height) + 1), draw(2 * padding(width) + 1)


def flip_crop(
    x_BHWC: Tensor, flip_B: Tensor, top_B: Tensor, left_B: Tensor, pad: Callable[[Tensor], Tensor]
) -> Tensor:
    """Crops of the input's size out of the padded images, those with `flip_B` mirrored first.

    A crop is H runs of W·C bytes, copied whole: ten times faster than an index for each pixel.
    """
    count, height, width, channels = x_BHWC.shape
    if not count:
        return x_BHWC.clone()
    mirrored = flip_B.nonzero().flatten()
    sources = pad(torch.cat([x_BHWC, x_BHWC.index_select(0, mirrored.to(x_BHWC.device)).flip(2)]))
    image_B = torch.arange(count, device=flip_B.device)
    image_B[mirrored] = torch.arange(count, len(sources), device=flip_B.device)
    row_BH = (image_B * sources.shape[1] + top_B)[:, None] + torch.arange(height, device=top_B.device)
    start_BH = row_BH * sources.shape[2] + left_B[:, None]
    runs = sources.flatten().unfold(0, width * channels, channels)  # a view: one run from every pixel on
    return runs.index_select(0, start_BH.flatten().to(x_BHWC.device)).view_as(x_BHWC)


def pad_black(x_BHWC: Tensor) -> Tensor:
    height, width = map(padding, x_BHWC.shape[1:3])
    return functional.pad(x_BHWC, (0, 0, width, width, height, height))


def pad_reflected(x_BHWC: Tensor) -> Tensor:
    """Borders mirrored at the outermost pixels, which are not repeated (torch's own lacks uint8)."""
    for axis in (1, 2):
        size = x_BHWC.shape[axis]
        before = x_BHWC.narrow(axis, min(1, size - 1), padding(size)).flip(axis)
        after = x_BHWC.narrow(axis, size - 1 - padding(size), padding(size)).flip(axis)
        x_BHWC = torch.cat([before, x_BHWC, after], axis)
    return x_BHWC


# -- RandAugmentMC


def draw_operations(count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """op_KB, positions in OPERATIONS, and level_KB: 1..9 times a fair sign, which some operations ignore."""
    draw = partial(torch.randint, size=(OPERATIONS_IN_A_ROW, count), generator=rng, device=rng.device)
    op_KB, level_KB, minus_KB = draw(len(OPERATIONS)), draw(1, STRONGEST + 1), draw(2)
    return op_KB, level_KB * (1 - 2 * minus_KB)


def apply_operations(x_BHWC: Tensor, op_B: Tensor, level_B: Tensor) -> Tensor:
    """Each sample after its own operation at its own level.

    Samples are grouped on the host, so that an operation works on its own samples alone; a version without
    groups, which a CUDA graph could capture, would do all operations for all samples.
    """
    op_B, order_B = op_B.cpu().sort(stable=True)
    sizes = op_B.bincount(minlength=len(OPERATIONS)).tolist()
    groups = x_BHWC.index_select(0, order_B.to(x_BHWC.device)).split(sizes)
    levels = level_B.cpu()[order_B].split(sizes)
    done = [
        operation(group, level) if len(group) else group
        for operation, group, level in zip(OPERATIONS.values(), groups, levels, strict=True)
    ]
    return torch.cat(done).index_select(0, order_B.argsort().to(x_BHWC.device))


def by_level(value: Callable[[int], float], dtype: torch.dtype) -> Tensor:
    """value(0..9), worked out in double precision as the original does, then rounded once."""
    return torch.tensor([value(level) for level in range(STRONGEST + 1)], dtype=dtype)


FACTOR = by_level(lambda level: level * 0.9 / 10 + 0.05, torch.float32)  # 0.14 .. 0.86: always a reduction
KEPT_BITS = by_level(lambda level: 256 - 2 ** (4 - int(level * 4 / 10)), torch.uint8)  # the upper 4 .. 7 bits
THRESHOLD = by_level(lambda level: min(255, 256 - int(level * 256 / 10)), torch.uint8)  # 231 .. 26


def setting(table: Tensor, level_B: Tensor, device: torch.device) -> Tensor:
    """The table's value for each sample, whichever the sign, to be combined with a batch of images."""
    return table[level_B.abs()].to(device).view(-1, 1, 1, 1)


def identity(x_BHWC: Tensor, level_B: Tensor) -> Tensor:
    return x_BHWC


def autocontrast(x_BHWC: Tensor, level_B: Tensor) -> Tensor:
    """Each channel stretched to 0..255; a channel of one value stays."""
    x_RP = to_planes(x_BHWC)
    low_R1 = x_RP.amin(1, keepdim=True).double()
    span_R1 = x_RP.amax(1, keepdim=True) - low_R1
    # A tensor over a tensor: torch turns `255.0 / span` into a reciprocal times 255, which rounds otherwise.
    scale_R1 = torch.where(span_R1 > 0, torch.full_like(span_R1, 255) / span_R1, 1)
    offset_R1 = torch.where(span_R1 > 0, -low_R1 * scale_R1, 0)
    stretched_RP = (x_RP * scale_R1).add_(offset_R1).clamp_(0, 255)
    return from_planes(truncated(stretched_RP), x_BHWC.shape)


def equalize(x_BHWC: Tensor, level_B: Tensor) -> Tensor:
    """Each channel's histogram flattened, in whole numbers; one with few pixels below its top value stays."""
    x_RP = to_planes(x_BHWC)
    channels = len(x_RP)
    bins = x_RP + 256 * torch.arange(channels, dtype=torch.int32, device=x_RP.device)[:, None]
    count_RV = torch.bincount(bins.flatten(), minlength=256 * channels).view(channels, 256)
    top_R1 = count_RV.gather(1, x_RP.amax(1, keepdim=True).long())
    step_R1 = (x_RP.shape[1] - top_R1) // 255
    below_RV = count_RV.cumsum(1) - count_RV
    map_RV = ((step_R1 // 2 + below_RV) // step_R1.clamp(min=1)).clamp(max=255)
    map_RV = torch.where(step_R1 > 0, map_RV, torch.arange(256, device=x_RP.device)).to(torch.uint8)
    return from_planes(map_RV.flatten().index_select(0, bins.flatten()), x_BHWC.shape)


def to_planes(x_BHWC: Tensor) -> Tensor:
    """x_RP: a row R for each channel of each image, its pixels P."""
    return x_BHWC.permute(0, 3, 1, 2).reshape(x_BHWC.shape[0] * x_BHWC.shape[3], -1)


def from_planes(x_RP: Tensor, shape: torch.Size) -> Tensor:
    count, height, width, channels = shape
    return x_RP.view(count, channels, height, width).permute(0, 2, 3, 1).contiguous()


def truncated(values: Tensor) -> Tensor:
    """Bytes without the fraction, by way of int16: a third of the time of torch's direct conversion."""
    return values.to(torch.int16).to(torch.uint8)


def posterize(x_BHWC: Tensor, level_B: Tensor) -> Tensor:
    return x_BHWC & setting(KEPT_BITS, level_B, x_BHWC.device)


def solarize(x_BHWC: Tensor, level_B: Tensor) -> Tensor:
    """Values from the threshold up inverted."""
    above = x_BHWC >= setting(THRESHOLD, level_B, x_BHWC.device)
    return x_BHWC ^ above.view(torch.uint8).neg_()  # neg: 1 becomes 255, all bits


def brightness(x_BHWC: Tensor, level_B: Tensor) -> Tensor:
    return blend(x_BHWC, torch.zeros((), device=x_BHWC.device), level_B)


def contrast(x_BHWC: Tensor, level_B: Tensor) -> Tensor:
    """Towards the mean luma, rounded half up."""
    luma_BP = luma(x_BHWC)
    pixels = luma_BP.shape[1]
    total_B111 = luma_BP.long().sum(1).view(-1, 1, 1, 1)
    return blend(x_BHWC, (2 * total_B111 + pixels) // (2 * pixels), level_B)


def color(x_BHWC: Tensor, level_B: Tensor) -> Tensor:
    """Towards grey; one channel is grey already."""
    count, _, _, channels = x_BHWC.shape
    x_BC1P = to_planes(x_BHWC).view(count, channels, 1, -1)
    faded = blend(x_BC1P, luma(x_BHWC)[:, None, None], level_B)
    return from_planes(faded, x_BHWC.shape)


def luma(x_BHWC: Tensor) -> Tensor:
    """luma_BP, ITU-R 601 in 16-bit fixed point: sums below 2 to the 24th, exact in float32."""
    count, _, _, channels = x_BHWC.shape
    x_BCP = to_planes(x_BHWC).view(count, channels, -1).float()
    if channels == 1:
        return x_BCP[:, 0]
    red, green, blue = x_BCP.unbind(1)
    return (red * 19595).add_(green * 38470).add_(blue * 7471).add_(32768).div_(65536).floor_()


def sharpness(x_BHWC: Tensor, level_B: Tensor) -> Tensor:
    """Towards the 3x3 smoothing (all ones, centre 5, over 13), rounded to bytes; the border keeps its pixels.

    Sums are whole numbers, and so half of 13 is never reached: rounding is safe in float32.
    """
    smooth = x_BHWC.float()
    down = smooth[:, :-2] + smooth[:, 1:-1] + smooth[:, 2:]
    around = down[:, :, :-2] + down[:, :, 1:-1] + down[:, :, 2:]
    inner = smooth[:, 1:-1, 1:-1]
    inner.mul_(4).add_(around).add_(6.5).div_(13).floor_()
    return blend(x_BHWC, smooth, level_B)


def blend(x_BHWC: Tensor, towards: Tensor, level_B: Tensor) -> Tensor:
    """`towards` + factor · (x - `towards`), truncated: in float32, and never fused, as Pillow blends."""
    towards = towards.float()
    step = (x_BHWC.float() - towards).mul_(setting(FACTOR, level_B, x_BHWC.device))
    return truncated(step.add_(towards))


def rotation(level: int, height: int, width: int) -> tuple[float, ...]:
    """Up to 27 degrees about the centre; the rounding is Pillow's."""
    angle = -math.radians(int(level * 30 / 10))
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x, y = width / 2, height / 2
    return cos, sin, cos * -x + sin * -y + x, -sin, cos, -sin * -x + cos * -y + y


def shear_x(level: int, height: int, width: int) -> tuple[float, ...]:
    """From the top left corner, not the centre."""
    return 1, level * 0.3 / 10, 0, 0, 1, 0


def shear_y(level: int, height: int, width: int) -> tuple[float, ...]:
    return 1, 0, 0, level * 0.3 / 10, 1, 0


def translation_x(level: int, height: int, width: int) -> tuple[float, ...]:
    return 1, 0, int(level * 0.3 / 10 * width), 0, 1, 0


def translation_y(level: int, height: int, width: int) -> tuple[float, ...]:
    return 1, 0, 0, 0, 1, int(level * 0.3 / 10 * height)


def warp(matrix: Callable[[int, int, int], tuple[float, ...]], x_BHWC: Tensor, level_B: Tensor) -> Tensor:
    """Each output pixel from where the matrix of its level and sign points, nearest; black from outside."""
    count, height, width, channels = x_BHWC.shape
    pixels = height * width
    table = source_pixels(matrix, height, width, x_BHWC.device)
    source_BP = table.index_select(0, (level_B + STRONGEST).to(x_BHWC.device))
    source_BP += (pixels + 1) * torch.arange(count, dtype=torch.int32, device=x_BHWC.device)[:, None]
    with_black = functional.pad(x_BHWC.reshape(count, pixels, channels), (0, 0, 0, 1))
    return with_black.view(-1, channels).index_select(0, source_BP.flatten()).view(x_BHWC.shape)


@lru_cache(maxsize=32)
def source_pixels(
    matrix: Callable[[int, int, int], tuple[float, ...]], height: int, width: int, device: torch.device
) -> Tensor:
    """A row for each signed level -9..9: the source of every pixel, H·W where that is outside.

    In Pillow's 16.16 fixed point: steps are rounded before they are summed, so that errors add up alike.
    """
    rows = []
    y, x = torch.arange(height)[:, None], torch.arange(width)
    for level in range(-STRONGEST, STRONGEST + 1):
        a, b, c, d, e, f = matrix(level, height, width)
        from_x = fixed(c + a * 0.5 + b * 0.5) + fixed(a) * x + fixed(b) * y >> 16
        from_y = fixed(f + d * 0.5 + e * 0.5) + fixed(d) * x + fixed(e) * y >> 16
        inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
        rows.append(torch.where(inside, from_y * width + from_x, height * width).flatten())
    return torch.stack(rows).to(device, torch.int32)


def fixed(value: float) -> int:
    return math.floor(value * 65536 + 0.5)


# Contract: (uint8 images, level_B from -9 to 9 on the host) -> new uint8 images. The order is the original's.
OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "AutoContrast": autocontrast,
    "Brightness": brightness,
    "Color": color,
    "Contrast": contrast,
    "Equalize": equalize,
    "Identity": identity,
    "Posterize": posterize,
    "Rotate": partial(warp, rotation),
    "Sharpness": sharpness,
    "ShearX": partial(warp, shear_x),
    "ShearY": partial(warp, shear_y),
    "Solarize": solarize,
    "TranslateX": partial(warp, translation_x),
    "TranslateY": partial(warp, translation_y),
}


# -- cutout


def cutout_side(width: int) -> int:
    return int(0.5 * width)


def draw_cutout(shape: torch.Size, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """top_B and left_B of the patch: its centre is uniform, then its corner is moved into the image."""
    count, height, width, _ = shape
    draw = partial(torch.rand, (count,), generator=rng, device=rng.device, dtype=torch.float64)
    half = cutout_side(width) / 2
    top_B, left_B = draw() * height - half, draw() * width - half
    return top_B.clamp_(min=0).long(), left_B.clamp_(min=0).long()


def cutout(x_BHWC: Tensor, top_B: Tensor, left_B: Tensor) -> Tensor:
    """A grey patch of side W/2 + 1, cut off at the right and lower border.

    The 1 is the original's: it draws with Pillow's rectangle, whose last row and column belong to it.
    """
    count, height, width, channels = x_BHWC.shape
    side = cutout_side(width)
    down_BH = torch.arange(height, device=top_B.device) - top_B[:, None]
    right_BW = (torch.arange(width, device=left_B.device) - left_B[:, None]).repeat_interleave(channels, 1)
    down_BH, right_BW = (
        ((a >= 0) & (a <= side)).to(x_BHWC.device, torch.uint8).neg_() for a in (down_BH, right_BW)
    )
    patch_BHX = down_BH[:, :, None] & right_BW[:, None]  # X: the bytes of a row
    row_BHX = x_BHWC.reshape(count, height, width * channels)
    return (((row_BHX ^ GREY) & ~patch_BHX) ^ GREY).view_as(x_BHWC)  # bits: far faster than masked_fill


# Contract: (uint8 B x H x W x C, generator, mirrors) -> the same shape augmented, each sample by its own
# draw. Without `mirrors` no image is mirrored.
AUGMENTATIONS: dict[str, Callable[..., Tensor]] = {
    "none": none,
    "basic": basic,
    "randaugmc": randaugmc,
}
