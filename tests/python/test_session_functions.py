"""Functions of SQL that are made of functions of a program, where they stand."""

import dataclasses
import datetime
import functools
import re
import uuid

import couatl
import misuse
import pytest
from couatl import exceptions
from couatl._errors import Misuse
from couatl.compat import ekuiper
from couatl.functions import Aggregate


@pytest.fixture
def session():
    return couatl.Session()


def answer(session, sql):
    """The rows that a query gives, as tuples."""
    return [tuple(row.values()) for row in session.sql(sql).to_arrow().to_pylist()]


def value(session, sql):
    ((only,),) = answer(session, sql)
    return only


# What a function is annotated with


def test_annotations_are_its_parameters_and_its_type(session):
    @session.function()
    def repeated(text: str, times: int, end: str | None) -> str | None:
        return None if end is None else text * times + end

    assert repeated("a", 2, "b") == "aab"
    assert answer(session, "SELECT repeated('a', 2, 'b'), repeated('a', 2, NULL)") == [("aab", None)]
    with pytest.raises(
        exceptions.ProgrammingError, match=r"takes 3 arguments \(text string, times int64, end string\)"
    ):
        session.sql("SELECT repeated('a')")


VALUES = {
    bool: ("true", True),
    int: ("9007199254740993", 2**53 + 1),
    float: ("CAST(0.1 AS DOUBLE)", 0.1),
    str: ("'é'", "é"),
    bytes: ("X'00FF'", b"\0\xff"),
    datetime.date: ("DATE '1969-12-31'", datetime.date(1969, 12, 31)),
    datetime.time: ("TIME '01:02:03'", datetime.time(1, 2, 3)),
    datetime.datetime: ("TIMESTAMP '2026-01-02 03:04:05'", datetime.datetime(2026, 1, 2, 3, 4, 5)),
    uuid.UUID: ("CAST('00000000-0000-0000-0000-000000000005' AS uuid)", uuid.UUID(int=5)),
    list[int]: ("[1, 2]", [1, 2]),
    dict[str, int]: ("MAP {'a': 1}", {"a": 1}),
}


@pytest.mark.parametrize("hint", VALUES)
def test_each_annotation_is_a_type(session, hint):
    text, expected = VALUES[hint]
    got = []

    def same(given):
        got.append(given)
        return given

    same.__annotations__ = {"given": hint, "return": hint}
    session.function()(same)
    found = value(session, f"SELECT same({text})")
    assert got == [expected] and type(got[0]) is type(expected)
    assert (dict(found) if isinstance(expected, dict) else found) == expected


def test_a_value_that_is_promised_may_not_lack(session):
    @session.function()
    def promised(n: int) -> int:
        return n if n < 2 else None

    expected = r"function 'promised', row 2, column 'result' \(int64\): cannot store None: the column is NOT NULL"
    with pytest.raises(exceptions.DataError, match=expected):
        session.sql("SELECT promised(n) FROM (VALUES (1), (2)) AS t (n)").to_arrow()


# What it is told


@pytest.mark.parametrize(
    ("format", "function", "expected"),
    [
        (None, lambda n: [each + 1 for each in n], 4),
        ("list", lambda n: [type(n).__name__ == "list" and each for each in n], 3),
        ("row", lambda n: n * 2, 6),
        ("arrow", lambda n: n.cast("float64").cast("int64"), 3),
        ("numpy", lambda n: n + n.dtype.itemsize, 11),
    ],
)
def test_columns_come_in_a_format(session, format, function, expected):
    session.function("n int64", "int64", name="given", format=format)(function)
    assert value(session, "SELECT given(3)") == expected


def test_a_format_that_is_told_is_that_of_annotations_too(session):
    @session.function(format="list")
    def doubled(n: int) -> int:
        return [each * 2 for each in n]

    assert value(session, "SELECT doubled(4)") == 8


def test_a_strict_function_is_not_asked_about_null(session):
    asked = []

    @session.function("n int64", "int64", strict=True, format="row")
    def strictly(n):
        asked.append(n)
        return n

    assert answer(session, "SELECT strictly(n) FROM (VALUES (1), (NULL), (3)) AS t (n)") == [(1,), (None,), (3,)]
    assert asked == [1, 3]


