"""CREATE FUNCTION with what others' systems call functions: eKuiper's Function, Streamz' nodes; and with packages."""

from importlib.util import find_spec

import pytest
from harness import Server, create, error, queries, query_running, rows, run, value, wait_until, watched

for library in ["ekuiper", "streamz"]:
    if find_spec(library) is None:
        pytest.skip(f"{library} is missing", allow_module_level=True)

TEST_LIMIT = 60.0
MODULE = """
import streamz
from ekuiper.function import Function

three = 3

def plus(n):
    return [value + 1 for value in n]

def upto(n):
    yield from range(n)

def again(rows, n):
    for row in rows:
        yield from [row[0]] * n

class Total:
    def __init__(self):
        self.sum = 0

    def process(self, n):
        self.sum += sum(n)

    def merge(self, other):
        self.sum += other.sum

    def finalize(self):
        return self.sum

class Echo(Function):
    def validate(self, args):
        return ""

    def exec(self, args, ctx):
        return args[0]

    def is_aggregate(self):
        return False

class Longest(Function):
    def exec(self, args, ctx):
        return max((word for word in args[0] if word), key=len, default=None)

    def is_aggregate(self):
        return True

class Alone(Echo):
    def exec(self, args):
        return args[0]

class Constant(Echo):
    is_aggregate = True

class Told(Echo):
    def __init__(self, word):
        self.word = word

class Source(streamz.Source):
    def run(self):
        return None

class Repeat(streamz.Stream):
    def __init__(self, upstream, n, **kwargs):
        super().__init__(upstream, **kwargs)
        self.n = n

    def update(self, x, who=None, metadata=None):
        return [waiting for _ in range(self.n) for waiting in self._emit(x)]
"""
EKUIPER = ["from ekuiper.function import Function", "from couatl.compat.ekuiper import Function"]
STREAMZ = ["from streamz import Stream", "from couatl.compat.streamz import Stream"]
WORDS = "(VALUES (1, 'abc'), (1, NULL), (2, 'ab')) AS words(k, word)"


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("functions")
    (folder / "parts.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        patch.setenv("PYTHONDONTWRITEBYTECODE", "1")
        server = Server(folder)
    yield server
    server.kill()


@pytest.fixture
def connection(running):
    with watched(running, TEST_LIMIT), running.connect() as connection:
        yield connection
        wait_until(lambda: not queries(connection), "the end of all queries")


def function(connection, signature, body, kind="FUNCTION"):
    run(connection, f"CREATE OR REPLACE {kind} {signature} LANGUAGE PYTHON AS $body$\n{body}\n$body$")


def packaged(connection, signature, name, kind="FUNCTION"):
    run(connection, f"CREATE OR REPLACE {kind} {signature} LANGUAGE PYTHON OPTIONS (class '{name}')")


@pytest.mark.parametrize("imported", EKUIPER)
@pytest.mark.parametrize("instance", [False, True])
def test_a_function_of_ekuiper_is_called_for_each_row(connection, imported, instance):
    body = f"""{imported}

class Times(Function):
    def validate(self, args):
        return ""

    def exec(self, args, ctx):
        return None if args[0] is None else args[0] * args[1] + ctx.get_op_id()

    def is_aggregate(self):
        return False

times = {"Times()" if instance else "Times"}
"""
    function(connection, "times(word string, n int) RETURNS string", body)
    found = rows(connection, f"SELECT times(word, 2) FROM {WORDS}")
    assert found == [("abcabcTimes",), (None,), ("ababTimes",)]


LONGEST = """{imported}

class longest(Function):
    def exec(self, args, ctx):
        return max((word for word in args[0] if word), key=len, default=None)

    def is_aggregate(self):
        return True
"""


@pytest.mark.parametrize("imported", EKUIPER)
def test_an_aggregate_of_ekuiper_is_called_for_each_group(connection, imported):
    body = LONGEST.format(imported=imported)
    function(connection, "longest(word string) RETURNS string", body, "AGGREGATE FUNCTION")
    assert value(connection, f"SELECT longest(word) FROM {WORDS}") == "abc"
    assert rows(connection, f"SELECT k, longest(word) FROM {WORDS} GROUP BY k ORDER BY k") == [(1, "abc"), (2, "ab")]
    run(connection, "CREATE OR REPLACE TABLE many AS SELECT value AS n FROM generate_series(1, 20000)")
    run(connection, "SET datafusion.execution.batch_size = 500")
    run(connection, "SET datafusion.execution.target_partitions = 4")
    sql = "SELECT max(length(w)), count(w) FROM (SELECT longest(CAST(n AS TEXT)) AS w FROM many GROUP BY n % 300)"
    assert rows(connection, sql) == [(5, 300)]


def test_an_aggregate_of_ekuiper_over_no_rows(connection):
    body = LONGEST.format(imported=EKUIPER[0])
    function(connection, "longest(word string) RETURNS string", body, "AGGREGATE FUNCTION")
    assert value(connection, f"SELECT longest(word) FROM {WORDS} WHERE k > 9") is None


def test_is_aggregate_has_to_agree_with_the_statement(connection):
    packaged(connection, "echo(word string) RETURNS string", "parts:Echo", "AGGREGATE FUNCTION")
    assert "its is_aggregate() says that it is none: say CREATE FUNCTION" in error(connection, "SELECT echo('x')")
    packaged(connection, "longest(word string) RETURNS string", "parts:Longest")
    told = "its is_aggregate() says that it is one: say CREATE AGGREGATE FUNCTION"
    assert told in error(connection, "SELECT longest('x')")


def test_what_makes_the_object_of_a_group_takes_no_arguments(connection):
    packaged(connection, "plus(n int64) RETURNS int64", "parts:plus", "AGGREGATE FUNCTION")
    told = "expected 'plus' to be called without arguments for the object of a group"
    assert told in error(connection, "SELECT plus(1)")


def test_what_a_function_of_ekuiper_raises_is_told(connection):
    body = f"{EKUIPER[0]}\nclass broken(Function):\n    def exec(self, args, ctx):\n        raise OSError('no sensor')"
    function(connection, "broken(word string) RETURNS string", body)
    assert "'broken' raised OSError: no sensor" in error(connection, "SELECT broken('x')")


@pytest.mark.parametrize(
    ("kind", "signature", "name", "sql", "expected"),
    [
        ("FUNCTION", "part(n int64) RETURNS int64", "plus", "SELECT part(1)", [(2,)]),
        ("FUNCTION", "part(n int64) RETURNS TABLE (n int64)", "upto", "SELECT * FROM part(2)", [(0,), (1,)]),
        (
            "FUNCTION",
            "part(t TABLE, n int64) RETURNS TABLE (n int64)",
            "again",
            "SELECT * FROM part((SELECT 4), 2)",
            [(4,), (4,)],
        ),
        ("AGGREGATE FUNCTION", "part(n int64) RETURNS int64", "Total", "SELECT part(3)", [(3,)]),
        ("FUNCTION", "part(word string) RETURNS string", "Echo", "SELECT part('x')", [("x",)]),
        ("AGGREGATE FUNCTION", "part(word string) RETURNS string", "Longest", "SELECT part('x')", [("x",)]),
        (
            "FUNCTION",
            "part(t TABLE, n int64) RETURNS TABLE (n int64)",
            "Repeat",
            "SELECT * FROM part((SELECT 4), n => 2)",
            [(4,), (4,)],
        ),
    ],
)  # fmt: skip
def test_a_function_of_a_package(connection, kind, signature, name, sql, expected):
    packaged(connection, signature, f"parts:{name}", kind)
    assert rows(connection, sql) == expected
    shown = value(connection, "SHOW CREATE FUNCTION part")
    assert shown == f"CREATE {kind} {signature} LANGUAGE PYTHON OPTIONS (class 'parts:{name}')"
    run(connection, "DROP FUNCTION part")
    run(connection, shown)
    assert rows(connection, sql) == expected


@pytest.mark.parametrize(
    ("kind", "name", "sentence"),
    [
        ("FUNCTION", "Alone", "Alone.exec(self, args) cannot be called as it is; expected exec(self, args, ctx)"),
        ("AGGREGATE FUNCTION", "Alone", "Alone.exec(self, args) cannot be called as it is"),
        (
            "AGGREGATE FUNCTION",
            "Constant",
            "Constant.is_aggregate is True (bool); expected a method",
        ),
        ("FUNCTION", "Told", "Told.__init__(self, word) cannot be called as it is; expected __init__(self)"),
        ("FUNCTION", "Repeat", "expected a function, and class Repeat is a streamz transform"),
    ],
)
def test_a_class_of_a_package_is_checked_at_create(connection, kind, name, sentence):
    sql = f"CREATE {kind} nothing(n int64) RETURNS int64 LANGUAGE PYTHON OPTIONS (class 'parts:{name}')"
    assert sentence in error(connection, sql)


def test_a_node_of_a_package_is_checked_at_create(connection):
    sql = "CREATE FUNCTION nothing(input TABLE) RETURNS TABLE (n int64) LANGUAGE PYTHON OPTIONS (class 'parts:Source')"
    assert "Source" in (said := error(connection, sql)) and "transform" in said


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("parts:nosuch", "module 'parts' has no function 'nosuch'"),
        ("nosuch:plus", "there is no module 'nosuch' in "),
        ("nosuch", "no function is registered as 'nosuch'; SHOW CONNECTORS lists what there is"),
        ("parts:three", "is not callable: it is of type int"),
    ],
)
def test_what_a_package_has_not_is_told_at_create(connection, name, sentence):
    sql = f"CREATE FUNCTION nothing(n int64) RETURNS int64 LANGUAGE PYTHON OPTIONS (class '{name}')"
    assert sentence in error(connection, sql)
    assert "there is no function 'nothing'" in error(connection, "DROP FUNCTION nothing")


