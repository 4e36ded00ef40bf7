use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use proptest::prelude::*;
use tokio::io::ReadBuf;

use super::*;

/// A stream that brings its bytes in pieces.
struct Pieces(VecDeque<Vec<u8>>);

impl Pieces {
    /// Cut after as many bytes as `sizes` say, in turn.
    fn of(mut bytes: &[u8], sizes: &[usize]) -> Self {
        let mut pieces = VecDeque::new();
        let mut sizes = sizes.iter().cycle();
        while !bytes.is_empty() {
            let size = (*sizes.next().unwrap()).min(bytes.len());
            let (piece, rest) = bytes.split_at(size);
            pieces.push_back(piece.to_vec());
            bytes = rest;
        }
        Self(pieces)
    }
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(mut piece) = self.0.pop_front() {
            let rest = piece.split_off(piece.len().min(buffer.remaining()));
            buffer.put_slice(&piece);
            if !rest.is_empty() {
                self.0.push_front(rest);
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// What a header says, in a word, and what is left in the stream.
fn run(bytes: &[u8], sizes: &[usize]) -> (String, Vec<u8>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut stream = Pieces::of(bytes, sizes);
        let said = match read(&mut stream).await {
            Ok(None) => "its own".to_owned(),
            Ok(Some(address)) => address.to_string(),
            Err(Malformed(_)) => "malformed".to_owned(),
            Err(TooLong) => "too long".to_owned(),
            Err(Incomplete(_)) => "incomplete".to_owned(),
        };
        let mut left = Vec::new();
        stream.read_to_end(&mut left).await.unwrap();
        (said, left)
    })
}

fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, rest].concat()
}

const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 1, 0x30, 0x39, 0x19, 0x2b];

fn v6() -> Vec<u8> {
    let source: Ipv6Addr = "2001:db8::1".parse().unwrap();
    let destination: Ipv6Addr = "2001:db8::2".parse().unwrap();
    [
        &source.octets()[..],
        &destination.octets(),
        &[0x30, 0x39, 0x19, 0x2b],
    ]
    .concat()
}

#[test]
fn headers_say_who_connected_however_they_are_cut() {
    let tlv = [&V4[..], &[0x04, 0x00, 0x02, 0xaa, 0xbb]].concat();
    for (header, expected) in [
        (
            b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 6443\r\n".to_vec(),
            "192.0.2.1:12345",
        ),
        (
            b"PROXY TCP6 2001:db8::1 2001:db8::2 12345 6443\r\n".to_vec(),
            "[2001:db8::1]:12345",
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), "its own"),
        (
            b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n".to_vec(),
            "its own",
        ),
        (version_2(0x21, 0x11, &V4), "192.0.2.1:12345"),
        (version_2(0x21, 0x11, &tlv), "192.0.2.1:12345"),
        (version_2(0x21, 0x21, &v6()), "[2001:db8::1]:12345"),
        (version_2(0x20, 0x00, &[]), "its own"),
        (version_2(0x20, 0x11, &V4), "its own"),
        (version_2(0x21, 0x00, &[]), "its own"),
        (version_2(0x21, 0x00, &[9; 300]), "its own"),
        (version_2(0x21, 0x31, &[0; 216]), "its own"),
        (version_2(0x21, 0x12, &V4), "its own"),
    ] {
        let sent = [&header[..], b"\x16\x03\x01 and so on"].concat();
        for sizes in [&[usize::MAX][..], &[1], &[13, 2, 1]] {
            let (said, left) = run(&sent, sizes);
            assert_eq!(said, expected, "{header:?} {sizes:?}");
            assert_eq!(left, b"\x16\x03\x01 and so on", "{header:?} {sizes:?}");
        }
        for end in 0..header.len() {
            let (said, _) = run(&header[..end], &[1]);
            assert_eq!(said, "incomplete", "{header:?} to {end}");
        }
    }
}

