"""Nodes of Streamz at work: the event loop they run on, and what stands before and behind them.

Streamz gives every source without a loop one that all share, reports what a callback raises to the log alone, and
never ends. A query has a loop of its own, is told of errors, and wants to know when nothing more can come. Both the
library's nodes and those of :mod:`couatl.compat.streamz` are driven by what is here.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, wait
from typing import Any

from couatl import _loop
from couatl._errors import misuse
from couatl._threads import TICK

#: How many elements may wait to be read before those who emit them wait.
CAPACITY = 1024
#: How long elements that nodes hold at the end may stay there without one of them leaving, in seconds.
SETTLE = 0.1


class Loop:
    """The event loop as nodes know it: that of tornado, where it is there, or what Streamz itself uses of it.

    What a callback raises goes to `failed`.
    """

    def __init__(self, failed: Callable[[BaseException], object]) -> None:
        self.asyncio_loop = asyncio.get_running_loop()
        self._failed = failed
        self._thread = threading.get_ident()
        self._tasks: set[asyncio.Future[Any]] = set()
        ioloop = sys.modules.get("tornado.ioloop")
        self._tornado: Any = ioloop.IOLoop.current() if ioloop is not None else None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__.get("_tornado"), name)

    def is_here(self) -> bool:
        """Whether the caller runs on it."""
        return threading.get_ident() == self._thread

    def add_callback(self, callback: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Call it soon, on the loop; from any thread."""
        self.asyncio_loop.call_soon_threadsafe(self._call, callback, args, kwargs)

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        """Call it after so many seconds."""
        return self.asyncio_loop.call_later(delay, self._call, callback, args, kwargs)

    def _call(self, callback: Callable[..., Any], args: Any, kwargs: Any) -> None:
        try:
            result = callback(*args, **kwargs)
        except Exception as error:
            self._failed(error)
            return
        if inspect.isawaitable(result):
            task = asyncio.ensure_future(result)
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._failed(error)


class Ended(RuntimeError):
    """Raised to those who emit and do not await what that gives them, when nobody takes any more."""


class Outlet:
    """The node at the end: it keeps what is emitted there until somebody takes it.

    Where more than `capacity` wait, those who emit are given something to await, on whatever loop they run. Unless it
    is for their own thread to take what waits, who does not await it waits all the same when there are twice as many,
    and so does a thread without a loop.
    """

    loop = None
    asynchronous = None

    def __init__(self, changed: Callable[[], object], *, own_thread: bool = False, capacity: int = CAPACITY) -> None:
        self._changed = changed
        self._own_thread = own_thread
        self._capacity = capacity
        self._items: list[Any] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._last: asyncio.Future[None] | None = None
        self._closed = False
        self._room = threading.Condition()

    def update(self, x: Any, who: Any = None, metadata: Any = None) -> Any:
        """Keep an element. What metadata there is belongs to the graph, not to the row."""
        future: asyncio.Future[None] | None = None
        with self._room:
            if self._closed:
                return self._after_end()
            self._items.append(x)
            self._changed()
            if len(self._items) > self._capacity:
                future = _future()
                if future is not None:
                    self._waiting.append(future)
                most = self._capacity if future is None else 2 * self._capacity
                while len(self._items) > most and not self._closed and not self._own_thread:
                    # Not for ever: a thread that waits cannot be interrupted.
                    self._room.wait(TICK)
        return [] if future is None else future

    def _after_end(self) -> Any:
        """Let others run, so that they can end the one who emits; who does not even await that is ended here."""
        if self._last is not None and not self._last.done():
            raise Ended("the query has ended")
        self._last = _future()
        if self._last is None:
            raise Ended("the query has ended")
        self._last.get_loop().call_soon(_resolve, self._last)
        return self._last

    def take(self) -> list[Any]:
        """All that wait."""
        with self._room:
            items, self._items = self._items, []
            waiting, self._waiting = self._waiting, []
            self._room.notify_all()
        for future in waiting:
            with contextlib.suppress(RuntimeError):
                # Its loop may be gone.
                future.get_loop().call_soon_threadsafe(_resolve, future)
        return items

    def close(self) -> None:
        """Nobody takes any more."""
        self._closed = True
        self.take()

    def _inform_loop(self, loop: Any) -> None:
        """It has none."""

    def _inform_asynchronous(self, asynchronous: Any) -> None:
        """It is both."""


