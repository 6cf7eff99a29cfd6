//! Couatl: Python functions as SQL tables, in a Rust program.
//!
//! Two ways lead in. An [`Engine`] is a session with everything in it: statements create, read and write streams.
//! [`PythonTable`] is the part alone, for a `SessionContext` of your own.
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let engine = couatl::Engine::builder().build()?;
//! engine.sql(r#"
//!     CREATE EXTERNAL STREAM squares (n int64, square int64) AS $$
//! def squares():
//!     return [(n, n * n) for n in range(4)]
//!     $$ SETTINGS type = 'python', mode = 'batch'
//! "#).await?;
//! let rows = engine.sql("SELECT sum(square) AS sum FROM squares").await?.collect().await.unwrap();
//! # assert_eq!(rows[0].num_rows(), 1);
//! # Ok::<(), couatl::Error>(())
//! # }).unwrap();
//! ```
//!
//! The program links Python's shared library; the packages that bodies import are those of the environment that
//! [`EngineBuilder::python`] or `VIRTUAL_ENV` names.

mod engine;
mod function;
mod table;

pub use couatl_core::{Body, Error, ErrorKind, Mode, Result, StreamDefinition, WriteFormat, hidden};
pub use couatl_datafusion::{
    ForeignTable, Outcome, Prepared, Queries, QueryInfo, Session, StreamTable, from_datafusion, install_streaming,
    waited_for,
};
pub use couatl_python::{Callable, cancel_all, live_threads};
pub use engine::{Engine, EngineBuilder};
pub use function::PythonFunction;
pub use table::PythonTable;
