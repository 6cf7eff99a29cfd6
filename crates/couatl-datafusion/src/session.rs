//! A session: statements in, rows out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Field, Schema, UInt64Type};
use couatl_core::{Error, ErrorKind, Host, Result, Secrets};
use couatl_sql::{Statement, StatementKind};
use datafusion::catalog::SchemaProvider;
use datafusion::common::{ParamValues, ResolvedTableReference, ScalarValue, TableReference};
use datafusion::dataframe::DataFrame;
use datafusion::datasource::TableType;
use datafusion::error::DataFusionError;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, SessionState, SessionStateBuilder, TaskContext};
use datafusion::logical_expr::{LogicalPlan, Statement as PlanStatement};
use datafusion::optimizer::Analyzer;
use datafusion::physical_plan::{ExecutionPlan, collect, execute_stream};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::sqlparser::tokenizer::TokenWithSpan;
use futures::TryStreamExt;

use crate::access::{Deeds, Directory, Grants, Role};
use crate::caller::Caller;
use crate::catalog::{self, CATALOG, Home, SCHEMA};
use crate::functions::Functions;
use crate::limits::Limits;
use crate::options::WireOptions;
use crate::planner::{StatementText, install_session, reads_streams};
use crate::prepared::{self, PreparedStatements, Verb};
use crate::secrets::{no_login, no_shown_secrets, without_secrets};
use crate::statement::{self, Description, Outcome, Prepared, gives_rows, parse};
use crate::streams::table_of;
use crate::table_function::TableFunctions;
use crate::uuid_text::{self, CompareUuids, TextUuids, UuidType};
use crate::wire::without_views;
use crate::{Queries, bounded, depth, from_datafusion, lineage, options, parameters, row_values, show, untyped};

/// A DataFusion session that speaks the language of streams. Cheap to clone; everything inside is shared.
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
    caller: Caller,
}

/// What a session begins with.
#[derive(Debug, Clone, Default)]
pub struct SessionSettings {
    /// How many bytes its queries, all together, keep in the operators that gather rows (sorts, aggregates, joins). Those
    /// that can go on on disk do; the others fail with `resources-exhausted`. Rows on their way, and what Python holds,
    /// are not counted.
    pub memory_limit: Option<usize>,
    /// How much there may be at once, and of one query.
    pub limits: Limits,
    /// The secrets that definitions may name.
    pub secrets: Secrets,
}

struct Inner {
    context: SessionContext,
    home: Arc<Home>,
    host: Arc<dyn Host>,
    queries: Arc<Queries>,
    grants: Arc<Grants>,
    prepared: PreparedStatements,
    /// Whether it is not as it began: a setting was set, or a statement was prepared.
    changed: AtomicBool,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("host", &self.inner.host).finish_non_exhaustive()
    }
}

impl Session {
    /// A session with a catalog of its own: `couatl`, whose schema `public` is the default and holds the streams, and
    /// whose schema `system` describes what runs.
    ///
    /// # Errors
    /// `internal`, if DataFusion refuses the catalog.
    pub fn new(host: Arc<dyn Host>) -> Result<Self> {
        Self::with_settings(host, SessionSettings::default())
    }

    /// A session that begins with these settings.
    ///
    /// # Errors
    /// `internal`, if DataFusion refuses the catalog.
    pub fn with_settings(host: Arc<dyn Host>, settings: SessionSettings) -> Result<Self> {
        let SessionSettings { memory_limit, limits, secrets } = settings;
        let runtime = RuntimeEnvBuilder::new();
        let limited = |bytes| RuntimeEnvBuilder::new().with_memory_limit(bytes, 1.0);
        let runtime = memory_limit.map_or(runtime, limited).build_arc().map_err(from_datafusion)?;
        let queries = Arc::new(Queries::new(limits, secrets));
        let home = Arc::new(Home::default());
        let mut rules: Vec<_> = vec![Arc::new(TextUuids) as _];
        rules.extend(Analyzer::new().rules);
        let builder = SessionStateBuilder::new()
            .with_config(Self::config())
            .with_runtime_env(runtime)
            .with_default_features()
            .with_analyzer_rules(rules)
            .with_type_planner(Arc::new(UuidType))
            .with_relation_planners(vec![Arc::new(TableFunctions(Arc::clone(&home)))]);
        let mut state = install_session(builder, queries.clone()).build();
        datafusion::execution::FunctionRegistry::register_expr_planner(&mut state, Arc::new(CompareUuids))
            .map_err(from_datafusion)?;
        let context = SessionContext::new_with_state(state);
        bounded::install(&context);
        context.register_udf(uuid_text::to_uuid());
        context.register_udf(uuid_text::uuid_to_text());
        *home.state.write() = Some(context.state_weak_ref());
        let catalog = catalog::new_catalog(queries.clone(), Arc::clone(&home)).map_err(from_datafusion)?;
        context.register_catalog(CATALOG, catalog);
        let (grants, prepared, changed) = Default::default();
        let inner = Inner { context, home, host, queries, grants, prepared, changed };
        Ok(Self { inner: Arc::new(inner), caller: Caller::default() })
    }

