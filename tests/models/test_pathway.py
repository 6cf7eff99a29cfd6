"""Pathway's connector subjects and observers, against its own engine on the same input."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
import typing
from datetime import timedelta

import pytest
from couatl import testing
from couatl._columns import Columns
from couatl._reading import reading
from couatl.compat import pathway as ours

pw = pytest.importorskip("pathway")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from misuse import ALL, ERRORS, all_but, misused  # noqa: E402

theirs = pw.io.python
BOTH = pytest.mark.parametrize("lib", [theirs, ours], ids=["library", "ours"])


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="pathway_engine")
    pw.internals.parse_graph.G.clear()


def engine(subject, schema=None, **given):
    """The rows that Pathway's engine reads of a subject, in any order, and the error."""
    rows = []
    try:
        table = theirs.read(subject, schema=schema, **given)
        pw.io.subscribe(table, on_change=lambda key, row, time, is_addition: rows.append(row))
        pw.run(monitoring_level=pw.MonitoringLevel.NONE)
    except BaseException as error:
        return rows, error
    return rows, None


def subject(lib, body, log=None):
    """A subject whose ``run`` is this."""

    class Subject(lib.ConnectorSubject):
        def run(self):
            body(self)

        def on_stop(self):
            if log is not None:
                log.append("stop")

    return Subject()


def named(rows, *names):
    """Rows by column name."""
    return [row if isinstance(row, dict) else dict(zip(names, row)) for row in rows]


def comparable(rows):
    return sorted(json.dumps(row, sort_keys=True, default=lambda of: getattr(of, "item", of.__str__)()) for row in rows)


class Pet(pw.Schema):
    a: int
    b: str = pw.column_definition(default_value="none")


class OurPet(ours.Schema):
    a: int
    b: str = ours.column_definition(default_value="none")


BODIES: dict[str, typing.Callable[[typing.Any], None]] = {
    "next": lambda s: [s.next(a=n, b=f"x{n}") for n in range(4)],
    "a default, and what is no column": lambda s: [s.next(a=1), s.next(a=2, b="x", c=3)],
    "next_json": lambda s: s.next_json({"a": 1, "b": "ü"}),
    "text without a column for it": lambda s: [s.next_str('{"a": 1, "b": "ü"}'), s.next_bytes(b'{"a": 2}')],
    "commits": lambda s: [s.next(a=1), s.commit(), s.next(a=2), s.commit(), s.commit()],
    "rows after the end": lambda s: [s.next(a=1), s.close(), s.next(a=2), s.close()],
    "nothing": lambda s: None,
    "numpy": lambda s: s.next(a=np.int64(3), b=str(np.str_("x"))),
}


