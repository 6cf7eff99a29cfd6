"""Connectors in streams: classes in bodies and in packages, read and written over Flight SQL."""

import contextlib
import os
import threading

import pytest
from harness import (
    PATIENCE,
    create,
    error,
    noting,
    queries,
    query_running,
    rows,
    run,
    value,
    wait_for_text,
    wait_until,
    words,
)

IMPORTS = """
import datetime, threading, time
from couatl.sinks import Sink
from couatl.sources import AsyncPartition, AsyncSource, Partition, PollingSource, PushSource, Source
"""
FUNCTIONS = {"init_function_name": "init", "deinit_function_name": "deinit"}


@pytest.fixture
def stream(connection, notes):
    """Makes the stream `made` of a body that takes notes, by default one that reads what is named `It`."""

    def make(body, columns="n int64", **settings):
        settings = {"mode": "streaming", "read_function_name": "It", **FUNCTIONS, **settings}
        create(connection, "made", columns, noting(notes, IMPORTS, body), **settings)

    return make


PARTS = """
class It(Source):
    def partitions(self):
        return ["a", "b", "c"]

    def open(self, partition, state):
        try:
            for n in range(3):
                yield n, partition
        finally:
            note("close-" + partition)

    def close(self):
        note("close")
"""


@pytest.mark.parametrize("mode", ["streaming", "auto", "batch"])
def test_partitions_are_read_and_closed(connection, stream, notes, mode):
    stream(PARTS, "n int64, part string", mode=mode)
    found = rows(connection, "SELECT n, part FROM made LIMIT 100")
    assert sorted(found) == [(n, part) for n in range(3) for part in "abc"]
    for part in "abc":
        assert [n for n, of in found if of == part] == [0, 1, 2]
    said = words(notes)
    assert said[0] == "init" and said[-2:] == ["close", "deinit"], said
    assert sorted(said[1:-2]) == ["close-a", "close-b", "close-c"]


def test_partitions_are_read_at_once(connection, stream):
    """Each waits for all the others."""
    stream("""
together = threading.Barrier(20)

class It(Source):
    def partitions(self):
        return [str(number) for number in range(20)]

    def open(self, partition, state):
        together.wait()
        yield int(partition)
""")
    assert value(connection, "SELECT count(*) FROM (SELECT n FROM made LIMIT 20)") == 20


def test_bounded_partitions_share_a_few_threads(connection, stream):
    stream("""
threads = set()

class It(Source):
    def partitions(self):
        return [str(number) for number in range(500)]

    def open(self, partition, state):
        threads.add(threading.get_ident())
        yield int(partition)
""", mode="batch")  # fmt: skip
    assert rows(connection, "SELECT count(*), sum(n) FROM made") == [(500, 499 * 250)]


def test_what_has_no_partitions_has_no_rows(connection, stream, notes):
    stream(PARTS.replace('["a", "b", "c"]', "[]"), "n int64, part string")
    assert rows(connection, "SELECT n FROM made LIMIT 5") == []
    assert words(notes) == ["init", "close", "deinit"]


@pytest.mark.parametrize("failing", ["a", "b", "c"])
def test_one_partition_that_fails_ends_all(connection, stream, notes, failing):
    stream(f"""
waiting = threading.Event()

class It(Source):
    def partitions(self):
        return ["a", "b", "c"]

    def open(self, partition, state):
        try:
            yield 1
            if partition == {failing!r}:
                raise ValueError("broken " + partition)
            while True:
                time.sleep(0.01)
        finally:
            note("close-" + partition)

    def close(self):
        note("close")
""")
    assert f"ValueError: broken {failing}" in error(connection, "SELECT n FROM made")
    wait_until(lambda: not queries(connection), "the query's end")
    said = words(notes)
    # One that has not begun has nothing to close.
    assert said[0] == "init" and f"close-{failing}" in said and said[-2:] == ["close", "deinit"], said


def test_two_partitions_of_one_name_are_refused(connection, stream):
    stream(PARTS.replace('["a", "b", "c"]', '["a", "a"]'), "n int64, part string")
    assert "It.partitions() returned ['a', 'a']" in error(connection, "SELECT n FROM made")


def test_too_many_partitions_are_refused(connection, stream, notes):
    stream(PARTS.replace('["a", "b", "c"]', "[str(n) for n in range(2000)]"), "n int64, part string")
    assert "2000 partitions, and at most 1024 are read at once" in error(connection, "SELECT n FROM made")
    assert words(notes) == ["init", "close", "deinit"]


