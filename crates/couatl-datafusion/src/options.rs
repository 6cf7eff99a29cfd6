//! What a client sets for itself: the settings of one session, beside those of others.

use std::any::Any;

use arrow::array::timezone::Tz;
use couatl_core::{Error, Result};
use datafusion::common::config::{ConfigEntry, ConfigExtension, ExtensionOptions};
use datafusion::common::{plan_datafusion_err, plan_err};
use datafusion::prelude::SessionContext;

use crate::session::Session;

/// The names under which drivers know where names without a catalog or a schema are looked up.
const CATALOG_OPTION: (&str, &str) = ("catalog", "datafusion.catalog.default_catalog");
const SCHEMA_OPTION: (&str, &str) = ("schema", "datafusion.catalog.default_schema");

/// How a session's results are sent: the settings `couatl.…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireOptions {
    /// Whether dictionaries are sent as such, or as their values, which every client reads.
    pub keep_dictionaries: bool,
    /// In how many parts a result may be offered that clients can fetch side by side, where its rows have nothing to do
    /// with each other.
    pub result_partitions: usize,
}

impl Default for WireOptions {
    fn default() -> Self {
        Self { keep_dictionaries: false, result_partitions: 1 }
    }
}

// DataFusion's macro for this lists settings without their prefix, under which nobody finds them.
impl ExtensionOptions for WireOptions {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, value: &str) -> datafusion::error::Result<()> {
        let expected = |what| plan_datafusion_err!("couatl.{key} is {what}, and not '{value}'");
        match key {
            "keep_dictionaries" => self.keep_dictionaries = value.parse().map_err(|_| expected("true or false"))?,
            "result_partitions" => {
                let parts = value.parse().ok().filter(|parts| (1..=MAX_PARTITIONS).contains(parts));
                self.result_partitions = parts.ok_or_else(|| expected("a number from 1 to 256"))?;
            }
            _ => return plan_err!("there is no setting 'couatl.{key}'; SHOW ALL lists them"),
        }
        Ok(())
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        let entry = |key, value: String, description| ConfigEntry {
            key: format!("{}.{key}", Self::PREFIX),
            value: Some(value),
            description,
        };
        vec![
            entry(
                "keep_dictionaries",
                self.keep_dictionaries.to_string(),
                "Whether dictionaries are sent to clients as such, or as their values, which every client reads.",
            ),
            entry(
                "result_partitions",
                self.result_partitions.to_string(),
                "In how many parts a result may be offered that clients can fetch side by side.",
            ),
        ]
    }
}

/// Settings of which there can be none, or which choose for themselves then. With no more than nothing of any other,
/// queries panic, or never end.
const MAY_BE_ZERO: [&str; 10] = [
    "datafusion.execution.target_partitions",
    "datafusion.execution.planning_concurrency",
    "datafusion.execution.meta_fetch_concurrency",
    "datafusion.execution.hash_join_buffering_capacity",
    "datafusion.execution.sort_spill_reservation_bytes",
    "datafusion.execution.sort_in_place_threshold_bytes",
    "datafusion.execution.skip_partial_aggregation_probe_rows_threshold",
    "datafusion.execution.parquet.metadata_size_hint",
    "datafusion.execution.parquet.max_predicate_cache_size",
    "datafusion.format.types_info",
];

/// Refuses what a setting takes and no query survives: more of something than any machine has use for, none of what
/// there must be some of, and a time zone that there is not.
pub(crate) fn check_value(key: &str, value: &str) -> Result<()> {
    let key = key.to_ascii_lowercase();
    let value = value.trim().trim_matches('\'');
    if key == "datafusion.execution.time_zone" && value.parse::<Tz>().is_err() {
        return Err(Error::invalid_setting(format!(
            "'{key}' is a time zone, such as 'Europe/Berlin', and not '{value}'"
        )));
    }
    if key.ends_with("bloom_filter_fpp") && !value.parse().is_ok_and(|share: f64| 0.0 < share && share < 1.0) {
        return Err(Error::invalid_setting(format!("'{key}' is a number between 0 and 1, and not '{value}'")));
    }
    // Those of optimizer rules are sizes of inputs, from which on a rule does something.
    let is_ours = key.strip_prefix("datafusion.").is_some_and(|rest| !rest.starts_with("optimizer."));
    let is_passes = key == "datafusion.optimizer.max_passes";
    let Some(number) = value.parse::<u64>().ok().filter(|_| is_ours || is_passes) else { return Ok(()) };
    let most: u64 = match key.as_str() {
        "datafusion.execution.target_partitions" | "datafusion.execution.planning_concurrency" => 256,
        "datafusion.execution.batch_size" | "datafusion.execution.parquet.write_batch_size" => 1 << 20,
        _ if COUNTS.iter().any(|count| key.ends_with(count)) => 1024,
        _ => 1 << 40,
    };
    if number > most {
        return Err(Error::invalid_setting(format!("'{key}' is {most} at most, and not {number}")));
    }
    if number == 0 && !MAY_BE_ZERO.contains(&&*key) && default_of(&key).is_some_and(|default| default != "0") {
        return Err(Error::invalid_setting(format!("'{key}' is 1 at least, and not 0")));
    }
    Ok(())
}

