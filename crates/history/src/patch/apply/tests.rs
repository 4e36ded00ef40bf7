//! Owners of fields over several applies.

use super::*;

const DEPLOYMENTS: Resource<'_> = Resource {
    group: "apps",
    resource: "deployments",
};

fn manager(name: &str) -> Manager<'_> {
    Manager {
        name,
        api_version: "apps/v1",
        subresource: "",
        time: "2026-01-01T00:00:00Z",
    }
}

#[track_caller]
fn applied(current: Option<&Value>, document: &Value, by: &str) -> Value {
    apply(DEPLOYMENTS, current, document, manager(by)).unwrap()
}

fn without_entries(object: &Value) -> Value {
    let mut out = object.clone();
    if let Some(Value::Object(metadata)) = out.get_mut("metadata") {
        metadata.shift_remove("managedFields");
    }
    out
}

fn containers(containers: &Value) -> Value {
    json!({"metadata": {"name": "web"}, "spec": {"template": {"spec": {"containers": containers}}}})
}

#[test]
fn what_a_manager_no_longer_applies_goes_away() {
    let first = applied(
        None,
        &json!({"metadata": {"name": "web", "labels": {"a": "1", "b": "2"}}, "spec": {"replicas": 2, "paused": true}}),
        "ann",
    );
    let second = applied(
        Some(&first),
        &json!({"metadata": {"name": "web", "labels": {"a": "1"}}, "spec": {"replicas": 3}}),
        "ann",
    );
    assert_eq!(
        without_entries(&second),
        json!({"metadata": {"name": "web", "labels": {"a": "1"}}, "spec": {"replicas": 3}})
    );
    let third = applied(Some(&second), &json!({"metadata": {"name": "web"}}), "ann");
    assert_eq!(without_entries(&third), json!({"metadata": {"name": "web"}}));
}

#[test]
fn what_another_manager_applies_too_stays() {
    let document = json!({"metadata": {"name": "web"}, "spec": {"replicas": 2}});
    let first = applied(None, &document, "ann");
    let both = applied(Some(&first), &document, "bob");
    assert_eq!(both["metadata"]["managedFields"].as_array().unwrap().len(), 2);
    let after = applied(Some(&both), &json!({"metadata": {"name": "web"}}), "ann");
    assert_eq!(after["spec"]["replicas"], 2);
    let last = applied(Some(&after), &json!({"metadata": {"name": "web"}}), "bob");
    assert!(last.get("spec").is_none(), "{last}");
}

#[test]
fn items_of_a_list_have_their_own_owners() {
    let first = applied(
        None,
        &containers(&json!([{"name": "a", "image": "1"}, {"name": "b"}])),
        "ann",
    );
    let second = applied(
        Some(&first),
        &containers(&json!([{"name": "side", "image": "s"}])),
        "bob",
    );
    let third = applied(
        Some(&second),
        &containers(&json!([{"name": "a", "image": "2", "ports": [{"containerPort": 80}]}])),
        "ann",
    );
    assert_eq!(
        third.pointer("/spec/template/spec/containers"),
        Some(&json!([
            {"name": "a", "image": "2", "ports": [{"containerPort": 80}]},
            {"name": "side", "image": "s"},
        ]))
    );
    let entry = &third["metadata"]["managedFields"][1];
    assert_eq!(entry["manager"], "ann");
    assert_eq!(
        entry["fieldsV1"],
        json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {
            "k:{\"name\":\"a\"}": {
                ".": {}, "f:name": {}, "f:image": {},
                "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
            },
        }}}}})
    );
}

#[test]
fn an_owner_of_a_whole_list_owns_its_items() {
    let mut object = applied(None, &containers(&json!([{"name": "a", "image": "1"}])), "ann");
    let update = json!({
        "manager": "old", "operation": "Update", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {"f:template": {"f:spec": {"f:containers": {}}}}},
    });
    object["metadata"]["managedFields"]
        .as_array_mut()
        .unwrap()
        .push(update);
    let after = applied(Some(&object), &json!({"metadata": {"name": "web"}}), "ann");
    assert_eq!(
        after.pointer("/spec/template/spec/containers"),
        Some(&json!([{"name": "a", "image": "1"}]))
    );
}

#[test]
fn sets_and_selectors_are_owned_as_upstream_owns_them() {
    let document = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "finalizers": ["x"]},
        "spec": {"selector": {"matchLabels": {"a": "b"}}},
    });
    assert_eq!(
        fields_v1(DEPLOYMENTS, &document),
        json!({"f:metadata": {"f:finalizers": {"v:\"x\"": {}}}, "f:spec": {"f:selector": {}}})
    );
    let first = applied(None, &document, "ann");
    let second = applied(
        Some(&first),
        &json!({"metadata": {"name": "web", "finalizers": ["y"]}, "spec": {"selector": {"matchLabels": {"c": "d"}}}}),
        "ann",
    );
    assert_eq!(second["metadata"]["finalizers"], json!(["y"]));
    assert_eq!(second["spec"]["selector"], json!({"matchLabels": {"c": "d"}}));
}

#[test]
fn applying_the_same_again_changes_nothing() {
    let document = containers(&json!([{"name": "a", "image": "1"}]));
    let first = applied(None, &document, "ann");
    let later = Manager {
        time: "2027-01-01T00:00:00Z",
        ..manager("ann")
    };
    assert_eq!(apply(DEPLOYMENTS, Some(&first), &document, later).unwrap(), first);
}

#[test]
fn a_document_with_managed_fields_or_no_object_is_refused() {
    let with = json!({"metadata": {"managedFields": [{}]}});
    let error = apply(DEPLOYMENTS, None, &with, manager("ann")).unwrap_err();
    assert_eq!(error.to_string(), "metadata.managedFields must be nil");
    assert!(apply(DEPLOYMENTS, None, &json!([]), manager("ann")).is_err());
    let mut deep = json!({});
    for _ in 0..300 {
        deep = json!({"a": deep});
    }
    assert!(matches!(
        apply(DEPLOYMENTS, None, &deep, manager("ann")),
        Err(PatchError::TooLarge(_))
    ));
}
