"""From bytes to a stream: its columns, what its read function gives, and what is known of the rows beforehand.

Each byte decides one thing, so that a mutated byte is another value, type or shape. Values either fit their column by
construction, and must come back as they went, or are odd: these may be refused, and what follows them is not foreseen.
"""

import datetime as dt
import decimal
import enum
import fractions
import json
import uuid

import numpy as np
import pandas as pd
import pyarrow as pa

D = decimal.Decimal
UTC = dt.timezone.utc
MOST_DEPTH = 3


class Bytes:
    """The input, from its first byte to its last; after that, zeros."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def left(self):
        return len(self.data) - self.at

    def take(self, count):
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self):
        return (self.take(1) or b"\0")[0]

    def one(self, choices):
        return choices[self.byte() % len(choices)]

    def number(self, low=None, high=None):
        number = int.from_bytes(self.take(self.byte() % 20), "little", signed=True)
        return number if low is None else low + number % (high - low + 1)

    def text(self, errors="ignore"):
        return self.take(self.byte() % 32).decode("utf-8", errors)


class Kind:
    """A type: its name, values that fit it, and, where pyarrow makes arrays of the same values, its type there."""

    def __init__(self, sql, fit, arrow=None, peer=lambda value: value):
        self.sql, self.fit, self.arrow, self.peer = sql, fit, arrow, peer

    def maybe(self, data):
        return self.fit(data) if data.byte() % 4 else None


def call(function, value):
    return None if value is None else function(value)


def date(data, first=1, last=9999):
    return dt.date(data.number(first, last), data.number(1, 12), data.number(1, 28))


def clock(data):
    return dt.time(data.byte() % 24, data.byte() % 60, data.byte() % 60, data.number(0, 999_999))


def moment(data, first=1, last=9999, zone=None, micros=1):
    time = clock(data)
    time = time.replace(microsecond=time.microsecond // micros * micros)
    return dt.datetime.combine(date(data, first, last), time, zone)


def document(data, depth=2):
    makers = [
        lambda: None,
        lambda: data.number(-99, 99),
        data.text,
        lambda: [document(data, depth - 1) for _ in range(data.byte() % 3 * (depth > 0))],
        lambda: {data.text(): document(data, depth - 1) for _ in range(data.byte() % 3 * (depth > 0))},
    ]
    return data.one(makers)()


def integer(bits, signed):
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    name = f"{'' if signed else 'u'}int{bits}"
    return Kind(name, lambda data: data.one([low, high, data.number(low, high)]), getattr(pa, name)())


LEAVES = [
    *(integer(bits, signed) for bits in [8, 16, 32, 64] for signed in [True, False]),
    Kind("bool", lambda data: data.byte() % 2 == 0, pa.bool_()),
    Kind("float32", lambda data: data.number(-(2**24), 2**24) / 64, pa.float32()),
    Kind("float64", lambda data: data.one([float("inf"), -0.0, data.number(-(2**53), 2**53) / 1024]), pa.float64()),
    Kind("decimal(5, 2)", lambda data: D(data.number(-99999, 99999)).scaleb(-2), pa.decimal128(5, 2)),
    Kind("decimal(38, 0)", lambda data: D(data.number(-(10**27), 10**27)), pa.decimal128(38, 0)),
    Kind("decimal(76, 3)", lambda data: D(data.number(-(10**27), 10**27)).scaleb(-3), pa.decimal256(76, 3)),
    Kind("string", Bytes.text, pa.string()),
    Kind("binary", lambda data: data.take(data.byte() % 32), pa.binary()),
    Kind("date", date, pa.date32()),
    Kind("time", clock, pa.time64("us")),
    Kind("interval", lambda data: dt.timedelta(data.number(-9999, 9999), 0, data.number(0, 86_399_999_999))),
    Kind("timestamp", moment, pa.timestamp("us")),
    Kind("timestamptz", lambda data: moment(data, zone=UTC), pa.timestamp("us", "UTC")),
    Kind("datetime64(0)", lambda data: moment(data, micros=1_000_000), pa.timestamp("s")),
    Kind("datetime64(3)", lambda data: moment(data, micros=1000), pa.timestamp("ms")),
    Kind("datetime64(9)", lambda data: moment(data, 1678, 2261), pa.timestamp("ns")),
    Kind("datetime64(6, 'Asia/Tokyo')", lambda data: moment(data, 2, 9998, UTC), pa.timestamp("us", "Asia/Tokyo")),
    Kind("uuid", lambda data: uuid.UUID(int=data.number(0, 2**128 - 1)), pa.binary(16), lambda value: value.bytes),
    Kind("json", lambda data: data.one([[document(data)], {"a": document(data)}]), pa.string(), json.dumps),
    Kind("low_cardinality(string)", Bytes.text, pa.dictionary(pa.int32(), pa.string())),
    Kind("low_cardinality(date)", date, pa.date32()),
    Kind("enum8('a' = -1, '' = 7, 'é')", lambda data: data.one(["a", "", "é"]), pa.string()),
    Kind("enum16('x' = 1000)", lambda data: "x", pa.dictionary(pa.int8(), pa.string())),
]


def kind_of(data, depth=MOST_DEPTH):
    """Any type."""
    shape = data.byte() % 8 if depth else 0
    if shape < 4:
        return data.one(LEAVES)
    if shape < 6:
        item = kind_of(data, depth - 1)
        return Kind(
            f"array({item.sql})",
            lambda data: [item.maybe(data) for _ in range(data.byte() % 4)],
            item.arrow and pa.list_(item.arrow),
            lambda value: [call(item.peer, each) for each in value],
        )
    if shape == 6:
        key, item = data.one([LEAVES[0], LEAVES[14], LEAVES[16]]), kind_of(data, depth - 1)
        return Kind(
            f"map({key.sql}, {item.sql})",
            lambda data: {key.fit(data): item.maybe(data) for _ in range(data.byte() % 4)},
            item.arrow and pa.map_(key.arrow, item.arrow),
            lambda value: [(name, call(item.peer, each)) for name, each in value.items()],
        )
    members = [kind_of(data, depth - 1) for _ in range(1 + data.byte() % 3)]
    names = [f"m{index}" for index in range(len(members))]
    return Kind(
        f"tuple({', '.join(f'{name} {member.sql}' for name, member in zip(names, members))})",
        lambda data: tuple(member.maybe(data) for member in members),
        pa.struct([(name, member.arrow) for name, member in zip(names, members)])
        if all(member.arrow for member in members)
        else None,
        lambda value: {name: call(member.peer, each) for name, member, each in zip(names, members, value)},
    )


class Zone(dt.tzinfo):
    """A zone whose offset is anything."""

    def __init__(self, offset):
        self.offset = offset

    def utcoffset(self, moment):
        return raised(self.offset) if isinstance(self.offset, type) else self.offset


class Raises:
    """Everything that is asked of it raises."""

    def __init__(self, error):
        self.error = error

    def __index__(self):
        raise self.error

    __len__ = __iter__ = __float__ = __str__ = __repr__ = __hash__ = __bool__ = __index__


class Key:
    """A key that is where a column's name would be, and, once that is read, cannot be compared with it."""

    is_read = False

    def __init__(self, name):
        self.name = name

    def __hash__(self):
        return hash(self.name)

    def __eq__(self, other):
        return raised(ValueError) if Key.is_read else self is other


