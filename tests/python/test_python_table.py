"""Python functions as tables of a ``datafusion.SessionContext``."""

import _thread
import ast
import asyncio
import ctypes
import datetime
import doctest
import gc
import itertools
import subprocess
import sys
import textwrap
import threading
import uuid
import weakref
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import couatl
import pyarrow
import pyarrow.compute
import pytest
from couatl import PythonTable, exceptions
from couatl.sinks import Sink
from couatl.sources import Source
from harness import PATIENCE, wait_until

datafusion = pytest.importorskip("datafusion")

STUB = Path(couatl.__file__).parent / "_couatl.pyi"
MANY = 16_000
PARTITIONS = 16


def context_with(tables, partitions=4):
    """A session of DataFusion's own package, with tables."""
    context = datafusion.SessionContext(datafusion.SessionConfig().with_target_partitions(partitions))
    for name, table in tables.items():
        context.register_table(name, table)
    return context


def answer(context, sql):
    return context.sql(sql).to_pydict()


def refusal(context, sql):
    """The text of the error that a query ends with."""
    with pytest.raises(Exception, match=r"^(DataFusion error|Schema error|Error during planning)") as caught:
        answer(context, sql)
    return str(caught.value)


@pytest.fixture(autouse=True)
def nothing_is_left():
    """After each test no thread runs Python but those that the test began with."""
    before = set(sys._current_frames())
    yield
    wait_until(lambda: not set(sys._current_frames()) - before, "the end of all threads in Python")
    wait_until(lambda: couatl.cancel_all(0) == 0, "the end of all scans and writes")


class Endless:
    """A read function that never comes to its end, and what is told when it is closed."""

    def __init__(self):
        self.begun, self.ended = threading.Event(), threading.Event()

    def read(self):
        try:
            for n in itertools.count():
                yield n
                self.begun.set()
        finally:
            self.ended.set()


def test_its_example_runs():
    (described,) = [node for node in ast.parse(STUB.read_text()).body if getattr(node, "name", "") == "PythonTable"]
    example = doctest.DocTestParser().get_doctest(ast.get_docstring(described), {}, "PythonTable", str(STUB), 0)
    done = doctest.DocTestRunner().run(example)
    assert done.attempted > 0 and done.failed == 0


def test_rows_are_read_filtered_and_counted():
    squares = PythonTable("n int64, square int64", read=lambda: [(n, n * n) for n in range(1000)])
    context = context_with({"squares": squares})
    assert answer(context, "SELECT count(*) AS n, sum(square) AS sum FROM squares WHERE n % 2 = 0") == {
        "n": [500],
        "sum": [166_167_000],
    }
    assert answer(context, "SELECT square FROM squares WHERE n = 7") == {"square": [49]}
    assert answer(context, "SELECT square, n FROM squares ORDER BY n DESC LIMIT 2") == {
        "square": [998_001, 996_004],
        "n": [999, 998],
    }
    assert answer(context, "SELECT n FROM squares WHERE square > 10 ORDER BY n LIMIT 1 OFFSET 1") == {"n": [5]}
    assert context.table("squares").count() == 1000


VALUES = {
    "bool": True,
    "int8": -128,
    "int64": -(2**63),
    "uint64": 2**64 - 1,
    "float32": 1.5,
    "float64": 0.1,
    "decimal(10, 2)": Decimal("1.23"),
    "string": "é\0",
    "binary": b"\0\xff",
    "date": datetime.date(1969, 12, 31),
    "time": datetime.time(1, 2, 3, 4),
    "timestamp": datetime.datetime(2026, 1, 2, 3, 4, 5, 678901),
    "timestamp with time zone": datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc),
    "interval": datetime.timedelta(days=1, seconds=1),
    "uuid": uuid.UUID(int=5),
    "json": {"k": [1, None]},
    "array(int64)": [1, None],
    "map(string, int64)": {"a": 1, "b": None},
    "tuple(a int64, b string)": (1, None),
}


@pytest.mark.parametrize("kind", VALUES)
def test_values_of_each_type_are_read_and_written(kind):
    got, rows = [], [(VALUES[kind],), (None,)]
    table = PythonTable(f"value {kind}", read=lambda: rows, write=got.extend)
    context = context_with({"source": table, "sink": table})
    assert answer(context, "SELECT count(value) AS n FROM source") == {"n": [1]}
    assert answer(context, "INSERT INTO sink SELECT value FROM source") == {"count": [2]}
    assert got == [VALUES[kind], None]


