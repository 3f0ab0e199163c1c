//! What an agent keeps on its node: enough to come back when all else is gone.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use regent_core::sign::Digest;
use regent_shell::clock;
use regent_shell::tls::{ClientIdentity, TlsError, certificate_expiry};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The state folder can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}; the folder of --state must be writable for the agent's user", path.display())]
pub struct StateError {
    path: PathBuf,
    error: io::Error,
}

/// A certificate with its key, and whose it is.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// The site.
    pub site: String,
    /// The node.
    pub node: String,
    /// Digest of the anchor (PEM) that the certificate was issued under.
    pub anchor: Digest,
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// Its key, PEM; made on this node.
    pub key_pem: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("site", &self.site).field("node", &self.node).finish_non_exhaustive()
    }
}

/// How much of a certificate's life is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// Less than two thirds are over.
    Fresh,
    /// It serves, and should be renewed.
    Renew,
    /// It has run out.
    Over,
}

impl Identity {
    /// The certificate and its key, for a channel.
    pub fn client(&self) -> ClientIdentity {
        ClientIdentity { certificate_pem: self.certificate_pem.clone(), key_pem: self.key_pem.clone() }
    }

    /// Where in its life the certificate is.
    pub fn age(&self) -> Result<Age, TlsError> {
        let (from, until) = certificate_expiry(&self.certificate_pem)?;
        Ok(age(from, until, clock::realtime_ns() / 1_000_000_000))
    }
}

fn age(from: u64, until: u64, now: u64) -> Age {
    if now >= until {
        Age::Over
    } else if now >= from + until.saturating_sub(from) * 2 / 3 {
        Age::Renew
    } else {
        Age::Fresh
    }
}

/// The state folder.
#[derive(Debug, Clone)]
pub struct State {
    dir: PathBuf,
}

impl State {
    /// Opens the folder, and makes it if there is none.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|error| StateError { path: dir.to_owned(), error })?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// The kept identity. What can't be read is as good as none: the agent enrols again.
    pub fn identity(&self) -> Option<Identity> {
        self.read("identity.json")
    }

    /// Keeps an identity, for nobody but this user.
    pub fn keep_identity(&self, identity: &Identity) -> Result<(), StateError> {
        self.write("identity.json", identity)
    }

    /// The addresses of the site's hubs, as a hub last told them.
    pub fn peers(&self) -> Vec<SocketAddr> {
        self.read("peers.json").unwrap_or_default()
    }

    /// Keeps the addresses of the site's hubs.
    pub fn keep_peers(&self, peers: &[SocketAddr]) -> Result<(), StateError> {
        self.write("peers.json", &peers)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let path = self.dir.join(name);
        let bytes = fs::read(&path).ok()?;
        let parsed = serde_json::from_slice(&bytes);
        parsed
            .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "state is unreadable; made anew"))
            .ok()
    }

    /// Whole or not at all: a temporary file, fsync, rename.
    fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), StateError> {
        let (path, temporary) = (self.dir.join(name), self.dir.join(format!(".{name}")));
        let write = || -> io::Result<()> {
            let bytes = serde_json::to_vec(value)?;
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(|error| StateError { path: path.clone(), error })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life() {
        assert_eq!(age(0, 900, 599), Age::Fresh);
        assert_eq!(age(0, 900, 600), Age::Renew);
        assert_eq!(age(0, 900, 899), Age::Renew);
        assert_eq!(age(0, 900, 900), Age::Over);
    }

    #[test]
    fn state_is_kept_for_its_owner_alone_and_torn_state_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("agent")).unwrap();
        assert!(state.identity().is_none() && state.peers().is_empty());
        let identity = Identity {
            site: "ireland".into(),
            node: "n1".into(),
            anchor: Digest::of(b"anchor"),
            certificate_pem: "c".into(),
            key_pem: "k".into(),
        };
        state.keep_identity(&identity).unwrap();
        state.keep_peers(&["10.0.0.1:7444".parse().unwrap()]).unwrap();
        assert_eq!(state.identity().unwrap().key_pem, "k");
        assert_eq!(state.peers().len(), 1);
        let path = dir.path().join("agent/identity.json");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "{").unwrap();
        assert!(state.identity().is_none());
    }
}
