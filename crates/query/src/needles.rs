//! Bytes that must stand in a line whose event satisfies a filter, so that a scanner may pass over lines
//! by searching for substrings.

use memchr::memmem;

use crate::body::Wanted;
use crate::column::{Column, Origin};
use crate::expr::{Case, Expr, Literal, Op, Test, TextTest};
use crate::filter::Filter;
use crate::pattern::{Pattern, PatternPart};

/// Groups of byte strings. A line whose event satisfies the filter holds, of each group, at least one,
/// if its JSON escapes no letter, digit or one of `-._:/`. Go's encoder escapes none of these.
#[derive(Clone, Debug)]
pub struct Needles {
    groups: Vec<Group>,
    bodies: Option<Wanted>,
}

#[derive(Clone, Debug)]
struct Group {
    finders: Vec<memmem::Finder<'static>>,
}

/// Shorter ones are found nearly everywhere.
const MIN_BYTES: usize = 3;

/// More of them cost more than they save.
const MAX_GROUPS: usize = 4;
const MAX_IN_GROUP: usize = 16;

impl Filter {
    /// What must stand in a line of an event that satisfies the filter. `None` if nothing must.
    #[must_use]
    pub fn needles(&self) -> Option<Needles> {
        let mut groups = groups_of(self.expr());
        groups.retain(|group| group.len() <= MAX_IN_GROUP);
        // The longest are the rarest, and are searched for first.
        groups.sort_by_key(|group| (std::cmp::Reverse(shortest(group)), group.len()));
        groups.dedup();
        groups.truncate(MAX_GROUPS);
        let compiled = groups.iter().map(|texts| Group {
            finders: texts
                .iter()
                .map(|text| memmem::Finder::new(text.as_bytes()).into_owned())
                .collect(),
        });
        let groups: Vec<Group> = compiled.collect();
        let bodies = Wanted::of(self.expr());
        (!groups.is_empty() || bodies.is_some()).then_some(Needles { groups, bodies })
    }
}

impl Needles {
    /// The groups, the most selective first; each holds at least one byte string.
    pub fn groups(&self) -> impl Iterator<Item = impl Iterator<Item = &[u8]>> {
        self.groups
            .iter()
            .map(|group| group.finders.iter().map(memmem::Finder::needle))
    }

    /// Whether the line holds one byte string of each group.
    #[must_use]
    pub fn are_in(&self, line: &[u8]) -> bool {
        self.groups
            .iter()
            .all(|group| group.finders.iter().any(|finder| finder.find(line).is_some()))
    }

    /// Whether the event of a line may satisfy the filter: whoever wrote the line, no event that does is
    /// ever refused. A line that escapes a character that needs no escape may hold anything. Of a body that
    /// has the name that a path ends in, the values behind that name are looked at, too.
    #[must_use]
    pub fn may_match(&self, line: &[u8]) -> bool {
        (self.are_in(line) || has_needless_escape(line))
            && self.bodies.as_ref().is_none_or(|wanted| wanted.may_be_in(line))
    }
}

/// Whether a character that a needle may hold is escaped somewhere.
pub(crate) fn has_needless_escape(line: &[u8]) -> bool {
    memchr::memchr_iter(b'\\', line).any(|at| match line.get(at + 1..) {
        Some([b'/', ..]) => true,
        Some([b'u', b'0', b'0', high, low, ..]) => {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => u8::try_from(high * 16 + low).is_ok_and(has_one_spelling),
                _ => false,
            }
        }
        _ => false,
    })
}

/// Whether Go's encoder writes the byte as itself, and nothing else by it.
pub(crate) const fn has_one_spelling(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':' | b'/')
}

/// The longest part of a text that has one spelling, if it is long enough.
fn longest(text: &str) -> Option<String> {
    text.as_bytes()
        .split(|byte| !has_one_spelling(*byte))
        .max_by_key(|run| run.len())
        .filter(|run| run.len() >= MIN_BYTES)
        .and_then(|run| String::from_utf8(run.to_vec()).ok())
}

fn shortest(group: &[String]) -> usize {
    group.iter().map(String::len).min().unwrap_or(0)
}

/// Groups of texts, of each of which one must be found.
fn groups_of(expr: &Expr) -> Vec<Vec<String>> {
    match expr {
        Expr::Everything | Expr::Nothing | Expr::Not(_) => Vec::new(),
        Expr::And(parts) => parts.iter().flat_map(groups_of).collect(),
        Expr::Or(parts) => {
            let mut any = Vec::new();
            for part in parts {
                // The best group of each.
                match groups_of(part).into_iter().max_by_key(|group| shortest(group)) {
                    Some(group) => any.extend(group),
                    None => return Vec::new(),
                }
            }
            any.sort();
            any.dedup();
            vec![any]
        }
        Expr::Test(test) => of_test(test),
        Expr::Text(text) => of_text(text),
    }
}

fn of_text(test: &TextTest) -> Vec<Vec<String>> {
    of_pattern(&test.pattern)
        .into_iter()
        .map(|text| vec![text])
        .collect()
}

fn of_pattern(pattern: &Pattern) -> Option<String> {
    pattern
        .parts()
        .filter_map(|part| match part {
            PatternPart::Literal(text) => longest(text),
            PatternPart::Run | PatternPart::One => None,
        })
        .max_by_key(String::len)
}

