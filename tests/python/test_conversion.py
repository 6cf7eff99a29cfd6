"""Conversion as a property: random types, values, shapes and cuts give what pyarrow makes of the same values.

One misfit among them is refused, and named by its row and column. Where the two are meant to differ, `Kind.peer` gives
pyarrow what it needs (a naive datetime is UTC, finer times are floored), or `DIFFERENCES` says what and why.
"""

import base64
import datetime as dt
import decimal
import json
import pickle
import random
import uuid
from typing import NamedTuple

import pyarrow as pa
import pytest
from harness import create, error, table

SEEDS = range(8)
ROUNDS = 25
D = decimal.Decimal
UTC = dt.timezone.utc
ZONES = [None, UTC, dt.timezone(dt.timedelta(hours=5, minutes=30)), dt.timezone(dt.timedelta(hours=-11))]
REFUSED = object()


class Kind(NamedTuple):
    """A type of the language, and what is known of its values."""

    sql: str
    # What pyarrow calls it, and another Arrow type that holds the same values and misfits besides.
    arrow: pa.DataType
    wide: pa.DataType
    # A random value that fits; what pyarrow is given in its place, for `arrow` and for `wide`; what a client gets.
    value: callable
    peer: callable = lambda value: value
    loose: callable = lambda value: value
    seen: callable = lambda value: value
    # Random misfits: of Python, and of `wide`.
    misfits: tuple = ()
    wide_misfits: tuple = ()


def integer(name, arrow, low, high):
    def value(rng):
        # Ints have 30 bits in each of their digits.
        digits = rng.choice([-1, 1]) * 2 ** rng.choice([30, 60]) + rng.randint(-1, 1)
        return rng.choice([low, high, 0, 1, rng.randint(low, high), min(max(low, digits), high)])

    misfits = (low - 1, high + 1, "1", 0.5, b"1")
    if name.endswith("64"):
        return Kind(name, arrow, arrow, value, misfits=misfits)
    return Kind(name, arrow, pa.int64(), value, misfits=misfits, wide_misfits=(low - 1, high + 1))


def floating(rng):
    return rng.choice([0.0, -0.0, 1.5, -(2.0**-20), float("inf"), float("-inf"), 2.0**100, rng.randint(-9, 9) / 8])


def text(rng):
    return rng.choice(["", "a", "\0", "é\U0001f40d", "x" * rng.randint(1, 300)])


def money(rng):
    return D(rng.choice([0, 1, -1, 99999, -99999, rng.randint(-99999, 99999)])).scaleb(-2)


def moment(rng):
    micro = rng.choice([0, 1, 999_999, rng.randint(0, 999_999)])
    year = rng.choice([1678, 1969, 1970, 2024, 2261])
    zone = rng.choice(ZONES)
    return dt.datetime(year, rng.randint(1, 12), rng.randint(1, 28), rng.randint(0, 23), 59, 59, micro, zone)


