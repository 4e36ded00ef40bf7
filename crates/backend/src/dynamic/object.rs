//! AuditSink objects: what a sink wants to see, and where it is.
//!
//! Source: release-1.18 of k8s.io/api auditregistration/v1alpha1/types.go, and of kubernetes
//! pkg/apis/auditregistration/validation/validation.go.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kaudit_event::{Level, Stage, StageSet};
use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::Throttle;

/// The group and version of the objects.
pub const API_VERSION: &str = "auditregistration.k8s.io/v1alpha1";

/// A larger file of objects is refused unread.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// What a throttle is that is not stated.
const DEFAULT_THROTTLE: Throttle = Throttle { qps: 10.0, burst: 15 };

/// A sink that was registered: a policy of one level, and a webhook.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct AuditSink {
    /// `metadata.name`, a DNS subdomain.
    pub name: String,
    /// How much of each request the sink sees.
    pub level: Level,
    /// The stages that it sees.
    pub stages: StageSet,
    /// How often batches are delivered.
    pub throttle: Throttle,
    /// Where they are delivered to: `http` or `https`, without user, query or fragment.
    pub url: String,
    /// The authorities that the receiver's certificate is held to, PEM; the public ones without.
    pub ca_bundle: Option<Vec<u8>>,
}

/// Whether a service can be found by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "in or out")]
pub enum Surroundings {
    /// In a pod, where the cluster's DNS answers.
    Cluster,
    /// Anywhere else.
    Outside,
}

/// Why a document is no AuditSink.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub struct InvalidSink {
    /// `metadata.name`, as far as it could be read.
    pub name: Option<String>,
    /// The line in the file, from 1.
    pub line: usize,
    /// What is wrong, and what to write.
    pub reason: String,
}

