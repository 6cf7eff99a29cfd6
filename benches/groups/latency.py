"""From yield to client: how old a row is when an ADBC client has it, for queries that hold rows back elsewhere."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

from adbc_driver_flightsql import dbapi

from benches.engine import Server, execute, server, stream
from benches.measure import Outcome, Result, Scale, Skipped, at_most, percentile

ROWS_PER_SECOND = 20
AT_ONCE = 200
TITLE = "From yield to client"
ABOUT = (
    f"An endless generator yields {ROWS_PER_SECOND} rows a second, each with the time of its yield; an ADBC client in "
    "another process looks at its clock when it has the row. Then many such queries at once, each with a connection of "
    "its own, from the time when all of them run."
)
COLUMNS = "at int64, n int64, k int64"
BODY = f"""
import time
from itertools import count

def ticks():
    for n in count():
        time.sleep({1 / ROWS_PER_SECOND})
        yield time.time_ns(), n, n % 4
"""
NAMES = "CREATE TABLE names (k BIGINT, name VARCHAR) AS VALUES (0, 'north'), (1, 'east'), (2, 'south'), (3, 'west')"
HALF = "CREATE TABLE half (k BIGINT, name VARCHAR) AS VALUES (0, 'north'), (2, 'south')"
SHAPES = {
    "plain": "SELECT at FROM ticks",
    "filter": "SELECT at FROM ticks WHERE n % 2 = 0",
    "projection": "SELECT at, n * 2 AS twice, concat('k', k) AS text FROM ticks",
    "union": "SELECT at FROM ticks UNION ALL SELECT at FROM ticks",
    "join with a table": "SELECT at, name FROM ticks JOIN names USING (k)",
    "left join with a table": "SELECT at, name FROM ticks LEFT JOIN half USING (k)",
    "ordered window": "SELECT at, row_number() OVER (ORDER BY n) AS place FROM ordered_ticks",
}


class Silent(Exception):
    """No row came in time."""


class Reader(threading.Thread):
    """A client that notes when rows were yielded and how old they are, until one comes that was yielded after `end`."""

    def __init__(self, couatl: Server, query: str) -> None:
        super().__init__(daemon=True)
        self.couatl, self.query = couatl, query
        self.rows: list[tuple[int, float]] = []
        self.running = threading.Event()
        self.end = float("inf")
        self.cursor: dbapi.Cursor | None = None
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            with self.couatl.connect() as connection, connection.cursor() as self.cursor:
                self.cursor.execute(self.query)
                for batch in self.cursor.fetch_record_batch():
                    now = time.time_ns()
                    self.rows += [(at, (now - at) / 1e6) for at in batch["at"].to_pylist()]
                    self.running.set()
                    if self.rows[-1][0] > self.end:
                        break
        except Exception as failure:
            self.failure = failure
        finally:
            self.running.set()

    def give_up(self) -> None:
        if self.cursor is not None:
            with suppress(Exception):
                self.cursor.adbc_cancel()


def latencies(
    couatl: Server, queries: Sequence[str], seconds: float, patience: float
) -> tuple[list[float], tuple[float, float]]:
    """The milliseconds from yield to client of all rows that are yielded in a time in which all queries run.

    And how busy the server and the clients were meanwhile, in processors.
    """
    readers = [Reader(couatl, query) for query in queries]
    for reader in readers:
        reader.start()
    deadline = time.monotonic() + patience
    silent = [reader for reader in readers if not reader.running.wait(max(0, deadline - time.monotonic()))]
    start, before = time.time_ns(), (couatl.cpu_seconds(), time.process_time())
    end = start if silent else start + int(seconds * 1e9)
    for reader in readers:
        reader.end = end
    deadline = time.monotonic() + (end - start) / 1e9 + patience
    for reader in readers:
        if reader not in silent:
            reader.join(max(0, deadline - time.monotonic()))
    elapsed, after = (time.time_ns() - start) / 1e9, (couatl.cpu_seconds(), time.process_time())
    for reader in readers:
        if reader.failure is not None:
            raise reader.failure
    silent = [reader for reader in readers if reader.is_alive()]
    for reader in silent:
        reader.give_up()
        reader.join(patience)
    found = [late for reader in readers for at, late in reader.rows if start <= at <= end]
    if silent or not found:
        raise Silent
    server_load, client_load = ((late - early) / elapsed for early, late in zip(before, after))
    return found, (server_load, client_load)


def results(
    couatl: Server, scale: Scale, what: str, queries: Sequence[str], limits: dict[int, float]
) -> Iterator[Result]:
    seconds, patience = (0.5, 3.0) if scale.quick else (10.0, 20.0)
    try:
        late, (server_load, client_load) = latencies(couatl, queries, seconds, patience)
        # Where both together come near what the machine has, it is the machine that is measured.
        ours = f"{len(late):,} rows; server {server_load:.0%} of a core, clients {client_load:.0%}"
    except Silent:
        # All that is known is that it takes longer than this.
        late, ours = [patience * 1e3], f"no row within {patience:.0f} s"
    for percent, limit in limits.items():
        yield Result(f"{what}, p{percent}", percentile(late, percent), "ms", at_most(limit), ours)


def measure(scale: Scale) -> Iterator[Outcome]:
    with server() as couatl, couatl.connect() as connection:
        for statement in (stream("ticks", COLUMNS, BODY, mode="streaming"), NAMES, HALF):
            execute(connection, statement)
        refused = {}
        try:
            ordered = stream("ordered_ticks", COLUMNS, BODY, mode="streaming", read_function_name="ticks", order_by="n")
            execute(connection, ordered)
        except dbapi.Error as error:
            refused["ordered window"] = f"CREATE refuses order_by: {str(error).splitlines()[0][:120]}"
        for name, query in SHAPES.items():
            if name in refused:
                yield Skipped(name, refused[name])
            else:
                yield from results(couatl, scale, name, [query], {50: 10, 99: 50})
        count = scale.of(AT_ONCE, 10)
        yield from results(couatl, scale, f"{count} at once", [SHAPES["plain"]] * count, {99: 250})
