//! Events as people and programs want to see them.

mod event;
mod rows;
mod value;

use clap::ValueEnum;

pub(super) use event::{reference, write_list, write_yaml};
pub(super) use rows::{Columns, Growing, Rows, TableStyle, object, sentence, short_user};
pub(super) use value::{key_text, plain, text_of as cell, to_second};

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
}

impl Format {
    /// Whether all events are printed unless a limit was given.
    pub(super) const fn is_for_programs(self) -> bool {
        matches!(
            self,
            Self::Json | Self::Yaml | Self::Ndjson | Self::Csv | Self::Name | Self::Raw
        )
    }
}
