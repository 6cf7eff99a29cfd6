"""Threads of ours in which user code runs: asked to end, interrupted, and at last left behind.

No query waits longer for one than :data:`GRACE` for each of these steps. CPython can interrupt a thread only between
two of its own instructions: a C call that sleeps is interrupted when it returns.
"""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Callable

from couatl._couatl import hidden

#: How long a thread may take to end that was asked to, in seconds, and then again when it was interrupted.
GRACE = 1.0
#: How long a cleanup may take that waits for something, in seconds.
PATIENCE = 3.0
#: How long a thread waits before it looks whether it is to be interrupted, in seconds.
TICK = 0.1


class _WithoutSecrets(logging.Filter):
    """Takes what user code was told in confidence out of what it raised."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info:
            record.exc_text = hidden(logging.Formatter().formatException(record.exc_info))
            record.exc_info = None
        record.msg, record.args = hidden(record.getMessage()), None
        return True


log = logging.getLogger("couatl")
log.addFilter(_WithoutSecrets())


class UserThread:
    """A thread that runs `target`, which belongs to what `name` says."""

    def __init__(self, name: str, target: Callable[[], object]) -> None:
        self._target = target
        self._over = threading.Lock()
        self._running = True
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            try:
                self._target()
            finally:
                # The number of a thread that has ended may be another's: after this, none is interrupted.
                with self._over:
                    self._running = False
        except KeyboardInterrupt:
            pass

    def is_current(self) -> bool:
        """Whether the caller runs on it."""
        return threading.current_thread() is self._thread

    def join(self, timeout: float | None = None) -> bool:
        """Wait for it, as long as the grace unless said otherwise, and give whether it has ended."""
        self._thread.join(GRACE if timeout is None else timeout)
        return not self._thread.is_alive()

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in it, where it runs Python code, or as soon as it does again."""
        with self._over:
            if self._running and self._thread.ident is not None:
                ident, error = ctypes.c_ulong(self._thread.ident), ctypes.py_object(KeyboardInterrupt)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, error)

    def end(self, what: str, timeout: float | None = None) -> None:
        """Wait for it, as `join` does; then interrupt it, and at last leave it behind. `what` runs there."""
        if not self.join(timeout):
            self.interrupt()
            if not self.join():
                self.leave(what)

    def leave(self, what: str) -> None:
        """Say that it is left behind."""
        log.warning("%s has not ended, interrupted as it was: its thread '%s' is left behind", what, self._thread.name)
