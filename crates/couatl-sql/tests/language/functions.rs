//! `CREATE FUNCTION`: what it takes, in which order, and what it says of the rest.

use couatl_sql::{StatementKind, create_function_statement, parse};
use expect_test::{Expect, expect};

use crate::{failure, table};

/// Compares what each text, as it is shown again, is with what is expected.
fn check(texts: &[&str], expect: Expect) {
    let say = |text: &str| match parse(text) {
        Ok(statements) => match &statements[0].kind {
            StatementKind::CreateFunction(create) => {
                let shown = create_function_statement(&create.definition);
                let again = parse(&shown).unwrap().pop().unwrap().kind;
                // The body's first line is its own, and so are these flags.
                assert!(matches!(&again, StatementKind::CreateFunction(again)
                    if create_function_statement(&again.definition) == shown));
                shown.replace('\n', "\\n")
            }
            kind => format!("{kind:?}"),
        },
        Err(error) => failure(&error),
    };
    expect.assert_eq(&table(texts, say));
}

#[test]
fn clauses_come_in_any_order() {
    check(
        &[
            "create function half(n float64) returns float64 language python as $$ x $$",
            "CREATE OR REPLACE FUNCTION f(a int, \"B c\" varchar) RETURNS array(int) NOT NULL IMMUTABLE STRICT AS $a$ $$ $a$ LANGUAGE PYTHON",
            "CREATE FUNCTION IF NOT EXISTS now_ms() RETURNS int64 LANGUAGE PYTHON OPTIONS (format = 'row', function 'x') AS $$$$",
            "CREATE AGGREGATE FUNCTION best(n int) RETURNS int LANGUAGE PYTHON CALLED ON NULL INPUT STABLE AS $$$$",
            "CREATE FUNCTION rep(input TABLE, n int) RETURNS TABLE (a int NOT NULL, b string) LANGUAGE PYTHON AS $$$$",
            "CREATE FUNCTION rep(n int, t TABLE WITH ROW SEMANTICS) RETURNS TABLE (a int) LANGUAGE PYTHON AS $$$$",
            "CREATE FUNCTION ticks() RETURNS TABLE (a int) LANGUAGE PYTHON OPTIONS (mode 'streaming') AS $$$$",
            "CREATE FUNCTION root(n float64) RETURNS float64 LANGUAGE PYTHON OPTIONS (class 'math:sqrt', format 'row')",
            "DROP FUNCTION IF EXISTS f",
            "DROP AGGREGATE FUNCTION f",
            "SHOW CREATE FUNCTION f",
        ],
        expect![[r#"
            create function half(n float64) returns float64 language python as $$ x $$
                CREATE FUNCTION half(n float64) RETURNS float64 LANGUAGE PYTHON\nAS $$ x $$
            CREATE OR REPLACE FUNCTION f(a int, "B c" varchar) RETURNS array(int) NOT NULL IMMUTABLE STRICT AS $a$ $$ $a$ LANGUAGE PYTHON
                CREATE FUNCTION f(a int32, "B c" string) RETURNS array(int32) NOT NULL LANGUAGE PYTHON IMMUTABLE RETURNS NULL ON NULL INPUT\nAS $body$ $$ $body$
            CREATE FUNCTION IF NOT EXISTS now_ms() RETURNS int64 LANGUAGE PYTHON OPTIONS (format = 'row', function 'x') AS $$$$
                CREATE FUNCTION now_ms() RETURNS int64 LANGUAGE PYTHON OPTIONS (format 'row', function 'x')\nAS $$$$
            CREATE AGGREGATE FUNCTION best(n int) RETURNS int LANGUAGE PYTHON CALLED ON NULL INPUT STABLE AS $$$$
                CREATE AGGREGATE FUNCTION best(n int32) RETURNS int32 LANGUAGE PYTHON STABLE\nAS $$$$
            CREATE FUNCTION rep(input TABLE, n int) RETURNS TABLE (a int NOT NULL, b string) LANGUAGE PYTHON AS $$$$
                CREATE FUNCTION rep(input TABLE, n int32) RETURNS TABLE (a int32 NOT NULL, b string) LANGUAGE PYTHON\nAS $$$$
            CREATE FUNCTION rep(n int, t TABLE WITH ROW SEMANTICS) RETURNS TABLE (a int) LANGUAGE PYTHON AS $$$$
                CREATE FUNCTION rep(n int32, t TABLE WITH ROW SEMANTICS) RETURNS TABLE (a int32) LANGUAGE PYTHON\nAS $$$$
            CREATE FUNCTION ticks() RETURNS TABLE (a int) LANGUAGE PYTHON OPTIONS (mode 'streaming') AS $$$$
                CREATE FUNCTION ticks() RETURNS TABLE (a int32) LANGUAGE PYTHON OPTIONS (mode 'streaming')\nAS $$$$
            CREATE FUNCTION root(n float64) RETURNS float64 LANGUAGE PYTHON OPTIONS (class 'math:sqrt', format 'row')
                CREATE FUNCTION root(n float64) RETURNS float64 LANGUAGE PYTHON OPTIONS (format 'row', class 'math:sqrt')
            DROP FUNCTION IF EXISTS f
                DropFunction { name: "f", if_exists: true }
            DROP AGGREGATE FUNCTION f
                DropFunction { name: "f", if_exists: false }
            SHOW CREATE FUNCTION f
                ShowCreateFunction("f")
        "#]],
    );
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    check(
        &[
            "CREATE FUNCTION s.f(n int) RETURNS int LANGUAGE PYTHON AS $$$$",
            "CREATE FUNCTION f(n int, n int) RETURNS int LANGUAGE PYTHON AS $$$$",
            "CREATE FUNCTION f(n) RETURNS int LANGUAGE PYTHON AS $$$$",
            "CREATE FUNCTION f(n int) LANGUAGE PYTHON AS $$$$",
            "CREATE FUNCTION f(n int) RETURNS int AS $$$$",
            "CREATE FUNCTION f(n int) RETURNS int LANGUAGE SQL AS $$$$",
            "CREATE FUNCTION f(n int) RETURNS int LANGUAGE PYTHON",
            "CREATE FUNCTION f(n int) RETURNS int LANGUAGE PYTHON STABLE VOLATILE AS $$$$",
            "CREATE FUNCTION f(n int) RETURNS int LANGUAGE PYTHON OPTIONS (formatt 'row') AS $$$$",
            "CREATE FUNCTION f(n int) RETURNS int LANGUAGE PYTHON OPTIONS (format 'rows') AS $$$$",
            "CREATE FUNCTION f() RETURNS int LANGUAGE PYTHON OPTIONS (format 'list') AS $$$$",
            "CREATE FUNCTION f(n int) RETURNS int LANGUAGE PYTHON OPTIONS (mode 'batch') AS $$$$",
            "CREATE FUNCTION f(t TABLE) RETURNS int LANGUAGE PYTHON AS $$$$",
            "CREATE FUNCTION f(t TABLE, u TABLE) RETURNS TABLE (n int) LANGUAGE PYTHON AS $$$$",
            "CREATE AGGREGATE FUNCTION f() RETURNS int LANGUAGE PYTHON AS $$$$",
            "CREATE AGGREGATE FUNCTION f(n int) RETURNS TABLE (n int) LANGUAGE PYTHON AS $$$$",
            "CREATE FUNCTION f(n int) RETURNS int LANGUAGE PYTHON AS $$$$ now",
            "CREATE OR REPLACE FUNCTION IF NOT EXISTS f(n int) RETURNS int LANGUAGE PYTHON AS $$$$",
        ],
        expect![[r#"
            CREATE FUNCTION s.f(n int) RETURNS int LANGUAGE PYTHON AS $$$$
                invalid-syntax: expected '(': functions belong to no schema, found '.' at line 1, column 18
            CREATE FUNCTION f(n int, n int) RETURNS int LANGUAGE PYTHON AS $$$$
                invalid-definition: two parameters are named 'n' at line 1, column 26
            CREATE FUNCTION f(n) RETURNS int LANGUAGE PYTHON AS $$$$
                invalid-syntax: expected a type, found ')' at line 1, column 20
            CREATE FUNCTION f(n int) LANGUAGE PYTHON AS $$$$
                invalid-syntax: expected RETURNS, found 'LANGUAGE' at line 1, column 26
            CREATE FUNCTION f(n int) RETURNS int AS $$$$
                invalid-syntax: expected LANGUAGE PYTHON, found the end of the text at line 1, column 45
            CREATE FUNCTION f(n int) RETURNS int LANGUAGE SQL AS $$$$
                invalid-syntax: expected PYTHON, the language that functions are written in, found 'SQL' at line 1, column 47
            CREATE FUNCTION f(n int) RETURNS int LANGUAGE PYTHON
                invalid-syntax: expected AS $$ … $$, or OPTIONS (class 'package.module:name'), found the end of the text at line 1, column 53
            CREATE FUNCTION f(n int) RETURNS int LANGUAGE PYTHON STABLE VOLATILE AS $$$$
                invalid-syntax: how often it must be called is said twice at line 1, column 61
            CREATE FUNCTION f(n int) RETURNS int LANGUAGE PYTHON OPTIONS (formatt 'row') AS $$$$
                invalid-setting: a function has no option 'formatt' at line 1, column 63; did you mean 'format'?
            CREATE FUNCTION f(n int) RETURNS int LANGUAGE PYTHON OPTIONS (format 'rows') AS $$$$
                invalid-setting: format must be 'row', 'list', 'arrow' or 'numpy', found 'rows' at line 1, column 70
            CREATE FUNCTION f() RETURNS int LANGUAGE PYTHON OPTIONS (format 'list') AS $$$$
                invalid-setting: a function without parameters is called for each row: leave out format, or set it to 'row'
            CREATE FUNCTION f(n int) RETURNS int LANGUAGE PYTHON OPTIONS (mode 'batch') AS $$$$
                invalid-setting: mode says whether rows end that a function makes by itself, and here are none at line 1, column 68
            CREATE FUNCTION f(t TABLE) RETURNS int LANGUAGE PYTHON AS $$$$
                invalid-definition: a function that reads a TABLE gives one: expected RETURNS TABLE (column type, …) at line 1, column 36
            CREATE FUNCTION f(t TABLE, u TABLE) RETURNS TABLE (n int) LANGUAGE PYTHON AS $$$$
                invalid-definition: a function reads at most one TABLE, and here is another at line 1, column 28
            CREATE AGGREGATE FUNCTION f() RETURNS int LANGUAGE PYTHON AS $$$$
                invalid-definition: an aggregate has at least one parameter, as in (value int64) at line 1, column 39
            CREATE AGGREGATE FUNCTION f(n int) RETURNS TABLE (n int) LANGUAGE PYTHON AS $$$$
                invalid-definition: an aggregate gives one value: expected a type after RETURNS at line 1, column 44
            CREATE FUNCTION f(n int) RETURNS int LANGUAGE PYTHON AS $$$$ now
                invalid-syntax: expected LANGUAGE PYTHON, IMMUTABLE, STABLE, VOLATILE, RETURNS NULL ON NULL INPUT, OPTIONS, AS or the end, found 'now' at line 1, column 62
            CREATE OR REPLACE FUNCTION IF NOT EXISTS f(n int) RETURNS int LANGUAGE PYTHON AS $$$$
                invalid-syntax: expected OR REPLACE or IF NOT EXISTS, found both at line 1, column 28: one replaces a function, one keeps it
        "#]],
    );
}
