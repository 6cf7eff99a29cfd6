"""UPDATE and DELETE of tables in memory: they change the rows that they name, and no others, and count them."""

import datetime
import decimal
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import PATIENCE, create, error, queries, rows, run, value, wait_until

ROWS = [(1, "a", 0), (2, "b", 0), (3, None, 0)]


@pytest.fixture
def people(connection):
    run(connection, "CREATE OR REPLACE TABLE people (id int NOT NULL, name varchar, hit int)")
    run(connection, "INSERT INTO people VALUES (1, 'a', 0), (2, 'b', 0), (3, NULL, 0)")
    run(connection, "CREATE OR REPLACE TABLE others AS SELECT 1 AS id")
    yield
    run(connection, "DROP TABLE people; DROP TABLE others")


def found(connection):
    return rows(connection, "SELECT id, name, hit FROM people ORDER BY id")


CONDITIONS = {
    "id = 2": [2],
    "name IS NULL": [3],
    "id > 1 AND name LIKE 'b%'": [2],
    "id NOT IN (1, 2)": [3],
    "id = 7": [],
    "id = 1 OR true": [1, 2, 3],
    "true": [1, 2, 3],
}

# What planning knows to be met by no row.
IMPOSSIBLE = [
    "false",
    "1 = 0",
    "NULL",
    "name = NULL",
    "id = 1 AND false",
    "id = 1 AND id = 2",
    "id IS NULL",
    "upper('a') = 'b'",
    "coalesce(NULL, false)",
]

# What is met by the first row alone, as far as it is offered.
SUBQUERIES = [
    "id IN (SELECT id FROM others)",
    "id NOT IN (SELECT id + 1 FROM others UNION ALL SELECT id + 2 FROM others)",
    "EXISTS (SELECT 1 FROM others WHERE others.id = people.id)",
    "id = (SELECT max(id) FROM others)",
]


@pytest.mark.parametrize("condition", [*CONDITIONS, *IMPOSSIBLE])
def test_an_update_changes_the_rows_that_it_names(connection, people, condition):
    named = CONDITIONS.get(condition, [])
    assert run(connection, f"UPDATE people SET hit = 9 WHERE {condition}") == len(named)
    assert found(connection) == [(id, name, 9 if id in named else 0) for id, name, _ in ROWS]


@pytest.mark.parametrize("condition", [*CONDITIONS, *IMPOSSIBLE])
def test_a_delete_removes_the_rows_that_it_names(connection, people, condition):
    named = CONDITIONS.get(condition, [])
    assert run(connection, f"DELETE FROM people WHERE {condition}") == len(named)
    assert found(connection) == [row for row in ROWS if row[0] not in named]


def test_without_a_condition_all_rows_are_named(connection, people):
    assert run(connection, "UPDATE people SET hit = hit + id") == 3
    assert found(connection) == [(id, name, id) for id, name, _ in ROWS]
    assert run(connection, "DELETE FROM people") == 3
    assert found(connection) == []


def done_or_refused(connection, sql):
    """Whether a statement was done; where it was not, it is an error."""
    try:
        run(connection, sql)
    except connection.Error:
        return False
    return True


@pytest.mark.parametrize("condition", SUBQUERIES)
def test_a_condition_on_other_tables_is_kept_or_refused(connection, people, condition):
    done = done_or_refused(connection, f"UPDATE people SET hit = 9 WHERE {condition}")
    assert found(connection) == [(id, name, 9 if id == 1 and done else 0) for id, name, _ in ROWS]
    run(connection, "UPDATE people SET hit = 0")
    done = done_or_refused(connection, f"DELETE FROM people WHERE {condition}")
    assert found(connection) == [row for row in ROWS if row[0] != 1 or not done]


def test_a_delete_of_some_rows_is_kept_or_refused(connection, people):
    done = done_or_refused(connection, "DELETE FROM people LIMIT 1")
    assert len(found(connection)) == (2 if done else 3)


@pytest.mark.parametrize("sql", ["UPDATE people SET hit = 9 WHERE name = ?", "DELETE FROM people WHERE name = ?"])
def test_a_null_parameter_equals_nothing(connection, people, sql):
    assert run(connection, sql, (None,)) == 0
    assert found(connection) == ROWS


@pytest.mark.parametrize("sql", ["UPDATE people SET hit = 9 WHERE ?", "DELETE FROM people WHERE ?"])
def test_a_parameter_may_be_the_condition(connection, people, sql):
    assert run(connection, sql, (False,)) == 0
    assert found(connection) == ROWS


