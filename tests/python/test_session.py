"""The engine in a Python program."""

import _thread
import dataclasses
import datetime
import doctest
import functools
import re
import subprocess
import sys
import textwrap
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import couatl
import couatl.session
import pandas
import polars
import pyarrow
import pytest
from couatl import exceptions
from couatl._errors import Misuse
from couatl.sources import Source
from harness import wait_until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def session():
    return couatl.Session()


def running(session):
    return session.sql("SELECT count(*) AS n FROM system.queries").to_arrow().to_pydict()["n"][0]


@pytest.fixture
def ticks(session):
    """An endless stream, and what is told when its generator has ended."""
    ended = threading.Event()

    @session.source("n int64", mode="streaming")
    def ticks():
        try:
            n = 0
            while True:
                yield n
                n += 1
                ended.wait(0.001)
        finally:
            ended.set()

    return ended


@pytest.mark.parametrize("module", [couatl.session, exceptions])
def test_examples_run(module):
    found = doctest.testmod(module)
    assert found.attempted > 0 and found.failed == 0


@pytest.mark.parametrize(
    ("page", "first", "behind", "count"),
    [("README.md", "## In a program", "## Where", 1), ("docs/embedding.md", "## In Python", "## In Rust", 3)],
)
def test_the_examples_of_the_pages(page, first, behind, count, capsys):
    section = (ROOT / page).read_text().split(first)[1].split(behind)[0]
    examples = re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```\n", section, flags=re.MULTILINE | re.DOTALL)
    assert section.count("```") == 4 * len(examples) == 4 * count
    names = {"__name__": "example"}
    for code, printed in examples:
        exec(code, names)
        assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("take", "kind"),
    [
        (lambda result: result.to_arrow(), pyarrow.Table),
        (lambda result: result.to_pandas(), pandas.DataFrame),
        (lambda result: result.to_polars(), polars.DataFrame),
        (polars.DataFrame, polars.DataFrame),
        (pyarrow.table, pyarrow.Table),
        (lambda result: pyarrow.RecordBatchReader.from_stream(result).read_all(), pyarrow.Table),
        (lambda result: pyarrow.Table.from_batches(list(result)), pyarrow.Table),
    ],
)
def test_rows_go_to_whatever_speaks_arrow(session, take, kind):
    taken = take(session.sql("SELECT * FROM (VALUES (1, 'a'), (2, NULL)) AS t (n, s) ORDER BY n"))
    assert isinstance(taken, kind)
    assert taken.shape == (2, 2)


def test_rows_come_as_they_are_yielded(session, ticks):
    batches = iter(session.sql("SELECT n FROM ticks"))
    assert next(batches).column(0).to_pylist()[0] == 0
    assert next(batches).num_rows > 0
    batches.close()
    assert ticks.wait(5)
    wait_until(lambda: running(session) == 0, "the end of the query")


def test_a_result_that_is_let_go_of_is_cancelled(session, ticks):
    with session.sql("SELECT n FROM ticks") as result:
        assert "not taken yet" in repr(result)
    wait_until(lambda: running(session) == 0, "the end of the query")
    del result


def test_rows_are_taken_once(session):
    result = session.sql("SELECT 1 AS n")
    assert result.to_arrow().num_rows == 1
    with pytest.raises(exceptions.InterfaceError, match="have been taken already"):
        result.to_arrow()
    with pytest.raises(exceptions.InterfaceError, match="the statement gives none"):
        session.sql("CREATE TABLE t (n INT)").to_arrow()
    assert session.sql("INSERT INTO t VALUES (1), (2)").count == 2


def test_ctrl_c_cancels(session, ticks):
    threading.Timer(0.2, _thread.interrupt_main).start()
    with pytest.raises(KeyboardInterrupt):
        session.sql("SELECT n FROM ticks WHERE n < 0").to_arrow()
    assert ticks.wait(5)
    wait_until(lambda: running(session) == 0, "the end of the query")


class Own(Exception):
    pass


def test_what_a_function_raises_is_raised_as_itself(session):
    raised = Own("mine")

    @session.source("n int64")
    def failing():
        yield 1
        raise raised

    with pytest.raises(Own) as caught:
        session.sql("SELECT n FROM failing").to_arrow()
    assert caught.value is raised
    with pytest.raises(Own):
        session.sql("CREATE TABLE t AS SELECT n FROM failing")


