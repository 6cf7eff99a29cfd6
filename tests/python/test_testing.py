"""couatl.testing: the clock, the steps, marks and failures. Its checks are in test_conformance.py."""

from __future__ import annotations

import asyncio
import re
import threading
from contextlib import closing
from datetime import datetime, timedelta, timezone
from time import tzset

import couatl
import pytest
from couatl import _clock, sources
from couatl._reading import reading
from couatl.compat import bytewax
from couatl.sinks import AsyncSink, Sink
from couatl.sources import AsyncPartition, AsyncSource, Partition, PollingSource, PushSource, Retry, Source
from couatl.testing import (
    Aborted,
    Clock,
    ContractError,
    InjectedFailure,
    Reader,
    TestingSource,
    check_resume,
    check_sink,
    check_source,
    clock,
    failing_sink,
    failing_source,
    rows,
    rows_and_state,
    write,
)
from pulling import Batches, Opened, asleep, nothing_left_running, pulled  # noqa: F401

EOF, ABORT, PAUSE, FAIL = TestingSource.EOF, TestingSource.ABORT, TestingSource.PAUSE, TestingSource.FAIL
START = datetime(2025, 1, 31, 12, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)


# The clock


class Times(PollingSource):
    """When it is asked, from the start on."""

    def __init__(self, interval: timedelta = HOUR, align_to: datetime | None = None):
        super().__init__(interval, align_to)

    def next_item(self):
        return sources.now() - START


@pytest.fixture
def time():
    with clock(START) as time:
        yield time


def test_polling_passes_the_time(time):
    assert rows(Times, limit=4) == [0 * HOUR, 1 * HOUR, 2 * HOUR, 3 * HOUR]
    assert time.now() == START + 3 * HOUR


def test_a_year_passes_at_once(time):
    assert rows(Times, interval=timedelta(days=365), limit=100)[-1] == 99 * timedelta(days=365)


def test_ticks_that_pass_meanwhile_are_left_out(time):
    class Slow(Times):
        def next_item(self):
            item = super().next_item()
            time.advance(2.5 * HOUR)
            return item

    assert rows(Slow, limit=3) == [0 * HOUR, 3 * HOUR, 6 * HOUR]


def test_a_retry_passes_the_time(time):
    class Late(Times):
        asked = 0

        def next_item(self):
            self.asked += 1
            if self.asked % 2:
                raise Retry(timedelta(minutes=1))
            return super().next_item()

    minute = timedelta(minutes=1)
    assert rows(Late, limit=2) == [minute, HOUR + minute]


def test_bytewax_polls_by_the_same_clock(time):
    class Times(bytewax.SimplePollingSource):
        def next_item(self):
            return sources.now() - START

    assert rows(Times(HOUR), limit=3) == [0 * HOUR, 1 * HOUR, 2 * HOUR]


class Awaiting(AsyncSource):
    """Rows at whole hours."""

    async def open(self, partition, state):
        # Who asks for rows has to wait for this first.
        await asyncio.sleep(0.01)
        return AwaitingPart()


class AwaitingPart(AsyncPartition):
    awake = START + HOUR

    async def next_batch(self):
        self.awake = sources.now() + HOUR
        return [sources.now() - START]

    def next_awake(self):
        return self.awake


class Scheduled(Source):
    """The same, without an event loop."""

    def open(self, partition, state):
        return ScheduledPart()


class ScheduledPart(Partition):
    awake = START + HOUR

    def next_batch(self):
        self.awake = sources.now() + HOUR
        return [sources.now() - START]

    def next_awake(self):
        return self.awake


@pytest.mark.parametrize("source", [Awaiting, Scheduled])
def test_next_awake_passes_the_time(time, source):
    assert rows(source, limit=2) == [1 * HOUR, 2 * HOUR]


@pytest.mark.parametrize("source", [Awaiting, Scheduled])
def test_a_reader_does_not_move_the_clock(time, source):
    with Reader(source) as reader:
        assert (reader.take(), time.now()) == ([], START)
        time.advance(HOUR)
        assert (reader.take(), reader.take()) == ([HOUR], [])
        time.advance(HOUR - timedelta(microseconds=1))
        assert reader.take() == []
        time.advance(timedelta(microseconds=1))
        assert reader.take() == [2 * HOUR]


def test_no_rows_for_now_are_no_time_to_wait_for(time):
    with Reader(Opened(Batched([], [], [1]))) as reader:
        assert [reader.take(), reader.take(), reader.take()] == [[], [], [1]]
    assert time.now() == START


