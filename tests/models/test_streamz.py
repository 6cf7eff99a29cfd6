"""Streamz: the library's own classes as sources, sinks and transforms, next to its own engine on the same input."""

import asyncio
import contextlib
import gc
import re
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from contextlib import closing

import pytest
from couatl._errors import Misuse
from couatl._reading import Reading, reading
from couatl._writing import writing
from couatl.compat import streamz as compat
from couatl.compat.streamz import as_sink, as_source, as_transform, check_class, has_made
from couatl.testing import Columns, rows, write

streamz = pytest.importorskip("streamz")
gen = pytest.importorskip("tornado.gen")

ONE = Columns(["x"], ["int64"])
TEXT = Columns(["x"], ["string"])
TWO = Columns(["id", "name"], ["int64", "string"])


class Count(streamz.Source):
    """As plugins are written: options, then whatever the library takes."""

    def __init__(self, n: int = 3, **kwargs):
        self.n = n
        super().__init__(**kwargs)

    async def run(self):
        for x in range(self.n):
            if self.stopped:
                break
            await asyncio.gather(*self._emit(x))
        self.stopped = True


class RepeatNode(streamz.Stream):
    def __init__(self, upstream, n: int, **kwargs):
        super().__init__(upstream, ensure_io_loop=True, **kwargs)
        self._n = n

    @gen.coroutine
    def update(self, x, who=None, metadata=None):
        for _ in range(self._n):
            yield self._emit(x, metadata=metadata)


def pipeline_rows(stream, columns=None, limit=None):
    """The rows of a source that is not named by a class."""
    source = Reading(as_source(stream, {}, columns), columns)
    found = []
    with closing(source), closing(source.open("")) as pull:
        for batch in pull:
            found += batch if isinstance(batch, list) else [batch]
            if limit is not None and len(found) >= limit:
                break
    return found


def engine_rows(source, count, wait=2.0):
    """What the library's own engine gives to a sink."""
    found, enough = [], threading.Event()

    def take(x):
        found.append(x)
        if len(found) >= count:
            enough.set()

    source.sink(take)
    source.start()
    assert enough.wait(wait)
    source.stop()
    return found


def engine_transform(node, elements):
    """The same for a node behind a stream."""
    stream = streamz.Stream()
    found = node(stream).sink_to_list()
    for element in elements:
        stream.emit(element)
    return found


# Sources


def test_a_source_gives_what_its_own_engine_gives_and_ends():
    assert rows(Count, columns=ONE, n=5) == engine_rows(Count(5), 5) == list(range(5))


def test_options_are_converted_and_checked():
    assert rows(Count, columns=ONE, n="2") == [0, 1]
    with pytest.raises(TypeError, match="Count: option 'n': expected an integer, got 'two' "):
        rows(Count, columns=ONE, n="two")


def test_an_option_that_has_the_name_of_a_setting_is_to_be_quoted():
    class Opened(Count):
        def __init__(self, mode: str, **kwargs):
            super().__init__(**kwargs)

    expected = (
        "Opened: expected the option 'mode' (str), and it is not set; write \"mode\", in quotes, else it is a setting"
    )
    assert told(lambda: rows(Opened, columns=ONE)) == f"{expected} of the stream"
    assert rows(Opened, columns=ONE, mode="r") == [0, 1, 2]


def test_the_librarys_sources():
    assert rows(streamz.Stream.from_iterable([1, 2, 3]), columns=ONE) == [1, 2, 3]
    assert pipeline_rows(streamz.Stream.from_periodic(lambda: 7, poll_interval=0.001), limit=3)[:3] == [7, 7, 7]


def test_a_process_that_ends_is_an_end():
    assert rows(streamz.sources.from_process, columns=TEXT, cmd=["echo", "a"]) == [b"a\n"]


