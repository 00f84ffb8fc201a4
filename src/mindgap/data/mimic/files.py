"""Files of the releases as a disk has them: which cannot be read, and what is wrong with a table.

What a message says may end up in anyone's log. So no cell of a patient and no path with an id is in one: a
row is named by file and line, a cell by its form (`form_of`).
"""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from mindgap.data import files
from mindgap.data.errors import DataError
from mindgap.data.files import OF_MACHINE, open_regular, unreadable

PARSE_ERRORS = (EOFError, OSError, zlib.error, UnicodeDecodeError, csv.Error, pl.exceptions.PolarsError)
# What polars takes for one.
NUMBER = re.compile(r" *[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?| *[+-]?(nan|inf|infinity)", re.I)
FORM_LENGTH = 24
GZIP = b"\x1f\x8b"
ORIGINAL = "put the release's own file there"


def form_of(cell: str | None) -> str:
    """What a cell looks like, without what it says: each digit is a #, each letter an a."""
    if not cell:
        return "empty"
    form = re.sub(r"[^\W\d_]", "a", re.sub(r"\d", "#", cell[:FORM_LENGTH]))
    return repr(form + "..." * (len(cell) > FORM_LENGTH))


def open_table(path: Path) -> BinaryIO:
    """The unpacked bytes of a table."""
    open_regular(path).close()
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def is_file_there(path: Path) -> bool:
    """Whether something lies there; DataError if it is no file that can be read."""
    try:
        if not files.is_there(path):
            return False
        with open_regular(path) as file:
            file.read(1)
    except OSError as error:
        raise unreadable(Path(error.filename or path), error) from None
    return True


@contextmanager
def damage_named(path: Path, kinds: Mapping[str, Any] | None = None) -> Iterator[None]:
    """An error of reading a table becomes a DataError that says what is wrong with the file, and where.

    polars, too, verifies length and checksum of a .gz (2.1); its own messages quote cells.
    """
    try:
        yield
    except PARSE_ERRORS as error:
        if isinstance(error, OSError) and error.errno in OF_MACHINE:
            raise
        try:
            found = table_fault(path, kinds or {})
        except OSError as trouble:
            raise unreadable(path, trouble) from None
        if not found:
            said = f" ({error})" if isinstance(error, OSError) else ""  # of the system: no cell is in it
            found = f"cannot be read as a table: {type(error).__name__}{said}: {ORIGINAL}"
        raise DataError(f"{path} {found}") from None


def table_fault(path: Path, kinds: Mapping[str, Any]) -> str:
    """What is wrong with a table, found line by line, and its mend; empty where nothing is."""
    if found := fault_of_form(path):
        return found
    line = 0
    try:
        for line, text in _texts(path):
            if text is None:
                return (
                    f"has a byte that is no UTF-8 in line {line}: {ORIGINAL}, or change its encoding with "
                    f"`iconv -f latin1 -t utf-8` if that is what it has"
                )
        return fault_of_rows(path, kinds)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        where = f"the .gz breaks off or is altered after line {line:,}; {type(error).__name__}"
        return f"is truncated or damaged ({where}): download it again"


def fault_of_form(path: Path) -> str:
    """Whether a file is no table, told by its first bytes, and the mend; empty where it may be one."""
    with open_regular(path) as file:
        head = file.read(512)
    if not head:
        return "is empty: download it again"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "is a web page, as a download without a login gives: download it again, logged in"
    if head.startswith(GZIP) and path.suffix != ".gz":
        return f"is packed, whatever its name says: name it {path.name}.gz"
    if path.suffix == ".gz" and not head.startswith(GZIP):
        return f"is not packed, whatever its name says: name it {path.stem}"
    return ""


def _texts(path: Path) -> Iterator[tuple[int, str | None]]:
    """Lines with their numbers, None for one that is no UTF-8."""
    with open_table(path) as file:
        for number, line in enumerate(file, 1):
            try:
                yield number, line.decode()
            except UnicodeDecodeError:
                yield number, None


def fault_of_rows(path: Path, kinds: Mapping[str, Any]) -> str:
    """The first row of another length than the header or without a number where one belongs, and the mend."""
    with io.TextIOWrapper(open_table(path), encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        numbers = {name: kind for name, kind in kinds.items() if name in header and kind in NUMBERS}
        places = [(header.index(name), name, *NUMBERS[kind]) for name, kind in numbers.items()]
        try:
            for row in rows:
                if row and len(row) != len(header):
                    found = f"{len(row)} fields where the header has {len(header)}"
                    return f"has {found} in line {rows.line_num}: it was cut or changed: {ORIGINAL}"
                for place, name, parse, wanted in places:
                    if row[place] and not parse(row[place]):
                        return _not_a_number(rows.line_num, name, row[place], wanted)
        except csv.Error:
            return f"has a field without an end, or bytes of no text, in line {rows.line_num}: {ORIGINAL}"
    return ""


def _not_a_number(line: int, name: str, cell: str, wanted: str) -> str:
    found = f"has {form_of(cell)} for {name} in line {line}, where {wanted} belongs"
    if re.fullmatch(r"\d+\.0*", cell):
        return f"{found}: a program wrote it anew and made whole numbers fractions: {ORIGINAL}"
    if name == "valuenum":
        return f"{found}: text belongs in the column value, so leave valuenum empty there, or {ORIGINAL}"
    return f"{found}: mend the row, or {ORIGINAL}"


def _is_whole(cell: str, bits: int) -> bool:
    return re.fullmatch(r"[+-]?[0-9]{1,20}", cell) is not None and abs(int(cell)) < 2 ** (bits - 1)


def _is_number(cell: str) -> bool:
    return NUMBER.fullmatch(cell) is not None


NUMBERS = {
    pl.Int32: (partial(_is_whole, bits=32), "a whole number below 2^31"),
    pl.Int64: (partial(_is_whole, bits=64), "a whole number below 2^63"),
    pl.Float64: (_is_number, "a number or nothing"),
}
