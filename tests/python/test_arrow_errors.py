"""Arrow objects that do not fit, or that fail: the error names what a row's would name."""

import pytest
from harness import create, error, rows, run, value

PRELUDE = "import datetime, decimal\nimport pyarrow as pa\nD = decimal.Decimal\n"


def failing(connection, columns, body, sql="SELECT * FROM bad", **settings):
    create(connection, "bad", columns, PRELUDE + body, **settings)
    return error(connection, sql)


NO_CONVERSION = "no exact conversion from Arrow"
INEXACT = "the column's type has no value that is exactly this"

# The column's type, an array of three values the second of which is a misfit, the place in it, and what is said.
MISFITS = [
    ("int32", "pa.array([1, 2**40, 2**41])", "", "cannot store 1099511627776 (int)"),
    ("uint8", "pa.array([None, -1, 1], pa.int8())", "", "cannot store -1 (int)"),
    ("int32", "pa.array([None, 'abc', 'd'])", "", f"cannot store 'abc' (str): {NO_CONVERSION} Utf8"),
    ("int32", "pa.array([None, 'abc', 'd'], pa.string_view())", "", f"cannot store 'abc' (str): {NO_CONVERSION}"),
    ("int32", "pa.array([None, 1.5, 1.0])", "", f"cannot store 1.5 (float): {NO_CONVERSION} Float64"),
    ("float64", "pa.array([1, 2**53 + 1, 2])", "", f"cannot store 9007199254740993 (int): {INEXACT}"),
    ("float32", "pa.array([1, 1e39, float('inf')])", "", "cannot store 1e+39 (float)"),
    ("decimal(5, 2)", "pa.array([D('1.00'), D('0.005'), D('1')])", "", f"Decimal('0.005') (Decimal): {INEXACT}"),
    ("decimal(3, 0)", "pa.array([D(1), D(1000), D(1)])", "", "cannot store Decimal('1000') (Decimal)"),
    ("decimal(3, 0)", "pa.array([1, 1000, 1])", "", "cannot store 1000 (int)"),
    ("uuid", "pa.array(['00000000-0000-0000-0000-000000000005', 'x', 'y'])", "", "'x' (str): it is not the text of a"),
    ("uuid", "pa.array([bytes(16), b'short', b''])", "", "cannot store b'short' (bytes): a UUID has 16 bytes"),
    ("enum8('a' = 1)", "pa.array(['a', 'b', 'c'])", "", "cannot store 'b' (str): it is not one of the names"),
    ("enum8('a' = 1)", "pa.array(['a', 'b', 'c']).dictionary_encode()", "", "cannot store 'b' (str): it is not one of"),
    ("low_cardinality(string)", "pa.array([None, 5, 6])", "", f"cannot store 5 (int): {NO_CONVERSION} Int64"),
    ("json", "pa.array(['{}', '{', '['])", "", "cannot store '{' (str): it is not valid JSON (EOF"),
    ("json", "pa.array(['{}', 'nope', '['], pa.large_string())", "", "'nope' (str): it is not valid JSON"),
    ("date", "pa.array([None, '1970-01-01', 'x'])", "", f"cannot store '1970-01-01' (str): {NO_CONVERSION} Utf8"),
    ("date", "pa.array([0, 1000, 0], pa.int64()).cast(pa.date64())", "", f"(Arrow Date64): {INEXACT}"),
    (
        "datetime64(9)",
        "pa.array([0, 253402214400, 0], pa.timestamp('s'))",
        "",
        "cannot store datetime.datetime(9999, 12, 31, 0, 0) (datetime): it is out of the column's range",
    ),
    ("array(int8)", "pa.array([[1], [1, None, 300], [301]])", "[2]", "cannot store 300 (int)"),
    (
        "array(int8)",
        "pa.array([[1], [1, None, 300], [301]], pa.large_list(pa.int64()))",
        "[2]",
        "cannot store 300 (int)",
    ),
    ("array(json)", "pa.array([['1'], ['1', '{'], []])", "[1]", "cannot store '{' (str): it is not valid JSON"),
    ("array(array(int8))", "pa.array([[[]], [None, [], [1, 300]], []])", "[2][1]", "cannot store 300 (int)"),
    ("tuple(a int8, b string)", "pa.array([{'a': 1, 'b': ''}, {'a': 300, 'b': ''}, None])", ".a", "cannot store 300"),
    ("tuple(a int8, b string)", "pa.array([None, {'a': 1}, None])", "", "it has 1 member, and the type has 2"),
    ("tuple(a int8)", "pa.array([None, {'b': 1}, None])", "", "it has no 'a'"),
    (
        "datetime64(9)",
        "pa.array([0, 2**62, 0], pa.timestamp('s'))",
        "",
        "cannot store 4611686018427387904 (Arrow Timestamp",
    ),
    (
        "map(string, int8)",
        "pa.array([[('k', 1)], [('l', 1), ('m', 300)], []], pa.map_(pa.string(), pa.int64()))",
        "['m']",
        "cannot store 300 (int)",
    ),
    (
        "array(map(string, tuple(x uint8)))",
        "pa.array([[], [[], [('k', {'x': 256})]], []], pa.list_(pa.map_(pa.string(), pa.struct({'x': pa.int64()}))))",
        "[1]['k'].x",
        "cannot store 256 (int)",
    ),
]


