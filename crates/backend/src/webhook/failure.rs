//! Why an attempt did not deliver.

use std::error::Error;

use http::StatusCode;
use kaudit_dial::ClientError;

/// The class of a failed attempt; each is a value of the `class` label of kaudit's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FailureClass {
    /// No connection: name, TCP, proxy, TLS.
    Connect,
    /// Nothing to show who one is: a token file, a certificate, a plugin.
    Credential,
    /// No answer in time.
    Timeout,
    /// The connection broke before or within the answer.
    Broken,
    /// A redirect that is not followed.
    Redirect,
    /// A content type that cannot be parsed.
    ContentType,
    /// 429.
    TooManyRequests,
    /// Any other 4xx.
    Client,
    /// 5xx.
    Server,
    /// Any other status that is not a success.
    Status,
}

impl FailureClass {
    pub(super) const ALL: [Self; 10] = [
        Self::Connect,
        Self::Credential,
        Self::Timeout,
        Self::Broken,
        Self::Redirect,
        Self::ContentType,
        Self::TooManyRequests,
        Self::Client,
        Self::Server,
        Self::Status,
    ];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Credential => "credential",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
            Self::Redirect => "redirect",
            Self::ContentType => "content_type",
            Self::TooManyRequests => "too_many_requests",
            Self::Client => "client_error",
            Self::Server => "server_error",
            Self::Status => "status",
        }
    }

    pub(super) fn of_status(status: StatusCode) -> Self {
        match status.as_u16() {
            429 => Self::TooManyRequests,
            400..=499 => Self::Client,
            500.. => Self::Server,
            _ => Self::Status,
        }
    }
}

/// One failed attempt.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) class: FailureClass,
    /// The error's text, upstream's where upstream has one.
    pub(super) message: String,
    /// Status and beginning of the answer, if there was one.
    pub(super) quoted: String,
}

impl Failure {
    pub(super) fn new(class: FailureClass, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
            quoted: String::new(),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let class = match &error {
            ClientError::Connect(_) => FailureClass::Connect,
            ClientError::Credential(_) => FailureClass::Credential,
            _ => FailureClass::Broken,
        };
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            message.push_str(&format!(": {error}"));
            cause = error.source();
        }
        Self::new(class, message)
    }
}
