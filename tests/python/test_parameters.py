"""Parameters keep what they are: SQL's rules bring them together with the rest, and a sink takes what fits."""

import datetime
import decimal
import re

import pyarrow
import pytest
from adbc_driver_flightsql import dbapi
from harness import create, error, rows, run, value

NUMBERS = "(SELECT column1 AS x FROM (VALUES (1), (2)))"


@pytest.mark.parametrize(
    ("sql", "parameters", "expected"),
    [
        (f"SELECT x FROM {NUMBERS} WHERE x = ?", (1.5,), []),
        (f"SELECT x FROM {NUMBERS} WHERE x < ?", (1.5,), [(1,)]),
        (f"SELECT x FROM {NUMBERS} WHERE x >= ?", (1.5,), [(2,)]),
        (f"SELECT x FROM {NUMBERS} WHERE arrow_cast(x, 'Int8') < ?", (300,), [(1,), (2,)]),
        (f"SELECT x FROM {NUMBERS} WHERE x = ?", ("2",), [(2,)]),
        (f"SELECT x FROM {NUMBERS} WHERE x = ?", (None,), []),
        (f"SELECT x FROM {NUMBERS} ORDER BY x LIMIT ?", (1,), [(1,)]),
        ("SELECT 1 + ?", (0.5,), [(1.5,)]),
        ("SELECT ? + 1", (1.5,), [(2.5,)]),
        ("SELECT 10 / ?", (0.5,), [(20.0,)]),
        ("SELECT 1 WHERE CAST('1.50' AS decimal(5, 2)) = ?", (decimal.Decimal("1.504"),), []),
        ("SELECT 1 WHERE DATE '2024-01-01' = ?", (datetime.datetime(2024, 1, 1, 12),), []),
        ("SELECT 1 WHERE DATE '2024-01-01' = ?", (datetime.date(2024, 1, 1),), [(1,)]),
        ("SELECT 1 WHERE TIMESTAMP '2024-01-01 00:00:00' < ?", ("2024-01-02",), [(1,)]),
        ("SELECT ?, ?", (1, "x"), [(1, "x")]),
    ],
)
def test_a_query_compares_them_as_they_are(connection, sql, parameters, expected):
    assert rows(connection, sql, parameters) == expected


def sink(connection, columns):
    create(
        connection,
        "taken",
        columns,
        """
        import builtins
        def opened():
            builtins.taken_calls = []
        def put(*columns):
            builtins.taken_calls.append(list(zip(*columns)))
            if any('bad' in row for row in zip(*columns)):
                raise ValueError('bad')
        """,
        read_function_name="put",
        write_function_name="put",
        init_function_name="opened",
    )
    create(
        connection, "calls", "v string", "def calls():\n    import builtins\n    return [repr(builtins.taken_calls)]"
    )


@pytest.mark.parametrize("bad", [1.9, decimal.Decimal("1.7"), 300, -1, "x"])
def test_a_sink_refuses_what_does_not_fit(connection, bad):
    sink(connection, "x uint8")
    message = error(connection, "INSERT INTO taken (x) VALUES (?)", (bad,))
    assert "stream 'taken', row 1 of the INSERT, column 'x' (uint8): cannot store" in message


def test_a_sink_takes_what_fits(connection):
    sink(connection, "x uint8, f float32, d date, s string")
    run(connection, "INSERT INTO taken VALUES (?, ?, ?, ?)", (2.0, 1, "2024-02-29", 7))
    assert value(connection, "SELECT v FROM calls") == "[[(2, 1.0, datetime.date(2024, 2, 29), '7')]]"


def test_many_rows_are_one_insert(connection):
    sink(connection, "x int32 NOT NULL, s string")
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO taken VALUES (? * 2, upper(?))", [(n, f"a{n}") for n in range(1000)])
        assert cursor.rowcount == 1000
    called = eval(value(connection, "SELECT v FROM calls"))
    assert [row for call in called for row in call] == [(2 * n, f"A{n}") for n in range(1000)]
    assert len(called) == 1


