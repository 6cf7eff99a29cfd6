"""From whatever reads to what the engine pulls: named partitions, each an iterator of what a read function may yield.

The engine calls :func:`reading` on the thread that opens the scan, ``Reading.open`` and the methods of what that gives
on the thread of a partition, ``Reading.close`` after the last of them, and ``Pull.cancel``, which never blocks, from
any.

```text
  open() returns          becomes      rows come
  Partition               Batches      when they are asked for, and it is time
  iterable, Arrow         Iterated     one after the other
  PushSource              Pushed       from the thread of its run(), and others
  async generator,
  AsyncPartition          Awaited      from the event loop of the source
```
"""

from __future__ import annotations

import contextlib
import inspect
import threading
import weakref
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from typing import Any, cast

from couatl._awaited import Awaited
from couatl._calls import call, has_run
from couatl._cancel import CancelHook
from couatl._columns import Columns
from couatl._errors import Misuse, class_name, misuse, shown, synchronous
from couatl._loop import Loop, awaited, settled
from couatl._models import COUATL, recognise
from couatl._options import instance
from couatl._pull import Batches, Iterated, Pull, is_arrow
from couatl._push import Pushed
from couatl.sources import AsyncPartition, AsyncSource, Partition, PollingSource, PushSource, Source

__all__ = ["Pull", "Reading", "reading", "schema_of", "source_of"]

OPEN = "open(partition, state)"


def reading(
    thing: object, options: Mapping[str, Any], columns: Columns | None = None, mode: str | None = None
) -> Reading:
    """Make a source of a class or an instance, of whatever model it is, and ask for its parts.

    `mode` is that of the stream, for what can be read in more than one way.

    Misuse says what does not fit; what the user's own code raises is raised as it is.
    """
    source = source_of(thing, options, columns, mode)
    try:
        return Reading(source, columns)
    except BaseException:
        with contextlib.suppress(Exception):
            source.close()
        raise


def source_of(
    thing: object, options: Mapping[str, Any], columns: Columns | None = None, mode: str | None = None
) -> Source:
    """The source that a class or an instance is, or is adapted to."""
    model = recognise(thing, "source")
    if model is COUATL:
        return _declared(cast(Source, instance(thing, options, Source)), columns)
    streaming = {"batch": False, "streaming": True}.get(mode or "")
    return cast(Source, model.adapter().as_source(thing, dict(options), columns, streaming))


def schema_of(source: Source) -> Any:
    """The columns that it says it has: a text, something of Arrow's, or None."""
    return synchronous(source, "schema", call(source, "schema()"))


def _declared(source: Source, columns: Columns | None) -> Source:
    """The source, which knows its columns, unless it has something of its own by that name."""
    known = inspect.getattr_static(source, "columns", None)
    if known is None or isinstance(known, Columns):
        # Also where it is frozen.
        object.__setattr__(source, "columns", columns)
    return source


class Reading:
    """A source and its parts. What is opened is to be closed, then the source itself."""

    def __init__(self, source: Source, columns: Columns | None) -> None:
        self.source = source
        self._only = columns.names[0] if columns is not None and len(columns) == 1 else None
        names = synchronous(source, "partitions", call(source, "partitions()"))
        if isinstance(names, (str, bytes)) or not isinstance(names, Iterable):
            raise misuse(source, "partitions", names, "a list of strings")
        self.partitions = list(names)
        if not all(isinstance(name, str) for name in self.partitions):
            raise misuse(source, "partitions", names, "a list of strings")
        if len(set(self.partitions)) < len(self.partitions):
            raise misuse(source, "partitions", names, "names that differ")
        if len(self.partitions) > 1 and type(source).open in (PollingSource.open, PushSource.open):
            returned = f"{class_name(source)}.partitions() returned {shown(names)}, and its open() gives one part"
            raise Misuse(f"{returned}; expected an open(partition, state) that gives one for each")
        #: What is open: no two parts may be the same.
        self._opened: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        self._loop: Loop | None = None
        self._opening = threading.Lock()
        self._closed = False

    def open(self, partition: str, state: Any = None) -> Pull:
        """Open one of the parts, from where it was."""
        source = self.source
        if isinstance(source, AsyncSource):
            return self._awaited(lambda: self._opening_awaited(partition, state))
        opened = self._once(call(source, OPEN, partition, state))
        if isinstance(opened, Pull):
            return opened
        if isinstance(opened, PushSource):
            opened._couatl_only = self._only
            return Pushed(opened, opened._couatl_rows)
        if isinstance(opened, Partition):
            return Batches(opened, CancelHook(opened, Partition.cancel))
        if isinstance(opened, (AsyncPartition, AsyncIterable)) or inspect.isawaitable(opened):
            return self._awaited(lambda: settled(opened))
        if isinstance(opened, list) or is_arrow(opened):
            return Iterated([opened])
        if isinstance(opened, Iterable) and not isinstance(opened, (str, bytes, Mapping)):
            return Iterated(opened)
        raise misuse(source, "open", opened, "a Partition, or an iterable of rows")

    async def _opening_awaited(self, partition: str, state: Any) -> Any:
        return self._once(await awaited(self.source, OPEN, partition, state))

    def _once(self, opened: Any) -> Any:
        """What has been opened; Misuse where it is another part already."""
        if isinstance(opened, (Partition, PushSource, AsyncPartition)):
            with self._opening:
                if self._opened.get(id(opened)) is not None:
                    what = f"{class_name(self.source)}.open() gave the same {class_name(opened)} for two partitions"
                    raise Misuse(f"{what}; expected one for each")
                with contextlib.suppress(TypeError):
                    # With __slots__, there may be no way to see that it is gone.
                    self._opened[id(opened)] = opened
        return opened

    def _awaited(self, opened: Callable[[], Awaitable[Any]]) -> Pull:
        return Awaited(self._running_loop(), self.source, opened)

    def _running_loop(self) -> Loop:
        with self._opening:
            if self._loop is None:
                self._loop = Loop(class_name(self.source))
            return self._loop

    def close(self) -> None:
        """Clean up, once, after all partitions."""
        if self._closed:
            return
        self._closed = True
        try:
            closed = call(self.source, "close()")
            has_run(self.source, "close", closed)
            if inspect.isawaitable(closed):
                self._running_loop().run(settled(closed))
        finally:
            if self._loop is not None:
                self._loop.end()
