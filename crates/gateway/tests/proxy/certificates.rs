//! Users whom a certificate or a front proxy names: who they are, and as whom they go on.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::service::Service;
use kaudit_dial::{Cluster, Credential, Identity, Pem, Trust, Upstream, UpstreamOptions};
use kaudit_gateway::{AnonymousRequests, Authorities, Gateway, OwnCredential, Tokens};
use kaudit_listen::{ClientCertificates, ListenConfig, Listener, ServerTls};
use kaudit_policy::Policy;
use kaudit_sink::Sink;
use kaudit_tower::{ClientAuthority, FrontProxy, FrontProxyHeaders};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::fixture::{self, Events, Got, Identities, SSAR, SSR, expected, json_response, stages, status};

const SAR: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
const TOKEN_REVIEW: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

struct Signer {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Signer {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    fn sign(&self, user: &str, group: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, user);
        params.distinguished_name.push(DnType::OrganizationName, group);
        (
            params.signed_by(&key, &self.issuer).unwrap().pem(),
            key.serialize_pem(),
        )
    }

    fn authority(&self) -> ClientAuthority {
        ClientAuthority::from_pem(self.pem.as_bytes()).unwrap()
    }
}

/// A cluster that knows the gateway by the token `own`.
#[derive(Clone)]
struct Cloud {
    got: Arc<Mutex<Vec<Got>>>,
    /// What the cluster says when the gateway impersonates somebody.
    refuses: Option<(u16, &'static str)>,
}

impl Service<Request<Incoming>> for Cloud {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (got, refuses) = (Arc::clone(&self.got), self.refuses);
        Box::pin(async move {
            let answers = move |got: &Got| answer(got, refuses);
            Ok(fixture::respond(request, Identities::Known, &got, &answers).await)
        })
    }
}