class TestRows:
    @BOTH
    @pytest.mark.parametrize("schema", [Pet, OurPet], ids=["library's schema", "our schema"])
    @pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
    def test_are_what_the_engine_reads(self, lib, schema, body):
        expected, error = engine(subject(theirs, body), Pet)
        assert error is None
        rows = testing.rows(subject(lib, body), schema=schema)
        assert all(len(row) == 2 for row in rows)
        assert comparable(named(rows, "a", "b")) == comparable(expected)

    @BOTH
    def test_come_in_their_order(self, lib):
        body = BODIES["next"]
        columns = Columns(["b", "a"], ["string", "int64"])
        assert testing.rows(subject(lib, body), columns=columns) == [(f"x{n}", n) for n in range(4)]
        # Where nobody says which columns there are, by name.
        assert testing.rows(subject(lib, body)) == [{"a": n, "b": f"x{n}"} for n in range(4)]

    @BOTH
    def test_lack_a_value_for_the_engine_to_miss(self, lib):
        # There, such a row is dropped with a line in the log.
        rows = testing.rows(subject(lib, lambda s: s.next(b="x")), schema=Pet)
        assert rows == [{"b": "x"}]
        with pytest.raises(ValueError, match=r"Subject.next\(\): expected values for a, got \{'z': 1\}"):
            testing.rows(subject(lib, lambda s: s.next(z=1)), columns={"a": "int64"})

    @BOTH
    def test_have_the_types_of_the_schema(self, lib):
        class Types(pw.Schema):
            j: pw.Json
            f: float
            of: list[int]
            maybe: int | None
            at: pw.DateTimeUtc
            t: tuple[int, str]

        def body(s):
            at = pd.Timestamp("2025-01-31T10:00:00.123456789Z")
            s.next(j={"x": 1}, f=1, of=[1, 2], maybe=None, at=at, t=(1, "a"))
            s.next(j=pw.Json(["s", {"in": pw.Json(1)}]), f=2.5, of=(3,), maybe=4, at=at, t=(2, "b"))
            s.next(j="text", f=2.5, of=[], maybe=5, at=at, t=(3, "c"))

        expected, error = engine(subject(theirs, body), Types)
        assert error is None
        found = named(testing.rows(subject(lib, body), schema=Types), *Types.typehints())
        for row in found:
            row.update(j=json.loads(row["j"]), f=float(row["f"]))
        for row in expected:
            row["j"] = json.loads(pw.Json.dumps(row["j"]))
        assert comparable(found) == comparable(expected)

    @BOTH
    def test_of_an_only_column_are_its_value(self, lib):
        rows = testing.rows(subject(lib, lambda s: s.next(j={"x": 1})), columns={"j": "json"})
        assert rows == [('{"x": 1}',)]
        # In a column that only the statement declares, text is JSON already.
        rows = testing.rows(subject(lib, lambda s: [s.next(j="[1]"), s.next(j=2)]), columns={"j": "json"})
        assert rows == [("[1]",), ("2",)]

    @BOTH
    def test_may_come_from_other_threads(self, lib):
        class Client:
            """A library's own loop, which answers when it is disconnected."""

            def __init__(self, subject):
                self.subject = subject
                self.connected = threading.Event()

            def on_response(self, n):
                self.subject.next(key=n, text=str(n))

            def sample(self):
                threads = [threading.Thread(target=self.on_response, args=[n]) for n in range(5)]
                for thread in threads:
                    thread.start()
                self.connected.wait(10)

            def disconnect(self):
                self.connected.set()

        class Subject(lib.ConnectorSubject):
            def __init__(self):
                super().__init__()
                self.client = Client(self)

            def run(self):
                self.client.sample()

            def on_stop(self):
                self.client.disconnect()

        start = time.monotonic()
        rows = testing.rows(Subject, columns={"key": "int64", "text": "string"}, limit=5)
        assert sorted(rows) == [(n, str(n)) for n in range(5)]
        assert time.monotonic() - start < 3


class TestText:
    """``next_str`` and ``next_bytes``: what the documentation says of the column data, and what the engine does."""

    @BOTH
    @pytest.mark.parametrize(("kind", "wanted"), [("string", "hello"), ("binary", b"hello"), ("varchar", "hello")])
    def test_goes_to_the_column_data(self, lib, kind, wanted):
        body = lambda s: [s.next_str("hello"), s.next_bytes(b"hello")]  # noqa: E731
        assert testing.rows(subject(lib, body), columns={"data": kind}) == [(wanted,)] * 2

    @BOTH
    def test_is_as_it_is_where_nothing_is_declared(self, lib):
        body = lambda s: [s.next_str("hello"), s.next_bytes(b"hello")]  # noqa: E731
        assert testing.rows(subject(lib, body)) == [{"data": "hello"}, {"data": b"hello"}]

    @BOTH
    @pytest.mark.parametrize("format", ["raw", "binary"])
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_has_the_format_that_was_asked_for(self, lib, format):
        def body(s):
            s.next_str("ü")
            s.next_bytes("ü".encode())
            s.next_json({"a": "ü"})

        expected, error = engine(subject(theirs, body), format=format)
        assert error is None
        source = ours.as_source(subject(lib, body), {"format": format}, None)
        assert source.schema() == ("data string NOT NULL" if format == "raw" else "data binary NOT NULL")
        rows = named(testing.rows(subject(lib, body), format=format), "data")
        assert comparable(rows) == comparable(expected)

    @BOTH
    @pytest.mark.parametrize(
        ("body", "sentence"),
        [
            (
                lambda s: s.next_str("hello"),
                "next_str(): expected the text of a JSON object by column name, as there is",
            ),
            (
                lambda s: s.next_bytes(b"[1]"),
                "next_bytes(): expected the text of a JSON object by column name, as there",
            ),
            (lambda s: s.next_str(b"x"), "next_str(): expected str, got b'x' (bytes)"),
            (lambda s: s.next_bytes("x"), "next_bytes(): expected bytes, got 'x' (str)"),
            (lambda s: s.next_json([1]), "next_json(): expected a JSON object by column name, got [1] (list)"),
        ],
    )
    def test_misuse_is_a_sentence(self, lib, body, sentence):
        with pytest.raises((TypeError, ValueError)) as raised:
            testing.rows(subject(lib, body), columns={"a": "int64"})
        assert f"Subject.{sentence}" in str(raised.value)


