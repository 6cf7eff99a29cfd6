//! What `CREATE FUNCTION` says, as plain data, and how functions are called.
//!
//! ```text
//!   FunctionDefinition --Host::function--> Function::Value --open--> Calls      once per query; its Python runs there
//!                                               Calls::call(Call) … cancel
//!                                          Function::Table --source(arguments)--> Source, which may have an input
//! ```

use std::fmt::Debug;
use std::num::NonZeroUsize;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use futures::channel::mpsc;

use crate::{Body, Connector, Finish, Metrics, Mode, OpenContext, Purpose, Result, Source, StreamDefinition};

/// A function as its statement defines it. Nothing here has been checked against a host yet.
#[derive(Debug, Clone, PartialEq)]
pub struct FunctionDefinition {
    /// By which statements call it.
    pub name: String,
    /// What it is called with, in this order.
    pub parameters: Vec<Parameter>,
    /// What it gives.
    pub returns: Returns,
    /// Whether it makes one value of the rows of a group.
    pub is_aggregate: bool,
    /// How often it must be called.
    pub volatility: Volatility,
    /// Whether it gives NULL, and is not called, where an argument is NULL; an aggregate passes over such rows.
    pub is_strict: bool,
    /// How its Python receives values, where the statement says it.
    pub format: Option<ArgumentFormat>,
    /// Whether the rows of a table function end.
    pub mode: Mode,
    /// What is called, in the body: as set, else the function's name.
    pub entry: Option<String>,
    /// The program text; empty where there is a connector.
    pub body: Body,
    /// What a package has, in the place of a body.
    pub connector: Option<Connector>,
}

impl FunctionDefinition {
    /// One with default settings, without a body.
    pub fn new(name: impl Into<String>, parameters: Vec<Parameter>, returns: Returns) -> Self {
        Self {
            name: name.into(),
            parameters,
            returns,
            is_aggregate: false,
            volatility: Volatility::default(),
            is_strict: false,
            format: None,
            mode: Mode::default(),
            entry: None,
            body: Body::new(""),
            connector: None,
        }
    }

    /// What is called, in the body.
    pub fn entry(&self) -> &str {
        self.entry.as_deref().unwrap_or(&self.name)
    }

    /// The parameters that are values, in order.
    pub fn values(&self) -> impl Iterator<Item = &FieldRef> {
        self.parameters.iter().filter_map(|parameter| match parameter {
            Parameter::Value(field) => Some(field),
            Parameter::Rows { .. } => None,
        })
    }

    /// The parameter that is a table: its name, and whether its partitions may be read apart.
    pub fn input(&self) -> Option<(&str, bool)> {
        self.parameters.iter().find_map(|parameter| match parameter {
            Parameter::Value(_) => None,
            Parameter::Rows { name, apart } => Some((name.as_str(), *apart)),
        })
    }

    /// How its Python receives values: a scalar function and an aggregate whole columns, a table function rows.
    pub fn format(&self) -> ArgumentFormat {
        self.format.unwrap_or(match self.returns {
            Returns::Table(_) => ArgumentFormat::Row,
            // Without a column, nothing says how many rows there are.
            Returns::Value(_) if self.parameters.is_empty() && !self.is_aggregate => ArgumentFormat::Row,
            Returns::Value(_) => ArgumentFormat::List,
        })
    }

    /// Its code as that of a stream of what it gives.
    pub fn program(&self) -> StreamDefinition {
        let schema = match &self.returns {
            Returns::Value(field) => Arc::new(Schema::new(vec![Field::clone(field).with_name("result")])),
            Returns::Table(schema) => Arc::clone(schema),
        };
        let mut program = StreamDefinition::new(&self.name, schema, self.body.clone());
        program.functions.read = Some(self.entry().to_owned());
        program.mode = self.mode;
        program.connector = self.connector.clone();
        program.purpose = Purpose::Function { arguments: self.parameters.len() };
        if matches!(self.returns, Returns::Value(_)) {
            program.batch_rows = NonZeroUsize::MAX;
        }
        program
    }
}

/// What a function is called with.
#[derive(Debug, Clone, PartialEq)]
pub enum Parameter {
    /// A value.
    Value(FieldRef),
    /// The rows of a table.
    Rows {
        /// Its name.
        name: String,
        /// Whether each partition of the rows may be read by a call of its own: no row is about another.
        apart: bool,
    },
}

impl Parameter {
    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Value(field) => field.name(),
            Self::Rows { name, .. } => name,
        }
    }
}

/// What a function gives.
#[derive(Debug, Clone, PartialEq)]
pub enum Returns {
    /// A value for each row, or group; the field has no name.
    Value(FieldRef),
    /// Rows.
    Table(SchemaRef),
}

/// How often a function must be called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Volatility {
    /// For every row: equal arguments may give something else.
    #[default]
    Volatile,
    /// It gives the same for equal arguments within a query, and may be called once for them.
    Stable,
    /// It gives the same for equal arguments always, and may be called once for them.
    Immutable,
}

