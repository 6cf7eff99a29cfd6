"""Arrow batches that a generator yields: that they are not copied, and how fast they go beside Sail's."""

from collections.abc import Iterator

from benches.engine import in_process, stream
from benches.groups.peers import Unavailable, run
from benches.groups.rows import source
from benches.measure import Outcome, Result, Scale, Skipped, at_least, at_most, best, rate
from benches.source import COLUMNS, QUERY, TEXT

BATCH_ROWS = 65_536
TITLE = "Arrow batches"
ABOUT = (
    f"A generator yields pyarrow batches of {BATCH_ROWS:,} rows. A sink with `write_format = 'arrow'` looks where the "
    f"values lie that it is given; `{QUERY} rows` is compared with Sail's Python data source over the same batches."
)

# What is yielded and what is written meet in one process: pyarrow itself is where both find the addresses. A column
# may arrive in slices, so a buffer that begins within one that was yielded is not a copy.
ADDRESSES = """
import pyarrow as pa

addresses = pa.__dict__.setdefault("benchmark_addresses", dict(spans=[], seen=0, copied=0))

def read():
    for batch in batches({count}, {size}):
        addresses["spans"] = [(data.address, data.address + data.size) for data in map(values, batch.columns)]
        yield batch

def write(*columns):
    for data in map(values, columns):
        addresses["seen"] += 1
        addresses["copied"] += not any(first <= data.address < last for first, last in addresses["spans"])

def values(column):
    return column.buffers()[-1]

def found():
    return [(addresses["seen"], addresses["copied"])]
"""


def copies(count: int) -> tuple[int, int]:
    """How many columns of batches a sink has seen, and how many of them were elsewhere than where they were made."""
    body = TEXT + ADDRESSES.format(count=count, size=BATCH_ROWS)
    setup = [
        stream("rows", COLUMNS, body, read_function_name="read"),
        stream("sink", COLUMNS, body, read_function_name="read", write_function_name="write", write_format="arrow"),
        stream("found", "seen int64, copied int64", body, read_function_name="found"),
    ]
    queries = {"write": "INSERT INTO sink SELECT * FROM rows", "found": "SELECT * FROM found"}
    (given,) = in_process(setup, queries, 1)["found"][0].rows
    seen, copied = given.values()
    assert isinstance(seen, int) and isinstance(copied, int) and seen > 0, given
    return seen, copied


def measure(scale: Scale) -> Iterator[Outcome]:
    count = scale.of(200, 2) * BATCH_ROWS
    seen, copied = copies(count)
    yield Result("columns that were copied on their way", copied, "", at_most(0), f"{copied} of {seen}")
    runs = in_process(
        [source("rows", f"iter(batches({count}, {BATCH_ROWS}))")], {"query": f"{QUERY} rows"}, scale.rounds
    )
    ours = best(run.seconds for run in runs["query"])
    try:
        peer = run(scale.peers, "sail", "batches", count, scale.of(5, 1))
    except Unavailable as reason:
        yield Skipped("sail", str(reason))
        return
    theirs, page = rate(count, peer.seconds), peer.documented
    yield Result(f"sail {peer.version}", peer.seconds / ours, "×", at_least(5), rate(count, ours), theirs, page)
