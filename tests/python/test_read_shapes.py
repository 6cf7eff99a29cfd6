"""What a read function may return and yield."""

import re
import time

import pytest
from harness import create, error, rows, table, value

TWO_ROWS = [(1, "a"), (2, "b")]
PRELUDE = "import pyarrow as pa\nimport polars as pl\nimport pandas as pd\nimport typing, itertools, collections\n"
DATA = "data = {'n': [1, 2], 's': ['a', 'b']}\n"

RETURNED = {
    "list of tuples": "return [(1, 'a'), (2, 'b')]",
    "list of lists": "return [[1, 'a'], [2, 'b']]",
    "list of dicts": "return [{'n': 1, 's': 'a'}, {'s': 'b', 'n': 2}]",
    "list of named tuples": "R = collections.namedtuple('R', 'n s'); return [R(1, 'a'), R(2, 'b')]",
    "pyarrow table": "return pa.table(data)",
    "pyarrow record batch": "return pa.record_batch(data)",
    "polars frame": "return pl.DataFrame(data)",
    "pandas frame": "return pd.DataFrame(data)",
}

YIELDED = {
    "tuples": "yield (1, 'a'); yield (2, 'b')",
    "dicts": "yield {'n': 1, 's': 'a'}; yield {'s': 'b', 'n': 2}",
    "named tuples": "R = collections.namedtuple('R', 'n s'); yield R(1, 'a'); yield R(2, 'b')",
    "a batch": "yield [(1, 'a'), (2, 'b')]",
    "a batch of dicts": "yield [{'n': 1, 's': 'a'}, {'n': 2, 's': 'b'}]",
    "a batch in a tuple": "yield ((1, 'a'), (2, 'b'))",
    "rows and batches": "yield (1, 'a'); yield None; yield []; yield [(2, 'b')]",
    "a pyarrow table": "yield pa.table(data)",
    "pyarrow batches": "yield from pa.table(data).to_batches(max_chunksize=1)",
    "a pyarrow reader": "yield pa.table(data).to_reader(max_chunksize=1)",
    "a polars frame": "yield pl.DataFrame(data)",
    "a pandas frame": "yield pd.DataFrame(data)",
    "rows and a table": "yield (1, 'a'); yield pa.table({'s': ['b'], 'n': [2]})",
}


@pytest.mark.parametrize("mode", ["auto", "batch"])
@pytest.mark.parametrize("shape", RETURNED)
def test_returned(connection, shape, mode):
    create(connection, "shape", "n int64, s string", f"{PRELUDE}{DATA}def shape():\n    {RETURNED[shape]}\n", mode=mode)
    assert rows(connection, "SELECT * FROM shape") == TWO_ROWS
    assert rows(connection, "SELECT s FROM shape WHERE n = 2") == [("b",)]
    assert value(connection, "SELECT count(*) FROM shape") == 2


@pytest.mark.parametrize("mode", ["auto", "streaming"])
@pytest.mark.parametrize("shape", YIELDED)
def test_yielded(connection, shape, mode):
    create(connection, "shape", "n int64, s string", f"{PRELUDE}{DATA}def shape():\n    {YIELDED[shape]}\n", mode=mode)
    assert rows(connection, "SELECT * FROM shape") == TWO_ROWS
    assert rows(connection, "SELECT s FROM shape WHERE n = 2") == [("b",)]


@pytest.mark.parametrize(
    "body",
    [
        "def one(): return [1, None, 3]",
        "def one(): return [(1,), (None,), (3,)]",
        "def one(): return iter([1, (None,), 3])",
        "def one(): return map(lambda n: n, [1, (None,), 3])",
        "class one:\n    def __iter__(self): return iter([1, (None,), 3])",
        "def one():\n    yield [1, None, 3]",
        "one = lambda: [1, None, 3]",
        "import functools\none = functools.partial(list, [1, None, 3])",
    ],
)
def test_bare_values_where_there_is_one_column(connection, body):
    create(connection, "one", "n int64", body)
    assert rows(connection, "SELECT * FROM one") == [(1,), (None,), (3,)]


def test_none_delivers_and_is_no_row(connection):
    create(connection, "one", "n int64", "def one():\n    yield 1\n    yield None\n    yield 2\n    yield (None,)\n")
    assert rows(connection, "SELECT * FROM one") == [(1,), (2,), (None,)]


