use kaudit_history::patch::Resource;
use kaudit_history::{Author, Blame, BlameLine, Mask, Noise, Path, Reveal, What, diff};
use serde_json::{Value, json};

use super::{Said, Told, config_map, sent};

const CONFIG_MAPS: Resource<'_> = Resource {
    group: "",
    resource: "configmaps",
};
const DEPLOYMENTS: Resource<'_> = Resource {
    group: "apps",
    resource: "deployments",
};

fn author(told: &Told, path: &str) -> Author {
    let last = told.history.versions().len() - 1;
    let blame = Blame::of(&told.history, last).unwrap();
    let leaves = blame.leaves();
    leaves
        .iter()
        .find(|leaf| leaf.path.to_string() == path)
        .unwrap()
        .author
}

fn printed(lines: &[BlameLine]) -> Vec<String> {
    lines
        .iter()
        .map(|line| {
            let author = match line.author {
                Author::NotRecorded => "-".to_owned(),
                Author::Version(at) => at.to_string(),
                Author::Within { after, until } => {
                    format!("{}..{until}", after.map_or(String::new(), |at| at.to_string()))
                }
            };
            let was = line
                .was
                .as_ref()
                .map(|was| format!("  # was {was}"))
                .unwrap_or_default();
            format!("{author:>4} {}{}{was}", " ".repeat(line.indent), line.text)
        })
        .collect()
}

fn deployment(version: u64, replicas: u64, image: &str) -> Value {
    json!({"kind": "Deployment", "apiVersion": "apps/v1",
        "metadata": {"name": "a", "namespace": "n", "resourceVersion": version.to_string(), "managedFields": [{"manager": "m"}]},
        "spec": {"replicas": replicas, "template": {"spec": {"containers": [
            {"name": "api", "image": image, "args": ["-v", "no", "8080:80"], "env": []},
            {"name": "side", "image": "s:1"}]}}}})
}

#[test]
fn lines_name_the_version_that_wrote_them() {
    let mut told = Told::about("apps", "deployments");
    told.say(Said::new("update").response(deployment(1, 2, "api:1")));
    told.say(
        Said::new("patch")
            .request(json!({}))
            .response(deployment(2, 3, "api:1")),
    );
    told.say(
        Said::new("patch")
            .request(json!({}))
            .response(deployment(3, 3, "api:2")),
    );
    let blame = Blame::of(&told.history, 2).unwrap();
    let mask = Mask::without_key(Reveal::No);
    assert_eq!(
        printed(&blame.lines(None, Noise::Folded, &mask, DEPLOYMENTS)),
        [
            "   - kind: Deployment",
            "   - apiVersion: apps/v1",
            "   - metadata:",
            "   -   name: a",
            "   -   namespace: \"n\"",
            "   2 spec:",
            "   1   replicas: 3  # was 2",
            "   2   template:",
            "   2     spec:",
            "   2       containers:",
            "   -       - name: api",
            "   2         image: api:2  # was api:1",
            "   -         args:",
            "   -         - \"-v\"",
            "   -         - \"no\"",
            "   -         - \"8080:80\"",
            "   -         env: []",
            "   -       - name: side",
            "   -         image: s:1",
        ]
    );
    let path = Path::parse("spec.template.spec.containers[side]").unwrap();
    assert_eq!(
        printed(&blame.lines(Some(&path), Noise::Folded, &mask, DEPLOYMENTS)),
        ["   - - name: side", "   -   image: s:1"]
    );
    let path = Path::parse("spec.nothing").unwrap();
    assert_eq!(blame.lines(Some(&path), Noise::Folded, &mask, DEPLOYMENTS), []);
    // Of the version in between.
    assert_eq!(Blame::of(&told.history, 1).unwrap().version(), 1);
}

#[test]
fn a_changed_line_of_a_text_is_the_only_one_that_is_new() {
    let mut told = Told::about("", "configmaps");
    told.say(Said::new("create").response(config_map(1, json!({"conf": "a=1\nb=2\nc=3\n"}))));
    told.say(Said::new("update").response(config_map(2, json!({"conf": "a=1\nb=9\nc=3\n"}))));
    let blame = Blame::of(&told.history, 1).unwrap();
    let mask = Mask::without_key(Reveal::No);
    let path = Path::parse("data.conf").unwrap();
    assert_eq!(
        printed(&blame.lines(Some(&path), Noise::Folded, &mask, CONFIG_MAPS)),
        ["   1 conf: |", "   0   a=1", "   1   b=9", "   0   c=3"]
    );
}

#[test]
fn what_a_server_fills_in_is_not_blamed_on_who_comes_next() {
    let mut told = Told::about("", "configmaps");
    told.say(Said::new("create").request(sent(json!({"k": "1"}))));
    told.say(
        Said::new("patch")
            .user("bob")
            .request(json!({"data": {"l": "2"}}))
            .response(config_map(2, json!({"k": "1", "l": "2"}))),
    );
    assert_eq!(author(&told, "data.k"), Author::Version(0));
    assert_eq!(author(&told, "data.l"), Author::Version(1));
    assert_eq!(
        author(&told, "metadata.uid"),
        Author::Within {
            after: None,
            until: 1
        }
    );
}

