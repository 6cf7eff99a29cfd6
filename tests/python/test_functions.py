"""CREATE FUNCTION over Flight SQL: scalar functions, aggregates, table functions, and what becomes of their Python."""

import contextlib
import datetime
import decimal
import itertools
import subprocess
import sys
import textwrap
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
import pyarrow
import pytest
from adbc_driver_flightsql import dbapi
from harness import (
    create,
    error,
    kill_group,
    noting,
    queries,
    query_running,
    rows,
    run,
    table,
    value,
    wait_for_text,
    wait_until,
    words,
)
from test_users import connect, guarded, user, users  # noqa: F401

THREE = "(VALUES (1), (NULL), (3)) AS three(n)"
FORMATS = ["list", "row", "arrow", "numpy"]

TOTAL = """
class {name}:
    def __init__(self):
        self.sum = 0

    def process(self, values):
        self.sum += sum(value for value in values if value is not None)

    def finalize(self):
        return self.sum
"""
MERGE = """
    def merge(self, other):
        self.sum += other.sum
"""
SERIALIZE = """
    def serialize(self):
        return str(self.sum).encode()

    def deserialize(self, state):
        self.sum = int(state)
"""
GATHER = """
class gather:
    def __init__(self):
        self.values = []

    def process(self, values):
        self.values += values

    def finalize(self):
        return self.values
"""
AGAIN = """
def again(rows, n):
    for row in rows:
        for number in range(n):
            yield row.a, f"{row.b}{number}"
"""


def statement(signature, body, clauses="", kind="FUNCTION"):
    body = textwrap.dedent(body).strip("\n")
    return f"CREATE OR REPLACE {kind} {signature} LANGUAGE PYTHON {clauses} AS $body$\n{body}\n$body$"


def function(connection, signature, body, clauses=""):
    """Makes a function. The body is dedented, and begins on the statement's second line."""
    run(connection, statement(signature, body, clauses))


def aggregate(connection, signature, body, clauses=""):
    run(connection, statement(signature, body, clauses, "AGGREGATE FUNCTION"))


def double(connection, name="double", clauses=""):
    """A function that gives twice what it is given, and NULL for NULL."""
    body = f"def {name}(values):\n    return [None if value is None else 2 * value for value in values]"
    function(connection, f"{name}(n int64) RETURNS int64", body, clauses)


def counting(connection, name, clauses=""):
    """A function that gives, for each value, how many there have been before it."""
    body = f"import itertools\nnumbers = itertools.count()\ndef {name}(n):\n    return [next(numbers) for _ in n]"
    function(connection, f"{name}(n int64) RETURNS int64", body, clauses)


@pytest.fixture
def few(connection):
    """A table of three rows."""
    run(connection, "CREATE OR REPLACE TABLE few (a BIGINT, b TEXT) AS VALUES (1, 'x'), (2, 'y'), (3, 'x')")
    return "few"


@pytest.fixture
def many(connection):
    """A table of many batches, and a session that reads them in parts."""
    run(connection, "SET datafusion.execution.batch_size = 500")
    run(connection, "SET datafusion.execution.target_partitions = 4")
    run(
        connection, "CREATE OR REPLACE TABLE many AS SELECT value AS a, value % 700 AS k FROM generate_series(1, 20000)"
    )
    return "many"


# Each type with a value in SQL, and what a driver gives for it.
MOMENT = datetime.datetime(2024, 2, 29, 10, 11, 12, 123456)
UUID = "0b3d53a0-6f5a-4b43-9df9-0c1fd6f0a6f9"
TYPES = {
    "bool": ("true", True),
    "int8": ("CAST(-5 AS TINYINT)", -5),
    "int32": ("CAST(-5 AS INT)", -5),
    "int64": ("9007199254740993", 9007199254740993),
    "uint64": ("18446744073709551615", 18446744073709551615),
    "float32": ("1.5", 1.5),
    "float64": ("0.1", 0.1),
    "decimal(20, 2)": ("CAST('123456789012345678.90' AS DECIMAL(20, 2))", decimal.Decimal("123456789012345678.90")),
    "string": ("'héé'", "héé"),
    "binary": ("X'0102'", b"\x01\x02"),
    "date": ("DATE '2024-02-29'", MOMENT.date()),
    "time": ("TIME '10:11:12'", datetime.time(10, 11, 12)),
    "timestamp": (f"TIMESTAMP '{MOMENT}'", MOMENT),
    "timestamptz": (f"TIMESTAMP '{MOMENT}'", MOMENT.replace(tzinfo=datetime.timezone.utc)),
    "datetime64(6, 'Asia/Tokyo')": (f"TIMESTAMP '{MOMENT}'", MOMENT.replace(tzinfo=datetime.timezone.utc)),
    "interval": ("INTERVAL '2 days 3 seconds'", pyarrow.MonthDayNano([0, 2, 3_000_000_000])),
    "uuid": (f"'{UUID}'", uuid.UUID(UUID)),
    "enum8('a' = 1, 'b' = 2)": ("'b'", "b"),
    "low_cardinality(string)": ("'x'", "x"),
    "array(int64)": ("ARRAY[1, 2]", [1, 2]),
    "array(array(string))": ("ARRAY[ARRAY['a']]", [["a"]]),
    "map(string, int64)": ("MAP {'a': 1}", [("a", 1)]),
    "tuple(a int64, b string)": ("struct(1, 'x')", {"a": 1, "b": "x"}),
}


@pytest.mark.parametrize(("form", "of"), list(itertools.product(FORMATS, TYPES)))
def test_values_come_back_as_they_went(connection, form, of):
    literal, expected = TYPES[of]
    function(connection, f"same(v {of}) RETURNS {of}", "def same(v):\n    return v", f"OPTIONS (format '{form}')")
    sql = f"SELECT same(v) FROM (VALUES (1, {literal}), (2, NULL)) AS t(i, v) ORDER BY i"
    assert table(connection, sql).column(0).to_pylist() == [expected, None]


@pytest.mark.parametrize("form", ["list", "row"])
def test_json_is_what_it_says(connection, form):
    given = "v" if form == "row" else "v[0]"
    body = f"def known(v):\n    assert {given} == {{'a': [1, None]}}, v\n    return v"
    function(connection, "known(v json) RETURNS json", body, f"OPTIONS (format '{form}')")
    assert value(connection, """SELECT known('{"a": [1, null]}')""") == '{"a":[1,null]}'


@pytest.mark.parametrize(
    ("form", "first", "second"),
    [
        ("list", "[1, None, 3]", "[1, None, 3]"),
        ("row", "1", "None"),
        ("arrow", "<Int64Array>", "<Int64Array>"),
        ("numpy", "<MaskedArray>", "<MaskedArray>"),
    ],
)
def test_a_format_says_how_values_come(connection, form, first, second):
    body = """
    def shown(n):
        kind = type(n).__name__
        text = f"<{kind}>" if kind.endswith("Array") else repr(n)
        return text if FORM == "row" else [text] * len(n)
    """
    body = f"FORM = {form!r}\n{textwrap.dedent(body)}"
    function(connection, "shown(n int64) RETURNS string", body, f"OPTIONS (format '{form}')")
    assert rows(connection, f"SELECT shown(n) FROM {THREE}")[:2] == [(first,), (second,)]


def test_integers_beside_nulls_stay_exact_in_numpy(connection):
    body = "def first(v):\n    return [int(values[0]) for values in v]"
    function(connection, "first(v array(int64)) RETURNS int64", body, "OPTIONS (format 'numpy')")
    assert value(connection, "SELECT first(ARRAY[9007199254740993, NULL])") == 9007199254740993


@pytest.mark.parametrize(
    ("clauses", "given"),
    [
        ("", [(1, "a"), (None, "b"), (3, None), (4, "d")]),
        ("CALLED ON NULL INPUT", [(1, "a"), (None, "b"), (3, None), (4, "d")]),
        ("STRICT", [(1, "a"), None, None, (4, "d")]),
        ("RETURNS NULL ON NULL INPUT", [(1, "a"), None, None, (4, "d")]),
    ],
)
@pytest.mark.parametrize("form", ["list", "row"])
def test_nulls_are_given_or_not(connection, clauses, given, form):
    body = "def pair(n, s):\n    return " + ("repr((n, s))" if form == "row" else "[repr(each) for each in zip(n, s)]")
    function(connection, "pair(n int64, s string) RETURNS string", body, f"{clauses} OPTIONS (format '{form}')")
    found = rows(connection, "SELECT pair(n, s) FROM (VALUES (1, 'a'), (NULL, 'b'), (3, NULL), (4, 'd')) AS t(n, s)")
    assert [text for (text,) in found] == [each and repr(each) for each in given]


def test_a_strict_function_is_not_called_where_all_is_null(connection):
    function(connection, "never(n int64) RETURNS int64", "def never(n):\n    raise ValueError(n)", "STRICT")
    assert (
        rows(connection, "SELECT never(n), never(NULL) AS m FROM (VALUES (NULL), (NULL)) AS t(n)") == [(None, None)] * 2
    )


def test_a_result_that_is_not_null(connection):
    function(connection, "sure(n int64) RETURNS int64 NOT NULL", "def sure(n):\n    return n")
    assert rows(connection, "SELECT sure(n) FROM (VALUES (1), (3)) AS t(n)") == [(1,), (3,)]
    found = table(connection, "SELECT sure(1) AS n")
    assert not found.schema.field(0).nullable
    message = error(connection, f"SELECT sure(n) FROM {THREE}")
    assert "function 'sure', row 2, column 'result' (int64): cannot store None: the column is NOT NULL" in message
    function(connection, "sure(n int64) RETURNS int64 NOT NULL", "def sure(n):\n    return n", "STRICT")
    assert rows(connection, f"SELECT sure(n) FROM {THREE}") == [(1,), (None,), (3,)]


@pytest.mark.parametrize(
    ("clauses", "is_called_once"),
    [
        ("", False),
        ("VOLATILE", False),
        ("NOT DETERMINISTIC", False),
        ("STABLE", True),
        ("IMMUTABLE", True),
        ("DETERMINISTIC", True),
    ],
)
def test_equal_arguments_are_one_call_where_the_function_says_so(connection, few, clauses, is_called_once):
    counting(connection, "counted", clauses)
    found = [number for (number,) in rows(connection, "SELECT counted(7) FROM few")]
    assert found == ([0, 0, 0] if is_called_once else [0, 1, 2])
    assert sorted(rows(connection, "SELECT counted(a) FROM few")) == [(0,), (1,), (2,)], (
        "rows are values, not constants"
    )


