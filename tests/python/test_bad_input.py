"""Bad input ends in an error that says what to do. After each the server answers and runs nothing (see conftest)."""

import textwrap
import threading
from pathlib import Path

import pytest
from harness import create, error, queries, rows, run, table, value, wait_until


def refused(connection, body, columns="n int32", settings="type = 'python'", name="bad"):
    run(connection, f"DROP STREAM IF EXISTS {name}")
    body = textwrap.dedent(body).strip("\n")
    return error(connection, f"CREATE EXTERNAL STREAM {name} ({columns})\nAS $$\n{body}\n$$\nSETTINGS {settings}")


def failing(connection, columns, body, sql="SELECT * FROM bad", **settings):
    """The error of a query on a stream that could be created."""
    create(connection, "bad", columns, body, **settings)
    return error(connection, sql)


# --- statements ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("CREATE EXTERNAL STREM s (a int)", "expected STREAM or TABLE after EXTERNAL, found 'STREM'"),
        ("CREATE EXTERNAL STREAM s (a int) AS $$ x", "is not closed"),
        ("CREATE EXTERNAL STREAM s () AS $$ $$ SETTINGS type = 'python'", "no columns"),
        ("CREATE EXTERNAL STREAM s (a int, A int) AS $$ $$ SETTINGS type = 'python'", "two columns are named"),
        ("CREATE EXTERNAL STREAM s (a strng) AS $$ $$ SETTINGS type = 'python'", "did you mean 'string'?"),
        ("CREATE EXTERNAL STREAM s (a int) AS $$ $$", "type"),
        ("CREATE EXTERNAL STREAM s (a int) AS $$ $$ SETTINGS type = 'kafka'", "python"),
        ("CREATE EXTERNAL STREAM s (a int) AS $$ $$ SETTINGS type = 'python', mode = 'fast'", "streaming"),
        ("CREATE EXTERNAL STREAM s (a int) AS $$ $$ SETTINGS type = 'python', mod = 'auto'", "did you mean 'mode'?"),
        ("CREATE EXTERNAL STREAM s (a int) AS $$ $$ SETTINGS type = 'python', type = 'python'", "type"),
        ("CREATE EXTERNAL STREAM s (a int) AS $$ $$ SETTINGS type = 'python', batch_size = 0", "batch_size"),
        ("CREATE EXTERNAL STREAM s (a int) AS $$ $$ SETTINGS type = 'python', batch_size = 'many'", "batch_size"),
        ("CREATE EXTERNAL STREAM s (a int) AS $$ $$ SETTINGS type = 'python', linger_ms = -1", "linger_ms"),
        (
            "CREATE EXTERNAL STREAM s (a int) AS $$ $$ SETTINGS type = 'python', init_function_parameters = 'x'",
            "Setting 'init_function_parameters' requires 'init_function_name' to be configured",
        ),
        ("DROP STREAM nowhere", "no stream 'nowhere'"),
        ("SHOW CREATE STREAM nowhere", "nowhere"),
        ("SELECT * FROM nowhere", "nowhere"),
        ("INSERT INTO nowhere VALUES (1)", "nowhere"),
        ("SELEC 1", "SELEC"),
    ],
)
def test_statement_is_refused(connection, statement, said):
    assert said in error(connection, statement)


def test_names_are_taken_once(connection):
    create(connection, "taken", "n int32", "def taken():\n    return [1]\n")
    statement = "EXTERNAL STREAM {} taken (n int32) AS $$\ndef taken():\n    return [2]\n$$ SETTINGS type = 'python'"
    assert "exists already" in error(connection, "CREATE " + statement.format(""))
    run(connection, "CREATE " + statement.format("IF NOT EXISTS"))
    assert rows(connection, "SELECT * FROM taken") == [(1,)]
    run(connection, "CREATE OR REPLACE " + statement.format(""))
    assert rows(connection, "SELECT * FROM taken") == [(2,)]


# --- bodies, at CREATE --------------------------------------------------------------------------------------------


def test_body_with_a_syntax_error_shows_its_line_in_the_statement(connection):
    said = refused(connection, "import time\n\ndef bad(:\n    pass")
    assert "line 5" in said
    assert "def bad(:" in said


