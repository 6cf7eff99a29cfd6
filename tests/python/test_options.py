"""From settings to the arguments of a constructor."""
# ruff: noqa: UP006, UP007, UP035, UP045 (the older spellings are among what is tested)

from __future__ import annotations

import copy
import enum
import functools
import math
import pickle
import types
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Dict, List, Literal, NewType, Optional, Union

import pytest
from couatl._errors import Misuse
from couatl._options import Option, check, make, number, options_of
from couatl.sources import PushSource

if TYPE_CHECKING:
    from nowhere import Missing


class Color(enum.Enum):
    RED = "r"
    green = 2


Name = NewType("Name", str)
Count = NewType("Count", int)


def made(annotation, value, default=...):
    """What an option with that annotation becomes."""

    class Made:
        def __init__(self, option):
            self.option = option

    Made.__init__.__annotations__ = {"option": annotation}
    if default is not ...:
        Made.__init__.__defaults__ = (default,)
    return make(Made, {"option": value}).option


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (int, "5", 5),
        (int, " -5 ", -5),
        (int, 5, 5),
        (float, "1.5", 1.5),
        (float, 2, 2.0),
        (float, "inf", math.inf),
        (bool, "true", True),
        (bool, "False", False),
        (bool, "on", True),
        (bool, 0, False),
        (bool, True, True),
        (str, "5", "5"),
        (str, " kept ", " kept "),
        (str, 5, "5"),
        (str, 1.5, "1.5"),
        (str, True, "true"),
        (bytes, "ä", "ä".encode()),
        (Decimal, "0.10", Decimal("0.10")),
        (timedelta, "5s", timedelta(seconds=5)),
        (timedelta, "100ms", timedelta(milliseconds=100)),
        (timedelta, "1m", timedelta(minutes=1)),
        (timedelta, "1h30m", timedelta(minutes=90)),
        (timedelta, "1.5 d", timedelta(hours=36)),
        (timedelta, "250us", timedelta(microseconds=250)),
        (timedelta, "5", timedelta(seconds=5)),
        (timedelta, 5, timedelta(seconds=5)),
        (timedelta, 0.25, timedelta(milliseconds=250)),
        (timedelta, timedelta(1), timedelta(1)),
        (datetime, "2025-01-31T10:00:00", datetime(2025, 1, 31, 10)),
        (datetime, "2025-01-31 10:00:00Z", datetime(2025, 1, 31, 10, tzinfo=timezone.utc)),
        (datetime, "2025-01-31T10:00:00+01:00", datetime(2025, 1, 31, 10, tzinfo=timezone(timedelta(hours=1)))),
        (date, "2025-01-31", date(2025, 1, 31)),
        (Path, "/tmp/a b", Path("/tmp/a b")),
        (Literal["a", "b"], "b", "b"),
        (Literal[1, 2], "2", 2),
        (Literal[1, 2], 2, 2),
        (Literal["1", 1], 1, 1),
        (Literal["1", 1], "1", "1"),
        (Literal[True, "auto"], "true", True),
        (Literal[True, "auto"], "auto", "auto"),
        (Color, "RED", Color.RED),
        (Color, "red", Color.RED),
        (Color, "r", Color.RED),
        (Color, "2", Color.green),
        (Color, 2, Color.green),
        (Color, Color.RED, Color.RED),
        (Optional[int], "5", 5),
        (Optional[int], None, None),
        (Optional[int], "none", None),
        (int | None, "NULL", None),
        (int | None, 5, 5),
        (str | None, "none", "none"),
        (Union[int, str], "5", "5"),
        (int | float, "5", 5),
        (int | float, "5.5", 5.5),
        (bool | int, "5", 5),
        (timedelta | None, "1s", timedelta(seconds=1)),
        (list[int], "1, 2,3", [1, 2, 3]),
        (list[int], "[1, 2]", [1, 2]),
        (list[int], [1, "2"], [1, 2]),
        (list[int], 1, [1]),
        (list[str], "", []),
        (list, "a,b", ["a", "b"]),
        (List[float], "1", [1.0]),
        (Sequence[str], "a", ["a"]),
        (tuple[int, ...], "1,2", (1, 2)),
        (tuple[str, int], "a,2", ("a", 2)),
        (set[str], "a,a", {"a"}),
        (list[int] | None, "1", [1]),
        (dict[str, int], '{"a": "1"}', {"a": 1}),
        (Dict[str, Any], '{"a": [1]}', {"a": [1]}),
        (dict, {"a": 1}, {"a": 1}),
        (Name, 5, "5"),
        (Count, "5", 5),
        (Annotated[int, "of bytes"], "5", 5),
        (Any, "5", "5"),
        (object, "5", "5"),
        (types.SimpleNamespace, "as it is", "as it is"),
    ],
)
def test_values_become_what_the_annotation_says(annotation, value, expected):
    found = made(annotation, value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("annotation", "value", "said"),
    [
        (int, "five", r"expected an integer, got 'five' \(str\)"),
        (int, 5.0, r"expected an integer, got 5\.0 \(float\)"),
        (int, True, r"expected an integer, got True \(bool\)"),
        (int, None, "expected an integer, got None"),
        (float, "a", r"expected a number, got 'a' \(str\)"),
        (bool, "maybe", "expected true or false, got 'maybe'"),
        (bool, 2, "expected true or false, got 2"),
        (str, ["a"], r"expected text, got \['a'\] \(list\)"),
        (Decimal, "x", "expected a number, got 'x'"),
        (timedelta, "soon", "expected a duration such as '5s', '100ms', '1m' or a number of seconds, got 'soon'"),
        (timedelta, "5x", "expected a duration"),
        (timedelta, "", "expected a duration"),
        (timedelta, "1e300", "expected a duration"),
        (timedelta, "nan", "expected a duration"),
        (timedelta, True, "expected a duration"),
        (timedelta, ["5s"], "expected a duration"),
        (datetime, "tomorrow", "expected a time such as '2025-01-31T10:00:00', got 'tomorrow'"),
        (datetime, 5, "expected a time such as"),
        (date, "soon", "expected a day such as"),
        (Path, 5, "expected a path, got 5"),
        (Literal["a", "b"], "c", "expected one of 'a', 'b', got 'c'"),
        (Color, "blue", "expected one of RED, green, got 'blue'"),
        (Optional[int], "x", "expected an integer or none, got 'x'"),
        (int | bool, "x", "expected an integer or true or false, got 'x'"),
        (list[int], "1,x", "expected an integer, got '1,x'"),
        (list[int], "[1", "expected a JSON array, or values with commas between them"),
        (tuple[int, int], "1", "expected 2 values, got '1'"),
        (dict, "[1]", "expected a JSON object"),
        (dict, 5, "expected a JSON object"),
    ],
)
def test_values_that_do_not_fit(annotation, value, said):
    with pytest.raises(Misuse, match=f"Made: option 'option': {said}"):
        made(annotation, value)


