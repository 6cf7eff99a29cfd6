"""Options that a TypedDict says: ``**options: Unpack[Limits]``."""

from __future__ import annotations

import typing
from datetime import timedelta

import pytest
from couatl._errors import Misuse
from couatl._options import Option, check, make, options_of
from couatl.sources import Source
from couatl.testing import rows
from harness import Server, error, run, table, watched

typing_extensions = pytest.importorskip("typing_extensions")

MODULE = """
from datetime import timedelta
from typing import NotRequired, Required, TypedDict, Unpack

from couatl.sources import Source


class Limits(TypedDict, total=False):
    rows: Required[int]
    every: timedelta
    hint: str


class Limited(Source):
    def __init__(self, word: str = "sun", **limits: Unpack[Limits]):
        self.word, self.limits = word, limits

    def schema(self):
        return "word string, limits string"

    def open(self, partition, state):
        yield self.word, str(self.limits)
"""


class Theirs(typing_extensions.TypedDict):
    rows: int
    every: typing_extensions.NotRequired[timedelta]


class Ours(Theirs, total=False):
    tags: list[str]
    level: typing_extensions.Required[typing_extensions.ReadOnly[typing.Literal["low", "high"]]]


class Limited(Source):
    def __init__(self, word: str = "sun", **limits: typing_extensions.Unpack[Ours]):
        self.word, self.limits = word, limits

    def open(self, partition, state):
        return [{"word": self.word, **self.limits}]


def test_the_options_are_those_of_the_typed_dict():
    assert {option.name: option for option in options_of(Limited)} == {
        "word": Option("word", str, "sun", False),
        "rows": Option("rows", int, None, True),
        "every": Option("every", timedelta, None, False),
        "tags": Option("tags", list[str], None, False),
        "level": Option("level", typing.Literal["low", "high"], None, True),
    }


def test_each_becomes_what_its_key_says():
    made = make(Limited, {"rows": "3", "every": "5s", "tags": "a, b", "level": "high"})
    assert made.limits == {"rows": 3, "every": timedelta(seconds=5), "tags": ["a", "b"], "level": "high"}
    assert rows(Limited, rows=1, level="low") == [{"word": "sun", "rows": 1, "level": "low"}]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rows": 1, "level": "low", "evry": "5s"}, r"there is no option 'evry'; did you mean 'every'\?"),
        ({"level": "low"}, r"expected the option 'rows' \(int\), and it is not set"),
        ({"rows": 1}, r"expected the option 'level' .*, and it is not set"),
        ({"rows": "many", "level": "low"}, r"option 'rows': expected an integer, got 'many' \(str\)"),
        ({"rows": 1, "level": "none"}, r"option 'level': expected one of 'low', 'high', got 'none' \(str\)"),
    ],
)
def test_what_does_not_fit(options, said):
    with pytest.raises(Misuse, match=f"^Limited: {said}$"):
        check(Limited, options)


def test_what_is_unpacked_and_is_no_typed_dict_takes_anything():
    class Open(Source):
        def __init__(self, **options: typing_extensions.Unpack[dict]):
            self.options = options

        def open(self, partition, state):
            return [self.options]

    assert rows(Open, level="low") == [{"level": "low"}]


@pytest.mark.skipif(not hasattr(typing, "Unpack"), reason="typing has no Unpack before Python 3.11")
def test_a_statement_is_checked(tmp_path, monkeypatch):
    (tmp_path / "limited.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    server = Server(tmp_path)
    try:
        with watched(server, 30.0), server.connect() as connection:

            def create(settings):
                return f"CREATE EXTERNAL STREAM limited SETTINGS type = 'python', class = 'limited:Limited'{settings}"

            assert "expected the option 'rows' (int), and it is not set" in error(connection, create(""))
            wrong = create(", rows = 1, every = 'soon'")
            assert "option 'every': expected a duration such as" in error(connection, wrong)
            wrong = create(", rows = 1, hints = 'x'")
            assert "there is no option 'hints'; did you mean 'hint'?" in error(connection, wrong)
            run(connection, create(", rows = '7', hint = 'x'"))
            found = table(connection, "SELECT word, limits FROM limited").to_pylist()
            assert found == [{"word": "sun", "limits": "{'rows': 7, 'hint': 'x'}"}]
    finally:
        server.kill()
