//! What is wrong with a filter, said so that it can be put right.

use std::ops::Range;

use serde::Serialize;

/// One thing to say about a text. The command line, the API and the editor show the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Diagnostic {
    /// Stable, as `KA-Q003`; [`CODES`] tells what it means.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is the matter, with the offending text.
    pub message: String,
    /// Where, in bytes of the text; never inside a character.
    pub span: Range<usize>,
    /// What else to point at.
    pub labels: Vec<Label>,
    /// What to write instead, for people.
    pub help: Option<String>,
    /// What to write instead, for an editor.
    pub fix: Option<Fix>,
}

/// How bad a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Severity {
    /// The text is refused.
    Error,
    /// The text is taken, but may not mean what it seems to.
    Warning,
}

/// A second place with a word about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Label {
    /// Where, in bytes of the text.
    pub span: Range<usize>,
    /// What is there.
    pub message: String,
}

/// A change that puts it right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Fix {
    /// What is replaced, in bytes of the text.
    pub span: Range<usize>,
    /// By what.
    pub text: String,
}

impl Diagnostic {
    pub(crate) const fn error(code: &'static str, span: Range<usize>, message: String) -> Self {
        Self {
            code,
            severity: Severity::Error,
            message,
            span,
            labels: Vec::new(),
            help: None,
            fix: None,
        }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(crate) fn fix(mut self, span: Range<usize>, text: impl Into<String>) -> Self {
        self.fix = Some(Fix {
            span,
            text: text.into(),
        });
        self
    }

    pub(crate) fn label(mut self, span: Range<usize>, message: impl Into<String>) -> Self {
        self.labels.push(Label {
            span,
            message: message.into(),
        });
        self
    }
}

/// A code: what it stands for, and a filter that gets it.
#[derive(Debug)]
#[non_exhaustive]
pub struct CodeInfo {
    /// As `KA-Q003`.
    pub code: &'static str,
    /// What it stands for.
    pub meaning: &'static str,
    /// A filter that gets it; empty where that would be too long.
    pub example: &'static str,
}

macro_rules! codes {
    ($($name:ident $code:literal $meaning:literal $example:literal;)*) => {
        $(pub(crate) const $name: &str = $code;)*

        /// Every code of this crate.
        pub static CODES: &[CodeInfo] = &[$(CodeInfo { code: $code, meaning: $meaning, example: $example }),*];
    };
}

codes! {
    TOO_LONG "KA-Q001" "the text is longer than 64 KiB" "";
    TOO_DEEP "KA-Q002" "parentheses and `not` are nested deeper than 64" "";
    UNKNOWN_FIELD "KA-Q003" "there is no such field" "usrname: alice";
    MISSING_VALUE "KA-Q004" "an operator without a value" "verb:";
    NOT_CLOSED "KA-Q005" "a parenthesis or bracket that is never closed" "(verb: get";
    UNKNOWN_OPERATOR "KA-Q006" "an operator that does not exist" "responseStatus.code => 400";
    BARE_WORD "KA-Q007" "a bare word stands next to a comparison" "responseStatus.code: 400 401";
    UNEXPECTED "KA-Q008" "something that cannot stand here" "verb: get )";
    STRING_NOT_CLOSED "KA-Q009" "a quote that is never closed" "user: \"alice";
    WRONG_TYPE "KA-Q010" "a value of another type than the field" "responseStatus.code: forbidden";
    WRONG_OPERATOR "KA-Q011" "an operator that the field's type does not have" "verb > get";
    BAD_REGEX "KA-Q012" "a regular expression that cannot be read or is too large" "verb ~ \"(get\"";
    UNKNOWN_VALUE "KA-Q013" "a value that the field never has" "stage: Complete";
    WILDCARD "KA-Q014" "a wildcard where only an exact value can stand" "verb = delete*";
    MISSING_OPERAND "KA-Q015" "`and`, `or` or `not` without a condition" "verb: get and";
    BAD_ESCAPE "KA-Q016" "a backslash that escapes nothing" "user: \"a\\x\"";
    BAD_NETWORK "KA-Q017" "a network that is none" "sourceIPs: 10.0.0.0/40";
    EMPTY_LIST "KA-Q018" "a list without values" "verb in ()";
    EMPTY_RANGE "KA-Q019" "a range that ends before it begins" "responseStatus.code: [500 TO 400]";
    QUOTED_FIELD "KA-Q020" "a field's name in quotes" "\"verb\": get";
    INCOMPLETE_FIELD "KA-Q021" "a field that needs a key or has parts" "annotations: forbid";
    UNKNOWN_FUNCTION "KA-Q022" "a function that does not exist" "verb.beginsWith(\"get\")";
    ARRAY_INDEX "KA-Q023" "an index into an array; arrays are looked through" "requestObject.spec.containers[0].image: nginx";
}
