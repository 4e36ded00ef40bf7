//! Who may what.

use super::cluster::{Cluster, has, texts};

#[test]
fn identities_are_told_apart() {
    let Some(cluster) = Cluster::start() else { return };
    has(
        &cluster.run(&["auth", "whoami"]),
        &["Username", "admin", "system:authenticated"],
    );
    has(
        &cluster.run(&["--context", "viewer", "auth", "whoami"]),
        &["viewer"],
    );
    has(
        &cluster.run(&["--context", "carla", "auth", "whoami"]),
        &["carla", "viewers", "system:authenticated", "X509SHA256="],
    );
    let token = cluster.run(&["create", "token", "default"]);
    has(
        &cluster.run(&["--token", token.trim(), "auth", "whoami"]),
        &[
            "system:serviceaccount:default:default",
            "system:serviceaccounts",
            "JTI=",
        ],
    );
    has(
        &cluster.fail(&["--as", "system:anonymous", "auth", "whoami"]),
        &["you do not have permission to call it"],
    );
    has(
        &cluster.run(&["--as", "bob", "--as-group", "ops", "auth", "whoami"]),
        &["bob", "ops"],
    );
    has(&cluster.run(&["auth", "can-i", "create", "pods"]), &["yes"]);
    has(&cluster.run(&["auth", "can-i", "get", "/healthz"]), &["yes"]);
    has(
        &cluster.fail(&["--token", "wrong", "get", "pods"]),
        &["You must be logged in to the server"],
    );
    has(
        &cluster.fail(&["create", "token", "absent"]),
        &["serviceaccounts \"absent\" not found"],
    );
}

const HOST_POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: host}\nspec:\n  hostNetwork: true\n  \
    containers: [{name: c, image: i, securityContext: {privileged: true}}]\n";

#[test]
fn a_namespace_refuses_pods_below_its_standard() {
    let Some(cluster) = Cluster::start() else { return };
    cluster.run(&["create", "namespace", "safe"]);
    let pod = cluster.file("pod.yaml", HOST_POD);
    cluster.run(&["-n", "safe", "apply", "-f", &pod]);
    has(
        &cluster.fail(&[
            "label",
            "namespace",
            "safe",
            "pod-security.kubernetes.io/enforce=bogus",
        ]),
        &[
            "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"bogus\": must be one of privileged, \
             baseline, restricted",
        ],
    );
    let output = cluster
        .command(&[
            "label",
            "namespace",
            "safe",
            "pod-security.kubernetes.io/enforce=restricted",
        ])
        .output()
        .unwrap();
    has(
        &texts(&output).1,
        &[
            "Warning: existing pods in namespace \"safe\" violate the new PodSecurity enforce level \"restricted:latest\"",
            "Warning: host: host namespaces, privileged, allowPrivilegeEscalation != false",
        ],
    );
    cluster.run(&["-n", "safe", "delete", "pod", "host"]);
    has(
        &cluster.fail(&["-n", "safe", "apply", "-f", &pod]),
        &[
            "pods \"host\" is forbidden: violates PodSecurity \"restricted:latest\": host namespaces (hostNetwork=true), \
             privileged (container \"c\" must not set securityContext.privileged=true)",
        ],
    );
    let output = cluster
        .command(&["-n", "safe", "create", "deployment", "web", "--image=nginx"])
        .output()
        .unwrap();
    has(
        &texts(&output).1,
        &[
            "Warning: would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false (container \"nginx\" \
             must set securityContext.allowPrivilegeEscalation=false)",
        ],
    );
    assert_eq!(cluster.run(&["-n", "safe", "get", "pods", "-o", "name"]), "");
    has(
        &cluster.run(&["-n", "safe", "describe", "deployment", "web"]),
        &["ReplicaFailure", "FailedCreate"],
    );
}