ENDLESS = {
    "push_that_waits": """
class It(PushSource):
    def run(self):
        self.next(n=0)
        self.wait()

    def on_stop(self):
        note("close")
""",
    "push_that_is_faster": """
class It(PushSource):
    def run(self):
        n = 0
        while True:
            self.next(n=n)
            n += 1

    def on_stop(self):
        note("close")
""",
    "push_that_sleeps": """
class It(PushSource):
    def run(self):
        self.next(n=0)
        while True:
            time.sleep(0.01)

    def on_stop(self):
        note("close")
""",
    "asynchronous": """
class It(AsyncSource):
    async def open(self, partition, state):
        import asyncio

        try:
            yield 0
            await asyncio.sleep(3600)
        finally:
            note("close")
""",
    "asynchronous_partition": """
class Part(AsyncPartition):
    sent = False

    async def next_batch(self):
        import asyncio

        if self.sent:
            await asyncio.sleep(3600)
        self.sent = True
        return [0]

    async def close(self):
        note("close")

class It(AsyncSource):
    def open(self, partition, state):
        return Part()
""",
    "polling": """
class It(PollingSource):
    def __init__(self):
        super().__init__(datetime.timedelta(hours=1))

    def next_item(self):
        return 0

    def close(self):
        note("close")
""",
    "awake_tomorrow": """
class Part(Partition):
    awake = None

    def next_batch(self):
        self.awake = datetime.datetime.now() + datetime.timedelta(days=1)
        return [0]

    def next_awake(self):
        return self.awake

    def close(self):
        note("close")

class It(Source):
    def open(self, partition, state):
        return Part()
""",
    "busy_partition": """
class Part(Partition):
    sent = False

    def next_batch(self):
        if self.sent:
            while True:
                pass
        self.sent = True
        return [0]

    def close(self):
        note("close")

class It(Source):
    def open(self, partition, state):
        return Part()
""",
}


@pytest.mark.parametrize("how", ["kill", "close", "limit"])
@pytest.mark.parametrize("body", ENDLESS)
def test_what_waits_ends(server, connection, stream, notes, body, how):
    stream(ENDLESS[body])
    if how == "limit":
        assert rows(connection, "SELECT n FROM made LIMIT 1") == [(0,)]
    else:
        with server.connect() as other, other.cursor() as cursor:
            cursor.execute("SELECT n FROM made")
            batches = cursor.fetch_record_batch()
            assert batches.read_next_batch().column(0)[0].as_py() == 0
            if how == "kill":
                run(connection, f"KILL QUERY '{query_running(connection, 'FROM made')}'")
                with pytest.raises(Exception, match=r"(?i)cancel"):
                    batches.read_all()
    wait_until(lambda: not queries(connection), "the query's end", PATIENCE)
    said = words(notes)
    assert said[0] == "init" and said[-1] == "deinit" and said.count("close") == 1, said


def test_rows_that_are_pushed_arrive_at_once(server, connection, stream, notes):
    """The next one comes when the one before was read."""
    stream(f"""
class It(PushSource):
    def run(self):
        import os, time

        for n in range(5):
            self.next(n=n)
            while not os.path.exists({str(notes)!r} + str(n)):
                time.sleep(0.001)
""")
    with connection.cursor() as cursor:
        cursor.execute("SELECT n FROM made")
        batches = cursor.fetch_record_batch()
        for n in range(5):
            assert batches.read_next_batch().column(0).to_pylist() == [n]
            notes.with_name(f"notes{n}").touch()
        assert batches.read_all().num_rows == 0


SHAPES = {
    "a_class": "class It(Source):\n    def open(self, partition, state): return iter([1, 2])",
    "an_instance": "class Made(Source):\n    def open(self, partition, state): return [1, 2]\nIt = Made()",
    "a_function": (
        "class Made(Source):\n    def open(self, partition, state): yield from [1, 2]\ndef It(): return Made()"
    ),
    "a_function_that_gives_a_class": (
        "class Made(Source):\n    def open(self, partition, state): yield [1, 2]\ndef It(): return Made"
    ),
    "a_pyarrow_table": (
        "class It(Source):\n    def open(self, partition, state):\n"
        "        import pyarrow\n        return pyarrow.table({'n': [1, 2]})"
    ),
}