/// How settings end that are numbers of things which are made in advance.
const COUNTS: [&str; 5] = [
    "max_buffered_batches_per_output_file",
    "minimum_parallel_output_files",
    "maximum_buffered_record_batches_per_stream",
    "maximum_parallel_row_group_writers",
    "meta_fetch_concurrency",
];

/// The value with which a session begins.
pub(crate) fn default_of(key: &str) -> Option<String> {
    Session::config().options().entries().into_iter().find(|entry| entry.key == key)?.value
}

/// Each part is an endpoint of its own, which a client may open a connection for.
const MAX_PARTITIONS: usize = 256;

impl ConfigExtension for WireOptions {
    const PREFIX: &'static str = "couatl";
}

impl Session {
    /// How its results are sent.
    pub fn wire_options(&self) -> WireOptions {
        let state = self.context().state_ref();
        let options = state.read().config_options().extensions.get::<WireOptions>().cloned();
        options.unwrap_or_default()
    }

    /// A session on the same streams, tables and queries, whose settings and prepared statements are its own. It begins
    /// with those of this one.
    #[must_use]
    pub fn fork(&self) -> Self {
        self.with_context(SessionContext::new_with_state(self.context().state()))
    }

    /// Every setting with its value, those that have none among them: `catalog`, `schema`, and DataFusion's.
    pub fn options(&self) -> Vec<(String, Option<String>)> {
        let state = self.context().state();
        let entries = state.config_options().entries();
        let short = [CATALOG_OPTION, SCHEMA_OPTION].map(|(short, long)| {
            let entry = entries.iter().find(|entry| entry.key == long);
            (short.to_owned(), entry.and_then(|entry| entry.value.clone()))
        });
        let all = entries.iter().map(|entry| (entry.key.clone(), entry.value.clone()));
        short.into_iter().chain(all).collect()
    }

    /// Changes a setting; without a value, back to what a session begins with.
    ///
    /// # Errors
    /// `not-found` where there is no such setting; `invalid-setting` where the value is none of it.
    pub fn set_option(&self, name: &str, value: Option<&str>) -> Result<()> {
        let key =
            [CATALOG_OPTION, SCHEMA_OPTION].iter().find(|(short, _)| *short == name).map_or(name, |(_, long)| long);
        let Some(entry) = Session::config().options().entries().into_iter().find(|entry| entry.key == key) else {
            return Err(Error::not_found(format!("there is no setting '{name}'; SHOW ALL lists them")));
        };
        let Some(value) = value.map(str::to_owned).or(entry.value) else { return Ok(()) };
        check_value(key, &value)?;
        self.check_place(key, &value)?;
        let state = self.context().state_ref();
        let set = state.write().config_mut().options_mut().set(key, &value);
        set.map_err(|error| {
            let reason = error.strip_backtrace();
            Error::invalid_setting(format!("cannot set '{name}' to '{value}': {reason}"))
        })?;
        self.mark_changed();
        Ok(())
    }

    /// Refuses a default catalog or schema that is not there.
    fn check_place(&self, key: &str, value: &str) -> Result<()> {
        let context = self.context();
        if key == CATALOG_OPTION.1 && context.catalog(value).is_none() {
            return Err(Error::invalid_setting(format!("there is no catalog '{value}'")));
        }
        let catalog = context.state().config_options().catalog.default_catalog.clone();
        if key == SCHEMA_OPTION.1 && context.catalog(&catalog).and_then(|catalog| catalog.schema(value)).is_none() {
            return Err(Error::invalid_setting(format!("there is no schema '{catalog}.{value}'")));
        }
        Ok(())
    }
}
