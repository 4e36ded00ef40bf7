//! `kaudit kubeconfig`: somebody's kubeconfig with the gateway in the cluster's place.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use kaudit_dial::Server;
use serde_json::{Map, Value, json};

use super::print;
use super::setup::one_file;
use crate::exit::{Exit, Failure};
use crate::setup::Privacy;

/// A larger file is refused unread.
const MAX_BYTES: u64 = 4 << 20;

/// Flags of `kubeconfig`.
#[derive(Debug, Args)]
pub(super) struct Flags {
    /// The gateway as clients reach it: https://, its name, its port
    #[arg(long, value_name = "URL")]
    gateway: String,
    /// Authority of the gateway's certificate, PEM; without it a public authority has to have signed it
    #[arg(long, value_name = "FILE")]
    certificate_authority: Option<PathBuf>,
    /// The kubeconfig to take the cluster and the user from [default: $KUBECONFIG, or ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context to take [default: its current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// What the names of the new context and cluster end in
    #[arg(long, value_name = "TEXT", default_value = "-audited")]
    suffix: String,
    /// Where to write it, readable by its owner alone [default: standard output]
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    file: Option<PathBuf>,
    /// Let --filename replace a file
    #[arg(long, requires = "file")]
    force: bool,
}

pub(super) fn run(flags: &Flags) -> Result<Exit, Failure> {
    let gateway: Server = flags.gateway.parse().map_err(|reason| {
        Failure::usage(anyhow!(
            "`{}` is no address of a gateway: {reason}",
            flags.gateway
        ))
    })?;
    if !gateway.is_https {
        return Err(Failure::usage(anyhow!(
            "`{}` is plain HTTP, over which kubectl sends no credentials: write https://",
            flags.gateway
        )));
    }
    let authority = flags
        .certificate_authority
        .as_deref()
        .map(authority)
        .transpose()?;
    let path = source(flags.kubeconfig.as_deref())?;
    let file = read(&path)?;
    let (rewritten, notes) = Rewriting {
        gateway: flags.gateway.trim_end_matches('/'),
        authority: authority.as_deref(),
        suffix: &flags.suffix,
        folder: path.parent().unwrap_or(Path::new(".")),
    }
    .rewrite(&file, flags.context.as_deref())
    .with_context(|| format!("`{}` cannot be taken", path.display()))
    .map_err(Failure::usage)?;
    let text = serde_saphyr::to_string(&rewritten).map_err(Failure::usage)?;
    let mut errors = std::io::stderr().lock();
    for note in notes {
        // Without a standard error there is nobody to tell.
        drop(writeln!(errors, "note: {note}"));
    }
    match &flags.file {
        None => print(text.as_bytes()),
        // A kubeconfig holds secrets.
        Some(target) => match one_file(target, text.as_bytes(), Privacy::Secret, flags.force) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(Failure::usage(anyhow!(
                "{} is there already: nothing is written; --force replaces it",
                target.display()
            ))),
            written => written
                .with_context(|| format!("cannot write `{}`", target.display()))
                .map(|()| Exit::Done)
                .map_err(Failure::unreachable),
        },
    }
}

/// Where kubectl would look.
fn source(given: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    if let Some(paths) = std::env::var_os("KUBECONFIG").filter(|paths| !paths.is_empty()) {
        let mut paths = std::env::split_paths(&paths).filter(|path| !path.as_os_str().is_empty());
        return match (paths.next(), paths.next()) {
            (Some(path), None) => Ok(path),
            (Some(_), Some(_)) => Err(Failure::usage(anyhow!(
                "$KUBECONFIG names several files: name one with --kubeconfig, or make one of them with `kubectl config \
                 view --raw --minify`"
            ))),
            (None, _) => Err(Failure::usage(anyhow!(
                "$KUBECONFIG names no file: give --kubeconfig"
            ))),
        };
    }
    std::env::home_dir()
        .map(|home| home.join(".kube/config"))
        .ok_or_else(|| Failure::usage(anyhow!("there is no home directory: give --kubeconfig")))
}

