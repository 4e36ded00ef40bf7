//! Where listeners are: at addresses of the configuration, or on sockets that a supervisor handed over.
//!
//! A socket that is handed over stays open while the process is not there, and the kernel keeps who connects
//! waiting: a restart refuses nobody. Source of the protocol: systemd, sd_listen_fds(3).

use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};

use anyhow::{Context as _, anyhow};
use kaudit_listen::{ListenConfig, Listener};
use socket2::{Socket, Type};

use crate::exit::Failure;

/// The first descriptor that is handed over.
const FIRST: RawFd = 3;

/// A descriptor more than there are listeners is one that nobody knows.
const MOST: usize = Name::ALL.len();

/// Where a listener is.
#[derive(Debug)]
pub(crate) enum Place {
    /// It is bound here.
    Address(SocketAddr),
    /// It listens already.
    Socket(TcpListener),
}

impl Place {
    /// The listener, which takes connections from now on.
    pub(crate) async fn listener(
        self,
        config: impl FnOnce(SocketAddr) -> ListenConfig,
    ) -> Result<Listener, Failure> {
        let address = self.address()?;
        let config = config(address);
        match self {
            Self::Address(_) => Listener::bind(config).await.map_err(Failure::unreachable),
            Self::Socket(socket) => Listener::adopt(socket, config).map_err(Failure::unreachable),
        }
    }

    /// The address; its port may be 0 where nothing is bound yet.
    pub(crate) fn address(&self) -> Result<SocketAddr, Failure> {
        match self {
            Self::Address(address) => Ok(*address),
            Self::Socket(socket) => socket.local_addr().map_err(Failure::unreachable),
        }
    }
}

/// A listener that can be handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Gateway,
    Metrics,
    Api,
    Collect,
}

impl Name {
    const ALL: [Self; 4] = [Self::Gateway, Self::Metrics, Self::Api, Self::Collect];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Metrics => "metrics",
            Self::Api => "api",
            Self::Collect => "collect",
        }
    }
}

/// What the environment says of sockets.
#[derive(Clone, Debug, Default)]
struct Announced {
    pid: Option<OsString>,
    count: Option<OsString>,
    names: Option<OsString>,
}

/// The sockets that were handed over and that no listener has taken yet.
#[derive(Debug, Default)]
pub(crate) struct Sockets(Vec<(Name, TcpListener)>);

impl Sockets {
    /// Takes what the supervisor handed over. To be called once, before the process opens anything that it keeps.
    pub(crate) fn take() -> Result<Self, Failure> {
        let announced = Announced {
            pid: std::env::var_os("LISTEN_PID"),
            count: std::env::var_os("LISTEN_FDS"),
            names: std::env::var_os("LISTEN_FDNAMES"),
        };
        let names = announced.names(std::process::id()).map_err(Failure::usage)?;
        let sockets = (FIRST..).zip(names).map(|(number, name)| {
            let socket = listening(number)
                .with_context(|| {
                    format!(
                        "the socket `{}` that was handed over cannot be used",
                        name.as_str()
                    )
                })
                .map_err(Failure::usage)?;
            Ok((name, socket))
        });
        sockets.collect::<Result<_, _>>().map(Self)
    }

    /// Where a listener is: its socket if one was handed over, and otherwise the address of the configuration.
    pub(crate) fn place(&mut self, name: Name, configured: Option<&str>) -> Result<Option<Place>, Failure> {
        match self.0.iter().position(|(handed, _)| *handed == name) {
            Some(at) => Ok(Some(Place::Socket(self.0.swap_remove(at).1))),
            None => Ok(configured
                .map(crate::serving::address)
                .transpose()?
                .map(Place::Address)),
        }
    }

    /// A socket that is left is one for a listener that there is not.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(Failure::usage(anyhow!(
                "a socket `{0}` was handed over, and the roles of this process have no listener `{0}`",
                name.as_str()
            ))),
        }
    }
}

