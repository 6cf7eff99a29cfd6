"""PySpark's base classes, misused: each sentence names the class, the method, what came of it and what was expected."""

from abc import abstractmethod

import couatl
import pytest
from couatl._errors import Misuse
from couatl.compat import pyspark as compat
from couatl.compat.pyspark import check_class
from couatl.testing import rows, write
from misuse import awaited, giving, raising, yielded
from pyspark_shapes import TWO, datasource, types

BASES = pytest.mark.parametrize("base", [datasource, compat], ids=["library", "ours"])
ROWS = "an iterator of tuples, Rows, or Arrow record batches"
OFFSET = "an offset: a dict that JSON can hold, or text"
SCHEMA = "a StructType or its DDL text"
PAIR = "a pair: an iterator of rows, and the offset where they end"


def returned(of, shown, expected):
    return f"{of}() returned {shown}; expected {expected}"


def plain(of):
    return f"{of}() is asynchronous; expected a plain method (def, not async def)"


def unyielding(of):
    return f"{of}() has a yield, and nothing of it would run; expected a method without yield"


def source(base, kind, part, **methods):
    """A data source that makes a part, a reader or a writer, as its method of this name does."""
    makes = {kind: lambda self, *_: part() if isinstance(part, type) else part}
    return type("Source", (base.DataSource,), {"schema": giving("id LONG, name STRING"), **makes, **methods})


def told(work, *arguments, **named):
    with pytest.raises(Misuse) as caught:
        work(*arguments, **named)
    return str(caught.value)


# What a data source is, told before anything of it runs

SOURCES = [
    (
        {},
        "Source has none of reader(), streamReader(), simpleStreamReader(), writer(), streamWriter(); "
        "a data source must",
    ),
    ({"reader": lambda self: 3}, "Source.reader(self) cannot be called as it is; expected reader(self, schema)"),
    (
        {"writer": lambda self, schema: 3},
        "Source.writer(self, schema) cannot be called as it is; expected writer(self, schema, overwrite)",
    ),
    ({"reader": 3}, "Source.reader is 3 (int); expected a method reader(self, schema)"),
    ({"reader": lambda: 3}, "Source.reader() cannot be called as it is; expected reader(self, schema)"),
    ({"streamReader": awaited}, plain("Source.streamReader")),
    ({"simpleStreamReader": yielded}, unyielding("Source.simpleStreamReader")),
    (
        {"reader": giving(3), "schema": lambda self, more: 3},
        "Source.schema(self, more) cannot be called as it is; expected schema(self)",
    ),
    ({"reader": giving(3), "schema": awaited}, plain("Source.schema")),
    (
        {"reader": giving(3), "__init__": lambda self: None},
        "Source.__init__(self) cannot be called as it is; expected __init__(self, options)",
    ),
    (
        {"reader": giving(3), "url": abstractmethod(giving(3)), "schema": abstractmethod(giving(3))},
        "Source is abstract; expected a class that defines schema() and url()",
    ),
]


@pytest.mark.parametrize(("methods", "expected"), SOURCES)
def test_data_sources_that_are_none(methods, expected):
    cls = type("Source", (datasource.DataSource,), methods)
    assert told(check_class, cls) == expected
    if "reader" in methods:
        assert told(rows, cls, columns=TWO) == expected


@BASES
@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (None, returned("Source.schema", "None", SCHEMA)),
        (3, returned("Source.schema", "3 (int)", SCHEMA)),
        ("a", returned("Source.schema", "'a' (str)", f"{SCHEMA}: expected a type, got '' in 'a'")),
        (types.StructType, returned("Source.schema", f"{types.StructType} (type)", SCHEMA)),
        (types.LongType(), returned("Source.schema", "LongType() (LongType)", SCHEMA)),
    ],
)
def test_schemas_that_are_none(base, found, expected):
    assert told(rows, source(base, "reader", 3, schema=giving(found))) == expected


def test_no_schema_and_no_columns():
    cls = type("Source", (datasource.DataSource,), {"reader": giving(3)})
    assert told(rows, cls) == "Source has no schema(), and no columns are declared"


PARTS = {
    "reader": "a DataSourceReader",
    "streamReader": "a DataSourceStreamReader",
    "simpleStreamReader": "a SimpleDataSourceStreamReader",
    "writer": "a DataSourceWriter",
    "streamWriter": "a DataSourceStreamWriter",
}


