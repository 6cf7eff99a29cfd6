"""Rows that a generator yields one by one, against the bare generator drained by C in the same process."""

from collections.abc import Iterator

from benches.engine import in_process, stream
from benches.measure import Outcome, Result, Scale, at_most, best, each
from benches.source import COLUMNS, QUERY, TEXT, answer

TITLE = "Rows from a generator"
ABOUT = (
    f"A generator yields tuples of an int, a float and a str; `{QUERY} rows` reads them in process. "
    "It is compared with `collections.deque(generator, maxlen=0)`."
)

# A stream that drains the generator, and gives the seconds which that took.
DRAIN = """
import time
from collections import deque

def drain():
    rows = {rows}
    start = time.perf_counter()
    deque(rows, maxlen=0)
    return [time.perf_counter() - start]
"""


def source(name: str, rows: str) -> str:
    """The statement that makes a stream of what an expression gives."""
    return stream(name, COLUMNS, f"{TEXT}\ndef {name}():\n    return {rows}")


def drain(name: str, rows: str) -> str:
    """The statement that makes a stream of the seconds which draining the same takes."""
    return stream(name, "seconds float64", TEXT + DRAIN.format(rows=rows), read_function_name="drain", mode="batch")


def measure(scale: Scale) -> Iterator[Outcome]:
    count = scale.of(2_000_000, 20_000)
    rows = f"generate({count})"
    queries = {"bare": "SELECT seconds FROM bare", "query": f"{QUERY} rows"}
    runs = in_process([source("rows", rows), drain("bare", rows)], queries, scale.rounds)
    (given,) = runs["query"][0].rows
    assert tuple(given.values()) == answer(count), given
    bare = best(float(run.value) for run in runs["bare"])  # type: ignore[arg-type]
    ours = best(run.seconds for run in runs["query"])
    yield Result(
        "tuples to an aggregate, to the bare drain",
        ours / bare,
        "×",
        at_most(1.35, aim=1.2),
        each(count, ours),
        each(count, bare),
        speeds={"bare generator": count / bare, "couatl": count / ours},
    )
