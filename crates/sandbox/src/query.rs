//! A request's query parameters as the API reads them.

use percent::decode;

use crate::status::ApiError;

/// Decoded `key=value` pairs in the order they were sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Pairs with a semicolon or a bad escape are dropped, as Go drops them.
    pub(crate) fn parse(raw: &[u8]) -> Self {
        let pairs = raw
            .split(|byte| *byte == b'&')
            .filter(|pair| !pair.is_empty() && !pair.contains(&b';'));
        let decoded = pairs.filter_map(|pair| {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            let key = decode(halves.next()?)?;
            let value = decode(halves.next().unwrap_or_default())?;
            Some((key, value))
        });
        Self(decoded.collect())
    }

    /// The first value; empty when absent.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.0
            .iter()
            .find(|(found, _)| found == key)
            .map_or("", |(_, value)| value.as_str())
    }

    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(found, _)| found == key)
            .map(|(_, value)| value.as_str())
    }

    /// An absent or empty `bool` is false; any value but `0` and `false` is true.
    ///
    /// Source: k8s.io/apimachinery pkg/runtime/conversion.go, Convert_Slice_string_To_bool.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.0
            .iter()
            .find(|(found, _)| found == key)
            .is_some_and(|(_, value)| {
                value.is_empty() || !(value == "0" || value.eq_ignore_ascii_case("false"))
            })
    }

    /// An absent or empty number is `None`.
    ///
    /// # Errors
    ///
    /// 400 for anything else that is no number.
    pub(crate) fn number(&self, key: &str) -> Result<Option<i64>, ApiError> {
        match self.text(key) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
            }),
        }
    }
}

/// Percent-decoding of query components.
mod percent {
    pub(super) fn decode(text: &[u8]) -> Option<String> {
        let mut out = Vec::with_capacity(text.len());
        let mut bytes = text.iter();
        while let Some(byte) = bytes.next() {
            out.push(match byte {
                b'+' => b' ',
                b'%' => digit(*bytes.next()?)? << 4 | digit(*bytes.next()?)?,
                other => *other,
            });
        }
        Some(String::from_utf8_lossy(&out).into_owned())
    }

    fn digit(byte: u8) -> Option<u8> {
        match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            b'A'..=b'F' => Some(byte - b'A' + 10),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_as_go_reads_them() {
        let query = Query::parse(b"a=1&b=x%20y+z&c&bad=%zz&semi=1;d=2&a=2&watch=0&t=true&limit=q");
        assert_eq!(query.text("a"), "1");
        assert_eq!(query.all("a").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(query.text("b"), "x y z");
        assert!(query.flag("c") && query.flag("t") && !query.flag("watch") && !query.flag("absent"));
        assert_eq!(query.text("bad"), "");
        assert_eq!(query.number("a").unwrap(), Some(1));
        assert!(query.number("limit").is_err());
    }
}