@pytest.mark.parametrize("body", ["def bad():\nreturn 1", "x = (", "'", "def bad():\n\tif 1:\n        pass"])
def test_body_that_does_not_compile(connection, body):
    assert "stream 'bad'" in refused(connection, body)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("read_function_name = 'raed'", "read"),
        ("read_function_name = 'nothing'", "nothing"),
        ("write_function_name = 'nothing'", "nothing"),
        ("init_function_name = 'nothing'", "nothing"),
        ("deinit_function_name = 'nothing'", "nothing"),
        ("write_function_name = 'read'", "argument"),
        ("read_function_name = 'two'", "argument"),
        ("init_function_name = 'two'", "argument"),
        ("deinit_function_name = 'two'", "argument"),
    ],
)
def test_functions_are_checked_without_running_the_body(connection, settings, said):
    body = "1 / 0\n\ndef read():\n    return []\n\ndef two(a, b):\n    pass\n"
    assert said in refused(connection, body, settings=f"type = 'python', {settings}")


@pytest.mark.parametrize("body", ["async def bad(n = 0): return [1]", "async def bad(n = 0):\n    yield 1"])
def test_asynchronous_functions_are_refused(connection, body):
    for mode in ["auto", "streaming", "batch"]:
        assert "is asynchronous" in refused(connection, body, settings=f"type = 'python', mode = '{mode}'")


def test_functions_that_are_bound_somehow_are_accepted(connection):
    for body in [
        "from os import getcwd as bad",
        "bad = lambda: [1]",
        "class bad:\n    def __iter__(self): return iter([1])",
        "if True:\n    def bad(): return [1]\nelse:\n    bad = None",
        "try:\n    from os import nothing as bad\nexcept ImportError:\n    def bad(): return [1]",
        "from os.path import *",
        "with open('/dev/null') as bad: pass",
        "for bad in (): pass",
        "(bad := list)",
        "bad, other = list, dict",
    ]:
        create(connection, "bad", "n int32", body)
    run(connection, "DROP STREAM bad")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("f = lambda a: None", "takes 1 positional argument, and is called with 2"),
        ("f = g = lambda: None", "takes 0 positional arguments"),
        ("f: object = lambda a, b, c: None", "takes 3 positional arguments"),
        ("f = lambda a, b, *, c: None", "requires the keyword argument 'c'"),
        ("class f: pass", "takes 0 positional arguments"),
        ("class f:\n    def __init__(self, a): pass", "takes 1 positional argument, and"),
        ("class f:\n    def __init__(self, a, b, c, d=1): pass", "takes 3 to 4 positional arguments"),
        ("class f:\n    def __init__(self, *, a): pass", "requires the keyword argument 'a'"),
        ("def f(a, b): pass\ndel f", "does not define the write function 'f'"),
        ("f = g = 1\ndel (g, f)", "does not define the write function 'f'"),
        ("f: object", "does not define the write function 'f'"),
    ],
)
def test_a_write_function_that_cannot_fit_is_refused_at_create(connection, body, said):
    assert said in refused(connection, body, "a int32, b int32", "type = 'python', write_function_name = 'f'")


@pytest.mark.parametrize(
    "body",
    [
        "f = lambda a, b: None",
        "f = lambda *columns: None",
        "f, g = map, lambda: None",
        "f = lambda: None\nf = print",
        "class f:\n    def __init__(self, a, b=1): pass",
        "class f:\n    def __init__(*arguments): pass",
        "class f:\n    def __new__(cls, a, b): pass",
        "class f(dict): pass",
        "class f(metaclass=type): pass",
        "class f:\n    __init__ = print",
        "class f:\n    if True:\n        def __init__(self, a, b): pass\n    else:\n        def __init__(self): pass",
        "import dataclasses\n@dataclasses.dataclass\nclass f:\n    a: int\n    b: int",
        "def f(a, b): pass\nif False:\n    del f",
        "f = 1\ndel f\ndef f(a, b): pass",
        "f: object\nf = print",
        "x: (f := print)",
    ],
)
def test_a_write_function_that_may_fit_is_accepted(connection, body):
    create(connection, "bad", "a int32, b int32", body, write_function_name="f")
    run(connection, "DROP STREAM bad")