@pytest.mark.parametrize("mode", ["streaming", "auto"])
def test_a_limit_ends_a_generator_that_has_no_end(mode):
    endless = Endless()
    context = context_with({"numbers": PythonTable("n int64", read=endless.read, mode=mode)})
    assert answer(context, "SELECT n FROM numbers LIMIT 3") == {"n": [0, 1, 2]}
    assert endless.ended.wait(PATIENCE)


def test_a_table_knows_whether_it_ends():
    endless = Endless()
    tables = {
        "stream": PythonTable("n int64", read=endless.read, mode="streaming"),
        "unknown": PythonTable("n int64", read=lambda: iter(range(3))),
        "batch": PythonTable("n int64", read=endless.read, mode="batch"),
    }
    context = context_with(tables)
    assert "pipeline breaking" in refusal(context, "SELECT sum(n) FROM stream")
    assert answer(context, "SELECT sum(n) AS sum FROM unknown") == {"sum": [3]}
    assert answer(context, "SELECT sum(n) AS sum FROM (SELECT n FROM stream LIMIT 4)") == {"sum": [6]}
    assert "as mode 'batch' says, got a generator" in refusal(context, "SELECT n FROM batch")


def test_rows_that_nobody_wants_any_more_end_their_generator():
    endless = Endless()
    context = context_with({"numbers": PythonTable("n int64", read=endless.read, mode="streaming")})
    batches = context.table("numbers").execute_stream()
    assert next(iter(batches)).to_pyarrow().column(0)[0].as_py() == 0
    del batches
    gc.collect()
    assert endless.ended.wait(PATIENCE)


class Parts(Source):
    def partitions(self):
        return ["a", "b", "c"]

    def open(self, partition, state):
        yield from ((n, partition) for n in range(1000))


def test_a_source_is_read():
    context = context_with({"parts": PythonTable("n int64, part string", read=Parts)})
    assert answer(context, "SELECT part, count(*) AS rows, sum(n) AS sum FROM parts GROUP BY part ORDER BY part") == {
        "part": ["a", "b", "c"],
        "rows": [1000] * 3,
        "sum": [499_500] * 3,
    }


def test_a_sink_is_committed_or_aborted():
    log, rows = [], []

    class Kept(Sink):
        def write(self, n, part):
            rows.extend(zip(n, part))

        def commit(self):
            log.append("commit")

        def abort(self):
            log.append("abort")

        def close(self):
            log.append("close")

    def failing():
        yield 1, "a"
        raise ValueError("boom")

    tables = {
        "parts": PythonTable("n int64, part string", read=Parts),
        "failing": PythonTable("n int64, part string", read=failing),
        "kept": PythonTable("n int64, part string", write=Kept),
    }
    context = context_with(tables)
    assert answer(context, "INSERT INTO kept SELECT n, part FROM parts") == {"count": [3000]}
    assert sorted(rows) == sorted((n, part) for n in range(1000) for part in "abc")
    assert log == ["commit", "close"]
    assert "ValueError: boom" in refusal(context, "INSERT INTO kept SELECT n, part FROM failing")
    assert log[2:] == ["abort", "close"]


def test_tables_are_joined():
    names = PythonTable("n int64, name string", read=lambda: [(1, "one"), (2, "two"), (3, None)])
    squares = PythonTable("n int64, square int64", read=lambda: [(n, n * n) for n in range(3)])
    context = context_with({"names": names, "squares": squares})
    joined = "SELECT name, square FROM names JOIN squares USING (n) ORDER BY n"
    assert answer(context, joined) == {"name": ["one", "two"], "square": [1, 4]}
    outer = "SELECT name FROM names LEFT JOIN squares USING (n) WHERE square IS NULL"
    assert answer(context, outer) == {"name": [None]}
    own = "SELECT a.n FROM names a JOIN names b ON a.n = b.n ORDER BY 1"
    assert answer(context, own) == {"n": [1, 2, 3]}


