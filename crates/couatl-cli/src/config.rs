//! The options of `couatl serve` from where they may stand: the command line, the environment, a file; in this order.
//!
//! The file's values become the defaults of the command's own options, so that all three are read, checked and refused by
//! the same words.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::builder::OsStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command as Clap, CommandFactory, Error, FromArgMatches};
use toml::{Table, Value};

use crate::args::{Args, Command, ServeArgs};

const SERVE: &str = "serve";

/// What is said of the configuration itself, and cannot stand in it.
const NOT_IN_A_FILE: [&str; 3] = ["config", "print-config", "help"];

/// Reads the command line, and for `serve` what it is completed by.
pub(crate) fn parse(args: Vec<OsString>) -> Result<Args, Error> {
    let mut command = Args::command();
    let file = match config_path(&args) {
        Some(path) => read(&command, &path)?,
        None => BTreeMap::new(),
    };
    for (name, values) in &file {
        let values: Vec<OsStr> = values.iter().cloned().map(OsStr::from).collect();
        command = command.mut_subcommand(SERVE, |serve| {
            serve.mut_arg(name.replace('-', "_"), |option| option.default_values(values))
        });
    }
    let matches = command.try_get_matches_from(&args).map_err(|error| of_environment(error, &args))?;
    let mut parsed = Args::from_arg_matches(&matches)?;
    if let (Command::Serve(serve), Some(matches)) = (&mut parsed.command, matches.subcommand_matches(SERVE)) {
        check(serve)?;
        serve.effective = effective(matches, &file);
    }
    Ok(parsed)
}

/// The file, where one is named; what else is wrong with the command line is said later.
fn config_path(args: &[OsString]) -> Option<PathBuf> {
    let matches = Args::command().ignore_errors(true).try_get_matches_from(args).ok()?;
    matches.subcommand_matches(SERVE)?.get_one::<PathBuf>("config").cloned()
}

/// An error of a value that stands in the environment says where: nothing on the command line shows it.
fn of_environment(error: Error, args: &[OsString]) -> Error {
    let option = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(option)) => option.split_whitespace().next().unwrap_or_default().to_owned(),
        _ => return error,
    };
    let is_given = args.iter().any(|arg| arg.to_string_lossy().split('=').next() == Some(&option));
    let command = Args::command();
    let named = options(&command).find(|(name, _)| format!("--{name}") == option);
    match named.and_then(|(_, option)| option.get_env()).filter(|variable| std::env::var_os(variable).is_some()) {
        Some(variable) if error.kind() == ErrorKind::ValueValidation && !is_given => {
            let text = error.to_string();
            refused(format!("in {}: {}", variable.to_string_lossy(), text.trim_start_matches("error: ").trim_end()))
        }
        _ => error,
    }
}

fn refused(text: String) -> Error {
    Error::raw(ErrorKind::ValueValidation, text + "\n")
}

fn options(command: &Clap) -> impl Iterator<Item = (&str, &Arg)> {
    let serve = command.find_subcommand(SERVE).into_iter();
    let named = serve.flat_map(Clap::get_arguments).filter_map(|option| Some((option.get_long()?, option)));
    named.filter(|(name, _)| !NOT_IN_A_FILE.contains(name))
}

/// The values of a file, by the names of the options.
fn read(command: &Clap, path: &Path) -> Result<BTreeMap<String, Vec<String>>, Error> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| refused(format!("cannot read '{shown}': {error}")))?;
    let table: Table = text.parse().map_err(|error| refused(format!("'{shown}' is no TOML: {error}")))?;
    let mut values = BTreeMap::new();
    for (name, value) in table {
        let Some((_, option)) = options(command).find(|(known, _)| *known == name) else {
            let known: Vec<_> = options(command).map(|(name, _)| name).collect();
            return Err(refused(format!("'{shown}' says '{name}', which is no option: expected {}", known.join(", "))));
        };
        let said = texts(option, value).ok_or_else(|| {
            refused(format!("'{shown}' says of '{name}' what cannot be said: expected {}", shape(option)))
        })?;
        for text in &said {
            if !is_switch(option) {
                // By itself, so that it is known whose fault it is.
                let alone = [OsString::from("couatl"), SERVE.into(), format!("--{name}={text}").into()];
                if let Err(error) = command.clone().try_get_matches_from(alone) {
                    return Err(refused(format!("in '{shown}': {}", error.to_string().trim_start_matches("error: "))));
                }
            }
        }
        values.insert(name, said);
    }
    Ok(values)
}

