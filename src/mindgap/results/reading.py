"""Reading the files that a report is made of: what is wrong with one is an error of one line, with a mend."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from mindgap.base.errors import MindGapError


class ReportError(MindGapError):
    """What a report is made of is not complete or not consistent; the message names file, run and mend."""


class Fault(Exception):  # noqa: N818 - it never leaves `checking`
    """What is wrong with a file, without its name and the mend."""


@contextmanager
def checking(path: Path, mend: str) -> Iterator[None]:
    """A `Fault` within is a ReportError: the file before its text, the mend behind it."""
    try:
        yield
    except Fault as fault:
        raise ReportError(f"{path}{fault}; {mend}") from fault


def read_text(path: Path, mend: str) -> str:
    """A file's text, UTF-8 with or without a byte order mark."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise ReportError(f"{path} is not there; {mend}") from error
    except OSError as error:
        raise ReportError(f"{path} cannot be read ({error.strerror}); {mend}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ReportError(f"{path} cannot be read (line {line} is no UTF-8 text); {mend}") from error


def read_table(path: Path, columns: Sequence[str], mend: str) -> pd.DataFrame:
    """A CSV file as text, indexed by its lines: it has these columns, and as many fields in each line."""
    text = read_text(path, mend)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows, lines = [], []
    with checking(path, mend):
        try:
            header = next(reader, [])
            for row in reader:
                rows.append(row)
                lines.append(reader.line_num)
        except csv.Error as error:
            raise Fault(f" cannot be read (line {reader.line_num}: {error})") from error
        if not header:
            raise Fault(" is empty")
        if lacking := [name for name in columns if name not in header]:
            raise Fault(f" lacks the columns {', '.join(lacking)}")
        if len(set(header)) < len(header):
            raise Fault(f" has a column twice ({', '.join(header)})")
        for line, row in zip(lines, rows, strict=True):
            if len(row) != len(header):
                raise Fault(f", line {line}: {len(row)} fields, the header has {len(header)}")
        if not text.endswith(("\n", "\r")):
            raise Fault(": its last line has no end, as if the file was cut")
    return pd.DataFrame(rows, columns=header, index=lines, dtype=object)


def read_json(path: Path, mend: str) -> Mapping[str, Any]:
    """A JSON file that holds an object; a number that is none (NaN, Infinity) is no JSON."""

    def refuse(text: str) -> None:
        raise ValueError(f"{text} is no number")

    text = read_text(path, mend)
    try:
        value = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{path} is half written or not JSON ({error}); {mend}") from error
    if not isinstance(value, dict):
        raise ReportError(f"{path} holds no object but {str(value)[:20]!r}; {mend}")
    return value


def rows_of(frame: pd.DataFrame) -> Iterator[Any]:
    """The rows as tuples with the columns' names."""
    return iter(frame.itertuples(index=False))


def records_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as dictionaries by column."""
    made: list[Any] = frame.to_dict("records")
    return made


def parts_of(
    frame: pd.DataFrame, by: str | list[str], sort: bool = False
) -> Iterator[tuple[Any, pd.DataFrame]]:
    """What stands in these columns, and the rows that have it there, in the order of the rows or sorted."""
    return iter(frame.groupby(by, sort=sort))


def whole_number(text: str) -> int | None:
    """The number of a text of digits, as counts are written; None for any other text."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None
