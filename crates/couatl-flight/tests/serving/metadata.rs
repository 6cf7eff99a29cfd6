//! Metadata commands: what is announced, what is sent, what is listed.

use std::collections::HashMap;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Schema, UInt32Type};
use arrow_flight::sql::{
    CommandGetCatalogs, CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys,
    CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo,
    ProstMessageExt, SqlInfo,
};
use arrow_flight::{FlightDescriptor, IpcMessage};
use prost::Message;

use crate::fixture::{Client, announced, fetch, run, served};

/// The rows of a command; its schema is the same wherever a client asks for it.
async fn listed(client: &mut Client, command: impl ProstMessageExt) -> RecordBatch {
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    let schema = client.inner_mut().get_schema(descriptor.clone()).await.unwrap().into_inner();
    let schema = Schema::try_from(IpcMessage(schema.schema)).unwrap();
    let info = client.inner_mut().get_flight_info(descriptor).await.unwrap().into_inner();
    assert_eq!(announced(&info), schema);
    let (sent, batches) = fetch(client, &info).await.unwrap();
    assert_eq!(*sent, schema);
    arrow::compute::concat_batches(&sent, &batches).unwrap()
}

fn text(batch: &RecordBatch, column: usize) -> Vec<&str> {
    batch.column(column).as_string::<i32>().iter().flatten().collect()
}

#[tokio::test]
async fn every_command_has_one_schema() {
    let served = served().await;
    let mut client = served.client().await;
    assert!(listed(&mut client, CommandGetCatalogs {}).await.num_rows() > 0);
    assert!(listed(&mut client, CommandGetDbSchemas::default()).await.num_rows() > 0);
    for include_schema in [false, true] {
        let tables = CommandGetTables { include_schema, ..Default::default() };
        assert!(listed(&mut client, tables).await.num_rows() > 0);
    }
    assert_eq!(listed(&mut client, CommandGetTableTypes {}).await.num_rows(), 3);
    assert!(listed(&mut client, CommandGetSqlInfo::default()).await.num_rows() > 80);
    assert!(listed(&mut client, CommandGetXdbcTypeInfo::default()).await.num_rows() > 10);
    assert_eq!(listed(&mut client, CommandGetPrimaryKeys::default()).await.num_rows(), 0);
    assert_eq!(listed(&mut client, CommandGetExportedKeys::default()).await.num_rows(), 0);
    assert_eq!(listed(&mut client, CommandGetImportedKeys::default()).await.num_rows(), 0);
    assert_eq!(listed(&mut client, CommandGetCrossReference::default()).await.num_rows(), 0);
}

#[tokio::test]
async fn what_was_created_is_listed() {
    let served = served().await;
    let mut client = served.client().await;
    run(&mut client, r#"CREATE TABLE "a_b" AS SELECT md5('x') AS hash"#).await.unwrap();
    run(&mut client, "CREATE TABLE axb AS VALUES (1)").await.unwrap();
    run(&mut client, "CREATE VIEW v AS SELECT * FROM axb").await.unwrap();
    assert!(text(&listed(&mut client, CommandGetCatalogs {}).await, 0).contains(&"couatl"));
    let schemas = listed(&mut client, CommandGetDbSchemas::default()).await;
    assert!(text(&schemas, 1).contains(&"public") && text(&schemas, 1).contains(&"information_schema"));

    let tables = |pattern: &str| CommandGetTables {
        catalog: Some("couatl".to_owned()),
        db_schema_filter_pattern: Some("public".to_owned()),
        table_name_filter_pattern: Some(pattern.to_owned()),
        include_schema: true,
        ..Default::default()
    };
    assert_eq!(text(&listed(&mut client, tables("a_b")).await, 2), ["a_b", "axb"]);
    assert_eq!(text(&listed(&mut client, tables("%")).await, 3), ["TABLE", "TABLE", "VIEW"]);
    let one = listed(&mut client, tables(r"a\_b")).await;
    assert_eq!(text(&one, 2), ["a_b"]);
    let schema = Schema::try_from(IpcMessage(one.column(4).as_binary::<i32>().value(0).to_vec().into())).unwrap();
    let info = client.execute("SELECT * FROM a_b".to_owned(), None).await.unwrap();
    // What they are; where they come from, their row says.
    let plain = |schema: Schema| {
        schema.fields().iter().map(|field| field.as_ref().clone().with_metadata(HashMap::new())).collect::<Vec<_>>()
    };
    assert_eq!(plain(announced(&info)), plain(schema));
}

#[tokio::test]
async fn clients_find_what_they_look_for_in_the_server_info() {
    let served = served().await;
    let mut client = served.client().await;
    let info = client.get_sql_info(vec![SqlInfo::FlightSqlServerTransaction, SqlInfo::SqlIdentifierQuoteChar]).await;
    let (_, batches) = fetch(&mut client, &info.unwrap()).await.unwrap();
    assert_eq!(batches[0].column(0).as_primitive::<UInt32Type>().values(), &[8, 504]);
    let values = batches[0].column(1).as_union();
    assert_eq!((values.type_id(0), values.type_id(1)), (3, 0));
    assert_eq!(values.value(1).as_string::<i32>().value(0), "\"");
}
