"""What sources are tested with that run here, as the engine drives them, without a server."""

from __future__ import annotations

import threading
import time

import pytest
from couatl._reading import reading
from couatl.sources import Source

SOON = 5.0


@pytest.fixture(autouse=True)
def nothing_left_running():
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + SOON
    while left := [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("couatl")]:
        assert time.monotonic() < deadline, left
        left[0].join(0.01)


class Elsewhere:
    """Does something on another thread, and says how it went."""

    def __init__(self, function):
        self.outcome = None
        self.took = None
        self.thread = threading.Thread(target=self.run, args=(function,), daemon=True)
        self.started = time.monotonic()
        self.thread.start()

    def run(self, function):
        try:
            self.outcome = function()
        except BaseException as error:
            self.outcome = error
        self.took = time.monotonic() - self.started

    def result(self):
        self.thread.join(SOON)
        assert not self.thread.is_alive()
        return self.outcome


def pulled(pull):
    """What is left of a pull, in a thread of its own, as a list."""
    return Elsewhere(lambda: list(pull))


def asleep(thread):
    """Wait until it waits: long enough for it to come to that point."""
    thread.join(0.05)
    assert thread.is_alive()


class Opened(Source):
    """Gives what it is told to."""

    def __init__(self, opened):
        self.opened = opened
        self.closes = 0

    def open(self, partition, state):
        return self.opened

    def close(self):
        self.closes += 1


class Batches:
    """What a partition of these batches does: it gives them, raises what is an error, and ends."""

    end = StopIteration

    def __init__(self, *batches, awake=None):
        self.batches = list(batches)
        self.awake = awake
        self.closes = 0

    def take(self):
        if not self.batches:
            raise self.end
        batch = self.batches.pop(0)
        if isinstance(batch, BaseException):
            raise batch
        return batch

    def next_awake(self):
        return self.awake

    def snapshot(self):
        return len(self.batches)


def opened(source):
    return reading(source, {}).open("")
