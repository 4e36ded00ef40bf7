//! Errors as one line for a reader.

/// An error with its causes, none of them twice.
#[must_use]
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the handshake failed")]
    struct Handshake(#[source] std::io::Error);

    #[test]
    fn every_cause_is_told_once() {
        let error = Handshake(std::io::Error::other("the certificate has expired"));
        assert_eq!(
            with_causes(&error),
            "the handshake failed: the certificate has expired"
        );
        #[derive(Debug, thiserror::Error)]
        #[error("it did not work: {0}")]
        struct Quoting(#[source] std::io::Error);
        let error = Quoting(std::io::Error::other("no"));
        assert_eq!(with_causes(&error), "it did not work: no");
    }
}
