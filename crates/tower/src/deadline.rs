//! `?timeout=`: how long a short request may take.
//!
//! Source: k8s.io/apiserver pkg/endpoints/filters/request_deadline.go.

use std::time::Duration;

/// kube-apiserver's `--request-timeout`.
pub(crate) const DEFAULT: Duration = Duration::from_secs(60);

/// The deadline of a request, or the text of the 400 for a value that is not a duration.
pub(crate) fn of_query(query: Option<&str>) -> Result<Duration, String> {
    let value = query.and_then(|query| {
        query
            .as_bytes()
            .split(|byte| *byte == b'&')
            .filter_map(|pair| pair.strip_prefix(b"timeout="))
            .find(|value| !value.contains(&b';'))
    });
    let Some(value) = value.map(decode).filter(|value| !value.is_empty()) else {
        return Ok(DEFAULT);
    };
    match parse_duration(&value) {
        // Zero and less mean no limit of the client's own; the server's stays.
        Ok(seconds) if seconds > 0.0 => Ok(Duration::try_from_secs_f64(seconds)
            .unwrap_or(DEFAULT)
            .min(DEFAULT)),
        Ok(_) => Ok(DEFAULT),
        Err(error) => Err(format!("invalid timeout specified in the request URL - {error}")),
    }
}

fn decode(value: &[u8]) -> String {
    let mut bytes = Vec::new();
    let mut rest = value.iter().copied();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
                match (digit(rest.next()), digit(rest.next())) {
                    (Some(high), Some(low)) => u8::try_from(high * 16 + low).unwrap_or_default(),
                    // A pair with a bad escape does not count at all.
                    _ => return String::new(),
                }
            }
            byte => byte,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Seconds of a Go duration. Source: Go time, ParseDuration.
fn parse_duration(text: &str) -> Result<f64, String> {
    let quoted = || kaudit_event::go_quoted(text.as_bytes());
    let invalid = || format!("time: invalid duration {}", quoted());
    let (sign, mut rest) = match text.split_at_checked(1) {
        Some(("-", rest)) => (-1.0, rest),
        Some(("+", rest)) => (1.0, rest),
        _ => (1.0, text),
    };
    if rest == "0" {
        return Ok(0.0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let number: f64 = number.parse().map_err(|_| invalid())?;
        let end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(end).unwrap_or((tail, ""));
        let factor = match unit {
            "" => return Err(format!("time: missing unit in duration {}", quoted())),
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            unit => {
                let unit = kaudit_event::go_quoted(unit.as_bytes());
                return Err(format!("time: unknown unit {unit} in duration {}", quoted()));
            }
        };
        seconds += number * factor;
        rest = tail;
    }
    Ok(sign * seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, expected: Result<u64, &str>) {
        let ours = of_query(Some(query)).map(|duration| duration.as_secs());
        assert_eq!(
            ours.as_ref().map_err(|error| error.rsplit(" - ").next().unwrap()),
            expected.as_ref().map_err(|e| *e),
            "{query}"
        );
    }

    #[test]
    fn timeouts_are_read_as_go_reads_durations() {
        check("timeout=5s", Ok(5));
        check("a=b&timeout=1m", Ok(60));
        check("timeout=2h", Ok(60));
        check("timeout=", Ok(60));
        check("timeout=0", Ok(60));
        check("timeout=-1s", Ok(60));
        check("timeout=abc", Err("time: invalid duration \"abc\""));
        check("timeout=5s;&timeout=7s", Ok(7));
        check("a;timeout=5s&timeouts=1s&timeout", Ok(60));
        check("timeout=5", Err("time: missing unit in duration \"5\""));
        check("timeout=5x", Err("time: unknown unit \"x\" in duration \"5x\""));
    }
}