@pytest.mark.parametrize(
    ("type", "yielded", "expected"),
    [
        ("array(int64)", "[[1, 2], [3]]", [[1, 2], [3]]),
        ("array(int64)", "([1, 2],)", [[1, 2]]),
        ("map(string, int64)", "{'a': 1}", [[("a", 1)]]),
        ("tuple(a int64, b string)", "{'a': 1, 'b': 'x'}", [{"a": 1, "b": "x"}]),
        ("json", "{'a': 1}", ['{"a":1}']),
    ],
)
def test_nested_values_of_the_only_column(connection, type, yielded, expected):
    create(connection, "nested", f"v {type}", f"def nested():\n    yield {yielded}\n")
    found = [row["v"] for row in table(connection, "SELECT * FROM nested").to_pylist()]
    assert [v.replace(" ", "") if isinstance(v, str) else v for v in found] == expected


def test_rows_whose_first_column_is_nested(connection):
    create(connection, "nested", "v array(int64), n int8", "def nested():\n    yield ([1], 2)\n    yield [([3], 4)]\n")
    assert rows(connection, "SELECT * FROM nested") == [([1], 2), ([3], 4)]


def test_nothing(connection):
    for body in ["return []", "return iter(())", "yield from ()", "yield []", "yield None"]:
        create(connection, "nothing", "n int64, s string", f"def nothing():\n    {body}\n")
        assert rows(connection, "SELECT * FROM nothing") == []
        assert value(connection, "SELECT count(*) FROM nothing") == 0


def test_order_is_kept_over_many_batches(connection):
    create(connection, "many", "n int64", "def many():\n    yield from range(100_000)\n", batch_size=7)
    assert table(connection, "SELECT n FROM many")["n"].to_pylist() == list(range(100_000))


@pytest.mark.parametrize("batch_size", [1, 2, 8192])
def test_batch_boundaries_change_nothing(connection, batch_size):
    body = "def many():\n    for n in range(1000):\n        yield (n, str(n)) if n % 3 else [(n, None)]\n"
    create(connection, "many", "n int64, s string", body, batch_size=batch_size, linger_ms=0)
    assert rows(connection, "SELECT count(*), count(s), sum(n) FROM many") == [(1000, 666, 499500)]
    assert rows(connection, "SELECT * FROM many WHERE n = 500") == [(500, "500")]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("pa.table({'n': [1]})", "s"),
        ("pa.table({'n': [1], 's': ['a'], 'x': [1]})", "x"),
        ("pa.table({'n': [1.5], 's': ['a']})", "'n'"),
        ("pa.table({'n': ['1'], 's': ['a']})", "'n'"),
        ("pa.table({'n': [None], 's': ['a']})", "'n'"),
        ("pa.table({'n': [2**40], 's': ['a']})", "'n'"),
        ("pa.array([1, 2])", "n"),
    ],
)
def test_arrow_that_does_not_fit(connection, made, said):
    body = f"{PRELUDE}def arrow():\n    return {made}\n"
    create(connection, "arrow", "n int32 NOT NULL, s string", body)
    message = error(connection, "SELECT * FROM arrow")
    assert "stream 'arrow'" in message
    assert said in message


def test_arrow_is_cast_where_that_is_exact(connection):
    body = f"{PRELUDE}def arrow():\n    n, s = pa.array([1, 2], pa.int64()), pa.array(['a', 'b'], pa.large_string())\n"
    body += "    return pa.table({'s': s, 'n': n})\n"
    create(connection, "arrow", "n int32, s string", body)
    assert rows(connection, "SELECT * FROM arrow") == TWO_ROWS


@pytest.mark.parametrize("given", ["part", "part.to_reader()", "part.to_batches()[0]", "Stream()"])
def test_a_part_of_records_in_records(connection, given):
    """Each record of an Arrow object may begin at an offset, which holds for the records in it."""
    body = f"""{PRELUDE}
inner = pa.StructArray.from_arrays([pa.array(range(10))], ["n"])
outer = pa.StructArray.from_arrays([inner.slice(1)], ["inner"]).slice(1)
fixed = pa.FixedSizeListArray.from_arrays(inner, 2)
part = pa.table({{"v": outer.slice(0, 5), "f": fixed}}).slice(2, 2)

class Stream:
    def __arrow_c_stream__(self, requested_schema=None):
        return part.__arrow_c_stream__()

def parts():
    yield {given}
"""
    create(connection, "parts", "v tuple(inner tuple(n int64)), f array(tuple(n int64))", body)
    found = table(connection, "SELECT v, f FROM parts")
    assert found["v"].to_pylist() == [{"inner": {"n": 4}}, {"inner": {"n": 5}}]
    assert found["f"].to_pylist() == [[{"n": 4}, {"n": 5}], [{"n": 6}, {"n": 7}]]


