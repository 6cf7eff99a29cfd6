//! arrow-flight's own client, on a server with a table `planets`.
//!
//! `cargo run --example client http://127.0.0.1:50051`

use std::env::args;

use arrow::util::pretty::print_batches;
use arrow_flight::sql::client::FlightSqlServiceClient;
use futures::TryStreamExt;
use tonic::transport::Endpoint;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = args().nth(1).unwrap_or("http://127.0.0.1:50051".to_owned());
    let channel = Endpoint::from_shared(address)?.connect().await?;
    let mut client = FlightSqlServiceClient::new(channel);
    let info = client.execute("SELECT name, moons FROM planets ORDER BY moons".to_owned(), None).await?;
    for endpoint in info.endpoint {
        let ticket = endpoint.ticket.ok_or("an endpoint has no ticket")?;
        let batches: Vec<_> = client.do_get(ticket).await?.try_collect().await?;
        print_batches(&batches)?;
    }
    Ok(())
}
