//! Where a collector listens, and the path by which it knows a source.

use std::net::IpAddr;

use http::Uri;

/// What every source's path begins with.
const PREFIX: [&str; 2] = ["v1", "audit"];

/// Characters of the name of a cluster or an instance.
const MAX_NAME: usize = 253;

/// `https://host[:port]` of a collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Collector {
    origin: String,
}

impl Collector {
    /// Reads `https://host[:port]`; the collector's own port is 7444, so one without a port gets that.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let address = Address::parse(text)?;
        if !address.is_https {
            return Err(format!(
                "`{text}` is not https: an API server sends no credentials over http, and anyone could read the events"
            ));
        }
        if !address.path.trim_matches('/').is_empty() || address.has_query {
            return Err(format!(
                "`{text}` has a path: give only https://HOST:PORT, the path is made of --cluster and --instance"
            ));
        }
        let host = match address.host.parse::<IpAddr>() {
            Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
            _ => address.host,
        };
        Ok(Self {
            origin: format!("https://{host}:{}", address.port.unwrap_or(7444)),
        })
    }

    /// `https://host:port`.
    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    /// The URL for the events of a source.
    pub(crate) fn of_source(&self, cluster: &str, instance: &str) -> String {
        format!("{}/v1/audit/{cluster}/{instance}", self.origin)
    }
}

/// A URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) is_https: bool,
    /// Without brackets.
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    pub(crate) path: String,
    /// Whether there is a query or a fragment.
    pub(crate) has_query: bool,
}

impl Address {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (bare, has_fragment) = match text.split_once('#') {
            Some((bare, _)) => (bare, true),
            None => (text, false),
        };
        let broken = || format!("`{text}` is not a URL: write https://HOST:7444");
        let uri: Uri = bare.parse().map_err(|_| broken())?;
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(broken()),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(broken)?;
        Ok(Self {
            is_https,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: uri.port_u16(),
            path: uri.path().to_owned(),
            has_query: has_fragment || uri.query().is_some(),
        })
    }

    /// Cluster and instance of a collector's path, or why there are none.
    pub(crate) fn source(&self) -> Result<(String, String), String> {
        let parts: Vec<&str> = self.path.split('/').filter(|part| !part.is_empty()).collect();
        match parts.as_slice() {
            [first, second, cluster, instance] if [*first, *second] == PREFIX => {
                for (what, name) in [("cluster", cluster), ("instance", instance)] {
                    if !is_name(name) {
                        return Err(format!(
                            "`{name}` is no name of {a} {what}: {NAME_RULE}",
                            a = article(what)
                        ));
                    }
                }
                Ok(((*cluster).to_owned(), (*instance).to_owned()))
            }
            [first, second, _] if [*first, *second] == PREFIX => {
                Err(format!("the path `{}` names no instance", self.path))
            }
            [] => Err("the URL has no path, so the collector cannot tell whose events these are".to_owned()),
            _ => Err(format!(
                "the path `{}` is not /v1/audit/CLUSTER/INSTANCE",
                self.path
            )),
        }
    }
}

fn article(noun: &str) -> &'static str {
    if noun.starts_with('i') { "an" } else { "a" }
}

/// What a name may look like, in words.
pub(crate) const NAME_RULE: &str =
    "letters, digits, `-`, `.` and `_`, first and last a letter or a digit, at most 253";

/// Whether `name` can name a cluster or an instance.
pub(crate) fn is_name(name: &str) -> bool {
    let is_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    bytes.len() <= MAX_NAME
        && is_end(bytes.first())
        && is_end(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_an_https_origin() {
        let origin = |text: &str| Collector::parse(text).map(|collector| collector.origin().to_owned());
        assert_eq!(
            origin("https://kaudit.example"),
            Ok("https://kaudit.example:7444".to_owned())
        );
        assert_eq!(origin("https://[::1]:1/"), Ok("https://[::1]:1".to_owned()));
        assert_eq!(
            origin("https://10.0.0.1:443"),
            Ok("https://10.0.0.1:443".to_owned())
        );
        for wrong in [
            "http://a",
            "a:7444",
            "https://",
            "https://a/b",
            "https://a?x",
            "ftp://a",
            "https://a#b",
        ] {
            assert!(origin(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_source_has_a_cluster_and_an_instance() {
        let source = |path: &str| Address::parse(&format!("https://a:7444{path}")).unwrap().source();
        assert_eq!(source("/v1/audit/c/i"), Ok(("c".to_owned(), "i".to_owned())));
        // The API server's client cleans the path.
        assert_eq!(source("//v1/audit/c/i/"), Ok(("c".to_owned(), "i".to_owned())));
        for wrong in [
            "",
            "/",
            "/audit",
            "/v1/audit/c",
            "/v1/audit/c/i/x",
            "/v1/audit/c/-i",
            "/v1/audit/c%20/i",
        ] {
            assert!(source(wrong).is_err(), "{wrong}");
        }
    }
}