class Shrinks:
    """An int that empties the lists that it is in, when asked for its value."""

    def __init__(self, *lists):
        self.lists = lists

    def __index__(self):
        for each in self.lists:
            each.clear()
        return 1


class Lies(list):
    """A list with another length and other items than it has."""

    def __len__(self):
        return 7

    def __getitem__(self, index):
        return "item"

    def __iter__(self):
        return iter([1, 2])


def raised(error):
    raise error("raised")


def subclass(base, *arguments, **named):
    """A value of a class that inherits from this one."""
    return type(f"My{base.__name__}", (base,), {})(*arguments, **named)


def raising(item):
    yield item
    raise ValueError("raised")


def shrinking():
    items = [1, 2, 3]
    items.insert(1, Shrinks(items))
    return items


def recursive():
    items = [1]
    items.append(items)
    return items


def numpy_scalar(data):
    kinds = ["?", "b", "B", "h", "i", "Q", "e", "f", "d", "g", "F", "S3", "U3", "V3", "O"]
    kinds += [f"{kind}8[{unit}]" for kind in "mM" for unit in ["Y", "M", "W", "D", "m", "s", "ms", "25us", "ns", "as"]]
    dtype = np.dtype(data.one(kinds))
    raw = data.take(dtype.itemsize).ljust(dtype.itemsize, b"\0")
    return np.ones(1, dtype)[0] if dtype.kind in "OU" else np.frombuffer(raw, dtype)[0]


