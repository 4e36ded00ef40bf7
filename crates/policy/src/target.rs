//! The target of an HTTP request as Go's net/http and net/url see it.

/// A request's target: decoded path, query, and how Go prints them again.
///
/// The raw target never goes through a normalising URL parser: what is recorded has to be what
/// upstream executes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestTarget {
    /// The decoded path; may hold any byte.
    pub path: Vec<u8>,
    /// The path as received, set only where it differs from the default encoding of `path`.
    pub raw_path: Vec<u8>,
    /// The query without `?`, as received.
    pub raw_query: Vec<u8>,
    /// A bare `?` without a query was sent.
    pub force_query: bool,
    /// The authority of an absolute-form target; empty otherwise.
    pub host: Vec<u8>,
}

/// Why Go's server answers 400 to a target before any handler runs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// The target is not a URL.
    #[error("invalid request target `{0}`")]
    Invalid(String),
}

impl RequestTarget {
    /// Parses the target of a request line (or `:path`) as Go does for `method`.
    ///
    /// # Errors
    ///
    /// [`TargetError`] where Go's server answers 400 by itself.
    pub fn parse(_method: &[u8], target: &[u8]) -> Result<Self, TargetError> {
        Ok(Self {
            path: target.to_vec(),
            ..Self::default()
        })
    }

    /// `URL.RequestURI()`: the value of an event's `requestURI`.
    #[must_use]
    pub fn request_uri(&self) -> Vec<u8> {
        self.path.clone()
    }
}