@pytest.mark.parametrize(("type", "array", "place", "said"), MISFITS, ids=[f"{m[0]} {m[1]}" for m in MISFITS])
def test_a_misfit_is_named_as_in_a_row(connection, type, array, place, said):
    """The rows are counted over tuples and batches, and the slice has values before it that nobody reads."""
    body = f"""
def bad():
    values = {array}
    table = pa.table({{'z': pa.array([0] * 3, pa.int8()), 'v': values}})
    yield (0, None)
    yield table.slice(0, 1)
    yield [(0, None)] * 3
    yield table.slice(1).to_reader(max_chunksize=1)
"""
    message = failing(connection, f"z int8, v {type}", body)
    assert f"stream 'bad', row 6, column 'v{place}' (" in message
    assert said in message
    assert value(connection, "SELECT sum(z) FROM bad") == 0


def test_a_null_in_a_not_null_column(connection):
    body = "def bad():\n    yield (1,)\n    yield pa.table({'n': pa.array([1, None], pa.int32())})"
    assert "row 3, column 'n' (int32): cannot store a null" in failing(connection, "n int32 NOT NULL", body)


def test_nulls_fit_whatever_their_type(connection):
    """None fits a column, and so does a null; where the batches were cut decides nothing."""
    body = "def bad():\n    for type in [pa.null(), pa.string(), pa.float64(), pa.list_(pa.int8())]:\n"
    body += "        yield pa.table({'v': pa.array([None, None], type)})\n"
    for type in ["int8", "uuid", "enum8('a' = 1)", "json", "array(int8)", "tuple(a int8)", "low_cardinality(string)"]:
        create(connection, "bad", f"v {type}", PRELUDE + body)
        assert rows(connection, "SELECT * FROM bad") == [(None,)] * 8


def test_what_a_null_hides_need_not_fit(connection):
    body = """
def bad():
    items = pa.ListArray.from_arrays([0, 1, 2], pa.array([300, 1]), mask=pa.array([True, False]))
    record = pa.StructArray.from_arrays([pa.array([300, 1])], ['a'], mask=pa.array([True, False]))
    yield pa.table({'items': items, 'record': record})
"""
    create(connection, "bad", "items array(int8), record tuple(a int8)", PRELUDE + body)
    assert rows(connection, "SELECT * FROM bad") == [(None, None), ([1], {"a": 1})]


# --- failing readers ----------------------------------------------------------------------------------------------

GENERATOR = """
def batches():
    yield pa.record_batch({'n': [1]})
    raise LookupError('boom')

def reader():
    return pa.RecordBatchReader.from_batches(pa.schema({'n': pa.int64()}), batches())
"""


@pytest.mark.parametrize("given", ["return", "yield"])
def test_an_exception_behind_a_reader_is_itself(connection, given):
    message = failing(connection, "n int64", f"{GENERATOR}\ndef bad():\n    {given} reader()\n")
    assert "stream 'bad': read function 'bad' raised LookupError: boom" in message
    assert "in batches" in message
    assert "raise LookupError('boom')" in message
    assert rows(connection, "SELECT * FROM bad LIMIT 1") == [(1,)]


def test_an_exception_behind_another_stream_is_told(connection):
    body = f"""{GENERATOR}
class Other:
    def __arrow_c_stream__(self, requested_schema=None):
        return reader().__arrow_c_stream__()

def bad():
    yield Other()
"""
    message = failing(connection, "n int64", body)
    assert "stream 'bad': the Arrow stream failed: " in message
    assert "boom" in message


def test_a_reader_is_read_to_its_end(connection):
    body = (
        "def bad():\n    table = pa.table({'n': range(10)})\n    yield table.to_reader(max_chunksize=3)\n    yield 10\n"
    )
    create(connection, "bad", "n int64", PRELUDE + body)
    assert rows(connection, "SELECT * FROM bad") == [(n,) for n in range(11)]
    assert rows(connection, "SELECT * FROM bad LIMIT 4") == [(n,) for n in range(4)]


# --- writing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write_format", ["list", "arrow"])
@pytest.mark.parametrize(
    ("type", "misfit", "place"),
    [("json", "'{'", ""), ("tuple(a json)", "named_struct('a', '{')", ".a")],
)
def test_json_is_checked_on_its_way_to_a_sink(connection, write_format, type, misfit, place):
    body = "def bad(n, doc): pass\n"
    create(connection, "bad", f"n int64, doc {type}", body, write_format=write_format)
    good = misfit.replace("{", "{}")
    assert run(connection, f"INSERT INTO bad VALUES (1, {good}), (2, {good})") == 2
    message = error(connection, f"INSERT INTO bad VALUES (1, {good}), (2, {misfit})")
    assert f"stream 'bad', row 2 of the INSERT, column 'doc{place}' (" in message
    assert "cannot store '{' (str): it is not valid JSON" in message
    assert "had accepted 0 rows" in message


@pytest.mark.parametrize("write_format", ["list", "arrow"])
def test_rows_are_counted_over_the_batches_of_an_insert(connection, write_format):
    create(connection, "bad", "doc json", "def bad(doc): pass\n", write_format=write_format)
    source = "def source():\n    yield from ['[]'] * 19_999\n    yield 'x'\n"
    create(connection, "source", "doc string", source, batch_size=1000)
    message = error(connection, "INSERT INTO bad SELECT doc FROM source")
    assert "stream 'bad', row 20000 of the INSERT, column 'doc' (json): cannot store 'x' (str)" in message
