"""PySpark data sources: classes of the library's own, next to what its worker functions make of them without a JVM."""

import io
import threading
import warnings
from contextlib import closing
from datetime import datetime, timezone
from itertools import islice

import pytest
from couatl._reading import reading
from couatl._shapes import flat
from couatl.compat import pyspark as compat
from couatl.compat._pyspark_reading import POLLING_DELAY
from couatl.compat.pyspark import as_source
from couatl.testing import Columns, clock, rows, write
from pyspark_shapes import ONE, STRUCT, TWO, datasource, types

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from pyspark.serializers import read_int
    from pyspark.sql.datasource_internal import _SimpleStreamReaderWrapper
    from pyspark.sql.streaming.datasource import ReadAllAvailable, ReadMaxRows
    from pyspark.sql.worker import plan_data_source_read
    from pyspark.worker_util import pickleSer

pa = pytest.importorskip("pyarrow")


class Numbers(datasource.DataSource):
    """Two partitions; the reader counts what it has read."""

    def schema(self):
        return STRUCT

    def reader(self, schema):
        return NumbersReader(int(self.options.get("rows", "2")))


class NumbersReader(datasource.DataSourceReader):
    def __init__(self, count):
        self.count = count
        self.reads = 0

    def partitions(self):
        return [datasource.InputPartition(10), datasource.InputPartition(20)]

    def read(self, partition):
        self.reads += 1
        for n in range(self.count):
            yield partition.value + n, f"read {self.reads}"


def spark_rows(cls, **options):
    """What the library's worker reads, through the function that it would send to its JVM."""
    source = cls(options=datasource.CaseInsensitiveDict(options))
    schema, out = source.schema(), io.BytesIO()
    reader = source.reader(schema)
    plan_data_source_read.write_read_func_and_partitions(
        out, reader=reader, data_source=source, schema=schema, max_arrow_batch_size=100, binary_as_bytes=True
    )
    out.seek(0)
    read, _ = pickleSer._read_with_length(out)
    found = []
    for part in [pickleSer._read_with_length(out) for _ in range(read_int(out))]:
        task = pa.record_batch([pa.array([pickleSer.dumps(part)], pa.binary())], names=["partition"])
        # Each task has a copy of the reader.
        task_read = pickleSer.loads(pickleSer.dumps(read))
        for batch in task_read(iter([task])):
            found += [tuple(row.values()) for row in batch.to_pylist()]
    return found


def one_reader(read, schema=STRUCT, partitions=None, base=datasource):
    """A data source that reads by a function."""

    class Reader(base.DataSourceReader):
        def read(self, partition):
            return read()

    if partitions is not None:
        Reader.partitions = lambda self: partitions() if callable(partitions) else partitions

    class Source(base.DataSource):
        def schema(self):
            return schema

        def reader(self, schema):
            return Reader()

    return Source


# Batches


def test_a_batch_is_what_the_librarys_worker_reads():
    assert rows(Numbers, columns=TWO, rows=2) == spark_rows(Numbers, rows="2")
    assert rows(Numbers) == [(10, "read 1"), (11, "read 1"), (20, "read 1"), (21, "read 1")]


def test_partitions_are_partitions():
    with closing(reading(Numbers, {}, TWO)) as source:
        assert source.partitions == ["0", "1"]
        with closing(source.open("1")) as pull:
            assert next(iter(pull)) == (20, "read 1")


def test_options_are_text_with_names_in_any_case():
    class Told(datasource.DataSource):
        def __init__(self, options):
            super().__init__(options)
            told.append((options["Path"], options.get("HEADER"), "rows" in options, dict(options)))

        def reader(self, schema):
            return NumbersReader(0)

    told = []
    rows(Told, columns=TWO, path="/x", header=True, Rows=3, none=None)
    assert told == [("/x", "true", True, {"path": "/x", "header": "true", "rows": "3"})]


def test_columns_of_the_statement_come_before_those_of_the_class():
    class Given(Numbers):
        def reader(self, schema):
            given.append(schema)
            return super().reader(schema)

    given = []
    rows(Given, columns=Columns(["a", "b"], ["int32", "string"]))
    rows(Given)
    assert given == [types.StructType().add("a", types.IntegerType()).add("b", types.StringType()), STRUCT]


def test_rows_by_name_lists_and_dicts():
    def read():
        yield types.Row(name="a", id=1)
        yield types.Row("id", "name")(2, "b")
        yield [3, "c"]
        yield 4, "d"

    source = one_reader(read)
    assert rows(source) == spark_rows(source) == [(1, "a"), (2, "b"), (3, "c"), (4, "d")]
    assert rows(one_reader(lambda: iter([{"name": "e", "id": 5}]))) == [(5, "e")]


