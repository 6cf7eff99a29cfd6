//! What follows `SETTINGS`.
//!
//! Names are Timeplus's, with its defaults; `batch_size`, `linger_ms`, `write_format` and `order_by` are
//! ours.

use std::num::NonZeroUsize;
use std::time::Duration;

use couatl_core::{Connector, Error, Init, Mode, OptionValue, Result, StreamDefinition, WriteFormat};
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Location, Token};

use crate::lexer;
use crate::parameters::nearest;
use crate::tokens::{Tokens, error_at, shortened};

/// The most rows that a batch may be set to.
const MOST_BATCH_ROWS: u64 = 1 << 20;
/// The longest linger, in milliseconds.
const MOST_LINGER_MS: u64 = 60_000;

pub(crate) const TYPE: &str = "type";
pub(crate) const CLASS: &str = "class";
pub(crate) const READ_FUNCTION: &str = "read_function_name";
pub(crate) const WRITE_FUNCTION: &str = "write_function_name";
pub(crate) const INIT_FUNCTION: &str = "init_function_name";
pub(crate) const INIT_PARAMETERS: &str = "init_function_parameters";
pub(crate) const DEINIT_FUNCTION: &str = "deinit_function_name";
pub(crate) const MODE: &str = "mode";
pub(crate) const BATCH_SIZE: &str = "batch_size";
pub(crate) const LINGER_MS: &str = "linger_ms";
pub(crate) const WRITE_FORMAT: &str = "write_format";
pub(crate) const ORDER_BY: &str = "order_by";
/// What names the parts of a program; beside a class, they are options of it.
pub(crate) const SOURCE: &str = "source";
pub(crate) const SINK: &str = "sink";

const NAMES: &[&str] = &[
    TYPE,
    CLASS,
    READ_FUNCTION,
    WRITE_FUNCTION,
    INIT_FUNCTION,
    INIT_PARAMETERS,
    DEINIT_FUNCTION,
    MODE,
    BATCH_SIZE,
    LINGER_MS,
    WRITE_FORMAT,
    ORDER_BY,
];

/// What `order_by` must be.
const COLUMNS: &str = "the names of columns, separated by commas (rows ascend, NULLs last)";

/// What `class` must be.
const CLASS_PATH: &str = "a class of a package, as in 'package.module:Class'";

/// What `type` must be.
const TYPES: &str = "'python', or the name of a connector";

/// The `type` of streams that bring their own code.
pub(crate) const PYTHON: &str = "python";

/// Those that say which functions of a body do what.
const FUNCTIONS: &[&str] = &[READ_FUNCTION, WRITE_FUNCTION, INIT_FUNCTION, INIT_PARAMETERS, DEINIT_FUNCTION];

/// Settings as written: each once, none checked against another.
pub(crate) struct Settings(Vec<Setting>);

struct Setting {
    /// In the case of ours; any other as it is written, and then an option of a connector, or nobody's.
    name: String,
    /// Whether it is a connector's although we have one of its name: `"mode" = 'r'`.
    is_option: bool,
    value: OptionValue,
    name_place: Location,
    place: Location,
}