@pytest.mark.xfail(strict=True, reason="what is called with constants is taken for one")
def test_a_volatile_function_of_constants_is_sorted_by(connection, few):
    counting(connection, "counted")
    assert rows(connection, "SELECT counted(1) AS c FROM few ORDER BY c DESC") == [(2,), (1,), (0,)]


def test_a_volatile_value_is_one_value_wherever_it_is_used(connection, few):
    counting(connection, "counted")
    assert rows(connection, "SELECT c, -c AS d FROM (SELECT counted(1) AS c FROM few)") == [(0, 0), (1, -1), (2, -2)]
    assert rows(connection, "SELECT c FROM (SELECT counted(a) AS c FROM few) WHERE c > 0 AND c < 2") == [(1,)]
    assert rows(connection, "SELECT a FROM few WHERE counted(1) BETWEEN 1 AND 1") == [(2,)]
    assert sorted(
        rows(connection, "SELECT CASE counted(1) WHEN 0 THEN 'x' WHEN 1 THEN 'y' END FROM few WHERE a < 3")
    ) == [
        ("x",),
        ("y",),
    ]
    assert len(rows(connection, "SELECT count(*) FROM few GROUP BY counted(1)")) == 3


def test_a_function_without_parameters_is_called_for_each_row(connection, few):
    body = "import itertools\nnumbers = itertools.count()\ndef number():\n    return next(numbers)"
    function(connection, "number() RETURNS int64", body)
    assert rows(connection, "SELECT number(), a FROM few") == [(0, 1), (1, 2), (2, 3)]
    assert value(connection, "SELECT number()") == 0, "each query has a module of its own"
    function(connection, "number() RETURNS int64", body, "IMMUTABLE")
    assert rows(connection, "SELECT number() FROM few") == [(0,)] * 3
    refusal = error(connection, statement("number() RETURNS int64", body, "OPTIONS (format 'list')"))
    assert "a function without parameters is called for each row: leave out format, or set it to 'row'" in refusal


PLACES = {
    "SELECT a FROM few WHERE double(a) > 2": [(2,), (3,)],
    "SELECT double(a) AS d, count(*) FROM few GROUP BY double(a) ORDER BY d": [(2, 1), (4, 1), (6, 1)],
    "SELECT b FROM few GROUP BY b HAVING double(sum(a)) > 4": [("x",)],
    "SELECT a FROM few ORDER BY double(a) DESC": [(3,), (2,), (1,)],
    "SELECT l.a, r.a FROM few l JOIN few r ON double(l.a) = r.a": [(1, 2)],
    "SELECT l.a, r.a FROM few l JOIN few r ON double(l.a) > r.a + 4": [(3, 1)],
    "SELECT CASE WHEN a = 1 THEN double(a) ELSE -double(a) END FROM few": [(2,), (-4,), (-6,)],
    "SELECT abs(double(double(-a))) FROM few": [(4,), (8,), (12,)],
    "SELECT sum(double(a)) FROM few": [(12,)],
    "SELECT DISTINCT double(a / a) FROM few": [(2,)],
    "SELECT a FROM few WHERE a = (SELECT double(1))": [(2,)],
    "SELECT a FROM few WHERE a IN (SELECT double(a) FROM few)": [(2,)],
    "SELECT a FROM few WHERE EXISTS (SELECT 1 FROM few i WHERE double(i.a) = few.a)": [(2,)],
    "WITH w AS (SELECT double(a) AS d FROM few) SELECT max(d) FROM w": [(6,)],
    "SELECT double(a) FROM few UNION SELECT 1 ORDER BY 1": [(1,), (2,), (4,), (6,)],
    "SELECT double(row_number() OVER (ORDER BY a)) FROM few": [(2,), (4,), (6,)],
    "SELECT a, row_number() OVER (ORDER BY double(a) DESC) FROM few ORDER BY a": [(1, 3), (2, 2), (3, 1)],
    "SELECT double(CAST(length(b) AS INT)) FROM few": [(2,), (2,), (2,)],
    "SELECT double(CAST(a AS DECIMAL(10, 2))) FROM few WHERE double('1') = 2": [(2,), (4,), (6,)],
    'SELECT "double"(1), Double(2)': [(2, 4)],
}


@pytest.mark.parametrize("clauses", ["", "IMMUTABLE"])
def test_a_function_stands_where_expressions_do(connection, few, clauses):
    double(connection, clauses=clauses)
    for sql, expected in PLACES.items():
        assert rows(connection, sql) == expected, sql


def test_functions_in_prepared_statements(connection, few):
    double(connection)
    assert rows(connection, "SELECT double(?)", (21,)) == [(42,)]
    assert rows(connection, "SELECT a FROM few WHERE double(a + ?) = ?", (1, 6)) == [(2,)]
    run(connection, "PREPARE twice(BIGINT) AS SELECT double($1)")
    assert rows(connection, "EXECUTE twice(4)") == [(8,)]
    with connection.cursor() as cursor:
        cursor.adbc_prepare("SELECT double(?)")
        cursor.execute("SELECT double(?)", (1,))
        assert cursor.fetchall() == [(2,)]
        function(connection, "double(n int64) RETURNS int64", "def double(n):\n    return [0 for _ in n]")
        cursor.execute("SELECT double(?)", (1,))
        assert cursor.fetchall() == [(0,)], "what it means when it runs"


def test_functions_in_what_writes(connection, few, notes):
    double(connection)
    run(connection, "CREATE OR REPLACE TABLE made AS SELECT double(a) AS d FROM few")
    assert run(connection, "INSERT INTO made SELECT double(d) FROM made") == 3
    assert run(connection, "UPDATE made SET d = double(d) WHERE double(d) = 24") == 1
    assert run(connection, "DELETE FROM made WHERE double(d) = 8") == 2
    assert rows(connection, "SELECT d FROM made ORDER BY d") == [(2,), (6,), (8,), (24,)]
    body = noting(
        notes, "", "def sink(n):\n    for each in n:\n        note(str(each))\ndef read():\n    yield from [5, 6]"
    )
    create(connection, "sink", "n int64", body, read_function_name="read", write_function_name="sink")
    assert run(connection, "INSERT INTO sink SELECT double(n) FROM sink") == 2
    assert words(notes) == ["10", "12"]


@pytest.mark.parametrize("clauses", ["", "IMMUTABLE"])
def test_functions_in_values(connection, few, clauses):
    double(connection, clauses=clauses)
    assert run(connection, "INSERT INTO few VALUES (double(2), 'z')") == 1
    assert rows(connection, "SELECT a FROM few WHERE b = 'z'") == [(4,)]
    assert sorted(rows(connection, "VALUES (double(1)), (double(2))")) == [(2,), (4,)]


def test_functions_in_views(connection, few):
    double(connection, "seen")
    run(connection, "CREATE OR REPLACE VIEW doubled AS SELECT seen(a) AS d FROM few")
    assert rows(connection, "SELECT d FROM doubled WHERE d > 2") == [(4,), (6,)]
    function(connection, "seen(n int64) RETURNS int64", "def seen(n):\n    return n")
    assert rows(connection, "SELECT d FROM doubled") == [(1,), (2,), (3,)], "the one that has the name now"
    function(connection, "seen(n int64, m int64) RETURNS int64", "def seen(n, m):\n    return n")
    takes = "view 'doubled' cannot be read: function 'seen' takes 2 arguments (n int64, m int64), found 1"
    assert takes in error(connection, "SELECT d FROM doubled")
    run(connection, "DROP FUNCTION seen")
    assert "view 'doubled' cannot be read: Invalid function 'seen'" in error(connection, "SELECT d FROM doubled")
    double(connection, "seen")
    assert rows(connection, "SELECT d FROM doubled") == [(2,), (4,), (6,)]


def endless(connection, notes):
    """A stream that gives one row, and then waits until somebody takes the note `go`."""
    body = (
        "def endless():\n    yield 1\n    while 'go' not in open(PATH).read():\n        time.sleep(0.01)\n    yield 2\n"
    )
    body = noting(notes, "import time", f"PATH = {str(notes)!r}\nnote('begin')\n{body}")
    create(connection, "endless", "n int64", body, mode="streaming")


LATE = {
    "scalar": "SELECT double(n) FROM endless",
    "volatile condition": "SELECT n * 2 FROM endless WHERE double(n) > 0",
    "transform": "SELECT n FROM twice(endless)",
    "transform of a query": "SELECT n FROM twice((SELECT n FROM endless WHERE n > 0))",
    "lists": "SELECT n FROM columns(endless)",
}


@pytest.mark.parametrize("name", LATE)
def test_a_row_of_a_stream_is_answered_when_it_is_there(server, connection, notes, name):
    endless(connection, notes)
    double(connection)
    function(
        connection,
        "twice(t TABLE) RETURNS TABLE (n int64)",
        "def twice(t):\n    for row in t:\n        yield 2 * row.n",
    )
    body = "def columns(t):\n    for (n,) in t:\n        yield [2 * each for each in n]"
    function(connection, "columns(t TABLE) RETURNS TABLE (n int64)", body, "OPTIONS (format 'list')")
    with connection.cursor() as cursor:
        cursor.execute(LATE[name])
        assert cursor.fetchone() == (2,), "the stream gives its second row after this"
        with notes.open("a") as file:
            file.write("go\n")
        assert cursor.fetchone() == (4,)
        assert cursor.fetchone() is None


