//! The API of a running kaudit, asked from the command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use clap::Args;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use kaudit_dial::{Cluster, Pem, Trust, Upstream};
use serde_json::Value;

use crate::api::Token;
use crate::asking::Remote;
use crate::config::client::{self, ClientFile};
use crate::exit::Failure;

/// An answer that is longer is not read.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// An answer that takes longer is not awaited.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Where a kaudit that serves keeps its token, unless it was told otherwise.
const TOKEN_FILES: [&str; 2] = [".kaudit/dev/token", "/var/lib/kaudit/token"];

/// A longer file is not read.
const MAX_CA_BYTES: u64 = 1 << 20;

const DEFAULT_SERVER: &str = "http://127.0.0.1:7440";

/// Which kaudit is asked.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Server {
    /// Address of its API [env: KAUDIT_SERVER; default: that of the context, or else http://127.0.0.1:7440]
    #[arg(long, value_name = "URL", help_heading = "Server")]
    server: Option<String>,
    /// File with the API's token [env: KAUDIT_TOKEN_FILE; default: that of the context, or else .kaudit/dev/token or
    /// /var/lib/kaudit/token]
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    token_file: Option<PathBuf>,
    /// Certificates of the authorities that are believed, PEM [env: KAUDIT_CA_FILE; default: those of the context, or
    /// else the public ones]
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    ca_file: Option<PathBuf>,
    /// A server by its name in ~/.config/kaudit/config.yaml [env: KAUDIT_CONTEXT; default: its currentContext]
    #[arg(long, value_name = "NAME", conflicts_with = "server", help_heading = "Server")]
    context: Option<String>,
}

/// Where a kaudit is, and what it takes to ask it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Meant {
    address: String,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    /// Of what the configuration says: `FILE:LINE: context NAME`.
    place: Option<String>,
}

/// What it answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: StatusCode,
    /// How long it asks to be left alone.
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Vec<u8>,
    /// Whose answer it is.
    pub(super) address: String,
}

impl Meant {
    fn token(&self) -> Result<Token, Failure> {
        let help = "give --token-file, it is the file `token` in the data directory";
        let file = match (&self.token_file, &self.place) {
            (Some(file), _) => Some(file.clone()),
            // This machine's token is no business of a server that somebody named.
            (None, Some(place)) => {
                return Err(Failure::usage(anyhow!(
                    "{place} has no `tokenFile`\n  help: write the path of a file with the token of its API there, or \
                     give --token-file"
                )));
            }
            (None, None) => TOKEN_FILES.iter().map(PathBuf::from).find(|file| file.exists()),
        };
        let file = file.ok_or_else(|| Failure::usage(anyhow!("the API's token is missing: {help}")))?;
        Token::read(&file).map_err(|error| self.wrong(error))
    }

    fn cluster(&self) -> Result<Cluster, Failure> {
        let address = self.address.parse();
        let address = address.map_err(|why| Failure::usage(anyhow!("--server `{}`: {why}", self.address)))?;
        let trust = match &self.ca_file {
            None => Trust::Public,
            Some(file) => {
                Trust::Authorities(Pem::Inline(authorities(file).map_err(|error| self.wrong(error))?))
            }
        };
        Ok(Cluster::new(address, trust))
    }

    /// What is wrong with it, and where that is written.
    fn wrong(&self, error: impl Into<anyhow::Error>) -> Failure {
        let error = error.into();
        Failure::usage(match &self.place {
            Some(place) => error.context(place.clone()),
            None => error,
        })
    }
}

fn authorities(file: &Path) -> anyhow::Result<Vec<u8>> {
    let cannot = || format!("cannot read the certificates `{}`", file.display());
    let length = std::fs::metadata(file).with_context(cannot)?.len();
    anyhow::ensure!(
        length <= MAX_CA_BYTES,
        "`{}` has {length} bytes; certificates of authorities have {MAX_CA_BYTES} at most",
        file.display()
    );
    std::fs::read(file).with_context(cannot)
}

impl Server {
    /// Whether it was named with the command.
    pub(super) const fn is_named(&self) -> bool {
        self.server.is_some() || self.context.is_some()
    }

    /// A connection for questions.
    pub(super) fn remote(&self) -> Result<Remote, Failure> {
        let meant = self.meant()?;
        Remote::new(&meant.cluster()?, meant.token()?.header(), &meant.address)
    }