def instant(value):
    """A naive datetime is UTC; pyarrow is given the same."""
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def timestamp(name, unit, zone, wide_unit="us"):
    floors = {
        "s": lambda v: v.replace(microsecond=0),
        "ms": lambda v: v.replace(microsecond=v.microsecond // 1000 * 1000),
    }
    floor = floors.get(unit, lambda v: v)

    def peer(value):
        # Times finer than their column are floored.
        exact = floor(instant(value))
        return exact if zone else exact.replace(tzinfo=None)

    def loose(value):
        return instant(value).replace(tzinfo=None)

    misfits = ("2024-01-01", 5, dt.date(2024, 1, 1))
    return Kind(name, pa.timestamp(unit, zone), pa.timestamp(wide_unit), moment, peer, loose, misfits=misfits)


LEAVES = [
    Kind("bool", pa.bool_(), pa.bool_(), lambda rng: rng.random() < 0.5, misfits=(0, "true")),
    *(
        integer(f"int{bits}", getattr(pa, f"int{bits}")(), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        for bits in [8, 16, 32, 64]
    ),
    *(integer(f"uint{bits}", getattr(pa, f"uint{bits}")(), 0, 2**bits - 1) for bits in [8, 16, 32, 64]),
    Kind("float64", pa.float64(), pa.float32(), floating, misfits=("1", b"1")),
    Kind("float32", pa.float32(), pa.float64(), floating, misfits=("1", 1e39), wide_misfits=(1e39, -1e300)),
    Kind(
        "decimal(5, 2)",
        pa.decimal128(5, 2),
        pa.decimal256(60, 5),
        money,
        misfits=(D("0.001"), D(1000), D("NaN"), 0.5, "1"),
        wide_misfits=(D("0.001"), D(1000)),
    ),
    Kind(
        "decimal(60, 0)",
        pa.decimal256(60, 0),
        pa.decimal256(70, 3),
        lambda rng: D(rng.choice([0, 10**60 - 1, -(10**60) + 1, rng.randint(0, 10**50)])),
        misfits=(D(10**60), D("0.5")),
        wide_misfits=(D(10**60), D("0.5")),
    ),
    Kind("string", pa.string(), pa.large_string(), text, misfits=(5, 0.5, "\ud800")),
    Kind("varchar", pa.string(), pa.string_view(), text, misfits=(5,)),
    Kind("text", pa.string(), pa.dictionary(pa.int8(), pa.string()), text, misfits=(5,)),
    Kind("low_cardinality(string)", pa.string(), pa.dictionary(pa.int8(), pa.string()), text, misfits=(5,)),
    Kind(
        "enum8('on' = 1, 'off' = 0)",
        pa.string(),
        pa.string(),
        lambda rng: rng.choice(["on", "off"]),
        wide_misfits=("ON",),
    ),
    Kind("binary", pa.binary(), pa.binary_view(), lambda rng: text(rng).encode(), misfits=(5,)),
    Kind(
        "date",
        pa.date32(),
        pa.date64(),
        lambda rng: dt.date(rng.choice([1, 1969, 1970, 9999]), rng.randint(1, 12), rng.randint(1, 28)),
        misfits=("2024-01-01",),
    ),
    Kind(
        "time",
        pa.time64("us"),
        pa.time64("ns"),
        lambda rng: rng.choice([dt.time.min, dt.time.max, dt.time(12, 0, 0, rng.randint(0, 999_999))]),
        misfits=("12:00", dt.datetime(2024, 1, 1)),
    ),
    timestamp("timestamp", "us", None, "ns"),
    timestamp("timestamptz", "us", "UTC"),
    timestamp("datetime64(0)", "s", None),
    timestamp("datetime64(3, 'Asia/Tokyo')", "ms", "Asia/Tokyo"),
    timestamp("datetime64(9)", "ns", None),
    Kind(
        "uuid",
        pa.binary(16),
        pa.string(),
        lambda rng: uuid.UUID(int=rng.getrandbits(128)),
        peer=lambda value: value.bytes,
        loose=str,
        seen=lambda value: value.bytes if isinstance(value, uuid.UUID) else value,
        misfits=("nope", b"short", 5),
        wide_misfits=("nope",),
    ),
    Kind(
        "json",
        pa.string(),
        pa.large_string(),
        lambda rng: json.dumps(rng.choice([None, 1, "\0é", [1, {"a": [None]}], {}, True])),
        misfits=("{", 5, 0.5, {1, 2}),
        wide_misfits=("{", ""),
    ),
]


def each(function):
    return lambda values: None if values is None else [call(function, value) for value in values]


def call(function, value):
    return None if value is None else function(value)


def array_of(item):
    def value(rng):
        return [maybe(rng, item) for _ in range(rng.choice([0, 1, 3]))]

    return Kind(
        f"array({item.sql})",
        pa.list_(item.arrow),
        pa.large_list(item.wide),
        value,
        each(item.peer),
        each(item.loose),
        each(item.seen),
        tuple([None, misfit] for misfit in item.misfits),
        tuple([None, misfit] for misfit in item.wide_misfits),
    )


def map_of(item):
    def over(function):
        return lambda pairs: [(key, call(function, value)) for key, value in (dict(pairs).items())]

    return Kind(
        f"map(string, {item.sql})",
        pa.map_(pa.string(), item.arrow),
        pa.map_(pa.string(), item.wide),
        lambda rng: {key: maybe(rng, item) for key in rng.sample(["", "a", "b"], rng.randint(0, 3))},
        over(item.peer),
        over(item.loose),
        over(item.seen),
        tuple({"a": None, "b": misfit} for misfit in item.misfits),
        tuple({"a": None, "b": misfit} for misfit in item.wide_misfits),
    )


def tuple_of(item, other):
    def over(one, two):
        def members(value):
            a, b = (value["a"], value["b"]) if isinstance(value, dict) else value
            return {"a": call(one, a), "b": call(two, b)}

        return members

    def value(rng):
        a, b = maybe(rng, item), maybe(rng, other)
        return rng.choice([(a, b), {"b": b, "a": a}])

    return Kind(
        f"tuple(a {item.sql}, b {other.sql})",
        pa.struct({"a": item.arrow, "b": other.arrow}),
        pa.struct({"a": item.wide, "b": other.wide}),
        value,
        over(item.peer, other.peer),
        over(item.loose, other.loose),
        over(item.seen, other.seen),
        tuple((misfit, None) for misfit in item.misfits),
        tuple({"a": misfit, "b": None} for misfit in item.wide_misfits),
    )


def maybe(rng, kind):
    return None if rng.random() < 0.2 else kind.value(rng)


def any_kind(rng, depth=2):
    if depth == 0 or rng.random() < 0.6:
        return rng.choice(LEAVES)
    item = any_kind(rng, depth - 1)
    return rng.choice([array_of, map_of, lambda item: tuple_of(item, any_kind(rng, depth - 1))])(item)


BODY = """
import base64, pickle
import pyarrow as pa
names, rows = pickle.loads(base64.b64decode("{pickled}"))

def cut():
    at = 0
    for size in {sizes}:
        yield at, at + size
        at += size

def random_stream():
    {shape}
"""

SHAPES = {
    "rows": "yield from rows",
    "a list": "return rows",
    "batches": "yield from (rows[a:b] for a, b in cut())",
    "rows and batches": "yield from (rows[a:b] if b - a != 1 else rows[a] for a, b in cut())",
    "dicts": "yield from (dict(zip(names, row)) for row in rows)",
    "Arrow": "return rows",
    "Arrow batches": "yield from (rows.slice(a, b - a) for a, b in cut())",
    "a reader": "return pa.RecordBatchReader.from_batches(rows.schema, (rows.slice(a, b - a) for a, b in cut()))",
}


def sizes(rng, count):
    found = []
    while sum(found) < count:
        found.append(rng.randint(1, count - sum(found)))
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_conversion_agrees_with_pyarrow(connection, seed):
    rng = random.Random(seed)
    for round in range(ROUNDS):
        # A plain column first: what is given is never taken for a batch of rows, nor a null for nothing.
        kinds = [LEAVES[1], *(any_kind(rng) for _ in range(rng.randint(1, 4)))]
        count = rng.randint(1, 12)
        values = [[maybe(rng, kind) for _ in range(count)] for kind in kinds]
        shape = rng.choice(list(SHAPES))
        is_arrow = shape.startswith(("Arrow", "a reader"))
        convert = [kind.loose if is_arrow else (lambda value: value) for kind in kinds]
        given = [[call(function, value) for value in column] for function, column in zip(convert, values)]
        misfit = None
        if rng.random() < 0.4:
            column = rng.randrange(len(kinds))
            choices = kinds[column].wide_misfits if is_arrow else kinds[column].misfits
            if choices:
                misfit = (rng.randrange(count), column)
                given[column][misfit[0]] = rng.choice(choices)
        names = [f"c{index}" for index in range(len(kinds))]
        if is_arrow:
            batch = pa.record_batch([pa.array(column, kind.wide) for column, kind in zip(given, kinds)], names)
        pickled = pickle.dumps((names, batch if is_arrow else list(zip(*given))))
        body = BODY.format(pickled=base64.b64encode(pickled).decode(), sizes=sizes(rng, count), shape=SHAPES[shape])
        columns = ", ".join(f"{name} {kind.sql}" for name, kind in zip(names, kinds))
        about = f"seed {seed}, round {round}, {shape}: ({columns}) of {given}, misfit at {misfit}"
        create(connection, "random_stream", columns, body, batch_size=rng.choice([1, 2, 5, 8192]))
        if misfit:
            row, column = misfit
            said = error(connection, "SELECT * FROM random_stream")
            assert f"stream 'random_stream', row {row + 1}, column '{names[column]}" in said, (about, said)
            continue
        found = table(connection, "SELECT * FROM random_stream")
        for name, kind, column in zip(names, kinds, values):
            expected = pa.array([call(kind.peer, value) for value in column], kind.arrow).to_pylist()
            got = [call(kind.seen, value) for value in found[name].to_pylist()]
            assert repr(got) == repr(expected), (name, about)


# What pyarrow does otherwise, on purpose: the type, the value, what Couatl makes of it, and why.
DIFFERENCES = [
    ("int32", True, 1, "a bool is an int of Python's"),
    ("int32", 1.0, REFUSED, "a float is no int, whichever it is"),
    ("string", b"a", REFUSED, "bytes are no text before they are decoded"),
    ("binary", "a", REFUSED, "text is no bytes before it is encoded"),
    ("date", dt.datetime(2024, 1, 1, 5), REFUSED, "its time of day would be lost"),
    ("timestamp", 5, REFUSED, "a number has no unit"),
    ("float32", 1e39, REFUSED, "a finite float does not become infinite"),
]


@pytest.mark.parametrize(("type", "value", "expected", "why"), DIFFERENCES, ids=[why for *_, why in DIFFERENCES])
def test_conversion_differs_from_pyarrow(connection, type, value, expected, why):
    kind = next(kind for kind in LEAVES if kind.sql == type)
    pickled = base64.b64encode(pickle.dumps([(value,)])).decode()
    body = f"import base64, pickle\ndef one():\n    return pickle.loads(base64.b64decode('{pickled}'))\n"
    create(connection, "one", f"v {type}", body)
    if expected is REFUSED:
        assert "stream 'one', row 1, column 'v'" in error(connection, "SELECT * FROM one")
    else:
        assert table(connection, "SELECT * FROM one")["v"].to_pylist() == [expected]
    try:
        made = pa.array([value], kind.arrow).to_pylist()[0]
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        made = REFUSED
    assert repr(made) != repr(expected)
