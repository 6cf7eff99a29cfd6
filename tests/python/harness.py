"""What tests are written with: a server of their own kind, streams made from indented text, and waiting by deadline."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from adbc_driver_flightsql import dbapi

COUATL = Path(sys.executable).parent / "couatl"
PATIENCE = 15.0
NOTES = """
{imports}

def note(word):
    with open({path!r}, "a") as file:
        file.write(word + "\\n")

def init():
    note("init")

def deinit():
    note("deinit")
"""

# What a program loads to read a time of day that is ahead, by the seconds in a file.
AHEAD = r"""
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile long *ahead;

__attribute__((constructor)) static void begin(void) {
    int file = open(getenv("SECONDS_AHEAD"), O_RDONLY);
    void *mapped = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    ahead = mapped == MAP_FAILED ? 0 : mapped;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int failed = syscall(SYS_clock_gettime, clock, time);
    if (!failed && clock == CLOCK_REALTIME && ahead) time->tv_sec += *ahead;
    return failed;
}
"""


def wait_until(condition, what, patience=PATIENCE):
    """The first true answer of `condition`, asked again and again until the deadline."""
    deadline = time.monotonic() + patience
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"{what}: not within {patience} s"
        time.sleep(0.01)


def kill_group(process):
    """Ends a process with everything that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class Server:
    """A `couatl serve` on a free port, in a process group of its own."""

    def __init__(self, folder, *arguments):
        self.log = Path(folder) / "server.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [COUATL, "serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
                # What a killed server leaves goes with the folder.
                env=os.environ | {"TMPDIR": str(folder)},
            )
        self.first_line = self.process.stdout.readline()
        found = re.fullmatch(r"listening on (grpc(?:\+tls)?://\S+)\n", self.first_line)
        if not found:
            self.kill()
            raise AssertionError(f"the first line was {self.first_line!r}; the log: {self.log.read_text()}")
        self.uri = found[1]
        self.http = self.process.stdout.readline().removeprefix("listening on ").strip()

    def alive(self):
        return self.process.poll() is None

    def kill(self):
        kill_group(self.process)
        self.process.stdout.close()

    def connect(self):
        return dbapi.connect(self.uri, autocommit=True)


@contextlib.contextmanager
def watched(server, limit):
    """A server that is killed when this takes longer: a test that hangs loses it, and fails."""
    watchdog = threading.Timer(limit, kill_group, [server.process])
    watchdog.start()
    try:
        yield server
    finally:
        watchdog.cancel()


class Clock:
    """The time of day of programs on Linux, which can be moved on; whoever waits does so by another clock."""

    def __init__(self, folder):
        library, self.file = Path(folder) / "ahead.so", Path(folder) / "ahead"
        subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", library], input=AHEAD, check=True, text=True)
        self.file.write_bytes(struct.pack("l", 0))
        self.environment = {"LD_PRELOAD": str(library), "SECONDS_AHEAD": str(self.file)}

    def move_on(self, seconds):
        """From now on it is so much later than it is. The file is mapped, and never without its content."""
        with self.file.open("r+b") as file:
            file.write(struct.pack("l", seconds))


class Network:
    """What lies between clients and a server: it can lose all that they say, or cut their connections."""

    def __init__(self, server):
        host, port = server.uri.removeprefix("grpc://").rsplit(":", 1)
        self.server = host, int(port)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"grpc://127.0.0.1:{self.listener.getsockname()[1]}"
        self.sockets, self.threads = [], []
        self.is_lost = threading.Event()
        self.start(self.accept)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.cut()
        for thread in self.threads:
            thread.join(PATIENCE)

    def start(self, work, *arguments):
        self.threads.append(threading.Thread(target=work, args=arguments, daemon=True))
        self.threads[-1].start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection(self.server)
                self.sockets += [near, far]
                self.start(self.carry, near, far)
                self.start(self.carry, far, near)

    def carry(self, source, target):
        with contextlib.suppress(OSError):
            while True:
                data = source.recv(65536)
                if self.is_lost.is_set():
                    return
                if not data:
                    return target.shutdown(socket.SHUT_WR)
                target.sendall(data)

    def lose(self):
        """From now on nothing arrives; all connections stay open, and nobody is told."""
        self.is_lost.set()

    def cut(self):
        for each in [self.listener, *self.sockets]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def create(connection, name, columns, body, **settings):
    """Makes a stream. The body is dedented, and begins on the statement's second line."""
    settings = {"type": "python", **settings}
    written = ", ".join(f"{key} = {quoted(value)}" for key, value in settings.items())
    body = textwrap.dedent(body).strip("\n")
    run(
        connection, f"CREATE OR REPLACE EXTERNAL STREAM {name} ({columns}) AS $body$\n{body}\n$body$ SETTINGS {written}"
    )


def noting(path, imports, body):
    """A body that imports this, and takes notes in a file of the test, one word a line."""
    return NOTES.format(path=str(path), imports=imports.strip()) + body


def words(notes):
    """What has been noted."""
    return notes.read_text().split() if notes.exists() else []


def quoted(value):
    return str(value) if isinstance(value, int) else "'" + str(value).replace("'", "''") + "'"


def run(connection, sql, parameters=None):
    """Runs a statement and throws away what it answers."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.rowcount


def rows(connection, sql, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall()


def table(connection, sql, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetch_arrow_table()


def value(connection, sql, parameters=None):
    ((only,),) = rows(connection, sql, parameters)
    return only


def error(connection, sql, parameters=None):
    """The text of the error that a statement ends with."""
    with pytest.raises(dbapi.Error) as caught:
        rows(connection, sql, parameters)
    return str(caught.value)


def queries(connection):
    return rows(connection, "SELECT query_id, sql, state FROM system.queries")


def query_running(connection, text):
    """The id of the query whose text holds `text`, once it runs."""

    def found():
        return [id for id, sql, _ in queries(connection) if text in sql]

    return wait_until(found, f"a query with {text!r}")[0]


def wait_for_text(path, text="", patience=PATIENCE):
    """The content of a file that Python on the server writes to, once it holds `text`."""

    def content():
        return path.read_text() if path.exists() and text in path.read_text() else ""

    return wait_until(content, f"{text!r} in {path.name}", patience)
