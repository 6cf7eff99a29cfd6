//! `CREATE FUNCTION`: its parameters, what it gives, its clauses, which may come in any order, and its body.

use std::collections::HashSet;
use std::fmt::{self, Write};
use std::sync::Arc;

use couatl_core::{
    ArgumentFormat, Connector, Error, FunctionDefinition, Mode, Parameter, Result, Returns, Volatility, quoted,
    type_spelling,
};
use sqlparser::tokenizer::{Location, Token};

use crate::create::{body, columns};
use crate::parameters::nearest;
use crate::print::dollar_quote;
use crate::tokens::{Tokens, error_at};
use crate::types::Type;

/// What OPTIONS may say.
const OPTIONS: &[&str] = &["format", "function", "class", "mode"];

/// A `CREATE FUNCTION` statement.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateFunction {
    /// Whether a function of this name is to be replaced. Never together with `if_not_exists`.
    pub or_replace: bool,
    /// Whether a function of this name is to be left alone.
    pub if_not_exists: bool,
    /// What the function is.
    pub definition: FunctionDefinition,
}

/// The clauses after what it gives, each once.
#[derive(Default)]
struct Clauses {
    is_python: bool,
    volatility: Option<Volatility>,
    is_strict: Option<bool>,
    options: Vec<(String, String, Location)>,
    body: Option<couatl_core::Body>,
}

impl CreateFunction {
    /// Whether a statement is one.
    pub(crate) fn is_next(tokens: &Tokens<'_>) -> bool {
        [&["create"][..], &["create", "or", "replace"]].into_iter().any(|begin| {
            let starts = |words: &[&str]| tokens.at_words(&[begin, words].concat());
            let temporary = ["temporary", "temp"].into_iter().any(|word| starts(&[word, "function"]));
            temporary || starts(&["function"]) || starts(&["aggregate", "function"])
        })
    }

    /// Reads the whole statement.
    pub(crate) fn parse(tokens: &mut Tokens<'_>) -> Result<Self> {
        tokens.word("create")?;
        let or_replace = tokens.eat_words(&["or", "replace"]);
        let is_aggregate = tokens.eat_words(&["aggregate"]);
        let place = tokens.location();
        if tokens.eat_words(&["temporary"]) || tokens.eat_words(&["temp"]) {
            return Err(error_at(Error::unsupported, place, |at| {
                format!(
                    "a function belongs to the server, found TEMPORARY{at}: leave it out, and DROP FUNCTION in the end"
                )
            }));
        }
        tokens.word("function")?;
        let place = tokens.location();
        let if_not_exists = tokens.eat_words(&["if", "not", "exists"]);
        if or_replace && if_not_exists {
            return Err(error_at(Error::invalid_syntax, place, |at| {
                format!("expected OR REPLACE or IF NOT EXISTS, found both{at}: one replaces a function, one keeps it")
            }));
        }
        let name = name(tokens)?;
        let parameters = parameters(tokens)?;
        tokens.word("returns")?;
        let place = tokens.location();
        let returns = returns(tokens)?;
        let mut definition = FunctionDefinition::new(name, parameters, returns);
        definition.is_aggregate = is_aggregate;
        check_shape(&definition, place)?;

        let clauses = Clauses::parse(tokens)?;
        tokens
            .end("LANGUAGE PYTHON, IMMUTABLE, STABLE, VOLATILE, RETURNS NULL ON NULL INPUT, OPTIONS, AS or the end")?;
        clauses.apply(&mut definition, tokens)?;
        Ok(Self { or_replace, if_not_exists, definition })
    }
}

/// A function's name, which belongs to no schema.
pub(crate) fn name(tokens: &mut Tokens<'_>) -> Result<String> {
    let name = tokens.name("the name of a function")?;
    match tokens.peek(0) {
        Some(Token::Period) => Err(tokens.expected("'(': functions belong to no schema")),
        _ => Ok(name),
    }
}

