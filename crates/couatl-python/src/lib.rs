//! The Python host: user code in modules and on threads, interrupts, and the conversion between Python and Arrow.
//!
//! ```text
//!   PythonHost ──> Body (compiled, checked) ──> Program ──> thread: Opened, Reader | write_all
//!                                                             │ Control (cancel)  │ Delivery (rows)
//!                                                             owner: PythonPartition, PythonWriter
//! ```
//!
//! It is the only crate of the engine that knows Python, and knows neither SQL nor DataFusion. What leaves it are the
//! contracts of `couatl-core`; no type of pyo3 is in a signature, but for the conversion into a [`Callable`].

mod body;
mod call;
mod clock;
mod connector;
mod convert;
mod delivery;
mod exception;
mod function;
mod host;
mod interpreter;
mod interrupt;
mod program;
mod reader;
mod scan;
mod slot;
mod values;
mod write;

pub use function::function_of_callable;
pub use host::{Callable, PythonHost, stream_of_callables};
pub use interrupt::{cancel_all, live_threads};