# --- bodies, at a query -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("import nothing_of_this_name\ndef bad(): return [1]", "ModuleNotFoundError"),
        ("def bad(): return [1]\n1 / 0", "ZeroDivisionError"),
        ("raise SystemExit(3)\ndef bad(): return [1]", "SystemExit"),
        ("def bad(): return [1]\nimport sys; sys.exit()", "SystemExit"),
        ("raise KeyboardInterrupt\ndef bad(): return [1]", "KeyboardInterrupt"),
        ("from os.path import *", "bad"),
        ("bad = 5", "int"),
        ("bad = None", "None"),
        ("def bad(): raise SystemExit(3)", "SystemExit"),
        ("def bad(): raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("def bad(): raise BaseException('base')", "base"),
        ("def bad():\n    return bad()", "RecursionError"),
        ("def bad():\n    yield 1\n    raise SystemExit(3)", "SystemExit"),
        ("def bad():\n    yield 1\n    raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("def bad():\n    yield 1\n    raise GeneratorExit", "GeneratorExit"),
        ("def bad():\n    yield 1\n    def deep(): return deep()\n    deep()", "RecursionError"),
        ("def bad():\n    yield 1\n    raise StopIteration", "StopIteration"),
        ("class Odd(Exception):\n    def __str__(self): 1 / 0\ndef bad(): raise Odd()", "Odd"),
        ("class Odd(Exception):\n    def __str__(self): return 5\ndef bad(): raise Odd()", "Odd"),
        ("def bad(): raise ValueError('x' * 10_000_000)", "ValueError"),
        ("def bad(): raise ValueError('\\ud800 \\0 é\\n\\r')", "ValueError"),
        ("def bad(): raise ExceptionGroup('many', [ValueError('a'), KeyError('b')])", "many"),
        ("def bad(): return later()\nasync def later(): return [1]", "coroutine"),
        ("def bad(): return later()\nasync def later():\n    yield 1", "async"),
        ("def bad(): return 5", "int"),
        ("def bad(): return None", "None"),
        ("def bad(): return 'text'", "str"),
        ("def bad(): return {'n': 1}", "dict"),
        ("def bad(): return bad", "function"),
        ("class bad:\n    def __iter__(self): 1 / 0", "ZeroDivisionError"),
        ("class bad:\n    def __iter__(self): return 5", "TypeError"),
        ("class bad:\n    def __iter__(self): return self\n    def __next__(self): 1 / 0", "ZeroDivisionError"),
        ("class bad:\n    def __getattr__(self, name): raise SystemExit(name)", "bad"),
        # What Python does not take for an iterator is none.
        ("class bad:\n    def __init__(self): self.__next__ = lambda: 1", "expected"),
        ("def bad(): raise ValueError('a' + chr(0) + 'b')", "in bad"),
    ],
)
def test_query_fails(connection, body, said):
    assert said in failing(connection, "n int32", body)


def test_init_and_deinit_that_raise(connection):
    body = "def bad(): return [1]\ndef fail(): raise SystemExit('in fail')\n"
    assert "in fail" in failing(connection, "n int32", body, init_function_name="fail")
    assert "in fail" in failing(connection, "n int32", body, deinit_function_name="fail")


def test_traceback_shows_the_statements_lines(connection):
    said = failing(
        connection, "n int32", "def bad():\n    yield 1\n    helper()\n\ndef helper():\n    raise ValueError('boom')"
    )
    for part in ["line 4, in bad", "helper()", "line 7, in helper", "raise ValueError('boom')", "ValueError: boom"]:
        assert part in said


def test_traceback_shows_the_bodys_classes_as_a_scripts(connection):
    body = """
    import inspect, pickle, typing

    class Bad(Exception):
        column: "Other"

    class Other(Exception):
        class Inner(Exception):
            pass

    def bad():
        assert typing.get_type_hints(Bad) == {"column": Other}
        assert inspect.getmodule(Bad).Other is pickle.loads(pickle.dumps(Other))
        try:
            raise Other.Inner("within")
        except Exception as error:
            raise Bad("boom", Other()) from error
    """
    said = failing(connection, "n int32", body)
    assert "couatl_stream" not in said
    assert "read function 'bad' raised Bad: ('boom', Other())" in said
    assert "\nOther.Inner: within\n" in said
    assert "\nBad: ('boom', Other())" in said