# Bodies of wrong(n int64) RETURNS int64, and what is said of them.
GIVES = "expected 'wrong' to give a list or an Arrow array of 1 value, one for each row, got "
WRONG = {
    "return None": GIVES + "None; OPTIONS (format 'row') calls it for each row, with one value of each column",
    "return 3": GIVES + "3 (int)",
    "return (1,)": GIVES + "(1,) (tuple)",
    "return {1: 2}": GIVES + "{1: 2} (dict)",
    "return []": "expected 'wrong' to give 1 value, one for each row, got 0",
    "return [1, 2]": "expected 'wrong' to give 1 value, one for each row, got 2",
    "return ['x']": "function 'wrong', row 1, column 'result' (int64): cannot store 'x' (str)",
    "return [1.5]": "row 1, column 'result' (int64): cannot store 1.5 (float)",
    "return [2**63]": "row 1, column 'result' (int64): cannot store 9223372036854775808 (int)",
    "import pyarrow; return pyarrow.array([1, 2])": "expected 'wrong' to give 1 value, one for each row, got 2",
    "import pyarrow; return pyarrow.array([1.5])": "cannot store 1.5 (float): no exact conversion from Arrow Float64",
    "import pyarrow; return pyarrow.table({'a': [1], 'b': [2]})": "expected one column, got 2",
    "import numpy; return numpy.array([[1]])": "expected an array of one dimension, got one of shape (1, 1)",
    "import numpy; return numpy.array([1.5])": "cannot store 1.5 (float)",
    "raise ValueError('of mine')": "'wrong' raised ValueError: of mine",
    "raise SystemExit(3)": "'wrong' raised SystemExit: 3",
    "raise StopIteration": "'wrong' raised StopIteration",
    "raise KeyboardInterrupt": "'wrong' raised KeyboardInterrupt",
    "yield 1": "is a generator (there is a yield in it)",
}


@pytest.mark.parametrize("body", WRONG)
def test_what_a_function_gives_wrongly_is_told(connection, body):
    function(connection, "wrong(n int64) RETURNS int64", f"def wrong(n):\n    {body}")
    message = error(connection, "SELECT wrong(1)")
    assert "function 'wrong'" in message
    assert WRONG[body] in message


def test_the_end_of_an_iterator_is_no_end_of_rows(connection):
    body = "def picky(n):\n    return next(iter([n] if n != 2 else []))"
    function(connection, "picky(n int64) RETURNS int64", body, "OPTIONS (format 'row')")
    message = error(connection, "SELECT picky(n) FROM (VALUES (1), (2), (3)) AS t(n)")
    assert "'picky' raised StopIteration" in message and "return next(iter(" in message
    body = body.replace("picky(n)", "choosy(n, m)")
    function(connection, "choosy(n int64, m int64) RETURNS int64", body, "OPTIONS (format 'row')")
    message = error(connection, "SELECT choosy(n, n) FROM (VALUES (1), (2), (3)) AS t(n)")
    assert "RuntimeError: the function raised StopIteration for row 2" in message


@pytest.mark.parametrize("form", ["numpy", "arrow"])
def test_months_come_back_where_python_has_no_value_for_them(connection, form):
    body = "def same(v):\n    return v"
    function(connection, "same(v interval) RETURNS interval", body, f"OPTIONS (format '{form}')")
    sql = "SELECT same(INTERVAL '1 month 2 days')"
    assert table(connection, sql).column(0).to_pylist() == [pyarrow.MonthDayNano([1, 2, 0])]
    function(connection, "plain(v interval) RETURNS interval", "def plain(v):\n    return v")
    assert "OPTIONS (format 'arrow') of a function" in error(connection, "SELECT plain(INTERVAL '1 month 2 days')")


@pytest.mark.parametrize("form", ["s", "ms", "us", "ns", "D", "h"])
def test_spans_of_numpy_are_intervals(connection, form):
    body = f"import numpy\ndef span(n):\n    return n.astype('timedelta64[{form}]')"
    function(connection, "span(n int64) RETURNS interval", body, "OPTIONS (format 'numpy')")
    nanoseconds = numpy.timedelta64(2, form).astype("timedelta64[ns]").astype(int)
    found = value(connection, "SELECT TIMESTAMP '2024-01-01' + span(n) FROM (VALUES (2)) AS t(n)")
    assert found.value - numpy.datetime64("2024-01-01", "ns").astype(int) == nanoseconds


def test_the_row_of_a_wrong_value_is_counted_from_the_first(connection):
    body = "def picky(n):\n    return 'x' if n == 20000 else n"
    function(connection, "picky(n int64) RETURNS int64", body, "OPTIONS (format 'row')")
    run(connection, "SET datafusion.execution.target_partitions = 1")
    message = error(connection, "SELECT count(picky(value)) FROM generate_series(1, 30000)")
    assert "function 'picky', row 20000, column 'result' (int64): cannot store 'x' (str)" in message


def test_a_traceback_has_the_lines_of_the_statement(connection):
    body = "def wrong(n):\n    return helper(n)\n\ndef helper(n):\n    return 1 / 0"
    function(connection, "wrong(n int64) RETURNS int64", body)
    message = error(connection, "SELECT wrong(1)")
    for line in [
        "ZeroDivisionError: division by zero",
        '"<function wrong>", line 3, in wrong',
        "line 6, in helper",
        "return 1 / 0",
    ]:
        assert line in message


# What is wrong with a call of double(n int64) or again(rows TABLE, n int32).
CALLS = {
    "SELECT double()": "function 'double' takes 1 argument (n int64), found 0",
    "SELECT double(1, 2)": "function 'double' takes 1 argument (n int64), found 2",
    "SELECT double('x')": "function 'double', argument 'n' (int64): cannot take 'x' (string)",
    "SELECT double(1.5)": "argument 'n' (int64): cannot take 1.5",
    "SELECT double(ARRAY[1])": "argument 'n' (int64): cannot take a value of array(int64); CAST it",
    "SELECT double(n) FROM (VALUES (18446744073709551615)) AS t(n)": "cannot take 18446744073709551615",
    "SELECT nosuch(1)": "Invalid function 'nosuch'",
    "SELECT * FROM nosuch(1)": "table function 'nosuch' not found",
    "SELECT * FROM again(few)": "function 'again': 'n' is missing; it takes (rows TABLE, n int32)",
    "SELECT * FROM again(few, 1, 2)": "function 'again': it takes (rows TABLE, n int32)",
    "SELECT * FROM again(few, m => 1)": "there is no parameter 'm'; it takes (rows TABLE, n int32)",
    "SELECT * FROM again(few, 1, n => 1)": "'n' is given twice",
    "SELECT * FROM again(few, 'x')": "argument 'n' (int32): cannot take 'x' (string)",
    "SELECT * FROM again(few, 3000000000)": "argument 'n' (int32): cannot take 3000000000 (int64)",
    "SELECT * FROM again(few, ARRAY[1])": "argument 'n' (int32): cannot take a value of array(int64)",
    "SELECT * FROM again(1, 1)": "expected a table, or a query in parentheses, for 'rows', found 1",
    "SELECT * FROM again(nosuch, 1)": "table 'couatl.public.nosuch' not found",
    "SELECT * FROM again(few, n => double(1))": "function 'double' is written in Python, and called when a query runs",
}


@pytest.mark.parametrize("sql", CALLS)
def test_a_call_that_does_not_fit_is_refused(connection, few, sql):
    double(connection)
    function(connection, "again(rows TABLE, n int) RETURNS TABLE (a int64, label string)", AGAIN)
    assert CALLS[sql] in error(connection, sql)


MADE = "RETURNS int64 LANGUAGE PYTHON"
BODY = "AS $$def f(n): return n$$"
SYNTAX = {
    "CREATE FUNCTION": "expected the name of a function, found the end of the text at line 1, column 16",
    f"CREATE FUNCTION a.f(n int) {MADE} {BODY}": "expected '(': functions belong to no schema, found '.'",
    f"CREATE FUNCTION f(n) {MADE} {BODY}": "expected a type, found ')' at line 1, column 20",
    f"CREATE FUNCTION f(n integr) {MADE} {BODY}": "unknown type 'integr' at line 1, column 21; did you mean 'integer'?",
    f"CREATE FUNCTION f(n int, n int) {MADE} {BODY}": "two parameters are named 'n' at line 1, column 26",
    f"CREATE FUNCTION f(n int) LANGUAGE PYTHON {BODY}": "expected RETURNS, found 'LANGUAGE'",
    f"CREATE FUNCTION f(n int) RETURNS int {BODY}": "expected LANGUAGE PYTHON",
    f"CREATE FUNCTION f(n int) RETURNS int LANGUAGE SQL {BODY}":
        "expected PYTHON, the language that functions are written in",
    f"CREATE FUNCTION f(n int) {MADE}": "expected AS $$ … $$, or OPTIONS (class 'package.module:name')",
    f"CREATE FUNCTION f(n int) {MADE} AS 'def f(n): return n'": "expected the body between $$ and $$",
    f"CREATE FUNCTION f(n int) {MADE} STRICT STRICT {BODY}": "what NULLs do is said twice at line 1, column 63",
    f"CREATE FUNCTION f(n int) {MADE} STABLE VOLATILE {BODY}": "how often it must be called is said twice",
    f"CREATE FUNCTION f(n int) {MADE} LANGUAGE PYTHON {BODY}": "LANGUAGE is said twice",
    f"CREATE FUNCTION f(n int) {MADE} {BODY} {BODY}": "AS is said twice",
    f"CREATE FUNCTION f(n int) {MADE} {BODY} NOW":
        "VOLATILE, RETURNS NULL ON NULL INPUT, OPTIONS, AS or the end, found 'NOW'",
    f"CREATE FUNCTION f(n int) {MADE} OPTIONS (format 'x') {BODY}":
        "format must be 'row', 'list', 'arrow' or 'numpy', found 'x'",
    f"CREATE FUNCTION f(n int) {MADE} OPTIONS (formatt 'row') {BODY}":
        "a function has no option 'formatt' at line 1, column 65; did you mean 'format'?",
    f"CREATE FUNCTION f(n int) {MADE} OPTIONS (format 'row', format 'row') {BODY}": "option 'format' is set twice",
    f"CREATE FUNCTION f(n int) {MADE} OPTIONS (mode 'batch') {BODY}":
        "mode says whether rows end that a function makes by itself",
    f"CREATE FUNCTION f(n int) {MADE} OPTIONS (class 'a:b') {BODY}":
        "a function has a body or a class, and here are both",
    f"CREATE FUNCTION f(a TABLE, b TABLE) RETURNS TABLE (n int) LANGUAGE PYTHON {BODY}":
        "a function reads at most one TABLE, and here is another",
    f"CREATE FUNCTION f(a TABLE) {MADE} {BODY}":
        "a function that reads a TABLE gives one: expected RETURNS TABLE (column type, …)",
    f"CREATE AGGREGATE FUNCTION f() {MADE} {BODY}": "an aggregate has at least one parameter, as in (value int64)",
    f"CREATE AGGREGATE FUNCTION f(n int) RETURNS TABLE (n int) LANGUAGE PYTHON {BODY}":
        "an aggregate gives one value: expected a type after RETURNS",
    f"CREATE OR REPLACE FUNCTION IF NOT EXISTS f(n int) {MADE} {BODY}":
        "expected OR REPLACE or IF NOT EXISTS, found both",
    f"CREATE FUNCTION f(n int) {MADE} AS $$def f(n: return$$":
        "the body does not compile: invalid syntax at line 1 of the statement",
    f"CREATE FUNCTION f(n int) {MADE} AS $$def g(n): return n$$":
        "function 'f': the body does not define 'f'; it defines: g",
    f"CREATE FUNCTION f(n int) {MADE} AS $$def f(): return n$$":
        "'f' takes 0 positional arguments, and is called with 1: one for the only parameter",
    f"CREATE FUNCTION f(n int) {MADE} AS $$async def f(n): return n$$": "'f' is asynchronous (async def)",
    f"CREATE AGGREGATE FUNCTION f(n int) {MADE} {BODY}":
        "'f' is a function; an aggregate is a class with process(), merge() and finalize()",
    "DROP FUNCTION nosuch": "there is no function 'nosuch'",
    "DROP FUNCTION abs": "there is no function 'abs' in Python",
    "SHOW CREATE FUNCTION nosuch": "there is no function 'nosuch'",
}  # fmt: skip


