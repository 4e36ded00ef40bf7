//! Where a value stands in an object, as people read it: `spec.template.spec.containers[api].image`.

use std::fmt;

use serde_json::Value;

/// One step into an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(clippy::exhaustive_enums, reason = "JSON has no other ways in")]
pub enum Step {
    /// A field of an object.
    Field(String),
    /// The item of a list that has this key.
    Key(String),
    /// The item at this place of a list whose items have no keys.
    Index(usize),
}

/// A way into an object; empty for the object itself.
///
/// Names with other signs than letters, digits, `-` and `_` are quoted: `metadata.labels["app.kubernetes.io/name"]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(Vec<Step>);

/// Why a text is no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a field path at byte {at}: write it like spec.containers[api].image or metadata.labels[\"a.b/c\"]"
)]
#[non_exhaustive]
pub struct PathError {
    /// The place.
    pub at: usize,
}

impl Path {
    /// The steps, outermost first.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// This path and one more step.
    #[must_use]
    pub fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    pub(crate) fn push(&mut self, step: Step) {
        self.0.push(step);
    }

    pub(crate) fn pop(&mut self) {
        self.0.pop();
    }

    /// Whether the path begins with these fields.
    #[must_use]
    pub fn is_under(&self, fields: &[&str]) -> bool {
        self.0.len() >= fields.len()
            && fields
                .iter()
                .zip(&self.0)
                .all(|(field, step)| matches!(step, Step::Field(name) if name == field))
    }

    /// Reads a path as it is shown; a leading dot is allowed, and so is a text in brackets without quotes.
    ///
    /// # Errors
    ///
    /// [`PathError`] for anything else.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let text = text.trim();
        let mut steps = Vec::new();
        let mut rest = text.strip_prefix('.').unwrap_or(text);
        let at = |rest: &str| PathError {
            at: text.len() - rest.len(),
        };
        while !rest.is_empty() {
            if let Some(inner) = rest.strip_prefix('[') {
                let (step, after) = bracketed(inner).ok_or_else(|| at(rest))?;
                steps.push(step);
                rest = after;
            } else {
                let end = rest.find(['.', '[']).unwrap_or(rest.len());
                let (name, after) = rest.split_at_checked(end).ok_or_else(|| at(rest))?;
                if name.is_empty() {
                    return Err(at(rest));
                }
                steps.push(Step::Field(name.to_owned()));
                rest = after;
            }
            if let Some(after) = rest.strip_prefix('.') {
                if after.is_empty() || after.starts_with(['.', '[']) {
                    return Err(at(rest));
                }
                rest = after;
            }
        }
        Ok(Self(steps))
    }
}

/// `0]`, `api]` or `"a.b"]`, and what follows.
fn bracketed(text: &str) -> Option<(Step, &str)> {
    if text.starts_with('"') {
        let mut values = serde_json::Deserializer::from_str(text).into_iter::<String>();
        let name = values.next()?.ok()?;
        let after = text.get(values.byte_offset()..)?.strip_prefix(']')?;
        // Only the object tells whether a quoted name is a field or a key; see `find`.
        return Some((Step::Key(name), after));
    }
    let (name, after) = text.split_once(']')?;
    if name.is_empty() {
        return None;
    }
    let step = name
        .parse()
        .map_or_else(|_| Step::Key(name.to_owned()), Step::Index);
    Some((step, after))
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Field(name) if is_plain(name) => {
                    if at > 0 {
                        f.write_str(".")?;
                    }
                    f.write_str(name)?;
                }
                Step::Field(name) => write!(f, "[{}]", Value::from(name.as_str()))?,
                Step::Key(key) if is_plain(key) && key.parse::<usize>().is_err() => write!(f, "[{key}]")?,
                Step::Key(key) => write!(f, "[{}]", Value::from(key.as_str()))?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '$'))
}

/// Fields by which items of a list are told apart, the first that all items have in their own way.
const KEYS: [&[&str]; 16] = [
    &["mountPath"],
    &["devicePath"],
    &["name"],
    &["kind", "name", "namespace"],
    &["containerPort"],
    &["containerPort", "protocol"],
    &["port"],
    &["port", "protocol"],
    &["type"],
    &["host"],
    &["path"],
    &["ip"],
    &["key"],
    &["uid"],
    &["topologyKey"],
    &["manager", "operation", "subresource"],
];

