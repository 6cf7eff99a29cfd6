"""Bulk ingestion: rows that a client uploads for a table, without a statement."""

import json
import subprocess
import sys
from contextlib import contextmanager

import grpc
import numpy
import pandas
import pyarrow
import pytest
from adbc_driver_manager import Error
from harness import PATIENCE, create, error, queries, rows, run, wait_until
from pyarrow import flight
from test_jdbc import message, packed, parsed, unpacked

PEOPLE = pyarrow.table(
    {"id": [1, 2, 3], "Full name": ["Ada", None, 'Gr"ace'], "at": pyarrow.array([0, 1, 2], "timestamp[us]")}
)


@pytest.fixture
def table(connection):
    """A name that is free, and free again after the test."""
    yield "people"
    run(connection, "DROP TABLE IF EXISTS people")


def ingest(connection, table, data, mode, **where):
    with connection.cursor() as cursor:
        return cursor.adbc_ingest(table, data, mode=mode, **where)


def refused(connection, table, data, mode, **where):
    with pytest.raises(Error) as raised:
        ingest(connection, table, data, mode, **where)
    return str(raised.value)


def ids(connection, table):
    return [id for (id,) in rows(connection, f"SELECT id FROM {table} ORDER BY id")]


def test_modes_where_there_is_no_table(connection, table):
    assert "there is no table or stream 'people'" in refused(connection, table, PEOPLE, "append")
    for mode in ["create", "create_append", "replace"]:
        assert ingest(connection, table, PEOPLE, mode) == 3
        assert ids(connection, table) == [1, 2, 3]
        run(connection, "DROP TABLE people")


def test_modes_where_there_is_one(connection, table):
    assert ingest(connection, table, PEOPLE, "create") == 3
    assert "'people' exists already" in refused(connection, table, PEOPLE, "create")
    assert ids(connection, table) == [1, 2, 3]
    assert ingest(connection, table, PEOPLE.slice(0, 1), "append") == 1
    assert ingest(connection, table, PEOPLE.slice(1, 1), "create_append") == 1
    assert ids(connection, table) == [1, 1, 2, 2, 3]
    assert ingest(connection, table, PEOPLE.slice(2), "replace") == 1
    assert ids(connection, table) == [3]


def test_values_and_their_types_stay(connection, table):
    ingest(connection, table, PEOPLE, "create")
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM people ORDER BY id")
        assert cursor.fetch_arrow_table().equals(PEOPLE)


def test_columns_go_by_their_names(connection, table):
    ingest(connection, table, PEOPLE, "create")
    given = pyarrow.table({"Full name": ["Alan"], "id": pyarrow.array([4], "int8")})
    assert ingest(connection, table, given, "append") == 1
    assert rows(connection, "SELECT * FROM people WHERE id = 4") == [(4, "Alan", None)]
    assert "nickname" in refused(connection, table, given.rename_columns(["nickname", "id"]), "append")
    twice = pyarrow.table([pyarrow.array([1]), pyarrow.array([2])], names=["id", "id"])
    assert "id" in refused(connection, table, twice, "append")
    assert ids(connection, table) == [1, 2, 3, 4]


def test_values_are_stored_exactly_or_refused(connection, table):
    ingest(connection, table, pyarrow.table({"id": pyarrow.array([1], "int8")}), "create")
    assert ingest(connection, table, pyarrow.table({"id": [2.0, 3.0]}), "append") == 2
    for wrong in [1.5, 1000]:
        said = refused(connection, table, pyarrow.table({"id": [4, wrong]}), "append")
        assert f"row 2 of the INSERT, column 'id' (int8): cannot store {wrong}" in said
    assert "cannot store a value of bool" in refused(connection, table, pyarrow.table({"id": [True]}), "append")
    assert ids(connection, table) == [1, 2, 3]


def test_names_may_have_anything_in_them(connection):
    name = 'od"d. % nAme_'
    quoted = '"od""d. % nAme_"'
    try:
        assert ingest(connection, name, PEOPLE, "create", db_schema_name="public", catalog_name="couatl") == 3
        assert ids(connection, quoted) == [1, 2, 3]
    finally:
        run(connection, f"DROP TABLE IF EXISTS {quoted}")


