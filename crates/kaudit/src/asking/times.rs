//! Times, values and fields as people write them, in flags and in addresses.

use kaudit_event::MicroTime;
use kaudit_query::{Column, Filter};

/// A time of day or a while ago, in the words of the filter.
pub(crate) fn instant(text: &str) -> String {
    if is_duration(text) {
        format!("now-{text}")
    } else {
        word(text)
    }
}

pub(crate) fn is_duration(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_digit())
        && text.ends_with(|last: char| last.is_ascii_alphabetic() && last != 'Z')
}

/// The field of a name, or what is wrong with it.
pub(crate) fn column(name: &str) -> Result<Column, String> {
    if let Some(column) = Column::from_name(name) {
        return Ok(column);
    }
    // The filter's own words for what is wrong with a name.
    let text = format!("{name}: *");
    let wrong = Filter::parse(&text, MicroTime::default())
        .err()
        .unwrap_or_default();
    let first = wrong.first();
    let message = first.map_or_else(|| format!("`{name}` is no field"), |first| first.message.clone());
    let help = first.and_then(|first| first.help.as_deref());
    let help = help.map_or_else(String::new, |help| format!("\n  help: {help}"));
    Err(format!("{message}{help}"))
}

/// A value as it stands behind `:`, so that its wildcards are wildcards and everything else is itself.
pub(crate) fn word(value: &str) -> String {
    let is_plain = |char: char| !char.is_whitespace() && !"()[]{},<>=!~\"'\\".contains(char);
    let is_keyword = ["and", "or", "not", "in", "to"]
        .iter()
        .any(|word| value.eq_ignore_ascii_case(word));
    if !value.is_empty() && value.chars().all(is_plain) && !is_keyword && !value.starts_with([':', '-']) {
        return value.to_owned();
    }
    quoted(value)
}

/// A value that is nothing but itself, in the words of the filter.
pub(crate) fn quoted(value: &str) -> String {
    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{escaped}\"")
}

/// The filter, and the record's number, that a reference or an auditID stands for.
pub(crate) fn meaning(reference: &str) -> (String, Option<u64>) {
    if let Some((time, number)) = reference.rsplit_once('-')
        && let Ok(number) = number.parse()
        && time.len() == "2026-11-23T14:02:11.482913Z".len()
        && time.ends_with('Z')
    {
        return (format!("stageTimestamp = {time}"), Some(number));
    }
    (format!("auditID = {}", quoted(reference)), None)
}
