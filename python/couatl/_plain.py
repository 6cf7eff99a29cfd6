"""Plain functions, the simplest connectors, as the classes that tests run."""

from __future__ import annotations

import inspect
from typing import Any

from couatl.sinks import Sink
from couatl.sources import Source


def as_source(thing: Any) -> Any:
    """A class for a function that reads; anything else as it is."""
    return _class(thing, Source, "open", lambda self, partition, state: thing()) if _is_plain(thing) else thing


def as_sink(thing: Any) -> Any:
    """A class for a function that takes a list for each column; anything else as it is."""
    return _class(thing, Sink, "write", lambda self, *columns: thing(*columns)) if _is_plain(thing) else thing


def _is_plain(thing: object) -> bool:
    # An `async def` is none: no statement takes it.
    is_asynchronous = inspect.iscoroutinefunction(thing) or inspect.isasyncgenfunction(thing)
    return inspect.isroutine(thing) and not is_asynchronous


def _class(function: Any, base: type, method: str, call: Any) -> type:
    return type(function.__name__, (base,), {method: call})
