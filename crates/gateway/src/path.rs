//! Paths that could mean one thing here and another thing there.

use kaudit_policy::RequestInfo;

/// What happens to paths that proxies are known to read differently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "refuse or forward")]
pub enum PathMode {
    /// Dot segments, backslashes, encoded slashes and NUL before `/proxy/` are refused with 400.
    #[default]
    Strict,
    /// Every path is forwarded as it is.
    Parity,
}

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ambiguous {
    DotSegment,
    Backslash,
    EncodedSlash,
    Nul,
}

impl Ambiguous {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::DotSegment => "dot segment",
            Self::Backslash => "backslash",
            Self::EncodedSlash => "encoded slash",
            Self::Nul => "NUL",
        }
    }
}

/// Whether a request is for another server behind the cluster's.
pub(crate) fn is_proxied(info: &RequestInfo) -> bool {
    info.subresource() == b"proxy" || info.verb() == b"proxy"
}

/// Looks at the raw path of a request. What follows `/proxy/` is another server's path and stays free.
pub(crate) fn check(path: &str, info: &RequestInfo) -> Result<(), Ambiguous> {
    if is_clear(path.as_bytes()) {
        return Ok(());
    }
    let is_proxied = is_proxied(info);
    for segment in path.split('/') {
        if is_proxied && segment == "proxy" {
            return Ok(());
        }
        check_segment(segment.as_bytes())?;
    }
    Ok(())
}

/// Whether a path has nothing that could be ambiguous, as nearly all have not: no escape, no backslash, and no segment that
/// begins with a dot.
fn is_clear(path: &[u8]) -> bool {
    let begins_segment = |at: usize| {
        at.checked_sub(1)
            .is_none_or(|before| path.get(before) == Some(&b'/'))
    };
    memchr::memchr2(b'%', b'\\', path).is_none() && !memchr::memchr_iter(b'.', path).any(begins_segment)
}

fn check_segment(segment: &[u8]) -> Result<(), Ambiguous> {
    if is_dots(segment) {
        return Err(Ambiguous::DotSegment);
    }
    let mut rest = segment;
    while let Some(at) = memchr::memchr2(b'%', b'\\', rest) {
        let (sign, behind) = rest.get(at..).and_then(<[u8]>::split_first).unwrap_or((&0, &[]));
        match (sign, behind) {
            (b'\\', _) | (_, [b'5', b'c' | b'C', ..]) => return Err(Ambiguous::Backslash),
            (_, [b'2', b'f' | b'F', ..]) => return Err(Ambiguous::EncodedSlash),
            (_, [b'0', b'0', ..]) => return Err(Ambiguous::Nul),
            _ => rest = behind,
        }
    }
    Ok(())
}

/// Whether a segment is one or two dots, encoded or not.
fn is_dots(mut segment: &[u8]) -> bool {
    let mut dots = 0;
    loop {
        segment = match segment {
            [] => return matches!(dots, 1 | 2),
            [b'.', rest @ ..] | [b'%', b'2', b'e' | b'E', rest @ ..] => rest,
            _ => return false,
        };
        dots += 1;
    }
}

#[cfg(test)]
mod tests {
    use kaudit_policy::{RequestInfoResolver, RequestTarget};

    use super::*;

    #[track_caller]
    fn check_path(path: &str, expected: Result<(), Ambiguous>) {
        let target = RequestTarget::parse(b"GET", path.as_bytes()).unwrap();
        let info = RequestInfoResolver::default().resolve(b"GET", &target).unwrap();
        assert_eq!(check(path, &info), expected, "{path}");
    }

    #[test]
    fn t18_ambiguous_paths_are_refused_before_proxy_only() {
        check_path("/api/v1/namespaces/a/../b/secrets", Err(Ambiguous::DotSegment));
        check_path(
            "/api/v1/namespaces/a/%2E%2e/b/secrets",
            Err(Ambiguous::DotSegment),
        );
        check_path("/api/v1/./pods", Err(Ambiguous::DotSegment));
        check_path("/api/v1/namespaces/a/pods/x%2Flog", Err(Ambiguous::EncodedSlash));
        check_path("/api/v1\\pods", Err(Ambiguous::Backslash));
        check_path("/api/v1/pods%5cx", Err(Ambiguous::Backslash));
        check_path("/api/v1/pods/%20%20%5Cx", Err(Ambiguous::Backslash));
        check_path("/api/v1/pods/.%2e", Err(Ambiguous::DotSegment));
        check_path("/api/v1/pods/...", Ok(()));
        check_path("/api/v1/pods/%25%20x", Ok(()));
        check_path("/api/v1/namespaces/a/pods/x%00", Err(Ambiguous::Nul));
        check_path("/api/v1/nodes/n/proxy/../../x%2fy", Ok(()));
        check_path("/api/v1/namespaces/a/pods/..x/log", Ok(()));
        check_path(
            "/api/v1/namespaces/proxy/../b/secrets",
            Err(Ambiguous::DotSegment),
        );
        check_path("//api/v1/pods", Ok(()));
    }

    #[test]
    fn a_path_that_is_clear_has_no_segment_to_refuse() {
        let letters = *b"/.%2e\\a";
        let mut clear = 0;
        for number in 0..letters.len().pow(6) {
            let path: Vec<u8> = (0..6)
                .map(|place| letters[number / letters.len().pow(place) % letters.len()])
                .collect();
            // Also those that do not begin with a slash.
            if is_clear(&path) {
                clear += 1;
                for segment in path.split(|byte| *byte == b'/') {
                    assert_eq!(check_segment(segment), Ok(()), "{path:?}");
                }
            }
        }
        assert!(clear > 1000, "{clear}");
    }
}
