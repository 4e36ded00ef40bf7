//! What filters mean, and what is said of those that mean nothing.

#![expect(
    clippy::unwrap_used,
    clippy::string_slice,
    reason = "tests stop at the first surprise"
)]

use bytes::Bytes;
use kaudit_event::{DecodedEvent, MicroTime};
use kaudit_query::{
    COLUMNS, Case, Column, Diagnostic, Expr, Filter, LineMatch, Literal, Op, Pattern, Row, complete,
};

/// 2026-11-23T15:00:00Z
const NOW: MicroTime = MicroTime::from_unix(1_795_446_000, 0);

const EVENT: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"RequestResponse","auditID":"a-1","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/payments/secrets/db-password?x=1\u0026y=2","verb":"delete","user":{"username":"alice","groups":["devs","system:authenticated"],"extra":{"authentication.kubernetes.io/credential-id":["JTI=7c"]}},"sourceIPs":["203.0.113.7","10.3.4.9"],"userAgent":"kubectl/v1.36.3 (linux/amd64) kubernetes/1234567","objectRef":{"resource":"secrets","namespace":"payments","name":"db-password","apiVersion":"v1"},"responseStatus":{"metadata":{},"status":"Failure","message":"no","reason":"Forbidden","code":403},"requestObject":{"spec":{"replicas":3,"containers":[{"image":"nginx:latest"},{"image":"b"}]},"metadata":{"labels":{"app.kubernetes.io/name":"api"}}},"requestReceivedTimestamp":"2026-11-23T14:02:10.000000Z","stageTimestamp":"2026-11-23T14:02:11.482913Z","annotations":{"authorization.k8s.io/decision":"forbid","authorization.k8s.io/reason":""}}"#;

fn holds(filter: &str) -> bool {
    let event = DecodedEvent::parse(Bytes::from_static(EVENT.as_bytes())).unwrap();
    match Filter::parse(filter, NOW) {
        Ok(filter) => filter.matches(&Row::of(event.view())),
        Err(errors) => panic!("{filter}: {errors:#?}"),
    }
}

fn errors(filter: &str) -> Vec<Diagnostic> {
    match Filter::parse(filter, NOW) {
        Ok(read) => panic!("{filter} was read as {read}"),
        Err(errors) => errors,
    }
}

