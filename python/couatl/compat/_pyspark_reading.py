"""Readers of a PySpark data source at work: planned, split, read.

```text
  reader(schema)        partitions()  ──>  a partition each, read(partition)             batch
  streamReader(schema)  latestOffset(), partitions(start, end), read(partition)  ──┐
  simpleStreamReader(schema)  read(start) -> (rows, end)                         ──┴─>  one partition, microbatches
```

The snapshot of a stream is its offset. Within a microbatch it is ``(start, end, rows given)``: Spark promises sources
to ask again for the same offsets after a failure, and so the same is done here.

A row that a reader yields leaves before the next one is asked for, which may take its time; those of a list leave
together.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any, cast

from couatl import _clock, sources
from couatl._classes import derives
from couatl._columns import Columns
from couatl._errors import Misuse, class_name, misuse, shown
from couatl._methods import check_has, check_plain
from couatl._pull import Pull, is_arrow
from couatl.compat._pyspark_task import SparkTask
from couatl.compat._pyspark_types import columns_text, named, struct_json_of, struct_of
from couatl.compat._pyspark_values import incoming

#: How long to wait where a stream has nothing new, as Spark does.
POLLING_DELAY = timedelta(milliseconds=10)
#: How many rows leave together, at most.
CHUNK = 1024
#: What holds its rows already: asking for the next one never waits.
HELD: tuple[type, ...] = (list, tuple, deque, type(iter([])), type(iter(())))

#: The base classes, whose methods do nothing or raise.
BASES = [
    f"{module}.{name}"
    for module in ("pyspark.sql.datasource", "couatl.compat.pyspark")
    for name in ("DataSourceReader", "DataSourceStreamReader", "SimpleDataSourceStreamReader")
]
#: What a reader of streams must have, and what it is called with.
STREAM_METHODS = {
    "initialOffset": [],
    "latestOffset": ["start", "limit"],
    "partitions": ["start", "end"],
    "read": ["partition"],
}
SIMPLE_METHODS: dict[str, list[str]] = {"initialOffset": [], "read": ["start"]}

#: What is to be closed where it is not read to its end.
Rows = Generator[Any, None, None]


class PySparkSource(sources.Source):
    """A data source, read as a batch or as a stream."""

    def __init__(self, data_source: Any, columns: Columns | None, is_stream: bool) -> None:
        self.data_source = data_source
        self.columns = columns
        self.is_stream = is_stream
        self.parts: list[Any] = []
        self.reader: Any = None
        self.rows: Callable[[Any, Any], Rows]

    def schema(self) -> str | None:
        """Its columns, where it says them."""
        found = self._schema()
        return None if found is None else columns_text(struct_json_of(found))

    def _schema(self) -> Any:
        try:
            found = self.data_source.schema()
        except NotImplementedError:
            return None
        expected = "a StructType or its DDL text"
        try:
            columns_text(struct_json_of(found))
        except TypeError:
            raise misuse(self.data_source, "schema", found, expected) from None
        except ValueError as error:
            raise misuse(self.data_source, "schema", found, f"{expected}: {error}") from None
        return found

    def partitions(self) -> list[str]:
        """The numbers of a batch's partitions; a stream is one."""
        declared = self.columns if self.columns is not None else self._schema()
        if declared is None:
            raise Misuse(f"{class_name(self.data_source)} has no schema(), and no columns are declared")
        struct = struct_of(declared)
        self.rows = rows_of(struct_json_of(struct))
        if self.is_stream:
            self.reader = stream_reader(self.data_source, struct)
            return [""]
        self.reader = batch_reader(self.data_source, struct)
        try:
            found = self.reader.partitions()
        except NotImplementedError:
            found = []
        # What is in parallel there has a copy each.
        self.parts = checked_parts(self.reader, found) or [named("pyspark.sql.datasource", "InputPartition")(None)]
        return [str(number) for number in range(len(self.parts))]

    def open(self, partition: str, state: Any) -> Any:
        """Open one of the partitions."""
        if self.is_stream:
            return Stream(self.reader, self.rows, state)
        reader, part = self.reader, self.parts[int(partition)]
        if len(self.parts) > 1:
            reader, part = own(reader), own(part)
        return self._batch(int(partition), reader, part)

    def close(self) -> None:
        """Stop a stream's reader."""
        if self.is_stream and callable(getattr(self.reader, "stop", None)):
            self.reader.stop()

    def _batch(self, number: int, reader: Any, part: Any) -> Rows:
        return one_by_one(self.rows(reader, SparkTask(number).rows(lambda: checked_rows(reader, reader.read(part)))))


