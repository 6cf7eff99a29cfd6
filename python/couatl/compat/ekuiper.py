"""eKuiper's portable plugins: sources, sinks and functions written for its Python SDK.

```text
  Source.open(ctx)  ──ctx.emit(dict, meta)──>  a queue  ──>  rows, by the names of the declared columns
  rows  ──one JSON object each──>  Sink.collect(ctx, bytes)  ──ctx.ack_ok()──>  the next one
```

The classes here have the SDK's names, for a plugin that changes only its import; those of the SDK itself are taken as
well, and whole programs by :func:`program`, :func:`run_body` and :func:`packaged`. Unlike there, ``emit`` waits while
rows wait to be read, what ``open`` raises ends the query, and an acknowledgement belongs to its datum.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as Unanswered
from typing import TYPE_CHECKING, Any

from couatl import sinks, sources
from couatl._calls import call
from couatl._classes import named_after
from couatl._columns import Columns
from couatl._conversion import plain
from couatl._errors import Misuse, class_name, misuse, shown
from couatl._methods import check_has, check_made, check_plain, has
from couatl._options import make
from couatl._threads import TICK
from couatl.compat._ekuiper_package import Description, describe, packaged
from couatl.compat._ekuiper_program import (
    Offered,
    Plugin,
    PluginConfig,
    Starter,
    is_program,
    offered,
    program,
    run_body,
    started_by,
)
from couatl.compat._ekuiper_values import Writer

__all__ = [
    "Context",
    "Description",
    "Function",
    "Plugin",
    "PluginConfig",
    "Sink",
    "Source",
    "as_function",
    "as_sink",
    "as_source",
    "check_class",
    "describe",
    "is_program",
    "offered",
    "packaged",
    "plugin",
    "program",
    "run_body",
    "started_by",
]

if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    # It takes no parameter before Python 3.11.
    _Adapter = logging.LoggerAdapter

#: What a plugin's program calls ``start`` of.
plugin = Starter()

#: The base classes, whose methods do nothing.
_BASES = {"ekuiper.source.Source", "ekuiper.sink.Sink", "ekuiper.function.Function"}
_BASES |= {f"{__name__}.{name}" for name in ("Source", "Sink", "Function")}
#: What each kind of part is called with; the first method of each is what makes it one.
_METHODS = {
    "source": {"open": ["ctx"], "configure": ["datasource", "conf"], "close": ["ctx"]},
    "sink": {"collect": ["ctx", "data"], "configure": ["conf"], "open": ["ctx"], "close": ["ctx"]},
    "function": {"exec": ["args", "ctx"], "validate": ["args"], "is_aggregate": []},
}


class _Log(_Adapter):
    """A logger that can be printed to as well: the SDK gives a file."""

    def write(self, text: str) -> int:
        if text.strip():
            self.info(text.rstrip("\n"))
        return len(text)

    def flush(self) -> None:
        """Nothing is kept."""


class Context:
    """What a plugin's methods are given: who asks, and the way back."""

    def __init__(self, op_id: str = "", rule_id: str = "couatl", instance_id: int = 0) -> None:
        self._rule_id = rule_id
        self._op_id = op_id
        self._instance_id = instance_id

    def get_rule_id(self) -> str:
        """The name of what runs."""
        return self._rule_id

    def get_op_id(self) -> str:
        """The name of the class that runs."""
        return self._op_id

    def get_instance_id(self) -> int:
        """Which of several instances it is."""
        return self._instance_id

    def get_logger(self) -> Any:
        """A logger."""
        return _Log(logging.getLogger(__name__), {})

    def emit(self, message: Any, meta: Any = None) -> None:
        """Give a row: a dict by column name. Waits while rows wait to be read."""
        raise Misuse(f"{self._op_id} called ctx.emit(), which is there for sources alone")

    def emit_error(self, error: str) -> None:
        """End the query with an error."""
        raise Misuse(f"{self._op_id} called ctx.emit_error(), which is there for sources alone")

    def ack_ok(self) -> None:
        """Say that a datum has arrived."""
        raise Misuse(f"{self._op_id} called ctx.ack_ok(), which is there for sinks alone")

    def ack_error(self, error: str) -> None:
        """Say that a datum could not be stored."""
        raise Misuse(f"{self._op_id} called ctx.ack_error(), which is there for sinks alone")

    def ack_err(self, error: str) -> None:
        """Say that a datum could not be stored; what the documentation calls ``ack_error``."""
        self.ack_error(error)


