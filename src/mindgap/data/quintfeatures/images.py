"""QuintFeatures: one object on a background, five features, ten values each (after Trifeature, arXiv
2006.12433).

A pure function of (features, seed, style). Perlin noise erases an exact share of the object; textures are
two-tone, a colour and a darker shade of it, so an image has four shades besides the edges between them. A
colour's name is that of its bright shade: nine of ten dark ones, all but purple's, lie nearest to the anchors
of purple or ocean. Arrays see only operations that IEEE 754 fixes bit by bit (no matmul, no sin, no sum of
floats), which is why images can be pinned by a hash.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from noise import pnoise2

from mindgap.data.draws import stable_hash
from mindgap.data.quintfeatures.colors import COLORS, MAX_JITTER, jitter, to_bytes

SHAPES = (
    "triangle",
    "square",
    "plus",
    "circle",
    "tee",
    "rhombus",
    "pentagon",
    "star",
    "fivesquare",
    "trapezoid",
)
TEXTURES = ("solid", "stripes", "grid", "hexgrid", "dots", "noise", "triangles", "zigzags", "rain", "pluses")
FEATURES = ("fg_shape", "fg_color", "fg_texture", "bg_color", "bg_texture")
VALUES = {
    "fg_shape": SHAPES,
    "fg_color": COLORS,
    "fg_texture": TEXTURES,
    "bg_color": COLORS,
    "bg_texture": TEXTURES,
}
LEVELS = 10
ALIASES = {"pulses": "pluses"}  # the paper's caption; Trifeature's word is "pluses"

NOISE_CELLS = 4  # lattice cells across the image: blobs about a third of an object wide
NOISE_OCTAVES = 2
NOISE_GRID = 32  # the finest octave has 8 cells across: 4 samples a cell, linear in between
NOISE_SHIFT = 120.0  # 2 * (120 + 4) < 255: coordinates stay inside pnoise2's table in each octave
BITS = 64  # side of the table of random bits that `noise` and `rain` read
ROOT_3 = math.sqrt(3)


@dataclass(frozen=True)
class Style:
    """How hard the images are. Lengths are fractions of the image's side, angles are degrees."""

    image_size: int = 64  # a texture's period has 8 pixels; at 128 an image costs four times as much
    supersample: int = 2  # edges are averages of 2 x 2 samples; 3 looks the same
    erase: tuple[float, float] = (0.1, 0.4)  # share of the object that is erased; above 0.5 people fail too
    max_rotation: float = 45.0  # of the object; Trifeature's range
    max_texture_rotation: float = 45.0  # of either texture, each with its own angle; Trifeature's range
    half_width: tuple[float, float] = (0.26, 0.34)  # of the object; 0.35 would not fit when rotated by 45
    texture_period: float = 0.125  # Trifeature's 0.045 would be 3 pixels, less than a pattern needs
    color_jitter: float = 0.05  # radius in OKLab; leaves 0.08 between colours of different names
    off_lightness: float = 0.45  # the darker shade: lightness times this, dark enough to see on blue
    off_chroma: float = 0.6  # and chroma times this: less would turn it grey, the same shade for all names
    allow_same_color: bool = False  # an object in its background's colour and texture cannot be seen
    # Names that a feature draws from when it carries no label; all ten where none are given.
    nuisance: Mapping[str, Sequence[str]] = field(default_factory=dict, hash=False)

    def __post_init__(self):
        object.__setattr__(self, "nuisance", {k: list(names) for k, names in self.nuisance.items()})
        for name in ("erase", "half_width"):  # lists when they come from JSON or YAML
            object.__setattr__(self, name, tuple(getattr(self, name)))
        checks = (self._check_pixels, self._check_ranges, self._check_fit, self._check_colors)
        for check in (*checks, self._check_nuisance):
            check()

    def _check_pixels(self) -> None:
        whole = _is_int(self.image_size) and 16 <= self.image_size <= 512
        self._require("image_size", whole, "a whole number in 16..512")
        whole = _is_int(self.supersample) and 1 <= self.supersample <= 8
        self._require("supersample", whole, "a whole number in 1..8")
        smallest = 4 / self.image_size
        wanted = f"a number in {smallest:.4g}..0.5, as a pattern needs 4 pixels (or raise image_size)"
        self._require("texture_period", smallest <= self.texture_period <= 0.5, wanted)

    def _check_ranges(self) -> None:
        ordered = len(self.erase) == 2 and 0 <= self.erase[0] <= self.erase[1] <= 0.9
        self._require("erase", ordered, "two shares in 0..0.9, the lower first")
        ordered = len(self.half_width) == 2 and 0.1 <= self.half_width[0] <= self.half_width[1]
        self._require("half_width", ordered, "two fractions of the image from 0.1 on, the smaller first")
        for name in ("max_rotation", "max_texture_rotation"):
            self._require(name, 0 <= getattr(self, name) <= 180, "degrees in 0..180")

    def _check_fit(self) -> None:
        angle = math.radians(min(self.max_rotation, 45.0))
        largest = 0.5 / (math.cos(angle) + math.sin(angle))
        wanted = f"at most {math.floor(largest * 1000) / 1000}, to stay in the image (or lower max_rotation)"
        self._require("half_width", self.half_width[1] <= largest, wanted)

    def _check_colors(self) -> None:
        wanted = f"a radius from 0 to below {MAX_JITTER}, else two names can look the same"
        self._require("color_jitter", 0 <= self.color_jitter < MAX_JITTER, wanted)
        wanted = "a factor between 0 and 1, else textures cannot be seen"
        self._require("off_lightness", 0 < self.off_lightness < 1, wanted)
        self._require("off_chroma", 0 <= self.off_chroma <= 1, "a factor in 0..1")
        self._require("allow_same_color", isinstance(self.allow_same_color, bool), "true or false")

    def _check_nuisance(self) -> None:
        for feature in self.nuisance:
            self.allowed(feature)
        colors = [set(self.allowed(feature).tolist()) for feature in ("fg_color", "bg_color")]
        possible = self.allow_same_color or all(len(mine | rest) > 1 for mine, rest in (colors, colors[::-1]))
        wanted = "colours of which foreground and background can differ (or set allow_same_color)"
        self._require("nuisance", possible, wanted)

    def allowed(self, feature: str) -> np.ndarray:
        """Ids that a feature without a label draws from, ascending."""
        names = self.nuisance.get(feature, VALUES.get(feature, ("?",)))
        ids = sorted({value_id(feature, name) for name in names})
        self._require("nuisance", bool(ids), f"at least one name for {feature}, or leave it out for all ten")
        return np.array(ids, dtype=np.int8)

    def _require(self, name: str, true: bool, wanted: str) -> None:
        if not true:
            raise ValueError(f"{name} is {getattr(self, name)!r}: make it {wanted}")


