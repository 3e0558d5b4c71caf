"""Run a coroutine from synchronous code, so that signals can always stop it.

The coroutine runs in a thread of its own, and the calling thread waits for it. So a terminal, a
script and a notebook, whose main thread has a running loop already, are interrupted in one way,
even while the coroutine's code hangs.
"""

from __future__ import annotations

import asyncio
import contextvars
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar

T = TypeVar("T")

GRACE_SECONDS = 5.0
"""How long a coroutine that is to stop at once is waited for."""

_WAIT_SECONDS = 0.2
_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_left: list[threading.Thread] = []


def run_coroutine(work: Coroutine[Any, Any, T], gently: Callable[[], bool] | None = None) -> T:
    """Run a coroutine and return its result.

    SIGINT and SIGTERM are handled while it runs, if this is the main thread. At the first one the
    coroutine is asked to stop; a second one cancels it; if it does not end within
    `GRACE_SECONDS` or at a third one, its thread is left behind. In another thread, the coroutine
    is asked to stop when the main thread has ended.

    Args:
        work: the coroutine.
        gently: called in the coroutine's loop to ask it to stop; returns whether it will, so that
            it need not be cancelled. None: it is always cancelled.

    Raises:
        KeyboardInterrupt: it was cancelled by a signal, or left behind.
    """
    thread = _LoopThread(work, gently)
    with _handled(thread.interrupt):
        thread.start()
        thread.wait()
    return thread.result()


def hanging() -> bool:
    """Whether a thread was left behind that does not end; `os._exit` ends the process then."""
    return any(thread.is_alive() for thread in _left)


class _LoopThread(Generic[T]):
    """A thread that runs one coroutine."""

    def __init__(self, work: Coroutine[Any, Any, T], gently: Callable[[], bool] | None) -> None:
        self._work = work
        self._gently = gently
        self._done = threading.Event()
        self._ready = threading.Event()
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
            self._result = asyncio.run(self._main())
        except BaseException as error:
            self._error = error
        finally:
            self._ready.set()
            self._done.set()

    async def _main(self) -> T:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._ready.set()
        return await self._work

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
        if not self._done.is_set():
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