INPUTS = {
    "scan": "SELECT n FROM many",
    "filter": "SELECT n FROM many WHERE n >= 0",
    "aggregate": "SELECT n FROM many GROUP BY n",
    "distinct": "SELECT DISTINCT n FROM (SELECT n FROM many UNION ALL SELECT n FROM many)",
    "join": "SELECT a.n FROM many a JOIN many b ON a.n = b.n",
    "sort": "SELECT n FROM many ORDER BY n DESC",
    "top": f"SELECT n FROM many ORDER BY n LIMIT {MANY}",
    "union": f"SELECT n FROM many WHERE n < {MANY // 2} UNION ALL SELECT n FROM many WHERE n >= {MANY // 2}",
    "window": "SELECT row_number() OVER (ORDER BY n) - 1 FROM many",
    "windows": "SELECT max(n) OVER (PARTITION BY n) FROM many",
    "table": "SELECT n FROM parts",
    "tables": "SELECT a.n FROM parts a JOIN many b ON a.n = b.n",
}


class Numbers(Source):
    """As many rows as there are in a table of many partitions."""

    def partitions(self):
        return [str(part) for part in range(PARTITIONS)]

    def open(self, partition, state):
        step = MANY // PARTITIONS
        yield from range(int(partition) * step, (int(partition) + 1) * step)


def with_many(context):
    """The session, with a table that has many partitions."""
    step = MANY // PARTITIONS
    batches = [[pyarrow.record_batch({"n": list(range(at, at + step))})] for at in range(0, MANY, step)]
    context.register_record_batches("many", batches)
    return context


@pytest.mark.parametrize("partitions", [1, 8])
@pytest.mark.parametrize("shape", INPUTS)
def test_every_row_is_written_once(shape, partitions):
    got, threads = [], set()

    def write(n):
        threads.add(threading.get_ident())
        got.extend(n)

    tables = {"sink": PythonTable("n int64", write=write), "parts": PythonTable("n int64", read=Numbers)}
    context = with_many(context_with(tables, partitions))
    assert answer(context, f"INSERT INTO sink {INPUTS[shape]}") == {"count": [MANY]}
    assert sorted(got) == list(range(MANY))
    assert len(threads) == 1


def test_nothing_is_written_where_there_is_nothing():
    got = []
    context = with_many(context_with({"sink": PythonTable("n int64", write=got.append)}))
    assert answer(context, "INSERT INTO sink SELECT n FROM many WHERE n < 0") == {"count": [0]}
    assert sum(map(len, got)) == 0
    assert answer(context, "INSERT INTO sink VALUES (1), (2)") == {"count": [2]}
    assert [n for block in got for n in block] == [1, 2]


@pytest.mark.parametrize("partitions", [1, 8])
@pytest.mark.parametrize("table", ["many", "parts"])
def test_rows_are_written_in_the_order_that_was_asked_for(table, partitions):
    got = []
    tables = {
        "sink": PythonTable("part int64, n int64", write=lambda part, n: got.extend(zip(part, n))),
        "parts": PythonTable("n int64", read=Numbers),
    }
    context = with_many(context_with(tables, partitions))
    insert = f"INSERT INTO sink SELECT n % 7 AS part, n FROM {table} ORDER BY part DESC, n"
    assert answer(context, insert) == {"count": [MANY]}
    assert got == sorted(((n % 7, n) for n in range(MANY)), key=lambda row: (-row[0], row[1]))


def failing_read():
    yield 1
    raise ValueError("boom")


def failing_write(n):
    raise ValueError("full")


@pytest.fixture
def faulty():
    """A session with tables that cannot do what they are asked for."""
    return context_with(
        {
            "failing": PythonTable("n int64", read=failing_read, write=failing_write),
            "named": PythonTable("n int64", read=failing_read, name="Tides"),
            "unfit": PythonTable("n int64", read=lambda: [1, "high"]),
            "required": PythonTable("n int64 NOT NULL", read=lambda: [1, None], write=lambda n: None),
            "readable": PythonTable("n int64", read=lambda: [1]),
            "writable": PythonTable("n int64", write=print),
        }
    )


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT n FROM failing", ["read function 'failing_read' raised ValueError: boom", 'raise ValueError("boom")']),
        ("SELECT n FROM named", ["stream 'Tides': read function 'failing_read' raised ValueError: boom"]),
        ("SELECT n FROM unfit", ["row 2, column 'n' (int64): cannot store 'high' (str)"]),
        ("SELECT n FROM required", ["row 2, column 'n' (int64): cannot store None: the column is NOT NULL"]),
        ("SELECT n FROM writable", ["stream 'print' has no read function"]),
        (
            "INSERT INTO failing VALUES (1)",
            ["write function 'failing_write' raised ValueError: full", "had accepted 0 rows before"],
        ),
        (
            "INSERT INTO required SELECT CASE WHEN value <> 2 THEN value END FROM generate_series(1, 3)",
            ["row 2 of the INSERT, column 'n' (int64): cannot store NULL: the column is NOT NULL"],
        ),
        ("INSERT INTO readable VALUES (1)", ["has no write function"]),
        ("INSERT OVERWRITE writable VALUES (1)", ["takes INSERT INTO alone"]),
        ("SELECT m FROM readable", ["No field named m"]),
    ],
)
def test_what_fails_says_so(faulty, sql, expected):
    found = refusal(faulty, sql)
    assert [sentence for sentence in expected if sentence not in found] == [], found
    assert answer(faulty, "SELECT n FROM readable") == {"n": [1]}


