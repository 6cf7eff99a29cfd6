"""How much there may be at once, and of one query: turns, time, rows, bytes, memory; of all, and of one user."""

import contextlib
import socket
import threading
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

import pyarrow
import pytest
from adbc_driver_flightsql import dbapi
from harness import PATIENCE, create, error, queries, rows, run, value, wait_until
from test_http import ask, basic, refused
from test_users import connect, user, users  # noqa: F401

# Yields one row, then sleeps until it is interrupted; notes in a file that its cleanup ran.
HELD = """
import time

def read():
    try:
        yield 1
        while True:
            time.sleep(0.01)
    finally:
        with open({path!r}, "a") as notes:
            notes.write("finally ")
"""

# Gives rows for as long as somebody takes them, far more than fit on the way to a client.
GUSHING = """
def read():
    try:
        while True:
            yield [("x" * 1000,) for _ in range(1000)]
    finally:
        with open({path!r}, "a") as notes:
            notes.write("finally ")
"""

# One side of a hash join is kept in memory: at least 8 MB of it.
HUNGRY = "SELECT count(*) FROM range(1000000) l JOIN range(1000000) r ON l.value = r.value"
METADATA = [
    "SELECT 1",
    "SELECT 1 + 1 AS two",
    "SHOW QUERIES",
    "SHOW STREAMS",
    "SHOW TABLES",
    "SHOW ALL",
    "SHOW COLUMNS FROM held",
    "SHOW CREATE STREAM held",
    "DESCRIBE held",
    "EXPLAIN SELECT n FROM held",
    "SELECT * FROM system.queries",
    "SELECT state, count(*) FROM system.queries GROUP BY state ORDER BY state LIMIT 5",
    "SELECT table_name FROM information_schema.tables WHERE table_name IN ('held')",
    "SET datafusion.execution.batch_size = 100",
    "SHOW datafusion.execution.batch_size",
]
METADATA_OF_TOOLS = [
    "SELECT DISTINCT table_schema FROM information_schema.tables",
    "SELECT table_name FROM information_schema.tables UNION ALL SELECT table_name FROM information_schema.views",
    "SELECT c.column_name FROM information_schema.tables t JOIN information_schema.columns c USING (table_name)",
    "SELECT table_name FROM information_schema.tables WHERE table_name IN (SELECT table_name FROM "
    "information_schema.columns)",
    "WITH t AS (SELECT table_name FROM information_schema.tables) SELECT row_number() OVER () FROM t",
    "SHOW FUNCTIONS",
]


@pytest.fixture
def notes(tmp_path):
    return tmp_path / "notes"


def finals(notes):
    return notes.read_text().count("finally") if notes.exists() else 0


@pytest.fixture
def limited(own_server, notes):
    """Starts a server with the stream `held`, of one row that is followed by nothing, and the endless one `gushing`."""

    def start(*arguments):
        server = own_server(*arguments)
        with login(server) as connection:
            for name, column, body in [("held", "n int64", HELD), ("gushing", "s string", GUSHING)]:
                text = body.format(path=str(notes))
                create(connection, name, column, text, mode="streaming", read_function_name="read")
        return server

    return start


def login(server, name=None):
    """A connection; as an admin, where there are users and no other name is said."""
    if name is None and "--users" in server.process.args:
        name = "adam"
    return server.connect() if name is None else connect(server, name)


@contextlib.contextmanager
def holding(server, name=None, sql="SELECT n FROM held"):
    """A query that runs for as long as this is open, of which one row has been read."""
    with login(server, name) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        assert cursor.fetchone() == (1,)
        yield cursor
        cursor.adbc_cancel()


@contextlib.contextmanager
def queued(server, admin, sql, name=None):
    """A query that waits for its turn, and the future of its first row."""
    with ThreadPoolExecutor(1) as pool, login(server, name) as connection, connection.cursor() as cursor:

        def first_row():
            cursor.execute(sql)
            return cursor.fetchone()

        row = pool.submit(first_row)
        wait_until(lambda: state_of(admin, sql) == "queued", f"{sql} is queued")
        try:
            yield row
        finally:
            with contextlib.suppress(connection.Error, KeyError):
                run(admin, f"KILL QUERY '{id_of(admin, sql)}'")
            with contextlib.suppress(connection.Error):
                row.result(20)


