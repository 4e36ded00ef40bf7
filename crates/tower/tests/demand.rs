//! Sinks that want to see more than the policy gives, beside sinks that live by it.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use kaudit_backend::Enforced;
use kaudit_event::{Level, Stage, StageSet};
use kaudit_policy::Policy;
use kaudit_sink::recording::Recording;
use kaudit_sink::{Demand, Union};
use kaudit_tower::{Audit, AuditContext, ObjectMeta, PolicyHandle};
use serde_json::Value;
use tower::{ServiceBuilder, ServiceExt as _};

fn events(recording: &Recording) -> Vec<Value> {
    let lines = recording.lines();
    lines
        .iter()
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

/// One create of a ConfigMap; what a sink that lives by `policy` sees, and what one that sees all does.
async fn create(policy: PolicyHandle, demand: &Demand) -> (Vec<Value>, Vec<Value>) {
    let (by_policy, all) = (Recording::default(), Recording::default());
    let sink = Union::of(vec![
        Arc::new(Enforced::new(Arc::new(by_policy.clone()))),
        Arc::new(all.clone()),
    ]);
    let audit = Audit::builder(policy, sink).demand(demand.clone()).build();
    let service = ServiceBuilder::new().layer(audit.layer()).service_fn(
        |request: Request<kaudit_tower::RequestBody<Full<Bytes>>>| async move {
            let audit = request.extensions().get::<AuditContext>().unwrap();
            let body = Bytes::from_static(br#"{"metadata":{"name":"a","managedFields":[]}}"#);
            audit.request_object(body.clone(), &ObjectMeta::from_json(&body).unwrap());
            audit.response_object(body);
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"{}"))))
        },
    );
    let request = Request::post("/api/v1/namespaces/n/configmaps")
        .body(Full::new(Bytes::new()))
        .unwrap();
    let response = service.oneshot(request).await.unwrap();
    response.into_body().collect().await.unwrap();
    (events(&by_policy), events(&all))
}

fn policy(rule: &str) -> PolicyHandle {
    let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{rule}]\n");
    PolicyHandle::new(Policy::parse(text.as_bytes()).unwrap().0)
}

fn stages(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .map(|event| event["stage"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn without_a_demand_everybody_sees_what_the_policy_says() {
    let (by_policy, all) = create(policy("{level: Request}"), &Demand::default()).await;
    assert_eq!(by_policy, all);
    assert_eq!(stages(&all), ["RequestReceived", "ResponseComplete"]);
}

#[tokio::test]
async fn a_demand_adds_levels_and_stages_for_those_who_made_it() {
    let demand = Demand::default();
    demand.set(
        Level::RequestResponse,
        StageSet::EMPTY.with(Stage::ResponseComplete),
    );
    let rule = "{level: Metadata, omitStages: [ResponseComplete]}";
    let (by_policy, all) = create(policy(rule), &demand).await;
    assert_eq!(stages(&by_policy), ["RequestReceived"]);
    assert_eq!(by_policy[0]["level"], "Metadata");
    assert_eq!(stages(&all), ["RequestReceived", "ResponseComplete"]);
    assert_eq!(all[1]["level"], "RequestResponse");
    assert!(all[1].get("responseObject").is_some());
}

#[tokio::test]
async fn managed_fields_are_omitted_for_the_policy_only() {
    let demand = Demand::default();
    demand.set(Level::Metadata, StageSet::EMPTY.with(Stage::Panic));
    let rule = "{level: RequestResponse, omitManagedFields: true, omitStages: [RequestReceived]}";
    let (by_policy, all) = create(policy(rule), &demand).await;
    assert_eq!(
        by_policy[0]["responseObject"]["metadata"],
        serde_json::json!({"name": "a"})
    );
    assert!(
        all[0]["responseObject"]["metadata"]
            .get("managedFields")
            .is_some()
    );
}

#[tokio::test]
async fn where_the_policy_says_none_or_there_is_none_only_the_demand_records() {
    let demand = Demand::default();
    demand.set(Level::Metadata, StageSet::EMPTY.with(Stage::RequestReceived));
    for policy in [policy("{level: None}"), PolicyHandle::none()] {
        let (by_policy, all) = create(policy, &demand).await;
        assert!(by_policy.is_empty());
        assert_eq!(stages(&all), ["RequestReceived"]);
        assert_eq!(all[0]["level"], "Metadata");
    }
    let (_, all) = create(PolicyHandle::none(), &Demand::default()).await;
    assert!(all.is_empty());
}
