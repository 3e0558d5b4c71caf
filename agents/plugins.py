"""Loading worlds and backends from outside: a Python file, or an entry point of a package.

Nothing is loaded at import, and nothing because a database names it: callers decide.
"""

from __future__ import annotations

import importlib.util
import sys
from hashlib import blake2b
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any


class PluginError(Exception):
    """A plugin cannot be loaded; the message says which one and why."""


def is_file(name: str) -> bool:
    """Whether a name is the path of a Python file rather than the name of a plugin."""
    return name.endswith(".py")


def load_file(path: str) -> ModuleType:
    """Run a Python file as a module, once a process.

    Raises:
        PluginError: there is no such file, or it fails.
    """
    place = Path(path).resolve()
    name = f"sandbox_plugin_{blake2b(str(place).encode(), digest_size=8).hexdigest()}"
    if name in sys.modules:
        return sys.modules[name]
    if not place.is_file():
        raise PluginError(f"{path}: no such file; expected a Python file")
    spec = importlib.util.spec_from_file_location(name, place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pydantic look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a file can raise what it likes
        del sys.modules[name]
        raise PluginError(f"{path}: {_reason(error)}") from error
    return module


def entry_points(group: str) -> list[str]:
    """The names of the plugins that installed packages offer in a group."""
    return sorted({point.name for point in metadata.entry_points(group=group)})


def load_entry_point(group: str, name: str) -> Any:
    """What an installed package offers under a name.

    Raises:
        PluginError: there is no such entry point, or it cannot be imported.
    """
    found = next(iter(metadata.entry_points(group=group, name=name)), None)
    if found is None:
        raise PluginError(f"{name}: no such plugin in the group {group}")
    try:
        return found.load()
    except Exception as error:
        raise PluginError(f"{name} ({found.value}): {_reason(error)}") from error


def _reason(error: Exception) -> str:
    line = " ".join(str(error).split())
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: {error.msg}"
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