def state_of(connection, sql):
    return {text: state for _, text, state in queries(connection)}.get(sql)


def id_of(connection, sql):
    return {text: id for id, text, _ in queries(connection)}[sql]


def none_running(connection):
    return wait_until(lambda: not queries(connection), "no queries")


def unread(server, sql="SELECT s FROM gushing", headers=()):
    """An answer over HTTP that nobody reads: a socket with a small buffer."""
    address = urllib.parse.urlsplit(server.http)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((address.hostname, address.port))
    lines = [f"GET /?{urllib.parse.urlencode({'query': sql})} HTTP/1.1", f"Host: {address.netloc}"]
    lines += [f"{name}: {text}" for name, text in dict(headers).items()]
    client.sendall("\r\n".join([*lines, "", ""]).encode())
    return client


def wait_until_full(connection, sql):
    """Until a query whose answer nobody reads gives no more rows."""

    def given():
        return rows(connection, f"SELECT rows FROM system.queries WHERE sql = '{sql}' AND rows > 0")

    def stands_still():
        before = given()
        time.sleep(0.3)
        return before and given() == before

    wait_until(stands_still, f"{sql} stands still")


def test_a_query_waits_and_gets_its_turn(limited, notes):
    server = limited("--max-queries", "1")
    sql = "SELECT n AS waiting FROM held"
    with server.connect() as admin, holding(server) as held:
        with queued(server, admin, sql) as row:
            assert rows(admin, f"SELECT rows FROM system.queries WHERE sql = '{sql}'") == [(0,)]
            with admin.cursor() as cursor:
                cursor.execute("SHOW QUERIES")
                shown = {query["sql"]: query["state"] for query in cursor.fetch_arrow_table().to_pylist()}
            assert shown == {"SELECT n FROM held": "running", sql: "queued"}
            assert not row.done()
            held.adbc_cancel()
            assert row.result(20) == (1,)
            assert state_of(admin, sql) == "running"
        none_running(admin)
    assert finals(notes) == 2


def test_turns_come_in_order(limited):
    server = limited("--max-queries", "1")
    texts = [f"SELECT n AS turn_{turn} FROM held" for turn in range(4)]
    with server.connect() as admin, contextlib.ExitStack() as open_queries:
        waiting = [open_queries.enter_context(holding(server, sql=texts[0]))]
        waiting += [open_queries.enter_context(queued(server, admin, sql)) for sql in texts[1:]]
        for before, row in enumerate(waiting[1:]):
            assert not row.done()
            run(admin, f"KILL QUERY '{id_of(admin, texts[before])}'")
            assert row.result(20) == (1,)


def test_a_query_does_not_wait_for_ever(limited):
    server = limited("--max-queries", "2", "--queue-time", "0.3")
    with holding(server), holding(server), server.connect() as connection:
        message = error(connection, "SELECT n AS late FROM held")
        assert "the query waited 300ms for its turn: 2 are running" in message
        assert "RESOURCE_EXHAUSTED" in message or "ResourceExhausted" in message
        code, text = refused(server, "SELECT n AS late FROM held")
        assert (code, "waited 300ms for its turn" in text) == (503, True)
        for sql in ["CREATE TABLE t AS SELECT * FROM held LIMIT 1", "SELECT count(*) FROM range(5)"]:
            assert "waited 300ms" in error(connection, sql)
        assert len(queries(connection)) == 2
    with server.connect() as connection:
        none_running(connection)
        assert rows(connection, "SELECT n FROM held LIMIT 1") == [(1,)]


