//! The derived columns: plain functions on plain values, so that an event, a line and a row of a file
//! give the same. An empty text is an absent one.

use std::borrow::Cow;

/// The annotation that says what authorization decided: `allow` or `forbid`.
pub const DECISION: &str = "authorization.k8s.io/decision";

/// What kind of actor a user is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "the values of the column actorKind")]
pub enum ActorKind {
    /// A person, or a program with a person's kind of name.
    Human,
    /// A service account.
    ServiceAccount,
    /// A kubelet.
    Node,
    /// A part of the control plane.
    Component,
    /// Somebody without credentials.
    Anonymous,
    /// Nobody: authentication failed.
    None,
}

impl ActorKind {
    /// The value of the column.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::ServiceAccount => "serviceaccount",
            Self::Node => "node",
            Self::Component => "component",
            Self::Anonymous => "anonymous",
            Self::None => "none",
        }
    }
}

/// `actorKind` of `user.username`. An event of a failed authentication has no user.
///
/// The names are those that Kubernetes reserves. `system:admin` and `system:masters` are what some
/// distributions call their first administrator; `eks:` and `aks:` stand before what providers run.
#[must_use]
pub fn actor_kind(username: &[u8]) -> ActorKind {
    if username.starts_with(b"system:serviceaccount:") {
        return ActorKind::ServiceAccount;
    }
    if username.starts_with(b"system:node:") {
        return ActorKind::Node;
    }
    match username {
        b"" => ActorKind::None,
        b"system:anonymous" => ActorKind::Anonymous,
        b"system:admin" | b"system:masters" => ActorKind::Human,
        _ if [&b"system:"[..], b"eks:", b"aks:"]
            .iter()
            .any(|own| username.starts_with(own)) =>
        {
            ActorKind::Component
        }
        _ => ActorKind::Human,
    }
}

/// What refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "the values of the column deniedBy")]
pub enum DeniedBy {
    /// Authentication.
    Authn,
    /// Authorization, also of an impersonation.
    Rbac,
    /// The Pod Security admission.
    PodSecurity,
    /// A `ValidatingAdmissionPolicy`.
    Policy,
    /// An admission webhook.
    Webhook,
    /// A `ResourceQuota`.
    Quota,
}

impl DeniedBy {
    /// The value of the column.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Authn => "authn",
            Self::Rbac => "rbac",
            Self::PodSecurity => "podsecurity",
            Self::Policy => "policy",
            Self::Webhook => "webhook",
            Self::Quota => "quota",
        }
    }
}

/// `deniedBy` of `responseStatus.code`, [`DECISION`] and `responseStatus.message`.
///
/// Authorization and admission both answer 403; they differ in the decision, and admission's plugins in
/// their messages. An impersonation that is refused leaves no decision.
#[must_use]
pub fn denied_by(code: Option<i64>, decision: &[u8], message: &[u8]) -> Option<DeniedBy> {
    let code = code.filter(|code| *code >= 400)?;
    let says = |text: &[u8]| memchr::memmem::find(message, text).is_some();
    if code == 401 {
        return Some(DeniedBy::Authn);
    }
    if code == 403 && decision == b"forbid" {
        return Some(DeniedBy::Rbac);
    }
    if says(b"admission webhook ") && says(b" denied the request") {
        return Some(DeniedBy::Webhook);
    }
    if says(b"ValidatingAdmissionPolicy ") && says(b" denied request") {
        return Some(DeniedBy::Policy);
    }
    if code != 403 {
        return None;
    }
    if says(b"violates PodSecurity") {
        return Some(DeniedBy::PodSecurity);
    }
    if says(b"exceeded quota: ") {
        return Some(DeniedBy::Quota);
    }
    let is_impersonation = decision.is_empty() && says(b"orbidden: User ") && says(b" cannot impersonate");
    is_impersonation.then_some(DeniedBy::Rbac)
}

/// `sourceIP` of `sourceIPs`: the last, which the server saw itself.
#[must_use]
pub fn source_ip<T>(addresses: impl IntoIterator<Item = T>) -> Option<T> {
    addresses.into_iter().last()
}

