//! `/metrics`: what the queries of the server have done, as Prometheus reads it.
//!
//! Nothing is counted here. Each scrape asks the session for its numbers, and writes them down.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use couatl_datafusion::{Access, Queries, Statistics, Usage};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

/// What the text is, for who reads its header.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What clients hold of the server.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) sessions: usize,
    /// The handles, by what they are of.
    pub(crate) handles: [(&'static str, usize); 4],
}

/// The text of a scrape.
pub(crate) fn scrape(queries: &Arc<Queries>, held: Held) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("couatl");
    registry.register_collector(Box::new(Numbers(queries.statistics(), held)));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Numbers(Statistics, Held);

type Labels<'l> = [(&'static str, Cow<'l, str>)];

/// A number of each stream, for its readers and its writers.
struct OfStreams {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    number: fn(&Usage) -> f64,
}

const OF_STREAMS: &[OfStreams] = &[
    OfStreams {
        name: "stream_opened",
        help: "How often it was opened",
        unit: None,
        number: |usage| usage.opened as f64,
    },
    OfStreams {
        name: "stream_rows",
        help: "Rows that its Python gave or took",
        unit: None,
        number: |usage| usage.metrics.rows as f64,
    },
    OfStreams {
        name: "stream_batches",
        help: "Batches of these rows",
        unit: None,
        number: |usage| usage.metrics.batches as f64,
    },
    OfStreams {
        name: "stream_python",
        help: "Time inside its Python",
        unit: Some(Unit::Seconds),
        number: |usage| usage.metrics.python.as_secs_f64(),
    },
    OfStreams {
        name: "stream_convert",
        help: "Time converting between Python and Arrow; an estimate from samples",
        unit: Some(Unit::Seconds),
        number: |usage| usage.metrics.convert.as_secs_f64(),
    },
    OfStreams {
        name: "stream_gil_wait",
        help: "Time waiting for the interpreter lock",
        unit: Some(Unit::Seconds),
        number: |usage| usage.metrics.gil_wait.as_secs_f64(),
    },
    OfStreams {
        name: "stream_blocked",
        help: "Time waiting for the query, or for its rows",
        unit: Some(Unit::Seconds),
        number: |usage| usage.metrics.blocked.as_secs_f64(),
    },
];

impl Collector for Numbers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Self(numbers, held) = self;
        counter(&mut encoder, "queries_started", "Queries that have begun", None, [(&[][..], numbers.started as f64)])?;
        let ended = numbers
            .ended
            .iter()
            .map(|(how, count)| ([("outcome", Cow::Borrowed(how.map_or("ok", |kind| kind.as_str())))], *count as f64));
        let ended: Vec<_> = ended.collect();
        let ended = ended.iter().map(|(labels, count)| (&labels[..], *count));
        counter(&mut encoder, "queries_ended", "Queries that have ended, by how", None, ended)?;
        gauge(&mut encoder, "queries_running", "Queries that run", [(&[][..], numbers.running)])?;
        gauge(&mut encoder, "queries_queued", "Queries that wait for their turn", [(&[][..], numbers.queued)])?;
        let waited = [(&[][..], Duration::as_secs_f64(&numbers.queue_time))];
        let help = "How long queries have waited for their turn";
        counter(&mut encoder, "queries_queue", help, Some(&Unit::Seconds), waited)?;
        counter(&mut encoder, "result_rows", "Rows of results", None, [(&[][..], numbers.rows as f64)])?;
        let bytes = [(&[][..], numbers.bytes as f64)];
        counter(&mut encoder, "result", "Bytes of results, in memory", Some(&Unit::Bytes), bytes)?;

        gauge(&mut encoder, "sessions", "Sessions of clients", [(&[][..], held.sessions as u64)])?;
        let handles = held.handles.map(|(kind, count)| ([("kind", Cow::Borrowed(kind))], count as u64));
        let handles = handles.iter().map(|(labels, count)| (&labels[..], *count));
        gauge(&mut encoder, "handles", "Handles that clients hold, by what they are of", handles)?;

        let labels = |stream: &Arc<str>, access: Access| {
            let access = match access {
                Access::Read => "read",
                Access::Write => "write",
                Access::Call => "call",
            };
            [("stream", Cow::Owned(escaped(stream))), ("access", Cow::Borrowed(access))]
        };
        let streams = numbers.streams.iter().map(|((stream, access), usage)| (labels(stream, *access), usage));
        let streams: Vec<_> = streams.collect();
        let open = streams.iter().map(|(labels, usage)| (&labels[..], usage.open));
        gauge(&mut encoder, "stream_open", "How often it is open", open)?;
        for OfStreams { name, help, unit, number } in OF_STREAMS {
            let numbers = streams.iter().map(|(labels, usage)| (&labels[..], number(usage)));
            counter(&mut encoder, name, help, unit.as_ref(), numbers)?;
        }
        let errors = streams.iter().flat_map(|(labels, usage)| {
            usage.errors.iter().map(|(kind, count)| {
                let [stream, access] = labels.clone();
                ([stream, access, ("kind", Cow::Borrowed(kind.as_str()))], *count as f64)
            })
        });
        let errors: Vec<_> = errors.collect();
        let errors = errors.iter().map(|(labels, count)| (&labels[..], *count));
        counter(&mut encoder, "stream_errors", "What went wrong with it", None, errors)
    }
}

/// A label's value as the text has it between its quotes.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn counter<'l>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    numbers: impl IntoIterator<Item = (&'l Labels<'l>, f64)>,
) -> Result<(), fmt::Error> {
    write(encoder, name, help, unit, numbers.into_iter().map(|(labels, number)| (labels, ConstCounter::new(number))))
}

