"""Asynchronous sources: the partitions that are read on the event loop of each.

```text
  loop thread      open ──> anext, anext, … ──> rows ──┐ bounded       background tasks go on
  puller           cancel, close ──> task.cancel()     └──> next()     while rows are delivered
```

An asynchronous iterator runs ahead until the queue is full. An :class:`~couatl.sources.AsyncPartition` does not: its
``snapshot`` belongs to the rows that were given.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Any

from couatl import _clock, _errors
from couatl._calls import has_run
from couatl._errors import class_name, misuse
from couatl._loop import Loop, awaited, settled
from couatl._pull import Schedule
from couatl._push import Queued, Rows
from couatl.sources import AsyncPartition

#: How many rows an iterator may be ahead.
CAPACITY = 1024


class Awaited(Queued):
    """A partition that is asynchronous: `opened` gives it, awaited on the loop."""

    def __init__(self, loop: Loop, of: object, opened: Callable[[], Awaitable[Any]]) -> None:
        super().__init__(Rows(CAPACITY), class_name(of))
        self._loop = loop
        self._of = of
        self._opened = opened
        self._reader: Any = None
        self._schedule: Schedule | None = None
        # Also set where that failed.
        self._is_open = asyncio.Event()
        self._room = asyncio.Event()
        self._wanted = asyncio.Event()
        self._rows.on_room = lambda: loop.call(self._room.set)
        loop.call(self._start)

    def _start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        try:
            reader = await self._opened()
            if isinstance(reader, AsyncPartition):
                self._reader, self._schedule = reader, Schedule(reader)
                self._is_open.set()
                await self._ask(reader, self._schedule)
            elif isinstance(reader, AsyncIterable):
                self._reader = aiter(reader)
                self._is_open.set()
                await self._iterate(self._reader)
            else:
                raise misuse(self._of, "open", reader, "an AsyncPartition, or an asynchronous iterator of rows")
        except BaseException as error:
            if not (self._stopping and isinstance(error, asyncio.CancelledError)):
                self._failed(error)
        self._is_open.set()
        self._rows.end()

    async def _iterate(self, items: Any) -> None:
        async for item in items:
            if self._rows.ended.is_set():
                # Nobody pulls any more, and where it never waits, it cannot be cancelled.
                return
            while self._rows.full():
                self._room.clear()
                await self._room.wait()
            if is_row(item):
                self._rows.put(item)
            else:
                self._rows.put_whole(item)

    async def _ask(self, partition: AsyncPartition, schedule: Schedule) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while (left := schedule.left()) > 0:
                await _clock.sleep(left)
            try:
                batch = await awaited(partition, "next_batch()")
            except StopAsyncIteration:
                return
            self._rows.put_whole(schedule.asked(_errors.batch(partition, "next_batch", batch)))

    def __next__(self) -> Any:
        self._loop.call(self._wanted.set)
        return super().__next__()

    def cancel(self) -> None:
        super().cancel()
        self._loop.call(self._stop)

    def _stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            # Soon: a task that is cancelled before its first step would not close what has been opened.
            asyncio.get_running_loop().call_soon(self._task.cancel)

    def is_due(self) -> bool:
        async def due() -> bool:
            await self._is_open.wait()
            return self._schedule is None or self._schedule.is_due()

        return bool(self._loop.start(due()).result())

    def snapshot(self) -> Any:
        async def taken() -> Any:
            return await awaited(self._reader, "snapshot()")

        return self._loop.run(taken()) if isinstance(self._reader, AsyncPartition) else None

    def _close(self) -> None:
        async def closed() -> None:
            self._stop()
            await asyncio.wait([self._task])
            if isinstance(self._reader, AsyncPartition):
                has_run(self._reader, "close", await awaited(self._reader, "close()"))
            elif (close := getattr(self._reader, "aclose", None) or getattr(self._reader, "close", None)) is not None:
                await settled(close())

        self._rows.stop()
        self._loop.run(closed())


def is_row(item: Any) -> bool:
    """Whether this is one row for certain, as far as can be told without the columns."""
    if isinstance(item, tuple):
        return bool(item) and not isinstance(item[0], (list, tuple))
    return isinstance(item, (dict, str, int, float, bytes))