@pytest.mark.parametrize("sql", SYNTAX)
def test_a_statement_that_does_not_hold_together_is_refused(connection, sql):
    assert SYNTAX[sql] in error(connection, sql)
    assert "there is no function 'f'" in error(connection, "DROP FUNCTION f")


@pytest.mark.parametrize("name", ["abs", "sum", "row_number", "generate_series", "coalesce", "now", "ABS"])
def test_a_name_of_sql_is_taken(connection, name):
    body = f"AS $$def {name.lower()}(n): return n$$"
    assert "is a function of SQL; choose another name" in error(
        connection, f"CREATE OR REPLACE FUNCTION {name}(n int) {MADE} {body}"
    )


def test_functions_are_made_replaced_and_dropped(connection):
    run(connection, "DROP FUNCTION IF EXISTS f")
    made, other = f"f(n int64) {MADE} {BODY}", f"f(n int64) {MADE} AS $$def f(n): return [0] * len(n)$$"
    run(connection, f"CREATE FUNCTION {made}")
    refusal = "a function named 'f' exists already; use CREATE OR REPLACE, or drop it first"
    assert refusal in error(connection, f"CREATE FUNCTION {other}")
    run(connection, f"CREATE FUNCTION IF NOT EXISTS {other}")
    assert value(connection, "SELECT f(5)") == 5
    run(connection, f"CREATE OR REPLACE FUNCTION {other}")
    assert value(connection, "SELECT f(5)") == 0
    run(connection, "CREATE OR REPLACE FUNCTION f() RETURNS TABLE (n int) LANGUAGE PYTHON AS $$def f(): return [1]$$")
    assert rows(connection, "SELECT * FROM f()") == [(1,)]
    assert "it gives rows, as in SELECT * FROM f(…), and no value" in error(connection, "SELECT f(5)")
    run(connection, "DROP FUNCTION f")
    assert "table function 'f' not found" in error(connection, "SELECT * FROM f()")
    run(connection, "DROP FUNCTION IF EXISTS f")


def test_all_sessions_have_the_same_functions(server, connection):
    double(connection, "shared")
    with server.connect() as other:
        assert value(other, "SELECT shared(4)") == 8
        function(other, "shared(n int64) RETURNS int64", "def shared(n):\n    return n")
        assert value(connection, "SELECT shared(4)") == 4
        run(other, "DROP FUNCTION shared")
        assert "Invalid function 'shared'" in error(connection, "SELECT shared(4)")


def test_a_query_keeps_the_function_that_it_began_with(server, connection, notes):
    endless(connection, notes)
    double(connection, "kept")
    with server.connect() as other, connection.cursor() as cursor:
        cursor.execute("SELECT kept(n) FROM endless")
        assert cursor.fetchone() == (2,)
        run(other, "DROP FUNCTION kept")
        with notes.open("a") as file:
            file.write("go\n")
        assert cursor.fetchone() == (4,)


PYTHON = "LANGUAGE PYTHON"
APART = "t TABLE WITH ROW SEMANTICS, n int32"
ODD = '"N m" array(int64), d decimal(10, 2)'
SHOWN = {
    f"f(n int64) RETURNS int64 {PYTHON}": "def f(n):\n    return n",
    f"f(n int64) RETURNS int64 NOT NULL {PYTHON} IMMUTABLE RETURNS NULL ON NULL INPUT": "def f(n):\n    return n",
    f"f() RETURNS string {PYTHON} STABLE OPTIONS (format 'row')": "def f():\n    return '$$'",
    f"f({ODD}) RETURNS tuple(a int64) {PYTHON} OPTIONS (function 'go')": "def go(n, d): pass",
    f"f({APART}) RETURNS TABLE (a int64 NOT NULL) {PYTHON} OPTIONS (format 'arrow')": "def f(t, n): pass",
    f"f(t TABLE) RETURNS TABLE (a timestamptz) {PYTHON}": "def f(t): pass",
    f"f() RETURNS TABLE (a int64) {PYTHON} OPTIONS (mode 'streaming')": "def f(): pass",
}


@pytest.mark.parametrize(("head", "body"), SHOWN.items())
def test_what_is_shown_makes_the_same_function(connection, head, body):
    run(connection, f"CREATE OR REPLACE FUNCTION {head} AS $body$\n{body}\n$body$")
    shown = value(connection, "SHOW CREATE FUNCTION f")
    assert shown.startswith(f"CREATE FUNCTION {head}\nAS $"), shown
    assert body in shown
    run(connection, "DROP FUNCTION f")
    run(connection, shown)
    assert value(connection, "SHOW CREATE FUNCTION f") == shown
    run(connection, "DROP FUNCTION f")


def test_names_are_folded_unless_they_are_quoted(connection):
    run(
        connection,
        f'CREATE OR REPLACE FUNCTION "Odd one"("N" int64) {MADE} OPTIONS (function \'go\') AS $$def go(n): return n$$',
    )
    assert value(connection, 'SELECT "Odd one"(3)') == 3
    run(connection, f"CREATE OR REPLACE FUNCTION EVEN(n int64) {MADE} AS $$def even(n): return n$$")
    assert value(connection, "SELECT eVen(3)") == 3


def test_explain_and_prepare_run_no_python(connection, few, notes):
    body = noting(notes, "", "note('import')\ndef told(n):\n    note('call')\n    return n")
    function(connection, "told(n int64) RETURNS int64", body, "IMMUTABLE")
    body = noting(notes, "", "note('import')\ndef gave(t, n):\n    note('call')\n    yield n")
    function(connection, "gave(t TABLE, n int64) RETURNS TABLE (n int64)", body)
    body = noting(notes, "", f"note('import')\n{TOTAL.format(name='counted')}")
    aggregate(connection, "counted(n int64) RETURNS int64", body)
    for sql in [
        "SELECT told(1 + 1), told(a) FROM few WHERE told(3) = 3",
        "SELECT * FROM gave(few, 1)",
        "SELECT * FROM gave((SELECT told(a) FROM few), 1)",
        "SELECT counted(a) FROM few",
    ]:
        rows(connection, f"EXPLAIN {sql}")
        with connection.cursor() as cursor:
            cursor.adbc_prepare(sql)
    run(connection, "CREATE OR REPLACE VIEW untold AS SELECT told(a) AS n FROM few")
    run(connection, "PREPARE later AS SELECT told($1)")
    assert words(notes) == []
    assert rows(connection, "SELECT told(1), counted(1)") == [(1, 1)]
    assert words(notes).count("call") == 1


@pytest.mark.parametrize("name", ["couatl", "timeplus"])
def test_a_function_may_ask_its_server(server, connection, few, name):
    body = f"""
    import base64, urllib.parse, urllib.request

    def asked(query):
        token = base64.b64encode(f"{{__{name}_local_api_user}}:{{__{name}_local_api_password}}".encode()).decode()
        url = "{server.http}/?" + urllib.parse.urlencode({{"query": query}})
        request = urllib.request.Request(url, headers={{"Authorization": f"Basic {{token}}"}})
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.read().decode().strip()
    """
    function(connection, "asked(query string) RETURNS string", body, "OPTIONS (format 'row')")
    assert value(connection, "SELECT asked('SELECT count(*) FROM few')") == "3"


def test_each_query_has_a_module_of_its_own(connection, few):
    body = "calls = 0\ndef nth(n):\n    global calls\n    calls += 1\n    return [calls] * len(n)"
    function(connection, "nth(n int64) RETURNS int64", body)
    assert sorted(*rows(connection, "SELECT nth(1), nth(2)")) == [1, 2], "one module for all calls of a query"
    assert value(connection, "SELECT nth(1)") == 1


# How functions are defined whose Python is busy, and what they note.
BUSY = {
    "scalar": ("FUNCTION", "busy(n int64) RETURNS int64", "def busy(n):\n    work()\n    return n", "SELECT busy(1)"),
    "by row": ("FUNCTION", "busy() RETURNS int64", "def busy():\n    work()", "SELECT busy()"),
    "aggregate": (
        "AGGREGATE FUNCTION",
        "busy(n int64) RETURNS int64",
        TOTAL.format(name="busy").replace("self.sum +=", "work()  #"),
        "SELECT busy(n) FROM (VALUES (1), (2)) AS t(n)",
    ),
    "generator":
        ("FUNCTION", "busy() RETURNS TABLE (n int64)", "def busy():\n    work()\n    yield 1", "SELECT * FROM busy()"),
    "transform": (
        "FUNCTION",
        "busy(t TABLE) RETURNS TABLE (n int64)",
        "def busy(t):\n    for row in t:\n        work()\n        yield 1",
        "SELECT * FROM busy((SELECT 1))",
    ),
    "import": ("FUNCTION", "busy(n int64) RETURNS int64", "work()\ndef busy(n):\n    return n", "SELECT busy(1)"),
}  # fmt: skip
WORK = """
def work():
    try:
        note("busy")
        {work}
    finally:
        note("end")
"""
LOOP = "while True: pass"


