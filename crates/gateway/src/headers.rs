//! Which headers go on and which end here.
//!
//! Source: RFC 9110 section 7.6.1; net/http/httputil, ReverseProxy.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use kaudit_event::Text;
use kaudit_tower::FrontProxyHeaders;

pub(crate) const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Whether a header belongs to one connection.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "proxy-connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Headers that say who asks, of which only the first has a meaning.
const ONE_VALUE: [HeaderName; 3] = [
    header::AUTHORIZATION,
    HeaderName::from_static("impersonate-user"),
    HeaderName::from_static("impersonate-uid"),
];

/// Whether a header says who asks, for whom, or which request it is. `Connection` cannot take such a
/// header away: the event would then tell of another request than the one that was carried out.
fn is_identity(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(
        name,
        "authorization" | "audit-id" | "x-forwarded-for" | "user-agent" | "sec-websocket-protocol"
    ) || name.starts_with("impersonate-")
}

/// Whether only a front proxy that the cluster trusts may send this header.
fn is_front_proxy(name: &HeaderName, ours: Option<&FrontProxyHeaders>) -> bool {
    begins(name, "x-remote-") || ours.is_some_and(|ours| ours.include(name))
}

/// Whether a header asks to be somebody else, also where underscores are taken for dashes.
pub(crate) fn is_impersonation(name: &HeaderName) -> bool {
    begins(name, "impersonate-")
}

/// Whether a name begins so where underscores are taken for dashes.
fn begins(name: &HeaderName, prefix: &str) -> bool {
    let name = name.as_str().as_bytes();
    name.len() >= prefix.len()
        && std::iter::zip(name, prefix.as_bytes())
            .all(|(ours, theirs)| ours == theirs || (*ours == b'_' && *theirs == b'-'))
}

/// The first header that asks to be somebody else in a way that means nothing.
pub(crate) fn unknown_impersonation(headers: &HeaderMap) -> Option<&HeaderName> {
    headers.keys().find(|name| {
        let known = ["impersonate-user", "impersonate-group", "impersonate-uid"];
        is_impersonation(name)
            && !known.contains(&name.as_str())
            && !name.as_str().starts_with("impersonate-extra-")
    })
}

/// Whether a header would become an identity header where underscores are taken for dashes.
fn is_disguised(name: &HeaderName) -> bool {
    name.as_str().contains('_')
        && HeaderName::try_from(name.as_str().replace('_', "-")).is_ok_and(|name| is_identity(&name))
}

/// The protocol that a request asks to switch to, where the gateway can carry it.
///
/// Only whole tokens of `Connection` count, and only the two protocols of Kubernetes: whatever else
/// asks for a switch is forwarded as an ordinary request.
pub(crate) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let asks = connection_tokens(headers).any(|token| token.eq_ignore_ascii_case(b"upgrade"));
    let mut protocols = headers.get_all(header::UPGRADE).iter();
    let protocol = protocols.next()?;
    let is_known = [&b"websocket"[..], b"SPDY/3.1"]
        .iter()
        .any(|known| protocol.as_bytes().eq_ignore_ascii_case(known));
    (asks && is_known && protocols.next().is_none()).then(|| protocol.clone())
}

fn connection_tokens(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}

/// Takes away what belongs to one connection, and what else ends here. Most messages have nothing of it.
fn strip(headers: &mut HeaderMap, ends_here: impl Fn(&HeaderName) -> bool) {
    let mut ending: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_hop_by_hop(name) || ends_here(name))
        .cloned()
        .collect();
    if ending.contains(&header::CONNECTION) {
        let named = connection_tokens(headers)
            .filter_map(|token| HeaderName::from_bytes(token).ok())
            .filter(|name| !is_identity(name));
        ending.extend(named);
    }
    for name in ending {
        headers.remove(name);
    }
}

/// A client's address as `X-Forwarded-For` has it.
#[derive(Clone, Debug)]
pub(crate) struct Peer(HeaderValue);

