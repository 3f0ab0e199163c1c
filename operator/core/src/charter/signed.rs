//! A charter's signatures: who lets it be in force.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Charter, CharterError};
use crate::ids::{PartyName, SiteName};
use crate::sign::{Envelope, SignError};

/// The longest signed charter, in bytes.
const MAX_CHARTER_BYTES: usize = 4 << 20;
const MAX_SIGNATURES: usize = super::MAX_PARTIES * 2;

/// Why a charter is not in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Larger than any real charter.
    #[error(
        "charter of {bytes} bytes with {signatures} signatures is too large; sites, parties and signatures have limits"
    )]
    TooLarge {
        /// Bytes of its payload.
        bytes: usize,
        /// Its signatures.
        signatures: usize,
    },
    /// The payload is no charter.
    #[error("charter: {0}")]
    Sign(#[from] SignError),
    /// The text has mistakes.
    #[error("charter {name} version {version} has {} mistakes: {}", errors.len(), join(errors))]
    Text {
        /// Which charter.
        name: String,
        /// Which version.
        version: u64,
        /// All of them.
        errors: Vec<CharterError>,
    },
    /// Too few parties signed.
    #[error("charter {name} version {version}: {} of the {needed} parties that version {by} demands have signed it ({}); have others of its parties sign", signed.len(), names(signed))]
    TooFewSignatures {
        /// Which charter.
        name: String,
        /// Which version.
        version: u64,
        /// Whose threshold is missed.
        by: u64,
        /// That threshold.
        needed: u32,
        /// Who has signed.
        signed: Vec<PartyName>,
    },
    /// A chain begins with version 1.
    #[error("charter {name}: version {found} is not the first; begin with version 1 and go on in order")]
    NotFirst {
        /// Which charter.
        name: String,
        /// Its version.
        found: u64,
    },
    /// Not the next version of the same federation.
    #[error(
        "charter {name} version {found} does not follow charter {before} version {version}; keep the name and add one to the version"
    )]
    NotNext {
        /// The offered charter.
        name: String,
        /// Its version.
        found: u64,
        /// The charter in force.
        before: String,
        /// Its version.
        version: u64,
    },
    /// Epochs bear numbers: one number is one site for good.
    #[error(
        "charter {name} version {version}: number {number} belonged to site {before} and is given to {now}; numbers are never given to another site"
    )]
    NumberReused {
        /// The offered charter.
        name: String,
        /// Its version.
        version: u64,
        /// The number.
        number: u32,
        /// Whose it was.
        before: SiteName,
        /// Whose it would be.
        now: SiteName,
    },
    /// Nothing to verify.
    #[error("no charter is given; make one with `kubectl regent charter init`")]
    Empty,
}

fn join(errors: &[CharterError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn names(parties: &[PartyName]) -> String {
    if parties.is_empty() {
        return "none".to_owned();
    }
    parties.iter().map(PartyName::as_str).collect::<Vec<_>>().join(", ")
}

/// A charter as it travels: one envelope, signed by parties under their names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SignedCharter(pub Envelope);

impl SignedCharter {
    /// Verifies a charter that is trusted as it is given (pinned at installation): its
    /// text, and that its own threshold of different parties signed it.
    pub fn verify_pinned(&self) -> Result<Charter, SignatureError> {
        let charter = self.text()?;
        self.demand(&charter, &charter)?;
        Ok(charter)
    }

    /// Verifies version 1, signed by its own threshold.
    pub fn verify_first(&self) -> Result<Charter, SignatureError> {
        let charter = self.verify_pinned()?;
        if charter.version == 1 {
            Ok(charter)
        } else {
            Err(SignatureError::NotFirst { name: charter.name, found: charter.version })
        }
    }

    /// Verifies the version that follows `before`: signed by the threshold of `before`
    /// and by its own.
    pub fn verify_next(&self, before: &Charter) -> Result<Charter, SignatureError> {
        let charter = self.text()?;
        if charter.name != before.name || Some(charter.version) != before.version.checked_add(1) {
            return Err(SignatureError::NotNext {
                name: charter.name,
                found: charter.version,
                before: before.name.clone(),
                version: before.version,
            });
        }
        self.demand(&charter, before)?;
        self.demand(&charter, &charter)?;
        keeps_numbers(&charter, before)?;
        Ok(charter)
    }

    /// Verifies versions 1 to the last, in order, and returns the last.
    pub fn verify_chain(chain: &[Self]) -> Result<Charter, SignatureError> {
        let (first, rest) = chain.split_first().ok_or(SignatureError::Empty)?;
        rest.iter().try_fold(first.verify_first()?, |before, next| next.verify_next(&before))
    }

    fn text(&self) -> Result<Charter, SignatureError> {
        let (bytes, signatures) = (self.0.payload.len(), self.0.signatures.len());
        if bytes > MAX_CHARTER_BYTES || signatures > MAX_SIGNATURES {
            return Err(SignatureError::TooLarge { bytes, signatures });
        }
        let charter: Charter = self.0.peek()?;
        let errors = charter.errors();
        if errors.is_empty() {
            Ok(charter)
        } else {
            Err(SignatureError::Text { name: charter.name, version: charter.version, errors })
        }
    }

    /// Demands the threshold of `by`, of its parties and with its keys.
    fn demand(&self, charter: &Charter, by: &Charter) -> Result<(), SignatureError> {
        let signed: BTreeSet<&PartyName> =
            by.parties.iter().filter(|p| self.0.is_signed_by(p.name.as_str(), &p.key)).map(|p| &p.name).collect();
        // A threshold below what the text allows must not let anything through either.
        let needed = by.threshold.max(1);
        if signed.len() >= usize::try_from(needed).unwrap_or(usize::MAX) {
            return Ok(());
        }
        Err(SignatureError::TooFewSignatures {
            name: charter.name.clone(),
            version: charter.version,
            by: by.version,
            needed,
            signed: signed.into_iter().cloned().collect(),
        })
    }
}

fn keeps_numbers(charter: &Charter, before: &Charter) -> Result<(), SignatureError> {
    let numbers = before.sites_by_number();
    for site in &charter.sites {
        let owner = numbers.get(&site.number).filter(|s| s.name != site.name);
        if let Some(owner) = owner {
            return Err(SignatureError::NumberReused {
                name: charter.name.clone(),
                version: charter.version,
                number: site.number,
                before: owner.name.clone(),
                now: site.name.clone(),
            });
        }
    }
    Ok(())
}
