//! Functions of SQL that make much of little: `repeat('x', 2000000000)`. DataFusion computes what is constant while it plans,
//! where no limit of a query holds, and counts no memory of expressions: here, such a call is refused before it begins.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Float64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit};
use couatl_core::{Error, ErrorKind};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};
use datafusion::prelude::SessionContext;

use crate::into_datafusion;

/// The most bytes that one call may make, of one batch of rows.
const MOST_BYTES: f64 = (1_u64 << 30) as f64;

/// What they are called, and how many bytes a call would make.
const FUNCTIONS: [(&str, Size); 7] = [
    ("repeat", repeated),
    ("lpad", padded),
    ("rpad", padded),
    ("range", counted),
    ("generate_series", counted),
    ("array_repeat", repeated_values),
    ("array_resize", resized),
];

type Size = fn(&[ArrayRef]) -> Option<f64>;

/// Puts bounds on them.
pub(crate) fn install(context: &SessionContext) {
    for (name, size) in FUNCTIONS {
        if let Some(inner) = context.state().scalar_functions().get(name).cloned() {
            context.register_udf(ScalarUDF::from(Bounded { inner, name, size }));
        }
    }
}

#[derive(Debug)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    name: &'static str,
    size: Size,
}

impl PartialEq for Bounded {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.inner == other.inner
    }
}

impl Eq for Bounded {}

impl std::hash::Hash for Bounded {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arguments)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(arguments)
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arguments)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let bytes = ColumnarValue::values_to_arrays(&arguments.args).ok().and_then(|columns| (self.size)(&columns));
        if let Some(bytes) = bytes.filter(|bytes| *bytes > MOST_BYTES) {
            return Err(into_datafusion(Error::new(
                ErrorKind::ResourcesExhausted,
                format!(
                    "{} would make {:.1} GiB at once, and may make 1 GiB: ask for less, or for fewer rows at a time",
                    self.name,
                    bytes / MOST_BYTES
                ),
            )));
        }
        self.inner.invoke_with_args(arguments)
    }
}

fn numbers(column: Option<&ArrayRef>) -> Option<Float64Array> {
    Some(cast(column?, &DataType::Float64).ok()?.as_primitive::<Float64Type>().clone())
}

fn repeated(columns: &[ArrayRef]) -> Option<f64> {
    let lengths = arrow::compute::kernels::length::length(columns.first()?).ok()?;
    let (lengths, counts) = (numbers(Some(&lengths))?, numbers(columns.get(1))?);
    Some(lengths.iter().zip(counts.iter()).filter_map(|(length, count)| Some(length? * count?.max(0.0))).sum())
}

/// So many as the second argument says, of so many bytes each; NULL makes nothing.
fn times(columns: &[ArrayRef], bytes: f64) -> Option<f64> {
    Some(numbers(columns.get(1))?.iter().flatten().map(|count| count.max(0.0) * bytes).sum())
}

/// Characters may take four bytes.
fn padded(columns: &[ArrayRef]) -> Option<f64> {
    times(columns, 4.0)
}

fn repeated_values(columns: &[ArrayRef]) -> Option<f64> {
    let values = columns.first()?;
    times(columns, values.get_array_memory_size() as f64 / values.len().max(1) as f64)
}

fn resized(columns: &[ArrayRef]) -> Option<f64> {
    times(columns, 8.0)
}

/// Eight bytes for each number, or time, from one to the other.
fn counted(columns: &[ArrayRef]) -> Option<f64> {
    let (start, stop) = match columns {
        [stop] => (None, stop),
        [start, stop, ..] => (Some(start), stop),
        [] => return None,
    };
    let is_time = columns.iter().any(|column| column.data_type().is_temporal());
    let place = |column: &ArrayRef| -> Option<Float64Array> {
        if !is_time {
            return numbers(Some(column));
        }
        let times = cast(column, &DataType::Timestamp(TimeUnit::Nanosecond, None)).ok()?;
        numbers(Some(&cast(&times, &DataType::Int64).ok()?))
    };
    let stop = place(stop)?;
    let start = start.map_or_else(|| Some(Float64Array::from(vec![0.0; stop.len()])), place)?;
    let steps = match columns.get(2) {
        Some(steps) if is_time => {
            let steps = cast(steps, &DataType::Interval(IntervalUnit::MonthDayNano)).ok()?;
            let steps = steps.as_primitive::<IntervalMonthDayNanoType>();
            let nanos = |days: f64, nanos: i64| days * 86_400e9 + nanos as f64;
            let steps = steps.iter().map(|step| {
                step.map(|step| nanos(f64::from(step.months) * 30.0 + f64::from(step.days), step.nanoseconds))
            });
            steps.collect::<Float64Array>()
        }
        Some(steps) => numbers(Some(steps))?,
        None => Float64Array::from(vec![1.0; stop.len()]),
    };
    let rows = start.iter().zip(stop.iter()).zip(steps.iter());
    let counts =
        rows.filter_map(|((start, stop), step)| Some(((stop? - start?) / step.filter(|step| *step != 0.0)?) + 1.0));
    Some(counts.map(|count| count.max(0.0) * 8.0).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_would_make_too_much_is_refused() {
        let context = SessionContext::new();
        install(&context);
        for (sql, expected) in [
            ("length(repeat('ab', 10))", Some("20")),
            ("length(repeat('ab', 2000000000))", None),
            ("length(lpad('a', 2000000000))", None),
            ("length(rpad('a', 12))", Some("12")),
            ("array_length(range(0, 10, 2))", Some("5")),
            ("array_length(range(200000000))", None),
            ("array_length(range(200000000, 0, -1))", None),
            ("array_length(generate_series(1, 1000000000))", None),
            ("array_length(range(DATE '2020-01-01', DATE '2020-02-01', INTERVAL '1' DAY))", Some("31")),
            ("array_length(range(TIMESTAMP '2020-01-01', TIMESTAMP '2021-01-01', INTERVAL '1 microsecond'))", None),
            ("array_length(array_repeat(1, 1000000000))", None),
            ("array_length(array_repeat('a', 3))", Some("3")),
            ("array_length(array_resize([1], 1000000000, 0))", None),
            ("repeat(NULL, 2000000000)", Some("")),
        ] {
            let made = async { context.sql(&format!("SELECT {sql} AS made")).await?.collect().await }.await;
            match (made, expected) {
                (Ok(made), Some(expected)) => {
                    let shown = arrow::util::display::array_value_to_string(made[0].column(0), 0).unwrap();
                    assert_eq!(shown, expected, "{sql}");
                }
                (Err(error), None) => assert!(error.to_string().contains("GiB at once"), "{sql}: {error}"),
                (made, _) => panic!("{sql}: {made:?}"),
            }
        }
    }
}
