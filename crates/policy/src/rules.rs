//! The policy itself: loaded as upstream loads it, compiled for matching.

mod compiled;
mod decode;
mod document;
mod explain;
mod format;
mod json;
mod lint;
mod presets;
mod validate;
mod yaml;

use kaudit_event::{Level, StageSet};

use crate::{Attributes, RequestAuditConfig};
use compiled::Compiled;
use decode::{Draft, DraftRule};
pub use document::Position;
use document::{Node, Value, quoted};
pub use explain::{Condition, Explanation, PassedOver};
pub use format::{FormatError, format};
pub use lint::{Finding, LintCode, Severity, lint};
pub use presets::Preset;

/// A larger document is refused unread.
pub const MAX_POLICY_BYTES: usize = 3 << 20;

/// A valid audit policy, compiled for matching.
#[derive(Clone, Debug)]
pub struct Policy {
    name: String,
    omit_stages: Vec<Stated<kaudit_event::Stage>>,
    omit_managed_fields: bool,
    rules: Vec<PolicyRule>,
    compiled: Compiled,
}

/// A value and where it stands in the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stated<T> {
    /// The value.
    pub value: T,
    /// Its place.
    pub at: Position,
}

/// One rule; empty lists set no condition.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PolicyRule {
    /// Where the rule begins.
    pub at: Position,
    /// How much is recorded.
    pub level: Stated<Level>,
    /// User names.
    pub users: Vec<Stated<String>>,
    /// Groups, of which the user is in at least one.
    pub user_groups: Vec<Stated<String>>,
    /// Verbs.
    pub verbs: Vec<Stated<String>>,
    /// Resources by group.
    pub resources: Vec<GroupResources>,
    /// Namespaces; `""` is the request without one.
    pub namespaces: Vec<Stated<String>>,
    /// Paths, with a trailing `*` for prefixes.
    pub non_resource_urls: Vec<Stated<String>>,
    /// Stages that make no event, beside the policy's.
    pub omit_stages: Vec<Stated<kaudit_event::Stage>>,
    /// Overrides the policy's.
    pub omit_managed_fields: Option<bool>,
}

/// Resources of one API group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupResources {
    /// Where the entry begins.
    pub at: Position,
    /// The group; empty for the core group, `*` for every group.
    pub group: Stated<String>,
    /// Patterns; none means every resource of the group.
    pub resources: Vec<Stated<String>>,
    /// Names; none means every name.
    pub resource_names: Vec<Stated<String>>,
}

/// What strict decoding complained about although the policy was accepted: upstream's log line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Warnings(pub Vec<String>);

/// Why a document is not a policy. The text of version and validation errors is upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The document cannot be decoded.
    #[error("failed decoding: {0}")]
    Decode(String),
    /// It says neither `audit.k8s.io/v1` nor anything else.
    #[error("unknown group version field {0} in policy")]
    Version(String),
    /// It can be decoded and is not valid.
    #[error("{}", aggregate(.0))]
    Invalid(Vec<String>),
    /// It has no rules.
    #[error("loaded illegal policy with 0 rules")]
    NoRules,
    /// It is larger than [`MAX_POLICY_BYTES`].
    #[error("the policy has {0} bytes, more than {MAX_POLICY_BYTES}")]
    TooLarge(usize),
}

impl PolicyError {
    /// The text for a policy that came from a file.
    #[must_use]
    pub fn from_file(&self, path: &str) -> String {
        format!("{self}: from file {path}")
    }
}

/// Upstream's text for a file that cannot be read, given the system's words for why.
#[must_use]
pub fn unreadable_file(path: &str, error: &str) -> String {
    if path.is_empty() {
        return "file path not specified".to_owned();
    }
    format!("failed to read file path {}: {error}", quoted(path))
}

/// Several errors in brackets, one bare, repetitions once.
fn aggregate(errors: &[String]) -> String {
    match errors {
        [single] => single.clone(),
        several => format!("[{}]", several.join(", ")),
    }
}

impl Policy {
    /// Loads a policy from YAML or JSON: strictly first, and where only that fails, leniently with
    /// warnings.
    ///
    /// Source: k8s.io/apiserver pkg/audit/policy/reader.go, LoadPolicyFromBytes.
    ///
    /// # Errors
    ///
    /// [`PolicyError`] for what kube-apiserver refuses to start with.
    pub fn parse(document: &[u8]) -> Result<(Self, Warnings), PolicyError> {
        let (outcome, warnings) = Self::load(document);
        outcome.map(|policy| (policy, warnings))
    }

