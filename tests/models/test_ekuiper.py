"""eKuiper: plugins written for its SDK, next to the SDK's own runtime and a server that stands in for eKuiper."""

import itertools
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import datetime, timezone
from decimal import Decimal
from uuid import UUID

import pytest
from couatl._errors import Misuse, class_name
from couatl._reading import reading
from couatl._writing import writing
from couatl.compat import ekuiper as compat
from couatl.compat.ekuiper import as_function
from couatl.testing import Columns, rows, write

ekuiper = pytest.importorskip("ekuiper")
pynng = pytest.importorskip("pynng")

TWO = Columns(["name", "value"], ["string", "int64"])
ONE = Columns(["value"], ["int64"])
numbers = itertools.count()


class PyJson(ekuiper.Source):
    """As the SDK's own example: it counts."""

    def configure(self, datasource, conf):
        self.datasource = datasource
        self.count = int(conf.get("count", 3))
        self.closed = 0

    def open(self, ctx):
        for i in range(self.count):
            ctx.emit({"name": self.datasource, "value": i}, {"i": i})

    def close(self, ctx):
        self.closed += 1


class Engine:
    """What eKuiper is to a plugin: it starts symbols of the SDK's runtime, and has the other end of their sockets."""

    def __init__(self):
        self.meta = {"ruleId": f"couatl{os.getpid()}", "opId": f"op{next(numbers)}", "instanceId": 0}
        self.url = "ipc:///tmp/{ruleId}_{opId}_{instanceId}".format(**self.meta)
        self.sockets = []

    def socket(self, kind, url, *, listen):
        socket = kind(recv_timeout=2000, send_timeout=2000)
        (socket.listen if listen else lambda url: socket.dial(url, block=True))(url)
        self.sockets.append(socket)
        return socket

    def close(self):
        for socket in self.sockets:
            socket.close()

    def control(self, **more):
        return {"symbolName": "symbol", "meta": self.meta, **more}

    def read(self, source, expected, /, datasource="", **config):
        """What a source gives, as rows of the messages."""
        from ekuiper.runtime.source import SourceRuntime

        pull = self.socket(pynng.Pull0, f"{self.url}.ipc", listen=True)
        runtime = SourceRuntime(self.control(datasource=datasource, config=config), source)
        thread = threading.Thread(target=runtime.run, daemon=True)
        thread.start()
        found = [json.loads(pull.recv()) for _ in range(expected)]
        thread.join(2)
        return found

    def write(self, sink, data, *, require_ack=False, **config):
        """Sends data to a sink; gives the acknowledgements."""
        from ekuiper.runtime.sink import SinkRuntime

        answers = self.socket(pynng.Pull0, f"{self.url}_ack.ipc", listen=True)
        runtime = SinkRuntime(self.control(config=config), sink)
        push = self.socket(pynng.Push0, f"{self.url}.ipc", listen=False)
        threading.Thread(target=runtime.run, daemon=True).start()
        given = []
        for datum in data:
            push.send(datum)
            if require_ack:
                given.append(json.loads(answers.recv()))
        return given, runtime


@contextmanager
def engine():
    with closing(Engine()) as made:
        yield made


# Sources


def test_a_source_gives_what_it_gives_there():
    with engine() as there:
        messages = [given["message"] for given in there.read(PyJson(), 3, datasource="demo", count=3)]
    assert rows(PyJson, columns=TWO, datasource="demo", count=3) == [(m["name"], m["value"]) for m in messages]
    assert rows(PyJson, datasource="demo", count=3) == messages


def test_configure_is_told_the_datasource_and_the_rest():
    class Told(ekuiper.Source):
        def configure(self, datasource, conf):
            self.told = [datasource, conf]

        def open(self, ctx):
            ctx.emit({"name": str(self.told)}, {})

    assert rows(Told, columns=TWO, url="http://x", n=1) == [("['', {'url': 'http://x', 'n': 1}]", None)]
    assert rows(Told(), columns=TWO, DATASOURCE="d") == [("['d', {}]", None)]


def test_an_error_in_configure_is_raised():
    class Wrong(ekuiper.Source):
        def configure(self, datasource, conf):
            raise ValueError("no url")

        def open(self, ctx):
            raise AssertionError

    with pytest.raises(ValueError, match="no url"):
        rows(Wrong, columns=TWO)


