"""From whatever writes to what the engine drives: one sink, opened, given blocks of columns, and ended one way.

The engine calls everything on one thread, and each of these methods however its query ends; what a sink may rely on,
that ``commit`` or ``abort`` comes once and ``close`` once, is kept here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from couatl._columns import Columns
from couatl._errors import class_name, synchronous
from couatl._models import COUATL, recognise
from couatl._options import instance
from couatl.sinks import Sink

__all__ = ["Writing", "writing"]


def writing(thing: object, options: Mapping[str, Any], columns: Columns) -> Writing:
    """Make a sink of a class or an instance, of whatever model it is.

    TypeError says what does not fit; what the user's own code raises is raised as it is.
    """
    model = recognise(thing, "sink")
    if model is COUATL:
        return Writing(instance(thing, options), columns)
    adapter = import_module(f"couatl.compat.{model.module}")
    return Writing(adapter.as_sink(thing, dict(options), columns), columns)


class Writing:
    """A sink, for one statement."""

    def __init__(self, sink: Sink, columns: Columns) -> None:
        self.sink = sink
        self.columns = columns
        self._by_name = _takes(sink, columns)
        self._opened = False
        self._ended = False

    def open(self) -> None:
        """Get ready. A sink whose ``open`` raises is not closed."""
        self._call("open", self.columns)
        self._opened = True

    def write(self, *columns: Any) -> None:
        """Write a block: one list per column."""
        if self._by_name:
            self._call("write", **dict(zip(self.columns.names, columns)))
        else:
            self._call("write", *columns)

    def flush(self) -> None:
        """Send off what is still here."""
        self._call("flush")

    def commit(self) -> None:
        """Make it count. After one that raises, ``abort`` is called."""
        self._call("commit")
        self._ended = True

    def abort(self) -> None:
        """Undo it, once, unless it has been committed."""
        if self._opened and not self._ended:
            self._ended = True
            self._call("abort")

    def close(self) -> None:
        """Clean up, once, if it was opened."""
        if self._opened:
            self._opened = False
            self._call("close")

    def _call(self, method: str, *arguments: Any, **named: Any) -> None:
        synchronous(self.sink, method, getattr(self.sink, method)(*arguments, **named))


def _takes(sink: Sink, columns: Columns) -> bool:
    """Whether ``write`` takes these columns by name; TypeError where it does not take them at all."""
    write: Callable[..., Any] = sink.write
    parameters = inspect.signature(write).parameters.values()
    by_name = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if sorted(by_name) == sorted(columns.names):
        return True
    try:
        inspect.signature(write).bind(*columns.names)
    except TypeError as error:
        raise TypeError(
            f"{class_name(sink)}.write{inspect.signature(write)} cannot be called with one list for each of the "
            f"columns {', '.join(columns.names)} ({error})"
        ) from None
    return False