def test_many_rows_name_the_one_that_does_not_fit(connection):
    sink(connection, "x int32 NOT NULL, s string")
    with connection.cursor() as cursor, pytest.raises(connection.Error) as caught:
        cursor.executemany("INSERT INTO taken VALUES (?, ?)", [(1, "a"), (None, "b")])
    assert "row 2 of the INSERT, column 'x' (int32): cannot store NULL" in str(caught.value)


def test_a_sink_that_raises_says_how_many_rows_it_took(connection):
    body = """
    def put(x, s):
        if 'bad' in s:
            raise ValueError('bad')
    """
    create(connection, "each", "x int32, s string", body, batch_size=1, write_function_name="put")
    with connection.cursor() as cursor, pytest.raises(connection.Error) as caught:
        cursor.executemany("INSERT INTO each VALUES (?, ?)", [(1, "a"), (2, "b"), (3, "bad"), (4, "c")])
    assert "the write function had accepted 2 rows before" in str(caught.value)


def test_rows_are_counted_in_the_order_of_the_query(connection):
    sink(connection, "x int64 NOT NULL, s string")
    message = error(
        connection,
        "INSERT INTO taken (x) SELECT CASE WHEN value < 15000 THEN value END FROM generate_series(1, 20000)",
    )
    assert "row 15000 of the INSERT" in message
    assert "the write function had accepted 8192 rows before" in message


ROWS = """
    SELECT 1 AS b, CAST(1 AS int) AS i, CAST(1 AS bigint) AS l, 'a' AS s, TIMESTAMP '2024-01-01 00:00:00' AS ts,
        CAST(1.25 AS decimal(10, 2)) AS d, DATE '2024-01-01' AS day, 1.5 AS f, true AS yes, 0 AS hit
    UNION ALL SELECT 2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0
"""


@pytest.fixture
def changed(connection):
    """A table in memory whose second row has nothing but its key."""
    run(connection, f"CREATE OR REPLACE TABLE changed AS {ROWS}")
    yield "changed"
    run(connection, "DROP TABLE changed")


MOMENT = datetime.datetime(2024, 2, 3, 4, 5, 6, 789)


@pytest.mark.parametrize(
    ("column", "given", "stored"),
    [
        ("i", 7, 7),
        ("i", "8", 8),
        ("i", 2.0, 2),
        ("l", 2**40, 2**40),
        ("s", "it's ?", "it's ?"),
        ("ts", MOMENT, MOMENT),
        ("ts", MOMENT.replace(tzinfo=datetime.timezone.utc), MOMENT),
        ("ts", "2024-02-03 04:05:06.000789", MOMENT),
        ("d", decimal.Decimal("3.75"), decimal.Decimal("3.75")),
        ("d", 3, decimal.Decimal("3.00")),
        ("d", "4.25", decimal.Decimal("4.25")),
        ("day", datetime.date(2024, 2, 29), datetime.date(2024, 2, 29)),
        ("day", "2024-02-29", datetime.date(2024, 2, 29)),
        ("f", 2.5, 2.5),
        ("f", 3, 3.0),
        ("yes", False, False),
        *[(column, None, None) for column in ["i", "l", "s", "ts", "d", "day", "f", "yes"]],
    ],
)
def test_an_update_stores_what_drivers_send(connection, changed, column, given, stored):
    before = rows(connection, f"SELECT {column} FROM changed WHERE b = 2")
    assert run(connection, f"UPDATE changed SET {column} = ? WHERE b = ?", (given, 1)) == 1
    assert rows(connection, f"SELECT {column} FROM changed ORDER BY b") == [(stored,), *before]


@pytest.mark.parametrize(
    ("column", "given"),
    [
        ("i", 2**40),
        ("i", 1.5),
        ("i", "three"),
        ("d", decimal.Decimal("1e12")),
        ("ts", "yesterday"),
        ("yes", "maybe"),
    ],
)
def test_an_update_refuses_what_does_not_fit(connection, changed, column, given):
    before = rows(connection, "SELECT * FROM changed ORDER BY b")
    error(connection, f"UPDATE changed SET {column} = ? WHERE b = ?", (given, 1))
    assert rows(connection, "SELECT * FROM changed ORDER BY b") == before


