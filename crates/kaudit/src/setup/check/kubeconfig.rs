//! A webhook's kubeconfig, as client-go reads it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::certificates::{self, Usage};
use super::{Code, Node, Position, Report, Seen};
use crate::setup::address::Address;

/// A file that a kubeconfig names.
#[derive(Clone, Debug)]
pub(super) struct FileReference {
    pub(super) path: String,
    pub(super) at: Position,
}

pub(super) fn check(document: &Node, now: i64, seen: &mut Seen, report: &mut Report) {
    let Some((cluster, user)) = current(document, report) else {
        return;
    };
    for (owner, keys) in [
        (Some(cluster), ["certificate-authority", ""]),
        (user, ["client-certificate", "client-key"]),
        (user, ["tokenFile", ""]),
    ] {
        for key in keys {
            if let Some(node) = owner.and_then(|owner| owner.get(key))
                && let Some(path) = node.text()
            {
                let reference = FileReference { path, at: node.at };
                seen.references.push((report.file, report.shift, reference));
            }
        }
    }
    let host = server(cluster, report);
    authority(cluster, host.as_deref(), now, report);
    match user {
        Some(user) => credentials(user, now, report),
        None => no_credentials(cluster.at, report),
    }
}

/// Cluster and user of the current context.
///
/// Source: k8s.io/client-go tools/clientcmd: without contexts, a file with one unnamed cluster works too.
fn current<'a>(document: &'a Node, report: &mut Report) -> Option<(&'a Node, Option<&'a Node>)> {
    let named = |list: &str, name: &str| {
        document
            .get(list)?
            .items()
            .iter()
            .find(|entry| entry.text_of("name").unwrap_or_default() == name)
    };
    let (key, name) = match document.member("current-context") {
        Some((key, value)) => (key.at, value.text().unwrap_or_default()),
        None => (document.at, String::new()),
    };
    let context = named("contexts", &name).and_then(|entry| entry.get("context"));
    if context.is_none() && !name.is_empty() {
        report.add(
            Code::DanglingContext,
            key,
            format!("there is no context `{name}`"),
            "set current-context to the name of an entry of `contexts`",
        );
        return None;
    }
    let of = |key: &str| {
        context
            .and_then(|context| context.text_of(key))
            .unwrap_or_default()
    };
    let (cluster_name, user_name) = (of("cluster"), of("user"));
    let Some(cluster) = named("clusters", &cluster_name).and_then(|entry| entry.get("cluster")) else {
        report.add(
            Code::DanglingContext,
            context.map_or(key, |context| context.at),
            if context.is_some() {
                format!("the context's cluster `{cluster_name}` is not in `clusters`")
            } else {
                "no current-context".to_owned()
            },
            "let current-context name a context, and the context a cluster",
        );
        return None;
    };
    let user = named("users", &user_name).and_then(|entry| entry.get("user"));
    if user.is_none() && !user_name.is_empty() {
        report.add(
            Code::DanglingContext,
            context.map_or(key, |context| context.at),
            format!("the context's user `{user_name}` is not in `users`"),
            "let the context name a user of `users`",
        );
    }
    Some((cluster, user))
}

/// The host that is sent to.
fn server(cluster: &Node, report: &mut Report) -> Option<String> {
    const FORM: &str = "write https://HOST:7444/v1/audit/CLUSTER/INSTANCE";
    let Some((_, node)) = cluster.member("server") else {
        report.add(
            Code::ServerUrl,
            cluster.at,
            "the cluster has no server".to_owned(),
            FORM,
        );
        return None;
    };
    let address = match Address::parse(&node.text().unwrap_or_default()) {
        Ok(address) => address,
        Err(reason) => {
            report.add(Code::ServerUrl, node.at, reason, FORM);
            return None;
        }
    };
    if !address.is_https {
        report.add(
            Code::PlainHttp,
            node.at,
            "the server's URL begins with http://".to_owned(),
            "write https://, and the collector's certificate authority beside it",
        );
    }
    if let Err(reason) = address.source() {
        report.add(Code::SourcePath, node.at, reason, FORM);
    }
    if address.has_query {
        report.add(
            Code::DroppedQuery,
            node.at,
            "the server's URL has a query or a fragment".to_owned(),
            "remove what begins with `?` or `#`",
        );
    }
    Some(address.host)
}

fn authority(cluster: &Node, host: Option<&str>, now: i64, report: &mut Report) {
    if cluster.is_true("insecure-skip-tls-verify") {
        let at = cluster
            .get("insecure-skip-tls-verify")
            .map_or(cluster.at, |node| node.at);
        report.add(
            Code::InsecureSkipVerify,
            at,
            "the collector's certificate is not verified".to_owned(),
            "remove it, and give the certificate authority of the collector",
        );
        return;
    }
    if let Some((_, node)) = cluster.member("certificate-authority-data") {
        if let Some(pem) = decoded(node, report) {
            let name = cluster.text_of("tls-server-name");
            let usage = Usage::Authority {
                host: name.as_deref().or(host),
            };
            certificates::check(&pem, usage, now, node.at, report);
        }
    } else if cluster.get("certificate-authority").is_none() {
        report.add(
            Code::NoAuthority,
            cluster.at,
            "the cluster has no certificate authority".to_owned(),
            "add certificate-authority-data: `base64 -w0 < ca.crt`",
        );
    }
}

fn credentials(user: &Node, now: i64, report: &mut Report) {
    for key in ["exec", "auth-provider"] {
        if let Some((name, _)) = user.member(key) {
            report.add(
                Code::PluginInPod,
                name.at,
                format!("the user's credentials come from `{key}`"),
                "use a client certificate, or tokenFile",
            );
        }
    }
    let has = |key: &str| user.get(key).is_some();
    let has_certificate = has("client-certificate") || has("client-certificate-data");
    let has_key = has("client-key") || has("client-key-data");
    if has_certificate != has_key {
        let (there, missing) = if has_certificate {
            ("certificate", "key")
        } else {
            ("key", "certificate")
        };
        report.add(
            Code::HalfCertificate,
            user.at,
            format!("the user has a client {there} and no client {missing}"),
            format!("add client-{missing}-data"),
        );
    }
    let certificate = user
        .member("client-certificate-data")
        .and_then(|(_, node)| Some((decoded(node, report)?, node.at)));
    let key = user
        .member("client-key-data")
        .and_then(|(_, node)| Some((decoded(node, report)?, node.at)));
    if let Some((pem, at)) = &certificate {
        certificates::check(pem, Usage::Client, now, *at, report);
    }
    if let Some((pem, at)) = &key {
        certificates::check_key(
            pem,
            certificate.as_ref().map(|(pem, _)| pem.as_slice()),
            *at,
            report,
        );
    }
    let has_any = ["token", "tokenFile", "username", "exec", "auth-provider"]
        .iter()
        .any(|key| has(key));
    if !has_any && !has_certificate && !has_key {
        no_credentials(user.at, report);
    }
}

fn no_credentials(at: Position, report: &mut Report) {
    report.add(
        Code::NoCredentials,
        at,
        "the API server shows neither certificate nor token".to_owned(),
        "add client-certificate-data and client-key-data, or tokenFile",
    );
}

/// What a `-data` field holds.
fn decoded(node: &Node, report: &mut Report) -> Option<Vec<u8>> {
    let text: String = node.text()?.split_whitespace().collect();
    let Ok(bytes) = STANDARD.decode(text) else {
        report.add(
            Code::BadPem,
            node.at,
            "the value is not base64".to_owned(),
            "write the output of `base64 -w0 < FILE`",
        );
        return None;
    };
    Some(bytes)
}