    /// As [`Policy::parse`], with the warnings also of documents that are refused.
    #[must_use = "a policy that is not looked at records nothing"]
    pub fn load(document: &[u8]) -> (Result<Self, PolicyError>, Warnings) {
        let mut warnings = Warnings::default();
        let outcome = load(document, &mut warnings);
        (outcome, warnings)
    }

    /// How a request with these attributes is recorded: the first matching rule decides.
    #[must_use]
    pub fn evaluate(&self, attributes: &Attributes<'_>) -> RequestAuditConfig {
        self.compiled.evaluate(attributes)
    }

    /// `metadata.name`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The rules in the order they are tried.
    #[must_use]
    pub fn rules(&self) -> &[PolicyRule] {
        &self.rules
    }

    /// Stages that make no event, whichever rule matches; as written, with repetitions.
    #[must_use]
    pub fn omit_stages(&self) -> &[Stated<kaudit_event::Stage>] {
        &self.omit_stages
    }

    /// Whether `metadata.managedFields` is left out, where no rule says otherwise.
    #[must_use]
    pub const fn omit_managed_fields(&self) -> bool {
        self.omit_managed_fields
    }
}

fn load(document: &[u8], warnings: &mut Warnings) -> Result<Policy, PolicyError> {
    if document.len() > MAX_POLICY_BYTES {
        return Err(PolicyError::TooLarge(document.len()));
    }
    let (root, mut strict_errors) = read(document)?;
    let (api_version, kind) = type_meta(&root)?;
    let version = check_kind(&api_version, &kind)?;
    let decoded = decode::decode(&root);
    match version {
        Version::V1 => {
            if let Some(error) = decoded.wrong_types.first() {
                return Err(PolicyError::Decode(error.message.clone()));
            }
            strict_errors.extend(decoded.strict.iter().map(|error| {
                let kind = match error.kind {
                    decode::StrictKind::Unknown => "unknown",
                    decode::StrictKind::Repeated => "duplicate",
                };
                format!("{kind} field {}", quoted(&error.path))
            }));
        }
        Version::Internal => {
            if let Value::Map(members) = &root.value {
                let unknown = members
                    .iter()
                    .filter(|member| !matches!(member.key.as_str(), "kind" | "apiVersion"));
                strict_errors.extend(unknown.map(|member| format!("unknown field {}", quoted(&member.key))));
            }
        }
    }
    if !strict_errors.is_empty() {
        warnings.0.push(format!(
            "Audit policy contains errors, falling back to lenient decoding: strict decoding error: {}",
            strict_errors.join(", ")
        ));
    }
    if version == Version::Internal {
        return Err(PolicyError::Version(
            "audit.k8s.io/__internal, Kind=Policy".to_owned(),
        ));
    }
    let mut invalid: Vec<String> = Vec::new();
    for error in validate::validate(&decoded.draft) {
        if !invalid.contains(&error.message) {
            invalid.push(error.message);
        }
    }
    if !invalid.is_empty() {
        return Err(PolicyError::Invalid(invalid));
    }
    if decoded.draft.rules.is_empty() {
        return Err(PolicyError::NoRules);
    }
    Ok(Policy::from_draft(decoded.draft))
}

/// The document's tree, and YAML's complaints about repeated keys as one strict error.
fn read(document: &[u8]) -> Result<(Node, Vec<String>), PolicyError> {
    let is_json = String::from_utf8_lossy(document).trim_start().starts_with('{');
    if is_json {
        let root = json::read(document).map_err(|error| {
            PolicyError::Decode(format!("couldn't get version/kind; json parse error: {error}"))
        })?;
        return Ok((root, Vec::new()));
    }
    let read = yaml::read(document).map_err(PolicyError::Decode)?;
    let repeated = match read.repeated_keys.as_slice() {
        [] => Vec::new(),
        keys => vec![format!("yaml: unmarshal errors:\n  {}", keys.join("\n  "))],
    };
    Ok((read.root, repeated))
}