fn read(path: &Path) -> Result<Value, Failure> {
    let read = || -> anyhow::Result<Value> {
        let mut text = String::new();
        let file = std::fs::File::open(path)?;
        file.take(MAX_BYTES + 1).read_to_string(&mut text)?;
        if text.len() as u64 > MAX_BYTES {
            return Err(anyhow!("it is larger than {} MiB", MAX_BYTES >> 20));
        }
        Ok(serde_saphyr::from_str(&text)?)
    };
    read()
        .with_context(|| format!("cannot read the kubeconfig `{}`", path.display()))
        .map_err(Failure::usage)
}

/// The authority as a kubeconfig holds it.
fn authority(path: &Path) -> Result<String, Failure> {
    let pem = std::fs::read(path)
        .with_context(|| format!("cannot read `{}`", path.display()))
        .map_err(Failure::usage)?;
    if !pem
        .windows(27)
        .any(|window| window == b"-----BEGIN CERTIFICATE-----")
    {
        return Err(Failure::usage(anyhow!(
            "`{}` holds no certificate: it is the authority of the gateway's certificate, PEM",
            path.display()
        )));
    }
    Ok(STANDARD.encode(pem))
}

/// What replaces the cluster.
struct Rewriting<'a> {
    gateway: &'a str,
    authority: Option<&'a str>,
    suffix: &'a str,
    /// Where paths in the file begin.
    folder: &'a Path,
}

impl Rewriting<'_> {
    /// The context with its user as it is and the gateway as its cluster, and what its owner should know.
    fn rewrite(&self, file: &Value, context: Option<&str>) -> anyhow::Result<(Value, Vec<String>)> {
        let name = context
            .or_else(|| file.get("current-context").and_then(Value::as_str))
            .filter(|name| !name.is_empty())
            .ok_or_else(|| anyhow!("it has no current context: give --context"))?;
        let context = entry(file, "contexts", name, "context")?;
        let named = |field: &str| {
            context
                .get(field)
                .and_then(Value::as_str)
                .ok_or_else(|| anyhow!("its context `{name}` names no {field}"))
        };
        let (cluster_name, user_name) = (named("cluster")?, named("user")?);
        let cluster = self.cluster(entry(file, "clusters", cluster_name, "cluster")?);
        let (user, notes) = self.user(entry(file, "users", user_name, "user")?);
        let (new_context, new_cluster) = (
            format!("{name}{}", self.suffix),
            format!("{cluster_name}{}", self.suffix),
        );
        let mut context = context.clone();
        context.insert("cluster".to_owned(), json!(new_cluster));
        let rewritten = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": new_cluster, "cluster": cluster}],
            "users": [{"name": user_name, "user": user}],
            "contexts": [{"name": new_context, "context": context}],
            "current-context": new_context,
        });
        Ok((rewritten, notes))
    }

    /// Whom to believe is another question for the gateway than for the cluster.
    fn cluster(&self, cluster: &Map<String, Value>) -> Map<String, Value> {
        let mut cluster = cluster.clone();
        for field in [
            "certificate-authority",
            "certificate-authority-data",
            "insecure-skip-tls-verify",
            "tls-server-name",
        ] {
            cluster.remove(field);
        }
        cluster.insert("server".to_owned(), json!(self.gateway));
        if let Some(authority) = self.authority {
            cluster.insert("certificate-authority-data".to_owned(), json!(authority));
        }
        cluster
    }

    /// The user, whose files are found from anywhere.
    fn user(&self, user: &Map<String, Value>) -> (Map<String, Value>, Vec<String>) {
        let mut user = user.clone();
        let mut notes = Vec::new();
        for field in ["client-certificate", "client-key", "tokenFile"] {
            if let Some(Value::String(path)) = user.get_mut(field)
                && !path.is_empty()
            {
                let whole = self.folder.join(&*path);
                let whole = std::path::absolute(&whole).unwrap_or(whole);
                *path = whole.display().to_string();
            }
        }
        let has = |field: &str| user.get(field).is_some_and(|value| *value != json!(""));
        if has("client-certificate") || has("client-certificate-data") {
            notes.push(
                "the user shows a client certificate: the gateway needs `--client-ca-file` with the cluster's client \
                 authority, and a credential to impersonate with"
                    .to_owned(),
            );
        }
        if has("username") || has("auth-provider") {
            notes.push(
                "the user has no token, certificate or exec plugin: a cluster of today knows nobody by that"
                    .to_owned(),
            );
        }
        if let Some(Value::Object(exec)) = user.get_mut("exec") {
            if let Some(Value::String(command)) = exec.get_mut("command")
                && command.contains('/')
                && Path::new(command).is_relative()
            {
                let whole = self.folder.join(&*command);
                *command = std::path::absolute(&whole).unwrap_or(whole).display().to_string();
            }
            if exec.get("provideClusterInfo") == Some(&json!(true)) {
                notes.push("the user's exec plugin is told of the gateway as its cluster".to_owned());
            }
        }
        (user, notes)
    }
}

