//! The canonical form.

use kaudit_policy::{FormatError, Policy, format};

use crate::properties::bare;

fn formatted(text: &str) -> String {
    let once = format(text.as_bytes()).unwrap();
    assert_eq!(format(once.as_bytes()).unwrap(), once, "not idempotent:\n{once}");
    once
}

#[test]
fn keys_have_an_order_and_comments_keep_their_place() {
    let text = "# The head.

kind:   Policy  # what
apiVersion: audit.k8s.io/v1
rules:
- # about bob
  users: ['bob']   # nobody else
  level: None


# everything else
- {level: Metadata, resources: [{resources: [\"*\"], group: ''}]}   # flow
# the end of the rules
omitStages:
- RequestReceived # twice
# The tail.
";
    assert_eq!(
        formatted(text),
        "# The head.

apiVersion: audit.k8s.io/v1
kind: Policy # what
# the end of the rules
omitStages:
  - RequestReceived # twice
rules:
  # about bob
  - level: None
    users: [bob] # nobody else

  # everything else
  # flow
  - level: Metadata
    resources:
      - group: \"\"
        resources: [\"*\"]
# The tail.
"
    );
}

#[test]
fn no_comment_is_lost() {
    let text = "--- # 1
# 2
apiVersion: audit.k8s.io/v1 # 3
kind: Policy
rules: # 4
# 5
- level: None # 6
  # 7
  verbs: # 8
  # 9
  - get # 10
  # 11
  - 'a # no' # 12
  nonResourceURLs: [ # 13
    /a, # 14
    # 15
    /b # 16
  ] # 17
  # 18
- level: \"Metadata\" # 19
  users: [\"#no\", a#no]
  # 20
# 21
... # 22
";
    let formatted = formatted(text);
    for number in 1..=22 {
        let comment = format!("# {number}\n");
        assert_eq!(formatted.matches(&comment).count(), 1, "{comment}:\n{formatted}");
    }
}

#[test]
fn long_lists_take_one_line_per_item() {
    let names: Vec<String> = (0..20).map(|number| format!("name-{number}")).collect();
    let text = format!(
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: None\n  users: [{}]\n",
        names.join(", ")
    );
    let formatted = formatted(&text);
    assert!(
        formatted.contains("    users:\n      - name-0\n      - name-1\n"),
        "{formatted}"
    );
}

#[test]
fn json_becomes_yaml_and_unknown_fields_stay() {
    let text = r#"{"rules":[{"bar":{"b":1,"a":[1,[true,null]]},"level":"Metadata"}],"kind":"Policy","apiVersion":"audit.k8s.io/v1"}"#;
    assert_eq!(
        formatted(text),
        "apiVersion: audit.k8s.io/v1
kind: Policy
rules:
  - level: Metadata
    bar:
      b: 1
      a:
        - 1
        - [true, null]
"
    );
}

#[test]
fn a_tag_that_a_comma_ends_is_an_error_and_no_panic() {
    let error = Policy::parse(b"a: [!b,c]\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed decoding: yaml: did not find expected whitespace or line break"
    );
}

#[test]
fn a_second_document_is_not_dropped() {
    let text = "apiVersion: audit.k8s.io/v1\nkind: Policy\n---\nkind: Other\n";
    assert_eq!(
        format(text.as_bytes()),
        Err(FormatError::SeveralDocuments { line: 3 })
    );
}

#[test]
fn a_repeated_field_is_refused_since_either_might_be_meant() {
    let error = |text: &str| format(text.as_bytes()).unwrap_err().to_string();
    let expected = "line 3: field \"kind\" stands here twice; delete the one that is not meant";
    assert_eq!(
        error("apiVersion: audit.k8s.io/v1\nkind: Policy\nkind: Policy\n"),
        expected
    );
    assert_eq!(error("{\"kind\":\"Policy\",\n\n\"kind\":\"Policy\"}"), expected);
}

#[test]
fn vector_policies_mean_the_same_after_formatting() {
    let folder = std::env::var_os("KAUDIT_VECTORS").map_or_else(
        || concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/vectors").into(),
        std::path::PathBuf::from,
    );
    let text = std::fs::read_to_string(folder.join("policy-load.jsonl")).unwrap();
    let mut count = 0;
    for line in text.lines() {
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        let Some(document) = case["doc"].as_str() else {
            continue;
        };
        let Ok((before, _)) = Policy::parse(document.as_bytes()) else {
            continue;
        };
        let formatted = match format(document.as_bytes()) {
            Ok(formatted) => formatted,
            Err(FormatError::SeveralDocuments { .. } | FormatError::Repeated { .. }) => continue,
            // Upstream reads no further than the first document.
            Err(FormatError::Unreadable(_)) if document.contains("---") || document.contains("...") => {
                continue;
            }
            Err(error) => panic!("{}: {error}", case["id"]),
        };
        let (after, _) = Policy::parse(formatted.as_bytes())
            .unwrap_or_else(|error| panic!("{}: {error}\n{formatted}", case["id"]));
        assert_eq!(bare(&before), bare(&after), "{}\n{formatted}", case["id"]);
        assert_eq!(format(formatted.as_bytes()).unwrap(), formatted, "{}", case["id"]);
        count += 1;
    }
    assert!(count > 20, "only {count} policies");
}

#[test]
fn other_line_breaks_and_letters_outside_of_yaml_are_kept() {
    let text = "# a\r# b\u{85}kind: \"\\u0085\\u2028\\ufeff\\U0001f600\" # c\u{2028}# d\r\nrules: []\n";
    let formatted = formatted(text);
    assert_eq!(
        formatted,
        "# a\n# b\nkind: \"\\u0085\\u2028\\ufeff\\U0001f600\" # c\n# d\nrules: []\n"
    );
}
