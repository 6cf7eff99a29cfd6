"""Pathway's custom connectors: ``pathway.io.python.ConnectorSubject``, which pushes rows, and ``ConnectorObserver``.

```text
  subject.run()  ── next(**columns), next_json, next_str, next_bytes, commit, close ──>  its queue
                                                                                            │
  a PushSource of ours, which stands where the library's engine has its queue  <────────────┘
```

A stream of Couatl only grows: a subject may add rows, and what would change or remove one is an error that says so.
What a program gives to ``pathway.io.python.read`` beside the subject are options here: `schema`, a class or the name of
one beside the subject's; `format`; `max_backlog_size`; and `autocommit_duration_ms`, which does nothing in a query: its
rows are delivered at once. A subject may also have its schema as an attribute, ``schema``.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import queue
import sys
import threading
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from couatl import sinks, sources
from couatl._calls import call, has_run, run
from couatl._classes import named_after
from couatl._columns import Columns
from couatl._errors import Misuse, class_name, shown
from couatl._methods import check_concrete
from couatl._options import instance, make, options_of
from couatl._push import Rows
from couatl._threads import log
from couatl.compat._schema import (
    ColumnDefinition,
    DateTimeNaive,
    DateTimeUtc,
    Duration,
    Json,
    Schema,
    column_definition,
    column_types,
    schema_of,
)

__all__ = [
    "ColumnDefinition",
    "ConnectorObserver",
    "ConnectorSubject",
    "DateTimeNaive",
    "DateTimeUtc",
    "Duration",
    "Json",
    "Schema",
    "as_sink",
    "as_source",
    "column_definition",
    "io",
    "schema_of",
]

#: How an observer is told.
ON_CHANGE = "on_change(key=…, row=…, time=…, is_addition=…)"

_COMMIT = {"_pw_special": "*COMMIT*"}
_FINISH = {"_pw_special": "*FINISH*"}


class ConnectorSubject(ABC):
    """Gives rows from a thread of its own, which runs ``run``.

    >>> class Cats(ConnectorSubject):
    ...     def run(self):
    ...         for key, genus in enumerate(["otocolobus", "felis", "lynx"]):
    ...             self.next(key=key, genus=genus)

    ``next`` and its kin may be called from any thread. Where the query is slower, they wait.
    """

    #: Whether rows are taken back: a stream has no way to show it.
    deletions_enabled = False

    _buffer: Any
    _session_type: str
    _already_used: bool

    def __new__(cls, *args: Any, **kwargs: Any) -> ConnectorSubject:
        """Make the queue, whatever the constructor of a subclass forgets."""
        self = super().__new__(cls)
        self._buffer = queue.Queue()
        self._session_type = "native"
        self._already_used = False
        return self

    def __init__(self, datasource_name: str = "python", *, session_type: str = "native") -> None:
        if session_type not in ("native", "upsert"):
            raise ValueError(f"{class_name(self)}: expected the session_type 'native', got {shown(session_type)}")
        self._session_type = session_type

    @abstractmethod
    def run(self) -> None:
        """Give rows until there are no more."""

    def on_stop(self) -> None:  # noqa: B027 (a subject need not have it)
        """Clean up, once, when ``run`` has ended or must end: a client that it waits for is disconnected here."""

    def next(self, /, **columns: Any) -> None:
        """Give a row."""
        self._buffer.put(("INSERT", None, columns))

    def next_json(self, message: dict[str, Any]) -> None:
        """Give a row as an object that JSON can say."""
        self._buffer.put(("JSON", None, message))

    def next_str(self, message: str) -> None:
        """Give a row whose column ``data`` is this; where there is no such column, JSON text by column name."""
        self._buffer.put(("STR", None, message))

    def next_bytes(self, message: bytes) -> None:
        """Give a row whose column ``data`` is this; where there is no such column, JSON text by column name."""
        self._buffer.put(("BYTES", None, message))

    def commit(self) -> None:
        """Say that the rows so far belong together: they are delivered now."""
        self._buffer.put(("INSERT", None, _COMMIT))

    def close(self) -> None:
        """Say that no more rows come. Those that come all the same are ignored."""
        self._buffer.put(("INSERT", None, _FINISH))

    def delete(self, /, **columns: Any) -> None:
        """Refused: a stream only grows."""
        raise _only_grows(self)

    def _remove(self, *row: Any, **columns: Any) -> None:
        raise _only_grows(self)

    def start(self) -> None:
        """Refused: the query that reads the subject runs it."""
        raise RuntimeError(f"{class_name(self)}.start(): the query that reads a subject runs it; do not call this")

    def end(self) -> None:
        """Refused: the query that reads the subject waits for it."""
        raise RuntimeError(f"{class_name(self)}.end(): the query that reads a subject ends it; do not call this")

    def _is_finite(self) -> bool:
        return True


class ConnectorObserver(ABC):
    """Is told of each row that is written.

    >>> class Print(ConnectorObserver):
    ...     def on_change(self, key, row, time, is_addition):
    ...         print(row)
    """

    @abstractmethod
    def on_change(self, key: Any, row: dict[str, Any], time: int, is_addition: bool) -> Any:
        """A row was added: its number as `key`, its values by column name, and the number of its epoch as `time`."""

    def on_time_end(self, time: int) -> None:  # noqa: B027 (an observer need not have it)
        """An epoch was committed."""

    def on_end(self) -> None:  # noqa: B027 (an observer need not have it)
        """No more rows come."""


#: ``io.python.ConnectorSubject``, as a program has it that imports the whole library under a name.
io = types.SimpleNamespace(
    python=types.SimpleNamespace(ConnectorSubject=ConnectorSubject, ConnectorObserver=ConnectorObserver)
)


def as_source(
    thing: Any, options: dict[str, Any], columns: Columns | None, streaming: bool | None = None
) -> sources.Source:
    """The source that a class, or an instance, of the model is."""
    given = dict(options)
    own = {option.name for option in options_of(thing)} if isinstance(thing, type) else set()
    of_read = {name: given.pop(name) for name in _READ if name in given and name not in own}
    read = make(named_after(thing, _Read), of_read)
    if isinstance(thing, type):
        check_concrete(thing)
    subject = instance(thing, given)
    session = getattr(subject, "_session_type", "native")
    if session == getattr(type(session), "UPSERT", "upsert"):
        raise NotImplementedError(
            f"{class_name(subject)}: session_type 'upsert' replaces rows, and a stream only grows; with 'native', what "
            "is sent again is another row"
        )
    if getattr(subject, "_already_used", False):
        raise RuntimeError(
            f"this {class_name(subject)} has been read before; name its class, so that each query has one"
        )
    source = named_after(subject, _Subject)(subject, read, columns)
    subject._already_used = True
    return source


def as_sink(thing: Any, options: dict[str, Any], columns: Columns | None) -> sinks.Sink:
    """The sink that a class, or an instance, of the model is."""
    if isinstance(thing, type):
        check_concrete(thing)
    return _Observer(instance(thing, options))


def _only_grows(subject: object) -> NotImplementedError:
    return NotImplementedError(
        f"{class_name(subject)} removes a row, and a stream only grows; send a row that says so, in a column of its own"
    )


class _Read:
    """What a program gives to the library's ``read`` beside the subject."""

    def __init__(
        self,
        schema: Any = None,
        format: typing.Literal["json", "raw", "binary"] = "json",
        max_backlog_size: int | None = None,
        autocommit_duration_ms: int | None = None,
    ) -> None:
        self.schema = schema
        self.format = format
        self.max_backlog_size = max_backlog_size


