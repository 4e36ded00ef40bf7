//! How the gateway reaches the cluster: what the configuration says, as `dial` takes it.

use std::num::NonZero;
use std::time::Duration;

use anyhow::anyhow;
use kaudit_dial::{Cluster, Server, Servers, UpstreamOptions};
use kaudit_gateway::Builder;

use crate::config::{Redirects, Upstream};
use crate::exit::Failure;

/// A control plane has a handful; more is a mistake.
const MAX_SERVERS: usize = 32;

/// Tells a gateway what the configuration says of the cluster's answers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Answers {
    limit: Option<Duration>,
    redirects: Redirects,
}

impl Answers {
    pub(crate) fn of(upstream: &Upstream) -> Result<Self, Failure> {
        let limit = upstream.response_timeout.map(|limit| limit.0);
        if limit == Some(Duration::ZERO) {
            return Err(Failure::usage(anyhow!(
                "`gateway.upstream.responseTimeout` is 0, in which nothing is answered: write for example `90s`"
            )));
        }
        Ok(Self {
            limit,
            redirects: upstream.redirects.unwrap_or_default(),
        })
    }

    pub(crate) fn apply(self, gateway: Builder) -> Builder {
        let gateway = gateway.redirects(self.redirects.into());
        match self.limit {
            Some(limit) => gateway.response_limit(limit),
            None => gateway,
        }
    }
}

/// Threads that serve the gateway's clients, each with connections of its own to the cluster: one for each processor
/// that the process may use.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// The way to a cluster of which nothing is said.
pub(crate) fn default_options() -> UpstreamOptions {
    UpstreamOptions::default().lanes(threads())
}

/// What the configuration says of the way to `cluster`.
pub(crate) fn options(upstream: &Upstream, cluster: &Cluster) -> Result<UpstreamOptions, Failure> {
    let options = default_options().protocol(upstream.protocol.unwrap_or_default().into());
    Ok(match upstream.servers.as_deref() {
        Some(texts) => options.servers(Servers::new(servers(texts, cluster)?)),
        None => options,
    })
}

fn servers(texts: &[String], cluster: &Cluster) -> Result<Vec<Server>, Failure> {
    let wrong = |why: String| Failure::usage(anyhow!("`gateway.upstream.servers`: {why}"));
    if texts.is_empty() || texts.len() > MAX_SERVERS {
        let count = texts.len();
        return Err(wrong(format!(
            "there may be 1 to {MAX_SERVERS}, and there are {count}"
        )));
    }
    let mut servers = Vec::<Server>::new();
    for text in texts {
        let server: Server = text
            .parse()
            .map_err(|error| wrong(format!("`{text}` is no server: {error}")))?;
        if server.is_https != cluster.server.is_https {
            return Err(wrong(format!(
                "`{text}` and the kubeconfig's `{}` are to be reached the same way: both over https or neither",
                cluster.server
            )));
        }
        if !matches!(server.path.as_str(), "" | "/") {
            return Err(wrong(format!(
                "`{text}` has a path: that of the kubeconfig's server is used, write https://HOST:PORT"
            )));
        }
        let is_known = |known: &Server| (&known.host, known.port) == (&server.host, server.port);
        if servers.iter().any(is_known) {
            return Err(wrong(format!("`{text}` is there twice")));
        }
        servers.push(server);
    }
    Ok(servers)
}

#[cfg(test)]
mod tests {
    use kaudit_dial::Trust;

    use super::*;

    #[test]
    fn servers_are_those_of_the_kubeconfigs_cluster_and_no_others() {
        let read = |cluster: &str, texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            let cluster = Cluster::new(cluster.parse().unwrap(), Trust::Public);
            servers(&texts, &cluster).map(|servers| servers.iter().map(Server::authority).collect::<Vec<_>>())
        };
        let cluster = "https://api.example:6443/k8s";
        assert_eq!(
            read(cluster, &["https://10.0.0.1:6443", "https://[::1]:6443/"]).unwrap(),
            ["10.0.0.1:6443", "[::1]:6443"]
        );
        for (texts, why) in [
            (&[][..], "there may be 1 to 32"),
            (&["10.0.0.1:6443"], "no scheme"),
            (&["http://10.0.0.1:6443"], "both over https or neither"),
            (&["https://10.0.0.1:6443/k8s"], "has a path"),
            (&["https://a", "https://a:443"], "is there twice"),
        ] {
            let error = read(cluster, texts).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
