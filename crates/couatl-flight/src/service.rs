//! The commands of Flight SQL, each answered from the session.
//!
//! What runs when: preparing has no side effect, since drivers prepare whatever they are given. A statement that changes
//! something runs in GetFlightInfo or in DoPut, exactly once, and never in DoGet, which clients retry. A query runs in
//! DoGet; its ticket may be redeemed again while it lives, and each time the query runs anew.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::server::{DoPutError, FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    Any, Command, CommandGetCatalogs, CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys,
    CommandGetImportedKeys, CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables,
    CommandGetXdbcTypeInfo, CommandPreparedStatementQuery, CommandPreparedStatementUpdate, CommandStatementIngest,
    CommandStatementQuery, CommandStatementSubstraitPlan, CommandStatementUpdate, DoPutPreparedStatementResult,
    DoPutUpdateResult, ProstMessageExt, SqlInfo, TicketStatementQuery,
};
use arrow_flight::{
    FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest, HandshakeResponse, PollInfo, PutResult,
    Ticket,
};
use bytes::Bytes;
use couatl_core::{Error, Result};
use couatl_datafusion::Part;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use parking_lot::Mutex;
use prost::Message;
use prost_types::Timestamp;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::client::Client;
use crate::handle::{HandleLimits, Handles, Owner, Weigh};
use crate::ingest::ingestion;
use crate::parameters::{Parameters, Upload};
use crate::poll::Running;
use crate::runtime::QueryRuntime;
use crate::server::ServerConfig;
use crate::statement::Statement;
use crate::status::{internal, status};
use crate::stream::{prepare, respond, with_heartbeat};
use crate::wire::Dictionaries;
use crate::{metadata, poll, sql_info, type_info};

/// The handle of what an update gives, which is no rows: some clients fetch it, and want to find an endpoint for that.
const NOTHING: &[u8] = b"nothing";

/// The longest command that an answer repeats: with it, the answer might not be a message that clients take.
const MOST_REPEATED: usize = 1024 * 1024;

/// How long a statement runs on whose client does not poll; a poll takes less.
const POLL_IDLE: Duration = Duration::from_secs(60);

/// The commands, and the handles that clients hold.
pub(crate) struct Service {
    runtime: QueryRuntime,
    tickets: Handles<Query>,
    statements: Handles<Statement>,
    polls: Handles<Running>,
    fetched: Arc<Mutex<Fetched>>,
    columns: Arc<metadata::KnownColumns>,
    ticket_idle: Duration,
    statement_idle: Duration,
    heartbeat: Option<Duration>,
}

/// A query that waits to be fetched, or is.
#[derive(Clone)]
struct Query {
    statement: Statement,
    /// The part of its rows that it is about; all of them, where there is none.
    part: Option<Part>,
    cancelled: CancellationToken,
}

/// The queries that are being fetched, by their tickets, however long it takes, and by how many.
type Fetched = HashMap<Bytes, (Query, usize)>;

/// A query that is being fetched: for as long as this lives.
struct Fetching {
    handle: Bytes,
    all: Arc<Mutex<Fetched>>,
}

impl Fetching {
    fn new(all: &Arc<Mutex<Fetched>>, handle: Bytes, query: &Query) -> Self {
        all.lock().entry(handle.clone()).or_insert_with(|| (query.clone(), 0)).1 += 1;
        Self { handle, all: Arc::clone(all) }
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        if let Entry::Occupied(mut entry) = all.entry(self.handle.clone()) {
            entry.get_mut().1 -= 1;
            if entry.get().1 == 0 {
                entry.remove();
            }
        }
    }
}

impl Weigh for Query {
    fn bytes(&self) -> usize {
        self.statement.bytes()
    }

    fn owner(&self) -> Owner {
        self.statement.owner()
    }
}

/// What a client gets of a new prepared statement.
pub(crate) struct Created {
    pub(crate) handle: Bytes,
    pub(crate) statement: Statement,
}

impl Service {
    pub(crate) fn new(runtime: QueryRuntime, config: &ServerConfig) -> Self {
        let ServerConfig { tickets, statements, heartbeat, .. } = *config;
        Self {
            runtime,
            tickets: Handles::new(tickets),
            statements: Handles::new(statements),
            polls: Handles::new(HandleLimits { idle: POLL_IDLE, ..tickets }),
            fetched: Arc::default(),
            columns: Arc::default(),
            ticket_idle: tickets.idle,
            statement_idle: statements.idle,
            heartbeat,
        }
    }

