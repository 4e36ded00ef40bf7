//! What a request is about.
//!
//! Source: k8s.io/apiserver pkg/endpoints/request/requestinfo.go.

mod labels;
mod query;

use std::ops::Range;

use bytes::Bytes;
use kaudit_event::{ObjectReference, Text};

use crate::RequestTarget;
use query::Query;

/// A request resolved to verb, resource and the rest.
///
/// The parts are ranges of the decoded path, so that resolving copies nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    path: Bytes,
    verb: Text,
    scope: Option<Box<Selectors>>,
    is_resource_request: bool,
    api_prefix: Part,
    api_group: Part,
    api_version: Part,
    namespace: Part,
    resource: Part,
    subresource: Part,
    name: Part,
    parts: Option<Part>,
}

/// What the query adds; most requests have none of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Selectors {
    /// The name that the field selector requires.
    name: Option<Text>,
    field_selector: Text,
    label_selector: Text,
}

/// A range of the path; targets are far shorter than 4 GiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Part {
    start: u32,
    end: u32,
}

impl Part {
    fn new(range: Range<usize>) -> Self {
        let short = |at| u32::try_from(at).unwrap_or(u32::MAX);
        Self {
            start: short(range.start),
            end: short(range.end),
        }
    }

    fn of<'a>(&self, path: &'a [u8]) -> &'a [u8] {
        path.get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }

    const fn is_empty(self) -> bool {
        self.start == self.end
    }
}

macro_rules! parts {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $name(&self) -> &[u8] {
            self.$name.of(&self.path)
        })+
    };
}

impl RequestInfo {
    /// Whether it is about an API resource.
    #[must_use]
    pub const fn is_resource_request(&self) -> bool {
        self.is_resource_request
    }

    /// The decoded path.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// The object of a resource request, as far as the path and a field selector tell; shares the path.
    #[must_use]
    pub fn object_ref(&self) -> Option<ObjectReference> {
        if !self.is_resource_request {
            return None;
        }
        let shared = |part: Part| match part.start as usize..part.end as usize {
            range if range.is_empty() || range.end > self.path.len() => Text::default(),
            range => Text::from(self.path.slice(range)),
        };
        let selected = self.scope.as_ref().and_then(|scope| scope.name.clone());
        Some(ObjectReference {
            resource: shared(self.resource),
            namespace: shared(self.namespace),
            name: selected.unwrap_or_else(|| shared(self.name)),
            api_group: shared(self.api_group),
            api_version: shared(self.api_version),
            subresource: shared(self.subresource),
            ..ObjectReference::default()
        })
    }

    /// The Kubernetes verb, or the lower-case method of a non-resource request.
    #[must_use]
    pub fn verb(&self) -> &[u8] {
        self.verb.as_bytes()
    }

    /// The verb, shared.
    #[must_use]
    pub const fn verb_text(&self) -> &Text {
        &self.verb
    }

    parts! {
        /// `api` or `apis`; may be set for a non-resource request.
        api_prefix,
        /// The API group; empty for the core group.
        api_group,
        /// The API version.
        api_version,
        /// The namespace; also of a request for a namespace itself.
        namespace,
        /// The plural resource.
        resource,
        /// The subresource.
        subresource,
    }

    /// The object's name, from the path or from a field selector that requires it.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        match self.scope.as_ref().and_then(|selectors| selectors.name.as_ref()) {
            Some(name) => name.as_bytes(),
            None => self.name.of(&self.path),
        }
    }

    /// The path's segments from the resource on; `None` for a non-resource request.
    #[must_use]
    pub fn parts(&self) -> Option<impl Iterator<Item = &[u8]>> {
        let parts = self.parts?.of(&self.path);
        Some(parts.split(|byte| *byte == b'/'))
    }

    /// The raw `fieldSelector` where authorization looks at it.
    #[must_use]
    pub fn field_selector(&self) -> &[u8] {
        self.scope
            .as_ref()
            .map_or(&[], |selectors| selectors.field_selector.as_bytes())
    }

    /// The raw `labelSelector` where authorization looks at it.
    #[must_use]
    pub fn label_selector(&self) -> &[u8] {
        self.scope
            .as_ref()
            .map_or(&[], |selectors| selectors.label_selector.as_bytes())
    }
}

