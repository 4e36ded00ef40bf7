//! Whose a client certificate is, and whether it is a front proxy's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use bytes::Bytes;
use kaudit_tower::{
    ClientAuthority, FrontProxy, FrontProxyHeaders, certificate_user, with_authenticated_group,
};

use crate::arrival::{Shown, Worth};

/// Whose certificates count, and as what.
#[derive(Clone, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "each may be there or not")]
pub struct Authorities {
    /// Who signs the certificates of users.
    pub clients: Option<ClientAuthority>,
    /// The proxy that tells in headers who asks.
    pub front_proxy: Option<FrontProxy>,
}

/// The authorities in force, which may be replaced while the gateway serves; cheap to clone.
#[derive(Clone, Debug)]
pub struct AuthoritiesHandle(Arc<Current>);

#[derive(Debug)]
struct Current {
    authorities: ArcSwap<Authorities>,
    generation: AtomicU64,
}

impl From<Authorities> for AuthoritiesHandle {
    fn from(authorities: Authorities) -> Self {
        Self(Arc::new(Current {
            authorities: ArcSwap::from_pointee(authorities),
            generation: AtomicU64::new(0),
        }))
    }
}

impl AuthoritiesHandle {
    /// Puts others in force, also for connections that were opened before.
    pub fn replace(&self, authorities: Authorities) {
        self.0.authorities.store(Arc::new(authorities));
        self.0.generation.fetch_add(1, Ordering::Release);
    }

    /// What a peer's certificates are worth.
    ///
    /// Source: kubernetes pkg/kubeapiserver/authenticator/config.go, Config.New: a front proxy comes first.
    pub(super) fn worth(&self, shown: &Shown, clock: fn() -> SystemTime) -> Worth {
        let generation = self.0.generation.load(Ordering::Acquire);
        shown.worth(generation, |chain| self.judge(chain, clock()))
    }

    fn judge(&self, chain: &[Bytes], now: SystemTime) -> Worth {
        let authorities = self.0.authorities.load();
        if authorities
            .front_proxy
            .as_ref()
            .is_some_and(|proxy| proxy.shows(chain, now))
        {
            return Worth::FrontProxy;
        }
        self.judge_as_user(chain, now)
    }

    /// What certificates are worth where the front proxy names nobody, or they are not the proxy's.
    pub(super) fn judge_as_user(&self, chain: &[Bytes], now: SystemTime) -> Worth {
        let authorities = self.0.authorities.load();
        let is_ours = authorities
            .clients
            .as_ref()
            .is_some_and(|clients| clients.signed(chain, now));
        if !is_ours {
            return Worth::Nothing;
        }
        let user = chain.first().and_then(|leaf| certificate_user(leaf));
        user.map_or(Worth::Nameless, |user| {
            Worth::User(Arc::new(with_authenticated_group(user)))
        })
    }

    /// The headers in which the front proxy tells who asks.
    pub(crate) fn front_proxy_headers(&self) -> Option<FrontProxyHeaders> {
        let authorities = self.0.authorities.load();
        authorities
            .front_proxy
            .as_ref()
            .map(|proxy| proxy.headers.clone())
    }
}
