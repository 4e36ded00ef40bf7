//! kubeadm: ClusterConfiguration for a new cluster, the static pod's manifest for one that runs.
//!
//! Source: k8s.io/kubernetes cmd/kubeadm/app/apis/kubeadm/v1beta4 and v1beta3 types.go: `extraArgs` became a
//! list of names and values in v1beta4; both are served up to 1.36, v1beta3 alone before 1.31.

use super::flags::{self, Paths};
use super::kubeconfig::quoted;
use super::{KubeadmApi, Piece, Privacy, Setup, Wish, indented, tail_step};

pub(super) const FOLDER: &str = "/etc/kubernetes/kaudit";
const LOG_FOLDER: &str = "/var/log/kubernetes/audit";
const LOG: &str = "/var/log/kubernetes/audit/audit.log";

pub(super) fn plan(wish: &Wish) -> Setup {
    let mut setup = Setup::default();
    setup.policy(
        wish,
        "policy.yaml",
        format!("Save as {FOLDER}/policy.yaml on every control-plane node, owner root, mode 0600"),
    );
    setup.kubeconfig(
        wish.kubeconfig(FOLDER, ""),
        "webhook.kubeconfig",
        format!(
            "Save as {FOLDER}/webhook.kubeconfig, owner root, mode 0600. Each control-plane node has its own: the \
             last part of `server` is this node's instance"
        ),
    );
    setup.pieces.push(Piece {
        file: "kubeadm-config.yaml".to_owned(),
        title: "ClusterConfiguration, for a new cluster and for upgrades",
        place: "Merge into the file of `kubeadm init --config`".to_owned(),
        content: cluster_configuration(wish, wish.kubeadm_api),
        privacy: Privacy::Plain,
    });
    setup.pieces.push(Piece {
        file: "kube-apiserver-additions.yaml".to_owned(),
        title: "the static pod, for a cluster that runs already",
        place: "Add these entries to the lists of the same names in /etc/kubernetes/manifests/kube-apiserver.yaml"
            .to_owned(),
        content: manifest(wish),
        privacy: Privacy::Plain,
    });
    setup.steps.push(
        "A new cluster: put the files in place on the first control-plane node, then `kubeadm init --config \
         kubeadm-config.yaml`; on every other one before it joins"
            .to_owned(),
    );
    setup.steps.push(
        "A cluster that runs: on one control-plane node after the other, put the files in place, copy \
         kube-apiserver.yaml to a folder outside of /etc/kubernetes/manifests, edit it, and wait until `crictl ps \
         --name kube-apiserver` shows a new container; the kubelet restarts it by itself"
            .to_owned(),
    );
    setup.steps.push(
        "Then keep the change across `kubeadm upgrade`: `kubectl -n kube-system edit configmap kubeadm-config`, and \
         add the same extraArgs and extraVolumes there"
            .to_owned(),
    );
    if wish.mode.has_log() {
        setup.steps.push(tail_step(wish, LOG));
    }
    setup.notes.extend(wish.placeholders(FOLDER, ""));
    setup.notes.push(
        "No API server after the edit? `crictl ps -a --name kube-apiserver` and `crictl logs` tell why, and \
         `journalctl -u kubelet` when there is no container at all; the copy brings the old state back"
            .to_owned(),
    );
    setup
}

/// The flags as they are in the pod.
fn flags_of(wish: &Wish) -> Vec<(&'static str, String)> {
    flags::of(
        wish,
        &Paths {
            policy: &format!("{FOLDER}/policy.yaml"),
            kubeconfig: &format!("{FOLDER}/webhook.kubeconfig"),
            log: LOG,
        },
    )
}

/// ClusterConfiguration with nothing but the audit settings.
pub(super) fn cluster_configuration(wish: &Wish, api: KubeadmApi) -> String {
    let version = match api {
        KubeadmApi::V1beta4 => "v1beta4",
        KubeadmApi::V1beta3 => "v1beta3",
    };
    let mut text = format!(
        "apiVersion: kubeadm.k8s.io/{version}\nkind: ClusterConfiguration\napiServer:\n  extraArgs:\n"
    );
    for (name, value) in flags_of(wish) {
        let value = quoted(&value);
        text += &match api {
            KubeadmApi::V1beta4 => format!("    - name: {name}\n      value: {value}\n"),
            KubeadmApi::V1beta3 => format!("    {name}: {value}\n"),
        };
    }
    text += &format!(
        "  extraVolumes:
    - name: kaudit
      hostPath: {FOLDER}
      mountPath: {FOLDER}
      readOnly: true
      pathType: Directory
"
    );
    if wish.mode.has_log() {
        text += &format!(
            "    - name: kaudit-log
      hostPath: {LOG_FOLDER}
      mountPath: {LOG_FOLDER}
      readOnly: false
      pathType: DirectoryOrCreate
"
        );
    }
    text
}

/// The additions to the static pod, in the shape of the manifest.
fn manifest(wish: &Wish) -> String {
    let mut command = String::new();
    for (name, value) in flags_of(wish) {
        command += &format!("- --{name}={value}\n");
    }
    let mut mounts = format!("- name: kaudit\n  mountPath: {FOLDER}\n  readOnly: true\n");
    let mut volumes = format!("- name: kaudit\n  hostPath:\n    path: {FOLDER}\n    type: Directory\n");
    if wish.mode.has_log() {
        mounts += &format!("- name: kaudit-log\n  mountPath: {LOG_FOLDER}\n");
        volumes += &format!(
            "- name: kaudit-log\n  hostPath:\n    path: {LOG_FOLDER}\n    type: DirectoryOrCreate\n"
        );
    }
    format!(
        "apiVersion: v1
kind: Pod
metadata:
  name: kube-apiserver
  namespace: kube-system
spec:
  containers:
    - name: kube-apiserver
      command:
        - kube-apiserver
        # ... what is there stays, and these are added:
{}      volumeMounts:
{}  volumes:
{}",
        indented(&command, 8),
        indented(&mounts, 8),
        indented(&volumes, 4)
    )
}