fn is_switch(option: &Arg) -> bool {
    matches!(option.get_action(), ArgAction::SetTrue)
}

fn is_list(option: &Arg) -> bool {
    matches!(option.get_action(), ArgAction::Append)
}

fn shape(option: &Arg) -> &'static str {
    match option.get_action() {
        ArgAction::SetTrue => "true or false",
        ArgAction::Append => "an array of strings",
        _ => "a string or a number",
    }
}

/// A value, as the command line would have it.
fn texts(option: &Arg, value: Value) -> Option<Vec<String>> {
    let one = |value: Value| match value {
        Value::String(text) => Some(text),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        _ => None,
    };
    match value {
        Value::Boolean(on) if is_switch(option) => Some(vec![on.to_string()]),
        _ if is_switch(option) => None,
        Value::Array(values) if is_list(option) => values.into_iter().map(one).collect(),
        value => one(value).map(|text| vec![text]),
    }
}

/// What does not go together, wherever it was said.
fn check(args: &ServeArgs) -> Result<(), Error> {
    let missing = match (&args.tls_cert, &args.tls_key, &args.tls_client_ca) {
        (Some(_), None, _) => "--tls-cert is given without --tls-key: a certificate needs its key",
        (None, Some(_), _) => "--tls-key is given without --tls-cert: a key needs its certificate",
        (None, None, Some(_)) => "--tls-client-ca is given without --tls-cert and --tls-key: it is for TLS alone",
        _ => return Ok(()),
    };
    Err(Error::raw(ErrorKind::MissingRequiredArgument, format!("{missing}\n")))
}

/// Every option as it is, and where that was said, as a file has it.
fn effective(matches: &ArgMatches, file: &BTreeMap<String, Vec<String>>) -> String {
    let mut text = String::new();
    // In their own order, which those that a file changes lose.
    for (name, option) in options(&Args::command()) {
        let help = option.get_help().map(ToString::to_string).unwrap_or_default();
        let id = option.get_id().as_str();
        let source = match matches.value_source(id) {
            Some(ValueSource::CommandLine) => "the command line".to_owned(),
            Some(ValueSource::EnvVariable) => {
                option.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
            }
            _ if file.contains_key(name) => "the file".to_owned(),
            _ => "default".to_owned(),
        };
        let values: Vec<_> = matches.get_raw(id).into_iter().flatten().map(|raw| raw.to_string_lossy()).collect();
        let values: Vec<_> = values.iter().map(|value| literal(option, value)).collect();
        let _ = match &values[..] {
            _ if is_switch(option) => writeln!(text, "# {help}\n{name} = {}  # {source}\n", matches.get_flag(id)),
            _ if is_list(option) => writeln!(text, "# {help}\n{name} = [{}]  # {source}\n", values.join(", ")),
            [value, ..] => writeln!(text, "# {help}\n{name} = {value}  # {source}\n"),
            [] => writeln!(text, "# {help}\n# {name} =\n"),
        };
    }
    text
}

