//! watch.
//!
//! Source: k8s.io/apiserver pkg/endpoints/handlers/watch.go and pkg/storage/cacher.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use super::present;
use super::read::selector;
use crate::call::Call;
use crate::kinds::Kind;
use crate::response::{Reply, Shape};
use crate::selectors::Selector;
use crate::state::State;
use crate::status::ApiError;
use crate::store::{Change, set_revision};
use crate::table::{self, IncludeObject};

/// How long a watch lives when its client names no `timeoutSeconds`.
const LIFETIME: Duration = Duration::from_secs(45 * 60);
/// How often bookmarks are sent to those who asked.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

pub(super) fn watch(state: &Arc<State>, call: &Call) -> Result<Reply, ApiError> {
    let selector = selector(call)?;
    let lifetime = match call.query.number("timeoutSeconds")? {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds.unsigned_abs()),
        _ => LIFETIME,
    };
    let view = View {
        kind: Arc::clone(&call.kind),
        namespace: call.namespace.clone(),
        name: call.name.clone(),
        selector,
        shape: call.accepted.shape.clone(),
        include: IncludeObject::from_name(call.query.text("includeObject")),
    };
    let bookmarks = call.query.flag("allowWatchBookmarks");
    let initial = call.query.flag("sendInitialEvents");
    let mut pending = VecDeque::new();
    let mut over = false;
    let live = match call.query.text("resourceVersion") {
        text if initial || matches!(text, "" | "0") => {
            let (items, revision, watch) = state.store.list_and_watch(&call.kind.key, &call.namespace);
            for item in items.iter().filter(|item| view.wants(item)) {
                pending.push_back(view.event(state, "ADDED", item));
            }
            if initial && bookmarks {
                pending.push_back(view.bookmark(state, revision, true));
            }
            watch.live
        }
        text => {
            let revision = text.parse().map_err(|_| {
                ApiError::bad_request(format!("invalid resource version {text:?}: must be a number"))
            })?;
            match state.store.watch(Some(revision)) {
                Ok(watch) => {
                    pending.extend(watch.past.iter().filter_map(|change| view.change(state, change)));
                    watch.live
                }
                // The head says 200 already when upstream's cacher finds this out.
                Err(error) => {
                    pending.push_back(line("ERROR", &error.to_value()));
                    over = true;
                    state.store.watch(None)?.live
                }
            }
        }
    };
    let now = Instant::now();
    let session = Session {
        state: Arc::clone(state),
        view,
        pending,
        live,
        over,
        ends: now + lifetime,
        bookmark: bookmarks.then(|| now + BOOKMARK_EVERY),
    };
    let frames = stream::unfold(session, |mut session| async move {
        let bytes = session.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(bytes)), session))
    });
    let body = StreamBody::new(frames).boxed_unsync();
    Ok(Reply::Stream {
        content_type: "application/json".to_owned(),
        body,
    })
}

/// Which objects a watcher sees, and how.
struct View {
    kind: Arc<Kind>,
    namespace: String,
    name: String,
    selector: Selector,
    shape: Shape,
    include: IncludeObject,
}

impl View {
    fn wants(&self, object: &Value) -> bool {
        self.selector.matches(object)
            && (self.name.is_empty()
                || object.pointer("/metadata/name").and_then(Value::as_str) == Some(&*self.name))
    }

    /// A change as the watcher sees it: an object that stops matching is deleted for it.
    fn change(&self, state: &State, change: &Change) -> Option<Bytes> {
        if change.key.resource != self.kind.key
            || !(self.namespace.is_empty() || self.namespace == change.key.namespace)
        {
            return None;
        }
        let before = change.before.as_deref().filter(|object| self.wants(object));
        let after = change.after.as_deref().filter(|object| self.wants(object));
        match (before, after) {
            (None, None) => None,
            (None, Some(after)) => Some(self.event(state, "ADDED", after)),
            (Some(_), Some(after)) => Some(self.event(state, "MODIFIED", after)),
            (Some(before), None) => {
                let mut last = before.clone();
                set_revision(&mut last, change.revision);
                Some(self.event(state, "DELETED", &last))
            }
        }
    }

    fn event(&self, state: &State, kind: &str, object: &Value) -> Bytes {
        let object = present(&self.kind, object);
        let shown = match &self.shape {
            Shape::Table(version) => table::render(&self.kind, &object, version, self.include, state.now()),
            Shape::Partial(version) => table::partial(&object, version),
            Shape::Full | Shape::Discovery(_) => object,
        };
        line(kind, &shown)
    }

    fn bookmark(&self, state: &State, revision: u64, initial_events_end: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if let (Value::Object(metadata), true) = (&mut metadata, initial_events_end) {
            metadata.insert(
                "annotations".to_owned(),
                json!({"k8s.io/initial-events-end": "true"}),
            );
        }
        let object = json!({
            "kind": self.kind.kind,
            "apiVersion": self.kind.api_version(),
            "metadata": metadata,
        });
        self.event(state, "BOOKMARK", &object)
    }
}

fn line(kind: &str, object: &Value) -> Bytes {
    let mut bytes = serde_json::to_vec(&json!({"type": kind, "object": object})).unwrap_or_default();
    bytes.push(b'\n');
    bytes.into()
}

struct Session {
    state: Arc<State>,
    view: View,
    pending: VecDeque<Bytes>,
    live: broadcast::Receiver<Arc<Change>>,
    over: bool,
    ends: Instant,
    bookmark: Option<Instant>,
}

impl Session {
    /// The next event. Dropping the future loses nothing but the place in the stream, which ends
    /// with its owner.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.pending.pop_front() {
                return Some(bytes);
            }
            if self.over {
                return None;
            }
            let tick = self
                .bookmark
                .map_or(self.ends, |bookmark| bookmark.min(self.ends));
            let stop = self.state.stop.clone();
            tokio::select! {
                change = self.live.recv() => match change {
                    Ok(change) => self.pending.extend(self.view.change(&self.state, &change)),
                    Err(RecvError::Lagged(missed)) => {
                        tracing::warn!(missed, "a watcher was too slow and has to start again");
                        let error = ApiError::expired(format!("too old resource version: {missed} events were missed"));
                        self.pending.push_back(line("ERROR", &error.to_value()));
                        self.over = true;
                    }
                    Err(RecvError::Closed) => self.over = true,
                },
                () = tokio::time::sleep_until(tick) => {
                    if self.bookmark.is_some() {
                        self.pending.push_back(self.view.bookmark(&self.state, self.state.store.revision(), false));
                        self.bookmark = Some(tick + BOOKMARK_EVERY);
                    }
                    self.over = tick >= self.ends;
                }
                () = stop.cancelled() => self.over = true,
            }
        }
    }
}
