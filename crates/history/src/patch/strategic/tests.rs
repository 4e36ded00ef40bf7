//! Lists by key, directives, and their errors.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const PODS: Resource<'_> = Resource {
    group: "",
    resource: "pods",
};
const DEPLOYMENTS: Resource<'_> = Resource {
    group: "apps",
    resource: "deployments",
};

#[track_caller]
fn patched(resource: Resource<'_>, current: &Value, by: &Value) -> Value {
    patch(resource, current, by).unwrap()
}

fn pod(spec: &Value) -> Value {
    json!({"spec": spec})
}

#[track_caller]
fn spec(current: &Value, by: &Value) -> Value {
    patched(PODS, &pod(current), &pod(by))["spec"].clone()
}

#[test]
fn each_list_merges_by_its_own_key() {
    let cases = [
        (
            PODS,
            "/spec/containers",
            json!([{"name": "a", "image": "1"}, {"name": "b"}]),
            json!([{"name": "a", "image": "2"}]),
            json!([{"name": "a", "image": "2"}, {"name": "b"}]),
        ),
        (
            PODS,
            "/spec/hostAliases",
            json!([{"ip": "1", "hostnames": ["x"]}]),
            json!([{"ip": "1", "hostnames": ["y"]}]),
            json!([{"ip": "1", "hostnames": ["y"]}]),
        ),
        (
            PODS,
            "/spec/tolerations",
            json!([{"key": "a"}]),
            json!([{"key": "b"}]),
            json!([{"key": "b"}]),
        ),
        (
            PODS,
            "/spec/topologySpreadConstraints",
            json!([{"topologyKey": "zone", "maxSkew": 1}]),
            json!([{"topologyKey": "zone", "maxSkew": 2}]),
            json!([{"topologyKey": "zone", "maxSkew": 2}]),
        ),
        (
            PODS,
            "/spec/imagePullSecrets",
            json!([{"name": "a"}]),
            json!([{"name": "b"}]),
            json!([{"name": "b"}, {"name": "a"}]),
        ),
        (
            PODS,
            "/status/conditions",
            json!([{"type": "Ready", "status": "False"}, {"type": "Other"}]),
            json!([{"type": "Ready", "status": "True"}]),
            json!([{"type": "Ready", "status": "True"}, {"type": "Other"}]),
        ),
        (
            PODS,
            "/metadata/finalizers",
            json!(["a"]),
            json!(["b", "a"]),
            json!(["b", "a"]),
        ),
        (
            PODS,
            "/metadata/ownerReferences",
            json!([{"uid": "1", "name": "a"}]),
            json!([{"uid": "1", "name": "b"}, {"uid": "2"}]),
            json!([{"uid": "1", "name": "b"}, {"uid": "2"}]),
        ),
        (
            Resource {
                group: "",
                resource: "services",
            },
            "/spec/ports",
            json!([{"port": 80, "name": "a"}]),
            json!([{"port": 443}]),
            json!([{"port": 443}, {"port": 80, "name": "a"}]),
        ),
        (
            Resource {
                group: "",
                resource: "serviceaccounts",
            },
            "/secrets",
            json!([{"name": "a"}, {"name": "b"}]),
            json!([{"name": "b", "$patch": "delete"}]),
            json!([{"name": "a"}]),
        ),
        (
            DEPLOYMENTS,
            "/spec/template/spec/volumes",
            json!([{"name": "a", "emptyDir": {}}]),
            json!([{"name": "b", "emptyDir": {}}]),
            json!([{"name": "b", "emptyDir": {}}, {"name": "a", "emptyDir": {}}]),
        ),
        (
            Resource {
                group: "batch",
                resource: "cronjobs",
            },
            "/spec/jobTemplate/spec/template/spec/containers",
            json!([{"name": "a", "image": "1"}]),
            json!([{"name": "a", "args": ["x"]}]),
            json!([{"name": "a", "image": "1", "args": ["x"]}]),
        ),
        (
            Resource {
                group: "example.com",
                resource: "widgets",
            },
            "/spec/containers",
            json!([{"name": "a"}, {"name": "b"}]),
            json!([{"name": "a"}]),
            json!([{"name": "a"}]),
        ),
    ];
    let at = |pointer: &str, value: &Value| {
        pointer
            .rsplit('/')
            .filter(|part| !part.is_empty())
            .fold(value.clone(), |inner, part| json!({part: inner}))
    };
    for (resource, pointer, before, by, expected) in cases {
        let after = patched(resource, &at(pointer, &before), &at(pointer, &by));
        assert_eq!(after.pointer(pointer), Some(&expected), "{resource:?} {pointer}");
    }
}

