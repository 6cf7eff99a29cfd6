"""What stands in the place of a method and is none: a sentence names class and method, what it is and what it must be.

The base classes are ours and those of the libraries; where a method is optional and never called, nothing is said.
"""

import asyncio
from datetime import timedelta

import pytest
from couatl._errors import Misuse
from couatl._models import recognise
from couatl._registry import check_class
from couatl.compat import ekuiper as our_ekuiper
from couatl.compat import pathway as our_pathway
from couatl.compat import pyspark as our_pyspark
from couatl.compat import streamz as our_streamz
from couatl.sinks import AsyncSink, Sink
from couatl.sources import AsyncPartition, AsyncSource, Partition, PollingSource, PushSource, Source
from couatl.testing import rows, write
from pyspark_shapes import datasource

bytewax_inputs = pytest.importorskip("bytewax.inputs")
bytewax_outputs = pytest.importorskip("bytewax.outputs")
ekuiper = pytest.importorskip("ekuiper")
pathway = pytest.importorskip("pathway")
streamz = pytest.importorskip("streamz")

COLUMNS = {"n": "int64"}
WRONG = pytest.mark.parametrize(("wrong", "shown"), [(None, "None"), (5, r"5 \(int\)")], ids=["None", "5"])


class Part(Partition):
    def next_batch(self):
        return [1]


class AwaitedPart(AsyncPartition):
    async def next_batch(self):
        return [1]


class Read(Source):
    part = Part

    def open(self, partition, state):
        return self.part()


class Awaited(AsyncSource):
    part = AwaitedPart

    async def open(self, partition, state):
        return self.part()


class Polled(PollingSource):
    def __init__(self):
        super().__init__(timedelta(milliseconds=1))

    def next_item(self):
        return [1]


class Pushed(PushSource):
    def run(self):
        self.next(1)


class Written(Sink):
    def write(self, n):
        pass


class AwaitedWritten(AsyncSink):
    async def write(self, n):
        await asyncio.sleep(0)


OURS = {
    Read: ["partitions", "open", "close"],
    Awaited: ["partitions", "open", "close"],
    Polled: ["next_item", "open", "partitions", "close"],
    Pushed: ["run", "on_stop", "open", "partitions", "close"],
    Written: ["open", "write", "flush", "commit", "close"],
    AwaitedWritten: ["open", "write", "flush", "commit", "close"],
}
PARTS = {
    Read: ["next_batch", "next_awake", "close"],
    Awaited: ["next_batch", "next_awake", "close"],
}


def used(cls, role):
    """Read, or write to, a class."""
    if role == "sink":
        write(cls, [1], columns=COLUMNS)
    else:
        rows(cls, columns=COLUMNS, limit=2)


def role_of(cls):
    return "sink" if issubclass(cls, (Sink, AsyncSink)) else "source"


@WRONG
@pytest.mark.parametrize(("base", "method"), [(base, method) for base in OURS for method in OURS[base]])
def test_a_class_of_ours_without_a_method(base, method, wrong, shown):
    bad = type("Bad", (base,), {method: wrong})
    said = rf"^Bad\.{method} is {shown}; expected a method {method}\(self"
    with pytest.raises(Misuse, match=said):
        used(bad, role_of(base))
    with pytest.raises(Misuse, match=said):
        check_class(bad, role_of(base), recognise(bad, role_of(base)))


@WRONG
@pytest.mark.parametrize(("base", "method"), [(base, method) for base in PARTS for method in PARTS[base]])
def test_a_partition_of_ours_without_a_method(base, method, wrong, shown):
    bad = type("Bad", (base.part,), {method: wrong})
    with pytest.raises(Misuse, match=rf"^Bad\.{method} is {shown}; expected a method {method}\(self\)$"):
        rows(type("Good", (base,), {"part": bad}), columns=COLUMNS, limit=1)


@WRONG
def test_an_object_without_a_method(wrong, shown):
    sink = Written()
    sink.write = wrong
    with pytest.raises(Misuse, match=rf"^Written\.write is {shown}; expected a method write\(self, n\)$"):
        write(sink, [1], columns=COLUMNS)


@pytest.mark.parametrize("base", OURS)
def test_classes_of_ours_that_are_right(base):
    check_class(base, role_of(base), recognise(base, role_of(base)))
    used(base, role_of(base))


class BytewaxRead(bytewax_inputs.FixedPartitionedSource):
    def list_parts(self):
        return ["a"]

    def build_part(self, step_id, part, state):
        raise AssertionError


