//! What can go wrong on a rig. Every error names its object and the way out.

use std::path::{Path, PathBuf};

/// The result of everything the rig does.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure of the rig.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The topology file says something impossible.
    #[error("topology: {field}: {problem}; {remedy}")]
    Topology {
        /// Path of the field in the file.
        field: String,
        /// What is wrong with it.
        problem: String,
        /// What to write instead.
        remedy: String,
    },
    /// The machine lacks something.
    #[error("this machine can't carry a rig:\n{}", .0.iter().map(|m| format!("  - {m}")).collect::<Vec<_>>().join("\n"))]
    Needs(Vec<String>),
    /// A program that the rig ran failed.
    #[error("`{command}` failed ({status}): {output}")]
    Command {
        /// The command line.
        command: String,
        /// Its exit status, or why it could not be started.
        status: String,
        /// The end of what it printed.
        output: String,
    },
    /// A fact that was waited for did not come.
    #[error("{what} did not happen within {seconds} s{hint}")]
    Timeout {
        /// The fact.
        what: String,
        /// How long it was waited for.
        seconds: u64,
        /// Where to look.
        hint: String,
    },
    /// A name that the rig doesn't know.
    #[error("{kind} {name:?} is unknown on rig {rig:?}; known: {known}")]
    Unknown {
        /// What kind of thing was asked for.
        kind: &'static str,
        /// The name asked for.
        name: String,
        /// The rig.
        rig: String,
        /// What exists.
        known: String,
    },
    /// The rig isn't up.
    #[error("rig {name:?} is not up ({path} is missing); start it with `regent-rig --rig {name} up TOPOLOGY`")]
    NotUp {
        /// The rig.
        name: String,
        /// The file that says so.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A key or a certificate could not be made.
    #[error("certificate of {subject}: {source}")]
    Pki {
        /// Whose certificate.
        subject: String,
        /// What the library says.
        source: rcgen::Error,
    },
    /// A state file or topology could not be read.
    #[error("{path} is not valid: {problem}")]
    Format {
        /// The file.
        path: PathBuf,
        /// The parser's message.
        problem: String,
    },
    /// The caller asked for something that makes no sense.
    #[error("{0}")]
    Usage(String),
}

/// Adds the action and the path to an I/O error.
pub(crate) trait At<T> {
    fn at(self, action: &'static str, path: impl AsRef<Path>) -> Result<T>;
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, action: &'static str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|source| Error::Io { action, path: path.as_ref().to_path_buf(), source })
    }
}

impl<T> At<T> for std::result::Result<T, rustix::io::Errno> {
    fn at(self, action: &'static str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(std::io::Error::from).at(action, path)
    }
}
