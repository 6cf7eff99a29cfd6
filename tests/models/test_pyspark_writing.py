"""PySpark's writers: classes of the library's own, next to what its worker gives them without a JVM."""

import io
import threading
import warnings
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from uuid import UUID

import pytest
from couatl._writing import writing
from couatl.compat import pyspark as compat
from couatl.compat.pyspark import as_sink
from couatl.testing import Columns, write
from pyspark_shapes import ONE, STRUCT, TWO, datasource, types

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from pyspark.serializers import write_int, write_with_length
    from pyspark.sql.pandas.types import to_arrow_schema
    from pyspark.sql.worker import write_into_data_source
    from pyspark.worker_util import pickleSer

pa = pytest.importorskip("pyarrow")


@dataclass
class Message(datasource.WriterCommitMessage):
    rows: int


class Log(datasource.DataSource):
    """Keeps what its writer is told, in a list of the class."""

    log: list = None

    def writer(self, schema, overwrite):
        self.log.append((schema, overwrite))
        return LogWriter(self.log)


class LogWriter(datasource.DataSourceWriter):
    def __init__(self, log):
        self.log = log

    def write(self, iterator):
        found = list(iterator)
        self.log += found
        return Message(len(found))

    def commit(self, messages):
        self.log.append(("commit", messages))

    def abort(self, messages):
        self.log.append(("abort", messages))


@pytest.fixture
def log(monkeypatch):
    kept = []
    monkeypatch.setattr(Log, "log", kept)
    return kept


def spark_written(cls, schema, batches, streaming=False):
    """What a writer is given by the library's worker; the message that it returns."""
    sent, out = io.BytesIO(), io.BytesIO()
    pickleSer._write_with_length(cls, sent)
    for text in [cls.name(), schema.json(), types.StructType().add("m", types.BinaryType()).json()]:
        write_with_length(text.encode(), sent)
    write_int(0, sent)
    # overwrite, is_streaming, binary_as_bytes
    sent.write(bytes([0, streaming, 1]))
    sent.seek(0)
    write_into_data_source._main(sent, out)
    out.seek(0)
    func, _ = pickleSer._read_with_length(out)
    [batch] = func(iter(batches))
    return pickleSer.loads(batch.column(0)[0].as_py())


def test_a_batch_is_one_task_with_the_librarys_rows(log):
    write(Log, [(1, "a"), (2, "b")], columns=TWO)
    row = types.Row("id", "name")
    assert log == [(STRUCT, False), (1, "a"), (2, "b"), ("commit", [Message(2)])]
    assert log[1:3] == [row(1, "a"), row(2, "b")]
    assert isinstance(log[1], types.Row)
    assert (log[1].name, log[1].asDict()) == ("a", {"id": 1, "name": "a"})


KEPT = []


class Kept(datasource.DataSource):
    """What is pickled on its way: its rows are kept by the module."""

    def writer(self, schema, overwrite):
        return KeptWriter()


class KeptWriter(datasource.DataSourceWriter):
    def write(self, iterator):
        KEPT.extend(iterator)
        return Message(len(KEPT))


def test_values_are_what_the_librarys_worker_gives(away):
    inner = types.StructType().add("at", types.TimestampType()).add("n", types.IntegerType())
    schema = (
        types.StructType()
        .add("at", types.TimestampType())
        .add("wall", types.TimestampNTZType())
        .add("inner", inner)
        .add("all", types.ArrayType(inner))
        .add("map", types.MapType(types.StringType(), types.TimestampType()))
    )
    spellings = [
        "timestamptz",
        "datetime64(6)",
        "tuple(at timestamptz, n int32)",
        "array(tuple(at datetime64(6, 'UTC'), n int32))",
        "map(string, timestamptz)",
    ]
    columns = Columns(schema.names, spellings)
    noon = datetime(2025, 1, 1, 12, tzinfo=timezone.utc)
    values = (noon, noon.replace(tzinfo=None), (noon, 1), [(noon, 2), None], {"a": noon, "b": None})
    arrow = to_arrow_schema(schema, timezone="UTC")
    plain = [noon, values[1], {"at": noon, "n": 1}, [{"at": noon, "n": 2}, None], list(values[4].items())]
    batch = pa.record_batch([pa.array([value], field.type) for value, field in zip(plain, arrow)], schema=arrow)
    KEPT.clear()
    # What is pickled by reference is this module, so that it keeps the rows here.
    spark_written(Kept, schema, [batch])
    write(Kept, [values], columns=columns)
    there, here = KEPT
    assert here == there
    assert (here.inner.n, here.inner.at) == (1, datetime(2025, 1, 1, 7))
    assert here["all"][0].asDict() == there["all"][0].asDict()


def test_values_that_spark_has_no_type_for(log):
    columns = Columns(["u", "j", "big", "e"], ["uuid", "json", "uint64", "enum8('a' = 1)"])
    write(Log, [(UUID(int=1), {"a": [1]}, 2**64 - 1, "a"), (None, None, None, None)], columns=columns)
    assert log[1] == ("00000000-0000-0000-0000-000000000001", '{"a": [1]}', Decimal(2**64 - 1), "a")
    assert log[2] == (None,) * 4


