"""What tests of the connectors in `examples/connectors` share: a Couatl that can import them, and what they need."""

import os
import sys
import threading
from itertools import islice
from pathlib import Path

PIP_PACKAGES = ["redis", "paho-mqtt", "nats-py", "psycopg[binary]", "httpx"]
APT_PACKAGES = ["redis-server", "mosquitto", "nats-server", "postgresql"]

ROOT = Path(__file__).parents[2]
CONNECTORS = ROOT / "examples" / "connectors"
sys.path[:0] = [str(ROOT / "tests" / "python"), str(CONNECTORS)]

import pytest  # noqa: E402
from harness import Server, error, queries, query_running, run, wait_until, watched  # noqa: E402

TEST_LIMIT = 15.0
#: How long an idle source may take to notice that its query has been killed, in seconds.
PROMPT = 1.5


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(CONNECTORS), prepend=os.pathsep)
        patch.setenv("PYTHONDONTWRITEBYTECODE", "1")
        patch.setenv("COUATL_SECRET_token", "hush-hush")
        server = Server(tmp_path_factory.mktemp("couatl"))
    yield server
    server.kill()


@pytest.fixture
def server(shared):
    """The server of a module. After each test, it answers and runs nothing."""
    with watched(shared, TEST_LIMIT):
        yield shared
        assert shared.alive(), f"the server died: {shared.log.read_text()[-4000:]}"
        with shared.connect() as connection:
            wait_until(lambda: not queries(connection), f"an end of {queries(connection)}")
        assert "is left behind" not in shared.log.read_text(), shared.log.read_text()


@pytest.fixture
def connection(server):
    with server.connect() as connection:
        yield connection


@pytest.fixture
def stream(connection):
    """Makes a stream of a class, by default one that does not end."""

    def make(name, path, columns="", **settings):
        settings = {"type": "python", "class": path, **settings}
        written = ", ".join(f"{key} = {setting(value)}" for key, value in settings.items())
        run(connection, f"CREATE OR REPLACE EXTERNAL STREAM {name} {columns} SETTINGS {written}")

    return make


def setting(value):
    if isinstance(value, (bool, int)):
        return str(value).lower()
    return "'" + str(value).replace("'", "''") + "'"


class Reader:
    """A query that runs, whose rows are read one after the other."""

    def __init__(self, server, sql):
        self.server, self.sql = server, sql
        self.connection = server.connect()
        self.cursor = self.connection.cursor()
        self.cursor.execute(sql)
        self.batches = self.cursor.fetch_record_batch()
        self.rows = (tuple(row.values()) for batch in self.batches for row in batch.to_pylist())

    def take(self, count):
        return list(islice(self.rows, count))

    def error(self):
        """What the query ends with, after rows that do not matter."""
        with pytest.raises(Exception) as caught:
            for _ in self.rows:
                pass
        return str(caught.value)

    def kill(self):
        """Kill it, and see that it says so."""
        with self.server.connect() as other:
            run(other, f"KILL QUERY '{query_running(other, self.sql)}'")
            assert "ancel" in self.error()
            wait_until(lambda: not queries(other), "the query's end", PROMPT)

    def close(self):
        self.cursor.close()
        self.connection.close()


@pytest.fixture
def reading(server):
    """Starts queries that are read while other things happen."""
    started = []

    def start(sql):
        started.append(Reader(server, sql))
        return started[-1]

    yield start
    for reader in started:
        reader.close()


@pytest.fixture
def inserting(server, connection):
    """Starts inserts that wait for something, and gives what kills them: they say so, and are gone."""

    def start(sql):
        ended = []

        def insert():
            with server.connect() as other:
                ended.append(error(other, sql))

        thread = threading.Thread(target=insert)
        thread.start()

        def kill(patience):
            run(connection, f"KILL QUERY '{query_running(connection, sql)}'")
            thread.join(patience)
            assert "ancel" in ended[0]
            wait_until(lambda: not queries(connection), "the query's end", 2)

        return kill

    return start
