//! Broken files, and what is said about each.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, date_time_ymd};

use super::*;

/// 2026-11-25.
const NOW: i64 = 1_795_600_000;

/// `code:line` of each finding, in order.
fn found(files: &[&str]) -> Vec<String> {
    let files: Vec<File<'_>> = files.iter().map(|text| File { name: "f", text }).collect();
    check(&files, NOW)
        .iter()
        .map(|finding| {
            assert!(
                !finding.fix.is_empty() && !finding.message.is_empty(),
                "{finding:?}"
            );
            format!("{}:{}", finding.code, finding.at.line)
        })
        .collect()
}

#[track_caller]
fn expect(text: &str, expected: &[&str]) {
    assert_eq!(found(&[text]), expected, "\n{text}");
}

/// A static pod: flags, and mounts as (path, type, read-only).
fn pod(flags: &[&str], mounts: &[(&str, &str, bool)]) -> String {
    let mut text = "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - name: kube-apiserver\n    command:\n    - kube-apiserver\n".to_owned();
    for flag in flags {
        text += &format!("    - {flag}\n");
    }
    if !mounts.is_empty() {
        text += "    volumeMounts:\n";
        for (index, (path, _, is_read_only)) in mounts.iter().enumerate() {
            text += &format!("    - {{name: v{index}, mountPath: {path}, readOnly: {is_read_only}}}\n");
        }
        text += "  volumes:\n";
        for (index, (path, kind, _)) in mounts.iter().enumerate() {
            text += &format!("  - {{name: v{index}, hostPath: {{path: {path}, type: \"{kind}\"}}}}\n");
        }
    }
    text
}

const POLICY: &str = "--audit-policy-file=/etc/k/policy.yaml";
const WEBHOOK: &str = "--audit-webhook-config-file=/etc/k/webhook.yaml";
const FOLDER: (&str, &str, bool) = ("/etc/k", "Directory", true);
const LOG_FOLDER: (&str, &str, bool) = ("/var/log/k", "DirectoryOrCreate", false);

/// A pod with policy and webhook, and these flags from line 10 on.
fn with(flags: &[&str]) -> String {
    pod(&[&[POLICY, WEBHOOK], flags].concat(), &[FOLDER, LOG_FOLDER])
}

/// A pod with policy and log, and these flags from line 10 on.
fn logging(flags: &[&str]) -> String {
    let log = "--audit-log-path=/var/log/k/audit.log";
    pod(&[&[POLICY, log], flags].concat(), &[FOLDER, LOG_FOLDER])
}

const ROTATION: [&str; 3] = [
    "--audit-log-maxsize=100",
    "--audit-log-maxbackup=10",
    "--audit-log-maxage=30",
];

#[test]
fn what_is_no_configuration_is_said() {
    expect("a: [", &["KS001:1"]);
    expect("a: 1\na: 2\n", &["KS001:2"]);
    expect("hello: world\n", &["KS002:1"]);
    expect("", &["KS002:1"]);
    expect(
        "apiVersion: v1\nkind: Pod\nspec: {containers: [{name: web}]}\n",
        &["KS002:1"],
    );
}

#[test]
fn flags_are_known_and_readable() {
    expect(&with(&[]), &[]);
    expect(&with(&["--audit-webhook-mod=batch"]), &["KS010:10"]);
    expect(&with(&["--audit_webhook_mode=batch"]), &[]);
    expect(&with(&["--audit-webhook-mode", "batch"]), &[]);
    expect(
        &with(&["--audit-webhook-truncate-enabled", "--audit-webhook-mode=batch"]),
        &[],
    );
    for wrong in [
        "--audit-webhook-mode=async",
        "--audit-webhook-batch-max-size=0",
        "--audit-webhook-batch-max-wait=30",
        "--audit-webhook-truncate-enabled=yes",
        "--audit-webhook-version=audit.k8s.io/v1beta1",
        "--audit-webhook-batch-throttle-qps=fast",
        "--audit-webhook-truncate-max-event-size=99999999",
    ] {
        expect(&with(&[wrong]), &["KS011:10"]);
    }
    expect(
        &with(&["--audit-webhook-mode=batch", "--audit-webhook-mode=batch"]),
        &["KS012:11"],
    );
}

