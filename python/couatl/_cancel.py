"""The cancel hook of a partition or a sink: what ends a wait in C, where no interrupt comes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from couatl import _threads
from couatl._calls import run
from couatl._errors import class_name
from couatl._methods import check_plain
from couatl._threads import UserThread, log


class CancelHook:
    """The ``cancel()`` of `of`, unless that is `default`, which does nothing.

    It runs on a thread of its own, so that who cancels never waits for it, and it may talk to a server. Misuse where it
    cannot be called: later, nobody would be told.
    """

    def __init__(self, of: Any, default: Callable[..., None]) -> None:
        check_plain(of, "cancel")
        self._of = of
        self._default = default
        self._lock = threading.Lock()
        self._over = False
        self._thread: UserThread | None = None

    def call(self) -> None:
        """Call it, once, unless its time is over. Never blocks, never raises; comes from any thread."""
        with self._lock:
            if self._over:
                return
            self._over = True
            cancel = getattr(self._of, "cancel", self._default)
            if getattr(cancel, "__func__", cancel) is self._default:
                return
            try:
                self._thread = UserThread(f"couatl-cancel:{class_name(self._of)}", self._run)
            except RuntimeError as error:
                log.warning("%s.cancel() is not called: %s", class_name(self._of), error)

    def _run(self) -> None:
        try:
            run(self._of, "cancel()")
        except Exception:
            log.warning("%s.cancel() raised", class_name(self._of), exc_info=True)

    def end(self) -> None:
        """Its time is over. One that runs is waited for: it must not hit what comes after."""
        with self._lock:
            self._over = True
        if self._thread is not None:
            self._thread.end(f"{class_name(self._of)}.cancel()", _threads.PATIENCE)
