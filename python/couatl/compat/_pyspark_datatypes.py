"""PySpark's data types, under the library's names, for those who change only an import.

What a schema is built of, and asked for: names, Spark's JSON and DDL. They stand in for the library's where that is
not installed.

```text
  StructType([StructField("a", IntegerType())])  <──fromJson──  Spark's JSON of a type  <──jsonValue──  any of them
```
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from couatl._errors import shown
from couatl.compat._pyspark_types import json_of_ddl


class DataType:
    """A type. Two are equal where their classes and their parameters are.

    >>> ArrayType(IntegerType()), ArrayType(IntegerType()).simpleString()
    (ArrayType(IntegerType(), True), 'array<int>')
    """

    #: What it is called in DDL, and in Spark's JSON, where that is not as its class says.
    _simple: ClassVar[str] = ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(repr(value) for value in vars(self).values())})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash(repr(self))

    @classmethod
    def typeName(cls) -> str:
        """Its name in Spark's JSON, without parameters."""
        return cls.__name__.removesuffix("Type").lower()

    def simpleString(self) -> str:
        """Its name in DDL."""
        return self._simple or self.typeName()

    def jsonValue(self) -> Any:
        """What Spark's JSON says of it."""
        return self.typeName()

    def json(self) -> str:
        """The same as text."""
        return json.dumps(self.jsonValue(), separators=(",", ":"), sort_keys=True)

    @classmethod
    def fromDDL(cls, ddl: str) -> DataType:
        """A type as DDL has it, or a struct of columns such as ``a INT, b STRING``."""
        return data_type(json_of_ddl(ddl))


class NullType(DataType):
    """The type of None."""

    @classmethod
    def typeName(cls) -> str:
        """Its name."""
        return "void"


class StringType(DataType):
    """Text."""


class BinaryType(DataType):
    """Bytes."""


class BooleanType(DataType):
    """True or False."""


class DateType(DataType):
    """A date."""


class TimestampType(DataType):
    """An instant."""


class TimestampNTZType(DataType):
    """A time of a day, without a zone."""

    @classmethod
    def typeName(cls) -> str:
        """Its name."""
        return "timestamp_ntz"


class DoubleType(DataType):
    """A float of 64 bits."""


class FloatType(DataType):
    """A float of 32 bits."""


class ByteType(DataType):
    """An integer of 8 bits."""

    _simple = "tinyint"


class ShortType(DataType):
    """An integer of 16 bits."""

    _simple = "smallint"


class IntegerType(DataType):
    """An integer of 32 bits."""

    _simple = "int"


class LongType(DataType):
    """An integer of 64 bits."""

    _simple = "bigint"


class _Sized(DataType):
    """A type with numbers: ``decimal(10,2)``."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._numbers()})"

    def _numbers(self) -> str:
        return ",".join(str(value) for value in vars(self).values())

    def simpleString(self) -> str:
        """Its name in DDL."""
        return f"{self.typeName()}({self._numbers()})"

    def jsonValue(self) -> Any:
        """The same."""
        return self.simpleString()


class CharType(_Sized):
    """Text of so many characters."""

    def __init__(self, length: int) -> None:
        self.length = length


class VarcharType(_Sized):
    """Text of at most so many characters."""

    def __init__(self, length: int) -> None:
        self.length = length


class DecimalType(_Sized):
    """A number with so many digits, of which so many are after the point."""

    def __init__(self, precision: int = 10, scale: int = 0) -> None:
        self.precision = precision
        self.scale = scale


class TimeType(_Sized):
    """A time of day, with so many digits of a second."""

    def __init__(self, precision: int = 6) -> None:
        self.precision = precision


class DayTimeIntervalType(DataType):
    """A span of time, from days to seconds, or of units between these."""

    DAY, HOUR, MINUTE, SECOND = range(4)
    _UNITS = ("day", "hour", "minute", "second")

    def __init__(self, startField: int | None = None, endField: int | None = None) -> None:
        self.startField = self.DAY if startField is None else startField
        self.endField = (self.SECOND if startField is None else startField) if endField is None else endField

    def simpleString(self) -> str:
        """Its name in DDL."""
        units = [self._UNITS[self.startField], self._UNITS[self.endField]]
        return f"interval {' to '.join(dict.fromkeys(units))}"

    def jsonValue(self) -> Any:
        """The same."""
        return self.simpleString()


class ArrayType(DataType):
    """Many of a type."""

    def __init__(self, elementType: DataType, containsNull: bool = True) -> None:
        self.elementType = _checked(elementType, "ArrayType")
        self.containsNull = containsNull

    def simpleString(self) -> str:
        """Its name in DDL."""
        return f"array<{self.elementType.simpleString()}>"

    def jsonValue(self) -> Any:
        """What Spark's JSON says of it."""
        return {"type": "array", "elementType": self.elementType.jsonValue(), "containsNull": self.containsNull}


class MapType(DataType):
    """Values by keys."""

    def __init__(self, keyType: DataType, valueType: DataType, valueContainsNull: bool = True) -> None:
        self.keyType = _checked(keyType, "MapType")
        self.valueType = _checked(valueType, "MapType")
        self.valueContainsNull = valueContainsNull

    def simpleString(self) -> str:
        """Its name in DDL."""
        return f"map<{self.keyType.simpleString()},{self.valueType.simpleString()}>"

    def jsonValue(self) -> Any:
        """What Spark's JSON says of it."""
        key, value = self.keyType.jsonValue(), self.valueType.jsonValue()
        return {"type": "map", "keyType": key, "valueType": value, "valueContainsNull": self.valueContainsNull}