@pytest.mark.parametrize(
    ("column", "stored", "given"),
    [
        ("decimal(10, 2)", "1.25", decimal.Decimal("1.254")),
        ("decimal(10, 2)", "1.25", 1.254),
        ("date", "'2024-01-01'", datetime.datetime(2024, 1, 1, 12)),
        ("int", "1", 1.4),
        ("int", "1", decimal.Decimal("1.4")),
    ],
)
def test_a_parameter_is_not_rounded_before_it_is_compared(connection, column, stored, given):
    """Else what a SELECT does not find would be changed."""
    run(connection, f"CREATE OR REPLACE TABLE kept AS SELECT CAST({stored} AS {column}) AS c, 0 AS hit")
    assert rows(connection, "SELECT hit FROM kept WHERE c = ?", (given,)) == []
    assert run(connection, "DELETE FROM kept WHERE c = ?", (given,)) == 0
    assert run(connection, "UPDATE kept SET hit = 9 WHERE c = ?", (given,)) == 0
    assert rows(connection, "SELECT hit FROM kept") == [(0,)]
    run(connection, "DROP TABLE kept")


REPEATED = [
    ("UPDATE people SET hit = id * 2 + 1, name = cast(id * 2 + 1 AS varchar)", [(1, "3", 3), (2, "5", 5), (3, "7", 7)]),
    ("UPDATE people SET hit = hit + 1 WHERE hit = hit + 0", [(1, "a", 1), (2, "b", 1), (3, None, 1)]),
    ("UPDATE people SET hit = 5 WHERE id BETWEEN 1.5 AND 2.5", [(1, "a", 0), (2, "b", 5), (3, None, 0)]),
    ("UPDATE people SET hit = hit", ROWS),
    ("DELETE FROM people WHERE id * 2 + 1 > 3 AND id * 2 + 1 < 7", [ROWS[0], ROWS[2]]),
]


@pytest.mark.parametrize(("sql", "expected"), REPEATED)
def test_an_expression_may_stand_in_a_statement_twice(connection, people, sql, expected):
    run(connection, sql)
    assert found(connection) == expected


TYPED = [
    ("UPDATE typed SET s = CASE WHEN s = 1 THEN s ELSE 7 END", [(1, 1.5, "1.25"), (7, 2.5, "2.25")]),
    ("UPDATE typed SET s = coalesce(NULL, s, 7), f = CASE WHEN s = 1 THEN s ELSE 3 END",
     [(1, 1.0, "1.25"), (2, 3.0, "2.25")]),
    ("UPDATE typed SET d = CASE WHEN s = 1 THEN d ELSE 0.5 END", [(1, 1.5, "1.25"), (2, 2.5, "0.50")]),
    ("UPDATE typed AS t SET f = t.s + 1 WHERE t.s > 1", [(1, 1.5, "1.25"), (2, 3.0, "2.25")]),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "expected"), TYPED)
def test_values_get_the_types_of_their_columns(connection, sql, expected):
    run(connection, "CREATE OR REPLACE TABLE typed (s SMALLINT, f DOUBLE, d DECIMAL(5, 2)) AS VALUES (1, 1.5, 1.25)")
    run(connection, "INSERT INTO typed VALUES (2, 2.5, 2.25)")
    run(connection, sql)
    assert rows(connection, "SELECT s, f, CAST(d AS VARCHAR) FROM typed ORDER BY s") == expected


def test_what_was_prepared_is_planned_anew(connection):
    run(connection, "CREATE TABLE below (n BIGINT) AS VALUES (1); CREATE VIEW above AS SELECT n FROM below")
    run(connection, "PREPARE look AS SELECT n FROM above; PREPARE more(BIGINT) AS SELECT n + $1 AS m FROM above")
    assert rows(connection, "EXECUTE look") == [(1,)]
    run(connection, "CREATE OR REPLACE VIEW above AS SELECT n * 10 AS n FROM below")
    assert rows(connection, "EXECUTE look") == [(10,)]
    assert rows(connection, "EXECUTE more(5)") == [(15,)]
    run(connection, "DROP VIEW above")
    assert "above" in error(connection, "EXECUTE look")
    run(connection, "DEALLOCATE look")
    assert "look" in error(connection, "EXECUTE look")
    run(connection, "DROP TABLE below; DEALLOCATE more")