fn entry<'a>(file: &'a Value, list: &str, name: &str, field: &str) -> anyhow::Result<&'a Map<String, Value>> {
    let entries = file
        .get(list)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let names = || -> Vec<&str> {
        entries
            .iter()
            .filter_map(|entry| entry.get("name")?.as_str())
            .collect()
    };
    entries
        .iter()
        .find(|entry| entry.get("name").and_then(Value::as_str) == Some(name))
        .and_then(|entry| entry.get(field)?.as_object())
        .ok_or_else(|| anyhow!("it has no {field} `{name}` among: {}", names().join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
current-context: prod
clusters:
- name: prod
  cluster: {server: 'https://10.0.0.1:6443', certificate-authority: ca.crt, tls-server-name: api, proxy-url: 'http://p:3128'}
- name: other
  cluster: {server: 'https://10.0.0.2:6443'}
users:
- name: ann
  user: {token: secret}
- name: bob
  user: {client-certificate: bob.crt, client-key: /keys/bob.key}
- name: eve
  user: {exec: {command: bin/login, provideClusterInfo: true}}
contexts:
- name: prod
  context: {cluster: prod, user: ann, namespace: web}
- name: bob
  context: {cluster: other, user: bob}
- name: eve
  context: {cluster: other, user: eve}
- name: gone
  context: {cluster: nowhere, user: ann}
";

    fn rewrite(context: Option<&str>, authority: Option<&str>) -> anyhow::Result<(Value, Vec<String>)> {
        let file: Value = serde_saphyr::from_str(FILE).unwrap();
        Rewriting {
            gateway: "https://gw:6443",
            authority,
            suffix: "-audited",
            folder: Path::new("/home/ann/.kube"),
        }
        .rewrite(&file, context)
    }

    #[test]
    fn the_gateway_takes_the_clusters_place_and_nothing_else_changes() {
        let (file, notes) = rewrite(None, Some("Q0E=")).unwrap();
        assert_eq!(
            file,
            json!({"apiVersion": "v1", "kind": "Config", "current-context": "prod-audited",
                "clusters": [{"name": "prod-audited", "cluster": {"server": "https://gw:6443",
                    "certificate-authority-data": "Q0E=", "proxy-url": "http://p:3128"}}],
                "users": [{"name": "ann", "user": {"token": "secret"}}],
                "contexts": [{"name": "prod-audited", "context": {"cluster": "prod-audited", "user": "ann",
                    "namespace": "web"}}]})
        );
        assert!(notes.is_empty());
    }

    #[test]
    fn files_of_the_user_are_found_from_anywhere() {
        let (file, notes) = rewrite(Some("bob"), None).unwrap();
        assert_eq!(
            file["users"][0]["user"],
            json!({"client-certificate": "/home/ann/.kube/bob.crt", "client-key": "/keys/bob.key"})
        );
        assert!(notes[0].contains("--client-ca-file"), "{notes:?}");
        let (file, notes) = rewrite(Some("eve"), None).unwrap();
        assert_eq!(
            file["users"][0]["user"]["exec"]["command"],
            "/home/ann/.kube/bin/login"
        );
        assert_eq!(notes.len(), 1);
    }

    #[test]
    fn what_is_not_there_is_named_with_what_is() {
        let error = |context| rewrite(Some(context), None).unwrap_err().to_string();
        assert_eq!(error("x"), "it has no context `x` among: prod, bob, eve, gone");
        assert_eq!(error("gone"), "it has no cluster `nowhere` among: prod, other");
    }
}
