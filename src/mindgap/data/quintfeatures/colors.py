"""The ten colours of Trifeature, jittered inside a ball in OKLab, so that two names never come near each
other.

OKLab (Ottosson 2020) because equal distances look equally large in it. The closest two anchors (cyan, white)
are 0.181 apart: every radius below half of that keeps the nearest anchor the right one, and 8-bit rounding
fits in.
"""

import math

import numpy as np

ANCHORS = {  # sRGB in [0, 1], as in Trifeature
    "red": (1.0, 0.0, 0.0),
    "green": (0.0, 1.0, 0.0),
    "blue": (0.0, 0.0, 1.0),
    "yellow": (1.0, 1.0, 0.0),
    "pink": (1.0, 0.4, 1.0),
    "cyan": (0.0, 1.0, 1.0),
    "purple": (0.3, 0.0, 0.5),
    "ocean": (0.1, 0.4, 0.5),
    "orange": (1.0, 0.6, 0.0),
    "white": (1.0, 1.0, 1.0),
}
COLORS = tuple(ANCHORS)
MAX_JITTER = 0.09

LINEAR_TO_LMS = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
LMS_TO_LAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)


def decode_gamma(value: float) -> float:
    """Linear light from an sRGB value in [0, 1]."""
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def encode_byte(linear: float) -> int:
    """The sRGB byte of a linear light, which is clipped to [0, 1]."""
    linear = min(max(linear, 0.0), 1.0)
    value = 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055
    return math.floor(255 * value + 0.5)


def oklab_to_linear(lightness: float, a: float, b: float) -> tuple[float, float, float]:
    """Linear sRGB, outside [0, 1] where the colour cannot be shown."""
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )


def oklab(rgb: np.ndarray) -> np.ndarray:
    """OKLab coordinates (float64, ... x 3) of sRGB bytes (... x 3)."""
    linear = GAMMA[np.asarray(rgb, dtype=np.uint8)]
    return np.cbrt(linear @ np.array(LINEAR_TO_LMS).T) @ np.array(LMS_TO_LAB).T


def nearest_color(rgb: np.ndarray) -> np.ndarray:
    """Ids (...) of the anchors nearest in OKLab to sRGB bytes (... x 3)."""
    return np.linalg.norm(oklab(rgb)[..., None, :] - ANCHORS_LAB, axis=-1).argmin(axis=-1)


def jitter(color: int, radius: float, rng: np.random.Generator) -> tuple[float, float, float]:
    """An OKLab colour, uniform over the part of the ball around an anchor that sRGB can show.

    At the gamut's corners one proposal in twenty is taken; scalars are quicker here than arrays.
    """
    anchor = ANCHORS_LAB[color].tolist()
    if radius == 0:
        return tuple(anchor)
    while True:
        for step in rng.uniform(-radius, radius, (32, 3)).tolist():
            if step[0] ** 2 + step[1] ** 2 + step[2] ** 2 > radius**2:
                continue
            candidate = (anchor[0] + step[0], anchor[1] + step[1], anchor[2] + step[2])
            if all(0.0 <= value <= 1.0 for value in oklab_to_linear(*candidate)):
                return candidate


def to_bytes(lab: tuple[float, float, float]) -> tuple[int, int, int]:
    """The sRGB bytes of an OKLab colour, clipped to what sRGB can show."""
    red, green, blue = oklab_to_linear(*lab)
    return encode_byte(red), encode_byte(green), encode_byte(blue)


GAMMA = np.array([decode_gamma(byte / 255) for byte in range(256)])
ANCHORS_LAB = oklab(np.floor(255 * np.array(list(ANCHORS.values())) + 0.5))
