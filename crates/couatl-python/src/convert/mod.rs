//! From Python values to Arrow columns, exactly.
//!
//! ```text
//!   what the user yielded --shape--> rows --> Rows::append --> Column::extend (one per column that the query reads)
//!                              |                                  |
//!                              '--> Arrow objects --> import      '--> Misfit, worded on the cold path
//!                                                       '--> Recast --> Unfit, worded as a Misfit
//! ```
//!
//! What a column does with a value is decided once per scan, when its [`Column`] is made. Nothing is allocated per row
//! but what the values themselves need, and no Python object is made that the user did not make, except where a type
//! has no faster way (decimals, aware times, numpy scalars).
#![expect(unsafe_code, reason = "values are read through CPython's C API")]

mod builders;
mod column;
mod decimal;
mod declared;
mod dict;
mod import;
mod inside;
mod misfit;
mod nested;
mod recast;
mod release;
mod rows;
mod scalar;
mod stream;
mod time;
mod unfit;

pub(crate) use declared::declared;
pub(crate) use import::{ArrowBatches, import, import_schema, is_arrow};
pub(crate) use misfit::describe;
pub(crate) use recast::{Recast, check_json, under};
pub(crate) use rows::{Layout, Rows};
pub(crate) use time::EPOCH_DAYS;
#[cfg(test)]
pub(crate) use time::days_from_civil;