def busy(connection, kind, notes, work=LOOP):
    """Makes such a function; gives what calls it."""
    what, signature, body, sql = BUSY[kind]
    run(connection, statement(signature, noting(notes, "import time", WORK.format(work=work) + body), kind=what))
    return sql


@pytest.mark.parametrize("kind", BUSY)
def test_a_function_that_loops_is_interrupted(server, connection, notes, kind):
    sql = busy(connection, kind, notes)
    with server.connect() as calling, ThreadPoolExecutor(1) as pool:
        fetched = pool.submit(rows, calling, sql)
        wait_for_text(notes, "busy")
        run(connection, f"KILL QUERY '{query_running(connection, 'busy')}'")
        with pytest.raises(calling.Error, match=r"(?i)cancel"):
            fetched.result(20)
        wait_until(lambda: not queries(connection), "the query's end")
    assert words(notes) == ["busy", "end"]


CLIENT = """
import sys
from adbc_driver_flightsql import dbapi

cursor = dbapi.connect(sys.argv[1], autocommit=True).cursor()
cursor.execute(sys.argv[2])
if sys.argv[3] == "cancel":
    sys.stdin.readline()
    cursor.adbc_cancel()
    sys.stdin.readline()
cursor.fetchone()
"""


@pytest.mark.parametrize("how", ["cancel", "end"])
@pytest.mark.parametrize("kind", BUSY)
def test_a_function_ends_with_its_client(own_server, tmp_path, kind, how):
    server, notes = own_server(), tmp_path / "notes"
    with server.connect() as connection:
        command = [sys.executable, "-c", CLIENT, server.uri, busy(connection, kind, notes), how]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            wait_for_text(notes, "busy")
            if how == "cancel":
                process.stdin.write(b"cancel\n")
                process.stdin.flush()
            else:
                kill_group(process)
            wait_until(lambda: not queries(connection), "the query's end", 4)
        finally:
            kill_group(process)
            process.stdin.close()
            process.stdout.close()
    assert words(notes) == ["busy", "end"]


@pytest.mark.parametrize("kind", BUSY)
def test_a_function_that_sleeps_in_c_is_left_behind(own_server, tmp_path, kind):
    server, notes = own_server(), tmp_path / "notes"
    with server.connect() as connection, server.connect() as calling, ThreadPoolExecutor(1) as pool:
        sql = busy(connection, kind, notes, "time.sleep(3600)")
        fetched = pool.submit(rows, calling, sql)
        wait_for_text(notes, "busy")
        run(connection, f"KILL QUERY '{query_running(connection, 'busy')}'")
        with pytest.raises(calling.Error, match=r"(?i)cancel"):
            fetched.result(20)
        wait_until(lambda: [state for _, _, state in queries(connection)] == ["stuck"], "it is known to be stuck")
        assert value(calling, "SELECT 1") == 1
    assert words(notes) == ["busy"]


@pytest.mark.parametrize("kind", ["scalar", "aggregate", "generator"])
def test_a_query_with_functions_has_its_time(own_server, tmp_path, kind):
    server, notes = own_server("--max-query-time", "0.3"), tmp_path / "notes"
    with server.connect() as connection:
        sql = busy(connection, kind, notes)
        assert "the query was ended after 300ms" in error(connection, sql)
        wait_until(lambda: not queries(connection), "the query's end")
    assert words(notes) == ["busy", "end"]


def test_threads_of_functions_end(server, connection):
    body = "import threading\ndef thread(n):\n    return [threading.get_native_id()] * len(n)"
    function(connection, "thread(n int64) RETURNS int64", body)
    thread = Path(f"/proc/{server.process.pid}/task/{value(connection, 'SELECT thread(1)')}")
    wait_until(lambda: not thread.exists(), "the end of the function's thread")


def test_developers_create_functions_and_readers_call_them(guarded):  # noqa: F811
    with contextlib.ExitStack() as left:
        dora, adam, rita, will = (
            left.enter_context(connect(guarded, name)) for name in ["dora", "adam", "rita", "will"]
        )
        body = "SECRET = 'hunter2'\n\ndef told(n):\n    return [len(SECRET) // each for each in n]"
        function(dora, "told(n int64) RETURNS int64", body)
        for connection in [rita, will, adam]:
            assert value(connection, "SELECT told(7)") == 1
        assert "functions: their Python runs on the server" in error(
            will, statement("mine(n int64) RETURNS int64", body)
        )
        assert "drop functions" in error(will, "DROP FUNCTION told")
        for connection in [dora, adam]:
            assert "hunter2" in value(connection, "SHOW CREATE FUNCTION told")
        shown = value(rita, "SHOW CREATE FUNCTION told")
        assert "told(n int64) RETURNS int64" in shown and "hidden: its creator and admins see it" in shown
        assert "hunter2" not in shown
        assert "line 5, in told" in error(dora, "SELECT told(0)")
        message = error(rita, "SELECT told(0)")
        assert "ZeroDivisionError" in message and "Traceback" not in message and "SECRET" not in message
        run(dora, "DROP FUNCTION told")


def test_functions_of_others_stay(own_server, tmp_path):
    path = tmp_path / "users"
    for name in ["ann", "bob"]:
        assert user("add", name, "--role", "developer", "--users", path, password=f"{name[::-1]}\n").returncode == 0
    assert user("add", "eve", "--role", "admin", "--users", path, password="eve\n").returncode == 0
    server = own_server("--users", path)
    with connect(server, "ann") as ann, connect(server, "bob") as bob, connect(server, "eve") as eve:
        double(ann, "hers")
        refusal = "replace or drop the function 'hers' of somebody else"
        assert refusal in error(bob, statement("hers(n int64) RETURNS int64", "def hers(n):\n    return n"))
        assert refusal in error(bob, "DROP FUNCTION hers")
        assert "hidden" in value(bob, "SHOW CREATE FUNCTION hers")
        run(eve, "DROP FUNCTION hers")


WHOLE, MERGED, SENT = TOTAL, TOTAL + MERGE, TOTAL + MERGE + SERIALIZE


@pytest.mark.parametrize("methods", [WHOLE, MERGED, SENT], ids=["whole", "merged", "sent"])
@pytest.mark.parametrize("form", ["list", "arrow", "numpy"])
def test_an_aggregate_is_that_of_its_groups(connection, many, methods, form):
    if form != "list":
        methods = methods.replace("for value in values", "for value in values.tolist()")
    aggregate(connection, "total(n int64) RETURNS int64", methods.format(name="total"), f"OPTIONS (format '{form}')")
    for partitions in [1, 4]:
        run(connection, f"SET datafusion.execution.target_partitions = {partitions}")
        assert rows(connection, "SELECT total(a), sum(a) FROM many") == [(200010000, 200010000)]
        for key, groups in [("k", 700), ("a", 20000)]:
            by_key = f"SELECT sum(a) AS s, total(a) AS t FROM many GROUP BY {key}"
            found = rows(connection, f"SELECT count(*), sum(t), bool_and(s = t) FROM ({by_key})")
            assert found == [(groups, 200010000, True)]


def test_states_travel_as_bytes_where_a_class_says_how(connection, many, notes):
    body = noting(notes, "", (TOTAL + MERGE + SERIALIZE).format(name="total")).replace(
        "return str", "note('sent'); return str"
    )
    aggregate(connection, "total(n int64) RETURNS int64", body)
    assert value(connection, "SELECT sum(t) FROM (SELECT total(a) AS t FROM many GROUP BY k)") == 200010000
    assert len(words(notes)) >= 700


@pytest.fixture
def totals(connection):
    """Aggregates, and a table for them."""
    run(
        connection,
        "CREATE OR REPLACE TABLE pairs (k INT, a BIGINT) AS VALUES (1, 1), (1, 1), (2, 3), (2, NULL), (3, NULL)",
    )
    aggregate(connection, "total(n int64) RETURNS int64", (TOTAL + MERGE).format(name="total"))
    aggregate(connection, "whole(n int64) RETURNS int64", TOTAL.format(name="whole"))
    aggregate(connection, "gather(n int64) RETURNS array(int64)", GATHER)
    body = """
    class dot:
        def __init__(self):
            self.sum = 0

        def process(self, n, m):
            self.sum += n * m

        def merge(self, other):
            self.sum += other.sum

        def finalize(self):
            return self.sum
    """
    aggregate(connection, "dot(n int64, m int64) RETURNS int64", body, "STRICT OPTIONS (format 'row')")


AGGREGATES = {
    "SELECT total(a), whole(a), dot(a, k), gather(a) FROM pairs": [(5, 5, 8, [1, 1, 3, None, None])],
    "SELECT k, total(a), gather(a) FROM pairs GROUP BY k ORDER BY k":
        [(1, 2, [1, 1]), (2, 3, [3, None]), (3, 0, [None])],
    "SELECT total(a), whole(a), gather(a) FROM pairs WHERE k > 9": [(0, 0, [])],
    "SELECT k, total(a) FROM pairs WHERE k > 9 GROUP BY k": [],
    "SELECT k, total(a) FILTER (WHERE a < 3), total(a) FROM pairs GROUP BY k HAVING total(a) > 0 ORDER BY k":
        [(1, 2, 2), (2, 0, 3)],
    "SELECT total(a) FILTER (WHERE false) FROM pairs": [(0,)],
    "SELECT total(DISTINCT a) FROM pairs": [(4,)],
    "SELECT k, total(DISTINCT a) FROM pairs GROUP BY k ORDER BY k": [(1, 1), (2, 3), (3, 0)],
    "SELECT total(DISTINCT a), count(DISTINCT a) FROM pairs": [(4, 2)],
    "SELECT k, total(a) FROM pairs GROUP BY ROLLUP (k) ORDER BY k": [(1, 2), (2, 3), (3, 0), (None, 5)],
    "SELECT total(a) + 1, total(a + 1) FROM pairs": [(6, 8)],
    "SELECT total(total) FROM (SELECT total(a) AS total FROM pairs GROUP BY k)": [(5,)],
    "SELECT k FROM pairs GROUP BY k ORDER BY total(a) DESC": [(2,), (1,), (3,)],
    "SELECT k, total(a) OVER (PARTITION BY k) FROM pairs ORDER BY k": [(1, 2), (1, 2), (2, 3), (2, 3), (3, 0)],
    "SELECT a, gather(a) OVER (ORDER BY a, k ROWS UNBOUNDED PRECEDING) FROM pairs WHERE a > 0 ORDER BY a":
        [(1, [1]), (1, [1, 1]), (3, [1, 1, 3])],
    "SELECT a, whole(a) OVER (ORDER BY a) FROM pairs ORDER BY a": [(1, 2), (1, 2), (3, 5), (None, 5), (None, 5)],
    "SELECT a, total(a) OVER () FROM pairs WHERE k = 1": [(1, 2), (1, 2)],
}  # fmt: skip