@pytest.mark.parametrize("explain", ["EXPLAIN", "EXPLAIN VERBOSE", "EXPLAIN FORMAT TREE"])
def test_what_is_explained_changes_nothing(connection, people, explain):
    for sql in ["DELETE FROM people", "UPDATE people SET hit = 9", "DELETE FROM people WHERE id = 1"]:
        assert "ChangeExec" in str(rows(connection, f"{explain} {sql}"))
        assert found(connection) == ROWS
    rows(connection, "EXPLAIN ANALYZE DELETE FROM people WHERE id = 1")
    assert found(connection) == ROWS[1:]


def test_a_view_over_a_table_that_is_gone_is_gone(connection, people):
    run(connection, "CREATE SCHEMA IF NOT EXISTS side")
    run(connection, "CREATE TABLE kept AS SELECT 1 AS n; CREATE VIEW seen AS SELECT n FROM kept")
    run(connection, "CREATE VIEW side.seen AS SELECT n FROM couatl.public.seen; PREPARE more AS SELECT n FROM kept")
    run(connection, "CREATE OR REPLACE TABLE kept AS SELECT 2 AS n")
    assert rows(connection, "SELECT * FROM seen") == rows(connection, "SELECT * FROM side.seen") == [(2,)]
    assert rows(connection, "EXECUTE more") == [(2,)]
    run(connection, "DROP TABLE kept")
    assert "kept" in error(connection, "EXECUTE more")
    for view in ["seen", "side.seen"]:
        assert "kept" in error(connection, f"SELECT * FROM {view}")
    run(connection, "DROP VIEW side.seen; DROP VIEW seen; DROP SCHEMA side")


SLOW = "length(replace(repeat('ab', 20000 + cast(n AS int)), 'a', 'bb')) > 0"


CHANGES = [
    f"UPDATE slow SET n = -n WHERE {SLOW}",
    f"DELETE FROM slow WHERE {SLOW}",
    f"INSERT INTO slow SELECT n - 9 FROM slow WHERE {SLOW}",
    f"CREATE OR REPLACE TABLE slow AS SELECT n FROM slow WHERE NOT ({SLOW})",
]


@pytest.mark.parametrize("how", ["kill", "cancel"])
@pytest.mark.parametrize("sql", CHANGES)
def test_a_change_that_was_cancelled_has_changed_nothing(server, connection, sql, how):
    run(connection, "CREATE OR REPLACE TABLE slow AS SELECT value AS n FROM generate_series(1, 3000)")
    with ThreadPoolExecutor(1) as pool, server.connect() as other, other.cursor() as cursor:

        def change():
            with pytest.raises(other.Error) as caught:
                cursor.execute(sql)
            return str(caught.value)

        failed = pool.submit(change)

        def running():
            return [id for id, text, _ in queries(connection) if text == sql]

        (query,) = wait_until(running, "the change runs")
        if how == "kill":
            run(connection, f"KILL QUERY '{query}'")
        else:
            cursor.adbc_cancel()
        assert "cancel" in failed.result(PATIENCE)
    wait_until(lambda: not queries(connection), "its end", PATIENCE)
    assert rows(connection, "SELECT count(*), min(n) FROM slow") == [(3000, 1)]
    run(connection, "DROP TABLE slow")


def test_a_broken_view_keeps_its_definition(connection):
    run(connection, "CREATE TABLE base AS SELECT 1 AS x; CREATE VIEW broken AS SELECT x FROM base; DROP TABLE base")
    assert "SELECT x FROM base" in str(rows(connection, "SHOW CREATE TABLE broken"))
    run(connection, "DROP VIEW broken")


def test_what_replaces_a_table_and_fails_leaves_it(connection):
    run(connection, "CREATE TABLE kept AS SELECT value AS n FROM generate_series(1, 10)")
    assert "Divide by zero" in error(connection, "CREATE OR REPLACE TABLE kept AS SELECT 1 / (n - 5) AS m FROM kept")
    assert value(connection, "SELECT count(n) FROM kept") == 10
    run(connection, "CREATE OR REPLACE TABLE kept AS SELECT n + 1 AS n FROM kept")
    assert rows(connection, "SELECT min(n), max(n) FROM kept") == [(2, 11)]
    assert "already exists" in error(connection, "CREATE TABLE kept AS SELECT 1 AS n")
    run(connection, "CREATE TABLE IF NOT EXISTS kept AS SELECT 1 AS other")
    assert value(connection, "SELECT count(n) FROM kept") == 10
    assert "two columns are named 'n'" in error(connection, "CREATE TABLE more AS SELECT a.n, b.n FROM kept a, kept b")
    run(connection, "DROP TABLE kept")


