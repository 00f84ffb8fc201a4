"""Images of any kind that a crawler brought home -> the RGB square that is stored.

The shorter side is scaled to the square's and the middle is kept. The square is what a viewer shows: an image
whose colours are not certain stays out, as does what is not an image; what can be mended is, and both are
recorded. An image is decoded once, a damaged one four times.
"""

import hashlib
import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

from mindgap.data.files import OF_MACHINE, read_whole

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

LARGEST = 2**28  # bytes of a file: what so many pixels take in RGB
# Of the square, for a cut image to count: what is cut off is the lower part, and the dish is in the middle.
READABLE = 0.5
# Of the pixels of a JPEG that are exactly the grey of missing data: from here on it is looked at again.
SUSPECT = 0.05
BLANK = 8  # levels between the darkest and the brightest pixel of a channel
FRAMES = 100  # of an animation that are looked at for one which is not blank

NO_FILE, NO_IMAGE, TINY = "file cannot be read", "not an image", f"shorter side under {SMALLEST} px"
HUGE, UNREADABLE = "too many pixels (decompression bomb)", "not decodable"
UNSURE = "colours not certain (float, signed, 12 or 32 bits, Lab and the like)"
INVISIBLE, CUT_OFF = (
    "transparent, and nothing to be seen on white",
    f"cut off, less than {READABLE:.0%} readable",
)
EXCLUDED = (NO_FILE, NO_IMAGE, TINY, HUGE, UNREADABLE, UNSURE, INVISIBLE, CUT_OFF)
TRUNCATED, CONVERTED, ON_WHITE, TURNED, LATER = (
    "truncated, read as far as it goes",
    "converted to RGB",
    "transparent, put on white",
    "turned as its EXIF says",
    "animated, first frame that is not blank",
)
REPAIRED = (TRUNCATED, CONVERTED, ON_WHITE, TURNED, LATER)

# Modes whose values say how bright a pixel is. Floats and signed numbers do not tell white.
CERTAIN = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16", "I;16B", "I;16L")
ANIMATED = ("GIF", "PNG", "WEBP")
MISSING = ((128, 128, 128), (64, 64, 64))  # how a JPEG's decoder fills up what is not there; of CMYK
JPEGS = ("JPEG", "MPO")  # the second is several of the first in a file
START, END, SCAN = b"\xff\xd8", b"\xff\xd9", b"\xff\xda"  # markers of a JPEG
MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # what ends the data of a scan
PNG, WEBP = b"\x89PNG", b"RIFF"  # how files of them begin, whose end is no row of zeros
ZEROS = 8  # that a picture may end with

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
BITS, PHOTOMETRIC, INK_SET, SAMPLE_FORMAT = 258, 262, 332, 339  # tags of a TIFF
BLACK_IS_ZERO = 1


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
class ImageChunk:
    """A worker's task: these files into these rows of one array."""

    array: Path
    places: tuple[int, ...]
    files: tuple[Path, ...]


def decode_chunk(chunk: ImageChunk) -> list[Found]:
    """Decode the files into their rows; the rows of what is left out stay as they are."""
    array = np.load(chunk.array, mmap_mode="r+")
    found = []
    for i, file in zip(chunk.places, chunk.files, strict=True):
        try:
            pixels, one = decode_image(read_whole(file, LARGEST), array.shape[1])
        except OSError as error:
            if error.errno in OF_MACHINE:
                raise
            pixels, one = None, Found(excluded=NO_FILE)
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
                (width, height), mode, certain = image.size, image.mode, _is_certain(image)
        except TOO_MANY_PIXELS:
            return None, Found(excluded=HUGE)
        except BROKEN:
            return None, Found(excluded=NO_IMAGE)
        if min(width, height) < SMALLEST:
            return None, Found(width, height, mode, excluded=TINY)
        if not certain:
            return None, Found(width, height, mode, excluded=UNSURE)
        try:
            pixels, repaired, excluded = _square(data, size)
        except TOO_MANY_PIXELS:  # of a later frame
            return None, Found(width, height, mode, excluded=HUGE)
    if pixels is None:
        return None, Found(width, height, mode, excluded=excluded)
    return pixels, Found(width, height, mode, repaired, sha256=hashlib.sha256(pixels).hexdigest())


