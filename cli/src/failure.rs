//! Why a command failed, and its exit code.

use std::io;
use std::process::ExitCode;

use tallymesh::StateError;

/// Why a command ends early. Scripts depend on the exit codes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The answer is no: 1.
    #[error("{0}")]
    No(String),
    /// Bad usage or input: 2.
    #[error("{0}")]
    Input(String),
    /// The node cannot be reached, or it cannot do its work: 3.
    #[error("{0}")]
    Node(String),
    /// Every message has been written already.
    #[error("exit code {0}")]
    Exit(u8),
}

impl Failure {
    /// An error of writing to stdout. A closed pipe is no error: the reader has read enough.
    pub(crate) fn output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Exit(0),
            _ => Self::Input(format!("cannot write the output: {error}")),
        }
    }

    /// A saved state that cannot be read or made.
    pub(crate) fn state(error: StateError) -> Self {
        Self::Input(error.to_string())
    }

    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::No(_) => 1,
            Self::Input(_) => 2,
            Self::Node(_) => 3,
            Self::Exit(code) => *code,
        }
    }

    /// The message for the user, if there is one.
    pub(crate) fn message(&self) -> Option<&str> {
        match self {
            Self::No(message) | Self::Input(message) | Self::Node(message) => Some(message),
            Self::Exit(_) => None,
        }
    }

    /// Writes the message to stderr, and returns the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        if let Some(message) = self.message() {
            crate::style::complain("error", message);
        }
        ExitCode::from(self.code())
    }
}
