"""Bytewax's sources and its own connectors, against its own engine on the same input."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from couatl import testing
from couatl._columns import Columns
from couatl._errors import Misuse
from couatl._reading import reading
from couatl.compat import bytewax as ours

theirs = pytest.importorskip("bytewax.inputs")

from bytewax.connectors import demo, files, stdio  # noqa: E402
from bytewax.recovery import RecoveryConfig, init_db_dir  # noqa: E402
from bytewax.testing import TestingSource  # noqa: E402
from bytewax_engine import class_of, engine, part_of  # noqa: E402
from misuse import ALL, ERRORS, misused  # noqa: E402

BOTH = pytest.mark.parametrize("lib", [theirs, ours], ids=["library", "ours"])


def drained(thing, **options):
    """The rows that we read of a source, the error, and whether its state was asked for."""
    open_ = reading(thing, options)
    items, error = [], None
    try:
        for name in open_.partitions:
            pull = open_.open(name)
            try:
                for batch in pull:
                    items.extend(batch)
            finally:
                pull.close()
    except Exception as raised:
        error = raised
    finally:
        open_.close()
    return items, error


class Stepping:
    """A part that does these steps: raise, call, or return."""

    def __init__(self, steps, log):
        self.steps = iter(steps)
        self.log = log

    def next_batch(self):
        step = next(self.steps)
        if isinstance(step, BaseException):
            raise step
        return step() if callable(step) else step

    def close(self):
        if self.log is not None:
            self.log.append("close")


def stateless(lib, steps, log=None):
    """A dynamic source of one part that does these steps."""

    class Steps(Stepping, lib.StatelessSourcePartition):
        pass

    class Source(lib.DynamicSource):
        def build(self, step_id, worker_index, worker_count):
            assert (worker_index, worker_count) == (0, 1)
            return Steps(steps, log)

    return Source()


def stateful(lib, steps, log=None):
    """The same, of one part that has a state."""

    class Steps(Stepping, lib.StatefulSourcePartition):
        def snapshot(self):
            if log is not None:
                log.append("snapshot")

    class Source(lib.FixedPartitionedSource):
        def list_parts(self):
            return ["only"]

        def build_part(self, step_id, for_part, resume_state):
            assert (for_part, resume_state) == ("only", None)
            return Steps(steps, log)

    return Source()


def raising_after(item, error):
    yield item
    raise error


BATCHES = {
    "lists": [[1, 2], [], [3]],
    "text": ["abc", "", "d"],
    "tuples": [(1, 2), (("k", 1), ("k", 2))],
    "range": [range(3)],
    "generator": [lambda: (n * n for n in range(3)), [9]],
    "dict": [{"a": 1, "b": 2}],
    "none among them": [[None, 1], [None]],
    "an iterator that stops early": [lambda: map(next, [iter([]), iter([1])]), [3]],
    "nothing": [],
}


class TestBatches:
    @BOTH
    @pytest.mark.parametrize("kind", [stateless, stateful])
    @pytest.mark.parametrize("steps", BATCHES.values(), ids=BATCHES)
    def test_are_what_the_engine_reads(self, lib, kind, steps):
        expected, error = engine(kind(theirs, steps))
        assert error is None
        assert drained(kind(lib, steps)) == (expected, None)
        assert testing.rows(kind(lib, steps)) == expected

    @BOTH
    @pytest.mark.parametrize("kind", [stateless, stateful])
    @pytest.mark.parametrize(
        "step",
        [ValueError("oh"), lambda: raising_after(5, KeyError("oh")), lambda: raising_after(5, StopIteration())],
        ids=["raised", "raised in a generator", "StopIteration in a generator"],
    )
    def test_before_an_error_are_given_and_the_error_is_the_users_own(self, lib, kind, step):
        log = []
        expected, error = engine(kind(theirs, [[1], step, [2]], log))
        assert (expected, log) == ([1], ["close"])
        log.clear()
        items, raised = drained(kind(lib, [[1], step, [2]], log))
        assert (items, log) == ([1], ["close"])
        assert type(raised) is type(error)
        assert str(raised) == str(error)
        if isinstance(step, Exception):
            assert raised is step

    @BOTH
    @pytest.mark.parametrize("kind", [stateless, stateful])
    def test_before_an_abort_are_given_and_its_state_is_not_asked_for(self, lib, kind):
        log = []
        # There, an aborted run looks like one that has finished.
        assert engine(kind(theirs, [[1], theirs.AbortExecution("enough"), [2]], log)) == ([1], None)
        assert log == ["close"]
        log.clear()
        items, error = drained(kind(lib, [[1], lib.AbortExecution("enough"), [2]], log))
        assert (items, log) == ([1], ["close"])
        assert isinstance(error, ours.AbortExecution)
        assert str(error).endswith("Steps.next_batch() aborted the execution: enough")

    @BOTH
    def test_of_arrow_pass_as_they_are(self, lib):
        pa = pytest.importorskip("pyarrow")
        table = pa.table({"n": [1, 2]})
        [pulled] = list(reading(stateless(lib, [table]), {}).open(""))
        assert pulled is table


class TestTheEnd:
    @BOTH
    @pytest.mark.parametrize("kind", [stateless, stateful])
    def test_of_a_stateless_part_may_fail_and_of_a_stateful_one_is_logged(self, lib, kind, caplog):
        class Log(list):
            def append(self, what):
                if what == "close":
                    raise OSError("no close")

        expected, error = engine(kind(theirs, [[1]], Log()))
        assert (expected, str(error)) == ([1], "no close" if kind is stateless else "None")
        items, raised = drained(kind(lib, [[1]], Log()))
        assert (items, str(raised)) == (expected, str(error))
        assert ("Steps.close() failed" in caplog.text) == (kind is stateful)


class Letters:
    """Parts of letters, by a name that is the letters, one at a time; the state is how many were read."""

    @staticmethod
    def of(lib, names):
        class Part(lib.StatefulSourcePartition):
            def __init__(self, name, at):
                self.name, self.at = name, at

            def next_batch(self):
                if self.at == len(self.name):
                    raise StopIteration
                self.at += 1
                return [self.name[self.at - 1]]

            def snapshot(self):
                return self.at

        class Source(lib.FixedPartitionedSource):
            def list_parts(self):
                return names

            def build_part(self, step_id, for_part, resume_state):
                return Part(for_part, resume_state or 0)

        return Source()


class TestParts:
    @BOTH
    @pytest.mark.parametrize("names", [["abc", "de"], ("xy",), [], ["a", "a"], ["b", "a"]])
    def test_are_read_as_the_engine_reads_them(self, lib, names):
        expected, error = engine(Letters.of(theirs, names))
        assert error is None or names == []
        assert sorted(testing.rows(Letters.of(lib, names))) == sorted(expected)

    @BOTH
    def test_go_on_from_their_state(self, lib):
        open_ = reading(Letters.of(lib, ["abc", "de"]), {})
        for name in open_.partitions:
            pull = open_.open(name)
            states = [pull.snapshot()] + [pull.snapshot() for _ in pull]
            pull.close()
            for at, state in enumerate(states):
                assert [item for batch in open_.open(name, state) for item in batch] == list(name[at:])
        open_.close()

    def test_go_on_where_the_engine_does(self, tmp_path):
        items = ["a", "b", TestingSource.EOF(), "c", TestingSource.ABORT(), "d", TestingSource.EOF(), "e"]
        init_db_dir(tmp_path, 1)
        theirs_, runs = [], 0
        while not theirs_ or runs < 3:
            read, error = engine(TestingSource(items), recovery=RecoveryConfig(str(tmp_path)))
            assert error is None
            theirs_.append(read)
            runs += 1
        for item in items:
            if isinstance(item, TestingSource.ABORT):
                item._triggered = False
        state, ours_ = None, []
        for _ in range(3):
            pull = reading(TestingSource(items), {}).open("iterable", state)
            read = []
            try:
                for batch in pull:
                    read += batch
                    state = pull.snapshot()
                state = pull.snapshot()
            except ours.AbortExecution:
                pass
            pull.close()
            ours_.append(read)
        assert ours_ == [["a", "b"], ["c"], ["d"]]
        assert theirs_ == ours_


class TestNextAwake:
    @BOTH
    @pytest.mark.parametrize("zone", [timezone.utc, None], ids=["aware", "local"])
    def test_is_waited_for(self, lib, zone):
        asked = []

        class Part(lib.StatelessSourcePartition):
            def __init__(self):
                self.awake = datetime.now(zone) + timedelta(milliseconds=30)

            def next_batch(self):
                asked.append(datetime.now(zone) >= self.awake)
                if len(asked) == 3:
                    raise StopIteration
                self.awake += timedelta(milliseconds=30)
                return [len(asked)]

            def next_awake(self):
                return self.awake

        class Source(lib.DynamicSource):
            def build(self, *_):
                return Part()

        assert testing.rows(Source()) == [1, 2]
        assert asked == [True, True, True]

    @BOTH
    def test_far_away_does_not_hold_up_a_cancel(self, lib):
        closed = []

        class Part(lib.StatelessSourcePartition):
            def next_batch(self):
                return []

            def next_awake(self):
                return datetime.now(timezone.utc) + timedelta(days=1)

            def close(self):
                closed.append(True)

        class Source(lib.DynamicSource):
            def build(self, *_):
                return Part()

        pull = reading(Source(), {}).open("")
        threading.Timer(0.05, pull.cancel).start()
        start = time.monotonic()
        assert list(pull) == []
        pull.close()
        assert closed == [True]
        assert time.monotonic() - start < 1


class TestPolling:
    @BOTH
    def test_gives_items_one_by_one_and_ends(self, lib):
        def source(of):
            class Source(of.SimplePollingSource):
                def __init__(self):
                    super().__init__(interval=timedelta(milliseconds=5))
                    self.steps = iter([1, None, of.SimplePollingSource.Retry(timedelta(0)), "two", [3, 4], {"a": 5}])

                def next_item(self):
                    step = next(self.steps)
                    if isinstance(step, Exception):
                        raise step
                    return step

            return Source()

        expected, error = engine(source(theirs))
        assert (expected, error) == ([1, "two", [3, 4], {"a": 5}], None)
        assert testing.rows(source(lib)) == expected

    @BOTH
    def test_leaves_out_ticks_that_have_passed(self, lib):
        class Slow(lib.SimplePollingSource):
            def next_item(self):
                time.sleep(0.05)
                return 1

        part = ours.as_source(Slow(timedelta(milliseconds=10)), {}, None).open("singleton", None)
        first = part.next_awake()
        for _ in range(2):
            start = datetime.now(timezone.utc)
            assert part.next_batch() == [1]
            assert part.next_awake() > start + timedelta(milliseconds=50)
            assert not (part.next_awake() - first) % timedelta(milliseconds=10)

    @BOTH
    @pytest.mark.parametrize("days", [-1, 1])
    def test_is_aligned(self, lib, days):
        class Aligned(lib.SimplePollingSource):
            def next_item(self):
                raise lib.SimplePollingSource.Retry(timedelta(seconds=3))

        now, every = datetime.now(timezone.utc), timedelta(seconds=40)
        align_to = now + timedelta(days=days, seconds=13)
        part = ours.as_source(Aligned(every, align_to), {}, None).open("singleton", None)
        assert now < part.next_awake() <= now + every
        assert not (part.next_awake() - align_to) % every
        assert part.next_batch() == []
        assert part.next_awake() - datetime.now(timezone.utc) <= timedelta(seconds=3)

    @BOTH
    def test_goes_on_from_its_state(self, lib):
        class Counter(lib.SimplePollingSource):
            def __init__(self):
                super().__init__(timedelta(milliseconds=1))
                self.at = 0

            def next_item(self):
                if self.at == 3:
                    raise StopIteration
                self.at += 1
                return self.at

            def snapshot(self):
                return self.at

            def resume(self, state):
                self.at = state

        assert testing.rows(Counter) == [1, 2, 3]
        assert testing.rows(Counter, state=2) == [3]

    @BOTH
    def test_has_its_interval_as_an_option(self, lib):
        class Source(lib.SimplePollingSource):
            def next_item(self):
                raise StopIteration

        source = ours.as_source(Source, {"interval": "5s", "align_to": "2025-01-31T10:00:00"}, None).source
        assert (source._interval, source._align_to) == (timedelta(seconds=5), datetime(2025, 1, 31, 10))

    @pytest.mark.parametrize("how", ["position", "name"])
    def test_calls_a_getter(self, how):
        batches = iter([["a", "b"], [], None, ["c"]])

        def getter():
            return next(batches)

        every = timedelta(milliseconds=1)
        source = ours.SimplePollingSource
        source = source(getter, every) if how == "position" else source(getter=getter, interval=every)
        assert testing.rows(source) == ["a", "b", "c"]

    def test_needs_something_to_ask(self):
        with pytest.raises(TypeError, match=r"SimplePollingSource has no next_item\(\), and no getter was given"):
            ours.SimplePollingSource(timedelta(seconds=1))
        with pytest.raises(ValueError, match="expected an interval above zero, got"):
            ours.SimplePollingSource(list, timedelta(0))


class TestConnectors:
    """The library's own, by class and options, as a statement names them."""

    def test_file(self, tmp_path):
        path = tmp_path / "lines.txt"
        path.write_text("one\ntwo\n\nthree")
        expected, _ = engine(files.FileSource(path))
        assert testing.rows(files.FileSource, path=str(path), batch_size="2") == expected == ["one", "two", "", "three"]
        # The state is where the next line begins.
        open_ = reading(files.FileSource, {"path": str(path), "batch_size": 1})
        pull = open_.open(open_.partitions[0])
        assert (next(pull), pull.snapshot()) == (["one"], 4)
        pull.close()
        assert testing.rows(files.FileSource, path=str(path), state=4) == ["two", "", "three"]
        assert testing.rows(files.FileSource, path=str(tmp_path / "none")) == []

    def test_dir(self, tmp_path):
        for name in "abc":
            (tmp_path / f"{name}.txt").write_text(f"{name}1\n{name}2\n")
        (tmp_path / "other").write_text("no\n")
        expected, _ = engine(files.DirSource(tmp_path, "*.txt"))
        assert sorted(testing.rows(files.DirSource, dir_path=str(tmp_path), glob_pat="*.txt")) == sorted(expected)
        with pytest.raises(ValueError, match="does not exist"):
            testing.rows(files.DirSource, dir_path=str(tmp_path / "none"))

    def test_csv(self, tmp_path):
        path = tmp_path / "some.csv"
        path.write_text("id;name\n1;a\n2;b\n")
        expected, _ = engine(files.CSVSource(path, delimiter=";"))
        assert testing.rows(files.CSVSource, path=str(path), delimiter=";") == expected
        assert expected == [{"id": "1", "name": "a"}, {"id": "2", "name": "b"}]

    def test_random_metric(self):
        options = {"metric_name": "load", "interval": "2ms", "count": "3"}
        assert [name for name, _ in testing.rows(demo.RandomMetricSource, **options)] == ["load"] * 3
        numbers = iter(range(3))
        source = demo.RandomMetricSource("n", timedelta(milliseconds=1), 3, lambda: next(numbers))
        assert testing.rows(source) == [("n", 0), ("n", 1), ("n", 2)]

    def test_instances_take_no_options(self, tmp_path):
        with pytest.raises(TypeError, match="batch_size"):
            testing.rows(files.FileSource(tmp_path / "some"), batch_size=1)

    def test_file_sink(self, tmp_path):
        theirs_, ours_ = tmp_path / "theirs", tmp_path / "ours"
        pairs = [("a", "one"), ("b", "two")]
        engine(TestingSource(pairs), files.FileSink(theirs_))
        testing.write(files.FileSink, pairs, columns=Columns(["k", "line"], ["string", "string"]), path=str(ours_))
        assert ours_.read_text() == theirs_.read_text() == "one\ntwo\n"

    def test_dir_sink(self, tmp_path):
        pairs = [(key, f"{key} {n}") for n in range(3) for key in ("x", "y", "z", "longer")]
        for name in ("theirs", "ours"):
            (tmp_path / name).mkdir()
        engine(TestingSource(pairs), files.DirSink(tmp_path / "theirs", 3))
        columns = Columns(["k", "line"], ["string", "string"])
        testing.write(files.DirSink, pairs, columns=columns, dir_path=str(tmp_path / "ours"), file_count="3")

        def contents(name):
            return {path.name: path.read_text() for path in (tmp_path / name).iterdir()}

        assert contents("ours") == contents("theirs")
        assert len(contents("ours")) > 1

    def test_standard_output(self, capsys):
        engine(TestingSource([1, (2, "b")]), stdio.StdOutSink())
        expected = capsys.readouterr().out
        testing.write(stdio.StdOutSink(), [1], columns=Columns(["n"], ["int64"]))
        testing.write(stdio.StdOutSink(), [(2, "b")], columns=Columns(["n", "s"], ["int64", "string"]))
        assert capsys.readouterr().out == expected


