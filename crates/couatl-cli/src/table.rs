//! A table of text that is printed while its rows are still coming.
//!
//! ```text
//!    n | label
//!  ----+-------
//!    0 | tick        widths: the first rows', and from then on those of the widest row so far
//!  100 | tock
//! ```
//!
//! There is no frame: nothing has to be known about the rows to come, and a table that was cut off reads as well as a
//! whole one.

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use unicode_width::UnicodeWidthStr;

/// Wider cells stick out, lest one of them push all later rows off the screen.
const WIDEST: usize = 60;

/// The columns of a table, as wide as the rows so far want them.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    headed: bool,
}

#[derive(Debug)]
struct Column {
    name: String,
    width: usize,
    right: bool,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(schema: &Schema) -> Self {
        let column = |field: &arrow::datatypes::FieldRef| {
            let name = printable(field.name()).replace('\n', "\\n");
            Column { width: name.width().min(WIDEST), name, right: is_number(field.data_type()) }
        };
        Self { columns: schema.fields().iter().map(column).collect(), headed: false }
    }

    /// Prints rows, under the header where these are the first.
    pub(crate) fn rows(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        let options = FormatOptions::new().with_null("NULL");
        let formatters: Vec<_> =
            batch.columns().iter().map(|array| ArrayFormatter::try_new(array, &options)).collect::<Result<_, _>>()?;
        let mut rows = Vec::with_capacity(batch.num_rows());
        for row in 0..batch.num_rows() {
            let mut cells = Vec::with_capacity(formatters.len());
            for (column, formatter) in self.columns.iter_mut().zip(&formatters) {
                let cell = printable(formatter.value(row).try_to_string()?.trim_end_matches('\n'));
                let width = cell.split('\n').map(UnicodeWidthStr::width).max().unwrap_or(0);
                column.width = column.width.max(width.min(WIDEST));
                cells.push(cell);
            }
            rows.push(cells);
        }
        self.header(out);
        if !self.columns.is_empty() {
            rows.iter().for_each(|cells| self.row(cells, out));
        }
        Ok(())
    }

    /// Prints the header, once.
    pub(crate) fn header(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.headed, true) || self.columns.is_empty() {
            return;
        }
        let names: Vec<_> = self.columns.iter().map(|column| column.name.clone()).collect();
        self.row(&names, out);
        let rules: Vec<_> = self.columns.iter().map(|column| "-".repeat(column.width + 2)).collect();
        line(&rules.join("+"), out);
    }

    /// Prints cells side by side, on as many lines as the tallest of them has.
    fn row(&self, cells: &[String], out: &mut Vec<u8>) {
        let cells: Vec<Vec<_>> = cells.iter().map(|cell| cell.split('\n').collect()).collect();
        let height = cells.iter().map(Vec::len).max().unwrap_or(1);
        for at in 0..height {
            let mut text = String::new();
            for (i, (column, cell)) in self.columns.iter().zip(&cells).enumerate() {
                let part = cell.get(at).copied().unwrap_or("");
                let padding = " ".repeat(column.width.saturating_sub(part.width()));
                let (left, right) = if column.right { (&*padding, "") } else { ("", &*padding) };
                text.extend([if i > 0 { "| " } else { " " }, left, part, right, " "]);
            }
            line(text.trim_end_matches(' '), out);
        }
    }
}

fn line(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(text.as_bytes());
    out.push(b'\n');
}

/// The text without what a terminal would obey; lines stay lines.
fn printable(text: &str) -> String {
    if !text.contains(|c: char| c.is_control() && c != '\n') {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if c.is_control() && c != '\n' => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

fn is_number(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, value) => is_number(value),
        data_type => data_type.is_numeric(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, Int32Array, StringArray};
    use expect_test::{Expect, expect};

    use super::*;

    fn batch(numbers: &[Option<i32>], texts: &[Option<&str>]) -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int32Array::from(numbers.to_vec()));
        let texts: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
        RecordBatch::try_from_iter_with_nullable([("n", numbers, true), ("label", texts, true)]).unwrap()
    }

    fn check(batches: &[RecordBatch], expected: Expect) {
        let (mut table, mut out) = (Table::new(&batches[0].schema()), Vec::new());
        for batch in batches {
            table.rows(batch, &mut out).unwrap();
        }
        expected.assert_eq(&String::from_utf8(out).unwrap());
    }

    #[test]
    fn widths_grow_with_the_rows() {
        let rows = [
            batch(&[Some(0), Some(10)], &[Some("tick"), None]),
            batch(&[Some(12345)], &[Some("a longer label")]),
            batch(&[None], &[Some("")]),
        ];
        check(
            &rows,
            expect![[r#"
              n | label
            ----+-------
              0 | tick
             10 | NULL
             12345 | a longer label
              NULL |
        "#]],
        );
    }

    #[test]
    fn a_cell_of_several_lines_keeps_its_column() {
        let rows = [batch(&[Some(1), Some(2)], &[Some("def f():\n    return 1\n"), Some("x")])];
        check(
            &rows,
            expect![[r#"
                 n | label
                ---+--------------
                 1 | def f():
                   |     return 1
                 2 | x
            "#]],
        );
    }

    #[test]
    fn terminals_get_no_orders_and_wide_letters_are_wide() {
        let rows = [batch(&[Some(1), Some(2)], &[Some("\x1b[2Jboo\t\0\r"), Some("東京")])];
        check(
            &rows,
            expect![[r#"
             n | label
            ---+-----------------------
             1 | \u{1b}[2Jboo\t\u{0}\r
             2 | 東京
        "#]],
        );
        let number: ArrayRef = Arc::new(Float64Array::from(vec![0.1 + 0.2, f64::NAN]));
        let city: ArrayRef = Arc::new(StringArray::from(vec!["東京", "Ōsaka"]));
        check(
            &[RecordBatch::try_from_iter([("city\n", city), ("x", number)]).unwrap()],
            expect![[r#"
             city\n |                   x
            --------+---------------------
             東京   | 0.30000000000000004
             Ōsaka  |                 NaN
        "#]],
        );
    }

    #[test]
    fn a_very_wide_cell_sticks_out() {
        let wide = "w".repeat(70);
        let name: ArrayRef = Arc::new(StringArray::from(vec!["a", &wide]));
        let size: ArrayRef = Arc::new(Int32Array::from(vec![1, 70]));
        check(
            &[RecordBatch::try_from_iter([("name", name), ("size", size)]).unwrap()],
            expect![[r#"
             name                                                         | size
            --------------------------------------------------------------+------
             a                                                            |    1
             wwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwwww |   70
        "#]],
        );
    }
}
