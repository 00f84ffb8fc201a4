"""Augmentation of a batch on its device, every sample with its own draw: "Basic" and RandAugmentMC.

RandAugmentMC is FixMatch's RandAugment with every operation applied (n=2, m=10, probability 1), then cutout.
Each operation gives the very bytes that Pillow gives, on which the recipes were tuned: it works in integers,
float32 or float64 where Pillow does. Drawing and applying are separate: what was drawn on the host gives the
same images on every device, one batch at a time or many at once.
"""

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from mindgap.base.errors import MindGapError
from mindgap.base.gpu import send
from mindgap.base.modality import Modality
from mindgap.parts.augment.resized_crop import draw_resized_crop, resized_crop

# Axes: B batch, H height, W width, C channels (1 or 3), X = W·C bytes of a row, Y = H·X bytes of an image,
# P = H·W pixels, R = B·C planes, V = 256 values, K operations in a row, L = 19 signed levels.
STRONGEST = 9  # levels are 1..9: m=10 is excluded by the original's randint(1, m)
LEVELS = range(-STRONGEST, STRONGEST + 1)
OPERATIONS_IN_A_ROW = 2
GREY = 127
LARGE = 128  # px
# Bytes of images that a CPU takes at a time, as its caches hold no more: for a whole recipe, whose operations
# want large groups, and for flip and crop, which do not.
RECIPE_BYTES = 2**23
MOVE_BYTES = 2**20

Draws = dict[str, Tensor]  # on the host, samples along the first axis of each
# (images, row_BH of them, some beyond their borders) -> (images, each with borders and right of it its mirror
# image with borders; which rows of theirs row_BH are; how far to the right).
Pad = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, int]]
Matrix = Callable[[int, int, int], tuple[float, ...]]  # level, height, width -> where each pixel comes from


class AugmentationError(MindGapError):
    """No augmentation has that name."""


class Augmentation(NamedTuple):
    """draw(modality, count, generator) -> draws; apply(uint8 B x H x W x C, **draws) -> the same shape."""

    draw: Callable[[Modality, int, torch.Generator], Draws]
    apply: Callable[..., Tensor]


def augmentation(name: str) -> Augmentation:
    """The augmentation of that name; an unknown one is an error that lists the known ones."""
    if name not in AUGMENTATIONS:
        raise AugmentationError(f"unknown augmentation {name!r}; known: {', '.join(AUGMENTATIONS)}")
    return AUGMENTATIONS[name]


def draw_augmentation(name: str, modality: Modality, count: int, rng: torch.Generator) -> Draws:
    """All draws for a batch of `count` samples; none where nothing changes: only images do (paper, A.3)."""
    if modality.kind != "image":
        return {}
    return augmentation(name).draw(modality, count, rng)


def apply_augmentation(name: str, x_B: Tensor, draws: Draws) -> Tensor:
    """The samples augmented as drawn: a batch, some of its rows, or many batches in a row.

    Many at once are faster, for each operation works on its own samples alone: nine of a batch of 128. A GPU
    is never waited for.
    """
    if not draws or not len(x_B):
        return x_B
    return in_blocks(augmentation(name).apply, x_B, draws, RECIPE_BYTES)


def in_blocks(apply: Callable[..., Tensor], x_B: Tensor, draws: Draws, size: int) -> Tensor:
    """apply(x_B, **draws), on a CPU for about `size` bytes of samples at a time."""
    blocks = math.ceil(x_B.numel() / size) if x_B.device.type == "cpu" else 1
    if blocks == 1:
        return apply(x_B, **draws)
    done_B = torch.empty_like(x_B)
    parts = [t.chunk(blocks) for t in (done_B, x_B, *draws.values())]
    for done, x, *drawn in zip(*parts, strict=True):
        done.copy_(apply(x, **dict(zip(draws, drawn, strict=True))))
    return done_B


def is_large(shape: tuple[int, ...]) -> bool:
    """Whether realistic-al's recipes for ImageNet's images apply, not those for CIFAR's."""
    return min(shape[-3:-1]) >= LARGE


