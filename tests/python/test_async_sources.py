"""Asynchronous sources, driven as the engine drives them, without a server."""

from __future__ import annotations

import asyncio
import threading
import time
import traceback
from contextlib import closing, suppress
from datetime import datetime

import pytest
from couatl import _awaited, _threads
from couatl._reading import reading
from couatl.sources import AsyncPartition, AsyncSource, PushSource
from couatl.testing import rows, rows_and_state
from misuse import ERRORS, all_but, misused
from pulling import SOON, Batches, Elsewhere, Opened, asleep, nothing_left_running, pulled  # noqa: F401


class Awaiting(AsyncSource):
    """Opens what it is given."""

    def __init__(self, opened):
        self.opened = opened
        self.loops = []

    def open(self, partition, state):
        self.loops.append(asyncio.get_running_loop())
        return self.opened()

    async def close(self):
        await asyncio.sleep(0)
        self.loops.append(asyncio.get_running_loop())


def test_an_async_generator():
    async def numbers():
        for n in range(3):
            await asyncio.sleep(0)
            yield n

    source = Awaiting(numbers)
    assert rows(source) == [0, 1, 2]
    opened, closed = source.loops
    assert opened is closed
    assert closed.is_closed()
    assert rows(Opened(numbers())) == [0, 1, 2]


def test_what_an_async_generator_yields_keeps_its_shape():
    yielded = [1, (1, 2), ([1], 2), [3, 4], None, [], {"a": 1}, "x", ((1, 2), (3, 4))]

    async def all_of_them():
        for item in yielded:
            yield item

    with closing(reading(Awaiting(all_of_them), {})) as source, closing(source.open("")) as pull:
        while not pull._rows.ended.is_set():
            time.sleep(0.001)
        assert list(pull) == [[1, (1, 2)], ([1], 2), [3, 4], [], [], [{"a": 1}, "x"], ((1, 2), (3, 4))]


def test_open_may_be_a_coroutine_and_give_what_is_iterated():
    class Numbers:
        def __init__(self):
            self.left = 3

        def __aiter__(self):
            return self

        async def __anext__(self):
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return self.left

    async def opened():
        return Numbers()

    assert rows(Awaiting(opened)) == [2, 1, 0]
    assert rows(Opened(opened())) == [2, 1, 0]


def test_open_that_gives_nothing_asynchronous():
    with pytest.raises(TypeError, match=r"Awaiting\.open\(\) returned \[1\] \(list\); expected an AsyncPartition, or"):
        rows(Awaiting(lambda: [1]))


@misused(open=("signature", "no method", "StopIteration"), close=all_but("async def"))
def test_misuse_of_an_asynchronous_source(method, wrong, said):
    bad = type("Bad", (Awaiting,), {method: wrong})
    with pytest.raises(ERRORS, match=said):
        rows(bad(lambda: AsyncBatched([1])))


@misused(
    next_batch=("signature", "no method", "StopIteration"),
    next_awake=("signature", "no method", "StopIteration"),
    snapshot=("signature", "no method", "StopIteration"),
    close=all_but("async def"),
)
def test_misuse_of_an_asynchronous_partition(method, wrong, said):
    bad = type("Bad", (AsyncBatched,), {method: wrong})
    with pytest.raises(ERRORS, match=said):
        rows_and_state(Awaiting(lambda: bad([1])))


def test_an_end_that_is_none_says_which_would_be():
    async def next_batch(self):
        raise StopIteration

    bad = type("Bad", (AsyncBatched,), {"next_batch": next_batch})
    with pytest.raises(RuntimeError, match=r"^Bad\.next_batch\(\) raised StopIteration; .*StopAsyncIteration is"):
        rows(Awaiting(lambda: bad([1])))


class AsyncBatched(Batches, AsyncPartition):
    end = StopAsyncIteration

    async def next_batch(self):
        await asyncio.sleep(0)
        return self.take()

    async def close(self):
        await asyncio.sleep(0)
        self.closes += 1


