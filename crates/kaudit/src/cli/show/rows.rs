//! Events as rows of columns.

use kaudit_query::{Column, Row, Value};

use super::event::reference;
use super::value::{duration, plain, text_in, text_of};
use crate::cli::zone::Zone;

/// What stands in a column.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Cell {
    Time,
    Verb,
    Code,
    User,
    Object,
    From,
    Agent,
    Stage,
    Took,
    Reference,
    /// A field of the filter language, as it is.
    Field(Column),
}

/// The columns of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Columns {
    all: Vec<(String, Cell)>,
    /// Of times.
    zone: Zone,
}

/// A name that is no column.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "--columns: `{0}` is no column; use time, verb, code, user, object, from, agent, stage, took, ref, or a field of the \
     filter language such as objectRef.name"
)]
pub(crate) struct InvalidColumns(String);

/// What a person asks about first.
const USUAL: [(&str, Cell); 7] = [
    ("TIME", Cell::Time),
    ("VERB", Cell::Verb),
    ("CODE", Cell::Code),
    ("USER", Cell::User),
    ("OBJECT", Cell::Object),
    ("FROM", Cell::From),
    ("AGENT", Cell::Agent),
];

impl Columns {
    pub(crate) fn usual(zone: Zone) -> Self {
        let one = |(head, cell): (&str, Cell)| match cell {
            Cell::Time => (zone.head(), cell),
            cell => (head.to_owned(), cell),
        };
        Self {
            all: USUAL.map(one).into(),
            zone,
        }
    }

    pub(crate) fn wide(zone: Zone) -> Self {
        let mut columns = Self::usual(zone);
        let further = [
            ("STAGE", Cell::Stage),
            ("TOOK", Cell::Took),
            ("DECISION", Cell::Field(Column::Decision)),
            ("REF", Cell::Reference),
        ];
        let further = further.map(|(head, cell)| (head.to_owned(), cell));
        columns.all.extend(further);
        columns
    }

    /// In which times are.
    pub(crate) const fn zone(&self) -> &Zone {
        &self.zone
    }

    /// Names with commas between them.
    pub(crate) fn parse(text: &str, zone: Zone) -> Result<Self, InvalidColumns> {
        let one = |name: &str| {
            let cell = match name {
                "time" => Cell::Time,
                "verb" => Cell::Verb,
                "code" => Cell::Code,
                "user" => Cell::User,
                "object" => Cell::Object,
                "from" => Cell::From,
                "agent" => Cell::Agent,
                "stage" => Cell::Stage,
                "took" => Cell::Took,
                "ref" => Cell::Reference,
                field => {
                    Cell::Field(Column::from_name(field).ok_or_else(|| InvalidColumns(field.to_owned()))?)
                }
            };
            Ok((name.to_owned(), cell))
        };
        text.split(',')
            .map(|name| one(name.trim()))
            .collect::<Result<_, _>>()
            .map(|all| Self { all, zone })
    }

    pub(crate) fn heads(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|(head, _)| head.as_str())
    }

    pub(crate) fn cells(&self, row: &Row<'_>) -> Vec<String> {
        let cells = self.all.iter().map(|(_, cell)| cell.text(row, &self.zone));
        cells.collect()
    }
}

impl Cell {
    fn text(&self, row: &Row<'_>, zone: &Zone) -> String {
        let of = |column: &Column| text_of(&row.value(column));
        match self {
            Self::Time => time(row, zone),
            Self::Verb => of(&Column::Verb),
            Self::Code => of(&Column::ResponseCode),
            Self::User => user(row),
            Self::Object => object(row),
            Self::From => of(&Column::SourceIp),
            Self::Agent => agent(&of(&Column::UserAgent)),
            Self::Stage => of(&Column::Stage),
            Self::Took => match row.value(&Column::Latency) {
                Value::Duration(micros) => duration(micros),
                _ => String::new(),
            },
            Self::Reference => reference(row),
            Self::Field(column) => text_in(&row.value(column), zone),
        }
    }

    /// What is mostly enough.
    fn usual_width(&self, zone: &Zone) -> usize {
        match self {
            Self::Time => zone.width(),
            Self::Verb => 6,
            Self::Code => 4,
            Self::User => 24,
            Self::Object => 40,
            Self::From => 9,
            Self::Agent => 16,
            Self::Stage => 16,
            Self::Took => 6,
            Self::Reference | Self::Field(_) => 8,
        }
    }

    /// A column that may be cut when there is no room for all of it: these are the long ones.
    const fn is_flexible(&self) -> bool {
        matches!(self, Self::User | Self::Object | Self::Agent | Self::Field(_))
    }
}

