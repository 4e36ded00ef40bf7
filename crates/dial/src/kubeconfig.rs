//! The kubeconfig: which cluster, whom to trust, how to show who one is.
//!
//! Source of the format: k8s.io/client-go tools/clientcmd/api/v1/types.go.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::{Deserialize, Deserializer};

use crate::exec::{self, ExecPlugin};
use crate::impersonation::escaped_extra_key;
use crate::{Credential, Identity, Pem, Proxy, Server, Trust};

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
    /// What is on the way to it.
    pub proxy: Option<Proxy>,
    /// Whether answers may be compressed.
    pub accepts_gzip: bool,
    /// What is shown with each request.
    pub credential: Credential,
    /// What is shown with each connection.
    pub identity: Option<Identity>,
    /// Who requests are made as: names and values of headers.
    pub impersonation: Vec<(String, String)>,
    /// What an operator should know about this configuration.
    pub warnings: Vec<String>,
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
    /// The file names no cluster. The text is upstream's.
    #[error(
        "invalid configuration: no configuration has been provided, try setting KUBERNETES_MASTER environment \
         variable"
    )]
    Empty,
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
    #[serde(deserialize_with = "list")]
    clusters: Vec<Named<ClusterEntry>>,
    #[serde(deserialize_with = "list")]
    contexts: Vec<Named<ContextEntry>>,
    #[serde(deserialize_with = "list")]
    users: Vec<Named<UserEntry>>,
}

/// A list, or nothing where somebody wrote `null`.
fn list<'de, D, T>(from: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(from).map(Option::unwrap_or_default)
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
    disable_compression: bool,
    extensions: Vec<ExtensionEntry>,
}

/// What a plugin may want to know about the cluster.
#[derive(Deserialize)]
struct ExtensionEntry {
    #[serde(default)]
    name: String,
    #[serde(default)]
    extension: serde_json::Value,
}

impl ClusterEntry {
    fn exec_config(&self) -> Option<&serde_json::Value> {
        self.extensions
            .iter()
            .find(|entry| entry.name == "client.authentication.k8s.io/exec")
            .map(|entry| &entry.extension)
    }
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
    exec: Option<exec::Entry>,
    auth_provider: Option<serde_json::Value>,
    #[serde(rename = "as")]
    act_as: Option<String>,
    as_uid: Option<String>,
    as_groups: Vec<String>,
    as_user_extra: BTreeMap<String, Vec<String>>,
}