def _is_certain(image: Image.Image) -> bool:
    """Whether Pillow shows what is stored: a TIFF may hold anything, a PNG name a transparent colour.

    Pillow compares that colour with samples it has scaled to 8 bits. It does not invert 16 bits of a TIFF in
    which 0 is white, nor scale 12 bits.
    """
    if image.mode not in CERTAIN:
        return False
    if image.format == "PNG" and "transparency" in image.info:
        return image.mode == "P" or image.tile[0].args in ("L", "RGB")  # the samples as they are stored
    if image.format != "TIFF":
        return True
    tags = image.tag_v2
    unsigned, ink = set(tags.get(SAMPLE_FORMAT, (1,))) == {1}, tags.get(INK_SET, 1) == 1
    sixteen = tags.get(BITS, (1,)) == (16,) and tags.get(PHOTOMETRIC) == BLACK_IS_ZERO
    return unsigned and ink and (sixteen or not image.mode.startswith("I"))


def _square(data: bytes, size: int) -> tuple[np.ndarray | None, tuple[str, ...], str]:
    """The pixels, what was repaired, and why it is left out; a damaged file is read as far as it goes."""
    if _is_endless(data) or data.startswith((PNG, WEBP)):
        # What a download that broke off had reserved, and no picture.
        data = data[: len(data.rstrip(b"\0")) + ZEROS]
    try:
        pixels, repaired = _decode(data, size)
        whole = not _is_cut(data, pixels) and not _is_altered(data)
    except BROKEN:
        whole = False
    if not whole:
        try:
            with _truncated_allowed():
                pixels, repaired = _decode(data, size)
                share = _readable(data, size, pixels)
        except BROKEN:
            return None, (), UNREADABLE
        if share < READABLE:
            return None, (), CUT_OFF if share else UNREADABLE
        if share < 1 or not _is_endless(data):  # which may lack nothing but its end
            repaired = (TRUNCATED, *repaired)
    if ON_WHITE in repaired and _is_blank(pixels):
        return None, (), INVISIBLE
    return pixels, repaired, ""


def _is_endless(data: bytes) -> bool:
    return data.startswith(START) and data.rfind(END) < data.rfind(SCAN)


def _is_cut(data: bytes, pixels: np.ndarray) -> bool:
    """Whether a JPEG that Pillow reads without complaint lacks a part of its picture."""
    if not data.startswith(START):
        return False
    suspect = _is_endless(data) or _grey(pixels).mean() > SUSPECT
    with _truncated_allowed():
        return suspect and _readable(data, len(pixels), pixels) < 1


def _is_altered(data: bytes) -> bool:
    """Whether checksums of a PNG say so, which Pillow passes over where it reads pixels."""
    if not data.startswith(PNG):
        return False
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if not image.is_animated:  # of which the first frame may be whole
                image.verify()
    except BROKEN:
        return True
    return False


def _grey(pixels: np.ndarray) -> np.ndarray:
    """Where a JPEG may lack its picture."""
    return np.any([(pixels == colour).all(axis=-1) for colour in MISSING], axis=0)


def _end_of_scan(data: bytes) -> int:
    """Where the data of a JPEG's last scan end: there a decoder fills up, whatever follows."""
    place, end = len(START), len(data)
    while data[place : place + 1] == b"\xff":
        marker, length = data[place : place + 2], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == END:
            break
        place += 2 + length
        if marker == SCAN:
            found = MARKER.search(data, place)
            place = end = found.start() if found else len(data)
    return end


