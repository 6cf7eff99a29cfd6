"""The base classes of couatl.sinks, driven as the engine drives it, without a server."""

from __future__ import annotations

import asyncio
import threading
import traceback
from contextlib import suppress

import couatl
import pytest
from couatl import _threads
from couatl._columns import Columns
from couatl._errors import Misuse
from couatl._threads import UserThread
from couatl._writing import writing
from couatl.sinks import AsyncSink, Sink
from couatl.testing import failing_sink, write
from misuse import ALL, ERRORS, all_but, awaited, misused, yielded
from pulling import SOON, Elsewhere, asleep, nothing_left_running  # noqa: F401

TWO = {"id": "int64", "name": "string"}
FAILURES = pytest.mark.parametrize(
    ("fails", "order"),
    [
        ("open", ["open"]),
        ("write", ["open", "write", "abort", "close"]),
        ("flush", ["open", "write", "flush", "abort", "close"]),
        ("commit", ["open", "write", "flush", "commit", "abort", "close"]),
        ("close", ["open", "write", "flush", "commit", "close"]),
    ],
)


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


@FAILURES
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
    with pytest.raises(Misuse, match=r"Sink has no write\(\*columns\)"):
        write(Sink, [(1, "a")], columns=TWO)
    with pytest.raises(TypeError, match=r"expected a row of the columns id, name, got \(1,\) \(tuple\)"):
        write(Recorded, [(1,)], columns=TWO)


@misused(open=ALL, write=all_but("signature"), flush=ALL, commit=ALL, close=ALL)
def test_misuse_of_a_sink(method, wrong, said):
    bad = type("Bad", (Recorded,), {method: wrong})
    session = couatl.Session()
    session.sink("id int64", name="bad")(bad)
    with pytest.raises(ERRORS, match=said):
        session.sql("INSERT INTO bad VALUES (1)")


@misused(abort=ALL)
def test_misuse_of_what_undoes(method, wrong, said):
    sink = writing(type("Bad", (Recorded,), {method: wrong}), {}, Columns(list(TWO), list(TWO.values())))
    sink.open()
    with pytest.raises(ERRORS, match=said):
        sink.abort()


@misused(**dict.fromkeys(["open", "write", "flush", "commit", "close"], ("no method", "a yield", "StopIteration")))
def test_misuse_of_what_is_awaited(method, wrong, said):
    with pytest.raises(ERRORS, match=said):
        write(type("Bad", (Awaited,), {method: wrong}), [(1, "a")], columns=TWO)


def test_none_is_no_method():
    class Bad(Recorded):
        commit = None

    with pytest.raises(Misuse, match=r"^Bad\.commit is None; expected a method commit\(self\)"):
        write(Bad, [1], columns={"n": "int64"})


def test_a_sink_that_is_to_fail_has_the_columns_of_its_own():
    class Knows(Recorded):
        def schema(self):
            return "n int64"

    assert Recorded().schema() is Awaited([]).schema() is None
    assert failing_sink(Knows, at="open").schema() == "n int64"


def test_columns():
    columns = Columns(["a", "b"], ["int64", "array(string)"])
    assert (len(columns), list(columns)) == (2, [("a", "int64"), ("b", "array(string)")])
    assert columns == Columns(("a", "b"), ("int64", "array(string)"), schema=object())
    assert hash(columns) == hash(Columns(["a", "b"], ["int64", "array(string)"]))
    with pytest.raises(AttributeError):
        columns.names = ["c"]
    with pytest.raises(ValueError, match="expected a type for each of 2 columns, got 1"):
        Columns(["a", "b"], ["int64"])


# Cancels


class Waiting(Recorded):
    """Waits where it is told to, in C, until ``cancel`` is called; fails there when it is."""

    def __init__(self, where):
        super().__init__()
        self.where = where
        self.waits, self.enough = threading.Event(), threading.Event()

    def call(self, name, *arguments):
        super().call(name, *arguments)
        if name == self.where:
            self.waits.set()
            assert self.enough.wait(SOON)
            raise OSError(f"{name} has been cancelled")

    def cancel(self):
        self.calls.append(("cancel", threading.current_thread().name))
        self.enough.set()


def driven(thing, **options):
    return writing(thing, options, Columns(["id"], ["int64"]))


def all_of_it(sink):
    """Drives a sink as the engine does, to the end that it has, and gives what was raised."""
    try:
        sink.open()
    except BaseException as error:
        sink.close()
        return error
    try:
        sink.write([1])
        sink.flush()
        sink.commit()
    except BaseException as error:
        sink.abort()
        return error
    finally:
        sink.close()
    return None


