//! Parts of events that a person picks, as kubectl's `jsonpath=` and `custom-columns=` have them.

use serde_json::Value;

/// What is printed of each event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Template {
    /// Texts and values, and a line's end.
    Line(Vec<Piece>),
    /// Values below heads.
    Columns(Vec<(String, Vec<Step>)>),
}

/// A piece of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Text(String),
    Path(Vec<Step>),
}

/// One step into a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Member(String),
    Item(usize),
    All,
}

/// What is printed where there is nothing, as kubectl does.
const NONE: &str = "<none>";

impl Template {
    /// `{.user.username} did {.verb}`; one path may go without braces.
    pub(crate) fn line(text: &str) -> Result<Self, String> {
        if !text.contains('{') {
            return Ok(Self::Line(vec![Piece::Path(path(text)?)]));
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('{') {
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            let end = end_of_braces(behind).ok_or_else(|| format!("`{{{behind}` has no `}}`"))?;
            let (inner, after) = behind.split_at(end);
            pieces.push(piece(inner.trim())?);
            rest = after.get(1..).unwrap_or_default();
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self::Line(pieces))
    }

    /// `WHO:.user.username,VERB:.verb`.
    pub(crate) fn columns(text: &str) -> Result<Self, String> {
        let columns = text.split(',').map(|column| {
            let (head, text) = column
                .split_once(':')
                .ok_or_else(|| format!("`{column}` is no column: write it as WHO:.user.username"))?;
            Ok((head.to_owned(), path(text)?))
        });
        columns.collect::<Result<_, String>>().map(Self::Columns)
    }

    /// What is printed of an event, with the line's end.
    pub(crate) fn line_of(&self, event: &Value) -> String {
        let mut line = match self {
            Self::Line(pieces) => pieces
                .iter()
                .map(|piece| match piece {
                    Piece::Text(text) => text.clone(),
                    Piece::Path(path) => found(event, path),
                })
                .collect(),
            Self::Columns(columns) => cells(columns, event).join("  "),
        };
        if !line.ends_with('\n') {
            line.push('\n');
        }
        line
    }

    /// All events: lines, or columns as wide as their widest cell.
    pub(crate) fn all(&self, events: &[Value], has_heads: bool) -> String {
        let Self::Columns(columns) = self else {
            return events.iter().map(|event| self.line_of(event)).collect();
        };
        let heads = columns.iter().map(|(head, _)| head.clone()).collect();
        let heads: Vec<Vec<String>> = if has_heads { vec![heads] } else { Vec::new() };
        let rows: Vec<Vec<String>> = heads
            .into_iter()
            .chain(events.iter().map(|event| cells(columns, event)))
            .collect();
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..columns.len()).map(width).collect();
        let line = |row: &Vec<String>| {
            let padded = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:width$}"));
            format!("{}\n", padded.collect::<Vec<_>>().join("   ").trim_end())
        };
        rows.iter().map(line).collect()
    }
}

fn cells(columns: &[(String, Vec<Step>)], event: &Value) -> Vec<String> {
    let cells = columns.iter().map(|(_, path)| {
        let text = found(event, path);
        if text.is_empty() {
            NONE.to_owned()
        } else {
            super::plain(text.as_bytes())
        }
    });
    cells.collect()
}

/// Where the brace is that ends an expression; those in quotes do not.
fn end_of_braces(text: &str) -> Option<usize> {
    let mut quote = None;
    for (index, char) in text.char_indices() {
        match (quote, char) {
            (None, '}') => return Some(index),
            (None, '\'' | '"') => quote = Some(char),
            (Some(open), _) if open == char => quote = None,
            _ => {}
        }
    }
    None
}

fn piece(text: &str) -> Result<Piece, String> {
    for quote in ['"', '\''] {
        let inner = text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
        if let Some(inner) = inner {
            let text = inner.replace("\\n", "\n").replace("\\t", "\t");
            return Ok(Piece::Text(text));
        }
    }
    if text.split_whitespace().next() == Some("range") || text == "end" {
        return Err("`range` is not needed: the template is for each event".to_owned());
    }
    path(text).map(Piece::Path)
}

