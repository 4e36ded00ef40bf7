//! RKE2: a static pod that RKE2 writes itself from its configuration.
//!
//! Source: rancher/rke2 pkg/executor/staticpod/staticpod.go, APIServer, and pkg/podtemplate/podtemplate.go.
//! Files that an argument names are mounted where they are, as is the folder of the log; what a kubeconfig
//! names is not. `audit-policy-file` turns the log on at server/logs/audit.log with maxage 30, maxbackup 10
//! and maxsize 100; arguments of one's own come later and win.

use super::flags;
use super::kubeconfig::Client;
use super::{Piece, Privacy, Setup, Wish, tail_step};

const FOLDER: &str = "/etc/rancher/rke2/kaudit";
const LOG: &str = "/var/lib/rancher/rke2/server/logs/audit.log";

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
    setup.pieces.push(Piece {
        file: "config.yaml".to_owned(),
        title: "the configuration of RKE2",
        place: "Merge into /etc/rancher/rke2/config.yaml on every server; a list that is there already gets these \
                items added"
            .to_owned(),
        content: config(wish),
        privacy: Privacy::Plain,
    });
    setup.steps.push(
        "Put the files in place first: RKE2 mounts a file only if it is there when RKE2 starts. Then on one server \
         after the other: `systemctl restart rke2-server`"
            .to_owned(),
    );
    if wish.mode.has_log() {
        setup.steps.push(tail_step(wish, LOG));
    } else {
        setup.notes.push(format!(
            "RKE2 writes the log too as soon as it has a policy: {LOG}, at most 11 files of 100 MB, 30 days"
        ));
    }
    setup.notes.extend(wish.placeholders(FOLDER, ""));
    setup.notes.push(
        "No API server after the restart? Its manifest is \
         /var/lib/rancher/rke2/agent/pod-manifests/kube-apiserver.yaml; `journalctl -u rke2-server` and the logs in \
         /var/log/pods tell why"
            .to_owned(),
    );
    setup
}

fn config(wish: &Wish) -> String {
    let mut text = format!("audit-policy-file: {FOLDER}/policy.yaml\n");
    let mut arguments = flags::of_webhook(wish, &format!("{FOLDER}/webhook.kubeconfig"));
    if wish.mode.has_log() {
        arguments.insert(0, ("audit-log-path", LOG.to_owned()));
    }
    if !arguments.is_empty() {
        text += "kube-apiserver-arg:\n";
        for (name, value) in arguments {
            text += &format!("  - {name}={value}\n");
        }
    }
    if wish.mode.has_webhook() {
        let mut files = Vec::new();
        if wish.authority.is_none() {
            files.push("ca.crt");
        }
        if wish.client == Client::Unnamed {
            files.extend(["client.crt", "client.key"]);
        }
        if !files.is_empty() {
            text += "# What the kubeconfig names is not mounted by itself.\nkube-apiserver-extra-mount:\n";
            for file in files {
                text += &format!("  - {FOLDER}/{file}:{FOLDER}/{file}:ro\n");
            }
        }
    }
    text
}