impl Cluster {
    /// A server and whose certificates it may show, without credentials.
    #[must_use]
    pub const fn new(server: Server, trust: Trust) -> Self {
        Self {
            server,
            trust,
            tls_server_name: None,
            proxy: None,
            accepts_gzip: true,
            credential: Credential::None,
            identity: None,
            impersonation: Vec::new(),
            warnings: Vec::new(),
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
        if text.trim().is_empty() {
            return Err(KubeconfigError::Empty);
        }
        let file: File = serde_saphyr::from_str(&text).map_err(|error| KubeconfigError::Parse {
            path: path.to_owned(),
            reason: error.without_snippet().to_string(),
        })?;
        let origin = Origin {
            path,
            folder: path.parent().unwrap_or(Path::new(".")),
        };
        if file.current_context.is_empty() && file.clusters.is_empty() && file.contexts.is_empty() {
            return Err(KubeconfigError::Empty);
        }
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
        let proxy = cluster
            .proxy_url
            .as_deref()
            .filter(|proxy| !proxy.is_empty())
            .map(str::parse)
            .transpose()
            .map_err(|reason: String| self.wrong(format!("proxy-url: {reason}")))?;
        let authority = self.pem(
            "certificate-authority",
            cluster.certificate_authority_data.as_deref(),
            cluster.certificate_authority.as_deref(),
        )?;
        let mut warnings = Vec::new();
        let trust = match (cluster.insecure_skip_tls_verify, authority) {
            (true, Some(_)) => {
                return Err(self.wrong(
                    "insecure-skip-tls-verify and certificate-authority exclude each other: remove one",
                ));
            }
            (true, None) => {
                if server.is_https {
                    warnings.push(format!(
                        "`{}`: insecure-skip-tls-verify is set: anybody between here and {server} can read and \
                         change what is sent",
                        self.path.display()
                    ));
                }
                Trust::Anybody
            }
            (false, Some(authority)) => Trust::Authorities(authority),
            (false, None) => Trust::Public,
        };
        let identity = self.identity(&user)?;
        let impersonation = impersonation(&user);
        let credential = self.credential(user, &cluster, &server, &trust)?;
        if !server.is_https && (credential != Credential::None || identity.is_some()) {
            warnings.push(format!(
                "`{}`: {server} is not https: the user's credentials are not sent",
                self.path.display()
            ));
        }
        Ok(Cluster {
            server,
            trust,
            tls_server_name: cluster.tls_server_name.filter(|name| !name.is_empty()),
            proxy,
            accepts_gzip: !cluster.disable_compression,
            credential,
            identity,
            impersonation,
            warnings,
        })
    }

    fn identity(&self, user: &UserEntry) -> Result<Option<Identity>, KubeconfigError> {
        let certificate = self.pem(
            "client-certificate",
            user.client_certificate_data.as_deref(),
            user.client_certificate.as_deref(),
        )?;
        let key = self.pem(
            "client-key",
            user.client_key_data.as_deref(),
            user.client_key.as_deref(),
        )?;
        match (certificate, key) {
            (Some(certificate), Some(key)) => Ok(Some(Identity { certificate, key })),
            (None, None) => Ok(None),
            _ => Err(self.wrong("client-certificate and client-key go together: one of them is missing")),
        }
    }

    fn credential(
        &self,
        user: UserEntry,
        cluster: &ClusterEntry,
        server: &Server,
        trust: &Trust,
    ) -> Result<Credential, KubeconfigError> {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        if user.auth_provider.is_some() {
            return Err(self.wrong(
                "auth-provider was removed from Kubernetes and is not supported: use an exec plugin or a token",
            ));
        }
        let basic = (given(user.username), given(user.password));
        let token_file = user.token_file.filter(|file| !file.as_os_str().is_empty());
        let token = given(user.token);
        if (token.is_some() || token_file.is_some()) && basic != (None, None) {
            return Err(self.wrong("username/password or bearer token may be set, but not both"));
        }
        if let Some(file) = token_file {
            let file = self.folder.join(file);
            if token.is_none() {
                // A file that is not there is a mistake now, and may be one later.
                read(&file)?;
            }
            return Ok(Credential::TokenFile { file, token });
        }
        if let Some(token) = token {
            return Ok(Credential::Token(token));
        }
        if let (Some(username), password) = basic {
            return Ok(Credential::Basic {
                username,
                password: password.unwrap_or_default(),
            });
        }
        let Some(exec) = user.exec else {
            return Ok(Credential::None);
        };
        let authority = match trust {
            Trust::Authorities(pem) => Some(pem.read()?),
            Trust::Public | Trust::Anybody => None,
        };
        let info = exec::ClusterInfo {
            server: server.to_string(),
            tls_server_name: cluster.tls_server_name.as_deref(),
            is_insecure: cluster.insecure_skip_tls_verify,
            authority: authority.as_deref(),
            proxy_url: cluster.proxy_url.as_deref(),
            disable_compression: cluster.disable_compression,
            config: cluster.exec_config(),
        };
        ExecPlugin::new(exec, self.folder, &info)
            .map(Credential::Exec)
            .map_err(|reason| self.wrong(format!("exec: {reason}")))
    }

    /// Inline data, or else the content of a file.
    fn pem(
        &self,
        field: &str,
        inline: Option<&str>,
        file: Option<&Path>,
    ) -> Result<Option<Pem>, KubeconfigError> {
        if let Some(inline) = inline.filter(|inline| !inline.is_empty()) {
            let inline: String = inline.split_whitespace().collect();
            let decoded = BASE64_STANDARD
                .decode(inline)
                .map_err(|error| self.wrong(format!("{field}-data is not base64: {error}")))?;
            return Ok(Some(Pem::Inline(decoded)));
        }
        let Some(file) = file.filter(|file| !file.as_os_str().is_empty()) else {
            return Ok(None);
        };
        let file = self.folder.join(file);
        // A file that is not there is a mistake now, and may be one later.
        read(&file)?;
        Ok(Some(Pem::File(file)))
    }
}

/// Source: k8s.io/client-go transport/round_trippers.go, impersonatingRoundTripper.
fn impersonation(user: &UserEntry) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    let mut add = |name: &str, value: &str| headers.push((name.to_owned(), value.to_owned()));
    if let Some(name) = &user.act_as {
        add("impersonate-user", name);
    }
    if let Some(uid) = &user.as_uid {
        add("impersonate-uid", uid);
    }
    for group in &user.as_groups {
        add("impersonate-group", group);
    }
    for (key, values) in &user.as_user_extra {
        for value in values {
            let name = format!("impersonate-extra-{}", escaped_extra_key(key.as_bytes()));
            add(&name, value);
        }
    }
    headers
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, KubeconfigError> {
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
mod tests;