/// What people paste, and whether it is true of [`EVENT`].
const MEANINGS: &[(&str, bool)] = &[
    ("", true),
    ("*", true),
    ("not *", false),
    ("responseStatus.code >= 400", true),
    ("responseStatus.code:>=400", true),
    ("responseStatus.code : >= 404", false),
    ("responseStatus.code:[400 TO 499]", true),
    ("responseStatus.code:[404 TO *]", false),
    ("responseStatus.code: (401 or 403)", true),
    ("responseStatus.code: (401, 403)", true),
    ("responseStatus.code: (401 404)", false),
    ("responseStatus.code in [403]", true),
    ("code = 403", true),
    ("code != 403", false),
    ("user.username: \"alice\" AND verb: \"delete\"", true),
    ("user.username: \"bob\" AND verb: \"delete\"", false),
    ("objectRef.resource: \"secrets\"", true),
    ("userAgent: \"kubectl\"", true),
    ("userAgent: kubectl/v1.36.3", false),
    ("userAgent = \"kubectl\"", false),
    ("userAgent: \"kube-controller-manager\"", false),
    ("userAgent: kubectl/*", true),
    ("user.username: system:serviceaccount:kube-system:*", false),
    ("user.username:system:node:*", false),
    ("user.groups: system:*", true),
    ("user.groups: (devs or ops)", true),
    ("-verb:get", true),
    ("verb:delete -user.username:system*", true),
    ("verb:delete -user.username:al*", false),
    ("verb in (delete, deletecollection)", true),
    ("verb not in (delete, deletecollection)", false),
    (
        "user.username == \"alice\" && verb in [\"delete\",\"deletecollection\"]",
        true,
    ),
    ("!(verb == 'delete' || verb == 'get')", false),
    ("not verb: get", true),
    ("verb != get", true),
    ("impersonatedUser.username != bob", true),
    ("impersonatedUser.username: *", false),
    ("annotations.\"authorization.k8s.io/decision\": forbid", true),
    ("annotations[\"authorization.k8s.io/decision\"]: forbid", true),
    ("annotations['authorization.k8s.io/decision']: allow", false),
    ("annotations.authorization.k8s.io/decision: forbid", true),
    ("annotations.authorization.k8s.io/reason: *", true),
    ("annotations.authorization.k8s.io/reason: \"\"", true),
    ("annotations.nothing: \"\"", false),
    ("objectRef.subresource: \"\"", true),
    ("objectRef.subresource in (\"\", status)", true),
    ("objectRef.name: \"\"", false),
    (
        "user.extra.\"authentication.kubernetes.io/credential-id\": \"JTI=7c\"",
        true,
    ),
    ("stageTimestamp >= 2026-11-20T00:00:00Z", true),
    ("stageTimestamp: 2026-11-23", true),
    ("time: 2026-11-23T14:02", true),
    ("time: 2026-11-23T14:03", false),
    ("time > 2026-11-23", false),
    ("time <= 2026-11-23", true),
    ("time >= now-1h", true),
    ("time >= now-30m", false),
    ("time: [2026-11-22 TO 2026-11-23]", true),
    ("verb:delete resource:secrets ns:payments name:db-*", true),
    ("sourceIPs: 10.0.0.0/8", true),
    ("sourceIPs: 203.0.113.0/24 OR verb: get", true),
    ("sourceIP: 203.0.113.0/24", false),
    ("sourceIP: 10.3.4.9", true),
    ("ip: 10.3.*", true),
    ("latency > 1s", true),
    ("latency < 1s500ms", true),
    ("actorKind: human", true),
    ("client: kubectl", true),
    ("decision: forbid and deniedBy: rbac", true),
    ("mutating: true and bulk: false", true),
    ("requestObject.spec.containers.image: *latest", true),
    ("requestObject.spec.containers.image: latest", false),
    ("req.spec.replicas >= 3", true),
    ("req.spec.replicas: 3", true),
    ("requestObject.spec: *", true),
    ("requestObject.metadata.labels.app.kubernetes.io/name: api", true),
    (
        "requestObject.metadata.labels[\"app.kubernetes.io/name\"]: api",
        true,
    ),
    ("responseObject: *", false),
    (
        "user.username.startsWith(\"al\") && user.username.endsWith('ce')",
        true,
    ),
    ("requestURI.contains(\"x=1&y\")", true),
    ("verb.matches(\"^del.*e$\")", true),
    ("verb ~ \"^(get|list)$\"", false),
    ("verb !~ ^get", true),
    ("user.username: ALICE", false),
    ("user.username.lower(): ALICE", true),
    ("user.username.lowerAscii().contains(\"LIC\")", true),
    ("db-password", true),
    ("db-password kubectl", true),
    ("\"no such text\"", false),
    ("alice AND \"kubectl/v1\"", true),
    ("verb: delete and db-*word", true),
    ("level: RequestResponse stage: ResponseComplete", true),
    ("cluster: prod", false),
    ("NOT (verb: get OR verb: list) AND NOT verb: watch", true),
    ("verb:\"de\\u006cete\"", true),
    ("objectRef.name: db\\-password", true),
];

#[test]
fn filters_mean_what_people_expect() {
    for (filter, expected) in MEANINGS {
        assert_eq!(holds(filter), *expected, "{filter}");
    }
}

