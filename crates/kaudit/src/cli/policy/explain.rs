//! `kaudit policy explain`.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use bytes::Bytes;
use clap::Args;
use kaudit_event::{
    DecodedEvent, Event, EventList, EventView, Level, Stage, Text, UserInfo, event_list_items,
};
use kaudit_policy::{Attributes, Explanation, Policy, RequestInfoResolver, RequestTarget};
use serde_json::json;

use super::read;
use crate::cli::{Output, print, say};
use crate::exit::{Exit, Failure};

/// Flags of `policy explain`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("request").required(true).multiple(true).args(["resource", "uri", "event"]))]
pub(in crate::cli) struct Flags {
    /// The policy file; `-` is standard input
    file: PathBuf,
    /// The user's name; without one the request is one whose authentication failed
    #[arg(long)]
    user: Option<String>,
    /// A group of the user, repeatable; those that every user or service account is in are added
    #[arg(long = "group", value_name = "GROUP", requires = "user")]
    groups: Vec<String>,
    /// The verb: get, list, watch, create, update, patch, delete, deletecollection
    #[arg(long, default_value = "get", conflicts_with_all = ["uri", "event"])]
    verb: String,
    /// The resource, as pods, pods/exec or deployments.apps
    #[arg(long, conflicts_with_all = ["uri", "event"])]
    resource: Option<String>,
    /// The subresource, as exec
    #[arg(long, requires = "resource")]
    subresource: Option<String>,
    /// The namespace
    #[arg(long, short, requires = "resource")]
    namespace: Option<String>,
    /// The object's name
    #[arg(long, requires = "resource")]
    name: Option<String>,
    /// The API group; empty for the core group
    #[arg(long, requires = "resource")]
    api_group: Option<String>,
    /// Method and target of an HTTP request, as 'GET /api/v1/pods?watch=1'
    #[arg(long, value_name = "REQUEST", conflicts_with = "event")]
    uri: Option<String>,
    /// A file with audit events: one, a list, or one per line; the request of each is explained
    #[arg(long, value_name = "FILE", conflicts_with_all = ["user"])]
    event: Option<PathBuf>,
    /// How to print: text, or one JSON object per line and request
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(flags: &Flags) -> Result<Exit, Failure> {
    let document = read(&flags.file)?;
    let file = flags.file.display().to_string();
    let (policy, warnings) = Policy::load(&document);
    for warning in &warnings.0 {
        say(format_args!("warning: {file}: {warning}"));
    }
    let policy = policy.map_err(|error| Failure::usage(anyhow!(error.from_file(&file))))?;
    let requests = match &flags.event {
        Some(event) => of_events(event)?,
        None => vec![of_flags(flags)?],
    };
    let mut result = String::new();
    for (index, request) in requests.iter().enumerate() {
        let explanation = policy.explain(&request.attributes());
        match flags.output {
            Output::Json => result += &format!("{}\n", as_json(&policy, request, &explanation)),
            Output::Text => {
                if index > 0 {
                    result.push('\n');
                }
                as_text(&mut result, &file, &policy, request, &explanation);
            }
        }
    }
    print(result.as_bytes())
}

/// A request to explain.
#[derive(Debug, Default)]
struct Request {
    user: Option<UserInfo>,
    verb: Vec<u8>,
    about_resource: bool,
    api_group: Vec<u8>,
    api_version: Vec<u8>,
    resource: Vec<u8>,
    subresource: Vec<u8>,
    namespace: Vec<u8>,
    name: Vec<u8>,
    path: Vec<u8>,
}

impl Request {
    fn attributes(&self) -> Attributes<'_> {
        Attributes {
            user: self.user.as_ref(),
            verb: &self.verb,
            is_resource_request: self.about_resource,
            api_group: &self.api_group,
            api_version: &self.api_version,
            resource: &self.resource,
            subresource: &self.subresource,
            namespace: &self.namespace,
            name: &self.name,
            path: &self.path,
        }
    }

    fn describe(&self) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let who = match &self.user {
            None => "somebody whose authentication failed".to_owned(),
            Some(user) => {
                let groups = user.groups.as_deref().unwrap_or_default();
                let groups: Vec<String> = groups.iter().map(|group| text(group.as_bytes())).collect();
                match groups.as_slice() {
                    [] => format!("{} (in no group)", text(user.username.as_bytes())),
                    groups => format!("{} (in {})", text(user.username.as_bytes()), groups.join(", ")),
                }
            }
        };
        if !self.about_resource {
            return format!("{who}: {} {}", text(&self.verb), text(&self.path));
        }
        let mut what = text(&self.resource);
        if !self.subresource.is_empty() {
            what += &format!("/{}", text(&self.subresource));
        }
        if !self.api_group.is_empty() {
            what += &format!(" of {}", text(&self.api_group));
        }
        if !self.name.is_empty() {
            what += &format!(" {:?}", text(&self.name));
        }
        if !self.namespace.is_empty() {
            what += &format!(" in namespace {:?}", text(&self.namespace));
        }
        format!("{who}: {} {what}", text(&self.verb))
    }
}

