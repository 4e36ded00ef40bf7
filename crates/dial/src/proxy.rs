//! A proxy on the way: a tunnel by CONNECT.

use std::fmt;
use std::io;

use base64::prelude::{BASE64_STANDARD, Engine};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::Server;

/// The head of a proxy's answer may not be longer.
const MAX_HEAD: usize = 8 << 10;

/// A proxy that opens tunnels, also to servers that do not speak TLS.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Where it is; `https` proxies are spoken to over TLS.
    pub(crate) server: Server,
    /// The value of `Proxy-Authorization`.
    authorization: Option<String>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Proxy").field(&self.server.to_string()).finish()
    }
}

impl std::str::FromStr for Proxy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("socks5") {
            return Err("SOCKS proxies are not supported: use an http or https proxy".to_owned());
        }
        let (scheme, rest) = text
            .split_once("://")
            .ok_or("it has no scheme: write http://HOST:PORT")?;
        let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, _) = rest.split_at_checked(authority_end).unwrap_or((rest, ""));
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        let server = format!("{scheme}://{host}")
            .parse()
            .map_err(|reason| format!("`{scheme}://{host}`: {reason}"))?;
        let authorization = user.map(|user| {
            let user = percent_decoded(user);
            format!("Basic {}", BASE64_STANDARD.encode(user))
        });
        Ok(Self {
            server,
            authorization,
        })
    }
}

/// `name:password` as it was meant; an escape that is none stays as it is.
fn percent_decoded(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escape = match tail {
            [high, low, ..] if *first == b'%' => std::str::from_utf8(&[*high, *low])
                .ok()
                .and_then(|digits| u8::from_str_radix(digits, 16).ok()),
            _ => None,
        };
        decoded.push(escape.unwrap_or(*first));
        rest = tail
            .get(if escape.is_some() { 2 } else { 0 }..)
            .unwrap_or_default();
    }
    decoded
}

impl Proxy {
    /// Asks for a tunnel to `target` on a connection to the proxy.
    pub(crate) async fn tunnel<S>(&self, mut stream: S, target: &str) -> io::Result<S>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
        if let Some(authorization) = &self.authorization {
            request.push_str(&format!("Proxy-Authorization: {authorization}\r\n"));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() >= MAX_HEAD {
                return Err(io::Error::other("the proxy's answer has no end"));
            }
            // Byte by byte: what follows the head belongs to the tunnel.
            head.push(stream.read_u8().await?);
        }
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let code = line.split(' ').nth(1).unwrap_or_default();
        if line.starts_with("HTTP/1.") && code.len() == 3 && code.starts_with('2') {
            Ok(stream)
        } else {
            Err(io::Error::other(format!("the proxy answered `{line}`")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_socks_is_refused_clearly() {
        let proxy: Proxy = "http://me:p%40ss@10.0.0.1:3128/".parse().unwrap();
        assert_eq!(proxy.server.authority(), "10.0.0.1:3128");
        assert_eq!(
            proxy.authorization.as_deref(),
            Some(format!("Basic {}", BASE64_STANDARD.encode("me:p@ss")).as_str())
        );
        assert!(!format!("{proxy:?}").contains("p@ss"));
        let refused = "socks5://x:1".parse::<Proxy>().unwrap_err();
        assert!(refused.contains("SOCKS"), "{refused}");
    }

    #[tokio::test]
    async fn what_follows_the_proxys_answer_belongs_to_the_tunnel() {
        let (near, mut far) = tokio::io::duplex(1024);
        far.write_all(b"HTTP/1.1 200 Connection established\r\n\r\nhello")
            .await
            .unwrap();
        let proxy: Proxy = "http://proxy:1".parse().unwrap();
        let mut stream = proxy.tunnel(near, "a:443").await.unwrap();
        let mut hello = [0; 5];
        stream.read_exact(&mut hello).await.unwrap();
        assert_eq!(&hello, b"hello");
        let mut request = [0; 38];
        far.read_exact(&mut request).await.unwrap();
        assert_eq!(
            &request,
            b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"
                .first_chunk::<38>()
                .unwrap()
        );
    }

    #[tokio::test]
    async fn a_refusal_is_quoted() {
        let (near, mut far) = tokio::io::duplex(1024);
        far.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            .await
            .unwrap();
        let proxy: Proxy = "http://proxy:1".parse().unwrap();
        let error = proxy.tunnel(near, "a:443").await.unwrap_err();
        assert!(error.to_string().contains("407"), "{error}");
    }
}