@pytest.mark.parametrize(
    ("mode", "body", "said"),
    [
        ("streaming", "def bad(): return [1]", "list"),
        ("streaming", "def bad(): return 5", "int"),
        ("streaming", "def bad(): return later()\nasync def later(): return [1]", "coroutine"),
        ("streaming", "def bad(): return later()\nasync def later():\n    yield 1", "async"),
        ("batch", "def bad():\n    yield 1", "generator"),
        ("batch", "def bad(): return iter([1])", "iterator"),
        ("batch", "def bad(): return None", "None"),
        ("batch", "def bad(): return later()\nasync def later(): return [1]", "coroutine"),
    ],
)
def test_shape_does_not_fit_the_mode(connection, mode, body, said):
    message = failing(connection, "n int32", body, mode=mode)
    assert said in message
    assert mode in message or "coroutine" in message or "async" in message


# --- values -------------------------------------------------------------------------------------------------------

MISFITS = [
    ("bool", "1"),
    ("bool", "'true'"),
    ("int32", "'abc'"),
    ("int32", "1.0"),
    ("int32", "None.__class__"),
    ("int64", "2**70"),
    ("int64", "-2**70"),
    ("uint64", "2**70"),
    ("uint64", "-1"),
    ("int32", "float('nan')"),
    ("float64", "'1'"),
    ("float64", "10**400"),
    ("float32", "1e39"),
    ("decimal(5, 2)", "decimal.Decimal('1000')"),
    ("decimal(5, 2)", "decimal.Decimal('0.001')"),
    ("decimal(5, 2)", "decimal.Decimal('nan')"),
    ("decimal(5, 2)", "decimal.Decimal('1e999999')"),
    ("decimal(5, 2)", "0.1"),
    ("decimal(5, 2)", "2**70"),
    ("string", "5"),
    ("string", "b'a'"),
    ("string", "'\\ud800'"),
    ("binary", "'a'"),
    ("date", "'2026-01-01'"),
    ("date", "5"),
    ("time", "datetime.datetime(2026, 1, 1)"),
    ("timestamp", "'2026-01-01'"),
    ("timestamp", "datetime.date(2026, 1, 1)"),
    ("timestamp", "5"),
    ("datetime64(9)", "datetime.datetime(9999, 1, 1)"),
    ("interval", "5"),
    ("uuid", "'nope'"),
    ("uuid", "5"),
    ("json", "'{'"),
    ("json", "{1, 2}"),
    ("array(int8)", "5"),
    ("array(int8)", "'abc'"),
    ("array(int8)", "[1, 300]"),
    ("map(string, int8)", "{1: 1}"),
    ("map(string, int8)", "{None: 1}"),
    ("map(string, int8)", "[1]"),
    ("tuple(a int8, b int8)", "(1,)"),
    ("tuple(a int8, b int8)", "{'a': 1}"),
    ("tuple(a int8, b int8)", "{'a': 1, 'b': 2, 'c': 3}"),
    ("enum8('a' = 1)", "'b'"),
    ("enum8('a' = 1)", "object()"),
    ("low_cardinality(string)", "5"),
    ("int32", "Raises()"),
    ("float64", "Raises()"),
    ("string", "Raises()"),
    ("array(int8)", "Raises()"),
    ("map(string, int8)", "Raises()"),
    ("uuid", "Raises()"),
    ("json", "Raises()"),
    ("bool", "Raises()"),
]

RAISES = """
import datetime, decimal

class Raises:
    def fail(self, *_):
        raise RuntimeError("asked too much")
    __index__ = __int__ = __float__ = __bool__ = __str__ = __repr__ = __iter__ = __len__ = __getitem__ = __hash__ = fail
"""


@pytest.mark.parametrize(("type", "source"), MISFITS, ids=[f"{type} {source}" for type, source in MISFITS])
def test_value_does_not_fit_its_column(connection, type, source):
    said = failing(
        connection, f"z int8, v {type}", f"{RAISES}\ndef bad():\n    yield (0, None)\n    yield (0, {source})"
    )
    assert "stream 'bad', row 2, column 'v" in said


