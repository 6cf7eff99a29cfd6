"""PostgreSQL, against a database."""

import datetime
import decimal
import threading
import uuid

import psycopg
import pytest
import services
from couatl import _writing
from couatl.sinks import Columns
from couatl.testing import check_resume, check_sink, check_source, rows_and_state
from couatl.testing import rows as rows_of
from harness import PATIENCE, create, error, query_running, rows, run, wait_for_text, wait_until
from postgresql import PostgresQuery, PostgresSink, PostgresTable


@pytest.fixture(scope="module")
def service():
    with services.PostgreSQL() as service:
        yield service


@pytest.fixture
def url(service):
    return service.url


@pytest.fixture
def database(url):
    with psycopg.connect(url, autocommit=True) as database:
        database.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        yield database
        others = "SELECT 1 FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        wait_until(lambda: not database.execute(others).fetchall(), "an end of all connections", 2)


@pytest.fixture
def query(url, stream):
    def make(sql, **settings):
        stream("found", "postgresql:PostgresQuery", mode="batch", url=url, query=sql, **settings)

    return make


@pytest.fixture
def orders(database):
    database.execute("CREATE TABLE orders (id bigint PRIMARY KEY, item text)")

    def add(*ids):
        database.cursor().executemany("INSERT INTO orders VALUES (%s, %s)", [(id, f"item {id}") for id in ids])

    return add


def items(*ids):
    return [(id, f"item {id}") for id in ids]


def backends(database):
    """What others do there."""
    sql = """
        SELECT query FROM pg_stat_activity
        WHERE pid <> pg_backend_pid() AND backend_type = 'client backend' AND state <> 'idle'
    """
    return [text for (text,) in database.execute(sql).fetchall()]


TYPES = {
    "true": ("bool", True),
    "1::int2": ("int16", 1),
    "2::int4": ("int32", 2),
    "3::int8": ("int64", 3),
    "1.5::float4": ("float32", 1.5),
    "2.5::float8": ("float64", 2.5),
    "1.25::numeric(5, 2)": ("decimal(5, 2)", decimal.Decimal("1.25")),
    "1.5::numeric": ("decimal(38, 10)", decimal.Decimal("1.5")),
    "'a'::text": ("string", "a"),
    "'a'::varchar(3)": ("string", "a"),
    "'\\x00ff'::bytea": ("binary", b"\0\xff"),
    "'2026-01-02'::date": ("date", datetime.date(2026, 1, 2)),
    "'10:20:30'::time": ("time", datetime.time(10, 20, 30)),
    "'2026-01-02 10:20:30'::timestamp": ("timestamp", datetime.datetime(2026, 1, 2, 10, 20, 30)),
    "'2026-01-02 10:20:30+02'::timestamptz": (
        "timestamptz",
        datetime.datetime(2026, 1, 2, 8, 20, 30, tzinfo=datetime.timezone.utc),
    ),
    "'0b3d53a0-6f5a-4b43-9df9-0c1fd6f0a6f9'::uuid": ("uuid", uuid.UUID("0b3d53a0-6f5a-4b43-9df9-0c1fd6f0a6f9")),
    "'[1, \"x\"]'::jsonb": ("json", '[1, "x"]'),
    "'5'::json": ("json", "5"),
    "ARRAY[1, NULL]": ("array(int32)", [1, None]),
    "NULL::text": ("string", None),
}


def test_types_are_known(query, connection):
    query("SELECT " + ", ".join(f'{sql} AS "c {n}"' for n, sql in enumerate(TYPES)))
    described = [row[1] for row in rows(connection, "DESCRIBE found")]
    assert [type.replace(" ", "") for type in described] == [type.replace(" ", "") for type, _ in TYPES.values()]
    (found,) = rows(connection, "SELECT * FROM found")
    assert list(found) == [value for _, value in TYPES.values()]


