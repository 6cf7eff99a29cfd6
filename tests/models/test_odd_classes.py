"""Classes that are right and unusual: methods of every kind, metaclasses, dataclasses; and those that make others."""

import dataclasses
from collections import deque
from functools import partial, partialmethod, singledispatchmethod, wraps

import pytest
from couatl._errors import Misuse
from couatl._models import recognise
from couatl._options import Option, check, make, options_of
from couatl._reading import reading
from couatl._registry import check_class
from couatl.compat import bytewax as our_bytewax
from couatl.compat import ekuiper
from couatl.compat import pathway as our_pathway
from couatl.sinks import AsyncSink, Sink
from couatl.sources import AsyncSource, Partition, PushSource, Source
from couatl.testing import check_source, rows, write

inputs = pytest.importorskip("bytewax.inputs")
outputs = pytest.importorskip("bytewax.outputs")

COLUMNS = {"n": "int64"}
BOTH = {"a": "int64", "b": "int64"}
#: What sinks have been given.
stored = []


def prefixed(function):
    """Gives a function one argument more than its caller does."""

    @wraps(function)
    def called(self, *arguments, **named):
        return function(self, "sun", *arguments, **named)

    return called


def test_a_method_may_be_wrapped_so_that_it_takes_more():
    class Wrapped(Source):
        @prefixed
        def open(self, word, partition, state):
            return [word]

    class Stored(Sink):
        @prefixed
        def write(self, word, n):
            stored.append((word, n))

    stored = []
    check_class(Wrapped, "source", recognise(Wrapped, "source"))
    assert rows(Wrapped) == ["sun"]
    write(Stored, [1, 2], columns=COLUMNS)
    assert stored == [("sun", [1, 2])]


def test_a_wrapped_write_takes_columns_by_their_names():
    def retried(function):
        @wraps(function)
        def called(*arguments, **named):
            return function(*arguments, **named)

        return called

    class Stored(Sink):
        @retried
        def write(self, b, a):
            stored.append((a, b))

    stored = []
    write(Stored, [(1, 2)], columns={"a": "int64", "b": "int64"})
    assert stored == [([1], [2])]


class Descriptor:
    def __get__(self, instance, owner=None):
        assert instance is not None, "nothing of the author's runs where a class is checked"
        return lambda partition, state: [3]


class Called:
    def __call__(self, partition, state):
        return [4]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (staticmethod(lambda partition, state: [0]), [0]),
        (classmethod(lambda cls, partition, state: [1]), [1]),
        (property(lambda self: lambda partition, state: [2]), [2]),
        (Descriptor(), [3]),
        (Called(), [4]),
        (partialmethod(lambda self, n, partition, state: [n], 5), [5]),
    ],
    ids=["staticmethod", "classmethod", "property", "descriptor", "callable", "partialmethod"],
)
def test_methods_of_every_kind(method, expected):
    cls = type("Kinds", (Source,), {"open": method})
    check_class(cls, "source", recognise(cls, "source"))
    assert rows(cls) == expected


def test_methods_of_every_kind_in_another_model():
    class Emitted(ekuiper.Source):
        def emitted(self, n, ctx):
            ctx.emit({"n": n}, {})

        open = partialmethod(emitted, 7)
        close = property(lambda self: lambda ctx: closed.append(ctx.get_op_id()))

    closed = []
    check_class(Emitted, "source", recognise(Emitted, "source"))
    assert rows(Emitted, columns=COLUMNS) == [(7,)]
    assert closed == ["Emitted"]


def test_a_class_may_stand_for_a_method():
    class Nested(Source):
        class open(Partition):
            def __init__(self, partition, state):
                self.rows = [[6]]

            def next_batch(self):
                if not self.rows:
                    raise StopIteration
                return self.rows.pop()

    check_class(Nested, "source", recognise(Nested, "source"))
    opened = reading(Nested, {})
    assert list(opened.open("")) == [[6]]
    opened.close()


# Sinks


