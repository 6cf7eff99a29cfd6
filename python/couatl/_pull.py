"""What the engine pulls rows from: one open partition, and the two kinds that need no thread of their own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from couatl import _calls, _clock, _errors
from couatl._cancel import CancelHook

if TYPE_CHECKING:
    from couatl.sources import Partition

#: How long to wait where there is nothing to read now, and nobody said for how long, in seconds.
IDLE = 0.001


class Pull:
    """One open partition: an iterator of what a read function may yield.

    The engine calls everything but ``cancel`` on one thread, one after the other; ``snapshot`` between two pulls.
    """

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self._closed = False

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        raise NotImplementedError

    def cancel(self) -> None:
        """End what waits. Never blocks; comes from any thread."""
        self.cancelled.set()

    def is_due(self) -> bool:
        """Whether the next pull asks at once, rather than at a time that was said."""
        return True

    def snapshot(self) -> Any:
        """From where to go on after what was given."""
        return None

    def close(self) -> None:
        """Clean up, once, however often it is called."""
        if not self._closed:
            self._closed = True
            self._close()

    def _close(self) -> None:
        pass


class Iterated(Pull):
    """An iterator of the user's, pulled without a layer between: who iterates over this has it."""

    def __init__(self, rows: Any) -> None:
        super().__init__()
        self._rows: Iterator[Any] = iter(rows)

    def __iter__(self) -> Iterator[Any]:
        return self._rows

    def __next__(self) -> Any:
        return next(self._rows)

    def _close(self) -> None:
        close = getattr(self._rows, "close", None)
        if close is not None:
            close()


class Batches(Pull):
    """A partition that is asked for batches, when it wants to be."""

    def __init__(self, partition: Partition, hook: CancelHook) -> None:
        super().__init__()
        self._partition = partition
        self._schedule = Schedule(partition)
        self._hook = hook

    def __next__(self) -> Any:
        while (left := self._schedule.left()) > 0 and not _clock.wait(left, self.cancelled):
            pass
        if self.cancelled.is_set():
            raise StopIteration
        # The StopIteration of a partition that has ended is ours.
        batch = _calls.ask(self._partition, "next_batch()")
        return self._schedule.asked(_errors.batch(self._partition, "next_batch", batch))

    def cancel(self) -> None:
        super().cancel()
        self._hook.call()

    def is_due(self) -> bool:
        return self._schedule.is_due()

    def snapshot(self) -> Any:
        return _errors.synchronous(self._partition, "snapshot", _calls.call(self._partition, "snapshot()"))

    def _close(self) -> None:
        self._hook.end()
        _calls.run(self._partition, "close()")


class Schedule:
    """When a partition is to be asked for its next batch: what its ``next_awake`` says."""

    def __init__(self, partition: Any) -> None:
        self._partition = partition
        self._awake: datetime | None = None
        self._idle = False
        self._known = False

    def left(self) -> float:
        """How long to wait before looking again, in seconds; none or less: it is time."""
        if not self._known:
            awake = _calls.call(self._partition, "next_awake()")
            self._awake, self._known = _errors.synchronous(self._partition, "next_awake", awake), True
            if self._awake is None:
                idle, self._idle = self._idle, False
                return IDLE if idle else 0
            if not isinstance(self._awake, datetime):
                raise _errors.misuse(self._partition, "next_awake", self._awake, "a datetime, or None for at once")
        return 0 if self._awake is None else _clock.seconds_until(self._awake)

    def is_due(self) -> bool:
        """Whether there is no time to wait for."""
        return self.left() <= 0 or self._awake is None

    def asked(self, batch: Any) -> Any:
        """It has been asked, and gave this."""
        self._known = False
        self._idle = batch is None or (isinstance(batch, (list, tuple)) and not batch)
        return batch


def is_arrow(value: Any) -> bool:
    """Whether Arrow can import it: many rows at once."""
    return hasattr(type(value), "__arrow_c_array__") or hasattr(type(value), "__arrow_c_stream__")
