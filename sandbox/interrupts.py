"""Run a coroutine from synchronous code, so that signals can always stop it.

The coroutine runs in a thread of its own, and the calling thread waits for it. So a terminal, a
script and a notebook, whose main thread has a running loop already, are interrupted in one way,
even while the coroutine's code hangs.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Generic, NoReturn, TypeVar

T = TypeVar("T")

GRACE_SECONDS = 5.0
"""How long code is waited for that is to stop at once, or that has nothing left to do."""

_WAIT_SECONDS = 0.2
_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_left: list[threading.Thread] = []
_running: set[_LoopThread[Any]] = set()


def run_coroutine(work: Coroutine[Any, Any, T], gently: Callable[[], bool] | None = None) -> T:
    """Run a coroutine and return its result.

    SIGINT and SIGTERM are handled while it runs, if this is the main thread. At the first one the
    coroutine is asked to stop; a second one cancels it; if it does not end within
    `GRACE_SECONDS` or at a third one, its thread is left behind. In another thread, the coroutine
    is asked to stop when the main thread has ended. Once the coroutine has returned, its loop has
    as long to end: what it started with `asyncio.to_thread` may hang, which nothing can cancel.

    Args:
        work: the coroutine.
        gently: called in the coroutine's loop to ask it to stop; returns whether it will, so that
            it need not be cancelled. None: it is always cancelled.

    Raises:
        KeyboardInterrupt: it was cancelled by a signal, or left behind.
    """
    thread = _LoopThread(work, gently)
    _running.add(thread)
    try:
        with _handled(thread.interrupt):
            thread.start()
            thread.wait()
    finally:
        _running.discard(thread)
    return thread.result()


def interrupt_all() -> None:
    """Interrupt what `run_coroutine` runs in any thread, as a signal does in the main thread."""
    for thread in list(_running):
        thread.interrupt()


def end_process(status: int) -> None:
    """Let the interpreter end with a status, even if threads hang, which it would wait for.

    Called last in a process. Threads have `GRACE_SECONDS`, until the first signal; none if the loop
    of a coroutine was left behind. What `atexit` runs after them is not limited.
    """
    if any(thread.is_alive() for thread in _left):
        _end_now(status)
    ended = threading.Event()
    atexit.register(ended.set)  # which runs first, as soon as all threads have ended

    def watch() -> None:
        if not ended.wait(GRACE_SECONDS):
            _end_now(status)

    threading.Thread(target=watch, daemon=True).start()
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            signal.signal(number, lambda _number, _frame: _end_now(status))


def _end_now(status: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads it, or it is closed
            stream.flush()
    os._exit(status)


class _LoopThread(Generic[T]):
    """A thread that runs one coroutine."""

    def __init__(self, work: Coroutine[Any, Any, T], gently: Callable[[], bool] | None) -> None:
        self._work = work
        self._gently = gently
        self._done = threading.Event()
        self._ready = threading.Event()
        self._returned = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._result: T | None = None
        self._error: BaseException | None = None
        self._asked = 0
        self._deadline = float("inf")
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=lambda: context.run(self._run), daemon=True)

    def start(self) -> None:
        """Start the thread, and wait until the coroutine can be interrupted."""
        self._thread.start()
        self._ready.wait()

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:
            self._error = error
        finally:
            self._ready.set()
            self._done.set()

    async def _main(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._ready.set()
        try:
            self._result = await self._work
        except BaseException as error:
            self._error = error
        self._returned = True
        self._deadline = min(self._deadline, time.monotonic() + GRACE_SECONDS)

    def interrupt(self) -> None:
        """Ask the coroutine to stop, the second time at once."""
        self._asked += 1
        if self._asked > 1:
            now = time.monotonic()
            self._deadline = now + GRACE_SECONDS if self._asked == 2 else now
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has just been closed
                self._loop.call_soon_threadsafe(self._stop, self._asked > 1)

    def _stop(self, at_once: bool) -> None:
        if at_once or self._gently is None or not self._gently():
            assert self._task is not None
            self._task.cancel()

    def wait(self) -> None:
        """Wait until the coroutine has ended, or is left behind."""
        main = threading.main_thread()
        while not self._done.wait(_WAIT_SECONDS):
            if not main.is_alive() and not self._asked:
                self.interrupt()
            if time.monotonic() >= self._deadline:
                _left.append(self._thread)
                return

    def result(self) -> T:
        """Return the result of the coroutine, or raise its error.

        Raises:
            KeyboardInterrupt: it was cancelled by `interrupt`, or left behind.
        """
        if not self._returned and not self._done.is_set():
            raise KeyboardInterrupt
        if self._error is not None:
            if self._asked and isinstance(self._error, asyncio.CancelledError):
                raise KeyboardInterrupt
            raise self._error
        return self._result  # type: ignore[return-value]


@contextmanager
def _handled(interrupt: Callable[[], None]) -> Iterator[None]:
    """Handle signals by a call of `interrupt`; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _SIGNALS:
        signal.signal(number, lambda _number, _frame: interrupt())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
