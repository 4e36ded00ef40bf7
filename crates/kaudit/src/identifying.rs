//! Who may ask the gateway: what the configuration says, as the gateway takes it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use ipnet::IpNet;
use kaudit_dial::{Cluster, UpstreamOptions};
use kaudit_gateway::{
    AnonymousRequests, Asked, Authorities, AuthoritiesHandle, Builder, DecisionReviews, OwnCredential,
    Tokens, TrustedProxies,
};
use kaudit_listen::ClientCertificates;
use kaudit_tower::{ClientAuthority, FrontProxy, FrontProxyHeaders};
use tracing::{info, warn};

use crate::auditing::read_policy;
use crate::config::Gateway;
use crate::config::identity::{self, Anonymous, Authentication, Decisions, RequestHeader, Review};
use crate::exit::Failure;
use crate::reload::{Watched, WatchedConnections};

/// How a gateway tells its clients apart.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identifying {
    tokens: Tokens,
    certificates: Option<(WatchedAuthorities, OwnCredential)>,
    /// The credential that both may need.
    own: Option<OwnCredential>,
    anonymous: AnonymousRequests,
    decisions: DecisionReviews,
    trusted: TrustedProxies,
}

impl Identifying {
    /// What the configuration says; the gateway's own credential is the one that leads to `cluster`.
    pub(crate) fn new(
        gateway: &Gateway,
        cluster: &Cluster,
        connecting: &UpstreamOptions,
    ) -> Result<Self, Failure> {
        let authentication = &gateway.authentication;
        let files = AuthorityFiles::of(authentication)?;
        let own = if files.is_some() || authentication.tokens == identity::Tokens::Review {
            Some(OwnCredential::new(cluster, connecting).map_err(Failure::usage)?)
        } else {
            None
        };
        let certificates = match (files, &own) {
            (Some(files), Some(own)) => Some((WatchedAuthorities::read(files)?, own.clone())),
            _ => None,
        };
        let tokens = match (authentication.tokens, &own) {
            (identity::Tokens::Review, Some(own)) => Tokens::Reviewed(own.clone()),
            _ => Tokens::SelfSubject,
        };
        Ok(Self {
            tokens,
            certificates,
            own,
            anonymous: match authentication.anonymous {
                Anonymous::Forward => AnonymousRequests::Forwarded,
                Anonymous::Refuse => AnonymousRequests::Refused,
            },
            decisions: decision_reviews(&gateway.decisions)?,
            trusted: trusted_proxies(gateway.trusted_proxies.as_deref())?,
        })
    }

    /// How the listener treats client certificates: who signed them is the gateway's question.
    pub(crate) const fn listening(&self) -> ClientCertificates {
        match self.certificates {
            Some(_) => ClientCertificates::Presented,
            None => ClientCertificates::NotAsked,
        }
    }

    /// Tells the gateway, and has the files watched that may change.
    pub(crate) fn apply(self, mut gateway: Builder, watched: &mut Watched) -> Builder {
        gateway = gateway
            .tokens(self.tokens)
            .anonymous(self.anonymous)
            .decisions(self.decisions)
            .trusted_proxies(self.trusted);
        watched.connections.extend(
            self.own
                .map(|own| WatchedConnections::new(own.upstream().clone())),
        );
        match self.certificates {
            Some((authorities, own)) => {
                let gateway = gateway.certificates(authorities.handle.clone(), own);
                watched.authorities = Some(authorities);
                gateway
            }
            None => gateway,
        }
    }
}

fn trusted_proxies(networks: Option<&[String]>) -> Result<TrustedProxies, Failure> {
    let Some(networks) = networks else {
        return Ok(TrustedProxies::Everybody);
    };
    self::networks(networks, "gateway.trustedProxies").map(TrustedProxies::Only)
}

/// The networks that a key lists; an address is one of its own.
pub(crate) fn networks(networks: &[String], key: &str) -> Result<Vec<IpNet>, Failure> {
    let network = |text: &String| {
        let address = text.parse::<IpAddr>().map(IpNet::from);
        text.parse::<IpNet>().or(address).map_err(|_| {
            Failure::usage(anyhow!(
                "`{text}` in `{key}` is no network: write for example 10.0.0.0/8"
            ))
        })
    };
    networks.iter().map(network).collect()
}

fn decision_reviews(decisions: &Decisions) -> Result<DecisionReviews, Failure> {
    let mut reviews = DecisionReviews::default();
    reviews.asked = match decisions.review {
        Review::Always => Asked::Yes,
        Review::Never => Asked::No,
    };
    if let Some(per_user) = decisions.per_user {
        reviews.per_user = per_user;
    }
    if let Some(file) = &decisions.policy_file {
        let content = read_policy(file)?;
        let (policy, warnings) = kaudit_policy::Policy::load(&content);
        for warning in &warnings.0 {
            warn!(file = %file.display(), "{warning}");
        }
        let policy = policy
            .with_context(|| format!("`gateway.decisions.policyFile` ({})", file.display()))
            .map_err(Failure::usage)?;
        reviews.policy = Some(Arc::new(policy));
    }
    Ok(reviews)
}

