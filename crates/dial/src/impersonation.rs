//! Whom one asks to be, in headers.

/// A key of a user's extra as the end of the name of an `Impersonate-Extra-` header: what cannot stand there, and what
/// servers would make lower-case, as percent escapes, so that every key comes back as it was.
///
/// client-go leaves upper-case letters as they are, and the server then knows another key.
///
/// Source: k8s.io/client-go transport/round_trippers.go, headerKeyEscape; k8s.io/apiserver
/// pkg/endpoints/filters/impersonation.go, unescapeExtraKey.
#[must_use]
pub fn escaped_extra_key(key: &[u8]) -> String {
    let mut escaped = String::with_capacity(key.len());
    for byte in key {
        if byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$&'*+-.^_`|~".contains(byte) {
            escaped.push(char::from(*byte));
        } else {
            escaped.push('%');
            for nibble in [byte >> 4, byte & 15] {
                escaped.extend(char::from_digit(nibble.into(), 16));
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_escaped_as_the_name_of_a_header_wants_it() {
        for (key, escaped) in [
            ("scopes", "scopes"),
            ("example.com/Scope", "example.com%2f%53cope"),
            ("a%2fb", "a%252fb"),
            ("ü:", "%c3%bc%3a"),
            ("", ""),
        ] {
            assert_eq!(escaped_extra_key(key.as_bytes()), escaped);
        }
    }
}
