"""Sources: classes that read, for connectors that are more than one generator function.

A plain generator function stays the simplest source. A class says more: its columns, the parts that can be read side
by side, when it wants to be asked again, and from where to go on.

    >>> from couatl.sources import Source
    >>> class Squares(Source):
    ...     def __init__(self, numbers: int = 3):
    ...         self.numbers = numbers
    ...
    ...     def schema(self):
    ...         return "n int64, square int64"
    ...
    ...     def open(self, partition, state):
    ...         for n in range(self.numbers):
    ...             yield n, n * n
    >>> from couatl.testing import rows
    >>> rows(Squares, numbers="4")
    [(0, 0), (1, 1), (2, 4), (3, 9)]

Rows have the shapes that a read function may yield: a tuple, a dict by column name, a bare value where there is one
column; a list of those; or anything that Arrow can import, many rows at once.

A source is made, asked for its partitions, opened once for each of them, and closed, anew for each query. An exception
that a method raises fails the query, and is raised as it is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from couatl import _calls, _clock, _errors, _methods
from couatl._clock import now
from couatl._columns import Columns
from couatl._pull import is_arrow
from couatl._push import Rows

__all__ = ["AsyncPartition", "AsyncSource", "Partition", "PollingSource", "PushSource", "Retry", "Source", "now"]


class Source:
    """Something to read.

    Options are the parameters of ``__init__``, by keyword; a setting's text becomes what the parameter is annotated
    with. After a constructor that raises, nothing else is called.

    >>> class Shards(Source):
    ...     def partitions(self):
    ...         return ["north", "south"]
    ...
    ...     def open(self, partition, state):
    ...         return [(partition, 1), (partition, 2)]
    >>> from couatl.testing import rows
    >>> rows(Shards, limit=3)
    [('north', 1), ('north', 2), ('south', 1)]
    """

    #: The columns of the stream, from before ``partitions()`` on: those of the statement, or else of ``schema()``. None
    #: where nobody has said: while ``schema()`` is asked, and in a test that gives none. A subclass that keeps
    #: something else by this name goes without.
    columns: Columns | None = None

    def schema(self) -> Any:
        """The columns, as a statement has them (``"a int64, b string"``) or as an Arrow schema.

        None leaves them to the statement.
        """
        return None

    def partitions(self) -> Sequence[str]:
        """The names of the parts that can be read side by side, each on a thread of its own. Called once."""
        return [""]

    def open(self, partition: str, state: Any) -> Any:
        """Open one of the parts.

        Gives a :class:`Partition`; an iterable of rows, as a method with ``yield`` does; something for Arrow to import;
        a :class:`PushSource`; or something asynchronous, see :class:`AsyncSource`. `state` is what the ``snapshot()``
        of this part gave when it was read last; None at the beginning.
        """
        raise _errors.missing(self, "open(partition, state)")

    def close(self) -> Awaitable[None] | None:
        """Clean up, once, after the last partition: on success, errors and cancels alike."""


class Partition:
    """One part of a source, open. Its methods are called one after the other, on one thread.

    A cancel raises KeyboardInterrupt in ``next_batch``, as soon as that runs Python code; where it waits in a library
    for longer, ``cancel`` can end that. A wait for ``next_awake`` ends at once.

    >>> class Countdown(Partition):
    ...     def __init__(self, state):
    ...         self.left = 3 if state is None else state
    ...
    ...     def next_batch(self):
    ...         if self.left == 0:
    ...             raise StopIteration
    ...         self.left -= 1
    ...         return [self.left]
    ...
    ...     def snapshot(self):
    ...         return self.left
    >>> class Countdowns(Source):
    ...     def open(self, partition, state):
    ...         return Countdown(state)
    >>> from couatl.testing import rows
    >>> rows(Countdowns), rows(Countdowns, state=1)
    ([2, 1, 0], [0])
    """

    def next_batch(self) -> Any:
        """The next rows; None or an empty list where there are none now. StopIteration is the end."""
        raise _errors.missing(self, "next_batch()")

    def next_awake(self) -> datetime | None:
        """When to ask for the next rows, asked before each time. A time without a zone is local.

        None is at once, or a millisecond after there were no rows. What counts from :func:`now` can be tested without
        waiting, see :func:`couatl.testing.clock`.
        """
        return None

    def snapshot(self) -> Any:
        """From where to go on after the rows that were given: anything that can be pickled."""
        return None

    def cancel(self) -> None:
        """End what ``next_batch`` waits for: a lock in a database, an answer.

        Called at most once, on a thread of its own, where the query ends while ``next_batch`` runs, and before
        ``close``, which waits for it up to three seconds. What it raises is logged.
        """

    def close(self) -> None:
        """Clean up, once: on success, errors and cancels alike."""


class Retry(Exception):
    """Raised by ``next_item``: there is nothing now, ask again after a while.

    >>> Retry(timedelta(seconds=1)).timeout
    datetime.timedelta(seconds=1)
    """

    def __init__(self, timeout: timedelta) -> None:
        if not isinstance(timeout, timedelta):
            raise TypeError(f"Retry: expected a timedelta, got {_errors.shown(timeout)}")
        super().__init__(timeout)
        self.timeout = timeout


class PollingSource(Source):
    """Asks again and again, at an interval.

    >>> class Load(PollingSource):
    ...     def __init__(self, interval: timedelta = timedelta(seconds=10)):
    ...         super().__init__(interval)
    ...
    ...     def schema(self):
    ...         return "load float64"
    ...
    ...     def next_item(self):
    ...         import os
    ...
    ...         return os.getloadavg()[0]
    >>> from couatl.testing import rows
    >>> len(rows(Load, interval="1ms", limit=3))
    3

    The first time is at once; with `align_to`, a time, it is the next of that time and whole intervals before and after
    it. Without a zone, that is local. What took longer than an interval is not made up for: ticks that have passed are
    left out. Raises ValueError for an interval that is not above zero.

    One that can go on where reading ended says so with ``snapshot`` and ``resume``:

    >>> class Count(PollingSource):
    ...     last = 0
    ...
    ...     def __init__(self):
    ...         super().__init__(timedelta(milliseconds=1))
    ...
    ...     def next_item(self):
    ...         self.last += 1
    ...         return self.last
    ...
    ...     def snapshot(self):
    ...         return self.last
    ...
    ...     def resume(self, state):
    ...         self.last = state
    >>> rows(Count, limit=2), rows(Count, state=2, limit=2)
    ([1, 2], [3, 4])
    """

    def __init__(self, interval: timedelta, align_to: datetime | None = None) -> None:
        if not isinstance(interval, timedelta):
            raise TypeError(f"{type(self).__name__}: expected a timedelta as interval, got {_errors.shown(interval)}")
        if interval <= timedelta(0):
            raise ValueError(f"{type(self).__name__}: expected an interval above zero, got {interval}")
        if align_to is not None and not isinstance(align_to, datetime):
            raise TypeError(f"{type(self).__name__}: expected a datetime as align_to, got {_errors.shown(align_to)}")
        self.interval = interval
        self.align_to = align_to

    def next_item(self) -> Any:
        """The next rows, or None. Raise :class:`Retry` to be asked once more in between, StopIteration to end."""
        raise _errors.missing(self, "next_item()")

    def snapshot(self) -> Any:
        """From where to go on after the last item: anything that can be pickled."""
        return None

    def resume(self, state: Any) -> None:
        """Go on after what ``snapshot`` gave when it was read last; called before the first item, unless it is None."""

    def cancel(self) -> None:
        """End what ``next_item`` waits for, see :meth:`Partition.cancel`."""

    def open(self, partition: str, state: Any) -> Partition:
        """Open it."""
        if not hasattr(self, "interval"):
            raise _errors.Misuse(f"{type(self).__name__}.__init__() does not call super().__init__(interval)")
        _methods.check_plain(self, "cancel")
        if state is not None:
            _calls.run(self, "resume(state)", state)
        return _Polling(self)


class _Polling(Partition):
    """Ticks stay on their grid, also after a retry."""

    def __init__(self, source: PollingSource) -> None:
        self.source = source
        now = _now()
        align_to = source.align_to
        self.tick = now if align_to is None else _later(now, (_clock.instant(align_to) - now) % source.interval)
        self.awake = self.tick

    def next_batch(self) -> Any:
        try:
            item = _calls.ask(self.source, "next_item()")
        except Retry as retry:
            self.awake = _later(_now(), retry.timeout)
            return None
        self.tick = _later(self.tick, self.source.interval)
        now = _now()
        if self.tick < now:
            self.tick = _later(now, (self.tick - now) % self.source.interval)
        self.awake = self.tick
        return _errors.batch(self.source, "next_item", item)

    def next_awake(self) -> datetime:
        return self.awake

    def snapshot(self) -> Any:
        return _errors.synchronous(self.source, "snapshot", _calls.call(self.source, "snapshot()"))

    def cancel(self) -> None:
        _calls.run(self.source, "cancel()")


def _later(moment: datetime, by: timedelta) -> datetime:
    """So much after it; at most the end of the calendar."""
    try:
        return moment + by
    except OverflowError:
        return datetime.max.replace(tzinfo=timezone.utc) if by > timedelta(0) else moment


#: What ticks are counted by.
_now = now


class PushSource(Source):
    """Is given rows by whoever has them: a callback, another thread, a library's own loop.

    ``run()`` runs on a thread of its own. Rows come through ``next``, from any thread; where a query is slower than
    they are, ``next`` waits. The end is ``close()``, or the return of ``run()``; what that raises comes after the rows
    before it, also within a second after a ``close()`` of its own. Each query needs an instance of its own, and so does
    each partition, if there are several: then ``open`` gives another one for each.

    >>> class Words(PushSource):
    ...     def schema(self):
    ...         return "word string, size int32"
    ...
    ...     def run(self):
    ...         for word in ["sun", "moon"]:
    ...             self.next(word, len(word))
    >>> from couatl.testing import rows
    >>> rows(Words)
    [('sun', 3), ('moon', 4)]

    When the query has ended, ``wait`` says so, ``next`` raises KeyboardInterrupt on the thread of ``run()`` (elsewhere
    it gives False), and ``on_stop`` is called. A ``run()`` that goes on nevertheless is interrupted, a second later. A
    thread of one's own is best a loop that ends by itself:

    >>> class Count(PushSource):
    ...     def run(self):
    ...         import threading
    ...
    ...         threading.Thread(target=self.count).start()
    ...         self.wait()
    ...
    ...     def count(self):
    ...         n = 0
    ...         while self.next(n):
    ...             n += 1
    >>> rows(Count, limit=3)
    [0, 1, 2]
    """

    #: How many rows may wait to be read before ``next`` waits.
    capacity = 1024

    _couatl_rows: Rows
    #: The only column, where there is one.
    _couatl_only: str | None = None

    def __new__(cls, /, *args: Any, **kwargs: Any) -> PushSource:
        """Make the queue, whatever the constructor of a subclass forgets."""
        self = super().__new__(cls)
        _errors.counted(_errors.class_name(cls), "capacity", cls.capacity, 1)
        self._couatl_rows = Rows(cls.capacity)
        return self

    def __init__(self) -> None:
        """A push source has no options of its own."""

    def run(self) -> None:
        """Give rows until there are no more, or until the query has ended: see :meth:`wait`."""
        raise _errors.missing(self, "run()")

    def next(self, /, *row: Any, **columns: Any) -> bool:
        """Give one row, by position or by name, and whether it was taken: True, until the end.

        A single value by position is the row: a tuple, a list, a dict by column name, a bare value for the only column;
        or it is for Arrow to import, and many rows. Waits while ``capacity`` rows wait to be read. After the end, rows
        are ignored, each after a moment: a thread that does not look at what this gives, and goes on, costs nothing.
        """
        taken = self._couatl_put(row, columns)
        if not taken:
            self._couatl_rows.unwanted()
        return taken

    def _couatl_put(self, row: tuple[Any, ...], columns: dict[str, Any]) -> bool:
        if bool(row) == bool(columns):
            raise TypeError(f"{type(self).__name__}.next(): expected values by position, or by name")
        if columns:
            # As a dict, an only column could be taken for its value, where that is a map or JSON.
            only = len(columns) == 1 and self._couatl_only in columns
            return self._couatl_rows.put(tuple(columns.values()) if only else columns)
        if len(row) > 1:
            return self._couatl_rows.put(row)
        return self._couatl_rows.put_whole(row[0]) if is_arrow(row[0]) else self._couatl_rows.put(row[0])

    def commit(self) -> None:
        """Say that the rows so far belong together: they are delivered now."""
        self._couatl_rows.put_whole([])

    def close(self) -> None:
        """Say that no more rows come."""
        self._couatl_rows.end()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the query has ended, at most so many seconds; give whether it has.

        For a ``run()`` that has only registered callbacks: ``self.wait()`` keeps the source open.
        """
        return self._couatl_rows.ended.wait(timeout)

    def on_stop(self) -> None:
        """Clean up, once: on success, errors and cancels alike. It may be what makes ``run()`` return."""

    def open(self, partition: str, state: Any) -> Any:
        """Open it."""
        return self