def numpy_array(data):
    scalars = [numpy_scalar(data)] * (data.byte() % 4)
    array = np.array(scalars or [1.5, 2])
    return data.one([array, array[::-1], array.reshape(-1, 1), array.reshape(1, -1), np.array(7), np.ma.array(array)])


def arrow_value(data):
    array = arrow_array(data, kind_of(data, 2))
    return data.one([array, array[:1], pa.scalar(data.number(-9, 9)), pa.chunked_array([array, array])])


OF_SUBCLASSES = [
    *[subclass(int, 5), subclass(str, "a"), subclass(float, 0.5), subclass(bytes, b"a"), subclass(D, "1.5")],
    *[subclass(list, [1]), subclass(dict, [("a", 1)]), subclass(tuple, (1, 2)), subclass(tuple, (1,)), Lies([1])],
    *[subclass(dt.datetime, 2024, 1, 1), subclass(dt.date, 2024, 1, 1), subclass(uuid.UUID, int=1)],
    *[enum.IntEnum("E", "a b").a, enum.Enum("E", "a").a],
]

ODD = [
    lambda data: None,
    lambda data: data.one([0, 1, True, -1, 2**31, 2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**5000]),
    lambda data: data.number(),
    lambda data: data.one([0.0, 0.5, float("nan"), float("inf"), 1e39, 1e308, 5e-324, 2.0**63, 1e16 + 2]),
    lambda data: data.one(
        ["\ud800", "1", "NaN", "\0", "true", "{", "null", "x" * 2000, "a", "é", str(uuid.NAMESPACE_DNS)]
    ),
    lambda data: data.text("surrogateescape"),
    lambda data: data.take(data.byte() % 20),
    lambda data: data.one([bytearray, memoryview])(data.take(data.byte() % 20)),
    lambda data: memoryview(b"0123456789abcdefghijklmnopqrstuvwxyz")[:: data.one([-1, 2])],
    lambda data: D(data.one(["NaN", "sNaN", "-Infinity", "1E+999999", "1E-999999", "0E+99", "-0", "1" * 80, "0.001"])),
    lambda data: fractions.Fraction(data.number(), 7),
    lambda data: complex(data.number(-9, 9), 1),
    date,
    moment,
    lambda data: data.one(
        [dt.date.min, dt.date.max, dt.datetime.min, dt.datetime.max, dt.timedelta.max, dt.timedelta.min]
    ),
    lambda data: data.one([dt.datetime.min, dt.datetime.max]).replace(
        tzinfo=dt.timezone(dt.timedelta(hours=data.number(-23, 23)))
    ),
    lambda data: dt.datetime(
        2024, 1, 1, tzinfo=Zone(data.one([None, 5, dt.timedelta(days=3), ValueError, dt.timedelta(0, 1, 1)]))
    ),
    lambda data: dt.time(1, tzinfo=UTC),
    lambda data: uuid.UUID(int=data.number(0, 2**128 - 1)),
    numpy_scalar,
    numpy_array,
    lambda data: data.one(
        [pd.NaT, pd.NA, pd.Timestamp.max, pd.Timestamp.min.tz_localize(UTC), pd.Timedelta(1), pd.Timedelta.max]
    ),
    lambda data: pd.Series([1, None]),
    arrow_value,
    lambda data: data.one(
        [object(), object, len, ..., 1j, range(3), {1}, frozenset(), iter([]), (each for each in "ab")]
    ),
    lambda data: data.one(OF_SUBCLASSES),
    lambda data: Raises(
        data.one([ValueError("no"), KeyboardInterrupt(), SystemExit(3), StopIteration(), MemoryError()])
    ),
    lambda data: data.one([shrinking, recursive])(),
    lambda data: [odd(data) for _ in range(data.byte() % 4)],
    lambda data: tuple(odd(data) for _ in range(data.byte() % 4)),
    lambda data: {
        data.one(["a", "m0", 1, None, b"", "é", "\ud800", Key("m0")]): odd(data) for _ in range(data.byte() % 4)
    },
    lambda data: [(odd(data), odd(data)) for _ in range(data.byte() % 3)],
    lambda data: kind_of(data).fit(data),
]


