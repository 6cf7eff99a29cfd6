"""What PySpark's data sources are given and import beside their base classes: structs, rows, limits and filters.

They stand in for the library's where that is not installed, and are as small as that allows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, make_dataclass
from typing import Any

from couatl.compat._pyspark_types import json_of, parse_type


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


@dataclass(frozen=True)
class DataType:
    """A type, as Spark's JSON has it."""

    json: Any

    def jsonValue(self) -> Any:
        """Its JSON."""
        return self.json

    def typeName(self) -> str:
        """Its name."""
        return str(self.json["type"] if isinstance(self.json, dict) else self.json)


@dataclass(frozen=True)
class StructField:
    """A column: its name, its type, and whether it may be null."""

    name: str
    dataType: DataType
    nullable: bool = True


class StructType:
    """The columns that a reader or a writer is made for.

    >>> from couatl.compat.pyspark import StructType
    >>> StructType().add("a", "int").add("b", "string").fieldNames()
    ['a', 'b']
    """

    def __init__(self, fields: Sequence[StructField] = ()) -> None:
        self.fields = list(fields)

    @classmethod
    def fromJson(cls, json: Any) -> StructType:
        """Make it of Spark's JSON."""
        return cls([StructField(f["name"], DataType(f["type"]), f["nullable"]) for f in json["fields"]])

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return [field.name for field in self.fields]

    def fieldNames(self) -> list[str]:
        """The names of the columns."""
        return self.names

    def add(self, name: str, data_type: Any, nullable: bool = True) -> StructType:
        """Add a column, whose type is a DataType or the name of one."""
        if isinstance(data_type, str):
            data_type = DataType(json_of(parse_type(data_type), ours=False))
        self.fields.append(StructField(name, data_type, nullable))
        return self

    def jsonValue(self) -> Any:
        """Spark's JSON of it."""
        fields = [
            {"name": f.name, "type": f.dataType.jsonValue(), "nullable": f.nullable, "metadata": {}}
            for f in self.fields
        ]
        return {"type": "struct", "fields": fields}

    def json(self) -> str:
        """The same as text."""
        return json.dumps(self.jsonValue(), separators=(",", ":"), sort_keys=True)

    def __iter__(self) -> Iterator[StructField]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def __getitem__(self, key: str | int) -> StructField:
        return self.fields[self.names.index(key) if isinstance(key, str) else key]