class Batched(Batches, Partition):
    def next_batch(self):
        return self.take()


@pytest.mark.parametrize("zone", [None, timezone.utc, timezone(timedelta(hours=-9))])
def test_a_wait_that_the_calendar_does_not_hold_ends_with_a_cancel(time, zone):
    with closing(reading(Opened(Batched([1], awake=datetime.max.replace(tzinfo=zone))), {}).open("")) as pull:
        waiting = pulled(pull)
        asleep(waiting.thread)
        pull.cancel()
        assert waiting.result() == []


def test_a_session_reads_by_the_clock_too(time):
    session = couatl.Session()
    session.source("hours int64", name="hours", mode="streaming")(Hours)
    assert session.sql("SELECT hours FROM hours LIMIT 3").to_arrow().to_pydict() == {"hours": [0, 1, 2]}


class Hours(Times):
    def next_item(self):
        return super().next_item() // HOUR


def test_the_machine_has_its_clock_again():
    with pytest.raises(ValueError, match="over"), clock(START):
        raise ValueError("over")
    assert abs(sources.now() - datetime.now(timezone.utc)) < HOUR
    with clock() as time:
        assert abs(time.now() - datetime.now(timezone.utc)) < HOUR
        with clock(START) as inner:
            assert sources.now() == inner.now() == START
        assert sources.now() == time.now()


def test_a_time_without_a_zone_is_local(monkeypatch):
    monkeypatch.setenv("TZ", "America/New_York")
    tzset()
    try:
        assert Clock(datetime(2025, 1, 31, 12)).now() == START + 5 * HOUR
        assert Clock(START.astimezone(timezone(HOUR))).now() == START
    finally:
        monkeypatch.undo()
        tzset()


def test_a_cancel_is_seen_by_the_clock(time):
    event = threading.Event()
    assert not _clock.wait(10, event)
    event.set()
    assert _clock.wait(10, event)
    assert time.now() == START + timedelta(seconds=20)


# Step by step


def test_a_reader_says_when_there_is_no_more():
    with Reader(Opened(Batched([1, 2], [3]))) as reader:
        assert (reader.take(), reader.snapshot(), reader.ended) == ([1, 2], 1, False)
        assert (reader.take(), reader.ended) == ([3], False)
        assert (reader.take(), reader.ended, reader.take()) == ([], True, [])


def test_a_reader_opens_the_partition_that_is_asked_for():
    class Parts(Opened):
        def partitions(self):
            return ["a", "b"]

        def open(self, partition, state):
            return [(partition, state)]

    source = Parts(None)
    with Reader(source) as first, Reader(source, partition="b", state=7) as second:
        assert (first.take(), second.take()) == ([("a", None)], [("b", 7)])
    assert source.closes == 2
    with pytest.raises(ValueError, match=r"there is no partition 'c'; expected one of \['a', 'b'\]"):
        Reader(source, partition="c")
    assert source.closes == 3


def test_a_reader_can_be_cancelled():
    class Silent(PushSource):
        def run(self):
            self.wait()

    with Reader(Silent) as reader:
        threading.Timer(0.01, reader.cancel).start()
        assert (reader.take(), reader.ended) == ([], True)


# Marks


def test_rows_are_given_in_batches_that_end_at_marks():
    with Reader(TestingSource([1, 2, 3, PAUSE(timedelta(0)), 4, 5], batch_size=2)) as reader:
        taken = [(reader.take(), reader.snapshot()) for _ in range(5)]
    assert taken == [([1, 2], 2), ([3], 3), ([], 4), ([4, 5], 6), ([], 6)]


def test_an_end_is_one_for_each_run():
    source = TestingSource([1, EOF(), 2, EOF(), EOF(), 3])
    state, runs = None, []
    for _ in range(5):
        found, state = rows_and_state(source, state=state)
        runs.append(found)
    assert runs == [[1], [2], [], [3], []]


def test_who_stops_before_an_end_comes_to_it():
    source = TestingSource([1, EOF(), 2])
    assert rows_and_state(source, limit=1) == ([1], 1)
    assert rows_and_state(source, state=1) == ([], 2)


def test_an_abort_happens_once():
    source = TestingSource([1, ABORT(), ABORT(), 2])
    for place in (1, 2):
        with pytest.raises(Aborted, match=f"the mark ABORT, item {place}"):
            rows(source)
    assert rows(source) == rows(source) == [1, 2]


