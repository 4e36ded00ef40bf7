//! What a server's warnings say about the version of an API.

use http::{HeaderMap, header};
use kaudit_policy::RequestInfo;

/// A version that is on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Deprecation {
    /// `MAJOR.MINOR` of the release that no longer serves it, where that is known.
    pub(crate) removed_release: Option<String>,
}

impl Deprecation {
    /// Looks for the warning that kube-apiserver sends with every answer of such a version.
    ///
    /// Source: k8s.io/apiserver pkg/endpoints/deprecation/deprecation.go, WarningMessage;
    /// k8s.io/apiextensions-apiserver pkg/apiserver/customresource_handler.go.
    pub(crate) fn of(headers: &HeaderMap, info: &RequestInfo) -> Option<Self> {
        headers
            .get_all(header::WARNING)
            .iter()
            .find_map(|value| Self::in_warning(value.to_str().ok()?, info))
    }

    fn in_warning(warning: &str, info: &RequestInfo) -> Option<Self> {
        let text = warning.strip_prefix("299 - \"")?.strip_suffix('"')?;
        let (version, rest) = text.split_once(' ')?;
        let expected = match info.api_group() {
            [] => info.api_version().to_vec(),
            group => [group, b"/", info.api_version()].concat(),
        };
        let (kind, rest) = rest.split_once(" is deprecated")?;
        if version.as_bytes() != expected || kind.contains(' ') {
            return None;
        }
        if rest.is_empty() {
            return Some(Self {
                removed_release: None,
            });
        }
        let (_, after) = rest.strip_prefix(" in v")?.split_once('+')?;
        let removed_release = after
            .strip_prefix(", unavailable in v")
            .and_then(|after| after.split_once('+'))
            .map(|(release, _)| release.to_owned());
        Some(Self { removed_release })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use kaudit_policy::{RequestInfoResolver, RequestTarget};

    use super::*;

    fn of(path: &str, warnings: &[&'static str]) -> Option<Option<String>> {
        let target = RequestTarget::parse(b"GET", path.as_bytes()).unwrap();
        let info = RequestInfoResolver::default().resolve(b"GET", &target).unwrap();
        let headers = warnings
            .iter()
            .map(|warning| (header::WARNING, HeaderValue::from_static(warning)))
            .collect();
        Deprecation::of(&headers, &info).map(|found| found.removed_release)
    }

    #[test]
    fn a_deprecated_version_is_known_by_its_warning() {
        let endpoints =
            "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"";
        assert_eq!(
            of("/api/v1/endpoints", &["299 - \"other\"", endpoints]),
            Some(None)
        );
        let flow = "299 - \"flowcontrol.apiserver.k8s.io/v1beta3 FlowSchema is deprecated in v1.29+, unavailable in v1.32+; use flowcontrol.apiserver.k8s.io/v1 FlowSchema\"";
        assert_eq!(
            of("/apis/flowcontrol.apiserver.k8s.io/v1beta3/flowschemas", &[flow]),
            Some(Some("1.32".to_owned()))
        );
        let custom = "299 - \"example.com/v1beta1 Flunder is deprecated\"";
        assert_eq!(of("/apis/example.com/v1beta1/flunders", &[custom]), Some(None));
    }

    #[test]
    fn other_warnings_are_about_something_else() {
        let endpoints =
            "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"";
        assert_eq!(of("/apis/apps/v1/deployments", &[endpoints]), None);
        let field = "299 - \"spec.template.spec.nodeSelector: is deprecated since v1.14\"";
        assert_eq!(of("/api/v1/pods", &[field]), None);
        assert_eq!(of("/api/v1/pods", &[]), None);
    }
}