def test_a_change_that_gets_no_turn_has_not_run(limited):
    server = limited("--max-queries", "1", "--queue-time", "0.3")
    with server.connect() as connection:
        run(connection, "CREATE TABLE counted AS SELECT 0 AS n")
        with holding(server):
            for sql in ["UPDATE counted SET n = n + 1", "DELETE FROM counted"]:
                assert "waited 300ms" in error(connection, sql)
        none_running(connection)
        assert rows(connection, "SELECT n FROM counted") == [(0,)]


def test_who_waits_when_the_server_ends_may_try_elsewhere(limited):
    server = limited("--max-queries", "1", "--queue-time", "60", "--grace", "1")
    late = "SELECT n AS late FROM held"
    with unread(server, "SELECT n FROM held"), ThreadPoolExecutor(1) as pool:
        with server.connect() as admin:
            wait_until(lambda: state_of(admin, "SELECT n FROM held") == "running", "a query runs")
            refusal = pool.submit(refused, server, late)
            wait_until(lambda: state_of(admin, late) == "queued", "a query waits")
        server.process.terminate()
        code, text = refusal.result(PATIENCE)
        assert (code, "shutting down, and the query has not begun" in text) == (503, True)
        assert server.process.wait(PATIENCE) == 0


def test_who_waits_longer_than_an_answer_may_begin_is_told_why(limited):
    """Over HTTP, too: a refusal is a status and its text, not an answer that breaks off."""
    server = limited("--max-queries", "1", "--queue-time", "1.5")
    with holding(server):
        code, text = refused(server, "SELECT n AS late FROM held")
        assert (code, "waited 1.5s for its turn" in text) == (503, True)


@pytest.mark.parametrize("statements", [METADATA, METADATA_OF_TOOLS], ids=["own", "of tools"])
def test_what_asks_for_what_there_is_never_waits(limited, statements):
    server = limited("--max-queries", "1", "--queue-time", "0")
    with holding(server), server.connect() as connection:
        assert "for its turn" in error(connection, "SELECT n FROM held")
        waited = []
        for sql in statements:
            try:
                rows(connection, sql)
            except connection.Error as problem:
                assert "for its turn" in str(problem)
                waited.append(sql)
        assert waited == []
        objects = connection.adbc_get_objects(depth="all").read_all().to_pylist()
        assert "held" in str(objects)
        assert connection.adbc_get_table_schema("held").names == ["n"]
        assert ask(server, "SELECT 1")[1] == b"1\n"
        assert ask(server, "SHOW STREAMS")[1]
        run(connection, f"KILL QUERY '{id_of(connection, 'SELECT n FROM held')}'")


def test_a_stream_is_not_metadata_by_the_name_of_its_schema(limited, notes):
    server = limited("--max-queries", "1", "--queue-time", "0")
    with server.connect() as connection:
        run(connection, "CREATE DATABASE other; CREATE SCHEMA other.system")
        create(connection, "other.system.held", "n int64", HELD.format(path=str(notes)), read_function_name="read")
        with holding(server):
            assert "for its turn" in error(connection, "SELECT n FROM other.system.held LIMIT 1")


def test_kill_of_a_query_that_waits(limited, notes):
    server = limited("--max-queries", "1")
    sql = "SELECT n AS waiting FROM held"
    with server.connect() as admin, holding(server) as held:
        with queued(server, admin, sql) as row:
            run(admin, f"KILL QUERY '{id_of(admin, sql)}'")
            with pytest.raises(admin.Error, match=r"(?i)cancelled"):
                row.result(20)
            wait_until(lambda: state_of(admin, sql) is None, "it is off the list")
        assert state_of(admin, "SELECT n FROM held") == "running"
        held.adbc_cancel()
        none_running(admin)
        assert rows(admin, "SELECT n FROM held LIMIT 1") == [(1,)]
    assert finals(notes) == 2


