"""Writers of data files: JSON Lines, a JSON array, or Parquet. All take rows as lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Write = Callable[[str], Any]
"""Writes one row."""

_ROW_GROUP_SIZE = 1000


@contextmanager
def lines(path: Path) -> Iterator[Write]:
    """Open a new JSON Lines file.

    Raises:
        OSError: it cannot be written.
    """
    with path.open("x", encoding="utf-8", newline="\n") as file:
        yield file.write


@contextmanager
def array(path: Path) -> Iterator[Write]:
    """Open a new file with one JSON array, with one element per line.

    Raises:
        OSError: it cannot be written.
    """
    with path.open("x", encoding="utf-8", newline="\n") as file:
        separator = "[\n"

        def write(line: str) -> None:
            nonlocal separator
            file.write(separator + line.rstrip("\n"))
            separator = ",\n"

        yield write
        file.write("[\n]\n" if separator == "[\n" else "\n]\n")


@contextmanager
def parquet(path: Path, schema: pa.Schema) -> Iterator[Write]:
    """Open a new Parquet file.

    Raises:
        OSError: it cannot be written.
    """
    rows: list[Any] = []
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            rows.clear()

        def write(line: str) -> None:
            rows.append(json.loads(line))
            if len(rows) == _ROW_GROUP_SIZE:
                flush()

        yield write
        flush()