class Source:
    """Gives rows from ``open``, by ``ctx.emit``.

    >>> from couatl.compat.ekuiper import Source
    >>> class Numbers(Source):
    ...     def configure(self, datasource, conf):
    ...         self.count = conf.get("count", 2)
    ...
    ...     def open(self, ctx):
    ...         for n in range(self.count):
    ...             ctx.emit({"n": n}, {})
    >>> from couatl.testing import rows
    >>> rows(Numbers, columns={"n": "int64"}, count=3)
    [(0,), (1,), (2,)]
    """

    def configure(self, datasource: str, conf: dict[str, Any]) -> None:
        """Be told the option ``datasource``, and the others."""

    def open(self, ctx: Context) -> None:
        """Emit rows until there are no more. After the query's end, ``emit`` raises."""
        raise NotImplementedError(f"{type(self).__qualname__} has no open(ctx)")

    def close(self, ctx: Context) -> None:
        """Clean up, once; while ``open`` is still running where the query ends before it does."""


class Sink:
    """Is given rows, each as JSON in bytes."""

    def configure(self, conf: dict[str, Any]) -> None:
        """Be told the options."""

    def open(self, ctx: Context) -> None:
        """Connect."""

    def collect(self, ctx: Context, data: Any) -> None:
        """Store one datum; with ``requireAck``, say so by ``ctx.ack_ok()`` or ``ctx.ack_error(text)``."""
        raise NotImplementedError(f"{type(self).__qualname__} has no collect(ctx, data)")

    def close(self, ctx: Context) -> None:
        """Clean up, once."""


class Function:
    """Computes a value from others, or from those of a group."""

    def validate(self, args: list[Any]) -> str:
        """Why these arguments do not fit; an empty string where they do. Asked before the first call of a query.

        They are nodes of a syntax tree: literals, ``{"Val": value}``, of the values that it is to be called with.
        """
        return ""

    def exec(self, args: list[Any], ctx: Context) -> Any:
        """The value. An aggregate is given, for each argument, the list of a group's values."""
        raise NotImplementedError(f"{type(self).__qualname__} has no exec(args, ctx)")

    def is_aggregate(self) -> bool:
        """Whether it is an aggregate."""
        return False


class Closed(ConnectionError):
    """Raised by ``emit``, on a thread that a plugin has made, when nobody reads any more."""


class EmittedError(RuntimeError):
    """What a plugin reported by ``emit_error``, ``ack_error`` or ``validate``."""


def as_source(
    thing: Any, options: Mapping[str, Any], columns: Columns | None, streaming: bool | None = None
) -> sources.Source:
    """Adapt a source. The option ``datasource`` is what a stream's DATASOURCE is there; the others are its conf."""
    source = _instance(thing, "source")
    conf = {name: plain(value) for name, value in options.items() if name.lower() != "datasource"}
    datasource = _option(options, "datasource", "")
    if callable(getattr(source, "configure", None)):
        call(source, "configure(datasource, conf)", "" if datasource is None else str(datasource), conf)
    return named_after(source, _Emitted)(source, columns)


def as_sink(thing: Any, options: Mapping[str, Any], columns: Columns | None) -> sinks.Sink:
    """Adapt a sink.

    Options are its conf. Two are read here too: ``requireAck`` waits for the acknowledgement of each datum, and
    ``sendSingle = false`` sends the rows of a block together, as a JSON array.
    """
    sink = _instance(thing, "sink")
    if callable(getattr(sink, "configure", None)):
        call(sink, "configure(conf)", {name: plain(value) for name, value in options.items()})
    return _Collected(
        sink,
        needs_acknowledgement=_flag(options, "requireAck", False),
        sends_single=_flag(options, "sendSingle", True),
    )


def as_function(thing: Any, options: Mapping[str, Any] | None = None) -> PluginFunction:
    """Adapt a function, to one that is called with its arguments; there is an object for each place that calls."""
    return PluginFunction(_instance(thing, "function", options))


def check_class(cls: type, role: str = "source") -> None:
    """Misuse where a class cannot be made, or lacks what a ``source``, ``sink`` or ``function`` has; nothing runs."""
    if issubclass(cls, Offered):
        # Its factory makes what is looked at.
        return
    # The options of a source and of a sink are told to `configure`.
    check_made(cls)
    _check_methods(cls, role)