    /// Lets go of what nobody has used for too long, again and again.
    pub(crate) async fn sweep(&self) {
        tokio::join!(self.tickets.sweep_often(), self.statements.sweep_often(), self.polls.sweep_often());
    }

    /// How many handles there are, by what they are of.
    pub(crate) fn handles(&self) -> [(&'static str, usize); 4] {
        [
            ("fetched", self.fetched.lock().len()),
            ("poll", self.polls.count()),
            ("statement", self.statements.count()),
            ("ticket", self.tickets.count()),
        ]
    }

    /// CreatePreparedStatement. The wrapper encodes it: arrow-flight's result has no place for `is_update`.
    pub(crate) async fn create(
        &self,
        client: &Client,
        sql: String,
        transaction: Option<Bytes>,
    ) -> Result<Created, Status> {
        let statement = self.prepared(client, sql, transaction).await.map_err(|status| match status.code() {
            // Drivers would take it that nothing can be prepared here.
            Code::Unimplemented => Status::with_details_and_metadata(
                Code::InvalidArgument,
                status.message(),
                Bytes::copy_from_slice(status.details()),
                status.metadata().clone(),
            ),
            _ => status,
        })?;
        let handle = self.statements.insert(statement.clone());
        Ok(Created { handle, statement })
    }

    /// ClosePreparedStatement. Closing what is closed or has expired is no error: the client has what it wants.
    pub(crate) fn close(&self, client: &Client, handle: &[u8]) {
        if self.statement(client, handle).is_ok() {
            self.statements.remove(handle);
        }
    }

    /// The schema that the answer to a command has: GetSchema.
    pub(crate) async fn schema(&self, client: &Client, command: Command) -> Result<SchemaRef, Status> {
        match command {
            Command::CommandStatementQuery(command) => {
                announced(&self.prepared(client, command.query, command.transaction_id).await?)
            }
            Command::CommandPreparedStatementQuery(command) => {
                let statement = self.statement(client, &command.prepared_statement_handle)?;
                announced(&self.run(statement.bound()).await?)
            }
            Command::CommandStatementSubstraitPlan(_) => Err(no_substrait()),
            command => metadata_schema(&command)
                .ok_or_else(|| unsupported(format!("the schema of {} is not offered", command.type_url()))),
        }
    }

    async fn prepared(&self, client: &Client, sql: String, transaction: Option<Bytes>) -> Result<Statement, Status> {
        no_transaction(transaction.as_deref())?;
        self.run(Statement::prepare(client.session.clone(), sql)).await
    }

    /// The statement of a handle, if it is the client's.
    fn statement(&self, client: &Client, handle: &[u8]) -> Result<Statement, Status> {
        self.statements.get(handle).and_then(|statement| client.own(statement)).ok_or_else(no_statement)
    }

    /// The query of a ticket, if it is the client's.
    fn query(&self, client: &Client, handle: &[u8]) -> Option<Query> {
        let query = self.tickets.get(handle).or_else(|| Some(self.fetched.lock().get(handle)?.0.clone()))?;
        Some(Query { statement: client.own(query.statement)?, ..query })
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T, Status> {
        self.runtime.run(work).await.map_err(|error| status(&error))
    }

    /// Runs an update and says how many rows it wrote, where that is known.
    async fn update(&self, statement: Statement) -> Result<Option<u64>, Status> {
        self.run(statement.update()).await
    }

    /// The answer to a statement that a client wants executed. All that changes something has run then.
    async fn execute(
        &self,
        statement: Statement,
        descriptor: FlightDescriptor,
    ) -> Result<Response<FlightInfo>, Status> {
        let statement = self.run(statement.run_leading()).await?;
        let schema = statement.schema();
        if statement.prepared.is_update() {
            let total = count(self.update(statement).await?);
            let ticket = TicketStatementQuery { statement_handle: Bytes::from_static(NOTHING) };
            let info = flight_info(&schema, descriptor)?.with_endpoint(endpoint(&ticket)).with_total_records(total);
            return Ok(Response::new(info));
        }
        let parts = {
            let statement = statement.clone();
            self.run(async move { statement.parts().await }).await?
        };
        // Whoever cancels one of them cancels all.
        let cancelled = CancellationToken::new();
        let is_whole = parts.is_empty();
        let parts = if is_whole { vec![None] } else { parts.into_iter().map(Some).collect() };
        let mut info = flight_info(&schema, descriptor)?.with_ordered(is_whole);
        for part in parts {
            let query = Query { statement: statement.clone(), part, cancelled: cancelled.clone() };
            let ticket = TicketStatementQuery { statement_handle: self.tickets.insert(query) };
            info = info.with_endpoint(endpoint(&ticket).with_expiration_time(self.ticket_expiration()));
        }
        Ok(Response::new(info))
    }

    /// Until when a ticket that is used now can be used again.
    fn ticket_expiration(&self) -> Timestamp {
        (SystemTime::now() + self.ticket_idle).into()
    }

    /// PollFlightInfo: what there is of a statement by now.
    pub(crate) async fn poll(
        self: &Arc<Self>,
        client: &Client,
        request: Request<FlightDescriptor>,
    ) -> Result<PollInfo, Status> {
        let descriptor = request.get_ref().clone();
        if let Some(handle) = poll::handle(&descriptor) {
            let running = self.polls.get(&handle).filter(|running| client.owns(running.session()));
            let running = running.ok_or_else(|| {
                status(&Error::not_found("no such statement: it has ended, or was not polled for too long"))
            })?;
            running.polled_by(client);
            let answer = running.answer(poll::WAIT, |_| handle.clone()).await;
            match &answer {
                Ok(PollInfo { flight_descriptor: Some(_), .. }) => drop(self.polls.get(&handle)),
                _ => drop(self.polls.remove(&handle)),
            }
            return answer;
        }
        let statement = match command(&descriptor.cmd)? {
            Command::CommandStatementQuery(query) => self.prepared(client, query.query, query.transaction_id).await?,
            Command::CommandPreparedStatementQuery(query) => {
                self.statement(client, &query.prepared_statement_handle)?
            }
            _ => return self.get_flight_info(request).await.map(|info| poll::finished(info.into_inner())),
        };
        let unfinished = flight_info(&statement.schema(), descriptor.clone())?;
        let service = Arc::clone(self);
        let executed = async move { service.execute(statement, descriptor).await.map(Response::into_inner) };
        Running::start(client, executed, unfinished)
            .answer(poll::FIRST_WAIT, |running| self.polls.insert(running))
            .await
    }

    /// CancelFlightInfo: ends what an info stands for, whether it is being fetched, waits to be, or runs while it is
    /// polled for. Whether there was any of it.
    pub(crate) fn cancel(&self, client: &Client, info: &FlightInfo) -> bool {
        let polled = self.polls.get(&info.app_metadata).filter(|running| client.owns(running.session()));
        let mut found = polled.is_some();
        if let Some(running) = polled {
            running.cancel();
            self.polls.remove(&info.app_metadata);
        }
        for handle in info.endpoint.iter().filter_map(query_handle) {
            if let Some(query) = self.query(client, &handle) {
                self.tickets.remove(&handle);
                query.cancelled.cancel();
                found = true;
            }
        }
        found
    }

    /// RenewFlightEndpoint: the same endpoint, for longer.
    pub(crate) fn renew(&self, client: &Client, endpoint: FlightEndpoint) -> Result<FlightEndpoint, Status> {
        match command(endpoint.ticket.as_ref().map_or(&[][..], |ticket| &ticket.ticket[..])) {
            Ok(Command::TicketStatementQuery(ticket)) if self.query(client, &ticket.statement_handle).is_some() => {
                Ok(endpoint.with_expiration_time(self.ticket_expiration()))
            }
            // The tickets of other commands do not expire.
            Ok(Command::CommandPreparedStatementQuery(_)) => Ok(endpoint),
            Ok(command) if metadata_schema(&command).is_some() => Ok(endpoint),
            _ => Err(no_ticket()),
        }
    }

    /// The rows of the query of a ticket, which can be cancelled by it until the last of them.
    async fn fetched_rows(&self, handle: Bytes, query: Query) -> FlightResponse {
        let fetching = Fetching::new(&self.fetched, handle, &query);
        self.rows(query, Some(fetching)).await
    }

    /// The rows of a statement.
    async fn rows(&self, query: Query, fetching: Option<Fetching>) -> FlightResponse {
        let schema = query.statement.schema();
        let rows = match query.part {
            Some(part) => self.run(query.statement.part(part)).await?,
            None => self.run(query.statement.rows()).await?,
        };
        let rows = self.runtime.stream(prepare(rows, SchemaRef::clone(&schema)), query.cancelled);
        let rows = rows
            .inspect(move |_| {
                let _ = &fetching;
            })
            .boxed();
        respond(with_heartbeat(rows, SchemaRef::clone(&schema), self.heartbeat), schema)
    }

    /// The rows of a metadata command.
    async fn listed(&self, rows: impl Future<Output = Result<RecordBatch>> + Send + 'static) -> FlightResponse {
        let batch = self.run(rows).await?;
        let schema = batch.schema();
        self.send(stream::iter([Ok(batch)]).boxed(), schema)
    }

    fn send(&self, rows: BoxStream<'static, Result<RecordBatch>>, schema: SchemaRef) -> FlightResponse {
        let rows = prepare(rows, SchemaRef::clone(&schema));
        respond(self.runtime.stream(rows, CancellationToken::new()), schema)
    }
}

type FlightResponse = Result<Response<<Service as FlightService>::DoGetStream>, Status>;

fn no_statement() -> Status {
    status(&Error::not_found("no such prepared statement: it was closed, or not used for too long"))
}

fn no_ticket() -> Status {
    status(&Error::not_found(
        "no such ticket: it has expired, was cancelled, or was not issued here; run the query again",
    ))
}

/// Whether a ticket is that of a statement that has run and gives no rows.
pub(crate) fn is_nothing(ticket: &[u8]) -> bool {
    matches!(command(ticket), Ok(Command::TicketStatementQuery(ticket)) if ticket.statement_handle == NOTHING)
}

/// The handle in the ticket of a query.
fn query_handle(endpoint: &FlightEndpoint) -> Option<Bytes> {
    match command(&endpoint.ticket.as_ref()?.ticket) {
        Ok(Command::TicketStatementQuery(ticket)) => Some(ticket.statement_handle),
        _ => None,
    }
}

/// The command in the bytes of a descriptor or a ticket.
pub(crate) fn command(bytes: &[u8]) -> Result<Command, Status> {
    let refused = |error: String| status(&Error::invalid_argument(format!("this is no Flight SQL command: {error}")));
    let message = Any::decode(bytes).map_err(|error| refused(error.to_string()))?;
    if message.type_url.is_empty() {
        return Err(no_command());
    }
    Command::try_from(message).map_err(|error| refused(error.to_string()))
}

/// What is empty is refused with, and a descriptor that has a path.
fn no_command() -> Status {
    status(&Error::invalid_argument(
        "there is no Flight SQL command in this: send one, such as CommandStatementQuery, in a google.protobuf.Any; \
         paths are not taken",
    ))
}

pub(crate) fn no_substrait() -> Status {
    unsupported("Substrait plans are not offered: send SQL")
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

/// What an upload is answered with. JDBC's driver runs an update a second time, as a query, where that is not a count.
fn written(rows: Option<u64>) -> i64 {
    count(rows).max(0)
}

/// The count of an update as clients know it: -1 where there is none.
fn count(rows: Option<u64>) -> i64 {
    rows.and_then(|rows| i64::try_from(rows).ok()).unwrap_or(-1)
}

/// The columns of a statement, where they are known.
fn announced(statement: &Statement) -> Result<SchemaRef, Status> {
    if statement.prepared.has_schema() || statement.prepared.has_leading() {
        return Ok(statement.schema());
    }
    let message = "the columns depend on the types of the parameters: bind values first, or say the types with CAST";
    Err(status(&Error::invalid_argument(message)))
}

/// A FlightInfo without endpoints.
fn flight_info(schema: &Schema, mut descriptor: FlightDescriptor) -> Result<FlightInfo, Status> {
    if descriptor.cmd.len() > MOST_REPEATED {
        descriptor.cmd = Bytes::new();
    }
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

    /// Answers when the client has said its part, or that it has none: a call that is answered before is reset, and some
    /// clients wait for ever then. Who it is stands in its headers.
    async fn do_handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<BoxStream<'static, Result<HandshakeResponse, Status>>>, Status> {
        let mut requests = request.into_inner();
        requests.message().await?;
        // Held open to the end of the answer.
        let answer = stream::iter([Ok(HandshakeResponse::default())]).chain(
            stream::once(async move { while let Ok(Some(_)) = requests.message().await {} })
                .filter_map(async |()| None),
        );
        Ok(Response::new(answer.boxed()))
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let client = Client::of(request.extensions())?;
        let statement = self.prepared(client, query.query, query.transaction_id).await?;
        self.execute(statement, request.into_inner()).await
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let statement = self.statement(Client::of(request.extensions())?, &query.prepared_statement_handle)?;
        self.execute(statement, request.into_inner()).await
    }

    async fn do_get_statement(&self, ticket: TicketStatementQuery, request: Request<Ticket>) -> FlightResponse {
        if ticket.statement_handle == NOTHING {
            return self.send(stream::empty().boxed(), Schema::empty().into());
        }
        let client = Client::of(request.extensions())?;
        let query = self.query(client, &ticket.statement_handle).ok_or_else(no_ticket)?;
        self.fetched_rows(ticket.statement_handle, query).await
    }

    /// Clients that make tickets of their own use the command as one.
    async fn do_get_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<Ticket>,
    ) -> FlightResponse {
        let statement = self.statement(Client::of(request.extensions())?, &query.prepared_statement_handle)?;
        let statement = self.run(statement.bound()).await?;
        self.rows(Query { statement, part: None, cancelled: CancellationToken::new() }, None).await
    }

    async fn do_put_statement_update(
        &self,
        command: CommandStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let client = Client::of(request.extensions())?;
        let statement = self.prepared(client, command.query, command.transaction_id).await?;
        self.update(statement).await.map(written)
    }

    async fn do_put_prepared_statement_query(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let handle = query.prepared_statement_handle;
        self.statement(Client::of(request.extensions())?, &handle)?;
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
        let statement = self.statement(Client::of(request.extensions())?, &command.prepared_statement_handle)?;
        let upload = Upload::new(request.into_inner());
        if !statement.prepared.is_update() {
            return match upload.collect().await? {
                Parameters::None => self.update(statement).await,
                parameters => self.update(Statement { parameters, ..statement }).await,
            }
            .map(written);
        }
        let Some(rows) = upload.rows().await? else { return self.update(statement).await.map(written) };
        let update = async move { statement.session.execute_rows(&statement.prepared, rows).await };
        self.run(update).await.map(written)
    }

    async fn get_flight_info_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        metadata_info(Command::CommandGetCatalogs(query), request)
    }

