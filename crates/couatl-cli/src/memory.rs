//! How much memory queries may keep: as the command line says it, and what it is when it says nothing.

use std::fmt;
use std::fs;
use std::str::FromStr;

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

/// Bytes; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemoryLimit(pub(crate) Option<usize>);

impl Default for MemoryLimit {
    /// Half of what this process may use: what is not counted (rows on their way, Python's objects) needs the rest. No
    /// limit where that is not known.
    fn default() -> Self {
        let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
            let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
            total.trim().strip_suffix(" kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
        });
        let container = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
        Self(machine.into_iter().chain(container).min().map(|bytes| bytes / 2))
    }
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => write!(f, "{}MiB", bytes >> 20),
            None => f.write_str("unlimited"),
        }
    }
}

impl FromStr for MemoryLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("unlimited") {
            return Ok(Self(None));
        }
        let bytes = UNITS.iter().find_map(|(unit, bytes)| {
            let at = text.len().checked_sub(unit.len())?;
            let (number, suffix) = text.split_at_checked(at)?;
            let number: f64 = number.trim_end().parse().ok()?;
            // A size that no machine has is still a limit: it saturates.
            (suffix.eq_ignore_ascii_case(unit) && number > 0.0).then_some((number * *bytes as f64) as usize)
        });
        let expected = || "expected a size with its unit (4GB, 512MiB), or unlimited".to_owned();
        bytes.map(|bytes| Self(Some(bytes))).ok_or_else(expected)
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
            assert_eq!(text.parse(), Ok(MemoryLimit(Some(bytes))), "{text}");
        }
        assert_eq!("Unlimited".parse(), Ok(MemoryLimit(None)));
        for text in ["", "4", "GB", "-1GB", "0GB", "4XB", "nanGB", "é"] {
            assert!(text.parse::<MemoryLimit>().is_err(), "{text}");
        }
        let shown = MemoryLimit::default().to_string();
        assert!(shown.parse::<MemoryLimit>().is_ok(), "{shown}");
    }
}
