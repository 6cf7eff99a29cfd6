//! A stream as a DataFusion table.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use couatl_core::{Error, OptionValue, Stream, StreamDefinition};
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::datasource::sink::DataSinkExec;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::physical_plan::ExecutionPlan;

use crate::access::User;
use crate::into_datafusion;
use crate::scan::StreamScanExec;
use crate::sink::StreamSink;

/// A stream for any `SessionContext`: register it like every other table.
///
/// Filters stay above it: nothing is pushed to the source but the columns that a query reads and its LIMIT. Rows leave
/// filters and joins promptly only where [`install_streaming`](crate::install_streaming) has been called on the session.
#[derive(Debug)]
pub struct StreamTable {
    stream: Stream,
    statement: String,
    disclosed: String,
    /// Who created it: more than one, where the Python of another stream did.
    owners: Arc<[Arc<str>]>,
}

impl StreamTable {
    /// The table of a stream.
    pub fn new(stream: Stream) -> Self {
        Self::owned(stream, Arc::default())
    }

    /// The table of a stream that these users have created.
    pub(crate) fn owned(stream: Stream, owners: Arc<[Arc<str>]>) -> Self {
        let statement = couatl_sql::create_statement(&stream.definition);
        let disclosed = disclosed(&stream.definition);
        Self { stream, statement, disclosed, owners }
    }

    /// Whether a user may see all of its statement.
    pub(crate) fn is_disclosed_to(&self, user: &User) -> bool {
        user.sees_code_of(&self.owners)
    }

    /// The statement as others than its creator may see it: without what may hold secrets.
    pub(crate) fn disclosed(&self) -> &str {
        &self.disclosed
    }

    /// What the stream was made from.
    pub fn definition(&self) -> &Arc<StreamDefinition> {
        &self.stream.definition
    }

    /// A statement that makes the same stream.
    pub fn statement(&self) -> &str {
        &self.statement
    }

    /// What an INSERT writes to.
    pub(crate) fn sink(&self) -> StreamSink {
        StreamSink::new(self.stream.sink.clone(), self.stream.definition.batch_rows.get(), self.owners.clone())
    }

    fn takes_rows_alone(&self) -> DataFusionError {
        let name = &self.stream.definition.name;
        into_datafusion(Error::unsupported(format!(
            "stream '{name}' takes INSERT INTO alone: its write function is handed rows, and can neither change nor \
             remove any"
        )))
    }
}

/// What stands in the place of a body that is not shown.
pub(crate) const HIDDEN_BODY: &str = "\n# hidden: its creator and admins see it\n";

/// The statement of a definition without what may hold secrets.
fn disclosed(definition: &StreamDefinition) -> String {
    let mut definition = StreamDefinition::clone(definition);
    definition.body.text = Arc::from(HIDDEN_BODY);
    if let Some(init) = &mut definition.functions.init {
        init.parameters = init.parameters.as_ref().map(|_| "hidden".to_owned());
    }
    for (_, value) in definition.options_mut() {
        *value = OptionValue::Text("hidden".to_owned());
    }
    couatl_sql::create_statement(&definition)
}

#[async_trait]
impl TableProvider for StreamTable {
    fn schema(&self) -> SchemaRef {
        self.stream.definition.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn get_table_definition(&self) -> Option<&str> {
        // Everybody reads this: SHOW CREATE STREAM shows all of it to those who may see it.
        Some(&self.disclosed)
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let projection = projection.cloned().unwrap_or_else(|| (0..self.schema().fields().len()).collect());
        let order_by = self.stream.definition.order_columns().map_err(into_datafusion)?;
        Ok(Arc::new(StreamScanExec::try_new(
            self.stream.source.clone(),
            projection,
            limit,
            order_by,
            self.owners.clone(),
        )?))
    }

    async fn insert_into(
        &self,
        _state: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        op: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if op != InsertOp::Append {
            return Err(self.takes_rows_alone());
        }
        Ok(Arc::new(DataSinkExec::new(input, Arc::new(self.sink()), None)))
    }

    async fn delete_from(&self, _state: &dyn Session, _filters: Vec<Expr>) -> Result<Arc<dyn ExecutionPlan>> {
        Err(self.takes_rows_alone())
    }

    async fn update(
        &self,
        _state: &dyn Session,
        _assignments: Vec<(String, Expr)>,
        _filters: Vec<Expr>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Err(self.takes_rows_alone())
    }

    async fn truncate(&self, _state: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        Err(self.takes_rows_alone())
    }
}