fn parameters(tokens: &mut Tokens<'_>) -> Result<Vec<Parameter>> {
    tokens.token(&Token::LParen)?;
    let mut parameters: Vec<Parameter> = Vec::new();
    let mut names = HashSet::new();
    while !tokens.eat(&Token::RParen) {
        if !parameters.is_empty() {
            tokens.token(&Token::Comma)?;
        }
        let place = tokens.location();
        let name = tokens.name("the name of a parameter, and its type")?;
        let invalid = |message: &str| error_at(Error::invalid_definition, place, |at| format!("{message}{at}"));
        if !names.insert(name.clone()) {
            return Err(invalid(&format!("two parameters are named '{name}'")));
        }
        parameters.push(if tokens.eat_words(&["table"]) {
            if parameters.iter().any(|parameter| matches!(parameter, Parameter::Rows { .. })) {
                return Err(invalid("a function reads at most one TABLE, and here is another"));
            }
            let apart = tokens.eat_words(&["with", "row", "semantics"]);
            let _ = !apart && tokens.eat_words(&["with", "set", "semantics"]);
            Parameter::Rows { name, apart }
        } else {
            Parameter::Value(Arc::new(Type::parse(tokens)?.into_field(name, true)))
        });
    }
    Ok(parameters)
}

fn returns(tokens: &mut Tokens<'_>) -> Result<Returns> {
    if tokens.at_words(&["table"]) {
        tokens.advance();
        tokens.token(&Token::LParen)?;
        let schema = columns(tokens)?;
        tokens.token(&Token::RParen)?;
        return Ok(Returns::Table(Arc::new(schema)));
    }
    let parsed = Type::parse(tokens)?;
    let not_null = tokens.eat_words(&["not", "null"]);
    Ok(Returns::Value(Arc::new(parsed.into_field("", !not_null))))
}

/// Refuses what cannot be called.
fn check_shape(definition: &FunctionDefinition, place: Location) -> Result<()> {
    let invalid = |message: &str| Err(error_at(Error::invalid_definition, place, |at| format!("{message}{at}")));
    match (&definition.returns, definition.input()) {
        (Returns::Value(_), Some(_)) => {
            invalid("a function that reads a TABLE gives one: expected RETURNS TABLE (column type, …)")
        }
        (Returns::Table(_), _) if definition.is_aggregate => {
            invalid("an aggregate gives one value: expected a type after RETURNS")
        }
        (Returns::Value(_), None) if definition.is_aggregate && definition.parameters.is_empty() => {
            invalid("an aggregate has at least one parameter, as in (value int64)")
        }
        _ => Ok(()),
    }
}

impl Clauses {
    fn parse(tokens: &mut Tokens<'_>) -> Result<Self> {
        let mut clauses = Self::default();
        loop {
            let place = tokens.location();
            let again = |what: &str| error_at(Error::invalid_syntax, place, |at| format!("{what} is said twice{at}"));
            let once = |is_set: bool, what: &str| if is_set { Err(again(what)) } else { Ok(()) };
            if tokens.eat_words(&["language"]) {
                once(clauses.is_python, "LANGUAGE")?;
                if !tokens.eat_words(&["python"]) {
                    return Err(tokens.expected("PYTHON, the language that functions are written in"));
                }
                clauses.is_python = true;
            } else if let Some(volatility) = volatility(tokens) {
                once(clauses.volatility.replace(volatility).is_some(), "how often it must be called")?;
            } else if let Some(is_strict) = nulls(tokens) {
                once(clauses.is_strict.replace(is_strict).is_some(), "what NULLs do")?;
            } else if tokens.eat_words(&["options"]) {
                tokens.token(&Token::LParen)?;
                while !tokens.eat(&Token::RParen) {
                    option(tokens, &mut clauses.options)?;
                    if tokens.peek(0) != Some(&Token::RParen) {
                        tokens.token(&Token::Comma)?;
                    }
                }
            } else if tokens.eat_words(&["settings"]) {
                option(tokens, &mut clauses.options)?;
                while tokens.eat(&Token::Comma) {
                    option(tokens, &mut clauses.options)?;
                }
            } else if tokens.eat_words(&["as"]) {
                once(clauses.body.replace(body(tokens)?).is_some(), "AS")?;
            } else {
                return Ok(clauses);
            }
        }
    }

