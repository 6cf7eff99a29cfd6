//! How much there may be of something, as the command line says it: a size, a number, a time, or no limit.

use std::fmt;
use std::fs;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use couatl_datafusion::UserLimits;

const UNLIMITED: &str = "unlimited";

/// Larger units before those that their names end with.
const UNITS: &[(&str, u64)] = &[
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// A limit; `None` is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit<T>(pub(crate) Option<T>);

/// Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

/// How many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count(pub(crate) u64);

/// How long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seconds(pub(crate) Duration);

/// Half of the memory that this process may use: what is not counted (rows on their way, Python's objects) needs the
/// rest. No limit where that is not known.
pub(crate) fn half_of_memory() -> Limit<Size> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        total.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    });
    let container = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    Limit(machine.into_iter().chain(container).min().map(|bytes| Size(bytes / 2)))
}

impl Limit<Size> {
    /// The bytes, as this machine counts what it holds.
    pub(crate) fn bytes(self) -> Option<usize> {
        self.0.map(|size| usize::try_from(size.0).unwrap_or(usize::MAX))
    }
}

impl Limit<Count> {
    pub(crate) fn count(self) -> Option<usize> {
        self.0.map(|count| usize::try_from(count.0).unwrap_or(usize::MAX))
    }
}

impl<T: fmt::Display> fmt::Display for Limit<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(limit) => limit.fmt(f),
            None => f.write_str(UNLIMITED),
        }
    }
}

impl<T: FromStr<Err = String>> FromStr for Limit<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case(UNLIMITED) {
            return Ok(Self(None));
        }
        text.parse().map(|limit| Self(Some(limit))).map_err(|expected| format!("{expected}, or {UNLIMITED}"))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}MiB", self.0 >> 20)
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = UNITS.iter().find_map(|(unit, bytes)| {
            let at = text.len().checked_sub(unit.len())?;
            let (number, suffix) = text.split_at_checked(at)?;
            let number: f64 = number.trim_end().parse().ok()?;
            // A size that no machine has is still a limit: it saturates.
            (suffix.eq_ignore_ascii_case(unit) && number > 0.0).then_some((number * *bytes as f64) as u64)
        });
        bytes.map(Self).ok_or_else(|| "expected a size with its unit (4GB, 512MiB)".to_owned())
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Count {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let count = text.parse().ok().filter(|count| *count > 0);
        count.map(Self).ok_or_else(|| "expected a number, one or more".to_owned())
    }
}

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let seconds: f64 = text.parse().map_err(|_| "expected a number of seconds".to_owned())?;
        let time = Duration::try_from_secs_f64(seconds);
        time.map(Self).map_err(|_| "expected a number of seconds, zero or more".to_owned())
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_secs_f64().fmt(f)
    }
}

/// One limit of one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UserLimit {
    pub(crate) user: Arc<str>,
    limit: UserLimits,
}

impl UserLimit {
    /// What is said, and this.
    pub(crate) fn over(&self, said: UserLimits) -> UserLimits {
        self.limit.or(said)
    }
}

impl FromStr for UserLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected NAME:LIMIT=VALUE, such as ann:max-query-time=60, where LIMIT is \
                                max-user-queries, max-user-memory, max-query-memory, max-query-time, max-query-rows or \
                                max-query-bytes";
        let parts = text.split_once(':').and_then(|(user, rest)| Some((user, rest.split_once('=')?)));
        let Some((user, (name, value))) = parts.filter(|(user, _)| !user.is_empty()) else {
            return Err(EXPECTED.to_owned());
        };
        let mut limit = UserLimits::default();
        // No limit is one that nothing reaches: it is said, and comes before what holds for all.
        match name {
            "max-user-queries" => limit.queries = Some(value.parse::<Limit<Count>>()?.count().unwrap_or(usize::MAX)),
            "max-user-memory" => limit.memory = Some(value.parse::<Limit<Size>>()?.bytes().unwrap_or(usize::MAX)),
            "max-query-memory" => {
                limit.query_memory = Some(value.parse::<Limit<Size>>()?.bytes().unwrap_or(usize::MAX))
            }
            "max-query-time" => {
                let time = value.parse::<Limit<Seconds>>()?.0;
                limit.query_time = Some(time.map_or(Duration::MAX, |time| time.0));
            }
            "max-query-rows" => {
                limit.query_rows = Some(value.parse::<Limit<Count>>()?.0.map_or(u64::MAX, |rows| rows.0));
            }
            "max-query-bytes" => {
                limit.query_bytes = Some(value.parse::<Limit<Size>>()?.0.map_or(u64::MAX, |size| size.0));
            }
            _ => return Err(EXPECTED.to_owned()),
        }
        Ok(Self { user: user.into(), limit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in
            [("4GB", 4_000_000_000), ("512MiB", 512 << 20), ("1.5 kib", 1536), ("2tb", 2_000_000_000_000)]
        {
            assert_eq!(text.parse(), Ok(Limit(Some(Size(bytes)))), "{text}");
        }
        assert_eq!("Unlimited".parse(), Ok(Limit::<Size>(None)));
        for text in ["", "4", "GB", "-1GB", "0GB", "4XB", "nanGB", "é"] {
            assert!(text.parse::<Limit<Size>>().is_err(), "{text}");
        }
        let shown = half_of_memory().to_string();
        assert!(shown.parse::<Limit<Size>>().is_ok(), "{shown}");
    }

    #[test]
    fn a_user_has_limits_of_their_own() {
        let said: UserLimit = "ann:max-query-time=1.5".parse().unwrap();
        assert_eq!(&*said.user, "ann");
        let more: UserLimit = "ann:max-query-bytes=1KiB".parse().unwrap();
        let both = more.over(said.over(UserLimits::default()));
        assert_eq!((both.query_time, both.query_bytes), (Some(Duration::from_millis(1500)), Some(1024)));
        for text in ["", "ann", "ann:max-query-time", ":max-query-time=1", "ann:max-query-time=soon", "ann:limit=1"] {
            assert!(text.parse::<UserLimit>().is_err(), "{text}");
        }
    }
}