def _future() -> asyncio.Future[None] | None:
    """What the caller can await, where it runs on a loop."""
    try:
        return asyncio.get_running_loop().create_future()
    except RuntimeError:
        return None


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Held:
    """Counts the elements that nodes hold: it travels with them as metadata, which nodes retain and release."""

    def __init__(self) -> None:
        self.count = 0

    def metadata(self) -> list[dict[str, Any]]:
        """What to emit an element with."""
        return [{"ref": self}]

    def retain(self, n: int = 1) -> None:
        self.count += n

    def release(self, n: int = 1) -> None:
        self.count -= n

    async def settled(self, patience: float) -> None:
        """Wait until they hold none, or until for so many seconds none has left: those that remain do so for ever."""
        loop = asyncio.get_running_loop()
        before, since = self.count, loop.time()
        while self.count > 0 and loop.time() - since < patience:
            await asyncio.sleep(0.002)
            if self.count != before:
                before, since = self.count, loop.time()


async def settle(node: Any, results: Any) -> None:
    """Await what the ``update`` of the nodes behind one has returned."""
    if results is None:
        return
    if isinstance(results, (list, tuple)):
        if results:
            await asyncio.gather(*(settle(node, result) for result in results))
    elif inspect.isawaitable(results):
        await results
    # Tornado's `gen.moment` is done, and cannot be awaited.
    elif not callable(getattr(results, "done", None)):
        raise misuse(node, "update", results, "None, something to await, or a list of such")


def downstream(root: Any) -> Iterator[Any]:
    """A node and all behind it, each once."""
    seen, waiting = {id(root)}, deque([root])
    while waiting:
        node = waiting.popleft()
        yield node
        for behind in list(getattr(node, "downstreams", ())):
            if id(behind) not in seen:
                seen.add(id(behind))
                waiting.append(behind)


def roots(node: Any) -> list[Any]:
    """The nodes in front of which there is none."""
    upstreams = [upstream for upstream in getattr(node, "upstreams", ()) if upstream is not None]
    found = [root for upstream in upstreams for root in roots(upstream)] if upstreams else [node]
    return list({id(root): root for root in found}.values())


async def drain(root: Any, held: Held) -> None:
    """Let the nodes behind one give what they hold: no more elements come.

    ``flush()`` is called where a node has it; a window of time ends now.
    """
    patience = SETTLE
    for node in downstream(root):
        flush, window = getattr(node, "flush", None), getattr(node, "cb", None)
        times = [getattr(node, name, None) for name in ("interval", "_timeout")]
        patience += max([time for time in times if isinstance(time, (int, float))], default=0)
        if callable(flush):
            await settle(node, flush())
        elif callable(window) and getattr(node, "_buffer", None) and node.loop is not None:
            node.loop.add_callback(window)
    await held.settled(patience)


class Failing:
    """Who is told what callbacks raise, and raises it."""

    def __init__(self) -> None:
        self._failure: BaseException | None = None

    def failed(self, error: BaseException) -> None:
        """Keep the first error of a callback."""
        self._failure = self._failure or error

    def check(self) -> None:
        """Raise what a callback has raised, once."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure


class Referred:
    """An element, and the references in its metadata that are released when a query has taken it over."""

    def __init__(self, element: Any, references: list[Any]) -> None:
        self.element = element
        self.references = references


class RetainingOutlet(Outlet):
    """An outlet that retains references, for the one who takes the elements to release."""

    def update(self, x: Any, who: Any = None, metadata: Any = None) -> Any:
        """Keep an element, and what counts who uses it."""
        found = [entry["ref"] for entry in metadata or () if "ref" in entry and not isinstance(entry["ref"], Held)]
        for reference in found:
            reference.retain()
        return super().update(Referred(x, found) if found else x, who, metadata)


class LoopThread(Failing):
    """An event loop on a thread of its own, for nodes that somebody feeds who is no coroutine."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.changed = threading.Event()
        self._thread = _loop.Loop(name)

    def failed(self, error: BaseException) -> None:
        """The same; ``changed`` is set."""
        super().failed(error)
        self.changed.set()

    def submit(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Begin something; ``changed`` is set when it is done."""
        future = asyncio.run_coroutine_threadsafe(work, self._thread.loop)
        future.add_done_callback(lambda _: self.changed.set())
        return future

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do something. An interrupt cancels it; what a callback has raised meanwhile is raised."""
        future = self.submit(work)
        try:
            while not wait([future], TICK).done:
                pass
        finally:
            future.cancel()
        self.check()
        return future.result()

    def close(self) -> None:
        """End what still runs there, and the thread."""
        self._thread.end()