    /// The settings with which a session begins.
    pub(crate) fn config() -> SessionConfig {
        let mut config =
            SessionConfig::new().with_information_schema(true).with_default_catalog_and_schema(CATALOG, SCHEMA);
        config = config.with_option_extension(WireOptions::default());
        // Strings are strings: no client has to know views.
        let options = config.options_mut();
        options.sql_parser.map_string_types_to_utf8view = false;
        options.execution.parquet.schema_force_view_types = false;
        options.catalog.create_default_catalog_and_schema = false;
        config
    }

    /// The same streams and queries, seen from another context.
    pub(crate) fn with_context(&self, context: SessionContext) -> Self {
        let Inner { home, host, queries, grants, .. } = &*self.inner;
        let (home, host) = (Arc::clone(home), Arc::clone(host));
        let (queries, grants) = (Arc::clone(queries), Arc::clone(grants));
        let (prepared, changed) = Default::default();
        let inner = Inner { context, home, host, queries, grants, prepared, changed };
        Self { inner: Arc::new(inner), caller: self.caller.clone() }
    }

    /// The same session, as somebody sees it: what they may not do is refused, and what others do is not shown.
    #[must_use]
    pub fn with_caller(&self, caller: Caller) -> Self {
        Self { caller, ..self.clone() }
    }

    /// Says, once, to whom alone GRANT and REVOKE may speak: here, and in all sessions that share its streams.
    pub fn set_directory(&self, directory: Arc<dyn Directory>) {
        let _ = self.inner.grants.directory.set(directory);
    }

    /// Whose session it is.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Refuses what takes a higher role than the user has.
    pub(crate) fn needs(&self, role: Role, what: &str) -> Result<()> {
        self.caller.principals().try_for_each(|user| user.needs(role, what))
    }

    /// Refuses a plan that does what the user may not, where names mean what they mean in this state.
    fn allow(&self, plan: &LogicalPlan, state: &SessionState) -> Result<()> {
        let deeds = Deeds::of(plan).map_err(from_datafusion)?;
        deeds.check_tables(state)?;
        self.caller.principals().try_for_each(|user| deeds.check(user, &self.inner.grants, state))
    }

    /// The DataFusion session underneath: its catalogs, its configuration.
    pub fn context(&self) -> &SessionContext {
        &self.inner.context
    }