class BytewaxBuilt(bytewax_inputs.DynamicSource):
    def build(self, step_id, worker, workers):
        raise AssertionError


class BytewaxWritten(bytewax_outputs.DynamicSink):
    def build(self, step_id, worker, workers):
        raise AssertionError


def of_pathway(module):
    class Subject(module.ConnectorSubject):
        def run(self):
            self.next(n=1)

    return Subject


def of_ekuiper(source, sink):
    class Emitted(source):
        def open(self, ctx):
            ctx.emit({"n": 1}, {})

    class Collected(sink):
        def open(self, ctx):
            pass

        def configure(self, conf):
            pass

        def collect(self, ctx, data):
            pass

    return Emitted, Collected


def of_streamz(module):
    class Stored(module.Sink):
        def update(self, x, who=None, metadata=None):
            pass

    return Stored


def of_pyspark(module):
    class Data(module.DataSource):
        def schema(self):
            return "n LONG"

        def reader(self, schema):
            raise AssertionError

        def writer(self, schema, overwrite):
            raise AssertionError

    return Data


def model_cases():
    """Classes of the five models, each with its role and a method that it is called by."""
    for cls, methods in {BytewaxRead: ["list_parts", "build_part"], BytewaxBuilt: ["build"]}.items():
        yield from ((cls, "source", method) for method in methods)
    yield BytewaxWritten, "sink", "build"
    for module in (pathway.io.python, our_pathway):
        yield from ((of_pathway(module), "source", method) for method in ("run", "on_stop"))
    theirs = (ekuiper.source.Source, ekuiper.sink.Sink)
    for classes in (theirs, (our_ekuiper.Source, our_ekuiper.Sink)):
        source, sink = of_ekuiper(*classes)
        yield from ((source, "source", method) for method in ("configure", "open", "close"))
        yield from ((sink, "sink", method) for method in ("configure", "open", "collect", "close"))
    for module in (streamz, our_streamz):
        yield from ((of_streamz(module), "sink", method) for method in ("update", "destroy"))
    for module in (datasource, our_pyspark):
        yield from ((of_pyspark(module), "source", method) for method in ("schema", "reader"))
        yield of_pyspark(module), "sink", "writer"


@WRONG
@pytest.mark.parametrize(("base", "role", "method"), list(model_cases()))
def test_a_class_of_another_model_without_a_method(base, role, method, wrong, shown):
    bad = type("Bad", (base,), {method: wrong})
    with pytest.raises(Misuse, match=rf"^Bad\.{method} is {shown}; expected a method {method}\(self"):
        used(bad, role)


@WRONG
@pytest.mark.parametrize("base", [ekuiper.function.Function, our_ekuiper.Function])
@pytest.mark.parametrize("method", ["exec", "validate", "is_aggregate"])
def test_a_function_without_a_method(base, method, wrong, shown):
    good = type("Good", (base,), {"exec": lambda self, args, ctx: 1, "validate": lambda self, args: ""})
    good.is_aggregate = lambda self: False
    assert our_ekuiper.as_function(good)(1) == 1
    with pytest.raises(Misuse, match=rf"^Bad\.{method} is {shown}; expected a method {method}\(self"):
        our_ekuiper.as_function(type("Bad", (good,), {method: wrong}))(1)


@WRONG
@pytest.mark.parametrize("module", [datasource, our_pyspark])
@pytest.mark.parametrize("method", ["initialOffset", "latestOffset", "partitions", "read", "commit", "stop"])
def test_a_stream_reader_without_a_method(module, method, wrong, shown):
    class Reader(module.DataSourceStreamReader):
        def initialOffset(self):
            return {"offset": 0}

        def latestOffset(self, start, limit):
            return {"offset": start["offset"] + 1}

        def partitions(self, start, end):
            return [module.InputPartition(1)]

        def read(self, partition):
            yield (1,)

    class Data(module.DataSource):
        reader_class = Reader

        def schema(self):
            return "n LONG"

        def streamReader(self, schema):
            return self.reader_class()

    assert rows(Data, columns=COLUMNS, limit=1) == [(1,)]
    bad = type("Bad", (Reader,), {method: wrong})
    with pytest.raises(Misuse, match=r"^(Bad\.|Good\.streamReader\(\) returned .*Bad.*; expected a)"):
        rows(type("Good", (Data,), {"reader_class": bad}), columns=COLUMNS, limit=1)