class TestTheEnd:
    @BOTH
    def test_is_that_of_run(self, lib):
        log = []
        assert testing.rows(subject(lib, lambda s: s.next(a=1), log)) == [{"a": 1}]
        assert log == ["stop"]

    @BOTH
    def test_after_an_error_comes_after_the_rows_before(self, lib):
        oops = ValueError("oops")

        def body(s):
            s.next(a=1)
            s.next(a=2)
            raise oops

        log = []
        expected, error = engine(subject(theirs, body, log), Pet)
        # There, it depends on the moment whether any rows come before the error.
        assert (error, log) == (oops, ["stop"])
        log.clear()
        pull = reading(subject(lib, body, log), {"schema": Pet}).open("")
        rows = []
        with pytest.raises(ValueError, match="oops") as raised:
            for batch in pull:
                rows += batch
        assert raised.value is oops
        # It is stopped on its own thread, before the error gets here.
        assert log == ["stop"]
        pull.close()
        assert (rows, log) == ([(1, "none"), (2, "none")], ["stop"])
        assert all(row in named(rows, "a", "b") for row in expected)

    @BOTH
    def test_of_on_stop_may_fail(self, lib):
        class Subject(lib.ConnectorSubject):
            def run(self):
                self.next(a=1)

            def on_stop(self):
                raise OSError("no stop")

        with pytest.raises(OSError, match="no stop"):
            testing.rows(Subject)

    @BOTH
    def test_of_on_stop_does_not_hide_that_of_run(self, lib):
        class Subject(lib.ConnectorSubject):
            def run(self):
                raise KeyError("boom")

            def on_stop(self):
                raise OSError("no stop")

        with pytest.raises(KeyError, match="boom"):
            testing.rows(Subject)

    @BOTH
    @pytest.mark.parametrize("how", ["waits", "pushes"])
    def test_of_the_query_stops_the_subject_once(self, lib, how):
        log, go = [], threading.Event()

        class Subject(lib.ConnectorSubject):
            def run(self):
                n = 0
                while how == "pushes" or n == 0:
                    self.next(a=n)
                    n += 1
                go.wait(10)
                log.append("ran")

            def on_stop(self):
                log.append("stop")
                go.set()

        start = time.monotonic()
        assert testing.rows(Subject, limit=1) == [{"a": 0}]
        assert log == (["stop", "ran"] if how == "waits" else ["stop"])
        assert time.monotonic() - start < 3

    @BOTH
    def test_comes_when_a_cancel_does(self, lib):
        log, running = [], threading.Event()

        def body(s):
            running.set()
            while not log:
                time.sleep(0.005)

        pull = reading(subject(lib, body, log), {}).open("")
        threading.Thread(target=lambda: (running.wait(), pull.cancel())).start()
        assert list(pull) == []
        pull.close()
        assert log == ["stop"]

    @BOTH
    def test_is_not_that_of_run_where_the_subject_says_so(self, lib):
        class Server(lib.ConnectorSubject):
            def run(self):
                threading.Timer(0.03, self.answer).start()

            def answer(self):
                self.next(a=1)
                self.close()

            def _is_finite(self):
                return False

        assert testing.rows(Server) == [{"a": 1}]


