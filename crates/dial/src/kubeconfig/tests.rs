//! Kubeconfigs as people write them.

use super::*;

fn load(text: &str) -> Result<Cluster, String> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ca.crt"), "CA").unwrap();
    let path = dir.path().join("config");
    std::fs::write(&path, text).unwrap();
    Cluster::from_kubeconfig(&path).map_err(|error| error.to_string())
}

const HEAD: &str = "current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n";

#[test]
fn the_current_context_is_resolved_relative_to_the_file() {
    let cluster = load(&format!(
        "{HEAD}clusters: [{{name: k, cluster: {{server: 'https://10.0.0.1:6443/base/', certificate-authority: ca.crt}}}}]\n\
         users: [{{name: u, user: {{token: secret}}}}]\n"
    ))
    .unwrap();
    assert_eq!(cluster.server.to_string(), "https://10.0.0.1:6443/base");
    assert!(matches!(cluster.trust, Trust::Authorities(Pem::File(file)) if file.ends_with("ca.crt")));
    assert_eq!(cluster.credential, Credential::Token("secret".to_owned()));
    assert_eq!(format!("{:?}", cluster.credential), "Token");
}

#[track_caller]
fn refused(text: &str, expected: &str) {
    let error = load(text).unwrap_err();
    assert!(
        error.contains(expected),
        "`{error}` does not contain `{expected}`"
    );
}

#[test]
fn mistakes_name_the_entry_and_the_fix() {
    refused("clusters: [{}, {}]\n", "no current-context is set");
    refused("current-context: x\n", "current-context names `x`");
    refused(&format!("{HEAD}clusters: []\n"), "names cluster `k`");
    refused(
        &format!(
            "{HEAD}clusters: [{{name: k, cluster: {{server: 'ftp://x'}}}}]\nusers: [{{name: u, user: {{}}}}]\n"
        ),
        "scheme `ftp`",
    );
    refused(
        &format!(
            "{HEAD}clusters: [{{name: k, cluster: {{server: 'https://x', certificate-authority: gone.crt}}}}]\nusers: [{{name: u, user: {{}}}}]\n"
        ),
        "gone.crt",
    );
    refused(
        &format!("{HEAD}clusters: [{{name: k, cluster: {{server: 'https://x'}}}}]\n"),
        "names user `u`",
    );
}

#[test]
fn an_empty_file_is_refused_in_upstreams_words_and_one_cluster_needs_no_context() {
    for text in [
        "",
        "apiVersion: v1\nkind: Config\n",
        "clusters: null\nusers: null\n",
    ] {
        refused(
            text,
            "no configuration has been provided, try setting KUBERNETES_MASTER",
        );
    }
    let cluster = load("clusters: [{cluster: {server: 'http://10.0.0.1:8080/audit/'}}]\n").unwrap();
    assert_eq!(cluster.server.path, "/audit/");
    assert_eq!(cluster.server.base_path, "/audit");
}

fn with_user(user: &str) -> Result<Cluster, String> {
    load(&format!(
        "{HEAD}clusters: [{{name: k, cluster: {{server: 'https://x'}}}}]\nusers: [{{name: u, user: {user}}}]\n"
    ))
}

#[test]
fn every_kind_of_credential_is_read_and_what_excludes_another_is_refused() {
    assert_eq!(
        with_user("{username: a, password: b}").unwrap().credential,
        Credential::Basic {
            username: "a".to_owned(),
            password: "b".to_owned()
        }
    );
    let both = with_user("{tokenFile: ca.crt, client-certificate: ca.crt, client-key: ca.crt}").unwrap();
    assert!(matches!(
        both.credential,
        Credential::TokenFile { token: None, .. }
    ));
    assert!(matches!(
        both.identity,
        Some(Identity {
            certificate: Pem::File(_),
            key: Pem::File(_)
        })
    ));
    let impersonating = with_user("{token: t, as: bob, as-groups: [x, y]}").unwrap();
    assert_eq!(impersonating.impersonation.len(), 3);
    for (user, expected) in [
        ("{token: t, username: a}", "but not both"),
        ("{client-certificate: ca.crt}", "go together"),
        ("{auth-provider: {name: gcp}}", "auth-provider was removed"),
        ("{exec: {command: x}}", "apiVersion is missing"),
        (
            "{exec: {apiVersion: client.authentication.k8s.io/v1, command: x}}",
            "interactiveMode is missing",
        ),
        (
            "{exec: {apiVersion: client.authentication.k8s.io/v1, command: x, interactiveMode: Always}}",
            "nobody to ask",
        ),
    ] {
        let error = with_user(user).unwrap_err();
        assert!(
            error.contains(expected),
            "`{error}` does not contain `{expected}`"
        );
    }
    let exec = "{exec: {apiVersion: client.authentication.k8s.io/v1beta1, command: x}}";
    assert!(matches!(with_user(exec).unwrap().credential, Credential::Exec(_)));
}

#[test]
fn what_an_operator_should_know_is_a_warning() {
    let insecure =
        load("clusters: [{cluster: {server: 'https://x', insecure-skip-tls-verify: true, proxy-url: 'http://p:1'}}]")
            .unwrap();
    assert_eq!(insecure.warnings.len(), 1, "{:?}", insecure.warnings);
    assert!(insecure.proxy.is_some());
    let plain = load("clusters: [{cluster: {server: 'http://x'}}]\nusers: [{user: {token: t}}]").unwrap();
    assert!(
        plain.warnings.concat().contains("not sent"),
        "{:?}",
        plain.warnings
    );
}
