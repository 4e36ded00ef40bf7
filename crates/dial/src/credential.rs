//! Who one is: what a kubeconfig says, and what of it holds now.

mod current;

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use crate::exec::ExecPlugin;
use crate::kubeconfig::{KubeconfigError, read};

pub use current::{CredentialError, CurrentCredential};
pub(crate) use current::{Current, ShownTls};

/// What is shown with each request.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Credential {
    /// Nothing.
    #[default]
    None,
    /// A bearer token.
    Token(String),
    /// A bearer token in a file that may change.
    TokenFile {
        /// The file; it is read again at most once a second.
        file: PathBuf,
        /// The token while the file cannot be read.
        token: Option<String>,
    },
    /// User name and password.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: String,
    },
    /// What a program prints: a token, a certificate, or both.
    Exec(ExecPlugin),
}

impl fmt::Debug for Credential {
    /// Names the kind and never the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Token(_) => "Token",
            Self::TokenFile { .. } => "TokenFile",
            Self::Basic { .. } => "Basic",
            Self::Exec(_) => "Exec",
        })
    }
}

/// PEM text.
#[derive(Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "it is there or somewhere else")]
pub enum Pem {
    /// Itself.
    Inline(Vec<u8>),
    /// In a file that may change.
    File(PathBuf),
}

impl Pem {
    /// The text as it is now.
    pub(crate) fn read(&self) -> Result<Cow<'_, [u8]>, KubeconfigError> {
        match self {
            Self::Inline(content) => Ok(Cow::Borrowed(content)),
            Self::File(file) => read(file).map(Cow::Owned),
        }
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(_) => f.write_str("Inline"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// A client certificate and its key, shown with each connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a pair")]
pub struct Identity {
    /// The chain, leaf first.
    pub certificate: Pem,
    /// The key.
    pub key: Pem,
}