class TestOptions:
    @BOTH
    def test_of_the_constructor_and_of_the_library(self, lib):
        class Subject(lib.ConnectorSubject):
            def __init__(self, count: int, format: str):
                super().__init__()
                self.count, self.own = count, format

            def run(self):
                for n in range(self.count):
                    self.next(a=n, b=self.own)

        rows = testing.rows(Subject, count="2", format="mine", max_backlog_size="1", autocommit_duration_ms=100)
        assert rows == [{"a": 0, "b": "mine"}, {"a": 1, "b": "mine"}]

    @BOTH
    def test_bound_what_waits(self, lib):
        reached, go_on = [], threading.Event()

        def body(s):
            for n in range(3):
                s.next(a=n)
                reached.append(n)
                go_on.set()

        pull = reading(subject(lib, body), {"max_backlog_size": 1}).open("")
        assert go_on.wait(2)
        time.sleep(0.02)
        assert reached == [0]
        assert [row["a"] for batch in pull for row in batch] == [0, 1, 2]
        pull.close()

    @BOTH
    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"format": "csv"}, "Subject: option 'format': expected one of 'json', 'raw', 'binary', got 'csv' (str)"),
            (
                {"max_backlog_size": "many"},
                "Subject: option 'max_backlog_size': expected an integer or none, got 'many'",
            ),
            (
                {"max_backlog_size": 0},
                "Subject: option 'max_backlog_size': expected a number of rows above zero, got 0",
            ),
            ({"schema": "Nothing"}, "Subject: option 'schema': expected a Schema, got 'Nothing' (str)"),
            ({"count": 1}, "count"),
        ],
    )
    def test_that_do_not_fit(self, lib, options, sentence):
        with pytest.raises((TypeError, ValueError)) as raised:
            testing.rows(type(subject(lib, print)), **options)
        assert sentence in str(raised.value)

    @BOTH
    def test_name_a_schema(self, lib):
        assert testing.rows(subject(lib, lambda s: s.next(a=1)), schema="OurPet") == [(1, "none")]

    @BOTH
    def test_may_be_an_attribute(self, lib):
        class Subject(lib.ConnectorSubject):
            schema = Pet

            def run(self):
                self.next(a=1)

        assert ours.as_source(Subject, {}, None).schema() == "a int64 NOT NULL, b string NOT NULL"
        assert testing.rows(Subject) == [(1, "none")]


class TestWhatOnlyGrows:
    @BOTH
    @pytest.mark.parametrize(
        "body",
        [
            lambda s: s.delete(a=1),
            lambda s: s._remove(None, b'{"a": 1}'),
            lambda s: s._buffer.put((theirs.PythonConnectorEventType.DELETE, None, {"a": 1})),
        ],
        ids=["delete", "_remove", "the queue"],
    )
    def test_has_no_row_removed(self, lib, body):
        with pytest.raises(
            NotImplementedError, match="Subject removes a row, and a stream only grows; send a row that"
        ):
            testing.rows(subject(lib, lambda s: [s.next(a=1), body(s)]))

    @BOTH
    def test_has_no_row_replaced(self, lib):
        class Subject(lib.ConnectorSubject):
            def run(self):
                self.next(a=1)

        for thing, options in [(Subject, {"session_type": "upsert"}), (Subject(session_type="upsert"), {})]:
            with pytest.raises(NotImplementedError, match="Subject: session_type 'upsert' replaces rows, and a stream"):
                testing.rows(thing, **options)

    @BOTH
    def test_has_a_row_for_each_that_is_sent_with_the_same_key(self, lib):
        class Keyed(pw.Schema):
            k: int = pw.column_definition(primary_key=True)
            v: str

        def body(s):
            for v in "abc":
                s.next(k=1, v=v)
                s.commit()

        expected, error = engine(subject(theirs, body), Keyed)
        assert error is None
        rows = testing.rows(subject(lib, body), schema=Keyed)
        assert comparable(named(rows, "k", "v")) == comparable(expected)


@BOTH
def test_a_subject_is_read_once(lib):
    one = subject(lib, lambda s: s.next(a=1))
    assert testing.rows(one) == [{"a": 1}]
    with pytest.raises(RuntimeError, match="Subject has been read before; name its class"):
        testing.rows(one)


@BOTH
def test_a_constructor_may_forget_its_base(lib):
    class Subject(lib.ConnectorSubject):
        def __init__(self):
            pass

        def run(self):
            self.next(a=1)
            self.commit()

    assert testing.rows(Subject) == [{"a": 1}]


@BOTH
def test_rows_may_be_sent_before_run(lib):
    class Subject(lib.ConnectorSubject):
        def __init__(self):
            super().__init__()
            self.next(a=0)

        def run(self):
            self.next(a=1)

    assert testing.rows(Subject) == [{"a": 0}, {"a": 1}]


