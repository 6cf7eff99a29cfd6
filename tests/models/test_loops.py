"""What the log says of tasks on the event loop of a source or a sink that go on when they are cancelled."""

import asyncio
import logging

import pytest
from couatl import _threads
from couatl.sinks import AsyncSink
from couatl.sources import AsyncSource
from couatl.testing import rows, write


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """What is left behind is left behind soon."""
    monkeypatch.setattr(_threads, "GRACE", 0.2)
    monkeypatch.setattr(_threads, "PATIENCE", 0.5)


async def stubborn():
    """Takes a cancel for nothing."""
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue


async def tidy(done):
    """Ends a cancel later than it comes."""
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        await asyncio.sleep(0)
        done.append(True)


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_a_task_of_a_source_that_swallows_its_cancel_is_named(caplog):
    class Ticks(AsyncSource):
        async def open(self, partition, state):
            self.tasks = [asyncio.create_task(each) for each in (stubborn(), tidy(done))]
            await asyncio.sleep(0)
            yield 1

    done = []
    assert rows(Ticks) == [1]
    assert done == [True]
    assert warnings(caplog) == ["stubborn has not ended, cancelled as it was: a task of Ticks"]


def test_a_task_of_a_sink_that_swallows_its_cancel_is_named(caplog):
    class Sent(AsyncSink):
        async def open(self, columns):
            self.tasks = [asyncio.create_task(self.beat()), asyncio.create_task(tidy(done))]
            await asyncio.sleep(0)

        async def beat(self):
            await stubborn()

        async def write(self, n):
            pass

    done = []
    write(Sent, [1], columns={"n": "int64"})
    assert done == [True]
    (said,) = warnings(caplog)
    assert said.endswith("Sent.beat has not ended, cancelled as it was: a task of Sent")


def test_a_close_that_never_ends_is_named(caplog):
    class Ticks(AsyncSource):
        async def open(self, partition, state):
            yield 1

        async def close(self):
            await stubborn()

    assert rows(Ticks) == [1]
    said = warnings(caplog)
    assert any("the cleanup of Ticks has not ended" in line for line in said)


def test_tasks_that_end_are_not_named(caplog):
    class Ticks(AsyncSource):
        async def open(self, partition, state):
            self.task = asyncio.create_task(tidy(done))
            await asyncio.sleep(0)
            yield 1

    done = []
    assert rows(Ticks) == [1]
    assert done == [True]
    assert warnings(caplog) == []