def test_a_row_that_begins_with_a_list_is_a_row():
    schema = types.StructType().add("ids", types.ArrayType(types.LongType())).add("n", types.LongType())
    source = one_reader(lambda: iter([([1, 2], 3)]), schema)
    assert rows(source) == spark_rows(source) == [([1, 2], 3)]


def test_record_batches_stay_as_they_are():
    batch = pa.record_batch({"id": pa.array([1, 2], pa.int64()), "name": ["a", "b"]})
    source = one_reader(lambda: iter([batch]))
    assert rows(source) == [batch]
    assert spark_rows(source) == [(1, "a"), (2, "b")]


def test_no_partitions_are_one():
    source = one_reader(lambda: iter([(1, "a")]), partitions=[])
    assert rows(source) == spark_rows(source) == [(1, "a")]

    def partitions():
        raise NotImplementedError

    assert rows(one_reader(lambda: iter([(1, "a")]), partitions=partitions)) == [(1, "a")]


def test_times_without_a_zone_are_local_where_the_type_is_an_instant(away):
    schema = types.StructType().add("at", types.TimestampType()).add("wall", types.TimestampNTZType())
    nested = types.ArrayType(types.StructType().add("at", types.TimestampType()))
    schema = schema.add("all", nested)
    noon = datetime(2025, 1, 1, 12)
    source = one_reader(lambda: iter([(noon, noon, [{"at": noon}])]), schema)
    [(at, wall, [inner])] = rows(source)
    [(there, wall_there, [inner_there])] = spark_rows(source)
    assert at == there == datetime(2025, 1, 1, 17, tzinfo=timezone.utc)
    assert wall == wall_there == noon
    assert inner == tuple(inner_there.values()) == (at,)


def test_an_error_of_a_reader_is_raised_and_its_generator_closed():
    def read():
        try:
            yield 1, "a"
            raise LookupError("gone")
        finally:
            closed.append(1)

    closed = []
    with pytest.raises(LookupError, match="gone"):
        rows(one_reader(read))
    assert rows(one_reader(read), limit=1) == [(1, "a")]
    assert closed == [1, 1]


def test_filters_are_not_pushed():
    class Pushed(NumbersReader):
        def pushFilters(self, filters):
            raise AssertionError

    class Source(Numbers):
        def reader(self, schema):
            return Pushed(1)

    assert len(rows(Source)) == 2


# Streams


class Counter(datasource.SimpleDataSourceStreamReader):
    """Three rows a read, up to an end."""

    def __init__(self, log, end=6, step=3):
        self.log, self.end, self.step = log, end, step

    def initialOffset(self):
        return {"offset": 0}

    def read(self, start):
        end = min(start["offset"] + self.step, self.end)
        return self.readBetweenOffsets(start, {"offset": end}), {"offset": end}

    def readBetweenOffsets(self, start, end):
        return iter([(n, str(n)) for n in range(start["offset"], end["offset"])])

    def commit(self, end):
        self.log.append(end)


class Split(datasource.DataSourceStreamReader):
    """Two partitions for each microbatch."""

    def __init__(self, log, end=8, step=4):
        self.log, self.end, self.step = log, end, step

    def initialOffset(self):
        return {"offset": 0}

    def latestOffset(self, start, limit):
        self.log.append(limit)
        return {"offset": min(start["offset"] + self.step, self.end)}

    def partitions(self, start, end):
        middle = (start["offset"] + end["offset"]) // 2
        bounds = [(start["offset"], middle), (middle, end["offset"])]
        return [datasource.InputPartition(bound) for bound in bounds]

    def read(self, partition):
        for n in range(*partition.value):
            yield n, str(n)

    def commit(self, end):
        self.log.append(end)

    def stop(self):
        self.log.append("stop")


def stream_source(reader, method):
    class Source(datasource.DataSource):
        def schema(self):
            return STRUCT

    setattr(Source, method, lambda self, schema: reader)
    return Source


def spark_microbatches(reader, count):
    """The first microbatches, in the order of calls of Spark's engine."""
    stream = _SimpleStreamReaderWrapper(reader) if isinstance(reader, Counter) else reader
    start, found = stream.initialOffset(), []
    while len(found) < count:
        end = stream.latestOffset(start, ReadAllAvailable())
        parts = stream.partitions(start, end)
        cached = stream.getCache(start, end) if isinstance(reader, Counter) else None
        found.append(list(cached) if cached is not None else [row for part in parts for row in stream.read(part)])
        stream.commit(end)
        start = end
    return found


