//! exec, attach and port-forward: sessions on an upgraded connection.
//!
//! Over WebSocket each message starts with a channel byte: 0 standard input, 1 standard output, 2
//! standard error, 3 the final Status, 4 terminal sizes; protocol v5 adds 255, which closes the
//! channel it names. A SPDY client gets its handshake and its bytes back, and no more.
//!
//! Source: k8s.io/apimachinery pkg/util/remotecommand and k8s.io/apiserver pkg/util/wsstream.

mod shell;

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::call::Call;
use crate::response::Reply;
use crate::state::State;
use crate::status::ApiError;
use crate::websocket::{Socket, accept_key};
use shell::Shell;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const CLOSE: u8 = 255;

type Connection = TokioIo<Upgraded>;

/// What a session does.
#[derive(Clone, Debug)]
enum Session {
    Exec { shell: Shell, stdin: bool, tty: bool },
    Attach { stdin: bool, greeting: String },
    Forward { ports: Vec<u16> },
}

/// Answers `pods/exec`, `pods/attach` and `pods/portforward` by taking over the connection.
///
/// # Errors
///
/// 400 for a request that is no upgrade or names no command.
pub(crate) fn connect(state: &Arc<State>, call: &mut Call, pod: &Value) -> Result<Reply, ApiError> {
    let session = session(call, pod)?;
    let upgrade = call
        .upgrade
        .take()
        .filter(|_| has_token(&call.headers, CONNECTION.as_str(), "upgrade"));
    let Some(upgrade) = upgrade else {
        return Err(ApiError::bad_request("Upgrade request required"));
    };
    let mut response = Response::new(Empty::new().boxed_unsync());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if has_token(&call.headers, UPGRADE.as_str(), "websocket") {
        let key = call
            .headers
            .get("sec-websocket-key")
            .and_then(|value| value.to_str().ok());
        let Some(key) = key else {
            return Err(ApiError::bad_request("the Sec-WebSocket-Key header is missing"));
        };
        let Some(protocol) = subprotocol(&call.headers) else {
            return Err(ApiError::bad_request(
                "unable to upgrade: none of the subprotocols is supported",
            ));
        };
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert("sec-websocket-protocol", HeaderValue::from_static(protocol));
        let accept =
            HeaderValue::from_str(&accept_key(key)).map_err(|_| ApiError::internal("bad websocket key"))?;
        headers.insert("sec-websocket-accept", accept);
        own(state, call, upgrade, move |io| async move {
            let mut socket = Socket::new(io);
            serve(&mut socket, session).await?;
            socket.close().await
        });
    } else if has_token(&call.headers, UPGRADE.as_str(), "spdy/3.1") {
        headers.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
        own(state, call, upgrade, echo);
    } else {
        return Err(ApiError::bad_request("Upgrade request required"));
    }
    Ok(Reply::Switch(response))
}

/// Runs a session as a task of the server, which holds the request's audit event open.
fn own<F, R>(state: &Arc<State>, call: &Call, upgrade: OnUpgrade, run: F)
where
    F: FnOnce(Connection) -> R + Send + 'static,
    R: Future<Output = io::Result<()>> + Send,
{
    let stop = state.stop.clone();
    let guard = call.recorder.hold_open();
    let task = async move {
        let outcome = tokio::select! {
            outcome = async {
                let upgraded = upgrade.await.map_err(io::Error::other)?;
                run(TokioIo::new(upgraded)).await
            } => outcome,
            () = stop.cancelled() => Ok(()),
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, "a session ended early");
        }
        drop(guard);
    };
    drop(state.tasks.spawn(task));
}

fn has_token(headers: &HeaderMap, name: &str, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|found| found.trim().eq_ignore_ascii_case(token))
}

fn subprotocol(headers: &HeaderMap) -> Option<&'static str> {
    ["v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io"]
        .into_iter()
        .find(|protocol| has_token(headers, "sec-websocket-protocol", protocol))
}