@pytest.mark.parametrize(
    ("arguments", "error", "expected"),
    [
        ({}, TypeError, r"expected read, write, or both: callables, or classes of couatl.sources and sinks$"),
        ({"read": None, "write": None}, TypeError, r"expected read, write, or both"),
        ({"read": list, "mode": "never"}, exceptions.ProgrammingError, r"mode must be 'auto' or .* found 'never'"),
        ({"columns": "n strng", "read": list}, exceptions.ProgrammingError, r"unknown type 'strng'.*'string'\?$"),
        ({"columns": "n int64, n int64", "read": list}, exceptions.ProgrammingError, r"two columns are named 'n'"),
        ({"columns": "", "read": list}, exceptions.ProgrammingError, r"expected the name of a column"),
        ({"read": 3}, exceptions.ProgrammingError, r"is not callable: it is of type int$"),
        ({"write": "x"}, exceptions.ProgrammingError, r"is not callable: it is of type str$"),
        (
            {"read": failing_write},
            exceptions.ProgrammingError,
            r"'failing_write\(n\)' cannot be called with 0 positional",
        ),
        ({"write": failing_read}, exceptions.ProgrammingError, r"'failing_read' is a generator"),
        ({"columns": 3, "read": list}, TypeError, r"'int' object is not an instance of 'str'"),
    ],
)
def test_what_a_table_cannot_be_made_of(arguments, error, expected):
    with pytest.raises(error, match=expected):
        PythonTable(**{"columns": "n int64", **arguments})


# What DataFusion hands over

NAME = b"datafusion_logical_extension_codec"
VERSION_OFFSET, CODEC_BYTES = 120, 144
GETS_VERSION = ctypes.CFUNCTYPE(ctypes.c_uint64)


def capsule(pointer, name):
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return new(pointer, name, None)


def pointer_of(held):
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return get(held, NAME)


class Other:
    """A session of something else."""

    def __init__(self, codec):
        self.codec = codec

    def __datafusion_logical_extension_codec__(self):
        return self.codec


def test_a_session_of_another_version_is_refused():
    theirs = datafusion.SessionContext().__datafusion_logical_extension_codec__()
    codec = ctypes.create_string_buffer(ctypes.string_at(pointer_of(theirs), CODEC_BYTES), CODEC_BYTES)
    place = ctypes.addressof(codec) + VERSION_OFFSET
    version = GETS_VERSION.from_address(place)()
    assert version == int(datafusion.__version__.partition(".")[0])
    older = GETS_VERSION(lambda: version - 1)
    ctypes.memmove(place, ctypes.byref(older), ctypes.sizeof(older))
    table = PythonTable("n int64", read=list)
    expected = rf"^this couatl is for DataFusion {version}, and the session is of DataFusion {version - 1}: install "
    with pytest.raises(ValueError, match=expected):
        table.__datafusion_table_provider__(Other(capsule(ctypes.addressof(codec), NAME)))


ANYTHING = ctypes.create_string_buffer(8)


@pytest.mark.parametrize(
    ("session", "error", "expected"),
    [
        (3, (AttributeError, TypeError), "__datafusion_logical_extension_codec__|PyCapsule"),
        (Other(3), TypeError, "PyCapsule"),
        (Other(None), TypeError, "PyCapsule"),
        (Other(capsule(ctypes.addressof(ANYTHING), b"other")), ValueError, "incorrect name"),
        (Other(capsule(ctypes.addressof(ANYTHING), None)), ValueError, "incorrect name"),
    ],
)
def test_what_is_no_session_is_refused(session, error, expected):
    with pytest.raises(error, match=expected):
        PythonTable("n int64", read=list).__datafusion_table_provider__(session)


