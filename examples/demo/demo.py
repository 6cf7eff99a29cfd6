"""Couatl in half a minute: Python functions as SQL tables, for anything that speaks Arrow Flight SQL.

Starts a server (`couatl serve`), and is its client, with ADBC and pandas. Every statement is shown with its result.
"""

import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import cycle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from adbc_driver_flightsql import dbapi

# A generator is an endless stream: one list of rows per look at the machine's counters.
CPU = """
CREATE EXTERNAL STREAM cpu (at timestamp, cpu string, ticks uint64, load float64)
AS $$
import os, time
from datetime import datetime, timezone

def counters():
    if not os.path.exists("/proc/stat"):  # not Linux: this process instead, in the same hundredths of a second
        times = os.times()
        busy, total = times.user + times.system, times.elapsed
        return {"all": (int(100 * busy), int(100 * total))}
    found = {}
    with open("/proc/stat") as stat:
        for name, *ticks in map(str.split, stat):
            if name.startswith("cpu"):
                user, nice, system, idle, wait, *_ = ticks = [int(n) for n in ticks]
                found[name.replace("cpu", "core ") if name != "cpu" else "all"] = (sum(ticks) - idle - wait, sum(ticks))
    return found

def cpu():
    last = counters()
    while True:
        time.sleep(0.2)
        at, now = datetime.now(timezone.utc), counters()
        yield [
            (at, name, busy, round(100 * (busy - last[name][0]) / max(1, total - last[name][1]), 1))
            for name, (busy, total) in now.items()
        ]
        last = now
$$
SETTINGS type = 'python', mode = 'streaming'
"""

# A list is a table. Whatever the server's Python can import is there to be queried: here, what it can import.
PACKAGES = """
CREATE EXTERNAL STREAM packages (name string, version string, files int32, bytes int64)
AS $$
from importlib.metadata import distributions

def measure(package):
    paths = [file.locate() for file in package.files or ()]
    sizes = [path.stat().st_size for path in paths if path.is_file()]
    return package.name, package.version, len(sizes), sum(sizes)

def packages():
    return [measure(package) for package in distributions()]
$$
SETTINGS type = 'python', mode = 'batch'
"""

# One stream, both ways. A write function gets a list per column; init and deinit run once for each query.
SAMPLES = """
CREATE EXTERNAL STREAM samples (cpu string, load float64)
AS $$
import sqlite3

def connect(path):
    global db
    db = sqlite3.connect(path, check_same_thread=False)
    db.execute("CREATE TABLE IF NOT EXISTS samples (cpu, load)")

def write(cpu, load):
    with db:
        db.executemany("INSERT INTO samples VALUES (?, ?)", zip(cpu, load))

def read():
    return db.execute("SELECT cpu, load FROM samples").fetchall()

def disconnect():
    db.close()
$$
SETTINGS type = 'python', mode = 'batch', read_function_name = 'read', write_function_name = 'write',
    init_function_name = 'connect', init_function_parameters = '{path}', deinit_function_name = 'disconnect'
"""

# What goes wrong in Python is shown as Python shows it.
THERMOMETERS = """
CREATE EXTERNAL STREAM thermometers (room string, celsius float64)
AS $$
READINGS = {"attic": "24.5", "kitchen": "21.0", "cellar": "cold"}

def thermometers():
    for room, reading in READINGS.items():
        yield room, float(reading)
$$
SETTINGS type = 'python', mode = 'streaming'
"""


def tour(cursor: dbapi.Cursor, directory: Path) -> None:
    title("A live, endless stream: this machine's processors")
    run(cursor, CPU)
    follow(cursor, "SELECT * FROM cpu LIMIT 9")

    title("A batch source over something that nobody prepared: the installed Python packages")
    run(cursor, PACKAGES)
    run(cursor, "SELECT name, version, files, bytes FROM packages ORDER BY bytes DESC LIMIT 5")
    run(cursor, "SELECT count(*) AS packages, sum(files) AS files, round(sum(bytes) / 1e6, 1) AS mb FROM packages")

    title("The stream joined with a Parquet table")
    names = ["all", *(f"core {n}" for n in range(os.cpu_count() or 1))]
    nicknames = [name for name, _ in zip(cycle(["Feather", "Scale", "Fang", "Plume"]), names)]
    pq.write_table(pa.table({"cpu": names, "nickname": nicknames}), directory / "cores.parquet")
    run(cursor, f"CREATE EXTERNAL TABLE cores STORED AS PARQUET LOCATION '{directory}/cores.parquet'")
    follow(cursor, "SELECT at, nickname, load FROM cpu JOIN cores ON cores.cpu = cpu.cpu LIMIT 6")

    title("Through a sink into SQLite, and back")
    run(cursor, SAMPLES.replace("{path}", f"{directory}/samples.db"))
    run(cursor, "INSERT INTO samples SELECT cpu, load FROM cpu LIMIT 12")
    run(cursor, "SELECT cpu, count(*) AS samples, round(avg(load), 1) AS load FROM samples GROUP BY cpu ORDER BY cpu")

    title("An error, as its author wants to see it")
    run(cursor, THERMOMETERS)
    try:
        run(cursor, "SELECT * FROM thermometers")
    except dbapi.Error as error:
        print(textwrap.indent(str(error), "  "))
    else:
        raise AssertionError("a cold cellar is no number")


def run(cursor: dbapi.Cursor, statement: str) -> None:
    """Runs a statement, and shows its result as pandas does."""
    show(statement)
    cursor.execute(statement)
    if cursor.description:
        print(textwrap.indent(cursor.fetch_df().to_string(index=False), "  "))
    else:
        print(f"  {cursor.rowcount} rows written" if cursor.rowcount >= 0 else "  ok")


def follow(cursor: dbapi.Cursor, query: str) -> None:
    """Runs a query, and shows each row the moment it arrives."""
    show(query)
    cursor.execute(query)
    widths: list[int] = []
    for batch in cursor.fetch_record_batch():
        for row in batch.to_pylist():
            if not widths:
                widths = [max(len(name), len(str(value))) + 2 for name, value in row.items()]
                print("".join(f"{name:>{width}}" for name, width in zip(row, widths)))
            print("".join(f"{value!s:>{width}}" for value, width in zip(row.values(), widths)), flush=True)


def title(text: str) -> None:
    print(f"\n{paint('1', text)}")


def show(statement: str) -> None:
    print(f"\n{paint('36', textwrap.indent(statement.strip() + ';', '  '))}\n", flush=True)


def paint(colour: str, text: str) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if sys.stdout.isatty() else text


@contextmanager
def server(log: Path) -> Iterator[str]:
    """A server on a free port: its address, and its end."""
    command = [Path(sys.executable).with_name("couatl"), "serve", "--listen", "127.0.0.1:0"]
    with log.open("w") as stderr, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process:
        try:
            yield process.stdout.readline().removeprefix("listening on ").strip()
            process.terminate()
            assert process.wait(timeout=20) == 0, f"the server ended with {process.returncode}"
        finally:
            process.kill()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="couatl-") as directory:
        log = Path(directory) / "server.log"
        try:
            with server(log) as address:
                print(f"couatl serve: listening on {address}")
                with closing(dbapi.connect(address, autocommit=True)) as connection, connection.cursor() as cursor:
                    tour(cursor, Path(directory))
        except BaseException:
            print(f"\n{paint('31', 'The demo failed. The log of the server:')}\n{log.read_text()}", file=sys.stderr)
            raise


if __name__ == "__main__":
    main()