def test_missing_keys_are_null_and_others_are_left_out():
    class Loose(ekuiper.Source):
        def open(self, ctx):
            ctx.emit({"value": 1, "unit": "C"}, {})
            ctx.emit({"NAME": "a"}, {})
            ctx.emit({"name": None, "Name": "b", "value": 2})

    assert rows(Loose, columns=TWO) == [(None, 1), ("a", None), (None, 2)]


def test_a_message_is_what_it_was_when_it_was_emitted():
    class Reuses(ekuiper.Source):
        def open(self, ctx):
            message = {"value": [0]}
            for n in range(3):
                message["value"][0] = n
                ctx.emit(message, {})

    assert rows(Reuses, columns=Columns(["value"], ["array(int64)"])) == [([0],), ([1],), ([2],)]


def test_several_messages_at_once():
    class Many(ekuiper.Source):
        def open(self, ctx):
            ctx.emit([{"value": 1}, {"value": 2}], {})

    assert rows(Many, columns=ONE) == [(1,), (2,)]


def test_a_source_that_raises_fails_the_query_after_its_rows_and_is_closed():
    closed = []

    class Broken(ekuiper.Source):
        def open(self, ctx):
            ctx.emit({"value": 1}, {})
            raise LookupError("sensor is gone")

        def close(self, ctx):
            closed.append(1)

    with closing(reading(Broken, {}, ONE)) as source, closing(source.open("")) as pull:
        assert next(pull) == [(1,)]
        with pytest.raises(LookupError, match="sensor is gone"):
            next(pull)
    assert closed == [1]


def test_emit_error_ends_the_query_even_where_it_is_caught():
    class Reports(ekuiper.Source):
        def open(self, ctx):
            try:
                ctx.emit({"value": 1}, {})
                ctx.emit_error("bad reading")
            except Exception:
                pass

    with engine() as there:
        assert there.read(Reports(), 2)[1] == {"error": "bad reading"}
    with pytest.raises(compat.EmittedError, match=r"^bad reading$"):
        rows(Reports, columns=ONE)


def test_emit_waits_and_a_cancel_ends_an_endless_open():
    emitted, closed = [], []

    class Endless(ekuiper.Source):
        def open(self, ctx):
            while True:
                emitted.append(1)
                ctx.emit({"value": 1}, {})

        def close(self, ctx):
            closed.append(1)

    before = threading.active_count()
    with closing(reading(Endless, {}, ONE)) as source:
        with closing(source.open("")) as pull:
            assert next(pull)
            time.sleep(0.05)
            waiting = len(emitted)
            assert waiting < 5000
            pull.cancel()
        assert closed == [1]
    assert threading.active_count() == before


def test_close_lets_an_open_that_waits_return():
    class Waits(ekuiper.Source):
        def __init__(self):
            self.over = threading.Event()

        def open(self, ctx):
            ctx.emit({"value": 1}, {})
            ended.append(self.over.wait(5))

        def close(self, ctx):
            self.over.set()

    ended = []
    assert rows(Waits, columns=ONE, limit=1) == [(1,)]
    assert ended == [True]


def test_a_thread_of_the_plugins_own_is_told_that_nobody_reads():
    class Threaded(ekuiper.Source):
        def open(self, ctx):
            def work():
                try:
                    while True:
                        ctx.emit({"value": 1}, {})
                except ConnectionError as error:
                    told.append(str(error))

            self.thread = threading.Thread(target=work, daemon=True)
            self.thread.start()
            self.thread.join()

    told = []
    assert rows(Threaded, columns=ONE, limit=1) == [(1,)]
    assert told == [f"{class_name(Threaded)}: nobody reads any more"]


# Sinks


class Print(ekuiper.Sink):
    def configure(self, conf):
        self.conf = conf
        self.calls = []

    def open(self, ctx):
        self.calls.append("open")

    def collect(self, ctx, data):
        self.calls.append(data)
        if self.conf.get("requireAck"):
            ctx.ack_ok()

    def close(self, ctx):
        self.calls.append("close")


def test_a_sink_is_given_json_in_bytes():
    data = [b'{"name":"a","value":1}', b'{"name":"\xc3\xa4","value":null}']
    there, here = Print(), Print()
    with engine() as server:
        answers, runtime = server.write(there, data, require_ack=True, requireAck=True)
        runtime.stop()
    write(here, [("a", 1), ("ä", None)], columns=TWO, requireAck=True)
    assert here.calls == there.calls == ["open", *data, "close"]
    assert answers == [{}, {}]


