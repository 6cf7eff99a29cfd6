"""One server for the tests of a file, and the promise that none of them leaves anything running in it."""

import pytest
from harness import Server, queries, value, wait_until, watched

TEST_LIMIT = 60.0


class Shared:
    """The server that tests share. One that died is replaced, so that one crash is one failure."""

    def __init__(self, folders):
        self.folders = folders
        self.running = None

    def get(self):
        if self.running is None or not self.running.alive():
            self.end()
            self.running = Server(self.folders.mktemp("server"))
        return self.running

    def end(self):
        if self.running is not None:
            self.running.kill()
            self.running = None


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    shared = Shared(tmp_path_factory)
    yield shared
    shared.end()


@pytest.fixture
def server(shared):
    """The shared server. After the test it answers and runs nothing; a test that hangs loses it, and fails."""
    with watched(shared.get(), TEST_LIMIT) as server:
        yield server
        assert server.alive(), f"the server died: {server.log.read_text()[-4000:]}"
        with server.connect() as connection:
            try:
                wait_until(lambda: not queries(connection), "system.queries empty")
            except AssertionError as left:
                running = queries(connection)
                shared.end()
                raise AssertionError(f"left running: {running}") from left
            assert value(connection, "SELECT 1") == 1


@pytest.fixture
def connection(server):
    with server.connect() as connection:
        yield connection


@pytest.fixture
def notes(tmp_path):
    """The file that Python on a server writes to, to tell what it has done."""
    return tmp_path / "notes"


@pytest.fixture
def own_server(tmp_path):
    """Starts servers that belong to the test alone."""
    started = []

    def start(*arguments):
        started.append(Server(tmp_path, *arguments))
        return started[-1]

    yield start
    for server in started:
        server.kill()