MISUSES = {
    "list_parts None": (
        lambda: class_of(ours.FixedPartitionedSource, list_parts=None, build_part=None),
        "Bad.list_parts() returned None; expected a list of strings",
    ),
    "list_parts text": (
        lambda: class_of(ours.FixedPartitionedSource, list_parts="ab", build_part=None),
        "Bad.list_parts() returned 'ab' (str); expected a list of strings",
    ),
    "list_parts numbers": (
        lambda: class_of(theirs.FixedPartitionedSource, list_parts=[1], build_part=None),
        "Bad.list_parts() returned [1] (list); expected a list of strings",
    ),
    "build_part": (
        lambda: class_of(ours.FixedPartitionedSource, list_parts=["a"], build_part=[1]),
        "Bad.build_part() returned [1] (list); expected a StatefulSourcePartition",
    ),
    "build": (
        lambda: class_of(theirs.DynamicSource, build=3),
        "Bad.build() returned 3 (int); expected a StatelessSourcePartition",
    ),
    "next_batch None": (
        lambda: class_of(ours.DynamicSource, build=part_of(ours.StatelessSourcePartition, next_batch=None)),
        "Bad.next_batch() returned None; expected an iterable of items, an empty one where there are none now",
    ),
    "next_batch number": (
        lambda: class_of(theirs.DynamicSource, build=part_of(theirs.StatelessSourcePartition, next_batch=3)),
        "Bad.next_batch() returned 3 (int); expected an iterable of items",
    ),
    "next_awake": (
        lambda: class_of(ours.DynamicSource, build=part_of(ours.StatelessSourcePartition, next_awake=3)),
        "Bad.next_awake() returned 3 (int); expected a datetime, or None for at once",
    ),
    "no build": (lambda: type("Bad", (ours.Source,), {}), "Bad is no source; expected a FixedPartitionedSource or"),
    "abstract": (
        lambda: type("Bad", (ours.DynamicSource,), {}),
        "Bad is abstract; expected a class that defines build()",
    ),
    "constructor": (
        lambda: type(
            "Bad", (theirs.SimplePollingSource,), {"__init__": lambda self: None, "next_item": lambda self: 1}
        ),
        "Bad.__init__() has not called super().__init__(interval)",
    ),
    "getter": (
        lambda: ours.SimplePollingSource(lambda: 3, timedelta(1)),
        "SimplePollingSource.getter() returned 3 (int); expected an iterable of items",
    ),
}