def test_an_async_partition_is_not_read_ahead():
    partition = AsyncBatched([1], [2], None, [3])
    with closing(reading(Awaiting(lambda: partition), {})) as source:
        with closing(source.open("")) as pull:
            assert [(next(pull), pull.snapshot()) for _ in range(3)] == [([1], 3), ([2], 2), ([], 1)]
            time.sleep(0.01)
            assert pull.snapshot() == 1
            assert list(pull) == [[3]]
            assert pull.snapshot() == 0
        pull.close()
    assert partition.closes == 1


def test_errors_in_async_code_come_as_themselves_after_the_rows():
    error = ValueError("broken")

    async def fails():
        yield 1
        yield 2
        raise error

    found = []
    with closing(reading(Awaiting(fails), {})) as source:
        pull = source.open("")
        with pytest.raises(ValueError, match="broken") as raised:
            for batch in pull:
                found += batch
        pull.close()
    assert found == [1, 2]
    assert raised.value is error
    assert [frame.name for frame in traceback.extract_tb(error.__traceback__)][-1] == "fails"

    partition = AsyncBatched([1], error)
    with pytest.raises(ValueError, match="broken"):
        rows(Awaiting(lambda: partition))
    assert partition.closes == 1


def test_a_cancel_is_a_cancelled_error_where_it_waits():
    seen = []
    waits = threading.Event()

    async def waiting():
        try:
            yield 1
            waits.set()
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        finally:
            await asyncio.sleep(0)
            seen.append("cleaned up")

    source = reading(Awaiting(waiting), {})
    pull = source.open("")
    assert next(pull) == [1]
    puller = pulled(pull)
    assert waits.wait(SOON)
    asleep(puller.thread)
    start = time.monotonic()
    pull.cancel()
    assert puller.result() == []
    pull.close()
    source.close()
    assert time.monotonic() - start < 1
    assert seen == ["cancelled", "cleaned up"]


@pytest.mark.parametrize("where", ["open", "next_batch", "next_awake"])
def test_a_cancel_ends_every_wait_of_an_async_partition(where):
    seen = []
    waits = threading.Event()

    async def forever():
        waits.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    class Waits(AsyncBatched):
        async def next_batch(self):
            if where == "next_batch":
                await forever()
            return [1]

    partition = Waits(awake=datetime.max if where == "next_awake" else None)

    async def opened():
        if where == "open":
            await forever()
        return partition

    with closing(reading(Awaiting(opened), {})) as source:
        pull = source.open("")
        puller = pulled(pull)
        asleep(puller.thread)
        assert where == "next_awake" or waits.wait(SOON)
        pull.cancel()
        assert puller.result() == []
        pull.close()
    assert partition.closes == (where != "open")
    assert seen == ["cancelled"] * (where != "next_awake")


@pytest.mark.parametrize("source", [Opened, lambda partition: Awaiting(lambda: partition)])
def test_a_partition_that_is_cancelled_at_once_is_closed(source):
    for _ in range(20):
        partition = AsyncBatched([1])
        with closing(reading(source(partition), {})) as read:
            pull = read.open("")
            pull.cancel()
            assert list(pull) == []
            pull.close()
        assert partition.closes == 1


def test_an_early_end_closes_the_generator_where_it_yields():
    seen = []

    async def endless():
        n = 0
        try:
            while True:
                yield n
                n += 1
        finally:
            await asyncio.sleep(0)
            seen.append(n)

    assert rows(Awaiting(endless), limit=2) == [0, 1]
    assert len(seen) == 1
    assert seen[0] <= 2 * _awaited.CAPACITY


def test_tasks_that_are_left_are_cancelled_and_the_loop_is_closed():
    seen = []

    async def background():
        try:
            await asyncio.sleep(3600)
        finally:
            seen.append("cancelled")

    async def with_task():
        task = asyncio.ensure_future(background())
        await asyncio.sleep(0)
        yield 1
        assert not task.done()

    source = Awaiting(with_task)
    assert rows(source) == [1]
    assert seen == ["cancelled"]
    assert source.loops[0].is_closed()


