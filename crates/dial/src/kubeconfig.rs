//! The kubeconfig: which cluster, whom to trust, how to show who one is.
//!
//! Source of the format: k8s.io/client-go tools/clientcmd/api/v1/types.go.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::Deserialize;

use crate::Trust;

/// A larger file is refused unread.
const MAX_BYTES: u64 = 4 << 20;

/// The cluster of a kubeconfig's current context.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cluster {
    /// Where it is.
    pub server: Server,
    /// Whose certificate it may show.
    pub trust: Trust,
    /// The name in its certificate, where that is not its host.
    pub tls_server_name: Option<String>,
    /// How to show who one is.
    pub credential: Credential,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Server {
    /// Whether it speaks TLS.
    pub is_https: bool,
    /// Name or address, IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What stands before every path; empty or beginning with `/`, never ending with one.
    pub base_path: String,
}

impl Server {
    /// `host:port` as the Host header has it.
    #[must_use]
    pub fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.base_path)
    }
}

impl std::str::FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (is_https, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            Some((scheme, _)) => {
                return Err(format!(
                    "scheme `{scheme}` is not supported: write https://HOST[:PORT]"
                ));
            }
            None => return Err("it has no scheme: write https://HOST[:PORT]".to_owned()),
        };
        let (authority, path) = match rest.find('/').and_then(|at| rest.split_at_checked(at)) {
            Some((authority, path)) => (authority, path),
            None => (rest, ""),
        };
        let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => match authority.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        if host.is_empty() {
            return Err("it has no host".to_owned());
        }
        let default = if is_https { 443 } else { 80 };
        let port = port
            .map_or(Ok(default), str::parse)
            .map_err(|_| format!("`{authority}` has no valid port"))?;
        let path = path
            .split(['?', '#'])
            .next()
            .unwrap_or_default()
            .trim_end_matches('/');
        Ok(Self {
            is_https,
            host: host.to_owned(),
            port,
            base_path: path.to_owned(),
        })
    }
}

/// How to show who one is.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Credential {
    /// Not at all.
    #[default]
    None,
    /// A bearer token.
    Token(String),
    /// A bearer token in a file that may change.
    TokenFile(PathBuf),
    /// User name and password.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: String,
    },
    /// A client certificate and key, PEM.
    Certificate {
        /// The chain, leaf first.
        certificate: Vec<u8>,
        /// The key.
        key: Vec<u8>,
    },
}

impl fmt::Debug for Credential {
    /// Names the kind and never the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Token(_) => "Token",
            Self::TokenFile(_) => "TokenFile",
            Self::Basic { .. } => "Basic",
            Self::Certificate { .. } => "Certificate",
        })
    }
}

/// Why a kubeconfig does not lead to a cluster. Every text names the file or the entry and the fix.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KubeconfigError {
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not a kubeconfig.
    #[error("`{}` is not a kubeconfig: {reason}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The parser's words.
        reason: String,
    },
    /// Something that is named is not there, or a value cannot be used.
    #[error("`{}`: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to write.
        reason: String,
    },
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct File {
    current_context: String,
    clusters: Vec<Named<ClusterEntry>>,
    contexts: Vec<Named<ContextEntry>>,
    users: Vec<Named<UserEntry>>,
}

