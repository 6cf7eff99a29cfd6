"""Writing: Arrow columns into Python lists beside pyarrow's, and bulk rows from a client beside pyarrow's server."""

import sys
import time
from collections.abc import Iterator

import pyarrow as pa
from adbc_driver_flightsql import dbapi

from benches.engine import execute, in_process, server, stream
from benches.measure import Outcome, Result, Scale, Skipped, at_least, at_most, best, each, rate
from benches.source import COLUMNS, batches

BATCH_ROWS = 8192
TITLE = "Writing"
ABOUT = (
    "What it takes to give a write function lists of Python values is an INSERT of Arrow batches into such a sink, "
    "less the same INSERT into a sink with `write_format = 'arrow'`; beside it, `to_pylist` over the same batches. "
    "And an ADBC client ingests rows, into a sink that drops them, and into a Flight SQL server in pyarrow that does."
)

# A column: its type, the same for pyarrow, and what is in row n. A tuple arrives as one; pyarrow makes dicts of them.
TYPES = {
    "bool": ("pa.bool_()", "n % 3 == 0"),
    "int64": ("pa.int64()", "n * 1_000_003"),
    "float64": ("pa.float64()", "n * 0.5"),
    "string": ("pa.string()", "f'value {n}'"),
    "binary": ("pa.binary()", "b'value %d' % n"),
    "date": ("pa.date32()", "date.fromordinal(700_000 + n)"),
    "timestamp": ("pa.timestamp('us')", "datetime(2026, 1, 1) + timedelta(microseconds=n * 997)"),
    "decimal(18, 4)": ("pa.decimal128(18, 4)", "Decimal(n).scaleb(-4)"),
    "array(int64)": ("pa.list_(pa.int64())", "[n, n + 1, n + 2]"),
    "tuple(a int64, b string)": ("pa.struct({'a': pa.int64(), 'b': pa.string()})", "{'a': n, 'b': 'eight ch'}"),
}
BODY = """
import time
from datetime import date, datetime, timedelta
from decimal import Decimal

import pyarrow as pa

def read():
    # Made once for the process: the sources cost nothing.
    kept = pa.__dict__.setdefault("benchmark_batches", {{}})
    if {name!r} not in kept:
        kept[{name!r}] = pa.record_batch({{"v": pa.array([{value} for n in range({size})], {type})}})
    for _ in range({batches}):
        yield kept[{name!r}]

def drop(v):
    pass

def pylist():
    found = list(read())
    start = time.perf_counter()
    for batch in found:
        batch["v"].to_pylist()
    return [time.perf_counter() - start]
"""


def to_lists(scale: Scale) -> Iterator[Result]:
    count = scale.of(60, 2)
    setup, queries = [], {}
    for place, (name, (arrow, value)) in enumerate(TYPES.items()):
        body = BODY.format(name=name, value=value, type=arrow, size=BATCH_ROWS, batches=count)
        column, functions = f"v {name}", {"read_function_name": "read", "write_function_name": "drop"}
        setup += [
            stream(f"lists{place}", column, body, **functions),
            stream(f"arrays{place}", column, body, **functions, write_format="arrow"),
            stream(f"pylist{place}", "seconds float64", body, read_function_name="pylist", mode="batch"),
        ]
        queries[f"arrays {name}"] = f"INSERT INTO arrays{place} SELECT v FROM arrays{place}"
        queries[f"lists {name}"] = f"INSERT INTO lists{place} SELECT v FROM arrays{place}"
        queries[f"pylist {name}"] = f"SELECT seconds FROM pylist{place}"
    runs = in_process(setup, queries, scale.rounds)
    rows = count * BATCH_ROWS
    for name in TYPES:
        whole, base = (best(run.seconds for run in runs[f"{kind} {name}"]) for kind in ("lists", "arrays"))
        # Where the difference is less than what one run differs from the next, it is no more than a bound.
        ours = max(whole - base, 0.02 * whole)
        theirs = best(float(run.value) for run in runs[f"pylist {name}"])  # type: ignore[arg-type]
        yield Result(f"{name} to a list", theirs / ours, "×", at_least(4), each(rows, ours), each(rows, theirs))


def ingest(connection: dbapi.Connection, table: pa.Table) -> float:
    """The seconds that a client takes to send a table."""
    with connection.cursor() as cursor:
        start = time.perf_counter()
        cursor.adbc_ingest("sink", table, mode="append")
        return time.perf_counter() - start


def in_bulk(scale: Scale) -> Outcome:
    what = "rows in bulk from an ADBC client"
    size = 65_536
    rows = scale.of(100, 1) * size
    table = pa.Table.from_batches(batches(rows, size))
    plain = [sys.executable, "-m", "benches.flight_server", str(size), str(size)]
    with server() as couatl, server(plain) as flight, couatl.connect() as to_couatl, flight.connect() as to_flight:
        execute(to_couatl, stream("sink", COLUMNS, "def sink(a, b, c):\n    pass", write_format="arrow"))
        ours, theirs = [], []
        for _ in range(scale.rounds):
            try:
                ours.append(ingest(to_couatl, table))
            except dbapi.NotSupportedError:
                return Skipped(what, "not offered yet")
            theirs.append(ingest(to_flight, table))
    return Result(what, best(ours) / best(theirs), "×", at_most(1.3), rate(rows, best(ours)), rate(rows, best(theirs)))


def measure(scale: Scale) -> Iterator[Outcome]:
    yield from to_lists(scale)
    yield in_bulk(scale)
