//! WebSocket, the server's side, as much as `channel.k8s.io` needs: binary messages of bounded size.
//!
//! A frame is a byte of flags and opcode, a byte of mask flag and length (126 and 127 announce two or
//! eight more bytes), four bytes of mask from clients, and the payload. Source: RFC 6455, section 5.

use std::io;

use base64::Engine as _;
use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Bytes of a message from a client; kubectl sends at most 32 KiB.
const MESSAGE_LIMIT: usize = 1024 * 1024;
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The answer to a client's `Sec-WebSocket-Key`.
pub(crate) fn accept_key(key: &str) -> String {
    let digest = aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY,
        format!("{key}{GUID}").as_bytes(),
    );
    base64::engine::general_purpose::STANDARD.encode(digest.as_ref())
}

/// An upgraded connection.
#[derive(Debug)]
pub(crate) struct Socket<T> {
    io: T,
    received: BytesMut,
    message: BytesMut,
}

/// A frame's head and payload.
#[derive(Debug, PartialEq, Eq)]
struct Received {
    last: bool,
    opcode: u8,
    payload: BytesMut,
}

fn broken(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Takes a frame off the front of `buffer`, if a whole one is there.
fn take_frame(buffer: &mut BytesMut) -> io::Result<Option<Received>> {
    let Some((&[flags, length], rest)) = buffer.split_first_chunk::<2>() else {
        return Ok(None);
    };
    if flags & 0x70 != 0 {
        return Err(broken("extension bits are set"));
    }
    if length & 0x80 == 0 {
        return Err(broken("a client's frame is not masked"));
    }
    let (length, head) = match length & 0x7f {
        126 => match rest.first_chunk::<2>() {
            Some(bytes) => (usize::from(u16::from_be_bytes(*bytes)), 4),
            None => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(bytes) => (
                usize::try_from(u64::from_be_bytes(*bytes)).unwrap_or(usize::MAX),
                10,
            ),
            None => return Ok(None),
        },
        length => (usize::from(length), 2),
    };
    if length > MESSAGE_LIMIT {
        return Err(broken("a frame is too large"));
    }
    if buffer.len() < head + 4 + length {
        return Ok(None);
    }
    buffer.advance(head);
    let mask = buffer.split_to(4);
    let mut payload = buffer.split_to(length);
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    Ok(Some(Received {
        last: flags & 0x80 != 0,
        opcode: flags & 0x0f,
        payload,
    }))
}

impl<T: AsyncRead + AsyncWrite + Unpin> Socket<T> {
    pub(crate) fn new(io: T) -> Self {
        Self {
            io,
            received: BytesMut::with_capacity(4096),
            message: BytesMut::new(),
        }
    }

    /// The next message; `None` when the client has closed. Pings are answered on the way.
    ///
    /// Not cancel safe: a dropped future may have taken part of a message.
    ///
    /// # Errors
    ///
    /// The connection's, or a breach of the protocol.
    pub(crate) async fn read(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let Some(frame) = take_frame(&mut self.received)? else {
                if self.io.read_buf(&mut self.received).await? == 0 {
                    return Ok(None);
                }
                continue;
            };
            match frame.opcode {
                CONTINUATION | TEXT | BINARY => {
                    if self.message.len() + frame.payload.len() > MESSAGE_LIMIT {
                        return Err(broken("a message is too large"));
                    }
                    if self.message.is_empty() && frame.last {
                        return Ok(Some(frame.payload.freeze()));
                    }
                    self.message.extend_from_slice(&frame.payload);
                    if frame.last {
                        return Ok(Some(self.message.split().freeze()));
                    }
                }
                PING => self.write_frame(PONG, &frame.payload).await?,
                PONG => {}
                CLOSE => return Ok(None),
                _ => return Err(broken("unknown opcode")),
            }
        }
    }

    /// Sends a binary message of one channel.
    ///
    /// # Errors
    ///
    /// The connection's.
    pub(crate) async fn send(&mut self, channel: u8, data: &[u8]) -> io::Result<()> {
        let mut payload = Vec::with_capacity(data.len() + 1);
        payload.push(channel);
        payload.extend_from_slice(data);
        self.write_frame(BINARY, &payload).await
    }

    /// Ends the connection in good order.
    ///
    /// # Errors
    ///
    /// The connection's.
    pub(crate) async fn close(&mut self) -> io::Result<()> {
        self.write_frame(CLOSE, &1000_u16.to_be_bytes()).await?;
        self.io.shutdown().await
    }

    async fn write_frame(&mut self, opcode: u8, payload: &[u8]) -> io::Result<()> {
        let mut head = vec![0x80 | opcode];
        match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
            (Ok(length @ 0..=125), _) => head.push(length),
            (_, Ok(length)) => {
                head.push(126);
                head.extend_from_slice(&length.to_be_bytes());
            }
            _ => {
                head.push(127);
                head.extend_from_slice(&u64::try_from(payload.len()).unwrap_or(u64::MAX).to_be_bytes());
            }
        }
        head.extend_from_slice(payload);
        self.io.write_all(&head).await?;
        self.io.flush().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_key_is_the_rfcs() {
        assert_eq!(
            accept_key("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    fn frame(flags: u8, payload: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        out.extend_from_slice(&[flags, 0x80 | u8::try_from(payload.len()).unwrap(), 1, 2, 3, 4]);
        out.extend(
            payload
                .iter()
                .zip([1_u8, 2, 3, 4].iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
        out
    }

    #[test]
    fn a_frame_is_taken_when_it_is_whole() {
        let whole = frame(0x82, b"\x00hello");
        for cut in 0..whole.len() {
            let mut part = BytesMut::from(whole.get(..cut).unwrap());
            assert!(take_frame(&mut part).unwrap().is_none());
        }
        let mut buffer = whole.clone();
        let received = take_frame(&mut buffer).unwrap().unwrap();
        assert_eq!(
            (received.opcode, &received.payload[..]),
            (BINARY, &b"\x00hello"[..])
        );
        assert!(buffer.is_empty());
    }

    #[test]
    fn breaches_of_the_protocol_are_refused() {
        assert!(take_frame(&mut BytesMut::from(&[0x82, 0x01, 0x00][..])).is_err());
        assert!(take_frame(&mut BytesMut::from(&[0xf2, 0x81, 0x00][..])).is_err());
        let mut huge = BytesMut::from(&[0x82, 0xff][..]);
        huge.extend_from_slice(&u64::MAX.to_be_bytes());
        assert!(take_frame(&mut huge).is_err());
    }

    #[tokio::test]
    async fn fragments_are_joined_and_pings_answered() {
        let (client, server) = tokio::io::duplex(1024);
        let mut socket = Socket::new(server);
        let (mut reads, mut writes) = tokio::io::split(client);
        for part in [
            frame(0x02, b"ab"),
            frame(0x89, b"p"),
            frame(0x80, b"cd"),
            frame(0x88, b""),
        ] {
            writes.write_all(&part).await.unwrap();
        }
        assert_eq!(socket.read().await.unwrap().unwrap(), "abcd");
        assert_eq!(socket.read().await.unwrap(), None);
        let mut pong = [0; 3];
        reads.read_exact(&mut pong).await.unwrap();
        assert_eq!(pong, [0x8a, 1, b'p']);
    }
}
