"""Clients that come, go, vanish, lie, steal and break off, again and again: the server keeps nothing of them."""

import contextlib
import functools
import io
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import pyarrow
import pyarrow.flight
import pytest
from adbc_driver_flightsql import dbapi
from harness import (
    COUATL,
    PATIENCE,
    Clock,
    Network,
    Server,
    create,
    error,
    kill_group,
    queries,
    query_running,
    run,
    value,
    wait_for_text,
    wait_until,
)

TURNS = 12
WARM_UP = 4

# How often a server is asked for something before what it takes is what it needs.
ASKED = 300

# What a statement is filled with. One that is kept in each turn is seen in the server's memory.
LARGE = "x" * 4_000_000
MOST_MIB = 64

# What no message may be.
TOO_LARGE = "x" * 17_000_000

# Servers that are stopped, the grace that they have, and what their cleanup takes at most.
STOPS = 3
GRACE = 1
CLEANUP = 8

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="threads and files are counted in /proc")

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
CLEAR = re.compile("unavailable|cancel|refused|reset|all done", re.IGNORECASE)
NOT_FOUND = (pyarrow.ArrowKeyError, pyarrow.flight.FlightError)
CANCELLED, NOT_CANCELLABLE = [b"\x08\x01"], [b"\x08\x03"]

READING = """
import sys
from adbc_driver_flightsql import dbapi
connection = dbapi.connect(sys.argv[1], autocommit=True)
cursor = connection.cursor()
cursor.execute("SELECT n FROM endless")
cursor.fetch_record_batch().read_next_batch()
print("at work", flush=True)
sys.stdin.read()
"""

INGESTING = """
import sys, pyarrow
from adbc_driver_flightsql import dbapi
def batches():
    yield pyarrow.record_batch({"n": [1, 2, 3]})
    yield pyarrow.record_batch({"n": [4, 5, 6]})
    print("at work", flush=True)
    sys.stdin.read()
connection = dbapi.connect(sys.argv[1], autocommit=True)
reader = pyarrow.RecordBatchReader.from_batches(pyarrow.schema({"n": pyarrow.int64()}), batches())
connection.cursor().adbc_ingest("broken_off", reader, mode="create")
"""

ENDLESS = "import itertools\ndef read(): yield from itertools.count()"
TICKING = "import time\ndef read():\n    while True:\n        yield 0\n        time.sleep(0.01)"

# Begins, and goes on to its end once there is a file.
GATED = """
import os, time
def wait():
    while not os.path.exists({path!r}): time.sleep(0.01)
def read():
    yield 0
    wait()
    yield from (1, 2)
def write(n): wait()
"""


def kept(server):
    """The threads and the open files of a server."""
    folder = Path(f"/proc/{server.process.pid}")
    return len(list((folder / "task").iterdir())), len(list((folder / "fd").iterdir()))


def resident_mib(server):
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def least_mib(server, connection):
    """What a server takes. Its allocator gives back the rest some time later, when it is asked for something."""
    return min(resident_mib(server) for _ in range(ASKED) if value(connection, "SELECT 1") == 1)


def gauges(server, authorization):
    """What the server says that there is of queries, open streams, sessions and handles, where it is not nothing."""
    headers = {"authorization": authorization} if authorization else {}
    with urllib.request.urlopen(urllib.request.Request(f"{server.http}/metrics", headers=headers), timeout=20) as told:
        text = told.read().decode()
    names = set(re.findall(r"^# TYPE (\S+) gauge$", text, re.MULTILINE))
    numbers = [line.rsplit(" ", 1) for line in text.splitlines() if line.split("{")[0] in names]
    assert numbers
    # The ticket of a result that has been fetched can be used again for a while, and so can the prepared statement of a
    # client that has vanished: another connection of its user may have its handle.
    lives_on = ('kind="ticket"', 'kind="statement"')
    return {
        name: float(number) for name, number in numbers if float(number) and not any(kind in name for kind in lives_on)
    }


def address(server, protocol="grpc"):
    uri = {"grpc": server.uri, "http": server.http}[protocol]
    host, port = uri.removeprefix(f"{protocol}://").rsplit(":", 1)
    return host, int(port)


def flight(server):
    return pyarrow.flight.connect(server.uri.replace("grpc://", "grpc+tcp://"))


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


@contextlib.contextmanager
def killed(program, *arguments):
    """A client in a process of its own, from when it is at work until it is killed."""
    client = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with client.stdin, client.stdout, client.stderr:
        try:
            assert client.stdout.readline() == "at work\n", client.stderr.read()
            yield
        finally:
            kill_group(client)


def vanish(server):
    with killed(READING, server.uri):
        pass