#[test]
fn a_line_of_an_apiserver_is_decided_where_it_stands() {
    for (text, expected) in MEANINGS {
        let filter = Filter::parse(text, NOW).unwrap();
        let looks_elsewhere = filter.columns().iter().any(|column| {
            matches!(
                column,
                Column::RequestObject(_) | Column::ResponseObject(_) | Column::Cluster
            )
        });
        match filter.for_lines() {
            Some(lines) => assert_eq!(
                lines.matches(EVENT.as_bytes()),
                LineMatch::from(*expected),
                "{text}"
            ),
            None => assert!(looks_elsewhere, "{text}"),
        }
    }
    let partly = |text: &str| {
        Filter::parse(text, NOW)
            .unwrap()
            .for_lines()
            .unwrap()
            .matches(EVENT.as_bytes())
    };
    assert_eq!(partly("verb: get and req.spec: *"), LineMatch::No);
    assert_eq!(partly("verb: delete and req.spec: *"), LineMatch::Undecided);
    assert_eq!(partly("verb: delete or req.spec: *"), LineMatch::Yes);
    let bodies = Filter::parse("nginx", NOW).unwrap().searching_bodies();
    assert_eq!(
        bodies.for_lines().unwrap().matches(EVENT.as_bytes()),
        LineMatch::Undecided
    );
    let lines = Filter::parse("verb: get", NOW).unwrap().for_lines().unwrap();
    for line in [
        "",
        "{}",
        &EVENT.replace("\"verb\":\"delete\",", ""),
        &EVENT.replace("{\"kind\"", "{ \"kind\""),
        EVENT.strip_suffix('}').unwrap_or_default().trim_end_matches('}'),
    ] {
        assert_eq!(lines.matches(line.as_bytes()), LineMatch::Undecided, "{line}");
    }
}

#[test]
fn what_is_printed_reads_as_the_same_filter() {
    for (text, _) in MEANINGS {
        let filter = Filter::parse(text, NOW).unwrap();
        let printed = filter.to_string();
        assert_eq!(
            Filter::parse(&printed, NOW).as_ref(),
            Ok(&filter),
            "{text} printed {printed}"
        );
        assert_eq!(filter.to_string(), printed);
    }
}

#[test]
fn filters_print_plainly() {
    for (text, printed) in [
        (
            "user:alice   verb:delete",
            "user.username: alice and verb: delete",
        ),
        ("not not verb:get", "verb: get"),
        (
            "verb in (get,list) || code>=400",
            "verb: (get or list) or responseStatus.code >= 400",
        ),
        ("verb:(get or w*)", "verb: get or verb: w*"),
        ("a (b or c)", "\"a\" and (\"b\" or \"c\")"),
        ("ip:10.0.0.0/8", "sourceIPs: 10.0.0.0/8"),
        ("userAgent = x and userAgent: x", "userAgent = x and userAgent: x"),
        ("time>=now-1h", "stageTimestamp >= 2026-11-23T14:00:00.000000Z"),
        ("latency>1h30m", "latency > 90m"),
        ("annotations.a.b/c:x", "annotations.\"a.b/c\": x"),
        ("user.lower():X*", "user.username.lower(): x*"),
        ("", "*"),
        ("verb: \"and\"", "verb: \"and\""),
        ("ns: \"\"", "not objectRef.namespace: *"),
    ] {
        assert_eq!(Filter::parse(text, NOW).unwrap().to_string(), printed, "{text}");
    }
}