@pytest.mark.parametrize("bits", [8, 16, 32, 64])
def test_overflow_at_each_width(connection, bits):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    for type, misfit in [
        (f"int{bits}", low - 1),
        (f"int{bits}", high + 1),
        (f"uint{bits}", -1),
        (f"uint{bits}", 2**bits),
    ]:
        said = failing(connection, f"v {type}", f"def bad():\n    return [{misfit}]")
        assert f"stream 'bad', row 1, column 'v' ({type}): cannot store {misfit} (int)" in said


def test_misfit_names_stream_row_column_type_and_value(connection):
    said = failing(
        connection, "id int32, name string", "def bad():\n    return [(n, 'x') for n in range(16)] + [('abc', 'x')]"
    )
    assert "stream 'bad', row 17, column 'id' (int32): cannot store 'abc' (str)" in said


def test_misfit_inside_a_nested_value(connection):
    said = failing(connection, "v array(tuple(a int8, b string))", "def bad():\n    return [[(1, 'x'), (1000, 'y')]]")
    assert "row 1, column 'v[1].a'" in said
    assert "cannot store 1000 (int)" in said


@pytest.mark.parametrize(
    "row", ["(1,)", "(1, 2, 3)", "5", "'ab'", "{'a': 1}", "{'a': 1, 'b': 2, 'c': 3}", "{1: 1, 2: 2}", "object()"]
)
def test_row_of_the_wrong_width(connection, row):
    said = failing(connection, "a int32, b int32", f"def bad():\n    yield (1, 2)\n    yield {row}")
    assert "stream 'bad', row 2" in said


def test_an_empty_yield_is_skipped(connection):
    create(
        connection,
        "empty",
        "a int32, b int32",
        "def empty():\n    yield (1, 2)\n    yield ()\n    yield []\n    yield None",
    )
    assert rows(connection, "SELECT * FROM empty") == [(1, 2)]


def test_width_is_checked_where_columns_are_not_read(connection):
    create(connection, "bad", "a int32, b int32", "def bad():\n    return [(1, 'unread'), (2, 'unread')]")
    assert rows(connection, "SELECT a FROM bad") == [(1,), (2,)]
    assert value(connection, "SELECT count(*) FROM bad") == 2
    body = "def bad():\n    return [(1, 'unread'), (2,)]"
    assert "row 2" in failing(connection, "a int32, b int32", body, "SELECT a FROM bad")
    assert "row 2" in failing(connection, "a int32, b int32", body, "SELECT count(*) FROM bad")


def test_none_in_a_not_null_column(connection):
    said = failing(connection, "a int32 NOT NULL", "def bad():\n    yield (1,)\n    yield (None,)")
    assert "row 2, column 'a' (int32): cannot store None" in said


def test_the_first_misfit_of_a_list_is_the_one_that_is_told(connection):
    """Lists are converted column by column; errors are told row by row."""
    good = "[(n, str(n)) for n in range(5)]"
    for rest, said in [
        ("[(6, 7), ('x', 'y')]", "row 6, column 'b' (string): cannot store 7"),
        ("[('x', 7), (6, 'y')]", "row 6, column 'a' (int32): cannot store 'x'"),
        ("[(6, 'y'), ('x', 'y'), (8, 9)]", "row 7, column 'a' (int32): cannot store 'x'"),
        ("[(6, 'y'), (7,), ('x', 'y')]", "row 7: expected 2 values"),
        ("[(6, 'y'), 'x', ('x', 'y')]", "row 7: expected a tuple"),
    ]:
        body = f"def bad():\n    yield {good} + {rest}"
        assert said in failing(connection, "a int32, b string", body)
        create(connection, "bad", "a int32, b string", body)
        count = int(said.split()[1].rstrip(":,")) - 1
        assert rows(connection, f"SELECT a FROM bad LIMIT {count}") == [(n,) for n in [0, 1, 2, 3, 4, 6][:count]]


