//! Those who sign senders' certificates change.

use std::sync::Arc;

use kaudit_dial::{Client, Identity, Pem};

use crate::world::{Authority, Central, Plan, item, list, post_to};

const PATH: &str = "/v1/audit/prod/cp-1";

/// Whether a sender whose certificate `authority` signed is believed.
async fn is_believed(central: &Central, authority: &Authority) -> bool {
    let pair = authority.issue("apiserver");
    let mut cluster = central.cluster(central.address, None, None);
    cluster.identity = Some(Identity {
        certificate: Pem::Inline(pair.certificate.into_bytes()),
        key: Pem::Inline(pair.key.into_bytes()),
    });
    let client = Client::new(&cluster).unwrap();
    let answer = post_to(&client, PATH, &list(&[item(0)])).await;
    answer.is_ok_and(|answer| answer.status == 200)
}

#[tokio::test]
async fn an_authority_that_replaces_another_is_in_force_for_new_connections() {
    let central = Plan::new().start().await;
    let (old, new) = (Arc::clone(&central.authority), Authority::new());
    assert!(is_believed(&central, &old).await && !is_believed(&central, &new).await);
    assert!(!central.tls.reload().unwrap(), "nothing changed");
    std::fs::write(&central.senders, "half a fi").unwrap();
    assert!(central.tls.reload().is_err());
    assert!(is_believed(&central, &old).await, "half a file is none");
    std::fs::write(&central.senders, new.0.pem()).unwrap();
    assert!(central.tls.reload().unwrap());
    assert!(!is_believed(&central, &old).await && is_believed(&central, &new).await);
    std::fs::remove_file(&central.senders).unwrap();
    assert!(central.tls.reload().is_err());
    assert!(is_believed(&central, &new).await, "what was in force stays");
    central.stop().await;
}
