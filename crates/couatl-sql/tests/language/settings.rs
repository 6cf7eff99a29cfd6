//! Settings: what they set, and what is refused.

use std::time::Duration;

use couatl_core::{Init, Mode, WriteFormat};
use couatl_sql::{StatementKind, create_statement, parse};
use expect_test::{Expect, expect};

use crate::{definition, failure, table};

fn statement(settings: &str) -> String {
    format!("CREATE EXTERNAL STREAM s (a int)\nAS $$ $$\n{settings}")
}

fn check(settings: &[&str], expect: Expect) {
    let say = |settings: &str| match parse(&statement(settings)) {
        Ok(statements) => format!("{} statements", statements.len()),
        Err(error) => failure(&error),
    };
    expect.assert_eq(&table(settings, say));
}

#[test]
fn defaults() {
    let definition = definition(&statement("SETTINGS type = 'python'"));
    assert_eq!(definition.functions, Default::default());
    assert_eq!((definition.read_function(), definition.write_function()), ("s", "s"));
    assert_eq!((definition.mode, definition.write_format), (Mode::Auto, WriteFormat::List));
    assert_eq!((definition.batch_rows.get(), definition.linger), (8192, Duration::from_millis(5)));
}

#[test]
fn all_of_them() {
    let definition = definition(&statement(
        "SETTINGS TYPE = 'Python', Read_Function_Name = Read, write_function_name = \"Write\", -- words keep their case\n\
         init_function_name = 'open', init_function_parameters = $j${\"a\": \"it's $$\"}$j$, deinit_function_name = 'é',\n\
         mode = 'BATCH', batch_size = 1048576, linger_ms = 0, write_format = arrow;",
    ));
    let functions = definition.functions;
    assert_eq!((functions.read.as_deref(), functions.write.as_deref()), (Some("Read"), Some("Write")));
    assert_eq!(functions.deinit.as_deref(), Some("é"));
    let parameters = Some("{\"a\": \"it's $$\"}".to_owned());
    assert_eq!(functions.init, Some(Init { function: "open".to_owned(), parameters }));
    assert_eq!((definition.mode, definition.write_format), (Mode::Batch, WriteFormat::Arrow));
    assert_eq!((definition.batch_rows.get(), definition.linger), (1 << 20, Duration::ZERO));
}

