//! A request's head as each protocol wants it.

use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, Version, header};

use super::SendError;
use crate::Server;

/// Whether a header belongs to one HTTP/1 connection and is forbidden by HTTP/2, which has the host elsewhere; of `TE`
/// only `trailers` goes on.
///
/// Source: RFC 9113 section 8.2.2.
fn is_of_http1(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection" | "host" | "keep-alive" | "proxy-connection" | "te" | "transfer-encoding" | "upgrade"
    )
}

/// What a server is called in requests to it.
#[derive(Debug)]
pub(crate) struct Address {
    scheme: Scheme,
    authority: Authority,
    host: HeaderValue,
    base_path: String,
}

impl Address {
    /// `None` where the server's name cannot stand in a request.
    pub(crate) fn of(server: &Server) -> Option<Self> {
        let authority = server.authority();
        Some(Self {
            scheme: if server.is_https {
                Scheme::HTTPS
            } else {
                Scheme::HTTP
            },
            host: HeaderValue::try_from(&authority).ok()?,
            authority: Authority::try_from(authority).ok()?,
            base_path: server.base_path.clone(),
        })
    }

    /// The path and query to send: those of the request, unchanged, behind the base path.
    fn target(&self, uri: &Uri) -> Result<PathAndQuery, SendError> {
        let target = uri.path_and_query();
        if self.base_path.is_empty() {
            return Ok(target.cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
        }
        let target = target.map_or("/", PathAndQuery::as_str);
        PathAndQuery::try_from(format!("{}{target}", self.base_path)).map_err(|_| SendError::Target)
    }

    /// Origin form, and the server's Host among `headers`.
    pub(crate) fn http1<B>(
        &self,
        head: &Parts,
        headers: HeaderMap,
        body: B,
    ) -> Result<Request<B>, SendError> {
        let mut uri = http::uri::Parts::default();
        uri.path_and_query = Some(self.target(&head.uri)?);
        let mut request = request(head, headers, uri, Version::HTTP_11, body)?;
        let headers = request.headers_mut();
        headers.insert(header::HOST, self.host.clone());
        join_cookies(headers);
        Ok(request)
    }

    /// The same path in `:path`, the server in `:authority`, and no header that HTTP/2 forbids.
    pub(crate) fn http2(&self, head: &Parts) -> Result<Request<()>, SendError> {
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(self.scheme.clone());
        uri.authority = Some(self.authority.clone());
        uri.path_and_query = Some(self.target(&head.uri)?);
        let mut request = request(head, head.headers.clone(), uri, Version::HTTP_2, ())?;
        let headers = request.headers_mut();
        if headers.keys().any(is_of_http1) {
            strip_http1(headers);
        }
        Ok(request)
    }
}

/// Takes away what HTTP/2 forbids.
fn strip_http1(headers: &mut HeaderMap) {
    let ending: Vec<HeaderName> = headers.keys().filter(|name| is_of_http1(name)).cloned().collect();
    let wants_trailers = headers
        .get_all(header::TE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"trailers"));
    for name in ending {
        headers.remove(name);
    }
    if wants_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

fn request<B>(
    head: &Parts,
    headers: HeaderMap,
    uri: http::uri::Parts,
    version: Version,
    body: B,
) -> Result<Request<B>, SendError> {
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_| SendError::Target)?;
    *request.version_mut() = version;
    *request.headers_mut() = headers;
    Ok(request)
}

/// HTTP/2 splits cookies over lines; elsewhere there is one line.
///
/// Source: RFC 9113 section 8.2.3.
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let mut joined = Vec::new();
    for cookie in headers.get_all(header::COOKIE) {
        if !joined.is_empty() {
            joined.extend_from_slice(b"; ");
        }
        joined.extend_from_slice(cookie.as_bytes());
    }
    if let Ok(mut value) = HeaderValue::from_bytes(&joined) {
        value.set_sensitive(true);
        headers.insert(header::COOKIE, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(uri: &str, lines: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri(uri);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn address(server: &str) -> Address {
        Address::of(&server.parse().unwrap()).unwrap()
    }

    fn http1(address: &Address, head: &Parts) -> Request<()> {
        address.http1(head, head.headers.clone(), ()).unwrap()
    }

    #[test]
    fn targets_go_out_byte_for_byte_behind_the_base_path() {
        for target in ["/", "//a/../b%2F?x=%zz;a", "/a?", "/api/v1/pods?watch=1&x=a+b"] {
            let plain = address("https://a:6443");
            assert_eq!(http1(&plain, &head(target, &[])).uri(), target);
            let two = plain.http2(&head(target, &[])).unwrap();
            assert_eq!(two.uri().path_and_query().unwrap(), target);
            assert_eq!(two.uri().authority().unwrap(), "a:6443");
            let based = address("https://a:6443/k8s/");
            assert_eq!(
                based
                    .http2(&head(target, &[]))
                    .unwrap()
                    .uri()
                    .path_and_query()
                    .unwrap(),
                &*format!("/k8s{target}")
            );
        }
    }

    #[test]
    fn http2_gets_no_header_of_a_connection() {
        let lines = [
            ("host", "client"),
            ("connection", "keep-alive"),
            ("keep-alive", "x"),
            ("proxy-connection", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("te", "gzip, trailers"),
            ("x-kept", "1"),
        ];
        let request = address("https://a:1").http2(&head("/", &lines)).unwrap();
        let expected = head("/", &[("te", "trailers"), ("x-kept", "1")]);
        assert_eq!(request.headers(), &expected.headers);
        let request = address("https://a:1")
            .http2(&head("/", &[("te", "gzip")]))
            .unwrap();
        assert!(request.headers().is_empty());
    }

    #[test]
    fn http1_gets_the_servers_host_and_one_cookie_line() {
        let lines = [("host", "client"), ("cookie", "a=1"), ("cookie", "b=2")];
        let request = http1(&address("https://[::1]:6443"), &head("/", &lines));
        assert_eq!(request.headers().get("host").unwrap(), "[::1]:6443");
        assert_eq!(request.headers().get("cookie").unwrap(), "a=1; b=2");
        assert_eq!(request.headers().len(), 2);
    }
}
