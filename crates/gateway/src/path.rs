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
    let is_proxied = is_proxied(info);
    for segment in path.split('/') {
        if is_proxied && segment == "proxy" {
            return Ok(());
        }
        let lower = segment.to_ascii_lowercase();
        if matches!(lower.replace("%2e", ".").as_str(), "." | "..") {
            return Err(Ambiguous::DotSegment);
        }
        if lower.contains('\\') || lower.contains("%5c") {
            return Err(Ambiguous::Backslash);
        }
        if lower.contains("%2f") {
            return Err(Ambiguous::EncodedSlash);
        }
        if lower.contains("%00") {
            return Err(Ambiguous::Nul);
        }
    }
    Ok(())
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
        check_path("/api/v1/namespaces/a/pods/x%00", Err(Ambiguous::Nul));
        check_path("/api/v1/nodes/n/proxy/../../x%2fy", Ok(()));
        check_path("/api/v1/namespaces/a/pods/..x/log", Ok(()));
        check_path(
            "/api/v1/namespaces/proxy/../b/secrets",
            Err(Ambiguous::DotSegment),
        );
        check_path("//api/v1/pods", Ok(()));
    }
}
