//! Numbers, spans of time and quantities as Go prints them.

use std::io::Write as _;

/// Appends a whole number.
pub(crate) fn push_int(out: &mut Vec<u8>, int: i64) {
    // Writing to memory cannot fail.
    drop(write!(out, "{int}"));
}

/// Appends a number as encoding/json does; `None` for what is no number.
///
/// Source: Go 1.26 encoding/json encode.go, floatEncoder.encode.
pub(crate) fn push_double(out: &mut Vec<u8>, double: f64) -> Option<()> {
    if !double.is_finite() {
        return None;
    }
    let size = double.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{double:e}");
        let (digits, exponent) = text.split_once('e')?;
        let sign = if exponent.starts_with('-') { "" } else { "+" };
        drop(write!(out, "{digits}e{sign}{exponent}"));
    } else {
        drop(write!(out, "{double}"));
    }
    Some(())
}

const SECOND: u64 = 1_000_000_000;

/// A span of nanoseconds, as Go's `time.Duration` prints itself: `1h30m0s`, `1.5ms`.
///
/// Source: Go 1.26 time/time.go, Duration.format.
pub(crate) fn duration_text(nanos: i64) -> String {
    if nanos == 0 {
        return "0s".to_owned();
    }
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    if nanos < SECOND {
        let (unit, name) = match nanos {
            0..1_000 => (1, "ns"),
            1_000..1_000_000 => (1_000, "µs"),
            _ => (1_000_000, "ms"),
        };
        return format!("{sign}{}{name}", with_fraction(nanos, unit));
    }
    let minutes = nanos / (60 * SECOND);
    let seconds = with_fraction(nanos % (60 * SECOND), SECOND);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
        (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

/// `nanos` in units of `unit` nanoseconds, a power of ten, without zeros at the end.
fn with_fraction(nanos: u64, unit: u64) -> String {
    let whole = nanos / unit;
    let rest = nanos % unit;
    if rest == 0 {
        return whole.to_string();
    }
    let places = usize::try_from(unit.ilog10()).unwrap_or_default();
    let fraction = format!("{rest:0places$}");
    format!("{whole}.{}", fraction.trim_end_matches('0'))
}

/// Whether a quantity's text is the one that Go prints again after it has read it.
///
/// Not every such text is recognized, but every one that is recognized is such.
///
/// Source: k8s.io/apimachinery pkg/api/resource quantity.go, ParseQuantity and CanonicalizeBytes.
pub(crate) fn is_canonical_quantity(text: &str) -> bool {
    if text == "0" {
        return true;
    }
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let digits = unsigned.bytes().take_while(u8::is_ascii_digit).count();
    let Some((digits, suffix)) = unsigned.split_at_checked(digits) else {
        return false;
    };
    if digits.is_empty() || digits.starts_with('0') {
        return false;
    }
    let kibis = match suffix {
        "" | "n" | "u" | "m" | "k" | "M" | "G" | "T" | "P" | "E" | "e-9" | "e-6" | "e-3" | "e3" | "e6"
        | "e9" | "e12" | "e15" | "e18" => return !digits.ends_with("000"),
        "Ki" => 1,
        "Mi" => 2,
        "Gi" => 3,
        "Ti" => 4,
        "Pi" => 5,
        "Ei" => 6,
        _ => return false,
    };
    // These alone are cut to 64 bits.
    digits.parse::<i64>().is_ok_and(|number| {
        let bytes = i128::from(number) << (10 * kibis);
        number % 1024 != 0 && bytes <= i128::from(i64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_are_printed_as_go_prints_them() {
        for (double, expected) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (0.1, "0.1"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1e-6, "0.000001"),
            (1e-7, "1e-7"),
            (-1.5e-9, "-1.5e-9"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
        ] {
            let mut out = Vec::new();
            push_double(&mut out, double).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
        assert!(push_double(&mut Vec::new(), f64::NAN).is_none());
        assert!(push_double(&mut Vec::new(), f64::INFINITY).is_none());
    }

    #[test]
    fn durations_are_printed_as_go_prints_them() {
        for (nanos, expected) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (3_300_000_000, "3.3s"),
            (245_000_000_000, "4m5s"),
            (245_001_000_000, "4m5.001s"),
            (18_367_001_000_000, "5h6m7.001s"),
            (480_000_000_001, "8m0.000000001s"),
            (i64::MAX, "2562047h47m16.854775807s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(duration_text(nanos), expected);
        }
    }

    #[test]
    fn quantities_that_go_would_write_otherwise_are_not_canonical() {
        for text in [
            "0",
            "1",
            "100m",
            "1500m",
            "16Gi",
            "1536Mi",
            "-5",
            "1k",
            "12e6",
            "5e-9",
            "10e18",
            "1001E",
            "7Ei",
            "9223372036854775808",
            "123456789012345678901234567890",
        ] {
            assert!(is_canonical_quantity(text), "{text}");
        }
        for text in [
            "",
            "00",
            "01",
            "+1",
            "1.5",
            "1000m",
            "1000",
            "1024Ki",
            "1e3k",
            "0Ki",
            "1e4",
            "5E3",
            "8Ei",
            "1e0",
            "1000E",
            "1000000000000000000000",
            "9007199254740993Ki",
            "1 ",
            "-",
            "-0",
            "m",
            "1K",
            "１",
        ] {
            assert!(!is_canonical_quantity(text), "{text}");
        }
    }
}
