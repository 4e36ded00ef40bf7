//! The demo: a shop with its people, a robot, and somebody who tries doors.

mod client;

use std::net::SocketAddr;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::client::Client;
use super::people::Person;
use crate::exit::Failure;

/// Between two requests: the first round is over in a few seconds, later ones take their time.
const FIRST_PACE: Duration = Duration::from_millis(25);
const PACE: Duration = Duration::from_millis(400);

const KUBECTL: &str = "kubectl/v1.36.3 (linux/amd64) kubernetes/0000000";

/// The demo's traffic, through the gateway like anybody's.
#[derive(Debug)]
pub(crate) struct Demo {
    client: Client,
    people: Vec<Person>,
}

/// The demo was told to stop.
struct Stopped;

type Scene = Result<(), Stopped>;

impl Demo {
    pub(crate) fn new(gateway: SocketAddr, authority: &str, people: Vec<Person>) -> Result<Self, Failure> {
        Ok(Self {
            client: Client::new(gateway, authority)?,
            people,
        })
    }

    /// Plays round after round until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        // The end of a round's play is the end of the demo: it has nothing to report.
        let _stopped: Scene = self.play(&stop).await;
        self.client.close().await;
    }

    async fn play(&self, stop: &CancellationToken) -> Scene {
        let mut stage = Stage {
            client: &self.client,
            stop,
            pace: FIRST_PACE,
        };
        let admin = stage.actor(self.token("admin"), KUBECTL);
        open_shop(&admin).await?;
        let robot = admin.token_of_robot().await?;
        loop {
            let admin = stage.actor(self.token("admin"), KUBECTL);
            let developer = stage.actor(self.token("developer"), KUBECTL);
            let viewer = stage.actor(self.token("viewer"), "Mozilla/5.0 (dashboard)");
            let intern = stage.actor(self.token("intern"), KUBECTL);
            let robot = stage.actor(robot.as_deref(), "deployer/1.4 (linux/amd64)");
            let nobody = stage.actor(None, "curl/8.9.1");
            release(&robot).await?;
            work(&developer).await?;
            look(&viewer).await?;
            nobody.call(Method::GET, "/version", None).await?;
            snoop(&intern).await?;
            doors(&stage).await?;
            change_roles(&admin).await?;
            clean_up(&developer).await?;
            stage.pace = PACE;
        }
    }

    fn token(&self, name: &str) -> Option<&str> {
        self.people
            .iter()
            .find(|person| person.name == name)
            .map(|person| person.token.as_str())
    }
}

/// Where actors act.
struct Stage<'d> {
    client: &'d Client,
    stop: &'d CancellationToken,
    pace: Duration,
}

impl<'d> Stage<'d> {
    const fn actor(&self, token: Option<&'d str>, agent: &'static str) -> Actor<'d> {
        Actor {
            client: self.client,
            stop: self.stop,
            pace: self.pace,
            token,
            agent,
        }
    }
}

/// Somebody with a token and a program.
struct Actor<'d> {
    client: &'d Client,
    stop: &'d CancellationToken,
    pace: Duration,
    token: Option<&'d str>,
    agent: &'static str,
}

impl Actor<'_> {
    /// One request, then a pause. What it is answered is part of the play.
    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, Stopped> {
        let content_type = if method == Method::PATCH {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        let answer = tokio::select! {
            () = self.stop.cancelled() => return Err(Stopped),
            answer = self.client.call(self.token, self.agent, method, path, content_type, body) => answer,
        };
        self.pause().await?;
        Ok(answer)
    }

    async fn pause(&self) -> Scene {
        tokio::select! {
            () = self.stop.cancelled() => Err(Stopped),
            () = tokio::time::sleep(self.pace) => Ok(()),
        }
    }

    async fn create(&self, path: &str, object: Value) -> Scene {
        self.call(Method::POST, path, Some(object)).await.map(drop)
    }

    async fn get(&self, path: &str) -> Result<Value, Stopped> {
        self.call(Method::GET, path, None).await
    }

    async fn delete(&self, path: &str) -> Scene {
        self.call(Method::DELETE, path, None).await.map(drop)
    }

    /// A token for the service account that deploys.
    async fn token_of_robot(&self) -> Result<Option<String>, Stopped> {
        let path = "/api/v1/namespaces/shop/serviceaccounts/deployer/token";
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 86_400},
        });
        let answer = self.call(Method::POST, path, Some(request)).await?;
        Ok(answer
            .pointer("/status/token")
            .and_then(Value::as_str)
            .map(str::to_owned))
    }
}

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

fn binding(name: &str, role: &str, subject: Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [subject],
    })
}

fn group(name: &str) -> Value {
    json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": name})
}

