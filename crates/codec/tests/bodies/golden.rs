//! Objects in protobuf beside what Go's own types make of them.

use std::collections::BTreeSet;

use kaudit_codec::{Unprintable, protobuf};

use crate::vectors;

#[test]
fn every_kind_is_printed_as_go_prints_it() {
    let mut unprinted = BTreeSet::new();
    let mut wrong = Vec::new();
    let vectors = vectors::read();
    for vector in &vectors {
        let name = format!("{} {} {}", vector.api_version, vector.kind, vector.shape);
        match protobuf::to_json(&vector.bytes(), usize::MAX) {
            Ok(json) if json == vector.json.as_bytes() => {}
            Ok(json) => wrong.push(format!(
                "{name}\n ours: {}\n go's: {}",
                String::from_utf8_lossy(&json),
                vector.json
            )),
            Err(_) => {
                unprinted.insert(name);
            }
        }
    }
    assert!(vectors.len() > 2000, "{} vectors", vectors.len());
    assert!(
        unprinted.is_empty(),
        "{} not printed: {unprinted:#?}",
        unprinted.len()
    );
    assert!(
        wrong.is_empty(),
        "{} of {}: {}",
        wrong.len(),
        vectors.len(),
        wrong.iter().take(3).cloned().collect::<Vec<_>>().join("\n")
    );
}

#[test]
fn json_beyond_the_limit_is_not_printed() {
    for vector in vectors::read()
        .iter()
        .filter(|vector| vector.shape == "dense")
        .step_by(7)
    {
        let (wire, length) = (vector.bytes(), vector.json.len());
        assert_eq!(protobuf::to_json(&wire, length).unwrap().len(), length);
        assert_eq!(protobuf::to_json(&wire, length - 1), Err(Unprintable::TooLarge));
    }
}

#[test]
fn discovery_documents_have_no_version() {
    let wire = b"k8s\0\x0a\x11\x12\x0fAPIResourceList\x12\x04\x0a\x02v1\x1a\x00\x22\x00";
    assert_eq!(
        protobuf::to_json(wire, 100).unwrap(),
        br#"{"kind":"APIResourceList","groupVersion":"v1","resources":null}"#
    );
    let pod = b"k8s\0\x0a\x05\x12\x03Pod\x12\x00";
    assert_eq!(protobuf::to_json(pod, 100), Err(Unprintable::NotUnderstood));
}