def test_an_unknown_type_is_refused_at_create(url, connection):
    sql = "CREATE EXTERNAL STREAM refused SETTINGS type = 'python', class = 'postgresql:PostgresQuery', "
    sql += f"url = '{url}', query = "
    assert "column 'a' is of PostgreSQL's type inet: cast it" in error(connection, f"{sql}$$SELECT '::1'::inet AS a$$")
    assert "column 'b' is of PostgreSQL's type interval: cast it" in error(
        connection, f"{sql}$$SELECT '1 month'::interval AS b$$"
    )
    assert 'relation "none" does not exist' in error(connection, f"{sql}'SELECT * FROM none'")


@pytest.mark.parametrize("end", [";", "  -- all", "; -- all\n", " /* all */"])
def test_columns_may_have_any_name_and_queries_any_end(query, connection, end):
    query(f'SELECT 1 AS "we""ird", 2 AS "a b"{end}')
    assert [row[0] for row in rows(connection, "DESCRIBE found")] == ['we"ird', "a b"]
    assert rows(connection, 'SELECT "a b", "we""ird" FROM found') == [(2, 1)]


def test_a_query_is_read_in_its_order(query, connection):
    query("SELECT n FROM generate_series(1, 5000) AS n ORDER BY n DESC", fetch=300)
    assert rows(connection, "SELECT n FROM found") == [(n,) for n in range(5000, 0, -1)]


def test_a_limit_ends_a_query_in_the_database(database, query, connection):
    query("SELECT n, pg_sleep(CASE n WHEN 50 THEN 3600 END) IS NULL AS b FROM generate_series(1, 100) AS n", fetch=10)
    assert rows(connection, "SELECT n FROM found LIMIT 5") == [(n,) for n in range(1, 6)]
    wait_until(lambda: not backends(database), "an end in the database")


def test_a_kill_ends_a_query_in_the_database(database, query, server, connection):
    query("SELECT pg_sleep(3600) IS NULL AS slept")
    ended = []

    def read():
        with server.connect() as other:
            ended.append(error(other, "SELECT slept FROM found"))

    reading = threading.Thread(target=read)
    reading.start()
    wait_until(lambda: backends(database), "the query in the database")
    run(connection, f"KILL QUERY '{query_running(connection, 'SELECT slept')}'")
    reading.join(PATIENCE)
    assert "ancel" in ended[0]
    wait_until(lambda: not backends(database), "an end in the database", 2)


def test_what_the_database_says_is_the_error(query, connection):
    query("SELECT 1 / (n - 3) AS a FROM generate_series(1, 5) AS n")
    assert "psycopg.errors.DivisionByZero: division by zero" in error(connection, "SELECT a FROM found")


@pytest.fixture
def table(orders, url, stream):
    stream("orders", "postgresql:PostgresTable", mode="streaming", url=url, table="orders", key="id", interval="20ms")


def test_new_rows_follow(orders, table, reading):
    orders(1, 2, 3)
    reader = reading("SELECT id, item FROM orders")
    assert reader.take(3) == items(1, 2, 3)
    orders(4)
    assert reader.take(1) == items(4)
    orders(6, 5)
    assert reader.take(2) == items(5, 6)


def test_rows_without_a_key_are_left_out(database, url, stream, reading):
    database.execute("CREATE TABLE keys (k int, v text); INSERT INTO keys VALUES (1, 'a'), (NULL, 'none'), (2, 'b')")
    settings = {"mode": "streaming", "url": url, "table": "keys", "key": "k", "interval": "10ms"}
    stream("keys", "postgresql:PostgresTable", **settings)
    reader = reading("SELECT k, v FROM keys")
    assert reader.take(2) == [(1, "a"), (2, "b")]
    database.execute("INSERT INTO keys VALUES (NULL, 'none'), (3, 'c')")
    assert reader.take(1) == [(3, "c")]


def test_an_empty_table_is_waited_for(database, table, orders, reading):
    reader = reading("SELECT id, item FROM orders")
    orders(1)
    assert reader.take(1) == items(1)


