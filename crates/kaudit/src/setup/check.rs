//! What is wrong with audit logging as it is configured: files in, findings out.
//!
//! Several files are looked at together: the policy of one tells whether the flags of another suit it. A
//! check that cannot be certain is silent.

mod apiserver;
mod certificates;
mod codes;
mod kubeconfig;
mod server;
mod talos;

use kaudit_policy::{Policy, lint};
use serde_json::json;

use super::document::{self, Node, Position, Shift};
use super::records_responses;
pub(crate) use codes::{Code, Severity};
use kubeconfig::FileReference;
use server::ApiServer;

/// A file to look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct File<'a> {
    pub(crate) name: &'a str,
    pub(crate) text: &'a str,
}

/// One thing to know about a file.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    /// Which of the files.
    pub(crate) file: usize,
    pub(crate) at: Position,
    /// `KS...`, or a policy's `KP...`.
    pub(crate) code: &'static str,
    pub(crate) severity: Severity,
    pub(crate) message: String,
    /// Why this kind of finding matters.
    pub(crate) explanation: &'static str,
    /// What to write instead.
    pub(crate) fix: String,
}

/// Everything there is to say about `files`, by file and position. `now` is in seconds of the Unix epoch.
pub(crate) fn check(files: &[File<'_>], now: i64) -> Vec<Finding> {
    let mut report = Report::default();
    let mut seen = Seen::default();
    for (index, file) in files.iter().enumerate() {
        report.file = index;
        look(file, now, &mut seen, &mut report);
    }
    for (file, shift, server) in &seen.servers {
        report.file = *file;
        report.shift = *shift;
        apiserver::check(server, seen.records_responses, &mut report);
    }
    if let [(_, _, server)] = seen.servers.as_slice() {
        for (file, shift, reference) in &seen.references {
            report.file = *file;
            report.shift = *shift;
            apiserver::check_reference(server, reference, &mut report);
        }
    }
    report
        .findings
        .sort_by(|a, b| (a.file, a.at, a.code).cmp(&(b.file, b.at, b.code)));
    report
        .findings
        .dedup_by(|a, b| (a.file, a.at, a.code, &a.message) == (b.file, b.at, b.code, &b.message));
    report.findings
}

/// What the files hold, for checks across them.
#[derive(Debug, Default)]
struct Seen {
    servers: Vec<(usize, Shift, ApiServer)>,
    references: Vec<(usize, Shift, FileReference)>,
    /// Whether a policy was seen, and whether it records responses.
    records_responses: Option<bool>,
}

impl Seen {
    fn policy(&mut self, text: &str) {
        if let Ok((policy, _)) = Policy::parse(text.as_bytes()) {
            self.records_responses =
                Some(self.records_responses.unwrap_or_default() || records_responses(&policy));
        }
    }
}

/// Findings so far, and where the next ones stand.
#[derive(Debug, Default)]
struct Report {
    findings: Vec<Finding>,
    file: usize,
    shift: Shift,
}

impl Report {
    fn add(&mut self, code: Code, at: Position, message: String, fix: impl Into<String>) {
        self.findings.push(Finding {
            file: self.file,
            at: self.shift.apply(at),
            code: code.as_str(),
            severity: code.severity(),
            message,
            explanation: code.explanation(),
            fix: fix.into(),
        });
    }
}

/// What a document is.
enum Form {
    Policy,
    StaticPod,
    Kubeadm,
    KindCluster,
    /// k3s and RKE2.
    Rancher,
    Talos,
    Kubeconfig,
    /// A part of a file of several documents that says nothing about auditing.
    Aside,
    Unknown,
}

fn form_of(document: &Node) -> Form {
    let version = document.text_of("apiVersion").unwrap_or_default();
    let kind = document.text_of("kind").unwrap_or_default();
    if version.starts_with("audit.k8s.io/") || (kind == "Policy" && document.get("rules").is_some()) {
        return Form::Policy;
    }
    if version.starts_with("kubeadm.k8s.io/") || kind == "ClusterConfiguration" {
        return if kind == "ClusterConfiguration" {
            Form::Kubeadm
        } else {
            Form::Aside
        };
    }
    if version.starts_with("kind.x-k8s.io/") {
        return Form::KindCluster;
    }
    if version.contains(".config.k8s.io/") {
        return Form::Aside;
    }
    match kind.as_str() {
        "Pod" => return Form::StaticPod,
        "Config" if version == "v1" => return Form::Kubeconfig,
        _ if version == "v1alpha1" && !kind.is_empty() => return Form::Talos,
        _ => {}
    }
    if document.get("machine").is_some() || document.at_path(&["cluster", "apiServer"]).is_some() {
        return Form::Talos;
    }
    if document.get("clusters").is_some_and(Node::is_list) {
        return Form::Kubeconfig;
    }
    if kind.is_empty() && version.is_empty() && server::is_rancher(document) {
        return Form::Rancher;
    }
    Form::Unknown
}

fn look(file: &File<'_>, now: i64, seen: &mut Seen, report: &mut Report) {
    report.shift = Shift::default();
    let documents = match document::read(file.text) {
        Ok(documents) => documents,
        Err(error) => {
            report.add(
                Code::Unreadable,
                error.at,
                error.message,
                "write YAML or JSON; each key once, and spaces, not tabs, in front of it",
            );
            return;
        }
    };
    let mut is_known = false;
    for document in &documents {
        match form_of(document) {
            Form::Policy => policy(file.text, seen, report),
            Form::StaticPod => {
                if !server::of_pod(document, seen, report) {
                    continue;
                }
            }
            Form::Kubeadm => server::of_kubeadm(document, Shift::default(), None, seen, report),
            Form::KindCluster => server::of_kind(file.text, document, seen, report),
            Form::Rancher => server::of_rancher(document, seen, report),
            Form::Talos => talos::look(file.text, document, &documents, now, seen, report),
            Form::Kubeconfig => kubeconfig::check(document, now, seen, report),
            Form::Aside => {}
            Form::Unknown => continue,
        }
        is_known = true;
    }
    if !is_known {
        report.add(
            Code::UnknownKind,
            documents
                .first()
                .map_or(Position { line: 1, column: 1 }, |document| document.at),
            "this is no file that configures audit logging".to_owned(),
            "give the manifest of kube-apiserver, a configuration of kubeadm, kind, k3s or RKE2, a machine \
             configuration of Talos, a kubeconfig or a policy",
        );
    }
}

/// A file that is a policy: what `kaudit policy lint` says, notes left out.
fn policy(text: &str, seen: &mut Seen, report: &mut Report) {
    seen.policy(text);
    for finding in lint(text.as_bytes()) {
        let severity = match finding.code.severity() {
            kaudit_policy::Severity::Error => Severity::Error,
            kaudit_policy::Severity::Warning => Severity::Warning,
            _ => continue,
        };
        report.findings.push(Finding {
            file: report.file,
            at: Position {
                line: finding.at.line,
                column: finding.at.column,
            },
            code: finding.code.as_str(),
            severity,
            message: finding.message,
            explanation: finding.code.explanation(),
            fix: finding
                .fix
                .unwrap_or_else(|| "see `kaudit policy lint`".to_owned()),
        });
    }
}

/// Whether a finding means that a file could not be looked at.
pub(crate) fn is_unreadable(finding: &Finding) -> bool {
    finding.code == Code::Unreadable.as_str() || finding.code == Code::UnknownKind.as_str()
}

/// A finding for programs.
pub(crate) fn as_json(files: &[File<'_>], finding: &Finding) -> serde_json::Value {
    let file = files.get(finding.file);
    json!({
        "file": file.map(|file| file.name),
        "line": finding.at.line,
        "column": finding.at.column,
        "text": file.and_then(|file| line_of(file, finding.at)).map(str::trim),
        "code": finding.code,
        "severity": finding.severity.as_str(),
        "message": finding.message,
        "explanation": finding.explanation,
        "fix": finding.fix,
    })
}

fn line_of<'a>(file: &File<'a>, at: Position) -> Option<&'a str> {
    file.text.lines().nth(at.line.checked_sub(1)?)
}