@pytest.mark.parametrize(
    ("column", "given", "hits"),
    [
        ("b", 2, [0, 9]),
        ("b", "2", [0, 9]),
        ("b", 1.5, [0, 0]),
        ("b", 2**40, [0, 0]),
        ("s", "a", [9, 0]),
        ("ts", datetime.datetime(2024, 1, 1), [9, 0]),
        ("d", decimal.Decimal("1.250"), [9, 0]),
        ("day", datetime.date(2024, 1, 1), [9, 0]),
        ("yes", True, [9, 0]),
    ],
)
def test_an_update_finds_rows_by_what_drivers_send(connection, changed, column, given, hits):
    assert run(connection, f"UPDATE changed SET hit = ? WHERE {column} = ?", (9, given)) == hits.count(9)
    assert rows(connection, "SELECT hit FROM changed ORDER BY b") == [(hit,) for hit in hits]


def test_an_update_runs_once_for_each_row_of_parameters(connection, changed):
    with connection.cursor() as cursor:
        cursor.executemany("UPDATE changed SET i = ?, s = ? WHERE b = ?", [(5, "five", 1), (None, "six", 2)])
        assert cursor.rowcount == 2
    assert rows(connection, "SELECT i, s FROM changed ORDER BY b") == [(5, "five"), (None, "six")]


@pytest.fixture
def numbers(connection):
    run(connection, "CREATE OR REPLACE TABLE numbers (n int, s varchar)")
    yield "numbers"
    run(connection, "DROP TABLE numbers")


@pytest.mark.parametrize("count", [1, 2, 20_000])
def test_many_rows_into_a_table_are_counted(connection, numbers, count):
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO numbers VALUES (?, ?)", [(n, f"a{n}") for n in range(count)])
        assert cursor.rowcount == count
    assert rows(connection, "SELECT count(*), max(n) FROM numbers WHERE s = 'a' || n") == [(count, count - 1)]


@pytest.mark.parametrize("before", [0, 1, 20_000])
def test_many_rows_into_a_table_are_all_stored_or_none(connection, numbers, before):
    run(connection, "INSERT INTO numbers VALUES (0, 'there')")
    with connection.cursor() as cursor, pytest.raises(connection.Error) as caught:
        cursor.executemany("INSERT INTO numbers VALUES (?, ?)", [(1, "a")] * before + [(2**40, "b"), (2, "c")])
    assert f"row {before + 1} of the INSERT" in str(caught.value)
    assert rows(connection, "SELECT * FROM numbers") == [(0, "there")]


def test_batches_of_rows_into_a_table_are_all_stored_or_none(connection, numbers):
    def batches(last):
        given = [pyarrow.record_batch({"0": [n], "1": [f"a{n}"]}) for n in [1, 2, last]]
        return pyarrow.RecordBatchReader.from_batches(given[0].schema, given)

    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO numbers VALUES (?, ?)", batches(3))
        assert cursor.rowcount == 3
        with pytest.raises(connection.Error, match="row 3 of the INSERT"):
            cursor.executemany("INSERT INTO numbers VALUES (?, ?)", batches(2**40))
    assert rows(connection, "SELECT * FROM numbers ORDER BY n") == [(1, "a1"), (2, "a2"), (3, "a3")]


def test_several_rows_of_parameters_in_one_values(connection):
    sink(connection, "x int8, s string")
    run(connection, "INSERT INTO taken VALUES (?, ?), (?, 'two')", (1, "one", 2))
    assert value(connection, "SELECT v FROM calls") == "[[(1, 'one'), (2, 'two')]]"
    assert "row 1 of the INSERT" in error(connection, "INSERT INTO taken VALUES (?, ?), (?, 'two')", (1.5, "one", 2))


def test_prepare_leaves_its_parameters_to_execute(connection):
    run(connection, "PREPARE twice AS SELECT $1 * 2")
    assert rows(connection, "EXECUTE twice(21)") == [(42,)]
    run(connection, "DEALLOCATE twice")