#[test]
fn a_write_that_is_not_known_makes_the_author_uncertain() {
    let mut told = Told::about("", "configmaps");
    told.say(Said::new("create").response(config_map(1, json!({"k": "1", "l": "1"}))));
    told.say(Said::new("patch").user("bob"));
    told.say(Said::new("update").response(config_map(3, json!({"k": "1", "l": "2"}))));
    assert_eq!(author(&told, "data.k"), Author::Version(0));
    assert_eq!(
        author(&told, "data.l"),
        Author::Within {
            after: Some(0),
            until: 2
        }
    );
}

#[test]
fn changes_without_an_event_are_told_from_those_of_the_patch() {
    let mut told = Told::about("", "configmaps");
    told.say(Said::new("create").response(config_map(1, json!({"k": "1", "l": "1", "m": "1"}))));
    told.say(Said::new("get").response(config_map(2, json!({"k": "2", "l": "1", "m": "1"}))));
    assert_eq!(
        author(&told, "data.k"),
        Author::Within {
            after: Some(0),
            until: 1
        }
    );
    let mut request = sent(json!({"l": "2"}));
    request["metadata"]["resourceVersion"] = json!("5");
    told.say(
        Said::new("patch")
            .request(request)
            .response(config_map(6, json!({"k": "2", "l": "2", "m": "9"}))),
    );
    assert_eq!(author(&told, "data.l"), Author::Version(2));
    assert_eq!(
        author(&told, "data.m"),
        Author::Within {
            after: Some(1),
            until: 2
        }
    );
}

#[test]
fn nothing_is_taken_over_from_an_object_that_is_gone() {
    let mut told = Told::about("", "configmaps");
    told.say(Said::new("create").response(config_map(1, json!({"k": "1"}))));
    told.say(Said::new("delete"));
    told.say(
        Said::new("create")
            .user("bob")
            .response(config_map(5, json!({"k": "1"}))),
    );
    assert_eq!(author(&told, "data.k"), Author::Version(2));
}

#[test]
fn differences_have_paths_that_people_read() {
    let old = deployment(1, 2, "api:1");
    let mut new = deployment(2, 3, "api:2");
    new["metadata"]["labels"] = json!({"app.kubernetes.io/name": "x"});
    new["spec"]["template"]["spec"]["containers"][0]["args"] = json!(["-v", "yes", "8080:80", "more"]);
    new["spec"]["template"]["spec"]["containers"]
        .as_array_mut()
        .unwrap()
        .swap(0, 1);
    new["status"] = json!({"replicas": 2});
    let told = diff(&old, &new, Noise::FoldedWithStatus);
    let changes: Vec<String> = told
        .changes
        .iter()
        .map(|change| {
            let what = match &change.what {
                What::Added(value) => format!("+ {value}"),
                What::Removed(value) => format!("- {value}"),
                What::Changed { from, to } => format!("{from} -> {to}"),
                What::Reordered => "reordered".to_owned(),
            };
            format!("{} {what}", change.path)
        })
        .collect();
    assert_eq!(
        changes,
        [
            r#"metadata.labels + {"app.kubernetes.io/name":"x"}"#,
            "spec.replicas 2 -> 3",
            "spec.template.spec.containers reordered",
            r#"spec.template.spec.containers[api].image "api:1" -> "api:2""#,
            r#"spec.template.spec.containers[api].args[1] "no" -> "yes""#,
            r#"spec.template.spec.containers[api].args[3] + "more""#,
        ]
    );
    assert_eq!(
        (
            told.folded.resource_version,
            told.folded.status,
            told.folded.total()
        ),
        (1, 1, 2)
    );
    assert_eq!(diff(&old, &new, Noise::Shown).changes.len(), 8);
    for change in &told.changes {
        assert_eq!(Path::parse(&change.path.to_string()).unwrap(), change.path);
    }
}

#[test]
fn texts_of_clients_cannot_break_out_of_a_line() {
    let mut told = Told::about("", "configmaps");
    told.say(Said::new("create").response(config_map(
        1,
        json!({"a": "x\u{1b}[31m", "b": "x\ny\u{202e}\nz", "c": "x: y", "k\ney": "true", "d": " x\ny\n", "e": "", "f": "-"}),
    )));
    let blame = Blame::of(&told.history, 0).unwrap();
    let lines = blame.lines(
        Some(&Path::parse("data").unwrap()),
        Noise::Folded,
        &Mask::without_key(Reveal::No),
        CONFIG_MAPS,
    );
    let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "data:",
            r#"a: "x\u001b[31m""#,
            r#"b: "x\ny\u202e\nz""#,
            r#"c: "x: y""#,
            r#""k\ney": "true""#,
            r#"d: " x\ny\n""#,
            r#"e: """#,
            r#"f: "-""#,
        ]
    );
}
