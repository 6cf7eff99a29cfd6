"""Writing: one call of the write function per batch, one argument per column."""

import json
import threading

import pytest
from harness import create, error, rows, run, wait_until

NOTES = """
import json

def note(*what):
    with open({path!r}, "a") as file:
        print(json.dumps(what, default=str), file=file)
"""


@pytest.fixture
def sink(connection, notes):
    def make(columns, body, **settings):
        text = NOTES.format(path=str(notes)) + body
        create(connection, "sink", columns, text, **settings)

    return make


def read(notes):
    return [json.loads(line) for line in notes.read_text().splitlines()]


def test_values(connection, sink, notes):
    sink("n int64, s string", "def sink(n, s): note(n, s)")
    assert run(connection, "INSERT INTO sink VALUES (1, 'a'), (2, NULL)") == 2
    assert read(notes) == [[[1, 2], ["a", None]]]


def test_any_positional_arguments_will_do(connection, sink, notes):
    for signature in ["n, s", "*columns", "n, *rest", "n, s, more=1", "n, /, s"]:
        sink("n int64, s string", f"def sink({signature}): note(1)")
        assert run(connection, "INSERT INTO sink VALUES (1, 'a')") == 1


def test_no_rows_call_nothing(connection, sink, notes):
    sink("n int64", "def sink(n): note(n)")
    assert run(connection, "INSERT INTO sink SELECT 1 WHERE false") == 0
    assert not notes.exists()


def test_batches(connection, sink, notes):
    sink("n int64", "def sink(n): note(len(n))")
    assert run(connection, "INSERT INTO sink SELECT value FROM generate_series(1, 20000)") == 20000
    sizes = [size for (size,) in read(notes)]
    assert sum(sizes) == 20000
    assert len(sizes) > 1


def test_init_and_deinit_run_once(connection, sink, notes):
    body = "def init(text): note('init', text)\ndef deinit(): note('deinit')\ndef sink(n): note(len(n))\n"
    settings = {"init_function_name": "init", "init_function_parameters": "x", "deinit_function_name": "deinit"}
    sink("n int64", body, **settings)
    run(connection, "INSERT INTO sink SELECT value FROM generate_series(1, 20000)")
    found = read(notes)
    assert found[0] == ["init", "x"]
    assert found[-1] == ["deinit"]
    assert sum(size for (size,) in found[1:-1]) == 20000


def test_arrow_is_zero_copy(connection, sink, notes):
    body = """
import pyarrow as pa

def source():
    table = pa.table({"n": pa.array(range(1000), pa.int64())})
    note(table["n"].chunk(0).buffers()[1].address)
    return table

def sink(n):
    note(type(n).__module__.split(".")[0], str(n.type), len(n), n.buffers()[1].address)
"""
    sink("n int64", body, read_function_name="source", write_function_name="sink", write_format="arrow")
    assert run(connection, "INSERT INTO sink SELECT n FROM sink") == 1000
    (address,), *written = read(notes)
    assert written == [["pyarrow", "int64", 1000, address]]


def test_arrow_columns_of_every_kind(connection, sink, notes):
    columns = "s string, l array(int32), m map(string, int32), t tuple(a int32), u uuid, d decimal(5, 2), "
    columns += "e enum8('on' = 1), c low_cardinality(string), z timestamptz"
    body = "def read(): return [(None,) * 9]\ndef sink(*columns): note(*[str(column.type) for column in columns])"
    sink(columns, body, read_function_name="read", write_function_name="sink", write_format="arrow")
    assert run(connection, "INSERT INTO sink SELECT * FROM sink") == 1
    assert read(notes) == [
        [
            "string",
            "list<item: int32>",
            "map<string, int32>",
            "struct<a: int32>",
            "extension<arrow.uuid>",
            "decimal128(5, 2)",
            "dictionary<values=string, indices=int8, ordered=0>",
            "dictionary<values=string, indices=int32, ordered=0>",
            "timestamp[us, tz=UTC]",
        ]
    ]


def test_a_column_list_fills_the_rest_with_null(connection, sink, notes):
    sink("a int64, b string, c float64", "def sink(*columns): note(*columns)")
    assert run(connection, "INSERT INTO sink (c, a) VALUES (0.5, 1)") == 1
    assert read(notes) == [[[1], [None], [0.5]]]


def test_not_null_columns_must_be_given(connection, sink, notes):
    sink("a int64, b string NOT NULL", "def sink(*columns): note(*columns)")
    assert "b" in error(connection, "INSERT INTO sink (a) VALUES (1)")
    assert "b" in error(connection, "INSERT INTO sink VALUES (1, NULL)")
    assert not notes.exists()


def test_an_exception_says_how_many_rows_were_accepted(connection, sink, notes):
    body = """
calls = []

def sink(n):
    calls.append(n)
    note(len(n))
    if len(calls) == 3:
        raise ValueError("the third")

def read():
    for _ in range(5):
        yield [1] * 10
        yield None

def deinit():
    note("deinit")
"""
    settings = {"read_function_name": "read", "write_function_name": "sink", "deinit_function_name": "deinit"}
    sink("n int64", body, batch_size=10, **settings)
    said = error(connection, "INSERT INTO sink SELECT n FROM sink")
    calls = [size for (size,) in read(notes) if size != "deinit"]
    accepted = sum(calls[:-1])
    assert len(calls) == 3
    assert read(notes).count(["deinit"]) == 2, "one for the scan, one for the write"
    assert f"{accepted} rows" in said
    assert "ValueError: the third" in said