def test_columns_that_are_cast_keep_their_names(connection):
    uuid = "0b3d53a0-6f5a-4b43-9df9-0c1fd6f0a6f9"
    assert rows(connection, f"SELECT '{uuid}'::uuid::text, CAST(to_uuid('{uuid}') AS text)") == [(uuid, uuid)]
    assert rows(connection, f"SELECT '{uuid}'::uuid") != []


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1 AS a UNION ALL SELECT 1.5 ORDER BY a", [1.0, 1.5]),
        ("SELECT CASE WHEN true THEN 1 ELSE 2.5 END", [1.0]),
        ("SELECT sum(a) FROM (SELECT 1 AS a UNION ALL SELECT 1.5)", [2.5]),
        ("SELECT a FROM (VALUES (1), (2), (3)) AS t (a) ORDER BY a LIMIT 1 OFFSET 1", [2]),
    ],
)
def test_what_is_announced_is_what_comes(connection, sql, expected):
    assert [row[0] for row in rows(connection, sql)] == expected


def test_a_time_less_a_span_is_a_time(connection):
    day = datetime.timedelta(days=1)
    run(connection, "CREATE OR REPLACE TABLE times AS SELECT now() AS ts")
    assert value(connection, "SELECT count(*) FROM times WHERE ts > now() - ?", (day,)) == 1
    assert value(connection, "SELECT count(*) FROM times WHERE ts < now() - ?", (day,)) == 0
    run(connection, "DROP TABLE times")


@pytest.mark.parametrize(
    ("sql", "parameters", "expected"),
    [
        ("SELECT ? || ?", ("a", "b"), [("ab",)]),
        (f"SELECT sum(?) FROM {NUMBERS}", (2,), [(4,)]),
        (f"SELECT $1 || x, count(*) FROM {NUMBERS} WHERE x = 2 GROUP BY $1 || x", ("a",), [("a2", 1)]),
        ("SELECT TIMESTAMP '2024-01-01' + ?", (datetime.timedelta(days=1),), [(datetime.datetime(2024, 1, 2),)]),
        ("SELECT * FROM generate_series(?, ?)", (1, 2), [(1,), (2,)]),
        (f"SELECT x FROM {NUMBERS} WHERE x = (SELECT sum(?))", (2,), [(2,)]),
        ("SELECT v FROM (VALUES (? || 'x' || ?), (?)) t(v)", (None, "b", "c"), [(None,), ("c",)]),
    ],
)
def test_a_query_that_has_no_plan_without_types_is_prepared(connection, sql, parameters, expected):
    assert rows(connection, sql, parameters) == expected


def test_its_parameters_and_columns_are_announced(connection):
    with connection.cursor() as cursor:
        announced = cursor.adbc_prepare("SELECT ? || ? AS both, sum(?) AS total")
        assert [(field.name, field.type) for field in announced] == [(f"${n}", pyarrow.string()) for n in (1, 2, 3)]
        cursor.execute("SELECT ? || ? AS both, sum(?) AS total", ("a", "b", 1))
        columns = pyarrow.schema({"both": pyarrow.string(), "total": pyarrow.int64()})
        assert cursor.fetch_record_batch().schema.equals(columns)
    with connection.cursor() as cursor, pytest.raises(dbapi.Error, match=r"did not provide schema|depend on the types"):
        cursor.adbc_execute_schema("SELECT ? || ? AS both")


def test_an_update_that_has_no_plan_without_types_runs(connection, numbers):
    sink(connection, "a string, b int32")
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO taken VALUES (? || ?, ?)", [("a", "b", 1), ("c", "d", 2)])
        assert cursor.rowcount == 2
    assert rows(connection, "SELECT * FROM calls") == [("[[('ab', 1), ('cd', 2)]]",)]
    run(connection, "CREATE TABLE made AS SELECT ? || ? AS both", ("a", "b"))
    run(connection, "UPDATE made SET both = ? || ? WHERE both = ?", ("c", "d", "ab"))
    assert rows(connection, "SELECT * FROM made") == [("cd",)]


