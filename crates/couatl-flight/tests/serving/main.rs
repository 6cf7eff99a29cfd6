//! A server and its clients over real sockets, without Python: tables are DataFusion's, or made to yield, stall and fail
//! on command.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, outside of test functions")]

mod fixture;
mod lifetime;
mod metadata;
mod prepared;
mod protocol;
mod statements;
