//! A function for a session of your own.

use std::sync::Arc;

use couatl_core::{Error, Result};
use couatl_datafusion::Session;
use couatl_python::{Callable, function_of_callable};
use couatl_sql::StatementKind;

/// A function of SQL over a Python object of this process.
///
/// ```
/// use couatl::{Callable, Engine, PythonFunction};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let engine = Engine::builder().build()?;
/// let text = "CREATE FUNCTION root(n float64) RETURNS float64 LANGUAGE PYTHON OPTIONS (format 'row', class 'math:sqrt')";
/// PythonFunction::from_callable(text, Callable::import("math:sqrt")?)?.register(engine.session())?;
/// let rows = engine.sql("SELECT root(9)").await?.collect().await.unwrap();
/// # assert_eq!(rows[0].num_rows(), 1);
/// # Ok::<(), couatl::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct PythonFunction {
    definition: Arc<couatl_core::FunctionDefinition>,
    callable: Callable,
}

impl PythonFunction {
    /// A function as a `CREATE FUNCTION` statement describes it, whose body or class is not used.
    ///
    /// # Errors
    /// What is wrong with the statement.
    pub fn from_callable(statement: &str, callable: impl Into<Callable>) -> Result<Self> {
        let mut statements = couatl_sql::parse(statement)?;
        match (statements.pop().map(|statement| statement.kind), statements.is_empty()) {
            (Some(StatementKind::CreateFunction(create)), true) => {
                Ok(Self { definition: Arc::new(create.definition), callable: callable.into() })
            }
            _ => Err(Error::invalid_argument("expected one CREATE FUNCTION statement")),
        }
    }

    /// Gives it its name in a session, and in those that share its streams.
    ///
    /// # Errors
    /// `already-exists`, where a function of SQL has the name.
    pub fn register(self, session: &Session) -> Result<()> {
        session.register_function(self.definition.clone(), function_of_callable(self.definition, self.callable)?)
    }
}
