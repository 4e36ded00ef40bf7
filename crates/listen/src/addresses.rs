//! How many connections one client has.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;

/// Connections by client address, each bounded.
#[derive(Debug)]
pub(crate) struct Addresses {
    limit: usize,
    /// Addresses in these networks stand for many clients.
    unbounded: Vec<IpNet>,
    counts: Mutex<HashMap<IpAddr, usize>>,
}

impl Addresses {
    pub(crate) fn new(limit: usize, unbounded: Vec<IpNet>) -> Self {
        Self {
            limit,
            unbounded,
            counts: Mutex::default(),
        }
    }

    /// Counts one more connection until what is returned is dropped; `None` if there are enough.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Entered> {
        let address = address.to_canonical();
        if self.unbounded.iter().any(|network| network.contains(&address)) {
            return Some(Entered(None));
        }
        let client = client(address);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(client).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Entered(Some((Arc::clone(self), client))))
    }

    fn leave(&self, client: IpAddr) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&client);
            }
        }
    }
}

/// Whom an address belongs to: of IPv6 a client has a whole /64 to choose from.
fn client(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// A connection that is counted.
#[derive(Debug)]
pub(crate) struct Entered(Option<(Arc<Addresses>, IpAddr)>);

impl Entered {
    /// One that nobody counts.
    pub(crate) const fn uncounted() -> Self {
        Self(None)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some((addresses, client)) = &self.0 {
            addresses.leave(*client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_so_many_connections_and_no_memory_is_kept_of_those_who_left() {
        let addresses = Arc::new(Addresses::new(2, vec!["10.0.0.0/8".parse().unwrap()]));
        let enter = |address: &str| addresses.enter(address.parse().unwrap());
        let first = enter("192.0.2.1").unwrap();
        let mapped = enter("::ffff:192.0.2.1").unwrap();
        assert!(enter("192.0.2.1").is_none());
        let others: Vec<_> = ["192.0.2.2", "2001:db8::1", "2001:db8::2"]
            .map(|address| enter(address).unwrap())
            .into();
        assert!(enter("2001:db8::ffff:0:0:1").is_none(), "the same /64");
        assert!(enter("2001:db8:0:1::1").is_some());
        let proxies: Vec<_> = (0..5).map(|_| enter("10.1.2.3").unwrap()).collect();
        drop(first);
        let again = enter("192.0.2.1").unwrap();
        assert!(enter("192.0.2.1").is_none());
        drop((mapped, again, others, proxies));
        assert!(addresses.counts.lock().unwrap().is_empty());
    }
}
