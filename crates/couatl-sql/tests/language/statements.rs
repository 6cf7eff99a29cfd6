//! Which statements are ours, where one ends and the next begins, and what passes through to DataFusion.

use couatl_sql::{StatementKind, parse};
use expect_test::expect;
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::Parser;

use crate::check;

const TIMEPLUS: &str = include_str!("timeplus.sql");

fn texts(text: &str) -> Vec<String> {
    parse(text).unwrap().into_iter().map(|statement| statement.text).collect()
}

#[test]
fn ours() {
    check(
        &[
            "create external stream s (a int) as $$x$$ settings type='python'",
            "Create Or Replace External Stream s (a int) As $t$x$t$ Settings Type=python",
            "CREATE EXTERNAL STREAM IF NOT EXISTS c.s.\"T t\" (a int) AS $$x$$ SETTINGS type='python'",
            "CREATE EXTERNAL STREAM if (a int) AS $$$$ SETTINGS type='python'",
            "DROP STREAM Users; drop stream if exists a.b; drop stream if",
            "SHOW STREAMS; show create stream \"A\"; SHOW QUERIES",
            "DESCRIBE s; desc a.b.c; DESC /* all of */ `S`",
            "KILL QUERY 'it''s'",
        ],
        expect![[r#"
            create external stream s (a int) as $$x$$ settings type='python'
                create s ("a" int32), body "x" from line 1
            Create Or Replace External Stream s (a int) As $t$x$t$ Settings Type=python
                create or replace s ("a" int32), body "x" from line 1
            CREATE EXTERNAL STREAM IF NOT EXISTS c.s."T t" (a int) AS $$x$$ SETTINGS type='python'
                create if not exists c.s."T t" ("a" int32), body "x" from line 1
            CREATE EXTERNAL STREAM if (a int) AS $$$$ SETTINGS type='python'
                create if ("a" int32), body "" from line 1
            DROP STREAM Users; drop stream if exists a.b; drop stream if
                DropStream { name: StreamName { qualifiers: [], name: "users" }, if_exists: false }
                DropStream { name: StreamName { qualifiers: ["a"], name: "b" }, if_exists: true }
                DropStream { name: StreamName { qualifiers: [], name: "if" }, if_exists: false }
            SHOW STREAMS; show create stream "A"; SHOW QUERIES
                ShowStreams
                ShowCreateStream(StreamName { qualifiers: [], name: "A" })
                ShowQueries
            DESCRIBE s; desc a.b.c; DESC /* all of */ `S`
                describe s (3 tokens)
                describe a.b.c (7 tokens)
                describe "S" (5 tokens)
            KILL QUERY 'it''s'
                KillQuery { query_id: "it's" }
        "#]],
    );
}

#[test]
fn datafusions() {
    check(
        &[
            "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 's3://b/*.parquet'",
            "CREATE OR REPLACE EXTERNAL TABLE t STORED AS CSV LOCATION 'x'",
            "CREATE VIEW stream AS SELECT 1; DROP VIEW stream; SHOW TABLES; SHOW ALL; SHOW CREATE TABLE t",
            "DESCRIBE SELECT 1; DESCRIBE TABLE t; DESC 'x'; DESCRIBE a.b.c.d; EXPLAIN SHOW STREAMS",
            "\"show\" streams; \"CREATE\" external stream",
            "SELECT $$a;b$$, 'c;d', \"e;f\" -- g;h\n, 1",
        ],
        expect![[r#"
            CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 's3://b/*.parquet'
                other CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 's3://b/*.parquet'
            CREATE OR REPLACE EXTERNAL TABLE t STORED AS CSV LOCATION 'x'
                other CREATE OR REPLACE EXTERNAL TABLE t STORED AS CSV LOCATION 'x'
            CREATE VIEW stream AS SELECT 1; DROP VIEW stream; SHOW TABLES; SHOW ALL; SHOW CREATE TABLE t
                other CREATE VIEW stream AS SELECT 1
                other DROP VIEW stream
                other SHOW TABLES
                other SHOW ALL
                other SHOW CREATE TABLE t
            DESCRIBE SELECT 1; DESCRIBE TABLE t; DESC 'x'; DESCRIBE a.b.c.d; EXPLAIN SHOW STREAMS
                other DESCRIBE SELECT 1
                other DESCRIBE TABLE t
                other DESC 'x'
                other DESCRIBE a.b.c.d
                other EXPLAIN SHOW STREAMS
            "show" streams; "CREATE" external stream
                other "show" streams
                other "CREATE" external stream
            SELECT $$a;b$$, 'c;d', "e;f" -- g;h\n, 1
                other SELECT $$a;b$$, 'c;d', "e;f" -- g;h
                , 1
        "#]],
    );
}

#[test]
fn cutting() {
    assert_eq!(texts(""), [""; 0]);
    assert_eq!(texts(" ;; -- nothing\n; /* ; */ "), [""; 0]);
    assert_eq!(texts("SELECT 1"), ["SELECT 1"]);
    assert_eq!(
        texts("-- first\nSELECT 1 /* in */ + 2 -- after\n ; SHOW STREAMS;"),
        ["SELECT 1 /* in */ + 2", "SHOW STREAMS"]
    );
    assert_eq!(texts("é; 'ü;\r\n' ;\r\nSELECT  \t'😀' ;x"), ["é", "'ü;\r\n'", "SELECT  \t'😀'", "x"]);
    assert_eq!(texts("a /* /* ; */ ; */ b; c"), ["a /* /* ; */ ; */ b", "c"]);
    assert_eq!(texts("a /*! ; */ b; c"), ["a /*! ; */ b", "c"]);
}

#[test]
fn many_statements_on_one_line_take_linear_time() {
    let text = "SELECT 1;".repeat(100_000);
    assert_eq!(parse(&text).unwrap().len(), 100_000);
}

#[test]
fn places_count_from_the_statement() {
    let statements = parse("SELECT 1;\n\n  SELECT\n  2").unwrap();
    let StatementKind::Other(tokens) = &statements[1].kind else { unreachable!() };
    let places: Vec<_> = tokens.iter().map(|token| (token.span.start.line, token.span.start.column)).collect();
    assert_eq!(places.first(), Some(&(1, 1)));
    assert_eq!(places.last(), Some(&(2, 3)));
}

#[test]
fn tokens_say_what_the_text_says() {
    let dialect = GenericDialect {};
    for text in [
        "SELECT 1",
        "SELECT a, 'b;' -- c\n FROM \"t\" WHERE x::json->>'k' = e'\\n' AND y @> [1, 2.5e3]",
        "INSERT INTO t VALUES (1, 'it''s', x'ff'), (2, $$it's$$, NULL)",
        "CREATE VIEW v AS (WITH c AS (SELECT $1) SELECT * FROM c)",
    ] {
        let mut statements = parse(&format!("SELECT 0;\n {text} ; SELECT 2")).unwrap();
        let StatementKind::Other(tokens) = statements.remove(1).kind else { unreachable!() };
        let parsed = Parser::new(&dialect).with_tokens_with_locations(tokens).parse_statements().unwrap();
        assert_eq!(parsed, Parser::parse_sql(&dialect, text).unwrap());
    }
}

#[test]
fn placeholders() {
    check(
        &[
            "SELECT ?, '?', \"?\", ? -- ?\n + ?; SELECT ?",
            "SELECT $2, $1, $name",
            "SELECT ?2, ?1",
            "SELECT a -> '?' , $$ ? $$ WHERE b=?",
            "SELECT 1;\nSELECT ?,\n $1",
            "SELECT ?1, ?",
        ],
        expect![[r#"
            SELECT ?, '?', "?", ? -- ?\n + ?; SELECT ?
                other SELECT $1, '?', "?", $2 -- ?
                 + $3
                other SELECT $1
            SELECT $2, $1, $name
                other SELECT $2, $1, $name
            SELECT ?2, ?1
                other SELECT $2, $1
            SELECT a -> '?' , $$ ? $$ WHERE b=?
                other SELECT a -> '?' , $$ ? $$ WHERE b=$1
            SELECT 1;\nSELECT ?,\n $1
                invalid-syntax: statement 2 of 2: expected one kind of placeholder in a statement, found both '?' and '$1' at line 2, column 2
            SELECT ?1, ?
                invalid-syntax: expected one kind of placeholder in a statement, found both '?' and '?1' at line 1, column 8
        "#]],
    );
}

/// Every statement of Timeplus's page on Python external streams.
#[test]
fn timeplus_examples() {
    let statements = parse(TIMEPLUS).unwrap();
    assert_eq!(statements.len(), 5);
    let mut shown = String::new();
    for statement in &statements {
        assert!(TIMEPLUS.contains(&statement.text));
        let StatementKind::CreateStream(create) = &statement.kind else { unreachable!() };
        let definition = &create.definition;
        assert!(statement.text.contains(&format!("$${}$$", definition.body.text)));
        let columns: Vec<_> = definition.schema.fields().iter().map(|field| crate::column(field)).collect();
        shown += &format!(
            "{}({}) line {} {:?} {:?}\n",
            create.name,
            columns.join(", "),
            definition.body.first_line,
            definition.functions,
            definition.mode
        );
    }
    expect![[r#"
        stream_name("col_name1" int32) line 2 Functions { read: Some(".."), write: Some(".."), init: Some(Init { function: "..", parameters: Some("..") }), deinit: Some("..") } Auto
        py_clock("tick" uint32, "label" string) line 2 Functions { read: None, write: None, init: None, deinit: None } Streaming
        py_users("id" int32, "name" string) line 2 Functions { read: None, write: None, init: None, deinit: None } Batch
        py_cookie_counter("previous_cleanup_count" int32, "secret_flavor" string) line 6 Functions { read: Some("serve_cookie_report"), write: None, init: Some(Init { function: "open_bakery", parameters: Some("{\"flavor\":\"double-chocolate\"}") }), deinit: Some("close_bakery") } Auto
        py_user_count("total" int64) line 2 Functions { read: None, write: None, init: None, deinit: None } Batch
    "#]].assert_eq(&shown);
}
