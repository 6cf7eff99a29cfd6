//! Prepared statements and their parameters.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Schema};
use arrow::util::pretty::pretty_format_batches;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::sql::{
    ActionCreatePreparedStatementRequest, Any, CommandPreparedStatementQuery, CommandPreparedStatementUpdate,
    DoPutUpdateResult, ProstMessageExt,
};
use arrow_flight::{Action, FlightDescriptor, Ticket};
use expect_test::expect;
use futures::{TryStreamExt, stream};
use prost::Message;
use tonic::Code;

use crate::fixture::{Client, announced, fetch, refused, run, served, value};

/// Parameters as ADBC sends them.
fn rows(numbers: &[Option<i64>], words: &[&str]) -> RecordBatch {
    let columns: [(&str, ArrayRef); 2] =
        [("0", Arc::new(Int64Array::from(numbers.to_vec()))), ("1", Arc::new(StringArray::from(words.to_vec())))];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}

/// What the wire has of a new prepared statement: its handle, and field 4, which arrow-flight does not know.
async fn created(client: &mut Client, sql: &str) -> (bytes::Bytes, u8) {
    let request = ActionCreatePreparedStatementRequest { query: sql.to_owned(), transaction_id: None };
    let action = Action::new("CreatePreparedStatement", request.as_any().encode_to_vec());
    let mut results = client.inner_mut().do_action(action).await.unwrap().into_inner();
    let message = Any::decode(&*results.message().await.unwrap().unwrap().body).unwrap();
    let [.., tag, is_update] = *message.value else { panic!("no field") };
    assert_eq!(tag, 4 << 3);
    let result: arrow_flight::sql::ActionCreatePreparedStatementResult = message.unpack().unwrap().unwrap();
    (result.prepared_statement_handle, is_update)
}

#[tokio::test]
async fn preparing_changes_nothing_and_executing_runs_once() {
    let served = served().await;
    let mut client = served.client().await;
    let mut create = client.prepare("CREATE TABLE t AS VALUES (1)".to_owned(), None).await.unwrap();
    assert_eq!(create.dataset_schema().unwrap(), &Schema::empty());
    assert_eq!(refused(run(&mut client, "SELECT * FROM t").await).code(), Code::NotFound);
    let info = create.execute().await.unwrap();
    assert!(fetch(&mut client, &info).await.unwrap().1.is_empty());
    assert_eq!((announced(&info), info.total_records), (Schema::empty(), -1));
    assert_eq!(value(&mut client, "SELECT count(*) FROM t").await, "1");
    assert_eq!(refused(create.execute().await).code(), Code::AlreadyExists);

    let mut insert = client.prepare("INSERT INTO t VALUES (2), (3)".to_owned(), None).await.unwrap();
    assert_eq!(insert.execute().await.unwrap().total_records, 2);
    assert_eq!(insert.execute_update().await.unwrap(), 2);
    assert_eq!(value(&mut client, "SELECT count(*) FROM t").await, "5");
    insert.close().await.unwrap();
}

#[tokio::test]
async fn a_new_statement_says_whether_it_is_an_update() {
    let served = served().await;
    let mut client = served.client().await;
    assert_eq!(created(&mut client, "SELECT 1").await.1, 0);
    assert_eq!(created(&mut client, "CREATE TABLE t (n BIGINT)").await.1, 1);
    assert_eq!(created(&mut client, "SET datafusion.execution.batch_size = 100").await.1, 1);
    assert_eq!(created(&mut client, "SHOW TABLES").await.1, 0);
}