/// Filters that are refused: the codes, and what stands at the first one's span.
const REFUSED: &[(&str, &[&str], &str)] = &[
    ("usrname: alice", &["KA-Q003"], "usrname"),
    ("verb:", &["KA-Q004"], ":"),
    ("verb: and code: 1", &["KA-Q004"], ":"),
    ("verb: not get", &["KA-Q004"], ":"),
    ("code = (400 or 401)", &["KA-Q004"], "="),
    ("(verb: get", &["KA-Q005"], "("),
    ("verb: (get or list", &["KA-Q005"], "("),
    ("code: [400 TO 499", &["KA-Q005"], "["),
    ("responseStatus.code => 400", &["KA-Q006"], "=>"),
    ("responseStatus.code: 400 401", &["KA-Q007"], "401"),
    ("responseStatus.code: 400 401 404", &["KA-Q007"], "401"),
    ("alice verb: get", &["KA-Q007"], "alice"),
    ("verb: get )", &["KA-Q008"], ")"),
    ("verb: get, list", &["KA-Q008"], ","),
    ("-rf", &["KA-Q008"], "-rf"),
    ("user: \"alice", &["KA-Q009"], "\"alice"),
    ("code: forbidden", &["KA-Q010"], "forbidden"),
    ("code: 4xx", &["KA-Q010"], "4xx"),
    ("bulk: yes", &["KA-Q010"], "yes"),
    ("latency > 5", &["KA-Q010"], "5"),
    ("time > yesterday", &["KA-Q010"], "yesterday"),
    ("verb > get", &["KA-Q011"], "verb > get"),
    ("code ~ \"4..\"", &["KA-Q011"], "code ~ \"4..\""),
    ("verb ~ \"(get\"", &["KA-Q012"], "\"(get\""),
    ("verb ~ \"a{9999}{9999}\"", &["KA-Q012"], "\"a{9999}{9999}\""),
    ("stage: Complete", &["KA-Q013"], "Complete"),
    ("verb = delete*", &["KA-Q014"], "delete*"),
    ("verb in (get, de*)", &["KA-Q014"], "de*"),
    ("verb: get and", &["KA-Q015"], "d"),
    ("not", &["KA-Q015"], "t"),
    ("()", &["KA-Q015"], ")"),
    ("or verb: get", &["KA-Q015"], "o"),
    ("user: \"a\\x\"", &["KA-Q016"], "\\x"),
    ("sourceIPs: 10.0.0.0/40", &["KA-Q017"], "10.0.0.0/40"),
    ("sourceIPs = 10.0.0.0/8", &["KA-Q017"], "10.0.0.0/8"),
    ("verb in ()", &["KA-Q018"], "()"),
    ("code: [500 TO 400]", &["KA-Q019"], "[500 TO 400]"),
    ("\"verb\": get", &["KA-Q020"], "\"verb\""),
    ("annotations: forbid", &["KA-Q021"], "annotations"),
    ("objectRef: x", &["KA-Q021"], "objectRef"),
    ("verb.beginsWith(\"get\")", &["KA-Q022"], "beginsWith"),
    ("req.spec.containers[0].image: x", &["KA-Q023"], "[0]"),
    ("req.spec.containers.0.image: x", &["KA-Q023"], ".0"),
    (
        "foo: 1 and bar: 2 and code: x",
        &["KA-Q003", "KA-Q003", "KA-Q010"],
        "foo",
    ),
    (
        "code: x or (usrname: y and stage: z",
        &["KA-Q010", "KA-Q005", "KA-Q003", "KA-Q013"],
        "x",
    ),
];

#[test]
fn every_mistake_is_told_at_once_where_it_stands() {
    for (filter, codes, at) in REFUSED {
        let errors = errors(filter);
        let found: Vec<_> = errors.iter().map(|error| error.code).collect();
        assert_eq!(&found, codes, "{filter}: {errors:#?}");
        assert_eq!(&&filter[errors[0].span.clone()], at, "{filter}");
    }
}

#[test]
fn a_fix_puts_it_right() {
    for (filter, fixed) in [
        ("usrname: alice", "user.username: alice"),
        ("(verb: get", "(verb: get)"),
        ("responseStatus.code => 400", "responseStatus.code >= 400"),
        (
            "responseStatus.code: 400 401 404",
            "responseStatus.code: (400 or 401 or 404)",
        ),
        ("alice verb: get", "alice and verb: get"),
        ("user: \"alice", "user: \"alice\""),
        ("code: 4xx", "code: [400 TO 499]"),
        ("stage: complete", "stage: ResponseComplete"),
        ("\"verb\": get", "verb: get"),
        ("verb.startswith(\"get\")", "verb.startsWith(\"get\")"),
        ("req.spec.containers[0].image: x", "req.spec.containers.image: x"),
        ("verb ~ \"\\d\"", "verb ~ \"\\\\d\""),
    ] {
        let fix = errors(filter)[0].fix.clone().unwrap();
        let mut text = filter.to_owned();
        text.replace_range(fix.span, &fix.text);
        assert_eq!(text, fixed);
        assert!(Filter::parse(&text, NOW).is_ok(), "{text}");
    }
}

#[test]
fn the_bare_word_is_told_with_both_ways_out() {
    let error = &errors("responseStatus.code: 400 401")[0];
    let help = error.help.as_deref().unwrap();
    assert!(help.contains("responseStatus.code: (400 or 401)"), "{help}");
    assert!(help.contains("and \"401\""), "{help}");
}