def draw_none(modality: Modality, count: int, rng: torch.Generator) -> Draws:
    return {}


def none(x_BHWC: Tensor) -> Tensor:
    return x_BHWC


def draw_basic(modality: Modality, count: int, rng: torch.Generator) -> Draws:
    """flip_B, top_B and left_B of the crop, and height_B and width_B of a large image's."""
    shape = (count, *modality.shape)
    if is_large(shape):
        drawn = draw_flip(count, rng, modality.mirrors), *draw_resized_crop(shape, rng)
    else:
        drawn = draw_flip_crop(shape, rng, modality.mirrors)
    return dict(zip(("flip_B", "top_B", "left_B", "height_B", "width_B"), drawn, strict=False))


def basic(x_BHWC: Tensor, **draws: Tensor) -> Tensor:
    """Flipped or not, shifted by up to an eighth of the size over black; large images cropped and resized."""
    return in_blocks(partial(moved, pad=pad_black), x_BHWC, draws, MOVE_BYTES)


def draw_randaugmc(modality: Modality, count: int, rng: torch.Generator) -> Draws:
    """What "basic" draws, op_BK and level_BK, and where the patch is that large images do not have."""
    draws = draw_basic(modality, count, rng)
    op_KB, level_KB = draw_operations(count, rng)
    draws |= {"op_BK": op_KB.T, "level_BK": level_KB.T}
    if not is_large(modality.shape):
        draws["patch_top_B"], draws["patch_left_B"] = draw_cutout((count, *modality.shape), rng)
    return draws


def randaugmc(
    x_BHWC: Tensor,
    op_BK: Tensor,
    level_BK: Tensor,
    patch_top_B: Tensor | None = None,
    patch_left_B: Tensor | None = None,
    **draws: Tensor,
) -> Tensor:
    """Flipped or not, shifted over reflected borders, two operations, and a grey patch.

    Large images are cropped and resized instead of shifted, and have no patch.
    """
    x_BHWC = in_blocks(partial(moved, pad=pad_reflected), x_BHWC, draws, MOVE_BYTES)
    for op_B, level_B in zip(op_BK.unbind(1), level_BK.unbind(1), strict=True):
        x_BHWC = apply_operations(x_BHWC, op_B, level_B)
    return x_BHWC if patch_top_B is None else cutout(x_BHWC, patch_top_B, patch_left_B)


def moved(x_BHWC: Tensor, flip_B: Tensor, *, pad: Pad, **crop: Tensor) -> Tensor:
    """Flipped or not, and a part of the padded image; of a large one a part resized to its size."""
    if not is_large(x_BHWC.shape):
        return flip_crop(x_BHWC, flip_B, **crop, pad=pad)
    flipped = send(flip_B.bool(), x_BHWC.device)[:, None, None, None]
    return resized_crop(torch.where(flipped, x_BHWC.flip(2), x_BHWC), **crop)


# -- flip and crop


def padding(size: int) -> int:
    return size // 8


def draw_flip(count: int, rng: torch.Generator, mirrors: bool = True) -> Tensor:
    """flip_B, 0 or 1; only 0 without `mirrors`.

    A flip is drawn either way, so that what follows does not depend on whether it is used.
    """
    return torch.randint(2, (count,), generator=rng) * mirrors


