"""UPMC Food-101: the real titles, images as crawlers bring them home, and both public distributions."""

import csv
import io
import json
import os
import re
import shutil
import string
import struct
import zlib
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFile

from food101_raw import QUIRKS, draw_dish, encoded, food101_raw, jpeg, spoilt
from mindgap.base.minilm import minilm_folder
from mindgap.data.errors import DataError, SourceMissing
from mindgap.data.food101 import CLASSES, Settings, parameters, prepare, tables
from mindgap.data.food101.images import UPRIGHT, ImageChunk, decode_chunk, decode_image, keep_rows
from mindgap.data.food101.index import IndexRow, read_titles
from mindgap.data.food101.prepare import draw_rows
from mindgap.data.food101.texts import clean, load_tokenizer, write_tokens
from mindgap.data.storage import read_array, read_meta
from mindgap.results.expectations import ExpectationFailed, validate, validate_dataset
from odd_files import DENIED, PLACES, other_user, spoil_place
from shared_data import shared

SUITES = Path(__file__).parents[1] / "reports" / "expectations" / "prepared"
PUNCTUATION = f"[{re.escape(''.join(set(string.punctuation) - set('|?')))}]"
TINY = {"image_size": 16, "max_length": 32}


def prepared(raw, out_dir, *, workers=1, **settings):
    return prepare(raw, out_dir, Settings(**{**TINY, **settings}), workers=workers, progress=False)


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def lines_of(folder, name="images.csv"):
    with (folder / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def counts_of(folder, part):
    """(step, reason) -> (excluded, repaired) of a part's flow."""
    lines = [line for line in lines_of(folder, "flow.csv") if line["part"] == part]
    return {(line["step"], line["reason"]): (int(line["excluded"]), int(line["repaired"])) for line in lines}


@pytest.fixture(scope="module")
def raw_dir(tmp_path_factory):
    return food101_raw(tmp_path_factory.mktemp("food101") / "raw", 4, 2, quirks=True)


@pytest.fixture(scope="module")
def recipes_dir(tmp_path_factory):
    return food101_raw(tmp_path_factory.mktemp("food101") / "raw", 2, 1, size=32, recipes=True)


@pytest.fixture(scope="module")
def food_dir(raw_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("prepared") / "food101"
    prepared(raw_dir, path)
    return path


@pytest.fixture
def raw(raw_dir, tmp_path):
    """A copy to spoil."""
    return Path(shutil.copytree(raw_dir, tmp_path / "raw"))


@pytest.fixture(scope="module")
def real_rows():
    return read_titles(shared("upmc-food101/test_titles.csv"))


# ---- Titles


def test_the_real_titles_are_read_whole(real_rows):
    rows, repaired = real_rows
    counts = Counter(row.label for row in rows)
    assert len(rows) == 22_716
    assert rows[0].file == "apple_pie_175.jpg"  # the row that pandas takes for a header
    assert repaired == {"stray quotes": 0, "named .txt": 0}
    assert sorted(counts) == list(CLASSES)
    assert (min(counts.values()), max(counts.values())) == (197, 238)
    assert sum("-" in row.file for row in rows) == 42
    lines = shared("upmc-food101/test_titles.csv").read_text(encoding="utf-8").splitlines()
    assert sum('"' in line for line in lines) == 948


def test_what_is_repaired_in_the_real_titles(real_rows):
    rows, _ = real_rows
    reasons = Counter(reason for row in rows for reason in clean(row.title)[1])
    # 912 begin with [[" and one is [], the empty list
    assert reasons == {"list brackets": 913, "Python escapes": 883, "HTML entities": 3213}


def token_lengths(texts):
    return np.array([len(encoding.ids) for encoding in load_tokenizer(512).encode_batch(texts)])


def test_lengths_of_the_real_titles_in_tokens(real_rows):
    rows, _ = real_rows
    raw_N = token_lengths([row.title for row in rows])
    assert np.percentile(raw_N, [50, 95, 99]).tolist() == [14, 29, 40]
    assert raw_N.max() == 297
    assert (raw_N > 32).mean() == pytest.approx(0.030, abs=5e-4)
    assert (raw_N > 64).sum() == 17
    clean_N = token_lengths([clean(row.title)[0] for row in rows])
    assert np.percentile(clean_N, [50, 95, 99]).tolist() == [13, 24, 30]
    assert (clean_N.min(), clean_N.max()) == (2, 215)
    assert (clean_N == 2).sum() == 1  # the empty list
    assert (clean_N > 64).sum() == 1


def test_titles_of_train_occur_in_test_and_image_names_do_not(real_rows):
    rows, _ = real_rows
    dev = [json.loads(line) for line in shared("upmc-food101/qmf_dev.jsonl").read_text().splitlines()]

    def bare(text):  # as MMBT and after it QMF write texts: no punctuation but | and ?
        return re.sub(r"\s\s+", " ", re.sub(PUNCTUATION, " ", text)).lower()

    test = {(bare(row.title), row.label) for row in rows}
    titles = {title for title, _ in test}
    assert not {Path(line["img"]).name for line in dev} & {row.file for row in rows}
    assert sum(line["text"] in titles for line in dev) == 1226
    assert sum((line["text"], line["label"]) in test for line in dev) == 1127


@pytest.mark.parametrize(
    ("text", "cleaned", "repaired"),
    [
        ("My  Apple Pie\tRecipe ", "My Apple Pie Recipe", ()),
        ('[["BEST APPLE PIE EVER !!!"]]', "BEST APPLE PIE EVER !!!", ("list brackets",)),
        ("[[\"The Food Lab's Apple Pie", "The Food Lab's Apple Pie", ("list brackets",)),  # cut at a comma
        ('[["Chefs\' Favorite Dishes of 2013"]', "Chefs' Favorite Dishes of 2013", ("list brackets",)),
        ('[["Say "pie" [twice]"]]', 'Say "pie" [twice]', ("list brackets",)),
        ("[]", "", ("list brackets",)),
        ("  ", "", ()),
        ("[Kosher] Carpaccio", "[Kosher] Carpaccio", ()),
        (r"Jos\xc3\xa9 \xe2\x80\x93 pie", "José – pie", ("Python escapes",)),
        (r"Let\'s Cultivate |\t\tAL.com", "Let's Cultivate | AL.com", ("Python escapes",)),
        (r"cut \xe2\x80", "cut", ("Python escapes",)),
        ("Bob&#039;s Pie &amp; Crumble&nbsp;", "Bob's Pie & Crumble", ("HTML entities",)),
    ],
)
def test_a_title_is_what_its_page_said(text, cleaned, repaired):
    assert clean(text) == (cleaned, repaired)


def titles_file(folder, *lines):
    path = folder / "train_titles.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


GOOD = "apple_pie_1.jpg,My Pie,apple_pie"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["Image_path,text,label", GOOD],
            r"train_titles.csv, row 1: 'Image_path' is no image file .* the file has a header, .* original",
        ),
        ([GOOD, "apple_pie.jpg,Pie,apple_pie"], r"row 2: 'apple_pie.jpg' is no image file .*mend the line"),
        (
            [GOOD, "apple_pie_2.jpg,Pie, with cream,apple_pie"],
            "row 2 has 4 columns instead of image, title and class",
        ),
        ([GOOD, "apple_pie_2.jpg,Pie"], "row 2 has 2 columns instead of image, title and class"),
        (
            [GOOD, 'apple_pie_2.jpg,"Pie', 'with cream",apple_pie'],
            r"row 2 has a stray quote \(unexpected end of data\) in 'apple_pie_2.jpg,\"Pie': mend the line",
        ),
        (
            [GOOD, "apple_pie_2.jpg,Pie,baklava"],
            "row 2: apple_pie_2.jpg is of class 'baklava', but named after 'apple_pie'",
        ),
        ([GOOD, "stew_2.jpg,Stew,stew"], "row 2: 'stew' is none of the 101 classes"),
        ([GOOD, "", GOOD], "row 3: apple_pie_1.jpg is there twice, also in row 1: remove one"),
    ],
)
def test_a_titles_file_that_is_wrong_is_refused_by_its_row(tmp_path, lines, message):
    with pytest.raises(DataError, match=message):
        read_titles(titles_file(tmp_path, *lines))


