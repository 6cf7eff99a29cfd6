"""What is said of functions whose columns are annotations, where they cannot be used as they are."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import ClassVar

import couatl
import pytest
from couatl._errors import Misuse
from couatl.exceptions import ProgrammingError


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
