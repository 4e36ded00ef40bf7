//! Files that change while the program runs: the policy, AuditSink objects, serving certificates, authorities
//! of client certificates, certificates of connections to the cluster, senders' tokens.
//!
//! Contents are compared, not times: a ConfigMap's files are links that are swapped, and editors replace
//! files in many ways.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kaudit_dial::Upstream;
use kaudit_listen::ServerTls;
use kaudit_policy::Policy;
use kaudit_tower::PolicyHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::auditing::read_policy;
use crate::collecting::WatchedAccess;
use crate::identifying::WatchedAuthorities;
use crate::sinks::Sinks;

/// How often files are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// How reloads went.
#[derive(Debug, Default)]
pub(crate) struct Reloads {
    pub(crate) policy_ok: AtomicU64,
    pub(crate) policy_failed: AtomicU64,
    pub(crate) certificate_ok: AtomicU64,
    pub(crate) certificate_failed: AtomicU64,
    pub(crate) authorities_ok: AtomicU64,
    pub(crate) authorities_failed: AtomicU64,
    pub(crate) upstream_certificates_ok: AtomicU64,
    pub(crate) upstream_certificates_failed: AtomicU64,
    pub(crate) tokens_ok: AtomicU64,
    pub(crate) tokens_failed: AtomicU64,
}

