//! `kaudit blame`: who wrote each line of an object.

use anyhow::anyhow;
use clap::Args;
use kaudit_history::{Author, Blame, BlameLine, History, Mask, Noise, Path};
use kaudit_query::micros;
use serde_json::json;

use super::object::{self, Object};
use super::zone::Zone;
use super::{Output, print, say};
use crate::exit::{Exit, Failure};

/// Flags of `blame`.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  # who set the image
  kaudit blame deploy/api -n payments --field spec.template.spec.containers --from audit.log")]
pub(super) struct Flags {
    #[command(flatten)]
    object: Object,
    /// Only this field and what is in it
    #[arg(long, value_name = "PATH")]
    field: Option<String>,
    /// Show managedFields, resourceVersion and the like, too
    #[arg(long)]
    all: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(flags: &Flags) -> Result<Exit, Failure> {
    let field = flags.field.as_deref().map(Path::parse).transpose();
    let field = field.map_err(|error| Failure::usage(anyhow::Error::new(error).context("--field")))?;
    let zone = flags.object.zone()?;
    let (history, exit) = flags.object.history()?;
    let no = |error| Failure {
        exit: Exit::No,
        error,
    };
    let index = history.newest_known(None);
    let blame = index.and_then(|index| Blame::of(&history, index));
    let (Some(index), Some(blame)) = (index, blame) else {
        return Err(no(anyhow!(
            "no event here says what {} looked like: they have no bodies, or there are none",
            flags.object.named()
        )));
    };
    let noise = if flags.all { Noise::Shown } else { Noise::Folded };
    let resource = object::resource(history.target());
    let lines = blame.lines(field.as_ref(), noise, &flags.object.mask(), resource);
    if lines.is_empty() {
        return Err(no(anyhow!(
            "{} has no field `{}`",
            flags.object.named(),
            flags.field.as_deref().unwrap_or_default()
        )));
    }
    match flags.output {
        Output::Text => print(text(&history, &lines, &zone).as_bytes())?,
        Output::Json => print(format!("{:#}\n", lines_document(&history, &lines)).as_bytes())?,
    };
    if history.versions().len() > index + 1 {
        let later = history.versions().len() - index - 1;
        say(format_args!(
            "{later} later writes are recorded without what became of the object: see kaudit history {}",
            flags.object.named()
        ));
    }
    Ok(exit)
}

/// The lines of the newest version that is known, for programs; `None` where none is.
pub(crate) fn document_of(history: &History, field: Option<&Path>, mask: &Mask) -> Option<serde_json::Value> {
    let index = history.newest_known(None)?;
    let blame = Blame::of(history, index)?;
    let resource = object::resource(history.target());
    let lines = blame.lines(field, Noise::Folded, mask, resource);
    Some(lines_document(history, &lines))
}

fn lines_document(history: &History, lines: &[BlameLine]) -> serde_json::Value {
    let lines: Vec<_> = lines.iter().map(|line| document(history, line)).collect();
    json!({ "lines": lines })
}

/// Who, when, and how well that is known.
fn author(history: &History, author: Author, zone: &Zone) -> [String; 3] {
    let of = |at: usize| history.get(at);
    match author {
        Author::NotRecorded => ["(not recorded)".to_owned(), String::new(), String::new()],
        Author::Version(at) => of(at).map_or_else(Default::default, |version| {
            [
                object::who(&version.origin),
                object::time(&version.origin, zone),
                object::exactness(version.exactness).to_owned(),
            ]
        }),
        Author::Within { until, .. } => of(until).map_or_else(Default::default, |version| {
            [
                "(unclear)".to_owned(),
                object::time(&version.origin, zone),
                "or before".to_owned(),
            ]
        }),
    }
}

fn text(history: &History, lines: &[BlameLine], zone: &Zone) -> String {
    let authors: Vec<[String; 3]> = lines
        .iter()
        .map(|line| author(history, line.author, zone))
        .collect();
    let width = |column: usize| {
        let cells = authors.iter().filter_map(|author| author.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let (who, when, how) = (width(0), width(1), width(2));
    let mut out = String::new();
    for (line, [by, at, exactness]) in lines.iter().zip(&authors) {
        let was = line
            .was
            .as_ref()
            .map_or_else(String::new, |was| format!("    # was {was}"));
        let indent = " ".repeat(line.indent);
        out.push_str(&format!(
            "{by:who$}  {at:when$}  {exactness:how$}  {indent}{}{was}\n",
            line.text
        ));
    }
    out
}

fn document(history: &History, line: &BlameLine) -> serde_json::Value {
    let version = line.author.first_seen().and_then(|at| history.get(at));
    json!({
        "path": line.path.to_string(),
        "line": format!("{}{}", " ".repeat(line.indent), line.text),
        "was": line.was,
        "certain": matches!(line.author, Author::Version(_)),
        "user": version.map(|version| version.origin.user.clone()),
        "impersonatedUser": version.and_then(|version| version.origin.impersonated.clone()),
        "time": version.map(|version| kaudit_query::instant(micros(version.origin.time))),
        "auditID": version.map(|version| version.origin.audit_id.clone()),
        "exactness": version.map(|version| object::exactness(version.exactness)),
    })
}
