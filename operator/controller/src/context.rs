//! What every part of the operator knows of its site: its name, the charter, its keys.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use regent_core::charter::{Charter, SignedCharter};
use regent_core::ids::SiteName;
use regent_core::sign::{Digest, Envelope, Statement};
use regent_shell::tls::{SiteIdentity, TlsError};

/// Why the operator can't start with what it was given.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// Others may read a private key.
    #[error("{path} has mode {mode:04o}: others could sign in this site's name; run `chmod 0600 {path}`")]
    KeyMode {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The charter is not in force.
    #[error("{path}: {error}")]
    Charter {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        error: String,
    },
    /// The charter does not name the site.
    #[error("charter {charter} version {version} names no site {site}; pass --site with one of: {known}")]
    UnknownSite {
        /// The charter's name.
        charter: String,
        /// Its version.
        version: u64,
        /// The site.
        site: SiteName,
        /// The sites that it names.
        known: String,
    },
    /// The keys are missing, unreadable or another site's.
    #[error(transparent)]
    Identity(#[from] TlsError),
}

/// What every part of the operator knows of its site.
#[derive(Debug, Clone)]
pub struct Context {
    /// This site.
    pub site: SiteName,
    /// The charter in force.
    pub charter: Charter,
    /// As it was signed.
    pub charter_envelope: Envelope,
    /// The site's keys.
    pub identity: SiteIdentity,
}

impl Context {
    /// Reads and verifies the charter and the keys. With `private_files`, key files that
    /// others may read are refused: outside a cluster nothing else protects them.
    pub fn load(site: &SiteName, charter: &Path, keys: &Path, private_files: bool) -> Result<Self, ContextError> {
        let (charter_envelope, charter) = load_charter(charter)?;
        if charter.site(site).is_none() {
            let known: Vec<&str> = charter.sites.iter().map(|s| s.name.as_str()).collect();
            return Err(ContextError::UnknownSite {
                known: known.join(", "),
                charter: charter.name,
                version: charter.version,
                site: site.clone(),
            });
        }
        if private_files {
            ["site.key", "ca.key", "tls.key"].iter().try_for_each(|name| check_private(&keys.join(name)))?;
        }
        let identity = SiteIdentity::load(keys, site, &charter)?;
        Ok(Self { site: site.clone(), charter, charter_envelope, identity })
    }

    /// A secret of this site that is the same at each start and in each replica.
    pub fn derived_secret(&self, purpose: &str) -> [u8; 32] {
        let mut material = purpose.as_bytes().to_vec();
        material.push(0);
        material.extend(self.identity.key.to_bytes());
        Digest::of(&material).0
    }

    /// Signs a statement in this site's name.
    pub fn sign<T: Statement>(&self, statement: &T) -> Envelope {
        Envelope::sign(statement, self.site.as_str(), &self.identity.key)
    }
}

fn check_private(path: &Path) -> Result<(), ContextError> {
    let mode = fs::metadata(path).map_or(0, |m| m.permissions().mode() & 0o7777);
    if mode & 0o077 == 0 { Ok(()) } else { Err(ContextError::KeyMode { path: path.to_owned(), mode }) }
}

fn load_charter(path: &Path) -> Result<(Envelope, Charter), ContextError> {
    let bad = |error: String| ContextError::Charter { path: path.to_owned(), error };
    let text = fs::read(path).map_err(|e| bad(format!("{e}; it should hold the signed charter")))?;
    let envelope: Envelope = serde_json::from_slice(&text)
        .map_err(|e| bad(format!("not a signed envelope in JSON ({e}); `kubectl regent charter init` makes one")))?;
    let signed = SignedCharter(envelope);
    let charter = signed.verify_pinned().map_err(|e| bad(e.to_string()))?;
    Ok((signed.0, charter))
}