#[test]
fn policy_and_backends_need_each_other() {
    expect(&pod(&["--secure-port=6443"], &[]), &["KS016:5"]);
    expect(&pod(&[WEBHOOK], &[FOLDER]), &["KS013:8"]);
    expect(&pod(&[POLICY], &[FOLDER]), &["KS014:8"]);
    expect(&with(&["--audit-log-maxage=3"]), &["KS015:10"]);
    expect(
        &logging(&[&ROTATION[..], &["--audit-webhook-mode=batch"]].concat()),
        &["KS015:13"],
    );
}

#[test]
fn what_flags_name_is_mounted() {
    expect(
        &pod(&["--audit-policy-file=policy.yaml", WEBHOOK], &[FOLDER]),
        &["KS020:8"],
    );
    expect(&pod(&[POLICY, WEBHOOK], &[]), &["KS021:8", "KS022:9"]);
    expect(
        &pod(&[POLICY, WEBHOOK], &[("/etc/kk", "Directory", true)]),
        &["KS021:8", "KS022:9"],
    );
    let files = |kind| {
        [
            ("/etc/k/policy.yaml", kind, true),
            ("/etc/k/webhook.yaml", "File", true),
        ]
    };
    expect(&pod(&[POLICY, WEBHOOK], &files("File")), &[]);
    expect(&pod(&[POLICY, WEBHOOK], &files("")), &["KS025:11"]);
    expect(
        &pod(&[POLICY, WEBHOOK], &files("DirectoryOrCreate")),
        &["KS025:11"],
    );
    expect(
        &pod(&[POLICY, WEBHOOK], &[("/etc/k", "File", true)]),
        &["KS025:11", "KS025:11"],
    );
    let dangling = with(&[]).replace("- {name: v0, hostPath", "- {name: other, hostPath");
    expect(&dangling, &["KS027:11"]);
}

#[test]
fn the_log_has_a_place_to_be_written_to() {
    let at = |path: &str, mounts: &[(&str, &str, bool)]| {
        let log = format!("--audit-log-path={path}");
        let flags: Vec<&str> = [POLICY, &log].into_iter().chain(ROTATION).collect();
        pod(&flags, &[&[FOLDER], mounts].concat())
    };
    expect(&at("/var/log/k/audit.log", &[LOG_FOLDER]), &[]);
    expect(&at("-", &[]), &["KS031:9"]);
    expect(&at("audit.log", &[]), &["KS020:9"]);
    expect(&at("/var/log/k/audit.log", &[]), &["KS023:9"]);
    expect(&at("/etc/k/audit.log", &[]), &["KS024:14"]);
    expect(
        &at(
            "/var/log/k/audit.log",
            &[("/var/log/k/audit.log", "FileOrCreate", false)],
        ),
        &["KS026:15"],
    );
}

#[test]
fn the_log_is_rotated_and_read_before_it_is_deleted() {
    expect(&logging(&[]), &["KS035:9"]);
    expect(&logging(&ROTATION), &[]);
    expect(&logging(&["--audit-log-maxsize=0"]), &["KS030:10"]);
    expect(
        &logging(&["--audit-log-maxbackup=0", "--audit-log-maxage=0"]),
        &["KS032:10"],
    );
    expect(&logging(&["--audit-log-maxage=0"]), &["KS035:10"]);
    expect(
        &logging(&["--audit-log-maxsize=10", "--audit-log-maxbackup=5"]),
        &["KS033:11"],
    );
    expect(&logging(&["--audit-log-maxsize=-1"]), &["KS035:9", "KS011:10"]);
    let and = |flag| [&ROTATION[..], &[flag]].concat();
    expect(&logging(&and("--audit-log-format=legacy")), &["KS034:13"]);
    expect(&logging(&and("--audit-log-mode=blocking-strict")), &["KS041:13"]);
}