#[test]
fn a_containers_lists_merge_by_their_keys() {
    let before = json!({"containers": [{
        "name": "c", "image": "1", "args": ["a"],
        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
        "ports": [{"containerPort": 80}],
        "volumeMounts": [{"mountPath": "/a", "name": "v"}],
    }]});
    let by = json!({"containers": [{
        "name": "c", "args": ["b"],
        "env": [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}],
        "ports": [{"containerPort": 80, "name": "http"}],
        "volumeMounts": [{"mountPath": "/a", "readOnly": true}],
    }]});
    let after = spec(&before, &by);
    assert_eq!(
        after["containers"][0],
        json!({
            "name": "c", "image": "1", "args": ["b"],
            "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "3"}, {"name": "C", "value": "4"}],
            "ports": [{"containerPort": 80, "name": "http"}],
            "volumeMounts": [{"mountPath": "/a", "name": "v", "readOnly": true}],
        })
    );
}

#[test]
fn null_removes_a_field_and_is_never_stored() {
    let after = spec(
        &json!({"nodeName": "n", "hostname": "h"}),
        &json!({"nodeName": null, "gone": null, "securityContext": {"runAsUser": null, "runAsGroup": 1}}),
    );
    assert_eq!(
        after,
        json!({"hostname": "h", "securityContext": {"runAsGroup": 1}})
    );
}

#[test]
fn an_object_is_replaced_or_emptied_by_its_directive() {
    let before = json!({"securityContext": {"a": 1, "b": 2}});
    assert_eq!(
        spec(
            &before,
            &json!({"securityContext": {"$patch": "replace", "c": 3}})
        ),
        json!({"securityContext": {"c": 3}})
    );
    assert_eq!(
        spec(&before, &json!({"securityContext": {"$patch": "delete"}})),
        json!({"securityContext": {}})
    );
}

#[test]
fn a_list_is_replaced_or_loses_items_by_directive() {
    let before = json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "c"}]});
    assert_eq!(
        spec(
            &before,
            &json!({"containers": [{"name": "b", "$patch": "delete"}, {"name": "d"}]})
        ),
        json!({"containers": [{"name": "d"}, {"name": "a"}, {"name": "c"}]})
    );
    assert_eq!(
        spec(
            &before,
            &json!({"containers": [{"name": "z"}, {"$patch": "replace"}]})
        ),
        json!({"containers": [{"name": "z"}]})
    );
}

#[test]
fn scalars_are_deleted_from_a_list_by_directive() {
    let before = json!({"metadata": {"finalizers": ["a", "b", "c"]}});
    let after = patched(
        PODS,
        &before,
        &json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b", "x"]}}),
    );
    assert_eq!(after["metadata"]["finalizers"], json!(["a", "c"]));
    let none = patched(
        PODS,
        &json!({}),
        &json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"]}}),
    );
    assert_eq!(none, json!({"metadata": {}}));
}

#[test]
fn a_list_is_ordered_by_directive_with_the_servers_own_items_in_place() {
    let before = json!({"containers": [{"name": "a"}, {"name": "server"}, {"name": "b"}]});
    let after = spec(
        &before,
        &json!({
            "$setElementOrder/containers": [{"name": "b"}, {"name": "new"}, {"name": "a"}],
            "containers": [{"name": "new"}, {"name": "b", "image": "2"}],
        }),
    );
    assert_eq!(
        after["containers"],
        json!([{"name": "server"}, {"name": "b", "image": "2"}, {"name": "new"}, {"name": "a"}])
    );
    let sorted = spec(
        &before,
        &json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}),
    );
    assert_eq!(
        sorted["containers"],
        json!([{"name": "server"}, {"name": "b"}, {"name": "a"}])
    );
}

