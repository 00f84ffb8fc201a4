"""Images of any kind that a crawler brought home -> the RGB square that is stored.

The shorter side is scaled to the square's and the middle is kept. What is not an image stays out; what can be
mended is, and both are recorded. An image is decoded once, a damaged one twice.
"""

import hashlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

# What a crawled .jpg can be. Pillow would also hand PostScript to another program.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
SMALLEST = 32  # pixels of the shorter side; less shows no dish
# What Pillow raises for damaged files of these formats.
BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    EOFError,
    struct.error,
    zlib.error,
)
TOO_MANY_PIXELS = (Image.DecompressionBombWarning, Image.DecompressionBombError)  # over 89 million

NO_IMAGE, TINY = "not an image", f"shorter side under {SMALLEST} px"
HUGE, UNREADABLE = "too many pixels (decompression bomb)", "not decodable"
EXCLUDED = (NO_IMAGE, TINY, HUGE, UNREADABLE)
TRUNCATED, CONVERTED, ON_WHITE, TURNED = (
    "truncated, read as far as it goes",
    "converted to RGB",
    "transparent, put on white",
    "turned as its EXIF says",
)
REPAIRED = (TRUNCATED, CONVERTED, ON_WHITE, TURNED)

# EXIF orientation -> how to bring the stored pixels upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ORIENTATION = 0x0112


@dataclass(frozen=True, slots=True)
class Found:
    """What an image file is, what was repaired, why it is left out; sha256 is that of the square's pixels."""

    width: int | None = None
    height: int | None = None
    mode: str = ""
    repaired: tuple[str, ...] = ()
    excluded: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class Chunk:
    """A worker's task: these files into these rows of one array."""

    array: Path
    places: tuple[int, ...]
    files: tuple[Path, ...]


def decode_chunk(chunk: Chunk) -> list[Found]:
    """Decode the files into their rows; the rows of what is left out stay as they are."""
    array = np.load(chunk.array, mmap_mode="r+")
    found = []
    for i, file in zip(chunk.places, chunk.files, strict=True):
        pixels, one = decode_image(file.read_bytes(), array.shape[1])
        if pixels is not None:
            array[i] = pixels
        found.append(one)
    return found


def decode_image(data: bytes, size: int) -> tuple[np.ndarray | None, Found]:
    """The square (uint8, size x size x 3), None where it is left out, and what the file is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged EXIF and the like: the image is what matters
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                (width, height), mode = image.size, image.mode
        except TOO_MANY_PIXELS:
            return None, Found(excluded=HUGE)
        except BROKEN:
            return None, Found(excluded=NO_IMAGE)
        if min(width, height) < SMALLEST:
            return None, Found(width, height, mode, excluded=TINY)
        pixels, repaired = _square(data, size)
    if pixels is None:
        return None, Found(width, height, mode, excluded=UNREADABLE)
    return pixels, Found(width, height, mode, repaired, sha256=hashlib.sha256(pixels).hexdigest())


def _square(data: bytes, size: int) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """The pixels and what was repaired; a damaged file is read as far as it goes."""
    try:
        return _decode(data, size)
    except BROKEN:
        try:
            with _truncated_allowed():
                pixels, repaired = _decode(data, size)
        except BROKEN:
            return None, ()
    # Nothing of it could be read: Pillow fills with one colour.
    return (None, ()) if (pixels == pixels[0, 0]).all() else (pixels, (TRUNCATED, *repaired))


@contextmanager
def _truncated_allowed() -> Iterator[None]:
    """A switch for all of Pillow, so it is thrown for one image and back again."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _decode(data: bytes, size: int) -> tuple[np.ndarray, tuple[str, ...]]:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        # A JPEG is decoded at 1/2, 1/4 or 1/8 of its size while that leaves twice the square's.
        image.draft(image.mode, (2 * size, 2 * size))
        image.load()
        turn = UPRIGHT.get(_orientation(image))
        rgb, converted = _rgb(image)
        width, height = rgb.size
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        middle = (left, top, left + side, top + side)
        square = rgb.resize((size, size), Image.Resampling.BILINEAR, middle, reducing_gap=2.0)
    if turn is not None:
        square = square.transpose(turn)
    return np.array(square), (*converted, *((TURNED,) if turn is not None else ()))


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ORIENTATION, 1)
    except BROKEN:
        return 1


def _rgb(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image, ()
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip
        grey = np.clip(np.asarray(image).astype(np.float32) / 257, 0, 255).round().astype(np.uint8)
        return Image.fromarray(grey).convert("RGB"), (CONVERTED,)
    if "A" in image.getbands() or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB"), (
            ON_WHITE,
        )
    return image.convert("RGB"), (CONVERTED,)


def keep_rows(path: Path, kept: np.ndarray) -> None:
    """Shorten an array's file to these rows (ascending), moved up in place: memory stays flat."""
    array = np.load(path, mmap_mode="r+")
    step, end, shape = 1024, array.offset, (len(kept), *array.shape[1:])
    if len(kept) == len(array):
        return
    for start in range(0, len(kept), step):
        part = kept[start : start + step]
        array = np.load(path, mmap_mode="r+")  # anew, so that the pages written so far can go
        array[start : start + len(part)] = array[part]
    row_bytes = array[0].nbytes
    del array
    with path.open("r+b") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(end + len(kept) * row_bytes)