@pytest.mark.parametrize(
    "method",
    [
        staticmethod(lambda a, b: stored.append((a, b))),
        classmethod(lambda cls, b, a: stored.append((a, b))),
        property(lambda self: lambda a, b: stored.append((a, b))),
        partial(lambda kept, *columns: kept.append(columns), stored),
        partialmethod(lambda self, kept, b, a: kept.append((a, b)), stored),
        singledispatchmethod(lambda self, *columns: stored.append(columns)),
        lambda self, **columns: stored.append((columns["a"], columns["b"])),
        lambda self, *, b, a: stored.append((a, b)),
        lambda self, x, y, /: stored.append((x, y)),
    ],
    ids=["static", "class", "property", "partial", "partialmethod", "dispatched", "named", "keywords", "positions"],
)
def test_a_write_of_every_kind(method):
    cls = type("Stored", (Sink,), {"write": method})
    stored.clear()
    check_class(cls, "sink", recognise(cls, "sink"))
    write(cls, [(1, 2)], columns=BOTH)
    assert stored == [([1], [2])]


@pytest.mark.parametrize("base", [Sink, AsyncSink])
def test_columns_may_have_the_names_of_our_own_parameters(base):
    class Plain(Sink):
        def write(self, method, found, of):
            stored.append((method, found, of))

    class Awaited(AsyncSink):
        async def write(self, method, found, of):
            stored.append((method, found, of))

    stored = []
    columns = {"of": "int64", "method": "int64", "found": "int64"}
    write(Plain if base is Sink else Awaited, [(1, 2, 3)], columns=columns)
    assert stored == [([2], [3], [1])]


@pytest.mark.parametrize("base", [PushSource, our_pathway.ConnectorSubject])
def test_a_pushed_column_may_be_called_self(base):
    cls = type("Pushed", (base,), {"run": lambda subject: subject.next(**{"self": 1, "row": 2})})
    assert rows(cls, columns={"self": "int64", "row": "int64"}) in ([(1, 2)], [{"self": 1, "row": 2}])


def test_a_class_may_be_both():
    class Both(Source, Sink):
        def open(self, *_):
            return [1]

        def write(self, n):
            pass

    class Read(Both):
        write = None

        def open(self, partition, state):
            return [1]

    for role in ("source", "sink"):
        check_class(Both, role, recognise(Both, role))
    write(Both, [1], columns=COLUMNS)
    assert rows(Both) == [1]
    check_class(Read, "source", recognise(Read, "source"))
    with pytest.raises(Misuse, match=r"^Read\.write is None; expected a method write\(self, \*columns\)$"):
        check_class(Read, "sink", recognise(Read, "sink"))


# Options


class Counting(type):
    """Makes an object with what it knows itself."""

    def __call__(cls, first: int = 5):
        return super().__call__(first, first + 1)


class Passing(type):
    def __call__(cls, *arguments, **named):
        return super().__call__(*arguments, **named)


def test_options_are_those_of_whoever_makes_the_object():
    class Counted(Source, metaclass=Counting):
        def __init__(self, first, last):
            self.all = [first, last]

        def open(self, partition, state):
            return self.all

    class Passed(Source, metaclass=Passing):
        def __init__(self, first: int = 1):
            self.first = first

        def open(self, partition, state):
            return [self.first]

    assert options_of(Counted) == [Option("first", int, 5, False)]
    assert rows(Counted) == [5, 6] and rows(Counted, first="7") == [7, 8]
    with pytest.raises(Misuse, match=r"^Counted: there is no option 'last'"):
        check(Counted, {"last": 1})
    assert options_of(Passed) == [Option("first", int, 1, False)]
    assert rows(Passed, first="2") == [2]


@dataclasses.dataclass
class Fields(Source):
    count: int = 2
    limits: dict[str, int] = dataclasses.field(default_factory=dict)

    def open(self, partition, state):
        return list(range(self.limits.get("most", self.count)))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Frozen(Source):
    count: int

    def open(self, partition, state):
        return list(range(self.count))


