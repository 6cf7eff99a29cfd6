//! A statement that a client holds, with the parameters it bound: what a ticket and a prepared statement stand for.

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use couatl_core::{Error, Result};
use couatl_datafusion::{Outcome, Part, Prepared, Session, from_datafusion};
use datafusion::common::ParamValues;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};

use crate::column::{Origin, described};
use crate::handle::{Owner, Weigh};
use crate::parameters::Parameters;
use crate::wire::Dictionaries;

/// A prepared text and the rows of parameters it is to be run with.
#[derive(Debug, Clone)]
pub(crate) struct Statement {
    /// Where it was prepared, and runs.
    pub(crate) session: Session,
    pub(crate) prepared: Prepared,
    pub(crate) parameters: Parameters,
    /// As its session had it when it was prepared: what was announced then is what is sent.
    pub(crate) dictionaries: Dictionaries,
}

impl Weigh for Statement {
    fn bytes(&self) -> usize {
        self.prepared.bytes() + self.parameters.bytes()
    }

    fn owner(&self) -> Owner {
        Owner::of(&self.session)
    }
}

impl Statement {
    /// Parses and plans a text; nothing happens yet.
    pub(crate) async fn prepare(session: Session, sql: String) -> Result<Self> {
        let prepared = session.prepare(&sql).await?;
        let dictionaries = Dictionaries::of(&session);
        Ok(Self { session, prepared, parameters: Parameters::None, dictionaries })
    }

    /// Runs what its text has before the last statement, so that the last one can be planned, and once only; then its
    /// schema is that of its bound parameters.
    pub(crate) async fn run_leading(self) -> Result<Self> {
        let prepared = self.session.run_leading(self.prepared).await?;
        Self { prepared, ..self }.bound().await
    }

    /// Its schema is that of its bound parameters, where nothing has to run before it is known.
    pub(crate) async fn bound(self) -> Result<Self> {
        let values = self.parameters.executions().next().transpose()?.flatten();
        let prepared = match values {
            Some(values) if !self.prepared.has_leading() => self.session.bind(self.prepared, values).await?,
            _ => self.prepared,
        };
        Ok(Self { prepared, ..self })
    }

    /// The schema of its rows on the wire. An update has no columns.
    pub(crate) fn schema(&self) -> SchemaRef {
        match self.prepared.is_update() {
            true => Schema::empty().into(),
            false => described(&self.prepared.schema(), self.dictionaries, |column| {
                self.prepared.origin(column).map_or(Origin::Nowhere, Origin::Table)
            }),
        }
    }

    /// Runs it for its rows: once for each row of parameters, one after the other.
    ///
    /// # Errors
    /// Those of planning and opening its first execution; all others are items of the stream.
    pub(crate) async fn rows(self) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let Self { session, prepared, parameters, .. } = self;
        if prepared.is_update() || prepared.has_leading() {
            return Err(Error::invalid_argument("this statement changes something: GetFlightInfo or DoPut runs it"));
        }
        let mut executions = parameters.executions();
        let Some(first) = executions.next() else {
            return Ok(stream::empty().boxed());
        };
        let first = open(session.clone(), prepared.clone(), first).await?;
        let rest = stream::iter(executions)
            .then(move |parameters| open(session.clone(), prepared.clone(), parameters))
            .try_flatten();
        Ok(first.chain(rest).boxed())
    }

    /// The parts in which its rows can be had, where there are several.
    pub(crate) async fn parts(&self) -> Result<Vec<Part>> {
        let mut executions = self.parameters.executions();
        match (executions.next(), executions.next()) {
            (Some(values), None) => self.session.parts(&self.prepared, values?).await,
            _ => Ok(Vec::new()),
        }
    }

    /// The rows of one of its parts.
    pub(crate) async fn part(self, part: Part) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        // It was planned when its user might have been allowed what they are not any more.
        self.session.prepare(self.prepared.sql()).await?;
        Ok(part.rows()?.map_err(from_datafusion).boxed())
    }

    /// Runs it for what it changes, with all its rows of parameters; the number of rows that it wrote, where it says one.
    ///
    /// A query that arrives as an update runs as well, for what its functions do, and its rows are thrown away.
    pub(crate) async fn update(self) -> Result<Option<u64>> {
        let Self { session, prepared, parameters, .. } = self;
        let parameters = match parameters {
            Parameters::Rows(batches) if prepared.is_update() => {
                let Some(schema) = batches.first().map(RecordBatch::schema) else { return Ok(Some(0)) };
                let rows = stream::iter(batches.to_vec()).map(Ok);
                let rows = Box::pin(RecordBatchStreamAdapter::new(schema, rows));
                return session.execute_rows(&prepared, rows).await;
            }
            parameters => parameters,
        };
        let mut count = Some(0);
        for parameters in parameters.executions() {
            count = match session.execute(&prepared, parameters?).await? {
                Outcome::Updated(count) => count,
                Outcome::Rows(mut rows) => {
                    while rows.try_next().await.map_err(from_datafusion)?.is_some() {}
                    None
                }
            };
        }
        Ok(count)
    }
}

async fn open(
    session: Session,
    prepared: Prepared,
    parameters: Result<Option<ParamValues>>,
) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    match session.execute(&prepared, parameters?).await? {
        Outcome::Rows(rows) if is_as_announced(&prepared.schema(), &rows.schema()) => {
            Ok(rows.map_err(from_datafusion).boxed())
        }
        Outcome::Rows(_) => Err(Error::invalid_argument(
            "the statement gives other columns than when it was prepared, since what it reads has been replaced; \
             prepare it again",
        )),
        Outcome::Updated(_) => Err(Error::internal("a query gave a count instead of rows")),
    }
}

/// Whether the rows have the columns that the client was told of. What was a Null then may have a type now.
fn is_as_announced(announced: &Schema, rows: &Schema) -> bool {
    let same = |(announced, now): (&FieldRef, &FieldRef)| {
        announced.name() == now.name() && (announced.data_type().is_null() || announced.data_type() == now.data_type())
    };
    announced.fields().len() == rows.fields().len() && announced.fields().iter().zip(rows.fields()).all(same)
}
