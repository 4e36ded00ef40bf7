//! The target of an HTTP request as Go's net/http and net/url see it.
//!
//! Source: Go 1.26 net/http request.go, readRequest; net/url url.go, ParseRequestURI.

use bytes::Bytes;

/// A request's target: decoded path, query, and how Go prints them again.
///
/// The raw target never goes through a normalising URL parser: what is recorded has to be what
/// upstream executes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestTarget {
    /// The scheme of an absolute-form target, lower-case; empty otherwise.
    pub scheme: Bytes,
    /// The authority of an absolute-form target, with percent escapes decoded; empty otherwise.
    pub host: Bytes,
    /// What follows the scheme where it does not begin with `/`, as received; then `path` is empty.
    pub opaque: Bytes,
    /// The decoded path; may hold any byte.
    pub path: Bytes,
    /// The path as received, set only where it differs from the default encoding of `path`.
    pub raw_path: Bytes,
    /// The query without `?`, as received.
    pub raw_query: Bytes,
    /// A bare `?` without a query was sent.
    pub force_query: bool,
}

/// Why Go's server answers 400 to a target before any handler runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// The method is not a token.
    #[error("the request method is not a token")]
    Method,
    /// There is none.
    #[error("the request target is empty")]
    Empty,
    /// A blank or a control character.
    #[error("the request target has a blank or control character")]
    ControlCharacter,
    /// It begins neither with `/` nor with a scheme.
    #[error("the request target begins neither with `/` nor with a scheme")]
    NoPath,
    /// A `:` without a scheme before it.
    #[error("the request target has no scheme before `:`")]
    NoScheme,
    /// A `%` that is not followed by two hexadecimal digits.
    #[error("the request target has an invalid percent escape")]
    Escape,
    /// The authority is not one.
    #[error("the request target has an invalid authority")]
    Authority,
}

/// Whether a path needs no second look: [`is_plain`] of every byte.
fn is_all_plain(path: &[u8]) -> bool {
    const PLAIN: [bool; 256] = {
        let mut plain = [false; 256];
        let mut byte = 0_u8;
        loop {
            #[expect(clippy::indexing_slicing, reason = "a byte is an index of it")]
            {
                plain[byte as usize] = is_plain(byte);
            }
            if byte == u8::MAX {
                break plain;
            }
            byte += 1;
        }
    };
    // To the end in any case: a loop that may end early is slower than the rest of a path is long.
    path.iter().fold(true, |all, byte| {
        #[expect(clippy::indexing_slicing, reason = "a byte is an index of it")]
        let is_plain = PLAIN[usize::from(*byte)];
        all & is_plain
    })
}

/// Bytes of a path that decoding and encoding leave as they are.
const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'_' | b'.' | b'~' | b'$' | b'&' | b'+' | b',' | b'/' | b':' | b';' | b'=' | b'@'
        )
}

impl RequestTarget {
    /// Parses the target of a request line (or `:path`) as Go does for `method`.
    ///
    /// # Errors
    ///
    /// [`TargetError`] where Go's server answers 400 by itself.
    pub fn parse(method: &[u8], target: &[u8]) -> Result<Self, TargetError> {
        if !is_token(method) {
            return Err(TargetError::Method);
        }
        if target.is_empty() {
            return Err(TargetError::Empty);
        }
        let is_control = |byte: u8| byte <= b' ' || byte == 0x7f;
        if target.iter().fold(false, |any, byte| any | is_control(*byte)) {
            return Err(TargetError::ControlCharacter);
        }
        if target == b"*" {
            return Ok(Self {
                path: Bytes::from_static(b"*"),
                ..Self::default()
            });
        }
        if method == b"CONNECT" && target.first() != Some(&b'/') {
            let mut parsed = Self::parse_rest(b"http", target, true)?;
            parsed.scheme = Bytes::new();
            return Ok(parsed);
        }
        if target.first() == Some(&b'/') {
            return Self::parse_rest(b"", target, false);
        }
        let (scheme, rest) = split_scheme(target)?;
        Self::parse_rest(scheme, rest, false)
    }

