//! How queries and the server end.

use std::time::{Duration, Instant};

use couatl_flight::ServerConfig;
use futures::TryStreamExt;
use tonic::Code;

use crate::fixture::{Client, Served, fetch, refused, run, served, served_with, until, value};

type Rows = arrow_flight::decode::FlightRecordBatchStream;

/// An endless query of which the client has seen a row.
async fn endless(client: &mut Client, table: &str) -> Rows {
    let info = client.execute(format!("SELECT * FROM {table}"), None).await.unwrap();
    let mut rows = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    assert!(rows.try_next().await.unwrap().unwrap().num_rows() > 0);
    rows
}

/// The status that ends a stream.
async fn end(mut rows: Rows) -> tonic::Status {
    loop {
        match rows.try_next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended as if in order"),
            Err(error) => return refused::<()>(Err(error)),
        }
    }
}

async fn served_with_grace(grace: Duration) -> Served {
    let served = served_with(ServerConfig { grace, ..ServerConfig::default() }).await;
    served.clock();
    served.flood();
    served
}

#[tokio::test]
async fn dropping_the_reader_ends_the_query() {
    let served = served().await;
    served.clock();
    served.flood();
    let mut client = served.client().await;
    for table in ["clock", "flood"] {
        let rows = endless(&mut client, table).await;
        assert_eq!(served.session.queries().list().len(), 1);
        drop(rows);
        served.until_idle().await;
    }
    assert_eq!(value(&mut client, "SELECT 1").await, "1");
}

#[tokio::test]
async fn dropping_the_connection_ends_its_queries() {
    let served = served().await;
    served.clock();
    let (address, runtime) = (served.address.clone(), tokio::runtime::Builder::new_multi_thread());
    // A client on a runtime of its own, which dies with everything in it, as a killed process does.
    let died = tokio::task::spawn_blocking(move || {
        let mut runtime = runtime;
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let rows = runtime.block_on(async {
            let channel = tonic::transport::Endpoint::from_shared(address).unwrap().connect().await.unwrap();
            let mut client = Client::new(channel);
            (endless(&mut client, "clock").await, endless(&mut client, "clock").await)
        });
        runtime.shutdown_background();
        drop(rows);
    });
    died.await.unwrap();
    served.until_idle().await;
}

#[tokio::test]
async fn an_update_whose_client_leaves_is_ended() {
    let served = served().await;
    served.clock();
    let mut client = served.client().await;
    run(&mut client, "CREATE TABLE t (n BIGINT)").await.unwrap();
    for prepared in [false, true] {
        let mut client = served.client().await;
        let insert = async {
            let sql = "INSERT INTO t SELECT * FROM clock".to_owned();
            if prepared {
                client.prepare(sql, None).await.unwrap().execute_update().await.unwrap();
            } else {
                client.execute(sql, None).await.unwrap();
            }
        };
        assert!(tokio::time::timeout(Duration::from_millis(300), insert).await.is_err());
        served.until_idle().await;
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_query_and_nobody_else() {
    let served = served().await;
    served.flood();
    let mut client = served.client().await;
    let _rows = endless(&mut client, "flood").await;
    let rows_given = || served.session.queries().list()[0].rows;
    let mut before = rows_given();
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = rows_given();
        if now == before {
            break;
        }
        before = now;
    }
    assert_eq!(value(&mut served.client().await, "SELECT 1").await, "1");
    assert_eq!(rows_given(), before);
}

#[tokio::test]
async fn without_clients_the_server_ends_at_once() {
    let mut served = served_with_grace(Duration::from_secs(60)).await;
    let mut client = served.client().await;
    assert_eq!(value(&mut client, "SELECT 1").await, "1");
    let asked = Instant::now();
    served.stop.cancel();
    (&mut served.serving).await.unwrap().unwrap();
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn new_work_is_refused_while_running_queries_have_their_grace() {
    let mut served = served_with_grace(Duration::from_secs(30)).await;
    let mut client = served.client().await;
    let mut rows = endless(&mut client, "clock").await;
    let promised = client.execute("SELECT 1".to_owned(), None).await.unwrap();
    let prepared = client.prepare("SELECT 1".to_owned(), None).await.unwrap();
    served.stop.cancel();
    until("the server refuses", || served.stop.is_cancelled()).await;
    tokio::time::sleep(Duration::from_millis(50)).await;

    assert_eq!(refused(client.execute("SELECT 1".to_owned(), None).await).code(), Code::Unavailable);
    assert_eq!(refused(fetch(&mut client, &promised).await).code(), Code::Unavailable);
    let mut late = served.client().await;
    let refusal = refused(late.execute("SELECT 1".to_owned(), None).await);
    assert_eq!((refusal.code(), refusal.message()), (Code::Unavailable, "the server is shutting down"));
    prepared.close().await.unwrap();
    for _ in 0..20 {
        assert!(rows.try_next().await.unwrap().is_some());
    }
    assert!(!served.serving.is_finished());
    drop(rows);
    tokio::time::timeout(Duration::from_secs(5), &mut served.serving).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_result_that_is_read_slowly_arrives_whole_within_the_grace() {
    let mut served = served_with_grace(Duration::from_secs(30)).await;
    let mut client = served.client().await;
    let info = client.execute("SELECT * FROM flood LIMIT 10000000".to_owned(), None).await.unwrap();
    let mut rows = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    let mut seen = rows.try_next().await.unwrap().unwrap().num_rows();
    served.stop.cancel();
    tokio::time::sleep(Duration::from_millis(300)).await;
    while let Some(batch) = rows.try_next().await.unwrap() {
        seen += batch.num_rows();
    }
    assert_eq!(seen, 10_000_000);
    tokio::time::timeout(Duration::from_secs(5), &mut served.serving).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn an_endless_query_is_ended_with_a_status_after_the_grace() {
    let mut served = served_with_grace(Duration::from_millis(200)).await;
    let mut client = served.client().await;
    let rows = endless(&mut client, "clock").await;
    let asked = Instant::now();
    served.stop.cancel();
    let status = end(rows).await;
    assert_eq!(status.code(), Code::Cancelled, "{status}");
    assert!(asked.elapsed() >= Duration::from_millis(200));
    tokio::time::timeout(Duration::from_secs(5), &mut served.serving).await.unwrap().unwrap().unwrap();
    assert!(served.session.queries().list().is_empty());
}

#[tokio::test]
async fn a_client_that_does_not_read_does_not_keep_the_server() {
    let mut served = served_with_grace(Duration::from_millis(200)).await;
    let mut client = served.client().await;
    let rows = endless(&mut client, "flood").await;
    let asked = Instant::now();
    served.stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), &mut served.serving).await.unwrap().unwrap().unwrap();
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    served.until_idle().await;
    // Its connection was cut: that is no end of a result.
    end(rows).await;
}

#[tokio::test]
async fn dropping_the_server_cuts_its_connections() {
    let served = served().await;
    served.clock();
    let mut client = served.client().await;
    let rows = endless(&mut client, "clock").await;
    served.serving.abort();
    end(rows).await;
    served.until_idle().await;
}
