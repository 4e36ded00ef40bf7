//! Exit codes. They are API: scripts may rely on them.

use std::fmt;
use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done; zero findings included.
    Done,
    /// The answer is no: lint findings, a file that is not formatted.
    No,
    /// Usage, configuration or policy does not parse.
    Usage,
    /// A source, an upstream or a file cannot be reached.
    Unreachable,
    /// Somebody else may, the asker may not.
    NotAllowed,
    /// A bound ended it before all was done; what was printed is right, and not all.
    Partial,
    /// Files are not what they were when they were sealed or exported.
    Damaged,
    /// A signal ended it early.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::No => 1,
            Exit::Usage => 2,
            Exit::Unreachable => 3,
            Exit::NotAllowed => 4,
            Exit::Partial => 5,
            Exit::Damaged => 6,
            Exit::Interrupted => 130,
        })
    }
}

/// An error that knows its exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) error: anyhow::Error,
}

impl Failure {
    /// The user's input is wrong.
    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit: Exit::Usage,
            error: error.into(),
        }
    }

    /// The credentials are not enough.
    pub(crate) fn not_allowed(error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit: Exit::NotAllowed,
            error: error.into(),
        }
    }

    /// Something outside does not answer.
    pub(crate) fn unreachable(error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit: Exit::Unreachable,
            error: error.into(),
        }
    }
}

impl fmt::Display for Failure {
    /// The chain of causes, one line each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)?;
        for cause in self.error.chain().skip(1) {
            write!(f, "\n  caused by: {cause}")?;
        }
        Ok(())
    }
}