def used(cls, kind):
    return write(cls, [(1, "a")], columns=TWO) if "riter" in kind else rows(cls, columns=TWO, limit=1)


@BASES
@pytest.mark.parametrize("kind", PARTS)
@pytest.mark.parametrize("made", [None, 3, NotImplemented])
def test_what_makes_no_reader_and_no_writer(base, kind, made):
    shown = "None" if made is None else f"{made!r} ({type(made).__name__})"
    assert told(used, source(base, kind, made), kind) == returned(f"Source.{kind}", shown, PARTS[kind])


@BASES
@pytest.mark.parametrize("kind", PARTS)
def test_a_class_in_place_of_what_it_makes(base, kind):
    made = type(
        "Part", (), {"read": giving(3), "partitions": giving(3), "initialOffset": giving(3), "write": giving(3)}
    )
    cls = source(base, kind, None, **{kind: giving(made)})
    assert told(used, cls, kind) == returned(f"Source.{kind}", f"{made} (type)", PARTS[kind])


# Readers and writers

READERS = {
    "reader": ("DataSourceReader", {"read": lambda self, partition: iter([(1, "a")])}),
    "streamReader": (
        "DataSourceStreamReader",
        {
            "initialOffset": giving({"n": 0}),
            "latestOffset": lambda self, start, limit: {"n": start["n"] + 1},
            "partitions": None,
            "read": lambda self, partition: iter([(1, "a")]),
        },
    ),
    "simpleStreamReader": (
        "SimpleDataSourceStreamReader",
        {
            "initialOffset": giving({"n": 0}),
            "read": lambda self, start: (iter([(1, "a")]), {"n": start["n"] + 1}),
            "readBetweenOffsets": lambda self, start, end: iter([(1, "a")]),
        },
    ),
    "writer": ("DataSourceWriter", {"write": lambda self, iterator: list(iterator) and None}),
    "streamWriter": ("DataSourceStreamWriter", {"write": lambda self, iterator: list(iterator) and None}),
}


def part(base, kind, **methods):
    """A data source that makes a reader or a writer which works, but for these methods."""
    name, working = READERS[kind]
    working = (
        {**working, "partitions": lambda self, *_: [base.InputPartition(1)]} if kind == "streamReader" else working
    )
    given = {name: method for name, method in {**working, **methods}.items() if method is not ...}
    return source(base, kind, type("Part", (getattr(base, name),), given))


@BASES
@pytest.mark.parametrize("kind", READERS)
def test_parts_that_work(base, kind):
    used(part(base, kind), kind)


CALLS = {
    "reader": {"partitions": "", "read": "partition"},
    "streamReader": {
        "initialOffset": "",
        "latestOffset": "start, limit",
        "partitions": "start, end",
        "read": "partition",
        "getDefaultReadLimit": "",
        "commit": "end",
        "stop": "",
    },
    "simpleStreamReader": {"initialOffset": "", "read": "start", "commit": "end"},
    "writer": {"write": "iterator", "commit": "messages", "abort": "messages"},
    "streamWriter": {"write": "iterator", "commit": "messages, batchId", "abort": "messages, batchId"},
}
METHODS = [(kind, method, parameters) for kind, calls in CALLS.items() for method, parameters in calls.items()]
MUST = {("reader", "read"), ("writer", "write"), ("streamWriter", "write")}
MUST |= {("streamReader", method) for method in ("initialOffset", "latestOffset", "partitions", "read")}
MUST |= {("simpleStreamReader", method) for method in ("initialOffset", "read")}


@BASES
@pytest.mark.parametrize(("kind", "method", "parameters"), METHODS)
def test_methods_that_cannot_be_called(base, kind, method, parameters):
    wrong = part(base, kind, **{method: lambda self, one, two, three: 3})
    call = f"{method}({', '.join(filter(None, ['self', parameters]))})"
    expected = f"Part.{method}(self, one, two, three) cannot be called as it is; expected {call}"
    assert told(used, wrong, kind) == expected
    assert told(used, part(base, kind, **{method: awaited}), kind) == plain(f"Part.{method}")
    for wrong, shown in (3, "3 (int)"), (None, "None"):
        expected = f"Part.{method} is {shown}; expected a method {call}"
        assert told(used, part(base, kind, **{method: wrong}), kind) == expected
    # One without self.
    expected = f"Part.{method}() cannot be called as it is; expected {call}"
    assert told(used, part(base, kind, **{method: lambda: 3}), kind) == expected


