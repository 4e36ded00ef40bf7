//! minikube: flags at the start, and files in a folder that both minikube fills and the pod mounts.
//!
//! Source: kubernetes/minikube site/content/en/docs/tutorials/audit-policy.md and
//! pkg/minikube/bootstrapper/bsutil/ktmpl/v1beta4.go: extra-config becomes extraArgs; there are no
//! extraVolumes, and kubeadm mounts /etc/ssl/certs read-only.

use super::flags::{self, Paths};
use super::{Piece, Privacy, Setup, Wish};

const FOLDER: &str = "/etc/ssl/certs";
const HOME: &str = "~/.minikube/files/etc/ssl/certs";

pub(super) fn plan(wish: &Wish) -> Setup {
    let mut setup = Setup::default();
    setup.policy(
        wish,
        "kaudit-policy.yaml",
        format!("Save as {HOME}/kaudit-policy.yaml on this machine"),
    );
    setup.kubeconfig(
        wish.kubeconfig(FOLDER, "kaudit-"),
        "kaudit-webhook.yaml",
        format!("Save as {HOME}/kaudit-webhook.yaml on this machine, mode 0600"),
    );
    let paths = Paths {
        policy: &format!("{FOLDER}/kaudit-policy.yaml"),
        kubeconfig: &format!("{FOLDER}/kaudit-webhook.yaml"),
        log: "-",
    };
    let mut content = format!("minikube start --profile {}", wish.cluster);
    for (name, value) in flags::of(wish, &paths) {
        content += &format!(" \\\n  --extra-config=apiserver.{name}={value}");
    }
    content.push('\n');
    setup.pieces.push(Piece {
        file: "start.sh".to_owned(),
        title: "the command",
        place: "Run it after the files are in place".to_owned(),
        content,
        privacy: Privacy::Plain,
    });
    setup.steps.push(format!(
        "`mkdir -p {HOME}`, put the files there, `minikube stop --profile {}` if it runs, then the command",
        wish.cluster
    ));
    setup.notes.push(format!(
        "{FOLDER} is where minikube's files from this machine and the mounts of the API server's pod meet; it is \
         mounted read-only, and minikube mounts nothing else for the asking. A changed file reaches the node with the next `minikube start`"
    ));
    if wish.mode.has_webhook() {
        setup.notes.push(
            "A collector on this machine is `--collector https://host.minikube.internal:7444`; it listens on 0.0.0.0, \
             not on loopback, and its certificate names host.minikube.internal"
                .to_owned(),
        );
    }
    if wish.mode.has_log() {
        setup.steps.push(format!(
            "Read the events: `kubectl --context {} -n kube-system logs -l component=kube-apiserver --tail=-1 | grep \
             audit.k8s.io/v1`",
            wish.cluster
        ));
        setup.notes.push(
            "Nothing writable is mounted, so the log goes to standard output: the container runtime cuts lines at 16 \
             KiB and the kubelet rotates them away. Use the webhook for anything that must be complete"
                .to_owned(),
        );
    }
    setup.notes.extend(wish.placeholders(HOME, "kaudit-"));
    setup
}