REPEAT = """{imported}

class Repeat(Stream):
    def __init__(self, upstream, n, **kwargs):
        super().__init__(upstream, **kwargs)
        self.n = n

    def update(self, x, who=None, metadata=None):
        return [waiting for _ in range(self.n) for waiting in self._emit(x)]

repeated = Repeat
"""


@pytest.mark.parametrize("imported", STREAMZ)
def test_a_node_of_streamz_is_a_transform(connection, imported):
    body = REPEAT.format(imported=imported)
    function(connection, "repeated(elements TABLE, n int64) RETURNS TABLE (n int64)", body)
    numbers = "(SELECT n FROM (VALUES (1), (2)) AS numbers(n))"
    assert rows(connection, f"SELECT n FROM repeated({numbers}, n => 2)") == [(1,), (1,), (2,), (2,)]
    assert rows(connection, f"SELECT n FROM repeated(n => 1, elements => {numbers})") == [(1,), (2,)]
    assert rows(connection, f"SELECT n FROM repeated({numbers}, ?)", (1,)) == [(1,), (2,)]
    assert rows(connection, "SELECT n FROM repeated((SELECT 1 WHERE false), 2)") == []


def test_a_node_of_streamz_over_a_stream_gives_rows_as_they_come(running, connection):
    body = "import time\ndef ticks():\n    yield 1\n    while True:\n        time.sleep(0.01)"
    create(connection, "ticks", "n int64", body, mode="streaming")
    function(
        connection, "repeated(elements TABLE, n int64) RETURNS TABLE (n int64)", REPEAT.format(imported=STREAMZ[0])
    )
    assert rows(connection, "SELECT n FROM repeated(ticks, 2) LIMIT 2") == [(1,), (1,)]
    with running.connect() as calling, calling.cursor() as cursor:
        cursor.execute("SELECT n FROM repeated(ticks, 1)")
        assert cursor.fetchone() == (1,)
        run(connection, f"KILL QUERY '{query_running(connection, 'repeated(ticks, 1)')}'")
        with pytest.raises(calling.Error, match=r"(?i)cancel"):
            cursor.fetchone()