def _check_methods(part: Any, role: str) -> None:
    main, *_ = _METHODS[role]
    check_has(part, main, _BASES, f"an eKuiper {role}", *_METHODS[role][main])
    for method, parameters in _METHODS[role].items():
        check_plain(part, method, *parameters)


class PluginFunction:
    """A plugin's function. ``is_aggregate`` says whether it is called with lists, the values of a group.

    >>> from couatl.compat.ekuiper import Function, as_function
    >>> class Revert(Function):
    ...     def exec(self, args, ctx):
    ...         return args[0][::-1]
    >>> as_function(Revert)("abc")
    'cba'
    """

    def __init__(self, function: Any) -> None:
        self.function = function
        self.context = Context(class_name(function))
        self.is_validated = not has(function, "validate", _BASES)
        aggregate = call(function, "is_aggregate()") if has(function, "is_aggregate", _BASES) else False
        if not isinstance(aggregate, bool):
            raise misuse(function, "is_aggregate", aggregate, "True or False")
        self.is_aggregate = aggregate

    def validate(self, arguments: list[Any]) -> None:
        """Check the arguments of a call, as the nodes of eKuiper's syntax tree; Misuse where they do not fit."""
        is_asked = has(self.function, "validate", _BASES)
        reason = call(self.function, "validate(args)", arguments) if is_asked else ""
        if not isinstance(reason, str):
            raise misuse(self.function, "validate", reason, "the reason why the arguments do not fit, or ''")
        if reason:
            given = f"{len(arguments)} argument{'s' * (len(arguments) != 1)}"
            raise Misuse(f"{class_name(self.function)}.validate() refused {given}: {reason}")
        self.is_validated = True

    def __call__(self, *arguments: Any) -> Any:
        """The value for these arguments; before the first, they are validated."""
        if not self.is_validated:
            self.validate([{"Val": argument} for argument in arguments])
        try:
            return self.function.exec(list(arguments), self.context)
        except StopIteration as error:
            # It would be taken for the end of the rows.
            raise RuntimeError(f"{class_name(self.function)}.exec() raised StopIteration") from error


class _Emitted(sources.PushSource):
    """What a source emits, as rows."""

    def __init__(self, source: Any, columns: Columns | None) -> None:
        self.source = source
        self.columns = columns
        self.context = _SourceContext(self)
        self.error: EmittedError | None = None
        self.is_closed = False
        self.closing = threading.Lock()

    def run(self) -> None:
        """Open it, on this thread. It is closed when it returns, or where the query ends first, which lets it."""
        try:
            call(self.source, "open(ctx)", self.context)
        finally:
            self.close_source()
        if self.error is not None:
            # The plugin has caught it, and gone on.
            raise self.error

    def on_stop(self) -> None:
        """Close it, unless it has been."""
        self.close_source()

    def close_source(self) -> None:
        with self.closing:
            closed, self.is_closed = self.is_closed, True
        if not closed and callable(getattr(self.source, "close", None)):
            call(self.source, "close(ctx)", self.context)

    def emitted(self, message: Any) -> None:
        for item in message if isinstance(message, list) else [message]:
            if not isinstance(item, Mapping):
                what = f"{class_name(self.source)}.open() emitted {shown(item)}"
                raise Misuse(f"{what}; expected a dict with a value for each column")
            # On the thread of `open`, this ends it where nobody reads any more.
            self.next(self.row(item))
            if self.wait(0):
                raise Closed(f"{class_name(self.source)}: nobody reads any more")

    def row(self, message: Mapping[str, Any]) -> Any:
        """The declared columns of a message: None where it has no such key; other keys are left out.

        Letter case counts only where there are keys that differ in nothing else: a column's name that is not quoted
        in a statement is in lower case.
        """
        if self.columns is None:
            return {name: _own(value) for name, value in message.items()}
        values = []
        folded: dict[str, Any] | None = None
        for name in self.columns.names:
            value = message.get(name)
            if value is None and name not in message:
                if folded is None:
                    folded = {str(key).lower(): value for key, value in message.items()}
                value = folded.get(name.lower())
            values.append(_own(value))
        return tuple(values)


class _SourceContext(Context):
    def __init__(self, of: _Emitted) -> None:
        super().__init__(class_name(of.source))
        self._of = of

    def emit(self, message: Any, meta: Any = None) -> None:
        self._of.emitted(message)

    def emit_error(self, error: str) -> None:
        self._of.error = EmittedError(str(error))
        raise self._of.error


