//! Any text as an event: it is decoded or refused; what was decoded survives encoding and decoding.

#![no_main]

use bytes::Bytes;
use kaudit_event::{DecodedEvent, Event, EventList, event_list_items, ndjson_items, without_managed_fields};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let bytes = Bytes::copy_from_slice(text);
    if let Ok(event) = DecodedEvent::parse(bytes.clone()) {
        let view = event.view();
        let _ = (view.level(), view.stage(), view.user().text("username").len());
        assert_eq!(event.text(), &bytes);
    }
    for item in event_list_items(text).chain(ndjson_items(text)).flatten() {
        assert!(item.first() == Some(&b'{'), "an item is an object");
    }
    let _ = EventList::decode(text).map(|list| list.items.map_or(0, |items| items.len()));
    if let Ok(event) = Event::decode(text) {
        round_trip(&event);
    }
    if let Ok(event) = Event::from_json_line(text) {
        round_trip(&event);
    }
    let _ = without_managed_fields(text);
});

fn round_trip(event: &Event) {
    // Maps are written in the order of their keys, which is lost where bytes are written as U+FFFD.
    let is_text = |text: &[u8]| std::str::from_utf8(text).is_ok();
    let impersonated = event.impersonated_user.iter();
    let extra = impersonated.chain([&event.user]).flat_map(|user| &user.extra);
    if !extra
        .map(|(key, _)| key)
        .chain(event.annotations.iter().map(|(key, _)| key))
        .all(|key| is_text(key.as_bytes()))
    {
        return;
    }
    let mut line = Vec::new();
    if event.write_json_line(&mut line).is_err() {
        return;
    }
    let back = Event::from_json_line(&line).expect("a line that was written can be read");
    let mut again = Vec::new();
    back.write_json_line(&mut again).expect("and written again");
    assert_eq!(
        String::from_utf8_lossy(&line),
        String::from_utf8_lossy(&again),
        "a line that was read is written as it was"
    );
    let mut legacy = Vec::new();
    event.write_legacy_line(&mut legacy);
    assert_eq!(legacy.last(), Some(&b'\n'));
}
