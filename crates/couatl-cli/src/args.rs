//! What the command line may say.

use std::fmt;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use clap::builder::BoolishValueParser;
use clap::{Parser, Subcommand, ValueEnum};
use couatl_core::{Error, Result};
use couatl_datafusion::Role;
use tonic::transport::Uri;

use crate::limit::{Count, Limit, Seconds, Size, UserLimit, half_of_memory};

const EXAMPLES: &str = "\
Examples:
  couatl serve                                   a server on this machine, for every Flight SQL client
  couatl sql \"SELECT 1\"                          one statement, in this process
  couatl sql --file clock.sql                    a file of statements
  couatl sql --connect grpc://127.0.0.1:50051 \"SHOW STREAMS\"";

const SERVE_EXAMPLES: &str = "\
Examples:
  couatl serve
  couatl serve --listen '[::1]:0' --grace 2.5
  couatl serve --memory-limit 4GB --max-query-time 60
  couatl serve --config couatl.toml --print-config
  couatl serve --listen 0.0.0.0:50051 --users users --tls-cert server.pem --tls-key server.key

The first line on standard output says where it listens. The log goes to standard error; COUATL_LOG chooses what is in
it: COUATL_LOG=debug, COUATL_LOG=couatl=trace. SIGINT and SIGTERM end it; a second one ends it at once.

Each option may also stand in the environment (COUATL_GRACE=2.5) and in the file of --config (grace = 2.5), under the same
name; the command line comes before the environment, and that before the file.";

const USER_EXAMPLES: &str = "\
Examples:
  couatl user add ann --role admin --users users
  couatl user add grafana --role reader --users users < password.txt
  couatl serve --users users";

const SQL_EXAMPLES: &str = "\
Examples:
  couatl sql \"SELECT 1; SELECT 2\"
  couatl sql --file clock.sql
  couatl sql --format csv --file rides.sql > rides.csv
  echo 'SHOW QUERIES' | couatl sql --connect grpc://127.0.0.1:50051
  couatl sql --connect grpc+tls://db.example.org:50051 --user ann 'SHOW STREAMS'

Ctrl-C cancels the query and keeps the rows so far; a second one ends at once. In csv and json, standard output holds
rows alone: what else there is to say goes to standard error. An empty line stands between the results of two statements.
csv has one way to write NULL and the empty text, which is nothing; json tells them apart.";

/// Python functions as SQL tables, over Arrow Flight SQL.
#[derive(Debug, Parser)]
#[command(name = "couatl", bin_name = "couatl", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve streams and tables over Flight SQL.
    Serve(Box<ServeArgs>),
    /// Run SQL statements, in this process or on a server.
    Sql(SqlArgs),
    /// Keep the users of a server.
    #[command(subcommand)]
    User(UserCommand),
    /// Begin something of your own.
    #[command(subcommand)]
    New(NewCommand),
}

#[derive(Debug, clap::Args)]
#[command(after_help = SERVE_EXAMPLES)]
pub(crate) struct ServeArgs {
    /// A TOML file of these options, by their names.
    #[arg(long, value_name = "FILE", env = "COUATL_CONFIG")]
    pub(crate) config: Option<PathBuf>,

    /// Print what each option is, and where it was said, as a file for --config; and end.
    #[arg(long)]
    pub(crate) print_config: bool,

    /// Where to listen; port 0 picks a free one. Other machines are served with --users and TLS alone.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:50051", env = "COUATL_LISTEN")]
    pub(crate) listen: String,

    /// Where to answer queries over HTTP; off for nowhere, port 0 for a free one.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8123", env = "COUATL_HTTP")]
    pub(crate) http: String,

    /// The file of those who may log in, which `couatl user add` writes. Without it everybody may do everything.
    #[arg(long, value_name = "FILE", env = "COUATL_USERS")]
    pub(crate) users: Option<PathBuf>,

    /// The server's certificate, in PEM, with those that lead to its authority. SIGHUP reads it again.
    #[arg(long, value_name = "FILE", env = "COUATL_TLS_CERT")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// The private key of the certificate, in PEM.
    #[arg(long, value_name = "FILE", env = "COUATL_TLS_KEY")]
    pub(crate) tls_key: Option<PathBuf>,

    /// The authorities of clients' certificates, in PEM: without such a certificate, nobody is let in.
    #[arg(long, value_name = "FILE", env = "COUATL_TLS_CLIENT_CA")]
    pub(crate) tls_client_ca: Option<PathBuf>,