_READ = [option.name for option in options_of(_Read)]


class _Subject(sources.PushSource):
    """What reads a subject, in the place of its queue."""

    def __init__(self, subject: Any, read: _Read, columns: Columns | None) -> None:
        self.subject = subject
        self.format = read.format
        if read.max_backlog_size is not None:
            if read.max_backlog_size < 1:
                of = f"{class_name(subject)}: option 'max_backlog_size'"
                raise Misuse(f"{of}: expected a number of rows above zero, got {read.max_backlog_size}")
            self._couatl_rows = Rows(read.max_backlog_size)
        self.declared = read.schema or getattr(subject, "schema", None)
        if isinstance(self.declared, str):
            self.declared = getattr(sys.modules.get(type(subject).__module__), self.declared, self.declared)
        if read.schema is not None and not hasattr(self.declared, "typehints"):
            raise Misuse(f"{class_name(subject)}: option 'schema': expected a Schema, got {shown(self.declared)}")
        self.declared = self.declared if hasattr(self.declared, "typehints") else None
        self.types = self._types(columns)
        self.defaults: dict[str, Any] = self.declared.default_values() if self.declared else {}
        convert = {"json": self.as_json, "string": _as_text}
        self.converted = {name: convert[kind] for name, kind in (self.types or {}).items() if kind in convert}
        self.lock = threading.Lock()
        self.stopped = False
        self.take_over()

    def schema(self) -> str | None:
        """What its schema says, or the format, where that is a single column."""
        if self.declared is not None:
            return schema_of(self.declared)
        return {"raw": "data string NOT NULL", "binary": "data binary NOT NULL"}.get(self.format)

    def _types(self, columns: Columns | None) -> dict[str, str] | None:
        """The types by name, in order: the stream's, else the schema's."""
        if columns is not None:
            return {name: kind.lower() for name, kind in columns}
        if self.declared is not None:
            return {name: kind for name, (kind, _) in column_types(self.declared).items()}
        return {"raw": {"data": "string"}, "binary": {"data": "binary"}}.get(self.format)

    def take_over(self) -> None:
        """Stand where the subject puts its rows."""
        subject = self.subject
        subject._pw_format = self.format
        self.early = getattr(subject, "_buffer", None)
        subject._buffer = self
        ours: dict[str, Callable[..., None]] = {
            "next_json": lambda message: self.put(("JSON", None, message)),
            "next_str": lambda message: self.put(("STR", None, message)),
            "next_bytes": lambda message: self.put(("BYTES", None, message)),
        }
        duck: dict[str, Callable[..., None]] = {
            "next": lambda **columns: self.put(("INSERT", None, columns)),
            "commit": self.commit,
            "close": self.close,
        }
        for name, method in (ours | duck).items():
            theirs = getattr(type(subject), name, None)
            # The library's own take the text for JSON, whatever the documentation says of a column.
            if theirs is None or (name in ours and theirs.__module__ == "pathway.io.python"):
                setattr(subject, name, method)
        if getattr(type(subject), "_remove_inner", None) is not None:
            # The library's own reads the source of run() first, to find out whether rows may be removed.
            subject._remove_inner = self.remove

    def remove(self, *row: Any) -> None:
        raise _only_grows(self.subject)

    def run(self) -> None:
        """Run the subject."""
        try:
            while isinstance(self.early, queue.Queue) and not self.early.empty():
                self.put(self.early.get_nowait())
            run(self.subject, "run()")
            if not getattr(self.subject, "_is_finite", lambda: True)():
                self.wait()
        except BaseException:
            # What it has raised comes before what its end raises.
            try:
                self.on_stop()
            except Exception as error:
                log.warning("%s.on_stop() raised", class_name(self.subject), exc_info=error)
            raise
        self.on_stop()

    def on_stop(self) -> None:
        """Stop the subject, once."""
        with self.lock:
            stopped, self.stopped = self.stopped, True
        if not stopped and hasattr(self.subject, "on_stop"):
            run(self.subject, "on_stop()")

    def put(self, event: tuple[Any, Any, Any], block: bool = True, timeout: float | None = None) -> None:
        """Take what the subject puts into its queue: the kind of event, a key, and values by column name."""
        kind, _, values = event
        match getattr(kind, "name", kind), values:
            case "INSERT", {"_pw_special": "*COMMIT*" | "*ENABLE_COMMITS*"}:
                self.commit()
            case "INSERT", {"_pw_special": "*FINISH*"}:
                self.close()
            case "INSERT", {"_pw_special": _}:
                pass
            case "INSERT", _:
                self.insert(values)
            case "JSON", _:
                self.insert_json(values)
            case "STR" | "BYTES", _:
                self.insert_data(kind, values)
            case "DELETE", _:
                self.remove()
            # What is left, an offset to go on from, has nowhere to be kept: a source that pushes has no state.

    def insert(self, values: Mapping[str, Any]) -> None:
        """Give a row: what is missing has its default, and what is no column is left out, as the library has it."""
        if self.types is None:
            self.next(dict(values))
            return
        values = {**self.defaults, **values}
        found = {name: values[name] for name in self.types if name in values}
        if not found:
            names = ", ".join(self.types)
            raise ValueError(f"{class_name(self.subject)}.next(): expected values for {names}, got {shown(values)}")
        for name, of in self.converted.items():
            if name in found:
                found[name] = of(found[name])
        # By position, where it is whole: a dict may be the value of an only column.
        self.next(tuple(found.values()) if len(found) == len(self.types) else found)

    def as_json(self, value: Any) -> Any:
        """A value for a json column: in a column that a Schema declares, text is a value too."""
        if value is None or (self.declared is None and isinstance(value, str)):
            return value
        return json.dumps(value, ensure_ascii=False, default=_inside_json)

    def insert_json(self, message: Any) -> None:
        """Give a row as JSON has it."""
        text = json.dumps(message, ensure_ascii=False)
        if self.format == "json":
            self.insert_object(text, "next_json", message)
        else:
            self.insert_data("STR", text)

    def insert_data(self, kind: str, message: Any) -> None:
        """Give a row whose column ``data`` this is; an object by column name, where there is no such column."""
        method, wanted = ("next_str", str) if kind == "STR" else ("next_bytes", bytes)
        if not isinstance(message, wanted):
            raise TypeError(f"{class_name(self.subject)}.{method}(): expected {wanted.__name__}, got {shown(message)}")
        if self.types is not None and "data" not in self.types:
            self.insert_object(message, method, message)
            return
        wants = (self.types or {}).get("data", "")
        binary = kind == "BYTES" if not wants else any(name in wants for name in ("binary", "bytea", "blob"))
        if binary:
            self.insert({"data": message.encode() if isinstance(message, str) else message})
        else:
            self.insert({"data": message if isinstance(message, str) else message.decode()})

    def insert_object(self, text: str | bytes, method: str, message: Any) -> None:
        """Give a row as the text of a JSON object."""
        try:
            values = json.loads(text)
        except ValueError:
            values = None
        if not isinstance(values, dict):
            expected = "a JSON object by column name"
            if method != "next_json":
                expected = f"the text of {expected}, as there is no column 'data'"
            raise ValueError(f"{class_name(self.subject)}.{method}(): expected {expected}, got {shown(message)}")
        self.insert(values)