/// Where authorities are read from.
#[derive(Clone, Debug)]
struct AuthorityFiles {
    clients: Option<PathBuf>,
    revoked: Option<PathBuf>,
    front_proxy: Option<(PathBuf, Vec<String>, FrontProxyHeaders)>,
}

impl AuthorityFiles {
    fn of(authentication: &Authentication) -> Result<Option<Self>, Failure> {
        let clients = authentication.client_ca_file.clone();
        let revoked = authentication.client_crl_file.clone();
        if clients.is_none() && revoked.is_some() {
            return Err(Failure::usage(anyhow!(
                "`gateway.authentication.clientCRLFile` needs `gateway.authentication.clientCAFile`, whose \
                 certificates it revokes"
            )));
        }
        let header = &authentication.request_header;
        let front_proxy = match &header.client_ca_file {
            Some(file) => Some((file.clone(), header.allowed_names.clone(), headers(header)?)),
            None if *header != RequestHeader::default() => {
                return Err(Failure::usage(anyhow!(
                    "`gateway.authentication.requestHeader` needs `clientCAFile`: without it everybody could say \
                     in headers who asks"
                )));
            }
            None => None,
        };
        Ok((clients.is_some() || front_proxy.is_some()).then_some(Self {
            clients,
            revoked,
            front_proxy,
        }))
    }

    /// The contents of the files, in order.
    fn read(&self) -> Result<Vec<Vec<u8>>, Failure> {
        let proxy = self.front_proxy.as_ref().map(|(file, _, _)| file);
        self.clients
            .iter()
            .chain(&self.revoked)
            .chain(proxy)
            .map(|file| read(file))
            .collect()
    }

    fn authorities(&self, contents: &[Vec<u8>]) -> Result<Authorities, Failure> {
        let mut contents = contents.iter();
        let mut next = || contents.next().map(Vec::as_slice).unwrap_or_default();
        let usable = |file: &Path, result: Result<ClientAuthority, _>| {
            result
                .with_context(|| format!("`{}` cannot be used", file.display()))
                .map_err(Failure::usage)
        };
        let clients = match (&self.clients, &self.revoked) {
            (None, _) => None,
            (Some(file), None) => Some(usable(file, ClientAuthority::from_pem(next()))?),
            (Some(file), Some(_)) => {
                let (clients, revoked) = (next(), next());
                Some(usable(file, ClientAuthority::with_revocation(clients, revoked))?)
            }
        };
        let front_proxy = match &self.front_proxy {
            None => None,
            Some((file, names, headers)) => Some(FrontProxy {
                authority: usable(file, ClientAuthority::from_pem(next()))?,
                names: names.clone(),
                headers: headers.clone(),
            }),
        };
        Ok(Authorities { clients, front_proxy })
    }
}

fn headers(header: &RequestHeader) -> Result<FrontProxyHeaders, Failure> {
    let or = |given: &[String], usual: &str| match given {
        [] => vec![usual.to_owned()],
        given => given.to_vec(),
    };
    FrontProxyHeaders::new(
        &or(&header.username_headers, "X-Remote-User"),
        &or(&header.uid_headers, "X-Remote-Uid"),
        &or(&header.group_headers, "X-Remote-Group"),
        &or(&header.extra_header_prefixes, "X-Remote-Extra-"),
    )
    .context("a name in `gateway.authentication.requestHeader` cannot be that of a header")
    .map_err(Failure::usage)
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file)
        .with_context(|| format!("cannot read `{}`", file.display()))
        .map_err(Failure::usage)
}

/// Authorities whose files are watched.
#[derive(Clone, Debug)]
pub(crate) struct WatchedAuthorities {
    files: AuthorityFiles,
    contents: Vec<Vec<u8>>,
    handle: AuthoritiesHandle,
}

impl WatchedAuthorities {
    fn read(files: AuthorityFiles) -> Result<Self, Failure> {
        let contents = files.read()?;
        let handle = AuthoritiesHandle::from(files.authorities(&contents)?);
        Ok(Self {
            files,
            contents,
            handle,
        })
    }

    /// Puts changed files in force, also for connections that are open; what cannot be used leaves the old
    /// ones. Whether something changed, and whether it could be used.
    pub(crate) fn look(&mut self) -> Option<bool> {
        let changed = match self.files.read() {
            Ok(contents) if contents == self.contents => return None,
            Ok(contents) => self
                .files
                .authorities(&contents)
                .map(|authorities| (contents, authorities)),
            // Between two steps of a replacement there may be no file; this is told once.
            Err(_) if self.contents.is_empty() => return None,
            Err(failure) => Err(failure),
        };
        match changed {
            Ok((contents, authorities)) => {
                info!("new authorities of client certificates are in force");
                self.contents = contents;
                self.handle.replace(authorities);
                Some(true)
            }
            Err(failure) => {
                warn!(error = %failure, "cannot use the changed authorities of client certificates: the old ones stay");
                self.contents = self.files.read().unwrap_or_default();
                Some(false)
            }
        }
    }
}
