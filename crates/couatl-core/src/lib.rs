//! The contracts of Couatl: what a stream is, how it is read and written, and how any of that fails.
//!
//! Every other crate speaks these types to its neighbours, so they know nothing of Python, SQL, DataFusion or the
//! network: Arrow and futures only.
//!
//! ```text
//!   StreamDefinition --Host::stream--> Stream { source, sink }
//!                                        |        |
//!                        Source::open <--'        '--> Sink::open
//!                             |                            |
//!                        [Partition]                   SinkWriter
//!              next_batch … close                  write … commit | abort
//! ```

mod context;
mod definition;
mod error;
mod function;
mod host;
mod metrics;
mod sink;
mod source;
mod spelling;

pub use context::{Credentials, OpenContext, Secrets, check_secret_references, hidden, is_secret_reference};
pub use definition::{
    Body, Connector, Functions, Init, Mode, OptionValue, Purpose, StreamDefinition, Subject, WriteFormat,
};
pub use error::{Error, ErrorKind, Result};
pub use function::{
    ArgumentFormat, Call, CallRequest, Calls, Function, FunctionDefinition, Input, InputEvent, Parameter, Returns,
    TableFunction, ValueFunction, Volatility,
};
pub use host::{Columns, Host, Registered, Stream};
pub use metrics::{Metrics, MetricsSnapshot};
pub use sink::{Sink, SinkWriter, WriteRequest};
pub use source::{Finish, Partition, ScanRequest, Source};
pub use spelling::{ENUM_METADATA_KEY, enum_codes, enum_metadata, is_json, is_uuid, quoted, type_spelling, value_text};