def test_a_misfit_behind_the_end_of_a_batch(connection):
    """A later column ends the batch before the row in which an earlier column has met a misfit."""
    for misfit, said in [("'bad'", "cannot store 'bad'"), ("None", "cannot store None")]:
        body = f"""
        def bad():
            rows = [(n, "x" * (2 << 20)) for n in range(20)]
            rows[10] = ({misfit}, "y")
            return rows
        """
        assert f"row 11, column 'a' (int64): {said}" in failing(connection, "a int64 NOT NULL, s string", body)
        create(connection, "bad", "a int64 NOT NULL, s string", body)
        assert rows(connection, "SELECT a FROM bad LIMIT 10") == [(n,) for n in range(10)]


def test_rows_before_a_nat_in_a_not_null_column(connection):
    body = """
    import pandas as pd
    def bad():
        return [(pd.Timestamp(n), n) if n != 200 else (pd.NaT, n) for n in range(1000)]
    """
    said = failing(connection, "t timestamp NOT NULL, n int64", body)
    assert "row 201, column 't' (timestamp): cannot store NaT (NaTType): it is a null" in said
    create(connection, "bad", "t timestamp NOT NULL, n int64", body)
    assert rows(connection, "SELECT n FROM (SELECT * FROM bad LIMIT 200) WHERE t IS NOT NULL") == [
        (n,) for n in range(200)
    ]


def test_a_list_that_changes_while_it_is_converted(connection):
    body = """
    class Sly:
        def __init__(self, act): self.act = act
        def __index__(self):
            self.act()
            return 7

    def bad():
        given = [(n,) for n in range(300)]
        given[100] = (Sly(lambda: given.__delitem__(slice(200, None))),)
        yield given
        given = [(0,), (Sly(lambda: given.clear()),), (2,)]
        yield given
        given = [(0,), (Sly(lambda: given.append((9,))),)]
        yield given
    """
    create(connection, "bad", "a int32", body)
    found = [n for (n,) in rows(connection, "SELECT a FROM bad")]
    assert found[:200] == [*range(100), 7, *range(101, 200)]
    # Rows that are being converted are whole, whatever becomes of the list.
    assert found[200:] == [0, 7, 2, 0, 7, 9]


def test_long_values_in_lists_make_short_batches(connection):
    body = """
    def long():
        yield [(n, "x" * 3_000_000, "y" * (n % 3)) for n in range(20)]
        yield [(n, "x", "y" * 100_000) for n in range(20, 400)]
    """
    create(connection, "long", "n int64, s string, t string", body)
    reader = table(connection, "SELECT n, length(s) AS s, length(t) AS t FROM long")
    assert reader["n"].to_pylist() == list(range(400))
    assert reader["s"].to_pylist() == [3_000_000] * 20 + [1] * 380
    assert reader["t"].to_pylist() == [n % 3 for n in range(20)] + [100_000] * 380
    with connection.cursor() as cursor:
        cursor.execute("SELECT s FROM long")
        sizes = [batch.nbytes for batch in cursor.fetch_record_batch()]
    assert len(sizes) > 5
    assert max(sizes) < 20_000_000


def test_rows_before_the_misfit_arrive(connection):
    create(connection, "bad", "a int32", "import time\ndef bad():\n    yield 1\n    yield 2\n    yield 'x'")
    with connection.cursor() as cursor:
        cursor.execute("SELECT a FROM bad")
        found = []
        with pytest.raises(connection.Error, match="row 3"):
            while row := cursor.fetchone():
                found.append(row)
    assert found in ([], [(1,)], [(1,), (2,)])


# --- sizes --------------------------------------------------------------------------------------------------------


def test_deep_nesting_of_values(connection):
    body = """
    def bad():
        deep = []
        for _ in range(100_000):
            deep = [deep]
        yield deep
    """
    for type in ["array(int32)", "json", "string", "int32"]:
        assert "row 1" in failing(connection, f"v {type}", f"{textwrap.dedent(body)}", mode="streaming")


def test_a_value_that_holds_itself(connection):
    for type in ["array(array(int32))", "json", "string", "map(string, json)"]:
        said = failing(connection, f"z int8, v {type}", "def bad():\n    v = []\n    v.append(v)\n    yield (0, v)")
        assert "row 1" in said


