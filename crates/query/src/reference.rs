//! The language for people: `docs/filter.md`, made from the tables that the code goes by.

use std::fmt::Write as _;

use crate::column::{COLUMNS, ColumnInfo, Origin};
use crate::diagnostic::CODES;
use crate::parse::{MAX_DEPTH, MAX_TEXT_BYTES};

const OPENING: &str = "\
# Filters

<!-- Made by kaudit-query from its tables; change crates/query/src/reference.rs, then run its tests with
     KAUDIT_WRITE_DOCS=1. -->

A filter says which events are meant, on the command line, in the API, in saved views and in alerts. Field
names are the paths of an audit event's JSON, as jq, Sigma and Kibana have them.

```text
verb: delete and objectRef.resource: secrets
responseStatus.code >= 400 and not user.username: system:*
verb: (create or update or patch) ns: payments name: api-*
userAgent: kubectl and sourceIPs: 10.0.0.0/8 and time >= now-1h
user.username == \"alice\" && verb in [\"delete\", \"deletecollection\"]
```

## Conditions

- `and`, `or` and `not` join conditions, in any case; `&&`, `||`, `!` and `-field: value` say the same. `and`
  binds stronger than `or`; parentheses group. Two comparisons side by side are joined by `and`, and so are two
  texts. A comparison and a text side by side are refused, since `code: 400 401` could mean three things.
- The empty filter and `*` are every event.
- A word or quoted text by itself is looked for in the object's name, the user's and the impersonated user's
  name, the request URI and the user agent; with `--bodies`, in the bodies as well.
- Values are compared with regard to case. `field.lower(): value` disregards it.

A condition is true or it is not. `not` and `!=` are the exact complement: an event without the field satisfies
`verb != get`, other than in SQL. Nothing but that is true of a field that is absent. An empty text is an absent
one, except in annotations and bodies: `objectRef.subresource: \"\"` asks for events without a subresource.

## Operators
";

/// How an operator is written, what it is for, what it means.
const OPERATORS: &[(&str, &str, &str)] = &[
    (
        "`f: v`",
        "all",
        "is `v`; a bare `v` may have `*` (any run) and `?` (one character), in quotes they stand for themselves",
    ),
    ("`f: *`", "all", "has a value"),
    (
        "`f: (a or b)`",
        "all",
        "is any of them; `,` and blanks separate as well",
    ),
    (
        "`f: [a TO b]`",
        "numbers, times, durations, bodies",
        "lies between them, both included; `*` leaves an end open",
    ),
    (
        "`f = v`, `f == v`, `f != v`",
        "all",
        "is exactly `v`, or is not; no wildcards",
    ),
    (
        "`f in (a, b)`, `f not in [a, b]`",
        "all",
        "is exactly one of them, or is none",
    ),
    (
        "`f < v`, `<=`, `>`, `>=`, `f:>=v`",
        "numbers, times, durations, bodies",
        "is less or more",
    ),
    (
        "`f ~ \"re\"`, `f !~ \"re\"`, `f.matches(\"re\")`",
        "texts",
        "a regular expression (RE2's syntax, linear time) is found in it",
    ),
    (
        "`f.startsWith(\"v\")`, `f.endsWith(\"v\")`, `f.contains(\"v\")`",
        "texts",
        "begins with it, ends with it, has it within",
    ),
    ("`f.lower()` before any of these", "texts", "disregards case"),
];

const VALUES: &str = "
A list of texts and a path of a body satisfy an operator when any of their values does; negated, when none does.

## Values

- A bare word has no blank and none of `( ) [ ] { } , < > = ! ~ \" '`; a colon belongs to it when something
  follows, so `system:serviceaccount:ci:deployer` needs no quotes. A backslash takes the next character as it is.
- A quoted text, in `\"` or `'`, has the escapes `\\\" \\' \\\\ \\n \\r \\t \\uXXXX`.
- A time is `2026-11-20`, `2026-11-20T10:00`, `2026-11-20T10:00:00.5Z` or with an offset, as `+02:00`;
  without one it is UTC, on a command line with `--local` a time of your own zone.
  `now`, `now-1h30m`. A date is its whole day: `time <= 2026-11-20` includes it, `time > 2026-11-20` begins
  after it. `time: 2026-11-20T10:00` is the whole minute.
- A duration is `500ms`, `2s`, `1h30m`; the units are `w d h m s ms us`.
- `sourceIPs` and `sourceIP` take an address, a network as `10.0.0.0/8`, or a wildcard behind `:`.
- `userAgent: kubectl` also finds `kubectl/v1.36.3 (linux/amd64)`: behind `:`, what stands before the first `/`
  is compared as well. `userAgent = \"...\"` compares the whole.
- `verb: delete` leaves out `deletecollection`: write `verb: delete*`, or `mutating: true` for every write.

## Paths

A key that is no plain name stands in quotes: `annotations.\"authorization.k8s.io/decision\"` or
`annotations[\"authorization.k8s.io/decision\"]`; where nothing else is meant, also without. In a body, arrays
are looked through: `requestObject.spec.containers.image: *:latest` is true when any container's image ends so.
Numbers, `true` and `false` in a body compare as they are spelled, and by size with `<` and its kin.

";

/// The whole page.
#[must_use]
pub fn reference() -> String {
    let mut page = OPENING.to_owned();
    // Writing to a String cannot fail.
    let mut line = |text: std::fmt::Arguments<'_>| {
        let _written = page.write_fmt(text);
    };
    line(format_args!(
        "\n| operator | for | the field ... |\n| --- | --- | --- |\n"
    ));
    for (operator, fields, meaning) in OPERATORS {
        line(format_args!("| {operator} | {fields} | {meaning} |\n"));
    }
    line(format_args!("{VALUES}"));
    for (title, origin) in [
        ("Fields of the event", Origin::Event),
        ("Fields that are derived", Origin::Derived),
        (
            "Fields of the journal's record; events of a file have none",
            Origin::Envelope,
        ),
    ] {
        line(format_args!(
            "## {title}\n\n| field | short | type | |\n| --- | --- | --- | --- |\n"
        ));
        for info in COLUMNS.iter().filter(|info| info.origin == origin) {
            line(format_args!(
                "| `{}` | {} | {} | {} |\n",
                written(info),
                info.short.map(|short| format!("`{short}`")).unwrap_or_default(),
                info.column_type.name(),
                described(info)
            ));
        }
        line(format_args!("\n"));
    }
    line(format_args!(
        "## Mistakes\n\nEvery mistake of a filter is told at once, with its place and what to write instead. A filter may \
         have {} KiB\nand {MAX_DEPTH} levels of parentheses and `not`.\n\n| code | meaning | example |\n| --- | --- | --- |\n",
        MAX_TEXT_BYTES >> 10
    ));
    for code in CODES {
        let example = match code.example {
            "" => String::new(),
            example => format!("`{}`", example.replace('|', "\\|")),
        };
        line(format_args!("| {} | {} | {example} |\n", code.code, code.meaning));
    }
    page
}

fn written(info: &ColumnInfo) -> String {
    if info.has_key() {
        format!("{}.KEY", info.name)
    } else if info.has_path() {
        format!("{}.PATH", info.name)
    } else {
        info.name.to_owned()
    }
}

fn described(info: &ColumnInfo) -> String {
    match info.values {
        [] => info.doc.to_owned(),
        values => format!("{}: `{}`", info.doc, values.join("`, `")),
    }
}
