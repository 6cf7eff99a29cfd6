//! `couatl serve`: an engine behind a Flight SQL listener, until a signal.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use couatl::Engine;
use couatl_core::{Error, ErrorKind, Result, Secrets};
use couatl_datafusion::{Limits, Session, SessionSettings, UserLimits};
use couatl_flight::{Authenticator, Server, ServerConfig, Tls, TlsFiles};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing_subscriber::filter::LevelFilter;

use crate::args::ServeArgs;
use crate::signals::Signals;
use crate::stdout::Stdout;
use crate::{log, runtime};

/// How long the cleanup of cancelled queries may take after the grace. The server bounds it by itself; this is for the
/// case that it does not.
const CLEANUP: Duration = Duration::from_secs(10);

/// Serves until a signal, and gives the exit code: 0 where everything ended in good order.
pub(crate) fn run(args: &ServeArgs) -> Result<u8> {
    if args.print_config {
        let mut stdout = Stdout::new();
        let _ = write!(stdout, "{}", args.effective).and_then(|()| stdout.flush());
        return Ok(0);
    }
    log::install(LevelFilter::INFO)?;
    if let Some(folder) = args.secrets.as_deref().filter(|folder| !folder.is_dir()) {
        return Err(Error::not_found(format!("--secrets: '{}' is no folder", folder.display())));
    }
    let limits_users = args.max_user_queries.count().is_some()
        || args.max_user_memory.bytes().is_some()
        || !args.user_limit.is_empty();
    if args.users.is_none() && limits_users {
        tracing::warn!("the limits of users limit nobody: without --users, nobody has a name");
    }
    runtime::queries(|queries| {
        runtime::network(|network| {
            network.block_on(async {
                let protection = Protection::of(args)?;
                let listener = listen(&args.listen, &protection).await?;
                let http = match args.http.as_str() {
                    "off" => None,
                    address => Some(listen(address, &protection).await?),
                };
                let engine = {
                    let _guard = queries.enter();
                    Engine::builder().settings(settings(args)).build()?
                };
                let session = engine.session().clone();
                serve(session, queries.handle().clone(), listener, http, args, protection).await
            })
        })
    })
}

/// What the session begins with.
fn settings(args: &ServeArgs) -> SessionSettings {
    let each = UserLimits {
        queries: args.max_user_queries.count(),
        memory: args.max_user_memory.bytes(),
        query_memory: args.max_query_memory.bytes(),
        query_time: args.max_query_time.0.map(|time| time.0),
        query_rows: args.max_query_rows.0.map(|rows| rows.0),
        query_bytes: args.max_query_bytes.0.map(|bytes| bytes.0),
    };
    let mut users: HashMap<_, UserLimits> = HashMap::new();
    for limit in &args.user_limit {
        let said = users.entry(Arc::clone(&limit.user)).or_default();
        *said = limit.over(*said);
    }
    SessionSettings {
        memory_limit: args.memory_limit.bytes(),
        limits: Limits { queries: args.max_queries.count(), queue: args.queue_time.0, each, users },
        secrets: Secrets::new(args.secrets.clone()),
    }
}

/// What stands between the server and strangers.
struct Protection {
    authenticator: Option<Authenticator>,
    tls: Option<Arc<Tls>>,
    insecure: bool,
}

impl Protection {
    fn of(args: &ServeArgs) -> Result<Self> {
        let authenticator = args.users.as_ref().map(Authenticator::new).transpose()?;
        let tls = match (&args.tls_cert, &args.tls_key) {
            (Some(certificate), Some(key)) => {
                let (certificate, key) = (certificate.clone(), key.clone());
                let files = TlsFiles { certificate, key, client_authorities: args.tls_client_ca.clone() };
                Some(Arc::new(Tls::read(files)?))
            }
            _ => None,
        };
        Ok(Self { authenticator, tls, insecure: args.insecure })
    }

    /// What is missing before other machines may be served.
    fn missing(&self) -> Option<&'static str> {
        match (&self.authenticator, &self.tls) {
            _ if self.insecure => None,
            (None, _) => Some("and whoever reaches it may run Python here: let users log in with --users"),
            (_, None) => Some("and passwords would be read on their way: give a certificate with --tls-cert"),
            _ => None,
        }
    }
}

async fn serve(
    session: Session,
    queries: Handle,
    listener: TcpListener,
    http: Option<TcpListener>,
    args: &ServeArgs,
    protection: Protection,
) -> Result<u8> {
    // Installed before the address is known to anyone: who reads it may send a signal.
    let mut signals = Signals::install()?;
    let _reloading = reload_on_hangup(protection.tls.clone())?;
    let [grpc, plain] = if protection.tls.is_some() { ["grpc+tls", "https"] } else { ["grpc", "http"] };
    announce(&listener, grpc)?;
    if let Some(http) = &http {
        announce(http, plain)?;
    }
    let stop = CancellationToken::new();
    let grace = args.grace.0;
    let heartbeat = Some(args.heartbeat.0).filter(|heartbeat| !heartbeat.is_zero());
    let (health, reflection) = (args.grpc_health, args.grpc_reflection);
    let config = ServerConfig { grace, heartbeat, health, reflection, ..ServerConfig::default() };
    let mut server = Server::new(session, queries).with_config(config);
    if let Some(authenticator) = protection.authenticator {
        server = server.with_authenticator(authenticator);
    }
    if let Some(http) = http {
        server = server.with_http(http);
    }
    if let Some(tls) = &protection.tls {
        server = server.with_tls(Arc::clone(tls));
    }
    let mut serving = std::pin::pin!(server.serve(listener, stop.clone().cancelled_owned()));
    tokio::select! {
        served = &mut serving => return served.map(|()| 0),
        signal = signals.first() => {
            tracing::info!(signal = signal.name, "the server ends; at a second signal, at once");
            stop.cancel();
        }
    }
    let Ok(served) = tokio::time::timeout(grace.saturating_add(CLEANUP), serving).await else {
        return Err(Error::new(ErrorKind::Timeout, "queries went on after they were cancelled; left them behind"));
    };
    served.map(|()| 0)
}

