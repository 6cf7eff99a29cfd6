//! The commands of Flight SQL, each answered from the session.
//!
//! What runs when: preparing has no side effect, since drivers prepare whatever they are given. A statement that changes
//! something runs in GetFlightInfo or in DoPut, exactly once, and never in DoGet, which clients retry. A query runs in
//! DoGet; its ticket may be redeemed again while it lives, and each time the query runs anew.

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::server::{DoPutError, FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, Any, Command, CommandGetCatalogs, CommandGetCrossReference,
    CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys, CommandGetPrimaryKeys, CommandGetSqlInfo,
    CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo, CommandPreparedStatementQuery,
    CommandPreparedStatementUpdate, CommandStatementIngest, CommandStatementQuery, CommandStatementSubstraitPlan,
    CommandStatementUpdate, DoPutPreparedStatementResult, DoPutUpdateResult, ProstMessageExt, SqlInfo,
    TicketStatementQuery,
};
use arrow_flight::{Action, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest, Ticket};
use arrow_flight::{HandshakeResponse, PutResult};
use bytes::Bytes;
use couatl_core::{Error, Result};
use couatl_datafusion::Session;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use prost::Message;
use tonic::{Request, Response, Status, Streaming};

use crate::handle::{HandleLimits, Handles};
use crate::ingest::ingestion;
use crate::parameters::{Parameters, Upload};
use crate::runtime::QueryRuntime;
use crate::statement::Statement;
use crate::status::{internal, status};
use crate::stream::{prepare, respond};
use crate::{metadata, sql_info, type_info};

/// The commands, on a session and the handles that clients hold of it.
pub(crate) struct Service {
    session: Session,
    runtime: QueryRuntime,
    tickets: Handles<Statement>,
    statements: Handles<Statement>,
}

/// What a client gets of a new prepared statement.
pub(crate) struct Created {
    pub(crate) handle: Bytes,
    pub(crate) statement: Statement,
}

impl Service {
    pub(crate) fn new(
        session: Session,
        runtime: QueryRuntime,
        tickets: HandleLimits,
        statements: HandleLimits,
    ) -> Self {
        Self { session, runtime, tickets: Handles::new(tickets), statements: Handles::new(statements) }
    }

    /// CreatePreparedStatement. The wrapper encodes it: arrow-flight's result has no place for `is_update`.
    pub(crate) async fn create(&self, sql: String, transaction: Option<Bytes>) -> Result<Created, Status> {
        let statement = self.prepared(sql, transaction).await?;
        let handle = self.statements.insert(statement.clone());
        Ok(Created { handle, statement })
    }

    /// The schema that the answer to a command has: GetSchema.
    pub(crate) async fn schema(&self, command: Command) -> Result<SchemaRef, Status> {
        match command {
            Command::CommandStatementQuery(command) => {
                Ok(self.prepared(command.query, command.transaction_id).await?.schema())
            }
            Command::CommandPreparedStatementQuery(command) => {
                Ok(self.statement(&command.prepared_statement_handle)?.schema())
            }
            command => metadata_schema(&command)
                .ok_or_else(|| unsupported(format!("the schema of {} is not offered", command.type_url()))),
        }
    }

    async fn prepared(&self, sql: String, transaction: Option<Bytes>) -> Result<Statement, Status> {
        no_transaction(transaction.as_deref())?;
        self.run(Statement::prepare(self.session.clone(), sql)).await
    }

