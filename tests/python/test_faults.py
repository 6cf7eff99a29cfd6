"""Clients that come, go, vanish, lie and break off, again and again: the server keeps nothing of them."""

import contextlib
import os
import socket
import struct
import subprocess
import sys
import urllib.request
from pathlib import Path

import pyarrow
import pyarrow.flight
import pytest
from adbc_driver_flightsql import dbapi
from harness import create, kill_group, queries, run, value, wait_until

TURNS = 12
WARM_UP = 4

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="threads and files are counted in /proc")

VANISHING = """
import os, sys
from adbc_driver_flightsql import dbapi
connection = dbapi.connect(sys.argv[1], autocommit=True)
cursor = connection.cursor()
cursor.execute("SELECT n FROM endless")
cursor.fetch_record_batch().read_next_batch()
print("reading", flush=True)
sys.stdin.read()
"""


def kept(server):
    """The threads and the open files of a server."""
    folder = Path(f"/proc/{server.process.pid}")
    return len(list((folder / "task").iterdir())), len(list((folder / "fd").iterdir()))


def resident_mib(server):
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def address(server):
    host, port = server.uri.removeprefix("grpc://").rsplit(":", 1)
    return host, int(port)


def connect_and_leave(server):
    with server.connect() as connection:
        assert value(connection, "SELECT 1") == 1


def leave_statements_open(server):
    with server.connect() as connection:
        cursor = connection.cursor()
        cursor.adbc_prepare("SELECT n FROM endless WHERE n > ?")
        cursor.execute("SELECT n FROM endless")
        cursor.fetch_record_batch().read_next_batch()
        cursor.adbc_cancel()
        cursor.close()


def vanish(server):
    client = subprocess.Popen(
        [sys.executable, "-c", VANISHING, server.uri],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with client.stdin, client.stdout:
        assert client.stdout.readline() == "reading\n"
        kill_group(client)


def reset(server):
    """A connection that is cut with unread data, which resets it."""
    with socket.create_connection(address(server)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        client.recv(1)


def send_garbage(server):
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    for garbage in [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01" + b"\xff" * 100,
        preface + b"\xff" * 64,
        os.urandom(200),
    ]:
        with socket.create_connection(address(server)) as client, contextlib.suppress(OSError):
            client.settimeout(20)
            client.sendall(garbage)
            client.shutdown(socket.SHUT_WR)
            while client.recv(4096):
                pass


def send_what_is_no_command(server):
    with pyarrow.flight.connect(server.uri.replace("grpc://", "grpc+tcp://")) as client:
        for call in [
            lambda: client.get_flight_info(pyarrow.flight.FlightDescriptor.for_command(b"\xff\xff")),
            lambda: client.do_get(pyarrow.flight.Ticket(b"nobody's")).read_all(),
            lambda: list(client.do_action(pyarrow.flight.Action("CancelFlightInfo", b"\xff"))),
            lambda: list(client.do_action(pyarrow.flight.Action("Nonsense", b""))),
        ]:
            with pytest.raises((pyarrow.ArrowException, pyarrow.flight.FlightError)):
                call()


def send_too_much(server):
    with server.connect() as connection, connection.cursor() as cursor, pytest.raises(dbapi.Error):
        cursor.execute(f"SELECT '{'x' * 17_000_000}'")


def break_off_an_ingest(server):
    def rows():
        yield pyarrow.record_batch({"n": [1, 2, 3]})
        raise ConnectionError("the client's own reader fails")

    reader = pyarrow.RecordBatchReader.from_batches(pyarrow.schema({"n": pyarrow.int64()}), rows())
    with server.connect() as connection, connection.cursor() as cursor:
        try:
            cursor.adbc_ingest("halves", reader, mode="create")
        except Exception as error:
            assert "fails" in str(error)
        run(connection, "DROP TABLE IF EXISTS halves")


def fail_in_python(server):
    with server.connect() as connection, connection.cursor() as cursor, pytest.raises(dbapi.Error, match="no luck"):
        cursor.execute("SELECT n FROM failing")
        cursor.fetchall()


def leave_over_http(server):
    with urllib.request.urlopen(f"{server.http}/?query=SELECT+n+FROM+endless", timeout=20) as response:
        assert response.readline() == b"0\n"


FAULTS = [
    connect_and_leave,
    leave_statements_open,
    vanish,
    reset,
    send_garbage,
    send_what_is_no_command,
    send_too_much,
    break_off_an_ingest,
    fail_in_python,
    leave_over_http,
]


def test_nothing_is_left_of_clients(own_server):
    server = own_server()
    with server.connect() as connection:
        body = "import itertools\ndef read(): yield from itertools.count()"
        create(connection, "endless", "n int64", body, mode="streaming", read_function_name="read")
        create(connection, "failing", "n int64", "def read(): raise ValueError('no luck')", read_function_name="read")
        settled = None
        for turn in range(TURNS):
            for fault in FAULTS:
                fault(server)
            wait_until(lambda: not queries(connection), "system.queries empty")
            assert value(connection, "SELECT 1") == 1
            if turn + 1 == WARM_UP:
                settled, memory = kept(server), resident_mib(server)
        threads, files = settled
        wait_until(lambda: kept(server) <= (threads + 2, files + 2), f"as few threads and files as {settled}")
        assert kept(server)[1] <= files + 2
        assert resident_mib(server) < memory + 64
    server.process.terminate()
    assert server.process.wait(20) == 0
