"""Parameters keep what they are: SQL's rules bring them together with the rest, and a sink takes what fits."""

import datetime
import decimal

import pytest
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
