//! Bare words: what stands without quotes.

use super::Parser;
use crate::pattern::{Pattern, PatternPart};

/// Characters of a word; a `:` belongs to it when a value's character follows.
pub(super) const fn is_word_char(char: char) -> bool {
    !matches!(
        char,
        '(' | ')' | '[' | ']' | '{' | '}' | ',' | '<' | '>' | '=' | '!' | '~' | '"' | '\''
    ) && !char.is_whitespace()
}

pub(super) struct Word {
    /// With its wildcards.
    pub(super) pattern: Pattern,
    /// Its text, where it has no wildcards; the pattern as text otherwise.
    pub(super) text: String,
    pub(super) has_wildcards: bool,
}

impl Parser<'_> {
    /// The word at this place, at least one character.
    pub(super) fn word(&mut self) -> Word {
        let mut parts: Vec<Part> = Vec::new();
        let mut first = true;
        while let Some(char) = self.peek() {
            let rest = self.rest();
            if !is_word_char(char) || (!first && (rest.starts_with("&&") || rest.starts_with("||"))) {
                break;
            }
            let after = rest.get(char.len_utf8()..).unwrap_or_default();
            if char == ':' && !first && !after.starts_with(is_word_char) {
                break;
            }
            first = false;
            self.at += char.len_utf8();
            match char {
                '*' => parts.push(Part::Run),
                '?' => parts.push(Part::One),
                '\\' => match self.peek() {
                    Some(escaped) => {
                        self.at += escaped.len_utf8();
                        parts.push(Part::Char(escaped));
                    }
                    None => parts.push(Part::Char('\\')),
                },
                char => parts.push(Part::Char(char)),
            }
        }
        let mut buffers = vec![[0_u8; 4]; parts.len()];
        let pattern = Pattern::new(parts.iter().zip(&mut buffers).map(|(part, buffer)| match part {
            Part::Run => PatternPart::Run,
            Part::One => PatternPart::One,
            Part::Char(char) => PatternPart::Literal(char.encode_utf8(buffer)),
        }));
        let has_wildcards = parts.iter().any(|part| !matches!(part, Part::Char(_)));
        let text = parts
            .iter()
            .map(|part| match part {
                Part::Run => '*',
                Part::One => '?',
                Part::Char(char) => *char,
            })
            .collect();
        Word {
            pattern,
            text,
            has_wildcards,
        }
    }
}

enum Part {
    Char(char),
    Run,
    One,
}
