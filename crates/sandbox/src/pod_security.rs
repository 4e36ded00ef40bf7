//! Pod security standards: what a namespace's labels ask of its pods.
//!
//! Source: k8s.io/pod-security-admission admission/admission.go, api/helpers.go.

mod checks;

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::kinds::Kind;
use crate::object::{items, text};
use crate::status::Cause;

const PREFIX: &str = "pod-security.kubernetes.io/";
/// Pods that are looked at when a namespace's level changes.
const POD_LIMIT: usize = 3000;

/// How much a pod may ask for, from anything to little.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// The release whose rules apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    /// `v1.<n>`.
    Minor(u32),
    Latest,
}

/// A level as it was at a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standard {
    pub(crate) level: Level,
    pub(crate) version: Version,
}

/// What happens to a pod that breaks a standard: it is refused, noted, or its author is warned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Modes {
    pub(crate) enforce: Standard,
    pub(crate) audit: Standard,
    pub(crate) warn: Standard,
}

/// What comes of looking at one pod or template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Audit annotations: key and value.
    pub(crate) annotations: Vec<(String, String)>,
    pub(crate) warning: Option<String>,
    /// Why the pod is refused.
    pub(crate) refusal: Option<String>,
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "privileged" => Self::Privileged,
            "baseline" => Self::Baseline,
            "restricted" => Self::Restricted,
            _ => return None,
        })
    }
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        if text == "latest" {
            return Some(Self::Latest);
        }
        let minor = text.strip_prefix("v1.")?;
        let is_plain =
            minor.bytes().all(|byte| byte.is_ascii_digit()) && (minor == "0" || !minor.starts_with('0'));
        is_plain.then(|| minor.parse().ok().map(Self::Minor))?
    }
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.level {
            Level::Privileged => "privileged:",
            Level::Baseline => "baseline:",
            Level::Restricted => "restricted:",
        })?;
        match self.version {
            Version::Minor(minor) => write!(f, "v1.{minor}"),
            Version::Latest => f.write_str("latest"),
        }
    }
}

impl Standard {
    const PRIVILEGED: Self = Self {
        level: Level::Privileged,
        version: Version::Latest,
    };

    #[cfg(test)]
    fn parse(text: &str) -> Option<Self> {
        let (level, version) = text.split_once(':')?;
        Some(Self {
            level: Level::parse(level)?,
            version: Version::parse(version)?,
        })
    }

    /// Each rule that a pod breaks, with what breaks it; `None` if it breaks none.
    pub(crate) fn violations(self, pod: &Value) -> Option<String> {
        let broken = checks::broken(self, pod);
        let texts: Vec<String> = broken
            .iter()
            .map(|broken| format!("{} ({})", broken.rule, broken.detail))
            .collect();
        (!texts.is_empty()).then(|| texts.join(", "))
    }
}

impl Modes {
    /// The modes of a namespace; labels that say nothing sensible are causes, and taken strictly.
    pub(crate) fn of(namespace: &Value) -> (Self, Vec<Cause>) {
        let label = |name: &str| {
            let labels = namespace.pointer("/metadata/labels")?;
            labels.get(format!("{PREFIX}{name}"))?.as_str()
        };
        let mut causes = Vec::new();
        let mut invalid = |name: &str, value: &str, detail: &str| {
            causes.push(Cause::invalid(
                format!("metadata.labels[{PREFIX}{name}]"),
                &Value::from(value),
                detail,
            ));
        };
        let mut standard = |name: &str, otherwise: Level| {
            let mut out = Standard::PRIVILEGED;
            let mut is_set = false;
            if let Some(value) = label(name) {
                let level = Level::parse(value);
                is_set = level.is_some();
                out.level = level.unwrap_or(otherwise);
                if level.is_none() {
                    invalid(name, value, "must be one of privileged, baseline, restricted");
                }
            }
            let key = format!("{name}-version");
            if let Some(value) = label(&key) {
                let version = Version::parse(value);
                out.version = version.unwrap_or(Version::Latest);
                if version.is_none() {
                    invalid(&key, value, "must be \"latest\" or \"v1.x\"");
                }
            }
            (out, is_set)
        };
        let (enforce, enforces) = standard("enforce", Level::Restricted);
        let (audit, _) = standard("audit", Level::Privileged);
        let (mut warn, _) = standard("warn", Level::Privileged);
        // What is enforced on pods is told at once to those who write their templates.
        if label("warn").is_none() && enforces && enforce.level > warn.level {
            warn.level = enforce.level;
            if label("warn-version").is_none() {
                warn.version = enforce.version;
            }
        }
        (Self { enforce, audit, warn }, causes)
    }

    fn all_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn]
            .iter()
            .all(|standard| standard.level == Level::Privileged)
    }
}

/// Looks at a pod that is created or changed in a namespace.
pub(crate) fn pod(namespace: &Value, pod: &Value, before: Option<&Value>) -> Verdict {
    let (modes, causes) = Modes::of(namespace);
    if causes.is_empty() && modes.all_privileged() {
        return Verdict {
            annotations: vec![enforced(Standard::PRIVILEGED)],
            ..Verdict::default()
        };
    }
    if before.is_some_and(|before| !is_significant(pod, before)) {
        return Verdict::default();
    }
    let mut verdict = Verdict::default();
    note_errors(&mut verdict, &causes);
    verdict.annotations.push(enforced(modes.enforce));
    verdict.refusal = modes
        .enforce
        .violations(pod)
        .map(|violations| format!("violates PodSecurity \"{}\": {violations}", modes.enforce));
    note_and_warn(&mut verdict, &modes, pod);
    verdict
}