/// Why a request cannot be resolved: it is answered 500 and makes no event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RequestInfoError {
    /// Upstream's text.
    pub message: String,
}

/// Resolves requests; holds the API prefixes.
#[derive(Clone, Debug)]
pub struct RequestInfoResolver {
    /// First path segments that are API prefixes; kube-apiserver: `api`, `apis`.
    pub api_prefixes: Vec<Text>,
    /// Those of them without a group segment; kube-apiserver: `api`.
    pub groupless_api_prefixes: Vec<Text>,
}

impl Default for RequestInfoResolver {
    fn default() -> Self {
        Self {
            api_prefixes: vec!["api".into(), "apis".into()],
            groupless_api_prefixes: vec!["api".into()],
        }
    }
}

/// The segments of a path, front to back.
struct Segments<'a> {
    path: &'a [u8],
    /// Where the next segment starts; behind `end` when there is none.
    at: usize,
    end: usize,
}

impl<'a> Segments<'a> {
    /// Slashes at both ends do not count.
    fn new(path: &'a [u8]) -> Self {
        let at = path.iter().take_while(|byte| **byte == b'/').count();
        let trailing = path.iter().rev().take_while(|byte| **byte == b'/').count();
        if at == path.len() {
            return Self { path, at: 1, end: 0 };
        }
        Self {
            path,
            at,
            end: path.len() - trailing,
        }
    }

    /// The next segment, without taking it.
    fn peek(&self) -> Option<Part> {
        if self.at > self.end {
            return None;
        }
        let rest = self.path.get(self.at..self.end)?;
        let length = memchr::memchr(b'/', rest).unwrap_or(rest.len());
        Some(Part::new(self.at..self.at + length))
    }

    fn take(&mut self) -> Option<Part> {
        let part = self.peek()?;
        self.at = part.end as usize + 1;
        Some(part)
    }

    /// Whether at least `count` segments are left.
    fn has(&self, count: usize) -> bool {
        let Some(rest) = self.path.get(self.at..self.end) else {
            return count == 0;
        };
        memchr::memchr_iter(b'/', rest).take(count).count() + 1 >= count
    }
}

impl RequestInfoResolver {
    /// Resolves one request.
    ///
    /// # Errors
    ///
    /// [`RequestInfoError`] for paths that end after `watch` or `proxy`.
    pub fn resolve(&self, method: &[u8], target: &RequestTarget) -> Result<RequestInfo, RequestInfoError> {
        let mut info = RequestInfo {
            path: target.path.clone(),
            verb: lower_case(method),
            ..RequestInfo::default()
        };
        let path: &[u8] = &target.path;
        let mut segments = Segments::new(path);
        if !segments.has(3) {
            return Ok(info);
        }
        let is_one_of =
            |prefixes: &[Text], part: Part| prefixes.iter().any(|prefix| prefix.as_bytes() == part.of(path));
        match segments.peek() {
            Some(prefix) if is_one_of(&self.api_prefixes, prefix) => info.api_prefix = prefix,
            _ => return Ok(info),
        }
        segments.take();
        if !is_one_of(&self.groupless_api_prefixes, info.api_prefix) {
            if !segments.has(3) {
                return Ok(info);
            }
            info.api_group = segments.take().unwrap_or_default();
        }
        info.is_resource_request = true;
        info.api_version = segments.take().unwrap_or_default();

        let verb_in_path = match segments.peek().map(|part| part.of(path)) {
            Some(b"watch") => Some("watch"),
            Some(b"proxy") => Some("proxy"),
            _ => None,
        };
        match verb_in_path {
            Some(verb) => {
                segments.take();
                if segments.peek().is_none() {
                    let message = format!(
                        "unable to determine kind and namespace from url, {}",
                        target.display()
                    );
                    return Err(RequestInfoError { message });
                }
                info.verb = Text::from_static(verb);
            }
            None => info.verb = Text::from_static(verb_of(method)),
        }
        info.read_object(&mut segments);
        info.read_query(target, verb_in_path.is_some());
        Ok(info)
    }
}

