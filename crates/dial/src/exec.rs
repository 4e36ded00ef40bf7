//! Credentials that a program prints.
//!
//! Source: k8s.io/client-go plugin/pkg/client/auth/exec/exec.go.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use base64::prelude::{BASE64_STANDARD, Engine};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// A program that runs longer is ended.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A program that prints more is not believed.
const MAX_OUTPUT: u64 = 1 << 20;

/// How much of what it says on standard error is repeated.
const MAX_COMPLAINT: u64 = 1 << 10;

/// Where the program finds what it is asked for.
const EXEC_INFO: &str = "KUBERNETES_EXEC_INFO";

/// A program that prints credentials, as a kubeconfig describes it.
#[derive(Clone, PartialEq, Eq)]
pub struct ExecPlugin {
    version: Version,
    command: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    install_hint: Option<String>,
    /// The value of `KUBERNETES_EXEC_INFO`.
    info: String,
}

impl fmt::Debug for ExecPlugin {
    /// Arguments and environment may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecPlugin")
            .field("command", &self.command)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V1Beta1,
}

impl Version {
    const fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "client.authentication.k8s.io/v1",
            Self::V1Beta1 => "client.authentication.k8s.io/v1beta1",
        }
    }
}

/// Why a plugin gave no credentials.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// It cannot be started.
    #[error("exec: cannot run `{}`{hint}", command.display())]
    Start {
        /// The program.
        command: PathBuf,
        /// How to get it, from the kubeconfig.
        hint: String,
        /// Why.
        source: std::io::Error,
    },
    /// It did not end by itself.
    #[error("exec: `{}` did not end within {} s", command.display(), TIMEOUT.as_secs())]
    Timeout {
        /// The program.
        command: PathBuf,
    },
    /// It ended with an error.
    #[error("exec: `{}` failed with {status}: {complaint}", command.display())]
    Failed {
        /// The program.
        command: PathBuf,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// The beginning of what it said.
        complaint: String,
    },
    /// What it printed is no credential.
    #[error("exec: `{}`: {reason}", command.display())]
    Output {
        /// The program.
        command: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// The kubeconfig's entry.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Entry {
    api_version: String,
    command: String,
    args: Option<Vec<String>>,
    env: Option<Vec<Variable>>,
    install_hint: Option<String>,
    provide_cluster_info: bool,
    interactive_mode: Option<String>,
}

#[derive(Deserialize)]
struct Variable {
    name: String,
    #[serde(default)]
    value: String,
}

/// What a plugin is told about the cluster, if its entry says so.
pub(crate) struct ClusterInfo<'a> {
    pub(crate) server: String,
    pub(crate) tls_server_name: Option<&'a str>,
    pub(crate) is_insecure: bool,
    pub(crate) authority: Option<&'a [u8]>,
    pub(crate) proxy_url: Option<&'a str>,
    pub(crate) disable_compression: bool,
    pub(crate) config: Option<&'a Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Info<'a> {
    kind: &'static str,
    api_version: &'static str,
    spec: Spec<'a>,
}

#[derive(Serialize)]
struct Spec<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<SpecCluster<'a>>,
    interactive: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct SpecCluster<'a> {
    server: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_server_name: Option<&'a str>,
    #[serde(skip_serializing_if = "is_false")]
    insecure_skip_tls_verify: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_authority_data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy_url: Option<&'a str>,
    #[serde(skip_serializing_if = "is_false")]
    disable_compression: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<&'a Value>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// What a plugin printed.
#[derive(Clone)]
pub(crate) struct Printed {
    pub(crate) token: Option<String>,
    /// Certificate and key, PEM.
    pub(crate) pair: Option<(Vec<u8>, Vec<u8>)>,
    expires: Option<Timestamp>,
}

impl fmt::Debug for Printed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Printed")
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