def test_a_stream_is_written_to_in_batches(connection, tmp_path):
    notes = tmp_path / "notes"
    body = f"""
import json
import subprocess
import sys

def sink(id, name):
    with open({str(notes)!r}, "a") as file:
        print(json.dumps([id, name]), file=file)
"""
    create(connection, "sink", "id int64, name string", body)
    given = pyarrow.table({"name": ["Ada", None], "id": pyarrow.array([1, 2], "int32")})
    assert ingest(connection, "sink", given, "append") == 2
    assert [json.loads(line) for line in notes.read_text().splitlines()] == [[[1, 2], ["Ada", None]]]
    said = refused(connection, "sink", pyarrow.table({"id": ["one"], "name": ["Ada"]}), "append")
    assert "column 'id' (int64): cannot store 'one'" in said
    assert "is a stream, which rows cannot replace" in refused(connection, "sink", given, "replace")


def test_no_rows(connection, table):
    ingest(connection, table, PEOPLE, "create")
    for nothing in [PEOPLE.slice(0, 0), pyarrow.RecordBatchReader.from_batches(PEOPLE.schema, [])]:
        assert ingest(connection, table, nothing, "append") == 0
    assert ids(connection, table) == [1, 2, 3]


def test_a_failure_leaves_what_there_was(connection, table):
    ingest(connection, table, PEOPLE, "create")
    wrong = pyarrow.table({"id": ["x", "y"]})
    assert "x" in refused(connection, table, wrong, "append")
    assert ids(connection, table) == [1, 2, 3]


def test_what_rows_cannot_go_into(connection):
    run(connection, "CREATE VIEW seen AS SELECT 1 AS id")
    try:
        assert "'seen' is a view, which rows cannot replace" in refused(connection, "seen", PEOPLE, "replace")
        assert "not implemented" in refused(connection, "seen", PEOPLE.select(["id"]), "append")
        assert rows(connection, "SELECT * FROM seen") == [(1,)]
    finally:
        run(connection, "DROP VIEW seen")
    assert "no schema 'couatl.nowhere'" in refused(connection, "t", PEOPLE, "create", db_schema_name="nowhere")
    assert "cannot be made there" in refused(connection, "t", PEOPLE, "create", db_schema_name="system")
    assert "temporary tables are not offered" in refused(connection, "t", PEOPLE, "create", temporary=True)


# Its table, made where there is none, appended to where there is one.
INGEST = packed("CommandStatementIngest", (1, message((1, 1), (2, 2))), (2, "people"))


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server.uri.removeprefix("grpc://")) as channel:
        yield channel


def called(channel, method, *requests):
    """The answers to messages as they are on the wire."""
    call = channel.stream_stream(f"/arrow.flight.protocol.FlightService/{method}")
    return [*call(iter(requests), timeout=PATIENCE)]


def uploaded(channel, command, body):
    """Uploads one batch of one column with another body than its own."""
    batch = pyarrow.record_batch({"id": [1, 2, 3]})
    schema, values = (pyarrow.ipc.read_message(part.serialize()) for part in [batch.schema, batch])
    first = message((1, message((1, 2), (2, command))), (2, schema.metadata.to_pybytes()))
    return called(channel, "DoPut", first, message((2, values.metadata.to_pybytes()), (1000, body)))


def refusal(channel, command, body):
    with pytest.raises(grpc.RpcError) as raised:
        uploaded(channel, command, body)
    kind = dict(raised.value.trailing_metadata()).get("x-couatl-error-kind")
    return raised.value.code(), kind, raised.value.details()


def prepared(channel, sql):
    request = packed("ActionCreatePreparedStatementRequest", (1, sql))
    (answer,) = called(channel, "DoAction", message((1, "CreatePreparedStatement"), (2, request)))
    return dict(parsed(unpacked("ActionCreatePreparedStatementResult", dict(parsed(answer))[1])))[1]


