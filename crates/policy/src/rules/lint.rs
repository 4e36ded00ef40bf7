//! What is wrong, risky or surprising about a policy, although most of it loads.
//!
//! Every check answers with the rule's own words and a witness where there is one: a request that the
//! policy treats in the way complained about. A check that cannot be certain is silent.

mod codes;
mod conditions;
mod coverage;
mod names;
mod probe;
mod reach;

use kaudit_event::{Level, Stage};

pub use codes::{LintCode, Severity};

use super::decode::{self, StrictKind};
use super::document::{Value, quoted};
use super::{Policy, PolicyError, Position, validate};

/// One thing to know about a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What kind of thing; tells severity and explanation.
    pub code: LintCode,
    /// Where it stands.
    pub at: Position,
    /// The field, as `rules[3].verbs`; empty for the document.
    pub path: String,
    /// What is the matter, with the offending text.
    pub message: String,
    /// What to write instead.
    pub fix: Option<String>,
}

/// Everything there is to say about `document`, by position.
///
/// A document that does not load yields [`Severity::Error`] findings, all of them at once where its
/// structure allows; one that loads yields none of these.
#[must_use]
pub fn lint(document: &[u8]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (policy, _) = Policy::load(document);
    fields(document, &mut findings);
    match policy {
        Ok(policy) => {
            conditions::check(&policy, &mut findings);
            reach::check(&policy, &mut findings);
            coverage::check(&policy, &mut findings);
        }
        Err(error) => refused(document, &error, &mut findings),
    }
    findings.sort_by(|a, b| (a.at, a.code, &a.path).cmp(&(b.at, b.code, &b.path)));
    findings
}

/// Fields that the API does not have: the API server drops them and starts.
fn fields(document: &[u8], findings: &mut Vec<Finding>) {
    let Ok((root, _)) = super::read(document) else {
        return;
    };
    for error in decode::decode(&root).strict {
        let (owner, field) = error.path.rsplit_once('.').unwrap_or(("", &error.path));
        let (code, message, fix) = match error.kind {
            StrictKind::Unknown => (
                LintCode::UnknownField,
                unknown_field(owner, field),
                known_field(owner, field),
            ),
            StrictKind::Repeated => (
                LintCode::RepeatedField,
                format!("field {} stands here twice", quoted(field)),
                Some("keep one of them".to_owned()),
            ),
        };
        findings.push(Finding {
            code,
            at: error.at,
            path: error.path.clone(),
            message,
            fix,
        });
    }
    repeated_keys(document, findings);
}

/// YAML's repeated keys, of which the last one counts.
pub(super) fn repeated_keys(document: &[u8], findings: &mut Vec<Finding>) {
    let Ok((_, repeated)) = super::read(document) else {
        return;
    };
    for line in repeated.iter().flat_map(|text| text.lines()) {
        let Some((number, complaint)) = line
            .trim_start()
            .strip_prefix("line ")
            .and_then(|rest| rest.split_once(": "))
        else {
            continue;
        };
        let Ok(number) = number.parse() else { continue };
        findings.push(Finding {
            code: LintCode::RepeatedField,
            at: Position {
                line: number,
                column: 1,
            },
            path: String::new(),
            message: complaint.replace("already set in map", "stands here twice; the last one counts"),
            fix: Some("keep one of them".to_owned()),
        });
    }
}

const RULE_FIELDS: &[&str] = &[
    "level",
    "users",
    "userGroups",
    "verbs",
    "resources",
    "namespaces",
    "nonResourceURLs",
    "omitStages",
    "omitManagedFields",
];
const RESOURCES_FIELDS: &[&str] = &["group", "resources", "resourceNames"];
const POLICY_FIELDS: &[&str] = &[
    "apiVersion",
    "kind",
    "metadata",
    "rules",
    "omitStages",
    "omitManagedFields",
];

fn unknown_field(owner: &str, field: &str) -> String {
    let name = quoted(field);
    if owner.contains(".resources[") && RULE_FIELDS.contains(&field) {
        return format!(
            "{name} belongs to the rule, not to an entry of its resources; the API server drops it, and the rule \
             matches more than it says"
        );
    }
    if owner.starts_with("rules[") && RESOURCES_FIELDS.contains(&field) {
        return format!("{name} belongs to an entry of resources, not to the rule; the API server drops it");
    }
    format!("there is no field {name} here; the API server drops it and starts")
}

