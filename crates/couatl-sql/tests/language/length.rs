//! Parsing and printing take time by the length of the text, not by its square: a text is a client's.

use std::time::{Duration, Instant};

use couatl_sql::{create_statement, parse, parse_columns, parse_type};

use crate::definition;

/// What a square takes many times longer than, and what is none takes a hundredth of, unoptimised.
const MOST: Duration = Duration::from_secs(20);

/// Each text is this often in what is parsed.
const TIMES: usize = 100_000;

fn check<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let out = run();
    assert!(start.elapsed() < MOST, "{what} took {:?}", start.elapsed());
    out
}

#[test]
fn many_parts() {
    let members: Vec<_> = (0..TIMES).map(|member| format!("m{member} int")).collect();
    let names: Vec<_> = (0..1 << 15).map(|code| format!("'{code}' = {code}")).collect();
    check("tuple", || parse_type(&format!("tuple({})", members.join(", "))).unwrap());
    check("tuple without names", || parse_type(&format!("tuple({})", vec!["int"; TIMES].join(", "))).unwrap());
    check("enum", || parse_type(&format!("enum16({})", names.join(", "))).unwrap());
    check("columns", || parse_columns(&members.join(", ")).unwrap());
}

#[test]
fn many_quotes_in_a_body() {
    let tags: String = (0..TIMES).map(|tag| format!("$body{tag}$ ")).collect();
    let text = format!("CREATE EXTERNAL STREAM s (n int) AS $t${tags}$$ $body$ $t$ SETTINGS type = 'python'");
    let definition = check("parse", || definition(&text));
    let printed = check("print", || create_statement(&definition));
    assert!(printed.contains(&format!("$body{TIMES}$")));
}

#[test]
fn many_pieces() {
    for piece in
        ["$a", "$", "$a$", "/*", "*/", "'", "\"", "a.", "e'\\", "q'[", "--", "\n", "1_", "?", ";", "[", "@", "|"]
    {
        for text in [piece.repeat(TIMES), format!("{piece} ").repeat(TIMES), format!("select {}", piece.repeat(TIMES))]
        {
            let _ = check(piece, || parse(&text));
        }
    }
}
