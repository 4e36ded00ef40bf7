use kaudit_history::{Effect, Exactness, History, Limits, Taken, Target};
use serde_json::{Value, json};

use super::{Said, Told, config_map, sent};

const STRATEGIC: &str = "?fieldManager=kubectl-patch";

fn deployment(containers: Value) -> Value {
    json!({"kind": "Deployment", "apiVersion": "apps/v1",
        "metadata": {"name": "a", "namespace": "n", "generation": 1, "uid": "u-1", "resourceVersion": "10"},
        "spec": {"replicas": 2, "template": {"spec": {"containers": containers}}},
        "status": {"replicas": 2}})
}

/// A deployment that is known, and then one request of which only the body was recorded.
fn after(said: Said) -> Told {
    let mut told = Told::about("apps", "deployments");
    let object = deployment(json!([{"name": "x", "image": "x:1"}, {"name": "y", "image": "y:1"}]));
    told.say(Said::new("create").response(object));
    assert_eq!(told.say(said), Taken::Version);
    told
}

#[test]
fn each_kind_of_request_is_applied_to_the_version_before() {
    let image = "/spec/template/spec/containers/0/image";
    for (name, said, pointer, expected) in [
        (
            "json patch",
            Said::new("patch").request(json!([{"op": "replace", "path": image, "value": "x:2"}])),
            image,
            json!("x:2"),
        ),
        (
            "strategic merge patch",
            Said::new("patch").request(json!({"spec": {"template": {"spec": {
                "$setElementOrder/containers": [{"name": "x"}, {"name": "y"}],
                "containers": [{"name": "x", "image": "x:2"}]}}}})),
            "/spec/template/spec/containers",
            json!([{"name": "x", "image": "x:2"}, {"name": "y", "image": "y:1"}]),
        ),
        (
            "merge patch",
            Said::new("patch").request(json!({"spec": {"replicas": null, "paused": true}})),
            "/spec/paused",
            json!(true),
        ),
        (
            "apply",
            Said {
                query: "?fieldManager=m&force=true",
                ..Said::new("patch").request(json!({"kind": "Deployment", "apiVersion": "apps/v1",
                    "metadata": {"name": "a"}, "spec": {"replicas": 7}}))
            },
            "/spec/replicas",
            json!(7),
        ),
        (
            "update keeps the status",
            Said::new("update").request(json!({"kind": "Deployment", "apiVersion": "apps/v1",
                "metadata": {"name": "a"}, "spec": {"replicas": 4}, "status": {"replicas": 9}})),
            "/status/replicas",
            json!(2),
        ),
        (
            "update keeps the uid",
            Said::new("update").request(json!({"kind": "Deployment", "apiVersion": "apps/v1",
                "metadata": {"name": "a"}, "spec": {"replicas": 4}})),
            "/metadata/uid",
            json!("u-1"),
        ),
        (
            "a patch of the object leaves the status",
            Said::new("patch").request(json!({"status": {"replicas": 9}})),
            "/status/replicas",
            json!(2),
        ),
        (
            "update of the status",
            Said::new("update").of("status").request(
                json!({"kind": "Deployment", "apiVersion": "apps/v1", "spec": {}, "status": {"replicas": 9}}),
            ),
            "/status",
            json!({"replicas": 9}),
        ),
        (
            "patch of the status leaves the spec",
            Said::new("patch")
                .of("status")
                .request(json!({"spec": {"replicas": 9}, "status": {"replicas": 9}})),
            "/spec/replicas",
            json!(2),
        ),
        (
            "update of the scale",
            Said::new("update")
                .of("scale")
                .request(json!({"kind": "Scale", "spec": {"replicas": 5}})),
            "/spec/replicas",
            json!(5),
        ),
        (
            "patch of the scale",
            Said::new("patch")
                .of("scale")
                .request(json!({"spec": {"replicas": 6}})),
            "/spec/replicas",
            json!(6),
        ),
        (
            "json patch of the scale",
            Said::new("patch")
                .of("scale")
                .request(json!([{"op": "replace", "path": "/spec/replicas", "value": 8}])),
            "/spec/replicas",
            json!(8),
        ),
    ] {
        let told = after(said);
        let version = told.last();
        assert_eq!(version.exactness, Exactness::Reconstructed, "{name}");
        assert!(
            version.reason.contains("not recorded"),
            "{name}: {}",
            version.reason
        );
        assert_eq!(told.object().pointer(pointer), Some(&expected), "{name}");
    }
}