    /// Serve other machines without users, or without TLS: whoever reaches the address may listen, or run Python here.
    #[arg(long, env = "COUATL_INSECURE", value_parser = BoolishValueParser::new())]
    pub(crate) insecure: bool,

    /// After how many seconds without a row a client is sent an empty batch; 0 for never.
    #[arg(long, value_name = "SECONDS", default_value = "15", env = "COUATL_HEARTBEAT")]
    pub(crate) heartbeat: Seconds,

    /// For how many seconds running queries may go on once the server was asked to end. Python that does not end then
    /// takes up to five more.
    #[arg(long, value_name = "SECONDS", default_value = "10", env = "COUATL_GRACE")]
    pub(crate) grace: Seconds,

    /// How much the queries may keep in sorts, aggregates and joins, such as 4GB or 512MiB; or unlimited.
    #[arg(long, value_name = "SIZE", default_value_t = half_of_memory(), env = "COUATL_MEMORY_LIMIT")]
    pub(crate) memory_limit: Limit<Size>,

    /// How many queries run at once; others wait. What asks for the catalog or for what runs is not counted.
    #[arg(long, value_name = "NUMBER", default_value = "1000", env = "COUATL_MAX_QUERIES")]
    pub(crate) max_queries: Limit<Count>,

    /// For how many seconds a query waits for its turn.
    #[arg(long, value_name = "SECONDS", default_value = "30", env = "COUATL_QUEUE_TIME")]
    pub(crate) queue_time: Seconds,

    /// How much one query may keep in sorts, aggregates and joins.
    #[arg(long, value_name = "SIZE", default_value = "unlimited", env = "COUATL_MAX_QUERY_MEMORY")]
    pub(crate) max_query_memory: Limit<Size>,

    /// For how many seconds a query may run.
    #[arg(long, value_name = "SECONDS", default_value = "unlimited", env = "COUATL_MAX_QUERY_TIME")]
    pub(crate) max_query_time: Limit<Seconds>,

    /// How many rows a query may give.
    #[arg(long, value_name = "NUMBER", default_value = "unlimited", env = "COUATL_MAX_QUERY_ROWS")]
    pub(crate) max_query_rows: Limit<Count>,

    /// How much these rows may be.
    #[arg(long, value_name = "SIZE", default_value = "unlimited", env = "COUATL_MAX_QUERY_BYTES")]
    pub(crate) max_query_bytes: Limit<Size>,

    /// How many queries of one user run at once.
    #[arg(long, value_name = "NUMBER", default_value = "unlimited", env = "COUATL_MAX_USER_QUERIES")]
    pub(crate) max_user_queries: Limit<Count>,

    /// How much the queries of one user may keep in sorts, aggregates and joins.
    #[arg(long, value_name = "SIZE", default_value = "unlimited", env = "COUATL_MAX_USER_MEMORY")]
    pub(crate) max_user_memory: Limit<Size>,

    /// A limit of one user instead of that of all, NAME:LIMIT=VALUE, such as ann:max-query-time=60. May be repeated.
    #[arg(long, value_name = "LIMIT", value_delimiter = ',', env = "COUATL_USER_LIMIT")]
    pub(crate) user_limit: Vec<UserLimit>,

    /// A folder of secrets, a file for each: ${secret:NAME} in init_function_parameters, or in the OPTIONS of an external
    /// table, is what is in it, or in the variable COUATL_SECRET_NAME.
    #[arg(long, value_name = "FOLDER", env = "COUATL_SECRETS")]
    pub(crate) secrets: Option<PathBuf>,

    /// Answer gRPC's health checks (grpc.health.v1), for which nobody has to log in.
    #[arg(long, env = "COUATL_GRPC_HEALTH", value_parser = BoolishValueParser::new())]
    pub(crate) grpc_health: bool,

    /// Describe the protocol to those who ask for it (gRPC reflection).
    #[arg(long, env = "COUATL_GRPC_REFLECTION", value_parser = BoolishValueParser::new())]
    pub(crate) grpc_reflection: bool,

    /// All of these, as --print-config prints them.
    #[arg(skip)]
    pub(crate) effective: String,
}

/// What `couatl new` begins.
#[derive(Debug, Subcommand)]
pub(crate) enum NewCommand {
    /// A connector: a package with a source and a sink, which is a type of streams where it is installed, and tests
    /// itself.
    Connector {
        /// What streams say as their type: lower-case letters, digits, - and _.
        name: String,

        /// Where to write it [default: couatl-NAME].
        #[arg(long, value_name = "FOLDER")]
        folder: Option<PathBuf>,
    },
}

