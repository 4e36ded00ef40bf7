//! A test of bodies that passes over those in which its path cannot lead to anything that it wants.

use std::borrow::Cow;

use memchr::memmem;

use crate::column::Column;
use crate::expr::{Expr, Op, Test};
use crate::json;
use crate::needles::{has_needless_escape, has_one_spelling};

/// A test of a body, made ready to look at many of them.
#[derive(Clone, Debug)]
pub struct BodyTest<'t> {
    test: Cow<'t, Test>,
    /// The last name of the path and the quote behind it.
    name: Option<memmem::Finder<'static>>,
}

impl Test {
    /// The test made ready for many bodies. Of another column it never holds.
    #[must_use]
    pub fn of_bodies(&self) -> BodyTest<'_> {
        BodyTest::new(Cow::Borrowed(self))
    }
}

impl<'t> BodyTest<'t> {
    fn new(test: Cow<'t, Test>) -> Self {
        let last = match &test.column {
            Column::RequestObject(path) | Column::ResponseObject(path) => path.segments().last(),
            _ => None,
        };
        // Other characters are written in several ways.
        let is_plain = |name: &&String| name.bytes().all(has_one_spelling);
        let name = last
            .filter(is_plain)
            .map(|name| memmem::Finder::new(format!("{name}\"").as_bytes()).into_owned());
        Self { test, name }
    }
    /// What [`Test::holds_json`] says of a body.
    #[must_use]
    pub fn holds(&self, body: &[u8]) -> bool {
        self.may_hold(body) && self.test.holds_json(Some(body))
    }

    /// The last name stands at the end of a key, before a value that the test wants or an array, or the name
    /// is written with escapes.
    fn may_hold(&self, body: &[u8]) -> bool {
        let Some(name) = &self.name else {
            return true;
        };
        let mut ends = name.find_iter(body).map(|at| at + name.needle().len());
        ends.any(|end| body.get(end..).is_some_and(|rest| self.wants_value_after(rest)))
            || has_needless_escape(body)
    }

    /// The same of the line that the body stands in. A decoder replaces bytes that are not UTF-8.
    fn may_hold_in(&self, line: &[u8]) -> bool {
        self.may_hold(line) || std::str::from_utf8(line).is_err()
    }

    /// `rest` begins where a string has ended.
    fn wants_value_after(&self, rest: &[u8]) -> bool {
        let Some(value) = rest.trim_ascii_start().strip_prefix(b":") else {
            return false;
        };
        let value = value.trim_ascii_start();
        match value.first() {
            Some(b'[') => true,
            Some(b'{') => matches!(self.test.op, Op::Exists),
            Some(b'n') | None => false,
            Some(_) => json::value_len(value)
                .and_then(|length| value.get(..length))
                .is_some_and(|value| self.test.holds_json_value(value)),
        }
    }
}

/// What a filter wants of bodies, as far as a line tells without being decoded.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    Test(Box<BodyTest<'static>>),
    All(Vec<Self>),
    Any(Vec<Self>),
}

impl Wanted {
    /// `None` if an event satisfies the filter whatever its bodies hold.
    pub(crate) fn of(expr: &Expr) -> Option<Self> {
        match expr {
            Expr::And(parts) => {
                let parts: Vec<Self> = parts.iter().filter_map(Self::of).collect();
                (!parts.is_empty()).then_some(Self::All(parts))
            }
            Expr::Or(parts) => parts.iter().map(Self::of).collect::<Option<_>>().map(Self::Any),
            Expr::Test(test) => {
                let ready = BodyTest::new(Cow::Owned(test.clone()));
                ready.name.is_some().then(|| Self::Test(Box::new(ready)))
            }
            Expr::Everything | Expr::Nothing | Expr::Not(_) | Expr::Text(_) => None,
        }
    }

