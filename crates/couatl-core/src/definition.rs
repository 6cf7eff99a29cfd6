//! What `CREATE EXTERNAL STREAM` says, as plain data.
//!
//! A definition is complete on its own: it can be kept, compared, printed as a statement and sent to another process.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, SchemaRef};

use crate::{Error, Result, type_spelling};

/// A stream as its statement defines it. Nothing here has been checked against a host yet.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamDefinition {
    /// The stream's name, without catalog or schema; the default name of its read function.
    pub name: String,
    /// The declared columns. Extension types and enum codes are field metadata, see [`crate::type_spelling`].
    pub schema: SchemaRef,
    /// The program text; empty where there is a connector.
    pub body: Body,
    /// The class of a package that reads or writes, in the place of a body.
    pub connector: Option<Connector>,
    /// The settings that are the parts' of a program, where `source` or `sink` names one: the body is then an eKuiper
    /// plugin's program, and the functions that read and write are what it offers by these names.
    pub program: Option<Vec<(String, OptionValue)>>,
    /// Which functions of the body do what.
    pub functions: Functions,
    /// The shape that the read function returns, and so what a planner may assume.
    pub mode: Mode,
    /// The most rows in one batch, read or written.
    pub batch_rows: NonZeroUsize,
    /// The shortest time between two deliveries of a batch that is not full.
    pub linger: Duration,
    /// How the write function receives a column.
    pub write_format: WriteFormat,
    /// The columns by which rows come in ascending order, NULLs last: the first is the most significant. None where
    /// nothing is promised.
    pub order_by: Vec<String>,
    /// What it is the code of.
    pub purpose: Purpose,
}

/// What messages call the owner of some code: `stream 'users'`, `function 'half'`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    kind: &'static str,
    name: String,
}

impl Subject {
    /// A stream.
    pub fn stream(name: impl Into<String>) -> Self {
        Self { kind: "stream", name: name.into() }
    }

    /// An error that is about it, which its message need not say.
    #[must_use]
    pub fn mark(&self, error: Error) -> Error {
        error.with_context(self.kind, &self.name)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} '{}'", self.kind, self.name)
    }
}

/// What a definition is the code of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Purpose {
    /// A stream of its own.
    #[default]
    Stream,
    /// A function, which is called with so many arguments.
    Function {
        /// How many.
        arguments: usize,
    },
}

impl StreamDefinition {
    /// The batch size of a stream that does not set one, in rows.
    pub const DEFAULT_BATCH_ROWS: NonZeroUsize = NonZeroUsize::new(8192).unwrap();
    /// The linger of a stream that does not set one.
    pub const DEFAULT_LINGER: Duration = Duration::from_millis(5);

    /// A definition with default settings.
    pub fn new(name: impl Into<String>, schema: SchemaRef, body: Body) -> Self {
        Self {
            name: name.into(),
            schema,
            body,
            connector: None,
            program: None,
            functions: Functions::default(),
            mode: Mode::default(),
            batch_rows: Self::DEFAULT_BATCH_ROWS,
            linger: Self::DEFAULT_LINGER,
            write_format: WriteFormat::default(),
            order_by: Vec::new(),
            purpose: Purpose::default(),
        }
    }

    /// What messages call it.
    pub fn subject(&self) -> Subject {
        let kind = match self.purpose {
            Purpose::Stream => "stream",
            Purpose::Function { .. } => "function",
        };
        Subject { kind, name: self.name.clone() }
    }

    /// The name of the function that reads: as set, else the stream's name.
    pub fn read_function(&self) -> &str {
        self.functions.read.as_deref().unwrap_or(&self.name)
    }

    /// The name of the function that writes: as set, else the name of the function that reads.
    pub fn write_function(&self) -> &str {
        self.functions.write.as_deref().unwrap_or_else(|| self.read_function())
    }

    /// The settings that are not the stream's own: the options of its connector, or of its program.
    pub fn options(&self) -> impl Iterator<Item = &(String, OptionValue)> {
        let of_connector = self.connector.iter().flat_map(|connector| &connector.options);
        of_connector.chain(self.program.iter().flatten())
    }