def test_a_failure_happens_each_time():
    error = OSError("no route")
    source = TestingSource([1, FAIL(error), 2])
    for _ in range(2):
        with pytest.raises(OSError, match="no route") as raised:
            rows(source)
        assert raised.value is error
    with Reader(source, state=1) as reader:
        with pytest.raises(OSError, match="no route"):
            reader.take()
        assert reader.snapshot() == 1
    assert rows(source, state=2) == [2]


def test_a_pause_takes_its_time(time):
    source = TestingSource([1, PAUSE(HOUR), 2])
    with Reader(source) as reader:
        assert [reader.take() for _ in range(3)] == [[1], [], []]
        time.advance(HOUR)
        assert reader.take() == [2]
    assert rows(source) == [1, 2]
    assert time.now() == START + 2 * HOUR


def test_a_cancel_ends_a_pause():
    pull = reading(TestingSource([PAUSE(HOUR), 2]), {}).open("")
    assert next(pull) == []
    waiting = pulled(pull)
    asleep(waiting.thread)
    pull.cancel()
    assert waiting.result() == []


def test_marks_are_instances():
    with pytest.raises(TypeError, match=r"expected the mark EOF\(\), got its class"):
        TestingSource([1, EOF])
    with pytest.raises(ValueError, match="expected batch_size to be at least 1, got 0"):
        TestingSource([1], batch_size=0)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: rows(Parts, limit=-1), "rows: expected limit to be at least 0, got -1"),
        (lambda: rows(Parts, limit="3"), "rows: expected a number of rows as limit, got '3' (str)"),
        (lambda: rows_and_state(Parts, limit=-1), "rows_and_state: expected limit to be at least 0, got -1"),
        (lambda: rows(Parts, columns="n int64"), "expected columns as {'name': 'type', …}, got 'n int64' (str)"),
        (lambda: clock("2025-01-31").__enter__(), "clock: expected a datetime as start, got '2025-01-31' (str)"),
        (lambda: PAUSE(5), "TestingSource.PAUSE: expected a timedelta, got 5 (int)"),
        (lambda: FAIL("no"), "TestingSource.FAIL: expected an exception to raise, got 'no' (str)"),
        (lambda: failing_source(Parts, after=-1), "failing_source: expected after to be at least 0, got -1"),
        (
            lambda: failing_source(Parts, after=1, error="no"),
            "failing_source: expected an exception to raise as error, got 'no' (str)",
        ),
        (
            lambda: failing_sink(Parts, at="open", error="no"),
            "failing_sink: expected an exception to raise as error, got 'no' (str)",
        ),
    ],
)
def test_what_a_test_says_wrong_is_a_sentence(call, said):
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(said)}$"):
        call()


def test_marks_in_a_statement():
    session = couatl.Session()
    create = """
CREATE OR REPLACE EXTERNAL STREAM played (n int64, s string) AS $$
from datetime import timedelta
from couatl.testing import TestingSource
played = TestingSource([(1, "a"), TestingSource.PAUSE(timedelta(milliseconds=1)), (2, "b"), TestingSource.{}, (3, "c")])
$$ SETTINGS type = 'python'"""
    session.sql(create.format("EOF()"))
    assert session.sql("SELECT sum(n) AS sum FROM played").to_arrow().to_pydict() == {"sum": [3]}
    session.sql(create.format("ABORT()"))
    with pytest.raises(Aborted, match="item 3"):
        session.sql("SELECT n FROM played").to_arrow()
    session.sql(
        "CREATE OR REPLACE EXTERNAL STREAM played (n int64) "
        "SETTINGS type = 'python', class = 'couatl.testing:TestingSource', items = '[1, 2]'"
    )
    assert session.sql("SELECT n FROM played").to_arrow().to_pydict() == {"n": [1, 2]}


# Failures


class Parts(Source):
    """Two partitions of three batches, which are closed."""

    def __init__(self):
        self.parts = []
        self.closes = 0

    def schema(self):
        return "n int64"

    def partitions(self):
        return ["a", "b"]

    def open(self, partition, state):
        self.parts.append(Closed([1, 2], [3], [4]))
        return self.parts[-1]

    def close(self):
        self.closes += 1


class Closed(Batched):
    def close(self):
        self.closes += 1


@pytest.mark.parametrize(("after", "given", "state"), [(0, [], 3), (1, [1, 2], 2), (2, [1, 2], 2), (3, [1, 2, 3], 1)])
def test_a_source_fails_after_so_many_rows(after, given, state):
    inner, found = Parts(), []
    with Reader(failing_source(inner, after=after), partition="b") as reader:
        with pytest.raises(InjectedFailure, match=f"the source Parts was to fail after {after} row"):
            for _ in range(9):
                found += reader.take()
        assert (found, reader.snapshot()) == (given, state)
    assert [part.closes for part in inner.parts] == [1]
    assert inner.closes == 1


