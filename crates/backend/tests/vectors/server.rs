//! A plain HTTP/1.1 server that records what arrives and answers as it is told.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    pub(crate) method: String,
    pub(crate) target: String,
    /// Names as they were written.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Arrived {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(present, _)| present == name);
        found.map(|(_, value)| value.as_str())
    }
}

pub(crate) struct Server {
    pub(crate) address: std::net::SocketAddr,
    arrived: Arc<Mutex<Vec<Arrived>>>,
    /// The answer to every request, as bytes.
    answer: Arc<Mutex<Vec<u8>>>,
}

impl Server {
    pub(crate) async fn start(tasks: &TaskTracker) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            arrived: Arc::default(),
            answer: Arc::default(),
        };
        let (arrived, answer) = (Arc::clone(&server.arrived), Arc::clone(&server.answer));
        let inner = tasks.clone();
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (arrived, answer) = (Arc::clone(&arrived), Arc::clone(&answer));
                inner.spawn(async move { drop(serve(stream, &arrived, &answer).await) });
            }
        });
        server
    }

    pub(crate) fn answer(&self, bytes: Vec<u8>) {
        *self.answer.lock().unwrap() = bytes;
    }

    /// What arrived since the last call.
    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        std::mem::take(&mut self.arrived.lock().unwrap())
    }
}

async fn serve(
    mut stream: TcpStream,
    arrived: &Mutex<Vec<Arrived>>,
    answer: &Mutex<Vec<u8>>,
) -> std::io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let mut first = lines.next().unwrap().split(' ');
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let length = headers.iter().find(|(name, _)| name == "Content-Length");
        let mut body = vec![0; length.map_or(0, |(_, value)| value.parse().unwrap())];
        stream.read_exact(&mut body).await?;
        arrived.lock().unwrap().push(Arrived {
            method: first.next().unwrap().to_owned(),
            target: first.next().unwrap().to_owned(),
            headers,
            body,
        });
        let answer = answer.lock().unwrap().clone();
        stream.write_all(&answer).await?;
    }
}
