//! A pod's log: a few lines that every container has written, and a line a second for who follows.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::broadcast;

use crate::call::Call;
use crate::object::{items, text};
use crate::response::Reply;
use crate::state::State;
use crate::status::ApiError;
use crate::store::{Change, Key};

const FOLLOW_EVERY: Duration = Duration::from_secs(1);

/// Answers `pods/log`.
///
/// # Errors
///
/// 400 for a container that the pod has not.
pub(crate) fn answer(state: &Arc<State>, call: &Call, pod: &Value) -> Result<Reply, ApiError> {
    let container = container(call.query.text("container"), pod, &call.name)?;
    let with_time = call.query.flag("timestamps");
    if call.query.flag("previous") {
        return Err(ApiError::bad_request(format!(
            "previous terminated container {container:?} in pod {:?} not found",
            call.name
        )));
    }
    let mut lines: Vec<String> = written(pod, &container)
        .map(|(at, line)| stamp(at, &line, with_time))
        .collect();
    if let Some(tail) = call.query.number("tailLines")? {
        let keep = usize::try_from(tail).unwrap_or(0).min(lines.len());
        lines.drain(..lines.len() - keep);
    }
    let mut body = lines.concat().into_bytes();
    if let Some(limit) = call.query.number("limitBytes")? {
        body.truncate(usize::try_from(limit).unwrap_or(0));
    }
    if !call.query.flag("follow") {
        return Ok(Reply::Plain {
            code: 200,
            content_type: "text/plain",
            body: body.into(),
        });
    }
    let Ok(watch) = state.store.watch(None) else {
        return Ok(Reply::Plain {
            code: 200,
            content_type: "text/plain",
            body: body.into(),
        });
    };
    let follow = Follow {
        state: Arc::clone(state),
        key: call.key(),
        live: watch.live,
        pending: VecDeque::from([Bytes::from(body)]),
        count: 0,
        with_time,
    };
    let frames = stream::unfold(follow, |mut follow| async move {
        let bytes = follow.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(bytes)), follow))
    });
    Ok(Reply::Stream {
        content_type: "text/plain".to_owned(),
        body: StreamBody::new(frames).boxed_unsync(),
    })
}

/// The container that is meant.
///
/// # Errors
///
/// 400 for one that the pod has not.
pub(crate) fn container(wanted: &str, pod: &Value, name: &str) -> Result<String, ApiError> {
    let mut names = items(pod, "/spec/containers").map(|container| text(container, "/name"));
    let found = if wanted.is_empty() {
        names.next()
    } else {
        names.find(|name| *name == wanted)
    };
    found
        .map(str::to_owned)
        .ok_or_else(|| ApiError::bad_request(format!("container {wanted} is not valid for pod {name}")))
}

/// What a container wrote when it started.
fn written(pod: &Value, container: &str) -> impl Iterator<Item = (Timestamp, String)> {
    let started = text(pod, "/status/startTime")
        .parse()
        .unwrap_or(Timestamp::UNIX_EPOCH);
    let image = items(pod, "/spec/containers")
        .find(|found| text(found, "/name") == container)
        .map_or("", |found| text(found, "/image"))
        .to_owned();
    let container = container.to_owned();
    [
        format!("{container}: starting {image}"),
        format!("{container}: ready"),
    ]
    .into_iter()
    .map(move |line| (started, line))
}

fn stamp(at: Timestamp, line: &str, with_time: bool) -> String {
    if with_time {
        format!("{} {line}\n", at.strftime("%Y-%m-%dT%H:%M:%S%.9fZ"))
    } else {
        format!("{line}\n")
    }
}

struct Follow {
    state: Arc<State>,
    key: Key,
    live: broadcast::Receiver<Arc<Change>>,
    pending: VecDeque<Bytes>,
    count: u64,
    with_time: bool,
}

impl Follow {
    /// The next piece, until the pod goes away.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.pending.pop_front() {
                if bytes.is_empty() {
                    continue;
                }
                return Some(bytes);
            }
            let stop = self.state.stop.clone();
            tokio::select! {
                change = self.live.recv() => match change {
                    Ok(change) if change.key == self.key && change.after.is_none() => return None,
                    Err(broadcast::error::RecvError::Closed) => return None,
                    // Missed changes can only hide that the pod is gone.
                    Err(broadcast::error::RecvError::Lagged(_)) if self.state.store.read(&self.key).is_none() => return None,
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                },
                () = tokio::time::sleep(FOLLOW_EVERY) => {
                    self.count += 1;
                    let line = stamp(self.state.now(), &format!("still running ({})", self.count), self.with_time);
                    self.pending.push_back(line.into());
                }
                () = stop.cancelled() => return None,
            }
        }
    }
}