@pytest.mark.parametrize(("bad", "sentence"), MISUSES.values(), ids=MISUSES)
def test_misuse_is_a_sentence(bad, sentence):
    with pytest.raises(TypeError) as raised:
        testing.rows(bad())
    assert sentence in str(raised.value)


@BOTH
@misused(**dict.fromkeys(["list_parts", "build_part"], ("signature", "no method", "StopIteration")))
def test_misuse_of_a_source(lib, method, wrong, said):
    good = {"list_parts": lambda self: ["a"], "build_part": lambda self, *_: None}
    with pytest.raises(ERRORS, match=said):
        testing.rows(type("Bad", (lib.FixedPartitionedSource,), {**good, method: wrong}))


@BOTH
@misused(build=("signature", "no method", "StopIteration"))
def test_misuse_of_a_dynamic_source(lib, method, wrong, said):
    with pytest.raises(ERRORS, match=said):
        testing.rows(type("Bad", (lib.DynamicSource,), {method: wrong}))


@BOTH
@misused(
    next_batch=("signature", "no method", "async def"),
    next_awake=("signature", "no method", "StopIteration"),
    close=ALL,
)
def test_misuse_of_a_partition(lib, method, wrong, said):
    batches = iter([[1]])
    good = {"next_batch": lambda self: next(batches)}
    part = type("Bad", (lib.StatelessSourcePartition,), {**good, method: wrong})()
    with pytest.raises(ERRORS, match=said):
        testing.rows(class_of(lib.DynamicSource, build=part))


