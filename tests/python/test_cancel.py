"""However a query ends, its Python ends with it: `finally` runs, deinit runs once, and nothing is left."""

import contextlib
import signal
import subprocess
import sys
import time

import pyarrow.flight
import pytest
from harness import (
    COUATL,
    PATIENCE,
    Network,
    create,
    kill_group,
    noting,
    queries,
    query_running,
    rows,
    run,
    wait_for_text,
    wait_until,
    words,
)
from test_faults import CANCELLED, NOT_CANCELLABLE, Caller, field, fields, sql_message, statement

# What every body below imports.
IMPORTS = "import builtins, time"

SUSPENDED = """
def read():
    try:
        n = 0
        while True:
            yield n
            n += 1
    finally:
        note("finally")
"""

SLEEPING = """
def read():
    try:
        yield 0
        while True:
            time.sleep(0.05)
    except KeyboardInterrupt:
        note("interrupt")
        raise
    finally:
        note("finally")
"""

BUSY = """
def read():
    try:
        yield 0
        n = 0
        while True:
            n += 1
    finally:
        note("finally")
"""

BUSY_BEFORE_THE_FIRST_ROW = """
def read():
    note("busy")
    n = 0
    while True:
        n += 1
    yield 0
"""

SWALLOWING = """
def read():
    yield 0
    for _ in range(3):
        try:
            while True:
                time.sleep(0.01)
        except KeyboardInterrupt:
            note("swallowed")
    while True:
        time.sleep(0.01)
"""

SWALLOWING_AND_YIELDING = """
def read():
    n = 0
    while True:
        try:
            yield n
            time.sleep(0.01)
        except KeyboardInterrupt:
            note("swallowed")
        n += 1
"""

YIELDING_IN_FINALLY = """
def read():
    try:
        n = 0
        while True:
            yield n
            n += 1
    finally:
        note("finally")
        yield -1
"""

# The value's own code runs while it is converted: one by one, or with its list.
CONVERTING = """
class Endless:
    def __index__(self):
        n = 0
        while True:
            n += 1

def read():
    try:
        yield 0
        yield None
        yield {item}
    finally:
        note("finally")
"""

BODIES = {
    "converting": CONVERTING.format(item="Endless()"),
    "converting_a_list": CONVERTING.format(item="[(1,), (Endless(),)]"),
    "yielding_in_finally": YIELDING_IN_FINALLY,
    "suspended": SUSPENDED,
    "sleeping": SLEEPING,
    "busy": BUSY,
    "swallowing": SWALLOWING,
    "swallowing_and_yielding": SWALLOWING_AND_YIELDING,
}

FUNCTIONS = {"read_function_name": "read", "init_function_name": "init", "deinit_function_name": "deinit"}


def create_noted(connection, name, path, body, mode="streaming", **settings):
    """Makes a stream of a body that takes notes."""
    create(connection, name, "n int64", noting(path, IMPORTS, body), mode=mode, **FUNCTIONS, **settings)


@pytest.fixture
def stream(connection, notes):
    """Makes the stream `endless` of a body that takes notes."""

    def make(body, mode="streaming", **settings):
        create_noted(connection, "endless", notes, body, mode, **settings)

    return make


def assert_ended(connection, notes, patience=PATIENCE):
    """The query is gone, and it was initialised and cleaned up once, in that order."""
    wait_until(lambda: not queries(connection), "the query's end", patience)
    found = words(notes)
    assert found[0] == "init" and found[-1] == "deinit", found
    assert found.count("init") == found.count("deinit") == 1, found
    assert found.count("finally") <= 1, found
    return found


@pytest.mark.parametrize("body", BODIES)
def test_client_closes_its_reader(server, connection, stream, notes, body):
    stream(BODIES[body])
    with server.connect() as reading:
        cursor = reading.cursor()
        cursor.execute("SELECT n FROM endless")
        reader = cursor.fetch_record_batch()
        assert reader.read_next_batch().num_rows > 0
        reader.close()
        cursor.close()
        found = assert_ended(connection, notes)
    assert ("finally" in found) == ("finally" in BODIES[body])


@pytest.mark.parametrize("body", BODIES)
def test_kill_query(server, connection, stream, notes, body):
    stream(BODIES[body])
    with server.connect() as reading, reading.cursor() as cursor:
        cursor.execute("SELECT n FROM endless")
        cursor.fetchone()
        started = time.monotonic()
        run(connection, f"KILL QUERY '{query_running(connection, 'endless')}'")
        with pytest.raises(reading.Error, match=r"(?i)cancel"):
            while cursor.fetchone():
                pass
        assert time.monotonic() - started < 8
        found = assert_ended(connection, notes)
    assert ("finally" in found) == ("finally" in BODIES[body])