ALL = "all"  # instead of a modality's name: every modality of the dataset


def styles_of(
    style: Style, own: Mapping[str, Mapping[str, Any]], modalities: Sequence[str]
) -> dict[str, Style]:
    """The style of each modality: the common one, changed by what `own` says of all and then of this one.

    A ValueError for what no style can be.
    """
    return {m: replace(style, **{**own.get(ALL, {}), **own.get(m, {})}) for m in modalities}


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def value_id(feature: str, name: str) -> int:
    """The stored id of a feature's value, by name: `value_id("fg_color", "blue")` is 2."""
    if feature not in VALUES:
        raise ValueError(f"unknown feature {feature!r}; the features are {', '.join(FEATURES)}")
    known, name = VALUES[feature], ALIASES.get(name.lower(), name.lower())
    if name not in known:
        raise ValueError(f"unknown {feature} {name!r}; the known ones are {', '.join(known)}")
    return known.index(name)


def caption(features: Sequence[int]) -> str:
    """The paper's caption: "Blue Circle with Grid texture on Red Grid texture"."""
    shape, color, texture, ground, ground_texture = (
        VALUES[feature][value].capitalize() for feature, value in zip(FEATURES, features, strict=True)
    )
    return f"{color} {shape} with {texture} texture on {ground} {ground_texture} texture"


def image_seed(root: int, dataset: str, split: int, index: int, modality: int) -> np.random.SeedSequence:
    """The seed of one image: it can be rendered alone, and the number of workers does not matter."""
    return np.random.SeedSequence([root, stable_hash(dataset), split, index, modality])


