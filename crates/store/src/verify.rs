//! Whether the files are what the manifest says, and the manifest what it was.

use crate::manifest::Hash;
use crate::{Snapshot, StoreError};

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// A file is not there.
    Missing {
        /// Which.
        path: String,
    },
    /// A file is not what it was when it was sealed.
    Changed {
        /// Which.
        path: String,
        /// Its hash then.
        expected: String,
        /// Its hash now.
        found: String,
    },
    /// A version of the manifest cannot be read.
    Unreadable {
        /// Which.
        version: u64,
        /// Why.
        reason: String,
    },
    /// A version does not follow the one before it: one of the two was changed.
    BrokenChain {
        /// The later one.
        version: u64,
    },
}

/// What was looked at, and what is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// Files that are as they were.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Versions of the manifest that follow each other.
    pub versions: u64,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

impl Snapshot {
    /// Reads every file and every version of the manifest that is kept, in a bucket those that are there.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] or [`StoreError::Bucket`] when the disk or the bucket refuses; what is wrong with the files is no error.
    pub fn verify(&self) -> Result<Verified, StoreError> {
        let mut verified = Verified::default();
        for part in &self.manifest.parts {
            let Some(found) = self.place.hash(part)? else {
                let path = part.path.clone();
                verified.findings.push(Finding::Missing { path });
                continue;
            };
            if found == part.hash {
                verified.files += 1;
                verified.bytes += part.bytes;
            } else {
                verified.findings.push(Finding::Changed {
                    path: part.path.clone(),
                    expected: part.hash.as_str().to_owned(),
                    found: found.as_str().to_owned(),
                });
            }
        }
        let mut before: Option<(u64, Hash)> = None;
        for (version, manifest) in self.place.versions()? {
            match manifest {
                Ok(manifest) => {
                    let follows = before
                        .as_ref()
                        .is_none_or(|(number, hash)| number + 1 == version && *hash == manifest.previous);
                    if follows {
                        verified.versions += 1;
                    } else {
                        verified.findings.push(Finding::BrokenChain { version });
                    }
                    before = Some((version, manifest.hash().clone()));
                }
                Err(error) => {
                    let reason = error.to_string();
                    verified.findings.push(Finding::Unreadable { version, reason });
                }
            }
        }
        Ok(verified)
    }
}