@pytest.mark.parametrize("body", [b"", bytes(8)])
def test_a_body_that_is_cut_short_is_refused(channel, connection, table, body):
    ingest(connection, table, PEOPLE.select(["id"]), "create")
    query = packed("CommandPreparedStatementQuery", (1, prepared(channel, "SELECT id FROM people WHERE id = ?")))
    update = packed("CommandPreparedStatementUpdate", (1, prepared(channel, "INSERT INTO people VALUES (?)")))
    for command in [INGEST, query, update]:
        code, kind, said = refusal(channel, command, body)
        assert (code, kind) == (grpc.StatusCode.INVALID_ARGUMENT, "invalid-argument"), said
        assert "cannot read the upload: " in said
    assert ids(connection, table) == [1, 2, 3]


def test_a_message_that_is_too_large_is_refused(channel, table):
    code, kind, said = refusal(channel, INGEST, bytes(17 << 20))
    assert (code, kind) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "resources-exhausted"), said
    assert "16777216 bytes" in said and "in smaller batches" in said


def test_what_is_too_large_once_it_is_decompressed_is_refused(server, connection, table):
    zeros = pyarrow.record_batch({"id": numpy.zeros(16 << 20, "int64")})
    options = flight.FlightCallOptions(PATIENCE, pyarrow.ipc.IpcWriteOptions(compression="zstd"))
    descriptor = flight.FlightDescriptor.for_command(INGEST)
    failures = (flight.FlightError, pyarrow.ArrowException, OSError)
    with flight.connect(server.uri) as client, pytest.raises(failures, match="once it is decompressed"):
        writer, reader = client.do_put(descriptor, zeros.schema, options)
        writer.write_batch(zeros)
        writer.done_writing()
        reader.read()
        writer.close()
    assert "not found" in error(connection, "SELECT * FROM people")


def test_a_dictionary_that_stands_for_too_much_is_refused(connection, table):
    long = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 1000, "int32"), pyarrow.array(["x" * 1_000_000]))
    with connection.cursor() as cursor, pytest.raises(connection.Error, match="as plain values"):
        cursor.adbc_ingest("people", pyarrow.table({"id": long}), mode="create")
    assert "not found" in error(connection, "SELECT * FROM people")


# A client that uploads one batch, says so, and waits to be killed.
HANGING = """
import pathlib
import sys
import time

import pyarrow
from adbc_driver_flightsql import dbapi

uri, mode, sent = sys.argv[1:]

def batches():
    yield pyarrow.record_batch({"id": [100, 101]})
    pathlib.Path(sent).touch()
    time.sleep(1000)

schema = pyarrow.schema({"id": "int64"})
with dbapi.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:
    cursor.adbc_ingest("people", pyarrow.RecordBatchReader.from_batches(schema, batches()), mode=mode)
"""


@contextmanager
def hanging(server, connection, mode, sent):
    """A client that is in the middle of an ingestion; then it is gone, and so is what it had begun."""
    command = [sys.executable, "-c", HANGING, server.uri, mode, str(sent)]
    client = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        wait_until(lambda: sent.exists() and queries(connection), "the ingestion runs")
        yield
    finally:
        client.kill()
        client.wait()
    wait_until(lambda: not queries(connection), "the ingestion has ended")


def test_a_client_that_vanishes_halfway_changes_nothing(server, connection, table, tmp_path):
    with hanging(server, connection, "create", tmp_path / "created"):
        assert "not found" in error(connection, "SELECT * FROM people")
    assert "not found" in error(connection, "SELECT * FROM people")
    ingest(connection, table, PEOPLE, "create")
    with hanging(server, connection, "replace", tmp_path / "replaced"):
        assert ids(connection, table) == [1, 2, 3]
    assert ids(connection, table) == [1, 2, 3]


@pytest.mark.parametrize("mode", ["create", "create_append", "replace"])
def test_what_others_make_meanwhile_stays(server, connection, table, tmp_path, mode):
    with hanging(server, connection, mode, tmp_path / "sent"):
        assert ingest(connection, table, PEOPLE, "create_append") == 3
    assert ids(connection, table) == [1, 2, 3]


def test_pandas_writes_a_frame(connection, table):
    frame = pandas.DataFrame({"id": [1, 2], "name": ["Ada", "Alan"]})
    assert frame.to_sql(table, connection, index=False) == 2
    assert rows(connection, "SELECT * FROM people ORDER BY id") == [(1, "Ada"), (2, "Alan")]
    assert frame.to_sql(table, connection, index=False, if_exists="append") == 2
    assert ids(connection, table) == [1, 1, 2, 2]