def test_a_class_with_its_methods_alone_is_one():
    class Duck:
        def run(self):
            self.next(a=1)
            self.next_json({"a": 2})
            self.commit()
            self.close()

        def on_stop(self):
            self.stopped = True

    duck = Duck()
    assert testing.rows(duck) == [{"a": 1}, {"a": 2}]
    assert duck.stopped


def test_code_without_a_source_file_may_be_the_librarys():
    scope = {"pw": pw}
    exec("class Text(pw.io.python.ConnectorSubject):\n    def run(self):\n        self.delete(a=1)", scope)
    with pytest.raises(NotImplementedError, match="Text removes a row"):
        testing.rows(scope["Text"])


def test_what_the_query_does_is_not_to_be_called():
    one = subject(ours, print)
    with pytest.raises(RuntimeError, match=r"Subject.start\(\): the query that reads a subject runs it"):
        one.start()
    with pytest.raises(RuntimeError, match=r"Subject.end\(\): the query that reads a subject ends it"):
        one.end()


@BOTH
@misused(run=ALL, on_stop=ALL)
def test_misuse_of_a_subject(lib, method, wrong, said):
    with pytest.raises(ERRORS, match=said):
        testing.rows(type("Bad", (lib.ConnectorSubject,), {"run": lambda self: None, method: wrong}))


@BOTH
@misused(on_change=all_but("async def"), on_time_end=ALL, on_end=ALL)
def test_misuse_of_an_observer(lib, method, wrong, said):
    good = {"on_change": lambda self, **_: None, "on_end": lambda self: None}
    with pytest.raises(ERRORS, match=said):
        testing.write(type("Bad", (lib.ConnectorObserver,), {**good, method: wrong}), [1], columns={"n": "int64"})


def test_misuse_of_the_base_is_a_sentence():
    with pytest.raises(TypeError, match=r"Bad is abstract; expected a class that defines run\(\)"):
        testing.rows(type("Bad", (ours.ConnectorSubject,), {}))
    with pytest.raises(TypeError, match="positional"):
        testing.rows(subject(ours, lambda s: s.next(1)))
    with pytest.raises(ValueError, match="Subject: expected the session_type 'native', got 'all'"):
        type(subject(ours, print))(session_type="all")

    class Bad(ours.ConnectorSubject):
        async def run(self):
            pass

    with pytest.raises(TypeError, match=r"Bad.run\(\) returned .*; expected a plain method"):
        testing.rows(Bad)