impl From<IpAddr> for Peer {
    fn from(address: IpAddr) -> Self {
        let text = address.to_canonical().to_string();
        // An address is digits, letters, dots and colons.
        Self(HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("unknown")))
    }
}

/// What the gateway adds to a request, and whose headers it takes away.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Onward<'a> {
    pub(crate) peer: &'a Peer,
    pub(crate) audit_id: &'a Text,
    pub(crate) upgrade: Option<&'a HeaderValue>,
    /// Headers that the gateway itself reads from its front proxy.
    pub(crate) front_proxy: Option<&'a FrontProxyHeaders>,
}

/// Makes a client's headers those of the request to the cluster: strip first, add last.
pub(crate) fn to_upstream(headers: &mut HeaderMap, onward: Onward<'_>) {
    let Onward {
        peer,
        audit_id,
        upgrade,
        front_proxy,
    } = onward;
    let wants_trailers = headers
        .get_all(header::TE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"trailers"));
    // The body is read at once, so the wait that `Expect` asks for ended at the gateway.
    strip(headers, |name| {
        *name == header::EXPECT || is_front_proxy(name, front_proxy) || is_disguised(name)
    });
    let has_repeated = headers.len() > headers.keys_len();
    // The cluster reads the first; the others must not say something else to somebody in between.
    for name in ONE_VALUE.iter().filter(|_| has_repeated) {
        if headers.get_all(name).iter().nth(1).is_some()
            && let Some(first) = headers.get(name).cloned()
        {
            headers.insert(name, first);
        }
    }
    if wants_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if let Ok(mut audit_id) = HeaderValue::from_maybe_shared(audit_id.clone().into_bytes()) {
        // Never the same again: nothing for the table of an HTTP/2 connection.
        audit_id.set_sensitive(true);
        headers.insert(AUDIT_ID, audit_id);
    }
    forwarded_for(headers, peer);
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, protocol.clone());
    }
}

/// Adds the peer behind what the client says of those before it.
fn forwarded_for(headers: &mut HeaderMap, Peer(peer): &Peer) {
    let mut line = Vec::new();
    for value in headers.get_all(&X_FORWARDED_FOR) {
        line.extend_from_slice(value.as_bytes());
        line.extend_from_slice(b", ");
    }
    if line.is_empty() {
        headers.insert(X_FORWARDED_FOR, peer.clone());
        return;
    }
    line.extend_from_slice(peer.as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&line) {
        headers.insert(X_FORWARDED_FOR, value);
    }
}