fn literal(option: &Arg, value: &str) -> String {
    let plain = format!("value = {value}").parse::<Table>().ok().and_then(|mut table| table.remove("value"));
    let is_number = matches!(plain, Some(Value::Integer(_) | Value::Float(_)));
    match plain.filter(|_| is_number).and_then(|plain| texts(option, plain)) {
        // Only where it is read as it is written.
        Some(said) if !is_list(option) && said == [value] => value.to_owned(),
        _ => Value::String(value.to_owned()).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn parsed(file: &str, args: &[&str]) -> Result<ServeArgs, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("couatl.toml");
        std::fs::write(&path, file).unwrap();
        let command = ["couatl", SERVE, "--config"].map(OsString::from).into_iter();
        let command = command.chain([path.clone().into()]).chain(args.iter().map(OsString::from));
        match parse(command.collect()).map(|args| args.command) {
            Ok(Command::Serve(args)) => Ok(*args),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string().replace(&*path.to_string_lossy(), "couatl.toml")),
        }
    }

    fn check_refused(file: &str, expected: Expect) {
        expected.assert_eq(parsed(file, &[]).unwrap_err().lines().next().unwrap_or_default());
    }

    #[test]
    fn the_file_says_what_the_command_line_does_not() {
        let file = "listen = \"127.0.0.1:1\"\ngrace = 2.5\nmax-queries = 7\ninsecure = true\nusers = \"u\"\n\
                    user-limit = [\"ann:max-query-time=1\", \"bob:max-query-rows=5\"]\n";
        let args = parsed(file, &["--grace", "3", "--tls-cert=c", "--tls-key=k"]).unwrap();
        assert_eq!((&*args.listen, args.grace.0.as_secs(), args.insecure), ("127.0.0.1:1", 3, true));
        assert_eq!((args.max_queries.count(), args.user_limit.len()), (Some(7), 2));
        let shown = &args.effective;
        for line in [
            "listen = \"127.0.0.1:1\"  # the file",
            "grace = 3  # the command line",
            "heartbeat = 15  # default",
            "insecure = true  # the file",
            "grpc-health = false  # default",
            "# secrets =",
            "user-limit = [\"ann:max-query-time=1\", \"bob:max-query-rows=5\"]  # the file",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line} in\n{shown}");
        }
        let again = parsed(shown, &[]).unwrap().effective;
        let said = |text: &str| -> Vec<String> {
            text.lines().map(|line| line.split("  # ").next().unwrap_or_default().to_owned()).collect()
        };
        assert_eq!(said(&again), said(shown), "what is printed can be read");
    }

    #[test]
    fn what_a_file_cannot_say_is_refused_by_its_name() {
        check_refused(
            "grace = \"soon\"",
            expect![
                "error: in 'couatl.toml': invalid value 'soon' for '--grace <SECONDS>': expected a number of seconds"
            ],
        );
        check_refused(
            "gracious = 1",
            expect![
                "error: 'couatl.toml' says 'gracious', which is no option: expected listen, http, users, tls-cert, tls-key, tls-client-ca, insecure, heartbeat, grace, memory-limit, max-queries, queue-time, max-query-memory, max-query-time, max-query-rows, max-query-bytes, max-user-queries, max-user-memory, user-limit, secrets, grpc-health, grpc-reflection"
            ],
        );
        check_refused(
            "grace = [1]",
            expect!["error: 'couatl.toml' says of 'grace' what cannot be said: expected a string or a number"],
        );
        check_refused(
            "insecure = 1",
            expect!["error: 'couatl.toml' says of 'insecure' what cannot be said: expected true or false"],
        );
        check_refused(
            "config = \"x\"",
            expect![
                "error: 'couatl.toml' says 'config', which is no option: expected listen, http, users, tls-cert, tls-key, tls-client-ca, insecure, heartbeat, grace, memory-limit, max-queries, queue-time, max-query-memory, max-query-time, max-query-rows, max-query-bytes, max-user-queries, max-user-memory, user-limit, secrets, grpc-health, grpc-reflection"
            ],
        );
        check_refused(
            "tls-cert = \"x\"",
            expect!["error: --tls-cert is given without --tls-key: a certificate needs its key"],
        );
        check_refused("grace", expect!["error: 'couatl.toml' is no TOML: TOML parse error at line 1, column 6"]);
        let missing = parse(["couatl", SERVE, "--config", "no/such.toml"].map(OsString::from).to_vec());
        expect![[r#"
            error: cannot read 'no/such.toml': No such file or directory (os error 2)
        "#]]
        .assert_eq(&missing.unwrap_err().to_string());
    }
}