impl Settings {
    /// Reads `SETTINGS name = value, …` if it is there.
    pub(crate) fn parse(tokens: &mut Tokens<'_>) -> Result<Self> {
        let mut settings: Vec<Setting> = Vec::new();
        if tokens.eat_words(&["settings"]) {
            loop {
                settings.push(Setting::parse(tokens)?);
                if !tokens.eat(&Token::Comma) {
                    break;
                }
            }
        }
        if !settings.iter().any(Setting::names_connector) {
            settings.iter_mut().for_each(Setting::make_ours);
        }
        for (index, setting) in settings.iter().enumerate() {
            let is_same = |other: &Setting| (&other.name, other.is_option) == (&setting.name, setting.is_option);
            if settings[..index].iter().any(is_same) {
                return Err(setting.invalid(|at| format!("setting '{}' is given twice{at}", setting.name)));
            }
        }
        Ok(Self(settings))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn name_connector(&self) -> bool {
        self.0.iter().any(Setting::names_connector)
    }

    /// Puts the settings into a definition, whose body may be missing: then there is a class.
    ///
    /// # Errors
    /// A value that its setting cannot have, `type` missing, an order by what is no column, parameters for an init function
    /// that is not named, or a class beside a body.
    pub(crate) fn apply(self, definition: &mut StreamDefinition, has_body: bool) -> Result<()> {
        let mut has_type = false;
        let (mut init, mut parameters) = (None, None);
        let is_setting = |setting: &Setting| !setting.is_option && known(&setting.name).is_some();
        let (settings, options) = self.0.into_iter().partition::<Vec<_>, _>(is_setting);
        match settings.iter().find(|setting| setting.names_connector()) {
            Some(named) => definition.connector = Some(named.connector(has_body, &settings, options)?),
            None => {
                let is_part = |option: &Setting| has_body && [SOURCE, SINK].contains(&option.name.as_str());
                let (parts, options) = options.into_iter().partition::<Vec<_>, _>(is_part);
                if let (Some(nobodys), true) = (options.first(), parts.is_empty()) {
                    return Err(unknown(&nobodys.name, nobodys.name_place));
                }
                let named = |setting: &&Setting| [READ_FUNCTION, WRITE_FUNCTION].contains(&setting.name.as_str());
                if let (Some(part), Some(named)) = (parts.first(), settings.iter().find(named)) {
                    return Err(error_at(Error::invalid_setting, named.name_place, |at| {
                        let (named, part) = (&named.name, &part.name);
                        format!(
                            "'{part}' names a part of a program, and '{named}' a function{at}: leave one of them out"
                        )
                    }));
                }
                definition.program =
                    (!parts.is_empty()).then(|| options.into_iter().map(Setting::into_option).collect());
                for part in parts {
                    let is_source = part.name == SOURCE;
                    let name = Some(part.function()?);
                    *(if is_source { &mut definition.functions.read } else { &mut definition.functions.write }) = name;
                }
            }
        }
        for setting in settings {
            match setting.name.as_str() {
                CLASS => {}
                TYPE => has_type = true,
                READ_FUNCTION => definition.functions.read = Some(setting.function()?),
                WRITE_FUNCTION => definition.functions.write = Some(setting.function()?),
                INIT_FUNCTION => init = Some(setting.function()?),
                INIT_PARAMETERS => parameters = Some(setting.text()?),
                DEINIT_FUNCTION => definition.functions.deinit = Some(setting.function()?),
                MODE => definition.mode = setting.choice(&by_word(MODES, Mode::as_str))?,
                BATCH_SIZE => definition.batch_rows = setting.rows()?,
                LINGER_MS => definition.linger = Duration::from_millis(setting.number(0, MOST_LINGER_MS)?),
                ORDER_BY => setting.order(definition)?,
                _ => definition.write_format = setting.choice(&by_word(WRITE_FORMATS, WriteFormat::as_str))?,
            }
        }
        if !has_type {
            return Err(Error::invalid_setting(format!(
                "setting '{TYPE}' is missing: add SETTINGS {TYPE} = '{PYTHON}'"
            )));
        }
        definition.functions.init = match (init, parameters) {
            (Some(function), parameters) => Some(Init { function, parameters }),
            (None, None) => None,
            // To the letter what Timeplus says, as clients know it.
            (None, Some(_)) => {
                let message = format!("Setting '{INIT_PARAMETERS}' requires '{INIT_FUNCTION}' to be configured");
                return Err(Error::invalid_setting(message));
            }
        };
        Ok(())
    }
}

const MODES: &[Mode] = &[Mode::Auto, Mode::Streaming, Mode::Batch];
const WRITE_FORMATS: &[WriteFormat] = &[WriteFormat::List, WriteFormat::Arrow];

fn by_word<T: Copy>(choices: &[T], word: fn(T) -> &'static str) -> Vec<(&'static str, T)> {
    choices.iter().map(|choice| (word(*choice), *choice)).collect()
}

impl Setting {
    fn parse(tokens: &mut Tokens<'_>) -> Result<Self> {
        let name_place = tokens.location();
        let is_quoted = matches!(tokens.peek(0), Some(Token::Word(word)) if word.quote_style.is_some());
        let written = tokens.name("the name of a setting")?;
        let name = known(&written.to_ascii_lowercase());
        let is_option = is_quoted && name.is_some();
        let name = name.filter(|_| !is_option).map_or(written, str::to_owned);
        tokens.token(&Token::Eq)?;
        let place = tokens.location();
        Ok(Self { name, is_option, value: value(tokens)?, name_place, place })
    }