ERRORS = {
    "SELECT * FROM nowhere": (exceptions.ProgrammingError, "not-found"),
    "SELEC 1": (exceptions.ProgrammingError, "invalid-syntax"),
    "SELECT n FROM unfit": (exceptions.DataError, "type-mismatch"),
    "KILL QUERY 'x'": (exceptions.ProgrammingError, "not-found"),
}


@pytest.mark.parametrize("sql", ERRORS)
def test_errors_have_their_class_and_kind(session, sql):
    session.source("n int8", name="unfit")(lambda: [1000])
    kind = ERRORS[sql]
    with pytest.raises(exceptions.Error) as caught:
        session.sql(sql).to_arrow()
    assert (type(caught.value), caught.value.kind) == kind


@dataclasses.dataclass
class Reading:
    at: datetime.datetime
    id: uuid.UUID
    tags: list[str]
    value: float | None


class Pair(NamedTuple):
    n: int
    word: str


def test_columns_from_annotations(session):
    made = Reading(datetime.datetime(2026, 1, 2), uuid.UUID(int=1), ["a"], None)

    @session.source()
    def readings() -> Iterator[Reading]:
        yield made
        yield [made, made]

    @session.source(mode="batch")
    def pairs() -> list[Pair]:
        return [Pair(1, "one"), Pair(2, "two")]

    described = session.sql("DESCRIBE readings").to_arrow().to_pylist()
    assert [(row["data_type"], row["is_nullable"]) for row in described] == [
        ("timestamp", "NO"),
        ("uuid", "NO"),
        ("array(string)", "NO"),
        ("float64", "YES"),
    ]
    assert (
        session.sql("SELECT at, tags, value FROM readings").to_arrow().to_pylist()
        == [{"at": made.at, "tags": ["a"], "value": None}] * 3
    )
    assert session.sql("SELECT word FROM pairs WHERE n = 2").to_arrow().to_pydict() == {"word": ["two"]}
    with pytest.raises(Misuse, match=r"nothing: expected columns, as in"):

        @session.source()
        def nothing():
            return []


def test_a_stream_that_is_made_again_replaces(session):
    for number in range(3):
        session.source("n int64", name="again")(lambda number=number: [number])
        assert session.sql("SELECT n FROM again").to_arrow().to_pydict() == {"n": [number]}
    session.sql("CREATE TABLE taken (n INT)")
    with pytest.raises(exceptions.ProgrammingError, match="exists already"):
        session.source("n int64", name="taken")(lambda: [])
    with pytest.raises(exceptions.ProgrammingError, match="mode must be"):
        session.source("n int64", name="other", mode="never")(lambda: [])


def test_classes_and_sinks(session):
    got = []

    @session.source("n int64, part string")
    class Parts(Source):
        def partitions(self):
            return ["a", "b"]

        def open(self, partition, state):
            yield from ((n, partition) for n in range(2))

    @session.sink("n int64, part string")
    def kept(n, part):
        got.extend(zip(n, part))

    assert session.sql('INSERT INTO kept SELECT n, part FROM "Parts"').count == 4
    assert sorted(got) == [(0, "a"), (0, "b"), (1, "a"), (1, "b")]


def test_threads_share_a_session(session):
    session.source("n int64", name="shared", mode="batch")(lambda: range(1000) and list(range(1000)))
    sums = []

    def ask():
        sums.append(session.sql("SELECT sum(n) AS s FROM shared").to_arrow().to_pydict()["s"][0])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sums == [499500] * 8


def test_a_notebook_shows_the_first_rows(session):
    shown = session.sql("SELECT value AS n, '<b>' AS s FROM generate_series(1, 50)")._repr_html_()
    assert shown.count("<tr>") == 21 and "&lt;b&gt;" in shown and "the first 20 rows" in shown
    assert "written" in session.sql("CREATE TABLE t (n INT); INSERT INTO t VALUES (1)")._repr_html_()


@pytest.mark.parametrize("rows", [0, 5, 20, 21, 30000])
def test_what_a_notebook_shows_can_be_taken(session, rows):
    result = session.sql(f"SELECT value AS n FROM generate_series(1, {rows}) ORDER BY n")
    shown = result._repr_html_()
    assert result._repr_html_() == shown and shown.count("<tr>") == 1 + min(rows, 20)
    assert ("the first 20 rows" in shown) is (rows > 20)
    assert result.to_arrow().to_pydict() == {"n": list(range(1, rows + 1))}
    assert result._repr_html_() == "&lt;couatl.Result&gt;"


