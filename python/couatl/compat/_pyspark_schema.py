"""What PySpark's data sources are given and import beside their base classes: rows, limits and filters.

They stand in for the library's where that is not installed, and are as small as that allows.
"""

from __future__ import annotations

from dataclasses import dataclass, make_dataclass
from typing import Any


class ReadLimit:
    """How much is to be read at once."""


@dataclass
class ReadAllAvailable(ReadLimit):
    """All there is."""


@dataclass
class ReadMinRows(ReadLimit):
    """At least so many rows."""

    min_rows: int


@dataclass
class ReadMaxRows(ReadLimit):
    """At most so many rows."""

    max_rows: int


@dataclass
class ReadMaxFiles(ReadLimit):
    """At most so many files."""

    max_files: int


@dataclass
class ReadMaxBytes(ReadLimit):
    """At most so many bytes."""

    max_bytes: int


@dataclass(frozen=True)
class Filter:
    """A condition that a reader could apply, by the library's names, for those who import them."""


def _filter(name: str, *fields: str) -> Any:
    return make_dataclass(name, fields, bases=(Filter,), frozen=True, namespace={"__module__": __name__})


EqualTo = _filter("EqualTo", "attribute", "value")
EqualNullSafe = _filter("EqualNullSafe", "attribute", "value")
GreaterThan = _filter("GreaterThan", "attribute", "value")
GreaterThanOrEqual = _filter("GreaterThanOrEqual", "attribute", "value")
LessThan = _filter("LessThan", "attribute", "value")
LessThanOrEqual = _filter("LessThanOrEqual", "attribute", "value")
In = _filter("In", "attribute", "value")
IsNull = _filter("IsNull", "attribute")
IsNotNull = _filter("IsNotNull", "attribute")
Not = _filter("Not", "child")
StringStartsWith = _filter("StringStartsWith", "attribute", "value")
StringEndsWith = _filter("StringEndsWith", "attribute", "value")
StringContains = _filter("StringContains", "attribute", "value")


class Row(tuple[Any, ...]):
    """A tuple whose values have names: ``Row(a=1, b=2)``, or ``Row("a", "b")(1, 2)``.

    >>> from couatl.compat.pyspark import Row
    >>> row = Row(a=1, b=2)
    >>> row.a, row["b"], row[0], row.asDict()
    (1, 2, 1, {'a': 1, 'b': 2})
    """

    __fields__: list[str]

    def __new__(cls, *values: Any, **named: Any) -> Row:
        """Make one, of values or by name."""
        row = super().__new__(cls, tuple(named.values()) if named else values)
        if named:
            row.__fields__ = list(named)
        return row

    def __call__(self, *values: Any) -> Row:
        """A row with these values, whose names are those here."""
        row = Row(*values)
        row.__fields__ = list(self)
        return row

    def __getitem__(self, key: Any) -> Any:
        """A value, by name or by place."""
        return super().__getitem__(self.__fields__.index(key) if isinstance(key, str) else key)

    def __getattr__(self, name: str) -> Any:
        """A value, by name."""
        if name.startswith("__") or name not in self.__fields__:
            raise AttributeError(name)
        return self[name]

    def asDict(self, recursive: bool = False) -> dict[str, Any]:
        """Its values by name; where `recursive`, those of rows in it too."""
        inner = [value.asDict(True) if recursive and isinstance(value, Row) else value for value in self]
        return dict(zip(self.__fields__, inner))

    def __repr__(self) -> str:
        fields = getattr(self, "__fields__", None)
        values = [f"{name}={value!r}" for name, value in zip(fields, self)] if fields else [repr(v) for v in self]
        return f"Row({', '.join(values)})"
