//! `kaudit policy lint`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use kaudit_policy::{Finding, LintCode, Severity, lint};
use serde_json::json;

use super::read;
use crate::cli::{Output, print};
use crate::exit::{Exit, Failure};

/// Flags of `policy lint`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Flags {
    /// Policy files; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The least severity that makes the exit code 1
    #[arg(long, value_enum, default_value_t)]
    fail_on: FailOn,
    /// How to print: text, or one JSON object per line and finding
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Severities as flags.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum FailOn {
    /// Every finding
    Note,
    /// What the author hardly wants
    #[default]
    Warning,
    /// Only policies that do not load, which make it 2
    Error,
}

impl FailOn {
    const fn severity(self) -> Severity {
        match self {
            Self::Note => Severity::Note,
            Self::Warning => Severity::Warning,
            Self::Error => Severity::Error,
        }
    }
}

pub(super) fn run(flags: &Flags) -> Result<Exit, Failure> {
    let mut result = String::new();
    let mut worst: Option<Severity> = None;
    let mut explained: Vec<LintCode> = Vec::new();
    for file in &flags.files {
        let document = read(file)?;
        let name = match file.to_string_lossy() {
            name if name == "-" => "<stdin>".into(),
            name => name,
        };
        let findings = lint(&document);
        worst = worst.max(findings.iter().map(|finding| finding.code.severity()).max());
        match flags.output {
            Output::Json => {
                for finding in &findings {
                    result += &format!("{}\n", as_json(&name, finding));
                }
            }
            Output::Text => {
                let text = String::from_utf8_lossy(&document);
                for finding in &findings {
                    as_text(&mut result, &name, &text, finding, &mut explained);
                }
                result += &summary(&name, &findings);
            }
        }
    }
    print(result.as_bytes())?;
    Ok(match worst {
        Some(Severity::Error) => Exit::Usage,
        Some(severity) if severity >= flags.fail_on.severity() => Exit::No,
        _ => Exit::Done,
    })
}

fn as_json(file: &str, finding: &Finding) -> serde_json::Value {
    json!({
        "file": file,
        "line": finding.at.line,
        "column": finding.at.column,
        "path": finding.path,
        "code": finding.code.as_str(),
        "severity": finding.code.severity().as_str(),
        "message": finding.message,
        "explanation": finding.code.explanation(),
        "fix": finding.fix,
    })
}

/// The finding with its line; why its kind matters is told once.
fn as_text(out: &mut String, file: &str, document: &str, finding: &Finding, explained: &mut Vec<LintCode>) {
    let (code, line) = (finding.code, finding.at.line);
    let number = line.to_string();
    let margin = " ".repeat(number.len());
    let mut row = |text: std::fmt::Arguments<'_>| {
        *out += &format!("{text}\n");
    };
    row(format_args!(
        "{file}:{line}:{}: {}[{code}]: {}",
        finding.at.column,
        code.severity().as_str(),
        finding.message
    ));
    if let Some(source) = document.lines().nth(line.saturating_sub(1)) {
        row(format_args!(
            "{number} | {}",
            source.chars().take(120).collect::<String>()
        ));
        let column = finding.at.column.clamp(1, 120);
        row(format_args!("{margin} | {}^", " ".repeat(column - 1)));
    }
    if !explained.contains(&code) {
        explained.push(code);
        row(format_args!("{margin} = why: {}", code.explanation()));
    }
    if let Some(fix) = &finding.fix {
        row(format_args!("{margin} = fix: {fix}"));
    }
    row(format_args!(""));
}

fn summary(file: &str, findings: &[Finding]) -> String {
    let counts: Vec<String> = [Severity::Error, Severity::Warning, Severity::Note]
        .into_iter()
        .filter_map(|severity| {
            let count = findings
                .iter()
                .filter(|finding| finding.code.severity() == severity)
                .count();
            let plural = if count == 1 { "" } else { "s" };
            (count > 0).then(|| format!("{count} {}{plural}", severity.as_str()))
        })
        .collect();
    match counts.as_slice() {
        [] => format!("{file}: nothing found\n"),
        counts => format!("{file}: {}\n", counts.join(", ")),
    }
}