@pytest.mark.parametrize(
    ("sql", "parameters", "expected"),
    [
        ("SELECT ? || ?", ("a",), "expected 2 parameters, got 1"),
        ("SELECT sum(?)", ("a",), "failed to match any signature"),
        ("SELECT nothing + ? || ?", ("a", "b"), "No field named nothing"),
        ("SELECT nothing(?) || ?", ("a", "b"), "Invalid function 'nothing'"),
        ("SELECT ? || ? FROM nothing", ("a", "b"), "table 'couatl.public.nothing' not found"),
        ("CREATE VIEW seen AS SELECT ? || ?", ("a", "b"), "a view cannot have parameters"),
        (
            "SELECT $one || $two",
            ("a", "b"),
            "expected parameters as \\? or \\$1, \\$2, … .*, which are bound by their place",
        ),
        (f"SELECT x FROM {NUMBERS} WHERE x = $one", (1,), "bound by their place; found \\$one"),
        (f"SELECT x FROM {NUMBERS} WHERE x = :one", (1,), "bound by their place; found :one"),
    ],
)
def test_what_no_types_would_help_is_refused(connection, sql, parameters, expected):
    assert re.search(expected, error(connection, sql, parameters))


def test_sql_prepares_them_too(connection):
    run(connection, "PREPARE both AS SELECT $1 || $2")
    assert value(connection, "EXECUTE both('a', 'b')") == "ab"
    run(connection, "PREPARE typed(string, string) AS SELECT $1 || $2")
    assert value(connection, "EXECUTE typed('a', 'b')") == "ab"


@pytest.mark.parametrize("sql", ["SELECT $99999999", "SELECT $99999999 || 'x'", "SELECT $65536", "SELECT $0"])
def test_the_number_of_a_parameter_is_bounded(connection, sql):
    """It is what a server would make that many fields for."""
    assert "expected parameters as ? or $1, $2, … up to $65535" in error(connection, sql, ("a",))


def test_updates_over_what_takes_values_alone_run_for_each_row(connection):
    sink(connection, "a int64, b string")
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO taken SELECT value, ? FROM generate_series(?, ?)", [("x", 1, 2), ("y", 5, 5)])
        assert cursor.rowcount == 3
    run(connection, "CREATE TABLE series AS SELECT value AS n FROM generate_series(?, ?)", (1, 3))
    assert rows(connection, "SELECT n FROM series ORDER BY n") == [(1,), (2,), (3,)]
    run(connection, "PREPARE span AS SELECT sum(value) FROM generate_series($1, $2)")
    assert value(connection, "EXECUTE span(1, 3)") == 6
    assert "expected 2 parameters, got 1" in error(connection, "EXECUTE span(1)")
    run(connection, "PREPARE each_of(int[]) AS SELECT unnest($1)")
    assert rows(connection, "EXECUTE each_of(ARRAY[1, 2])") == [(1,), (2,)]


@pytest.mark.parametrize(
    "clause", ["WHERE x || ? = '1a'", "ORDER BY x || ?", "WHERE CASE WHEN x || ? = '1a' THEN true END"]
)
def test_text_beside_a_number_is_what_a_literal_is(connection, clause):
    found = rows(connection, f"SELECT x FROM {NUMBERS} {clause}", ("a",))
    assert found == rows(connection, f"SELECT x FROM {NUMBERS} {clause.replace('?', chr(39) + 'a' + chr(39))}")


@pytest.mark.parametrize(
    ("name", "given"),
    [("datafusion.execution.batch_size", "x"), ("datafusion.execution.collect_statistics", "maybe")],
)
def test_a_wrong_value_of_a_setting_names_both(connection, name, given):
    message = error(connection, f"SET {name} = '{given}'")
    assert f"cannot set '{name}' to '{given}'" in message and "InvalidArgument" in message


def test_a_driver_may_count_in_text_beside_what_has_no_types(connection):
    assert rows(connection, "SELECT ? || ? LIMIT ?", ("a", "b", "1")) == [("ab",)]
    assert rows(connection, "SELECT unnest(?)", ([1, 2],)) == [(1,), (2,)]
    expected = "'Placeholder' (in the parser's words) is not offered here"
    assert expected in error(connection, "SET datafusion.execution.batch_size = ?", (77,))