fn known_field(owner: &str, field: &str) -> Option<String> {
    let (fields, elsewhere) = if owner.contains(".resources[") {
        (RESOURCES_FIELDS, RULE_FIELDS)
    } else if owner.starts_with("rules[") {
        (RULE_FIELDS, RESOURCES_FIELDS)
    } else if owner.is_empty() {
        (POLICY_FIELDS, RULE_FIELDS)
    } else {
        return None;
    };
    if elsewhere.contains(&field) {
        return Some(match owner {
            "" => format!("write {field} in a rule"),
            _ if owner.contains(".resources[") => format!("indent {field} like the rule's other fields"),
            _ => format!("write {field} below resources, in an entry with its group"),
        });
    }
    names::nearest(field, fields).map(|name| format!("did you mean {name}?"))
}

/// Why the API server would not start.
fn refused(document: &[u8], error: &PolicyError, findings: &mut Vec<Finding>) {
    let start = Position { line: 1, column: 1 };
    let mut push = |code, at, message, fix| {
        findings.push(Finding {
            code,
            at,
            path: String::new(),
            message,
            fix,
        });
    };
    let tree = super::read(document).ok().map(|(root, _)| root);
    let decoded = tree.as_ref().map(decode::decode);
    let top = |name: &str| {
        let Some(Value::Map(members)) = tree.as_ref().map(|root| &root.value) else {
            return start;
        };
        members
            .iter()
            .find(|member| member.key.eq_ignore_ascii_case(name))
            .map_or(start, |member| member.at)
    };
    match error {
        PolicyError::Decode(text) => match decoded {
            Some(decoded) if !decoded.wrong_types.is_empty() && text.contains("unmarshal") => {
                for wrong in decoded.wrong_types {
                    push(LintCode::Unreadable, wrong.at, wrong.message, None);
                }
            }
            _ => {
                let at = yaml_line(text).map_or_else(
                    || top("kind").max(top("apiVersion")),
                    |line| Position { line, column: 1 },
                );
                let code = match text.starts_with("no kind") || text.starts_with("converting") {
                    true => LintCode::NotAPolicy,
                    false => LintCode::Unreadable,
                };
                let fix = (code == LintCode::NotAPolicy).then(|| HEADER.to_owned());
                push(code, at, text.clone(), fix);
            }
        },
        PolicyError::Version(_) => push(
            LintCode::NotAPolicy,
            top("apiVersion"),
            "the document does not say which version of which API it is".to_owned(),
            Some(HEADER.to_owned()),
        ),
        PolicyError::Invalid(_) => {
            for invalid in decoded
                .iter()
                .flat_map(|decoded| validate::validate(&decoded.draft))
            {
                let fix = invalid_fix(&invalid.message);
                push(LintCode::InvalidValue, invalid.at, invalid.message, fix);
            }
        }
        PolicyError::NoRules => push(
            LintCode::NotAPolicy,
            top("rules"),
            error.to_string(),
            Some("a policy that records who did what: rules: [{level: Metadata}]".to_owned()),
        ),
        PolicyError::TooLarge(_) => push(LintCode::Unreadable, start, error.to_string(), None),
    }
}

const HEADER: &str = "begin with apiVersion: audit.k8s.io/v1 and kind: Policy";

/// The line in `yaml: line 7: …`.
fn yaml_line(text: &str) -> Option<usize> {
    let (_, rest) = text.split_once("yaml: line ")?;
    rest.split_once(':')?.0.parse().ok()
}

/// The nearest valid value for the offending one, which the message quotes.
fn invalid_fix(message: &str) -> Option<String> {
    let mut parts = message.split('"');
    let (_, value) = (parts.next()?, parts.next()?);
    let levels = [
        Level::None,
        Level::Metadata,
        Level::Request,
        Level::RequestResponse,
    ]
    .map(Level::as_str);
    let stages = Stage::ALL.map(Stage::as_str);
    let known: &[&str] = if message.contains("level: Unsupported value") {
        &levels
    } else if message.contains("omitStages[") {
        &stages
    } else if message.contains("resources.group:") {
        let (group, _) = value.split_once('/')?;
        return Some(format!(
            "a group is written without its version: {}",
            quoted(group)
        ));
    } else if message.contains("must begin with a '/'") {
        return Some(format!("write {}", quoted(&format!("/{value}"))));
    } else {
        return None;
    };
    names::nearest(value, known).map(|name| format!("did you mean {name}?"))
}
