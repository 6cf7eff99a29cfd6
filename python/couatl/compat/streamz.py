"""Streamz: sources, sinks and nodes, as its plugins define them.

```text
  Source  ──_emit──>  outlet  ──>  rows                                  as_source
  rows  ──_emit──>  a stream of ours  ──>  Sink.update                    as_sink
  rows  ──_emit──>  a stream of ours  ──>  node  ──>  outlet  ──>  rows   as_transform
```

An element of Streamz is one Python object. So a row is given to a node or a sink as the bare value where there is one
column, which is what ``map(str)`` or ``sink_to_textfile`` want, and as a dict by column name otherwise, which is what
``pluck("name")`` and data frames take. What is emitted becomes rows by the shapes that a read function may yield.

The classes here have the library's names, and need neither it nor tornado: their loop is asyncio's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from couatl import sinks, sources
from couatl._classes import derives, refuse_options
from couatl._columns import Columns
from couatl._errors import Misuse, class_name
from couatl._methods import check_call, check_concrete, check_has, has
from couatl.compat._streamz_entry import Entry
from couatl.compat._streamz_nodes import Held, LoopThread, drain, roots, settle
from couatl.compat._streamz_source import emitting
from couatl.compat._streamz_transform import Transform

__all__ = ["Sink", "Source", "Stream", "as_sink", "as_source", "as_transform", "check_class", "has_made"]

#: The base classes, whose methods do nothing, raise, or pass on what comes.
_BASES = {"streamz.core.Stream", "streamz.sources.Source", "streamz.sinks.Sink"}
_BASES |= {f"{__name__}.{name}" for name in ("Stream", "Source", "Sink")}
_UPDATE = ["x", "who=None", "metadata=None"]


class Stream:
    """A node: ``update`` is called with each element, and emits any number of elements to those behind it.

    `update` may be a coroutine; whoever emits awaits it.

    >>> from couatl.compat.streamz import Stream, as_transform
    >>> class Repeat(Stream):
    ...     def __init__(self, upstream, n: int, **kwargs):
    ...         super().__init__(upstream, **kwargs)
    ...         self._n = n
    ...
    ...     async def update(self, x, who=None, metadata=None):
    ...         for _ in range(self._n):
    ...             await self.emitted(x, metadata=metadata)
    >>> list(as_transform(Repeat, {"n": 2})(["a", "b"]))
    ['a', 'a', 'b', 'b']
    """

    def __init__(
        self,
        upstream: Any = None,
        upstreams: Any = None,
        stream_name: str | None = None,
        loop: Any = None,
        asynchronous: bool | None = None,
        ensure_io_loop: bool = False,
    ) -> None:
        self.name = stream_name
        self.upstreams = list(upstreams) if upstreams is not None else [] if upstream is None else [upstream]
        self.downstreams: list[Any] = []
        self.loop: Any = loop or next((node.loop for node in self.upstreams if node.loop is not None), None)
        self.asynchronous = asynchronous
        for node in self.upstreams:
            node.downstreams.append(self)

    @property
    def upstream(self) -> Any:
        """The one node in front, or None."""
        if len(self.upstreams) > 1:
            raise ValueError(f"{type(self).__qualname__}: expected one upstream, it has {len(self.upstreams)}")
        return self.upstreams[0] if self.upstreams else None

    def update(self, x: Any, who: Any = None, metadata: Any = None) -> Any:
        """Take an element, and pass it on."""
        return self._emit(x, metadata=metadata)

    def _emit(self, x: Any, metadata: Any = None) -> list[Any]:
        """Give an element to those behind; what they return is to be awaited."""
        results: list[Any] = []
        for node in list(self.downstreams):
            _count(metadata, "retain")
            result = node.update(x, who=self, metadata=metadata or [])
            results.extend(result if isinstance(result, list) else [result])
            _count(metadata, "release")
        return [result for result in results if result is not None]

    async def emitted(self, x: Any, metadata: Any = None) -> None:
        """Emit an element, and wait until it has been taken."""
        await settle(self, self._emit(x, metadata=metadata))

    def emit(self, x: Any, asynchronous: bool = False, metadata: Any = None) -> Any:
        """Emit an element: on the loop, or without one, give what is to be awaited; on another thread, wait."""
        if self.loop is None or asynchronous or self.loop.is_here():
            results = self._emit(x, metadata=metadata)
            return asyncio.ensure_future(settle(self, results)) if self.loop is not None else None
        return asyncio.run_coroutine_threadsafe(self.emitted(x, metadata), self.loop.asyncio_loop).result()

    def start(self) -> None:
        """Start the sources in front."""
        for node in self.upstreams:
            node.start()

    def stop(self) -> None:
        """Stop them."""
        for node in self.upstreams:
            node.stop()

    def connect(self, downstream: Any) -> None:
        """Put a node behind this one."""
        self.downstreams.append(downstream)
        downstream.upstreams.append(self)

    def destroy(self) -> None:
        """Take it out."""
        for node in self.upstreams:
            node._remove_downstream(self)
        self.upstreams = []

    def _add_downstream(self, downstream: Any) -> None:
        self.downstreams.append(downstream)

    def _remove_downstream(self, downstream: Any) -> None:
        self.downstreams.remove(downstream)


class Source(Stream):
    """Emits elements from ``run``, or from ``_run``, which is awaited again and again until it is stopped.

    >>> import asyncio
    >>> from couatl.compat.streamz import Source
    >>> class Numbers(Source):
    ...     def __init__(self, n: int, **kwargs):
    ...         super().__init__(**kwargs)
    ...         self._n = n
    ...
    ...     async def run(self):
    ...         for number in range(self._n):
    ...             await asyncio.gather(*self._emit(number))
    >>> from couatl.testing import rows
    >>> rows(Numbers, n=3)
    [0, 1, 2]
    """

    def __init__(self, start: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stopped = True
        self.started = False
        if start:
            self.start()

    def start(self) -> None:
        """Have ``run`` called on the loop."""
        if self.stopped:
            self.stopped, self.started = False, True
            self.loop.add_callback(self.run)

    def stop(self) -> None:
        """Say that it is to stop."""
        self.stopped = True

    async def run(self) -> None:
        """Emit all there is. Its return is the end, unless it leaves a ``server`` behind."""
        while not self.stopped:
            await self._run()

    async def _run(self) -> None:
        raise NotImplementedError(f"{type(self).__qualname__} has no run() or _run()")


class Sink(Stream):
    """Takes elements: its ``update`` stores them, and emits none."""

    def update(self, x: Any, who: Any = None, metadata: Any = None) -> Any:
        """Store an element."""
        raise NotImplementedError(f"{type(self).__qualname__} has no update(x, who=None, metadata=None)")


def as_source(
    thing: Any, options: Mapping[str, Any], columns: Columns | None, streaming: bool | None = None
) -> sources.Source:
    """Adapt a source: its class, an instance that has not been started, or the last node of a pipeline behind one."""
    cls = _checked(thing, "source")
    chosen = {name: value for name, value in options.items() if name != "start"}
    if cls is not None:
        return emitting(cls, chosen, columns)
    refuse_options(thing, chosen)
    for root in roots(thing):
        _checked(root, "source")
        if not root.stopped:
            raise Misuse(f"{class_name(root)} has been started; leave that to the query")
    return emitting(thing, {}, columns)


def has_made(thing: Any, role: str) -> bool:
    """Whether it is the last node of a pipeline, which is read: a source where it is behind sources alone."""
    found = roots(thing)
    return role == "source" and found != [thing] and all(map(_is_source, map(type, found)))


def as_sink(thing: Any, options: Mapping[str, Any], columns: Columns | None) -> sinks.Sink:
    """Adapt a sink: its class, or an instance behind a stream that nobody else emits to."""
    if _checked(thing, "sink") is None:
        refuse_options(thing, options)
    return _Fed(thing, options)


def as_transform(thing: Any, options: Mapping[str, Any] | None = None) -> Transform:
    """Adapt a node: its class, or the last node of a pipeline that begins with a plain stream."""
    if _checked(thing, "transform") is None:
        refuse_options(thing, options or {})
    return Transform(thing, options or {})


class _Fed(sinks.Sink):
    """Rows for a sink. Each is emitted when the one before it has been taken."""

    def __init__(self, thing: Any, options: Mapping[str, Any]) -> None:
        self.entry = Entry(thing, options)
        self.names: Sequence[str] = ()
        self.held = Held()
        self.loop: LoopThread | None = None

    def open(self, columns: Columns) -> None:
        """Make it."""
        self.names = columns.names
        self.loop = LoopThread(class_name(self.entry.thing))
        try:
            self.loop.run(self.entry.open(self.loop.failed, None))
        except BaseException:
            self.loop.close()
            raise

    def write(self, *columns: list[Any]) -> None:
        """Emit the rows."""
        assert self.loop is not None
        rows = columns[0] if len(self.names) == 1 else [dict(zip(self.names, row)) for row in zip(*columns)]
        self.loop.run(self._emit(rows))

    async def _emit(self, rows: Iterable[Any]) -> None:
        for row in rows:
            await self.entry.emit(row, self.held)

    def flush(self) -> None:
        """Let it, and what is in front of it, give what they hold."""
        if self.loop is not None:
            self.loop.run(drain(self.entry.root, self.held))

    def close(self) -> None:
        """Take it out."""
        node, loop = self.entry.node, self.loop
        self.entry.node = self.entry.root = None
        try:
            if node is not None:
                # Not on the loop: the library's own wait for it there.
                node.destroy()
        finally:
            if loop is not None:
                loop.close()


def check_class(cls: type, role: str = "source") -> None:
    """Misuse where a class is no ``source``, ``sink`` or ``transform``, or lacks what one has; nothing of it runs."""
    _checked(cls, role)


def _check_methods(thing: Any, role: str) -> None:
    if role == "source":
        if not any(has(thing, method, _BASES) for method in ("run", "_run", "start")):
            raise Misuse(f"{class_name(thing)} has no run() or _run(); a Streamz source must")
        for method in ("start", "run", "_run", "stop"):
            check_call(thing, method)
        return
    if role == "sink":
        check_has(thing, "update", _BASES, "a Streamz sink", *_UPDATE)
    check_call(thing, "update", *_UPDATE)
    check_call(thing, "destroy")


def _checked(thing: Any, role: str) -> type | None:
    """The class, where it is one; Misuse where it has not the role, or not the methods."""
    cls = thing if isinstance(thing, type) else type(thing)
    is_source = _is_source(cls)
    is_sink = derives(cls, "streamz.sinks.Sink", f"{__name__}.Sink")
    if not derives(cls, "streamz.core.Stream", f"{__name__}.Stream"):
        raise Misuse(f"{class_name(cls)} is no streamz.Stream; a {role} must be derived from one")
    if role == "source" and not is_source and (isinstance(thing, type) or roots(thing) == [thing]):
        raise Misuse(f"{class_name(cls)} is no streamz.Source; a source must be derived from it")
    # Some sinks of the library are plain streams that emit what they have stored.
    if role == "sink" and is_source:
        raise Misuse(f"{class_name(cls)} is a streamz.Source; a sink must be derived from streamz.Sink")
    if role == "transform" and (is_source or is_sink):
        what = "Source" if is_source else "Sink"
        raise Misuse(f"{class_name(cls)} is a streamz.{what}; a transform must be another streamz.Stream")
    if role != "source" or is_source:
        _check_methods(thing, role)
    if not isinstance(thing, type):
        return None
    check_concrete(thing)
    return thing


def _is_source(cls: type) -> bool:
    return derives(cls, "streamz.sources.Source", f"{__name__}.Source")


def _count(metadata: Any, method: str) -> None:
    for entry in metadata or ():
        if "ref" in entry:
            getattr(entry["ref"], method)()