/// Families whose programs have many names: what the product's name begins with, in lower case.
const FAMILIES: &[(&[u8], &str)] = &[
    (b"argocd", "argocd"),
    (b"cert-manager", "cert-manager"),
    (b"hashicorp", "terraform"),
    (b"helm", "helm"),
    (b"kubectl", "kubectl"),
    (b"mozilla", "browser"),
    (b"prometheus", "prometheus"),
    (b"terraform", "terraform"),
];

/// `client` of `userAgent`: a known family, or the product's name in lower case.
#[must_use]
pub fn client(user_agent: &[u8]) -> Option<Cow<'_, [u8]>> {
    let end = user_agent
        .iter()
        .position(|byte| matches!(byte, b'/' | b' '))
        .unwrap_or(user_agent.len());
    let product = user_agent.get(..end).filter(|product| !product.is_empty())?;
    let is_of = |family: &[u8]| {
        product
            .get(..family.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(family))
    };
    if let Some((_, family)) = FAMILIES.iter().find(|(family, _)| is_of(family)) {
        return Some(Cow::Borrowed(family.as_bytes()));
    }
    if product.iter().any(u8::is_ascii_uppercase) {
        return Some(Cow::Owned(product.to_ascii_lowercase()));
    }
    Some(Cow::Borrowed(product))
}

/// The product that a user agent begins with: what stands before the first `/`.
#[must_use]
pub fn product(user_agent: &[u8]) -> &[u8] {
    let end = memchr::memchr(b'/', user_agent).unwrap_or(user_agent.len());
    user_agent.get(..end).unwrap_or_default()
}

/// `latency` in microseconds, from both times in microseconds.
#[must_use]
pub fn latency(received: Option<i64>, stage: Option<i64>) -> Option<i64> {
    stage?.checked_sub(received?)
}

/// `execCommand` of `objectRef.subresource` and `requestURI`: the words of the command, joined by blanks.
#[must_use]
pub fn exec_command(subresource: &[u8], request_uri: &[u8]) -> Option<Vec<u8>> {
    if subresource != b"exec" {
        return None;
    }
    let query = memchr::memchr(b'?', request_uri).and_then(|at| request_uri.get(at + 1..))?;
    let mut command = Vec::new();
    for pair in query.split(|byte| *byte == b'&') {
        let at = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        let (key, value) = pair.split_at_checked(at).unwrap_or((pair, b""));
        if decoded(key) == b"command" {
            if !command.is_empty() {
                command.push(b' ');
            }
            command.extend(decoded(value.strip_prefix(b"=").unwrap_or(value)));
        }
    }
    (!command.is_empty()).then_some(command)
}

/// A part of a query string as forms encode it. What is no escape stays as it stands.
fn decoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        let digit = |at: usize| {
            let digit = after.get(at).and_then(|byte| char::from(*byte).to_digit(16))?;
            u8::try_from(digit).ok()
        };
        match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push(high << 4 | low);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                out.push(if *byte == b'+' { b' ' } else { *byte });
                rest = after;
            }
        }
    }
    out
}

/// `bulk` of the verb and of the parts of `objectRef`. The resources of no namespace are listed without
/// one, too; an event does not tell them apart.
#[must_use]
pub fn bulk(verb: &[u8], resource: &[u8], namespace: &[u8], name: &[u8]) -> bool {
    match verb {
        b"deletecollection" => true,
        b"list" | b"watch" => !resource.is_empty() && namespace.is_empty() && name.is_empty(),
        _ => false,
    }
}