def pulled(pull, count):
    """Batches that hold something."""
    return list(islice((batch for batch in pull if batch), count))


def taken(pull, count):
    """So many rows, alone or in batches."""
    return list(islice(flat(pull, TWO), count))


@pytest.mark.parametrize(("cls", "method"), [(Counter, "simpleStreamReader"), (Split, "streamReader")])
def test_a_stream_gives_the_microbatches_of_spark(cls, method):
    log = []
    with (
        closing(reading(stream_source(cls(log), method), {}, TWO)) as source,
        closing(source.open("")) as pull,
    ):
        assert pull.snapshot() == {"offset": 0}
        found = spark_microbatches(cls([]), 2)
        assert [taken(pull, len(rows)) for rows in found] == found
        # It goes on for ever: there is nothing new.
        assert next(pull) is None
        assert next(pull) is None
        assert pull.snapshot() == {"offset": cls([]).end}
    ends = [entry for entry in log if isinstance(entry, dict)]
    assert ends == [{"offset": len(found[0])}, {"offset": len(found[0]) * 2}]
    assert log.count("stop") == (cls is Split)


def test_the_rows_of_a_list_leave_together():
    class Listed(Split):
        def read(self, partition):
            return list(super().read(partition))

    for reader, method in [(Counter([]), "simpleStreamReader"), (Listed([], step=6), "streamReader")]:
        with closing(reading(stream_source(reader, method), {}, TWO)) as source, closing(source.open("")) as pull:
            assert [[n for n, _ in batch] for batch in pulled(pull, 2)] == [[0, 1, 2], [3, 4, 5]]


def test_a_stream_goes_on_from_its_snapshot():
    source = stream_source(Counter([], end=9), "simpleStreamReader")
    assert rows(source, columns=TWO, state={"offset": 6}, limit=3) == [(6, "6"), (7, "7"), (8, "8")]


@pytest.mark.parametrize(("cls", "method"), [(Counter, "simpleStreamReader"), (Split, "streamReader")])
def test_a_snapshot_within_a_microbatch(cls, method, monkeypatch):
    monkeypatch.setattr("couatl.compat._pyspark_reading.CHUNK", 3)
    source = stream_source(cls([], end=8, step=8), method)
    with closing(reading(source, {}, TWO)) as opened, closing(opened.open("")) as pull:
        assert [n for n, _ in taken(pull, 3)] == [0, 1, 2]
        state = pull.snapshot()
        assert opened.open("", state).snapshot() == state
    assert state == ({"offset": 0}, {"offset": 8}, 3)
    assert [n for n, _ in rows(source, columns=TWO, state=state, limit=5)] == [3, 4, 5, 6, 7]


@pytest.mark.parametrize("method", ["simpleStreamReader", "streamReader"])
def test_after_an_empty_microbatch_it_waits(method):
    class Late(Counter if method == "simpleStreamReader" else Split):
        def readBetweenOffsets(self, start, end):
            return iter([(1, "a")] if start["offset"] == 2 else [])

        def partitions(self, start, end):
            return [datasource.InputPartition(start)]

        def read(self, asked):
            return super().read(asked) if method == "simpleStreamReader" else self.readBetweenOffsets(asked.value, None)

    with clock() as testing:
        start = testing.now()
        assert rows(stream_source(Late([], step=1), method), columns=TWO, limit=1) == [(1, "a")]
        assert testing.now() - start == 2 * POLLING_DELAY


def test_offsets_are_what_json_makes_of_them():
    class Odd(Counter):
        def initialOffset(self):
            return {0: (1, 2)}

        def read(self, start):
            starts.append(start)
            start["0"] = "mine to change"
            return iter([(1, "a")]), {"next": 1}

    starts = []
    rows(stream_source(Odd([]), "simpleStreamReader"), columns=TWO, limit=1)
    assert starts[0] == {"0": "mine to change"}
    with closing(reading(stream_source(Odd([]), "simpleStreamReader"), {}, TWO)) as opened:
        assert opened.open("").snapshot() == {"0": [1, 2]}


def test_the_limit_is_the_readers_default_and_may_be_missing():
    class Limited(Split):
        def getDefaultReadLimit(self):
            return ReadMaxRows(5)

    class Old(Split):
        def latestOffset(self):
            return {"offset": 4}

    log = []
    assert len(rows(stream_source(Limited(log), "streamReader"), columns=TWO, limit=4)) == 4
    assert log[0] == ReadMaxRows(5)
    rows(stream_source(Split(log), "streamReader"), columns=TWO, limit=4)
    assert ReadAllAvailable() in log
    assert len(rows(stream_source(Old([]), "streamReader"), columns=TWO, limit=4)) == 4