@BOTH
@misused(snapshot=ALL)
def test_misuse_of_a_partition_with_a_state(lib, method, wrong, said):
    good = {"next_batch": lambda self: [1]}
    part = type("Bad", (lib.StatefulSourcePartition,), {**good, method: wrong})()
    with pytest.raises(ERRORS, match=said):
        testing.rows_and_state(class_of(lib.FixedPartitionedSource, list_parts=["a"], build_part=part), limit=1)


@BOTH
@misused(next_item=("signature", "no method", "async def"), snapshot=ALL, resume=ALL)
def test_misuse_of_a_polling_source(lib, method, wrong, said):
    good = {"__init__": lambda self: lib.SimplePollingSource.__init__(self, timedelta(1)), "next_item": lambda self: 1}
    with pytest.raises(ERRORS, match=said):
        testing.rows_and_state(type("Bad", (lib.SimplePollingSource,), {**good, method: wrong}), state=1, limit=1)


@BOTH
def test_ticks_are_aligned_to_a_time(lib):
    bad = type("Bad", (lib.SimplePollingSource,), {"next_item": lambda self: 1})(timedelta(1), "noon")
    bad._align_to = "noon"
    with pytest.raises(Misuse, match=r"^Bad: expected a datetime as align_to, got 'noon' \(str\)"):
        testing.rows(bad, limit=1)