def test_no_rows_are_a_task_too(log):
    write(Log, [], columns=TWO)
    assert log[1:] == [("commit", [Message(0)])]


def write_ten_rows():
    sink = writing(Log, {}, ONE)
    sink.open()
    for n in range(10):
        sink.write([n])
    sink.flush()
    sink.commit()
    sink.close()


def test_rows_are_pulled_while_they_are_pushed(log):
    write_ten_rows()
    assert log[1:] == [*((n,) for n in range(10)), ("commit", [Message(10)])]


def test_a_writer_that_raises_is_aborted(monkeypatch, log):
    class Broken(LogWriter):
        def write(self, iterator):
            next(iterator)
            raise OSError("disk full")

    monkeypatch.setattr(Log, "writer", lambda self, schema, overwrite: Broken(log))
    with pytest.raises(OSError, match="disk full"):
        write(Log, [(1, "a")], columns=TWO)
    assert log == [("abort", [None])]


def test_an_abort_ends_a_task_where_it_pulls(monkeypatch, log):
    class Careful(LogWriter):
        def write(self, iterator):
            try:
                return super().write(iterator)
            except Exception:
                raise AssertionError from None
            finally:
                log.append("left")

    monkeypatch.setattr(Log, "writer", lambda self, schema, overwrite: Careful(log))
    before = threading.active_count()
    sink = writing(Log, {}, ONE)
    sink.open()
    sink.write([1])
    sink.abort()
    sink.close()
    assert log == ["left", ("abort", [None])]
    assert threading.active_count() == before


def test_a_writer_that_has_enough_is_not_waited_for(monkeypatch, log):
    class First(LogWriter):
        def write(self, iterator):
            log.append(next(iterator))

    monkeypatch.setattr(Log, "writer", lambda self, schema, overwrite: First(log))
    write_ten_rows()
    assert log == [(0,), ("commit", [None])]


class StreamWriter(datasource.DataSourceStreamWriter):
    def __init__(self, log):
        self.log = log

    def write(self, iterator):
        return Message(len(list(iterator)))

    def commit(self, messages, batchId):
        self.log.append(("commit", messages, batchId))

    def abort(self, messages, batchId):
        self.log.append(("abort", messages, batchId))


def test_a_stream_writer_has_a_number_for_each_flush():
    class Streamed(datasource.DataSource):
        def streamWriter(self, schema, overwrite):
            return StreamWriter(told)

    told = []
    sink = as_sink(Streamed, {}, ONE)
    sink.open(ONE)
    for block in [[1, 2], [3]]:
        sink.write(block)
        sink.flush()
        sink.commit()
    sink.flush()
    sink.commit()
    sink.write([4])
    sink.abort()
    sink.close()
    assert told == [("commit", [Message(2)], 0), ("commit", [Message(1)], 1), ("abort", [None], 2)]


@pytest.mark.parametrize("base", [datasource, compat])
def test_an_arrow_writer_is_given_record_batches(base):
    class Writer(base.DataSourceArrowWriter):
        def write(self, iterator):
            batches.extend(iterator)

    class Source(base.DataSource):
        def writer(self, schema, overwrite):
            given.append(schema)
            return Writer()

    batches, given = [], []
    columns = Columns(
        ["id", "all", "map", "inner", "at", "d", "u"],
        ["int64", "array(int32)", "map(string, int64)", "tuple(a int32)", "timestamptz", "decimal(9, 2)", "uuid"],
    )
    at = datetime(2025, 1, 1, tzinfo=timezone.utc)
    write(Source, [(1, [1, None], {"a": 1}, (5,), at, Decimal("1.50"), UUID(int=1))], columns=columns)
    [batch] = batches
    assert batch.schema == to_arrow_schema(given[0], timezone="UTC")
    assert batch.to_pylist()[0] == {
        "id": 1,
        "all": [1, None],
        "map": [("a", 1)],
        "inner": {"a": 5},
        "at": at,
        "d": Decimal("1.50"),
        "u": "00000000-0000-0000-0000-000000000001",
    }


def test_writers_that_return_what_they_must_not(monkeypatch, log):
    class Wrong(LogWriter):
        def write(self, iterator):
            return 3

    monkeypatch.setattr(Log, "writer", lambda self, schema, overwrite: Wrong(log))
    expected = r"Wrong.write\(\) returned 3 \(int\); expected a WriterCommitMessage, or None$"
    with pytest.raises(TypeError, match=expected):
        write(Log, [(1, "a")], columns=TWO)
    monkeypatch.setattr(Log, "writer", lambda self, schema, overwrite: 3)
    with pytest.raises(TypeError, match=r"Log.writer\(\) returned 3 \(int\); expected a DataSourceWriter$"):
        write(Log, [(1, "a")], columns=TWO)

    class Neither(datasource.DataSource):
        pass

    with pytest.raises(TypeError, match=r"Neither has none of writer\(\), streamWriter\(\); a sink must$"):
        write(Neither, [(1, "a")], columns=TWO)
