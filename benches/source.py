"""The rows that all measurements read, and the query that they answer.

Everyone gets the same generator: peers import it, and its text is the body of Couatl's streams. It is as cheap as a
generator of such rows can be, so that what the engines add is seen.
"""

import inspect
from collections.abc import Iterator, Sequence
from itertools import islice
from operator import itemgetter

COLUMNS = "a int64, b float64, c string"
QUERY = "SELECT count(*), sum(a), max(c) FROM"
LARGEST = "eight ch"


def generate(count: int) -> Iterator[tuple[int, float, str]]:
    for n in range(count):
        yield n, n * 0.5, "eight ch"


def lists(count: int, size: int) -> Iterator[list[tuple[int, float, str]]]:
    """The same rows, as lists."""
    rows = generate(count)
    while chunk := list(islice(rows, size)):
        yield chunk


def batches(count: int, size: int) -> list[object]:
    """The same rows, as pyarrow's batches: made once, and given again and again, so that giving them costs nothing."""
    import pyarrow as pa

    a, b, c = ([row[column] for row in generate(size)] for column in range(3))
    batch = pa.record_batch({"a": pa.array(a), "b": pa.array(b), "c": pa.array(c)})
    return [batch] * (count // size)


def columns(rows: Sequence[tuple[object, ...]]) -> list[list[object]]:
    """Rows as columns, for systems that take no rows. Twice as fast as `zip(*rows)`, for thousands of rows."""
    return [list(map(itemgetter(place), rows)) for place in range(3)]


def answer(count: int) -> tuple[int, int, str]:
    """What the query gives over `generate` and `lists`."""
    return count, count * (count - 1) // 2, LARGEST


IMPORTS = "from collections.abc import Iterator\nfrom itertools import islice\n\n"
TEXT = IMPORTS + "\n".join([inspect.getsource(generate), inspect.getsource(lists), inspect.getsource(batches)])