@pytest.mark.parametrize("sql", AGGREGATES)
def test_an_aggregate_stands_where_aggregates_do(connection, totals, sql):
    assert rows(connection, sql) == AGGREGATES[sql]


@pytest.mark.parametrize(
    ("sql", "sentence"),
    [
        ("SELECT total(DISTINCT a), total(a) FROM pairs", "DISTINCT is not offered beside other aggregates"),
        ("SELECT total(a) OVER (ORDER BY a ROWS 1 PRECEDING) FROM pairs", "a window must begin at UNBOUNDED PRECEDING"),
        ("SELECT gather(a ORDER BY a DESC) FROM pairs", "ORDER BY among its arguments is not offered"),
        ("SELECT total('x')", "function 'total', argument 'n' (int64): cannot take 'x' (string)"),
        ("SELECT dot(a) FROM pairs", "function 'dot' takes 2 arguments (n int64, m int64), found 1"),
        ("SELECT k FROM pairs WHERE total(a) > 1", "Aggregate functions are not allowed in the WHERE clause"),
    ],
)  # fmt: skip
def test_what_aggregates_are_not_for_is_refused(connection, totals, sql, sentence):
    assert sentence in error(connection, sql)


def test_an_aggregate_without_merge_is_called_for_each_row(connection, totals):
    body = TOTAL.format(name="rowwise").replace("(value for value in values if value is not None)", "([values])")
    aggregate(connection, "rowwise(n int64) RETURNS int64", body, "STRICT OPTIONS (format 'row')")
    assert value(connection, "SELECT rowwise(a) FROM pairs") == 5


ONES = {"json": ("[5]", "[5]"), "map(string, int64)": ("[('a', 1)]", [("a", 1)]), "tuple(a int64)": ("[1]", {"a": 1})}


@pytest.mark.parametrize("of", ONES)
def test_a_list_of_one_is_a_list(connection, of):
    given, expected = ONES[of]
    body = TOTAL.format(name="one").replace("return self.sum", f"return {given}")
    aggregate(connection, f"one(n int64) RETURNS {of}", body)
    assert table(connection, "SELECT one(1)").column(0).to_pylist() == [expected]


def test_a_group_may_be_false(connection, many):
    body = (TOTAL + MERGE).format(name="falsy") + "\n    def __bool__(self):\n        return False\n"
    aggregate(connection, "falsy(n int64) RETURNS int64", body)
    assert value(connection, "SELECT sum(t) FROM (SELECT falsy(a) AS t FROM many GROUP BY k)") == 200010000


def test_distinct_pairs_are_refused_in_words(connection, totals):
    assert "subquery" in error(connection, "SELECT dot(DISTINCT a, k) FROM pairs")


def test_aggregates_over_a_stream(connection, totals):
    body = """
    import datetime, itertools

    def ticks():
        for n in itertools.count():
            yield datetime.datetime(2024, 1, 1) + datetime.timedelta(seconds=n), n
    """
    create(connection, "ticks", "ts timestamp, n int64", body, mode="streaming", order_by="ts")
    tens = "date_bin(INTERVAL '10 seconds', ts)"
    found = rows(connection, f"SELECT {tens} AS ten, total(n), whole(n) FROM ticks GROUP BY ten LIMIT 3")
    assert [sums for _, *sums in found] == [[45, 45], [145, 145], [245, 245]]
    assert rows(connection, "SELECT n, total(n) OVER (ORDER BY ts) FROM ticks LIMIT 3") == [(0, 0), (1, 1), (2, 3)]
    assert "an aggregate would never answer" in error(connection, "SELECT total(n) FROM ticks")


# Bodies of wrong(n int64), which says that it is an aggregate.
NO_AGGREGATES = {
    "class wrong:\n    def process(self, n): pass\n    def finalize(self): return 300":
        "row 1, column 'result' (int8): cannot store 300 (int)",
    "class wrong:\n    def process(self, n): pass\n    def finalize(self): return [1, 2]": "cannot store [1, 2] (list)",
    "class wrong:\n    def process(self, n): raise ValueError('mine')\n    def finalize(self): pass":
        "'wrong' raised ValueError: mine",
    "class wrong:\n    def process(self, n): pass\n    def finalize(self): raise ValueError('mine')":
        "'wrong' raised ValueError: mine",
    "class wrong:\n    def __init__(self): raise ValueError('mine')\n    process = finalize = print":
        "'wrong' raised ValueError: mine",
    "class wrong:\n    def process(self, n): yield n\n    def finalize(self): pass":
        "wrong.process() returned a generator, which nobody runs; make it a plain method",
    "class wrong:\n    def process(self, n): pass\n    def finalize(self): yield 1":
        "wrong.finalize() returned a generator, which nobody runs; make it a plain method",
    "class wrong:\n    def process(self, n): pass\n    def finalize(self): pass\n    merge = 5":
        "wrong.merge is 5; expected a method merge(self, other), or none",
}  # fmt: skip


@pytest.mark.parametrize("body", NO_AGGREGATES)
def test_what_is_no_aggregate_is_told(connection, body):
    aggregate(connection, "wrong(n int64) RETURNS int8", body)
    message = error(connection, "SELECT wrong(1)")
    assert "function 'wrong'" in message and NO_AGGREGATES[body] in message


def test_an_aggregate_that_is_no_class_is_told(connection):
    aggregate(connection, "wrong(n int64) RETURNS int8", "wrong = 3")
    assert "expected a class" in error(connection, "SELECT wrong(1)")


REFUSED_AGGREGATES = {
    "class wrong:\n    def process(self, n): pass": "class 'wrong' has no finalize(), which an aggregate has",
    "class wrong: pass": "class 'wrong' has no process() and no finalize(), which an aggregate has",
    "class wrong:\n    def process(self): pass\n    def finalize(self): pass":
        "wrong.process() takes 1 positional argument, and is called with 2",
    "class wrong:\n    async def process(self, n): pass\n    finalize = print": "wrong.process() is asynchronous",
    "class wrong:\n    def __init__(self, given): pass\n    def process(self, n): pass\n    def finalize(self): pass":
        "'wrong' takes 1 positional argument, and is called with 0: one is made for each group, without arguments",
}  # fmt: skip


def test_what_is_and_is_not_an_aggregate_is_said_at_create(connection):
    body = (TOTAL + MERGE).format(name="wrong")
    assert "class 'wrong' is an aggregate; say CREATE AGGREGATE FUNCTION" in error(
        connection, statement("wrong(n int64) RETURNS int64", body)
    )
    for body, refusal in REFUSED_AGGREGATES.items():
        said = error(connection, statement("wrong(n int64) RETURNS int64", body, kind="AGGREGATE FUNCTION"))
        assert refusal in said


@pytest.fixture
def again(connection, few):
    """A transform that gives each row of few so many times."""
    function(connection, "again(rows TABLE, n int) RETURNS TABLE (a int64, label string)", AGAIN)
    function(connection, "upto(n int) RETURNS TABLE (n int64)", "def upto(n):\n    yield from range(n)")


ONCE = [(1, "x0"), (2, "y0"), (3, "x0")]
TABLES = {
    "SELECT * FROM again(few, 1)": ONCE,
    "SELECT * FROM again(few, n => 1)": ONCE,
    "SELECT * FROM again(n => 1, rows => few)": ONCE,
    "SELECT * FROM again(TABLE(few), 1)": ONCE,
    "SELECT * FROM again(couatl.public.few, 1)": ONCE,
    "SELECT * FROM again((SELECT * FROM few), 1)": ONCE,
    "SELECT * FROM again((SELECT 7 AS a, 'z' AS b), 2)": [(7, "z0"), (7, "z1")],
    "WITH w AS (SELECT a + 1 AS a, b FROM few) SELECT a FROM again(w, 1)": [(2,), (3,), (4,)],
    "SELECT * FROM again((SELECT a, label AS b FROM again(few, 1)), 1) WHERE a = 1": [(1, "x00")],
    "SELECT r.x FROM again(few, 1) AS r(y, x)": [("x0",), ("y0",), ("x0",)],
    "SELECT again.label FROM again(few, 2) WHERE again.a = 2": [("y0",), ("y1",)],
    "SELECT count(*) FROM again(few, 2)": [(6,)],
    "SELECT a FROM again(few, 1) ORDER BY a DESC LIMIT 1": [(3,)],
    "SELECT l.label FROM again(few, 1) AS l JOIN few ON few.a = l.a WHERE few.b = 'y'": [("y0",)],
    "SELECT count(*) FROM (SELECT * FROM again(few, 1) UNION ALL SELECT * FROM again(few, 2))": [(9,)],
    "SELECT n FROM upto(1 + 1)": [(0,), (1,)],
    "SELECT n FROM upto(n => abs(-2))": [(0,), (1,)],
    "SELECT a FROM few WHERE a IN (SELECT n FROM upto(3))": [(1,), (2,)],
    "SELECT a, (SELECT count(*) FROM upto(2)) FROM few WHERE a = 1": [(1, 2)],
    "SELECT * FROM again((SELECT * FROM few WHERE false), 1)": [],
}


@pytest.mark.parametrize("sql", TABLES)
def test_a_table_function_stands_where_tables_do(connection, again, sql):
    assert rows(connection, sql) == TABLES[sql]


