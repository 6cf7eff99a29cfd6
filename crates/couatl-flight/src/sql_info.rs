//! What the server says about itself: the answer to CommandGetSqlInfo.
//!
//! Functions and keywords are read from the engine when asked for, so that the list is what really works.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, MapArray, RecordBatch, StructArray, UnionArray};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, UnionFields, UnionMode};
use arrow_flight::sql::metadata::SqlInfoDataBuilder;
use arrow_flight::sql::{
    SqlInfo, SqlNullOrdering, SqlOuterJoinsSupportLevel, SqlSupportedCaseSensitivity, SqlSupportedGroupBy,
    SqlSupportedResultSetConcurrency, SqlSupportedResultSetType, SqlSupportedSubqueries, SqlSupportedTransaction,
    SqlSupportedUnions, SqlSupportsConvert, SqlTransactionIsolationLevel, SupportedSqlGrammar,
};
use couatl_core::{Error, Result};
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::keywords::ALL_KEYWORDS;

/// The longest name that a catalog, schema, table or column may have: no limit of ours, what a message can hold.
const NAME_LENGTH: i64 = 65_535;

/// The schema of CommandGetSqlInfo.
pub(crate) fn schema() -> SchemaRef {
    let value = DataType::Union(value_fields(), UnionMode::Dense);
    Arc::new(Schema::new(vec![Field::new("info_name", DataType::UInt32, false), Field::new("value", value, false)]))
}

/// The entries of the given codes; all, where none is given. Codes that we do not know are left out.
pub(crate) fn sql_info(context: &SessionContext, statement_idle: Duration, codes: Vec<u32>) -> Result<RecordBatch> {
    let batch = entries(context, statement_idle)
        .build()
        .and_then(|data| data.record_batch(codes))
        .map_err(|error| Error::internal(error.to_string()).with_source(error))?;
    let columns = vec![Arc::clone(batch.column(0)), reference_values(batch.column(1).as_union())?];
    Ok(RecordBatch::try_new(schema(), columns)?)
}

/// The values with the names and the nullability of the reference schema, which arrow-flight's builder does not keep to.
fn reference_values(values: &UnionArray) -> Result<ArrayRef> {
    let fields = value_fields();
    let mut children: Vec<ArrayRef> = fields.iter().map(|(id, _)| Arc::clone(values.child(id))).collect();
    if let Some((_, field)) = fields.iter().last()
        && let DataType::Map(entries, sorted) = field.data_type()
        && let DataType::Struct(key_and_value) = entries.data_type()
        && let Some(child) = children.last_mut()
    {
        let (_, offsets, pairs, nulls, _) = child.as_map().clone().into_parts();
        let pairs = StructArray::try_new(key_and_value.clone(), pairs.columns().to_vec(), None)?;
        *child = Arc::new(MapArray::try_new(Arc::clone(entries), offsets, pairs, nulls, *sorted)?);
    }
    let offsets = values.offsets().cloned();
    Ok(Arc::new(UnionArray::try_new(fields, values.type_ids().clone(), offsets, children)?))
}

fn value_fields() -> UnionFields {
    let list = |item| DataType::List(Arc::new(Field::new_list_field(item, true)));
    let pair =
        Fields::from(vec![Field::new("key", DataType::Int32, false), Field::new("value", list(DataType::Int32), true)]);
    let map = DataType::Map(Arc::new(Field::new("entries", DataType::Struct(pair), false)), false);
    UnionFields::from_fields(vec![
        Field::new("string_value", DataType::Utf8, false),
        Field::new("bool_value", DataType::Boolean, false),
        Field::new("bigint_value", DataType::Int64, false),
        Field::new("int32_bitmask", DataType::Int32, false),
        Field::new("string_list", list(DataType::Utf8), false),
        Field::new("int32_to_int32_list_map", map, false),
    ])
}

fn entries(context: &SessionContext, statement_idle: Duration) -> SqlInfoDataBuilder {
    let mut infos = SqlInfoDataBuilder::new();
    server(&mut infos, statement_idle);
    language(&mut infos, context);
    features(&mut infos);
    limits(&mut infos);
    infos
}

/// Codes below 500. Clients read 0 to 5 and 8 without a look at their type: text, text, text, bool, bool, bool, int32.
fn server(infos: &mut SqlInfoDataBuilder, statement_idle: Duration) {
    infos.append(SqlInfo::FlightSqlServerName, "Couatl");
    infos.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    infos.append(SqlInfo::FlightSqlServerArrowVersion, arrow::ARROW_VERSION);
    infos.append(SqlInfo::FlightSqlServerReadOnly, false);
    infos.append(SqlInfo::FlightSqlServerSql, true);
    infos.append(SqlInfo::FlightSqlServerSubstrait, false);
    infos.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32);
    infos.append(SqlInfo::FlightSqlServerCancel, true);
    infos.append(SqlInfo::FlightSqlServerBulkIngestion, true);
    infos.append(SqlInfo::FlightSqlServerIngestTransactionsSupported, false);
    let milliseconds = i32::try_from(statement_idle.as_millis()).unwrap_or(i32::MAX);
    infos.append(SqlInfo::FlightSqlServerStatementTimeout, milliseconds);
    infos.append(SqlInfo::FlightSqlServerTransactionTimeout, 0_i32);
}