def test_deep_nesting_of_types(connection):
    for depth in [50, 5_000]:
        type = "array(" * depth + "int" + ")" * depth
        statement = f"CREATE OR REPLACE EXTERNAL STREAM bad (v {type}) AS $$\ndef bad(): return []\n$$"
        try:
            run(connection, f"{statement} SETTINGS type = 'python'")
        except connection.Error as refusal:
            assert "nest" in str(refusal) or "deep" in str(refusal), refusal
            continue
        assert rows(connection, "SELECT * FROM bad") == []


def test_deep_nesting_of_expressions(connection):
    for before, after in [("(", ")"), ("abs(", ")"), ("(SELECT ", ")"), ("CASE WHEN true THEN ", " END")]:
        said = error(connection, "SELECT " + before * 5_000 + "1" + after * 5_000)
        assert "5000 brackets and CASEs inside one another, and the limit is 50" in said
    for before, innermost, after in [
        ("(", "1", ")"),
        ("abs(", "1", ")"),
        ("CASE WHEN true THEN ", "1", " END"),
        ("a FROM (SELECT ", "1 AS a", ")"),
    ]:
        assert rows(connection, f"SELECT {before * 45}{innermost}{after * 45}") == [(1,)]
    assert "NOT" not in error(connection, "SELECT" + " NOT" * 400 + " 'x' x x")
    assert rows(connection, "SELECT" + " NOT" * 400 + " true") == [(True,)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("cast(", " AS bigint)"),
        ("array[", "]"),
        ("ceil(", ")"),
        ("substring(", " FROM 1)"),
        ("position(", " IN 'a')"),
        ("NOT (", ")"),
        ("CASE (", ") WHEN 1 THEN 1 END"),
        ("extract(year, ", ")"),
        ("row(", ")"),
        ("1 IN (VALUES (", "))"),
    ],
)
def test_deep_nesting_of_what_the_parser_reads_twice(connection, before, after):
    """The parser's work doubles with each level, where the innermost holds an error; and some plans' does."""
    assert "inside one another" in error(connection, "SELECT " + before * 48 + "1" + after * 48)
    error(connection, "SELECT " + before * 12 + "1 +" + after * 12)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("coalesce(", ", 1)"),
        ("nvl(", ", 1)"),
        ("ifnull(", ", 1)"),
        ("(", " BETWEEN 1 AND 5)::int"),
        ("(", " IN (1, 2, 3))::int"),
        ("(", " + 1)::text::bigint"),
        ("(1 + ", ")::double::bigint"),
    ],
)
def test_deep_nesting_of_what_the_optimizer_writes_twice(connection, before, after):
    create(connection, "ten", "n int64", "def ten(): return list(range(10))")
    said = error(connection, f"SELECT {before * 24}n{after * 24} FROM ten")
    assert "several times" in said or "second names" in said
    assert len(rows(connection, f"SELECT {before * 5}n{after * 5} FROM ten")) == 10


def test_tables_and_groupings_that_multiply(connection):
    doubled = "".join(f", a{n} AS (SELECT * FROM a{n - 1} UNION ALL SELECT * FROM a{n - 1})" for n in range(1, 25))
    assert "10000 relations" in error(connection, f"WITH a0 AS (SELECT 1 AS x){doubled} SELECT * FROM a24")
    columns = ", ".join(f"n + {n}" for n in range(24))
    assert "4096 groupings" in error(connection, f"SELECT 1 FROM (SELECT 1 AS n) GROUP BY CUBE ({columns})")


def test_deep_nesting_of_subqueries(connection):
    said = error(connection, "SELECT " + "(SELECT " * 20 + "1" + ")" * 20)
    assert "20 subqueries inside one another" in said
    assert rows(connection, "SELECT " + "(SELECT " * 10 + "1" + ")" * 10) == [(1,)]


def test_a_string_of_100_mb_arrives(connection):
    create(connection, "bad", "s string", "def bad():\n    return ['x' * 100_000_000]")
    assert value(connection, "SELECT length(s) FROM bad") == 100_000_000


