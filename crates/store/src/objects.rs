//! A bucket as the store needs one: few operations, each all or nothing.
//!
//! The store itself knows no protocol. [`Objects`] is S3 (feature `s3`), and in tests a bucket in memory that
//! breaks off where it is told to.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::StoreError;

/// A bucket that holds a store's files. Its clones are the same.
#[derive(Clone)]
pub struct Bucket {
    pub(crate) objects: Arc<dyn Objects>,
    pub(crate) options: BucketOptions,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bucket").field(&self.options.url()).finish()
    }
}

/// Where a bucket is and how one gets there; nothing of it is secret. It is kept beside the local files, so that
/// who has the directory finds the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[non_exhaustive]
pub struct BucketOptions {
    /// The bucket's name.
    pub bucket: String,
    /// What all keys begin with, without `/` at its ends; empty for none.
    pub prefix: String,
    /// `https://HOST[:PORT]` of a server that is not Amazon's.
    pub endpoint: Option<String>,
    /// The region that requests are signed for. Default `us-east-1`, or what the environment says.
    pub region: Option<String>,
    /// Whether the bucket is part of the path and not of the host. Default: with an endpoint.
    pub path_style: Option<bool>,
    /// Whether an endpoint without TLS may be used.
    pub allow_http: bool,
    /// Authorities that may have signed the server's certificate, PEM, instead of the public ones.
    pub ca_file: Option<PathBuf>,
    /// Credentials as the AWS command line keeps them, read again when they change. Default: the environment, and then
    /// what the machine or the pod has.
    pub credentials_file: Option<PathBuf>,
    /// The section in that file. Default `default`.
    pub profile: Option<String>,
    /// Bytes of files that are kept locally, at most; those that are being read come on top.
    pub cache_bytes: u64,
    /// The writer that this one takes over from.
    #[serde(skip)]
    pub take_over_from: Option<String>,
    /// The name of who writes from the directory, made when it is first used.
    pub(crate) writer: String,
}

impl BucketOptions {
    /// A bucket of Amazon's.
    #[must_use]
    pub fn new(bucket: String, prefix: String) -> Self {
        Self {
            bucket,
            prefix,
            cache_bytes: 20 << 30,
            ..Self::default()
        }
    }

    /// `s3://BUCKET[/PREFIX]`.
    #[must_use]
    pub fn url(&self) -> String {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        format!("s3://{}{slash}{}", self.bucket, self.prefix)
    }

    /// Whether both name the same files.
    pub(crate) fn is_same_place(&self, other: &Self) -> bool {
        (&self.bucket, &self.prefix) == (&other.bucket, &other.prefix)
    }
}

/// An object that a list names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) key: String,
    pub(crate) bytes: u64,
}

/// What became of a name that was to be new.
#[cfg_attr(
    not(any(test, feature = "s3")),
    expect(dead_code, reason = "only a bucket answers so, and there is none")
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Created {
    /// It holds what was given.
    Now,
    /// Somebody has it already; nothing was changed.
    Taken,
}

/// Why a bucket did not do something.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) kind: RefusalKind,
    pub(crate) source: Arc<dyn std::error::Error + Send + Sync>,
}

/// The kinds of refusals that are told apart.
#[cfg_attr(
    not(any(test, feature = "s3")),
    expect(dead_code, reason = "only a bucket answers so, and there is none")
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusalKind {
    /// There is no such object.
    Missing,
    /// The bucket does not let us, or does not know who we are.
    Denied,
    /// It could not be reached or did not answer as it should. What was asked for may have been done.
    Failed,
}

impl Refusal {
    #[cfg(any(test, feature = "s3"))]
    pub(crate) fn new(
        kind: RefusalKind,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            kind,
            source: Arc::from(source.into()),
        }
    }

    /// As an error of the store, which says what was done to which object.
    pub(crate) fn at(self, doing: &'static str, url: &str, key: &str) -> StoreError {
        StoreError::Bucket {
            doing,
            object: format!("{url}/{key}"),
            denied: self.kind == RefusalKind::Denied,
            source: self.source,
        }
    }
}

/// The operations on a bucket. Keys are those below the store's prefix. They block, and each ends by itself after a
/// bounded time without progress.
pub(crate) trait Objects: Send + Sync {
    /// Everything whose key begins with the folder `below`, in the order of keys; after `after` where it is given.
    fn list(&self, below: &str, after: Option<&str>) -> Result<Vec<Listed>, Refusal>;

    /// Gives the object of `bytes` bytes to `into`, piece by piece and in order.
    fn read(
        &self,
        key: &str,
        bytes: u64,
        into: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), Refusal>;

    /// Makes a small object, unless its name is taken.
    fn create(&self, key: &str, content: &[u8]) -> Result<Created, Refusal>;

    /// Makes an object of the `bytes` bytes of a file. Nobody sees a part of it.
    fn upload(&self, key: &str, file: &std::fs::File, bytes: u64) -> Result<(), Refusal>;

    /// Removes objects, whether they are there or not.
    fn remove(&self, keys: &[String]) -> Result<(), Refusal>;
}