impl RequestInfo {
    /// Namespace, resource, name and subresource.
    fn read_object(&mut self, segments: &mut Segments<'_>) {
        let path = segments.path;
        if segments.peek().is_some_and(|part| part.of(path) == b"namespaces") {
            let mut ahead = Segments {
                path,
                at: segments.at,
                end: segments.end,
            };
            ahead.take();
            if let Some(namespace) = ahead.take() {
                self.namespace = namespace;
                // What follows a namespace is a resource of its own, but for its two subresources.
                if ahead
                    .peek()
                    .is_some_and(|part| !matches!(part.of(path), b"status" | b"finalize"))
                {
                    segments.at = ahead.at;
                }
            }
        }
        self.parts = Some(Part::new(segments.at..segments.end));
        self.resource = segments.take().unwrap_or_default();
        self.name = segments.take().unwrap_or_default();
        if self.verb != "proxy" {
            self.subresource = segments.take().unwrap_or_default();
        }
    }

    /// Lists and watches, and names that a field selector requires.
    fn read_query(&mut self, target: &RequestTarget, verb_in_path: bool) {
        let nameless = self.name.is_empty();
        if nameless && self.verb == "delete" {
            self.verb = Text::from_static("deletecollection");
        }
        let is_get = nameless && self.verb == "get";
        if target.raw_query.is_empty() {
            if is_get {
                self.verb = Text::from_static("list");
            }
            return;
        }
        let collection = is_get || matches!(self.verb.as_bytes(), b"list" | b"watch" | b"deletecollection");
        if !collection || (verb_in_path && !is_get) {
            return;
        }
        let query = Query::parse(&target.raw_query);
        let mut name = None;
        if is_get {
            let (watch, required) = query.list_options();
            self.verb = Text::from_static(if watch { "watch" } else { "list" });
            name = required.filter(|name| {
                !matches!(name.as_slice(), b"." | b"..")
                    && !name.iter().any(|byte| matches!(byte, b'/' | b'%'))
            });
        }
        let field_selector = query.first(b"fieldSelector").unwrap_or_default();
        let label_selector = query.first(b"labelSelector").unwrap_or_default();
        if name.is_some() || !field_selector.is_empty() || !label_selector.is_empty() {
            self.scope = Some(Box::new(Selectors {
                name: name.map(Text::from),
                field_selector: Text::copy_from_slice(field_selector),
                label_selector: Text::copy_from_slice(label_selector),
            }));
        }
    }
}

const fn verb_of(method: &[u8]) -> &'static str {
    match method {
        b"POST" => "create",
        b"GET" | b"HEAD" => "get",
        b"PUT" => "update",
        b"PATCH" => "patch",
        b"DELETE" => "delete",
        _ => "",
    }
}

fn lower_case(method: &[u8]) -> Text {
    match method {
        b"GET" => Text::from_static("get"),
        b"POST" => Text::from_static("post"),
        b"HEAD" => Text::from_static("head"),
        b"PUT" => Text::from_static("put"),
        b"PATCH" => Text::from_static("patch"),
        b"DELETE" => Text::from_static("delete"),
        b"OPTIONS" => Text::from_static("options"),
        other => Text::from(other.to_ascii_lowercase()),
    }
}

/// Which requests are long-running: they make a ResponseStarted event and have no deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LongRunning {
    /// kube-apiserver's test: verbs watch and proxy; subresources attach, exec, proxy, log and
    /// portforward; paths under `/debug/pprof/`.
    #[default]
    KubeApiserver,
    /// A generic API server's: verb watch and paths under `/debug/pprof/`.
    GenericApiserver,
}

impl LongRunning {
    /// Whether the request is long-running.
    ///
    /// Source: k8s.io/apiserver pkg/server/filters/longrunning.go, BasicLongRunningRequestCheck.
    #[must_use]
    pub fn matches(self, info: &RequestInfo) -> bool {
        let by_verb = match self {
            Self::KubeApiserver => matches!(info.verb(), b"watch" | b"proxy"),
            Self::GenericApiserver => info.verb() == b"watch",
        };
        let by_subresource = || {
            self == Self::KubeApiserver
                && info.is_resource_request
                && matches!(
                    info.subresource(),
                    b"attach" | b"exec" | b"proxy" | b"log" | b"portforward"
                )
        };
        by_verb || by_subresource() || (!info.is_resource_request && info.path.starts_with(b"/debug/pprof/"))
    }
}