@BASES
def test_an_offset_of_before_spark_4_2_that_is_awaited(base):
    async def latest(self):
        return {"n": 1}

    wrong = part(base, "streamReader", latestOffset=latest)
    assert told(used, wrong, "streamReader") == plain("Part.latestOffset")


@BASES
@pytest.mark.parametrize(("kind", "method"), [(kind, method) for kind, method, _ in METHODS if method != "read"])
def test_methods_with_a_yield(base, kind, method):
    assert told(used, part(base, kind, **{method: yielded}), kind) == unyielding(f"Part.{method}")


@BASES
@pytest.mark.parametrize(("kind", "method"), sorted(MUST))
def test_methods_that_are_missing(base, kind, method):
    cls = part(base, kind, **{method: ...})
    parameters = CALLS[kind][method]
    if getattr(getattr(getattr(base, READERS[kind][0]), method), "__isabstractmethod__", False):
        # Python says so where it is made.
        with pytest.raises(TypeError, match=rf"^Can't instantiate abstract class Part with.* method '?{method}'?$"):
            used(cls, kind)
    else:
        assert told(used, cls, kind) == f"Part has no {method}({parameters}); {PARTS[kind]} must"


@BASES
@pytest.mark.parametrize(("kind", "method"), [(kind, method) for kind, method, _ in METHODS if method != "abort"])
def test_what_methods_raise_is_raised(base, kind, method):
    # A stream commits when the next microbatch is asked for, and stops at the end.
    if method in ("commit", "stop") and "Reader" in kind:
        with pytest.raises(OSError, match=r"^mine$"):
            rows(part(base, kind, **{method: raising}), columns=TWO, limit=2)
    else:
        with pytest.raises(OSError, match=r"^mine$"):
            used(part(base, kind, **{method: raising}), kind)


@BASES
@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("streamReader", "latestOffset"),
        ("streamReader", "partitions"),
        ("simpleStreamReader", "read"),
        ("simpleStreamReader", "commit"),
    ],
)
def test_what_would_be_taken_for_the_end(base, kind, method):
    wrong = part(base, kind, **{method: lambda self, *_: next(iter(()))})
    with pytest.raises(RuntimeError, match=r"^Part raised StopIteration, and a stream has no end$"):
        rows(wrong, columns=TWO, limit=2)


@BASES
@pytest.mark.parametrize("kind", ["writer", "streamWriter"])
def test_a_writer_that_expects_a_row_more(base, kind):
    def write(self, iterator):
        next(iterator)
        next(iterator)

    wrong = part(base, kind, write=write)
    with pytest.raises(RuntimeError, match=r"^Part.write\(\) raised StopIteration$"):
        used(wrong, kind)


RETURNED = [
    ("reader", "partitions", 3, "3 (int)", "a list of InputPartition"),
    ("reader", "partitions", None, "None", "a list of InputPartition"),
    ("reader", "partitions", [1], "[1] (list)", "a list of InputPartition"),
    ("reader", "partitions", "ab", "'ab' (str)", "a list of InputPartition"),
    ("reader", "read", None, "None", ROWS),
    ("reader", "read", "ab", "'ab' (str)", ROWS),
    ("streamReader", "initialOffset", 3, "3 (int)", OFFSET),
    ("streamReader", "initialOffset", {"a": {1}}, "{'a': {1}} (dict)", OFFSET),
    ("streamReader", "latestOffset", None, "None", OFFSET),
    ("streamReader", "getDefaultReadLimit", 3, "3 (int)", "a ReadLimit, such as ReadAllAvailable()"),
    ("streamReader", "partitions", None, "None", "a list of InputPartition"),
    ("streamReader", "read", 3, "3 (int)", ROWS),
    ("simpleStreamReader", "initialOffset", None, "None", OFFSET),
    ("simpleStreamReader", "read", [1], "[1] (list)", PAIR),
    ("simpleStreamReader", "read", (3, {}), "(3, {}) (tuple)", PAIR),
    ("simpleStreamReader", "read", (iter(()), 3), "3 (int)", OFFSET),
    ("writer", "write", 3, "3 (int)", "a WriterCommitMessage, or None"),
    ("streamWriter", "write", "ok", "'ok' (str)", "a WriterCommitMessage, or None"),
]