# Shapes: u to the right, v down, both in -1..1.


def star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A pentagram: inside at least four of the five half-planes whose borders draw it."""
    inside = np.zeros(u.shape, dtype=np.uint8)
    for k in range(5):
        angle = -math.pi / 2 + k * 2 * math.pi / 5  # the first border is above the centre: one tip is up
        inside += u * math.cos(angle) + v * math.sin(angle) < math.cos(2 * math.pi / 5)
    return inside >= 4


def pentagon(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    t = (v + 1) / 2
    return np.abs(u) < np.minimum(t / 0.4, 1 - 0.645 * (t - 0.4))


def fivesquare(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The corners and the centre of a 3 x 3 board."""
    return (np.abs(u) > 1 / 3) == (np.abs(v) > 1 / 3)


SHAPE_MASKS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "triangle": lambda u, v: np.abs(u) < (v + 1) / 2,
    "square": lambda u, v: np.ones(u.shape, dtype=bool),
    "plus": lambda u, v: np.minimum(np.abs(u), np.abs(v)) < 1 / 3,
    "circle": lambda u, v: u * u + v * v < 1,
    "tee": lambda u, v: (np.abs(u) < 1 / 3) | (v < -1 / 3),
    "rhombus": lambda u, v: np.abs(u + v / 2) < 1 / 2,
    "pentagon": pentagon,
    "star": star,
    "fivesquare": fivesquare,
    "trapezoid": lambda u, v: np.abs(u) < 1 - 0.645 * (v + 1) / 2,
}