/// The longest piece of a line that is shown.
const SHOWN_CHARACTERS: usize = 110;

/// Findings for people, and a line that counts them for each file.
pub(crate) fn as_text(files: &[File<'_>], findings: &[Finding]) -> String {
    let mut out = String::new();
    let mut explained: Vec<&str> = Vec::new();
    for (index, file) in files.iter().enumerate() {
        for finding in findings.iter().filter(|finding| finding.file == index) {
            one_as_text(&mut out, file, finding, &mut explained);
        }
        let count = |severity| {
            findings
                .iter()
                .filter(|finding| finding.file == index && finding.severity == severity)
                .count()
        };
        let counts: Vec<String> = [Severity::Error, Severity::Warning, Severity::Note]
            .into_iter()
            .filter_map(|severity| {
                let count = count(severity);
                let plural = if count == 1 { "" } else { "s" };
                (count > 0).then(|| format!("{count} {}{plural}", severity.as_str()))
            })
            .collect();
        let counts = if counts.is_empty() {
            "nothing found".to_owned()
        } else {
            counts.join(", ")
        };
        out += &format!("{}: {counts}\n", file.name);
    }
    out
}

fn one_as_text(out: &mut String, file: &File<'_>, finding: &Finding, explained: &mut Vec<&'static str>) {
    let Position { line, column } = finding.at;
    *out += &format!(
        "{}:{line}:{column}: {}[{}]: {}\n",
        file.name,
        finding.severity.as_str(),
        finding.code,
        finding.message
    );
    let number = line.to_string();
    let margin = " ".repeat(number.len());
    if let Some(source) = line_of(file, finding.at) {
        let shown: String = source.chars().take(SHOWN_CHARACTERS).collect();
        let column = column.clamp(1, SHOWN_CHARACTERS);
        *out += &format!("{number} | {shown}\n{margin} | {}^\n", " ".repeat(column - 1));
    }
    if !explained.contains(&finding.code) {
        explained.push(finding.code);
        *out += &format!("{margin} = why: {}\n", finding.explanation);
    }
    *out += &format!("{margin} = fix: {}\n\n", finding.fix);
}

#[cfg(test)]
mod tests;