    /// There is no connector whose it could be.
    fn make_ours(&mut self) {
        if let Some(name) = known(&self.name.to_ascii_lowercase()).filter(|_| self.is_option) {
            (self.name, self.is_option) = (name.to_owned(), false);
        }
    }

    /// Whether it names a connector: a class does, and so does any type but Python itself.
    fn names_connector(&self) -> bool {
        let is_python = || matches!(&self.value, OptionValue::Text(text) if text.eq_ignore_ascii_case(PYTHON));
        !self.is_option && (self.name == CLASS || self.name == TYPE && !is_python())
    }

    /// The connector that this names, which takes what nobody else does.
    fn connector(&self, has_body: bool, settings: &[Setting], options: Vec<Setting>) -> Result<Connector> {
        let is_path =
            |path: &str| path.split_once(':').is_some_and(|(module, class)| !(module.is_empty() || class.is_empty()));
        let class = match &self.value {
            OptionValue::Text(path) if self.name == CLASS && is_path(path) => path,
            OptionValue::Text(name) if self.name == TYPE && !(name.is_empty() || name.contains(':')) => name,
            _ if self.name == CLASS => return Err(self.misfit(CLASS_PATH)),
            _ => return Err(self.misfit(TYPES)),
        };
        if let Some(both) = settings.iter().find(|other| other.names_connector() && other.name != self.name) {
            let (first, second) = (&self.name, &both.name);
            let message =
                |at: &str| format!("'{first}' and '{second}' both name a connector{at}: leave out one of them");
            return Err(error_at(Error::invalid_setting, both.name_place, message));
        }
        if has_body && self.name == TYPE {
            return Err(self.misfit("'python', as there is a body"));
        }
        if has_body {
            return Err(self.invalid(|at| {
                format!(
                    "setting '{CLASS}' names a class of a package{at}, and there is a body: leave out one of them; a \
                     class in the body is named by {READ_FUNCTION}"
                )
            }));
        }
        if let Some(other) = settings.iter().find(|setting| FUNCTIONS.contains(&setting.name.as_str())) {
            let message = |at: &str| format!("setting '{}' is about a body, and a connector has none{at}", other.name);
            return Err(error_at(Error::invalid_setting, other.name_place, message));
        }
        let options = options.into_iter().map(Setting::into_option).collect();
        Ok(Connector { class: class.clone(), options })
    }

    fn into_option(self) -> (String, OptionValue) {
        (self.name, self.value)
    }

    /// The error of a value that is none of this setting.
    fn misfit(&self, expected: &str) -> Error {
        let found = match &self.value {
            OptionValue::Text(text) => format!("'{}'", shortened(text)),
            OptionValue::Number(number) => shortened(number),
            OptionValue::Bool(value) => value.to_string(),
        };
        self.invalid(|at| format!("setting '{}' must be {expected}, found {found}{at}", self.name))
    }

    fn invalid(&self, message: impl FnOnce(&str) -> String) -> Error {
        error_at(Error::invalid_setting, self.place, message).with_context("setting", self.name.clone())
    }

    fn text(self) -> Result<String> {
        match self.value {
            OptionValue::Text(text) => Ok(text),
            _ => Err(self.misfit("a string")),
        }
    }

    fn function(self) -> Result<String> {
        match self.value {
            OptionValue::Text(name) if !name.trim().is_empty() => Ok(name),
            _ => Err(self.misfit("the name of a function")),
        }
    }

    fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T> {
        let chosen = match &self.value {
            OptionValue::Text(text) => choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)),
            _ => None,
        };
        chosen.map(|(_, choice)| *choice).ok_or_else(|| {
            let words: Vec<_> = choices.iter().map(|(word, _)| format!("'{word}'")).collect();
            self.misfit(&words.join(" or "))
        })
    }

    fn number(&self, least: u64, most: u64) -> Result<u64> {
        let number = match &self.value {
            OptionValue::Number(number) => number.parse().ok(),
            _ => None,
        };
        let fitting = number.filter(|number| (least..=most).contains(number));
        fitting.ok_or_else(|| self.misfit(&format!("a whole number from {least} to {most}")))
    }

    /// Columns, separated by commas, as a statement writes them.
    fn order(&self, definition: &mut StreamDefinition) -> Result<()> {
        let OptionValue::Text(text) = &self.value else { return Err(self.misfit(COLUMNS)) };
        definition.order_by = names(text).map_err(|_| self.misfit(COLUMNS))?;
        if definition.schema.fields().is_empty() {
            // A connector's class knows them, and nobody has asked it.
            return Ok(());
        }
        let columns: Vec<_> = definition.schema.fields().iter().map(|field| field.name().as_str()).collect();
        if let Some(unknown) = definition.order_by.iter().find(|name| !columns.contains(&name.as_str())) {
            let meant = nearest(unknown, columns.iter().copied());
            let meant = meant.map_or_else(String::new, |meant| format!("; did you mean '{meant}'?"));
            return Err(self.invalid(|at| {
                format!("setting '{}' names '{}', which is no column{at}{meant}", self.name, shortened(unknown))
            }));
        }
        definition.order_columns().map(drop)
    }

    fn rows(&self) -> Result<NonZeroUsize> {
        let rows = self.number(1, MOST_BATCH_ROWS)?;
        usize::try_from(rows).ok().and_then(NonZeroUsize::new).ok_or_else(|| self.misfit("a number of rows"))
    }
}

/// A string, a number, or a word.
fn value(tokens: &mut Tokens<'_>) -> Result<OptionValue> {
    let negative = tokens.peek(0) == Some(&Token::Minus);
    let value = match tokens.peek(usize::from(negative)) {
        Some(Token::Number(number, _)) if negative => OptionValue::Number(format!("-{number}")),
        Some(Token::Number(number, _)) => OptionValue::Number(number.clone()),
        Some(Token::SingleQuotedString(text)) if !negative => OptionValue::Text(text.clone()),
        // So that JSON needs no doubled quotes.
        Some(Token::DollarQuotedString(text)) if !negative => OptionValue::Text(text.value.clone()),
        Some(Token::Word(word)) if !negative && word.keyword == Keyword::TRUE => OptionValue::Bool(true),
        Some(Token::Word(word)) if !negative && word.keyword == Keyword::FALSE => OptionValue::Bool(false),
        // Not folded: it may name a Python function.
        Some(Token::Word(word)) if !negative => OptionValue::Text(word.value.clone()),
        _ => return Err(tokens.expected("a string, a number or a word")),
    };
    (0..=usize::from(negative)).for_each(|_| tokens.advance());
    Ok(value)
}

fn names(text: &str) -> Result<Vec<String>> {
    let tokens = lexer::tokens(text)?;
    let mut tokens = Tokens::new(&tokens);
    let mut names = vec![tokens.name("the name of a column")?];
    while tokens.eat(&Token::Comma) {
        names.push(tokens.name("the name of a column")?);
    }
    tokens.end("',' or the end of the columns")?;
    Ok(names)
}

/// A setting of streams.
pub(crate) fn known(name: &str) -> Option<&'static str> {
    NAMES.iter().find(|known| **known == name).copied()
}

fn unknown(name: &str, place: Location) -> Error {
    let meant = nearest(&name.to_ascii_lowercase(), NAMES.iter().copied());
    let name = shortened(name);
    error_at(Error::invalid_setting, place, |at| match meant {
        Some(meant) => format!("unknown setting '{name}'{at}; did you mean '{meant}'?"),
        None => format!("unknown setting '{name}'{at}; the settings are {}", NAMES.join(", ")),
    })
    .with_context("setting", name)
}
