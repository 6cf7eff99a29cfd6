"""The values that are converted: for each type its spelling, how a value is made, and the ratio aimed at."""

import datetime as dt
import decimal
import json
import random
import uuid
from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Any, NamedTuple

import pyarrow as pa

# The same list of rows is given again and again: rows that were just made are in the processor's cache, too.
# Lists of values that take pyarrow long are fewer.
ROUNDS, FEW_ROUNDS, IN_BATCH = 200, 8, 8
COLUMNS, MANY_COLUMNS = 4, 50
UTC = dt.timezone.utc
EAST = dt.timezone(dt.timedelta(hours=2))
EPOCH = dt.datetime(1970, 1, 1)

chance = random.Random(7)
number = chance.randrange


def moment(zone: dt.tzinfo | None = None) -> dt.datetime:
    return (EPOCH + dt.timedelta(microseconds=number(2**51))).replace(tzinfo=zone)


def text(length: int) -> str:
    return "".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=8)).ljust(length, "x")


class Kind(NamedTuple):
    """A type. `source` is how many times faster than `pa.array` it is to be, 0 where that is not said."""

    sql: str
    arrow: pa.DataType
    value: Callable[[], Any]
    source: float
    name: str = ""
    rows: int = 1000
    # What pyarrow's list still lacks to be what a write function receives.
    then: Callable[[Any], Any] | None = None


KINDS = [
    Kind("bool", pa.bool_(), lambda: chance.random() < 0.5, 5),
    Kind("int8", pa.int8(), lambda: number(-128, 128), 5),
    Kind("int32", pa.int32(), lambda: number(-(2**31), 2**31), 5),
    Kind("int64", pa.int64(), lambda: number(-(2**63), 2**63), 5),
    Kind("uint64", pa.uint64(), lambda: number(2**64), 5),
    Kind("float32", pa.float32(), chance.random, 5),
    Kind("float64", pa.float64(), chance.random, 5),
    Kind("decimal(18, 4)", pa.decimal128(18, 4), lambda: decimal.Decimal(number(-(10**12), 10**12)).scaleb(-4), 1),
    Kind("decimal(50, 4)", pa.decimal256(50, 4), lambda: decimal.Decimal(number(-(10**40), 10**40)).scaleb(-4), 1),
    Kind("string", pa.string(), lambda: text(10), 3, "string of 10 B"),
    Kind("string", pa.string(), lambda: text(10_000), 3, "string of 10 kB", 10),
    Kind("binary", pa.binary(), lambda: text(10).encode(), 3),
    Kind("date", pa.date32(), lambda: moment().date(), 3),
    Kind("time", pa.time64("us"), lambda: moment().time(), 3),
    Kind("timestamp", pa.timestamp("us"), moment, 3),
    Kind("timestamptz", pa.timestamp("us", "UTC"), lambda: moment(UTC), 1, "timestamptz, UTC"),
    Kind("timestamptz", pa.timestamp("us", "UTC"), lambda: moment(EAST), 1, "timestamptz, +02:00"),
    Kind("uuid", pa.uuid(), lambda: uuid.UUID(int=number(2**128)), 0),
    Kind("json", pa.json_(), lambda: json.dumps({"id": number(1000), "tags": ["a", "b"]}), 0, then=json.loads),
    Kind("array(int64)", pa.list_(pa.int64()), lambda: [number(2**40) for _ in range(4)], 3, "array of 4 int64"),
    Kind(
        "map(string, int64)",
        pa.map_(pa.string(), pa.int64()),
        lambda: {f"key {n}": number(2**40) for n in range(4)},
        3,
        "map of 4 to int64",
        then=dict,
    ),
    Kind(
        "tuple(a int64, b string)",
        pa.struct({"a": pa.int64(), "b": pa.string()}),
        lambda: {"a": number(2**40), "b": text(10)},
        3,
        "tuple of 2, as dict",
        then=lambda value: tuple(value.values()),
    ),
    Kind(
        "enum8('red' = 1, 'green' = 2)",
        pa.dictionary(pa.int8(), pa.string()),
        lambda: text_of("red", "green"),
        0,
        "enum8",
    ),
    Kind("low_cardinality(string)", pa.dictionary(pa.int32(), pa.string()), lambda: text_of(*LABELS), 0),
]
LABELS = [text(10) for _ in range(100)]


def text_of(*choices: str) -> str:
    """One of them, as a string of its own: what users read has no shared objects."""
    return chance.choice(choices).encode().decode()


class Case:
    """The values of one type, by row and by column."""

    def __init__(self, kind: Kind, nulls: bool, columns: int) -> None:
        self.name = (kind.name or kind.sql) + (", half null" if nulls else "")
        self.name += f", {columns} columns" if columns != COLUMNS else ""
        self.sql, self.target, self.then = kind.sql, kind.source, kind.then
        light = kind.sql.startswith(("bool", "int", "uint", "float", "string", "binary"))
        self.sink_rounds = ROUNDS if light else FEW_ROUNDS
        self.columns, self.rows, self.sink_rows = columns, kind.rows * ROUNDS, kind.rows * self.sink_rounds
        self.arrow = kind.arrow
        value = (lambda: None if number(2) else kind.value()) if nulls else kind.value
        self.list = [tuple(value() for _ in range(columns)) for _ in range(kind.rows)]
        self.lists = [list(column) for column in zip(*self.list)]
        # As long as the batches that a scan gives.
        self.arrays = [pa.concat_arrays([pa.array(column, kind.arrow)] * IN_BATCH) for column in self.lists]

    def read(self) -> Iterator[list[tuple[Any, ...]]]:
        return repeat(self.list, ROUNDS)

    def write(self, *columns: list[Any]) -> None:
        pass

    def to_arrow(self) -> None:
        """What pyarrow does where the source does it; the columns of one batch are there together."""
        for _ in range(ROUNDS):
            arrays = [pa.array(column, self.arrow) for column in self.lists]
            del arrays

    def to_lists(self) -> None:
        """What pyarrow does where the sink does it; the arguments of one call are there together."""
        for _ in range(self.sink_rounds // IN_BATCH):
            lists = [array.to_pylist() for array in self.arrays]
            if then := self.then:
                lists = [[None if value is None else then(value) for value in values] for values in lists]
            del lists


def cases() -> list[tuple[Kind, bool, int]]:
    """The types, whether half of the values are null, and how many columns of them."""
    narrow = [(kind, nulls, COLUMNS) for kind in KINDS for nulls in (False, True)]
    return narrow + [(kind, False, MANY_COLUMNS) for kind in KINDS if kind.sql in ("int64", "float64", "string")]
