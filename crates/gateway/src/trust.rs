//! Whose word on where a request came from counts.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

/// Peers whose `X-Forwarded-For` and `X-Real-Ip` are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "everybody, or these")]
pub enum TrustedProxies {
    /// Every peer, as kube-apiserver does: a client may claim any address before its own.
    #[default]
    Everybody,
    /// Peers in these networks. What others say is neither recorded nor sent on.
    Only(Vec<IpNet>),
}

const CLAIMS: [HeaderName; 3] = [
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("forwarded"),
];

impl TrustedProxies {
    /// Whether this peer's word counts.
    pub(crate) fn believe(&self, peer: IpAddr) -> bool {
        match self {
            Self::Everybody => true,
            Self::Only(networks) => {
                let peer = peer.to_canonical();
                networks.iter().any(|network| network.contains(&peer))
            }
        }
    }
}

/// Takes away what a peer whose word does not count says of where a request came from.
pub(crate) fn forget_claims(headers: &mut HeaderMap) {
    let is_claim = |name: &HeaderName| {
        let dashed = name.as_str().replace('_', "-");
        CLAIMS.iter().any(|claim| claim.as_str() == dashed)
    };
    let claims: Vec<HeaderName> = headers.keys().filter(|name| is_claim(name)).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn t43_only_peers_in_trusted_networks_are_believed() {
        let only = TrustedProxies::Only(vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        let believes = |trust: &TrustedProxies, peer: &str| trust.believe(peer.parse().unwrap());
        for peer in ["10.1.2.3", "::ffff:10.1.2.3", "fd00::1"] {
            assert!(believes(&only, peer), "{peer}");
        }
        for peer in ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1"] {
            assert!(!believes(&only, peer), "{peer}");
        }
        assert!(believes(&TrustedProxies::Everybody, "192.0.2.1"));
        assert!(!believes(&TrustedProxies::Only(Vec::new()), "127.0.0.1"));
    }

    #[test]
    fn t43_claims_are_forgotten_under_all_their_names() {
        let mut headers = HeaderMap::new();
        for name in [
            "x-forwarded-for",
            "x_forwarded_for",
            "x-real-ip",
            "forwarded",
            "x-forwarded-proto",
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static("x"));
        }
        forget_claims(&mut headers);
        let left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["x-forwarded-proto"]);
    }
}
