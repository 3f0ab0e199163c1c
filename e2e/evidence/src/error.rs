//! What can go wrong before anything can be judged.

use std::path::PathBuf;

/// An error of reading or writing evidence.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// A file or directory can't be read.
    #[error("{path}: can't be read: {source}")]
    Read {
        /// What was read.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file can't be written.
    #[error("{path}: can't be written: {source}")]
    Write {
        /// What was written.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: is no {what}: {source}")]
    Parse {
        /// What was read.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// Why it isn't.
        source: serde_json::Error,
    },
}

impl EvidenceError {
    pub(crate) fn read(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> EvidenceError {
        let path = path.into();
        move |source| EvidenceError::Read { path, source }
    }

    pub(crate) fn write(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> EvidenceError {
        let path = path.into();
        move |source| EvidenceError::Write { path, source }
    }
}