#[test]
fn a_patch_whose_kind_matters_and_is_not_told_says_what_was_supposed() {
    let told = after(Said {
        query: STRATEGIC,
        ..Said::new("patch")
            .request(json!({"spec": {"template": {"spec": {"containers": [{"name": "x", "image": "x:2"}]}}}}))
    });
    assert!(
        told.last().reason.contains("strategic merge patch"),
        "{}",
        told.last().reason
    );
    assert_eq!(
        told.object()["spec"]["template"]["spec"]["containers"],
        json!([{"name": "x", "image": "x:2"}, {"name": "y", "image": "y:1"}])
    );
}

#[test]
fn patches_of_custom_resources_are_merge_patches() {
    let mut told = Told::about("example.com", "things");
    let thing = json!({"kind": "Thing", "apiVersion": "example.com/v1", "metadata": {"name": "a", "namespace": "n"},
        "spec": {"containers": [{"name": "x"}]}});
    told.say(Said::new("create").response(thing));
    told.say(Said::new("patch").request(json!({"spec": {"containers": [{"name": "y"}]}})));
    assert_eq!(told.object()["spec"]["containers"], json!([{"name": "y"}]));
    assert!(!told.last().reason.contains("strategic"));
}

#[test]
fn an_answer_that_is_the_object_is_exact() {
    let mut told = Told::about("", "configmaps");
    told.say(
        Said::new("create")
            .request(sent(json!({"k": "1"})))
            .response(config_map(5, json!({"k": "1"}))),
    );
    let version = told.last();
    assert_eq!(
        (version.effect, version.exactness),
        (Effect::Created, Exactness::Exact)
    );
    assert_eq!(version.resource_version.as_deref(), Some("5"));
    assert_eq!(version.uid.as_deref(), Some("u-1"));
    assert_eq!(version.reason, "");
    told.say(
        Said::new("patch")
            .request(json!({"data": {"k": "2"}}))
            .response(config_map(6, json!({"k": "2"}))),
    );
    assert_eq!(
        (told.last().effect, told.last().exactness),
        (Effect::Changed, Exactness::Exact)
    );
    told.say(
        Said::new("patch")
            .request(json!({"data": {"k": "2"}}))
            .response(config_map(6, json!({"k": "2"}))),
    );
    assert_eq!(told.last().effect, Effect::Unchanged);
}

#[test]
fn answers_that_are_not_the_object_are_not_versions() {
    for answer in [
        json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "rows": [{"cells": ["a"]}]}),
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "a", "namespace": "n"}}),
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}),
        config_map(9, json!({}))
            .as_object()
            .map(|object| {
                let mut other = object.clone();
                other["metadata"]["name"] = json!("b");
                Value::Object(other)
            })
            .unwrap(),
    ] {
        let mut told = Told::about("", "configmaps");
        told.say(
            Said::new("update")
                .request(sent(json!({"k": "1"})))
                .response(answer.clone()),
        );
        assert_eq!(told.last().exactness, Exactness::Reconstructed, "{answer}");
        assert_eq!(told.object()["data"], json!({"k": "1"}));
    }
}

#[test]
fn bodies_that_were_cut_off_are_unavailable_and_say_why() {
    for (annotations, expected) in [
        (
            json!({"audit.k8s.io/truncated": "true"}),
            "cut off the event for its size",
        ),
        (
            json!({"kaudit.dev/bodies-omitted": "the event had 9 bytes"}),
            "the event had 9 bytes",
        ),
        (
            json!({"kaudit.dev/response-object-omitted": "too long", "kaudit.dev/request-object-omitted": "x"}),
            "too long",
        ),
        (
            json!({"kaudit.dev/response-object-encoding": "protobuf", "kaudit.dev/request-object-encoding": "protobuf"}),
            "recorded as protobuf",
        ),
    ] {
        let mut told = Told::about("", "configmaps");
        told.say(Said {
            annotations,
            ..Said::new("update")
                .request(sent(json!({"k": "1"})))
                .response(config_map(3, json!({"k": "1"})))
        });
        assert_eq!(told.last().exactness, Exactness::Unavailable);
        assert!(told.last().reason.contains(expected), "{}", told.last().reason);
    }
}