    /// Whether the bodies in a line may be such; where it cannot be told, they may.
    pub(crate) fn may_be_in(&self, line: &[u8]) -> bool {
        match self {
            Self::Test(test) => test.may_hold_in(line),
            Self::All(parts) => parts.iter().all(|part| part.may_be_in(line)),
            Self::Any(parts) => parts.iter().any(|part| part.may_be_in(line)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Filter;
    use crate::expr::Expr;

    const FILTERS: &[&str] = &[
        "requestObject.a.b: true",
        "requestObject.b: x",
        "requestObject.b: *",
        "requestObject.b.c: X*",
        "requestObject.b > 1",
        "requestObject.b: 1..3",
        "requestObject.b: (x or 2)",
        "requestObject[\"b/c\"]: x",
        "requestObject[\"b c\"]: x",
        "requestObject[\"\u{e9}\"]: x",
        "requestObject.a.\"b.c\": x",
    ];

    /// JSON as anybody may write it, dense in the names and values that the filters are about.
    fn json() -> impl Strategy<Value = String> {
        let string = prop_oneof![
            Just(r#""x""#),
            Just(r#""\u0078""#),
            Just(r#""b""#),
            Just(r#""\"b\":true""#),
            Just(r#""b\":""#),
            Just(r#""\\""#),
            Just(r#""\\u0062""#),
        ];
        let key = prop_oneof![
            4 => Just(r#""b""#),
            4 => Just(r#""a""#),
            1 => Just(r#""c""#),
            1 => Just(r#""a.b""#),
            1 => Just(r#""b.c""#),
            1 => Just(r#""b/c""#),
            1 => Just(r#""b\/c""#),
            1 => Just(r#""b c""#),
            1 => Just(r#""b\u0020c""#),
            1 => Just(r#""\u0062""#),
            1 => Just(r#""a.\u0062""#),
            1 => Just("\"\u{e9}\""),
            1 => Just(r#""\u00e9""#),
            1 => Just(r#""xb""#),
        ];
        let scalar = prop_oneof![
            4 => string.prop_map(str::to_owned),
            1 => Just("true".to_owned()),
            1 => Just("false".to_owned()),
            1 => Just("null".to_owned()),
            1 => (0_u8..5).prop_map(|number: u8| number.to_string()),
        ];
        let blank = prop_oneof![6 => Just(""), 1 => Just(" "), 1 => Just("\n\t")];
        scalar.prop_recursive(4, 24, 4, move |inner| {
            let member = (key.clone(), blank.clone(), blank.clone(), inner.clone())
                .prop_map(|(key, before, after, value)| format!("{key}{before}:{after}{value}"));
            prop_oneof![
                3 => proptest::collection::vec(member, 0..4)
                    .prop_map(|members| format!("{{{}}}", members.join(","))),
                1 => proptest::collection::vec(inner, 0..3).prop_map(|items| format!("[{}]", items.join(","))),
            ]
        })
    }

    fn test_of(filter: &str) -> Test {
        match Filter::parse(filter, kaudit_event::MicroTime::from_unix(0, 0))
            .unwrap()
            .expr()
        {
            Expr::Test(test) => test.clone(),
            other => panic!("{filter} is {other:?}"),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn bodies_that_are_passed_over_do_not_hold(body in json()) {
            for filter in FILTERS {
                let test = test_of(filter);
                let bytes = body.as_bytes();
                prop_assert_eq!(test.of_bodies().holds(bytes), test.holds_json(Some(bytes)), "{}: {}", filter, body);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn a_line_is_passed_over_only_where_no_body_in_it_holds(body in json(), other in json()) {
            let line = format!("{{\"requestObject\":{body},\"responseObject\":{other}}}");
            for pair in FILTERS.windows(2) {
                let [one, two] = [test_of(pair[0]), test_of(pair[1])];
                let [first, second] = [&one, &two].map(|test| test.holds_json(Some(body.as_bytes())));
                for (expr, holds) in [
                    (Expr::And(vec![Expr::Test(one.clone()), Expr::Test(two.clone())]), first && second),
                    (Expr::Or(vec![Expr::Test(one.clone()), Expr::Test(two.clone())]), first || second),
                ] {
                    let may = Wanted::of(&expr).is_none_or(|wanted| wanted.may_be_in(line.as_bytes()));
                    prop_assert!(may || !holds, "{:?}: {}", pair, line);
                }
            }
        }
    }

    #[test]
    fn a_line_of_another_value_is_not_decoded() {
        let wanted = |filter: &str| {
            let filter = Filter::parse(filter, kaudit_event::MicroTime::from_unix(0, 0)).unwrap();
            Wanted::of(filter.expr())
        };
        let line = br#"{"verb":"create","requestObject":{"spec":{"privileged":false}}}"#;
        for (filter, may_be) in [
            ("requestObject.spec.privileged: true", false),
            ("requestObject.spec.privileged: false", true),
            ("verb: create and requestObject.spec.privileged: true", false),
            (
                "requestObject.spec.privileged: true or requestObject.spec.privileged: false",
                true,
            ),
        ] {
            assert_eq!(wanted(filter).unwrap().may_be_in(line), may_be, "{filter}");
        }
        assert!(wanted("verb: create or requestObject.spec.privileged: true").is_none());
        assert!(wanted("not requestObject.spec.privileged: true").is_none());
        assert!(
            wanted("requestObject.spec.privileged: true")
                .unwrap()
                .may_be_in(b"{\"requestObject\":{\"a\":\"\xff\"}}"),
            "a decoder changes what is not UTF-8"
        );
    }

    #[test]
    fn a_body_without_the_value_is_not_walked() {
        let test = test_of("requestObject.spec.privileged: true");
        let ready = test.of_bodies();
        for (body, may_hold) in [
            (r#"{"spec":{"privileged":true}}"#, true),
            (r#"{"other":{"privileged" : true}}"#, true),
            (r#"{"spec":{"privileged":[false]}}"#, true),
            (r#"{"spec":{"privileged":false}}"#, false),
            (r#"{"spec":["privileged",true]}"#, false),
            (r#"{"f:k:{\"privileged\":true}":{}}"#, false),
            (r#"{"spec":{"privileg\u0065d":true}}"#, true),
            (r#"{"html":"\u003cb\u003e"}"#, false),
        ] {
            assert_eq!(ready.may_hold(body.as_bytes()), may_hold, "{body}");
        }
    }
}
