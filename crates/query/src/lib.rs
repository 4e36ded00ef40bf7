//! The filter language of kaudit: one language for the command line, the API, saved views and rules.
//!
//! No I/O. A [`Filter`] is parsed from text, with every mistake told at once; [`Filter::matches`] on a
//! [`Row`] is what it means. Field names are the paths of an audit event's JSON; `docs/filter.md` is the
//! language for people and is made from the tables in here.
//!
//! ```
//! use bytes::Bytes;
//! use kaudit_event::{DecodedEvent, MicroTime};
//! use kaudit_query::{Filter, Row};
//!
//! let now = MicroTime::from_unix(1_795_446_000, 0);
//! let filter = Filter::parse("verb: (delete or patch) and time >= now-1h", now).expect("a filter");
//! let event = DecodedEvent::parse(Bytes::from_static(
//!     br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","verb":"delete","stageTimestamp":"2026-11-23T14:30:00.000000Z"}"#,
//! ))?;
//! assert!(filter.matches(&Row::of(event.view())));
//!
//! let mistakes = Filter::parse("usrname: alice", now).unwrap_err();
//! assert_eq!(mistakes[0].code, "KA-Q003");
//! # Ok::<(), kaudit_event::DecodeError>(())
//! ```
//!
//! For a log, [`Filter::needles`] tells which lines need not be looked at, and [`Filter::for_lines`] decides
//! most lines without decoding them.

pub mod accumulate;
mod body;
mod column;
pub mod derived;
mod diagnostic;
mod expr;
mod filter;
mod json;
mod line;
mod needles;
mod parse;
mod path;
mod pattern;
mod print;
mod reference;
mod row;
mod test;

pub use body::BodyTest;
pub use column::{COLUMNS, Column, ColumnInfo, ColumnType, Origin};
pub use diagnostic::{CODES, CodeInfo, Diagnostic, Fix, Label, Severity};
pub use expr::{Bodies, Case, Comparison, Expr, Leaf, Literal, Op, Regex, RegexError, Test, TextTest};
pub use filter::{Filter, TEXT_COLUMNS};
pub use line::{LineFilter, LineMatch};
pub use needles::Needles;
pub use parse::{Completion, CompletionKind, Completions, MAX_DEPTH, MAX_TEXT_BYTES, complete, duration};
pub use path::Path;
pub use pattern::{Pattern, PatternPart, Substring};
pub use print::instant;
pub use reference::reference;
pub use row::{Envelope, Row, Value, micros};