/// Namespaces, roles and the first objects.
async fn open_shop(admin: &Actor<'_>) -> Scene {
    for (name, level) in [("shop", "baseline"), ("payments", "restricted")] {
        let labels = json!({"pod-security.kubernetes.io/enforce": level});
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels},
        });
        admin.create("/api/v1/namespaces", namespace).await?;
    }
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "deployer"}});
    admin
        .create("/api/v1/namespaces/shop/serviceaccounts", account)
        .await?;
    let robot = json!({"kind": "ServiceAccount", "name": "deployer", "namespace": "shop"});
    let bindings = format!("{RBAC}/namespaces/shop/rolebindings");
    admin
        .create(&bindings, binding("deployers", "edit", robot))
        .await?;
    admin
        .create(&bindings, binding("developers", "edit", group("developers")))
        .await?;
    let mut viewers = binding("viewers", "view", group("viewers"));
    if let Some(kind) = viewers.get_mut("kind") {
        *kind = json!("ClusterRoleBinding");
    }
    admin
        .create(&format!("{RBAC}/clusterrolebindings"), viewers)
        .await?;
    for (namespace, name) in [("shop", "database"), ("payments", "card-processor")] {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
            "stringData": {"password": "correct horse battery staple"},
        });
        admin
            .create(&format!("/api/v1/namespaces/{namespace}/secrets"), secret)
            .await?;
    }
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "registry.example.com/shop/web:1.0"}]},
            },
        },
    });
    admin
        .create("/apis/apps/v1/namespaces/shop/deployments", deployment)
        .await
}

/// The robot deploys what developers built.
async fn release(robot: &Actor<'_>) -> Scene {
    let path = "/apis/apps/v1/namespaces/shop/deployments/web";
    let current = robot.get(path).await?;
    let generation = current
        .pointer("/metadata/generation")
        .and_then(Value::as_u64)
        .unwrap_or(1);
    let image = format!("registry.example.com/shop/web:1.{generation}");
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "web", "image": image}]}}}});
    robot.call(Method::PATCH, path, Some(patch)).await?;
    robot
        .get("/api/v1/namespaces/shop/pods?watch=1&timeoutSeconds=1")
        .await
        .map(drop)
}

/// A developer's morning, with a look into a container.
async fn work(developer: &Actor<'_>) -> Scene {
    let pods = developer.get("/api/v1/namespaces/shop/pods?limit=500").await?;
    let settings = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"currency": "EUR"},
    });
    developer
        .create("/api/v1/namespaces/shop/configmaps", settings)
        .await?;
    let path = "/api/v1/namespaces/shop/configmaps/settings";
    let patch = json!({"data": {"currency": "CHF"}});
    developer.call(Method::PATCH, path, Some(patch)).await?;
    developer.get("/api/v1/namespaces/shop/secrets/database").await?;
    let Some(pod) = pods.pointer("/items/0/metadata/name").and_then(Value::as_str) else {
        return Ok(());
    };
    let pod = format!("/api/v1/namespaces/shop/pods/{pod}");
    developer.get(&format!("{pod}/log?tailLines=5")).await?;
    let session = format!("{pod}/exec?command=env&container=web&stdout=true&stderr=true");
    tokio::select! {
        () = developer.stop.cancelled() => return Err(Stopped),
        () = developer.client.exec(developer.token, developer.agent, &session) => {}
    }
    let scale = json!({"spec": {"replicas": 3}});
    let path = "/apis/apps/v1/namespaces/shop/deployments/web/scale";
    developer.call(Method::PATCH, path, Some(scale)).await.map(drop)
}

/// Somebody looks, and is refused where it is none of their business.
async fn look(viewer: &Actor<'_>) -> Scene {
    viewer.get("/api/v1/pods?limit=500").await?;
    viewer.get("/apis/apps/v1/deployments?limit=500").await?;
    viewer
        .get("/api/v1/namespaces/payments/secrets/card-processor")
        .await
        .map(drop)
}

/// An intern finds out what is not allowed.
async fn snoop(intern: &Actor<'_>) -> Scene {
    intern.get("/api/v1/namespaces/kube-system/secrets").await?;
    intern.get("/api/v1/namespaces/payments/secrets").await?;
    intern.delete("/api/v1/namespaces/shop/pods/web").await
}

/// Somebody without a good token tries one after another.
async fn doors(stage: &Stage<'_>) -> Scene {
    for token in ["admin", "changeme", "eyJhbGciOiJub25lIn0.e30.", "letmein", "root"] {
        let burglar = Actor {
            pace: FIRST_PACE,
            ..stage.actor(Some(token), "python-requests/2.32")
        };
        burglar.get("/api/v1/secrets").await?;
    }
    Ok(())
}

/// Somebody is given more than they should have, tries a privileged pod, and loses it again.
async fn change_roles(admin: &Actor<'_>) -> Scene {
    let bindings = format!("{RBAC}/clusterrolebindings");
    let mut too_much = binding("interns-cluster-admin", "cluster-admin", group("interns"));
    if let Some(kind) = too_much.get_mut("kind") {
        *kind = json!("ClusterRoleBinding");
    }
    admin.create(&bindings, too_much).await?;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "toolbox"},
        "spec": {
            "hostPID": true,
            "containers": [{"name": "sh", "image": "busybox", "securityContext": {"privileged": true}}],
        },
    });
    admin.create("/api/v1/namespaces/payments/pods", pod).await?;
    admin.delete(&format!("{bindings}/interns-cluster-admin")).await
}

/// The end of the day.
async fn clean_up(developer: &Actor<'_>) -> Scene {
    developer
        .delete("/api/v1/namespaces/shop/configmaps/settings")
        .await?;
    let scale = json!({"spec": {"replicas": 2}});
    let path = "/apis/apps/v1/namespaces/shop/deployments/web/scale";
    developer.call(Method::PATCH, path, Some(scale)).await.map(drop)
}
