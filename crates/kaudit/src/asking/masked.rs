//! Values that nobody should read in passing.

use std::borrow::Cow;

use kaudit_event::EventView;
use kaudit_history::Mask;
use kaudit_history::patch::Resource;

/// The event with the values masked that nobody should read in passing.
pub(crate) fn masked<'a>(text: &'a [u8], event: &EventView<'a>, mask: &Mask) -> Cow<'a, [u8]> {
    let text_of = |key: &str| {
        event
            .object_ref()
            .map(|object| object.text(key))
            .unwrap_or_default()
    };
    let (group, resource, subresource) = (text_of("apiGroup"), text_of("resource"), text_of("subresource"));
    let [group, resource, subresource] =
        [&group, &resource, &subresource].map(|text| String::from_utf8_lossy(text).into_owned());
    let about = Resource {
        group: &group,
        resource: &resource,
    };
    let mut out: Option<Vec<u8>> = None;
    let mut copied = 0;
    let mut bodies: Vec<&'a [u8]> = [event.request_object(), event.response_object()]
        .into_iter()
        .flatten()
        .collect();
    bodies.sort_by_key(|body| body.as_ptr().addr());
    for body in bodies {
        let Cow::Owned(shown) = mask.body(about, &subresource, body) else {
            continue;
        };
        let start = body.as_ptr().addr() - text.as_ptr().addr();
        let out = out.get_or_insert_default();
        out.extend_from_slice(text.get(copied..start).unwrap_or_default());
        out.extend_from_slice(&shown);
        copied = start + body.len();
    }
    match out {
        None => Cow::Borrowed(text),
        Some(mut out) => {
            out.extend_from_slice(text.get(copied..).unwrap_or_default());
            Cow::Owned(out)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use kaudit_event::DecodedEvent;
    use kaudit_history::Reveal;

    #[test]
    fn both_bodies_of_a_secret_are_masked_and_the_rest_stays() {
        let body = r#"{"kind":"Secret","data":{"password":"aHVudGVyMg=="}}"#;
        let line = format!(
            r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"RequestResponse","auditID":"a","stage":"ResponseComplete","requestURI":"/","verb":"create","user":{{}},"objectRef":{{"resource":"secrets","namespace":"n","name":"s"}},"requestObject":{body},"responseObject":{body},"requestReceivedTimestamp":"2026-01-02T03:04:05.000006Z","stageTimestamp":"2026-01-02T03:04:05.000007Z"}}"#
        );
        let event = DecodedEvent::parse(Bytes::from(line.clone())).unwrap();
        let shown = masked(event.text(), &event.view(), &Mask::without_key(Reveal::No));
        let shown = std::str::from_utf8(&shown).unwrap();
        assert!(!shown.contains("aHVudGVyMg"), "{shown}");
        assert_eq!(shown.matches("\"password\":\"(masked").count(), 2, "{shown}");
        assert!(shown.ends_with("000007Z\"}"));
        serde_json::from_str::<serde_json::Value>(shown).unwrap();
        let revealed = masked(event.text(), &event.view(), &Mask::without_key(Reveal::Yes));
        assert_eq!(revealed, line.as_bytes());
    }
}
