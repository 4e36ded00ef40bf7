//! Whether a label selector parses; what it selects is of no interest here.
//!
//! Source: k8s.io/apimachinery pkg/labels/selector.go, Lexer and Parser.

use super::query::is_int64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    End,
    Error,
    Identifier(&'a [u8]),
    In,
    NotIn,
    Not,
    Comma,
    Open,
    Close,
    Equals,
    NotEquals,
    Greater,
    Less,
}

pub(super) fn is_valid(selector: &[u8]) -> bool {
    let mut parser = Parser {
        tokens: tokens(selector),
        at: 0,
    };
    parser.selector().is_some()
}

const fn is_special(byte: u8) -> bool {
    matches!(byte, b'=' | b'!' | b'(' | b')' | b',' | b'>' | b'<')
}

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// A NUL byte ends the text, as in the original.
fn tokens(selector: &[u8]) -> Vec<Token<'_>> {
    let end = memchr::memchr(0, selector).unwrap_or(selector.len());
    let mut rest = selector.get(..end).unwrap_or_default();
    let mut tokens = Vec::new();
    loop {
        let blanks = rest.iter().take_while(|byte| is_blank(**byte)).count();
        rest = rest.get(blanks..).unwrap_or_default();
        let Some(&first) = rest.first() else {
            tokens.push(Token::End);
            return tokens;
        };
        let (token, length) = if is_special(first) {
            symbol(rest)
        } else {
            let length = rest
                .iter()
                .take_while(|byte| !is_special(**byte) && !is_blank(**byte))
                .count();
            let word = rest.get(..length).unwrap_or_default();
            let token = match word {
                b"in" => Token::In,
                b"notin" => Token::NotIn,
                word => Token::Identifier(word),
            };
            (token, length)
        };
        tokens.push(token);
        rest = rest.get(length..).unwrap_or_default();
    }
}

fn symbol(rest: &[u8]) -> (Token<'_>, usize) {
    match rest {
        [b'=', b'=', ..] => (Token::Equals, 2),
        [b'!', b'=', ..] => (Token::NotEquals, 2),
        [b'=', ..] => (Token::Equals, 1),
        [b'!', ..] => (Token::Not, 1),
        [b'(', ..] => (Token::Open, 1),
        [b')', ..] => (Token::Close, 1),
        [b',', ..] => (Token::Comma, 1),
        [b'>', ..] => (Token::Greater, 1),
        [b'<', ..] => (Token::Less, 1),
        _ => (Token::Error, 1),
    }
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
}

impl<'a> Parser<'a> {
    /// The next token; where a value may stand, `in` and `notin` are identifiers.
    fn peek(&self) -> Token<'a> {
        match self.tokens.get(self.at).copied().unwrap_or(Token::End) {
            Token::In => Token::Identifier(b"in"),
            Token::NotIn => Token::Identifier(b"notin"),
            token => token,
        }
    }

    fn take(&mut self) -> Token<'a> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn selector(&mut self) -> Option<()> {
        loop {
            match self.peek() {
                Token::Identifier(_) | Token::Not => {}
                Token::End => return Some(()),
                _ => return None,
            }
            self.requirement()?;
            match self.take() {
                Token::End => return Some(()),
                Token::Comma if matches!(self.peek(), Token::Identifier(_) | Token::Not) => {}
                _ => return None,
            }
        }
    }

    fn requirement(&mut self) -> Option<()> {
        let mut token = self.take();
        let negated = token == Token::Not;
        if negated {
            token = self.take();
        }
        let Token::Identifier(key) = token else {
            return None;
        };
        if !is_label_key(key) {
            return None;
        }
        if negated || matches!(self.peek(), Token::End | Token::Comma) {
            return Some(());
        }
        let operator = self.tokens.get(self.at).copied()?;
        self.at += 1;
        match operator {
            Token::In | Token::NotIn => self.values(),
            Token::Equals | Token::NotEquals => self.value().filter(|value| is_label_value(value)).map(drop),
            Token::Greater | Token::Less => self
                .value()
                .filter(|value| is_int64(value) && is_label_value(value))
                .map(drop),
            _ => None,
        }
    }

    fn value(&mut self) -> Option<&'a [u8]> {
        match self.peek() {
            Token::End | Token::Comma => Some(b""),
            Token::Identifier(value) => {
                self.at += 1;
                Some(value)
            }
            _ => None,
        }
    }

    /// A list in parentheses; empty items are empty strings, an empty list is an error.
    fn values(&mut self) -> Option<()> {
        if self.take() != Token::Open {
            return None;
        }
        let mut count = 0;
        loop {
            match self.take() {
                Token::Identifier(value) => {
                    if !is_label_value(value) {
                        return None;
                    }
                    count += 1;
                    match self.peek() {
                        Token::Comma => {}
                        Token::Close => {
                            self.at += 1;
                            return Some(());
                        }
                        _ => return None,
                    }
                }
                Token::Comma => {
                    count += 1;
                    match self.peek() {
                        Token::Close => {
                            self.at += 1;
                            return Some(());
                        }
                        Token::Comma => self.at += 1,
                        _ => {}
                    }
                }
                Token::Close if count > 0 => return Some(()),
                _ => return None,
            }
        }
    }
}

/// Source: k8s.io/apimachinery pkg/util/validation, IsQualifiedName.
fn is_label_key(key: &[u8]) -> bool {
    let (prefix, name) = match memchr::memchr(b'/', key).and_then(|at| key.split_at_checked(at)) {
        Some((prefix, name)) => (Some(prefix), name.get(1..).unwrap_or_default()),
        None => (None, key),
    };
    prefix.is_none_or(is_subdomain) && !name.is_empty() && is_label_value(name)
}

/// At most 63 letters, digits, `-`, `_` and `.`, at both ends a letter or digit; may be empty.
fn is_label_value(value: &[u8]) -> bool {
    let ends = [value.first(), value.last()];
    value.len() <= 63
        && ends.into_iter().flatten().all(u8::is_ascii_alphanumeric)
        && value
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn is_subdomain(prefix: &[u8]) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !prefix.is_empty()
        && prefix.len() <= 253
        && prefix.split(|byte| *byte == b'.').all(|label| {
            [label.first(), label.last()]
                .iter()
                .all(|end| end.is_some_and(is_letter))
                && label.iter().all(|byte| is_letter(byte) || *byte == b'-')
        })
}