def test_background_tasks_go_on_while_rows_are_delivered():
    beats = threading.Semaphore(0)

    async def heart():
        while True:
            beats.release()
            await asyncio.sleep(0.001)

    class Beating(AsyncBatched):
        async def next_batch(self):
            self.heart = asyncio.ensure_future(heart())
            return [1]

    with closing(reading(Awaiting(Beating), {})) as source, closing(source.open("")) as pull:
        assert next(pull) == [1]
        assert all(beats.acquire(timeout=SOON) for _ in range(5))


def test_partitions_share_a_loop():
    class Shared(AsyncSource):
        def __init__(self):
            self.loops = set()

        def partitions(self):
            return ["a", "b", "c"]

        async def open(self, partition, state):
            self.loops.add(asyncio.get_running_loop())
            yield partition

    source = Shared()
    read = reading(source, {})
    with closing(read):
        threads = [Elsewhere(lambda p=p: [row for batch in read.open(p) for row in batch]) for p in read.partitions]
        assert [thread.result() for thread in threads] == [["a"], ["b"], ["c"]]
    assert len(source.loops) == 1


def test_async_code_that_keeps_its_loop_is_interrupted(monkeypatch):
    monkeypatch.setattr(_threads, "GRACE", 0.05)
    busy = threading.Event()
    seen = []

    async def hogs():
        yield 1
        busy.set()
        try:
            while True:
                pass
        finally:
            seen.append("ended")

    with closing(reading(Awaiting(hogs), {})) as source:
        pull = source.open("")
        assert busy.wait(SOON)
        pull.cancel()
        assert list(pull) == []
        pull.close()
    assert seen == ["ended"]


def test_async_code_that_does_not_end_is_left_behind_with_a_warning(monkeypatch, caplog):
    monkeypatch.setattr(_threads, "GRACE", 0.05)
    monkeypatch.setattr(_threads, "PATIENCE", 0.1)
    enough = threading.Event()

    async def stubborn():
        yield 1
        while not enough.is_set():
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    with closing(reading(Awaiting(stubborn), {})) as source:
        pull = source.open("")
        assert next(pull) == [1]
        pull.close()
        assert "the cleanup of Awaiting has not ended" in caplog.text
        assert "couatl-loop:Awaiting" in caplog.text
        enough.set()


TYPED = """
from collections.abc import AsyncIterator
from typing import Any

from couatl.sources import AsyncSource, Source

class Awaited(AsyncSource):
    async def open(self, partition: str, state: Any) -> AsyncIterator[int]:
        yield 1

    async def close(self) -> None: ...

class Plain(Source):
    def close(self) -> None: ...
"""


def test_type_checkers_take_a_close_of_either_kind(tmp_path):
    api = pytest.importorskip("mypy.api")
    (tmp_path / "typed.py").write_text(TYPED)
    said, failed, _ = api.run(["--strict", "--cache-dir", str(tmp_path), str(tmp_path / "typed.py")])
    assert said.startswith("Success") and not failed, said


def test_an_error_in_an_async_cleanup_is_raised():
    class Fails(AsyncBatched):
        async def close(self):
            raise ValueError("cannot close")

    with pytest.raises(ValueError, match="cannot close"):
        rows(Awaiting(lambda: Fails([1])))


def test_a_cancelled_error_of_its_own_is_an_error():
    async def cancels_itself():
        yield 1
        raise asyncio.CancelledError("by itself")

    with pytest.raises(asyncio.CancelledError, match="by itself"):
        rows(Awaiting(cancels_itself))


def test_many_rows_take_little_time():
    async def many():
        for n in range(50_000):
            yield n

    class Many(PushSource):
        def run(self):
            for n in range(50_000):
                self.next(n)

    start = time.monotonic()
    assert len(rows(Awaiting(many))) == len(rows(Many)) == 50_000
    assert time.monotonic() - start < 5