def test_a_thread_of_its_own(connection):
    body = """
    import threading, contextvars
    mine = contextvars.ContextVar("mine")
    local = threading.local()

    def init():
        local.value = 5
        mine.set(6)

    def own():
        for _ in range(3):
            yield (local.value, mine.get(), threading.get_ident())
    """
    create(connection, "own", "a int64, b int64, t int64", body, init_function_name="init", mode="streaming")
    found = rows(connection, "SELECT * FROM own")
    assert {row[:2] for row in found} == {(5, 6)}
    assert len({row[2] for row in found}) == 1


def test_a_module_for_each_scan(connection):
    body = "seen = []\ndef fresh():\n    seen.append(1)\n    return [len(seen)]\n"
    create(connection, "fresh", "n int64", body)
    assert rows(connection, "SELECT n FROM fresh UNION ALL SELECT n FROM fresh") == [(1,), (1,)]
    assert rows(connection, "SELECT l.n, r.n FROM fresh l JOIN fresh r ON l.n = r.n") == [(1, 1)]


def test_dataclasses_and_pickle_work_in_a_body(connection):
    body = """
    from __future__ import annotations
    import dataclasses, pickle, typing

    @dataclasses.dataclass
    class Point:
        x: int

    class Row(typing.NamedTuple):
        x: int

    def points():
        yield Row(pickle.loads(pickle.dumps(Point(3))).x)
    """
    create(connection, "points", "x int64", body)
    assert rows(connection, "SELECT * FROM points") == [(3,)]


def test_two_streams_join(connection):
    create(connection, "lefts", "n int64, s string", "def lefts(): return [(1, 'a'), (2, 'b')]", mode="batch")
    create(connection, "rights", "n int64, t string", "def rights(): return [(2, 'x'), (3, 'y')]", mode="batch")
    assert rows(connection, "SELECT s, t FROM lefts JOIN rights USING (n)") == [("b", "x")]


def test_planning_runs_no_python(connection, tmp_path):
    ran = tmp_path / "ran"
    create(connection, "quiet", "n int64", f"open({str(ran)!r}, 'w')\ndef quiet(): return [1]")
    rows(connection, "EXPLAIN SELECT n FROM quiet WHERE n > 1")
    rows(connection, "DESCRIBE quiet")
    rows(connection, "SHOW CREATE STREAM quiet")
    connection.adbc_get_table_schema("quiet")
    assert not ran.exists()
    rows(connection, "SELECT * FROM quiet")
    assert ran.exists()


def metric(text, name):
    """A time of a scan's metrics, in milliseconds."""
    number, unit = re.search(rf"{name}=([0-9.]+)(ns|µs|ms|s)\b", text).groups()
    return float(number) * {"ns": 1e-6, "µs": 1e-3, "ms": 1, "s": 1e3}[unit]


def test_explain_analyze_of_a_body_that_sleeps_on(connection):
    """Nothing of its only next() has come, and its time is Python's all the same."""
    create(connection, "asleep", "n int64", "import time\ndef asleep():\n    time.sleep(12)\n    yield 1\n")
    start = time.monotonic()
    text = str(rows(connection, "EXPLAIN ANALYZE SELECT n FROM asleep"))
    assert 9.5 < time.monotonic() - start < 11.5, "five seconds to watch, five for the cleanup"
    assert 4500 < metric(text, "python_time") < 10500, text
    assert "convert_time" not in text, "a time of nothing is left out"


def test_explain_analyze_of_a_query_that_ends_early(connection):
    body = "import time\ndef clock():\n    for n in range(10_000):\n        time.sleep(0.01)\n        yield n\n"
    create(connection, "clock", "n int64", body)
    text = str(rows(connection, "EXPLAIN ANALYZE SELECT n FROM clock WHERE n % 2 = 0 LIMIT 3"))
    assert 40 < metric(text, "python_time") < 5000, text
    assert metric(text, "convert_time") < 40, text