def test_a_stream_that_a_notebook_shows_goes_on_until_it_is_closed(session, ticks):
    with session.sql("SELECT n FROM ticks") as result:
        result._repr_html_()
        batches = iter(result)
        taken = []
        while len(taken) < 100:
            taken += next(batches).column(0).to_pylist()
        assert taken == list(range(len(taken)))
        batches.close()
    other = session.sql("SELECT n FROM ticks")
    other._repr_html_()
    assert running(session) == 1
    other.close()
    wait_until(lambda: running(session) == 0, "the end of the query")


def test_a_result_that_fails_while_a_notebook_shows_it_gives_no_part_of_itself(session):
    @session.source("n int64", mode="streaming")
    def failing():
        yield [1, 2]
        raise ValueError("broken")

    result = session.sql("SELECT n FROM failing")
    with pytest.raises(ValueError, match="broken"):
        result._repr_html_()
    with pytest.raises(exceptions.InterfaceError, match="have been taken already"):
        result.to_arrow()


def test_a_program_ends_while_a_query_runs():
    program = """
    import couatl, threading

    session = couatl.Session()

    @session.source("n int64", mode="streaming")
    def ticks():
        while True:
            yield 1

    batches = iter(session.sql("SELECT n FROM ticks"))
    next(batches)
    threading.Thread(target=lambda: list(batches), daemon=True).start()
    print("ends")
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, "ends\n"), done.stderr


def test_decorators_need_no_parentheses():
    session = couatl.Session()

    class Square(NamedTuple):
        n: int

    @session.source
    def squares() -> Iterator[Square]:
        yield Square(4)

    kept = []

    @session.sink
    def keep(n: list[int]):
        kept.extend(n)

    @session.function
    def half(n: int) -> int:
        return n // 2

    session.sql("INSERT INTO keep SELECT half(n) FROM squares")
    assert kept == [2] and half(4) == 2
    with pytest.raises(Misuse, match="untold: "):

        @session.source
        def untold(): ...


@pytest.mark.parametrize("make", ["source", "sink"])
def test_what_has_no_name_is_given_one(session, make):
    nameless = functools.partial(lambda *lists: [8])
    expected = r"^expected name='…' beside functools\.partial\(.*\), which has no name of its own$"
    with pytest.raises(Misuse, match=expected):
        getattr(session, make)("n int64")(nameless)
    getattr(session, make)("n int64", name="named")(nameless)
    sql = {"source": "SELECT n FROM named", "sink": "INSERT INTO named VALUES (1)"}[make]
    result = session.sql(sql)
    assert result.count == 1 if make == "sink" else result.to_arrow().to_pydict() == {"n": [8]}
    if make == "source":
        with pytest.raises(Misuse, match=r"^other: expected columns, as in"):
            session.source(name="other")(nameless)


def test_an_instance_with_a_schema_needs_a_name_alone(session):
    class Numbers(Source):
        def __init__(self, only):
            self.only = only

        def schema(self):
            return "n int64"

        def open(self, partition, state):
            return iter([self.only])

    session.source(name="numbers")(Numbers(3))
    assert session.sql("SELECT n FROM numbers").to_arrow().to_pydict() == {"n": [3]}


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (None, "Bad.schema() returned None; expected columns, as in"),
        (3, "Bad.schema() returned 3 (int); expected columns, as in"),
        ("n int65", "Bad.schema() returned 'n int65' (str); expected columns, as in \"tick int64, label string\" ("),
    ],
)
def test_a_schema_that_is_none(session, schema, said):
    bad = type("Bad", (Source,), {"schema": lambda self: schema})
    with pytest.raises(Misuse, match=f"^{re.escape(said)}"):
        session.source()(bad)


def test_a_class_with_a_schema_needs_no_columns():
    session = couatl.Session()

    @session.source()
    class Numbers(Source):
        def schema(self):
            return "n int64"

        def open(self, partition, state):
            return iter([1, 2])

    assert session.sql('SELECT n FROM "Numbers"').to_arrow().to_pydict() == {"n": [1, 2]}
