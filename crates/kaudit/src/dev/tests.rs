//! The demo in this process.

use std::time::{Duration, Instant};

use http::Request;
use http_body_util::{BodyExt as _, Empty};
use kaudit_dial::Upstream;
use kaudit_event::MicroTime;
use kaudit_query::Filter;
use kaudit_store::Scan;
use serde_json::Value;

use super::*;
use crate::storing::Freshness;

#[tokio::test(flavor = "multi_thread")]
async fn what_went_through_the_gateway_can_be_asked_for_within_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let options = Options {
        data_dir: data.clone(),
        port_base: 0,
        traffic: Traffic::Off,
        upstream_kubeconfig: None,
    };
    let dev = Dev::start(&options).await.unwrap();
    let storing = dev.serving.storing.clone().unwrap();
    let kubeconfig: Value = serde_json::from_slice(&std::fs::read(data.join("kubeconfig")).unwrap()).unwrap();
    let token = kubeconfig["users"][0]["user"]["token"].as_str().unwrap();
    let server: Server = format!("https://{}", dev.gateway).parse().unwrap();
    let trust = Trust::Authorities(kaudit_dial::Pem::File(data.join("ca.crt")));
    let gateway = Upstream::new(&Cluster::new(server, trust), false).unwrap();
    let request = Request::get("/api/v1/namespaces/default/configmaps")
        .header("authorization", format!("Bearer {token}"))
        .header("audit-id", "asked-for")
        .body(Empty::new().map_err(|never| match never {}).boxed_unsync())
        .unwrap();
    let response = gateway.send(request).await.unwrap();
    assert!(response.status().is_success(), "{}", response.status());
    response.into_body().collect().await.unwrap();

    // The gateway answers its client before the event is durable; from then on a view has it.
    let answered = Instant::now();
    let filter = Filter::parse(
        "auditID: asked-for and stage: ResponseComplete and source: gateway",
        MicroTime::from_unix(0, 0),
    )
    .unwrap_or_else(|wrong| panic!("{wrong:?}"));
    let mut grown = storing.grown();
    loop {
        let seen = *grown.borrow_and_update();
        let (snapshot, freshness) = storing.snapshot().await;
        assert_eq!(freshness, Freshness::Current);
        if snapshot.count(&Scan::new(filter.clone())).unwrap().0 == 1 {
            break;
        }
        let more = grown.wait_for(|to| *to > seen);
        tokio::time::timeout(Duration::from_secs(10), more)
            .await
            .unwrap()
            .unwrap();
    }
    let took = answered.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    drop(gateway);
    dev.stop(CancellationToken::new()).await;
    assert!(storing.store().manifest().sealed_to > 1, "the end seals");
}