def test_who_leaves_the_queue_leaves_no_trace(limited, notes):
    server = limited("--max-queries", "1")
    sql = "SELECT n AS waiting FROM held"
    with server.connect() as admin, holding(server):
        with server.connect() as leaving, leaving.cursor() as cursor:
            cursor.execute(sql)
            wait_until(lambda: state_of(admin, sql) == "queued", "over Flight, it waits")
        wait_until(lambda: state_of(admin, sql) is None, "the query of the one that left is gone")
        with unread(server, sql):
            wait_until(lambda: state_of(admin, sql) == "queued", "over HTTP, it waits")
        wait_until(lambda: state_of(admin, sql) is None, "the query of the one that left is gone")
    with server.connect() as admin:
        none_running(admin)
        assert rows(admin, "SELECT n FROM held LIMIT 1") == [(1,)]
    assert finals(notes) == 2


def test_an_insert_waits_too(limited, tmp_path):
    server = limited("--max-queries", "1")
    written = tmp_path / "written"
    body = f"def write(n):\n    with open({str(written)!r}, 'a') as file:\n        file.write(str(n))"
    with server.connect() as admin, ThreadPoolExecutor(1) as pool:
        create(admin, "sink", "n int64", body, write_function_name="write")
        with holding(server) as held, server.connect() as connection:
            sql = "INSERT INTO sink VALUES (7)"
            inserted = pool.submit(run, connection, sql)
            wait_until(lambda: state_of(admin, sql) == "queued", "the INSERT waits")
            assert not written.exists()
            held.adbc_cancel()
            assert inserted.result(20) == 1
    assert written.read_text() == "[7]"


def test_a_query_has_its_time(limited, notes):
    server = limited("--max-query-time", "0.3")
    with server.connect() as connection:
        message = error(connection, "SELECT n FROM held")
        assert "the query was ended after 300ms, which is the longest that one may run" in message
        assert "DEADLINE_EXCEEDED" in message.upper().replace("DEADLINEEXCEEDED", "DEADLINE_EXCEEDED")
        none_running(connection)
        assert finals(notes) == 1
        code, text = refused(server, "SELECT max(n) FROM (SELECT n FROM held LIMIT 2)")
        assert (code, "ended after 300ms" in text) == (504, True)
        assert "ended after 300ms" in error(connection, "CREATE TABLE t AS SELECT n FROM held LIMIT 2")
        assert "not found" in error(connection, "SELECT * FROM t")
        none_running(connection)
    assert finals(notes) == 3


def test_time_in_the_queue_is_not_time_of_the_query(limited):
    server = limited("--max-queries", "1", "--max-query-time", "0.5")
    sql = "SELECT n AS waiting FROM held LIMIT 1"
    with server.connect() as admin, holding(server), queued(server, admin, sql) as row:
        assert row.result(20) == (1,), "when the first has had its time, the second has its own"


@pytest.mark.parametrize("client", ["flight", "http"])
@pytest.mark.parametrize("how", ["time", "kill"])
def test_a_query_ends_whose_client_does_not_read(limited, notes, client, how):
    server = limited("--max-queries", "1", *(["--max-query-time", "1"] if how == "time" else []))
    sql = "SELECT s FROM gushing"
    with server.connect() as admin, server.connect() as reading, contextlib.ExitStack() as left:
        if client == "http":
            left.enter_context(unread(server, sql))
        else:
            left.enter_context(reading.cursor()).execute(sql)
        if how == "kill":
            wait_until_full(admin, sql)
            run(admin, f"KILL QUERY '{id_of(admin, sql)}'")
        wait_until(lambda: finals(notes) == 1, "the generator's cleanup")
        wait_until(lambda: state_of(admin, sql) is None, "it is off the list")
        assert rows(admin, "SELECT n FROM held LIMIT 1") == [(1,)], "its turn is free"


def test_a_reader_that_comes_late_hears_why(limited, notes):
    server = limited("--max-query-time", "0.5")
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT s FROM gushing")
        wait_until(lambda: finals(notes) == 1, "the generator's cleanup")
        with pytest.raises(connection.Error, match="ended after 500ms"):
            while cursor.fetchmany(10000):
                pass