def test_none_is_a_value_where_it_is_the_default():
    assert made(int, None, default=None) is None
    assert made(int, "5", default=None) == 5


class Poll:
    def __init__(self, url: str, every: timedelta = timedelta(seconds=1), limit: int | None = None, other=None):
        self.given = (url, every, limit, other)


def test_what_options_there_are():
    assert options_of(Poll) == [
        Option("url", str, None, True),
        Option("every", timedelta, timedelta(seconds=1), False),
        Option("limit", int | None, None, False),
        Option("other", Any, None, False),
    ]


def test_names():
    assert make(Poll, {"url": "x", "limit": "5", "other": "as it is"}).given[2:] == (5, "as it is")
    with pytest.raises(TypeError, match=r"^Poll: expected the option 'url' \(str\), and it is not set$"):
        make(Poll, {})
    with pytest.raises(TypeError, match=r"^Poll: there is no option 'evry'; did you mean 'every'\?$"):
        make(Poll, {"url": "x", "evry": 5})
    with pytest.raises(TypeError, match=r"^Poll: there is no option 'xyz'; expected one of url, every, limit, other$"):
        make(Poll, {"url": "x", "xyz": 5})


def test_checks_make_nothing_and_leave_out_what_is_not_known():
    class Refuses(Poll):
        def __init__(self, url: str, size: int = 1):
            raise AssertionError("it is not made")

    assert check(Refuses, {"url": "x", "size": "5"}) == {"url": "x", "size": 5}
    assert check(Refuses, {"size": "5"}, given={"url", "size"}) == {"size": 5}
    with pytest.raises(TypeError, match="there is no option 'sise'; did you mean 'size'"):
        check(Refuses, {}, given={"url", "sise"})


def test_constructors_of_all_kinds():
    class Without:
        pass

    class Pushes(PushSource):
        pass

    class Positional:
        def __init__(self, a: int, b: int = 2, /, c: int = 3, *more: int, d: int = 4, **others: int):
            self.given = (a, b, c, more, d, others)

    @dataclass
    class Data:
        size: int
        name: str = "x"

    def counted(init):
        @functools.wraps(init)
        def wrapper(self, *args, **kwargs):
            self.counted = True
            return init(self, *args, **kwargs)

        return wrapper

    class Wrapped:
        @counted
        def __init__(self, size: int):
            self.size = size

    class New:
        def __new__(cls, size: int):
            self = super().__new__(cls)
            self.size = size
            return self

    for kind in (Without, Pushes):
        assert isinstance(make(kind, {}), kind)
        with pytest.raises(TypeError, match=f"{kind.__name__}: there is no option 'a'; it takes none"):
            make(kind, {"a": 1})
    assert make(Positional, {"a": "1", "d": "5", "e": "6"}).given == (1, 2, 3, (), 5, {"e": 6})
    assert make(Positional, {"c": "7", "b": 8, "a": 9}).given == (9, 8, 7, (), 4, {})
    assert make(Data, {"size": "5"}) == Data(5)
    assert vars(make(Wrapped, {"size": "5"})) == {"size": 5, "counted": True}
    assert make(New, {"size": "5"}).size == 5
    assert make(dict, {"a": 1}) == {"a": 1}


