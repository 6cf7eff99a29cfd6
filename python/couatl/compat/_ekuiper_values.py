"""What an eKuiper sink is given: rows as JSON, as eKuiper writes it.

A struct is an object, by the names of its members. Bytes are base64, and a time is text. What JSON has no number for,
NaN and the infinities, is refused, as Go's encoder does.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from couatl._columns import Columns
from couatl._errors import Misuse, shown
from couatl._json import is_infinite, objects


class Writer:
    """Makes rows of columns, and JSON of rows.

    >>> writer = Writer(Columns(["n", "at"], ["int64", "tuple(x int32, y int32)"]))
    >>> writer.json(writer.rows([[1], [(2, 3)]])[0])
    b'{"n":1,"at":{"x":2,"y":3}}'
    """

    def __init__(self, columns: Columns) -> None:
        self.columns = columns

    def rows(self, columns: Sequence[list[Any]]) -> list[dict[str, Any]]:
        """A dict by column name for each row."""
        return list(objects(self.columns, columns))

    def json(self, datum: Any) -> bytes:
        """A row, or a list of rows. Misuse names the column that holds what JSON has no number for."""
        try:
            text = json.dumps(datum, default=_json, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        except ValueError:
            for row in datum if isinstance(datum, list) else [datum]:
                for name, value in row.items():
                    _check_numbers(name, value)
            raise
        return text.encode()


def _check_numbers(name: str, value: Any) -> None:
    """Misuse where a value is, or holds, what JSON has no number for."""
    if isinstance(value, (list, tuple, Mapping)):
        for item in value.values() if isinstance(value, Mapping) else value:
            _check_numbers(name, item)
    elif is_infinite(value):
        raise Misuse(f"column '{name}': expected a number that JSON has, got {value}; write NULL instead")


def _json(value: Any) -> Any:
    """What JSON has no type for, as eKuiper writes it."""
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, UUID):
        return str(value)
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"cannot write {shown(value)} as JSON")
