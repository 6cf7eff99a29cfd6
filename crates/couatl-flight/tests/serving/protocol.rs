//! Calls at the edge of the protocol: what is not offered, and what is no command at all.

use arrow_flight::sql::{CommandStatementIngest, CommandStatementSubstraitPlan, DoPutUpdateResult, ProstMessageExt};
use arrow_flight::{Action, Criteria, Empty, FlightData, FlightDescriptor, Ticket};
use futures::{TryStreamExt, stream};
use prost::Message;
use tonic::Code;

use crate::fixture::{served, value};

#[tokio::test]
async fn what_is_not_offered_is_said() {
    let served = served().await;
    let mut client = served.client().await;
    let flight = client.inner_mut();
    let plan = CommandStatementSubstraitPlan::default().as_any().encode_to_vec();
    let ingest = CommandStatementIngest { temporary: true, ..Default::default() }.as_any().encode_to_vec();
    let upload =
        |command: Vec<u8>| stream::iter([FlightData::new().with_descriptor(FlightDescriptor::new_cmd(command))]);
    let refusals = [
        flight.poll_flight_info(FlightDescriptor::new_cmd(plan.clone())).await.err(),
        flight.get_flight_info(FlightDescriptor::new_cmd(plan.clone())).await.err(),
        flight.get_schema(FlightDescriptor::new_cmd(plan.clone())).await.err(),
        flight.do_put(upload(plan)).await.err(),
        flight.do_put(upload(ingest.clone())).await.err(),
        flight.do_get(Ticket::new(ingest)).await.err(),
        flight.list_flights(Criteria::default()).await.err(),
        flight.do_exchange(stream::empty()).await.err(),
        flight.do_action(Action::new("BeginTransaction", "")).await.err(),
    ];
    for refusal in refusals {
        let refusal = refusal.unwrap();
        assert_eq!(refusal.code(), Code::Unimplemented, "{refusal}");
        assert!(
            refusal.message().contains("is not offered")
                || refusal.message().contains("are not offered")
                || refusal.message().contains("no ticket of this server"),
            "{refusal}"
        );
        assert_eq!(refusal.metadata().get("x-couatl-error-kind").unwrap(), "unsupported");
    }
}

#[tokio::test]
async fn what_is_no_command_is_a_bad_argument() {
    let served = served().await;
    let mut client = served.client().await;
    for garbage in [&b"\xff\xff\xff\xff"[..], b"SELECT 1"] {
        let flight = client.inner_mut();
        let descriptor = FlightDescriptor::new_cmd(garbage.to_vec());
        let refusals = [
            flight.get_flight_info(descriptor.clone()).await.err(),
            flight.get_schema(descriptor.clone()).await.err(),
            flight.do_get(Ticket::new(garbage.to_vec())).await.err(),
            flight.do_action(Action::new("CreatePreparedStatement", garbage.to_vec())).await.err(),
            flight.do_put(stream::iter([FlightData::new()])).await.err(),
            flight.do_put(stream::iter([FlightData::new().with_descriptor(descriptor)])).await.err(),
        ];
        for refusal in refusals {
            assert_eq!(refusal.unwrap().code(), Code::InvalidArgument);
        }
    }
    assert_eq!(value(&mut client, "SELECT 1").await, "1");
}

#[tokio::test]
async fn an_ingestion_that_does_not_say_what_it_wants_is_a_bad_argument() {
    let served = served().await;
    let mut client = served.client().await;
    let command = CommandStatementIngest { table: "t".to_owned(), ..Default::default() }.as_any().encode_to_vec();
    let upload = stream::iter([FlightData::new().with_descriptor(FlightDescriptor::new_cmd(command))]);
    let refusal = client.inner_mut().do_put(upload).await.unwrap_err();
    assert_eq!(refusal.code(), Code::InvalidArgument);
    assert!(refusal.message().contains("TABLE_NOT_EXIST_OPTION_CREATE"), "{refusal}");
}

#[tokio::test]
async fn an_upload_that_says_nothing_wrote_nothing() {
    let served = served().await;
    let mut client = served.client().await;
    let results = client.inner_mut().do_put(stream::empty()).await.unwrap().into_inner();
    let results: Vec<_> = results.try_collect().await.unwrap();
    let update = DoPutUpdateResult::decode(&*results[0].app_metadata).unwrap();
    assert_eq!((results.len(), update.record_count), (1, 0));
}

#[tokio::test]
async fn a_handshake_is_accepted_and_only_real_actions_are_listed() {
    let served = served().await;
    let mut client = served.client().await;
    client.handshake("anyone", "anything").await.unwrap();
    let actions = client.inner_mut().list_actions(Empty {}).await.unwrap().into_inner();
    let mut names: Vec<String> = actions.map_ok(|action| action.r#type).try_collect().await.unwrap();
    names.sort();
    let expected = [
        "CancelFlightInfo",
        "CancelQuery",
        "ClosePreparedStatement",
        "CloseSession",
        "CreatePreparedStatement",
        "GetSessionOptions",
        "RenewFlightEndpoint",
        "SetSessionOptions",
    ];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_refused_and_the_connection_lives() {
    let served = served().await;
    let mut client = served.client().await;
    let sql = format!("SELECT '{}'", "x".repeat(17 * 1024 * 1024));
    let refusal = crate::fixture::refused(client.execute(sql, None).await);
    assert_eq!(refusal.code(), Code::ResourceExhausted);
    assert!(refusal.message().contains("takes more than 16777216 bytes"), "{refusal}");
    assert_eq!(value(&mut client, "SELECT 1").await, "1");
}
