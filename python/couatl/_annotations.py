"""Columns from annotations: what a function that yields rows says of them."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import functools
import inspect
import types
import typing
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from couatl import _couatl
from couatl._columns import quoted
from couatl._errors import Misuse, class_name, shown
from couatl._models import Role, is_connector
from couatl.exceptions import Error

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
    return _only_argument(_hints(function, function.__name__).get("return"))


def _only_argument(hint: Any) -> type | None:
    """The class that an annotation such as ``Iterator[Row]`` is about."""
    arguments = typing.get_args(hint)
    row = arguments[0] if arguments else None
    return row if isinstance(row, type) else None


def _is_row(row: type | None) -> bool:
    """Whether a class has columns as its fields."""
    return dataclasses.is_dataclass(row) or hasattr(row, "_fields")


def columns_of(row: type | None, of: str) -> str:
    """The columns of rows of a class: a dataclass, or a NamedTuple."""
    if row is None or not _is_row(row):
        raise Misuse(
            f'{of}: expected columns, as in "tick int64, label string", or a return annotation such as Iterator[Row], '
            "where Row is a dataclass or a NamedTuple"
        )
    hints = _hints(row, row.__qualname__)
    if dataclasses.is_dataclass(row):
        # What belongs to the class alone is no column.
        hints = {field.name: hints[field.name] for field in dataclasses.fields(row)}
    return ", ".join(f'"{name}" {_type(hint, f"{row.__qualname__}.{name}")}' for name, hint in hints.items())


def columns_taken(function: Callable[..., Any], name: str) -> str:
    """The columns of a function that takes a list for each."""
    hints = _hints(function, name)
    taken = {parameter: hints.get(parameter) for parameter in inspect.signature(function).parameters}
    if not taken or not all(typing.get_origin(hint) is list for hint in taken.values()):
        raise Misuse(
            f'{name}: expected columns, as in "tick int64, label string", or parameters that are annotated as lists, '
            "such as tick: list[int]"
        )
    columns = {parameter: typing.get_args(hint)[0] for parameter, hint in taken.items()}
    return ", ".join(f"{quoted(each)} {_type(hint, f'{name}.{each}')}" for each, hint in columns.items())


def columns_of_class(cls: object, role: Role) -> str:
    """The columns that a class of a source or a sink, or an instance of it, says it has."""
    from couatl import _reading, _writing

    if role == "source":
        found = _reading.schema_of(_reading.source_of(cls, {}, None))
    else:
        found = _writing.schema_of(_writing.sink_of(cls, {}))
    if not isinstance(found, str):
        raise Misuse(
            f"{class_name(cls)}.schema() returned {shown(found)}; expected columns, as in "
            '"tick int64, label string": return them there, or give them here'
        )
    try:
        _couatl.Session().register("columns", found, "auto", list, None)
    except Error as error:
        expected = f'expected columns, as in "tick int64, label string" ({error})'
        raise Misuse(f"{class_name(cls)}.schema() returned {shown(found)}; {expected}") from None
    return found


def in_tuples(function: Callable[..., Any], row: type | None) -> Callable[..., Any]:
    """The function, whose rows are dataclasses, as one whose rows are tuples."""
    is_asynchronous = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
    if row is None or not dataclasses.is_dataclass(row) or is_asynchronous:
        return function
    names = [field.name for field in dataclasses.fields(row)]

    def as_tuple(item: Any) -> Any:
        return tuple(getattr(item, name) for name in names) if isinstance(item, row) else item

    # What is said of them is said of the function: its name, its parameters.
    @functools.wraps(function)
    def rows(*arguments: Any) -> Iterator[Any]:
        for item in function(*arguments):
            yield [as_tuple(each) for each in item] if isinstance(item, list) else as_tuple(item)

    @functools.wraps(function)
    def listed(*arguments: Any) -> Any:
        items = function(*arguments)
        if isinstance(items, list):
            return [as_tuple(item) for item in items]
        return map(as_tuple, items) if hasattr(items, "__next__") else items

    return rows if inspect.isgeneratorfunction(function) else listed


def signature_of(function: Callable[..., Any], name: str) -> tuple[str, str | None, type | None]:
    """Give the parameters and the type of a function, as ``CREATE FUNCTION`` has them, its format, and its rows' class.

    Those of an aggregate are of its methods. What takes lists takes whole columns; what gives rows of a dataclass or a
    NamedTuple gives a table, and what takes an iterator takes one.
    """
    takes, gives = function, function
    if isinstance(function, type):
        takes, gives = _method(function, "process"), _method(function, "finalize")
    hints, given = _hints(takes, name), _hints(gives, name)
    found = _parameters(takes, name)[isinstance(function, type) :]
    missing = [parameter for parameter in found if parameter not in hints]
    if missing or "return" not in given:
        what = f"the parameter '{missing[0]}'" if missing else "what it returns"
        raise Misuse(
            f'{name}: expected parameters and returns, as in ("a int64, b string", "string"), or annotations; '
            f"there is none for {what}"
        )
    row = _only_argument(given["return"])
    if takes is function and _is_row(row):
        columns = ", ".join(f"{quoted(each)} {_argument(hints[each], f'{name}.{each}')}" for each in found)
        return f"({columns}) RETURNS TABLE ({columns_of(row, name)})", None, row
    is_whole = isinstance(function, type) and all(typing.get_origin(hints[each]) is list for each in found)
    values = {each: typing.get_args(hints[each])[0] if is_whole else hints[each] for each in found}
    columns = ", ".join(f"{quoted(each)} {_nullable(hint, f'{name}.{each}')}" for each, hint in values.items())
    head = f"({columns}) RETURNS {_type(given['return'], name)}"
    return head, "list" if is_whole else "row", None


def is_aggregate(function: Callable[..., Any], returns: str) -> bool:
    """Whether a callable is an aggregate: a class is, unless it gives a table; a plugin's function says it itself."""
    if returns.split("(")[0].strip().upper() == "TABLE":
        return False
    if is_connector(function, "function"):
        from couatl.compat.ekuiper import as_function

        return as_function(function).is_aggregate
    return isinstance(function, type)


