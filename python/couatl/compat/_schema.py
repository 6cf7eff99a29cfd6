"""Columns declared as a class: Pathway's schemas, the library's and ours, and the types that they have here.

A schema gives its columns as hints by name, so that one of the library's is read without the library.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from couatl._columns import quoted
from couatl._errors import class_name, shown


class DateTimeNaive(datetime):
    """A column of times without a zone, to the nanosecond."""


class DateTimeUtc(datetime):
    """A column of instants, to the nanosecond."""


class Duration(timedelta):
    """A column of durations."""


class Json:
    """A column of JSON, and a value in one."""

    def __init__(self, value: Any) -> None:
        self.value = value


@dataclass(frozen=True)
class ColumnDefinition:
    """What :func:`column_definition` says about a column."""

    has_default: bool
    default_value: Any
    name: str | None


def column_definition(
    *,
    primary_key: bool = False,
    default_value: Any = ...,
    dtype: Any = None,
    name: str | None = None,
    append_only: bool | None = None,
    description: str | None = None,
    example: Any = None,
) -> Any:
    """Say more about a column of a :class:`Schema`: a default for where it is missing, another name.

    A key identifies nothing here, where every row is added.
    """
    return ColumnDefinition(default_value is not ..., default_value, name)


class Schema:
    """Columns, by annotations.

    >>> class Cat(Schema):
    ...     key: int = column_definition(primary_key=True)
    ...     genus: str
    ...     lives: int | None = column_definition(default_value=9)
    >>> schema_of(Cat)
    'key int64 NOT NULL, genus string NOT NULL, lives int64'
    """

    def __init_subclass__(cls, append_only: bool | None = None) -> None:
        """Take what a class statement may say; every stream is `append_only`."""

    @classmethod
    def typehints(cls) -> Mapping[str, Any]:
        """The types by column name, in order."""
        return {name: hint for name, (hint, _) in cls._columns().items()}

    @classmethod
    def default_values(cls) -> dict[str, Any]:
        """The defaults by column name, of those that have one."""
        return {name: of.default_value for name, (_, of) in cls._columns().items() if of.has_default}

    @classmethod
    def _columns(cls) -> dict[str, tuple[Any, ColumnDefinition]]:
        columns = {}
        for name, hint in typing.get_type_hints(cls).items():
            definition = getattr(cls, name, column_definition())
            if not isinstance(definition, ColumnDefinition):
                raise TypeError(f"{class_name(cls)}.{name}: expected column_definition(…), got {shown(definition)}")
            columns[definition.name or name] = (hint, definition)
        return columns


def schema_of(cls: Any) -> str:
    """The columns of a schema class, the library's or ours, as a statement has them.

    Raises TypeError where a column has a type that no column of a stream has.
    """
    columns = []
    for name, (kind, optional) in column_types(cls).items():
        columns.append(f"{quoted(name)} {kind}{'' if optional else ' NOT NULL'}")
    return ", ".join(columns)


def column_types(cls: Any) -> dict[str, tuple[str, bool]]:
    """The type of each column, and whether it may be NULL."""
    columns = {}
    for name, hint in cls.typehints().items():
        hint, optional = _optional(hint)
        kind = _kind(hint)
        if kind is None:
            raise TypeError(
                f"{class_name(cls)}.{name}: {_hint_name(hint)} is no type of a column; expected int, float, bool, str, "
                "bytes, DateTimeNaive, DateTimeUtc, Duration, Json, or a list or tuple of those"
            )
        columns[name] = (kind, optional)
    return columns


_KINDS = {
    "int": "int64",
    "float": "float64",
    "bool": "bool",
    "str": "string",
    "bytes": "binary",
    "dict": "json",
    "Json": "json",
    "DateTimeNaive": "datetime64(9)",
    "DateTimeUtc": "datetime64(9, 'UTC')",
    "Duration": "interval",
    "Pointer": "string",
}


def _kind(hint: Any) -> str | None:
    """The type of a column that has this hint; None where there is none."""
    hint, optional = _optional(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if optional:
        kind = _kind(hint)
        return kind and f"nullable({kind})"
    if origin is list or (origin is tuple and arguments[-1:] == (...,)):
        kind = _kind(arguments[0])
        return kind and f"array({kind})"
    if origin is tuple:
        kinds = [_kind(argument) for argument in arguments]
        return f"tuple({', '.join(map(str, kinds))})" if all(kinds) else None
    return _KINDS.get(getattr(origin or hint, "__name__", ""))


def _optional(hint: Any) -> tuple[Any, bool]:
    """A hint without its None, and whether it had one."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(hint) if member is not type(None)]
        if len(members) == 1:
            return members[0], True
    return hint, False


def _hint_name(hint: Any) -> str:
    return hint.__qualname__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