    /// What the host says, which may wait for its interpreter.
    pub(crate) async fn on_host<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&dyn Host) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let host = Arc::clone(&self.inner.host);
        let asked = tokio::task::spawn_blocking(move || ask(&*host)).await;
        asked.map_err(|error| Error::internal(error.to_string()))?
    }

    pub(crate) fn grants(&self) -> &Grants {
        &self.inner.grants
    }

    /// The queries that run.
    pub fn queries(&self) -> &Arc<Queries> {
        &self.inner.queries
    }

    /// Runs a text of one or several statements: those before the last to their end, the last as a `DataFrame`, whose
    /// rows are computed when it is executed. DDL and `SET` have run when this returns; an `INSERT` runs when its
    /// `DataFrame` does, and gives the count of its rows.
    ///
    /// # Errors
    /// What is wrong with the text, of which nothing has run then unless it is wrong only in what it means; and what the
    /// statements before the last fail with.
    pub async fn sql(&self, text: &str) -> Result<DataFrame> {
        let (leading, last) = split(text)?;
        self.run_all(&leading).await?;
        self.data_frame(&last, None).await.map_err(|error| last.place.mark(error))
    }

    /// Parses and plans a text, without any side effect.
    ///
    /// With several statements, the last one decides what it is; where it cannot be planned before the others have run,
    /// its schema is empty until [`run_leading`](Self::run_leading).
    ///
    /// # Errors
    /// What is wrong with the text.
    pub async fn prepare(&self, text: &str) -> Result<Prepared> {
        let (leading, last) = split(text)?;
        if leading.iter().any(parameters::has_placeholders) {
            return Err(parameters::lonely_parameters());
        }
        let described = self.describe(&last).await;
        let described = match described {
            Err(_) if !leading.is_empty() => {
                Description { is_planned: false, is_update: !gives_rows(&last), ..Description::update() }
            }
            Err(error) => untyped::described(&last, error)?,
            Ok(described) => described,
        };
        if !leading.is_empty() && !described.parameters.fields().is_empty() {
            return Err(parameters::lonely_parameters());
        }
        Ok(Prepared { sql: Arc::from(text), leading: Arc::from(leading), last: Arc::new(last), described })
    }

    /// Runs all statements of a prepared text but the last, which is planned then.
    ///
    /// # Errors
    /// What the statements fail with, and what is wrong with the last one.
    pub async fn run_leading(&self, prepared: Prepared) -> Result<Prepared> {
        if prepared.leading.is_empty() {
            return Ok(prepared);
        }
        self.run_all(&prepared.leading).await?;
        let described = self.describe(&prepared.last).await;
        let described = described.map_err(|error| prepared.last.place.mark(error))?;
        Ok(Prepared { leading: Arc::default(), described, ..prepared })
    }

    /// The same query with the types that its parameters turn out to have: a schema may depend on them (`SELECT ?`).
    ///
    /// # Errors
    /// Values that are too many, too few, or of the wrong type.
    pub async fn bind(&self, prepared: Prepared, values: ParamValues) -> Result<Prepared> {
        if prepared.is_update() {
            return Ok(prepared);
        }
        let values = parameters::typed(values, &prepared.described.parameters, prepared.is_update())?;
        let data_frame = self.data_frame(&prepared.last, Some(values)).await?;
        // One schema for every row of parameters, any of which may be NULL.
        let schema = self.row_schema(data_frame.logical_plan().clone())?;
        let fields = schema.fields().iter().map(|field| Field::clone(field).with_nullable(true));
        let schema = Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()));
        Ok(Prepared { described: Description { is_planned: true, schema, ..prepared.described }, ..prepared })
    }

    /// Runs a prepared text. The values of a `ParamValues::List` must be as many as it has parameters, and are cast to
    /// their types.
    ///
    /// # Errors
    /// Those of planning and, for an update, those of running it. Rows carry their own errors.
    pub async fn execute(&self, prepared: &Prepared, parameters: Option<ParamValues>) -> Result<Outcome> {
        self.run_all(&prepared.leading).await?;
        self.execute_last(prepared, parameters).await.map_err(|error| prepared.last.place.mark(error))
    }

    async fn execute_last(&self, prepared: &Prepared, parameters: Option<ParamValues>) -> Result<Outcome> {
        let values = parameters
            .map(|values| parameters::typed(values, &prepared.described.parameters, prepared.is_update()))
            .transpose()?;
        if values.is_none() {
            parameters::check_count(prepared.described.parameters.fields().len(), 0)?;
        }
        let data_frame = self.data_frame(&prepared.last, values).await?;
        if prepared.is_update() {
            return self.update(data_frame).await.map(Outcome::Updated);
        }
        let (plan, context) = physical(data_frame).await?;
        execute_stream(plan, context).map(Outcome::Rows).map_err(from_datafusion)
    }

    /// Runs an update with each of these rows for its parameters, by position; gives how many rows it wrote, where it
    /// counts them. An `INSERT … VALUES (?, …)` of one row of expressions is one INSERT of all of them; any other update
    /// runs once for each.
    ///
    /// # Errors
    /// Those of planning and running it, and of the rows.
    pub async fn execute_rows(&self, prepared: &Prepared, mut rows: SendableRecordBatchStream) -> Result<Option<u64>> {
        parameters::check_count(prepared.described.parameters.fields().len(), rows.schema().fields().len())?;
        let StatementKind::Other(tokens) = &prepared.last.kind else {
            return Err(Error::internal("a statement of our own has no parameters"));
        };
        let types: Vec<_> = rows.schema().fields().iter().map(|field| field.data_type().clone()).collect();
        let state = self.state(&prepared.last);
        // What cannot be planned for all rows may be for each of them.
        let plan = match depth::planned(self.plan(&state, tokens.clone(), &untyped::nulls(&types)?)).await {
            Ok(plan) => Some(plan),
            Err(error) => {
                untyped::parameters_of(tokens, error)?;
                None
            }
        };
        if let Some(plan) = plan
            && parameters::takes_rows(&plan).map_err(from_datafusion)?
        {
            let rows = parameters::stored_rows(rows, &plan)?;
            let plan = parameters::over_rows(plan, rows).map_err(from_datafusion)?;
            return self.update(DataFrame::new(state, plan)).await;
        }
        let mut total = Some(0);
        while let Some(batch) = rows.try_next().await.map_err(from_datafusion)? {
            for row in 0..batch.num_rows() {
                let count = match self.execute(prepared, Some(row_values(&batch, row)?)).await? {
                    Outcome::Updated(count) => count,
                    Outcome::Rows(_) => None,
                };
                total = total.zip(count).map(|(total, count)| total + count);
            }
        }
        Ok(total)
    }

    /// Refuses new queries, waits for those that run for as long as the grace, then cancels the rest and waits for
    /// their cleanup, which is bounded too.
    pub async fn shutdown(&self, grace: Duration) {
        self.inner.queries.shutdown(grace).await;
    }

    /// Runs what stands before the last statement of a text.
    async fn run_all(&self, leading: &[Statement]) -> Result<()> {
        for statement in leading {
            let run = async { self.update(self.data_frame(statement, None).await?).await };
            run.await.map_err(|error| statement.place.mark(error))?;
        }
        Ok(())
    }

    /// Runs to the end; the count, where there is one.
    pub(crate) async fn update(&self, data_frame: DataFrame) -> Result<Option<u64>> {
        let (plan, context) = physical(data_frame).await?;
        let batches = collect(plan, context).await.map_err(from_datafusion)?;
        let counts =
            batches.iter().filter(|batch| batch.num_columns() == 1 && batch.schema().field(0).name() == "count");
        let counts = counts.filter_map(|batch| batch.column(0).as_primitive_opt::<UInt64Type>());
        Ok(counts.map(|counts| counts.values().iter().sum()).reduce(|sum: u64, count| sum + count))
    }

    pub(crate) async fn data_frame(&self, statement: &Statement, parameters: Option<ParamValues>) -> Result<DataFrame> {
        let batch = match &statement.kind {
            StatementKind::CreateStream(create) => {
                self.create(create).await?;
                return self.nothing();
            }
            StatementKind::DropStream { name, if_exists } => {
                self.drop_stream(name, *if_exists).await?;
                return self.nothing();
            }
            StatementKind::KillQuery { query_id } => {
                if !self.inner.queries.kill(query_id, &self.caller) {
                    return Err(Error::not_found(format!("no query '{query_id}' is running; SHOW QUERIES lists them")));
                }
                return self.nothing();
            }
            StatementKind::CreateFunction(create) => {
                self.create_function(create).await?;
                return self.nothing();
            }
            StatementKind::DropFunction { name, if_exists } => {
                self.drop_function(name, *if_exists)?;
                return self.nothing();
            }
            StatementKind::ShowCreateFunction(name) => show::statement(&self.function_statement(name)?)?,
            StatementKind::ShowStreams => show::streams(&self.streams().await)?,
            StatementKind::ShowConnectors => show::connectors(&self.on_host(|host| host.connectors()).await?)?,
            StatementKind::Grant { privileges, name, user, granted } => {
                self.needs(Role::Admin, "grant or revoke")?;
                let (table, schema) = self.place(name)?;
                if !schema.table_exist(&table.table) {
                    return Err(Error::not_found(format!("there is no stream, table or view '{name}'")));
                }
                if matches!(schema.table_type(&table.table).await, Ok(Some(TableType::View))) {
                    return Err(Error::invalid_argument(format!(
                        "'{name}' is a view, which is its query: grant and revoke what it reads"
                    )));
                }
                self.inner.grants.check_user(user)?;
                self.inner.grants.say(user, table, privileges, *granted);
                return self.nothing();
            }
            StatementKind::ShowQueries => show::queries(&self.inner.queries.shown_to(&self.caller))?,
            StatementKind::ShowCreateStream(name) => {
                let table = self.stream(name).await?;
                let table = table_of(&table, name)?;
                // Under the name by which it was asked for: a definition does not know its schema.
                let statement = match self.caller.principals().all(|user| table.is_disclosed_to(user)) {
                    true => table.statement(),
                    false => table.disclosed(),
                };
                let plain = format!("STREAM {} (", couatl_core::quoted(&table.definition().name));
                show::statement(&statement.replacen(&plain, &format!("STREAM {name} ("), 1))?
            }
            StatementKind::Describe { name, tokens } => match self.stream(name).await {
                Ok(table) => show::columns(table_of(&table, name)?.definition())?,
                Err(_) => return depth::planned(self.datafusion(tokens.clone(), statement, None)).await,
            },
            StatementKind::Other(tokens) => {
                return depth::planned(self.datafusion(tokens.clone(), statement, parameters)).await;
            }
            _ => return Err(Error::unsupported(format!("this statement is not offered: {}", statement.text))),
        };
        self.inner.context.read_batch(batch).map_err(from_datafusion)
    }

    pub(crate) fn nothing(&self) -> Result<DataFrame> {
        self.inner.context.read_batch(RecordBatch::new_empty(Arc::new(Schema::empty()))).map_err(from_datafusion)
    }

    /// A statement of DataFusion's: DDL has run when this returns.
    async fn datafusion(
        &self,
        tokens: Vec<TokenWithSpan>,
        statement: &Statement,
        parameters: Option<ParamValues>,
    ) -> Result<DataFrame> {
        // One state from the names to the end: what a SET changes meanwhile is for the statements after it.
        let mut state = self.state(statement);
        match prepared::verb(&tokens) {
            Some(Verb::Prepare) => {
                self.keep(&state, tokens).await?;
                return self.nothing();
            }
            Some(Verb::Execute) => {
                let (tokens, values) = self.executed(&state, tokens).await?;
                return Box::pin(self.datafusion(tokens, statement, Some(values))).await;
            }
            Some(Verb::Deallocate) => {
                self.forget(tokens)?;
                return self.nothing();
            }
            None => {}
        }
        let plan = match parameters {
            Some(values) => self.bound(&state, tokens, values).await?,
            None => self.plan(&state, tokens, &[]).await?,
        };
        let context = &self.inner.context;
        let data_frame = match plan {
            LogicalPlan::Ddl(ddl) => return self.ddl(ddl, state, statement).await,
            // DataFusion knows what settings begin with anywhere, and not here. Those of the server have no option of ours.
            LogicalPlan::Statement(PlanStatement::ResetVariable(reset))
                if !reset.variable.to_ascii_lowercase().starts_with("datafusion.runtime")
                    && options::default_of(&reset.variable).is_some() =>
            {
                self.set_option(&reset.variable, None)?;
                return self.nothing();
            }
            LogicalPlan::Statement(PlanStatement::SetVariable(set)) => {
                let (name, value) = (set.variable.clone(), set.value.clone());
                let set = LogicalPlan::Statement(PlanStatement::SetVariable(set));
                let done = context.execute_logical_plan(set).await.map_err(|error| misset(&name, &value, error))?;
                self.mark_changed();
                return Ok(done);
            }
            plan @ LogicalPlan::Statement(_) => context.execute_logical_plan(plan).await,
            plan @ LogicalPlan::Copy(_) => {
                if let LogicalPlan::Copy(copy) = &plan {
                    no_login(&copy.output_url)?;
                    let shown = StatementText::of(statement, self.caller.clone());
                    let shown = StatementText { text: without_secrets(&shown.text, &copy.options), ..shown };
                    state.config_mut().set_extension(Arc::new(shown));
                }
                Ok(DataFrame::new(state, plan))
            }
            plan @ (LogicalPlan::Dml(_) | LogicalPlan::Explain(_) | LogicalPlan::Analyze(_)) => {
                Ok(DataFrame::new(state, plan))
            }
            plan => without_views(plan).map(|plan| DataFrame::new(state, plan)),
        };
        data_frame.map_err(from_datafusion)
    }

    /// The session's state for a plan that is to know its statement.
    pub(crate) fn state(&self, statement: &Statement) -> SessionState {
        let mut state = self.inner.context.state();
        self.functions().install(&mut state);
        state.config_mut().set_extension(Arc::new(StatementText::of(statement, self.caller.clone())));
        state
    }

    /// The plan of a statement with values for its parameters.
    async fn bound(
        &self,
        state: &SessionState,
        tokens: Vec<TokenWithSpan>,
        values: ParamValues,
    ) -> Result<LogicalPlan> {
        let known: Vec<_> = match &values {
            ParamValues::List(values) => values.iter().map(|value| value.value.clone()).collect(),
            ParamValues::Map(_) => Vec::new(),
        };
        let plan = self.plan(state, tokens, &known).await?;
        let values = parameters::stored(values, &plan)?;
        plan.with_param_values(values).map_err(from_datafusion)
    }

    /// Whether somebody has set a setting of it, or prepared a statement in it: what another session would not have.
    pub fn is_changed(&self) -> bool {
        self.inner.changed.load(Relaxed)
    }

    pub(crate) fn mark_changed(&self) {
        self.inner.changed.store(true, Relaxed);
    }

    /// What it shares with others.
    pub(crate) fn home(&self) -> &Arc<Home> {
        &self.inner.home
    }

    pub(crate) fn functions(&self) -> &Functions {
        &self.inner.home.functions
    }

    pub(crate) fn prepared_statements(&self) -> &PreparedStatements {
        &self.inner.prepared
    }

    /// The plan of a statement whose parameters have these values, where they are known.
    pub(crate) async fn plan(
        &self,
        state: &SessionState,
        tokens: Vec<TokenWithSpan>,
        values: &[ScalarValue],
    ) -> Result<LogicalPlan> {
        let plan = statement::plan(state, self.home(), tokens, values).await;
        let plan = plan.map_err(|error| self.functions().explained(from_datafusion(error)))?;
        self.allow(&plan, state)?;
        match &plan {
            LogicalPlan::Statement(PlanStatement::SetVariable(set)) => options::check_value(&set.variable, &set.value)?,
            LogicalPlan::Explain(explain) => no_shown_secrets(&explain.plan)?,
            LogicalPlan::Analyze(analyze) => no_shown_secrets(&analyze.input)?,
            _ => {}
        }
        Ok(plan)
    }

    /// Whether a statement is an update, the schema of its rows, and its parameters.
    async fn describe(&self, statement: &Statement) -> Result<Description> {
        depth::planned(self.described(statement)).await
    }

    async fn described(&self, statement: &Statement) -> Result<Description> {
        let rows = |schema| Ok(Description::rows(schema));
        let tokens = match &statement.kind {
            StatementKind::ShowStreams => return rows(show::streams_schema()),
            StatementKind::ShowConnectors => return rows(show::connectors_schema()),
            StatementKind::ShowQueries => return rows(show::queries_schema()),
            StatementKind::ShowCreateFunction(name) => {
                self.function_statement(name)?;
                return rows(show::statement_schema());
            }
            StatementKind::ShowCreateStream(name) => {
                self.stream(name).await?;
                return rows(show::statement_schema());
            }
            StatementKind::Describe { name, tokens } => match self.stream(name).await {
                Ok(_) => return rows(show::columns_schema()),
                Err(_) => tokens,
            },
            StatementKind::Other(tokens) => tokens,
            _ => return Ok(Description::update()),
        };
        let state = self.state(statement);
        let plan = match prepared::verb(tokens) {
            Some(Verb::Prepare) => {
                // Its parameters are those of a later EXECUTE.
                self.read_prepare(&state, tokens.clone()).await?;
                return Ok(Description::update());
            }
            Some(Verb::Deallocate) => return Ok(Description::update()),
            Some(Verb::Execute) => {
                let (tokens, values) = self.executed(&state, tokens.clone()).await?;
                self.bound(&state, tokens, values).await?
            }
            None => self.plan(&state, tokens.clone(), &[]).await?,
        };
        let parameters = parameters::parameters(&plan)?;
        match plan {
            LogicalPlan::Ddl(_) | LogicalPlan::Dml(_) | LogicalPlan::Copy(_) | LogicalPlan::Statement(_) => {
                Ok(Description { parameters: Arc::new(parameters), ..Description::update() })
            }
            plan => {
                // Looking how long it takes does it.
                let changes = matches!(&plan, LogicalPlan::Analyze(analyze)
                    if matches!(&*analyze.input, LogicalPlan::Dml(_) | LogicalPlan::Copy(_) | LogicalPlan::Ddl(_)));
                let resolve = |name: &TableReference| self.resolved(name.clone());
                let origins = lineage::origins(&plan).into_iter().map(|origin| origin.map(resolve)).collect();
                let plan = without_views(plan).map_err(from_datafusion)?;
                if parameters.fields().is_empty() && reads_streams(&plan).map_err(from_datafusion)? {
                    // What no stream can answer is refused here, and not when its rows are fetched.
                    state.create_physical_plan(&plan).await.map_err(from_datafusion)?;
                }
                let schema = match parameters.fields().is_empty() {
                    true => self.row_schema(plan)?,
                    false => plan.schema().as_arrow().clone(),
                };
                let (schema, parameters) = (Arc::new(schema), Arc::new(parameters));
                Ok(Description { is_planned: true, is_update: false, changes, schema, parameters, origins })
            }
        }
    }

    /// The columns that a plan gives once its types are brought together: those of `SELECT 1 UNION ALL SELECT 1.5`.
    fn row_schema(&self, plan: LogicalPlan) -> Result<Schema> {
        let state = self.inner.context.state();
        let analyzed =
            depth::with_stack(|| state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {}));
        Ok(analyzed.map_err(from_datafusion)?.schema().as_arrow().clone())
    }

    /// What a name means here.
    pub(crate) fn resolved(&self, name: TableReference) -> ResolvedTableReference {
        resolved(&self.inner.context.state_ref().read(), name)
    }

    /// What a name means here, and the schema where it is, or would be.
    pub(crate) fn resolve(
        &self,
        reference: TableReference,
    ) -> Result<(ResolvedTableReference, Arc<dyn SchemaProvider>)> {
        let resolved = self.resolved(reference);
        let catalog = self.inner.context.state().catalog_list().catalog(&resolved.catalog);
        let schema = catalog.and_then(|catalog| catalog.schema(&resolved.schema));
        let schema = schema.ok_or_else(|| {
            Error::not_found(format!("there is no schema '{}.{}'", resolved.catalog, resolved.schema))
        })?;
        Ok((resolved, schema))
    }
}

