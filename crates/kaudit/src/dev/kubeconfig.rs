//! The kubeconfig that points kubectl at the gateway.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::authority::Pem;
use super::people::Person;
use crate::exit::Failure;

/// A kubeconfig with a context for each person, the first one current.
pub(crate) fn of_people(gateway: SocketAddr, authority: &str, people: &[Person]) -> String {
    let context = |person: &Person| format!("kaudit-{}", person.name);
    let users: Vec<Value> = people
        .iter()
        .map(|person| json!({"name": context(person), "user": {"token": person.token}}))
        .collect();
    let contexts: Vec<Value> = people
        .iter()
        .map(|person| {
            let name = context(person);
            json!({"name": name, "context": {"cluster": "kaudit", "user": name}})
        })
        .collect();
    document(&json!({
        "apiVersion": "v1", "kind": "Config",
        "current-context": people.first().map(context),
        "clusters": [{"name": "kaudit", "cluster": cluster(gateway, authority)}],
        "users": users,
        "contexts": contexts,
    }))
}

/// A webhook's kubeconfig: `server` is the whole URL that events are posted to.
pub(crate) fn of_webhook(server: &str, authority: &str, client: &Pem) -> String {
    let encode = |pem: &str| STANDARD.encode(pem);
    document(&json!({
        "apiVersion": "v1", "kind": "Config",
        "current-context": "kaudit",
        "clusters": [{"name": "kaudit", "cluster": {"server": server, "certificate-authority-data": encode(authority)}}],
        "users": [{"name": "apiserver", "user": {
            "client-certificate-data": encode(&client.certificate),
            "client-key-data": encode(&client.key),
        }}],
        "contexts": [{"name": "kaudit", "context": {"cluster": "kaudit", "user": "apiserver"}}],
    }))
}

/// `file` with its current context led to the gateway.
///
/// Credentials stay as they are, since clients' tokens pass through; a client certificate cannot, because
/// TLS ends at the gateway.
pub(crate) fn of_cluster(file: &Path, gateway: SocketAddr, authority: &str) -> Result<String, Failure> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read {}", file.display()))
        .map_err(Failure::usage)?;
    let mut config: Value = serde_saphyr::from_str(&text)
        .with_context(|| format!("{} is not a kubeconfig", file.display()))
        .map_err(Failure::usage)?;
    let current = config
        .get("current-context")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let broken = |what: &str| Failure::usage(anyhow!("{}: {what}", file.display()));
    let context = entry(&mut config, "contexts", &current)
        .and_then(|entry| entry.get("context"))
        .ok_or_else(|| broken("the current context does not exist"))?;
    let of = |key: &str| {
        context
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (cluster_name, user_name) = (of("cluster"), of("user"));
    let user = entry(&mut config, "users", &user_name).and_then(|entry| entry.get_mut("user"));
    if let Some(user) = user {
        if user.get("client-certificate").is_some() || user.get("client-certificate-data").is_some() {
            return Err(broken(&format!(
                "user `{user_name}` shows a client certificate, which ends at the gateway: use a context with a token"
            )));
        }
        let folder = folder_of(file).map_err(|error| Failure::usage(anyhow!(error)))?;
        if let Some(token_file) = user.get_mut("tokenFile")
            && let Some(path) = token_file.as_str().map(PathBuf::from)
        {
            *token_file = json!(folder.join(path));
        }
    }
    let entry = entry(&mut config, "clusters", &cluster_name)
        .ok_or_else(|| broken("the cluster of the current context does not exist"))?;
    *entry = json!({"name": cluster_name, "cluster": cluster(gateway, authority)});
    Ok(document(&config))
}

/// The folder that relative paths in `file` begin at.
fn folder_of(file: &Path) -> std::io::Result<PathBuf> {
    let mut folder = std::path::absolute(file)?;
    folder.pop();
    Ok(folder)
}

fn cluster(gateway: SocketAddr, authority: &str) -> Value {
    json!({"server": format!("https://{gateway}"), "certificate-authority-data": STANDARD.encode(authority)})
}

fn entry<'c>(config: &'c mut Value, list: &str, name: &str) -> Option<&'c mut Value> {
    config
        .get_mut(list)?
        .as_array_mut()?
        .iter_mut()
        .find(|entry| entry.get("name").and_then(Value::as_str) == Some(name))
}

/// JSON is YAML, and every kubectl reads it.
fn document(config: &Value) -> String {
    format!("{config:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_folder_stands_in_the_working_directory() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(folder_of(Path::new("config")).unwrap(), here);
        assert_eq!(folder_of(Path::new("a/config")).unwrap(), here.join("a"));
    }

    #[test]
    fn a_cluster_is_led_to_the_gateway_with_its_credentials() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        let text = "current-context: c\ncontexts: [{name: c, context: {cluster: a, user: u}}]\n\
            clusters: [{name: a, cluster: {server: 'https://192.0.2.1', insecure-skip-tls-verify: true}}]\n\
            users: [{name: u, user: {tokenFile: t}}]\n";
        std::fs::write(&file, text).unwrap();
        let ours = of_cluster(&file, "127.0.0.1:7443".parse().unwrap(), "PEM").unwrap();
        let ours: Value = serde_json::from_str(&ours).unwrap();
        assert_eq!(
            ours["clusters"][0]["cluster"],
            cluster("127.0.0.1:7443".parse().unwrap(), "PEM")
        );
        assert_eq!(
            ours["users"][0]["user"]["tokenFile"],
            json!(folder.path().join("t"))
        );

        std::fs::write(&file, text.replace("tokenFile: t", "client-certificate: t")).unwrap();
        let failure = of_cluster(&file, "127.0.0.1:7443".parse().unwrap(), "PEM").unwrap_err();
        assert!(failure.to_string().contains("use a context with a token"));
    }
}