class Stream(Pull):
    """A stream, microbatch after microbatch. One is committed when the next is asked for."""

    def __init__(self, reader: Any, rows_of: Callable[[Any, Any], Rows], state: Any) -> None:
        super().__init__()
        self.reader = reader
        self.rows_of = rows_of
        self.is_simple = not hasattr(reader, "latestOffset")
        self.start: Any = None
        self.end: Any = None
        #: How many rows of a microbatch have been given; None between two.
        self.given: int | None = None
        self.committed: Any = None
        #: When to ask again, where there was nothing new.
        self.awake: datetime | None = None
        parts: Iterator[Rows] | None = None
        if isinstance(state, tuple):
            self.start, self.end, self.given = state
            parts = self.between(self.start, self.end)
        else:
            self.start = state if state is not None else self.offset("initialOffset", reader.initialOffset())
        self.items = self.read_on(parts, self.given or 0)

    def __iter__(self) -> Rows:
        # Without a layer between: a row costs as much as that of a generator.
        return self.items

    def __next__(self) -> Any:
        return next(self.items)

    def read_on(self, parts: Iterator[Rows] | None, passed: int) -> Rows:
        """Rows, lists of them and what Arrow can import; None where there is nothing new."""
        while True:
            if parts is not None:
                yield from self.read_microbatch(parts, passed)
            while (left := self.left()) > 0 and not _clock.wait(left, self.cancelled):
                pass
            if self.cancelled.is_set():
                return
            parts, passed = self.advance(), 0
            self.awake = _clock.now() + POLLING_DELAY if parts is None else None
            if parts is None:
                yield None

    def read_microbatch(self, parts: Iterator[Rows], passed: int) -> Rows:
        """What is in the parts, after so many rows that have been given before; then the microbatch is over."""
        self.given = 0
        for part in parts:
            with closing(part):
                for item in part:
                    count = len(item) if type(item) is list else 1
                    left_out = min(count, passed - self.given) if self.given < passed else 0
                    self.given += count
                    if left_out < count:
                        yield item[left_out:] if left_out else item
        # Where it was empty, the next one is not asked for at once.
        self.awake = None if self.given else _clock.now() + POLLING_DELAY
        self.given, self.start, self.committed = None, self.end, self.end

    def left(self) -> float:
        """How long to wait, in seconds."""
        return 0 if self.awake is None else _clock.seconds_until(self.awake)

    def is_due(self) -> bool:
        return self.left() <= 0

    def offset(self, method: str, found: Any) -> Any:
        """An offset as it comes out of Spark's log, where some readers put JSON that they have made themselves."""
        try:
            if isinstance(found, (dict, str)):
                return json.loads(json.dumps(found))
        except (TypeError, ValueError):
            pass
        raise misuse(self.reader, method, found, "an offset: a dict that JSON can hold, or text")

    def advance(self) -> Iterator[Rows] | None:
        """Commit what has been given, and ask for the next microbatch: its parts, where there is one."""
        try:
            if self.committed is not None:
                committed, self.committed = self.committed, None
                if callable(getattr(self.reader, "commit", None)):
                    self.reader.commit(committed)
            return self.microbatch()
        except StopIteration as error:
            # It would be taken for the end.
            raise RuntimeError(f"{class_name(self.reader)} raised StopIteration, and a stream has no end") from error

    def microbatch(self) -> Iterator[Rows] | None:
        """The parts of the next one, where there is one."""
        if not self.is_simple:
            self.end = self.offset("latestOffset", self.latest())
            return None if self.end == self.start else self.between(self.start, self.end)
        found = self.reader.read(copy.deepcopy(self.start))
        if not isinstance(found, tuple) or len(found) != 2 or not is_rows(found[0]):
            raise misuse(self.reader, "read", found, "a pair: an iterator of rows, and the offset where they end")
        rows, end = found
        self.end = self.offset("read", end)
        converted = self.converted(rows)
        if self.end != self.start:
            return iter([converted])
        if next(converted, None) is not None:
            converted.close()
            what = f"{class_name(self.reader)}.read() gave rows, and the offset {self.end} where it had begun"
            raise Misuse(f"{what}; expected another one, as the next read would give them again")
        return None

    def latest(self) -> Any:
        latest = self.reader.latestOffset
        if takes_nothing(latest):
            return latest()
        limit = getattr(self.reader, "getDefaultReadLimit", None)
        chosen = limit() if callable(limit) else named("pyspark.sql.streaming.datasource", "ReadAllAvailable")()
        if not any(base.__name__ == "ReadLimit" for base in type(chosen).__mro__):
            raise misuse(self.reader, "getDefaultReadLimit", chosen, "a ReadLimit, such as ReadAllAvailable()")
        return latest(copy.deepcopy(self.start), chosen)

    def between(self, start: Any, end: Any) -> Iterator[Rows]:
        """What is between two offsets, part after part."""
        start, end = copy.deepcopy(start), copy.deepcopy(end)
        if self.is_simple:
            method, expected = "readBetweenOffsets", ["start", "end"]
            what = "a SimpleDataSourceStreamReader that is read again"
            check_has(self.reader, method, BASES, what, *expected)
            check_plain(self.reader, method, *expected, yields=True)
            found = checked_rows(self.reader, self.reader.readBetweenOffsets(start, end), method)
            return iter([self.converted(found)])
        parts = checked_parts(self.reader, self.reader.partitions(start, end))
        return (self.read(number, part) for number, part in enumerate(parts))

    def read(self, number: int, part: Any) -> Rows:
        """What is in a part, each part a task."""
        return SparkTask(number).rows(lambda: self.converted(checked_rows(self.reader, self.reader.read(part))))

    def converted(self, found: Iterable[Any]) -> Rows:
        """Rows as the engine takes them: those that are there already in lists, others one by one."""
        rows = self.rows_of(self.reader, found)
        return in_lists(rows) if type(found) in HELD else one_by_one(rows)

    def _close(self) -> None:
        self.items.close()

    def snapshot(self) -> Any:
        return copy.deepcopy(self.start if self.given is None else (self.start, self.end, self.given))


