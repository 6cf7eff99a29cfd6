"""The same rows, which a generator yields in lists: what a row costs beyond the bare iteration of the lists."""

from collections.abc import Iterator

from benches.engine import in_process
from benches.groups.rows import drain, source
from benches.measure import Outcome, Result, Scale, at_most, best, each
from benches.source import QUERY, answer

TITLE = "Rows in lists"
ABOUT = f"A generator yields lists of such tuples; `{QUERY} rows` reads them in process."
SIZES = 1000, 8192


def measure(scale: Scale) -> Iterator[Outcome]:
    count = scale.of(2_000_000, 20_000)
    setup, queries = [], {}
    for size in SIZES:
        rows = f"lists({count}, {size})"
        setup += [source(f"rows{size}", rows), drain(f"bare{size}", rows)]
        queries[f"bare{size}"] = f"SELECT seconds FROM bare{size}"
        queries[f"rows{size}"] = f"{QUERY} rows{size}"
    runs = in_process(setup, queries, scale.rounds)
    for size in SIZES:
        (given,) = runs[f"rows{size}"][0].rows
        assert tuple(given.values()) == answer(count), given
        bare = best(float(run.value) for run in runs[f"bare{size}"])  # type: ignore[arg-type]
        ours = best(run.seconds for run in runs[f"rows{size}"])
        yield Result(
            f"lists of {size:,} rows, beyond the bare iteration",
            (ours - bare) / count * 1e9,
            "ns",
            at_most(25),
            each(count, ours),
            each(count, bare),
        )