/// Makes the cluster's headers those of the answer to the client.
pub(crate) fn to_client(headers: &mut HeaderMap, upgrade: Option<&HeaderValue>) {
    strip(headers, |_| false);
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, protocol.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &[u8])]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_bytes(name.as_bytes()).unwrap(),
                    HeaderValue::from_bytes(value).unwrap(),
                )
            })
            .collect()
    }

    /// What the cluster would get of `lines` beside what the gateway adds.
    #[track_caller]
    fn forwards(lines: &[(&str, &[u8])], expected: &[(&str, &[u8])]) {
        let mut ours = headers(lines);
        to_upstream(
            &mut ours,
            Onward {
                peer: &Peer::from(IpAddr::from([192, 0, 2, 7])),
                audit_id: &Text::from_static("id"),
                upgrade: None,
                front_proxy: None,
            },
        );
        let id = ours.remove(AUDIT_ID).unwrap();
        assert!(
            id == "id" && id.is_sensitive(),
            "none for a table of headers: {id:?}"
        );
        let via = ours.remove(X_FORWARDED_FOR).unwrap();
        assert!(via.as_bytes().ends_with(b"192.0.2.7"), "{via:?}");
        assert_eq!(ours, headers(expected));
    }

    #[test]
    fn t01_connection_cannot_take_identity_headers_away() {
        for connection in [
            &b"Impersonate-User, X-Remote-User"[..],
            b"  impersonate-user ,\tX-REMOTE-USER",
            b"\xfc, Impersonate-User",
        ] {
            forwards(
                &[("connection", connection), ("impersonate-user", b"bob")],
                &[("impersonate-user", b"bob")],
            );
        }
    }

    #[test]
    fn t02_connection_cannot_take_what_the_gateway_adds_away() {
        forwards(
            &[
                ("connection", b"X-Forwarded-For, Audit-ID, Authorization"),
                ("x-forwarded-for", b"198.51.100.1"),
                ("authorization", b"Bearer t"),
            ],
            &[("authorization", b"Bearer t")],
        );
    }

    #[test]
    fn t03_every_connection_line_counts_and_hop_by_hop_headers_end_here() {
        forwards(
            &[
                ("connection", b"keep-alive"),
                ("connection", b"X-One, X-Two"),
                ("x-one", b"1"),
                ("x-two", b"2"),
                ("proxy-connection", b"x"),
                ("keep-alive", b"x"),
                ("te", b"gzip, trailers"),
                ("trailer", b"x"),
                ("transfer-encoding", b"chunked"),
                ("upgrade", b"h2c"),
                ("proxy-authorization", b"x"),
                ("expect", b"100-continue"),
                ("x-kept", b"3"),
            ],
            &[("x-kept", b"3"), ("te", b"trailers")],
        );
        forwards(&[("te", b"gzip")], &[]);
    }

    #[test]
    fn t04_front_proxy_headers_of_clients_are_deleted() {
        forwards(
            &[
                ("x-remote-user", b"root"),
                ("x-remote-group", b"system:masters"),
                ("x-remote-extra-scopes", b"x"),
                ("x_remote_user", b"root"),
                ("x-remote_uid", b"1"),
                ("impersonate_user", b"root"),
                ("authorization_", b"x"),
            ],
            &[("authorization_", b"x")],
        );
    }

    #[test]
    fn t05_ways_to_be_somebody_else_that_mean_nothing_are_found() {
        let unknown = |name: &str| unknown_impersonation(&headers(&[(name, b"x")])).is_some();
        for name in [
            "impersonate-",
            "impersonate-roles",
            "impersonate_user",
            "impersonate-extra_a",
        ] {
            assert!(unknown(name), "{name}");
        }
        for name in ["impersonate-user", "impersonate-extra-a", "impersonate"] {
            assert!(!unknown(name), "{name}");
        }
    }

    #[test]
    fn t09_only_the_credentials_that_were_reviewed_are_forwarded() {
        forwards(
            &[("authorization", b"Bearer a"), ("authorization", b"Bearer b")],
            &[("authorization", b"Bearer a")],
        );
    }

    #[test]
    fn the_peer_is_added_behind_earlier_proxies() {
        let mut ours = headers(&[("x-forwarded-for", b"a"), ("x-forwarded-for", b"b")]);
        let peer: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        forwarded_for(&mut ours, &Peer::from(peer));
        assert_eq!(ours.get(X_FORWARDED_FOR).unwrap(), "a, b, 192.0.2.1");
    }

    #[test]
    fn t24_only_whole_tokens_and_known_protocols_upgrade() {
        let asks = |connection: &[u8], protocol: &[u8]| {
            upgrade(&headers(&[("connection", connection), ("upgrade", protocol)])).is_some()
        };
        assert!(asks(b"keep-alive, Upgrade", b"SPDY/3.1"));
        assert!(asks(b"upgrade", b"WebSocket"));
        for (connection, protocol) in [
            (&b"notupgrade"[..], &b"websocket"[..]),
            (b"upgrade", b"h2c"),
            (b"upgrade", b"TLS/1.0"),
            (b"upgrade", b"websocket, h2c"),
            (b"close", b"websocket"),
        ] {
            assert!(!asks(connection, protocol));
        }
        assert!(upgrade(&headers(&[("connection", b"upgrade")])).is_none());
    }
}