    fn apply(self, definition: &mut FunctionDefinition, tokens: &Tokens<'_>) -> Result<()> {
        if !self.is_python {
            return Err(tokens.expected("LANGUAGE PYTHON"));
        }
        definition.volatility = self.volatility.unwrap_or_default();
        definition.is_strict = self.is_strict.unwrap_or_default();
        if definition.is_strict && matches!(definition.returns, Returns::Table(_)) {
            return Err(Error::invalid_setting(
                "RETURNS NULL ON NULL INPUT is about a function that gives a value; this one gives rows: leave it out",
            ));
        }
        for (name, value, place) in self.options {
            let one_of = |words: &str| {
                error_at(Error::invalid_setting, place, |at| format!("{name} must be {words}, found '{value}'{at}"))
            };
            match name.as_str() {
                "format" => {
                    let format = ArgumentFormat::ALL.into_iter().find(|format| format.as_str() == value);
                    definition.format = Some(format.ok_or_else(|| one_of("'row', 'list', 'arrow' or 'numpy'"))?);
                }
                "mode" => {
                    let modes = [Mode::Auto, Mode::Streaming, Mode::Batch];
                    let mode = modes.into_iter().find(|mode| mode.as_str() == value);
                    definition.mode = mode.ok_or_else(|| one_of("'auto', 'streaming' or 'batch'"))?;
                    if !matches!(definition.returns, Returns::Table(_)) || definition.input().is_some() {
                        return Err(error_at(Error::invalid_setting, place, |at| {
                            format!("mode says whether rows end that a function makes by itself, and here are none{at}")
                        }));
                    }
                }
                "class" => definition.connector = Some(Connector { class: value, options: Vec::new() }),
                _ => definition.entry = Some(value),
            }
        }
        let is_whole = matches!(definition.returns, Returns::Value(_)) && !definition.is_aggregate;
        if is_whole && definition.parameters.is_empty() && definition.format() != ArgumentFormat::Row {
            return Err(Error::invalid_setting(
                "a function without parameters is called for each row: leave out format, or set it to 'row'",
            ));
        }
        match (self.body, &definition.connector) {
            (Some(_), Some(_)) => Err(Error::invalid_setting("a function has a body or a class, and here are both")),
            (None, None) => Err(tokens.expected("AS $$ … $$, or OPTIONS (class 'package.module:name')")),
            (body, _) => {
                definition.body = body.unwrap_or_else(|| couatl_core::Body::new(""));
                Ok(())
            }
        }
    }
}

fn volatility(tokens: &mut Tokens<'_>) -> Option<Volatility> {
    let words: [(&[&str], _); 5] = [
        (&["volatile"], Volatility::Volatile),
        (&["not", "deterministic"], Volatility::Volatile),
        (&["stable"], Volatility::Stable),
        (&["immutable"], Volatility::Immutable),
        (&["deterministic"], Volatility::Immutable),
    ];
    words.into_iter().find(|(words, _)| tokens.eat_words(words)).map(|(_, volatility)| volatility)
}

fn nulls(tokens: &mut Tokens<'_>) -> Option<bool> {
    let words: [(&[&str], _); 3] = [
        (&["returns", "null", "on", "null", "input"], true),
        (&["strict"], true),
        (&["called", "on", "null", "input"], false),
    ];
    words.into_iter().find(|(words, _)| tokens.eat_words(words)).map(|(_, is_strict)| is_strict)
}

