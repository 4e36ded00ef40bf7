//! Credentials in a file, as the AWS command line keeps them.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;

/// A larger file holds no credentials.
const MAX_BYTES: u64 = 1 << 20;

/// A section of a file. It is read for each request: it is small, and whoever writes a new one wants it to be used.
#[derive(Debug)]
pub(super) struct CredentialsFile {
    path: PathBuf,
    profile: String,
}

impl CredentialsFile {
    pub(super) const fn new(path: PathBuf, profile: String) -> Self {
        Self { path, profile }
    }

    /// The credentials as they are now; the error names the file and what is wrong, never what is in it.
    pub(super) fn read(&self) -> Result<AwsCredential, String> {
        let file = self.path.display();
        let cannot = |error: std::io::Error| format!("the credentials `{file}` cannot be read: {error}");
        let size = std::fs::metadata(&self.path).map_err(cannot)?.len();
        if size > MAX_BYTES {
            return Err(format!("the credentials `{file}` have {size} bytes"));
        }
        let text = std::fs::read_to_string(&self.path).map_err(cannot)?;
        section(&text, &self.profile)
            .ok_or_else(|| format!("the credentials `{file}` have no section `[{}]`", self.profile))?
            .ok_or_else(|| {
                format!(
                    "`[{}]` in the credentials `{file}` lacks aws_access_key_id or aws_secret_access_key",
                    self.profile
                )
            })
    }
}

/// The section `profile`, if it is there, and the credentials in it, if they are whole.
fn section(text: &str, profile: &str) -> Option<Option<AwsCredential>> {
    let mut is_in = false;
    let mut is_there = false;
    let (mut key_id, mut secret_key, mut token) = (None, None, None);
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            is_in = name.trim() == profile;
            is_there |= is_in;
            continue;
        }
        let Some((name, value)) = line.split_once('=').filter(|_| is_in && !line.starts_with('#')) else {
            continue;
        };
        let value = Some(value.trim().to_owned());
        match name.trim() {
            "aws_access_key_id" => key_id = value,
            "aws_secret_access_key" => secret_key = value,
            "aws_session_token" => token = value,
            _ => {}
        }
    }
    is_there.then(|| {
        Some(AwsCredential {
            key_id: key_id?,
            secret_key: secret_key?,
            token,
        })
    })
}

#[async_trait]
impl CredentialProvider for CredentialsFile {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let read = self.read().map(Arc::new);
        read.map_err(|reason| object_store::Error::Generic {
            store: "S3",
            source: reason.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_gives_its_own_credentials_or_says_what_it_lacks() {
        let text = "# x\n[default]\naws_access_key_id = A\naws_secret_access_key=b=c\n\n[ other ]\n\
                    aws_access_key_id=O\n[third]\naws_access_key_id=T\naws_secret_access_key=s\naws_session_token=t\n";
        let found = section(text, "default").unwrap().unwrap();
        assert_eq!(
            (found.key_id.as_str(), found.secret_key.as_str(), found.token),
            ("A", "b=c", None)
        );
        assert!(section(text, "other").unwrap().is_none());
        assert_eq!(
            section(text, "third").unwrap().unwrap().token.as_deref(),
            Some("t")
        );
        assert!(section(text, "fourth").is_none());
    }
}
