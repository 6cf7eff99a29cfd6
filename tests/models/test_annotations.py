"""What is said of functions whose columns are annotations, where they cannot be used as they are."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import couatl
import pytest
from couatl._errors import Misuse
from couatl.exceptions import ProgrammingError
from couatl.sinks import Sink


@dataclass
class Row:
    n: int


@pytest.fixture
def session():
    return couatl.Session()


def test_rows_of_a_dataclass_become_tuples(session):
    @session.source()
    def numbers() -> Iterator[Row]:
        yield Row(1)
        yield [Row(2), Row(3)]

    assert session.sql("SELECT n FROM numbers").to_arrow().to_pydict() == {"n": [1, 2, 3]}


def test_what_belongs_to_the_class_alone_is_no_column(session):
    @dataclass
    class Counted:
        n: int
        total: ClassVar[int] = 0

    @session.source()
    def numbers() -> list[Counted]:
        return [Counted(1)]

    assert session.sql("SELECT * FROM numbers").to_arrow().to_pydict() == {"n": [1]}


def test_an_asynchronous_function_is_told_by_its_name(session):
    async def numbers() -> AsyncIterator[Row]:
        yield Row(1)

    with pytest.raises(ProgrammingError, match=r"read function 'numbers' is asynchronous \(async def\)"):
        session.source()(numbers)


def test_a_function_with_parameters_is_told_by_its_name(session):
    def numbers(start) -> list[Row]:
        return [Row(start)]

    with pytest.raises(
        ProgrammingError, match=r"read function 'numbers\(start\).*' cannot be called with 0 positional"
    ):
        session.source()(numbers)


def test_what_a_function_returns_is_told_by_its_name(session):
    @session.source()
    def numbers() -> list[Row]:
        return 5

    with pytest.raises(couatl.exceptions.Error, match=r"expected read function 'numbers' to return .* got 5"):
        session.sql("SELECT n FROM numbers").to_arrow()


def test_annotations_that_name_nothing_are_told(session):
    def numbers() -> "Iterator[Nowhere]":  # noqa: F821
        yield 1

    expected = r"^numbers: its annotations cannot be read \(name 'Nowhere' is not defined\); give "
    with pytest.raises(Misuse, match=expected):
        session.source()(numbers)

    def half(n: "Nowhere") -> int:  # noqa: F821
        return n // 2

    with pytest.raises(Misuse, match=expected.replace("numbers", "half")):
        session.function()(half)


@pytest.mark.parametrize(
    ("annotation", "why"),
    [
        ("int | 'x'", "unsupported operand type"),
        ("list[", "Forward reference must be an expression"),
        ("", "string index out of range|Forward reference must be an expression"),
    ],
)
def test_annotations_that_cannot_be_evaluated_are_told(session, annotation, why):
    def broken(n):
        return n

    broken.__annotations__ = {"n": annotation, "return": annotation}
    for decorator in (session.function(), session.source(), session.sink()):
        with pytest.raises(Misuse, match=rf"^broken: its annotations cannot be read \(({why}).*; give "):
            decorator(broken)


def test_a_sink_of_a_function_has_the_columns_of_its_annotations(session):
    kept = []

    @session.sink()
    def keep(tick: list[int], label: list[str | None]):
        kept.extend(zip(tick, label))

    assert session.sql("INSERT INTO keep VALUES (1, 'a'), (2, NULL)").count == 2
    assert kept == [(1, "a"), (2, None)]
    columns = session.sql("SHOW COLUMNS FROM keep").to_arrow().to_pylist()
    assert [(each["column_name"], each["is_nullable"]) for each in columns] == [("tick", "NO"), ("label", "YES")]


def test_a_sink_of_a_class_has_the_columns_of_its_schema(session):
    kept = []

    @session.sink()
    class Keep(Sink):
        def schema(self):
            return "n int64"

        def write(self, n):
            kept.extend(n)

    session.sql('INSERT INTO "Keep" VALUES (1), (2)')
    assert kept == [1, 2]


def without_annotations(n):
    pass


def without_lists(n: int):
    pass


class Silent(Sink):
    pass


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (without_annotations, "without_annotations: expected columns, as in .*, or parameters .* as lists"),
        (without_lists, "without_lists: expected columns, as in"),
        (lambda: None, "<lambda>: expected columns, as in"),
        (Silent, r"Silent\.schema\(\) returned None; expected columns, as in"),
        (Row, "expected a sink, got class Row"),
    ],
)
def test_a_sink_that_does_not_say_its_columns_is_told(session, wrong, said):
    with pytest.raises(Misuse, match=f"^{said}"):
        session.sink()(wrong)


class Pair(NamedTuple):
    n: int
    word: str | None


def test_a_function_of_annotations_gives_a_table(session):
    @session.function()
    def counted(most: int) -> Iterator[Row]:
        for n in range(most):
            yield Row(n)

    @session.function()
    def listed(word: str) -> list[Pair]:
        return [Pair(1, word), Pair(2, None)]

    assert session.sql("SELECT n FROM counted(3)").to_arrow().to_pydict() == {"n": [0, 1, 2]}
    assert session.sql("SELECT * FROM listed('a')").to_arrow().to_pydict() == {"n": [1, 2], "word": ["a", None]}


def test_a_function_of_annotations_takes_a_table(session):
    @session.function()
    def repeated(rows: Iterator[Pair], times: int) -> Iterator[Row]:
        for row in rows:
            yield [Row(row.n)] * times

    found = session.sql("SELECT n FROM repeated((SELECT 1 AS n, 'a' AS word UNION ALL SELECT 2, 'b'), times => 2)")
    assert sorted(found.to_arrow().to_pydict()["n"]) == [1, 1, 2, 2]