/// What must stand in the line for a test to hold: the value, and the keys that lead to it.
fn of_test(test: &Test) -> Vec<Vec<String>> {
    let mut groups: Vec<Vec<String>> = keys(&test.column)
        .iter()
        .filter_map(|key| longest(key))
        .map(|key| vec![key])
        .collect();
    let stands_in_line = match test.column {
        // Their names are in nearly every line.
        Column::Level | Column::Stage => false,
        // The value of the annotation, and one of the addresses.
        Column::Decision | Column::SourceIp => true,
        ref column => column.info().origin == Origin::Event,
    };
    if stands_in_line
        && test.case == Case::Sensitive
        && let Some(values) = values(&test.op)
    {
        groups.push(values);
    }
    groups
}

fn keys(column: &Column) -> Vec<&str> {
    match column {
        Column::UserExtra(key) | Column::Annotation(key) => vec![key],
        Column::ImpersonatedExtra(key) => vec!["impersonatedUser", key],
        Column::ImpersonatedUsername | Column::ImpersonatedUid | Column::ImpersonatedGroups => {
            vec!["impersonatedUser"]
        }
        Column::ImpersonationConstraint => vec!["impersonationConstraint"],
        Column::RequestObject(path) => with_names("requestObject", path.segments()),
        Column::ResponseObject(path) => with_names("responseObject", path.segments()),
        _ => Vec::new(),
    }
}

fn with_names<'a>(first: &'a str, names: &'a [String]) -> Vec<&'a str> {
    [first]
        .into_iter()
        .chain(names.iter().map(String::as_str))
        .collect()
}

/// Texts of which one must stand in the line for the operator to hold.
fn values(op: &Op) -> Option<Vec<String>> {
    let literal = |literal: &Literal| match literal {
        Literal::Text(text) => longest(text),
        Literal::Number(number) => longest(&number.to_string()),
        Literal::Bool(_) | Literal::Time(_) | Literal::Duration(_) => None,
    };
    match op {
        Op::Equals(only) => Some(vec![literal(only)?]),
        Op::EqualsAny(literals) => literals.iter().map(literal).collect(),
        Op::EqualsProduct(texts) => texts.iter().map(|text| longest(text)).collect(),
        Op::Wildcard(pattern) => Some(vec![of_pattern(pattern)?]),
        Op::StartsWith(text) | Op::EndsWith(text) => Some(vec![longest(text)?]),
        Op::Contains(text) => Some(vec![longest(text.as_str())?]),
        // An IPv4 address has one spelling; of a network only its whole octets are known.
        Op::InNetwork(networks) => networks
            .iter()
            .map(|network| match network {
                ipnet::IpNet::V4(network) if network.prefix_len() == 32 => {
                    longest(&network.addr().to_string())
                }
                ipnet::IpNet::V4(network) => {
                    let octets = network.network().octets();
                    let whole = usize::from(network.prefix_len() / 8);
                    let text: String = octets
                        .iter()
                        .take(whole)
                        .map(|octet| format!("{octet}."))
                        .collect();
                    longest(&text)
                }
                ipnet::IpNet::V6(_) => None,
            })
            .collect(),
        Op::Exists | Op::Regex(_) | Op::Compare(..) | Op::Range { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kaudit_event::MicroTime;

    fn needles(filter: &str) -> Vec<Vec<String>> {
        let filter = Filter::parse(filter, MicroTime::from_unix(0, 0)).unwrap();
        let Some(needles) = filter.needles() else {
            return Vec::new();
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        needles.groups().map(|group| group.map(text).collect()).collect()
    }

    #[test]
    fn needles_have_one_spelling() {
        for (filter, expected) in [
            (
                "user: alice@corp verb: delete",
                &[&["delete"][..], &["alice"]][..],
            ),
            ("requestURI: \"/api?a=b&command=x\"", &[&["command"]]),
            (
                "verb: (delete or deletecollection)",
                &[&["delete", "deletecollection"]],
            ),
            ("verb: get or code: 403", &[&["403", "get"]]),
            ("not verb: get", &[]),
            ("verb: get or code >= 400", &[]),
            ("resource: secrets name: db-*", &[&["secrets"], &["db-"]]),
            ("ip: 10.3.0.0/16", &[&["10.3."]]),
            ("as: *", &[&["impersonatedUser"]]),
            ("verb.lower(): get", &[]),
            ("annotations.\"a.b/c\": *", &[&["a.b/c"]]),
            (
                "req.spec.image: *latest",
                &[&["requestObject"], &["latest"], &["image"], &["spec"]],
            ),
            ("client: kubectl", &[]),
            ("ns: é", &[]),
        ] {
            assert_eq!(needles(filter), expected, "{filter}");
        }
    }

    #[test]
    fn a_needless_escape_may_hide_anything() {
        let filter = Filter::parse("verb: get", MicroTime::from_unix(0, 0)).unwrap();
        let needles = filter.needles().unwrap();
        assert!(needles.may_match(br#"{"verb":"g\u0065t"}"#));
        assert!(needles.may_match(br#"{"x":"a\/b"}"#));
        assert!(!needles.may_match(br#"{"x":"a\u0026\u003cb\n"}"#));
        assert!(!needles.may_match(b"x\\u00"));
    }
}