    fn statement(&self, handle: &[u8]) -> Result<Statement, Status> {
        self.statements.get(handle).ok_or_else(no_statement)
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T, Status> {
        self.runtime.run(work).await.map_err(|error| status(&error))
    }

    /// Runs an update and says how many rows it wrote; -1 says that this is not known.
    async fn update(&self, statement: Statement) -> Result<i64, Status> {
        Ok(count(self.run(statement.update(self.session.clone())).await?))
    }

    /// The answer to a statement that a client wants executed. All that changes something has run then.
    async fn execute(
        &self,
        statement: Statement,
        descriptor: FlightDescriptor,
    ) -> Result<Response<FlightInfo>, Status> {
        let statement = self.run(statement.run_leading(self.session.clone())).await?;
        let schema = statement.schema();
        if statement.prepared.is_update() {
            let count = self.update(statement).await?;
            return flight_info(&schema, descriptor).map(|info| Response::new(info.with_total_records(count)));
        }
        let ticket = TicketStatementQuery { statement_handle: self.tickets.insert(statement) };
        Ok(Response::new(flight_info(&schema, descriptor)?.with_endpoint(endpoint(&ticket))))
    }

    /// The rows of a statement.
    async fn rows(&self, statement: Statement) -> FlightResponse {
        let schema = statement.schema();
        let rows = self.run(statement.rows(self.session.clone())).await?;
        self.send(rows, schema)
    }

    /// The rows of a metadata command.
    async fn listed(&self, rows: impl Future<Output = Result<RecordBatch>> + Send + 'static) -> FlightResponse {
        let batch = self.run(rows).await?;
        let schema = batch.schema();
        self.send(stream::iter([Ok(batch)]).boxed(), schema)
    }

    fn send(&self, rows: BoxStream<'static, Result<RecordBatch>>, schema: SchemaRef) -> FlightResponse {
        let rows = prepare(rows, SchemaRef::clone(&schema));
        respond(self.runtime.stream(rows), schema)
    }
}

type FlightResponse = Result<Response<<Service as FlightService>::DoGetStream>, Status>;

fn no_statement() -> Status {
    status(&Error::not_found("no such prepared statement: it was closed, or not used for too long"))
}

pub(crate) fn unsupported(message: impl Into<String>) -> Status {
    status(&Error::unsupported(message))
}

fn no_transaction(id: Option<&[u8]>) -> Result<(), Status> {
    match id {
        None | Some([]) => Ok(()),
        Some(_) => Err(unsupported("transactions are not offered: each statement takes effect on its own")),
    }
}

/// The schema of a metadata command, which does not depend on what there is.
fn metadata_schema(command: &Command) -> Option<SchemaRef> {
    Some(match command {
        Command::CommandGetCatalogs(command) => command.into_builder().schema(),
        Command::CommandGetDbSchemas(command) => command.clone().into_builder().schema(),
        Command::CommandGetTables(command) => metadata::tables_schema(command.include_schema),
        Command::CommandGetTableTypes(command) => command.into_builder().schema(),
        Command::CommandGetSqlInfo(_) => sql_info::schema(),
        Command::CommandGetXdbcTypeInfo(_) => type_info::schema(),
        Command::CommandGetPrimaryKeys(_) => SchemaRef::clone(&metadata::PRIMARY_KEYS),
        Command::CommandGetExportedKeys(_)
        | Command::CommandGetImportedKeys(_)
        | Command::CommandGetCrossReference(_) => SchemaRef::clone(&metadata::FOREIGN_KEYS),
        _ => return None,
    })
}

/// The count of an update as clients know it: -1 where there is none.
fn count(rows: Option<u64>) -> i64 {
    rows.and_then(|rows| i64::try_from(rows).ok()).unwrap_or(-1)
}

/// A FlightInfo without endpoints.
fn flight_info(schema: &Schema, descriptor: FlightDescriptor) -> Result<FlightInfo, Status> {
    Ok(FlightInfo::new().try_with_schema(schema).map_err(internal)?.with_descriptor(descriptor))
}

/// An endpoint without location: wherever the client asked, it asks again.
fn endpoint(ticket: &impl ProstMessageExt) -> FlightEndpoint {
    FlightEndpoint::new().with_ticket(Ticket::new(ticket.as_any().encode_to_vec()))
}

/// The answer to a metadata command: the command is its own ticket.
fn metadata_info(command: Command, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
    let schema =
        metadata_schema(&command).ok_or_else(|| unsupported(format!("{} is not offered", command.type_url())))?;
    let ticket = Ticket::new(command.into_any().encode_to_vec());
    let info = flight_info(&schema, request.into_inner())?;
    Ok(Response::new(info.with_endpoint(FlightEndpoint::new().with_ticket(ticket))))
}

#[tonic::async_trait]
impl FlightSqlService for Service {
    type FlightService = Self;

    /// Accepts everyone: the listener is open, and reaches no further than this machine.
    async fn do_handshake(
        &self,
        _request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<BoxStream<'static, Result<HandshakeResponse, Status>>>, Status> {
        Ok(Response::new(stream::iter([Ok(HandshakeResponse::default())]).boxed()))
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let statement = self.prepared(query.query, query.transaction_id).await?;
        self.execute(statement, request.into_inner()).await
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let statement = self.statement(&query.prepared_statement_handle)?;
        self.execute(statement, request.into_inner()).await
    }

