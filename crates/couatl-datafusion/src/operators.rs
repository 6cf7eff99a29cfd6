//! Which operators may stand above an endless stream.
//!
//! Some say that they give rows as they come, and gather them into full batches all the same: one that nobody looked at
//! is refused. The question for each is what it does with a single row while its input is idle.

/// Whether a row leaves an operator before the next one comes, and how that is known.
#[derive(Debug, Clone, Copy)]
enum Standing {
    /// It may stand above a stream, for this reason.
    Prompt(#[expect(dead_code, reason = "read by people")] &'static str),
    /// It may not: what it would do.
    KeepsBack(&'static str),
}

use Standing::{KeepsBack, Prompt};

const OPERATORS: &[(&str, Standing)] = &[
    ("AggregateExec", Prompt("gives the groups that the order of its input has closed; else it says that it is final")),
    ("AnalyzeExec", Prompt("its input is put into a box of time")),
    ("AsyncFuncExec", KeepsBack("gathers rows into full batches before it calls its functions")),
    ("BandJoinExec", Prompt("answers row by row, and reads each side as it comes")),
    ("BoundedWindowAggExec", Prompt("gives the rows whose frames the order of its input has closed")),
    ("BufferExec", KeepsBack("reads ahead, so that a slow client does not slow the stream down")),
    ("CoalesceBatchesExec", KeepsBack("gathers rows into full batches")),
    ("CoalescePartitionsExec", Prompt("a task for each partition; batches leave in the order in which they come")),
    ("CooperativeExec", Prompt("passes batches on")),
    ("CrossJoinExec", KeepsBack("collects one of its sides")),
    ("DataSinkExec", Prompt("a sink of ours takes batches as they come; others are refused for what they are")),
    ("FilterExec", KeepsBack("gathers rows into full batches")),
    ("ForeignExecutionPlan", KeepsBack("runs in another program, of which nothing is known")),
    ("GlobalLimitExec", Prompt("passes batches on")),
    ("HashJoinExec", KeepsBack("gathers rows into full batches")),
    ("InterleaveExec", Prompt("passes on what any of its inputs has")),
    ("LocalLimitExec", Prompt("passes batches on")),
    ("NestedLoopJoinExec", KeepsBack("gathers rows into full batches")),
    ("OutputRequirementExec", Prompt("says what order is wanted, and is gone before the plan runs")),
    ("PartialSortExec", Prompt("gives the rows of a prefix when a row of the next one is there")),
    ("PartitionedTopKExec", KeepsBack("keeps the first rows of each partition until the end")),
    ("PiecewiseMergeJoinExec", KeepsBack("gathers rows into full batches")),
    ("ProjectionExec", Prompt("computes batch by batch")),
    ("PromptFilterExec", Prompt("filters batch by batch")),
    ("PromptJoinExec", Prompt("answers batch by batch")),
    ("QueryExec", Prompt("passes batches on")),
    ("RecursiveQueryExec", KeepsBack("begins its recursion when its first part has ended")),
    ("RepartitionExec", KeepsBack("scrambles the order of rows, or gathers them into full batches to keep it")),
    ("ScalarSubqueryExec", Prompt("passes its first input on; endless subqueries are refused for what they are")),
    ("SortExec", KeepsBack("keeps all rows until the end")),
    ("SortMergeJoinExec", KeepsBack("gathers rows into full batches")),
    ("SortPreservingMergeExec", KeepsBack("waits for a row of every input, and gathers rows into full batches")),
    ("SymmetricHashJoinExec", KeepsBack("reads its sides in turns, so that one that is silent holds up the other")),
    (
        "TableFunctionExec",
        Prompt("its Python takes batches as they come, and what it yields leaves as a stream's rows do"),
    ),
    ("TimeBoxExec", Prompt("passes batches on")),
    ("UnionExec", Prompt("its partitions are those of its inputs")),
    ("UnnestExec", Prompt("computes batch by batch")),
    ("WindowAggExec", KeepsBack("keeps all rows until the end")),
];

/// What is wrong with an operator above an endless stream, to be said after its name; nothing if rows leave it at once.
pub(crate) fn kept_back(operator: &str) -> Option<String> {
    match OPERATORS.iter().find(|(name, _)| *name == operator) {
        Some((_, Prompt(_))) => None,
        Some((_, KeepsBack(what))) => Some(format!("keeps rows back: it {what}")),
        None => Some("has not been checked for streams: it may keep rows back".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use super::*;

    /// Operators that have no input of rows, so that nothing comes through them.
    const LEAVES: &[&str] = &[
        "DataSourceExec",
        "DmlResultExec",
        "EmptyExec",
        "ExplainExec",
        "LazyMemoryExec",
        "PlaceholderRowExec",
        "StreamingTableExec",
        "WorkTableExec",
    ];

    /// Operators of DataFusion's own tests.
    const TESTS: &[&str] = &[
        "AsyncTestExecutionPlan",
        "BarrierExec",
        "BlockingExec",
        "ErrorExec",
        "MockExec",
        "PanicExec",
        "StatisticsExec",
        "TestMemoryExec",
    ];

    #[test]
    fn every_operator_of_datafusion_has_been_looked_at() {
        let mut operators = BTreeSet::new();
        for folder in datafusion_crates() {
            find_operators(&folder.join("src"), &mut operators);
        }
        assert!(operators.len() >= 30, "DataFusion has more operators than {operators:?}");
        let known = |name: &str| OPERATORS.iter().any(|(known, _)| *known == name);
        for name in &operators {
            let lists = [known(name), LEAVES.contains(&name.as_str()), TESTS.contains(&name.as_str())];
            let count = lists.iter().filter(|list| **list).count();
            assert_eq!(count, 1, "{name} is an operator in {count} of the lists: what does it do with a single row?");
        }
        let ours =
            ["BandJoinExec", "PromptFilterExec", "PromptJoinExec", "QueryExec", "TableFunctionExec", "TimeBoxExec"];
        for name in OPERATORS.iter().map(|(name, _)| name).chain(LEAVES).chain(TESTS) {
            assert!(operators.contains(*name) || ours.contains(name), "there is no operator {name} any more");
        }
    }

    #[test]
    fn the_list_is_sorted_and_names_nothing_twice() {
        assert!(OPERATORS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn what_nobody_looked_at_is_refused() {
        assert_eq!(kept_back("ProjectionExec"), None);
        assert_eq!(kept_back("FilterExec").unwrap(), "keeps rows back: it gathers rows into full batches");
        assert_eq!(kept_back("NewExec").unwrap(), "has not been checked for streams: it may keep rows back");
    }

    /// The folders of all of DataFusion's crates, as cargo has resolved them.
    fn datafusion_crates() -> Vec<PathBuf> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let metadata = Command::new(cargo)
            .args(["metadata", "--offline", "--format-version", "1"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
        let metadata = String::from_utf8(metadata.stdout).unwrap();
        let manifests = metadata.split("\"manifest_path\":\"").skip(1).filter_map(|rest| rest.split('"').next());
        manifests
            .map(|manifest| Path::new(manifest).parent().unwrap().to_owned())
            .filter(|folder| folder.file_name().unwrap().to_string_lossy().starts_with("datafusion"))
            .collect()
    }

    fn find_operators(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                find_operators(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                // What is indented is in a module of tests, or in documentation.
                let lines = text.lines().filter(|line| line.starts_with("impl"));
                let named = lines.filter_map(|line| line.split_once(" ExecutionPlan for ").map(|(_, name)| name));
                let name = |name: &str| name.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned();
                found.extend(named.map(name));
            }
        }
    }
}