FORM = "a row is image,title,class, with commas, and there is no header and no index"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["My Pie,apple_pie_1.jpg,apple_pie"], f"row 1 has its columns in another order: {FORM}"),
        (["apple_pie,My Pie,apple_pie_1.jpg"], f"row 1 has its columns in another order: {FORM}"),
        (["apple_pie_1.jpg,apple_pie,My Pie"], f"row 1 has its columns in another order: {FORM}"),
        (["0,apple_pie_1.jpg,My Pie,apple_pie"], f"row 1 has 4 columns instead .* '0,apple_pie_1.*: {FORM}"),
        (["apple_pie_1.jpg;My Pie;apple_pie"], f"row 1 has 1 column instead of image, title and .*: {FORM}"),
        ([GOOD, "apple_pie_2.jpg\tMy Pie\tapple_pie"], f"row 2 has 1 column instead of .*: {FORM}"),
    ],
)
def test_a_titles_file_in_another_form_is_told_which_form(tmp_path, lines, message):
    with pytest.raises(DataError, match=message):
        read_titles(titles_file(tmp_path, *lines))


@pytest.mark.parametrize(
    ("encoding", "end"), [("utf-8", "\n"), ("utf-8-sig", "\r\n"), ("utf-16", "\r\n"), ("utf-8", "\r")]
)
def test_a_titles_file_from_other_systems_is_read_the_same(tmp_path, encoding, end):
    path = tmp_path / "titles.csv"
    path.write_bytes(end.join([GOOD, 'apple_pie_2.jpg,"Pie, hot",apple_pie', ""]).encode(encoding))
    rows, repaired = read_titles(path)
    assert [row.title for row in rows] == ["My Pie", "Pie, hot"]
    assert set(repaired.values()) == {0}


def test_a_latin1_byte_in_a_title_is_counted_and_not_a_fault(tmp_path):
    path = tmp_path / "titles.csv"
    path.write_bytes(GOOD.encode() + "\napple_pie_2.jpg,Cr\xe8me,apple_pie\n".encode("latin-1"))
    rows, _ = read_titles(path)
    assert rows[1].title == "Cr\ufffdme"
    assert tokens_of(tmp_path, *[row.title for row in rows])[1]["bytes that are not UTF-8"] == 1


def test_a_first_row_that_is_lost_cannot_be_seen(tmp_path):
    assert len(read_titles(titles_file(tmp_path, GOOD))[0]) == 1


