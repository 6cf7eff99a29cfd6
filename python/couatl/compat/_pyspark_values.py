"""Values between Spark and us: what a reader yields, and what a writer is given as a Row or as Arrow.

Each function makes a converter for a type once, and None where there is nothing to convert, so that most columns pass
as they are.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

from couatl._types import Type
from couatl.compat._pyspark_types import json_of, named

Convert = Callable[[Any], Any]


def incoming(kind: Any) -> Convert | None:
    """What makes a value of a source ours; None where it is. A time without a zone is local, where Spark's type is an
    instant; what stands for a struct becomes a tuple."""
    if kind == "timestamp":
        return lambda value: (
            value.astimezone(timezone.utc) if isinstance(value, datetime) and value.tzinfo is None else value
        )
    if not isinstance(kind, dict):
        return None
    if kind["type"] == "array":
        return _array(incoming(kind["elementType"]))
    if kind["type"] == "map":
        return _map(incoming(kind["keyType"]), incoming(kind["valueType"]))
    if kind["type"] == "struct":
        names = [member["name"] for member in kind["fields"]]
        converts = [incoming(member["type"]) for member in kind["fields"]]

        def struct(value: Any) -> Any:
            if isinstance(value, dict):
                value = tuple(value.get(name) for name in names)
            if not isinstance(value, tuple) or len(value) != len(names):
                return value
            return tuple(convert(v) if convert and v is not None else v for v, convert in zip(value, converts))

        return struct
    return None


def outgoing(kind: Type, *, arrow: bool = False) -> Convert | None:
    """What makes a value of ours what a writer is given; None where it is. `arrow` is for building arrays of it."""
    if kind.name in ("nullable", "low_cardinality"):
        return outgoing(kind.inner[0], arrow=arrow)
    if kind.name == "array":
        return _array(outgoing(kind.inner[0], arrow=arrow))
    if kind.name == "map":
        entries = _map(*(outgoing(inner, arrow=arrow) for inner in kind.inner))
        if not arrow:
            return entries
        return lambda value: list((entries(value) if entries else value).items())
    if kind.name in ("struct", "tuple"):
        return _struct(kind, arrow)
    if kind.name == "uuid":
        return str
    if kind.name == "json":
        return json.dumps
    if kind.name == "uint64":
        return Decimal
    if not arrow and json_of(kind, ours=True) == "timestamp":
        return lambda value: value.astimezone().replace(tzinfo=None)
    return None


def _struct(kind: Type, arrow: bool) -> Convert:
    converts = [outgoing(inner, arrow=arrow) for inner in kind.inner]
    make = (lambda values: dict(zip(kind.names, values))) if arrow else row_maker(kind.names)
    return lambda value: make([convert(v) if convert and v is not None else v for v, convert in zip(value, converts)])


def _array(convert: Convert | None) -> Convert | None:
    if convert is None:
        return None
    return lambda value: [convert(v) if v is not None else None for v in value]


def _map(key: Convert | None, of: Convert | None) -> Convert | None:
    if key is None and of is None:
        return None
    return lambda value: {
        (key(k) if key else k): (of(v) if of and v is not None else v) for k, v in dict(value).items()
    }


def row_maker(names: Sequence[str]) -> Convert:
    """What makes a Row of values, in order: the library's where it is installed."""
    cls = named("pyspark.sql.types", "Row")
    fields = list(names)

    def make(values: Any) -> Any:
        row = cls(*values)
        row.__fields__ = fields
        return row

    return make


def arrow_type(kind: Any) -> Any:
    """The Arrow type that Spark has for one of its own."""
    pa = importlib.import_module("pyarrow")
    if isinstance(kind, dict):
        if kind["type"] == "array":
            return pa.list_(pa.field("element", arrow_type(kind["elementType"]), kind["containsNull"]))
        if kind["type"] == "map":
            value = pa.field("value", arrow_type(kind["valueType"]), kind["valueContainsNull"])
            return pa.map_(pa.field("key", arrow_type(kind["keyType"]), False), value)
        return pa.struct([pa.field(f["name"], arrow_type(f["type"]), f["nullable"]) for f in kind["fields"]])
    if kind.startswith("decimal"):
        return pa.decimal128(*map(int, re.findall(r"\d+", kind)))
    types = {
        "boolean": pa.bool_(),
        "byte": pa.int8(),
        "short": pa.int16(),
        "integer": pa.int32(),
        "long": pa.int64(),
        "float": pa.float32(),
        "double": pa.float64(),
        "string": pa.string(),
        "binary": pa.binary(),
        "date": pa.date32(),
        "time(6)": pa.time64("ns"),
        "timestamp": pa.timestamp("us", tz="UTC"),
        "timestamp_ntz": pa.timestamp("us"),
        "interval day to second": pa.duration("us"),
    }
    return types[kind]
