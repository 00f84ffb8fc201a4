"""What an image file becomes: the picture that a viewer shows, or a reason why it is left out."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from food101_raw import draw_dish, encoded, jpeg
from mindgap.data.food101.images import (
    CUT_OFF,
    INVISIBLE,
    LATER,
    READABLE,
    TRUNCATED,
    UNREADABLE,
    UNSURE,
    decode_image,
)

SIDE = 64
RAMP_HW = np.linspace(0, 1, SIDE * SIDE).reshape(SIDE, SIDE)
STEPS_HW = (RAMP_HW * 15).round().astype(int)  # sixteen levels
# TIFF: tag -> (type, values); 3 is short, 4 is long
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, OFFSETS = 256, 257, 258, 259, 262, 273
SAMPLES, ROWS, BYTES, EXTRA, INK_SET, FORMAT = 277, 278, 279, 338, 332, 339


def tiff(strip: bytes, photometric: int, bits: int, samples=1, kind=1, order="<", **more) -> bytes:
    """An uncompressed TIFF of SIDE x SIDE: 1 is unsigned, 2 signed, 3 float; `more` are single shorts."""
    entries = {
        WIDTH: (4, [SIDE]),
        HEIGHT: (4, [SIDE]),
        BITS: (3, [bits] * samples),
        COMPRESSION: (3, [1]),
        PHOTOMETRIC: (3, [photometric]),
        OFFSETS: (4, [0]),
        SAMPLES: (3, [samples]),
        ROWS: (4, [SIDE]),
        BYTES: (4, [len(strip)]),
        FORMAT: (3, [kind] * samples),
        **{{"extra": EXTRA, "ink_set": INK_SET}[name]: (3, [value]) for name, value in more.items()},
    }
    end, outside, lines = 8 + 2 + 12 * len(entries) + 4, b"", []
    for tag, (size, values) in sorted(entries.items()):
        raw = struct.pack(order + {3: "H", 4: "I"}[size] * len(values), *values)
        if len(raw) > 4:
            raw, outside = struct.pack(order + "I", end + len(outside)), outside + raw
        lines.append([tag, size, len(values), raw.ljust(4, b"\0")])
    for line in lines:
        if line[0] == OFFSETS:
            line[3] = struct.pack(order + "I", end + len(outside))
    listed = b"".join(struct.pack(order + "HHI", *line[:3]) + line[3] for line in lines)
    start = struct.pack(order + "2sHIH", b"II" if order == "<" else b"MM", 42, 8, len(lines))
    return start + listed + bytes(4) + outside + strip


def png(array: np.ndarray, depth: int, kind: int, transparent: bytes = b"") -> bytes:
    """A PNG of rows of bytes: kind 0 is grey, 2 RGB, 4 grey and alpha, 6 RGB and alpha."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", SIDE, SIDE, depth, kind, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in array))
    chunks = chunk(b"IHDR", header) + (chunk(b"tRNS", transparent) if transparent else b"")
    return b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def packed(levels_HW: np.ndarray, bits: int) -> np.ndarray:
    """Levels of fewer than eight bits, side by side in bytes."""
    each = 8 // bits
    parts = (levels_HW[:, k::each] << (8 - bits * (k + 1)) for k in range(each))
    return sum(parts).astype(np.uint8)


def grey(levels_HW: np.ndarray) -> np.ndarray:
    return np.stack([levels_HW] * 3, axis=-1)


