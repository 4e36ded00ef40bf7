//! Who takes part in the demo.

use anyhow::anyhow;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kaudit_event::{Text, UserInfo};

use crate::exit::Failure;

/// A person with a token; the kubeconfig has a context of the name `kaudit-<name>`.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    pub(crate) name: &'static str,
    pub(crate) user: UserInfo,
    pub(crate) token: String,
}

/// Name of the context, user name, group.
const PEOPLE: [(&str, &str, &str); 4] = [
    ("admin", "admin@example.com", "system:masters"),
    ("developer", "dana@example.com", "developers"),
    ("viewer", "vic@example.com", "viewers"),
    ("intern", "ines@example.com", "interns"),
];

/// Everybody, each with a new token.
pub(crate) fn everybody() -> Result<Vec<Person>, Failure> {
    PEOPLE
        .iter()
        .map(|(name, username, group)| {
            Ok(Person {
                name,
                user: UserInfo {
                    username: Text::from_static(username),
                    groups: Some(vec![Text::from_static(group)]),
                    ..UserInfo::default()
                },
                token: token()?,
            })
        })
        .collect()
}

fn token() -> Result<String, Failure> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::unreachable(anyhow!("the system gives no random bytes: {error}")))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