def test_rows_that_an_open_quote_hides_come_back(tmp_path):
    """As the public train_titles.csv has them: a reader of the whole file finds two rows here."""
    path = titles_file(
        tmp_path,
        'breakfast_burrito_730.jpg,"[[""Bob\'s Burrito,breakfast_burrito',
        "breakfast_burrito_7.txt,Burritos to Go,breakfast_burrito",
        'breakfast_burrito_8.txt,[[""""Amy\'s Burrito""""]]""",breakfast_burrito',
        GOOD,
    )
    with path.open(newline="", encoding="utf-8") as file:
        assert len(list(csv.reader(file))) == 2
    rows, repaired = read_titles(path)
    assert [row.file for row in rows] == [
        "breakfast_burrito_730.jpg",
        "breakfast_burrito_7.jpg",
        "breakfast_burrito_8.jpg",
        "apple_pie_1.jpg",
    ]
    assert [clean(row.title)[0] for row in rows] == [
        "Bob's Burrito",
        "Burritos to Go",
        "Amy's Burrito",
        "My Pie",
    ]
    assert repaired == {"stray quotes": 2, "named .txt": 2}


def test_a_quote_within_a_title_is_kept_and_counted(tmp_path):
    rows, repaired = read_titles(titles_file(tmp_path, 'apple_pie_1.jpg,Pie from 8" pans,apple_pie'))
    assert (rows[0].title, repaired["stray quotes"]) == ('Pie from 8" pans', 1)


# ---- Tokens


@pytest.mark.parametrize("length", [8, 64])
def test_tokens_are_those_of_transformers(real_rows, tmp_path, length):
    from transformers import AutoTokenizer

    titles = [row.title for row in real_rows[0]]
    pages = [" ".join(titles[:300]), "x" * 5000, "y" * 2000 + " pie", " ".join(["z" * 150] * 90)]
    chosen = titles[:1000] + [title for title in titles if len(title) > 200] + pages
    rows = [IndexRow(f"apple_pie_{i}.jpg", "apple_pie", title) for i, title in enumerate(chosen)]
    repaired = write_tokens(tmp_path / "tokens.npy", rows, lambda row: row.title, length)
    reference = AutoTokenizer.from_pretrained(minilm_folder(), local_files_only=True)
    texts = [clean(row.title)[0] for row in rows]
    expected = reference(texts, truncation=True, max_length=length, padding="max_length", return_tensors="np")
    tokens_NL = np.load(tmp_path / "tokens.npy")
    assert tokens_NL.dtype == np.int32
    assert np.array_equal(tokens_NL, expected["input_ids"])
    assert np.array_equal(tokens_NL != 0, expected["attention_mask"] == 1)
    whole = reference(texts)["input_ids"]
    assert repaired["cut at max_length tokens"] == sum(len(ids) > length for ids in whole) > 0


def word_pieces(text: str) -> list[str]:
    """BERT's own way: lower case, punctuation stands alone, then the longest piece of the vocabulary."""
    vocabulary = set((minilm_folder() / "vocab.txt").read_text(encoding="utf-8").split("\n"))
    pieces = []
    for word in re.findall(rf"\w+|[{re.escape(string.punctuation)}]", text.lower()):
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            end = next(e for e in range(len(word), start, -1) if prefix + word[start:e] in vocabulary)
            pieces.append(prefix + word[start:end])
            start = end
    return pieces


def tokens_of(tmp_path, *texts, length=64):
    rows = [IndexRow(f"apple_pie_{i}.jpg", "apple_pie", text) for i, text in enumerate(texts)]
    repaired = write_tokens(tmp_path / "tokens.npy", rows, lambda row: row.title, length)
    return np.load(tmp_path / "tokens.npy"), repaired


@pytest.mark.parametrize("name", ["[PAD]", "[MASK]", "[SEP]", "[CLS]", "[UNK]", "[unused7]"])
def test_the_name_of_a_special_token_is_text(tmp_path, name):
    text = f"A {name} pie, x{name}y and {name.lower()}"
    ids_L = tokens_of(tmp_path, text)[0][0]
    tokenizer = load_tokenizer(64)
    found = [tokenizer.id_to_token(i) for i in ids_L if i]
    assert found == ["[CLS]", *word_pieces(text), "[SEP]"]
    assert not (ids_L[: len(found)] == 0).any()


@pytest.mark.parametrize(
    ("text", "same_as"),
    [
        ("\u200fpie\u200e \u202bto go\u202c", "pie to go"),  # marks of direction
        ("p\x00ie\x07 \x1bto go\ufeff", "pie to go"),
        ("\ufffd pie", "pie"),
        ("&#xD83D; &#0; pie", "pie"),
        ("pie\u2028to\x0bgo", "pie to go"),
        (" \t\u00a0\u3000\n", ""),
        ("\u200f\x00\ufeff", ""),
        ("\u4e2d" * 10**6, "\u4e2d" * 2000),
        ("x" * 10**6 + " pie", "x" * 200 + " pie"),
        ("pie " * 250_000, "pie " * 500),
        ("[PAD]" * 200_000, "[PAD]" * 300),
        ("." * 10**6, "." * 1000),
        ("xy" * 40 + "\u4e2d" * 300 + "z" * 10**5, "xy" * 40 + "\u4e2d" * 300),
    ],
)
def test_odd_characters_and_long_pages_are_tokens_as_usual(tmp_path, text, same_as):
    tokens_NL, repaired = tokens_of(tmp_path, text, same_as)
    assert np.array_equal(tokens_NL[0], tokens_NL[1])
    assert repaired["empty"] == 2 * (not same_as)
    assert repaired["cut at max_length tokens"] in (0, 2)


# ---- Images


def dish(size=96):
    return draw_dish("waffles", "waffles_1.jpg", size)


def square_of(data, size=24):
    pixels, found = decode_image(data, size)
    assert not found.excluded
    return pixels.astype(int), found


