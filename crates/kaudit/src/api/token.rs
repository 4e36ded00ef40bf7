//! The secret that the API asks for.

use std::fmt;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq as _;

/// A shorter token could be guessed.
const MIN_LENGTH: usize = 16;

/// A longer file is no token.
const MAX_FILE_BYTES: u64 = 4096;

/// The API's token. It is compared in constant time and never printed.
pub(crate) struct Token(Vec<u8>);

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    /// Its file can be neither read nor made.
    #[error("cannot read or make the API's token `{}`", path.display())]
    File { path: PathBuf, source: io::Error },
    /// The file's content is too short or too long.
    #[error(
        "`{}` is no token: it has {length} letters and needs {MIN_LENGTH} to {MAX_FILE_BYTES}; delete it, and a new one \
         is made at the next start",
        path.display()
    )]
    Length { path: PathBuf, length: u64 },
    /// The system has no random bytes.
    #[error("the system gives no random bytes for the API's token")]
    NoRandomness,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// Reads the token in `path`.
    pub(crate) fn read(path: &Path) -> Result<Self, TokenError> {
        let file = |source| TokenError::File {
            path: path.to_owned(),
            source,
        };
        let length = std::fs::metadata(path).map_err(file)?.len();
        let wrong = |length| TokenError::Length {
            path: path.to_owned(),
            length,
        };
        if length > MAX_FILE_BYTES {
            return Err(wrong(length));
        }
        let content = std::fs::read(path).map_err(file)?;
        let token = content.trim_ascii();
        if token.len() < MIN_LENGTH {
            return Err(wrong(token.len() as u64));
        }
        Ok(Self(token.to_vec()))
    }

    /// Reads the token in `path`, or makes one there that only its owner can read.
    pub(crate) fn read_or_make(path: &Path) -> Result<Self, TokenError> {
        match Self::read(path) {
            Err(TokenError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            read => return read,
        }
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|_| TokenError::NoRandomness)?;
        let token = URL_SAFE_NO_PAD.encode(random);
        write(path, &token).map_err(|source| TokenError::File {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self(token.into_bytes()))
    }

    /// Whether `shown` is this token.
    pub(crate) fn is(&self, shown: &[u8]) -> bool {
        self.0.ct_eq(shown).into()
    }

    /// Whether a request shows it.
    pub(crate) fn is_shown(&self, headers: &http::HeaderMap) -> bool {
        let shown = headers.get(http::header::AUTHORIZATION);
        shown
            .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "))
            .is_some_and(|shown| self.is(shown))
    }

    /// The header that shows it.
    pub(crate) fn header(&self) -> Option<http::HeaderValue> {
        let mut value = http::HeaderValue::from_bytes(&[b"Bearer ", self.0.as_slice()].concat()).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// Whole or not at all: a power cut must not leave an empty file, which would keep the next process from starting.
fn write(path: &Path, token: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(format!("{token}\n").as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    std::fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_token_is_made_once_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(path.with_extension("new"), "half of it, left by a crash").unwrap();
        let made = Token::read_or_make(&path).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let read = Token::read_or_make(&path).unwrap();
        assert!(read.is(&made.0) && !read.is(b"") && !read.is(&made.0[1..]));
        assert_eq!(format!("{read:?}"), "Token");

        std::fs::write(&path, "short\n").unwrap();
        assert!(matches!(
            Token::read_or_make(&path),
            Err(TokenError::Length { length: 5, .. })
        ));
        assert!(matches!(
            Token::read(&folder.path().join("absent")),
            Err(TokenError::File { .. })
        ));
    }
}
