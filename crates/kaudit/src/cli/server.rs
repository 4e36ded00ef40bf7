//! The API of a running kaudit, asked from the command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;
use bytes::Bytes;
use clap::Args;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use kaudit_dial::{Cluster, Trust, Upstream};
use serde_json::Value;

use crate::api::Token;
use crate::asking::Remote;
use crate::exit::Failure;

/// An answer that is longer is not read.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// An answer that takes longer is not awaited.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Where a kaudit that serves keeps its token, unless it was told otherwise.
const TOKEN_FILES: [&str; 2] = [".kaudit/dev/token", "/var/lib/kaudit/token"];

const DEFAULT_SERVER: &str = "http://127.0.0.1:7440";

/// Which kaudit is asked.
#[derive(Debug, Args)]
pub(super) struct Server {
    /// Address of its API
    #[arg(
        long,
        value_name = "URL",
        default_value = DEFAULT_SERVER,
        env = "KAUDIT_SERVER"
    )]
    server: String,
    /// File with the API's token [default: .kaudit/dev/token, or else /var/lib/kaudit/token]
    #[arg(long, value_name = "FILE", env = "KAUDIT_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

/// What it answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: StatusCode,
    /// How long it asks to be left alone.
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Vec<u8>,
}

impl Server {
    /// A connection for questions.
    pub(super) fn remote(&self) -> Result<Remote, Failure> {
        Remote::new(&self.server, self.token()?.header())
    }

    fn token(&self) -> Result<Token, Failure> {
        let file = self.token_file.clone().or_else(|| {
            let mut known = TOKEN_FILES.iter().map(PathBuf::from);
            known.find(|file| file.exists())
        });
        let file = file.ok_or_else(|| {
            Failure::usage(anyhow!(
                "the API's token is missing: give --token-file, it is the file `token` in the data directory"
            ))
        })?;
        Token::read(&file).map_err(Failure::usage)
    }

    /// The body of a good answer.
    pub(super) async fn ask(&self, method: Method, path: &str, body: String) -> Result<Vec<u8>, Failure> {
        let answer = self.send(method, path, body.into()).await?;
        self.good(answer)
    }

    /// The answer, good or not.
    pub(super) async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Answer, Failure> {
        let address = self
            .server
            .parse()
            .map_err(|why| Failure::usage(anyhow!("--server `{}`: {why}", self.server)))?;
        let token = self.token()?;
        let upstream = Upstream::new(&Cluster::new(address, Trust::Public), false).map_err(Failure::usage)?;
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
            })
        });
        answered
            .await
            .map_err(|_| Failure::unreachable(anyhow!("{} did not answer in time", self.server)))?
    }

    /// The same as arguments, for hints.
    pub(super) fn arguments(&self) -> String {
        let file = self.token_file.as_ref().map(|file| {
            let file = super::ask::shell_word(&file.to_string_lossy());
            format!("--token-file {file}")
        });
        let server = (self.server != DEFAULT_SERVER).then(|| format!("--server {}", self.server));
        let all: Vec<String> = server.into_iter().chain(file).collect();
        all.join(" ")
    }

    /// Where it is.
    pub(super) fn address(&self) -> &str {
        &self.server
    }

    /// The body, or what is wrong.
    pub(super) fn good(&self, answer: Answer) -> Result<Vec<u8>, Failure> {
        let Answer { code, body, .. } = answer;
        if code.is_success() {
            return Ok(body);
        }
        let status: Value = serde_json::from_slice(&body).unwrap_or_default();
        let text = |name: &str| status.get(name).and_then(Value::as_str);
        let message = text("message").or_else(|| text("detail"));
        let message = message.unwrap_or("no reason given").to_owned();
        Err(match code {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::not_allowed(anyhow!(
                "{} does not accept the token: give --token-file",
                self.server
            )),
            code if code.is_client_error() && code != StatusCode::TOO_MANY_REQUESTS => {
                Failure::usage(anyhow!(message))
            }
            _ => Failure::unreachable(anyhow!("{}: {message}", self.server)),
        })
    }
}
