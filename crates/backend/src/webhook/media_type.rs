//! Content types as Go parses them: one that does not parse makes an answer an error.
//!
//! Source: Go mime mediatype.go, ParseMediaType.

/// The lower-case type, or Go's error text.
pub(super) fn parse(value: &str) -> Result<String, &'static str> {
    let (base, mut rest) = match value.find(';').and_then(|at| value.split_at_checked(at)) {
        Some(split) => split,
        None => (value, ""),
    };
    let media_type = base.trim().to_lowercase();
    check(&media_type)?;
    let mut seen: Vec<(String, String)> = Vec::new();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(media_type);
        }
        let Some((name, value, after)) = parameter(rest) else {
            // A trailing semicolon is ignored.
            return if rest.trim() == ";" {
                Ok(media_type)
            } else {
                Err("mime: invalid media parameter")
            };
        };
        if seen
            .iter()
            .any(|(before, with)| *before == name && *with != value)
        {
            return Err("mime: duplicate parameter name");
        }
        seen.push((name, value));
        rest = after;
    }
}

fn check(media_type: &str) -> Result<(), &'static str> {
    let (kind, rest) = token(media_type);
    if kind.is_empty() {
        return Err("mime: no media type");
    }
    if rest.is_empty() {
        return Ok(());
    }
    let Some(rest) = rest.strip_prefix('/') else {
        return Err("mime: expected slash after first token");
    };
    let (subtype, rest) = token(rest);
    if subtype.is_empty() {
        return Err("mime: expected token after slash");
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err("mime: unexpected content after media subtype")
    }
}

/// The leading token and what follows it.
fn token(text: &str) -> (&str, &str) {
    let is_token =
        |c: char| c.is_ascii() && !c.is_ascii_control() && c != ' ' && !"()<>@,;:\\\"/[]?=".contains(c);
    let end = text.find(|c| !is_token(c)).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// `; name=value` with the name in lower case, and what follows.
fn parameter(text: &str) -> Option<(String, String, &str)> {
    let rest = text.strip_prefix(';')?.trim_start();
    let (name, rest) = token(rest);
    let rest = rest.trim_start().strip_prefix('=')?.trim_start();
    let (value, rest) = match rest.strip_prefix('"') {
        Some(quoted) => quoted_value(quoted)?,
        None => {
            let (value, rest) = token(rest);
            (value.to_owned(), rest)
        }
    };
    let has_value = !value.is_empty() || text.contains('"');
    (has_value && !name.is_empty()).then(|| (name.to_lowercase(), value, rest))
}

fn quoted_value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, text.get(at + 1..).unwrap_or_default())),
            '\\' => value.push(characters.next()?.1),
            '\r' | '\n' => return None,
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn types_parse_or_fail_with_gos_words() {
        for (text, expected) in [
            ("Application/JSON; charset=utf-8", Ok("application/json")),
            ("text", Ok("text")),
            ("text/html; a=\"x;y\"; ", Ok("text/html")),
            ("text/html;", Ok("text/html")),
            ("text/", Err("mime: expected token after slash")),
            ("text/html x", Err("mime: unexpected content after media subtype")),
            (";a=b", Err("mime: no media type")),
            ("a b", Err("mime: expected slash after first token")),
            ("a/b; charset", Err("mime: invalid media parameter")),
            ("a/b; c=", Err("mime: invalid media parameter")),
            ("a/b; c=d; c=e", Err("mime: duplicate parameter name")),
        ] {
            let parsed = parse(text);
            assert_eq!(parsed.as_deref().map_err(|error| *error), expected, "{text}");
        }
    }
}
