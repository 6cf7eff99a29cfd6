"""A Streamz node as a transform of rows, on the thread that asks for them.

Its loop runs while a node awaits something, and for a moment now and then between two rows, so that times pass for
nodes that wait for them. A thread of its own would be asked for each row, which takes longer than most nodes do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from typing import Any

from couatl._threads import TICK
from couatl.compat._streamz_entry import Entry
from couatl.compat._streamz_nodes import Failing, Held, Outlet, drain, settle

#: How long the loop may stand still between two rows, in seconds, and how many turns it takes then.
STILL, TURNS = 0.005, 5


class Transform:
    """Turns an iterator of rows into another: each row is emitted to a node, and what the node emits comes out.

    Each call begins anew where it was made from a class. A None among the rows gives what has come out by itself since
    the last one. At the end, ``flush()`` is called where the node has it, and windows of time end.
    """

    def __init__(self, thing: Any, options: Mapping[str, Any]) -> None:
        self.thing = thing
        self.options = options

    def __call__(self, rows: Iterable[Any]) -> Iterator[Any]:
        """The rows that come out."""
        run = _Run(Entry(self.thing, self.options))
        try:
            run.open()
            for row in rows:
                yield from run.given(row)
            yield from run.end()
        finally:
            run.close()


class _Run(Failing):
    """One run through an iterator."""

    def __init__(self, entry: Entry) -> None:
        super().__init__()
        self.entry = entry
        self.held = Held()
        self.loop = asyncio.new_event_loop()
        self.some = asyncio.Event()
        self.outlet = Outlet(self.changed, own_thread=True)
        self.turned = time.monotonic()

    def changed(self) -> None:
        # A node that was made before may emit on another thread.
        self.loop.call_soon_threadsafe(self.some.set) if not _is_running(self.loop) else self.some.set()

    def open(self) -> None:
        self.loop.run_until_complete(self.entry.open(self.failed, self.outlet))

    def given(self, row: Any) -> Iterator[Any]:
        """What comes out with a row."""
        if row is None or time.monotonic() - self.turned > STILL:
            self.turn()
            yield from self.taken()
        if row is None:
            return
        if not self.entry.is_ours():
            yield from self.until(self.entry.emit(row, self.held))
            return
        # As on the loop, for those who ask which one runs; it need not run for nodes that await nothing.
        asyncio._set_running_loop(self.loop)
        try:
            results = self.entry.root._emit(row, metadata=self.held.metadata())
        finally:
            asyncio._set_running_loop(None)
        if not _is_settled(results):
            yield from self.until(settle(self.entry.node, results))
        yield from self.taken()

    def turn(self) -> None:
        """Let the loop run for a moment."""

        async def turns() -> None:
            for _ in range(TURNS):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())
        self.turned = time.monotonic()
        self.check()

    def until(self, work: Coroutine[Any, Any, Any]) -> Iterator[Any]:
        """What comes out while something goes on, and until it is done."""
        task = self.loop.create_task(work)

        async def wait() -> None:
            some = asyncio.ensure_future(self.some.wait())
            # Not for ever: a thread that waits cannot be interrupted.
            await asyncio.wait([task, some], timeout=TICK, return_when=asyncio.FIRST_COMPLETED)
            some.cancel()
            self.some.clear()

        while not task.done():
            self.loop.run_until_complete(wait())
            yield from self.taken()
            self.check()
        task.result()

    def taken(self) -> Iterator[Any]:
        # An empty tuple is a window in which nothing came: there is no such row.
        return (item for item in self.outlet.take() if item != ())

    def end(self) -> Iterator[Any]:
        """What the nodes hold."""
        yield from self.until(drain(self.entry.root, self.held))
        yield from self.taken()
        self.check()

    def close(self) -> None:
        """End what still runs."""
        self.outlet.close()

        async def end() -> None:
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        try:
            self.loop.run_until_complete(end())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
        finally:
            self.loop.close()
        # Not before: to a node that nobody is behind, an endless coroutine emits without ever letting others run.
        self.entry.close(self.outlet)


def _is_running(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the caller runs on a loop."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


def _is_settled(results: Any) -> bool:
    """Whether there is nothing to await in what ``update`` has returned; raises what it has come to."""
    if results is None:
        return True
    if isinstance(results, list):
        return all(_is_settled(result) for result in results)
    if asyncio.isfuture(results) and results.done():
        results.result()
        return True
    return False