def test_a_table_goes_into_a_schema():
    context = datafusion.SessionContext()
    schema = context.catalog().schema("public")
    schema.register_table("squares", PythonTable("square int64", read=lambda: [4, 9]))
    assert answer(context, "SELECT sum(square) AS sum FROM squares") == {"sum": [13]}
    assert context.read_table(PythonTable("n int64", read=lambda: [1])).to_pydict() == {"n": [1]}
    context.deregister_table("squares")
    assert "squares' not found" in refusal(context, "SELECT square FROM squares")


# Threads, and the end


def test_many_queries_run_at_once():
    written = []
    tables = {
        "numbers": PythonTable("n int64", read=lambda: list(range(1000))),
        "parts": PythonTable("n int64, part string", read=Parts),
        "sink": PythonTable("n int64", write=written.extend),
    }
    context = context_with(tables)

    def ask(number):
        total = answer(context, f"SELECT sum(n) + {number} AS sum FROM numbers JOIN parts USING (n)")["sum"]
        return total, answer(context, "INSERT INTO sink SELECT n FROM numbers")["count"]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(32)))
    assert found == [([3 * 499_500 + number], [1000]) for number in range(32)]
    assert sorted(written) == sorted(list(range(1000)) * 32)


def test_a_read_function_asks_the_session_that_it_is_in():
    context = context_with({"numbers": PythonTable("n int64", read=lambda: list(range(10)))})
    nested = PythonTable("n int64", read=lambda: answer(context, "SELECT sum(n) AS n FROM numbers")["n"])
    context.register_table("nested", nested)
    assert answer(context, "SELECT n FROM nested") == {"n": [45]}


def test_a_read_goes_on_beside_functions_of_the_session():
    add = datafusion.udf(
        lambda n: pyarrow.compute.add(n, 1), [pyarrow.int64()], pyarrow.int64(), "immutable", name="next_one"
    )
    got = []
    context = context_with(
        {"sink": PythonTable("n int64", write=got.extend), "parts": PythonTable("n int64", read=Numbers)}
    )
    context.register_udf(add)
    assert answer(context, "INSERT INTO sink SELECT next_one(n) FROM parts") == {"count": [MANY]}
    assert sorted(got) == list(range(1, MANY + 1))


def test_batches_are_awaited():
    async def count():
        context = context_with({"parts": PythonTable("n int64", read=Numbers)})
        batches = context.table("parts").execute_stream()
        return sum([batch.to_pyarrow().num_rows async for batch in batches])

    assert asyncio.run(count()) == MANY


def test_ctrl_c_ends_a_query():
    endless = Endless()
    context = context_with({"numbers": PythonTable("n int64", read=endless.read)})

    def interrupt():
        assert endless.begun.wait(PATIENCE)
        _thread.interrupt_main()

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    with pytest.raises(KeyboardInterrupt):
        answer(context, "SELECT n FROM numbers WHERE n < 0")
    interrupting.join(PATIENCE)
    assert endless.ended.wait(PATIENCE)


def test_a_table_lets_go_of_its_functions():
    def made():
        def read():
            return [1]

        context = context_with({"numbers": PythonTable("n int64", read=read)})
        assert answer(context, "SELECT n FROM numbers") == {"n": [1]}
        return weakref.ref(read)

    def is_gone():
        # What is let go of without the interpreter is so when it is next had.
        answer(context_with({"other": PythonTable("n int64", read=lambda: [1])}), "SELECT n FROM other")
        gc.collect()
        return read() is None

    read = made()
    wait_until(is_gone, "the end of the function")


def test_a_program_ends_while_a_query_runs():
    program = """
    import datafusion, itertools
    from couatl import PythonTable

    context = datafusion.SessionContext()
    context.register_table("numbers", PythonTable("n int64", read=itertools.count))
    rows = context.sql("SELECT n FROM numbers").execute_stream()
    next(iter(rows))
    print("ends")
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ends\n", "")


def test_a_session_that_does_not_say_what_it_is_is_refused():
    """Those before DataFusion 52 give nothing to ask."""
    with pytest.raises(
        ValueError, match=r"^this couatl is for DataFusion \d+, and the session is of an older one: install "
    ):
        PythonTable("n int64", read=list).__datafusion_table_provider__()
