"""Bytewax's sources and sinks: ``bytewax.inputs``, ``bytewax.outputs`` and the connectors built on them.

```text
  FixedPartitionedSource  list_parts(), build_part(step_id, name, state)  ──>  a Partition for each name
  DynamicSource           build(step_id, 0, 1)                            ──>  one Partition, without a state
  SimplePollingSource     next_item(), every interval                     ──>  one Partition, with the state it keeps
  FixedPartitionedSink    part_fn(key), build_part(…)                     <──  the first column is the key
  DynamicSink             build(step_id, 0, 1)                            <──  rows
```

A Couatl query is one worker, so a dynamic source or sink is built once. An item is any Python value; as a row it has
the shapes that a read function may yield, so that a ``(key, value)`` item fills two columns.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone
from typing import Any, Generic, TypeVar

from couatl import _clock, sinks, sources
from couatl._calls import ask, call, has_run, name_of, run
from couatl._classes import definer, derives
from couatl._columns import Columns
from couatl._errors import Misuse, class_name, misuse, shown, synchronous
from couatl._methods import check_concrete
from couatl._options import instance
from couatl._pull import is_arrow
from couatl._threads import log
from couatl.compat._batches import batch, batch_async, batch_getter, batch_getter_ex

__all__ = [
    "AbortExecution",
    "DynamicSink",
    "DynamicSource",
    "FixedPartitionedSink",
    "FixedPartitionedSource",
    "S",
    "SimplePollingSource",
    "Sink",
    "Source",
    "StatefulSinkPartition",
    "StatefulSourcePartition",
    "StatelessSinkPartition",
    "StatelessSourcePartition",
    "X",
    "as_sink",
    "as_source",
    "batch",
    "batch_async",
    "batch_getter",
    "batch_getter_ex",
]

X = TypeVar("X")
S = TypeVar("S")

#: What connectors are told as the name of their step.
STEP_ID = "couatl"
#: How partitions are opened.
BUILD = "build(step_id, worker_index, worker_count)"
BUILD_PART = "build_part(step_id, for_part, resume_state)"


class AbortExecution(RuntimeError):
    """Raised by ``next_batch`` or ``write_batch``: end the run at once, without a snapshot.

    The query fails, and says who aborted it. What resumes it goes on from the snapshot before.
    """


class Source(ABC, Generic[X]):
    """What reads: derive from :class:`FixedPartitionedSource` or :class:`DynamicSource` instead."""


class StatelessSourcePartition(ABC, Generic[X]):
    """One part of a source, open, that starts anew with each query."""

    @abstractmethod
    def next_batch(self) -> Iterable[X]:
        """The items that are there now, maybe none, without waiting. StopIteration is the end of the part."""

    def next_awake(self) -> datetime | None:
        """Not to be asked for items before then; a time without a zone is local.

        None is at once, or a millisecond after a batch without items.
        """
        return None

    def close(self) -> None:
        """Clean up, once."""


class StatefulSourcePartition(StatelessSourcePartition[X], Generic[X, S]):
    """One part of a source, open, that can go on from where it was."""

    @abstractmethod
    def snapshot(self) -> S:
        """The state from which to go on after the items that were given: anything that can be pickled."""


class FixedPartitionedSource(Source[X], Generic[X, S]):
    """A source of parts that have names, each with a state of its own.

    >>> class Lines(StatefulSourcePartition):
    ...     def __init__(self, lines, at):
    ...         self.lines, self.at = lines, at
    ...
    ...     def next_batch(self):
    ...         if self.at == len(self.lines):
    ...             raise StopIteration
    ...         self.at += 1
    ...         return self.lines[self.at - 1 : self.at]
    ...
    ...     def snapshot(self):
    ...         return self.at
    >>> class Poem(FixedPartitionedSource):
    ...     def list_parts(self):
    ...         return ["first", "second"]
    ...
    ...     def build_part(self, step_id, for_part, resume_state):
    ...         return Lines([f"{for_part} line"], resume_state or 0)
    """

    @abstractmethod
    def list_parts(self) -> list[str]:
        """The names of the parts."""

    @abstractmethod
    def build_part(self, step_id: str, for_part: str, resume_state: S | None) -> StatefulSourcePartition[X, S]:
        """Open a part, from the state that its ``snapshot()`` gave; None is the beginning."""


class DynamicSource(Source[X]):
    """A source without state, built once for each worker. Couatl is one worker."""

    @abstractmethod
    def build(self, step_id: str, worker_index: int, worker_count: int) -> StatelessSourcePartition[X]:
        """Open what worker `worker_index`, from 0, of `worker_count` reads."""


class SimplePollingSource(FixedPartitionedSource[X, S]):
    """A source that is asked at an interval, for one item, or for those that a function gives.

    A subclass has ``next_item``; without one, `getter` is called, and gives an iterable of items. With `align_to`, it
    is asked at that time and whole intervals before and after it. Ticks that have passed are left out.

    >>> class Load(SimplePollingSource):
    ...     def __init__(self):
    ...         super().__init__(interval=timedelta(seconds=10))
    ...
    ...     def next_item(self):
    ...         import os
    ...
    ...         return os.getloadavg()[0]
    >>> pairs = SimplePollingSource(lambda: [("a", 1), ("b", 2)], interval=timedelta(seconds=5))
    """

    class Retry(sources.Retry):
        """Raised by ``next_item``: there is nothing now, ask again after `timeout`."""

    def __init__(
        self,
        getter: Callable[[], Iterable[X]] | timedelta | None = None,
        interval: timedelta | datetime | None = None,
        align_to: datetime | None = None,
    ) -> None:
        # Without a getter, the interval comes first.
        if isinstance(getter, timedelta):
            getter, interval, align_to = None, getter, interval if isinstance(interval, datetime) else align_to
        interval = timedelta(seconds=1) if interval is None else interval
        if not isinstance(interval, timedelta) or interval <= timedelta(0):
            raise ValueError(f"{class_name(self)}: expected an interval above zero, got {shown(interval)}")
        if getter is None and type(self).next_item is SimplePollingSource.next_item:
            raise TypeError(f"{class_name(self)} has no next_item(), and no getter was given; expected one of them")
        self._getter = getter
        self._interval = interval
        self._align_to = align_to

    def list_parts(self) -> list[str]:
        """The only part."""
        return ["singleton"]

    def build_part(self, step_id: str, for_part: str, resume_state: S | None) -> StatefulSourcePartition[X, S]:
        """Go on from the state that ``snapshot()`` gave."""
        if resume_state is not None:
            run(self, "resume(resume_state)", resume_state)
        return _Polling(self)

    def next_item(self) -> X | None:
        """The next item; None is none. Raise :class:`Retry` to be asked again earlier, StopIteration to end."""
        raise NotImplementedError(f"{class_name(self)} has no next_item()")

    def snapshot(self) -> S | None:
        """The state from which to go on after the items that were given."""
        return None

    def resume(self, resume_state: S) -> None:
        """Go on from there; called once, before ``next_item``."""


class Sink(ABC, Generic[X]):
    """What writes: derive from :class:`FixedPartitionedSink` or :class:`DynamicSink` instead."""


class StatelessSinkPartition(ABC, Generic[X]):
    """One part of a sink, open."""

    @abstractmethod
    def write_batch(self, items: list[X]) -> None:
        """Write these."""

    def close(self) -> None:
        """Clean up, once."""


class StatefulSinkPartition(ABC, Generic[X, S]):
    """One part of a sink, open, that knows where it is."""

    @abstractmethod
    def write_batch(self, values: list[X]) -> None:
        """Write these: the values of items, without their keys."""

    @abstractmethod
    def snapshot(self) -> S:
        """The state from which to go on after what was written. Called when an epoch is committed."""

    def close(self) -> None:
        """Clean up, once."""


class FixedPartitionedSink(Sink[tuple[str, X]], Generic[X, S]):
    """A sink of parts that have names. The key of an item says which part its value goes to.

    The first column of what is written is the key, a string. The second is the value; of more columns, the value is
    a tuple of all but the key.
    """

    @abstractmethod
    def list_parts(self) -> list[str]:
        """The names of the parts."""

    def part_fn(self, item_key: str) -> int:
        """The part of a key, as an index, from 0, into the names in order; it wraps around."""
        return zlib.adler32(item_key.encode())

    @abstractmethod
    def build_part(self, step_id: str, for_part: str, resume_state: S | None) -> StatefulSinkPartition[X, S]:
        """Open a part, when its first value comes."""


class DynamicSink(Sink[X]):
    """A sink that is built once for each worker. Couatl is one worker.

    Of one column, an item is its value; of more, a tuple.
    """

    @abstractmethod
    def build(self, step_id: str, worker_index: int, worker_count: int) -> StatelessSinkPartition[X]:
        """Open what worker `worker_index`, from 0, of `worker_count` writes."""


def as_source(
    thing: Any, options: dict[str, Any], columns: Columns | None, streaming: bool | None = None
) -> sources.Source:
    """The source that a class, or an instance, of the model is."""
    _check_class(thing)
    source = instance(thing, options)
    if _is(source, "inputs", "FixedPartitionedSource", "build_part"):
        return _Fixed(source)
    if _is(source, "inputs", "DynamicSource", "build"):
        return _Dynamic(source)
    raise Misuse(f"{class_name(source)} is no source; expected a FixedPartitionedSource or a DynamicSource")


def as_sink(thing: Any, options: dict[str, Any], columns: Columns | None) -> sinks.Sink:
    """The sink that a class, or an instance, of the model is."""
    _check_class(thing)
    sink = instance(thing, options)
    if _is(sink, "outputs", "FixedPartitionedSink", "build_part"):
        return _FixedSink(sink)
    if _is(sink, "outputs", "DynamicSink", "build"):
        return _DynamicSink(sink)
    raise Misuse(f"{class_name(sink)} is no sink; expected a FixedPartitionedSink or a DynamicSink")


def _is(thing: Any, module: str, base: str, method: str) -> bool:
    """Whether it is of a base class; where it is of none of that module's, whether it has the method.

    A class may be a source of one kind and a sink of another: then the methods tell nothing.
    """
    names = {"inputs": ("FixedPartitionedSource", "DynamicSource"), "outputs": ("FixedPartitionedSink", "DynamicSink")}
    bases = {name for name in names[module] if derives(type(thing), f"bytewax.{module}.{name}", f"{__name__}.{name}")}
    return base in bases if bases else hasattr(thing, method)


def _check_class(thing: Any) -> None:
    if isinstance(thing, type):
        check_concrete(thing)


def _part_names(of: Any) -> list[str]:
    """Each name once, as the library has it."""
    names = call(of, "list_parts()")
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise misuse(of, "list_parts", names, "a list of strings")
    return list(dict.fromkeys(names))


def _batch(how: Callable[..., Any], part: Any, method: str, *arguments: Any) -> Any:
    """Call a partition's method; where it aborts, say who did."""
    try:
        return how(part, method, *arguments)
    except Exception as error:
        if not derives(type(error), "bytewax.inputs.AbortExecution", f"{__name__}.AbortExecution"):
            raise
        reason = f": {error}" if str(error) else ""
        raise AbortExecution(f"{class_name(part)}.{name_of(method)}() aborted the execution{reason}") from error