/// What `couatl user` does.
#[derive(Debug, Subcommand)]
#[command(after_help = USER_EXAMPLES)]
pub(crate) enum UserCommand {
    /// Add a user, or give one another role and password. The password is asked for, or read from standard input.
    Add {
        /// Their name.
        name: String,

        /// What they may do: reader (SELECT), writer (and INSERT, ingest), developer (and create streams, whose Python
        /// runs on the server, and external tables), admin (and KILL QUERY of others, GRANT and REVOKE).
        #[arg(long, value_name = "ROLE")]
        role: Role,

        /// The file that `couatl serve --users` reads.
        #[arg(long, value_name = "FILE", env = "COUATL_USERS")]
        users: PathBuf,
    },
    /// Remove a user, at once.
    Remove {
        /// Their name.
        name: String,

        /// The file that `couatl serve --users` reads.
        #[arg(long, value_name = "FILE", env = "COUATL_USERS")]
        users: PathBuf,
    },
    /// List the users and their roles.
    List {
        /// The file that `couatl serve --users` reads.
        #[arg(long, value_name = "FILE", env = "COUATL_USERS")]
        users: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
#[command(after_help = SQL_EXAMPLES)]
pub(crate) struct SqlArgs {
    /// The server to run them on, grpc://HOST:PORT, or grpc+tls://HOST:PORT; without it they run in this process.
    #[arg(long, value_name = "URL", value_parser = endpoint)]
    pub(crate) connect: Option<Endpoint>,

    /// Who you are there. The password is COUATL_PASSWORD, or asked for.
    #[arg(long, value_name = "NAME", env = "COUATL_USER", requires = "connect")]
    pub(crate) user: Option<String>,

    /// The authorities of the server's certificate, in PEM; without them, those that this machine knows.
    #[arg(long, value_name = "FILE", requires = "connect")]
    pub(crate) tls_ca: Option<PathBuf>,

    /// Your own certificate, in PEM, for a server that wants one.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// The private key of your certificate, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,

    /// How rows are printed.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,

    /// A file of statements; - is standard input.
    #[arg(long, value_name = "PATH", conflicts_with = "statements")]
    file: Option<PathBuf>,

    /// Statements, separated by semicolons; without them (or as -), standard input.
    #[arg(value_name = "STATEMENTS")]
    statements: Option<String>,
}

impl SqlArgs {
    /// The text of the statements, wherever it is to come from. Some editors begin a file with a byte order mark.
    pub(crate) fn text(&self) -> Result<String> {
        let text = match (&self.statements, &self.file) {
            (Some(text), _) if text != "-" => return Ok(text.clone()),
            (None, Some(path)) if path != Path::new("-") => std::fs::read_to_string(path).map_err(|error| {
                Error::invalid_argument(format!("cannot read '{}': {error}", path.display())).with_source(error)
            })?,
            _ => standard_input()?,
        };
        Ok(text.strip_prefix('\u{feff}').map_or_else(|| text.clone(), str::to_owned))
    }
}

fn standard_input() -> Result<String> {
    if io::stdin().is_terminal() {
        let _ = writeln!(io::stderr(), "statements, separated by semicolons, then Ctrl-D:");
    }
    let mut text = String::new();
    io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| Error::invalid_argument(format!("cannot read standard input: {error}")).with_source(error))?;
    Ok(text)
}

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns under a header, for people.
    Table,
    /// A header and a line per row; nested values as JSON.
    Csv,
    /// A JSON object per row and line.
    Json,
}

/// The address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// `HOST:PORT`.
    pub(crate) authority: String,
    /// Whether it is spoken to over TLS.
    pub(crate) tls: bool,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "grpc+tls" } else { "grpc" };
        write!(f, "{scheme}://{}", self.authority)
    }
}