class StructField(DataType):
    """A column: its name, its type, and whether it may be null."""

    def __init__(
        self, name: str, dataType: DataType, nullable: bool = True, metadata: Mapping[str, Any] | None = None
    ) -> None:
        self.name = name
        self.dataType = _checked(dataType, f"column '{name}'")
        self.nullable = nullable
        self.metadata = dict(metadata or {})

    def __repr__(self) -> str:
        return f"StructField({self.name!r}, {self.dataType!r}, {self.nullable!r})"

    @classmethod
    def fromJson(cls, json: Mapping[str, Any]) -> StructField:
        """Make it of Spark's JSON."""
        return cls(json["name"], data_type(json["type"]), json.get("nullable", True), json.get("metadata"))

    def simpleString(self) -> str:
        """Name and type, as within a struct."""
        return f"{self.name}:{self.dataType.simpleString()}"

    def jsonValue(self) -> Any:
        """What Spark's JSON says of it."""
        kind = self.dataType.jsonValue()
        return {"name": self.name, "type": kind, "nullable": self.nullable, "metadata": self.metadata}


class StructType(DataType):
    """The columns that a reader or a writer is made for, or those of a struct.

    >>> StructType().add("a", "int").add("b", StringType()).simpleString()
    'struct<a:int,b:string>'
    """

    def __init__(self, fields: Sequence[StructField] | None = None) -> None:
        self.fields = list(fields or ())
        for field in self.fields:
            if not isinstance(field, StructField):
                raise TypeError(f"StructType: expected a list of StructField, got {shown(field)} in it")

    @classmethod
    def fromJson(cls, json: Mapping[str, Any]) -> StructType:
        """Make it of Spark's JSON."""
        return cls([StructField.fromJson(field) for field in json["fields"]])

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return [field.name for field in self.fields]

    def fieldNames(self) -> list[str]:
        """The names of the columns."""
        return self.names

    def add(
        self,
        field: str | StructField,
        data_type: str | DataType | None = None,
        nullable: bool = True,
        metadata: Mapping[str, Any] | None = None,
    ) -> StructType:
        """Add a column: a field, or a name with a type, which may be that of one in DDL."""
        if isinstance(field, StructField):
            self.fields.append(field)
            return self
        if data_type is None:
            raise ValueError(f"StructType.add(): expected the type of '{field}'")
        kind = DataType.fromDDL(data_type) if isinstance(data_type, str) else data_type
        self.fields.append(StructField(field, kind, nullable, metadata))
        return self

    def simpleString(self) -> str:
        """Its name in DDL."""
        return f"struct<{','.join(field.simpleString() for field in self.fields)}>"

    def jsonValue(self) -> Any:
        """What Spark's JSON says of it."""
        return {"type": "struct", "fields": [field.jsonValue() for field in self.fields]}

    def __repr__(self) -> str:
        return f"StructType([{', '.join(map(repr, self.fields))}])"

    def __iter__(self) -> Iterator[StructField]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def __getitem__(self, key: str | int | slice) -> Any:
        """A column, by name or by place; several of them as a struct."""
        if isinstance(key, slice):
            return StructType(self.fields[key])
        if isinstance(key, int):
            return self.fields[key]
        found = next((field for field in self.fields if field.name == key), None)
        if found is None:
            raise KeyError(f"there is no column '{key}'; expected one of {', '.join(self.names)}")
        return found


_PLAIN: dict[str, DataType] = {
    cls.typeName(): cls()
    for cls in (
        NullType,
        StringType,
        BinaryType,
        BooleanType,
        DateType,
        TimestampType,
        TimestampNTZType,
        DoubleType,
        FloatType,
        ByteType,
        ShortType,
        IntegerType,
        LongType,
    )
}
_SIZED: dict[str, type[DataType]] = {cls.typeName(): cls for cls in (CharType, VarcharType, DecimalType, TimeType)}


def data_type(json: Any) -> DataType:
    """The type that Spark's JSON says. ValueError where it is none of these."""
    if isinstance(json, Mapping):
        if json["type"] == "array":
            return ArrayType(data_type(json["elementType"]), json["containsNull"])
        if json["type"] == "map":
            return MapType(data_type(json["keyType"]), data_type(json["valueType"]), json["valueContainsNull"])
        if json["type"] == "struct":
            return StructType.fromJson(json)
        if json["type"] == "udt":
            return data_type(json["sqlType"])
    elif json in _PLAIN:
        return _PLAIN[json]
    elif (sized := re.fullmatch(r"(\w+)(?:\(([\d ,-]+)\))?", json)) is not None and sized[1] in _SIZED:
        return _SIZED[sized[1]](*map(int, sized[2].split(",") if sized[2] else []))
    elif (units := re.fullmatch(r"interval (day|hour|minute|second)(?: to (hour|minute|second))?", json)) is not None:
        return DayTimeIntervalType(*(DayTimeIntervalType._UNITS.index(unit) for unit in units.groups() if unit))
    elif json.startswith("string collate "):
        return StringType()
    raise ValueError(f"there is no data type for Spark's {json if isinstance(json, str) else json['type']}")


def _checked(kind: Any, of: str) -> DataType:
    if not isinstance(kind, DataType):
        raise TypeError(f"{of}: expected an instance of a data type, such as IntegerType(), got {shown(kind)}")
    return kind
