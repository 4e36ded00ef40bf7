//! The real kubectl against a sandbox on loopback.
//!
//! Where there is no kubectl the tests say so and pass; CI checks separately that they ran.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers fail as tests do, and CI reads how many scenarios ran"
)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kaudit_event::{Text, UserInfo};
use kaudit_listen::{ClientCertificates, ListenConfig, Listener, ServerTls};
use kaudit_sandbox::Sandbox;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio_util::sync::CancellationToken;

static SCENARIOS: AtomicU32 = AtomicU32::new(0);

/// A running sandbox and a kubeconfig for it.
struct Cluster {
    folder: tempfile::TempDir,
    stop: CancellationToken,
    server: Option<std::thread::JoinHandle<()>>,
}

impl Cluster {
    /// `None` where there is no kubectl.
    fn start() -> Option<Self> {
        if Command::new("kubectl")
            .args(["version", "--client"])
            .output()
            .is_err()
        {
            println!("kubectl is not on the path: nothing is tested");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let issuer = Authority::new();
        let authority = issuer.pem.clone();
        let (certificate, key) = issuer.sign("server", "", &["127.0.0.1", "localhost"]);
        let (client, client_key) = issuer.sign("carla", "viewers", &[]);
        std::fs::write(folder.path().join("carla.crt"), client).unwrap();
        std::fs::write(folder.path().join("carla.key"), client_key).unwrap();
        let clients = ClientCertificates::Asked(authority.clone().into_bytes());
        let tls = ServerTls::from_pem(certificate.as_bytes(), key.as_bytes(), &clients).unwrap();
        let sandbox = Sandbox::builder()
            .certificate_authority(authority.clone())
            .client_authority(authority.as_bytes())
            .unwrap()
            .tokens(["admin", "viewer", "nobody"].map(token))
            .build();
        let stop = CancellationToken::new();
        let (sender, receiver) = std::sync::mpsc::channel();
        let stopped = stop.clone();
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
                let listener = Listener::bind(ListenConfig::https(address, tls)).await.unwrap();
                sender.send(listener.local_addr()).unwrap();
                sandbox.serve(listener, stopped, Duration::from_secs(1)).await;
            });
        });
        let address = receiver.recv().unwrap();
        std::fs::write(folder.path().join("ca.crt"), authority).unwrap();
        let kubeconfig = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: admin\n\
             clusters: [{{name: sandbox, cluster: {{server: 'https://{address}', certificate-authority: ca.crt}}}}]\n\
             users: [{{name: admin, user: {{token: admin-token}}}}, {{name: viewer, user: {{token: viewer-token}}}}, \
             {{name: nobody, user: {{token: nobody-token}}}}, \
             {{name: carla, user: {{client-certificate: carla.crt, client-key: carla.key}}}}]\n\
             contexts: [{{name: admin, context: {{cluster: sandbox, user: admin}}}}, \
             {{name: viewer, context: {{cluster: sandbox, user: viewer}}}}, \
             {{name: nobody, context: {{cluster: sandbox, user: nobody}}}}, \
             {{name: carla, context: {{cluster: sandbox, user: carla}}}}]\n"
        );
        std::fs::write(folder.path().join("kubeconfig"), kubeconfig).unwrap();
        SCENARIOS.fetch_add(1, Ordering::Relaxed);
        Some(Self {
            folder,
            stop,
            server: Some(server),
        })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .arg("--kubeconfig")
            .arg(self.path("kubeconfig"))
            .arg("--cache-dir")
            .arg(self.path("cache"))
            .args(arguments)
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null());
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Runs kubectl, which must succeed; gives its standard output.
    #[track_caller]
    fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        let (stdout, stderr) = texts(&output);
        assert!(
            output.status.success(),
            "kubectl {arguments:?}\n{stdout}\n{stderr}"
        );
        stdout
    }

    /// Runs kubectl, which must fail; gives its standard error.
    #[track_caller]
    fn fail(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        let (stdout, stderr) = texts(&output);
        assert!(
            !output.status.success(),
            "kubectl {arguments:?} succeeded\n{stdout}\n{stderr}"
        );
        stderr
    }

    /// Runs kubectl with standard input.
    #[track_caller]
    fn pipe(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(server) = self.server.take() {
            let joined = server.join();
            assert!(joined.is_ok() || std::thread::panicking());
        }
        println!("kubectl scenarios run: {}", SCENARIOS.load(Ordering::Relaxed));
    }
}

/// `<name>-token` is the user of that name; `admin` may do everything.
fn token(name: &'static str) -> (String, UserInfo) {
    let groups = match name {
        "admin" => vec![Text::from_static("system:masters")],
        "viewer" => vec![Text::from_static("viewers")],
        _ => Vec::new(),
    };
    let user = UserInfo {
        username: Text::from_static(name),
        groups: Some(groups),
        ..UserInfo::default()
    };
    (format!("{name}-token"), user)
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// A certificate authority.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "sandbox-ca");
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, pem }
    }

    /// A certificate and its key.
    fn sign(&self, name: &str, organization: &str, hosts: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params
            .distinguished_name
            .push(DnType::OrganizationName, organization);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
}

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