@pytest.mark.parametrize("where", ["write", "flush", "commit"])
def test_a_cancel_ends_what_waits_in_c(where):
    waiting = Waiting(where)
    sink = driven(waiting)
    going = Elsewhere(lambda: all_of_it(sink))
    assert waiting.waits.wait(SOON)
    sink.cancel()
    sink.cancel()
    assert str(going.result()) == f"{where} has been cancelled"
    assert going.took < 1
    calls = ["open", "write", "flush", "commit"]
    assert waiting.order == [*calls[: calls.index(where) + 1], "cancel", "abort", "close"]
    assert ("cancel", "couatl-cancel:Waiting") in waiting.calls


def test_a_cancel_before_open_has_returned_or_after_the_end_calls_nothing():
    waiting = Waiting("open")
    sink = driven(waiting)
    sink.cancel()
    assert isinstance(all_of_it(sink), KeyboardInterrupt)
    assert waiting.order == []

    sink = driven(waiting)
    going = Elsewhere(lambda: all_of_it(sink))
    assert waiting.waits.wait(SOON)
    sink.cancel()
    waiting.enough.set()
    assert str(going.result()) == "open has been cancelled"
    assert waiting.order == ["open"]

    waiting = Waiting("nowhere")
    sink = driven(waiting)
    assert all_of_it(sink) is None
    sink.cancel()
    assert waiting.order == ["open", "write", "flush", "commit", "close"]


def test_after_a_cancel_a_sink_is_only_ended():
    recorded = Recorded()
    sink = driven(recorded)
    sink.open()
    sink.cancel()
    for method in (lambda: sink.write([1]), sink.flush, sink.commit):
        with pytest.raises(KeyboardInterrupt):
            method()
    sink.abort()
    sink.close()
    assert recorded.order == ["open", "abort", "close"]


def test_what_a_cancel_hook_raises_is_logged(caplog):
    class Raises(Recorded):
        def cancel(self):
            raise OSError("no route")

    sink = driven(Raises())
    sink.open()
    sink.cancel()
    sink.abort()
    sink.close()
    assert "Raises.cancel() raised" in caplog.text
    assert "no route" in caplog.text


@pytest.mark.parametrize(
    ("wrong", "said"), [(5, " is 5"), (awaited, r"\(\) is asynchronous"), (yielded, r"\(\) has a yield")]
)
def test_misuse_of_what_ends_a_wait(wrong, said):
    with pytest.raises(Misuse, match=rf"^Bad\.cancel{said}"):
        driven(type("Bad", (Recorded,), {"cancel": wrong})())


def test_an_abort_waits_for_the_cancel_hook(monkeypatch, caplog):
    enough = threading.Event()

    class Slow(Recorded):
        def cancel(self):
            assert enough.wait(SOON)
            self.calls.append(("cancel",))

    sink = driven(Slow())
    sink.open()
    sink.cancel()
    going = Elsewhere(sink.abort)
    asleep(going.thread)
    enough.set()
    going.result()
    assert sink.sink.order == ["open", "cancel", "abort"]

    enough.clear()
    for name in ("GRACE", "PATIENCE"):
        monkeypatch.setattr(_threads, name, 0.02)
    sink = driven(Slow())
    sink.open()
    sink.cancel()
    sink.abort()
    assert sink.sink.order == ["open", "abort"]
    assert "Slow.cancel() has not ended" in caplog.text
    enough.set()


# Asynchronous ones


class Awaited(AsyncSink):
    """Keeps what is called, and on which loop; raises or waits where it is told to."""

    def __init__(self, fails="", waits=""):
        self.fails, self.where = fails, waits
        self.calls, self.loops = [], set()
        self.waits = threading.Event()

    async def call(self, name, *arguments):
        self.calls.append((name, *arguments))
        self.loops.add(asyncio.get_running_loop())
        await asyncio.sleep(0)
        if name == self.fails:
            raise ValueError(f"{name} fails")
        if name == self.where:
            self.waits.set()
            try:
                await asyncio.sleep(3600)
            finally:
                await asyncio.sleep(0.01)
                self.calls.append(("cleaned up",))

    async def open(self, columns):
        await self.call("open", *columns.names)

    async def write(self, *columns):
        await self.call("write", *columns)

    async def flush(self):
        await self.call("flush")

    async def commit(self):
        await self.call("commit")

    async def abort(self):
        await self.call("abort")

    async def close(self):
        await self.call("close")

    @property
    def order(self):
        return [name for name, *_ in self.calls]