#[test]
fn metadata_alone_tells_that_something_changed_but_not_what() {
    let mut told = Told::about("", "configmaps");
    told.say(Said::new("create").response(config_map(1, json!({"k": "1"}))));
    told.say(Said::new("patch").user("bob"));
    assert_eq!(told.last().exactness, Exactness::Unavailable);
    assert_eq!(told.last().object, None);
    assert!(
        told.last().reason.contains("at level Metadata"),
        "{}",
        told.last().reason
    );
    // Nothing can be applied to what is not known.
    told.say(Said::new("patch").request(json!({"data": {"k": "3"}})));
    assert_eq!(told.last().exactness, Exactness::Unavailable);
    assert!(
        told.last().reason.contains("before is not known"),
        "{}",
        told.last().reason
    );
    told.say(Said::new("update").request(sent(json!({"k": "4"}))));
    assert_eq!(told.last().exactness, Exactness::Reconstructed);
}

#[test]
fn what_did_not_happen_makes_no_version() {
    let body = || sent(json!({"k": "1"}));
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "dryRun": ["All"]});
    for (said, expected) in [
        (
            Said {
                code: 409,
                ..Said::new("create").request(body())
            },
            Taken::Failed,
        ),
        (
            Said {
                code: 500,
                ..Said::new("patch").request(json!({}))
            },
            Taken::Failed,
        ),
        (
            Said {
                stage: "RequestReceived",
                ..Said::new("update")
            },
            Taken::Stage,
        ),
        (
            Said {
                stage: "ResponseStarted",
                ..Said::new("update")
            },
            Taken::Stage,
        ),
        (
            Said {
                stage: "Panic",
                ..Said::new("update")
            },
            Taken::Stage,
        ),
        (
            Said {
                query: "?dryRun=All",
                ..Said::new("update").request(body())
            },
            Taken::DryRun,
        ),
        (
            Said {
                query: "?x=1&dry%52un=Al%6c",
                ..Said::new("patch").request(json!({}))
            },
            Taken::DryRun,
        ),
        (Said::new("delete").request(options), Taken::DryRun),
        (
            Said {
                name: "b",
                ..Said::new("update").request(body())
            },
            Taken::Unrelated,
        ),
        (
            Said::new("create").of("token").request(json!({})),
            Taken::NoChange,
        ),
        (Said::new("watch"), Taken::NoChange),
        (Said::new("get"), Taken::NoChange),
    ] {
        let mut told = Told::about("", "configmaps");
        assert_eq!(told.say(said.clone()), expected, "{said:?}");
        assert_eq!(told.history.versions().len(), 0);
    }
}

#[test]
fn deletions_tell_whether_the_object_stays() {
    let success = || json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    let held = |finalizers: Value, version| {
        let mut object = config_map(version, json!({}));
        object["metadata"]["deletionTimestamp"] = json!("2026-11-25T10:00:00Z");
        object["metadata"]["finalizers"] = finalizers;
        object
    };
    let mut told = Told::about("", "configmaps");
    told.say(Said::new("create").response(config_map(1, json!({}))));
    told.say(Said::new("delete").response(success()));
    assert_eq!(
        (told.last().effect, told.last().exactness),
        (Effect::Deleted, Exactness::Exact)
    );
    told.say(Said::new("create").response(config_map(2, json!({}))));
    assert_eq!(told.last().incarnation, 1);
    told.say(Said::new("delete").response(held(json!(["f"]), 3)));
    assert_eq!(
        (told.last().effect, told.last().exactness),
        (Effect::Terminating, Exactness::Exact)
    );
    // Who takes the last finalizer away makes it go.
    told.say(
        Said::new("patch")
            .request(json!({"metadata": {"finalizers": null}}))
            .response(held(json!([]), 4)),
    );
    assert_eq!(
        (told.last().effect, told.last().incarnation),
        (Effect::Deleted, 1)
    );
    // Without an answer it is the state before that tells.
    told.say(Said::new("create").response({
        let mut object = config_map(5, json!({}));
        object["metadata"]["finalizers"] = json!(["f"]);
        object
    }));
    told.say(Said::new("delete"));
    assert_eq!(
        (told.last().effect, told.last().exactness),
        (Effect::Terminating, Exactness::Reconstructed)
    );
}

