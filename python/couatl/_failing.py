"""Connectors that fail where a test says so: what is built on them, and what they leave behind, is looked at then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

from couatl._columns import Columns
from couatl._errors import class_name, counted, shown
from couatl._plain import as_sink, as_source
from couatl._pull import Pull
from couatl._reading import Reading, reading, schema_of, source_of
from couatl._shapes import flat
from couatl._writing import Writing, sink_of, writing
from couatl._writing import schema_of as schema_of_sink
from couatl.sinks import Sink
from couatl.sources import Source

Step = Literal["open", "write", "flush", "commit"]


class InjectedFailure(Exception):
    """What fails by order of a test raises this, where it names no other error."""


def failing_source(thing: object, *, after: int, error: Exception | None = None, **options: Any) -> Source:
    """The source, of a class with these options or an instance, that raises `error` once `after` rows have been given.

    Each partition counts for itself. A batch is given whole, so that the state before the error is that of the rows
    that were given; what has been opened is closed.

    >>> from couatl.testing import Reader, TestingSource, failing_source
    >>> with Reader(failing_source(TestingSource, after=1, items=["a", "b"])) as reader:
    ...     reader.take(), reader.snapshot(), reader.take()
    Traceback (most recent call last):
    couatl._failing.InjectedFailure: the source TestingSource was to fail after 1 row
    """
    thing = as_source(thing)
    counted("failing_source", "after", after)
    _check_error("failing_source", error)
    if error is None:
        error = InjectedFailure(f"the source {class_name(thing)} was to fail after {after} row{'s' * (after != 1)}")
    return _FailingSource(thing, options, after, error)


def _check_error(of: str, error: object) -> None:
    if error is not None and not isinstance(error, Exception):
        raise TypeError(f"{of}: expected an exception to raise as error, got {shown(error)}")


class _FailingSource(Source):
    def __init__(self, thing: object, options: dict[str, Any], after: int, error: Exception) -> None:
        self.thing, self.options, self.after, self.error = thing, options, after, error
        self.reading: Reading | None = None

    def schema(self) -> Any:
        return schema_of(source_of(self.thing, self.options))

    def partitions(self) -> Sequence[str]:
        self.reading = reading(self.thing, self.options, self.columns)
        return self.reading.partitions

    def open(self, partition: str, state: Any) -> Pull:
        assert self.reading is not None, "partitions() comes first"
        return _FailingPull(self.reading.open(partition, state), self)

    def close(self) -> None:
        if self.reading is not None:
            self.reading.close()


class _FailingPull(Pull):
    def __init__(self, pull: Pull, source: _FailingSource) -> None:
        super().__init__()
        self.pull, self.source = pull, source
        self.given = 0

    def __next__(self) -> Any:
        if self.given >= self.source.after:
            raise self.source.error
        batch = next(self.pull)
        self.given += len(list(flat([batch], self.source.columns)))
        return batch

    def cancel(self) -> None:
        super().cancel()
        self.pull.cancel()

    def is_due(self) -> bool:
        return self.pull.is_due()

    def snapshot(self) -> Any:
        return self.pull.snapshot()

    def _close(self) -> None:
        self.pull.close()


def failing_sink(thing: object, *, at: Step, error: Exception | None = None, **options: Any) -> Sink:
    """The sink, of a class with these options or an instance, that raises `error` in the place of one of its methods.

    What follows is called as after any error: where it had been opened, `abort` and `close`.

    >>> from couatl.sinks import Sink
    >>> from couatl.testing import failing_sink, write
    >>> class Draft(Sink):
    ...     def write(self, *columns): ...
    ...
    ...     def abort(self):
    ...         print("torn up")
    >>> write(failing_sink(Draft, at="commit"), [1], columns={"n": "int64"})
    Traceback (most recent call last):
    couatl._failing.InjectedFailure: the sink Draft was to fail at commit()
    """
    if at not in get_args(Step):
        raise ValueError(f"failing_sink: expected at to be one of {', '.join(get_args(Step))}, got {at!r}")
    thing = as_sink(thing)
    _check_error("failing_sink", error)
    if error is None:
        error = InjectedFailure(f"the sink {class_name(thing)} was to fail at {at}()")
    return _FailingSink(thing, options, at, error)


class _FailingSink(Sink):
    def __init__(self, thing: object, options: dict[str, Any], at: Step, error: Exception) -> None:
        self.thing, self.options, self.at, self.error = thing, options, at, error
        self.inner: Writing | None = None

    def _step(self, method: Step, *arguments: Any) -> None:
        if self.at == method:
            raise self.error
        getattr(self.inner, method)(*arguments)

    def schema(self) -> Any:
        return schema_of_sink(sink_of(self.thing, self.options))

    def open(self, columns: Columns) -> None:
        self.inner = writing(self.thing, self.options, columns)
        self._step("open")

    def write(self, *columns: Any) -> None:
        self._step("write", *columns)

    def flush(self) -> None:
        self._step("flush")

    def commit(self) -> None:
        self._step("commit")

    def cancel(self) -> None:
        if self.inner is not None:
            self.inner.cancel()

    def abort(self) -> None:
        if self.inner is not None:
            self.inner.abort()

    def close(self) -> None:
        if self.inner is not None:
            self.inner.close()
