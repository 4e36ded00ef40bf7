//! `kaudit history`: the versions of an object.

use clap::Args;
use kaudit_history::{Diff, Effect, History, Mask, Noise, Version, What, diff};
use kaudit_query::micros;
use serde_json::json;

use super::object::{self, Object};
use super::show::plain;
use super::zone::Zone;
use super::{Output, print, say};
use crate::exit::{Exit, Failure};

/// Flags of `history`.
#[derive(Debug, Args)]
#[command(
    after_long_help = "Each version says how well it is known: exact (the server's answer was recorded), reconstructed (made \
                       from the request and the version before) or unavailable, with the reason.

Examples:
  # what happened to a deployment, field by field
  kaudit history deploy/api -n payments --diff --from audit.log"
)]
pub(super) struct Flags {
    #[command(flatten)]
    object: Object,
    /// Show what changed from one version to the next
    #[arg(long)]
    diff: bool,
    /// Show everything: writes that changed only the status or bookkeeping, and those fields
    #[arg(long)]
    all: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(flags: &Flags) -> Result<Exit, Failure> {
    let zone = flags.object.zone()?;
    let (history, exit) = flags.object.history()?;
    let mask = flags.object.mask();
    let rows = rows(&history, flags.all, &mask);
    match flags.output {
        Output::Text => text(flags, &rows, &zone)?,
        Output::Json => {
            let document = versions(&history, &rows, flags.diff);
            print(format!("{document:#}\n").as_bytes())?;
        }
    }
    if history.versions().len() == 0 {
        say(format_args!("no event here tells of {}", flags.object.named()));
    }
    Ok(exit)
}

/// Every version for programs.
pub(crate) fn document_of(history: &History, all: bool, mask: &Mask) -> serde_json::Value {
    versions(history, &rows(history, all, mask), true)
}

fn versions(history: &History, rows: &[Row<'_>], with_diff: bool) -> serde_json::Value {
    let versions: Vec<_> = rows.iter().map(|row| document(row, with_diff)).collect();
    let target = history.target();
    json!({
        "object": {
            "group": target.group, "resource": target.resource,
            "namespace": target.namespace, "name": target.name,
        },
        "versions": versions,
    })
}

/// A version with what it changed.
struct Row<'a> {
    version: &'a Version,
    diff: Option<Diff>,
    /// Nothing that matters changed.
    is_noise: bool,
}

fn rows<'a>(history: &'a History, all: bool, mask: &Mask) -> Vec<Row<'a>> {
    let resource = object::resource(history.target());
    let one = |(index, version): (usize, &'a Version)| {
        let before = history
            .before(index)
            .and_then(|before| history.get(before)?.object.clone());
        let is_component = version.origin.is_component() || version.origin.subresource == "status";
        let noise = match (all, is_component) {
            (true, _) => Noise::Shown,
            (false, true) => Noise::FoldedWithStatus,
            (false, false) => Noise::Folded,
        };
        let changes = before
            .zip(version.object.as_ref())
            .map(|(before, after)| diff(&before, after, noise).masked(mask, resource, after));
        let is_change = matches!(
            version.effect,
            Effect::Changed | Effect::Unchanged | Effect::Observed
        );
        Row {
            version,
            is_noise: !all && is_change && changes.as_ref().is_some_and(|diff| diff.changes.is_empty()),
            diff: changes,
        }
    };
    history.versions().enumerate().map(one).collect()
}

const fn effect(effect: Effect) -> &'static str {
    match effect {
        Effect::Created => "created",
        Effect::Changed => "changed",
        Effect::Unchanged => "unchanged",
        Effect::Observed => "observed",
        Effect::Terminating => "terminating",
        Effect::Deleted => "deleted",
        Effect::MayHaveBeenCreated => "may have been created",
        Effect::MayHaveBeenDeleted => "may have been deleted",
    }
}

