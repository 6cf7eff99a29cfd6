"""Writers of a PySpark data source at work.

A writer pulls: ``write(iterator)`` is called once, and takes its rows out. A sink is pushed to. So `write` runs on a
thread of its own, from the first row to the flush, and is one task of one job, as Spark calls it: what it returns is
the one message that ``commit`` is given. A writer of streams has a task, a commit and a batch number for each flush.
"""

from __future__ import annotations

import contextlib
import importlib
import queue
from collections.abc import Callable, Iterator
from typing import Any

from couatl import sinks
from couatl._columns import Columns
from couatl._errors import misuse
from couatl._methods import check_has, check_plain
from couatl._push import QueryEnded
from couatl._threads import TICK, UserThread
from couatl._types import parse_type
from couatl.compat._pyspark_task import SparkTask
from couatl.compat._pyspark_types import struct_json_of, struct_of
from couatl.compat._pyspark_values import arrow_type, outgoing, row_maker

#: How many blocks may wait to be written.
BLOCKS = 2

#: The base classes, whose methods do nothing or raise.
BASES = [
    f"{module}.{name}"
    for module in ("pyspark.sql.datasource", "couatl.compat.pyspark")
    for name in (
        "DataSourceWriter",
        "DataSourceArrowWriter",
        "DataSourceStreamWriter",
        "DataSourceStreamArrowWriter",
    )
]
_ARROW = ("DataSourceArrowWriter", "DataSourceStreamArrowWriter")


class PySparkSink(sinks.Sink):
    """A data source, written to as a batch or as a stream."""

    def __init__(self, data_source: Any, is_stream: bool) -> None:
        self.data_source = data_source
        self.is_stream = is_stream
        self.writer: Any = None
        self.task: Task | None = None
        self.messages: list[Any] = []
        self.batch_id = 0
        self.blocks: Callable[[tuple[Any, ...]], Any]

    def open(self, columns: Columns) -> None:
        """Make the writer."""
        method = "streamWriter" if self.is_stream else "writer"
        struct = struct_of(columns)
        # INSERT adds: nothing is overwritten.
        self.writer = getattr(self.data_source, method)(struct, False)
        expected = "a DataSourceStreamWriter" if self.is_stream else "a DataSourceWriter"
        if isinstance(self.writer, type) or not hasattr(self.writer, "write"):
            raise misuse(self.data_source, method, self.writer, expected)
        check_has(self.writer, "write", BASES, expected, "iterator")
        check_plain(self.writer, "write", "iterator")
        for end in ("commit", "abort"):
            check_plain(self.writer, end, "messages", *(["batchId"] if self.is_stream else []))
        is_arrow = any(base.__name__ in _ARROW for base in type(self.writer).__mro__)
        self.blocks = record_batches(columns, struct) if is_arrow else rows(columns)

    def write(self, *columns: Any) -> None:
        """Hand a block to the task."""
        self.running().put(self.blocks(columns))

    def running(self) -> Task:
        if self.task is None:
            self.task = Task(self.writer)
        return self.task

    def flush(self) -> None:
        """Let the task end. A batch of no rows has one all the same."""
        if self.task is None and self.is_stream:
            return
        task = self.running()
        message = task.finish()
        self.task = None
        if message is not None and not _is_message(message):
            raise misuse(self.writer, "write", message, "a WriterCommitMessage, or None")
        self.messages.append(message)

    def commit(self) -> None:
        """Commit what the tasks have returned."""
        if self.is_stream and not self.messages:
            return
        self._end("commit", self.messages)
        self.messages = []
        self.batch_id += 1

    def abort(self) -> None:
        """End the task, and abort; the message of a task that has not ended is None."""
        has_begun = self.task is not None or bool(self.messages) or not self.is_stream
        self.close()
        if has_begun:
            self._end("abort", self.messages or [None])

    def _end(self, method: str, messages: list[Any]) -> None:
        end = getattr(self.writer, method, None)
        if callable(end):
            end(messages, self.batch_id) if self.is_stream else end(messages)

    def close(self) -> None:
        """End a task that goes on."""
        task, self.task = self.task, None
        if task is not None:
            task.cancel()


class Task:
    """One call of a writer's ``write``."""

    def __init__(self, writer: Any) -> None:
        self.writer = writer
        self.waiting: queue.Queue[Any] = queue.Queue(BLOCKS)
        self.is_cancelled = False
        self.is_over = False
        self.message: Any = None
        self.error: BaseException | None = None
        self.name = f"{type(writer).__qualname__}.write()"
        self.thread = UserThread(f"couatl-write:{type(writer).__qualname__}", self.run)

    def run(self) -> None:
        try:
            with SparkTask():
                self.message = self.writer.write(self.pulled())
        except StopIteration as error:
            # It would be taken for the end of something.
            self.error = RuntimeError(f"{self.name} raised StopIteration")
            self.error.__cause__ = error
        except BaseException as error:
            self.error = error
        self.is_over = True

    def pulled(self) -> Iterator[Any]:
        while True:
            try:
                block = self.waiting.get(timeout=TICK)
            except queue.Empty:
                block = ()
            if self.is_cancelled:
                raise QueryEnded("the statement has been aborted")
            if block is None:
                return
            yield from block

    def put(self, block: Any) -> None:
        """Give it a block, when there is room. One that has returned already wants no more."""
        while not self.is_over:
            try:
                self.waiting.put(block, timeout=TICK)
                break
            except queue.Full:
                continue
        self.check()

    def finish(self) -> Any:
        """Say that there are no more rows, and give what it returns."""
        self.put(None)
        while not self.thread.join(TICK):
            pass
        self.check()
        return self.message

    def check(self) -> None:
        error, self.error = self.error, None
        if error is not None:
            raise error

    def cancel(self) -> None:
        """End it where it asks for the next row; interrupt it where it does not ask."""
        self.is_cancelled = True
        with contextlib.suppress(queue.Full):
            # It waits for one, perhaps.
            self.waiting.put_nowait(())
        self.thread.end(self.name)


def rows(columns: Columns) -> Callable[[tuple[Any, ...]], Any]:
    """What makes Rows of a block."""
    converts = [outgoing(parse_type(kind)) for kind in columns.types]
    make = row_maker(columns.names)

    def block(lists: tuple[Any, ...]) -> Any:
        return [make(values) for values in zip(*_converted(lists, converts))]

    return block


def record_batches(columns: Columns, struct: Any) -> Callable[[tuple[Any, ...]], Any]:
    """What makes an Arrow record batch of a block, of the types that Spark would give."""
    pa: Any = importlib.import_module("pyarrow")
    converts = [outgoing(parse_type(kind), arrow=True) for kind in columns.types]
    schema = pa.schema(
        [pa.field(f["name"], arrow_type(f["type"]), f["nullable"]) for f in struct_json_of(struct)["fields"]]
    )

    def block(lists: tuple[Any, ...]) -> Any:
        arrays = [pa.array(values, kind) for values, kind in zip(_converted(lists, converts), schema.types)]
        return [pa.RecordBatch.from_arrays(arrays, schema=schema)]

    return block


def _converted(lists: tuple[Any, ...], converts: list[Any]) -> list[Any]:
    return [
        values if convert is None else [None if value is None else convert(value) for value in values]
        for values, convert in zip(lists, converts)
    ]


def _is_message(message: Any) -> bool:
    return any(base.__name__ == "WriterCommitMessage" for base in type(message).__mro__)