def in_lists(rows: Rows) -> Rows:
    """The rows in lists; what is for Arrow to import leaves alone."""
    chunk: list[Any] = []
    with closing(rows):
        for row in rows:
            if isinstance(row, tuple):
                chunk.append(row)
            if chunk and (len(chunk) == CHUNK or not isinstance(row, tuple)):
                yield chunk
                chunk = []
            if not isinstance(row, tuple):
                yield row
    if chunk:
        yield chunk


def one_by_one(rows: Rows) -> Rows:
    """The rows, of which none is taken for a batch: a tuple that begins with a list would be."""
    with closing(rows):
        for row in rows:
            yield [row] if isinstance(row, tuple) and row and isinstance(row[0], (list, tuple)) else row


def takes_nothing(latest: Callable[..., Any]) -> bool:
    """Whether a ``latestOffset`` is as it was before Spark 4.2."""
    try:
        return not inspect.signature(latest).parameters
    except (TypeError, ValueError):
        # It is none, or lacks self: its check says so.
        return False


def batch_reader(data_source: Any, struct: Any) -> Any:
    """The reader of a batch."""
    reader, what = data_source.reader(struct), "a DataSourceReader"
    if isinstance(reader, type) or not all(hasattr(reader, name) for name in ("read", "partitions")):
        raise misuse(data_source, "reader", reader, what)
    check_has(reader, "read", BASES, what, "partition")
    check_plain(reader, "partitions")
    check_plain(reader, "read", "partition", yields=True)
    return reader


