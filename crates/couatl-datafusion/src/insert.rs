//! `INSERT INTO` a stream: its rows are planned by themselves, and the sink brings them to its columns.
//!
//! DataFusion plans the rows with the target's types in mind and casts the rest. Ours are planned as any query is, so
//! that a misfit is met by the sink, which knows the row, and may be what no cast knows (the text of a uuid).

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use couatl_core::{is_uuid, type_spelling};
use datafusion::catalog::TableProvider;
use datafusion::common::display::{PlanType, ToStringifiedPlan};
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{Column, DFSchema, ScalarValue, TableReference, plan_err};
use datafusion::datasource::provider_as_source;
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::{
    Analyze, DmlStatement, Explain, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Prepare,
    Statement as PlanStatement, WriteOp,
};
use datafusion::sql::parser::Statement;
use datafusion::sql::planner::object_name_to_table_reference;
use datafusion::sql::sqlparser::ast::{self, SetExpr};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use crate::store::{can_store, store};
use crate::table::StreamTable;
use crate::uuid_text::to_uuid;
use crate::{into_datafusion, parameters};

/// Plans a statement; one that inserts into a stream in the way of this module, also under EXPLAIN and PREPARE. Its
/// parameters have these types, and those of the columns that they go to where there are none.
pub(crate) async fn statement_to_plan(
    state: &SessionState,
    mut statement: Statement,
    types: &[DataType],
) -> Result<LogicalPlan> {
    match take(state, &mut statement).await? {
        None => state.statement_to_plan(statement).await,
        Some(insert) => insert.around(state.statement_to_plan(statement).await?, types),
    }
}

/// An INSERT whose rows have been taken out of it.
struct Insert {
    name: TableReference,
    table: Arc<dyn TableProvider>,
    /// Which column each value of a row goes to.
    targets: Vec<usize>,
    /// How many values there are in each row of VALUES, where that is what the rows are.
    values: Option<Vec<usize>>,
}

/// Puts the rows of an INSERT into a stream in the place of the INSERT.
async fn take(state: &SessionState, statement: &mut Statement) -> Result<Option<Insert>> {
    let Some(statement) = innermost(statement) else { return Ok(None) };
    let ast::Statement::Insert(insert) = &mut *statement else { return Ok(None) };
    // What else an INSERT may say is DataFusion's to refuse.
    let ast::Insert {
        table: ast::TableObject::TableName(name),
        columns,
        source,
        or: None,
        ignore: false,
        overwrite: false,
        replace_into: false,
        table_alias: None,
        partitioned: None,
        on: None,
        returning: None,
        output: None,
        insert_alias: None,
        priority: None,
        settings: None,
        format_clause: None,
        multi_table_insert_type: None,
        ..
    } = insert
    else {
        return Ok(None);
    };
    let normalize = state.config_options().sql_parser.enable_ident_normalization;
    let name = object_name_to_table_reference(name.clone(), normalize)?;
    let Ok(schema) = state.schema_for_ref(name.clone()) else { return Ok(None) };
    let Some(table) = schema.table(name.table()).await?.filter(|table| table.is::<StreamTable>()) else {
        return Ok(None);
    };
    let targets = targets(&table, columns, normalize)?;
    let Some(mut rows) = source.take() else {
        return plan_err!(
            "an INSERT into {} needs rows: INSERT INTO … VALUES (…), or INSERT INTO … SELECT …",
            stream(&table)
        );
    };
    let mut values = None;
    match &mut *rows.body {
        SetExpr::Values(list) => {
            values = Some(list.rows.iter().map(|row| row.content.len()).collect());
            let cells = list.rows.drain(..).flat_map(|row| row.content).collect();
            rows.body = select(cells)?;
        }
        SetExpr::Select(select) => name_repeated(&mut select.projection),
        _ => {}
    }
    *statement = ast::Statement::Query(rows);
    Ok(Some(Insert { name, table, targets, values }))
}

/// The statement under EXPLAIN and PREPARE.
fn innermost(statement: &mut Statement) -> Option<&mut ast::Statement> {
    match statement {
        Statement::Statement(statement) => match &mut **statement {
            ast::Statement::Prepare { statement, .. } => Some(statement),
            statement => Some(statement),
        },
        Statement::Explain(explain) => innermost(&mut explain.statement),
        _ => None,
    }
}

