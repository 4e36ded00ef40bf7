//! The path of the server's URL as upstream's client sends it: cleaned, escapes kept where they can be.
//!
//! Source: k8s.io/client-go rest/request.go, Request.URL, and Go net/url.

/// Why a path cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server's path `{0}` has an invalid URL escape in it")]
pub struct PathError(pub String);

/// `raw` cleaned: `/` for nothing, no duplicate or trailing slashes, no `.` and `..`.
pub(super) fn cleaned(raw: &str) -> Result<String, PathError> {
    let error = || PathError(raw.to_owned());
    let path = unescaped(raw.as_bytes()).ok_or_else(error)?;
    let clean = clean(&path);
    let default = escaped(&path);
    // What was written stays where it is not what would be written anyway and still means the same.
    if default != raw && path == clean && raw.bytes().all(|byte| byte == b'%' || may_stand(byte)) {
        return Ok(raw.to_owned());
    }
    Ok(escaped(&clean))
}

fn unescaped(raw: &[u8]) -> Option<Vec<u8>> {
    let mut path = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            path.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = tail else { return None };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        path.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
        rest = tail;
    }
    Some(path)
}

/// Source: Go path.Clean of a rooted path.
fn clean(path: &[u8]) -> Vec<u8> {
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in path.split(|byte| *byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let mut clean = vec![b'/'];
    clean.extend(segments.join(&b'/'));
    clean
}

fn escaped(path: &[u8]) -> String {
    let mut escaped = String::with_capacity(path.len());
    for byte in path {
        if is_plain(*byte) {
            escaped.push(char::from(*byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// Source: Go net/url, shouldEscape with encodePath.
const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'_' | b'.' | b'~' | b'$' | b'&' | b'+' | b',' | b'/' | b':' | b';' | b'=' | b'@'
        )
}

/// Source: Go net/url, validEncoded with encodePath.
const fn may_stand(byte: u8) -> bool {
    is_plain(byte) || matches!(byte, b'!' | b'\'' | b'(' | b')' | b'*' | b'[' | b']')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_upstream_does() {
        for (raw, expected) in [
            ("", "/"),
            ("//a//b/", "/a/b"),
            ("/a/../b", "/b"),
            ("/../..", "/"),
            ("/a%20b", "/a%20b"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a%2fb%2F", "/a/b"),
            ("/a(b)", "/a(b)"),
            ("/a(b)/", "/a%28b%29"),
        ] {
            assert_eq!(cleaned(raw).as_deref(), Ok(expected), "{raw}");
        }
        assert!(cleaned("/a%zz").is_err());
    }
}