@pytest.mark.parametrize("body", [SUSPENDED, SLEEPING, BUSY], ids=["suspended", "sleeping", "busy"])
def test_client_process_is_killed(server, connection, stream, notes, body):
    stream(body)
    client = f"""
from adbc_driver_flightsql import dbapi
cursor = dbapi.connect({server.uri!r}, autocommit=True).cursor()
cursor.execute("SELECT n FROM endless")
cursor.fetchone()
print("reading", flush=True)
while cursor.fetchone():
    pass
"""
    process = subprocess.Popen(
        [sys.executable, "-c", client], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        assert process.stdout.readline() == b"reading\n"
        query_running(connection, "endless")
    finally:
        kill_group(process)
        process.stdout.close()
    assert "finally" in assert_ended(connection, notes)


def test_clients_whose_network_is_lost(own_server, tmp_path):
    """Their connections stay open. The server asks after them every 25 seconds, and waits for 10."""
    bodies = {"sleeping": SLEEPING, "suspended": SUSPENDED}
    server, clients = own_server(), []
    with server.connect() as connection, Network(server) as network:
        try:
            for name, body in bodies.items():
                create_noted(connection, name, tmp_path / name, body)
                clients.append(reader(network, f"SELECT n FROM {name}"))
                assert [clients[-1].stdout.readline() for _ in range(2)] == [b"n\n", b"0\n"]
            assert len(queries(connection)) == 2
            network.lose()
            for name in bodies:
                assert "finally" in assert_ended(connection, tmp_path / name, patience=60)
        finally:
            for client in clients:
                kill_group(client)
                client.stdout.close()
                client.stderr.close()


def cancel(caller, action, info):
    """What a client is answered that cancels what an info stands for."""
    if action == "CancelFlightInfo":
        return caller.act(action, field(1, info.serialize()))
    (answer,) = caller.act(action, sql_message("ActionCancelQueryRequest", field(1, info.serialize())))
    return [fields(answer)[2]]


def is_told(batches):
    """Whether who reads is told that the query was cancelled."""
    with pytest.raises(pyarrow.flight.FlightCancelledError, match="cancelled by its client"):
        while True:
            batches.read_chunk()
    return True


CANCELS = pytest.mark.parametrize("action", ["CancelFlightInfo", "CancelQuery"])


@CANCELS
@pytest.mark.parametrize("body", [SUSPENDED, SLEEPING], ids=["suspended", "sleeping"])
def test_cancel_of_a_query_that_is_being_read(server, connection, stream, notes, action, body):
    """By another connection, of the same user: drivers have one for this."""
    stream(body)
    with Caller(server, "token") as reading, Caller(server, "token") as other:
        info = reading.info(statement("SELECT n FROM endless"))
        (endpoint,) = info.endpoints
        batches = reading.fetch(endpoint.ticket)
        batches.read_chunk()
        assert cancel(other, action, info) == CANCELLED
        assert is_told(batches)
        assert "finally" in assert_ended(connection, notes)
        assert cancel(other, action, info) == NOT_CANCELLABLE
        with pytest.raises(pyarrow.ArrowKeyError, match="no such ticket"):
            reading.fetch(endpoint.ticket).read_all()


@CANCELS
def test_cancel_of_a_query_that_was_not_fetched(server, stream, notes, action):
    stream(SUSPENDED)
    with Caller(server, "token") as caller:
        info = caller.info(statement("SELECT n FROM endless"))
        assert cancel(caller, action, info) == CANCELLED
        assert cancel(caller, action, info) == NOT_CANCELLABLE
        with pytest.raises(pyarrow.ArrowKeyError, match="no such ticket"):
            caller.fetch(info.endpoints[0].ticket).read_all()
    assert words(notes) == []


def make_tickets_go(caller):
    """Takes tickets of statements so large that no others have room beside them."""
    older = caller.info(statement("SELECT 1"))
    large = statement(f"SELECT 1 /* {'x' * 14_000_000} */")
    for _ in range(5):
        caller.info(large)
    with pytest.raises(pyarrow.ArrowKeyError, match="no such ticket"):
        caller.fetch(older.endpoints[0].ticket).read_all()


@CANCELS
def test_cancel_of_a_query_whose_ticket_is_gone(own_server, tmp_path, action):
    server = own_server()
    with server.connect() as connection, Caller(server, "token") as reading, Caller(server, "token") as other:
        create_noted(connection, "endless", tmp_path / "notes", SLEEPING)
        info = reading.info(statement("SELECT n FROM endless"))
        batches = reading.fetch(info.endpoints[0].ticket)
        batches.read_chunk()
        make_tickets_go(other)
        assert cancel(other, action, info) == CANCELLED
        assert is_told(batches)
        assert "finally" in assert_ended(connection, tmp_path / "notes")


@CANCELS
def test_cancel_of_a_query_that_two_have_read_and_one_reads_on(own_server, tmp_path, action):
    """The end of the one does not hide the other, also where the ticket is gone."""
    server = own_server()
    with server.connect() as connection, Caller(server, "token") as reading, Caller(server, "token") as other:
        create_noted(connection, "endless", tmp_path / "notes", SLEEPING)
        info = reading.info(statement("SELECT n FROM endless"))
        (endpoint,) = info.endpoints
        both = [caller.fetch(endpoint.ticket) for caller in [reading, other]]
        for batches in both:
            batches.read_chunk()
        both[1].cancel()
        wait_until(lambda: len(queries(connection)) == 1, "one of them has ended")
        make_tickets_go(other)
        assert cancel(other, action, info) == CANCELLED
        assert is_told(both[0])


def test_kill_before_the_first_row(server, connection, stream, notes):
    stream(BUSY_BEFORE_THE_FIRST_ROW)
    with server.connect() as reading, reading.cursor() as cursor:
        cursor.execute("SELECT n FROM endless")
        wait_for_text(notes, "busy")
        run(connection, f"KILL QUERY '{query_running(connection, 'endless')}'")
        with pytest.raises(reading.Error, match=r"(?i)cancel"):
            cursor.fetchone()
    assert assert_ended(connection, notes) == ["init", "busy", "deinit"]


def test_kill_in_a_sinks_busy_loop(server, connection, notes):
    body = noting(
        notes,
        IMPORTS,
        "def write(n):\n    note('busy')\n    try:\n        i = 0\n        while True:\n            i += 1\n"
        "    finally:\n        note('finally')\n",
    )
    settings = {"write_function_name": "write", "init_function_name": "init", "deinit_function_name": "deinit"}
    create(connection, "sink", "n int64", body, **settings)
    client = subprocess.Popen(
        [COUATL, "sql", "--connect", server.uri, "INSERT INTO sink VALUES (1)"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        wait_for_text(notes, "busy")
        run(connection, f"KILL QUERY '{query_running(connection, 'INSERT INTO sink')}'")
        _, said = client.communicate(timeout=PATIENCE)
        assert client.returncode != 0
        assert b"cancel" in said.lower()
    finally:
        kill_group(client)
    assert assert_ended(connection, notes) == ["init", "busy", "finally", "deinit"]


def test_a_slow_finally_is_not_interrupted_again(server, connection, stream, notes):
    stream("""
def read():
    try:
        yield 0
        while True:
            time.sleep(0.01)
    finally:
        time.sleep(0.4)
        note("finally")
""")
    with server.connect() as reading, reading.cursor() as cursor:
        cursor.execute("SELECT n FROM endless")
        cursor.fetchone()
        run(connection, f"KILL QUERY '{query_running(connection, 'endless')}'")
        assert assert_ended(connection, notes) == ["init", "finally", "deinit"]


def test_insert_ends_when_its_client_is_killed(server, connection, notes):
    body = noting(notes, IMPORTS, "def write(n):\n    note('busy')\n    while True: time.sleep(0.01)\n")
    settings = {"write_function_name": "write", "init_function_name": "init", "deinit_function_name": "deinit"}
    create(connection, "sink", "n int64", body, **settings)
    client = subprocess.Popen(
        [COUATL, "sql", "--connect", server.uri, "INSERT INTO sink VALUES (1)"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for_text(notes, "busy")
    finally:
        kill_group(client)
    assert assert_ended(connection, notes) == ["init", "busy", "deinit"]


@pytest.mark.parametrize("body", [name for name in BODIES if name != "yielding_in_finally"])
def test_limit_stops_the_generator(connection, stream, notes, body):
    stream(BODIES[body])
    assert rows(connection, "SELECT n FROM endless LIMIT 1") == [(0,)]
    assert_ended(connection, notes)


def test_a_generator_that_refuses_to_close(connection, stream, notes):
    """Whether the client hears of it is a race: a LIMIT may have let go of its stream."""
    stream(YIELDING_IN_FINALLY)
    with contextlib.suppress(connection.Error):
        rows(connection, "SELECT n FROM endless LIMIT 1")
    assert assert_ended(connection, notes) == ["init", "finally", "deinit"]


def test_limit_takes_no_more_rows_than_it_needs(connection, stream, notes):
    stream("def read():\n    for n in range(100):\n        note(f'row{n}')\n        yield n\n")
    assert rows(connection, "SELECT n FROM endless LIMIT 3") == [(0,), (1,), (2,)]
    assert [word for word in assert_ended(connection, notes) if word.startswith("row")] == ["row0", "row1", "row2"]


def test_limit_over_a_filter(connection, stream, notes):
    stream(SUSPENDED)
    assert rows(connection, "SELECT n FROM endless WHERE n % 7 = 3 LIMIT 2") == [(3,), (10,)]
    assert "finally" in assert_ended(connection, notes)


def test_limit_zero_runs_nothing(connection, stream, notes):
    stream(SUSPENDED)
    assert rows(connection, "SELECT n FROM endless LIMIT 0") == []
    assert words(notes).count("init") == words(notes).count("deinit")


def test_a_slow_client_stops_the_generator(server, connection, stream, notes):
    stream("def read():\n    n = 0\n    while True:\n        yield n\n        n += 1\n", batch_size=10)
    with server.connect() as reading, reading.cursor() as cursor:
        cursor.execute("SELECT n FROM endless")
        cursor.fetchone()

        def delivered():
            return rows(connection, "SELECT rows FROM system.queries WHERE sql LIKE '%FROM endless'")[0][0]

        def stands_still():
            before = delivered()
            time.sleep(0.3)
            return delivered() == before

        wait_until(stands_still, "the generator stopping")
    assert_ended(connection, notes)


def test_deinit_follows_an_error_once(connection, stream, notes):
    stream(
        "def read():\n    try:\n        yield 0\n        raise ValueError('boom')\n"
        "    finally:\n        note('finally')\n"
    )
    with pytest.raises(connection.Error, match="boom"):
        rows(connection, "SELECT n FROM endless")
    assert assert_ended(connection, notes) == ["init", "finally", "deinit"]


def test_deinit_follows_the_end_once(connection, stream, notes):
    stream("def read():\n    yield from range(3)\n    note('end')\n")
    assert rows(connection, "SELECT n FROM endless") == [(0,), (1,), (2,)]
    assert assert_ended(connection, notes) == ["init", "end", "deinit"]


def test_no_deinit_after_a_failed_init(connection, notes):
    body = noting(notes, IMPORTS, "def fail():\n    note('fail')\n    1 / 0\n\ndef read():\n    note('read')\n")
    create(connection, "endless", "n int64", body, **{**FUNCTIONS, "init_function_name": "fail"})
    with pytest.raises(connection.Error, match="ZeroDivisionError"):
        rows(connection, "SELECT n FROM endless")
    wait_until(lambda: not queries(connection), "the query's end")
    assert words(notes) == ["fail"]


def test_a_deinit_that_raises_is_told(connection):
    create(
        connection,
        "endless",
        "n int64",
        "def read():\n    return [1]\n\ndef deinit():\n    raise ValueError('left open')\n",
        read_function_name="read",
        deinit_function_name="deinit",
    )
    with pytest.raises(connection.Error, match="left open"):
        rows(connection, "SELECT n FROM endless")


def test_kill_of_nothing(connection):
    with pytest.raises(connection.Error, match="no query 'nothing' is running"):
        run(connection, "KILL QUERY 'nothing'")


def test_running_queries_are_listed(server, connection, stream):
    stream(SLEEPING)
    with server.connect() as reading, reading.cursor() as cursor:
        cursor.execute("SELECT n FROM endless")
        cursor.fetchone()
        with connection.cursor() as asking:
            asking.execute("SELECT * FROM system.queries")
            (found,) = asking.fetch_arrow_table().to_pylist()
            asking.execute("SHOW QUERIES")
            (shown,) = asking.fetch_arrow_table().to_pylist()
    assert found["sql"] == "SELECT n FROM endless"
    assert found["state"] == "running"
    assert found["rows"] == 1
    assert found["started"].tzinfo is not None
    assert found.keys() == shown.keys()
    assert found["query_id"] == shown["query_id"]


def test_two_queries_end_apart(server, connection, stream):
    stream(SLEEPING)
    with server.connect() as left, left.cursor() as first, server.connect() as right, right.cursor() as second:
        first.execute("SELECT n AS first FROM endless")
        second.execute("SELECT n AS second FROM endless")
        assert first.fetchone() == second.fetchone() == (0,)
        by_text = {sql: id for id, sql, _ in queries(connection)}
        assert len(by_text) == 2, by_text
        run(connection, f"KILL QUERY '{next(id for sql, id in by_text.items() if 'first' in sql)}'")
        with pytest.raises(left.Error, match=r"(?i)cancel"):
            first.fetchone()
        (other,) = queries(connection)
        assert "second" in other[1]


def reader(server, sql):
    """A client process that prints rows. (ADBC cannot close a statement whose server is gone without an error.)"""
    return subprocess.Popen(
        [COUATL, "sql", "--connect", server.uri, "--format", "csv", sql],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_server_ends_with_endless_queries(own_server, notes, name, body):
    server = own_server("--grace", "0.3")
    with server.connect() as connection:
        create_noted(connection, "endless", notes, BODIES[body])
    client = reader(server, "SELECT n FROM endless")
    try:
        assert [client.stdout.readline() for _ in range(2)] == [b"n\n", b"0\n"]
        server.process.send_signal(getattr(signal, name))
        _, said = client.communicate(timeout=PATIENCE)
        assert client.returncode not in (0, None), "the rows ended as if there were no more"
        assert b"cancel" in said.lower() or b"shut" in said.lower(), said
        assert server.process.wait(PATIENCE) == 0, server.log.read_text()
    finally:
        kill_group(client)
    assert words(notes).count("deinit") == 1
    assert ("finally" in words(notes)) == ("finally" in BODIES[body])


def test_a_second_signal_ends_the_server_at_once(own_server):
    server = own_server("--grace", "60")
    with server.connect() as connection:
        body = "import time\ndef endless():\n    yield 0\n    while True: time.sleep(0.05)\n"
        create(connection, "endless", "n int64", body)
    client = reader(server, "SELECT n FROM endless")
    try:
        assert [client.stdout.readline() for _ in range(2)] == [b"n\n", b"0\n"]

        def ended():
            server.process.terminate()
            return server.process.poll() is not None

        wait_until(ended, "the server's end")
    finally:
        kill_group(client)
        client.stdout.close()
        client.stderr.close()


ASLEEP = """
def read():
    yield 0
    time.sleep(1000)
"""


@pytest.fixture
def asleep(own_server, notes):
    """A server with a query that sleeps in C, where no interrupt reaches it, and the client that reads it."""
    server = own_server("--grace", "0.3")
    with server.connect() as connection:
        create_noted(connection, "endless", notes, ASLEEP)
        client = reader(server, "SELECT n FROM endless")
        try:
            assert [client.stdout.readline() for _ in range(2)] == [b"n\n", b"0\n"]
            yield server, connection, client
        finally:
            kill_group(client)
            client.stdout.close()
            client.stderr.close()


def test_kill_of_a_query_that_sleeps_in_c(asleep):
    server, connection, client = asleep
    run(connection, f"KILL QUERY '{query_running(connection, 'SELECT n FROM endless')}'")
    _, said = client.communicate(timeout=PATIENCE)
    assert client.returncode == 1
    assert b"cancel" in said.lower()
    assert [state for _, sql, state in queries(connection) if "endless" in sql] in (["stuck"], [])
    server.process.terminate()
    assert server.process.wait(PATIENCE) == 0


def test_server_ends_while_a_query_sleeps_in_c(asleep):
    server, _, client = asleep
    server.process.terminate()
    client.communicate(timeout=PATIENCE)
    assert client.returncode == 1
    assert server.process.wait(PATIENCE) in (0, 1)


def test_server_ends_while_a_bodys_own_thread_runs(own_server):
    server = own_server("--grace", "0.3")
    body = "import threading, time\ndef spawning():\n    threading.Thread(target=time.sleep, args=(1000,)).start()\n"
    with server.connect() as connection:
        create(connection, "spawning", "n int64", body + "    return [1]\n")
        assert rows(connection, "SELECT n FROM spawning") == [(1,)]
    server.process.terminate()
    wait_until(lambda: not server.alive(), "the server's end", patience=5)
    assert server.process.wait() == 0