fn language(infos: &mut SqlInfoDataBuilder, context: &SessionContext) {
    infos.append(SqlInfo::SqlIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32);
    infos.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    // Kept as written, and compared as written: the enumeration has no word for it.
    infos.append(SqlInfo::SqlQuotedIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityUnknown as i32);
    infos.append(SqlInfo::SqlNullOrdering, SqlNullOrdering::SqlNullsSortedHigh as i32);
    infos.append(SqlInfo::SqlKeywords, ALL_KEYWORDS);
    infos.append(SqlInfo::SqlNumericFunctions, functions(context, &["Math Functions"]));
    let text = ["String Functions", "Binary String Functions", "Regular Expression Functions"];
    infos.append(SqlInfo::SqlStringFunctions, functions(context, &text));
    infos.append(SqlInfo::SqlSystemFunctions, functions(context, &["Other Functions", "Conditional Functions"]));
    infos.append(SqlInfo::SqlDatetimeFunctions, functions(context, &["Time and Date Functions"]));
    infos.append(SqlInfo::SqlSearchStringEscape, "\\");
    infos.append(SqlInfo::SqlExtraNameCharacters, "$");
    infos.append(SqlInfo::SqlSchemaTerm, "schema");
    infos.append(SqlInfo::SqlProcedureTerm, "procedure");
    infos.append(SqlInfo::SqlCatalogTerm, "catalog");
    infos.append(SqlInfo::SqlCatalogAtStart, true);
}

fn features(infos: &mut SqlInfoDataBuilder) {
    let bits = |bits: &[i32]| bits.iter().fold(0, |mask, bit| mask | 1 << bit);
    infos.append(SqlInfo::SqlDdlCatalog, false);
    infos.append(SqlInfo::SqlDdlSchema, true);
    infos.append(SqlInfo::SqlDdlTable, true);
    // A stream may have a writing side only.
    infos.append(SqlInfo::SqlAllTablesAreSelectable, false);
    infos.append(SqlInfo::SqlSupportsColumnAliasing, true);
    infos.append(SqlInfo::SqlNullPlusNullIsNull, true);
    infos.append(SqlInfo::SqlSupportsConvert, conversions());
    infos.append(SqlInfo::SqlSupportsTableCorrelationNames, true);
    infos.append(SqlInfo::SqlSupportsDifferentTableCorrelationNames, false);
    infos.append(SqlInfo::SqlSupportsExpressionsInOrderBy, true);
    infos.append(SqlInfo::SqlSupportsOrderByUnrelated, true);
    let group_by =
        [SqlSupportedGroupBy::SqlGroupByUnrelated as i32, SqlSupportedGroupBy::SqlGroupByBeyondSelect as i32];
    infos.append(SqlInfo::SqlSupportedGroupBy, bits(&group_by));
    infos.append(SqlInfo::SqlSupportsLikeEscapeClause, true);
    infos.append(SqlInfo::SqlSupportsNonNullableColumns, true);
    let grammar = [SupportedSqlGrammar::SqlMinimumGrammar as i32, SupportedSqlGrammar::SqlCoreGrammar as i32];
    infos.append(SqlInfo::SqlSupportedGrammar, bits(&grammar));
    // ANSI 92 wants UPDATE, DELETE and transactions of every level.
    infos.append(SqlInfo::SqlAnsi92SupportedLevel, 0_i32);
    infos.append(SqlInfo::SqlSupportsIntegrityEnhancementFacility, false);
    // Drivers read it as a mask of levels.
    let outer_joins = [SqlOuterJoinsSupportLevel::SqlLimitedOuterJoins, SqlOuterJoinsSupportLevel::SqlFullOuterJoins];
    infos.append(
        SqlInfo::SqlOuterJoinsSupportLevel,
        outer_joins.iter().fold(0, |mask, level| mask | 1 << *level as i32),
    );
    infos.append(SqlInfo::SqlSchemasSupportedActions, 0_i32);
    infos.append(SqlInfo::SqlCatalogsSupportedActions, 0_i32);
    infos.append(SqlInfo::SqlSupportedPositionedCommands, 0_i32);
    infos.append(SqlInfo::SqlSelectForUpdateSupported, false);
    infos.append(SqlInfo::SqlStoredProceduresSupported, false);
    let subqueries = [
        SqlSupportedSubqueries::SqlSubqueriesInComparisons as i32,
        SqlSupportedSubqueries::SqlSubqueriesInExists as i32,
        SqlSupportedSubqueries::SqlSubqueriesInIns as i32,
        SqlSupportedSubqueries::SqlSubqueriesInQuantifieds as i32,
    ];
    infos.append(SqlInfo::SqlSupportedSubqueries, bits(&subqueries));
    infos.append(SqlInfo::SqlCorrelatedSubqueriesSupported, true);
    let unions = [SqlSupportedUnions::SqlUnion as i32, SqlSupportedUnions::SqlUnionAll as i32];
    infos.append(SqlInfo::SqlSupportedUnions, bits(&unions));
    // JDBC's driver wants a 64-bit integer here, and no other one reads it.
    let isolation = SqlTransactionIsolationLevel::SqlTransactionNone as i32;
    infos.append(SqlInfo::SqlDefaultTransactionIsolation, i64::from(isolation));
    infos.append(SqlInfo::SqlTransactionsSupported, false);
    infos.append(SqlInfo::SqlSupportedTransactionsIsolationLevels, bits(&[isolation]));
    infos.append(SqlInfo::SqlDataDefinitionCausesTransactionCommit, false);
    infos.append(SqlInfo::SqlDataDefinitionsInTransactionsIgnored, false);
    // Forward only, as a mask.
    infos.append(
        SqlInfo::SqlSupportedResultSetTypes,
        1_i32 << SqlSupportedResultSetType::SqlResultSetTypeForwardOnly as i32,
    );
    let read_only = bits(&[SqlSupportedResultSetConcurrency::SqlResultSetConcurrencyReadOnly as i32]);
    infos.append(SqlInfo::SqlSupportedConcurrenciesForResultSetUnspecified, 0_i32);
    infos.append(SqlInfo::SqlSupportedConcurrenciesForResultSetForwardOnly, read_only);
    infos.append(SqlInfo::SqlSupportedConcurrenciesForResultSetScrollSensitive, 0_i32);
    infos.append(SqlInfo::SqlSupportedConcurrenciesForResultSetScrollInsensitive, 0_i32);
    infos.append(SqlInfo::SqlBatchUpdatesSupported, true);
    infos.append(SqlInfo::SqlSavepointsSupported, false);
    infos.append(SqlInfo::SqlNamedParametersSupported, false);
    infos.append(SqlInfo::SqlLocatorsUpdateCopy, false);
    infos.append(SqlInfo::SqlStoredFunctionsUsingCallSyntaxSupported, false);
}