def test_rows_that_came_with_parameters_are_rows_of_their_table(connection):
    run(connection, "CREATE TABLE strict (id BIGINT NOT NULL, name VARCHAR)")
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO strict VALUES (?, ?)", [(1, "a"), (2, "b")])
        cursor.execute("INSERT INTO strict VALUES (?, ?)", (3, None))
    run(connection, "INSERT INTO strict SELECT value, 'x' FROM generate_series(4, 5)")
    assert run(connection, "UPDATE strict SET name = 'z' WHERE id > 1") == 4
    assert run(connection, "DELETE FROM strict WHERE id > 3") == 2
    run(connection, "CREATE TABLE copied AS SELECT * FROM strict")
    assert rows(connection, "SELECT * FROM copied ORDER BY id") == [(1, "a"), (2, "z"), (3, "z")]
    assert "non-nullable" in error(connection, "INSERT INTO strict VALUES (NULL, 'x')")
    run(connection, "DROP TABLE strict; DROP TABLE copied")


def test_tables_are_read_and_written_while_they_are_changed(server, connection):
    """What others insert meanwhile is neither lost nor left out."""
    run(connection, "CREATE OR REPLACE TABLE slow AS SELECT value AS n FROM generate_series(1, 1500)")
    sql = f"UPDATE slow SET n = -abs(n) WHERE {SLOW.replace('n AS', 'abs(n) AS')}"
    with ThreadPoolExecutor(1) as pool, server.connect() as other:
        changing = pool.submit(run, other, sql)
        wait_until(lambda: [text for _, text, _ in queries(connection) if text == sql], "the change runs")
        assert value(connection, "SELECT count(*) FROM slow WHERE n > 0") in (1500, 0)
        run(connection, "INSERT INTO slow VALUES (2000)")
        changing.result(PATIENCE)
    found = rows(connection, "SELECT count(*), sum(CASE WHEN abs(n) = 2000 THEN 1 ELSE 0 END) FROM slow")
    assert found == [(1501, 1)]
    assert value(connection, "SELECT count(*) FROM slow WHERE n > 0 AND n < 2000") == 0
    run(connection, "DROP TABLE slow")


def test_execute_takes_values_exactly(connection):
    run(connection, "CREATE TABLE counted AS SELECT 1 AS id UNION ALL SELECT 2 AS id")
    run(
        connection,
        "PREPARE gone AS DELETE FROM counted WHERE id = $1; PREPARE seen AS SELECT id FROM counted WHERE id = $1",
    )
    assert rows(connection, "EXECUTE seen(1.5)") == []
    assert run(connection, "EXECUTE gone(1.4)") == 0
    assert run(connection, "EXECUTE gone(1)") == 1
    run(connection, "PREPARE small(SMALLINT) AS SELECT $1 + 1 AS x")
    assert rows(connection, "EXECUTE small(-5)") == rows(connection, "EXECUTE small('-5')") == [(-4,)]
    assert "parameter $1 (int16): cannot take 5.5" in error(connection, "EXECUTE small(5.5)")
    assert "expected 1 parameter, got 2" in error(connection, "EXECUTE seen(1, 2)")
    run(connection, "PREPARE whole(BOOLEAN) AS SELECT $1 AS b; PREPARE day(DATE) AS SELECT $1 AS d")
    assert "parameter $1 (bool): cannot take" in error(connection, "EXECUTE whole(2)")
    assert "parameter $1 (date): cannot take" in error(connection, "EXECUTE day(19723)")
    assert rows(connection, "EXECUTE day('2026-01-02')") == [(datetime.date(2026, 1, 2),)]
    run(connection, "PREPARE view_type AS SELECT md5('a') AS x")
    assert rows(connection, "EXECUTE view_type") == [("0cc175b9c0f1b6a831c399e269772661",)]
    assert "a statement is prepared as 'small' already" in error(connection, "PREPARE small AS SELECT 1")
    assert "none of PREPARE, EXECUTE" in error(connection, "PREPARE again AS EXECUTE small(1)")
    assert run(connection, "PREPARE put AS INSERT INTO counted VALUES ($1); EXECUTE put(7)") == 1
    create(connection, "taking", "n int32", "def taking(n): pass", mode="auto")
    run(connection, "PREPARE give AS INSERT INTO taking VALUES ($1)")
    assert "it is no whole number" in error(connection, "EXECUTE give(1.5)")
    run(connection, "DROP TABLE counted; DROP STREAM taking")


