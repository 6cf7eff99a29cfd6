//! Views, which mean what the names in them mean when they are read.
//!
//! A view is planned from its text each time it is looked up, and so are the views that it reads. Names may have come to
//! mean something else since it was made: a view that has come to read itself, and one that reads too long a chain of
//! others, are refused here.

use std::sync::{Arc, OnceLock};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use couatl_core::{Error, ErrorKind};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::ResolvedTableReference;
use datafusion::datasource::{TableType, ViewTable};
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{DdlStatement, Expr, LogicalPlan};
use datafusion::physical_plan::ExecutionPlan;

use crate::catalog::{CATALOG, Home, SCHEMA};
use crate::statement::datafusion_statement;
use crate::table_function::with_queries;
use crate::{depth, into_datafusion};

/// How many views may stand on each other.
const MOST_VIEWS: usize = 64;

tokio::task_local! {
    static READING: Reading;
}

/// The views that are being planned, each one because the one before it reads it.
#[derive(Clone, Default)]
struct Reading {
    views: Vec<String>,
    /// Why none of them can be read. DataFusion's errors get lost on the way: a lookup may have another answer.
    refused: Arc<OnceLock<String>>,
}

impl Reading {
    fn now() -> Self {
        READING.try_with(Self::clone).unwrap_or_default()
    }

    fn and(mut self, view: &str) -> Self {
        self.views.push(view.to_owned());
        self
    }

    /// The error, where this view must not be read by these.
    fn check(&self, view: &str) -> Result<()> {
        let why = if let Some(first) = self.views.iter().position(|reading| reading == view) {
            let chain: Vec<_> = self.views[first..].iter().map(String::as_str).chain([view]).collect();
            match chain.len() {
                2 => format!("view '{view}' reads itself"),
                _ => format!("view '{view}' reads itself: {}", chain.join(" reads ")),
            }
        } else if self.views.len() >= MOST_VIEWS {
            let first = self.views.first().map_or(view, String::as_str);
            format!(
                "view '{first}' reads a chain of more than {MOST_VIEWS} views; keep the rows of one of them in a table"
            )
        } else {
            return Ok(());
        };
        Err(refusal(self.refused.get_or_init(|| why)))
    }
}

fn refusal(why: &str) -> datafusion::error::DataFusionError {
    into_datafusion(Error::invalid_argument(why))
}

/// Its name in messages, and among the views that are being planned.
fn title(name: &ResolvedTableReference) -> String {
    match (&*name.catalog, &*name.schema) {
        (CATALOG, SCHEMA) => name.table.to_string(),
        (CATALOG, schema) => format!("{schema}.{}", name.table),
        (catalog, schema) => format!("{catalog}.{schema}.{}", name.table),
    }
}

/// Plans what makes a view, which must not come to read itself.
pub(crate) async fn created<T>(view: &ResolvedTableReference, planning: impl Future<Output = Result<T>>) -> Result<T> {
    let reading = Reading::default().and(&title(view));
    let refused = reading.refused.clone();
    let planned = READING.scope(reading, planning).await;
    refused.get().map_or(planned, |why| Err(refusal(why)))
}

/// Refuses a name that is being planned, whatever it means now: it is about to be a view.
pub(crate) fn check(name: &ResolvedTableReference) -> Result<()> {
    let reading = Reading::now();
    if reading.views.is_empty() {
        return Ok(());
    }
    let name = &title(name);
    if reading.views.iter().any(|view| view == name) { reading.check(name) } else { Ok(()) }
}

/// The view as it is now.
pub(crate) async fn current(
    name: &ResolvedTableReference,
    view: &Arc<dyn TableProvider>,
    definition: &str,
    state: &SessionState,
    home: &Home,
) -> Result<Arc<dyn TableProvider>> {
    let outer = Reading::now();
    let name = &title(name);
    outer.check(name)?;
    let reading = outer.clone().and(name);
    let refused = reading.refused.clone();
    let planned = depth::planned(READING.scope(reading, planned_anew(definition, state, home))).await;
    match (refused.get(), planned) {
        // Who is refused is not there for another view; but it is for those who list it, or drop it.
        (Some(why), _) if !outer.views.is_empty() => Err(refusal(why)),
        (Some(why), _) => {
            let (kind, definition) = (ErrorKind::InvalidArgument, definition.to_owned());
            Ok(Arc::new(RefusedView { schema: view.schema(), definition, kind, why: why.clone() }))
        }
        (None, Ok(Some(planned))) => Ok(planned),
        (None, Ok(None)) => Ok(view.clone()),
        // A view over what is no more is still there as well; reading it says what it lacks.
        (None, Err(error)) => {
            let error = crate::from_datafusion(error);
            let (kind, why) = (error.kind(), format!("view '{name}' cannot be read: {error}"));
            Ok(Arc::new(RefusedView { schema: view.schema(), definition: definition.to_owned(), kind, why }))
        }
    }
}

async fn planned_anew(definition: &str, state: &SessionState, home: &Home) -> Result<Option<Arc<dyn TableProvider>>> {
    let mut statement = datafusion_statement(definition)?;
    with_queries(home, &mut statement);
    let plan = state.statement_to_plan(statement).await?;
    let LogicalPlan::Ddl(DdlStatement::CreateView(view)) = plan else { return Ok(None) };
    if let Err(error) = depth::check(&view.input) {
        READING.with(|reading| reading.refused.get_or_init(|| crate::from_datafusion(error).to_string()).clone());
    }
    Ok(Some(Arc::new(ViewTable::new(Arc::unwrap_or_clone(view.input), Some(definition.to_owned())))))
}

/// A view that cannot be read, and says why.
#[derive(Debug)]
struct RefusedView {
    schema: SchemaRef,
    definition: String,
    kind: ErrorKind,
    why: String,
}

#[async_trait]
impl TableProvider for RefusedView {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn get_table_definition(&self) -> Option<&str> {
        Some(&self.definition)
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        _projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Err(into_datafusion(Error::new(self.kind, self.why.as_str())))
    }
}