@pytest.mark.parametrize(("base", "is_end"), [(streamz.sources.from_process, True), (streamz.Source, False)])
def test_a_process_that_cannot_be_ended_any_more_has_ended(base, is_end):
    class Gone(base):
        async def run(self):
            await asyncio.gather(*self._emit(1))
            raise ProcessLookupError

    with contextlib.nullcontext() if is_end else pytest.raises(ProcessLookupError):
        assert rows(Gone, columns=ONE, **({"cmd": "true"} if is_end else {})) == [1]


def test_a_source_whose_constructor_takes_no_loop():
    class Plain(streamz.Source):
        def __init__(self):
            super().__init__()

        async def _run(self):
            await asyncio.gather(*self._emit("a"))
            self.stopped = True

    assert rows(Plain, columns=TEXT) == ["a"]


def test_a_source_runs_on_a_loop_of_its_query():
    class Where(streamz.Source):
        async def run(self):
            self._emit(threading.current_thread().name)
            self.stopped = True

    assert rows(Where, columns=TEXT) == ["couatl-loop:Where"]


def test_a_tornado_coroutine_as_run():
    class Old(streamz.Source):
        @gen.coroutine
        def run(self):
            for x in range(3):
                yield self._emit(x)
            self.stopped = True

    assert rows(Old, columns=ONE) == [0, 1, 2]


def test_the_return_of_run_is_the_end_even_where_it_says_nothing():
    class Silent(streamz.Source):
        async def run(self):
            await asyncio.gather(*self._emit(1))

    assert rows(Silent, columns=ONE) == [1]


def test_a_source_that_has_set_up_callbacks_goes_on():
    class Called(streamz.Source):
        def run(self):
            asyncio.get_running_loop().call_later(0.01, self.later)

        def later(self):
            self._emit(1)
            self._emit(2)

    assert rows(Called, columns=ONE, limit=2) == [1, 2]


def test_a_source_that_keeps_its_loop_for_itself():
    class Hogging(streamz.Source):
        n = 0

        def run(self):
            while not self.stopped:
                self.n += 1
                self._emit(self.n)

    class Sleeping(streamz.Source):
        n = 0

        async def _run(self):
            time.sleep(0.001)
            self.n += 1
            self._emit(self.n)

    class Stubborn(Hogging):
        def run(self):
            while True:
                self._emit(1)

    before = threading.active_count()
    assert rows(Hogging, columns=ONE, limit=3) == engine_rows(Hogging(), 3)[:3] == [1, 2, 3]
    assert rows(Sleeping, columns=ONE, limit=3) == [1, 2, 3]
    assert rows(Stubborn, columns=ONE, limit=3) == [1, 1, 1]
    assert threading.active_count() <= before + 1  # a loop of the library's own, made once


def test_a_thread_of_the_sources_own_waits_where_the_query_is_slow():
    count = []

    class Threaded(streamz.Source):
        def run(self):
            threading.Thread(target=self.work, daemon=True).start()

        def work(self):
            for x in range(5000):
                if self.stopped:
                    break
                self.emit(x)
                count.append(x)

    with closing(reading(Threaded, {}, ONE)) as source, closing(source.open("")) as pull:
        first = next(pull)
        time.sleep(0.05)
        assert first[0] == 0
        assert len(count) < 4000


def test_backpressure():
    emitted = []

    class Endless(streamz.Source):
        async def _run(self):
            emitted.append(1)
            await asyncio.gather(*self._emit(len(emitted)))

    with closing(reading(Endless, {}, ONE)) as source, closing(source.open("")) as pull:
        assert next(pull)[0] == 1
        time.sleep(0.05)
        waiting = len(emitted)
        assert waiting < 5000
        time.sleep(0.02)
        assert len(emitted) == waiting
        for _ in range(3):
            next(pull)
        time.sleep(0.01)
        assert len(emitted) > waiting


def test_an_error_in_run_reaches_the_query_after_its_rows():
    class Broken(streamz.Source):
        async def run(self):
            await asyncio.gather(*self._emit(1))
            raise LookupError("no more")

    with closing(reading(Broken, {}, ONE)) as source, closing(source.open("")) as pull:
        assert next(pull) == [1]
        with pytest.raises(LookupError, match="no more"):
            next(pull)