impl fmt::Display for InvalidSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        if let Some(name) = &self.name {
            write!(f, "AuditSink `{name}`: ")?;
        }
        f.write_str(&self.reason)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Object {
    api_version: Option<Spanned<String>>,
    kind: Option<Spanned<String>>,
    #[serde(default)]
    metadata: Metadata,
    spec: Option<Spanned<Spec>>,
    #[serde(default, rename = "status")]
    _status: serde::de::IgnoredAny,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    policy: Option<Spanned<Policy>>,
    webhook: Option<Spanned<Webhook>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    level: Option<Spanned<String>>,
    #[serde(default)]
    stages: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Webhook {
    throttle: Option<ThrottleConfig>,
    client_config: Option<Spanned<ClientConfig>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ThrottleConfig {
    qps: Option<Spanned<i64>>,
    burst: Option<Spanned<i64>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ClientConfig {
    url: Option<Spanned<String>>,
    service: Option<Spanned<Service>>,
    ca_bundle: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    namespace: String,
    name: String,
    path: Option<String>,
    port: Option<u16>,
}

/// A complaint before it knows which object it is about.
struct Complaint {
    line: usize,
    reason: String,
}

impl Complaint {
    fn at<T>(place: &Spanned<T>, reason: impl Into<String>) -> Self {
        Self {
            line: line_of(place),
            reason: reason.into(),
        }
    }
}

fn line_of<T>(place: &Spanned<T>) -> usize {
    usize::try_from(place.referenced.line())
        .unwrap_or(usize::MAX)
        .max(1)
}

impl AuditSink {
    /// Every document of a YAML or JSON file, each by itself: a bad one does not cost its neighbours.
    /// Documents without content are left out.
    ///
    /// # Errors
    ///
    /// [`InvalidSink`] for each document that is no valid AuditSink. Unknown fields are errors.
    #[must_use]
    pub fn parse_all(text: &str, surroundings: Surroundings) -> Vec<Result<Self, InvalidSink>> {
        let documents = Self::parse_documents(text, surroundings);
        documents.into_iter().map(|(object, _)| object).collect()
    }

    /// As [`AuditSink::parse_all`], each with the text of its document.
    ///
    /// # Errors
    ///
    /// [`InvalidSink`] for each document that is no valid AuditSink.
    #[must_use]
    pub fn parse_documents(
        text: &str,
        surroundings: Surroundings,
    ) -> Vec<(Result<Self, InvalidSink>, String)> {
        documents(text)
            .into_iter()
            .filter(|(_, document)| has_content(document))
            .map(|(first_line, document)| {
                let object = Self::parse(&document, surroundings).map_err(|mut invalid| {
                    invalid.line += first_line;
                    invalid
                });
                (object, document)
            })
            .collect()
    }

    fn parse(document: &str, surroundings: Surroundings) -> Result<Self, InvalidSink> {
        let object: Object = serde_saphyr::from_str(document).map_err(|error| {
            let error = error.without_snippet();
            InvalidSink {
                name: None,
                line: error
                    .location()
                    .and_then(|at| usize::try_from(at.line()).ok())
                    .unwrap_or(1),
                reason: error.to_string(),
            }
        })?;
        let name = object.metadata.name.as_ref().map(|name| name.value.clone());
        object
            .check(surroundings)
            .map_err(|Complaint { line, reason }| InvalidSink { name, line, reason })
    }
}

impl Object {
    fn check(self, surroundings: Surroundings) -> Result<AuditSink, Complaint> {
        let missing = |line: usize, what: &str| Complaint {
            line,
            reason: format!("{what} is required"),
        };
        let api_version = self.api_version.ok_or_else(|| missing(1, "apiVersion"))?;
        if api_version.value != API_VERSION {
            return Err(Complaint::at(
                &api_version,
                format!(
                    "apiVersion `{}` is not served: write `{API_VERSION}`",
                    api_version.value
                ),
            ));
        }
        let kind = self.kind.ok_or_else(|| missing(line_of(&api_version), "kind"))?;
        if kind.value != "AuditSink" {
            return Err(Complaint::at(
                &kind,
                format!("kind `{}` is no sink: write `AuditSink`", kind.value),
            ));
        }
        let name = self
            .metadata
            .name
            .ok_or_else(|| missing(line_of(&kind), "metadata.name"))?;
        if !is_subdomain(&name.value) {
            return Err(Complaint::at(
                &name,
                "metadata.name is no DNS subdomain: lower-case letters, digits, `-` and `.` only",
            ));
        }
        let spec = self.spec.ok_or_else(|| missing(line_of(&name), "spec"))?;
        let place = line_of(&spec);
        let policy = spec.value.policy.ok_or_else(|| missing(place, "spec.policy"))?;
        let webhook = spec.value.webhook.ok_or_else(|| missing(place, "spec.webhook"))?;
        let (level, stages) = check_policy(policy)?;
        let (throttle, url, ca_bundle) = check_webhook(webhook, surroundings)?;
        Ok(AuditSink {
            name: name.value,
            level,
            stages,
            throttle,
            url,
            ca_bundle,
        })
    }
}

fn check_policy(policy: Spanned<Policy>) -> Result<(Level, StageSet), Complaint> {
    let place = line_of(&policy);
    let Policy { level, stages } = policy.value;
    let level = level.ok_or_else(|| Complaint {
        line: place,
        reason: "spec.policy.level is required: None, Metadata, Request or RequestResponse".to_owned(),
    })?;
    let known = Level::from_name(level.value.as_bytes()).ok_or_else(|| {
        Complaint::at(
            &level,
            format!(
                "spec.policy.level `{}` is none of None, Metadata, Request, RequestResponse",
                level.value
            ),
        )
    })?;
    let mut set = StageSet::EMPTY;
    for stage in &stages {
        let known = Stage::from_name(stage.value.as_bytes()).ok_or_else(|| {
            Complaint::at(
                stage,
                format!(
                    "spec.policy.stages: `{}` is none of RequestReceived, ResponseStarted, ResponseComplete, Panic",
                    stage.value
                ),
            )
        })?;
        set = set.with(known);
    }
    if known != Level::None && stages.is_empty() {
        return Err(Complaint::at(
            &level,
            "spec.policy.stages is required: list the stages that the sink is to see, for example [ResponseComplete]",
        ));
    }
    Ok((known, set))
}

type Where = (Throttle, String, Option<Vec<u8>>);

fn check_webhook(webhook: Spanned<Webhook>, surroundings: Surroundings) -> Result<Where, Complaint> {
    let place = line_of(&webhook);
    let throttle = check_throttle(webhook.value.throttle)?;
    let config = webhook.value.client_config.ok_or_else(|| Complaint {
        line: place,
        reason: "spec.webhook.clientConfig is required".to_owned(),
    })?;
    let url = match (&config.value.url, &config.value.service) {
        (Some(url), None) => {
            check_url(&url.value).map_err(|why| {
                Complaint::at(
                    url,
                    format!("spec.webhook.clientConfig.url `{}` {why}", url.value),
                )
            })?;
            url.value.clone()
        }
        (None, Some(service)) => service_url(service, surroundings)?,
        (Some(_), Some(service)) => {
            return Err(Complaint::at(
                service,
                "spec.webhook.clientConfig has both url and service: keep one",
            ));
        }
        (None, None) => {
            return Err(Complaint::at(
                &config,
                "spec.webhook.clientConfig needs a url, for example https://receiver.example.com/audit",
            ));
        }
    };
    let ca_bundle = match config.value.ca_bundle {
        None => None,
        Some(bundle) => {
            let letters: String = bundle.value.split_ascii_whitespace().collect();
            let pem = STANDARD.decode(letters).map_err(|_| {
                Complaint::at(
                    &bundle,
                    "spec.webhook.clientConfig.caBundle is not base64: encode the PEM file with `base64 -w0`",
                )
            })?;
            (!pem.is_empty()).then_some(pem)
        }
    };
    Ok((throttle, url, ca_bundle))
}

fn check_throttle(config: Option<ThrottleConfig>) -> Result<Throttle, Complaint> {
    let Some(ThrottleConfig { qps, burst }) = config else {
        return Ok(DEFAULT_THROTTLE);
    };
    let positive = |value: Option<Spanned<i64>>, what: &str| match value {
        None => Ok(None),
        Some(value) => u16::try_from(value.value)
            .ok()
            .filter(|value| *value > 0)
            .map(Some)
            .ok_or_else(|| {
                let reason = format!(
                    "spec.webhook.throttle.{what} must be a positive number up to {}",
                    u16::MAX
                );
                Complaint::at(&value, reason)
            }),
    };
    Ok(Throttle {
        qps: positive(qps, "qps")?.map_or(DEFAULT_THROTTLE.qps, f32::from),
        burst: positive(burst, "burst")?.map_or(DEFAULT_THROTTLE.burst, u32::from),
    })
}

/// Source: k8s.io/apiserver pkg/util/webhook/validation.go, ValidateWebhookURL.
fn check_url(url: &str) -> Result<(), &'static str> {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"))
        .ok_or("does not begin with https:// or http://")?;
    if url.contains('#') {
        return Err("has a fragment, which no server sees");
    }
    if url.contains('?') {
        return Err("has query parameters, which are not allowed");
    }
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.contains('@') {
        return Err("has a user in it, which is not allowed");
    }
    if authority.is_empty() || authority.starts_with(':') {
        return Err("has no host");
    }
    Ok(())
}

fn service_url(service: &Spanned<Service>, surroundings: Surroundings) -> Result<String, Complaint> {
    let Service {
        namespace,
        name,
        path,
        port,
    } = &service.value;
    if !is_subdomain(namespace) || !is_subdomain(name) {
        return Err(Complaint::at(
            service,
            "spec.webhook.clientConfig.service needs a name and a namespace",
        ));
    }
    let path = path.as_deref().unwrap_or_default();
    let path = if path.is_empty() || path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    let url = format!("https://{name}.{namespace}.svc:{}{path}", port.unwrap_or(443));
    match surroundings {
        Surroundings::Cluster => Ok(url),
        Surroundings::Outside => Err(Complaint::at(
            service,
            format!(
                "spec.webhook.clientConfig.service can only be found inside its cluster: write a url that leads \
                 there in its place (inside, it would be {url})"
            ),
        )),
    }
}

/// Source: k8s.io/apimachinery pkg/util/validation/validation.go, IsDNS1123Subdomain.
fn is_subdomain(name: &str) -> bool {
    name.len() <= 253
        && name.split('.').all(|label| {
            let letters = label.as_bytes();
            let is_end = |byte: Option<&u8>| {
                byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
            };
            is_end(letters.first())
                && is_end(letters.last())
                && letters
                    .iter()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
        })
}

/// The documents of a YAML stream, each with the number of lines before it. A line that begins with `---`
/// ends whatever stands before it.
fn documents(text: &str) -> Vec<(usize, String)> {
    let mut documents = vec![(0, String::new())];
    for (number, line) in text.lines().enumerate() {
        let is_marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t']));
        if is_marker {
            documents.push((number, String::new()));
        }
        if let Some((_, document)) = documents.last_mut() {
            document.push_str(if is_marker {
                line.trim_start_matches('-')
            } else {
                line
            });
            document.push('\n');
        }
    }
    documents
}

fn has_content(document: &str) -> bool {
    document
        .lines()
        .map(str::trim)
        .any(|line| !line.is_empty() && !line.starts_with('#') && line != "...")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "apiVersion: auditregistration.k8s.io/v1alpha1
kind: AuditSink
metadata:
  name: siem
  labels: {team: sec}
spec:
  policy:
    level: Request
    stages: [ResponseComplete, Panic]
  webhook:
    throttle: {qps: 5}
    clientConfig:
      url: https://siem.example.com:8443/audit
      caBundle: aGVsbG8=
";

    fn parse(text: &str) -> Result<AuditSink, InvalidSink> {
        AuditSink::parse_all(text, Surroundings::Outside).remove(0)
    }

    #[test]
    fn an_object_is_read_whole() {
        let sink = parse(GOOD).unwrap();
        assert_eq!(sink.name, "siem");
        assert_eq!(sink.level, Level::Request);
        assert_eq!(
            sink.stages,
            StageSet::EMPTY.with(Stage::ResponseComplete).with(Stage::Panic)
        );
        assert_eq!(sink.throttle, Throttle { qps: 5.0, burst: 15 });
        assert_eq!(sink.url, "https://siem.example.com:8443/audit");
        assert_eq!(sink.ca_bundle.as_deref(), Some(&b"hello"[..]));
    }

    #[track_caller]
    fn refused(from: &str, to: &str, line: usize, reason: &str) {
        assert!(GOOD.contains(from), "`{from}` is not in the object");
        let invalid = parse(&GOOD.replace(from, to)).unwrap_err();
        assert_eq!(invalid.line, line, "{invalid}");
        assert!(invalid.reason.contains(reason), "{invalid}");
    }

    #[test]
    fn mistakes_are_named_with_their_line_and_what_to_write() {
        refused("v1alpha1", "v1", 1, "write `auditregistration.k8s.io/v1alpha1`");
        refused("kind: AuditSink", "kind: AuditSinks", 2, "write `AuditSink`");
        refused("name: siem", "name: SIEM", 4, "no DNS subdomain");
        refused("level: Request", "level: Requests", 8, "none of None, Metadata");
        refused("    level: Request\n", "", 8, "spec.policy.level is required");
        refused("Panic]", "Panics]", 9, "`Panics` is none of");
        refused(
            "[ResponseComplete, Panic]",
            "[]",
            8,
            "spec.policy.stages is required",
        );
        refused("qps: 5", "qps: 0", 11, "must be a positive number");
        refused("qps: 5", "qbs: 5", 11, "qbs");
        refused(
            "https://siem.example.com:8443/audit",
            "ftp://x",
            13,
            "does not begin",
        );
        refused(":8443/audit", "/a?b=c", 13, "query parameters");
        refused("siem.example.com:8443", "u@siem", 13, "user");
        refused("siem.example.com:8443", ":8443", 13, "no host");
        refused("aGVsbG8=", "'-----BEGIN'", 14, "not base64");
        refused(
            "url: https://siem.example.com:8443/audit",
            "service: {namespace: a, name: b}",
            13,
            "inside, it would be https://b.a.svc:443",
        );
    }

    #[test]
    fn a_service_is_found_by_its_name_inside_the_cluster() {
        let text = GOOD.replace(
            "url: https://siem.example.com:8443/audit",
            "service: {namespace: a, name: b, path: x/y, port: 8443}",
        );
        let sink = AuditSink::parse_all(&text, Surroundings::Cluster)
            .remove(0)
            .unwrap();
        assert_eq!(sink.url, "https://b.a.svc:8443/x/y");
    }

    #[test]
    fn a_bad_document_does_not_cost_its_neighbours_and_is_named_by_its_line_in_the_file() {
        let text = format!(
            "# three sinks\n---\n{GOOD}--- # the second\n{}---\n\n# nothing\n---\n{}",
            GOOD.replace("name: siem", "name: two")
                .replace("Request\n", "Everything\n"),
            GOOD.replace("name: siem", "name: three"),
        );
        let all = AuditSink::parse_all(&text, Surroundings::Outside);
        assert_eq!(all.len(), 3);
        assert_eq!(all[0].as_ref().unwrap().name, "siem");
        let invalid = all[1].as_ref().unwrap_err();
        assert_eq!(invalid.name.as_deref(), Some("two"));
        let line = text.lines().position(|line| line.contains("Everything")).unwrap() + 1;
        assert_eq!(invalid.line, line);
        assert_eq!(all[2].as_ref().unwrap().name, "three");
    }

    #[test]
    fn json_is_read_too() {
        let json = r#"{"apiVersion":"auditregistration.k8s.io/v1alpha1","kind":"AuditSink","metadata":{"name":"j"},
            "spec":{"policy":{"level":"None"},"webhook":{"clientConfig":{"url":"http://127.0.0.1:1/"}}}}"#;
        assert_eq!(parse(json).unwrap().level, Level::None);
    }
}