@pytest.mark.parametrize("mode", ["streaming", "auto", "batch"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_read_function_may_name_a_connector(connection, stream, shape, mode):
    stream(SHAPES[shape], mode=mode)
    assert rows(connection, "SELECT n FROM made LIMIT 3") == [(1,), (2,)]


MISUSE = {
    "class It(Source): pass": "It has no open(partition, state)",
    "class It(Source):\n    def open(self, partition, state): return 3": (
        "It.open() returned 3 (int); expected a Partition, or an iterable of rows"
    ),
    "class It(Source):\n    def open(self, partition): return [1]": (
        "stream 'made': It.open(self, partition) cannot be called as it is; expected open(self, partition, state)"
    ),
    "class It(PushSource): pass": "stream 'made': It has no run()",
    "class It(PushSource):\n    async def run(self): self.next(1)": (
        "(coroutine); expected a plain method (def, not async def)"
    ),
    "class It(PushSource):\n    def run(self): yield 1": (
        "(generator); expected a method without yield: nothing of it has run"
    ),
    "class It(Source):\n    def __init__(self, url): pass": "It: expected the option 'url', and it is not set",
    "class It(Sink):\n    def write(self, n): pass": "expected a source, and class It is a couatl sink",
}


@pytest.mark.parametrize("body", MISUSE)
def test_misuse_says_what_is_wrong(connection, stream, body):
    stream(body)
    assert MISUSE[body] in error(connection, "SELECT n FROM made LIMIT 1")


SINK = """
class It(Sink):
    def open(self, columns):
        note("open:" + ",".join(f"{name}={type}" for name, type in columns))

    def write(self, n, name):
        note("write:" + ",".join(map(str, n)))
        if 13 in n:
            raise ValueError("unlucky")

    def flush(self):
        note("flush")

    def commit(self):
        note("commit")

    def abort(self):
        note("abort")

    def close(self):
        note("close")
"""


def test_a_sink_commits(connection, stream, notes):
    stream(SINK, "n int64, name string", mode="auto")
    assert run(connection, "INSERT INTO made VALUES (1, 'a'), (2, 'b')") == 2
    assert words(notes) == ["init", "open:n=int64,name=string", "write:1,2", "flush", "commit", "close", "deinit"]


def test_a_sink_that_fails_aborts(connection, stream, notes):
    stream(SINK, "n int64, name string", mode="auto")
    assert "ValueError: unlucky" in error(connection, "INSERT INTO made VALUES (13, 'a')")
    assert words(notes) == ["init", "open:n=int64,name=string", "write:13", "abort", "close", "deinit"]


@pytest.mark.parametrize("failing", ["flush", "commit"])
def test_a_commit_that_fails_aborts(connection, stream, notes, failing):
    body = SINK.replace(f'note("{failing}")', f'raise OSError("no {failing}")')
    stream(body, "n int64, name string", mode="auto")
    assert f"OSError: no {failing}" in error(connection, "INSERT INTO made VALUES (1, 'a')")
    assert words(notes)[-3:] == ["abort", "close", "deinit"]


SLOW = """
import time

def slow():
    yield 1
    while True:
        time.sleep(0.01)
"""


def test_an_insert_that_is_killed_aborts(server, connection, stream, notes):
    stream(SINK, "n int64, name string", mode="auto")
    create(connection, "slow", "n int64", SLOW, mode="auto")
    with server.connect() as other, other.cursor() as cursor:
        ended = []

        def insert():
            try:
                cursor.execute("INSERT INTO made SELECT n, 'x' FROM slow")
            except Exception as error:
                ended.append(str(error))

        inserting = threading.Thread(target=insert)
        inserting.start()
        wait_for_text(notes, "write:1")
        run(connection, f"KILL QUERY '{query_running(connection, 'INSERT INTO made')}'")
        inserting.join(PATIENCE)
        assert ended and "ancel" in ended[0]
    wait_until(lambda: not queries(connection), "the query's end", PATIENCE)
    assert words(notes)[-3:] == ["abort", "close", "deinit"]


PACKAGE = '''
from decimal import Decimal
from couatl.sinks import AsyncSink, Sink
from couatl.sources import PushSource, Source

class Count(Source):
    """Counts."""

    def __init__(self, stop: int, step: int = 1, word: str = ""):
        self.stop, self.step, self.word = stop, step, word

    def schema(self):
        return "n int64 NOT NULL, word string"

    def open(self, partition, state):
        for n in range(0, self.stop, self.step):
            yield n, self.word

class Blank(Source):
    def open(self, partition, state):
        yield 1

class Arrow(Source):
    def schema(self):
        import pyarrow
        return pyarrow.schema({"a": pyarrow.int16(), "b": pyarrow.list_(pyarrow.utf8())})

    def open(self, partition, state):
        yield 1, ["x"]

class OtherArrow(Source):
    """Has a column of a type that is written as in pyarrow."""

    def __init__(self, type: str):
        self.type = type

    def schema(self):
        import pyarrow
        return pyarrow.schema({"a": eval(self.type, vars(pyarrow))})

    def open(self, partition, state):
        yield None,

class OddSchema(OtherArrow):
    def schema(self):
        import pyarrow
        return eval(self.type, vars(pyarrow))

class Camel(Blank):
    def __init__(self, maxRows: int):
        self.rows = maxRows

class Own(Blank):
    def __init__(self, mode: str):
        pass

class Odd(Blank):
    def schema(self):
        return "n int65"

class Silent(Source):
    def schema(self):
        return "n int64"

class Quiet(PushSource):
    def schema(self):
        return "n int64"

class Told(Source):
    def __init__(self, text: str = "", number: Decimal = Decimal(0), loose=None):
        self.told = text, number, loose

    def schema(self):
        return "told string"

    def open(self, partition, state):
        yield repr(self.told)

class NoConnector:
    pass

class Log(Sink):
    def __init__(self, path: str = ""):
        self.path = path

    def write(self, *columns):
        open(self.path, "a").write(f"{columns}\\n")

class Mute(Sink):
    pass

class Ledger(Log):
    """Knows its columns, as a text or as an Arrow schema."""

    def __init__(self, path: str, arrow: bool = False):
        super().__init__(path)
        self.arrow = arrow

    def schema(self):
        import pyarrow
        return pyarrow.schema({"n": pyarrow.int8()}) if self.arrow else "n int64, word string"

class Later(AsyncSink):
    def schema(self):
        return "n int64"

    async def write(self, n):
        pass

class Unsaid(Log):
    def schema(self):
        return 5

number = 5
'''


@pytest.fixture
def packaged(own_server, tmp_path, monkeypatch):
    """A server beside which a package is installed, and a secret."""
    (tmp_path / "counting.py").write_text(PACKAGE)
    (tmp_path / "broken.py").write_text("1 / 0")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("COUATL_SECRET_word", "hush-hush")
    server = own_server()
    with server.connect() as connection:
        yield connection


def made(connection, settings, columns=""):
    run(connection, f"CREATE OR REPLACE EXTERNAL STREAM made {columns} SETTINGS type = 'python', {settings}")


def test_a_class_of_a_package(packaged):
    made(packaged, "class = 'counting:Count', stop = 10, step = 5, word = 'it''s'")
    assert rows(packaged, "SELECT n, word FROM made") == [(0, "it's"), (5, "it's")]
    described = rows(packaged, "DESCRIBE made")
    assert [row[:2] for row in described] == [("n", "int64"), ("word", "string")]
    made(packaged, "class = 'counting:Count', stop = 2, mode = 'batch'", "(n int8, w text)")
    assert rows(packaged, "SELECT n, w FROM made") == [(0, ""), (1, "")]
    made(packaged, "class = 'counting:Arrow'")
    assert rows(packaged, "SELECT a, b FROM made") == [(1, ["x"])]


def test_a_sink_may_know_its_columns(packaged, tmp_path):
    path = tmp_path / "ledger"
    made(packaged, f"class = 'counting:Ledger', path = '{path}'")
    assert [row[:2] for row in rows(packaged, "DESCRIBE made")] == [("n", "int64"), ("word", "string")]
    assert run(packaged, "INSERT INTO made VALUES (1, 'a')") == 1
    assert path.read_text() == "([1], ['a'])\n"
    assert "expected a source, and class Ledger is a couatl sink" in error(packaged, "SELECT n FROM made")
    made(packaged, f"class = 'counting:Ledger', path = '{path}', arrow = true")
    assert [row[:2] for row in rows(packaged, "DESCRIBE made")] == [("n", "int8")]
    made(packaged, f"class = 'counting:Ledger', path = '{path}'", "(m int8)")
    assert [row[:2] for row in rows(packaged, "DESCRIBE made")] == [("m", "int8")]
    made(packaged, "class = 'counting:Later'")
    assert run(packaged, "INSERT INTO made VALUES (1)") == 1


def test_what_is_shown_of_a_class_makes_it_again(packaged):
    made(packaged, "class = 'counting:Count', stop = 3, word = '${secret:word}', linger_ms = 1")
    ((shown,),) = rows(packaged, "SHOW CREATE STREAM made")
    assert "class = 'counting:Count'" in shown and "'${secret:word}'" in shown and "hush" not in shown
    assert rows(packaged, "SELECT word FROM made LIMIT 1") == [("hush-hush",)]
    run(packaged, "DROP STREAM made")
    run(packaged, shown)
    assert rows(packaged, "SHOW CREATE STREAM made") == [(shown,)]
    assert rows(packaged, "SELECT n FROM made") == [(0,), (1,), (2,)]


REFUSED = {
    "class = 'counting:Count'": "Count: expected the option 'stop' (int), and it is not set",
    "class = 'counting:Count', stop = 'x'": "Count: option 'stop': expected",
    "class = 'counting:Count', stopp = 1, stop = 1": "Count: there is no option 'stopp'; did you mean 'stop'?",
    "class = 'counting:Camel', maxRows = 1": "there is no option 'maxrows'; write \"maxRows\", in quotes",
    "class = 'counting:Own', mode = 'batch'": "expected the option 'mode' (str), and it is not set; ",
    "class = 'counting:Odd'": "stream 'made': the columns of its class, 'n int65': unknown type 'int65'",
    "class = 'counting:Coumt'": "module 'counting' has no class 'Coumt'",
    "class = 'countin:Count'": "there is no module 'countin'",
    "class = 'counting:number'": "expected 'counting:number' to be a class, found 5 (int)",
    "class = 'counting:NoConnector'": "expected a source, got class NoConnector",
    "class = 'counting:Silent'": "stream 'made': Silent has no open(partition, state); a source must",
    "class = 'counting:Quiet'": "stream 'made': Quiet has no run(); a source must",
    "class = 'counting:Blank'": "Blank leaves its columns to the statement: give them between ( and )",
    "class = 'counting:Log'": "Log leaves its columns to the statement: give them between ( and )",
    "class = 'counting:Unsaid'": "Unsaid.schema() returned 5 (int); expected 'a int64, b string', or an Arrow schema",
    "class = 'counting:Ledger'": "Ledger: expected the option 'path' (str), and it is not set",
    "class = 'broken:Any'": "ZeroDivisionError",
    "class = 'counting'": "setting 'class' must be a class of a package, as in 'package.module:Class'",
    "class = 'counting:Count', stop = 1, read_function_name = 'x'": (
        "setting 'read_function_name' is about a body, and a connector has none"
    ),
}


@pytest.mark.parametrize("settings", REFUSED)
def test_what_a_class_does_not_take_is_refused_at_create(packaged, settings):
    assert REFUSED[settings] in error(packaged, f"CREATE EXTERNAL STREAM made SETTINGS type = 'python', {settings}")
    assert "there is no stream 'made'" in error(packaged, "SHOW CREATE STREAM made")


OTHER_ARROW = {
    "large_string()": "string",
    "string_view()": "string",
    "large_binary()": "binary",
    "binary(3)": "binary",
    "list_(large_string())": "array(string)",
    "large_list(int8())": "array(int8)",
    "list_(int8(), 3)": "array(int8)",
    "struct([('x', large_string())])": "tuple(x string)",
    "map_(string(), large_string())": "map(string, string)",
    "dictionary(int8(), large_string())": "low_cardinality(string)",
    "time32('s')": "time",
    "date64()": "date",
    "duration('s')": "interval",
    "float16()": "float32",
    "decimal64(10, 2)": "decimal(10, 2)",
}


@pytest.mark.parametrize("of_class", OTHER_ARROW)
def test_types_that_streams_do_not_have_stand_for_those_that_they_have(packaged, of_class):
    made(packaged, f"class = 'counting:OtherArrow', \"type\" = $${of_class}$$")
    assert [row[:2] for row in rows(packaged, "DESCRIBE made")] == [("a", OTHER_ARROW[of_class])]
    assert rows(packaged, "SELECT a FROM made") == [(None,)]


@pytest.mark.parametrize("of_class", ["null()", "list_(null())", "dense_union([field('x', int8())])"])
def test_types_that_no_stream_can_have_are_refused_at_create(packaged, of_class):
    settings = f"type = 'python', class = 'counting:OtherArrow', \"type\" = $${of_class}$$"
    message = error(packaged, f"CREATE EXTERNAL STREAM made SETTINGS {settings}")
    assert "stream 'made': the columns of 'counting:OtherArrow': column 'a' has the Arrow type " in message
    assert "which no stream can have" in message


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ("schema([field('a', int8()), field('A', int8()), field('a', string())])", "two columns are named 'a'"),
        ("field('a', int8())", "expected an Arrow schema, or text such as 'a int64, b string'; "),
    ],
)
def test_what_is_no_schema_of_a_stream_is_refused_at_create(packaged, schema, reason):
    settings = f"type = 'python', class = 'counting:OddSchema', \"type\" = $${schema}$$"
    message = error(packaged, f"CREATE EXTERNAL STREAM made SETTINGS {settings}")
    assert f"stream 'made': the columns of 'counting:OddSchema': {reason}" in message