fn session(call: &Call, pod: &Value) -> Result<Session, ApiError> {
    if call.subresource == "portforward" {
        let ports = call
            .query
            .all("ports")
            .flat_map(|list| list.split(','))
            .filter_map(|port| port.parse().ok());
        return Ok(Session::Forward {
            ports: ports.collect(),
        });
    }
    let container = crate::logs::container(call.query.text("container"), pod, &call.name)?;
    let stdin = call.query.flag("stdin");
    if call.subresource == "attach" {
        return Ok(Session::Attach {
            stdin,
            greeting: format!("{container}: attached\n"),
        });
    }
    let command: Vec<String> = call.query.all("command").map(str::to_owned).collect();
    if command.is_empty() {
        return Err(ApiError::bad_request(
            "you must specify at least 1 command for the container",
        ));
    }
    let shell = Shell::new(command, pod, &container);
    Ok(Session::Exec {
        shell,
        stdin,
        tty: call.query.flag("tty"),
    })
}

async fn serve(socket: &mut Socket<Connection>, session: Session) -> io::Result<()> {
    match session {
        Session::Exec { shell, stdin, tty } => exec(socket, shell, stdin, tty).await,
        Session::Attach { stdin, greeting } => {
            socket.send(STDOUT, greeting.as_bytes()).await?;
            if stdin {
                while let Some(data) = input(socket).await? {
                    socket.send(STDOUT, &data).await?;
                }
            }
            socket.send(ERROR, exit_status(0).to_string().as_bytes()).await
        }
        Session::Forward { ports } => forward(socket, &ports).await,
    }
}

/// The next piece of standard input; `None` at its end.
async fn input(socket: &mut Socket<Connection>) -> io::Result<Option<Bytes>> {
    while let Some(message) = socket.read().await? {
        match message.split_first() {
            Some((&STDIN, data)) => return Ok(Some(Bytes::copy_from_slice(data))),
            Some((&CLOSE, [STDIN])) => return Ok(None),
            // Terminal sizes, and channels that clients do not write.
            _ => {}
        }
    }
    Ok(None)
}

async fn exec(socket: &mut Socket<Connection>, mut shell: Shell, stdin: bool, tty: bool) -> io::Result<()> {
    let mut output = shell.start(stdin, tty);
    loop {
        if !output.stdout.is_empty() {
            socket.send(STDOUT, &output.stdout).await?;
        }
        if !output.stderr.is_empty() {
            socket
                .send(if tty { STDOUT } else { STDERR }, &output.stderr)
                .await?;
        }
        if let Some(code) = output.exit {
            return socket.send(ERROR, exit_status(code).to_string().as_bytes()).await;
        }
        output = match input(socket).await? {
            Some(data) => shell.input(&data),
            None => shell.end_of_input(),
        };
    }
}

/// The Status of a finished command.
///
/// Source: kubernetes pkg/kubelet/cri/streaming/remotecommand/exec.go.
fn exit_status(code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

/// Each port has a channel for data and one for errors; both begin with the port's number.
async fn forward(socket: &mut Socket<Connection>, ports: &[u16]) -> io::Result<()> {
    let channels = (0_u8..).step_by(2).take(64);
    for (channel, port) in channels.zip(ports) {
        socket.send(channel, &port.to_le_bytes()).await?;
        socket.send(channel + 1, &port.to_le_bytes()).await?;
    }
    while let Some(message) = socket.read().await? {
        if let Some((channel, data)) = message.split_first() {
            socket.send(*channel, data).await?;
        }
    }
    Ok(())
}

/// Gives back what comes in.
async fn echo(mut io: Connection) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = io.read(&mut buffer).await?;
        match buffer.get(..count) {
            None | Some([]) => return Ok(()),
            Some(data) => io.write_all(data).await?,
        }
        io.flush().await?;
    }
}
