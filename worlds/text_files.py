"""Text files that somebody else wrote: their encoding, lines, and rows of CSV.

A file means one thing or is refused. Files may be compressed with gzip (``.gz``). They are UTF-8,
with or without a byte order mark, or UTF-16 with one.
"""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

DELIMITERS = (",", ";", "\t")
"""What may separate the cells of a .csv file."""

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


class FileFault(Exception):
    """Raised for a file that cannot be read: a line with the place, what was found, expected."""


def kind_of_file(path: Path) -> str:
    """The suffix of a file in lower case, without ``.gz``: ``.csv`` for ``a.CSV.gz``."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def read_bytes(path: Path) -> bytes:
    """The content of a file, uncompressed.

    Raises:
        OSError: it cannot be read.
        FileFault: it is damaged.
    """
    with _opened(path) as file:
        try:
            return file.read()
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise FileFault(f"{path}: not gzip: {error}") from None


def _opened(path: Path) -> BinaryIO:
    if path.suffix.lower() == ".gz":
        return cast(BinaryIO, gzip.open(path))
    return path.open("rb")


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """The numbered lines of a text file, from 1, with their ends; streamed.

    Raises:
        OSError: the file cannot be read.
        FileFault: it is not text, or damaged.
    """
    number = 0
    with _opened(path) as file:
        try:
            for text in _decoded(path, file):
                for line in _LINE.findall(text):
                    number += 1
                    yield number, line
        except UnicodeDecodeError as error:
            found = f"byte 0x{error.object[error.start]:02x}"
            raise FileFault(
                f"{path}:{number + 1}: found text that is not UTF-8 ({found}); expected UTF-8"
            ) from None
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise FileFault(f"{path}: not gzip: {error}") from None


def _decoded(path: Path, file: BinaryIO) -> Iterator[str]:
    """The text of a file; lines of UTF-8 are decoded one by one, so that errors have a line."""
    beginning = file.read(4)
    file.seek(0)
    if beginning.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        raise FileFault(f"{path}: found UTF-32; expected UTF-8")
    if beginning.startswith((b"\xff\xfe", b"\xfe\xff")):
        yield file.read().decode("utf-16")
        return
    for number, line in enumerate(file):
        yield line.decode("utf-8" if number else "utf-8-sig")


class CsvRow(NamedTuple):
    """A row of a CSV file.

    Attributes:
        line: the number of its first line.
        cells: its cells, stripped, without empty ones at the end.
        raw: the row as it is written, stripped.
        quoted: whether a cell is in quotes.
        spaced: for each cell whether a space follows the delimiter before it.
    """

    line: int
    cells: list[str]
    raw: str
    quoted: bool
    spaced: list[bool]


def csv_rows(path: Path, delimiter: str, skip: Callable[[str], bool]) -> Iterator[CsvRow]:
    """The rows of a CSV file, without blank ones; streamed.

    Args:
        path: the file.
        delimiter: what separates cells.
        skip: whether a line between rows is none of them, such as a comment.

    Raises:
        OSError: the file cannot be read.
        FileFault: it is not CSV: a quotation mark is missing, or stands within a cell in quotes.
    """
    consumed: list[str] = []
    last = 0

    def recorded() -> Iterator[str]:
        nonlocal last
        for number, line in lines(path):
            last = number
            if consumed or not skip(line):
                consumed.append(line)
                yield line

    spaced = _separators_with_spaces(path, delimiter, skip)
    reader = csv.reader(recorded(), delimiter=delimiter, strict=True, skipinitialspace=spaced)
    before = re.compile(rf'(?:^|{re.escape(delimiter)})\s*"')
    while True:
        consumed.clear()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            place = f"{path}:{last - max(len(consumed), 1) + 1}"
            raise FileFault(
                f"{place}: not CSV: {error}; expected a cell with quotation marks to be in "
                'quotation marks, and those within it doubled ("")'
            ) from None
        stripped = [cell.strip() for cell in cells]
        while stripped and not stripped[-1]:
            stripped.pop()
        if stripped:
            raw = "".join(consumed).strip()
            spaces = [not spaced and cell[:1] == " " for cell in cells]
            first = last - len(consumed) + 1
            yield CsvRow(first, stripped, raw, before.search(raw) is not None, spaces)


def _separators_with_spaces(path: Path, delimiter: str, skip: Callable[[str], bool]) -> bool:
    """Whether a space follows every delimiter of the first row: then they are no part of cells."""
    first = first_line(path, skip)
    return bool(first) and first.count(delimiter) == first.count(f"{delimiter} ") > 0


def first_line(path: Path, skip: Callable[[str], bool]) -> str:
    """The first line of a file that is neither blank nor to be skipped, stripped of its end."""
    found = (line for _, line in lines(path) if line.strip() and not skip(line))
    return next(found, "").rstrip("\r\n")


def cells_of(line: str, delimiter: str) -> list[str]:
    """The cells of one line, stripped; of an invalid one as well as they can be told."""
    try:
        row = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error:
        row = line.split(delimiter)
    return [cell.strip() for cell in row]


def listed(names: Iterable[str], most: int = 6) -> str:
    """Some names for a message: the first ones, and how many more there are."""
    all_names = [name if len(name) <= 40 else f"{name[:39]}\u2026" for name in names]
    more = len(all_names) - most
    return ", ".join(all_names[:most]) + (f" and {more} more" if more > 0 else "")