/// `mutating` of the verb, also of the methods that stand for verbs of non-resource requests.
#[must_use]
pub fn mutating(verb: &[u8]) -> bool {
    matches!(
        verb,
        b"create" | b"update" | b"patch" | b"delete" | b"deletecollection" | b"post" | b"put"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actors_have_kinds() {
        for (username, kind) in [
            ("", ActorKind::None),
            ("alice@example.com", ActorKind::Human),
            ("kubernetes-admin", ActorKind::Human),
            ("system:admin", ActorKind::Human),
            ("system:anonymous", ActorKind::Anonymous),
            ("system:serviceaccount:ci:deployer", ActorKind::ServiceAccount),
            ("system:node:n1", ActorKind::Node),
            ("system:kube-scheduler", ActorKind::Component),
            ("system:apiserver", ActorKind::Component),
            ("eks:node-manager", ActorKind::Component),
        ] {
            assert_eq!(actor_kind(username.as_bytes()), kind, "{username}");
        }
    }

    #[test]
    fn refusals_have_authors() {
        use DeniedBy::{Authn, PodSecurity, Policy, Quota, Rbac, Webhook};
        for (code, decision, message, expected) in [
            (401, "", "Unauthorized", Some(Authn)),
            (
                403,
                "forbid",
                "pods is forbidden: User \"u\" cannot list",
                Some(Rbac),
            ),
            (
                403,
                "",
                "users \"x\" is forbidden: User \"u\" cannot impersonate resource",
                Some(Rbac),
            ),
            (
                403,
                "allow",
                "pods \"p\" is forbidden: violates PodSecurity \"restricted:latest\"",
                Some(PodSecurity),
            ),
            (
                422,
                "allow",
                "x is invalid: : ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no",
                Some(Policy),
            ),
            (
                400,
                "allow",
                "admission webhook \"w\" denied the request: no",
                Some(Webhook),
            ),
            (
                403,
                "allow",
                "pods \"p\" is forbidden: exceeded quota: q, requested: pods=1",
                Some(Quota),
            ),
            (403, "allow", "no reason", None),
            (404, "allow", "not found", None),
            (200, "allow", "", None),
        ] {
            assert_eq!(
                denied_by(Some(code), decision.as_bytes(), message.as_bytes()),
                expected,
                "{message}"
            );
        }
        assert_eq!(denied_by(None, b"forbid", b""), None);
    }

    #[test]
    fn clients_have_families() {
        for (agent, expected) in [
            ("kubectl/v1.36.3 (linux/amd64) kubernetes/1234567", "kubectl"),
            ("kubectl.exe/v1.30.0", "kubectl"),
            ("Mozilla/5.0 (X11)", "browser"),
            ("argocd-application-controller/v0.0.0", "argocd"),
            ("Go-http-client/2.0", "go-http-client"),
            ("Helm/3.18", "helm"),
            (
                "kube-controller-manager/v1.34.1 (linux/amd64)",
                "kube-controller-manager",
            ),
        ] {
            assert_eq!(
                client(agent.as_bytes()).as_deref(),
                Some(expected.as_bytes()),
                "{agent}"
            );
        }
        assert_eq!(client(b""), None);
        assert_eq!(client(b"/x"), None);
    }

    #[test]
    fn the_command_of_an_exec_is_decoded() {
        let uri = b"/api/v1/namespaces/n/pods/p/exec?command=sh&command=-c&command=rm+-rf%20%2F&stdin=true";
        assert_eq!(
            exec_command(b"exec", uri).as_deref(),
            Some(&b"sh -c rm -rf /"[..])
        );
        assert_eq!(exec_command(b"log", uri), None);
        assert_eq!(exec_command(b"exec", b"/x?command=%zz"), Some(b"%zz".to_vec()));
        assert_eq!(exec_command(b"exec", b"/x"), None);
    }

    #[test]
    fn bulk_and_mutating_follow_the_verb() {
        assert!(bulk(b"deletecollection", b"pods", b"n", b""));
        assert!(bulk(b"list", b"secrets", b"", b""));
        assert!(!bulk(b"list", b"secrets", b"n", b""));
        assert!(!bulk(b"watch", b"nodes", b"", b"n1"));
        assert!(!bulk(b"list", b"", b"", b""));
        assert!(mutating(b"deletecollection") && mutating(b"post") && !mutating(b"get") && !mutating(b""));
        assert_eq!(latency(Some(5), Some(9)), Some(4));
        assert_eq!(latency(None, Some(9)), None);
        assert_eq!(source_ip(["a", "b"]), Some("b"));
    }
}