@pytest.mark.parametrize(("volatility", "calls"), [("volatile", 4), ("stable", 1), ("immutable", 1)])
def test_a_function_that_is_not_volatile_is_asked_once(session, volatility, calls):
    asked = []

    @session.function("n int64", "int64", volatility=volatility, format="row")
    def counted(n):
        asked.append(n)
        return n

    assert answer(session, "SELECT counted(7) FROM generate_series(1, 4)") == [(7,)] * 4
    assert len(asked) == calls


def test_a_function_has_the_name_that_it_is_told(session):
    @session.function("n int64", "int64", name='Half "of"')
    def half(n):
        return [each // 2 for each in n]

    assert value(session, 'SELECT "Half ""of"""(8)') == 4
    with pytest.raises(exceptions.ProgrammingError, match="Invalid function 'half'"):
        session.sql("SELECT half(8)")
    session.function("n int64", "int64", name="partly")(functools.partial(half))
    assert value(session, "SELECT partly(8)") == 4


def test_what_has_no_name_is_told_one(session):
    nameless = functools.partial(lambda n: n)
    with pytest.raises(Misuse, match=r"^expected name='…' beside functools\.partial"):
        session.function("n int64", "int64")(nameless)
    with pytest.raises(Misuse, match=r"^partly: expected parameters and returns, as in .*, or a function or a class"):
        session.function(name="partly")(nameless)


# Aggregates and tables

GROUPS = "(VALUES ('a', 1), ('b', 5), ('a', 3), ('b', NULL)) AS t (g, n)"


class Spread:
    """Takes values."""

    def __init__(self):
        self.seen = []

    def process(self, n: int | None):
        self.seen += [] if n is None else [n]

    def merge(self, other):
        self.seen += other.seen

    def finalize(self) -> int:
        return max(self.seen) - min(self.seen)


class Spreads(Spread):
    """Takes columns."""

    def process(self, n: list[int | None]):
        assert isinstance(n, list)
        self.seen += [each for each in n if each is not None]


class Untyped(Spread):
    def process(self, n):
        Spreads.process(self, n)

    def finalize(self):
        return Spread.finalize(self)


class Pairs:
    """Takes two columns, and cannot be merged."""

    def __init__(self):
        self.seen = []

    def process(this, word: list[str], n: list[int]):
        this.seen += zip(word, n)

    def finalize(self) -> list[str]:
        return sorted(f"{word}{n}" for word, n in self.seen)


@pytest.mark.parametrize("made", [Spread, Spreads])
def test_a_class_is_an_aggregate(session, made):
    assert session.function(name="spread")(made) is made
    assert answer(session, f"SELECT g, spread(n) FROM {GROUPS} GROUP BY g ORDER BY g") == [("a", 2), ("b", 0)]
    assert value(session, f"SELECT spread(n) FROM {GROUPS}") == 4


def test_an_aggregate_is_told_its_parameters(session):
    session.function("n int64", "int64", name="spread")(Untyped)
    assert value(session, f"SELECT spread(n) FROM {GROUPS}") == 4


def test_an_aggregate_of_two_columns(session):
    session.function(name="pairs")(Pairs)
    assert value(session, f"SELECT pairs(g, n) FROM {GROUPS} WHERE n < 5") == ["a1", "a3"]


def test_rows_go_through_a_function(session):
    @session.function("input TABLE, times int", "TABLE (word string, at int64)")
    def spelled(input, times):
        for row in input:
            for at in range(times):
                yield row.word, at

    words = "(SELECT * FROM (VALUES ('a'), ('b')) AS t (word))"
    assert answer(session, f"SELECT word, at FROM spelled({words}, 2) ORDER BY word, at") == [
        ("a", 0),
        ("a", 1),
        ("b", 0),
        ("b", 1),
    ]


def test_a_function_gives_rows(session):
    session.function("n int", "TABLE (v int64)", name="up_to")(lambda n: list(range(n)))
    assert answer(session, "SELECT v FROM up_to(3) WHERE v > 0 ORDER BY v") == [(1,), (2,)]


def test_a_class_that_gives_rows_is_no_aggregate(session):
    class Down:
        def __init__(self, n):
            self.n = n

        def __iter__(self):
            return iter(range(self.n, 0, -1))

    session.function("n int", " table (v int64)", name="down")(Down)
    assert answer(session, "SELECT v FROM down(2)") == [(2,), (1,)]


class Revert(ekuiper.Function):
    def exec(self, args, ctx):
        return args[0][::-1]


class Longest(ekuiper.Function):
    def exec(self, args, ctx):
        return max(args[0], key=len)

    def is_aggregate(self):
        return True


@pytest.mark.parametrize("make", [lambda made: made, lambda made: made()], ids=["class", "object"])
def test_a_plugins_function_says_whether_it_is_an_aggregate(session, make):
    session.function("text string", "string", name="revert")(make(Revert))
    session.function("text string", "string", name="longest")(make(Longest))
    assert value(session, "SELECT revert(longest(word)) FROM (VALUES ('a'), ('abc')) AS t (word)") == "cba"


# One in the place of another


def test_a_function_that_is_made_again_replaces(session):
    for number in range(3):
        session.function("n int64", "int64", name="again")(lambda n, number=number: [number for _ in n])
        assert value(session, "SELECT again(1)") == number
    session.function(name="again")(Spread)
    assert value(session, f"SELECT again(n) FROM {GROUPS}") == 4
    session.function("n int", "TABLE (v int64)", name="again")(lambda n: [n])
    assert value(session, "SELECT v FROM again(9)") == 9
    with pytest.raises(exceptions.ProgrammingError, match=r"'again': it gives rows"):
        session.sql("SELECT again(1)")
    session.sql("DROP FUNCTION again")
    with pytest.raises(exceptions.ProgrammingError, match="'again'"):
        session.sql("SELECT v FROM again(9)")


def test_a_function_replaces_that_of_a_statement(session):
    session.sql("CREATE FUNCTION told(n int64) RETURNS int64 LANGUAGE PYTHON AS $$\ndef told(n): return n\n$$")
    assert value(session, "SELECT told(1)") == 1
    session.function("n int64, m int64", "int64", name="told")(lambda n, m: m)
    assert value(session, "SELECT told(1, 2)") == 2


def test_sessions_have_functions_of_their_own(session):
    session.function("n int64", "int64", name="mine")(lambda n: n)
    with pytest.raises(exceptions.ProgrammingError, match="Invalid function 'mine'"):
        couatl.Session().sql("SELECT mine(1)")


# What goes wrong


class Own(Exception):
    pass


def raising(error):
    def raises(*_):
        raise error

    return raises


def test_what_a_function_raises_is_raised_as_itself(session):
    raised = Own("mine")
    session.function("n int64", "int64", name="failing")(raising(raised))
    session.function("n int", "TABLE (v int64)", name="failing_rows")(raising(raised))
    failing = type("Failing", (Untyped,), {"process": raising(raised)})
    session.function("n int64", "int64", name="failing_group")(failing)
    for sql in [
        "SELECT failing(1)",
        "SELECT v FROM failing_rows(1)",
        f"SELECT failing_group(n) FROM {GROUPS}",
        "CREATE TABLE kept AS SELECT failing(1) AS n",
    ]:
        with pytest.raises(Own) as caught:
            session.sql(sql).to_arrow()
        assert caught.value is raised


def nothing_returned(a: int):
    return a


def nothing_taken(a, b: int) -> int:
    return a + b


def strange(a: complex) -> int:
    return 1


def either(a: int | str | None) -> int:
    return 1


def returns_none(a: int) -> None:
    return None


def many(*numbers: int) -> int:
    return sum(numbers)


def named(a: int, *, b: int = 1) -> int:
    return a + b


class Nothing:
    pass


@dataclasses.dataclass
class Endless:
    def process(self, n: int):
        pass


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (nothing_returned, "nothing_returned: expected parameters and returns, as in (…); there is none for what it"),
        (nothing_taken, "nothing_taken: expected parameters and returns, as in (…) for the parameter 'a'"),
        (strange, "strange.a: there is no column type for <class 'complex'>; expected one of bool, int, (…)"),
        (either, "either.a: there is no column type for int | str | None; expected one of"),
        (returns_none, "returns_none: there is no column type for <class 'NoneType'>"),
        (many, "many: expected parameters that are given by position, one by one, found '*numbers: int'; leave it out"),
        (named, "named: expected parameters that are given by position, one by one, found 'b: int = 1'; leave it out"),
        (Nothing, "Nothing has no process(), which an aggregate has"),
        (Endless, "Endless has no finalize(), which an aggregate has"),
    ],
)
def test_annotations_that_say_too_little(session, function, expected):
    with pytest.raises(Misuse, match="^" + re.escape(expected).replace(re.escape("(…)"), ".*")):
        session.function()(function)


