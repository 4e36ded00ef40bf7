//! Objects: created, changed, patched, applied.

use super::cluster::{Cluster, has, texts};

#[test]
fn objects_are_created_read_changed_and_deleted() {
    let Some(cluster) = Cluster::start() else { return };
    has(&cluster.run(&["version"]), &["Server Version: v1.36.3"]);
    has(
        &cluster.run(&["get", "nodes", "-o", "wide"]),
        &["sandbox-worker", "Ready", "control-plane", "10.0.0.11"],
    );
    has(
        &cluster.run(&["api-resources"]),
        &["configmaps", "cm", "deployments", "apps/v1", "Deployment"],
    );
    has(
        &cluster.run(&["api-versions"]),
        &["apps/v1", "rbac.authorization.k8s.io/v1"],
    );

    has(
        &cluster.run(&["create", "configmap", "a", "--from-literal=k=v"]),
        &["configmap/a created"],
    );
    has(
        &cluster.fail(&["create", "configmap", "a"]),
        &["configmaps \"a\" already exists"],
    );
    has(
        &cluster.fail(&["get", "configmap", "b"]),
        &["(NotFound)", "configmaps \"b\" not found"],
    );
    has(
        &cluster.fail(&["get", "nonsense"]),
        &["the server doesn't have a resource type \"nonsense\""],
    );
    has(
        &cluster.run(&["get", "cm"]),
        &["NAME", "DATA", "AGE", "kube-root-ca.crt"],
    );
    has(
        &cluster.run(&["get", "cm", "a", "-o", "yaml"]),
        &["apiVersion: v1", "kind: ConfigMap", "k: v", "uid:"],
    );
    has(
        &cluster.run(&["get", "cm", "a", "-o", "jsonpath={.data.k}"]),
        &["v"],
    );
    has(
        &cluster.run(&["label", "cm", "a", "x=y"]),
        &["configmap/a labeled"],
    );
    has(
        &cluster.run(&["annotate", "cm", "a", "n=m"]),
        &["configmap/a annotated"],
    );
    has(
        &cluster.run(&["get", "cm", "-l", "x=y", "-o", "name"]),
        &["configmap/a"],
    );
    has(
        &cluster.run(&["patch", "cm", "a", "-p", "{\"data\":{\"k\":\"w\"}}"]),
        &["configmap/a patched"],
    );
    has(
        &cluster.run(&[
            "patch",
            "cm",
            "a",
            "--type",
            "merge",
            "-p",
            "{\"data\":{\"l\":\"1\"}}",
        ]),
        &["patched"],
    );
    has(
        &cluster.run(&[
            "patch",
            "cm",
            "a",
            "--type",
            "merge",
            "-p",
            "{\"data\":{\"l\":null}}",
        ]),
        &["patched"],
    );
    assert_eq!(
        cluster.run(&["get", "cm", "a", "-o", "jsonpath={.data}"]),
        "{\"k\":\"w\"}"
    );
    has(
        &cluster.run(&["create", "cm", "c", "--dry-run=server"]),
        &["configmap/c created (server dry run)"],
    );
    has(&cluster.fail(&["get", "cm", "c"]), &["not found"]);
    has(
        &cluster.fail(&["create", "cm", "A_B"]),
        &["is invalid", "RFC 1123 subdomain"],
    );
    has(&cluster.run(&["delete", "cm", "a"]), &["configmap \"a\" deleted"]);
    has(
        &cluster.run(&["create", "secret", "generic", "s", "--from-literal=p=q"]),
        &["secret/s created"],
    );
    has(&cluster.run(&["get", "secret", "s"]), &["Opaque", "1"]);
    has(
        &cluster.run(&["create", "namespace", "team"]),
        &["namespace/team created"],
    );
    has(&cluster.run(&["get", "ns", "team"]), &["Active"]);
    has(
        &cluster.run(&["-n", "team", "create", "serviceaccount", "robot"]),
        &["serviceaccount/robot created"],
    );
    has(&cluster.run(&["-n", "team", "get", "sa"]), &["default", "robot"]);
    has(
        &cluster.fail(&["-n", "absent", "create", "cm", "a"]),
        &["namespaces \"absent\" not found"],
    );
    has(&cluster.run(&["get", "--raw", "/healthz"]), &["ok"]);
    has(&cluster.run(&["describe", "ns", "team"]), &["Status:", "Active"]);
    has(
        &cluster.run(&["delete", "ns", "team"]),
        &["namespace \"team\" deleted"],
    );
    has(&cluster.fail(&["get", "ns", "team"]), &["not found"]);
}