/// The error of a SET: DataFusion does not say of what, nor that it was the value.
fn misset(name: &str, value: &str, error: DataFusionError) -> Error {
    match from_datafusion(error) {
        error if error.kind() == ErrorKind::Internal => {
            Error::invalid_setting(format!("cannot set '{name}' to '{value}': {error}"))
        }
        error => error,
    }
}

/// What a name means in a state.
pub(crate) fn resolved(state: &SessionState, name: TableReference) -> ResolvedTableReference {
    let defaults = &state.config().options().catalog;
    name.resolve(&defaults.default_catalog, &defaults.default_schema)
}

/// The statements of a text: all but the last, and the last.
pub(crate) fn split(text: &str) -> Result<(Vec<Statement>, Statement)> {
    let mut statements = parse(text)?;
    let last = statements.pop().ok_or_else(|| Error::invalid_syntax("the text holds no statement"))?;
    Ok((statements, last))
}

/// The plan of a `DataFrame`, and what it runs in.
pub(crate) async fn physical(data_frame: DataFrame) -> Result<(Arc<dyn ExecutionPlan>, Arc<TaskContext>)> {
    let context = Arc::new(data_frame.task_ctx());
    let plan = depth::planned(data_frame.create_physical_plan()).await.map_err(from_datafusion)?;
    Ok((plan, context))
}