#[derive(Deserialize)]
struct Named<T> {
    #[serde(default)]
    name: String,
    #[serde(alias = "cluster", alias = "context", alias = "user")]
    entry: Option<T>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct ClusterEntry {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
    proxy_url: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ContextEntry {
    cluster: String,
    user: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct UserEntry {
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    username: Option<String>,
    password: Option<String>,
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    exec: Option<BTreeMap<String, serde_json::Value>>,
}

impl Cluster {
    /// A server and whose certificates it may show, without credentials.
    #[must_use]
    pub const fn new(server: Server, trust: Trust) -> Self {
        Self {
            server,
            trust,
            tls_server_name: None,
            credential: Credential::None,
        }
    }

    /// Reads the current context of a kubeconfig; paths in it are relative to its folder.
    ///
    /// # Errors
    ///
    /// [`KubeconfigError`] when the file or a file it names cannot be read or used.
    pub fn from_kubeconfig(path: &Path) -> Result<Self, KubeconfigError> {
        let text = String::from_utf8(read(path)?).map_err(|error| KubeconfigError::Parse {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        let file: File = serde_saphyr::from_str(&text).map_err(|error| KubeconfigError::Parse {
            path: path.to_owned(),
            reason: error.without_snippet().to_string(),
        })?;
        let origin = Origin {
            path,
            folder: path.parent().unwrap_or(Path::new(".")),
        };
        let (cluster, user) = origin.select(file)?;
        origin.cluster(cluster, user)
    }
}

/// The file that a value came from, for errors and relative paths.
struct Origin<'a> {
    path: &'a Path,
    folder: &'a Path,
}

impl Origin<'_> {
    fn wrong(&self, reason: impl Into<String>) -> KubeconfigError {
        KubeconfigError::Content {
            path: self.path.to_owned(),
            reason: reason.into(),
        }
    }

    /// The entries of the current context; a file with one cluster needs no context.
    fn select(&self, file: File) -> Result<(ClusterEntry, UserEntry), KubeconfigError> {
        if file.current_context.is_empty() {
            let mut clusters = file.clusters.into_iter();
            return match (clusters.next(), clusters.next()) {
                (
                    Some(Named {
                        entry: Some(cluster), ..
                    }),
                    None,
                ) => {
                    let user = file
                        .users
                        .into_iter()
                        .next()
                        .and_then(|user| user.entry)
                        .unwrap_or_default();
                    Ok((cluster, user))
                }
                _ => Err(self.wrong(
                    "no current-context is set: write `current-context: NAME` of one of its contexts",
                )),
            };
        }
        let name = &file.current_context;
        let context = file
            .contexts
            .into_iter()
            .find(|context| context.name == *name)
            .and_then(|context| context.entry)
            .ok_or_else(|| {
                self.wrong(format!(
                    "current-context names `{name}`, which is not among its contexts"
                ))
            })?;
        let cluster = file
            .clusters
            .into_iter()
            .find(|cluster| cluster.name == context.cluster)
            .and_then(|cluster| cluster.entry)
            .ok_or_else(|| {
                self.wrong(format!(
                    "context `{name}` names cluster `{}`, which is not there",
                    context.cluster
                ))
            })?;
        let user = file
            .users
            .into_iter()
            .find(|user| user.name == context.user)
            .and_then(|user| user.entry);
        match user {
            Some(user) => Ok((cluster, user)),
            None if context.user.is_empty() => Ok((cluster, UserEntry::default())),
            None => Err(self.wrong(format!(
                "context `{name}` names user `{}`, which is not there",
                context.user
            ))),
        }
    }

    fn cluster(&self, cluster: ClusterEntry, user: UserEntry) -> Result<Cluster, KubeconfigError> {
        let server: Server = cluster
            .server
            .parse()
            .map_err(|reason| self.wrong(format!("server `{}`: {reason}", cluster.server)))?;
        if cluster.proxy_url.is_some_and(|proxy| !proxy.is_empty()) {
            return Err(
                self.wrong("proxy-url is not supported: reach the server directly, or through a tunnel")
            );
        }
        let authority = self.data(
            "certificate-authority",
            cluster.certificate_authority_data,
            cluster.certificate_authority,
        )?;
        let trust = match (cluster.insecure_skip_tls_verify, authority) {
            (true, Some(_)) => {
                return Err(self.wrong(
                    "insecure-skip-tls-verify and certificate-authority exclude each other: remove one",
                ));
            }
            (true, None) => Trust::Anybody,
            (false, Some(authority)) => Trust::Authorities(authority),
            (false, None) => Trust::Public,
        };
        Ok(Cluster {
            server,
            trust,
            tls_server_name: cluster.tls_server_name.filter(|name| !name.is_empty()),
            credential: self.credential(user)?,
        })
    }

    fn credential(&self, user: UserEntry) -> Result<Credential, KubeconfigError> {
        let certificate = self.data(
            "client-certificate",
            user.client_certificate_data,
            user.client_certificate,
        )?;
        let key = self.data("client-key", user.client_key_data, user.client_key)?;
        if let Some(file) = user.token_file.filter(|file| !file.as_os_str().is_empty()) {
            return Ok(Credential::TokenFile(self.folder.join(file)));
        }
        if let Some(token) = user.token.filter(|token| !token.is_empty()) {
            return Ok(Credential::Token(token));
        }
        match (certificate, key) {
            (Some(certificate), Some(key)) => return Ok(Credential::Certificate { certificate, key }),
            (None, None) => {}
            _ => {
                return Err(
                    self.wrong("client-certificate and client-key go together: one of them is missing")
                );
            }
        }
        match (user.username, user.password, user.exec) {
            (Some(username), Some(password), _) => Ok(Credential::Basic { username, password }),
            (_, _, Some(_)) => {
                Err(self.wrong("exec credential plugins are not supported yet: use a token or a certificate"))
            }
            _ => Ok(Credential::None),
        }
    }

    /// Inline data, or else the content of a file.
    fn data(
        &self,
        field: &str,
        inline: Option<String>,
        file: Option<PathBuf>,
    ) -> Result<Option<Vec<u8>>, KubeconfigError> {
        if let Some(inline) = inline.filter(|inline| !inline.is_empty()) {
            let inline: String = inline.split_whitespace().collect();
            let decoded = BASE64_STANDARD
                .decode(inline)
                .map_err(|error| self.wrong(format!("{field}-data is not base64: {error}")))?;
            return Ok(Some(decoded));
        }
        file.filter(|file| !file.as_os_str().is_empty())
            .map(|file| read(&self.folder.join(file)))
            .transpose()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, KubeconfigError> {
    let error = |source| KubeconfigError::Read {
        path: path.to_owned(),
        source,
    };
    if std::fs::metadata(path).map_err(error)?.len() > MAX_BYTES {
        return Err(error(std::io::Error::new(
            std::io::ErrorKind::FileTooLarge,
            format!("it has more than {MAX_BYTES} bytes"),
        )));
    }
    std::fs::read(path).map_err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Cluster, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.crt"), "CA").unwrap();
        let path = dir.path().join("config");
        std::fs::write(&path, text).unwrap();
        Cluster::from_kubeconfig(&path).map_err(|error| error.to_string())
    }

    const HEAD: &str = "current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n";

    #[test]
    fn the_current_context_is_resolved_relative_to_the_file() {
        let cluster = load(&format!(
            "{HEAD}clusters: [{{name: k, cluster: {{server: 'https://10.0.0.1:6443/base/', certificate-authority: ca.crt}}}}]\n\
             users: [{{name: u, user: {{token: secret}}}}]\n"
        ))
        .unwrap();
        assert_eq!(cluster.server.to_string(), "https://10.0.0.1:6443/base");
        assert_eq!(cluster.trust, Trust::Authorities(b"CA".to_vec()));
        assert_eq!(cluster.credential, Credential::Token("secret".to_owned()));
        assert_eq!(format!("{:?}", cluster.credential), "Token");
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        let error = load(text).unwrap_err();
        assert!(
            error.contains(expected),
            "`{error}` does not contain `{expected}`"
        );
    }

    #[test]
    fn mistakes_name_the_entry_and_the_fix() {
        refused("clusters: []\n", "no current-context is set");
        refused("current-context: x\n", "current-context names `x`");
        refused(&format!("{HEAD}clusters: []\n"), "names cluster `k`");
        refused(
            &format!(
                "{HEAD}clusters: [{{name: k, cluster: {{server: 'ftp://x'}}}}]\nusers: [{{name: u, user: {{}}}}]\n"
            ),
            "scheme `ftp`",
        );
        refused(
            &format!(
                "{HEAD}clusters: [{{name: k, cluster: {{server: 'https://x', certificate-authority: gone.crt}}}}]\nusers: [{{name: u, user: {{}}}}]\n"
            ),
            "gone.crt",
        );
        refused(
            &format!("{HEAD}clusters: [{{name: k, cluster: {{server: 'https://x'}}}}]\n"),
            "names user `u`",
        );
    }

    #[test]
    fn servers_are_read_with_their_default_ports() {
        let server = |text: &str| {
            text.parse::<Server>()
                .map(|server| (server.authority(), server.base_path))
        };
        assert_eq!(server("https://a"), Ok(("a:443".to_owned(), String::new())));
        assert_eq!(
            server("http://[::1]:8080/x"),
            Ok(("[::1]:8080".to_owned(), "/x".to_owned()))
        );
        assert!(server("https://:1").is_err());
        assert!(server("a:1").is_err());
    }
}
