//! The actions: what clients do besides asking for rows and sending them.
//!
//! Those of Flight SQL are wrapped in an Any; those of Flight itself (cancelling, renewing, session options) are their
//! messages as they are.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any, ProstMessageExt,
};
use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightInfo, IpcMessage,
    RenewFlightEndpointRequest, SchemaAsIpc,
};
use bytes::Bytes;
use couatl_core::Error;
use prost::Message;
use tonic::Status;

use crate::client::{Client, Sessions};
use crate::options::{self, CloseResult, Options};
use crate::service::{Created, Service, no_substrait, unsupported};
use crate::status::{internal, status};
use crate::wire::wire_schema;

/// Every action, with what it does.
const ACTIONS: [(&str, &str); 8] = [
    ("CreatePreparedStatement", "Parses and plans a statement, for one or many executions."),
    ("ClosePreparedStatement", "Forgets a prepared statement."),
    ("CancelFlightInfo", "Ends a query, whether it is being fetched or waits to be."),
    ("CancelQuery", "The same, as older clients say it."),
    ("RenewFlightEndpoint", "Keeps the ticket of a query for longer."),
    ("SetSessionOptions", "Changes settings of the session: catalog, schema, and those that SHOW ALL lists."),
    ("GetSessionOptions", "Lists the settings of the session."),
    ("CloseSession", "Forgets the session and its settings."),
];

/// The tag of `optional bool is_update = 4`, a varint, in ActionCreatePreparedStatementResult.
const IS_UPDATE_TAG: u8 = 4 << 3;