def test_a_result_has_so_many_rows(limited):
    server = limited("--max-query-rows", "10")
    with server.connect() as connection:
        assert len(rows(connection, "SELECT * FROM range(10)")) == 10
        assert value(connection, "SELECT count(*) FROM range(1000)") == 1000
        message = error(connection, "SELECT * FROM range(11)")
        assert "the result has more than 10 rows, which is the most that one may have" in message
        code, text = refused(server, "SELECT * FROM range(11)")
        assert (code, "more than 10 rows" in text) == (503, True)
        assert "more than 10 rows" in error(connection, "SELECT s FROM gushing")
        none_running(connection)
        run(connection, "CREATE TABLE t (n BIGINT)")
        assert run(connection, "INSERT INTO t SELECT * FROM range(1000)") == 1000
        run(connection, "SET couatl.result_partitions = 256")
        assert "more than 10 rows" in error(connection, "SELECT n FROM t")
        run(connection, "CREATE TABLE u AS SELECT * FROM range(1000)")
        assert value(connection, "SELECT count(*) FROM u") == 1000


def test_a_result_has_so_many_bytes(limited):
    server = limited("--max-query-bytes", "10KB")
    with server.connect() as connection:
        assert len(rows(connection, "SELECT * FROM range(1000)")) == 1000
        message = error(connection, "SELECT * FROM range(2000)")
        assert "the result has more than 10000 bytes, which is the most that one may have" in message
        assert refused(server, "SELECT s FROM gushing")[0] == 503
        assert rows(connection, "SELECT length(s) FROM gushing LIMIT 100") == [(1000,)] * 100, "it is the result's"


def test_a_query_has_so_much_memory(limited):
    server = limited("--max-query-memory", "4MiB")
    with server.connect() as connection:
        message = error(connection, HUNGRY)
        assert "the query may keep 4.0 MB" in message
        assert "ResourceExhausted" in message or "RESOURCE_EXHAUSTED" in message
        code, text = refused(server, HUNGRY)
        assert (code, "the query may keep 4.0 MB" in text) == (503, True)
        assert value(connection, HUNGRY.replace("1000000", "1000")) == 1000
        large = "CREATE TABLE large AS SELECT value AS n FROM range(1000000)"
        assert "the query may keep 4.0 MB" in error(connection, large)
        run(connection, large.replace("1000000", "1000"))
        assert value(connection, "SELECT count(*) FROM large") == 1000
        run(connection, "DROP TABLE large")


def test_rows_that_stay_in_memory_count_for_every_statement(limited):
    server = limited("--max-query-memory", "4MiB")
    with server.connect() as connection:
        run(connection, "CREATE TABLE large (n bigint)")
        insert = "INSERT INTO large SELECT value FROM range({})"
        assert "the query may keep 4.0 MB" in error(connection, insert.format(1_000_000))
        batch = pyarrow.table({"n": pyarrow.array(range(1_000_000))})
        for mode in ["append", "replace"]:
            with connection.cursor() as cursor, pytest.raises(dbapi.Error, match=r"the query may keep 4\.0 MB"):
                cursor.adbc_ingest("large", batch, mode=mode)
        assert value(connection, "SELECT count(*) FROM large") == 0, "all of it, or none"
        for _ in range(4):
            run(connection, insert.format(250_000))
        assert run(connection, "DELETE FROM large WHERE n = 7") == 4, "what stays has been counted"
        run(connection, "CREATE TABLE texts AS SELECT 'x' AS s FROM range(200000)")
        assert "the query may keep 4.0 MB" in error(connection, "UPDATE texts SET s = repeat('x', 100)")
        assert value(connection, "SELECT max(length(s)) FROM texts") == 1
        run(connection, "DROP TABLE large")


@pytest.mark.parametrize("made", ["length(repeat('x', 2000000000))", "array_length(range(0, 300000000))"])
def test_what_makes_much_of_little_is_refused(connection, made):
    message = error(connection, f"SELECT {made}")
    assert "ResourceExhausted" in message and "GiB at once" in message


@pytest.fixture
def people(limited, users):  # noqa: F811
    def start(*arguments):
        return limited("--users", users, *arguments)

    return start


