"""Python modules from outside the project: a file, or what an installed package registers.

Importing this module reads nothing; foreign code runs only in `load_file` and `load_entry_point`.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from hashlib import blake2b
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

_ALLOWED = "allowed_files"


class PluginError(Exception):
    """A module that cannot be loaded; the text is one line with the reason."""


def is_file_name(name: object) -> bool:
    """Tell whether the name of a plugin is the path of a Python file."""
    return isinstance(name, str) and name.endswith(".py")


def load_file(path: Path) -> ModuleType:
    """Import a Python file as a module of its own.

    The same content at the same path is imported once; an edited file is imported anew.

    Args:
        path: of the file.

    Raises:
        PluginError: it cannot be read or imported.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PluginError(f"{path} cannot be read: {error.strerror}") from None
    digest = blake2b(f"{path.resolve()}\0".encode() + content, digest_size=8).hexdigest()
    name = f"sandbox_plugin_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # before it runs: pydantic looks up annotations there
    try:
        exec(compile(content, str(path), "exec"), module.__dict__)
    except Exception as error:  # whatever the file raises
        del sys.modules[name]
        raise PluginError(f"{path} cannot be imported: {_reason(error)}") from None
    return module


def entry_point_names(group: str) -> list[str]:
    """List the names that installed packages register in a group of entry points."""
    return sorted({point.name for point in metadata.entry_points(group=group)})


def load_entry_point(group: str, name: str) -> Any:
    """Import what an installed package registers under a name.

    Raises:
        PluginError: there is no such name, or it cannot be imported.
    """
    for point in metadata.entry_points(group=group, name=name):
        try:
            return point.load()
        except Exception as error:  # whatever the package raises
            raise PluginError(f"{point.value} cannot be imported: {_reason(error)}") from None
    raise PluginError(f"no installed package registers {name!r} in {group}")


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


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
