"""A model of servers with continuous batching, in virtual time: when each call finishes.

A call is prefilled, then decoded. A prefill occupies the whole server and pauses decoding, as a
step of an engine takes longer by the prefill in it. All calls decode at the same rate, which
depends on how many are running, so a counter of decoded tokens and a heap of the counter values at
which calls finish suffice for a server. All times are seconds of virtual time.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol


class Needs(NamedTuple):
    """What a call needs of its server.

    Attributes:
        size: tokens of prompt and reply.
        prefill: seconds that it occupies the server with its prompt.
        steps: tokens of the reply, one a step.
    """

    size: int
    prefill: float
    steps: int


class Load(Protocol):
    """The servers, and the calls that they get; the number of a call is any integer.

    A call goes to the server with the fewest calls and stays there, as with usual routers, because
    its cache cannot move.
    """

    @property
    def servers(self) -> int:
        """Copies of the model."""

    @property
    def max_batch(self) -> int:
        """Maximum number of running calls of a server; others wait in order of arrival."""

    @property
    def kv_tokens(self) -> float:
        """Capacity of a server's cache in tokens; calls that do not fit wait."""

    def speed(self, running: int) -> float:
        """Tokens per second of each of `running` calls on a server."""

    def needs(self, call: int) -> Needs:
        """What a call needs."""


class Server:
    """A GPU with a copy of the model. `due` is the time at which its next call finishes.

    Attributes:
        idle: unused capacity so far, in seconds at full capacity.
        started: the sum of the start times of its calls.
    """

    def __init__(self, load: Load) -> None:
        self.due = math.inf
        self.idle = 0.0
        self.started = 0.0
        self._load = load
        counts = range(load.max_batch + 1)
        self._rates = [load.speed(max(1, n)) for n in counts]  # of one call, with n running
        sums = [n * self._rates[n] for n in counts]
        self._unused = [1 - one / max(sums) for one in sums]
        self._clock = 0.0  # accounted up to here; later than now while prefilling
        self._tokens = 0.0  # decoded by a call that runs from the start
        self._room = load.kv_tokens
        self._running: list[tuple[float, int]] = []  # value of `_tokens` at the end, call
        self._queue: deque[int] = deque()

    def add(self, call: int, now: float) -> None:
        """Queue a call."""
        self._queue.append(call)
        if len(self._queue) == 1:
            self._admit(now)

    def finish(self) -> int:
        """Advance to `due` and return the call that finishes then."""
        now = self.due
        self.advance(now)
        self._tokens, call = heapq.heappop(self._running)
        self._room += self._load.needs(call).size
        self._admit(now)
        return call

    def advance(self, now: float) -> None:
        """Account for the time until `now`."""
        passed = now - self._clock
        if passed > 0:
            running = len(self._running)
            self._tokens += passed * self._rates[running]
            self.idle += passed * self._unused[running]
            self._clock = now

    def _admit(self, now: float) -> None:
        """Start queued calls that fit, in order of arrival."""
        queue, running = self._queue, self._running
        most = len(self._rates) - 1
        while queue and len(running) < most:
            size, prefill, steps = self._load.needs(queue[0])
            if size > self._room:
                break
            self.advance(now)
            call = queue.popleft()
            self._room -= size
            self.started += now
            self._clock += prefill
            heapq.heappush(running, (self._tokens + steps, call))
        rest = running[0][0] - self._tokens if running else math.inf
        self.due = self._clock + rest / self._rates[len(running)]


class Engine:
    """The machine: a gate, as that of `sandbox.engine.layers`, with servers behind it.

    Args:
        load: the servers and their calls.
        width: maximum number of calls behind the gate.
        key: dispatch priority of a call, lower first.
    """

    def __init__(self, load: Load, width: int, key: Callable[[int], float]) -> None:
        self.now = 0.0  # seconds
        self.servers = [Server(load) for _ in range(load.servers)]
        self._key = key
        self._free = width
        self._due = [math.inf] * load.servers
        self._loads = [0] * load.servers
        self._gate: list[tuple[float, int, int]] = []
        self._arrivals = 0
        self._submitted = 0.0  # sum of the times of submission
        self._finished = 0.0  # sum of the times of completion

    def waited(self) -> float:
        """Total seconds that calls waited before they started; valid at the end."""
        return sum(server.started for server in self.servers) - self._submitted

    def took(self) -> float:
        """Total seconds of calls, including waiting; valid at the end."""
        return self._finished - self._submitted

    def idle(self) -> float:
        """Total unused capacity until now, in seconds of a server at full capacity."""
        for server in self.servers:
            server.advance(self.now)
        return sum(server.idle for server in self.servers)

    def submit(self, call: int) -> None:
        """Submit a call; it waits at the gate if there is no free slot."""
        self._submitted += self.now
        if self._free:
            self._free -= 1
            self._route(call)
            return
        self._arrivals += 1
        heapq.heappush(self._gate, (self._key(call), self._arrivals, call))

    def _route(self, call: int) -> None:
        loads = self._loads
        at = loads.index(min(loads))
        loads[at] += 1
        self.servers[at].add(call, self.now)
        self._due[at] = self.servers[at].due

    def next(self) -> int:
        """Advance to the end of the next call and return the call."""
        self.now = min(self._due)
        at = self._due.index(self.now)
        call = self.servers[at].finish()
        self._due[at] = self.servers[at].due
        self._loads[at] -= 1
        self._finished += self.now
        if self._gate:
            self._route(heapq.heappop(self._gate)[-1])
        else:
            self._free += 1
        return call
