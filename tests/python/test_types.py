"""Every type of the language: what Python yields, what a client gets, and what a sink receives."""

import datetime as dt
import decimal
import uuid

import pyarrow as pa
import pytest
from harness import create, error, rows, run, table, value

UTC = "datetime.timezone.utc"
BERLIN = "zoneinfo.ZoneInfo('Europe/Berlin')"
PRELUDE = "import datetime, decimal, uuid, zoneinfo\nimport numpy\nD = decimal.Decimal\n"

# The type, its Arrow type, and values as Python source.
TYPES = [
    ("bool", "bool", ["True", "False"]),
    ("boolean", "bool", ["True"]),
    ("int8", "int8", ["-128", "127"]),
    ("tinyint", "int8", ["-128", "127"]),
    ("int16", "int16", ["-2**15", "2**15 - 1"]),
    ("smallint", "int16", ["1"]),
    ("int32", "int32", ["-2**31", "2**31 - 1"]),
    ("int", "int32", ["1"]),
    ("INTEGER", "int32", ["1"]),
    ("int64", "int64", ["-2**63", "2**63 - 1"]),
    # Where ints get another digit inside.
    (
        "int64",
        "int64",
        ["2**30 - 1", "-(2**30)", "2**60 - 1", "1 - 2**60", "2**60", "-(2**60)"],
    ),
    ("bigint", "int64", ["1"]),
    ("uint8", "uint8", ["0", "255"]),
    ("uint16", "uint16", ["2**16 - 1"]),
    ("uint32", "uint32", ["2**32 - 1"]),
    ("uint64", "uint64", ["0", "2**64 - 1", "2**30", "2**60 - 1", "2**60"]),
    ("float32", "float", ["0.5", "float('inf')"]),
    ("real", "float", ["0.25"]),
    ("float", "float", ["0.25"]),
    ("float64", "double", ["0.1", "-0.0", "float('-inf')", "5e-324"]),
    ("double", "double", ["0.1"]),
    ("decimal(5, 2)", "decimal128(5, 2)", ["D('-999.99')", "D('0.01')"]),
    ("decimal(38, 0)", "decimal128(38, 0)", ["D('9' * 38)"]),
    ("decimal(76, 10)", "decimal256(76, 10)", ["D('9' * 66 + '.' + '9' * 10)"]),
    ("string", "string", ["''", "'héllo'", "'\\x00 in \\x00'", "'\\U0001F40D'"]),
    ("varchar", "string", ["'a'"]),
    ("text", "string", ["'a'"]),
    ("char", "string", ["'a'"]),
    ("binary", "binary", ["b''", "b'\\x00\\xff'"]),
    ("bytea", "binary", ["b'a'"]),
    ("blob", "binary", ["b'a'"]),
    ("date", "date32[day]", ["datetime.date(1, 1, 1)", "datetime.date(9999, 12, 31)", "datetime.date(1969, 12, 31)"]),
    ("time", "time64[us]", ["datetime.time(0)", "datetime.time(23, 59, 59, 999999)"]),
    ("timestamp", "timestamp[us]", ["datetime.datetime(1969, 12, 31, 23, 59, 59, 999999)"]),
    (
        "datetime",
        "timestamp[us]",
        ["datetime.datetime(1, 1, 1)", "datetime.datetime(9999, 12, 31, 23, 59, 59, 999999)"],
    ),
    ("timestamptz", "timestamp[us, tz=UTC]", [f"datetime.datetime(2026, 7, 1, 12, tzinfo={UTC})"]),
    ("datetime64(0)", "timestamp[s]", ["datetime.datetime(2026, 1, 1)"]),
    ("datetime64", "timestamp[ms]", ["datetime.datetime(2026, 1, 1, microsecond=5000)"]),
    ("datetime64(6)", "timestamp[us]", ["datetime.datetime(2026, 1, 1, microsecond=5)"]),
    (
        "datetime64(3, 'Europe/Berlin')",
        "timestamp[ms, tz=Europe/Berlin]",
        [f"datetime.datetime(2026, 7, 1, 12, tzinfo={BERLIN})"],
    ),
    ("array(int32)", "list<item: int32>", ["[]", "[1, None, 3]"]),
    ("int32[]", "list<item: int32>", ["[1]"]),
    ("array(array(string))", "list<item: list<item: string>>", ["[[], ['a'], None]"]),
    ("nullable(int8)", "int8", ["1"]),
]


