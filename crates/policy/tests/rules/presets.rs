//! The policies to begin with.

use kaudit_event::Level;
use kaudit_policy::{Attributes, Policy, Preset, Severity, format, lint};

#[test]
fn every_preset_is_lint_clean_and_in_canonical_form() {
    for preset in Preset::ALL {
        let name = preset.as_str();
        let loud: Vec<_> = lint(preset.text().as_bytes())
            .into_iter()
            .filter(|finding| finding.code.severity() > Severity::Note)
            .collect();
        assert!(loud.is_empty(), "{name}: {loud:#?}");
        assert_eq!(format(preset.text().as_bytes()).unwrap(), preset.text(), "{name}");
        assert_eq!(Preset::from_name(name), Some(preset));
        let (_, warnings) = Policy::parse(preset.text().as_bytes()).unwrap();
        assert!(warnings.0.is_empty(), "{name}: {warnings:?}");
    }
}

fn level(preset: Preset, verb: &str, group: &str, resource: &str, subresource: &str) -> Level {
    let (policy, _) = Policy::parse(preset.text().as_bytes()).unwrap();
    let asked = Attributes {
        user: None,
        verb: verb.as_bytes(),
        is_resource_request: true,
        api_group: group.as_bytes(),
        api_version: b"v1",
        resource: resource.as_bytes(),
        subresource: subresource.as_bytes(),
        namespace: b"default",
        name: b"x",
        path: b"/",
    };
    policy.evaluate(&asked).level
}

#[test]
fn the_cis_preset_does_what_3_2_2_asks_for() {
    for verb in ["get", "list", "watch", "create", "update", "patch", "delete"] {
        for (group, resource) in [
            ("", "secrets"),
            ("", "configmaps"),
            ("authentication.k8s.io", "tokenreviews"),
        ] {
            assert_eq!(
                level(Preset::Cis, verb, group, resource, ""),
                Level::Metadata,
                "{verb} {resource}"
            );
        }
    }
    for verb in ["create", "update", "patch", "delete"] {
        assert!(level(Preset::Cis, verb, "", "pods", "") > Level::None);
        assert!(level(Preset::Cis, verb, "apps", "deployments", "") > Level::None);
    }
    for (resource, subresource) in [
        ("pods", "exec"),
        ("pods", "portforward"),
        ("pods", "proxy"),
        ("services", "proxy"),
    ] {
        for verb in ["get", "create"] {
            assert!(
                level(Preset::Cis, verb, "", resource, subresource) > Level::None,
                "{resource}/{subresource}"
            );
        }
    }
}

#[test]
fn no_preset_hides_a_change() {
    for preset in Preset::ALL {
        for verb in ["create", "update", "patch", "delete", "deletecollection"] {
            for (group, resource) in [
                ("", "pods"),
                ("rbac.authorization.k8s.io", "rolebindings"),
                ("example.com", "widgets"),
            ] {
                assert!(
                    level(preset, verb, group, resource, "") > Level::None,
                    "{} {verb} {resource}",
                    preset.as_str()
                );
            }
        }
    }
}