def test_send_single_off_gives_a_block_at_once():
    sink = Print()
    write(sink, [("a", 1), ("b", 2)], columns=TWO, sendsingle="false")
    assert [json.loads(data) for data in sink.calls[1:-1]] == [[{"name": "a", "value": 1}, {"name": "b", "value": 2}]]


def test_values_that_json_has_no_type_for():
    sink = Print()
    row = (datetime(2025, 1, 2, tzinfo=timezone.utc), b"ab", Decimal("1.50"), Decimal(7), UUID(int=1), [1, {"a": 2}])
    columns = Columns(list("abcdef"), ["timestamptz", "binary", "decimal(9,2)", "decimal(9,0)", "uuid", "json"])
    write(sink, [row], columns=columns)
    assert json.loads(sink.calls[1]) == {
        "a": "2025-01-02T00:00:00+00:00",
        "b": "YWI=",
        "c": 1.5,
        "d": 7,
        "e": "00000000-0000-0000-0000-000000000001",
        "f": [1, {"a": 2}],
    }


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("tuple(a int32, b string)", (1, "z"), {"a": 1, "b": "z"}),
        ("nullable(tuple(a int32))", (None,), {"a": None}),
        ("tuple(int32, string)", (1, "z"), {"1": 1, "2": "z"}),
        ("array(tuple(a int32))", [(1,), None], [{"a": 1}, None]),
        (
            "map(string, tuple(a array(tuple(b int32))))",
            {"k": ([(1,)],), "n": None},
            {"k": {"a": [{"b": 1}]}, "n": None},
        ),
        ('tuple("A b" tuple(c binary))', ((b"ab",),), {"A b": {"c": "YWI="}}),
        ("array(int32)", [1, None], [1, None]),
        ("enum8('a' = 1)", "a", "a"),
        ("tuple(a int32)", None, None),
    ],
)
def test_structs_are_objects(kind, value, expected):
    for options in [{}, {"sendSingle": False}]:
        sink = Print()
        write(sink, [(value,)], columns=Columns(["x"], [kind]), **options)
        assert json.loads(sink.calls[1]) == ([{"x": expected}] if options else {"x": expected})


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
@pytest.mark.parametrize(
    ("kind", "wrapped"),
    [("float64", lambda n: n), ("array(float64)", lambda n: [n]), ("tuple(a float64)", lambda n: (n,))],
)
def test_numbers_that_json_has_not(kind, wrapped, value):
    columns = Columns(["n", "x"], ["int64", kind])
    for options in [{}, {"sendSingle": False}]:
        sink = Print()
        expected = rf"^column 'x': expected a number that JSON has, got {value}; write NULL instead$"
        with pytest.raises(Misuse, match=expected):
            write(sink, [(1, wrapped(value))], columns=columns, **options)
        assert sink.calls == ["open", "close"]


@pytest.mark.parametrize("method", ["ack_error", "ack_err"])
def test_an_acknowledged_error_fails_the_statement(method):
    class Refuses(Print):
        def collect(self, ctx, data):
            getattr(ctx, method)("disk full")

    expected = r"^disk full; .*Refuses said so by ack_error\(\), after 0 rows that it has acknowledged$"
    with pytest.raises(compat.EmittedError, match=expected):
        write(Refuses, [1], columns=ONE, requireAck=True)
    write(Refuses, [1], columns=ONE)


@pytest.mark.parametrize(
    ("blocks", "options", "accepted"),
    [
        ([[1, 2, 3, 4]], {}, "3 rows"),
        ([[1], [4]], {}, "1 row"),
        ([[1, 2], [3], [4, 5]], {}, "3 rows"),
        ([[1, 2], [3, 4]], {"sendSingle": "false"}, "2 rows"),
    ],
)
def test_an_acknowledged_error_says_how_many_rows_came_before_it(blocks, options, accepted):
    class Fills(Print):
        def collect(self, ctx, data):
            if b'"value":4' in data:
                ctx.ack_error("disk full")
            ctx.ack_ok()

    sink = writing(Fills, {"requireAck": True, **options}, ONE)
    sink.open()
    with pytest.raises(compat.EmittedError, match=rf"after {accepted} that it has acknowledged$"):
        for block in blocks:
            sink.write(block)
    sink.abort()
    sink.close()