    fn parse_rest(scheme: &[u8], rest: &[u8], authority_only: bool) -> Result<Self, TargetError> {
        let mut target = Self {
            scheme: Bytes::from(scheme.to_ascii_lowercase()),
            ..Self::default()
        };
        let (mut rest, query) = match memchr::memchr(b'?', rest).and_then(|at| rest.split_at_checked(at)) {
            Some((before, query)) => (before, query.get(1..)),
            None => (rest, None),
        };
        target.force_query = query.is_some_and(<[u8]>::is_empty);
        target.raw_query = Bytes::copy_from_slice(query.unwrap_or_default());
        if !authority_only && rest.first() != Some(&b'/') {
            if scheme.is_empty() {
                return Err(TargetError::NoPath);
            }
            target.opaque = Bytes::copy_from_slice(rest);
            return Ok(target);
        }
        if !scheme.is_empty() {
            let authority = if authority_only {
                Some(rest)
            } else {
                rest.strip_prefix(b"//")
            };
            if let Some(authority) = authority {
                let end = memchr::memchr(b'/', authority).unwrap_or(authority.len());
                let (authority, path) = authority.split_at_checked(end).unwrap_or((authority, b""));
                target.host = parse_authority(authority)?;
                rest = path;
            }
        }
        if is_all_plain(rest) {
            target.path = Bytes::copy_from_slice(rest);
            return Ok(target);
        }
        let path = unescape(rest).ok_or(TargetError::Escape)?;
        if escape_path(&path) != rest {
            target.raw_path = Bytes::copy_from_slice(rest);
        }
        target.path = Bytes::from(path);
        Ok(target)
    }

    /// `URL.RequestURI()`: the value of an event's `requestURI`.
    #[must_use]
    pub fn request_uri(&self) -> Vec<u8> {
        let mut uri = Vec::with_capacity(self.path.len() + self.raw_query.len() + 8);
        if self.opaque.is_empty() {
            self.push_escaped_path(&mut uri);
            if uri.is_empty() {
                uri.push(b'/');
            }
        } else {
            if self.opaque.starts_with(b"//") {
                uri.extend_from_slice(&self.scheme);
                uri.push(b':');
            }
            uri.extend_from_slice(&self.opaque);
        }
        if self.force_query || !self.raw_query.is_empty() {
            uri.push(b'?');
            uri.extend_from_slice(&self.raw_query);
        }
        uri
    }

    /// `URL.EscapedPath()`: the path as received where that is a valid encoding, else encoded anew.
    fn push_escaped_path(&self, out: &mut Vec<u8>) {
        if self.raw_path.is_empty() && is_all_plain(&self.path) || *self.path == *b"*" {
            out.extend_from_slice(&self.path);
        } else if !self.raw_path.is_empty() && is_valid_encoding(&self.raw_path) {
            out.extend_from_slice(&self.raw_path);
        } else {
            out.extend_from_slice(&escape_path(&self.path));
        }
    }

    /// `URL.String()`, for error texts.
    pub(crate) fn display(&self) -> String {
        let mut text = Vec::new();
        if !self.scheme.is_empty() {
            text.extend_from_slice(&self.scheme);
            text.push(b':');
        }
        if self.opaque.is_empty() {
            if !self.scheme.is_empty() || !self.host.is_empty() {
                if !self.host.is_empty() || self.path.starts_with(b"//") {
                    text.extend_from_slice(b"//");
                }
                text.extend_from_slice(&self.host);
            } else if self.path.starts_with(b"//") {
                text.extend_from_slice(b"//");
            }
            self.push_escaped_path(&mut text);
        } else {
            text.extend_from_slice(&self.opaque);
        }
        if self.force_query || !self.raw_query.is_empty() {
            text.push(b'?');
            text.extend_from_slice(&self.raw_query);
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// Source: RFC 9110, token.
fn is_token(method: &[u8]) -> bool {
    const SYMBOLS: &[u8] = b"!#$%&'*+-.^_`|~";
    !method.is_empty()
        && method
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || SYMBOLS.contains(byte))
}

/// Source: Go net/url, getScheme.
fn split_scheme(target: &[u8]) -> Result<(&[u8], &[u8]), TargetError> {
    for (at, byte) in target.iter().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if at > 0 => {}
            b':' if at == 0 => return Err(TargetError::NoScheme),
            b':' => {
                let (scheme, rest) = target.split_at_checked(at).unwrap_or((b"", target));
                return Ok((scheme, rest.get(1..).unwrap_or_default()));
            }
            _ => break,
        }
    }
    Ok((b"", target))
}