def test_table_functions_take_parameters(connection, again):
    assert rows(connection, "SELECT * FROM again((SELECT * FROM few WHERE a = ?), n => ?)", (2, 1)) == [(2, "y0")]
    assert rows(connection, "SELECT n FROM upto(?)", (2,)) == [(0,), (1,)]
    run(connection, "PREPARE up AS SELECT n FROM upto($1)")
    assert rows(connection, "EXECUTE up(1)") == [(0,)]


def test_table_functions_in_what_writes_and_in_views(connection, again):
    run(connection, "CREATE OR REPLACE TABLE made AS SELECT * FROM again(few, 2)")
    assert run(connection, "INSERT INTO made SELECT * FROM again(few, 1)") == 3
    assert value(connection, "SELECT count(*) FROM made") == 9
    run(connection, "CREATE OR REPLACE VIEW once AS SELECT * FROM again(few, 1)")
    assert rows(connection, "SELECT * FROM once") == ONCE
    run(connection, "CREATE OR REPLACE TABLE few AS VALUES (9, 'q')")
    run(connection, "CREATE OR REPLACE VIEW few_named AS SELECT column1 AS a, column2 AS b FROM few")
    assert rows(connection, "SELECT * FROM again(few_named, 1)") == [(9, "q0")]


def test_a_transform_of_a_transform(connection, again):
    function(
        connection, "first(t TABLE) RETURNS TABLE (n int64)", "def first(t):\n    for row in t:\n        yield row[0]"
    )
    assert rows(connection, "SELECT * FROM first(first(few))") == [(1,), (2,), (3,)]
    assert rows(connection, "SELECT * FROM first(upto(2))") == [(0,), (1,)]


def test_a_table_function_may_have_the_name_of_a_scalar_one(connection, few):
    body = "def repeat(t, n):\n    for row in t:\n        yield from [row.a] * n"
    function(connection, "repeat(t TABLE, n int) RETURNS TABLE (n int64)", body)
    assert rows(
        connection, "SELECT repeat(b, 2), n FROM few JOIN repeat(few, n => 1) AS r ON r.n = few.a ORDER BY n"
    ) == [
        ("xx", 1),
        ("yy", 2),
        ("xx", 3),
    ]
    run(connection, "DROP FUNCTION repeat")
    assert value(connection, "SELECT repeat('a', 2)") == "aa"


@pytest.mark.parametrize(
    ("form", "first"),
    [
        ("row", "Row(a=1, b='x')"),
        ("list", "([1, 2, 3], ['x', 'y', 'x'])"),
        ("arrow", "pyarrow.RecordBatch"),
        ("numpy", "(array([1, 2, 3]), array(['x', 'y', 'x'], dtype=object))"),
    ],
)
def test_a_format_says_how_a_table_comes(connection, few, form, first):
    body = "def shown(t):\n    for each in t:\n        yield repr(each).split('\\n')[0]"
    function(connection, "shown(t TABLE) RETURNS TABLE (s string)", body, f"OPTIONS (format '{form}')")
    assert rows(connection, "SELECT s FROM shown(few) LIMIT 1") == [(first,)]
    assert rows(connection, 'SELECT count(*) FROM shown((SELECT a AS "class", a AS "one two" FROM few))') == [
        (3 if form == "row" else 1,)
    ]


def test_rows_have_the_names_that_names_can_be(connection, few):
    body = "def named(t):\n    for row in t:\n        yield ','.join(row._fields)"
    function(connection, "named(t TABLE) RETURNS TABLE (s string)", body)
    assert rows(connection, 'SELECT s FROM named((SELECT a, a AS "class", a AS "B" FROM few)) LIMIT 1') == [("a,_1,B",)]


# Bodies of some(t TABLE) RETURNS TABLE (n int64), called with few.
GIVEN = {
    "def some(t): return [row.a for row in t]": [(1,), (2,), (3,)],
    "def some(t): return (row.a for row in t)": [(1,), (2,), (3,)],
    "def some(t):\n    yield next(t).a": [(1,)],
    "def some(t):\n    yield 7": [(7,)],
    "def some(t): return []": [],
    "def some(t):\n    yield [row.a for row in t]": [(1,), (2,), (3,)],
    "def some(t):\n    import pyarrow\n    yield pyarrow.table({'n': [row.a for row in t]})": [(1,), (2,), (3,)],
    "class some:\n    def __init__(self, t): self.t = t\n    def __iter__(self): return (row.a for row in self.t)": [
        (1,),
        (2,),
        (3,),
    ],
    "def some(t):\n    yield sum(row.a for row in t)": [(6,)],
}


@pytest.mark.parametrize("body", GIVEN)
def test_a_transform_reads_as_much_as_it_wants(connection, few, body):
    function(connection, "some(t TABLE) RETURNS TABLE (n int64)", body)
    assert rows(connection, "SELECT n FROM some(few)") == GIVEN[body]


NOT_GIVEN = {
    "def some(t): return None": "got None; does it lack a return or a yield?",
    "def some(t): return 3":
        "expected 'some' to return a generator or another iterator, a list of rows, or an Arrow object, got 3 (int)",
    "def some(t):\n    yield 'x'": "function 'some', row 1, column 'n' (int64): cannot store 'x' (str)",
    "def some(t):\n    yield 1, 2": "function 'some', row 1: expected 1 value (n), got 2 values",
    "def some(t):\n    yield from (row.a for row in t)\n    yield (None,)":
        "row 4, column 'n' (int64): cannot store None: the column is NOT NULL",
    "def some(t):\n    for row in t:\n        raise ValueError(row)\n    yield":
        "'some' raised ValueError: Row(a=1, b='x')",
}  # fmt: skip


@pytest.mark.parametrize("body", NOT_GIVEN)
def test_what_a_table_function_gives_wrongly_is_told(connection, few, body):
    function(connection, "some(t TABLE) RETURNS TABLE (n int64 NOT NULL)", body)
    assert NOT_GIVEN[body] in error(connection, "SELECT n FROM some(few)")


READING = """
def reading(t):
    try:
        for row in t:
            note("go")
            yield row[0]
        note("all")
    except GeneratorExit:
        note("closed")
        raise
    except KeyboardInterrupt:
        note("interrupted")
        raise
    finally:
        note("finally")
"""


def reading(connection, notes):
    function(connection, "reading(t TABLE) RETURNS TABLE (n int64)", noting(notes, "", READING))


def test_a_limit_closes_the_generator(connection, notes):
    reading(connection, notes)
    create(
        connection,
        "numbers",
        "n int64",
        "import itertools\ndef numbers():\n    yield from itertools.count()",
        mode="streaming",
    )
    assert rows(connection, "SELECT n FROM reading(numbers) LIMIT 2") == [(0,), (1,)]
    wait_until(lambda: "finally" in words(notes), "the generator's end")
    assert words(notes)[-1] == "finally" and "all" not in words(notes)


CLEANING = """
def cleaning(t):
    try:
        for row in t:
            yield row[0]
    finally:
        for step in range(100):
            note(str(step))
        note("end")
"""


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT n FROM cleaning(waiting) LIMIT 1",
        "SELECT 1 / (n - 1) FROM cleaning(waiting)",
        "SELECT n FROM cleaning(broken)",
    ],
)
def test_what_cleans_up_is_not_torn(connection, notes, sql):
    """It waits for the next row of its table when the query ends, which interrupts it once."""
    function(connection, "cleaning(t TABLE) RETURNS TABLE (n int64)", noting(notes, "", CLEANING))
    body = "import time\ndef waiting():\n    yield 1\n    while True:\n        time.sleep(0.01)"
    create(connection, "waiting", "n int64", body, mode="streaming")
    create(
        connection, "broken", "n int64", "def broken():\n    yield 1\n    raise OSError('no more')", mode="streaming"
    )
    for turn in range(6):
        with contextlib.suppress(dbapi.Error):
            rows(connection, sql)
        wait_until(lambda turn=turn: words(notes).count("99") == turn + 1, "the end of the cleanup")
        assert words(notes).count("end") == turn + 1


@pytest.mark.parametrize("source", ["(SELECT 1 / (n - 2) FROM endless)", "broken"])
def test_a_table_that_fails_ends_who_reads_it(connection, notes, source):
    reading(connection, notes)
    endless(connection, notes)
    create(
        connection, "broken", "n int64", "def broken():\n    yield 1\n    raise OSError('no more of Divide by zero')"
    )
    assert "Divide by zero" in error(connection, f"SELECT n FROM reading({source})")
    wait_until(lambda: "finally" in words(notes), "the generator's end")
    assert "all" not in words(notes)


@pytest.mark.parametrize("how", ["kill", "cancel", "close"])
def test_who_waits_for_a_table_is_interrupted(server, connection, notes, how):
    reading(connection, notes)
    body = "import time\ndef waiting():\n    yield 1\n    while True:\n        time.sleep(0.01)"
    create(connection, "waiting", "n int64", body, mode="streaming")
    with server.connect() as calling, calling.cursor() as cursor:
        cursor.execute("SELECT n FROM reading(waiting)")
        reader = cursor.fetch_record_batch()
        assert reader.read_next_batch().to_pydict() == {"n": [1]}
        if how == "kill":
            run(connection, f"KILL QUERY '{query_running(connection, 'waiting')}'")
        elif how == "cancel":
            cursor.adbc_cancel()
        else:
            reader.close()
        wait_until(lambda: not queries(connection), "the query's end")
    assert words(notes) in [["go", *how, "finally"] for how in ([], ["interrupted"], ["closed"])]


def test_a_table_function_without_a_table_has_a_mode(connection, notes):
    body = noting(
        notes,
        "import itertools",
        "def forever():\n    try:\n        yield from itertools.count()\n    finally:\n        note('end')",
    )
    function(connection, "forever() RETURNS TABLE (n int64)", body, "OPTIONS (mode 'streaming')")
    assert rows(connection, "SELECT n FROM forever() LIMIT 2") == [(0,), (1,)]
    wait_until(lambda: words(notes) == ["end"], "the generator's end")
    assert "would never answer" in error(connection, "SELECT count(*) FROM forever()")
    assert "would never answer" in error(connection, "SELECT max(n) FROM reading((SELECT n FROM forever()))")
    function(connection, "forever() RETURNS TABLE (n int64)", "def forever(): return [1, 2]", "OPTIONS (mode 'batch')")
    assert value(connection, "SELECT count(*) FROM forever()") == 2
    function(connection, "forever() RETURNS TABLE (n int64)", "def forever(): yield 1", "OPTIONS (mode 'batch')")
    assert "as mode 'batch' says, got a generator" in error(connection, "SELECT count(*) FROM forever()")


