//! The Arrow Flight SQL server of Couatl.
//!
//! It serves one [`Session`](couatl_datafusion::Session) to every client that speaks Flight SQL: ADBC, and with it
//! pandas and polars; JDBC; BI tools; arrow-flight's own clients. It knows the protocol and nothing below the session:
//! neither Python nor which streams there are, and how a query is planned is not its business.
//!
//! ```text
//!  network runtime                                            query runtime
//!  TCP ── tonic ── Flight ── Service ── spawn ──────────────▶ Session: prepare, execute
//!                    │          │                                   │
//!                GetSchema   handles                           record batches, as on the wire
//!                is_update   (tickets, prepared)                    │
//!                               ▼                                   ▼
//!                 client ◀── encode ◀── bounded channel ◀────── one task per result
//! ```
//!
//! Whatever a client waits for runs in a task of the query runtime that ends when its answer is no longer wanted: a
//! client that drops its reader, or whose connection dies, drops the response, which drops the task, which drops the
//! query.

mod action;
mod answer;
mod auth;
mod client;
mod column;
mod connection;
mod flight;
mod format;
mod handle;
mod http;
mod ingest;
mod lost;
mod metadata;
mod metrics;
mod options;
mod parameters;
mod poll;
mod reflection;
mod runtime;
mod server;
mod service;
mod sql_info;
mod statement;
mod status;
mod stream;
mod tls;
mod type_info;
mod users;
mod wire;

pub use auth::Authenticator;
pub use handle::HandleLimits;
pub use server::{Server, ServerConfig};
pub use tls::{Tls, TlsFiles};
pub use users::Users;
