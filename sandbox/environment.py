"""What a run was played with: versions of programs, the commit of this one, machine and GPUs."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from agents.plugins import exception_line
from sandbox import __version__

_NAME = "sandbox-society"
_PACKAGES = ("numpy", "sqlalchemy", "pydantic", "wordllama", "tokenizers")
_SECONDS = 10.0  # that a program which tells its version may take
_ROOT = Path(__file__).resolve().parent.parent


def child_variables() -> dict[str, str]:
    """The environment variables of a child process, which finds this program's code by them."""
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


async def environment_of(backends: Mapping[str, Any]) -> dict[str, Any]:
    """Describe what a session is played with, as JSON values.

    Args:
        backends: by role, started; those without a method `environment` tell nothing.

    Returns:
        `program_environment` under "program", and what each distinct backend tells of itself
        under the names of its roles.
    """
    found = {"program": await asyncio.to_thread(program_environment)}
    roles: dict[int, list[str]] = {}
    for role, backend in backends.items():
        roles.setdefault(id(backend), []).append(role)
    for names in roles.values():
        told = await told_by(backends[names[0]])
        if told:
            found[", ".join(names)] = told
    return found


async def told_by(backend: Any) -> dict[str, Any]:
    """What a backend that has started tells of itself; empty if it has no method `environment`."""
    if not hasattr(backend, "environment"):
        return {}
    try:
        told = await backend.environment()
        return dict(json.loads(json.dumps(told)))  # what a plugin tells may be no JSON
    except Exception as error:  # the code of a backend can raise any exception
        return {"error": exception_line(error)}


def program_environment() -> dict[str, Any]:
    """Describe this process: the program, Python, packages that take part in results, machine."""
    return {
        _NAME: __version__,
        "commit": commit(),
        "python": platform.python_version(),
        **versions(_PACKAGES),
        "system": platform.platform(),
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
    }


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those packages that are installed, by name."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The Git commit of this program, "-modified" after it if files differ; None if unknown.

    That of the checkout, or the one that a package was installed from (PEP 610).
    """
    if (_ROOT / ".git").exists():
        return _output("git", "-C", str(_ROOT), "describe", "--always", "--abbrev=40",
                       "--exclude=*", "--dirty=-modified")  # fmt: skip
    try:
        origin = importlib.metadata.distribution(_NAME).read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return None
    found = json.loads(origin or "{}").get("vcs_info", {}).get("commit_id")
    return None if found is None else str(found)


def gpus() -> dict[str, Any]:
    """The names of NVIDIA's GPUs and their driver; empty if there are none.

    With those that the variable CUDA_VISIBLE_DEVICES leaves to this process.
    """
    query = "--query-gpu=name,memory.total,driver_version"
    lines = (_output("nvidia-smi", query, "--format=csv,noheader") or "").splitlines()
    cards = [[part.strip() for part in line.split(",")] for line in lines]
    if not cards or any(len(card) != 3 for card in cards):
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {
        "gpus": [f"{name} ({memory})" for name, memory, _ in cards],
        "driver": cards[0][2],
        **({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}),
    }


def _output(program: str, *arguments: str) -> str | None:
    """What a program prints; None if it is not installed, or fails."""
    path = shutil.which(program)
    if path is None:
        return None
    try:
        done = subprocess.run(
            [path, *arguments], capture_output=True, text=True, timeout=_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
