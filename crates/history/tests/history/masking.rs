use std::borrow::Cow;

use kaudit_history::patch::Resource;
use kaudit_history::{Blame, Mask, Noise, Reveal, diff};
use serde_json::{Value, json};

use super::{Said, Told};

const SECRETS: Resource<'_> = Resource {
    group: "",
    resource: "secrets",
};
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

fn masks() -> Mask {
    Mask::keyed([7; 32], Reveal::No)
}

fn secret(version: u64, password: &str) -> Value {
    json!({"kind": "Secret", "apiVersion": "v1",
        "metadata": {"name": "a", "namespace": "n", "resourceVersion": version.to_string(),
            "annotations": {LAST_APPLIED: format!("{{\"data\":\"{password}\"}}"), "note": "plain"}},
        "data": {"password": password, "user": "cm9vdA=="}, "type": "Opaque"})
}

#[test]
fn no_form_of_a_secret_shows_its_values() {
    let inner = || secret(1, "c2VjcmV0");
    for (name, body) in [
        ("object", inner()),
        ("list", json!({"kind": "SecretList", "items": [inner()]})),
        (
            "table",
            json!({"kind": "Table", "rows": [{"cells": ["a"], "object": inner()}]}),
        ),
        ("merge patch", json!({"data": {"password": "c2VjcmV0"}})),
        (
            "string data",
            json!({"stringData": {"password": ["c2VjcmV0", {"x": "c2VjcmV0"}]}}),
        ),
        (
            "json patch",
            json!([{"op": "add", "path": "/data/password", "value": "c2VjcmV0"}]),
        ),
        (
            "json patch above",
            json!([{"op": "replace", "path": "", "value": inner()}]),
        ),
        (
            "json patch of data",
            json!([{"op": "test", "path": "/data", "value": {"p": "c2VjcmV0"}}]),
        ),
        (
            "bad json patch",
            json!([{"op": "test", "path": "data", "value": {"p": "c2VjcmV0"}}]),
        ),
        (
            "json patch of the annotation",
            json!([{"op": "add", "path": "/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration", "value": "c2VjcmV0"}]),
        ),
        (
            "error",
            json!({"kind": "Status", "status": "Failure", "reason": "Invalid", "message": "data: \"c2VjcmV0\"",
                "details": {"causes": [{"message": "Invalid value: c2VjcmV0"}]}}),
        ),
        (
            "another encoding",
            json!({"kind": "Secret", "apiVersion": "v1", "raw": "c2VjcmV0"}),
        ),
        (
            "another kind",
            json!({"kind": "TokenReview", "data": {"p": "c2VjcmV0"}}),
        ),
    ] {
        let shown = masks()
            .body(SECRETS, "", body.to_string().as_bytes())
            .into_owned();
        let shown = String::from_utf8(shown).unwrap();
        assert!(!shown.contains("c2VjcmV0"), "{name}: {shown}");
        assert!(
            shown.contains("(masked: 1-16 bytes") || shown.contains("(masked: 17-64"),
            "{name}: {shown}"
        );
    }
    // By its kind alone, whatever the request was about.
    let other = Resource {
        group: "",
        resource: "configmaps",
    };
    for body in [inner(), json!({"kind": "List", "items": [inner()]})] {
        let shown = masks().body(other, "", body.to_string().as_bytes()).into_owned();
        assert!(!String::from_utf8(shown).unwrap().contains("c2VjcmV0"));
    }
}

#[test]
fn tokens_and_requests_for_certificates_are_masked() {
    for (group, resource, subresource, body) in [
        (
            "",
            "serviceaccounts",
            "token",
            json!({"kind": "TokenRequest", "status": {"token": "eyJ.x"}}),
        ),
        (
            "authentication.k8s.io",
            "tokenreviews",
            "",
            json!({"spec": {"token": "eyJ.x"}}),
        ),
        (
            "certificates.k8s.io",
            "certificatesigningrequests",
            "",
            json!({"spec": {"request": "eyJ.x"}}),
        ),
    ] {
        let shown = masks()
            .body(
                Resource { group, resource },
                subresource,
                body.to_string().as_bytes(),
            )
            .into_owned();
        assert!(!String::from_utf8(shown).unwrap().contains("eyJ.x"), "{resource}");
    }
}

