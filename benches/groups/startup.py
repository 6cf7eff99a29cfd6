"""The first row of a stream that nobody has read before, beside `SELECT 1`."""

from collections.abc import Iterator

from benches.engine import in_process, stream
from benches.measure import Outcome, Result, Scale, at_most, percentile

TITLE = "The first row"
ABOUT = "A stream of one row is read once after its creation, in process; `SELECT 1` is what a query takes at least."


def measure(scale: Scale) -> Iterator[Outcome]:
    count = scale.of(200, 5)
    names = [f"fresh{n}" for n in range(count)]
    setup = [stream(name, "n int64", f"def {name}():\n    yield 1") for name in names]
    queries = {}
    for name in names:
        queries[f"one {name}"] = "SELECT 1"
        queries[name] = f"SELECT n FROM {name}"
    runs = in_process(setup, queries, 1)
    ours = percentile([runs[name][0].seconds * 1e3 for name in names], 50)
    theirs = percentile([runs[f"one {name}"][0].seconds * 1e3 for name in names], 50)
    yield Result(
        "a fresh stream's row, beyond SELECT 1, p50",
        ours - theirs,
        "ms",
        at_most(3),
        f"{ours:.2f} ms",
        f"{theirs:.2f} ms",
    )