impl Printed {
    pub(crate) fn has_expired(&self, now: SystemTime) -> bool {
        match (self.expires, Timestamp::try_from(now)) {
            (Some(expires), Ok(now)) => now > expires,
            _ => false,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ExecCredential {
    kind: String,
    api_version: String,
    status: Option<Status>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    expiration_timestamp: Option<Timestamp>,
    token: String,
    client_certificate_data: String,
    client_key_data: String,
}

impl ExecPlugin {
    /// Checks an entry. A command with a folder in it is relative to that of the kubeconfig.
    pub(crate) fn new(entry: Entry, folder: &Path, cluster: &ClusterInfo<'_>) -> Result<Self, String> {
        let version = match entry.api_version.as_str() {
            "client.authentication.k8s.io/v1" => Version::V1,
            "client.authentication.k8s.io/v1beta1" => Version::V1Beta1,
            "" => return Err("apiVersion is missing: write client.authentication.k8s.io/v1".to_owned()),
            other => {
                return Err(format!(
                    "apiVersion `{other}` is not supported: write client.authentication.k8s.io/v1"
                ));
            }
        };
        if entry.command.is_empty() {
            return Err("command is missing: name the program".to_owned());
        }
        match (entry.interactive_mode.as_deref(), version) {
            (Some("Never" | "IfAvailable"), _) | (None, Version::V1Beta1) => {}
            (Some("Always"), _) => {
                return Err(
                    "interactiveMode is Always, but there is nobody to ask: write IfAvailable or Never, \
                     or use another credential"
                        .to_owned(),
                );
            }
            (None, Version::V1) => {
                return Err("interactiveMode is missing: write Never or IfAvailable".to_owned());
            }
            (Some(other), _) => {
                return Err(format!(
                    "interactiveMode `{other}` is not known: write Never or IfAvailable"
                ));
            }
        }
        let command = if entry.command.contains('/') {
            folder.join(entry.command)
        } else {
            PathBuf::from(entry.command)
        };
        let spec = Spec {
            cluster: entry.provide_cluster_info.then(|| SpecCluster {
                server: &cluster.server,
                tls_server_name: cluster.tls_server_name,
                insecure_skip_tls_verify: cluster.is_insecure,
                certificate_authority_data: cluster.authority.map(|pem| BASE64_STANDARD.encode(pem)),
                proxy_url: cluster.proxy_url,
                disable_compression: cluster.disable_compression,
                config: cluster.config,
            }),
            interactive: false,
        };
        let info = Info {
            kind: "ExecCredential",
            api_version: version.as_str(),
            spec,
        };
        Ok(Self {
            version,
            command,
            arguments: entry.args.unwrap_or_default(),
            environment: entry
                .env
                .unwrap_or_default()
                .into_iter()
                .map(|variable| (variable.name, variable.value))
                .collect(),
            install_hint: entry.install_hint,
            info: serde_json::to_string(&info).map_err(|error| error.to_string())?,
        })
    }

    /// Runs the program, which inherits the environment and has no standard input, and reads what it
    /// prints.
    pub(crate) async fn run(&self) -> Result<Printed, ExecError> {
        tokio::time::timeout(TIMEOUT, self.output())
            .await
            .unwrap_or_else(|_| {
                Err(ExecError::Timeout {
                    command: self.command.clone(),
                })
            })
    }

    async fn output(&self) -> Result<Printed, ExecError> {
        let start = |source| ExecError::Start {
            command: self.command.clone(),
            hint: self
                .install_hint
                .as_ref()
                .map_or_else(String::new, |hint| format!(" ({hint})")),
            source,
        };
        let mut child = Command::new(&self.command)
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env(EXEC_INFO, &self.info)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(start)?;
        let (output, complaint) = (child.stdout.take(), child.stderr.take());
        let (output, complaint) = tokio::join!(
            beginning(output, MAX_OUTPUT + 1),
            beginning(complaint, MAX_COMPLAINT)
        );
        let output = output.map_err(start)?;
        if output.len() as u64 > MAX_OUTPUT {
            return Err(self.wrong(format!("it printed more than {MAX_OUTPUT} bytes")));
        }
        let status = child.wait().await.map_err(start)?;
        if !status.success() {
            return Err(ExecError::Failed {
                command: self.command.clone(),
                status,
                complaint: String::from_utf8_lossy(&complaint.unwrap_or_default())
                    .trim()
                    .to_owned(),
            });
        }
        self.read(&output)
    }

    fn wrong(&self, reason: impl Into<String>) -> ExecError {
        ExecError::Output {
            command: self.command.clone(),
            reason: reason.into(),
        }
    }

    fn read(&self, output: &[u8]) -> Result<Printed, ExecError> {
        let credential: ExecCredential = serde_json::from_slice(output)
            .map_err(|error| self.wrong(format!("what it printed is no ExecCredential: {error}")))?;
        if credential.kind != "ExecCredential" {
            return Err(self.wrong(format!("it printed kind `{}`", credential.kind)));
        }
        if credential.api_version != self.version.as_str() {
            return Err(self.wrong(format!(
                "exec plugin is configured to use API version {}, plugin returned version {}",
                self.version.as_str(),
                credential.api_version
            )));
        }
        let Some(status) = credential.status else {
            return Err(self.wrong("exec plugin didn't return a status field"));
        };
        let pair = match (
            status.client_certificate_data.is_empty(),
            status.client_key_data.is_empty(),
        ) {
            (true, true) => None,
            (false, false) => Some((
                status.client_certificate_data.into_bytes(),
                status.client_key_data.into_bytes(),
            )),
            _ => return Err(self.wrong("exec plugin returned only certificate or key, not both")),
        };
        let token = Some(status.token).filter(|token| !token.is_empty());
        if token.is_none() && pair.is_none() {
            return Err(self.wrong("exec plugin didn't return a token or cert/key pair"));
        }
        Ok(Printed {
            token,
            pair,
            expires: status.expiration_timestamp,
        })
    }
}

/// Up to `limit` bytes; the rest is thrown away, so that the program is not stopped by a full pipe.
async fn beginning(pipe: Option<impl AsyncRead + Unpin>, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut beginning = Vec::new();
    if let Some(mut pipe) = pipe {
        (&mut pipe).take(limit).read_to_end(&mut beginning).await?;
        let mut rest = [0; 4096];
        while pipe.read(&mut rest).await? > 0 {}
    }
    Ok(beginning)
}

#[cfg(test)]
mod tests;