fn gauge<'l>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    numbers: impl IntoIterator<Item = (&'l Labels<'l>, u64)>,
) -> Result<(), fmt::Error> {
    let gauges = numbers.into_iter().map(|(labels, number)| (labels, ConstGauge::new(number as i64)));
    write(encoder, name, help, None, gauges)
}

/// A family of numbers. One without any is left out.
fn write<'l, M: EncodeMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    numbers: impl Iterator<Item = (&'l Labels<'l>, M)>,
) -> Result<(), fmt::Error> {
    let mut numbers = numbers.peekable();
    let Some((_, first)) = numbers.peek() else { return Ok(()) };
    let mut family = encoder.encode_descriptor(name, help, unit, first.metric_type())?;
    numbers.try_for_each(|(labels, number)| number.encode(family.encode_family(&labels)?))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use couatl_core::ErrorKind;
    use expect_test::expect;

    use super::*;

    #[test]
    fn everything_is_written_down() {
        let usage =
            Usage { opened: 3, open: 1, errors: BTreeMap::from([(ErrorKind::PythonException, 2)]), ..Usage::default() };
        let numbers = Statistics {
            started: 7,
            running: 1,
            ended: BTreeMap::from([(None, 5), (Some(ErrorKind::Cancelled), 1)]),
            queue_time: Duration::from_millis(1500),
            rows: 10,
            bytes: 80,
            streams: BTreeMap::from([((Arc::from("a \"b\"\nc"), Access::Read), usage)]),
            ..Statistics::default()
        };
        let mut registry = Registry::with_prefix("couatl");
        let handles = [("fetched", 1), ("poll", 0), ("statement", 2), ("ticket", 5)];
        registry.register_collector(Box::new(Numbers(numbers, Held { sessions: 3, handles })));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        expect![[r##"
            # HELP couatl_queries_started Queries that have begun
            # TYPE couatl_queries_started counter
            couatl_queries_started_total{} 7.0
            # HELP couatl_queries_ended Queries that have ended, by how
            # TYPE couatl_queries_ended counter
            couatl_queries_ended_total{outcome="ok"} 5.0
            couatl_queries_ended_total{outcome="cancelled"} 1.0
            # HELP couatl_queries_running Queries that run
            # TYPE couatl_queries_running gauge
            couatl_queries_running{} 1
            # HELP couatl_queries_queued Queries that wait for their turn
            # TYPE couatl_queries_queued gauge
            couatl_queries_queued{} 0
            # HELP couatl_queries_queue_seconds How long queries have waited for their turn
            # TYPE couatl_queries_queue_seconds counter
            # UNIT couatl_queries_queue_seconds seconds
            couatl_queries_queue_seconds_total{} 1.5
            # HELP couatl_result_rows Rows of results
            # TYPE couatl_result_rows counter
            couatl_result_rows_total{} 10.0
            # HELP couatl_result_bytes Bytes of results, in memory
            # TYPE couatl_result_bytes counter
            # UNIT couatl_result_bytes bytes
            couatl_result_bytes_total{} 80.0
            # HELP couatl_sessions Sessions of clients
            # TYPE couatl_sessions gauge
            couatl_sessions{} 3
            # HELP couatl_handles Handles that clients hold, by what they are of
            # TYPE couatl_handles gauge
            couatl_handles{kind="fetched"} 1
            couatl_handles{kind="poll"} 0
            couatl_handles{kind="statement"} 2
            couatl_handles{kind="ticket"} 5
            # HELP couatl_stream_open How often it is open
            # TYPE couatl_stream_open gauge
            couatl_stream_open{stream="a \"b\"\nc",access="read"} 1
            # HELP couatl_stream_opened How often it was opened
            # TYPE couatl_stream_opened counter
            couatl_stream_opened_total{stream="a \"b\"\nc",access="read"} 3.0
            # HELP couatl_stream_rows Rows that its Python gave or took
            # TYPE couatl_stream_rows counter
            couatl_stream_rows_total{stream="a \"b\"\nc",access="read"} 0.0
            # HELP couatl_stream_batches Batches of these rows
            # TYPE couatl_stream_batches counter
            couatl_stream_batches_total{stream="a \"b\"\nc",access="read"} 0.0
            # HELP couatl_stream_python_seconds Time inside its Python
            # TYPE couatl_stream_python_seconds counter
            # UNIT couatl_stream_python_seconds seconds
            couatl_stream_python_seconds_total{stream="a \"b\"\nc",access="read"} 0.0
            # HELP couatl_stream_convert_seconds Time converting between Python and Arrow; an estimate from samples
            # TYPE couatl_stream_convert_seconds counter
            # UNIT couatl_stream_convert_seconds seconds
            couatl_stream_convert_seconds_total{stream="a \"b\"\nc",access="read"} 0.0
            # HELP couatl_stream_gil_wait_seconds Time waiting for the interpreter lock
            # TYPE couatl_stream_gil_wait_seconds counter
            # UNIT couatl_stream_gil_wait_seconds seconds
            couatl_stream_gil_wait_seconds_total{stream="a \"b\"\nc",access="read"} 0.0
            # HELP couatl_stream_blocked_seconds Time waiting for the query, or for its rows
            # TYPE couatl_stream_blocked_seconds counter
            # UNIT couatl_stream_blocked_seconds seconds
            couatl_stream_blocked_seconds_total{stream="a \"b\"\nc",access="read"} 0.0
            # HELP couatl_stream_errors What went wrong with it
            # TYPE couatl_stream_errors counter
            couatl_stream_errors_total{stream="a \"b\"\nc",access="read",kind="python-exception"} 2.0
            # EOF
        "##]]
        .assert_eq(&text);
    }
}
