"""The event loop of an asynchronous source or sink: a thread of its own, what runs there, and an end to it."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, wait
from typing import Any

from couatl import _threads
from couatl._calls import call, name_of
from couatl._errors import class_name
from couatl._threads import UserThread, log


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
        #: The loop itself.
        self.loop = ready.result()

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call it on the loop, soon; nothing happens when that is closed. Never blocks; from any thread."""
        try:
            self.loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            if not self.loop.is_closed():
                raise

    def start(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Begin it; where the loop has ended, it is cancelled."""
        try:
            return asyncio.run_coroutine_threadsafe(work, self.loop)
        except RuntimeError:
            # It has been interrupted in what was nobody's wait.
            work.close()
            log.warning("the event loop of %s has ended before its cleanup", self._name)
            future: Future[Any] = Future()
            future.cancel()
            return future

    def finish(self, future: Future[Any]) -> Any:
        """Wait for its end, within the patience; interrupt what keeps the loop from that. None where there is none."""
        answered = threading.Event()
        self.call(answered.set)
        done = wait([future], _threads.GRACE).done
        if not done and not answered.is_set():
            self._interrupt()
        if not done and not wait([future], _threads.PATIENCE - _threads.GRACE).done:
            future.cancel()
            self._left = True
            self._name_tasks()
            self._thread.leave(f"the cleanup of {self._name}")
            return None
        try:
            return future.result()
        except CancelledError:
            # The loop has ended under it.
            return None

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run it to its end, within the patience."""
        return self.finish(self.start(work))

    def end(self) -> None:
        """End the loop, with all that still runs there."""
        self.call(self._over.set)
        if not self._left and not self._thread.join():
            self._name_tasks()
            self._interrupt()
            if not self._thread.join():
                self._thread.leave(f"the event loop of {self._name}")

    def _name_tasks(self) -> None:
        """Say which tasks of the user's have been cancelled, and go on."""
        coroutines = [task.get_coro() for task in asyncio.all_tasks(self.loop)]
        names = sorted(getattr(each, "__qualname__", repr(each)) for each in coroutines if not _is_ours(each))
        for name in names:
            log.warning("%s has not ended, cancelled as it was: a task of %s", name, self._name)

    def _interrupt(self) -> None:
        self._thread.interrupt()
        # Where it waits, it is woken to see that.
        self.call(lambda: None)


def _is_ours(coroutine: object) -> bool:
    """Whether a coroutine is one of the SDK's, which waits for what a user has written."""
    frame = getattr(coroutine, "cr_frame", None)
    return frame is not None and str(frame.f_globals.get("__name__")).startswith("couatl.")


async def awaited(of: object, method: str, /, *arguments: Any, **named: Any) -> Any:
    """What a method of the user's gives, awaited where it can be; `method` is as in :mod:`couatl._calls`."""
    try:
        return await settled(call(of, method, *arguments, **named))
    except RuntimeError as error:
        if not isinstance(error.__cause__, StopIteration) or not str(error).startswith("coroutine raised"):
            raise
        name = f"{class_name(of)}.{name_of(method)}()"
        expected = "where rows are asked for, StopAsyncIteration is the end"
        raise RuntimeError(f"{name} raised StopIteration; {expected}") from error.__cause__


async def settled(value: Any) -> Any:
    """The value, awaited where it can be."""
    return await value if inspect.isawaitable(value) else value
