"""What is installed, what is missing, what to type."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import NamedTuple

from sandbox import __version__


class Finding(NamedTuple):
    """One thing that was looked at. `needed` tells whether the default install needs it."""

    what: str
    found: str | None
    needed: bool
    advice: str


_EXTRAS = {
    "vllm": "to speak with a model in this process: pip install vllm, on a machine with a GPU",
    "psycopg": "to keep runs in PostgreSQL: pip install -e '.[postgresql]'",
    "pytest": "to run the tests: pip install -e '.[test]'",
}


def examine(folder: Path) -> list[Finding]:
    """Look at the interpreter, the packages, SQLite, and the folder that runs are kept in."""
    return [
        Finding("sandbox-society", __version__, True, ""),
        Finding("python", platform.python_version(), True, ""),
        *(_package(name, True, "pip install -e .") for name in _requirements()),
        _sqlite(),
        _folder(folder),
        *(_package(name, False, advice) for name, advice in _EXTRAS.items()),
    ]


def _requirements() -> list[str]:
    """The packages of the default install, as the distribution itself lists them."""
    try:
        listed = importlib.metadata.requires("sandbox-society") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [line.split(">=")[0].strip() for line in listed if "extra ==" not in line]


def _package(name: str, needed: bool, advice: str) -> Finding:
    try:
        return Finding(name, importlib.metadata.version(name), needed, advice)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, None, needed, advice)


def _sqlite() -> Finding:
    with sqlite3.connect(":memory:") as connection:
        options = {row[0] for row in connection.execute("PRAGMA compile_options")}
    connection.close()
    full_text = "with" if "ENABLE_FTS5" in options else "without"
    found = f"{sqlite3.sqlite_version}, {full_text} full-text search"
    return Finding("sqlite", found, True, f"comes with {sys.executable}")


def _folder(folder: Path) -> Finding:
    place = folder if folder.exists() else folder.absolute().parent
    try:
        free = shutil.disk_usage(place).free
    except OSError as error:
        return Finding(f"{folder}/", None, True, f"expected a folder to write to: {error.strerror}")
    return Finding(f"{folder}/", f"{free / 2**30:,.1f} GiB free", True, "")
