"""Running a connector without a server, for its author's tests.

    >>> from couatl.sources import Source
    >>> from couatl.testing import check_source, rows
    >>> class Letters(Source):
    ...     def __init__(self, text: str):
    ...         self.text = text
    ...
    ...     def schema(self):
    ...         return "place int64, letter string"
    ...
    ...     def open(self, partition, state):
    ...         yield from enumerate(self.text)
    >>> rows(Letters, text="ab")
    [(0, 'a'), (1, 'b')]
    >>> check_source(Letters, text="ab")

A connector runs here as the engine runs it, a plain function or of whatever model it is, up to the conversion of its
rows.

```text
  rows, rows_and_state, write      what goes in, what comes out
  Reader                           the same, step by step
  clock                            time that passes when the test says so, and at once
  check_source, check_resume,      whether it keeps the contract: of its methods, of its snapshots
      check_sink
  TestingSource, failing_source,   what a test puts in the place of a connector: rows, pauses and ends that
      failing_sink                 are written down, and errors
```
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime
from itertools import islice
from typing import Any

from couatl import _clock
from couatl._clock import Clock
from couatl._columns import Columns
from couatl._conformance import check_resume, check_source
from couatl._contract import ContractError
from couatl._errors import counted, shown
from couatl._failing import InjectedFailure, failing_sink, failing_source
from couatl._plain import as_sink, as_source
from couatl._reading import reading
from couatl._script import Aborted, TestingSource
from couatl._shapes import declaration, flat, row_of
from couatl._sink_conformance import check_sink
from couatl._writing import writing

__all__ = [
    "Aborted",
    "Clock",
    "Columns",
    "ContractError",
    "InjectedFailure",
    "Reader",
    "TestingSource",
    "check_resume",
    "check_sink",
    "check_source",
    "clock",
    "failing_sink",
    "failing_source",
    "rows",
    "rows_and_state",
    "write",
]

END = object()


def rows(
    thing: object,
    *,
    columns: Columns | Mapping[str, str] | None = None,
    state: Any = None,
    limit: int | None = None,
    **options: Any,
) -> list[Any]:
    """Read a source, one partition after the other, and give its rows as they came; Arrow objects stay as they are.

    `columns` are names and types, where the connector does not know them itself. Each partition is opened with `state`.
    Reading ends at `limit` rows, an Arrow object counting as one; a source is closed, however it ends. What it raises
    is raised.
    """
    declared = None if columns is None else declaration(columns)
    _check_limit("rows", limit)
    found: list[Any] = []
    with closing(reading(as_source(thing), options, declared)) as source:
        for partition in source.partitions:
            left = None if limit is None else limit - len(found)
            if left != 0:
                with closing(source.open(partition, state)) as pull:
                    found += islice(flat(pull, declared), left)
    return found


def rows_and_state(
    thing: object,
    *,
    partition: str | None = None,
    columns: Columns | Mapping[str, str] | None = None,
    state: Any = None,
    limit: int | None = None,
    **options: Any,
) -> tuple[list[Any], Any]:
    """Read one partition of a source, by default the first, and give its rows, and from where to go on after them.

    Reading ends with the batch that has row `limit`, all of which is given: a state is that of whole batches. Raises
    ValueError where there is no such partition.

    >>> from couatl.sources import Partition, Source
    >>> class Pairs(Partition, Source):
    ...     def open(self, partition, state):
    ...         self.last = state or 0
    ...         return self
    ...
    ...     def next_batch(self):
    ...         self.last += 2
    ...         return [self.last - 1, self.last]
    ...
    ...     def snapshot(self):
    ...         return self.last
    >>> found, state = rows_and_state(Pairs, limit=3)
    >>> found, state
    ([1, 2, 3, 4], 4)
    >>> rows_and_state(Pairs, state=state, limit=1)
    ([5, 6], 6)
    """
    _check_limit("rows_and_state", limit)
    found: list[Any] = []
    with Reader(thing, partition=partition, columns=columns, state=state, **options) as reader:
        while not reader.ended and (limit is None or len(found) < limit):
            found += reader._next()
        return found, reader.snapshot()


def _check_limit(of: str, limit: object) -> None:
    if limit is not None:
        counted(of, "limit", limit)


class Reader:
    """One partition of a source, by default the first, opened with `state`: its rows are taken step by step.

    It is closed at the end of its ``with``, with the source. Raises ValueError where there is no such partition.

    >>> from datetime import timedelta
    >>> from couatl.sources import PollingSource
    >>> from couatl.testing import Reader, clock
    >>> class Hourly(PollingSource):
    ...     def __init__(self):
    ...         super().__init__(timedelta(hours=1))
    ...
    ...     def next_item(self):
    ...         return "news"
    >>> with clock() as time, Reader(Hourly) as reader:
    ...     reader.take(), reader.take()
    ...     now = time.advance(timedelta(hours=1))
    ...     reader.take(), reader.take()
    (['news'], [])
    (['news'], [])
    """

    def __init__(
        self,
        thing: object,
        *,
        partition: str | None = None,
        columns: Columns | Mapping[str, str] | None = None,
        state: Any = None,
        **options: Any,
    ) -> None:
        self._columns = None if columns is None else declaration(columns)
        #: Whether there are no more rows.
        self.ended = False
        self._source = reading(as_source(thing), options, self._columns)
        try:
            names = [name for name in self._source.partitions if partition in (None, name)]
            if not names:
                raise ValueError(f"there is no partition {partition!r}; expected one of {self._source.partitions}")
            self._pull = self._source.open(names[0], state)
        except BaseException:
            self._source.close()
            raise

    def take(self) -> list[Any]:
        """The rows of the next batch; none at the end, or before the time at which the source wants to be asked.

        One that waits for something else, a push or an answer, is waited for.
        """
        return self._next() if not self.ended and self._pull.is_due() else []

    def _next(self) -> list[Any]:
        """The rows of the next batch, when there is one."""
        batch = next(self._pull, END)
        self.ended = batch is END
        return [] if self.ended else list(flat([batch], self._columns))

    def snapshot(self) -> Any:
        """From where to go on after the rows that were taken."""
        return self._pull.snapshot()

    def cancel(self) -> None:
        """End what ``take`` waits for, from another thread, as the end of a query does."""
        self._pull.cancel()

    def close(self) -> None:
        """Clean up, once, however often it is called."""
        try:
            self._pull.close()
        finally:
            self._source.close()

    def __enter__(self) -> Reader:
        """The reader itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Clean up."""
        self.close()


@contextmanager
def clock(start: datetime | None = None) -> Iterator[Clock]:
    """Put a clock in the place of the machine's, for the process: it stands still at `start`, by default the time now.

    Nothing waits for a time then: who would, a polling source, a :class:`~couatl.sources.Retry`, a ``next_awake``,
    moves the clock on to it instead. ``advance`` lets time pass in between, and ``now`` says what time it is; where it
    is not to be moved on, take rows from a :class:`Reader`. A time without a zone is local.

    The SDK takes the time from it, and so does what asks :func:`couatl.sources.now`; ``datetime.now`` is the machine's.

    >>> from datetime import datetime, timedelta, timezone
    >>> from couatl.sources import PollingSource, now
    >>> from couatl.testing import clock, rows
    >>> class Hourly(PollingSource):
    ...     def __init__(self):
    ...         super().__init__(timedelta(hours=1))
    ...
    ...     def next_item(self):
    ...         return f"{now():%H:%M}"
    >>> with clock(datetime(2025, 1, 31, 12, tzinfo=timezone.utc)):
    ...     rows(Hourly, limit=3)
    ['12:00', '13:00', '14:00']
    """
    if start is not None and not isinstance(start, datetime):
        raise TypeError(f"clock: expected a datetime as start, got {shown(start)}")
    given = Clock(_clock.now() if start is None else start)
    with _clock.in_place(given):
        yield given


def write(thing: object, rows: Iterable[Any], *, columns: Columns | Mapping[str, str], **options: Any) -> None:
    """Write rows to a sink, as one block: tuples, dicts by column name, or bare values for the only column.

    It is committed, or aborted where it raises, and closed. What it raises is raised.
    """
    declared = declaration(columns)
    values = [row_of(row, declared) for row in rows]
    sink = writing(as_sink(thing), options, declared)
    sink.open()
    try:
        if values:
            sink.write(*map(list, zip(*values)))
        sink.flush()
        sink.commit()
    except BaseException:
        sink.abort()
        raise
    finally:
        sink.close()
