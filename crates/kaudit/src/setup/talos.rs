//! Talos: a patch of the machine configuration, since there is no shell to put a file anywhere.
//!
//! Source: siderolabs/talos internal/app/machined/pkg/controllers/k8s/control_plane_static_pod.go and the
//! v1alpha1 reference of 1.12. The log is always on, at /var/log/audit/kube/kube-apiserver.log with maxage 30,
//! maxbackup 10 and maxsize 100. The API server runs as user 65534. `machine.files` may create files below
//! /var only. `auditPolicy` replaces what was there, lists are appended. From 1.14 on `cluster.apiServer` is
//! deprecated for KubeAPIServerConfig, which has no extraVolumes, and the two exclude each other.

use super::flags;
use super::kubeconfig::{Client, quoted};
use super::{Piece, Privacy, Setup, Wish, indented};

const FOLDER: &str = "/var/kaudit";
const LOG: &str = "/var/log/audit/kube/kube-apiserver.log";

pub(super) fn plan(wish: &Wish) -> Setup {
    let mut setup = Setup::default();
    setup.pieces.push(Piece {
        file: "talos-patch.yaml".to_owned(),
        title: "the patch of the machine configuration",
        place: "Save as talos-patch.yaml; for control-plane nodes only".to_owned(),
        content: patch(wish),
        privacy: if wish.mode.has_webhook() {
            wish.privacy()
        } else {
            Privacy::Plain
        },
    });
    if !wish.mode.has_webhook() {
        setup.pieces.push(Piece {
            file: "talos-patch-1.14.yaml".to_owned(),
            title: "the same for Talos 1.14 and later with KubeAPIServerConfig",
            place: "Use it instead where the machine configuration has a KubeAPIServerConfig".to_owned(),
            content: format!(
                "apiVersion: v1alpha1\nkind: KubeAuditPolicyConfig\nconfiguration:\n{}",
                indented(policy_document(&wish.policy), 2)
            ),
            privacy: Privacy::Plain,
        });
    }
    setup.steps.push(
        "On one control-plane node after the other: `talosctl -n NODE patch machineconfig --patch \
         @talos-patch.yaml`; Talos restarts the API server by itself"
            .to_owned(),
    );
    if wish.mode.has_webhook() {
        setup.steps.push(
            "Change the last part of `server` before each node: it is that node's instance. If Talos says that the \
             node must reboot for machine.files, let it"
                .to_owned(),
        );
        setup.notes.push(
            "The kubeconfig has mode 0644 because the API server runs as user 65534 and machine.files makes files of \
             root. The machine configuration holds it too: keep both as secrets"
                .to_owned(),
        );
        setup.notes.push(
            "Lists are appended: to change the kubeconfig later, edit the entry with `talosctl edit machineconfig` \
             instead of patching again"
                .to_owned(),
        );
        setup.notes.push(
            "Talos 1.14 and later: KubeAPIServerConfig cannot mount a file into the API server and excludes \
             cluster.apiServer. The webhook needs cluster.apiServer, which is deprecated there and works; with \
             KubeAPIServerConfig use --mode log"
                .to_owned(),
        );
    }
    if wish.mode.has_log() {
        setup.steps.push(format!(
            "Run kaudit as a DaemonSet on control-plane nodes with /var/log/audit/kube mounted from the host, and in \
             its configuration `collect: {{files: [{{cluster: {}, instance: {}, path: {LOG}}}]}}`",
            wish.cluster, wish.instance
        ));
    } else {
        setup.notes.push(format!(
            "Talos writes the log too, whatever is configured: {LOG}, at most 11 files of 100 MB, 30 days"
        ));
    }
    if wish.mode.has_webhook() && (wish.authority.is_none() || wish.client == Client::Unnamed) {
        setup.notes.extend(wish.placeholders(FOLDER, ""));
        setup.notes.push(
            "A placeholder is one more entry of machine.files each; embedding them is simpler on Talos"
                .to_owned(),
        );
    }
    setup
}

fn patch(wish: &Wish) -> String {
    let mut text = String::new();
    if let Some(kubeconfig) = wish.kubeconfig(FOLDER, "") {
        text += &format!(
            "machine:
  files:
    - op: create
      path: {FOLDER}/webhook.kubeconfig
      permissions: 0o644
      content: |
{}",
            indented(&kubeconfig, 8)
        );
    }
    text += "cluster:\n  apiServer:\n";
    let arguments = flags::of_webhook(wish, &format!("{FOLDER}/webhook.kubeconfig"));
    if !arguments.is_empty() {
        text += "    extraArgs:\n";
        for (name, value) in arguments {
            text += &format!("      {name}: {}\n", quoted(&value));
        }
        text += &format!(
            "    extraVolumes:
      - hostPath: {FOLDER}
        mountPath: {FOLDER}
        readonly: true
"
        );
    }
    text += "    auditPolicy:\n";
    text += &indented(policy_document(&wish.policy), 6);
    text
}

/// The first document without its marks: as a value it may have none.
fn policy_document(policy: &str) -> &str {
    let is_mark = |line: &str| line == "---" || line == "..." || line.starts_with("--- ");
    let start = policy
        .lines()
        .next()
        .filter(|line| is_mark(line))
        .map_or(0, |line| line.len() + 1);
    let body = policy.get(start..).unwrap_or_default();
    let mut end = 0;
    for line in body.split_inclusive('\n') {
        if is_mark(line.trim_end()) {
            break;
        }
        end += line.len();
    }
    body.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_loses_its_document_marks() {
        assert_eq!(policy_document("---\na: 1\n---\nb: 2\n"), "a: 1\n");
        assert_eq!(policy_document("a: 1\nb: 2"), "a: 1\nb: 2");
        assert_eq!(policy_document(""), "");
    }
}
