//! Which fields the structs of the Kubernetes API have, on the wire and in JSON.
//!
//! `table.txt` is written by `interop/protobuf_table` from the Go types. A line is a struct, whose number is
//! that of the line from 0, with its fields in the order of Go's JSON: `8oz:creationTimestamp:T` is field 8
//! on the wire, left out when it is empty (`o`) or its type's zero (`z`), of form `T`. An inline field (`i`)
//! has no name. Lines that begin with `=` are the kinds of a version and their structs.
//!
//! A form is a letter, with `*` (pointer), `[` (list) or `{` (map by text) before it:
//! `b` bool, `i` int32, `l` int64, `d` double, `s` text, `y` bytes, `m` a struct, `V` a message that is a list
//! of texts, `T` Time, `M` MicroTime, `D` Duration, `Q` Quantity, `O` IntOrString, `R` RawExtension, `F`
//! FieldsV1 or any JSON, and of JSON schemas `P` one or a bool, `A` one or several, `S` one or texts.

use std::sync::LazyLock;

static TEXT: &str = include_str!("table.txt");

static TABLE: LazyLock<Table> = LazyLock::new(|| Table::parse(TEXT).unwrap_or_default());

/// A struct's number.
pub(crate) type Number = u16;

/// All structs and kinds.
#[derive(Debug, Default)]
pub(crate) struct Table {
    structs: Vec<Struct>,
    /// Version, kind and struct, sorted.
    kinds: Vec<(&'static str, &'static str, Number)>,
}

#[derive(Debug)]
pub(crate) struct Struct {
    pub(crate) fields: Vec<Field>,
    /// The place in `fields` by number on the wire; [`NOWHERE`] where there is none.
    places: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Field {
    /// The name as it is printed, with quotes and colon; empty when the field is inline.
    pub(crate) key: String,
    pub(crate) omit: Omit,
    pub(crate) around: Around,
    pub(crate) form: Form,
}

/// When a field is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Omit {
    Never,
    /// Go's `omitempty`, which no struct is.
    Empty,
    /// And its `omitzero`.
    Zero,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Around {
    Nothing,
    Pointer,
    List,
    Map,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Bool,
    Int32,
    Int64,
    Double,
    Text,
    Bytes,
    Struct(Number),
    Texts,
    Time,
    MicroTime,
    Duration,
    Quantity,
    IntOrString,
    RawExtension,
    AnyJson,
    SchemaOrBool(Number),
    SchemaOrSchemas(Number),
    SchemaOrTexts(Number),
}

const NOWHERE: u8 = u8::MAX;

impl Table {
    pub(crate) fn get() -> &'static Self {
        &TABLE
    }

    pub(crate) fn kind(&self, version: &str, kind: &str) -> Option<Number> {
        let at = self
            .kinds
            .binary_search_by(|row| (row.0, row.1).cmp(&(version, kind)))
            .ok()?;
        self.kinds.get(at).map(|row| row.2)
    }

    pub(crate) fn of(&self, number: Number) -> Option<&Struct> {
        self.structs.get(usize::from(number))
    }

    fn parse(text: &'static str) -> Option<Self> {
        let mut table = Self::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match line.strip_prefix('=') {
                Some(_) => {
                    let version = words.next()?.get(1..)?;
                    for word in words {
                        let (kind, number) = word.split_once(':')?;
                        table.kinds.push((version, kind, number.parse().ok()?));
                    }
                }
                None => table.structs.push(Struct::parse(words)?),
            }
        }
        table.kinds.sort_unstable();
        Some(table)
    }
}

impl Field {
    /// The name in JSON; `None` when the field is inline.
    pub(crate) fn name(&self) -> Option<&str> {
        self.key.strip_prefix('"')?.strip_suffix("\":")
    }
}

