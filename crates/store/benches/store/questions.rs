//! The ten questions, and what they are about.

use std::collections::{HashMap, HashSet};

use kaudit_query::accumulate::Limits;
use kaudit_query::{Case, Column, Expr, Filter, Literal, Op, Value};
use kaudit_store::{Order, Scan, Snapshot};

fn test(column: Column, op: Op) -> Expr {
    Expr::test(column, Case::Sensitive, op)
}

fn is(column: Column, text: &str) -> Expr {
    test(column, Op::Equals(Literal::Text(text.to_owned())))
}

fn everything() -> Filter {
    Filter::everything()
}

fn top(snapshot: &Snapshot, filter: Filter, columns: &[Column]) -> usize {
    let fold = |counts: &mut HashMap<Vec<Vec<u8>>, i64>, hit: &kaudit_store::Hit<'_>| {
        let key = (0..columns.len())
            .map(|at| match hit.value(at) {
                Value::Text(text) => text.into_owned(),
                _ => Vec::new(),
            })
            .collect();
        *counts.entry(key).or_default() += 1;
    };
    let (states, _) = snapshot
        .fold(&Scan::new(filter), columns, HashMap::new, fold)
        .unwrap();
    states
        .into_iter()
        .flatten()
        .map(|(key, _)| key)
        .collect::<HashSet<_>>()
        .len()
}

fn counts(snapshot: &Snapshot, filter: Filter, column: &Column) -> usize {
    let (top, _) = snapshot
        .top(&Scan::new(filter), column, Limits::default())
        .unwrap();
    top.finish(1000).entries.len()
}

/// An auditID, a user and a time that are in the log.
pub(crate) struct Samples {
    pub(crate) audit_id: String,
    pub(crate) user: String,
    /// Microseconds since 1970.
    pub(crate) ts: i64,
}

impl Samples {
    /// Those of an event that deletes.
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let page = snapshot
            .page(
                &Scan::new(Filter::new(is(Column::Verb, "delete"))),
                Order::OldestFirst,
                500,
                None,
            )
            .unwrap();
        let event = &page.events[page.events.len() / 2];
        let decoded = kaudit_event::DecodedEvent::parse(event.event.clone()).unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let view = decoded.view();
        Self {
            audit_id: text(&view.audit_id()),
            user: text(&view.user().text("username")),
            ts: event.position.ts,
        }
    }
}

/// What is asked, and how many rows the answer has.
pub(crate) type Question<'a> = (&'static str, Box<dyn Fn() -> usize + 'a>);

/// All ten; each name begins with the question's number.
pub(crate) fn questions<'a>(snapshot: &'a Snapshot, samples: &'a Samples) -> Vec<Question<'a>> {
    let page = move |filter: Filter| {
        snapshot
            .page(&Scan::new(filter), Order::NewestFirst, 100, None)
            .unwrap()
            .events
            .len()
    };
    vec![
        (
            "q1 an auditID",
            Box::new(move || page(Filter::new(is(Column::AuditId, &samples.audit_id)))),
        ),
        (
            "q2 deletes of a user in an hour",
            Box::new(move || {
                let hour = 3_600_000_000;
                let wanted = Expr::all([
                    is(Column::UserUsername, &samples.user),
                    is(Column::Verb, "delete"),
                ]);
                let scan = Scan::new(Filter::new(wanted))
                    .between(Some(samples.ts - hour / 2), Some(samples.ts + hour / 2));
                snapshot
                    .page(&scan, Order::NewestFirst, 100, None)
                    .unwrap()
                    .events
                    .len()
            }),
        ),
        (
            "q3 403 by user",
            Box::new(move || {
                counts(
                    snapshot,
                    Filter::new(test(Column::ResponseCode, Op::Equals(Literal::Number(403)))),
                    &Column::UserUsername,
                )
            }),
        ),
        (
            "q4 by verb",
            Box::new(move || counts(snapshot, everything(), &Column::Verb)),
        ),
        (
            "q5 users by bytes",
            Box::new(move || {
                let (mut most, _) = snapshot
                    .volume_by(&Scan::new(everything()), &Column::UserUsername)
                    .unwrap();
                most.truncate(20);
                most.len()
            }),
        ),
        (
            "q6 secrets read by people",
            Box::new(move || {
                let verbs = ["get", "list", "watch"].map(|verb| Literal::Text(verb.to_owned()));
                let wanted = Expr::all([
                    is(Column::ObjectResource, "secrets"),
                    test(Column::Verb, Op::EqualsAny(verbs.to_vec())),
                    test(Column::UserUsername, Op::StartsWith("system:".to_owned())).negated(),
                ]);
                top(
                    snapshot,
                    Filter::new(wanted),
                    &[Column::UserUsername, Column::ObjectNamespace, Column::ObjectName],
                )
            }),
        ),
        (
            "q7 privileged in request bodies",
            Box::new(move || {
                let column = Column::from_name("requestObject.spec.containers.securityContext.privileged");
                let found = is(column.unwrap(), "true");
                let (count, _) = snapshot.count(&Scan::new(Filter::new(found))).unwrap();
                usize::try_from(count).unwrap()
            }),
        ),
        ("q8 the newest 100", Box::new(move || page(everything()))),
        (
            "q9 by minute",
            Box::new(move || {
                let fold = |counts: &mut HashMap<i64, u64>, times: &[i64]| {
                    for time in times {
                        *counts.entry(time / 60_000_000).or_default() += 1;
                    }
                };
                let (states, _) = snapshot
                    .fold_times(&Scan::new(everything()), HashMap::new, fold)
                    .unwrap();
                let mut minutes: HashMap<i64, u64> = HashMap::new();
                for (minute, count) in states.into_iter().flatten() {
                    *minutes.entry(minute).or_default() += count;
                }
                minutes.len()
            }),
        ),
        (
            "q10 addresses of a service account",
            Box::new(move || {
                let user = "system:serviceaccount:monitoring:prometheus-k8s";
                let scan = Scan::new(Filter::new(is(Column::UserUsername, user)));
                let fold = |found: &mut HashSet<Vec<u8>>, hit: &kaudit_store::Hit<'_>| {
                    if let Value::Texts(texts) = hit.value(0) {
                        for text in texts {
                            if !found.contains(&*text) {
                                found.insert(text.into_owned());
                            }
                        }
                    }
                };
                let (states, _) = snapshot
                    .fold(&scan, &[Column::SourceIps], HashSet::new, fold)
                    .unwrap();
                states.into_iter().flatten().collect::<HashSet<_>>().len()
            }),
        ),
    ]
}