GREY = (RAMP_HW * 255).astype(np.uint8)
RGB = np.stack([GREY, 255 - GREY, GREY // 2], axis=-1)
WITH_ALPHA = np.concatenate([RGB, GREY[..., None]], axis=-1)
ON_WHITE = 255 + (RGB.astype(float) - 255) * GREY[..., None] / 255
CMYK = np.concatenate([RGB, np.zeros_like(GREY)[..., None]], axis=-1)
DEEP = (GREY.astype("<u2") * 257, GREY.astype(">u2") * 257)


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (tiff(GREY.tobytes(), 1, 8), grey(GREY)),
        (tiff(GREY.tobytes(), 0, 8), grey(255 - GREY)),
        (tiff(DEEP[0].tobytes(), 1, 16), grey(GREY)),
        (tiff(DEEP[1].tobytes(), 1, 16, order=">"), grey(GREY)),
        *[
            (tiff(packed(STEPS_HW >> 4 - bits, bits).tobytes(), white, bits), grey(255 * level))
            for bits in (1, 2, 4)
            for white, level in (
                (1, (STEPS_HW >> 4 - bits) / (2**bits - 1)),
                (0, 1 - (STEPS_HW >> 4 - bits) / (2**bits - 1)),
            )
        ],
        (tiff(RGB.tobytes(), 2, 8, 3), RGB),
        (tiff((RGB.astype("<u2") * 257).tobytes(), 2, 16, 3), RGB),
        (tiff(CMYK.tobytes(), 5, 8, 4), 255 - RGB),
        (tiff((CMYK.astype("<u2") * 257).tobytes(), 5, 16, 4), 255 - RGB),
        (tiff(WITH_ALPHA.tobytes(), 2, 8, 4, extra=2), ON_WHITE),
        (tiff(WITH_ALPHA.tobytes(), 2, 8, 4, extra=0), RGB),
        (tiff(WITH_ALPHA[..., 2:].tobytes(), 1, 8, 2, extra=2), ON_WHITE[..., 2:]),
        (png(GREY, 8, 0), grey(GREY)),
        (png(DEEP[1], 16, 0), grey(GREY)),
        (png(packed(STEPS_HW, 4), 4, 0), grey(255 * STEPS_HW / 15)),
        (png(WITH_ALPHA[..., 2:], 8, 4), ON_WHITE[..., 2:]),
        (png(WITH_ALPHA.astype(">u2") * 257, 16, 6), ON_WHITE),
        (png(GREY, 8, 0, struct.pack(">H", 200)), grey(np.where(GREY == 200, 255, GREY))),
        (encoded(Image.fromarray(GREY > 127), "BMP"), grey(255 * (GREY > 127))),
        (encoded(Image.fromarray(RGB), "BMP"), RGB),
        (encoded(Image.fromarray(RGB), "WEBP", lossless=True), RGB),
        (jpeg(Image.fromarray(CMYK, "CMYK"), quality=100), 255 - RGB),
    ],
)
def test_a_picture_is_what_a_viewer_shows(data, shown):
    pixels, found = decode_image(data, SIDE)
    assert not found.excluded
    assert np.abs(pixels.astype(float) - shown).max() <= (12 if data[:2] == b"\xff\xd8" else 1.01)


@pytest.mark.parametrize("transparent", [3, bytes([255] * 3 + [0] + [255] * 12)])
def test_a_transparent_entry_of_a_palette_is_white(transparent):
    image = Image.fromarray(STEPS_HW.astype(np.uint8), "P")
    image.putpalette([level for k in range(16) for level in (16 * k, 255 - 16 * k, 7)])
    pixels, _ = decode_image(encoded(image, "PNG", transparency=transparent), SIDE)
    shown = np.stack([16 * STEPS_HW, 255 - 16 * STEPS_HW, 0 * STEPS_HW + 7], axis=-1)
    assert np.array_equal(pixels, np.where(STEPS_HW[..., None] == 3, 255, shown))


