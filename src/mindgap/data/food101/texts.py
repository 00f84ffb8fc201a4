"""Titles and recipes of crawled pages -> the token ids that the text encoder reads."""

import html
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Encoding, Tokenizer

from mindgap.base.minilm import minilm_folder
from mindgap.data.files import read_whole, readable
from mindgap.data.food101.index import IndexRow
from mindgap.data.food101.settings import Settings
from mindgap.data.prepared import new_array

TOKENIZER = "tokenizer.json"
BATCH = 1024  # texts at a time
CHARACTERS = 8  # per token; the real titles have 4.1
WORD = 100  # characters and so tokens of a word at most; a longer one is one [UNK]
NO_TOKENS = 2  # a text of nothing is [CLS] [SEP]
LARGEST = 2**24  # bytes of a page; the greatest that browsers save are a few million

BAD_BYTES, LIST_REPR = "bytes that are not UTF-8", "list brackets"
ESCAPES, ENTITIES = "Python escapes", "HTML entities"
EMPTY, CUT = "empty", "cut at max_length tokens"
NO_INGREDIENTS = "no word 'ingredients'"

INGREDIENTS = re.compile(r"\bingredients\b", re.IGNORECASE)
BYTES = re.compile(r"(?:\\x[0-9a-f]{2})+")  # \xe2\x80\x93: UTF-8 as Python 2 prints it
BLANKS = re.compile(r"\\[tnr]")


def clean(text: str) -> tuple[str, tuple[str, ...]]:
    """What the page said, and what was repaired: spaces are single.

    Titles keep the repr of the list they came in, `[["..."]]`, also where they were cut at a comma before its
    end, and of the bytes they were; HTML entities stand in one of seven.
    """
    text, repaired = text.strip(), []
    for step, reason in ((_without_list, LIST_REPR), (_unescaped, ESCAPES), (html.unescape, ENTITIES)):
        before, text = text, step(text)
        if text != before:
            repaired.append(reason)
    return " ".join(text.split()), tuple(repaired)


def _without_list(text: str) -> str:
    if text == "[]":
        return ""
    if not text.startswith('[["'):
        return text
    return text[3:].removesuffix("]").removesuffix("]").removesuffix('"')


def _unescaped(text: str) -> str:
    """Bytes of a character that was cut are dropped."""
    text = BYTES.sub(lambda m: bytes.fromhex(m[0].replace(r"\x", "")).decode("utf-8", "ignore"), text)
    return BLANKS.sub(" ", text).replace(r"\'", "'")


def recipe_path(raw: Path, row: IndexRow) -> Path:
    return raw / "texts_txt" / row.label / f"{Path(row.file).stem}.txt"


def read_recipe(path: Path, part: str) -> str | None:
    """The text of a page or its part, None where it lacks that part; U+FFFD for bytes that are not UTF-8.

    OSError where the file cannot be read.
    BMMAL keeps what follows the word "ingredients" where it first stands and drops pages without it: its
    dataset/food101/preprocess.py walks to the last match, but then asks for the first index of that word.
    """
    text = read_whole(path, LARGEST).decode("utf-8-sig", "replace")
    if part == "all":
        return text
    found = INGREDIENTS.search(text)
    return text[found.end() :] if found else None


def text_reader(raw: Path, settings: Settings) -> Callable[[IndexRow], str]:
    """How the raw text of a row is had; a recipe is read when it is asked for."""
    if settings.text_source == "titles":
        return lambda row: row.title or ""

    def read(row: IndexRow) -> str:
        path = recipe_path(raw, row)
        with readable(path, "put it back"):
            return read_recipe(path, settings.recipe_part) or ""

    return read


def load_tokenizer(max_length: int) -> Tokenizer:
    """That of all-MiniLM-L6-v2; the file's own settings would cut at 128 and pad.

    A page that says [PAD] or [SEP] has these letters, as in BERT's own word pieces, and no special token.
    """
    tokenizer = Tokenizer.from_file(str(minilm_folder([TOKENIZER]) / TOKENIZER))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    tokenizer.encode_special_tokens = True  # as what they are: text
    return tokenizer


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str], max_length: int) -> list[Encoding]:
    """The encodings of the texts, of which no more is read than fills max_length.

    Words become tokens one by one, so what fills it does not depend on what follows (a recipe's page of
    6,000 characters takes a fifth of the time). A beginning that does not fill it is read again, eight times
    as long.
    """
    far = CHARACTERS * max_length
    encodings = tokenizer.encode_batch([_head(text, far) for text in texts])
    for i, text in enumerate(texts):
        while far < len(text) and not _is_full(encodings[i], text[:far], max_length):
            far *= CHARACTERS
            encodings[i] = tokenizer.encode(_head(text, far))
        far = CHARACTERS * max_length
    return encodings


def _head(text: str, far: int) -> str:
    """A beginning that ends with a word where spaces tell."""
    return text if len(text) <= far else text[:far].rpartition(" ")[0] or text[:far]


def _is_full(encoding: Encoding, beginning: str, max_length: int) -> bool:
    """Whether more text would change nothing: a word that was cut lies wholly beyond max_length."""
    beyond = sum(len(part.ids) - NO_TOKENS for part in encoding.overflowing)
    return beyond > (0 if " " in beginning else WORD)


def write_tokens(
    path: Path,
    rows: Sequence[IndexRow],
    read: Callable[[IndexRow], str],
    max_length: int,
    on_batch: Callable[[int], None] = lambda texts: None,
) -> dict[str, int]:
    """Write the ids (int32, N x max_length, padded with 0) and count what was repaired by its reason."""
    shape, tokenizer = (len(rows), max_length), load_tokenizer(max_length)
    tokens_NL = new_array(path, np.int32, shape)
    repaired = Counter(dict.fromkeys((BAD_BYTES, LIST_REPR, ESCAPES, ENTITIES, EMPTY, CUT), 0))
    for start in range(0, len(rows), BATCH):
        texts = []
        for row in rows[start : start + BATCH]:
            text, reasons = clean(read(row))
            repaired.update(reasons)
            repaired[BAD_BYTES] += "\ufffd" in text
            texts.append(text)
        for i, encoding in enumerate(encode_texts(tokenizer, texts, max_length), start):
            tokens_NL[i, : len(encoding.ids)] = encoding.ids
            repaired[EMPTY] += len(encoding.ids) == NO_TOKENS
            repaired[CUT] += bool(encoding.overflowing)
        on_batch(len(texts))
    tokens_NL.flush()
    return dict(repaired)
