//! What a scalar of YAML 1.1 is, and what the parser says.

use libyaml_safer::{ErrorKind, Event, Mark, Parser};

/// A scalar's value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "what JSON has")]
pub enum Scalar {
    /// Nothing.
    Null,
    /// A truth.
    Bool(bool),
    /// A number's text.
    Number(String),
    /// Text.
    Text(String),
}

/// The next event.
///
/// # Errors
///
/// Upstream's text for why there is none.
///
/// Where Go's scanner has an error the parser panics for a tag that a comma ends, `[!a,b]`, and for some quoted
/// texts that break off.
pub fn next_event(parser: &mut Parser<&mut &[u8]>) -> Result<Event, String> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| parser.parse())) {
        Ok(event) => event.map_err(|error| failure(&error)),
        // What is left of the parser is dropped with the error.
        Err(_) => Err("yaml: did not find expected whitespace or line break".to_owned()),
    }
}

/// The decoder's text. Source: goyaml.v2 decode.go, parser.fail.
fn failure(error: &libyaml_safer::Error) -> String {
    let line_of = |mark: Option<Mark>| mark.map(|mark| mark.line).filter(|line| *line != 0);
    let line = match (line_of(error.context_mark()), line_of(error.problem_mark())) {
        (_, Some(line)) if error.kind() == ErrorKind::Scanner => Some(line + 1),
        (_, Some(line)) => Some(line),
        (context, None) => context,
    };
    match line {
        Some(line) => format!("yaml: line {line}: {}", error.problem()),
        None => format!("yaml: {}", error.problem()),
    }
}

/// A scalar's value by YAML 1.1.
#[must_use]
pub fn resolve(tag: Option<&str>, text: String, is_plain: bool) -> Scalar {
    match tag {
        Some("tag:yaml.org,2002:str" | "!") => return Scalar::Text(text),
        Some(
            "tag:yaml.org,2002:bool"
            | "tag:yaml.org,2002:int"
            | "tag:yaml.org,2002:float"
            | "tag:yaml.org,2002:null",
        ) => {}
        Some(_) => return Scalar::Text(text),
        None if is_plain => {}
        None => return Scalar::Text(text),
    }
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Scalar::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Scalar::Bool(false);
        }
        _ => {}
    }
    if is_number(&text) {
        Scalar::Number(text)
    } else {
        Scalar::Text(text)
    }
}

/// Source: goyaml.v2 resolve.go, the hints `D`, `S` and `.`.
fn is_number(text: &str) -> bool {
    let plain = text.replace('_', "");
    let unsigned = plain.strip_prefix(['-', '+']).unwrap_or(&plain);
    if matches!(
        plain.as_str(),
        ".inf"
            | ".Inf"
            | ".INF"
            | "+.inf"
            | "+.Inf"
            | "+.INF"
            | "-.inf"
            | "-.Inf"
            | "-.INF"
            | ".nan"
            | ".NaN"
            | ".NAN"
    ) {
        return true;
    }
    let in_radix = |digits: &str, radix: u32| {
        !digits.is_empty() && u64::from_str_radix(digits, radix).is_ok() && !digits.starts_with('+')
    };
    match unsigned.split_at_checked(2) {
        Some(("0x" | "0X", digits)) => return in_radix(digits, 16),
        Some(("0b" | "0B", digits)) => return in_radix(digits, 2),
        Some(("0o" | "0O", digits)) => return in_radix(digits, 8),
        _ => {}
    }
    is_float(unsigned)
}

/// `(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let whole = digits(text);
    let mut rest = text.get(whole..).unwrap_or_default();
    if let Some(fraction) = rest.strip_prefix('.') {
        let count = digits(fraction);
        if whole == 0 && count == 0 {
            return false;
        }
        rest = fraction.get(count..).unwrap_or_default();
    } else if whole == 0 {
        return false;
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        return !exponent.is_empty() && digits(exponent) == exponent.len();
    }
    rest.is_empty()
}
