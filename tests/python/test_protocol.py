"""What Flight SQL clients do beyond running a statement."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pandas
import polars
import pyarrow as pa
import pytest
from harness import PATIENCE, create, error, queries, rows, run, table, value, wait_for_text, wait_until
from test_jdbc import message, packed, parsed

USERS = "def users(): return [(1, 'ann'), (2, 'bob')]"


@pytest.fixture
def users(connection):
    create(connection, "users", "id int32 NOT NULL, name string", USERS, mode="batch")
    return [(1, "ann"), (2, "bob")]


def test_pandas(connection, users):
    frame = pandas.read_sql("SELECT * FROM users ORDER BY id", connection)
    assert list(frame.itertuples(index=False, name=None)) == users


def test_polars(server, connection, users):
    frame = polars.read_database("SELECT * FROM users ORDER BY id", connection)
    assert frame.rows() == users
    assert frame.schema["id"] == polars.Int32


def test_fetches(connection, users):
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM users ORDER BY id")
        assert [column[0] for column in cursor.description] == ["id", "name"]
        assert cursor.fetchone() == users[0]
        assert cursor.fetchmany(5) == users[1:]
        assert cursor.fetchone() is None
        cursor.execute("SELECT * FROM users")
        assert cursor.fetch_df().shape == (2, 2)


def test_objects(connection, users):
    run(connection, "CREATE OR REPLACE VIEW names AS SELECT name FROM users")
    found = connection.adbc_get_objects(depth="all").read_all().to_pylist()
    tables = {
        table["table_name"]: table
        for catalog in found
        for schema in catalog["catalog_db_schemas"]
        for table in schema["db_schema_tables"]
    }
    assert [column["column_name"] for column in tables["users"]["table_columns"]] == ["id", "name"]
    assert tables["names"]["table_type"] == "VIEW"
    run(connection, "DROP VIEW names")


def test_objects_by_name(connection, users):
    create(connection, "users_2", "n int8", "def users_2(): return []")
    found = connection.adbc_get_objects(depth="tables", table_name_filter="users").read_all().to_pylist()
    names = [
        table["table_name"]
        for catalog in found
        for schema in catalog["catalog_db_schemas"]
        for table in schema["db_schema_tables"]
    ]
    assert names == ["users"]
    run(connection, "DROP STREAM users_2")


def test_table_types(connection):
    assert "VIEW" in connection.adbc_get_table_types()


def test_table_schema_is_that_of_the_rows(connection, users):
    schema = connection.adbc_get_table_schema("users")
    assert schema.field("id") == pa.field("id", pa.int32(), nullable=False)
    assert schema.equals(table(connection, "SELECT * FROM users").schema)
    with pytest.raises(connection.Error):
        connection.adbc_get_table_schema("nowhere")


def test_info(connection):
    info = connection.adbc_get_info()
    assert "couatl" in info["vendor_name"].lower()
    assert info["vendor_version"]


def test_prepared_statement_knows_its_parameters_and_its_rows(connection, users):
    with connection.cursor() as cursor:
        parameters = cursor.adbc_prepare("SELECT name FROM users WHERE id = ?")
        assert parameters is None or len(parameters) == 1
        for id, name in users:
            cursor.execute("SELECT name FROM users WHERE id = ?", (id,))
            assert cursor.fetchall() == [(name,)]
        assert cursor.adbc_execute_schema("SELECT * FROM users").names == ["id", "name"]


@pytest.mark.parametrize("parameters", [(1, "ann"), [1, "ann"]])
def test_parameters(connection, users, parameters):
    assert rows(connection, "SELECT id FROM users WHERE id = ? AND name = ?", parameters) == [(1,)]
    assert rows(connection, "SELECT id FROM users WHERE id = $1 AND name = $2", parameters) == [(1,)]


def test_question_marks_in_text_are_text(connection, users):
    assert value(connection, "SELECT '?' || name FROM users WHERE id = ? -- ?", (1,)) == "?ann"


def test_parameters_may_be_missing_or_of_the_wrong_type(connection, users):
    error(connection, "SELECT id FROM users WHERE id = ?")
    error(connection, "SELECT id FROM users WHERE id = ?", ("abc",))


def test_ddl_runs_once_however_it_arrives(connection):
    """A CREATE that ran twice would find its stream there."""
    statement = f"CREATE EXTERNAL STREAM once (id int32, name string) AS $$\n{USERS.replace('users', 'once')}\n$$ "
    statement += "SETTINGS type = 'python'"

    def execute(cursor):
        cursor.execute(statement)

    def execute_and_fetch(cursor):
        cursor.execute(statement)
        cursor.fetch_arrow_table()

    def prepare_and_execute(cursor):
        cursor.adbc_prepare(statement)
        assert ("once",) not in {row[:1] for row in rows(connection, "SHOW STREAMS")}, "preparing created it"
        cursor.execute(statement)

    def update(cursor):
        cursor.adbc_statement.set_sql_query(statement)
        cursor.adbc_statement.execute_update()

    def query(cursor):
        cursor.adbc_statement.set_sql_query(statement)
        stream, _ = cursor.adbc_statement.execute_query()
        stream.release()

    for way in [execute, execute_and_fetch, prepare_and_execute, update, query]:
        with connection.cursor() as cursor:
            way(cursor)
        run(connection, "DROP STREAM once")


def test_dml_runs_once_however_it_arrives(connection, tmp_path):
    notes = tmp_path / "notes"
    create(connection, "sink", "n int64", f"def sink(n):\n    open({str(notes)!r}, 'a').write(f'{{n}}')")

    def update(cursor):
        cursor.adbc_statement.set_sql_query("INSERT INTO sink VALUES (1)")
        assert cursor.adbc_statement.execute_update() == 1

    def query(cursor):
        cursor.adbc_statement.set_sql_query("INSERT INTO sink VALUES (1)")
        stream, _ = cursor.adbc_statement.execute_query()
        stream.release()

    def execute(cursor):
        cursor.execute("INSERT INTO sink VALUES (1)")
        assert cursor.rowcount == 1

    def parameters(cursor):
        cursor.execute("INSERT INTO sink VALUES (?)", (1,))
        assert cursor.rowcount == 1

    for way in [update, query, execute, parameters]:
        with connection.cursor() as cursor:
            way(cursor)
        assert notes.read_text() == "[1]", way.__name__
        notes.unlink()


def test_several_statements_in_one_text(connection):
    text = f"""
    -- one; two
    CREATE OR REPLACE EXTERNAL STREAM several (id int32, name string) AS $$
{USERS}  # ; ? ' $1
$$ SETTINGS type = 'python', read_function_name = 'users';
    /* ; */
    SELECT name FROM several WHERE name <> ';' ORDER BY id;
    """
    assert rows(connection, text) == [("ann",), ("bob",)]
    run(connection, "DROP STREAM several; DROP STREAM IF EXISTS several;")
    assert "several" not in str(rows(connection, "SHOW STREAMS"))


def test_several_statements_are_all_parsed_before_one_runs(connection):
    for malformed in ["selec 1", "CREATE EXTERNAL STREAM s (\n a intt) AS $$ $$ SETTINGS type = 'python'"]:
        assert "statement 2 of 2: " in error(connection, f"CREATE TABLE never AS SELECT 1 AS n;\n\n{malformed}")
        assert "never" in error(connection, "SELECT * FROM never")


def test_the_statement_that_fails_is_numbered(connection):
    assert "statement 2 of 3: " in error(connection, "SELECT 1; DROP TABLE nothing; SELECT 1")
    assert "statement 3 of 3: " in error(connection, "SELECT 1; SELECT 2; SELECT nothing")
    assert "statement" not in error(connection, "SELECT nothing")
    # While its rows stream, too; and once.
    body = "def falls():\n    yield 1\n    1 / 0"
    create = f"CREATE OR REPLACE EXTERNAL STREAM falls (n int) AS $$\n{body}\n$$ SETTINGS type = 'python'"
    assert error(connection, f"{create}; SELECT n FROM falls").count("statement 2 of 2: ") == 1
    assert error(connection, f"{create}; SELECT n FROM falls; SELECT 1").count("statement 2 of 3: ") == 1
    assert "statement" not in error(connection, "SELECT n FROM falls").split("Traceback")[0]
    run(connection, "DROP STREAM falls")


def test_what_is_too_deep_is_refused(connection):
    for first, following in [
        ("SELECT 1", "+1"),
        ("SELECT 1=2", " OR 1=2"),
        ("SELECT 'a'", "||'a'"),
        ("SELECT 1", "::int"),
        ("SELECT 1", " UNION ALL SELECT 1"),
    ]:
        assert "too deep" in error(connection, first + following * 5000)
        rows(connection, first + following * 150)
    numbers = ",".join(map(str, range(10_000)))
    assert rows(connection, f"SELECT 7 IN ({numbers})") == [(True,)]


def test_a_row_that_no_message_holds(connection):
    assert "select fewer or shorter columns" in error(connection, "SELECT repeat('x', 100000000)")


def test_an_empty_text(connection):
    for text in ["", ";", "-- nothing"]:
        error(connection, text)


STEPS = """
import os, time