#[test]
fn a_pod_goes_when_its_node_says_so() {
    let mut told = Told::about("", "pods");
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a", "namespace": "n", "uid": "p"}, "spec": {}});
    told.say(Said::new("create").response(pod));
    told.say(Said {
        code: 201,
        ..Said::new("create")
            .of("binding")
            .request(json!({"kind": "Binding", "target": {"name": "node-1"}}))
    });
    assert_eq!(told.object()["spec"]["nodeName"], "node-1");
    told.say(Said {
        code: 201,
        ..Said::new("create")
            .of("eviction")
            .request(json!({"kind": "Eviction"}))
    });
    assert_eq!(told.last().effect, Effect::Terminating);
    told.say(Said::new("delete"));
    assert_eq!(told.last().effect, Effect::Terminating);
    told.say(Said::new("delete").user("system:node:node-1"));
    assert_eq!(
        (told.last().effect, told.last().incarnation),
        (Effect::Deleted, 0)
    );
}

#[test]
fn a_deletion_of_many_may_have_touched_it_unless_its_answer_tells() {
    let many = |query| Said {
        name: "",
        query,
        ..Said::new("deletecollection")
    };
    let list = |items: Value| json!({"kind": "ConfigMapList", "apiVersion": "v1", "items": items});
    let new = || {
        let mut told = Told::about("", "configmaps");
        told.say(Said::new("create").response(config_map(1, json!({"k": "1"}))));
        told
    };
    let mut told = new();
    told.say(many("?labelSelector=x"));
    assert_eq!(
        (told.last().effect, told.last().exactness),
        (Effect::MayHaveBeenDeleted, Exactness::Unavailable)
    );
    told.say(Said::new("patch").request(json!({"data": {"k": "2"}})));
    assert_eq!(told.object()["data"]["k"], "2", "what was known stays known");
    assert_eq!(
        new().say(many("?fieldSelector=metadata.name%3Db")),
        Taken::Unrelated
    );
    assert_eq!(new().say(many("").response(list(json!([])))), Taken::Unrelated);
    let mut told = new();
    told.say(many("").response(list(json!([config_map(1, json!({}))]))));
    assert_eq!(
        (told.last().effect, told.last().exactness),
        (Effect::Deleted, Exactness::Exact)
    );
}

#[test]
fn names_that_the_server_makes_up_stand_in_the_answer() {
    let target = Target::new("", "configmaps", "n", "job-x2v7q");
    let make = |prefix: &str, response: Option<Value>| {
        let mut told = Told {
            history: History::new(target.clone(), Limits::default()),
            count: 0,
        };
        let mut said = Said {
            name: "",
            ..Said::new("create").request(json!({"metadata": {"generateName": prefix}}))
        };
        said.response = response;
        let taken = told.say(said);
        (
            taken,
            told.history.versions().next().map(|version| version.effect),
        )
    };
    let named = |name: &str| {
        let mut object = config_map(1, json!({}));
        object["metadata"]["name"] = json!(name);
        Some(object)
    };
    assert_eq!(
        make("job-", named("job-x2v7q")),
        (Taken::Version, Some(Effect::Created))
    );
    assert_eq!(make("job-", named("job-zzzzz")), (Taken::Unrelated, None));
    assert_eq!(
        make("job-", None),
        (Taken::Version, Some(Effect::MayHaveBeenCreated))
    );
    assert_eq!(make("jo", None), (Taken::Unrelated, None));
}

#[test]
fn another_uid_is_another_object() {
    let mut told = Told::about("", "configmaps");
    told.say(Said::new("create").response(config_map(1, json!({}))));
    let mut other = config_map(9, json!({}));
    other["metadata"]["uid"] = json!("u-2");
    told.say(Said::new("patch").request(json!({})).response(other));
    assert_eq!(told.last().incarnation, 1);
    assert!(
        told.last()
            .unseen
            .as_deref()
            .unwrap()
            .contains("deleted without an event")
    );
    assert_eq!(told.history.before(1), None);
}

