"""The connection of this process to a Ray cluster. Only this module and `actors` use Ray."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import socket
import threading
import warnings
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from agents.plugins import exception_line
from sandbox.backends.replicas.settings import RaySettings
from sandbox.text import install_command

CONNECT_SECONDS = 5.0
"""How long a cluster may take to accept a connection."""

LOOK_SECONDS = 5.0
"""Seconds between two looks whether the cluster is still there."""

MOST_MISSED = 3
"""Unanswered looks until a cluster is gone; after 60 s Ray itself ends this process."""

SHUTDOWN_SECONDS = 10.0

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # else errors of nodes are printed to standard output
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else a warning where a replica has no GPU
}

_lock = threading.Lock()
_users = 0
_is_ours = False
_address: str | None = None


class NoCluster(Exception):
    """Raised when there is no cluster to connect to; the message begins with a key of a model."""


def connect(settings: RaySettings) -> None:
    """Connect this process to the cluster; start one on this machine where there is none.

    A process has one connection, which all its models share. One that the caller has opened by
    `ray.init` is used as it is.

    Raises:
        NoCluster: Ray is not installed, or the cluster cannot be reached.
    """
    global _is_ours, _address
    if importlib.util.find_spec("ray") is None:
        raise NoCluster(f"on: found ray, which is not installed; expected {install_command('ray')}")
    with _lock:
        ray = _ray()
        if ray.is_initialized():
            _refuse_other(settings.address)
            return
        address = settings.address or os.environ.get("RAY_ADDRESS")
        if address is not None and not _answers(address):
            raise NoCluster(
                f"ray.address: found {address}, where no Ray cluster answers; expected the address "
                "that `ray start --head` has told"
            )
        _init(settings)
        _is_ours, _address = True, settings.address


def be_quiet() -> None:
    """Keep what Ray prints off the terminal; called before anything imports it."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


def _ray() -> Any:
    """Import Ray, without its usage statistics and warnings."""
    be_quiet()
    with warnings.catch_warnings(action="ignore"):
        import ray
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # what matters is an error of a call
    return ray


def _refuse_other(address: str | None) -> None:
    """Raise NoCluster if this program has connected the process to another cluster."""
    if _is_ours and address != _address:
        raise NoCluster(
            f"ray.address: found {address}, but another model has {_address}; expected one cluster "
            "for all models of a process"
        )


def _place(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    with suppress(OSError):
        host = socket.gethostbyname(host)
    return host, int(port)


def _answers(address: str) -> bool:
    """Whether somebody accepts connections at HOST:PORT; true for words such as `local`."""
    if ":" not in address:
        return True
    try:
        with socket.create_connection(_place(address), CONNECT_SECONDS):
            return True
    except (OSError, ValueError):
        return False


def _init(settings: RaySettings) -> None:
    """Connect, in a thread that lasts: the cluster that it starts ends with the thread.

    In another thread than the main one, Ray leaves the handlers of signals alone.
    """
    done = threading.Event()
    errors: list[BaseException] = []

    def init() -> None:
        try:
            with warnings.catch_warnings(action="ignore"):
                _ray().init(
                    address=settings.address,
                    namespace=settings.namespace,
                    log_to_driver=False,
                    configure_logging=False,
                    include_dashboard=False,
                )
        except BaseException as error:
            errors.append(error)
        done.set()
        threading.Event().wait()

    threading.Thread(target=init, daemon=True).start()
    done.wait()
    if errors:
        address = settings.address or os.environ.get("RAY_ADDRESS") or "this machine"
        raise NoCluster(
            f"ray.address: found {address}; Ray cannot connect: {exception_line(errors[0])}"
        )


def use() -> None:
    """Count a user of the connection."""
    global _users
    with _lock:
        _users += 1


async def release() -> None:
    """Close the connection after its last user, unless the caller of this program opened it."""
    global _users, _is_ours
    with _lock:
        _users -= 1
        if _users or not _is_ours:
            return
        _is_ours = False
    stopping = threading.Thread(target=_ray().shutdown, daemon=True)  # hangs if the cluster is gone
    stopping.start()
    await asyncio.to_thread(stopping.join, SHUTDOWN_SECONDS)


def address() -> str:
    """Return the address of the cluster that this process is connected to."""
    return str(_ray().get_runtime_context().gcs_address)


def gpus() -> float:
    """Return the number of GPUs of the cluster."""
    return float(_ray().cluster_resources().get("GPU", 0))


def room_for(needs: Mapping[str, float]) -> int | None:
    """Return how many replicas fit on the cluster when it is empty; None if they need nothing.

    Args:
        needs: the resources of one, by Ray's names.
    """
    asked = {name: amount for name, amount in needs.items() if amount}
    if not asked:
        return None
    nodes = [node["Resources"] for node in _ray().nodes() if node["Alive"]]
    return sum(
        min(int(node.get(name, 0) / amount + 1e-6) for name, amount in asked.items())
        for node in nodes
    )


def described() -> str:
    """Describe the cluster in a few words: its address, nodes, CPUs and GPUs."""
    ray = _ray()
    total = ray.cluster_resources()
    nodes = sum(node["Alive"] for node in ray.nodes())
    return (
        f"the Ray cluster at {address()} has {total.get('CPU', 0):g} CPUs and "
        f"{total.get('GPU', 0):g} GPUs on {nodes} node{'s' * (nodes != 1)}"
    )


async def gone() -> str:
    """Wait until the cluster does not answer any more, and return its address."""
    place, missed = address(), 0
    while missed < MOST_MISSED:
        await asyncio.sleep(LOOK_SECONDS if not missed else 1.0)
        missed = 0 if await asyncio.to_thread(_answers, place) else missed + 1
    return place
