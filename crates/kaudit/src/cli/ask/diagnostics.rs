//! What is wrong with a filter, for a terminal.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use kaudit_query::{Diagnostic, Severity};

/// All of it, each with the place it speaks of; the first line has no `error:` of its own, since whoever prints it says
/// that.
pub(super) fn rendered(text: &str, wrong: &[Diagnostic]) -> String {
    let parts: Vec<String> = wrong.iter().map(|diagnostic| one(text, diagnostic)).collect();
    let all = parts.join("\n\n");
    all.strip_prefix("error: ").unwrap_or(&all).to_owned()
}

fn one(text: &str, diagnostic: &Diagnostic) -> String {
    let level = match diagnostic.severity {
        Severity::Warning => Level::WARNING,
        _ => Level::ERROR,
    };
    let mut snippet = Snippet::source(text).annotation(
        AnnotationKind::Primary
            .span(diagnostic.span.clone())
            .label(diagnostic.help.as_deref().unwrap_or("")),
    );
    for label in &diagnostic.labels {
        snippet = snippet.annotation(
            AnnotationKind::Context
                .span(label.span.clone())
                .label(&label.message),
        );
    }
    let title = format!("{} [{}]", diagnostic.message, diagnostic.code);
    let group = Group::with_title(level.primary_title(&title)).element(snippet);
    let rendered = Renderer::plain().render(&[group]);
    let lines: Vec<&str> = rendered.lines().map(str::trim_end).collect();
    lines.join("\n")
}
