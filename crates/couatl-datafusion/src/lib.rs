//! Streams in DataFusion: tables, plan nodes, the streaming planner, the catalog, and the session that runs statements.
//!
//! ```text
//!   text ──> Session ──> couatl-sql ──> ours: catalog, queries     the rest: DataFusion's planner
//!                                                                              │
//!                                          Planner: streams by name, streaming settings, the root
//!                                                                              │
//!   QueryExec (cancel, cleanup, counts) ──> … PromptFilterExec, PromptJoinExec … ──> StreamScanExec ──> Source
//!                                                            DataSinkExec ──> StreamSink ──> Sink
//! ```
//!
//! It knows sources and sinks by their contracts alone: never Python, never the network.

mod access;
mod aggregate;
mod analyze;
mod band;
mod bounded;
mod caller;
mod calling;
mod catalog;
mod changes;
mod ddl;
mod departure;
mod depth;
mod distinct;
mod endless;
mod error;
mod expansion;
mod filter;
mod foreign;
mod functions;
mod held;
mod ingest;
mod insert;
mod join;
mod limits;
mod lineage;
mod memory;
mod once;
mod operators;
mod options;
mod order;
mod parameters;
mod partitions;
mod planner;
mod prepared;
mod probe;
mod prompt;
mod queries;
mod query;
mod root;
mod scalar;
mod scan;
mod secrets;
mod session;
mod show;
mod sink;
mod size;
mod statement;
mod statistics;
mod store;
mod streams;
mod table;
mod table_function;
mod untyped;
mod uuid_text;
mod view;
mod wire;

pub use access::{Directory, Privilege, Role, User};
pub use caller::Caller;
pub use departure::waited_for;
pub use error::{from_datafusion, into_datafusion};
pub use foreign::ForeignTable;
pub use ingest::{IfExists, Ingest};
pub use limits::{Limits, UserLimits};
pub use options::WireOptions;
pub use parameters::row_values;
pub use partitions::Part;
pub use planner::install_streaming;
pub use queries::{Queries, QueryInfo};
pub use session::{Session, SessionSettings};
pub use size::sliced_bytes;
pub use statement::{Outcome, Prepared, parse};
pub use statistics::{Access, Statistics, Usage};
pub use table::StreamTable;