#[test]
fn order_stays_and_what_is_not_secret_is_left_alone() {
    let body = br#"{"z":1,"type":"Opaque","data":{"b":"eA==","a":"eQ=="},"a":"c2VjcmV0"}"#;
    let shown = Mask::without_key(Reveal::No).body(SECRETS, "", body).into_owned();
    assert_eq!(
        String::from_utf8(shown).unwrap(),
        r#"{"z":1,"type":"Opaque","data":{"b":"(masked: 1-16 bytes)","a":"(masked: 1-16 bytes)"},"a":"c2VjcmV0"}"#
    );
    let plain = Resource {
        group: "",
        resource: "configmaps",
    };
    let text = br#"{"data" : {"k":"v"}}"#;
    assert!(matches!(masks().body(plain, "", text), Cow::Borrowed(same) if same == text));
    let revealing = Mask::keyed([7; 32], Reveal::Yes);
    assert!(matches!(revealing.body(SECRETS, "", body), Cow::Borrowed(same) if same == body));
}

#[test]
fn what_is_masked_stays_as_it_is_with_any_key() {
    let body = json!({"data": {"a": "eA==", "long": "x".repeat(2000), "none": ""}, "stringData": {
        "near": "(masked: 1-16 bytes, 0123456)", "nearer": "(masked: 1-16 bytes) ", "nearest": "(masked: 2 bytes)"}});
    for first in [Mask::without_key(Reveal::No), masks()] {
        let once = first.body(SECRETS, "", body.to_string().as_bytes()).into_owned();
        let text = String::from_utf8(once.clone()).unwrap();
        assert!(!text.contains("near\":\"(masked: 1-16 bytes, 0123456)"), "{text}");
        for second in [
            Mask::without_key(Reveal::No),
            masks(),
            Mask::keyed([8; 32], Reveal::No),
        ] {
            assert_eq!(second.body(SECRETS, "", &once), once);
        }
        assert_eq!(text.matches("(masked: ").count(), 6, "{text}");
        assert!(!text.contains("2 bytes"), "{text}");
    }
}

#[test]
fn what_cannot_be_read_is_masked_as_a_whole() {
    let deep = format!("{{\"data\":{}1{}}}", "[".repeat(500), "]".repeat(500));
    for body in [&b"{\"data\":{\"p\":\"c2Vj"[..], deep.as_bytes()] {
        let shown = masks().body(SECRETS, "", body).into_owned();
        assert!(String::from_utf8(shown).unwrap().ends_with("could not be read\""));
    }
    let twice = br#"{"data":{"p":"c2VjcmV0"},"data":null}"#;
    assert!(
        !String::from_utf8(masks().body(SECRETS, "", twice).into_owned())
            .unwrap()
            .contains("c2VjcmV0")
    );
}

#[test]
fn equal_values_look_equal_under_one_key_only() {
    let (one, other) = (masks(), Mask::keyed([8; 32], Reveal::No));
    let value = json!("c2VjcmV0");
    assert_eq!(one.text(&value), masks().text(&value));
    assert_ne!(one.text(&value), other.text(&value));
    assert_ne!(one.text(&value), one.text(&json!("c2VjcmV1")));
}

#[test]
fn a_changed_secret_shows_as_changed_in_diff_and_blame() {
    for mask in [masks(), Mask::without_key(Reveal::No)] {
        let mut told = Told::about("", "secrets");
        told.say(Said::new("create").response(secret(1, "c2VjcmV0")));
        told.say(Said::new("update").response(secret(2, "c2VjcmV1")));
        let versions: Vec<_> = told
            .history
            .versions()
            .map(|version| version.object.clone().unwrap())
            .collect();
        let changed = diff(&versions[0], &versions[1], Noise::Shown).masked(&mask, SECRETS, &versions[1]);
        let text = format!("{changed:?}");
        assert!(!text.contains("c2Vj"), "{text}");
        assert!(
            changed
                .changes
                .iter()
                .any(|change| change.path.to_string() == "data.password")
        );
        let added =
            diff(&json!({"kind": "Secret"}), &versions[1], Noise::Shown).masked(&mask, SECRETS, &versions[1]);
        assert!(!format!("{added:?}").contains("c2Vj"));

        let blame = Blame::of(&told.history, 1).unwrap();
        let lines = blame.lines(None, Noise::Shown, &mask, SECRETS);
        assert!(!format!("{lines:?}").contains("c2Vj"), "{lines:?}");
        let line = lines
            .iter()
            .find(|line| line.text.starts_with("password"))
            .unwrap();
        assert!(line.was.as_ref().unwrap().ends_with("changed"));
        let shown = blame.lines(None, Noise::Shown, &Mask::without_key(Reveal::Yes), SECRETS);
        assert!(format!("{shown:?}").contains("c2VjcmV1"));
    }
}
