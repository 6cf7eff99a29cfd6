"""Columns from annotations: what a function that yields rows says of them."""

from __future__ import annotations

import dataclasses
import datetime
import inspect
import types
import typing
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from couatl._errors import Misuse

SCALARS: dict[Any, str] = {
    bool: "bool",
    int: "int64",
    float: "float64",
    str: "string",
    bytes: "binary",
    datetime.date: "date",
    datetime.time: "time",
    datetime.datetime: "timestamp",
    uuid.UUID: "uuid",
}


def row_of(function: Callable[..., Any]) -> type | None:
    """The class of the rows that a function gives: the one argument of what it is annotated to return."""
    returned = typing.get_type_hints(function).get("return")
    arguments = typing.get_args(returned)
    row = arguments[0] if arguments else None
    return row if isinstance(row, type) else None


def columns_of(row: type | None, of: str) -> str:
    """The columns of rows of a class: a dataclass, or a NamedTuple."""
    is_row = row is not None and (dataclasses.is_dataclass(row) or hasattr(row, "_fields"))
    if row is None or not is_row:
        raise Misuse(
            f'{of}: expected columns, as in "tick int64, label string", or a return annotation such as Iterator[Row], '
            "where Row is a dataclass or a NamedTuple"
        )
    hints = typing.get_type_hints(row)
    return ", ".join(f'"{name}" {_type(hint, f"{row.__qualname__}.{name}")}' for name, hint in hints.items())


def in_tuples(function: Callable[[], Any], row: type | None) -> Callable[[], Any]:
    """The function, whose rows are dataclasses, as one whose rows are tuples."""
    if row is None or not dataclasses.is_dataclass(row):
        return function
    names = [field.name for field in dataclasses.fields(row)]

    def as_tuple(item: Any) -> Any:
        return tuple(getattr(item, name) for name in names) if isinstance(item, row) else item

    def rows() -> Iterator[Any]:
        for item in function():
            yield [as_tuple(each) for each in item] if isinstance(item, list) else as_tuple(item)

    def listed() -> Any:
        items = function()
        return [as_tuple(item) for item in items] if isinstance(items, list) else items

    return rows if inspect.isgeneratorfunction(function) else listed


def _type(hint: Any, of: str) -> str:
    """The type of a column, NOT NULL unless its annotation allows None."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType) and types.NoneType in arguments:
        (inner,) = [argument for argument in arguments if argument is not types.NoneType]
        return _plain(inner, of)
    return f"{_plain(hint, of)} NOT NULL"


def _plain(hint: Any, of: str) -> str:
    if hint in SCALARS:
        return SCALARS[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is list and len(arguments) == 1:
        return f"array({_plain(arguments[0], of)})"
    if origin is dict and len(arguments) == 2:
        return f"map({_plain(arguments[0], of)}, {_plain(arguments[1], of)})"
    known = ", ".join(scalar.__name__ for scalar in SCALARS)
    raise Misuse(
        f"{of}: there is no column type for {hint!r}; expected one of {known}, list[…], dict[…, …], or give columns"
    )