def python(source):
    return eval(source, {"datetime": dt, "D": decimal.Decimal, "uuid": uuid, "zoneinfo": __import__("zoneinfo")})


@pytest.mark.parametrize(("type", "arrow", "values"), TYPES, ids=[type for type, _, _ in TYPES])
def test_there_and_back(connection, tmp_path, type, arrow, values):
    """What Python yields is what a client gets; what a sink then receives is equal to it, and of the same class."""
    received = tmp_path / "received"
    body = f"{PRELUDE}values = [{', '.join(values)}, None]\n"
    body += "def read():\n    return [(value, 0) for value in values]\n"
    body += "def write(v, z):\n    kinds = [type(x) for x in v] == [type(x) for x in values]\n"
    body += f"    open({str(received)!r}, 'a').write(repr((v == values, kinds, v)))\n"
    create(connection, "typed", f"v {type}, z int8", body, read_function_name="read", write_function_name="write")
    found = table(connection, "SELECT v FROM typed")
    assert str(found.schema.field("v").type) == arrow
    assert found.column("v").to_pylist() == [python(source) for source in values] + [None]
    assert run(connection, "INSERT INTO typed SELECT * FROM typed") == len(values) + 1
    assert received.read_text().startswith("(True, True"), received.read_text()


OTHERS = [
    ("uuid", "uuid.UUID(int=5)", uuid.UUID(int=5)),
    ("uuid", "'00000000-0000-0000-0000-000000000005'", uuid.UUID(int=5)),
    ("json", "{'a': [1, None]}", {"a": [1, None]}),
    ("json", "'[1, 2]'", [1, 2]),
    ("map(string, int32)", "{'a': 1, 'b': None}", {"a": 1, "b": None}),
    ("map(int8, array(string))", "{1: ['x'], 2: None}", {1: ["x"], 2: None}),
    ("tuple(a int32, b string)", "(1, 'x')", (1, "x")),
    ("tuple(a int32, b string)", "{'a': 1, 'b': 'x'}", (1, "x")),
    ("array(tuple(a int32, b map(string, bool)))", "[(1, {'k': True}), None]", [(1, {"k": True}), None]),
    ("low_cardinality(string)", "'often'", "often"),
    ("enum8('on' = 1, 'off' = 0)", "'off'", "off"),
    ("enum16('on' = 1000, 'off' = -1)", "'on'", "on"),
    ("interval", "datetime.timedelta(days=1, seconds=2)", dt.timedelta(days=1, seconds=2)),
    ("timestamp", f"datetime.datetime(2026, 7, 1, 14, tzinfo={BERLIN})", dt.datetime(2026, 7, 1, 12)),
    ("timestamptz", "datetime.datetime(2026, 7, 1, 12)", dt.datetime(2026, 7, 1, 12, tzinfo=dt.timezone.utc)),
    ("datetime64(0)", "datetime.datetime(1969, 12, 31, 23, 59, 59, 1)", dt.datetime(1969, 12, 31, 23, 59, 59)),
    ("datetime64(9)", "datetime.datetime(2026, 1, 1, microsecond=1)", dt.datetime(2026, 1, 1, microsecond=1)),
    ("int16", "numpy.int64(5)", 5),
    ("float64", "numpy.float32(0.5)", 0.5),
    ("bool", "numpy.True_", True),
    ("float64", "3", 3.0),
    ("decimal(5, 2)", "3", decimal.Decimal("3.00")),
    ("binary", "bytearray(b'a')", b"a"),
]