/// The keys of the items of lists that are versions of each other, if one choice of fields tells the items
/// of each apart.
pub(crate) fn keys<const N: usize>(lists: [&[Value]; N]) -> Option<[Vec<String>; N]> {
    if lists.iter().all(|list| list.is_empty()) {
        return None;
    }
    KEYS.iter().find_map(|fields| {
        let mut out = [const { Vec::new() }; N];
        for (list, keys) in lists.iter().zip(&mut out) {
            *keys = list.iter().map(|item| key(item, fields)).collect::<Option<_>>()?;
            let mut sorted: Vec<&String> = keys.iter().collect();
            sorted.sort_unstable();
            if sorted
                .windows(2)
                .any(|pair| matches!(pair, [one, other] if one == other))
            {
                return None;
            }
        }
        Some(out)
    })
}

fn key(item: &Value, fields: &[&str]) -> Option<String> {
    let text = |field: &str| match item.get(field)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let (first, others) = fields.split_first()?;
    let mut out = text(first)?;
    for field in others {
        out.push('/');
        out.push_str(&text(field).unwrap_or_default());
    }
    Some(out)
}

/// The path as it is in this object, and the place of each step there.
pub(crate) fn find(object: &Value, path: &Path) -> Option<(Path, Vec<usize>)> {
    let mut at = object;
    let (mut out, mut places) = (Path::default(), Vec::new());
    for step in &path.0 {
        let (place, step, next) = match (at, step) {
            (Value::Object(fields), Step::Field(name) | Step::Key(name)) => {
                let place = fields.keys().position(|key| key == name)?;
                (place, Step::Field(name.clone()), fields.get(name)?)
            }
            (Value::Object(fields), Step::Index(index)) => {
                let name = index.to_string();
                let place = fields.keys().position(|key| *key == name)?;
                let value = fields.get(&name)?;
                (place, Step::Field(name), value)
            }
            (Value::Array(items), step) => {
                let keys = keys([items]).map(|[keys]| keys);
                let place = match step {
                    Step::Index(index) if *index < items.len() => *index,
                    Step::Index(index) => keys.as_ref()?.iter().position(|key| *key == index.to_string())?,
                    Step::Field(name) | Step::Key(name) => {
                        keys.as_ref()?.iter().position(|key| key == name)?
                    }
                };
                let shown = match keys.as_ref().and_then(|keys| keys.get(place)) {
                    Some(key) => Step::Key(key.clone()),
                    None => Step::Index(place),
                };
                (place, shown, items.get(place)?)
            }
            _ => return None,
        };
        out.push(step);
        places.push(place);
        at = next;
    }
    Some((out, places))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_read_back_as_they_are_shown() {
        for text in [
            "spec.template.spec.containers[api].image",
            "metadata.labels[\"app.kubernetes.io/name\"]",
            "spec.ports[\"8080\"].protocol",
            "spec.args[0]",
            "",
        ] {
            let path = Path::parse(text).unwrap();
            assert_eq!(path.to_string(), text);
        }
        assert_eq!(Path::parse(".spec.a").unwrap().to_string(), "spec.a");
        for text in ["a.", "a..b", "a[", "a[]", "a[\"b]", "a.[b]"] {
            assert!(Path::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn quoted_names_are_fields_or_keys_as_the_object_has_it() {
        let object = json!({"a": {"x.y": [{"port": 80}, {"port": 81}], "0": [5, 6]}});
        for (text, shown, places) in [
            ("a[\"x.y\"][\"81\"]", "a[\"x.y\"][\"81\"]", vec![0, 0, 1]),
            ("a[\"x.y\"][81].port", "a[\"x.y\"][\"81\"].port", vec![0, 0, 1, 0]),
            ("a[0][1]", "a.0[1]", vec![0, 1, 1]),
        ] {
            let (path, found) = find(&object, &Path::parse(text).unwrap()).unwrap();
            assert_eq!((path.to_string().as_str(), found), (shown, places), "{text}");
        }
        assert!(find(&object, &Path::parse("a.z").unwrap()).is_none());
    }
}
