//! Who asks is recorded as well: the API behind the same middleware as every API server, its events in the same journal.

use std::sync::Arc;

use http::request::Parts;
use kaudit_collect::{Intake, JournalSink, JournalSinkOptions, Name, Origin, Way};
use kaudit_event::UserInfo;
use kaudit_policy::{LongRunning, Policy, RequestInfoResolver};
use kaudit_sink::{Counters, Sink};
use kaudit_tower::{Audit, AuditContext, Authentication, Authenticator, BoxFuture};

use super::token::Token;
use crate::exit::Failure;

/// What says nothing about events is not recorded, nor what a program asks for over and over to show how things are.
const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- level: None
  verbs: [get]
  nonResourceURLs: [/api/v1/sources, /api/v1/sinks, /api/v1/sinks/*, /api/v1/openapi.json]
- level: None
  nonResourceURLs: [/api/v1/query/check, /api/v1/import]
- level: Metadata
  omitStages: [RequestReceived]
";

/// The instance that the events are of.
const INSTANCE: &str = "kaudit";

/// Records requests to the API.
#[derive(Debug)]
pub(crate) struct Own {
    pub(super) audit: Audit,
    sink: Arc<dyn Sink>,
}

impl Own {
    /// Into the journal of `intake`, as events about `cluster`.
    pub(crate) fn new(intake: Intake, cluster: Name, token: Arc<Token>) -> Result<Self, Failure> {
        let origin = Origin {
            cluster,
            instance: INSTANCE.parse().map_err(Failure::usage)?,
            transport: Way::Own,
            path: String::new(),
        };
        let counters = Arc::new(Counters::default());
        let sink = JournalSink::new(intake, &origin, counters, JournalSinkOptions::default())
            .map_err(Failure::unreachable)?;
        let (policy, _) = Policy::parse(POLICY.as_bytes()).map_err(Failure::usage)?;
        // Its addresses look like those of Kubernetes' core group, and are not.
        let resolver = RequestInfoResolver {
            api_prefixes: Vec::new(),
            groupless_api_prefixes: Vec::new(),
        };
        let sink: Arc<dyn Sink> = Arc::new(sink);
        let audit = Audit::builder(policy, Arc::clone(&sink))
            .authenticator(Arc::new(Holder(token)))
            .resolver(resolver)
            .long_running(LongRunning::default())
            .build();
        Ok(Self { audit, sink })
    }

    /// What its events go to.
    pub(crate) fn sink(&self) -> Arc<dyn Sink> {
        Arc::clone(&self.sink)
    }
}

/// Whoever shows the token.
#[derive(Debug)]
struct Holder(Arc<Token>);

impl Authenticator for Holder {
    fn authenticate<'a>(&'a self, parts: &'a Parts, _: &'a AuditContext) -> BoxFuture<'a, Authentication> {
        let authentication = if self.0.is_shown(&parts.headers) {
            Authentication::User(Arc::new(UserInfo {
                username: "kaudit:token".to_owned().into(),
                groups: Some(vec!["system:authenticated".into()]),
                ..UserInfo::default()
            }))
        } else {
            Authentication::Failed
        };
        Box::pin(std::future::ready(authentication))
    }
}
