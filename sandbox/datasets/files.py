"""Writers of files of rows: JSON lines, one JSON array, or Parquet, from lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Write = Callable[[str], Any]
"""Writes a row."""

_ROWS_IN_A_GROUP = 1000


@contextmanager
def lines(path: Path) -> Iterator[Write]:
    """Open a new file of JSON lines. Raises OSError."""
    with path.open("x", encoding="utf-8", newline="\n") as file:
        yield file.write


@contextmanager
def array(path: Path) -> Iterator[Write]:
    """Open a new file with one JSON array, an element a line. Raises OSError."""
    with path.open("x", encoding="utf-8", newline="\n") as file:
        between = "[\n"

        def write(line: str) -> None:
            nonlocal between
            file.write(between + line.rstrip("\n"))
            between = ",\n"

        yield write
        file.write("[\n]\n" if between == "[\n" else "\n]\n")


@contextmanager
def parquet(path: Path, schema: pa.Schema) -> Iterator[Write]:
    """Open a new Parquet file. Raises OSError."""
    rows: list[Any] = []
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            rows.clear()

        def write(line: str) -> None:
            rows.append(json.loads(line))
            if len(rows) == _ROWS_IN_A_GROUP:
                flush()

        yield write
        flush()