/// Opens a listener; on this machine alone where something is missing.
async fn listen(address: &str, protection: &Protection) -> Result<TcpListener> {
    let resolved: Vec<_> = tokio::net::lookup_host(address)
        .await
        .map_err(|error| {
            Error::invalid_argument(format!("cannot listen on '{address}', expected HOST:PORT: {error}"))
                .with_source(error)
        })?
        .collect();
    if let Some(missing) = protection.missing() {
        loopback(address, &resolved, missing)?;
    }
    TcpListener::bind(&*resolved).await.map_err(|error| {
        let reason = match error.kind() {
            io::ErrorKind::AddrInUse => "another process listens there already; port 0 picks a free one".to_owned(),
            _ => error.to_string(),
        };
        Error::new(ErrorKind::Unavailable, format!("cannot listen on '{address}': {reason}")).with_source(error)
    })
}

/// Refuses an address that other machines reach.
fn loopback(address: &str, resolved: &[SocketAddr], missing: &str) -> Result<()> {
    let Some(open) = resolved.iter().find(|resolved| !resolved.ip().to_canonical().is_loopback()) else {
        return Ok(());
    };
    let is = if open.to_string() == address { String::new() } else { format!(", which is {open}") };
    Err(Error::new(
        ErrorKind::PermissionDenied,
        format!(
            "will not listen on '{address}'{is}: other machines would reach it, {missing}; or listen on a loopback \
             address, such as 127.0.0.1:50051; or say --insecure"
        ),
    ))
}

/// Reads the certificates again at each SIGHUP, which ends nothing where there are none, for as long as what it gives lives.
#[cfg(unix)]
fn reload_on_hangup(tls: Option<Arc<Tls>>) -> Result<AbortOnDropHandle<()>> {
    let mut hangups = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())
        .map_err(|error| Error::internal(format!("cannot handle SIGHUP: {error}")).with_source(error))?;
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            match tls.as_ref().map(|tls| tls.reload()) {
                None => tracing::info!("there are no certificates to be read again"),
                Some(Ok(())) => tracing::info!("the certificates have been read again"),
                Some(Err(error)) => tracing::error!(%error, "the certificates are those of before"),
            }
        }
    })))
}

#[cfg(not(unix))]
fn reload_on_hangup(_tls: Option<Arc<Tls>>) -> Result<AbortOnDropHandle<()>> {
    Ok(AbortOnDropHandle::new(tokio::spawn(async {})))
}

/// Says where the server listens, for people and for the programs that start it.
fn announce(listener: &TcpListener, scheme: &str) -> Result<()> {
    let address = listener.local_addr().map_err(|error| Error::internal(error.to_string()).with_source(error))?;
    let mut stdout = Stdout::new();
    if let Err(error) = writeln!(stdout, "listening on {scheme}://{address}").and_then(|()| stdout.flush()) {
        // Clients do not need the line.
        tracing::warn!(%error, %address, "cannot write the address to standard output");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn open() -> Protection {
        Protection { authenticator: None, tls: None, insecure: false }
    }

    async fn check(address: &str, expected: Expect) {
        let shown = match listen(address, &open()).await {
            Ok(listener) => listener.local_addr().unwrap().ip().to_string(),
            Err(error) => format!("{}: {error}", error.kind()),
        };
        expected.assert_eq(&shown);
    }

    #[tokio::test]
    async fn this_machine_alone() {
        check("127.0.0.1:0", expect!["127.0.0.1"]).await;
        check("127.9.9.9:0", expect!["127.9.9.9"]).await;
        check("0.0.0.0:0", expect!["permission-denied: will not listen on '0.0.0.0:0': other machines would reach it, and whoever reaches it may run Python here: let users log in with --users; or listen on a loopback address, such as 127.0.0.1:50051; or say --insecure"]).await;
        for open in ["[::]:0", "192.0.2.1:50051", "[::ffff:192.0.2.1]:50051"] {
            assert_eq!(listen(open, &self::open()).await.unwrap_err().kind(), ErrorKind::PermissionDenied);
        }
    }

    #[tokio::test]
    async fn what_is_no_address_is_refused() {
        check(
            "127.0.0.1",
            expect!["invalid-argument: cannot listen on '127.0.0.1', expected HOST:PORT: invalid socket address"],
        )
        .await;
        check(
            "127.0.0.1:99999",
            expect!["invalid-argument: cannot listen on '127.0.0.1:99999', expected HOST:PORT: invalid port value"],
        )
        .await;
    }

    #[tokio::test]
    async fn a_port_in_use_is_said() {
        let taken = listen("127.0.0.1:0", &open()).await.unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let error = listen(&address, &open()).await.unwrap_err().to_string().replace(&address, "HOST:PORT");
        expect!["cannot listen on 'HOST:PORT': another process listens there already; port 0 picks a free one"]
            .assert_eq(&error);
    }

    #[test]
    fn every_address_of_a_name_counts() {
        let resolved = |texts: &[&str]| -> Vec<SocketAddr> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        assert!(loopback("localhost:1", &resolved(&["[::1]:1", "127.0.0.1:1", "[::ffff:127.0.0.1]:1"]), "").is_ok());
        let error = loopback("box:1", &resolved(&["127.0.0.1:1", "192.0.2.1:1"]), "").unwrap_err();
        assert!(error.to_string().starts_with("will not listen on 'box:1', which is 192.0.2.1:1: "), "{error}");
    }
}