#[test]
fn the_webhook_does_not_stop_the_cluster_nor_lose_events() {
    expect(&with(&["--audit-webhook-mode=blocking"]), &["KS040:10"]);
    expect(&with(&["--audit-webhook-mode=blocking-strict"]), &["KS041:10"]);
    expect(
        &with(&["--audit-webhook-truncate-max-event-size=1000"]),
        &["KS043:10"],
    );
    expect(&with(&["--audit-webhook-batch-throttle-qps=1"]), &["KS044:10"]);
    expect(&with(&["--audit-webhook-batch-max-size=1"]), &["KS044:10"]);
    expect(
        &with(&[
            "--audit-webhook-batch-max-size=1",
            "--audit-webhook-batch-throttle-enable=false",
        ]),
        &[],
    );
    expect(&with(&["--audit-webhook-batch-max-size=6000"]), &["KS045:10"]);
    expect(&with(&["--audit-webhook-batch-max-size=20000"]), &["KS045:10"]);
    expect(&with(&["--audit-webhook-batch-buffer-size=100"]), &["KS045:10"]);
    expect(&with(&["--audit-webhook-batch-max-wait=5m"]), &["KS046:10"]);
}

#[test]
fn a_policy_beside_the_flags_tells_whether_to_truncate() {
    let policy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n- level: Metadata\n  resources: [{group: \"\", resources: [secrets, configmaps, serviceaccounts/token]}, {group: authentication.k8s.io, resources: [tokenreviews, tokenrequests]}]\n- level: RequestResponse\n";
    assert_eq!(found(&[policy]), [""; 0]);
    assert_eq!(found(&[&with(&[]), policy]), ["KS042:9"]);
    let truncating = with(&["--audit-webhook-truncate-enabled=true"]);
    assert_eq!(found(&[&truncating, policy]), [""; 0]);
    let broken = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Everything\n";
    assert_eq!(found(&[broken]), ["KP003:4"]);
}

#[test]
fn kubeadm_has_a_form_for_each_version() {
    let config = |version: &str, arguments: &str| {
        format!(
            "apiVersion: kubeadm.k8s.io/{version}\nkind: ClusterConfiguration\napiServer:\n  extraArgs:\n{arguments}  extraVolumes:\n  - {{name: k, hostPath: /etc/k, mountPath: /etc/k, pathType: Directory, readOnly: true}}\n"
        )
    };
    let map =
        "    audit-policy-file: /etc/k/policy.yaml\n    audit-webhook-config-file: /etc/k/webhook.yaml\n";
    let list = "    - {name: audit-policy-file, value: /etc/k/policy.yaml}\n    - {name: audit-webhook-config-file, value: /etc/k/webhook.yaml}\n";
    expect(&config("v1beta3", map), &[]);
    expect(&config("v1beta4", list), &[]);
    expect(&config("v1beta4", map), &["KS017:4"]);
    expect(&config("v1beta3", list), &["KS017:4"]);
    expect(&config("v1beta2", map), &["KS017:4"]);
    expect(
        &config("v1beta3", &map.replace("/etc/k/p", "/etc/x/p")),
        &["KS021:5"],
    );
    // What kubeadm mounts by itself counts, and the other documents of the file do not.
    let pki = format!(
        "apiVersion: kubeadm.k8s.io/v1beta3\nkind: InitConfiguration\n---\n{}",
        config("v1beta3", &map.replace("/etc/k/w", "/etc/kubernetes/pki/w"))
    );
    expect(&pki, &[]);
    expect(
        "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n",
        &["KS016:1"],
    );
}

#[test]
fn a_kind_node_gets_its_files_from_the_machine() {
    let cluster = |mounts: &str, log: &str| {
        format!(
            "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes:\n- role: control-plane\n{mounts}  kubeadmConfigPatches:\n  - |\n    kind: ClusterConfiguration\n    apiServer:\n      extraArgs:\n        audit-policy-file: /etc/k/policy.yaml\n        audit-log-path: {log}\n        audit-log-maxage: \"3\"\n      extraVolumes:\n      - name: k\n        hostPath: /etc/k\n        mountPath: /etc/k\n"
        )
    };
    let mounts = "  extraMounts:\n  - {hostPath: ./k, containerPath: /etc/k}\n";
    expect(&cluster(mounts, "/etc/k/audit.log"), &[]);
    expect(&cluster("", "/etc/k/audit.log"), &["KS028:14"]);
    expect(&cluster(mounts, "/var/log/audit.log"), &["KS023:13"]);
    expect(
        "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n",
        &["KS016:1"],
    );
    expect(
        "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nkubeadmConfigPatches:\n- |\n  a: [\n",
        &["KS016:1", "KS001:5"],
    );
}

#[test]
fn k3s_and_rke2_see_the_node() {
    expect(
        "kube-apiserver-arg:\n- audit-policy-file=/p\n- audit-log-path=/l\n- audit-log-maxage=3\n",
        &[],
    );
    expect("kube-apiserver-arg: audit-policy-file=/p\n", &["KS014:1"]);
    expect(
        "kube-apiserver-arg+:\n- audit-polcy-file=/p\n- audit-log-path=l\n- audit-log-maxage=3\n",
        &["KS010:2", "KS013:3", "KS020:3"],
    );
    expect("token: x\n", &["KS016:1"]);
    expect("audit-policy-file: /p\n", &[]);
    expect(
        "audit-policy-file: /p\nkube-apiserver-arg: [\"audit-policy-file=/q\"]\n",
        &["KS012:2"],
    );
}

#[test]
fn talos_makes_files_below_var_and_reads_them_as_nobody() {
    let machine = |path: &str, mode: &str, volume: &str, server: &str| {
        format!(
            "machine:\n  files:\n  - op: create\n    path: {path}\n    permissions: {mode}\n    content: |\n      apiVersion: v1\n      kind: Config\n      current-context: a\n      contexts: [{{name: a, context: {{cluster: c, user: u}}}}]\n      users: [{{name: u, user: {{tokenFile: {volume}/token}}}}]\n      clusters:\n      - name: c\n        cluster:\n          certificate-authority: {volume}/ca.crt\n          server: {server}\ncluster:\n  apiServer:\n    extraArgs:\n      audit-webhook-config-file: {volume}/webhook.yaml\n    extraVolumes:\n    - {{hostPath: {volume}, mountPath: {volume}, readonly: true}}\n"
        )
    };
    let good = "https://h:7444/v1/audit/c/i";
    expect(&machine("/var/k/webhook.yaml", "0o644", "/var/k", good), &[]);
    expect(
        &machine("/etc/k/webhook.yaml", "0o644", "/etc/k", good),
        &["KS070:4"],
    );
    expect(
        &machine("/var/k/webhook.yaml", "0o600", "/var/k", good),
        &["KS071:5"],
    );
    expect(
        &machine("/var/k/webhook.yaml", "0o644", "/var/k", "https://h:7444/"),
        &["KS052:16"],
    );
    expect(
        "apiVersion: v1alpha1\nkind: KubeAPIServerConfig\nextraArgs: {audit-webhook-config-file: /var/k/w}\n",
        &["KS022:3"],
    );
    expect(
        "cluster: {apiServer: {}}\n---\napiVersion: v1alpha1\nkind: KubeAPIServerConfig\n",
        &["KS072:1"],
    );
    expect("machine: {type: controlplane}\n", &[]);
}

/// A kubeconfig whose cluster and user have these fields, the first at lines 5 and 8.
fn kubeconfig(cluster: &str, user: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: c\n  cluster: {{{cluster}}}\nusers:\n- name: u\n  user: {{{user}}}\ncontexts:\n- name: x\n  context: {{cluster: c, user: u}}\ncurrent-context: x\n"
    )
}

#[test]
fn a_kubeconfig_leads_to_a_collector() {
    let server = |url: &str| {
        kubeconfig(
            &format!("server: \"{url}\", certificate-authority: /c"),
            "tokenFile: /t",
        )
    };
    expect(&server("https://h:7444/v1/audit/c/i"), &[]);
    expect(&server("h:7444"), &["KS050:5"]);
    expect(&server("http://h:7444/v1/audit/c/i"), &["KS051:5"]);
    for path in [
        "",
        "/",
        "/audit",
        "/v1/audit/c",
        "/v1/audit/c/i/j",
        "/v1/audit/c/%20",
    ] {
        expect(&server(&format!("https://h:7444{path}")), &["KS052:5"]);
    }
    expect(&server("https://h:7444/v1/audit/c/i?x=1"), &["KS053:5"]);
    expect(
        &kubeconfig("certificate-authority: /c", "tokenFile: /t"),
        &["KS050:5"],
    );
    let good = "server: \"https://h/v1/audit/c/i\"";
    expect(&kubeconfig(good, "tokenFile: /t"), &["KS054:5"]);
    expect(
        &kubeconfig(
            &format!("{good}, insecure-skip-tls-verify: true"),
            "tokenFile: /t",
        ),
        &["KS055:5"],
    );
    let cluster = format!("{good}, certificate-authority: /c");
    expect(&kubeconfig(&cluster, ""), &["KS059:8"]);
    expect(&kubeconfig(&cluster, "client-certificate: /c"), &["KS060:8"]);
    expect(&kubeconfig(&cluster, "exec: {command: aws}"), &["KS063:8"]);
    let text = kubeconfig(&cluster, "tokenFile: /t");
    expect(
        &text.replace("current-context: x", "current-context: y"),
        &["KS062:12"],
    );
    expect(&text.replace("user: u}", "user: v}"), &["KS059:5", "KS062:11"]);
    expect(&text.replace("cluster: c,", "cluster: d,"), &["KS062:11"]);
    // JSON is YAML.
    expect(
        r#"{"apiVersion":"v1","kind":"Config","clusters":[{"name":"","cluster":{"server":"http://h/v1/audit/c/i","certificate-authority":"/c"}}]}"#,
        &["KS059:1", "KS051:1"],
    );
}

#[test]
fn what_a_kubeconfig_names_is_mounted_too() {
    let config = kubeconfig(
        "server: \"https://h/v1/audit/c/i\", certificate-authority: /etc/k/ca.crt",
        "tokenFile: /elsewhere/token",
    );
    assert_eq!(found(&[&with(&[]), &config]), ["KS064:8"]);
    let k3s = "kube-apiserver-arg: [audit-policy-file=/p, audit-webhook-config-file=/w]\n";
    assert_eq!(found(&[k3s, &config]), [""; 0]);
    let rke2 = "audit-policy-file: /p\nkube-apiserver-arg: [audit-webhook-config-file=/w]\nkube-apiserver-extra-mount: [\"/elsewhere:/elsewhere:ro\"]\n";
    assert_eq!(found(&[rke2, &config]), ["KS064:5"]);
}

#[test]
fn certificates_are_read() {
    let issue = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = CertificateParams::new(vec!["h".to_owned(), "10.0.0.1".to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        (
            STANDARD.encode(certificate.pem()),
            STANDARD.encode(key.serialize_pem()),
        )
    };
    let authority = |data: &str, host: &str| {
        kubeconfig(
            &format!("server: \"https://{host}/v1/audit/c/i\", certificate-authority-data: {data}"),
            "tokenFile: /t",
        )
    };
    let (plain, plain_key) = issue(&|_| {});
    expect(&authority(&plain, "h"), &[]);
    expect(&authority(&plain, "10.0.0.1"), &[]);
    expect(&authority(&plain, "other"), &["KS058:5"]);
    expect(&authority("a-b", "h"), &["KS056:5"]);
    expect(&authority(&STANDARD.encode("no pem"), "h"), &["KS056:5"]);
    let (expired, _) = issue(&|params| params.not_after = date_time_ymd(2026, 11, 1));
    expect(&authority(&expired, "h"), &["KS057:5"]);
    let (future, _) = issue(&|params| params.not_before = date_time_ymd(2027, 1, 1));
    expect(&authority(&future, "h"), &["KS057:5"]);
    let (soon, _) = issue(&|params| params.not_after = date_time_ymd(2026, 12, 10));
    expect(&authority(&soon, "h"), &["KS065:5"]);

    let client = |certificate: &str, key: &str| {
        kubeconfig(
            "server: \"https://h/v1/audit/c/i\", certificate-authority: /c",
            &format!("client-certificate-data: {certificate}, client-key-data: {key}"),
        )
    };
    expect(&client(&plain, &plain_key), &[]);
    let (server, server_key) =
        issue(&|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    expect(&client(&server, &server_key), &["KS061:8"]);
    expect(&client(&plain, &server_key), &["KS060:8"]);
    expect(&client(&plain, &STANDARD.encode("no pem")), &["KS056:8"]);
}

#[test]
fn findings_are_printed_with_line_reason_and_fix() {
    let text = with(&["--audit-webhook-mod=batch"]);
    let files = [File {
        name: "kube-apiserver.yaml",
        text: &text,
    }];
    let findings = check(&files, NOW);
    let expected = "\
kube-apiserver.yaml:10:7: error[KS010]: kube-apiserver has no flag --audit-webhook-mod
10 |     - --audit-webhook-mod=batch
   |       ^
   = why: kube-apiserver does not start with a flag it does not know
   = fix: write `audit-webhook-mode`

kube-apiserver.yaml: 1 error
";
    assert_eq!(as_text(&files, &findings), expected);
    let json = as_json(&files, &findings[0]);
    assert_eq!(json["line"], 10);
    assert_eq!(json["text"], "- --audit-webhook-mod=batch");
}

#[test]
fn no_damage_to_a_file_is_too_much() {
    let originals = [
        with(&["--audit-webhook-mode=batch"]),
        kubeconfig("server: \"https://h/v1/audit/c/i\", certificate-authority-data: YQ==", "token: x"),
        "cluster: {apiServer: {auditPolicy: {rules: [{level: Metadata}]}, extraArgs: {a: [b]}}}\nmachine: {files: [{path: /var/k, permissions: 0o600, content: \"clusters: x\"}]}\n".to_owned(),
        "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes:\n- extraMounts: [{containerPath: /x}]\n  kubeadmConfigPatches:\n  - |\n    kind: ClusterConfiguration\n    apiServer: {extraArgs: [{name: audit-log-path, value: 1}], extraVolumes: [{mountPath: /x}]}\n".to_owned(),
        "kube-apiserver-arg: [audit-log-path=/l]\nkube-apiserver-extra-mount: [a:b, c]\n".to_owned(),
    ];
    let mut seed = 1_u64;
    let mut next = |below: usize| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % below.max(1)
    };
    for _ in 0..3_000 {
        let mut text: Vec<char> = originals[next(originals.len())].chars().collect();
        for _ in 0..=next(4) {
            let at = next(text.len());
            match next(3) {
                0 => drop(text.remove(at)),
                1 => text.insert(
                    at,
                    ['\n', ' ', ':', '-', '[', '{', '"', '|', '&', '*', 'é'][next(11)],
                ),
                _ => text.truncate(at.max(1)),
            }
        }
        let text: String = text.into_iter().collect();
        let files = [File {
            name: "f",
            text: &text,
        }];
        // Whatever it is, it is told, and each place is one of the file.
        for finding in check(&files, NOW) {
            assert!(
                finding.at.line <= text.lines().count().max(1) + 1,
                "{finding:?}\n{text}"
            );
        }
    }
}