def test_a_user_has_so_many_queries(people):
    server = people("--max-user-queries", "1", "--user-limit", "dora:max-user-queries=2", "--queue-time", "0.2")
    with holding(server, "rita"), connect(server, "rita") as rita:
        message = error(rita, "SELECT n FROM held")
        assert "user 'rita' has 1 running" in message
        code, text = refused(server, "SELECT n FROM held", headers=basic("rita"))
        assert (code, "user 'rita' has 1 running" in text) == (503, True)
        assert value(rita, "SELECT 1") == 1
        with holding(server, "dora"), holding(server, "dora"), connect(server, "dora") as dora:
            assert "user 'dora' has 2 running" in error(dora, "SELECT n FROM held")
        with holding(server, "will"):
            pass


def test_who_has_many_queries_keeps_nobody_waiting_but_themselves(people):
    server = people("--max-queries", "2", "--max-user-queries", "1")
    texts = [f"SELECT n AS of_rita_{turn} FROM held" for turn in range(3)]
    with connect(server, "adam") as admin, contextlib.ExitStack() as waiting:
        waiting.enter_context(holding(server, "rita"))
        for sql in texts:
            waiting.enter_context(queued(server, admin, sql, "rita"))
        with holding(server, "dora"):
            assert [state_of(admin, sql) for sql in texts] == ["queued"] * 3


def test_users_have_limits_of_their_own(people, monkeypatch):
    monkeypatch.setenv("COUATL_USER_LIMIT", "rita:max-query-rows=5,rita:max-query-time=0.3,dora:max-query-rows=20")
    server = people("--max-query-rows", "10")
    with connect(server, "rita") as rita, connect(server, "will") as will, connect(server, "dora") as dora:
        for connection, most in [(rita, 5), (will, 10), (dora, 20)]:
            assert len(rows(connection, f"SELECT * FROM range({most})")) == most
            assert f"more than {most} rows" in error(connection, f"SELECT * FROM range({most + 1})")
        assert "ended after 300ms" in error(rita, "SELECT n FROM held")
        assert refused(server, "SELECT * FROM range(6)", headers=basic("rita"))[0] == 503
        assert ask(server, "SELECT max(value) FROM range(6)", headers=basic("rita"))[1] == b"5\n"


def test_a_user_may_be_without_a_limit(people):
    server = people("--max-query-rows", "10", "--user-limit", "adam:max-query-rows=unlimited")
    with connect(server, "adam") as adam, connect(server, "rita") as rita:
        assert len(rows(adam, "SELECT * FROM range(100)")) == 100
        assert "more than 10 rows" in error(rita, "SELECT * FROM range(100)")


def test_the_queries_of_a_user_share_their_memory(people):
    server = people("--max-user-memory", "8MiB", "--user-limit", "dora:max-user-memory=1GiB")
    with connect(server, "rita") as rita, connect(server, "dora") as dora:
        assert "the queries of user 'rita' may keep 8.0 MB" in error(rita, HUNGRY)
        assert value(dora, HUNGRY) == 1_000_000
        assert value(rita, HUNGRY.replace("1000000", "1000")) == 1000, "what failed has given its memory back"


def test_a_queue_of_many_drains(limited, notes):
    server = limited("--max-queries", "2")
    started = threading.Barrier(20)

    def one(number):
        with server.connect() as connection:
            started.wait(20)
            return value(connection, f"SELECT n + {number} FROM held LIMIT 1")

    with ThreadPoolExecutor(20) as pool:
        assert sorted(pool.map(one, range(20))) == list(range(1, 21))
    with server.connect() as connection:
        none_running(connection)
    assert finals(notes) == 20


def test_a_wait_that_no_clock_has_is_a_long_one(limited):
    server = limited("--max-queries", "1", "--queue-time", "1e19", "--max-query-time", "1e19")
    with server.connect() as connection:
        assert rows(connection, "SELECT n FROM held LIMIT 1") == [(1,)]
