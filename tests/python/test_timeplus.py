"""The examples of Timeplus's documentation, as written there."""

import http.server
import json
import threading
import time

import pytest
from harness import error, query_running, rows, run, table

PY_CLOCK = """
CREATE EXTERNAL STREAM py_clock (tick uint32, label string)
AS $$
import time

def py_clock():
    n = 0
    while True:
        yield (n, "tick")
        n += 1
        time.sleep(1)
$$
SETTINGS
    type = 'python',
    mode = 'streaming';
"""

PY_USERS = """
CREATE EXTERNAL STREAM py_users (id int32, name string)
AS $$
import json
import urllib.request

def py_users():
    with urllib.request.urlopen("https://api.example.com/users") as r:
        payload = json.load(r)
    return [(u["id"], u["name"]) for u in payload]
$$
SETTINGS
    type = 'python',
    mode = 'batch';
"""

PY_COOKIE_COUNTER = """
CREATE EXTERNAL STREAM py_cookie_counter
(
    previous_cleanup_count int32,
    secret_flavor string
)
AS $$
import builtins, json

def open_bakery(config):
    builtins._tp_cookie_secret_flavor = json.loads(config)["flavor"]

def close_bakery():
    if hasattr(builtins, "_tp_cookie_secret_flavor"):
        del builtins._tp_cookie_secret_flavor

def serve_cookie_report():
    return [(0, getattr(builtins, "_tp_cookie_secret_flavor", ""))]
$$
SETTINGS
    type = 'python',
    read_function_name = 'serve_cookie_report',
    init_function_name = 'open_bakery',
    init_function_parameters = '{"flavor":"double-chocolate"}',
    deinit_function_name = 'close_bakery';
"""

SKELETON = """
CREATE EXTERNAL STREAM IF NOT EXISTS stream_name (col1 int32)
AS $$
written = []

def read_fn():
    ...
    return [1, 2, 3]

def write_fn(col1, *rest):
    ...

def init_fn(config): # optional
    ...

def deinit_fn(): # optional
    ...
$$
SETTINGS
    type = 'python', -- required
    read_function_name = 'read_fn', -- defaults to the stream name
    write_function_name = 'write_fn', -- defaults to read_function_name
    init_function_name = 'init_fn',
    init_function_parameters = 'anything', -- requires init_function_name
    deinit_function_name = 'deinit_fn',
    mode = 'auto' -- 'auto' (default), 'streaming', or 'batch'
"""


@pytest.fixture
def made(connection):
    """Creates a documented stream and drops it after the test."""
    names = []

    def create(statement):
        name = statement.split("EXTERNAL STREAM")[1].replace("IF NOT EXISTS", "").split()[0]
        run(connection, statement)
        names.append(name)

    yield create
    for name in names:
        run(connection, f"DROP STREAM IF EXISTS {name}")


@pytest.fixture
def users_url():
    class Users(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content = json.dumps([{"id": 1, "name": "ann"}, {"id": 2, "name": "bob"}]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Users) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/users"
        server.shutdown()
        thread.join()


def test_clock_ticks_once_a_second(connection, made):
    made(PY_CLOCK)
    with connection.cursor() as cursor:
        start = time.monotonic()
        cursor.execute("SELECT * FROM py_clock")
        assert cursor.fetchone() == (0, "tick")
        assert time.monotonic() - start < 0.9, "the first row waited for the second"
        assert cursor.fetchone() == (1, "tick")
        assert cursor.fetchone() == (2, "tick")
        assert 1.5 < time.monotonic() - start < 3.5


def test_clock_has_its_declared_types(connection, made):
    made(PY_CLOCK)
    schema = table(connection, "SELECT * FROM py_clock LIMIT 1").schema
    assert [(field.name, str(field.type), field.nullable) for field in schema] == [
        ("tick", "uint32", True),
        ("label", "string", True),
    ]


def test_clock_stops_when_it_is_killed(server, connection, made):
    made(PY_CLOCK)
    with server.connect() as reading, reading.cursor() as cursor:
        cursor.execute("SELECT * FROM py_clock")
        cursor.fetchone()
        run(connection, f"KILL QUERY '{query_running(connection, 'py_clock')}'")
        with pytest.raises(reading.Error, match=r"(?i)cancel"):
            while cursor.fetchone():
                pass


def test_users_over_http(connection, made, users_url):
    made(PY_USERS.replace("https://api.example.com/users", users_url))
    assert rows(connection, "SELECT * FROM py_users ORDER BY id") == [(1, "ann"), (2, "bob")]
    assert rows(connection, "SELECT count(*) FROM py_users WHERE name = 'bob'") == [(1,)]


def test_cookie_counter_is_set_up_and_torn_down_for_each_query(connection, made):
    made(PY_COOKIE_COUNTER)
    for _ in range(3):
        assert rows(connection, "SELECT * FROM py_cookie_counter") == [(0, "double-chocolate")]
    made(PY_COOKIE_COUNTER.replace("py_cookie_counter", "no_init").split("    init_function_name")[0].rstrip(", \n"))
    assert rows(connection, "SELECT secret_flavor FROM no_init") == [("",)]


def test_the_skeleton_reads_and_writes(connection, made):
    made(SKELETON)
    made(SKELETON)
    assert rows(connection, "SELECT sum(col1) FROM stream_name") == [(6,)]
    assert run(connection, "INSERT INTO stream_name VALUES (1), (2)") == 2
    run(connection, SKELETON)


def test_init_parameters_require_an_init_function(connection):
    assert "Setting 'init_function_parameters' requires 'init_function_name' to be configured" in error(
        connection, PY_COOKIE_COUNTER.replace("init_function_name = 'open_bakery',", "")
    )


def test_streaming_mode_rejects_a_list(connection, made):
    made(PY_COOKIE_COUNTER.replace("type = 'python'", "type = 'python', mode = 'streaming'"))
    assert "list" in error(connection, "SELECT * FROM py_cookie_counter")


def test_batch_mode_rejects_a_generator(connection, made):
    made(PY_CLOCK.replace("mode = 'streaming'", "mode = 'batch'"))
    assert "generator" in error(connection, "SELECT * FROM py_clock")


def test_read_error_carries_the_traceback(connection, made, users_url):
    made(PY_USERS.replace("https://api.example.com/users", users_url).replace('u["id"]', 'u["key"]'))
    message = error(connection, "SELECT * FROM py_users")
    assert "KeyError: 'key'" in message
    assert 'return [(u["key"], u["name"]) for u in payload]' in message