#[test]
fn roles_decide_who_may_what() {
    let Some(cluster) = Cluster::start() else { return };
    fn as_viewer<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
        [&["--context", "viewer"], arguments].concat()
    }
    has(
        &cluster.fail(&as_viewer(&["get", "pods"])),
        &[
            "pods is forbidden: User \"viewer\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"",
        ],
    );
    has(
        &texts(
            &cluster
                .command(&as_viewer(&["auth", "can-i", "list", "pods"]))
                .output()
                .unwrap(),
        )
        .0,
        &["no"],
    );
    has(
        &cluster.run(&[
            "create",
            "rolebinding",
            "viewers",
            "--clusterrole=view",
            "--group=viewers",
        ]),
        &["rolebinding.rbac.authorization.k8s.io/viewers created"],
    );
    cluster.run(&as_viewer(&["get", "pods"]));
    cluster.run(&["--context", "carla", "get", "pods"]);
    has(
        &cluster.run(&as_viewer(&["auth", "can-i", "list", "pods"])),
        &["yes"],
    );
    has(
        &cluster.run(&as_viewer(&["auth", "can-i", "--list"])),
        &["deployments.apps", "[get list watch]", "selfsubjectreviews"],
    );
    has(
        &cluster.fail(&as_viewer(&["get", "secrets"])),
        &["(Forbidden)", "cannot list resource \"secrets\""],
    );
    has(
        &cluster.fail(&as_viewer(&["-n", "kube-system", "get", "pods"])),
        &["in the namespace \"kube-system\""],
    );
    has(
        &cluster.run(&[
            "auth",
            "can-i",
            "list",
            "pods",
            "--as",
            "bob",
            "--as-group",
            "viewers",
        ]),
        &["yes"],
    );
    has(
        &cluster.run(&["describe", "clusterrole", "admin"]),
        &["deployments.apps", "rolebindings.rbac.authorization.k8s.io"],
    );

    cluster.run(&[
        "create",
        "role",
        "granter",
        "--verb=create,get,list,update,patch",
        "--resource=roles,rolebindings",
    ]);
    cluster.run(&[
        "create",
        "rolebinding",
        "granter",
        "--role=granter",
        "--user=nobody",
    ]);
    has(
        &cluster.fail(&[
            "--context",
            "nobody",
            "create",
            "rolebinding",
            "own",
            "--clusterrole=cluster-admin",
            "--user=nobody",
        ]),
        &[
            "rolebindings.rbac.authorization.k8s.io \"own\" is forbidden: user \"nobody\" (groups=[\"system:authenticated\"]) \
             is attempting to grant RBAC permissions not currently held:",
            "{APIGroups:[\"*\"], Resources:[\"*\"], Verbs:[\"*\"]}",
            "{NonResourceURLs:[\"*\"], Verbs:[\"*\"]}",
        ],
    );
    has(
        &cluster.fail(&[
            "--context",
            "nobody",
            "create",
            "role",
            "more",
            "--verb=get,list",
            "--resource=secrets,roles",
        ]),
        &["{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"list\"]}"],
    );
    cluster.run(&[
        "--context",
        "nobody",
        "create",
        "role",
        "less",
        "--verb=get",
        "--resource=roles",
    ]);
}

#[test]
fn kubectl_is_let_do_what_roles_allow() {
    let Some(cluster) = Cluster::start() else { return };
    fn viewer<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
        [&["--context", "viewer"], arguments].concat()
    }
    has(
        &cluster.fail(&viewer(&["get", "pods"])),
        &[
            "pods is forbidden: User \"viewer\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"",
        ],
    );
    assert_eq!(cluster.fail(&viewer(&["auth", "can-i", "list", "pods"])), "");
    cluster.run(&[
        "create",
        "clusterrolebinding",
        "viewers",
        "--clusterrole=view",
        "--group=viewers",
    ]);
    cluster.run(&viewer(&["get", "pods"]));
    has(
        &cluster.run(&viewer(&["auth", "can-i", "list", "pods"])),
        &["yes"],
    );
    has(
        &cluster.run(&viewer(&["auth", "can-i", "--list"])),
        &["pods/log", "selfsubjectreviews"],
    );
    has(
        &cluster.fail(&viewer(&["get", "secrets"])),
        &["secrets is forbidden"],
    );
    cluster.run(&[
        "create",
        "role",
        "reader",
        "--verb=get",
        "--resource=secrets",
        "--resource-name=known",
    ]);
    cluster.run(&[
        "create",
        "rolebinding",
        "reader",
        "--role=reader",
        "--user=viewer",
    ]);
    cluster.run(&["create", "secret", "generic", "known", "--from-literal=a=b"]);
    cluster.run(&viewer(&["get", "secret", "known"]));
    has(
        &cluster.fail(&viewer(&["get", "secret", "other"])),
        &["forbidden"],
    );
    has(
        &cluster.fail(&viewer(&["--as", "bob", "get", "pods"])),
        &["cannot impersonate resource \"users\""],
    );
    let token = cluster.run(&["create", "token", "default"]);
    has(
        &cluster.run(&["--token", token.trim(), "auth", "whoami"]),
        &["system:serviceaccount:default:default", "system:serviceaccounts"],
    );
}