impl Volatility {
    /// The word for it in a statement.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Volatile => "VOLATILE",
            Self::Stable => "STABLE",
            Self::Immutable => "IMMUTABLE",
        }
    }
}

/// How a function receives values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArgumentFormat {
    /// It is called for each row, with its values. A table function's input is an iterator over rows.
    Row,
    /// A list of Python values for each column.
    List,
    /// A pyarrow array for each column. A table function's input is an iterator over record batches.
    Arrow,
    /// A NumPy array for each column; a masked one where there are NULLs.
    Numpy,
}

impl ArgumentFormat {
    /// Every format.
    pub const ALL: [Self; 4] = [Self::Row, Self::List, Self::Arrow, Self::Numpy];

    /// The word for it in a statement.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Row => "row",
            Self::List => "list",
            Self::Arrow => "arrow",
            Self::Numpy => "numpy",
        }
    }
}

/// A checked function.
#[derive(Debug, Clone)]
pub enum Function {
    /// It gives a value for each row, or for each group of rows.
    Value(Arc<dyn ValueFunction>),
    /// It gives rows.
    Table(Arc<dyn TableFunction>),
}

/// A function that gives values.
pub trait ValueFunction: Debug + Send + Sync {
    /// Begins a use of it, by one query. Its code is not run before it is called.
    ///
    /// # Errors
    /// `resources-exhausted`, where it has no thread to run on.
    fn open(&self, request: CallRequest) -> Result<Arc<dyn Calls>>;
}

/// What one use of a function is told.
#[derive(Debug)]
pub struct CallRequest {
    /// What its code is told.
    pub context: Arc<OpenContext>,
    /// Where it counts its work.
    pub metrics: Arc<Metrics>,
    /// Told once that the use, cleanup included, is over.
    pub finish: Finish,
}

/// One use of a function. Calls are answered one after the other, in a module and on a thread of its own. Dropping it ends
/// it, as [`cancel`](Self::cancel) does.
pub trait Calls: Debug + Send + Sync {
    /// Blocks until the call has been answered, or the use is cancelled.
    ///
    /// # Errors
    /// What the code raises, and values that do not fit; `cancelled`.
    fn call(&self, call: Call) -> Result<ArrayRef>;

    /// Forgets an aggregation, soon. Does not block.
    fn forget(&self, aggregation: u64);

    /// Ends it: who waits for an answer is told at once, and what runs is interrupted. Does not block.
    fn cancel(&self);
}

/// A call of a function that gives values.
#[derive(Debug)]
pub enum Call {
    /// Gives a value for each of so many rows.
    Rows {
        /// A column for each parameter.
        arguments: Vec<ArrayRef>,
        /// How many rows there are.
        rows: usize,
    },
    /// Takes rows into the groups of an aggregation, which are made as they come; gives nothing.
    Process {
        /// Which aggregation of this use.
        aggregation: u64,
        /// A column for each parameter.
        arguments: Vec<ArrayRef>,
        /// The group of each row.
        groups: Vec<usize>,
        /// How many groups there are now.
        count: usize,
    },
    /// Takes states into the groups of an aggregation; gives nothing.
    Merge {
        /// Which aggregation of this use.
        aggregation: u64,
        /// What [`States`](Self::States) gave, of an aggregation of this use.
        states: ArrayRef,
        /// The group of each state.
        groups: Vec<usize>,
        /// How many groups there are now.
        count: usize,
    },
    /// Gives the states of the first groups, as binary, and forgets these groups.
    States {
        /// Which aggregation of this use.
        aggregation: u64,
        /// How many.
        first: usize,
    },
    /// Gives the values of the first groups.
    Values {
        /// Which aggregation of this use.
        aggregation: u64,
        /// How many.
        first: usize,
        /// Whether the groups stay.
        keeps: bool,
    },
    /// Forgets an aggregation; gives nothing.
    Forget {
        /// Which aggregation of this use.
        aggregation: u64,
    },
}

/// A function that gives rows.
pub trait TableFunction: Debug + Send + Sync {
    /// The rows of a call with these values, each an array of one; a parameter that is a table has no value. Where there is
    /// one, each scan of the source is given an input.
    fn source(&self, values: Vec<ArrayRef>) -> Arc<dyn Source>;
}

/// The rows that a scan is to read itself, in batches. It ends with [`InputEvent::End`]: where the sender is gone before
/// that, nobody wants to know any more what becomes of them.
#[derive(Debug)]
pub struct Input {
    /// Their columns.
    pub schema: SchemaRef,
    /// Where they come from.
    pub events: mpsc::Receiver<InputEvent>,
}

/// What becomes of an input.
#[derive(Debug)]
pub enum InputEvent {
    /// Some rows.
    Batch(RecordBatch),
    /// There are no more.
    End,
    /// They could not be had: what was made of those before is still wanted.
    Failed,
}
