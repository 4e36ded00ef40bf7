//! Events as people and programs want to see them.

mod event;
mod rows;
mod template;
mod value;

use clap::ValueEnum;

pub(super) use event::{reference, write_list, write_yaml};
pub(super) use rows::{Columns, Growing, Rows, TableStyle, object, sentence, short_user};
pub(super) use template::Template;
pub(super) use value::{key_text, plain, text_in as cell_in, text_of as cell};

/// How events are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// A table
    #[default]
    Table,
    /// A table with more columns
    Wide,
    /// An EventList
    Json,
    /// One document for each event
    Yaml,
    /// One event on a line
    Ndjson,
    /// Columns with commas
    Csv,
    /// A table for documents
    Markdown,
    /// One sentence each
    Sentence,
    /// References, for `kaudit event`
    Name,
    /// The bytes as they were received, nothing masked
    Raw,
    /// Parts of events that a template picks, each a line
    #[value(skip)]
    Jsonpath,
    /// Parts of events below heads
    #[value(skip)]
    CustomColumns,
}

/// A format, and what it is told besides.
#[derive(Clone, Debug, Default)]
pub(super) struct Chosen {
    pub(super) format: Format,
    pub(super) template: Option<Template>,
}

/// The format that `-o` names.
pub(super) fn chosen(text: &str) -> Result<Chosen, String> {
    let with = |format, template: Result<Template, String>| {
        Ok(Chosen {
            format,
            template: Some(template?),
        })
    };
    if let Some(template) = text.strip_prefix("jsonpath=") {
        return with(Format::Jsonpath, Template::line(template));
    }
    if let Some(columns) = text.strip_prefix("custom-columns=") {
        return with(Format::CustomColumns, Template::columns(columns));
    }
    match Format::from_str(text, false) {
        Ok(format) => Ok(Chosen {
            format,
            template: None,
        }),
        Err(_) => {
            let names: Vec<String> = Format::value_variants()
                .iter()
                .filter_map(|format| Some(format.to_possible_value()?.get_name().to_owned()))
                .collect();
            Err(format!(
                "it is none of {}, jsonpath=TEMPLATE and custom-columns=HEAD:PATH,...",
                names.join(", ")
            ))
        }
    }
}

impl Format {
    /// Whether all events are printed unless a limit was given.
    pub(super) const fn is_for_programs(self) -> bool {
        matches!(
            self,
            Self::Json | Self::Yaml | Self::Ndjson | Self::Csv | Self::Name | Self::Raw | Self::Jsonpath
        )
    }
}