#[test]
fn only_retained_keys_stay() {
    let before = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let after = patched(
        DEPLOYMENTS,
        &before,
        &json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
    );
    assert_eq!(after, json!({"spec": {"strategy": {"type": "Recreate"}}}));
    let volumes = spec(
        &json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
        &json!({"volumes": [{"$retainKeys": ["name", "secret"], "name": "v", "secret": {"secretName": "s"}}]}),
    );
    assert_eq!(
        volumes,
        json!({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]})
    );
}

#[test]
fn a_patch_of_kubectl_apply_leaves_no_directive_behind() {
    let by = json!({
        "metadata": {"$setElementOrder/finalizers": ["a"], "finalizers": ["a"]},
        "spec": {"template": {"spec": {
            "$setElementOrder/containers": [{"name": "c"}],
            "containers": [{"name": "c", "image": "i", "$setElementOrder/env": [{"name": "A"}], "env": [{"name": "A"}]}],
            "volumes": [{"$retainKeys": ["name"], "name": "v"}],
        }}},
    });
    let after = patched(DEPLOYMENTS, &json!({}), &by);
    assert!(!after.to_string().contains('$'), "{after}");
    assert_eq!(
        after["spec"]["template"]["spec"]["volumes"],
        json!([{"name": "v"}])
    );
}

#[test]
fn what_makes_no_sense_is_refused_with_upstreams_texts() {
    let before = pod(&json!({"containers": [{"name": "a"}], "securityContext": {}}));
    let cases = [
        (json!(1), "invalid JSON document"),
        (
            pod(&json!({"containers": [{"image": "i"}]})),
            "map: map[image:i] does not contain declared merge key: name",
        ),
        (
            pod(&json!({"containers": [{"name": "a", "$patch": "add"}]})),
            "unknown patch type: add in map: map[$patch:add name:a]",
        ),
        (
            pod(&json!({"securityContext": {"$patch": "merge", "s": 1}})),
            "unknown patch type: merge in map: map[$patch:merge s:1]",
        ),
        (
            pod(&json!({"containers": [{"name": "a", "$patch": "merge"}]})),
            "merging lists cannot yet be specified in the patch",
        ),
        (
            pod(&json!({"containers": [[]]})),
            "lists of lists are not supported",
        ),
        (
            pod(&json!({"containers": ["a"]})),
            "list element types are not identical",
        ),
        (
            pod(&json!({"securityContext": {"$retainKeys": "a"}})),
            "invalid patch format of retainKeys",
        ),
        (
            pod(&json!({"securityContext": {"$retainKeys": ["a"], "b": 1}})),
            "patch format is not consistent with retainKeys",
        ),
        (
            pod(&json!({"$setElementOrder/containers": "a"})),
            "invalid patch format of setElementOrder list",
        ),
    ];
    for (by, expected) in cases {
        assert_eq!(
            patch(PODS, &before, &by).unwrap_err().to_string(),
            expected,
            "{by}"
        );
    }
}

fn containers() -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[a-e]", "[1-3]", 0..5).prop_map(|items| {
        let items: Vec<Value> = items
            .into_iter()
            .map(|(name, image)| json!({"name": name, "image": image}))
            .collect();
        json!({"containers": items})
    })
}

proptest! {
    #[test]
    fn merging_a_list_twice_is_merging_it_once(before in containers(), by in containers()) {
        let once = spec(&before, &by);
        prop_assert_eq!(spec(&once, &by), once);
    }

    #[test]
    fn a_merged_list_has_each_name_once_and_loses_none(before in containers(), by in containers()) {
        let names = |spec: &Value| -> Vec<String> {
            let items = spec["containers"].as_array().unwrap();
            items.iter().map(|item| item["name"].to_string()).collect()
        };
        let mut after = names(&spec(&before, &by));
        after.sort();
        let mut expected = [names(&before), names(&by)].concat();
        expected.sort();
        expected.dedup();
        prop_assert_eq!(after, expected);
    }
}
