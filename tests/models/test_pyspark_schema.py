"""PySpark's schemas: DDL text without a JVM to parse it, the library's structs, and our columns, both ways."""

import pytest
from couatl.compat import pyspark as compat
from couatl.compat._pyspark_datatypes import data_type
from couatl.compat._pyspark_types import columns_text, struct_json_of, struct_of
from couatl.compat.pyspark import as_source
from couatl.testing import Columns
from pyspark_shapes import datasource, types


def schema_of(found):
    """What the columns of a data source are to us."""

    class Source(datasource.DataSource):
        def schema(self):
            return found

        def reader(self, schema):
            raise AssertionError

    return as_source(Source, {}, None).schema()


@pytest.mark.parametrize(
    ("ddl", "columns"),
    [
        ("a INT, b STRING", "a int32, b string"),
        ("a: bigint not null, `b c` double comment 'it''s'", 'a int64 not null, "b c" float64'),
        ("Id LONG, t TIMESTAMP, n TIMESTAMP_NTZ", '"Id" int64, t timestamptz, n timestamp'),
        ("a ARRAY<STRUCT<x: INT, y: MAP<STRING, DECIMAL(10,2)>>>", None),
        ("d DECIMAL, e DECIMAL(5), f NUMERIC(38, 18)", "d decimal(10, 0), e decimal(5, 0), f decimal(38, 18)"),
        ("a TINYINT, b SMALLINT, c FLOAT, d BOOLEAN, e BINARY, f DATE", None),
        ("a VARCHAR(10), b CHAR(3), c STRING COLLATE UTF8_LCASE", "a string, b string, c string"),
        ("i INTERVAL DAY TO SECOND, x BYTE, y SHORT, z REAL", "i interval, x int8, y int16, z float32"),
        ("struct<a: int, b: array<string>>", "a int32, b array(string)"),
    ],
)
def test_ddl(ddl, columns):
    expected = {
        "a ARRAY<STRUCT<x: INT, y: MAP<STRING, DECIMAL(10,2)>>>": (
            "a array(tuple(x int32, y map(string, decimal(10, 2))))"
        ),
        "a TINYINT, b SMALLINT, c FLOAT, d BOOLEAN, e BINARY, f DATE": (
            "a int8, b int16, c float32, d bool, e binary, f date"
        ),
    }
    assert schema_of(ddl) == (columns or expected[ddl])


def test_structs_and_back():
    struct = (
        types.StructType()
        .add("a", types.LongType(), False)
        .add("b", types.ArrayType(types.StructType().add("x", types.TimestampNTZType())))
        .add("c", types.MapType(types.StringType(), types.DecimalType(10, 2)))
        .add("d", types.DayTimeIntervalType())
        .add("e", types.TimeType())
    )
    text = "a int64 not null, b array(tuple(x timestamp)), c map(string, decimal(10, 2)), d interval, e time"
    assert columns_text(struct_json_of(struct)) == text
    spellings = ["int64", "array(tuple(x timestamp))", "map(string, decimal(10, 2))", "interval", "time"]
    made = struct_of(Columns(struct.names, spellings))
    assert [field.dataType for field in made] == [field.dataType for field in struct]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("timestamp", types.TimestampNTZType()),
        ("datetime64", types.TimestampNTZType()),
        ("datetime64(3, 'Europe/Berlin')", types.TimestampType()),
        ("timestamp with time zone", types.TimestampType()),
        ("double precision", types.DoubleType()),
        ("uint8", types.ShortType()),
        ("uint64", types.DecimalType(20, 0)),
        ("nullable(low_cardinality(string))", types.StringType()),
        ("enum8('a' = 1, 'b''c' = -2)", types.StringType()),
        ("string[][]", types.ArrayType(types.ArrayType(types.StringType()))),
        ("tuple(int32, string)", types.StructType().add("1", types.IntegerType()).add("2", types.StringType())),
        ('tuple("a b" int32)', types.StructType().add("a b", types.IntegerType())),
        ("decimal", types.DecimalType(38, 10)),
        ("Array(Map(String, UUID))", types.ArrayType(types.MapType(types.StringType(), types.StringType()))),
    ],
)
def test_our_spellings(ours, theirs):
    assert struct_of(Columns(["x"], [ours]))["x"].dataType == theirs


