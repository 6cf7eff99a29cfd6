//! Statements: rows on the wire, and updates that run once.

use std::time::Duration;

use arrow::datatypes::{DataType, Schema};
use arrow::util::pretty::pretty_format_batches;
use arrow_flight::sql::{CommandStatementQuery, ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightDescriptor, IpcMessage, Ticket};
use couatl_core::{Error, ErrorKind};
use expect_test::expect;
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message;
use tonic::Code;

use crate::fixture::{announced, fetch, numbers, refused, run, served, value};

#[tokio::test]
async fn a_query_gives_its_rows() {
    let served = served().await;
    let mut client = served.client().await;
    let batches = run(&mut client, "SELECT column1 AS n, md5('x') AS hash FROM (VALUES (1), (2)) ORDER BY n").await;
    expect![[r#"
        +---+----------------------------------+
        | n | hash                             |
        +---+----------------------------------+
        | 1 | 9dd4e461268c8034f5c8564e155c67a6 |
        | 2 | 9dd4e461268c8034f5c8564e155c67a6 |
        +---+----------------------------------+"#]]
    .assert_eq(&pretty_format_batches(&batches.unwrap()).unwrap().to_string());
    served.until_idle().await;
}

#[tokio::test]
async fn one_schema_everywhere() {
    let served = served().await;
    let mut client = served.client().await;
    for sql in [
        "SELECT 1 AS one, 'a' AS text, NULL AS nothing, now() AS at",
        "SELECT arrow_cast('a', 'Dictionary(Int8, Utf8)') AS word, md5('x') AS hash, [md5('y')] AS hashes",
        "SELECT arrow_cast([1, 2], 'LargeList(Int64)') AS large, arrow_cast('a', 'Utf8View') AS view",
        "SELECT named_struct('a', arrow_cast('a', 'Dictionary(Int8, Utf8)'), 'b', x'00') AS s",
        "SELECT MAP {'a': md5('x')} AS m",
        "SELECT count(*) AS n FROM information_schema.tables WHERE false",
        "SELECT table_name FROM information_schema.tables WHERE false",
        "SHOW TABLES",
        "EXPLAIN SELECT 1",
    ] {
        let query = CommandStatementQuery { query: sql.to_owned(), transaction_id: None };
        let descriptor = FlightDescriptor::new_cmd(query.as_any().encode_to_vec());
        let from_schema = client.inner_mut().get_schema(descriptor).await.unwrap().into_inner();
        let from_schema = Schema::try_from(IpcMessage(from_schema.schema)).unwrap();
        let mut prepared = client.prepare(sql.to_owned(), None).await.unwrap();
        assert_eq!(prepared.dataset_schema().unwrap(), &from_schema, "{sql}");
        for info in [client.execute(sql.to_owned(), None).await.unwrap(), prepared.execute().await.unwrap()] {
            assert_eq!(announced(&info), from_schema, "{sql}");
            let (sent, batches) = fetch(&mut client, &info).await.unwrap();
            assert_eq!(*sent, from_schema, "{sql}");
            assert!(batches.iter().all(|batch| batch.schema() == sent), "{sql}");
        }
        let text = format!("{from_schema:?}");
        assert!(!text.contains("View") && !text.contains("Dictionary("), "{text}");
    }
}

#[tokio::test]
async fn field_metadata_survives() {
    let served = served().await;
    let mut client = served.client().await;
    let storage = DataType::FixedSizeBinary(16);
    let field = arrow::datatypes::Field::new("id", storage, true)
        .with_metadata([("ARROW:extension:name".to_owned(), "arrow.uuid".to_owned())].into());
    let batch = arrow::array::RecordBatch::new_empty(Schema::new(vec![field.clone()]).into());
    served.session.context().register_batch("ids", batch).unwrap();
    let info = client.execute("SELECT * FROM ids".to_owned(), None).await.unwrap();
    for schema in [announced(&info), Schema::clone(&fetch(&mut client, &info).await.unwrap().0)] {
        let metadata = schema.field(0).metadata();
        assert_eq!(metadata["ARROW:extension:name"], "arrow.uuid");
        assert_eq!(metadata["ARROW:FLIGHT:SQL:TYPE_NAME"], "uuid");
        assert_eq!(metadata["ARROW:FLIGHT:SQL:TABLE_NAME"], "ids");
        assert_eq!(schema.field(0).clone().with_metadata(field.metadata().clone()), field);
    }
}

#[tokio::test]
async fn an_update_runs_once_where_it_is_asked_for() {
    let served = served().await;
    let mut client = served.client().await;
    let info = client.execute("CREATE TABLE t AS VALUES (1), (2)".to_owned(), None).await.unwrap();
    assert!(fetch(&mut client, &info).await.unwrap().1.is_empty());
    assert_eq!((announced(&info), info.total_records), (Schema::empty(), -1));
    assert_eq!(value(&mut client, "SELECT count(*) FROM t").await, "2");

    let info = client.execute("INSERT INTO t VALUES (3), (4), (5)".to_owned(), None).await.unwrap();
    assert!(fetch(&mut client, &info).await.unwrap().1.is_empty());
    assert_eq!((announced(&info), info.total_records), (Schema::empty(), 3));
    assert_eq!(value(&mut client, "SELECT count(*) FROM t").await, "5");

    assert_eq!(client.execute_update("INSERT INTO t VALUES (6)".to_owned(), None).await.unwrap(), 1);
    assert_eq!(client.execute_update("DROP TABLE t".to_owned(), None).await.unwrap(), 0);
    assert_eq!(refused(run(&mut client, "SELECT * FROM t").await).code(), Code::NotFound);
}

#[tokio::test]
async fn a_query_that_arrives_as_an_update_runs() {
    let served = served().await;
    let mut client = served.client().await;
    assert_eq!(client.execute_update("SELECT 1".to_owned(), None).await.unwrap(), 0);
}

#[tokio::test]
async fn several_statements_run_in_order_and_once() {
    let served = served().await;
    let mut client = served.client().await;
    let text = "CREATE TABLE t AS VALUES (1); INSERT INTO t VALUES (2); SELECT count(*) AS n FROM t";
    let info = client.execute(text.to_owned(), None).await.unwrap();
    assert_eq!(announced(&info).field(0).name(), "n");
    for _ in 0..2 {
        let (sent, batches) = fetch(&mut client, &info).await.unwrap();
        assert_eq!(*sent, announced(&info));
        assert_eq!(format!("{:?}", batches[0].column(0)).matches("  2,").count(), 1, "{batches:?}");
    }
    assert_eq!(client.execute_update("INSERT INTO t VALUES (3); DROP TABLE t".to_owned(), None).await.unwrap(), 0);
}

#[tokio::test]
async fn a_ticket_may_be_redeemed_again() {
    let served = served().await;
    let mut client = served.client().await;
    let info = client.execute("SELECT 1".to_owned(), None).await.unwrap();
    for _ in 0..3 {
        assert_eq!(fetch(&mut client, &info).await.unwrap().1[0].num_rows(), 1);
    }
    assert!(info.endpoint[0].location.is_empty());
}

#[tokio::test]
async fn a_ticket_that_was_not_issued_is_not_found() {
    let served = served().await;
    let mut client = served.client().await;
    for handle in ["", "SELECT 1", "00000000-0000-4000-8000-000000000000"] {
        let ticket = TicketStatementQuery { statement_handle: handle.into() };
        let refusal = refused(client.do_get(Ticket::new(ticket.as_any().encode_to_vec())).await);
        assert_eq!(refusal.code(), Code::NotFound);
    }
}

#[tokio::test]
async fn a_row_is_on_the_wire_at_once() {
    let served = served().await;
    served.feed("slow", || stream::iter([Ok(numbers(0..1))]).chain(stream::pending()).boxed());
    let mut client = served.client().await;
    for sql in ["SELECT * FROM slow", "SELECT n + 1 AS m, 'a' AS text FROM slow"] {
        let info = client.execute(sql.to_owned(), None).await.unwrap();
        let mut rows = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
        let first = tokio::time::timeout(Duration::from_secs(2), rows.try_next()).await.unwrap();
        assert_eq!(first.unwrap().unwrap().num_rows(), 1, "{sql}");
    }
    served.until_idle().await;
}

#[tokio::test]
async fn an_error_after_rows_arrives_as_its_status() {
    let served = served().await;
    served.feed("broken", || {
        let traceback = "division by zero\n  File \"clock\", line 3\n    yield 1 / 0\nZeroDivisionError: é 100%";
        let error = Error::new(ErrorKind::PythonException, traceback);
        stream::iter([Ok(numbers(0..3)), Ok(numbers(3..6)), Err(error)]).boxed()
    });
    let mut client = served.client().await;
    let info = client.execute("SELECT * FROM broken".to_owned(), None).await.unwrap();
    let mut rows = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    let mut seen = 0;
    let error = loop {
        match rows.try_next().await {
            Ok(Some(batch)) => seen += batch.num_rows(),
            Ok(None) => panic!("it ended as if in order"),
            Err(error) => break refused::<()>(Err(error)),
        }
    };
    assert_eq!(seen, 6);
    assert_eq!(error.code(), Code::Unknown);
    expect![[r#"
        division by zero
          File "clock", line 3
            yield 1 / 0
        ZeroDivisionError: é 100%"#]]
    .assert_eq(error.message());
    assert_eq!(error.metadata().get("x-couatl-error-kind").unwrap(), "python-exception");
    served.until_idle().await;
}

#[tokio::test]
async fn a_panic_after_rows_is_an_error_and_never_an_end() {
    let served = served().await;
    served.feed("panics", || {
        stream::iter([0, 1]).map(|n| if n == 1 { panic!("boom") } else { Ok(numbers(0..1)) }).boxed()
    });
    let mut client = served.client().await;
    let refusal = refused(run(&mut client, "SELECT * FROM panics").await);
    assert_eq!(refusal.code(), Code::Internal);
    assert!(refusal.message().contains("boom"), "{refusal}");
    assert_eq!(value(&mut client, "SELECT 1").await, "1");
}

#[tokio::test]
async fn a_long_message_reaches_the_client_shortened() {
    let served = served().await;
    served.feed("loud", || {
        let message = format!("it began here\n{}it ended here", "  a line of a traceback\n".repeat(50_000));
        stream::iter([Err(Error::new(ErrorKind::PythonException, message))]).boxed()
    });
    let mut client = served.client().await;
    let refusal = refused(run(&mut client, "SELECT * FROM loud").await);
    assert_eq!(refusal.code(), Code::Unknown);
    assert!(refusal.message().starts_with("it began here\n") && refusal.message().ends_with("it ended here"));
}

#[tokio::test]
async fn what_is_wrong_with_a_statement_is_said_before_it_runs() {
    let served = served().await;
    let mut client = served.client().await;
    for (sql, code) in [
        ("SELEC 1", Code::InvalidArgument),
        ("SELECT * FROM nowhere", Code::NotFound),
        ("SELECT nothing", Code::InvalidArgument),
        ("", Code::InvalidArgument),
        ("SELECT $1", Code::InvalidArgument),
    ] {
        let refusal = refused(run(&mut client, sql).await);
        assert_eq!(refusal.code(), code, "{sql}: {refusal}");
        assert!(refusal.metadata().contains_key("x-couatl-error-kind"), "{sql}");
    }
    let refusal = refused(client.execute("SELECT 1".to_owned(), Some("transaction".into())).await);
    assert_eq!(refusal.code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_large_result_arrives_whole() {
    let served = served().await;
    served.feed("large", || stream::iter((0..20).map(|n| Ok(numbers(n * 100_000..(n + 1) * 100_000)))).boxed());
    let mut client = served.client().await;
    let batches = run(&mut client, "SELECT * FROM large").await.unwrap();
    let all = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
    assert_eq!(all.columns(), numbers(0..2_000_000).columns());
}

#[tokio::test]
async fn a_value_that_no_message_holds_is_refused() {
    let served = served().await;
    let mut client = served.client().await;
    let refusal = refused(run(&mut client, "SELECT repeat('x', 100000000) AS s").await);
    assert_eq!(refusal.code(), Code::ResourceExhausted);
    assert!(refusal.message().contains("select fewer or shorter columns"), "{refusal}");
    assert_eq!(value(&mut client, "SELECT length(repeat('x', 100000000))").await, "100000000");
}