@pytest.mark.parametrize(("cls", "method"), [(Counter, "simpleStreamReader"), (Split, "streamReader")])
def test_a_row_does_not_wait_for_the_next(cls, method):
    class Slow(cls):
        def slow(self, *_):
            yield 1, "a"
            assert has_been_given.wait(5)
            yield 2, "b"

    has_been_given = threading.Event()
    setattr(Slow, "readBetweenOffsets" if cls is Counter else "read", Slow.slow)
    source = stream_source(Slow([]), method)
    with closing(reading(source, {}, TWO)) as opened, closing(opened.open("")) as pull:
        assert next(pull) == (1, "a")
        has_been_given.set()
        assert next(pull) == (2, "b")


def test_a_row_does_not_wait_for_the_next_partition():
    class Slow(Split):
        def read(self, partition):
            if partition.value[0] > 0:
                assert has_been_given.wait(5)
            return [(n, str(n)) for n in range(*partition.value)]

    has_been_given = threading.Event()
    source = stream_source(Slow([]), "streamReader")
    with closing(reading(source, {}, TWO)) as opened, closing(opened.open("")) as pull:
        assert next(pull) == [(0, "0"), (1, "1")]
        has_been_given.set()
        assert next(pull) == [(2, "2"), (3, "3")]


def test_record_batches_of_a_stream_leave_alone():
    batch = pa.record_batch({"id": pa.array([1], pa.int64()), "name": ["a"]})

    class Mixed(Counter):
        def readBetweenOffsets(self, start, end):
            return iter([(0, "0"), batch, (1, "1")] if start["offset"] == 0 else [])

    found = []
    with (
        closing(reading(stream_source(Mixed([]), "simpleStreamReader"), {}, TWO)) as opened,
        closing(opened.open("")) as pull,
    ):
        found = pulled(pull, 3)
    assert found == [[(0, "0")], batch, [(1, "1")]]


def test_a_cancel_ends_a_stream_that_waits():
    source = stream_source(Counter([], end=0), "simpleStreamReader")
    with closing(reading(source, {}, TWO)) as opened, closing(opened.open("")) as pull:
        threading.Timer(0.03, pull.cancel).start()
        assert [batch for batch in pull if batch] == []


def test_which_reader():
    class Both(Numbers):
        def simpleStreamReader(self, schema):
            return Counter([])

    class Neither(datasource.DataSource):
        pass

    def parts(thing, *arguments, **options):
        return as_source(thing, options, TWO, *arguments).partitions()

    assert parts(Both) == parts(Both, mode="batch") == parts(Both, mode="append") == ["0", "1"]
    assert parts(Both, mode="streaming") == parts(Both, True) == [""]
    assert parts(Both, False, mode="streaming") == ["0", "1"]
    assert parts(Numbers, mode="streaming") == ["0", "1"]
    expected = r"Neither has none of reader\(\), streamReader\(\), simpleStreamReader\(\); a source must$"
    with pytest.raises(TypeError, match=expected):
        parts(Neither)


def test_a_data_source_that_is_only_written_to_says_its_columns():
    class Written(datasource.DataSource):
        def schema(self):
            return STRUCT

        def writer(self, schema, overwrite):
            raise AssertionError

    for thing in (Written, Written({})):
        source = as_source(thing, {}, None)
        assert source.schema() == as_source(Numbers, {}, None).schema()
        with pytest.raises(TypeError, match=r"^Written has none of reader\(\), .*; a source must$"):
            source.partitions()


# Our own base classes


def test_our_classes_need_no_library(monkeypatch):
    def missing(name):
        if name.startswith("pyspark"):
            raise ModuleNotFoundError(name)
        return imported(name)

    from couatl.compat import _pyspark_types

    imported = _pyspark_types.importlib.import_module
    monkeypatch.setattr("couatl.compat._pyspark_types.importlib.import_module", missing)

    class Writer(compat.DataSourceWriter):
        def write(self, iterator):
            written.extend(iterator)
            return compat.WriterCommitMessage()

    class Source(compat.DataSource):
        def schema(self):
            return "id LONG, name STRING"

        def reader(self, schema):
            given.append(schema)
            return Reader()

        def writer(self, schema, overwrite):
            return Writer()

    class Reader(compat.DataSourceReader):
        def read(self, partition):
            yield compat.Row(name="a", id=1)
            yield compat.Row("id", "name")(2, "b")

    written, given = [], []
    assert rows(Source) == [(1, "a"), (2, "b")]
    assert isinstance(given[0], compat.StructType)
    assert given[0].fieldNames() == ["id", "name"]
    assert (given[0]["id"].dataType.typeName(), given[0][1].nullable) == ("long", True)
    write(Source, [(1, "a")], columns=TWO)
    assert isinstance(written[0], compat.Row)
    assert (written[0].id, written[0]["name"]) == (1, "a")
    assert repr(written[0]) == repr(types.Row(id=1, name="a"))
    assert given[0].json() == STRUCT.json()