@pytest.mark.parametrize(("semantics", "calls"), [("", 1), ("WITH SET SEMANTICS", 1), ("WITH ROW SEMANTICS", 4)])
def test_partitions_are_read_together_or_apart(connection, many, semantics, calls):
    body = "def part(t):\n    call = object()\n    for row in t:\n        yield row.a, str(id(call))"
    function(connection, f"part(t TABLE {semantics}) RETURNS TABLE (a int64, call string)", body)
    assert rows(connection, "SELECT count(*), sum(a), count(DISTINCT call) FROM part(many)") == [
        (20000, 200010000, calls)
    ]


def test_a_transform_gets_the_rows_in_the_order_of_its_query(connection):
    run(connection, "CREATE TABLE in_order AS SELECT value AS v FROM generate_series(1, 100000)")
    function(connection, "three(t TABLE) RETURNS TABLE (v int64)", FIRST_THREE)
    assert rows(connection, "SELECT * FROM three((SELECT v FROM in_order ORDER BY v))") == [(1,), (2,), (3,)]
    assert rows(connection, "SELECT * FROM three((SELECT v FROM in_order ORDER BY v DESC))")[0] == (100000,)


FIRST_THREE = """
import itertools
def three(t):
    for row in itertools.islice(t, 3):
        yield row.v
"""


def test_rows_before_an_error_of_the_input_are_transformed(connection):
    body = "def failing():\n    yield 1\n    yield 2\n    raise ValueError('mine')"
    create(connection, "failing", "n int64", body, mode="streaming")
    function(
        connection, "same(t TABLE) RETURNS TABLE (n int64)", "def same(t):\n    for row in t:\n        yield row.n"
    )
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM same(failing)")
        reader = cursor.fetch_record_batch()
        found = []
        with pytest.raises(Exception, match="ValueError: mine"):
            while True:
                found += reader.read_next_batch().column(0).to_pylist()
    assert found == [1, 2]


def test_explain_analyze_watches_a_transform_of_a_stream(connection):
    create(
        connection,
        "ticks_for_analyze",
        "n int64",
        "import itertools\ndef read():\n    yield from itertools.count()",
        mode="streaming",
        read_function_name="read",
    )
    function(
        connection, "same(t TABLE) RETURNS TABLE (n int64)", "def same(t):\n    for row in t:\n        yield row.n"
    )
    found = rows(connection, "EXPLAIN ANALYZE SELECT * FROM same(ticks_for_analyze)")
    assert "TableFunctionExec: function=same" in found[0][1]


def test_an_aggregates_state_is_what_deserialize_gives(connection):
    aggregate(connection, "sums(n int64) RETURNS int64", SERIALIZED)
    run(connection, "CREATE TABLE serialized AS SELECT value AS v FROM generate_series(1, 100000)")
    assert rows(connection, "SELECT v % 2 AS k, sums(v) FROM serialized GROUP BY k ORDER BY k") == [
        (0, 2500050000),
        (1, 2500000000),
    ]


SERIALIZED = """
class sums:
    def __init__(self): self.sum = 0
    def process(self, n): self.sum += sum(n)
    def merge(self, other): self.sum += other.sum
    def finalize(self): return self.sum
    def serialize(self): return str(self.sum).encode()
    @classmethod
    def deserialize(cls, state):
        made = cls()
        made.sum = int(state)
        return made
"""


MERGED = SERIALIZED.replace("sums", "merged").replace(
    "def merge(self, other): self.sum += other.sum",
    "def merge(self, other):\n        made = merged()\n        made.sum = self.sum + other.sum\n        return made",
)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("def deserialize(self):", "sums.deserialize() cannot be called as it is: "),
        ("def deserialize(self, *, state):", "sums.deserialize() cannot be called as it is: "),
    ],
)
def test_a_state_that_cannot_be_read_names_the_method(connection, wrong, said):
    body = SERIALIZED.replace("@classmethod\n    def deserialize(cls, state):", wrong)
    aggregate(connection, "sums(n int64) RETURNS int64", body)
    run(connection, "CREATE OR REPLACE TABLE serialized_wrong AS SELECT value AS v FROM generate_series(1, 100000)")
    assert said in error(connection, "SELECT v % 2 AS k, sums(v) FROM serialized_wrong GROUP BY k")


def test_an_aggregate_that_is_merged_is_what_merge_gives(connection):
    aggregate(connection, "merged(n int64) RETURNS int64", MERGED)
    run(connection, "CREATE TABLE merged_of AS SELECT value AS v FROM generate_series(1, 100000)")
    assert rows(connection, "SELECT merged(v) FROM merged_of") == [(5000050000,)]
    aggregate(
        connection,
        "unmerged(n int64) RETURNS int64",
        SERIALIZED.replace("sums", "unmerged").replace("self.sum += other.sum", "return 5"),
    )
    assert "unmerged.merge() returned 5; expected None, as it fills self, or a unmerged" in error(
        connection, "SELECT unmerged(v) FROM merged_of"
    )


def test_what_is_computed_is_computed_once_and_where_it_stands(connection):
    """Conditions without NULLs, volatile values under conditions, and conditions about no column."""
    run(connection, "CREATE TABLE without_nulls AS SELECT value AS v, value % 2 AS k FROM generate_series(1, 10)")
    aggregate(connection, "sums_of(n int64) RETURNS int64", SERIALIZED.replace("sums", "sums_of"))
    sql = "SELECT k, sums_of(v) FILTER (WHERE v < 5) FROM without_nulls GROUP BY k ORDER BY k"
    assert rows(connection, sql) == [(0, 6), (1, 4)]
    body = "import itertools\ncount = itertools.count()\ndef counted(n):\n    return [next(count) for _ in n]"
    function(connection, "counted(n int64) RETURNS int64", body)
    sql = "SELECT c FROM (SELECT counted(v) AS c FROM without_nulls WHERE v > 0) WHERE c > 0"
    assert sorted(rows(connection, sql)) == [(n,) for n in range(1, 10)]
    body = "def all_of(t):\n    yield sum(row.v for row in t),"
    function(connection, "all_of(t TABLE) RETURNS TABLE (n int64)", body)
    function(connection, "never() RETURNS bool", "def never():\n    return False")
    assert rows(connection, "SELECT n FROM all_of(without_nulls) WHERE NOT never()") == [(55,)]
    assert rows(connection, "SELECT n FROM all_of(without_nulls) WHERE never()") == []


# What files and functions of SQL give, and no stream declares: an expression, and what Python is given.
FOREIGN = {
    "md5('a')": "'0cc175b9c0f1b6a831c399e269772661'",
    "arrow_cast('a', 'Utf8View')": "'a'",
    "arrow_cast('a', 'LargeUtf8')": "'a'",
    "arrow_cast('a', 'BinaryView')": "b'a'",
    "arrow_cast('a', 'LargeBinary')": "b'a'",
    "arrow_cast([1, 2], 'LargeList(Int64)')": "[1, 2]",
    "arrow_cast([1, 2], 'FixedSizeList(2, Int64)')": "[1, 2]",
    "arrow_cast([md5('a')], 'LargeList(Utf8View)')": "['0cc175b9c0f1b6a831c399e269772661']",
    "named_struct('a', arrow_cast('a', 'Utf8View'), 'b', 1)": "('a', 1)",
    "arrow_cast(1.5, 'Float16')": "1.5",
    "arrow_cast(12, 'Duration(Second)')": "datetime.timedelta(seconds=12)",
    "arrow_cast(12, 'Duration(Nanosecond)')": "datetime.timedelta(0)",
    "TIME '10:00:00'": "datetime.time(10, 0)",
    "arrow_cast(TIME '10:00:00', 'Time32(Second)')": "datetime.time(10, 0)",
    "arrow_cast('2026-01-02', 'Date64')": "datetime.date(2026, 1, 2)",
    "arrow_cast('1.5', 'Decimal64(4, 1)')": "Decimal('1.5')",
    "arrow_cast('a', 'Dictionary(Int32, Utf8View)')": "'a'",
    "arrow_cast(NULL, 'Utf8View')": "None",
}


@pytest.mark.parametrize("expression", FOREIGN)
def test_values_that_no_stream_declares_are_like_others(connection, expression):
    body = "def told(t):\n    for row in t:\n        yield repr(row.x)"
    function(connection, "told(t TABLE) RETURNS TABLE (s string)", body)
    assert rows(connection, f"SELECT s FROM told((SELECT {expression} AS x))") == [(FOREIGN[expression],)]


def test_a_transform_is_not_lateral(connection, few):
    body = "def same(t, n):\n    for row in t:\n        yield row.a"
    function(connection, "same(t TABLE, n int) RETURNS TABLE (n int64)", body)
    assert "'same': it cannot be joined LATERAL" in error(connection, "SELECT * FROM few, LATERAL same(few, few.a)")


REPEATED = [
    "CREATE OR REPLACE FUNCTION both(n int) RETURNS int LANGUAGE PYTHON AS $$\ndef both(n): return n\n$$",
    "CREATE FUNCTION IF NOT EXISTS both(n int) RETURNS int LANGUAGE PYTHON AS $$\ndef both(n): return n\n$$",
    "CREATE OR REPLACE EXTERNAL STREAM both (n int) AS $$\ndef both(): return [1]\n$$ SETTINGS type = 'python'",
    "CREATE EXTERNAL STREAM IF NOT EXISTS both (n int) AS $$\ndef both(): return [1]\n$$ SETTINGS type = 'python'",
]


@pytest.mark.parametrize("statement", REPEATED)
def test_what_may_be_there_may_be_made_by_several_at_once(server, connection, statement):
    def make(_):
        with server.connect() as own:
            for _ in range(10):
                run(own, statement)
                dropped = "FUNCTION" if "FUNCTION" in statement else "STREAM"
                run(own, f"DROP {dropped} IF EXISTS both")

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(make, range(4))) == [None] * 4