    async fn do_get_catalogs(&self, _query: CommandGetCatalogs, request: Request<Ticket>) -> FlightResponse {
        let context = Client::of(request.extensions())?.session.context().clone();
        self.listed(async move { metadata::catalogs(&context) }).await
    }

    async fn get_flight_info_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        metadata_info(Command::CommandGetDbSchemas(query), request)
    }

    async fn do_get_schemas(&self, query: CommandGetDbSchemas, request: Request<Ticket>) -> FlightResponse {
        let context = Client::of(request.extensions())?.session.context().clone();
        self.listed(async move { metadata::schemas(&context, query) }).await
    }

    async fn get_flight_info_tables(
        &self,
        query: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        metadata_info(Command::CommandGetTables(query), request)
    }

    async fn do_get_tables(&self, query: CommandGetTables, request: Request<Ticket>) -> FlightResponse {
        let session = &Client::of(request.extensions())?.session;
        let (context, dictionaries) = (session.context().clone(), Dictionaries::of(session));
        self.listed(metadata::tables(context, Arc::clone(&self.columns), dictionaries, query)).await
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

    async fn do_get_sql_info(&self, query: CommandGetSqlInfo, request: Request<Ticket>) -> FlightResponse {
        let context = Client::of(request.extensions())?.session.context().clone();
        let idle = self.statement_idle;
        self.listed(async move { sql_info::sql_info(&context, idle, query.info) }).await
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

    async fn do_get_primary_keys(&self, query: CommandGetPrimaryKeys, request: Request<Ticket>) -> FlightResponse {
        let context = Client::of(request.extensions())?.session.context().clone();
        self.listed(metadata::primary_keys(context, query)).await
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
        _query: CommandStatementSubstraitPlan,
        _request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        Err(no_substrait())
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
        let session = Client::of(request.extensions())?.session.clone();
        let upload = Upload::new(request.into_inner());
        let Some(rows) = upload.rows().await? else {
            return Err(status(&Error::invalid_argument("the upload has no columns: there is nothing to ingest")));
        };
        let count = self.run(async move { session.ingest(ingest, rows).await }).await?;
        Ok(written(Some(count)))
    }

    async fn do_put_substrait_plan(
        &self,
        _command: CommandStatementSubstraitPlan,
        _request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(no_substrait())
    }

    async fn do_put_fallback(
        &self,
        _request: Request<PeekableFlightDataStream>,
        message: Any,
    ) -> Result<Response<BoxStream<'static, Result<PutResult, Status>>>, Status> {
        if message.type_url.is_empty() {
            return Err(no_command());
        }
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