/// Zero says that there is no limit, or none that is known.
fn limits(infos: &mut SqlInfoDataBuilder) {
    for name in [
        SqlInfo::SqlMaxColumnNameLength,
        SqlInfo::SqlDbSchemaNameLength,
        SqlInfo::SqlMaxCatalogNameLength,
        SqlInfo::SqlMaxTableNameLength,
    ] {
        infos.append(name, NAME_LENGTH);
    }
    for name in [
        SqlInfo::SqlMaxBinaryLiteralLength,
        SqlInfo::SqlMaxCharLiteralLength,
        SqlInfo::SqlMaxColumnsInGroupBy,
        SqlInfo::SqlMaxColumnsInIndex,
        SqlInfo::SqlMaxColumnsInOrderBy,
        SqlInfo::SqlMaxColumnsInSelect,
        SqlInfo::SqlMaxColumnsInTable,
        SqlInfo::SqlMaxConnections,
        SqlInfo::SqlMaxCursorNameLength,
        SqlInfo::SqlMaxIndexLength,
        SqlInfo::SqlMaxProcedureNameLength,
        SqlInfo::SqlMaxRowSize,
        SqlInfo::SqlMaxStatementLength,
        SqlInfo::SqlMaxStatements,
        SqlInfo::SqlMaxTablesInSelect,
        SqlInfo::SqlMaxUsernameLength,
    ] {
        infos.append(name, 0_i64);
    }
    infos.append(SqlInfo::SqlMaxRowSizeIncludesBlobs, true);
}

/// The names and aliases of the functions that DataFusion documents under some headings.
fn functions(context: &SessionContext, headings: &[&str]) -> Vec<String> {
    let state = context.state();
    let mut names: Vec<String> = state
        .scalar_functions()
        .iter()
        .filter(|(_, function)| {
            function.documentation().is_some_and(|about| headings.contains(&about.doc_section.label))
        })
        .map(|(name, _)| name.clone())
        .collect();
    names.sort_unstable();
    names
}