NEEDING = {"DataType", "ArrayType", "MapType", "CharType", "VarcharType"}
MADE = [
    *[f"{name}()" for name in compat.__all__ if name.endswith("Type") and name not in NEEDING],
    *["CharType(2)", "VarcharType(3)", "DecimalType(5, 2)", "TimeType(3)"],
    *["DayTimeIntervalType(0)", "DayTimeIntervalType(1, 2)"],
    "ArrayType(ArrayType(IntegerType()), False)",
    "MapType(StringType(), StructType([StructField('a', LongType())]), False)",
    "StructType()",
    "StructType([StructField('a', ShortType(), False, {'unit': 'm'}), StructField('b', DateType())])",
    "StructType().add('a', 'string', False, {'x': 1}).add(StructField('b c', BinaryType()))",
    "StructType().add('a', FloatType()).add('b', ByteType())[1:]",
    "StructType().add('a', DecimalType(9, 2))['a']",
]


@pytest.mark.parametrize("made", MADE)
def test_our_data_types_say_what_the_librarys_say(made):
    theirs, ours = eval(made, vars(types)), eval(made, vars(compat))
    asked = ["__repr__", "simpleString", "jsonValue", "json"] + ["typeName"] * ("']" not in made)
    assert [getattr(ours, name)() for name in asked] == [getattr(theirs, name)() for name in asked]
    again = type(ours).fromJson(ours.jsonValue()) if hasattr(ours, "fromJson") else data_type(ours.jsonValue())
    assert (repr(again), again, hash(again)) == (repr(theirs), ours, hash(ours))
    assert [each for each in MADE if eval(each, vars(compat)) == ours] == [
        each for each in MADE if eval(each, vars(types)) == theirs
    ]


@pytest.mark.parametrize("library", [types, compat])
def test_a_schema_of_data_types_is_looked_at(library):
    struct = library.StructType([library.StructField("a", library.IntegerType(), False)])
    struct = struct.add("b", library.ArrayType(library.StructType().add("c", library.TimestampType())))
    assert schema_of(struct) == "a int32 not null, b array(tuple(c timestamptz))"
    assert (struct.names, [field.name for field in struct], len(struct)) == (["a", "b"], ["a", "b"], 2)
    assert isinstance(struct["b"].dataType.elementType, library.StructType)
    with pytest.raises(KeyError):
        struct["c"]


def test_our_data_types_of_ddl():
    assert repr(compat.DataType.fromDDL("decimal(10,2)")) == "DecimalType(10,2)"
    assert compat.StructType.fromDDL("a INT, b ARRAY<STRING> NOT NULL") == compat.StructType(
        [
            compat.StructField("a", compat.IntegerType()),
            compat.StructField("b", compat.ArrayType(compat.StringType()), False),
        ]
    )


def test_our_data_types_that_are_none():
    with pytest.raises(TypeError, match=r"^column 'a': expected an instance of a data type, such as IntegerType\(\), "):
        compat.StructField("a", compat.StringType)
    with pytest.raises(TypeError, match=r"^StructType: expected a list of StructField, got 'a' \(str\) in it$"):
        compat.StructType(["a"])
    with pytest.raises(ValueError, match=r"^StructType.add\(\): expected the type of 'a'$"):
        compat.StructType().add("a")
    with pytest.raises(ValueError, match=r"^there is no data type for Spark's variant$"):
        data_type("variant")


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ("", "expected a type, got '' in ''"),
        ("a VARIANT", "there is no type 'variant' that Spark and Couatl both have"),
        ("a", "expected a type, got '' in 'a'"),
        ("a INT b STRING", "expected ',' or the end, got 'b' in 'a INT b STRING'"),
        ("a ARRAY<INT", r"expected '\)' or '>', got the end in 'a ARRAY<INT'"),
        (types.StructType().add("v", types.VariantType()), "there is no column type for Spark's variant"),
    ],
)
def test_schemas_that_cannot_be(schema, expected):
    told = r"^Source.schema\(\) returned .* \(str|StructType\); expected a StructType or its DDL text: "
    with pytest.raises(TypeError, match=f"{told}{expected}$"):
        schema_of(schema)
