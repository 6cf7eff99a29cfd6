"""The check of sources in couatl.testing: what keeps to the contract passes, and every break of it is a sentence."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import re
import sys
import threading
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pyarrow
import pytest
from couatl._observed import Reads, _Part
from couatl._reading import reading
from couatl.compat import bytewax, ekuiper, pathway, pyspark, streamz
from couatl.sources import AsyncPartition, AsyncSource, Partition, PollingSource, PushSource, Source
from couatl.testing import ContractError, TestingSource, check_resume, check_sink, check_source, clock
from pulling import SOON, nothing_left_running  # noqa: F401

QUICK = timedelta(seconds=0.05)
N = {"n": "int64"}


def refusal(check, *arguments, **named):
    """What a check says of what does not pass it."""
    with pytest.raises(ContractError) as raised:
        check(*arguments, **named)
    return str(raised.value)


# Sources that keep to it


class Counted(Source):
    """Numbers, in batches, from where it was."""

    def __init__(self, last: int = 5, size: int = 2):
        self.last, self.size = last, size

    def schema(self):
        return "n int64 NOT NULL"

    def open(self, partition, state):
        return CountedPart(self, state or 0)


class CountedPart(Partition):
    def __init__(self, source, number):
        self.source, self.number = source, number

    def next_batch(self):
        first, self.number = self.number, min(self.number + self.source.size, self.source.last)
        if first == self.number:
            raise StopIteration
        return list(range(first, self.number))

    def snapshot(self):
        return self.number


class Shards(Counted):
    def partitions(self):
        return ["north", "south"]


class Generated(Counted):
    def open(self, partition, state):
        yield from range(self.last)


class Pushed(PushSource):
    def schema(self):
        return "n int64"

    def run(self):
        self.next(1)
        self.next(n=2)
        self.wait()


class Awaited(AsyncSource):
    def schema(self):
        return "n int64"

    async def open(self, partition, state):
        return AwaitedPart(state or 0)


class AwaitedPart(AsyncPartition):
    def __init__(self, number):
        self.number = number

    async def next_batch(self):
        if self.number == 3:
            raise StopAsyncIteration
        self.number += 1
        return [self.number]

    def snapshot(self):
        return self.number


class Polled(PollingSource):
    number = 0

    def __init__(self, interval: timedelta = timedelta(hours=1)):
        super().__init__(interval)

    def schema(self):
        return "n int64"

    def next_item(self):
        self.number += 1
        return self.number

    def snapshot(self):
        return self.number

    def resume(self, state):
        self.number = state


class Arrow(Source):
    def schema(self):
        return pyarrow.schema([("n", pyarrow.int64())])

    def open(self, partition, state):
        return pyarrow.table({"n": [1, 2]})


@pytest.mark.parametrize("source", [Counted, Shards, Generated, Pushed, Awaited, Polled, Arrow])
def test_what_keeps_to_the_contract_passes(source):
    check_source(source)


def test_options_and_columns_are_those_of_the_test():
    class Told(Source):
        def __init__(self, numbers: list[int]):
            self.numbers = numbers

        def open(self, partition, state):
            assert self.columns.names == ("n",)
            return self.numbers

    check_source(Told, columns=N, numbers="1, 2")
    check_source(Arrow, columns=N)
    said = refusal(check_source, Arrow, columns={"m": "int64"})
    assert said == "stream 'Arrow': expected an Arrow object with the columns m, missing: m, unknown: n"
    with pytest.raises(TypeError, match="there is no option 'number'"):
        check_source(Told, columns=N, number="1")


def test_the_source_knows_the_columns_of_its_schema():
    class Told(Generated):
        def open(self, partition, state):
            assert list(self.columns) == [("n", "int64")]
            yield 1

    check_source(Told)


def test_what_never_ends_is_read_up_to_a_limit():
    with clock():
        check_source(Polled, limit=10)
    check_resume(Counted, last=1_000_000, limit=10)
    check_source(Generated, last=1_000_000, limit=10)


def test_an_instance_that_can_be_read_again():
    check_source(TestingSource([1, 2, TestingSource.PAUSE(timedelta(milliseconds=1)), 3]), columns=N)
    check_resume(TestingSource([1, 2, TestingSource.EOF(), 3]))


def test_one_that_gives_other_rows_each_time_is_not_held_to_its_snapshots():
    class Live(Counted):
        readings = 0

        def open(self, partition, state):
            type(self).readings += 1
            return CountedPart(self, self.readings)

    check_source(Live, last=1000, limit=5)


# Sources that do not


def of(**methods):
    """A source that differs from one that passes by these methods."""
    return type("Bad", (Counted,), methods)


def part_of(**methods):
    part = type("BadPart", (CountedPart,), methods)
    return of(open=lambda self, partition, state: part(self, state or 0))


def test_defaults_are_what_the_annotations_say():
    class Bad(Counted):
        def __init__(self, every: timedelta = "often"):
            super().__init__()

    assert refusal(check_source, Bad) == (
        "Bad: option 'every': expected a duration such as '5s', '100ms', '1m' or a number of seconds as its default, "
        "got 'often' (str)"
    )


def test_an_option_that_no_statement_can_set():
    class Bad(Counted):
        def __init__(self, mode: str):
            super().__init__()

    said = refusal(check_source, Bad, mode="auto")
    assert said == "Bad: option 'mode' is required, and a setting of that name is the stream's own; expected another"


def test_methods_that_run_nothing():
    def close(self):
        yield

    assert refusal(check_source, of(close=close)) == (
        "Bad.close() has a yield, so that nothing of it runs; expected a method without one"
    )


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (None, "returned None, which leaves them to the statement; expected columns={'name': 'type', …}"),
        (3, "returned 3 (int); expected 'a int64, b string', an Arrow schema, or None"),
        ("n integer8", "returned 'n integer8' (str); expected columns such as 'a int64, b string' ("),
    ],
)
def test_a_schema_that_is_none(schema, said):
    assert refusal(check_source, of(schema=lambda self: schema)).startswith(f"Bad.schema() {said}")


def test_what_the_engine_sees_by_itself_is_its_own_error():
    with pytest.raises(TypeError, match=r"Bad\.partitions\(\) returned .* expected names that differ"):
        check_source(of(partitions=lambda self: ["a", "a"]))
    with pytest.raises(TypeError, match=r"BadPart\.next_batch\(\) returned .* expected a list of rows"):
        check_source(part_of(next_batch=lambda self: {1, 2}))
    with pytest.raises(TypeError, match=r"BadPart\.next_awake\(\) returned 3 \(int\); expected a datetime"):
        check_source(part_of(next_awake=lambda self: 3))


def test_partitions_that_change():
    class Bad(Counted):
        made = 0

        def partitions(self):
            type(self).made += 1
            return [f"part {self.made}"]

    assert refusal(check_source, Bad) == (
        "Bad.partitions() returned ['part 2'], and before ['part 1']; expected the same names each time"
    )


def test_partitions_that_are_gone_when_reading_goes_on():
    class Bad(Shards):
        made = 0

        def partitions(self):
            type(self).made += 1
            return ["north"] if self.made > 6 else ["north", "south"]

    assert refusal(check_source, Bad).startswith("Bad.partitions() returned ['north'], and 'south' before")


def test_no_rows_are_nothing_to_look_at():
    said = refusal(check_source, Counted, last=0, patience=QUICK)
    assert said.startswith("Counted gave no rows within 0:00:00.050000; expected some to look at")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("two", "stream 'Bad', row 1, column 'n' (int64): cannot store 'two' (str)"),
        ((1, 2), "stream 'Bad', row 1: expected 1 value (n), got 2 values: (1, 2) (tuple)"),
        ({"m": 1}, "stream 'Bad', row 1"),
        (None, "stream 'Bad', row 1, column 'n' (int64)"),
    ],
)
def test_rows_that_do_not_fit_the_columns(row, said):
    assert refusal(check_source, of(open=lambda self, *_: [row])).startswith(said)


def test_partitions_that_share_what_they_should_not():
    class Bad(Shards):
        opened = 0

        def __init__(self):
            self.both = threading.Event()

        def open(self, partition, state):
            self.opened += 1
            if self.opened == 2:
                self.both.set()
            self.both.wait(0.2)
            yield self.opened

    said = refusal(check_source, Bad)
    assert said.startswith("Bad, partition 'north' gave 2 while the other partitions were read, and 1 alone; expected")


def test_partitions_that_share_a_counter():
    class Bad(Shards):
        number = 0

        def open(self, partition, state):
            for _ in range(3):
                self.number += 1
                yield self.number

    # Side by side, each may have ended before the next begins.
    said = refusal(check_source, Bad)
    assert "while the other partitions were read, and 1, 2, 3 alone; expected partitions that share nothing" in said


def test_partitions_that_end_each_other():
    class Bad(Shards):
        opened, is_closed = 0, False

        def __init__(self):
            self.both = threading.Event()

        def open(self, partition, state):
            was_closed = self.is_closed
            self.opened += 1
            if self.opened == 2:
                self.both.set()
            self.both.wait(0.2)
            if not was_closed:
                yield partition, 1
            self.is_closed = True

    said = refusal(check_source, Bad, columns={"part": "string", "n": "int64"})
    assert said == (
        "Bad, partition 'south' gave ('south', 1) while the other partitions were read, and no rows in turn with them; "
        "expected partitions that share nothing"
    )


def test_partitions_that_give_other_rows_each_time_share_nothing():
    class Live(Shards):
        readings = itertools.count()

        def open(self, partition, state):
            yield next(self.readings)

    check_source(Live)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"limit": 0}, "check_source: expected limit to be at least 1, got 0"),
        ({"limit": "5"}, "check_source: expected a number of rows as limit, got '5' (str)"),
        ({"patience": 2}, "check_source: expected a timedelta as patience, got 2 (int)"),
        ({"columns": "n int64"}, "expected columns as {'name': 'type', …}, got 'n int64' (str)"),
    ],
)
def test_what_a_check_is_told(given, said):
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(said)}$"):
        check_source(Counted, **given)


def test_snapshots_that_cannot_be_kept():
    said = refusal(check_source, part_of(snapshot=lambda self: lambda: None))
    assert said.startswith("Bad: snapshot() returned <function") and "expected something that can be pickled" in said


def test_snapshots_that_change_later():
    class Part(CountedPart):
        def __init__(self, source, number):
            super().__init__(source, number.get("at", 0))
            self.state = {}

        def snapshot(self):
            self.state["at"] = self.number
            return self.state

    said = refusal(check_source, of(open=lambda self, partition, state: Part(self, state or {})))
    assert said.startswith("Bad: what snapshot() returned after 0 rows became {'at': 5} (dict) later; expected a copy")


@pytest.mark.parametrize(
    ("snapshot", "said"),
    [
        (lambda self: self.number - 1, "Bad: read up to row 0, and on from the snapshot -1 (int): -1 came too"),
        (lambda self: max(self.number - 1, 0), "Bad: read up to row 2, and on from the snapshot 1 (int): 1 came again"),
        (lambda self: self.number or None, None),
        (lambda self: self.number + (self.number == 4), "row 4, and on from the snapshot 5 (int): 4 did not come"),
        (lambda self: 3 if self.number == 2 else self.number, "snapshot 3 (int): 2 did not come"),
        (lambda self: None if self.number == 4 else self.number, "snapshot None: 0, 1, 2, 3 came again"),
    ],
)
@pytest.mark.parametrize("check", [check_source, check_resume])
def test_reading_that_goes_on_elsewhere(check, snapshot, said):
    bad = part_of(snapshot=snapshot)
    if said is None:
        check(bad)
    else:
        assert said in refusal(check, bad)


def test_a_snapshot_that_comes_one_batch_late():
    class Part(CountedPart):
        def __init__(self, source, number):
            super().__init__(source, number)
            self.done = number

        def next_batch(self):
            if self.done < self.number:
                self.done = self.number
                return []
            return super().next_batch()

        def snapshot(self):
            return self.done

    said = refusal(check_resume, of(open=lambda self, partition, state: Part(self, state or 0)))
    assert said == "Bad: read up to row 2, and on from the snapshot 0 (int): 0, 1 came again"


def test_rows_that_came_again_are_not_said_to_hide_others():
    behind = part_of(snapshot=lambda self: max(self.number - 1, 0))
    said = refusal(check_resume, behind, last=1000, limit=4)
    assert said == "Bad: read up to row 2, and on from the snapshot 1 (int): 1 came again"


@pytest.mark.parametrize("check", [check_source, check_resume])
def test_batches_of_another_size_are_no_other_rows(check):
    class Varying(Counted):
        sizes = iter([2])

        def open(self, partition, state):
            self.size = next(self.sizes, 3)
            return super().open(partition, state)

    check(Varying, last=1000, limit=4)


def test_rows_in_another_order():
    class Part(CountedPart):
        def next_batch(self):
            return super().next_batch()[:: -1 if self.source.resumed else 1]

    class Bad(Counted):
        def open(self, partition, state):
            self.resumed = bool(state)
            return Part(self, state or 0)

    said = refusal(check_resume, Bad, last=4)
    assert said == "Bad: read up to row 2, and on from the snapshot 2 (int): the order is another"


def test_what_cannot_go_on_is_refused_where_that_is_asked():
    said = refusal(check_resume, Generated)
    assert said == "Generated: snapshot() returned None after 5 rows; expected from where to go on after them"

    class Live(Counted):
        readings = 0

        def open(self, partition, state):
            type(self).readings += 1
            return CountedPart(self, self.readings)

    assert refusal(check_resume, Live, last=3) == "Live gave 1, 2, and then 2; expected the same rows"


def test_a_wait_that_no_cancel_ends(monkeypatch):
    monkeypatch.setattr("couatl._observed.CANCEL", 0.0)
    enough = threading.Event()

    class Bad(Counted):
        def open(self, partition, state):
            yield 1
            Bad.threads.append(threading.current_thread())
            while not enough.is_set():
                # An interrupt that is caught is as good as none.
                with contextlib.suppress(KeyboardInterrupt):
                    enough.wait()

    Bad.threads = []
    said = refusal(check_source, Bad, patience=QUICK)
    enough.set()
    for thread in Bad.threads:
        thread.join()
    assert said.startswith("Bad has not ended 0 seconds after a cancel: it waits where no interrupt comes; expected a")


@pytest.mark.parametrize("method", ["open", "close"])
def test_a_method_that_no_cancel_ends(monkeypatch, method):
    monkeypatch.setattr("couatl._observed.CANCEL", 0.0)
    monkeypatch.setattr("couatl._threads.GRACE", 0.05)
    enough = threading.Event()

    def held(self):
        while not enough.is_set():
            with contextlib.suppress(KeyboardInterrupt):
                enough.wait()

    class Van(Partition):
        def next_batch(self):
            raise StopIteration

        def close(self):
            if method == "close":
                held(self)

    class Bad(Source):
        def open(self, partition, state):
            if method == "open":
                held(self)
            return Van()

    try:
        said = refusal(check_source, Bad, columns={"n": "int64"}, patience=QUICK)
    finally:
        enough.set()
    expected = f"{method}() waits where no interrupt comes; expected one that can be interrupted"
    assert said == f"Bad has not ended 0 seconds after a cancel: {expected}"


def test_one_that_is_cancelled_before_it_begins():
    class Part(CountedPart):
        is_cancelled = False

        def cancel(self):
            self.is_cancelled = True

        def close(self):
            if self.is_cancelled:
                raise OSError("there is nothing to close yet")

    def open(self, partition, state):
        # Long enough for the cancel to come first.
        threading.Event().wait(0.05)
        return Part(self, state or 0)

    with pytest.raises(OSError, match="there is nothing to close yet"):
        check_source(of(open=open), last=2)


def test_an_interrupt_ends_a_wait(monkeypatch):
    monkeypatch.setattr("couatl._threads.GRACE", 0.05)
    never = threading.Event()

    class Waits(Counted):
        def open(self, partition, state):
            yield 1
            while not never.wait(0.01):
                pass

    check_source(Waits)


def test_a_cancel_hook_ends_a_wait():
    class Part(CountedPart):
        def __init__(self, source, number):
            super().__init__(source, number)
            self.over = threading.Event()

        def next_batch(self):
            if self.number == self.source.last:
                assert self.over.wait(30)
                raise OSError("the connection is closed")
            return super().next_batch()

        def cancel(self):
            self.over.set()

    check_source(of(open=lambda self, partition, state: Part(self, state or 0)))


def test_a_cancel_that_comes_while_it_is_opened():
    class Part(CountedPart):
        def __init__(self):
            self.over = threading.Event()

        def next_batch(self):
            raise AssertionError("it has been cancelled")

        def cancel(self):
            self.over.set()

    class Slow(Counted):
        part = None

        def open(self, partition, state):
            cancelled.wait(30)
            Slow.part = Part()
            return Slow.part

    reads, cancelled = Reads(Slow, {}, None, 1, 1), threading.Event()
    with closing(reading(Slow, {})) as source:
        part = _Part(reads, source, "", None, None)
        part.cancel()
        cancelled.set()
        part.wait()
    assert Slow.part.over.is_set()


def test_a_close_that_fails():
    def close(self):
        raise OSError("closed twice")

    with pytest.raises(OSError, match="closed twice"):
        check_source(part_of(close=close))
    with pytest.raises(OSError, match="closed twice"):
        check_source(of(close=close))


def test_threads_that_are_left_running(monkeypatch):
    monkeypatch.setattr("couatl._contract.CANCEL", 0.1)
    enough = threading.Event()

    class Bad(Counted):
        def open(self, partition, state):
            threading.Thread(target=enough.wait, name="heartbeat").start()
            return super().open(partition, state)

    said = refusal(check_source, Bad)
    enough.set()
    assert said == "Bad left the thread 'heartbeat' running; expected close() to end it"


def test_what_a_source_raises_is_raised():
    with pytest.raises(OSError, match="no route"):
        check_source(TestingSource([1, TestingSource.FAIL(OSError("no route"))]), columns=N)


# Ours

CONNECTORS = Path(__file__).parents[2] / "examples" / "connectors"


def test_growing_files_keep_to_the_contract(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("growing_files", CONNECTORS / "growing_files.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "growing_files", module)
    spec.loader.exec_module(module)
    for name, lines in [("a", "one\ntwo\nthree\n"), ("b", "eins\nzwei\n"), ("c", "un\n")]:
        (tmp_path / name).write_text(lines)
    check_source(module.GrowingFiles, folder=tmp_path, follow=False)
    check_source(module.GrowingFiles, folder=tmp_path)
    check_resume(module.GrowingFiles, folder=tmp_path, parallel=1, follow=False)


class Ramp(bytewax.FixedPartitionedSource):
    def list_parts(self):
        return ["a", "b"]

    def build_part(self, step_id, for_part, resume_state):
        return RampPart(resume_state or 0)


class RampPart(AwaitedPart, bytewax.StatefulSourcePartition):
    def next_batch(self):
        if self.number == 3:
            raise StopIteration
        self.number += 1
        return [self.number]

    def next_awake(self):
        return None

    def close(self):
        pass


class Subject(pathway.ConnectorSubject):
    def run(self):
        for n in range(3):
            self.next(n=n)


class Observer(pathway.ConnectorObserver):
    def on_change(self, key, row, time, is_addition):
        pass

    def on_end(self):
        pass


class Emitting(streamz.Source):
    async def run(self):
        for n in range(3):
            await asyncio.gather(*self._emit(n))


class Numbers(pyspark.DataSource):
    """Its rows are written to a list, and read from nothing."""

    stored: ClassVar = []

    def schema(self):
        return "n INT"

    def reader(self, schema):
        return NumbersReader()

    def writer(self, schema, overwrite):
        return NumbersWriter()


class NumbersReader(pyspark.DataSourceReader):
    def read(self, partition):
        yield from [(1,), (2,)]


class NumbersWriter(pyspark.DataSourceWriter):
    def write(self, rows):
        self.rows = [tuple(row) for row in rows]
        return pyspark.WriterCommitMessage()

    def commit(self, messages):
        Numbers.stored += self.rows


class Plugin(ekuiper.Source):
    def configure(self, datasource, conf):
        self.count = conf["count"]

    def open(self, ctx):
        for n in range(self.count):
            ctx.emit({"n": n}, {})

    def close(self, ctx):
        pass


@pytest.mark.parametrize(
    ("source", "options"), [(Ramp, {}), (Subject, {}), (Emitting, {}), (Numbers, {}), (Plugin, {"count": 3})]
)
def test_sources_of_other_models_pass(source, options):
    check_source(source, columns=N, **options)


def test_sinks_of_other_models_pass():
    check_sink(Observer, [1, 2], columns=N)
    check_sink(Numbers, [1, 2], columns=N, stored=lambda: Numbers.stored)


def test_what_is_no_connector_is_told_which_model_would_fit():
    with pytest.raises(TypeError, match="expected a source, got"):
        check_source([1])


@pytest.mark.parametrize("ends", ["on a loop that is held up", "in a close that waits"])
def test_an_end_that_is_interrupted_fails_the_check_and_not_the_run(monkeypatch, ends):
    monkeypatch.setattr("couatl._threads.GRACE", 0.05)
    enough = threading.Event()

    class Held(AsyncSource):
        async def open(self, partition, state):
            yield 1
            enough.wait()

    class Closing(Partition):
        def next_awake(self):
            return datetime.max

        def close(self):
            enough.wait(SOON)

    class Bad(Source):
        def open(self, partition, state):
            return Closing()

    try:
        said = refusal(check_source, Held if ends.startswith("on") else Bad, columns={"n": "int64"}, patience=QUICK)
    finally:
        enough.set()
    assert re.match(
        r"(Held|Bad) was still ending a while after a cancel, and was interrupted; expected a close\(\)", said
    )
