//! What a request says about its client: addresses and user agent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use kaudit_event::Text;

/// The addresses a request came through: those of `X-Forwarded-For`, then `X-Real-Ip`, then the peer.
///
/// `forwarded_for` and `real_ip` are the first values of these headers, `remote_addr` is the peer as
/// `host:port` or as a bare address. What is not an address is skipped; all but the last can be chosen
/// by the client.
///
/// Source: k8s.io/apimachinery pkg/util/net/http.go, SourceIPs.
#[must_use]
pub fn source_ips(forwarded_for: Option<&[u8]>, real_ip: Option<&[u8]>, remote_addr: &[u8]) -> Vec<Text> {
    let mut addresses: Vec<IpAddr> = Vec::with_capacity(2);
    for part in forwarded_for.unwrap_or_default().split(|byte| *byte == b',') {
        addresses.extend(parse_ip(trim_blanks(part)));
    }
    if let Some(address) = real_ip.and_then(parse_ip)
        && !addresses.contains(&address)
    {
        addresses.push(address);
    }
    let remote = split_host(remote_addr)
        .and_then(parse_ip)
        .or_else(|| parse_ip(remote_addr));
    if let Some(address) = remote
        && addresses.last() != Some(&address)
    {
        addresses.push(address);
    }
    addresses.into_iter().map(text_of).collect()
}

/// The address as Go prints it.
fn text_of(address: IpAddr) -> Text {
    let IpAddr::V4(address) = address else {
        return Text::from(address.to_string());
    };
    let mut text = [0; 15];
    let mut used = 0;
    let mut push = |byte| {
        if let Some(place) = text.get_mut(used) {
            *place = byte;
            used += 1;
        }
    };
    for (at, octet) in address.octets().into_iter().enumerate() {
        if at > 0 {
            push(b'.');
        }
        if octet >= 100 {
            push(b'0' + octet / 100);
        }
        if octet >= 10 {
            push(b'0' + octet / 10 % 10);
        }
        push(b'0' + octet % 10);
    }
    Text::copy_from_slice(text.get(..used).unwrap_or_default())
}

/// A user agent longer than this many bytes is cut, also inside a character.
const MAX_USER_AGENT_BYTES: usize = 1024;

/// The event's `userAgent` for the first value of the header.
///
/// Source: k8s.io/apiserver pkg/audit/request.go, maybeTruncateUserAgent.
#[must_use]
pub fn user_agent(header: Option<&[u8]>) -> Text {
    let header = header.unwrap_or_default();
    match header.split_at_checked(MAX_USER_AGENT_BYTES) {
        Some((kept, rest)) if !rest.is_empty() => Text::from([kept, b"...TRUNCATED"].concat()),
        _ => Text::copy_from_slice(header),
    }
}

/// Blanks are those of Unicode.
fn trim_blanks(part: &[u8]) -> &[u8] {
    if let (Some(b'!'..=b'~'), Some(b'!'..=b'~')) = (part.first(), part.last()) {
        return part;
    }
    std::str::from_utf8(part).map_or(part, |text| text.trim().as_bytes())
}

/// The host of `host:port`. Source: Go net, SplitHostPort.
fn split_host(text: &[u8]) -> Option<&[u8]> {
    let colon = memchr::memrchr(b':', text)?;
    let (host, rest) = if text.first() == Some(&b'[') {
        let end = memchr::memchr(b']', text)?;
        if end + 1 != colon {
            return None;
        }
        (text.get(1..end)?, text.get(end + 1..)?)
    } else {
        let host = text.get(..colon)?;
        if host.contains(&b':') {
            return None;
        }
        (host, text)
    };
    if host.contains(&b'[') || rest.iter().any(|byte| matches!(byte, b'[' | b']')) {
        return None;
    }
    Some(host)
}

/// An address as Go's tolerant parser reads it: decimal parts may have leading zeros, hexadecimal ones
/// too. An IPv4 address in IPv6 form is the IPv4 address.
///
/// Source: k8s.io/utils internal/third_party/forked/golang/net/ip.go, ParseIP.
fn parse_ip(text: &[u8]) -> Option<IpAddr> {
    match text.iter().find(|byte| matches!(byte, b'.' | b':'))? {
        b'.' => parse_ipv4(text).map(IpAddr::V4),
        _ => parse_ipv6(text).map(|address| address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4)),
    }
}

/// Digits from the front, their value and what follows; `None` without a digit or over the bound.
fn number(text: &[u8], radix: u32) -> Option<(u32, &[u8])> {
    const BOUND: u32 = 0xff_ffff;
    let mut value = 0;
    let mut digits = 0;
    for byte in text {
        let Some(digit) = char::from(*byte).to_digit(radix) else {
            break;
        };
        value = value * radix + digit;
        digits += 1;
        if value >= BOUND {
            return None;
        }
    }
    if digits == 0 {
        None
    } else {
        Some((value, text.get(digits..).unwrap_or_default()))
    }
}

fn parse_ipv4(text: &[u8]) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut rest = text;
    for (at, octet) in octets.iter_mut().enumerate() {
        if at > 0 {
            rest = rest.strip_prefix(b".")?;
        }
        let (value, after) = number(rest, 10)?;
        *octet = u8::try_from(value).ok()?;
        rest = after;
    }
    rest.is_empty().then(|| Ipv4Addr::from(octets))
}

fn parse_ipv6(text: &[u8]) -> Option<Ipv6Addr> {
    let mut groups: Vec<u16> = Vec::with_capacity(8);
    let mut ellipsis = None;
    let mut rest = text;
    if let Some(after) = rest.strip_prefix(b"::") {
        ellipsis = Some(0);
        rest = after;
        if rest.is_empty() {
            return Some(Ipv6Addr::UNSPECIFIED);
        }
    }
    while groups.len() < 8 {
        let (value, after) = number(rest, 16)?;
        if after.first() == Some(&b'.') {
            if groups.len() > 6 || (ellipsis.is_none() && groups.len() != 6) {
                return None;
            }
            let [a, b, c, d] = parse_ipv4(rest)?.octets();
            groups.extend([u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]);
            rest = b"";
            break;
        }
        groups.push(u16::try_from(value).ok()?);
        rest = after;
        if rest.is_empty() {
            break;
        }
        rest = rest.strip_prefix(b":")?;
        match rest.first() {
            None => return None,
            Some(b':') => {
                if ellipsis.replace(groups.len()).is_some() {
                    return None;
                }
                rest = rest.get(1..).unwrap_or_default();
                if rest.is_empty() {
                    break;
                }
            }
            Some(_) => {}
        }
    }
    if !rest.is_empty() {
        return None;
    }
    match (ellipsis, 8_usize.checked_sub(groups.len())?) {
        (None, 0) => {}
        (Some(at), missing @ 1..) => {
            groups.splice(at..at, std::iter::repeat_n(0, missing));
        }
        _ => return None,
    }
    <[u16; 8]>::try_from(groups).ok().map(Ipv6Addr::from)
}
