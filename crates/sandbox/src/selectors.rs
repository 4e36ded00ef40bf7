//! Label and field selectors.
//!
//! Source: k8s.io/apimachinery pkg/labels/selector.go and pkg/fields/selector.go.

use serde_json::Value;

use crate::status::ApiError;

/// The selectors of a list or watch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<(String, Comparison, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    Different,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
    Above(String, i64),
    Below(String, i64),
}

impl Selector {
    /// Parses the two query parameters.
    pub(crate) fn parse(labels: &str, fields: &str) -> Result<Self, ApiError> {
        Ok(Self {
            labels: parse_labels(labels)?,
            fields: parse_fields(fields)?,
        })
    }

    /// The selector of a `matchLabels`/`matchExpressions` object.
    pub(crate) fn from_label_selector(selector: &Value) -> Self {
        let mut labels = Vec::new();
        if let Some(Value::Object(wanted)) = selector.get("matchLabels") {
            for (key, value) in wanted {
                labels.push(Requirement::In(key.clone(), vec![text(value)]));
            }
        }
        for expression in selector
            .get("matchExpressions")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let key = expression.get("key").map(text).unwrap_or_default();
            let values: Vec<String> = expression
                .get("values")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .map(text)
                .collect();
            match expression.get("operator").and_then(Value::as_str) {
                Some("In") => labels.push(Requirement::In(key, values)),
                Some("NotIn") => labels.push(Requirement::NotIn(key, values)),
                Some("Exists") => labels.push(Requirement::Exists(key)),
                Some("DoesNotExist") => labels.push(Requirement::Absent(key)),
                _ => {}
            }
        }
        Self {
            labels,
            fields: Vec::new(),
        }
    }

    /// Whether everything matches; it counts as no selection for list metadata.
    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Refuses fields that upstream does not index.
    pub(crate) fn check_fields(&self, supported: &[&str]) -> Result<(), ApiError> {
        for (field, _, _) in &self.fields {
            if !matches!(field.as_str(), "metadata.name" | "metadata.namespace")
                && !supported.contains(&field.as_str())
            {
                return Err(ApiError::bad_request(format!(
                    "field label not supported: {field}"
                )));
            }
        }
        Ok(())
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels");
        self.labels.iter().all(|requirement| requirement.matches(labels))
            && self.fields.iter().all(|(field, comparison, wanted)| {
                let pointer = format!("/{}", field.replace('.', "/"));
                let found = object.pointer(&pointer).map(text).unwrap_or_default();
                (found == *wanted) == (*comparison == Comparison::Equal)
            })
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

impl Requirement {
    fn matches(&self, labels: Option<&Value>) -> bool {
        let find = |key: &str| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
        let number = |key: &str| find(key).and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::In(key, values) => find(key).is_some_and(|found| values.iter().any(|value| value == found)),
            Self::NotIn(key, values) => {
                !find(key).is_some_and(|found| values.iter().any(|value| value == found))
            }
            Self::Exists(key) => find(key).is_some(),
            Self::Absent(key) => find(key).is_none(),
            Self::Above(key, limit) => number(key).is_some_and(|found| found > *limit),
            Self::Below(key, limit) => number(key).is_some_and(|found| found < *limit),
        }
    }
}

fn parse_labels(selector: &str) -> Result<Vec<Requirement>, ApiError> {
    split_outside_parentheses(selector)
        .into_iter()
        .filter(|term| !term.is_empty())
        .map(|term| {
            parse_requirement(term).ok_or_else(|| {
                ApiError::bad_request(format!(
                    "unable to parse requirement: found '{term}', expected: a requirement"
                ))
            })
        })
        .collect()
}

fn split_outside_parentheses(selector: &str) -> Vec<&str> {
    let mut depth = 0_u32;
    selector
        .split(|c: char| {
            match c {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            c == ',' && depth == 0
        })
        .map(str::trim)
        .collect()
}

fn parse_requirement(term: &str) -> Option<Requirement> {
    if let Some(key) = term.strip_prefix('!') {
        return Some(Requirement::Absent(label_key(key)?));
    }
    if let Some((key, value)) = term.split_once("!=") {
        return Some(Requirement::NotIn(label_key(key)?, vec![value.trim().to_owned()]));
    }
    if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        return Some(Requirement::In(label_key(key)?, vec![value.trim().to_owned()]));
    }
    if let Some((key, value)) = term.split_once('>') {
        return Some(Requirement::Above(label_key(key)?, value.trim().parse().ok()?));
    }
    if let Some((key, value)) = term.split_once('<') {
        return Some(Requirement::Below(label_key(key)?, value.trim().parse().ok()?));
    }
    if let Some((head, list)) = term.split_once('(') {
        let values = list
            .strip_suffix(')')?
            .split(',')
            .map(|value| value.trim().to_owned())
            .collect();
        let (key, operator) = head.trim().rsplit_once(char::is_whitespace)?;
        return match operator {
            "in" => Some(Requirement::In(label_key(key)?, values)),
            "notin" => Some(Requirement::NotIn(label_key(key)?, values)),
            _ => None,
        };
    }
    Some(Requirement::Exists(label_key(term)?))
}

fn label_key(key: &str) -> Option<String> {
    let key = key.trim();
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    (!key.is_empty() && key.chars().all(allowed)).then(|| key.to_owned())
}

fn parse_fields(selector: &str) -> Result<Vec<(String, Comparison, String)>, ApiError> {
    let mut out = Vec::new();
    for term in selector.split(',').filter(|term| !term.is_empty()) {
        let (field, comparison, value) = if let Some((field, value)) = term.split_once("!=") {
            (field, Comparison::Different, value)
        } else if let Some((field, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
            (field, Comparison::Equal, value)
        } else {
            return Err(ApiError::bad_request(format!(
                "invalid selector: '{selector}'; can't understand '{term}'"
            )));
        };
        out.push((field.to_owned(), comparison, value.to_owned()));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(labels: &str, fields: &str, expected: bool) {
        let object = json!({
            "metadata": {"name": "a", "namespace": "ns", "labels": {"app": "web", "tier": "1", "x.io/y": "z"}},
            "status": {"phase": "Running"},
        });
        assert_eq!(
            Selector::parse(labels, fields).unwrap().matches(&object),
            expected,
            "{labels} {fields}"
        );
    }

    #[test]
    fn label_selectors_match() {
        check("", "", true);
        check("app=web", "", true);
        check("app==web,tier!=2", "", true);
        check("app in (db, web), tier", "", true);
        check("app notin (web)", "", false);
        check("absent notin (web)", "", true);
        check("!app", "", false);
        check("!absent", "", true);
        check("absent", "", false);
        check("tier>0,tier<2", "", true);
        check("x.io/y=z", "", true);
    }

    #[test]
    fn field_selectors_match() {
        check("", "metadata.name=a", true);
        check("", "metadata.name!=a", false);
        check("", "status.phase=Running,metadata.namespace==ns", true);
        check("", "spec.nodeName=", true);
    }

    #[test]
    fn bad_selectors_are_refused() {
        assert!(Selector::parse("a b", "").is_err());
        assert!(Selector::parse("a in web", "").is_err());
        assert!(Selector::parse("", "metadata.name").is_err());
        assert!(
            Selector::parse("", "spec.x=1")
                .unwrap()
                .check_fields(&[])
                .is_err()
        );
    }
}