class AsyncSource(Source):
    """Reads with ``async def``. It is opened, read and closed on an event loop of its own.

    ``open`` is an async generator, or gives an :class:`AsyncPartition`. All partitions share the loop, and ``close``
    may be an ``async def`` too. An async generator is read ahead, as far as some rows. A cancel is a CancelledError
    where it waits, an end before that a GeneratorExit where it yields.

    >>> class Ticks(AsyncSource):
    ...     def schema(self):
    ...         return "tick int64"
    ...
    ...     async def open(self, partition, state):
    ...         import asyncio
    ...
    ...         for tick in range(3):
    ...             await asyncio.sleep(0.01)
    ...             yield tick
    >>> from couatl.testing import rows
    >>> rows(Ticks)
    [0, 1, 2]
    """


class AsyncPartition:
    """A :class:`Partition` whose ``next_batch`` and ``close`` are awaited. StopAsyncIteration is the end.

    >>> class Once(AsyncPartition):
    ...     done = False
    ...
    ...     async def next_batch(self):
    ...         if self.done:
    ...             raise StopAsyncIteration
    ...         self.done = True
    ...         return [("a", 1), ("b", 2)]
    >>> class Twice(AsyncSource):
    ...     def partitions(self):
    ...         return ["first", "second"]
    ...
    ...     async def open(self, partition, state):
    ...         return Once()
    >>> from couatl.testing import rows
    >>> rows(Twice)
    [('a', 1), ('b', 2), ('a', 1), ('b', 2)]
    """

    async def next_batch(self) -> Any:
        """The next rows; None or an empty list where there are none now."""
        raise _errors.missing(self, "next_batch()")

    def next_awake(self) -> datetime | None:
        """When to ask for the next rows, asked before each time. A time without a zone is local.

        None is at once, or a millisecond after there were no rows.
        """
        return None

    def snapshot(self) -> Any:
        """From where to go on after the rows that were given: anything that can be pickled."""
        return None

    async def close(self) -> None:
        """Clean up, once: on success, errors and cancels alike."""
