//! Bulk ingestion: what a client asks for when it uploads rows for a table.

use arrow_flight::sql::{CommandStatementIngest, TableExistsOption, TableNotExistOption};
use couatl_core::Error;
use couatl_datafusion::{IfExists, Ingest};
use datafusion::common::TableReference;
use tonic::Status;

use crate::service::unsupported;
use crate::status::status;

/// What an ingestion asks for.
pub(crate) fn ingestion(command: &CommandStatementIngest) -> Result<Ingest, Status> {
    if command.temporary {
        return Err(unsupported("temporary tables are not offered: ingest into a table, and drop it"));
    }
    let options = command.table_definition_options.unwrap_or_default();
    let create = match options.if_not_exist() {
        TableNotExistOption::Create => true,
        TableNotExistOption::Fail => false,
        TableNotExistOption::Unspecified => {
            return Err(unspecified("if_not_exist", "TABLE_NOT_EXIST_OPTION_CREATE or TABLE_NOT_EXIST_OPTION_FAIL"));
        }
    };
    let if_exists = match options.if_exists() {
        TableExistsOption::Fail => IfExists::Fail,
        TableExistsOption::Append => IfExists::Append,
        TableExistsOption::Replace => IfExists::Replace,
        TableExistsOption::Unspecified => {
            return Err(unspecified("if_exists", "TABLE_EXISTS_OPTION_FAIL, …_APPEND or …_REPLACE"));
        }
    };
    let table = match (&command.catalog, &command.schema) {
        (Some(catalog), Some(schema)) => TableReference::full(&**catalog, &**schema, &*command.table),
        (Some(catalog), None) => TableReference::full(&**catalog, "public", &*command.table),
        (None, Some(schema)) => TableReference::partial(&**schema, &*command.table),
        (None, None) => TableReference::bare(&*command.table),
    };
    Ok(Ingest { table, create, if_exists })
}

fn unspecified(option: &str, choices: &str) -> Status {
    status(&Error::invalid_argument(format!("an ingestion says what it wants: {option} is {choices}")))
}
