"""Asynchronous sources: an event loop for each, and the partitions that are read on it.

```text
  loop thread      open ──> anext, anext, … ──> rows ──┐ bounded       background tasks go on
  puller           cancel, close ──> task.cancel()     └──> next()     while rows are delivered
```

An asynchronous iterator runs ahead until the queue is full. An :class:`~couatl.sources.AsyncPartition` does not: its
``snapshot`` belongs to the rows that were given.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, wait
from typing import Any

from couatl import _errors, _threads
from couatl._errors import class_name, misuse
from couatl._pull import Clock
from couatl._push import Queued, Rows
from couatl._threads import UserThread, log
from couatl.sources import AsyncPartition

#: How many rows an iterator may be ahead.
CAPACITY = 1024
#: How long a cleanup may take that waits for something, in seconds.
PATIENCE = 3.0


class Loop:
    """An event loop on a thread of its own. `name` says whose it is."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._left = False
        self._over = asyncio.Event()
        ready: Future[asyncio.AbstractEventLoop] = Future()

        async def main() -> None:
            ready.set_result(asyncio.get_running_loop())
            await self._over.wait()

        def run() -> None:
            try:
                # At its end, it cancels the tasks that are left, closes the asynchronous generators, then the loop.
                asyncio.run(main())
            except BaseException as error:
                if ready.done():
                    raise
                ready.set_exception(error)

        self._thread = UserThread(f"couatl-loop:{name}", run)
        self._loop = ready.result()

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call it on the loop, soon; nothing happens when that is closed. Never blocks; from any thread."""
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run it to its end, within :data:`PATIENCE`; interrupt what keeps the loop from that."""
        answered = threading.Event()
        self.call(answered.set)
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            # It has been interrupted in what was nobody's wait.
            work.close()
            log.warning("the event loop of %s has ended before its cleanup", self._name)
            return None
        done = wait([future], _threads.GRACE).done
        if not done and not answered.is_set():
            self._interrupt()
        if not done and not wait([future], PATIENCE - _threads.GRACE).done:
            future.cancel()
            self._left = True
            self._thread.leave(f"the cleanup of {self._name}")
            return None
        try:
            return future.result()
        except CancelledError:
            # The loop has ended under it.
            return None

    def end(self) -> None:
        """End the loop, with all that still runs there."""
        self.call(self._over.set)
        if not self._left and not self._thread.join():
            self._interrupt()
            if not self._thread.join():
                self._thread.leave(f"the event loop of {self._name}")

    def _interrupt(self) -> None:
        self._thread.interrupt()
        # Where it waits, it is woken to see that.
        self.call(lambda: None)


class Awaited(Queued):
    """A partition that is asynchronous: `opened` gives it, or something to await that does, on the loop."""

    def __init__(self, loop: Loop, of: object, opened: Callable[[], Any]) -> None:
        super().__init__(Rows(CAPACITY), class_name(of))
        self._loop = loop
        self._of = of
        self._opened = opened
        self._reader: Any = None
        self._room = asyncio.Event()
        self._wanted = asyncio.Event()
        self._rows.on_room = lambda: loop.call(self._room.set)
        loop.call(self._start)

    def _start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        try:
            reader = await settled(self._opened())
            if isinstance(reader, AsyncPartition):
                self._reader = reader
                await self._ask(reader)
            elif hasattr(reader, "__aiter__"):
                self._reader = aiter(reader)
                await self._iterate(self._reader)
            else:
                raise misuse(self._of, "open", reader, "an AsyncPartition, or an asynchronous iterator of rows")
        except BaseException as error:
            if not (self._stopping and isinstance(error, asyncio.CancelledError)):
                self._failed(error)
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

    async def _ask(self, partition: AsyncPartition) -> None:
        clock = Clock(partition)
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while (left := clock.left()) > 0:
                await asyncio.sleep(left)
            try:
                batch = await settled(partition.next_batch())
            except StopAsyncIteration:
                return
            self._rows.put_whole(clock.asked(_errors.batch(partition, "next_batch", batch)))

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

    def snapshot(self) -> Any:
        async def taken() -> Any:
            return await settled(self._reader.snapshot())

        return self._loop.run(taken()) if isinstance(self._reader, AsyncPartition) else None

    def _close(self) -> None:
        async def closed() -> None:
            self._stop()
            await asyncio.wait([self._task])
            close = getattr(self._reader, "aclose", None) or getattr(self._reader, "close", None)
            if close is not None:
                await settled(close())

        self._rows.stop()
        self._loop.run(closed())


async def settled(value: Any) -> Any:
    """The value, awaited where it can be."""
    return await value if inspect.isawaitable(value) else value


def is_row(item: Any) -> bool:
    """Whether this is one row for certain, as far as can be told without the columns."""
    if isinstance(item, tuple):
        return bool(item) and not isinstance(item[0], (list, tuple))
    return isinstance(item, (dict, str, int, float, bytes))
