"""PySpark's Python data sources: ``pyspark.sql.datasource``, without a JVM and without a session.

```text
  DataSource(options)  ──reader──────────────>  a partition for each InputPartition
                       ──streamReader────────>  one partition, whose snapshot is the offset
                       ──simpleStreamReader──>  the same
                       <──writer, streamWriter  rows, or Arrow record batches
```

The classes here have the library's names, for those who change only an import. Where the library is installed, schemas
and rows that a data source is given are its own ``StructType`` and ``Row``; else the small ones here. Filters are not
pushed down: ``pushFilters`` is never called.
"""

from __future__ import annotations

from collections import UserDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from couatl import sinks, sources
from couatl._classes import has_own, named_after, refuse_options
from couatl._columns import Columns
from couatl._errors import Misuse, class_name
from couatl._methods import check_made, check_plain
from couatl.compat._pyspark_datatypes import (
    ArrayType,
    BinaryType,
    BooleanType,
    ByteType,
    CharType,
    DataType,
    DateType,
    DayTimeIntervalType,
    DecimalType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    MapType,
    NullType,
    ShortType,
    StringType,
    StructField,
    StructType,
    TimestampNTZType,
    TimestampType,
    TimeType,
    VarcharType,
)
from couatl.compat._pyspark_reading import PySparkSource
from couatl.compat._pyspark_schema import (
    EqualNullSafe,
    EqualTo,
    Filter,
    GreaterThan,
    GreaterThanOrEqual,
    In,
    IsNotNull,
    IsNull,
    LessThan,
    LessThanOrEqual,
    Not,
    ReadAllAvailable,
    ReadLimit,
    ReadMaxBytes,
    ReadMaxFiles,
    ReadMaxRows,
    ReadMinRows,
    Row,
    StringContains,
    StringEndsWith,
    StringStartsWith,
)
from couatl.compat._pyspark_task import TaskContext
from couatl.compat._pyspark_types import read_ddl_without_session
from couatl.compat._pyspark_writing import PySparkSink

__all__ = [
    "ArrayType",
    "BinaryType",
    "BooleanType",
    "ByteType",
    "CharType",
    "DataSource",
    "DataSourceArrowWriter",
    "DataSourceReader",
    "DataSourceStreamArrowWriter",
    "DataSourceStreamReader",
    "DataSourceStreamWriter",
    "DataSourceWriter",
    "DataType",
    "DateType",
    "DayTimeIntervalType",
    "DecimalType",
    "DoubleType",
    "EqualNullSafe",
    "EqualTo",
    "Filter",
    "FloatType",
    "GreaterThan",
    "GreaterThanOrEqual",
    "In",
    "InputPartition",
    "IntegerType",
    "IsNotNull",
    "IsNull",
    "LessThan",
    "LessThanOrEqual",
    "LongType",
    "MapType",
    "Not",
    "NullType",
    "ReadAllAvailable",
    "ReadLimit",
    "ReadMaxBytes",
    "ReadMaxFiles",
    "ReadMaxRows",
    "ReadMinRows",
    "Row",
    "ShortType",
    "SimpleDataSourceStreamReader",
    "StringContains",
    "StringEndsWith",
    "StringStartsWith",
    "StringType",
    "StructField",
    "StructType",
    "TaskContext",
    "TimeType",
    "TimestampNTZType",
    "TimestampType",
    "VarcharType",
    "WriterCommitMessage",
    "as_sink",
    "as_source",
    "check_class",
]

#: The base classes, whose methods raise.
_BASES = ("pyspark.sql.datasource.DataSource", f"{__name__}.DataSource")
#: What a data source makes, and with what.
_MAKES = {
    "reader": ["schema"],
    "streamReader": ["schema"],
    "simpleStreamReader": ["schema"],
    "writer": ["schema", "overwrite"],
    "streamWriter": ["schema", "overwrite"],
}
_WRITERS = ["writer", "streamWriter"]