/// Looks at an object that makes pods; it is never refused.
pub(crate) fn controller(namespace: &Value, kind: &Kind, object: &Value) -> Verdict {
    let mut verdict = Verdict::default();
    let (modes, causes) = Modes::of(namespace);
    let silent = modes.warn.level == Level::Privileged && modes.audit.level == Level::Privileged;
    if causes.is_empty() && silent {
        return verdict;
    }
    if let Some(template) = template(kind, object) {
        note_errors(&mut verdict, &causes);
        note_and_warn(&mut verdict, &modes, template);
    }
    verdict
}

/// The template of the pods that an object makes.
fn template<'a>(kind: &Kind, object: &'a Value) -> Option<&'a Value> {
    match (&*kind.group, &*kind.plural) {
        ("", "podtemplates") => object.get("template"),
        ("", "replicationcontrollers")
        | ("apps", "replicasets" | "deployments" | "statefulsets" | "daemonsets")
        | ("batch", "jobs") => object.pointer("/spec/template"),
        ("batch", "cronjobs") => object.pointer("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

fn enforced(standard: Standard) -> (String, String) {
    (format!("{PREFIX}enforce-policy"), standard.to_string())
}

fn note_errors(verdict: &mut Verdict, causes: &[Cause]) {
    let texts: Vec<String> = causes
        .iter()
        .map(|cause| format!("{}: {}", cause.field, cause.message))
        .collect();
    let text = match texts.as_slice() {
        [] => return,
        [only] => only.clone(),
        several => format!("[{}]", several.join(", ")),
    };
    verdict.annotations.push((
        format!("{PREFIX}error"),
        format!("Failed to parse policy: {text}"),
    ));
}

fn note_and_warn(verdict: &mut Verdict, modes: &Modes, pod: &Value) {
    let would = |standard: Standard| {
        let violations = standard.violations(pod)?;
        Some(format!("would violate PodSecurity \"{standard}\": {violations}"))
    };
    if let Some(text) = would(modes.audit) {
        verdict
            .annotations
            .push((format!("{PREFIX}audit-violations"), text));
    }
    // Who is refused needs no warning.
    if verdict.refusal.is_none() {
        verdict.warning = would(modes.warn);
    }
}

/// Only new containers and new images are looked at again.
fn is_significant(pod: &Value, before: &Value) -> bool {
    let images = |object: &Value, list: &str| -> Vec<(String, String)> {
        items(object, &format!("/spec/{list}"))
            .map(|container| {
                (
                    text(container, "/name").to_owned(),
                    text(container, "/image").to_owned(),
                )
            })
            .collect()
    };
    let old = images(before, "ephemeralContainers");
    ["containers", "initContainers"].iter().any(|list| {
        let (new, old) = (images(pod, list), images(before, list));
        new.len() != old.len() || new.iter().zip(&old).any(|(new, old)| new.1 != old.1)
    }) || images(pod, "ephemeralContainers")
        .iter()
        .any(|container| !old.contains(container))
}

/// Warnings about pods that a namespace's new level would not admit.
///
/// Source: admission.go, ValidateNamespace, EvaluatePodsInNamespace.
pub(crate) fn namespace_warnings<'a>(
    namespace: &Value,
    before: &Value,
    pods: impl ExactSizeIterator<Item = &'a Value>,
) -> Vec<String> {
    let (new, old) = (Modes::of(namespace).0.enforce, Modes::of(before).0.enforce);
    let relaxed = new.version == old.version && new.level <= old.level;
    if new == old || new.level == Level::Privileged || relaxed {
        return Vec::new();
    }
    let total = pods.len();
    // Pods that break the same rules share a warning: the first name, and how many there are.
    let mut broken: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for pod in pods.take(POD_LIMIT) {
        let rules: Vec<&str> = checks::broken(new, pod)
            .iter()
            .map(|broken| broken.rule)
            .collect();
        if rules.is_empty() {
            continue;
        }
        let name = text(pod, "/metadata/name");
        let (first, count) = broken
            .entry(rules.join(", "))
            .or_insert_with(|| (name.to_owned(), 0));
        *count += 1;
        if name < first.as_str() {
            name.clone_into(first);
        }
    }
    let mut out = Vec::new();
    if total > POD_LIMIT {
        out.push(format!(
            "new PodSecurity enforce level only checked against the first {POD_LIMIT} of {total} existing pods"
        ));
    }
    if !broken.is_empty() {
        let name = text(namespace, "/metadata/name");
        out.push(format!(
            "existing pods in namespace \"{name}\" violate the new PodSecurity enforce level \"{new}\""
        ));
    }
    let mut lines: Vec<String> = broken
        .into_iter()
        .map(|(rules, (name, count))| match count {
            1 => format!("{name}: {rules}"),
            2 => format!("{name} (and 1 other pod): {rules}"),
            _ => format!("{name} (and {} other pods): {rules}", count - 1),
        })
        .collect();
    lines.sort_unstable();
    out.append(&mut lines);
    out
}

#[cfg(test)]
mod tests;
