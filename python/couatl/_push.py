"""Rows that are pushed: the queue between those who push and the one who pulls, and the thread of a push source."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from couatl._calls import run
from couatl._errors import class_name
from couatl._pull import Pull
from couatl._threads import UserThread, log

if TYPE_CHECKING:
    from couatl.sources import PushSource

#: How long ``run()`` may take to notice by itself that the query has ended, in seconds.
NOTICE = 0.1
#: How long who pushes after the end waits each time, in seconds: a loop that does not look at the end costs nothing.
UNWANTED = 0.1


class QueryEnded(KeyboardInterrupt):
    """Raised where a thread that exists for pushing alone pushes to nobody."""


class Rows:
    """A bounded queue: who pushes waits where the one who pulls is slower.

    Rows that follow each other leave together, as one list. Raises ValueError for a capacity below one.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"expected a capacity of at least one row, got {capacity}")
        self.capacity = capacity
        #: Set when no more rows come, or nobody pulls any more.
        self.ended = threading.Event()
        #: The thread that said so first.
        self.ended_by: int | None = None
        #: Set while the source cleans up, and may wait for those who push.
        self.cleaning = threading.Event()
        #: Called, by the thread that pulls, when there is room again.
        self.on_room: Callable[[], object] | None = None
        #: The thread that exists for pushing alone: it is ended when nobody pulls any more.
        self.thread: UserThread | None = None
        self._batches: deque[Any] = deque()
        self._last: list[Any] | None = None
        self._size = 0
        self._stopped = False
        # Reentrant: the garbage collector may run code of the user's that pushes or ends.
        self._lock = threading.RLock()
        self._room = threading.Condition(self._lock)
        self._some = threading.Condition(self._lock)

    def full(self) -> bool:
        """Whether the next one waits."""
        return self._size >= self.capacity

    def put(self, row: Any) -> bool:
        """Add one row, when there is room, and give whether it was added: after the end, nothing happens."""
        with self._lock:
            if not self._admits():
                return False
            # Only where there was no list to add to, somebody may wait.
            if self._last is None:
                self._last = []
                self._add(self._last, True)
            self._last.append(row)
            return True

    def put_whole(self, batch: Any) -> bool:
        """Add what leaves as it is, in its place between the rows. An empty list delivers those before it."""
        with self._lock:
            if not self._admits():
                return False
            self._last = None
            self._add(batch, False)
            return True

    def unwanted(self) -> None:
        """Wait a moment, after the end; while the source cleans up, not at all."""
        self.cleaning.wait(UNWANTED)

    def _admits(self) -> bool:
        while self._size >= self.capacity and not self.ended.is_set():
            self._room.wait()
        if self.ended.is_set():
            if self._stopped and self.thread is not None and self.thread.is_current():
                # As a generator is closed where it yields: an endless run() ends here.
                raise QueryEnded
            return False
        self._size += 1
        return True

    def _add(self, batch: Any, rows: bool) -> None:
        self._batches.append((batch, rows))
        self._some.notify()

    def take(self) -> Any:
        """The next batch; None at the end."""
        with self._lock:
            while not self._batches and not self.ended.is_set():
                self._some.wait()
            if not self._batches:
                return None
            batch, rows = self._batches.popleft()
            if batch is self._last:
                self._last = None
            was_full = self.full()
            self._size -= len(batch) if rows else 1
            if was_full and not self.full():
                self._room.notify_all()
                if self.on_room is not None:
                    self.on_room()
            return [] if batch is None else batch

    def end(self) -> None:
        """No more rows come: those that wait are delivered."""
        with self._lock:
            if not self.ended.is_set():
                self.ended_by = threading.get_ident()
            self.ended.set()
            self._some.notify_all()
            self._room.notify_all()

    def stop(self) -> None:
        """Nobody pulls any more: those that wait are dropped."""
        with self._lock:
            self._stopped = True
            self.cleaning.set()
            self._batches.clear()
            self._last = None
            self.end()


class Queued(Pull):
    """What comes through a queue, from user code elsewhere: `what` names it. What that raised comes after its rows."""

    def __init__(self, rows: Rows, what: str) -> None:
        super().__init__()
        self._rows = rows
        self._what = what
        self._raised: BaseException | None = None
        self._stopping = False
        self._at_end = False

    def __next__(self) -> Any:
        batch = self._rows.take()
        if batch is None:
            self._at_end = True
            if not self.cancelled.is_set():
                self._raise()
            raise StopIteration
        return batch

    def cancel(self) -> None:
        super().cancel()
        self._rows.stop()

    def _failed(self, error: BaseException) -> None:
        """Keep what user code raised; where it was made to end, that is often all there is to it."""
        if isinstance(error, QueryEnded):
            return
        if not self._stopping:
            self._raised = error
        elif isinstance(error, Exception):
            log.warning("%s raised when it was ended", self._what, exc_info=error)

    def _raise(self) -> None:
        error, self._raised = self._raised, None
        if isinstance(error, StopIteration):
            # It would be taken for the end.
            raise RuntimeError(f"{self._what} raised StopIteration") from error
        if error is not None:
            raise error


class Pushed(Queued):
    """Rows that a push source gives, on a thread of its own and on others."""

    def __init__(self, source: PushSource, rows: Rows) -> None:
        name = class_name(source)
        super().__init__(rows, f"{name}.run()")
        if rows.thread is not None:
            raise RuntimeError(f"this {name} has been read before: every query and every partition needs its own")
        self._source = source
        self._runs_on: int | None = None
        self._thread = rows.thread = UserThread(f"couatl-push:{name}", self._produce)

    def _produce(self) -> None:
        self._runs_on = threading.get_ident()
        try:
            run(self._source, "run()")
        except BaseException as error:
            self._failed(error)
        self._rows.end()

    def _close(self) -> None:
        if self._at_end and self._rows.ended_by == self._runs_on:
            # Where run() has said the end and goes on, what it raises is still its query's.
            self._thread.join()
        self._rows.stop()
        if not self._at_end:
            # It comes after rows that nobody wants.
            self._raised = None
        ended = self._thread.join(NOTICE)
        self._stopping = True
        try:
            # This may be what ends run(): it disconnects a client that waits.
            run(self._source, "on_stop()")
        finally:
            if not ended:
                self._thread.end(self._what)
            self._rows.cleaning.clear()
        if not self.cancelled.is_set():
            self._raise()
