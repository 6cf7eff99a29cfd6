"""Rows on the wire: Arrow batches to an ADBC client, from Couatl and from a Flight SQL server in pyarrow."""

import sys
import time
from collections.abc import Iterator

from adbc_driver_flightsql import dbapi

from benches.engine import execute, server
from benches.groups.rows import source
from benches.measure import Outcome, Result, Scale, at_least, best, rate

TITLE = "Rows to a client"
ABOUT = (
    "A stream yields the same Arrow batches again and again, and an ADBC client reads them all, over a socket; beside "
    "it, the same client reads the same batches from pyarrow's Flight server, which has them in memory."
)
SIZES = 8192, 65_536


def read(connection: dbapi.Connection, rows: int) -> float:
    """The seconds that a client takes to read everything."""
    start = time.perf_counter()
    with connection.cursor() as cursor:
        cursor.execute("SELECT a, b, c FROM rows")
        found = sum(batch.num_rows for batch in cursor.fetch_record_batch())
    assert found == rows, found
    return time.perf_counter() - start


def measure(scale: Scale) -> Iterator[Outcome]:
    rows = scale.of(200, 1) * max(SIZES)
    for size in SIZES:
        plain = [sys.executable, "-m", "benches.flight_server", str(rows), str(size)]
        with (
            server() as couatl,
            server(plain) as flight,
            couatl.connect() as from_couatl,
            flight.connect() as from_flight,
        ):
            execute(from_couatl, source("rows", f"iter(batches({rows}, {size}))"))
            ours, theirs = [], []
            for _ in range(scale.rounds):
                ours.append(read(from_couatl, rows))
                theirs.append(read(from_flight, rows))
        yield Result(
            f"batches of {size:,} rows, to pyarrow's server",
            best(theirs) / best(ours),
            "×",
            at_least(0.9, aim=1.2),
            rate(rows, best(ours)),
            rate(rows, best(theirs)),
        )
