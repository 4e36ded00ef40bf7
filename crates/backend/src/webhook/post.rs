//! One attempt: a POST, its redirects, and the repetitions that the server asks for.
//!
//! Source: k8s.io/client-go rest/request.go and rest/with_retry.go. Unlike there, 301, 302 and 303 are
//! errors (upstream turns them into a GET without body, whose 200 counts as delivered), and 307 and 308
//! are followed on the same origin only.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Version, header};
use kaudit_dial::{Answer, Client, Server};

use super::answer::{MAX_BODY, judge, retry_after};
use super::{Failure, FailureClass};

/// Repetitions within one attempt, when the server says how long to wait.
const MAX_REPETITIONS: u32 = 10;

/// Redirects that are followed.
const MAX_REDIRECTS: u32 = 10;

/// Posts `body` to `target`, a path and query; everything within `timeout`.
pub(super) async fn attempt(
    client: &Client,
    target: &str,
    body: &Bytes,
    timeout: Duration,
) -> Result<(), Failure> {
    tokio::time::timeout(timeout, repeat(client, target, body))
        .await
        .unwrap_or_else(|_| {
            let message = format!("no answer within {} s", timeout.as_secs());
            Err(Failure::new(FailureClass::Timeout, message))
        })
}

async fn repeat(client: &Client, target: &str, body: &Bytes) -> Result<(), Failure> {
    let mut repetitions = 0;
    loop {
        let answer = follow(client, target, body).await?;
        match retry_after(&answer) {
            Some(seconds) if repetitions < MAX_REPETITIONS => {
                repetitions += 1;
                tokio::time::sleep(Duration::from_secs(seconds)).await;
            }
            _ => return judge(&answer),
        }
    }
}

async fn follow(client: &Client, target: &str, body: &Bytes) -> Result<Answer, Failure> {
    let mut target = target.to_owned();
    for _ in 0..=MAX_REDIRECTS {
        let answer = client
            .exchange(MAX_BODY, |version| request(&target, body, version, client))
            .await?;
        let Some(location) = answer.headers.get(header::LOCATION) else {
            return Ok(answer);
        };
        let location = String::from_utf8_lossy(location.as_bytes()).into_owned();
        target = match answer.status.as_u16() {
            307 | 308 => same_origin(&location, client.server()).ok_or_else(|| {
                Failure::new(
                    FailureClass::Redirect,
                    format!("a redirect to another origin is not followed: `{location}`"),
                )
            })?,
            code @ 301..=303 => {
                let message = format!("the server answered {code}, whose redirect would lose the events");
                return Err(Failure::new(FailureClass::Redirect, message));
            }
            _ => return Ok(answer),
        };
    }
    Err(Failure::new(
        FailureClass::Redirect,
        format!("stopped after {MAX_REDIRECTS} redirects"),
    ))
}

/// Path and query of a redirect that stays where it is.
fn same_origin(location: &str, here: &Server) -> Option<String> {
    let rest = if location.starts_with('/') && !location.starts_with("//") {
        location
    } else {
        let there: Server = location.parse().ok()?;
        let is_same = there.is_https == here.is_https
            && there.host.eq_ignore_ascii_case(&here.host)
            && there.port == here.port;
        if !is_same {
            return None;
        }
        let (_, rest) = location.split_once("://")?;
        rest.find(['/', '?']).and_then(|at| rest.get(at..)).unwrap_or("/")
    };
    let rest = rest.split('#').next().unwrap_or_default();
    Some(if rest.starts_with('?') {
        format!("/{rest}")
    } else {
        rest.to_owned()
    })
}

/// Names and values in the order in which Go writes them.
fn request(target: &str, body: &Bytes, version: Version, client: &Client) -> Request<Bytes> {
    let agent = if version == Version::HTTP_2 {
        "Go-http-client/2.0"
    } else {
        "Go-http-client/1.1"
    };
    let mut request = Request::new(body.clone());
    *request.method_mut() = http::Method::POST;
    // A target that is none is refused by the client, which sees no path.
    if let Ok(target) = target.parse() {
        *request.uri_mut() = target;
    }
    let headers = request.headers_mut();
    headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, */*"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if client.accepts_gzip() {
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_on_the_same_origin() {
        let here: Server = "https://a.example:8443/audit".parse().unwrap();
        for (location, expected) in [
            ("/x?y=1#z", Some("/x?y=1")),
            ("https://A.example:8443/x", Some("/x")),
            ("https://a.example:8443?y", Some("/?y")),
            ("https://a.example/x", None),
            ("http://a.example:8443/x", None),
            ("//b.example/x", None),
            ("x", None),
        ] {
            assert_eq!(same_origin(location, &here).as_deref(), expected, "{location}");
        }
    }
}
