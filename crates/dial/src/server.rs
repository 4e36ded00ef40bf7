//! Where a server is.

use std::fmt;

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Server {
    /// Whether it speaks TLS.
    pub is_https: bool,
    /// Name or address, IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What stands before every path; empty or beginning with `/`, never ending with one.
    pub base_path: String,
    /// The path as it was written, for who does not want it as a base.
    pub path: String,
}

impl Server {
    /// `host:port` as the Host header has it.
    #[must_use]
    pub fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        }
    }

    /// As [`Server::authority`], without the port where it is the scheme's own.
    #[must_use]
    pub fn host_header(&self) -> String {
        let default = if self.is_https { 443 } else { 80 };
        let authority = self.authority();
        let port = format!(":{}", self.port);
        match authority.strip_suffix(&port) {
            Some(host) if self.port == default => host.to_owned(),
            _ => authority,
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.base_path)
    }
}

impl std::str::FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (is_https, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            Some((scheme, _)) => {
                return Err(format!(
                    "scheme `{scheme}` is not supported: write https://HOST[:PORT]"
                ));
            }
            None => return Err("it has no scheme: write https://HOST[:PORT]".to_owned()),
        };
        let (authority, path) = match rest
            .find(['/', '?', '#'])
            .and_then(|at| rest.split_at_checked(at))
        {
            Some((authority, path)) => (authority, path),
            None => (rest, ""),
        };
        let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => match authority.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        if authority.contains('@') {
            return Err(
                "it has a user in it: write the user's token or certificate under `users`".to_owned(),
            );
        }
        if host.is_empty() {
            return Err("it has no host".to_owned());
        }
        let default = if is_https { 443 } else { 80 };
        let port = port
            .map_or(Ok(default), str::parse)
            .map_err(|_| format!("`{authority}` has no valid port"))?;
        let path = path.split(['?', '#']).next().unwrap_or_default();
        Ok(Self {
            is_https,
            host: host.to_owned(),
            port,
            base_path: path.trim_end_matches('/').to_owned(),
            path: path.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_with_their_default_ports() {
        let server = |text: &str| {
            text.parse::<Server>()
                .map(|server| (server.authority(), server.base_path))
        };
        assert_eq!(server("https://a"), Ok(("a:443".to_owned(), String::new())));
        assert_eq!(
            server("http://[::1]:8080/x"),
            Ok(("[::1]:8080".to_owned(), "/x".to_owned()))
        );
        assert!(server("https://:1").is_err());
        assert!(server("a:1").is_err());
    }
}
