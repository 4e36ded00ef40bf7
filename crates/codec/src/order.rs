//! The order in which Go prints the members of an object.

use crate::Unprintable;
use crate::protobuf::table::{Around, Form, Number, Table};
use crate::tree::find;

/// What is known of the members of the objects in a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Nothing: they are printed by their keys, as Go prints a map.
    ByKey,
    /// They are fields of this struct.
    OfStruct(Number),
    /// They are names, of values whose members are fields of this struct.
    OfStructs(Number),
}

/// Fields that every object and no struct has; they come first.
const TYPE_META: [&str; 2] = ["kind", "apiVersion"];

/// What is done with a member, its value, and the order of what is in that.
type Each<'a, T> = &'a mut dyn FnMut(&str, &T, Order) -> Result<(), Unprintable>;

impl Order {
    pub(crate) fn of_kind(version: &str, kind: &str) -> Self {
        Table::get()
            .kind(version, kind)
            .map_or(Self::ByKey, Self::OfStruct)
    }

    fn of(around: Around, form: Form) -> Self {
        match form {
            Form::Struct(number) if around == Around::Map => Self::OfStructs(number),
            Form::SchemaOrBool(number) | Form::SchemaOrSchemas(number) | Form::SchemaOrTexts(number)
                if around == Around::Map =>
            {
                Self::OfStructs(number)
            }
            Form::Struct(number)
            | Form::SchemaOrBool(number)
            | Form::SchemaOrSchemas(number)
            | Form::SchemaOrTexts(number) => Self::OfStruct(number),
            _ => Self::ByKey,
        }
    }

    /// Goes through `members`, which are in the order of their keys.
    pub(crate) fn each<T>(self, members: &[(String, T)], act: Each<'_, T>) -> Result<(), Unprintable> {
        let number = match self {
            Self::OfStruct(number) => number,
            Self::ByKey | Self::OfStructs(_) => {
                let within = match self {
                    Self::OfStructs(number) => Self::OfStruct(number),
                    _ => Self::ByKey,
                };
                return members
                    .iter()
                    .try_for_each(|(key, value)| act(key, value, within));
            }
        };
        let mut printed: Vec<&str> = Vec::with_capacity(members.len());
        let mut names = Vec::new();
        push_names(number, &mut names);
        for name in TYPE_META {
            if !names.iter().any(|(known, _)| *known == name) {
                names.insert(printed.len(), (name, Self::ByKey));
                printed.push(name);
            }
        }
        printed.clear();
        for (name, within) in &names {
            if let Some(value) = find(members, name) {
                printed.push(name);
                act(name, value, *within)?;
            }
        }
        if printed.len() < members.len() {
            // What no struct has was not in any Go value either; it stays where it can be seen.
            printed.sort_unstable();
            for (key, value) in members {
                if printed.binary_search(&key.as_str()).is_err() {
                    act(key, value, Self::ByKey)?;
                }
            }
        }
        Ok(())
    }
}

/// The names of a struct's fields in their order, with those of what is inline.
fn push_names(number: Number, names: &mut Vec<(&'static str, Order)>) {
    let fields = Table::get().of(number).map(|known| known.fields.as_slice());
    for field in fields.unwrap_or_default() {
        match (field.name(), field.form) {
            (None, Form::Struct(inline)) => push_names(inline, names),
            (None, _) => {}
            (Some(name), form) => names.push((name, Order::of(field.around, form))),
        }
    }
}