    /// The same, to be changed.
    pub fn options_mut(&mut self) -> impl Iterator<Item = &mut (String, OptionValue)> {
        let of_connector = self.connector.iter_mut().flat_map(|connector| &mut connector.options);
        of_connector.chain(self.program.iter_mut().flatten())
    }

    /// The columns of [`order_by`](Self::order_by), as positions in the schema.
    ///
    /// # Errors
    /// `invalid-setting` where one of them is no column, stands there twice, or has a type without an order.
    pub fn order_columns(&self) -> Result<Vec<usize>> {
        let mut columns = Vec::new();
        for name in &self.order_by {
            let Some((index, field)) = self.schema.fields().find(name) else {
                return Err(Error::invalid_setting(format!(
                    "order_by names '{name}', which is no column of stream '{}'",
                    self.name
                )));
            };
            if columns.contains(&index) {
                return Err(Error::invalid_setting(format!("order_by names column '{name}' twice")));
            }
            if !is_ordered(field.data_type()) {
                return Err(Error::invalid_setting(format!(
                    "order_by cannot name column '{name}': values of type {} have no order",
                    type_spelling(field)
                )));
            }
            columns.push(index);
        }
        Ok(columns)
    }
}

/// Whether one value of the type is before the other, in a way that people agree on. Arrow can compare what is nested,
/// and intervals, whose months and days have no fixed length, field by field: no stream is in that order.
fn is_ordered(data_type: &DataType) -> bool {
    !(data_type.is_nested() || matches!(data_type, DataType::Interval(_)))
}

/// The program text of a stream, and where it stands in its statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// The text between the dollar quotes, to the letter.
    pub text: Arc<str>,
    /// The line of the statement on which the text begins, from 1. Tracebacks and syntax errors count from it.
    pub first_line: u32,
}

impl Body {
    /// A body that is its own statement: line 1 is its first line.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self { text: text.into(), first_line: 1 }
    }
}

/// A class of an installed package, and what it is made with.
#[derive(Debug, Clone, PartialEq)]
pub struct Connector {
    /// Where it is: `package.module:Class`, or the name that a package has registered it by.
    pub class: String,
    /// The settings that are its own, in the order of the statement.
    pub options: Vec<(String, OptionValue)>,
}

impl Connector {
    /// Whether it is named by what a package has registered.
    pub fn is_registered(&self) -> bool {
        !self.class.contains(':')
    }
}

/// The value of a connector's option, as a statement has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OptionValue {
    /// A string; it may name secrets.
    Text(String),
    /// A number, as written.
    Number(String),
    /// `true` or `false`, as a word.
    Bool(bool),
}

/// The functions that a definition names. What is `None` was not named: defaults apply.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Functions {
    /// `read_function_name`
    pub read: Option<String>,
    /// `write_function_name`
    pub write: Option<String>,
    /// `init_function_name` and `init_function_parameters`
    pub init: Option<Init>,
    /// `deinit_function_name`
    pub deinit: Option<String>,
}

/// The function that is called once before reading or writing begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Init {
    /// Its name in the body.
    pub function: String,
    /// Its only argument; without one (or with an empty one) it is called with none.
    pub parameters: Option<String>,
}

/// The shape that a read function returns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Any of the shapes of the other two, found out at run time.
    #[default]
    Auto,
    /// A generator, an iterator or a connector object: unbounded.
    Streaming,
    /// A list, or one Arrow object: bounded.
    Batch,
}

impl Mode {
    /// The word for it in a statement.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Auto => "auto",
            Mode::Streaming => "streaming",
            Mode::Batch => "batch",
        }
    }
}

/// How a write function receives a column.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WriteFormat {
    /// A list of Python values.
    #[default]
    List,
    /// A pyarrow array over the same memory.
    Arrow,
}

impl WriteFormat {
    /// The word for it in a statement.
    pub fn as_str(self) -> &'static str {
        match self {
            WriteFormat::List => "list",
            WriteFormat::Arrow => "arrow",
        }
    }
}