def shape_mask(shape: int, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Which points of the object's own frame the shape covers."""
    return (np.maximum(np.abs(u), np.abs(v)) < 1) & SHAPE_MASKS[SHAPES[shape]](u, v)


# Textures: p to the right, q down, in periods; `bits` is a table of coin flips, BITS x BITS.


def _fraction(values: np.ndarray) -> np.ndarray:
    return values - np.floor(values)


def _cell(values: np.ndarray) -> np.ndarray:
    return np.floor(values).astype(np.int32) & (BITS - 1)


def hexgrid(p: np.ndarray, q: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """The walls of a honeycomb: far from the nearer centre of its two interleaved rectangular lattices."""
    p, q = p * 0.8, q * 0.8  # cells a quarter wider than a period, else 64 px have no room inside the walls
    x, y = np.abs(p - np.rint(p)), np.abs(q - ROOT_3 * np.rint(q * (1 / ROOT_3)))
    x2, y2 = np.abs(0.5 - x), np.abs(ROOT_3 / 2 - y)  # the second lattice is shifted by half a cell
    wall = np.minimum(np.maximum(x, x / 2 + y * (ROOT_3 / 2)), np.maximum(x2, x2 / 2 + y2 * (ROOT_3 / 2)))
    return wall > 0.38


def rain(p: np.ndarray, q: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Short dashes: two columns a period, each shifted on its own, a quarter of the places empty."""
    column = _cell(2 * p)
    fall = q + (bits[0] + 0.5 * bits[1] + 0.25 * bits[2]).astype(np.float32)[column] / 2
    row = _cell(fall)
    return (bits[column, row] | bits[row, column]) & (_fraction(2 * p) < 0.6) & (_fraction(fall) < 0.7)


def pluses(p: np.ndarray, q: np.ndarray, bits: np.ndarray) -> np.ndarray:
    x, y = np.abs(_fraction(p) - 0.5), np.abs(_fraction(q) - 0.5)
    return (np.minimum(x, y) < 0.15) & (np.maximum(x, y) < 0.4)


TEXTURE_MASKS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "solid": lambda p, q, bits: np.ones(p.shape, dtype=bool),
    "stripes": lambda p, q, bits: _fraction(q) < 0.5,
    "grid": lambda p, q, bits: np.minimum(_fraction(p), _fraction(q)) < 0.3,
    "hexgrid": hexgrid,
    "dots": lambda p, q, bits: (_fraction(p) - 0.5) ** 2 + (_fraction(q) - 0.5) ** 2 < 0.36**2,
    "noise": lambda p, q, bits: bits[_cell(4 * p), _cell(4 * q)],
    "triangles": lambda p, q, bits: np.abs(_fraction(p) - 0.5) < 0.6 * _fraction(q) - 0.1,
    "zigzags": lambda p, q, bits: _fraction(q + np.abs(_fraction(p) - 0.5)) < 0.45,
    "rain": rain,
    "pluses": pluses,
}


def texture_mask(texture: int, p: np.ndarray, q: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Which points are in the bright shade."""
    return TEXTURE_MASKS[TEXTURES[texture]](p, q, bits)


@lru_cache(maxsize=8)
def _axis(samples: int) -> np.ndarray:
    """Centres of the samples along one side of the image, in 0..1."""
    return (np.arange(samples, dtype=np.float32) + np.float32(0.5)) / np.float32(samples)


@lru_cache(maxsize=8)
def _noise_axis(samples: int) -> tuple[np.ndarray, np.ndarray]:
    """For each sample along a side: the noise grid's node before it, and how far on it is."""
    position = _axis(samples) * np.float32(NOISE_GRID)
    node = np.floor(position)
    return node.astype(np.intp), position - node


def _rotated(x: np.ndarray, y: np.ndarray, angle: float, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Two planes (len(y) x len(x)) of coordinates in a frame turned by `angle`, in units of `scale`."""
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    return x * cos + (y * sin)[:, None], x * -sin + (y * cos)[:, None]


def _span(centre: float, reach: float, samples: int) -> slice:
    return slice(
        max(0, math.floor((centre - reach) * samples)), min(samples, math.ceil((centre + reach) * samples))
    )


def perlin(rows: slice, cols: slice, samples: int, shift_x: float, shift_y: float) -> np.ndarray:
    """Perlin noise over a window of the image: `pnoise2` on a coarse grid, linear in between.

    Only the nodes the window needs are evaluated. `base` stays 0: from 2 on pnoise2 reads behind its table.
    """
    node, weight = _noise_axis(samples)
    first_y, first_x = int(node[rows.start]), int(node[cols.start])
    step = NOISE_CELLS / NOISE_GRID
    ys = [shift_y + step * i for i in range(first_y, int(node[rows.stop - 1]) + 2)]
    xs = [shift_x + step * i for i in range(first_x, int(node[cols.stop - 1]) + 2)]
    grid = np.array([[pnoise2(x, y, NOISE_OCTAVES) for x in xs] for y in ys], dtype=np.float32)
    y, x = node[rows] - first_y, node[cols] - first_x
    lines = grid[y] + (grid[y + 1] - grid[y]) * weight[rows, None]
    left = lines[:, x]
    return left + (lines[:, x + 1] - left) * weight[cols]


def erase(
    mask: np.ndarray, noise: np.ndarray, share: float, bounds: tuple[float, float]
) -> tuple[np.ndarray, float]:
    """The mask without its `share` of highest noise, and the share exactly: a quantile, not a threshold.

    Counted in samples and kept inside the bounds. Of equal values the first in reading order go.
    """
    values = noise[mask]
    count = round(share * len(values))
    if count < bounds[0] * len(values):
        count += 1
    elif count > bounds[1] * len(values):
        count -= 1
    if count == 0:
        return mask, 0.0
    limit = np.partition(values, len(values) - count)[len(values) - count]
    gone = values > limit
    gone[np.flatnonzero(values == limit)[: count - np.count_nonzero(gone)]] = True
    visible = mask.copy()
    visible[mask] = ~gone
    return visible, count / len(values)


def _palette(fg_color: int, bg_color: int, style: Style, rng: np.random.Generator) -> np.ndarray:
    """Bytes (4 x 3) of the object's bright and dark shade and the background's bright and dark shade."""
    shades = []
    for color in (fg_color, bg_color):
        lightness, a, b = jitter(color, style.color_jitter, rng)
        dark = (lightness * style.off_lightness, a * style.off_chroma, b * style.off_chroma)
        shades += [to_bytes((lightness, a, b)), to_bytes(dark)]
    return np.array(shades, dtype=np.uint64)


def _bits(rng: np.random.Generator) -> np.ndarray:
    packed = np.frombuffer(rng.bytes(BITS * BITS // 8), dtype=np.uint8)
    return np.unpackbits(packed).view(bool).reshape(BITS, BITS)


def render_layers(
    features: Sequence[int], seed_sequence: np.random.SeedSequence, style: Style
) -> tuple[np.ndarray, np.ndarray, float]:
    """Which of four shades each sample shows (supersampled, uint8), the shades (4 x 3), the erased share.

    The shades: the object's bright and dark one, the background's bright and dark one.
    """
    shape, fg_color, fg_texture, bg_color, bg_texture = (int(value) for value in features)
    rng = np.random.default_rng(seed_sequence)
    size, angle, x, y, *rest = rng.random(14).tolist()
    fg_angle, fg_p, fg_q, bg_angle, bg_p, bg_q, share, shift_x, shift_y, _ = rest
    shades, bits = _palette(fg_color, bg_color, style, rng), _bits(rng)

    samples = style.image_size * style.supersample
    axis, period = _axis(samples), style.texture_period
    turn = math.radians(style.max_texture_rotation)
    p, q = _rotated(axis, axis, turn * (2 * bg_angle - 1), period)
    shade = np.where(texture_mask(bg_texture, p + bg_p, q + bg_q, bits), np.uint8(2), np.uint8(3))

    half = style.half_width[0] + size * (style.half_width[1] - style.half_width[0])
    angle = math.radians(style.max_rotation) * (2 * angle - 1)
    reach = half * (abs(math.cos(angle)) + abs(math.sin(angle)))
    x, y = reach + x * (1 - 2 * reach), reach + y * (1 - 2 * reach)
    rows, cols = _span(y, reach, samples), _span(x, reach, samples)
    u, v = _rotated(axis[cols] - np.float32(x), axis[rows] - np.float32(y), angle, half)
    noise = perlin(rows, cols, samples, NOISE_SHIFT * shift_x, NOISE_SHIFT * shift_y)
    share = style.erase[0] + share * (style.erase[1] - style.erase[0])
    visible, erased = erase(shape_mask(shape, u, v), noise, share, style.erase)

    p, q = _rotated(axis[cols], axis[rows], turn * (2 * fg_angle - 1), period)
    bright = texture_mask(fg_texture, p + fg_p, q + fg_q, bits.T)
    np.copyto(shade[rows, cols], np.where(bright, np.uint8(0), np.uint8(1)), where=visible)
    return shade, shades, erased


def render_image(
    features: Sequence[int], seed_sequence: np.random.SeedSequence, style: Style
) -> tuple[np.ndarray, float]:
    """One image (uint8, H x W x 3) with these five feature ids, and its erased share."""
    shade, shades, erased = render_layers(features, seed_sequence, style)
    step, area = style.supersample, style.supersample**2
    # Three channels in one 64-bit word, 16 bits each: 8 x 8 samples of 255 still fit, and one gather does it.
    words = (shades[:, 0] | shades[:, 1] << np.uint64(16) | shades[:, 2] << np.uint64(32))[shade]
    total = words[::step, ::step].copy()
    for k in range(1, area):
        total += words[k // step :: step, k % step :: step]
    image = np.empty((style.image_size, style.image_size, 3), dtype=np.uint8)
    for channel in range(3):
        values = (total >> np.uint64(16 * channel)).astype(np.uint16)
        image[..., channel] = (values + area // 2) // area
    return image, erased


def bright_pixels(shade: np.ndarray, supersample: int) -> np.ndarray:
    """Pixels (H x W) that show nothing but the object's bright shade."""
    side = shade.shape[0] // supersample
    blocks = shade.reshape(side, supersample, side, supersample)
    return (blocks == 0).all(axis=(1, 3))


def pinned_sample_digest(style: Style) -> str:
    """SHA-256 of 32 fixed images that show every value of every feature: it changes when the renderer does.

    Pinned on x86-64 with the `noise` package as pip builds it; a compiler that fuses multiply and add inside
    pnoise2 (64-bit ARM) may move single pixels of the erasure.
    """
    digest = hashlib.sha256()
    for i in range(32):
        features = (i % 10, 3 * i % 10, 7 * i % 10, (3 * i + 1 + i % 9) % 10, (i // 3 + 4) % 10)
        digest.update(render_image(features, image_seed(0, "pinned", 0, i, 0), style)[0].tobytes())
    return digest.hexdigest()