#[test]
fn changes_without_an_event_are_noticed() {
    // An update says which version it was written for.
    let mut told = Told::about("", "configmaps");
    told.say(Said::new("create").response(config_map(1, json!({"k": "1"}))));
    told.say(
        Said::new("update")
            .request(config_map(1, json!({"k": "2"})))
            .response(config_map(4, json!({"k": "2"}))),
    );
    assert_eq!(
        told.last().unseen,
        None,
        "versions of a cluster need not follow each other"
    );
    told.say(
        Said::new("update")
            .request(config_map(6, json!({"k": "3"})))
            .response(config_map(7, json!({"k": "3"}))),
    );
    assert!(
        told.last()
            .unseen
            .as_deref()
            .unwrap()
            .contains("written for resourceVersion 6")
    );
    // A read shows what nobody wrote.
    told.say(Said::new("get").response(config_map(7, json!({"k": "3"}))));
    assert_eq!(told.history.versions().len(), 3);
    told.say(Said::new("get").response(config_map(8, json!({"k": "4"}))));
    assert_eq!(
        (told.last().effect, told.last().exactness),
        (Effect::Observed, Exactness::Exact)
    );
    assert!(told.last().unseen.is_some());
    assert_eq!(
        told.say(Said::new("get").response(config_map(2, json!({})))),
        Taken::NoChange
    );
    // A generation counts the changes of a spec.
    let mut told = Told::about("apps", "deployments");
    let mut object = deployment(json!([]));
    told.say(Said::new("create").response(object.clone()));
    object["metadata"]["generation"] = json!(3);
    object["metadata"]["resourceVersion"] = json!("12");
    told.say(
        Said::new("patch")
            .request(json!({"spec": {"replicas": 3}}))
            .response(object),
    );
    assert!(
        told.last()
            .unseen
            .as_deref()
            .unwrap()
            .contains("generation went from 1 to 3")
    );
}

#[test]
fn a_scale_in_the_answer_tells_replicas_and_version() {
    let mut told = Told::about("apps", "deployments");
    told.say(Said::new("create").response(deployment(json!([]))));
    told.say(Said::new("patch").of("scale").response(json!({"kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {"name": "a", "namespace": "n", "resourceVersion": "15", "uid": "u-1"}, "spec": {"replicas": 9}})));
    assert_eq!(told.last().exactness, Exactness::Reconstructed);
    assert_eq!(told.last().resource_version.as_deref(), Some("15"));
    assert_eq!(told.object()["spec"]["replicas"], 9);
}

#[test]
fn limits_forget_the_oldest_and_count_them() {
    let target = Target::new("", "configmaps", "n", "a");
    let mut told = Told {
        history: History::new(
            target,
            Limits {
                versions: 3,
                ..Limits::default()
            },
        ),
        count: 0,
    };
    for version in 0..10 {
        told.say(Said::new("update").response(config_map(version, json!({"k": version.to_string()}))));
    }
    assert_eq!((told.history.versions().len(), told.history.forgotten()), (3, 7));
    assert_eq!(told.object()["data"]["k"], "9");
    let target = Target::new("", "configmaps", "n", "a");
    let mut told = Told {
        history: History::new(
            target,
            Limits {
                bytes: 1,
                ..Limits::default()
            },
        ),
        count: 0,
    };
    told.say(Said::new("create").response(config_map(1, json!({}))));
    told.say(Said::new("update").response(config_map(2, json!({}))));
    assert_eq!(
        (told.history.versions().len(), told.history.forgotten()),
        (1, 1),
        "the newest stays"
    );
}

#[test]
fn patches_cannot_make_an_object_nest_without_end() {
    let mut told = Told::about("", "configmaps");
    told.say(Said::new("create").response(config_map(1, json!({}))));
    let deep = (0..100).fold(json!({}), |inner, _| json!({"a": inner}));
    let mut path = "/data".to_owned();
    for _ in 0..3 {
        told.say(
            Said::new("patch").request(json!([{"op": "add", "path": format!("{path}/a"), "value": deep}])),
        );
        path.push_str(&"/a".repeat(101));
    }
    let exactness: Vec<_> = told.history.versions().map(|version| version.exactness).collect();
    assert_eq!(
        exactness,
        [
            Exactness::Exact,
            Exactness::Reconstructed,
            Exactness::Unavailable,
            Exactness::Unavailable
        ]
    );
    let second = told.history.get(2).unwrap();
    assert!(
        second.reason.contains("nest deeper than 127"),
        "{}",
        second.reason
    );
}
