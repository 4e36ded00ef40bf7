use std::collections::BTreeMap;

use bytes::Bytes;
use kaudit_event::{DecodedEvent, ndjson_items};
use kaudit_history::{Effect, Exactness, History, Limits, Noise, Target, diff};
use serde_json::Value;

fn events() -> Vec<DecodedEvent> {
    let packed = include_bytes!("../../../../testdata/real/rr-all.audit.jsonl.zst");
    let text = zstd::decode_all(&packed[..]).unwrap();
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| DecodedEvent::parse(Bytes::copy_from_slice(line)).unwrap())
        .collect()
}

#[test]
fn explore() {
    let mut events = events();
    events.sort_by_key(|event| {
        let time = event.view().stage_timestamp().unwrap();
        (time.unix_seconds, time.nanos)
    });
    let mut targets = std::collections::BTreeSet::new();
    for event in &events {
        let view = event.view();
        if let Some(r) = view.object_ref() {
            let t = |k| String::from_utf8_lossy(&r.text(k)).into_owned();
            if !t("name").is_empty() && matches!(&*view.verb(), b"create" | b"update" | b"patch") {
                targets.insert((t("apiGroup"), t("resource"), t("namespace"), t("name")));
            }
        }
    }
    let mut count = BTreeMap::new();
    for (g, r, ns, n) in &targets {
        let target = Target::new(g, r, ns, n);
        let mut full = History::new(target.clone(), Limits::default());
        let mut requests = History::new(target, Limits::default());
        for (number, event) in events.iter().enumerate() {
            let number = number as u64;
            full.push(number, &event.view());
            let mut value: Value = serde_json::from_str(&String::from_utf8_lossy(event.text())).unwrap();
            if value["verb"] != "get" && value.get("responseObject").is_some() {
                value.as_object_mut().unwrap().shift_remove("responseObject");
                let s = DecodedEvent::parse(Bytes::from(value.to_string())).unwrap();
                let _ = &s;
                if full.target().relation(&event.view()) != kaudit_history::Relation::None { requests.push(number, &s.view()); }
            }
        }
        for v in requests.versions() {
            *count.entry((v.exactness.as_str(), v.effect == Effect::Changed)).or_insert(0) += 1;
            let Some(f) = full.versions().find(|f| f.origin.event == v.origin.event) else { println!("ONLY {g} {r} {n} {:?} {:?}", v.effect, v.origin.verb); continue };
            if f.effect != v.effect && f.effect != Effect::Unchanged { println!("EFFECT {r} {n} {} {:?} vs {:?} {}", v.origin.verb, f.effect, v.effect, v.reason) }
            match (&f.object, &v.object) {
                (Some(f_o), Some(v_o)) => {
                    let d = diff(v_o, f_o, Noise::Shown);
                    if f.exactness == Exactness::Exact {
                        for c in d.changes {
                            let p = c.path.to_string();
                            if p.starts_with("metadata.managedFields") || p.starts_with("status") || ["metadata.uid","metadata.creationTimestamp","metadata.resourceVersion","metadata.generation"].contains(&p.as_str()) { continue }
                            println!("DIFF {r} {n} {} {} {p} {:.150}", v.origin.verb, v.origin.subresource, format!("{:?}", c.what));
                        }
                    }
                }
                (None, Some(_)) | (Some(_), None) => println!("MISSING {r} {n} {} {} {}", v.origin.verb, v.origin.subresource, v.reason),
                _ => {}
            }
        }
        for f in full.versions() { if let Some(u) = &f.unseen { println!("UNSEEN {r} {n} {} {} {} {u}", f.origin.verb, f.origin.subresource, f.origin.user); }
          if f.exactness != Exactness::Exact { println!("NOTEXACT {r} {n} {} {} {:?} {}", f.origin.verb, f.origin.subresource, f.effect, f.reason); } }
    }
    println!("{count:?} {}", targets.len());
    let _ = ndjson_items;
}