def test_a_source_that_ends_before_does_not_fail():
    error = OSError("no route")
    assert rows(failing_source(Parts, after=5, error=error), limit=4) == [1, 2, 3, 4]
    with pytest.raises(OSError, match="no route") as raised:
        rows(failing_source(Parts, after=4, error=error))
    assert raised.value is error


def test_a_failing_source_keeps_what_it_wraps(time):
    wrapped = failing_source(Times, after=9, interval="2h")
    assert rows(wrapped, limit=2) == [0 * HOUR, 2 * HOUR]
    with Reader(wrapped) as reader:
        assert [len(reader.take()), len(reader.take())] == [1, 0]
    assert failing_source(Parts, after=1).schema() == "n int64"
    silent = reading(failing_source(Opened(Batched([1], awake=datetime.max)), after=1), {}).open("")
    waiting = pulled(silent)
    asleep(waiting.thread)
    silent.cancel()
    assert waiting.result() == []


def test_a_failing_source_in_a_query():
    inner = Parts()
    session = couatl.Session()
    session.source("n int64", name="parts")(lambda: failing_source(inner, after=3))
    with pytest.raises(InjectedFailure):
        session.sql("SELECT sum(n) FROM parts").to_arrow()
    assert inner.closes == 1


def logging(base):
    """A sink that logs what is called, made of a base."""

    class Logged(base):
        def __init__(self, log):
            self.log = log

    def method(name, is_async):
        def plain(self, *_):
            self.log.append(name)

        async def awaited(self, *_):
            self.log.append(name)

        return awaited if is_async else plain

    for name in ("open", "write", "flush", "commit", "abort", "close"):
        setattr(Logged, name, method(name, base is AsyncSink))
    return Logged


CALLS = ["open", "write", "flush", "commit"]


@pytest.mark.parametrize("base", [Sink, AsyncSink])
@pytest.mark.parametrize("at", CALLS)
def test_a_sink_fails_at_a_method(base, at):
    error = OSError("disk full")
    log = []
    with pytest.raises(OSError, match="disk full") as raised:
        write(failing_sink(logging(base), at=at, error=error, log=log), [1], columns={"n": "int64"})
    assert raised.value is error
    before = CALLS[: CALLS.index(at)]
    assert log == (before and [*before, "abort", "close"])


def test_a_sink_fails_with_an_error_of_its_own():
    with pytest.raises(InjectedFailure, match=r"the sink Logged was to fail at flush\(\)"):
        write(failing_sink(logging(Sink), at="flush", log=[]), [1], columns={"n": "int64"})
    with pytest.raises(ValueError, match="expected at to be one of open, write, flush, commit, got 'close'"):
        failing_sink(logging(Sink), at="close", log=[])


# Plain functions


def test_plain_functions_run_without_a_server():
    def letters():
        yield "a"
        yield ["b", "c"]

    kept = []
    assert rows(letters) == ["a", "b", "c"]
    assert rows_and_state(letters, limit=1) == (["a"], None)
    write(lambda n, m: kept.extend(zip(m, n)), [(1, "a"), (2, "b")], columns={"m": "int64", "n": "string"})
    assert kept == [("a", 1), ("b", 2)], "by position, whatever the parameters are called"
    with pytest.raises(InjectedFailure, match=r"^the source letters was to fail after 1 row$"):
        rows(failing_source(letters, after=1))
    with pytest.raises(InjectedFailure, match=r"^the sink letters was to fail at open\(\)$"):
        write(failing_sink(letters, at="open"), [1], columns={"n": "int64"})


def test_checks_of_plain_functions():
    written = []
    check_source(lambda: [1, 2], columns={"n": "int64"})
    check_sink(written.extend, [1, 2], columns={"n": "int64"})
    with pytest.raises(ContractError, match=r"column 'n' \(int64\): cannot store 'high' \(str\)$"):
        check_source(lambda: ["high"], columns={"n": "int64"})
    with pytest.raises(ContractError, match=r"^once: snapshot\(\) returned None after 1 rows"):

        def once():
            return [1]

        check_resume(once)


def test_plain_functions_that_no_statement_takes():
    async def letters():
        yield "a"

    with pytest.raises(TypeError, match=r"^expected a source, got <function"):
        rows(letters)
    with pytest.raises(TypeError, match=r"^keep\.write\(\) returned <generator .*expected a method without yield"):

        def keep(n):
            yield n

        write(keep, [1], columns={"n": "int64"})