@pytest.mark.parametrize("method", ["process", "merge", "finalize"])
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (misuse.awaited, r"\(\) is asynchronous.*; expected a plain method"),
        (misuse.yielded, r"\(\) has a yield, .*; expected a method without"),
        (5, r" is 5 \(int\); expected a method.* {method}\("),
        (lambda: None, r"\(\) .*; expected .*self"),
    ],
)
def test_misuse_of_an_aggregate(method, wrong, said):
    good = {"process": lambda self, n: None, "merge": lambda self, other: None, "finalize": lambda self: 0}
    assert type("Good", (Aggregate,), good)().finalize() == 0
    with pytest.raises(Misuse, match=rf"^Bad\.{method}" + said.format(method=method)):
        type("Bad", (Aggregate,), {**good, method: wrong})


@pytest.mark.parametrize(("method", "call"), [("merge", "self, other"), ("finalize", "self")])
def test_what_an_aggregate_is_called_with(method, call):
    good = {"process": lambda self, *columns: None, "finalize": lambda self: 0}
    with pytest.raises(Misuse, match=rf"^Bad\.{method}\(self, one, .*expected .*{method}\({call}\)"):
        type("Bad", (Aggregate,), {**good, method: misuse.others})


@pytest.mark.parametrize(
    ("arguments", "error", "expected"),
    [
        (
            {"parameters": "n int64"},
            Misuse,
            "expected both parameters and returns, or none of them; got 'n int64' and None",
        ),
        ({"returns": "int64"}, Misuse, "expected both parameters and returns, or none of them; got None and 'int64'"),
        ({"volatility": "never"}, Misuse, "expected a volatility of volatile, stable, immutable, got 'never'"),
        (
            {"parameters": "n int64", "returns": "int64", "format": "it's"},
            exceptions.ProgrammingError,
            "format must be 'row', 'list', 'arrow' or 'numpy', found 'it's'",
        ),
        (
            {"parameters": "n strng", "returns": "int64"},
            exceptions.ProgrammingError,
            "unknown type 'strng'",
        ),
        (
            {"parameters": "n int64", "returns": "int64", "name": "lower"},
            exceptions.ProgrammingError,
            "'lower' is a function of SQL; choose another name",
        ),
    ],
)
def test_what_a_function_cannot_be_told(session, arguments, error, expected):
    with pytest.raises(error, match=re.escape(expected)):
        session.function(**arguments)(lambda n: n)


async def awaited(n: int) -> int:
    return n


def yielding(n: int) -> int:
    yield n


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (awaited, "'awaited' is asynchronous (async def)"),
        (yielding, "'yielding' is a generator (there is a yield in it)"),
        (lambda: 1, "cannot be called with 1 positional argument"),
        (lambda n: 1, "expected 'unfit' to give a list or an Arrow array of 1 value, one for each row, got 1 (int)"),
        (lambda n: [1, 2], "expected 'unfit' to give 1 value, one for each row, got 2"),
        (3, "is not callable: it is of type int"),
    ],
)
def test_what_is_no_function_of_sql(session, function, expected):
    with pytest.raises(exceptions.Error, match=re.escape(expected)):
        session.function("n int64", "int64", name="unfit")(function)
        session.sql("SELECT unfit(1)").to_arrow()