def test_constructors_of_which_nothing_would_run():
    class Awaited:
        async def __init__(self, size: int = 1):
            pass

    class Yielded:
        def __init__(self, size: int = 1):
            yield size

    with pytest.raises(Misuse, match=r"^Awaited\.__init__\(\) is asynchronous; expected a plain method \(def"):
        check(Awaited, {})
    with pytest.raises(Misuse, match=r"^Yielded\.__init__\(\) has a yield, and nothing of it would run"):
        make(Yielded, {"size": 5})


def test_options_without_a_parameter_of_their_own_are_what_all_of_them_are():
    class Others:
        def __init__(self, **others: int):
            self.given = others

    with pytest.raises(Misuse, match=r"^Others: option 'e': expected an integer, got 'x' \(str\)$"):
        make(Others, {"e": "x"})
    with pytest.raises(Misuse, match="expected an integer, got 'x'"):
        check(Others, {"e": "x"})


@pytest.mark.parametrize(
    ("annotation", "text", "expected"),
    [
        (str, "007", "007"),
        (str, "1.10", "1.10"),
        (str, "1e3", "1e3"),
        (str | None, "1.10", "1.10"),
        (list[str], "-0", ["-0"]),
        (bytes, "007", b"007"),
        (Name, ".5", ".5"),
        (Literal["1.10"], "1.10", "1.10"),
        (Literal["1", 1], "01", 1),
        (Decimal, "12345678901234567890.123456789", Decimal("12345678901234567890.123456789")),
        (Decimal | None, "1.10", Decimal("1.10")),
        (int, "007", 7),
        (float, "1.10", 1.1),
        (str | int, "007", 7),
        (timedelta, "1.50", timedelta(seconds=1.5)),
        (bool, "1", True),
        (Any, "1.10", 1.1),
        (object, "007", 7),
        (list, "007", [7]),
        (types.SimpleNamespace, "1e3", 1000.0),
        ("no such name", "007", 7),
    ],
)
def test_numbers_are_exactly_what_was_written(annotation, text, expected):
    found = made(annotation, number(text))
    assert found == expected
    assert str(found) == str(expected), "the sign, and zeros at the end"
    assert [type(each) for each in (found, *(found if isinstance(found, list) else ()))] == [
        type(each) for each in (expected, *(expected if isinstance(expected, list) else ()))
    ]


def test_numbers_remember_what_was_written_only_where_it_says_more():
    assert [type(number(text)) for text in ("5", "-5", "9223372036854775808", "1.5", "1e+16")] == [
        int, int, int, float, float,
    ]  # fmt: skip
    for text in ("007", "1.10", "1e3"):
        for same in (copy.deepcopy(number(text)), pickle.loads(pickle.dumps(number(text)))):
            assert (same, str(same)) == (number(text), text)
    with pytest.raises(Misuse, match=r"expected an integer, got 10\.0 \(float\)"):
        made(int, number("10.0"))


def test_what_the_constructor_raises_is_raised():
    class Refuses:
        def __init__(self, size: int):
            raise KeyError(size)

    with pytest.raises(KeyError, match="5"):
        make(Refuses, {"size": "5"})


def test_hints_that_cannot_be_resolved_hide_no_others():
    class Partly:
        def __init__(self, size: int, odd: Missing, much: list[Missing] | None = None):
            self.given = (size, odd, much)

    assert make(Partly, {"size": "5", "odd": "as it is"}).given == (5, "as it is", None)
    assert [option.type for option in options_of(Partly)] == [int, Any, Any]


def test_hints_of_a_module_that_is_not_imported():
    """The module of a stream's body: made by hand, with annotations as text."""
    module = types.ModuleType("couatl_stream_body")
    body = (
        "from __future__ import annotations\n"
        "from datetime import timedelta\n"
        "class Body:\n"
        "    def __init__(self, every: timedelta, size: int | None = None):\n"
        "        self.given = every, size\n"
    )
    exec(compile(body, "<stream>", "exec", dont_inherit=True), module.__dict__)
    assert make(module.Body, {"every": "5s", "size": "7"}).given == (timedelta(seconds=5), 7)