def test_settings_come_as_they_were_written(packaged):
    made(packaged, "class = 'counting:Told', text = 007, number = 12345678901234567890.10, loose = false")
    assert rows(packaged, "SELECT told FROM made") == [("('007', Decimal('12345678901234567890.10'), False)",)]
    run(packaged, rows(packaged, "SHOW CREATE STREAM made")[0][0].replace("CREATE", "CREATE OR REPLACE", 1))
    assert rows(packaged, "SELECT told FROM made") == [("('007', Decimal('12345678901234567890.10'), False)",)]
    made(packaged, "class = 'counting:Told', text = 1e3, loose = 1.10")
    assert rows(packaged, "SELECT told FROM made") == [("('1e3', Decimal('0'), 1.1)",)]


def test_a_class_and_a_body_are_one_too_many(packaged):
    sql = "CREATE EXTERNAL STREAM made (n int64) AS $$ $$ SETTINGS type = 'python', class = 'counting:Count', stop = 1"
    assert "there is a body: leave out one of them" in error(packaged, sql)


def install(folder, name, **groups):
    """Lays down what pip would of a distribution that has these entry points."""
    info = folder / f"{name}-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
    lines = []
    for group, points in groups.items():
        lines += [f"[{group.replace('_', '.')}]", *(f"{point} = {path}" for point, path in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))