/// `apiVersion` and `kind`, whatever the case of their names.
fn type_meta(root: &Node) -> Result<(String, String), PolicyError> {
    const GO_TYPE: &str = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
    let unreadable =
        |error: String| PolicyError::Decode(format!("couldn't get version/kind; json parse error: {error}"));
    let (mut api_version, mut kind) = (String::new(), String::new());
    match &root.value {
        Value::Null => {}
        Value::Map(members) => {
            for member in members {
                let into = match member.key.to_lowercase().as_str() {
                    "apiversion" => &mut api_version,
                    "kind" => &mut kind,
                    _ => continue,
                };
                match &member.node.value {
                    Value::String(text) => into.clone_from(text),
                    Value::Null => {}
                    other => {
                        return Err(unreadable(format!(
                            "json: cannot unmarshal {} into Go struct field .{} of type string",
                            other.kind(),
                            member.key
                        )));
                    }
                }
            }
        }
        other => {
            return Err(unreadable(format!(
                "json: cannot unmarshal {} into Go value of type {GO_TYPE}",
                other.kind()
            )));
        }
    }
    Ok((api_version, kind))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    /// No version was given: upstream decodes into its internal type and refuses it afterwards.
    Internal,
}

fn check_kind(api_version: &str, kind: &str) -> Result<Version, PolicyError> {
    const SCHEME: &str = "in scheme \"pkg/audit/scheme.go:30\"";
    let kind = if kind.is_empty() { "Policy" } else { kind };
    let unknown_conversion = || {
        PolicyError::Decode(format!(
            "converting (v1.{kind}) to (audit.Policy): unknown conversion"
        ))
    };
    match (api_version, kind) {
        ("audit.k8s.io/v1", "Policy") => Ok(Version::V1),
        ("" | "audit.k8s.io/__internal", "Policy") => Ok(Version::Internal),
        (
            "audit.k8s.io/v1",
            "Event" | "EventList" | "PolicyList" | "WatchEvent" | "ListOptions" | "GetOptions"
            | "DeleteOptions" | "CreateOptions" | "UpdateOptions" | "PatchOptions",
        )
        | ("v1", "Status" | "APIVersions" | "APIGroup" | "APIGroupList" | "APIResourceList") => {
            Err(unknown_conversion())
        }
        ("", _) => Err(PolicyError::Decode(format!(
            "no kind {} is registered for the internal version of group \"audit.k8s.io\" {SCHEME}",
            quoted(kind)
        ))),
        (version, _) if version.matches('/').count() > 1 => Err(PolicyError::Decode(format!(
            "unexpected GroupVersion string: {version}"
        ))),
        _ => Err(PolicyError::Decode(format!(
            "no kind {} is registered for version {} {SCHEME}",
            quoted(kind),
            quoted(api_version)
        ))),
    }
}

impl Policy {
    fn from_draft(draft: Draft) -> Self {
        let rules: Vec<PolicyRule> = draft.rules.into_iter().map(PolicyRule::from_draft).collect();
        let omit_stages = stages(draft.omit_stages);
        let base = omit_stages.iter().map(|stage| stage.value).collect();
        let compiled = Compiled::new(&rules, base, draft.omit_managed_fields);
        Self {
            name: draft.name,
            omit_stages,
            omit_managed_fields: draft.omit_managed_fields,
            rules,
            compiled,
        }
    }
}

impl PolicyRule {
    fn from_draft(draft: DraftRule) -> Self {
        let level = Level::from_name(draft.level.text.as_bytes()).unwrap_or_default();
        Self {
            at: draft.at,
            level: Stated {
                value: level,
                at: draft.level.at,
            },
            users: texts(draft.users),
            user_groups: texts(draft.user_groups),
            verbs: texts(draft.verbs),
            resources: draft
                .resources
                .into_iter()
                .map(|resources| GroupResources {
                    at: resources.at,
                    group: Stated {
                        value: resources.group.text,
                        at: resources.group.at,
                    },
                    resources: texts(resources.resources),
                    resource_names: texts(resources.resource_names),
                })
                .collect(),
            namespaces: texts(draft.namespaces),
            non_resource_urls: texts(draft.non_resource_urls),
            omit_stages: stages(draft.omit_stages),
            omit_managed_fields: draft.omit_managed_fields,
        }
    }
}

fn texts(entries: Vec<decode::Entry>) -> Vec<Stated<String>> {
    entries
        .into_iter()
        .map(|entry| Stated {
            value: entry.text,
            at: entry.at,
        })
        .collect()
}

fn stages(entries: Vec<decode::Entry>) -> Vec<Stated<kaudit_event::Stage>> {
    entries
        .into_iter()
        .filter_map(|entry| {
            let value = kaudit_event::Stage::from_name(entry.text.as_bytes())?;
            Some(Stated { value, at: entry.at })
        })
        .collect()
}

/// The union of the policy's and the rule's.
fn stage_set(rule: &PolicyRule, base: StageSet) -> StageSet {
    rule.omit_stages
        .iter()
        .fold(base, |set, stage| set.with(stage.value))
}
