"""Load worlds and backends from Python files or from entry points of installed packages.

Nothing is loaded at import. Callers decide what to load: never a file that only a database names.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Collection, Mapping
from hashlib import blake2b
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

_ALLOWED = "allowed_files"


class PluginError(Exception):
    """Raised when a plugin cannot be loaded; the message names the plugin and the reason."""


def is_file(name: str) -> bool:
    """Whether a name is the path of a Python file."""
    return name.endswith(".py")


def load_file(path: str) -> ModuleType:
    """Load a Python file as a module, once per process and again after it was edited.

    Raises:
        PluginError: there is no such file, or it raises.
    """
    place = Path(path).resolve()
    if not place.is_file():
        raise PluginError(f"{path}: no such file; expected a Python file")
    content = f"{place}\0".encode() + place.read_bytes()
    name = f"sandbox_plugin_{blake2b(content, digest_size=8).hexdigest()}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pydantic look up the module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the file can raise any exception
        del sys.modules[name]
        raise PluginError(f"{path}: {exception_line(error)}") from error
    return module


def entry_points(group: str) -> list[str]:
    """The names of the entry points that installed packages define in a group."""
    return sorted({point.name for point in metadata.entry_points(group=group)})


def load_entry_point(group: str, name: str) -> Any:
    """Load an entry point of an installed package by name.

    Raises:
        PluginError: there is no such entry point, or it cannot be imported.
    """
    found = next(iter(metadata.entry_points(group=group, name=name)), None)
    if found is None:
        raise PluginError(f"{name}: no such plugin in the group {group}")
    try:
        return found.load()
    except Exception as error:
        raise PluginError(f"{name} ({found.value}): {exception_line(error)}") from error


def only_files(allowed: Collection[Path]) -> dict[str, Any]:
    """Make a pydantic validation context in which only these files may be loaded."""
    return {_ALLOWED: frozenset(path.expanduser().resolve() for path in allowed)}


def may_load(file: str, context: Mapping[str, Any] | None) -> bool:
    """Tell whether a file may be loaded during a validation; without a context every file may.

    Args:
        file: an absolute path.
        context: what `only_files` returned.
    """
    return context is None or Path(file) in context[_ALLOWED]


def unnamed_file(run: str, kind: str, file: str) -> str:
    """Describe a file that a stored run needs and its caller did not name, in one line.

    Args:
        run: the name of the run.
        kind: what the file is, which is also the option that names it: backend or world.
        file: its path.
    """
    return (
        f"run {run} was played with the {kind} file {file}; "
        f"expected it named on the command line: --{kind} {file}"
    )


def exception_line(error: BaseException) -> str:
    """An exception in one line: its type and its message; of a syntax error the line."""
    line = " ".join(str(error).split())
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: {error.msg}"
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