def test_an_error_of_a_callback_reaches_the_query():
    class Started(streamz.Source):
        def start(self):
            self.stopped = False
            self.loop.add_callback(self.poll)

        async def poll(self):
            raise LookupError("no broker")

    with pytest.raises(LookupError, match="no broker"):
        rows(Started, columns=ONE)


def test_cancel_stops_a_source():
    stopped = threading.Event()

    class Quiet(streamz.Source):
        async def _run(self):
            await asyncio.sleep(60)

        def stop(self):
            super().stop()
            stopped.set()

    with closing(reading(Quiet, {}, ONE)) as source, closing(source.open("")) as pull:
        threading.Timer(0.02, pull.cancel).start()
        assert list(pull) == []
    assert stopped.is_set()


def test_a_pipeline_is_read_at_its_end():
    made = lambda: streamz.Stream.from_iterable(range(6)).map(lambda x: x * 10).partition(2)  # noqa: E731
    assert pipeline_rows(made()) == engine_rows(made(), 3) == [(0, 10), (20, 30), (40, 50)]


def test_a_pipeline_is_a_source_where_it_is_behind_sources_alone():
    source, plain = streamz.Stream.from_iterable(range(3)), streamz.Stream()
    assert has_made(source.map(str), "source")
    assert rows(source.map(str), columns=TEXT) == ["0", "1", "2"]
    with pytest.raises(TypeError, match=r"^expected a source, and class map is a streamz transform$"):
        rows(plain.map(str), columns=TEXT)
    assert has_made(source.map(str).zip(streamz.Stream.from_iterable("abc")), "source")
    assert not has_made(source.map(str), "sink")
    assert not has_made(plain.map(str), "source")
    assert not has_made(source.zip(plain), "source")
    assert not has_made(plain, "source")


def test_what_a_pipeline_holds_at_the_end_comes():
    assert pipeline_rows(streamz.Stream.from_iterable(range(20)).buffer(5)) == list(range(20))
    assert pipeline_rows(streamz.Stream.from_iterable(range(3)).timed_window(5)) == [0, 1, 2]


def test_elements_are_rows_of_many_shapes():
    elements = [(1, "a"), {"id": 2, "name": "b"}, [(3, "c"), (4, "d")], (5, "e")]
    expected = [(1, "a"), {"id": 2, "name": "b"}, (3, "c"), (4, "d"), (5, "e")]
    assert rows(streamz.Stream.from_iterable(elements), columns=TWO) == expected


def test_none_is_a_value_of_the_only_column():
    assert rows(streamz.Stream.from_iterable([1, None]), columns=ONE) == [1, (None,)]


def test_arrow_elements_stay_as_they_are():
    pa = pytest.importorskip("pyarrow")
    batch = pa.record_batch({"x": [1, 2]})
    assert rows(streamz.Stream.from_iterable([0, batch]), columns=ONE) == [0, batch]


def test_metadata_is_no_part_of_a_row():
    class Tagged(streamz.Source):
        async def run(self):
            await asyncio.gather(*self._emit(1, metadata=[{"offset": 7}]))

    assert rows(Tagged, columns=ONE) == [1]


def test_what_refers_to_an_element_is_released_when_its_rows_have_been_taken_over():
    released, last = [], threading.Event()

    def release(x):
        released.append(x)
        if x == 3:
            last.set()

    class Referred(streamz.Source):
        async def run(self):
            for x in range(4):
                reference = streamz.core.RefCounter(cb=lambda x=x: release(x), loop=self.loop)
                await asyncio.gather(*self._emit([x, x] if x else (), metadata=[{"ref": reference}]))

    assert len(rows(Referred, columns=ONE)) == 6
    assert released == [0, 1, 2, 3]
    released.clear()
    last.clear()
    piped = Referred().map(lambda x: x)
    assert len(pipeline_rows(piped, ONE)) == 6
    # On the loop that the library's sources share where they have been given none.
    assert last.wait(5)
    assert released == [0, 1, 2, 3]