def _hints(of: Callable[..., Any], name: str) -> dict[str, Any]:
    """What something is annotated with; Misuse where that cannot be read."""
    try:
        return typing.get_type_hints(of)
    except Exception as error:
        # They are texts, or have been: anything may be in them.
        raise Misuse(
            f"{name}: its annotations cannot be read ({error}); give the columns, or the parameters and returns"
        ) from None


def _parameters(function: Callable[..., Any], name: str) -> list[str]:
    """The names of what a function is called with, one for each argument."""
    found = inspect.signature(function).parameters.values()
    others = [each for each in found if each.kind not in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    if others:
        raise Misuse(
            f"{name}: expected parameters that are given by position, one by one, found '{others[0]}'; "
            "leave it out, or give parameters and returns"
        )
    return [each.name for each in found]


def _method(cls: type, name: str) -> Callable[..., Any]:
    method: Callable[..., Any] | None = getattr(cls, name, None)
    if method is None:
        raise Misuse(f"{cls.__qualname__} has no {name}(), which an aggregate has")
    return method


def _argument(hint: Any, of: str) -> str:
    """What a function that gives a table takes: a table, where it iterates over it, or a value."""
    is_table = typing.get_origin(hint) in (collections.abc.Iterator, collections.abc.Iterable)
    return "TABLE" if is_table else _nullable(hint, of)


def _nullable(hint: Any, of: str) -> str:
    return _type(hint, of).removesuffix(" NOT NULL")


def _type(hint: Any, of: str) -> str:
    """The type of a column, NOT NULL unless its annotation allows None."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType) and types.NoneType in arguments:
        inner = [argument for argument in arguments if argument is not types.NoneType]
        return _plain(inner[0] if len(inner) == 1 else hint, of)
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
