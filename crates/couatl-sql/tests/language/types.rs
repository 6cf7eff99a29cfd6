//! Types: their spellings, the Arrow fields that they become, and what is refused.

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use couatl_core::{enum_codes, is_json, is_uuid, type_spelling};
use couatl_sql::parse_type;
use expect_test::{Expect, expect};

use crate::failure;

/// What each of some types, separated by semicolons, is.
fn check(texts: &str, expect: Expect) {
    let line = |text: &str| match parse_type(text) {
        Ok(field) => format!("{text} -> {} = {}\n", type_spelling(&field), field.data_type()),
        Err(error) => format!("{text} -> {}\n", failure(&error)),
    };
    expect.assert_eq(&texts.split("; ").map(line).collect::<String>());
}

#[test]
fn scalars() {
    check(
        "bool; Boolean; int8; TINYINT; int16; smallint; int32; int; integer; int64; bigint; uint8; uint16; \
         uint32; UInt64; float32; float; real; float64; double; double  precision; string; varchar; text; \
         char; binary; bytea; blob; date; time; interval; uuid; json",
        expect![[r#"
            bool -> bool = Boolean
            Boolean -> bool = Boolean
            int8 -> int8 = Int8
            TINYINT -> int8 = Int8
            int16 -> int16 = Int16
            smallint -> int16 = Int16
            int32 -> int32 = Int32
            int -> int32 = Int32
            integer -> int32 = Int32
            int64 -> int64 = Int64
            bigint -> int64 = Int64
            uint8 -> uint8 = UInt8
            uint16 -> uint16 = UInt16
            uint32 -> uint32 = UInt32
            UInt64 -> uint64 = UInt64
            float32 -> float32 = Float32
            float -> float32 = Float32
            real -> float32 = Float32
            float64 -> float64 = Float64
            double -> float64 = Float64
            double  precision -> float64 = Float64
            string -> string = Utf8
            varchar -> string = Utf8
            text -> string = Utf8
            char -> string = Utf8
            binary -> binary = Binary
            bytea -> binary = Binary
            blob -> binary = Binary
            date -> date = Date32
            time -> time = Time64(µs)
            interval -> interval = Interval(MonthDayNano)
            uuid -> uuid = FixedSizeBinary(16)
            json -> json = Utf8
        "#]],
    );
}

#[test]
fn decimals() {
    check(
        "decimal; numeric; decimal(10); decimal(10, 2); numeric(38,38); decimal(39, 0); decimal(76,1)",
        expect![[r#"
            decimal -> decimal(38, 10) = Decimal128(38, 10)
            numeric -> decimal(38, 10) = Decimal128(38, 10)
            decimal(10) -> decimal(10, 0) = Decimal128(10, 0)
            decimal(10, 2) -> decimal(10, 2) = Decimal128(10, 2)
            numeric(38,38) -> decimal(38, 38) = Decimal128(38, 38)
            decimal(39, 0) -> decimal(39, 0) = Decimal256(39, 0)
            decimal(76,1) -> decimal(76, 1) = Decimal256(76, 1)
        "#]],
    );
    check(
        "decimal(0); decimal(77); decimal(5, 6); decimal(5, -1); decimal(); decimal(5 2); decimal(5.0)",
        expect![[r#"
            decimal(0) -> invalid-definition: expected a number of digits from 1 to 76, found 0 at line 1, column 9
            decimal(77) -> invalid-definition: expected a number of digits from 1 to 76, found 77 at line 1, column 9
            decimal(5, 6) -> invalid-definition: expected a number of digits after the point from 0 to 5, found 6 at line 1, column 12
            decimal(5, -1) -> invalid-definition: expected a number of digits after the point from 0 to 5, found -1 at line 1, column 12
            decimal() -> invalid-syntax: expected a number of digits from 1 to 76, found ')' at line 1, column 9
            decimal(5 2) -> invalid-syntax: expected ')', found '2' at line 1, column 11
            decimal(5.0) -> invalid-syntax: expected a number of digits from 1 to 76, found '5.0' at line 1, column 9
        "#]],
    );
}

#[test]
fn timestamps() {
    check(
        "timestamp; datetime; timestamptz; timestamp with time zone; datetime without time zone; \
         timestamp(0); timestamp(1); timestamp(4) with time zone; datetime(9); timestamptz(3); datetime64; \
         DateTime64(0); datetime64(2); datetime64(6); datetime64(7); datetime64(3, 'UTC'); \
         datetime64(6, 'UTC'); datetime64(9, 'Europe/Paris'); datetime64(0, '+05:30')",
        expect![[r#"
            timestamp -> timestamp = Timestamp(µs)
            datetime -> timestamp = Timestamp(µs)
            timestamptz -> timestamptz = Timestamp(µs, "UTC")
            timestamp with time zone -> timestamptz = Timestamp(µs, "UTC")
            datetime without time zone -> timestamp = Timestamp(µs)
            timestamp(0) -> datetime64(0) = Timestamp(s)
            timestamp(1) -> datetime64(3) = Timestamp(ms)
            timestamp(4) with time zone -> timestamptz = Timestamp(µs, "UTC")
            datetime(9) -> datetime64(9) = Timestamp(ns)
            timestamptz(3) -> datetime64(3, 'UTC') = Timestamp(ms, "UTC")
            datetime64 -> datetime64(3) = Timestamp(ms)
            DateTime64(0) -> datetime64(0) = Timestamp(s)
            datetime64(2) -> datetime64(3) = Timestamp(ms)
            datetime64(6) -> timestamp = Timestamp(µs)
            datetime64(7) -> datetime64(9) = Timestamp(ns)
            datetime64(3, 'UTC') -> datetime64(3, 'UTC') = Timestamp(ms, "UTC")
            datetime64(6, 'UTC') -> timestamptz = Timestamp(µs, "UTC")
            datetime64(9, 'Europe/Paris') -> datetime64(9, 'Europe/Paris') = Timestamp(ns, "Europe/Paris")
            datetime64(0, '+05:30') -> datetime64(0, '+05:30') = Timestamp(s, "+05:30")
        "#]],
    );
    check(
        "datetime64(10); datetime64(-1); datetime64('UTC'); datetime64(3, 'Mars/Base'); datetime64(3, ''); \
         datetime64(3, UTC); timestamp(3, 'UTC'); timestamp with zone; timestamptz with time zone; \
         datetime64(99999999999999999999)",
        expect![[r#"
            datetime64(10) -> invalid-definition: expected a precision from 0 to 9, found 10 at line 1, column 12
            datetime64(-1) -> invalid-definition: expected a precision from 0 to 9, found -1 at line 1, column 12
            datetime64('UTC') -> invalid-syntax: expected a precision from 0 to 9, found the string 'UTC' at line 1, column 12
            datetime64(3, 'Mars/Base') -> invalid-definition: unknown time zone 'Mars/Base' at line 1, column 15; expected a name like 'Europe/Paris' or an offset like '+02:00'
            datetime64(3, '') -> invalid-definition: unknown time zone '' at line 1, column 15; expected a name like 'Europe/Paris' or an offset like '+02:00'
            datetime64(3, UTC) -> invalid-syntax: expected a time zone in quotes, found 'UTC' at line 1, column 15
            timestamp(3, 'UTC') -> invalid-syntax: expected ')', found ',' at line 1, column 12
            timestamp with zone -> invalid-syntax: expected the end of the type, found 'with' at line 1, column 11
            timestamptz with time zone -> invalid-syntax: expected the end of the type, found 'with' at line 1, column 13
            datetime64(99999999999999999999) -> invalid-syntax: expected a precision from 0 to 9, found '99999999999999999999' at line 1, column 12
        "#]],
    );
}

#[test]
fn nested() {
    check(
        "array(string); string[]; int[][]; Array<Array<int>>; array<map<string, array<int>[]>>; \
         map(string, uuid); Map(varchar, json[]); tuple(a int, \"B c\" string); tuple(int, string); \
         tuple(int); tuple(double precision, timestamp with time zone); tuple(double int, timestamp date); \
         struct(a tuple(b int)); struct<a int, b struct<c array<int>>>; nullable(array(int)); \
         array(nullable(int)); low_cardinality(string); LowCardinality(Nullable(String)); \
         array(low_cardinality(decimal(5, 2))); tuple(date date, map map(int, int))",
        expect![[r#"
            array(string) -> array(string) = List(Utf8)
            string[] -> array(string) = List(Utf8)
            int[][] -> array(array(int32)) = List(List(Int32))
            Array<Array<int>> -> array(array(int32)) = List(List(Int32))
            array<map<string, array<int>[]>> -> array(map(string, array(array(int32)))) = List(Map("entries": non-null Struct("key": non-null Utf8, "value": List(List(Int32))), unsorted))
            map(string, uuid) -> map(string, uuid) = Map("entries": non-null Struct("key": non-null Utf8, "value": FixedSizeBinary(16), metadata: {"ARROW:extension:name": "arrow.uuid"}), unsorted)
            Map(varchar, json[]) -> map(string, array(json)) = Map("entries": non-null Struct("key": non-null Utf8, "value": List(Utf8, metadata: {"ARROW:extension:metadata": "", "ARROW:extension:name": "arrow.json"})), unsorted)
            tuple(a int, "B c" string) -> tuple(a int32, "B c" string) = Struct("a": Int32, "B c": Utf8)
            tuple(int, string) -> tuple("1" int32, "2" string) = Struct("1": Int32, "2": Utf8)
            tuple(int) -> tuple("1" int32) = Struct("1": Int32)
            tuple(double precision, timestamp with time zone) -> tuple("1" float64, "2" timestamptz) = Struct("1": Float64, "2": Timestamp(µs, "UTC"))
            tuple(double int, timestamp date) -> tuple(double int32, timestamp date) = Struct("double": Int32, "timestamp": Date32)
            struct(a tuple(b int)) -> tuple(a tuple(b int32)) = Struct("a": Struct("b": Int32))
            struct<a int, b struct<c array<int>>> -> tuple(a int32, b tuple(c array(int32))) = Struct("a": Int32, "b": Struct("c": List(Int32)))
            nullable(array(int)) -> array(int32) = List(Int32)
            array(nullable(int)) -> array(int32) = List(Int32)
            low_cardinality(string) -> low_cardinality(string) = Dictionary(Int32, Utf8)
            LowCardinality(Nullable(String)) -> low_cardinality(string) = Dictionary(Int32, Utf8)
            array(low_cardinality(decimal(5, 2))) -> array(low_cardinality(decimal(5, 2))) = List(Dictionary(Int32, Decimal128(5, 2)))
            tuple(date date, map map(int, int)) -> tuple(date date, map map(int32, int32)) = Struct("date": Date32, "map": Map("entries": non-null Struct("key": non-null Int32, "value": Int32), unsorted))
        "#]],
    );
    check(
        "array; array(); array(int; array<int); array(int>; array<array<int>; int[3]; int[; map(string); \
         map(int, int, int); tuple(); tuple(a int, string); tuple(int, b string); tuple(a int, 5); tuple(a int, A string); \
         tuple(\"1\" int, \"1\" int); array(int not null); low_cardinality(uuid); low_cardinality(int[]); \
         low_cardinality(enum8('a')); low_cardinality(low_cardinality(int)); array(int)); int int",
        expect![[r#"
            array -> invalid-syntax: expected '(', found the end of the text at line 1, column 6
            array() -> invalid-syntax: expected a type, found ')' at line 1, column 7
            array(int -> invalid-syntax: expected ')', found the end of the text at line 1, column 10
            array<int) -> invalid-syntax: expected '>', found ')' at line 1, column 10
            array(int> -> invalid-syntax: expected ')', found '>' at line 1, column 10
            array<array<int> -> invalid-syntax: expected '>', found the end of the text at line 1, column 17
            int[3] -> invalid-syntax: expected ']', found '3' at line 1, column 5
            int[ -> invalid-syntax: expected ']', found the end of the text at line 1, column 5
            map(string) -> invalid-syntax: expected ',', found ')' at line 1, column 11
            map(int, int, int) -> invalid-syntax: expected ')', found ',' at line 1, column 13
            tuple() -> invalid-syntax: expected a type, found ')' at line 1, column 7
            tuple(a int, string) -> invalid-definition: expected names for all members of a tuple or for none, found both at line 1, column 14
            tuple(int, b string) -> invalid-definition: expected names for all members of a tuple or for none, found both at line 1, column 12
            tuple(a int, 5) -> invalid-syntax: expected the name of a member, found '5' at line 1, column 14
            tuple(a int, A string) -> invalid-definition: two members of a tuple are named 'a' at line 1, column 14
            tuple("1" int, "1" int) -> invalid-definition: two members of a tuple are named '1' at line 1, column 16
            array(int not null) -> invalid-syntax: expected ')', found 'not' at line 1, column 11
            low_cardinality(uuid) -> invalid-definition: type 'low_cardinality' takes a plain type at line 1, column 1: no uuid, json, enum or nested type
            low_cardinality(int[]) -> invalid-definition: type 'low_cardinality' takes a plain type at line 1, column 1: no uuid, json, enum or nested type
            low_cardinality(enum8('a')) -> invalid-definition: type 'low_cardinality' takes a plain type at line 1, column 1: no uuid, json, enum or nested type
            low_cardinality(low_cardinality(int)) -> invalid-definition: type 'low_cardinality' takes a plain type at line 1, column 1: no uuid, json, enum or nested type
            array(int)) -> invalid-syntax: expected the end of the type, found ')' at line 1, column 11
            int int -> invalid-syntax: expected the end of the type, found 'int' at line 1, column 5
        "#]],
    );
}

#[test]
fn enums() {
    check(
        "enum8('a' = 1, 'b' = 2); Enum16('a', 'b'); enum8('a' = -128, 'b', 'c' = 127); enum8(''); \
         enum16('it''s' = 5, 'new\nline', 'a=b', 'ü'); enum16('a' = 32767); array(enum8('x'))",
        expect![[r#"
            enum8('a' = 1, 'b' = 2) -> enum8('a' = 1, 'b' = 2) = Dictionary(Int8, Utf8)
            Enum16('a', 'b') -> enum16('a' = 1, 'b' = 2) = Dictionary(Int16, Utf8)
            enum8('a' = -128, 'b', 'c' = 127) -> enum8('a' = -128, 'b' = -127, 'c' = 127) = Dictionary(Int8, Utf8)
            enum8('') -> enum8('' = 1) = Dictionary(Int8, Utf8)
            enum16('it''s' = 5, 'new
            line', 'a=b', 'ü') -> enum16('it''s' = 5, 'new
            line' = 6, 'a=b' = 7, 'ü' = 8) = Dictionary(Int16, Utf8)
            enum16('a' = 32767) -> enum16('a' = 32767) = Dictionary(Int16, Utf8)
            array(enum8('x')) -> array(enum8('x' = 1)) = List(Dictionary(Int8, Utf8), metadata: {"couatl.enum": "1:1:x"})
        "#]],
    );
    check(
        "enum8; enum8(); enum8(a); enum8('a' = 1, 'a' = 2); enum8('a' = 1, 'b' = 1); \
         enum8('a' = 2, 'b' = 1, 'c'); enum8('a' = 128); enum8('a' = 127, 'b'); enum16('a' = 32768); \
         enum8('a' = x); enum('a')",
        expect![[r#"
            enum8 -> invalid-syntax: expected '(', found the end of the text at line 1, column 6
            enum8() -> invalid-syntax: expected a name in quotes, found ')' at line 1, column 7
            enum8(a) -> invalid-syntax: expected a name in quotes, found 'a' at line 1, column 7
            enum8('a' = 1, 'a' = 2) -> invalid-definition: an enum has the name 'a' twice at line 1, column 16
            enum8('a' = 1, 'b' = 1) -> invalid-definition: the names 'a' and 'b' of an enum have the same code 1 at line 1, column 16
            enum8('a' = 2, 'b' = 1, 'c') -> invalid-definition: the names 'a' and 'c' of an enum have the same code 2 at line 1, column 25
            enum8('a' = 128) -> invalid-definition: expected a code from -128 to 127, found 128 at line 1, column 13
            enum8('a' = 127, 'b') -> invalid-definition: 'b' would have the code 128 at line 1, column 18, and codes of an enum8 end at 127
            enum16('a' = 32768) -> invalid-definition: expected a code from -32768 to 32767, found 32768 at line 1, column 14
            enum8('a' = x) -> invalid-syntax: expected a code from -128 to 127, found 'x' at line 1, column 13
            enum('a') -> invalid-definition: unknown type 'enum' at line 1, column 1; did you mean 'enum8'?
        "#]],
    );
    let of = |count: usize| (0..count).map(|i| format!("'{i}' = {}", i as i64 - 128)).collect::<Vec<_>>().join(",");
    assert!(parse_type(&format!("enum8({})", of(128))).is_ok());
    let error = parse_type(&format!("enum8({})", of(129))).unwrap_err();
    assert_eq!(error.to_string(), "an enum8 has at most 128 names, found 129 at line 1, column 1");
}

#[test]
fn unknown() {
    check(
        "strng; Strng; integr; int4; float8; int128; datetime32; jsonb; key; \n  map(string,\n  vrchar); \
         varchar(10); char(1); string(5); int(11); uuid(4); 5; 'int'; ; (int); $$int$$",
        expect![[r#"
            strng -> invalid-definition: unknown type 'strng' at line 1, column 1; did you mean 'string'?
            Strng -> invalid-definition: unknown type 'Strng' at line 1, column 1; did you mean 'string'?
            integr -> invalid-definition: unknown type 'integr' at line 1, column 1; did you mean 'integer'?
            int4 -> invalid-definition: unknown type 'int4' at line 1, column 1; did you mean 'int32'?
            float8 -> invalid-definition: unknown type 'float8' at line 1, column 1; did you mean 'float64'?
            int128 -> invalid-definition: unknown type 'int128' at line 1, column 1; did you mean 'int8'?
            datetime32 -> invalid-definition: unknown type 'datetime32' at line 1, column 1; did you mean 'datetime'?
            jsonb -> invalid-definition: unknown type 'jsonb' at line 1, column 1; did you mean 'json'?
            key -> invalid-definition: unknown type 'key' at line 1, column 1

              map(string,
              vrchar) -> invalid-definition: unknown type 'vrchar' at line 3, column 3; did you mean 'varchar'?
            varchar(10) -> invalid-definition: type 'varchar' takes no length at line 1, column 8: it holds strings of any length
            char(1) -> invalid-definition: type 'char' takes no length at line 1, column 5: it holds strings of any length
            string(5) -> invalid-definition: type 'string' takes no length at line 1, column 7: it holds strings of any length
            int(11) -> invalid-definition: type 'int' takes no parameters at line 1, column 4
            uuid(4) -> invalid-definition: type 'uuid' takes no parameters at line 1, column 5
            5 -> invalid-syntax: expected a type, found '5' at line 1, column 1
            'int' -> invalid-syntax: expected a type, found the string 'int' at line 1, column 1
             -> invalid-syntax: expected a type, found the end of the text at line 1, column 1
            (int) -> invalid-syntax: expected a type, found '(' at line 1, column 1
            $$int$$ -> invalid-syntax: expected a type, found a text in dollar quotes at line 1, column 1
        "#]],
    );
}

#[test]
fn fields_are_arrows() {
    let item = Field::new("item", DataType::Int32, true);
    assert_eq!(parse_type("int[]").unwrap(), Field::new("", DataType::List(item.into()), true));

    let members = vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Date32, true)];
    let entries = Field::new("entries", DataType::Struct(Fields::from(members)), false);
    assert_eq!(parse_type("map(string, date)").unwrap().data_type(), &DataType::Map(entries.into(), false));

    let members = vec![Field::new("1", DataType::Utf8, true), Field::new("2", DataType::Boolean, true)];
    assert_eq!(parse_type("tuple(string, bool)").unwrap().data_type(), &DataType::Struct(Fields::from(members)));

    let zoned = DataType::Timestamp(TimeUnit::Nanosecond, Some("Asia/Tokyo".into()));
    assert_eq!(parse_type("datetime64(8, 'Asia/Tokyo')").unwrap().data_type(), &zoned);
}

#[test]
fn extensions_are_on_the_field_that_has_them() {
    let uuid = parse_type("uuid").unwrap();
    assert!(is_uuid(&uuid) && *uuid.data_type() == DataType::FixedSizeBinary(16));
    let json = parse_type("json").unwrap();
    assert!(is_json(&json));
    assert_eq!(json.metadata().get("ARROW:extension:metadata").map(String::as_str), Some(""));

    let array = parse_type("nullable(uuid)[]").unwrap();
    let DataType::List(item) = array.data_type() else { unreachable!() };
    assert!(array.metadata().is_empty() && is_uuid(item));

    let codes = enum_codes(&parse_type("enum8('a\\n', 'b:1' = -3, '')").unwrap()).unwrap();
    assert_eq!(codes, [("a\\n".to_owned(), 1), ("b:1".to_owned(), -3), (String::new(), -2)]);
}

#[test]
fn depth_is_bounded() {
    let arrays = |levels: usize| format!("{}int{}", "array(".repeat(levels), ")".repeat(levels));
    assert!(parse_type(&arrays(63)).is_ok());
    for text in [arrays(64), arrays(10_000), format!("int{}", "[]".repeat(10_000)), "nullable(".repeat(10_000)] {
        let error = parse_type(&text).unwrap_err().to_string();
        assert!(error.starts_with("expected types nested at most 64 deep, found more at line 1, column "), "{error}");
    }
    // Each level adds brackets behind it, which do not descend.
    let mixed = format!("{}int{}", "array(".repeat(40), "[])".repeat(40));
    assert!(parse_type(&mixed).unwrap_err().to_string().starts_with("expected types nested"));
}