class TestSchema:
    def test_is_a_column_list(self):
        class Types(pw.Schema):
            key: int = pw.column_definition(primary_key=True)
            genus: str
            maybe: int | None = pw.column_definition(default_value=7)
            at: pw.DateTimeUtc
            local: pw.DateTimeNaive
            took: pw.Duration
            j: pw.Json
            d: dict
            of: list[int | None]
            many: tuple[float, ...]
            pair: tuple[int, str]
            raw: bytes | None
            yes: bool
            id_of: pw.Pointer
            Odd: str
            renamed: str = pw.column_definition(name='with "quotes"')

        assert ours.schema_of(Types).split(", ", 1)[0] == "key int64 NOT NULL"
        assert ours.schema_of(Types) == (
            "key int64 NOT NULL, genus string NOT NULL, maybe int64, at datetime64(9, 'UTC') NOT NULL, "
            "local datetime64(9) NOT NULL, took interval NOT NULL, j json NOT NULL, d json NOT NULL, "
            "of array(nullable(int64)) NOT NULL, many array(float64) NOT NULL, pair tuple(int64, string) NOT NULL, "
            'raw binary, yes bool NOT NULL, id_of string NOT NULL, "Odd" string NOT NULL, '
            '"with ""quotes""" string NOT NULL'
        )

    def test_is_the_same_with_our_classes(self):
        class Theirs(pw.Schema):
            a: int = pw.column_definition(primary_key=True)
            b: typing.Optional[str] = pw.column_definition(default_value=None)  # noqa: UP045
            at: pw.DateTimeUtc
            local: pw.DateTimeNaive
            took: pw.Duration
            j: pw.Json

        class More(Theirs):
            c: float

        class Ours(ours.Schema):
            a: int = ours.column_definition(primary_key=True)
            b: typing.Optional[str] = ours.column_definition(default_value=None)  # noqa: UP045
            at: ours.DateTimeUtc
            local: ours.DateTimeNaive
            took: ours.Duration
            j: ours.Json

        class OursAndMore(Ours):
            c: float

        class Renamed(ours.Schema):
            a: int = ours.column_definition(name="A b")

        assert ours.schema_of(Ours) == ours.schema_of(Theirs)
        assert ours.schema_of(OursAndMore).split(", ")[0] == "a int64 NOT NULL"
        assert sorted(ours.schema_of(OursAndMore).split(", ")) == sorted(ours.schema_of(More).split(", "))
        assert ours.schema_of(Renamed) == '"A b" int64 NOT NULL'
        assert Ours.default_values() == Theirs.default_values() == {"b": None}

    @pytest.mark.parametrize("hint", [typing.Any, list, np.ndarray, pw.PyObjectWrapper, None])
    def test_refuses_what_no_column_has(self, hint):
        schema = pw.schema_from_types(a=hint)
        with pytest.raises(TypeError, match=r"\.a: .* is no type of a column; expected int, float"):
            ours.schema_of(schema)

    def test_refuses_a_default_that_is_none(self):
        class Bad(ours.Schema):
            a: int = 3

        with pytest.raises(TypeError, match=r"Bad.a: expected column_definition\(…\), got 3 \(int\)"):
            ours.schema_of(Bad)

    def test_program_that_changes_its_import(self):
        program = """
import couatl.compat.pathway as pw

class InputSchema(pw.Schema):
    key: int = pw.column_definition(primary_key=True)
    genus: str

class Cats(pw.io.python.ConnectorSubject):
    schema = InputSchema

    def run(self):
        for key, genus in [(1, "otocolobus"), (2, "felis")]:
            self.next(key=key, genus=genus)
"""
        scope = {}
        exec(program, scope)
        assert testing.rows(scope["Cats"]) == [(1, "otocolobus"), (2, "felis")]


class TestObserver:
    @staticmethod
    def observer(lib, log, fails=None):
        class Observer(lib.ConnectorObserver):
            def on_change(self, key, row, time, is_addition):
                if fails is not None:
                    raise fails
                assert is_addition
                log.append(row)

            def on_time_end(self, time):
                log.append("time")

            def on_end(self):
                log.append("end")

        return Observer()

    @BOTH
    def test_is_told_what_the_engine_tells_it(self, lib):
        rows = [{"a": n, "b": f"x{n}"} for n in range(3)]
        theirs_, ours_ = [], []
        table = theirs.read(subject(theirs, lambda s: [s.next(**row) for row in rows]), schema=Pet)
        theirs.write(table, self.observer(theirs, theirs_))
        pw.run(monitoring_level=pw.MonitoringLevel.NONE)
        testing.write(self.observer(lib, ours_), rows, columns={"a": "int64", "b": "string"})
        assert ours_ == [*rows, "time", "end"]
        assert comparable(row for row in theirs_ if isinstance(row, dict)) == comparable(rows)
        assert theirs_[-1] == "end"

    @BOTH
    def test_may_fail(self, lib):
        log, error = [], ValueError("full")
        with pytest.raises(ValueError, match="full") as raised:
            testing.write(self.observer(lib, log, error), [1], columns={"a": "int64"})
        assert (raised.value, log) == (error, [])

    def test_may_be_asynchronous(self):
        log = []

        class Observer(theirs.AsyncConnectorObserver):
            async def on_change(self, key, row, time, is_addition):
                import asyncio

                await asyncio.sleep(0)
                log.append(row["a"])

            def on_end(self):
                log.append("end")

        testing.write(Observer(), [1, 2], columns={"a": "int64"})
        assert log == [1, 2, "end"]


def test_the_library_is_not_imported():
    program = "import sys, couatl.compat.pathway; sys.exit('pathway' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_durations_are_interval_values():
    class Took(ours.Schema):
        took: ours.Duration

    took = timedelta(seconds=3)
    assert testing.rows(subject(ours, lambda s: s.next(took=took)), schema=Took) == [(took,)]
