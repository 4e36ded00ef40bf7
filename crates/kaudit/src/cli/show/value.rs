//! Values as text.

use kaudit_query::accumulate::Key;
use kaudit_query::{Column, ColumnType, Value};

use crate::cli::zone::Zone;

/// A text that cannot move the cursor or change the colours of a terminal: what controls it is written as an escape.
pub(crate) fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        let is_harmful = char.is_control()
            || matches!(char, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if is_harmful {
            out.extend(char.escape_unicode());
        } else {
            out.push(char);
        }
    }
    out
}

/// A value in a cell; an absent one is empty, and a time is as it was recorded.
pub(crate) fn text_of(value: &Value<'_>) -> String {
    text_in(value, &Zone::UTC)
}

/// The same, a time in a zone.
pub(crate) fn text_in(value: &Value<'_>, zone: &Zone) -> String {
    match value {
        Value::Absent => String::new(),
        Value::Text(text) => plain(text),
        Value::Texts(texts) => {
            let texts: Vec<String> = texts.iter().map(|text| plain(text)).collect();
            texts.join(",")
        }
        Value::Number(number) => number.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::Time(micros) => zone.instant(*micros),
        Value::Duration(micros) => duration(*micros),
        Value::Json(values) => {
            let values: Vec<String> = values.iter().map(|value| plain(value)).collect();
            values.join(",")
        }
    }
}

/// A value that was counted.
pub(crate) fn key_text(key: &Key, column: &Column, zone: &Zone) -> String {
    match key {
        Key::Absent => "(none)".to_owned(),
        Key::Bool(value) => value.to_string(),
        Key::Number(number) => match column.info().column_type {
            ColumnType::Time => zone.instant(*number),
            ColumnType::Duration => duration(*number),
            _ => number.to_string(),
        },
        Key::Text(text) => plain(text),
    }
}

/// The two largest units that say something.
pub(super) fn duration(micros: i64) -> String {
    let all = micros.unsigned_abs();
    let sign = if micros < 0 { "-" } else { "" };
    let seconds = all / 1_000_000;
    let text = match all {
        0 => "0s".to_owned(),
        1..1000 => format!("{all}us"),
        1000..1_000_000 => format!("{}.{}ms", all / 1000, all % 1000 / 100),
        1_000_000..60_000_000 => format!("{seconds}.{}s", all % 1_000_000 / 100_000),
        _ if seconds < 3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        _ if seconds < 86_400 => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3600),
    };
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_the_cursor_is_escaped() {
        assert_eq!(
            plain("a\u{1b}[31mb\n\u{202e}c ü".as_bytes()),
            r"a\u{1b}[31mb\u{a}\u{202e}c ü"
        );
    }

    #[test]
    fn durations_have_two_units_at_most() {
        for (micros, text) in [
            (0, "0s"),
            (7, "7us"),
            (1234, "1.2ms"),
            (59_949_999, "59.9s"),
            (3_599_000_000, "59m59s"),
            (-7_260_000_000, "-2h1m"),
            (100_000_000_000, "1d3h"),
        ] {
            assert_eq!(duration(micros), text);
        }
    }
}