impl Announced {
    /// The names of the sockets, in the order of their descriptors.
    fn names(&self, own_pid: u32) -> anyhow::Result<Vec<Name>> {
        let (Some(pid), Some(count)) = (text(&self.pid, "LISTEN_PID")?, text(&self.count, "LISTEN_FDS")?)
        else {
            return Ok(Vec::new());
        };
        // They are for a process that started this one and passed its environment on.
        if pid.parse() != Ok(own_pid) {
            return Ok(Vec::new());
        }
        let count: usize = count
            .parse()
            .map_err(|_| anyhow!("LISTEN_FDS is `{count}`, which is no number of sockets"))?;
        if count > MOST {
            return Err(anyhow!(
                "{count} sockets were handed over, and there are {MOST} listeners at most: gateway, metrics, api and collect"
            ));
        }
        let words: Vec<&str> = match text(&self.names, "LISTEN_FDNAMES")? {
            Some(names) if !names.is_empty() => names.split(':').collect(),
            _ => Vec::new(),
        };
        match (words.as_slice(), count) {
            (_, 0) => Ok(Vec::new()),
            ([], 1) => Ok(vec![Name::Gateway]),
            ([word], 1) if is_unnamed(word) => Ok(vec![Name::Gateway]),
            (words, _) if words.len() == count => named(words),
            (words, _) => Err(anyhow!(
                "{count} sockets were handed over with {} names: give each its name with FileDescriptorName= gateway, \
                 metrics, api or collect",
                words.len()
            )),
        }
    }
}

/// Whether systemd made the name up: from its unit's, or without knowing any.
fn is_unnamed(word: &str) -> bool {
    word.ends_with(".socket") || word == "unknown"
}

fn named(words: &[&str]) -> anyhow::Result<Vec<Name>> {
    let mut names = Vec::with_capacity(words.len());
    for word in words {
        let known = Name::ALL.into_iter().find(|name| name.as_str() == *word);
        let name = known.ok_or_else(|| {
            anyhow!("a socket `{word}` was handed over: FileDescriptorName= is one of gateway, metrics, api and collect")
        })?;
        if names.contains(&name) {
            return Err(anyhow!(
                "two sockets `{word}` were handed over: each listener has one"
            ));
        }
        names.push(name);
    }
    Ok(names)
}

fn text<'a>(value: &'a Option<OsString>, name: &str) -> anyhow::Result<Option<&'a str>> {
    let Some(value) = value else { return Ok(None) };
    value
        .to_str()
        .map(Some)
        .ok_or_else(|| anyhow!("{name} is not UTF-8"))
}

/// The TCP socket behind a descriptor that was handed over.
fn listening(number: RawFd) -> anyhow::Result<TcpListener> {
    let socket = Socket::from(owned(number)?);
    let is_stream = socket.r#type().is_ok_and(|kind| kind == Type::STREAM);
    if !is_stream {
        return Err(anyhow!("it is no stream socket: write ListenStream="));
    }
    if !socket.is_listener()? {
        return Err(anyhow!(
            "it is one connection and does not listen: write Accept=no"
        ));
    }
    if socket.local_addr()?.as_socket().is_none() {
        return Err(anyhow!("it is no TCP socket: write an address and a port"));
    }
    Ok(socket.into())
}

