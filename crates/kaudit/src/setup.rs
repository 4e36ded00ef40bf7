//! What a platform engineer pastes to turn a cluster's audit logging on and lead it to a collector, for each
//! distribution, and what is wrong with what is there already ([`check`]).
//!
//! No I/O. Each distribution's module names the version and the source of what it knows.

pub(crate) mod address;
pub(crate) mod check;
pub(crate) mod document;
pub(crate) mod flags;
mod k3s;
mod kind;
mod kubeadm;
pub(crate) mod kubeconfig;
mod minikube;
mod rke2;
mod talos;

use kaudit_event::Level;
use kaudit_policy::Policy;
use serde_json::json;

use address::Collector;
use kubeconfig::Client;

/// A way to run Kubernetes that has its own way to configure the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Distribution {
    /// Static pods made by kubeadm, also on a cluster that runs already
    Kubeadm,
    /// Kubernetes in containers
    Kind,
    /// Rancher's single binary
    K3s,
    /// Rancher's hardened distribution
    Rke2,
    /// An operating system without a shell
    Talos,
    /// A cluster on a developer's machine
    Minikube,
}

impl Distribution {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Kubeadm => "kubeadm",
            Self::Kind => "kind",
            Self::K3s => "k3s",
            Self::Rke2 => "rke2",
            Self::Talos => "talos",
            Self::Minikube => "minikube",
        }
    }
}

/// Which way the events go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// The API server sends them to the collector
    #[default]
    Webhook,
    /// The API server writes a file, which a kaudit on the node tails
    Log,
    /// Both; the collector keeps each event once
    Both,
}

impl Mode {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Log => "log",
            Self::Both => "both",
        }
    }

    pub(crate) const fn has_webhook(self) -> bool {
        matches!(self, Self::Webhook | Self::Both)
    }

    pub(crate) const fn has_log(self) -> bool {
        matches!(self, Self::Log | Self::Both)
    }
}

/// The version of kubeadm's configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum KubeadmApi {
    /// Kubernetes 1.31 and later
    #[default]
    V1beta4,
    /// Kubernetes 1.22 to 1.36
    V1beta3,
}

/// What is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) distribution: Distribution,
    pub(crate) mode: Mode,
    pub(crate) cluster: String,
    pub(crate) instance: String,
    /// `None` only without a webhook.
    pub(crate) collector: Option<Collector>,
    /// The policy's text, which loads.
    pub(crate) policy: String,
    /// The certificate authority of the collector, PEM.
    pub(crate) authority: Option<String>,
    pub(crate) client: Client,
    pub(crate) kubeadm_api: KubeadmApi,
}

impl Wish {
    /// Whether the policy records what was answered, which for a list can be tens of megabytes.
    fn records_responses(&self) -> bool {
        Policy::parse(self.policy.as_bytes()).is_ok_and(|(policy, _)| records_responses(&policy))
    }

    /// The webhook's kubeconfig, or nothing where there is no webhook.
    fn kubeconfig(&self, folder: &str, prefix: &str) -> Option<String> {
        let collector = self.collector.as_ref()?;
        self.mode.has_webhook().then(|| {
            kubeconfig::text(
                &collector.of_source(&self.cluster, &self.instance),
                self.authority.as_deref(),
                &self.client,
                &format!("{folder}/{prefix}"),
            )
        })
    }

    /// Whether a piece that holds the kubeconfig holds a secret.
    const fn privacy(&self) -> Privacy {
        match self.client {
            Client::Unnamed => Privacy::Plain,
            Client::Certificate { .. } | Client::Token(_) => Privacy::Secret,
        }
    }

    /// What the placeholders of the kubeconfig stand for.
    fn placeholders(&self, folder: &str, prefix: &str) -> Vec<String> {
        if !self.mode.has_webhook() {
            return Vec::new();
        }
        let mut notes = Vec::new();
        if self.authority.is_none() {
            notes.push(format!(
                "{folder}/{prefix}ca.crt is a placeholder: put the certificate authority of the collector there, or \
                 embed it with --ca-file"
            ));
        }
        if self.client == Client::Unnamed {
            notes.push(format!(
                "{folder}/{prefix}client.crt and {folder}/{prefix}client.key are placeholders: put the certificate \
                 there that the collector knows this instance by, or embed it with --client-cert-file and \
                 --client-key-file, or a token with --token-file"
            ));
        }
        notes
    }
}

pub(crate) fn records_responses(policy: &Policy) -> bool {
    policy
        .rules()
        .iter()
        .any(|rule| rule.level.value == Level::RequestResponse)
}

/// Who may read a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Privacy {
    /// It holds no secret.
    Plain,
    /// It holds a key or a token.
    Secret,
}

/// One file.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// Its path below the output folder.
    pub(crate) file: String,
    /// What it is.
    pub(crate) title: &'static str,
    /// Where it goes, as a sentence.
    pub(crate) place: String,
    pub(crate) content: String,
    /// What decides about its permissions: every kubeconfig is private, whether or not it holds a secret.
    pub(crate) privacy: Privacy,
}

/// Everything to paste, and what to do with it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Setup {
    pub(crate) pieces: Vec<Piece>,
    pub(crate) steps: Vec<String>,
    pub(crate) notes: Vec<String>,
}

impl Setup {
    fn policy(&mut self, wish: &Wish, file: &str, place: String) {
        self.pieces.push(Piece {
            file: file.to_owned(),
            title: "the audit policy",
            place,
            content: wish.policy.clone(),
            privacy: Privacy::Plain,
        });
    }