    async fn do_get_statement(&self, ticket: TicketStatementQuery, _request: Request<Ticket>) -> FlightResponse {
        let statement = self.tickets.get(&ticket.statement_handle).ok_or_else(|| {
            status(&Error::not_found("no such ticket: it has expired, or was not issued here; run the query again"))
        })?;
        self.rows(statement).await
    }

    /// Clients that make tickets of their own use the command as one.
    async fn do_get_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        _request: Request<Ticket>,
    ) -> FlightResponse {
        self.rows(self.statement(&query.prepared_statement_handle)?).await
    }

    async fn do_put_statement_update(
        &self,
        command: CommandStatementUpdate,
        _request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        self.update(self.prepared(command.query, command.transaction_id).await?).await
    }

    async fn do_put_prepared_statement_query(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let handle = query.prepared_statement_handle;
        self.statement(&handle)?;
        let parameters = Upload::new(request.into_inner()).collect().await?;
        self.statements.update(&handle, |statement| statement.parameters = parameters).ok_or_else(no_statement)?;
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(handle) })
    }

    /// Runs it with the rows of this upload, as they arrive; without any, with those that were bound before.
    async fn do_put_prepared_statement_update(
        &self,
        command: CommandPreparedStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let statement = self.statement(&command.prepared_statement_handle)?;
        let upload = Upload::new(request.into_inner());
        if !statement.prepared.is_update() {
            return match upload.collect().await? {
                Parameters::None => self.update(statement).await,
                parameters => self.update(Statement { parameters, ..statement }).await,
            };
        }
        let Some(rows) = upload.rows().await? else { return self.update(statement).await };
        let session = self.session.clone();
        let written = async move { session.execute_rows(&statement.prepared, rows).await };
        Ok(count(self.run(written).await?))
    }

    async fn do_action_close_prepared_statement(
        &self,
        query: ActionClosePreparedStatementRequest,
        _request: Request<Action>,
    ) -> Result<(), Status> {
        // Closing what is closed or has expired is no error: the client has what it wants.
        self.statements.remove(&query.prepared_statement_handle);
        Ok(())
    }

    async fn get_flight_info_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        metadata_info(Command::CommandGetCatalogs(query), request)
    }

    async fn do_get_catalogs(&self, _query: CommandGetCatalogs, _request: Request<Ticket>) -> FlightResponse {
        let context = self.session.context().clone();
        self.listed(async move { metadata::catalogs(&context) }).await
    }

    async fn get_flight_info_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        metadata_info(Command::CommandGetDbSchemas(query), request)
    }

    async fn do_get_schemas(&self, query: CommandGetDbSchemas, _request: Request<Ticket>) -> FlightResponse {
        let context = self.session.context().clone();
        self.listed(async move { metadata::schemas(&context, query) }).await
    }

    async fn get_flight_info_tables(
        &self,
        query: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        metadata_info(Command::CommandGetTables(query), request)
    }

    async fn do_get_tables(&self, query: CommandGetTables, _request: Request<Ticket>) -> FlightResponse {
        self.listed(metadata::tables(self.session.context().clone(), query)).await
    }

    async fn get_flight_info_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        metadata_info(Command::CommandGetTableTypes(query), request)
    }

    async fn do_get_table_types(&self, _query: CommandGetTableTypes, _request: Request<Ticket>) -> FlightResponse {
        self.listed(async { metadata::table_types() }).await
    }

    async fn get_flight_info_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        metadata_info(Command::CommandGetSqlInfo(query), request)
    }

    async fn do_get_sql_info(&self, query: CommandGetSqlInfo, _request: Request<Ticket>) -> FlightResponse {
        let context = self.session.context().clone();
        self.listed(async move { sql_info::sql_info(&context, query.info) }).await
    }

    async fn get_flight_info_xdbc_type_info(
        &self,
        query: CommandGetXdbcTypeInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        metadata_info(Command::CommandGetXdbcTypeInfo(query), request)
    }

    async fn do_get_xdbc_type_info(&self, query: CommandGetXdbcTypeInfo, _request: Request<Ticket>) -> FlightResponse {
        self.listed(async move { type_info::type_info(query.data_type) }).await
    }

    async fn get_flight_info_primary_keys(
        &self,
        query: CommandGetPrimaryKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        metadata_info(Command::CommandGetPrimaryKeys(query), request)
    }

    async fn do_get_primary_keys(&self, _query: CommandGetPrimaryKeys, _request: Request<Ticket>) -> FlightResponse {
        self.send(stream::empty().boxed(), SchemaRef::clone(&metadata::PRIMARY_KEYS))
    }

    async fn get_flight_info_exported_keys(
        &self,
        query: CommandGetExportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        metadata_info(Command::CommandGetExportedKeys(query), request)
    }

    async fn do_get_exported_keys(&self, _query: CommandGetExportedKeys, _request: Request<Ticket>) -> FlightResponse {
        self.send(stream::empty().boxed(), SchemaRef::clone(&metadata::FOREIGN_KEYS))
    }

    async fn get_flight_info_imported_keys(
        &self,
        query: CommandGetImportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        metadata_info(Command::CommandGetImportedKeys(query), request)
    }

    async fn do_get_imported_keys(&self, _query: CommandGetImportedKeys, _request: Request<Ticket>) -> FlightResponse {
        self.send(stream::empty().boxed(), SchemaRef::clone(&metadata::FOREIGN_KEYS))
    }

    async fn get_flight_info_cross_reference(
        &self,
        query: CommandGetCrossReference,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        metadata_info(Command::CommandGetCrossReference(query), request)
    }

    async fn do_get_cross_reference(
        &self,
        _query: CommandGetCrossReference,
        _request: Request<Ticket>,
    ) -> FlightResponse {
        self.send(stream::empty().boxed(), SchemaRef::clone(&metadata::FOREIGN_KEYS))
    }

    async fn get_flight_info_substrait_plan(
        &self,
        query: CommandStatementSubstraitPlan,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        metadata_info(Command::CommandStatementSubstraitPlan(query), request)
    }

    async fn get_flight_info_fallback(
        &self,
        command: Command,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        metadata_info(command, request)
    }

    async fn do_get_fallback(&self, _request: Request<Ticket>, message: Any) -> FlightResponse {
        Err(unsupported(format!("{} is no ticket of this server", message.type_url)))
    }

    async fn do_put_statement_ingest(
        &self,
        command: CommandStatementIngest,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        no_transaction(command.transaction_id.as_deref())?;
        let ingest = ingestion(&command)?;
        let upload = Upload::new(request.into_inner());
        let Some(rows) = upload.rows().await? else {
            return Err(status(&Error::invalid_argument("the upload has no columns: there is nothing to ingest")));
        };
        let session = self.session.clone();
        let written = self.run(async move { session.ingest(ingest, rows).await }).await?;
        Ok(count(Some(written)))
    }

    async fn do_put_substrait_plan(
        &self,
        _command: CommandStatementSubstraitPlan,
        _request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(unsupported("Substrait plans are not offered: send SQL"))
    }

    async fn do_put_fallback(
        &self,
        _request: Request<PeekableFlightDataStream>,
        message: Any,
    ) -> Result<Response<BoxStream<'static, Result<PutResult, Status>>>, Status> {
        Err(unsupported(format!("an upload for {} is not offered", message.type_url)))
    }

    async fn do_put_error_callback(
        &self,
        _request: Request<PeekableFlightDataStream>,
        error: DoPutError,
    ) -> Result<Response<BoxStream<'static, Result<PutResult, Status>>>, Status> {
        match error {
            // Drivers that have no rows to ingest say nothing at all, and want to hear how many those were.
            DoPutError::MissingCommand => {
                let app_metadata = DoPutUpdateResult { record_count: 0 }.encode_to_vec().into();
                Ok(Response::new(stream::iter([Ok(PutResult { app_metadata })]).boxed()))
            }
            DoPutError::MissingFlightDescriptor => {
                Err(status(&Error::invalid_argument("the first message of an upload must have a descriptor")))
            }
        }
    }

    async fn do_exchange_fallback(
        &self,
        _request: Request<Streaming<FlightData>>,
    ) -> Result<Response<<Self as FlightService>::DoExchangeStream>, Status> {
        Err(unsupported("DoExchange is not offered"))
    }

    /// Nothing is registered: [`sql_info`] knows it all.
    async fn register_sql_info(&self, _id: i32, _result: &SqlInfo) {}
}