@pytest.mark.parametrize("turn", [0, 90])
def test_the_middle_of_the_scaled_image_is_kept(turn):
    image = dish(60).rotate(turn, expand=True)
    square, found = square_of(encoded(image, "PNG"), 30)
    width, height = image.size
    scaled = image.resize((width // 2, height // 2), Image.Resampling.BILINEAR)
    left, top = (scaled.width - 30) // 2, (scaled.height - 30) // 2
    expected = np.asarray(scaled.crop((left, top, left + 30, top + 30))).astype(int)
    assert (found.width, found.height, found.mode, found.repaired) == (width, height, "RGB", ())
    assert np.abs(square - expected).max() <= 1


def test_a_small_image_is_enlarged():
    square, _ = square_of(encoded(Image.new("RGB", (32, 40), (9, 8, 7)), "PNG"), 64)
    assert (square == (9, 8, 7)).all()


@pytest.mark.parametrize(
    ("quirk", "mode", "repaired"),
    [
        ("cmyk", "CMYK", "converted to RGB"),
        ("palette", "P", "converted to RGB"),
        ("grey", "L", "converted to RGB"),
        ("deep", "I;16", "converted to RGB"),
        ("transparent", "RGBA", "transparent, put on white"),
        ("turned", "RGB", "turned as its EXIF says"),
        ("truncated", "RGB", "truncated, read as far as it goes"),
    ],
)
def test_every_kind_of_image_becomes_the_same_picture(quirk, mode, repaired):
    image = dish()
    expected, _ = square_of(encoded(image, "PNG"))
    square, found = square_of(spoilt(quirk, image.copy()))
    if quirk in ("grey", "deep"):
        expected, _ = square_of(encoded(image.convert("L").convert("RGB"), "PNG"))
    if quirk == "transparent":
        alpha = np.asarray(image.convert("L"), dtype=float)[..., None] / 255
        on_white = (np.asarray(image) * alpha + 255 * (1 - alpha)).round().astype(np.uint8)
        expected, _ = square_of(encoded(Image.fromarray(on_white), "PNG"))
    if quirk == "turned":
        expected = np.rot90(expected, -1)
    if quirk == "truncated":
        expected, square = expected[:8], square[:8]
    assert (found.mode, found.repaired) == (mode, (repaired,))
    assert np.abs(square - expected).mean() < 8


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_turns_an_image_as_pillow_does(orientation):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(dish(), "PNG", exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    expected, _ = square_of(encoded(upright, "PNG", exif=Image.Exif()))
    assert np.abs(square_of(data)[0] - expected).max() <= 1


def test_a_large_jpeg_is_decoded_small_and_looks_the_same():
    image = dish().resize((2048, 1536), Image.Resampling.BICUBIC)
    small, _ = square_of(jpeg(image))
    whole, _ = square_of(encoded(image, "PNG"))
    assert np.abs(small - whole).mean() < 3


def png_that_claims(width, height):
    """The beginning of a PNG of this size: all that is read of one that is too large."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return start + struct.pack(">I", 1000) + b"IDAT"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"<html><body>404 Not Found</body></html>", "not an image"),
        (b"", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n", "not an image"),
        (jpeg(Image.new("RGB", (31, 400))), "shorter side under 32 px"),
        (png_that_claims(10_000, 10_000), "too many pixels (decompression bomb)"),
        (png_that_claims(20_000, 20_000), "too many pixels (decompression bomb)"),
        (png_that_claims(64, 64), "not decodable"),
    ],
    ids=["page", "empty", "postscript", "small", "large", "larger", "header"],
)
def test_what_is_no_image_of_a_dish_is_left_out(data, reason):
    pixels, found = decode_image(data, 16)
    assert pixels is None
    assert found.excluded == reason


def test_an_image_of_which_nothing_can_be_read_is_left_out():
    data = jpeg(dish())
    assert decode_image(data[: data.index(b"\xff\xda") + 20], 16)[1].excluded == "not decodable"


def test_pillow_stays_strict():
    assert square_of(spoilt("truncated", dish()))[1].repaired
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_places_that_stay_empty_are_closed_up(tmp_path):
    array = np.random.default_rng(0).integers(0, 255, (3000, 4, 4, 3), dtype=np.uint8)
    np.lib.format.open_memmap(tmp_path / "a.npy", mode="w+", dtype=np.uint8, shape=array.shape)[:] = array
    kept = np.setdiff1d(np.arange(3000), [0, 1, 1500, 2999])
    keep_rows(tmp_path / "a.npy", kept)
    np.save(tmp_path / "b.npy", array[kept])
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


# ---- Both distributions, prepared


def test_the_folder_is_a_prepared_dataset(food_dir):
    meta = read_meta(food_dir)
    assert meta["sizes"] == {"train": 404, "test": 202}
    assert meta["class_names"] == list(CLASSES)
    assert meta["ceilings"] == {"image": 1.0, "text": 1.0, "image+text": 1.0}
    assert read_array(food_dir, "train.image.npy", meta).shape == (404, 16, 16, 3)
    tokens_NL = read_array(food_dir, "test.text.npy", meta)
    assert tokens_NL.shape == (202, 32)
    assert np.array_equal(read_array(food_dir, "train.label.npy", meta), np.repeat(np.arange(101), 4))
    assert read_array(food_dir, "test.present.npy", meta).all()
    assert meta["images_without_row"] == {"train": 0, "test": 0}


def test_rows_of_image_text_and_label_belong_together(food_dir, raw_dir):
    meta, tokenizer = read_meta(food_dir), load_tokenizer(32)
    titles = {row.file: row for row in read_titles(raw_dir / "texts" / "test_titles.csv")[0]}
    images, tokens, labels = (
        read_array(food_dir, f"test.{name}.npy", meta) for name in ("image", "text", "label")
    )
    for line in lines_of(food_dir):
        if line["split"] == "test":
            i, row = int(line["row"]), titles[line["file"]]
            data = (raw_dir / "images" / "test" / row.label / row.file).read_bytes()
            assert np.array_equal(images[i], decode_image(data, 16)[0])
            ids = tokenizer.encode(clean(row.title)[0]).ids
            assert tokens[i].tolist() == ids + [0] * (32 - len(ids))
            assert CLASSES[labels[i]] == row.label


def test_what_the_images_were_is_recorded(food_dir):
    lines = lines_of(food_dir)
    assert len(lines) == 606
    assert {line["mode"] for line in lines} == {"RGB", "RGBA", "CMYK", "P", "L", "I;16"}
    repaired = Counter(line["repaired"] for line in lines if line["repaired"])
    assert repaired == {
        "converted to RGB": 4,
        "transparent, put on white": 1,
        "turned as its EXIF says": 1,
        "truncated, read as far as it goes": 1,
    }
    counts = counts_of(food_dir, "train")
    assert {
        reason: n for (step, reason), (_, n) in counts.items() if step == "images decoded" and n
    } == repaired
    assert counts["rows of train_titles.csv", ""] == (0, 0)
    assert counts["images decoded", "not an image"] == (0, 0)
    assert len(QUIRKS) == 7


@pytest.mark.parametrize("workers", [1, 2])
def test_the_bytes_are_the_same_again_whatever_the_workers(raw_dir, food_dir, tmp_path, workers):
    prepared(raw_dir, tmp_path / "again", workers=workers)
    assert files_of(tmp_path / "again") == files_of(food_dir)


def test_titles_may_lie_at_the_top(raw, food_dir, tmp_path):
    for path in (raw / "texts").iterdir():
        path.rename(raw / path.name)
    prepared(raw, tmp_path / "food101")
    assert files_of(tmp_path / "food101") == files_of(food_dir)


def image_paths(raw, split="train"):
    return sorted((raw / "images" / split).glob("*/*.jpg"))


def test_a_missing_and_an_unreadable_image_leave_no_holes(raw, food_dir, tmp_path):
    missing, page = image_paths(raw)[100], image_paths(raw)[200]
    missing.unlink()
    page.write_text("<html>")
    meta = prepared(raw, tmp_path / "food101")
    assert meta["sizes"] == {"train": 402, "test": 202}
    before, after = (np.load(folder / "train.image.npy") for folder in (food_dir, tmp_path / "food101"))
    assert np.array_equal(after, np.delete(before, [100, 200], axis=0))
    lines = {line["file"]: line for line in lines_of(tmp_path / "food101") if line["excluded"]}
    assert {name: (line["excluded"], line["row"]) for name, line in lines.items()} == {
        missing.name: ("no image file", "-1"),
        page.name: ("not an image", "-1"),
    }
    counts = counts_of(tmp_path / "food101", "train")
    assert counts["image files", "no image file"] == (1, 0)
    assert counts["images decoded", "not an image"] == (1, 0)
    validate_dataset(tmp_path / "food101", SUITES, tmp_path / "html")


def test_too_many_missing_images_stop_by_name(raw, tmp_path):
    gone = image_paths(raw)[10:13]
    for path in gone:
        path.unlink()
    message = (
        rf"train: 3 images are lost, 0.74% and more than max_missing, 0.50%: {gone[0].name} \(no image file\)"
    )
    with pytest.raises(DataError, match=message):
        prepared(raw, tmp_path / "food101")
    assert not (tmp_path / "food101").exists()
    assert prepared(raw, tmp_path / "food101", max_missing=0.01)["sizes"]["train"] == 401


def test_too_many_unreadable_images_stop_by_name(raw, tmp_path):
    for path in image_paths(raw, "test")[:2]:
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"test: 2 images are lost, 0.99% .*jpg \(not an image\); complete"):
        prepared(raw, tmp_path / "food101")


@pytest.mark.parametrize(
    ("share", "message"),
    [
        (
            0.3,
            r"train: \d+ images are lost, \d+.\d+% and more than max_missing, 0.50%: .*cut off, less than",
        ),
        (
            0.85,
            r"train: \d+ images are cut off, \d+.\d+% and more than max_truncated, 0.50%: .*raise max_trunc",
        ),
    ],
)
def test_too_many_images_that_are_cut_off_stop_by_name(raw, tmp_path, share, message):
    for path in image_paths(raw):
        data = path.read_bytes()
        scan = data.rfind(b"\xff\xda")
        path.write_bytes(data[: scan + int((len(data) - scan) * share)])
    with pytest.raises(DataError, match=message):
        prepared(raw, tmp_path / "food101")
    assert not (tmp_path / "food101").exists()


def test_images_that_cannot_be_read_are_left_out_and_counted(raw, tmp_path):
    spoilt_paths = image_paths(raw)[8::5][: len(PLACES)]
    for path, how in zip(spoilt_paths, PLACES, strict=True):
        spoil_place(path, how)
    meta = prepared(raw, tmp_path / "food101", max_missing=0.02)
    assert meta["sizes"] == {"train": 404 - len(PLACES), "test": 202}
    lines = {line["file"]: line["excluded"] for line in lines_of(tmp_path / "food101") if line["excluded"]}
    assert lines == {path.name: "file cannot be read" for path in spoilt_paths}
    assert counts_of(tmp_path / "food101", "train")["images decoded", "file cannot be read"] == (6, 0)
    validate_dataset(tmp_path / "food101", SUITES, tmp_path / "html")


@pytest.mark.parametrize(("how", "message"), PLACES.items())
def test_a_titles_file_that_cannot_be_read_is_one_line(raw, tmp_path, how, message):
    path = raw / "texts" / "train_titles.csv"
    spoil_place(path, how)
    with pytest.raises(DataError, match=f"^{path} {message}$"):
        prepared(raw, tmp_path / "food101")


def test_raw_folders_that_lead_nowhere_are_no_reason_to_skip(raw, tmp_path):
    for name in ("images/test", "images", "texts"):
        shutil.rmtree(raw / name)
        (raw / name).symlink_to("gone")
        with pytest.raises(DataError, match=f"{raw / name} is a link to nothing: link it anew"):
            prepared(raw, tmp_path / "food101")
        (raw / name).unlink()
        (raw / name).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match="link is a link to nothing: link it anew"):
        prepared(tmp_path / "link", tmp_path / "food101")


def test_what_this_user_may_not_read_is_named(raw_dir, tmp_path):
    with other_user(), pytest.raises(DataError, match=f"{raw_dir} {DENIED}"):
        prepared(raw_dir, tmp_path / "food101")  # folders of tests are closed to other users
    with TemporaryDirectory() as folder:
        raw = Path(shutil.copytree(raw_dir, Path(folder) / "raw"))
        raw.parent.chmod(0o755)
        image, titles = image_paths(raw)[0], raw / "texts" / "train_titles.csv"
        np.save(raw / "array.npy", np.zeros((1, 16, 16, 3), np.uint8))
        (raw / "array.npy").chmod(0o666)
        image.chmod(0)
        with other_user():
            assert (
                decode_chunk(ImageChunk(raw / "array.npy", (0,), (image,)))[0].excluded
                == "file cannot be read"
            )
        titles.chmod(0)
        with other_user(), pytest.raises(DataError, match=f"{titles} {DENIED}"):
            read_titles(titles)
        titles.chmod(0o644)
        (raw / "images" / "train" / "waffles").chmod(0)
        with other_user(), pytest.raises(DataError, match=f"waffles {DENIED}"):
            prepared(raw, tmp_path / "food101")


def test_a_draw_is_balanced_and_the_seeds_own(raw_dir, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        meta = prepared(raw_dir, tmp_path / name, train_size=250, test_size=101, seed=seed)
        assert meta["sizes"] == {"train": 250, "test": 101}
    counts = np.bincount(np.load(tmp_path / "a" / "train.label.npy"))
    assert (counts.min(), counts.max(), len(counts)) == (2, 3, 101)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert files_of(tmp_path / "a")["train.image.npy"] != files_of(tmp_path / "c")["train.image.npy"]
    assert counts_of(tmp_path / "a", "train")["draw", "not drawn"] == (154, 0)
    assert len(lines_of(tmp_path / "a")) == 351


def test_another_row_of_the_class_steps_in_for_an_unreadable_one(raw, tmp_path):
    settings = {"train_size": 202, "test_size": 101, "seed": 1}
    prepared(raw, tmp_path / "a", **settings)
    first = next(line for line in lines_of(tmp_path / "a") if line["split"] == "train")
    (raw / "images" / "train" / first["class"] / first["file"]).write_bytes(b"")
    assert prepared(raw, tmp_path / "b", **settings)["sizes"] == {"train": 202, "test": 101}
    assert np.bincount(np.load(tmp_path / "b" / "train.label.npy")).tolist() == [2] * 101
    counts = counts_of(tmp_path / "b", "train")
    assert counts["draw", "not drawn"] == (201, 0)
    assert counts["images decoded", "not an image"] == (1, 0)


def test_a_draw_that_is_exhausted_is_closed_up(raw, tmp_path):
    label = raw / "images" / "test" / "waffles"
    for path in sorted(label.iterdir())[:1]:
        path.write_bytes(b"")
    meta = prepared(raw, tmp_path / "food101", test_size=202, train_size=101)
    assert meta["sizes"] == {"train": 101, "test": 201}


def test_more_than_there_is_cannot_be_drawn(raw_dir, tmp_path):
    with pytest.raises(DataError, match=r"train_size is 405, but .* has 404 rows: make it 0 to take all"):
        prepared(raw_dir, tmp_path / "food101", train_size=405)


def test_a_draw_takes_all_of_a_small_class():
    rows = read_titles(shared("upmc-food101/test_titles.csv"))[0]
    few = [row for row in rows if row.label != "waffles"] + [row for row in rows if row.label == "waffles"][
        :5
    ]
    counts = Counter(row.label for row in draw_rows(few, 1010, np.random.default_rng(0)).rows)
    assert counts["waffles"] == 5
    assert set(counts.values()) == {5, 10, 11}


def test_the_same_name_in_both_splits_stops(raw, tmp_path):
    lines = (raw / "texts" / "train_titles.csv").read_text().splitlines()
    with (raw / "texts" / "test_titles.csv").open("a") as file:
        file.write(lines[0] + "\n")
    name = lines[0].split(",")[0]
    with pytest.raises(DataError, match=rf"1 image names are in train and in test: {name}; a name belongs"):
        prepared(raw, tmp_path / "food101")


def test_a_class_without_rows_stops(raw, tmp_path):
    path = raw / "texts" / "test_titles.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith("waffles")))
    with pytest.raises(DataError, match="test has no image with a text of waffles: the copy is not complete"):
        prepared(raw, tmp_path / "food101")


def test_without_files_the_source_is_missing_in_one_line(tmp_path):
    message = (
        r"nowhere lacks images/train, images/test, texts/train_titles.csv, texts/test_titles.csv: put UPMC "
        r"Food-101 there, .*visiir.lip6.fr.*gianmarco96/upmcfood101.*research only, not to be passed on$"
    )
    with pytest.raises(SourceMissing, match=message) as caught:
        prepared(tmp_path / "nowhere", tmp_path / "food101")
    assert "\n" not in str(caught.value)


def test_the_other_distribution_is_named(raw_dir, recipes_dir, tmp_path):
    with pytest.raises(DataError, match=r"has no texts_txt, but texts/.*: set text_source to titles"):
        prepared(raw_dir, tmp_path / "food101", text_source="recipes")
    with pytest.raises(DataError, match=r"has no texts/train.*, but texts_txt: set text_source to recipes"):
        prepared(recipes_dir, tmp_path / "food101")


def texts_of(folder, split):
    tokenizer = load_tokenizer(512)
    return [tokenizer.decode(ids.tolist()) for ids in np.load(folder / f"{split}.text.npy")]


def test_recipes_are_the_texts(recipes_dir, tmp_path):
    meta = prepared(recipes_dir, tmp_path / "food101", text_source="recipes", max_length=48)
    assert meta["sizes"] == {"train": 202, "test": 101}
    assert texts_of(tmp_path / "food101", "train")[0].endswith(
        "serves 4. ingredients 1 cup of apple pie method serve the apple pie."
    )
    assert counts_of(tmp_path / "food101", "train")["text files", "no text file"] == (0, 0)
    validate_dataset(tmp_path / "food101", SUITES, tmp_path / "html")


def test_recipes_that_lack_a_text_or_its_part_are_left_out(recipes_dir, tmp_path):
    raw = Path(shutil.copytree(recipes_dir, tmp_path / "raw"))
    names = [path.stem for path in image_paths(raw)]
    (raw / "texts_txt" / "apple_pie" / f"{names[0]}.txt").unlink()
    (raw / "texts_txt" / "baklava" / f"{names[4]}.txt").write_bytes(b"no list \xff here")
    (raw / "texts_txt" / "waffles" / f"{names[201]}.txt").write_text("INGREDIENTS: ingredients &amp; love")
    (raw / "images" / "train" / "ramen" / "thumbs.db").write_bytes(b"")
    settings = {"text_source": "recipes", "recipe_part": "ingredients"}
    assert prepared(raw, tmp_path / "food101", **settings)["sizes"] == {"train": 200, "test": 101}
    texts = texts_of(tmp_path / "food101", "train")
    assert texts[0] == "1 cup of apple pie method serve the apple pie."
    assert texts[-1] == ": ingredients & love"  # from the first such word on, as in BMMAL
    left_out = {line["file"]: line["excluded"] for line in lines_of(tmp_path / "food101") if line["excluded"]}
    assert left_out == {
        f"{names[0]}.jpg": "no text file",
        f"{names[4]}.jpg": "no word 'ingredients'",
        "thumbs.db": "not <class>_<number>.jpg",
    }
    validate_dataset(tmp_path / "food101", SUITES, tmp_path / "html")
    prepared(raw, tmp_path / "all", text_source="recipes")
    assert counts_of(tmp_path / "all", "train")[
        "texts cleaned and tokenised", "bytes that are not UTF-8"
    ] == (
        0,
        1,
    )


def test_recipes_that_cannot_be_read_are_left_out_and_counted(recipes_dir, tmp_path):
    raw = Path(shutil.copytree(recipes_dir, tmp_path / "raw"))
    names = [path.stem for path in image_paths(raw)][: len(PLACES)]
    for name, how in zip(names, PLACES, strict=True):
        spoil_place(raw / "texts_txt" / "apple_pie" / f"{name}.txt", how) if name.startswith(
            "apple"
        ) else None
    kept = [name for name in names if not name.startswith("apple")]
    with pytest.raises(DataError, match=r"train: 2 images are lost, 0.99% .* \(text cannot be read\)"):
        prepared(raw, tmp_path / "food101", text_source="recipes")
    meta = prepared(raw, tmp_path / "food101", text_source="recipes", max_missing=0.02)
    assert meta["sizes"] == {"train": 200, "test": 101}
    assert counts_of(tmp_path / "food101", "train")["recipes", "text cannot be read"] == (2, 0)
    assert kept


def test_an_image_whose_name_is_not_utf8_is_listed(recipes_dir, tmp_path):
    raw = Path(shutil.copytree(recipes_dir, tmp_path / "raw"))
    (Path(os.fsdecode(os.fsencode(raw / "images/train/ramen") + b"/caf\xe9.jpg"))).write_bytes(b"")
    prepared(raw, tmp_path / "food101", text_source="recipes")
    left_out = [line["file"] for line in lines_of(tmp_path / "food101") if line["excluded"]]
    assert left_out == ["caf\\udce9.jpg"]


def test_recipes_in_folders_of_no_class_or_of_another_stop(recipes_dir, tmp_path):
    raw = Path(shutil.copytree(recipes_dir, tmp_path / "raw"))
    first = image_paths(raw)[0]
    moved = first.rename(raw / "images" / "train" / "ramen" / first.name)
    with pytest.raises(DataError, match=rf"ramen/{first.name} is named after another class: move it"):
        prepared(raw, tmp_path / "food101", text_source="recipes")
    moved.rename(first)
    (raw / "images" / "test" / "stew").mkdir()
    with pytest.raises(DataError, match="images/test has stew, none of the 101 classes: move it elsewhere"):
        prepared(raw, tmp_path / "food101", text_source="recipes")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"text_source": "title"}, "text_source is 'title'; known: titles, recipes"),
        ({"recipe_part": "method"}, "recipe_part is 'method'; known: all, ingredients"),
        ({"recipe_part": "ingredients"}, "text_source is 'titles': a title has no parts"),
        ({"image_size": 4}, "image_size is 4: make it 8 to 1024 pixels"),
        ({"max_length": 513}, "max_length is 513: make it 4 to 512 tokens"),
        ({"max_missing": 1.0}, "max_missing is 1.0: make it a share"),
        ({"max_truncated": -0.1}, "max_truncated is -0.1: make it a share"),
        ({"train_size": 100}, "train_size is 100: make it 0"),
        ({"test_size": -1}, "test_size is -1: make it 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_settings_that_cannot_be_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Settings(**settings)


# ---- Suites


def test_the_suites_pass(food_dir, tmp_path):
    validate_dataset(food_dir, SUITES, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "flow-food101.html",
        *(f"food101_{part}-food101.html" for part in ("images", "tokens", "classes", "checks")),
    }


def test_images_and_texts_of_both_splits_are_reported_and_not_judged(raw, tmp_path):
    train, test = image_paths(raw)[50], image_paths(raw, "test")[7]
    test.write_bytes(train.read_bytes())
    meta = prepared(raw, tmp_path / "food101")
    assert meta["overlap"]["test images whose pixels are in train"] == 1
    assert 0.04 < meta["overlap"]["share of test texts that are in train with their label"] < 0.07
    table = tables(tmp_path / "food101")["checks"]
    assert table["value"][table["check"].index("test images whose pixels are in train")] == 1
    validate_dataset(tmp_path / "food101", SUITES, tmp_path / "html")


def check_part(part, frame, folder, meta):
    validate(
        part, pd.DataFrame(frame), SUITES / f"food101_{part}.json", folder / "page.html", parameters(meta)
    )


@pytest.mark.parametrize(
    ("part", "column", "value", "message"),
    [
        ("images", "file", "Image_path", "file: expect_column_values_to_match_regex"),
        ("images", "file", "apple_pie_445.jpg", "file: expect_column_values_to_be_unique"),
        ("images", "class", "stew", "class: expect_column_values_to_be_in_set"),
        ("images", "prefix", "waffles", "prefix, class: expect_column_pair_values_to_be_equal"),
        ("images", "in_array", False, "kept, in_array: expect_column_pair_values_to_be_equal"),
        ("images", "place", "train 7", "place: expect_column_values_to_be_unique"),
        ("images", "shorter_side", 31, "shorter_side: expect_column_values_to_be_between"),
        ("images", "excluded", "ugly", "excluded: expect_column_values_to_be_in_set"),
        ("tokens", "first", 0, "first: expect_column_values_to_be_in_set"),
        ("tokens", "last", 7, "last: expect_column_values_to_be_in_set"),
        ("tokens", "length", 1, "length: expect_column_values_to_be_between"),
        ("tokens", "greatest", 30522, "greatest: expect_column_values_to_be_between"),
        ("tokens", "least", -1, "least: expect_column_values_to_be_between"),
        ("tokens", "padded", False, "padded: expect_column_values_to_be_in_set"),
        ("classes", "class", "stew", "class: expect_column_distinct_values_to_equal_set"),
        ("classes", "test", 0, "test: expect_column_values_to_be_between"),
        ("checks", "value", 10**6, "upper, value: expect_column_pair_values_a_to_be_greater_than_b"),
    ],
)
def test_a_seeded_fault_fails_its_expectation(food_dir, tmp_path, part, column, value, message):
    table = tables(food_dir)[part]
    table[column] = [value, *list(table[column])[1:]]
    with pytest.raises(ExpectationFailed, match=re.escape(message)):
        check_part(part, table, tmp_path, read_meta(food_dir))


def test_rows_per_class_are_asked_of_a_whole_copy(food_dir, tmp_path):
    meta = read_meta(food_dir)
    meta["sizes"] = {"train": 67_988, "test": 22_716}
    whole = {"class": list(CLASSES), "train": [673] * 101, "test": [225] * 101}
    check_part("classes", whole, tmp_path, meta)
    for split, count, bounds in (("train", 480, "min_value=500"), ("test", 140, "min_value=150")):
        with pytest.raises(
            ExpectationFailed, match=rf"{split}: expect_column_values_to_be_between \({bounds}"
        ):
            check_part("classes", {**whole, split: [count] * 101}, tmp_path, meta)
    meta["settings"]["test_size"] = 14_140
    check_part("classes", {**whole, "test": [140] * 101}, tmp_path, meta)


def test_arrays_that_contradict_images_csv_are_found(food_dir, tmp_path):
    folder = Path(shutil.copytree(food_dir, tmp_path / "food101"))
    label_N = np.load(folder / "train.label.npy")
    label_N[:4] = 1
    np.save(folder / "train.label.npy", label_N)
    table = tables(folder)["checks"]
    found = dict(zip(table["check"], table["value"], strict=True))
    assert found["train: labels that images.csv contradicts"] == 4
    assert found["train: classes without a sample"] == 1
    with pytest.raises(ExpectationFailed, match="2 rows fail"):
        check_part("checks", table, tmp_path, read_meta(folder))


def test_a_flow_ends_with_what_the_arrays_hold(food_dir):
    last = {line["part"]: line["rows_out"] for line in lines_of(food_dir, "flow.csv")}
    assert last == {"train": "404", "test": "202"}
