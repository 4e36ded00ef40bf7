//! The kubeconfig by which an API server finds and trusts the collector.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// How the API server shows who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// By a certificate whose files are named and not there yet.
    Unnamed,
    /// By this certificate, PEM.
    Certificate { certificate: String, key: String },
    /// By this token.
    Token(String),
}

/// The file; what is not known yet is a path that begins with `stem`.
pub(crate) fn text(server: &str, authority: Option<&str>, client: &Client, stem: &str) -> String {
    let authority = match authority {
        Some(pem) => format!("certificate-authority-data: {}", STANDARD.encode(pem)),
        None => format!("certificate-authority: {stem}ca.crt"),
    };
    let user = match client {
        Client::Unnamed => {
            format!("client-certificate: {stem}client.crt\n      client-key: {stem}client.key")
        }
        Client::Certificate { certificate, key } => format!(
            "client-certificate-data: {}\n      client-key-data: {}",
            STANDARD.encode(certificate),
            STANDARD.encode(key)
        ),
        Client::Token(token) => format!("token: {}", quoted(token)),
    };
    format!(
        "apiVersion: v1
kind: Config
clusters:
  - name: kaudit
    cluster:
      server: {server}
      {authority}
users:
  - name: kube-apiserver
    user:
      {user}
contexts:
  - name: kaudit
    context:
      cluster: kaudit
      user: kube-apiserver
current-context: kaudit
"
    )
}

/// A YAML string in double quotes.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
