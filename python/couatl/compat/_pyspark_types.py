"""Types between Spark and us: a struct of Spark's for our columns, our columns for a struct or its DDL text.

```text
  "a INT, b STRING"  ──┐                                    ┌──> StructType, of the library where it is there
  StructType           ├──>  Spark's JSON of a type  ──>────┼──> "a int32, b string", our columns
  Columns              ──┘
```

Spark parses DDL in its JVM; here none runs. TIMESTAMP is an instant there, and TIMESTAMP_NTZ what our ``timestamp`` is.
"""

from __future__ import annotations

import functools
import importlib
import sys
from typing import Any

from couatl._columns import Columns, quoted
from couatl._errors import shown
from couatl._types import Parser, Type, parse_type

#: Names of types, Spark's and ours, and what Spark's JSON calls them.
_NAMES = {
    "boolean": ["bool"],
    "byte": ["tinyint", "int8"],
    "short": ["smallint", "int16", "uint8"],
    "integer": ["int", "int32", "uint16"],
    "long": ["bigint", "int64", "uint32"],
    "float": ["real", "float32"],
    "double": ["float64"],
    "decimal(20,0)": ["uint64"],
    "string": ["varchar", "char", "character", "text", "json", "uuid", "enum8", "enum16"],
    "binary": ["bytea", "blob", "bytes"],
    "date": [],
    "time(6)": ["time"],
    "timestamp": ["timestamptz", "timestamp_ltz"],
    "timestamp_ntz": ["datetime"],
    "interval day to second": ["interval"],
}
_SPARK = {alias: name for name, aliases in _NAMES.items() for alias in [name, *aliases]}
#: The way back, for those that are spelled otherwise.
_OURS = {
    "boolean": "bool",
    "byte": "int8",
    "short": "int16",
    "integer": "int32",
    "long": "int64",
    "float": "float32",
    "double": "float64",
    "timestamp": "timestamptz",
    "timestamp_ntz": "timestamp",
    "string": "string",
    "binary": "binary",
    "date": "date",
}


def json_of(kind: Type, *, ours: bool) -> Any:
    """What Spark's JSON says of a type. Where `ours`, its name means what it means to us."""
    if kind.name in ("nullable", "low_cardinality"):
        return json_of(kind.inner[0], ours=ours)
    if kind.name == "array" and len(kind.inner) == 1:
        return {"type": "array", "elementType": json_of(kind.inner[0], ours=ours), "containsNull": True}
    if kind.name == "map" and len(kind.inner) == 2:
        key, value = (json_of(inner, ours=ours) for inner in kind.inner)
        return {"type": "map", "keyType": key, "valueType": value, "valueContainsNull": True}
    if kind.name in ("struct", "tuple"):
        return struct_json(zip(kind.names, kind.inner), ours=ours)
    if kind.name in ("decimal", "numeric", "dec"):
        default = ["38", "10"] if ours else ["10", "0"]
        precision, scale = [*kind.parameters, "0"][:2] if kind.parameters else default
        return f"decimal({precision},{scale})"
    if kind.name == "datetime64":
        return "timestamp" if len(kind.parameters) > 1 else "timestamp_ntz"
    if kind.name == "timestamp":
        return "timestamp_ntz" if ours else "timestamp"
    if kind.name not in _SPARK:
        raise ValueError(f"there is no type '{kind.name}' that Spark and Couatl both have")
    return _SPARK[kind.name]


def struct_json(fields: Any, *, ours: bool) -> Any:
    """The same of names and types."""
    members = [
        {"name": name, "type": json_of(kind, ours=ours), "nullable": kind.nullable, "metadata": {}}
        for name, kind in fields
    ]
    return {"type": "struct", "fields": members}


def struct_json_of_ddl(text: str) -> Any:
    """What Spark's JSON says of DDL such as ``a INT, b STRING`` or ``struct<a: int>``. ValueError where it is none."""
    parser = Parser(text)
    if parser.peek().lower() == "struct" and parser.peek(1) == "<":
        return json_of(parser.type(), ours=False)
    fields = list(parser.fields())
    if parser.peek():
        raise ValueError(f"expected ',' or the end, got {parser.peek()!r} in {text!r}")
    return struct_json(fields, ours=False)


def struct_json_of(schema: Any) -> Any:
    """What Spark's JSON says of a StructType or its DDL text. TypeError where it is neither."""
    if isinstance(schema, str):
        return struct_json_of_ddl(schema)
    found = schema.jsonValue() if callable(getattr(schema, "jsonValue", None)) else None
    if not isinstance(found, dict) or found.get("type") != "struct":
        raise TypeError(f"expected a StructType or its DDL text, got {shown(schema)}")
    return found


def columns_text(struct: Any) -> str:
    """The columns of a struct, as a statement has them."""
    nulls = {True: "", False: " not null"}
    return ", ".join(f"{quoted(f['name'])} {_spelling(f['type'])}{nulls[f['nullable']]}" for f in struct["fields"])


def _spelling(kind: Any) -> str:
    if isinstance(kind, dict):
        if kind["type"] == "array":
            return f"array({_spelling(kind['elementType'])})"
        if kind["type"] == "map":
            return f"map({_spelling(kind['keyType'])}, {_spelling(kind['valueType'])})"
        if kind["type"] == "struct":
            return f"tuple({', '.join(quoted(f['name']) + ' ' + _spelling(f['type']) for f in kind['fields'])})"
        if kind["type"] == "udt":
            return _spelling(kind["sqlType"])
    else:
        if kind in _OURS:
            return _OURS[kind]
        if kind.startswith("decimal"):
            return "decimal(10, 0)" if kind == "decimal" else kind.replace(",", ", ")
        for start, ours in [("char", "string"), ("varchar", "string"), ("time", "time"), ("string", "string")]:
            if kind.startswith(start):
                return ours
        if kind.startswith("interval") and "year" not in kind and "month" not in kind:
            return "interval"
    raise ValueError(f"there is no column type for Spark's {kind if isinstance(kind, str) else kind['type']}")


def struct_of(schema: Any) -> Any:
    """The StructType for columns, for DDL text, or for what is one already: the library's where it is installed."""
    if isinstance(schema, Columns):
        found = struct_json(((name, parse_type(kind)) for name, kind in schema), ours=True)
    elif isinstance(schema, str):
        found = struct_json_of_ddl(schema)
    else:
        struct_json_of(schema)
        return schema
    cls = named("pyspark.sql.types", "StructType")
    return cls.fromJson(found)


def read_ddl_without_session() -> None:
    """Have the library's ``fromDDL``, which asks a session of Spark, read DDL by itself where there is no session."""
    types = sys.modules.get("pyspark.sql.types")
    asked = getattr(types, "_parse_datatype_string", None)
    if types is None or asked is None or hasattr(asked, "__wrapped__"):
        return

    @functools.wraps(asked)
    def parsed(ddl: str) -> Any:
        try:
            return asked(ddl)
        except (RuntimeError, AssertionError):
            return types._parse_datatype_json_value(json_of_ddl(ddl))

    types._parse_datatype_string = parsed  # type: ignore[attr-defined]


def json_of_ddl(ddl: str) -> Any:
    """What Spark's JSON says of a type as DDL has it, or of a struct of columns such as ``a INT, b STRING``."""
    try:
        return json_of(parse_type(ddl), ours=False)
    except ValueError:
        return struct_json_of_ddl(ddl)


def named(module: str, name: str) -> Any:
    """A class of the library where it is installed, else the one of ours that has its name."""
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return getattr(importlib.import_module("couatl.compat.pyspark"), name)