def test_a_string_of_100_mb_reaches_the_client_or_is_refused(connection):
    create(connection, "bad", "s string", "def bad():\n    return ['x' * 100_000_000]")
    try:
        found = table(connection, "SELECT s FROM bad")
    except connection.Error as refusal:
        assert "a row takes 1000" in str(refusal), refusal
    else:
        assert len(found["s"][0].as_py()) == 100_000_000


def test_a_body_of_a_megabyte(connection):
    create(connection, "bad", "n int32", "x = '" + "y" * 1_000_000 + "'\ndef bad():\n    return [len(x)]")
    assert rows(connection, "SELECT * FROM bad") == [(1_000_000,)]


def test_a_body_of_many_lines(connection):
    create(connection, "bad", "n int32", "x = 1\n" * 100_000 + "def bad():\n    return [1]\n")
    assert rows(connection, "SELECT * FROM bad") == [(1,)]


def test_a_body_of_deep_expressions(connection):
    said = refused(connection, "x = " + "(" * 10_000 + ")" * 10_000 + "\ndef bad(): return []")
    assert "nested" in said


# --- sinks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("def bad(n): 1 / 0", "ZeroDivisionError"),
        ("def bad(n): raise SystemExit(3)", "SystemExit"),
        ("def bad(n): raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("def bad(n): return bad(n)", "RecursionError"),
        ("def bad(n): return later()\nasync def later(): pass", "coroutine"),
        ("def bad(): pass", "argument"),
        ("def bad(a, b): pass", "argument"),
        ("bad = 5", "int"),
        ("1 / 0\ndef bad(n): pass", "ZeroDivisionError"),
    ],
)
def test_insert_fails(connection, body, said):
    assert said in failing(connection, "n int32", body, "INSERT INTO bad VALUES (1)")


def test_two_queries_at_once_share_nothing(server, connection, tmp_path):
    go = tmp_path / "go"
    body = f"""
    import os, time
    seen = []
    def both():
        seen.append(1)
        yield len(seen)
        while not os.path.exists({str(go)!r}):
            time.sleep(0.01)
        seen.append(1)
        yield len(seen)
    """
    create(connection, "both", "n int32", body)
    found = []

    def read():
        with server.connect() as own:
            found.append(rows(own, "SELECT n FROM both"))

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(queries(connection)) == 2, "two queries")
    finally:
        go.touch()
        for thread in threads:
            thread.join()
    assert found == [[(1,), (2,)]] * 2


def test_many_failures_leave_no_thread(connection, server):
    tasks = Path(f"/proc/{server.process.pid}/task")

    def threads():
        return len(list(tasks.iterdir()))

    create(connection, "bad", "n int32", "def bad():\n    yield 1\n    raise ValueError('boom')")
    error(connection, "SELECT * FROM bad")
    before = threads()
    for _ in range(30):
        error(connection, "SELECT * FROM bad")
    wait_until(lambda: threads() <= before + 5, "threads to end")


def test_a_dict_that_its_values_change_is_refused(connection):
    body = """
class Grows:
    def __init__(self, map):
        self.map = map

    def __index__(self):
        self.map[f"key {len(self.map)}"] = Grows(self.map)
        return 1

def read():
    map = {}
    map["first"] = Grows(map)
    yield (map,)
"""
    create(connection, "growing", "m map(string, int64)", body, read_function_name="read")
    said = error(connection, "SELECT * FROM growing")
    assert "row 1, column 'm'" in said and "its values changed it while they were read" in said


@pytest.mark.parametrize("value", ["2**63 + 1", "2**53 + 1", "10**400", "-(10**400)"])
def test_an_int_that_is_no_float_is_refused(connection, value):
    create(connection, "floating", "f float64", f"def read():\n    yield ({value},)", read_function_name="read")
    assert "no float is exactly that" in error(connection, "SELECT * FROM floating")


def test_what_a_stream_cannot_answer_is_refused_before_rows_are_fetched(connection):
    body = "def read():\n    while True:\n        yield (1,)"
    create(connection, "unending", "n int64", body, read_function_name="read", mode="streaming")
    with connection.cursor() as cursor:
        for step in [cursor.adbc_prepare, cursor.adbc_execute_schema, cursor.execute]:
            with pytest.raises(Exception, match="unending"):
                step("SELECT count(*) FROM unending")
