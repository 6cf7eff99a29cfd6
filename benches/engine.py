"""Couatl, as it is measured: in a process without a server, and as a server with ADBC clients."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adbc_driver_flightsql import dbapi

COMMAND = [sys.executable, "-m", "couatl"]

# A stream that tells the time. What a query took is what passed between two of its rows: one such little query is
# part of each measurement, and counts against Couatl.
CLOCK = """
CREATE EXTERNAL STREAM clock (at float64) AS $$
import time

def clock():
    return [time.perf_counter()]
$$ SETTINGS type = 'python', mode = 'batch'
"""


@dataclass(frozen=True)
class Timed:
    """One run of a query: how long it took, and what it gave."""

    seconds: float
    rows: list[dict[str, object]]

    @property
    def value(self) -> object:
        """The only value of the only row."""
        (row,) = self.rows
        (value,) = row.values()
        return value


def stream(name: str, columns: str, body: str, **settings: object) -> str:
    """The statement that makes a stream."""
    values = {"type": "python", **settings}
    written = ", ".join(
        f"{key} = '{value}'" if isinstance(value, str) else f"{key} = {value}" for key, value in values.items()
    )
    return f"CREATE EXTERNAL STREAM {name} ({columns}) AS $body$\n{body}\n$body$ SETTINGS {written}"


def in_process(setup: Sequence[str], queries: Mapping[str, str], rounds: int) -> dict[str, list[Timed]]:
    """Runs the queries in turn, round after round, in a process of their own, and gives what came of each.

    Rounds are interleaved, so that whatever else the machine does meets all of them alike.
    """
    tick = "SELECT at FROM clock"
    turns = [part for query in queries.values() for part in (query, tick)]
    text = ";\n".join([CLOCK, *setup, tick, *turns * rounds])
    with tempfile.TemporaryDirectory(prefix="couatl-") as directory:
        script = Path(directory) / "benchmark.sql"
        script.write_text(text)
        done = subprocess.run(
            [*COMMAND, "sql", "--format", "json", "--file", script],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    if done.returncode != 0:
        raise RuntimeError(f"couatl sql ended with {done.returncode}: {done.stderr[-2000:]}")
    results: dict[str, list[Timed]] = {name: [] for name in queries}
    names = [*queries] * rounds
    rows: list[dict[str, object]] = []
    last = None
    for row in map(json.loads, done.stdout.splitlines()):
        if row.keys() != {"at"}:
            rows.append(row)
            continue
        if last is not None:
            name = names[sum(map(len, results.values()))]
            results[name].append(Timed(row["at"] - last, rows))
        last, rows = row["at"], []
    return results


class Server:
    """A server of this machine, in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], uri: str) -> None:
        self.process = process
        self.uri = uri

    def connect(self) -> dbapi.Connection:
        return dbapi.connect(self.uri, autocommit=True)

    def cpu_seconds(self) -> float:
        """The processor time that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        user, system = fields[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def peak_memory_bytes(self) -> int:
        """The most memory that it has had at once."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found, "/proc/PID/status has no VmHWM"
        return int(found[1]) * 1024


@contextmanager
def server(
    command: Sequence[str] = (*COMMAND, "serve", "--listen", "127.0.0.1:0", "--http", "off"),
) -> Iterator[Server]:
    """Starts a server whose first line says where it listens: Couatl's, or that of another command."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        )
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line.startswith("listening on "):
                log.seek(0)
                raise RuntimeError(f"the server's first line was {line!r}; its log: {log.read()[-2000:]}")
            yield Server(process, line.removeprefix("listening on ").strip())
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def execute(connection: dbapi.Connection, statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)
