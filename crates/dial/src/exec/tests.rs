//! Plugins are small shell scripts.

use super::*;

fn plugin(script: &str, more: &str) -> ExecPlugin {
    let entry = format!(
        "{{apiVersion: client.authentication.k8s.io/v1, command: sh, interactiveMode: Never, {more}\
         args: ['-c', {}], env: [{{name: SECRET, value: from-env}}]}}",
        serde_json::to_string(script).unwrap()
    );
    let entry: Entry = serde_saphyr::from_str(&entry).unwrap();
    let info = ClusterInfo {
        server: "https://x:1".to_owned(),
        tls_server_name: None,
        is_insecure: false,
        authority: Some(b"CA"),
        proxy_url: None,
        disable_compression: false,
        config: None,
    };
    ExecPlugin::new(entry, Path::new("/"), &info).unwrap()
}

const HEAD: &str = r#""kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1""#;

#[tokio::test]
async fn a_token_with_its_expiry_is_read_and_the_environment_is_handed_on() {
    let script = format!(
        r#"printf '{{{HEAD},"status":{{"token":"%s","expirationTimestamp":"2030-01-01T00:00:00Z"}}}}' "$SECRET""#
    );
    let printed = plugin(&script, "").run().await.unwrap();
    assert_eq!(printed.token.as_deref(), Some("from-env"));
    assert!(!format!("{printed:?}").contains("from-env"));
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    assert!(!printed.has_expired(at(1_800_000_000)));
    assert!(printed.has_expired(at(1_900_000_000)));
}

#[tokio::test]
async fn the_plugin_is_told_what_it_is_asked_for() {
    let script = format!(
        r#"token=$(printf %s "$KUBERNETES_EXEC_INFO" | base64 | tr -d '\n'); printf '{{{HEAD},"status":{{"token":"%s"}}}}' "$token""#
    );
    let printed = plugin(&script, "provideClusterInfo: true, ").run().await.unwrap();
    let info = BASE64_STANDARD.decode(printed.token.unwrap()).unwrap();
    assert_eq!(
        String::from_utf8(info).unwrap(),
        format!(
            r#"{{{HEAD},"spec":{{"cluster":{{"server":"https://x:1","certificate-authority-data":"Q0E="}},"interactive":false}}}}"#
        )
    );
}

#[tokio::test]
async fn mistakes_of_a_plugin_are_told() {
    for (script, expected) in [
        ("echo no >&2; exit 3".to_owned(), "exit status: 3: no"),
        ("echo x".to_owned(), "no ExecCredential"),
        (format!("echo '{{{HEAD}}}'"), "didn't return a status field"),
        (
            format!("echo '{{{HEAD},\"status\":{{}}}}'"),
            "didn't return a token or cert/key pair",
        ),
        (
            format!("echo '{{{HEAD},\"status\":{{\"clientKeyData\":\"x\"}}}}'"),
            "only certificate or key",
        ),
        (
            r#"echo '{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1beta1"}'"#
                .to_owned(),
            "plugin returned version client.authentication.k8s.io/v1beta1",
        ),
        ("yes".to_owned() + " | head -c 2000000", "more than 1048576 bytes"),
    ] {
        let error = plugin(&script, "").run().await.unwrap_err().to_string();
        assert!(
            error.contains(expected),
            "`{error}` does not contain `{expected}`"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_plugin_that_hangs_is_ended() {
    let error = plugin("sleep 1000", "").run().await.unwrap_err();
    assert!(matches!(error, ExecError::Timeout { .. }), "{error}");
}
