//! k3s: the API server is part of the k3s process, so there is nothing to mount.
//!
//! Source: k3s-io/docs docs/security/hardening-guide.md and docs/installation/configuration.md.

use super::flags::{self, Paths};
use super::{Piece, Privacy, Setup, Wish, tail_step};

const FOLDER: &str = "/var/lib/rancher/k3s/server/kaudit";
const LOG: &str = "/var/lib/rancher/k3s/server/logs/audit.log";

pub(super) fn plan(wish: &Wish) -> Setup {
    let mut setup = Setup::default();
    setup.policy(
        wish,
        "policy.yaml",
        format!("Save as {FOLDER}/policy.yaml on every server, owner root, mode 0600"),
    );
    setup.kubeconfig(
        wish.kubeconfig(FOLDER, ""),
        "webhook.kubeconfig",
        format!(
            "Save as {FOLDER}/webhook.kubeconfig, owner root, mode 0600. Each server has its own: the last part of \
             `server` is its instance"
        ),
    );
    let mut content = "kube-apiserver-arg:\n".to_owned();
    let paths = Paths {
        policy: &format!("{FOLDER}/policy.yaml"),
        kubeconfig: &format!("{FOLDER}/webhook.kubeconfig"),
        log: LOG,
    };
    for (name, value) in flags::of(wish, &paths) {
        content += &format!("  - {name}={value}\n");
    }
    setup.pieces.push(Piece {
        file: "config.yaml".to_owned(),
        title: "the configuration of k3s",
        place: "Merge into /etc/rancher/k3s/config.yaml on every server; a list that is there already gets these \
                items added"
            .to_owned(),
        content,
        privacy: Privacy::Plain,
    });
    setup.steps.push(format!(
        "Make the folders: `mkdir -p -m 700 {FOLDER} /var/lib/rancher/k3s/server/logs`"
    ));
    setup.steps.push(
        "Put the files in place, then on one server after the other: `systemctl restart k3s`".to_owned(),
    );
    if wish.mode.has_log() {
        setup.steps.push(tail_step(wish, LOG));
    }
    setup.notes.extend(wish.placeholders(FOLDER, ""));
    setup.notes.push(
        "In a file of its own, /etc/rancher/k3s/config.yaml.d/kaudit.yaml, write the key as `kube-apiserver-arg+`: \
         without the plus sign its list replaces the other files' list"
            .to_owned(),
    );
    setup
        .notes
        .push("No API server after the restart? `journalctl -u k3s` tells why".to_owned());
    setup
}