def test_uuids_are_named_by_their_text(connection):
    body = "import uuid\n\ndef made():\n    return [(uuid.UUID(int=n), n) for n in range(4)]"
    create(connection, "made", "u uuid, n int64", body, mode="batch")
    run(connection, "CREATE TABLE ids AS SELECT * FROM made")
    text = "00000000-0000-0000-0000-00000000000{}"
    run(connection, "PREPARE gone AS DELETE FROM ids WHERE u = $1; PREPARE seen AS SELECT n FROM ids WHERE u = $1")
    assert rows(connection, f"EXECUTE seen('{text.format(1)}')") == [(1,)]
    assert run(connection, f"EXECUTE gone('{text.format(1)}')") == 1
    assert run(connection, "DELETE FROM ids WHERE u = ?", (text.format(2),)) == 1
    assert run(connection, "UPDATE ids SET n = 9 WHERE u = ?", (text.format(3),)) == 1
    assert rows(connection, "SELECT n FROM ids ORDER BY n") == [(0,), (9,)]
    run(connection, "DROP TABLE ids; DROP STREAM made")


def test_a_session_keeps_so_many_statements(server):
    with server.connect() as connection:
        for number in range(8):
            run(connection, f"PREPARE long{number} AS SELECT length('{'x' * 8_000_000}') AS n")
        assert "has no room for another one" in error(connection, f"PREPARE more AS SELECT '{'x' * 8_000_000}' AS n")
        run(connection, "DEALLOCATE long0")
        run(connection, f"PREPARE more AS SELECT length('{'x' * 8_000_000}') AS n")
        assert value(connection, "EXECUTE more") == 8_000_000


def test_what_is_unique_may_be_null_twice(connection):
    run(connection, "CREATE TABLE once (a INT, UNIQUE (a) NOT ENFORCED)")
    run(connection, "INSERT INTO once VALUES (NULL), (NULL), (1)")
    assert sorted(rows(connection, "SELECT DISTINCT a FROM once"), key=str) == [(1,), (None,)]
    run(connection, "DROP TABLE once")


MEANWHILE = {
    "an insert": ("INSERT INTO kept VALUES (777)", [(1,), (777,)]),
    "a drop": ("DROP TABLE kept", None),
    "another table": ("CREATE OR REPLACE TABLE kept AS SELECT 5 AS n", [(5,)]),
}


@pytest.mark.parametrize("what", MEANWHILE)
def test_what_is_done_to_a_table_while_it_is_replaced_is_not_lost(server, connection, tmp_path, what):
    go = tmp_path / "go"
    body = f"""
    import os, time

    def slow():
        while not os.path.exists({str(go)!r}):
            time.sleep(0.001)
        return [(2,)]
    """
    create(connection, "slow", "n int64", body, mode="batch")
    run(connection, "CREATE TABLE kept AS SELECT 1::BIGINT AS n")
    sql = "CREATE OR REPLACE TABLE kept AS SELECT n FROM kept UNION ALL SELECT n FROM slow"
    with ThreadPoolExecutor(1) as pool, server.connect() as other:
        replacing = pool.submit(error, other, sql)
        wait_until(lambda: [text for _, text, _ in queries(connection) if text == sql], "the query runs")
        done, expected = MEANWHILE[what]
        run(connection, done)
        go.touch()
        assert "meanwhile: nothing has been changed" in replacing.result(PATIENCE)
    if expected is None:
        assert "not found" in error(connection, "SELECT * FROM kept")
    else:
        assert sorted(rows(connection, "SELECT n FROM kept")) == expected
        run(connection, "DROP TABLE kept")
    run(connection, "DROP STREAM slow")


def test_whole_numbers_are_not_made_of_others_unsaid(connection):
    run(connection, "CREATE TABLE big AS SELECT 9007199254740993 AS n, 1 AS id")
    message = error(connection, "UPDATE big SET n = CASE WHEN id = 1 THEN n ELSE 7.0 END")
    assert "column 'n' (int64) takes whole numbers" in message
    assert rows(connection, "SELECT n FROM big") == [(9007199254740993,)]
    run(connection, "DROP TABLE big")