    fn kubeconfig(&mut self, content: Option<String>, file: &str, place: String) {
        self.pieces.extend(content.map(|content| Piece {
            file: file.to_owned(),
            title: "the kubeconfig of the webhook",
            place,
            content,
            privacy: Privacy::Secret,
        }));
    }
}

/// What to paste for `wish`.
pub(crate) fn plan(wish: &Wish) -> Setup {
    let mut setup = match wish.distribution {
        Distribution::Kubeadm => kubeadm::plan(wish),
        Distribution::Kind => kind::plan(wish),
        Distribution::K3s => k3s::plan(wish),
        Distribution::Rke2 => rke2::plan(wish),
        Distribution::Talos => talos::plan(wish),
        Distribution::Minikube => minikube::plan(wish),
    };
    setup.steps.push(
        "Look whether the API server makes events: `kubectl get --raw /metrics | grep ^apiserver_audit`. \
         apiserver_audit_event_total grows; apiserver_audit_error_total does not"
            .to_owned(),
    );
    setup.steps.push(format!(
        "Look whether they arrive: `kaudit source status` shows {}/{} with a recent last event",
        wish.cluster, wish.instance
    ));
    if wish.mode.has_webhook() {
        setup.notes.push(
            "The API server reads policy and kubeconfig at its start only, and gives up on a batch after about 80 to \
             250 seconds without an answer: keep the collector up, and restart the API server after a change"
                .to_owned(),
        );
    }
    if wish.mode.has_webhook() && wish.records_responses() {
        setup.notes.push(
            "The policy records responses, so the webhook truncates events above 1 MiB: their bodies are left out \
             and they carry the annotation audit.k8s.io/truncated"
                .to_owned(),
        );
    }
    setup
}

/// The tail's part of kaudit's configuration, as a step.
fn tail_step(wish: &Wish, path: &str) -> String {
    format!(
        "On the node, let kaudit tail the file: in its configuration \
         `collect: {{files: [{{cluster: {}, instance: {}, path: {path}}}]}}`",
        wish.cluster, wish.instance
    )
}

/// Every line of `text` `columns` further to the right; empty lines stay empty.
fn indented(text: &str, columns: usize) -> String {
    let margin = " ".repeat(columns);
    text.lines().fold(String::new(), |mut out, line| {
        if !line.is_empty() {
            out += &margin;
            out += line;
        }
        out.push('\n');
        out
    })
}

/// The setup as text: pieces under comments, then what to do.
pub(crate) fn as_text(wish: &Wish, setup: &Setup) -> String {
    let mut out = heading(wish);
    let count = setup.pieces.len();
    for (index, piece) in setup.pieces.iter().enumerate() {
        out += &format!(
            "\n# ---- {} of {count}: {}\n{}\n{}",
            index + 1,
            piece.title,
            comment("", &piece.place),
            piece.content
        );
        if !piece.content.ends_with('\n') {
            out.push('\n');
        }
    }
    out.push('\n');
    out += &advice(setup);
    out
}

/// What the setup is about, as a comment.
pub(crate) fn heading(wish: &Wish) -> String {
    let way = match (wish.mode, &wish.collector) {
        (Mode::Log, _) | (_, None) => "written to a file".to_owned(),
        (Mode::Webhook, Some(collector)) => format!("sent to {}", collector.origin()),
        (Mode::Both, Some(collector)) => format!("written to a file and sent to {}", collector.origin()),
    };
    format!(
        "# {}: audit events of cluster {}, instance {}, {way}\n",
        wish.distribution.as_str(),
        wish.cluster,
        wish.instance
    )
}

/// Steps and notes, as comments.
pub(crate) fn advice(setup: &Setup) -> String {
    let mut out = "# ---- Next steps\n".to_owned();
    for (index, step) in setup.steps.iter().enumerate() {
        out += &comment(&format!("{}. ", index + 1), step);
    }
    if !setup.notes.is_empty() {
        out += "#\n# ---- Good to know\n";
        for note in &setup.notes {
            out += &comment("- ", note);
        }
    }
    out
}

/// A paragraph of comment lines with a hanging mark, at most about a hundred columns wide.
pub(crate) fn comment(mark: &str, text: &str) -> String {
    let mut out = format!("# {mark}");
    let hanging = mark.chars().count();
    let mut width = hanging;
    for (index, word) in text.split(' ').enumerate() {
        let length = word.chars().count();
        if index > 0 && width + 1 + length > 98 {
            out += &format!("\n# {}", " ".repeat(hanging));
            width = hanging;
        } else if index > 0 {
            out.push(' ');
            width += 1;
        }
        out += word;
        width += length;
    }
    out.push('\n');
    out
}

/// The setup for programs.
pub(crate) fn as_json(wish: &Wish, setup: &Setup) -> serde_json::Value {
    let pieces: Vec<serde_json::Value> = setup
        .pieces
        .iter()
        .map(|piece| {
            json!({
                "file": piece.file,
                "title": piece.title,
                "place": piece.place,
                "isSecret": piece.privacy == Privacy::Secret,
                "content": piece.content,
            })
        })
        .collect();
    json!({
        "distribution": wish.distribution.as_str(),
        "mode": wish.mode.as_str(),
        "cluster": wish.cluster,
        "instance": wish.instance,
        "pieces": pieces,
        "steps": setup.steps,
        "notes": setup.notes,
    })
}

#[cfg(test)]
mod tests;