def test_a_table_may_have_a_schema(database, url, stream, connection):
    database.execute('CREATE TABLE public."Of" ("Id" int, "a b" text); INSERT INTO "Of" VALUES (1, \'x\')')
    stream("orders", "postgresql:PostgresTable", mode="streaming", url=url, table="public.Of", key="Id")
    assert rows(connection, 'SELECT "a b", "Id" FROM orders LIMIT 1') == [("x", 1)]


def test_reading_goes_on_after_the_last_row(orders, url):
    orders(*range(10))
    options = {"url": url, "table": "orders", "key": "id"}
    found, state = rows_and_state(PostgresTable, limit=4, fetch=4, **options)
    assert (found, state) == (items(0, 1, 2, 3), 3)
    assert rows_of(PostgresTable, state=state, limit=6, **options) == items(*range(4, 10))


def test_a_limit_and_a_kill_end_it(database, orders, table, reading, connection):
    orders(1, 2)
    assert rows(connection, "SELECT id, item FROM orders LIMIT 1") == items(1)
    reader = reading("SELECT id, item FROM orders")
    assert reader.take(2) == items(1, 2)
    reader.kill()


def test_a_database_that_ends_is_an_error(database, orders, table, reading):
    orders(1)
    reader = reading("SELECT id, item FROM orders")
    assert reader.take(1) == items(1)
    database.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    assert "terminating connection due to administrator command" in reader.error()


@pytest.fixture
def sink(database, url, stream):
    """A stream of two columns into a table where one of them may not come twice."""
    database.execute("CREATE TABLE sold (n bigint PRIMARY KEY, item text DEFAULT 'none')")
    stream("sold", "postgresql:PostgresSink", "(n int64, item string)", url=url, table="public.sold")


def sold(database):
    return database.execute("SELECT n, item FROM sold ORDER BY n").fetchall()


def test_rows_are_added(database, sink, connection):
    assert run(connection, "INSERT INTO sold VALUES (1, 'a\tb\\N'), (2, NULL), (3, '')") == 3
    assert sold(database) == [(1, "a\tb\\N"), (2, None), (3, "")]


def test_many_batches_are_one_transaction(database, sink, connection):
    assert run(connection, "INSERT INTO sold SELECT value, 'x' FROM range(30000)") == 30000
    counts = database.execute("SELECT count(*), count(DISTINCT xmin::text) FROM sold").fetchone()
    assert counts == (30000, 1)


@pytest.mark.parametrize("value", ["value % 29999", "CASE value WHEN 29999 THEN 1 ELSE value END"])
def test_an_insert_that_fails_leaves_nothing(database, sink, connection, value):
    """The last of many batches does not fit."""
    sql = f"INSERT INTO sold SELECT {value}, 'x' FROM range(30000)"
    assert "UniqueViolation" in error(connection, sql)
    assert sold(database) == []


def test_a_source_that_fails_leaves_nothing(database, sink, connection, tmp_path):
    body = """
    def broken():
        yield [(1, "a")]
        raise ValueError("broken")
    """
    create(connection, "broken", "n int64, item string", body)
    assert "ValueError: broken" in error(connection, "INSERT INTO sold SELECT n, item FROM broken")
    assert sold(database) == []


def test_an_insert_that_is_killed_leaves_nothing(database, sink, connection, tmp_path, inserting):
    """It is killed when its first rows are there."""
    mark = tmp_path / "mark"
    body = f"""
    import time

    def slow():
        yield [(1, "a")]
        yield None
        open({str(mark)!r}, "w").write("here")
        while True:
            time.sleep(0.01)
    """
    create(connection, "slow", "n int64, item string", body)
    kill = inserting("INSERT INTO sold SELECT n, item FROM slow")
    wait_for_text(mark, "here")
    kill(PATIENCE)
    assert sold(database) == [] and backends(database) == []


