//! What is refused, and in which words. Settings, columns and types have theirs beside them.

use couatl_core::ErrorKind;
use couatl_sql::parse;
use expect_test::expect;

use crate::check;

#[test]
fn create() {
    check(
        &[
            "CREATE EXTERNAL",
            "CREATE EXTERNAL STREM s (a int)",
            "CREATE EXTERNAL VIEW v",
            "CREATE EXTERNAL STREAM",
            "CREATE EXTERNAL STREAM 's' (a int)",
            "CREATE EXTERNAL STREAM a.b.c.d (a int)",
            "CREATE EXTERNAL STREAM a. (a int)",
            "CREATE EXTERNAL STREAM IF EXISTS s (a int)",
            "CREATE OR REPLACE EXTERNAL STREAM IF NOT EXISTS s (a int)",
            "CREATE EXTERNAL STREAM s",
            "CREATE EXTERNAL STREAM s AS $$ $$ SETTINGS type = 'python'",
            "CREATE EXTERNAL STREAM s () AS $$ $$ SETTINGS type = 'python'",
            "CREATE EXTERNAL STREAM s (a int",
            "CREATE EXTERNAL STREAM s (a int b int) AS $$ $$",
            "CREATE EXTERNAL STREAM s (a int) $$ $$",
            "CREATE EXTERNAL STREAM s (a int) AS 'x'",
            "CREATE EXTERNAL STREAM s (a int) AS SELECT 1",
            "CREATE EXTERNAL STREAM s (a int)\nSETTINGS type = 'python'\nAS $$ $$",
            "CREATE EXTERNAL STREAM s (a int) AS $$ $$ LANGUAGE python",
            "CREATE EXTERNAL STREAM s (a int, b int, A int) AS $$ $$ SETTINGS type = 'python'",
            "CREATE EXTERNAL STREAM s (\n  a int,\n  b strng\n) AS $$ $$",
            "CREATE STREAM s (a int)",
            "CREATE OR REPLACE STREAM s (a int)",
        ],
        expect![[r#"
            CREATE EXTERNAL
                invalid-syntax: expected STREAM or TABLE after EXTERNAL, found the end of the text at line 1, column 16
            CREATE EXTERNAL STREM s (a int)
                invalid-syntax: expected STREAM or TABLE after EXTERNAL, found 'STREM' at line 1, column 17
            CREATE EXTERNAL VIEW v
                invalid-syntax: expected STREAM or TABLE after EXTERNAL, found 'VIEW' at line 1, column 17
            CREATE EXTERNAL STREAM
                invalid-syntax: expected the name of a stream, found the end of the text at line 1, column 23
            CREATE EXTERNAL STREAM 's' (a int)
                invalid-syntax: expected the name of a stream, found the string 's' at line 1, column 24
            CREATE EXTERNAL STREAM a.b.c.d (a int)
                invalid-syntax: expected a name of at most three parts (catalog.schema.name), found 4 at line 1, column 24
            CREATE EXTERNAL STREAM a. (a int)
                invalid-syntax: expected the next part of the name, found '(' at line 1, column 27
            CREATE EXTERNAL STREAM IF EXISTS s (a int)
                invalid-syntax: expected '(' and the columns of the stream, found 'EXISTS' at line 1, column 27
            CREATE OR REPLACE EXTERNAL STREAM IF NOT EXISTS s (a int)
                invalid-syntax: expected OR REPLACE or IF NOT EXISTS, found both at line 1, column 35: one replaces a stream, one keeps it
            CREATE EXTERNAL STREAM s
                invalid-syntax: expected '(' and the columns of the stream, found the end of the text at line 1, column 25
            CREATE EXTERNAL STREAM s AS $$ $$ SETTINGS type = 'python'
                invalid-syntax: expected '(' and the columns of the stream, found 'AS' at line 1, column 26
            CREATE EXTERNAL STREAM s () AS $$ $$ SETTINGS type = 'python'
                invalid-definition: stream 's' has no columns at line 1, column 26: expected at least one, as in (id int64)
            CREATE EXTERNAL STREAM s (a int
                invalid-syntax: expected ',' or ')' after a column, found the end of the text at line 1, column 32
            CREATE EXTERNAL STREAM s (a int b int) AS $$ $$
                invalid-syntax: expected ',' or ')' after a column, found 'b' at line 1, column 33
            CREATE EXTERNAL STREAM s (a int) $$ $$
                invalid-syntax: expected AS, found a text in dollar quotes at line 1, column 34
            CREATE EXTERNAL STREAM s (a int) AS 'x'
                invalid-syntax: expected the body between $$ and $$, found the string 'x' at line 1, column 37
            CREATE EXTERNAL STREAM s (a int) AS SELECT 1
                invalid-syntax: expected the body between $$ and $$, found 'SELECT' at line 1, column 37
            CREATE EXTERNAL STREAM s (a int)\nSETTINGS type = 'python'\nAS $$ $$
                invalid-syntax: expected AS, found 'SETTINGS' at line 2, column 1
            CREATE EXTERNAL STREAM s (a int) AS $$ $$ LANGUAGE python
                invalid-syntax: expected SETTINGS, found 'LANGUAGE' at line 1, column 43
            CREATE EXTERNAL STREAM s (a int, b int, A int) AS $$ $$ SETTINGS type = 'python'
                invalid-definition: two columns are named 'a' at line 1, column 41
            CREATE EXTERNAL STREAM s (\n  a int,\n  b strng\n) AS $$ $$
                invalid-definition: unknown type 'strng' at line 3, column 5; did you mean 'string'?
            CREATE STREAM s (a int)
                invalid-syntax: found CREATE STREAM at line 1, column 1; expected CREATE EXTERNAL STREAM name (column type, …) AS $$ … $$ SETTINGS type = 'python'
            CREATE OR REPLACE STREAM s (a int)
                invalid-syntax: found CREATE STREAM at line 1, column 1; expected CREATE EXTERNAL STREAM name (column type, …) AS $$ … $$ SETTINGS type = 'python'
        "#]],
    );
}

#[test]
fn others() {
    check(
        &[
            "DROP STREAM",
            "DROP STREAM s CASCADE",
            "DROP STREAM a, b",
            "DROP EXTERNAL STREAM s",
            "SHOW STREAMS LIKE 'a'",
            "SHOW CREATE STREAM",
            "SHOW QUERIES s",
            "KILL 'x'",
            "KILL QUERY 17",
            "KILL QUERY WHERE query_id = 'x'",
            "KILL QUERY 'x' SYNC",
        ],
        expect![[r#"
            DROP STREAM
                invalid-syntax: expected the name of a stream, found the end of the text at line 1, column 12
            DROP STREAM s CASCADE
                invalid-syntax: expected the end of the statement, found 'CASCADE' at line 1, column 15
            DROP STREAM a, b
                invalid-syntax: expected the end of the statement, found ',' at line 1, column 14
            DROP EXTERNAL STREAM s
                invalid-syntax: found DROP EXTERNAL STREAM at line 1, column 1; expected DROP STREAM [IF EXISTS] name
            SHOW STREAMS LIKE 'a'
                invalid-syntax: expected the end of the statement, found 'LIKE' at line 1, column 14
            SHOW CREATE STREAM
                invalid-syntax: expected the name of a stream, found the end of the text at line 1, column 19
            SHOW QUERIES s
                invalid-syntax: expected the end of the statement, found 's' at line 1, column 14
            KILL 'x'
                invalid-syntax: expected QUERY, found the string 'x' at line 1, column 6
            KILL QUERY 17
                invalid-syntax: expected the id of a query in quotes, as SHOW QUERIES lists it, found '17' at line 1, column 12
            KILL QUERY WHERE query_id = 'x'
                invalid-syntax: expected the id of a query in quotes, as SHOW QUERIES lists it, found 'WHERE' at line 1, column 12
            KILL QUERY 'x' SYNC
                invalid-syntax: expected the end of the statement, found 'SYNC' at line 1, column 16
        "#]],
    );
}

#[test]
fn unclosed() {
    check(
        &[
            "SELECT 'a",
            "SELECT 1;\n\nSELECT\n 'it''s;\n\n",
            "SELECT \"a",
            "SELECT 1 /* a\n\n",
            "CREATE EXTERNAL STREAM s (a int)\nAS $$\nx = 1\n",
            "-- about\n\nCREATE EXTERNAL STREAM s (a int)\nAS $body$\nx = 1\n$$ SETTINGS",
            "$$",
            "SELECT e'\\",
            "SELECT U&'\\00zz'",
        ],
        expect![[r#"
            SELECT 'a
                invalid-syntax: the string that opens at line 1, column 8 is not closed
            SELECT 1;\n\nSELECT\n 'it''s;\n\n
                invalid-syntax: statement 2: the string that opens at line 2, column 2 is not closed
            SELECT "a
                invalid-syntax: the quoted name that opens at line 1, column 8 is not closed
            SELECT 1 /* a\n\n
                invalid-syntax: the comment that opens at line 1, column 10 is not closed
            CREATE EXTERNAL STREAM s (a int)\nAS $$\nx = 1\n
                invalid-syntax: the text in $$ quotes that opens at line 2, column 4 is not closed
            -- about\n\nCREATE EXTERNAL STREAM s (a int)\nAS $body$\nx = 1\n$$ SETTINGS
                invalid-syntax: the text in $body$ quotes that opens at line 2, column 4 is not closed
            $$
                invalid-syntax: the text in $$ quotes that opens at line 1, column 1 is not closed
            SELECT e'\
                invalid-syntax: the string that opens at line 1, column 8 is not closed, or has an escape that is none
            SELECT U&'\00zz'
                invalid-syntax: invalid hex digit in escaped unicode string: z at line 1, column 8
        "#]],
    );
}

#[test]
fn places_are_in_the_context() {
    let error = parse("SELECT 1;\n\n  SHOW\n STREAMS é").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidSyntax);
    assert_eq!(error.context().collect::<Vec<_>>(), [("line", "2"), ("column", "10")]);
}

#[test]
fn long_tokens_are_shortened() {
    let error = parse(&format!("SHOW STREAMS {}", "x".repeat(100_000))).unwrap_err().to_string();
    assert!(error.len() < 150, "{error}");
    let error = parse(&format!("SHOW STREAMS '{}'", "'' é".repeat(100_000))).unwrap_err().to_string();
    assert!(error.len() < 250, "{error}");
}

#[test]
fn the_statement_that_is_wrong_is_numbered() {
    check(
        &[
            "SELECT 1;\n\n\nCREATE EXTERNAL STREAM x (\n a intt) AS $$ $$ SETTINGS type = 'python'",
            ";; CREATE EXTERNAL STREAM x (a intt) AS $$ $$; SELECT 1",
            "SHOW STREAMS NOW;",
            ";; 'open",
            "SELECT 1; ; SELECT 2; 'open",
        ],
        expect![[r#"
            SELECT 1;\n\n\nCREATE EXTERNAL STREAM x (\n a intt) AS $$ $$ SETTINGS type = 'python'
                invalid-definition: statement 2 of 2: unknown type 'intt' at line 2, column 4; did you mean 'int8'?
            ;; CREATE EXTERNAL STREAM x (a intt) AS $$ $$; SELECT 1
                invalid-definition: statement 1 of 2: unknown type 'intt' at line 1, column 29; did you mean 'int8'?
            SHOW STREAMS NOW;
                invalid-syntax: expected the end of the statement, found 'NOW' at line 1, column 14
            ;; 'open
                invalid-syntax: the string that opens at line 1, column 1 is not closed
            SELECT 1; ; SELECT 2; 'open
                invalid-syntax: statement 3: the string that opens at line 1, column 1 is not closed
        "#]],
    );
}
