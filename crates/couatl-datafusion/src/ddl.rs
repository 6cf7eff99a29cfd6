//! DDL: what is DataFusion's to do, and what is seen to before and after it.

use std::sync::Arc;

use couatl_core::{Error, OpenContext, Result};
use couatl_sql::{Statement, StatementKind};
use datafusion::common::plan_err;
use datafusion::dataframe::DataFrame;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{
    CreateCatalogSchema, DdlStatement, DropCatalogSchema, DropTable, DropView, LogicalPlan,
};
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement as DataFusionStatement;
use datafusion::sql::planner::object_name_to_table_reference;
use datafusion::sql::sqlparser::ast;

use crate::access::Deeds;
use crate::planner::StatementText;
use crate::secrets::{no_login, without_secrets};
use crate::session::{Session, resolved};
use crate::statement::parse_tokens;
use crate::{catalog, from_datafusion, memory};

impl Session {
    /// Runs it. What views, tables and schemas of ours need beyond DataFusion is here: definitions without secrets, grants
    /// that end with their tables, streams that only statements of their own drop.
    pub(crate) async fn ddl(
        &self,
        ddl: DdlStatement,
        mut state: SessionState,
        statement: &Statement,
    ) -> Result<DataFrame> {
        let done = match ddl {
            DdlStatement::CreateView(mut view) => {
                view.definition = Some(statement.text.clone());
                let unfixed = Deeds::of(&view.input).map_err(from_datafusion)?;
                if let Some(name) = unfixed.unfixed(&state) {
                    return Err(Error::invalid_argument(format!(
                        "a view means what its names mean by the defaults that sessions begin with: write '{name}' with \
                         its catalog and its schema"
                    )));
                }
                let name = resolved(&state, view.name.clone());
                let created = run(state, DdlStatement::CreateView(view)).await;
                // It may stand in the place of a table.
                created.inspect(|_| self.grants().forget(&[name]))
            }
            DdlStatement::CreateMemoryTable(table) => {
                let stored = StatementText { is_stored: true, ..StatementText::of(statement, self.caller().clone()) };
                state.config_mut().set_extension(Arc::new(stored));
                memory::create(state, table).await?;
                return self.nothing();
            }
            DdlStatement::DropTable(DropTable { name, .. }) | DdlStatement::DropView(DropView { name, .. })
                if catalog::stream(state.catalog_list().as_ref(), &resolved(&state, name.clone())).is_some() =>
            {
                return Err(Error::invalid_argument(format!("'{name}' is a stream; DROP STREAM drops it")));
            }
            DdlStatement::DropCatalogSchema(DropCatalogSchema { name, .. })
                if catalog::is_own_schema(&name, &state.config_options().catalog.default_catalog) =>
            {
                return Err(Error::invalid_argument(format!("the schema '{name}' belongs to the session and stays")));
            }
            DdlStatement::CreateCatalogSchema(create) => {
                self.create_schema(&state, &create, statement)?;
                return self.nothing();
            }
            DdlStatement::CreateExternalTable(mut table) => {
                table.locations.iter().try_for_each(|location| no_login(location))?;
                table.definition = Some(without_secrets(&statement.text, &table.options));
                let told = OpenContext::new(Arc::clone(&self.queries().secrets), None);
                for value in table.options.values_mut() {
                    *value = told.resolve(value)?.into_owned();
                }
                let created = run(state, DdlStatement::CreateExternalTable(table)).await;
                return created.map_err(|error| told.hide(from_datafusion(error)));
            }
            drop @ (DdlStatement::DropTable(_) | DdlStatement::DropView(_) | DdlStatement::DropCatalogSchema(_)) => {
                let names = match &drop {
                    DdlStatement::DropTable(DropTable { name, .. }) => vec![resolved(&state, name.clone())],
                    DdlStatement::DropCatalogSchema(dropped) => catalog::tables_in(&state, &dropped.name),
                    _ => Vec::new(),
                };
                let dropped = run(state, drop).await;
                dropped.inspect(|_| self.grants().forget(&names))
            }
            other => run(state, other).await,
        };
        done.map_err(from_datafusion)
    }

    /// A schema like the one that is there from the beginning. Its name is that of the statement: the plan has lost which
    /// of its dots were quoted.
    fn create_schema(&self, state: &SessionState, create: &CreateCatalogSchema, statement: &Statement) -> Result<()> {
        let options = state.config_options();
        let name = created_schema(statement).map_err(from_datafusion)?;
        let name = object_name_to_table_reference(name, options.sql_parser.enable_ident_normalization);
        let name = name.map_err(from_datafusion)?;
        if name.catalog().is_some() {
            let message = format!("expected a schema, or a catalog and a schema, found '{name}'");
            return Err(Error::invalid_argument(message));
        }
        let (catalog, schema) = (name.schema().unwrap_or(&options.catalog.default_catalog), name.table());
        let provider = state.catalog_list().catalog(catalog);
        let provider = provider.ok_or_else(|| Error::not_found(format!("there is no catalog '{catalog}'")))?;
        if provider.schema(schema).is_none() {
            let made = catalog::new_schema(catalog, schema, self.home());
            return provider.register_schema(schema, made).map(drop).map_err(from_datafusion);
        }
        if create.if_not_exists {
            return Ok(());
        }
        Err(Error::already_exists(format!("the schema '{catalog}.{schema}' exists already")))
    }
}

/// The name of the schema that a statement makes.
fn created_schema(statement: &Statement) -> datafusion::error::Result<ast::ObjectName> {
    if let StatementKind::Other(tokens) = &statement.kind
        && let DataFusionStatement::Statement(parsed) = parse_tokens(tokens.clone())?
        && let ast::Statement::CreateSchema { schema_name, .. } = *parsed
        && let ast::SchemaName::Simple(name) | ast::SchemaName::NamedAuthorization(name, _) = schema_name
    {
        return Ok(name);
    }
    plan_err!("expected CREATE SCHEMA and a name")
}

/// Runs a plan with the state of its statement, not that of the session: what DDL runs is to know it. Catalogs are shared.
async fn run(state: SessionState, ddl: DdlStatement) -> datafusion::error::Result<DataFrame> {
    SessionContext::new_with_state(state).execute_logical_plan(LogicalPlan::Ddl(ddl)).await
}
