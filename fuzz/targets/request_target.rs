//! Any method and request target: resolved or refused, and the URI that goes into the event parses to the
//! same request.

#![no_main]

use kaudit_policy::{LongRunning, RequestInfoResolver, RequestTarget, source_ips, user_agent};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let (method, target) = match input.iter().position(|byte| *byte == b' ') {
        Some(space) => (&input[..space], &input[space + 1..]),
        None => (&b"GET"[..], input),
    };
    let _ = user_agent(Some(target)).as_bytes().len();
    let _ = source_ips(Some(target), Some(method), b"192.0.2.1:4711").len();
    let Ok(parsed) = RequestTarget::parse(method, target) else {
        return;
    };
    let uri = parsed.request_uri();
    let resolver = RequestInfoResolver::default();
    let Ok(info) = resolver.resolve(method, &parsed) else {
        return;
    };
    let _ = LongRunning::KubeApiserver.matches(&info);
    if method == b"CONNECT" || target.first() != Some(&b'/') {
        return;
    }
    let again = RequestTarget::parse(method, &uri).expect("the URI of an event parses");
    let again = resolver.resolve(method, &again).expect("and resolves");
    assert_eq!(info.path(), again.path());
    assert_eq!(info.verb(), again.verb());
    assert_eq!(info.name(), again.name());
});
