"""The time: the one place that the SDK takes it from, and where it waits for a moment.

What a connector asks for, the next tick or ``next_awake``, is looked at here and nowhere else, so that a test can put a
clock of its own in its place. How long a cleanup may take is another matter: that is real time, in any case.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from math import inf

#: The longest wait before the clock, which may have been set meanwhile, is looked at again, in seconds.
LOOK = 30.0
#: How long a wait under a test's clock really takes, so that whoever else runs may go on, in seconds.
YIELD = 0.001


class MachineClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        """The time, in UTC."""
        return datetime.now(timezone.utc)

    def wait(self, seconds: float, cancelled: threading.Event) -> bool:
        """Wait so long, or until it is cancelled; or less, to look again. Give whether it is cancelled."""
        return cancelled.wait(min(seconds, LOOK))

    async def sleep(self, seconds: float) -> None:
        """Wait so long, or less, to look again."""
        await asyncio.sleep(min(seconds, LOOK))


class Clock(MachineClock):
    """A clock that a test sets: it stands still, and who waits moves it on to the time that is waited for.

    Every thread may use it.
    """

    def __init__(self, start: datetime) -> None:
        self._now = start.astimezone(timezone.utc)
        self._lock = threading.Lock()

    def now(self) -> datetime:
        """The time on it, in UTC."""
        return self._now

    def advance(self, by: timedelta) -> datetime:
        """Let so much time pass; give what time it is then."""
        with self._lock:
            self._now += by
            return self._now

    def wait(self, seconds: float, cancelled: threading.Event) -> bool:
        """Let so much time pass, and give whether it is cancelled; a wait without an end is one for the cancel."""
        return cancelled.wait(self._skip(seconds))

    async def sleep(self, seconds: float) -> None:
        """Let so much time pass."""
        await asyncio.sleep(self._skip(seconds))

    def _skip(self, seconds: float) -> float:
        """Let so much time pass, unless the calendar ends before; give how long that is to take, in seconds."""
        try:
            self.advance(timedelta(seconds=seconds))
        except OverflowError:
            return LOOK
        return min(seconds, YIELD)


_current = MachineClock()


def now() -> datetime:
    """The time, in UTC: in a test under a clock of its own, the time on that."""
    return _current.now()


def wait(seconds: float, cancelled: threading.Event) -> bool:
    """Wait so long, or until it is cancelled; or less, to look again. Give whether it is cancelled."""
    return _current.wait(seconds, cancelled)


async def sleep(seconds: float) -> None:
    """Wait so long, or less, to look again."""
    await _current.sleep(seconds)


def seconds_until(moment: datetime) -> float:
    """How long it is until then; a time without a zone is local."""
    try:
        return (instant(moment) - now()).total_seconds()
    except (OverflowError, ValueError, OSError):
        # So near to the first or the last year that its instant cannot be told in UTC.
        return inf if moment.year > 1 else -inf


def instant(moment: datetime) -> datetime:
    """The time in UTC; one without a zone is local."""
    if moment.tzinfo is None:
        # A Timestamp of pandas, for one, refuses to be taken for that.
        moment = datetime.combine(moment.date(), moment.time())
    return moment.astimezone(timezone.utc)


@contextmanager
def in_place(clock: MachineClock) -> Iterator[None]:
    """Have the whole process take the time from this clock."""
    global _current
    before, _current = _current, clock
    try:
        yield
    finally:
        _current = before
