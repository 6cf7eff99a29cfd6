"""Rows for who stores objects: a dict for each, and JSON of it."""

from __future__ import annotations

import functools
import json
import math
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, time
from typing import Any

from couatl._columns import Columns
from couatl._types import Type, parse_type

Convert = Callable[[Any], Any]


def objects(columns: Columns, values: Sequence[list[Any]]) -> Iterator[dict[str, Any]]:
    """Make a dict by column name of each row; structs are dicts too, by the names of their members.

    >>> list(objects(Columns(["n", "at"], ["int64", "struct(x int32, y int32)"]), [[1], [(2, 3)]]))
    [{'n': 1, 'at': {'x': 2, 'y': 3}}]
    """
    # Types of others, which have a spelling of their own, hold no structs.
    converts = [_object_of(text) if "(" in text else None for text in columns.types]
    ready = [
        [value if value is None else convert(value) for value in column] if convert else column
        for column, convert in zip(values, converts)
    ]
    return (dict(zip(columns.names, row)) for row in zip(*ready))


def to_json(value: Any) -> str:
    """Write a value as JSON: NaN and the infinities, which JSON has no word for, as null, and bytes as Base64.

    Times are as ISO 8601 has them, and anything else that JSON does not know is its text.

    >>> to_json({"n": float("nan"), "data": b"sun", "level": [1.5, float("inf")]})
    '{"n": null, "data": "c3Vu", "level": [1.5, null]}'
    """
    try:
        return json.dumps(value, default=_plain, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), default=_plain, allow_nan=False)


def is_infinite(value: Any) -> bool:
    """Whether it is a number that JSON has no word for."""
    return isinstance(value, float) and not math.isfinite(value)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if is_infinite(value) else value


def _plain(value: Any) -> str:
    if isinstance(value, (bytes, bytearray)):
        return b64encode(value).decode()
    return value.isoformat() if isinstance(value, (date, time)) else str(value)


@functools.lru_cache
def _object_of(text: str) -> Convert | None:
    return _objects(parse_type(text))


def _objects(kind: Type) -> Convert | None:
    """What makes an object of each struct in a value; None where there is none in its type."""
    converts = [_objects(inner) for inner in kind.inner]
    if kind.name in ("nullable", "low_cardinality"):
        return converts[0]
    if kind.name in ("struct", "tuple"):
        return lambda value: {
            name: member if member is None or convert is None else convert(member)
            for name, member, convert in zip(kind.names, value, converts)
        }
    convert = converts[-1] if kind.name in ("array", "map") else None
    if convert is None:
        return None
    inner = convert
    if kind.name == "array":
        return lambda value: [item if item is None else inner(item) for item in value]
    return lambda value: {key: item if item is None else inner(item) for key, item in dict(value).items()}