class DataSource:
    """Something that can be read from, written to, or both: it makes the readers and writers.

    >>> from couatl.compat.pyspark import DataSource, DataSourceReader, InputPartition
    >>> class Numbers(DataSource):
    ...     def schema(self):
    ...         return "part INT, n INT"
    ...
    ...     def reader(self, schema):
    ...         return NumbersReader(int(self.options["rows"]))
    >>> class NumbersReader(DataSourceReader):
    ...     def __init__(self, rows):
    ...         self.rows = rows
    ...
    ...     def partitions(self):
    ...         return [InputPartition(1), InputPartition(2)]
    ...
    ...     def read(self, partition):
    ...         for n in range(self.rows):
    ...             yield partition.value, n
    >>> from couatl.testing import rows
    >>> rows(Numbers, rows=2)
    [(1, 0), (1, 1), (2, 0), (2, 1)]
    """

    def __init__(self, options: Any) -> None:
        self.options = options

    @classmethod
    def name(cls) -> str:
        """What it is called as a format."""
        return cls.__name__

    def schema(self) -> Any:
        """The columns: a StructType, or DDL such as ``a INT, b STRING``."""
        raise NotImplementedError(f"{class_name(self)} has no schema()")

    def reader(self, schema: Any) -> DataSourceReader:
        """What reads it as a batch."""
        raise NotImplementedError(f"{class_name(self)} has no reader(schema)")

    def streamReader(self, schema: Any) -> DataSourceStreamReader:
        """What reads it as a stream, in partitions."""
        raise NotImplementedError(f"{class_name(self)} has no streamReader(schema)")

    def simpleStreamReader(self, schema: Any) -> SimpleDataSourceStreamReader:
        """What reads it as a stream, in one go."""
        raise NotImplementedError(f"{class_name(self)} has no simpleStreamReader(schema)")

    def writer(self, schema: Any, overwrite: bool) -> DataSourceWriter:
        """What writes to it."""
        raise NotImplementedError(f"{class_name(self)} has no writer(schema, overwrite)")

    def streamWriter(self, schema: Any, overwrite: bool) -> DataSourceStreamWriter:
        """What writes microbatches to it."""
        raise NotImplementedError(f"{class_name(self)} has no streamWriter(schema, overwrite)")