/// What CAST makes of what.
fn conversions() -> BTreeMap<i32, Vec<i32>> {
    use SqlSupportsConvert as Type;
    let numbers = [
        Type::SqlConvertBigint,
        Type::SqlConvertInteger,
        Type::SqlConvertSmallint,
        Type::SqlConvertTinyint,
        Type::SqlConvertFloat,
        Type::SqlConvertReal,
        Type::SqlConvertDecimal,
        Type::SqlConvertNumeric,
    ];
    let text = [Type::SqlConvertChar, Type::SqlConvertVarchar, Type::SqlConvertLongvarchar];
    let bytes = [Type::SqlConvertBinary, Type::SqlConvertVarbinary, Type::SqlConvertLongvarbinary];
    let times = [Type::SqlConvertDate, Type::SqlConvertTimestamp];
    let mut all: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    let mut convert = |from: &[Type], to: &[Type]| {
        for from in from {
            all.entry(*from as i32).or_default().extend(to.iter().map(|to| *to as i32));
        }
    };
    convert(&numbers, &numbers);
    convert(&numbers, &text);
    convert(&numbers, &[Type::SqlConvertBit]);
    convert(&[Type::SqlConvertBit], &numbers);
    convert(&[Type::SqlConvertBit], &text);
    convert(&text, &text);
    convert(&text, &numbers);
    convert(&text, &bytes);
    convert(&text, &times);
    convert(&text, &[Type::SqlConvertBit, Type::SqlConvertTime]);
    convert(&bytes, &bytes);
    convert(&bytes, &text);
    convert(&times, &times);
    convert(&times, &text);
    convert(&[Type::SqlConvertTimestamp], &[Type::SqlConvertTime]);
    convert(&[Type::SqlConvertTime], &text);
    all
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, UInt32Array};
    use arrow::datatypes::UInt32Type;
    use arrow_flight::encode::FlightDataEncoderBuilder;

    use super::*;

    fn all() -> RecordBatch {
        sql_info(&SessionContext::new(), Duration::ZERO, Vec::new()).unwrap()
    }

    fn value(batch: &RecordBatch, info: SqlInfo) -> (i8, ArrayRef) {
        let row = batch.column(0).as_primitive::<UInt32Type>().values().iter().position(|code| *code == info as u32);
        let values = batch.column(1).as_union();
        (values.type_id(row.unwrap()), values.value(row.unwrap()))
    }

    #[test]
    fn every_code_of_the_protocol_is_answered() {
        let batch = all();
        let codes = batch.column(0).as_primitive::<UInt32Type>().values();
        let known = (0..1000).filter(|code| SqlInfo::try_from(*code).is_ok());
        let missing: Vec<i32> = known.filter(|code| !codes.contains(&(*code as u32))).collect();
        // The versions of Substrait, which there is none of.
        let answered_by_others =
            [SqlInfo::FlightSqlServerSubstraitMinVersion as i32, SqlInfo::FlightSqlServerSubstraitMaxVersion as i32];
        assert_eq!(missing, answered_by_others);
    }

    #[test]
    fn the_codes_that_clients_read_blindly_have_their_types() {
        let batch = all();
        for (code, type_id) in [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1), (5, 1), (8, 3)] {
            assert_eq!(value(&batch, SqlInfo::try_from(code).unwrap()).0, type_id, "{code}");
        }
        assert_eq!(value(&batch, SqlInfo::FlightSqlServerName).1.as_string::<i32>().value(0), "Couatl");
    }

    #[test]
    fn codes_narrow_the_answer() {
        let codes = vec![SqlInfo::FlightSqlServerTransaction as u32, 99_999];
        let batch = sql_info(&SessionContext::new(), Duration::ZERO, codes).unwrap();
        assert_eq!(batch.column(0).as_primitive::<UInt32Type>(), &UInt32Array::from(vec![8]));
        assert_eq!(sql_info(&SessionContext::new(), Duration::ZERO, vec![99_999]).unwrap().num_rows(), 0);
    }

    #[test]
    fn the_schema_is_the_one_that_is_sent() {
        assert_eq!(all().schema(), schema());
        let encoder = FlightDataEncoderBuilder::new().with_schema(schema()).build(futures::stream::empty());
        assert_eq!(encoder.known_schema(), Some(schema()));
    }

    #[test]
    fn functions_are_those_of_the_engine() {
        let batch = all();
        for (info, name) in [
            (SqlInfo::SqlNumericFunctions, "abs"),
            (SqlInfo::SqlStringFunctions, "substr"),
            (SqlInfo::SqlDatetimeFunctions, "date_trunc"),
            (SqlInfo::SqlSystemFunctions, "coalesce"),
            (SqlInfo::SqlKeywords, "SELECT"),
        ] {
            let list = value(&batch, info).1;
            let names = list.as_list::<i32>().value(0);
            assert!(names.as_string::<i32>().iter().flatten().any(|found| found == name), "{name}: {names:?}");
        }
        let map = value(&batch, SqlInfo::SqlSupportsConvert).1;
        assert!(map.as_map().value(0).len() > 10);
    }
}
