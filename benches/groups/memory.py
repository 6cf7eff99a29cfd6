"""The server's memory while very many rows pass through it."""

from collections.abc import Iterator

from benches.engine import execute, server
from benches.groups.rows import source
from benches.measure import Outcome, Result, Scale, at_most

TITLE = "Memory"
ABOUT = (
    "A generator's rows pass through a filter to an ADBC client that drops them. The peak of the server's resident "
    "memory (`VmHWM`) is compared with the peak for a million rows; each has a server of its own."
)
MIB = 1 << 20


def peak(rows: int) -> int:
    """The most memory that a fresh server has had for so many rows."""
    with server() as couatl, couatl.connect() as connection:
        execute(connection, source("rows", f"generate({rows})"))
        with connection.cursor() as cursor:
            cursor.execute("SELECT a, b, c FROM rows WHERE a % 4 <> 0")
            found = sum(batch.num_rows for batch in cursor.fetch_record_batch())
        assert found == rows - (rows + 3) // 4, found
        return couatl.peak_memory_bytes()


def measure(scale: Scale) -> Iterator[Outcome]:
    few, many = scale.of(1_000_000, 10_000), scale.of(50_000_000, 100_000)
    least, most = peak(few), peak(many)
    yield Result(
        f"{many:,} rows, beyond {few:,}",
        (most - least) / MIB,
        "MiB",
        at_most(64),
        f"{most / MIB:.0f} MiB",
        f"{least / MIB:.0f} MiB",
    )