def _readable(data: bytes, size: int, pixels: np.ndarray) -> float:
    """Share of the square that the file has data for: the rest stays as it was before, whatever that was.

    A progressive JPEG comes as a whole, coarse before it is fine: of one that is cut the means of 8 x 8
    pixels count, as all but a 64th where they are as fine as the square, else as a 64th.
    """
    grey = _grey(pixels)
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        kind, mode, progressive = image.format, image.mode, "progressive" in image.info
        coarse = min(image.size) < 8 * size
    if progressive and not _is_endless(data):
        return 1.0
    if progressive:
        return (1 - grey.mean()) * (1 if coarse else 63) / 64
    if kind in JPEGS:
        # Without its end, which makes the decoder fill up the image; it looks some bytes ahead.
        data = data[: _end_of_scan(data)] + bytes(8)
    first, second = (_decode(data, size, filling)[0] for filling in (0, 255))
    unread = (first != second).any(axis=-1)
    # Rows come in bands of up to 32; of the last band some blocks may be there.
    return 1 - (unread & grey if kind in JPEGS and mode != "CMYK" else unread).mean()


@contextmanager
def _truncated_allowed() -> Iterator[None]:
    """A switch for all of Pillow, so it is thrown for one image and back again."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _decode(data: bytes, size: int, filling: int | None = None) -> tuple[np.ndarray, tuple[str, ...]]:
    """The square and what was repaired; with `filling` that stands where the file has no data."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        # A JPEG is decoded at 1/2, 1/4 or 1/8 of its size while that leaves twice the square's.
        image.draft(image.mode, (2 * size, 2 * size))
        if filling is not None:
            _fill(image, filling)
        image.load()
        turn = UPRIGHT.get(_orientation(image))
        square, repaired = _middle(image, size)
        if image.format in ANIMATED and _is_blank(square):
            square, repaired = _later_frame(image, size) or (square, repaired)
    if turn is not None:
        square = square.transpose(turn)
    return np.array(square), (*repaired, *((TURNED,) if turn is not None else ()))


def _fill(image: Image.Image, filling: int) -> None:
    """Have black (0) or white (255) in the image's memory, and no end of a JPEG that its file lacks."""
    prepare = image.load_prepare

    def prepared() -> None:
        prepare()
        image.im.paste(_ink(image, filling), (0, 0, *image.im.size))

    image.load_prepare = prepared
    if image.format in JPEGS:
        image.load_read = image.fp.read


def _ink(image: Image.Image, filling: int) -> int | tuple[int, ...]:
    """A pixel of the image's mode: opaque, and of a palette the darkest or the brightest entry."""
    if image.mode in ("P", "PA"):
        bright_C = np.frombuffer(image.im.getpalette("RGB"), np.uint8).reshape(-1, 3).sum(axis=1, dtype=int)
        clear = image.info.get("transparency", b"")
        hidden = [clear] if isinstance(clear, int) else [i for i, alpha in enumerate(clear) if alpha < 255]
        bright_C[hidden] = bright_C.max() // 2  # on white it would look like another entry
        entry = int(bright_C.argmax() if filling else bright_C.argmin())
        return entry if image.mode == "P" else (entry, 255)
    if len(image.getbands()) == 1:
        return filling
    return tuple(255 if band in "Aa" else filling for band in image.getbands())


def _middle(image: Image.Image, size: int) -> tuple[Image.Image, tuple[str, ...]]:
    rgb, converted = _rgb(image)
    width, height = rgb.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    middle = (left, top, left + side, top + side)
    return rgb.resize((size, size), Image.Resampling.BILINEAR, middle, reducing_gap=2.0), converted


def _is_blank(square: Image.Image | np.ndarray) -> bool:
    return np.ptp(np.asarray(square).astype(int), axis=(0, 1)).max() <= BLANK


def _later_frame(image: Image.Image, size: int) -> tuple[Image.Image, tuple[str, ...]] | None:
    for frame in range(1, min(getattr(image, "n_frames", 1), FRAMES)):
        image.seek(frame)
        square, converted = _middle(image, size)
        if not _is_blank(square):
            return square, (*converted, LATER)
    return None


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