def odd(data):
    """Any value at all."""
    return data.one(ODD)(data) if data.left() > 0 else None


OTHERS = [
    *[
        pa.string_view(),
        pa.large_string(),
        pa.binary_view(),
        pa.large_binary(),
        pa.decimal256(70, 9),
        pa.decimal32(5, 2),
    ],
    *[pa.float16(), pa.int64(), pa.timestamp("ns"), pa.duration("s"), pa.time32("s"), pa.date64(), pa.null()],
]


def arrow_array(data, kind):
    """An array of another type than the column's, or with what pyarrow can make of odd values."""
    values = [kind.maybe(data) for _ in range(data.byte() % 5)]
    array = pa.array([call(kind.peer, value) for value in values], kind.arrow or pa.null(), from_pandas=False)
    array = data.one(
        [lambda: array, lambda: array[1:], lambda: array[:1], lambda: pa.concat_arrays([array, array])[1:]]
    )()
    odds = pa.array([each % 2 == 1 for each in range(len(array))], pa.bool_())
    made = data.one([
        lambda: array,
        lambda: array.dictionary_encode(),
        lambda: pa.nulls(len(array), data.one([pa.null(), array.type])),
        lambda: pa.ListArray.from_arrays(pa.array([0, len(array)], pa.int32()), array),
        lambda: pa.LargeListArray.from_arrays([0, 0, len(array)], array)[1:],
        lambda: pa.FixedSizeListArray.from_arrays(array, max(len(array), 1)),
        lambda: pa.ListViewArray.from_arrays(pa.array([0, 0]), pa.array([len(array), len(array)]), array)[1:],
        lambda: pa.StructArray.from_arrays([array, array], ["m0", "m1"], mask=odds),
        lambda: pa.RunEndEncodedArray.from_arrays([2 + each for each in range(len(array))], array)[1:],
        lambda: pa.UnionArray.from_sparse(pa.array([0] * len(array), pa.int8()), [array]),
        lambda: array.cast(data.one(OTHERS)),
    ])  # fmt: skip
    try:
        return made()
    except (pa.ArrowException, TypeError, ValueError):
        return array