@pytest.fixture
def registering(own_server, tmp_path, monkeypatch):
    """A server beside which two distributions are installed."""
    (tmp_path / "counting.py").write_text(PACKAGE)
    (tmp_path / "broken.py").write_text("1 / 0")
    (tmp_path / "marked.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()\nfrom counting import *")
    install(
        tmp_path,
        "aardvark",
        couatl_sources={"count": "marked:Count", "broken": "broken:Source", "none": "counting:NoConnector"},
        couatl_sinks={"count": "counting:Log", "log": "counting:Log"},
    )
    blank = "counting:Blank"
    install(tmp_path, "zebra", couatl_sources={"count": blank, "Python": blank}, streamz_sources={"other": blank})
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return own_server()


@pytest.fixture
def registered(registering):
    with registering.connect() as connection:
        yield connection


def listed(connection):
    """State and options of each, by kind, name and distribution."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW CONNECTORS")
        assert [column[0] for column in cursor.description] == [
            "name", "kind", "distribution", "version", "state", "options",
        ]  # fmt: skip
        return {(kind, name, of): (state, options) for name, kind, of, version, state, options in cursor.fetchall()}


def test_connectors_are_listed_without_being_imported(registered, tmp_path):
    found = listed(registered)
    assert found["source", "count", "aardvark"] == found["sink", "log", "aardvark"] == ("listed", "")
    assert found["source", "count", "zebra"] == ("hidden: aardvark has the name", "")
    assert found["source", "other", "zebra"] == ("listed", "")
    assert found["source", "Python", "zebra"] == ("hidden: the type 'python' is built in", "")
    assert not (tmp_path / "imported").exists()


def test_a_registered_connector_is_a_type(registered):
    run(registered, "CREATE EXTERNAL STREAM made SETTINGS type = 'count', stop = 4, step = 2")
    assert rows(registered, "SELECT n FROM made") == [(0,), (2,)]
    ((shown,),) = rows(registered, "SHOW CREATE STREAM made")
    assert "SETTINGS type = 'count'" in shown and "class" not in shown
    assert [row[2:4] for row in rows(registered, "SHOW STREAMS")] == [("made", "count")]
    assert listed(registered)["source", "count", "aardvark"] == ("loaded", "stop: int, step: int = 1, word: str = ''")
    run(registered, "DROP STREAM made")
    run(registered, shown)
    assert rows(registered, "SELECT n FROM made") == [(0,), (2,)]


def test_a_source_and_a_sink_of_one_name_have_options_of_their_own(registered, tmp_path):
    path = tmp_path / "log"
    run(registered, f"CREATE EXTERNAL STREAM both SETTINGS type = 'count', stop = 2, path = '{path}'")
    assert rows(registered, "SELECT n FROM both") == [(0,), (1,)]
    assert run(registered, "INSERT INTO both VALUES (5, 'x')") == 1
    assert path.read_text() == "([5], ['x'])\n"
    message = error(registered, "CREATE EXTERNAL STREAM more SETTINGS type = 'count', stop = 2, paht = 'x'")
    assert "there is no option 'paht'" in message
    install(tmp_path, "yak", couatl_sources={"two": "counting:Blank"}, couatl_sinks={"two": "counting:Ledger"})
    message = error(registered, "CREATE EXTERNAL STREAM more (n int64) SETTINGS type = 'two'")
    assert "Ledger: expected the option 'path' (str), and it is not set; Ledger is the sink 'two'" in message


OF_PACKAGES = """
class Summed:
    def __init__(self): self.sum = 0
    def process(self, n): self.sum += sum(n)
    def merge(self, other): self.sum += other.sum
    def finalize(self): return self.sum