@pytest.mark.parametrize(
    ("signature", "node", "sql", "expected"),
    [
        ("node(t TABLE, pick string)", "pluck", "SELECT v FROM node((SELECT 1 AS a, 2 AS b), 'b')", [(2,)]),
        ("node(t TABLE, pick string)", "pluck", 'SELECT v FROM node((SELECT 1 AS a, 2 AS "class"), \'class\')', [(2,)]),
    ],
)  # fmt: skip
def test_an_element_is_a_value_or_a_dict(connection, signature, node, sql, expected):
    function(connection, f"{signature} RETURNS TABLE (v int64)", f"from streamz.core import {node} as node")
    assert rows(connection, sql) == expected


def test_a_pipeline_of_streamz_is_a_transform(connection):
    body = "from streamz import Stream\nbigger = Stream().map(lambda n: n + 1).filter(lambda n: n > 2)"
    function(connection, "bigger(t TABLE) RETURNS TABLE (n int64)", body)
    assert rows(connection, "SELECT n FROM bigger((SELECT n FROM (VALUES (1), (2)) AS numbers(n)))") == [(3,)]


def test_what_is_wrong_with_a_node_is_told(connection):
    update = "def update(self, x, who=None, metadata=None): raise OSError('mine')"
    body = f"from streamz import Stream\nclass node(Stream):\n    {update}"
    function(connection, "node(t TABLE) RETURNS TABLE (n int64)", body)
    assert "'node' raised OSError: mine" in error(connection, "SELECT n FROM node((SELECT 1))")
    function(connection, "node(t TABLE, depth int64) RETURNS TABLE (n int64)", body)
    assert "node: there is no option 'depth'" in error(connection, "SELECT n FROM node((SELECT 1), 1)")
