"""From whatever writes to what the engine drives: one sink, opened, given blocks of columns, and ended one way.

The engine calls everything but ``cancel`` on one thread, and each of these methods however its query ends; what a sink
may rely on, that ``commit`` or ``abort`` comes once and ``close`` once, is kept here.

```text
  Sink          Writing           called on the thread of the engine; a cancel calls its hook
  AsyncSink     AwaitedWriting    awaited on a loop of its own;       a cancel cancels what is awaited
```
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, wait
from typing import Any

from couatl._calls import call, has_run, run
from couatl._cancel import CancelHook
from couatl._columns import Columns
from couatl._errors import Misuse, class_name, synchronous
from couatl._loop import Loop, awaited
from couatl._methods import check_callable
from couatl._models import COUATL, recognise
from couatl._options import instance, signature
from couatl.sinks import AsyncSink, Sink

__all__ = ["Writing", "writing"]

#: How the methods of a sink are called.
METHODS = {
    "open": "open(columns)",
    "write": "write(*columns)",
    "flush": "flush()",
    "commit": "commit()",
    "abort": "abort()",
    "close": "close()",
}


def writing(thing: object, options: Mapping[str, Any], columns: Columns, mode: str | None = None) -> Writing:
    """Make a sink of a class or an instance, of whatever model it is. `mode`, which is about reading, is not looked at.

    Misuse says what does not fit; what the user's own code raises is raised as it is.
    """
    model = recognise(thing, "sink")
    if model is COUATL:
        sink = instance(thing, options, Sink, AsyncSink)
        return AwaitedWriting(sink, columns) if isinstance(sink, AsyncSink) else Writing(sink, columns)
    return Writing(model.adapter().as_sink(thing, dict(options), columns), columns)


def sink_of(thing: object, options: Mapping[str, Any]) -> Any:
    """The sink that a class or an instance is; None where it is of another model, which is told its columns."""
    return instance(thing, options, Sink, AsyncSink) if recognise(thing, "sink") is COUATL else None


def schema_of(sink: Any) -> Any:
    """The columns that it says it has: a text, something of Arrow's, or None."""
    return None if sink is None else synchronous(sink, "schema", call(sink, "schema()"))


class Writing:
    """A sink, for one statement."""

    def __init__(self, sink: Any, columns: Columns) -> None:
        self.sink = sink
        self.columns = columns
        self._by_name = _takes(sink, columns)
        self._opened = False
        self._ended = False
        self._cancelled: Future[None] = Future()
        self._hook = CancelHook(sink, Sink.cancel)

    def open(self) -> None:
        """Get ready. A sink whose ``open`` raises is not closed."""
        self._work("open", self.columns)
        self._opened = True

    def write(self, *columns: Any) -> None:
        """Write a block: one list per column."""
        if self._by_name:
            self._work("write", **dict(zip(self.columns.names, columns)))
        else:
            self._work("write", *columns)

    def flush(self) -> None:
        """Send off what is still here."""
        self._work("flush")

    def commit(self) -> None:
        """Make it count. After one that raises, ``abort`` is called."""
        self._work("commit")
        self._ended = True

    def cancel(self) -> None:
        """End what waits. Never blocks, never raises; comes from any thread. Only ``abort`` and ``close`` follow."""
        with contextlib.suppress(InvalidStateError):
            self._cancelled.set_result(None)
        self._release()

    def abort(self) -> None:
        """Undo it, once, unless it has been committed."""
        if self._opened and not self._ended:
            self._ended = True
            self._hook.end()
            self._call("abort")

    def close(self) -> None:
        """Clean up, once, if it was opened."""
        if self._opened:
            self._opened = False
            self._hook.end()
            self._call("close")

    def _release(self) -> None:
        if self._opened:
            self._hook.call()

    def _work(self, method: str, /, *arguments: Any, **named: Any) -> None:
        """What a cancel ends."""
        if self._cancelled.done():
            raise KeyboardInterrupt
        self._call(method, *arguments, **named)

    def _call(self, method: str, /, *arguments: Any, **named: Any) -> None:
        run(self.sink, METHODS[method], *arguments, **named)


class AwaitedWriting(Writing):
    """An asynchronous sink, for one statement."""

    def __init__(self, sink: AsyncSink, columns: Columns) -> None:
        super().__init__(sink, columns)
        self._loop: Loop | None = None
        # What is cancelled may take its time to end: what cleans up comes after it.
        self._turn = asyncio.Lock()
        self._working: asyncio.Task[Any] | None = None

    def open(self) -> None:
        self._loop = Loop(class_name(self.sink))
        try:
            super().open()
        except BaseException:
            self._loop.end()
            raise

    def close(self) -> None:
        try:
            super().close()
        finally:
            if self._loop is not None:
                self._loop.end()

    def _release(self) -> None:
        if self._loop is not None:
            self._loop.call(self._stop)

    def _stop(self) -> None:
        # Once: the next one would hit what cleans up.
        working, self._working = self._working, None
        if working is not None:
            working.cancel()

    def _work(self, method: str, /, *arguments: Any, **named: Any) -> None:
        async def work() -> None:
            if self._cancelled.done():
                raise KeyboardInterrupt
            self._working = asyncio.current_task()
            try:
                await self._awaited(method, *arguments, **named)
            except asyncio.CancelledError:
                if self._cancelled.done():
                    raise KeyboardInterrupt from None
                raise
            finally:
                self._working = None

        if not self._ends(work):
            raise KeyboardInterrupt

    def _call(self, method: str, /, *arguments: Any, **named: Any) -> None:
        self._ends(lambda: self._awaited(method, *arguments, **named))

    async def _awaited(self, method: str, /, *arguments: Any, **named: Any) -> None:
        has_run(self.sink, method, await awaited(self.sink, METHODS[method], *arguments, **named))

    def _ends(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Run it on the loop, as long as it takes; from a cancel on, within the patience. Give whether it ended."""
        loop = self._loop
        assert loop is not None

        async def caught() -> list[BaseException]:
            async with self._turn:
                try:
                    await work()
                except BaseException as error:
                    # An interrupt would end the loop.
                    return [error]
                return []

        future = loop.start(caught())
        try:
            wait([future, self._cancelled], return_when=FIRST_COMPLETED)
        except BaseException:
            self.cancel()
            raise
        raised = loop.finish(future)
        if raised:
            raise raised[0]
        return raised is not None


def _takes(sink: Any, columns: Columns) -> bool:
    """Whether ``write`` takes these columns by name; Misuse where it does not take them at all."""
    check_callable(sink, "write", *columns.names)
    try:
        written, called = signature(sink.write), signature(sink.write, follow_wrapped=False)
    except (TypeError, ValueError):
        # One in C: it may take anything.
        return False
    parameters = [p.name for p in written.parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    by_name, by_position = _unfit(called, **dict(columns)), _unfit(called, *columns.names)
    if by_name is None and (by_position is not None or sorted(parameters) == sorted(columns.names)):
        return True
    if by_position is not None:
        raise Misuse(
            f"{class_name(sink)}.write{called} cannot be called with one list for each of the "
            f"columns {', '.join(columns.names)} ({by_position})"
        )
    return False


def _unfit(found: inspect.Signature, /, *arguments: Any, **named: Any) -> TypeError | None:
    """Why something cannot be called with these; None where it can."""
    try:
        found.bind(*arguments, **named)
    except TypeError as error:
        return error
    return None