def trebled(n): return [value * 3 for value in n]

def twice(rows):
    for row in rows:
        yield row
        yield row
"""


def test_registered_functions_are_classes_of_functions(own_server, tmp_path, monkeypatch):
    (tmp_path / "numbers_of.py").write_text(OF_PACKAGES)
    functions = {"treble": "numbers_of:trebled", "summed": "numbers_of:Summed", "five": "numbers_of:__name__"}
    install(tmp_path, "numbers", couatl_functions=functions, couatl_transforms={"twice": "numbers_of:twice"})
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    by = "LANGUAGE PYTHON OPTIONS (class"
    with own_server().connect() as connection:
        run(connection, f"CREATE FUNCTION treble(n int64) RETURNS int64 {by} 'treble')")
        run(connection, f"CREATE AGGREGATE FUNCTION summed(n int64) RETURNS int64 {by} 'summed')")
        run(connection, f"CREATE FUNCTION twice(t TABLE) RETURNS TABLE (n int64) {by} 'twice')")
        sql = "SELECT summed(treble(n)) FROM twice((SELECT value AS n FROM generate_series(1, 3)))"
        assert rows(connection, sql) == [(36,)]
        assert listed(connection)["function", "treble", "numbers"] == ("loaded", "")
        refusal = error(connection, f"CREATE FUNCTION five(n int64) RETURNS int64 {by} 'five')")
        assert "function 'five' (couatl.functions: numbers_of:__name__, of numbers) does not fit" in refusal


def test_what_is_registered_and_cannot_be_had_says_who_registered_it(registered):
    create = "CREATE EXTERNAL STREAM made (n int64) SETTINGS type = "
    message = error(registered, f"{create}'broken'")
    assert "source 'broken' (couatl.sources: broken:Source, of aardvark) cannot be imported: ZeroDivision" in message
    message = error(registered, f"{create}'none'")
    assert "of aardvark) does not fit: expected a source, got class NoConnector" in message
    message = error(registered, f"{create}'other'")
    assert "of zebra) does not fit: expected a streamz source, and class Blank is a couatl source" in message
    message = error(registered, f"{create}'cuont'")
    assert (
        "setting 'type' must be 'python', or the name of a connector, found 'cuont'; did you mean 'count'?" in message
    )
    states = listed(registered)
    assert states["source", "broken", "aardvark"][0].startswith("failed: ZeroDivisionError")


def test_what_is_registered_has_what_its_role_must_have(registered, tmp_path):
    (tmp_path / "leaving.py").write_text("import sys\nsys.exit(5)")
    sources = {
        "silent": "counting:Silent",
        "quiet": "counting:Quiet",
        "leaving": "leaving:Source",
        "nonsense": "x y z:: q",
    }
    install(tmp_path, "yak", couatl_sources=sources, couatl_sinks={"mute": "counting:Mute"})
    create = "CREATE EXTERNAL STREAM made (n int64) SETTINGS type = "
    for name, said in {
        "silent": "(couatl.sources: counting:Silent, of yak) does not fit: Silent has no open(partition, state)",
        "quiet": "(couatl.sources: counting:Quiet, of yak) does not fit: Quiet has no run()",
        "mute": "(couatl.sinks: counting:Mute, of yak) does not fit: Mute has no write(*columns)",
        "leaving": "(couatl.sources: leaving:Source, of yak) cannot be imported: SystemExit: 5",
        "nonsense": "of yak) cannot be imported: expected package.module:Class, found 'x y z:: q' (str)",
    }.items():
        message = error(registered, f"{create}'{name}'")
        assert said in message and "couatl/_" not in message, message
    states = {name: state for (_, name, _), (state, _) in listed(registered).items()}
    assert states["silent"].startswith("failed: Silent has no open(partition, state)")
    assert states["leaving"] == "failed: SystemExit: 5"


def test_an_import_that_does_not_end_is_said_to_go_on(registering, registered, tmp_path):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    (tmp_path / "hanging.py").write_text(f"open({str(gate)!r}).read()\nfrom counting import *")
    install(tmp_path, "yak", couatl_sources={"hanging": "hanging:Blank"})

    def create():
        with registering.connect() as connection:
            run(connection, "CREATE EXTERNAL STREAM made (n int64) SETTINGS type = 'hanging'")

    def opened():
        with contextlib.suppress(OSError):
            return open(os.open(gate, os.O_WRONLY | os.O_NONBLOCK), "w")

    creating = threading.Thread(target=create)
    creating.start()
    with wait_until(opened, "the import"):
        assert listed(registered)["source", "hanging", "yak"] == ("importing", "")
    creating.join(PATIENCE)
    assert listed(registered)["source", "hanging", "yak"] == ("loaded", "")


def test_a_distribution_that_is_broken_is_listed_and_breaks_no_other(registered, tmp_path):
    install(tmp_path, "nameless", couatl_sources={"stray": "counting:Blank"})
    (tmp_path / "nameless-1.5.dist-info" / "METADATA").unlink()
    for name, content in {
        "weird": b"[couatl.sources]\nx = \xff\xfe:Y\n",
        "torn": b"[couatl.sources]\nno point\n",
    }.items():
        install(tmp_path, name)
        (tmp_path / f"{name}-1.5.dist-info" / "entry_points.txt").write_bytes(content)
    found = listed(registered)
    assert found["", "", "weird"][0].startswith("failed: its entry points cannot be read: UnicodeDecodeError")
    assert found["", "", "torn"][0].startswith("failed: its entry points cannot be read: ")
    assert found["source", "stray", "nameless-1.5.dist-info"] == ("listed", "")
    for name in ("count", "stray"):
        run(
            registered,
            f"CREATE OR REPLACE EXTERNAL STREAM made (n int64) SETTINGS type = '{name}'"
            + (", stop = 1" * (name == "count")),
        )
    assert rows(registered, "SELECT n FROM made") == [(1,)]


def test_a_registered_sink_may_know_its_columns(registered, tmp_path):
    install(tmp_path, "yak", couatl_sinks={"ledger": "counting:Ledger"})
    run(registered, f"CREATE EXTERNAL STREAM made SETTINGS type = 'ledger', path = '{tmp_path / 'ledger'}'")
    assert run(registered, "INSERT INTO made VALUES (1, 'a')") == 1
    message = error(registered, "CREATE EXTERNAL STREAM more SETTINGS type = 'log'")
    assert "Log leaves its columns to the statement: give them between ( and )" in message


def test_what_is_registered_in_another_role_is_one_sentence(registered, tmp_path):
    run(registered, f"CREATE EXTERNAL STREAM written (n int64) SETTINGS type = 'log', path = '{tmp_path / 'log'}'")
    install(tmp_path, "yak", couatl_sources={"plain": "counting:Blank"})
    run(registered, "CREATE EXTERNAL STREAM readable (n int64) SETTINGS type = 'plain'")
    for sql, said in {
        "SELECT n FROM written": "stream 'written': 'log' is registered, and not as a source; SHOW CONNECTORS",
        "INSERT INTO readable VALUES (1)": "stream 'readable': 'plain' is registered, and not as a sink; SHOW",
    }.items():
        message = error(registered, sql)
        assert said in message and "Traceback" not in message and "INVALID_ARGUMENT" in message, message


STREAMZ_NODES = """
from couatl.compat.streamz import Sink, Source, Stream

class Numbers(Source):
    def __init__(self, count: int = 1, **kwargs):
        super().__init__(**kwargs)

    async def run(self):
        pass

class Keep(Sink):
    def __init__(self, upstream, path: str, **kwargs):
        super().__init__(upstream, **kwargs)

    def update(self, x, who=None, metadata=None):
        pass
"""


def test_the_stream_in_front_of_a_node_is_no_option(registered, tmp_path):
    (tmp_path / "nodes.py").write_text(STREAMZ_NODES)
    install(tmp_path, "yak", streamz_sources={"numbers": "nodes:Numbers"}, streamz_sinks={"keep": "nodes:Keep"})
    run(registered, "CREATE EXTERNAL STREAM numbers (n int64) SETTINGS type = 'numbers'")
    run(registered, "CREATE EXTERNAL STREAM keep (n int64) SETTINGS type = 'keep', path = 'x'")
    found = listed(registered)
    assert found["source", "numbers", "yak"] == ("loaded", "count: int = 1")
    assert found["sink", "keep", "yak"] == ("loaded", "path: str")