/// Takes a descriptor that was handed over, if there is one of this number. Programs that this one starts do not get it.
fn owned(number: RawFd) -> anyhow::Result<OwnedFd> {
    #[expect(
        unsafe_code,
        reason = "a descriptor that another process left open has no owner in this one until somebody claims it"
    )]
    // SAFETY: `from_raw_fd` asks that the descriptor be open and owned by nobody else. LISTEN_PID is this process's
    // number, so whoever executed it left the descriptors from 3 to 3 + LISTEN_FDS - 1 open for it to own, and
    // `Sockets::take`, which alone comes here, runs once, with each number once, before anything in this process has
    // opened what it keeps. Should the environment be wrong and nothing be open under this number, the next call finds
    // that out without an effect, and the owner made here is dissolved before it could close what others open later.
    let owned = unsafe { OwnedFd::from_raw_fd(number) };
    if let Err(error) = rustix::io::fcntl_setfd(&owned, rustix::io::FdFlags::CLOEXEC) {
        let _not_open: RawFd = owned.into_raw_fd();
        return Err(anyhow::Error::new(error).context(format!("nothing is open as descriptor {number}")));
    }
    Ok(owned)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpStream, UdpSocket};

    use super::*;

    const PID: u32 = 77;

    fn announced(pid: &str, count: &str, names: Option<&str>) -> Announced {
        Announced {
            pid: Some(pid.into()),
            count: Some(count.into()),
            names: names.map(Into::into),
        }
    }

    #[test]
    fn sockets_are_known_by_their_names() {
        use Name::{Api, Collect, Gateway, Metrics};
        for (pid, count, names, expected) in [
            ("77", "1", None, vec![Gateway]),
            ("77", "1", Some(""), vec![Gateway]),
            ("77", "1", Some("kaudit-gateway.socket"), vec![Gateway]),
            ("77", "1", Some("unknown"), vec![Gateway]),
            ("77", "1", Some("collect"), vec![Collect]),
            ("77", "2", Some("metrics:gateway"), vec![Metrics, Gateway]),
            (
                "77",
                "4",
                Some("api:collect:metrics:gateway"),
                vec![Api, Collect, Metrics, Gateway],
            ),
            ("77", "0", None, vec![]),
            ("78", "1", Some("whatever"), vec![]),
            ("", "1", None, vec![]),
        ] {
            let got = announced(pid, count, names).names(PID).unwrap();
            assert_eq!(got, expected, "{pid} {count} {names:?}");
        }
        assert_eq!(Announced::default().names(PID).unwrap(), []);
    }

    #[test]
    fn what_is_no_listener_of_ours_is_refused_with_what_to_write_instead() {
        for (count, names, expected) in [
            ("x", None, "is no number of sockets"),
            ("5", Some("a:b:c:d:e"), "4 listeners at most"),
            ("2", None, "2 sockets were handed over with 0 names"),
            ("2", Some("gateway"), "with 1 names"),
            ("2", Some("gateway:gateway"), "two sockets `gateway`"),
            ("2", Some("gateway:kaudit-api.socket"), "FileDescriptorName="),
            ("1", Some("gatewai"), "a socket `gatewai`"),
        ] {
            let error = announced("77", count, names).names(PID).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn only_tcp_sockets_that_listen_are_taken() {
        let refused = |owned: OwnedFd| listening(owned.into_raw_fd()).unwrap_err().to_string();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(refused(socket.into()).contains("ListenStream="));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(refused(connection.into()).contains("Accept=no"));
        let folder = tempfile::tempdir().unwrap();
        let unix = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
        assert!(refused(unix.into()).contains("no TCP socket"));
        let file = tempfile::tempfile().unwrap();
        assert!(refused(file.into()).contains("no stream socket"));
        let taken = listening(OwnedFd::from(listener.try_clone().unwrap()).into_raw_fd()).unwrap();
        assert_eq!(taken.local_addr().unwrap(), listener.local_addr().unwrap());
        let error = listening(RawFd::MAX).unwrap_err();
        assert!(error.to_string().contains("nothing is open"), "{error}");
    }

    #[test]
    fn a_socket_comes_before_the_address_and_none_is_left_over() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut sockets = Sockets(vec![(Name::Api, listener)]);
        let place = sockets
            .place(Name::Metrics, Some("127.0.0.1:7441"))
            .unwrap()
            .unwrap();
        assert_eq!(place.address().unwrap().port(), 7441);
        assert!(sockets.place(Name::Gateway, None).unwrap().is_none());
        let place = sockets.place(Name::Api, Some("127.0.0.1:7440")).unwrap().unwrap();
        assert_eq!(place.address().unwrap(), address);
        sockets.finish().unwrap();
        let left = Sockets(vec![(Name::Collect, TcpListener::bind("127.0.0.1:0").unwrap())]);
        let failure = left.finish().unwrap_err();
        assert_eq!(failure.exit, crate::exit::Exit::Usage);
        assert!(failure.to_string().contains("`collect`"), "{failure}");
    }
}
