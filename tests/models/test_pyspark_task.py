"""PySpark's tasks: what ``TaskContext.get()`` gives to readers and writers, the library's and ours."""

import threading
from contextlib import closing

import pytest
from couatl._reading import reading
from couatl.compat import pyspark as compat
from couatl.testing import Columns, rows, write
from pyspark_shapes import datasource

TaskContext = pytest.importorskip("pyspark").TaskContext

COLUMNS = {"part": "int64", "attempt": "int64"}
WITH_LIBRARY = [TaskContext, compat.TaskContext]


class Tasks(datasource.DataSource):
    """Reads which task each of its parts is, and writes down which one it is written by."""

    context = TaskContext
    written = None

    def reader(self, schema):
        return Reader(self.context)

    def streamReader(self, schema):
        return StreamReader(self.context)

    def writer(self, schema, overwrite):
        return Writer(self.context, self.written)


class Reader(datasource.DataSourceReader):
    def __init__(self, context):
        self.context = context

    def partitions(self):
        assert self.context.get() is None
        return [datasource.InputPartition(n) for n in range(3)]

    def read(self, partition):
        for _ in range(2):
            found = self.context.get()
            yield found.partitionId(), found.taskAttemptId()


class StreamReader(Reader, datasource.DataSourceStreamReader):
    def initialOffset(self):
        return {"n": 0}

    def latestOffset(self, start, limit):
        assert self.context.get() is None
        return {"n": start["n"] + 1}

    def partitions(self, start, end):
        return Reader.partitions(self)


class Writer(datasource.DataSourceWriter):
    def __init__(self, context, written):
        self.context, self.written = context, written

    def write(self, iterator):
        rows = list(iterator)
        found = self.context.get()
        self.written.append((len(rows), found.partitionId(), found.attemptNumber(), found.stageId(), found.cpus()))
        self.written.append((found.getLocalProperty("x"), found.resources(), type(found)))

    def commit(self, messages):
        self.written.append(self.context.get())


def tasks(context):
    return type("Tasks", (Tasks,), {"context": context, "written": []})


@pytest.mark.parametrize("context", WITH_LIBRARY)
@pytest.mark.parametrize("mode", ["batch", "streaming"])
def test_each_part_is_read_in_a_task(context, mode):
    found = rows(tasks(context), columns=COLUMNS, mode=mode, limit=6)
    assert [part for part, _ in found] == [0, 0, 1, 1, 2, 2]
    assert len({attempt for _, attempt in found}) == 3
    assert context.get() is None


@pytest.mark.parametrize("mode", ["batch", "streaming"])
def test_what_is_closed_is_no_task_any_more(monkeypatch, mode):
    monkeypatch.setattr("couatl.compat._pyspark_reading.CHUNK", 1)
    columns = Columns(list(COLUMNS), list(COLUMNS.values()))
    with closing(reading(tasks(TaskContext), {}, columns, mode)) as source:
        pull = source.open(source.partitions[0])
        next(pull)
        assert TaskContext.get() is not None
        pull.close()
        assert TaskContext.get() is None


@pytest.mark.parametrize("context", WITH_LIBRARY)
def test_a_write_is_a_task(context):
    cls = tasks(context)
    write(cls, [(1, 2), (3, 4)], columns=COLUMNS)
    assert cls.written == [(2, 0, 0, 0, 1), (None, {}, TaskContext), None]


def test_without_the_library_the_context_is_ours(monkeypatch):
    monkeypatch.setattr("couatl.compat._pyspark_task.named", lambda module, name: compat.TaskContext)
    cls = tasks(compat.TaskContext)
    write(cls, [(1, 2)], columns=COLUMNS)
    assert cls.written == [(1, 0, 0, 0, 1), (None, {}, compat.TaskContext), None]
    assert rows(cls, columns=COLUMNS)[-1][0] == 2


def test_elsewhere_the_librarys_context_is_that_of_its_process(monkeypatch):
    of_process = object.__new__(TaskContext)
    of_process._partitionId = 17
    monkeypatch.setattr(TaskContext, "_taskContext", of_process)
    cls = tasks(TaskContext)
    begun, done = threading.Event(), threading.Event()
    seen = []

    def read(self, partition):
        begun.set()
        assert done.wait(10)
        yield TaskContext.get().partitionId(), 0

    monkeypatch.setattr(Reader, "read", read)
    monkeypatch.setattr(Reader, "partitions", lambda self: [])
    reading = threading.Thread(target=lambda: seen.extend(rows(cls, columns=COLUMNS)))
    reading.start()
    assert begun.wait(10)
    assert TaskContext.get() is of_process
    done.set()
    reading.join()
    assert seen == [(0, 0)]


def test_offsets_may_be_text():
    class Text(datasource.SimpleDataSourceStreamReader):
        def initialOffset(self):
            return '{"n": 0}'

        def read(self, start):
            return iter([(len(start), 0)]), start + " "

    cls = type("Source", (datasource.DataSource,), {"simpleStreamReader": lambda self, schema: Text()})
    assert [length for length, _ in rows(cls, columns=COLUMNS, limit=3)] == [8, 9, 10]
