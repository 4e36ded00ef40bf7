//! kind: kubeadm below, so its configuration, and files that reach the node as mounts of its container.
//!
//! Source: kubernetes-sigs/kind site/content/docs/user/auditing.md, pkg/cluster/internal/kubeadm/config.go:
//! nodes from Kubernetes 1.36 on are configured by v1beta4, earlier ones by v1beta3. A patch that names a
//! version applies to that version alone, so both are given and one of them is used.

use super::kubeadm::{self, FOLDER};
use super::{KubeadmApi, Piece, Privacy, Setup, Wish, indented, tail_step};

const LOG_FOLDER: &str = "/var/log/kubernetes/audit";

pub(super) fn plan(wish: &Wish) -> Setup {
    let mut setup = Setup::default();
    setup.policy(
        wish,
        "kaudit/policy.yaml",
        "Save as kaudit/policy.yaml beside kind-config.yaml".to_owned(),
    );
    setup.kubeconfig(
        wish.kubeconfig(FOLDER, ""),
        "kaudit/webhook.kubeconfig",
        "Save as kaudit/webhook.kubeconfig beside kind-config.yaml, mode 0600".to_owned(),
    );
    setup.pieces.push(Piece {
        file: "kind-config.yaml".to_owned(),
        title: "the cluster",
        place: "Save as kind-config.yaml; a cluster that exists cannot be changed, only made anew".to_owned(),
        content: config(wish),
        privacy: Privacy::Plain,
    });
    setup.steps.push(format!(
        "From the folder that holds kind-config.yaml: `kind create cluster --name {} --config kind-config.yaml`",
        wish.cluster
    ));
    if wish.mode.has_webhook() {
        setup.notes.push(
            "A collector on this machine: Docker Desktop's nodes reach it as host.docker.internal, Podman's as \
             host.containers.internal; with Docker on Linux it is the gateway of kind's network, `docker network \
             inspect kind -f '{{range .IPAM.Config}}{{.Gateway}} {{end}}'`. It listens on that address or on 0.0.0.0, \
             not on loopback, and its certificate names the host that --collector names"
                .to_owned(),
        );
    }
    if wish.mode.has_log() {
        setup.steps.push(tail_step(wish, "kaudit-log/audit.log"));
        setup.notes.push(
            "The log belongs to root with mode 0600, on this machine too: run kaudit as root, or use the webhook"
                .to_owned(),
        );
    }
    setup.notes.push(
        "Several control-plane nodes: give each its own extraMounts, with a kubeconfig whose last part of `server` is \
         its own instance"
            .to_owned(),
    );
    setup.notes.extend(wish.placeholders("kaudit", ""));
    setup
}

fn config(wish: &Wish) -> String {
    let mut text = format!(
        "apiVersion: kind.x-k8s.io/v1alpha4
kind: Cluster
nodes:
  - role: control-plane
    extraMounts:
      - hostPath: ./kaudit
        containerPath: {FOLDER}
        readOnly: true
"
    );
    if wish.mode.has_log() {
        text += &format!("      - hostPath: ./kaudit-log\n        containerPath: {LOG_FOLDER}\n");
    }
    text += "    kubeadmConfigPatches:\n";
    for api in [KubeadmApi::V1beta4, KubeadmApi::V1beta3] {
        text += "      - |\n";
        text += &indented(&kubeadm::cluster_configuration(wish, api), 8);
    }
    text
}
