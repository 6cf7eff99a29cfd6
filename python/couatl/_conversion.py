"""From what a setting holds, text, a number or a truth value, to what an annotation says."""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum
from pathlib import Path, PurePath
from typing import Any


class Unfit(ValueError):
    """What was expected; the message is a noun phrase."""


class Written:
    """A number that was written in more words than its value has: ``007``, ``1.10``. As a text, it is what was written.

    >>> str(WrittenFloat("1.10")), plain(WrittenFloat("1.10"))
    ('1.10', 1.1)
    """

    text: str

    def __new__(cls, text: str) -> Written:
        """Keep the text beside the value."""
        self = super().__new__(cls, text)  # type: ignore[call-arg]
        self.text = text
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Have copies made of the text."""
        return type(self), (self.text,)

    def __str__(self) -> str:
        """As it was written."""
        return self.text


class WrittenInt(Written, int):
    """An integer."""


class WrittenFloat(Written, float):
    """A number with a point, or an exponent."""


def plain(value: Any) -> Any:
    """The value alone: that of Python's own class, where it is a number that remembers its text."""
    if isinstance(value, WrittenInt):
        return int(value)
    return float(value) if isinstance(value, WrittenFloat) else value


def convert(value: Any, to: Any) -> Any:
    """The value as `to` wants it, which is an annotation; what is not known here passes as it is. Raises Unfit."""
    to = getattr(to, "__supertype__", to)
    origin, arguments = typing.get_origin(to), typing.get_args(to)
    if origin is typing.Annotated:
        return convert(value, arguments[0])
    if origin in (typing.Union, types.UnionType):
        return _one_of(value, arguments)
    if origin is typing.Literal:
        return _literal(value, arguments)
    kind = origin or to
    if not isinstance(kind, type):
        return plain(value)
    if issubclass(kind, Enum):
        return _member(value, kind)
    if kind in _COLLECTIONS:
        return _COLLECTIONS[kind](_items(value, arguments, kind))
    if kind in (dict, Mapping):
        return _mapping(value, arguments)
    if kind in _SCALARS:
        expected, scalar = _SCALARS[kind]
        try:
            return scalar(value.strip() if isinstance(value, str) and kind is not str else value)
        except (ValueError, TypeError, OverflowError, InvalidOperation):
            raise Unfit(expected) from None
    return plain(value)


def _one_of(value: Any, members: Sequence[Any]) -> Any:
    # What has the type already is not looked at further.
    for member in members:
        if type(plain(value)) is member:
            return plain(value)
    expected = []
    for member in sorted(members, key=lambda member: member is type(None)):
        try:
            return convert(value, member)
        except Unfit as unfit:
            expected.append(str(unfit))
    raise Unfit(" or ".join(expected))


def _literal(value: Any, members: Sequence[Any]) -> Any:
    for member in members:
        if type(plain(value)) is type(member) and value == member:
            return member
    for member in members:
        try:
            if convert(value, type(member)) == member:
                return member
        except Unfit:
            pass
    raise Unfit("one of " + ", ".join(map(repr, members)))


def _member(value: Any, kind: type[Enum]) -> Enum:
    if isinstance(value, kind):
        return value
    for name, member in kind.__members__.items():
        if value in (name, member.value):
            return member
    for name, member in kind.__members__.items():
        if isinstance(value, str) and value.lower() in (name.lower(), str(member.value).lower()):
            return member
    raise Unfit("one of " + ", ".join(kind.__members__))


def _items(value: Any, arguments: Sequence[Any], kind: type) -> Iterable[Any]:
    if isinstance(value, str):
        value = (
            _json(value, list, "a JSON array, or values with commas between them")
            if value[:1] == "["
            else [item.strip() for item in value.split(",") if item.strip()]
        )
    elif not isinstance(value, (list, tuple, set, frozenset)):
        value = [value]
    if kind is tuple and arguments and arguments[-1] is not Ellipsis:
        if len(value) != len(arguments):
            raise Unfit(f"{len(arguments)} values")
        return [convert(item, argument) for item, argument in zip(value, arguments)]
    return [convert(item, arguments[0]) if arguments else plain(item) for item in value]


def _mapping(value: Any, arguments: Sequence[Any]) -> dict[Any, Any]:
    if isinstance(value, str):
        value = _json(value, dict, "a JSON object")
    if not isinstance(value, Mapping):
        raise Unfit("a JSON object")
    if not arguments:
        return dict(value)
    return {convert(key, arguments[0]): convert(item, arguments[1]) for key, item in value.items()}


def _json(text: str, kind: type, expected: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        raise Unfit(expected) from None
    if not isinstance(value, kind):
        raise Unfit(expected)
    return value


_TRUTH = {"true": True, "false": False, "yes": True, "no": False, "on": True, "off": False, "1": True, "0": False}
_UNITS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(us|µs|ms|min|s|m|h|d|w)")


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    try:
        return _TRUTH[str(value).lower()]
    except KeyError:
        raise ValueError from None


def _integer(value: Any) -> int:
    if isinstance(value, (bool, float)):
        raise ValueError
    return int(value)


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError
    return float(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, int, float, Decimal, Path)):
        return str(value)
    raise ValueError


def _duration(value: Any) -> timedelta:
    if isinstance(value, timedelta):
        return value
    try:
        return timedelta(seconds=_number(value))
    except ValueError:
        pass
    if not value:
        raise ValueError
    total, place = timedelta(), 0
    while place < len(value):
        part = _DURATION.match(value, place)
        if part is None:
            raise ValueError
        total += timedelta(seconds=float(part[1]) * _UNITS[part[2]])
        place = part.end()
    return total


def _moment(value: Any) -> datetime:
    return value if isinstance(value, datetime) else datetime.fromisoformat(re.sub("[zZ]$", "+00:00", value))


def _day(value: Any) -> date:
    return value if isinstance(value, date) else date.fromisoformat(value)


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else _text(value).encode()


def _nothing(value: Any) -> None:
    if value is not None and str(value).lower() not in ("none", "null"):
        raise ValueError


_SCALARS: dict[Any, tuple[str, Callable[[Any], Any]]] = {
    str: ("text", _text),
    int: ("an integer", _integer),
    float: ("a number", _number),
    bool: ("true or false", _truth),
    bytes: ("text", _bytes),
    Decimal: ("a number", lambda value: Decimal(_text(value))),
    timedelta: ("a duration such as '5s', '100ms', '1m' or a number of seconds", _duration),
    datetime: ("a time such as '2025-01-31T10:00:00'", _moment),
    date: ("a day such as '2025-01-31'", _day),
    Path: ("a path", Path),
    PurePath: ("a path", Path),
    type(None): ("none", _nothing),
}
_COLLECTIONS: dict[Any, Callable[[Iterable[Any]], Any]] = {
    list: list,
    Sequence: list,
    Iterable: list,
    tuple: tuple,
    set: set,
    AbstractSet: set,
    frozenset: frozenset,
}
