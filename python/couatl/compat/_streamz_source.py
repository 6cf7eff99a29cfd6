"""A Streamz source at work: what it emits is handed to the query, and its end and its errors are told.

```text
  thread of run()     outlet.take()  ──next(row)──>  the query
  thread of the loop  source.run()   ──_emit──>  …  ──>  outlet
```

Two threads, because a source may keep its loop for itself: in Streamz, what is emitted has reached the sinks when
``_emit`` returns, whether or not anybody awaits it.
"""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import wait
from typing import Any

from couatl import sources
from couatl._classes import derives, named_after
from couatl._columns import Columns
from couatl._errors import Misuse, class_name, misuse
from couatl._options import make
from couatl._pull import is_arrow
from couatl._push import Rows
from couatl._threads import TICK, log
from couatl.compat._streamz_nodes import Held, Loop, LoopThread, Outlet, Referred, RetainingOutlet, drain, roots


def emitting(thing: Any, options: Mapping[str, Any], columns: Columns | None) -> Emitting:
    """A source under the name of the user's class."""
    return named_after(thing, Emitting)(thing, options, columns)


def awaitable(source: Any, run: Callable[[], Any]) -> Callable[[], Any]:
    """The same ``_run``, which must give something to await."""

    def checked() -> Any:
        result = run()
        if not inspect.isawaitable(result):
            raise misuse(source, "_run", result, "something to await, as async def _run(self) gives")
        return result

    return checked