#[test]
fn refused() {
    check(
        &[
            "",
            "SETTINGS mode = 'batch'",
            "SETTINGS type = 'kafka'",
            "SETTINGS type = 'python', init_function_parameters = 'x'",
            "SETTINGS type = 'python', read_fuction_name = 'x'",
            "SETTINGS type = 'python',\n  batchsize = 5",
            "SETTINGS type = 'python', color = 'red'",
            "SETTINGS type = 'python', mode = 'auto', Mode = 'auto'",
            "SETTINGS type = 'python', mode = 'stream'",
            "SETTINGS type = 'python', mode = 1",
            "SETTINGS type = 'python', write_format = 'pandas'",
            "SETTINGS type = 'python', read_function_name = ''",
            "SETTINGS type = 'python', init_function_name = 5",
            "SETTINGS type = 'python', init_function_name = f, init_function_parameters = 5",
        ],
        expect![[r#"

                invalid-setting: setting 'type' is missing: add SETTINGS type = 'python'
            SETTINGS mode = 'batch'
                invalid-setting: setting 'type' is missing: add SETTINGS type = 'python'
            SETTINGS type = 'kafka'
                invalid-setting: setting 'type' must be 'python', as there is a body, found 'kafka' at line 3, column 17
            SETTINGS type = 'python', init_function_parameters = 'x'
                invalid-setting: Setting 'init_function_parameters' requires 'init_function_name' to be configured
            SETTINGS type = 'python', read_fuction_name = 'x'
                invalid-setting: unknown setting 'read_fuction_name' at line 3, column 27; did you mean 'read_function_name'?
            SETTINGS type = 'python',\n  batchsize = 5
                invalid-setting: unknown setting 'batchsize' at line 4, column 3; did you mean 'batch_size'?
            SETTINGS type = 'python', color = 'red'
                invalid-setting: unknown setting 'color' at line 3, column 27; the settings are type, class, read_function_name, write_function_name, init_function_name, init_function_parameters, deinit_function_name, mode, batch_size, linger_ms, write_format, order_by
            SETTINGS type = 'python', mode = 'auto', Mode = 'auto'
                invalid-setting: setting 'mode' is given twice at line 3, column 49
            SETTINGS type = 'python', mode = 'stream'
                invalid-setting: setting 'mode' must be 'auto' or 'streaming' or 'batch', found 'stream' at line 3, column 34
            SETTINGS type = 'python', mode = 1
                invalid-setting: setting 'mode' must be 'auto' or 'streaming' or 'batch', found 1 at line 3, column 34
            SETTINGS type = 'python', write_format = 'pandas'
                invalid-setting: setting 'write_format' must be 'list' or 'arrow', found 'pandas' at line 3, column 42
            SETTINGS type = 'python', read_function_name = ''
                invalid-setting: setting 'read_function_name' must be the name of a function, found '' at line 3, column 48
            SETTINGS type = 'python', init_function_name = 5
                invalid-setting: setting 'init_function_name' must be the name of a function, found 5 at line 3, column 48
            SETTINGS type = 'python', init_function_name = f, init_function_parameters = 5
                invalid-setting: setting 'init_function_parameters' must be a string, found 5 at line 3, column 78
        "#]],
    );
    for size in ["0", "-1", "1048577", "1.5", "1e3", "'8192'", "99999999999999999999", "many"] {
        let error = parse(&statement(&format!("SETTINGS type = 'python', batch_size = {size}"))).unwrap_err();
        let message = "setting 'batch_size' must be a whole number from 1 to 1048576, found ";
        assert!(error.to_string().starts_with(message), "{error}");
    }
    check(
        &["SETTINGS type = 'python', linger_ms = 60001", "SETTINGS type = 'python', linger_ms = -5"],
        expect![[r#"
            SETTINGS type = 'python', linger_ms = 60001
                invalid-setting: setting 'linger_ms' must be a whole number from 0 to 60000, found 60001 at line 3, column 39
            SETTINGS type = 'python', linger_ms = -5
                invalid-setting: setting 'linger_ms' must be a whole number from 0 to 60000, found -5 at line 3, column 39
        "#]],
    );
}

#[test]
fn an_order_names_columns() {
    let create = |order: &str| {
        format!(
            "CREATE EXTERNAL STREAM s (ts timestamp, host string, \"Odd, one\" int, tags array(int), span interval,\n\
             state enum8('up'), id uuid, extra json, attrs map(string, int)) AS $$ $$ SETTINGS type = 'python',\n\
             order_by = {order}"
        )
    };
    let order = |text: &str| definition(&create(text)).order_by;
    assert_eq!(order("'ts'"), ["ts"]);
    assert_eq!(order("ts"), ["ts"]);
    assert_eq!(order("'TS , \"Odd, one\",state, id'"), ["ts", "Odd, one", "state", "id"]);
    assert_eq!(definition(&create("'host, ts'")).order_columns().unwrap(), [1, 0]);
    let orders =
        ["''", "5", "'ts desc'", "'ts,'", "'\"ts'", "'tz'", "'x'", "'ts, host, ts'", "'tags'", "'attrs'", "'span'"];
    let say = |order: &str| failure(&parse(&create(order)).unwrap_err());
    expect![[r#"
        ''
            invalid-setting: setting 'order_by' must be the names of columns, separated by commas (rows ascend, NULLs last), found '' at line 3, column 12
        5
            invalid-setting: setting 'order_by' must be the names of columns, separated by commas (rows ascend, NULLs last), found 5 at line 3, column 12
        'ts desc'
            invalid-setting: setting 'order_by' must be the names of columns, separated by commas (rows ascend, NULLs last), found 'ts desc' at line 3, column 12
        'ts,'
            invalid-setting: setting 'order_by' must be the names of columns, separated by commas (rows ascend, NULLs last), found 'ts,' at line 3, column 12
        '"ts'
            invalid-setting: setting 'order_by' must be the names of columns, separated by commas (rows ascend, NULLs last), found '"ts' at line 3, column 12
        'tz'
            invalid-setting: setting 'order_by' names 'tz', which is no column at line 3, column 12; did you mean 'ts'?
        'x'
            invalid-setting: setting 'order_by' names 'x', which is no column at line 3, column 12
        'ts, host, ts'
            invalid-setting: order_by names column 'ts' twice
        'tags'
            invalid-setting: order_by cannot name column 'tags': values of type array(int32) have no order
        'attrs'
            invalid-setting: order_by cannot name column 'attrs': values of type map(string, int32) have no order
        'span'
            invalid-setting: order_by cannot name column 'span': values of type interval have no order
    "#]].assert_eq(&table(&orders, say));
}

#[test]
fn malformed() {
    check(
        &[
            "SETTINGS",
            "SETTINGS type",
            "SETTINGS type 'python'",
            "SETTINGS type = ",
            "SETTINGS type = 'python',",
            "SETTINGS type = 'python' mode = 'auto'",
            "SETTINGS type = -'python'",
            "SETTINGS type = ('python')",
            "SETTINGS 'type' = 'python'",
            "WITH (type = 'python')",
        ],
        expect![[r#"
            SETTINGS
                invalid-syntax: expected the name of a setting, found the end of the text at line 3, column 9
            SETTINGS type
                invalid-syntax: expected '=', found the end of the text at line 3, column 14
            SETTINGS type 'python'
                invalid-syntax: expected '=', found the string 'python' at line 3, column 15
            SETTINGS type = 
                invalid-syntax: expected a string, a number or a word, found the end of the text at line 3, column 16
            SETTINGS type = 'python',
                invalid-syntax: expected the name of a setting, found the end of the text at line 3, column 26
            SETTINGS type = 'python' mode = 'auto'
                invalid-syntax: expected ',' or the end of the statement, found 'mode' at line 3, column 26
            SETTINGS type = -'python'
                invalid-syntax: expected a string, a number or a word, found '-' at line 3, column 17
            SETTINGS type = ('python')
                invalid-syntax: expected a string, a number or a word, found '(' at line 3, column 17
            SETTINGS 'type' = 'python'
                invalid-syntax: expected the name of a setting, found the string 'type' at line 3, column 10
            WITH (type = 'python')
                invalid-syntax: expected SETTINGS, found 'WITH' at line 3, column 1
        "#]],
    );
}

#[test]
fn errors_name_their_setting() {
    let error = parse(&statement("SETTINGS type = 'python', mode = 'stream'")).unwrap_err();
    let context: Vec<_> = error.context().collect();
    assert_eq!(context, [("line", "3"), ("column", "34"), ("setting", "mode")]);
}

#[test]
fn quoted_names_are_the_connectors_where_there_is_one() {
    let settings = [
        r#"type = 'faker', "mode" = 'r', mode = 'batch', "Type" = 'x', "class" = 5"#,
        r#""type" = 'faker', "mode" = 'batch', "MODE" = 'r'"#,
        r#"type = 'python', class = 'm:C', "batch_size" = 'many', "order_by" = 'x'"#,
        r#"type = 'faker', "mode" = 'r', "mode" = 'w'"#,
        r#"type = 'faker', "mode" = 'r'"#,
    ];
    let say = |settings: &str| match parse(&format!("CREATE EXTERNAL STREAM s (a int)\nSETTINGS {settings}")) {
        Ok(statements) => match &statements[0].kind {
            StatementKind::CreateStream(create) => {
                let printed = create_statement(&create.definition);
                printed[printed.find("SETTINGS").unwrap_or(0)..].to_owned()
            }
            other => format!("{other:?}"),
        },
        Err(error) => failure(&error),
    };
    expect![[r#"
        type = 'faker', "mode" = 'r', mode = 'batch', "Type" = 'x', "class" = 5
            SETTINGS type = 'faker', mode = 'batch', "mode" = 'r', "Type" = 'x', "class" = 5
        "type" = 'faker', "mode" = 'batch', "MODE" = 'r'
            invalid-setting: setting 'mode' is given twice at line 2, column 55
        type = 'python', class = 'm:C', "batch_size" = 'many', "order_by" = 'x'
            SETTINGS type = 'python', class = 'm:C', "batch_size" = 'many', "order_by" = 'x'
        type = 'faker', "mode" = 'r', "mode" = 'w'
            invalid-setting: setting 'mode' is given twice at line 2, column 49
        type = 'faker', "mode" = 'r'
            SETTINGS type = 'faker', "mode" = 'r'
    "#]]
    .assert_eq(&table(&settings, say));
    let body = definition(&statement(r#"SETTINGS "type" = 'python', "Mode" = 'batch'"#));
    assert_eq!(body.mode, Mode::Batch);
}