def test_an_item_is_no_generator():
    class Bad(ours.SimplePollingSource):
        def next_item(self):
            yield 1

    with pytest.raises(TypeError, match=r"Bad\.next_item\(\) returned <generator .*expected a method without yield"):
        testing.rows(Bad, limit=1)


def test_only_next_batch_ends_a_partition():
    class Part(ours.StatelessSourcePartition):
        def next_batch(self):
            return [1]

        def next_awake(self):
            raise StopIteration

    with pytest.raises(RuntimeError, match=r"Part.next_awake\(\) raised StopIteration, which is an end only"):
        testing.rows(class_of(ours.DynamicSource, build=Part()))


class TestPublishedExamples:
    def test_queue(self):
        """With a local time, and a producer of its own."""

        class QueuePartition(ours.StatelessSourcePartition):
            def __init__(self, queue):
                self.queue = queue
                self.items = []

            def next_batch(self):
                self.items = []
                try:
                    for _ in range(10):
                        self.items.append(self.queue.get_nowait())
                except queue.Empty:
                    pass
                if "end" in self.items:
                    raise StopIteration
                return self.items

            def next_awake(self):
                return None if self.items else datetime.now() + timedelta(milliseconds=10)

        class QueueSource(ours.DynamicSource):
            def __init__(self, queue_size=1000):
                self.queue = queue.Queue(maxsize=queue_size)
                self.producer_thread = None

            def build(self, step_id, worker_index, worker_count):
                if not self.producer_thread:
                    self.producer_thread = threading.Thread(target=self._producer)
                    self.producer_thread.start()
                return QueuePartition(self.queue)

            def _producer(self):
                for item in ["a", "b"]:
                    self.queue.put(item)
                time.sleep(0.03)
                self.queue.put("end")

        assert testing.rows(QueueSource) == ["a", "b"]

    def test_file(self, tmp_path):
        class FilePartition(ours.StatefulSourcePartition):
            def __init__(self, file_path, resume_state):
                self.file_path = file_path
                self.position = resume_state or 0
                self.file_handle = None

            def next_batch(self):
                if not self.file_handle:
                    self.file_handle = self.file_path.open()
                    self.file_handle.seek(self.position)
                line = self.file_handle.readline()
                if not line:
                    raise StopIteration
                self.position = self.file_handle.tell()
                return [line.strip()]

            def snapshot(self):
                return self.position

            def close(self):
                if self.file_handle:
                    self.file_handle.close()

        class FileSource(ours.FixedPartitionedSource):
            def __init__(self, file_paths: list[Path]):
                self.file_paths = file_paths

            def list_parts(self):
                return [str(i) for i in range(len(self.file_paths))]

            def build_part(self, step_id, for_part, resume_state):
                return FilePartition(self.file_paths[int(for_part)], resume_state)

        for name in "ab":
            (tmp_path / name).write_text(f"{name}1\n{name}2\n")
        paths = f"{tmp_path / 'a'}, {tmp_path / 'b'}"
        assert testing.rows(FileSource, file_paths=paths) == ["a1", "a2", "b1", "b2"]


def test_classes_with_its_methods_alone_are_its():
    class Part:
        def __init__(self):
            self.batches = iter(["ab", "c"])

        def next_batch(self):
            return next(self.batches)

        def snapshot(self):
            return None

        def write_batch(self, values):
            written.extend(values)

    class Duck:
        def list_parts(self):
            return ["only"]

        def build_part(self, step_id, for_part, resume_state):
            return Part()

        def part_fn(self, key):
            return 0

    written = []
    assert testing.rows(Duck) == ["a", "b", "c"]
    testing.write(Duck, [("k", 1)], columns={"k": "string", "v": "int64"})
    assert written == [1]


def test_the_library_is_not_imported():
    program = "import sys, couatl.compat.bytewax; sys.exit('bytewax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