pub(super) fn time(row: &Row<'_>, zone: &Zone) -> String {
    match row.value(&Column::StageTimestamp) {
        Value::Time(micros) => zone.to_second(micros),
        _ => "-".to_owned(),
    }
}

/// Service accounts and nodes by their short names; `a as b` for who acts as somebody else.
pub(super) fn user(row: &Row<'_>) -> String {
    let of = |column: &Column| short_user(&text_of(&row.value(column)));
    let own = of(&Column::UserUsername);
    let acts_as = of(&Column::ImpersonatedUsername);
    match (own.is_empty(), acts_as.is_empty()) {
        (true, true) => "-".to_owned(),
        (_, true) => own,
        _ => format!("{own} as {acts_as}"),
    }
}

pub(crate) fn short_user(name: &str) -> String {
    if let Some((namespace, account)) = name
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.split_once(':'))
    {
        return format!("sa:{namespace}/{account}");
    }
    match name.strip_prefix("system:node:") {
        Some(node) => format!("node:{node}"),
        None => name.to_owned(),
    }
}

/// `namespace/resource/name/subresource` with what there is of it, or the path for what is no resource.
pub(crate) fn object(row: &Row<'_>) -> String {
    let of = |column: &Column| text_of(&row.value(column));
    let resource = of(&Column::ObjectResource);
    if resource.is_empty() {
        return of(&Column::RequestUri);
    }
    let parts = [
        of(&Column::ObjectNamespace),
        resource,
        of(&Column::ObjectName),
        of(&Column::ObjectSubresource),
    ];
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join("/")
}

/// The product of a user agent.
fn agent(text: &str) -> String {
    let end = text.find(" (").unwrap_or(text.len());
    text.get(..end).unwrap_or(text).to_owned()
}

/// How a table is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableStyle {
    /// Characters in a line; columns are cut to fit. `None`: nothing is cut.
    pub(crate) width: Option<usize>,
    pub(crate) has_heads: bool,
    pub(crate) has_colour: bool,
}

/// Rows that were gathered, so that the columns are as wide as their widest cell.
#[derive(Debug)]
pub(crate) struct Rows {
    columns: Columns,
    cells: Vec<Vec<String>>,
}

impl Rows {
    pub(crate) const fn new(columns: Columns) -> Self {
        Self {
            columns,
            cells: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, row: &Row<'_>) {
        self.cells.push(self.columns.cells(row));
    }

    pub(crate) fn table(&self, style: TableStyle) -> String {
        let heads: Vec<String> = self.columns.heads().map(str::to_uppercase).collect();
        let mut widths: Vec<usize> = heads
            .iter()
            .map(|head| if style.has_heads { length(head) } else { 0 })
            .collect();
        for row in &self.cells {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(length(cell));
            }
        }
        self.fit(&mut widths, style.width);
        let mut out = String::new();
        if style.has_heads {
            line(&mut out, &widths, heads.iter().map(String::as_str), |_, _| None);
        }
        for row in &self.cells {
            self.push_line(&mut out, &widths, row, style);
        }
        out
    }

    fn push_line(&self, out: &mut String, widths: &[usize], row: &[String], style: TableStyle) {
        line(out, widths, row.iter().map(String::as_str), |index, cell| {
            let is_code = self
                .columns
                .all
                .get(index)
                .is_some_and(|(_, kind)| *kind == Cell::Code);
            match cell.as_bytes().first() {
                Some(b'4') if is_code && style.has_colour => Some("\u{1b}[33m"),
                Some(b'5') if is_code && style.has_colour => Some("\u{1b}[31m"),
                _ => None,
            }
        });
    }

    /// Takes from the widest column that may be cut, until all fit.
    fn fit(&self, widths: &mut [usize], width: Option<usize>) {
        let Some(room) = width else { return };
        loop {
            let gaps = 2 * widths.len().saturating_sub(1);
            let all: usize = widths.iter().sum::<usize>() + gaps;
            if all <= room {
                return;
            }
            let flexible = self.columns.all.iter().zip(widths.iter_mut());
            let widest = flexible
                .filter(|((_, cell), width)| cell.is_flexible() && **width > MIN_WIDTH)
                .max_by_key(|(_, width)| **width);
            let Some((_, widest)) = widest else { return };
            *widest = widest.saturating_sub(all - room).max(MIN_WIDTH).max(*widest / 2);
        }
    }

    pub(crate) fn markdown(&self) -> String {
        let mut out = String::new();
        let escaped = |cell: &str| cell.replace('|', "\\|");
        let heads: Vec<&str> = self.columns.heads().collect();
        out.push_str(&format!(
            "| {} |\n|{}\n",
            heads.join(" | "),
            " --- |".repeat(heads.len())
        ));
        for row in &self.cells {
            let cells: Vec<String> = row.iter().map(|cell| escaped(cell)).collect();
            out.push_str(&format!("| {} |\n", cells.join(" | ")));
        }
        out
    }
}

