//! The PROXY protocol, versions 1 and 2: a proxy that passes bytes on says first whose they are.
//!
//! Source: the specification of HAProxy, doc/proxy-protocol.txt. A header is read byte by byte or part by part and
//! never beyond its end, so that what follows stays in the socket.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Peers whose connections begin with a header; others' do not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProxyProtocol {
    /// Networks of these peers. Whoever is in them may claim any address.
    pub from: Vec<IpNet>,
}

impl ProxyProtocol {
    /// Headers are expected from these networks.
    #[must_use]
    pub const fn from(from: Vec<IpNet>) -> Self {
        Self { from }
    }

    /// Whether this peer's connections begin with a header.
    pub(crate) fn is_expected_from(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.from.iter().any(|network| network.contains(&peer))
    }
}

/// Why a header names nobody.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeaderError {
    /// The bytes are none, or contradict themselves.
    #[error("it is no PROXY header: {0}")]
    Malformed(&'static str),
    /// It says that it is longer than is read.
    #[error("it is longer than is read")]
    TooLong,
    /// The connection ended within it.
    #[error("the connection ended within the PROXY header")]
    Incomplete(#[source] io::Error),
}

use HeaderError::{Incomplete, Malformed, TooLong};

/// Bytes of a header of version 1 with its line end, at most.
const MAX_LINE: usize = 107;

/// Bytes behind the first sixteen of a header of version 2, at most: addresses take 216, and the rest tells of the
/// proxy's own TLS.
const MAX_REST: usize = 4096;

/// How version 2 begins; no line of version 1 is as short.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Reads a header. Gives the address for which the proxy connected; `None` when it connected on its own account,
/// or does not say for whom.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<SocketAddr>, HeaderError> {
    let mut first = [0; SIGNATURE.len()];
    stream.read_exact(&mut first).await.map_err(Incomplete)?;
    if first == SIGNATURE {
        version_2(stream).await
    } else if first.starts_with(b"PROXY ") {
        version_1(stream, &first).await
    } else {
        Err(Malformed("it begins otherwise"))
    }
}

async fn version_1(
    stream: &mut (impl AsyncRead + Unpin),
    first: &[u8],
) -> Result<Option<SocketAddr>, HeaderError> {
    let mut line = Vec::with_capacity(MAX_LINE);
    line.extend_from_slice(first);
    while !line.ends_with(b"\r\n") {
        if line.len() == MAX_LINE {
            return Err(TooLong);
        }
        line.push(stream.read_u8().await.map_err(Incomplete)?);
    }
    let line = std::str::from_utf8(&line).map_err(|_| Malformed("it is no ASCII"))?;
    let line = line.trim_end_matches("\r\n");
    let mut words = line.split(' ').skip(1);
    match words.next() {
        // What follows is of no meaning.
        Some("UNKNOWN") => Ok(None),
        Some("TCP4") => named::<Ipv4Addr>(words).map(Some),
        Some("TCP6") => named::<Ipv6Addr>(words).map(Some),
        _ => Err(Malformed("it names no protocol that it could")),
    }
}

/// Source address, destination address, source port, destination port.
fn named<'a, A: FromStr + Into<IpAddr>>(
    mut words: impl Iterator<Item = &'a str>,
) -> Result<SocketAddr, HeaderError> {
    let mut next = || words.next().ok_or(Malformed("it ends early"));
    let mut address = || {
        next()?
            .parse::<A>()
            .map_err(|_| Malformed("what should be an address is none"))
    };
    let (source, _destination) = (address()?, address()?);
    let mut port = || {
        let word = next()?;
        let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
        let port = word.parse::<u16>().ok().filter(|_| is_number);
        port.ok_or(Malformed("what should be a port is none"))
    };
    let (port, _) = (port()?, port()?);
    if words.next().is_some() {
        return Err(Malformed("something follows the ports"));
    }
    Ok(SocketAddr::new(source.into(), port))
}

async fn version_2(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<SocketAddr>, HeaderError> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await.map_err(Incomplete)?;
    let [command, family, high, low] = head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_REST {
        return Err(TooLong);
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await.map_err(Incomplete)?;
    match command {
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err(Malformed("its version or command is unknown")),
    }
    match family {
        0x11 => {
            let (addresses, ports) = addresses::<8>(&rest)?;
            let [a, b, c, d, ..] = addresses;
            Ok(Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), ports)))
        }
        0x21 => {
            let (addresses, ports) = addresses::<32>(&rest)?;
            let (source, _) = addresses
                .split_first_chunk::<16>()
                .ok_or(Malformed("its addresses are cut short"))?;
            Ok(Some(SocketAddr::new(Ipv6Addr::from(*source).into(), ports)))
        }
        // No family, datagrams, and sockets of one machine: none that a TCP client could have.
        0x00..=0x02 | 0x10 | 0x12 | 0x20 | 0x22 | 0x30..=0x32 => Ok(None),
        _ => Err(Malformed("its family is unknown")),
    }
}

/// Both addresses, and the port of the source; what follows the ports is not read.
fn addresses<const N: usize>(rest: &[u8]) -> Result<([u8; N], u16), HeaderError> {
    let parts = rest
        .split_first_chunk::<N>()
        .and_then(|(addresses, rest)| Some((addresses, rest.first_chunk::<4>()?)));
    let (addresses, [high, low, ..]) = parts.ok_or(Malformed("its addresses are cut short"))?;
    Ok((*addresses, u16::from_be_bytes([*high, *low])))
}

#[cfg(test)]
mod tests;