def test_the_rows_that_an_insert_has_written_are_listed(server, connection, sink, tmp_path):
    go = tmp_path / "go"
    body = f"""
import os, time

calls = []

def sink(n):
    calls.append(n)
    while len(calls) == 3 and not os.path.exists({str(go)!r}):
        time.sleep(0.005)
"""
    sink("n int64", body, batch_size=10)

    def insert():
        with server.connect() as other:
            run(other, "INSERT INTO sink SELECT value FROM generate_series(1, 50)")

    def written():
        found = rows(connection, "SELECT \"rows\" FROM system.queries WHERE sql LIKE 'INSERT INTO sink %'")
        return found and found[0][0] >= 20

    inserting = threading.Thread(target=insert)
    inserting.start()
    try:
        wait_until(written, "rows that an INSERT has written")
    finally:
        go.touch()
        inserting.join()


@pytest.mark.parametrize("values", ["(1000, 'on', NULL)", "(1, 'on', 'nope')", "('x', 'on', NULL)"])
def test_values_that_do_not_fit(connection, sink, notes, values):
    sink("a int8, e enum8('on' = 1), u uuid", "def sink(*columns): note(*columns)")
    error(connection, f"INSERT INTO sink VALUES {values}")
    assert not notes.exists()


def test_a_value_outside_of_an_enum(connection, sink, notes):
    sink("e enum8('on' = 1)", "def sink(e): note(e)")
    assert "off" in error(connection, "INSERT INTO sink VALUES ('off')")
    assert not notes.exists()


def test_json_must_be_valid(connection, sink, notes):
    sink("j json", "def sink(j): note(j)")
    assert "j" in error(connection, "INSERT INTO sink VALUES ('{')")
    assert run(connection, """INSERT INTO sink VALUES ('{"a": [1]}'), (NULL)""") == 2
    assert read(notes) == [[[{"a": [1]}, None]]]


def test_a_batch_of_parameters_ends_where_a_row_does_not_fit(connection, sink, notes):
    sink("n int8", "def sink(n): note(n)")
    with connection.cursor() as cursor, pytest.raises(connection.Error):
        cursor.executemany("INSERT INTO sink VALUES (?)", [(1,), (1000,)])


def test_too_few_and_too_many_values(connection, sink, notes):
    sink("a int8, b int8", "def sink(*columns): note(*columns)")
    error(connection, "INSERT INTO sink VALUES (1, 2, 3)")
    error(connection, "INSERT INTO sink VALUES (1)")
    assert not notes.exists()


def test_executemany(connection, sink, notes):
    sink("n int64, s string", "def sink(n, s): note(n, s)")
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO sink VALUES (?, ?)", [(1, "a"), (2, "b"), (3, None)])
        assert cursor.rowcount in (3, -1)
    found = [row for n, s in read(notes) for row in zip(n, s)]
    assert found == [(1, "a"), (2, "b"), (3, None)]


def test_parameters(connection, sink, notes):
    sink("n int8, s string, f float32", "def sink(*columns): note(*columns)")
    assert run(connection, "INSERT INTO sink VALUES (?, ?, ?)", (5, "it's ? $1", 0.5)) == 1
    assert read(notes) == [[[5], ["it's ? $1"], [0.5]]]


def test_from_stream_to_stream(connection, sink, notes):
    create(connection, "source", "n int64", "def source(): return list(range(10))")
    sink("n int64", "def sink(n): note(*n)")
    assert run(connection, "INSERT INTO sink SELECT n FROM source WHERE n % 2 = 0") == 5
    assert [n for call in read(notes) for n in call] == [0, 2, 4, 6, 8]


def test_a_source_that_fails_ends_the_insert(connection, sink, notes):
    create(connection, "source", "n int64", "def source():\n    yield 1\n    raise ValueError('boom')")
    sink("n int64", "def sink(n): note(*n)\ndef deinit(): note('deinit')", deinit_function_name="deinit")
    assert "boom" in error(connection, "INSERT INTO sink SELECT n FROM source")
    assert read(notes)[-1] == ["deinit"]


def test_a_stream_without_a_write_function(connection):
    create(connection, "reader", "n int64", "def reader(): return [1]")
    said = error(connection, "INSERT INTO reader VALUES (1)")
    assert "reader" in said and "argument" in said
    assert rows(connection, "SELECT * FROM reader") == [(1,)]


def test_the_same_function_may_read_and_write(connection, notes):
    body = NOTES.format(path=str(notes)) + "def both(*columns):\n    note(*columns)\n    return [7]\n"
    create(connection, "both", "n int64", body)
    assert run(connection, "INSERT INTO both VALUES (3)") == 1
    assert rows(connection, "SELECT * FROM both") == [(7,)]
    assert read(notes) == [[[3]], []]


def test_nested_values_in_an_insert(connection, sink, notes):
    sink("a array(int32), t tuple(x int32, y string)", "def sink(a, t): note(a, t)")
    assert run(connection, "INSERT INTO sink SELECT [1, 2], named_struct('x', 1, 'y', 'z')") == 1
    assert read(notes) == [[[[1, 2]], [[1, "z"]]]]


def test_a_failing_deinit_says_how_many_rows_had_been_accepted(connection, sink, notes):
    body = "def deinit(): raise OSError('cannot close')\ndef sink(n): note(len(n))\n"
    sink("n int64", body, deinit_function_name="deinit")
    message = error(connection, "INSERT INTO sink SELECT value FROM generate_series(1, 100)")
    assert "deinit function 'deinit' raised OSError: cannot close" in message
    assert "the write function had accepted 100 rows before" in message
    assert sum(size for (size,) in read(notes)) == 100
