"""How a pool reaches its replicas: the interface of local processes and of actors on Ray."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sandbox.backends.base import BackendDown
from sandbox.backends.replicas.server import Started


class Died(Exception):
    """Raised when the process of a replica has ended, or cannot be reached."""


class Host(Protocol):
    """One replica. After `Died`, it is placed and started again."""

    async def place(self) -> None:
        """Wait until the replica has a process; on a cluster, until there is room for it.

        Raises:
            Died: its process has ended meanwhile.
            BackendDown: it has died too often.
        """

    async def start(self) -> Started:
        """Start its backend.

        Raises:
            Died: its process has ended.
            BackendDown: the backend cannot be started.
            InputError: its settings are refused.
        """

    async def send(self, batch: bytes) -> None:
        """Send calls; return when the next may be sent.

        Raises:
            Died: its process has ended.
        """

    async def receive(self) -> bytes:
        """Wait for results.

        Raises:
            Died: its process has ended.
        """

    async def close(self) -> None:
        """Close its backend, and end its process."""


class Placement(Protocol):
    """Where replicas run."""

    async def open(self) -> None:
        """Prepare the place.

        Raises:
            BackendDown: it cannot be reached.
            InputError: it has no room for the replicas.
        """

    def hosts(self) -> Sequence[Host]:
        """Return the replicas; the place is open."""

    async def gone(self) -> BackendDown:
        """Wait until the place is lost with all replicas, and return why."""

    async def close(self) -> None:
        """Release the place."""