def test_an_acknowledged_error_is_logged_where_nobody_waits_for_it(caplog):
    class Refuses(Print):
        def collect(self, ctx, data):
            ctx.ack_error("disk full")

    write(Refuses, [1], columns=ONE)
    assert [record.getMessage() for record in caplog.records] == [
        f"{class_name(Refuses)}: ack_error without requireAck: disk full"
    ]


def test_an_acknowledgement_belongs_to_its_datum():
    class Late(Print):
        def open(self, ctx):
            self.context, self.pool = ctx, ThreadPoolExecutor(1)

        def collect(self, ctx, data):
            kept = ctx if json.loads(data)["value"] != 2 else self.context
            order.append(data)
            self.pool.submit(lambda: (time.sleep(0.005), order.append("ack"), kept.ack_ok(), kept.ack_ok()))

        def close(self, ctx):
            self.pool.shutdown()

    order = []
    write(Late, [1, 2, 3], columns=ONE, requireAck=True)
    assert [step == "ack" for step in order] == [False, True] * 3


def test_an_error_of_a_sink_is_raised_and_it_is_closed():
    class Broken(Print):
        def collect(self, ctx, data):
            raise OSError("no route")

    sink = Broken()
    with pytest.raises(OSError, match="no route"):
        write(sink, [1], columns=ONE)
    assert sink.calls == ["open", "close"]


def test_a_sink_that_does_not_open_is_not_closed():
    class Shut(Print):
        def open(self, ctx):
            raise OSError("refused")

    made = Shut()
    sink = writing(made, {}, ONE)
    with pytest.raises(OSError, match="refused"):
        sink.open()
    sink.close()
    assert made.calls == []


# Functions


class Revert(ekuiper.Function):
    def validate(self, args):
        return "" if len(args) == 1 else "takes one argument"

    def exec(self, args, ctx):
        return args[0][::-1]

    def is_aggregate(self):
        return False


def test_a_function_computes_what_it_computes_there():
    from ekuiper.runtime.function import FunctionRuntime

    name = f"couatl{os.getpid()}"
    with engine() as there:
        server = there.socket(pynng.Rep0, f"ipc:///tmp/func_{name}.ipc", listen=True)
        runtime = FunctionRuntime({"symbolName": name}, Revert())
        threading.Thread(target=runtime.run, daemon=True).start()
        assert server.recv() == b"handshake"

        def ask(func, *args):
            server.send(json.dumps({"func": func, "arg": args}).encode())
            return json.loads(server.recv())

        meta = json.dumps({**there.meta, "funcId": 0})
        answer = ask("Exec", "abc", meta)
        refused = ask("Validate", "a", "b")
        runtime.stop()
    function = as_function(Revert)
    assert function("abc") == answer["result"] == "cba"
    assert function.is_aggregate is False
    function.validate(["a"])
    with pytest.raises(TypeError, match=rf"^Revert.validate\(\) refused 2 arguments: {refused['result']}$"):
        function.validate(["a", "b"])


def test_the_arguments_of_a_function_are_validated_before_its_first_call():
    class Typed(Revert):
        def validate(self, args):
            validated.append(args)
            return "" if isinstance(args[0]["Val"], str) else "takes text"

    validated = []
    function = as_function(Typed)
    assert [function("ab"), function("cd")] == ["ba", "dc"]
    assert validated == [[{"Val": "ab"}]]
    for call in (1, 2):
        with pytest.raises(TypeError, match=r"Typed.validate\(\) refused 1 argument: takes text$"):
            as_function(Typed)(call)


def test_an_aggregate_is_validated_with_the_lists_of_its_first_group():
    class Sum(Revert):
        def validate(self, args):
            validated.append(args)
            return ""

        def exec(self, args, ctx):
            return sum(args[0])

        def is_aggregate(self):
            return True

    validated = []
    function = as_function(Sum)
    assert [function([1, 2]), function([3])] == [3, 3]
    assert validated == [[{"Val": [1, 2]}]]


def test_an_aggregate_is_called_with_lists_and_keeps_its_context():
    class Sum(ekuiper.Function):
        def exec(self, args, ctx):
            contexts.add(id(ctx))
            return sum(args[0])

        def is_aggregate(self):
            return True

    contexts = set()
    function = as_function(Sum)
    assert function.is_aggregate
    assert [function([1, 2]), function([3])] == [3, 3]
    assert len(contexts) == 1