def test_explain_analyze_of_an_endless_stream_ends(connection):
    create(connection, "endless", "n int64", "def endless():\n    while True: yield 1\n", mode="streaming")
    text = str(rows(connection, "EXPLAIN ANALYZE SELECT n FROM endless"))
    assert "rows" in text


def test_an_endless_aggregate_is_refused_at_planning(connection):
    create(connection, "endless", "n int64", "def endless():\n    while True: yield 1\n", mode="streaming")
    said = error(connection, "SELECT count(*) FROM endless")
    assert "endless" in said or "unbounded" in said


RETURNED_OF_ONE = {
    "[1, None, 2]": [(1,), (None,), (2,)],
    "[(1,), [None], {'n': 2}]": [(1,), (None,), (2,)],
    "[pa.table({'n': [1]}), pa.table({'n': [2, 3]})]": [(1,), (2,), (3,)],
    "[pa.array([1]), pl.Series([2]), pl.DataFrame({'n': [3]})]": [(1,), (2,), (3,)],
    "[pa.table({'n': [1]}), (2,)]": [(1,), (2,)],
    "pl.Series([1, None])": [(1,), (None,)],
    "pl.Series('other', [1], dtype=pl.UInt8)": [(1,)],
    "pa.chunked_array([[1], [2]])": [(1,), (2,)],
    "pa.array([1, 2])": [(1,), (2,)],
}


@pytest.mark.parametrize("returned", RETURNED_OF_ONE)
def test_a_returned_list_is_of_rows_or_of_arrow_objects(connection, returned):
    create(connection, "one", "n int64", f"{PRELUDE}def one(): return {returned}\n")
    assert rows(connection, "SELECT * FROM one") == RETURNED_OF_ONE[returned]
    create(connection, "one", "n int64", f"{PRELUDE}def one():\n    yield {returned}\n")
    assert rows(connection, "SELECT * FROM one") == RETURNED_OF_ONE[returned]


def test_arrow_objects_in_a_list_end_at_the_limit(connection):
    create(connection, "shape", "n int64, s string", f"{PRELUDE}{DATA}def shape(): return [pa.table(data)] * 5\n")
    assert value(connection, "SELECT count(*) FROM shape") == 10
    assert rows(connection, "SELECT * FROM shape LIMIT 3") == [*TWO_ROWS, TWO_ROWS[0]]


def test_what_can_be_iterated_is_a_value_of_the_only_array(connection):
    create(connection, "one", "a array(int64)", f"{PRELUDE}def one(): return [pl.Series([1, 2]), [3]]\n")
    assert rows(connection, "SELECT * FROM one") == [([1, 2],), ([3],)]


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("[(1, 'a'), None]", "stream 'shape', row 2: expected a tuple of 2 values"),
        ("[(), (1, 'a')]", "stream 'shape', row 1: expected 2 values (n, s), got 0 values"),
        ("[((1, 'a'), (2, 'b'))]", "stream 'shape', row 1, column 'n' (int64): cannot store (1, 'a') (tuple)"),
        ("pl.Series([1])", "stream 'shape': expected Arrow records with the stream's columns, got an array of Int64"),
        ("pl.DataFrame()", "stream 'shape': expected Arrow records with the stream's columns, got some without any"),
    ],
)
def test_what_a_returned_list_does_not_hold(connection, returned, said):
    create(connection, "shape", "n int64, s string", f"{PRELUDE}def shape(): return {returned}\n")
    assert said in error(connection, "SELECT * FROM shape")


def test_an_interval_of_three_numbers_begins_a_row(connection):
    body = "def spans():\n    yield ((1, 2, 3), 1)\n    yield [((4, 5, 6), 2)]\n    yield {'n': 3, 'i': (7, 8, 9)}\n"
    create(connection, "spans", "i interval, n int64", body)
    assert table(connection, "SELECT * FROM spans").to_pylist() == [
        {"i": (1, 2, 3), "n": 1},
        {"i": (4, 5, 6), "n": 2},
        {"i": (7, 8, 9), "n": 3},
    ]
    create(connection, "spans", "i interval", "def spans():\n    yield ((1, 2, 3),)\n    yield {'i': (4, 5, 6)}\n")
    assert table(connection, "SELECT * FROM spans")["i"].to_pylist() == [(1, 2, 3), (4, 5, 6)]