#[test]
fn each_kind_of_patch_has_its_effect() {
    let Some(cluster) = Cluster::start() else { return };
    cluster.run(&["create", "cm", "a", "--from-literal=k=v"]);
    let json = |patch: &str| {
        cluster
            .command(&["patch", "cm", "a", "--type", "json", "-p", patch])
            .output()
            .unwrap()
    };
    let output =
        json(r#"[{"op":"add","path":"/data/l","value":"w"},{"op":"replace","path":"/data/k","value":"x"}]"#);
    has(&texts(&output).0, &["configmap/a patched"]);
    assert_eq!(
        cluster.run(&["get", "cm", "a", "-o", "jsonpath={.data}"]),
        r#"{"k":"x","l":"w"}"#
    );
    let output = json(r#"[{"op":"test","path":"/data/k","value":"other"}]"#);
    has(
        &texts(&output).1,
        &["the server rejected our request due to an error in our request"],
    );

    cluster.run(&["create", "deployment", "web", "--image=nginx:1"]);
    cluster.run(&[
        "patch",
        "deployment",
        "web",
        "-p",
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"side","image":"busybox"}]}}}}"#,
    ]);
    let images = "jsonpath={.spec.template.spec.containers[*].image}";
    assert_eq!(
        cluster.run(&["get", "deployment", "web", "-o", images]),
        "busybox nginx:1"
    );
    has(
        &cluster.run(&["rollout", "history", "deployment/web"]),
        &["REVISION", "1", "2"],
    );
    has(
        &cluster.run(&["rollout", "undo", "deployment/web"]),
        &["deployment.apps/web rolled back"],
    );
    assert_eq!(
        cluster.run(&["get", "deployment", "web", "-o", images]),
        "nginx:1"
    );

    let widget = |labels: &str| {
        cluster.file(
            "web.yaml",
            &format!(
                "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: ssa, labels: {labels}}}\nspec:\n  \
                 selector: {{matchLabels: {{app: ssa}}}}\n  template:\n    metadata: {{labels: {{app: ssa}}}}\n    \
                 spec: {{containers: [{{name: c, image: i}}]}}\n"
            ),
        )
    };
    cluster.run(&["apply", "--server-side", "-f", &widget("{a: b, c: d}")]);
    cluster.run(&["label", "deployment", "ssa", "x=y"]);
    cluster.run(&["apply", "--server-side", "-f", &widget("{a: b}")]);
    assert_eq!(
        cluster.run(&["get", "deployment", "ssa", "-o", "jsonpath={.metadata.labels}"]),
        r#"{"a":"b","x":"y"}"#
    );
}

const WIDGETS: &str = r"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, kind: Widget, shortNames: [wd]}
  versions:
  - name: v1
    served: true
    storage: true
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
    schema:
      openAPIV3Schema:
        type: object
        properties: {spec: {type: object, properties: {size: {type: integer}}}}
";

#[test]
fn manifests_are_applied_and_custom_resources_served() {
    let Some(cluster) = Cluster::start() else { return };
    let file = cluster.file("crd.yaml", WIDGETS);
    has(
        &cluster.run(&["apply", "-f", &file]),
        &["customresourcedefinition.apiextensions.k8s.io/widgets.example.com created"],
    );
    has(
        &cluster.run(&["wait", "--for=condition=Established", "crd/widgets.example.com"]),
        &["condition met"],
    );
    let file = cluster.file(
        "widget.yaml",
        "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\nspec: {size: 7}\n",
    );
    has(
        &cluster.run(&["apply", "-f", &file]),
        &["widget.example.com/w created"],
    );
    has(&cluster.run(&["get", "wd"]), &["NAME", "SIZE", "w", "7"]);
    has(&cluster.run(&["apply", "-f", &file]), &["unchanged"]);

    let config = |value: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata: {{k: '{value}', l: '1'}}\n")
    };
    let file = cluster.file("cm.yaml", &config("1"));
    has(&cluster.run(&["apply", "-f", &file]), &["configmap/a created"]);
    has(&cluster.run(&["apply", "-f", &file]), &["configmap/a unchanged"]);
    let file = cluster.file("cm.yaml", &config("2"));
    has(
        &texts(&cluster.command(&["diff", "-f", &file]).output().unwrap()).0,
        &["-  k: \"1\"", "+  k: \"2\""],
    );
    has(&cluster.run(&["apply", "-f", &file]), &["configmap/a configured"]);
    has(
        &cluster.run(&["get", "cm", "a", "-o", "jsonpath={.data.k}"]),
        &["2"],
    );
    let file = cluster.file(
        "other.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\ndata: {k: v}\n",
    );
    has(
        &cluster.run(&["apply", "--server-side", "-f", &file]),
        &["configmap/b serverside-applied"],
    );
    has(
        &cluster.run(&[
            "get",
            "cm",
            "b",
            "-o",
            "jsonpath={.metadata.managedFields[*].operation}",
            "--show-managed-fields",
        ]),
        &["Apply"],
    );
    has(
        &cluster.run(&["delete", "-f", &file]),
        &["configmap \"b\" deleted"],
    );
    has(
        &cluster.run(&["replace", "-f", &cluster.file("cm.yaml", &config("3"))]),
        &["configmap/a replaced"],
    );
}
