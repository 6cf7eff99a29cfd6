"""From yield to client: how old a row is when an ADBC client has it, for queries that hold rows back elsewhere."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from adbc_driver_flightsql import dbapi

from benches.clients import FIRST_ROW_SECONDS
from benches.engine import Server, execute, server, stream
from benches.measure import Outcome, Result, Scale, Skipped, at_most, percentile

ROWS_PER_SECOND = 20
AT_ONCE = 200
# Many clients in one Python process wait for each other, and it is their waiting that is measured.
PROCESSES = 4
TITLE = "From yield to client"
ABOUT = (
    f"An endless generator yields {ROWS_PER_SECOND} rows a second, each with the time of its yield; an ADBC client in "
    "another process looks at its clock when it has the row. Then many such queries at once, each with a connection of "
    f"its own, in {PROCESSES} processes of clients, from the time when all of them run."
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


@contextmanager
def clients(couatl: Server, queries: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """Clients in a process of their own; those that do not end by themselves are ended."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benches.clients", couatl.uri], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        tell(process, list(queries))
        yield process
    finally:
        process.kill()
        process.communicate()


def tell(process: subprocess.Popen[str], what: object) -> None:
    assert process.stdin is not None
    print(json.dumps(what), file=process.stdin, flush=True)


def hear(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def latencies(couatl: Server, queries: Sequence[str], seconds: float) -> tuple[list[float], tuple[float, float]]:
    """The milliseconds from yield to client of all rows that are yielded in a time in which all queries run.

    And how busy the server and the clients were meanwhile, in processors.
    """
    parts = [queries[part::PROCESSES] for part in range(min(PROCESSES, len(queries)))]
    with ExitStack() as stack:
        processes = [stack.enter_context(clients(couatl, part)) for part in parts]
        if sum(map(hear, processes)) < len(queries):
            raise Silent
        start, before = time.time_ns(), couatl.cpu_seconds()
        for process in processes:
            tell(process, [start, start + int(seconds * 1e9)])
        found = [hear(process) for process in processes]
        elapsed, server_seconds = (time.time_ns() - start) / 1e9, couatl.cpu_seconds() - before
    failures = [failure for answer in found for failure in answer["failures"]]
    if failures:
        raise RuntimeError(failures[0])
    late = [late for answer in found for late in answer["late"]]
    if not late or any(answer["silent"] for answer in found):
        raise Silent
    return late, (server_seconds / elapsed, sum(answer["cpu"] for answer in found) / elapsed)


def results(
    couatl: Server, scale: Scale, what: str, queries: Sequence[str], limits: dict[int, float]
) -> Iterator[Result]:
    try:
        late, (server_load, client_load) = latencies(couatl, queries, 0.5 if scale.quick else 10.0)
        # Where both together come near what the machine has, it is the machine that is measured.
        ours = f"{len(late):,} rows; server {server_load:.0%} of a core, clients {client_load:.0%}"
    except Silent:
        # All that is known is that it takes longer than this.
        late, ours = [FIRST_ROW_SECONDS * 1e3], f"no row within {FIRST_ROW_SECONDS:.0f} s"
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
