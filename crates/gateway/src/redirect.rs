//! Answers that send the client somewhere else.

use http::{HeaderMap, HeaderValue, StatusCode, header};

/// What happens to redirects to other hosts. None is ever followed by the gateway itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "refuse or relay")]
pub enum Redirects {
    /// They reach the client as they are.
    #[default]
    Relay,
    /// They become 502, as with kube-apiserver's proxy to aggregated servers. A client that followed one would take
    /// its credentials past the gateway.
    Refuse,
}

/// Whether an answer sends the client to another host than the one that it asked.
pub(crate) fn leads_elsewhere(status: StatusCode, headers: &HeaderMap, host: Option<&HeaderValue>) -> bool {
    let host = host.map_or(&b""[..], HeaderValue::as_bytes);
    status.is_redirection()
        && headers
            .get_all(header::LOCATION)
            .iter()
            .any(|location| !stays(location.as_bytes(), host))
}

/// Whether a reference stays at the host that it came from, for the most careless of clients.
fn stays(location: &[u8], host: &[u8]) -> bool {
    let location = location.trim_ascii();
    // Browsers take a backslash for a slash.
    let is_slash = |byte: Option<&u8>| matches!(byte, Some(b'/' | b'\\'));
    if is_slash(location.first()) {
        return !is_slash(location.get(1));
    }
    let end = location
        .iter()
        .position(|byte| b":/?#\\".contains(byte))
        .unwrap_or(location.len());
    let Some((scheme, rest)) = location.split_at_checked(end) else {
        return false;
    };
    let Some(rest) = rest.strip_prefix(b":") else {
        return true;
    };
    let is_http = [&b"http"[..], b"https"]
        .iter()
        .any(|known| scheme.eq_ignore_ascii_case(known));
    let Some(rest) = rest.strip_prefix(b"//").filter(|_| is_http && !host.is_empty()) else {
        return false;
    };
    let end = rest
        .iter()
        .position(|byte| b"/?#\\".contains(byte))
        .unwrap_or(rest.len());
    rest.get(..end)
        .is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t45_redirects_that_stay_are_told_from_those_that_lead_elsewhere() {
        for location in [
            "/api/v1/",
            "",
            "pods/x",
            "?a=https://evil",
            "#x:y",
            "./a:b",
            "/a//b",
            "https://gateway:6443/x",
            "HTTP://Gateway:6443",
            "https://gateway:6443?x",
        ] {
            assert!(stays(location.as_bytes(), b"gateway:6443"), "{location}");
        }
        for location in [
            "https://evil/",
            "https://gateway:6443@evil/",
            "https://gateway/",
            "https://gateway:6443.evil/",
            "https:/evil",
            "https:evil",
            "//evil",
            "/\\evil",
            "\\\\evil",
            "\t//evil",
            "javascript:alert(1)",
            "ftp://gateway:6443/",
            "https://evil\\@gateway:6443/",
        ] {
            assert!(!stays(location.as_bytes(), b"gateway:6443"), "{location}");
        }
        assert!(!stays(b"https:///x", b""));
    }

    #[test]
    fn t45_only_redirects_with_a_location_count() {
        let mut headers = HeaderMap::new();
        assert!(!leads_elsewhere(StatusCode::FOUND, &headers, None));
        headers.append(header::LOCATION, HeaderValue::from_static("/here"));
        assert!(!leads_elsewhere(StatusCode::FOUND, &headers, None));
        headers.append(header::LOCATION, HeaderValue::from_static("https://there/"));
        assert!(leads_elsewhere(StatusCode::PERMANENT_REDIRECT, &headers, None));
        assert!(!leads_elsewhere(StatusCode::CREATED, &headers, None));
    }
}