/// Source: Go net/url, parseAuthority and parseHost.
fn parse_authority(authority: &[u8]) -> Result<Bytes, TargetError> {
    let host = match memchr::memrchr(b'@', authority).and_then(|at| authority.split_at_checked(at)) {
        Some((user, host)) => {
            let valid = user.iter().all(|byte| {
                byte.is_ascii_alphanumeric()
                    || matches!(
                        byte,
                        b'-' | b'.'
                            | b'_'
                            | b':'
                            | b'~'
                            | b'!'
                            | b'$'
                            | b'&'
                            | b'\''
                            | b'('
                            | b')'
                            | b'*'
                            | b'+'
                            | b','
                            | b';'
                            | b'='
                            | b'%'
                            | b'@'
                    )
            });
            if !valid || unescape(user).is_none() {
                return Err(TargetError::Authority);
            }
            host.get(1..).unwrap_or_default()
        }
        None => authority,
    };
    let port = match memchr::memrchr(b'[', host) {
        Some(_) => memchr::memrchr(b']', host)
            .and_then(|at| host.get(at + 1..))
            .ok_or(TargetError::Authority)?,
        None => memchr::memrchr(b':', host)
            .and_then(|at| host.get(at..))
            .unwrap_or_default(),
    };
    let port_is_valid = match port.split_first() {
        None => true,
        Some((b':', digits)) => digits.iter().all(u8::is_ascii_digit),
        Some(_) => false,
    };
    let bytes_are_valid = host.iter().all(|byte| {
        *byte >= 0x80
            || byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'-' | b'_'
                    | b'.'
                    | b'~'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b','
                    | b';'
                    | b'='
                    | b':'
                    | b'['
                    | b']'
                    | b'<'
                    | b'>'
                    | b'"'
                    | b'%'
            )
    });
    let escapes_are_valid = host.split(|byte| *byte == b'%').skip(1).all(|after| {
        // Only bytes from 0x80 on may be escaped in a host, and `%25` for a zone.
        matches!(after, [b'8'..=b'9' | b'a'..=b'f' | b'A'..=b'F', low, ..] if low.is_ascii_hexdigit())
            || after.starts_with(b"25")
    });
    if !(port_is_valid && bytes_are_valid && escapes_are_valid) {
        return Err(TargetError::Authority);
    }
    unescape(host).map(Bytes::from).ok_or(TargetError::Authority)
}

/// Decodes percent escapes; `None` for an invalid one.
pub(crate) fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'%', rest) {
        let (before, escape) = rest.split_at_checked(at)?;
        out.extend_from_slice(before);
        let [_, high, low, after @ ..] = escape else {
            return None;
        };
        out.push(nibble(*high)? << 4 | nibble(*low)?);
        rest = after;
    }
    out.extend_from_slice(rest);
    Some(out)
}

const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Go's default encoding of a path.
fn escape_path(path: &[u8]) -> Vec<u8> {
    const HEX: [u8; 16] = *b"0123456789ABCDEF";
    let mut out = Vec::with_capacity(path.len() + 8);
    for byte in path {
        if is_plain(*byte) {
            out.push(*byte);
        } else {
            let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
            out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    out
}

/// Source: Go net/url, validEncoded.
fn is_valid_encoding(path: &[u8]) -> bool {
    path.iter()
        .all(|byte| is_plain(*byte) || matches!(byte, b'!' | b'\'' | b'(' | b')' | b'*' | b'[' | b']' | b'%'))
}