/// Which columns the values of a row go to.
fn targets(table: &Arc<dyn TableProvider>, columns: &[ast::ObjectName], normalize: bool) -> Result<Vec<usize>> {
    let schema = table.schema();
    if columns.is_empty() {
        return Ok((0..schema.fields().len()).collect());
    }
    let mut targets = Vec::with_capacity(columns.len());
    for column in columns {
        let name = object_name_to_table_reference(column.clone(), normalize)?;
        let position = match name.schema() {
            None => schema.index_of(name.table()).ok(),
            Some(_) => None,
        };
        let Some(position) = position else {
            let valid: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            return plan_err!("{} has no column '{column}'; its columns are {}", stream(table), valid.join(", "));
        };
        if targets.contains(&position) {
            return plan_err!("the INSERT into {} lists column '{column}' twice", stream(table));
        }
        targets.push(position);
    }
    Ok(targets)
}

/// A SELECT of expressions.
fn select(expressions: Vec<ast::Expr>) -> Result<Box<SetExpr>> {
    let mut query = Parser::new(&GenericDialect {}).try_with_sql("SELECT 1")?.parse_query()?;
    let SetExpr::Select(select) = &mut *query.body else { return plan_err!("SELECT 1 is no SELECT") };
    let named = expressions.into_iter().enumerate().map(|(position, expr)| ast::SelectItem::ExprWithAlias {
        expr,
        alias: ast::Ident::new(format!("v{position}")),
    });
    select.projection = named.collect();
    Ok(query.body)
}

/// Gives a name to each expression that stands for the second time in a SELECT: `SELECT 0, 0` is fine in an INSERT, where
/// positions count and names do not.
fn name_repeated(projection: &mut [ast::SelectItem]) {
    let mut seen = HashSet::new();
    for (position, item) in projection.iter_mut().enumerate() {
        if let ast::SelectItem::UnnamedExpr(expr) = item
            && !seen.insert(expr.to_string())
        {
            let alias = ast::Ident::new(format!("v{position}"));
            *item = ast::SelectItem::ExprWithAlias { expr: expr.clone(), alias };
        }
    }
}

fn stream(table: &Arc<dyn TableProvider>) -> String {
    format!("stream '{}'", stream_name(table))
}

fn stream_name(table: &Arc<dyn TableProvider>) -> &str {
    table.downcast_ref::<StreamTable>().map_or("", |table| &table.definition().name)
}

/// Gives the values of a column in VALUES one type: that of the column where they have several. Numbers and lists that
/// are computed are left as they are: a cast could take the fractions of one, and knows no uuids in the other.
fn one_type(stream: &str, column: Vec<&mut Expr>, field: &Field) -> Result<()> {
    let mut types = HashSet::new();
    for cell in &column {
        if cell.exists(|expr| Ok(matches!(expr, Expr::ScalarSubquery(_))))? {
            return plan_err!(
                "a query among several rows of VALUES is not offered; INSERT its row by itself, or use SELECT"
            );
        }
        types.insert(cell.get_type(&DFSchema::empty())?);
    }
    types.remove(&DataType::Null);
    if types.len() < 2 {
        return Ok(());
    }
    let literal = |cell: &Expr| matches!(cell, Expr::Literal(..));
    if column.iter().all(|cell| literal(cell) && types.iter().all(|from| can_store(from, field))) {
        for (row, cell) in column.into_iter().enumerate() {
            let Expr::Literal(value, _) = &*cell else { continue };
            let stored = store(&value.to_array()?, field);
            let stored = stored
                .map_err(|misfit| into_datafusion(misfit.into_error(&format!("stream '{stream}'"), row, field)))?;
            *cell = Expr::Literal(ScalarValue::try_from_array(&stored, 0)?, None);
        }
        return Ok(());
    }
    if types.iter().all(DataType::is_numeric) || types.iter().all(DataType::is_nested) {
        return Ok(());
    }
    for cell in column {
        *cell = match is_uuid(field) {
            true => to_uuid().call(vec![cell.clone()]),
            false => cell.clone().cast_to(field.data_type(), &DFSchema::empty())?,
        };
    }
    Ok(())
}

impl Insert {
    /// The plan of the statement, from the one that has the rows where the INSERT was.
    fn around(&self, plan: LogicalPlan, types: &[DataType]) -> Result<LogicalPlan> {
        Ok(match plan {
            LogicalPlan::Explain(explain) => {
                let plan = self.of(Arc::unwrap_or_clone(explain.plan), types)?;
                let stringified_plans = vec![plan.to_stringified(PlanType::InitialLogicalPlan)];
                LogicalPlan::Explain(Explain { plan: Arc::new(plan), stringified_plans, ..explain })
            }
            LogicalPlan::Analyze(analyze) => {
                let input = Arc::new(self.of(Arc::unwrap_or_clone(analyze.input), types)?);
                LogicalPlan::Analyze(Analyze { input, ..analyze })
            }
            LogicalPlan::Statement(PlanStatement::Prepare(prepare)) => {
                let input = self.of(Arc::unwrap_or_clone(prepare.input), types)?;
                let found = input.get_parameter_fields()?;
                let known = |number: usize| found.get(&format!("${number}")).cloned().flatten();
                let fields = match prepare.fields.is_empty() {
                    true => (1..=found.len()).filter_map(known).collect(),
                    false => prepare.fields,
                };
                LogicalPlan::Statement(PlanStatement::Prepare(Prepare { fields, input: Arc::new(input), ..prepare }))
            }
            rows => self.of(rows, types)?,
        })
    }