@BASES
@pytest.mark.parametrize(("kind", "method", "found", "shown", "expected"), RETURNED)
def test_methods_that_return_what_they_must_not(base, kind, method, found, shown, expected):
    wrong = part(base, kind, **{method: giving(found)})
    assert told(used, wrong, kind) == returned(f"Part.{method}", shown, expected)


YIELDED = [
    (3, "3 (int); expected a tuple, a Row, or an Arrow record batch"),
    ({"a": 1}, "a row of a; expected the columns id, name"),
]


@BASES
@pytest.mark.parametrize(("row", "expected"), YIELDED)
def test_readers_that_yield_what_they_must_not(base, row, expected):
    wrong = part(base, "reader", read=lambda self, partition: iter([row]))
    assert told(rows, wrong, columns=TWO) == f"Part.read() yielded {expected}"


@BASES
def test_an_offset_that_does_not_advance(base):
    stuck = part(base, "simpleStreamReader", read=lambda self, start: (iter([(1, "a")]), start))
    expected = (
        "Part.read() gave rows, and the offset {'n': 0} where it had begun; expected another one, as the next read"
    )
    assert told(rows, stuck, columns=TWO, limit=1) == f"{expected} would give them again"


@BASES
def test_what_is_read_again_after_a_failure(base):
    state = ({"n": 0}, {"n": 1}, 0)
    wrong = part(base, "simpleStreamReader", readBetweenOffsets=giving(3))
    assert told(rows, wrong, columns=TWO, state=state) == returned("Part.readBetweenOffsets", "3 (int)", ROWS)
    wrong = part(base, "simpleStreamReader", readBetweenOffsets=lambda self: 3)
    expected = "Part.readBetweenOffsets(self) cannot be called as it is; expected readBetweenOffsets(self, start, end)"
    assert told(rows, wrong, columns=TWO, state=state) == expected


def test_a_reader_may_lack_what_reads_again():
    """It is asked for after a failure alone."""
    methods = READERS["simpleStreamReader"][1]
    lacking = type(
        "Part", (compat.SimpleDataSourceStreamReader,), {name: methods[name] for name in ("initialOffset", "read")}
    )
    cls = source(compat, "simpleStreamReader", lacking)
    assert rows(cls, columns=TWO, limit=1) == [(1, "a")]
    expected = "Part has no readBetweenOffsets(start, end); a SimpleDataSourceStreamReader that is read again must"
    assert told(rows, cls, columns=TWO, state=({"n": 0}, {"n": 1}, 0)) == expected


# What a statement says

MODULE = """
from abc import ABC, abstractmethod
from pyspark.sql.datasource import DataSource

class Number(DataSource):
    def schema(self):
        return 3

    def reader(self, schema):
        raise AssertionError

class Text(Number):
    def schema(self):
        return "id LONG, name VARIANT"

class Abstract(Number, ABC):
    @abstractmethod
    def url(self): ...

class Nothing(DataSource):
    def schema(self):
        return "id LONG"
"""
CREATED = {
    "Number": "Number.schema() returned 3 (int); expected a StructType or its DDL text",
    "Text": "Text.schema() returned 'id LONG, name VARIANT' (str); expected a StructType or its DDL text: there is "
    "no type 'variant' that Spark and Couatl both have",
    "Abstract": "Abstract is abstract; expected a class that defines url()",
    "Nothing": "Nothing has none of reader(), streamReader(), simpleStreamReader(); a source must",
}


@pytest.mark.parametrize("name", CREATED)
def test_what_is_told_where_a_stream_is_made(tmp_path, monkeypatch, name):
    (tmp_path / "wrong_data_sources.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    session = couatl.Session()
    with pytest.raises((Misuse, couatl.exceptions.Error)) as caught:
        session.sql(f"CREATE EXTERNAL STREAM wrong SETTINGS type = 'python', class = 'wrong_data_sources:{name}'")
    assert str(caught.value).endswith(CREATED[name])