def steps():
    yield (0, "first")
    while not os.path.exists({path!r}):
        time.sleep(0.005)
    yield (2, "second")
"""


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM steps",
        "SELECT s, n + 1 AS m FROM steps",
        "SELECT * FROM steps WHERE n % 2 = 0",
        "SELECT upper(s) AS u FROM steps WHERE s LIKE '%s%' AND n >= 0",
        "SELECT u FROM (SELECT upper(s) AS u, n FROM steps WHERE n > -1) WHERE u <> ''",
        "SELECT * FROM steps LIMIT 5",
    ],
)
def test_a_row_does_not_wait_for_the_next_one(server, connection, tmp_path, sql):
    go = tmp_path / "go"
    create(connection, "steps", "n int64, s string", STEPS.format(path=str(go)), mode="streaming")
    with server.connect() as reading, reading.cursor() as cursor:
        cursor.execute(sql)
        first = cursor.fetchone()
        assert not go.exists() and first is not None
        started = time.monotonic()
        go.touch()
        assert cursor.fetchone() is not None
        assert time.monotonic() - started < 2
        assert cursor.fetchone() is None


def test_a_view_follows_its_replaced_stream(connection):
    create(connection, "base", "n int64", "def base(): return [1]")
    run(connection, "CREATE OR REPLACE VIEW over_base AS SELECT n FROM base")
    assert rows(connection, "SELECT * FROM over_base") == [(1,)]
    create(connection, "base", "n int64", "def base(): return [2]")
    assert rows(connection, "SELECT * FROM over_base") == [(2,)]
    run(connection, "DROP VIEW over_base")


def test_information_schema_lists_streams(connection, users):
    sql = "SELECT column_name FROM information_schema.columns WHERE table_name = 'users' ORDER BY ordinal_position"
    assert rows(connection, sql) == [("id",), ("name",)]


def test_streams_join_files(connection, users, tmp_path):
    path = tmp_path / "ages.parquet"
    run(connection, f"COPY (SELECT 1 AS id, 30 AS age) TO '{path}' STORED AS PARQUET")
    run(connection, f"CREATE EXTERNAL TABLE ages STORED AS PARQUET LOCATION '{path}'")
    assert rows(connection, "SELECT name, age FROM users JOIN ages USING (id)") == [("ann", 30)]
    run(connection, "DROP TABLE ages")


def test_many_connections_at_once(server, connection, users):
    connections = [server.connect() for _ in range(20)]
    cursors = [opened.cursor() for opened in connections]
    for cursor in cursors:
        cursor.execute("SELECT * FROM users ORDER BY id")
    assert all(cursor.fetchall() == users for cursor in cursors)
    for cursor, opened in zip(cursors, connections):
        cursor.close()
        opened.close()
    wait_until(lambda: not queries(connection), "the queries' end")


def channel(server):
    return grpc.insecure_channel(server.uri.removeprefix("grpc://"))


def called(channel, method, request):
    """The answers to a message as it is on the wire."""
    call = channel.unary_stream(f"/arrow.flight.protocol.FlightService/{method}")
    return [*call(request, timeout=PATIENCE)]


def by_command(command):
    """A descriptor."""
    return message((1, 2), (2, command))


@pytest.mark.parametrize(
    ("method", "sent", "code", "said"),
    [
        ("GetFlightInfo", by_command(b""), "INVALID_ARGUMENT", "send one, such as CommandStatementQuery"),
        ("GetFlightInfo", message((1, 1), (3, "users")), "INVALID_ARGUMENT", "paths are not taken"),
        ("GetSchema", by_command(b""), "INVALID_ARGUMENT", "send one, such as CommandStatementQuery"),
        ("PollFlightInfo", by_command(b""), "INVALID_ARGUMENT", "send one, such as CommandStatementQuery"),
        ("DoGet", b"", "INVALID_ARGUMENT", "send one, such as CommandStatementQuery"),
        ("DoPut", message((1, by_command(b""))), "INVALID_ARGUMENT", "send one, such as CommandStatementQuery"),
        (
            "GetFlightInfo",
            by_command(packed("CommandStatementSubstraitPlan")),
            "UNIMPLEMENTED",
            "Substrait plans are not",
        ),
        ("GetSchema", by_command(packed("CommandStatementSubstraitPlan")), "UNIMPLEMENTED", "offered: send SQL"),
    ],
)
def test_what_is_no_command_is_told_what_one_is(server, method, sent, code, said):
    with channel(server) as raw, pytest.raises(grpc.RpcError) as raised:
        called(raw, method, sent)
    assert raised.value.code() == grpc.StatusCode[code]
    assert said in raised.value.details()


def renewed(channel, ticket):
    """RenewFlightEndpoint of an endpoint with this ticket."""
    endpoint = message((1, message((1, ticket))))
    return called(channel, "DoAction", message((1, "RenewFlightEndpoint"), (2, message((1, endpoint)))))


@pytest.mark.parametrize("ticket", [b"", b"junk", packed("CommandStatementQuery", (1, "SELECT 1")), packed("Other")])
def test_what_is_no_ticket_is_not_renewed(server, ticket):
    with channel(server) as raw:
        assert renewed(raw, packed("CommandGetCatalogs")), "the ticket of a listing does not expire"
        with pytest.raises(grpc.RpcError) as raised:
            renewed(raw, ticket)
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND
    assert "no such ticket" in raised.value.details()


@pytest.mark.parametrize("cancel", ["CancelFlightInfo", "CancelQuery"])
def test_a_statement_that_is_cancelled_ends_although_it_is_polled_for(server, connection, notes, cancel):
    body = f"""
        import itertools, time
        def read():
            for n in itertools.count():
                time.sleep(0.001)
                yield n
        def write(n):
            open({str(notes)!r}, "a").write("x")
    """
    create(connection, "going", "n int64", body, read_function_name="read", write_function_name="write")
    with channel(server) as raw:

        def poll(descriptor):
            (answer,) = called(raw, "PollFlightInfo", descriptor)
            return dict(parsed(answer))

        first = poll(by_command(packed("CommandStatementQuery", (1, "INSERT INTO going SELECT n FROM going"))))
        wait_for_text(notes, "x")
        with ThreadPoolExecutor(1) as pool:
            in_flight = pool.submit(poll, first[2])
            if cancel == "CancelFlightInfo":
                request = message((1, first[1]))
            else:
                request = packed("ActionCancelQueryRequest", (1, first[1]))
            called(raw, "DoAction", message((1, cancel), (2, request)))
            with pytest.raises(grpc.RpcError) as raised:
                in_flight.result(PATIENCE)
        assert raised.value.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.NOT_FOUND)
        wait_until(lambda: not queries(connection), "the end of the query")


SINK = """
import os, time

