//! Decimal text to an unscaled integer of a given precision and scale, exactly.

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, i256};

/// The unscaled value of a decimal text at a scale. `Err` says why it has none.
///
/// The text is what `str(decimal.Decimal)` prints: digits with an optional sign, point and exponent.
pub(super) fn parse(text: &str, precision: u8, scale: i8) -> Result<i256, &'static str> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match digits.split_once(['E', 'e']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().map_err(|_| TOO_LARGE)?),
        None => (digits, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if !whole.bytes().chain(fraction.bytes()).all(|digit| digit.is_ascii_digit()) || mantissa.is_empty() {
        return Err("it is not a finite number");
    }
    let digits = || whole.bytes().chain(fraction.bytes()).skip_while(|digit| *digit == b'0');
    let count = digits().count() as i64;
    if count == 0 {
        return Ok(i256::ZERO);
    }
    // The value is digits × 10^(exponent - fraction digits); the column wants digits × 10^-scale.
    let shift = exponent - fraction.len() as i64 + i64::from(scale);
    let (kept, zeros) = if shift < 0 { (count + shift, 0) } else { (count, shift) };
    if kept < count && digits().skip(kept.max(0) as usize).any(|digit| digit != b'0') {
        return Err("it has more digits after the point than the column");
    }
    if kept + zeros > i64::from(precision) {
        return Err(TOO_LARGE);
    }
    let all = digits().take(kept.max(0) as usize).chain(std::iter::repeat_n(b'0', zeros as usize));
    // Wide arithmetic takes several times longer, and most decimals need none.
    let value = if kept + zeros <= i64::from(DECIMAL128_MAX_PRECISION) {
        i256::from_i128(all.fold(0, |sum, digit| sum * 10 + i128::from(digit - b'0')))
    } else {
        let ten = i256::from(10);
        all.fold(i256::ZERO, |sum, digit| sum.wrapping_mul(ten).wrapping_add(i256::from(i64::from(digit - b'0'))))
    };
    Ok(if negative { value.wrapping_neg() } else { value })
}

const TOO_LARGE: &str = "it has more digits than the column";

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, precision: u8, scale: i8, expected: Result<i64, &str>) {
        assert_eq!(parse(text, precision, scale), expected.map(i256::from), "{text} as ({precision}, {scale})");
    }

    #[test]
    fn exact_or_refused() {
        check("1.5", 10, 2, Ok(150));
        check("-1.50", 3, 1, Ok(-15));
        check("1E+3", 4, 0, Ok(1000));
        check("1E+3", 3, 0, Err("it has more digits than the column"));
        check("1200", 2, -2, Ok(12));
        check("0E+99", 1, 0, Ok(0));
        check("0.000", 1, 0, Ok(0));
        check("1E-7", 10, 2, Err("it has more digits after the point than the column"));
        check("99.995", 4, 2, Err("it has more digits after the point than the column"));
        check("100", 4, 2, Err("it has more digits than the column"));
        check("NaN", 4, 2, Err("it is not a finite number"));
        check("-Infinity", 4, 2, Err("it is not a finite number"));
        check("1E+99999999999999999999", 4, 2, Err("it has more digits than the column"));
    }

    #[test]
    fn as_many_digits_as_a_column_has() {
        for (precision, scale) in [(38, 0), (38, 5), (39, 0), (39, 5), (76, 0), (76, 76)] {
            let digits = "9".repeat(precision as usize);
            let expected = i256::from_string(&digits).unwrap();
            let (whole, fraction) = digits.split_at(digits.len() - scale as usize);
            assert_eq!(parse(&format!("{whole}.{fraction}"), precision, scale), Ok(expected));
            assert_eq!(parse(&format!("-{digits}E-{scale}"), precision, scale), Ok(-expected));
        }
    }
}