    /// The INSERT of the rows.
    fn of(&self, rows: LogicalPlan, types: &[DataType]) -> Result<LogicalPlan> {
        let rows = match &self.values {
            None => rows,
            Some(widths) => self.values(rows, widths, types)?,
        };
        let found = rows.schema().fields().len();
        if found != self.targets.len() {
            return plan_err!("{}, found {found}", self.expected());
        }
        let schema = self.table.schema();
        let columns = schema.fields().iter().enumerate().map(|(position, field)| {
            let expr = match self.targets.iter().position(|target| *target == position) {
                Some(value) => {
                    let (qualifier, from) = rows.schema().qualified_field(value);
                    if !can_store(from.data_type(), field) {
                        let (name, to) = (field.name(), type_spelling(field));
                        let from = type_spelling(from);
                        return plan_err!(
                            "{}, column '{name}' ({to}): cannot store a value of {from}",
                            stream(&self.table)
                        );
                    }
                    Expr::Column(Column::from((qualifier, from)))
                }
                None if !field.is_nullable() => {
                    let name = field.name();
                    return plan_err!(
                        "{}: the INSERT has no value for column '{name}', which is NOT NULL",
                        stream(&self.table)
                    );
                }
                None => Expr::Literal(ScalarValue::Null, None),
            };
            Ok(expr.alias(field.name()))
        });
        let rows = LogicalPlanBuilder::from(rows.clone()).project(columns.collect::<Result<Vec<_>>>()?)?.build()?;
        let (name, target) = (self.name.clone(), provider_as_source(self.table.clone()));
        let insert = WriteOp::Insert(InsertOp::Append);
        Ok(LogicalPlan::Dml(DmlStatement::new(name, target, insert, Arc::new(rows))))
    }

    /// The rows of VALUES, from the plan of one long SELECT of all their values.
    fn values(&self, plan: LogicalPlan, widths: &[usize], types: &[DataType]) -> Result<LogicalPlan> {
        if let Some(row) = widths.iter().position(|width| *width != self.targets.len()) {
            return plan_err!("{}, found {} in row {} of VALUES", self.expected(), widths[row], row + 1);
        }
        let LogicalPlan::Projection(select) = plan else { return plan_err!("VALUES takes expressions alone") };
        let fields = self.table.schema();
        let mut cells =
            select.expr.into_iter().zip(self.targets.iter().cycle()).map(|(cell, target)| match cell.unalias() {
                Expr::Placeholder(Placeholder { id, field: None }) => {
                    let bound = parameters::number(&id).and_then(|number| types.get(number - 1));
                    let bound = bound.filter(|bound| !bound.is_null());
                    let data_type = bound.unwrap_or(fields.field(*target).data_type()).clone();
                    let field = Field::new(&id, data_type, true);
                    Expr::Placeholder(Placeholder { id, field: Some(Arc::new(field)) })
                }
                cell => cell,
            });
        let mut rows: Vec<Vec<_>> = widths.iter().map(|width| cells.by_ref().take(*width).collect()).collect();
        if let [row] = &mut rows[..] {
            let row = row.drain(..).enumerate().map(|(position, cell)| cell.alias(format!("v{position}")));
            return LogicalPlanBuilder::from(Arc::unwrap_or_clone(select.input)).project(row)?.build();
        }
        for (position, target) in self.targets.iter().enumerate() {
            let column = rows.iter_mut().map(|row| &mut row[position]);
            one_type(stream_name(&self.table), column.collect(), fields.field(*target))?;
        }
        LogicalPlanBuilder::values(rows)?.build()
    }

    fn expected(&self) -> String {
        let schema = self.table.schema();
        let names: Vec<_> = self.targets.iter().map(|target| schema.field(*target).name().as_str()).collect();
        let plural = if names.len() == 1 { "value" } else { "values" };
        format!("an INSERT into {} expects {} {plural} ({})", stream(&self.table), names.len(), names.join(", "))
    }
}