def reset(server):
    """A connection that is cut with unread data, which resets it."""
    with socket.create_connection(address(server)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        client.recv(1)


def garbage():
    """What is not HTTP/2, and frames of it that nobody may send: headers, data, rows that are none."""
    head, _ = upload_messages("swallowing", APPENDED, [ROWS])
    upload = call_of("DoPut", "everybody")
    return [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01" + b"\xff" * 100,
        os.urandom(200),
        PREFACE + b"\xff" * 64,
        *(PREFACE + frame(kind, 5, os.urandom(100)) for kind in range(11)),
        upload + frame(0, 1, b"\xff" * 100),
        upload + frame(0, 1, enveloped(head) + enveloped(field(2, os.urandom(100)))),
        upload + frame(0, 0, enveloped(head)) + os.urandom(100),
    ]


def send_garbage(server):
    for sent in garbage():
        for port in [address(server), address(server, "http")]:
            with socket.create_connection(port) as client, contextlib.suppress(OSError):
                client.settimeout(20)
                client.sendall(sent)
                client.shutdown(socket.SHUT_WR)
                while client.recv(4096):
                    pass


def send_what_is_no_command(server):
    with flight(server) as client:
        for call in [
            lambda: client.get_flight_info(pyarrow.flight.FlightDescriptor.for_command(b"\xff\xff")),
            lambda: client.do_get(pyarrow.flight.Ticket(b"nobody's")).read_all(),
            lambda: list(client.do_action(pyarrow.flight.Action("CancelFlightInfo", b"\xff"))),
            lambda: list(client.do_action(pyarrow.flight.Action("Nonsense", b""))),
        ]:
            with pytest.raises((pyarrow.ArrowException, pyarrow.flight.FlightError)):
                call()


def send_too_much(server):
    with server.connect() as connection, connection.cursor() as cursor, pytest.raises(dbapi.Error, match="larger than"):
        cursor.execute(f"SELECT '{TOO_LARGE}'")
    rows = [pyarrow.record_batch({"n": numbers}) for numbers in [[1], list(range(len(TOO_LARGE) // 8))]]
    refused = pytest.raises(grpc.RpcError, match="takes more than 16777216 bytes")
    with refused, upload(server, "large", NEW, rows) as call:
        list(call)
    is_not_made(server, "large")
    asked = urllib.request.Request(server.http, data=f"SELECT '{TOO_LARGE}'".encode())
    with pytest.raises(OSError, match=r"413|reset|pipe"):
        urllib.request.urlopen(asked, timeout=20)


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


def is_running(server, table):
    """Waits until an ingest into a table runs."""
    with server.connect() as connection:
        query_running(connection, table)


def has_ended(connection, table):
    wait_until(lambda: all(table not in sql for _, sql, _ in queries(connection)), f"no ingest into {table}")


def is_not_made(server, table):
    """Half of an ingest makes no table, once it has ended."""
    with server.connect() as connection:
        has_ended(connection, table)
        assert f"{table}' not found" in error(connection, f"SELECT * FROM {table}")


def vanish_in_an_ingest(server):
    with killed(INGESTING, server.uri):
        is_running(server, "broken_off")
    is_not_made(server, "broken_off")


def lose_the_connection_in_an_ingest(server):
    for table, mode in [("cut_off", "create"), ("swallowing", "append")]:
        with Network(server) as network:

            def batches(network=network, table=table):
                yield pyarrow.record_batch({"n": [1, 2, 3]})
                is_running(server, table)
                network.cut()
                yield pyarrow.record_batch({"n": [4, 5, 6]})

            reader = pyarrow.RecordBatchReader.from_batches(pyarrow.schema({"n": pyarrow.int64()}), batches())
            connecting, lost = Server.connect(network), pytest.raises(dbapi.Error, match=CLEAR)
            with connecting as connection, connection.cursor() as cursor, lost:
                cursor.adbc_ingest(table, reader, mode=mode)
    is_not_made(server, "cut_off")


def cancel_half_an_ingest(server):
    for table, options in [("taken_back", NEW), ("swallowing", APPENDED)]:
        with half_an_ingest(server, table, options) as call:
            is_running(server, table)
            assert call.cancel()
            assert call.code() == grpc.StatusCode.CANCELLED
    is_not_made(server, "taken_back")


def send_half_a_message(server):
    """An upload that ends within a message: the call's end, its reset, or that of the connection."""
    for end in [frame(0, 1, b""), frame(3, 0, b"\0\0\0\x08"), b""]:
        with half_a_message(server) as client, contextlib.suppress(OSError):
            is_running(server, "swallowing")
            client.sendall(end)
            client.shutdown(socket.SHUT_WR)
            while client.recv(4096):
                pass


def kill_a_query(server):
    with server.connect() as reader, server.connect() as killer, reader.cursor() as cursor:
        cursor.execute("SELECT n, 'to be killed' FROM ticking")
        rows = cursor.fetch_record_batch()
        rows.read_next_batch()
        run(killer, f"KILL QUERY '{query_running(killer, 'to be killed')}'")
        with pytest.raises((dbapi.Error, pyarrow.ArrowException, OSError), match="cancel"):
            rows.read_all()


def vanish_with_a_session(server):
    """What a session keeps goes with its connection, where nobody else has its cookie."""
    with Network(server) as network, Caller(network, "nobody") as client:
        for name in ["one", "two", "three"]:
            client.info(statement(f"PREPARE {name} AS SELECT '{LARGE}'"))
        assert client.values("SELECT 1") == [1]
        network.cut()


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
    vanish_in_an_ingest,
    lose_the_connection_in_an_ingest,
    cancel_half_an_ingest,
    send_half_a_message,
    kill_a_query,
    vanish_with_a_session,
    fail_in_python,
    leave_over_http,
]


def assert_nothing_is_left(server, connection, faults, authorization=None):
    """Lets clients do this again and again, until the server would be seen to keep something of them."""
    settled, at_rest = None, {"couatl_sessions{}": 1}
    wait_until(lambda: gauges(server, authorization) == at_rest, "the session of this connection alone")
    for turn in range(TURNS):
        for fault in faults:
            fault(server)
        wait_until(lambda: not queries(connection), "system.queries empty")
        assert value(connection, "SELECT 1") == 1
        if turn + 1 == WARM_UP:
            settled, memory = kept(server), least_mib(server, connection)
    try:
        wait_until(lambda: gauges(server, authorization) == at_rest, f"nothing but {at_rest}")
    except AssertionError as left:
        raise AssertionError(f"left: {gauges(server, authorization)}") from left
    threads, files = settled
    wait_until(
        lambda: all(now <= before + 2 for now, before in zip(kept(server), settled)),
        f"no more than {threads} threads and {files} files, and two",
    )
    assert "panicked" not in server.log.read_text()
    after = least_mib(server, connection)
    assert after < memory + MOST_MIB, f"{memory:.0f} MiB after {WARM_UP} turns, {after:.0f} MiB after {TURNS}"


def test_nothing_is_left_of_clients(own_server, tmp_path):
    server = own_server()
    with server.connect() as connection:
        create_streams(connection, tmp_path / "gate")
        assert_nothing_is_left(server, connection, FAULTS)
    server.process.terminate()
    assert server.process.wait(20) == 0


# Users, their tokens, and what they hold.


def user(*arguments, password=""):
    done = subprocess.run(
        [COUATL, "user", *arguments], input=f"{password}\n", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def users(tmp_path):
    """A file of users whose passwords are their names."""
    path = tmp_path / "users"
    for name, role in {"ann": "admin", "bob": "developer", "eve": "admin"}.items():
        user("add", name, "--role", role, "--users", path, password=name)
    return path


def connect_as(name, server, password=None):
    return dbapi.connect(server.uri, db_kwargs={"username": name, "password": password or name}, autocommit=True)


ANN, BOB = (functools.partial(connect_as, name) for name in ["ann", "bob"])


def token_of(server, name):
    with flight(server) as client:
        _, token = client.authenticate_basic_token(name, name)
        return token.decode().removeprefix("Bearer ")


def varint(number):
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def field(number, content):
    """A field of a protobuf message, of bytes."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def fields(message):
    """The fields of a protobuf message that are bytes, by their numbers."""
    stream, found = io.BytesIO(message), {}

    def number():
        byte = stream.read(1)[0]
        return byte if byte < 0x80 else byte - 0x80 + (number() << 7)

    while stream.tell() < len(message):
        tag = number()
        if tag & 7 == 2:
            found[tag >> 3] = stream.read(number())
        else:
            stream.read(8) if tag & 7 == 1 else number()
    return found


def sql_message(name, *contents):
    """A message of Flight SQL, in the Any that it is sent in."""
    return field(1, f"type.googleapis.com/arrow.flight.protocol.sql.{name}".encode()) + field(2, b"".join(contents))


def statement(sql):
    return sql_message("CommandStatementQuery", field(1, sql.encode()))


# Of an ingest: where there is no table and where there is one.
NEW, APPENDED = b"\x08\x01\x10\x01", b"\x08\x02\x10\x02"


def upload_messages(table, options, batches):
    """The messages of an ingest."""
    schema, *rows = (pyarrow.ipc.read_message(part.serialize()) for part in [batches[0].schema, *batches])
    command = sql_message("CommandStatementIngest", field(1, options), field(2, table.encode()))
    yield field(1, b"\x08\x02" + field(2, command)) + field(2, schema.metadata.to_pybytes())
    for each in rows:
        yield field(2, each.metadata.to_pybytes()) + field(1000, each.body.to_pybytes())


ROWS = pyarrow.record_batch({"n": [1, 2, 3]})


@contextlib.contextmanager
def upload(server, table, options, batches, is_whole=True):
    """The call of an ingest; one that is not whole has no end until this has one."""
    over = threading.Event()

    def messages():
        yield from upload_messages(table, options, batches)
        is_whole or over.wait(PATIENCE + GRACE + CLEANUP)

    limit = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.uri.removeprefix("grpc://"), limit) as channel:
        call = channel.stream_stream("/arrow.flight.protocol.FlightService/DoPut")(messages(), timeout=60)
        try:
            yield call
        finally:
            over.set()
            call.cancel()


def half_an_ingest(server, table, options):
    """The call of a client that has sent rows, and says no more."""
    return upload(server, table, options, [ROWS] * 3, is_whole=False)


@contextlib.contextmanager
def half_a_message(server):
    """The connection of a client that has sent rows, and the beginning of more."""
    *whole, last = map(enveloped, upload_messages("swallowing", APPENDED, [ROWS] * 2))
    with socket.create_connection(address(server)) as client:
        client.settimeout(PATIENCE + GRACE + CLEANUP)
        client.sendall(call_of("DoPut", "everybody") + frame(0, 0, b"".join(whole) + last[:40]))
        yield client


def prepared(handle):
    return sql_message("CommandPreparedStatementQuery", field(1, handle))


class Caller:
    """A client that says by itself who it is, and what it means."""

    def __init__(self, server, token, cookie=None):
        headers = [(b"authorization", f"Bearer {token}".encode())]
        if cookie is not None:
            headers.append((b"cookie", cookie.encode()))
        self.token = token
        self.options = pyarrow.flight.FlightCallOptions(timeout=20, headers=headers)
        self.cookies = Cookies()
        self.client = pyarrow.flight.connect(server.uri.replace("grpc://", "grpc+tcp://"), middleware=[self.cookies])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()

    def act(self, name, body=b""):
        action = pyarrow.flight.Action(name, body)
        return [result.body.to_pybytes() for result in self.client.do_action(action, self.options)]

    def prepare(self, sql):
        (result,) = self.act(
            "CreatePreparedStatement", sql_message("ActionCreatePreparedStatementRequest", field(1, sql.encode()))
        )
        return fields(fields(result)[2])[1]

    def close(self, handle):
        request = sql_message("ActionClosePreparedStatementRequest", field(1, handle))
        assert self.act("ClosePreparedStatement", request) == []

    def info(self, command):
        return self.client.get_flight_info(pyarrow.flight.FlightDescriptor.for_command(command), self.options)

    def schema(self, command):
        return self.client.get_schema(pyarrow.flight.FlightDescriptor.for_command(command), self.options)

    def fetch(self, ticket):
        return self.client.do_get(ticket, self.options)

    def values(self, sql):
        (endpoint,) = self.info(statement(sql)).endpoints
        return self.fetch(endpoint.ticket).read_all().column(0).to_pylist()

    def upload(self, command, batch):
        descriptor = pyarrow.flight.FlightDescriptor.for_command(command)
        writer, answers = self.client.do_put(descriptor, batch.schema, self.options)
        with writer:
            writer.write_batch(batch)
            writer.done_writing()
            return answers.read()

    def cancel(self, info):
        """Cancels what an info stands for, as new clients say it and as old ones do; whether there was any of it."""
        new = self.act("CancelFlightInfo", field(1, info))
        (old,) = self.act("CancelQuery", sql_message("ActionCancelQueryRequest", field(1, info)))
        assert fields(old)[2] == NOT_CANCELLABLE[0]
        return new

    def renew(self, endpoint):
        return self.act("RenewFlightEndpoint", field(1, endpoint.serialize()))


class Cookies(pyarrow.flight.ClientMiddlewareFactory):
    """Keeps the cookie that a server gives."""

    session = None

    def start_call(self, _info):
        return Cookie(self)


class Cookie(pyarrow.flight.ClientMiddleware):
    def __init__(self, cookies):
        super().__init__()
        self.cookies = cookies

    def received_headers(self, headers):
        self.cookies.session = next(iter(headers.get("set-cookie", [self.cookies.session])))


def frame(kind, flags, content):
    """A frame of HTTP/2, of the first stream."""
    return struct.pack(">I", len(content))[1:] + bytes([kind, flags]) + struct.pack(">I", 1) + content


class PollRefused(Exception):
    """There was a status and no answer. Which one is in compressed trailers, which are not read here."""


def enveloped(message):
    """A message as gRPC has it in a stream."""
    return b"\0" + struct.pack(">I", len(message)) + message


def call_of(method, token):
    """What begins a connection, and the first call on it."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": f"/arrow.flight.protocol.FlightService/{method}",
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
        "authorization": f"Bearer {token}",
    }
    texts = [text.encode() for header in headers.items() for text in header]
    packed = b"".join((b"" if at % 2 else b"\0") + bytes([len(text)]) + text for at, text in enumerate(texts))
    return PREFACE + frame(1, 4, packed)


def poll(server, token, descriptor):
    """What PollFlightInfo answers, as it is on the wire, since no client has a function for it."""
    with socket.create_connection(address(server)) as client, client.makefile("rb") as answer:
        client.settimeout(20)
        client.sendall(call_of("PollFlightInfo", token) + frame(0, 1, enveloped(descriptor)))
        answered = b""
        while True:
            head = answer.read(9)
            if not head:
                raise ConnectionError("the connection was closed before the call's end")
            content = answer.read(int.from_bytes(head[:3], "big"))
            kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
            if stream == 1 and kind == 0:
                answered += content
            if stream == 1 and kind in (0, 1) and flags & 1:
                break
    if not answered:
        raise PollRefused("a status, and no answer")
    return answered[5:]


def forgeries(token):
    """Tokens that somebody makes from one that is good."""
    name, expiry, signature = token.split(".")
    other = {"A": "B"}.get(signature[0], "A") + signature[1:]
    return {
        "shortened": f"{name}.{int(expiry) - 1}.{signature}",
        "prolonged": f"{name}.{int(expiry) + 3600}.{signature}",
        "another's": f"YW5u.{expiry}.{signature}",
        "nobody's": f"bm9ib2R5.{expiry}.{signature}",
        "signed otherwise": f"{name}.{expiry}.{other}",
        "signed in part": f"{name}.{expiry}.{signature[:-4]}",
        "signed by nobody": f"{name}.{expiry}.",
        "without signature": f"{name}.{expiry}",
        "twice": f"{token}.{signature}",
        "long": f"{'x' * 20_000}.{expiry}.{signature}",
        "nothing": "",
        "dots": "...",
    }


@pytest.fixture
def clock(tmp_path, monkeypatch):
    """The time of day of the servers of a test."""
    clock = Clock(tmp_path)
    for name, setting in clock.environment.items():
        monkeypatch.setenv(name, setting)
    return clock


def outlived_token(server, clock, name):
    """A token that the server has given and taken, and that has expired since."""
    token = token_of(server, name)
    with Caller(server, token) as caller:
        assert caller.values("SELECT 1") == [1]
        clock.move_on(int(token.split(".")[1]) - int(time.time()) - 1)

        def is_expired():
            try:
                caller.act("GetSessionOptions")
            except pyarrow.flight.FlightUnauthenticatedError:
                return True

        wait_until(is_expired, "the token has expired")
    return token


def is_refused(call):
    with pytest.raises((pyarrow.flight.FlightError, OSError), match=r"unauthenticated error.* the token is not valid"):
        call()


def come_with(token, server):
    """Calls of every kind, over connections of their own, with a token that is not good."""
    large = statement(f"SELECT '{LARGE}'")
    ticket = pyarrow.flight.Ticket(statement("SELECT 1"))
    with Caller(server, token) as stranger:
        is_refused(lambda: stranger.info(large))
        is_refused(lambda: stranger.schema(statement("SELECT 1")))
        is_refused(lambda: stranger.fetch(ticket).read_all())
        is_refused(lambda: stranger.prepare(f"SELECT '{LARGE}'"))
        is_refused(lambda: stranger.upload(prepared(b"none"), pyarrow.record_batch({"n": [1]})))
        assert stranger.cookies.session is None
    for _ in range(25):
        with Caller(server, token) as stranger:
            is_refused(lambda stranger=stranger: stranger.act("GetSessionOptions"))
    request = urllib.request.Request(f"{server.http}/?query=SELECT+1", headers={"authorization": f"Bearer {token}"})
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(request, timeout=20)


def strangers(server, users, clock):
    """Those who come with tokens that are not good, or no more."""
    expired = outlived_token(server, clock, "bob")
    good, removed = token_of(server, "bob"), token_of(server, "eve")
    for token in [good, removed]:
        with Caller(server, token) as caller:
            assert caller.values("SELECT 1") == [1]
    user("remove", "eve", "--users", users)
    bad = [expired, removed, *forgeries(good).values()]
    return good, [functools.partial(come_with, token) for token in bad]


def test_nothing_is_left_of_strangers(own_server, users, clock, tmp_path_factory):
    server = own_server("--users", users)
    good, faults = strangers(server, users, clock)
    elsewhere = Server(tmp_path_factory.mktemp("elsewhere"), "--users", users)
    try:
        foreign = token_of(elsewhere, "ann")
        with Caller(elsewhere, foreign) as caller:
            assert caller.values("SELECT 1") == [1]
    finally:
        elsewhere.kill()
    with ANN(server) as connection:
        faults.append(functools.partial(come_with, foreign))
        assert_nothing_is_left(server, connection, faults, f"Bearer {good}")
    with Caller(server, good) as caller:
        assert caller.values("SELECT 1") == [1]
    server.process.terminate()
    assert server.process.wait(20) == 0


def is_hidden(what, *calls):
    for call in calls:
        with pytest.raises(NOT_FOUND, match=f"no such {what}"):
            call()


def take_a_statement(ann, bob):
    """Somebody else's prepared statement is none; its own client's goes on."""
    handle = ann.prepare(f"SELECT n, length('{LARGE}') FROM few WHERE n >= $1")
    command = prepared(handle)
    batches = [pyarrow.record_batch({"1": pyarrow.array([n], pyarrow.int64())}) for n in (2, 0)]
    ann.upload(command, batches[0])
    update = sql_message("CommandPreparedStatementUpdate", field(1, handle))
    bobs = [
        lambda: bob.info(command),
        lambda: bob.schema(command),
        lambda: bob.fetch(pyarrow.flight.Ticket(command)).read_all(),
        lambda: bob.upload(command, batches[1]),
        lambda: bob.upload(update, batches[1]),
    ]
    is_hidden("prepared statement", *bobs)
    bob.close(handle)
    assert ann.fetch(pyarrow.flight.Ticket(command)).read_all().column(0).to_pylist() == [2]
    ann.close(handle)
    is_hidden("prepared statement", lambda: ann.info(command))


def take_a_ticket(ann, bob, gate):
    """Somebody else's ticket is none, whether it waits to be fetched or is; its own client reads on to the end."""
    info = ann.info(statement(f"SELECT n, length('{LARGE}') FROM gated"))
    (endpoint,) = info.endpoints

    def bob_tries():
        is_hidden("ticket", lambda: bob.fetch(endpoint.ticket).read_all(), lambda: bob.renew(endpoint))
        assert bob.cancel(info.serialize()) == NOT_CANCELLABLE

    bob_tries()
    rows = ann.fetch(endpoint.ticket)
    found = rows.read_chunk().data.column(0).to_pylist()
    bob_tries()
    gate.touch()
    assert found + rows.read_all().column(0).to_pylist() == [0, 1, 2]
    gate.unlink()
    assert len(ann.renew(endpoint)) == 1
    assert ann.cancel(info.serialize()) == CANCELLED
    is_hidden("ticket", lambda: ann.fetch(endpoint.ticket).read_all())


def take_a_poll(server, ann, bob, gate):
    """Somebody else's running statement can be neither polled for nor cancelled; its own client's ends."""
    handle = ann.prepare(f"INSERT INTO gated SELECT length('{LARGE}')")
    for ending in ["finished", "cancelled"]:
        running = fields(poll(server, ann.token, b"\x08\x02" + field(2, prepared(handle))))
        with pytest.raises(PollRefused):
            poll(server, bob.token, running[2])
        assert bob.cancel(running[1]) == NOT_CANCELLABLE
        if ending == "finished":
            gate.touch()
            ended = fields(poll(server, ann.token, running[2]))
            assert 1 in ended
            assert 2 not in ended
            gate.unlink()
        else:
            assert ann.cancel(running[1]) == CANCELLED
        with pytest.raises(PollRefused):
            poll(server, ann.token, running[2])
    ann.close(handle)


ENDED = "the session has ended, and what was set or prepared in it is gone"
SHOWN = "SELECT value FROM information_schema.df_settings WHERE name = 'datafusion.execution.batch_size'"


def take_a_session(server, ann, bob):
    """Who sends somebody else's cookie has a session of their own, and ends none but that."""
    assert ann.values(SHOWN) == ["8192"]
    unset = ann.cookies.session
    ann.info(statement(f"PREPARE large AS SELECT '{LARGE}'"))
    ann.info(statement("SET datafusion.execution.batch_size = 77"))
    cookie = ann.cookies.session
    with Caller(server, bob.token, cookie) as thief, pytest.raises(pyarrow.lib.ArrowKeyError, match=ENDED):
        thief.values(SHOWN)
    with Caller(server, bob.token, unset) as thief:
        assert thief.values(SHOWN) == ["8192"]
        assert thief.cookies.session != cookie
        thief.info(statement("SET datafusion.execution.batch_size = 78"))
        thief.act("CloseSession")
    with Caller(server, ann.token, cookie) as again:
        assert again.values(SHOWN) == ["77"]
        again.act("CloseSession")


def test_the_session_of_a_client_that_vanishes_ends(own_server):
    """With its connection, where no other one has brought its cookie; else it waits for whoever has the cookie."""
    server = own_server()
    for is_shared in [False, True]:
        with Network(server) as network, Caller(network, "token") as vanishing:
            vanishing.info(statement("SET datafusion.execution.batch_size = 77"))
            cookie = vanishing.cookies.session
            assert vanishing.values(SHOWN) == ["77"]
            if is_shared:
                with Caller(server, "token", cookie) as other:
                    assert other.values(SHOWN) == ["77"]
            network.cut()
            wait_until(lambda: len(sockets_of(address(server)[1])) == 1, "the server listens, and has no connections")
        with Caller(server, "token", cookie) as again:
            if is_shared:
                assert again.values(SHOWN) == ["77"]
                assert again.cookies.session is None, "who has the session has its cookie"
                continue
            with pytest.raises(pyarrow.lib.ArrowKeyError, match=ENDED):
                again.values(SHOWN)


def test_a_session_is_not_silently_another_one(own_server):
    """After a restart: who had set nothing has a new session, and who had is told that it is gone."""
    first, second = own_server(), own_server()
    cookies = []
    for deeds in [[], ["SET datafusion.execution.batch_size = 77"], ["PREPARE one AS SELECT 1"]]:
        with Caller(first, "token") as caller:
            assert caller.values(SHOWN) == ["8192"]
            for deed in deeds:
                caller.info(statement(deed))
            cookies.append(caller.cookies.session)
    unset, *changed = cookies
    with Caller(second, "token", unset) as caller:
        assert caller.values(SHOWN) == ["8192"]
    for cookie in changed:
        with Caller(second, "token", cookie) as caller, pytest.raises(pyarrow.lib.ArrowKeyError, match=ENDED):
            caller.values(SHOWN)
    with Caller(first, "token") as caller:
        caller.info(statement("SET datafusion.execution.batch_size = 77"))
        caller.act("CloseSession")
        closed = caller.cookies.session
        with Caller(first, "token", closed) as again:
            assert again.values(SHOWN) == ["8192"]


def steal(tokens, gate, server):
    with Caller(server, tokens["ann"]) as ann, Caller(server, tokens["bob"]) as bob:
        take_a_statement(ann, bob)
        take_a_ticket(ann, bob, gate)
        take_a_poll(server, ann, bob, gate)
        take_a_session(server, ann, bob)


def create_streams(connection, gate):
    """A stream that ends, one that ends when it may, and some that never do."""
    functions = {"read_function_name": "read", "write_function_name": "write"}
    few, failing = "def read(): return [0, 1, 2]", "def read(): raise ValueError('no luck')"
    create(connection, "few", "n int64", few, read_function_name="read")
    create(connection, "failing", "n int64", failing, read_function_name="read")
    create(connection, "endless", "n int64", ENDLESS, mode="streaming", read_function_name="read")
    create(connection, "ticking", "n int64", TICKING, mode="streaming", read_function_name="read")
    create(connection, "swallowing", "n int64", "def write(n): pass", write_function_name="write")
    for name, path in {"gated": gate, "ending": f"{gate} of the end", "waiting": f"{gate} of nobody"}.items():
        create(connection, name, "n int64", GATED.format(path=str(path)), mode="streaming", **functions)


def test_nothing_is_left_of_thieves(own_server, users, tmp_path):
    server, gate = own_server("--users", users), tmp_path / "gate"
    tokens = {name: token_of(server, name) for name in ["ann", "bob"]}
    with ANN(server) as connection:
        create_streams(connection, gate)
        assert_nothing_is_left(server, connection, [functools.partial(steal, tokens, gate)], f"Bearer {tokens['ann']}")
    server.process.terminate()
    assert server.process.wait(20) == 0


# The end of a server, with all of these at work.


class Client:
    """A client at work in a thread, with what it was told at its end. One that hangs goes when its server is killed."""

    def __init__(self, work, server):
        self.name = " ".join(re.findall(r"function (\S+)", str(work)))
        self.begun, self.told = threading.Event(), None
        self.thread = threading.Thread(target=self.run, args=(work, server), daemon=True)
        self.thread.start()

    def run(self, work, server):
        try:
            self.told = work(server, self.begun.set) or "it succeeded"
        except BaseException as error:
            self.told = all_that_is_said(error)

    def is_told(self):
        """Whether the client was told that the server ends, as soon as it asked."""
        self.thread.join(PATIENCE)
        return self.told is not None and CLEAR.search(self.told)


def all_that_is_said(error):
    said = []
    while error is not None:
        said.append(f"{type(error).__name__}: {error}")
        error = error.__cause__ or error.__context__
    return "\n".join(said)


def again_and_again(fault, server, begun):
    """Does what a client does until the server has ended, or says that it ends."""
    while server.alive():
        fault(server)
        begun()
    return "all done"


def read(stream, connect, server, begun):
    with connect(server) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT n FROM {stream}")
        batches = cursor.fetch_record_batch()
        found = batches.read_next_batch().column(0).to_pylist()
        begun()
        for batch in batches:
            found = [*found, *batch.column(0).to_pylist()][:4]
    assert found == [0, 1, 2]
    return "all rows"


def read_late(server, begun):
    """Reads on when the server has gone."""
    with flight(server) as client:
        descriptor = pyarrow.flight.FlightDescriptor.for_command(statement("SELECT n FROM endless"))
        (endpoint,) = client.get_flight_info(descriptor).endpoints
        rows = client.do_get(endpoint.ticket)
        rows.read_chunk()
        begun()
        server.process.wait(PATIENCE + GRACE + CLEANUP)
        rows.read_all()


def ingest_for_ever(server, begun):
    def batches():
        while True:
            yield pyarrow.record_batch({"n": [1, 2, 3]})
            begun()

    reader = pyarrow.RecordBatchReader.from_batches(pyarrow.schema({"n": pyarrow.int64()}), batches())
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("swallowing", reader, mode="append")


def poll_for_ever(server, begun):
    insert = statement("INSERT INTO swallowing SELECT n FROM waiting")
    running = poll(server, "everybody", b"\x08\x02" + field(2, insert))
    while True:
        begun()
        running = poll(server, "everybody", fields(running)[2])


def hold_half_an_ingest(table, options, server, begun):
    """Waits, and says nothing, until it is told that the server ends."""
    with half_an_ingest(server, table, options) as call:
        is_running(server, table)
        begun()
        return f"{call.code()}: {call.details()}"


def hold_half_a_message(server, begun):
    with half_a_message(server) as client:
        is_running(server, "swallowing")
        begun()
        with contextlib.suppress(ConnectionError):
            while client.recv(4096):
                pass
    return "all done"


def guess_a_password(server):
    with pytest.raises(dbapi.Error, match="wrong user or password"):
        BOB(server, password="wrong")


def misbehaving(server, _clock):
    """Clients of a server that everybody may use."""
    faults = [functools.partial(again_and_again, fault) for fault in FAULTS]
    readers = [functools.partial(read, stream, Server.connect) for stream in ["ticking", "waiting"] * 2]
    halves = [functools.partial(hold_half_an_ingest, *half) for half in [("unfinished", NEW), ("swallowing", APPENDED)]]
    return [*faults, *readers, *halves, hold_half_a_message, read_late, ingest_for_ever, poll_for_ever]


def stealing(server, clock):
    """Clients of a server that has users."""
    expired = outlived_token(server, clock, "bob")
    tokens = {name: token_of(server, name) for name in ["ann", "bob"]}
    thief = functools.partial(steal, tokens, server.log.with_name("gate"))
    forged = forgeries(tokens["bob"])["signed otherwise"]
    strangers = [functools.partial(come_with, token) for token in [expired, forged]]
    faults = [functools.partial(again_and_again, fault) for fault in [thief, *strangers, guess_a_password]]
    readers = [functools.partial(read, stream, connect) for stream in ["ticking", "waiting"] for connect in [ANN, BOB]]
    return [*faults, *readers]


def sockets_of(port):
    """The sockets to and from a port of this machine that are more than a memory of the kernel's."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [line[1:4] for line in lines if f"0100007F:{port:04X}" in line[1:3] and line[3] != "06"]


# ADBC cannot close a statement whose server is gone.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("turn", range(STOPS))
@pytest.mark.parametrize("clients", [misbehaving, stealing])
def test_a_server_ends_with_its_clients_at_work(own_server, users, clock, tmp_path, clients, turn):
    arguments, connect = ([], Server.connect) if clients is misbehaving else (["--users", users], ANN)
    server, gate = own_server("--grace", str(GRACE), *arguments), tmp_path / "gate"
    works = clients(server, clock)
    with connect(server) as connection:
        create_streams(connection, gate)
    finishing = Client(functools.partial(read, "ending", connect), server)
    at_work = [Client(work, server) for work in works]
    for client in [finishing, *at_work]:
        assert client.begun.wait(2 * PATIENCE), (client.name, client.told)
    assert [(client.name, client.told) for client in at_work if client.told is not None] == []
    server.process.terminate()
    wait_for_text(server.log, "shutting down")
    gate.with_name("gate of the end").touch()
    assert server.process.wait(GRACE + CLEANUP) == 0, server.log.read_text()[-4000:]
    assert "its thread is abandoned" not in server.log.read_text()
    assert [(client.name, client.told) for client in at_work if not client.is_told()] == []
    finishing.thread.join(PATIENCE)
    assert finishing.told == "all rows"
    with pytest.raises(ProcessLookupError):
        os.killpg(server.process.pid, 0)
    for _, port in [address(server), address(server, "http")]:
        wait_until(lambda port=port: not sockets_of(port), f"no sockets of port {port}")