def test_a_dataclass():
    check_source(Fields, columns=COLUMNS)
    assert rows(Fields, limits='{"most": 1}') == [0]
    assert make(Frozen, {"count": "3"}).count == 3
    assert rows(Frozen, count="2", columns=COLUMNS) == [0, 1]


@pytest.mark.parametrize("base", [Source, Sink, AsyncSource, AsyncSink])
def test_a_class_that_makes_something_else_is_told(base):
    cls = type("Odd", (base,), {"__new__": lambda cls: 5, "open": lambda self, *_: [1], "write": lambda self, n: None})
    expected = "Sink or AsyncSink" if "Sink" in base.__name__ else "Source"
    with pytest.raises(Misuse, match=rf"^Odd\(\) made 5 \(int\); expected an object that is a {expected}$"):
        write(cls, [1], columns=COLUMNS) if "Sink" in base.__name__ else rows(cls)


def test_a_class_may_make_another_of_its_kind():
    class Real(Source):
        def open(self, partition, state):
            return [3]

    class Front(Source):
        def __new__(cls):
            return Real()

        def open(self, partition, state):
            raise AssertionError

    assert rows(Front) == [3]


# What is no rows


class Rows:
    def __iter__(self):
        raise AssertionError

    __aiter__ = __iter__


@pytest.mark.parametrize("base", [Source, AsyncSource])
def test_a_class_in_the_place_of_its_object(base):
    async def opening(self, partition, state):
        return Rows

    cls = type("Bad", (base,), {"open": opening if base is AsyncSource else lambda self, *_: Rows})
    with pytest.raises(Misuse, match=r"^Bad\.open\(\) returned <class .*Rows'> \(type\); expected an? "):
        rows(cls)
    parts = type("Bad", (Source,), {"partitions": lambda self: Rows, "open": lambda self, *_: []})
    with pytest.raises(Misuse, match=r"^Bad\.partitions\(\) returned .*; expected a list of strings$"):
        rows(parts)


@pytest.mark.parametrize("module", [(inputs, outputs), (our_bytewax, our_bytewax)], ids=["bytewax", "compat"])
def test_a_partition_class_in_the_place_of_a_partition(module):
    sources, sinks = module
    cases = [
        (sources.DynamicSource, "build", sources.StatelessSourcePartition),
        (sources.FixedPartitionedSource, "build_part", sources.StatefulSourcePartition),
        (sinks.DynamicSink, "build", sinks.StatelessSinkPartition),
        (sinks.FixedPartitionedSink, "build_part", sinks.StatefulSinkPartition),
    ]
    for base, method, part in cases:
        made = {method: lambda self, *_, part=part: part, "list_parts": lambda self: ["a"]}
        cls = type("Bad", (base,), made)
        with pytest.raises(Misuse, match=rf"^Bad\.{method}\(\) returned <class .* \(.*\); expected a {part.__name__}$"):
            write(cls, [("a", 1)], columns=BOTH) if "Sink" in base.__name__ else rows(cls)


def test_what_is_drawn_in_lines_is_said_in_one():
    drawn = type("Drawn", (), {"__repr__": lambda self: "a table\n  with two lines"})()
    cls = type("Bad", (Source,), {"partitions": lambda self: drawn, "open": lambda self, *_: []})
    with pytest.raises(Misuse) as caught:
        rows(cls)
    assert str(caught.value) == "Bad.partitions() returned a table with two lines (Drawn); expected a list of strings"


@pytest.mark.parametrize("batch", [deque([1]), {"a": 1}.values(), {"a": 1}.keys(), {1}, range(1), map(int, "1")])
def test_a_batch_that_is_no_list(batch):
    part = type("Bad", (Partition,), {"next_batch": lambda self: batch})
    cls = type("Odd", (Source,), {"open": lambda self, *_: part()})
    with pytest.raises(Misuse, match=r"^Bad\.next_batch\(\) returned .*; expected a list of rows, or None "):
        rows(cls, limit=1)
