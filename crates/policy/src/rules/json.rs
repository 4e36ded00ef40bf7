//! JSON policies: the same tree, repeated keys kept.

use super::document::{MAX_DEPTH, Member, Node, Position, Value};

/// Reads a document. The error is the text of Go's scanner.
pub(crate) fn read(text: &[u8]) -> Result<Node, String> {
    kaudit_event::check_json(text).map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(text);
    let mut reader = Reader {
        rest: text.as_ref(),
        line: 1,
        column: 1,
    };
    reader.node(0)
}

/// Reads text that is known to be JSON.
struct Reader<'a> {
    rest: &'a str,
    line: usize,
    column: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(count).unwrap_or((self.rest, ""));
        for character in taken.chars() {
            if character == '\n' {
                self.line += 1;
                self.column = 1;
            } else {
                self.column += 1;
            }
        }
        self.rest = rest;
        taken
    }

    fn blanks(&mut self) {
        let blanks = self.rest.len() - self.rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
        self.take(blanks);
    }

    /// Takes `character` if it comes next.
    fn accept(&mut self, character: char) -> bool {
        self.blanks();
        let is_next = self.rest.starts_with(character);
        if is_next {
            self.take(1);
        }
        is_next
    }

    fn position(&self) -> Position {
        Position {
            line: self.line,
            column: self.column,
        }
    }

    fn node(&mut self, depth: usize) -> Result<Node, String> {
        if depth > MAX_DEPTH {
            return Err("exceeded max depth".to_owned());
        }
        self.blanks();
        let at = self.position();
        let value = match self.rest.as_bytes().first() {
            Some(b'{') => Value::Map(self.map(depth)?),
            Some(b'[') => Value::List(self.list(depth)?),
            Some(b'"') => Value::String(self.string()),
            _ => {
                let end = self
                    .rest
                    .find([',', ']', '}', ' ', '\t', '\r', '\n'])
                    .unwrap_or(self.rest.len());
                match self.take(end) {
                    "null" => Value::Null,
                    "true" => Value::Bool(true),
                    "false" => Value::Bool(false),
                    number => Value::Number(number.to_owned()),
                }
            }
        };
        Ok(Node { at, value })
    }

    fn map(&mut self, depth: usize) -> Result<Vec<Member>, String> {
        let mut members = Vec::new();
        self.accept('{');
        while !self.accept('}') {
            self.blanks();
            let at = self.position();
            let key = self.string();
            self.accept(':');
            members.push(Member {
                at,
                key,
                node: self.node(depth + 1)?,
            });
            self.accept(',');
        }
        Ok(members)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, String> {
        let mut items = Vec::new();
        self.accept('[');
        while !self.accept(']') {
            items.push(self.node(depth + 1)?);
            self.accept(',');
        }
        Ok(items)
    }

    fn string(&mut self) -> String {
        let mut in_escape = false;
        let end = self
            .rest
            .char_indices()
            .skip(1)
            .find(|(_, character)| {
                let ends = *character == '"' && !in_escape;
                in_escape = *character == '\\' && !in_escape;
                ends
            })
            .map_or(self.rest.len(), |(at, _)| at + 1);
        let quoted = self.take(end);
        // A lone surrogate is not a character; Go reads U+FFFD.
        serde_json::from_str(quoted).unwrap_or_else(|_| quoted.trim_matches('"').to_owned())
    }
}