#[test]
fn what_is_no_header_is_malformed_and_what_has_no_end_too_long() {
    let long = [b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat();
    let mut announced = version_2(0x21, 0x11, &V4);
    announced[14] = 0xff;
    for (sent, expected) in [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "malformed"),
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00".to_vec(),
            "malformed",
        ),
        (
            b"PROXY TCP4 192.0.2.1 198.51.100.1 12345\r\n".to_vec(),
            "malformed",
        ),
        (
            b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 6443 1\r\n".to_vec(),
            "malformed",
        ),
        (
            b"PROXY TCP4 192.0.2.1 198.51.100.1 +1234 6443\r\n".to_vec(),
            "malformed",
        ),
        (
            b"PROXY TCP4 192.0.2.1 198.51.100.1 65536 6443\r\n".to_vec(),
            "malformed",
        ),
        (
            b"PROXY TCP4  192.0.2.1 198.51.100.1 1 6443\r\n".to_vec(),
            "malformed",
        ),
        (
            b"PROXY TCP4 2001:db8::1 2001:db8::2 1 6443\r\n".to_vec(),
            "malformed",
        ),
        (
            b"PROXY TCP4 192.0.2.1 198.51.100.1 1 6443\n\r\n".to_vec(),
            "malformed",
        ),
        (
            b"PROXY UDP4 192.0.2.1 198.51.100.1 1 6443\r\n".to_vec(),
            "malformed",
        ),
        (
            b"PROXY \xff\xff\xff\xff\xff\xff\xff\xff\r\n".to_vec(),
            "malformed",
        ),
        (version_2(0x22, 0x11, &V4), "malformed"),
        (version_2(0x11, 0x11, &V4), "malformed"),
        (version_2(0x21, 0x13, &V4), "malformed"),
        (version_2(0x21, 0x11, &V4[..11]), "malformed"),
        (version_2(0x21, 0x21, &V4), "malformed"),
        (long, "too long"),
        (announced, "too long"),
    ] {
        assert_eq!(run(&sent, &[usize::MAX]).0, expected, "{sent:?}");
    }
}

#[test]
fn headers_are_expected_from_the_networks_that_are_named() {
    let proxies = ProxyProtocol::from(vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
    for (peer, expected) in [
        ("10.1.2.3", true),
        ("::ffff:10.1.2.3", true),
        ("fd00::1", true),
        ("192.0.2.1", false),
        ("2001:db8::1", false),
    ] {
        assert_eq!(
            proxies.is_expected_from(peer.parse().unwrap()),
            expected,
            "{peer}"
        );
    }
}

proptest! {
    #[test]
    fn no_byte_behind_a_header_is_lost(
        address in any::<SocketAddr>(),
        is_text in any::<bool>(),
        follows in proptest::collection::vec(any::<u8>(), 0..200),
        sizes in proptest::collection::vec(1_usize..40, 1..8),
    ) {
        // A scope and a flow are of no meaning to others.
        let address = SocketAddr::new(address.ip(), address.port());
        let header = match (is_text, address) {
            (true, address) => {
                let family = if address.is_ipv4() { "TCP4" } else { "TCP6" };
                let (ip, port) = (address.ip(), address.port());
                format!("PROXY {family} {ip} {ip} {port} {port}\r\n").into_bytes()
            }
            (false, SocketAddr::V4(address)) => {
                let (ip, port) = (address.ip().octets(), address.port().to_be_bytes());
                version_2(0x21, 0x11, &[&ip[..], &ip, &port, &port].concat())
            }
            (false, SocketAddr::V6(address)) => {
                let (ip, port) = (address.ip().octets(), address.port().to_be_bytes());
                version_2(0x21, 0x21, &[&ip[..], &ip, &port, &port].concat())
            }
        };
        let (said, left) = run(&[header, follows.clone()].concat(), &sizes);
        prop_assert_eq!(said, address.to_string());
        prop_assert_eq!(left, follows);
    }

    #[test]
    fn any_bytes_are_a_header_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        run(&bytes, &[7]);
        run(&[&SIGNATURE[..], &bytes].concat(), &[7]);
        run(&[b"PROXY TCP4 ", &bytes[..]].concat(), &[7]);
    }
}