class InputPartition:
    """One part of what a reader reads; derive from it to say more than a value."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({values})"


class DataSourceReader:
    """Reads a batch. Each of several partitions is read from a copy of it, side by side."""

    def pushFilters(self, filters: list[Filter]) -> Iterable[Filter]:
        """Never called."""
        return filters

    def partitions(self) -> Sequence[InputPartition]:
        """The parts; one unless it says otherwise."""
        return [InputPartition(None)]

    def read(self, partition: Any) -> Iterator[Any]:
        """The rows of a part: tuples, Rows, or Arrow record batches."""
        raise NotImplementedError(f"{class_name(self)} has no read(partition)")


class DataSourceStreamReader:
    """Reads a stream. Offsets are dicts that JSON can hold."""

    def initialOffset(self) -> dict[str, Any]:
        """Where a new query begins."""
        raise NotImplementedError(f"{class_name(self)} has no initialOffset()")

    def latestOffset(self, start: dict[str, Any], limit: Any) -> dict[str, Any]:
        """How far there is something to read now; `start` where there is nothing new."""
        raise NotImplementedError(f"{class_name(self)} has no latestOffset(start, limit)")

    def getDefaultReadLimit(self) -> ReadLimit:
        """How much is to be read at once."""
        return ReadAllAvailable()

    def reportLatestOffset(self) -> dict[str, Any] | None:
        """Never called."""
        return None

    def partitions(self, start: dict[str, Any], end: dict[str, Any]) -> Sequence[InputPartition]:
        """The parts between two offsets, which are read in their order."""
        raise NotImplementedError(f"{class_name(self)} has no partitions(start, end)")

    def read(self, partition: Any) -> Iterator[Any]:
        """The rows of a part."""
        raise NotImplementedError(f"{class_name(self)} has no read(partition)")

    def commit(self, end: dict[str, Any]) -> None:
        """All up to an offset has been taken: nothing before it is asked for again."""

    def stop(self) -> None:
        """Clean up, once."""


class SimpleDataSourceStreamReader:
    """Reads a stream that is no more than one thread can read."""

    def initialOffset(self) -> dict[str, Any]:
        """Where a new query begins."""
        raise NotImplementedError(f"{class_name(self)} has no initialOffset()")

    def read(self, start: dict[str, Any]) -> tuple[Iterator[Any], dict[str, Any]]:
        """The rows after an offset that are there, and the offset after them."""
        raise NotImplementedError(f"{class_name(self)} has no read(start)")

    def readBetweenOffsets(self, start: dict[str, Any], end: dict[str, Any]) -> Iterator[Any]:
        """The same rows again, after a failure."""
        raise NotImplementedError(f"{class_name(self)} has no readBetweenOffsets(start, end)")

    def commit(self, end: dict[str, Any]) -> None:
        """All up to an offset has been taken."""


class WriterCommitMessage:
    """What a task tells the commit; derive from it to say something."""


class DataSourceWriter:
    """Writes a batch: ``write`` once, then ``commit`` or ``abort``."""

    def write(self, iterator: Iterator[Any]) -> Any:
        """Take all Rows out of an iterator."""
        raise NotImplementedError(f"{class_name(self)} has no write(iterator)")

    def commit(self, messages: list[Any]) -> None:
        """Make it count: what ``write`` has returned is in the list."""

    def abort(self, messages: list[Any]) -> None:
        """Undo it; None stands for a task that has not ended."""


class DataSourceArrowWriter(DataSourceWriter):
    """The same, of Arrow record batches instead of Rows."""


class DataSourceStreamWriter:
    """Writes microbatches: for each, ``write``, then ``commit`` or ``abort``."""

    def write(self, iterator: Iterator[Any]) -> Any:
        """Take all Rows of a microbatch out of an iterator."""
        raise NotImplementedError(f"{class_name(self)} has no write(iterator)")

    def commit(self, messages: list[Any], batchId: int) -> None:
        """Make a microbatch count; its number is one more than that of the one before."""

    def abort(self, messages: list[Any], batchId: int) -> None:
        """Undo a microbatch."""


class DataSourceStreamArrowWriter(DataSourceStreamWriter):
    """The same, of Arrow record batches instead of Rows."""


class _Options(UserDict[str, str]):
    """Options as Spark gives them: names in any case, values as text."""

    def __setitem__(self, key: str, value: str) -> None:
        super().__setitem__(key.lower(), value)

    def __getitem__(self, key: str) -> str:
        return super().__getitem__(key.lower())

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key.lower())

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and super().__contains__(key.lower())


class _Written(PySparkSource):
    """A data source that is only written to: it says its columns, and what there is to say to those who read it."""

    def __init__(self, data_source: Any, columns: Columns | None, unread: Misuse) -> None:
        super().__init__(data_source, columns, False)
        self.unread = unread

    def partitions(self) -> list[str]:
        raise self.unread


def as_source(
    thing: Any, options: Mapping[str, Any], columns: Columns | None, streaming: bool | None = None
) -> sources.Source:
    """Adapt a data source.

    One with a ``reader`` is read as a batch, one with stream readers alone as a stream. Where it has both, `streaming`
    says which; else the option ``mode``, where it is ``batch`` or ``streaming``. One that has a schema and is only
    written to may be asked for that.
    """
    readers = ("streamReader", "simpleStreamReader")
    try:
        is_stream = _is_stream(thing, "reader", readers, options, streaming)
    except Misuse as error:
        if not all(any(_has(thing, name) for name in names) for names in (["schema"], _WRITERS)):
            raise
        return named_after(thing, _Written)(_data_source(thing, options), columns, error)
    made = _data_source(thing, options)
    return named_after(thing, PySparkSource)(made, columns, is_stream)


def as_sink(thing: Any, options: Mapping[str, Any], columns: Columns | None) -> sinks.Sink:
    """Adapt a data source to be written to; where it has both a ``writer`` and a ``streamWriter``, ``mode`` says which.

    It is the option of that name, as it is for sources.
    """
    is_stream = _is_stream(thing, "writer", ("streamWriter",), options, None)
    return PySparkSink(_data_source(thing, options), is_stream)


def check_class(cls: type, role: str = "source") -> None:
    """Misuse where a data source cannot be made, or can neither be read nor written to; nothing of it runs.

    In either role: one that can only be read is no worse a sink than others, until it is written to.
    """
    check_made(cls, "options")
    own = [method for method in _MAKES if _has(cls, method)]
    if not own:
        raise Misuse(f"{class_name(cls)} has none of {_listed(_MAKES)}; a data source must")
    for method in own:
        check_plain(cls, method, *_MAKES[method])
    check_plain(cls, "schema")


def _listed(methods: Iterable[str]) -> str:
    return ", ".join(f"{method}()" for method in methods)


def _data_source(thing: Any, options: Mapping[str, Any]) -> Any:
    if not isinstance(thing, type):
        refuse_options(thing, options)
        return thing
    check_class(thing)
    read_ddl_without_session()
    given = {name: _text(value) for name, value in options.items() if value is not None}
    return thing(_Options(given))


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _has(thing: Any, method: str) -> bool:
    return has_own(thing if isinstance(thing, type) else type(thing), method, _BASES)


def _is_stream(
    thing: Any, batch: str, stream: Sequence[str], options: Mapping[str, Any], streaming: bool | None
) -> bool:
    has_batch, has_stream = _has(thing, batch), any(_has(thing, method) for method in stream)
    if not has_batch and not has_stream:
        role = "source" if batch == "reader" else "sink"
        raise Misuse(f"{class_name(thing)} has none of {_listed([batch, *stream])}; a {role} must")
    if has_batch != has_stream:
        return has_stream
    if streaming is None:
        return str(options.get("mode", "")).lower() == "streaming"
    return streaming