@pytest.fixture
def locked(url):
    """Holds a lock on a table, and knows whether somebody waits for it."""
    locking = psycopg.connect(url)

    def lock(table):
        locking.execute(f"LOCK TABLE {table}")
        waits = "SELECT 1 FROM pg_locks WHERE NOT granted"
        return lambda: locking.execute(waits).fetchall()

    yield lock
    locking.close()


def test_a_cancel_ends_a_wait_for_a_lock(database, url, sink, locked):
    is_waited_for = locked("sold")
    writing = _writing.writing(PostgresSink, {"url": url, "table": "sold"}, Columns(["n"], ["int64"]))
    writing.open()
    ended = []

    def write():
        with pytest.raises(psycopg.errors.QueryCanceled):
            writing.write([1])
        writing.abort()
        writing.close()
        ended.append(True)

    thread = threading.Thread(target=write)
    thread.start()
    wait_until(is_waited_for, "a wait for the lock")
    writing.cancel()
    thread.join(2)
    assert ended


def test_a_kill_ends_an_insert_that_waits_for_a_lock(database, sink, locked, inserting):
    is_waited_for = locked("sold")
    kill = inserting("INSERT INTO sold VALUES (1, 'a')")
    wait_until(is_waited_for, "a wait for the lock")
    kill(2)


def test_a_kill_ends_a_source_that_waits_for_a_lock(orders, table, locked, reading):
    orders(1)
    is_waited_for = locked("orders")
    reader = reading("SELECT id, item FROM orders")
    wait_until(is_waited_for, "a wait for the lock")
    reader.kill()


def test_a_wait_for_a_lock_can_be_bounded(database, url, sink, stream, connection):
    bounded = f"{url}?options=-c%20lock_timeout%3D100ms"
    stream("sold", "postgresql:PostgresSink", "(n int64, item string)", url=bounded, table="sold")
    with psycopg.connect(url) as locking:
        locking.execute("LOCK TABLE sold")
        assert "LockNotAvailable" in error(connection, "INSERT INTO sold VALUES (1, 'a')")
    assert sold(database) == []


def test_what_is_not_there_is_an_error(database, url, stream, connection):
    stream("sold", "postgresql:PostgresSink", "(n int64)", url=url, table="none")
    assert 'UndefinedTable: relation "none" does not exist' in error(connection, "INSERT INTO sold VALUES (1)")
    nowhere = f"postgresql://127.0.0.1:{services.free_port()}/x"
    stream("sold", "postgresql:PostgresSink", "(n int64)", url=nowhere, table="none")
    assert "Connection refused" in error(connection, "INSERT INTO sold VALUES (1)")


def test_values_keep_their_types(database, url, stream, connection):
    columns = "b bool, d decimal(5, 2), x binary, t timestamptz, u uuid, j json, a array(int32)"
    database.execute("CREATE TABLE kinds (b bool, d numeric, x bytea, t timestamptz, u uuid, j jsonb, a int[])")
    stream("kinds", "postgresql:PostgresSink", f"({columns})", url=url, table="kinds")
    id = "0b3d53a0-6f5a-4b43-9df9-0c1fd6f0a6f9"
    run(
        connection,
        f"INSERT INTO kinds VALUES (true, 1.25, x'00ff', '2026-01-02T03:04:05Z', '{id}', '[1]', [1, NULL])",
    )
    assert database.execute("SELECT * FROM kinds").fetchall() == [
        (
            True,
            decimal.Decimal("1.25"),
            b"\0\xff",
            datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc),
            uuid.UUID(id),
            [1],
            [1, None],
        )
    ]


def test_all_keep_to_the_contract(database, orders, url, sink):
    orders(*range(5))
    table = {"url": url, "table": "orders", "key": "id", "fetch": 2}
    check_source(PostgresTable, **table)
    check_resume(PostgresTable, limit=5, **table)
    check_source(PostgresQuery, url=url, query="SELECT * FROM orders ORDER BY id", fetch=2)
    columns = {"n": "int64", "item": "string"}
    check_sink(PostgresSink, items(1, 2), columns=columns, stored=lambda: sold(database), url=url, table="sold")