/// One option: a name and a text, with or without `=` between them.
fn option(tokens: &mut Tokens<'_>, options: &mut Vec<(String, String, Location)>) -> Result<()> {
    let place = tokens.location();
    let name = tokens.name("the name of an option")?;
    if !OPTIONS.contains(&name.as_str()) {
        return Err(error_at(Error::invalid_setting, place, |at| {
            let near = nearest(&name, OPTIONS.iter().copied());
            let hint = near.map_or_else(
                || format!("expected one of {}", OPTIONS.join(", ")),
                |near| format!("did you mean '{near}'?"),
            );
            format!("a function has no option '{name}'{at}; {hint}")
        }));
    }
    if options.iter().any(|(known, ..)| *known == name) {
        return Err(error_at(Error::invalid_setting, place, |at| format!("option '{name}' is set twice{at}")));
    }
    tokens.eat(&Token::Eq);
    let place = tokens.location();
    let value = tokens.string("a text in quotes")?.to_owned();
    options.push((name, value, place));
    Ok(())
}

/// A statement that makes the same function: what `SHOW CREATE FUNCTION` shows. What has its default is left out.
///
/// ```
/// use couatl_sql::{StatementKind, create_function_statement, parse};
///
/// let text = "CREATE FUNCTION half(n float64) RETURNS float64 LANGUAGE PYTHON IMMUTABLE\nAS $$\ndef half(n): ...\n$$";
/// let StatementKind::CreateFunction(create) = &parse(text)?[0].kind else { unreachable!() };
/// assert_eq!(create_function_statement(&create.definition), text);
/// # Ok::<(), couatl_core::Error>(())
/// ```
pub fn create_function_statement(definition: &FunctionDefinition) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = write(&mut out, definition);
    out
}

fn write(out: &mut String, definition: &FunctionDefinition) -> fmt::Result {
    let aggregate = if definition.is_aggregate { "AGGREGATE " } else { "" };
    let parameters = definition.parameters.iter().map(|parameter| match parameter {
        Parameter::Value(field) => format!("{} {}", quoted(field.name()), type_spelling(field)),
        Parameter::Rows { name, apart: true } => format!("{} TABLE WITH ROW SEMANTICS", quoted(name)),
        Parameter::Rows { name, apart: false } => format!("{} TABLE", quoted(name)),
    });
    let parameters = parameters.collect::<Vec<_>>().join(", ");
    write!(out, "CREATE {aggregate}FUNCTION {}({parameters}) RETURNS ", quoted(&definition.name))?;
    let not_null = |is_nullable: bool| if is_nullable { "" } else { " NOT NULL" };
    match &definition.returns {
        Returns::Value(field) => write!(out, "{}{}", type_spelling(field), not_null(field.is_nullable()))?,
        Returns::Table(schema) => {
            let columns = schema.fields().iter().map(|field| {
                format!("{} {}{}", quoted(field.name()), type_spelling(field), not_null(field.is_nullable()))
            });
            write!(out, "TABLE ({})", columns.collect::<Vec<_>>().join(", "))?;
        }
    }
    out.write_str(" LANGUAGE PYTHON")?;
    if definition.volatility != Volatility::default() {
        write!(out, " {}", definition.volatility.as_str())?;
    }
    if definition.is_strict {
        out.write_str(" RETURNS NULL ON NULL INPUT")?;
    }
    let mode = (definition.mode != Mode::default()).then(|| definition.mode.as_str());
    let class = definition.connector.as_ref().map(|connector| connector.class.as_str());
    let options = [
        ("format", definition.format.map(ArgumentFormat::as_str)),
        ("function", definition.entry.as_deref()),
        ("class", class),
        ("mode", mode),
    ];
    let options: Vec<_> = options
        .iter()
        .filter_map(|(name, value)| value.map(|value| format!("{name} '{}'", value.replace('\'', "''"))))
        .collect();
    if !options.is_empty() {
        write!(out, " OPTIONS ({})", options.join(", "))?;
    }
    if definition.connector.is_none() {
        let quote = dollar_quote(&definition.body.text);
        write!(out, "\nAS {quote}{}{quote}", definition.body.text)?;
    }
    Ok(())
}
