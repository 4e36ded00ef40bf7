//! The access log's lines: what an ordinary proxy would say of a request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method, Uri, Version};
use kaudit_event::{MicroTime, Text, UserInfo};
use serde::Serialize;

/// A request that ended.
///
/// It is no audit event: nothing waits for it, it is there at every level, and it may be lost.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Access {
    /// When its head was read.
    pub received: SystemTime,
    /// What its events have; `None` for what was refused before it could have any.
    pub audit_id: Option<Text>,
    /// Who asked, where that was learnt.
    pub user: Option<Arc<UserInfo>>,
    /// The peer.
    pub client: SocketAddr,
    /// Its method.
    pub method: Method,
    /// Its target.
    pub uri: Uri,
    /// What the client speaks.
    pub version: Version,
    /// The answer's code; `None` when the client left before it.
    pub code: Option<u16>,
    /// Bytes of its body, and of a session from the client.
    pub bytes_in: u64,
    /// Bytes of the answer's body, and of a session to the client.
    pub bytes_out: u64,
    /// From its head to the last byte.
    pub duration: Duration,
    /// Of that, until the head of the cluster's answer; `None` when the cluster was not asked.
    pub upstream: Option<Duration>,
    /// What the client says that it is.
    pub user_agent: Option<HeaderValue>,
}

/// A line as it is written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    time: String,
    client: SocketAddr,
    #[serde(rename = "auditID", skip_serializing_if = "Option::is_none")]
    audit_id: Option<std::borrow::Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<std::borrow::Cow<'a, str>>,
    method: &'a str,
    uri: String,
    protocol: String,
    /// 499 for those who left, as other proxies write it.
    code: u16,
    bytes_in: u64,
    bytes_out: u64,
    /// Seconds.
    duration: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<std::borrow::Cow<'a, str>>,
}

impl Access {
    /// Appends one line of JSON, with its newline.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        let line = Line {
            time: MicroTime::from(self.received).to_string(),
            client: self.client,
            audit_id: self.audit_id.as_ref().map(Text::to_string_lossy),
            user: self.user.as_ref().map(|user| user.username.to_string_lossy()),
            method: self.method.as_str(),
            uri: self.uri.to_string(),
            protocol: format!("{:?}", self.version),
            code: self.code.unwrap_or(499),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            duration: seconds(self.duration),
            upstream: self.upstream.map(seconds),
            user_agent: self
                .user_agent
                .as_ref()
                .map(|value| String::from_utf8_lossy(value.as_bytes())),
        };
        // Writing into memory fails for nothing that stands in a line.
        if serde_json::to_writer(&mut *out, &line).is_ok() {
            out.push(b'\n');
        }
    }
}

/// Seconds to the microsecond.
fn seconds(duration: Duration) -> f64 {
    Duration::from_micros(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_line_is_json_whatever_the_client_wrote() {
        let access = Access {
            received: UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456),
            audit_id: Some(Text::from("a\nb")),
            user: None,
            client: SocketAddr::from(([192, 0, 2, 7], 4711)),
            method: Method::GET,
            uri: Uri::from_static("/api/v1/pods?watch=1"),
            version: Version::HTTP_2,
            code: None,
            bytes_in: 0,
            bytes_out: 17,
            duration: Duration::from_nanos(1_500_000_900),
            upstream: Some(Duration::from_millis(2)),
            user_agent: Some(HeaderValue::from_bytes(b"k\"\xff").unwrap()),
        };
        let mut line = Vec::new();
        access.write_line(&mut line);
        assert_eq!(
            String::from_utf8(line).unwrap(),
            concat!(
                r#"{"time":"2023-11-14T22:13:20.123456Z","client":"192.0.2.7:4711","auditID":"a\nb","method":"GET","#,
                r#""uri":"/api/v1/pods?watch=1","protocol":"HTTP/2.0","code":499,"bytesIn":0,"bytesOut":17,"#,
                r#""duration":1.5,"upstream":0.002,"userAgent":"k\"�"}"#,
                "\n"
            )
        );
    }
}
