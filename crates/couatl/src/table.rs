//! A stream for a `SessionContext` of your own.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use couatl_core::{Body, Host, Mode, Result, StreamDefinition, WriteFormat};
use couatl_datafusion::StreamTable;
use couatl_python::{Callable, PythonHost, stream_of_callables};
use datafusion::arrow::datatypes::Schema;

/// Builds a DataFusion table from Python: from the text of a program, or from callables.
///
/// ```
/// use std::sync::Arc;
///
/// use couatl::{Callable, PythonTable};
/// use datafusion::prelude::SessionContext;
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let context = SessionContext::new();
/// let numbers = PythonTable::from_source("numbers", "n int64", "def numbers():\n    yield from range(3)")?;
/// context.register_table("numbers", Arc::new(numbers.build()?)).unwrap();
/// let keywords = PythonTable::from_callable("keywords", "word string", Callable::import("keyword:kwlist.copy")?)?;
/// context.register_table("keywords", Arc::new(keywords.build()?)).unwrap();
/// let rows = context.sql("SELECT n, word FROM numbers, keywords LIMIT 2").await.unwrap().collect().await.unwrap();
/// # assert_eq!(rows.iter().map(|batch| batch.num_rows()).sum::<usize>(), 2);
/// # Ok::<(), couatl::Error>(())
/// # }).unwrap();
/// ```
///
/// On a session without [`install_streaming`](crate::install_streaming), DataFusion's own filters may hold rows of a
/// slow stream back.
#[derive(Debug)]
pub struct PythonTable {
    definition: StreamDefinition,
    read: Option<Callable>,
    write: Option<Callable>,
}

impl PythonTable {
    /// A table from the text of a program, which defines a function of the table's name. `columns` is written as in
    /// `CREATE EXTERNAL STREAM`: `"id int64 NOT NULL, tags array(string)"`.
    ///
    /// # Errors
    /// What is wrong with the columns.
    pub fn from_source(name: impl Into<String>, columns: &str, source: &str) -> Result<Self> {
        Ok(Self::new(StreamDefinition::new(name, Arc::new(couatl_sql::parse_columns(columns)?), Body::new(source))))
    }

    /// A table that reads by calling an object of this process, without arguments.
    ///
    /// # Errors
    /// What is wrong with the columns.
    pub fn from_callable(name: impl Into<String>, columns: &str, read: impl Into<Callable>) -> Result<Self> {
        Ok(Self { read: Some(read.into()), ..Self::from_source(name, columns, "")? })
    }

    /// A table from a complete definition.
    pub fn new(definition: StreamDefinition) -> Self {
        Self { definition, read: None, write: None }
    }

    /// A table from a schema of Arrow's instead of columns in words.
    #[must_use]
    pub fn with_schema(mut self, schema: Schema) -> Self {
        self.definition.schema = Arc::new(schema);
        self
    }

    /// The object that reads: called without arguments.
    #[must_use]
    pub fn reading_with(mut self, read: impl Into<Callable>) -> Self {
        self.read = Some(read.into());
        self
    }

    /// The object that writes: called once per batch, with one argument per column.
    #[must_use]
    pub fn writing_with(mut self, write: impl Into<Callable>) -> Self {
        self.write = Some(write.into());
        self
    }

    /// The function of the source that reads; its name is the table's unless set.
    #[must_use]
    pub fn read_function(mut self, name: impl Into<String>) -> Self {
        self.definition.functions.read = Some(name.into());
        self
    }

    /// The function of the source that writes; the one that reads unless set.
    #[must_use]
    pub fn write_function(mut self, name: impl Into<String>) -> Self {
        self.definition.functions.write = Some(name.into());
        self
    }

    /// The shape that the read function returns.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.definition.mode = mode;
        self
    }

    /// The most rows in one batch.
    #[must_use]
    pub fn batch_rows(mut self, rows: NonZeroUsize) -> Self {
        self.definition.batch_rows = rows;
        self
    }

    /// The shortest time between two deliveries of a batch that is not full.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.definition.linger = linger;
        self
    }

    /// How the write function receives a column.
    #[must_use]
    pub fn write_format(mut self, format: WriteFormat) -> Self {
        self.definition.write_format = format;
        self
    }

    /// The columns by which rows come in ascending order, NULLs last. It is checked as they come: the first row that
    /// goes back fails the query.
    #[must_use]
    pub fn order_by<T: Into<String>>(mut self, columns: impl IntoIterator<Item = T>) -> Self {
        self.definition.order_by = columns.into_iter().map(Into::into).collect();
        self
    }

    /// Checks the program, without running it, and makes the table.
    ///
    /// # Errors
    /// `invalid-definition` where the program does not compile or does not hold the functions; `invalid-setting` where
    /// rows cannot be in the order.
    pub fn build(self) -> Result<StreamTable> {
        self.definition.order_columns()?;
        let host = PythonHost::new(None)?;
        let definition = Arc::new(self.definition);
        let stream = match (self.read, self.write) {
            (None, None) => host.stream(definition)?,
            (read, write) => stream_of_callables(definition, read, write)?,
        };
        Ok(StreamTable::new(stream))
    }
}