class _Collected(sinks.Sink):
    """Rows for a sink, each as a datum. It counts those that the sink has."""

    def __init__(self, sink: Any, *, needs_acknowledgement: bool, sends_single: bool) -> None:
        self.sink = sink
        self.writer = Writer(Columns([], []))
        self.needs_acknowledgement = needs_acknowledgement
        self.sends_single = sends_single
        self.waiting: Future[None] = Future()
        self.context = _SinkContext(self, None)
        self.accepted = 0

    def open(self, columns: Columns) -> None:
        """Open it."""
        self.writer = Writer(columns)
        if callable(getattr(self.sink, "open", None)):
            call(self.sink, "open(ctx)", self.context)

    def write(self, *columns: list[Any]) -> None:
        """Send the rows, one after the other."""
        rows = self.writer.rows(columns)
        before = self.accepted
        try:
            for datum in rows if self.sends_single else [rows] if rows else []:
                self.send(self.writer.json(datum))
                self.accepted += 1 if self.sends_single else len(rows)
        except Exception as error:
            # The engine counts blocks alone.
            with contextlib.suppress(AttributeError):
                error.accepted_rows = self.accepted - before  # type: ignore[attr-defined]
            raise

    def send(self, data: bytes) -> None:
        answer: Future[None] = Future()
        self.waiting = answer
        call(self.sink, "collect(ctx, data)", _SinkContext(self, answer), data)
        while self.needs_acknowledgement:
            try:
                return answer.result(TICK)
            except Unanswered:
                continue

    def close(self) -> None:
        """Close it."""
        if callable(getattr(self.sink, "close", None)):
            call(self.sink, "close(ctx)", self.context)


class _SinkContext(Context):
    """The context of one datum; that of ``open``, which a sink may have kept, answers for the one that waits."""

    def __init__(self, of: _Collected, answer: Future[None] | None) -> None:
        super().__init__(class_name(of.sink))
        self._of = of
        self._answer = answer

    def ack_ok(self) -> None:
        self._acknowledge(None)

    def ack_error(self, error: str) -> None:
        if not self._of.needs_acknowledgement:
            self.get_logger().warning("%s: ack_error without requireAck: %s", self.get_op_id(), error)
            return
        accepted = f"{self._of.accepted} row{'s' * (self._of.accepted != 1)}"
        said = f"{self.get_op_id()} said so by ack_error(), after {accepted} that it has acknowledged"
        self._acknowledge(EmittedError(f"{error}; {said}"))

    def _acknowledge(self, error: EmittedError | None) -> None:
        answer = self._answer or self._of.waiting
        # Where it has been acknowledged, once more changes nothing.
        with contextlib.suppress(InvalidStateError):
            if error is None:
                answer.set_result(None)
            else:
                answer.set_exception(error)


def _instance(thing: Any, role: str, options: Mapping[str, Any] | None = None) -> Any:
    """The plugin's object, from its class or from what makes it."""
    what = ""
    if isinstance(thing, Offered) or (isinstance(thing, type) and issubclass(thing, Offered)):
        what, thing = f"what makes the {role} '{class_name(thing)}'", thing.factory
    made = thing
    method, *_ = _METHODS[role]
    if isinstance(thing, type):
        if not options:
            check_class(thing, role)
        made = make(thing, options or {})
    elif callable(thing) and not hasattr(thing, method):
        factory: Callable[[], Any] = thing
        made = factory()
        what = what or shown(thing)
    if what and (isinstance(made, type) or not callable(getattr(made, method, None))):
        raise Misuse(f"{what} returned {shown(made)}; expected an object that is an eKuiper {role}")
    _check_methods(made, role)
    return made


def _option(options: Mapping[str, Any], name: str, default: Any) -> Any:
    """An option by its name in any case: those of a statement may have lost theirs."""
    return next((value for key, value in options.items() if key.lower() == name.lower()), default)


def _flag(options: Mapping[str, Any], name: str, default: bool) -> bool:
    value = _option(options, name, default)
    if str(value).lower() not in ("true", "false", "1", "0"):
        raise Misuse(f"option '{name}': expected true or false, got {shown(value)}")
    return str(value).lower() in ("true", "1")


def _own(value: Any) -> Any:
    """A value that the plugin cannot change any more: it may use its dict again."""
    return copy.deepcopy(value) if isinstance(value, (dict, list)) else value
