"""The functions that make batches for Bytewax's partitions, against the library's own."""

from __future__ import annotations

import queue
from datetime import timedelta
from itertools import chain

import pytest
from couatl.compat import bytewax as ours

theirs = pytest.importorskip("bytewax.inputs")


class TestBatching:
    @pytest.mark.parametrize("size", [1, 2, 10])
    def test_of_an_iterable(self, size):
        assert list(ours.batch(range(5), size)) == list(theirs.batch(range(5), size))
        assert list(ours.batch((), size)) == list(theirs.batch((), size)) == []

    @pytest.mark.parametrize("size", [1, 2, 10])
    @pytest.mark.parametrize("items", [[], [1, 2, None, 3], [None, None], [1, None, None, 2, 3, 4]])
    def test_of_a_getter(self, items, size):
        def batches(lib):
            left = iter(items)
            return list(lib.batch_getter(lambda: next(left), size))

        assert batches(ours) == batches(theirs)

    @pytest.mark.parametrize("size", [1, 2, 10])
    def test_of_a_getter_that_raises(self, size):
        def batches(lib):
            steps = iter([1, 2, queue.Empty(), queue.Empty(), 3])

            def getter():
                step = next(steps)
                if isinstance(step, Exception):
                    raise step
                return step

            return list(lib.batch_getter_ex(getter, size))

        assert batches(ours) == batches(theirs)

    def test_of_a_getter_of_many(self):
        batches = ours.batch_getter(iter([[1, 2, 3], [], [4]]).__next__, 2)
        assert [batches() for _ in range(4)] == [[1, 2], [3], [], [4]]
        with pytest.raises(StopIteration):
            batches()

    @pytest.mark.parametrize("size", [1, 2, 10])
    def test_of_an_asynchronous_iterable(self, size):
        async def items():
            import asyncio

            for n in range(5):
                if n == 3:
                    await asyncio.sleep(0.06)
                yield n

        def batches(lib):
            return list(lib.batch_async(items(), timedelta(milliseconds=20), size))

        ours_, theirs_ = batches(ours), batches(theirs)
        assert [*chain(*ours_)] == [*chain(*theirs_)] == list(range(5))
        assert max(map(len, ours_)) <= size
        # The third is waited for longer than a batch is.
        assert len(ours_) > 1 and ([] in ours_) == ([] in theirs_)

    def test_of_an_asynchronous_iterable_asynchronously(self):
        import asyncio

        async def items():
            for n in range(5):
                yield n

        async def batches():
            return [some async for some in ours.batch_async(items(), 2)]

        assert asyncio.run(batches()) == [[0, 1], [2, 3], [4]]

    def test_of_an_asynchronous_iterable_that_fails_loses_nothing_before(self):
        async def items():
            yield 1
            raise ValueError("oh")

        batches = ours.batch_async(items(), timedelta(seconds=1), 1)
        assert next(batches) == [1]
        with pytest.raises(ValueError, match="oh"):
            next(batches)
