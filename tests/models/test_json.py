"""Rows as objects, and objects as JSON, for sinks that store such."""

import json
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal

import pytest
from couatl.sinks import Columns, Sink, objects, to_json
from couatl.testing import write


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("struct(x int32, y struct(z string))", (1, ("a",)), {"x": 1, "y": {"z": "a"}}),
        ("tuple(int32, string)", (1, "a"), {"1": 1, "2": "a"}),
        ("array(struct(x int32))", [(1,), None, (2,)], [{"x": 1}, None, {"x": 2}]),
        ("map(string, struct(x int32))", {"a": (1,), "b": None}, {"a": {"x": 1}, "b": None}),
        ("nullable(struct(x int32))", None, None),
        ("struct(`a b` int32)", (None,), {"a b": None}),
        ("decimal(10, 2)", Decimal("1.10"), Decimal("1.10")),
        ("array(int32)", [1, 2], [1, 2]),
    ],
)
def test_structs_are_dicts(kind, value, expected):
    assert list(objects(Columns(["n", "v"], ["int32", kind]), [[1], [value]])) == [{"n": 1, "v": expected}]


def test_the_values_that_a_sink_is_given():
    class Stored(Sink):
        def open(self, columns):
            self.columns = columns

        def write(self, *columns):
            stored.extend(map(to_json, objects(self.columns, columns)))

    stored = []
    columns = {"at": "struct(x int32, y float64)", "all": "array(struct(d date))", "m": "map(string, float64)"}
    given = ((1, float("nan")), [(date(2025, 1, 2),)], {"a": float("-inf")})
    write(Stored, [given, (None, None, None)], columns=columns)
    assert list(map(json.loads, stored)) == [
        {"at": {"x": 1, "y": None}, "all": [{"d": "2025-01-02"}], "m": {"a": None}},
        {"at": None, "all": None, "m": None},
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("inf"), None),
        ([float("nan"), 1.5, {"a": (float("nan"),)}], [None, 1.5, {"a": [None]}]),
        (b"\x00\xff", "AP8="),
        ([b"sun", float("nan")], ["c3Vu", None]),
        (datetime(2025, 1, 2, 3, 4, tzinfo=timezone.utc), "2025-01-02T03:04:00+00:00"),
        (time(1, 2), "01:02:00"),
        (timedelta(seconds=5), "0:00:05"),
        (Decimal("1.10"), "1.10"),
        ("naïve\n", "naïve\n"),
    ],
)
def test_json_knows_every_value(value, expected):
    assert json.loads(to_json(value), parse_constant=pytest.fail) == expected