@pytest.mark.parametrize(("type", "source", "expected"), OTHERS, ids=[f"{type} {source}" for type, source, _ in OTHERS])
def test_what_a_sink_receives(connection, tmp_path, type, source, expected):
    """What was yielded, as the natural Python value of the column's type."""
    received = tmp_path / "received"
    body = f"{PRELUDE}def read():\n    return [({source}, 0), (None, 0)]\n"
    body += f"def write(v, z):\n    open({str(received)!r}, 'a').write(repr(v))\n"
    create(connection, "typed", f"v {type}, z int8", body, read_function_name="read", write_function_name="write")
    assert run(connection, "INSERT INTO typed SELECT * FROM typed") == 2
    assert received.read_text() == repr([expected, None])


def test_types_on_the_wire(connection):
    """Dictionaries travel as their values."""
    columns = "u uuid, j json, m map(string, int32), t tuple(a int32, b string), l low_cardinality(string), "
    columns += "e enum8('on' = 1), f enum16('on' = 1), i interval, n int8 NOT NULL"
    create(connection, "wire", columns, "def wire():\n    return [(None,) * 8 + (1,)]\n", mode="batch")
    found = table(connection, "SELECT * FROM wire")
    assert found.num_rows == 1
    assert [str(field.type) for field in found.schema] == [
        "extension<arrow.uuid>",
        "extension<arrow.json>",
        "map<string, int32>",
        "struct<a: int32, b: string>",
        "string",
        "string",
        "string",
        "month_day_nano_interval",
        "int8",
    ]
    assert [field.nullable for field in found.schema] == [True] * 8 + [False]


def test_uuid_compares_with_its_text(connection):
    create(connection, "ids", "id uuid", "import uuid\ndef ids():\n    return [uuid.UUID(int=n) for n in range(3)]\n")
    assert value(connection, "SELECT count(*) FROM ids WHERE id = '00000000-0000-0000-0000-000000000002'") == 1
    assert value(connection, "SELECT count(*) FROM ids WHERE '00000000-0000-0000-0000-000000000001' < id") == 1


def test_nested_values_in_sql(connection):
    body = "def nested():\n    return [([1, 2, 3], {'k': 'v'}, (7, [8]))]\n"
    create(connection, "nested", "a array(int32), m map(string, string), t tuple(x int32, y int32[])", body)
    assert rows(connection, "SELECT a[2], m['k'], t['x'], t['y'][1] FROM nested") == [(2, "v", 7, 8)]


def test_any_word_names_a_column(connection):
    create(connection, "words", "key int32, index string, select bool", "def words():\n    return [(1, 'a', True)]\n")
    assert rows(connection, 'SELECT key, index, "select" FROM words') == [(1, "a", True)]


@pytest.mark.parametrize(
    ("type", "values"),
    [
        ("float64", [2**53, 2**63, -(2**63), 2**64, 10**22, 2**1023, -(2**1000)]),
        ("float32", [2**24, 2**100, -(2**127)]),
    ],
)
def test_ints_that_are_exactly_floats(connection, type, values):
    create(connection, "floats", f"v {type}", f"def floats():\n    return {values}")
    assert [float(value) for value in values] == table(connection, "SELECT v FROM floats").column("v").to_pylist()


def test_nan_stays_nan(connection):
    create(connection, "nan", "f float32, d float64", "def nan():\n    return [(float('nan'), float('nan'))]\n")
    ((f, d),) = rows(connection, "SELECT * FROM nan")
    assert f != f and d != d


def test_no_view_types_reach_a_client(connection):
    body = "def texts():\n    return [('a', b'b', ['c'])]\n"
    create(connection, "texts", "s string, b binary, l array(string)", body)
    found = table(connection, "SELECT s, b, l, md5(s) AS m, s || 'x' AS x, [s] AS q FROM texts")
    assert not [field for field in found.schema if "view" in str(field.type)]


def test_a_zone_that_is_none_is_refused(connection):
    said = error(
        connection, "CREATE EXTERNAL STREAM z (t datetime64(3, 'Mars/Base')) AS $$\n$$ SETTINGS type = 'python'"
    )
    assert "Mars/Base" in said


