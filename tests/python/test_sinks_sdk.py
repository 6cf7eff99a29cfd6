"""The base class of couatl.sinks, driven as the engine drives it, without a server."""

from __future__ import annotations

import pytest
from couatl._columns import Columns
from couatl._writing import writing
from couatl.sinks import Sink
from couatl.testing import write

TWO = {"id": "int64", "name": "string"}


class Recorded(Sink):
    """Keeps what is called, and raises where it is told to."""

    def __init__(self, fails: str = ""):
        self.fails = fails
        self.calls = []

    def call(self, name, *arguments):
        self.calls.append((name, *arguments))
        if name == self.fails:
            raise ValueError(f"{name} fails")

    def open(self, columns):
        self.call("open", *columns.names)

    def write(self, *columns):
        self.call("write", *columns)

    def flush(self):
        self.call("flush")

    def commit(self):
        self.call("commit")

    def abort(self):
        self.call("abort")

    def close(self):
        self.call("close")

    @property
    def order(self):
        return [name for name, *_ in self.calls]


def test_the_order_and_the_columns():
    sink = Recorded()
    write(sink, [(1, "a"), {"name": "b", "id": 2}, [3, "c"]], columns=TWO)
    assert sink.calls == [
        ("open", "id", "name"),
        ("write", [1, 2, 3], ["a", "b", "c"]),
        ("flush",),
        ("commit",),
        ("close",),
    ]


def test_no_rows_are_no_block():
    sink = Recorded()
    write(sink, [], columns=TWO)
    assert sink.order == ["open", "flush", "commit", "close"]


@pytest.mark.parametrize(
    ("fails", "order"),
    [
        ("open", ["open"]),
        ("write", ["open", "write", "abort", "close"]),
        ("flush", ["open", "write", "flush", "abort", "close"]),
        ("commit", ["open", "write", "flush", "commit", "abort", "close"]),
        ("close", ["open", "write", "flush", "commit", "close"]),
    ],
)
def test_after_errors(fails, order):
    sink = Recorded(fails)
    with pytest.raises(ValueError, match=f"{fails} fails"):
        write(sink, [(1, "a")], columns=TWO)
    assert sink.order == order


def test_however_the_engine_ends_it_each_end_comes_once():
    sink = Recorded()
    driven = writing(sink, {}, Columns(["id"], ["int64"]))
    driven.open()
    driven.write([1])
    for _ in range(2):
        driven.abort()
        driven.close()
    assert sink.order == ["open", "write", "abort", "close"]

    sink = Recorded()
    driven = writing(sink, {}, Columns(["id"], ["int64"]))
    driven.open()
    driven.commit()
    driven.abort()
    driven.close()
    assert sink.order == ["open", "commit", "close"]

    sink = Recorded("open")
    driven = writing(sink, {}, Columns(["id"], ["int64"]))
    with pytest.raises(ValueError, match="open fails"):
        driven.open()
    driven.abort()
    driven.close()
    assert sink.order == ["open"]

    sink = Recorded("abort")
    driven = writing(sink, {}, Columns(["id"], ["int64"]))
    driven.open()
    with pytest.raises(ValueError, match="abort fails"):
        driven.abort()
    driven.close()
    assert sink.order == ["open", "abort", "close"]


def test_parameters_that_are_named_as_the_columns_are_get_them_by_name():
    found = []

    class Turned(Sink):
        def write(self, name, id):
            found.append((name, id))

    class Other(Sink):
        def write(self, first, second):
            found.append((first, second))

    class Keywords(Sink):
        def write(self, *, name, id):
            found.append((name, id))

    for kind in (Turned, Other, Keywords):
        write(kind, [(1, "a")], columns=TWO)
    assert found == [(["a"], [1]), ([1], ["a"]), (["a"], [1])]


def test_a_write_that_cannot_take_the_columns():
    class Narrow(Sink):
        def open(self, columns):
            raise AssertionError("it is not opened")

        def write(self, id):
            pass

    with pytest.raises(TypeError, match=r"^Narrow\.write\(id\) cannot be called with one list for each of the columns"):
        write(Narrow, [(1, "a")], columns=TWO)


def test_options():
    class Named(Recorded):
        def __init__(self, size: int):
            super().__init__()
            assert size == 5

    write(Named, [(1, "a")], columns=TWO, size="5")
    with pytest.raises(TypeError, match=r"Named: expected the option 'size' \(int\), and it is not set"):
        write(Named, [], columns=TWO)


def test_misuse():
    class Late(Sink):
        async def write(self, *columns):
            pass

    with pytest.raises(TypeError, match=r"Late\.write\(\) returned <coroutine .*expected a plain method \(def, not"):
        write(Late, [(1, "a")], columns=TWO)
    with pytest.raises(NotImplementedError, match=r"Sink has no write\(\*columns\)"):
        write(Sink, [(1, "a")], columns=TWO)
    with pytest.raises(TypeError, match=r"expected a row of the columns id, name, got \(1,\) \(tuple\)"):
        write(Recorded, [(1,)], columns=TWO)


def test_columns():
    columns = Columns(["a", "b"], ["int64", "array(string)"])
    assert (len(columns), list(columns)) == (2, [("a", "int64"), ("b", "array(string)")])
    assert columns == Columns(("a", "b"), ("int64", "array(string)"), schema=object())
    assert hash(columns) == hash(Columns(["a", "b"], ["int64", "array(string)"]))
    with pytest.raises(AttributeError):
        columns.names = ["c"]
    with pytest.raises(ValueError, match="expected a type for each of 2 columns, got 1"):
        Columns(["a", "b"], ["int64"])
