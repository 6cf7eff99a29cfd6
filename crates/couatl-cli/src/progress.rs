//! How far a statement has come, on one line of the terminal that is wiped before anything else is printed there.
//!
//! It goes to standard error, and only where that is a terminal. Where rows go to the same terminal they are the better
//! progress: then the line shows itself only while none arrive. Where they go through a pipe there is none, since the
//! far end (a pager, `head`, `jq`) draws on the terminal too and cannot know of it.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::stdout::Stdout;

/// How often the line is drawn anew.
pub(crate) const TICK: Duration = Duration::from_millis(200);

/// What is over sooner than this needs no progress.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long the terminal stays without a row before the line shows itself.
const IDLE: Duration = Duration::from_secs(2);

/// The time over which the rate is measured.
const WINDOW: Duration = Duration::from_secs(3);

const WIPE: &str = "\r\x1b[2K";

/// Where rows go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rows {
    Terminal,
    Pipe,
    File,
}

/// The progress line of the statement that runs.
#[derive(Debug)]
pub(crate) struct Progress {
    enabled: bool,
    rows_go_to: Rows,
    drawn: bool,
    started: Instant,
    last_rows: Instant,
    rows: u64,
    samples: VecDeque<(Instant, u64)>,
}

impl Progress {
    /// A line on standard error, or none where nobody would see it, or where it would be in the way.
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        let stdout = Stdout::new();
        let rows_go_to = if stdout.is_terminal() {
            Rows::Terminal
        } else if stdout.is_pipe() {
            Rows::Pipe
        } else {
            Rows::File
        };
        let terminal = io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self {
            enabled: terminal && rows_go_to != Rows::Pipe,
            rows_go_to,
            drawn: false,
            started: now,
            last_rows: now,
            rows: 0,
            samples: VecDeque::new(),
        }
    }

    /// Begins with a new statement.
    pub(crate) fn restart(&mut self) {
        self.clear();
        self.started = Instant::now();
        self.last_rows = self.started;
        self.rows = 0;
        self.samples.clear();
    }

    /// Counts rows that were printed.
    pub(crate) fn add(&mut self, rows: u64) {
        self.rows += rows;
        self.last_rows = Instant::now();
    }

    /// Draws the line, where there is something to say.
    pub(crate) fn tick(&mut self) {
        let now = Instant::now();
        let rate = rate(&mut self.samples, now, self.rows);
        let due = match self.rows_go_to {
            Rows::Terminal => self.last_rows + IDLE,
            Rows::Pipe | Rows::File => self.started + PATIENCE,
        };
        if !self.enabled || now < due {
            return;
        }
        let line = line(self.rows, rate, now.duration_since(self.started));
        let mut stderr = io::stderr().lock();
        // A terminal that went away takes the progress with it, not the query.
        self.drawn = write!(stderr, "{WIPE}{line}").and_then(|()| stderr.flush()).is_ok();
    }

    /// Makes way for rows.
    pub(crate) fn make_way(&mut self) {
        if self.rows_go_to == Rows::Terminal {
            self.clear();
        }
    }

    /// Wipes the line.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "{WIPE}").and_then(|()| stderr.flush());
        }
    }
}

/// Rows a second over the last while, after taking one more sample.
fn rate(samples: &mut VecDeque<(Instant, u64)>, now: Instant, rows: u64) -> f64 {
    samples.push_back((now, rows));
    while samples.len() > 2 && samples.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
        samples.pop_front();
    }
    match samples.front() {
        Some((at, before)) if now > *at => (rows - before) as f64 / now.duration_since(*at).as_secs_f64(),
        _ => 0.0,
    }
}

fn line(rows: u64, rate: f64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    let time = match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes}:{seconds:02}"),
        (hours, minutes, seconds) => format!("{hours}:{minutes:02}:{seconds:02}"),
    };
    if rows == 0 {
        return format!("running, {time}");
    }
    let rate = if rate < 10.0 { format!("{rate:.1}") } else { grouped(rate as u64) };
    format!("{} {}, {rate} rows/s, {time}", grouped(rows), if rows == 1 { "row" } else { "rows" })
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn lines() {
        let lines: Vec<_> = [(0, 0.0, 3), (1, 0.25, 61), (999, 12.7, 3600), (1_234_567, 98_765.4, 36_061)]
            .map(|(rows, rate, seconds)| line(rows, rate, Duration::from_secs(seconds)))
            .into();
        expect![[r#"
            running, 3 s
            1 row, 0.2 rows/s, 1:01
            999 rows, 12 rows/s, 1:00:00
            1,234,567 rows, 98,765 rows/s, 10:01:01"#]]
        .assert_eq(&lines.join("\n"));
    }

    #[test]
    fn the_rate_forgets_what_is_long_past() {
        let (start, mut samples) = (Instant::now(), VecDeque::new());
        let mut at = |seconds, rows| rate(&mut samples, start + Duration::from_secs(seconds), rows);
        assert_eq!(at(0, 0), 0.0);
        assert_eq!(at(1, 1000), 1000.0);
        assert_eq!(at(2, 1000), 500.0);
        assert_eq!(at(20, 1018), 1.0);
        assert_eq!(at(40, 1018), 0.0);
    }
}