def test_what_refers_to_an_element_that_nobody_took_is_not_released():
    released, stopped = [], threading.Event()

    class Referred(streamz.Source):
        async def run(self):
            for x in range(4):
                reference = streamz.core.RefCounter(cb=lambda x=x: released.append(x), loop=self.loop)
                await asyncio.gather(*self._emit(x, metadata=[{"ref": reference}]))

        def stop(self):
            super().stop()
            stopped.set()

    with closing(Reading(as_source(Referred, {}, ONE), ONE)) as source, closing(source.open("")) as pull:
        # It has ended, and is not stopped: callbacks may need what it has open.
        assert not stopped.wait(0.1)
        assert next(pull)[0] == 0
    assert (released, stopped.is_set()) == ([], True)


# Transforms


@pytest.mark.parametrize(
    ("name", "options", "elements"),
    [
        ("partition", {"n": 2}, range(6)),
        ("sliding_window", {"n": 2, "return_partial": False}, range(5)),
        ("flatten", {}, [[1, 2], [3]]),
        ("unique", {}, [1, 2, 1, 3, 2]),
        ("slice", {"start": 1, "end": 4}, range(6)),
        ("pluck", {"pick": "a"}, [{"a": 1}, {"a": 2}]),
        ("accumulate", {"func": lambda total, x: total + x}, range(5)),
        ("rate_limit", {"interval": 0.001}, range(5)),
        ("buffer", {"n": 2}, range(10)),
        ("delay", {"interval": 0.001}, range(5)),
        ("map", {"func": lambda x: x + 1}, range(3)),
        ("union", {}, range(3)),
    ],
)
def test_the_librarys_nodes(name, options, elements):
    cls = getattr(streamz.core, name)
    expected = engine_transform(lambda stream: getattr(stream, name)(**options), elements)
    if name in ("buffer", "delay"):
        expected = list(elements)
    assert list(as_transform(cls, options)(iter(elements))) == expected


def test_the_node_of_the_documentation():
    assert list(as_transform(RepeatNode, {"n": "2"})(["a", "b"])) == ["a", "a", "b", "b"]


def test_rows_come_while_a_node_is_still_at_one():
    endless = as_transform(RepeatNode, {"n": 10**9})(["a"])
    assert [next(endless) for _ in range(3)] == ["a", "a", "a"]
    endless.close()


def test_a_node_is_asked_for_what_it_holds_at_the_end():
    assert list(as_transform(streamz.core.collect)([1, 2])) == [(1, 2)]
    assert list(as_transform(streamz.core.collect)([])) == []
    assert list(as_transform(streamz.core.timed_window, {"interval": 5})([1, 2])) == [[], [1, 2]]


def test_what_comes_by_itself_comes_with_the_next_row_or_none():
    def feed():
        yield 1
        while not seen:
            time.sleep(0.005)
            yield None

    seen = []
    for row in as_transform(streamz.core.partition, {"n": 10, "timeout": 0.02})(feed()):
        seen.append(row)
    assert seen == [(1,)]


def test_a_node_that_emits_many_at_once():
    assert list(as_transform(streamz.core.flatten)([range(5000)])) == list(range(5000))
    assert pipeline_rows(streamz.Stream.from_iterable([range(5000)]).flatten()) == list(range(5000))


def test_a_node_that_waits_does_not_keep_others_from_being_ended():
    class Stuck(streamz.Stream):
        async def update(self, x, who=None, metadata=None):
            self._emit(x)
            await asyncio.Event().wait()

    rows_out = as_transform(Stuck)([1, 2])
    assert next(rows_out) == 1
    rows_out.close()


def test_a_pipeline_as_a_transform():
    end = streamz.Stream().map(lambda x: x * 2).filter(lambda x: x > 2)
    assert list(as_transform(end)([1, 2, 3])) == [4, 6]
    assert list(as_transform(streamz.Stream().rate_limit(0.001))([1, 2, 3])) == [1, 2, 3]