def _snapshot(of: Any) -> Any:
    state = synchronous(of, "snapshot", call(of, "snapshot()"))
    has_run(of, "snapshot", state)
    return state


class _Fixed(sources.Source):
    def __init__(self, source: Any) -> None:
        self.source = source

    def partitions(self) -> list[str]:
        return _part_names(self.source)

    def open(self, partition: str, state: Any) -> sources.Partition:
        if _polls(type(self.source)):
            if state is not None:
                run(self.source, "resume(resume_state)", state)
            return _Stateful(_Polling(self.source))
        part = call(self.source, BUILD_PART, STEP_ID, partition, state)
        if isinstance(part, type) or not hasattr(part, "next_batch") or not hasattr(part, "snapshot"):
            raise misuse(self.source, "build_part", part, "a StatefulSourcePartition")
        return _Stateful(part)


def _polls(cls: type) -> bool:
    """Whether its partition is the library's own for polling, which makes up for ticks that have passed."""
    return definer(cls, "build_part") == "bytewax.inputs.SimplePollingSource"


class _Dynamic(sources.Source):
    def __init__(self, source: Any) -> None:
        self.source = source

    def open(self, partition: str, state: Any) -> sources.Partition:
        part = call(self.source, BUILD, STEP_ID, 0, 1)
        if isinstance(part, type) or not hasattr(part, "next_batch"):
            raise misuse(self.source, "build", part, "a StatelessSourcePartition")
        return _Stateless(part)