#[tokio::test]
async fn parameters_go_by_position_and_take_the_types_of_the_statement() {
    let served = served().await;
    let mut client = served.client().await;
    run(&mut client, "CREATE TABLE t (n INT, word VARCHAR)").await.unwrap();
    run(&mut client, "INSERT INTO t VALUES (1, 'a'), (2, 'b')").await.unwrap();
    let mut select = client.prepare("SELECT * FROM t WHERE n = ? AND word <> ?".to_owned(), None).await.unwrap();
    let parameters = select.parameter_schema().unwrap();
    assert_eq!(parameters.fields().len(), 2);
    assert_eq!((parameters.field(0).name().as_str(), parameters.field(0).data_type()), ("$1", &DataType::Int32));
    select.set_parameters(rows(&[Some(2)], &["a"])).unwrap();
    for _ in 0..2 {
        let info = select.execute().await.unwrap();
        let (sent, batches) = fetch(&mut client, &info).await.unwrap();
        assert_eq!(&*sent, select.dataset_schema().unwrap());
        expect![[r#"
            +---+------+
            | n | word |
            +---+------+
            | 2 | b    |
            +---+------+"#]]
        .assert_eq(&pretty_format_batches(&batches).unwrap().to_string());
    }
    select.set_parameters(rows(&[Some(2)], &["a"]).project(&[0]).unwrap()).unwrap();
    let error = select.execute().await.unwrap_err();
    assert!(error.to_string().contains("expected 2 parameters, got 1"), "{error}");
}

#[tokio::test]
async fn many_rows_of_parameters_are_many_executions() {
    let served = served().await;
    let mut client = served.client().await;
    run(&mut client, "CREATE TABLE t (n BIGINT, word VARCHAR)").await.unwrap();
    let mut insert = client.prepare("INSERT INTO t VALUES ($1, $2)".to_owned(), None).await.unwrap();
    insert.set_parameters(rows(&[Some(1), None, Some(3)], &["a", "b", "c"])).unwrap();
    assert_eq!(insert.execute_update().await.unwrap(), 3);
    assert_eq!(insert.execute().await.unwrap().total_records, 3);
    assert_eq!(value(&mut client, "SELECT count(*) FROM t").await, "6");

    let query = "SELECT cast($1 AS BIGINT) AS n, cast($2 AS VARCHAR) AS word";
    let mut select = client.prepare(query.to_owned(), None).await.unwrap();
    select.set_parameters(rows(&[Some(1), None, Some(3)], &["a", "b", "c"])).unwrap();
    let info = select.execute().await.unwrap();
    let (sent, batches) = fetch(&mut client, &info).await.unwrap();
    assert_eq!(*sent, announced(&info));
    expect![[r#"
        +---+------+
        | n | word |
        +---+------+
        | 1 | a    |
        |   | b    |
        | 3 | c    |
        +---+------+"#]]
    .assert_eq(&pretty_format_batches(&batches).unwrap().to_string());

    for statement in [&mut insert, &mut select] {
        statement.set_parameters(rows(&[], &[])).unwrap();
    }
    assert_eq!(insert.execute_update().await.unwrap(), 0);
    assert_eq!(insert.execute().await.unwrap().total_records, 0);
    let info = select.execute().await.unwrap();
    let (sent, batches) = fetch(&mut client, &info).await.unwrap();
    assert_eq!((sent.fields().len(), batches.len()), (2, 0));
    served.until_idle().await;
}

/// ADBC sends the parameters of an update with the update.
async fn update(client: &mut Client, handle: bytes::Bytes, parameters: Vec<RecordBatch>) -> i64 {
    let command = CommandPreparedStatementUpdate { prepared_statement_handle: handle };
    let messages: Vec<_> = FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(FlightDescriptor::new_cmd(command.as_any().encode_to_vec())))
        .with_schema(parameters.first().map_or_else(|| Schema::empty().into(), RecordBatch::schema))
        .build(stream::iter(parameters.into_iter().map(Ok)))
        .try_collect()
        .await
        .unwrap();
    let result = client.do_put(stream::iter(messages)).await.unwrap().message().await.unwrap().unwrap();
    DoPutUpdateResult::decode(&*result.app_metadata).unwrap().record_count
}

#[tokio::test]
async fn an_update_takes_its_parameters_with_it() {
    let served = served().await;
    let mut client = served.client().await;
    run(&mut client, "CREATE TABLE t (n BIGINT, word VARCHAR)").await.unwrap();
    let (handle, _) = created(&mut client, "INSERT INTO t VALUES ($1, $2)").await;
    let batches = vec![rows(&[Some(1), Some(2)], &["a", "b"]), rows(&[Some(3)], &["c"])];
    assert_eq!(update(&mut client, handle, batches).await, 3);
    let (handle, _) = created(&mut client, "INSERT INTO t VALUES (4, 'd')").await;
    assert_eq!(update(&mut client, handle, vec![]).await, 1);
    assert_eq!(value(&mut client, "SELECT count(*) FROM t").await, "4");
}

#[tokio::test]
async fn a_large_upload_is_taken() {
    let served = served().await;
    let mut client = served.client().await;
    let mut select = client.prepare("SELECT length($1) AS n".to_owned(), None).await.unwrap();
    let text = StringArray::from(vec!["x".repeat(12_000_000)]);
    select.set_parameters(RecordBatch::try_from_iter([("0", Arc::new(text) as ArrayRef)]).unwrap()).unwrap();
    let info = select.execute().await.unwrap();
    let (_, batches) = fetch(&mut client, &info).await.unwrap();
    assert!(format!("{batches:?}").contains("12000000"));
}

#[tokio::test]
async fn handles_end_when_they_are_closed() {
    let served = served().await;
    let mut client = served.client().await;
    let (handle, _) = created(&mut client, "SELECT 1").await;
    let command = CommandPreparedStatementQuery { prepared_statement_handle: handle.clone() };
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    let info = client.inner_mut().get_flight_info(descriptor.clone()).await.unwrap().into_inner();
    let own_ticket = Ticket::new(command.as_any().encode_to_vec());
    assert_eq!(client.do_get(own_ticket.clone()).await.unwrap().try_collect::<Vec<_>>().await.unwrap().len(), 1);

    let close = arrow_flight::sql::ActionClosePreparedStatementRequest { prepared_statement_handle: handle };
    for _ in 0..2 {
        let action = Action::new("ClosePreparedStatement", close.as_any().encode_to_vec());
        client.inner_mut().do_action(action).await.unwrap();
    }
    assert_eq!(client.inner_mut().get_flight_info(descriptor.clone()).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(client.inner_mut().get_schema(descriptor).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(refused(client.do_get(own_ticket).await).code(), Code::NotFound);
    // A result that was promised before is still there to be fetched.
    assert_eq!(fetch(&mut client, &info).await.unwrap().1.len(), 1);
}

#[tokio::test]
async fn an_update_never_runs_in_do_get() {
    let served = served().await;
    let mut client = served.client().await;
    for sql in ["CREATE TABLE t AS VALUES (1)", "CREATE TABLE t AS VALUES (1); SELECT 1"] {
        let (handle, _) = created(&mut client, sql).await;
        let command = CommandPreparedStatementQuery { prepared_statement_handle: handle };
        let refusal = refused(client.do_get(Ticket::new(command.as_any().encode_to_vec())).await);
        assert_eq!(refusal.code(), Code::InvalidArgument, "{sql}");
    }
    assert_eq!(refused(run(&mut client, "SELECT * FROM t").await).code(), Code::NotFound);
}