def test_an_asynchronous_sink_is_awaited_on_a_loop_of_its_own():
    sink = Awaited()
    write(sink, [(1, "a"), (2, "b")], columns=TWO)
    assert sink.calls == [
        ("open", "id", "name"),
        ("write", [1, 2], ["a", "b"]),
        ("flush",),
        ("commit",),
        ("close",),
    ]
    (loop,) = sink.loops
    assert loop.is_closed()


@FAILURES
def test_errors_in_an_asynchronous_sink(fails, order):
    sink = Awaited(fails)
    with pytest.raises(ValueError, match=f"{fails} fails") as raised:
        write(sink, [(1, "a")], columns=TWO)
    assert sink.order == order
    assert "call" in [frame.name for frame in traceback.extract_tb(raised.value.__traceback__)]


@pytest.mark.parametrize("where", ["open", "write", "flush", "commit"])
def test_a_cancel_is_a_cancelled_error_where_an_asynchronous_sink_waits(where):
    waiting = Awaited(waits=where)
    sink = driven(waiting)
    going = Elsewhere(lambda: all_of_it(sink))
    assert waiting.waits.wait(SOON)
    sink.cancel()
    sink.cancel()
    assert isinstance(going.result(), KeyboardInterrupt)
    assert going.took < 1
    calls = ["open", "write", "flush", "commit"]
    ends = [] if where == "open" else ["abort", "close"]
    assert waiting.order == [*calls[: calls.index(where) + 1], "cleaned up", *ends]


@pytest.mark.parametrize("where", ["abort", "close"])
def test_a_cleanup_that_waits_is_bounded_from_a_cancel_on(where, monkeypatch, caplog):
    for name in ("GRACE", "PATIENCE"):
        monkeypatch.setattr(_threads, name, 0.02)
    waiting = Awaited(waits=where, fails="flush")
    sink = driven(waiting)
    going = Elsewhere(lambda: all_of_it(sink))
    assert waiting.waits.wait(SOON)
    asleep(going.thread)
    sink.cancel()
    assert str(going.result()) == "flush fails"
    assert "the cleanup of Awaited has not ended" in caplog.text


def test_a_write_that_does_not_end_when_it_is_cancelled(monkeypatch, caplog):
    for name in ("GRACE", "PATIENCE"):
        monkeypatch.setattr(_threads, name, 0.02)
    waits, enough = threading.Event(), threading.Event()

    class Stubborn(Awaited):
        async def write(self, *columns):
            waits.set()
            while not enough.is_set():
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.01)

    sink = driven(Stubborn())
    going = Elsewhere(lambda: all_of_it(sink))
    assert waits.wait(SOON)
    sink.cancel()
    assert isinstance(going.result(), KeyboardInterrupt)
    assert "the cleanup of Stubborn has not ended" in caplog.text
    enough.set()


def test_an_interrupt_of_who_waits_cancels_what_is_awaited():
    waiting = Awaited(waits="write")
    sink = driven(waiting)
    thread = UserThread("interrupted", lambda: all_of_it(sink))
    assert waiting.waits.wait(SOON)
    asleep(thread._thread)
    thread.interrupt()
    # It waits in C: the interrupt is raised when it is woken.
    sink._cancelled.set_result(None)
    assert thread.join(SOON)
    assert waiting.order == ["open", "write", "cleaned up", "abort", "close"]


def test_tasks_of_an_asynchronous_sink_go_on_between_the_calls_and_end_with_it():
    beats, seen = threading.Semaphore(0), []

    async def heart():
        try:
            while True:
                beats.release()
                await asyncio.sleep(0.001)
        finally:
            seen.append("ended")

    class Beating(Awaited):
        async def open(self, columns):
            self.heart = asyncio.ensure_future(heart())

    sink = driven(Beating())
    sink.open()
    assert all(beats.acquire(timeout=SOON) for _ in range(5))
    sink.write([1])
    sink.commit()
    assert not seen
    sink.close()
    assert seen == ["ended"]


def test_misuse_of_an_asynchronous_sink():
    class Narrow(Awaited):
        async def write(self, id):
            pass

    with pytest.raises(Misuse, match=r"^Narrow\.write\(id\) cannot be called with one list for each of the columns"):
        write(Narrow, [(1, "a")], columns=TWO)
    with pytest.raises(Misuse, match=r"AsyncSink has no write\(\*columns\)"):
        write(AsyncSink, [(1, "a")], columns=TWO)