#[test]
fn nesting_and_length_are_bounded() {
    let deep = |depth: usize| format!("{}verb: get{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Filter::parse(&deep(64), NOW).is_ok());
    assert_eq!(errors(&deep(65))[0].code, "KA-Q002");
    assert_eq!(errors(&"not ".repeat(10_000))[0].code, "KA-Q002");
    for open in [
        "verb: (",
        "(",
        "!",
        "-",
        "verb in [",
        "verb.lower(",
        "[",
        "verb: ((",
        "a.b[",
    ] {
        assert!(!errors(&open.repeat(60_000 / open.len())).is_empty());
    }
    assert_eq!(errors(&"a ".repeat(40_000))[0].code, "KA-Q001");
    assert_eq!(errors(&"verb ~ a ".repeat(51))[0].code, "KA-Q012");
    assert!(errors(&") ".repeat(10_000)).len() <= 100);
}

#[test]
fn completion_offers_what_may_stand_there() {
    let offered = |text: &str| {
        let found = complete(text, text.len());
        let items: Vec<String> = found.items.into_iter().map(|item| item.text).collect();
        (text[found.replaces].to_owned(), items)
    };
    assert!(offered("").1.iter().any(|item| item == "stageTimestamp"));
    assert_eq!(
        offered("objectRef.na"),
        (
            "objectRef.na".to_owned(),
            vec!["objectRef.namespace".to_owned(), "objectRef.name".to_owned()]
        )
    );
    assert!(
        offered("verb: get and us")
            .1
            .contains(&"user.username".to_owned())
    );
    assert_eq!(offered("stage: Resp").1, ["ResponseStarted", "ResponseComplete"]);
    assert_eq!(offered("verb: (get or del").1, ["delete", "deletecollection"]);
    assert!(offered("verb").1.contains(&":".to_owned()));
    assert!(offered("verb ").1.contains(&"in (".to_owned()));
    assert!(offered("verb: get ").1.contains(&"and".to_owned()));
    assert!(offered("(verb: get ").1.contains(&")".to_owned()));
    assert!(offered("code: [400 ").1.contains(&"TO".to_owned()));
    assert!(offered("actorKind: ").1.contains(&"serviceaccount".to_owned()));
    assert_eq!(
        complete("ns: ", 4).value_of.as_deref(),
        Some("objectRef.namespace")
    );
    let begun = complete("user: ali", 9);
    assert_eq!(
        (begun.value_of.as_deref(), &begun.replaces, begun.items.len()),
        (Some("user.username"), &(6..9), 0),
        "who knows the values goes on"
    );
    assert_eq!(offered("annotat").1, ["annotations.\""]);
}

#[test]
fn columns_are_those_that_are_looked_at() {
    let filter = Filter::parse("verb: get or code: 1 or not verb: list or free", NOW).unwrap();
    assert_eq!(filter.columns(), [Column::Verb, Column::ResponseCode]);
    assert_eq!(COLUMNS.len(), 48);
}

#[test]
fn trees_made_by_hand_disregard_case_and_are_false_of_what_is_absent() {
    let event = DecodedEvent::parse(Bytes::from_static(EVENT.as_bytes())).unwrap();
    let row = Row::of(event.view());
    let holds = |column: Column, op: Op| Filter::new(Expr::test(column, Case::Insensitive, op)).matches(&row);
    let text = |text: &str| Literal::Text(text.to_owned());
    assert!(holds(Column::UserUsername, Op::Equals(text("ALICE"))));
    assert!(holds(
        Column::UserAgent,
        Op::Wildcard(Pattern::parse("KUBECTL/*(Linux*"))
    ));
    assert!(holds(
        Column::ResponseReason,
        Op::EqualsAny(vec![text("x"), text("FORBIDDEN")])
    ));
    assert!(!holds(Column::ImpersonatedUsername, Op::Equals(text(""))));
    assert!(!holds(
        Column::ImpersonatedUsername,
        Op::Wildcard(Pattern::parse("*"))
    ));
    let suggested = Filter::parse("user: ALICE and code: 403", NOW)
        .unwrap()
        .disregarding_case();
    assert!(suggested.matches(&row));
    assert_eq!(
        suggested.to_string(),
        "user.username.lower(): alice and responseStatus.code: 403"
    );
}