def test_our_stream_readers():
    class Ticks(compat.SimpleDataSourceStreamReader):
        def initialOffset(self):
            return {"n": 0}

        def read(self, start):
            return iter([(start["n"],)]), {"n": start["n"] + 1}

    class Source(compat.DataSource):
        def simpleStreamReader(self, schema):
            return Ticks()

    assert rows(Source, columns=ONE, limit=3) == [(0,), (1,), (2,)]


def test_filters_are_named_as_there():
    assert compat.EqualTo(("a",), 1) == compat.EqualTo(("a",), 1)
    assert repr(compat.In(("a",), (1, 2))) == repr(datasource.In(("a",), (1, 2)))
    missing = set(datasource.__all__) - set(compat.__all__)
    assert missing == {"DataSourceRegistration"}


# Misuse; there is more in test_pyspark_misuse.py


@pytest.mark.parametrize(
    ("cls", "call", "expected"),
    [
        (compat.DataSource, lambda made: made.schema(), r"Mine has no schema\(\)"),
        (compat.DataSource, lambda made: made.reader(None), r"Mine has no reader\(schema\)"),
        (compat.DataSource, lambda made: made.streamReader(None), r"Mine has no streamReader\(schema\)"),
        (compat.DataSource, lambda made: made.simpleStreamReader(None), r"Mine has no simpleStreamReader\(schema\)"),
        (compat.DataSource, lambda made: made.writer(None, False), r"Mine has no writer\(schema, overwrite\)"),
        (
            compat.DataSource,
            lambda made: made.streamWriter(None, False),
            r"Mine has no streamWriter\(schema, overwrite\)",
        ),
        (compat.DataSourceReader, lambda made: made.read(None), r"Mine has no read\(partition\)"),
        (compat.DataSourceStreamReader, lambda made: made.read(None), r"Mine has no read\(partition\)"),
        (compat.DataSourceStreamReader, lambda made: made.initialOffset(), r"Mine has no initialOffset\(\)"),
        (
            compat.DataSourceStreamReader,
            lambda made: made.latestOffset({}, None),
            r"Mine has no latestOffset\(start, limit",
        ),
        (compat.DataSourceStreamReader, lambda made: made.partitions({}, {}), r"Mine has no partitions\(start, end\)"),
        (compat.SimpleDataSourceStreamReader, lambda made: made.initialOffset(), r"Mine has no initialOffset\(\)"),
        (compat.SimpleDataSourceStreamReader, lambda made: made.read({}), r"Mine has no read\(start\)"),
        (
            compat.SimpleDataSourceStreamReader,
            lambda made: made.readBetweenOffsets({}, {}),
            r"Mine has no readBetweenOffsets\(start, end\)",
        ),
        (compat.DataSourceWriter, lambda made: made.write(None), r"Mine has no write\(iterator\)"),
        (compat.DataSourceStreamWriter, lambda made: made.write(None), r"Mine has no write\(iterator\)"),
    ],
)
def test_methods_that_are_not_there(cls, call, expected):
    mine = type("Mine", (cls,), {})
    with pytest.raises(NotImplementedError, match=f"^{expected}"):
        call(mine({}) if cls is compat.DataSource else mine())


def test_the_library_reads_ddl_without_a_session():
    library = pytest.importorskip("pyspark.sql.types")

    class Told(compat.DataSource):
        def schema(self):
            return library.StructType.fromDDL(self.options["schema"])

        def reader(self, schema):
            return Numbers(self.options).reader(schema)

    found = as_source(Told, {"schema": "id int, v array<string>"}, None).schema()
    assert "".join(found.split()) == "idint32,varray(string)", found
    assert library.DataType.fromDDL("decimal(10,2)") == library.DecimalType(10, 2)


def test_an_instance_takes_no_options():
    with pytest.raises(TypeError, match=r"Numbers has been made, and takes no options; got 'rows'$"):
        as_source(Numbers({}), {"rows": 1}, TWO)
    assert len(rows(Numbers({}), columns=TWO)) == 4
