"""A source that plays what a test has written down: rows, and marks between them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from couatl._clock import now
from couatl._errors import counted, shown
from couatl.sources import Partition, Source


class Aborted(Exception):
    """Raised at the mark ABORT of a :class:`TestingSource`."""


class TestingSource(Source):
    """Gives rows, `batch_size` at a time, and does what the marks between them say.

    >>> from couatl.testing import TestingSource, rows, rows_and_state
    >>> source = TestingSource([1, 2, TestingSource.EOF(), 3])
    >>> found, state = rows_and_state(source)
    >>> found, rows(source, state=state)
    ([1, 2], [3])

    Its state is how many of the items have been dealt with. One instance may be read any number of times, in the body
    of a statement too.
    """

    # For pytest, which takes every class of such a name for tests.
    __test__ = False

    @dataclass(frozen=True)
    class EOF:
        """The end, for now: what reads on from the state after it is given the items behind the mark."""

    @dataclass(frozen=True)
    class ABORT:
        """A crash: it raises :class:`Aborted`, once. What goes on from a state before it passes over the mark.

        >>> from couatl.testing import Reader, TestingSource
        >>> source = TestingSource([1, 2, TestingSource.ABORT(), 3])
        >>> with Reader(source) as reader:
        ...     reader.take(), reader.snapshot(), reader.take()
        ([1], 1, [2])
        >>> with Reader(source, state=2) as reader:
        ...     reader.take()
        Traceback (most recent call last):
        couatl._script.Aborted: the mark ABORT, item 2
        >>> with Reader(source, state=1) as reader:
        ...     reader.take(), reader.take()
        ([2], [3])
        """

    @dataclass(frozen=True)
    class PAUSE:
        """No rows for so long."""

        for_duration: timedelta

        def __post_init__(self) -> None:
            """Look at what was given."""
            if not isinstance(self.for_duration, timedelta):
                raise TypeError(f"TestingSource.PAUSE: expected a timedelta, got {shown(self.for_duration)}")

    @dataclass(frozen=True)
    class FAIL:
        """An error, raised as it is, each time that reading comes here."""

        error: Exception

        def __post_init__(self) -> None:
            """Look at what was given."""
            if not isinstance(self.error, Exception):
                raise TypeError(f"TestingSource.FAIL: expected an exception to raise, got {shown(self.error)}")

    def __init__(self, items: Iterable[Any] = (), batch_size: int = 1) -> None:
        counted("TestingSource", "batch_size", batch_size, 1)
        self.items = list(items)
        if (mark := next((item for item in self.items if isinstance(item, type) and item in MARKS), None)) is not None:
            raise TypeError(f"TestingSource: expected the mark {mark.__name__}(), got its class")
        self.batch_size = batch_size
        #: The places of the marks that have aborted a run.
        self.aborted: set[int] = set()

    def open(self, partition: str, state: Any) -> Partition:
        """Go on after so many of the items."""
        return _Played(self, state or 0)


MARKS = (TestingSource.EOF, TestingSource.ABORT, TestingSource.PAUSE, TestingSource.FAIL)


class _Played(Partition):
    """A batch ends before a mark, whose turn is the next one."""

    def __init__(self, source: TestingSource, place: int) -> None:
        self.source = source
        self.place = place
        self.awake: datetime | None = None

    def next_batch(self) -> list[Any]:
        while self.place in self.source.aborted:
            self.place += 1
        items = self.source.items
        if self.place == len(items):
            raise StopIteration
        if isinstance(items[self.place], MARKS):
            self.act(items[self.place])
            return []
        first, last = self.place, min(self.place + self.source.batch_size, len(items))
        while self.place < last and not isinstance(items[self.place], MARKS):
            self.place += 1
        return items[first : self.place]

    def act(self, mark: Any) -> None:
        """Do what it says. Whoever reads on from here comes to it again, where it raises an error."""
        if isinstance(mark, TestingSource.FAIL):
            raise mark.error
        if isinstance(mark, TestingSource.ABORT):
            self.source.aborted.add(self.place)
            raise Aborted(f"the mark ABORT, item {self.place}")
        self.place += 1
        if isinstance(mark, TestingSource.PAUSE):
            self.awake = now() + mark.for_duration
        elif isinstance(mark, TestingSource.EOF):
            raise StopIteration

    def next_awake(self) -> datetime | None:
        return self.awake

    def snapshot(self) -> int:
        return self.place