def _as_text(value: Any) -> Any:
    return str(value) if type(value).__name__ == "Pointer" else value


def _inside_json(value: Any) -> Any:
    """What JSON itself does not know."""
    if type(value).__name__ == "Json":
        return value.value
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"expected what JSON can say, got {shown(value)}")


class _Observer(sinks.Sink):
    """What tells an observer."""

    def __init__(self, observer: Any) -> None:
        self.observer = observer
        self.names: Sequence[str] = ()
        self.rows = 0
        self.epoch = 0
        self.ended = False
        self.loop: asyncio.AbstractEventLoop | None = None

    def open(self, columns: Columns) -> None:
        self.names = columns.names

    def write(self, *columns: list[Any]) -> None:
        waiting = []
        for values in zip(*columns):
            row = dict(zip(self.names, values))
            told = call(self.observer, ON_CHANGE, key=self.rows, row=row, time=self.epoch, is_addition=True)
            has_run(self.observer, "on_change", told)
            self.rows += 1
            if inspect.isawaitable(told):
                waiting.append(told)
        if waiting:
            self.loop = self.loop or asyncio.new_event_loop()
            self.loop.run_until_complete(_all(waiting))

    def commit(self) -> None:
        if hasattr(self.observer, "on_time_end"):
            run(self.observer, "on_time_end(time)", self.epoch)
        self.epoch += 1
        self.ended = True

    def abort(self) -> None:
        self.ended = False

    def close(self) -> None:
        try:
            if self.ended and hasattr(self.observer, "on_end"):
                run(self.observer, "on_end()")
        finally:
            if self.loop is not None:
                self.loop.close()


async def _all(waiting: Sequence[Any]) -> None:
    await asyncio.gather(*waiting)