impl Struct {
    /// The place of the field with this number on the wire.
    pub(crate) fn place(&self, number: u64) -> Option<u8> {
        let place = self.places.get(usize::try_from(number).ok()?)?;
        (*place != NOWHERE).then_some(*place)
    }

    fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut parsed = Self {
            fields: Vec::new(),
            places: Vec::new(),
        };
        for word in words {
            let mut parts = word.split(':');
            let (head, name, form) = (parts.next()?, parts.next()?, parts.next()?);
            let flags = head.trim_start_matches(|c: char| c.is_ascii_digit());
            let number: usize = head.strip_suffix(flags)?.parse().ok()?;
            let omit = match flags {
                "" | "i" => Omit::Never,
                "o" => Omit::Empty,
                "oz" => Omit::Zero,
                _ => return None,
            };
            if number != 0 {
                if parsed.places.len() <= number {
                    parsed.places.resize(number + 1, NOWHERE);
                }
                let place = u8::try_from(parsed.fields.len()).ok()?;
                *parsed.places.get_mut(number)? = place;
            }
            let (around, form) = read_form(form)?;
            parsed.fields.push(Field {
                key: match name {
                    "." => String::new(),
                    name => format!("\"{name}\":"),
                },
                omit,
                around,
                form,
            });
        }
        Some(parsed)
    }
}

fn read_form(text: &str) -> Option<(Around, Form)> {
    let (around, text) = if let Some(rest) = text.strip_prefix('*') {
        (Around::Pointer, rest)
    } else if let Some(rest) = text.strip_prefix('[') {
        (Around::List, rest)
    } else if let Some(rest) = text.strip_prefix('{') {
        (Around::Map, rest)
    } else {
        (Around::Nothing, text)
    };
    let (letter, number) = text.split_at_checked(1)?;
    let number = || number.parse().ok();
    let form = match letter {
        "b" => Form::Bool,
        "i" => Form::Int32,
        "l" => Form::Int64,
        "d" => Form::Double,
        "s" => Form::Text,
        "y" => Form::Bytes,
        "m" => Form::Struct(number()?),
        "V" => Form::Texts,
        "T" => Form::Time,
        "M" => Form::MicroTime,
        "D" => Form::Duration,
        "Q" => Form::Quantity,
        "O" => Form::IntOrString,
        "R" => Form::RawExtension,
        "F" => Form::AnyJson,
        "P" => Form::SchemaOrBool(number()?),
        "A" => Form::SchemaOrSchemas(number()?),
        "S" => Form::SchemaOrTexts(number()?),
        _ => return None,
    };
    Some((around, form))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_read_and_every_number_leads_to_a_struct() {
        let table = Table::parse(TEXT).unwrap();
        let lines = TEXT.lines().filter(|line| !line.starts_with('=')).count();
        assert_eq!(table.structs.len(), lines);
        assert!(table.kinds.len() > 700, "{} kinds", table.kinds.len());
        for (version, kind, number) in &table.kinds {
            assert!(table.of(*number).is_some(), "{version} {kind}");
            assert_eq!(table.kind(version, kind), Some(*number));
        }
        for field in table.structs.iter().flat_map(|one| &one.fields) {
            if let Form::Struct(number)
            | Form::SchemaOrBool(number)
            | Form::SchemaOrSchemas(number)
            | Form::SchemaOrTexts(number) = field.form
            {
                assert!(table.of(number).is_some(), "{}", field.key);
            }
        }
    }

    #[test]
    fn a_pod_has_its_fields_in_order() {
        let table = Table::get();
        let pod = table.of(table.kind("v1", "Pod").unwrap()).unwrap();
        let keys: Vec<&str> = pod.fields.iter().map(|field| field.key.as_str()).collect();
        assert_eq!(keys, ["\"metadata\":", "\"spec\":", "\"status\":"]);
        assert_eq!((pod.place(2), pod.place(0), pod.place(9)), (Some(1), None, None));
        assert_eq!(table.kind("v2", "Pod"), None);
    }
}