fn endpoint(text: &str) -> Result<Endpoint, String> {
    const EXPECTED: &str = "expected grpc://HOST:PORT, or grpc+tls://HOST:PORT";
    let uri: Uri = text.parse().map_err(|_| EXPECTED.to_owned())?;
    let tls = match uri.scheme_str() {
        Some("grpc" | "grpc+tcp") => false,
        Some("grpc+tls" | "grpcs") => true,
        _ => return Err(EXPECTED.into()),
    };
    match uri.authority() {
        Some(authority) if uri.port_u16().is_some() && matches!(uri.path(), "" | "/") => {
            Ok(Endpoint { authority: authority.to_string(), tls })
        }
        _ => Err(EXPECTED.into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use expect_test::{Expect, expect};

    use super::*;

    fn check(args: &str, expected: Expect) {
        let shown = match Args::try_parse_from(args.split_whitespace()) {
            Ok(args) => format!("{:#?}\n", args.command),
            Err(error) => error.to_string().lines().next().unwrap().to_owned() + "\n",
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn the_definition_holds_together() {
        Args::command().debug_assert();
    }

    #[test]
    fn serve_has_defaults() {
        check(
            "couatl serve --memory-limit 4GB",
            expect![[r#"
                Serve(
                    ServeArgs {
                        config: None,
                        print_config: false,
                        listen: "127.0.0.1:50051",
                        http: "127.0.0.1:8123",
                        users: None,
                        tls_cert: None,
                        tls_key: None,
                        tls_client_ca: None,
                        insecure: false,
                        heartbeat: Seconds(
                            15s,
                        ),
                        grace: Seconds(
                            10s,
                        ),
                        memory_limit: Limit(
                            Some(
                                Size(
                                    4000000000,
                                ),
                            ),
                        ),
                        max_queries: Limit(
                            Some(
                                Count(
                                    1000,
                                ),
                            ),
                        ),
                        queue_time: Seconds(
                            30s,
                        ),
                        max_query_memory: Limit(
                            None,
                        ),
                        max_query_time: Limit(
                            None,
                        ),
                        max_query_rows: Limit(
                            None,
                        ),
                        max_query_bytes: Limit(
                            None,
                        ),
                        max_user_queries: Limit(
                            None,
                        ),
                        max_user_memory: Limit(
                            None,
                        ),
                        user_limit: [],
                        secrets: None,
                        grpc_health: false,
                        grpc_reflection: false,
                        effective: "",
                    },
                )
            "#]],
        );
    }

    #[test]
    fn sql_takes_everything() {
        check(
            "couatl sql --connect grpc://[::1]:50051 --format json -",
            expect![[r#"
                Sql(
                    SqlArgs {
                        connect: Some(
                            Endpoint {
                                authority: "[::1]:50051",
                                tls: false,
                            },
                        ),
                        user: None,
                        tls_ca: None,
                        tls_cert: None,
                        tls_key: None,
                        format: Json,
                        file: None,
                        statements: Some(
                            "-",
                        ),
                    },
                )
            "#]],
        );
    }

    #[test]
    fn misfits_are_refused() {
        for (args, expected) in [
            (
                "couatl serve --grace -1",
                expect![[r#"
                error: unexpected argument '-1' found
            "#]],
            ),
            (
                "couatl serve --grace=-1",
                expect![[r#"
                error: invalid value '-1' for '--grace <SECONDS>': expected a number of seconds, zero or more
            "#]],
            ),
            (
                "couatl serve --grace soon",
                expect![[r#"
                error: invalid value 'soon' for '--grace <SECONDS>': expected a number of seconds
            "#]],
            ),
            (
                "couatl serve --memory-limit 4",
                expect![[r#"
                error: invalid value '4' for '--memory-limit <SIZE>': expected a size with its unit (4GB, 512MiB), or unlimited
            "#]],
            ),
            (
                "couatl sql --connect localhost:50051",
                expect![[r#"
                    error: invalid value 'localhost:50051' for '--connect <URL>': expected grpc://HOST:PORT, or grpc+tls://HOST:PORT
                "#]],
            ),
            (
                "couatl sql --connect grpc://localhost",
                expect![[r#"
                    error: invalid value 'grpc://localhost' for '--connect <URL>': expected grpc://HOST:PORT, or grpc+tls://HOST:PORT
                "#]],
            ),
            (
                "couatl sql --file a.sql b",
                expect![[r#"
                error: the argument '--file <PATH>' cannot be used with '[STATEMENTS]'
            "#]],
            ),
            (
                "couatl sql --format xml b",
                expect![[r#"
                error: invalid value 'xml' for '--format <FORMAT>'
            "#]],
            ),
        ] {
            check(args, expected);
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let args = SqlArgs {
            connect: None,
            user: None,
            tls_ca: None,
            tls_cert: None,
            tls_key: None,
            format: Format::Table,
            file: Some("no/such.sql".into()),
            statements: None,
        };
        expect!["cannot read 'no/such.sql': No such file or directory (os error 2)"]
            .assert_eq(&args.text().unwrap_err().to_string());
    }
}
