"""From items that come one by one to batches: the functions that Bytewax's connectors are written with.

They exist in two forms, that of the library and that of its published documentation, and each is accepted where it can
be told from how it is called: an interval or none, ``next(batches)`` or ``batches()``.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from datetime import timedelta
from itertools import islice
from typing import Any, TypeVar, overload

X = TypeVar("X")


def batch(ib: Iterable[X], batch_size: int) -> Iterator[list[X]]:
    """The items in lists of `batch_size`; the last may be shorter.

    >>> list(batch([1, 2, 3, 4, 5], 2))
    [[1, 2], [3, 4], [5]]
    """
    items = iter(ib)
    while some := list(islice(items, batch_size)):
        yield some


class Getter(Iterator[list[Any]]):
    """Batches of what a function gives.

    ``next(batches)``: the function gives one item at a time, and says in its own way that there is none now.
    ``batches()``: it gives an iterable of items; none are an empty list. Either way, StopIteration is the end.
    """

    def __init__(self, getter: Callable[[], Any], size: int, none: Callable[[Any], bool], empty: type[Exception]):
        self._getter, self._size, self._none, self._empty = getter, size, none, empty
        self._ended = False
        self._left: deque[Any] = deque()

    def __next__(self) -> list[Any]:
        if self._ended:
            raise StopIteration
        some: list[Any] = []
        while len(some) < self._size:
            try:
                item = self._getter()
            except StopIteration:
                self._ended = True
                break
            except self._empty:
                break
            if self._none(item):
                break
            some.append(item)
        return some

    def __call__(self) -> list[Any]:
        if not self._left:
            with contextlib.suppress(self._empty):
                self._left.extend(self._getter() or ())
        return [self._left.popleft() for _ in range(min(self._size, len(self._left)))]


class _Never(Exception):
    pass


def batch_getter(getter: Callable[[], Any], batch_size: int, yield_on: Any = None) -> Getter:
    """Batches of up to `batch_size` of what `getter` gives; `yield_on` from it ends one early.

    >>> numbers = iter([1, 2, None, 3])
    >>> list(batch_getter(lambda: next(numbers), 10))
    [[1, 2], [3]]
    """
    return Getter(getter, batch_size, lambda item: item == yield_on, _Never)


def batch_getter_ex(getter: Callable[[], Any], batch_size: int, yield_ex: type[Exception] = queue.Empty) -> Getter:
    """Batches of up to `batch_size` of what `getter` gives; an exception `yield_ex` from it ends one early."""
    return Getter(getter, batch_size, lambda item: False, yield_ex)


@overload
def batch_async(aib: AsyncIterable[X], timeout: int, /) -> AsyncIterator[list[X]]: ...
@overload
def batch_async(
    aib: AsyncIterable[X], timeout: timedelta, batch_size: int, loop: asyncio.AbstractEventLoop | None = None
) -> Iterator[list[X]]: ...
def batch_async(
    aib: AsyncIterable[X],
    timeout: timedelta | int,
    batch_size: int | None = None,
    loop: asyncio.AbstractEventLoop | None = None,
) -> Iterator[list[X]] | AsyncIterator[list[X]]:
    """Batches of up to `batch_size` items of an asynchronous iterable, each gathered for at most `timeout`.

    They are gathered while ``next`` is called, on `loop`, or on one of their own. Where a size is all that is given,
    ``batch_async(items, 10)``, the batches are an asynchronous iterator themselves.
    """
    if isinstance(timeout, timedelta):
        if batch_size is None:
            raise TypeError("batch_async(): expected a batch_size after the timeout")
        return _gathered(aib, timeout, batch_size, loop)
    return _batched(aib, timeout)


async def _batched(items: AsyncIterable[X], size: int) -> AsyncIterator[list[X]]:
    some: list[X] = []
    async for item in items:
        some.append(item)
        if len(some) == size:
            yield some
            some = []
    if some:
        yield some


def _gathered(
    aib: AsyncIterable[X], timeout: timedelta, size: int, given: asyncio.AbstractEventLoop | None
) -> Iterator[list[X]]:
    items = aib.__aiter__()
    loop = given or asyncio.new_event_loop()
    #: The item that is waited for. It outlives a batch, so that nothing of it is lost.
    waiting: asyncio.Future[X] | None = None

    async def gather() -> list[X]:
        nonlocal waiting
        some: list[X] = []
        end = loop.time() + timeout.total_seconds()
        while len(some) < size:
            waiting = waiting or asyncio.ensure_future(items.__anext__())
            done, _ = await asyncio.wait([waiting], timeout=max(0, end - loop.time()))
            if not done:
                break
            item, waiting = waiting, None
            try:
                some.append(item.result())
            except StopAsyncIteration:
                if some:
                    break
                raise
        return some

    try:
        while True:
            try:
                some = loop.run_until_complete(gather())
            except StopAsyncIteration:
                return
            yield some
    finally:
        if waiting is not None:
            waiting.cancel()
        if given is None:
            # Dropped where another loop runs, it cannot end its own in order.
            if asyncio._get_running_loop() is None:
                loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
