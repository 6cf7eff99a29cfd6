"""eKuiper's base classes, misused: each sentence names the class, the method, what came of it and what was expected."""

from abc import ABC, abstractmethod

import pytest
from couatl._errors import Misuse
from couatl.compat import ekuiper as compat
from couatl.compat.ekuiper import Plugin, as_function, as_sink, check_class, offered
from couatl.testing import Columns, rows, write
from misuse import awaited, giving, raising, yielded

ekuiper = pytest.importorskip("ekuiper")

ONE = Columns(["value"], ["int64"])
BASES = pytest.mark.parametrize("base", [ekuiper, compat], ids=["library", "ours"])


WORKING = {
    "source": {"open": lambda self, ctx: ctx.emit({"value": 1}, {})},
    "sink": {"collect": lambda self, ctx, data: ctx.ack_ok()},
    "function": {"exec": lambda self, args, ctx: args[0]},
}
CALLS = {
    "source": {"configure": "datasource, conf", "open": "ctx", "close": "ctx"},
    "sink": {"configure": "conf", "open": "ctx", "collect": "ctx, data", "close": "ctx"},
    "function": {"validate": "args", "exec": "args, ctx", "is_aggregate": ""},
}
METHODS = [(kind, method, parameters) for kind, calls in CALLS.items() for method, parameters in calls.items()]


def part(base, kind, **methods):
    """A class that works, but for these methods."""
    given = {name: method for name, method in {**WORKING[kind], **methods}.items() if method is not ...}
    return type("Part", (getattr(base, kind.capitalize()),), given)


def used(thing, kind):
    if kind == "source":
        return rows(thing, columns=ONE)
    if kind == "sink":
        return write(thing, [1], columns=ONE, requireAck=True)
    return as_function(thing)(1)


def told(work, *arguments):
    with pytest.raises(Misuse) as caught:
        work(*arguments)
    return str(caught.value)


@BASES
@pytest.mark.parametrize("kind", WORKING)
def test_parts_that_work(base, kind):
    used(part(base, kind), kind)
    used(part(base, kind)(), kind)


@BASES
@pytest.mark.parametrize(("kind", "method", "parameters"), METHODS)
def test_methods_that_cannot_be_called(base, kind, method, parameters):
    call = f"{method}({', '.join(filter(None, ['self', parameters]))})"
    wrongs = {
        lambda self, one, two, three: 3: f"(self, one, two, three) cannot be called as it is; expected {call}",
        awaited: "() is asynchronous; expected a plain method (def, not async def)",
        yielded: "() has a yield, and nothing of it would run; expected a method without yield",
        3: f" is 3 (int); expected a method {call}",
    }
    for given, expected in wrongs.items():
        wrong = part(base, kind, **{method: given})
        # Of a class, of an instance, and where a stream is made.
        sentences = {told(used, wrong, kind), told(used, wrong(), kind), told(check_class, wrong, kind)}
        assert sentences == {f"Part.{method}{expected}"}


@BASES
@pytest.mark.parametrize("kind", WORKING)
def test_methods_that_are_missing(base, kind):
    [method] = WORKING[kind]
    wrong = part(base, kind, **{method: ...})
    expected = f"Part has no {method}({CALLS[kind][method]}); an eKuiper {kind} must"
    assert told(used, wrong, kind) == told(check_class, wrong, kind) == expected


@BASES
@pytest.mark.parametrize(("kind", "method"), [(kind, method) for kind, method, _ in METHODS])
def test_what_methods_raise_is_raised(base, kind, method):
    with pytest.raises(OSError, match=r"^mine$"):
        used(part(base, kind, **{method: raising}), kind)


@BASES
@pytest.mark.parametrize(("kind", "method"), [(kind, method) for kind, method, _ in METHODS])
def test_what_would_be_taken_for_an_end(base, kind, method):
    wrong = part(base, kind, **{method: lambda self, *_: next(iter(()))})
    with pytest.raises(RuntimeError, match=rf"^Part.{method}\(\) raised StopIteration"):
        used(wrong, kind)


@BASES
@pytest.mark.parametrize("kind", WORKING)
def test_classes_that_cannot_be_made(base, kind):
    wrong = part(base, kind, __init__=lambda self, path: None)
    expected = "Part.__init__(self, path) cannot be called as it is; expected __init__(self)"
    assert told(used, wrong, kind) == told(check_class, wrong, kind) == expected
    abstract = type("Abstract", (part(base, kind), ABC), {"url": abstractmethod(giving(3))})
    assert told(used, abstract, kind) == "Abstract is abstract; expected a class that defines url()"


EMITTED = [(3, "3 (int)"), (None, "None"), ([{"value": 1}, 3], "3 (int)"), ("ab", "'ab' (str)")]


@BASES
@pytest.mark.parametrize(("message", "shown"), EMITTED)
def test_messages_that_are_no_dicts(base, message, shown):
    wrong = part(base, "source", open=lambda self, ctx: ctx.emit(message, {}))
    assert told(used, wrong, "source") == f"Part.open() emitted {shown}; expected a dict with a value for each column"


@BASES
@pytest.mark.parametrize(
    ("kind", "method", "call", "of"),
    [
        ("source", "open", lambda ctx: ctx.ack_ok(), "ack_ok(), which is there for sinks"),
        ("source", "open", lambda ctx: ctx.ack_err("no"), "ack_error(), which is there for sinks"),
        ("sink", "collect", lambda ctx: ctx.emit({}, {}), "emit(), which is there for sources"),
        ("function", "exec", lambda ctx: ctx.emit_error("no"), "emit_error(), which is there for sources"),
    ],
)
def test_what_is_there_for_others(base, kind, method, call, of):
    def calls(self, *arguments):
        call(next(each for each in arguments if isinstance(each, compat.Context)))

    assert told(used, part(base, kind, **{method: calls}), kind) == f"Part called ctx.{of} alone"


@BASES
@pytest.mark.parametrize(
    ("method", "found", "shown", "expected"),
    [
        ("validate", None, "None", "the reason why the arguments do not fit, or ''"),
        ("validate", True, "True (bool)", "the reason why the arguments do not fit, or ''"),
        ("is_aggregate", None, "None", "True or False"),
        ("is_aggregate", "no", "'no' (str)", "True or False"),
    ],
)
def test_functions_that_return_what_they_must_not(base, method, found, shown, expected):
    wrong = part(base, "function", **{method: giving(found)})
    assert told(used, wrong, "function") == f"Part.{method}() returned {shown}; expected {expected}"


@pytest.mark.parametrize("kind", WORKING)
@pytest.mark.parametrize("made", [None, 3, compat.Source])
def test_what_is_made_by_what_a_plugin_offers(kind, made):
    plugin = Plugin("p", *({"x": lambda: made} for _ in range(3)), module=pytest)
    shown = "None" if made is None else f"{made!r} ({type(made).__name__})"
    expected = f"what makes the {kind} 'x' returned {shown}; expected an object that is an eKuiper {kind}"
    assert told(used, offered(plugin, kind, "x"), kind) == expected


def test_an_option_that_is_no_truth_value():
    with pytest.raises(Misuse, match=r"^option 'requireAck': expected true or false, got 'perhaps' \(str\)$"):
        as_sink(part(compat, "sink"), {"requireAck": "perhaps"}, ONE)
