//! Columns: their names, and whether they may be null.

use couatl_sql::parse_columns;
use expect_test::{Expect, expect};

use crate::{column, failure, table};

fn check(texts: &[&str], expect: Expect) {
    let say = |text: &str| match parse_columns(text) {
        Ok(schema) => schema.fields().iter().map(|field| column(field)).collect::<Vec<_>>().join(", "),
        Err(error) => failure(&error),
    };
    expect.assert_eq(&table(texts, say));
}

#[test]
fn names() {
    check(
        &["a int64 not null, b array(string)", "Id int, \"Id\" int, `a b` int, \"x\"\"y\" int, é int, _1 int, a$b int"],
        expect![[r#"
            a int64 not null, b array(string)
                "a" int64 NOT NULL, "b" array(string)
            Id int, "Id" int, `a b` int, "x""y" int, é int, _1 int, a$b int
                "id" int32, "Id" int32, "a b" int32, "x\"y" int32, "é" int32, "_1" int32, "a$b" int32
        "#]],
    );
    // Words that a parser of CREATE TABLE takes for constraints, types or clauses.
    check(
        &[
            "key int, index int, primary int, unique int, check int, foreign int, constraint int",
            "order int, group int, select int, from int, null int, not int, int int, string string, array int[]",
            "as int, settings int, type int, timestamp timestamp with time zone, double double precision",
            "primary key, id int",
        ],
        expect![[r#"
            key int, index int, primary int, unique int, check int, foreign int, constraint int
                "key" int32, "index" int32, "primary" int32, "unique" int32, "check" int32, "foreign" int32, "constraint" int32
            order int, group int, select int, from int, null int, not int, int int, string string, array int[]
                "order" int32, "group" int32, "select" int32, "from" int32, "null" int32, "not" int32, "int" int32, "string" string, "array" array(int32)
            as int, settings int, type int, timestamp timestamp with time zone, double double precision
                "as" int32, "settings" int32, "type" int32, "timestamp" timestamptz, "double" float64
            primary key, id int
                invalid-definition: unknown type 'key' at line 1, column 9
        "#]],
    );
}

#[test]
fn nulls() {
    check(
        &[
            "a int null, b int not null, c nullable(int), d nullable(int) null, e array(nullable(int)) NOT NULL",
            "a nullable(int) not null",
            "a int not null null",
            "a int not",
        ],
        expect![[r#"
            a int null, b int not null, c nullable(int), d nullable(int) null, e array(nullable(int)) NOT NULL
                "a" int32, "b" int32 NOT NULL, "c" int32, "d" int32, "e" array(int32) NOT NULL
            a nullable(int) not null
                invalid-definition: column 'a' is both nullable(…) and NOT NULL at line 1, column 17
            a int not null null
                invalid-syntax: expected ',' or the end of the columns, found 'null' at line 1, column 16
            a int not
                invalid-syntax: expected ',' or the end of the columns, found 'not' at line 1, column 7
        "#]],
    );
}

#[test]
fn misfits() {
    check(
        &[
            "",
            "a",
            "a int,",
            "a int, b string, A int",
            "a int b int",
            "\"\" int",
            "1st int",
            "'a' int",
            "a int default 5",
            "a 'int'",
            "\n a int,\n \"b",
        ],
        expect![[r#"

                invalid-syntax: expected the name of a column, found the end of the text at line 1, column 1
            a
                invalid-syntax: expected a type, found the end of the text at line 1, column 2
            a int,
                invalid-syntax: expected the name of a column, found the end of the text at line 1, column 7
            a int, b string, A int
                invalid-definition: two columns are named 'a' at line 1, column 18
            a int b int
                invalid-syntax: expected ',' or the end of the columns, found 'b' at line 1, column 7
            "" int
                invalid-syntax: expected the name of a column, found '""' at line 1, column 1
            1st int
                invalid-syntax: expected the name of a column, found '1' at line 1, column 1
            'a' int
                invalid-syntax: expected the name of a column, found the string 'a' at line 1, column 1
            a int default 5
                invalid-syntax: expected ',' or the end of the columns, found 'default' at line 1, column 7
            a 'int'
                invalid-syntax: expected a type, found the string 'int' at line 1, column 3
            \n a int,\n "b
                invalid-syntax: the quoted name that opens at line 3, column 2 is not closed
        "#]],
    );
}