@pytest.mark.parametrize(
    "data",
    [
        tiff(RAMP_HW.astype("<f4").tobytes(), 1, 32, kind=3),
        tiff((255 * RAMP_HW).astype("<f4").tobytes(), 1, 32, kind=3),
        tiff((RAMP_HW * 30_000).astype("<i2").tobytes(), 1, 16, kind=2),
        tiff((RAMP_HW * 30_000).astype(">i2").tobytes(), 1, 16, kind=2, order=">"),
        tiff((RAMP_HW * 127).astype("i1").tobytes(), 1, 8, kind=2),
        tiff((RAMP_HW * 2e9).astype("<i4").tobytes(), 1, 32, kind=2),
        tiff((RAMP_HW * 4e9).astype("<u4").tobytes(), 1, 32),
        tiff(DEEP[0].tobytes(), 0, 16),  # 0 is white, which Pillow does not invert
        tiff(bytes(SIDE * SIDE * 3 // 2), 1, 12),  # which it does not scale
        tiff(CMYK.tobytes(), 5, 8, 4, ink_set=2),  # other inks
        tiff(RGB.tobytes(), 8, 8, 3),  # Lab
        tiff(RGB.tobytes(), 6, 8, 3),  # YCbCr
        tiff(WITH_ALPHA[..., 2:].tobytes(), 1, 8, 2, extra=1),
        png(DEEP[1], 16, 0, struct.pack(">H", 0)),
        png(packed(STEPS_HW, 4), 4, 0, struct.pack(">H", 3)),
        png(RGB.astype(">u2") * 257, 16, 2, struct.pack(">HHH", 0, 0, 0)),
    ],
)
def test_a_picture_whose_colours_are_not_certain_is_left_out(data):
    pixels, found = decode_image(data, SIDE)
    assert pixels is None
    assert found.excluded == UNSURE


def dish(size: int = 96) -> Image.Image:
    return Image.fromarray(np.asarray(draw_dish("waffles", "waffles_1.jpg", size)))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
@pytest.mark.parametrize("first", ["white", "black", (0, 0, 0, 0)])
def test_an_animation_is_its_first_frame_that_is_not_blank(kind, first):
    blank = Image.new("RGBA" if isinstance(first, tuple) else "RGB", (128, 96), first)
    frames = [blank.copy(), dish().convert(blank.mode)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(blank, kind, save_all=True, append_images=frames, duration=90, **options)
    pixels, found = decode_image(data, 24)
    shown, _ = decode_image(encoded(dish(), "PNG"), 24)
    assert LATER in found.repaired
    assert np.abs(pixels.astype(int) - shown).mean() < (8 if kind == "GIF" else 0.1)


def test_what_shows_nothing_on_white_is_left_out():
    for image in (
        Image.new("RGBA", (64, 64), (200, 0, 0, 0)),
        Image.new("RGBA", (64, 64), (255,) * 3 + (99,)),
    ):
        assert decode_image(encoded(image, "PNG"), 24)[1].excluded == INVISIBLE


def cut(data: bytes, share: float) -> bytes:
    """A JPEG without the rest of its scan."""
    scan = data.rfind(b"\xff\xda")
    return data[: scan + round((len(data) - scan) * share)]


KINDS = {"plain": {}, "restart markers": {"restart_marker_rows": 1}}
TAILS = {
    "cut": b"",
    "ended": b"\xff\xd9",
    "zeros": bytes(3000),
    "another marker": b"\xff\xc4\x7f\xff" + b"x" * 99,
}


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("mode", ["RGB", "CMYK", "L"])
@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS)
def test_a_jpeg_counts_as_repaired_if_half_of_the_picture_is_there(options, mode, tail):
    whole = jpeg(dish(240).convert(mode), **options)
    for share in (0.02, 0.1, 0.25):
        assert decode_image(cut(whole, share) + tail, 24)[1].excluded in (CUT_OFF, UNREADABLE)
    shown, _ = decode_image(whole, 24)
    for share in (0.7, 0.8):
        pixels, found = decode_image(cut(whole, share) + tail, 24)
        assert TRUNCATED in found.repaired
        there = int(24 * READABLE)
        assert np.abs(pixels.astype(int) - shown)[:there].mean() < 2


def test_a_progressive_jpeg_that_is_cut_counts_where_its_coarse_form_is_fine_enough():
    whole = jpeg(dish(240), progressive=True)
    assert decode_image(whole, 24)[1].repaired == ()
    pixels, found = decode_image(cut(whole, 0.8), 24)
    assert found.repaired == (TRUNCATED,)
    assert np.abs(pixels.astype(int) - decode_image(whole, 24)[0]).mean() < 6
    assert decode_image(cut(whole, 0.8), 64)[1].excluded == CUT_OFF  # 240 / 8 is less


def test_a_jpeg_that_lacks_nothing_but_its_end_is_whole():
    whole = jpeg(dish())
    pixels, found = decode_image(whole[:-2], 24)
    assert found.repaired == ()
    assert np.array_equal(pixels, decode_image(whole, 24)[0])


def test_of_several_jpegs_in_a_file_the_first_counts():
    several = encoded(dish(240), "MPO", save_all=True, append_images=[dish(240)])
    assert decode_image(several, 24)[1].repaired == ()
    assert decode_image(several[: len(several) * 3 // 4], 24)[1].repaired == ()
    assert decode_image(several[: len(several) // 20], 24)[1].excluded in (CUT_OFF, UNREADABLE)
    assert decode_image(several[: len(several) * 2 // 5], 24)[1].repaired == (TRUNCATED,)


@pytest.mark.parametrize(("kind", "least"), [("PNG", 0.45), ("BMP", 0.45), ("TIFF", 0.45), ("GIF", 0.75)])
def test_other_kinds_count_if_half_is_there(kind, least):
    whole = encoded(dish(), kind)
    assert decode_image(whole[: int(len(whole) * least)], 24)[1].excluded in (CUT_OFF, UNREADABLE)
    assert TRUNCATED in decode_image(whole[: int(len(whole) * 0.95)], 24)[1].repaired


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.98])
def test_zeros_that_a_download_had_reserved_are_no_picture(kind, share):
    whole = encoded(dish(240), kind)
    _, found = decode_image(whole[: int(len(whole) * share)] + bytes(len(whole)), 24)
    assert found.excluded or TRUNCATED in found.repaired
    pixels, found = decode_image(whole + bytes(5000), 24)
    assert found.repaired == ()
    assert np.array_equal(pixels, decode_image(whole, 24)[0])


def test_the_checksums_of_a_png_are_looked_at():
    """Its decoder fills a picture with what it reads from damaged data, and is content."""
    whole = encoded(dish(240).convert("RGBA"), "PNG")
    for share in np.linspace(0.5, 0.95, 12):
        place = int(len(whole) * share)
        altered = whole[:place] + bytes(512) + whole[place + 512 :]
        _, found = decode_image(altered, 24)
        assert found.excluded or TRUNCATED in found.repaired


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16", "P with a transparent entry"])
def test_what_a_png_of_any_mode_lacks_is_seen(mode):
    deep = Image.fromarray(np.asarray(dish(240).convert("L")).astype(np.uint16) * 257)
    image = deep if mode == "I;16" else dish(240).convert(mode.split(" ")[0])
    whole = encoded(image, "PNG", **({"transparency": 0} if " " in mode else {}))
    for share in (0.1, 0.4):
        assert decode_image(whole[: int(len(whole) * share)], 24)[1].excluded in (CUT_OFF, UNREADABLE)
    assert TRUNCATED in decode_image(whole[: int(len(whole) * 0.8)], 24)[1].repaired
    assert TRUNCATED not in decode_image(whole, 24)[1].repaired


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("size", [(33, 48), (64, 57), (130, 96)])
def test_a_whole_jpeg_with_the_grey_of_missing_data_is_whole(mode, size):
    for options in (*KINDS.values(), {"progressive": True}):
        image = Image.new("RGB", size, (128, 128, 128))
        image.paste(dish().resize((size[0], size[1] // 2)), (0, 0))
        pixels, found = decode_image(jpeg(image.convert(mode), **options), 24)
        assert (found.excluded, TRUNCATED in found.repaired) == ("", False)
        assert np.abs(pixels[14:].astype(int) - 128).mean() < 3
