"""What a function in Python costs in SQL, beside the same function in a session of DataFusion's own package."""

import time
from collections.abc import Callable, Iterator

import couatl
import datafusion
import pyarrow as pa
import pyarrow.compute as pc

from benches.measure import Outcome, Result, Scale, at_least, best, each

TITLE = "Functions"
ABOUT = (
    "A function is called for each row of a table in memory, and its values are added up; an aggregate adds up a "
    "column for each of 1,000 groups. Beside it, the same work in a session of the package `datafusion`, whose "
    "functions take and give Arrow arrays."
)
TABLE = (
    "CREATE TABLE numbers AS SELECT value AS n, value % 1000 AS k, 'row ' || value AS s FROM generate_series(1, {rows})"
)


def plus(n: pa.Array) -> pa.Array:
    return pc.add(n, 1)


def plus_values(n: pa.Array) -> pa.Array:
    return pa.array([value + 1 for value in n.to_pylist()], pa.int64())


def upper_values(s: pa.Array) -> pa.Array:
    return pa.array([value.upper() for value in s.to_pylist()], pa.string())


class Total(datafusion.Accumulator):
    """A sum, whose values are Python's."""

    def __init__(self) -> None:
        self.total = 0

    def update(self, values: pa.Array) -> None:
        self.total += sum(values.to_pylist())

    def merge(self, states: list[pa.Array]) -> None:
        self.total += sum(states[0].to_pylist())

    def state(self) -> list[pa.Scalar]:
        return [pa.scalar(self.total)]

    def evaluate(self) -> pa.Scalar:
        return pa.scalar(self.total)


OURS = {
    "plus_arrow": "FUNCTION plus_arrow(n int64) RETURNS int64 LANGUAGE PYTHON IMMUTABLE "
    "OPTIONS (format 'arrow') AS $$\nimport pyarrow.compute as pc\ndef plus_arrow(n): return pc.add(n, 1)\n$$",
    "plus": "FUNCTION plus(n int64) RETURNS int64 LANGUAGE PYTHON IMMUTABLE AS $$\n"
    "def plus(n): return [value + 1 for value in n]\n$$",
    "upper_case": "FUNCTION upper_case(s string) RETURNS string LANGUAGE PYTHON IMMUTABLE AS $$\n"
    "def upper_case(s): return [value.upper() for value in s]\n$$",
    "total": "AGGREGATE FUNCTION total(n int64) RETURNS int64 LANGUAGE PYTHON IMMUTABLE AS $$\n"
    "class total:\n    def __init__(self): self.total = 0\n    def process(self, n): self.total += sum(n)\n"
    "    def merge(self, other): self.total += other.total\n    def finalize(self): return self.total\n$$",
}
QUERIES = {
    "Arrow arrays": "SELECT sum(plus_arrow(n)) AS x FROM numbers",
    "lists of int": "SELECT sum(plus(n)) AS x FROM numbers",
    "lists of str": "SELECT sum(length(upper_case(s))) AS x FROM numbers",
    "an aggregate in 1,000 groups": "SELECT sum(t) AS x FROM (SELECT k, total(n) AS t FROM numbers GROUP BY k)",
}


def ours(rows: int) -> Callable[[str], object]:
    session = couatl.Session()
    for statement in [TABLE.format(rows=rows), *(f"CREATE {function}" for function in OURS.values())]:
        session.sql(statement)
    return lambda query: session.sql(query).to_arrow()["x"][0].as_py()


def theirs(rows: int) -> Callable[[str], object]:
    context = datafusion.SessionContext()
    context.sql(TABLE.format(rows=rows)).collect()
    integer, text = pa.int64(), pa.string()
    context.register_udf(datafusion.udf(plus, [integer], integer, "immutable", "plus_arrow"))
    context.register_udf(datafusion.udf(plus_values, [integer], integer, "immutable", "plus"))
    context.register_udf(datafusion.udf(upper_values, [text], text, "immutable", "upper_case"))
    context.register_udaf(datafusion.udaf(Total, [integer], integer, [integer], "immutable", "total"))
    return lambda query: context.sql(query).collect()[0]["x"][0].as_py()


def timed(answer: Callable[[str], object], query: str) -> float:
    start = time.perf_counter()
    answer(query)
    return time.perf_counter() - start


def measure(scale: Scale) -> Iterator[Outcome]:
    rows = scale.of(1_000_000, 2_000)
    here, there = ours(rows), theirs(rows)
    for what, query in QUERIES.items():
        assert here(query) == there(query), what
        mine, others = [], []
        for _ in range(scale.rounds):
            mine.append(timed(here, query))
            others.append(timed(there, query))
        ratio = best(others) / best(mine)
        yield Result(what, ratio, "×", at_least(1), each(rows, best(mine)), each(rows, best(others)))