impl Reloads {
    /// Counts what became of changed authorities of client certificates.
    fn authorities(&self, is_good: bool) {
        let counter = if is_good {
            &self.authorities_ok
        } else {
            &self.authorities_failed
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts what became of a changed token file of a sender.
    pub(crate) fn tokens(&self, is_good: bool) {
        let counter = if is_good {
            &self.tokens_ok
        } else {
            &self.tokens_failed
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What is watched.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    pub(crate) policies: Vec<WatchedPolicy>,
    pub(crate) certificates: Vec<ServerTls>,
    pub(crate) authorities: Option<WatchedAuthorities>,
    pub(crate) connections: Vec<WatchedConnections>,
    pub(crate) sinks: Option<Arc<Sinks>>,
    pub(crate) access: Option<WatchedAccess>,
    pub(crate) reloads: Arc<Reloads>,
}

/// A policy's file, and those who live by it.
#[derive(Debug)]
pub(crate) struct WatchedPolicy {
    file: PathBuf,
    handle: PolicyHandle,
    content: Vec<u8>,
}

impl WatchedPolicy {
    /// Watches `file`, whose present content is in force.
    pub(crate) fn new(file: PathBuf, handle: PolicyHandle) -> Self {
        let content = std::fs::read(&file).unwrap_or_default();
        Self {
            file,
            handle,
            content,
        }
    }

    /// Puts a changed file in force. A file that is no policy is reported once; the old one stays.
    fn look(&mut self, reloads: &Reloads) {
        let file = self.file.display();
        let content = match read_policy(&self.file) {
            Ok(content) => content,
            // Between two steps of a replacement there may be no file.
            Err(_) if self.content.is_empty() => return,
            Err(failure) => {
                warn!(%file, error = %failure, "cannot read the audit policy: the old one stays in force");
                reloads.policy_failed.fetch_add(1, Ordering::Relaxed);
                self.content.clear();
                return;
            }
        };
        if content == self.content {
            return;
        }
        let (policy, warnings) = Policy::load(&content);
        self.content = content;
        for warning in &warnings.0 {
            warn!(%file, "{warning}");
        }
        match policy {
            Ok(policy) => {
                info!(%file, rules = policy.rules().len(), "a new audit policy is in force");
                self.handle.replace(policy);
                reloads.policy_ok.fetch_add(1, Ordering::Relaxed);
            }
            Err(problem) => {
                error!(%file, error = %problem, "the changed audit policy is not valid: the old one stays in force");
                reloads.policy_failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// The certificates of connections to the cluster: the authorities that are believed, and what the gateway shows.
#[derive(Debug)]
pub(crate) struct WatchedConnections {
    connections: Upstream,
    /// Why their files could not be used when they were last looked at: told once.
    problem: Option<String>,
}

impl WatchedConnections {
    pub(crate) const fn new(connections: Upstream) -> Self {
        let problem = None;
        Self { connections, problem }
    }

    /// Has connections that are made from now on go by changed files. Files that cannot be used are reported once; the
    /// old certificates stay.
    fn look(&mut self, reloads: &Reloads) {
        let problem = match self.connections.reload() {
            Ok(is_new) => {
                if is_new {
                    info!("new certificates are in use for connections to the cluster");
                    reloads.upstream_certificates_ok.fetch_add(1, Ordering::Relaxed);
                }
                None
            }
            Err(problem) => Some(problem.to_string()),
        };
        if problem != self.problem
            && let Some(error) = &problem
        {
            warn!(%error, "cannot use the changed certificates for connections to the cluster: the old ones stay in use");
            reloads
                .upstream_certificates_failed
                .fetch_add(1, Ordering::Relaxed);
        }
        self.problem = problem;
    }
}

impl Watched {
    /// Looks at the files until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let looked = tokio::task::spawn_blocking(move || {
                self.look();
                self
            })
            .await;
            match looked {
                Ok(watched) => self = watched,
                Err(panic) => {
                    error!(error = %panic, "files are no longer watched");
                    return;
                }
            }
        }
    }

    fn look(&mut self) {
        for policy in &mut self.policies {
            policy.look(&self.reloads);
        }
        if let Some(sinks) = &self.sinks {
            sinks.look();
        }
        if let Some(access) = &mut self.access {
            access.look(&self.reloads);
        }
        if let Some(is_good) = self.authorities.as_mut().and_then(WatchedAuthorities::look) {
            self.reloads.authorities(is_good);
        }
        for connections in &mut self.connections {
            connections.look(&self.reloads);
        }
        for certificate in &self.certificates {
            match certificate.reload() {
                Ok(true) => {
                    info!("a new serving certificate is in use");
                    self.reloads.certificate_ok.fetch_add(1, Ordering::Relaxed);
                }
                Ok(false) => {}
                Err(problem) => {
                    warn!(error = %problem, "cannot use the changed serving certificate: the old one stays in use");
                    self.reloads.certificate_failed.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use kaudit_dial::Cluster;

    use super::*;

    fn policy(level: &str) -> String {
        format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{{level: {level}}}]\n")
    }

    #[test]
    fn a_broken_policy_keeps_the_old_one_and_is_counted_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("policy.yaml");
        std::fs::write(&file, policy("Metadata")).unwrap();
        let handle = PolicyHandle::new(Policy::parse(policy("Metadata").as_bytes()).unwrap().0);
        let mut watched = WatchedPolicy::new(file.clone(), handle.clone());
        let reloads = Reloads::default();
        let level = || handle.current().as_ref().unwrap().rules()[0].level.value.as_str();
        let counts = || {
            (
                reloads.policy_ok.load(Ordering::Relaxed),
                reloads.policy_failed.load(Ordering::Relaxed),
            )
        };
        watched.look(&reloads);
        assert_eq!((counts(), level()), ((0, 0), "Metadata"));

        std::fs::write(&file, policy("Everything")).unwrap();
        watched.look(&reloads);
        watched.look(&reloads);
        assert_eq!((counts(), level()), ((0, 1), "Metadata"));

        std::fs::write(&file, policy("Request")).unwrap();
        watched.look(&reloads);
        assert_eq!((counts(), level()), ((1, 1), "Request"));

        std::fs::remove_file(&file).unwrap();
        watched.look(&reloads);
        watched.look(&reloads);
        assert_eq!((counts(), level()), ((1, 2), "Request"));

        std::fs::write(&file, policy("None")).unwrap();
        watched.look(&reloads);
        assert_eq!((counts(), level()), ((2, 2), "None"));
    }

    #[test]
    fn a_client_certificate_that_cannot_be_used_is_counted_once_and_the_next_good_one_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| std::fs::write(folder.path().join(name), content).unwrap();
        let pair = || {
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
            (certificate.pem(), key.serialize_pem())
        };
        let (certificate, key) = pair();
        write("own.crt", &certificate);
        write("own.key", &key);
        write(
            "config",
            "clusters: [{cluster: {server: 'https://cluster.example'}}]\n\
             users: [{user: {client-certificate: own.crt, client-key: own.key}}]\n",
        );
        let cluster = Cluster::from_kubeconfig(&folder.path().join("config")).unwrap();
        let connections = Upstream::new(&cluster, true).unwrap();
        let (mut watched, reloads) = (WatchedConnections::new(connections), Reloads::default());
        let mut counts = || {
            watched.look(&reloads);
            watched.look(&reloads);
            (
                reloads.upstream_certificates_ok.load(Ordering::Relaxed),
                reloads.upstream_certificates_failed.load(Ordering::Relaxed),
            )
        };
        assert_eq!(counts(), (0, 0));
        let (certificate, key) = pair();
        write("own.crt", &certificate);
        assert_eq!(counts(), (0, 1));
        write("own.key", &key);
        assert_eq!(counts(), (1, 1));
        std::fs::remove_file(folder.path().join("own.key")).unwrap();
        assert_eq!(counts(), (1, 2));
        write("own.key", &key);
        assert_eq!(counts(), (1, 2));
    }
}
