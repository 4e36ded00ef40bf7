//! The legacy one-line text format.
//!
//! Source: k8s.io/apiserver pkg/audit/format.go, EventString.

mod printable;

use super::string::hex;
use crate::time::Civil;
use crate::{Event, MicroTime, Text};
use printable::PRINTABLE;

pub(super) fn write_line(event: &Event, out: &mut Vec<u8>) {
    push_time(out, event.request_received_timestamp);
    out.extend_from_slice(b" AUDIT:");
    let user = &event.user;
    let username: &[u8] = if user.username.is_empty() {
        b"<none>"
    } else {
        user.username.as_bytes()
    };
    let groups = match user.groups.as_deref() {
        Some(groups) if !user.username.is_empty() && !groups.is_empty() => group_list(groups),
        _ => b"<none>".to_vec(),
    };
    let (as_user, as_groups) = event.impersonated_user.as_ref().map_or_else(
        || (b"<self>".as_slice(), b"<lookup>".to_vec()),
        |user| {
            let groups = user
                .groups
                .as_deref()
                .map_or_else(|| b"<lookup>".to_vec(), group_list);
            (user.username.as_bytes(), groups)
        },
    );
    let namespace = event
        .object_ref
        .as_ref()
        .map_or(b"".as_slice(), |reference| reference.namespace.as_bytes());
    push_field(out, "id", event.audit_id.as_bytes());
    push_field(out, "stage", event.stage.as_bytes());
    push_field(
        out,
        "ip",
        event
            .source_ips
            .first()
            .map_or(b"<unknown>".as_slice(), Text::as_bytes),
    );
    push_field(out, "method", event.verb.as_bytes());
    push_field(out, "user", username);
    push_field(out, "groups", &groups);
    push_field(out, "as", as_user);
    push_field(out, "asgroups", &as_groups);
    push_field(out, "user-agent", event.user_agent.as_bytes());
    push_field(
        out,
        "namespace",
        if namespace.is_empty() {
            b"<none>"
        } else {
            namespace
        },
    );
    push_field(out, "uri", event.request_uri.as_bytes());
    out.extend_from_slice(b" response=\"");
    match &event.response_status {
        None => out.extend_from_slice(b"<deferred>"),
        Some(status) => out.extend_from_slice(status.code.to_string().as_bytes()),
    }
    out.extend_from_slice(b"\"\n");
}

fn push_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.push(b' ');
    out.extend_from_slice(name.as_bytes());
    out.push(b'=');
    push_quoted(out, value);
}

fn group_list(groups: &[Text]) -> Vec<u8> {
    let mut list = Vec::new();
    for (index, group) in groups.iter().enumerate() {
        if index > 0 {
            list.push(b',');
        }
        push_quoted(&mut list, group.as_bytes());
    }
    list
}

/// RFC 3339 with nanoseconds in the time's own zone, trailing zeros of the fraction left out.
fn push_time(out: &mut Vec<u8>, time: MicroTime) {
    Civil::from_unix(time.unix_seconds.saturating_add(i64::from(time.offset_seconds))).push(out);
    if time.nanos > 0 {
        let fraction = format!("{:09}", time.nanos);
        out.push(b'.');
        out.extend_from_slice(fraction.trim_end_matches('0').as_bytes());
    }
    if time.offset_seconds == 0 {
        out.push(b'Z');
        return;
    }
    let minutes = time.offset_seconds.unsigned_abs() / 60;
    out.push(if time.offset_seconds < 0 { b'-' } else { b'+' });
    super::push_padded(out, u64::from(minutes / 60), 2);
    out.push(b':');
    super::push_padded(out, u64::from(minutes % 60), 2);
}

/// Go's `%q`. Source: Go strconv quote.go, appendQuotedWith.
pub(crate) fn push_quoted(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            push_character(out, character);
        }
        for byte in chunk.invalid() {
            push_hex_byte(out, *byte);
        }
    }
    out.push(b'"');
}

fn push_hex_byte(out: &mut Vec<u8>, byte: u8) {
    out.extend_from_slice(&[b'\\', b'x', hex(byte >> 4), hex(byte)]);
}

fn push_character(out: &mut Vec<u8>, character: char) {
    let short = match character {
        '"' => b'"',
        '\\' => b'\\',
        '\u{7}' => b'a',
        '\u{8}' => b'b',
        '\u{c}' => b'f',
        '\n' => b'n',
        '\r' => b'r',
        '\t' => b't',
        '\u{b}' => b'v',
        _ if is_printable(character) => {
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            return;
        }
        '\0'..' ' | '\u{7f}' => {
            push_hex_byte(out, u8::try_from(character).unwrap_or_default());
            return;
        }
        _ => {
            let code = u32::from(character);
            let text = if code < 0x10000 {
                format!("\\u{code:04x}")
            } else {
                format!("\\U{code:08x}")
            };
            out.extend_from_slice(text.as_bytes());
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

fn is_printable(character: char) -> bool {
    if character.is_ascii() {
        return matches!(character, ' '..='~');
    }
    let code = u32::from(character);
    let after = PRINTABLE.partition_point(|(first, _)| *first <= code);
    after
        .checked_sub(1)
        .and_then(|at| PRINTABLE.get(at))
        .is_some_and(|(_, last)| code <= *last)
}
