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

# A generator is an endless stream, and what it yields is there at once.
CPU = """
CREATE EXTERNAL STREAM cpu (at timestamp, core string, busy uint64, idle uint64, load float64)
AS $$
import os, time
from datetime import datetime, timezone

def counters():
    try:
        with open("/proc/stat") as stat:
            rows = [line.split() for line in stat if line.startswith("cpu")]
    except FileNotFoundError:  # not Linux: this process instead, in hundredths of a second too
        spent = os.times()
        rows = [("cpu", 100 * spent.user, 0, 100 * spent.system, 100 * spent.elapsed)]
    return {core: (int(user) + int(system), int(idle)) for core, user, _, system, idle, *_ in rows}

def cpu():
    before = counters()
    while True:
        time.sleep(0.2)
        at, now = datetime.now(timezone.utc), counters()
        for core, (busy, idle) in now.items():
            worked, rested = busy - before[core][0], idle - before[core][1]
            yield at, core, busy, idle, round(100 * worked / max(1, worked + rested), 1)
        before = now
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
CREATE EXTERNAL STREAM samples (core string, load float64)
AS $$
import sqlite3

def connect(path):
    global db
    db = sqlite3.connect(path, check_same_thread=False)
    db.execute("CREATE TABLE IF NOT EXISTS samples (core, load)")

def write(core, load):
    with db:
        db.executemany("INSERT INTO samples VALUES (?, ?)", zip(core, load))

def read():
    return db.execute("SELECT core, load FROM samples").fetchall()

def disconnect():
    db.close()
$$
SETTINGS type = 'python', mode = 'batch', read_function_name = 'read', write_function_name = 'write',
    init_function_name = 'connect', init_function_parameters = '{path}',
    deinit_function_name = 'disconnect'
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
    cores = ["cpu", *(f"cpu{n}" for n in range(os.cpu_count() or 1))]
    names = [name for name, _ in zip(cycle(["Kukulkan", "Quetzal", "Ehecatl", "Coatlicue"]), cores)]
    pq.write_table(pa.table({"core": cores, "name": names}), directory / "names.parquet")
    run(cursor, f"CREATE EXTERNAL TABLE names STORED AS PARQUET LOCATION '{directory}/names.parquet'")
    follow(cursor, "SELECT at, name, load FROM cpu JOIN names USING (core) LIMIT 6")

    title("Through a sink into SQLite, and back")
    run(cursor, SAMPLES.replace("{path}", f"{directory}/samples.db"))
    run(cursor, "INSERT INTO samples SELECT core, load FROM cpu LIMIT 12")
    run(
        cursor, "SELECT core, count(*) AS samples, round(avg(load), 1) AS load FROM samples GROUP BY core ORDER BY core"
    )

    title("An error, as its author wants to see it")
    run(cursor, THERMOMETERS)
    try:
        run(cursor, "SELECT * FROM thermometers")
    except dbapi.Error as error:
        print(textwrap.indent(str(error), "  "))
    else:
        raise RuntimeError("'cold' has become a number")


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
    line = ""
    for batch in cursor.fetch_record_batch():
        for row in batch.to_pylist():
            if not line:
                line = "".join(f"{{:>{max(len(name), len(str(value))) + 2}}}" for name, value in row.items())
                print(line.format(*row))
            print(line.format(*map(str, row.values())), flush=True)


def title(text: str) -> None:
    print(f"\n{paint('1', text)}")


def show(statement: str) -> None:
    print(f"\n{paint('36', textwrap.indent(statement.strip() + ';', '  '))}\n", flush=True)


def paint(colour: str, text: str) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if sys.stdout.isatty() else text


@contextmanager
def server(log: Path) -> Iterator[str]:
    """A server on a free port: its address, and its end."""
    command = [str(Path(sys.executable).with_name("couatl")), "serve", "--listen", "127.0.0.1:0", "--http", "off"]
    with log.open("w") as stderr, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().decode().removeprefix("listening on ").strip()
            process.terminate()
            if process.wait(timeout=20) != 0:
                raise RuntimeError(f"the server ended with {process.returncode}")
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
        except Exception:
            print(f"\nThe demo failed. The server's log:\n{log.read_text()}", file=sys.stderr)
            raise


if __name__ == "__main__":
    main()