def test_an_error_of_a_node_is_raised():
    with pytest.raises(ZeroDivisionError):
        list(as_transform(streamz.core.map, {"func": lambda x: 1 // x})([1, 0]))


def test_nothing_stays_behind():
    before = threading.active_count()
    list(as_transform(RepeatNode, {"n": 2})([1]))
    rows(Count, columns=ONE)
    assert threading.active_count() <= before + 1  # a loop of the library's own, made once


# Sinks


def test_a_sink_is_given_bare_values_for_one_column_and_dicts_for_more():
    class Kept(streamz.Sink):
        kept = []  # noqa: RUF012

        def update(self, x, who=None, metadata=None):
            self.kept.append(x)

    write(Kept, [1, 2], columns=ONE)
    write(Kept, [(1, "a")], columns=TWO)
    assert Kept.kept == [1, 2, {"id": 1, "name": "a"}]


def test_a_sink_to_a_file(tmp_path):
    out = tmp_path / "out.txt"
    write(streamz.sinks.sink_to_textfile, ["a", "b"], columns=TEXT, file=str(out), mode="w")
    gc.collect()
    there = tmp_path / "there.txt"
    stream = streamz.Stream()
    sink = stream.sink_to_textfile(str(there), mode="w")
    for element in ["a", "b"]:
        stream.emit(element)
    sink.destroy()
    del sink
    gc.collect()
    assert out.read_text() == there.read_text() == "a\nb\n"


def test_the_stream_in_front_of_a_sink_is_no_option(tmp_path):
    with pytest.raises(Misuse, match=r"^sink_to_textfile: there is no option 'upstream'"):
        write(streamz.sinks.sink_to_textfile, ["a"], columns=ONE, file=str(tmp_path / "a"), upstream="zz")


def test_a_sink_that_awaits_takes_one_after_the_other():
    order = []

    class Slow(streamz.Sink):
        async def update(self, x, who=None, metadata=None):
            await asyncio.sleep(0.003 if x == 1 else 0)
            order.append(x)

    write(Slow, [1, 2, 3], columns=ONE)
    assert order == [1, 2, 3]


def test_an_error_of_a_sink_fails_the_statement_and_it_is_taken_out():
    destroyed = []

    class Full(streamz.Sink):
        def update(self, x, who=None, metadata=None):
            raise OSError("disk full")

        def destroy(self):
            destroyed.append(self)
            super().destroy()

    with pytest.raises(OSError, match="disk full"):
        write(Full, [1], columns=ONE)
    assert len(destroyed) == 1
    assert destroyed[0] not in streamz.sinks._global_sinks


def test_a_sink_behind_a_stream_of_its_own():
    found = []
    sink = streamz.Stream().map(lambda x: x + 1).sink(found.append)
    write(sink, [1, 2], columns=ONE)
    assert found == [2, 3]


def test_a_sink_flushes_before_the_commit():
    order = []

    class Flushing(streamz.Sink):
        def update(self, x, who=None, metadata=None):
            order.append(x)

        def flush(self):
            order.append("flush")

    sink = writing(Flushing, {}, ONE)
    sink.open()
    sink.write([1, 2])
    sink.flush()
    sink.commit()
    sink.close()
    assert order == [1, 2, "flush"]


# Our own base classes


def test_our_classes_need_no_library():
    class Numbers(compat.Source):
        def __init__(self, n: int, **kwargs):
            super().__init__(**kwargs)
            self.n = n

        async def run(self):
            for x in range(self.n):
                await self.emitted(x)

    class Twice(compat.Stream):
        def update(self, x, who=None, metadata=None):
            return self._emit(x, metadata=metadata) + self._emit(x, metadata=metadata)

    class Kept(compat.Sink):
        kept = []  # noqa: RUF012

        async def update(self, x, who=None, metadata=None):
            self.kept.append(x)

    assert rows(Numbers, columns=ONE, n=3) == [0, 1, 2]
    assert list(as_transform(Twice)([1, 2])) == [1, 1, 2, 2]
    write(Kept, [1, 2], columns=ONE)
    assert Kept.kept == [1, 2]


def test_our_source_emits_from_a_thread():
    class Threaded(compat.Source):
        async def run(self):
            await asyncio.get_running_loop().run_in_executor(None, lambda: [self.emit(x) for x in range(3)])

    assert rows(Threaded, columns=ONE) == [0, 1, 2]


# Misuse

SOURCE = {"run": lambda self: None, "start": lambda self: self.stop() or self.loop.add_callback(self.run)}
PARTS = {
    "source": ("Source", SOURCE),
    "sink": ("Sink", {"update": lambda self, x, who=None, metadata=None: None}),
    "transform": ("Stream", {"update": lambda self, x, who=None, metadata=None: self._emit(x, metadata=metadata)}),
}
#: What is left out so that one of the others is called.
OTHERS = {"source": {"run": ..., "start": ...}, "sink": {}, "transform": {}}
UPDATE = "update(x, who=None, metadata=None)"
BASES = pytest.mark.parametrize("base", [streamz, compat], ids=["library", "ours"])


async def asynchronous_generator(self, *_, **__):
    """What nobody awaits."""
    yield


def raising(self, *_, **__):
    raise OSError("mine")


def giving(value):
    return lambda self, *_, **__: value


def part(base, kind, **methods):
    """A class that works, but for these methods."""
    name, working = PARTS[kind]
    given = {name: method for name, method in {**working, **methods}.items() if method is not ...}
    return type("Part", (getattr(base, name),), given)


def used(thing, kind):
    if kind == "source":
        return rows(thing, columns=ONE)
    if kind == "sink":
        return write(thing, [1], columns=ONE)
    return list(as_transform(thing)([1]))


def told(work, *arguments):
    with pytest.raises(Misuse) as caught:
        work(*arguments)
    return str(caught.value)


@BASES
@pytest.mark.parametrize(("kind", "result"), [("source", []), ("sink", None), ("transform", [1])])
def test_parts_that_work(base, kind, result):
    check_class(part(base, kind), kind)
    assert used(part(base, kind), kind) == result


@BASES
@pytest.mark.parametrize(
    ("kind", "method", "call"),
    [
        *(("source", method, f"{method}(self)") for method in ("run", "_run", "start", "stop")),
        ("sink", "update", "update(self, x, who=None, metadata=None)"),
        ("transform", "update", "update(self, x, who=None, metadata=None)"),
    ],
)
def test_methods_that_cannot_be_called(base, kind, method, call):
    wrongs = {
        lambda self, one, two: 3: f"(self, one, two) cannot be called as it is; expected {call}",
        3: f" is 3 (int); expected a method {call}",
    }
    for given, expected in wrongs.items():
        wrong = part(base, kind, **{method: given})
        for work in (used, check_class):
            assert told(work, wrong, kind) == f"Part.{method}{expected}"


@BASES
@pytest.mark.parametrize(
    ("kind", "missing"), [("source", "run() or _run(); a Streamz source"), ("sink", f"{UPDATE}; a Streamz sink")]
)
def test_methods_that_are_missing(base, kind, missing):
    wrong = part(base, kind, **dict.fromkeys(PARTS[kind][1], ...))
    assert told(used, wrong, kind) == told(check_class, wrong, kind) == f"Part has no {missing} must"


RUN = "None, or something to await"
AWAIT = "something to await, as async def _run(self) gives"
RESULTS = "None, something to await, or a list of such"
RETURNED = [
    ("source", "run", giving(3), "3 (int)", RUN),
    ("source", "run", asynchronous_generator, "<async_generator .*> (async_generator)", RUN),
    ("source", "run", lambda self: (yield), "<generator .*> (generator)", RUN),
    ("source", "_run", giving(None), "None", AWAIT),
    ("source", "_run", giving(3), "3 (int)", AWAIT),
    *(
        (kind, "update", gives, shown, RESULTS)
        for kind in ("sink", "transform")
        for gives, shown in [
            (giving(3), "3 (int)"),
            (giving([1]), "1 (int)"),
            (asynchronous_generator, "<async_generator .*> (async_generator)"),
            (lambda self, x, who=None, metadata=None: (yield), "<generator .*> (generator)"),
        ]
    ),
]


@BASES
@pytest.mark.parametrize(("kind", "method", "gives", "shown", "expected"), RETURNED)
def test_methods_that_return_what_they_must_not(base, kind, method, gives, shown, expected):
    wrong = part(base, kind, **{**OTHERS[kind], method: gives})
    sentence = re.escape(f"Part.{method}() returned {shown}; expected {expected}").replace(r"\.\*", ".*")
    assert re.fullmatch(sentence, told(used, wrong, kind))


@BASES
@pytest.mark.parametrize(
    ("kind", "method"),
    [("source", "run"), ("source", "_run"), ("source", "start"), ("sink", "update"), ("transform", "update")],
)
def test_what_methods_raise_is_raised(base, kind, method):
    with pytest.raises(OSError, match=r"^mine$"):
        used(part(base, kind, **{**OTHERS[kind], method: raising}), kind)


@BASES
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("source", "does not call super().__init__(**kwargs); expected it to"),
        ("sink", "has not told super().__init__() its upstream; expected super().__init__(upstream, **kwargs)"),
        ("transform", "has not told super().__init__() its upstream; expected super().__init__(upstream, **kwargs)"),
    ],
)
def test_constructors_that_do_not_call_that_of_their_base(base, kind, expected):
    wrong = part(base, kind, __init__=lambda self, upstream=None, **kwargs: None)
    assert told(used, wrong, kind) == f"Part.__init__() {expected}"


def test_classes_that_are_abstract():
    wrong = type("Abstract", (part(compat, "sink"), ABC), {"url": abstractmethod(giving(3))})
    assert told(used, wrong, "sink") == "Abstract is abstract; expected a class that defines url()"


NAMES = {
    "two packages": ["[streamz.sources]\nxcount = streamz_x:Count", "[streamz.sources]\nxcount = streamz_x:Count"],
    "two groups": ["[streamz.sources]\nxcount = streamz_x:Count\n[streamz.sinks]\nxcount = streamz_x:Keep"],
    "a name of the library": ["[streamz.nodes]\nmap = streamz_x:Count"],
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_names_that_are_alike_do_not_break_the_library(tmp_path, names):
    for number, text in enumerate(names):
        info = tmp_path / f"sx{number}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: sx{number}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"{text}\n")
    program = f"""
import sys, warnings
import couatl
sys.path.insert(0, {str(tmp_path)!r})
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    from streamz import Stream
assert sum("from streamz_x: name collision" in str(warning.message) for warning in warned) == 1, warned
assert Stream().map(str)
"""
    run = subprocess.run([sys.executable, "-c", program], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_roles():
    with pytest.raises(TypeError, match=r"RepeatNode is no streamz.Source; a source must be derived from it"):
        as_source(RepeatNode, {}, ONE)
    with pytest.raises(TypeError, match=r"Count is a streamz.Source; a sink must be derived from streamz.Sink"):
        as_sink(Count, {}, ONE)
    with pytest.raises(TypeError, match=r"Count is a streamz.Source; a transform must be another streamz.Stream"):
        as_transform(Count)
    with pytest.raises(TypeError, match=r"int is no streamz.Stream; a source must be derived from one"):
        as_source(3, {}, ONE)


def test_an_instance_takes_no_options_and_is_started_by_the_query():
    with pytest.raises(TypeError, match=r"from_iterable has been made, and takes no options; got 'n'"):
        as_source(streamz.Stream.from_iterable([1]), {"n": 1}, ONE)
    source = streamz.Stream.from_iterable([1])
    source.stopped = False
    with pytest.raises(TypeError, match=r"from_iterable has been started; leave that to the query"):
        as_source(source, {}, ONE)


def test_a_transform_needs_a_stream_in_front_of_it():
    with pytest.raises(TypeError, match=r"Stream has no stream in front of it; expected one that rows can be emitted"):
        list(as_transform(streamz.Stream())([1]))