fn of_flags(flags: &Flags) -> Result<Request, Failure> {
    let user = flags.user.as_ref().map(|name| UserInfo {
        username: Text::from(name.clone()),
        groups: Some(with_groups_of_everybody(name, &flags.groups)),
        ..UserInfo::default()
    });
    if let Some(uri) = &flags.uri {
        return Ok(Request { user, ..of_uri(uri)? });
    }
    let full = flags.resource.as_deref().unwrap_or_default();
    let (resource, part) = full.split_once('/').unwrap_or((full, ""));
    let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
    let bytes = |text: &str| text.as_bytes().to_vec();
    Ok(Request {
        user,
        verb: bytes(&flags.verb),
        about_resource: true,
        api_group: bytes(flags.api_group.as_deref().unwrap_or(group)),
        resource: bytes(resource),
        subresource: bytes(flags.subresource.as_deref().unwrap_or(part)),
        namespace: bytes(flags.namespace.as_deref().unwrap_or_default()),
        name: bytes(flags.name.as_deref().unwrap_or_default()),
        ..Request::default()
    })
}

/// The groups that authentication adds.
///
/// Source: k8s.io/apiserver pkg/authentication/group; pkg/authentication/serviceaccount/util.go.
fn with_groups_of_everybody(user: &str, groups: &[String]) -> Vec<Text> {
    let mut all: Vec<String> = groups.to_vec();
    let mut add = |group: String| {
        if !all.contains(&group) {
            all.push(group);
        }
    };
    if let Some((namespace, _)) = user
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.split_once(':'))
    {
        add("system:serviceaccounts".to_owned());
        add(format!("system:serviceaccounts:{namespace}"));
    }
    add(match user {
        "system:anonymous" => "system:unauthenticated".to_owned(),
        _ => "system:authenticated".to_owned(),
    });
    all.into_iter().map(Text::from).collect()
}

/// `GET /api/v1/pods`, as the API server understands it.
fn of_uri(request: &str) -> Result<Request, Failure> {
    let (method, target) = request.trim().split_once(char::is_whitespace).ok_or_else(|| {
        Failure::usage(anyhow!(
            "--uri {request:?} is not a method and a target, as 'GET /api/v1/pods'"
        ))
    })?;
    let wrong = |error: &dyn std::fmt::Display| Failure::usage(anyhow!("--uri {request:?}: {error}"));
    let method = method.to_ascii_uppercase();
    let target =
        RequestTarget::parse(method.as_bytes(), target.trim().as_bytes()).map_err(|error| wrong(&error))?;
    let info = RequestInfoResolver::default()
        .resolve(method.as_bytes(), &target)
        .map_err(|error| wrong(&error))?;
    Ok(of_attributes(&Attributes::new(None, &info)))
}

fn of_attributes(asked: &Attributes<'_>) -> Request {
    Request {
        user: asked.user.cloned(),
        verb: asked.verb.to_vec(),
        about_resource: asked.is_resource_request,
        api_group: asked.api_group.to_vec(),
        api_version: asked.api_version.to_vec(),
        resource: asked.resource.to_vec(),
        subresource: asked.subresource.to_vec(),
        namespace: asked.namespace.to_vec(),
        name: asked.name.to_vec(),
        path: asked.path.to_vec(),
    }
}

/// The requests of a file's events.
fn of_events(file: &Path) -> Result<Vec<Request>, Failure> {
    const MAX_FILE_BYTES: u64 = 1 << 30;
    let name = file.display();
    let size = match file {
        file if file == Path::new("-") => 0,
        file => std::fs::metadata(file).map_or(0, |metadata| metadata.len()),
    };
    if size > MAX_FILE_BYTES {
        return Err(Failure::usage(anyhow!(
            "{name}: {size} bytes are too many to explain one by one; at most {MAX_FILE_BYTES}"
        )));
    }
    let text = if file == Path::new("-") {
        use std::io::Read;
        let mut text = Vec::new();
        let read = std::io::stdin()
            .lock()
            .take(MAX_FILE_BYTES)
            .read_to_end(&mut text);
        read.map(|_| text)
    } else {
        std::fs::read(file)
    };
    let text = Bytes::from(text.map_err(|error| {
        Failure::unreachable(anyhow::Error::new(error).context(format!("cannot read {name}")))
    })?);
    let items: Vec<(usize, Bytes)> = if Event::decode(&text).is_ok() {
        vec![(1, text)]
    } else if EventList::decode(&text).is_ok() {
        event_list_items(&text)
            .filter_map(Result::ok)
            .enumerate()
            .map(|(index, item)| (index + 1, text.slice_ref(item)))
            .collect()
    } else {
        text.split(|byte| *byte == b'\n')
            .enumerate()
            .filter(|(_, line)| !line.trim_ascii().is_empty())
            .map(|(index, line)| (index + 1, text.slice_ref(line.trim_ascii())))
            .collect()
    };
    if items.is_empty() {
        return Err(Failure::usage(anyhow!("{name}: there is no event in it")));
    }
    items
        .into_iter()
        .map(|(number, item)| {
            let event = DecodedEvent::parse(item)
                .map_err(|error| Failure::usage(anyhow!("{name}:{number}: not an audit event: {error}")))?;
            Ok(of_event(event.view()))
        })
        .collect()
}

