"""Bytewax's sinks, against its own engine on the same input."""

from __future__ import annotations

import pytest
from couatl import testing
from couatl._columns import Columns
from couatl.compat import bytewax as ours

theirs = pytest.importorskip("bytewax.outputs")

from bytewax import inputs as theirs_inputs  # noqa: E402
from bytewax.inputs import AbortExecution  # noqa: E402
from bytewax.testing import TestingSource  # noqa: E402
from bytewax_engine import class_of, engine  # noqa: E402
from misuse import ALL, ERRORS, misused  # noqa: E402

BOTH = pytest.mark.parametrize("lib", [theirs, ours], ids=["library", "ours"])


def fixed_sink(lib, log, names=("y", "x", "z"), part_fn=None, fails=None):
    class Part(lib.StatefulSinkPartition):
        def __init__(self, name):
            self.name = name

        def write_batch(self, values):
            if fails is not None:
                raise fails
            log.append((self.name, list(values)))

        def snapshot(self):
            log.append((self.name, "snapshot"))

        def close(self):
            log.append((self.name, "close"))

    class Sink(lib.FixedPartitionedSink):
        def list_parts(self):
            return list(names)

        def part_fn(self, item_key):
            return part_fn(item_key) if part_fn else super().part_fn(item_key)

        def build_part(self, step_id, for_part, resume_state):
            log.append((for_part, resume_state))
            return Part(for_part)

    return Sink()


PAIRS = Columns(["k", "v"], ["string", "int64"])


class TestFixedPartitionedSink:
    @BOTH
    @pytest.mark.parametrize("part_fn", [None, ord, lambda key: 7], ids=["the default", "ord", "constant"])
    def test_writes_to_the_parts_that_the_engine_chooses(self, lib, part_fn):
        pairs = [(key, n) for n, key in enumerate("abcadda")]
        theirs_, ours_ = [], []
        engine(TestingSource(pairs, batch_size=10), fixed_sink(theirs, theirs_, part_fn=part_fn))
        testing.write(fixed_sink(lib, ours_, part_fn=part_fn), pairs, columns=PAIRS)

        def by_part(log):
            return {name: [what for of, what in log if of == name] for name, _ in log}

        assert by_part(ours_) == by_part(theirs_)
        assert len(by_part(ours_)) == (1 if part_fn and part_fn("a") == 7 else 3)

    @BOTH
    def test_gives_a_tuple_where_there_is_more_than_a_value(self, lib):
        log = []
        columns = Columns(["k", "a", "b"], ["string", "int64", "int64"])
        testing.write(fixed_sink(lib, log, names=["p"]), [("k", 1, 2)], columns=columns)
        assert log == [("p", None), ("p", [(1, 2)]), ("p", "snapshot"), ("p", "close")]

    @BOTH
    @pytest.mark.parametrize("error", [ValueError("full"), AbortExecution("full")])
    def test_closes_its_parts_after_an_error(self, lib, error):
        theirs_, log = [], []
        engine(TestingSource([("k", 1)]), fixed_sink(theirs, theirs_, names=["p"], fails=error))
        with pytest.raises(Exception, match="full") as raised:
            testing.write(fixed_sink(lib, log, names=["p"], fails=error), [("k", 1)], columns=PAIRS)
        assert log == theirs_ == [("p", None), ("p", "close")]
        if isinstance(error, AbortExecution):
            assert "Part.write_batch() aborted the execution: full" in str(raised.value)
        else:
            assert raised.value is error

    @pytest.mark.parametrize(
        ("given", "rows", "columns", "sentence"),
        [
            ({}, [(1, 1)], PAIRS, "Sink: expected a string as the key of each row, got 1 (int)"),
            ({}, [(None, 1)], PAIRS, "Sink: expected a string as the key of each row, got None"),
            ({}, [1], Columns(["n"], ["int64"]), "Sink: expected a column for the key, and one or more for the value"),
            ({"names": []}, [("a", 1)], PAIRS, "Sink.list_parts() returned [] (list); expected at least one name"),
            ({"names": [1]}, [("a", 1)], PAIRS, "Sink.list_parts() returned [1] (list); expected a list of strings"),
            (
                {"part_fn": lambda key: -1},
                [("a", 1)],
                PAIRS,
                "Sink.part_fn() returned -1 (int); expected an int, zero or more",
            ),
            (
                {"part_fn": lambda key: 0.5},
                [("a", 1)],
                PAIRS,
                "Sink.part_fn() returned 0.5 (float); expected an int, zero or more",
            ),
        ],
    )
    def test_refuses(self, given, rows, columns, sentence):
        with pytest.raises(TypeError) as raised:
            testing.write(fixed_sink(ours, [], **given), rows, columns=columns)
        assert sentence in str(raised.value)