class Case:
    """A stream, and what is known of it."""

    def __init__(self, raw):
        data = Bytes(raw)
        self.kinds = [kind_of(data) for _ in range(1 + data.byte() % 3)]
        self.names = [f"c{index}" for index in range(len(self.kinds))]
        self.required = [data.byte() % 4 == 0 for _ in self.kinds]
        mask = data.byte()
        self.projection = [index for index in range(len(self.kinds)) if not mask >> index & 1]
        self.columns = ", ".join(
            f"{name} {kind.sql}{' NOT NULL' if required else ''}"
            for name, kind, required in zip(self.names, self.kinds, self.required)
        )
        self.batch_rows = 1 + data.byte() % 5
        self.lingers = data.byte() % 2 == 0
        self.is_arrow = data.byte() % 4 == 0
        # The rows that must arrive, and whether there are more that may.
        self.rows, self.is_foreseen = [], True
        self.seen = [[] for _ in self.projection]
        shape = data.one(["generator"] * 4 + ["list", "list", "iterator", "odd"])
        if shape == "odd":
            self.is_foreseen = False
            self.given = odd(data)
        elif shape == "list":
            self.given = [self.row(data) for _ in range(data.byte() % 8)]
        else:
            items = [self.item(data) for _ in range(data.byte() % 8)]
            self.given = iter(items) if shape == "iterator" else (each for each in items)

    def read(self):
        Key.is_read = True
        return self.given

    def write(self, *columns):
        for seen, column in zip(self.seen, columns, strict=True):
            if self.is_arrow:
                column.validate(full=True)
            seen.extend(column)

    def check(self):
        """What arrived at the sink of the foreseen rows is what they were."""
        if not self.is_arrow:
            expected = [list(column) for column in zip(*self.rows)] or [[] for _ in self.names]
            found = [expected[position] for position in self.projection]
            assert self.seen == found, f"{self.columns}: {self.seen} is not {found}"

    def foreseen(self, row):
        if self.is_foreseen:
            self.rows.append(row)

    def doubt(self, value):
        self.is_foreseen = False
        return value

    def fitting(self, data):
        each = zip(self.kinds, self.required)
        return tuple(kind.fit(data) if required else kind.maybe(data) for kind, required in each)

    def row(self, data):
        """A row in a list of rows."""
        shape = data.byte() % 16
        if shape < 10:
            row = self.fitting(data)
            self.foreseen(row)
            # The only column's value may be a dict itself.
            return dict(zip(self.names, row)) if shape % 4 == 1 and len(row) > 1 else row
        row = list(self.fitting(data))
        if shape == 10:
            return self.doubt(tuple([*row, 1][: data.byte() % 5]))
        if shape == 11:
            return self.doubt(odd(data))
        row[data.byte() % len(row)] = odd(data)
        if shape == 12:
            return self.doubt(
                {data.one([name, name, "other", 1, Key(name)]): value for name, value in zip(self.names, row)}
            )
        return self.doubt(data.one([tuple, list])(row))

    def item(self, data):
        """What a generator yields."""
        shape = data.byte() % 12
        if shape < 6:
            return self.row(data)
        if shape < 8:
            return [self.row(data) for _ in range(data.byte() % 4)]
        if shape == 8:
            return data.one([None, [], ()])
        if shape == 9:
            # Whether it is rows or a row depends on the first column.
            self.is_foreseen = False
            return tuple(self.row(data) for _ in range(data.byte() % 4))
        return self.arrow(data, fits=shape == 10)

    def arrow(self, data, fits):
        """Arrow records, whole or sliced."""
        rows = [self.fitting(data) for _ in range(data.byte() % 5)]
        arrays = []
        for column, kind in enumerate(self.kinds):
            if fits and kind.arrow:
                arrays.append(pa.array([call(kind.peer, row[column]) for row in rows], kind.arrow, from_pandas=False))
            else:
                self.is_foreseen = False
                array = arrow_array(data, data.one([kind, kind_of(data, 2)]))
                indexes = [index if index < len(array) else None for index in range(len(rows))]
                arrays.append(array.take(pa.array(indexes, pa.int32())))
        names = self.names if fits else data.one([self.names, self.names[::-1], ["c0"] * len(arrays)])
        batch = pa.record_batch(arrays, names)
        start = data.byte() % (len(rows) + 1)
        rows, batch = rows[start:], batch[start:]
        for row in rows:
            self.foreseen(row)
        if data.byte() % 8 == 0:
            self.is_foreseen = False
            return pa.RecordBatchReader.from_batches(batch.schema, raising(batch))
        return data.one([
            lambda: batch,
            lambda: pa.Table.from_batches([batch]),
            lambda: batch.to_struct_array(),
            lambda: pa.RecordBatchReader.from_batches(batch.schema, [batch[:1], batch[1:]]),
        ])()  # fmt: skip


def case(raw):
    """The case that the bytes say; `None` where pyarrow cannot make its arrays."""
    Key.is_read = False
    try:
        return Case(raw)
    except pa.ArrowException:
        return None