class _Stateless(sources.Partition):
    def __init__(self, part: Any) -> None:
        self.part = part

    def next_batch(self) -> Any:
        items = synchronous(self.part, "next_batch", _batch(ask, self.part, "next_batch()"))
        if isinstance(items, list) or is_arrow(items):
            return items
        if not isinstance(items, Iterable):
            raise misuse(self.part, "next_batch", items, "an iterable of items, an empty one where there are none now")
        return list(items)

    def next_awake(self) -> datetime | None:
        if not hasattr(self.part, "next_awake"):
            return None
        awake = call(self.part, "next_awake()")
        if awake is None or isinstance(awake, datetime):
            return awake
        raise misuse(self.part, "next_awake", awake, "a datetime, or None for at once")

    def close(self) -> None:
        if hasattr(self.part, "close"):
            run(self.part, "close()")


class _Stateful(_Stateless):
    def snapshot(self) -> Any:
        return _snapshot(self.part)

    def close(self) -> None:
        try:
            super().close()
        except Exception:
            # All that it had has been read, and how far is known.
            log.exception("%s.close() failed", class_name(self.part))


class _Polling(StatefulSourcePartition[Any, Any]):
    """What a SimplePollingSource, the library's or ours, is asked through."""

    def __init__(self, source: Any) -> None:
        if not hasattr(source, "_interval"):
            raise Misuse(f"{class_name(source)}.__init__() has not called super().__init__(interval)")
        self.source = source
        self.interval: timedelta = source._interval
        now = _clock.now()
        since: datetime | None = source._align_to
        if since is not None and not isinstance(since, datetime):
            raise Misuse(f"{class_name(source)}: expected a datetime as align_to, got {shown(since)}")
        self.tick = now if since is None else now + (since.astimezone(timezone.utc) - now) % self.interval
        self.awake = self.tick

    def next_batch(self) -> list[Any]:
        try:
            items = self.items()
        except (sources.Retry, self.source.Retry) as retry:
            self.awake = _clock.now() + retry.timeout
            return []
        late = _clock.now() - self.tick
        self.tick += max(late // self.interval + 1, 1) * self.interval
        self.awake = self.tick
        return items

    def items(self) -> list[Any]:
        getter = getattr(self.source, "_getter", None)
        if getter is None:
            item = synchronous(self.source, "next_item", ask(self.source, "next_item()"))
            has_run(self.source, "next_item", item)
            return [] if item is None else [item]
        items = getter()
        if items is not None and not isinstance(items, Iterable):
            raise misuse(self.source, "getter", items, "an iterable of items")
        return [] if items is None else list(items)

    def next_awake(self) -> datetime:
        return self.awake

    def snapshot(self) -> Any:
        return _snapshot(self.source)


class _FixedSink(sinks.Sink):
    def __init__(self, sink: Any) -> None:
        self.sink = sink
        self.names: list[str] = []
        self.parts: dict[str, Any] = {}

    def open(self, columns: Columns) -> None:
        # Where an index leads to must not depend on the order in which names are listed.
        self.names = sorted(_part_names(self.sink))
        if not self.names:
            raise misuse(self.sink, "list_parts", [], "at least one name of a part to write to")
        if len(columns) < 2:
            expected = "expected a column for the key, and one or more for the value"
            raise Misuse(f"{class_name(self.sink)}: {expected}, got only '{', '.join(columns.names)}'")

    def write(self, *columns: list[Any]) -> None:
        keys, values = columns[0], columns[1] if len(columns) == 2 else list(zip(*columns[1:]))
        routed: dict[str, list[Any]] = {}
        for key, value in zip(keys, values):
            routed.setdefault(self.part_of(key), []).append(value)
        for name, items in routed.items():
            if name not in self.parts:
                self.parts[name] = self.build(name)
            _batch(run, self.parts[name], "write_batch(values)", items)

    def part_of(self, key: Any) -> str:
        if not isinstance(key, str):
            raise Misuse(f"{class_name(self.sink)}: expected a string as the key of each row, got {shown(key)}")
        index = call(self.sink, "part_fn(item_key)", key)
        if not isinstance(index, int) or index < 0:
            raise misuse(self.sink, "part_fn", index, "an int, zero or more")
        return self.names[index % len(self.names)]

    def build(self, name: str) -> Any:
        part = call(self.sink, BUILD_PART, STEP_ID, name, None)
        if isinstance(part, type) or not hasattr(part, "write_batch") or not hasattr(part, "snapshot"):
            raise misuse(self.sink, "build_part", part, "a StatefulSinkPartition")
        return part

    def commit(self) -> None:
        # The end of an epoch: there are partitions that make what they wrote last here.
        for part in self.parts.values():
            _snapshot(part)

    def close(self) -> None:
        errors = []
        for part in self.parts.values():
            try:
                if hasattr(part, "close"):
                    run(part, "close()")
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]


class _DynamicSink(sinks.Sink):
    def __init__(self, sink: Any) -> None:
        self.sink = sink
        self.part: Any = None

    def open(self, columns: Columns) -> None:
        part = call(self.sink, BUILD, STEP_ID, 0, 1)
        if isinstance(part, type) or not hasattr(part, "write_batch"):
            raise misuse(self.sink, "build", part, "a StatelessSinkPartition")
        self.part = part

    def write(self, *columns: list[Any]) -> None:
        items = columns[0] if len(columns) == 1 else list(zip(*columns))
        if items:
            _batch(run, self.part, "write_batch(items)", items)

    def close(self) -> None:
        if hasattr(self.part, "close"):
            run(self.part, "close()")