/// Newest first.
fn text(flags: &Flags, rows: &[Row<'_>], zone: &Zone) -> Result<(), Failure> {
    let mut out = String::new();
    let mut folded: usize = 0;
    let end_of_folded = |out: &mut String, folded: &mut usize| {
        if *folded > 0 {
            let plural = if *folded == 1 { "write" } else { "writes" };
            out.push_str(&format!(
                "    ... {folded} {plural} of status or bookkeeping folded (--all)\n"
            ));
            *folded = 0;
        }
    };
    for row in rows.iter().rev() {
        if row.is_noise {
            folded += 1;
            continue;
        }
        end_of_folded(&mut out, &mut folded);
        out.push_str(&head(row.version, zone));
        if let Some(unseen) = &row.version.unseen {
            out.push_str(&format!("    ! {unseen}\n"));
        }
        if !row.version.reason.is_empty() {
            out.push_str(&format!("    ({})\n", row.version.reason));
        }
        if flags.diff
            && let Some(diff) = &row.diff
        {
            push_diff(&mut out, diff);
        }
    }
    end_of_folded(&mut out, &mut folded);
    print(out.as_bytes())?;
    Ok(())
}

fn head(version: &Version, zone: &Zone) -> String {
    let origin = &version.origin;
    let verb = match origin.subresource.as_str() {
        "" => origin.verb.clone(),
        subresource => format!("{} {subresource}", origin.verb),
    };
    let tool = origin.field_manager.clone().unwrap_or_else(|| {
        let agent = origin.user_agent.split([' ', '/']).next().unwrap_or_default();
        agent.to_owned()
    });
    let revision = version.resource_version.as_deref().unwrap_or("-");
    format!(
        "{}  {}  {}  {}  {}  {}  rv {}\n",
        object::time(origin, zone),
        effect(version.effect),
        plain(verb.as_bytes()),
        object::who(origin),
        plain(tool.as_bytes()),
        object::exactness(version.exactness),
        plain(revision.as_bytes()),
    )
}

fn push_diff(out: &mut String, diff: &Diff) {
    let shown = |value: &serde_json::Value| plain(kaudit_history::shown(value).as_bytes());
    let width = diff
        .changes
        .iter()
        .map(|change| change.path.to_string().chars().count())
        .filter(|width| *width <= 60)
        .max()
        .unwrap_or_default();
    for change in &diff.changes {
        let path = plain(change.path.to_string().as_bytes());
        let what = match &change.what {
            What::Added(value) => format!("+ {}", shown(value)),
            What::Removed(value) => format!("- {}", shown(value)),
            What::Changed { from, to } => format!("{} -> {}", shown(from), shown(to)),
            What::Reordered => "in another order".to_owned(),
        };
        out.push_str(&format!("    {path:width$}  {what}\n"));
    }
    let folded = diff.folded.total();
    if folded > 0 {
        out.push_str(&format!("    ... {folded} bookkeeping fields folded (--all)\n"));
    }
}

fn document(row: &Row<'_>, with_diff: bool) -> serde_json::Value {
    let version = row.version;
    let mut document = json!({
        "time": kaudit_query::instant(micros(version.origin.time)),
        "effect": effect(version.effect),
        "verb": version.origin.verb,
        "subresource": version.origin.subresource,
        "user": version.origin.user,
        "impersonatedUser": version.origin.impersonated,
        "userAgent": version.origin.user_agent,
        "fieldManager": version.origin.field_manager,
        "auditID": version.origin.audit_id,
        "exactness": object::exactness(version.exactness),
        "reason": version.reason,
        "resourceVersion": version.resource_version,
        "uid": version.uid,
        "incarnation": version.incarnation,
        "unseen": version.unseen,
    });
    if let (true, Some(diff), Some(fields)) = (with_diff, &row.diff, document.as_object_mut()) {
        let changes = diff.changes.iter().map(|change| {
            let path = change.path.to_string();
            match &change.what {
                What::Added(value) => json!({"path": path, "added": value}),
                What::Removed(value) => json!({"path": path, "removed": value}),
                What::Changed { from, to } => json!({"path": path, "from": from, "to": to}),
                What::Reordered => json!({"path": path, "reordered": true}),
            }
        });
        fields.insert("changes".to_owned(), changes.collect::<Vec<_>>().into());
        fields.insert("folded".to_owned(), diff.folded.total().into());
    }
    document
}
