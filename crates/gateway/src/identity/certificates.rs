//! Whose a client certificate is, and whether it is a front proxy's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use bytes::Bytes;
use kaudit_tower::{
    ClientAuthority, FrontProxy, FrontProxyHeaders, certificate_user, with_authenticated_group,
};

use crate::arrival::{AsUser, Shown, Worth};

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

    /// The authorities now.
    pub(crate) fn current(&self) -> Arc<Authorities> {
        self.0.authorities.load_full()
    }

    /// What a peer's certificates are worth.
    pub(super) fn worth(&self, shown: &Shown, clock: fn() -> SystemTime) -> Worth {
        let generation = self.0.generation.load(Ordering::Acquire);
        shown.worth(generation, |chain| self.current().judge(chain, clock()))
    }
}

impl Authorities {
    /// The headers in which the front proxy tells who asks.
    pub(crate) fn front_proxy_headers(&self) -> Option<&FrontProxyHeaders> {
        self.front_proxy.as_ref().map(|proxy| &proxy.headers)
    }

    fn judge(&self, chain: &[Bytes], now: SystemTime) -> Worth {
        let shows = |proxy: &FrontProxy| proxy.shows(chain, now);
        let signed = |clients: &ClientAuthority| clients.signed(chain, now);
        Worth {
            is_front_proxy: self.front_proxy.as_ref().is_some_and(shows),
            as_user: if self.clients.as_ref().is_some_and(signed) {
                let user = chain.first().and_then(|leaf| certificate_user(leaf));
                user.map_or(AsUser::Nameless, |user| {
                    AsUser::Named(Arc::new(with_authenticated_group(user)))
                })
            } else {
                AsUser::Foreign
            },
        }
    }
}