class TestDynamicSink:
    @BOTH
    def test_writes_rows(self, lib):
        def sink(of, log):
            class Part(of.StatelessSinkPartition):
                def write_batch(self, items):
                    log.extend(items)

                def close(self):
                    log.append("close")

            class Sink(of.DynamicSink):
                def build(self, step_id, worker_index, worker_count):
                    assert (worker_index, worker_count) == (0, 1)
                    return Part()

            return Sink()

        for rows, columns in [([1, 2, 3], Columns(["n"], ["int64"])), ([("a", 1), ("b", 2)], PAIRS)]:
            theirs_, ours_ = [], []
            engine(TestingSource(rows), sink(theirs, theirs_))
            testing.write(sink(lib, ours_), rows, columns=columns)
            assert ours_ == theirs_ == [*rows, "close"]


@BOTH
@misused(**dict.fromkeys(["list_parts", "build_part", "part_fn"], ("signature", "no method", "StopIteration")))
def test_misuse_of_a_sink(lib, method, wrong, said):
    good = {"list_parts": lambda self: ["a"], "build_part": lambda self, *_: None}
    with pytest.raises(ERRORS, match=said):
        testing.write(type("Bad", (lib.FixedPartitionedSink,), {**good, method: wrong}), [("a", 1)], columns=PAIRS)


@BOTH
@misused(build=("signature", "no method", "StopIteration"))
def test_misuse_of_a_dynamic_sink(lib, method, wrong, said):
    with pytest.raises(ERRORS, match=said):
        testing.write(type("Bad", (lib.DynamicSink,), {method: wrong}), [("a", 1)], columns=PAIRS)


@BOTH
@misused(write_batch=ALL, snapshot=ALL, close=ALL)
def test_misuse_of_a_part_of_a_sink(lib, method, wrong, said):
    good = {"write_batch": lambda self, values: None, "snapshot": lambda self: None}
    part = type("Bad", (lib.StatefulSinkPartition,), {**good, method: wrong})()
    bad = class_of(lib.FixedPartitionedSink, list_parts=["a"], build_part=part)
    with pytest.raises(ERRORS, match=said):
        testing.write(bad, [("a", 1)], columns=PAIRS)


@BOTH
@misused(write_batch=ALL, close=ALL)
def test_misuse_of_what_a_dynamic_sink_builds(lib, method, wrong, said):
    part = type("Bad", (lib.StatelessSinkPartition,), {"write_batch": lambda self, items: None, method: wrong})()
    with pytest.raises(ERRORS, match=said):
        testing.write(class_of(lib.DynamicSink, build=part), [("a", 1)], columns=PAIRS)


def test_sink_misuse_is_a_sentence():
    bad = class_of(ours.DynamicSink, build=3)
    with pytest.raises(TypeError, match=r"Bad.build\(\) returned 3 \(int\); expected a StatelessSinkPartition"):
        testing.write(bad, [1], columns=Columns(["n"], ["int64"]))
    bad = class_of(ours.FixedPartitionedSink, list_parts=["a"], build_part=3)
    with pytest.raises(TypeError, match=r"Bad.build_part\(\) returned 3 \(int\); expected a StatefulSinkPartition"):
        testing.write(bad, [("a", 1)], columns=PAIRS)


def source_and_sink(source, sink, log):
    """A class that is read and written, with partitions of two kinds."""

    class Part(ours.StatefulSourcePartition, ours.StatefulSinkPartition):
        def next_batch(self):
            raise StopIteration

        def write_batch(self, items):
            log.append(list(items))

        def snapshot(self):
            return None

        def close(self):
            pass

    class Both(source, sink):
        def list_parts(self):
            return ["p"]

        def build_part(self, step_id, for_part, resume_state):
            log.append("build_part")
            return Part()

        def build(self, step_id, worker_index, worker_count):
            log.append("build")
            return Part()

    return Both


@BOTH
def test_a_class_that_is_a_source_of_one_kind_and_a_sink_of_another(lib):
    inputs = theirs_inputs if lib is theirs else ours
    log = []
    both = source_and_sink(inputs.FixedPartitionedSource, lib.DynamicSink, log)
    assert testing.rows(both) == []
    testing.write(both, [("k", 1)], columns=PAIRS)
    assert log == ["build_part", "build", [("k", 1)]]
    log.clear()
    both = source_and_sink(inputs.DynamicSource, lib.FixedPartitionedSink, log)
    assert testing.rows(both) == []
    testing.write(both, [("k", 1)], columns=PAIRS)
    assert log == ["build", "build_part", [1]]
