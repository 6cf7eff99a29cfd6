"""The base classes of couatl.sources, and couatl.testing, without a server; those that push or await are elsewhere."""

from __future__ import annotations

import doctest
import pkgutil
import threading
import time
import traceback
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from importlib import import_module

import couatl
import pytest
from couatl import _clock, sources
from couatl._columns import Columns
from couatl._errors import Misuse
from couatl._reading import reading
from couatl.sources import AsyncPartition, AsyncSource, Partition, PollingSource, PushSource, Retry, Source
from couatl.testing import rows, rows_and_state
from misuse import ALL, ERRORS, all_but, awaited, misused, yielded
from pulling import SOON, Batches, Opened, asleep, nothing_left_running, pulled  # noqa: F401

MODULES = [
    module.name for module in pkgutil.iter_modules(couatl.__path__) if module.name not in ("__main__", "_couatl")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    failed, tried = doctest.testmod(import_module(f"couatl.{name}"))
    assert failed == 0
    assert tried or name not in ("sources", "sinks", "testing")


def test_a_generator_is_pulled_without_a_layer_and_closed():
    class Numbers(Source):
        closed = 0

        def open(self, partition, state):
            try:
                yield from range(10)
            finally:
                type(self).closed += 1

    with closing(reading(Numbers, {})) as source:
        pull = source.open("")
        rest = iter(pull)
        assert [next(rest), next(pull)] == [0, 1]
        pull.close()
        pull.close()
    assert Numbers.closed == 1


def test_iterables_and_arrow():
    class Arrow:
        def __arrow_c_stream__(self, requested_schema=None):
            raise AssertionError("nobody imports it here")

    arrow = Arrow()
    assert rows(Opened([1, 2])) == [1, 2]
    assert rows(Opened(iter([1, 2]))) == [1, 2]
    assert rows(Opened({"a": 1}.keys())) == ["a"]
    assert rows(Opened(arrow)) == [arrow]


def test_open_that_gives_something_else():
    for opened in (None, 3, "abc", {"a": 1}):
        source = Opened(opened)
        with pytest.raises(TypeError, match=r"^Opened\.open\(\) returned .*; expected a Partition, or an iterable"):
            rows(source)
        assert source.closes == 1


def test_a_source_without_open():
    with pytest.raises(Misuse, match=r"Source has no open\(partition, state\)"):
        rows(Source())


def test_partitions():
    class Parts(Source):
        def __init__(self, parts):
            self.parts = parts
            self.closed = False

        def partitions(self):
            return self.parts

        def open(self, partition, state):
            yield partition, state

        def close(self):
            self.closed = True

    assert rows(Parts(["a", "b"]), state=7) == [("a", 7), ("b", 7)]
    assert rows(Parts([])) == []
    for wrong, what in [("ab", "a list of strings"), ([1], "a list of strings"), (["a", "a"], "names that differ")]:
        source = Parts(wrong)
        with pytest.raises(TypeError, match=rf"Parts\.partitions\(\) returned .*; expected {what}"):
            rows(source)
        assert source.closed


def test_a_source_is_closed_once_after_errors():
    class Fails(Opened):
        def open(self, partition, state):
            raise ValueError("no")

    source = Fails(None)
    read = reading(source, {})
    with pytest.raises(ValueError, match="no"):
        read.open("")
    read.close()
    read.close()
    assert source.closes == 1


def test_options_are_for_classes():
    with pytest.raises(TypeError, match=r"options are for a class, and .*Opened.* is an instance; it was given a, b"):
        reading(Opened([]), {"a": 1, "b": 2})


# Partitions


class Batched(Batches, Partition):
    def next_batch(self):
        return self.take()

    def close(self):
        self.closes += 1


def test_batches_come_as_they_are():
    partition = Batched([1, 2], None, [], 3, (4, 5), {"a": 6})
    with closing(reading(Opened(partition), {}).open("")) as pull:
        assert [next(pull), pull.snapshot()] == [[1, 2], 5]
        assert list(pull) == [None, [], 3, (4, 5), {"a": 6}]
    assert partition.closes == 1


def test_an_error_in_next_batch_is_raised_as_itself():
    error = ValueError("broken")
    partition = Batched([1], error)
    pull = reading(Opened(partition), {}).open("")
    assert next(pull) == [1]
    with pytest.raises(ValueError, match="broken") as raised:
        next(pull)
    assert raised.value is error
    assert "next_batch" in [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    pull.close()
    assert partition.closes == 1


def test_next_batch_that_gives_what_cannot_be_rows():
    class Late(Partition):
        async def next_batch(self):
            return []

    for wrong in (iter([1]), (n for n in [1]), {1, 2}, {"a": 1}.keys(), range(3)):
        with pytest.raises(TypeError, match=r"Batched\.next_batch\(\) returned .*expected a list of rows, or None"):
            rows(Opened(Batched(wrong)))
    with pytest.raises(TypeError, match=r"Late\.next_batch\(\) returned .*expected a plain method"):
        rows(Opened(Late()))


def test_next_awake_is_waited_for_and_naive_times_are_local():
    for zone in (None, timezone.utc, timezone(timedelta(hours=-9))):
        start = time.monotonic()
        assert rows(Opened(Batched([1], awake=datetime.now(zone) + timedelta(seconds=0.03)))) == [1]
        assert 0.025 < time.monotonic() - start < 1
    for past in (datetime.min, datetime(1970, 1, 1), datetime.min.replace(tzinfo=timezone(timedelta(hours=9)))):
        assert rows(Opened(Batched([1], awake=past))) == [1]


def test_next_awake_may_be_a_datetime_that_astimezone_refuses():
    """As a Timestamp of pandas does."""

    class Timestamp(datetime):
        def astimezone(self, zone=None):
            if self.tzinfo is None:
                raise TypeError("cannot convert")
            return super().astimezone(zone)

    awake = Timestamp(2000, 1, 1, 12)
    assert rows(Opened(Batched([1], awake=awake))) == [1]
    assert _clock.instant(awake) == datetime(2000, 1, 1, 12).astimezone(timezone.utc)


def test_next_awake_that_gives_something_else():
    with pytest.raises(TypeError, match=r"Batched\.next_awake\(\) returned 3 \(int\); expected a datetime, or None"):
        rows(Opened(Batched([1], awake=3)))


@pytest.mark.parametrize("zone", [None, timezone.utc, timezone(timedelta(hours=-9))])
def test_a_cancel_ends_a_wait_for_a_time_far_away(zone):
    partition = Batched([1], awake=datetime.max.replace(tzinfo=zone))
    pull = reading(Opened(partition), {}).open("")
    waiting = pulled(pull)
    asleep(waiting.thread)
    pull.cancel()
    assert waiting.result() == []
    assert waiting.took < 1
    pull.close()
    assert partition.closes == 1
    assert partition.batches == [[1]]


def test_next_awake_is_asked_once_for_each_batch():
    class Asked(Batched):
        asked = 0

        def next_awake(self):
            self.asked += 1
            return datetime.now() + timedelta(milliseconds=5)

    partition = Asked([1], [2])
    assert rows(Opened(partition)) == [1, 2]
    assert partition.asked == 3


class Waiting(Partition):
    """Waits in C until ``cancel`` is called, and fails there when it is."""

    def __init__(self):
        self.waits, self.enough = threading.Event(), threading.Event()
        self.calls = []

    def next_batch(self):
        self.waits.set()
        assert self.enough.wait(SOON)
        raise OSError("it has been cancelled")

    def cancel(self):
        self.calls.append(threading.current_thread().name)
        self.enough.set()

    def close(self):
        self.calls.append("close")


class WaitingPoll(PollingSource):
    """A polling source that waits so."""

    def __init__(self, partition):
        super().__init__(timedelta(seconds=1))
        self.partition = partition

    def next_item(self):
        return self.partition.next_batch()

    def cancel(self):
        self.partition.cancel()

    def close(self):
        self.partition.close()


@pytest.mark.parametrize("source", [Opened, WaitingPoll])
def test_a_cancel_ends_what_waits_in_c(source):
    partition = Waiting()
    with closing(reading(source(partition), {})) as read:
        with closing(read.open("")) as pull:
            waiting = pulled(pull)
            assert partition.waits.wait(SOON)
            pull.cancel()
            pull.cancel()
            assert str(waiting.result()) == "it has been cancelled"
            assert waiting.took < 1
        pull.cancel()
    (called, closed) = partition.calls
    assert called.startswith("couatl-cancel:")
    assert closed == "close"


def test_after_the_end_no_cancel_hook_is_called():
    partition = Waiting()
    pull = reading(Opened(partition), {}).open("")
    pull.close()
    pull.cancel()
    assert partition.calls == ["close"]


def test_what_a_cancel_hook_raises_is_logged(caplog):
    class Raises(Batched):
        def cancel(self):
            raise OSError("no route")

    pull = reading(Opened(Raises([1])), {}).open("")
    pull.cancel()
    assert list(pull) == []
    pull.close()
    assert "Raises.cancel() raised" in caplog.text
    assert "no route" in caplog.text


# Polling


class Counter(PollingSource):
    def __init__(self, interval: timedelta = timedelta(seconds=10), align_to: datetime | None = None):
        super().__init__(interval, align_to)
        self.items = 0

    def next_item(self):
        self.items += 1
        return self.items


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still, unless it is told a time."""

    class Clock:
        now = datetime(2025, 1, 31, 12, 0, 0, tzinfo=timezone.utc)

        def pass_(self, **time):
            self.now += timedelta(**time)

    clock = Clock()
    monkeypatch.setattr(sources, "_now", lambda: clock.now)
    return clock


def test_polling_begins_at_once_and_keeps_its_interval(clock):
    partition = Counter().open("", None)
    start = clock.now
    assert partition.next_awake() == start
    assert partition.next_batch() == 1
    assert partition.next_awake() == start + timedelta(seconds=10)
    clock.pass_(seconds=10, milliseconds=3)
    assert partition.next_batch() == 2
    assert partition.next_awake() == start + timedelta(seconds=20)


def test_ticks_that_were_missed_are_left_out(clock):
    partition = Counter().open("", None)
    start = clock.now
    partition.next_batch()
    clock.pass_(seconds=47)
    partition.next_batch()
    assert partition.next_awake() == start + timedelta(seconds=50)


@pytest.mark.parametrize(
    "align_to",
    [
        datetime(2025, 1, 31, 11, 0, 5, tzinfo=timezone.utc),
        datetime(1970, 1, 1, 0, 0, 5, tzinfo=timezone.utc),
        datetime(1, 1, 2, 0, 0, 5, tzinfo=timezone.utc),
        datetime(2025, 1, 31, 12, 0, 5, tzinfo=timezone.utc),
        datetime(2999, 1, 31, 12, 0, 5, tzinfo=timezone.utc),
        datetime(2025, 1, 31, 15, 0, 5, tzinfo=timezone(timedelta(hours=3))),
        datetime(2025, 1, 31, 11, 0, 5),
    ],
)
def test_polling_is_aligned_across_any_distance(clock, align_to):
    partition = Counter(align_to=align_to).open("", None)
    assert partition.next_awake() == clock.now + timedelta(seconds=5)
    clock.pass_(seconds=5)
    partition.next_batch()
    assert partition.next_awake() == clock.now + timedelta(seconds=10)
    assert Counter(align_to=clock.now).open("", None).next_awake() == clock.now


def test_retry_comes_in_between_and_leaves_the_ticks_where_they_are(clock):
    class Late(Counter):
        def next_item(self):
            if super().next_item() < 3:
                raise Retry(timedelta(seconds=1))
            return "there"

    partition = Late().open("", None)
    start = clock.now
    assert partition.next_batch() is None
    assert partition.next_awake() == start + timedelta(seconds=1)
    clock.pass_(seconds=1)
    assert partition.next_batch() is None
    clock.pass_(seconds=1)
    assert partition.next_batch() == "there"
    assert partition.next_awake() == start + timedelta(seconds=10)


def test_polling_ends_fails_and_is_cancelled():
    class Ends(Counter):
        def next_item(self):
            if super().next_item() > 2:
                raise StopIteration
            return [self.items] * self.items

    class Fails(Counter):
        def next_item(self):
            raise OSError("no route")

    fast = timedelta(milliseconds=1)
    assert rows(Ends(fast)) == [1, 2, 2]
    with pytest.raises(OSError, match="no route"):
        rows(Fails(fast))
    pull = reading(Counter(timedelta(days=1)), {}).open("")
    assert next(pull) == 1
    waiting = pulled(pull)
    asleep(waiting.thread)
    pull.cancel()
    assert waiting.result() == []
    pull.close()


def test_polling_goes_on_after_the_last_item():
    class Resumes(Counter):
        resumed = None

        def snapshot(self):
            return self.items

        def resume(self, state):
            self.resumed = self.items = state

    fast = timedelta(milliseconds=1)
    first = Resumes(fast)
    assert rows_and_state(first, limit=2) == ([1, 2], 2)
    assert first.resumed is None
    assert rows_and_state(Resumes(fast), state=2, limit=1) == ([3], 3)
    assert rows_and_state(Counter(fast), state=2, limit=1) == ([1], None)


@pytest.mark.parametrize("far", [timedelta.max, timedelta(days=3_650_000)])
def test_an_interval_may_reach_beyond_the_calendar(clock, far):
    class Late(Counter):
        def next_item(self):
            raise Retry(far)

    end = datetime.max.replace(tzinfo=timezone.utc)
    aligned = Counter(far, align_to=clock.now - timedelta(days=1)).open("", None)
    once, late = Counter(far).open("", None), Late().open("", None)
    assert (once.next_batch(), late.next_batch()) == (1, None)
    assert aligned.next_awake() == once.next_awake() == late.next_awake() == end


def test_misuse_of_polling():
    class Forgets(PollingSource):
        def __init__(self):
            pass

    class Generates(Counter):
        def next_item(self):
            yield 1

    for wrong in (timedelta(0), timedelta(seconds=-1)):
        with pytest.raises(ValueError, match="Counter: expected an interval above zero"):
            Counter(wrong)
    with pytest.raises(TypeError, match=r"Counter: expected a timedelta as interval, got 5 \(int\)"):
        Counter(5)
    with pytest.raises(TypeError, match=r"Counter: expected a datetime as align_to, got 'noon' \(str\)"):
        Counter(timedelta(1), "noon")
    with pytest.raises(TypeError, match=r"Retry: expected a timedelta, got 5 \(int\)"):
        Retry(5)
    with pytest.raises(TypeError, match=r"Forgets\.__init__\(\) does not call super"):
        rows(Forgets())
    with pytest.raises(TypeError, match=r"Generates\.next_item\(\) returned .*expected a list of rows"):
        rows(Generates())


class Parts(Source):
    """Has more than one part."""

    def partitions(self):
        return ["a", "b"]


@pytest.mark.parametrize("base", [PollingSource, PushSource])
def test_a_source_that_reads_itself_has_one_part(base):
    class Both(Parts, base):
        def __init__(self):
            pass

        open = base.open

    with pytest.raises(
        Misuse, match=r"^Both\.partitions\(\) returned \['a', 'b'\] .*, and its open\(\) gives one part; "
    ):
        reading(Both, {})


@pytest.mark.parametrize("base", [Partition, PushSource])
def test_two_parts_are_not_one(base):
    class Same(Parts):
        def __init__(self):
            self.part = base()

        def open(self, partition, state):
            return self.part if partition else base()

    with closing(reading(Same, {})) as source, closing(source.open("a")):
        with pytest.raises(
            Misuse, match=rf"^Same\.open\(\) gave the same {base.__name__} for two partitions; expected one"
        ):
            source.open("b")
        for _ in range(100):
            source.open("").close()


def test_two_parts_that_are_awaited_are_not_one():
    class Same(Parts, AsyncSource):
        part = AsyncPartition()

        async def open(self, partition, state):
            return self.part

    with closing(reading(Same, {})) as source, closing(source.open("a")), pytest.raises(Misuse, match="gave the same"):
        for _ in source.open("b"):
            pass


# Misuse


class Once(Partition):
    """Gives a row."""

    done = False

    def next_batch(self):
        if self.done:
            raise StopIteration
        self.done = True
        return [1]


@misused(schema=all_but("a yield"), partitions=all_but("a yield"), open=all_but("async def", "a yield"))
def test_misuse_of_a_source(method, wrong, said):
    good = {"__init__": lambda self: Opened.__init__(self, [1]), "schema": lambda self: "n int64"}
    bad = type("Bad", (Opened,), {**good, method: wrong})
    session = couatl.Session()
    with pytest.raises(ERRORS, match=said):
        session.source(name="bad", mode="batch")(bad)
        session.sql("SELECT n FROM bad").to_arrow()


@misused(close=all_but("async def"))
def test_misuse_of_the_end_of_a_source(method, wrong, said):
    with pytest.raises(ERRORS, match=said):
        rows(type("Bad", (Opened,), {method: wrong})([1]))


@misused(
    next_batch=("signature", "no method", "async def"),
    next_awake=("signature", "no method", "async def", "StopIteration"),
    snapshot=all_but("a yield"),
    close=ALL,
)
def test_misuse_of_a_partition(method, wrong, said):
    with pytest.raises(ERRORS, match=said):
        rows_and_state(Opened(type("Bad", (Once,), {method: wrong})()))


def test_none_is_no_method():
    class Bad(Once):
        next_awake = None

    with pytest.raises(Misuse, match=r"^Bad\.next_awake is None; expected a method next_awake\(self\)"):
        rows(Opened(Bad()))


@misused(next_item=("signature", "no method", "async def"), snapshot=all_but("a yield"), resume=ALL)
def test_misuse_of_a_polling_source(method, wrong, said):
    bad = type("Bad", (Counter,), {method: wrong})
    with pytest.raises(ERRORS, match=said):
        rows_and_state(bad(timedelta(milliseconds=1)), state=1, limit=1)


@misused(cancel=("signature", "no method"))
def test_misuse_of_what_ends_a_wait(method, wrong, said):
    for bad in (Opened(type("Bad", (Once,), {method: wrong})()), type("Bad", (Counter,), {method: wrong})()):
        with pytest.raises(Misuse, match=said):
            rows(bad)


@pytest.mark.parametrize(("wrong", "said"), [(awaited, "is asynchronous"), (yielded, "has a yield")])
def test_what_ends_a_wait_and_would_not_run(wrong, said):
    with pytest.raises(Misuse, match=rf"^Bad\.cancel\(\) {said}"):
        rows(Opened(type("Bad", (Once,), {"cancel": wrong})()))


# Testing


def test_rows_are_flattened_as_the_engine_does():
    batches = Batched([(1, 2)], ((3, 4), (5, 6)), (), None, (7, 8))
    assert rows(Opened(batches)) == [(1, 2), (3, 4), (5, 6), (7, 8)]
    nested = Columns(["a", "b"], ["array(int32)", "int32"])
    assert rows(Opened(Batched(([1], 2))), columns=nested) == [([1], 2)]
    assert rows(Opened(Batched([1, 2, 3])), limit=2) == [1, 2]
    assert rows(Opened(Batched([1])), limit=0) == []


def test_rows_come_with_the_state_after_them():
    class Letters(Source):
        def partitions(self):
            return ["north", "south"]

        def open(self, partition, state):
            return Batched([partition], None, [1, 2], ())

    assert rows_and_state(Letters, limit=2) == (["north", 1, 2], 1)
    assert rows_and_state(Letters, partition="south", limit=1) == (["south"], 3)
    assert rows_and_state(Letters) == (["north", 1, 2], 0)
    assert rows_and_state(Letters, limit=0) == ([], 4)
    assert rows_and_state(Opened([1, 2])) == ([1, 2], None)
    with pytest.raises(ValueError, match=r"there is no partition 'west'; expected one of \['north', 'south'\]"):
        rows_and_state(Letters, partition="west")


# Columns


def test_a_source_knows_its_columns():
    seen = []

    class Knows(Source):
        def schema(self):
            seen.append(("schema", self.columns))
            return "a int64"

        def partitions(self):
            seen.append(("partitions", self.columns))
            return [""]

        def open(self, partition, state):
            seen.append(("open", self.columns))
            yield 1

    @dataclass(frozen=True)
    class Frozen(Knows):
        size: int = 3

    declared = Columns(["a"], ["int64"])
    for kind in (Knows, Frozen):
        source = kind()
        source.schema()
        assert rows(source, columns=declared) == [1]
        assert rows(source) == [1]
        assert seen == [
            ("schema", None),
            ("partitions", declared),
            ("open", declared),
            ("partitions", None),
            ("open", None),
        ]
        seen.clear()


def test_what_a_source_has_by_that_name_stays():
    class Option(Source):
        def __init__(self, columns):
            self.columns = columns

        def open(self, partition, state):
            yield from self.columns

    class Method(Source):
        def columns(self):
            return ["a"]

        def open(self, partition, state):
            yield from self.columns()

    class Property(Method):
        columns = property(lambda self: lambda: ["b"])

    declared = Columns(["a"], ["string"])
    assert rows(Option(["x", "y"]), columns=declared) == ["x", "y"]
    assert rows(Method, columns=declared) == ["a"]
    assert rows(Property, columns=declared) == ["b"]
