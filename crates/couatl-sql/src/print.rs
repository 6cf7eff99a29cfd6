//! From a definition back to a statement: what `SHOW CREATE STREAM` shows.

use std::collections::HashSet;
use std::fmt::{self, Write};

use couatl_core::{OptionValue, StreamDefinition, quoted, type_spelling};

use crate::settings::{
    BATCH_SIZE, CLASS, DEINIT_FUNCTION, INIT_FUNCTION, INIT_PARAMETERS, LINGER_MS, MODE, ORDER_BY, PYTHON,
    READ_FUNCTION, SINK, SOURCE, TYPE, WRITE_FORMAT, WRITE_FUNCTION, known,
};

/// A statement that makes the same stream. Parsing it gives an equal definition, but for the line on which the body
/// begins, which is its own.
///
/// The body stands in it to the letter, between dollar quotes with a tag that it does not hold. Settings that have
/// their default are left out.
///
/// ```
/// use std::sync::Arc;
/// use couatl_core::{Body, Mode, StreamDefinition};
/// use couatl_sql::{create_statement, parse_columns};
///
/// let schema = Arc::new(parse_columns("tick uint32 not null, \"Label\" varchar")?);
/// let mut clock = StreamDefinition::new("clock", schema, Body::new("\ndef clock(): ...\n"));
/// clock.mode = Mode::Streaming;
/// let statement = r#"CREATE EXTERNAL STREAM clock (
///   tick uint32 NOT NULL,
///   "Label" string
/// )
/// AS $$
/// def clock(): ...
/// $$
/// SETTINGS type = 'python', mode = 'streaming'"#;
/// assert_eq!(create_statement(&clock), statement);
/// # Ok::<(), couatl_core::Error>(())
/// ```
pub fn create_statement(definition: &StreamDefinition) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = write(&mut out, definition);
    out
}

fn write(out: &mut String, definition: &StreamDefinition) -> fmt::Result {
    write!(out, "CREATE EXTERNAL STREAM {} (", quoted(&definition.name))?;
    for (index, field) in definition.schema.fields().iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let not_null = if field.is_nullable() { "" } else { " NOT NULL" };
        write!(out, "{comma}\n  {} {}{not_null}", quoted(field.name()), type_spelling(field))?;
    }
    write!(out, "\n)\n")?;
    if definition.connector.is_none() {
        let quote = dollar_quote(&definition.body.text);
        writeln!(out, "AS {quote}{}{quote}", definition.body.text)?;
    }
    let (registered, class) = match &definition.connector {
        Some(connector) if connector.is_registered() => (Some(&*connector.class), None),
        connector => (None, connector.as_ref().map(|connector| &*connector.class)),
    };
    write!(out, "SETTINGS {TYPE} = '{}'", registered.unwrap_or(PYTHON).replace('\'', "''"))?;

    let functions = &definition.functions;
    let order: Vec<_> = definition.order_by.iter().map(|column| quoted(column)).collect();
    let order = order.join(", ");
    let init = functions.init.as_ref();
    let (read, write) = if definition.program.is_some() { (SOURCE, SINK) } else { (READ_FUNCTION, WRITE_FUNCTION) };
    let texts = [
        (CLASS, class),
        (read, functions.read.as_deref()),
        (write, functions.write.as_deref()),
        (INIT_FUNCTION, init.map(|init| init.function.as_str())),
        (INIT_PARAMETERS, init.and_then(|init| init.parameters.as_deref())),
        (DEINIT_FUNCTION, functions.deinit.as_deref()),
        (MODE, unless_default(definition.mode).map(|mode| mode.as_str())),
        (ORDER_BY, unless_default(order.as_str())),
        (WRITE_FORMAT, unless_default(definition.write_format).map(|format| format.as_str())),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            write!(out, ", {name} = '{}'", text.replace('\'', "''"))?;
        }
    }
    if definition.batch_rows != StreamDefinition::DEFAULT_BATCH_ROWS {
        write!(out, ", {BATCH_SIZE} = {}", definition.batch_rows)?;
    }
    if definition.linger != StreamDefinition::DEFAULT_LINGER {
        write!(out, ", {LINGER_MS} = {}", definition.linger.as_millis())?;
    }
    for (name, value) in definition.options() {
        // Quotes say that it is the connector's, where a setting has its name.
        let name = if known(name).is_some() { format!("\"{name}\"") } else { quoted(name) };
        match value {
            OptionValue::Text(text) => write!(out, ", {name} = '{}'", text.replace('\'', "''"))?,
            OptionValue::Number(number) => write!(out, ", {name} = {number}")?,
            OptionValue::Bool(value) => write!(out, ", {name} = {value}")?,
        }
    }
    Ok(())
}

fn unless_default<T: Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

/// The first of `$$`, `$body$`, `$body1$`, … that ends where the body does. That the body does not hold the quote is
/// not enough: a body that ends in `$` would close `$$` one character early.
pub(crate) fn dollar_quote(body: &str) -> String {
    let ends_it = |quote: &&str| format!("{body}{quote}").find(quote) == Some(body.len());
    if let Some(quote) = ["$$", "$body$"].into_iter().find(ends_it) {
        return quote.to_owned();
    }
    // All of them at once: a body may hold so many that trying one after the other takes the square of its length.
    let number = |rest: &str| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
    let held: HashSet<u64> = body.split("$body").skip(1).filter_map(number).collect();
    (1..).find(|number| !held.contains(number)).map_or_else(String::new, |number| format!("$body{number}$"))
}