def sink(n):
    while not os.path.exists({folder!r} + f"/{{n[0]}}"):
        time.sleep(0.005)
"""


def test_a_statement_that_runs_is_asked_after_while_the_server_ends(own_server, tmp_path):
    server = own_server("--grace", "30")
    with server.connect() as connection, channel(server) as raw:
        create(connection, "sink", "n int64", SINK.format(folder=str(tmp_path)))

        def poll(descriptor):
            (answer,) = called(raw, "PollFlightInfo", descriptor)
            return dict(parsed(answer))

        statements = [
            by_command(packed("CommandStatementQuery", (1, f"INSERT INTO sink VALUES ({n})"))) for n in (1, 2)
        ]
        # The other one keeps the server there.
        ending, _ = [poll(statement)[2] for statement in statements]
        server.process.send_signal(signal.SIGTERM)
        wait_for_text(server.log, "shutting down")
        with pytest.raises(grpc.RpcError) as raised:
            poll(statements[0])
        assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
        (tmp_path / "1").touch()
        ended = poll(ending)
        assert 2 not in ended, "it has ended"
        endpoint = dict(parsed(dict(parsed(ended[1]))[3]))
        assert called(raw, "DoGet", endpoint[1]), "no rows, with their schema"
        (tmp_path / "2").touch()
        assert server.process.wait(PATIENCE) == 0
