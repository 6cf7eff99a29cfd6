"""One reading of a source, as the engine does it: each partition on a thread of its own, and an end to each of them.

Where a partition gives nothing for a while, it waits for what does not come: it is cancelled, and has to end.
"""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from couatl._columns import Columns
from couatl._contract import CANCEL, ContractError, same
from couatl._errors import class_name, shown
from couatl._reading import Pull, Reading, reading
from couatl._shapes import flat
from couatl._threads import UserThread

#: How much longer rows are waited for that have come before.
OWED = 5
END = object()


@dataclass
class Place:
    """Where reading may stop: after so many rows, with the last snapshot before the next, as it is and pickled."""

    rows: int
    state: Any
    pickled: bytes


@dataclass
class Seen:
    """What one reading of a partition gave."""

    partition: str
    rows: list[Any] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    #: Whether it ended by itself.
    ended: bool = False

    def is_again(self, before: Seen) -> bool:
        """Whether this gave what an earlier reading did, which it was to follow as far as that came."""
        return same(self.rows if before.ended else self.rows[: len(before.rows)], before.rows)


@dataclass(frozen=True)
class Reads:
    """How a source is read: by whom it is made, and how far."""

    thing: object
    options: Mapping[str, Any]
    columns: Columns | None
    #: How long one is waited for that gives nothing, and from which nothing is expected, in seconds.
    patience: float
    #: After how many rows of a partition reading stops; the batch that has the last of them is read whole.
    limit: int

    def all(self, side_by_side: bool = True, rows: Mapping[str, int] | None = None) -> list[Seen]:
        """Read all partitions, all at once or one after the other; `rows` are how many of each there are to be."""
        with closing(reading(self.thing, self.options, self.columns)) as source:
            parts: list[_Part] = []
            try:
                for name in source.partitions:
                    parts.append(_Part(self, source, name, None, None if rows is None else rows.get(name, 0)))
                    if not side_by_side:
                        parts[-1].wait()
                return [part.wait() for part in parts]
            finally:
                _end(parts)

    def one(self, partition: str, rows: int, state: Any = None) -> Seen:
        """Read one partition, of which there are to be so many rows."""
        with closing(reading(self.thing, self.options, self.columns)) as source:
            if partition not in source.partitions:
                returned = f"{class_name(self.thing)}.partitions() returned {source.partitions}"
                raise ContractError(f"{returned}, and '{partition}' before; expected the same names each time")
            part = _Part(self, source, partition, state, rows)
            try:
                return part.wait()
            finally:
                _end([part])

    def cancelled(self) -> None:
        """Open all partitions, and cancel them at once."""
        with closing(reading(self.thing, self.options, self.columns)) as source:
            parts = [_Part(self, source, name, None, None) for name in source.partitions]
            _end(parts)
            for part in parts:
                part.wait()


def _end(parts: Iterable[_Part]) -> None:
    for part in parts:
        part.cancel()
    for part in parts:
        part.end()


class _Part:
    """A partition that is being read."""

    def __init__(self, reads: Reads, source: Reading, name: str, state: Any, rows: int | None) -> None:
        self.reads, self.source, self.state = reads, source, state
        self.limit = reads.limit if rows is None else rows
        self.patience = reads.patience * (1 if rows is None else OWED)
        self.of = of_partition(reads.thing, name)
        self.seen = Seen(name)
        self.pull: Pull | None = None
        self.raised: list[BaseException] = []
        self.raised_by_close: list[BaseException] = []
        self.was_cancelled = False
        #: What is called once, while that is so.
        self.called: str | None = "open()"
        self.over = threading.Event()
        self.heard = time.monotonic()
        self.thread = UserThread(f"couatl-check:{class_name(reads.thing)}", self.run)

    def run(self) -> None:
        try:
            self.pull = self.source.open(self.seen.partition, self.state)
            if self.was_cancelled:
                self.pull.cancel()
            self.called = None
            self.read(self.pull)
        except BaseException as error:
            self.raised.append(error)
        try:
            if self.pull is not None:
                self.called = "close()"
                self.pull.close()
        except BaseException as error:
            self.raised_by_close.append(error)
        self.over.set()

    def read(self, pull: Pull) -> None:
        batches = iter(pull)
        self.stop_here(pull)
        while len(self.seen.rows) < self.limit:
            batch = next(batches, END)
            if batch is END:
                self.seen.ended = not self.was_cancelled
                return
            rows = list(flat([batch], self.reads.columns))
            self.seen.rows += rows
            self.stop_here(pull)
            if rows:
                self.heard = time.monotonic()

    def stop_here(self, pull: Pull) -> None:
        state = pull.snapshot()
        try:
            pickled = pickle.dumps(state)
        except Exception as error:
            expected = f"something that can be pickled ({error})"
            raise ContractError(f"{self.of}: snapshot() returned {shown(state)}; expected {expected}") from error
        places, rows = self.seen.places, len(self.seen.rows)
        if places and places[-1].rows == rows:
            places.pop()
        places.append(Place(rows, state, pickled))

    def wait(self) -> Seen:
        """Wait for its end; where it gives nothing for so long, cancel it. What it raised is raised."""
        while (left := self.heard + self.patience - time.monotonic()) > 0 and not self.over.wait(left):
            pass
        self.cancel()
        self.end()
        raised = self.raised_by_close if self.was_cancelled else self.raised + self.raised_by_close
        for error in raised:
            if self.was_cancelled and isinstance(error, KeyboardInterrupt):
                # For the test, it would be its own end.
                raise ContractError(
                    f"{self.of} was still ending a while after a cancel, and was interrupted; expected a close() "
                    "that is quick, and nothing that holds up a CancelledError"
                ) from error
            raise error
        for place in self.seen.places:
            if pickle.dumps(place.state) != place.pickled and not same(place.state, pickle.loads(place.pickled)):
                what = f"what snapshot() returned after {place.rows} rows became {shown(place.state)} later"
                raise ContractError(f"{self.of}: {what}; expected a copy, which stays as it is")
        return self.seen

    def cancel(self) -> None:
        """End what it waits for, unless it is over."""
        if not self.over.is_set():
            self.was_cancelled = True
            if self.pull is not None:
                self.pull.cancel()

    def end(self) -> None:
        """Wait for it to end, and interrupt it again and again, as the end of a query does."""
        until = time.monotonic() + CANCEL
        while not self.thread.join():
            if time.monotonic() > until:
                expected = "a next_awake() instead of the wait, or a cancel() that ends it"
                if self.called is not None:
                    expected = "one that can be interrupted"
                raise ContractError(
                    f"{self.of} has not ended {CANCEL:.0f} seconds after a cancel: {self.called or 'it'} waits where "
                    f"no interrupt comes; expected {expected}"
                )
            self.thread.interrupt()


def of_partition(thing: object, name: str) -> str:
    """What a partition is called in a sentence."""
    return f"{class_name(thing)}, partition '{name}'" if name else class_name(thing)