fn answer(got: &Got, refuses: Option<(u16, &'static str)>) -> Response<Full<Bytes>> {
    let is_own = got
        .headers
        .get("authorization")
        .is_some_and(|value| value == "Bearer own");
    let body: Value = serde_json::from_slice(&got.body).unwrap_or_default();
    match (got.target.as_str(), refuses) {
        (TOKEN_REVIEW, _) if is_own => match body["spec"]["token"].as_str() {
            Some("good") => json_response(
                201,
                &json!({"status": {"authenticated": true, "user": {"username": "alice", "groups": ["devs"]}}}),
            ),
            _ => json_response(201, &json!({"status": {"authenticated": false}})),
        },
        (SAR, _) if is_own => {
            let asked = &body["spec"]["resourceAttributes"];
            let verb = asked["verb"].as_str().unwrap();
            let is_allowed = match body["spec"]["user"].as_str().unwrap() {
                "bob" => verb == "impersonate" && asked["name"] == "carol" || verb == "list",
                "dora" => {
                    verb == "impersonate-on:user-info:list" && asked["resource"] == "pods"
                        || verb == "impersonate:user-info" && asked["name"] == "carol"
                }
                _ => verb == "list",
            };
            json_response(
                201,
                &json!({"status": {"allowed": is_allowed, "reason": "because"}}),
            )
        }
        (_, Some((code, message))) => status(code, "Refused", message),
        _ => json_response(200, &json!({"kind": "PodList", "items": []})),
    }
}

struct World {
    addr: SocketAddr,
    gateway: Gateway,
    events: Arc<Events>,
    got: Arc<Mutex<Vec<Got>>>,
    server: Signer,
    clients: Signer,
    proxy: Signer,
    tasks: JoinSet<()>,
}

#[derive(Default)]
struct Settings {
    refuses: Option<(u16, &'static str)>,
    reviews_tokens: bool,
    anonymous: AnonymousRequests,
}

impl World {
    async fn start(settings: Settings) -> Self {
        let [server, clients, proxy] = ["server", "clients", "proxy"].map(Signer::new);
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let tls = |clients: ClientCertificates| {
            let (certificate, key) = server.sign("server", "servers");
            ServerTls::from_pem(certificate.as_bytes(), key.as_bytes(), &clients).unwrap()
        };
        let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let listen = |tls| Listener::bind(ListenConfig::https(loopback, tls));

        let cloud = Cloud {
            got: Arc::default(),
            refuses: settings.refuses,
        };
        let got = Arc::clone(&cloud.got);
        let upstream = listen(tls(ClientCertificates::NotAsked)).await.unwrap();
        let trust = Trust::Authorities(Pem::Inline(server.pem.clone().into_bytes()));
        let mut cluster = Cluster::new(
            format!("https://{}", upstream.local_addr()).parse().unwrap(),
            trust,
        );
        cluster.credential = Credential::Token("own".to_owned());
        let stopped = stop.clone();
        tasks.spawn(async move {
            upstream
                .serve(move |_| cloud.clone(), stopped, Duration::from_secs(1))
                .await;
        });

        let (policy, _) =
            Policy::parse(b"apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n")
                .unwrap();
        let events = Arc::new(Events::default());
        let sink: Arc<dyn Sink> = Arc::clone(&events) as Arc<dyn Sink>;
        let own = OwnCredential::new(&cluster, &UpstreamOptions::default()).unwrap();
        let authorities = Authorities {
            clients: Some(clients.authority()),
            front_proxy: Some(FrontProxy {
                authority: proxy.authority(),
                names: vec!["front".to_owned()],
                headers: FrontProxyHeaders::default(),
            }),
        };
        let mut gateway = Gateway::builder(Upstream::new(&cluster, false).unwrap(), policy, sink)
            .certificates(authorities, own.clone())
            .anonymous(settings.anonymous);
        if settings.reviews_tokens {
            gateway = gateway.tokens(Tokens::Reviewed(own));
        }
        let gateway = gateway.build().unwrap();
        let listener = listen(tls(ClientCertificates::Presented)).await.unwrap();
        let (addr, serving) = (listener.local_addr(), gateway.clone());
        tasks.spawn(async move { serving.serve(listener, stop, Duration::from_secs(5)).await });
        Self {
            addr,
            gateway,
            events,
            got,
            server,
            clients,
            proxy,
            tasks,
        }
    }

    async fn get(
        &self,
        identity: Option<(String, String)>,
        headers: &[(&str, &str)],
    ) -> (StatusCode, String) {
        self.ask("/api/v1/pods", identity, headers).await
    }

    async fn ask(
        &self,
        path: &str,
        identity: Option<(String, String)>,
        headers: &[(&str, &str)],
    ) -> (StatusCode, String) {
        let trust = Trust::Authorities(Pem::Inline(self.server.pem.clone().into_bytes()));
        let mut cluster = Cluster::new(format!("https://{}", self.addr).parse().unwrap(), trust);
        cluster.identity = identity.map(|(certificate, key)| Identity {
            certificate: Pem::Inline(certificate.into_bytes()),
            key: Pem::Inline(key.into_bytes()),
        });
        let client = Upstream::new(&cluster, true).unwrap();
        let body = Empty::new().map_err(|never: Infallible| match never {});
        let mut request = Request::builder().method(Method::GET).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = client
            .send(request.body(body.boxed_unsync()).unwrap())
            .await
            .unwrap();
        let code = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8_lossy(&body).into_owned())
    }

    /// The requests to a target, or all that are no reviews.
    fn got(&self, target: Option<&str>) -> Vec<Got> {
        let got = self.got.lock().unwrap();
        let is_review = |got: &Got| [SSR, SSAR, SAR, TOKEN_REVIEW].contains(&got.target.as_str());
        got.iter()
            .filter(|got| target.map_or(!is_review(got), |target| got.target == target))
            .cloned()
            .collect()
    }

    async fn events_when(&self, count: usize) -> Vec<Value> {
        self.events.when(count).await
    }

    async fn finish(mut self) {
        let metrics = self.gateway.audit_metrics();
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
        assert_eq!(metrics.received, metrics.finals, "G-2");
    }
}

/// The headers of a request that say who asks.
fn identity(got: &Got) -> Vec<String> {
    let mut lines: Vec<String> = got
        .headers
        .iter()
        .filter(|(name, _)| {
            let name = name.as_str();
            name == "authorization" || name.starts_with("impersonate") || name.contains("remote")
        })
        .filter(|(name, _)| !name.as_str().contains("credential-id"))
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    lines.sort();
    lines
}

const AS_BOB: [&str; 4] = [
    "authorization: Bearer own",
    "impersonate-group: ops",
    "impersonate-group: system:authenticated",
    "impersonate-user: bob",
];

#[tokio::test]
async fn a_certificates_user_is_recorded_and_impersonated() {
    let world = World::start(Settings::default()).await;
    let (code, _) = world.get(Some(world.clients.sign("bob", "ops")), &[]).await;
    assert_eq!(code, 200);
    let events = world.events_when(2).await;
    assert_eq!(
        stages(&events),
        expected(&[("RequestReceived", 0), ("ResponseComplete", 200)])
    );
    let user = &events[1]["user"];
    assert_eq!(
        (&user["username"], &user["groups"]),
        (&json!("bob"), &json!(["ops", "system:authenticated"]))
    );
    let id = &user["extra"]["authentication.kubernetes.io/credential-id"][0];
    assert!(id.as_str().unwrap().starts_with("X509SHA256="), "{id}");
    assert_eq!(events[1]["impersonatedUser"], Value::Null);
    assert_eq!(events[1]["annotations"]["authorization.k8s.io/reason"], "rule 7");
    let forwarded = world.got(None);
    assert_eq!(identity(&forwarded[0]), AS_BOB);
    let id_header = "impersonate-extra-authentication.kubernetes.io%2fcredential-id";
    assert!(
        forwarded[0].headers.contains_key(id_header),
        "{:?}",
        forwarded[0].headers
    );
    // What was decided is asked for the user as well.
    assert_eq!(identity(&world.got(Some(SSAR))[0]), AS_BOB);
    assert!(world.got(Some(SSR)).is_empty());
    world.finish().await;
}

#[tokio::test]
async fn t09_a_certificate_comes_before_a_token_which_is_not_sent_on() {
    let world = World::start(Settings::default()).await;
    world
        .get(
            Some(world.clients.sign("bob", "ops")),
            &[("authorization", "Bearer good")],
        )
        .await;
    assert_eq!(world.events_when(2).await[1]["user"]["username"], "bob");
    assert_eq!(identity(&world.got(None)[0]), AS_BOB);
    world.finish().await;
}

#[tokio::test]
async fn t04_only_the_front_proxy_says_who_asks() {
    let world = World::start(Settings::default()).await;
    let headers = [("x-remote-user", "bob"), ("x-remote-group", "ops")];
    let foreign = Signer::new("foreign");
    // The proxy; its authority under another name; somebody else's; a user's; none.
    let cases = [
        (Some(world.proxy.sign("front", "x")), 200, "bob"),
        (Some(world.proxy.sign("other", "x")), 401, ""),
        (Some(foreign.sign("front", "x")), 401, ""),
        (Some(world.clients.sign("front", "x")), 200, "front"),
        (None, 200, "system:anonymous"),
    ];
    let mut users = Vec::new();
    for (identity, code, user) in cases {
        let (got, body) = world.get(identity, &headers).await;
        assert_eq!(got, code, "{user}: {body}");
        if code == 200 {
            users.push(user);
        }
    }
    let complete: Vec<Value> = world.events_when(8).await;
    let named: Vec<&str> = complete
        .iter()
        .filter(|event| event["stage"] == "ResponseComplete")
        .map(|event| event["user"]["username"].as_str().unwrap())
        .collect();
    assert_eq!(named, users);
    let forwarded = world.got(None);
    assert_eq!(identity(&forwarded[0]), AS_BOB);
    assert!(
        forwarded
            .iter()
            .all(|got| identity(got).iter().all(|line| !line.contains("remote")))
    );
    world.finish().await;
}

#[tokio::test]
async fn a_certificate_of_nobody_does_not_spoil_a_good_token() {
    let world = World::start(Settings::default()).await;
    let foreign = Signer::new("foreign").sign("root", "system:masters");
    let (code, _) = world
        .get(Some(foreign), &[("authorization", "Bearer good")])
        .await;
    assert_eq!(code, 200);
    assert_eq!(world.events_when(2).await[1]["user"]["username"], "alice");
    assert_eq!(identity(&world.got(None)[0]), ["authorization: Bearer good"]);
    world.finish().await;
}

#[tokio::test]
async fn t25_a_wrong_certificate_is_one_event_that_says_what_was_tried() {
    let world = World::start(Settings::default()).await;
    let foreign = Signer::new("foreign").sign("root", "system:masters");
    let (code, _) = world.get(Some(foreign), &[]).await;
    assert_eq!(code, 401);
    assert_eq!(
        stages(&world.events_when(1).await),
        expected(&[("ResponseStarted", 401)])
    );
    assert!(world.got(None).is_empty());
    world.finish().await;
}

#[tokio::test]
async fn t05_a_users_own_impersonation_is_decided_and_then_replaces_it() {
    let world = World::start(Settings::default()).await;
    let bob = || Some(world.clients.sign("bob", "ops"));
    let (code, _) = world.get(bob(), &[("impersonate-user", "carol")]).await;
    assert_eq!(code, 200);
    let reviews: Vec<Value> = world
        .got(Some(SAR))
        .iter()
        .map(|got| serde_json::from_slice(&got.body).unwrap())
        .collect();
    assert!(reviews.iter().all(|review| review["spec"]["user"] == "bob"));
    let verbs: Vec<_> = reviews
        .iter()
        .map(|review| &review["spec"]["resourceAttributes"]["verb"])
        .collect();
    assert_eq!(verbs, ["impersonate-on:user-info:list", "impersonate"]);
    assert_eq!(
        identity(&world.got(None)[0]),
        [
            "authorization: Bearer own",
            "impersonate-group: system:authenticated",
            "impersonate-user: carol"
        ]
    );
    let event = &world.events_when(2).await[1];
    assert_eq!(
        (&event["user"]["username"], &event["impersonatedUser"]["username"]),
        (&json!("bob"), &json!("carol"))
    );
    assert_eq!(event["authenticationMetadata"], Value::Null);
    world.finish().await;
}

#[tokio::test]
async fn t05_a_user_with_the_constrained_verbs_alone_is_let_too_and_the_event_says_by_which() {
    let world = World::start(Settings::default()).await;
    let dora = Some(world.clients.sign("dora", "ops"));
    let (code, _) = world.get(dora, &[("impersonate-user", "carol")]).await;
    assert_eq!(code, 200);
    assert_eq!(
        identity(&world.got(None)[0]),
        [
            "authorization: Bearer own",
            "impersonate-group: system:authenticated",
            "impersonate-user: carol"
        ]
    );
    let event = &world.events_when(2).await[1];
    assert_eq!(
        (&event["user"]["username"], &event["impersonatedUser"]["username"]),
        (&json!("dora"), &json!("carol"))
    );
    assert_eq!(
        event["authenticationMetadata"]["impersonationConstraint"],
        "impersonate:user-info"
    );
    world.finish().await;
}

#[tokio::test]
async fn t26_a_refused_impersonation_is_a_pair_of_events_and_goes_nowhere() {
    let world = World::start(Settings::default()).await;
    for headers in [
        &[("impersonate-user", "root")][..],
        &[
            ("impersonate-user", "carol"),
            ("impersonate-group", "system:masters"),
        ],
    ] {
        let (code, body) = world.get(Some(world.clients.sign("bob", "ops")), headers).await;
        assert_eq!(code, 403);
        assert!(
            body.contains("cannot impersonate-on:user-info:list resource"),
            "{body}"
        );
    }
    let events = world.events_when(4).await;
    assert_eq!(
        stages(&events[..2]),
        expected(&[("RequestReceived", 0), ("ResponseComplete", 403)])
    );
    assert_eq!(events[1]["impersonatedUser"], Value::Null);
    assert_eq!(
        events[1]["annotations"]["authorization.k8s.io/decision"],
        Value::Null
    );
    assert!(world.got(None).is_empty());
    world.finish().await;
}

#[tokio::test]
async fn t06_parts_of_an_identity_without_a_user_are_answered_400_and_audited() {
    let world = World::start(Settings::default()).await;
    for header in ["impersonate-group", "impersonate-uid", "impersonate-roles"] {
        let (code, body) = world
            .get(Some(world.clients.sign("bob", "ops")), &[(header, "x")])
            .await;
        assert_eq!(code, 400, "{header}: {body}");
    }
    assert_eq!(world.events_when(6).await.len(), 6);
    assert!(world.got(None).is_empty());
    world.finish().await;
}

#[tokio::test]
async fn t07_what_the_cluster_refuses_of_the_gateway_is_not_the_users_refusal() {
    for refuses in [
        (401, "Unauthorized"),
        (
            403,
            "users \"bob\" is forbidden: User \"gw\" cannot impersonate resource \"users\" in API group \"\"",
        ),
    ] {
        let world = World::start(Settings {
            refuses: Some(refuses),
            ..Settings::default()
        })
        .await;
        let (code, body) = world.get(Some(world.clients.sign("bob", "ops")), &[]).await;
        assert_eq!(code, 500, "{body}");
        let event = &world.events_when(2).await[1];
        assert!(
            event["annotations"]["kaudit.dev/refused"]
                .as_str()
                .unwrap()
                .starts_with("gateway: "),
            "{event}"
        );
        assert_eq!(event["annotations"]["authorization.k8s.io/decision"], Value::Null);
        assert_eq!(world.gateway.metrics().own_refused, 1);
        world.finish().await;
    }
}

#[tokio::test]
async fn t07_no_name_in_a_request_makes_its_refusal_the_gateways() {
    let world = World::start(Settings {
        refuses: Some((
            403,
            "pods \"x cannot impersonate resource \" is forbidden: User \"bob\" cannot get resource \"pods\" in API \
             group \"\" in the namespace \"a\": no",
        )),
        ..Settings::default()
    })
    .await;
    let path = "/api/v1/namespaces/a/pods/x%20cannot%20impersonate%20resource%20";
    let (code, body) = world.ask(path, Some(world.clients.sign("bob", "ops")), &[]).await;
    assert_eq!(code, 403, "{body}");
    let annotations = &world.events_when(2).await[1]["annotations"];
    assert_eq!(annotations["authorization.k8s.io/decision"], "forbid");
    assert_eq!(annotations["authorization.k8s.io/reason"], "no");
    world.finish().await;
}

#[tokio::test]
async fn t07_a_server_behind_the_cluster_may_know_nobody() {
    let world = World::start(Settings {
        refuses: Some((401, "who are you")),
        ..Settings::default()
    })
    .await;
    let path = "/api/v1/namespaces/a/services/web/proxy/login";
    let (code, body) = world.ask(path, Some(world.clients.sign("bob", "ops")), &[]).await;
    assert_eq!(code, 401);
    assert!(body.contains("who are you"), "{body}");
    assert_eq!(world.gateway.metrics().own_refused, 0);
    world.finish().await;
}

#[tokio::test]
async fn a_name_that_the_cluster_would_change_goes_nowhere() {
    let world = World::start(Settings::default()).await;
    let (code, body) = world.get(Some(world.clients.sign("root ", "ops")), &[]).await;
    assert_eq!(code, 403, "{body}");
    assert!(
        body.contains("the name of the user cannot stand in a header"),
        "{body}"
    );
    assert!(world.got(None).is_empty());
    world.finish().await;
}

#[tokio::test]
async fn reviewed_tokens_are_asked_about_and_sent_on() {
    let world = World::start(Settings {
        reviews_tokens: true,
        ..Settings::default()
    })
    .await;
    let (code, _) = world.get(None, &[("authorization", "Bearer good")]).await;
    assert_eq!(code, 200);
    assert_eq!(world.get(None, &[("authorization", "Bearer bad")]).await.0, 401);
    assert_eq!(world.got(Some(TOKEN_REVIEW)).len(), 2);
    let events = world.events_when(3).await;
    assert_eq!(
        events[1]["user"],
        json!({"username": "alice", "groups": ["devs"]})
    );
    assert_eq!(events[1]["annotations"]["authorization.k8s.io/reason"], "because");
    let review: Value = serde_json::from_slice(&world.got(Some(SAR))[0].body).unwrap();
    assert_eq!(
        (&review["kind"], &review["spec"]["user"]),
        (&json!("SubjectAccessReview"), &json!("alice"))
    );
    assert_eq!(identity(&world.got(None)[0]), ["authorization: Bearer good"]);
    assert!(world.got(Some(SSAR)).is_empty());
    world.finish().await;
}

#[tokio::test]
async fn anonymous_requests_may_be_refused() {
    let world = World::start(Settings {
        anonymous: AnonymousRequests::Refused,
        ..Settings::default()
    })
    .await;
    assert_eq!(world.get(None, &[]).await.0, 401);
    assert_eq!(world.events_when(1).await[0]["stage"], "ResponseStarted");
    assert!(world.got(None).is_empty() && world.got(Some(SSR)).is_empty());
    world.finish().await;
}