/// A table whose rows are not known when it begins. Its columns become wider with what comes.
#[derive(Debug)]
pub(crate) struct Growing {
    rows: Rows,
    widths: Vec<usize>,
    style: TableStyle,
}

impl Growing {
    pub(crate) fn new(columns: Columns, style: TableStyle) -> Self {
        let usual = columns
            .all
            .iter()
            .map(|(head, cell)| cell.usual_width(&columns.zone).max(length(head)));
        Self {
            widths: usual.collect(),
            rows: Rows::new(columns),
            style,
        }
    }

    pub(crate) fn head(&self) -> String {
        let mut out = String::new();
        if self.style.has_heads {
            let mut widths = self.widths.clone();
            self.rows.fit(&mut widths, self.style.width);
            let heads: Vec<String> = self.rows.columns.heads().map(str::to_uppercase).collect();
            line(&mut out, &widths, heads.iter().map(String::as_str), |_, _| None);
        }
        out
    }

    pub(crate) fn line(&mut self, row: &Row<'_>) -> String {
        let cells = self.rows.columns.cells(row);
        for (width, cell) in self.widths.iter_mut().zip(&cells) {
            *width = (*width).max(length(cell).min(MOST_GROWN));
        }
        let mut widths = self.widths.clone();
        self.rows.fit(&mut widths, self.style.width);
        if self.style.width.is_none() {
            for (width, cell) in widths.iter_mut().zip(&cells) {
                *width = (*width).max(length(cell));
            }
        }
        let mut out = String::new();
        self.rows.push_line(&mut out, &widths, &cells, self.style);
        out
    }
}

/// A column does not become wider for one long cell.
const MOST_GROWN: usize = 60;

impl Columns {
    /// A line of comma-separated values, RFC 4180.
    pub(crate) fn csv<'a>(cells: impl Iterator<Item = &'a str>) -> String {
        let cells: Vec<String> = cells
            .map(|cell| {
                if cell.contains([',', '"', '\n', '\r']) {
                    format!("\"{}\"", cell.replace('"', "\"\""))
                } else {
                    cell.to_owned()
                }
            })
            .collect();
        format!("{}\n", cells.join(","))
    }
}

/// A column is not cut below this.
const MIN_WIDTH: usize = 12;

fn length(text: &str) -> usize {
    text.chars().count()
}

fn line<'a>(
    out: &mut String,
    widths: &[usize],
    cells: impl Iterator<Item = &'a str>,
    colour: impl Fn(usize, &str) -> Option<&'static str>,
) {
    let start = out.len();
    for (index, (cell, width)) in cells.zip(widths).enumerate() {
        if index > 0 {
            out.push_str("  ");
        }
        let shown = cut(cell, *width);
        let pad = width.saturating_sub(length(&shown));
        match colour(index, cell) {
            Some(colour) => out.push_str(&format!("{colour}{shown}\u{1b}[0m")),
            None => out.push_str(&shown),
        }
        out.extend(std::iter::repeat_n(' ', pad));
    }
    let end = out.get(start..).unwrap_or_default().trim_end().len();
    out.truncate(start + end);
    out.push('\n');
}

/// The middle goes: the end of a name tells as much as its beginning.
fn cut(text: &str, width: usize) -> String {
    let all = length(text);
    if all <= width {
        return text.to_owned();
    }
    let keep = width.saturating_sub(1);
    let front = keep.div_ceil(2);
    let begin = text.chars().take(front);
    let end = text.chars().skip(all - (keep - front));
    begin.chain(std::iter::once('…')).chain(end).collect()
}

/// An event in words.
pub(crate) fn sentence(row: &Row<'_>, zone: &Zone) -> String {
    let of = |column: &Column| text_of(&row.value(column));
    let verb = of(&Column::Verb);
    let code = of(&Column::ResponseCode);
    let outcome = match code.parse::<i64>() {
        Ok(0..400) => String::new(),
        Ok(_) => format!(" - refused or failed with {code}{}", reason(row)),
        Err(_) => format!(" - {}", of(&Column::Stage)),
    };
    let agent = agent(&of(&Column::UserAgent));
    let with = if agent.is_empty() {
        String::new()
    } else {
        format!(" with {agent}")
    };
    format!(
        "{} {} {verb} {} from {}{with}{outcome}\n",
        time(row, zone),
        user(row),
        object(row),
        of(&Column::SourceIp)
    )
}

fn reason(row: &Row<'_>) -> String {
    match row.value(&Column::ResponseReason) {
        Value::Text(text) => format!(" {}", plain(&text)),
        _ => String::new(),
    }
}
