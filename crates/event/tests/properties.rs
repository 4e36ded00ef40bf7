//! What holds for every event and every text.

#![expect(clippy::indexing_slicing, reason = "the indices are drawn below the length")]

use bytes::Bytes;
use kaudit_event::record::{Record, TailPosition, Transport};
use kaudit_event::{
    DecodedEvent, Eid, Event, EventLine, Level, MicroTime, ObjectReference, Stage, Status, StatusDetails,
    Text, Unknown, UserInfo, check_json, event_list_items, ndjson_items, without_managed_fields,
    write_event_list,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

/// Mostly text, at times bytes that are none.
fn text() -> impl Strategy<Value = Text> {
    prop_oneof![
        4 => "\\PC{0,12}".prop_map(Text::from),
        1 => vec(any::<u8>(), 0..8).prop_map(Text::from),
        1 => Just(Text::from_static("<a>&\u{2028}\"\\\u{7f}\u{1}")),
    ]
}

fn user() -> impl Strategy<Value = UserInfo> {
    let extra = btree_map("[a-z./<]{0,6}", vec(text(), 0..3), 0..3);
    (text(), text(), option::of(vec(text(), 1..4)), extra).prop_map(|(username, uid, groups, extra)| {
        UserInfo {
            username,
            uid,
            groups,
            extra: extra
                .into_iter()
                .map(|(key, values)| (key.into(), Some(values)))
                .collect(),
        }
    })
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        "\\PC{0,8}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(serde_json::Value::from),
            btree_map("[a-zA-Z]{0,5}|metadata|managedFields|items", inner, 0..5)
                .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

fn body() -> impl Strategy<Value = Option<Unknown>> {
    option::of(json().prop_map(|value| Unknown::json(Bytes::from(value.to_string()))))
}

fn status() -> impl Strategy<Value = Status> {
    (text(), text(), any::<i32>(), option::of((text(), text()))).prop_map(
        |(message, reason, code, details)| Status {
            message,
            reason,
            code,
            details: details.map(|(name, kind)| StatusDetails {
                name,
                kind,
                ..StatusDetails::default()
            }),
            ..Status::default()
        },
    )
}

prop_compose! {
    fn event()(
        (level, stage) in (0..4_usize, 0..4_usize),
        (audit_id, request_uri, verb, user_agent) in (text(), text(), text(), text()),
        (user, impersonated_user) in (user(), option::of(user())),
        source_ips in vec(text(), 0..3),
        object_ref in option::of((text(), text())),
        response_status in option::of(status()),
        (request_object, response_object) in (body(), body()),
        (seconds, micros) in (-62_135_596_800_i64..253_402_300_800, 0..1_000_000_u32),
        annotations in btree_map("[a-z./&]{0,9}", text(), 0..4),
    ) -> Event {
        let levels = [Level::None, Level::Metadata, Level::Request, Level::RequestResponse];
        let stages = [Stage::RequestReceived, Stage::ResponseStarted, Stage::ResponseComplete, Stage::Panic];
        Event {
            level: levels[level].into(),
            stage: stages[stage].into(),
            audit_id, request_uri, verb, user_agent, user, impersonated_user, source_ips,
            object_ref: object_ref.map(|(resource, name)| ObjectReference { resource, name, ..ObjectReference::default() }),
            response_status, request_object, response_object,
            stage_timestamp: MicroTime::from_unix(seconds, micros * 1000),
            annotations: annotations.into_iter().map(|(key, value)| (key.into(), value)).collect(),
            ..Event::default()
        }
    }
}

proptest! {
    #[test]
    fn a_line_is_decoded_to_what_encodes_to_it(event in event()) {
        let mut line = Vec::new();
        event.write_json_line(&mut line).unwrap();
        prop_assert!(check_json(&line).is_ok());
        let decoded = Event::from_json_line(&line).unwrap();
        let mut again = Vec::new();
        decoded.write_json_line(&mut again).unwrap();
        prop_assert_eq!(String::from_utf8_lossy(&again), String::from_utf8_lossy(&line));
        let view = DecodedEvent::parse(Bytes::from(line)).unwrap();
        prop_assert_eq!(view.view().level(), event.level.known());
        prop_assert_eq!(view.view().annotations().count(), event.annotations.len());
    }

    #[test]
    fn a_list_and_its_items_agree(events in vec(event(), 0..4)) {
        let mut list = Vec::new();
        write_event_list(&events, &mut list).unwrap();
        let items: Vec<_> = event_list_items(&list).map(Result::unwrap).collect();
        let mut expected = Vec::new();
        for event in &events {
            let mut item = Vec::new();
            event.write_json_item(&mut item).unwrap();
            expected.push(item);
        }
        prop_assert_eq!(items, expected);
    }

    #[test]
    fn compaction_is_what_another_implementation_says(value in json()) {
        let pretty = serde_json::to_vec_pretty(&value).unwrap();
        let event = Event { request_object: Some(Unknown::json(Bytes::from(pretty))), ..Event::default() };
        let mut line = Vec::new();
        event.write_json_line(&mut line).unwrap();
        let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
        prop_assert_eq!(&line["requestObject"], &value);
    }

    #[test]
    fn managed_fields_are_gone_and_the_rest_is_there(value in json()) {
        let text = value.to_string();
        let ours: serde_json::Value = match without_managed_fields(text.as_bytes()) {
            Some(rest) => serde_json::from_slice(&rest).unwrap(),
            None => value.clone(),
        };
        prop_assert_eq!(ours, naive(value));
    }

    #[test]
    fn no_text_makes_a_decoder_panic(text in vec(any::<u8>(), 0..200)) {
        drop(Event::decode(&text));
        drop(DecodedEvent::parse(Bytes::from(text.clone())));
        prop_assert!(ndjson_items(&text).count() <= text.len());
        prop_assert!(event_list_items(&text).count() <= text.len() + 1);
        drop(Record::read(&Bytes::from(text)));
    }

    #[test]
    fn a_damaged_line_makes_no_decoder_panic(event in event(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut line = Vec::new();
        event.write_json_line(&mut line).unwrap();
        let at = at.index(line.len());
        line[at] = byte;
        drop(Event::decode(&line));
        if let Ok(decoded) = DecodedEvent::parse(Bytes::from(line)) {
            let view = decoded.view();
            prop_assert!(view.source_ips().count() < 10);
            prop_assert!(view.user().texts("groups").count() < 100);
        }
    }

    #[test]
    fn a_line_is_scanned_and_has_the_id_of_its_event(event in event()) {
        let mut line = Vec::new();
        event.write_json_line(&mut line).unwrap();
        let scanned = EventLine::scan(&line).unwrap();
        prop_assert_eq!(scanned.eid(&[3; 32], "c"), Eid::of(&[3; 32], "c", &event).unwrap());
        prop_assert_eq!(scanned.stage_timestamp(), event.stage_timestamp);
    }

    #[test]
    fn a_scanned_text_is_what_the_encoder_writes_for_it(
        event in event(),
        at in any::<prop::sample::Index>(),
        insert in prop::sample::select(vec![
            &b" "[..], b"\n", b"<", b"\\u003c", b"\\u0041", b"\\", b"0", b"null", b"{}", b"[]", b",", b"\"", b"\xff", b"\xe2\x80\xa8", b"\\ufffd",
            b"}", b"", b"a",
        ]),
        removed in 0..2_usize,
    ) {
        let mut line = Vec::new();
        event.write_json_line(&mut line).unwrap();
        let at = at.index(line.len());
        line.splice(at..(at + removed).min(line.len()), insert.iter().copied());
        if let Some(scanned) = EventLine::scan(&line) {
            let decoded = Event::from_item(&line).unwrap();
            let mut again = Vec::new();
            decoded.write_json_line(&mut again).unwrap();
            let mut expected = Vec::new();
            scanned.write_line(&mut expected);
            expected.push(b'\n');
            prop_assert_eq!(String::from_utf8_lossy(&again), String::from_utf8_lossy(&expected));
            prop_assert_eq!(scanned.eid(&[3; 32], "c"), Eid::of(&[3; 32], "c", &decoded).unwrap());
        }
    }

    #[test]
    fn records_survive(
        texts in prop::array::uniform3("\\PC{0,200}"),
        (seq, received_micros) in (any::<u64>(), any::<i64>()),
        tail in option::of(("\\PC{0,20}", any::<u64>())),
        matched_rule in option::of(any::<u32>()),
        event in vec(any::<u8>(), 0..100),
        transport in prop::sample::select(vec![
            Transport::Gateway, Transport::Webhook, Transport::File, Transport::Forward, Transport::Own,
        ]),
    ) {
        let [cluster, source, instance] = texts;
        let record = Record {
            cluster, source, instance, seq, received_micros, transport, matched_rule,
            tail: tail.map(|(file, offset)| TailPosition { file, offset }),
            event: Bytes::from(event),
        };
        let mut bytes = Vec::new();
        record.write(&mut bytes).unwrap();
        prop_assert_eq!(Record::read(&Bytes::from(bytes)).unwrap(), record);
    }
}

/// The same by a tree.
fn naive(mut value: serde_json::Value) -> serde_json::Value {
    fn object(value: &mut serde_json::Value) {
        if let Some(metadata) = value
            .get_mut("metadata")
            .and_then(serde_json::Value::as_object_mut)
        {
            metadata.shift_remove("managedFields");
        }
    }
    if !value.is_object() {
        return value;
    }
    object(&mut value);
    if let Some(items) = value.get_mut("items").and_then(serde_json::Value::as_array_mut) {
        items.iter_mut().for_each(object);
    }
    value
}