class TakenRows(Rows):
    """A queue that knows what has been taken over: who asks for the next rows has what was given before."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._offered = self._given = self._taken = 0
        self._marks: deque[tuple[int, Callable[[], object]]] = deque()
        self._marking = threading.Lock()

    def take(self) -> Any:
        """The next batch; None at the end."""
        if not self._stopped:
            self._taken = self._given
            self._call()
        batch = super().take()
        self._given += 0 if batch is None else len(batch) if isinstance(batch, list) else 1
        return batch

    def offer(self, count: int, then: Callable[[], object] | None) -> None:
        """Say that so many are about to be put, and what to call when they have been taken over."""
        self._offered += count
        if then is not None:
            self._marks.append((self._offered, then))
            self._call()

    def is_awaited(self) -> bool:
        """Whether there is something still to be called."""
        with self._marking:
            return bool(self._marks)

    def _call(self) -> None:
        with self._marking:
            while self._marks and self._marks[0][0] <= self._taken:
                self._marks.popleft()[1]()


class Emitting(sources.PushSource):
    """What a source, or the last node behind it, emits. It runs on a loop of its query."""

    def __init__(self, thing: Any, options: Mapping[str, Any], columns: Columns | None) -> None:
        self._couatl_rows: TakenRows = TakenRows(self.capacity)
        self.thing = thing
        self.options = options
        self.is_single = columns is not None and len(columns) == 1
        self.held = Held()
        self.loop: LoopThread | None = None
        self.stream: Any = None
        self.running: set[int] = set()
        self.error: BaseException | None = None
        self.is_over = False

    def run(self) -> None:
        """Make it, start it, and hand over what it emits until it ends."""
        self.loop = loop = LoopThread(class_name(self))
        outlet = RetainingOutlet(loop.changed.set)
        try:
            loop.run(self.begin(loop, outlet))
            while True:
                # Before it looks whether the query has ended: what wakes it comes after that.
                loop.changed.clear()
                if self.wait(0):
                    break
                # What is over now has emitted all of it.
                is_over = self.is_over
                for item in outlet.take():
                    self.hand_over(item, loop)
                if is_over and not self._couatl_rows.is_awaited():
                    break
                loop.changed.wait()
            if self.error is not None:
                raise self.error
        finally:
            outlet.close()
            try:
                self.end(loop)
            finally:
                loop.close()

    def hand_over(self, item: Any, loop: LoopThread) -> None:
        """Give the rows of an element; what refers to it is released when the query has taken them over."""
        then = None
        if isinstance(item, Referred):
            references, item = item.references, item.element

            def release() -> None:
                for reference in references:
                    reference.release()
                loop.changed.set()

            def then() -> None:
                # Where it was retained: the counts have no lock.
                with contextlib.suppress(RuntimeError):
                    roots(self.stream)[0].loop.add_callback(release)

        found = list(self.rows([item]))
        self._couatl_rows.offer(len(found), then)
        for row in found:
            self.next(row)

    def on_stop(self) -> None:
        """Wake it: the query has ended."""
        if self.loop is not None:
            self.loop.changed.set()

    async def begin(self, loop: LoopThread, outlet: Outlet) -> None:
        """Make the source, unless it has been, and start it."""
        stream: Any = self.thing
        if isinstance(stream, type):
            own = Loop(self.failed)
            parameters = inspect.signature(stream).parameters
            takes = "loop" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
            stream = make(stream, {**self.options, "loop": own} if takes else self.options)
            if not hasattr(stream, "downstreams"):
                raise Misuse(
                    f"{class_name(stream)}.__init__() does not call super().__init__(**kwargs); expected it to"
                )
            # Where its constructor takes none, it is given it here.
            stream.loop = own
        self.stream = stream
        stream._add_downstream(outlet)
        for root in roots(stream):
            self.running.add(id(root))
            root.run = self.supervised(root, root.run)
            if hasattr(root, "_run"):
                root._run = awaitable(root, root._run)
            if root is not stream:
                root._emit = self.counted(root._emit)
        started = stream.start()
        if inspect.isawaitable(started):
            await started

    def end(self, loop: LoopThread) -> None:
        """Stop it: on its loop, or here where that is busy."""

        async def stop() -> None:
            stopped = self.stream.stop()
            if inspect.isawaitable(stopped):
                await stopped

        if self.stream is None:
            return
        for root in roots(self.stream):
            # The library's own, which are bound to the class.
            for name in ("run", "_run", "_emit"):
                vars(root).pop(name, None)
        stopped = loop.submit(stop())
        if wait([stopped], TICK).done:
            error = stopped.exception()
            if error is not None:
                log.warning("%s.stop() raised", class_name(self), exc_info=error)
        elif stopped.cancel():
            self.stream.stop()

    def failed(self, error: BaseException) -> None:
        """Keep the first error; what it emits after it counts no more."""
        self.error = self.error or error
        self.over()

    def over(self) -> None:
        self.is_over = True
        if self.loop is not None:
            self.loop.changed.set()

    def counted(self, emit: Callable[..., Any]) -> Callable[..., Any]:
        """The same, with each element counted while nodes hold it."""
        return lambda x, metadata=None: emit(x, metadata=[*(metadata or ()), *self.held.metadata()])

    def supervised(self, source: Any, run: Callable[[], Any]) -> Callable[[], Any]:
        """The same, with its end and its errors told: there, a loop calls it, and looks at neither."""

        async def supervised() -> None:
            try:
                result = run()
                if inspect.isawaitable(result):
                    await self.settled(source, result)
                    ended = source.stopped or getattr(source, "server", None) is None
                elif result is None:
                    # It has set up what calls back.
                    ended = source.stopped
                else:
                    raise misuse(source, "run", result, "None, or something to await")
                if ended:
                    await self.ended(source)
            except Exception as error:
                self.failed(error)

        return supervised

    async def settled(self, source: Any, result: Awaitable[Any]) -> None:
        try:
            await result
        except ProcessLookupError:
            # The library ends a process once more that has ended by itself.
            if not derives(type(source), "streamz.sources.from_process"):
                raise

    async def ended(self, source: Any) -> None:
        """One of the sources has ended; after the last of them, nodes give what they hold."""
        self.running.discard(id(source))
        if not self.running:
            if self.stream is not source:
                await drain(source, self.held)
            self.over()

    def rows(self, items: list[Any]) -> Iterator[Any]:
        """Elements as rows: a list is many, an empty tuple none, and None a value where there is one column."""
        for item in items:
            if isinstance(item, list):
                yield from self.rows(item) if any(isinstance(i, list) or i is None for i in item) else item
            elif item is None:
                if self.is_single:
                    yield (None,)
            elif is_arrow(item) or item != ():
                yield item