def test_types_survive_show_create(connection):
    every = ", ".join(f"c{i} {type}" for i, (type, _, _) in enumerate(TYPES))
    create(connection, "every", every, "def every():\n    return []\n", mode="batch")
    before = table(connection, "SELECT * FROM every").schema
    statement = rows(connection, "SHOW CREATE STREAM every")[0][-1]
    run(connection, "DROP STREAM every")
    run(connection, statement)
    assert table(connection, "SELECT * FROM every").schema.equals(before, check_metadata=True)
    assert isinstance(before, pa.Schema)


def test_tuples_without_names(connection, tmp_path):
    """Members are called 1, 2 …; plain tuples and lists are values of them, however deep; tuples arrive."""
    received = tmp_path / "received"
    columns = "v array(tuple(int8, string)), m map(string, tuple(int8, array(tuple(bool))))"
    body = f"""
    def read():
        yield ([(1, 'a'), [2, 'b'], None], {{'k': (3, [(True,), [False]]), 'l': [4, ((True,),)]}})

    def write(v, m):
        open({str(received)!r}, "w").write(repr((v, m)))
    """
    create(connection, "typed", columns, body, read_function_name="read", write_function_name="write")
    found = table(connection, "SELECT v FROM typed")
    assert found.schema.field("v").type.value_type == pa.struct({"1": pa.int8(), "2": pa.string()})
    assert found["v"].to_pylist() == [[{"1": 1, "2": "a"}, {"1": 2, "2": "b"}, None]]
    assert run(connection, "INSERT INTO typed SELECT * FROM typed") == 1
    expected = ([[(1, "a"), (2, "b"), None]], [{"k": (3, [(True,), (False,)]), "l": (4, [(True,)])}])
    assert python(received.read_text()) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("numpy.timedelta64(5, 'M')", (5, 0, 0)),
        ("numpy.timedelta64(-2, 'Y')", (-24, 0, 0)),
        ("numpy.timedelta64(3, '2Y')", (72, 0, 0)),
        ("numpy.timedelta64(2, 'W')", (0, 14, 0)),
        ("numpy.timedelta64(25, 'h')", (0, 1, 3_600_000_000_000)),
        ("numpy.timedelta64('NaT', 'M')", None),
    ],
)
def test_months_and_years_of_numpy_are_months(connection, source, expected):
    create(connection, "spans", "i interval", f"{PRELUDE}def spans(): return [({source},)]\n")
    assert table(connection, "SELECT * FROM spans")["i"].to_pylist() == [expected]


@pytest.mark.parametrize(
    ("type", "source", "reason"),
    [
        ("interval", "numpy.timedelta64(2**40, 'Y')", ""),
        ("interval", "numpy.timedelta64(5)", "it has no unit"),
        (
            "timestamp",
            "numpy.datetime64(400_000 - 1970, 'Y')",
            "of microseconds reaches from the year -290308 to 294247",
        ),
        ("timestamp(9)", "datetime.datetime(3000, 1, 1)", "of nanoseconds reaches from 1677-09-21 to 2262-04-11"),
        ("timestamp(0)", "numpy.datetime64(2**62, 'Y')", ""),
    ],
)
def test_what_no_time_column_holds(connection, type, source, reason):
    create(connection, "times", f"t {type}", f"{PRELUDE}def times(): return [({source},)]\n")
    said = error(connection, "SELECT * FROM times")
    assert "stream 'times', row 1, column 't'" in said
    assert "cannot store" in said
    assert reason in said


def test_months_of_the_calendar_are_their_first_days(connection):
    values = "numpy.datetime64('1969-11'), numpy.datetime64('2024-02'), numpy.datetime64('0001')"
    create(connection, "days", "d date", f"{PRELUDE}def days(): return [{values}]\n")
    assert rows(connection, "SELECT * FROM days") == [
        (dt.date(1969, 11, 1),),
        (dt.date(2024, 2, 1),),
        (dt.date(1, 1, 1),),
    ]
