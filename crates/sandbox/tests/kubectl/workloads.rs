//! Pods that run, logs and sessions, watches.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use super::cluster::{Cluster, has, texts};

#[test]
fn workloads_scale_log_and_execute() {
    let Some(cluster) = Cluster::start() else { return };
    has(
        &cluster.run(&["create", "deployment", "web", "--image=nginx:1", "--replicas=2"]),
        &["deployment.apps/web created"],
    );
    has(
        &cluster.run(&["rollout", "status", "deployment/web", "--timeout=20s"]),
        &["successfully rolled out"],
    );
    has(
        &cluster.run(&["get", "deployment", "web", "-o", "wide"]),
        &["2/2", "nginx:1", "app=web"],
    );
    assert_eq!(
        cluster
            .run(&["get", "pods", "-l", "app=web", "-o", "name"])
            .lines()
            .count(),
        2
    );
    has(
        &cluster.run(&["scale", "deployment", "web", "--replicas=3"]),
        &["deployment.apps/web scaled"],
    );
    assert_eq!(
        cluster
            .run(&["get", "pods", "-l", "app=web", "-o", "name"])
            .lines()
            .count(),
        3
    );
    has(
        &cluster.run(&["get", "all"]),
        &[
            "deployment.apps/web",
            "replicaset.apps/web-",
            "pod/web-",
            "service/kubernetes",
        ],
    );
    has(
        &cluster.run(&["set", "image", "deployment/web", "nginx=nginx:2"]),
        &["image updated"],
    );
    has(
        &cluster.run(&[
            "get",
            "pods",
            "-o",
            "jsonpath={.items[*].spec.containers[0].image}",
        ]),
        &["nginx:2"],
    );
    has(
        &cluster.run(&["rollout", "history", "deployment/web"]),
        &["1  ", "2  "],
    );
    has(
        &cluster.run(&["get", "pods", "--sort-by=.metadata.name"]),
        &["web-", "1/1"],
    );
    has(
        &cluster.run(&["expose", "deployment", "web", "--port=80"]),
        &["service/web exposed"],
    );
    has(
        &cluster.run(&["get", "svc", "web"]),
        &["ClusterIP", "80/TCP", "10.96."],
    );

    has(
        &cluster.run(&["run", "one", "--image=busybox:1", "--env=A=b"]),
        &["pod/one created"],
    );
    has(&cluster.run(&["get", "pod", "one"]), &["1/1", "Running"]);
    has(
        &cluster.run(&["describe", "pod", "one"]),
        &["Name:", "busybox:1", "Running"],
    );
    has(
        &cluster.run(&["wait", "--for=condition=Ready", "pod/one", "--timeout=10s"]),
        &["condition met"],
    );
    has(
        &cluster.run(&["logs", "one"]),
        &["one: starting busybox:1", "one: ready"],
    );
    assert_eq!(cluster.run(&["logs", "one", "--tail=1"]), "one: ready\n");
    has(&cluster.fail(&["logs", "absent"]), &["pods \"absent\" not found"]);
    assert_eq!(
        cluster.run(&["exec", "one", "--", "echo", "hello", "there"]),
        "hello there\n"
    );
    has(
        &cluster.run(&["exec", "one", "--", "env"]),
        &["A=b", "HOSTNAME=one"],
    );
    let failed = cluster
        .command(&["exec", "one", "--", "sh", "-c", "echo bad >&2; exit 3"])
        .output()
        .unwrap();
    assert_eq!(failed.status.code(), Some(3));
    has(&texts(&failed).1, &["bad", "command terminated with exit code 3"]);
    let copied = cluster.pipe(&["exec", "-i", "one", "--", "cat"], "through and back\n");
    assert_eq!(texts(&copied).0, "through and back\n");
    let attached = cluster.pipe(&["attach", "-i", "one"], "typed\n");
    has(&texts(&attached).0, &["typed"]);
    has(&cluster.run(&["delete", "pod", "one"]), &["pod \"one\" deleted"]);
    has(
        &cluster.run(&["delete", "deployment", "web"]),
        &["deployment.apps \"web\" deleted"],
    );
    assert_eq!(cluster.run(&["get", "pods", "-o", "name"]), "");
}

#[test]
fn watches_and_followed_logs_go_on() {
    let Some(cluster) = Cluster::start() else { return };
    let mut watch = cluster
        .command(&["get", "cm", "-w", "-o", "name"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "configmap/kube-root-ca.crt");
    cluster.run(&["create", "cm", "later"]);
    assert_eq!(lines.next().unwrap().unwrap(), "configmap/later");
    watch.kill().unwrap();
    watch.wait().unwrap();

    cluster.run(&["run", "one", "--image=busybox"]);
    let mut logs = cluster
        .command(&["logs", "-f", "one"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(logs.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("still running (1)")));
    cluster.run(&["delete", "pod", "one", "--wait=false"]);
    drop(lines);
    assert!(logs.wait().unwrap().code().is_some());
}