/// `.a.b`, `.a['b.c']`, `.a[0]`, `.a[*]`; a dot in a name may be written as `\.`.
fn path(text: &str) -> Result<Vec<Step>, String> {
    let wrong =
        |what: &str| format!("`{text}` is no path: {what}; as .user.username or .annotations['a.b/c']");
    let mut steps = Vec::new();
    let mut rest = text.trim().trim_start_matches(['$', '@']);
    if !rest.starts_with(['.', '[']) {
        return Err(wrong("it begins with a dot"));
    }
    while let Some(first) = rest.chars().next() {
        if first == '[' {
            let inner = rest.get(1..).unwrap_or_default();
            let end = match inner.chars().next() {
                Some(quote @ ('\'' | '"')) => inner
                    .get(1..)
                    .and_then(|behind| behind.find(quote))
                    .map(|at| at + 2),
                _ => inner.find(']'),
            };
            let end = end.filter(|end| inner.get(*end..).is_some_and(|tail| tail.starts_with(']')));
            let end = end.ok_or_else(|| wrong("a `]` is missing"))?;
            let (key, behind) = inner.split_at(end);
            steps.push(match key {
                "*" => Step::All,
                key if key.starts_with(['\'', '"']) => Step::Member(key.trim_matches(['\'', '"']).to_owned()),
                key => Step::Item(
                    key.parse()
                        .map_err(|_| wrong("between brackets stands a number, * or a quoted name"))?,
                ),
            });
            rest = behind.get(1..).unwrap_or_default();
            continue;
        }
        if first != '.' {
            return Err(wrong("a dot is missing"));
        }
        let mut name = String::new();
        let mut chars = rest.char_indices().skip(1);
        let mut end = rest.len();
        while let Some((index, char)) = chars.next() {
            match char {
                '\\' => name.extend(chars.next().map(|(_, char)| char)),
                '.' | '[' => {
                    end = index;
                    break;
                }
                char => name.push(char),
            }
        }
        rest = rest.get(end..).unwrap_or_default();
        match name.as_str() {
            "" if rest.is_empty() && steps.is_empty() => return Ok(steps),
            "" if rest.starts_with('[') => {}
            "" => return Err(wrong("a name is missing")),
            "*" => steps.push(Step::All),
            _ => steps.push(Step::Member(name)),
        }
    }
    Ok(steps)
}

/// All values that a path leads to, with a blank between them; texts as they are.
fn found(event: &Value, path: &[Step]) -> String {
    let mut values = vec![event];
    for step in path {
        values = values
            .into_iter()
            .flat_map(|value| match (step, value) {
                (Step::Member(name), Value::Object(members)) => members.get(name).into_iter().collect(),
                (Step::Item(at), Value::Array(items)) => items.get(*at).into_iter().collect(),
                (Step::All, Value::Array(items)) => items.iter().collect(),
                (Step::All, Value::Object(members)) => members.values().collect(),
                _ => Vec::new(),
            })
            .collect();
    }
    let texts = values.into_iter().map(|value| match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    });
    texts.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event() -> Value {
        json!({"verb": "get", "user": {"username": "ada", "groups": ["a", "b"]}, "annotations": {"x.y/z": "allow"},
            "responseStatus": {"code": 200}})
    }

    #[test]
    fn paths_are_kubectls() {
        for (text, expected) in [
            ("{.verb}", "get"),
            (".verb", "get"),
            ("{.user.username} did {.verb}{\"\\n\"}", "ada did get\n"),
            ("{$.user.groups[*]}", "a b"),
            ("{@.user.groups[1]}", "b"),
            ("{.user.groups}", "[\"a\",\"b\"]"),
            ("{.annotations['x.y/z']}", "allow"),
            ("{.annotations.x\\.y/z}", "allow"),
            ("{['user']['username']}", "ada"),
            ("{.responseStatus.code}", "200"),
            ("{.nothing.there} ", " "),
            ("{'{'}{.verb}{'}'}", "{get}"),
        ] {
            let line = Template::line(text).unwrap().line_of(&event());
            assert_eq!(
                line.trim_end_matches('\n'),
                expected.trim_end_matches('\n'),
                "{text}"
            );
            assert!(line.ends_with('\n') && !line.ends_with("\n\n"), "{text}");
        }
        for text in [
            "{.verb",
            "{verb}",
            "{.a[}",
            "{.a[x]}",
            "{range .items[*]}",
            "{.a..b}",
            "{['a}",
        ] {
            assert!(Template::line(text).is_err(), "{text}");
        }
    }

    #[test]
    fn columns_have_heads_and_say_where_there_is_nothing() {
        let columns = Template::columns("WHO:.user.username,WHY:.annotations.reason").unwrap();
        assert_eq!(columns.all(&[event()], true), "WHO   WHY\nada   <none>\n");
        assert_eq!(columns.all(&[event()], false), "ada   <none>\n");
        assert!(Template::columns("WHO").is_err());
    }
}