/// What the policy saw of an event's request: the user before impersonation.
fn of_event(event: EventView<'_>) -> Request {
    let user = event.user();
    let username = user.text("username");
    let uri = event.request_uri();
    let path = RequestTarget::parse(b"GET", &uri)
        .ok()
        .and_then(|target| RequestInfoResolver::default().resolve(b"GET", &target).ok())
        .map_or_else(|| uri.to_vec(), |info| info.path().to_vec());
    let object = event.object_ref();
    let field = |key: &str| {
        object
            .as_ref()
            .map_or_else(Vec::new, |object| object.text(key).into_owned())
    };
    Request {
        user: (!username.is_empty()).then(|| UserInfo {
            username: Text::from(username.to_vec()),
            groups: Some(
                user.texts("groups")
                    .map(|group| Text::from(group.to_vec()))
                    .collect(),
            ),
            ..UserInfo::default()
        }),
        verb: event.verb().into_owned(),
        about_resource: object.is_some(),
        api_group: field("apiGroup"),
        api_version: field("apiVersion"),
        resource: field("resource"),
        subresource: field("subresource"),
        namespace: field("namespace"),
        name: field("name"),
        path,
    }
}

fn as_json(policy: &Policy, request: &Request, explanation: &Explanation) -> serde_json::Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let config = &explanation.config;
    json!({
        "request": {
            "user": request.user.as_ref().map(|user| text(user.username.as_bytes())),
            "groups": request.user.as_ref().and_then(|user| user.groups.as_ref()).map(|groups| {
                groups.iter().map(|group| text(group.as_bytes())).collect::<Vec<_>>()
            }),
            "verb": text(&request.verb),
            "resourceRequest": request.about_resource,
            "apiGroup": text(&request.api_group),
            "resource": text(&request.resource),
            "subresource": text(&request.subresource),
            "namespace": text(&request.namespace),
            "name": text(&request.name),
            "path": text(&request.path),
        },
        "level": config.level.as_str(),
        "omitStages": config.omit_stages.iter().map(Stage::as_str).collect::<Vec<_>>(),
        "omitManagedFields": config.omit_managed_fields,
        "rule": config.rule,
        "line": explanation.at.map(|at| at.line),
        "rules": policy.rules().len(),
        "passedOver": explanation.passed_over.iter().map(|passed| json!({
            "rule": passed.rule,
            "line": passed.at.line,
            "column": passed.at.column,
            "condition": passed.condition.as_str(),
            "message": passed.message,
        })).collect::<Vec<_>>(),
    })
}

fn as_text(out: &mut String, file: &str, policy: &Policy, request: &Request, explanation: &Explanation) {
    let config = &explanation.config;
    let mut row = |text: std::fmt::Arguments<'_>| {
        *out += &format!("{text}\n");
    };
    row(format_args!("{}", request.describe()));
    match (config.rule, explanation.at) {
        (Some(rule), Some(at)) => row(format_args!(
            "level {}, by rules[{rule}] at {file}:{}",
            config.level.as_str(),
            at.line
        )),
        _ => row(format_args!(
            "level None: none of {} rules matches, and no event is made",
            policy.rules().len()
        )),
    }
    if config.level > Level::None {
        let stages: Vec<&str> = Stage::ALL
            .into_iter()
            .filter(|stage| !config.omit_stages.contains(*stage))
            .map(Stage::as_str)
            .collect();
        match stages.as_slice() {
            [] => row(format_args!("no event is made: every stage is omitted")),
            stages => row(format_args!(
                "events at stages {}, where the request reaches them",
                stages.join(", ")
            )),
        }
        if config.omit_managed_fields && config.level > Level::Metadata {
            row(format_args!("managedFields are left out of bodies"));
        }
    }
    if !explanation.passed_over.is_empty() {
        row(format_args!("passed over:"));
    }
    for passed in &explanation.passed_over {
        row(format_args!(
            "  {file}:{}:{}: rules[{}].{}: {}",
            passed.at.line,
            passed.at.column,
            passed.rule,
            passed.condition.as_str(),
            passed.message
        ));
    }
}
