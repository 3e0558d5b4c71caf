"""Backends answer calls. A config names one for each role by its `backend` key.

A backend is a module that defines two classes:

- `Config`, a subclass of `sandbox.backends.base.ModelSettings`: the keys that a config may set;
- `Backend`, constructed from a `Config`, with the methods of `sandbox.backends.base.Backend`.

Such a module is one of `BUILT_IN`; or an installed package registers it under a name in the entry
point group `sandbox_society.backends`; or it is a Python file, which a config names by its path.
Importing the module must not import a model library: that belongs in `Backend.start`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, ConfigDict, SerializeAsAny, ValidationError, ValidationInfo
from pydantic_core import PydanticCustomError

from agents.plugins import (
    PluginError,
    entry_points,
    exception_line,
    is_file,
    load_entry_point,
    load_file,
    may_load,
)
from sandbox.backends import base
from sandbox.backends.base import ModelSettings
from storage.errors import InputError

BUILT_IN = {
    "scripted": "sandbox.backends.scripted",
    "vllm": "sandbox.backends.vllm",
    "openai": "sandbox.backends.openai",
    "llama_cpp": "sandbox.backends.llama_cpp",
}
"""The modules of the built-in backends, by name."""

GROUP = "sandbox_society.backends"
"""The entry point group in which installed packages register backends."""


class Kind(NamedTuple):
    """A kind of backend: the class of its settings, and its constructor."""

    settings: type[ModelSettings]
    make: Callable[[Any], base.Backend]


class UnloadedSettings(ModelSettings):
    """Settings of a backend file that a stored run names and that has not been loaded.

    They can be shown; no backend can be made from them.
    """

    model_config = ConfigDict(extra="allow")


def names() -> list[str]:
    """List the names of all built-in and registered backends."""
    return list(dict.fromkeys([*BUILT_IN, *entry_points(GROUP)]))


def kind_of(name: str) -> Kind:
    """Import a backend's module.

    Args:
        name: one of `names`, or the path of a Python file.

    Raises:
        PluginError: the module cannot be loaded, or lacks a class.
    """
    if is_file(name):
        module: Any = load_file(name)
    elif name in BUILT_IN:
        module = importlib.import_module(BUILT_IN[name])
    else:
        module = load_entry_point(GROUP, name)
    settings, make = getattr(module, "Config", None), getattr(module, "Backend", None)
    if not (isinstance(settings, type) and issubclass(settings, ModelSettings)):
        raise PluginError(f"{name} defines no class Config that is a subclass of ModelSettings")
    if not callable(make) or make is base.Backend:
        raise PluginError(f"{name} defines no class Backend")
    methods = [method for method in ("start", "answer", "close") if not hasattr(make, method)]
    if methods:
        raise PluginError(f"{name}: the class Backend has no method {methods[0]}")
    return Kind(settings, make)


def _resolve(value: Any, info: ValidationInfo) -> Any:
    """Validate the settings of a model by the `Config` class of their backend."""
    if not isinstance(value, Mapping) or "backend" not in value:
        return value  # validated already, or reported by ModelSettings
    name = value["backend"]
    if _is_file(name) and not may_load(name, info.context):
        return UnloadedSettings.model_validate(value)
    if not (_is_file(name) or _is_registered(name)):
        expected = f"one of {', '.join(names())}, or the path of a file such as ./my_backend.py"
        raise _error(name, expected)
    try:
        kind = kind_of(name)
    except PluginError as error:
        raise _error(name, f"a backend that can be loaded; {error}") from None
    return kind.settings.model_validate(value)


def _is_file(name: Any) -> bool:
    return isinstance(name, str) and is_file(name)


def _is_registered(name: Any) -> bool:
    """Whether there is a backend of this name; packages are searched only if necessary."""
    return isinstance(name, str) and (name in BUILT_IN or name in entry_points(GROUP))


def _error(name: Any, expected: str) -> ValidationError:
    """Make an error at the key `backend`."""
    reason = PydanticCustomError("backend", "{expected}", {"expected": expected})
    return ValidationError.from_exception_data(
        "ModelSettings", [{"type": reason, "loc": ("backend",), "input": name}]
    )


ModelConfig = Annotated[SerializeAsAny[ModelSettings], BeforeValidator(_resolve)]
"""The settings of a model; the key `backend` names the class that validates them."""


def check_model(settings: ModelSettings) -> None:
    """Check what can be checked before a backend starts, and whether its replicas have room.

    Raises:
        ValueError: a setting is invalid; the message begins with its key.
    """
    if settings.on != "ray":
        settings.check()
        return
    from sandbox.backends.replicas.actors import check_room
    from sandbox.backends.replicas.cluster import be_quiet

    be_quiet()  # vLLM imports Ray
    settings.check()
    check_room(settings)


def backend_of(settings: ModelSettings) -> base.Backend:
    """Make the backend for a model's settings, or its replicas; it is not started yet.

    Raises:
        InputError: the module of the backend can no longer be loaded.
    """
    backend = _local_backend(settings)
    if settings.on == "here":
        return backend
    from sandbox.backends.replicas.pool import pool_of

    return pool_of(settings, backend)


def _local_backend(settings: ModelSettings) -> base.Backend:
    """Make the backend that answers in this process."""
    if isinstance(settings, UnloadedSettings):
        raise InputError(
            f"backend: {settings.backend} is not loaded; expected a file that is allowed"
        )
    name = settings.backend
    try:
        backend: base.Backend = kind_of(name).make(settings)
    except PluginError as error:
        raise InputError(f"backend: found {name}; {error}") from None
    except InputError:
        raise
    except Exception as error:  # the code of a backend can raise any exception
        raise InputError(f"backend: {name}: {exception_line(error)}") from error
    if not hasattr(backend, "model"):
        raise InputError(f"backend: {name}: the class Backend has no attribute model")
    return backend


def backends_of(
    models: Iterable[tuple[str, ModelSettings]], given: Mapping[str, base.Backend] | None = None
) -> dict[str, base.Backend]:
    """Make the backend of each role; roles with equal settings share one.

    Args:
        models: every role with its settings.
        given: backends by role, used in place of those that the settings name.

    Raises:
        InputError: a role in `given` does not exist, or a backend cannot be loaded.
    """
    settings_of = dict(models)
    backends = dict(given or {})
    for role in backends:
        if role not in settings_of:
            known = ", ".join(settings_of)
            raise InputError(f"backends: found the role {role!r}; expected one of {known}")
    created: list[tuple[ModelSettings, base.Backend]] = []
    for role, settings in settings_of.items():
        if role in backends:
            continue
        same = next((backend for known, backend in created if known == settings), None)
        backends[role] = same or backend_of(settings)
        created.append((settings, backends[role]))
    return backends


@asynccontextmanager
async def started(backends: Iterable[base.Backend]) -> AsyncIterator[None]:
    """Start each distinct backend, and close it at the end.

    Raises:
        BackendDown: a backend cannot be started.
    """
    async with AsyncExitStack() as stack:
        for backend in {id(backend): backend for backend in backends}.values():
            stack.push_async_callback(_close, backend)
            try:
                await backend.start()
            except (base.BackendDown, InputError):
                raise
            except Exception as error:  # the code of a backend can raise any exception
                reason = exception_line(error)
                raise base.BackendDown(f"the backend cannot be started: {reason}") from error
        yield


async def _close(backend: base.Backend) -> None:
    """Close a backend. Everything is stored by then: an exception is printed and loses nothing."""
    try:
        await backend.close()
    except Exception as error:  # the code of a backend can raise any exception
        print(f"warning: the backend cannot be closed: {exception_line(error)}", file=sys.stderr)