def draw_flip_crop(
    shape: tuple[int, ...], rng: torch.Generator, mirrors: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """flip_B, and top_B and left_B: where the crop begins in the padded image."""
    count, height, width, _ = shape
    flip_B = draw_flip(count, rng, mirrors)
    top_B, left_B = (
        torch.randint(2 * padding(size) + 1, (count,), generator=rng) for size in (height, width)
    )
    return flip_B, top_B, left_B


def flip_crop(x_BHWC: Tensor, flip_B: Tensor, top_B: Tensor, left_B: Tensor, pad: Pad) -> Tensor:
    """Crops of the input's size out of the padded images, or with `flip_B` out of their mirror images."""
    count, height, width, _ = x_BHWC.shape
    row_BH = (top_B - padding(height))[:, None] + torch.arange(height)
    wide_BHWC, row_BH, mirror = pad(x_BHWC, row_BH)
    row_BH += wide_BHWC.shape[1] * torch.arange(count)[:, None]
    start_BH = row_BH * wide_BHWC.shape[2] + (left_B + mirror * flip_B)[:, None]
    return row_runs(wide_BHWC, send(start_BH, x_BHWC.device), width)


def row_runs(x_BHWC: Tensor, start_BH: Tensor, width: int) -> Tensor:
    """Images whose rows begin at the given pixels, counted through the batch, and have `width` pixels.

    Rows are copied whole: ten times faster than an index for each pixel.
    """
    channels = x_BHWC.shape[3]
    run_NX = x_BHWC.flatten().unfold(0, width * channels, channels)  # a view: one run from every pixel on
    return run_NX.index_select(0, start_BH.flatten()).view(*start_BH.shape, width, channels)


def pad_black(x_BHWC: Tensor, row_BH: Tensor) -> tuple[Tensor, Tensor, int]:
    """Black on all sides: rows beyond the border are one black row below."""
    _, height, width, _ = x_BHWC.shape
    border = padding(width)
    both_BHOWC = torch.stack([x_BHWC, x_BHWC.flip(2)], 2)
    wide_BHWC = functional.pad(both_BHOWC, (0, 0, border, border, 0, 0, 0, 1)).flatten(2, 3)
    return wide_BHWC, torch.where((row_BH >= 0) & (row_BH < height), row_BH, height), width + 2 * border


def pad_reflected(x_BHWC: Tensor, row_BH: Tensor) -> tuple[Tensor, Tensor, int]:
    """Mirrored at the outermost pixels, which are not repeated: an image goes on as its mirror image does."""
    _, height, width, _ = x_BHWC.shape
    border, last = padding(width), width - 1
    mirrored = x_BHWC.flip(2)
    before, after = mirrored[:, :, last - border : last], x_BHWC[:, :, 1 : 1 + border]
    wide_BHWC = torch.cat([before, x_BHWC, mirrored[:, :, 1:], after], 2)
    return wide_BHWC, height - 1 - (height - 1 - row_BH.abs()).abs(), last


# -- RandAugmentMC


def draw_operations(count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """op_KB, positions in OPERATIONS, and level_KB: 1..9 times a fair sign, which some operations ignore."""
    draw = partial(torch.randint, size=(OPERATIONS_IN_A_ROW, count), generator=rng)
    op_KB, level_KB, minus_KB = draw(len(OPERATIONS)), draw(1, STRONGEST + 1), draw(2)
    return op_KB, level_KB * (1 - 2 * minus_KB)


def apply_operations(x_BHWC: Tensor, op_B: Tensor, level_B: Tensor) -> Tensor:
    """Each sample after its own operation at its own level, both on the host.

    Samples are grouped, so that an operation works on its own samples alone; all operations for all samples
    would cost a CPU 2.5 to 3 times as much.
    """
    op_B, order_B = op_B.sort(stable=True)
    sizes = op_B.bincount(minlength=len(OPERATIONS)).tolist()
    groups = x_BHWC.index_select(0, send(order_B, x_BHWC.device)).split(sizes)
    levels = level_B[order_B].split(sizes)
    done = [
        operation(group, level) if len(group) else group
        for operation, group, level in zip(OPERATIONS.values(), groups, levels, strict=True)
    ]
    return torch.cat(done).index_select(0, send(order_B.argsort(), x_BHWC.device))


def by_level(value: Callable[[int], float], dtype: torch.dtype) -> Tensor:
    """value(0..9), worked out in double precision as the original does, then rounded once."""
    return torch.tensor([value(level) for level in range(STRONGEST + 1)], dtype=dtype)


FACTOR = by_level(lambda level: level * 0.9 / 10 + 0.05, torch.float32)  # 0.14 .. 0.86: always a reduction
KEPT_BITS = by_level(lambda level: 256 - 2 ** (4 - int(level * 4 / 10)), torch.uint8)  # the upper 4 .. 7 bits
THRESHOLD = by_level(lambda level: min(255, 256 - int(level * 256 / 10)), torch.uint8)  # 231 .. 26


def at_level(table: Tensor, level_B: Tensor, device: torch.device) -> Tensor:
    """The table's value for each sample, whichever the sign, to be combined with a batch of images."""
    return send(table[level_B.abs()], device).view(-1, 1, 1, 1)


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
    return from_planes(truncated((x_RP * scale_R1).add_(offset_R1)), x_BHWC.shape)


def equalize(x_BHWC: Tensor, level_B: Tensor) -> Tensor:
    """Each channel's histogram flattened, in whole numbers; one with few pixels below its top value stays."""
    count, height, width, channels = x_BHWC.shape
    bins = 256 * count * channels
    first_R = torch.arange(0, bins, 256, dtype=torch.int32, device=x_BHWC.device)
    first_B1X = first_R.view(count, 1, channels).repeat(1, 1, width)
    bin_N = x_BHWC.reshape(count, height, -1).int().add_(first_B1X).flatten()
    map_RV = flattening(bin_counts(bin_N, bins).view(-1, 256))
    return map_RV.flatten().index_select(0, bin_N).view(x_BHWC.shape)


def bin_counts(bin_N: Tensor, bins: int) -> Tensor:
    """How many of each bin. On a GPU bincount waits for the largest bin; on a CPU it takes half the time."""
    if bin_N.device.type == "cpu":
        return bin_N.bincount(minlength=bins)
    count = torch.zeros(bins, dtype=torch.long, device=bin_N.device)
    return count.index_add_(0, bin_N, torch.ones_like(bin_N, dtype=torch.long))


def flattening(count_RV: Tensor) -> Tensor:
    """What replaces each value, from how many pixels have it.

    Quotients of whole numbers below 2 to the 24th: float32 rounds none of them up to the next whole number.
    """
    below_RV = count_RV.cumsum(1) - count_RV
    step_R1 = (below_RV * (count_RV > 0)).amax(1, keepdim=True) // 255  # of all below the top value
    map_RV = (below_RV + step_R1 // 2).float() / step_R1.clamp(min=1).float()
    values_V = torch.arange(256, dtype=torch.float32, device=count_RV.device)
    return truncated(torch.where(step_R1 > 0, map_RV.clamp_(max=255), values_V))


def to_planes(x_BHWC: Tensor) -> Tensor:
    """x_RP: a row R for each channel of each image, its pixels P."""
    return x_BHWC.permute(0, 3, 1, 2).reshape(x_BHWC.shape[0] * x_BHWC.shape[3], -1)


def from_planes(x_RP: Tensor, shape: torch.Size) -> Tensor:
    """By `stack`, which takes less than half the time of a permutation."""
    return torch.stack(x_RP.view(shape[0], shape[3], -1).unbind(1), 2).view(shape)


def truncated(values: Tensor) -> Tensor:
    """Bytes without the fraction, by way of int16: a third of the time of torch's direct conversion."""
    return values.to(torch.int16).to(torch.uint8)


def posterize(x_BHWC: Tensor, level_B: Tensor) -> Tensor:
    return x_BHWC & at_level(KEPT_BITS, level_B, x_BHWC.device)


def solarize(x_BHWC: Tensor, level_B: Tensor) -> Tensor:
    """Values from the threshold up inverted, by the sign of a difference: half the time of a comparison."""
    values = x_BHWC.short()
    below = at_level(THRESHOLD, level_B, x_BHWC.device) - 1 - values
    return (values ^ below.bitwise_right_shift_(15)).to(torch.uint8)


def brightness(x_BHWC: Tensor, level_B: Tensor) -> Tensor:
    return truncated(x_BHWC.float().mul_(at_level(FACTOR, level_B, x_BHWC.device)))


def contrast(x_BHWC: Tensor, level_B: Tensor) -> Tensor:
    """Towards the mean luma, rounded half up."""
    luma_BP = luma(planes_of_floats(x_BHWC))
    pixels = luma_BP.shape[1]
    total_B111 = luma_BP.sum(1, dtype=torch.float64).long().view(-1, 1, 1, 1)
    return blend(x_BHWC, (2 * total_B111 + pixels) // (2 * pixels), level_B)


def color(x_BHWC: Tensor, level_B: Tensor) -> Tensor:
    """Towards grey; one channel is grey already."""
    x_BC1P = planes_of_floats(x_BHWC)
    return from_planes(blend(x_BC1P, luma(x_BC1P)[:, None, None], level_B), x_BHWC.shape)


def planes_of_floats(x_BHWC: Tensor) -> Tensor:
    count, _, _, channels = x_BHWC.shape
    return to_planes(x_BHWC).view(count, channels, 1, -1).float()


def luma(x_BC1P: Tensor) -> Tensor:
    """luma_BP, ITU-R 601 in 16-bit fixed point: numerators below 2 to the 24th, exact in float32."""
    if x_BC1P.shape[1] == 1:
        return x_BC1P[:, 0, 0]
    red, green, blue = x_BC1P.squeeze(2).unbind(1)
    weighted = (red * (19595 / 65536)).add_(green, alpha=38470 / 65536).add_(blue, alpha=7471 / 65536)
    return weighted.add_(0.5).floor_()


def sharpness(x_BHWC: Tensor, level_B: Tensor) -> Tensor:
    """Towards the 3x3 smoothing (all ones, centre 5, over 13), rounded to bytes; the border keeps its pixels.

    Sums are whole numbers, and so half of 13 is never reached: rounding is safe in float32. An image is one
    long row, in which the neighbours of the first and last column are wrong: they keep their pixels as well.
    """
    count, _, width, channels = x_BHWC.shape
    row, inside = width * channels, slice((width + 1) * channels, -(width + 1) * channels)
    x_B11Y = x_BHWC.reshape(count, 1, 1, -1)
    y = x_B11Y.short()
    down = y[..., : -2 * row] + y[..., row:-row] + y[..., 2 * row :]
    around = down[..., : -2 * channels] + down[..., channels:-channels] + down[..., 2 * channels :]
    smooth = around.add_(y[..., inside], alpha=4).float().add_(6.5).div_(13).floor_()
    out = x_BHWC.clone(memory_format=torch.contiguous_format)
    out.view(x_B11Y.shape)[..., inside] = blend(x_B11Y[..., inside], smooth, level_B)
    for column in (0, -1):
        out[:, :, column] = x_BHWC[:, :, column]
    return out


def blend(x_BHWC: Tensor, towards: Tensor, level_B: Tensor) -> Tensor:
    """`towards` + factor · (x - `towards`), truncated: in float32, and never fused, as Pillow blends."""
    towards = towards.float()
    step = x_BHWC.to(torch.float32, copy=True).sub_(towards).mul_(at_level(FACTOR, level_B, x_BHWC.device))
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


def warp(matrix: Matrix, x_BHWC: Tensor, level_B: Tensor) -> Tensor:
    """Each output pixel from where the matrix of its level and sign points, nearest; black from outside."""
    count, height, width, channels = x_BHWC.shape
    table_LP = source_pixels(matrix, height, width, x_BHWC.device)
    source_BP = table_LP.index_select(0, send(level_B + STRONGEST, x_BHWC.device))
    pixels = height * width + 1
    source_BP += torch.arange(0, count * pixels, pixels, device=x_BHWC.device)[:, None]
    with_black = functional.pad(x_BHWC.reshape(count, -1, channels), (0, 0, 0, 1))
    return with_black.view(-1, channels).index_select(0, source_BP.flatten()).view(x_BHWC.shape)


def warp_rows(matrix: Matrix, x_BHWC: Tensor, level_B: Tensor) -> Tensor:
    """warp() for a matrix that moves rows as they are: copied whole out of images with black around them."""
    count, height, width, _ = x_BHWC.shape
    table_LH, margin = source_rows(matrix, height, width, x_BHWC.device)
    padded = functional.pad(x_BHWC, (0, 0, margin, margin, 0, 1))
    start_BH = table_LH.index_select(0, send(level_B + STRONGEST, x_BHWC.device))
    pixels = padded.shape[1] * padded.shape[2]
    start_BH += torch.arange(0, count * pixels, pixels, device=x_BHWC.device)[:, None]
    return row_runs(padded, start_BH, width)


@lru_cache(maxsize=32)
def source_rows(matrix: Matrix, height: int, width: int, device: torch.device) -> tuple[Tensor, int]:
    """For each signed level where each row begins in an image with a black row below and black margins to its
    left and right; how wide those are.
    """
    y = torch.arange(height)
    sources = [source(matrix(level, height, width), torch.tensor(0), y) for level in LEVELS]
    shift_LH, row_LH = (torch.stack(part) for part in zip(*sources, strict=True))
    shift_LH = shift_LH.clamp(-width, width)
    margin = int(shift_LH.abs().max())
    row_LH = torch.where((row_LH >= 0) & (row_LH < height), row_LH, height)
    return send(row_LH * (width + 2 * margin) + margin + shift_LH, device), margin


@lru_cache(maxsize=32)
def source_pixels(matrix: Matrix, height: int, width: int, device: torch.device) -> Tensor:
    """For each signed level the source of every pixel, H·W where that is outside."""
    rows = []
    y, x = torch.arange(height)[:, None], torch.arange(width)
    for level in LEVELS:
        from_x, from_y = source(matrix(level, height, width), x, y)
        inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
        rows.append(torch.where(inside, from_y * width + from_x, height * width).flatten())
    return send(torch.stack(rows), device)


def source(matrix: tuple[float, ...], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Where the pixel at x and y comes from.

    In Pillow's 16.16 fixed point: steps are rounded before they are summed, so that errors add up alike.
    """
    a, b, c, d, e, f = matrix
    from_x = fixed(c + a * 0.5 + b * 0.5) + fixed(a) * x + fixed(b) * y >> 16
    from_y = fixed(f + d * 0.5 + e * 0.5) + fixed(d) * x + fixed(e) * y >> 16
    return from_x, from_y


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
    "ShearX": partial(warp_rows, shear_x),
    "ShearY": partial(warp, shear_y),
    "Solarize": solarize,
    "TranslateX": partial(warp_rows, translation_x),
    "TranslateY": partial(warp_rows, translation_y),
}


# -- cutout


def cutout_side(width: int) -> int:
    return int(0.5 * width)


def draw_cutout(shape: torch.Size, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """top_B and left_B of the patch: its centre is uniform, then its corner is moved into the image."""
    count, height, width, _ = shape
    draw = partial(torch.rand, (count,), generator=rng, dtype=torch.float64)
    half = cutout_side(width) / 2
    top_B, left_B = draw() * height - half, draw() * width - half
    return top_B.clamp_(min=0).long(), left_B.clamp_(min=0).long()


def cutout(x_BHWC: Tensor, top_B: Tensor, left_B: Tensor) -> Tensor:
    """A grey patch of side W/2 + 1, cut off at the right and lower border.

    The 1 is the original's: it draws with Pillow's rectangle, whose last row and column belong to it.
    """
    count, height, width, channels = x_BHWC.shape
    side = cutout_side(width)
    down_BH = torch.arange(height) - top_B[:, None]
    right_BX = (torch.arange(width) - left_B[:, None]).repeat_interleave(channels, 1)
    outside_BH, outside_BX = (
        send(((a < 0) | (a > side)).to(torch.uint8).neg_(), x_BHWC.device) for a in (down_BH, right_BX)
    )
    outside_BHX = outside_BH[:, :, None] | outside_BX[:, None]
    row_BHX = x_BHWC.reshape(count, height, -1) ^ GREY
    return row_BHX.bitwise_and_(outside_BHX).bitwise_xor_(GREY).view_as(x_BHWC)  # far faster than masked_fill


AUGMENTATIONS: dict[str, Augmentation] = {
    "none": Augmentation(draw_none, none),
    "basic": Augmentation(draw_basic, basic),
    "randaugmc": Augmentation(draw_randaugmc, randaugmc),
}