    fn meant(&self) -> Result<Meant, Failure> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let file = match client::usual_path(variable) {
            Some(path) => ClientFile::read(&path)?,
            None => None,
        };
        self.meant_by(variable, file.as_ref())
    }

    /// Flag before environment before file. A context's token and authorities go to its own server, and to no other.
    fn meant_by(
        &self,
        variable: impl Fn(&str) -> Option<OsString>,
        file: Option<&ClientFile>,
    ) -> Result<Meant, Failure> {
        let text = |name: &str| variable(name).map(|value| value.to_string_lossy().into_owned());
        let path = |flag: &Option<PathBuf>, name| flag.clone().or_else(|| variable(name).map(PathBuf::from));
        let named = |name: &str| match file {
            Some(file) => Ok(Some((file, file.context(name)?))),
            None => Err(Failure::usage(anyhow!(
                "there is no context `{name}`, since there is no {}\n  help: docs/contexts.md says what stands in it; or \
                 use --server",
                client::usual_path(&variable).map_or_else(
                    || "~/.config/kaudit/config.yaml".to_owned(),
                    |path| path.display().to_string()
                )
            ))),
        };
        let environment = (text("KAUDIT_SERVER"), text("KAUDIT_CONTEXT"));
        let (server, context) = match (&self.server, &self.context, environment) {
            (Some(server), _, _) => (Some(server.clone()), None),
            (None, Some(context), _) => (None, named(context)?),
            (None, None, (Some(server), _)) => (Some(server), None),
            (None, None, (None, Some(context))) => (None, named(&context)?),
            (None, None, (None, None)) => (None, file.and_then(|file| Some((file, file.current()?)))),
        };
        let (mut token_file, mut ca_file) = (
            path(&self.token_file, "KAUDIT_TOKEN_FILE"),
            path(&self.ca_file, "KAUDIT_CA_FILE"),
        );
        let Some((file, context)) = context else {
            return Ok(Meant {
                address: server.unwrap_or_else(|| DEFAULT_SERVER.to_owned()),
                token_file,
                ca_file,
                place: None,
            });
        };
        let of = |path: &Option<PathBuf>| path.as_deref().map(|path| file.resolve(path));
        token_file = token_file.or_else(|| of(&context.value.token_file));
        ca_file = ca_file.or_else(|| of(&context.value.ca_file));
        Ok(Meant {
            address: context.value.server.clone(),
            token_file,
            ca_file,
            place: Some(file.place(context)),
        })
    }

    /// The body of a good answer.
    pub(super) async fn ask(&self, method: Method, path: &str, body: String) -> Result<Vec<u8>, Failure> {
        let answer = self.send(method, path, body.into()).await?;
        self.good(answer)
    }

    /// The answer, good or not.
    pub(super) async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Answer, Failure> {
        let meant = self.meant()?;
        let token = meant.token()?;
        let upstream = Upstream::new(&meant.cluster()?, false).map_err(|error| meant.wrong(error))?;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .body(Full::new(body).map_err(|never| match never {}).boxed_unsync())
            .map_err(Failure::usage)?;
        if let Some(header) = token.header() {
            request.headers_mut().insert(header::AUTHORIZATION, header);
        }
        let answered = tokio::time::timeout(TIMEOUT, async {
            let response = upstream.send(request).await.map_err(Failure::unreachable)?;
            let code = response.status();
            let retry_after = response.headers().get(header::RETRY_AFTER);
            let retry_after = retry_after
                .and_then(|value| value.to_str().ok()?.parse().ok())
                .map(Duration::from_secs);
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
                .collect()
                .await;
            let body = body.map_err(|error| Failure::unreachable(anyhow!(error)))?;
            Ok(Answer {
                code,
                retry_after,
                body: body.to_bytes().to_vec(),
                address: meant.address.clone(),
            })
        });
        answered
            .await
            .map_err(|_| Failure::unreachable(anyhow!("{} did not answer in time", meant.address)))?
    }

    /// The same as arguments, for hints.
    pub(super) fn arguments(&self) -> String {
        let word = |path: &PathBuf| super::ask::shell_word(&path.to_string_lossy());
        let all = [
            self.context
                .as_ref()
                .map(|name| format!("--context {}", super::ask::shell_word(name))),
            self.server.as_ref().map(|server| format!("--server {server}")),
            self.token_file
                .as_ref()
                .map(|file| format!("--token-file {}", word(file))),
            self.ca_file
                .as_ref()
                .map(|file| format!("--ca-file {}", word(file))),
        ];
        let all: Vec<String> = all.into_iter().flatten().collect();
        all.join(" ")
    }

    /// The body, or what is wrong.
    pub(super) fn good(&self, answer: Answer) -> Result<Vec<u8>, Failure> {
        let Answer {
            code, body, address, ..
        } = answer;
        if code.is_success() {
            return Ok(body);
        }
        let status: Value = serde_json::from_slice(&body).unwrap_or_default();
        let text = |name: &str| status.get(name).and_then(Value::as_str);
        let message = text("message").or_else(|| text("detail"));
        let message = message.unwrap_or("no reason given").to_owned();
        Err(match code {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Failure::not_allowed(anyhow!("{address} does not accept the token: give --token-file"))
            }
            code if code.is_client_error() && code != StatusCode::TOO_MANY_REQUESTS => {
                Failure::usage(anyhow!(message))
            }
            _ => Failure::unreachable(anyhow!("{address}: {message}")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (tempfile::TempDir, ClientFile) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        let text = "apiVersion: kaudit.dev/v1alpha1\nkind: ClientConfig\ncurrentContext: prod\ncontexts:\n- {name: prod, \
                    server: 'https://prod', tokenFile: t, caFile: ca}\n- {name: dev, server: 'http://dev'}\n";
        std::fs::write(&path, text).unwrap();
        let file = ClientFile::read(&path).unwrap().unwrap();
        (folder, file)
    }

    fn flags(server: Option<&str>, context: Option<&str>) -> Server {
        Server {
            server: server.map(str::to_owned),
            context: context.map(str::to_owned),
            ..Server::default()
        }
    }

    #[test]
    fn flags_come_before_the_environment_and_that_before_the_file() {
        let (_folder, file) = file();
        type Variables = &'static [(&'static str, &'static str)];
        let server: Variables = &[("KAUDIT_SERVER", "http://there")];
        let both: Variables = &[("KAUDIT_SERVER", "http://there"), ("KAUDIT_CONTEXT", "dev")];
        let context: Variables = &[("KAUDIT_CONTEXT", "dev")];
        for (flags, variables, address) in [
            (flags(None, None), &[] as Variables, "https://prod"),
            (flags(None, None), context, "http://dev"),
            (flags(None, None), server, "http://there"),
            (flags(None, None), both, "http://there"),
            (flags(None, Some("prod")), both, "https://prod"),
            (flags(Some("http://here"), None), both, "http://here"),
        ] {
            let variable = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| OsString::from(value))
            };
            let meant = flags.meant_by(variable, Some(&file)).unwrap();
            assert_eq!(meant.address, address, "{flags:?} {variables:?}");
            // What is known of one server is not shown to another.
            assert_eq!(meant.token_file.is_some(), address == "https://prod");
            assert_eq!(meant.ca_file.is_some(), address == "https://prod");
        }
        let meant = flags(None, None).meant_by(|_| None, None).unwrap();
        assert_eq!(meant.address, DEFAULT_SERVER);
    }

    #[test]
    fn what_is_wrong_with_a_context_names_its_file_and_line() {
        let (folder, file) = file();
        let meant = |name| flags(None, Some(name)).meant_by(|_| None, Some(&file)).unwrap();
        let path = folder.path().join("config.yaml");
        let place = |line: u32, name: &str| format!("{}:{line}: context `{name}`", path.display());
        let told = meant("prod").token().unwrap_err().to_string();
        assert!(told.starts_with(&place(5, "prod")), "{told}");
        assert!(
            told.contains(&folder.path().join("t").display().to_string()),
            "{told}"
        );
        let told = meant("prod").cluster().unwrap_err().to_string();
        assert!(
            told.starts_with(&place(5, "prod")) && told.contains("cannot read the certificates"),
            "{told}"
        );
        let told = meant("dev").token().unwrap_err().to_string();
        assert!(
            told.starts_with(&place(6, "dev")) && told.contains("has no `tokenFile`"),
            "{told}"
        );
        let told = flags(None, Some("prd")).meant_by(|_| None, Some(&file));
        assert!(told.unwrap_err().to_string().contains("did you mean `prod`?"));
        let told = flags(None, Some("prod")).meant_by(|_| None, None);
        assert!(
            told.unwrap_err()
                .to_string()
                .contains("there is no context `prod`")
        );
    }
}