/// What ListActions lists.
pub(crate) fn types() -> impl Iterator<Item = ActionType> {
    ACTIONS
        .into_iter()
        .map(|(name, description)| ActionType { r#type: name.to_owned(), description: description.to_owned() })
}

/// Whether an action ends something: such ones are taken while the server shuts down, so that a client whose query has
/// ended in its grace ends in good order.
pub(crate) fn ends(action: &Action) -> bool {
    matches!(&*action.r#type, "ClosePreparedStatement" | "CancelFlightInfo" | "CancelQuery" | "CloseSession")
}

/// Does what an action says, and gives its result, if it has one.
pub(crate) async fn perform(
    service: &Service,
    sessions: &Sessions,
    client: &Client,
    action: &Action,
) -> Result<Option<Bytes>, Status> {
    let body: Bytes = match &*action.r#type {
        "CreatePreparedStatement" => {
            let request: ActionCreatePreparedStatementRequest = wrapped(action)?;
            created(service.create(client, request.query, request.transaction_id).await?)?
        }
        "ClosePreparedStatement" => {
            let request: ActionClosePreparedStatementRequest = wrapped(action)?;
            service.close(client, &request.prepared_statement_handle);
            return Ok(None);
        }
        "CancelFlightInfo" => {
            let request: CancelFlightInfoRequest = plain(action)?;
            let status = cancel(service, client, &request.info.unwrap_or_default()).into();
            CancelFlightInfoResult { status }.encode_to_vec().into()
        }
        "CancelQuery" => {
            let request: ActionCancelQueryRequest = wrapped(action)?;
            let info = FlightInfo::decode(request.info).map_err(|error| misread(action, &error))?;
            // Its numbers are those of CancelStatus.
            ActionCancelQueryResult { result: cancel(service, client, &info).into() }.as_any().encode_to_vec().into()
        }
        "RenewFlightEndpoint" => {
            let request: RenewFlightEndpointRequest = plain(action)?;
            service.renew(client, request.endpoint.unwrap_or_default())?.encode_to_vec().into()
        }
        "SetSessionOptions" => options::set(&client.session, &plain::<Options>(action)?).encode_to_vec().into(),
        "GetSessionOptions" => options::get(&client.session).encode_to_vec().into(),
        "CloseSession" => {
            sessions.close(client);
            CloseResult::closed().encode_to_vec().into()
        }
        "BeginTransaction" | "EndTransaction" | "BeginSavepoint" | "EndSavepoint" => {
            return Err(unsupported("transactions are not offered: each statement takes effect on its own"));
        }
        "CreatePreparedSubstraitPlan" => return Err(no_substrait()),
        other => {
            return Err(unsupported(format!("the action '{other}' is not offered; ListActions lists those that are")));
        }
    };
    Ok(Some(body))
}

fn cancel(service: &Service, client: &Client, info: &FlightInfo) -> CancelStatus {
    if service.cancel(client, info) { CancelStatus::Cancelled } else { CancelStatus::NotCancellable }
}

/// The request of an action of Flight.
fn plain<M: Message + Default>(action: &Action) -> Result<M, Status> {
    M::decode(&*action.body).map_err(|error| misread(action, &error))
}

/// The request of an action of Flight SQL.
fn wrapped<M: ProstMessageExt>(action: &Action) -> Result<M, Status> {
    let message = Any::decode(&*action.body).map_err(|error| misread(action, &error))?;
    let request = message.unpack().map_err(|error| misread(action, &error))?;
    request.ok_or_else(|| misread(action, &format!("it holds {}", message.type_url)))
}

fn misread(action: &Action, error: &dyn std::fmt::Display) -> Status {
    status(&Error::invalid_argument(format!("this is no request for {}: {error}", action.r#type)))
}

pub(crate) fn schema_message(schema: &Schema) -> Result<Bytes, Status> {
    let message: IpcMessage = SchemaAsIpc::new(schema, &IpcWriteOptions::default()).try_into().map_err(internal)?;
    Ok(message.0)
}

/// The result of CreatePreparedStatement, with the field that arrow-flight's message does not have: fields of a protobuf
/// message may follow each other in any order, so that it is appended.
fn created(created: Created) -> Result<Bytes, Status> {
    let result = ActionCreatePreparedStatementResult {
        prepared_statement_handle: created.handle,
        // None at all says that it is not known yet.
        dataset_schema: match created.statement.prepared.has_schema() {
            true => schema_message(&created.statement.schema())?,
            false => Bytes::new(),
        },
        parameter_schema: schema_message(&bindable(&created.statement.prepared.parameters()))?,
    };
    Ok(with_is_update(&result, created.statement.prepared.is_update()))
}

/// The parameters as clients may bind them. JDBC's driver fills vectors of the types that it is told, and has no value
/// for a Null: a parameter that may be anything is text.
fn bindable(parameters: &Schema) -> SchemaRef {
    let fields = parameters.fields().iter().map(|field| match field.data_type() {
        DataType::Null => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8)),
        _ => Arc::clone(field),
    });
    wire_schema(&Schema::new(fields.collect::<Vec<_>>()))
}

fn with_is_update(result: &ActionCreatePreparedStatementResult, is_update: bool) -> Bytes {
    let mut message = result.as_any();
    let mut value = Vec::from(message.value);
    value.extend([IS_UPDATE_TAG, u8::from(is_update)]);
    message.value = value.into();
    message.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The message of the protocol's newest version.
    #[derive(Clone, PartialEq, prost::Message)]
    struct NewResult {
        #[prost(bytes = "bytes", tag = "1")]
        prepared_statement_handle: Bytes,
        #[prost(bytes = "bytes", tag = "2")]
        dataset_schema: Bytes,
        #[prost(bytes = "bytes", tag = "3")]
        parameter_schema: Bytes,
        #[prost(bool, optional, tag = "4")]
        is_update: Option<bool>,
    }

    #[test]
    fn old_and_new_clients_read_the_result() {
        let result = ActionCreatePreparedStatementResult {
            prepared_statement_handle: "handle".into(),
            dataset_schema: "dataset".into(),
            parameter_schema: "parameters".into(),
        };
        for is_update in [false, true] {
            let message = Any::decode(&*with_is_update(&result, is_update)).unwrap();
            let old: ActionCreatePreparedStatementResult = message.unpack().unwrap().unwrap();
            assert_eq!(old, result);
            let new = NewResult::decode(&*message.value).unwrap();
            assert_eq!(new.is_update, Some(is_update));
            assert_eq!(new.prepared_statement_handle, "handle");
            assert_eq!(new.parameter_schema, "parameters");
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let action = Action { r#type: "CancelQuery".to_owned(), body: Bytes::from_static(b"\xff\xff") };
        for refused in [plain::<Options>(&action).err(), wrapped::<ActionCancelQueryRequest>(&action).err()] {
            let status = refused.unwrap();
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
            assert!(status.message().starts_with("this is no request for CancelQuery: "), "{status}");
        }
        let other = Action { body: ActionCancelQueryResult::default().as_any().encode_to_vec().into(), ..action };
        let status = wrapped::<ActionCancelQueryRequest>(&other).unwrap_err();
        assert!(status.message().contains("it holds type.googleapis.com/"), "{status}");
    }
}