def stream_reader(data_source: Any, struct: Any) -> Any:
    """The stream reader; the simple one where there is no other."""
    method, expected = "streamReader", "a DataSourceStreamReader"
    is_simple = not hasattr(data_source, method)
    if not is_simple:
        try:
            reader = data_source.streamReader(struct)
        except NotImplementedError:
            is_simple = True
    if is_simple:
        method, expected = "simpleStreamReader", "a SimpleDataSourceStreamReader"
        reader = data_source.simpleStreamReader(struct)
    if isinstance(reader, type) or not all(hasattr(reader, name) for name in ("read", "initialOffset")):
        raise misuse(data_source, method, reader, expected)
    check_stream_reader(reader)
    return reader


def check_stream_reader(reader: Any) -> None:
    """Whether the methods of a reader of streams are there, and can be called."""
    is_simple = not hasattr(reader, "latestOffset")
    what = "a SimpleDataSourceStreamReader" if is_simple else "a DataSourceStreamReader"
    for method, parameters in (SIMPLE_METHODS if is_simple else STREAM_METHODS).items():
        check_has(reader, method, BASES, what, *parameters)
        taken = [] if method == "latestOffset" and takes_nothing(reader.latestOffset) else parameters
        check_plain(reader, method, *taken, yields=method == "read" and not is_simple)
    check_plain(reader, "getDefaultReadLimit")
    check_plain(reader, "commit", "end")
    check_plain(reader, "stop")


def checked_parts(reader: Any, found: Any) -> list[Any]:
    """The partitions that a reader has planned."""
    known = ("pyspark.sql.datasource.InputPartition", "couatl.compat.pyspark.InputPartition")
    if isinstance(found, (list, tuple)) and all(derives(type(part), *known) for part in found):
        return list(found)
    raise misuse(reader, "partitions", found, "a list of InputPartition")


def is_rows(found: Any) -> bool:
    """Whether it can be iterated over for rows."""
    return isinstance(found, Iterable) and not isinstance(found, (str, bytes, Mapping))


def checked_rows(reader: Any, found: Any, method: str = "read") -> Iterable[Any]:
    """What a reader reads, which can be iterated over."""
    if is_rows(found):
        return cast(Iterable[Any], found)
    raise misuse(reader, method, found, "an iterator of tuples, Rows, or Arrow record batches")


def own(thing: Any) -> Any:
    """A copy for one of several threads; the thing itself where there can be none, and where Spark would refuse it."""
    try:
        return copy.deepcopy(thing)
    except Exception:
        return thing


def rows_of(struct: Any) -> Callable[[Any, Any], Rows]:
    """What turns what a reader reads into tuples in the order of the columns, and lets Arrow pass."""
    names = [column["name"] for column in struct["fields"]]
    converts = [incoming(column["type"]) for column in struct["fields"]]
    converting = [(place, convert) for place, convert in enumerate(converts) if convert is not None]
    expected = set(names)

    def tuple_of(reader: Any, row: Any) -> Any:
        fields = getattr(row, "__fields__", None)
        if isinstance(row, tuple) and fields is None:
            pass
        elif isinstance(row, (tuple, Mapping)):
            by_name = dict(row) if isinstance(row, Mapping) else dict(zip(fields or (), row))
            if set(by_name) != expected:
                what = f"{class_name(reader)}.read() yielded a row of {', '.join(map(str, by_name))}"
                raise Misuse(f"{what}; expected the columns {', '.join(names)}")
            row = tuple(by_name[name] for name in names)
        elif isinstance(row, list):
            row = tuple(row)
        elif is_arrow(row):
            return row
        else:
            what = f"{class_name(reader)}.read() yielded {shown(row)}"
            raise Misuse(f"{what}; expected a tuple, a Row, or an Arrow record batch")
        if converting and len(row) == len(names):
            values = list(row)
            for place, convert in converting:
                if values[place] is not None:
                    values[place] = convert(values[place])
            row = tuple(values)
        return row if type(row) is tuple else tuple(row)

    def rows(reader: Any, found: Any) -> Rows:
        iterator = iter(checked_rows(reader, found))
        try:
            for row in iterator:
                yield tuple_of(reader, row)
        finally:
            close = getattr(iterator, "close", None)
            if callable(close):
                close()

    return rows
